"""Evidence: the bundles that checks and drills filed, and the signed scorecard of the day."""

from collections.abc import Iterator

import dagster as dg

from assets.conditions import FOLLOW_INPUTS
from assets.schemas import schema_check
from greenops_pipelines.lake.tables import EVIDENCE_BUNDLES
from greenops_pipelines.resources import Platform, checked, permanent_faults, written

_OWNERS = ["team:compliance"]
_RETRY = dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


@dg.asset(
    key=["evidence", "bundles"],
    group_name="evidence",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["lake", "warehouse"]],
    automation_condition=FOLLOW_INPUTS,
    # After the checks of its own run, which file bundles too.
    op_tags={"dagster/priority": "-5"},
    retry_policy=_RETRY,
    description=EVIDENCE_BUNDLES.comment + " Bundles that wait are taken further first.",
)
def bundles(platform: Platform) -> dg.MaterializeResult[None]:
    """Flush the queue, verify what is new, and list everything."""
    from greenops_pipelines.evidence.inventory import inventory

    with permanent_faults():
        evidence, lake, now = platform.evidence(), platform.lake(), platform.now()
        flushed = evidence.archive.flush()
        rows = inventory(evidence.archive, evidence.trust(), lake.read(EVIDENCE_BUNDLES), now)
    result = lake.write(EVIDENCE_BUNDLES, rows)
    figures = {
        "bundles": rows.num_rows,
        "that verify": sum(rows["is_verified"].to_pylist()),
        "still waiting": sum(receipt.state == "queued" for receipt in flushed),
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset(
    key=["evidence", "scorecard"],
    group_name="evidence",
    owners=_OWNERS,
    kinds={"json"},
    code_version="1",
    deps=[["report", "scorecard"], ["report", "carbon"]],
    op_tags={"dagster/priority": "-10"},
    retry_policy=_RETRY,
    check_specs=[
        dg.AssetCheckSpec(
            "verified",
            asset=["evidence", "scorecard"],
            description="No property of the signed scorecard fails offline.",
        )
    ],
    description="The scorecard of the day as a signed bundle: every criterion, the report, and the bundle behind each figure.",
)
def scorecard(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """File it, and verify what was filed."""
    from greenops_pipelines.report.signed import file_scorecard, verified

    with permanent_faults():
        evidence = platform.evidence()
        receipt = file_scorecard(evidence.archive, platform.lake(), platform.settings().reports, platform.now())
        report = evidence.verify(receipt.id, evidence.trust()) if receipt.state == "filed" else None
    yield dg.MaterializeResult(
        metadata={
            "evidence": receipt.id,
            "state": f"{receipt.state}; {receipt.detail}",
            "properties that passed": sum(f.state == "passed" for f in report.findings) if report else 0,
            "verify it": f"greenops evidence verify {receipt.id}",
        }
    )
    yield checked(context, platform, verified(receipt, report), dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["evidence", "bundles"], description="Every bundle verifies offline; none waits longer than a day."
)
def verified(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J4.3."""
    from greenops_pipelines.evidence.inventory import verified as measure

    measurement = measure(platform.lake().read(EVIDENCE_BUNDLES), platform.now())
    return checked(context, platform, measurement, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["evidence", "bundles"], description="No result of the last 48 hours is without the evidence it asked for."
)
def complete(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A result is recorded even where its evidence cannot be filed; here that is counted."""
    from greenops_pipelines.evidence.inventory import complete as measure

    return checked(context, platform, measure(platform.lake(), platform.now()), dg.AssetCheckSeverity.ERROR)


ASSETS = [bundles, scorecard]
CHECKS = [schema_check("evidence/bundles", EVIDENCE_BUNDLES), verified, complete]
