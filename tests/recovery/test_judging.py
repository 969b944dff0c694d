"""A drill's verdict, from a ledger and an event log on disk: what was measured, held against the objectives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.recovery.declared import Database
from greenops_pipelines.recovery.events import FILE as EVENTS
from greenops_pipelines.recovery.events import Events
from greenops_pipelines.recovery.judging import Times, judged
from greenops_pipelines.recovery.ledger import Ledger
from greenops_pipelines.recovery.results import LEDGER, Result, Spec

US, EU = "us-east-1", "eu-central-1"
BEGAN = datetime(2026, 11, 3, 9, tzinfo=UTC)

SPEC = Spec(
    id="20261103T090000Z-0a1b2c3d",
    gameday="2026-11",
    database=Database(name="orders", primary=US, standby=EU, tenants=("shop",)),
    scenario="kill",
    sync=False,
    rate=100,
    clients=8,
    wan_ms=90,
    probes=3,
    probe_timeout_seconds=2,
    steady_seconds=2,
    stall_seconds=12,
    rto_objective_s=900,
    rpo_objective_s=10,
)
CONTROL = replace(SPEC, scenario="stall", is_negative_control=True, fails_back=False)

# The fault is at 10 s. Ten writes before it, a second apart and the last at 10 s; three elsewhere from 13.5 s on.
TIMES = Times(fault=10.0, detected=11.5, fenced=12.0, steady=2.5, steady_acked=250)
ACKED = [*((n, float(n), US) for n in range(1, 11)), *((n, n + 2.5, EU) for n in (11, 12, 13))]
ALL = range(1, 14)


def rows(numbers: Iterable[int]) -> dict[int, str]:
    return {number: f"digest-{number}" for number in numbers}


def without(*gone: int) -> dict[str, dict[int, str]]:
    """The survivors of the failover, but for these."""
    return {"failover": rows(set(ALL) - set(gone))}


def judge(
    folder: Path,
    spec: Spec = SPEC,
    kept: Mapping[str, Mapping[int, str]] | None = None,
    times: Times = TIMES,
    acked: Iterable[tuple[int, float, str]] = tuple(ACKED),
    **other: Any,
) -> Result:
    """The result of a drill that came to its end, with everything kept where nothing else is said."""
    with Ledger(folder / LEDGER) as ledger:
        for number, ended, region in acked:
            ledger.begin(number, "client-1", f"digest-{number}", ended - 0.1)
            ledger.end(number, "ok", ended, region)
    log = Events(folder / EVENTS)
    with log.step("fence"):
        log.ran("pg_ctl stop -m immediate", 0.5, US)
    log.add("begin", step="promote")
    log.close()
    given: dict[str, Any] = {
        "health_checks": 5,
        "clock_moved": 0.0,
        "began": BEGAN,
        "verdict": "passed",
        "deficiencies": [],
    }
    return judged(spec, folder, times, without() if kept is None else kept, **(given | other))


def missed(result: Result, what: str) -> list[tuple[float, float]]:
    """The figures of each "RTO missed: 3.5 s, the objective is 3 s"."""
    told = [re.fullmatch(rf"{what} missed: ([\d.]+) s, the objective is ([\d.]+) s", d) for d in result.deficiencies]
    return [(float(each[1]), float(each[2])) for each in told if each]


# Passed, or not


def test_what_passed_stays_passed(tmp_path: Path) -> None:
    found = judge(tmp_path)
    assert (found.verdict, found.deficiencies) == ("passed", ())
    assert (found.rto_s, found.rpo_s, found.lost_writes, found.client_outage_s) == (3.5, 0.0, 0, 3.5)
    assert (found.acked_writes, found.acked_before, found.acked_after, found.acked_back) == (13, 10, 3, 0)
    assert (found.detection_s, found.throughput_per_s, found.health_checks) == (1.5, 100.0, 5)


def test_losses_within_the_objective_pass_where_they_may_be(tmp_path: Path) -> None:
    found = judge(tmp_path, kept=without(8, 9, 10))
    assert (found.verdict, found.deficiencies) == ("passed", ())
    assert (found.rpo_s, found.lost_writes) == (3.0, 3)


@pytest.mark.parametrize("verdict", ["failed", "aborted", "refused as intended"])
def test_good_figures_make_no_other_verdict_better(tmp_path: Path, verdict: str) -> None:
    found = judge(tmp_path, verdict=verdict, deficiencies=["the standby never caught up"])
    assert (found.verdict, found.deficiencies) == (verdict, ("the standby never caught up",))


@pytest.mark.parametrize(("objective", "verdict"), [(3.5, "passed"), (3.4999, "failed")])
def test_an_rto_is_missed_by_a_hair(tmp_path: Path, objective: float, verdict: str) -> None:
    found = judge(tmp_path, replace(SPEC, rto_objective_s=objective))
    assert found.verdict == verdict
    assert missed(found, "RTO") == ([] if verdict == "passed" else [(3.5, 3.4999)])


@pytest.mark.parametrize(("objective", "verdict"), [(3.0, "passed"), (2.9999, "failed")])
def test_an_rpo_is_missed_by_a_hair(tmp_path: Path, objective: float, verdict: str) -> None:
    found = judge(tmp_path, replace(SPEC, rpo_objective_s=objective), without(8, 9, 10))
    assert found.verdict == verdict
    assert missed(found, "RPO") == ([] if verdict == "passed" else [(3.0, 2.9999)])


def test_a_miss_by_a_hair_does_not_read_as_a_hit(tmp_path: Path) -> None:
    """Never "RTO missed: 900.0 s, the objective is 900 s"."""
    late = [(n, ended + 896.54 if region == EU else ended, region) for n, ended, region in ACKED]
    found = judge(tmp_path, acked=late)
    assert (found.rto_s, found.verdict) == (900.04, "failed")
    assert missed(found, "RTO") == [(900.04, 900.0)]


def test_both_are_named_where_both_are_missed(tmp_path: Path) -> None:
    found = judge(tmp_path, replace(SPEC, rto_objective_s=1, rpo_objective_s=1), without(8, 9, 10))
    assert [each.partition(":")[0] for each in found.deficiencies] == ["RTO missed", "RPO missed"]


def test_a_synchronous_drill_that_lost_one_write_failed(tmp_path: Path) -> None:
    found = judge(tmp_path, replace(SPEC, sync=True), without(10))
    assert (found.verdict, found.rpo_s, found.lost_writes) == ("failed", 1.0, 1)
    assert found.deficiencies == ("synchronous replication lost 1 acknowledged writes; none may be lost",)


def test_a_planned_switchover_that_lost_one_write_failed(tmp_path: Path) -> None:
    found = judge(tmp_path, replace(SPEC, scenario="planned"), without(10))
    assert found.verdict == "failed"
    assert found.deficiencies == ("a planned switchover lost 1 acknowledged writes; none may be lost",)


@pytest.mark.parametrize("spec", [replace(SPEC, sync=True), replace(SPEC, scenario="planned")])
def test_both_pass_where_nothing_is_lost(tmp_path: Path, spec: Spec) -> None:
    assert judge(tmp_path, spec).verdict == "passed"


def test_what_cannot_be_fails_a_drill_within_all_objectives(tmp_path: Path) -> None:
    found = judge(tmp_path, kept={"failover": rows([*ALL, 99])})
    assert (found.verdict, found.deficiencies) == ("failed", ("1 rows that nobody wrote, such as 99",))


def test_what_was_found_during_the_drill_stands_before_what_was_measured(tmp_path: Path) -> None:
    found = judge(
        tmp_path,
        replace(SPEC, rpo_objective_s=1),
        without(8, 9, 10),
        verdict="failed",
        deficiencies=["the way back took too long"],
    )
    assert found.deficiencies[0] == "the way back took too long"
    assert (len(found.deficiencies), missed(found, "RPO")) == (2, [(3.0, 1.0)])


# Nobody looked


def test_where_nobody_looked_at_the_survivors_nothing_is_known_of_a_loss(tmp_path: Path) -> None:
    found = judge(tmp_path, kept={}, verdict="failed", deficiencies=["eu-central-1: its rows cannot be read"])
    assert (found.rpo_s, found.lost_writes, found.in_doubt_kept) == (None, None, None)
    # What the clients saw is known all the same.
    assert (found.rto_s, found.acked_writes, found.in_doubt_writes, found.failed_writes) == (3.5, 13, 0, 0)
    assert (found.verdict, found.deficiencies) == ("failed", ("eu-central-1: its rows cannot be read",))


def test_before_the_fault_nothing_is_measured(tmp_path: Path) -> None:
    found = judge(tmp_path, kept={}, times=Times(), acked=(), verdict="aborted", deficiencies=["no PostgreSQL"])
    assert (found.rto_s, found.rpo_s, found.acked_writes, found.detection_s, found.throughput_per_s) == (None,) * 5
    assert (found.verdict, found.deficiencies) == ("aborted", ("no PostgreSQL",))


def test_without_a_write_elsewhere_the_rpo_is_known_and_the_rto_is_not(tmp_path: Path) -> None:
    found = judge(tmp_path, acked=ACKED[:10], kept={"failover": rows(range(1, 8))}, verdict="failed")
    assert (found.rto_s, found.client_outage_s, found.rpo_s, found.lost_writes) == (None, None, 3.0, 3)


# The negative control


def test_a_control_beyond_its_objective_missed_it_as_intended(tmp_path: Path) -> None:
    found = judge(tmp_path, replace(CONTROL, rpo_objective_s=5), without(*range(4, 11)))
    assert (found.verdict, found.deficiencies, found.rpo_s) == ("missed as intended", (), 7.0)
    assert found.is_negative_control


@pytest.mark.parametrize("objective", [10, 7], ids=["within", "exactly at"])
def test_a_control_within_its_objective_did_not_miss_it(tmp_path: Path, objective: float) -> None:
    found = judge(tmp_path, replace(CONTROL, rpo_objective_s=objective), without(*range(4, 11)))
    assert found.verdict == "not missed"
    assert found.deficiencies == (
        f"the negative control came back with an RPO of 7.00 s within its objective of {objective} s, "
        "after a stall of 12 s: these drills cannot see a loss",
    )


def test_a_control_that_lost_nothing_did_not_miss_its_objective(tmp_path: Path) -> None:
    found = judge(tmp_path, CONTROL)
    assert (found.verdict, found.rpo_s, found.lost_writes) == ("not missed", 0.0, 0)


def test_a_control_with_an_impossible_row_failed_whatever_it_lost(tmp_path: Path) -> None:
    kept = {"failover": rows([1, 2, 3, 11, 12, 13, 99])}
    found = judge(tmp_path, replace(CONTROL, rpo_objective_s=5), kept)
    assert (found.verdict, found.deficiencies) == ("failed", ("1 rows that nobody wrote, such as 99",))


def test_a_slow_control_is_held_against_no_rto(tmp_path: Path) -> None:
    found = judge(tmp_path, replace(CONTROL, rpo_objective_s=5, rto_objective_s=1), without(*range(4, 11)))
    assert (found.verdict, found.deficiencies) == ("missed as intended", ())


@pytest.mark.parametrize("verdict", ["failed", "aborted"])
def test_a_control_at_whose_survivors_nobody_looked_is_what_became_of_it(tmp_path: Path, verdict: str) -> None:
    found = judge(tmp_path, CONTROL, {}, verdict=verdict, deficiencies=["the standby is gone"])
    assert (found.verdict, found.deficiencies, found.rpo_s) == (verdict, ("the standby is gone",), None)


def test_a_control_loses_no_deficiency_that_was_found_on_the_way(tmp_path: Path) -> None:
    """Its servers were looked at, and then could not be stopped."""
    found = judge(
        tmp_path,
        replace(CONTROL, rpo_objective_s=5),
        without(*range(4, 11)),
        verdict="failed",
        deficiencies=["eu-central-1: found a server that does not end"],
    )
    assert "eu-central-1: found a server that does not end" in found.deficiencies


# The clock


@pytest.mark.parametrize(("moved", "shown"), [(-30.0, "-30.0"), (1.04, "+1.0"), (3600.0, "+3600.0")])
def test_a_clock_that_was_set_is_named_and_changes_no_verdict(tmp_path: Path, moved: float, shown: str) -> None:
    found = judge(tmp_path, clock_moved=moved)
    assert found.deficiencies == (
        f"this host's clock was set by {shown} s during the drill; durations are from a monotonic clock and stand, "
        "times of day do not",
    )
    assert (found.verdict, found.clock_moved_s, found.rto_s) == ("passed", moved, 3.5)


@pytest.mark.parametrize("moved", [0.0, 1.0, -1.0, 0.02])
def test_a_clock_that_drifts_is_not_named(tmp_path: Path, moved: float) -> None:
    assert judge(tmp_path, clock_moved=moved).deficiencies == ()


def test_a_controls_clock_is_named_too(tmp_path: Path) -> None:
    found = judge(tmp_path, replace(CONTROL, rpo_objective_s=5), without(*range(4, 11)), clock_moved=-2.0)
    assert found.verdict == "missed as intended"
    assert len(found.deficiencies) == 1
    assert "clock was set by -2.0 s" in found.deficiencies[0]


# There and back


def test_a_failback_is_timed_and_its_outage_too(tmp_path: Path) -> None:
    # It begins at 18 s; the standby answers until 19 s, the primary from 19.75 s on; it is done at 20 s.
    acked = [*ACKED, (14, 19.0, EU), (15, 19.75, US), (16, 20.5, US)]
    times = replace(TIMES, failback=18.0, failed_back=20.0)
    found = judge(tmp_path, kept={"failover": rows(ALL), "failback": rows(range(1, 17))}, times=times, acked=acked)
    assert (found.failback_s, found.failback_outage_s) == (2.0, 0.75)
    assert (found.acked_before, found.acked_after, found.acked_back) == (10, 4, 2)
    assert (found.verdict, found.deficiencies) == ("passed", ())


def test_a_failback_that_did_not_come_to_its_end_has_no_time(tmp_path: Path) -> None:
    times = replace(TIMES, failback=18.0)
    found = judge(tmp_path, times=times, verdict="failed", deficiencies=["us-east-1: pg_rewind ended with 1"])
    assert (found.failback_s, found.failback_outage_s) == (None, None)
    assert found.deficiencies == ("us-east-1: pg_rewind ended with 1",)


def test_writes_lost_on_the_way_back_fail_the_drill(tmp_path: Path) -> None:
    times = replace(TIMES, failback=18.0, failed_back=20.0)
    acked = [*ACKED, (14, 19.75, US)]
    kept = {"failover": rows(ALL), "failback": rows([*range(1, 12), 13, 14])}
    found = judge(tmp_path, kept=kept, times=times, acked=acked)
    assert found.verdict == "failed"
    assert found.deficiencies == ("1 acknowledged writes that had survived are gone, such as 12",)
    assert (found.lost_writes, found.rpo_s) == (0, 0.0)


# What else is in it


def test_steps_and_commands_come_from_the_event_log(tmp_path: Path) -> None:
    found = judge(tmp_path)
    assert [(step["step"], step["outcome"]) for step in found.steps] == [
        ("fence", "done"),
        ("promote", "was under way when the drill ended"),
    ]
    assert found.steps[1]["seconds"] is None
    assert found.commands == ({"step": "fence", "command": "pg_ctl stop -m immediate", "where": US, "seconds": 0.5},)


def test_a_result_says_what_was_drilled(tmp_path: Path) -> None:
    found = judge(tmp_path)
    assert (found.drill, found.gameday, found.database, found.primary, found.standby, found.scenario) == (
        "20261103T090000Z-0a1b2c3d",
        "2026-11",
        "orders",
        US,
        EU,
        "kill",
    )
    assert (found.began_at, found.is_embedded, found.rate, found.wan_ms) == (
        "2026-11-03T09:00:00.000Z",
        True,
        100,
        90,
    )
    assert datetime.fromisoformat(found.ended_at).tzinfo is not None
