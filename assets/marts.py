"""dbt's marts as assets: one box per published model, built together in one dbt start.

Staging models are not boxes of their own: they live in the run's scratch database only, and a mart's lineage goes
through them to the tables they read.
"""

from collections.abc import Iterator

import dagster as dg

from assets.conditions import FOLLOW_INPUTS
from assets.schemas import schema_check
from greenops_pipelines.lake.dbt import Mart, Project
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.resources import Platform, checked_all, column_schema, proven, written


def _spec(mart: Mart) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=list(mart.asset_key),
        deps=[list(key) for key in mart.reads],
        description=mart.table.comment,
        group_name=mart.group,
        owners=list(mart.owners),
        kinds={"dbt", "duckdb", "parquet"},
        code_version=mart.version,
        automation_condition=FOLLOW_INPUTS,
        metadata={"dagster/column_schema": column_schema(mart.table)},
        skippable=True,
    )


def build(project: Project) -> tuple[list[dg.AssetsDefinition], list[dg.AssetChecksDefinition]]:
    """The marts' assets and their schema checks, from dbt's manifest."""
    marts = {mart.table.name: mart for mart in project.marts}
    tests = {test.name: test for test in project.tests}

    @dg.multi_asset(
        name="marts",
        specs=[_spec(mart) for mart in marts.values()],
        check_specs=[
            dg.AssetCheckSpec(test.name, asset=list(marts[test.mart].asset_key), description=test.description)
            for test in tests.values()
        ],
        can_subset=True,
    )
    def dbt_marts(
        context: dg.AssetExecutionContext, platform: Platform
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        """Build the selected marts, test them, and publish all of them or none."""
        selected = [
            name for name, mart in marts.items() if dg.AssetKey(list(mart.asset_key)) in context.selected_asset_keys
        ]
        built = platform.dbt().build(platform.lake(), selected)
        for name, result in built.marts.items():
            yield dg.MaterializeResult(
                asset_key=list(marts[name].asset_key),
                metadata=written(result, {"seconds in dbt": round(built.seconds.get(name, 0.0), 3)}),
                data_version=dg.DataVersion(result.version),
            )
        wanted = {(key.asset_key, key.name) for key in context.selected_asset_check_keys}
        measured = [
            Measurement(
                check=f"{'/'.join(marts[t.test.mart].asset_key)}:{t.test.name}",
                measured=None if t.failures is None else float(t.failures),
                target=0,
                comparison="==",
                unit="rows",
                detail=t.message or t.test.description,
                missing="the models it reads: dbt skipped them after a failure" if t.failures is None else None,
            )
            for t in built.tests
            if (dg.AssetKey(list(marts[t.test.mart].asset_key)), t.test.name) in wanted
        ]
        if measured:
            yield from checked_all(context, platform, measured, dg.AssetCheckSeverity.ERROR)
        if built.failed:
            names = ", ".join(f"{t.test.name} ({t.failures} rows)" for t in built.failed)
            raise dg.Failure(f"dbt tests failed, nothing was published: {names}", allow_retries=False)

    checks = [schema_check("/".join(mart.asset_key), mart.table) for mart in marts.values()]
    return [dbt_marts], checks


@dg.asset_check(asset=["carbon", "emissions_hourly"], description="At least 99 % of the energy has a carbon intensity.")
def coverage(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J2.4."""
    from greenops_pipelines.carbon import checks

    return proven(context, platform, checks.coverage(platform.lake()), "J2.4", ["emissions_hourly"])


@dg.asset_check(
    asset=["carbon", "emissions_daily"],
    additional_deps=[["carbon", "emissions_hourly"]],
    blocking=True,
    description="Usage, hourly and daily emissions hold the same rows, energy and kilograms.",
)
def energy_balance(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Nothing lost on the way, nothing counted twice."""
    from greenops_pipelines.carbon import checks

    measurement = checks.energy_balance(platform.lake())
    reads = ["resource_usage", "emissions_hourly", "emissions_daily"]
    return proven(context, platform, measurement, "J2.4", reads, dg.AssetCheckSeverity.ERROR)


CHECKS = [coverage, energy_balance]
