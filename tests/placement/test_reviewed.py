"""Faults that a review found in placement, each by its smallest case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from greenops_pipelines.errors import BadInput
from greenops_pipelines.placement import flow, optimise, rolling, simulator
from greenops_pipelines.placement.belief import Belief
from greenops_pipelines.placement.model import HOUR, MINUTE, Grid, Jobs, Schedule
from greenops_pipelines.placement.sight import Sight


def jobs(
    *windows: tuple[int, int, int, int], interruptible: bool = False, places: int = 1, kw: float = 1.0, gb: float = 0.0
) -> Jobs:
    """(submitted, earliest start, deadline, duration) in minutes; home is the first place, all are allowed."""
    submitted, earliest, deadline, duration = (np.array(column) * MINUTE for column in zip(*windows, strict=True))
    count = len(windows)
    return Jobs(
        tuple(map(str, range(count))), submitted, earliest, deadline, duration, np.full(count, kw),
        np.full(count, interruptible), np.zeros(count, dtype=np.int64), np.ones((count, places), dtype=bool),
        np.full(count, gb),
    )  # fmt: skip


def grid(intensity: list[list[float]], room: list[list[float]] | None = None, network: float = 0.0) -> Grid:
    values = np.array(intensity, dtype=np.float64)
    capacity = np.full(values.shape, np.inf) if room is None else np.array(room, dtype=np.float64)
    return Grid(tuple("AB"[: len(values)]), 0, HOUR, values, np.ones(len(values)), capacity, network)


def perfect(where: Grid) -> Belief:
    return Belief("perfect", where.intensity)


def rows(schedule: Schedule, job: int) -> list[tuple[str, int, int]]:
    """(place, start, end) of a job, in minutes."""
    mine = np.flatnonzero(schedule.job == job)
    return [("AB"[schedule.place[i]], schedule.start[i] // MINUTE, schedule.end[i] // MINUTE) for i in mine]


def test_the_flow_is_a_bound_where_work_is_no_whole_number_of_watt_minutes() -> None:
    # 132 minutes at a seventh of a kW: an hour at 200, an hour at 300, 12 minutes at 700 g/kWh. 91.4286 g, not 91.4333.
    where = grid([[700, 800, 300, 200, 700]], [[2.0] * 5])
    work = jobs((0, 0, 300, 132), interruptible=True, kw=1 / 7)
    relaxed = flow.solve(work, Sight(where, perfect(where), "both"), as_plan=False)
    assert relaxed.bound <= (200 + 300 + 0.2 * 700) / 7 + 1e-6


@pytest.mark.parametrize("policy", ["run-now-home", "clairvoyant"])
def test_an_unknown_forecast_is_refused_even_if_nobody_asks_it(policy: str) -> None:
    with pytest.raises(BadInput, match="--forecast: found 'nonsense'"):
        simulator.simulate(jobs((0, 0, 60, 60)), grid([[100]]), [policy], forecast="nonsense")


def test_who_is_left_out_is_in_no_sum_and_no_divisor() -> None:
    # The last slot is unknown. `all-wait` runs the second job in it: only the first one counts, 400 g before, 100 after.
    where = grid([[400, 100, 200, np.nan]])
    work = jobs((0, 0, 120, 60), (0, 0, 240, 60))
    found = simulator.simulate(work, where, ["run-now-home", "all-wait"])
    assert found.measured.tolist() == [True, False]
    assert (found.of("run-now-home").total_g, found.of("all-wait").total_g) == (400, 100)
    assert found.of("run-now-home").saving_pct == 0
    assert found.of("all-wait").saving_pct == pytest.approx(75)
    assert found.bound_saving_pct == pytest.approx(75)


def test_work_with_data_does_not_come_home_half_done() -> None:
    where = grid([[300, 100], [10, 300]], [[1, 1], [1, 1]], network=0.01)
    work = jobs((0, 0, 120, 120), interruptible=True, places=2, gb=1)
    assert len({place for place, _, _ in rows(simulator.run("optimal", work, where, perfect(where)), 0)}) == 1


def test_who_comes_later_does_not_make_work_that_has_begun_late(monkeypatch: pytest.MonkeyPatch) -> None:
    # One kW of room in B. The first job has begun there, has to stay, and needs B from 120 to 240 of its five hours; the
    # others come at 120 and may run at home as well. Seen where there are too many of them for CP-SAT.
    monkeypatch.setattr(rolling, "_FEW", 0)
    where = grid([[300] * 6, [150, 270, 70, 30, 160, 80]], [[np.inf] * 6, [1.0] * 6], network=0.001)
    work = jobs((0, 0, 300, 180), (120, 120, 240, 120), (120, 120, 360, 180), places=2, gb=1)
    work = replace(work, interruptible=np.array([True, False, False]))
    made = simulator.run("optimal", work, where, perfect(where))
    assert made.late.tolist() == [False, False, False]
    assert [rows(made, job) for job in range(3)] == [
        [("B", 0, 60), ("B", 120, 240)], [("A", 120, 240)], [("A", 120, 300)],
    ]  # fmt: skip


@pytest.mark.parametrize("late_by", [0, 1])
def test_a_microsecond_does_not_make_the_exact_plan_arbitrary(late_by: int) -> None:
    # Room for one. 150 and 60 minutes in the hours of 10, 20 and 50 g, and half of the hour of 90 g: 125 g.
    where = grid([[100, 50, 300, 20, 90, 10, 400, 200]], [[1.0] * 8])
    work = jobs((1, 1, 480, 150), (1, 1, 480, 60), interruptible=True)
    work = replace(work, submitted=work.submitted + late_by, earliest=work.earliest + late_by)
    found = optimise.optimise(work, Sight(where, perfect(where), "both"))
    assert found.objective == pytest.approx(125)
    assert 0 < found.bound <= 125.000001


def test_optimal_keeps_to_the_bound_where_data_moves() -> None:
    # Two hours with 5 GB: remote at 100 g, the last hour at home at 5 g would be 33.1 g, of a plan that nobody may make.
    home, remote = [10, 100, 100, 5, 100], [10, 5, 100, 100, 100]
    where = grid([home, remote], [[np.inf] * 5, [4.0] * 5], network=0.05)
    found = simulator.simulate(jobs((60, 60, 240, 120), interruptible=True, places=2, gb=5), where, ["optimal"])
    assert found.bound_g is not None
    assert found.of("optimal").total_g >= found.bound_g - 1e-9
    assert len({place for place, _, _ in rows(found.of("optimal").schedule, 0)}) == 1


def test_optimal_begins_inside_the_slot_of_the_release() -> None:
    # 50 minutes from 00:05: 8.3 g in the first hour, 83.3 g if they waited for the second.
    where = grid([[10, 100, 200, 300]], [[5.0] * 4])
    schedule = simulator.run("optimal", jobs((5, 5, 180, 50)), where, perfect(where))
    assert rows(schedule, 0) == [("A", 5, 55)]


def test_who_waits_for_a_slot_keeps_its_room_from_who_comes_after_it() -> None:
    # Room for one. The first waits for the clean second hour (100 g). The second, of the same window and slot, sees that
    # hour taken: it begins in its own slot at 200 g, not in the third hour at 900 g.
    where = grid([[200, 100, 900]], [[1.0] * 3])
    schedule = simulator.run("optimal", jobs((1, 1, 180, 59), (2, 2, 180, 58)), where, perfect(where))
    assert rows(schedule, 0) == [("A", 60, 119)]
    assert rows(schedule, 1) == [("A", 2, 60)]


def test_a_plan_is_not_above_greedy_where_few_are_mixed() -> None:
    # A contiguous job of two hours and an interruptible one of one, room for one at a time: 20 + 30 and 5 g.
    where = grid([[5, 40, 20, 30, 90]], [[1.0] * 5])
    work = jobs((0, 0, 300, 120), (0, 0, 300, 60))
    mixed = replace(work, interruptible=np.array([False, True]))
    found = simulator.simulate(mixed, where, ["greedy", "optimal", "clairvoyant"])
    assert [found.of(name).total_g for name in ("optimal", "clairvoyant")] == pytest.approx([55, 55])


def test_who_misses_a_deadline_has_no_gap_and_no_share() -> None:
    # Two hours of work, one hour of room before the deadline. The baseline asks for no room.
    where = grid([[100, 200, 300]], [[1.0, 0.0, 1.0]])
    found = simulator.simulate(jobs((0, 0, 120, 60), (0, 0, 120, 60)), where, ["run-now-home", "greedy", "optimal"])
    for policy in ("run-now-home", "greedy", "optimal"):
        assert found.of(policy).gap_pct is None
        assert found.of(policy).oracle_share_pct is None
    assert found.of("greedy").deadline_misses == 1


def test_of_nothing_measured_there_is_no_bound() -> None:
    where = grid([[np.nan, np.nan]])
    found = simulator.simulate(jobs((0, 0, 120, 60)), where, ["optimal"])
    assert found.bound_g is None
    assert found.of("optimal").gap_pct is None
    assert found.of("optimal").unknown == 1


def test_work_of_an_unknown_window_does_not_cost_the_others_their_plan() -> None:
    # Place B is unknown. Its job runs at once; the two others, with room for one an hour, still take 10 and 20 g.
    where = grid([[10, 20, 300], [np.nan] * 3], [[1.0] * 3, [1.0] * 3])
    work = replace(
        jobs((0, 0, 180, 60), (0, 0, 180, 60), (0, 0, 180, 60), places=2),
        home=np.array([0, 0, 1]),
        allowed=np.array([[True, False], [True, False], [False, True]]),
    )
    found = optimise.optimise(work, Sight(where, perfect(where), "both"))
    assert found.objective == pytest.approx(30)
    assert found.gap_pct < 0.001
    assert found.schedule.fallbacks.tolist() == [False, False, True]
    assert rows(found.schedule, 2) == [("B", 0, 60)]
