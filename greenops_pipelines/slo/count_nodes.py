"""The expressions that are counted: values by series and minute.

Not here: how they are made of an SLO's queries (`counting.py`), and their evaluation (`grid.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from greenops_pipelines.slo.promql_matching import Matching
from greenops_pipelines.slo.series import Selector

PLAIN = Matching(is_on=False, names=(), card="OneToOne", included=())
"""Series with the same labels belong together."""


@dataclass(frozen=True)
class Number:
    """A scalar."""

    value: float


@dataclass(frozen=True)
class Constant:
    """`vector(n)`: one series without labels that always has this value."""

    value: float


@dataclass(frozen=True)
class Growth:
    """What each counter really grew by in each minute."""

    selector: Selector


@dataclass(frozen=True)
class Instant:
    """The last value of each series, no older than 5 minutes."""

    selector: Selector


@dataclass(frozen=True)
class Rate:
    """`rate` (or `increase`) over a range that is not the SLO's window, extrapolated as Prometheus does."""

    selector: Selector
    range: timedelta
    is_per_second: bool


@dataclass(frozen=True)
class Sampled:
    """An expression at the end of each minute: a subquery's step."""

    inner: Node


@dataclass(frozen=True)
class Present:
    """1 where the expression has a value."""

    inner: Node


@dataclass(frozen=True)
class Aggregate:
    """`op` is sum, avg, min, max or count; labels are kept (`by`), or all but them."""

    op: str
    is_without: bool
    names: tuple[str, ...]
    inner: Node


@dataclass(frozen=True)
class Binary:
    """+ - * /, a comparison that filters or, with `is_bool`, answers 0 or 1, or `or`; at most one side is a number."""

    op: str
    left: Node
    right: Node
    is_bool: bool = False
    matching: Matching = PLAIN


Node = Number | Constant | Growth | Instant | Rate | Sampled | Present | Aggregate | Binary


def parts(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    yield node
    match node:
        case Sampled(inner) | Present(inner) | Aggregate(inner=inner):
            yield from parts(inner)
        case Binary(left=left, right=right):
            yield from parts(left)
            yield from parts(right)


def selectors(node: Node) -> frozenset[Selector]:
    return frozenset(part.selector for part in parts(node) if isinstance(part, Growth | Instant | Rate))


def is_zero_where_absent(node: Node) -> bool:
    """Whether no series means no event: of sums of counters, which are born with their first event.

    Not of a difference: where no pod's histogram has the bucket, that does not say that every request was slow (and where
    some have it, `doubts.unmatched` leaves out the others). And not of samples.
    """
    match node:
        case Growth():
            return True
        case Aggregate(inner=inner):
            return is_zero_where_absent(inner)
        case Binary(op="*", left=Number(), right=inner) | Binary(op="*" | "/", left=inner, right=Number()):
            return is_zero_where_absent(inner)
        case Binary(op="or", left=left):
            return is_zero_where_absent(left)
    return False
