"""What the drills in a lake prove: a few rows, and each check's figure counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.recovery_tables import RECOVERY_COPIES, RECOVERY_DRILLS, RECOVERY_TABLES
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.tables import REGIONS
from greenops_pipelines.recovery import checks
from greenops_pipelines.recovery.declared import Clusters, GameDays
from greenops_pipelines.report.scorecard import criteria

# The first Tuesday is the third.
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
DAY = timedelta(days=1)
US, OREGON, EU, IE, UK = "us-east-1", "us-west-2", "eu-central-1", "eu-west-1", "eu-west-2"

Row = dict[str, Any]

GAMEDAYS = GameDays.model_validate(
    {
        "databases": ({"name": "orders", "primary": US, "standby": EU, "tenants": ("shop",)},),
        "replica": {"home_region": EU, "region": IE},
    }
)
"""RTO 15 minutes, RPO 10 s; the second copy's 15 and 60 minutes."""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """One without a drill."""
    return Lake(LocalFolder(tmp_path / "lake"), tmp_path / "warehouse.duckdb", {}, [REGIONS, *RECOVERY_TABLES])


@pytest.fixture
def regions(lake: Lake) -> None:
    """The lake knows in which area its regions lie."""
    rows = [
        {"region": region, "zone": "X", "pue": 1.2, "pue_source": "test", "residency": area, "is_primary": False}
        for region, area in {US: "us", OREGON: "us", EU: "eu", IE: "eu", UK: "uk"}.items()
    ]
    lake.write(REGIONS, pa.Table.from_pylist(rows, schema=REGIONS.schema), refresh=False)


def drill(name: str, days_ago: float = 1.0, **other: Any) -> Row:
    """A drill that failed over from the United States and back, and lost a second of writes."""
    began = NOW - days_ago * DAY
    return {
        "drill": name,
        "gameday": "2026-11",
        "database": "orders",
        "primary_region": US,
        "standby_region": EU,
        "scenario": "kill",
        "is_sync": False,
        "is_negative_control": False,
        "is_embedded": True,
        "rate_per_s": 100.0,
        "throughput_per_s": 99.0,
        "wan_ms": 90.0,
        "verdict": "passed",
        "deficiencies": None,
        "rto_s": 6.0,
        "rpo_s": 1.0,
        "client_outage_s": 7.0,
        "detection_s": 4.0,
        "failback_s": 3.0,
        "lost_writes": 10,
        "in_doubt_writes": 8,
        "failed_writes": 2,
        "acked_writes": 1000,
        "rto_objective_s": 900.0,
        "rpo_objective_s": 10.0,
        "health_checks": 5,
        "bundle": f"bundle-{name}",
        "began_at": began,
        "ended_at": began + timedelta(minutes=1),
    } | other


def failed(name: str, days_ago: float = 1.0, **other: Any) -> Row:
    """A drill that never came back."""
    unknown = dict.fromkeys(("rto_s", "rpo_s", "client_outage_s", "failback_s", "lost_writes"))
    return drill(name, days_ago, **({"verdict": "failed", "deficiencies": "no write after 60 s"} | unknown | other))


def aborted(name: str, days_ago: float = 1.0, **other: Any) -> Row:
    return failed(name, days_ago, **({"verdict": "aborted", "deficiencies": "killed", "acked_writes": None} | other))


def control(name: str, days_ago: float = 1.0, **other: Any) -> Row:
    """A negative control that lost twelve seconds of writes."""
    given = {
        "is_negative_control": True,
        "scenario": "stall",
        "verdict": "missed as intended",
        "rto_s": 40.0,
        "rpo_s": 12.5,
        "lost_writes": 1250,
        "failback_s": None,
    }
    return drill(name, days_ago, **(given | other))


def restore(name: str, days_ago: float = 1.0, **other: Any) -> Row:
    """The platform's own state, 30 minutes old, restored within two minutes."""
    given = {
        "scenario": "restore",
        "database": "platform state",
        "primary_region": EU,
        "standby_region": IE,
        "rto_s": 120.0,
        "rpo_s": 1800.0,
        "rpo_objective_s": 3600.0,
        "failback_s": None,
        "lost_writes": None,
        "acked_writes": None,
        "health_checks": 0,
    }
    return drill(name, days_ago, **(given | other))


