"""Samples of the lake, day by day, with what is before and after each: what a count of the day needs.

Not here: counting (`day_counts.py`), and which days (`ledger.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.instants import instant
from greenops_pipelines.lake import Lake, Table
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES
from greenops_pipelines.lake.storage import url
from greenops_pipelines.slo.day_samples import day_start
from greenops_pipelines.slo.series import Batch

DAYS_BEFORE = 3
"""How far back the last sample of a series is looked for; what appears later than that has no known past."""
BEFORE = timedelta(minutes=15)
AFTER = timedelta(minutes=5)

_DAY = timedelta(days=1)
_READ = ["series_id", "time", "value", "is_stale"]
_SERIES = ["series_id", "metric", "labels"]
_SAMPLES = pa.schema([METRIC_SAMPLES.schema.field(name) for name in _READ])


def batches(reader: Reader, days: Sequence[date]) -> Iterator[tuple[date, Batch, Batch, Batch]]:
    """Each day, what is before it, and what is after it. Of days in a row none is read twice.

    The day after the next is read while a day is counted: three days of samples at most are held, 210 MB for 2,000 series.
    """
    following: Batch | None = None
    before: Batch | None = None
    waiting: Future[Batch] | None = None
    with ThreadPoolExecutor(1, "ledger") as ahead:
        for day in days:
            batch = following or reader.day(day)
            before = before or reader.before(day)
            end = midnight(day + _DAY)
            if day + _DAY in days:
                following = waiting.result() if waiting else reader.day(day + _DAY)
                waiting = ahead.submit(reader.day, day + 2 * _DAY) if day + 2 * _DAY in days else None
                yield day, batch, before, Batch(following.series, _until(following.samples, end + AFTER))
                before = _tail(before, batch, end)
            else:
                yield day, batch, before, reader.day(day + _DAY, until=end + AFTER)
                before = following = None


@dataclass(frozen=True)
class Reader:
    """Samples of the lake, of some metrics, over one connection: to open one costs as much as to read 200,000 samples."""

    lake: Lake
    connection: duckdb.DuckDBPyConnection
    source: str
    metrics: Sequence[str]

    def day(self, day: date, until: datetime | None = None) -> Batch:
        """The samples of a day, or those up to `until`."""
        condition, more = ("true", []) if until is None else ("time <= $2", [until])
        sql = f"select {', '.join(_READ)} from read_parquet($1) where {condition}"
        return Batch(self._series(day, day), self._rows(METRIC_SAMPLES, day, day, sql, more, _SAMPLES))

    def before(self, day: date) -> Batch:
        """The 15 minutes before a day, and the last sample of every series in the 3 days before."""
        first, last = day - DAYS_BEFORE * _DAY, day - _DAY
        sql = f"""
            with read as (select {", ".join(_READ)} from read_parquet($1)),
            latest as (
                select series_id, max(time) as time, arg_max(value, time) as value, false as is_stale
                from read where not is_stale group by series_id
            )
            select * from read where time >= $2
            union all
            select * from latest where time < $2
            order by series_id, time
            """
        more = [midnight(day) - BEFORE]
        return Batch(self._series(first, last), self._rows(METRIC_SAMPLES, first, last, sql, more, _SAMPLES))

    def _series(self, first: date, last: date) -> pa.Table:
        sql = f"select distinct {', '.join(_SERIES)} from read_parquet($1) where list_contains($2, metric)"
        schema = pa.schema([METRIC_SERIES.schema.field(name) for name in _SERIES])
        return self._rows(METRIC_SERIES, first, last, sql, [list(self.metrics)], schema)

    def _rows(
        self, table: Table, first: date, last: date, sql: str, more: Sequence[object], schema: pa.Schema
    ) -> pa.Table:
        paths = self.lake.files(table, {"source": self.source, "day": (first, last)})
        if not paths:
            return schema.empty_table()
        files = [url(self.lake.storage, path) for path in paths]
        return self.connection.sql(sql, params=[files, *more]).to_arrow_table().cast(schema)


def midnight(day: date) -> datetime:
    """The first moment of a UTC day."""
    return instant(day_start(day))


def _until(samples: pa.Table, end: datetime) -> pa.Table:
    return samples.filter(pc.less_equal(samples["time"], pa.scalar(end)))


def _tail(before: Batch, batch: Batch, end: datetime) -> Batch:
    """What is before the next day, out of a day and what was before it: as `Reader.before` would read it."""
    oldest = end - DAYS_BEFORE * _DAY
    mine, earlier = _lasts(batch.samples), _lasts(before.samples)
    is_gone = pc.invert(pc.is_in(earlier["series_id"], mine["series_id"]))
    earlier = earlier.filter(pc.and_(is_gone, pc.greater_equal(earlier["time"], pa.scalar(oldest))))
    since = pa.scalar(end - BEFORE)
    recent = batch.samples.filter(pc.greater_equal(batch.samples["time"], since))
    kept = pa.concat_tables([recent, mine.filter(pc.less(mine["time"], since)), earlier])
    series = pa.concat_tables([before.series, batch.series]).group_by(_SERIES, use_threads=False).aggregate([])
    return Batch(series, kept.sort_by([("series_id", "ascending"), ("time", "ascending")]))


def _lasts(samples: pa.Table) -> pa.Table:
    """The last real sample of every series; `samples` are sorted by series and time."""
    if pc.any(samples["is_stale"]).as_py():
        samples = samples.filter(pc.invert(samples["is_stale"]))
    series = samples["series_id"].to_numpy()
    is_last = np.append(series[1:] != series[:-1], np.ones(min(len(series), 1), bool))
    return samples.take(pa.array(np.flatnonzero(is_last)))
