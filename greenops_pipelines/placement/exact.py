"""Few jobs, solved exactly by CP-SAT: contiguous, interruptible and wide ones together, to the minute.

Not here: when it is worth it (`optimise.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from greenops_pipelines.placement import windows
from greenops_pipelines.placement.model import HOUR, MINUTE, Floats, Ints, Jobs, Schedule
from greenops_pipelines.placement.sight import Sight

_KW_SCALE = 1_000_000
_LARGEST = 1e12
"""What one option can cost at most, in the whole numbers that costs are scaled to."""
_COARSEST = 10_000
"""The dearest piece costs at least this per unit of time: below it, rounding would choose among pieces."""


@dataclass(frozen=True)
class Solved:
    """A plan and the solver's own bound, grams."""

    schedule: Schedule
    bound: float


@dataclass(frozen=True)
class _Option:
    """One start of a contiguous job, or one piece of an interruptible one, in one place."""

    job: int
    place: int
    start: int
    end: int
    slots: range
    cost: float
    """Contiguous: of the whole run. Interruptible: per microsecond."""


def options(jobs: Jobs, sight: Sight) -> int:
    """An upper bound on how many there are."""
    pieces = (jobs.deadline - jobs.release) // sight.grid.step + 2
    return int((pieces * jobs.allowed.sum(axis=1) * 2).sum())


