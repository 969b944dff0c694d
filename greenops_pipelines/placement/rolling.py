"""The optimiser as time goes by: at a slot boundary all work that is known and not done is planned anew, and a slot runs.

A plan sees jobs with `submitted <= now` and forecasts made of values that were known by then, nothing else. A job that
is released inside a slot need not wait for the next: it may begin at once, in room that the plan has left. What has
begun stays begun: a contiguous run is not moved, work with data goes on where it first ran.

Not here: the plan of one moment with more time to think (`optimise.py`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from greenops_pipelines.placement import exact, flow, optimise, policies, room
from greenops_pipelines.placement.belief import Belief
from greenops_pipelines.placement.model import Bools, Floats, Grid, Ints, Jobs, Schedule, occupied
from greenops_pipelines.placement.room import Parts
from greenops_pipelines.placement.sight import ROOM, Sight

_FEW = 250
"""Starts and pieces that CP-SAT is given at most at one boundary: solved in milliseconds."""


def replan(jobs: Jobs, grid: Grid, belief: Belief, cost_weight_g: float = 0.0) -> Schedule:
    """What ran, after planning at every slot boundary from the first release to the last deadline."""
    sight = Sight(grid, belief, "both", cost_weight_g)
    limited = jobs.allowed[:, grid.is_limited].any(axis=1)
    if not belief.is_issued and not limited.all():
        # Nothing is learnt on the way and nobody is in the way: each job's first plan is its last.
        free, held = np.flatnonzero(~limited), np.flatnonzero(limited)
        parts = [(free, policies.decide("greedy", jobs.take(free), sight))]
        if len(held):
            parts.append((held, replan(jobs.take(held), grid, belief, cost_weight_g)))
        return optimise.join(len(jobs), parts)
    state = _State(jobs, grid)
    first = int(grid.slot_of(jobs.release.min(initial=grid.start)))
    last = int(grid.slot_of(jobs.deadline.max(initial=grid.start) - 1)) + 1
    for slot in range(max(first, 0), min(last, grid.slots)):
        between = state.admit(slot)
        pending = state.pending()
        if len(pending):
            # With one belief for all decisions, a plan is the best one until there is somebody else to plan for.
            if belief.is_issued or not state.holds(pending):
                state.keep(_made(state, pending, slot, sight))
            state.run_due()
        # After the plan of the slot's beginning: they come later, and find what began with it.
        state.decide_alone(between, sight)
    state.finish()
    return state.schedule()


class _State:
    """What is done, what is begun, what is planned, what room is taken."""

    def __init__(self, jobs: Jobs, grid: Grid) -> None:
        self.jobs, self.grid = jobs, grid
        self.remaining = jobs.duration.copy()
        self.allowed = jobs.allowed.copy()
        self.free = grid.capacity_kw.copy()
        self.known = np.zeros(len(jobs), dtype=bool)
        self.fallbacks = np.zeros(len(jobs), dtype=bool)
        self.parts: list[Parts] = []
        self._plan = Schedule.of([], len(jobs))
        self._by_release = np.argsort(jobs.release, kind="stable")
        self._releases = jobs.release[self._by_release]
        self._next = 0
        self.now = grid.start

    @property
    def ahead(self) -> int:
        """The next boundary."""
        return self.now + self.grid.step

    def admit(self, slot: int) -> Ints:
        """Jobs released by the beginning of a slot are pending from then on; returned are those released inside it."""
        self.now = self.grid.start + slot * self.grid.step
        known = int(np.searchsorted(self._releases, self.now, side="right"))
        soon = int(np.searchsorted(self._releases, self.ahead, side="left"))
        self.known[self._by_release[self._next : known]] = True
        self._next = known
        return self._by_release[known:soon]

    def pending(self) -> Ints:
        return np.flatnonzero(self.known & (self.remaining > 0))

    def holds(self, pending: Ints) -> bool:
        """Whether the plan is still one for all that is pending: none of them is new, or without a place in it."""
        return bool(np.isin(pending, self._plan.job).all())

    def planned_before(self, pending: Ints) -> Schedule:
        """Of the last plan, what is left of it for pending work, by its place among them; of whom all is planned, in time."""
        plan = self._plan
        mine = np.isin(plan.job, pending)
        runs = (np.searchsorted(pending, plan.job[mine]), plan.place[mine], plan.start[mine], plan.end[mine])
        planned = np.bincount(runs[0], runs[3] - runs[2], minlength=len(pending))
        ended = np.full(len(pending), np.iinfo(np.int64).min)
        np.maximum.at(ended, runs[0], runs[3])
        sound = (planned == self.remaining[pending]) & (ended <= self.jobs.deadline[pending])
        job, place, start, end = (column[sound[runs[0]]] for column in runs)
        return Schedule.of([(job, place, start, end)], len(pending))

    def keep(self, plan: Schedule) -> None:
        """From now on this is the plan."""
        self._plan = plan

    def run_due(self) -> None:
        """What of the plan begins in this slot, up to the next boundary; what cannot be cut, to its end."""
        plan, jobs = self._plan, self.jobs
        due = plan.start < self.ahead
        job, end = plan.job[due], plan.end[due]
        whole = ~jobs.interruptible[job] | plan.fallbacks[job]
        self.run(job, plan.place[due], plan.start[due], np.where(whole, end, np.minimum(end, self.ahead)))
        start = np.where(due, self.ahead, plan.start)
        left = (start < plan.end) & (self.remaining[plan.job] > 0)
        self._plan = replace(
            plan, job=plan.job[left], place=plan.place[left], start=start[left], end=plan.end[left]
        )  # fmt: skip

    def decide_alone(self, released: Ints, sight: Sight) -> None:
        """Each when it is released, by what is known then: it begins in this slot, or is planned at the next boundary.

        In the room that the plan leaves; one that cannot wait takes what it needs, and the others are planned anew.
        """
        if not len(released):
            return
        jobs, grid = self.jobs, self.grid
        spare = self.free - occupied(grid, jobs, self._plan)
        for job in released:
            one = jobs.take(np.array([job]))
            cannot_wait = bool(one.deadline[0] - one.duration[0] < self.ahead)
            alone = policies.decide("greedy", one, replace(sight, free_kw=spare))
            if cannot_wait and (alone.late[0] or not len(alone.job)):
                alone = policies.decide("greedy", one, replace(sight, free_kw=self.free))
            begins = alone.start < self.ahead
            if not begins.any() or (alone.late[0] and not cannot_wait):
                # Who comes after it in this slot leaves it the room that it waits for.
                spare -= occupied(grid, one, alone)
                continue
            cut = bool(one.interruptible[0]) and not cannot_wait and not alone.fallbacks[0]
            chosen = begins if cut else np.ones(len(begins), dtype=bool)
            end = np.minimum(alone.end[chosen], self.ahead) if cut else alone.end
            self.fallbacks[job] = alone.fallbacks[0]
            self.run(np.full(int(chosen.sum()), job), alone.place[chosen], alone.start[chosen], end)
            spare -= occupied(grid, one, alone)
            if (spare < -ROOM).any():
                self._plan = Schedule.of([], len(jobs))

    def run(self, job: Ints, place: Ints, start: Ints, end: Ints) -> None:
        """Book what runs, with its room."""
        self.parts.append((job, place, start, end))
        np.subtract.at(self.remaining, job, end - start)
        jobs = self.jobs
        # Its data is there now; anywhere else, it would have to be moved again.
        has_data = (jobs.data_gb[job] > 0) & (self.grid.network_kwh_per_gb > 0)
        settled = np.arange(len(self.grid.places)) == place[has_data, None]
        self.allowed[job[has_data]] &= settled
        first = np.clip(self.grid.slot_of(start), 0, self.grid.slots)
        last = np.clip(self.grid.slot_of(end - 1) + 1, 0, self.grid.slots)
        within = last - first == 1
        np.subtract.at(self.free, (place[within], first[within]), jobs.power_kw[job[within]])
        for row in np.flatnonzero(~within):
            self.free[place[row], first[row] : last[row]] -= jobs.power_kw[job[row]]

    def finish(self) -> None:
        """Work that found no room until the last deadline runs as soon as it can after it: cut, if it may be."""
        for job in np.flatnonzero((self.remaining > 0) & (self.jobs.deadline <= self.grid.end)):
            if self.jobs.interruptible[job]:
                self._fill(int(job))
                continue
            one = self.jobs.take(np.array([job]))
            one = replace(one, earliest=np.maximum(one.earliest, self.ahead), allowed=self.allowed[[job]])
            place, start, end = room.earliest_room(one, self.grid, self.free)
            if len(place):
                self.run(np.array([job]), place, start, end)

    def _fill(self, job: int) -> None:
        """Slot by slot, wherever it may run and there is room, at home if there is some."""
        grid, home = self.grid, self.jobs.home[job]
        for slot in range((self.ahead - grid.start) // grid.step, grid.slots):
            has_room = self.free[:, slot] >= self.jobs.power_kw[job] - ROOM
            open_ = np.flatnonzero(self.allowed[job] & has_room)
            if len(open_):
                place = home if home in open_ else open_[0]
                begin = max(grid.start + slot * grid.step, int(self.jobs.release[job]))
                end = min(grid.start + (slot + 1) * grid.step, begin + int(self.remaining[job]))
                self.run(*(np.array([value]) for value in (job, place, begin, end)))
            if self.remaining[job] <= 0:
                return

    def schedule(self) -> Schedule:
        """All that ran; `late` is what did not end in time, or not at all."""
        unfinished = self.remaining > 0
        made = Schedule.of(self.parts, len(self.jobs), self.fallbacks)
        ended = np.full(len(self.jobs), np.iinfo(np.int64).min)
        np.maximum.at(ended, made.job, made.end)
        return replace(made, late=unfinished | (ended > self.jobs.deadline))


def _made(state: _State, pending: Ints, slot: int, sight: Sight) -> Schedule:
    """A plan for the pending work from this slot on."""
    jobs, grid, now = state.jobs, state.grid, state.now
    # A job whose deadline has passed is late: it has a window again, as long as what is left of it.
    deadline = np.maximum(jobs.deadline[pending], now + state.remaining[pending])
    rest = Jobs(
        tuple(jobs.ids[job] for job in pending),
        np.full(len(pending), now),
        np.full(len(pending), now),
        deadline,
        state.remaining[pending],
        jobs.power_kw[pending],
        jobs.interruptible[pending],
        jobs.home[pending],
        state.allowed[pending],
        # Spread over the whole run, as it was when it was chosen.
        jobs.data_gb[pending] * state.remaining[pending] / jobs.duration[pending],
        None if jobs.cost_weight_g is None else jobs.cost_weight_g[pending],
    )
    ahead = int((int(deadline.max()) - now - 1) // grid.step) + 1
    part = grid.cut(slot, min(slot + ahead, grid.slots))
    believed = Belief(sight.belief.name, sight.belief.ahead(slot, part.slots))
    view = replace(sight, grid=part, belief=believed, free_kw=state.free[:, slot : slot + part.slots])
    plan = _plan(rest, view)
    if plan.late.any():
        # Who came since may have taken what was left to work that has begun where others want to be. It was planned
        # for before, and that plan still holds.
        plan = optimise.better(rest, view, [plan, _around(state.planned_before(pending), rest, view)])[0]
    state.fallbacks[pending[plan.fallbacks]] = True
    marks = np.zeros(len(jobs), dtype=bool)
    marks[pending[plan.fallbacks]] = True
    return replace(plan, job=pending[plan.job], fallbacks=marks, late=np.zeros(len(jobs), dtype=bool))


def _around(before: Schedule, jobs: Jobs, sight: Sight) -> Schedule:
    """What was planned before stays; the others one after the other in the room that it leaves."""
    planned = np.isin(np.arange(len(jobs)), before.job)
    held, others = np.flatnonzero(planned), np.flatnonzero(~planned)
    mine = replace(
        before, job=np.searchsorted(held, before.job), fallbacks=before.fallbacks[held], late=before.late[held]
    )
    left = sight.room_kw - occupied(sight.grid, jobs, before)
    added = policies.decide("greedy", jobs.take(others), replace(sight, free_kw=left))
    return optimise.join(len(jobs), [(held, mine), (others, added)])


def _plan(jobs: Jobs, sight: Sight) -> Schedule:
    """Of one moment, in milliseconds: everybody's wish, CP-SAT for few, flow where it is a plan, shadow prices."""
    grid = sight.grid
    alone = policies.decide("greedy", jobs, replace(sight, free_kw=None))
    if not alone.fallbacks.any() and (occupied(grid, jobs, alone) <= sight.room_kw + ROOM).all():
        return alone
    if alone.fallbacks.any():
        return policies.decide("greedy", jobs, sight)
    rigid = _is_rigid(jobs, sight)
    if not rigid.any() and flow.is_plan(_cut(jobs), sight):
        found = flow.solve(jobs, sight, as_plan=True, with_prices=False)
        if found.overflow == 0 and found.schedule is not None:
            return found.schedule
    plans = [policies.decide("greedy", jobs, sight)]
    solved = exact.solve(jobs, sight, seconds=5.0) if exact.options(jobs, sight) <= _FEW else None
    if solved is not None:
        plans.append(solved.schedule)
    else:
        plans += _priced(jobs, sight, rigid)
    return optimise.better(jobs, sight, plans)[0]


