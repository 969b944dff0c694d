"""Error budgets: samples of the SLOs' metrics, what was counted of them, and incidents. The marts are dbt's."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg

from assets.conditions import ONCE
from assets.partitions import DAILY
from assets.schemas import schema_check
from greenops_pipelines.errors import GreenopsError
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES, SLO_DAYS, SLO_INCIDENTS, SLO_MINUTES
from greenops_pipelines.resources import Platform, checked, permanent_faults, table_metadata, written

_OWNERS = ["team:sre"]
_RETRY = dg.RetryPolicy(max_retries=3, delay=20, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


class Reading(dg.Config):
    """Whether days that are whole in the lake are read again, and replaced even by less: the source was corrected long after."""

    again: bool = False


@dg.multi_asset(
    name="slo_metrics",
    specs=[
        dg.AssetSpec(
            key=["slo", name],
            group_name="slo",
            owners=_OWNERS,
            kinds={"prometheus", "parquet"},
            code_version="1",
            deps=[["slo", "definitions"]],
            partitions_def=DAILY,
            description=description,
        )
        for name, description in (
            ("metric_series", METRIC_SERIES.comment),
            ("metric_samples", METRIC_SAMPLES.comment + " Sample metrics say so in every row."),
        )
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "read",
            asset=["slo", "metric_samples"],
            description="Every day that was asked for was read whole, and its source has what it had before.",
        )
    ],
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=_RETRY,
)
def metrics(
    context: dg.AssetExecutionContext, config: Reading, platform: Platform
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Read the partition's days from the configured source. Days that fail fail the check: the others are counted."""
    from greenops_pipelines.slo import budget_sources

    days = [date.fromisoformat(key) for key in context.partition_keys]
    with permanent_faults():
        try:
            read = platform.read_metrics(
                days,
                again=config.again,
                progress=lambda day: context.log.info(f"{day.day}: {day.samples} samples, {day.seconds:.1f} s"),
            )
        except GreenopsError as error:
            measurement = budget_sources.not_read(days, str(error))
            yield checked(context, platform, measurement, dg.AssetCheckSeverity.ERROR)
            raise
    done = read.ingested
    left_out = sorted({reason for day in done.days for reason in day.left_out.values()})
    figures: dict[str, Any] = {
        "days read": len(done.days) - len(done.failed),
        "days that were there": len(read.there),
        "days that failed": "; ".join(f"{day.day}: {day.error}" for day in done.failed) or "none",
        "selectors left out": "; ".join(left_out[:5]) or "none",
        "samples": int(done.total("samples")),
        "NaN or infinite": int(done.total("unusable")),
        "there twice": int(done.total("duplicates")),
        "bytes written": int(done.total("bytes")),
        "seconds": round(done.total("seconds"), 1),
    }
    for name, table in (("metric_series", METRIC_SERIES), ("metric_samples", METRIC_SAMPLES)):
        yield dg.MaterializeResult(
            asset_key=["slo", name],
            metadata={**figures, "dagster/table_name": table.name, "dagster/uri": table.path},
        )
    yield checked(context, platform, budget_sources.reading(read), dg.AssetCheckSeverity.ERROR)