def put(lake: Lake, *rows: Row) -> Lake:
    lake.write(RECOVERY_DRILLS, pa.Table.from_pylist(list(rows), schema=RECOVERY_DRILLS.schema), refresh=False)
    return lake


BACK: Row = {"primary_region": EU, "standby_region": US, "database": "invoices"}


# Directions


@pytest.mark.usefixtures("regions")
def test_two_directions_between_areas_are_proven_by_a_drill_each(lake: Lake) -> None:
    found = checks.directions(put(lake, drill("a"), drill("b", **BACK), drill("c", scenario="hang")), NOW)
    assert (found.measured, found.outcome) == (2.0, "passed")
    assert found.figures == {f"{EU} -> {US}": 1, f"{US} -> {EU}": 2}
    assert found.detail == f"{EU} -> {US}: 1 drills; {US} -> {EU}: 2 drills"


@pytest.mark.usefixtures("regions")
@pytest.mark.parametrize(
    "other",
    [
        {"verdict": "failed"},
        {"verdict": "aborted"},
        {"verdict": "refused as intended", "failback_s": None},
        {"failback_s": None},
        {"health_checks": 4},
        {"is_negative_control": True},
        {"scenario": "restore"},
        {"primary_region": EU, "standby_region": IE},
        {"primary_region": "mars-north-1"},
    ],
    ids=[
        "failed",
        "aborted",
        "refused",
        "not back",
        "without health checks",
        "control",
        "restore",
        "in one area",
        "undeclared",
    ],
)
def test_a_direction_is_not_proven_by_any_other_drill(lake: Lake, other: Row) -> None:
    found = checks.directions(put(lake, drill("a", **other), drill("b", **BACK)), NOW)
    assert (found.measured, found.outcome, found.figures) == (1.0, "failed", {f"{EU} -> {US}": 1})


@pytest.mark.usefixtures("regions")
def test_a_direction_stands_for_35_days(lake: Lake) -> None:
    put(lake, drill("a", 35), drill("b", **BACK))
    assert checks.directions(lake, NOW).measured == 2.0
    found = checks.directions(lake, NOW + timedelta(seconds=1))
    assert (found.measured, found.detail) == (1.0, f"{EU} -> {US}: 1 drills")


@pytest.mark.usefixtures("regions")
def test_without_a_drill_no_direction_is_proven(lake: Lake) -> None:
    found = checks.directions(lake, NOW)
    assert (found.measured, found.outcome, found.detail) == (0.0, "failed", "none in the last 35 days")


@pytest.mark.usefixtures("regions")
def test_a_third_direction_takes_nothing_from_two(lake: Lake) -> None:
    """A database between Frankfurt and London is drilled too, as the operator declared it."""
    found = checks.directions(put(lake, drill("a"), drill("b", **BACK), drill("c", standby_region=UK)), NOW)
    assert len(found.figures) == 3
    assert found.outcome == "passed"


@pytest.mark.usefixtures("regions")
def test_two_pairs_of_regions_the_same_way_are_not_both_directions(lake: Lake) -> None:
    """Nothing was ever failed over from the European Union."""
    put(lake, drill("a"), drill("b", primary_region=OREGON, standby_region=IE))
    assert checks.directions(lake, NOW).outcome == "failed"


# RTO and RPO


def test_the_longest_recovery_of_the_window_decides_and_all_drills_are_in_the_figures(lake: Lake) -> None:
    put(
        lake,
        drill("a", rto_s=6.0),
        drill("b", rto_s=12.0),
        drill("old", 36, rto_s=1200.0),
        drill("older", 300, rto_s=9.0),
    )
    found = checks.rto(lake, GAMEDAYS, NOW)
    assert (found.measured, found.target, found.unit, found.outcome) == (0.2, 15, "minutes", "passed")
    # 6, 9, 12, 1200: the median lies between 9 and 12; the 95th percentile 0.85 of the way from 12 to 1200.
    assert found.figures == {
        "drills of the last 35 days": 2,
        "drills": 4,
        "median s": 10.5,
        "95th percentile s": pytest.approx(1021.8),
        "longest s": 1200.0,
    }
    assert found.detail == (
        "seconds from fault to first write elsewhere, 4 drills: median 10.50, 95th percentile 1021.80, longest 1200.00"
    )