def _is_rigid(jobs: Jobs, sight: Sight) -> Bools:
    """What a flow would tear apart: longer than a slot, and contiguous or bound to the place that its data is moved to."""
    bound = (jobs.transfer_share(sight.grid.network_kwh_per_gb) > 0) & (jobs.allowed.sum(axis=1) > 1)
    return np.asarray((jobs.duration > sight.grid.step) & (~jobs.interruptible | bound))


def _cut(jobs: Jobs) -> Jobs:
    """As if all of it could be cut and had nothing to move."""
    return replace(jobs, interruptible=np.ones(len(jobs), dtype=bool), data_gb=np.zeros(len(jobs)))


def _priced(jobs: Jobs, sight: Sight, rigid: Bools) -> list[Schedule]:
    """Rigid runs under the shadow prices of a flow of all, and the flow of the others around them; none without room."""
    if not flow.is_plan(_cut(jobs), sight):
        shadow = flow.solve(jobs, sight, as_plan=False).shadow
        return [_under(jobs, sight, shadow)]
    found = flow.solve(jobs, sight, as_plan=True)
    if found.overflow:
        return []
    fixed, loose = np.flatnonzero(rigid), np.flatnonzero(~rigid)
    placed = _under(jobs.take(fixed), sight, found.shadow)
    if not len(loose):
        return [placed]
    left = sight.room_kw - occupied(sight.grid, jobs.take(fixed), placed)
    around = flow.solve(jobs.take(loose), replace(sight, free_kw=left), as_plan=True, with_prices=False)
    if around.overflow or around.schedule is None:
        return []
    return [optimise.join(len(jobs), [(fixed, placed), (loose, around.schedule)])]


def _under(jobs: Jobs, sight: Sight, shadow: Floats) -> Schedule:
    return policies.decide("greedy", jobs, replace(sight, surcharge=shadow), order=optimise.orders(jobs)[0])
