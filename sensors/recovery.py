"""Recovery: the GameDay of each month, the second copy twice an hour, and every day the question whether a month was missed."""

from datetime import UTC

import dagster as dg

from greenops_pipelines.resources import Platform
from sensors.lanes import DRILLS, GRAPH

GAMEDAY = dg.define_asset_job(
    "gameday",
    selection=dg.AssetSelection.assets(
        ["ops", "regions"],
        ["ops", "tenants"],
        ["ops", "gamedays"],
        ["recovery", "gameday"],
        ["recovery", "steps"],
        ["evidence", "bundles"],
        ["report", "scorecard"],
    ),
    tags=DRILLS,
    description="The GameDay of a month: failovers and failbacks of real databases, each filed as evidence.",
)

COPY = dg.define_asset_job(
    "recovery_copy",
    selection=dg.AssetSelection.assets(["recovery", "replica"]),
    tags=GRAPH,
    description="The second copy of lake, evidence and Dagster's storage, in another region.",
)

ASK = dg.define_asset_job(
    "recovery_checks",
    selection=dg.AssetSelection.checks_for_assets(["recovery", "gameday"], ["recovery", "replica"]),
    tags=GRAPH,
    description="What the drills so far prove, asked again: whether a month was missed, and whether the copy is fresh.",
)


@dg.schedule(
    name="gameday_monthly",
    job=GAMEDAY,
    cron_schedule="7 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Asks every hour whether this month's GameDay (ops/gamedays.yaml, by default the first Tuesday) is due and not held.",
)
def gameday_monthly(
    context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.RunRequest | dg.SkipReason:
    """One run per month; another one on each of the next days where it was not held, for a week."""
    found = platform.due_gameday(context.scheduled_execution_time.astimezone(UTC))
    if found.month is None:
        return dg.SkipReason(found.why)
    return dg.RunRequest(
        run_key=found.run_key,
        run_config={"ops": {"recovery_gameday": {"config": {"month": found.month}}}},
        tags={"greenops/gameday": found.month},
    )


@dg.schedule(
    name="recovery_copy_half_hourly",
    job=COPY,
    cron_schedule="23,53 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Twice an hour: the second copy, so that it is never as old as an hour.",
)
def recovery_copy_half_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """What has not changed costs nothing again."""
    return dg.RunRequest(run_key=f"recovery_copy:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%dT%H:%M}")


@dg.schedule(
    name="recovery_daily",
    job=ASK,
    cron_schedule="33 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day, before the scorecard is signed: whether a month went by without a GameDay.",
)
def recovery_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Nothing is drilled."""
    return dg.RunRequest(run_key=f"recovery:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%d}")


JOBS = [GAMEDAY, COPY, ASK]
SCHEDULES = [gameday_monthly, recovery_copy_half_hourly, recovery_daily]
