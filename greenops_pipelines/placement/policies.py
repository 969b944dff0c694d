"""The policies by name: what each would do with a job, given what it believes.

Here: policies that look at one job at a time, with the room that earlier ones left. Not here: `optimal` and `clairvoyant`,
which weigh all jobs against each other (`rolling.py`, `optimise.py`), and what the decisions come to (`simulator.py`).

Temporal policies stay at home; spatial ones choose among the places a job is allowed. Nobody is ever offered another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from greenops_pipelines.placement import windows
from greenops_pipelines.placement.model import HOUR, Bools, Floats, Grid, Ints, Jobs, Schedule
from greenops_pipelines.placement.room import Parts, Rule, in_order
from greenops_pipelines.placement.sight import ROOM, Sight
from greenops_pipelines.placement.windows import Window

_CELLS = 2_000_000
"""Jobs times pieces handled at once: about 16 MB per array."""


def decide(policy: str, jobs: Jobs, sight: Sight, order: Ints | None = None) -> Schedule:
    """Every job's runs under a policy of this module, each job looking at the room that earlier ones left.

    A job whose window holds no value that the policy could use runs now, at home (`fallbacks`). Where there is no room
    before its deadline it runs as soon as there is (`late`), or not at all on this grid: then it has no row. `order` is
    who chooses first; by default who can start first.
    """
    rule = RULES[policy]
    if sight.free_kw is None or policy == "run-now-home":
        parts: list[Parts] = []
        fallbacks = np.zeros(len(jobs), dtype=bool)
        for chunk in _chunks(jobs, sight.grid):
            found, done = rule(jobs.take(chunk), sight)
            now = _now(jobs.take(chunk), ~done)
            parts += [(chunk[part[0]], *part[1:]) for part in (*found, now)]
            fallbacks[chunk[~done]] = True
        return Schedule.of(parts, len(jobs), fallbacks)
    return in_order(rule, jobs, sight, _order(policy, jobs) if order is None else order)


def _chunks(jobs: Jobs, grid: Grid) -> list[Ints]:
    """Jobs with windows of like length together, so that little is padded."""
    pieces = (jobs.deadline - jobs.release) // grid.step + 2
    order = np.argsort(pieces, kind="stable")
    chunks, first = [], 0
    while first < len(order):
        last = len(order)
        while (last - first) * int(pieces[order[last - 1]]) > _CELLS and last - first > 1:
            last = first + (last - first) // 2
        chunks.append(order[first:last])
        first = last
    return chunks


def _order(policy: str, jobs: Jobs) -> Ints:
    """Who chooses first: who can start first, since nobody decides before; `greedy` lets the least slack go first of those.

    Not who was submitted first: work announced long ahead would take room by what is known only when it can start.
    """
    if policy == "greedy":
        return np.lexsort((jobs.deadline - jobs.release - jobs.duration, jobs.release))
    return np.lexsort((jobs.submitted, jobs.release))


def _now(jobs: Jobs, chosen: Bools) -> Parts:
    index = np.flatnonzero(chosen)
    start = jobs.release[index]
    return index, jobs.stay[index], start, start + jobs.duration[index]


# The rules


def _at(jobs: Jobs, place: Ints, start: Ints, done: Bools) -> tuple[list[Parts], Bools]:
    index = np.flatnonzero(done)
    return [(index, place[index], start[index], start[index] + jobs.duration[index])], done


def _run_now_home(jobs: Jobs, sight: Sight) -> tuple[list[Parts], Bools]:
    """The baseline: at its earliest start, whatever the grid, the forecast or the room."""
    return _at(jobs, jobs.home, jobs.earliest, np.ones(len(jobs), dtype=bool))


def _run_now_best_region(jobs: Jobs, sight: Sight) -> tuple[list[Parts], Bools]:
    """Now, in the allowed place that is cleanest on the average: as people choose a region."""
    mean = _average(jobs, sight)
    best = np.full(len(jobs), np.inf)
    place = jobs.stay.copy()
    for candidate in range(len(sight.grid.places)):
        here = np.full(len(jobs), candidate)
        cost = np.where(jobs.allowed[:, candidate], mean[candidate], np.inf)
        if sight.free_kw is not None:
            view = windows.window(replace(jobs, deadline=jobs.release + jobs.duration), sight.grid)
            price = sight.price(jobs, view, here)
            cost = np.where(np.isfinite(np.where(view.end > view.start, price, 0.0)).all(axis=1), cost, np.inf)
        better = cost < best
        best, place = np.where(better, cost, best), np.where(better, candidate, place)
    return _at(jobs, place, jobs.release, np.isfinite(best))


def _average(jobs: Jobs, sight: Sight) -> Floats:
    """[places, jobs] mean emission per kWh: of the record, or with forecasts as issued of what came before the release."""
    emission = sight.grid.emission if sight.belief.is_issued else sight.believed.emission
    known = np.isfinite(emission)
    sums, counts = np.cumsum(np.where(known, emission, 0.0), axis=1), np.cumsum(known, axis=1)
    last = np.full(len(jobs), sight.grid.slots - 1)
    if sight.belief.is_issued:
        last = np.clip(sight.grid.slot_of(jobs.release), 0, sight.grid.slots) - 1
    seen, total = counts[:, last], sums[:, last]
    return np.where((seen > 0) & (last >= 0), total / np.maximum(seen, 1), np.inf)


def _contiguous_at_home(
    choose: Callable[[Jobs, Window, Floats, windows.Candidates], tuple[Ints, Floats]],
) -> Rule:
    def rule(jobs: Jobs, sight: Sight) -> tuple[list[Parts], Bools]:
        view = windows.window(jobs, sight.grid)
        price = sight.price(jobs, view, jobs.stay)
        start, value = choose(jobs, view, price, windows.candidates(view, price))
        return _at(jobs, jobs.stay, start, np.isfinite(value))

    return rule


def _all_wait(jobs: Jobs, sight: Sight) -> tuple[list[Parts], Bools]:
    """As late as the deadline allows. With limits: as late as there is room."""
    if sight.free_kw is None:
        return _at(jobs, jobs.stay, jobs.deadline - jobs.duration, np.ones(len(jobs), dtype=bool))
    view = windows.window(jobs, sight.grid)
    price = np.where(np.isfinite(sight.price(jobs, view, jobs.stay)), 0.0, np.inf)
    options = windows.candidates(view, price)
    start = np.where(np.isfinite(options.cost), options.start, np.iinfo(np.int64).min).max(axis=1)
    return _at(jobs, jobs.stay, start, np.asarray(np.isfinite(options.cost).any(axis=1)))


def _lowest_window(jobs: Jobs, view: Window, price: Floats, options: windows.Candidates) -> tuple[Ints, Floats]:
    return windows.least(options)


def _lowest_slot(jobs: Jobs, view: Window, price: Floats, options: windows.Candidates) -> tuple[Ints, Floats]:
    """In the slot with the lowest value that a run can start in, not where the run is cheapest."""
    starts = options.start[:, : options.slots]
    worth = np.where(np.isfinite(options.cost[:, : options.slots]), price, np.inf)
    return windows.least(windows.Candidates(starts, worth, options.slots))


def _carbon_time(jobs: Jobs, view: Window, price: Floats, options: windows.Candidates) -> tuple[Ints, Floats]:
    """The start that saves most per hour until completion, against running now (Hanafy et al., GAIA, ASPLOS'24)."""
    now = options.cost[:, :1]
    completion = (options.start - jobs.release[:, None] + jobs.duration[:, None]) / HOUR
    # Where running now crosses a gap there is nothing to compare with: the cheapest run.
    loss = np.where(np.isfinite(now), (options.cost - np.where(np.isfinite(now), now, 0.0)) / completion, options.cost)
    return windows.least(windows.Candidates(options.start, loss, options.slots))


def _fill(jobs: Jobs, view: Window, price: Floats) -> tuple[list[Parts], Bools]:
    cost, taken = windows.cheapest(view, price)
    done = np.isfinite(cost)
    job, _, start, end = windows.runs(view, np.where(done[:, None], taken, 0))
    return [(job, jobs.stay[job], start, end)], done


def _split(interruptible: Rule) -> Rule:
    """A policy for interruptible work treats a job that is not as `lowest-window` does."""

    def rule(jobs: Jobs, sight: Sight) -> tuple[list[Parts], Bools]:
        parts: list[Parts] = []
        done = np.zeros(len(jobs), dtype=bool)
        for chosen, applied in ((jobs.interruptible, interruptible), (~jobs.interruptible, RULES["lowest-window"])):
            index = np.flatnonzero(chosen)
            if len(index):
                found, placed = applied(jobs.take(index), sight)
                parts += [(index[part[0]], *part[1:]) for part in found]
                done[index] = placed
        return parts, done

    return rule


def _wait_awhile(jobs: Jobs, sight: Sight) -> tuple[list[Parts], Bools]:
    """The cheapest slots of the window (Wiesner et al., Let's Wait Awhile, Middleware'21)."""
    view = windows.window(jobs, sight.grid)
    return _fill(jobs, view, sight.price(jobs, view, jobs.stay))


THRESHOLD_PERCENTILE = 30.0
THRESHOLD_HOURS = 24


def _ecovisor(jobs: Jobs, sight: Sight) -> tuple[list[Parts], Bools]:
    """At or below the 30th percentile of the 24 h after the earliest start; without pause once the slack is gone.

    The threshold is set once, when the job could start (Souza et al., Ecovisor, ASPLOS'23, as compared in GAIA).
    """
    grid, view = sight.grid, windows.window(jobs, sight.grid)
    price = sight.price(jobs, view, jobs.stay)
    slots = view.slot[:, :1] + np.arange(round(THRESHOLD_HOURS * HOUR / grid.step))
    ahead = sight.belief.over(jobs.stay, grid.slot_of(jobs.release), slots) * grid.pue[jobs.stay][:, None]
    known: Bools = np.asarray(np.isfinite(ahead).any(axis=1))
    threshold = np.full(len(jobs), -np.inf)
    threshold[known] = np.nanpercentile(ahead[known], THRESHOLD_PERCENTILE, axis=1)
    # The grid against itself: what moving data costs is no reason to wait.
    here = sight.belief.over(jobs.stay, grid.slot_of(jobs.release), view.slot) * grid.pue[jobs.stay][:, None]
    remaining = jobs.duration.copy()
    slack = jobs.deadline - jobs.release - jobs.duration
    parts: list[Parts] = []
    everyone = np.arange(len(jobs))
    for piece in range(view.slot.shape[1]):
        begin, end = view.start[:, piece], view.end[:, piece]
        clean = np.isfinite(price[:, piece]) & (here[:, piece] <= threshold * (1 + 1e-12))
        waited = np.where(clean, 0, np.minimum(slack, end - begin))
        slack = slack - np.where(remaining > 0, waited, 0)
        ran = np.minimum(remaining, end - begin - waited)
        remaining = remaining - ran
        parts.append((everyone, jobs.stay, begin + waited, begin + waited + ran))
        if not remaining.any():
            break
    done = known if sight.free_kw is None else known & _open(sight, jobs, parts)
    job, place, start, end = (np.concatenate([part[i] for part in parts]) for i in range(4))
    kept = done[job]
    return [(job[kept], place[kept], start[kept], end[kept])], done


def _open(sight: Sight, jobs: Jobs, parts: list[Parts]) -> Bools:
    """Which jobs have room wherever their runs lie."""
    done = np.ones(len(jobs), dtype=bool)
    for job, place, start, end in parts:
        slot = np.clip(sight.grid.slot_of(start), 0, sight.grid.slots - 1)
        done[job] &= (end <= start) | (sight.room_kw[place, slot] >= jobs.power_kw[job] - ROOM)
    return done


def _best(jobs: Jobs, sight: Sight) -> tuple[list[Parts], Bools]:
    """The cheapest allowed place and time for each job alone. Work without data to move may change places for free."""
    moves = jobs.transfer_share(sight.grid.network_kwh_per_gb) > 0
    several = jobs.allowed.sum(axis=1) > 1
    parts: list[Parts] = []
    done = np.zeros(len(jobs), dtype=bool)
    for chosen, rule in (
        (~jobs.interruptible, _best_run),
        (jobs.interruptible & (moves | ~several), _best_slots),
        (jobs.interruptible & ~moves & several, _best_roaming),
    ):
        index = np.flatnonzero(chosen)
        if len(index):
            found, placed = rule(jobs.take(index), sight)
            parts.append((index[found[0]], *found[1:]))
            done[index] = placed
    return parts, done


def _offers(jobs: Jobs, sight: Sight, view: Window) -> Iterator[tuple[int, Floats]]:
    """Every place that any of the jobs may use, home first where all have one home, with its prices."""
    places = np.flatnonzero(jobs.allowed.any(axis=0))
    for place in sorted(places, key=lambda place: (place != jobs.home[0], place)):
        price = sight.price(jobs, view, np.full(len(jobs), place))
        yield int(place), np.where(jobs.allowed[:, [place]], price, np.inf)


def _is_better(cost: Floats, best: Floats, at_home: Bools) -> Bools:
    """Less by more than rounding; of equals, home."""
    return np.where(at_home, cost <= best, cost < best * (1 - 1e-12))


def _best_run(jobs: Jobs, sight: Sight) -> tuple[Parts, Bools]:
    view = windows.window(jobs, sight.grid)
    best, place, start = np.full(len(jobs), np.inf), jobs.home.copy(), jobs.release.copy()
    for candidate, price in _offers(jobs, sight, view):
        begin, cost = windows.least(windows.candidates(view, price))
        better = _is_better(cost, best, np.equal(jobs.home, candidate))
        best, place = np.where(better, cost, best), np.where(better, candidate, place)
        start = np.where(better, begin, start)
    (part,), done = _at(jobs, place, start, np.isfinite(best))
    return part, done


def _best_slots(jobs: Jobs, sight: Sight) -> tuple[Parts, Bools]:
    view = windows.window(jobs, sight.grid)
    best, place = np.full(len(jobs), np.inf), jobs.home.copy()
    taken = np.zeros_like(view.slot)
    for candidate, price in _offers(jobs, sight, view):
        cost, amount = windows.cheapest(view, price)
        better = _is_better(cost, best, np.equal(jobs.home, candidate))
        best, place = np.where(better, cost, best), np.where(better, candidate, place)
        taken = np.where(better[:, None], amount, taken)
    done = np.isfinite(best)
    job, _, begin, end = windows.runs(view, np.where(done[:, None], taken, 0))
    return (job, place[job], begin, end), done


def _best_roaming(jobs: Jobs, sight: Sight) -> tuple[Parts, Bools]:
    """The cheapest place of every slot: nothing has to be moved."""
    view = windows.window(jobs, sight.grid)
    lowest = np.full(view.slot.shape, np.inf)
    where = np.broadcast_to(jobs.home[:, None], view.slot.shape)
    for candidate, price in _offers(jobs, sight, view):
        below = _is_better(price, lowest, np.equal(jobs.home, candidate)[:, None])
        lowest, where = np.where(below, price, lowest), np.where(below, candidate, where)
    cost, taken = windows.cheapest(view, lowest)
    done = np.isfinite(cost)
    job, piece, begin, end = windows.runs(view, np.where(done[:, None], taken, 0))
    return (job, where[job, piece], begin, end), done


def _counting(counts: Literal["carbon", "cost", "both"]) -> Rule:
    return lambda jobs, sight: _best(jobs, replace(sight, counts=counts))


RULES: Mapping[str, Rule] = {
    "run-now-home": _run_now_home,
    "run-now-best-region": _run_now_best_region,
    "all-wait": _all_wait,
    "lowest-slot": _contiguous_at_home(_lowest_slot),
    "lowest-window": _contiguous_at_home(_lowest_window),
    "carbon-time": _contiguous_at_home(_carbon_time),
    "ecovisor": _split(_ecovisor),
    "wait-awhile": _split(_wait_awhile),
    "cost-first": _counting("cost"),
    "carbon-first": _counting("carbon"),
    "greedy": _counting("both"),
}
POLICIES = (*RULES, "optimal", "clairvoyant")
