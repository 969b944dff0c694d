"""The project's own definitions, with the hourly ingestion on a schedule of every minute: a test cannot wait an hour.

Nor for a canary drill in real time.
"""

import dagster as dg

from greenops_pipelines.definitions import build_defs
from greenops_pipelines.slo import drill_plans
from sensors.carbon import INGEST, carbon_hourly
from tests.slo.canary_homes import quick_drill

drill_plans.first = quick_drill


@dg.schedule(
    name="carbon_minutely",
    job=INGEST,
    cron_schedule="* * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def carbon_minutely(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    # Once is enough: conditions wait while an input is being made, and here it would be most of the time.
    if context.instance.get_runs_count(dg.RunsFilter(tags={"dagster/schedule_name": "carbon_minutely"})):
        return dg.SkipReason("fired already")
    return carbon_hourly.evaluate_tick(context).run_requests[0]


defs = dg.Definitions.merge(build_defs(), dg.Definitions(schedules=[carbon_minutely]))
