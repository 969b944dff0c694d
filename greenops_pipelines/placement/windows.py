"""One job and its window, many jobs at a time: the cheapest slots, the cheapest contiguous run. Exact, closed form.

Here: arithmetic on prices that are given. Not here: whose prices they are, capacity, and which policy wants what.

A window is cut into pieces by the slots of the grid; the first and the last may be shorter than a slot. A price is per
kWh; infinite where the job may not run (no value, no room, outside the record). Costs are per kW: hours times price.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from greenops_pipelines.placement.model import HOUR, Bools, Floats, Grid, Ints, Jobs

_TIE = 1e-9
"""Costs closer than this, relatively, are the same: sums of floats in another order; the earlier start is taken."""


@dataclass(frozen=True)
class Window:
    """[jobs, pieces]; pieces beyond a job's window have no length."""

    slot: Ints
    start: Ints
    end: Ints
    inside: Bools
    """Whether a piece lies on the grid."""
    duration: Ints
    is_aligned: bool
    """Whether all windows and durations are whole slots."""
    origin: int
    step: int

    @property
    def hours(self) -> Floats:
        return (self.end - self.start) / HOUR


def window(jobs: Jobs, grid: Grid) -> Window:
    """The pieces of every job's window [release, deadline)."""
    release, deadline = jobs.release, jobs.deadline
    first = (release - grid.start) // grid.step
    count = (deadline - 1 - grid.start) // grid.step - first + 1
    slot = first[:, None] + np.arange(max(int(count.max(initial=1)), 1))
    begin = grid.start + slot * grid.step
    start = np.clip(begin, release[:, None], deadline[:, None])
    end = np.clip(begin + grid.step, release[:, None], deadline[:, None])
    inside = (slot >= 0) & (slot < grid.slots)
    aligned = not (
        ((release - grid.start) % grid.step).any()
        or ((deadline - grid.start) % grid.step).any()
        or (jobs.duration % grid.step).any()
    )
    return Window(slot, start, end, inside, jobs.duration, aligned, grid.start, grid.step)


def cheapest(view: Window, price: Floats) -> tuple[Floats, Ints]:
    """Cost per kW and microseconds taken from each piece [jobs, pieces], where the work may be cut anywhere.

    Infinite where the pieces with a price are too short.
    """
    length = view.end - view.start
    usable = np.where(np.isfinite(price), length, 0)
    order = np.argsort(price, axis=1, kind="stable")
    sorted_length = np.take_along_axis(usable, order, axis=1)
    before = np.cumsum(sorted_length, axis=1) - sorted_length
    taken_sorted = np.clip(view.duration[:, None] - before, 0, sorted_length)
    taken = np.zeros_like(length)
    np.put_along_axis(taken, order, taken_sorted, axis=1)
    cost = np.where(taken > 0, np.where(np.isfinite(price), price, 0.0) * taken / HOUR, 0.0).sum(axis=1)
    return np.where(taken.sum(axis=1) == view.duration, cost, np.inf), taken


def runs(view: Window, taken: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """(job, piece, start, end) of what `cheapest` took: a piece taken in part adjoins its neighbour if it can."""
    length = view.end - view.start
    partial = (taken > 0) & (taken < length)
    follows = np.zeros_like(partial)
    follows[:, 1:] = taken[:, :-1] > 0
    leads = np.zeros_like(partial)
    leads[:, :-1] = taken[:, 1:] > 0
    at_end = partial & leads & ~follows
    job, piece = np.nonzero(taken)
    start = np.where(at_end, view.end - taken, view.start)[job, piece]
    return job, piece, start, start + taken[job, piece]


@dataclass(frozen=True)
class Candidates:
    """Starts of a contiguous run that can be cheapest, with their cost per kW; infinite: it cannot start there.

    Between two of them cost is linear in the start, so that no other start is cheaper. The first is the release.
    """

    start: Ints
    cost: Floats
    slots: int
    """How many of them, from the first on, are the beginnings of pieces."""


def candidates(view: Window, price: Floats) -> Candidates:
    """Every start where begin or end meets the edge of a slot or of the window."""
    count = price.shape[1]
    hours = view.hours
    known = np.isfinite(price)
    worth = np.zeros((len(price), count + 1))
    np.cumsum(np.where(known, price, 0.0) * hours, axis=1, out=worth[:, 1:])
    missing = np.zeros((len(price), count + 1))
    np.cumsum(np.where(known, 0.0, hours), axis=1, out=missing[:, 1:])
    if view.is_aligned:
        # A run is a number of whole pieces: its cost is the difference of two sums.
        after = np.arange(count) + (view.duration // view.step)[:, None]
        fits = after <= (view.end > view.start).sum(axis=1)[:, None]
        after = np.where(fits, after, count)
        cost = np.take_along_axis(worth, after, axis=1) - worth[:, :-1]
        gaps = np.take_along_axis(missing, after, axis=1) - missing[:, :-1]
        return Candidates(view.start, np.where(fits & (gaps < _TIE), cost, np.inf), count)
    duration = view.duration[:, None]
    release, deadline = view.start[:, :1], view.end[:, -1:]
    start = np.concatenate([view.start, view.end - duration], axis=1)
    possible = np.tile(view.end > view.start, 2)
    possible = possible & (start >= release) & (start + duration <= deadline)
    start = np.where(possible, start, release)
    first = view.slot[:, :1]
    cost, gaps = (
        _at(view, series, first, start + duration) - _at(view, series, first, start) for series in (worth, missing)
    )
    return Candidates(start, np.where(possible & (gaps < _TIE), cost, np.inf), count)


def _at(view: Window, series: Floats, first: Ints, time: Ints) -> Floats:
    """A cumulated series, linear inside a piece, at times inside the window."""
    piece = np.clip((time - view.origin) // view.step - first, 0, series.shape[1] - 2)
    low = np.take_along_axis(series, piece, axis=1)
    high = np.take_along_axis(series, piece + 1, axis=1)
    begin = np.take_along_axis(view.start, piece, axis=1)
    length = np.take_along_axis(view.end, piece, axis=1) - begin
    part = np.divide(time - begin, length, out=np.ones(time.shape), where=length > 0)
    return np.asarray(low + (high - low) * np.minimum(part, 1.0))


def least(options: Candidates) -> tuple[Ints, Floats]:
    """Start and cost of the cheapest; of equals the earliest."""
    best = options.cost.min(axis=1)
    near = options.cost <= (best + _TIE * np.abs(best))[:, None]
    start = np.where(near, options.start, np.iinfo(np.int64).max).min(axis=1)
    return np.where(np.isfinite(best), start, options.start[:, 0]), best
