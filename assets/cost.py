"""Cost: bills as charges in FOCUS' columns, reconciled to the last digit, and the report. The marts are in `marts.py`."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from assets.conditions import FOLLOW_INPUTS
from assets.schemas import schema_check
from greenops_pipelines.lake.cost_tables import (
    COST_CHARGES,
    COST_FILES,
    COST_PERIODS,
    COST_RECONCILIATION,
    COST_REPORTS,
)
from greenops_pipelines.resources import Platform, checked, permanent_faults, proven, table_metadata, written

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


class ReportConfig(dg.Config):
    """Which report."""

    period: str = Field(
        "", description="2026-10 or 2026-W44; empty: the newest months and week, and whatever was restated since"
    )


@dg.asset(
    key=["cost", "report"],
    group_name="cost",
    owners=_OWNERS,
    kinds={"html", "csv", "parquet"},
    code_version="1",
    deps=[
        ["cost", "reconciliation"],
        ["cost", "allocated_monthly"],
        ["cost", "charge_carbon"],
        ["cost", "commitments_monthly"],
        ["cost", "units_daily"],
        ["cost", "anomalies_daily"],
        ["cost", "forecasts_daily"],
        ["carbon", "sci_daily"],
    ],
    automation_condition=FOLLOW_INPUTS,
    description="The FinOps report of a month or week: budgets and forecast, movers, anomalies, allocation, commitments, unit "
    "costs, carbon, provenance; and of a month a statement per tenant, which holds nothing of another's. HTML, CSV and Parquet.",
)
def report(context: dg.AssetExecutionContext, config: ReportConfig, platform: Platform) -> dg.MaterializeResult[None]:
    """Render into reports/finops/. A report whose bills were restated since is made again."""
    from greenops_pipelines import __version__
    from greenops_pipelines.report import finops
    from greenops_pipelines.report.finops_reconciled import due
    from greenops_pipelines.report.periods import parse

    lake, reports, now = platform.lake(), platform.settings().reports, platform.now()
    with permanent_faults():
        periods = [parse(config.period)] if config.period else due(lake)
        made = finops.write_reports(lake, reports, periods, now, __version__, context.log.info)
    figures: dict[str, object] = {}
    for one in made:
        sums = "; ".join(f"{effective:,.2f} {currency}" for currency, (_, effective) in sorted(one.totals.items()))
        figures[one.period.name] = f"{sums} amortised" + (" (sample data)" if one.is_sample else "")
    figures["files"] = (
        ", ".join(f"reports/{one.path.relative_to(reports).as_posix()}" for one in made) or "none: no bills"
    )
    figures["statements of tenants"] = sum(len(one.statements) for one in made)
    return dg.MaterializeResult(metadata=written(finops.record(lake, reports, made, now, periods), figures))


@dg.asset_check(
    asset=["cost", "report"],
    blocking=True,
    description="Raw files, charges, marts and reports say the same sums to the last digit; reports are read back from their files.",
)
def reconciled(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J3.1."""
    from greenops_pipelines.report.finops_reconciled import reconciliation as measured

    measurement = measured(platform.lake(), platform.settings().reports)
    reads = ["cost_files", "cost_reconciliation", "cost_reports"]
    return proven(context, platform, measurement, "J3.1", reads, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["cost", "anomalies_daily"], description="No anomaly of cost in the last seven days of the bills."
)
def recent(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Somebody should look."""
    from greenops_pipelines.cost import checks

    return checked(context, platform, checks.anomalies(platform.lake()))


@dg.asset_check(
    asset=["cost", "anomalies_daily"],
    description="On the sample, where it is known what is wrong: at most one false alarm per 1,000 judged days of a series.",
)
def false_alarms(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """On real bills nobody knows."""
    from greenops_pipelines.cost import checks

    return checked(context, platform, checks.false_alarms(platform.lake()))


@dg.asset_check(
    asset=["cost", "forecasts_daily"], description="Of ten forecasts of months that are over, eight held what came."
)
def intervals(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """An interval that is too narrow is a promise."""
    from greenops_pipelines.cost import checks

    return checked(context, platform, checks.intervals(platform.lake()))


@dg.asset_check(
    asset=["cost", "forecasts_daily"], description="No budget is expected to be exceeded by the end of its month."
)
def budgets(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """While there is time to do something about it."""
    from greenops_pipelines.cost import checks

    return checked(context, platform, checks.budgets(platform.lake()))


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
REPORTS = [report]
"""The warehouse does not wait for them: a report that does not reconcile must not keep the figures from whoever looks."""
CHECKS = [
    schema_check("cost/charges", COST_CHARGES),
    schema_check("cost/files", COST_FILES),
    schema_check("cost/periods", COST_PERIODS),
    schema_check("cost/reconciliation", COST_RECONCILIATION),
    schema_check("cost/report", COST_REPORTS),
    deliveries,
    allocated,
    invoices,
    exact,
    reconciled,
    recent,
    false_alarms,
    intervals,
    budgets,
]
