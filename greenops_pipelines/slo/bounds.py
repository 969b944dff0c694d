"""Bad events of each minute, held between none and all of them, where the two were seen at different times.

Errors and requests of different targets are scraped at different moments: with an interval of two minutes all errors may
fall into minutes without a request. Not here: which minutes are known (`day_counts.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from greenops_pipelines.slo.day_samples import LOOKBACK, MINUTE, Bools, Floats

MOST_MINUTES = LOOKBACK // MINUTE
"""So far events are carried: two samples of a series are no further apart, or there is a gap."""

_NOISE = 1e-9
"""Share of the total below which a difference is one of rounding."""


@dataclass(frozen=True)
class Bounded:
    """By minute: bad events in [0, total]; what was cut off above the total, and what was missing to 0."""

    bad: Floats
    above: Floats
    below: Floats


def bounded(bad: Floats, total: Floats, is_known: Bools, *, is_carried: bool) -> Bounded:
    """Holds bad between 0 and the total. 0 where nothing is known; a total below 0 is 0.

    `is_carried`: what is above the total is carried into the nearest minute that has room, the following before the
    preceding one, at most 5 minutes away and over no unknown minute; what is below 0 is taken from such minutes. The sum
    stays. What finds no room is cut. An infinite value is all, or none, and is not carried.
    """
    total = np.where(is_known, np.maximum(total, 0.0), 0.0)
    bad = np.where(is_known, bad, 0.0)
    bad = np.where(np.isinf(bad), np.clip(bad, 0.0, total), bad)
    if is_carried and np.any((bad > total) | (bad < 0)):
        _carry(bad, total, is_known)
    held = np.clip(bad, 0.0, total)
    off = bad - held
    off[np.abs(off) <= _NOISE * np.maximum(total, 1.0)] = 0.0
    return Bounded(held, np.maximum(off, 0.0), np.maximum(-off, 0.0))


def _carry(bad: Floats, total: Floats, is_known: Bools) -> None:
    """Of each distance a minute takes from one other alone; what takes has room, so that it is none of those that give."""
    is_near = is_known
    for distance in range(1, MOST_MINUTES + 1):
        is_near = is_near[:-1] & is_known[distance:]
        early, late = slice(None, -distance), slice(distance, None)
        for origin, goal in ((early, late), (late, early)):
            over, room = np.maximum(bad[origin] - total[origin], 0.0), np.maximum(total[goal] - bad[goal], 0.0)
            _move(bad, origin, goal, np.minimum(over, room) * is_near)
            debt, stock = np.maximum(-bad[origin], 0.0), np.maximum(bad[goal], 0.0)
            _move(bad, goal, origin, np.minimum(debt, stock) * is_near)


def _move(bad: Floats, origin: slice, goal: slice, moved: Floats) -> None:
    bad[origin] -= moved
    bad[goal] += moved
