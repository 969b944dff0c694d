"""What a plan may believe: the best source per interval, nothing that came later, and nothing that is passed over."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from greenops_pipelines.carbon.forecasting import ridge
from greenops_pipelines.carbon.outlook import Outlook, outlook
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.tables import CARBON_FORECAST, CARBON_INTENSITY, CARBON_OUTLOOK
from tests.carbon.small_lake import Row, at, empty_lake, intensity, put, put_intensity

NOW = at(10, 20)
"""Sunday, 1 March 2026."""

HOUR = timedelta(hours=1)


def shape(start: datetime) -> float:
    """A day of the records here: 120 at midnight, 80 at noon."""
    return 100 + 20 * math.cos(2 * math.pi * start.hour / 24)


def record(zone: str, until: datetime, days: int, minutes: int = 60) -> list[Row]:
    """A daily shape, known as soon as each interval was over."""
    step = timedelta(minutes=minutes)
    starts = [until - step * n for n in range(days * 1440 // minutes, 0, -1)]
    return [
        intensity(
            zone,
            start,
            shape(start),
            resolution_minutes=minutes,
            observed_at=start + step,
        )
        for start in starts
    ]


def put_forecast(
    lake: Lake,
    zone: str,
    issued: datetime,
    values: Sequence[float],
    *,
    first: datetime | None = None,
    observed: datetime | None = None,
    minutes: int = 60,
    **other: object,
) -> None:
    observed = observed or issued
    first = first or issued.replace(minute=0)
    rows = [
        {
            "provider": "file",
            "zone": zone,
            "issued_at": issued,
            "datetime": first + n * timedelta(minutes=minutes),
            "resolution_minutes": minutes,
            "carbon_intensity_g_per_kwh": value,
            "signal": "average",
            "emission_factor_type": "lifecycle",
            "observed_at": observed,
            "day": observed.date(),
        }
        | other
        for n, value in enumerate(values)
    ]
    put(lake, CARBON_FORECAST, rows, observed)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return empty_lake(tmp_path)


def methods(found: Outlook, zone: str = "DE") -> list[str]:
    return [row["method"] for row in found.rows.to_pylist() if row["zone"] == zone]


def values(found: Outlook, zone: str = "DE") -> list[float]:
    return [row["carbon_intensity_g_per_kwh"] for row in found.rows.to_pylist() if row["zone"] == zone]


# The best source


def test_the_provider_comes_first_and_ridge_goes_on_from_where_it_ends(lake: Lake) -> None:
    put_intensity(lake, *record("DE", at(10), 40))
    put_forecast(lake, "DE", at(9, 30), [1, 2, 3, 4])
    found = outlook(lake, "file", ["DE"], NOW, 6)
    assert methods(found) == ["provider"] * 3 + ["ridge"] * 3
    assert values(found)[:3] == [2, 3, 4]
    # The record repeats itself: ridge goes on with it.
    np.testing.assert_allclose(values(found)[3:], [shape(at(hour)) for hour in (13, 14, 15)])
    assert found.counts == {"provider": 3, "ridge": 3, "week_mean": 0, "persistence": 0}
    assert (found.missing, found.empty_zones) == (0, ())
    rows = found.rows.to_pylist()
    assert [row["datetime"] for row in rows] == [at(hour) for hour in range(10, 16)]
    assert {row["issued_at"] for row in rows[:3]} == {at(9, 30)}
    assert {row["issued_at"] for row in rows[3:]} == {at(10)}
    assert {(row["planned_at"], row["resolution_minutes"]) for row in rows} == {(NOW, 60)}


def test_an_outlook_is_a_table_of_the_lake(lake: Lake) -> None:
    put_forecast(lake, "DE", at(10), range(1, 73))
    put_forecast(lake, "FR", at(10), range(1, 73))
    found = outlook(lake, "file", ["FR", "DE"], NOW)
    lake.write(CARBON_OUTLOOK, found.rows)
    assert lake.query("select count(*) as n, count(distinct zone) as z from carbon_outlook").to_pylist() == [
        {"n": 144, "z": 2}
    ]


def test_the_newest_forecast_of_an_interval_counts(lake: Lake) -> None:
    """The older one reaches further, and is believed there."""
    put_forecast(lake, "DE", at(8), [1] * 6)
    put_forecast(lake, "DE", at(9), [2] * 3)
    assert values(outlook(lake, "file", ["DE"], NOW, 4)) == [2, 2, 1, 1]


def test_a_forecast_is_believed_for_24_hours(lake: Lake) -> None:
    put_forecast(lake, "DE", NOW - 24 * HOUR, [1] * 72)
    assert outlook(lake, "file", ["DE"], NOW, 4).counts["provider"] == 4
    later = outlook(lake, "file", ["DE"], NOW + timedelta(seconds=1), 4)
    assert (later.counts["provider"], later.missing) == (0, 4)


def test_forecasts_of_another_provider_or_signal_are_none(lake: Lake) -> None:
    put_forecast(lake, "DE", at(10), [1] * 4, provider="sample")
    put_forecast(lake, "DE", at(10), [1] * 4, signal="marginal")
    assert outlook(lake, "file", ["DE"], NOW, 4).empty_zones == ("DE",)
    assert outlook(lake, "sample", ["DE"], NOW, 4).empty_zones == ("DE",)


def test_ridge_needs_three_weeks(lake: Lake) -> None:
    """A week of lags, and 14 days of training up to the last value."""
    put_intensity(lake, *record("DE", at(10), 21), *record("FR", at(10), 20))
    found = outlook(lake, "file", ["DE", "FR"], NOW, 3)
    assert methods(found, "DE") == ["ridge"] * 3
    assert methods(found, "FR") == ["week_mean"] * 3


def test_ridge_is_trained_up_to_the_last_value(lake: Lake) -> None:
    """27 days are no whole weeks: trained at the last one, it would not know the last six days."""
    noise = np.random.default_rng(5).normal(0, 9, 27 * 24).cumsum()
    rows = [
        row | {"carbon_intensity_g_per_kwh": 500 + x} for row, x in zip(record("DE", at(10), 27), noise, strict=True)
    ]
    put_intensity(lake, *rows)
    start = rows[0]["datetime"]
    expected = ridge(
        500 + noise, np.array([27 * 24]), 24, 24, week_slot=start.weekday() * 24 + start.hour, retrain_days=1
    )
    np.testing.assert_allclose(values(outlook(lake, "file", ["DE"], NOW, 24)), expected.values[0])
    assert not expected.is_fallback.any()


def test_ridge_knows_the_weekend(lake: Lake) -> None:
    """100 on weekdays, 60 on weekends. 27 February 2026 is a Friday."""
    starts = [at(0, day=1) - n * HOUR for n in range(1, 70 * 24)]
    rows = [
        intensity("DE", start, 60.0 if start.weekday() >= 5 else 100.0, observed_at=start + HOUR) for start in starts
    ]
    put_intensity(lake, *rows)
    friday = at(0) - timedelta(days=2)
    found = np.array(values(outlook(lake, "file", ["DE"], friday, 48))).reshape(2, 24).mean(axis=1)
    assert found[0] > 96
    assert found[1] < 75


@pytest.mark.parametrize(("age_hours", "method"), [(24, "ridge"), (25, "week_mean"), (7 * 24, "week_mean")])
def test_a_record_that_ended_is_believed_less(lake: Lake, age_hours: int, method: str) -> None:
    put_intensity(lake, *record("DE", at(10), 40))
    found = outlook(lake, "file", ["DE"], at(10) + age_hours * HOUR, 24)
    assert set(methods(found)) == {method}
    np.testing.assert_allclose(values(found), [shape(row["datetime"]) for row in found.rows.to_pylist()])
    assert set(found.rows["issued_at"].to_pylist()) == {at(10)}


def test_a_record_that_ended_a_week_ago_is_believed_no_more(lake: Lake) -> None:
    put_intensity(lake, *record("DE", at(10), 40))
    found = outlook(lake, "file", ["DE"], at(10) + timedelta(days=7, seconds=1), 24)
    assert (found.rows.num_rows, found.missing, found.empty_zones) == (0, 24, ("DE",))


def test_a_day_of_record_is_persistence_and_less_is_less(lake: Lake) -> None:
    put_intensity(lake, *record("DE", at(10), 1)[4:])
    found = outlook(lake, "file", ["DE"], NOW, 24)
    assert methods(found) == ["persistence"] * 20
    assert found.rows["datetime"][0].as_py() == at(14)
    assert (found.missing, found.empty_zones) == (4, ())


def test_half_hours_are_kept_and_coarser_forecasts_repeated(lake: Lake) -> None:
    put_intensity(lake, *record("GB", at(10), 2, minutes=30))
    put_forecast(lake, "GB", at(10, 10), [1, 2])
    found = outlook(lake, "file", ["GB"], at(10, 40), 3)
    rows = found.rows.to_pylist()
    assert [row["datetime"] for row in rows] == [at(10, 30) + n * timedelta(minutes=30) for n in range(6)]
    assert {row["resolution_minutes"] for row in rows} == {30}
    assert values(found, "GB")[:3] == [1, 2, 2]
    assert methods(found, "GB") == ["provider"] * 3 + ["week_mean"] * 3


# As known then


@pytest.mark.parametrize("minute", [0, 20, 59])
def test_nothing_that_came_later_is_read(lake: Lake, minute: int) -> None:
    """Revisions of every hour, the hours after now, and forecasts: all observed after now."""
    now = at(10, minute)
    rows = record("DE", at(10), 30)
    put_intensity(lake, *rows)
    put_forecast(lake, "DE", at(9, 30), [50.0, 51.0, 52.0])
    before = outlook(lake, "file", ["DE"], now)
    assert set(methods(before)) == {"provider", "ridge"}
    later = now + timedelta(microseconds=1)
    put(
        lake,
        CARBON_INTENSITY,
        [row | {"carbon_intensity_g_per_kwh": 900.0, "observed_at": later} for row in rows],
        later,
    )
    ahead = [intensity("DE", at(10) + n * HOUR, 5.0, observed_at=at(10) + (n + 1) * HOUR) for n in range(96)]
    put(lake, CARBON_INTENSITY, [row for row in ahead if row["observed_at"] > now], later)
    put_forecast(lake, "DE", at(9, 45), [7.0] * 72, observed=later)
    put_forecast(lake, "DE", later, [8.0] * 72)
    after = outlook(lake, "file", ["DE"], now)
    assert after == before
    assert raw(after.rows) == raw(before.rows)


def test_an_interval_is_known_when_it_is_over(lake: Lake) -> None:
    """Some providers estimate the hour that is still running."""
    put_intensity(lake, *record("DE", at(10), 30))
    before = outlook(lake, "file", ["DE"], NOW)
    put_intensity(lake, intensity("DE", at(10), 900.0, observed_at=at(10, 5)))
    assert outlook(lake, "file", ["DE"], NOW) == before
    assert outlook(lake, "file", ["DE"], at(11)).rows["issued_at"][0].as_py() == at(11)


def test_what_came_in_time_is_read(lake: Lake) -> None:
    """The other side of the test above: the same revisions, observed at now, do change the outlook."""
    rows = record("DE", at(10), 30)
    put_intensity(lake, *rows)
    put_forecast(lake, "DE", at(9, 30), [50.0, 51.0, 52.0])
    before = outlook(lake, "file", ["DE"], NOW)
    put(lake, CARBON_INTENSITY, [row | {"carbon_intensity_g_per_kwh": 900.0, "observed_at": NOW} for row in rows], NOW)
    revised = outlook(lake, "file", ["DE"], NOW)
    assert values(revised)[2:] == pytest.approx([900.0] * 70)
    assert values(revised)[:2] == values(before)[:2]
    put_forecast(lake, "DE", at(9, 45), [7.0] * 72, observed=NOW)
    assert values(outlook(lake, "file", ["DE"], NOW)) == pytest.approx([7.0] * 71 + [900.0])


def raw(rows: pa.Table) -> bytes:
    """The values of all columns, bit for bit."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    return bytes(sink.getvalue())


# No silent fallback


def test_a_fallback_is_logged_and_counted(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    put_forecast(lake, "DE", at(10), range(1, 25))
    put_intensity(lake, *record("FR", at(10), 3))
    with caplog.at_level(logging.WARNING):
        found = outlook(lake, "file", ["FR", "DE", "IE"], NOW, 24)
    assert [record.getMessage() for record in caplog.records] == [
        "next 24 hours: intervals that the provider does not forecast: 24 by week_mean (FR); 24 by nobody (IE)"
    ]
    assert found.counts == {"provider": 24, "ridge": 0, "week_mean": 24, "persistence": 0}
    assert (found.missing, found.empty_zones) == (24, ("IE",))


def test_an_empty_lake_knows_nothing(lake: Lake) -> None:
    found = outlook(lake, "file", ["DE"], NOW, 2)
    assert found.rows.schema == CARBON_OUTLOOK.schema
    assert (found.rows.num_rows, found.missing, found.empty_zones) == (0, 2, ("DE",))
    assert outlook(lake, "file", [], NOW).missing == 0
