"""What is placed, where it may run and what that costs: jobs, places on a grid of slots, schedules, their accounting.

Here: plain columns of numbers. Not here: reading them (`files.py`), deciding anything (`policies.py`, `optimise.py`).

Times are microseconds since 1970, UTC. A job of width w runs on w machines at once, each drawing its power. What a job
emits is exact to the minute: a run that starts or ends inside a slot pays only for its part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MINUTE = 60_000_000
HOUR = 60 * MINUTE


@dataclass(frozen=True)
class Jobs:
    """Columns, one entry per job. `power_kw` is of the whole job: all machines of its width together."""

    ids: tuple[str, ...]
    submitted: Ints
    earliest: Ints
    deadline: Ints
    duration: Ints
    power_kw: Floats
    interruptible: Bools
    home: Ints
    """Index of the place where the job's data lies, and where it runs if nothing is decided."""
    allowed: Bools
    """[jobs, places]"""
    data_gb: Floats
    cost_weight_g: Floats | None = None
    """gCO2e that one unit of money is worth to a job; None: to all the same, as `Sight` says."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Ints | Bools) -> Jobs:
        """The jobs at an index or mask, in its order."""
        chosen = np.flatnonzero(index) if index.dtype == np.bool_ else index
        return Jobs(
            tuple(self.ids[i] for i in chosen),
            self.submitted[chosen],
            self.earliest[chosen],
            self.deadline[chosen],
            self.duration[chosen],
            self.power_kw[chosen],
            self.interruptible[chosen],
            self.home[chosen],
            self.allowed[chosen],
            self.data_gb[chosen],
            None if self.cost_weight_g is None else self.cost_weight_g[chosen],
        )

    @cached_property
    def release(self) -> Ints:
        """When a job can start at all: nothing runs before it was submitted."""
        return np.maximum(self.earliest, self.submitted)

    @cached_property
    def stay(self) -> Ints:
        """Where a job runs if it is not moved: at home, or in the first place it is allowed where home is not."""
        at_home = self.allowed[np.arange(len(self)), self.home]
        return np.where(at_home, self.home, self.allowed.argmax(axis=1))

    @cached_property
    def energy_kwh(self) -> Floats:
        """IT energy of the whole run, without PUE."""
        return self.power_kw * self.duration / HOUR

    def transfer_share(self, network_kwh_per_gb: float) -> Floats:
        """kWh spent on moving a job's data per kWh of its own: spread over the run, so that costs stay linear."""
        return self.data_gb * network_kwh_per_gb / self.energy_kwh


@dataclass(frozen=True)
class Grid:
    """Places over a common grid of slots: what a kWh of IT energy costs there, and how much power there is."""

    places: tuple[str, ...]
    start: int
    step: int
    intensity: Floats
    """[places, slots] gCO2e per kWh; NaN: nobody knows, and nobody guesses."""
    pue: Floats
    capacity_kw: Floats
    """[places, slots] kW for placed work; infinite where there is no limit."""
    network_kwh_per_gb: float = 0.0
    embodied_g_per_kwh: float = 0.0
    """Manufacture of the machines, per kWh of IT energy; the same wherever a job runs."""
    price_per_kwh: Floats | None = None
    """[places] money per kWh of IT energy; None: no prices are known."""

    @property
    def slots(self) -> int:
        return int(self.intensity.shape[1])

    @property
    def end(self) -> int:
        return self.start + self.slots * self.step

    @cached_property
    def emission(self) -> Floats:
        """[places, slots] operational gCO2e per kWh of IT energy: intensity times PUE."""
        return self.intensity * self.pue[:, None]

    @cached_property
    def is_limited(self) -> Bools:
        """[places] whether a place's capacity is finite anywhere."""
        return np.asarray(np.isfinite(self.capacity_kw).any(axis=1))

    def slot_of(self, time: Ints) -> Ints:
        """Index of the slot that a time lies in."""
        return (time - self.start) // self.step

    def cut(self, first: int, last: int) -> Grid:
        """The slots [first, last)."""
        return replace(
            self,
            start=self.start + first * self.step,
            intensity=self.intensity[:, first:last],
            capacity_kw=self.capacity_kw[:, first:last],
        )


@dataclass(frozen=True)
class Schedule:
    """Who runs where and when: one row per uninterrupted run in one place, of a job at least one."""

    job: Ints
    place: Ints
    start: Ints
    end: Ints
    fallbacks: Bools = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """[jobs] whether a job ran at once because nothing was known about its window."""
    late: Bools = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """[jobs] whether no room was found before a job's deadline."""

    @staticmethod
    def of(parts: Sequence[tuple[Ints, Ints, Ints, Ints]], jobs: int, fallbacks: Bools | None = None) -> Schedule:
        """Joined and in the order of jobs and times; runs that follow each other in one place become one."""
        empty = np.zeros(0, dtype=np.int64)
        job, place, start, end = (
            np.concatenate([np.asarray(part[i], dtype=np.int64) for part in parts] or [empty]) for i in range(4)
        )
        kept = end > start
        job, place, start, end = job[kept], place[kept], start[kept], end[kept]
        order = np.lexsort((start, job))
        job, place, start, end = job[order], place[order], start[order], end[order]
        follows = np.zeros(len(job), dtype=bool)
        follows[1:] = (job[1:] == job[:-1]) & (place[1:] == place[:-1]) & (start[1:] == end[:-1])
        heads = np.flatnonzero(~follows)
        tails = np.append(heads[1:], len(job)) - 1
        none = np.zeros(jobs, dtype=bool)
        return Schedule(
            job[heads],
            place[heads],
            start[heads],
            end[tails] if len(job) else end,
            none if fallbacks is None else fallbacks,
            none.copy(),
        )


