"""The optimiser against all plans there are, against CP-SAT and HiGHS; every policy against the rules that none may break.

The brute force knows nothing of the package but the columns of jobs and grid: plans of whole slots, tried one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.placement import instance
from greenops_pipelines.placement import exact, flow, optimise, simulator
from greenops_pipelines.placement.belief import Belief
from greenops_pipelines.placement.model import MINUTE, Grid, Jobs, Schedule, account
from greenops_pipelines.placement.policies import POLICIES, Sight

BASELINE = "run-now-home"
START = 1_700_000 * 3600 * 1_000_000
"""An hour of 2163: nothing may depend on the record beginning at 0."""


@dataclass(frozen=True)
class Job:
    """Times and lengths in minutes from the beginning of the record."""

    earliest: int
    deadline: int
    duration: int
    power_kw: float = 1.0
    interruptible: bool = False
    home: int = 0
    allowed: tuple[int, ...] = (0,)
    data_gb: float = 0.0
    submitted: int | None = None

    @property
    def release(self) -> int:
        return max(self.earliest, self.earliest if self.submitted is None else self.submitted)


def table(listed: Sequence[Job], places: int) -> Jobs:
    def times(values: list[int]) -> np.ndarray:
        return START + np.array(values, dtype=np.int64) * MINUTE

    return Jobs(
        tuple(f"job-{number}" for number in range(len(listed))),
        times([job.earliest if job.submitted is None else job.submitted for job in listed]),
        times([job.earliest for job in listed]),
        times([job.deadline for job in listed]),
        np.array([job.duration for job in listed], dtype=np.int64) * MINUTE,
        np.array([job.power_kw for job in listed]),
        np.array([job.interruptible for job in listed]),
        np.array([job.home for job in listed], dtype=np.int64),
        np.array([[place in job.allowed for place in range(places)] for job in listed]),
        np.array([job.data_gb for job in listed]),
    )


def world(
    intensity: Sequence[Sequence[float]],
    limits: Sequence[Sequence[float]] | None = None,
    *,
    step: int = 60,
    pue: Sequence[float] = (),
    network: float = 0.0,
) -> Grid:
    values = np.array(intensity, dtype=np.float64)
    room = np.full(values.shape, np.inf) if limits is None else np.array(limits, dtype=np.float64)
    factors = np.array(pue) if pue else np.ones(len(values))
    return Grid(tuple("ABCD"[: len(values)]), START, step * MINUTE, values, factors, room, network, 30.0)


def sight(grid: Grid) -> Sight:
    return Sight(grid, Belief("perfect", grid.intensity))


# The brute force

Plan = tuple[float, tuple[tuple[int, int], ...]]
"""Grams, and the cells (place, slot) it runs in."""


def grams(job: Job, cells: Sequence[tuple[int, int]], grid: Grid) -> float:
    hours = grid.step / MINUTE / 60
    ran = sum(job.power_kw * hours * float(grid.intensity[p, s] * grid.pue[p]) for p, s in cells)
    for place in {p for p, _ in cells} - {job.home}:
        between = [float(grid.intensity[p, s] + grid.intensity[job.home, s]) / 2 for p, s in cells if p == place]
        ran += job.data_gb * grid.network_kwh_per_gb * sum(between) / len(between)
    return ran


def plans(job: Job, grid: Grid) -> list[Plan]:
    """Every way to run one job on whole slots, the cheapest first."""
    step = grid.step // MINUTE
    first, last, length = job.release // step, job.deadline // step, job.duration // step
    ways: Iterator[tuple[tuple[int, int], ...]]
    if not job.interruptible:
        starts = range(first, last - length + 1)
        ways = (tuple((p, s) for s in range(start, start + length)) for p in job.allowed for start in starts)
    else:
        roams = not (job.data_gb and grid.network_kwh_per_gb)
        slots = list(combinations(range(first, last), length))
        where = list(product(job.allowed, repeat=length)) if roams else [(p,) * length for p in job.allowed]
        ways = (tuple(zip(places, chosen, strict=True)) for places in where for chosen in slots)
    return sorted((grams(job, cells, grid), cells) for cells in ways)


def brute(listed: Sequence[Job], grid: Grid) -> float:
    """Grams of the cheapest plan of all jobs that keeps within the room; infinite: there is none."""
    offers = sorted((plans(job, grid) for job in listed), key=len)
    order = sorted(range(len(listed)), key=lambda number: len(plans(listed[number], grid)))
    rest = [sum(found[0][0] if found else math.inf for found in offers[number:]) for number in range(len(offers) + 1)]
    room = {(p, s): float(grid.capacity_kw[p, s]) for p in range(len(grid.places)) for s in range(grid.slots)}
    best = math.inf

    def search(number: int, spent: float) -> None:
        nonlocal best
        if number == len(offers):
            best = min(best, spent)
            return
        power = listed[order[number]].power_kw
        for cost, cells in offers[number]:
            if spent + cost + rest[number + 1] >= best:
                return
            if all(room[cell] >= power - 1e-9 for cell in cells):
                for cell in cells:
                    room[cell] -= power
                search(number + 1, spent + cost)
                for cell in cells:
                    room[cell] += power

    search(0, 0.0)
    return best


def test_the_brute_force_itself() -> None:
    # One hour of 2 kW each; the other place is cheaper in hour 1, with room for one of them.
    grid = world([[300, 200], [250, 100]], [[math.inf] * 2, [2, 2]])
    pair = [Job(0, 120, 60, 2.0, allowed=(0, 1))] * 2
    assert brute(pair, grid) == 2 * 100 + 2 * 200
    # Away costs 10 GB x 1 kWh x (100 + 200) / 2 = 1500 g more: home.
    heavy = world([[300, 200], [250, 100]], network=1.0)
    assert brute([Job(0, 120, 60, 2.0, allowed=(0, 1), data_gb=10)], heavy) == 400


# Small instances

INTENSITIES = st.integers(100, 900).map(float)


@st.composite
def grids(draw: st.DrawFn, places: int, slots: int, powers: Sequence[float]) -> Grid:
    """Home, place 0, has no limit; elsewhere it is cleaner, with room for a job or two by the slot, or for none."""
    high, low = st.integers(500, 900).map(float), st.integers(100, 600).map(float)
    rooms = st.sampled_from([0.0, powers[0], powers[0], powers[-1], 2 * powers[0], powers[0] + powers[-1]])

    def rows(values: st.SearchStrategy[float]) -> list[float]:
        return draw(st.lists(values, min_size=slots, max_size=slots))

    intensity = [rows(high)] + [rows(low) for _ in range(places - 1)]
    limits = [[math.inf] * slots] + [rows(rooms) for _ in range(places - 1)]
    pue = [draw(st.sampled_from([1.0, 1.1, 1.3])) for _ in range(places)]
    return world(
        intensity, limits, step=draw(st.sampled_from([30, 60])), pue=pue, network=draw(st.sampled_from([0, 0.01]))
    )


@st.composite
def small_jobs(draw: st.DrawFn, places: int, slots: int, step: int, kind: str, powers: Sequence[float]) -> Job:
    """`unit`: a slot each. `flexible`: all may be cut. Early, and of long windows: they meet."""
    first = draw(st.integers(0, min(2, slots - 1)))
    length = 1 if kind == "unit" else draw(st.integers(1, min(3, slots - first)))
    last = draw(st.integers(first + length, slots))
    away = draw(st.sets(st.integers(1, places - 1), min_size=1)) if places > 1 and draw(st.integers(0, 4)) else set()
    data = draw(st.sampled_from([0.0, 10.0, 200.0]))
    return Job(
        first * step, last * step, length * step, draw(st.sampled_from(powers)), kind == "flexible" or draw(st.booleans()),
        0, (0, *sorted(away)), data, draw(st.sampled_from([None, first * step, 0])),
    )  # fmt: skip


@st.composite
def small_instances(draw: st.DrawFn, kinds: Sequence[str] = ("unit", "flexible", "mixed")) -> tuple[list[Job], Grid]:
    kind = draw(st.sampled_from(kinds))
    powers = (0.5, 1.0, 2.0, 3.3) if kind == "mixed" else (1.0,)
    places, slots = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    grid = draw(grids(places, slots, powers))
    listed = draw(st.lists(small_jobs(places, slots, grid.step // MINUTE, kind, powers), min_size=1, max_size=4))
    return listed, grid


@given(small_instances())
@settings(max_examples=150)
def test_the_optimum_is_that_of_all_plans(case: tuple[list[Job], Grid]) -> None:
    listed, grid = case
    work = table(listed, len(grid.places))
    least = brute(listed, grid)
    assert math.isfinite(least)  # home has room
    found = optimise.optimise(work, sight(grid))
    assert found.objective == pytest.approx(least, rel=1e-6)
    assert found.bound <= least + 1e-6
    charged = account(work, grid, found.schedule)
    assert float((charged.operational_g + charged.transfer_g).sum()) == pytest.approx(least, rel=1e-6)
    assert_kept("clairvoyant", listed, grid, found.schedule)
    # What knows most of the others is no better.
    relaxed = flow.solve(work, sight(grid), as_plan=False)
    assert relaxed.bound <= least + 1e-6


@given(small_instances(["unit"]))
@settings(max_examples=100)
def test_unit_jobs_three_ways(case: tuple[list[Job], Grid]) -> None:
    listed, grid = case
    work = table(listed, len(grid.places))
    least = brute(listed, grid)
    assert flow.is_plan(work, sight(grid))
    flowed, solved = flow.solve(work, sight(grid), as_plan=True), exact.solve(work, sight(grid), seconds=10)
    assert flowed.overflow == 0
    assert flowed.schedule is not None
    assert solved is not None
    for schedule in (flowed.schedule, solved.schedule):
        charged = account(work, grid, schedule)
        assert float((charged.operational_g + charged.transfer_g).sum()) == pytest.approx(least, rel=1e-6)
        assert_kept("clairvoyant", listed, grid, schedule)
    for bound in (flowed.bound, solved.bound, flow.solve(work, sight(grid), as_plan=False).bound):
        assert bound <= least + 1e-6
    # Nothing is lost by relaxing it but rounding: a tenth of a milligram per kWh, and CP-SAT's whole numbers.
    assert flowed.bound == pytest.approx(least, rel=1e-5)
    assert solved.bound == pytest.approx(least, rel=1e-6)


# The rules


def assert_kept(policy: str, listed: Sequence[Job], grid: Grid, schedule: Schedule) -> None:
    """Minute by minute: length, window, places, one at a time, and the room of every slot."""
    step = grid.step // MINUTE
    used: dict[tuple[int, int], float] = {}
    count = len(listed)
    fallbacks = schedule.fallbacks if len(schedule.fallbacks) else np.zeros(count, dtype=bool)
    late = schedule.late if len(schedule.late) else np.zeros(count, dtype=bool)
    assert len(fallbacks) == len(late) == count
    rows: dict[int, list[tuple[int, int, int]]] = {}
    columns = (schedule.job, schedule.place, (schedule.start - START) // MINUTE, (schedule.end - START) // MINUTE)
    for number, place, start, end in zip(*(column.tolist() for column in columns), strict=True):
        rows.setdefault(number, []).append((start, end, place))
    for number, job in enumerate(listed):
        mine = rows.get(number, [])
        if not mine:
            assert late[number], f"{policy}: {job} has no row and nobody says so"
            continue
        ran = sum(end - start for start, end, _ in mine)
        # As time goes by, work may have begun that finds no room for its rest before the record ends: late, and counted.
        assert ran == job.duration or (policy == "optimal" and late[number] and ran < job.duration)
        assert all(end <= start for (_, end, _), (start, *_) in pairwise(mine))
        earliest = job.earliest if policy == BASELINE else job.release
        assert mine[0][0] >= earliest
        if policy == BASELINE:
            assert mine == [(job.earliest, job.earliest + job.duration, job.home)]
            continue
        assert mine[-1][1] <= job.deadline or late[number], f"{policy}: {mine} of {job} is late and nobody says so"
        places = {place for *_, place in mine}
        assert places <= set(job.allowed)
        if not job.interruptible:
            assert len(mine) == 1
        if job.data_gb and grid.network_kwh_per_gb:
            assert len(places) == 1 or (policy == "optimal" and len(places - {job.home}) == 1)
        if fallbacks[number]:
            continue
        for cell in {(place, m // step) for start, end, place in mine for m in range(start, end)}:
            used[cell] = used.get(cell, 0.0) + job.power_kw
    for (place, slot), power in used.items():
        room = grid.capacity_kw[place, slot] if 0 <= slot < grid.slots else math.inf
        assert power <= room + 1e-6, f"{policy}: {power} of {room} kW at {place} in slot {slot}"


@st.composite
def any_jobs(draw: st.DrawFn, places: int, slots: int, step: int, powers: Sequence[float], *, is_aligned: bool) -> Job:
    """Windows and lengths on whole slots or on any minute; all of it within the record. Home may be forbidden."""
    unit = step if is_aligned else 1
    end = slots * step // unit
    earliest = draw(st.integers(0, end * 2 // 3))
    release = draw(st.one_of(st.just(earliest), st.integers(0, end * 2 // 3)))
    latest = max(earliest, release)
    length = draw(st.integers(1, min(4 * step // unit, end - latest)))
    deadline = draw(st.integers(latest + length, end))
    home = draw(st.integers(0, places - 1))
    allowed = draw(st.sets(st.integers(0, places - 1), min_size=1)) | (
        set() if draw(st.integers(0, 3)) == 0 else {home}
    )
    return Job(
        earliest * unit, deadline * unit, length * unit, draw(st.sampled_from(powers)), draw(st.booleans()),
        home, tuple(sorted(allowed)), draw(st.sampled_from([0.0, 50.0])), release * unit,
    )  # fmt: skip


@st.composite
def any_instances(draw: st.DrawFn, *, is_aligned: bool) -> tuple[list[Job], Grid]:
    """Up to eight jobs in three places over twelve slots; gaps, and limits at all places or some."""
    places, slots = draw(st.integers(1, 3)), 12
    values = st.one_of(INTENSITIES, st.just(math.nan)) if draw(st.booleans()) else INTENSITIES
    row = st.lists(values, min_size=slots, max_size=slots)
    room = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=slots, max_size=slots)
    limits = [[math.inf] * slots if draw(st.booleans()) else draw(room) for _ in range(places)]
    step = draw(st.sampled_from([30, 60]))
    network = draw(st.sampled_from([0.0, 0.01]))
    powers = draw(st.sampled_from([(1.0,), (0.5, 1.0, 2.0)]))
    grid = world([draw(row) for _ in range(places)], limits, step=step, network=network)
    listed = draw(st.lists(any_jobs(places, slots, step, powers, is_aligned=is_aligned), min_size=1, max_size=8))
    return listed, grid


@pytest.mark.parametrize("is_aligned", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
@given(data=st.data())
@settings(max_examples=40)
def test_no_policy_breaks_a_rule(policy: str, is_aligned: bool, data: st.DataObject) -> None:
    listed, grid = data.draw(any_instances(is_aligned=is_aligned))
    work = table(listed, len(grid.places))
    if policy == "clairvoyant":
        schedule = simulator.simulate(work, grid, [policy], seconds=5).of(policy).schedule
    else:
        schedule = simulator.run(policy, work, grid, Belief("perfect", grid.intensity))
    assert_kept(policy, listed, grid, schedule)


def test_two_places_inside_one_slot_are_one_after_the_other() -> None:
    """Found by the rule above: four minutes in each place, of a slot of which nine are left, at the same four minutes."""
    nan = float("nan")
    listed = [
        Job(0, 241, 1, 0.5, allowed=(0, 1)),
        Job(245, 489, 240, 0.5, interruptible=True, home=1, allowed=(0, 1)),
    ]
    rows = [[nan] * 4 + [100.0] * 5 + [nan] * 3, [nan] * 2 + [100.0] * 10]
    grid = world(rows, [[float("inf")] * 12, [0.0] * 8 + [0.5, 0.0, 0.0, 0.0]])
    work = table(listed, 2)
    schedule = simulator.simulate(work, grid, ["clairvoyant"], seconds=5).of("clairvoyant").schedule
    assert_kept("clairvoyant", listed, grid, schedule)


# Figures worked out by hand


def planned(policy: str, listed: Sequence[Job], grid: Grid) -> Schedule:
    return simulator.run(policy, table(listed, len(grid.places)), grid, Belief("perfect", grid.intensity))


def minutes_of(schedule: Schedule) -> list[tuple[int, int, int, int]]:
    """(job, place, start, end)"""
    start, end = (schedule.start - START) // MINUTE, (schedule.end - START) // MINUTE
    return list(zip(schedule.job.tolist(), schedule.place.tolist(), start.tolist(), end.tolist(), strict=True))


QUEUEING = [policy for policy in POLICIES if policy not in (BASELINE, "clairvoyant")]


@pytest.mark.parametrize("policy", QUEUEING)
def test_without_room_before_the_deadline_a_job_runs_late_and_says_so(policy: str) -> None:
    # Due after the first hour, and there is no room before the third.
    schedule = planned(policy, [Job(0, 60, 60)], world([[100, 100, 100]], [[0, 0, 1]]))
    assert minutes_of(schedule) == [(0, 0, 120, 180)]
    assert schedule.late.tolist() == [True]
    # Two machines' worth of work for one machine: one of both is late.
    schedule = planned(policy, [Job(0, 60, 60), Job(0, 60, 60)], world([[100, 100]], [[1, 1]]))
    assert sorted(row[2:] for row in minutes_of(schedule)) == [(0, 60), (60, 120)]
    assert sorted(schedule.late.tolist()) == [False, True]


@pytest.mark.parametrize("policy", QUEUEING)
def test_a_job_that_cannot_wait_for_the_next_slot_still_asks_for_room(policy: str) -> None:
    # Released at 0:10, to be done by 0:40; there is no room in the first hour.
    schedule = planned(policy, [Job(10, 40, 20)], world([[100, 100]], [[0, 1]]))
    assert minutes_of(schedule) == [(0, 0, 60, 80)]
    assert schedule.late.tolist() == [True]


@pytest.mark.parametrize("policy", [*QUEUEING, "clairvoyant"])
def test_where_nothing_is_known_a_job_runs_at_once_at_home_and_says_so(policy: str) -> None:
    grid = world([[math.nan, math.nan, 100], [math.nan, math.nan, 100]], [[0, 0, 0], [1, 1, 1]])
    work = table([Job(0, 120, 60, allowed=(0, 1))], 2)
    if policy == "clairvoyant":
        schedule = optimise.optimise(work, sight(grid)).schedule
    else:
        schedule = simulator.run(policy, work, grid, Belief("perfect", grid.intensity))
    # At home there is no room at all, so that it is the other place.
    assert minutes_of(schedule) == [(0, 1, 0, 60)]
    assert schedule.fallbacks.tolist() == [True]


def test_work_that_is_never_finished_is_no_saving() -> None:
    # Two hours of work, one hour of room: the second half never runs, and its grams are not saved but unknown.
    grid = world([[100, 100]], [[1, 0]])
    found = simulator.simulate(table([Job(0, 120, 120, interruptible=True)], 1), grid, ["optimal"])
    assert not found.measured.any()
    assert found.of("optimal").deadline_misses == 1


def test_a_fraction_of_a_gram_is_still_cheaper() -> None:
    # Room for one an hour; 100.9, 100.7, 100.5, 100.3 and 100.1 g for five, of which the cheapest three are taken.
    grid = world([[100.9, 100.7, 100.5, 100.3, 100.1]], [[1] * 5])
    found = optimise.optimise(table([Job(0, 300, 60)] * 3, 1), sight(grid))
    assert found.method == "min-cost flow"
    assert found.objective == pytest.approx(100.1 + 100.3 + 100.5)
    assert sorted(start for *_, start, _ in minutes_of(found.schedule)) == [120, 180, 240]


def test_limits_that_two_wishes_exceed_by_one_are_kept() -> None:
    # Both want the clean hour, which has room for one: the other takes the next, 10 g dearer.
    grid = world([[100, 110, 500]], [[1, 1, 1]])
    found = optimise.optimise(table([Job(0, 180, 60)] * 2, 1), sight(grid))
    assert found.objective == pytest.approx(210)
    assert sorted(row[2:] for row in minutes_of(found.schedule)) == [(0, 60), (60, 120)]


def test_data_stays_together_where_cutting_it_would_be_cheaper() -> None:
    # Two hours of 1 kW away from home: 100 and 300 g in one place, 300 and 100 in the other; with 1 GB at 10 kWh/GB on
    # top, at the mean of both ends: (200 + 500) / 2 x 10. Without data: 100 g each hour, in both places.
    intensity, room = [[500, 500], [100, 300], [300, 100]], [[math.inf, math.inf], [1.0, 1.0], [1.0, 1.0]]
    pair = [Job(0, 120, 120, 1.0, True, 0, (1, 2), data) for data in (1.0, 0.0)]
    for job, least in zip(pair, (400 + 3500, 200), strict=True):
        grid = world(intensity, room, network=10.0)
        crowd = [job, Job(0, 120, 60, 1.0, True, 0, (0, 1))]  # who shares a limit
        found = optimise.optimise(table([job], 3), sight(grid))
        assert found.objective == pytest.approx(least)
        assert optimise.optimise(table(crowd, 3), sight(grid)).objective == pytest.approx(brute(crowd, grid))


def test_data_that_was_moved_once_is_not_moved_again() -> None:
    # As time goes by: A costs 100 g, then 300; B 350, then 100; home 500. Two hours in A (400 g) and two in B (450 g) are
    # planned for, so A it is. An hour later B alone would be cheapest for what is left, but its data lies in A.
    intensity, room = [[500, 500], [100, 300], [350, 100]], [[math.inf, math.inf], [1.0, 1.0], [1.0, 1.0]]
    grid = world(intensity, room, network=0.01)
    assert minutes_of(planned("optimal", [Job(0, 120, 120, 1.0, True, 0, (0, 1, 2), 10.0)], grid)) == [(0, 1, 0, 120)]
    # Nor does it come home: the hour there is cheaper, but the result would have to follow.
    grid = world([[500, 200], [100, 300], [350, 100]], room, network=0.01)
    moved = minutes_of(planned("optimal", [Job(0, 120, 120, 1.0, True, 0, (0, 1, 2), 10.0)], grid))
    assert moved == [(0, 1, 0, 120)]
    # Without data it goes where it is cheapest.
    free = minutes_of(planned("optimal", [Job(0, 120, 120, 1.0, True, 0, (0, 1, 2))], grid))
    assert free == [(0, 1, 0, 60), (0, 2, 60, 120)]


def test_what_may_be_cut_is_planned_around_what_may_not() -> None:
    # Room for one. The run of two hours is planned first, under the prices of the room; the hour of work goes around it.
    grid = world([[100, 200, 300, 400]], [[1, 1, 1, 1]])
    rows = minutes_of(planned("optimal", [Job(0, 240, 120), Job(0, 240, 60, 1.0, True), Job(0, 240, 60)], grid))
    assert sorted(minute for _, _, start, end in rows for minute in range(start, end)) == list(range(240))
    assert [end - start for job, _, start, end in rows if job == 0] == [120]


def test_room_for_three_has_room_for_the_third() -> None:
    grid = world([[100, 100, 100]], [[0, 0, 0.3]])
    rows = minutes_of(planned("optimal", [Job(0, 120, 60, 0.1, True)] * 3, grid))
    assert rows == [(number, 0, 120, 180) for number in range(3)]


def test_wide_work_takes_all_of_its_power_in_every_slot_it_touches() -> None:
    # 2 kW fit only once an hour; from 0:30 to 1:30 a run touches two hours, in which nobody else has room.
    grid = world([[100, 100, 100, 100]], [[2, 2, 2, 2]])
    pair = [Job(30, 90, 60, 2.0), Job(30, 240, 60, 1.0, interruptible=True)]
    for policy in ("greedy", "optimal", "lowest-window", "wait-awhile"):
        rows = minutes_of(planned(policy, pair, grid))
        assert (0, 0, 30, 90) in rows
        assert min(start for job, _, start, _ in rows if job == 1) >= 120


# Larger instances


def test_two_hundred_unit_jobs_against_an_lp() -> None:
    draw = np.random.default_rng(7)
    places, slots, count = 4, 24, 200
    intensity = draw.integers(100, 900, (places, slots)).astype(float)
    limits = draw.integers(0, 4, (places, slots)).astype(float)
    limits[0] = math.inf
    grid = world(intensity.tolist(), limits.tolist(), pue=(1.3, 1.1, 1.0, 1.2), network=0.01)
    listed = []
    for _ in range(count):
        first = int(draw.integers(0, slots))
        last = min(first + 1 + int(draw.choice((0, 3, 6, 12))), slots)
        away = [place for place in (1, 2, 3) if draw.random() < 0.6]
        data = float(draw.choice((0, 10)))
        listed.append(Job(first * 60, last * 60, 60, 1.0, bool(draw.random() < 0.5), 0, (0, *away), data))
    # A column per job and cell, a row per job (once) and per cell with a limit (at most its room).
    columns = [(number, cells[0], cost) for number, job in enumerate(listed) for cost, cells in plans(job, grid)]
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    for *_, cost in columns:
        solver.addCol(cost, 0.0, 1.0, 0, np.zeros(0, dtype=np.int32), np.zeros(0))
    for number in range(count):
        mine = np.array([at for at, (owner, *_) in enumerate(columns) if owner == number], dtype=np.int32)
        solver.addRow(1.0, 1.0, len(mine), mine, np.ones(len(mine)))
    for cell in product(range(1, places), range(slots)):
        here = np.array([at for at, (_, used, _) in enumerate(columns) if used == cell], dtype=np.int32)
        solver.addRow(-highspy.kHighsInf, float(limits[cell]), len(here), here, np.ones(len(here)))
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    least = solver.getInfo().objective_function_value
    found = optimise.optimise(table(listed, places), sight(grid))
    assert found.method == "min-cost flow"
    assert found.objective == pytest.approx(least, rel=1e-6)
    assert found.bound <= least + 1e-6
    assert_kept("clairvoyant", listed, grid, found.schedule)
    # Limits matter here: alone, jobs would cost less.
    assert least > 1.01 * sum(plans(job, grid)[0][0] for job in listed)


def listed_of(work: Jobs) -> list[Job]:
    """Columns of jobs that begin at 0, as rows."""

    def minutes(column: np.ndarray) -> list[int]:
        return [int(value) // MINUTE for value in column]

    times = (minutes(c) for c in (work.earliest, work.deadline, work.duration, work.submitted))
    return [
        Job(
            earliest, deadline, duration, float(work.power_kw[number]), bool(work.interruptible[number]),
            int(work.home[number]), tuple(np.flatnonzero(work.allowed[number]).tolist()),
            float(work.data_gb[number]), submitted,
        )
        for number, (earliest, deadline, duration, submitted) in enumerate(zip(*times, strict=True))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def mixed() -> tuple[list[Job], Jobs, Grid]:
    """400 jobs of mixed power, length and data, moved to where the other instances of this file begin."""
    work, grid = instance(400, mixed=True)
    listed = listed_of(work)
    return listed, table(listed, len(grid.places)), replace(grid, start=START)


def test_mixed_work_is_close_to_its_bound(mixed: tuple[list[Job], Jobs, Grid]) -> None:
    listed, work, grid = mixed
    found = optimise.optimise(work, sight(grid), seconds=20)
    assert found.method == "shadow prices and local search"
    assert found.gap_pct <= 2
    assert found.objective <= 1.02 * found.bound
    assert not found.schedule.late.any()
    assert_kept("clairvoyant", listed, grid, found.schedule)
    charged = account(work, grid, found.schedule)
    assert float((charged.operational_g + charged.transfer_g).sum()) == pytest.approx(found.objective)


def test_without_time_the_plan_is_greedy_and_kept(mixed: tuple[list[Job], Jobs, Grid]) -> None:
    listed, work, grid = mixed
    found = optimise.optimise(work, sight(grid), seconds=0)
    assert found.method.startswith("greedy")
    assert found.bound <= found.objective
    assert found.gap_pct > 0
    assert_kept("clairvoyant", listed, grid, found.schedule)
    assert len(np.unique(found.schedule.job)) == len(work)
