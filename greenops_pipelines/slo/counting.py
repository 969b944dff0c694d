"""An SLO -> what is counted of it, minute by minute: bad events and all events, as expressions over samples.

    countable = compile_slo(slo)
    countable.selectors      # what has to be read for it
    countable.kind           # "counters": growth in each minute; "samples": values at each minute's end

A query over `{{.window}}` that is linear in what happens in the window is the sum of what happens in its minutes. So
`rate(X[{{.window}}])` becomes what X grew by in a minute, and `sum_over_time((E)[{{.window}}:1m])` the value of E at its
end. What is not linear cannot be counted, and is refused by name. Not here: the expressions (`count_nodes.py`), their
evaluation (`grid.py`), and the rules for gaps (`day_counts.py`), resets and births (`growth.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import promql, validate
from greenops_pipelines.slo import promql_functions as functions
from greenops_pipelines.slo import promql_matching as matching
from greenops_pipelines.slo.count_nodes import (
    PLAIN,
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
    selectors,
)
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.promql_matching import Matching
from greenops_pipelines.slo.series import Matcher, Operator, Selector

LONGEST_RANGE = timedelta(minutes=10)
"""Of a rate inside a subquery: what is read of the day before are 15 minutes, 5 of them for gaps at its beginning."""

Kind = Literal["counters", "samples"]

_STEP = timedelta(minutes=1)
_WINDOW = timedelta(milliseconds=987_654_321)
"""Stands for `{{.window}}`: nobody writes such a range by hand."""
_WINDOW_TEXT = "987654321ms"
_ALLOWED = (
    "sums, differences and multiples of rate or increase of a counter over {{.window}}, or of sum_over_time or "
    "count_over_time((...)[{{.window}}:1m]), with `or 0 * ...` and `or vector(0)`; as error_ratio_query "
    "one of them by another, 1 - one by another, or avg_over_time((...)[{{.window}}:1m])"
)
_ALLOWED_INSIDE = (
    "inside a subquery selectors, rate and increase over at most 10m, sum, avg, min, max, count, + - * /, comparisons, "
    "`or`, vector() and numbers"
)
_OPERATORS: dict[str, Operator] = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}


@dataclass(frozen=True)
class Countable:
    """What is counted of an SLO. The values of several series are added up.

    `kind` says of what: "counters" are events by their growth, "samples" are minutes (of pods, or of the service) by what
    was the case at their ends.
    """

    slo_id: str
    service: str
    kind: Kind
    bad: Node
    total: Node

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """Everything that has to be read, sorted."""
        return tuple(sorted(selectors(self.bad) | selectors(self.total)))


def compile_slo(slo: Slo) -> Countable:
    """What is counted of an SLO. `BadInput`, one line: the SLO, what was found, what can be counted."""
    units: set[str] = set()
    try:
        if slo.raw is not None:
            bad, total = _ratio(_tree("error_ratio_query", slo.raw.error_ratio_query), units)
        elif slo.events is not None:
            bad = _linear(_tree("error_query", slo.events.error_query), units)
            total = _linear(_tree("total_query", slo.events.total_query), units)
        else:
            raise _Refused("no query", _ALLOWED)
        if len(units) > 1:
            raise _Refused(f"{' beside '.join(sorted(units))}", "one of them in both queries: their units differ")
    except _Refused as error:
        raise BadInput(f"SLO {slo.id}: found {error.found}, allowed: {error.allowed}") from None
    except BadInput as error:
        raise BadInput(f"SLO {slo.id}: {error}") from None
    except RecursionError:
        raise BadInput(f"SLO {slo.id}: found a query nested too deeply, allowed: a few hundred levels") from None
    return Countable(slo.id, slo.service, "samples" if units == {"a subquery"} else "counters", bad, total)


class _Refused(Exception):
    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(found)
        self.found, self.allowed = found, allowed


def _tree(field: str, query: str) -> Any:
    rendered = validate.render(query, _WINDOW_TEXT)
    if promql.filled(rendered) != rendered:
        raise _Refused(f"a variable in {field}", "{{.window}}")
    return promql.parse(rendered)


def _bare(tree: Any) -> Any:
    while type(tree).__name__ == "ParenExpr":
        tree = tree.expr
    return tree


def _kind(tree: Any) -> str:
    return type(tree).__name__


def _shown(tree: Any) -> str:
    # The parser prints a time.duration in whole units only: 987654321ms becomes 11d10h....
    text = " ".join(str(tree).split()).replace(_PRINTED_WINDOW, "{{.window}}")
    return f"`{text if len(text) <= 90 else f'{text[:87]}...'}`"


_PRINTED_WINDOW = "11d10h20m54s"


def _ratio(tree: Any, units: set[str]) -> tuple[Node, Node]:
    """Bad events and all events of an error ratio: the mean of a subquery, bad / all, or 1 - good / all."""
    tree = _bare(tree)
    if _kind(tree) == "Call" and tree.func.name == "avg_over_time":
        units.add("a subquery")
        inner = _subquery(tree)
        return Sampled(inner), Sampled(Present(inner))
    if _is_division(tree):
        return _linear(tree.lhs, units), _linear(tree.rhs, units)
    if _kind(tree) == "BinaryExpr" and str(tree.op) == "-" and _number(tree.lhs) == 1 and _is_division(_bare(tree.rhs)):
        good, total = _ratio(tree.rhs, units)
        return Binary("-", total, good), total
    raise _Refused(_shown(tree), _ALLOWED)


def _is_division(tree: Any) -> bool:
    """Of two vectors: by a number is no ratio of counts, and by `on` or `ignoring` series may be left out."""
    if _kind(tree) != "BinaryExpr" or str(tree.op) != "/" or _modifier(tree) != PLAIN:
        return False
    return _number(tree.lhs) is None and _number(tree.rhs) is None


def _linear(tree: Any, units: set[str]) -> Node:
    tree = _bare(tree)
    match _kind(tree):
        case "UnaryExpr":
            return Binary("*", Number(-1.0), _linear(tree.expr, units))
        case "AggregateExpr" if str(tree.op) == "sum":
            return _aggregate(tree, _linear(tree.expr, units))
        case "Call":
            return _windowed(tree, units)
        case "BinaryExpr":
            return _linear_binary(tree, units)
    raise _Refused(_shown(tree), _ALLOWED)


def _windowed(tree: Any, units: set[str]) -> Node:
    name, args = tree.func.name, tree.args
    match name:
        case "rate" | "increase" if _kind(args[0]) == "MatrixSelector" and args[0].range == _WINDOW:
            # Events per second over events would be no ratio.
            units.add(name)
            return Growth(_selector(args[0].vector_selector))
        case "vector" if _number(args[0]) == 0:
            return Constant(0.0)
        case "sum_over_time" | "count_over_time":
            units.add("a subquery")
            return Sampled(_step(name, _subquery(tree)))
    raise _Refused(_shown(tree), _ALLOWED)


def _step(function: str, inner: Node) -> Node:
    """What a subquery's step adds. A filter that lets nothing through has counted nothing, which is 0 and not unknown."""
    is_filter = isinstance(inner, Binary) and inner.op in matching.COMPARISONS and not inner.is_bool
    if not is_filter:
        return Present(inner) if function == "count_over_time" else inner
    assert isinstance(inner, Binary)  # noqa: S101 - for the type checker
    holds = replace(inner, is_bool=True)
    if function == "count_over_time":
        return holds
    if isinstance(inner.right, Number):
        return Binary("*", inner.left, holds)
    return Binary("*", inner.right, holds) if isinstance(inner.left, Number) else inner


