"""Figures of `greenops placement simulate` worked out by hand: money, moved data, capacity, gaps, forecasts that are wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from greenops_pipelines import cli
from greenops_pipelines.placement.belief import Belief
from greenops_pipelines.placement.model import MINUTE, Grid, Jobs, account
from greenops_pipelines.placement.policies import decide
from greenops_pipelines.placement.sight import Sight
from tests.carbon.small_lake import CARBON_DATA

#     00   01   02   03   04   05
DE = [500, 400, 100, 450, 250, 200]
FR = [60, 60, 80, 70, 30, 90]
GOOD = {
    "id": "a",
    "submitted_at": "2022-01-01T00:00Z",
    "earliest_start": "2022-01-01T00:00Z",
    "deadline": "2022-01-01T06:00Z",
    "duration_minutes": "60",
    "power_kw": "1",
    "interruptible": "false",
    "width": "1",
    "home_zone": "DE",
    "allowed_zones": "DE;FR",
    "data_gb": "0",
}
JOBS = ",".join(GOOD) + "\n"


def job(**changes: str) -> str:
    return ",".join((GOOD | changes).values()) + "\n"


def intensity(step: int = 60, **zones: list[Any]) -> str:
    """A value per slot; None leaves its row out, '' its value."""
    return "datetime,zone,carbon_intensity_g_per_kwh\n" + "".join(
        f"2022-01-{1 + n * step // 1440:02}T{n * step // 60 % 24:02}:{n * step % 60:02}Z,{zone},{value}\n"
        for zone, values in zones.items()
        for n, value in enumerate(values)
        if value is not None
    )


class Ended:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    def each(self, figure: str) -> list[Any]:
        """One figure of every policy, in the order asked for."""
        return [row[figure] for row in self.json["policies"]]


Simulate = Callable[..., Ended]


@pytest.fixture
def simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Simulate:
    """Runs the command in a folder of its own, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in os.environ if name.startswith("GREENOPS_")]:
        monkeypatch.delenv(name)

    def simulate(policy: str, jobs: str, *more: str, ci: str = "", capacity: str = "", regions: str = "") -> Ended:
        files = {"intensity": ci or intensity(DE=DE, FR=FR), "jobs": JOBS + jobs}
        files |= {name: text for name, text in (("capacity", capacity), ("regions", regions)) if text}
        command = ["greenops", "placement", "simulate", "--json", "--policy", policy, *more]
        for name, text in files.items():
            Path(f"{name}.csv").write_text(text)
            command += [f"--{name}", f"{name}.csv"]
        monkeypatch.setattr(sys, "argv", command)
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(code, *capfd.readouterr())

    return simulate


def test_shares_and_gaps_of_one_job(simulate: Simulate) -> None:
    """500 g at once at home; 100 g at 02:00 at home; 30 g at 04:00 in FR, which nothing beats."""
    ended = simulate("clairvoyant,lowest-window,run-now-home,all-wait,greedy", job())
    assert ended.each("policy") == ["clairvoyant", "lowest-window", "run-now-home", "all-wait", "greedy"]
    assert ended.each("total_g") == [30, 100, 500, 200, 30]
    assert ended.each("saving_pct") == [94, 80, 0, 60, 94]
    assert ended.each("oracle_share_pct") == pytest.approx([100, 40000 / 470, 0, 30000 / 470, 100], abs=1e-6)
    assert ended.each("gap_pct") == pytest.approx([0, 7000 / 30, 47000 / 30, 17000 / 30, 0], abs=1e-6)
    assert ended.each("mean_wait_minutes") == [240, 120, 0, 300, 240]
    assert (ended.json["bound"]["total_g"], ended.json["bound"]["saving_pct"]) == (30, 94)


