"""Which days are read and counted, of what, and again: holes that close by themselves, faults that stay with those they concern."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from assets.budgets import counts, fresh, metrics
from greenops_pipelines import wiring
from greenops_pipelines.definitions import defs
from greenops_pipelines.errors import BadInput, TransientError
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES, SLO_DAYS, SLO_MINUTES
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.resources import Platform
from greenops_pipelines.settings import load_settings
from greenops_pipelines.slo import budget_sources, ledger, metrics_ingest
from greenops_pipelines.slo.budget_sources import Range, due
from greenops_pipelines.slo.metrics_ingest import DayIngested, Ingested
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.series import Batch, Selector
from sensors.slo import BUDGET, slo_counting
from tests.slo.counted_days import DAY, END, SOURCE, Line, batch, events, midnight, raw, req
from tests.slo.read_protocol import Reply, Stub, answer, text

SLOS = [events()]
ONE_DAY = timedelta(days=1)


def on(number: int) -> date:
    """The n-th of March."""
    return date(2026, 3, number)


def at(number: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 3, number, hour, minute, tzinfo=UTC)


class Lines:
    """A source that has these lines: seconds since 1 March, a day at a time; days in `fails` fail."""

    name = SOURCE

    def __init__(self, *lines: Line) -> None:
        self.lines: Sequence[Line] = lines
        self.fails: dict[date, Exception] = {}
        self.left_out: dict[Selector, str] = {}
        self.asked: list[date] = []

    def read(self, day: date, selectors: Sequence[Selector], until: datetime) -> Batch:
        self.asked.append(day)
        if day in self.fails:
            raise self.fails[day]
        first = (day - DAY).days * END
        end = min(first + END, (until - midnight()).total_seconds())
        lines = [(name, labels, [p for p in points if first <= p[0] < end]) for name, labels, points in self.lines]
        gone = {selector.metric for selector in self.left_out}
        found = batch(*[line for line in lines if line[2] and line[0] not in gone])
        rows = [{**row, "source": self.name, "day": day} for row in found.series.to_pylist()]
        named = pa.repeat(pa.scalar(self.name), found.samples.num_rows)
        samples = found.samples.set_column(0, found.samples.schema.field("source"), named)
        return Batch(found.series.from_pylist(rows, found.series.schema), samples, self.left_out)


def minutely(first: int, last: int, per_minute: float = 60.0) -> list[tuple[float, float]]:
    """A sample half a minute into each minute of the days from the first to the last of March, both included."""
    return [(30.0 + 60 * n, 1000 + per_minute * n) for n in range((first - 1) * 1440, last * 1440)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    tables = (METRIC_SERIES, METRIC_SAMPLES, SLO_MINUTES, SLO_DAYS)
    chosen = {table.name: {"source": SOURCE} for table in tables}
    return Lake(LocalFolder(tmp_path / "lake"), tmp_path / "warehouse.duckdb", chosen, tables)


@pytest.fixture
def source() -> Lines:
    return Lines(req("200", minutely(1, 9)))


def read_and_count(
    source: Lines, lake: Lake, days: Sequence[date], now: datetime, slos: Sequence[Slo] = SLOS, **options: Any
) -> tuple[Ingested, ledger.Counted]:
    """What a run does."""
    read = budget_sources.read_days(source, lake, slos, days, now, **options)
    return read.ingested, budget_sources.count_days(lake, SOURCE, slos, days, now, "run")


def run_due(source: Lines, lake: Lake, now: datetime, slos: Sequence[Slo] = SLOS) -> tuple[Range, ...]:
    """A tick, and the runs that it asks for."""
    found = due(lake, SOURCE, slos, now)
    for days in found:
        each = [days.first + n * ONE_DAY for n in range((days.last - days.first).days + 1)]
        try:
            read_and_count(source, lake, each, now, slos)
        except (TransientError, BadInput):
            continue
    return found


def totals(lake: Lake) -> dict[int, tuple[float | None, float | None, int, str | None]]:
    """By day of March: total, bad, gaps and fault, as counted last."""
    sql = """
        select day, slo_id, total, bad, gap_minutes, fault from slo_days_history where slo_id = 'shop-availability'
        qualify row_number() over (partition by day order by observed_at desc) = 1 order by day
        """
    rows = lake.query(sql).to_pylist()
    return {row["day"].day: (row["total"], row["bad"], row["gap_minutes"], row["fault"]) for row in rows}


# What was not read is not counted


def test_a_day_that_was_never_read_is_no_gap(lake: Lake, source: Lines) -> None:
    source.fails = {on(2): TransientError("no answer")}
    read, counted = read_and_count(source, lake, [on(1), on(2)], at(2, 6))
    assert [day.error for day in read.days] == [None, "2026-03-02: no answer"]
    assert [day.day for day in counted.days] == [on(1)]
    # 1,439 of 1,440 minutes grew by 60: of the first sample ever nobody knows the past.
    assert totals(lake) == {1: (86_340, 0, 0, None)}
    assert set(lake.read(SLO_MINUTES)["day"].to_pylist()) == {on(1)}


def test_a_day_that_fails_later_is_counted_as_far_as_it_was_read(lake: Lake, source: Lines) -> None:
    read_and_count(source, lake, [on(1), on(2)], at(2, 6))
    source.fails = {on(2): BadInput("one series, two values")}
    read_and_count(source, lake, [on(1), on(2)], at(2, 12))
    # 359 minutes were over at 06:00 (the last may still get a sample), none is a gap.
    assert totals(lake)[2][2] == 0
    assert lake.query("select max(minute) as m from slo_minutes").to_pylist() == [{"m": at(2, 5, 58)}]


def test_a_prometheus_that_lost_its_disk_erases_no_outage(lake: Lake) -> None:
    """40 minutes of 60 errors each on 1 March; at 08:00 on the next day the disk is lost."""
    good = [(30.0 + 60 * n, 1000 + 60.0 * n - 60 * min(max(n - 600, 0), 40)) for n in range(2 * 1440)]
    bad = [(30.0 + 60 * n, 60.0 * min(max(n - 600, 0), 40)) for n in range(2 * 1440)]
    source = Lines(req("200", good), req("5xx", bad))
    read_and_count(source, lake, [on(1), on(2)], at(2, 8))
    before = totals(lake)
    assert before[1][:2] == (86_340, 2_400)
    emptied = END + 8 * 3600
    source.lines = [(name, labels, [p for p in points if p[0] > emptied]) for name, labels, points in source.lines]
    read, _ = read_and_count(source, lake, [on(1), on(2)], at(2, 9, 30))
    # 2 x 480 minutes of today until 08:00, all of yesterday.
    assert [day.error for day in read.days] == [
        f"2026-03-0{n}: found 0 samples of req_total, the lake has {count}: what was read before stays; `again: true` takes "
        "what was found"
        for n, count in ((1, "2,880"), (2, "960"))
    ]
    after = totals(lake)
    assert after[1] == before[1]
    # Today goes on: 569 minutes are over.
    assert after[2] == (60 * 569, 0, 0, None)
    assert budget_sources.reading(budget_sources.Read(read, ())).outcome == "failed"
    read_and_count(source, lake, [on(1), on(2)], at(2, 9, 30), again=True)
    assert totals(lake)[1] == (None, None, 1440, "found no sample of req_total")


# A fault of one selector


def test_what_was_left_out_is_a_fault_of_the_slos_that_need_it(lake: Lake) -> None:
    good = 'sum(rate(lat_bucket{le="2"}[{{.window}}]))'
    latency = events(f"sum(rate(lat_count[{{{{.window}}}}])) - {good}", "sum(rate(lat_count[{{.window}}]))", "latency")
    source = Lines(req("200", minutely(1, 1)), ("lat_count", {}, minutely(1, 1)))
    [bucket] = [each for each in budget_sources.selectors_of([latency]) if each.metric == "lat_bucket"]
    reason = f"{bucket}: lat_bucket is a native histogram"
    source.left_out = {bucket: reason}
    read, counted = read_and_count(source, lake, [on(1)], at(3), [events(), latency])
    assert dict(counted.days[0].faults) == {"shop-latency": reason}
    assert totals(lake)[1][0] == 86_340
    assert set(lake.read(SLO_MINUTES)["slo_id"].to_pylist()) == {"shop-availability"}
    measured = budget_sources.reading(budget_sources.Read(read, ()))
    assert (measured.measured, measured.detail) == (1, f"2026-03-01: left out: {reason}")
    # On a day that was read whole it counts again.
    source.left_out = {}
    source.lines = [*source.lines, ("lat_bucket", {"le": "2"}, minutely(1, 1, 59))]
    _, counted = read_and_count(source, lake, [on(1)], at(3, 2), [events(), latency], again=True)
    assert dict(counted.days[0].faults) == {}
    rows = lake.query("select total, bad from slo_days where slo_id = 'shop-latency'").to_pylist()
    assert rows == [{"total": 86_340, "bad": 1_439}]


# What a count was made of


def test_days_are_due_where_the_queries_are_others_and_only_then(lake: Lake, source: Lines) -> None:
    days = [on(1), on(2)]
    both = [events(), raw("avg_over_time((sum(rate(req_total[5m])) < bool 1)[{{.window}}:1m])")]
    read_and_count(source, lake, days, at(5), both)
    assert ledger.days_to_count(lake, SOURCE, days, both) == []
    same = [replace(slo, objective=99.0, period=timedelta(days=7)) for slo in reversed(both)]
    assert ledger.days_to_count(lake, SOURCE, days, same) == []
    changed = [events('sum(rate(req_total{status=~"5.."}[{{.window}}]))'), both[1]]
    assert ledger.days_to_count(lake, SOURCE, days, changed) == days
    assert ledger.days_to_count(lake, SOURCE, days, both[:1]) == days
    assert ledger.days_to_count(lake, SOURCE, days, [*both, events("max(x[{{.window}}])", name="odd")]) == days
    assert ledger.days_to_count(lake, SOURCE, days) == []
    ledger.count(lake, changed, SOURCE, [on(1)], at(5))
    assert ledger.days_to_count(lake, SOURCE, days, changed) == [on(2)]


def test_other_rules_make_every_day_due(lake: Lake, source: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    read_and_count(source, lake, [on(1)], at(5))
    monkeypatch.setattr(ledger, "RULES", ledger.RULES + 1)
    assert ledger.days_to_count(lake, SOURCE, [on(1)], SLOS) == [on(1)]


def test_a_day_that_is_read_again_has_the_next_one_counted_too(lake: Lake, source: Lines) -> None:
    """One sample less at the end of 1 March: what the counter grew by from 23:58:30 on stands in the first minute of the 2nd."""
    days = [on(1), on(2), on(3)]
    read_and_count(source, lake, days, at(9))
    before = lake.query("select total from slo_minutes where minute = '2026-03-02 00:00:00Z'").to_pylist()
    [(name, labels, points)] = source.lines
    source.lines = [(name, labels, [p for p in points if p[0] != END - 30])]
    _, counted = read_and_count(source, lake, [on(1)], at(9), again=True)
    assert [day.day for day in counted.days] == days[:2]
    after = lake.query("select total from slo_minutes where minute = '2026-03-02 00:00:00Z'").to_pylist()
    assert (before, after) == ([{"total": 60}], [{"total": 120}])
    # Near days are left to the next tick, which asks for them.
    _, counted = read_and_count(source, lake, [on(1)], at(3), again=True)
    assert [day.day for day in counted.days] == days[:1]


# Which days a tick asks for


def test_holes_close_by_themselves_oldest_first_and_a_few_at_a_time(lake: Lake, source: Lines) -> None:
    """1 March was read, then nothing until the 9th."""
    read_and_count(source, lake, [on(1)], at(2, 1))
    slos = [replace(events(), period=timedelta(days=8))]
    asked = [run_due(source, lake, at(9, 12, 5 * n), slos) for n in range(4)]
    near = Range(on(9), on(9))
    assert asked == [
        (Range(on(8), on(9)), Range(on(2), on(4))),
        (near, Range(on(5), on(7))),
        # The first minutes of the 8th follow from the 7th, which is there now.
        (Range(on(8), on(9)),),
        (near,),
    ]
    assert sorted(totals(lake)) == list(range(1, 10))
    # Read by itself, 2 March was counted after the 1st, and so on: no day counts less than all its minutes.
    assert [totals(lake)[n][0] for n in range(2, 9)] == [86_400] * 7


def test_a_tick_reads_notes_and_no_samples(lake: Lake, source: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    read_and_count(source, lake, [on(1), on(2)], at(9))
    read: list[str] = []
    read_bytes = lake.storage.read_bytes

    def reads(path: str) -> bytes:
        read.append(path)
        return read_bytes(path)

    monkeypatch.setattr(lake.storage, "read_bytes", reads)
    monkeypatch.setattr(lake, "bare", lambda: pytest.fail("a tick opened DuckDB"))
    due(lake, SOURCE, SLOS, at(9, 13))
    assert read
    assert all(path.endswith(".json") for path in read)


def test_an_older_day_that_fails_waits_an_hour_and_lets_others_pass(lake: Lake, source: Lines) -> None:
    read_and_count(source, lake, [on(1)], at(2, 1))
    slos = [replace(events(), period=timedelta(days=8))]
    source.fails = {on(n): BadInput("one series, two values") for n in (2, 3)}
    assert run_due(source, lake, at(9, 12), slos)[1:] == (Range(on(2), on(4)),)
    assert run_due(source, lake, at(9, 12, 5), slos)[1:] == (Range(on(5), on(7)),)
    assert run_due(source, lake, at(9, 12, 10), slos)[1:] == ()
    assert run_due(source, lake, at(9, 12, 55), slos)[1:] == ()
    source.fails = {}
    assert run_due(source, lake, at(9, 13, 5), slos)[1:] == (Range(on(2), on(3)),)
    assert run_due(source, lake, at(9, 13, 10), slos)[1:] == ()
    assert len(totals(lake)) == 9


def test_a_changed_query_recounts_the_period_without_reading_it_again(lake: Lake, source: Lines) -> None:
    read_and_count(source, lake, [on(n) for n in range(1, 10)], at(9, 12))
    source.asked.clear()
    # The same selectors: bad is now what is not an error.
    slos = [replace(events('sum(rate(req_total[{{.window}}])) - sum(rate(req_total{status="5xx"}[{{.window}}]))'))]
    slos = [replace(slo, period=timedelta(days=8)) for slo in slos]
    asked = [run_due(source, lake, at(9, 12, 5 + 5 * n), slos) for n in range(4)]
    # The 4th is counted with the 3rd, which its first minutes follow from.
    assert [days for each in asked for days in each[1:]] == [Range(on(1), on(3)), Range(on(5), on(7))]
    assert set(source.asked) == {on(9)}
    assert ledger.days_to_count(lake, SOURCE, [on(n) for n in range(1, 10)], slos) == []


def test_yesterday_is_read_once_an_hour_and_today_every_time(lake: Lake, source: Lines) -> None:
    read_and_count(source, lake, [on(4), on(5)], at(6, 0, 12))
    slos = [replace(events(), period=timedelta(days=2))]
    source.asked.clear()
    ticks = [at(6, 0, 15), at(6, 1, 10), at(6, 1, 15), at(6, 1, 20)]
    assert [run_due(source, lake, tick, slos) for tick in ticks] == [
        (Range(on(first), on(6)),) for first in (6, 6, 5, 6)
    ]
    assert (source.asked.count(on(6)), source.asked.count(on(5))) == (4, 1)
    # A run that a person starts for both reads today alone.
    source.asked.clear()
    budget_sources.read_days(source, lake, slos, [on(5), on(6)], at(6, 1, 25))
    assert source.asked == [on(6)]


def test_a_day_is_read_and_counted_once_more_when_it_is_settled(lake: Lake, source: Lines) -> None:
    read_and_count(source, lake, [on(4), on(5)], at(5, 23, 55))
    slos = [replace(events(), period=timedelta(days=2))]
    asked = [run_due(source, lake, at(6, 0, minute), slos)[0].first for minute in (0, 5, 10, 15, 20)]
    assert asked == [on(5), on(5), on(5), on(6), on(6)]
    assert totals(lake)[5][:3] == (86_400, 0, 0)
    assert ledger.days_to_count(lake, SOURCE, [on(5)], SLOS) == []


def test_a_new_home_fills_from_prometheus_and_not_from_the_sample(lake: Lake) -> None:
    """30 days before 31 March are March from the 1st on."""
    near = Range(on(30), on(31))
    assert due(lake, SOURCE, SLOS, at(31, 12)) == (near, Range(on(1), on(3)))
    assert due(lake, "sample", SLOS, at(31, 12)) == (near,)
    assert due(lake, SOURCE, [replace(events(), period=timedelta(days=7))], at(31, 12))[1] == Range(on(24), on(26))
    assert due(lake, SOURCE, [], at(31, 12)) == (near,)


def test_of_the_sample_holes_close_after_the_first_day_that_was_read(lake: Lake) -> None:
    class Sample(Lines):
        name = "sample"

    source = Sample(req("200", minutely(1, 9)))
    budget_sources.read_days(source, lake, SLOS, [on(4), on(6)], at(9))
    assert due(lake, "sample", SLOS, at(9, 12))[1:] == (Range(on(4), on(6)),)
    budget_sources.count_days(lake, "sample", SLOS, [on(4), on(6)], at(9), "run")
    assert due(lake, "sample", SLOS, at(9, 12))[1:] == (Range(on(5), on(7)),)


# The check


def test_what_the_check_of_a_reading_says() -> None:
    days = tuple(DayIngested(on(n), error=f"2026-03-0{n}: no answer") for n in range(1, 6))
    found = budget_sources.reading(budget_sources.Read(Ingested((*days, DayIngested(on(6)))), ()))
    assert (found.check, found.measured, found.outcome) == ("slo/metric_samples:read", 5, "failed")
    assert found.detail.endswith("2026-03-03: no answer; and 2 more")
    fine = budget_sources.reading(budget_sources.Read(Ingested((DayIngested(on(6)),)), (on(5), on(4))))
    assert (fine.outcome, fine.detail) == ("passed", "1 days were read, 2 were there")
    none = budget_sources.not_read([on(1), on(2)], "no answer")
    assert (none.measured, none.outcome, none.detail) == (2, "failed", "2026-03-01 to 2026-03-02: no answer")


# In the graph


class March(Platform):
    """It is noon on 9 March 2026."""

    def now(self) -> datetime:
        return at(9, 12)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    stub = Stub()
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GREENOPS_PROMETHEUS_URL", stub.url)
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    yield stub
    stub.close()


def made(first: date, last: date) -> dg.ExecuteInProcessResult:
    tags = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [metrics, counts, fresh],
            resources={"platform": March()},
            tags=tags,
            instance=instance,
            raise_on_error=False,
        )


def noon_samples(query: Any) -> Reply:
    """A sample at the beginning of what is asked for."""
    return answer([({"__name__": query.matchers[0].value}, [(query.start_timestamp_ms, 1.0)])])


def test_a_run_in_which_one_day_fails_counts_the_other_and_says_so(stub: Stub) -> None:
    today_ms = int(at(9).timestamp() * 1000)
    stub.reads = lambda query: text(503, "starting") if query.start_timestamp_ms >= today_ms else noon_samples(query)
    done = made(on(8), on(9))
    assert done.success
    checks = {each.check_name: each for each in done.get_asset_check_evaluations()}
    assert (checks["read"].passed, checks["read"].severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "2026-03-09: " in str(checks["read"].description)
    assert "503 Service Unavailable: starting" in str(checks["read"].description)
    assert not checks["fresh"].passed
    lake = wiring.lake(load_settings())
    assert set(lake.read(METRIC_SAMPLES)["day"].to_pylist()) == {on(8)}
    assert {row["day"] for row in lake.query("select distinct day from slo_days_history").to_pylist()} == {on(8)}


def test_a_run_that_can_read_nothing_fails_and_the_check_with_it(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.reads = lambda _: text(401, "who?")
    done = made(on(8), on(9))
    assert not done.success
    [check] = done.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("read", False)
    assert "2026-03-08 to 2026-03-09: " in str(check.description)
    assert "answered 401" in str(check.description)


def test_the_hourly_job_asks_how_old_the_newest_sample_is() -> None:
    """The run that reads a Prometheus which is down fails before it gets there."""
    found = BUDGET.selection.resolve_checks(defs.resolve_asset_graph())
    assert dg.AssetCheckKey(dg.AssetKey(["slo", "metric_samples"]), "fresh") in found


def test_the_schedule_asks_for_what_is_due(stub: Stub, tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=at(31, 12, 5), resources={"platform": Platform()}
        )
        requests = slo_counting.evaluate_tick(context).run_requests
    names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    assert [tuple(request.tags[name] for name in names) for request in requests or []] == [
        ("2026-03-30", "2026-03-31"),
        ("2026-03-01", "2026-03-03"),
    ]
    assert [request.run_key for request in requests or []] == [
        "slo_counting:2026-03-31T12:05:2026-03-30",
        "slo_counting:2026-03-31T12:05:2026-03-01",
    ]
    assert metrics_ingest.days_read(wiring.lake(load_settings()), SOURCE) == []
