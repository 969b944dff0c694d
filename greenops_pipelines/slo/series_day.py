"""A day of samples put together from the parts in which a server gave them: what is kept, dropped and counted.

Not here: where the parts come from (`remote_read.py`, `matrix_read.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from greenops_pipelines.errors import BadInput, ProviderError
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES
from greenops_pipelines.redaction import one_line
from greenops_pipelines.slo.remote_read_samples import Floats, Ints
from greenops_pipelines.slo.remote_read_wire import Answer
from greenops_pipelines.slo.series import Batch, Selector, label_text, series_id

STALE_BITS = 0x7FF0000000000002
"""Prometheus' `value.StaleNaN`: the series had ended by then. Every other NaN is a value that somebody exposed."""
_DAY = timedelta(days=1)
_MS = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Bools = npt.NDArray[np.bool_]


def milliseconds(day: date, until: datetime) -> tuple[int, int]:
    """First and last millisecond since 1970 of a UTC day, those at `until` and later left out; nothing where last < first."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    end = min(start + _DAY, until)
    return (start - _EPOCH) // _MS, -((_EPOCH - end) // _MS) - 1


class SeriesDay:
    """Collects the parts of one day. A part holds samples of `first_ms` to `last_ms`; what lies outside is left out."""

    def __init__(self, source: str, day: date, first_ms: int, last_ms: int) -> None:
        self._source = source
        self._day = day
        self._first_ms = first_ms
        self._last_ms = last_ms
        self._codes: dict[tuple[str, str], int] = {}
        self._owners: list[int] = []
        self._ids: list[int] = []
        self._parts: list[tuple[npt.NDArray[np.int32], Ints, Floats]] = []

    def add(self, number: int, selector: Selector, answer: Answer) -> None:
        """What the selector of that number gave. A series that one before it gave already is left out: it is the same.

        Raises `ProviderError` for a series of another metric than was asked for.
        """
        codes = [self._code(number, selector, labels) for labels in answer.labels]
        of_sample = np.repeat(np.array(codes, np.int32), answer.counts)
        keep = (of_sample >= 0) & (answer.times_ms >= self._first_ms) & (answer.times_ms <= self._last_ms)
        if keep.all():
            self._parts.append((of_sample, answer.times_ms, answer.values))
        elif keep.any():
            self._parts.append((of_sample[keep], answer.times_ms[keep], answer.values[keep]))

    def _code(self, number: int, selector: Selector, labels: Mapping[str, str]) -> int:
        metric = labels.get("__name__", "")
        if metric != selector.metric:
            raise ProviderError(f"{selector}: asked for this metric, found {one_line(metric, 100)!r}")
        code = self._codes.setdefault((metric, label_text(labels)), len(self._owners))
        if code == len(self._owners):
            self._owners.append(number)
            self._ids.append(series_id(metric, labels))
        return code if self._owners[code] == number else -1

    def batch(self) -> Batch:
        """All of it.

        A sample that is there twice, with one time and one value, is kept once. Raises `BadInput` for one time with two values:
        nobody can say which of them it was.
        """
        names = list(self._codes)
        ids = np.array(self._ids, np.int64)
        order = np.argsort(ids, kind="stable")
        rank = np.empty(len(ids), np.int32)
        rank[order] = np.arange(len(ids), dtype=np.int32)
        codes, times, values = (
            np.concatenate([part[place] for part in self._parts] or [np.empty(0, kind)])
            for place, kind in enumerate((np.int32, np.int64, np.float64))
        )
        self._parts.clear()
        ranks, times, values = _sorted(rank[codes], times, values)
        names = [names[place] for place in order]
        repeated = self._repeated(names, ranks, times, values)
        stale = values.view(np.uint64) == np.uint64(STALE_BITS)
        unusable = ~np.isfinite(values) & ~stale & ~repeated
        kept = ~(unusable | repeated)
        count = len(names)
        per_series = {
            "samples": _per_series(ranks, kept & ~stale, count),
            "stale_markers": _per_series(ranks, kept & stale, count),
            "unusable_samples": _per_series(ranks, unusable, count),
            "duplicate_samples": _per_series(ranks, repeated, count),
        }
        there = (per_series["samples"] + per_series["stale_markers"] + per_series["unusable_samples"]) > 0
        series = self._series(names, ids[order], per_series).filter(pa.array(there))
        if not kept.all():
            ranks, times, values, stale = ranks[kept], times[kept], values[kept], stale[kept]
        return Batch(series, self._samples(ids[order][ranks], times, values, stale))

    def _repeated(
        self, names: list[tuple[str, str]], ranks: npt.NDArray[np.int32], times: Ints, values: Floats
    ) -> Bools:
        """Which rows say what the row before them says already."""
        repeated = np.zeros(len(times), bool)
        again = np.flatnonzero((ranks[1:] == ranks[:-1]) & (times[1:] == times[:-1])) + 1
        if not len(again):
            return repeated
        one, other = values[again - 1], values[again]
        bits = np.uint64(STALE_BITS)
        marks = (one.view(np.uint64) == bits, other.view(np.uint64) == bits)
        equal = (one == other) | (np.isnan(one) & np.isnan(other) & (marks[0] == marks[1]))
        if not equal.all():
            row = int(again[np.argmin(equal)])
            metric, labels = names[ranks[row]]
            at = (_EPOCH + int(times[row]) * _MS).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            found = " and ".join(_value(values[place]) for place in (row - 1, row))
            raise BadInput(
                f"{one_line(metric + labels, 500)} at {at}: found two values, {found}, allowed: one; two sources "
                "write one series: give each a label of its own"
            )
        repeated[again] = True
        return repeated

    def _series(self, names: list[tuple[str, str]], ids: Ints, per_series: Mapping[str, Ints]) -> pa.Table:
        columns = {
            **self._constants(len(names)),
            "series_id": pa.array(ids),
            "metric": pa.array([metric for metric, _ in names], pa.string()),
            "labels": pa.array([labels for _, labels in names], pa.string()),
            **{name: pa.array(counts) for name, counts in per_series.items()},
        }
        return pa.table([columns[name] for name in METRIC_SERIES.schema.names], schema=METRIC_SERIES.schema)

    def _samples(self, ids: Ints, times: Ints, values: Floats, stale: Bools) -> pa.Table:
        schema = METRIC_SAMPLES.schema
        columns = {
            **self._constants(len(ids)),
            "series_id": pa.array(ids),
            "time": pa.array(times * 1000).cast(schema.field("time").type),
            "value": pa.array(np.where(stale, 0.0, values)),
            "is_stale": pa.array(stale),
        }
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def _constants(self, count: int) -> dict[str, pa.Array]:
        return {
            "source": pa.repeat(pa.scalar(self._source), count),
            "day": pa.repeat(pa.scalar(self._day, pa.date32()), count),
        }


def _sorted(ranks: npt.NDArray[np.int32], times: Ints, values: Floats) -> tuple[npt.NDArray[np.int32], Ints, Floats]:
    """By series and time. A server gives a series in one piece and in order, so that pieces are moved and not rows."""
    if _in_order(ranks, times):
        return ranks, times, values
    starts = np.flatnonzero((ranks[1:] != ranks[:-1]) | (times[1:] < times[:-1])) + 1
    starts = np.concatenate([[0], starts])
    sizes = np.diff(np.append(starts, len(ranks)))
    order = np.lexsort((times[starts], ranks[starts]))
    starts, sizes = starts[order], sizes[order]
    moved = np.arange(len(ranks)) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
    ranks, times, values = ranks[moved], times[moved], values[moved]
    if not _in_order(ranks, times):
        rows = np.lexsort((times, ranks))
        ranks, times, values = ranks[rows], times[rows], values[rows]
    return ranks, times, values


def _in_order(ranks: npt.NDArray[np.int32], times: Ints) -> bool:
    later = (ranks[1:] > ranks[:-1]) | ((ranks[1:] == ranks[:-1]) & (times[1:] >= times[:-1]))
    return bool(later.all())


def _per_series(ranks: npt.NDArray[np.int32], which: Bools, count: int) -> Ints:
    return np.bincount(ranks[which], minlength=count).astype(np.int64)


def _value(value: np.float64) -> str:
    return "a stale marker" if value.view(np.uint64) == np.uint64(STALE_BITS) else repr(float(value))
