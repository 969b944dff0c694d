"""Canary drills as they are held: what is refused, filed, recorded, cleaned up, and due."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from greenops_pipelines import wiring
from greenops_pipelines.errors import BadInput, TransientError
from greenops_pipelines.settings import Settings
from greenops_pipelines.slo import canary_checks, drill_plans, drills
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.drill_results import Result, Spec, expected, parse_scenarios
from tests.slo.canary_homes import ROOT, home, left_running

SERVICES = ("api-gateway", "reporting", "q2q-ai", "cockpit", "impact-in")
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return home(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def canaries() -> Canaries:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GREENOPS_OPS_DIR", str(ROOT / "ops"))
        from greenops_pipelines.settings import load_settings

        return wiring.canaries(load_settings())


def _result(spec: Spec, **more: object) -> Result:
    plain = Result(
        drill=spec.drill,
        batch=spec.batch,
        service=spec.service,
        scenario=spec.scenario,
        variant=spec.variant,
        speed=spec.speed,
        rate=spec.rate,
        source="Prometheus 2.42.0",
        verdict="passed",
        outcome="rolled back",
        deficiencies=(),
        why="background: Metric error-rate assessed Failed",
        last_step="2/10 pause, canary 0 %",
        canary_percent=5,
        first_bad_sample_s=20.0,
        decision_s=50.0,
        routed_back_s=50.1,
        rollback_s=50.2,
        bound_s=67.9,
        deadline_s=120.0,
        canary_answers=100,
        canary_bad_answers=50,
        stable_answers=2000,
        failed_requests=0,
        measurements=12,
        began_at=NOW.isoformat(),
        ended_at=(NOW + timedelta(seconds=90)).isoformat(),
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def _hold(settings: Settings, canaries: Canaries, specs: list[Spec], **more: object) -> drills.Held:
    def run(spec: Spec, _canaries: Canaries, _folder: Path, _progress: Callable[[str], None]) -> Result:
        return _result(spec, **more)

    return drills.hold(
        specs, canaries, settings.canary, wiring.evidence(settings).archive, wiring.lake(settings), run=run
    )


def test_a_drill_is_filed_recorded_and_gone_from_the_home(settings: Settings, canaries: Canaries) -> None:
    [filed] = _hold(settings, canaries, [drill_plans.spec(canaries, "errors-100", "api-gateway")]).drills
    assert filed.bundle is not None
    evidence = wiring.evidence(settings)
    assert evidence.verify(filed.bundle, evidence.trust()).ok
    [row] = wiring.lake(settings).query("select * from slo_drills").to_pylist()
    assert (row["scenario"], row["rollback_s"], row["bound_s"], row["bundle"]) == (
        "errors-100",
        50.2,
        67.9,
        filed.bundle,
    )
    assert [path.name for path in settings.canary.iterdir()] == ["drills.lock"]


def test_two_at_once_are_refused(settings: Settings, canaries: Canaries) -> None:
    with drills.alone(settings.canary), pytest.raises(TransientError, match="found a canary drill under way"):
        _hold(settings, canaries, [drill_plans.spec(canaries, "errors-100", "api-gateway")])


def test_what_was_killed_is_filed_as_aborted_once(settings: Settings, canaries: Canaries) -> None:
    spec = drill_plans.spec(canaries, "errors-2", "api-gateway")

    def killed(*_: object) -> Result:
        raise KeyboardInterrupt

    archive, lake = wiring.evidence(settings).archive, wiring.lake(settings)
    with pytest.raises(KeyboardInterrupt):
        drills.hold([spec], canaries, settings.canary, archive, lake, run=killed)
    event = {"at": NOW.isoformat(), "seconds": 3.0, "event": "breach"}
    (settings.canary / spec.drill / "events.jsonl").write_text(json.dumps(event) + '\n{"at": "2026', encoding="utf-8")
    held = _hold(settings, canaries, [])
    [left] = held.remains
    assert (left.result.drill, left.result.verdict) == (spec.drill, "aborted")
    assert left.result.deficiencies == ("killed; the last that was noted: breach",)
    assert _hold(settings, canaries, []).remains == ()
    assert lake.query("select verdict from slo_drills").to_pylist() == [{"verdict": "aborted"}]
    sound = canary_checks.sound(lake, datetime.now(UTC))
    assert (sound.measured, sound.outcome) == (1.0, "failed")
    # One of its kind that passes makes it good again.
    _hold(
        settings,
        canaries,
        [drill_plans.spec(canaries, "errors-2", "api-gateway")],
        began_at=datetime.now(UTC).isoformat(),
    )
    assert canary_checks.sound(lake, datetime.now(UTC)).outcome == "passed"


def test_a_result_that_was_not_filed_is_filed_by_the_next(settings: Settings, canaries: Canaries) -> None:
    """Killed between result and evidence: what it found counts, not that it was killed."""
    spec = drill_plans.spec(canaries, "latency", "api-gateway")
    place = settings.canary / spec.drill
    place.mkdir(parents=True)
    (place / "spec.json").write_text(json.dumps(spec.__dict__), encoding="utf-8")
    (place / "result.json").write_text(json.dumps(_result(spec).as_document()), encoding="utf-8")
    [left] = _hold(settings, canaries, []).remains
    assert (left.result.verdict, left.result.rollback_s) == ("passed", 50.2)
    assert left.bundle is not None


def test_the_longest_rollback_of_each_scenario_is_measured(settings: Settings, canaries: Canaries) -> None:
    for scenario, seconds in (("errors-100", 50.0), ("errors-2", 99.5), ("errors-100", 61.0)):
        _hold(
            settings, canaries, [drill_plans.spec(canaries, scenario, "api-gateway")], rollback_s=seconds, bound_s=110.0
        )
    # Sped up, it says nothing.
    _hold(settings, canaries, [drill_plans.spec(canaries, "errors-2", "api-gateway", speed=10)], rollback_s=500.0)
    lake = wiring.lake(settings)
    found = canary_checks.rollback(lake, canaries, NOW + timedelta(hours=1))
    assert (found.measured, found.target, found.outcome) == (99.5, 120, "passed")
    assert found.detail.startswith(
        "longest of each: errors-2 99.5 s (certified 110.0 s, 1 services), errors-100 61.0 s"
    )
    assert found.figures["errors-100, drills"] == 2
    bounded = canary_checks.bounded(lake, NOW + timedelta(hours=1))
    assert bounded.measured == pytest.approx(99.5 / 110 * 100)
    # Nine days later it is not measured any more.
    old = canary_checks.rollback(lake, canaries, NOW + timedelta(days=9))
    assert (old.measured, old.outcome) == (None, "cannot be measured")


def test_a_bad_canary_that_was_promoted_lasts_until_its_like_passes(settings: Settings, canaries: Canaries) -> None:
    spec = drill_plans.spec(canaries, "errors-2", "api-gateway")
    _hold(
        settings,
        canaries,
        [spec],
        verdict="failed",
        outcome="promoted",
        rollback_s=None,
        deficiencies=("found it promoted",),
    )
    lake = wiring.lake(settings)
    found = canary_checks.rollback(lake, canaries, NOW + timedelta(hours=1))
    assert (found.measured, found.outcome) == (3600.0, "failed")
    later = (NOW + timedelta(minutes=30)).isoformat()
    _hold(settings, canaries, [drill_plans.spec(canaries, "errors-2", "api-gateway")], began_at=later)
    assert canary_checks.rollback(lake, canaries, NOW + timedelta(hours=1)).measured == 50.2


def test_a_week_is_due_from_tuesday_on_until_it_is_held() -> None:
    monday, tuesday = datetime(2026, 11, 23, 3, 11, tzinfo=UTC), datetime(2026, 11, 24, 3, 11, tzinfo=UTC)
    assert drill_plans.week_of(monday) == "2026-W48"
    assert drill_plans.due_week(SERVICES, (), monday).week is None
    assert drill_plans.due_week(SERVICES, (), tuesday) == drill_plans.DueWeek("2026-W48", "cockpit", drill_plans.WEEKLY)
    left = drill_plans.due_week(SERVICES, ("errors-100", "errors-10"), tuesday + timedelta(days=2))
    assert left.scenarios == ("errors-2", "latency", "healthy")
    assert drill_plans.due_week(SERVICES, drill_plans.WEEKLY, tuesday) == drill_plans.DueWeek(
        None, why="2026-W48: held"
    )
    # The year of the week, not of the day.
    assert drill_plans.week_of(datetime(2027, 1, 1, tzinfo=UTC)) == "2026-W53"


def test_what_a_run_of_the_graph_drills(canaries: Canaries) -> None:
    [only] = drill_plans.first(canaries, None, NOW)
    assert (only.scenario, only.speed) == ("errors-100", 1)
    # The fewest requests a second of all: 5 of the canary at 5 %, and a quarter more.
    assert (only.service, only.rate) == ("reporting", 125)
    assert drill_plans.first(canaries, NOW - timedelta(hours=23), NOW) == []
    assert len(drill_plans.first(canaries, NOW - timedelta(hours=25), NOW)) == 1


def test_the_first_share_has_more_requests_than_it_takes_to_judge(canaries: Canaries) -> None:
    for name, entry in canaries.services.items():
        spec = drill_plans.spec(canaries, "healthy", name)
        assert spec.rate * canaries.steps[0].weight / 100 > entry.minimum_requests_per_second


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"service": "shop"}, "--service: found 'shop', allowed: api-gateway, "),
        ({"speed": 0.5}, "--speed: found 0.5, allowed: 1 to "),
        ({"rate": 100_000}, "--rate: found 100000 requests a second, allowed: 200 to 400 for api-gateway"),
        ({"rate": 0}, "--rate: found 0 requests a second"),
        ({"scenario": "errors-1"}, "--scenario: found errors-1, allowed: above error_percent of api-gateway, 1.44 %"),
        ({"scenario": "prometheus-restart", "speed": 2}, "--speed: found 2, allowed: 1 for prometheus-restart"),
        ({"scenario": "prometheus-down", "embedded": True}, "--embedded: found it with prometheus-down"),
    ],
)
def test_what_cannot_be_drilled_is_one_line(canaries: Canaries, words: dict, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        drill_plans.spec(canaries, **{"scenario": "healthy", "service": "api-gateway", **words})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["errors", "errors-0", "errors-101", "errors-N", "", "kill", "errors-1e3", "errors--1"]
)
def test_unknown_scenarios_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--scenario: found"):
        parse_scenarios(text)


def test_scenarios_are_taken_in_order_each_once() -> None:
    assert parse_scenarios("latency, errors-2,latency,errors-0.5") == ("latency", "errors-2", "errors-0.5")
    assert expected("errors-0.5") == "rolled back"
    assert expected("prometheus-restart") == "promoted"


def _greenops(*words: str) -> list[str]:
    return [str(Path(sys.executable).parent / "greenops"), *words]


def test_a_dry_run_says_what_would_be_drilled(settings: Settings) -> None:
    words = ("--scenario", "errors-10,healthy", "--breach-after", "40", "--dry-run")
    done = subprocess.run(_greenops("slo", "drill", *words), capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["api-gateway", "errors-10"],
        ["api-gateway", "healthy"],
    ]
    assert "breach after 40 s" in done.stdout
    assert not settings.canary.exists()


@pytest.mark.parametrize("until", ["analysis", "breach", "bad sample"])
def test_sigkill_leaves_no_process_and_no_port(settings: Settings, until: str) -> None:
    words = ("--scenario", "errors-100", "--speed", "10", "--breach-after", "20")
    process = subprocess.Popen(_greenops("slo", "drill", *words), stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if f"  {until}" in line:
                break
        _kill(process, settings)
    archive, lake = wiring.evidence(settings).archive, wiring.lake(settings)
    with drills.alone(settings.canary):
        [left] = drills.clean(wiring.canaries(settings), settings.canary, archive, lake)
    assert left.result.verdict == "aborted"
    assert left.bundle is not None


def _kill(process: subprocess.Popen[str], settings: Settings) -> None:
    family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    ports = [
        c.laddr.port for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in (process.pid, *family)
    ]
    # Two services, the router, and Prometheus where it is installed.
    assert len(ports) >= 3
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while left_running(settings.canary) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left_running(settings.canary) == []
    assert [c.laddr.port for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port in ports] == []
