"""Expressions of `count_nodes.py` over a day: a grid of series and minutes, NaN where a series has no value.

An expression inside a subquery has in each minute the value that Prometheus 2.42 gives at the minute's end, with two
differences: 0/0 is no value, where Prometheus has NaN; and series that cannot be matched (422 there) make the minute
unknown. Growth of counters is what `growth.py` says. Not here: what the figures of a minute mean (`day_counts.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

import numpy as np

from greenops_pipelines.slo.count_nodes import (
    Aggregate,
    Binary,
    Constant,
    Growth,
    Instant,
    Node,
    Number,
    Present,
    Rate,
    Sampled,
)
from greenops_pipelines.slo.day_samples import LOOKBACK, MINUTE, MINUTES, Bools, DaySamples, Floats, Ints, Slices
from greenops_pipelines.slo.growth import Growth as Grown
from greenops_pipelines.slo.growth import growth
from greenops_pipelines.slo.promql_functions import AGGREGATIONS
from greenops_pipelines.slo.promql_matching import COMPARISONS, key_of
from greenops_pipelines.slo.samples import Labels, unnamed
from greenops_pipelines.slo.series import Selector

_THRESHOLD = 1.1
"""As in `promql_functions.py`: up to this many average gaps, a series is taken to go on to the edge of the range."""

_ARITHMETIC: dict[str, np.ufunc] = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
_COMPARED: dict[str, np.ufunc] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
}
_REDUCED: dict[str, tuple[np.ufunc, float]] = {
    "sum": (np.add, 0.0),
    "avg": (np.add, 0.0),
    "min": (np.minimum, np.inf),
    "max": (np.maximum, -np.inf),
}


@dataclass(frozen=True)
class Vector:
    """Series by their labels, and their values: a row each, a column per minute of the day."""

    labels: tuple[Labels, ...]
    values: Floats


class Grid:
    """The samples of a day, ready to evaluate expressions; `start` is its first moment, in microseconds since 1970."""

    def __init__(self, samples: DaySamples, start: int) -> None:
        self.samples = samples
        self.start = start
        self._leaves: dict[object, Vector] = {}
        self._rows: dict[Selector, Ints] = {}
        self._is_unplaced = False
        self._conflicts = np.zeros(MINUTES, bool)

    @cached_property
    def grown(self) -> Grown:
        """Growth of all series."""
        return growth(self.samples, self.start)

    @cached_property
    def _ends(self) -> Ints:
        return self.start + MINUTE * np.arange(1, MINUTES + 1, dtype=np.int64)

    def rows(self, selectors: Iterable[Selector]) -> Ints:
        """Series that any of the selectors selects."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *(self._selected(each) for each in selectors)]))

    def newest(self, selectors: Iterable[Selector]) -> int | None:
        """When any of their series was sampled last, microseconds since 1970; None: none of them has a sample."""
        starts, rows = self.samples.real.starts, self.rows(selectors)
        rows = rows[starts[rows] < starts[rows + 1]]
        return int(self.samples.real.time[starts[rows + 1] - 1].max()) if len(rows) else None

    def without(self, dropped: Mapping[int, Bools]) -> Grid:
        """The same samples, as if counters of some rows were not alive in some minutes."""
        found = Grid(self.samples, self.start)
        found._rows = self._rows
        placed = self.grown.placed.copy()
        for row, minutes in dropped.items():
            placed[row, minutes] = np.nan
        found.grown = replace(self.grown, placed=placed)
        return found

    def placed(self, node: Node) -> tuple[Floats, Bools]:
        """By minute the sum over the expression's series, NaN without any; and the minutes in which they do not match."""
        return self._summed(node, is_unplaced=False)

    def unplaced(self, node: Node) -> Floats:
        """The same of what counters grew by, nobody knows when."""
        return self._summed(node, is_unplaced=True)[0]

    def vector(self, node: Node) -> Vector:
        """The expression's series. Of a number: one without labels."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self._vector(node)

    def _summed(self, node: Node, *, is_unplaced: bool) -> tuple[Floats, Bools]:
        self._is_unplaced = is_unplaced
        self._conflicts = np.zeros(MINUTES, bool)
        values = self.vector(node).values
        return _reduced("sum", values, np.zeros(len(values), np.int64), 1)[0], self._conflicts

    def _vector(self, node: Node) -> Vector:
        found = self._of(node)
        if isinstance(found, float):
            return Vector(((),), np.full((1, MINUTES), found))
        return found

    def _selected(self, selector: Selector) -> Ints:
        if selector not in self._rows:
            self._rows[selector] = self.samples.rows(selector)
        return self._rows[selector]

    def _of(self, node: Node) -> Vector | float:
        match node:
            case Number(value):
                return value
            case Constant(value):
                return Vector(((),), np.full((1, MINUTES), value))
            case Growth(selector):
                return self._leaf((node, self._is_unplaced), selector, self._growth, is_named=False)
            case Instant(selector):
                return self._leaf(node, selector, lambda rows: self._instants(self.samples.of(rows, is_real=False)))
            case Rate(selector, span, is_per_second):
                return self._leaf(
                    node,
                    selector,
                    lambda rows: self._rates(self.samples.of(rows, is_real=True), span, is_per_second=is_per_second),
                    is_named=False,
                )
            case Sampled(inner):
                found = self._vector(inner)
                values = found.values * 0.0 if self._is_unplaced else found.values
                return self._united([(unnamed(each), row) for each, row in zip(found.labels, values, strict=True)])
            case Present(inner):
                found = self._vector(inner)
                return Vector(found.labels, np.where(np.isnan(found.values), np.nan, 1.0))
            case Aggregate():
                return self._aggregate(node)
            case Binary(op="or"):
                return self._or(node)
            case Binary():
                return self._binary(node)

    def _leaf(
        self, key: object, selector: Selector, values: Callable[[Ints], Floats], *, is_named: bool = True
    ) -> Vector:
        if key not in self._leaves:
            rows = self._selected(selector)
            labels = [self.samples.labels[row] for row in rows.tolist()]
            self._leaves[key] = Vector(tuple(labels if is_named else map(unnamed, labels)), values(rows))
        return self._leaves[key]

    def _growth(self, rows: Ints) -> Floats:
        placed = self.grown.placed[rows]
        if not self._is_unplaced:
            return placed
        return placed * 0.0 if self.grown.unplaced is None else placed * 0.0 + self.grown.unplaced[rows]

    def _instants(self, theirs: Slices) -> Floats:
        last = theirs.until(self._ends) - 1
        row = np.arange(theirs.count)[:, None]
        if not len(theirs.time):
            return np.full(last.shape, np.nan)
        is_there = (last >= 0) & (theirs.row[last] == row) & (theirs.time[last] >= self._ends - LOOKBACK)
        return np.where(is_there, theirs.value[last], np.nan)

    def _rates(self, theirs: Slices, span: timedelta, *, is_per_second: bool) -> Floats:
        """Prometheus 2.42's extrapolation, promql/functions.go; both edges of the range belong to it."""
        length = span // timedelta(microseconds=1)
        first, last = theirs.since(self._ends - length), theirs.until(self._ends) - 1
        found = np.full(first.shape, np.nan)
        has_two = last > first
        if not has_two.any():
            return found
        first, last = first[has_two], last[has_two]
        end = np.broadcast_to(self._ends, has_two.shape)[has_two]
        lost = np.zeros_like(theirs.value)
        lost[1:] = np.where((theirs.row[1:] == theirs.row[:-1]) & (np.diff(theirs.value) < 0), theirs.value[:-1], 0.0)
        resets = np.cumsum(lost)
        change = theirs.value[last] - theirs.value[first] + (resets[last] - resets[first])
        to_start = (theirs.time[first] - (end - length)) / 1e6
        to_end = (end - theirs.time[last]) / 1e6
        sampled = (theirs.time[last] - theirs.time[first]) / 1e6
        gap = sampled / (last - first)
        # A counter was zero at some time, and is not extrapolated to before that.
        to_zero = np.where((change > 0) & (theirs.value[first] >= 0), sampled * (theirs.value[first] / change), np.inf)
        to_start = np.minimum(to_start, to_zero)
        covered = sampled + sum(np.where(each < gap * _THRESHOLD, each, gap / 2) for each in (to_start, to_end))
        factor = covered / sampled
        found[has_two] = change * (factor / (length / 1e6) if is_per_second else factor)
        return found

    def _aggregate(self, node: Aggregate) -> Vector:
        inner = self._vector(node.inner)
        group = key_of(not node.is_without, node.names)
        places: dict[Labels, int] = {}
        groups = np.array([places.setdefault(group(each), len(places)) for each in inner.labels], dtype=np.int64)
        return Vector(tuple(places), _reduced(node.op, inner.values, groups, len(places)))

    def _or(self, node: Binary) -> Vector:
        left, right = self._vector(node.left), self._vector(node.right)
        key = key_of(node.matching.is_on, node.matching.names)
        taken: dict[Labels, Bools] = {}
        for labels, row in zip(left.labels, left.values, strict=True):
            known = ~np.isnan(row)
            taken[key(labels)] = taken[key(labels)] | known if key(labels) in taken else known
        rest = [
            (labels, np.where(taken[key(labels)], np.nan, row) if key(labels) in taken else row)
            for labels, row in zip(right.labels, right.values, strict=True)
        ]
        return self._united([*zip(left.labels, left.values, strict=True), *rest])

    def _binary(self, node: Binary) -> Vector:
        left, right = self._of(node.left), self._of(node.right)
        is_filter = node.op in COMPARISONS and not node.is_bool
        if isinstance(left, float) or isinstance(right, float):
            vector = right if isinstance(left, float) else left
            assert isinstance(vector, Vector)  # noqa: S101 - numbers were folded when the query was compiled
            sides = (
                left if isinstance(left, float) else left.values,
                right if isinstance(right, float) else right.values,
            )
            values = _applied(node.op, *sides, vector.values, is_filter=is_filter)
            labels = vector.labels if is_filter else tuple(map(unnamed, vector.labels))
            return self._united(list(zip(labels, values, strict=True)))
        key = key_of(node.matching.is_on, node.matching.names)
        # Where one side is empty, Prometheus does not look at the other.
        is_asked: Bools = np.logical_not(np.isnan(left.values).all(axis=0))
        keyed = [(key(labels), row) for labels, row in zip(right.labels, right.values, strict=True)]
        theirs = self._united(keyed, is_asked)
        partner = {labels: place for place, labels in enumerate(theirs.labels)}
        own = [place for place, labels in enumerate(left.labels) if key(labels) in partner]
        others = [partner[key(left.labels[place])] for place in own]
        values = left.values[own]
        values = _applied(node.op, values, theirs.values[others], values, is_filter=is_filter)
        names, is_on = node.matching.names, node.matching.is_on
        labels = tuple(
            tuple(pair for pair in (each if is_filter else unnamed(each)) if (pair[0] in names) == is_on)
            for each in (left.labels[place] for place in own)
        )
        return self._united(list(zip(labels, values, strict=True)))

    def _united(self, found: list[tuple[Labels, Floats]], is_asked: Bools | bool = True) -> Vector:
        """One row per labels: series of the same labels may follow each other. Two at once, where asked, are a conflict."""
        rows: dict[Labels, Floats] = {}
        for labels, row in found:
            if labels in rows:
                there = rows[labels]
                self._conflicts |= ~np.isnan(there) & ~np.isnan(row) & is_asked
                rows[labels] = np.where(np.isnan(there), row, there)
            else:
                rows[labels] = row
        return Vector(tuple(rows), np.array(list(rows.values())).reshape(len(rows), MINUTES))


