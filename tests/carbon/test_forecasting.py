"""Forecasts and their scores: figures a person can count, causality bit for bit, and the errors on a real year."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.carbon.forecast_scores import Score, score, score_table, scores
from greenops_pipelines.carbon.forecasting import (
    METHODS,
    Floats,
    Forecasts,
    Ints,
    Series,
    noisy,
    on_grid,
    persistence,
    ridge,
    week_mean,
)
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.tables import CARBON_FORECAST, FORECAST_SCORES
from tests.carbon.small_lake import CARBON_DATA, Row, at, empty_lake, intensity, put, put_intensity

HOUR_US = 3_600_000_000
METHOD = pytest.mark.parametrize("method", METHODS)


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int64)


def days(*levels: float, per_day: int = 24) -> Floats:
    """Days that are flat at a level each."""
    return np.repeat(np.array(levels, dtype=np.float64), per_day)


def sine(length: int, per_day: int = 24) -> Floats:
    return np.asarray(300 + 100 * np.sin(2 * np.pi * np.arange(length) / per_day))


def rough(length: int, seed: int = 0, per_day: int = 24) -> Floats:
    """A daily shape, slow noise, and a gap now and then."""
    generator = np.random.default_rng(seed)
    values = sine(length, per_day) + generator.normal(0, 8, length).cumsum() * 0.5 + generator.normal(0, 5, length)
    return np.where(generator.random(length) < 0.01, np.nan, values)


# Persistence and the week's mean


def test_persistence_is_the_newest_known_day() -> None:
    found = persistence(np.arange(72.0), ints(48, 50), 30, 24)
    assert found.values[0].tolist() == [*range(24, 48), *range(24, 30)]
    assert found.values[1, :3].tolist() == [26, 27, 28]
    assert found.values[1, 21:25].tolist() == [47, 48, 49, 26]  # 48 and 49 are over by the issue at 50, 50 is not
    assert not found.is_fallback.any()


def test_persistence_passes_over_a_gap_for_a_week_at_most() -> None:
    values = days(*range(1, 10))
    values[8 * 24 + 5] = np.nan
    assert persistence(values, ints(9 * 24), 24, 24).values[0, 4:7].tolist() == [9, 8, 9]
    values[2 * 24 :] = np.nan
    assert persistence(values, ints(8 * 24), 1, 24).values[0, 0] == 2
    assert np.isnan(persistence(values, ints(9 * 24), 1, 24).values[0, 0])


def test_the_weeks_mean_is_over_the_days_that_are_there() -> None:
    values = days(999, 10, 20, 30, 40, 50, 60, 70)
    assert week_mean(values, ints(8 * 24), 48, 24).values[0].tolist() == [40.0] * 48
    values[24:48] = np.nan
    found = week_mean(values, ints(8 * 24), 24, 24)
    assert found.values[0].tolist() == [45.0] * 24
    assert not found.is_fallback.any()


def test_the_mean_of_one_day_is_persistence_and_says_so() -> None:
    found = week_mean(days(10, 20), ints(24, 30), 24, 24)
    assert found.values[0].tolist() == [10.0] * 24
    assert found.is_fallback[0].all()
    assert found.values[1].tolist() == [10.0] * 18 + [15.0] * 6
    assert found.is_fallback[1].tolist() == [True] * 18 + [False] * 6


def test_a_step_reaches_persistence_in_a_day_and_the_mean_in_a_week() -> None:
    values = np.concatenate([days(*[100] * 30), days(*[170] * 10)])
    issues = ints(30 * 24, 31 * 24, 37 * 24)
    assert persistence(values, issues, 1, 24).values[:, 0].tolist() == [100, 170, 170]
    assert week_mean(values, issues, 1, 24).values[:, 0].tolist() == [100, 110, 170]


# Ridge


@METHOD
@pytest.mark.parametrize("per_day", [24, 48, 96])
def test_a_pure_daily_shape_is_forecast_exactly(method: str, per_day: int) -> None:
    values = sine(40 * per_day, per_day)
    issues = np.arange(30 * per_day, 38 * per_day, 7)
    found = METHODS[method](values, issues, 2 * per_day, per_day)
    np.testing.assert_allclose(found.values, values[issues[:, None] + np.arange(2 * per_day)], rtol=1e-9)
    assert not found.is_fallback.any()
    for result in scores(values, issues, found, per_day).values():
        assert result.left_out == 0
        assert result.regret_pct == pytest.approx(0, abs=1e-9)
        assert result.mape_pct == pytest.approx(0, abs=1e-9)


def test_ridge_learns_the_weekend_and_the_others_cannot() -> None:
    """100 on weekdays, 60 on weekends; values[0] is on a Thursday, and the forecast is for the 16th Saturday."""
    values = days(*[100, 100, 60, 60, 100, 100, 100] * 16)
    saturday = ints((15 * 7 + 2) * 24)

    def error(method: str, weekday: int) -> float:
        found = METHODS[method](values, saturday, 24, 24, week_slot=weekday * 24)
        return float(np.abs(found.values - 60).mean())

    assert error("persistence", 3) == 40
    assert error("week_mean", 3) == pytest.approx((5 * 100 + 2 * 60) / 7 - 60)
    assert error("ridge", 3) < 12
    assert min(range(7), key=lambda weekday: error("ridge", weekday)) == 3


def test_ridge_goes_with_the_last_hours_where_the_level_drifts() -> None:
    """The level changes at random every day at noon and stays: what the mean still has to learn, the last hour shows."""
    generator = np.random.default_rng(3)
    values = np.repeat(400 + generator.normal(0, 15, 120).cumsum(), 24)
    issues = np.arange(100, 118) * 24 + 6
    truth = values[issues[:, None] + np.arange(12)]
    error = {n: np.abs(m(values, issues, 12, 24).values - truth).mean() for n, m in METHODS.items()}
    assert error["ridge"] < 0.5 * error["persistence"] < 0.5 * error["week_mean"]


def test_ridge_scales_with_its_values() -> None:
    values, issues = rough(40 * 24), np.arange(30 * 24, 39 * 24, 5)
    once, tenfold = (ridge(values * factor, issues, 24, 24).values for factor in (1, 10))
    np.testing.assert_allclose(tenfold, 10 * once, rtol=1e-6)


def test_ridge_is_never_below_zero() -> None:
    values = np.maximum(sine(60 * 24) - 350 + np.random.default_rng(1).normal(0, 40, 60 * 24), 0)
    found = ridge(values, np.arange(40 * 24, 58 * 24), 24, 24)
    assert found.values.min() == 0
    assert not found.is_fallback.any()


def test_ridge_needs_14_days_of_complete_rows() -> None:
    """A row is complete after a week of lags: the retraining at the end of day 21 is the first with 14 such days."""
    values = sine(35 * 24)
    issues = ints(14 * 24, 21 * 24 - 1, 21 * 24)
    found, simple = ridge(values, issues, 24, 24), week_mean(values, issues, 24, 24)
    assert found.is_fallback.all(axis=1).tolist() == [True, True, False]
    assert np.array_equal(found.values[:2], simple.values[:2])
    values[10 * 24] = np.nan
    assert ridge(values, issues, 24, 24).is_fallback.all()
    assert not ridge(values, ints(28 * 24), 24, 24).is_fallback.any()


def test_a_missing_feature_is_a_fallback_and_only_there() -> None:
    values = sine(60 * 24)
    values[50 * 24 - 1] = np.nan
    issues = np.arange(50 * 24 - 1, 50 * 24 + 5)
    found, simple = ridge(values, issues, 24, 24), week_mean(values, issues, 24, 24)
    # The gap is among the last three hours of the issues 1200, 1201 and 1202, and is the same time yesterday once.
    assert found.is_fallback[:, :20].all(axis=1).tolist() == [False, True, True, True, False, False]
    assert found.is_fallback[4:].sum(axis=1).tolist() == [1, 1]
    assert np.array_equal(found.values[1:4], simple.values[1:4])


@METHOD
def test_a_record_that_stopped_is_known_for_a_week(method: str) -> None:
    values = sine(60 * 24)
    values[40 * 24 :] = np.nan
    found = METHODS[method](values, ints(46 * 24, 60 * 24), 24, 24)
    np.testing.assert_allclose(found.values[0], values[:24])
    assert np.isnan(found.values[1]).all()
    assert found.is_fallback[1].all()


@METHOD
@pytest.mark.parametrize("length", [0, 1, 23, 24, 15 * 24])
def test_short_series(method: str, length: int) -> None:
    """Nothing is known of a time of day before it was there once."""
    values = sine(length)
    found = METHODS[method](values, ints(0, length), 30, 24)
    assert found.values.shape == found.is_fallback.shape == (2, 30)
    assert np.isnan(found.values[0]).all()
    assert (~np.isnan(found.values[1, :24])).sum() == min(length, 24)
    if method == "ridge":
        assert found.is_fallback.all()


@METHOD
def test_no_issue_is_no_forecast(method: str) -> None:
    assert METHODS[method](sine(48), ints(), 24, 24).values.shape == (0, 24)


@METHOD
@pytest.mark.parametrize(("issue", "per_day", "said"), [(49, 24, "0 to 48"), (-1, 24, "0 to 48"), (24, 20, "of 24")])
def test_what_is_refused(method: str, issue: int, per_day: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        METHODS[method](sine(48), ints(issue), 24, per_day)


@pytest.mark.parametrize("wrong", [{"train_days": 0}, {"retrain_days": 0}, {"alpha": 0.0}])
def test_what_ridge_refuses(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="all > 0"):
        ridge(sine(48), ints(24), 24, 24, **wrong)


# Causality


# Any issue; and one in the first day after a retraining, where a day of training too many would reach beyond it.
ISSUE = st.integers(0, 40 * 24) | st.builds(lambda week, hour: week * 168 + hour, st.integers(3, 5), st.integers(0, 12))


@METHOD
@settings(max_examples=25, deadline=None)
@given(i=ISSUE, seed=st.integers(0, 3), other=st.sampled_from([np.nan, np.inf, -1.0, 0.0, 1e9, None]))
def test_no_forecast_depends_on_what_came_after_it(method: str, i: int, seed: int, other: float | None) -> None:
    """Bit for bit: issues up to i, with values[i:] replaced by anything (None: by another record)."""
    values = rough(40 * 24, seed)
    changed = values.copy()
    changed[i:] = rough(40 * 24, 9)[i:] if other is None else other
    issues = np.unique([*range(0, i + 1, 31), i])
    later = np.arange(i + 1, len(values) + 1, 50)
    both = np.concatenate([issues, later])
    before, after = (METHODS[method](v, both, 30, 24, week_slot=11) for v in (values, changed))
    assert before.values[: len(issues)].tobytes() == after.values[: len(issues)].tobytes()
    assert np.array_equal(before.is_fallback[: len(issues)], after.is_fallback[: len(issues)])


def test_the_causality_test_would_see_one_value_too_many() -> None:
    """What it compares does move as soon as the value just before the issue does."""
    values, i = rough(40 * 24, 1), 35 * 24
    changed = values.copy()
    changed[i - 1] += 1
    for method in METHODS.values():
        assert not np.array_equal(method(values, ints(i), 30, 24).values, method(changed, ints(i), 30, 24).values)


# Noise, grids, weeks


def test_noise_is_exactly_the_published_draw() -> None:
    values = np.array([100.0, 300.0, np.nan, 200.0])
    expected = values + np.random.default_rng(7).normal(0, 0.05 * 200, size=4)
    assert np.array_equal(noisy(values, 0.05, 7), expected, equal_nan=True)


def test_noise_of_zones_is_drawn_one_after_the_other() -> None:
    values = np.array([[100.0, 300.0], [np.nan, np.nan], [10.0, 30.0]])
    generator = np.random.default_rng(7)
    expected = [values[0] + generator.normal(0, 20, 2)]
    generator.normal(0, 0, 2)
    expected.append(values[2] + generator.normal(0, 2, 2))
    found = noisy(values, 0.1, 7)
    assert np.array_equal(found[[0, 2]], expected)
    assert np.isnan(found[1]).all()


def test_longer_intervals_are_repeated_and_shorter_ones_averaged() -> None:
    """Half-hours: an hour of 10 at 00:00, quarters 1, 3 at 01:00, one lone quarter at 01:30, 20 at 00:30 on its own."""
    starts = np.array([0, 4, 5, 6, 2]) * (HOUR_US // 4)
    found = on_grid(
        starts,
        ints(60, 15, 15, 15, 30),
        np.array([10.0, 1.0, 3.0, 7.0, 20.0]),
        first_us=ints(0),
        step_minutes=30,
        slots=5,
        lines=np.zeros(5, dtype=np.int64),
    )
    np.testing.assert_array_equal(found, [[10, 20, 2, np.nan, np.nan]])


def test_what_lies_outside_a_line_is_cut_off() -> None:
    found = on_grid(
        ints(-HOUR_US // 2, HOUR_US, 0),
        ints(60, 60, 60),
        np.array([1.0, 2.0, 3.0]),
        first_us=ints(0, 0),
        step_minutes=30,
        slots=3,
        lines=ints(0, 0, 1),
    )
    np.testing.assert_array_equal(found, [[1, np.nan, 2], [3, 3, np.nan]])


@pytest.mark.parametrize(
    ("start", "step", "slot"),
    [
        (datetime(2026, 3, 2, tzinfo=UTC), 60, 0),
        (datetime(2022, 1, 1, tzinfo=UTC), 60, 5 * 24),
        (datetime(2026, 3, 8, 23, 45, tzinfo=UTC), 15, 7 * 96 - 1),
    ],
)
def test_place_in_the_week(start: datetime, step: int, slot: int) -> None:
    series = Series(int(start.timestamp()) * 1_000_000, step, np.zeros(1))
    assert series.week_slot == slot
    assert series.time(2) == start + timedelta(minutes=2 * step)


# Scores


def forecasts(*rows: list[float]) -> Forecasts:
    values = np.array(rows, dtype=np.float64)
    return Forecasts(values, np.zeros(values.shape, dtype=np.bool_))


def test_regret_is_the_share_of_the_saving_that_was_lost() -> None:
    """Run now: 30. Cheapest: 10. The forecast thinks the third hour cheapest: 20. Half of the saving is lost."""
    values = np.array([30.0, 10.0, 20.0])
    found = scores(values, ints(0), forecasts([30, 15, 12]), 24, [3])[3]
    assert found.regret_pct == 50
    assert found.mae_g_per_kwh == pytest.approx((0 + 5 + 8) / 3)
    assert found.mape_pct == pytest.approx((0 + 50 + 40) / 3)
    assert (found.issues, found.left_out, found.first, found.last, found.fallback_pct) == (1, 0, 0, 0, 0)
    # Wrong by 300 in every hour, and right in what counts.
    assert scores(values, ints(0), forecasts([330, 310, 320]), 24, [3])[3].regret_pct == 0.0


def test_regret_is_summed_before_it_is_divided() -> None:
    """Lost 0 of 20, and 10 of 10: a third, not the half that the mean of the two would be."""
    values = np.array([30.0, 10.0, 20.0, 10.0])
    found = scores(values, ints(0, 2), forecasts([30, 10], [10, 20]), 24, [2])[2]
    assert found.regret_pct == pytest.approx(100 / 3)


def test_windows_with_a_gap_are_left_out_and_those_beyond_the_record_are_not_over() -> None:
    values = np.array([30.0, 10.0, np.nan, 20.0, 10.0, 5.0])
    flat = forecasts([1, 1], [1, 1], [1, 1], [np.nan, 1], [1, 1], [1, 1])
    found = scores(values, np.arange(6), flat, 24, [1, 2])
    assert (found[2].issues, found[2].left_out, found[2].first, found[2].last) == (2, 3, 0, 4)
    assert (found[1].issues, found[1].left_out) == (4, 2)


def test_nothing_to_save_and_nothing_to_score() -> None:
    flat = scores(np.full(3, 7.0), ints(0), forecasts([7, 7, 7]), 24, [3])[3]
    assert (flat.regret_pct, flat.mape_pct, flat.mae_g_per_kwh) == (None, 0.0, 0.0)
    zero = scores(np.zeros(3), ints(0), forecasts([1, 1, 1]), 24, [3])[3]
    assert (zero.mape_pct, zero.mae_g_per_kwh) == (None, 1.0)
    none = scores(np.full(3, np.nan), ints(0), forecasts([7, 7, 7]), 24, [3])[3]
    assert none == Score(0, 1, None, None, None, None, None, None)


def test_an_hour_of_work_on_half_hours_takes_two_of_them() -> None:
    """Half-hours 50 50 0 90 30 30: the cheapest hour is the last one (30), though one half-hour is at 0."""
    values = np.array([50.0, 50, 0, 90, 30, 30])
    misled = forecasts([50, 20, 0, 90, 30, 30])
    assert scores(values, ints(0), forecasts(values.tolist()), 48, [3])[3].regret_pct == 0.0
    # Believed cheapest: the second and third half-hour, 10 on the mean; they are at 25 in truth, and so is the oracle.
    assert scores(values, ints(0), misled, 48, [3])[3].regret_pct == 0.0
    # Believed cheapest: the last hour, at 30 where 25 was to be had, of a saving of 25.
    assert scores(values, ints(0), forecasts([50, 50, 50, 50, 1, 1]), 48, [3])[3].regret_pct == pytest.approx(20)


def test_the_share_of_fallbacks_is_that_of_the_scored_values() -> None:
    found = Forecasts(np.ones((2, 2)), np.array([[True, False], [True, True]]))
    assert scores(np.array([1.0, 2.0, np.nan]), ints(0, 1), found, 24, [1, 2])[2].fallback_pct == 50.0
    assert scores(np.array([1.0, 2.0, np.nan]), ints(0, 1), found, 24, [1])[1].fallback_pct == 100.0


@pytest.mark.parametrize("hours", [[], [0], [3]])
def test_horizons_are_those_of_the_forecast(hours: list[int]) -> None:
    with pytest.raises(ValueError, match="allowed: 1 to 2"):
        scores(np.ones(4), ints(0), forecasts([1, 1]), 24, hours)


# Scores of a lake


def forecast_row(issued: datetime, start: datetime, value: float, **other: object) -> Row:
    return {
        "provider": "file",
        "zone": "DE",
        "issued_at": issued,
        "datetime": start,
        "resolution_minutes": 60,
        "carbon_intensity_g_per_kwh": value,
        "signal": "average",
        "emission_factor_type": "lifecycle",
        "observed_at": issued,
        "day": issued.date(),
    } | other


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Ten days of DE at 100 plus the hour of the day, until 11 March."""
    lake = empty_lake(tmp_path)
    put_intensity(
        lake, *(intensity("DE", at(hour, day=day), 100.0 + hour) for day in range(1, 11) for hour in range(24))
    )
    return lake


