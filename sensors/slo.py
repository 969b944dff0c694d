"""SLOs: certified anew once a day, so that the scorecard's figures stay valid. Changes in ops/ are followed at once."""

from datetime import UTC

import dagster as dg

from sensors.lanes import GRAPH

CERTIFY = dg.define_asset_job(
    "slo_certify",
    selection=dg.AssetSelection.groups("slo"),
    tags=GRAPH,
    description="SLO definitions, rendered rules, and certificates confirmed by Prometheus' own rule tests.",
)


@dg.schedule(
    name="slo_daily",
    job=CERTIFY,
    cron_schedule="23 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day: SLOs validated, rendered and certified.",
)
def slo_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Once per day, before the scorecard is signed."""
    return dg.RunRequest(run_key=f"slo:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%d}")


JOBS = [CERTIFY]
SCHEDULES = [slo_daily]
