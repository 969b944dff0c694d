"""Cost: the bills are looked at every day, as providers restate a month for days after its end; reports every month and week.

A report follows new bills by the graph's conditions too; the schedules make that of the period that has just ended, by name.
"""

from datetime import UTC

import dagster as dg

from greenops_pipelines.report.periods import Kind, containing
from sensors.lanes import GRAPH

INGEST = dg.define_asset_job(
    "cost_ingest",
    selection=dg.AssetSelection.assets(["cost", "charges"], ["cost", "files"], ["cost", "periods"]),
    tags=GRAPH,
    description="Every file of the configured source, and the charges of those that count.",
)


REPORT = dg.define_asset_job(
    "finops_report",
    selection=dg.AssetSelection.assets(["cost", "report"]),
    tags=GRAPH,
    description="The FinOps report of a month or a week, as its run says, else what is due of both.",
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


@dg.schedule(
    name="finops_report_monthly",
    job=REPORT,
    cron_schedule="23 6 3 * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="On the third of the month, when the bills of the month before are in: its FinOps report, and a statement per tenant.",
)
def finops_report_monthly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Bills that are restated later make the report anew when they come."""
    return _report(context, "month")


@dg.schedule(
    name="finops_report_weekly",
    job=REPORT,
    cron_schedule="23 6 * * 1",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Monday: the FinOps report of the week before.",
)
def finops_report_weekly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """By the days of the charges."""
    return _report(context, "week")


def _report(context: dg.ScheduleEvaluationContext, kind: Kind) -> dg.RunRequest:
    tick = context.scheduled_execution_time.astimezone(UTC)
    period = containing(kind, tick.date()).before().name
    return dg.RunRequest(
        run_key=f"finops_report:{period}",
        run_config={"ops": {"cost__report": {"config": {"period": period}}}},
        tags={"greenops/period": period},
    )


JOBS = [INGEST, REPORT]
SCHEDULES = [cost_daily, finops_report_monthly, finops_report_weekly]
