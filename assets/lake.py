"""The warehouse: the file of views that ad-hoc SQL opens."""

from collections.abc import Sequence

import dagster as dg

from assets.conditions import FOLLOW_INPUTS
from greenops_pipelines.resources import Platform, checked


def build(tables: Sequence[dg.AssetKey]) -> tuple[list[dg.AssetsDefinition], list[dg.AssetChecksDefinition]]:
    """The warehouse asset, downstream of `tables`, and its check."""

    @dg.asset(
        key=["lake", "warehouse"],
        group_name="lake",
        owners=["team:platform"],
        kinds={"duckdb"},
        code_version="1",
        deps=list(tables),
        automation_condition=FOLLOW_INPUTS,
        description="warehouse.duckdb: a view for every table of the lake, swapped in whole. Open it read-only, any time.",
    )
    def warehouse(platform: Platform) -> dg.MaterializeResult[None]:
        """Build the views anew if tables, schemas or configured sources changed."""
        lake = platform.lake()
        built = lake.refresh()
        return dg.MaterializeResult(
            metadata={
                "views": len(lake.tables),
                "built anew": built,
                "file": lake.warehouse.name,
                "configured carbon provider": platform.settings().carbon_provider,
            }
        )

    @dg.asset_check(asset=["lake", "warehouse"], blocking=True, description="Every view answers a query.")
    def views_answer(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
        """Opened as a person would: read-only, while runs may write."""
        from greenops_pipelines.lake.inspect import views_measurement

        return checked(context, platform, views_measurement(platform.lake()), dg.AssetCheckSeverity.ERROR)

    return [warehouse], [views_answer]
