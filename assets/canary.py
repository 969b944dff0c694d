"""Canaries: gates and Rollouts rendered, certificates of how soon a bad one is taken back, and drills that measure it."""

from collections.abc import Iterator

import dagster as dg

from assets.conditions import ONCE
from assets.schemas import schema_check
from greenops_pipelines.lake.canary_tables import (
    CANARY_CHANCES,
    CANARY_DRILLS,
    CANARY_GATES,
    CANARY_MEASUREMENTS,
    ROLLBACK_CERTIFICATES,
)
from greenops_pipelines.resources import BESIDE, Platform, checked, permanent_faults, proven, table_metadata, written

_OWNERS = ["team:sre"]


class DrillConfig(dg.Config):
    """What is drilled, in real time: scenarios, separated by commas. Without any: one canary that fails wholly, unless a day has not passed since."""

    scenarios: str = ""
    service: str = ""
    batch: str = ""


@dg.asset(
    key=["slo", "gates"],
    group_name="slo",
    owners=_OWNERS,
    kinds={"argo", "parquet"},
    code_version="1",
    deps=[["slo", "definitions"]],
    description=CANARY_GATES.comment + " With Rollouts, Services and Istio's objects, in gitops/k8s/rollouts/.",
)
def canary_gates(platform: Platform) -> dg.MaterializeResult[None]:
    """Compile and render."""
    from greenops_pipelines import gitops
    from greenops_pipelines.slo import rollouts
    from greenops_pipelines.slo.canary_certificates import gates_table

    with permanent_faults():
        canaries = platform.canaries()
        rendered = gitops.write(platform.settings().gitops, rollouts.files(canaries), owner="canary")
        rows = gates_table(canaries)
    result = platform.lake().write(CANARY_GATES, rows)
    figures = {
        "services": len(canaries.services),
        "gates": rows.num_rows,
        "files rendered": rendered.files,
        "files changed": len(rendered.changed),
        "steps": ", ".join(f"{step.weight} % for {step.pause}" for step in canaries.steps),
        "gates of each service": table_metadata(rows.select(["service", "gate", "variant", "condition"]), limit=40),
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset(
    key=["slo", "rollback_certificates"],
    group_name="slo",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["slo", "gates"]],
    description=ROLLBACK_CERTIFICATES.comment,
)
def rollback_certificates(platform: Platform) -> dg.MaterializeResult[None]:
    """Compute them in closed form."""
    from greenops_pipelines.slo.canary_certificates import certificates_table

    with permanent_faults():
        canaries = platform.canaries()
        rows = certificates_table(canaries)
    result = platform.lake().write(ROLLBACK_CERTIFICATES, rows)
    errors = [row for row in rows.to_pylist() if row["gate"] == "error-rate"]
    shown = type(rows).from_pylist(errors).select(["service", "error_percent", "threshold_percent", "worst_s"])
    slowest = max((row["worst_s"] for row in errors if row["worst_s"] is not None), default=0.0)
    figures = {
        "certificates": rows.num_rows,
        "longest rollback, seconds": slowest,
        "allowed, seconds": canaries.rollback.deadline_seconds,
        "error rate gates": table_metadata(shown),
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset(
    key=["slo", "canary_chances"],
    group_name="slo",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["slo", "gates"]],
    description=CANARY_CHANCES.comment,
)
def canary_chances(platform: Platform) -> dg.MaterializeResult[None]:
    """Binomial tails, and rollouts played through from a fixed seed."""
    from greenops_pipelines.slo.canary_certificates import chances_table

    with permanent_faults():
        rows = chances_table(platform.canaries())
    result = platform.lake().write(CANARY_CHANCES, rows)
    found = rows.to_pylist()
    figures = {
        "services": len(found),
        "highest probability that a good canary is taken back": max(row["false_rollback"] for row in found),
        "lowest probability that a bad one is found in time": min(row["found_in_time"] for row in found),
        "each service": table_metadata(rows.drop_columns(["runs"])),
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.multi_asset(
    name="slo_canary_drill",
    # Another drill may be under way.
    retry_policy=dg.RetryPolicy(max_retries=3, delay=60),
    # After all that is made in the same run: nobody waits two minutes for a drill.
    op_tags={"dagster/priority": "-20"},
    specs=[
        dg.AssetSpec(
            key=["slo", name],
            group_name="slo",
            owners=_OWNERS,
            kinds=kinds,
            code_version="1",
            deps=[["slo", "gates"]],
            tags=BESIDE,
            automation_condition=ONCE,
            description=description,
        )
        for name, kinds, description in (
            (
                "drill",
                {"prometheus", "parquet"},
                CANARY_DRILLS.comment
                + " Real requests, a real Prometheus, the rendered gates; `greenops slo drill` drills by hand.",
            ),
            ("drill_measurements", {"parquet"}, CANARY_MEASUREMENTS.comment),
        )
    ],
)
def drill(
    context: dg.AssetExecutionContext, platform: Platform, config: DrillConfig
) -> Iterator[dg.MaterializeResult[None]]:
    """Hold them; each is filed as evidence before the next one begins."""
    from greenops_pipelines.slo.canary_checks import newest
    from greenops_pipelines.slo.drill_results import line

    with permanent_faults():
        held = platform.hold_canary_drills(config.scenarios, config.service, config.batch, context.log.info)
    lake = platform.lake()
    drills = held.drills if held else ()
    figures = {
        "drilled now": len(drills),
        "killed before, filed now": len(held.remains) if held else 0,
        "results now": "; ".join(line(each.result) for each in drills) or "none: drilled in the last day, or under way",
        "newest drills": table_metadata(newest(lake)),
    }
    for name, table, more in (("drill", CANARY_DRILLS, figures), ("drill_measurements", CANARY_MEASUREMENTS, {})):
        found = lake.stored(table)
        yield dg.MaterializeResult(
            asset_key=["slo", name], metadata=written(found, more), data_version=dg.DataVersion(found.version)
        )


@dg.asset_check(
    asset=["slo", "gates"],
    description="Each service's canary is judged by errors, latency, volume, CPU, memory and a figure of its own.",
)
def complete(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """By the kinds of its gates."""
    from greenops_pipelines.slo import canary_checks

    rows = platform.lake().query("select service, gate from slo_canary_gates")
    measurement = canary_checks.complete(rows, platform.canaries())
    return checked(context, platform, measurement, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["slo", "rollback_certificates"],
    description="A canary that errs at 2 % is taken back in time, over all phases of scraping and measuring.",
)
def certified(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """The compiler refuses what would miss it; this shows by how much it is met."""
    from greenops_pipelines.slo import canary_checks

    rows = platform.lake().query("select * from slo_rollback_certificates")
    measurement = canary_checks.certified(rows, platform.canaries())
    return checked(context, platform, measurement, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["slo", "canary_chances"],
    description="A good canary is rarely taken back by chance, at the fewest requests by which it is judged.",
)
def seldom_wrong(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """The worst of the services; a gate that is often wrong is one that people switch off."""
    from greenops_pipelines.slo import canary_checks

    rows = platform.lake().query("select * from slo_canary_chances")
    return checked(context, platform, canary_checks.seldom_wrong(rows))


@dg.asset_check(
    asset=["slo", "drill"],
    description="The longest time from breach to rollback complete, in drills in real time of the last 8 days.",
)
def rollback(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J1.4."""
    from greenops_pipelines.slo import canary_checks

    measurement = canary_checks.rollback(platform.lake(), platform.canaries(), platform.now())
    return proven(context, platform, measurement, "J1.4", _READS, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["slo", "drill"], description="No rollback took longer than its certificate says it takes at most."
)
def bounded(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A certificate that is exceeded once is none."""
    from greenops_pipelines.slo import canary_checks

    measurement = canary_checks.bounded(platform.lake(), platform.now())
    return checked(context, platform, measurement, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["slo", "drill"],
    description="Every kind of the week's drills was held in real time in the last 8 days, on one service after another.",
)
def weekly(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """The easiest drill alone, every day, proves little."""
    from greenops_pipelines.slo import canary_checks

    return checked(context, platform, canary_checks.weekly(platform.lake(), platform.now()))


@dg.asset_check(asset=["slo", "drill"], description="No good canary was taken back in a drill of the last 8 days.")
def promoted(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Measured by the weekly drill: a promotion takes 19 minutes."""
    from greenops_pipelines.slo import canary_checks

    return checked(context, platform, canary_checks.promoted(platform.lake(), platform.now()))


@dg.asset_check(
    asset=["slo", "drill"],
    description="No drill failed or was killed without a good one of its kind since, and each has its evidence.",
)
def sound(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """What came to no rollback has no seconds to be measured: here it counts."""
    from greenops_pipelines.slo import canary_checks

    measurement = canary_checks.sound(platform.lake(), platform.now())
    return checked(context, platform, measurement, dg.AssetCheckSeverity.ERROR)


_READS = ["slo_drills"]

ASSETS = [canary_gates, rollback_certificates, canary_chances]
DRILLS = [drill]
"""The warehouse waits for none of them."""
CHECKS = [
    schema_check("slo/gates", CANARY_GATES),
    schema_check("slo/rollback_certificates", ROLLBACK_CERTIFICATES),
    schema_check("slo/canary_chances", CANARY_CHANCES),
    schema_check("slo/drill", CANARY_DRILLS),
    schema_check("slo/drill_measurements", CANARY_MEASUREMENTS),
    complete,
    certified,
    seldom_wrong,
    rollback,
    bounded,
    weekly,
    promoted,
    sound,
]
