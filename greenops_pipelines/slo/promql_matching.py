"""PromQL's operators between vectors: which labels agree, which series belong together, what the result is called.

Not here: arithmetic on two numbers (`promql_functions.py`), and the syntax of an operator (`evaluator.py`).
Source of behaviour: Prometheus 2.42, its documentation, and promql/engine.go, Apache-2.0.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.promql_functions import ARITHMETIC
from greenops_pipelines.slo.samples import (
    NAME,
    Labels,
    Value,
    Vector,
    canonical,
    new_vector,
    refuse_twin,
    shown,
    unnamed,
)

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
SETS = ("and", "or", "unless")


def agrees(op: str, text: str) -> Callable[[str], bool]:
    match op:
        case "Equal":
            return lambda value: value == text
        case "NotEqual":
            return lambda value: value != text
    # What Go's and Python's expressions both accept and read differently; the rest one of the two refuses.
    if re.search(r"(?<!\\)[*+?}]\+|\[\[|\{,|\\Z|\(\?(?!:)", text):
        raise refused(f"the expression {text!r}")
    try:
        pattern = re.compile(text, re.ASCII)
    except re.error:
        raise refused(f"the expression {text!r}") from None
    if op == "NotRe":
        return lambda value: pattern.fullmatch(value) is None
    return lambda value: pattern.fullmatch(value) is not None


@dataclass(frozen=True)
class Operator:
    """An arithmetic operator, or a comparison that filters or, with `bool`, answers 0 or 1."""

    op: str
    is_bool: bool

    def __call__(self, left: float, right: float) -> float | None:
        """None: filtered out. A comparison that filters gives the left value."""
        if self.op in ARITHMETIC:
            return float(ARITHMETIC[self.op](left, right))
        holds = COMPARISONS[self.op](left, right)
        return float(holds) if self.is_bool else left if holds else None

    def labels(self, labels: Labels) -> Labels:
        """Of the result: what is computed no longer has the metric's name, what is filtered has."""
        return unnamed(labels) if self.op in ARITHMETIC or self.is_bool else labels


@dataclass(frozen=True)
class Matching:
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


def applied(apply: Operator, matching: Matching, left: Value, right: Value) -> Value:
    if isinstance(left, float) and isinstance(right, float):
        return as_number(apply(left, right))
    if not isinstance(left, float) and not isinstance(right, float):
        return _matched(apply, matching, left, right)
    found = []
    for labels, element in as_vector(right if isinstance(left, float) else left).items():
        value = apply(left, element) if isinstance(left, float) else apply(element, as_number(right))
        if value is not None:
            # What is filtered keeps the value of the series, whichever side it stands on.
            is_filter = apply.op in COMPARISONS and not apply.is_bool
            found.append((apply.labels(labels), element if is_filter else value))
    return new_vector(found)


def _matched(apply: Operator, matching: Matching, left: Vector, right: Vector) -> Vector:
    if not left or not right:
        return {}
    key = key_of(matching.is_on, matching.names)
    is_swapped = matching.card == "OneToMany"
    many, one = (right, left) if is_swapped else (left, right)
    partners: dict[Labels, Labels] = {}
    for labels in one:
        if partners.setdefault(key(labels), labels) is not labels:
            raise BadInput(
                f"found two series with {shown(key(labels))} on the {'left' if is_swapped else 'right'} side, allowed: "
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
            raise BadInput(f"found several matches for {shown(match)}, allowed: one, or group_left or group_right")
        taken.add(pair)
        if name in found:
            refuse_twin(name)
        found[name] = result
    return found


def combined(op: str, key: Callable[[Labels], Labels], left: Vector, right: Vector) -> Vector:
    if op == "or":
        known = {key(labels) for labels in left}
        return left | {labels: value for labels, value in right.items() if key(labels) not in known}
    known = {key(labels) for labels in right}
    return {labels: value for labels, value in left.items() if (key(labels) in known) == (op == "and")}


def key_of(is_kept: bool, names: Iterable[str]) -> Callable[[Labels], Labels]:
    """The labels of these names; or, `is_kept` false, all but these and the metric's name."""
    listed = frozenset(names) if is_kept else frozenset(names) | {NAME}
    return lambda labels: tuple((name, value) for name, value in labels if (name in listed) == is_kept)


def as_vector(value: Value | None) -> Vector:
    return cast(Vector, value)  # The parser has checked the types.


def as_number(value: Value | None) -> float:
    return cast(float, value)


def refused(what: str) -> BadInput:
    return BadInput(
        f"found {what}, which the embedded scraper does not evaluate; install Prometheus, or change the query"
    )
