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

MOST_SAMPLES = 20_000_000
"""Of a day, which is put together in memory: 173 bytes a sample at the peak of an ingest, so 3.5 GB; 2,000 series a minute are
2.9 million. More is a label that should not be one, and would end in a process killed without a word."""
STALE_BITS = 0x7FF0000000000002
"""Prometheus' `value.StaleNaN`: the series had ended by then. Every other NaN is a value that somebody exposed."""
_NOBODY = -1
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
    """Collects the parts of one day. A part holds samples of `first_ms` to `last_ms`; what lies outside is left out.

    `most_samples` bounds what is held of it.
    """

    def __init__(
        self, source: str, day: date, first_ms: int, last_ms: int, *, most_samples: int = MOST_SAMPLES
    ) -> None:
        self._source = source
        self._day = day
        self._first_ms = first_ms
        self._last_ms = last_ms
        self._most_samples = most_samples
        self._codes: dict[tuple[str, str], int] = {}
        self._owners: list[int] = []
        self._givers: list[set[Selector]] = []
        self._ids: list[int] = []
        self._parts: list[tuple[Selector, npt.NDArray[np.int32], Ints, Floats]] = []
        self._held: dict[Selector, int] = {}
        self._left_out: dict[Selector, str] = {}

    def add(self, number: int, selector: Selector, answer: Answer) -> None:
        """What the selector of that number gave. A series that one before it gave already is left out: it is the same.

        Raises `ProviderError` for a series of another metric than was asked for, and `BadInput`, before anything of the answer is
        kept, where the day would become too large.
        """
        codes = [self._code(number, selector, labels) for labels in answer.labels]
        of_sample = np.repeat(np.array(codes, np.int32), answer.counts)
        keep = (of_sample >= 0) & (answer.times_ms >= self._first_ms) & (answer.times_ms <= self._last_ms)
        more = int(np.count_nonzero(keep))
        self._check_size(selector, more)
        self._held[selector] = self._held.get(selector, 0) + more
        if more == len(keep):
            self._parts.append((selector, of_sample, answer.times_ms, answer.values))
        elif more:
            self._parts.append((selector, of_sample[keep], answer.times_ms[keep], answer.values[keep]))

    def leave_out(self, number: int, selector: Selector, reason: str) -> None:
        """Drops what the selector of that number gave, which was the last to give. A later one may give its series again."""
        self._left_out[selector] = _named(selector, reason)
        self._parts = [part for part in self._parts if part[0] != selector]
        self._held.pop(selector, None)
        self._owners = [_NOBODY if owner == number else owner for owner in self._owners]

    @property
    def left_out(self) -> Mapping[Selector, str]:
        return self._left_out

    def _check_size(self, selector: Selector, more: int) -> None:
        held = sum(self._held.values())
        if held + more <= self._most_samples:
            return
        own = self._held.get(selector, 0) + more
        largest = max(self._held, key=lambda each: self._held[each], default=selector)
        others = "" if self._held.get(largest, 0) <= own else f"; most are of {largest}: {self._held[largest]:,}"
        raise BadInput(
            f"{selector}: found {own:,} samples so far and {held + more:,} of all selectors on {self._day}, allowed: "
            f"{self._most_samples:,} a day{others}; add matchers to the query, or drop a label that has too many values"
        )

    def _code(self, number: int, selector: Selector, labels: Mapping[str, str]) -> int:
        metric = labels.get("__name__", "")
        if metric != selector.metric:
            raise ProviderError(f"{selector}: asked for this metric, found {one_line(metric, 100)!r}")
        code = self._codes.setdefault((metric, label_text(labels)), len(self._owners))
        if code == len(self._owners):
            self._owners.append(number)
            self._givers.append(set())
            self._ids.append(series_id(metric, labels))
        elif self._owners[code] == _NOBODY:
            self._owners[code] = number
        self._givers[code].add(selector)
        return code if self._owners[code] == number else -1

    def batch(self) -> Batch:
        """All of it.

        A sample that is there twice, with one time and one value, is kept once. Of one time with two values nobody can say which of
        them it was: the selectors that gave such a series are left out, with all that no other one gave.
        """
        names = list(self._codes)
        ids = np.array(self._ids, np.int64)
        order = np.argsort(ids, kind="stable")
        rank = np.empty(len(ids), np.int32)
        rank[order] = np.arange(len(ids), dtype=np.int32)
        codes, times, values = (
            np.concatenate([part[place] for part in self._parts] or [np.empty(0, kind)])
            for place, kind in enumerate((np.int32, np.int64, np.float64), start=1)
        )
        self._parts.clear()
        ranks, times, values = _sorted(rank[codes], times, values)
        names = [names[place] for place in order]
        repeated, conflicts = _repeated(ranks, times, values)
        if len(conflicts):
            gone = self._conflicting(names, order, conflicts, ranks, times, values)[ranks]
            ranks, times, values, repeated = ranks[~gone], times[~gone], values[~gone], repeated[~gone]
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
        return Batch(series, self._samples(ids[order][ranks], times, values, stale), dict(self._left_out))

    def _conflicting(
        self,
        names: list[tuple[str, str]],
        order: npt.NDArray[np.int64],
        conflicts: Ints,
        ranks: npt.NDArray[np.int32],
        times: Ints,
        values: Floats,
    ) -> Bools:
        """Which series go, as what gave them is left out; `conflicts` are rows that contradict the row before them."""
        givers = [self._givers[code] for code in order]
        for row in conflicts[np.unique(ranks[conflicts], return_index=True)[1]]:
            metric, labels = names[ranks[row]]
            at = (_EPOCH + int(times[row]) * _MS).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            found = " and ".join(_value(values[place]) for place in (row - 1, row))
            reason = (
                f"{one_line(metric + labels, 500)} at {at}: found two values, {found}, allowed: one; two sources "
                "write one series: give each a label of its own"
            )
            for selector in givers[ranks[row]]:
                self._left_out.setdefault(selector, _named(selector, reason))
        return np.array([each <= self._left_out.keys() for each in givers], bool)

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


def _named(selector: Selector, reason: str) -> str:
    return reason if reason.startswith(f"{selector}:") else f"{selector}: {reason}"


def _repeated(ranks: npt.NDArray[np.int32], times: Ints, values: Floats) -> tuple[Bools, Ints]:
    """Which rows say what the row before them says already; and those that say another value for the same time."""
    repeated = np.zeros(len(times), bool)
    again = np.flatnonzero((ranks[1:] == ranks[:-1]) & (times[1:] == times[:-1])) + 1
    one, other = values[again - 1], values[again]
    bits = np.uint64(STALE_BITS)
    marks = (one.view(np.uint64) == bits, other.view(np.uint64) == bits)
    equal = (one == other) | (np.isnan(one) & np.isnan(other) & (marks[0] == marks[1]))
    repeated[again] = equal
    return repeated, again[~equal]


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
