"""Minutes of the error-budget ledger, each countable by hand: outages, gaps, restarts, births; and the lake it is kept in."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES, SLO_DAYS, SLO_MINUTES
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.slo import ledger
from greenops_pipelines.slo.counting import compile_slo
from greenops_pipelines.slo.day_counts import count_day
from greenops_pipelines.slo.ledger import Restated
from tests.slo.counted_days import (
    DAY,
    END,
    SOURCE,
    Line,
    Told,
    batch,
    counted,
    events,
    midnight,
    raw,
    req,
    steady,
)

_LATENCY = events(
    'sum(rate(lat_count[{{.window}}])) - sum(rate(lat_bucket{le=~"2|2[.]0"}[{{.window}}]))',
    "sum(rate(lat_count[{{.window}}]))",
    "latency",
)
_VOLUME = raw("avg_over_time(((sum(rate(req_total[5m])) or vector(0)) < bool 5)[{{.window}}:1m])")
_CROSS = events("sum(rate(err_total[{{.window}}]))", "sum(rate(req_total[{{.window}}]))", "cross")
_CPU = "sum by (pod) (rate(cpu_total[5m])) / sum by (pod) (limit_cores)"
_SATURATION = events(
    f"sum(sum_over_time(({_CPU} > bool 0.85)[{{{{.window}}}}:1m]))",
    f"sum(count_over_time(({_CPU})[{{{{.window}}}}:1m]))",
    "cpu",
)


def test_an_outage_of_ten_minutes() -> None:
    """60 requests a minute; from 10:00 to 10:10 all of them fail: 600 bad of 86,400."""
    start = 600
    ok = [(60 * n, 1000.0 + 60 * (n - min(max(n - start, 0), 10))) for n in range(1441)]
    bad = [(60 * n, 50.0 + 60 * min(max(n - start, 0), 10)) for n in range(1441)]
    told = Told(counted(events(), [req("200", ok), req("5xx", bad)]))
    assert [told[minute] for minute in (599, 600, 609, 610)] == [(60, 0), (60, 60), (60, 60), (60, 0)]
    assert (told.day["total"], told.day["bad"], told.day["known_minutes"]) == (86_400, 600, 1440)
    assert (told.day["gap_minutes"], told.day["resets"], told.day["fault"]) == (0, 0, None)


def test_across_midnight_and_the_end_of_a_month() -> None:
    """Samples 30 s after each minute; an error between 23:59:30 on 28 February and 00:00:30 belongs to 1 March."""
    before = [req("5xx", [(-90, 4), (-30, 4)]), req("200", [(-90, 100), (-30, 110)])]
    lines = [req("5xx", [(30, 5), (90, 5)]), req("200", [(30, 120), (90, 125)])]
    told = Told(counted(events(), lines, before, until_seconds=121))
    assert told[0] == (11, 1)
    assert told[1] == (5, 0)
    assert told.rows[0]["minute"] == midnight(date(2026, 3, 1))


def test_a_sample_exactly_at_midnight_belongs_to_the_day_before() -> None:
    """It is in the next day's partition, and the one at the day's end in this day's count."""
    lines = [req("200", [(0, 110), (60, 130), (END - 60, 140), (END, 147)])]
    told = Told(counted(events(), lines, [req("200", [(-60, 100)])]))
    assert told[0] == (20, 0)
    assert told[1439] == (7, 0)
    assert told.day["total"] == 27


@pytest.mark.parametrize("day", [date(2026, 3, 29), date(2026, 10, 25)])
def test_clocks_that_change_change_nothing(day: date) -> None:
    told = Told(counted(events(), [req("200", steady(60))], day=day))
    assert (len(told.rows), told.day["known_minutes"], told.day["total"]) == (1440, 1440, 86_400)


def test_a_gap_is_null_and_what_it_held_is_unplaced() -> None:
    """No sample from 01:00 to 01:20: minutes 60 to 78 are gaps, and 1,200 requests are in none."""
    points = [p for p in steady(60) if not 3600 < p[0] < 4800]
    told = Told(counted(events(), [req("200", points)]))
    assert told.gaps == list(range(60, 79))
    assert told[79] == (0, 0)
    assert told.unplaced == {79: (1200, 0)}
    assert (told.day["total"], told.day["unplaced_total"], told.day["gap_minutes"]) == (86_400 - 1200, 1200, 19)


