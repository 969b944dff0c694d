"""Placement: work that may wait or move, the plan of where and when it runs, what ran, and the proof that it is worth it."""

import dagster as dg

from assets.conditions import FOLLOW_INPUTS, ONCE
from assets.schemas import schema_check
from greenops_pipelines.lake.tables import (
    PLACEMENT_ATTEMPTS,
    PLACEMENT_DISPATCHES,
    PLACEMENT_PLAN,
    PLACEMENT_PROOF,
    PLACEMENT_REQUESTS,
    PLACEMENT_SETTLEMENTS,
)
from greenops_pipelines.resources import Platform, checked, permanent_faults, proven, table_metadata, written

_OWNERS = ["team:sustainability"]


@dg.asset(
    key=["placement", "requests"],
    group_name="placement",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["ops", "workloads"], ["ops", "regions"], ["ops", "tenants"]],
    automation_condition=FOLLOW_INPUTS,
    description=PLACEMENT_REQUESTS.comment + " Takes what lies in the inbox.",
)
def requests(platform: Platform) -> dg.MaterializeResult[None]:
    """Sweep the inbox, then write what is due within the horizon and what was submitted."""
    from greenops_pipelines.placement import queue

    with permanent_faults():
        found = queue.gather(platform.settings(), platform.workloads(), platform.now())
    result = platform.lake().write(PLACEMENT_REQUESTS, found.rows)
    return dg.MaterializeResult(metadata=written(result, found.figures))


@dg.asset(
    key=["placement", "plan"],
    group_name="placement",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["placement", "requests"], ["carbon", "outlook"], ["ops", "regions"], ["ops", "tenants"]],
    automation_condition=FOLLOW_INPUTS,
    description=PLACEMENT_PLAN.comment,
)
def plan(platform: Platform) -> dg.MaterializeResult[None]:
    """Read what waits and what is known, search, write."""
    from greenops_pipelines.carbon.sources import signal_of
    from greenops_pipelines.placement import queue

    with permanent_faults():
        lake, workloads, ledger = platform.lake(), platform.workloads(), platform.ledger()
        signal = signal_of(platform.settings())
        found = queue.plan(lake, ledger, workloads, platform.now(), signal=signal)
    result = lake.write(PLACEMENT_PLAN, found.rows)
    figures = {
        "pieces of work": found.rows.num_rows,
        "grams": signal,
        "expected kgCO2e": round(found.expected_g / 1000, 3),
        "at home at once, kgCO2e": round(found.baseline_g / 1000, 3),
        "above the lower bound by at most, %": round(found.gap_pct, 4),
        "found by": found.method,
        "policy": workloads.settings.policy,
        "may run nowhere": "; ".join(f"{key}: {why}" for key, why in found.refused.items()) or "none",
        "next": table_metadata(found.rows.select(["key", "region", "start_at", "end_at", "reason"])),
    }
    return dg.MaterializeResult(metadata=written(result, figures))


@dg.asset(
    key=["placement", "dispatches"],
    group_name="placement",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["placement", "plan"]],
    automation_condition=ONCE,
    description=PLACEMENT_DISPATCHES.comment,
)
def dispatches(platform: Platform) -> dg.MaterializeResult[None]:
    """Every decision that was acted on, from the ledger."""
    from greenops_pipelines.placement.dispatches import recorded

    with permanent_faults():
        rows = recorded(platform.settings().dispatches)
    result = platform.lake().write(PLACEMENT_DISPATCHES, rows)
    return dg.MaterializeResult(metadata=written(result, {"dispatches": rows.num_rows}))


@dg.asset(
    key=["placement", "attempts"],
    group_name="placement",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["placement", "dispatches"]],
    automation_condition=FOLLOW_INPUTS,
    description=PLACEMENT_ATTEMPTS.comment,
)
def attempts(platform: Platform) -> dg.MaterializeResult[None]:
    """Every attempt, from the ledger, with how the recent ones ended."""
    from greenops_pipelines.placement.dispatches import recorded_attempts

    with permanent_faults():
        rows = recorded_attempts(platform.settings().dispatches)
    result = platform.lake().write(PLACEMENT_ATTEMPTS, rows)
    newest = rows.slice(max(rows.num_rows - 24, 0)).select(
        ["key", "attempt", "region", "began_at", "outcome", "detail"]
    )
    figures = {"attempts": rows.num_rows, "newest": table_metadata(newest)}
    return dg.MaterializeResult(metadata=written(result, figures))


@dg.asset(
    key=["placement", "settlements"],
    group_name="placement",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["placement", "attempts"], ["placement", "dispatches"], ["carbon", "intensity"], ["ops", "regions"]],
    automation_condition=FOLLOW_INPUTS,
    description=PLACEMENT_SETTLEMENTS.comment,
)
def settlements(platform: Platform) -> dg.MaterializeResult[None]:
    """All dispatches by the newest actuals: what was revised since is settled anew."""
    from greenops_pipelines.placement import settlement, shown

    with permanent_faults():
        provider = platform.carbon().name
        rows = settlement.from_lake(platform.lake(), provider, platform.regions())
    result = platform.lake().write(PLACEMENT_SETTLEMENTS, rows)
    figures = {"provider": provider + (" (sample data)" if provider == "sample" else ""), **shown.settled(rows)}
    return dg.MaterializeResult(metadata=written(result, figures))


