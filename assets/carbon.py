"""Carbon: intensity and forecasts of the grids, resource usage, emission factors. The marts are in `marts.py`."""

import dagster as dg

from assets.conditions import FOLLOW_INPUTS, ONCE
from assets.partitions import DAILY
from assets.schemas import schema_check
from greenops_pipelines.lake.tables import (
    CARBON_FORECAST,
    CARBON_INTENSITY,
    CARBON_OUTLOOK,
    EMISSION_FACTORS,
    FORECAST_SCORES,
    RESOURCE_USAGE,
)
from greenops_pipelines.resources import Platform, checked, permanent_faults, proven, table_metadata, written

_OWNERS = ["team:sustainability"]
_RETRY = dg.RetryPolicy(max_retries=3, delay=20, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


@dg.asset(
    key=["carbon", "intensity"],
    group_name="carbon",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["ops", "regions"]],
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=_RETRY,
    description=CARBON_INTENSITY.comment + " Values that changed since the last fetch are added, never replaced.",
)
def intensity(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[None]:
    """Fetch the partition's days for every declared zone."""
    from greenops_pipelines.carbon.ingest import ingest_history
    from greenops_pipelines.carbon.sources import zones_to_fetch

    window = context.partition_time_window
    with permanent_faults():
        provider, lake, now = platform.carbon(), platform.lake(), platform.now()
        zones = zones_to_fetch(provider, platform.zones())
        done = ingest_history(provider, lake, zones, window.start, window.end, context.run.run_id, now)
    missing = sorted(set(platform.zones()) - set(zones))
    figures = {
        "provider": provider.name + (" (sample data)" if provider.name == "sample" else ""),
        "new intervals": done.total("new_rows"),
        "revised intervals": done.total("revised_rows"),
        "intervals without a value": done.total("null_rows"),
        "zones that failed": "; ".join(f"{z.zone}: {z.error}" for z in done.failed) or "none",
        "zones the provider does not have": ", ".join(missing) or "none",
    }
    return dg.MaterializeResult(metadata=written(done.written, figures))


@dg.asset(
    key=["carbon", "forecast"],
    group_name="carbon",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["ops", "regions"]],
    # Hourly by schedule, and at once where there is none yet: the warehouse and the reports wait for it.
    automation_condition=FOLLOW_INPUTS,
    retry_policy=_RETRY,
    description=CARBON_FORECAST.comment,
)
def forecast(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[None]:
    """Fetch the newest forecast of every declared zone."""
    from greenops_pipelines.carbon.ingest import ingest_forecast
    from greenops_pipelines.carbon.sources import zones_to_fetch

    with permanent_faults():
        provider, lake, now = platform.carbon(), platform.lake(), platform.now()
        zones = zones_to_fetch(provider, platform.zones())
        done = ingest_forecast(provider, lake, zones, context.run.run_id, now)
    figures = {
        "provider": provider.name + (" (sample data)" if provider.name == "sample" else ""),
        "new forecast intervals": done.total("new_rows"),
        "zones that failed": "; ".join(f"{z.zone}: {z.error}" for z in done.failed) or "none",
    }
    return dg.MaterializeResult(metadata=written(done.written, figures))


@dg.asset(
    key=["carbon", "outlook"],
    group_name="carbon",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["carbon", "forecast"], ["carbon", "intensity"]],
    automation_condition=FOLLOW_INPUTS,
    description=CARBON_OUTLOOK.comment + " Where the provider says nothing, our own forecast from the zone's past.",
)
def outlook(platform: Platform) -> dg.MaterializeResult[None]:
    """The next three days of every declared zone."""
    from greenops_pipelines.carbon import outlook as library

    with permanent_faults():
        lake, provider = platform.lake(), platform.carbon()
        found = library.outlook(lake, provider.name, platform.zones(), platform.now())
    result = lake.write(CARBON_OUTLOOK, found.rows)
    figures = {
        **{f"intervals by {method}": count for method, count in found.counts.items()},
        "intervals that nobody knows": found.missing,
        "zones that nobody knows": ", ".join(found.empty_zones) or "none",
    }
    return dg.MaterializeResult(metadata=written(result, figures))


@dg.asset(
    key=["carbon", "forecast_scores"],
    group_name="carbon",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["carbon", "forecast"], ["carbon", "intensity"]],
    automation_condition=ONCE,
    description=FORECAST_SCORES.comment,
)
def forecast_scores(platform: Platform) -> dg.MaterializeResult[None]:
    """Replay every method over the record, and the provider's forecasts as they were issued."""
    from greenops_pipelines.carbon.forecast_scores import day_ahead, score

    with permanent_faults():
        lake, provider = platform.lake(), platform.carbon()
        rows = score(lake, provider.name, platform.zones(), platform.now())
    result = lake.write(FORECAST_SCORES, rows)
    return dg.MaterializeResult(metadata=written(result, {"a day ahead": table_metadata(day_ahead(rows), 60)}))


