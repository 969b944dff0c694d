"""`greenops placement simulate`, as a person or a script runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from greenops_pipelines import cli

KEYS = {
    "policy", "total_g", "saving_pct", "oracle_share_pct", "cost", "mean_wait_minutes", "deadline_misses",
    "residency_violations", "gap_pct",
}  # fmt: skip
HEADER = "id,submitted_at,earliest_start,deadline,duration_minutes,power_kw,interruptible,width,home_zone,allowed_zones,data_gb\n"
HOURS = [300, 100, 400, 50, 200, 350]
"""DE by hour; FR is 80 throughout."""


class Case:
    """Files of one simulation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rows = [f"2022-01-01T{h:02}:00Z,DE,{v}\n2022-01-01T{h:02}:00Z,FR,80\n" for h, v in enumerate(HOURS)]
        (folder / "ci.csv").write_text("datetime,zone,carbon_intensity_g_per_kwh\n" + "".join(rows))

    def jobs(self, *lines: str) -> None:
        (self.folder / "jobs.csv").write_text(HEADER + "".join(f"{line}\n" for line in lines))

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """In this process: a process of its own would take two seconds."""
        command = ["greenops", "placement", "simulate", "--intensity", "ci.csv", "--jobs", "jobs.csv", *options]
        out, err, code = StringIO(), StringIO(), 0
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", command)
            patch.setattr(sys, "path", [*sys.path])
            try:
                cli.main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())

    def json(self, *options: str) -> dict[str, Any]:
        done = self.run(*options, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def job(name: str = "a", **changes: str) -> str:
    fields = {
        "submitted": "2022-01-01T00:00Z", "earliest": "2022-01-01T00:00Z", "deadline": "2022-01-01T06:00Z",
        "minutes": "60", "kw": "1", "interruptible": "false", "width": "1", "home": "DE", "allowed": "", "data": "0",
    }  # fmt: skip
    return ",".join([name, *(fields | changes).values()])


def by_policy(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["policy"]: row for row in document["policies"]}


def test_every_policy_with_every_key_and_figures_by_hand(case: Case) -> None:
    case.jobs(job(minutes="120", interruptible="true", allowed="DE;FR", width="2"))
    document = case.json()
    rows = by_policy(document)
    assert len(rows) == 13
    assert all(set(row) >= KEYS for row in rows.values())
    # Two machines of 1 kW for two hours: 2 x (300 + 100) at once; the cheapest pair of hours in a row is 50 + 200.
    assert rows["run-now-home"]["total_g"] == 800
    assert rows["run-now-home"]["saving_pct"] == 0
    assert rows["all-wait"]["total_g"] == 2 * (200 + 350)
    assert rows["lowest-slot"]["total_g"] == rows["lowest-window"]["total_g"] == 2 * (50 + 200)
    assert rows["wait-awhile"]["total_g"] == 2 * (100 + 50)
    assert rows["wait-awhile"]["saving_pct"] == 62.5
    assert rows["wait-awhile"]["mean_wait_minutes"] == 120
    # The 30th percentile of six hours lies between 100 and 200, at 150.
    assert rows["ecovisor"]["total_g"] == 2 * (100 + 50)
    # FR is always 80: one of the hours in DE is cheaper, and nothing has to be moved.
    assert rows["optimal"]["total_g"] == rows["clairvoyant"]["total_g"] == document["bound"]["total_g"] == 2 * (50 + 80)
    assert rows["clairvoyant"]["oracle_share_pct"] == 100
    assert {row["cost"] for row in rows.values()} == {None}
    assert {row["residency_violations"] + row["deadline_misses"] for row in rows.values()} == {0}


def test_minutes_inside_slots_are_paid_as_minutes(case: Case) -> None:
    case.jobs(job(earliest="2022-01-01T01:36Z"))
    row = by_policy(case.json("--policy", "run-now-home"))["run-now-home"]
    assert row["total_g"] == pytest.approx(100 * 24 / 60 + 400 * 36 / 60)


def test_carbon_time_prefers_a_smaller_saving_that_comes_sooner(case: Case) -> None:
    """At 01:00 100 of 2 h are saved... 200 g over 2 h; at 03:00 250 g over 4 h."""
    case.jobs(job())
    rows = by_policy(case.json("--policy", "carbon-time,lowest-window"))
    assert (rows["carbon-time"]["total_g"], rows["carbon-time"]["mean_wait_minutes"]) == (100, 60)
    assert (rows["lowest-window"]["total_g"], rows["lowest-window"]["mean_wait_minutes"]) == (50, 180)


def test_regions_bring_pue_transfer_manufacture_and_prices(case: Case) -> None:
    (case.folder / "regions.csv").write_text(
        "zone,pue,price_per_kwh,network_kwh_per_gb,embodied_g_per_kwh\nDE,1.5,0.30,0.01,10\nFR,1.25,0.20,0.01,10\n"
    )
    case.jobs(job(allowed="FR;DE", data="2", deadline="2022-01-01T01:00Z"))
    rows = by_policy(case.json("--policy", "run-now-home,carbon-first", "--regions", "regions.csv"))
    assert rows["run-now-home"]["total_g"] == pytest.approx(300 * 1.5 + 10)
    assert rows["run-now-home"]["cost"] == pytest.approx(0.30)
    # 2 GB x 0.01 kWh at the mean of 300 and 80.
    assert rows["carbon-first"]["total_g"] == pytest.approx(80 * 1.25 + 0.02 * 190 + 10)
    assert rows["carbon-first"]["cost"] == pytest.approx(0.20)


def test_capacity_is_shared_and_zero_is_none(case: Case) -> None:
    (case.folder / "capacity.csv").write_text(
        "zone,datetime,capacity_kw\nFR,2022-01-01T00:00Z,1\nFR,2022-01-01T02:00Z,0\n"
    )
    case.jobs(*(job(name, allowed="DE;FR", deadline="2022-01-01T03:00Z") for name in "abc"))
    rows = by_policy(case.json("--capacity", "capacity.csv", "--policy", "optimal,greedy,carbon-first"))
    # Two in FR, an hour each; the third at home, in its cheapest hour.
    assert {row["total_g"] for row in rows.values()} == {80 + 80 + 100}


def test_what_runs_in_a_gap_is_left_out_for_all_and_counted(case: Case) -> None:
    text = (case.folder / "ci.csv").read_text().replace("2022-01-01T03:00Z,DE,50\n", "2022-01-01T03:00Z,DE,\n")
    (case.folder / "ci.csv").write_text(text)
    gap = job("gap", submitted="2022-01-01T03:00Z", earliest="2022-01-01T03:00Z")
    case.jobs(job(), gap)
    document = case.json("--policy", "lowest-window")
    # The gap is the cheapest hour no longer; the baseline of the second job lies in it.
    assert document["jobs"] == {"total": 2, "measured": 1, "left_out": 1}
    assert by_policy(document)["lowest-window"]["total_g"] == 100
    assert case.run("--policy", "lowest-window").stderr == (
        "greenops: 1 of 2 jobs are left out of every figure: the baseline ran them where the intensity is not known\n"
    )


def test_what_a_policy_left_out_and_what_it_decided_blindly_is_said(case: Case) -> None:
    (case.folder / "capacity.csv").write_text("zone,capacity_kw\nDE,1\nFR,0\n")
    # Two hours for each of two, three hours of room; and one in a zone without any room at all.
    two = [job(name, minutes="120", deadline="2022-01-01T03:00Z") for name in "ab"]
    case.jobs(*two, job("c", allowed="FR", home="FR"))
    done = case.run("--policy", "greedy", "--capacity", "capacity.csv", "--json")
    assert done.stderr == "greenops: 1 of 3 jobs are left out of every figure: found no room (greedy 1)\n"
    document = json.loads(done.stdout)
    row = by_policy(document)["greedy"]
    assert (row["deadline_misses"], row["unfinished"], row["unknown_intensity"], row["gap_pct"]) == (2, 1, 0, None)


def test_a_blind_decision_is_said(case: Case) -> None:
    text = (case.folder / "ci.csv").read_text()
    (case.folder / "ci.csv").write_text(text + "".join(f"2022-01-01T{h:02}:00Z,IE,\n" for h in range(6)))
    case.jobs(job("c", allowed="IE", home="IE"))
    document = case.json("--policy", "greedy")
    assert document["notes"] == [
        "1 of 1 jobs are left out of every figure: ran where the intensity is not known (greedy 1)",
        "greedy: nothing was known of the windows of 1 of 1 jobs: they ran at once",
    ]
    assert document["bound"]["total_g"] is None


def test_noise_is_the_draw_of_the_paper(case: Case) -> None:
    (case.folder / "ci.csv").write_text(
        "datetime,zone,carbon_intensity_g_per_kwh\n"
        + "".join(f"2022-01-01T{h:02}:00Z,DE,{v}\n" for h, v in enumerate(HOURS))
    )
    case.jobs(job())
    for seed in range(6):
        draw = np.random.default_rng(seed).normal(0, 0.9 * np.mean(HOURS), size=len(HOURS))
        chosen = int(np.argmin(np.array(HOURS) + draw))
        row = by_policy(case.json("--policy", "lowest-window", "--forecast", "noise:0.9", "--seed", str(seed)))
        assert row["lowest-window"]["total_g"] == HOURS[chosen]


def test_half_hours(case: Case) -> None:
    case.jobs(job(minutes="30", earliest="2022-01-01T00:30Z"))
    document = case.json("--step", "30m", "--policy", "all-wait,lowest-window")
    assert document["step_minutes"] == 30
    rows = by_policy(document)
    assert (rows["all-wait"]["total_g"], rows["lowest-window"]["total_g"]) == (175, 25)


def test_a_home_outside_the_allowed_zones_is_left_by_all_but_the_baseline(case: Case) -> None:
    case.jobs(job(allowed="FR"))
    rows = by_policy(case.json())
    assert rows.pop("run-now-home")["residency_violations"] == 1
    assert {row["residency_violations"] for row in rows.values()} == {0}
    assert {row["total_g"] for row in rows.values()} == {80}


@pytest.mark.parametrize(
    ("lines", "options", "expected"),
    [
        ([job(deadline="2021-12-31T00:00Z")], [], "jobs.csv, line 2: deadline: found 2021-12-31T00:00Z, allowed: a time after earliest_start"),
        ([job(minutes="361")], [], "jobs.csv, line 2: duration_minutes: found 361, allowed: at most the time from earliest_start"),
        ([job(kw="-1")], [], "jobs.csv, line 2: power_kw: found -1, allowed: a number > 0"),
        ([job(home="XX")], [], "jobs.csv, line 2: home_zone: found XX, allowed: a zone of the intensity file: DE, FR"),
        ([job(allowed="XX;YY")], [], "jobs.csv, line 2: allowed_zones: found XX;YY, allowed: at least one of: DE, FR"),
        ([job(earliest="2022-01-01 00:00:00")], [], "jobs.csv, line 2: earliest_start: found 2022-01-01 00:00:00, allowed: a time with its zone"),
        ([job(), job(kw="2")], [], "jobs.csv, line 3: id: found a, allowed: each id once, or again with the same content"),
        ([], [], "jobs.csv: found no jobs, allowed: at least one"),
        ([job()], ["--policy", "best"], "--policy: found 'best', allowed: run-now-home, run-now-best-region"),
        ([job()], ["--forecast", "oracle"], "--forecast: found 'oracle', allowed: perfect, persistence, ridge, noise:SHARE"),
        ([job()], ["--forecast", "noise:x"], "--forecast: found 'noise:x', allowed: noise:SHARE"),
        ([job()], ["--step", "7m"], "--step: found '7m', allowed: 15m, 30m, 1h"),
        ([job()], ["--capacity", "none.csv"], "--capacity: none.csv: no such file"),
        ([job()], ["--cost-weight", "5"], "--cost-weight: no prices are known"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_two(
    case: Case, lines: list[str], options: list[str], expected: str
) -> None:
    case.jobs(*lines)
    done = case.run(*options, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"greenops: {expected}")
    assert "Traceback" not in done.stderr


def test_the_same_job_twice_is_taken_once_with_a_note(case: Case) -> None:
    case.jobs(job(allowed="DE;FR"), job(allowed=" FR ; DE;"))
    done = case.run("--policy", "all-wait", "--json")
    assert json.loads(done.stdout)["jobs"]["total"] == 1
    assert done.stderr == "greenops: jobs.csv: 1 jobs stand there a second time with the same content: taken once\n"


def test_people_get_a_table_and_the_bound(case: Case) -> None:
    case.jobs(job())
    shown = case.run("--policy", "lowest-window").stdout
    assert "lowest-window" in shown
    assert shown.rstrip().endswith(
        "Nobody who keeps deadlines, areas and rooms emits less than 0.050 kg (83.33 % saved): each job alone."
    )
