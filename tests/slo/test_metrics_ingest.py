"""Days of samples in the lake: whole or not there, read again when they must be, killed in the middle."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from greenops_pipelines.errors import BadInput, ProviderError, TransientError
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import BUDGET_TABLES, METRIC_SAMPLES, METRIC_SERIES
from greenops_pipelines.lake.parquet import DIGEST_KEY, digest
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.slo.metrics_ingest import (
    DayIngested,
    days_read,
    failed_since,
    ingest,
    missing_days,
    readings,
    selectors_digest,
)
from greenops_pipelines.slo.reading_times import SETTLED
from greenops_pipelines.slo.remote_read import RemoteRead
from greenops_pipelines.slo.remote_read_wire import Answer
from greenops_pipelines.slo.series import Batch, Matcher, Selector
from greenops_pipelines.slo.series_day import SeriesDay, milliseconds
from tests.slo.read_protocol import Stub, answer, text

ROOT = Path(__file__).parents[2]
DAYS = [date(2026, 3, day) for day in (1, 2, 3)]
LATER = datetime(2026, 3, 9, tzinfo=UTC)
X = Selector("x_total")
MIDNIGHT = datetime(2026, 3, 4, tzinfo=UTC)
SEED = 20260301
MANY = 60


class Ticking:
    """A source of `series` counters with a sample a minute, whose values say in which reading they were read."""

    name = "ticking"

    def __init__(self, series: int = 3, first: float = 0.0) -> None:
        self.series = series
        self.first = first
        self.fails: dict[date, Exception] = {}
        self.untils: list[datetime] = []

    def read(self, day: date, selectors: Sequence[Selector], until: datetime) -> Batch:
        self.untils.append(until)
        if day in self.fails:
            raise self.fails[day]
        first, last = milliseconds(day, until)
        times = np.arange(first, last + 1, 60_000)
        day_of = SeriesDay(self.name, day, first, last)
        labels = tuple({"__name__": "x_total", "pod": str(pod)} for pod in range(self.series))
        counts = np.full(self.series, len(times))
        values = np.tile(self.first + np.arange(len(times), dtype=float), self.series)
        day_of.add(0, selectors[0], Answer(labels, counts, np.tile(times, self.series), values))
        return day_of.batch()


def open_lake(home: Path) -> Lake:
    return Lake(
        LocalFolder(home / "lake"), home / "warehouse.duckdb", {"metric_samples": {"source": "ticking"}}, BUDGET_TABLES
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return open_lake(tmp_path)


def missing(lake: Lake, now: datetime = LATER, selectors: Sequence[Selector] = (X,)) -> list[date]:
    return missing_days(lake, "ticking", selectors, DAYS, now)


def test_days_are_read_written_and_not_missing_any_more(lake: Lake) -> None:
    assert missing(lake) == DAYS
    seen: list[DayIngested] = []
    done = ingest(Ticking(), lake, [X], DAYS[:2], LATER, seen.append)
    assert missing(lake) == DAYS[2:]
    assert list(done.days) == seen
    assert [(day.day, day.series, day.samples, day.error) for day in done.days] == [
        (d, 3, 4320, None) for d in DAYS[:2]
    ]
    assert done.total("samples") == 8640
    assert done.total("bytes") == sum(path.stat().st_size for path in Path(lake.storage.root).rglob("*.parquet"))
    assert done.failed == []
    rows = lake.query("select day, count(*) as n, max(value) as most from metric_samples group by day order by day")
    assert rows.to_pylist() == [{"day": day, "n": 4320, "most": 1439.0} for day in DAYS[:2]]
    again = ingest(Ticking(), lake, [X], DAYS[:2], LATER)
    assert (again.total("bytes"), again.total("samples")) == (0, 8640)


def test_every_count_of_a_day_is_told(lake: Lake) -> None:
    stub = Stub()
    try:
        at = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
        pods = [({"__name__": "x_total", "pod": pod}, [(at, 1.0), (at, 1.0), (at + 1, float("nan"))]) for pod in "ab"]
        stub.reads = lambda _: answer(pods)
        done = ingest(RemoteRead(stub.url), lake, [X], DAYS[:1], LATER)
    finally:
        stub.close()
    [day] = done.days
    assert (day.series, day.samples, day.stale_markers, day.unusable, day.duplicates) == (2, 2, 0, 2, 2)
    assert missing_days(lake, "prometheus", [X], DAYS, LATER) == DAYS[1:]
    assert missing(lake) == DAYS


def test_other_selectors_make_a_day_missing_and_their_order_does_not(lake: Lake) -> None:
    narrow = Selector("x_total", (Matcher("pod", "=", "1"),))
    ingest(Ticking(), lake, [X, narrow], DAYS, LATER)
    assert missing(lake, selectors=[narrow, X, X]) == []
    assert missing(lake, selectors=[narrow]) == DAYS
    assert selectors_digest([narrow]) != selectors_digest([Selector("x_total", (Matcher("pod", "!=", "1"),))])


def test_a_day_that_is_not_over_is_read_up_to_now_and_again(lake: Lake) -> None:
    source = Ticking()
    noon = datetime(2026, 3, 3, 12, tzinfo=UTC)
    ingest(source, lake, [X], DAYS, noon)
    assert source.untils == [datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC), noon]
    assert lake.read(METRIC_SAMPLES, {"source": "ticking", "day": DAYS[2]}).num_rows == 3 * 720
    assert missing(lake, noon) == []
    found = readings(lake, "ticking", DAYS[1:])
    assert {day: reading.read_at for day, reading in found.items()} == dict.fromkeys(DAYS[1:], noon)
    assert readings(lake, "another", DAYS) == {}
    assert (days_read(lake, "ticking"), days_read(lake, "another")) == (DAYS, [])
    assert missing(lake, noon + timedelta(seconds=1)) == DAYS[2:]
    # A scrape that began before midnight may arrive after it.
    ingest(source, lake, [X], DAYS[2:], MIDNIGHT + timedelta(seconds=1))
    assert missing(lake, MIDNIGHT + timedelta(seconds=1)) == []
    assert missing(lake, MIDNIGHT + SETTLED) == DAYS[2:]
    ingest(source, lake, [X], DAYS[2:], MIDNIGHT + SETTLED)
    assert missing(lake, LATER) == []
    assert lake.read(METRIC_SAMPLES, {"source": "ticking", "day": DAYS[2]}).num_rows == 4320


def test_days_that_have_not_begun_are_not_missing_and_not_read(lake: Lake) -> None:
    now = datetime(2026, 3, 2, tzinfo=UTC)
    assert missing(lake, now) == DAYS[:1]
    with pytest.raises(BadInput, match="found the day 2026-03-02, allowed: up to 2026-03-02T00:00:00Z"):
        ingest(Ticking(), lake, [X], DAYS, now)
    with pytest.raises(BadInput, match="without a zone"):
        missing(lake, datetime(2026, 3, 2))  # noqa: DTZ001


def test_a_day_without_any_series_is_there(lake: Lake) -> None:
    ingest(Ticking(), lake, [X], DAYS[:1], LATER)
    ingest(Ticking(series=0), lake, [X], DAYS, LATER, take_less=True)
    assert missing(lake) == []
    assert lake.read(METRIC_SAMPLES).num_rows == 0


def test_a_day_that_fails_does_not_stop_the_others(lake: Lake) -> None:
    source = Ticking()
    source.fails = {DAYS[1]: TransientError("no answer")}
    done = ingest(source, lake, [X], DAYS, LATER)
    assert [(day.day, day.error) for day in done.failed] == [(DAYS[1], "2026-03-02: no answer")]
    assert missing(lake) == [DAYS[1]]
    # Who fills holes waits before this one is tried again.
    assert failed_since(lake, "ticking", LATER, DAYS) == {DAYS[1]}
    assert failed_since(lake, "ticking", LATER + timedelta(seconds=1), DAYS) == set()
    source.fails = {}
    ingest(source, lake, [X], missing(lake), LATER)
    assert missing(lake) == []
    assert failed_since(lake, "ticking", LATER, DAYS) == set()


def test_a_failing_day_keeps_what_was_there(lake: Lake) -> None:
    source = Ticking()
    ingest(source, lake, [X], DAYS, LATER)
    before = lake.read(METRIC_SAMPLES)
    source.fails = {DAYS[1]: ProviderError("no answer of Prometheus")}
    ingest(source, lake, [X], DAYS, LATER)
    assert lake.read(METRIC_SAMPLES).equals(before)


def test_where_all_fail_the_error_that_no_retry_helps_is_raised(lake: Lake) -> None:
    source = Ticking()
    source.fails = {day: TransientError(f"no answer on {day}") for day in DAYS}
    with pytest.raises(TransientError, match="no answer on 2026-03-03"):
        ingest(source, lake, [X], DAYS, LATER)
    source.fails[DAYS[1]] = BadInput("two values")
    with pytest.raises(BadInput, match="two values"):
        ingest(source, lake, [X], DAYS, LATER)
    assert ingest(source, lake, [X], [], LATER).days == ()


def test_a_server_that_breaks_off_in_the_middle_leaves_no_part_of_its_day(lake: Lake) -> None:
    stub = Stub()
    source = RemoteRead(stub.url)
    at = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
    other = Selector("y_total")

    def reads(query: Any) -> Any:
        if query.matchers[0].value == "y_total" and query.start_timestamp_ms > at:
            return text(503, "starting")
        return answer([({"__name__": query.matchers[0].value}, [(query.start_timestamp_ms, 1.0)])])

    stub.reads = reads
    try:
        done = ingest(source, lake, [X, other], DAYS, LATER)
    finally:
        stub.close()
    assert done.days[0].error is None
    assert all("y_total: answered 503 Service Unavailable: starting" in str(day.error) for day in done.days[1:])
    assert lake.read(METRIC_SAMPLES)["day"].to_pylist() == [DAYS[0]] * 2


def test_a_selector_that_is_refused_is_noted_and_the_others_are_there(lake: Lake) -> None:
    stub = Stub()
    y = Selector("y_total")

    def reads(query: Any) -> Any:
        if query.matchers[0].value == "y_total":
            return text(422, "no such thing")
        return answer([({"__name__": "x_total"}, [(query.start_timestamp_ms, 1.0)])])

    stub.reads = reads
    try:
        [done] = ingest(RemoteRead(stub.url), lake, [X, y], DAYS[:1], LATER).days
    finally:
        stub.close()
    reason = "y_total: Prometheus refuses it with 422: no such thing"
    assert (done.samples, done.error, done.left_out) == (1, None, {"y_total": reason})
    assert readings(lake, "prometheus", DAYS)[DAYS[0]].left_out == {"y_total": reason}
    assert missing_days(lake, "prometheus", [X, y], DAYS[:1], LATER) == []


# A source that has lost what it had


class Shrinking(Ticking):
    """Two metrics, a sample a minute; of `lost` nothing is left before `since_ms`, or so many a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.since_ms: dict[str, int] = {}
        self.every = 1

    def read(self, day: date, selectors: Sequence[Selector], until: datetime) -> Batch:
        first, last = milliseconds(day, until)
        day_of = SeriesDay(self.name, day, first, last)
        for number, selector in enumerate(selectors):
            times = np.arange(first, last + 1, 60_000 * self.every)
            times = times[times >= self.since_ms.get(selector.metric, 0)]
            labels = ({"__name__": selector.metric},)
            day_of.add(number, selector, Answer(labels, np.array([len(times)]), times, np.full(len(times), self.first)))
        return day_of.batch()