def test_a_gap_over_midnight() -> None:
    told = Told(
        counted(events(), [req("200", [(30, 190), (90, 200)])], [req("200", [(-3600, 100)])], until_seconds=121)
    )
    assert (told[0], told[1], told.unplaced) == ((0, 0), (10, 0), {0: (90, 0)})


def test_bad_events_over_a_gap_are_unplaced_as_bad() -> None:
    points = [p for p in steady(60, until=7200) if not 3600 < p[0] < 4800]
    errors = [(s, (v - 1000) / 10) for s, v in points]
    told = Told(counted(events(), [req("200", points), req("5xx", errors)], until_seconds=7201))
    assert told.unplaced == {79: (1320, 120)}


def test_one_pod_without_samples_is_no_gap() -> None:
    """Pod b is not seen for 20 minutes; a is. What b counted meanwhile is unplaced, the minutes are known."""
    away = [p for p in steady(6) if not 3600 < p[0] < 4800]
    told = Told(counted(events(), [req("200", steady(60)), req("200", away, "b")]))
    assert told.gaps == []
    assert (told[59], told[70], told[79], told[80]) == ((66, 0), (60, 0), (60, 0), (66, 0))
    assert told.unplaced == {79: (120, 0)}


def test_a_restart_counts_from_zero() -> None:
    points = [(0, 900), (60, 960), (120, 8), (180, 20)]
    told = Told(counted(events(), [req("200", points)], until_seconds=181))
    assert [told[minute] for minute in range(3)] == [(60, 0), (8, 0), (12, 0)]
    assert told.day["resets"] == 1


def test_no_traffic_is_no_gap() -> None:
    told = Told(counted(events(), [req("200", steady(0))]))
    assert set(map(told.__getitem__, range(1440))) == {(0, 0)}
    assert (told.day["total"], told.day["known_minutes"], told.day["fault"]) == (0, 1440, None)


@pytest.mark.parametrize("bound", ["2", "2.0"])
def test_latency_from_buckets(bound: str) -> None:
    """Of 60 requests a minute 57 take at most 2 s; the bound is written as Prometheus 2 or 3 writes it."""
    common = {"instance": "a"}
    lines: list[Line] = [
        ("lat_count", common, steady(60)),
        ("lat_bucket", {**common, "le": bound}, steady(57)),
        ("lat_bucket", {**common, "le": "5"}, steady(60)),
    ]
    told = Told(counted(_LATENCY, lines))
    assert told[700] == (60, 3)
    assert (told.day["bad"], told.day["resets"]) == (3 * 1440, 0)


def test_a_histogram_without_its_bucket_does_not_say_that_all_was_slow() -> None:
    lines: list[Line] = [("lat_count", {"instance": "a"}, steady(60))]
    told = Told(counted(_LATENCY, lines))
    assert len(told.gaps) == 1440
    assert told.day["fault"] == 'found no sample of lat_bucket{le=~"2|2[.]0"}'
    assert told.day["total"] is None


def test_counters_that_were_read_one_after_the_other_are_held_between_zero_and_the_total() -> None:
    """The bucket was read a request later than the count: 61 of 60 within the bound is -1 too slow, and 1 a minute later."""
    count, bucket = [(0, 0), (60, 60), (120, 120)], [(0, 0), (60, 61), (120, 120)]
    lines: list[Line] = [("lat_count", {}, count), ("lat_bucket", {"le": "2"}, bucket)]
    told = Told(counted(_LATENCY, lines, until_seconds=121))
    assert (told[0], told[1]) == ((60, 0), (60, 0))
    assert (told.figures.clamped_minutes, told.figures.clamped, told.day["clamped"]) == (0, 0, 0)


