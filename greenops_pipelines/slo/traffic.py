"""The counters behind an SLI: which series have to move, and how, for its error ratio to be what a test wants it to be.

Read off the SLO's own queries, so that a test of its rules starts where Prometheus starts: at the scraped counters.
Not here: when which traffic flows (`rule_tests.py`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.validate import render

_PER_SERIES = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0))
_MOST_SERIES = 6
_MOST_LABEL_SETS = 4096
_OTHER = "other"
"""A label value that a query does not name, where it has to be none of those it names."""


@dataclass(frozen=True)
class Series:
    """A counter as a selector with equality only, and what one good and one bad request add to it."""

    selector: str
    good: float
    bad: float


class _NotDerivable(Exception):
    """What in the query is beyond the arithmetic done here."""


_Counted = Callable[[Any], float]
"""What a selector counts per request."""


def series_of(slo: Slo) -> tuple[Series, ...]:
    """The fewest counters that make the SLO's error ratio 0 for good requests, 1 for bad ones, 1/2 for half and half.

    Understood are sums of rates or increases of counters, `+ - * /`, `or`, filters, and constants: availability by a
    label, and latency as all requests minus a histogram's bucket. `BadInput` for anything else: a caller who knows the
    series hands them to `rule_tests.promtool_tests`.
    """
    try:
        return _series_of(slo)
    except _NotDerivable as fault:
        raise BadInput(
            f"{slo.id}: sli: found {fault}, allowed for a derived rule test: sums of rates of counters; "
            "otherwise name the series"
        ) from None


def _series_of(slo: Slo) -> tuple[Series, ...]:
    # Costs 10 ms and native code; only who generates tests needs it.
    import promql_parser

    if slo.events is not None:
        texts = [slo.events.error_query, slo.events.total_query]
    elif slo.raw is not None:
        texts = [slo.raw.error_ratio_query]
    else:
        raise _NotDerivable("no query")
    queries = [promql_parser.parse(render(text, "1m")) for text in texts]
    selectors: list[Any] = []
    for query in queries:
        promql_parser.walk(query, lambda node: selectors.append(node) if _is(node, "VectorSelector") else None)
    shapes = [_Shape.of(selector) for selector in selectors]
    candidates = _candidates(shapes)
    if not 0 < len(candidates) <= _MOST_SERIES:
        raise _NotDerivable(f"{len(candidates)} kinds of series")
    by_size = sorted(itertools.product(_PER_SERIES, repeat=len(candidates)), key=lambda rates: -rates.count((0.0, 0.0)))
    for rates in by_size:
        series = [(labels, *rate) for labels, rate in zip(candidates, rates, strict=True)]
        if _fits(queries, series):
            return tuple(Series(_selector(labels), good, bad) for labels, good, bad in series if good or bad)
    raise _NotDerivable("queries for which no counters give an error ratio of 0 and of 1")


def _is(node: Any, name: str) -> bool:
    return type(node).__name__ == name


@dataclass(frozen=True)
class _Shape:
    """What a selector demands: a metric, and a test per label."""

    metric: str
    tests: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, selector: Any) -> _Shape:
        if selector.matchers.or_matchers or selector.offset is not None or selector.at is not None:
            raise _NotDerivable(f"{selector}")
        tests = [(m.name, str(m.op).rpartition(".")[2], m.value) for m in selector.matchers.matchers]
        metric = selector.name or next((v for name, op, v in tests if (name, op) == ("__name__", "Equal")), None)
        if metric is None:
            raise _NotDerivable(f"a selector without a metric, {selector}")
        return cls(metric, tuple(test for test in tests if test[0] != "__name__"))

    def matches(self, labels: Mapping[str, str]) -> bool:
        if labels["__name__"] != self.metric:
            return False
        for name, operator, wanted in self.tests:
            found = labels.get(name, "")
            same = found == wanted if operator in ("Equal", "NotEqual") else re.fullmatch(wanted, found) is not None
            if same != (operator in ("Equal", "Re")):
                return False
        return True


def _candidates(shapes: Sequence[_Shape]) -> list[dict[str, str]]:
    """One label set for each set of selectors that can be matched together, those of the first selectors first."""
    found: dict[tuple[bool, ...], dict[str, str]] = {}
    for metric in dict.fromkeys(shape.metric for shape in shapes):
        values: dict[str, list[str]] = {}
        for shape in shapes:
            for name, operator, wanted in shape.tests if shape.metric == metric else ():
                values.setdefault(name, []).extend(_examples(wanted) if "Re" in operator else [wanted])
        choices = [[*dict.fromkeys(seen), _OTHER, ""] for seen in values.values()]
        for chosen in itertools.islice(itertools.product(*choices), _MOST_LABEL_SETS):
            labels = {"__name__": metric} | {name: value for name, value in zip(values, chosen, strict=True) if value}
            matched = tuple(shape.matches(labels) for shape in shapes)
            if any(matched):
                found.setdefault(matched, labels)
    return list(found.values())


def _examples(pattern: str) -> Iterator[str]:
    """Members of a regular expression's language, for the kinds of expressions that label matchers are made of."""
    inner = pattern
    while inner.startswith("(") and inner.endswith(")"):
        inner = inner[1:-1].removeprefix("?:")
    for part in inner.split("|"):
        text = re.sub(
            r"\.\*|\.\+|\.|\[0-9\]\+?|\\d\+?", lambda m: "" if m[0] == ".*" else "0", re.sub(r"\\\.", "\0", part)
        )
        text = text.replace("\0", ".")
        if re.fullmatch(pattern, text):
            yield text


