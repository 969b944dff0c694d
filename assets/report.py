"""What people read: the scorecard and the carbon report."""

import dagster as dg

from assets.conditions import FOLLOW_INPUTS
from greenops_pipelines.lake.tables import SCORECARD
from greenops_pipelines.resources import Platform, checked, table_metadata, written

_OWNERS = ["team:platform"]
_LAST = {"dagster/priority": "-10"}
"""Picked only when nothing else is ready: the scorecard shows the checks of its own run too."""


@dg.asset(
    key=["report", "scorecard"],
    group_name="report",
    owners=_OWNERS,
    kinds={"duckdb", "parquet"},
    code_version="1",
    # Drills are no tables of the warehouse's, and what they measured is to be on the card.
    deps=[["lake", "warehouse"], ["evidence", "bundles"], ["recovery", "gameday"], ["slo", "drill"]],
    automation_condition=FOLLOW_INPUTS,
    op_tags=_LAST,
    description=SCORECARD.comment + " `greenops status` prints it as of the moment of asking.",
)
def scorecard(platform: Platform) -> dg.MaterializeResult[None]:
    """Every criterion's newest measurement."""
    from greenops_pipelines.report.scorecard import counts
    from greenops_pipelines.report.scorecard import scorecard as read

    lake = platform.lake()
    rows = read(lake, platform.now())
    result = lake.write(SCORECARD, rows)
    shown = rows.select(["id", "criterion", "comparison", "target", "measured", "unit", "verdict"])
    figures = {**counts(rows), "scorecard": table_metadata(shown, limit=rows.num_rows)}
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset(
    key=["report", "carbon"],
    group_name="report",
    owners=_OWNERS,
    kinds={"html"},
    code_version="1",
    deps=[
        ["report", "scorecard"],
        ["carbon", "emissions_daily"],
        ["carbon", "sci_daily"],
        ["carbon", "coverage_daily"],
        ["placement", "avoided_monthly"],
    ],
    automation_condition=FOLLOW_INPUTS,
    op_tags=_LAST,
    description="The carbon report: emissions per service, tenant and region, intensity of the grids, scorecard. One HTML file.",
)
def carbon(platform: Platform) -> dg.MaterializeResult[None]:
    """Render the report and put it into reports/ whole."""
    from greenops_pipelines.report.carbon import write_report

    report = write_report(platform.lake(), platform.settings().reports, platform.now())
    return dg.MaterializeResult(metadata={"file": report.path.name, **report.figures})


@dg.asset_check(asset=["report", "scorecard"], description="No criterion that was measured is missed or stale.")
def kept(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A missed criterion warns here and shows red on the scorecard; it stops nothing by itself."""
    from greenops_pipelines.report.scorecard import missed_measurement

    return checked(context, platform, missed_measurement(platform.lake().read(SCORECARD)))


@dg.asset_check(asset=["report", "carbon"], description="The report's total equals the sum of the mart's rows.")
def reconciled(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Read back from the rendered file, not from what rendered it."""
    from greenops_pipelines.report.carbon import reconciliation

    measurement = reconciliation(platform.lake(), platform.settings().reports)
    return checked(context, platform, measurement, dg.AssetCheckSeverity.ERROR)


ASSETS = [scorecard, carbon]
CHECKS = [kept, reconciled]