def shown(rows: list[Row], *columns: str) -> list[tuple[object, ...]]:
    return [tuple(row[c] for c in columns) for row in rows]


def test_scores_of_a_lake(lake: Lake) -> None:
    """The record's second half is scored; all methods know a daily shape from two days on."""
    table = score(lake, "file", ["DE", "FR"], at(0, day=11))
    lake.write(FORECAST_SCORES, table)
    rows = lake.query("from forecast_scores where horizon_hours = 24 order by method").to_pylist()
    assert shown(rows, "method", "zone", "issues", "regret_pct", "fallback_pct") == [
        ("persistence", "DE", 97, 0.0, 0.0),
        ("ridge", "DE", 97, 0.0, 100.0),
        ("week_mean", "DE", 97, 0.0, 0.0),
    ]
    assert (rows[0]["scored_from"], rows[0]["scored_to"]) == (at(0, day=6), at(0, day=10))
    assert table.num_rows == 12


def test_a_score_knows_what_had_ended_and_what_was_told_by_then(lake: Lake) -> None:
    """At 12:30 the hour of noon is not over; the forecast of 06:00 was fetched at 12:15."""
    told = at(12, 15, day=10)
    rows = [forecast_row(at(6, day=10), at(hour, day=10), 1.0, observed_at=told) for hour in range(6, 13)]
    put(lake, CARBON_FORECAST, rows, told)
    found = {
        (row["method"], row["horizon_hours"]): row
        for row in score(lake, "file", ["DE"], at(12, 30, day=10)).to_pylist()
    }
    assert found["persistence", 6]["scored_to"] == at(6, day=10)
    assert found["provider", 6]["issues"] == 1
    before = score(lake, "file", ["DE"], at(12, 14, day=10)).to_pylist()
    assert {row["method"] for row in before} == set(METHODS)


