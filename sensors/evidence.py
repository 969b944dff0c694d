"""Evidence: the scorecard is signed once a day. Checks file their own; the table of bundles follows by condition."""

from datetime import UTC

import dagster as dg

from sensors.lanes import GRAPH

SIGN = dg.define_asset_job(
    "evidence_daily",
    selection=dg.AssetSelection.assets(["report", "scorecard"], ["report", "carbon"], ["evidence", "scorecard"]),
    tags=GRAPH,
    description="The scorecard and the report of this moment, signed and filed.",
)


@dg.schedule(
    name="evidence_daily",
    job=SIGN,
    cron_schedule="43 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day: the signed scorecard.",
)
def evidence_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """One signed card per day."""
    return dg.RunRequest(run_key=f"evidence:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%d}")


JOBS = [SIGN]
SCHEDULES = [evidence_daily]