def test_errors_scraped_in_other_minutes_than_requests_are_all_counted() -> None:
    """Both every 2 minutes, requests in even and errors in odd ones: 20 of 200, and in minute 1439 the last 20."""
    requests = [(30 + 120 * n, 1000.0 + 200 * n) for n in range(721)]
    errors = [(90 + 120 * n, 10.0 + 20 * n) for n in range(720)]
    told = Told(
        counted(_CROSS, [("req_total", {"instance": "lb"}, requests), ("err_total", {"instance": "app"}, errors)])
    )
    assert [told[minute] for minute in (2, 3, 4, 5, 6)] == [(200, 0), (0, 0), (200, 20), (0, 0), (200, 20)]
    # The last ones have no minute after them that day, and go where there is room.
    assert (told[1438], told.rows[1439]["bad"]) == ((200, 40), 0)
    assert (told.day["bad"], told.day["clamped"]) == (20 * 719, 0)


def test_requests_scraped_a_millisecond_around_the_minutes_end_lose_no_error() -> None:
    requests = [(60 * n + (0.001 if n % 3 else 0), 1000.0 + 100 * n) for n in range(1, 1441)]
    errors = [(60 * n - 30, 10.0 + 10 * n) for n in range(1, 1441)]
    told = Told(
        counted(_CROSS, [("req_total", {"instance": "lb"}, requests), ("err_total", {"instance": "app"}, errors)])
    )
    assert (told.day["total"], told.day["bad"], told.day["clamped"]) == (143_900, 14_390, 0)


def test_what_finds_no_room_is_cut_and_shown() -> None:
    """7 errors a minute beside 5 requests: 2 of each minute are in no budget."""
    lines: list[Line] = [("req_total", {"instance": "lb"}, steady(5)), ("err_total", {"instance": "app"}, steady(7))]
    told = Told(counted(_CROSS, lines))
    assert (told.day["total"], told.day["bad"], told.day["clamped"]) == (7200, 7200, 2880)
    assert (told.figures.clamped_minutes, told.day["warning"]) == (1440, None)


def test_nothing_is_carried_over_a_gap() -> None:
    """30 errors in the last minute before 20 minutes of gap, in which no request was seen; 9 requests after it."""
    requests: list[tuple[float, float]] = [(0, 0), (60, 10), (120, 10), (1320, 10), (1380, 19)]
    errors: list[tuple[float, float]] = [(0, 0), (60, 0), (120, 30), (1320, 30), (1380, 30)]
    told = Told(
        counted(
            _CROSS, [("req_total", {"instance": "a"}, requests), ("err_total", {"instance": "a"}, errors)], [], 1381
        )
    )
    assert (told[0], told[1], told.gaps, told[22]) == ((10, 10), (0, 0), list(range(2, 21)), (9, 0))
    assert told.day["clamped"] == 20


def test_more_good_events_than_events_are_a_warning() -> None:
    lines: list[Line] = [("lat_count", {}, steady(60)), ("lat_bucket", {"le": "2"}, steady(62))]
    told = Told(counted(_LATENCY, lines))
    assert (told.day["bad"], told.day["clamped"]) == (0, 0)
    assert told.day["warning"] == "found 2880 good events above all events"


def test_the_first_error_of_a_pod_is_an_event() -> None:
    """Its series is there only since its first error: 2 at 06:00, in a target that was scraped a minute before."""
    errors = [(21_600 + 60 * n, 2.0) for n in range(60)]
    told = Told(counted(events(), [req("200", steady(60)), req("5xx", errors)]))
    assert told[359] == (62, 2)
    assert (told.day["bad"], told.figures.births) == (2, 1)


def test_of_a_pod_that_appears_its_first_value_is_no_event() -> None:
    """It may be a pod's first 30 requests, or those of a year before anyone looked."""
    new = [(21_600 + 60 * n, 30.0 + n) for n in range(60)]
    before = [req("200", [(-60, 940), (0, 1000)])]
    told = Told(counted(events(), [req("200", steady(60)), req("200", new, "b")], before))
    assert told[359] == (60, 0)
    assert told[360] == (61, 0)
    assert (told.unplaced, told.day["unplaced_total"]) == ({}, 0)


