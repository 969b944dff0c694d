"""What the carbon chain promises, measured on small lakes whose figures a person can count."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.carbon import checks
from greenops_pipelines.carbon.files import FileProvider
from greenops_pipelines.carbon.provider import Provider
from greenops_pipelines.carbon.regions import Region, Tenant, regions_table, tenants_table
from greenops_pipelines.carbon.sample import SampleProvider
from greenops_pipelines.carbon.uk_neso import UkNeso
from greenops_pipelines.http import HttpClient
from greenops_pipelines.lake import Lake, Table
from greenops_pipelines.lake.tables import CARBON_FORECAST
from greenops_pipelines.measurement import Measurement
from tests.carbon.small_lake import (
    Row,
    at,
    empty_lake,
    intensity,
    marts,
    put,
    put_intensity,
    put_usage,
    table,
    usage,
)

DE_FR = ["DE", "FR"]
NOW = at(12)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, ...]:
    return marts(tmp_path_factory.mktemp("dbt"))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return empty_lake(tmp_path)


@pytest.fixture
def live() -> Provider:
    """A source without an end that covers every zone asked for here."""
    return SampleProvider(lambda: NOW)


@pytest.fixture
def file(tmp_path: Path) -> FileProvider:
    """A file that ends at 04:00."""
    path = tmp_path / "ci.csv"
    rows = "".join(f"{at(hour).isoformat()},{zone},100\n" for zone in DE_FR for hour in range(4))
    path.write_text("datetime,zone,carbon_intensity_g_per_kwh\n" + rows)
    return FileProvider(str(path))


def hours(zone: str, *which: int, **other: Any) -> list[Row]:
    return [intensity(zone, at(hour), **other) for hour in which]


def shown(measurement: Measurement) -> tuple[float | None, str, str]:
    return measurement.measured, measurement.outcome, measurement.detail


# Completeness


def test_a_whole_record_is_complete(lake: Lake, live: Provider) -> None:
    put_intensity(lake, *hours("DE", 0, 1, 2, 3), *hours("FR", 0, 1, 2, 3))
    found = checks.completeness(lake, live, DE_FR)
    assert shown(found) == (100.0, "passed", "8 of 8 hours of 2 zones have a value")
    assert (found.check, found.target, found.comparison) == ("carbon/intensity:completeness", 95.0, ">=")


def test_a_missing_hour_and_an_hour_without_a_value_are_missing_alike(lake: Lake, live: Provider) -> None:
    put_intensity(lake, *hours("DE", 0, 1, 2, 3), *hours("FR", 0, 3), intensity("FR", at(1), None))
    found = checks.completeness(lake, live, DE_FR)
    assert shown(found) == (75.0, "failed", "6 of 8 hours of 2 zones have a value")
    assert found.figures["worst zone"] == "FR"
    assert found.figures["hours of the worst zone"] == 2


def test_an_hour_that_every_zone_lacks_is_missing_too(lake: Lake, live: Provider) -> None:
    put_intensity(lake, *hours("DE", 0, 1, 3), *hours("FR", 0, 1, 3))
    assert checks.completeness(lake, live, DE_FR).measured == 75.0


def test_a_zone_that_never_came_counts_in_full(lake: Lake, live: Provider) -> None:
    put_intensity(lake, *hours("DE", 0, 1, 2, 3))
    found = checks.completeness(lake, live, DE_FR)
    assert (found.measured, found.figures["worst zone"]) == (50.0, "FR")


@pytest.mark.parametrize(("missing", "outcome"), [(5, "passed"), (6, "failed")])
def test_95_percent_is_just_enough(lake: Lake, live: Provider, missing: int, outcome: str) -> None:
    """100 hours; the last is kept, so that the record ends where it did."""
    put_intensity(lake, *(intensity("DE", at(0) + timedelta(hours=n)) for n in (*range(99 - missing), 99)))
    found = checks.completeness(lake, live, ["DE"])
    assert (found.measured, found.outcome) == (100 - missing, outcome)


def test_zones_that_publish_hours_and_quarters_are_measured_alike(lake: Lake, live: Provider) -> None:
    quarters = [intensity("DE", at(0, minute), resolution_minutes=15) for minute in (0, 15, 30, 45)]
    put_intensity(lake, *quarters, *hours("FR", 0))
    assert shown(checks.completeness(lake, live, DE_FR)) == (100.0, "passed", "2 of 2 hours of 2 zones have a value")


def test_zones_that_the_provider_lacks_are_named_and_not_expected(lake: Lake, live: Provider) -> None:
    put_intensity(lake, *hours("DE", 0, 1))
    found = checks.completeness(lake, live, ["DE", "XX", "PL"])
    assert found.measured == 100.0
    assert found.figures["zones the provider does not have"] == "PL, XX"


def test_nothing_ingested_is_not_complete(lake: Lake, live: Provider) -> None:
    assert shown(checks.completeness(lake, live, DE_FR)) == (0.0, "failed", "0 of 0 hours of 2 zones have a value")
    assert checks.completeness(lake, live, ["XX"]).measured == 0.0


# Freshness


def test_the_zone_that_is_furthest_behind_decides(lake: Lake, live: Provider) -> None:
    put_intensity(lake, *hours("DE", 9, 10), *hours("FR", 7, 8))
    found = checks.freshness(lake, live, DE_FR, NOW)
    assert shown(found) == (3.0, "passed", "FR is furthest behind, measured against 2026-03-01 12:00 UTC")
    assert found.figures == {"hours behind, FR": 3.0, "hours behind, DE": 1.0}
    assert checks.freshness(lake, live, DE_FR, NOW + timedelta(minutes=1)).outcome == "failed"


def test_a_null_does_not_make_a_zone_fresh(lake: Lake, live: Provider) -> None:
    put_intensity(lake, *hours("DE", 7), intensity("DE", at(11), None))
    assert checks.freshness(lake, live, ["DE"], NOW).measured == 4.0


def test_a_file_is_measured_against_its_own_end(lake: Lake, file: FileProvider) -> None:
    put_intensity(lake, *hours("DE", 0, 1, 2, 3), *hours("FR", 0, 1))
    found = checks.freshness(lake, file, DE_FR, at(12, day=9))
    assert found.measured == 2.0
    assert found.detail.endswith("against 2026-03-01 04:00 UTC, where the file ends")


def test_a_zone_without_any_value_is_behind_by_the_whole_record(lake: Lake, live: Provider) -> None:
    put_intensity(lake, *hours("DE", 2, 11))
    found = checks.freshness(lake, live, ["DE", "FR", "GB"], NOW)
    assert shown(found) == (10.0, "failed", "no value at all for FR, GB: behind by the whole record")


def test_freshness_of_nothing_cannot_be_measured(lake: Lake, live: Provider) -> None:
    found = checks.freshness(lake, live, DE_FR, NOW)
    assert shown(found) == (None, "cannot be measured", "no zone has a value")
    assert found.missing == "carbon intensity of any zone"


# Estimates


def test_estimates_are_counted_where_they_should_be_final_by_now(lake: Lake) -> None:
    """An interval that ended exactly two days ago counts, a later one does not."""
    now = at(4, day=3)
    put_intensity(
        lake,
        *hours("DE", 0, is_estimated=True),
        *hours("DE", 1, 2, 3, is_estimated=False),
        *hours("DE", 4, 5, is_estimated=True),
        *hours("FR", 0, 1, is_estimated=None),
    )
    found = checks.estimated_share(lake, now)
    assert shown(found) == (25.0, "passed", "1 of 4 intervals older than two days are estimates; 2 do not say")
    assert checks.estimated_share(lake, now + timedelta(hours=1)).measured == 40.0


def test_a_source_that_never_says_is_not_taken_for_estimates(lake: Lake) -> None:
    put_intensity(lake, *hours("DE", 0, 1, is_estimated=None))
    found = checks.estimated_share(lake, at(0, day=9))
    assert (found.measured, found.figures["not stated"]) == (0.0, 2)


def test_estimates_of_nothing_cannot_be_measured(lake: Lake) -> None:
    put_intensity(lake, *hours("DE", 0, is_estimated=True))
    found = checks.estimated_share(lake, at(2, day=3) - timedelta(hours=2))
    assert (found.measured, found.missing) == (None, "carbon intensity older than two days")


# Forecast horizon


def forecast(zone: str, *which: datetime, issued: datetime = NOW) -> list[Row]:
    fixed = {"provider": "file", "zone": zone, "issued_at": issued, "resolution_minutes": 60, "signal": "average"}
    return [
        fixed | {"datetime": time, "emission_factor_type": "lifecycle", "observed_at": NOW, "day": NOW.date()}
        for time in which
    ]


def test_the_shortest_forecast_decides(lake: Lake, live: Provider) -> None:
    put(lake, CARBON_FORECAST, forecast("DE", at(13), at(11, day=2)) + forecast("FR", at(13), at(11, day=3)))
    found = checks.forecast_horizon(lake, live, DE_FR, NOW)
    assert shown(found) == (24.0, "passed", "DE has the shortest forecast")
    assert found.figures == {"hours ahead, DE": 24.0, "hours ahead, FR": 48.0}
    assert checks.forecast_horizon(lake, live, DE_FR, NOW + timedelta(minutes=6)).measured == pytest.approx(23.9)


def test_a_zone_without_a_forecast_has_none(lake: Lake, live: Provider) -> None:
    put(lake, CARBON_FORECAST, forecast("DE", at(11, day=2)))
    assert shown(checks.forecast_horizon(lake, live, DE_FR, NOW)) == (0.0, "failed", "FR has the shortest forecast")


def test_a_forecast_that_has_run_out_reaches_nowhere(lake: Lake, live: Provider) -> None:
    put(lake, CARBON_FORECAST, forecast("DE", at(9)))
    assert shown(checks.forecast_horizon(lake, live, ["DE"], NOW))[:2] == (0.0, "failed")


def test_a_provider_without_forecasts_cannot_be_measured(lake: Lake, file: FileProvider) -> None:
    found = checks.forecast_horizon(lake, file, DE_FR, NOW)
    assert (found.measured, found.outcome) == (None, "cannot be measured")
    assert found.missing == "a current forecast by the provider file"


def test_zones_that_the_provider_lacks_are_not_asked_for(lake: Lake) -> None:
    put(lake, CARBON_FORECAST, forecast("GB", at(11, day=3)))
    found = checks.forecast_horizon(lake, UkNeso(HttpClient("http://127.0.0.1:1")), ["DE", "GB"], NOW)
    assert (found.measured, dict(found.figures)) == (48.0, {"hours ahead, GB": 48.0})


# Residency

REGIONS = regions_table(
    Region(region=name, zone=zone, pue=1.2, pue_source="test", residency=area)
    for name, zone, area in (
        ("eu-central-1", "DE", "eu"),
        ("us-east-1", "US-MIDA-PJM", "us"),
        ("eu-west-2", "GB", "uk"),
    )
)
TENANTS = tenants_table(
    Tenant(tenant=name, residency=area, home_region="eu-central-1")
    for name, area in (("acme", "eu"), ("initech", "us"), ("globex", "any"))
)


def residency(lake: Lake, *placed: tuple[str, str]) -> Measurement:
    put_usage(lake, *(usage(at(hour), tenant, region) for hour, (tenant, region) in enumerate(placed)))
    return checks.usage_residency(lake, REGIONS, TENANTS)


def test_bound_tenants_inside_and_free_ones_anywhere_are_fine(lake: Lake) -> None:
    found = residency(lake, ("acme", "eu-central-1"), ("globex", "us-east-1"), ("globex", "eu-west-2"))
    assert shown(found) == (0.0, "passed", "1 rows of bound tenants, all inside their area")


@pytest.mark.parametrize(
    ("tenant", "region"), [("acme", "us-east-1"), ("acme", "eu-west-2"), ("initech", "eu-central-1")]
)
def test_one_row_outside_its_area_is_a_breach(lake: Lake, tenant: str, region: str) -> None:
    """London is near, and no longer under EU law; a tenant bound to the US is bound as well."""
    found = residency(lake, ("acme", "eu-central-1"), ("initech", "us-east-1"), (tenant, region), ("globex", region))
    assert shown(found) == (1.0, "failed", f"{tenant} in {region}")


@pytest.mark.parametrize(("tenant", "region"), [("unknown", "eu-central-1"), ("acme", "moon-1"), ("globex", "moon-1")])
def test_what_is_not_declared_is_not_taken_for_fine(lake: Lake, tenant: str, region: str) -> None:
    found = residency(lake, ("acme", "eu-central-1"), (tenant, region))
    assert shown(found) == (1.0, "failed", f"{tenant} in {region}")
    assert found.figures["rows of undeclared tenants or regions"] == 1


def test_no_usage_has_no_breach(lake: Lake) -> None:
    assert residency(lake).measured == 0.0


# Coverage and balance: on the marts


def emission(hour: datetime, kwh: float, kg: float | None, **other: Any) -> Row:
    return {
        "hour": hour,
        "day": hour.date(),
        "service": "search",
        "tenant": "acme",
        "region": "eu-central-1",
        "energy_kwh": kwh,
        "is_covered": kg is not None,
        "operational_kg": kg,
    } | other


def built(folder: Path, published: tuple[Table, ...], *rows: Row, provider: str = "file") -> Lake:
    """A lake whose usage and marts agree on `rows`."""
    lake = empty_lake(folder, provider, published)
    put_usage(lake, *(usage(row["hour"], row["tenant"], requests=row.get("requests", 0.0)) for row in rows))
    put(lake, table(lake, "emissions_hourly"), rows)
    by_day: dict[Any, Row] = {}
    for row in rows:
        day = by_day.setdefault(row["day"], {"day": row["day"], "energy_kwh": 0.0, "operational_kg": 0.0})
        day["energy_kwh"] += row["energy_kwh"]
        day["operational_kg"] += row["operational_kg"] or 0.0
    put(lake, table(lake, "emissions_daily"), list(by_day.values()))
    return lake


def test_coverage_weighs_by_energy(tmp_path: Path, published: tuple[Table, ...]) -> None:
    rows = [emission(at(0), 990.0, 99.0), emission(at(1), 10.0, None)]
    lake = built(tmp_path, published, *rows)
    put_intensity(lake, *hours("DE", 0, 1))
    found = checks.coverage(lake)
    assert shown(found) == (99.0, "passed", "990.0 of 1,000.0 kWh have a carbon intensity")
    assert found.figures["uncovered rows"] == 1


def test_usage_outside_a_files_span_is_out_of_scope(tmp_path: Path, published: tuple[Table, ...]) -> None:
    lake = built(
        tmp_path,
        published,
        emission(at(0), 1.0, None),
        emission(at(1), 1.0, 0.1),
        emission(at(2), 1.0, None),
        emission(at(3), 1.0, 0.1),
        emission(at(4), 1.0, None),
    )
    put_intensity(lake, *hours("DE", 1, 3))
    found = checks.coverage(lake)
    assert found.measured == pytest.approx(200 / 3)
    assert found.figures["rows outside the provider's record"] == 2


def test_a_file_of_quarters_ends_with_its_last_quarter(tmp_path: Path, published: tuple[Table, ...]) -> None:
    lake = built(tmp_path, published, emission(at(0), 1.0, 0.1), emission(at(1), 1.0, None))
    put_intensity(lake, *(intensity("DE", at(0, minute), resolution_minutes=15) for minute in (0, 15, 30, 45)))
    assert checks.coverage(lake).measured == 100.0


def test_a_live_source_that_stops_is_seen(tmp_path: Path, published: tuple[Table, ...]) -> None:
    rows = [emission(at(0), 1.0, None), emission(at(1), 1.0, 0.1), emission(at(2), 3.0, None)]
    lake = built(tmp_path, published, *rows, provider="energy-charts")
    put_intensity(lake, *hours("DE", 1, provider="energy-charts"))
    found = checks.coverage(lake)
    assert (found.measured, found.outcome) == (25.0, "failed")
    assert found.figures["rows outside the provider's record"] == 1


def test_without_any_intensity_nothing_is_covered(tmp_path: Path, published: tuple[Table, ...]) -> None:
    assert checks.coverage(built(tmp_path, published, emission(at(0), 1.0, None))).measured == 0.0


def test_marginal_intensity_covers_nothing_and_the_check_says_why(tmp_path: Path, published: tuple[Table, ...]) -> None:
    lake = built(tmp_path, published, emission(at(0), 1.0, None), provider="watttime")
    put_intensity(lake, *hours("DE", 0, provider="watttime", signal="marginal"))
    assert shown(checks.coverage(lake)) == (
        0.0,
        "failed",
        "0.0 of 1.0 kWh have a carbon intensity; "
        "the provider's is marginal, and emissions are reckoned by the average only",
    )


def test_coverage_of_no_usage_cannot_be_measured(tmp_path: Path, published: tuple[Table, ...]) -> None:
    found = checks.coverage(empty_lake(tmp_path, "file", published))
    assert (found.measured, found.missing) == (None, "resource usage within the provider's record")


def test_coverage_says_whether_the_data_is_real(tmp_path: Path, published: tuple[Table, ...]) -> None:
    real = built(tmp_path / "a", published, emission(at(0), 1.0, None))
    sample = built(tmp_path / "b", published, emission(at(0), 1.0, None), emission(at(1), 1.0, None, is_sample=True))
    assert checks.coverage(real).figures["data"] == "real data"
    assert checks.coverage(sample).figures["data"] == "sample data"


BALANCED = [emission(at(n), 2.0 + n, 0.2 * n if n else None, requests=100.0 * n) for n in range(4)]


def test_usage_and_marts_that_agree_balance(tmp_path: Path, published: tuple[Table, ...]) -> None:
    found = checks.energy_balance(built(tmp_path, published, *BALANCED))
    assert found.outcome == "passed"
    assert found.measured == pytest.approx(0.0, abs=1e-15)
    assert (found.figures["energy kWh"], found.figures["rows"]) == (14.0, 4)


def test_a_lost_row_breaks_the_balance(tmp_path: Path, published: tuple[Table, ...]) -> None:
    """Hour 0 carries neither emissions nor requests: only its row and its energy are gone."""
    lake = built(tmp_path, published, *BALANCED)
    put(lake, table(lake, "emissions_hourly"), BALANCED[1:])
    found = checks.energy_balance(lake)
    assert found.outcome == "failed"
    assert found.measured == 0.25
    assert found.detail.startswith("largest difference: rows, usage and mart")
    assert found.figures["energy, hourly and daily"] == pytest.approx(2 / 14)


@pytest.mark.parametrize(
    ("pair", "column"),
    [
        ("requests, usage and mart", "requests"),
        ("energy, hourly and daily", "energy_kwh"),
        ("emissions, hourly and daily", "operational_kg"),
    ],
)
def test_each_sum_is_held_against_the_other(
    tmp_path: Path, published: tuple[Table, ...], pair: str, column: str
) -> None:
    lake = built(tmp_path, published, *BALANCED)
    changed = [row | {column: row[column] * (1 + 1e-6) if row[column] else row[column]} for row in BALANCED]
    put(lake, table(lake, "emissions_hourly"), changed)
    found = checks.energy_balance(lake)
    assert found.outcome == "failed"
    assert found.detail.startswith(f"largest difference: {pair}")
    assert found.measured == pytest.approx(1e-6, rel=1e-3)


def test_the_order_of_a_sum_does_not_break_the_balance(tmp_path: Path, published: tuple[Table, ...]) -> None:
    rows = [emission(at(n), 0.1 * 3**n, 1e-7 * 7**n, tenant=f"t{m}") for n in range(24) for m in range(3)]
    found = checks.energy_balance(built(tmp_path, published, *rows))
    assert found.outcome == "passed"
    assert found.measured is not None
    assert math.isfinite(found.measured)


def test_an_empty_lake_balances(tmp_path: Path, published: tuple[Table, ...]) -> None:
    assert checks.energy_balance(empty_lake(tmp_path, "file", published)).measured == 0.0