Y = Selector("y_total")
NOON, ONE = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 13, tzinfo=UTC)


def stored(lake: Lake) -> list[tuple[str, int, int, float, float]]:
    """By metric: rows, samples as the series say, the lowest and the highest value."""
    rows = lake.query(
        """
        select metric, count(*) as n, any_value(samples) as told, min(value) as low, max(value) as high
        from metric_samples join metric_series using (source, day, series_id) group by metric order by metric
        """
    ).to_pylist()
    return [(row["metric"], row["n"], row["told"], row["low"], row["high"]) for row in rows]


def test_what_was_read_stays_where_the_source_has_lost_it_and_what_is_new_is_added(lake: Lake) -> None:
    """At noon 720 samples; then the disk is lost, and y_total alone is scraped anew from 12:30 on."""
    source = Shrinking()
    ingest(source, lake, [X, Y], DAYS[:1], NOON)
    source.first = 7.0
    at = int(NOON.timestamp() * 1000)
    source.since_ms = {"x_total": 1 << 60, "y_total": at + 30 * 60_000}
    for _ in range(2):
        [done] = ingest(source, lake, [X, Y], DAYS[:1], ONE).days
        assert stored(lake) == [("x_total", 720, 720, 0.0, 0.0), ("y_total", 750, 750, 0.0, 7.0)]
        assert missing_days(lake, "ticking", [X, Y], DAYS[:1], ONE) == []
    # The second reading has what the first one kept to compare with.
    assert done.error == (
        "2026-03-01: found 0 samples of x_total, the lake has 720; found 30 samples of y_total, the lake has 750: what was "
        "read before stays; `again: true` takes what was found"
    )
    [done] = ingest(source, lake, [X, Y], DAYS[:1], ONE, take_less=True).days
    assert done.error is None
    assert stored(lake) == [("y_total", 30, 30, 7.0, 7.0)]


