"""Policies against each other on the same jobs, the same grid, and the intensity that really came.

A policy decides by what it believes and is charged by what was: `Account`, exact to the minute. Every figure is over the
jobs that every policy, and the baseline, ran where the intensity is known; the others are counted, not guessed.

Here: who saves how much. Not here: reading files (`files.py`), the scenario of J2.5 (`proof.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from greenops_pipelines.placement import optimise, policies, rolling
from greenops_pipelines.placement.belief import Belief, believe, refuse_unknown
from greenops_pipelines.placement.model import HOUR, MINUTE, Account, Bools, Grid, Jobs, Schedule, account, occupied
from greenops_pipelines.placement.sight import Sight

BASELINE = "run-now-home"
FORECAST_DAYS = 8
"""How far forecasts as issued reach: what lies beyond is not known, and a longer window is used that far."""


@dataclass(frozen=True)
class Outcome:
    """One policy's figures. Grams and money over the measured jobs; misses and violations over all."""

    policy: str
    schedule: Schedule
    account: Account
    total_g: float
    operational_g: float
    transfer_g: float
    embodied_g: float
    saving_pct: float | None
    oracle_share_pct: float | None
    cost: float | None
    mean_wait_minutes: float
    deadline_misses: int
    residency_violations: int
    capacity_exceeded: int
    """Cells (place and slot) in which more ran than the capacity allows: the baseline asks nobody."""
    fallbacks: int
    gap_pct: float | None
    """Above the bound; None where a deadline, an area or a room was not kept: the bound is of plans that keep them."""
    unknown: int
    """Jobs that it ran, at least in part, where the intensity is not known."""
    unfinished: int
    """Jobs that found no room for all of their work."""


@dataclass(frozen=True)
class Simulation:
    """All outcomes, with the bound that holds for every policy that keeps deadlines, areas and rooms."""

    outcomes: tuple[Outcome, ...]
    bound_g: float | None
    """None where there is nothing to bound."""
    bound_method: str
    bound_saving_pct: float | None
    measured: Bools
    """[jobs] those that the figures are over."""
    forecast: str

    def of(self, policy: str) -> Outcome:
        """The outcome of a policy that was wanted."""
        return next(found for found in self.outcomes if found.policy == policy)

    def as_document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "policies": [
                {
                    "policy": found.policy,
                    "total_g": _rounded(found.total_g),
                    "saving_pct": _rounded(found.saving_pct),
                    "oracle_share_pct": _rounded(found.oracle_share_pct),
                    "cost": _rounded(found.cost),
                    "mean_wait_minutes": _rounded(found.mean_wait_minutes),
                    "deadline_misses": found.deadline_misses,
                    "residency_violations": found.residency_violations,
                    "gap_pct": _rounded(found.gap_pct),
                    "operational_g": _rounded(found.operational_g),
                    "transfer_g": _rounded(found.transfer_g),
                    "embodied_g": _rounded(found.embodied_g),
                    "capacity_exceeded": found.capacity_exceeded,
                    "fallbacks": found.fallbacks,
                    "unknown_intensity": found.unknown,
                    "unfinished": found.unfinished,
                }
                for found in self.outcomes
            ],
            "bound": {
                "total_g": _rounded(self.bound_g),
                "saving_pct": _rounded(self.bound_saving_pct),
                "method": self.bound_method,
            },
            "jobs": {
                "total": len(self.measured),
                "measured": int(self.measured.sum()),
                "left_out": int((~self.measured).sum()),
            },
            "forecast": self.forecast,
        }