def solve(jobs: Jobs, sight: Sight, *, seconds: float) -> Solved | None:
    """The optimum, or the best plan with a bound after `seconds`; None where no plan meets all deadlines.

    Where times share so small a unit that costs per unit cannot be told apart in whole numbers, windows are taken from
    minute to minute: a plan still, but its bound is not one of all plans, and 0.
    """
    from ortools.sat.python import cp_model

    grid = sight.grid
    free = sight.room_kw
    listed = _options(jobs, replace(sight, free_kw=None))
    unit = int(np.gcd.reduce([*jobs.duration.tolist(), *((o.end - o.start) for o in listed), grid.step]))
    top = max((o.cost * (1 if not jobs.interruptible[o.job] else o.end - o.start) for o in listed), default=1.0)
    scale = _LARGEST / max(top, 1e-9)
    per_unit = [o.cost * unit * scale for o in listed if jobs.interruptible[o.job]]
    if per_unit and 0 < max(per_unit) < _COARSEST:
        inner = replace(
            jobs,
            earliest=-(-jobs.release // MINUTE) * MINUTE,
            submitted=jobs.release // MINUTE * MINUTE,
            deadline=jobs.deadline // MINUTE * MINUTE,
        )
        if (inner.release == jobs.release).all() and (inner.deadline == jobs.deadline).all():
            return None
        if (inner.deadline - inner.release < jobs.duration).any():
            return None
        again = solve(inner, sight, seconds=seconds)
        return None if again is None else replace(again, bound=0.0)
    model = cp_model.CpModel()
    amounts: list[cp_model.IntVar] = []
    chosen: list[cp_model.IntVar] = []
    by_job: dict[int, list[int]] = {}
    by_cell: dict[tuple[int, int], list[int]] = {}
    objective: list[tuple[cp_model.IntVar, int]] = []
    for number, option in enumerate(listed):
        by_job.setdefault(option.job, []).append(number)
        for slot in option.slots:
            by_cell.setdefault((option.place, slot), []).append(number)
        bit = model.new_bool_var("")
        chosen.append(bit)
        if jobs.interruptible[option.job]:
            length = (option.end - option.start) // unit
            amount = model.new_int_var(0, length, "")
            model.add(amount <= length * bit)
            amounts.append(amount)
            objective.append((amount, round(option.cost * unit * scale)))
        else:
            amounts.append(bit)
            objective.append((bit, round(option.cost * scale)))
    shares = jobs.transfer_share(grid.network_kwh_per_gb)
    for job in range(len(jobs)):
        mine = by_job.get(job, [])
        if not mine:
            return None
        if not jobs.interruptible[job]:
            model.add_exactly_one(chosen[n] for n in mine)
            continue
        model.add(sum(amounts[n] for n in mine) == int(jobs.duration[job]) // unit)
        places = sorted({listed[n].place for n in mine})
        if len(places) == 1:
            continue
        if shares[job] > 0:
            stays = {place: model.new_bool_var("") for place in places}
            model.add_exactly_one(stays.values())
            for n in mine:
                model.add_implication(chosen[n], stays[listed[n].place])
        else:
            for start in {listed[n].start for n in mine}:
                here = [n for n in mine if listed[n].start == start]
                model.add(sum(amounts[n] for n in here) <= (listed[here[0]].end - start) // unit)
    for (place, slot), users in by_cell.items():
        if np.isfinite(free[place, slot]):
            room = int(np.floor(max(free[place, slot], 0.0) * _KW_SCALE + 1e-3))
            model.add(sum(chosen[n] * round(jobs.power_kw[listed[n].job] * _KW_SCALE) for n in users) <= room)
    model.minimize(sum(variable * cost for variable, cost in objective))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.relative_gap_limit = 0.0
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    parts: list[tuple[int, int, int, int]] = []
    begun: dict[tuple[int, int], int] = {}
    for n, option in enumerate(listed):
        if not (taken := int(solver.value(amounts[n]))):
            continue
        if not jobs.interruptible[option.job]:
            parts.append((option.job, option.place, option.start, option.end))
            continue
        # Two places inside one slot: one after the other, the job is in one place at a time.
        begin = begun.get((option.job, option.start), option.start)
        begun[option.job, option.start] = begin + taken * unit
        parts.append((option.job, option.place, begin, begin + taken * unit))
    columns: list[Ints] = [np.array([part[i] for part in parts], dtype=np.int64) for i in range(4)]
    # Rounded coefficients: half a unit each, on every unit that was chosen.
    rounding = sum(abs(int(solver.value(variable))) for variable, _ in objective) * 0.5 / scale
    bound = solver.best_objective_bound / scale - rounding
    return Solved(Schedule.of([(columns[0], columns[1], columns[2], columns[3])], len(jobs)), max(bound, 0.0))


def _options(jobs: Jobs, sight: Sight) -> list[_Option]:
    grid = sight.grid
    view = windows.window(jobs, grid)
    found: list[_Option] = []
    for place in range(len(grid.places)):
        price = sight.price(jobs, view, np.full(len(jobs), place))
        price = np.where(jobs.allowed[:, [place]], price, np.inf)
        starts = windows.candidates(view, price)
        found += _contiguous(jobs, starts, place, sight)
        found += _pieces(jobs, view.start, view.end, view.slot, price, place)
    return found


def _contiguous(jobs: Jobs, starts: windows.Candidates, place: int, sight: Sight) -> list[_Option]:
    grid = sight.grid
    rows, columns = np.nonzero(np.isfinite(starts.cost) & ~jobs.interruptible[:, None])
    seen = {(int(job), int(starts.start[job, column])): int(column) for job, column in zip(rows, columns, strict=True)}
    return [
        _Option(
            job,
            place,
            start,
            start + int(jobs.duration[job]),
            range((start - grid.start) // grid.step, -(-(start + int(jobs.duration[job]) - grid.start) // grid.step)),
            float(starts.cost[job, column] * jobs.power_kw[job]),
        )
        for (job, start), column in seen.items()
    ]


def _pieces(jobs: Jobs, start: Ints, end: Ints, slot: Ints, price: Floats, place: int) -> list[_Option]:
    rows, columns = np.nonzero(np.isfinite(price) & (end > start) & jobs.interruptible[:, None])
    return [
        _Option(
            int(job),
            place,
            int(start[job, column]),
            int(end[job, column]),
            range(int(slot[job, column]), int(slot[job, column]) + 1),
            float(price[job, column] * jobs.power_kw[job] / HOUR),
        )
        for job, column in zip(rows, columns, strict=True)
    ]
