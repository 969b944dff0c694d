"""A lake with a bill of a few rows, through ingestion and the shipped models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from greenops_pipelines.carbon.factors import read_factors
from greenops_pipelines.cost.allocation import read_cost, tables
from greenops_pipelines.cost.ingest import ingest
from greenops_pipelines.cost.sources import Found
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.cost_tables import COST_BUDGETS, COST_RECONCILIATION, COST_SHARES, COST_UNITS
from greenops_pipelines.lake.dbt import Project
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.tables import CARBON_INTENSITY, DECLARED, EMISSION_FACTORS, REGIONS, RESOURCE_USAGE
from greenops_pipelines.settings import load_settings
from tests.carbon.small_lake import Row, put
from tests.cost import focus_rows

ROOT = Path(__file__).parents[2]
LATER = datetime(2026, 6, 10, tzinfo=UTC)


def cost_lake(
    folder: Path, ops: str, bills: Sequence[Row] | Found, *, intensity: Sequence[Row] = (), usage: Sequence[Row] = ()
) -> Lake:
    """Bills as rows of FOCUS, or as files; every cost model is built, and the sums are reconciled."""
    from greenops_pipelines.cost.reconciliation import reconcile

    project = Project(ROOT / "dbt", folder / "dbt", load_settings().dbt_cache)
    source = bills.source if isinstance(bills, Found) else "file"
    chosen = {table: {"source": source} for table in ("cost_charges", "cost_files", "cost_periods", "cost_reports")}
    lake = Lake(
        LocalFolder(folder / "lake"),
        folder / "warehouse.duckdb",
        {
            "carbon_intensity": {"provider": "file", "signal": "average", "emission_factor_type": "lifecycle"},
            "resource_usage": {"source": "sample"},
            **chosen,
        },
        DECLARED,
        marts=lambda: [mart.table for mart in project.marts],
    )
    (folder / "cost.yaml").write_text(ops, encoding="utf-8")
    declared = read_cost(folder)
    lake.write(EMISSION_FACTORS, read_factors())
    put(lake, REGIONS, [{"region": "eu-west-1", "zone": "IE", "pue": 2.0, "pue_source": "test", "residency": "eu"}])
    if intensity:
        put(lake, CARBON_INTENSITY, intensity)
    if usage:
        put(lake, RESOURCE_USAGE, usage)
    for table, rows in zip((COST_SHARES, COST_BUDGETS, COST_UNITS), tables(declared), strict=True):
        lake.write(table, rows)
    if not isinstance(bills, Found):
        bills = Found("file", folder, (focus_rows.write(folder / "bill.csv", bills),))
    ingest(lake, bills, declared, "run", LATER)
    built = project.build(lake, [mart.table.name for mart in project.marts if mart.group == "cost"])
    assert {t.test.name: t.message for t in built.failed} == {}
    lake.write(COST_RECONCILIATION, reconcile(lake))
    return lake


def charge(day: date, cost: str, **other: Any) -> Row:
    """A charge of a whole day of the tenant acme and the service web, in the billing period of its month."""
    month = day.replace(day=1)
    return (
        focus_rows.USAGE
        | {
            "BillingPeriodStart": f"{month}T00:00:00Z",
            "BillingPeriodEnd": f"{(month + timedelta(days=32)).replace(day=1)}T00:00:00Z",
            "ChargePeriodStart": f"{day}T00:00:00Z",
            "ChargePeriodEnd": f"{day + timedelta(days=1)}T00:00:00Z",
            "Tags": '{"tenant": "acme", "service": "web"}',
            "SkuPriceDetails": None,
            "BilledCost": cost,
            "EffectiveCost": cost,
        }
        | other
    )


def served(day: date, service: str, tenant: str, hours: int = 24) -> list[Row]:
    """A hundred requests in each hour of a day."""
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    keys = {"source": "sample", "service": service, "tenant": tenant, "region": "eu-west-1", "day": day}
    return [keys | {"hour": begin + timedelta(hours=n), "requests": 100.0} for n in range(hours)]


def asked(lake: Lake, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a question."""
    return [tuple(row.values()) for row in lake.query(sql).to_pylist()]