def _applied(op: str, left: Floats | float, right: Floats | float, kept: Floats, *, is_filter: bool) -> Floats:
    if op in _ARITHMETIC:
        values: Floats = _ARITHMETIC[op](left, right)
        return values
    is_known = ~(np.isnan(left) | np.isnan(right))
    holds = _COMPARED[op](left, right) & is_known
    if is_filter:
        return np.where(holds, kept, np.nan)
    return np.where(is_known, holds.astype(np.float64), np.nan)


def _reduced(op: str, values: Floats, groups: Ints, count: int) -> Floats:
    """Rows of one group into one; NaN where none of them has a value."""
    if op not in AGGREGATIONS or not len(values):
        return np.full((count, MINUTES), np.nan)
    if count == 1 and op == "sum":
        return _added(values)
    order = np.argsort(groups, kind="stable")
    if np.any(order[1:] < order[:-1]):
        values, groups = values[order], groups[order]
    starts = np.searchsorted(groups, np.arange(count))
    is_known = ~np.isnan(values)
    known = np.add.reduceat(is_known, starts, axis=0, dtype=np.int64)
    if op == "count":
        found = known.astype(np.float64)
    else:
        reduce, nothing = _REDUCED[op]
        found = reduce.reduceat(np.where(is_known, values, nothing), starts, axis=0)
        if op == "avg":
            found = found / known
    return np.where(known > 0, found, np.nan)


def _added(values: Floats) -> Floats:
    """All rows into one, as `_reduced` would, in a third of the time: most SLOs add up one metric."""
    is_absent = np.isnan(values)
    found: Floats = np.sum(np.where(is_absent, 0.0, values) if is_absent.any() else values, axis=0, keepdims=True)
    found[:, is_absent.all(axis=0)] = np.nan
    return found