@dg.asset(
    key=["carbon", "usage"],
    group_name="carbon",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["ops", "regions"], ["ops", "tenants"]],
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description=RESOURCE_USAGE.comment + " Sample usage says so in every row.",
)
def usage(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[None]:
    """Write the partition's days, one file each; a day that is fetched again is replaced."""
    from datetime import date

    from greenops_pipelines.carbon.usage import configured_usage

    window = context.partition_time_window
    source, rows = configured_usage(
        platform.settings().usage_path, platform.tenants(), window.start, window.end, platform.now()
    )
    days: list[dict[str, str | date]] = [
        {"source": source, "day": date.fromisoformat(key)} for key in context.partition_keys
    ]
    result = platform.lake().write(RESOURCE_USAGE, rows, days)
    figures = {
        "source": source + (" (sample data)" if source == "sample" else ""),
        "services": len(rows["service"].unique()),
        "tenants": len(rows["tenant"].unique()),
    }
    return dg.MaterializeResult(metadata=written(result, figures))


@dg.asset(
    key=["carbon", "emission_factors"],
    group_name="carbon",
    owners=_OWNERS,
    kinds={"csv", "parquet"},
    code_version="1",
    description=EMISSION_FACTORS.comment,
)
def emission_factors(platform: Platform) -> dg.MaterializeResult[None]:
    """The factors that come with the project."""
    from greenops_pipelines.carbon.factors import read_factors

    rows = read_factors()
    result = platform.lake().write(EMISSION_FACTORS, rows)
    figures = {"sources": ", ".join(sorted(set(rows["source"].to_pylist())))}
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset_check(asset=["carbon", "intensity"], description="At least 95 % of the expected intervals have a value.")
def completeness(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J2.1."""
    from greenops_pipelines.carbon import checks

    measurement = checks.completeness(platform.lake(), platform.carbon(), platform.zones())
    return proven(context, platform, measurement, "J2.1", ["carbon_intensity"])


@dg.asset_check(asset=["carbon", "intensity"], description="No zone is more than 3 hours behind.")
def freshness(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Per zone: an asset's own freshness turns green when any old day is backfilled."""
    from greenops_pipelines.carbon import checks

    measurement = checks.freshness(platform.lake(), platform.carbon(), platform.zones(), platform.now())
    return proven(context, platform, measurement, "J2.1", ["carbon_intensity"])


@dg.asset_check(
    asset=["carbon", "intensity"], description="At most 25 % of the intervals older than two days are still estimates."
)
def estimated_share(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Estimates turn final within a day or two; a growing share means that a source has stopped measuring."""
    from greenops_pipelines.carbon import checks

    measurement = checks.estimated_share(platform.lake(), platform.now())
    return proven(context, platform, measurement, "J2.1", ["carbon_intensity"])


@dg.asset_check(asset=["carbon", "forecast"], description="Every zone has a forecast of at least 24 hours.")
def horizon(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Placement needs a day to look ahead."""
    from greenops_pipelines.carbon import checks

    measurement = checks.forecast_horizon(platform.lake(), platform.carbon(), platform.zones(), platform.now())
    return proven(context, platform, measurement, "J2.1", ["carbon_forecast"])


@dg.asset_check(asset=["carbon", "usage"], description="No usage of a bound tenant lies outside its residency area.")
def residency(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """A breach is an incident, not a detail of carbon accounting: it is an error."""
    from greenops_pipelines.carbon import checks
    from greenops_pipelines.carbon.regions import regions_table, tenants_table

    declared = regions_table(platform.regions()), tenants_table(platform.tenants())
    measurement = checks.usage_residency(platform.lake(), *declared)
    return proven(context, platform, measurement, "J2.3", ["resource_usage"], dg.AssetCheckSeverity.ERROR)


@dg.asset_check(asset=["carbon", "outlook"], description="Something is known of every zone's next 24 hours.")
def ahead(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Says how much of it is our own forecast: a fallback that nobody sees is a wrong forecast in waiting."""
    from greenops_pipelines.carbon import checks

    return checked(context, platform, checks.outlook_ahead(platform.lake(), platform.zones()))


@dg.asset_check(
    asset=["carbon", "forecast_scores"], description="The forecasts of at least 95 % of the zones have a score."
)
def scored(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """Error and regret: what a forecast is worth is the saving that it does not lose."""
    from greenops_pipelines.carbon import checks

    return checked(context, platform, checks.forecasts_scored(platform.lake(), platform.carbon(), platform.zones()))


ASSETS = [intensity, forecast, outlook, forecast_scores, usage, emission_factors]
CHECKS = [
    schema_check("carbon/intensity", CARBON_INTENSITY),
    schema_check("carbon/forecast", CARBON_FORECAST),
    schema_check("carbon/outlook", CARBON_OUTLOOK),
    schema_check("carbon/forecast_scores", FORECAST_SCORES),
    schema_check("carbon/usage", RESOURCE_USAGE),
    schema_check("carbon/emission_factors", EMISSION_FACTORS),
    completeness,
    freshness,
    estimated_share,
    horizon,
    ahead,
    scored,
    residency,
]