def test_the_providers_forecasts_are_scored_as_issued(lake: Lake) -> None:
    """Two forecasts, issued within the hours of 06:00 and 07:00: the first is right, the second upside down."""
    for minute, hour, sign in ((17, 6, 1), (59, 7, -1)):
        issued = at(hour, minute, day=9)
        rows = [forecast_row(issued, at(h, day=9), 100.0 + sign * h) for h in range(hour, hour + 6)]
        put(lake, CARBON_FORECAST, rows, issued)
    table = score(lake, "file", ["DE"], at(0, day=11))
    rows = [row for row in table.to_pylist() if row["method"] == "provider"]
    # The cheapest of six rising hours is the first one: there is nothing to save.
    assert shown(rows, "horizon_hours", "issues", "left_out", "regret_pct") == [(6, 2, 0, None)]
    # 0, and the mean of 2 x 7, 2 x 8, ..., 2 x 12.
    assert rows[0]["mae_g_per_kwh"] == pytest.approx((0 + 19) / 2)
    assert (rows[0]["scored_from"], rows[0]["scored_to"]) == (at(6, day=9), at(7, day=9))


def test_half_hours_and_hours_of_one_record_are_scored_on_the_common_step(tmp_path: Path) -> None:
    lake = empty_lake(tmp_path)
    halves = [
        intensity("GB", at(hour, minute, day=day), 100.0 + hour, resolution_minutes=30)
        for day in range(1, 6)
        for hour in range(24)
        for minute in (0, 30)
    ]
    hours = [intensity("GB", at(hour, day=day), 100.0 + hour) for day in range(6, 9) for hour in range(24)]
    put_intensity(lake, *halves, *hours)
    rows = score(lake, "file", ["GB"], at(0, day=9)).to_pylist()
    assert shown(rows, "method", "horizon_hours", "left_out", "mae_g_per_kwh")[4:6] == [
        ("week_mean", 6, 0, 0.0),
        ("week_mean", 12, 0, 0.0),
    ]