def test_the_longest_loss_of_the_window_decides_and_all_drills_are_in_the_figures(lake: Lake) -> None:
    put(
        lake, drill("a", rpo_s=0.0, lost_writes=0), drill("b", rpo_s=2.0, lost_writes=200), drill("old", 36, rpo_s=60.0)
    )
    found = checks.rpo(lake, GAMEDAYS, NOW)
    assert (found.measured, found.target, found.unit, found.outcome) == (2.0, 10, "seconds", "passed")
    assert found.figures == {
        "drills of the last 35 days": 2,
        "drills": 3,
        "median s": 2.0,
        "95th percentile s": pytest.approx(54.2),
        "longest s": 60.0,
        "lost writes": 210,
        "acknowledged writes": 3000,
    }


@pytest.mark.parametrize(("seconds", "outcome"), [(900.0, "passed"), (900.1, "failed")])
def test_a_recovery_beyond_15_minutes_is_missed(lake: Lake, seconds: float, outcome: str) -> None:
    assert checks.rto(put(lake, drill("a", rto_s=seconds)), GAMEDAYS, NOW).outcome == outcome


@pytest.mark.parametrize(("seconds", "outcome"), [(10.0, "passed"), (10.01, "failed")])
def test_a_loss_of_more_than_10_seconds_is_missed(lake: Lake, seconds: float, outcome: str) -> None:
    assert checks.rpo(put(lake, drill("a", rpo_s=seconds)), GAMEDAYS, NOW).outcome == outcome


def test_controls_and_restores_are_in_no_distribution(lake: Lake) -> None:
    put(lake, drill("a"), control("c"), restore("r"))
    for found in (checks.rto(lake, GAMEDAYS, NOW), checks.rpo(lake, GAMEDAYS, NOW)):
        assert (found.figures["drills"], found.figures["drills of the last 35 days"]) == (1, 1)
    found = checks.rpo(lake, GAMEDAYS, NOW)
    assert (found.measured, found.figures["lost writes"], found.figures["acknowledged writes"]) == (1.0, 10, 1000)


def test_a_drill_that_failed_counts_with_what_it_measured(lake: Lake) -> None:
    put(lake, drill("a"), failed("b", rto_s=1000.0, rpo_s=11.0, lost_writes=1100))
    assert checks.rto(lake, GAMEDAYS, NOW).outcome == "failed"
    assert checks.rpo(lake, GAMEDAYS, NOW).measured == 11.0


def test_a_drill_at_whose_survivors_nobody_looked_is_no_loss_of_zero(lake: Lake) -> None:
    put(lake, failed("a", rto_s=8.0))
    assert checks.rto(lake, GAMEDAYS, NOW).measured == pytest.approx(8 / 60)
    found = checks.rpo(lake, GAMEDAYS, NOW)
    assert (found.measured, found.outcome) == (None, "cannot be measured")
    assert (found.missing, found.detail) == (
        "a drill whose survivors were looked at in the last 35 days",
        "no drill yet",
    )


def test_drills_of_before_the_window_measure_nothing_and_are_still_told(lake: Lake) -> None:
    found = checks.rto(put(lake, drill("old", 36)), GAMEDAYS, NOW)
    assert (found.measured, found.missing) == (None, "a drill that failed over in the last 35 days")
    assert (found.figures["drills"], found.figures["drills of the last 35 days"]) == (1, 0)
    assert found.detail.startswith("seconds from fault to first write elsewhere, 1 drills: median 6.00")


def test_without_a_drill_neither_is_measured(lake: Lake) -> None:
    rto, rpo = checks.rto(lake, GAMEDAYS, NOW), checks.rpo(lake, GAMEDAYS, NOW)
    assert (rto.measured, rpo.measured, rto.detail, rpo.detail) == (None, None, "no drill yet", "no drill yet")
    assert rto.figures == {"drills of the last 35 days": 0, "drills": 0}


# Sound


def test_drills_that_passed_are_sound(lake: Lake) -> None:
    refused = drill("b", scenario="corrupt-standby", verdict="refused as intended", rto_s=None, rpo_s=None)
    found = checks.sound(put(lake, drill("a"), refused), NOW)
    assert (found.measured, found.outcome, found.detail) == (
        0.0,
        "passed",
        "each drill passed, or its like did since, and has its evidence",
    )