def test_savings_are_of_sums_and_waits_are_means(simulate: Simulate) -> None:
    # a: 3 machines from 01:36; b: 12 min at 500; c comes late, and all-wait ends it 90 minutes after the baseline.
    text = job(earliest_start="2022-01-01T01:36Z", width="3", deadline="2022-01-01T02:36Z")
    text += job(id="b", duration_minutes="12", deadline="2022-01-01T00:12Z")
    text += job(id="c", submitted_at="2022-01-01T01:00Z", deadline="2022-01-01T02:30Z")
    ended = simulate("run-now-home,all-wait", text)
    a, b, c = 3 * (24 * 400 + 36 * 100) / 60, 500 / 5, (30 * 400 + 30 * 100) / 60
    assert ended.each("total_g") == pytest.approx([a + b + 500, a + b + c])
    assert ended.each("saving_pct") == pytest.approx([0, 100 * (500 - c) / (a + b + 500)], abs=1e-6)
    assert ended.each("mean_wait_minutes") == [0, 30]


def test_half_hours_as_hours(simulate: Simulate) -> None:
    """400, 0, 0, 400, 300, 300 are 200, 200, 300: from 00:30 to 01:30 nothing is free any more."""
    ci = intensity(30, DE=[400, 0, 0, 400, 300, 300])
    text = job(submitted_at="2022-01-01T00:30Z", earliest_start="2022-01-01T00:30Z", deadline="2022-01-01T03:00Z")
    for more, expected in (((), [0, 300]), (("--step", "30m"), [0, 300]), (("--step", "1h"), [200, 300])):
        assert simulate("run-now-home,all-wait", text, *more, ci=ci).each("total_g") == expected


def test_direct_intensity_from_the_portals_form(simulate: Simulate) -> None:
    path = CARBON_DATA / "ES_2022_hourly.csv"
    if not path.exists():
        pytest.skip(f"no reference data beside the repository: {path.name}")
    text = job(home_zone="ES", allowed_zones="", duration_minutes="120", width="2")
    for kind, expected in (("lifecycle", 175.54 + 181.54), ("direct", 133.64 + 139.1)):
        ended = simulate("run-now-home", text, "--emission-factors", kind, ci=path.read_text(encoding="utf-8"))
        assert ended.each("total_g") == pytest.approx([2 * expected])


# Forecasts


@pytest.mark.parametrize("policy", ["lowest-window", "carbon-time", "wait-awhile", "greedy"])
def test_noise_decides_as_a_forecast_made_by_hand(simulate: Simulate, policy: str) -> None:
    actual = np.array([300 + 40 * np.sin(n) for n in range(24)]).round(3)
    begins = [f"2022-01-01T{n // 2:02}:{n % 2 * 30:02}Z" for n in range(20)]
    text = "".join(
        job(id=f"j{n}", submitted_at=at, earliest_start=at, deadline="2022-01-02T00:00Z", allowed_zones="DE")
        for n, at in enumerate(begins)
    )
    times, whole = np.arange(20) * 30 * MINUTE, np.full(20, 60 * MINUTE)
    work = Jobs(
        tuple(begins), times, times, np.full(20, 1440 * MINUTE), whole, np.ones(20), np.zeros(20, dtype=bool),
        np.zeros(20, dtype=np.int64), np.ones((20, 1), dtype=bool), np.zeros(20),
    )  # fmt: skip
    grid = Grid(("DE",), 0, 60 * MINUTE, actual[None], np.ones(1), np.full((1, 24), np.inf))
    totals = [simulate(policy, text, ci=intensity(DE=list(actual))).each("total_g")[0]]
    for seed in (0, 7):
        noise = np.random.default_rng(seed).normal(0, 0.3 * actual.mean(), 24)
        believed = Belief("by hand", (actual + noise)[None])
        expected = account(work, grid, decide(policy, work, Sight(grid, believed))).total_g.sum()
        ended = simulate(policy, text, "--forecast", "noise:0.3", "--seed", str(seed), ci=intensity(DE=list(actual)))
        assert ended.each("total_g") == pytest.approx([expected])
        totals.append(float(expected))
    assert len({round(total, 3) for total in totals}) == 3, "noise has to matter for this to prove anything"


