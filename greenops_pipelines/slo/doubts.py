"""What is doubtful of a day's bad events: counters that vanished while requests went on, pods without the SLO's bucket.

No series of a bad counter is no bad event, which is right of a pod that had no error yet and wrong of a counter that was
renamed. Not here: what is counted (`day_counts.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from greenops_pipelines.instants import instant
from greenops_pipelines.slo import count_nodes as nodes
from greenops_pipelines.slo.count_nodes import Binary, Growth
from greenops_pipelines.slo.counting import Countable
from greenops_pipelines.slo.day_samples import MINUTE, Bools
from greenops_pipelines.slo.grid import Grid
from greenops_pipelines.slo.growth import target_of
from greenops_pipelines.slo.series import Selector

GRACE = 60 * MINUTE
"""Of a counter that is gone: a process that began again, as after a deployment, has none before its first error."""

_NAMED = 3


@dataclass(frozen=True)
class Vanished:
    """A selector of bad events that matched series until then, and none since, while the total goes on.

    `is_metric_gone`: its metric is none of the total's and has no series of any labels any more, as if it had been renamed.
    """

    selector: Selector
    since: int
    is_metric_gone: bool

    def __str__(self) -> str:
        since = instant(self.since).isoformat(timespec="seconds").replace("+00:00", "Z")
        return f"found no sample of {self.selector} since {since}"


def vanished(countable: Countable, grid: Grid) -> tuple[Vanished, ...]:
    """Selectors without a sample for an hour or longer before the newest one of the total.

    What was there before the day counts as far back as its samples reach. What never was there is none: it may be the
    counter of an error that has not happened yet.
    """
    totals = nodes.selectors(countable.total)
    newest = grid.newest(totals)
    found: list[Vanished] = []
    for selector in sorted(nodes.selectors(countable.bad) - totals):
        seen = grid.newest([selector])
        if newest is None or seen is None or newest - seen <= GRACE:
            continue
        last = grid.newest([Selector(selector.metric)])
        is_other = selector.metric not in {each.metric for each in totals}
        if is_other and last is not None and newest - last > GRACE:
            found.append(Vanished(selector, last, True))
        else:
            found.append(Vanished(selector, seen, False))
    return tuple(found)


@dataclass(frozen=True)
class Unmatched:
    """Rows of targets that count requests in a histogram without the SLO's bucket, with the minutes in which they do."""

    rows: Mapping[int, Bools]
    buckets: tuple[Selector, ...]
    targets: tuple[str, ...]

    def __str__(self) -> str:
        names = ", ".join(self.targets[:_NAMED])
        more = f" and {len(self.targets) - _NAMED} more" if len(self.targets) > _NAMED else ""
        return f"found no {' and no '.join(map(str, self.buckets))} of {names}{more}"


def unmatched(countable: Countable, grid: Grid) -> Unmatched | None:
    """Targets (instance, pod, job) of which a difference of histogram counts has the minuend alone. None: there is none.

    Of such a pod nobody knows which requests were slow: all of them would be by the difference.
    """
    pairs = [pair for node in nodes.parts(countable.bad) for pair in _histogram(node)]
    rows: dict[int, Bools] = {}
    names: set[str] = set()
    for count, bucket in pairs:
        theirs, own = _alive(grid, [bucket]), _alive(grid, [count])
        lone = {key: alive & ~theirs[key] if key in theirs else alive for key, alive in own.items()}
        lone = {key: minutes for key, minutes in lone.items() if minutes.any()}
        if not lone:
            continue
        names |= {"/".join(filter(None, key)) for key in lone}
        for row in grid.rows([count, *_counters(countable.total)]).tolist():
            key = target_of(grid.samples.texts[row])
            if key in lone:
                rows[row] = rows[row] | lone[key] if row in rows else lone[key]
    if not rows:
        return None
    return Unmatched(rows, tuple(sorted({bucket for _, bucket in pairs})), tuple(sorted(names)))


def _histogram(node: nodes.Node) -> Sequence[tuple[Selector, Selector]]:
    """Where the node is such a difference, each minuend with each bucket of the same histogram."""
    if not (isinstance(node, Binary) and node.op == "-"):
        return ()
    buckets = [each for each in _counters(node.right) if any(matcher.name == "le" for matcher in each.matchers)]
    return [(count, each) for each in buckets for count in _counters(node.left) if _stem(count) == _stem(each)]


def _counters(node: nodes.Node) -> list[Selector]:
    return sorted({part.selector for part in nodes.parts(node) if isinstance(part, Growth)})


def _stem(selector: Selector) -> str:
    return selector.metric.removesuffix("_count").removesuffix("_bucket")


def _alive(grid: Grid, selectors: Sequence[Selector]) -> dict[tuple[str, ...], Bools]:
    """By target the minutes in which any of its series is alive; series of no target are left out."""
    rows = grid.rows(selectors)
    is_alive = ~np.isnan(grid.grown.placed[rows])
    found: dict[tuple[str, ...], Bools] = {}
    for place, row in enumerate(rows.tolist()):
        key = target_of(grid.samples.texts[row])
        if key is not None:
            found[key] = found[key] | is_alive[place] if key in found else is_alive[place]
    return found