@pytest.mark.parametrize("bad", [failed("a", 5), aborted("a", 5)], ids=["failed", "aborted"])
def test_a_drill_that_failed_or_was_killed_counts_until_its_like_has_passed(lake: Lake, bad: Row) -> None:
    put(lake, drill("before", 6), bad)
    found = checks.sound(lake, NOW)
    assert (found.measured, found.outcome) == (1.0, "failed")
    assert found.detail == f"a (kill, orders) {bad['verdict']}: {bad['deficiencies']}"
    put(lake, drill("after", 4))
    assert checks.sound(lake, NOW).measured == 0.0


@pytest.mark.parametrize(
    "other",
    [{"database": "invoices"}, {"scenario": "hang"}, {"verdict": "failed"}, {"is_sync": True}, {"is_embedded": False}],
    ids=["another database", "another scenario", "failed too", "synchronous", "an operator's own"],
)
def test_another_drill_mends_nothing(lake: Lake, other: Row) -> None:
    found = checks.sound(put(lake, failed("a", 5), drill("b", 4, **other)), NOW)
    assert found.outcome == "failed"
    assert found.detail.startswith("a (kill, orders) failed")


def test_a_refusal_that_was_meant_mends_one_that_did_not_come(lake: Lake) -> None:
    put(lake, failed("a", 5, scenario="corrupt-standby"))
    assert checks.sound(lake, NOW).measured == 1.0
    put(lake, drill("b", 4, scenario="corrupt-standby", verdict="refused as intended"))
    assert checks.sound(lake, NOW).measured == 0.0


def test_a_failed_restore_counts_as_well(lake: Lake) -> None:
    put(lake, restore("r", 2, verdict="failed", deficiencies="lake: the digest restored is not that of the copy"))
    assert checks.sound(lake, NOW).detail.startswith("r (restore, platform state) failed: lake: the digest")
    put(lake, restore("s", 1))
    assert checks.sound(lake, NOW).measured == 0.0


def test_the_first_of_several_is_told_with_all_its_deficiencies(lake: Lake) -> None:
    put(lake, failed("b", 3, scenario="hang"), failed("a", 4, deficiencies="one\ntwo"))
    found = checks.sound(lake, NOW)
    assert (found.measured, found.detail) == (2.0, "a (kill, orders) failed: one; two")


def test_a_failure_does_not_pass_by_growing_old(lake: Lake) -> None:
    put(lake, failed("a", 200))
    assert checks.sound(lake, NOW).measured == 1.0


def test_a_drill_without_evidence_is_not_sound(lake: Lake) -> None:
    found = checks.sound(put(lake, drill("a", bundle=None)), NOW)
    assert (found.measured, found.detail) == (1.0, "a (kill, orders) passed: its evidence is not filed")


def test_without_drills_nothing_is_unsound(lake: Lake) -> None:
    assert checks.sound(lake, NOW).measured == 0.0


def test_a_failover_that_never_came_back_lasts_until_its_like_passes(lake: Lake) -> None:
    put(lake, drill("good", 3, scenario="hang"), failed("a", 2))
    found = checks.rto(lake, GAMEDAYS, NOW)
    assert (found.measured, found.outcome) == (2 * 24 * 60, "failed")
    assert found.detail.startswith("drill a never came back; ")
    assert checks.rto(put(lake, drill("b", 1)), GAMEDAYS, NOW).measured == 0.1


# That a drill can fail


def test_a_control_that_missed_its_objective_proves_that_drills_can_fail(lake: Lake) -> None:
    found = checks.can_fail(put(lake, drill("a"), control("c")), NOW)
    assert (found.measured, found.target, found.outcome) == (12.5, 10.0, "passed")
    assert found.detail == "drill c lost 1,250 writes on purpose: missed as intended"


def test_the_newest_control_decides(lake: Lake) -> None:
    put(lake, control("c", 2), control("d", 1, rpo_s=0.5, lost_writes=50, verdict="not missed"))
    found = checks.can_fail(lake, NOW)
    assert (found.measured, found.outcome) == (0.0, "failed")
    assert found.detail == "drill d has shown no loss: not missed"


def test_without_a_control_it_is_not_known_whether_drills_can_fail(lake: Lake) -> None:
    found = checks.can_fail(put(lake, drill("a", rpo_s=60.0)), NOW)
    assert (found.measured, found.missing, found.detail) == (
        None,
        "a negative control",
        "no negative control was run in the last 35 days",
    )


