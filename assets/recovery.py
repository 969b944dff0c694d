"""Recovery: drills of failovers, what they measured, the second copy of the platform's own state, the report."""

from collections.abc import Iterator

import dagster as dg

from assets.conditions import FOLLOW_INPUTS, ONCE
from assets.schemas import schema_check
from greenops_pipelines.lake.recovery_tables import RECOVERY_COPIES, RECOVERY_DRILLS, RECOVERY_STEPS
from greenops_pipelines.resources import Platform, checked, permanent_faults, proven, table_metadata, written

_OWNERS = ["team:sre"]


class GameDayConfig(dg.Config):
    """What is drilled. Without a month: every direction once, and nothing where that was done in the last 35 days."""

    month: str = ""


@dg.multi_asset(
    name="recovery_gameday",
    # Another drill may be under way.
    retry_policy=dg.RetryPolicy(max_retries=3, delay=300),
    specs=[
        dg.AssetSpec(
            key=["recovery", name],
            group_name="recovery",
            owners=_OWNERS,
            kinds=kinds,
            code_version="1",
            deps=[["ops", "gamedays"]],
            automation_condition=ONCE,
            description=description,
        )
        for name, kinds, description in (
            (
                "gameday",
                {"postgres", "parquet"},
                RECOVERY_DRILLS.comment + " Real PostgreSQL servers are broken, failed over, verified and failed back.",
            ),
            ("steps", {"parquet"}, RECOVERY_STEPS.comment),
        )
    ],
)
def gameday(
    context: dg.AssetExecutionContext, platform: Platform, config: GameDayConfig
) -> Iterator[dg.MaterializeResult[None]]:
    """Hold it; each drill is filed as evidence before the next one begins."""
    from greenops_pipelines.recovery.checks import newest

    with permanent_faults():
        held = platform.hold_gameday(config.month, context.log.info)
    lake = platform.lake()
    figures = {
        "drilled now": len(held.drills) if held else 0,
        "negative controls now": len(held.negative_controls) if held else 0,
        "killed before, filed now": len(held.remains) if held else 0,
        "only looked at (dry run)": "; ".join(
            f"{each.database}, {each.scenario}: {', '.join([*each.checks, *each.faults])}"
            for each in (held.dry_runs if held else ())
        )
        or "none",
        "newest drills": table_metadata(newest(lake)),
    }
    for name, table, more in (("gameday", RECOVERY_DRILLS, figures), ("steps", RECOVERY_STEPS, {})):
        found = lake.stored(table)
        yield dg.MaterializeResult(
            asset_key=["recovery", name],
            metadata=written(found, more),
            data_version=dg.DataVersion(found.version),
        )


@dg.asset(
    key=["recovery", "replica"],
    group_name="recovery",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["lake", "warehouse"], ["evidence", "bundles"]],
    automation_condition=ONCE,
    # After all that is made in the same run, so that the copy holds it.
    op_tags={"dagster/priority": "-20"},
    description=RECOVERY_COPIES.comment + " In another region; that of tenants bound to an area stays inside it.",
)
def replica(platform: Platform) -> dg.MaterializeResult[None]:
    """Copy what is new, verify the copy, and let go of old ones."""
    with permanent_faults():
        copied = platform.copy_home()
    return dg.MaterializeResult(
        metadata=written(copied.written, copied.figures), data_version=dg.DataVersion(copied.written.version)
    )


@dg.asset(
    key=["report", "recovery"],
    group_name="report",
    owners=_OWNERS,
    kinds={"html"},
    code_version="1",
    deps=[["recovery", "gameday"], ["recovery", "steps"], ["recovery", "replica"], ["ops", "gamedays"]],
    automation_condition=FOLLOW_INPUTS,
    op_tags={"dagster/priority": "-20"},
    description="The recovery report: every drill with what it measured, loss against throughput, months held and missed. One HTML file.",
)
def report(platform: Platform) -> dg.MaterializeResult[None]:
    """Render the report and put it into reports/ whole."""
    from greenops_pipelines.report.recovery import write_report

    made = write_report(platform.lake(), platform.settings().reports, platform.gamedays(), platform.now())
    return dg.MaterializeResult(metadata={"file": made.path.name, **made.figures})