def _linear_binary(tree: Any, units: set[str]) -> Node:
    op = str(tree.op)
    left, right = _number(tree.lhs), _number(tree.rhs)
    modifier = _modifier(tree)
    if op in ("+", "-") and modifier.card == "OneToOne":
        return Binary(op, _linear(tree.lhs, units), _linear(tree.rhs, units), matching=modifier)
    if op == "*" and left is not None and right is None:
        return Binary(op, Number(left), _linear(tree.rhs, units))
    if op == "*" and right is not None and left is None:
        return Binary(op, _linear(tree.lhs, units), Number(right))
    if op == "/" and right and left is None:
        return Binary(op, _linear(tree.lhs, units), Number(right))
    if op == "or":
        found = Binary(op, _linear(tree.lhs, units), _linear(tree.rhs, units), matching=modifier)
        if _is_nothing(found.right):
            return found
        raise _Refused(f"`or` {_shown(tree.rhs)}", "`or 0 * ...` or `or vector(0)`, as another sum is not linear")
    raise _Refused(_shown(tree), _ALLOWED)


def _is_nothing(node: Node) -> bool:
    match node:
        case Constant(0.0) | Binary(op="*", left=Number(0.0)) | Binary(op="*", right=Number(0.0)):
            return True
        case Aggregate(inner=inner):
            return _is_nothing(inner)
    return False