@dg.multi_asset(
    name="slo_counts",
    specs=[
        dg.AssetSpec(
            key=["slo", name],
            group_name="slo",
            owners=_OWNERS,
            kinds={"parquet"},
            code_version="1",
            deps=[["slo", "metric_series"], ["slo", "metric_samples"], ["slo", "definitions"]],
            partitions_def=DAILY,
            description=table.comment,
        )
        for name, table in (("minutes", SLO_MINUTES), ("days", SLO_DAYS))
    ],
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def counts(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[dg.MaterializeResult[None]]:
    """Count the partition's days as far as they were read, and the day after."""
    days = [date.fromisoformat(key) for key in context.partition_keys]
    with permanent_faults():
        counted = platform.count_budgets(days, context.run.run_id)
    faults = {slo: fault for day in counted.days for slo, fault in day.faults.items()}
    figures: dict[str, Any] = {
        "days": len(counted.days),
        "minutes": sum(day.minutes for day in counted.days),
        "minutes that are gaps": sum(day.gap_minutes for day in counted.days),
        "counter resets": sum(day.resets for day in counted.days),
        "totals restated": len(counted.restated),
        "SLOs with a fault": "; ".join(f"{slo}: {fault}" for slo, fault in sorted(faults.items())[:5]) or "none",
    }
    for name, table in (("minutes", SLO_MINUTES), ("days", SLO_DAYS)):
        yield dg.MaterializeResult(
            asset_key=["slo", name],
            metadata={**figures, "dagster/table_name": table.name, "dagster/uri": table.path},
        )


@dg.asset(
    key=["slo", "incidents"],
    group_name="slo",
    owners=_OWNERS,
    kinds={"sqlite", "parquet"},
    code_version="1",
    deps=[["slo", "minutes"], ["slo", "definitions"]],
    # By the sensor, as soon as something changed; and at once where there is none yet, since the warehouse waits for it.
    automation_condition=ONCE,
    retry_policy=_RETRY,
    description=SLO_INCIDENTS.comment,
)
def incidents(platform: Platform) -> dg.MaterializeResult[None]:
    """Decide on what was counted, file what pages prepared, write them all down."""
    from greenops_pipelines.slo.incidents import table

    with permanent_faults():
        changes = platform.watch_budgets()
        filed = platform.file_incidents()
        rows = table(platform.incidents())
    result = platform.lake().write(SLO_INCIDENTS, rows)
    newest = rows.sort_by([("opened_at", "descending")]).select(
        ["slo_id", "severity", "state", "opened_at", "closed_at", "peak_burn", "budget_spent_percent", "told"]
    )
    figures: dict[str, Any] = {
        "incidents": rows.num_rows,
        "open": sum(state == "open" for state in rows["state"].to_pylist()),
        "opened now": ", ".join(changes.opened) or "none",
        "closed now": ", ".join(changes.closed) or "none",
        "rollbacks prepared now": len(filed),
        "pages without evidence": len(platform.incidents().unfiled()),
        "newest": table_metadata(newest, 12),
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset_check(asset=["slo", "metric_samples"], description="The newest sample is at most 20 minutes old.")
def fresh(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A budget of yesterday's samples says nothing about today."""
    from greenops_pipelines.slo import budget_checks

    return checked(context, platform, budget_checks.fresh(platform.lake(), platform.now()))


@dg.asset_check(asset=["slo", "metric_series"], description="At most one sample in a thousand is NaN or infinite.")
def usable(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """They count for nothing, and many of them are a fault of whoever emits them."""
    from greenops_pipelines.slo import budget_checks

    return checked(context, platform, budget_checks.usable(platform.lake()))


@dg.asset_check(asset=["slo", "days"], description="Every declared SLO was counted on the newest day that is over.")
def counted(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A metric that was renamed, a query that cannot be counted: named here, instead of a budget that looks full."""
    from greenops_pipelines.slo import budget_checks

    measurement = budget_checks.counted(platform.lake(), [slo.id for slo in platform.slos().slos])
    return checked(context, platform, measurement, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["slo", "error_budget"],
    additional_deps=[["slo", "minutes"]],
    description="At least 95 % of every SLO's minutes are known, and none has been silent for an hour.",
)
def known(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Gaps are neither good nor bad, so a budget with many of them is a guess."""
    from greenops_pipelines.slo import budget_checks

    return checked(context, platform, budget_checks.known(platform.lake()))


@dg.asset_check(
    asset=["slo", "error_budget"],
    additional_deps=[["slo", "days"]],
    description="Budgets are the sums of the days as they were counted, and lack no bad events that were cut off.",
)
def reconciled(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Two ways to the same figure: by minute through dbt, by day when it was counted."""
    from greenops_pipelines.slo import budget_checks

    return checked(context, platform, budget_checks.reconciled(platform.lake()), dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["slo", "incidents"], description="Of every incident somebody was told; without a target, nobody is."
)
def told(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A message that was refused, or of which nobody knows whether it arrived."""
    from greenops_pipelines.slo import budget_checks

    return checked(context, platform, budget_checks.told(platform.lake(), platform.now()), dg.AssetCheckSeverity.ERROR)


ASSETS = [metrics, counts, incidents]
CHECKS = [
    schema_check("slo/metric_series", METRIC_SERIES),
    schema_check("slo/metric_samples", METRIC_SAMPLES),
    schema_check("slo/minutes", SLO_MINUTES),
    schema_check("slo/days", SLO_DAYS),
    schema_check("slo/incidents", SLO_INCIDENTS),
    fresh,
    usable,
    counted,
    known,
    reconciled,
    told,
]