def test_a_forecast_is_for_deciding_and_not_for_the_account(simulate: Simulate) -> None:
    """Yesterday 02:00 was the cheapest hour, today it is the dearest: persistence runs then, and pays for it."""
    yesterday, today = [500.0] * 24, [200.0] * 24
    yesterday[2], today[2] = 100.0, 900.0
    text = job(submitted_at="2022-01-02T00:00Z", earliest_start="2022-01-02T00:00Z", deadline="2022-01-02T06:00Z")
    policies, ci = "run-now-home,lowest-window,clairvoyant", intensity(DE=yesterday + today, FR=[950] * 48)
    ended = simulate(policies, text, "--forecast", "persistence", ci=ci)
    assert ended.each("total_g") == [200, 900, 200]
    assert ended.each("saving_pct") == [0, -350, 0]


@pytest.mark.parametrize("policy", ["run-now-home", "clairvoyant"])
def test_an_unknown_forecast_is_bad_input_whoever_runs(simulate: Simulate, policy: str) -> None:
    assert simulate(policy, job(), "--forecast", "magic").code == 2


# Gaps


@pytest.mark.parametrize("gap", [None, ""])
def test_who_looks_goes_around_a_gap(simulate: Simulate, gap: str | None) -> None:
    """Nobody knows what 02:00 was; 05:00 is the cheapest hour then, also per hour until it is done."""
    ci = intensity(DE=[500, 400, gap, 450, 250, 190], FR=[900] * 6)
    ended = simulate("lowest-slot,lowest-window,carbon-time,greedy,optimal,clairvoyant", job(), ci=ci)
    assert (ended.json["jobs"]["left_out"], ended.each("total_g")) == (0, [190] * 6)
    text = job(duration_minutes="120", interruptible="true", deadline="2022-01-01T04:00Z")
    assert simulate("wait-awhile", text, ci=ci).each("total_g") == [850]


def test_jobs_that_any_policy_ran_in_a_gap_are_left_out_of_all_figures(simulate: Simulate) -> None:
    ci = intensity(DE=[500, 400, "", 450, 250, 200], FR=[900] * 6)
    text = job() + job(id="b", earliest_start="2022-01-01T01:30Z")  # b's baseline runs into the gap
    text += job(id="c", deadline="2022-01-01T02:30Z", power_kw="7")  # of c, all-wait does
    ended = simulate("run-now-home,all-wait,lowest-window", text, ci=ci)
    assert ended.json["jobs"] == {"total": 3, "measured": 1, "left_out": 2}
    assert (ended.each("total_g"), ended.json["bound"]["total_g"]) == ([500, 200, 200], 200)
    ended = simulate("run-now-home,lowest-window", text, ci=ci)
    assert ended.json["jobs"]["left_out"] == 1
    assert ended.each("total_g") == [500 + 3500, 200 + 2800]


def test_where_nothing_can_be_measured_nothing_is_claimed(simulate: Simulate) -> None:
    ended = simulate("all", job(), ci=intensity(DE=["", 400], FR=[1, 1]))
    assert ended.json["jobs"] == {"total": 1, "measured": 0, "left_out": 1}
    for figure in ("saving_pct", "oracle_share_pct", "gap_pct"):
        assert set(ended.each(figure)) == {None}


def test_a_window_past_the_end_of_the_record_is_planned_inside_what_is_known(simulate: Simulate) -> None:
    ended = simulate("lowest-window,greedy,optimal", job(deadline="2022-01-03T00:00Z", duration_minutes="90"))
    # At home from 01:30: half of 400 and 100. In FR from 03:30: half of 70 and 30.
    assert (ended.json["jobs"]["left_out"], ended.each("total_g")) == (0, [300, 65, 65])


# PUE, moved data, manufacture, money


def test_every_gram_of_one_job(simulate: Simulate) -> None:
    """2 machines of 0.75 kW for 2 h: 3 kWh, from 00:00 in DE or from 03:00 in FR, with 50 GB to be moved there."""
    regions = "zone,pue,price_per_kwh,network_kwh_per_gb,embodied_g_per_kwh\nDE,1.5,0.40,0.01,20\nFR,1.2,0.30,0.01,20\n"
    text = job(width="2", power_kw="0.75", duration_minutes="120", data_gb="50")
    ended = simulate("run-now-home,greedy,optimal", text, regions=regions)
    # At home 1.5 kW x 1.5 x (500 + 400). In FR 1.5 kW x 1.2 x (70 + 30), and 0.5 kWh at the mean of 50 there, 350 here.
    assert ended.each("operational_g") == pytest.approx([2025, 180, 180])
    assert ended.each("transfer_g") == pytest.approx([0, 100, 100])
    assert ended.each("embodied_g") == [60, 60, 60]
    assert ended.each("total_g") == pytest.approx([2085, 340, 340])
    assert ended.each("cost") == pytest.approx([1.2, 0.9, 0.9])
    assert ended.json["bound"]["total_g"] == pytest.approx(340)


