"""Canary drills, sped up: real services, router and Prometheus; each fault with the outcome that the controller gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from greenops_pipelines import wiring
from greenops_pipelines.process import prometheus
from greenops_pipelines.settings import Settings
from greenops_pipelines.slo import drill_plans
from greenops_pipelines.slo.drill_results import Result
from tests.slo.canary_homes import home, left_running
from tests.slo.conftest import program


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return home(tmp_path, monkeypatch)


def _drill(settings: Settings, scenario: str, *, speed: float, embedded: bool = False, **more: object) -> Result:
    if not embedded:
        program(prometheus.PROGRAM, prometheus.INSTALL)
    declared = wiring.canaries(settings)
    words = {"service": "api-gateway", "breach_after_s": 70.0} | more
    spec = drill_plans.spec(declared, scenario, speed=speed, embedded=embedded, **words)  # type: ignore[arg-type]
    [filed] = wiring.hold_canary_drills(settings, [spec]).drills
    assert left_running(settings.canary) == []
    return filed.result


@pytest.mark.real
@pytest.mark.parametrize("variant", ["cumulative", "consecutive"])
def test_a_canary_that_fails_wholly_is_rolled_back_in_time(settings: Settings, variant: str) -> None:
    found = _drill(settings, "errors-100", speed=20, variant=variant)
    assert (found.verdict, found.outcome, found.deficiencies) == ("passed", "rolled back", ())
    assert "error-rate" in found.why
    assert found.source.startswith("Prometheus 2.")
    assert found.canary_percent == 5
    assert found.first_bad_sample_s is not None
    assert 0 < found.first_bad_sample_s <= found.decision_s <= found.routed_back_s <= found.rollback_s  # type: ignore[operator]
    assert found.canary_bad_answers > 0
    assert found.failed_requests == 0
    # The check of the step may begin beside the background run and see the same errors: the run that decided is counted.
    decided, _, _ = found.why.partition(":")
    rows = wiring.lake(settings).query("select run, gate, phase from slo_drill_measurements").to_pylist()
    failed = [row for row in rows if (row["run"], row["gate"], row["phase"]) == (decided, "error-rate", "Failed")]
    # Three bad samples in all, or one look at three bad ones in a row.
    assert len(failed) == (3 if variant == "cumulative" else 1)


def test_without_prometheus_the_embedded_scraper_says_so(settings: Settings) -> None:
    found = _drill(settings, "errors-100", speed=20, embedded=True)
    assert (found.verdict, found.outcome, found.deficiencies) == ("passed", "rolled back", ())
    assert found.source == "embedded scraper"


@pytest.mark.real
def test_a_good_canary_is_promoted_through_all_steps(settings: Settings) -> None:
    found = _drill(settings, "healthy", service="reporting", speed=40)
    assert (found.verdict, found.outcome, found.deficiencies) == ("passed", "promoted", ())
    assert found.canary_bad_answers == 0
    assert found.last_step == "promoted"
    runs = wiring.lake(settings).query("select distinct run from slo_drill_measurements order by 1").to_pylist()
    assert [row["run"] for row in runs] == ["background", "check at 25 %", "check at 5 %", "check at 50 %"]


@pytest.mark.real
def test_a_slow_canary_is_rolled_back_for_its_latency(settings: Settings) -> None:
    found = _drill(settings, "latency", speed=10)
    assert (found.verdict, found.outcome, found.deficiencies) == ("passed", "rolled back", ())
    assert "latency" in found.why
    assert found.canary_bad_answers == 0


@pytest.mark.real
@pytest.mark.parametrize(
    ("scenario", "why"),
    [
        ("canary-dies", ""),
        # 0/0 is NaN, and NaN is not below anything.
        ("no-traffic", "Failed"),
        ("metrics-vanish", "Failed"),
        # Five errors in a row, ten seconds apart.
        ("prometheus-down", "consecutiveErrors (5) > consecutiveErrorLimit (4)"),
    ],
)
def test_what_cannot_be_judged_is_rolled_back(settings: Settings, scenario: str, why: str) -> None:
    found = _drill(settings, scenario, service="reporting", speed=20)
    assert (found.verdict, found.outcome, found.deficiencies) == ("passed", "rolled back", ())
    assert why in found.why
    assert found.bound_s is None


@pytest.mark.real
def test_events_tell_the_whole_story(settings: Settings) -> None:
    from greenops_pipelines.evidence import bundle as form

    found = _drill(settings, "errors-100", speed=20)
    [row] = wiring.lake(settings).query("select bundle from slo_drills").to_pylist()
    files = form.read(wiring.evidence(settings).archive.get(row["bundle"])).files
    events = [json.loads(line) for line in files["events.jsonl"].decode().splitlines()]
    names = [each["event"] for each in events]
    assert names[:4] == ["begun", "weight", "pause", "analysis"]
    assert names.index("breach") < names.index("bad sample") < names.index("decided") < names.index("over")
    at = {each["event"]: each["seconds"] for each in events}
    assert at["decided"] - at["breach"] == pytest.approx(found.decision_s, abs=2)
    assert len(json.loads(files["measurements.json"])) == found.measurements
