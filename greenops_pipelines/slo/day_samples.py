"""Samples of a day as arrays: a row per series, its samples side by side in the order of time.

Not here: what a counter grew by (`growth.py`), and expressions (`grid.py`).
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.instants import micros
from greenops_pipelines.slo.samples import NAME, Labels, canonical
from greenops_pipelines.slo.series import Batch, Selector

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MINUTES = 1440
MINUTE = 60_000_000
"""Microseconds, as all times here."""
LOOKBACK = 5 * MINUTE
"""How long a sample stands for its series: Prometheus' own default, and the longest stretch without one that is no gap."""

_STRIDE = 1 << 42
"""Microseconds of 50 days: further than any two samples of a count are apart."""


@dataclass(frozen=True)
class Slices:
    """Samples of some series, a row each: row r is `starts[r]` to `starts[r + 1]`, and `time` rises within it.

    A value that is NaN marks that the series has ended there.
    """

    starts: Ints
    time: Ints
    value: Floats

    @property
    def count(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def row(self) -> Ints:
        """The row of each sample. Of all samples of a day it costs more than it is needed for: `row_of` some."""
        return np.repeat(np.arange(self.count), np.diff(self.starts))

    def row_of(self, places: Ints) -> Ints:
        """The rows of some samples."""
        return np.searchsorted(self.starts, places, side="right") - 1

    @cached_property
    def _first(self) -> int:
        return int(self.time.min()) if len(self.time) else 0

    @cached_property
    def _key(self) -> Ints:
        return self.row * _STRIDE + (self.time - self._first)

    def until(self, times: Ints) -> Ints:
        """Position, by series and time asked for, behind the last sample at that time or before; in any row."""
        return self._position(times, "right")

    def since(self, times: Ints) -> Ints:
        """Position of the first sample at that time or later, in the row or behind its end."""
        return self._position(times, "left")

    def _position(self, times: Ints, side: str) -> Ints:
        asked = np.clip(times - self._first, -MINUTE, _STRIDE // 2)
        keys = np.arange(self.count, dtype=np.int64)[:, None] * _STRIDE + asked[None, :]
        return np.searchsorted(self._key, keys.ravel(), side=side).reshape(keys.shape)  # type: ignore[call-overload,no-any-return]

    def without_ends(self) -> Slices:
        """Without the marks."""
        kept = ~np.isnan(self.value)
        if kept.all():
            return self
        return Slices(np.concatenate([[0], np.cumsum(kept)])[self.starts], self.time[kept], self.value[kept])


@dataclass(frozen=True)
class DaySamples:
    """All series, by `labels` with the metric's name among them, and all samples."""

    labels: tuple[Labels, ...]
    all: Slices

    @cached_property
    def real(self) -> Slices:
        """What is no mark of an end."""
        return self.all.without_ends()

    @cached_property
    def texts(self) -> list[dict[str, str]]:
        """The labels by name."""
        return [dict(labels) for labels in self.labels]

    @cached_property
    def _by_metric(self) -> Mapping[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for row, texts in enumerate(self.texts):
            found[texts[NAME]].append(row)
        return found

    def rows(self, selector: Selector) -> Ints:
        """Rows that a selector selects."""
        found = self._by_metric.get(selector.metric, [])
        for matcher in selector.matchers:
            found = [row for row in found if matcher.holds(self.texts[row])]
        return np.array(found, dtype=np.int64)

    def of(self, rows: Ints, *, is_real: bool) -> Slices:
        """The samples of some rows, which become 0, 1, 2, ..."""
        source = self.real if is_real else self.all
        starts, lengths = source.starts[rows], source.starts[rows + 1] - source.starts[rows]
        own = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        places = np.arange(own[-1], dtype=np.int64) + np.repeat(starts - own[:-1], lengths)
        return Slices(own, source.time[places], source.value[places])


def day_start(day: date) -> int:
    """Midnight UTC, microseconds since 1970."""
    return micros(datetime.combine(day, time(), UTC))


def minute_of(times: Ints, start: int) -> Ints:
    """The minute that a sample belongs to, counted from `start`: one at a minute's end is in it, one at its start is not."""
    minutes = times - (start + 1)
    minutes //= MINUTE
    return minutes


def merged(batches: Sequence[Batch], metrics: Iterable[str]) -> DaySamples:
    """The series of the metrics, and their samples, of batches that follow each other in time.

    A sample that is in two of them counts once. Batches that are sorted, as they should be, are not sorted again.
    """
    known = _series(batches, frozenset(metrics))
    ids = np.array(sorted(known), dtype=np.int64)
    labels = tuple(known[each] for each in ids.tolist())
    found = [_runs(batch.samples, ids) for batch in batches]
    counts = [np.bincount(runs.row, runs.length, len(ids)).astype(np.int64) for runs in found]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.sum(counts, axis=0, dtype=np.int64))])
    times, values = np.empty(starts[-1], np.int64), np.empty(starts[-1])
    free = starts[:-1].tolist()
    for runs in found:
        # A copy per run: to sort three million samples costs as much as all the rest of a count.
        for where, start, length in zip(runs.row.tolist(), runs.start.tolist(), runs.length.tolist(), strict=True):
            at = free[where]
            times[at : at + length] = runs.time[start : start + length]
            values[at : at + length] = runs.value[start : start + length]
            free[where] = at + length
    slices = Slices(starts, times, values)
    back = np.flatnonzero(times[1:] <= times[:-1])
    is_sorted = np.all(slices.row_of(back) != slices.row_of(back + 1))
    return DaySamples(labels, slices if is_sorted else _sorted(slices))