def test_on_the_first_day_of_a_metric_its_past_is_nothing_at_all() -> None:
    told = Told(counted(events(), [req("200", steady(60, since=3600)), req("200", steady(6, since=3660), "b")]))
    assert (told.unplaced, told.day["unplaced_total"]) == ({}, 0)
    assert told.gaps == list(range(59))
    assert told[59] == (0, 0)
    assert told[61] == (66, 0)


@pytest.mark.parametrize(("every", "minutes"), [(15, [60, 60, 60, 60]), (120, [0, 120, 0, 120])])
def test_how_often_it_is_scraped(every: int, minutes: list[float]) -> None:
    told = Told(counted(events(), [req("200", steady(60, every=every))]))
    assert [told[minute][0] for minute in range(4)] == minutes
    assert (told.gaps, told.day["total"]) == ([], 86_400)


def test_samples_that_were_not_numbers_are_away_like_any_other() -> None:
    """The lake has no NaN: six minutes of it are six minutes without samples. The pair around them spans 7."""
    points = [p for p in steady(60, until=3600) if not 600 < p[0] <= 960]
    told = Told(counted(events(), [req("200", points)], until_seconds=3601))
    assert told.gaps == list(range(10, 16))
    assert told.unplaced == {16: (420, 0)}


def test_a_metric_that_was_renamed_is_a_fault_with_its_name() -> None:
    told = Told(counted(events(), [("requests_total", {"instance": "a"}, steady(60))]))
    assert (len(told.gaps), told.day["gap_minutes"], told.day["total"]) == (1440, 1440, None)
    assert told.day["fault"] == "found no sample of req_total"


def test_what_is_not_over_has_no_row() -> None:
    """Newest sample at 10:00; at 10:05:00 the next one may still come, a second later there is a gap."""
    lines = [req("200", steady(60, until=36_000))]
    waiting = Told(counted(events(), lines, until_seconds=36_300))
    assert (max(waiting.rows), waiting.gaps) == (599, [])
    assert Told(counted(events(), lines, until_seconds=36_301)).gaps == [600, 601, 602, 603, 604]


def test_what_comes_after_midnight_tells_whether_the_day_ended_in_a_gap() -> None:
    """Scraped every 2 minutes, 30 s after midnight: 23:59 has no sample, and the next one is a minute away."""
    points = steady(60, every=120, since=30, until=END - 90)
    slo, until = compile_slo(events()), midnight() + timedelta(days=2)
    after = batch(req("200", [(END + 30, 90_000)]))
    ends = count_day([slo], batch(req("200", points)), batch(), DAY, until, source=SOURCE, after=after)
    assert Told(ends).gaps == []
    cut = count_day([slo], batch(req("200", points)), batch(), DAY, until, source=SOURCE)
    assert Told(cut).gaps == [1439]


def test_too_few_requests_are_failed_minutes_and_no_samples_are_not() -> None:
    """6 a second, from 02:00 on 1 a second. 00:30 to 00:50 nothing is scraped: gaps, with the 5 minutes whose range it is."""
    points = [(60 * n, 1000.0 + (360 * min(n, 120) + 60 * max(n - 120, 0))) for n in range(1441)]
    away = [p for p in points if not 1800 < p[0] < 3000]
    told = Told(counted(_VOLUME, [req("200", away)]))
    assert told.gaps == [0, 1, 2, *range(30, 53)]
    # (4 * 6 + 1) / 5 per second is 5, which is not below 5; a minute more of it is.
    assert [told[minute] for minute in (119, 120, 121, 1439)] == [(1, 0), (1, 0), (1, 1), (1, 1)]
    assert told.day["bad"] == 1440 - 121


def test_a_service_that_is_scraped_and_has_no_requests_fails_its_minutes() -> None:
    told = Told(counted(_VOLUME, [req("200", steady(0))], [req("200", steady(0, since=-900, until=-60))]))
    assert (told.gaps, told.day["total"], told.day["bad"]) == ([], 1440, 1440)