@pytest.mark.parametrize(("left", "is_kept"), [(0, True), (647, True), (648, False), (720, False)])
def test_clearly_fewer_are_less_than_nine_tenths(lake: Lake, left: int, is_kept: bool) -> None:
    source = Shrinking()
    ingest(source, lake, [X], DAYS[:1], NOON)
    source.first = 1.0
    source.since_ms = {"x_total": int(NOON.timestamp() * 1000) - left * 60_000}
    [done] = ingest(source, lake, [X], DAYS[:1], ONE).days
    assert (done.error is not None) == is_kept
    assert stored(lake) == [("x_total", 780, 780, 0.0, 1.0) if is_kept else ("x_total", left + 60, left + 60, 1.0, 1.0)]


def test_a_day_that_is_over_is_compared_as_a_whole(lake: Lake) -> None:
    source = Shrinking()
    ingest(source, lake, [X], DAYS, LATER)
    source.every = 5
    done = ingest(source, lake, [X], DAYS[:1], LATER)
    assert [day.error for day in done.failed] == [
        "2026-03-01: found 288 samples of x_total, the lake has 1,440: what was read before stays; `again: true` takes what "
        "was found"
    ]
    assert lake.read(METRIC_SAMPLES, {"source": "ticking", "day": DAYS[0]}).num_rows == 1440


