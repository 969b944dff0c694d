"""Room: what power is left in which slot, who takes it, and jobs that are placed one after the other in what is left.

Here: bookkeeping, and the order of choosing. Not here: what a job would choose (`policies.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from greenops_pipelines.placement import windows
from greenops_pipelines.placement.model import Bools, Floats, Grid, Ints, Jobs, Schedule
from greenops_pipelines.placement.sight import ROOM, Sight

Parts = tuple[Ints, Ints, Ints, Ints]
"""(job, place, start, end) of runs."""

Runs = tuple[Ints, Ints, Ints]
"""(place, start, end) of one job's runs, in order of time."""

Rule = Callable[[Jobs, Sight], tuple[list[Parts], Bools]]
"""Takes jobs and what is seen, and returns runs and which jobs it could place."""

_BATCH = 32


def in_order(rule: Rule, jobs: Jobs, sight: Sight, order: Ints) -> Schedule:
    """One after the other, a batch looked at together: what still fits is what each would have chosen alone.

    Room only shrinks, so a choice that is still possible is still the best one; where it is not, the rest of the batch
    is looked at again.
    """
    grid, free = sight.grid, sight.room_kw.copy()
    parts: list[Parts] = []
    fallbacks, late = np.zeros(len(jobs), dtype=bool), np.zeros(len(jobs), dtype=bool)
    first = 0
    while first < len(order):
        batch = order[first : first + _BATCH]
        subset = jobs.take(batch)
        found, done = rule(subset, replace(sight, free_kw=free))
        made = Schedule.of(found, len(batch))
        bounds = np.searchsorted(made.job, np.arange(len(batch) + 1))
        for offset, job in enumerate(batch):
            rows = slice(bounds[offset], bounds[offset + 1])
            part = (made.place[rows], made.start[rows], made.end[rows])
            power = float(jobs.power_kw[job])
            if not done[offset]:
                one = subset.take(np.array([offset]))
                part = earliest_room(one, grid, free)
                # Nothing is known of its window: as soon as there is room, at home if there is some.
                fallbacks[job] = not _is_known(one, sight)
                late[job] = not len(part[0]) or bool(part[2][-1] > jobs.deadline[job])
            elif not fits(grid, free, part, power):
                if offset:
                    break
                part = earliest_room(subset.take(np.array([0])), grid, free)
                late[job] = not len(part[0]) or bool(part[2][-1] > jobs.deadline[job])
            occupy(grid, free, part, power)
            parts.append((np.full(len(part[0]), job), *part))
            first += 1
    made = Schedule.of(parts, len(jobs), fallbacks)
    return replace(made, late=late)


def _is_known(job: Jobs, sight: Sight) -> bool:
    """Whether anything is believed of its window at home."""
    price = replace(sight, free_kw=None).price(job, windows.window(job, sight.grid), job.stay)
    return bool(np.isfinite(price).any())


def fits(grid: Grid, free: Floats, part: Runs, power: float) -> bool:
    """Whether there is room for `power` kW under all of one job's runs."""
    return all(free[place, first:last].min(initial=np.inf) >= power - ROOM for place, first, last in _cells(grid, part))


def occupy(grid: Grid, free: Floats, part: Runs, power: float) -> None:
    """Take `power` kW from the room under one job's runs (place, start, end), in order of time; negative gives it back."""
    taken = -1, -1
    for place, first, last in _cells(grid, part):
        again = (place, first) == taken
        free[place, first + again : last] -= power
        taken = place, last - 1


def _cells(grid: Grid, part: Runs) -> list[tuple[int, int, int]]:
    return [
        (int(place), max((int(start) - grid.start) // grid.step, 0), -(-(int(end) - grid.start) // grid.step))
        for place, start, end in zip(*part, strict=True)
    ]


def earliest_room(job: Jobs, grid: Grid, free: Floats) -> Runs:
    """(place, start, end) of the first contiguous run with room in an allowed place, home first; empty: nowhere."""
    release, duration = int(job.release[0]), int(job.duration[0])
    first = max((release - grid.start) // grid.step, 0)
    last = grid.slots
    best: tuple[int, int] | None = None
    places = sorted(np.flatnonzero(job.allowed[0]), key=lambda place: place != job.home[0])
    for place in places:
        has_room = free[place, first:last] >= job.power_kw[0] - ROOM
        starts = np.maximum(grid.start + np.arange(first, last) * grid.step, release)
        ends = -(-(starts + duration - grid.start) // grid.step) - first
        full = np.concatenate([[0], np.cumsum(~has_room)])
        fitting = ends <= len(has_room)
        fitting[fitting] = full[ends[fitting]] == full[:-1][fitting]
        if fitting.any():
            start = int(starts[np.argmax(fitting)])
            if best is None or start < best[1]:
                best = int(place), start
    if best is None:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    return np.array([best[0]]), np.array([best[1]]), np.array([best[1] + duration])