def test_pod_minutes_of_cpu() -> None:
    """Limits of 2 cores. Pod x uses 1.8 of them all day, y 1; y is there from 12:00 to 18:00, and its end is marked."""
    noon, six = 12 * 3600, 18 * 3600
    busy = [(s, 1.8 * s + 500) for s in range(0, END + 1, 60)]
    calm = [(s, 1.0 * s) for s in range(noon, six + 1, 60)]
    ended: list[tuple[float, float | None]] = [*calm, (six + 60, None)]
    limits = [(float(s), 2.0) for s in range(0, END + 1, 60)]
    lines: list[Line] = [
        ("cpu_total", {"pod": "x"}, busy),
        ("cpu_total", {"pod": "y"}, ended),
        ("limit_cores", {"pod": "x"}, limits),
        ("limit_cores", {"pod": "y"}, [*[p for p in limits if noon <= p[0] <= six], (six + 60.0, None)]),
    ]
    told = Told(counted(_SATURATION, lines))
    # A rate needs two samples: at the ends of minutes 0 and 720. After its end y is gone at once.
    assert [told[minute] for minute in (0, 719, 720, 1079, 1080)] == [(1, 0), (1, 1), (2, 1), (2, 1), (1, 1)]
    # In its first three minutes a rate over five is too low for 85 %.
    assert (told.day["bad"], told.day["total"]) == (1440 - 4 + 1, 1440 + 360)


# The lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return _lake(tmp_path)


def _lake(home: Path) -> Lake:
    tables = [METRIC_SERIES, METRIC_SAMPLES, SLO_MINUTES, SLO_DAYS]
    selected = {table.name: {"source": SOURCE} for table in tables}
    return Lake(LocalFolder(home / "lake"), home / "warehouse.duckdb", selected, tables)


def _keep(lake: Lake, *lines: Line, days: int = 3) -> None:
    """Writes the samples by the day that they were scraped on."""
    for n in range(days):
        start = n * END
        part = batch(
            *[(metric, labels, [p for p in points if start <= p[0] < start + END]) for metric, labels, points in lines]
        )
        day = DAY + timedelta(days=n)
        series = part.series.to_pylist()
        where: list[dict[str, str | date]] = [{"source": SOURCE, "day": day}]
        rows = part.series.from_pylist([{**row, "day": day} for row in series if row["samples"]], METRIC_SERIES.schema)
        lake.write(METRIC_SERIES, rows, where, refresh=False)
        lake.write(METRIC_SAMPLES, part.samples, where, refresh=False)


_DAYS = [DAY + timedelta(days=n) for n in range(3)]
_NOW = midnight() + timedelta(days=4)


def _three_days(per_minute: float = 60) -> list[tuple[float, float]]:
    return steady(per_minute, until=3 * END - 30, since=30)


def _totals(lake: Lake) -> list[tuple[date, float | None, float | None]]:
    rows = lake.query("select day, total, bad from slo_days order by day, slo_id").to_pylist()
    return [(row["day"], row["total"], row["bad"]) for row in rows]


def test_days_in_a_row_are_counted_as_one_by_one(lake: Lake, tmp_path: Path) -> None:
    """What one day hands to the next is what would have been read for it; three days add up to what the counter grew by."""
    gap = [p for p in _three_days() if not END - 900 < p[0] < END + 900]
    errors = [p for p in _three_days(1) if p[0] > END + 7200]
    ends: list[tuple[float, float | None]] = [(30, 5), (END - 300, 9), (END - 240, None), (2 * END + 90, 12)]
    # Every 2 minutes: whether 23:59 is known is told by 00:00:30.
    slow = [("lat_count", {}, _three_days()[::2]), ("lat_bucket", {"le": "2"}, _three_days(59)[::2])]
    lines: list[Line] = [req("200", gap), req("5xx", errors), req("404", ends), req("200", gap, "b"), *slow]
    slos = [events(), _VOLUME, _LATENCY]
    _keep(lake, *lines)
    ledger.count(lake, slos, SOURCE, _DAYS, _NOW)
    alone = _lake(tmp_path / "alone")
    _keep(alone, *lines)
    for day in reversed(_DAYS):
        ledger.count(alone, slos, SOURCE, [day], _NOW)
    assert lake.read(SLO_MINUTES).equals(alone.read(SLO_MINUTES))
    assert lake.read(SLO_DAYS).drop(["observed_at"]).equals(alone.read(SLO_DAYS).drop(["observed_at"]))
    rows = lake.query(
        "select sum(total) as total, sum(unplaced_total) as unplaced from slo_minutes where slo_id = 'shop-availability'"
    ).to_pylist()
    grown = 2 * (3 * END - 60) + (errors[-1][1] - errors[0][1]) + errors[0][1] + 4 + 3
    # 5xx was born in a target that was scraped; 404 came back larger after a day, and its 3 are unplaced.
    assert rows[0]["total"] + rows[0]["unplaced"] == pytest.approx(grown)
    known = lake.query("select gap_minutes from slo_days where slo_id = 'shop-latency' order by day").to_pylist()
    assert [row["gap_minutes"] for row in known] == [0, 0, 1]


