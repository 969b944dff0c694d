"""Placement as a min-cost flow: jobs of one class -> slots -> (place, slot) -> done. A lower bound always, often the optimum.

Identical jobs are one class: 50,000 jobs are a few thousand nodes. The flow lets work be cut at slots and change places,
and spreads the cost of moving data over the run, so that what it costs is never more than what any plan costs. Where all
jobs draw the same power, lie on whole slots and may be cut, the flow *is* a plan, and an optimal one (integral).

Here: building and solving it. Not here: what is done about jobs that do not fit this mould (`optimise.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from greenops_pipelines.errors import GreenopsError
from greenops_pipelines.placement.model import HOUR, MINUTE, Floats, Ints, Jobs, Schedule
from greenops_pipelines.placement.sight import Sight
from greenops_pipelines.placement.windows import Window, window

_COST_SCALE = 10_000
"""Flow costs are whole numbers: a tenth of a milligram per kWh."""
_ROUNDS = 300
"""Of relaxation at most: a dual that is not quite one still is a price, and the bound made of it still a bound."""
_OVERFLOW = 20
"""Work that fits nowhere costs this many times the dearest cell, so that as little as possible is left over."""


@dataclass(frozen=True)
class Classes:
    """Jobs that are alike, taken together. `member` lists jobs class by class."""

    jobs: Jobs
    """One representative per class."""
    count: Ints
    member: Ints
    first: Ints
    """[classes] where a class begins in `member`."""


def classes(jobs: Jobs, sight: Sight) -> Classes:
    """Jobs with the same window, length, power, places, data per kWh and weight of money."""
    key = np.stack(
        [
            jobs.release,
            jobs.deadline,
            jobs.duration,
            np.round(jobs.power_kw * 1e9).astype(np.int64),
            jobs.home,
            jobs.interruptible.astype(np.int64),
            np.round(jobs.transfer_share(sight.grid.network_kwh_per_gb) * 1e12).astype(np.int64),
            np.round(sight.weight(jobs) * 1e6).astype(np.int64),
            *np.packbits(jobs.allowed, axis=1).T.astype(np.int64),
        ],
        axis=1,
    )
    order = np.lexsort(key.T[::-1])
    changed = np.ones(len(jobs), dtype=bool)
    changed[1:] = (key[order][1:] != key[order][:-1]).any(axis=1)
    first = np.flatnonzero(changed)
    return Classes(jobs.take(order[first]), np.diff(np.append(first, len(jobs))), order, first)


@dataclass(frozen=True)
class Flowed:
    """A solved flow. `bound` is per job the grams it costs at least, together; `overflow` the share of work that fits nowhere."""

    bound: float
    overflow: float
    shadow: Floats
    """[places, slots] what another kWh of room would save, per kWh: the flow's dual prices."""
    schedule: Schedule | None
    """Only where the flow is a plan."""


def is_plan(jobs: Jobs, sight: Sight) -> bool:
    """Whether a flow of these jobs is a plan of whole jobs: one power, whole slots, cut anywhere, no data left behind."""
    if not len(jobs):
        return True
    single = jobs.duration == sight.grid.step
    whole = not (
        ((jobs.release - sight.grid.start) % sight.grid.step).any()
        or ((jobs.deadline - sight.grid.start) % sight.grid.step).any()
        or (jobs.duration % sight.grid.step).any()
    )
    settled = (jobs.transfer_share(sight.grid.network_kwh_per_gb) == 0) | (jobs.allowed.sum(axis=1) == 1)
    return bool(
        whole and np.ptp(jobs.power_kw) <= 1e-9 * jobs.power_kw[0] and (single | (jobs.interruptible & settled)).all()
    )