def test_what_is_not_asked_for_any_more_is_not_lost(lake: Lake) -> None:
    """Read of x and y, then of y alone."""
    source = Shrinking()
    ingest(source, lake, [X, Y], DAYS[:1], LATER)
    assert ingest(source, lake, [Y], DAYS[:1], LATER).failed == []
    assert [row[0] for row in stored(lake)] == ["y_total"]


def test_rows_of_another_day_or_source_are_refused(lake: Lake) -> None:
    class Wrong(Ticking):
        def read(self, day: date, selectors: Sequence[Selector], until: datetime) -> Batch:
            return super().read(DAYS[0], selectors, until)

    with pytest.raises(BadInput, match="asked for day 2026-03-02, found 2026-03-01 to 2026-03-01"):
        ingest(Wrong(), lake, [X], DAYS[1:2], LATER)
    assert missing(lake) == DAYS


def test_files_that_are_others_than_those_of_the_reading_make_a_day_missing(lake: Lake) -> None:
    ingest(Ticking(), lake, [X], DAYS, LATER)
    batch = Ticking(first=5.0).read(DAYS[0], [X], LATER)
    lake.write(METRIC_SAMPLES, batch.samples)
    assert missing(lake) == DAYS[:1]
    note = Path(lake.storage.root) / METRIC_SERIES.path / "source=ticking" / "day=2026-03-02" / "read.json"
    for damaged in (b"", b"[]", b'{"read_at": "yesterday", "selectors": "", "files": {}}'):
        note.write_bytes(damaged)
        assert missing(lake) == DAYS[:2]