def test_counting_again_changes_nothing(lake: Lake) -> None:
    _keep(lake, req("200", _three_days()))
    first = ledger.count(lake, [events()], SOURCE, _DAYS, _NOW)
    files = lake.files(SLO_MINUTES)
    again = ledger.count(lake, [events()], SOURCE, _DAYS, _NOW + timedelta(hours=1))
    assert ([d.appended for d in first.days], [d.appended for d in again.days]) == ([1, 1, 1], [0, 0, 0])
    assert (again.restated, lake.files(SLO_MINUTES)) == ((), files)
    assert lake.read(SLO_DAYS).num_rows == 3


def test_a_corrected_day_is_restated_and_the_correction_is_kept(lake: Lake) -> None:
    """60 late errors at 12:00 on the second day."""
    _keep(lake, req("200", _three_days()))
    ledger.count(lake, [events()], SOURCE, _DAYS, _NOW)
    late = [(s, 0.0 if s < END + 43_200 else 60.0) for s, _ in _three_days()]
    _keep(lake, req("200", _three_days()), req("5xx", late))
    found = ledger.count(lake, [events()], SOURCE, _DAYS, _NOW + timedelta(hours=2))
    assert found.restated == (Restated("shop-availability", _DAYS[1], 86_400, 86_460, 0, 60),)
    assert _totals(lake)[1] == (_DAYS[1], 86_460, 60)
    history = lake.query("select total from slo_days_history where day = '2026-03-02' order by observed_at").to_pylist()
    assert [row["total"] for row in history] == [86_400, 86_460]
    [row] = lake.query("select bad from slo_minutes where minute = '2026-03-02 12:00:00Z'").to_pylist()
    assert row["bad"] == 60


def test_a_day_that_goes_on_is_no_restatement(lake: Lake) -> None:
    _keep(lake, req("200", [p for p in _three_days() if p[0] < 43_200]))
    noon = ledger.count(lake, [events()], SOURCE, _DAYS[:1], midnight() + timedelta(hours=12))
    assert (noon.days[0].minutes, noon.days[0].appended) == (719, 1)
    _keep(lake, req("200", _three_days()))
    evening = ledger.count(lake, [events()], SOURCE, _DAYS[:1], midnight() + timedelta(days=1, minutes=10))
    assert (evening.days[0].appended, evening.restated) == (1, ())


def test_what_was_not_read_yet_is_no_gap(lake: Lake) -> None:
    """Read until 12:00:00, counted at 18:00."""
    _keep(lake, req("200", [p for p in _three_days() if p[0] < 43_200]))
    noon, evening = (midnight() + timedelta(hours=hours) for hours in (12, 18))
    found = ledger.count(lake, [events()], SOURCE, _DAYS[:1], evening, read_until={DAY: noon})
    assert (found.days[0].minutes, found.days[0].gap_minutes) == (719, 0)
    assert ledger.count(lake, [events()], SOURCE, _DAYS[:1], evening).days[0].gap_minutes == 360 - 1