def solve(jobs: Jobs, sight: Sight, *, as_plan: bool, with_prices: bool = True) -> Flowed:
    """The cheapest flow of all jobs' work through the cells with room.

    `as_plan`: a unit of flow is one job in one slot, and a schedule comes of it (see `is_plan`; jobs with data that run
    longer than a slot may end up in several places, for the caller to settle). Otherwise a unit is one watt-minute, work
    is rounded down and room up: a bound.
    """
    from ortools.graph.python import min_cost_flow

    grid = sight.grid
    groups = classes(jobs, sight)
    kinds = groups.jobs
    view = window(kinds, grid)
    kw_unit = float(jobs.power_kw[0]) if as_plan else 0.001
    units_per_slot = 1 if as_plan else max(grid.step // MINUTE, 1)
    lengths = (view.end - view.start) if not as_plan else np.where(view.end > view.start, grid.step, 0)
    per_piece = (
        _units(kinds.power_kw[:, None] * lengths / grid.step, kw_unit, units_per_slot, as_plan, up=True)
        * groups.count[:, None]
    )
    supply = _units(kinds.power_kw * kinds.duration / grid.step, kw_unit, units_per_slot, as_plan) * groups.count

    kind, piece = np.nonzero((lengths > 0) & view.inside)
    slot = view.slot[kind, piece]
    prices = _prices(kinds, view, sight)[:, kind, piece]
    limited = np.asarray(np.isfinite(sight.room_kw).any(axis=1))
    open_price = np.where(limited[:, None], np.inf, prices)
    at_open = open_price.argmin(axis=0)
    open_price = open_price.min(axis=0)

    # Nodes: classes, then class and slot (of work longer than one: a job is in one place at a time), then cells, the end.
    many = len(kinds)
    longer = np.flatnonzero((kinds.duration > grid.step)[kind] if as_plan else np.ones(len(kind), dtype=bool))
    node = kind.copy()
    node[longer] = many + np.arange(len(longer))
    cell_place, cell_option = np.nonzero(np.isfinite(prices) & limited[:, None])
    cells, cell_of = np.unique(cell_place * grid.slots + slot[cell_option], return_inverse=True)
    inner = many + len(longer)
    end = inner + len(cells)
    free = sight.room_kw
    room_kw = np.maximum(free[cells // grid.slots, cells % grid.slots], 0.0)
    if np.ptp(jobs.power_kw) == 0:
        # Room for half a job is room for none.
        room_kw = np.floor(room_kw / jobs.power_kw[0] + 1e-6) * jobs.power_kw[0]
    room = np.floor(room_kw / kw_unit + 1e-6) if as_plan else np.ceil(room_kw / kw_unit * units_per_slot)
    has_open = np.isfinite(open_price)
    dearest = float(prices[np.isfinite(prices)].max(initial=0.0)) + 1.0
    piece_units = per_piece[kind, piece]
    everything = np.arange(many)
    sections = [
        (kind[longer], node[longer], piece_units[longer], np.zeros(len(longer))),
        (node[cell_option], inner + cell_of, piece_units[cell_option], prices[cell_place, cell_option]),
        (node[has_open], np.full(int(has_open.sum()), end), piece_units[has_open], open_price[has_open]),
        (inner + np.arange(len(cells)), np.full(len(cells), end), np.minimum(room, supply.sum()), np.zeros(len(cells))),
        (everything, np.full(many, end), supply, np.full(many, dearest * _OVERFLOW)),
    ]
    tail, head, capacity, cost = (np.concatenate([section[i] for section in sections]) for i in range(4))
    whole_cost = np.floor(cost * _COST_SCALE)
    network = min_cost_flow.SimpleMinCostFlow()
    arcs = network.add_arcs_with_capacity_and_unit_cost(
        tail.astype(np.int32), head.astype(np.int32), capacity.astype(np.int64), whole_cost.astype(np.int64)
    )
    network.set_nodes_supplies(everything.astype(np.int32), supply.astype(np.int64))
    network.set_node_supply(end, -int(supply.sum()))
    status = network.solve()
    if status != network.OPTIMAL:
        raise GreenopsError(f"placement: the flow of {many} classes over {len(cells)} cells ended with status {status}")
    flows = np.asarray(network.flows(arcs))
    marks = np.cumsum([0, *(len(section[0]) for section in sections)])
    through_cells, through_open = flows[marks[1] : marks[2]], flows[marks[2] : marks[3]]
    overflow = flows[marks[4] : marks[5]]
    kwh_per_unit = kw_unit * (grid.step / HOUR) / units_per_slot
    paid = float((through_cells * sections[1][3]).sum() + (through_open * sections[2][3]).sum())
    # The solver minimised rounded costs: a tenth of a milligram per kWh may separate its optimum from the true one.
    rounding = float(through_cells.sum() + through_open.sum()) / _COST_SCALE
    shadow = np.zeros((len(grid.places), grid.slots))
    if with_prices:
        potential = _potentials(end + 1, tail, head, whole_cost, flows, capacity)
        worth = np.maximum(potential[end] - potential[inner:end], 0.0) / _COST_SCALE
        shadow[cells // grid.slots, cells % grid.slots] = worth
    schedule = None
    if as_plan:
        option = np.concatenate([cell_option, np.flatnonzero(has_open)])
        place = np.concatenate([cell_place, at_open[has_open]])
        amount = np.concatenate([through_cells, through_open])
        schedule = _settle(groups, kind[option], slot[option], place, amount, sight)
    return Flowed(
        max(paid - rounding, 0.0) * kwh_per_unit,
        float(overflow.sum() / max(supply.sum(), 1)),
        shadow,
        schedule,
    )


def _units(slots_of_kw: Floats, kw_unit: float, units_per_slot: int, as_plan: bool, *, up: bool = False) -> Floats:
    """Of a plan exactly; of a bound what is to be done rounded down, and what a piece holds rounded `up`."""
    amount = slots_of_kw / kw_unit * units_per_slot
    if as_plan:
        return np.round(amount)
    return np.ceil(amount - 1e-6) if up else np.floor(amount + 1e-6)


def _prices(kinds: Jobs, view: Window, sight: Sight) -> Floats:
    """[places, classes, pieces]; infinite where a class may not run, also because a job of it alone is too large."""
    return np.stack(
        [
            np.where(kinds.allowed[:, [place]], sight.price(kinds, view, np.full(len(kinds), place)), np.inf)
            for place in range(len(sight.grid.places))
        ]
    )


def _potentials(nodes: int, tail: Ints, head: Ints, cost: Floats, flows: Ints, capacity: Floats) -> Floats:
    """Distances in what the flow leaves over (Bellman and Ford): the dual solution, which the solver does not hand out.

    An optimal flow leaves no cycle that is cheaper than nothing, so that this comes to rest.
    """
    forward, backward = flows < capacity, flows > 0
    source = np.concatenate([tail[forward], head[backward]])
    target = np.concatenate([head[forward], tail[backward]])
    length = np.concatenate([cost[forward], -cost[backward]])
    order = np.argsort(target, kind="stable")
    source, target, length = source[order], target[order], length[order]
    begins = np.flatnonzero(np.diff(target, prepend=-1))
    reached = target[begins]
    distance = np.zeros(nodes)
    for _ in range(_ROUNDS):
        shorter = np.minimum(np.minimum.reduceat(distance[source] + length, begins), distance[reached])
        if (shorter == distance[reached]).all():
            break
        distance[reached] = shorter
    return distance


def _settle(groups: Classes, kind: Ints, slot: Ints, place: Ints, amount: Ints, sight: Sight) -> Schedule:
    """Units of flow to jobs. Dealt out in turn, in order of slots: no job gets two units of one slot, each gets its number."""
    grid = sight.grid
    used = amount > 0
    kind, slot, place, amount = kind[used], slot[used], place[used], amount[used]
    order = np.lexsort((place, slot, kind))
    kind, slot, place = (np.repeat(column[order], amount[order]) for column in (kind, slot, place))
    begins = np.searchsorted(kind, kind)
    turn = (np.arange(len(kind)) - begins) % groups.count[kind]
    job = groups.member[groups.first[kind] + turn]
    start = grid.start + slot * grid.step
    return Schedule.of([(job, place, start, start + grid.step)], int(groups.count.sum()))
