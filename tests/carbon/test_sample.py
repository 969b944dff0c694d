"""The seeded model: what it promises about itself, whatever its figures are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenops_pipelines.carbon.provider import FORECAST, POINTS
from greenops_pipelines.carbon.regions import read_regions
from greenops_pipelines.carbon.sample import GRIDS, HORIZON_HOURS, SampleProvider
from greenops_pipelines.errors import ProviderError
from tests.carbon.small_lake import ROOT

HOUR = timedelta(hours=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 11, 9, 41, tzinfo=UTC)
YEAR = (datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))


def provider(now: datetime = NOW) -> SampleProvider:
    return SampleProvider(lambda: now)


WHOLE = provider().history("DE", START, NOW)


def test_the_modelled_zones_are_those_of_the_declared_regions() -> None:
    declared = {region.zone for region in read_regions(ROOT / "ops")}
    assert len(declared) == 12
    assert set(GRIDS) == declared
    assert all(provider().covers(zone) for zone in declared)


def test_every_ended_hour_stands_once_with_its_labels() -> None:
    assert WHOLE.schema == POINTS
    # Ten days and nine hours: 09:00 is still under way at 09:41.
    assert WHOLE["datetime"].to_pylist() == [START + n * HOUR for n in range(249)]
    constant = {
        "zone": "DE",
        "resolution_minutes": 60,
        "signal": "average",
        "emission_factor_type": "lifecycle",
        "is_flow_traced": True,
        "estimation_method": "SEEDED_MODEL",
        "updated_at": None,
    }
    for name, value in constant.items():
        assert set(WHOLE[name].to_pylist()) == {value}, name


@given(st.integers(0, 249 * 60), st.integers(0, 260 * 60))
@example(0, 0)
@example(1, 59)  # no hour starts in it
@example(60, 61)  # 01:00 starts in it, and ended long ago
@example(248 * 60, 260 * 60)  # into the hour under way
def test_any_range_is_the_slice_of_the_whole(first: int, last: int) -> None:
    low, high = START + timedelta(minutes=first), START + timedelta(minutes=last)
    inside = pc.and_(pc.greater_equal(WHOLE["datetime"], low), pc.less(WHOLE["datetime"], high))
    assert provider().history("DE", low, high).equals(WHOLE.filter(inside))


def test_the_figures_are_the_same_on_every_machine() -> None:
    """A changed seed or wave would silently replace the history that a home has already stored."""
    rows = provider().history("DE", START, START + 3 * HOUR)
    assert rows["carbon_intensity_g_per_kwh"].to_pylist() == [424.82, 419.15, 396.85]


def test_an_hour_is_an_estimate_for_a_day_and_then_final() -> None:
    hour = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def seen(now: datetime) -> tuple[bool, float]:
        (row,) = provider(now).history("DE", hour, hour + HOUR).to_pylist()
        return row["is_estimated"], row["carbon_intensity_g_per_kwh"]

    second = timedelta(seconds=1)
    assert provider(hour + HOUR - second).history("DE", hour, hour + HOUR).num_rows == 0
    first = seen(hour + HOUR)
    assert first[0] is True
    assert seen(hour + 24 * HOUR - second) == first
    final = seen(hour + 24 * HOUR)
    assert final[0] is False
    assert final[1] != first[1]
    assert first[1] == pytest.approx(final[1], rel=0.08)
    assert seen(hour + 9000 * HOUR) == final


@pytest.mark.parametrize("zone", sorted(GRIDS))
def test_a_year_of_each_grid_is_plausible(zone: str) -> None:
    values = provider().history(zone, *YEAR)["carbon_intensity_g_per_kwh"].to_numpy()
    assert len(values) == 8760
    assert values.mean() == pytest.approx(GRIDS[zone].mean, rel=0.12)
    assert values.min() > 0
    assert values.max() < 3 * GRIDS[zone].mean


def test_the_grids_rank_as_the_real_ones_do() -> None:
    means = {z: pc.mean(provider().history(z, *YEAR)["carbon_intensity_g_per_kwh"]).as_py() for z in GRIDS}
    assert means["SE-SE3"] < means["FR"] < means["ES"] < means["DE"]
    assert means["CA-QC"] < means["FR"] < means["US-CAL-CISO"] < means["US-MIDA-PJM"]


def test_sun_weekends_and_neighbouring_hours_show() -> None:
    values = provider().history("US-CAL-CISO", *YEAR)["carbon_intensity_g_per_kwh"].to_numpy().reshape(365, 24)
    by_hour = values.mean(axis=0)
    assert by_hour[12] < by_hour[19] < by_hour.mean() * 1.5
    german = provider().history("DE", *YEAR)["carbon_intensity_g_per_kwh"].to_numpy().reshape(365, 24)
    is_weekend = np.array([(YEAR[0] + timedelta(days=day)).weekday() >= 5 for day in range(365)])
    assert german[is_weekend].mean() < 0.95 * german[~is_weekend].mean()
    hours = german.ravel()
    assert np.corrcoef(hours[1:], hours[:-1])[0, 1] > 0.95


def test_zones_do_not_move_together() -> None:
    german, irish = (provider().history(zone, *YEAR)["carbon_intensity_g_per_kwh"].to_numpy() for zone in ("DE", "IE"))
    assert abs(np.corrcoef(german, irish)[0, 1]) < 0.6


def test_the_forecast_covers_72_hours_from_the_hour_under_way() -> None:
    rows = provider().forecast("DE")
    issued = datetime(2026, 3, 11, 9, tzinfo=UTC)
    assert rows.schema == FORECAST
    assert HORIZON_HOURS == 72
    assert rows["datetime"].to_pylist() == [issued + n * HOUR for n in range(72)]
    assert set(rows["issued_at"].to_pylist()) == {issued}
    assert pc.min(rows["carbon_intensity_g_per_kwh"]).as_py() >= 1


def error(issued: datetime) -> np.ndarray:
    """Relative error of the forecast issued at that hour, for each of its 72 hours."""
    forecast = provider(issued).forecast("DE")["carbon_intensity_g_per_kwh"].to_numpy()
    later = provider(issued + 96 * HOUR)
    truth = later.history("DE", issued, issued + 72 * HOUR)["carbon_intensity_g_per_kwh"].to_numpy()
    return (forecast - truth) / truth


def test_a_forecast_depends_on_the_hour_it_is_issued_in() -> None:
    assert provider(NOW).forecast("DE").equals(provider(NOW + timedelta(minutes=18)).forecast("DE"))


def test_each_forecast_errs_in_its_own_way() -> None:
    """Were all wrong in the same direction, a planner would see through them, and its regret would flatter."""
    signs = [np.sign(error(START + n * HOUR)[24 - n]) for n in range(24)]
    assert {-1.0, 1.0} == set(signs)


def test_the_forecast_errs_more_the_further_it_looks() -> None:
    errors = [error(YEAR[0] + timedelta(days=day, hours=day % 24)) for day in range(200)]
    spread = np.sqrt((np.array(errors) ** 2).mean(axis=0))
    assert spread[0] == pytest.approx(0.04, abs=0.01)
    assert spread[47] == pytest.approx(0.128, abs=0.03)
    assert spread[:6].mean() < spread[20:28].mean() < spread[60:].mean()


def test_an_unknown_zone_is_refused_with_the_zones_there_are() -> None:
    assert not provider().covers("NO-NO1")
    for ask in (lambda: provider().history("NO-NO1", START, NOW), lambda: provider().forecast("NO-NO1")):
        with pytest.raises(ProviderError, match=r"sample: zone NO-NO1: not modelled; modelled: CA-AB, .*, US-NW-PACW$"):
            ask()


def test_it_has_no_span_so_that_a_run_covers_the_last_days() -> None:
    assert provider().span() is None