@dg.asset(
    key=["placement", "proof"],
    group_name="placement",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["carbon", "intensity"], ["carbon", "emission_factors"], ["ops", "regions"]],
    automation_condition=ONCE,
    description=PLACEMENT_PROOF.comment,
)
def proof(platform: Platform) -> dg.MaterializeResult[None]:
    """Replay weeks of the lake's record under the promise's limits, and under others."""
    from greenops_pipelines.placement.proof import from_lake

    with permanent_faults():
        lake, provider = platform.lake(), platform.carbon().name
        rows = from_lake(lake, provider, platform.regions())
    result = lake.write(PLACEMENT_PROOF, rows)
    names = ["scenario", "policy", "forecast", "saving_pct", "saving_low_pct", "saving_high_pct", "bound_saving_pct"]
    figures = {
        "provider": provider + (" (sample data)" if provider == "sample" else ""),
        "scenarios": table_metadata(rows.select(names)),
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset_check(
    asset=["placement", "plan"], description="All work that waits has a region and an hour, chosen by carbon."
)
def placed(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J2.2."""
    from greenops_pipelines.placement import checks, queue

    lake = platform.lake()
    measurement = checks.placed(lake, queue.refused(lake, platform.ledger(), platform.workloads()))
    return proven(context, platform, measurement, "J2.2", ["placement_plan", "placement_requests"])


@dg.asset_check(asset=["placement", "plan"], description="The plan is at most 2 % above its own lower bound.")
def gap(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A plan without a bound is a claim."""
    from greenops_pipelines.placement import checks

    return checked(context, platform, checks.gap(platform.lake()))


@dg.asset_check(asset=["placement", "plan"], description="No planned work ends after its deadline.")
def deadlines(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Waiting for a cleaner hour never costs a deadline."""
    from greenops_pipelines.placement import checks

    return checked(context, platform, checks.deadlines(platform.lake()), dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["placement", "plan"],
    name="residency",
    blocking=True,
    description="No planned run of a bound tenant lies outside its area.",
)
def plan_residency(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Blocking: nothing is launched from such a plan."""
    from greenops_pipelines.placement import checks

    measurement = checks.plan_residency(platform.lake(), platform.regions(), platform.tenants())
    return proven(context, platform, measurement, "J2.3", ["placement_plan"], dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["placement", "dispatches"],
    name="residency",
    blocking=True,
    description="No dispatch of a bound tenant ever lay outside its area.",
)
def dispatch_residency(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J2.3."""
    from greenops_pipelines.placement import checks

    measurement = checks.dispatch_residency(platform.lake(), platform.regions(), platform.tenants())
    return proven(context, platform, measurement, "J2.3", ["placement_dispatches"], dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["placement", "dispatches"],
    description="All work whose hour has come was launched: never two at once, and completed at most once.",
)
def exactly_once(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J2.6."""
    from greenops_pipelines.placement import checks

    measurement = checks.exactly_once(platform.lake(), platform.ledger(), platform.now())
    return proven(context, platform, measurement, "J2.6", ["placement_dispatches", "placement_plan"])


@dg.asset_check(
    asset=["placement", "settlements"],
    description="Work that succeeded more than three days ago is settled: the actuals of both sides are there.",
)
def settled(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A saving that is never settled is a claim."""
    from greenops_pipelines.placement import checks

    return checked(context, platform, checks.settled(platform.lake(), platform.now()))


@dg.asset_check(
    asset=["placement", "settlements"],
    description="Placement has not made it worse: what was settled in the last 35 days avoided 0 % or more.",
)
def avoided(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Beside what the decisions expected."""
    from greenops_pipelines.placement import checks

    return checked(context, platform, checks.avoided(platform.lake(), platform.now()))


@dg.asset_check(
    asset=["placement", "proof"], description="At least 20 % of the emissions are saved, under the promise's limits."
)
def saving(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J2.5."""
    from greenops_pipelines.placement import checks

    return proven(context, platform, checks.saving(platform.lake()), "J2.5", ["placement_proof", "carbon_intensity"])


@dg.asset_check(
    asset=["placement", "proof"],
    name="regret",
    description="Forecasts miss at most 20 % of the saving that perfect foresight has.",
)
def regret(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """MAPE misleads: what counts is the saving that is lost."""
    from greenops_pipelines.placement import checks

    return checked(context, platform, checks.regret(platform.lake()))


@dg.asset_check(
    asset=["placement", "proof"], name="gap", description="The clairvoyant plan is at most 2 % above the bound."
)
def proof_gap(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """The bound that all savings are held against is one."""
    from greenops_pipelines.placement import checks

    return checked(context, platform, checks.proof_gap(platform.lake()))


@dg.asset_check(
    asset=["placement", "proof"],
    description="No job of the proof is late, outside its area, or beyond a region's room.",
)
def limits(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A saving that breaks a limit is none."""
    from greenops_pipelines.placement import checks

    return checked(context, platform, checks.proof_limits(platform.lake()), dg.AssetCheckSeverity.ERROR)


ASSETS = [requests, plan, dispatches, attempts, settlements, proof]
CHECKS = [
    schema_check("placement/requests", PLACEMENT_REQUESTS),
    schema_check("placement/plan", PLACEMENT_PLAN),
    schema_check("placement/dispatches", PLACEMENT_DISPATCHES),
    schema_check("placement/attempts", PLACEMENT_ATTEMPTS),
    schema_check("placement/settlements", PLACEMENT_SETTLEMENTS),
    schema_check("placement/proof", PLACEMENT_PROOF),
    placed,
    gap,
    deadlines,
    plan_residency,
    dispatch_residency,
    exactly_once,
    settled,
    avoided,
    saving,
    regret,
    proof_gap,
    limits,
]
