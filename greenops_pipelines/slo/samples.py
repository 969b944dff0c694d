"""Labelled samples in memory: series in the order of time, the store that keeps them, and the vectors a query makes of them.

Not here: what a query does with a vector (`promql_functions.py`, `promql_matching.py`), and where samples come from
(`scraper.py`).
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from greenops_pipelines.errors import BadInput

NAME = "__name__"
_SWEEPS_PER_RETENTION = 4

Labels = tuple[tuple[str, str], ...]
"""Sorted by name, the metric's as `__name__`, none empty."""
Vector = dict[Labels, float]
Value = float | Vector
Points = list[tuple[int, float]]
"""Of one series: milliseconds since 1970, and the value."""
Matcher = tuple[str, Callable[[str], bool]]
"""A label, and what its value has to satisfy; a label that is not there is empty."""


@dataclass
class Series:
    """Samples in the order of time, in milliseconds since 1970; None is the mark that the series has ended there."""

    times: list[int] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)

    def at(self, t: int, lookback: int) -> float | None:
        """The last sample at `t` or before, no older than the look-back; None also where the series has ended."""
        i = bisect_right(self.times, t) - 1
        return self.values[i] if i >= 0 and self.times[i] >= t - lookback else None

    def between(self, first: int, last: int) -> Points:
        """All samples of the range, closed on both sides."""
        i, j = bisect_left(self.times, first), bisect_right(self.times, last)
        return [(t, v) for t, v in zip(self.times[i:j], self.values[i:j], strict=True) if v is not None]

    def forget(self, before: int) -> bool:
        """Whether there was anything before that time."""
        cut = bisect_left(self.times, before)
        del self.times[:cut], self.values[:cut]
        return cut > 0


class Store:
    """Samples of many series, at least those of the latest `retention_seconds`. Safe between threads."""

    def __init__(self, retention_seconds: float = math.inf) -> None:
        self.lock = threading.RLock()
        self._retention_seconds = retention_seconds
        self._by_name: dict[str, dict[Labels, Series]] = {}
        self._next_sweep = -math.inf
        self._horizon = -math.inf

    def append(self, labels: Mapping[str, str], t: float, value: float) -> bool:
        """Adds a sample; `t` in seconds since 1970, kept in milliseconds; the metric's name is the label `__name__`.

        False, and nothing is added, where the series has a sample of that time with another value, or a later one.
        """
        return self._add(canonical(labels), milliseconds(t), float(value))

    def end(self, labels: Mapping[str, str], t: float) -> bool:
        """Marks that the series has ended: from `t` on it is not there, until its next sample. False as in `append`."""
        return self._add(canonical(labels), milliseconds(t), None)

    def select(self, name: str | None, matchers: Sequence[Matcher], since: int) -> Iterator[tuple[Labels, Series]]:
        """The series of a metric, of any without a name, that all matchers agree to. Under `lock`.

        `BadInput` where samples since then, in milliseconds, are wanted, and some are no longer kept.
        """
        if since < self._horizon:
            raise BadInput(
                f"found a range that begins {(self._horizon - since) / 1000:g} s before the oldest sample kept, allowed: "
                f"the last {self._retention_seconds:g} s"
            )
        found = self._by_name.values() if name is None else [self._by_name.get(name, {})]
        for group in found:
            for labels, series in group.items():
                texts = dict(labels)
                if all(agrees(texts.get(label, "")) for label, agrees in matchers):
                    yield labels, series

    def __len__(self) -> int:
        """How many samples it holds, marks of ends among them."""
        with self.lock:
            return sum(len(series.times) for group in self._by_name.values() for series in group.values())

    def _add(self, labels: Labels, t: int, value: float | None) -> bool:
        with self.lock:
            name = dict(labels).get(NAME, "")
            series = self._by_name.setdefault(name, {}).setdefault(labels, Series())
            if series.times and t <= series.times[-1]:
                return t == series.times[-1] and _same(value, series.values[-1])
            series.times.append(t)
            series.values.append(value)
            if t >= self._next_sweep and math.isfinite(self._retention_seconds):
                self._sweep(t)
            return True

    def _sweep(self, t: int) -> None:
        retention = self._retention_seconds * 1000
        between = retention / _SWEEPS_PER_RETENTION
        self._next_sweep = t + between
        # Somewhat more is kept: who asks about a moment just before this sweep still gets the whole retention.
        before = math.floor(t - retention - between)
        for name, group in list(self._by_name.items()):
            for labels, series in list(group.items()):
                if series.forget(before):
                    self._horizon = before
                if not series.times:
                    del group[labels]
            if not group:
                del self._by_name[name]


def canonical(labels: Mapping[str, str]) -> Labels:
    """The labels in their order; an empty one is the same as none."""
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def new_vector(found: Iterable[tuple[Labels, float]]) -> Vector:
    vector: Vector = {}
    for labels, value in found:
        if labels in vector:
            refuse_twin(labels)
        vector[labels] = float(value)
    return vector


def unnamed(labels: Labels) -> Labels:
    return tuple((name, value) for name, value in labels if name != NAME)


def shown(labels: Labels) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels) + "}"


def refuse_twin(labels: Labels) -> NoReturn:
    raise BadInput(f"found two series {shown(labels)} in one result, allowed: one")


def milliseconds(seconds: float) -> int:
    if not math.isfinite(seconds):
        raise BadInput(f"time: found {seconds}, allowed: a finite number of seconds")
    return round(seconds * 1000)


def _same(value: float | None, other: float | None) -> bool:
    if value is None or other is None:
        return value is other
    return value == other or (math.isnan(value) and math.isnan(other))
