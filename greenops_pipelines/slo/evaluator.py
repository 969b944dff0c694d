"""The PromQL of canary gates over samples in memory, with the figures that Prometheus 2.42 gives.

Followed is its behaviour (its documentation, and promql/engine.go, Apache-2.0): ranges closed on both sides, look-back,
staleness, subqueries. What is outside the subset is refused when a query is compiled, never approximated. Not here: the
samples (`samples.py`), functions (`promql_functions.py`), operators (`promql_matching.py`), and the syntax (`promql.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import promql
from greenops_pipelines.slo import promql_functions as functions
from greenops_pipelines.slo import promql_matching as matching
from greenops_pipelines.slo.prometheus import Answer
from greenops_pipelines.slo.promql_functions import Window, quantile
from greenops_pipelines.slo.promql_matching import as_number, as_vector, key_of, refused
from greenops_pipelines.slo.samples import (
    Labels,
    Matcher,
    Points,
    Store,
    Value,
    Vector,
    canonical,
    milliseconds,
    new_vector,
    unnamed,
)

__all__ = ["LOOKBACK_SECONDS", "MAX_STEPS", "Labels", "Query", "Store", "canonical", "compile", "quantile"]

LOOKBACK_SECONDS = 300.0
MAX_STEPS = 11_000
"""Answers that one range query may ask for, as in Prometheus."""


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

    def at(self, moment: _Moment) -> Iterator[tuple[Labels, Points, Window]]:
        last = moment.t - self.offset
        window = Window(last - self.length, last)
        for labels, points in self.series(moment, window.first, window.last):
            if points:
                yield labels, points, window


@dataclass(frozen=True)
class Query:
    """A compiled query. Its methods raise `BadInput` where Prometheus answers 422: series that cannot be matched."""

    text: str
    _root: _Node | _Range

    def at(self, store: Store, t: float, lookback_seconds: float = LOOKBACK_SECONDS) -> Answer:
        """The answer at `t`, seconds since 1970; series are sorted by their labels."""
        moment = _Moment(store, milliseconds(t), milliseconds(lookback_seconds))
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
        first, last, stride = milliseconds(start), milliseconds(end), milliseconds(step)
        if stride <= 0 or last < first or (last - first) // stride >= MAX_STEPS:
            raise BadInput(
                f"query {self.text}: found {start:.3f} to {end:.3f} by {step:.3f} s, allowed: a step above zero, an end "
                f"not before the start, and {MAX_STEPS:,} answers at most"
            )
        moments = (_Moment(store, t, milliseconds(lookback_seconds)) for t in range(first, last + 1, stride))
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
    raise refused({"StringLiteral": "a text", "MatrixSelector": "a range", "SubqueryExpr": "a range"}.get(kind, kind))


def _negated(inner: _Node) -> _Node:
    def at(moment: _Moment) -> Value:
        value = inner(moment)
        return -value if isinstance(value, float) else new_vector((unnamed(each), -v) for each, v in value.items())

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
    raise refused(type(tree).__name__)


def _subquery(tree: Any) -> _Range:
    if tree.at is not None:
        raise refused("@")
    if tree.step is None:
        # Prometheus takes its own evaluation interval, which a query cannot know.
        raise refused("a subquery without a step")
    inner, step = _node(tree.expr), _span(tree.step)
    if _span(tree.range) // step > MAX_STEPS:
        raise refused(f"a subquery of more than {MAX_STEPS:,} steps")

    def series(moment: _Moment, first: int, last: int) -> Iterable[tuple[Labels, Points]]:
        aligned = range(-(-first // step) * step, last + 1, step)
        return _over(inner, (_Moment(moment.store, t, moment.lookback) for t in aligned))

    return _Range(_span(tree.range), _span(tree.offset), series)


def _selector(tree: Any) -> tuple[str | None, list[Matcher], int]:
    if tree.at is not None:
        raise refused("@")
    if tree.matchers.or_matchers:
        raise refused("`or` between labels")
    matchers = [
        (each.name, matching.agrees(str(each.op).rpartition(".")[2], each.value)) for each in tree.matchers.matchers
    ]
    return promql.metric_of(tree), matchers, _span(tree.offset)


def _call(tree: Any) -> _Node:
    name, args = tree.func.name, tree.args
    if name in functions.OVER_RANGES:
        return _over_range(_range(args[0]), functions.OVER_RANGES[name])
    match name, args:
        case "time", []:
            return lambda moment: moment.t / 1000
        case "vector", [number]:
            scalar = _node(number)
            return lambda moment: {(): as_number(scalar(moment))}
        case "scalar", [vector]:
            inner = _node(vector)
            return lambda moment: functions.only_value(as_vector(inner(moment)))
        case (("abs" | "ceil" | "floor"), [vector]):
            each = functions.ELEMENTWISE[name]
            return _mapped(_node(vector), lambda value, _: each(value), lambda _: 0.0)
        case (("clamp_min" | "clamp_max"), [vector, limit]):
            bound = _node(limit)
            clamp = functions.larger if name == "clamp_min" else functions.smaller
            return _mapped(_node(vector), clamp, lambda moment: as_number(bound(moment)))
        case "histogram_quantile", [number, vector]:
            q, buckets = _node(number), _node(vector)
            return lambda moment: functions.quantiles(as_number(q(moment)), as_vector(buckets(moment)))
    raise refused(f"{name}()")


def _mapped(inner: _Node, each: Callable[[float, float], float], parameter: Callable[[_Moment], float]) -> _Node:
    def at(moment: _Moment) -> Value:
        second = parameter(moment)
        return new_vector((unnamed(labels), each(v, second)) for labels, v in as_vector(inner(moment)).items())

    return at


def _over_range(range_: _Range, each: Callable[[Points, Window], float | None]) -> _Node:
    def at(moment: _Moment) -> Value:
        found = ((unnamed(labels), each(points, window)) for labels, points, window in range_.at(moment))
        return new_vector((labels, value) for labels, value in found if value is not None)

    return at


def _aggregate(tree: Any) -> _Node:
    op = str(tree.op)
    if op not in functions.AGGREGATIONS:
        raise refused(f"{op}()")
    each, inner, modifier = functions.AGGREGATIONS[op], _node(tree.expr), tree.modifier
    is_without = modifier is not None and str(modifier.type).endswith("Without")
    group = key_of(not is_without, modifier.labels if modifier is not None else ())

    def at(moment: _Moment) -> Value:
        groups: dict[Labels, list[float]] = {}
        for labels, value in as_vector(inner(moment)).items():
            groups.setdefault(group(labels), []).append(value)
        return {labels: each(values) for labels, values in groups.items()}

    return at


def _binary(tree: Any) -> _Node:
    op, modifier = str(tree.op), tree.modifier
    left, right = _node(tree.lhs), _node(tree.rhs)
    by, card, included = None, "OneToOne", ()
    if modifier is not None:
        by, card, included = modifier.matching, str(modifier.card).rpartition(".")[2], modifier.group_labels or ()
        if modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None:
            raise refused("fill")
    is_on = by is not None and str(by.type).endswith("Include")
    pairing = matching.Matching(is_on, tuple(by.labels) if by is not None else (), card, tuple(included))
    if op in matching.SETS:
        key = key_of(pairing.is_on, pairing.names)
        return lambda moment: matching.combined(op, key, as_vector(left(moment)), as_vector(right(moment)))
    if op not in functions.ARITHMETIC and op not in matching.COMPARISONS:
        raise refused(op)
    apply = matching.Operator(op, modifier is not None and modifier.return_bool)
    return lambda moment: matching.applied(apply, pairing, left(moment), right(moment))


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


def _span(duration: timedelta | None) -> int:
    return duration // timedelta(milliseconds=1) if duration is not None else 0