def _fits(queries: Sequence[Any], series: Sequence[tuple[Mapping[str, str], float, float]]) -> bool:
    def ratio(bad_share: float) -> tuple[float, float]:
        def counted(selector: Any) -> float:
            shape = _Shape.of(selector)
            return sum(
                good * (1 - bad_share) + bad * bad_share for labels, good, bad in series if shape.matches(labels)
            )

        values = [_value(query, counted) for query in queries]
        return (values[0] / values[1], values[1]) if len(values) == 2 else (values[0], 1.0)

    try:
        return all(ratio(share) == (share, 1.0) for share in (0.0, 0.5, 1.0))
    except ZeroDivisionError:
        return False


def _value(node: Any, counted: _Counted) -> float:
    """What the expression gives while each request adds to the series what `counted` says."""
    kind = type(node).__name__
    if kind == "NumberLiteral":
        return float(node.val)
    if kind == "ParenExpr":
        return _value(node.expr, counted)
    if kind == "UnaryExpr":
        return -_value(node.expr, counted)
    if kind == "AggregateExpr" and str(node.op) == "sum":
        return _value(node.expr, counted)
    if kind == "Call" and node.func.name in ("rate", "increase", "irate") and _is(node.args[0], "MatrixSelector"):
        return counted(node.args[0].vector_selector)
    if kind == "Call" and node.func.name == "vector":
        return _value(node.args[0], counted)
    if kind == "BinaryExpr" and not (node.modifier and node.modifier.return_bool):
        left, right, operator = _value(node.lhs, counted), _value(node.rhs, counted), str(node.op)
        if operator in ("or", ">", ">=", "<", "<=", "!=", "=="):
            return left
        if operator in ("+", "-", "*", "/"):
            return (
                {"+": left + right, "-": left - right, "*": left * right}[operator] if operator != "/" else left / right
            )
    raise _NotDerivable(" ".join(node.prettify().split())[:120])


def _selector(labels: Mapping[str, str]) -> str:
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in labels.items()}
    pairs = ",".join(f'{name}="{value}"' for name, value in quoted.items() if name != "__name__")
    return f"{labels['__name__']}{{{pairs}}}"
