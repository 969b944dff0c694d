"""Canary drills in real time, as `make soak` repeats them: nothing exceeds its certificate, nothing is left behind."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from greenops_pipelines.process import prometheus
from greenops_pipelines.slo.drill_results import Result, line
from tests.slo.canary_homes import left_running
from tests.slo.conftest import program

_REPETITIONS = 5
_AT_ONCE = 2
"""Half a core each: a machine that is too busy fails a drill."""

pytestmark = [pytest.mark.soak, pytest.mark.real]


def _all(tmp_path: Path, wanted: list[tuple[str, ...]]) -> list[Result]:
    """Each by the command line in a home of its own: a home holds one drill at a time."""
    program(prometheus.PROGRAM, prometheus.INSTALL)

    def one(numbered: tuple[int, tuple[str, ...]]) -> Result:
        number, (service, scenario, *more) = numbered
        environment = {**os.environ, "GREENOPS_HOME": str(tmp_path / str(number)), "GREENOPS_EVIDENCE_GPG": "off"}
        words = ("slo", "drill", "--service", service, "--scenario", scenario, "--json", *more)
        done = subprocess.run(
            [str(Path(sys.executable).parent / "greenops"), *words],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.stdout, done.stderr
        [found] = json.loads(done.stdout)["drills"]
        assert found.pop("bundle"), found
        found.pop("evidence")
        assert [path.name for path in (tmp_path / str(number) / "canary").iterdir()] == ["drills.lock"]
        return Result(**{**found, "deficiencies": tuple(found["deficiencies"])})

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = list(pool.map(one, enumerate(wanted)))
    assert left_running(tmp_path) == []
    return results


def test_five_repetitions_of_every_breach_in_real_time(tmp_path: Path) -> None:
    services = ("api-gateway", "reporting", "q2q-ai", "cockpit", "impact-in")
    scenarios = ("errors-100", "errors-10", "errors-2", "latency")
    assert len(services) == _REPETITIONS
    found = _all(tmp_path, [(service, scenario) for service in services for scenario in scenarios])
    for scenario in scenarios:
        of = [each for each in found if each.scenario == scenario]
        took = sorted(each.rollback_s or 0.0 for each in of)
        shares = [100 * (each.rollback_s or 0.0) / (each.bound_s or 1.0) for each in of]
        print(
            f"\n{scenario}: {len(of)} drills, rollback complete after {took[0]:.1f} to {took[-1]:.1f} s, "
            f"median {statistics.median(took):.1f} s; certified {min(each.bound_s or 0 for each in of):.1f} to "
            f"{max(each.bound_s or 0 for each in of):.1f} s, at most {max(shares):.0f} % of it taken; "
            f"first bad sample {min(each.first_bad_sample_s or 0 for each in of):.1f} to "
            f"{max(each.first_bad_sample_s or 0 for each in of):.1f} s"
        )
        for each in of:
            print(line(each))
    for each in found:
        assert (each.verdict, each.outcome, each.deficiencies) == ("passed", "rolled back", ()), line(each)
        assert each.rollback_s is not None
        assert each.bound_s is not None
        assert each.rollback_s < 120
        assert each.rollback_s <= each.bound_s


def test_good_canaries_are_promoted_in_real_time_whatever_prometheus_does(tmp_path: Path) -> None:
    wanted = [("api-gateway", "healthy"), ("reporting", "healthy"), ("q2q-ai", "prometheus-restart")]
    for each in _all(tmp_path, wanted):
        print(f"\n{line(each)}; {each.measurements} measurements, {each.canary_answers:,} answers of the canary")
        assert (each.verdict, each.outcome, each.deficiencies) == ("passed", "promoted", ()), line(each)


def test_canaries_that_cannot_be_judged_and_late_breaches_are_rolled_back_in_real_time(tmp_path: Path) -> None:
    faults = ("canary-dies", "no-traffic", "metrics-vanish", "prometheus-down", "prometheus-hangs", "prometheus-slow")
    # Two seconds before the last step: 2 min, a check, 5 min, a check.
    late = ("api-gateway", "errors-2", "--breach-after", "478")
    for each in _all(tmp_path, [late, *[("reporting", fault) for fault in faults]]):
        print(f"\n{line(each)}: at {each.canary_percent} %, {each.why}")
        assert (each.verdict, each.outcome, each.deficiencies) == ("passed", "rolled back", ()), line(each)
