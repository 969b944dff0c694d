"""One job at a time, to the minute: every policy against a walk over single minutes, and figures worked out by hand.

The brute force here knows no slots: prices are an array of minutes, starts are tried one by one, cheap minutes are sorted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.placement import simulator
from greenops_pipelines.placement.belief import Belief
from greenops_pipelines.placement.model import MINUTE, Floats, Grid, Jobs, Schedule, account
from greenops_pipelines.placement.policies import POLICIES

TEMPORAL = ("run-now-home", "all-wait", "lowest-slot", "lowest-window", "carbon-time", "ecovisor", "wait-awhile")
SPATIAL = ("carbon-first", "greedy", "optimal", "clairvoyant")
SEEDS = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Job:
    """Times and lengths in minutes from the beginning of the record; two places, of which the first is home."""

    earliest: int
    deadline: int
    duration: int
    submitted: int | None = None
    interruptible: bool = False
    data_gb: float = 0.0
    power_kw: float = 1.0
    is_bound: bool = False
    """Allowed at home alone."""

    @property
    def release(self) -> int:
        return max(self.earliest, self.earliest if self.submitted is None else self.submitted)


def jobs(listed: Sequence[Job], places: int = 1) -> Jobs:
    def times(values: list[int]) -> np.ndarray:
        return np.array(values, dtype=np.int64) * MINUTE

    return Jobs(
        tuple(f"job-{number}" for number in range(len(listed))),
        times([job.earliest if job.submitted is None else job.submitted for job in listed]),
        times([job.earliest for job in listed]),
        times([job.deadline for job in listed]),
        times([job.duration for job in listed]),
        np.array([job.power_kw for job in listed]),
        np.array([job.interruptible for job in listed]),
        np.zeros(len(listed), dtype=np.int64),
        np.array([[place == 0 or not job.is_bound for place in range(places)] for job in listed]),
        np.array([job.data_gb for job in listed]),
    )


def grid(*intensity: Sequence[float] | Floats, step: int = 60, pue: Sequence[float] = (), network: float = 0.0) -> Grid:
    values = np.array(intensity, dtype=np.float64)
    factors = np.array(pue) if pue else np.ones(len(values))
    return Grid(tuple("ABC"[: len(values)]), 0, step * MINUTE, values, factors, np.full(values.shape, np.inf), network)


def decided(policy: str, work: Jobs, where: Grid) -> Schedule:
    if policy == "clairvoyant":
        return simulator.simulate(work, where, [policy]).of(policy).schedule
    return simulator.run(policy, work, where, Belief("perfect", where.intensity))


def runs(schedule: Schedule, job: int = 0) -> list[tuple[int, int]]:
    """(start, end) in minutes."""
    mine = schedule.job == job
    return [(int(a // MINUTE), int(b // MINUTE)) for a, b in zip(schedule.start[mine], schedule.end[mine], strict=True)]


def grams(policy: str, work: Jobs, where: Grid) -> Floats:
    return account(work, where, decided(policy, work, where)).total_g


# The brute force


def by_minute(intensity: Sequence[float] | Floats, step: int, pue: float = 1.0) -> Floats:
    """Grams of each minute of 1 kW; not a number in a gap."""
    return np.repeat(np.array(intensity, dtype=np.float64), step) * pue / 60


def starts(job: Job, minutes: Floats) -> dict[int, float]:
    """What a contiguous run costs from every minute that it can start in; starts that meet a gap are left out."""
    window = minutes[job.release : job.deadline]
    if len(window) < job.duration:
        return {}
    costs = np.lib.stride_tricks.sliding_window_view(window, job.duration).sum(axis=1)
    return {job.release + t: float(cost) for t, cost in enumerate(costs) if not math.isnan(cost)}


def cheapest_minutes(job: Job, minutes: Floats) -> float:
    window = np.sort(minutes[job.release : job.deadline])[: job.duration]  # gaps sort last
    return float(window.sum()) if len(window) == job.duration else math.nan


def lowest_slot(costs: dict[int, float], minutes: Floats) -> float:
    """From the first minute of the cheapest slot that the job can start in."""
    return costs[min(costs, key=lambda t: (minutes[t], t))]


def saved_per_minute(job: Job, costs: dict[int, float], start: int) -> float:
    return (costs[job.release] - costs[start]) / (start - job.release + job.duration)


def walked(job: Job, minutes: Floats, step: int) -> list[int]:
    """The minutes that Ecovisor runs in."""
    first = job.release // step * step
    day = sorted(float(minutes[t]) for t in range(first, min(first + 24 * 60, len(minutes)), step))
    rank = 0.3 * (len(day) - 1)
    below, above = day[math.floor(rank)], day[math.ceil(rank)]
    threshold = below + (above - below) * (rank - math.floor(rank))
    ran: list[int] = []
    for t in range(job.release, job.deadline):
        needed = job.duration - len(ran)
        if needed and (needed == job.deadline - t or minutes[t] <= threshold + 1e-9):
            ran.append(t)
    return ran


@st.composite
def single_jobs(draw: st.DrawFn, slots: int, step: int, *, slack: int = 600) -> Job:
    """Nothing on the edge of a slot but by chance, all of it within the record."""
    earliest = draw(st.integers(0, slots * step // 2))
    submitted = draw(st.one_of(st.none(), st.integers(0, earliest + 90)))
    release = max(earliest, submitted or 0)
    duration = draw(st.integers(1, 250))
    deadline = draw(st.integers(release + duration, release + duration + slack))
    power = draw(st.sampled_from([0.5, 1.0, 3.0]))
    return Job(earliest, deadline, duration, submitted, draw(st.booleans()), power_kw=power)


STEPS = pytest.mark.parametrize("step", [30, 60])


@STEPS
@given(data=st.data())
@settings(max_examples=120)
def test_temporal_policies_are_exact_to_the_minute(step: int, data: st.DataObject) -> None:
    slots = 48 * 60 // step
    # Each value once: of two slots alike, either may be taken, and a run from the other one costs something else.
    intensity = np.random.default_rng(data.draw(SEEDS)).permutation(900)[:slots]
    listed = data.draw(st.lists(single_jobs(slots, step), min_size=1, max_size=6))
    work, where, minutes = jobs(listed), grid(intensity, step=step), by_minute(intensity, step)
    found = {policy: grams(policy, work, where) for policy in TEMPORAL}
    schedules = {policy: decided(policy, work, where) for policy in TEMPORAL}
    for number, job in enumerate(listed):
        costs = starts(job, minutes)
        expected = {
            "run-now-home": float(minutes[job.earliest : job.earliest + job.duration].sum()),
            "all-wait": costs[job.deadline - job.duration],
            "lowest-slot": lowest_slot(costs, minutes),
            "lowest-window": min(costs.values()),
            "wait-awhile": cheapest_minutes(job, minutes) if job.interruptible else min(costs.values()),
            "ecovisor": sum(minutes[walked(job, minutes, step)]) if job.interruptible else min(costs.values()),
        }
        for policy, cost in expected.items():
            assert found[policy][number] == pytest.approx(job.power_kw * cost, abs=1e-6), (policy, job)
        [(start, end)] = runs(schedules["carbon-time"], number)
        assert end - start == job.duration
        best = max(saved_per_minute(job, costs, t) for t in costs)
        assert saved_per_minute(job, costs, start) == pytest.approx(best, abs=1e-9), job
        if job.interruptible:
            ran = [t for a, b in runs(schedules["ecovisor"], number) for t in range(a, b)]
            assert ran == walked(job, minutes, step), job


@STEPS
@given(data=st.data())
@settings(max_examples=80)
def test_the_cheapest_of_several_places(step: int, data: st.DataObject) -> None:
    """Work without data roams; contiguous work, and work with data, is in one place; moving costs the mean of both ends."""
    slots, pue, network = 24 * 60 // step, (1.35, 1.1), 0.02
    # Few values: many ties, in which home and away are both right.
    both = 50.0 * np.random.default_rng(data.draw(SEEDS)).integers(0, 12, (2, slots))
    listed = data.draw(st.lists(single_jobs(slots, step, slack=300), min_size=1, max_size=4))
    listed = [
        replace(job, data_gb=data.draw(st.sampled_from([0.0, 0.0, 40.0])), is_bound=data.draw(st.booleans()))
        for job in listed
    ]
    work, where = jobs(listed, 2), grid(*both, step=step, pue=pue, network=network)
    found = {policy: grams(policy, work, where) for policy in SPATIAL}
    for number, job in enumerate(listed):
        home, away = (by_minute(row, step, factor) for row, factor in zip(both, pue, strict=True))
        # Per minute of 1 kW: kWh moved per kWh used, times the mean of the two grids, without PUE.
        share = job.data_gb * network / (job.power_kw * job.duration / 60)
        moved = away + share * (by_minute(both[0], step) + by_minute(both[1], step)) / 2
        places = [home] if job.is_bound else [home, moved]
        if not job.interruptible:
            expected = min(min(starts(job, place).values()) for place in places)
        elif job.data_gb:
            expected = min(cheapest_minutes(job, place) for place in places)
        else:
            expected = cheapest_minutes(job, np.min(places, axis=0))
        for policy in SPATIAL:
            assert found[policy][number] == pytest.approx(job.power_kw * expected, abs=1e-6), (policy, job)


@STEPS
@given(data=st.data())
@settings(max_examples=80)
def test_who_looks_never_runs_in_a_gap(step: int, data: st.DataObject) -> None:
    slots = 24 * 60 // step
    generator = np.random.default_rng(data.draw(SEEDS))
    intensity = np.where(generator.random(slots) < 0.3, np.nan, generator.integers(0, 900, slots))
    # Some windows reach past the end of the record, which is a gap too.
    listed = data.draw(st.lists(single_jobs(slots, step, slack=900), min_size=1, max_size=5))
    work, where, minutes = jobs(listed), grid(intensity, step=step), by_minute(intensity, step)
    for policy in ("lowest-slot", "lowest-window", "carbon-time", "wait-awhile", "carbon-first", "optimal"):
        schedule = decided(policy, work, where)
        found = account(work, where, schedule).total_g
        for number, job in enumerate(listed):
            can_be_cut = job.interruptible and policy in ("wait-awhile", "carbon-first", "optimal")
            costs = starts(job, minutes)
            cheapest = cheapest_minutes(job, minutes) if can_be_cut else min(costs.values(), default=math.nan)
            if math.isnan(cheapest):
                # No way around the gap: it runs now, and is said to have done so.
                assert schedule.fallbacks[number]
                assert runs(schedule, number) == [(job.release, job.release + job.duration)]
                continue
            assert not schedule.fallbacks[number]
            assert np.isfinite(found[number]), (policy, job)
            if policy not in ("lowest-slot", "carbon-time"):
                assert found[number] == pytest.approx(job.power_kw * cheapest, abs=1e-6), (policy, job)


# By hand


def test_a_job_that_starts_inside_a_slot_pays_for_its_minutes() -> None:
    # 01:36 to 02:36 at 2 kW: 0.8 kWh of the second hour, 1.2 kWh of the third.
    job, where = Job(96, 156, 60, power_kw=2), grid([100, 200, 300])
    assert grams("run-now-home", jobs([job]), where) == pytest.approx([0.8 * 200 + 1.2 * 300])
    # The same in half hours: 24 minutes of one slot, 30 of the next, 6 of a third.
    where = grid([100, 100, 200, 250, 300, 350], step=30)
    assert grams("run-now-home", jobs([job]), where) == pytest.approx([2 * (24 * 250 + 30 * 300 + 6 * 350) / 60])


#                      00   01   02   03   04   05   06   07
DAY = [float(value) for value in (500, 400, 100, 450, 250, 200, 240, 300)]


@pytest.mark.parametrize(
    ("policy", "ran", "total"),
    [
        # 2 h from 00:30, to be done by 08:00.
        ("run-now-home", [(30, 150)], 0.5 * 500 + 400 + 0.5 * 100),
        ("all-wait", [(360, 480)], 240 + 300),
        # 02:00 is the cheapest slot to start in, though the hour after it is dear.
        ("lowest-slot", [(120, 240)], 100 + 450),
        ("lowest-window", [(300, 420)], 200 + 240),
        # Now: 700 g. From 01:00 on 200 g less, done 2.5 h after 00:30: 80 g/h. From 02:00 on 150 in 3.5 h: 43 g/h.
        # From 05:00 on, where the run is cheapest, 260 in 6.5 h: 40 g/h.
        ("carbon-time", [(60, 180)], 400 + 100),
    ],
)  # fmt: skip
def test_contiguous_policies_by_hand(policy: str, ran: list[tuple[int, int]], total: float) -> None:
    work = jobs([Job(30, 480, 120)])
    assert runs(decided(policy, work, grid(DAY))) == ran
    assert grams(policy, work, grid(DAY)) == pytest.approx([total])


def test_wait_awhile_by_hand() -> None:
    # 150 minutes of 00:30 to 08:00: 02:00 and 05:00 whole, and half of 06:00, next to it.
    work = jobs([Job(30, 480, 150, interruptible=True)])
    assert runs(decided("wait-awhile", work, grid(DAY))) == [(120, 180), (300, 390)]
    assert grams("wait-awhile", work, grid(DAY)) == pytest.approx([100 + 200 + 120])


def test_ecovisor_by_hand() -> None:
    # The record holds 8 of the 24 h: 100, 200, 240, 250, ...; the 30th percentile is 2.1 steps up: 240 + 0.1 x 10 = 241.
    work = jobs([Job(0, 480, 150, interruptible=True)])
    assert runs(decided("ecovisor", work, grid(DAY))) == [(120, 180), (300, 390)]
    # To be done by 06:00: once 90 minutes are left and needed, from 04:30 on, it runs on whatever comes.
    work = jobs([Job(0, 360, 150, interruptible=True)])
    assert runs(decided("ecovisor", work, grid(DAY))) == [(120, 180), (270, 360)]
    # 24 hours of slots, no more: at 0 to 23 the threshold is 6.9, and what comes a day later is nothing to it.
    long = [*map(float, range(23, -1, -1)), *[0.0] * 24]
    work = jobs([Job(0, 47 * 60, 7 * 60, interruptible=True)])
    assert runs(decided("ecovisor", work, grid(long))) == [(17 * 60, 24 * 60)]


def test_ecovisor_away_from_home_runs_in_the_cleanest_slots_too() -> None:
    """Moving the data is no reason to wait: a price with the transfer in it is never below the threshold without.

    Home (A) is not allowed. The 30th percentile of 60, 90, 80, 10, 70, 60 is 60: 00:00 is at it.
    """
    work = jobs([Job(0, 360, 60, interruptible=True, data_gb=10)], 2)
    work = replace(work, allowed=np.array([[False, True]]))
    where = grid([100.0] * 6, [60, 90, 80, 10, 70, 60], network=0.1)
    assert runs(decided("ecovisor", work, where)) == [(0, 60)]


@pytest.mark.parametrize("policy", ["ecovisor", "wait-awhile"])
def test_a_policy_for_interruptible_work_treats_other_work_as_lowest_window(policy: str) -> None:
    assert runs(decided(policy, jobs([Job(30, 480, 120)]), grid(DAY))) == [(300, 420)]


def test_width_and_pue_multiply() -> None:
    where = grid([100.0, 50.0], [80.0, 80.0], pue=(1.5, 1.2))
    work = jobs([Job(0, 120, 60, power_kw=4)], 2)
    assert grams("run-now-home", work, where) == pytest.approx([4 * 1.5 * 100])
    assert grams("lowest-window", work, where) == pytest.approx([4 * 1.5 * 50])
    assert grams("carbon-first", work, where) == pytest.approx([4 * 1.5 * 50])  # 75 at home, 96 away


def test_moving_the_data_costs_the_mean_of_both_ends() -> None:
    where = grid([400.0, 400.0], [100.0, 100.0], network=0.01)
    # 1 kWh there instead of here saves 300 g; 100 GB x 0.01 kWh at 250 g/kWh cost 250 g, 130 GB 325 g.
    assert grams("carbon-first", jobs([Job(0, 120, 60, data_gb=100)], 2), where) == pytest.approx([100 + 250])
    assert grams("carbon-first", jobs([Job(0, 120, 60, data_gb=130)], 2), where) == pytest.approx([400])


def test_cost_first_goes_where_it_is_cheap_whatever_it_emits() -> None:
    where = replace(grid([100.0] * 2, [900.0] * 2, [50.0] * 2), price_per_kwh=np.array([0.3, 0.2, 0.25]))
    found = account(work := jobs([Job(0, 120, 60)], 3), where, decided("cost-first", work, where))
    assert found.cost is not None
    assert (found.cost.tolist(), found.total_g.tolist()) == ([0.2], [900.0])


def test_the_best_static_region_is_the_cleanest_on_average_with_its_pue() -> None:
    where = grid([90.0, 90.0, 90.0], [100.0, 20.0, 120.0], [80.0, 80.0, 80.0], pue=(1.0, 1.05, 1.2))
    # 90, 84 and 96 on average; in the first hour B is the dirtiest.
    work = jobs([Job(0, 180, 60)], 3)
    schedule = decided("run-now-best-region", work, where)
    assert (schedule.place.tolist(), runs(schedule)) == ([1], [(0, 60)])


def test_nothing_but_the_baseline_starts_before_it_was_submitted() -> None:
    work = jobs([Job(0, 240, 60, submitted=90)])
    where = grid([10.0, 20.0, 40.0, 30.0])
    begins = {policy: runs(decided(policy, work, where))[0][0] for policy in POLICIES}
    assert [begins.pop(policy) for policy in ("run-now-home", "all-wait", "lowest-slot")] == [0, 180, 90]
    # 30 minutes at 20 and 30 at 40 are as cheap as the hour at 30: either will do.
    assert set(begins.values()) <= {90, 180}


def test_a_window_that_ends_with_the_record_is_used_to_its_end() -> None:
    assert runs(decided("lowest-window", jobs([Job(0, 240, 90)]), grid([500, 400, 300, 200]))) == [(150, 240)]


def test_a_window_past_the_end_of_the_record_is_used_as_far_as_it_is_known() -> None:
    work = jobs([Job(0, 600, 90)])
    assert runs(decided("lowest-window", work, grid([500, 400, 300, 200]))) == [(150, 240)]
    assert np.isnan(grams("all-wait", work, grid([500, 400, 300, 200]))).all()
