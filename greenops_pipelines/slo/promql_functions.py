"""PromQL's functions, aggregations and arithmetic over plain numbers, with the figures of Prometheus 2.42.

Not here: which series they are applied to (`promql_matching.py`, `evaluator.py`).
Source of behaviour: its documentation, and promql/{functions,quantile}.go, Apache-2.0.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from greenops_pipelines.slo.samples import Labels, Points, Vector, new_vector, unnamed

_LE = "le"
_THRESHOLD = 1.1
"""Up to this many average gaps, the series is taken to go on to the edge of the range."""


@dataclass(frozen=True)
class Window:
    """The edges of a range, milliseconds since 1970."""

    first: int
    last: int


def _extrapolated(points: Points, window: Window, *, is_counter: bool, is_rate: bool) -> float | None:
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


def _instant_rate(points: Points, _: Window) -> float | None:
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

OVER_RANGES: dict[str, Callable[[Points, Window], float | None]] = {
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


def only_value(vector: Vector) -> float:
    """The value of the one series; NaN for none and for several."""
    return next(iter(vector.values())) if len(vector) == 1 else math.nan


def larger(value: float, limit: float) -> float:
    if math.inf in (value, limit):
        return math.inf
    return math.nan if math.isnan(value) or math.isnan(limit) else max(value, limit)


def smaller(value: float, limit: float) -> float:
    return -larger(-value, -limit)


def _whole(towards: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: math.copysign(towards(value), value) if math.isfinite(value) else value


ELEMENTWISE: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": _whole(math.ceil),
    "floor": _whole(math.floor),
}


def quantiles(q: float, vector: Vector) -> Vector:
    """By histogram: the labels without `le`. Series whose `le` is no number are none of a histogram's."""
    histograms: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in vector.items():
        bound = _bound(dict(labels).get(_LE, ""))
        if bound is not None:
            rest = tuple((name, value) for name, value in labels if name != _LE)
            histograms.setdefault(rest, []).append((bound, count))
    return new_vector((unnamed(labels), quantile(q, buckets)) for labels, buckets in histograms.items())


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
    return start + (bounds[i] - start) * quotient(rank - below, counts[i] - below)


AGGREGATIONS: dict[str, Callable[[Iterable[float]], float]] = {
    "sum": lambda values: functools.reduce(operator.add, values),
    "max": _largest,
    "min": _smallest,
    "avg": _mean,
    "count": lambda values: float(sum(1 for _ in values)),
}


def quotient(left: float, right: float) -> float:
    if right:
        return left / right
    return math.nan if not left or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)


def remainder(left: float, right: float) -> float:
    return math.nan if not right or math.isinf(left) else math.fmod(left, right)


def power(base: float, exponent: float) -> float:
    # Python raises where IEEE 754 has an answer; NumPy's power takes -Inf ^ 0.5 for a root, and says NaN.
    is_odd = math.isfinite(exponent) and exponent % 2 == 1
    infinity = math.copysign(math.inf, base) if is_odd else math.inf
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return infinity
    except ValueError:
        return math.nan if base else infinity


ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": quotient,
    "%": remainder,
    "^": power,
}
