"""Placement: planned anew with new work and every hour, launched when it is due; forecasts scored daily, the saving
proven every week.

A plan follows new forecasts by the graph's conditions (`carbon/outlook` is one of its inputs).
"""

import time
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from greenops_pipelines.resources import Platform
from sensors.lanes import GRAPH, WORK

_LAUNCHES_IN_FLIGHT = 40
"""Runs that are asked for and have not begun; the run queue lets a few work at once (dagster.yaml)."""
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
]
_RECORDS_EVERY = timedelta(minutes=5)
_RECORDS_AT_LEAST = timedelta(hours=6)
"""Work that ought to have been launched and was not leaves no trace in the ledger, and the check of it has to be made."""
_MINUTES_OF_GRACE = 30
_BEGINNING_SECONDS = 45.0

PLAN = dg.define_asset_job(
    "placement_plan",
    selection=dg.AssetSelection.assets(
        ["carbon", "outlook"],
        ["placement", "requests"],
        ["placement", "plan"],
    ),
    tags=GRAPH,
    description="What waits, what is known of the hours ahead, and the plan.",
)

RECORDS = dg.define_asset_job(
    "placement_records",
    selection=dg.AssetSelection.assets(
        ["placement", "dispatches"], ["placement", "attempts"], ["placement", "settlements"]
    ),
    tags=GRAPH,
    description="What was decided and done, from the ledger.",
)

PROOF = dg.define_asset_job(
    "placement_proof",
    selection=dg.AssetSelection.assets(["placement", "proof"]),
    tags=GRAPH,
    description="What carbon-aware placement saves on the record in the lake.",
)

SCORES = dg.define_asset_job(
    "forecast_scores",
    selection=dg.AssetSelection.assets(["carbon", "forecast_scores"]),
    tags=GRAPH,
    description="Error and regret of every forecast method, per zone and horizon.",
)


@dg.schedule(
    name="placement_hourly",
    job=PLAN,
    cron_schedule="17 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour, after the forecasts: the inbox is taken, and everything that waits is planned anew.",
)
def placement_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """After `carbon_hourly` (:07) and `forecast_hourly` (:11)."""
    return dg.RunRequest(run_key=f"placement_hourly:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%dT%H}")


@dg.schedule(
    name="forecast_scores_daily",
    job=SCORES,
    cron_schedule="41 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day: forecasts against what came.",
)
def forecast_scores_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """A day is the least that changes a score."""
    return dg.RunRequest(run_key=f"forecast_scores:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%d}")


@dg.schedule(
    name="placement_proof_weekly",
    job=PROOF,
    cron_schedule="53 3 * * 1",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Monday: the saving proven on the record by then (J2.5).",
)
def placement_proof_weekly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """The figure holds for 35 days on the scorecard; a young lake has something to prove on within weeks."""
    return dg.RunRequest(run_key=f"placement_proof:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%d}")


class Work(dg.Config):
    """The piece of work to be launched."""

    key: str


@dg.op(description="One attempt at one piece of work: claimed, run where it may, its end recorded.")
def launch(context: dg.OpExecutionContext, config: Work, platform: Platform) -> None:
    """Fails where the work failed or was refused: a person sees it in the list of runs. The ledger decides what follows."""
    report = platform.launch(config.key, context.run_id)
    context.instance.add_run_tags(context.run_id, {**(report.tags or {}), "greenops/outcome": report.state})
    context.add_output_metadata({"outcome": report.state, "attempt": report.attempt or 0, "detail": report.detail})
    if report.is_bad:
        raise dg.Failure(f"{report.key}: {report.state}: {report.detail}", allow_retries=False)
    context.log.info(f"{report.key}: {report.state}: {report.detail}")


@dg.job(description="Work that may wait, launched in its hour, where it was planned.", tags=WORK)
def placement_launch() -> None:
    """Safe to be started twice, and to be killed: see greenops_pipelines/placement/launching.py."""
    launch()


@dg.sensor(
    name="placement_due",
    job=placement_launch,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Launches work whose hour has come, or that goes on or is tried again; the most pressing first.",
)
def placement_due(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """No run keys: the ledger makes things happen once, and a key that Dagster remembers for ever would drop a retry."""
    records = context.instance.get_run_records(
        dg.RunsFilter(job_name=placement_launch.name, statuses=[*_UNFINISHED, dg.DagsterRunStatus.STARTED]),
        limit=4 * _LAUNCHES_IN_FLIGHT,
    )
    # What began a moment ago has not reached the ledger yet; what runs longer has, and the ledger knows more.
    just_now = time.time() - _BEGINNING_SECONDS
    waiting = [record for record in records if record.dagster_run.status in _UNFINISHED]
    young = [record for record in records if record.start_time is not None and record.start_time > just_now]
    asked = {record.dagster_run.tags.get("greenops/key", "") for record in (*waiting, *young)}
    free = _LAUNCHES_IN_FLIGHT - len(waiting)
    if free <= 0:
        return dg.SkipReason(f"{len(waiting)} launches wait for a worker")
    found = platform.due(asked, free)
    held = f"{found.missed_slot} missed their hour and wait for a new plan, {found.refused} were refused"
    if not found.due:
        return dg.SkipReason(f"nothing is due; {held}")
    context.log.info(f"{len(found.due)} due; {held}")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_config={"ops": {"launch": {"config": {"key": each.key}}}},
                tags={
                    **each.tags,
                    # The run awaits the work: monitoring must not end it before.
                    "dagster/max_runtime": str(int(each.limit_minutes + _MINUTES_OF_GRACE) * 60),
                    # The sensor asks again, and knows when.
                    "dagster/max_retries": "0",
                },
            )
            for each in found.due
        ]
    )


@dg.sensor(
    name="placement_new_work",
    job=PLAN,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Plans anew when work was submitted: by command, by call, or as a file in HOME/inbox/placement.",
)
def placement_new_work(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """The cursor is what it saw last: a digest of names and times, never a list. The plan itself is made by the run."""
    found = platform.new_work()
    if found in ("", context.cursor):
        return dg.SkipReason("nothing new was submitted")
    if context.instance.get_runs_count(dg.RunsFilter(job_name=PLAN.name, statuses=_UNFINISHED)):
        return dg.SkipReason("a plan is about to be made")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=found)


@dg.sensor(
    name="placement_recorded",
    job=RECORDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="Brings what was launched into the lake, at most every five minutes, and looks every six hours anyway.",
)
def placement_recorded(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """The cursor is the ledger's version and when it was asked for last."""
    version, now = platform.ledger().version(), datetime.now(UTC)
    last, _, before = (context.cursor or "").partition("@")
    cursor = f"{version}@{now.isoformat()}"
    if not before and not version:
        return dg.SensorResult(skip_reason="nothing was launched yet", cursor=cursor)
    # A clock that was set back does not stop it for long: what lies ahead counts as long ago.
    ago = now - datetime.fromisoformat(before) if before else _RECORDS_AT_LEAST
    wait = _RECORDS_AT_LEAST if version == last else _RECORDS_EVERY
    if timedelta(0) <= ago < wait:
        return dg.SkipReason("nothing was launched" if version == last else "within five minutes of the last time")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=cursor)


JOBS: list[dg.JobDefinition | UnresolvedAssetJobDefinition] = [PLAN, RECORDS, PROOF, SCORES, placement_launch]
SENSORS = [placement_due, placement_new_work, placement_recorded]
SCHEDULES = [placement_hourly, forecast_scores_daily, placement_proof_weekly]
