"""Cost: the bills are looked at every day; providers restate a month for days after its end."""

from datetime import UTC

import dagster as dg

from sensors.lanes import GRAPH

INGEST = dg.define_asset_job(
    "cost_ingest",
    selection=dg.AssetSelection.assets(["cost", "charges"], ["cost", "files"], ["cost", "periods"]),
    tags=GRAPH,
    description="Every file of the configured source, and the charges of those that count.",
)


@dg.schedule(
    name="cost_daily",
    job=INGEST,
    cron_schedule="13 5 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day: bills, in whatever new or restated files have been delivered. The marts follow.",
)
def cost_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Exports are delivered once to a few times a day."""
    return dg.RunRequest(run_key=f"cost_daily:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%d}")


JOBS = [INGEST]
SCHEDULES = [cost_daily]