def test_data_that_costs_more_to_move_than_it_saves_stays(simulate: Simulate) -> None:
    regions = "zone,pue,network_kwh_per_gb,embodied_g_per_kwh\nDE,1,0.01,0\nFR,1,0.01,0\n"
    # At home 100 g at 02:00. In FR at 04:00 30 + 0.01 x GB x 140: less up to 50 GB.
    for data, expected in (("49", 30 + 68.6), ("51", 100)):
        ended = simulate("carbon-first,greedy,optimal", job(data_gb=data), regions=regions)
        assert ended.each("total_g") == pytest.approx([expected] * 3)
        assert ended.each("cost") == [None] * 3


def test_money_counts_as_much_as_it_is_said_to(simulate: Simulate) -> None:
    """FR saves 70 g more than home and costs 0.10 more: worth it below 700 g per unit of money."""
    regions = "zone,pue,price_per_kwh,network_kwh_per_gb,embodied_g_per_kwh\nDE,1,0.20,0,0\nFR,1,0.30,0,0\n"
    for weight, grams, cost in (("0", 30, 0.3), ("690", 30, 0.3), ("710", 100, 0.2)):
        ended = simulate("greedy,optimal", job(), "--cost-weight", weight, regions=regions)
        assert ended.each("total_g") == [grams] * 2
        assert ended.each("cost") == pytest.approx([cost] * 2)
    assert simulate("cost-first", job(), regions=regions).each("cost") == pytest.approx([0.2])


# Capacity


def test_two_jobs_where_there_is_room_for_one(simulate: Simulate) -> None:
    """1.5 kW in DE: one job at 02:00 for 100 g, the other at 05:00 for 200 g. The baseline asks nobody."""
    text = job(allowed_zones="DE") + job(id="b", allowed_zones="DE")
    ended = simulate("run-now-home,lowest-window,optimal", text, capacity="zone,capacity_kw\nDE,1.5\n")
    assert ended.each("total_g") == [1000, 300, 300]
    assert ended.each("capacity_exceeded") == [1, 0, 0]
    assert ended.json["bound"]["total_g"] == pytest.approx(300)


def test_capacity_zero_takes_nothing(simulate: Simulate) -> None:
    ended = simulate("carbon-first,greedy,optimal", job(), capacity="zone,capacity_kw\nFR,0\n")
    assert ended.each("total_g") == [100] * 3
    text = "zone,datetime,capacity_kw\nFR,2022-01-01T04:00Z,0\nFR,2022-01-01T05:00Z,9\nDE,2021-01-01T00:00Z,0\n"
    assert simulate("carbon-first,greedy,optimal", job(), capacity=text).each("total_g") == [60] * 3


def test_a_wide_job_needs_room_for_all_its_machines(simulate: Simulate) -> None:
    for room, expected in (("3", 3 * 30), ("2.9", 3 * 100)):
        ended = simulate("greedy,optimal", job(width="3"), capacity=f"zone,capacity_kw\nFR,{room}\n")
        assert ended.each("total_g") == [expected] * 2


def test_no_room_anywhere_is_a_miss(simulate: Simulate) -> None:
    text, capacity = job() + job(id="b", power_kw="2"), "zone,capacity_kw\nDE,1\nFR,1\n"
    ended = simulate("greedy,optimal", text, capacity=capacity)
    assert ended.json["jobs"] == {"total": 2, "measured": 1, "left_out": 1}
    assert (ended.each("total_g"), ended.each("deadline_misses")) == ([30, 30], [1, 1])
    assert ended.each("capacity_exceeded") == [0, 0]
