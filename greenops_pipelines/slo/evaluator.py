"""The PromQL of canary gates over samples in memory, with the figures that Prometheus 2.42 gives.

Followed is its behaviour (its documentation, and promql/{engine,functions,quantile}.go, Apache-2.0): ranges closed on both
sides, look-back, staleness, extrapolation, the repair of histograms. What is outside the subset is refused when a query is
compiled, never approximated. Not here: where samples come from (`scraper.py`), and the syntax (`promql.py`).
"""

from __future__ import annotations

import functools
import math
import operator
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any, NoReturn, cast

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import promql
from greenops_pipelines.slo.prometheus import Answer

LOOKBACK_SECONDS = 300.0
MAX_STEPS = 11_000
"""Answers that one range query may ask for, as in Prometheus."""

_NAME, _LE = "__name__", "le"
_SWEEPS_PER_RETENTION = 4
_THRESHOLD = 1.1
"""Up to this many average gaps, the series is taken to go on to the edge of the range."""

Labels = tuple[tuple[str, str], ...]
"""Sorted by name, the metric's as `__name__`, none empty."""
Vector = dict[Labels, float]
Value = float | Vector


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


Points = list[tuple[int, float]]


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
        return self._add(canonical(labels), _milliseconds(t), float(value))

    def end(self, labels: Mapping[str, str], t: float) -> bool:
        """Marks that the series has ended: from `t` on it is not there, until its next sample. False as in `append`."""
        return self._add(canonical(labels), _milliseconds(t), None)

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
            name = dict(labels).get(_NAME, "")
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


Matcher = tuple[str, Callable[[str], bool]]
"""A label, and what its value has to satisfy; a label that is not there is empty."""


@dataclass(frozen=True)
class _Moment:
    """When and over what a part of a query is evaluated."""

    store: Store
    t: int
    lookback: int


_Node = Callable[[_Moment], Value]


@dataclass(frozen=True)
class _Range:
    """A range vector: its samples at a moment, and the edges that a rate extrapolates to."""

    length: int
    offset: int
    series: Callable[[_Moment, int, int], Iterable[tuple[Labels, Points]]]

    def at(self, moment: _Moment) -> Iterator[tuple[Labels, Points, _Window]]:
        last = moment.t - self.offset
        window = _Window(last - self.length, last)
        for labels, points in self.series(moment, window.first, window.last):
            if points:
                yield labels, points, window


@dataclass(frozen=True)
class _Window:
    """The edges of a range, milliseconds since 1970."""

    first: int
    last: int


@dataclass(frozen=True)
class Query:
    """A compiled query. Its methods raise `BadInput` where Prometheus answers 422: series that cannot be matched."""

    text: str
    _root: _Node | _Range

    def at(self, store: Store, t: float, lookback_seconds: float = LOOKBACK_SECONDS) -> Answer:
        """The answer at `t`, seconds since 1970; series are sorted by their labels."""
        moment = _Moment(store, _milliseconds(t), _milliseconds(lookback_seconds))
        with self._evaluating(store):
            if isinstance(self._root, _Range):
                return _matrix((labels, points) for labels, points, _ in self._root.at(moment))
            value = self._root(moment)
        if isinstance(value, float):
            return Answer("scalar", (({}, float(value)),))
        return Answer("vector", tuple((dict(labels), float(value[labels])) for labels in sorted(value)))

    def between(
        self, store: Store, start: float, end: float, step: float, lookback_seconds: float = LOOKBACK_SECONDS
    ) -> Answer:
        """A matrix of the answers at `start`, `start + step`, ... up to `end`, in seconds; at most 11,000 of them."""
        if isinstance(self._root, _Range):
            raise BadInput(f"query {self.text}: found a range vector, allowed over time: an instant vector or a scalar")
        first, last, stride = _milliseconds(start), _milliseconds(end), _milliseconds(step)
        if stride <= 0 or last < first or (last - first) // stride >= MAX_STEPS:
            raise BadInput(
                f"query {self.text}: found {start:.3f} to {end:.3f} by {step:.3f} s, allowed: a step above zero, an end "
                f"not before the start, and {MAX_STEPS:,} answers at most"
            )
        moments = (_Moment(store, t, _milliseconds(lookback_seconds)) for t in range(first, last + 1, stride))
        with self._evaluating(store):
            return _matrix(_over(self._root, moments))

    @contextmanager
    def _evaluating(self, store: Store) -> Iterator[None]:
        try:
            with store.lock:
                yield
        except BadInput as error:
            raise BadInput(f"query {self.text}: {error}") from None