def simulate(
    jobs: Jobs,
    grid: Grid,
    wanted: Sequence[str],
    *,
    forecast: str = "perfect",
    seed: int = 0,
    cost_weight_g: float = 0.0,
    seconds: float = 60.0,
) -> Simulation:
    """Every wanted policy, in that order, each on its own. `seconds` bounds the search for the clairvoyant plan."""
    perfect = Belief("perfect", grid.intensity)
    baseline = policies.decide(BASELINE, jobs, Sight(grid, perfect))
    belief = _belief(jobs, grid, forecast, seed, any(policy not in (BASELINE, "clairvoyant") for policy in wanted))
    schedules: dict[str, Schedule] = {}
    clairvoyant = None
    for policy in dict.fromkeys(wanted):
        if policy == "clairvoyant":
            clairvoyant = optimise.optimise(jobs, Sight(grid, perfect, cost_weight_g=cost_weight_g), seconds=seconds)
            schedules[policy] = clairvoyant.schedule
        else:
            schedules[policy] = run(policy, jobs, grid, belief, cost_weight_g)
    accounts = {policy: account(jobs, grid, schedule) for policy, schedule in schedules.items()}
    before = account(jobs, grid, baseline)
    measured = np.isfinite(before.total_g)
    for found in accounts.values():
        measured &= np.isfinite(found.total_g)
    # The bound is of grams alone, and over what is measured.
    best = clairvoyant
    if best is None or cost_weight_g or not measured.all():
        best = optimise.optimise(jobs.take(measured), Sight(grid, perfect), seconds=seconds)
    embodied = float(before.embodied_g[measured].sum())
    is_known = measured.any() and not best.schedule.fallbacks.any()
    bound = best.bound + embodied if is_known else None
    start = float(before.total_g[measured].sum())
    # What an oracle that misses deadlines would save is no measure.
    oracle = start - best.objective - embodied if is_known and not best.schedule.late.any() else None
    return Simulation(
        tuple(
            outcome(policy, jobs, grid, schedules[policy], accounts[policy], measured, start, oracle, bound)
            for policy in schedules
        ),
        bound,
        best.method,
        None if bound is None else _share(start - bound, start),
        measured,
        forecast,
    )


def run(policy: str, jobs: Jobs, grid: Grid, belief: Belief, cost_weight_g: float = 0.0) -> Schedule:
    """What one policy does, as time goes by, under a belief."""
    if policy == "optimal":
        return rolling.replan(jobs, grid, belief, cost_weight_g)
    touches_limit = jobs.allowed[:, grid.is_limited].any()
    free = grid.capacity_kw if touches_limit else None
    return policies.decide(policy, jobs, Sight(grid, belief, "carbon", cost_weight_g, free))


def _belief(jobs: Jobs, grid: Grid, forecast: str, seed: int, is_needed: bool) -> Belief:
    refuse_unknown(forecast)
    if not is_needed:
        return Belief("perfect", grid.intensity)
    release, deadline = jobs.release, jobs.deadline
    day = round(policies.THRESHOLD_HOURS * HOUR / grid.step)
    longest = min(
        int(((deadline - release) // grid.step + 2).max(initial=1)), round(FORECAST_DAYS * 24 * HOUR / grid.step)
    )
    first, last = grid.slot_of(release.min(initial=grid.start)), grid.slot_of(deadline.max(initial=grid.start))
    issues = np.arange(max(int(first), 0), min(int(last) + 1, grid.slots))
    return believe(forecast, grid, issues, max(longest, day), seed)


def outcome(
    policy: str,
    jobs: Jobs,
    grid: Grid,
    schedule: Schedule,
    found: Account,
    measured: Bools,
    start: float,
    oracle: float | None,
    bound: float | None,
) -> Outcome:
    """The figures of one schedule, against the baseline's grams, the oracle's saving and the bound."""
    total = float(found.total_g[measured].sum())
    ran = np.bincount(schedule.job, schedule.end - schedule.start, minlength=len(jobs))
    unfinished = ran < jobs.duration
    missed = unfinished | (found.end > jobs.deadline)
    outside = ~jobs.allowed[schedule.job, schedule.place]
    wait = (found.end - jobs.earliest - jobs.duration)[measured] / MINUTE
    exceeded = occupied(grid, jobs, schedule) > grid.capacity_kw + 1e-6
    breaks = bool(missed.any() or outside.any() or exceeded.any())
    return Outcome(
        policy,
        schedule,
        found,
        total,
        float(found.operational_g[measured].sum()),
        float(found.transfer_g[measured].sum()),
        float(found.embodied_g[measured].sum()),
        _share(start - total, start),
        None if breaks or oracle is None or oracle <= 1e-9 * abs(start) else _share(start - total, oracle),
        None if found.cost is None else float(found.cost[measured].sum()),
        float(wait.mean()) if len(wait) else 0.0,
        int(missed.sum()),
        len(np.unique(schedule.job[outside])),
        int(exceeded.sum()),
        int(schedule.fallbacks.sum()),
        None if breaks or bound is None else _share(total - bound, bound),
        int((~np.isfinite(found.total_g) & ~unfinished).sum()),
        int(unfinished.sum()),
    )


def _share(part: float, whole: float) -> float | None:
    return 100.0 * part / whole if whole > 0 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
