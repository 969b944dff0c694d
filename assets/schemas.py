"""The blocking schema check that every table of the lake has."""

import dagster as dg

from greenops_pipelines.lake.schema import Table
from greenops_pipelines.resources import Platform, checked


def schema_check(key: str, table: Table) -> dg.AssetChecksDefinition:
    """A check that the files of `table` fit its declaration and hold no key twice; downstream waits for it."""

    @dg.asset_check(
        asset=key.split("/"),
        name="schema",
        blocking=True,
        description=f"Every file of {table.path} has the declared columns and types and a digest, and no key twice.",
    )
    def schema(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
        from greenops_pipelines.lake.inspect import schema_measurement

        measurement = schema_measurement(platform.lake(), table, key)
        return checked(context, platform, measurement, dg.AssetCheckSeverity.ERROR)

    return schema