def _sorted(slices: Slices) -> Slices:
    """In the order of time, and each time once."""
    order = np.lexsort((slices.time, slices.row))
    row, times, values = slices.row[order], slices.time[order], slices.value[order]
    fresh = np.concatenate([[True], (row[1:] != row[:-1]) | (times[1:] != times[:-1])])
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(row[fresh], minlength=slices.count))])
    return Slices(starts, times[fresh], values[fresh])


def _series(batches: Sequence[Batch], metrics: frozenset[str]) -> dict[int, Labels]:
    known: dict[int, Labels] = {}
    for batch in batches:
        for each, metric, text in zip(
            *(batch.series[name].to_pylist() for name in ("series_id", "metric", "labels")), strict=True
        ):
            if metric in metrics and each not in known:
                known[each] = _labels(metric, text)
    return known


@functools.lru_cache(maxsize=1 << 16)
def _labels(metric: str, text: str) -> Labels:
    # Of days in a row the series are the same: 100 ms a day for 2,000 of them.
    return canonical({**json.loads(text), NAME: metric})


@dataclass(frozen=True)
class _Runs:
    """Stretches of samples of one series: where they are in `time` and `value`, and the series' row."""

    row: Ints
    start: Ints
    length: Ints
    time: Ints
    value: Floats


def _runs(samples: pa.Table, ids: Ints) -> _Runs:
    """Of the series that are among `ids`, which rise. Of sorted samples there is a run per series."""
    series = _numpy(samples["series_id"])
    time: Ints = _numpy(samples["time"].cast(pa.timestamp("us")).cast(pa.int64()))
    value: Floats = _numpy(samples["value"])
    if pc.any(samples["is_stale"]).as_py():
        value = np.where(_numpy(samples["is_stale"]), np.nan, value)
    start = np.flatnonzero(series[1:] != series[:-1]) + 1
    start = np.concatenate([np.zeros(min(len(series), 1), np.int64), start])
    length = np.diff(np.append(start, len(series)))
    row = np.searchsorted(ids, series[start])
    is_known = row < len(ids)
    is_known[is_known] = ids[row[is_known]] == series[start][is_known]
    return _Runs(row[is_known], start[is_known], length[is_known], time, value)


def _numpy(column: pa.ChunkedArray) -> Any:
    return column.combine_chunks().to_numpy(zero_copy_only=False)
