"""SLOs: certified anew once a day, so that the scorecard's figures stay valid, and canaries drilled once a week.

Changes in ops/ are followed at once."""

from datetime import UTC

import dagster as dg

from greenops_pipelines.resources import Platform
from sensors.lanes import DRILLS, GRAPH

DRILLED = dg.AssetSelection.assets(["slo", "drill"], ["slo", "drill_measurements"])
"""What takes minutes of the world's time, and is made by its own job alone."""

CERTIFY = dg.define_asset_job(
    "slo_certify",
    # What the drills prove is asked again too: whether a week went by without one.
    selection=(dg.AssetSelection.groups("slo") - DRILLED) | dg.AssetSelection.checks_for_assets(["slo", "drill"]),
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


JOBS = [CERTIFY, DRILL]
SCHEDULES = [canary_weekly, slo_daily]