@dataclass(frozen=True)
class Account:
    """What a schedule costs, one entry per job; NaN where part of the run lies in a gap of the intensity, or never ran."""

    operational_g: Floats
    transfer_g: Floats
    embodied_g: Floats
    cost: Floats | None
    start: Ints
    end: Ints

    @cached_property
    def total_g(self) -> Floats:
        return self.operational_g + self.transfer_g + self.embodied_g


def account(jobs: Jobs, grid: Grid, schedule: Schedule) -> Account:
    """Grams and money per job, exact to the microsecond.

    operational: power x intensity x PUE over the run. transfer: the job's data, once to every place away from home that
    it runs in, at the mean intensity of both ends while it runs there. embodied: its share of the machines' manufacture.
    """
    count = len(jobs)
    job, place = schedule.job, schedule.place
    hours = (schedule.end - schedule.start) / HOUR
    power = jobs.power_kw[job]
    here = integral(grid, grid.intensity, place, schedule.start, schedule.end)
    operational = _summed(job, power * grid.pue[place] * here, count)
    away = place != jobs.home[job]
    transfer = np.zeros(count)
    if grid.network_kwh_per_gb and away.any():
        home = integral(grid, grid.intensity, jobs.home[job], schedule.start, schedule.end)
        # Per job and place: the data moves once, at the mean of the intensity while the job runs there.
        pairs, inverse = np.unique(job[away] * len(grid.places) + place[away], return_inverse=True)
        mean = np.bincount(inverse, ((here + home) / 2)[away]) / np.bincount(inverse, hours[away])
        owner = pairs // len(grid.places)
        transfer = _summed(owner, jobs.data_gb[owner] * grid.network_kwh_per_gb * mean, count)
    ran = _summed(job, power * hours, count)
    cost = None
    if grid.price_per_kwh is not None:
        cost = _summed(job, power * hours * grid.price_per_kwh[place], count)
    start = np.full(count, np.iinfo(np.int64).max)
    end = np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(start, job, schedule.start)
    np.maximum.at(end, job, schedule.end)
    # Nobody knows what the rest of it would have come to.
    operational[np.bincount(job, schedule.end - schedule.start, minlength=count) < jobs.duration] = np.nan
    return Account(operational, transfer, grid.embodied_g_per_kwh * ran, cost, start, end)


def _summed(owner: Ints, amount: Floats, count: int) -> Floats:
    return np.bincount(owner, amount, minlength=count).astype(np.float64)


def integral(grid: Grid, series: Floats, place: Ints, start: Ints, end: Ints) -> Floats:
    """Hours times value of `series` [places, slots] over [start, end) at each place; NaN where a part has no value."""
    known = np.isfinite(series)
    hours = grid.step / HOUR
    sums = _cumulated(np.where(known, series, 0.0) * hours)
    gaps = _cumulated((~known).astype(np.float64))
    value = _at(grid, sums, place, end) - _at(grid, sums, place, start)
    missing = _at(grid, gaps, place, end) - _at(grid, gaps, place, start)
    outside = (start < grid.start) | (end > grid.end)
    return np.where((missing > 1e-9) | outside, np.nan, value)


def _cumulated(values: Floats) -> Floats:
    return np.concatenate([np.zeros((values.shape[0], 1)), np.cumsum(values, axis=1)], axis=1)


def _at(grid: Grid, sums: Floats, place: Ints, time: Ints) -> Floats:
    """The cumulated series, which is linear inside a slot, at any time; outside the grid at its ends."""
    within = np.clip(time, grid.start, grid.end) - grid.start
    slot = np.minimum(within // grid.step, grid.slots - 1)
    part = within / grid.step - slot
    low, high = sums[place, slot], sums[place, slot + 1]
    return np.asarray(low + (high - low) * part)


def occupied(grid: Grid, jobs: Jobs, schedule: Schedule) -> Floats:
    """[places, slots] kW in use. A job counts in full in every slot it touches, so that no instant exceeds a limit."""
    used = np.zeros((len(grid.places), grid.slots + 1))
    first = grid.slot_of(schedule.start)
    last = grid.slot_of(schedule.end - 1) + 1
    inside = (first >= 0) & (last <= grid.slots)
    job, place, first, last = schedule.job[inside], schedule.place[inside], first[inside], last[inside]
    # Two runs of one job may meet inside a slot (it paused there): it is counted once.
    again = np.zeros(len(job), dtype=bool)
    again[1:] = (job[1:] == job[:-1]) & (place[1:] == place[:-1]) & (first[1:] == last[:-1] - 1)
    first = first + again
    np.add.at(used, (place, first), jobs.power_kw[job])
    np.add.at(used, (place, last), -jobs.power_kw[job])
    return np.asarray(np.cumsum(used, axis=1)[:, :-1])