def test_a_control_that_failed_for_another_reason_proves_nothing(lake: Lake) -> None:
    """It found rows that nobody wrote, and no other check looks at controls."""
    put(lake, control("c", verdict="failed", deficiencies="1 rows that nobody wrote, such as 99"))
    assert checks.can_fail(lake, NOW).outcome != "passed"


def test_a_control_that_was_killed_is_told_as_that(lake: Lake) -> None:
    put(lake, control("c", 2), control("d", 1, verdict="aborted", rpo_s=None, lost_writes=None))
    found = checks.can_fail(lake, NOW)
    assert (found.measured, found.outcome, found.detail) == (0.0, "failed", "drill d has shown no loss: aborted")


def test_a_control_of_long_ago_proves_nothing(lake: Lake) -> None:
    put(lake, control("c", 36))
    assert checks.can_fail(lake, NOW).outcome == "cannot be measured"


# Months


# A GameDay ends with its control. September's first Tuesday is the 1st (87 days ago), October's the 6th (52), November's the 3rd (24).


def test_a_month_without_a_gameday_is_missed(lake: Lake) -> None:
    put(lake, drill("a", 87, gameday="2026-09"), control("b", 87, gameday="2026-09"), control("c", 24))
    found = checks.held(lake, GAMEDAYS, NOW)
    assert (found.measured, found.outcome, found.detail) == (1.0, "failed", "no GameDay in 2026-10")
    assert found.figures == {"held": 2, "next": "2026-12-01"}


def test_months_that_were_held_are_listed(lake: Lake) -> None:
    put(lake, control("a", 52, gameday="2026-10"), control("b", 24), drill("c", 3, gameday="ad hoc"))
    found = checks.held(lake, GAMEDAYS, NOW)
    assert (found.measured, found.outcome, found.detail) == (0.0, "passed", "held: 2026-10, 2026-11")
    assert found.figures == {"held": 2, "next": "2026-12-01"}


@pytest.mark.parametrize(
    "bad",
    [
        aborted("b", 24),
        drill("b", 24),
        control("b", 24, verdict="aborted"),
        control("b", 24, gameday="ad hoc"),
        control("b", 15),
        control("b", 80),
    ],
    ids=["a killed drill", "no control", "a killed control", "out of turn", "too late", "too early"],
)
def test_a_month_is_held_by_a_gameday_that_came_to_its_end_in_its_week(lake: Lake, bad: Row) -> None:
    put(lake, control("a", 52, gameday="2026-10"), drill("first", 60, gameday="ad hoc"), bad)
    found = checks.held(lake, GAMEDAYS, NOW)
    assert (found.measured, found.detail) == (1.0, "no GameDay in 2026-11")


def test_a_gameday_that_was_made_up_for_is_held(lake: Lake) -> None:
    put(lake, drill("first", 60, gameday="ad hoc"), control("a", 52, gameday="2026-10"), control("b", 18))
    assert checks.held(lake, GAMEDAYS, NOW).measured == 0.0


def test_databases_that_are_only_looked_at_are_named(lake: Lake) -> None:
    server = {"dsn": "host=x"}
    commands = {"fence": ("f",), "promote": ("p",), "route": ("r",)}
    clusters = {"primary": server, "standby": server, "endpoint": server, "commands": commands}
    [orders] = GAMEDAYS.databases
    dry = GAMEDAYS.model_copy(
        update={"databases": (orders.model_copy(update={"clusters": Clusters.model_validate(clusters)}),)}
    )
    found = checks.held(put(lake, control("b", 24)), dry, NOW)
    assert found.detail == "held: 2026-11; only looked at, as their mode is dry-run: orders"


def test_months_before_the_first_drill_are_not_missed(lake: Lake) -> None:
    found = checks.held(put(lake, drill("a", 1, gameday="ad hoc")), GAMEDAYS, NOW)
    assert (found.measured, found.detail) == (0.0, "held: ad hoc drills only, no month is over yet")
    # December's was on the first.
    later = checks.held(lake, GAMEDAYS, NOW + 6 * DAY)
    assert (later.measured, later.detail) == (1.0, "no GameDay in 2026-12")


def test_without_a_drill_no_month_can_be_missed(lake: Lake) -> None:
    found = checks.held(put(lake, aborted("a")), GAMEDAYS, NOW)
    assert (found.measured, found.missing) == (None, "a first drill")