@functools.lru_cache(maxsize=256)
def compile(query: str) -> Query:  # noqa: A001 - as re.compile
    """The query, ready to be evaluated.

    Raises `BadInput` for what is no PromQL, for variables that are not filled in, and for anything outside the subset, by
    its name.
    """
    if promql.filled(query) != query:
        raise BadInput(f"query {query}: found a variable, allowed: a query with its arguments filled in")
    tree = promql.parse(query)
    try:
        kind = type(tree).__name__
        return Query(query, _range(tree) if kind in ("MatrixSelector", "SubqueryExpr") else _node(tree))
    except BadInput as error:
        raise BadInput(f"query {query}: {error}") from None
    except RecursionError:
        raise BadInput(f"query {query[:200]}...: found it nested too deeply, allowed: a few hundred levels") from None


def canonical(labels: Mapping[str, str]) -> Labels:
    """The labels in their order; an empty one is the same as none."""
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def _node(tree: Any) -> _Node:
    """What evaluates a scalar or an instant vector."""
    kind = type(tree).__name__
    match kind:
        case "NumberLiteral":
            number = float(tree.val)
            return lambda _: number
        case "ParenExpr":
            return _node(tree.expr)
        case "UnaryExpr":
            return _negated(_node(tree.expr))
        case "VectorSelector":
            return _instant(tree)
        case "Call":
            return _call(tree)
        case "AggregateExpr":
            return _aggregate(tree)
        case "BinaryExpr":
            return _binary(tree)
    raise _refused({"StringLiteral": "a text", "MatrixSelector": "a range", "SubqueryExpr": "a range"}.get(kind, kind))


def _negated(inner: _Node) -> _Node:
    def at(moment: _Moment) -> Value:
        value = inner(moment)
        return -value if isinstance(value, float) else _vector((_unnamed(each), -v) for each, v in value.items())

    return at


def _instant(tree: Any) -> _Node:
    name, matchers, offset = _selector(tree)

    def at(moment: _Moment) -> Value:
        found = {}
        t = moment.t - offset
        for labels, series in moment.store.select(name, matchers, t - moment.lookback):
            value = series.at(t, moment.lookback)
            if value is not None:
                found[labels] = value
        return found

    return at


def _range(tree: Any) -> _Range:
    match type(tree).__name__:
        case "ParenExpr":
            return _range(tree.expr)
        case "MatrixSelector":
            name, matchers, offset = _selector(tree.vector_selector)

            def series(moment: _Moment, first: int, last: int) -> Iterable[tuple[Labels, Points]]:
                for labels, each in moment.store.select(name, matchers, first):
                    yield labels, each.between(first, last)

            return _Range(_span(tree.range), offset, series)
        case "SubqueryExpr":
            return _subquery(tree)
    raise _refused(type(tree).__name__)