# A real year


REAL_ZONES = ("US-MIDA-PJM", "US-CAL-CISO", "DE", "ES", "FR", "IE", "US-NW-PACW")


@pytest.fixture(scope="module")
def year() -> dict[tuple[str, str, int], Row]:
    """Scores of 2022 by zone, method and horizon."""
    path = CARBON_DATA / "ci_2022_hourly.parquet"
    if not path.exists():
        pytest.skip(f"no reference data beside the repository: {path.name}")
    rows = pq.read_table(path).sort_by("datetime")
    record = {}
    for zone in REAL_ZONES:
        of_zone = rows.filter(pc.equal(rows["zone"], zone))
        start = int(of_zone["datetime"][0].as_py().timestamp()) * 1_000_000
        record[zone] = Series(start, 60, of_zone["carbon_intensity_g_per_kwh"].to_numpy())
    table = score_table("file", record).to_pylist()
    return {(row["zone"], row["method"], row["horizon_hours"]): row for row in table}


# Measured on this file: ridge, persistence (the value of 24 hours before).
@pytest.mark.parametrize(
    ("zone", "of_ridge", "of_persistence"),
    [("US-MIDA-PJM", 3.01, 3.94), ("US-CAL-CISO", 7.55, 9.10), ("DE", 12.06, 15.66), ("ES", 14.63, 19.24)],
)
def test_day_ahead_error_of_a_real_year(
    year: dict[tuple[str, str, int], Row], zone: str, of_ridge: float, of_persistence: float
) -> None:
    assert year[zone, "ridge", 24]["mape_pct"] == pytest.approx(of_ridge, rel=0.02)
    assert year[zone, "persistence", 24]["mape_pct"] == pytest.approx(of_persistence, abs=0.01)
    assert year[zone, "ridge", 24]["fallback_pct"] == 0.0
    assert year[zone, "ridge", 24]["issues"] == 8760 - 60 * 24 - 23


@pytest.mark.parametrize("hours", [6, 12, 24, 48])
@pytest.mark.parametrize("zone", REAL_ZONES)
def test_ridge_loses_least_in_a_real_year(year: dict[tuple[str, str, int], Row], zone: str, hours: int) -> None:
    best = min(year[zone, method, hours]["regret_pct"] for method in METHODS)
    assert year[zone, "ridge", hours]["regret_pct"] == best
    if hours >= 24:
        assert best < 0.9 * year[zone, "week_mean", hours]["regret_pct"]
