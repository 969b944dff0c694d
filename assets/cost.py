"""Cost: bills as charges in FOCUS' columns, reconciled to the last digit. The marts are in `marts.py`."""

from collections.abc import Iterator

import dagster as dg

from assets.conditions import FOLLOW_INPUTS
from assets.schemas import schema_check
from greenops_pipelines.lake.cost_tables import COST_CHARGES, COST_FILES, COST_PERIODS, COST_RECONCILIATION
from greenops_pipelines.resources import Platform, checked, permanent_faults, table_metadata, written

_OWNERS = ["team:finops"]
_OPS: list[list[str]] = [["ops", "cost"], ["ops", "tenants"]]


def _spec(name: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=["cost", name],
        group_name="cost",
        owners=_OWNERS,
        kinds={"parquet"},
        code_version="1",
        deps=_OPS,
        automation_condition=FOLLOW_INPUTS,
        description=description,
    )


@dg.multi_asset(
    name="cost_ingestion",
    specs=[
        _spec(
            "charges", COST_CHARGES.comment + " A billing period is replaced whole. Sample bills say so in every row."
        ),
        _spec("files", COST_FILES.comment),
        _spec("periods", COST_PERIODS.comment),
    ],
    retry_policy=dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL),
)
def ingestion(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[dg.MaterializeResult[None]]:
    """Look at every file of the configured source, and bring those that count into the lake."""
    from greenops_pipelines.cost.ingest import ingest

    with permanent_faults():
        found = platform.bills()
        done = ingest(platform.lake(), found, platform.cost(), context.run.run_id, platform.now())
    figures = {
        "source": found.source + (" (sample data)" if found.source == "sample" else ""),
        **{f"billed, {currency}": str(total) for currency, total in sorted(done.totals.items())},
        "files that count": done.count("counts"),
        "files superseded by a newer delivery": done.count("superseded"),
        "duplicates": done.count("duplicate"),
        "restated": "; ".join(done.restated) or "none",
        "notes": "; ".join(found.notes) or "none",
    }
    yield dg.MaterializeResult(
        asset_key=["cost", "charges"],
        metadata=written(done.written, figures),
        data_version=dg.DataVersion(done.written.version),
    )
    yield dg.MaterializeResult(asset_key=["cost", "files"], metadata=written(done.files, figures))
    yield dg.MaterializeResult(asset_key=["cost", "periods"], metadata=written(done.periods))


@dg.asset(
    key=["cost", "reconciliation"],
    group_name="cost",
    owners=_OWNERS,
    kinds={"duckdb", "parquet"},
    code_version="1",
    deps=[["cost", "files"], ["cost", "charges"], ["cost", "monthly"], ["cost", "daily"]],
    automation_condition=FOLLOW_INPUTS,
    description=COST_RECONCILIATION.comment,
)
def reconciliation(platform: Platform) -> dg.MaterializeResult[None]:
    """Sums per billing period, currency and stage."""
    from greenops_pipelines.cost.reconciliation import reconcile

    lake = platform.lake()
    rows = reconcile(lake)
    shown = rows.select(["billing_period", "currency", "stage", "charges", "billed_cost", "billed_difference"])
    figures = {"sums": table_metadata(shown, limit=60)}
    return dg.MaterializeResult(metadata=written(lake.write(COST_RECONCILIATION, rows), figures))


@dg.asset_check(
    asset=["cost", "charges"], description="No two deliveries that count repeat a part of each other's charges."
)
def deliveries(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Repeated snapshots are the dearest mistake there is; whether a part is meant twice, only a person can say."""
    from greenops_pipelines.cost import checks

    return checked(context, platform, checks.deliveries(platform.lake()))


@dg.asset_check(
    asset=["cost", "charges"], description="At least 80 % of the cost names a tenant, or is split among the tenants."
)
def allocated(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """What nobody owns, nobody saves."""
    from greenops_pipelines.cost import checks

    return checked(context, platform, checks.allocated(platform.lake()))


@dg.asset_check(
    asset=["cost", "charges"], description="The charges of an invoice are of one account, one issuer and one currency."
)
def invoices(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Otherwise their sum could not be the invoice's (FOCUS, BilledCost)."""
    from greenops_pipelines.cost import checks

    return checked(context, platform, checks.invoices(platform.lake()))


@dg.asset_check(
    asset=["cost", "reconciliation"],
    blocking=True,
    description="Raw files, charges and marts come to the same sums, per billing period and currency, exactly.",
)
def exact(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A difference of any digit stops what reports cost."""
    from greenops_pipelines.cost.reconciliation import measurement

    rows = platform.lake().read(COST_RECONCILIATION)
    return checked(context, platform, measurement(rows), dg.AssetCheckSeverity.ERROR)


ASSETS = [ingestion, reconciliation]
CHECKS = [
    schema_check("cost/charges", COST_CHARGES),
    schema_check("cost/files", COST_FILES),
    schema_check("cost/periods", COST_PERIODS),
    schema_check("cost/reconciliation", COST_RECONCILIATION),
    deliveries,
    allocated,
    invoices,
    exact,
]