def _subquery(tree: Any) -> Node:
    argument = tree.args[0]
    if _kind(argument) != "SubqueryExpr" or argument.range != _WINDOW or argument.step != _STEP:
        raise _Refused(_shown(tree), f"{tree.func.name}((...)[{{{{.window}}}}:1m])")
    if argument.offset or argument.at is not None:
        raise _Refused(f"an offset or @ in {_shown(tree)}", "none: a minute's events are counted in that minute")
    inner = _inside(argument.expr)
    if isinstance(inner, Number):
        raise _Refused(f"the number {_shown(argument.expr)} in a subquery", "vector(...)")
    return inner


def _inside(tree: Any) -> Node:
    tree = _bare(tree)
    match _kind(tree):
        case "NumberLiteral":
            return Number(float(tree.val))
        case "VectorSelector":
            return Instant(_selector(tree))
        case "UnaryExpr":
            inner = _inside(tree.expr)
            return Number(-inner.value) if isinstance(inner, Number) else Binary("*", Number(-1.0), inner)
        case "AggregateExpr" if str(tree.op) in functions.AGGREGATIONS:
            return _aggregate(tree, _inside(tree.expr))
        case "Call":
            return _inside_call(tree)
        case "BinaryExpr":
            return _inside_binary(tree)
    raise _Refused(_shown(tree), _ALLOWED_INSIDE)


def _inside_call(tree: Any) -> Node:
    name, args = tree.func.name, tree.args
    if name == "vector":
        number = _inside(args[0])
        if isinstance(number, Number):
            return Constant(number.value)
    if name in ("rate", "increase") and _kind(args[0]) == "MatrixSelector" and args[0].range <= LONGEST_RANGE:
        return Rate(_selector(args[0].vector_selector), args[0].range, name == "rate")
    raise _Refused(_shown(tree), _ALLOWED_INSIDE)


def _inside_binary(tree: Any) -> Node:
    op, modifier = str(tree.op), _modifier(tree)
    is_bool = tree.modifier is not None and tree.modifier.return_bool
    if op not in ("+", "-", "*", "/", "or", *matching.COMPARISONS):
        raise _Refused(_shown(tree), _ALLOWED_INSIDE)
    left, right = _inside(tree.lhs), _inside(tree.rhs)
    if isinstance(left, Number) and isinstance(right, Number):
        found = matching.Operator(op, is_bool)(left.value, right.value)
        return Number(matching.as_number(found))
    return Binary(op, left, right, is_bool, modifier)


def _aggregate(tree: Any, inner: Node) -> Aggregate:
    modifier = tree.modifier
    is_without = modifier is not None and str(modifier.type).endswith("Without")
    return Aggregate(str(tree.op), is_without, tuple(modifier.labels) if modifier is not None else (), inner)


def _modifier(tree: Any) -> Matching:
    modifier = tree.modifier
    if modifier is None:
        return PLAIN
    if modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None:
        raise _Refused(f"fill in {_shown(tree)}", _ALLOWED_INSIDE)
    card = str(modifier.card).rpartition(".")[2]
    by = modifier.matching
    if card not in ("OneToOne", "ManyToMany"):
        raise _Refused(f"group_left or group_right in {_shown(tree)}", "one series on each side, by on or ignoring")
    is_on = by is not None and str(by.type).endswith("Include")
    return Matching(is_on, tuple(by.labels) if by is not None else (), "OneToOne", ())


def _number(tree: Any) -> float | None:
    tree = _bare(tree)
    match _kind(tree):
        case "NumberLiteral":
            return float(tree.val)
        case "UnaryExpr":
            number = _number(tree.expr)
            return None if number is None else -number
    return None


def _selector(tree: Any) -> Selector:
    metric = promql.metric_of(tree)
    if metric is None or tree.matchers.or_matchers:
        raise _Refused(f"the selector {_shown(tree)}", "the name of one metric, and conditions that all hold")
    if tree.offset or tree.at is not None:
        raise _Refused(f"an offset or @ in {_shown(tree)}", "none: a minute's events are counted in that minute")
    found = []
    for each in tree.matchers.matchers:
        if each.name == "__name__":
            continue
        op = str(each.op).rpartition(".")[2]
        try:
            matching.agrees(op, each.value)
        except BadInput:
            raise _Refused(f"the expression {each.value!r}", "one that Go and Python read alike") from None
        found.append(Matcher(each.name, _OPERATORS[op], each.value))
    return Selector(metric, tuple(sorted(found)))