def _subquery(tree: Any) -> _Range:
    if tree.at is not None:
        raise _refused("@")
    if tree.step is None:
        # Prometheus takes its own evaluation interval, which a query cannot know.
        raise _refused("a subquery without a step")
    inner, step = _node(tree.expr), _span(tree.step)
    if _span(tree.range) // step > MAX_STEPS:
        raise _refused(f"a subquery of more than {MAX_STEPS:,} steps")

    def series(moment: _Moment, first: int, last: int) -> Iterable[tuple[Labels, Points]]:
        aligned = range(-(-first // step) * step, last + 1, step)
        return _over(inner, (_Moment(moment.store, t, moment.lookback) for t in aligned))

    return _Range(_span(tree.range), _span(tree.offset), series)


def _selector(tree: Any) -> tuple[str | None, list[Matcher], int]:
    if tree.at is not None:
        raise _refused("@")
    if tree.matchers.or_matchers:
        raise _refused("`or` between labels")
    matchers = [(each.name, _agrees(str(each.op).rpartition(".")[2], each.value)) for each in tree.matchers.matchers]
    return promql.metric_of(tree), matchers, _span(tree.offset)


def _agrees(op: str, text: str) -> Callable[[str], bool]:
    match op:
        case "Equal":
            return lambda value: value == text
        case "NotEqual":
            return lambda value: value != text
    # What Go's and Python's expressions both accept and read differently; the rest one of the two refuses.
    if re.search(r"(?<!\\)[*+?}]\+|\[\[|\{,|\\Z|\(\?(?!:)", text):
        raise _refused(f"the expression {text!r}")
    try:
        pattern = re.compile(text, re.ASCII)
    except re.error:
        raise _refused(f"the expression {text!r}") from None
    if op == "NotRe":
        return lambda value: pattern.fullmatch(value) is None
    return lambda value: pattern.fullmatch(value) is not None


def _call(tree: Any) -> _Node:
    name, args = tree.func.name, tree.args
    if name in _OVER_RANGES:
        return _over_range(_range(args[0]), _OVER_RANGES[name])
    match name, args:
        case "time", []:
            return lambda moment: moment.t / 1000
        case "vector", [number]:
            scalar = _node(number)
            return lambda moment: {(): _number(scalar(moment))}
        case "scalar", [vector]:
            inner = _node(vector)
            return lambda moment: _only(_series(inner(moment)))
        case (("abs" | "ceil" | "floor"), [vector]):
            each = _ELEMENTWISE[name]
            return _mapped(_node(vector), lambda value, _: each(value), lambda _: 0.0)
        case (("clamp_min" | "clamp_max"), [vector, limit]):
            bound = _node(limit)
            clamp = _larger if name == "clamp_min" else _smaller
            return _mapped(_node(vector), clamp, lambda moment: _number(bound(moment)))
        case "histogram_quantile", [number, vector]:
            q, buckets = _node(number), _node(vector)
            return lambda moment: _quantiles(_number(q(moment)), _series(buckets(moment)))
    raise _refused(f"{name}()")


def _mapped(inner: _Node, each: Callable[[float, float], float], parameter: Callable[[_Moment], float]) -> _Node:
    def at(moment: _Moment) -> Value:
        second = parameter(moment)
        return _vector((_unnamed(labels), each(v, second)) for labels, v in _series(inner(moment)).items())

    return at


def _over_range(range_: _Range, each: Callable[[Points, _Window], float | None]) -> _Node:
    def at(moment: _Moment) -> Value:
        found = ((_unnamed(labels), each(points, window)) for labels, points, window in range_.at(moment))
        return _vector((labels, value) for labels, value in found if value is not None)

    return at


def _extrapolated(points: Points, window: _Window, *, is_counter: bool, is_rate: bool) -> float | None:
    """The change over the whole range, per second for a rate; None below two samples."""
    if len(points) < 2:
        return None
    (first_t, first), (last_t, last) = points[0], points[-1]
    change = last - first
    for (_, before), (_, after) in pairwise(points):
        if is_counter and after < before:
            change += before
    to_start, to_end = (first_t - window.first) / 1000, (window.last - last_t) / 1000
    sampled = (last_t - first_t) / 1000
    gap = sampled / (len(points) - 1)
    if is_counter and change > 0 and first >= 0:
        # A counter was zero at some time, and is not extrapolated to before that.
        to_start = min(to_start, sampled * (first / change))
    covered = sampled
    for distance in (to_start, to_end):
        covered += distance if distance < gap * _THRESHOLD else gap / 2
    factor = covered / sampled
    return change * (factor / ((window.last - window.first) / 1000) if is_rate else factor)


def _instant_rate(points: Points, _: _Window) -> float | None:
    if len(points) < 2:
        return None
    (before_t, before), (t, value) = points[-2:]
    return (value if value < before else value - before) / ((t - before_t) / 1000)


def _added(total: float, lost: float, increment: float) -> tuple[float, float]:
    """The new sum, and the digits that it has lost so far (Neumaier)."""
    new = total + increment
    return new, lost + ((total - new) + increment if abs(total) >= abs(increment) else (increment - new) + total)


def _summed(points: Points) -> float:
    total = lost = 0.0
    for _, value in points:
        total, lost = _added(total, lost, value)
    return total if math.isinf(total) else total + lost


def _averaged(points: Points) -> float:
    mean = lost = 0.0
    for count, (_, value) in enumerate(points, 1):
        if not _stays(mean, value):
            mean, lost = _added(mean, lost, value / count - mean / count)
    return mean if math.isinf(mean) else mean + lost


def _mean(values: Iterable[float]) -> float:
    mean = 0.0
    for count, value in enumerate(values, 1):
        if not _stays(mean, value):
            mean += value / count - mean / count
    return mean


def _stays(mean: float, value: float) -> bool:
    """An infinite mean is left only for NaN, or for the other infinity."""
    return math.isinf(mean) and (math.isfinite(value) or mean == value)


def _extreme(better: Callable[[float, float], bool]) -> Callable[[Iterable[float]], float]:
    """The largest or the smallest; NaN only where there is nothing else."""

    def of(values: Iterable[float]) -> float:
        found = math.nan
        for value in values:
            if better(value, found) or math.isnan(found):
                found = value
        return found

    return of


_largest, _smallest = _extreme(operator.gt), _extreme(operator.lt)

_OVER_RANGES: dict[str, Callable[[Points, _Window], float | None]] = {
    "rate": functools.partial(_extrapolated, is_counter=True, is_rate=True),
    "increase": functools.partial(_extrapolated, is_counter=True, is_rate=False),
    "delta": functools.partial(_extrapolated, is_counter=False, is_rate=False),
    "irate": _instant_rate,
    "avg_over_time": lambda points, _: _averaged(points),
    "sum_over_time": lambda points, _: _summed(points),
    "max_over_time": lambda points, _: _largest(v for _t, v in points),
    "min_over_time": lambda points, _: _smallest(v for _t, v in points),
    "count_over_time": lambda points, _: float(len(points)),
}


def _only(vector: Vector) -> float:
    """The value of the one series; NaN for none and for several."""
    return next(iter(vector.values())) if len(vector) == 1 else math.nan


def _larger(value: float, limit: float) -> float:
    if math.inf in (value, limit):
        return math.inf
    return math.nan if math.isnan(value) or math.isnan(limit) else max(value, limit)


def _smaller(value: float, limit: float) -> float:
    return -_larger(-value, -limit)


def _whole(towards: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: math.copysign(towards(value), value) if math.isfinite(value) else value


_ELEMENTWISE: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": _whole(math.ceil),
    "floor": _whole(math.floor),
}


def _quantiles(q: float, vector: Vector) -> Vector:
    """By histogram: the labels without `le`. Series whose `le` is no number are none of a histogram's."""
    histograms: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in vector.items():
        bound = _bound(dict(labels).get(_LE, ""))
        if bound is not None:
            rest = tuple((name, value) for name, value in labels if name != _LE)
            histograms.setdefault(rest, []).append((bound, count))
    return _vector((_unnamed(labels), quantile(q, buckets)) for labels, buckets in histograms.items())


def _bound(text: str) -> float | None:
    # Python takes blanks and underscores for part of a number.
    if not re.fullmatch(r"[-+]?([0-9.]+([eE][-+]?[0-9]+)?|inf(inity)?)", text, re.IGNORECASE | re.ASCII):
        return None
    try:
        return float(text)
    except ValueError:
        return None


def quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float:
    """The `q`-quantile of a histogram of (upper bound, cumulative count), linear within a bucket, as of Prometheus 2.42.

    NaN without the bucket +Inf, without another one, and without observations; below the first bound, 0 is the lower edge
    unless the bound is negative; above the last finite one, that bound. A count that falls is lifted to the one before it.
    """
    if math.isnan(q):
        return math.nan
    if not 0 <= q <= 1:
        return math.copysign(math.inf, q)
    merged: dict[float, float] = {}
    for bound, count in sorted(buckets, key=operator.itemgetter(0)):
        merged[bound] = merged[bound] + count if bound in merged else count
    bounds, counts = list(merged), list(merged.values())
    if len(bounds) < 2 or bounds[-1] != math.inf:
        return math.nan
    for i in range(1, len(counts)):
        if counts[i] < counts[i - 1]:
            counts[i] = counts[i - 1]
    if counts[-1] == 0:
        return math.nan
    rank = q * counts[-1]
    # A search that asks in Go's order: counts may be NaN, and then the order decides.
    i, end = 0, len(counts) - 1
    while i < end:
        middle = (i + end) // 2
        i, end = (i, middle) if counts[middle] >= rank else (middle + 1, end)
    if i == len(counts) - 1:
        return bounds[-2]
    if i == 0 and bounds[0] <= 0:
        return bounds[0]
    start, below = (bounds[i - 1], counts[i - 1]) if i else (0.0, 0.0)
    return start + (bounds[i] - start) * _quotient(rank - below, counts[i] - below)


_AGGREGATIONS: dict[str, Callable[[Iterable[float]], float]] = {
    "sum": lambda values: functools.reduce(operator.add, values),
    "max": _largest,
    "min": _smallest,
    "avg": _mean,
    "count": lambda values: float(sum(1 for _ in values)),
}


def _aggregate(tree: Any) -> _Node:
    op = str(tree.op)
    if op not in _AGGREGATIONS:
        raise _refused(f"{op}()")
    each, inner, modifier = _AGGREGATIONS[op], _node(tree.expr), tree.modifier
    is_without = modifier is not None and str(modifier.type).endswith("Without")
    group = _key(not is_without, modifier.labels if modifier is not None else ())

    def at(moment: _Moment) -> Value:
        groups: dict[Labels, list[float]] = {}
        for labels, value in _series(inner(moment)).items():
            groups.setdefault(group(labels), []).append(value)
        return {labels: each(values) for labels, values in groups.items()}

    return at


def _quotient(left: float, right: float) -> float:
    if right:
        return left / right
    return math.nan if not left or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)


def _remainder(left: float, right: float) -> float:
    return math.nan if not right or math.isinf(left) else math.fmod(left, right)


def _power(base: float, exponent: float) -> float:
    # Python raises where IEEE 754 has an answer; NumPy's power takes -Inf ^ 0.5 for a root, and says NaN.
    is_odd = math.isfinite(exponent) and exponent % 2 == 1
    infinity = math.copysign(math.inf, base) if is_odd else math.inf
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return infinity
    except ValueError:
        return math.nan if base else infinity


_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _quotient,
    "%": _remainder,
    "^": _power,
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_SETS = ("and", "or", "unless")


@dataclass(frozen=True)
class _Operator:
    """An arithmetic operator, or a comparison that filters or, with `bool`, answers 0 or 1."""

    op: str
    is_bool: bool

    def __call__(self, left: float, right: float) -> float | None:
        """None: filtered out. A comparison that filters gives the left value."""
        if self.op in _ARITHMETIC:
            return float(_ARITHMETIC[self.op](left, right))
        holds = _COMPARISONS[self.op](left, right)
        return float(holds) if self.is_bool else left if holds else None

    def labels(self, labels: Labels) -> Labels:
        """Of the result: what is computed no longer has the metric's name, what is filtered has."""
        return _unnamed(labels) if self.op in _ARITHMETIC or self.is_bool else labels


@dataclass(frozen=True)
class _Matching:
    """Which series of two sides belong together, and what the result is called."""

    is_on: bool
    names: tuple[str, ...]
    card: str
    included: tuple[str, ...]

    def result(self, many: Labels, one: Labels) -> Labels:
        """The labels of a pair: those it is matched by, or all of the many side and what the one side lends."""
        if self.card == "OneToOne":
            return tuple((name, value) for name, value in many if (name in self.names) == self.is_on)
        lent = dict(one)
        return canonical({**dict(many), **{name: lent.get(name, "") for name in self.included}})


def _binary(tree: Any) -> _Node:
    op, modifier = str(tree.op), tree.modifier
    left, right = _node(tree.lhs), _node(tree.rhs)
    by, card, included = None, "OneToOne", ()
    if modifier is not None:
        by, card, included = modifier.matching, str(modifier.card).rpartition(".")[2], modifier.group_labels or ()
        if modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None:
            raise _refused("fill")
    is_on = by is not None and str(by.type).endswith("Include")
    matching = _Matching(is_on, tuple(by.labels) if by is not None else (), card, tuple(included))
    if op in _SETS:
        key = _key(matching.is_on, matching.names)
        return lambda moment: _set(op, key, _series(left(moment)), _series(right(moment)))
    if op not in _ARITHMETIC and op not in _COMPARISONS:
        raise _refused(op)
    apply = _Operator(op, modifier is not None and modifier.return_bool)
    return lambda moment: _applied(apply, matching, left(moment), right(moment))


def _applied(apply: _Operator, matching: _Matching, left: Value, right: Value) -> Value:
    if isinstance(left, float) and isinstance(right, float):
        return _number(apply(left, right))
    if not isinstance(left, float) and not isinstance(right, float):
        return _matched(apply, matching, left, right)
    found = []
    for labels, element in _series(right if isinstance(left, float) else left).items():
        value = apply(left, element) if isinstance(left, float) else apply(element, _number(right))
        if value is not None:
            # What is filtered keeps the value of the series, whichever side it stands on.
            is_filter = apply.op in _COMPARISONS and not apply.is_bool
            found.append((apply.labels(labels), element if is_filter else value))
    return _vector(found)


def _matched(apply: _Operator, matching: _Matching, left: Vector, right: Vector) -> Vector:
    if not left or not right:
        return {}
    key = _key(matching.is_on, matching.names)
    is_swapped = matching.card == "OneToMany"
    many, one = (right, left) if is_swapped else (left, right)
    partners: dict[Labels, Labels] = {}
    for labels in one:
        if partners.setdefault(key(labels), labels) is not labels:
            raise BadInput(
                f"found two series with {_shown(key(labels))} on the {'left' if is_swapped else 'right'} side, allowed: "
                f"one, as many-to-many matching is not allowed"
            )
    found: Vector = {}
    taken: set[tuple[Labels, Labels | None]] = set()
    for labels, value in many.items():
        match = key(labels)
        if match not in partners:
            continue
        other = one[partners[match]]
        result = apply(other, value) if is_swapped else apply(value, other)
        if result is None:
            continue
        name = matching.result(apply.labels(labels), partners[match])
        pair = (match, None if matching.card == "OneToOne" else name)
        if pair in taken:
            raise BadInput(f"found several matches for {_shown(match)}, allowed: one, or group_left or group_right")
        taken.add(pair)
        if name in found:
            _twice(name)
        found[name] = result
    return found


def _set(op: str, key: Callable[[Labels], Labels], left: Vector, right: Vector) -> Vector:
    if op == "or":
        known = {key(labels) for labels in left}
        return left | {labels: value for labels, value in right.items() if key(labels) not in known}
    known = {key(labels) for labels in right}
    return {labels: value for labels, value in left.items() if (key(labels) in known) == (op == "and")}


def _key(is_kept: bool, names: Iterable[str]) -> Callable[[Labels], Labels]:
    """The labels of these names; or, `is_kept` false, all but these and the metric's name."""
    listed = frozenset(names) if is_kept else frozenset(names) | {_NAME}
    return lambda labels: tuple((name, value) for name, value in labels if (name in listed) == is_kept)


def _over(node: _Node, moments: Iterable[_Moment]) -> Iterable[tuple[Labels, Points]]:
    """What the query says over time, by series."""
    found: dict[Labels, Points] = {}
    for moment in moments:
        value = node(moment)
        vector: Vector = {(): value} if isinstance(value, float) else value
        for labels, number in vector.items():
            found.setdefault(labels, []).append((moment.t, number))
    return found.items()


def _matrix(found: Iterable[tuple[Labels, Points]]) -> Answer:
    rows = sorted(found)
    return Answer("matrix", tuple((dict(labels), tuple((t / 1000, float(v)) for t, v in row)) for labels, row in rows))


def _vector(found: Iterable[tuple[Labels, float]]) -> Vector:
    vector: Vector = {}
    for labels, value in found:
        if labels in vector:
            _twice(labels)
        vector[labels] = float(value)
    return vector


def _unnamed(labels: Labels) -> Labels:
    return tuple((name, value) for name, value in labels if name != _NAME)


def _series(value: Value | None) -> Vector:
    return cast(Vector, value)  # The parser has checked the types.


def _number(value: Value | None) -> float:
    return cast(float, value)


def _same(value: float | None, other: float | None) -> bool:
    if value is None or other is None:
        return value is other
    return value == other or (math.isnan(value) and math.isnan(other))


def _milliseconds(seconds: float) -> int:
    if not math.isfinite(seconds):
        raise BadInput(f"time: found {seconds}, allowed: a finite number of seconds")
    return round(seconds * 1000)


def _span(duration: timedelta | None) -> int:
    return duration // timedelta(milliseconds=1) if duration is not None else 0


def _shown(labels: Labels) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels) + "}"


def _twice(labels: Labels) -> NoReturn:
    raise BadInput(f"found two series {_shown(labels)} in one result, allowed: one")


def _refused(what: str) -> BadInput:
    return BadInput(
        f"found {what}, which the embedded scraper does not evaluate; install Prometheus, or change the query"
    )