def test_an_slo_that_cannot_be_counted_says_so_every_day_and_has_no_minutes(lake: Lake) -> None:
    _keep(lake, req("200", _three_days()))
    found = ledger.count(lake, [events(), events("max(rate(req_total[{{.window}}]))", name="odd")], SOURCE, _DAYS, _NOW)
    assert found.days[0].faults["shop-odd"].startswith("SLO shop-odd: found `max(rate(req_total{}[{{.window}}]))`")
    rows = lake.read(SLO_DAYS).to_pylist()
    odd = [row for row in rows if row["slo_id"] == "shop-odd"]
    assert [(row["day"], row["total"], row["known_minutes"], row["gap_minutes"]) for row in odd] == [
        (day, None, 0, 0) for day in _DAYS
    ]
    assert set(lake.read(SLO_MINUTES)["slo_id"].to_pylist()) == {"shop-availability"}


def test_other_sources_stay_apart(lake: Lake) -> None:
    _keep(lake, req("200", _three_days()))
    ledger.count(lake, [events()], "sample", _DAYS[:1], _NOW)
    rows = lake.read(SLO_DAYS).to_pylist()
    assert [(row["source"], row["total"], row["fault"]) for row in rows] == [
        ("sample", None, "found no sample of req_total")
    ]


def _correct(lake: Lake, day: date) -> None:
    """Replaces a day's samples by others that count the same."""
    rows = lake.read(METRIC_SAMPLES, {"source": SOURCE, "day": day})
    lake.write(METRIC_SAMPLES, rows.slice(0, rows.num_rows - 1), refresh=False)


def test_days_to_count(lake: Lake) -> None:
    assert ledger.days_to_count(lake, SOURCE, _DAYS) == []
    _keep(lake, req("200", _three_days(0)))
    assert ledger.days_to_count(lake, SOURCE, _DAYS) == _DAYS
    ledger.count(lake, [events()], SOURCE, _DAYS, _NOW)
    assert ledger.days_to_count(lake, SOURCE, _DAYS) == []
    # A correction of a day reaches into the first minutes of the next; that it changes no count is no reason to go on.
    _correct(lake, _DAYS[0])
    assert ledger.days_to_count(lake, SOURCE, _DAYS) == _DAYS[:2]
    ledger.count(lake, [events()], SOURCE, _DAYS[:1], _NOW)
    assert ledger.days_to_count(lake, SOURCE, _DAYS) == [_DAYS[1]]
    ledger.count(lake, [events()], SOURCE, _DAYS[1:2], _NOW)
    assert ledger.days_to_count(lake, SOURCE, _DAYS) == []


def test_a_day_that_was_counted_before_it_was_over_is_counted_when_the_next_has_samples(lake: Lake) -> None:
    _keep(lake, req("200", _three_days()), days=1)
    end = midnight(_DAYS[1])
    ledger.count(lake, [events()], SOURCE, _DAYS[:1], end + timedelta(minutes=1))
    assert ledger.days_to_count(lake, SOURCE, _DAYS[:1]) == []
    _keep(lake, req("200", _three_days()))
    assert ledger.days_to_count(lake, SOURCE, _DAYS[:1]) == _DAYS[:1]
    ledger.count(lake, [events()], SOURCE, _DAYS[:1], end + timedelta(minutes=10))
    assert ledger.days_to_count(lake, SOURCE, _DAYS[:1]) == []


def test_a_note_that_cannot_be_read_means_counting_again(lake: Lake, tmp_path: Path) -> None:
    _keep(lake, req("200", _three_days()))
    ledger.count(lake, [events()], SOURCE, _DAYS, _NOW)
    (tmp_path / f"lake/bronze/slo_minutes/source={SOURCE}/day={DAY}/counted.json").write_text("{}")
    assert ledger.days_to_count(lake, SOURCE, _DAYS) == [DAY]


def test_an_slo_keeps_its_place_whatever_others_there_are() -> None:
    """Two SLOs of one day: minutes sorted by SLO, none mixed up."""
    twin = replace(compile_slo(events()), slo_id="a-first")
    counts = count_day([compile_slo(events()), twin], batch(req("200", steady(60))), batch(), DAY, _NOW, source=SOURCE)
    assert counts.minutes["slo_id"].to_pylist() == ["a-first"] * 1440 + ["shop-availability"] * 1440
    assert [row["total"] for row in counts.days.to_pylist()] == [86_400, 86_400]
