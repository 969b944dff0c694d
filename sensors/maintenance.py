"""What keeps the house clean: compaction of small files, retention of Dagster's run history, runs that died."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from greenops_pipelines.orphans import end_orphans
from greenops_pipelines.resources import Platform

_RUNS_PER_TICK = 500


@dg.op(description="Merge the small files of logs and revised tables; what was merged a pass ago is removed.")
def compact_lake(context: dg.OpExecutionContext, platform: Platform) -> None:
    """A reader notices nothing: see `lake/compaction.py`."""
    from greenops_pipelines.lake.compaction import compact

    lake = platform.lake()
    for table in lake.tables:
        done = compact(lake, table)
        if done.merged or done.removed:
            context.log.info(f"{table.path}: {done.merged} files merged, {done.removed} removed")


@dg.op(description="Delete finished runs older than GREENOPS_RETENTION_DAYS; check results stay in the lake.")
def prune_runs(context: dg.OpExecutionContext, platform: Platform) -> None:
    """Dagster's event log grows without bound."""
    before = datetime.now(UTC) - timedelta(days=platform.settings().retention_days)
    finished = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    old = context.instance.get_run_records(
        dg.RunsFilter(statuses=finished, created_before=before), limit=_RUNS_PER_TICK, ascending=True
    )
    for record in old:
        context.instance.delete_run(record.dagster_run.run_id)
    context.log.info(f"{len(old)} runs from before {before:%Y-%m-%d} deleted")


@dg.job(description="Compaction and retention.")
def maintenance() -> None:
    """Both are safe to kill and to repeat."""
    compact_lake()
    prune_runs()


@dg.schedule(
    name="maintenance_daily",
    job=maintenance,
    cron_schedule="37 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night: compaction of the lake, retention of Dagster's history.",
)
def maintenance_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Once per day."""
    return dg.RunRequest(run_key=f"maintenance:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%d}")


@dg.sensor(
    name="orphaned_runs",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="Ends runs whose process is gone, so that what waits behind them does not wait for their time limit.",
)
def orphaned_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """It asks for no run."""
    ended = end_orphans(context.instance)
    for run_id in ended:
        context.log.warning(f"run {run_id}: its process is gone; it counts as failed")
    return dg.SkipReason(f"{len(ended)} runs whose process is gone were ended")


JOBS = [maintenance]
SCHEDULES = [maintenance_daily]
SENSORS = [orphaned_runs]
