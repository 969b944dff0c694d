"""What comes later changes nothing that was decided before: neither intensity nor jobs. And knowing it would."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.placement import policies, simulator
from greenops_pipelines.placement.belief import Belief, believe
from greenops_pipelines.placement.model import HOUR, MINUTE, Grid, Jobs, Schedule

DAYS, PLACES = 40, 3
SLOTS = DAYS * 24
FIRST = 30 * 24
"""Slot of the first submission: a month to learn from before it."""
CHANGED = FIRST + 60
"""From this slot on the world is another one."""


def world(seed: int = 0) -> tuple[Jobs, Grid]:
    """Five days of jobs, mixed in length and kind, over three places of which two have little room."""
    draw = np.random.default_rng(seed)
    hour = np.arange(SLOTS)
    level = np.array([400.0, 250.0, 120.0])[:, None]
    wander = np.cumsum(draw.normal(size=(PLACES, SLOTS)), axis=1) * 0.01
    intensity = np.maximum(level * (1 + 0.3 * np.sin(2 * np.pi * hour / 24) + wander), 5)
    count = 240
    release = np.sort(draw.integers(FIRST, FIRST + 5 * 24, count)) * HOUR
    hours = draw.choice((1, 2, 4), count)
    limits = np.full((PLACES, SLOTS), np.inf)
    limits[1:] = 2.0
    jobs = Jobs(
        tuple(map(str, range(count))),
        release,
        release,
        release + (hours + draw.choice((6, 12, 24), count)) * HOUR,
        hours * HOUR,
        np.ones(count),
        draw.random(count) < 0.7,
        np.zeros(count, dtype=np.int64),
        np.ones((count, PLACES), dtype=bool),
        draw.choice((0.0, 20.0), count),
    )
    return jobs, Grid(("A", "B", "C"), 0, HOUR, intensity, np.ones(PLACES), limits, 0.001)


def otherwise(grid: Grid) -> Grid:
    """The same past, and a future that has nothing to do with it."""
    intensity = grid.intensity.copy()
    intensity[:, CHANGED:] = np.random.default_rng(9).uniform(5, 900, intensity[:, CHANGED:].shape)
    return replace(grid, intensity=intensity)


def decided(policy: str, forecast: str, jobs: Jobs, grid: Grid) -> Schedule:
    return simulator.run(policy, jobs, grid, believed(forecast, grid))


_MADE: dict[tuple[str, bytes], Belief] = {}


def believed(forecast: str, grid: Grid) -> Belief:
    """Made once per record: policies share it."""
    key = forecast, grid.intensity.tobytes()
    if key not in _MADE:
        _MADE[key] = believe(forecast, grid, np.arange(FIRST - 1, FIRST + 7 * 24), 36)
    return _MADE[key]


def runs(schedule: Schedule, before: int, jobs: Jobs | None = None) -> set[tuple[str, int, int, int]]:
    """(job, place, start, end) of what began before a time; by position, or by name where `jobs` are given."""
    rows = zip(
        *(column.tolist() for column in (schedule.job, schedule.place, schedule.start, schedule.end)), strict=True
    )
    return {
        (str(job) if jobs is None else jobs.ids[job], place, start, end)
        for job, place, start, end in rows
        if start < before
    }


LIMITED = [policy for policy in policies.POLICIES if policy not in ("clairvoyant", "run-now-home")]
"""Those that decide as time goes by, and ask for room."""


def _cases(names: list[str], *forecasts: str) -> Any:
    """Every policy with every forecast. The optimal one solves some hundred programs: with the second one in `make soak`."""
    return pytest.mark.parametrize(
        ("policy", "forecast"),
        [
            pytest.param(policy, forecast, marks=pytest.mark.soak if policy == "optimal" and number else ())
            for policy in names
            for number, forecast in enumerate(forecasts)
        ],
    )


@_cases(LIMITED, "persistence", "ridge")
def test_another_future_changes_nothing_that_began_before_it(policy: str, forecast: str) -> None:
    jobs, grid = world()
    now = CHANGED * HOUR
    one, other = (decided(policy, forecast, jobs, each) for each in (grid, otherwise(grid)))
    # A run that is under way is cut at the change by `optimal`, which decides slot by slot what goes on.
    cut = {(job, place, start, min(end, now)) for job, place, start, end in runs(one, now)}
    assert cut == {(job, place, start, min(end, now)) for job, place, start, end in runs(other, now)}
    assert len(cut) > 50
    if policy != "optimal":
        # What is released with the change does not know of it either: it knows the slots before its own.
        released = set(np.flatnonzero(jobs.release <= now).astype(str).tolist())
        whole = [{row for row in runs(each, 10**18) if row[0] in released} for each in (one, other)]
        # Decided on release, once and for all: also what of it runs after the change.
        assert whole[0] == whole[1]


def test_with_foresight_another_future_does_change_the_past() -> None:
    """So that the test above can fail."""
    jobs, grid = world()
    one, other = (decided("optimal", "perfect", jobs, each) for each in (grid, otherwise(grid)))
    assert runs(one, CHANGED * HOUR) != runs(other, CHANGED * HOUR)


@_cases(["optimal", "greedy", "carbon-first", "wait-awhile"], "ridge", "perfect")
def test_jobs_that_come_later_change_nothing_that_ran_before(policy: str, forecast: str) -> None:
    jobs, grid = world()
    now = CHANGED * HOUR
    fewer = jobs.take(jobs.submitted < now)
    assert 50 < len(fewer) < len(jobs)
    every, known = decided(policy, forecast, jobs, grid), decided(policy, forecast, fewer, grid)
    of_all = {(job, place, start, min(end, now)) for job, place, start, end in runs(every, now, jobs)}
    assert of_all == {(job, place, start, min(end, now)) for job, place, start, end in runs(known, now, fewer)}


def test_a_job_is_not_seen_before_it_is_submitted() -> None:
    """Its earliest start lies before its submission: only the baseline starts then."""
    jobs, grid = world()
    late = replace(jobs, earliest=jobs.earliest - 3 * HOUR)
    for policy in ("optimal", "greedy", "wait-awhile"):
        schedule = decided(policy, "persistence", late, grid)
        assert (schedule.start >= late.submitted[schedule.job]).all()
    assert (decided("run-now-home", "persistence", late, grid).start == late.earliest).all()


def until(schedule: Schedule, now: int, jobs: Jobs) -> set[tuple[str, int, int, int]]:
    """What ran before a time, cut at it."""
    return {(job, place, start, min(end, now)) for job, place, start, end in runs(schedule, now, jobs)}


@_cases(LIMITED, "persistence", "ridge")
def test_work_announced_long_before_it_can_start_does_not_bring_news_from_then(policy: str, forecast: str) -> None:
    """Room is scarce everywhere. A job decides when it can start: whoever decided before cannot have made way for it."""
    jobs, grid = world()
    jobs = replace(jobs, submitted=jobs.earliest - np.random.default_rng(3).integers(0, 30, len(jobs)) * HOUR)
    limits = grid.capacity_kw.copy()
    limits[0], limits[1:] = 4.0, 1.0
    grid = replace(grid, capacity_kw=limits)
    now = CHANGED * HOUR
    one, other = (decided(policy, forecast, jobs, each) for each in (grid, otherwise(grid)))
    assert until(one, now, jobs) == until(other, now, jobs)


def hours(values: list[float], room: float) -> Grid:
    """One place from 1970 on."""
    return Grid(("A",), 0, HOUR, np.array([values]), np.ones(1), np.full((1, len(values)), room), 0.0)


def of(*rows: tuple[int, int, int, int]) -> Jobs:
    """(submitted, earliest, deadline, duration) in minutes; 1 kW at home, without a pause."""
    submitted, earliest, deadline, duration = (
        np.array(column, dtype=np.int64) * MINUTE for column in zip(*rows, strict=True)
    )
    count = len(rows)
    return Jobs(
        tuple(f"job-{number}" for number in range(count)), submitted, earliest, deadline, duration, np.ones(count),
        np.zeros(count, dtype=bool), np.zeros(count, dtype=np.int64), np.ones((count, 1), dtype=bool), np.zeros(count),
    )  # fmt: skip


@pytest.mark.parametrize("policy", LIMITED)
def test_who_comes_within_the_hour_finds_what_began_with_it(policy: str) -> None:
    # The first has to run from 0:00 to 1:00, and at 0:00 nobody knows of the second, submitted at 0:10 and due by 1:05.
    jobs, grid = of((0, 0, 60, 60), (10, 10, 65, 50)), hours([100, 100, 100], 1.0)
    schedule = simulator.run(policy, jobs, grid, Belief("perfect", grid.intensity))
    assert (schedule.job[0], schedule.start[0], schedule.end[0]) == (0, 0, HOUR)
    assert (schedule.job[1], schedule.start[1]) == (1, HOUR)
    assert schedule.late.tolist() == [False, True]


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Jobs, Grid, int]:
    """Up to eight jobs on any minute of half a day, in two places with room for one or two, and a minute of it."""
    slots, count = 60, draw(st.integers(2, 8))
    rows = []
    for _ in range(count):
        submitted, earliest = draw(st.integers(0, 600)), draw(st.integers(0, 600))
        length = draw(st.integers(1, 200))
        rows.append((submitted, earliest, max(submitted, earliest) + length + draw(st.integers(0, 300)), length))
    jobs = of(*rows)
    home = np.array(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    allowed = np.array(draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=count, max_size=count)))
    allowed[np.arange(count), home] = True
    jobs = replace(
        jobs,
        interruptible=np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count))),
        home=home,
        allowed=allowed,
        data_gb=np.array(draw(st.lists(st.sampled_from([0.0, 50.0]), min_size=count, max_size=count))),
    )
    # Few values, so that many choices are equally good.
    row = st.lists(st.sampled_from([100.0, 200.0, 300.0]), min_size=slots, max_size=slots)
    rooms = [[draw(st.sampled_from([1.0, 2.0]))] * slots for _ in range(2)]
    intensity = np.array([draw(row), draw(row)])
    grid = Grid(("A", "B"), 0, HOUR, intensity, np.ones(2), np.array(rooms), 0.01)
    return jobs, grid, draw(st.integers(1, 900)) * MINUTE


@pytest.mark.parametrize("policy", LIMITED)
@given(case=crowds())
@settings(max_examples=30)
def test_nobody_makes_way_for_who_is_not_there_yet(policy: str, case: tuple[Jobs, Grid, int]) -> None:
    jobs, grid, now = case
    fewer = jobs.take(jobs.submitted < now)
    every, known = (simulator.run(policy, each, grid, Belief("perfect", grid.intensity)) for each in (jobs, fewer))
    assert until(every, now, jobs) == until(known, now, fewer)


def test_the_best_region_is_that_of_the_hours_before() -> None:
    # Two days of 100 g at home and 101 g in B; the hour of the release would make B's mean 48 x 101 / 49 = 98.9 g.
    intensity = np.array([[100.0] * 60, [101.0] * 48 + [0.0] * 12])
    grid = Grid(("A", "B"), 0, HOUR, intensity, np.ones(2), np.full((2, 60), np.inf))
    jobs = replace(
        of((48 * 60, 48 * 60, 55 * 60, 60), (50 * 60, 50 * 60, 55 * 60, 60)), allowed=np.ones((2, 2), dtype=bool)
    )
    schedule = simulator.run("run-now-best-region", jobs, grid, believe("persistence", grid, np.arange(48, 60), 24))
    # Two hours later it is known: (48 x 101 + 2 x 0) / 50 = 97 g.
    assert schedule.place.tolist() == [0, 1]