def test_the_files_have_their_encodings(lake: Lake) -> None:
    ingest(Ticking(), lake, [X], DAYS[:1], LATER)
    [path] = lake.files(METRIC_SAMPLES)
    group = pq.ParquetFile(f"{lake.storage.root}/{path}").metadata.row_group(0)
    found = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert "DELTA_BINARY_PACKED" in found["time"].encodings
    assert "BYTE_STREAM_SPLIT" in found["value"].encodings
    assert {column.compression for column in found.values()} == {"ZSTD"}


# kill -9


def ingest_in_child(home: Path, first: float, told: Any) -> None:
    """What a child does: all days, of a reading that is told by its values; it says when each is there."""
    source, lake = Ticking(MANY, first), open_lake(home)
    told.send(None)
    ingest(source, lake, [X], DAYS, LATER, lambda outcome: told.send(outcome.day))


@pytest.fixture(scope="module")
def warm() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    # pyarrow imports pandas with its first array: seconds that no child needs to spend.
    context.set_forkserver_preload(["tests.slo.test_metrics_ingest", "pandas"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        multiprocessing.forkserver.ensure_running()  # type: ignore[attr-defined]
    return context


def test_kills_leave_whole_days_and_the_next_run_finds_what_is_left(warm: ForkServerContext, tmp_path: Path) -> None:
    lake, point = open_lake(tmp_path), random.Random(SEED)
    ingest(Ticking(MANY), lake, [X], DAYS, LATER)
    left: list[int] = []
    for number in range(1, 7):
        told, child_end = warm.Pipe(duplex=False)
        first = number * 10_000.0
        child = warm.Process(target=ingest_in_child, args=(tmp_path, first, child_end))
        child.start()
        begun = time.monotonic()
        for _ in range(1 + number % 3):
            told.recv()
            one_day, begun = time.monotonic() - begun, time.monotonic()
        # Somewhere in the day that comes next.
        time.sleep(point.uniform(0, min(one_day, 0.3)))
        child.kill()
        child.join()
        left.append(sum(_first_value(lake, day) == first for day in DAYS))
        for table in (METRIC_SAMPLES, METRIC_SERIES):
            for path in lake.files(table):
                whole = pq.read_table(f"{lake.storage.root}/{path}", partitioning=None)
                assert digest(whole) == whole.schema.metadata[DIGEST_KEY].decode()
        days = missing(lake)
        # A day whose samples were replaced and whose note was not is missing; what is not missing is whole.
        assert all(_is_of_one_reading(lake, day) for day in DAYS if day not in days)
        ingest(Ticking(MANY, first), lake, [X], DAYS, LATER)
        assert missing(lake) == []
        assert {_first_value(lake, day) for day in DAYS} == {first}
    assert len(set(left)) > 1, f"every kill came at the same place: {left}"


def _first_value(lake: Lake, day: date) -> float:
    return float(lake.read(METRIC_SAMPLES, {"source": "ticking", "day": day}, ["value"])["value"][0].as_py())


def _is_of_one_reading(lake: Lake, day: date) -> bool:
    rows = lake.read(METRIC_SAMPLES, {"source": "ticking", "day": day}, ["value"])["value"].to_numpy()
    return len(rows) == MANY * 1440 and rows.max() - rows.min() == 1439


def test_a_kill_between_the_samples_and_the_note_is_seen(
    warm: ForkServerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = open_lake(tmp_path)
    ingest(Ticking(), lake, [X], DAYS, LATER)
    order: list[str] = []
    publish = lake.storage.publish

    def breaks(after: int) -> Callable[..., int]:
        def step(path: str, write: Any) -> int:
            order.append(path.split("/")[1] + ("" if path.endswith(".parquet") else " note"))
            if len(order) > after:
                raise KeyboardInterrupt
            return publish(path, write)

        return step

    # The series are the same as before, so that their file is not written again.
    for after, state in ((0, []), (1, DAYS[:1])):
        order.clear()
        monkeypatch.setattr(lake.storage, "publish", breaks(after))
        with pytest.raises(KeyboardInterrupt):
            ingest(Ticking(first=7.0), lake, [X], DAYS, LATER)
        monkeypatch.undo()
        assert missing(lake) == state
    assert order == ["metric_samples", "metric_series note"]