def test_without_drills_no_month_is_held(lake: Lake) -> None:
    assert checks.held_months(lake, GAMEDAYS) == set()


# The second copy


def test_a_restore_that_passed_has_no_deficiency_and_its_figures(lake: Lake) -> None:
    found = checks.restored(put(lake, restore("r", 3), drill("a")), NOW)
    assert (found.measured, found.target, found.outcome) == (0.0, 0, "passed")
    assert found.detail == "drill r: passed"
    assert found.figures == {"RTO s": 120.0, "RTO objective s": 900.0, "RPO s": 1800.0, "RPO objective s": 3600.0}


def test_the_newest_restore_decides(lake: Lake) -> None:
    late = {"rto_s": 1200.0, "verdict": "failed", "deficiencies": "RTO missed\nRPO missed"}
    found = checks.restored(put(lake, restore("r", 3), restore("s", 2, **late)), NOW)
    assert (found.measured, found.outcome, found.detail) == (2.0, "failed", "drill s: failed; RTO missed; RPO missed")


def test_a_restore_of_more_than_400_days_ago_is_none(lake: Lake) -> None:
    put(lake, restore("r", 400))
    assert checks.restored(lake, NOW).measured == 0.0
    found = checks.restored(lake, NOW + timedelta(seconds=1))
    assert (found.measured, found.missing) == (None, "a drill of the scenario restore")


def test_without_a_restore_it_is_not_known_how_long_one_takes(lake: Lake) -> None:
    found = checks.restored(put(lake, drill("a")), NOW)
    assert (found.measured, found.detail) == (None, "no restore has been drilled")


@pytest.mark.parametrize("rto", [None, 5.0])
def test_a_restore_that_failed_does_not_pass_however_quick(lake: Lake, rto: float | None) -> None:
    broken = {"rto_s": rto, "verdict": "failed", "deficiencies": "evidence: log: broken"}
    found = checks.restored(put(lake, restore("r", 3), restore("s", 2, **broken)), NOW)
    assert (found.outcome, found.detail) == ("failed", "drill s: failed; evidence: log: broken")


def copies(lake: Lake, *taken: tuple[str, datetime, str]) -> Lake:
    """Copies with two parts each."""
    for snapshot, at, region in taken:
        rows = [
            {
                "snapshot": snapshot,
                "home_region": EU,
                "region": region,
                "part": part,
                "files": 3,
                "bytes": 100,
                "bytes_new": 10,
                "taken_at": at,
                "seconds": 1.5,
            }
            for part in ("lake", "evidence")
        ]
        lake.append(RECOVERY_COPIES, pa.Table.from_pylist(rows, schema=RECOVERY_COPIES.schema), at, "run")
    return lake


def test_the_newest_copy_is_as_old_as_it_is(lake: Lake) -> None:
    copies(lake, ("new", NOW - timedelta(minutes=45), IE), ("old", NOW - timedelta(hours=5), "eu-west-3"))
    found = checks.fresh(lake, GAMEDAYS, NOW)
    assert (found.measured, found.target, found.unit, found.outcome) == (45.0, 60, "minutes", "passed")
    assert found.detail == f"new in {IE}"


@pytest.mark.parametrize(("seconds", "outcome"), [(3600, "passed"), (3601, "failed")])
def test_a_copy_older_than_an_hour_is_too_old(lake: Lake, seconds: int, outcome: str) -> None:
    assert checks.fresh(copies(lake, ("s", NOW - timedelta(seconds=seconds), IE)), GAMEDAYS, NOW).outcome == outcome


def test_without_a_copy_there_is_none_to_be_fresh(lake: Lake) -> None:
    found = checks.fresh(lake, GAMEDAYS, NOW)
    assert (found.measured, found.missing, found.detail) == (None, "a second copy", "no second copy was taken")


# Lists


def test_the_runbook_is_that_of_the_newest_drill_that_failed_over_and_back(lake: Lake) -> None:
    put(
        lake,
        drill("a", 3),
        drill("b", 2),
        drill("not back", 1, failback_s=None),
        control("c", 1),
        drill("not filed", 1, bundle=None),
    )
    assert checks.with_runbook(lake, None) == "bundle-b"


def test_the_runbook_of_a_drill_is_found_by_its_name(lake: Lake) -> None:
    put(lake, drill("a", 3), failed("b", 2), drill("c", 1))
    assert checks.with_runbook(lake, "a") == "bundle-a"
    assert checks.with_runbook(lake, "b") == "bundle-b"


