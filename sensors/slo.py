"""SLOs: events counted every five minutes and incidents opened where a budget burns; certified anew once a day, so that the
scorecard's figures stay valid, and canaries drilled once a week.

Changes in ops/ are followed at once."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from greenops_pipelines.resources import Platform
from sensors.lanes import DRILLS, GRAPH

_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"

DRILLED = dg.AssetSelection.assets(["slo", "drill"], ["slo", "drill_measurements"])
"""What takes minutes of the world's time, and is made by its own job alone."""

COUNTED = dg.AssetSelection.assets(
    ["slo", "metric_series"], ["slo", "metric_samples"], ["slo", "minutes"], ["slo", "days"]
)
"""What arrives by day."""

BUDGETS = dg.AssetSelection.assets(["slo", "error_budget"], ["slo", "burn"], ["slo", "budget_calendar"])
"""What dbt makes of the counts."""

LEDGER = BUDGETS | dg.AssetSelection.assets(["slo", "incidents"])
"""What follows the counts."""

COUNT = dg.define_asset_job(
    "slo_count",
    selection=COUNTED,
    tags=GRAPH,
    description="Samples of the SLOs' metrics, and what happened in every minute, of a range of UTC days.",
)

BUDGET = dg.define_asset_job(
    "slo_budgets",
    # Where Prometheus is down the run that reads it fails, and does not get as far as this check.
    selection=BUDGETS | dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(["slo", "metric_samples"]), "fresh")),
    tags=GRAPH,
    description="Error budgets of rolling and calendar periods and burn rates, from the counts.",
)

INCIDENTS = dg.define_asset_job(
    "slo_incident_records",
    selection=dg.AssetSelection.assets(["slo", "incidents"]),
    tags=GRAPH,
    description="Incidents written down, and what pages prepared filed as evidence.",
)

CERTIFY = dg.define_asset_job(
    "slo_certify",
    # What the drills prove is asked again too: whether a week went by without one.
    selection=(dg.AssetSelection.groups("slo") - DRILLED - COUNTED - LEDGER)
    | dg.AssetSelection.checks_for_assets(["slo", "drill"]),
    tags=GRAPH,
    description="SLO definitions, rendered rules, and certificates confirmed by Prometheus' own rule tests.",
)

DRILL = dg.define_asset_job(
    "canary_drill",
    selection=DRILLED
    | dg.AssetSelection.assets(["slo", "gates"], ["slo", "rollback_certificates"], ["report", "scorecard"]),
    tags=DRILLS,
    description="The canary drills of a week, in real time: bad canaries that are rolled back, and a good one that is promoted.",
)


@dg.schedule(
    name="canary_weekly",
    job=DRILL,
    cron_schedule="11 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Asks every night whether this week's canary drills are held; from Tuesday on it holds them where they are not.",
)
def canary_weekly(
    context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.RunRequest | dg.SkipReason:
    """One run per week; another one on each of the next nights where it was not held to its end."""
    at = context.scheduled_execution_time.astimezone(UTC)
    found = platform.due_canary_week(at)
    if found.week is None:
        return dg.SkipReason(found.why)
    config = {"scenarios": ",".join(found.scenarios), "service": found.service, "batch": found.week}
    return dg.RunRequest(
        run_key=f"canary:{found.week}:{at:%Y-%m-%d}",
        run_config={"ops": {"slo_canary_drill": {"config": config}}},
        tags={"greenops/canary": found.week},
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


@dg.schedule(
    name="slo_counting",
    job=COUNT,
    cron_schedule="*/5 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every five minutes: today's samples and what they count; yesterday's once an hour, and days that are missing.",
)
def slo_counting(
    context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Platform]
) -> list[dg.RunRequest] | dg.SkipReason:
    """A run for the near days, and one for a few of those that were missed; the next tick waits for both."""
    if context.instance.get_runs_count(_UNDER_WAY):
        return dg.SkipReason("the last count is still under way")
    tick = context.scheduled_execution_time.astimezone(UTC)
    return [
        dg.RunRequest(
            run_key=f"slo_counting:{tick:%Y-%m-%dT%H:%M}:{days.first}",
            tags={_RANGE_START: days.first.isoformat(), _RANGE_END: days.last.isoformat()},
        )
        for days in platform.due_budget_days(tick)
    ]


@dg.schedule(
    name="slo_hourly",
    job=BUDGET,
    cron_schedule="8 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour: error budgets and burn rates of what was counted. Warehouse and reports follow.",
)
def slo_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """With the hour's carbon intensity, so that what follows both is made once."""
    return dg.RunRequest(run_key=f"slo_hourly:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%dT%H}")


_UNDER_WAY = dg.RunsFilter(
    job_name="slo_count",
    statuses=[
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ],
)

_ABOUT_TO_BEGIN = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING]
"""A run that has begun may have read the incidents before they changed."""
_RECORD_AGAIN = timedelta(minutes=5)
"""Longer than a run takes: it is asked for anew where it failed or was killed."""
_EVIDENCE_AGAIN = timedelta(hours=1)
"""What could not be gathered a moment ago is not there a moment later."""


@dg.sensor(
    name="slo_burning",
    job=INCIDENTS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Opens an incident where a budget burns, tells whom it concerns, and closes it when the burn is over.",
)
def slo_burning(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """What was decided stands in the incidents' own ledger: a tick that is repeated decides nothing twice.

    A run that writes it down is asked for until it is written, whatever was killed. The cursor is the version it was asked
    for last, and when. No run keys: the same version has to be asked for again where a run failed.
    """
    changes = platform.watch_budgets()
    silent = "; ".join(f"{alert}: {why}" for alert, why in sorted(changes.unknown.items())[:3])
    left = platform.outstanding_incidents()
    if not left:
        return dg.SkipReason(f"nothing opened or closed{': ' + silent if silent else ''}")
    now = platform.now()
    # One that was made longer ago may have been forgotten when its daemon was killed.
    waiting = dg.RunsFilter(job_name=INCIDENTS.name, statuses=_ABOUT_TO_BEGIN, created_after=now - _RECORD_AGAIN)
    if context.instance.get_runs_count(waiting):
        return dg.SkipReason("incidents are about to be written down")
    version, _, before = (context.cursor or "").partition("@")
    if before and version == left.version:
        wait = _EVIDENCE_AGAIN if left.is_recorded else _RECORD_AGAIN
        # What lies ahead, by a clock that was set back, counts as long ago.
        if timedelta(0) <= now - datetime.fromisoformat(before) < wait:
            return dg.SkipReason(f"a run was asked to write this down at {before}")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=f"{left.version}@{now.isoformat()}")


JOBS = [BUDGET, CERTIFY, COUNT, DRILL, INCIDENTS]
SCHEDULES = [canary_weekly, slo_counting, slo_daily, slo_hourly]
SENSORS = [slo_burning]
