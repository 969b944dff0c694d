"""Carbon: fetched every hour with a look back, so that late and revised values arrive by themselves."""

from datetime import UTC, timedelta

import dagster as dg

from greenops_pipelines.settings import load_settings
from sensors.lanes import GRAPH

_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"

INGEST = dg.define_asset_job(
    "carbon_ingest",
    selection=dg.AssetSelection.assets(["carbon", "intensity"], ["carbon", "usage"]),
    tags=GRAPH,
    description="Carbon intensity and resource usage of a range of UTC days, in one run.",
)

FORECAST = dg.define_asset_job(
    "carbon_forecast",
    selection=dg.AssetSelection.assets(["carbon", "forecast"]),
    tags=GRAPH,
    description="The newest forecasts.",
)


@dg.schedule(
    name="carbon_hourly",
    job=INGEST,
    cron_schedule="7 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour: today and the days of the look-back (GREENOPS_CARBON_LOOKBACK_DAYS), for late and revised values.",
)
def carbon_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """One run over a range of days. The marts follow by their automation condition."""
    tick = context.scheduled_execution_time.astimezone(UTC)
    first = tick - timedelta(days=load_settings().carbon_lookback_days)
    return dg.RunRequest(
        run_key=f"carbon_hourly:{tick:%Y-%m-%dT%H}",
        tags={_RANGE_START: f"{first:%Y-%m-%d}", _RANGE_END: f"{tick:%Y-%m-%d}"},
    )


@dg.schedule(
    name="forecast_hourly",
    job=FORECAST,
    cron_schedule="11 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour: the newest forecast of every zone.",
)
def forecast_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Forecasts are kept as issued."""
    return dg.RunRequest(run_key=f"forecast_hourly:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%dT%H}")


JOBS = [INGEST, FORECAST]
SCHEDULES = [carbon_hourly, forecast_hourly]