@pytest.mark.parametrize("name", ["nobody", "not filed", "a' or true --"])
def test_a_drill_without_evidence_has_no_runbook(lake: Lake, name: str) -> None:
    put(lake, drill("a", 3), drill("not filed", 1, bundle=None))
    with pytest.raises(BadInput) as error:
        checks.with_runbook(lake, name)
    assert str(error.value) == (
        f"drill {name}: found none of that name with evidence, allowed: one of greenops gameday list"
    )


def test_before_the_first_drill_there_is_no_runbook(lake: Lake) -> None:
    put(lake, control("c"), restore("r"), aborted("a"))
    with pytest.raises(BadInput) as error:
        checks.with_runbook(lake, None)
    assert str(error.value) == (
        "found no drill that failed over and back, allowed: after `greenops gameday run --scenario kill`"
    )


def test_the_newest_drills_come_first_for_scripts(lake: Lake) -> None:
    put(lake, drill("a", 3), failed("b", 2, deficiencies="one\ntwo"), control("c", 1))
    assert [row["drill"] for row in checks.listed(lake, 10)] == ["c", "b", "a"]
    assert [row["drill"] for row in checks.listed(lake, 2)] == ["c", "b"]
    assert checks.listed(lake, 0) == []
    assert checks.listed(lake, 3)[1:] == [
        {
            "drill": "b",
            "gameday": "2026-11",
            "database": "orders",
            "primary": US,
            "standby": EU,
            "scenario": "kill",
            "sync": False,
            "negative_control": False,
            "verdict": "failed",
            "rto_s": None,
            "rpo_s": None,
            "client_outage_s": None,
            "failback_s": None,
            "lost_writes": None,
            "in_doubt_writes": 8,
            "acked_writes": 1000,
            "deficiencies": ["one", "two"],
            "bundle": "bundle-b",
        },
        checks.listed(lake, 3)[2] | {"drill": "a", "deficiencies": [], "lost_writes": 10},
    ]


def test_the_newest_drills_come_first_for_people(lake: Lake) -> None:
    put(lake, drill("a", 3, rto_s=6.126), control("c", 1, rpo_s=None))
    assert checks.newest(lake).to_pylist() == [
        {
            "began": "2026-11-26 12:00",
            "scenario": "negative control",
            "direction": f"{US} -> {EU}",
            "sync": False,
            "rto_s": 40.0,
            "rpo_s": None,
            "lost_writes": 1250,
            "verdict": "missed as intended",
        },
        {
            "began": "2026-11-24 12:00",
            "scenario": "kill",
            "direction": f"{US} -> {EU}",
            "sync": False,
            "rto_s": 6.13,
            "rpo_s": 1.0,
            "lost_writes": 10,
            "verdict": "passed",
        },
    ]


def test_the_newest_drill_of_a_database_is_one_that_came_to_its_end(lake: Lake) -> None:
    assert checks.newest_drill(lake) is None
    put(lake, drill("a", 5), failed("b", 4), aborted("c", 3), control("d", 2), restore("e", 1))
    assert checks.newest_drill(lake) == NOW - 4 * DAY


def test_what_is_stored_of_drills_is_one_file_each(lake: Lake) -> None:
    put(lake, drill("a"), drill("b"))
    put(lake, drill("b", rto_s=7.0))
    found = lake.stored(RECOVERY_DRILLS)
    assert (found.rows, len(found.paths)) == (2, 2)
    assert put(lake, drill("b", rto_s=8.0)).stored(RECOVERY_DRILLS).version != found.version


# The scorecard


def test_the_checks_hold_what_the_criteria_promise(lake: Lake) -> None:
    measured: Sequence[Any] = [
        checks.directions(lake, NOW),
        checks.rto(lake, GAMEDAYS, NOW),
        checks.rpo(lake, GAMEDAYS, NOW),
        checks.held(lake, GAMEDAYS, NOW),
    ]
    promised = {c.check: (c.comparison, c.target, c.unit) for c in criteria()}
    found = {m.check: (m.comparison, m.target, m.unit) for m in measured if m.check in promised}
    assert found == {check: promised[check] for check in found}
    assert {c.id for c in criteria() if c.check in found} == {"J4.1", "J4.2", "J4.2-rpo", "J4.4"}