@dg.asset_check(
    asset=["recovery", "gameday"],
    description="Failover and failback were drilled in both directions between areas in the last 35 days, health checks first.",
)
def directions(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J4.1."""
    from greenops_pipelines.recovery import checks

    measurement = checks.directions(platform.lake(), platform.now())
    return proven(context, platform, measurement, "J4.1", _READS, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["recovery", "gameday"], description="The longest recovery time of the last 35 days, and of all drills."
)
def rto(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J4.2."""
    from greenops_pipelines.recovery import checks

    measurement = checks.rto(platform.lake(), platform.gamedays(), platform.now())
    return proven(context, platform, measurement, "J4.2", _READS, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["recovery", "gameday"],
    description="The longest span of acknowledged writes that a drill of the last 35 days has lost, and the spread of all.",
)
def rpo(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J4.2."""
    from greenops_pipelines.recovery import checks

    measurement = checks.rpo(platform.lake(), platform.gamedays(), platform.now())
    return proven(context, platform, measurement, "J4.2", _READS, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["recovery", "gameday"],
    description="No drill failed or was killed without a good one since, and each has its evidence.",
)
def sound(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A failover that never came back has no recovery time to be measured: here it counts."""
    from greenops_pipelines.recovery import checks

    return checked(context, platform, checks.sound(platform.lake(), platform.now()), dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["recovery", "gameday"], description="The negative control missed its recovery point, as it must."
)
def can_fail(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A drill that cannot fail proves nothing."""
    from greenops_pipelines.recovery import checks

    return checked(context, platform, checks.can_fail(platform.lake(), platform.now()), dg.AssetCheckSeverity.ERROR)


@dg.asset_check(asset=["recovery", "gameday"], description="No month of the last twelve went by without its GameDay.")
def held(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J4.4. Asked every day, so that a month that was missed shows while it is missing."""
    from greenops_pipelines.recovery import checks

    measurement = checks.held(platform.lake(), platform.gamedays(), platform.now())
    return proven(context, platform, measurement, "J4.4", _READS, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["recovery", "gameday"],
    description="Nothing was wrong with the newest restore of the platform from its second copy, its RTO and RPO included.",
)
def restored(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Lake, evidence and Dagster's storage, into an empty home."""
    from greenops_pipelines.recovery import checks

    return checked(context, platform, checks.restored(platform.lake(), platform.now()))


@dg.asset_check(
    asset=["recovery", "replica"], description="The newest second copy is whole, and no older than its objective."
)
def fresh(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Every chunk is read back by the drill of a restore, not here."""
    from greenops_pipelines.recovery import checks

    measurement = checks.fresh(platform.lake(), platform.gamedays(), platform.now())
    return checked(context, platform, measurement)


@dg.asset_check(asset=["report", "recovery"], description="The report names every drill of the lake, with its figures.")
def complete(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Read back from the rendered file; failed and aborted drills are in it too."""
    from greenops_pipelines.report.recovery import completeness

    return checked(
        context, platform, completeness(platform.lake(), platform.settings().reports), dg.AssetCheckSeverity.ERROR
    )


_READS = ["recovery_drills", "recovery_steps"]

ASSETS = [gameday, replica, report]
"""The warehouse waits for none of them: a machine without PostgreSQL has its figures all the same."""
CHECKS = [
    schema_check("recovery/gameday", RECOVERY_DRILLS),
    schema_check("recovery/steps", RECOVERY_STEPS),
    schema_check("recovery/replica", RECOVERY_COPIES),
    directions,
    rto,
    rpo,
    sound,
    can_fail,
    held,
    restored,
    fresh,
    complete,
]
