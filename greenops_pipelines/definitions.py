"""The composition root: everything that Dagster loads. The graph is the same on every machine.

Loading reads dbt's manifest (parsed first if `dbt/` changed) and nothing else; settings are read at run time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets import (
    budgets,
    canary,
    carbon,
    cost,
    declarations,
    evidence,
    lake,
    marts,
    observability,
    placement,
    recovery,
    report,
    slo,
    supply_chain,
)
from greenops_pipelines import wiring
from greenops_pipelines.resources import Platform
from greenops_pipelines.settings import load_settings
from sensors import carbon as carbon_sensors
from sensors import cost as cost_sensors
from sensors import evidence as evidence_sensors
from sensors import graph, maintenance
from sensors import placement as placement_sensors
from sensors import recovery as recovery_sensors
from sensors import slo as slo_sensors
from sensors import supply_chain as supply_sensors


def build_defs(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All assets, checks, jobs, schedules and sensors; `resources` replaces the default `platform`."""
    mart_assets, mart_checks = marts.build(wiring.dbt_project(load_settings()))
    tables = [
        *declarations.ASSETS,
        *slo.ASSETS,
        *budgets.ASSETS,
        *canary.ASSETS,
        *carbon.ASSETS,
        *cost.ASSETS,
        *placement.ASSETS,
        *mart_assets,
    ]
    # The warehouse stands behind the tables that nothing else is made of; what they are made of comes before them.
    used = {
        dep.asset_key
        for asset in [*tables, *canary.DRILLS, *observability.ASSETS, *recovery.ASSETS, *supply_chain.ASSETS]
        for spec in asset.specs
        for dep in spec.deps
    }
    lake_assets, lake_checks = lake.build(sorted(key for asset in tables for key in asset.keys if key not in used))
    return dg.Definitions(
        assets=[
            *tables,
            *lake_assets,
            *evidence.ASSETS,
            *canary.DRILLS,
            *cost.REPORTS,
            *observability.ASSETS,
            *recovery.ASSETS,
            *supply_chain.ASSETS,
            *report.ASSETS,
        ],
        asset_checks=[
            *declarations.CHECKS,
            *slo.CHECKS,
            *budgets.CHECKS,
            *canary.CHECKS,
            *carbon.CHECKS,
            *cost.CHECKS,
            *placement.CHECKS,
            *mart_checks,
            *marts.CHECKS,
            *lake_checks,
            *evidence.CHECKS,
            *observability.CHECKS,
            *recovery.CHECKS,
            *supply_chain.CHECKS,
            *report.CHECKS,
        ],
        jobs=[
            *carbon_sensors.JOBS,
            *cost_sensors.JOBS,
            *evidence_sensors.JOBS,
            *graph.JOBS,
            *maintenance.JOBS,
            *placement_sensors.JOBS,
            *recovery_sensors.JOBS,
            *slo_sensors.JOBS,
            *supply_sensors.JOBS,
        ],
        schedules=[
            *carbon_sensors.SCHEDULES,
            *cost_sensors.SCHEDULES,
            *evidence_sensors.SCHEDULES,
            *maintenance.SCHEDULES,
            *placement_sensors.SCHEDULES,
            *recovery_sensors.SCHEDULES,
            *slo_sensors.SCHEDULES,
            *supply_sensors.SCHEDULES,
        ],
        sensors=[
            *graph.SENSORS,
            *maintenance.SENSORS,
            *placement_sensors.SENSORS,
            *slo_sensors.SENSORS,
            *supply_sensors.SENSORS,
        ],
        resources=resources or {"platform": Platform()},
        executor=dg.in_process_executor,
    )


defs = build_defs()
