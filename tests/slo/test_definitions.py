"""The SLOs of the five services against the requirements' table, and each query against Prometheus' own arithmetic."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from greenops_pipelines.slo import load, validate
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.profiles import PERIOD
from greenops_pipelines.slo.validate import render
from tests.slo.conftest import program

DEFINITIONS = Path(__file__).parents[2] / "ops" / "slo-definitions"

OBJECTIVES = {
    "api-gateway": {
        "availability": 99.9, "latency-p95": 95, "request-volume": 99.5, "cpu-saturation": 99, "memory-saturation": 99,
    },
    "reporting": {"availability": 99.8, "latency-p95": 95, "genai-report-success": 98, "db-pool-health": 99.5},
    "q2q-ai": {"availability": 99.5, "latency-p95": 95, "llm-call-success": 98, "classification-confidence": 95},
    "cockpit": {"availability": 99.9, "lcp": 75, "inp": 75, "cls": 75},
    "impact-in": {
        "availability": 99.0, "latency-p95": 95, "delivery-benevity": 98, "delivery-goodera": 98, "delivery-workday": 98,
    },
}  # fmt: skip
BOUNDS = {
    "api-gateway-latency-p95": 'le="0.5"',
    "reporting-latency-p95": 'le=~"2|2[.]0"',
    "q2q-ai-latency-p95": 'le=~"5|5[.]0"',
    "impact-in-latency-p95": 'le=~"10|10[.]0"',
    "cockpit-lcp": 'web_vitals_lcp_seconds_bucket{service="cockpit", le="2.5"}',
    "cockpit-inp": 'web_vitals_inp_milliseconds_bucket{service="cockpit", le=~"200|200[.]0"}',
    "cockpit-cls": 'web_vitals_cls_score_bucket{service="cockpit", le="0.1"}',
    "api-gateway-cpu-saturation": "> bool 0.85",
    "api-gateway-memory-saturation": "> bool 0.9",
}


def slos() -> dict[str, Slo]:
    return {
        slo.id: slo
        for path in sorted(DEFINITIONS.glob("*.yaml"))
        for group in load.read_file(path, PERIOD)
        for slo in group.slos
    }


def test_every_slo_of_the_requirements_has_its_objective() -> None:
    found: dict[str, dict[str, float]] = {}
    for slo in slos().values():
        found.setdefault(slo.service, {})[slo.name] = slo.objective
    assert found == OBJECTIVES


def test_each_service_has_the_file_of_its_name_which_sloth_would_take() -> None:
    for path in DEFINITIONS.glob("*.yaml"):
        for group in load.read_file(path, PERIOD):
            assert {slo.service for slo in group.slos} == {path.stem}
            assert validate.faults(group, path.name) == []


@pytest.mark.parametrize(("slo_id", "bound"), BOUNDS.items())
def test_the_bound_of_the_promise_stands_in_the_query(slo_id: str, bound: str) -> None:
    events = slos()[slo_id].events
    assert events is not None
    assert bound in events.error_query


HTTP = "http_server_requests_total"
POD = '{namespace="prod",pod="%s",container="api-gateway"%s}'


def counted(metric: str, service: str, good: int, bad: dict[str, int], more: str = "") -> dict[str, str]:
    rates = {"success": good, **bad}
    return {f'{metric}{{service="{service}",status="{s}"{more}}}': f"0+{n}x200" for s, n in rates.items()}


def histogram(metric: str, service: str, buckets: dict[str, int]) -> dict[str, str]:
    series = {f'{metric}_bucket{{service="{service}",le="{le}"}}': f"0+{n}x200" for le, n in buckets.items()}
    return series | {f'{metric}_count{{service="{service}"}}': f"0+{max(buckets.values())}x200"}


LATENCY = "http_server_request_duration_seconds"
LIMITS = {
    f"kube_pod_container_resource_limits{POD % (pod, f',resource={quoted}')}": f"{limit}x200"
    for pod in ("a", "b")
    for quoted, limit in (('"cpu"', 2), ('"memory"', 1000))
}
CASES = [
    # 1 + 2 + 3 of 200 fail.
    ("api-gateway-availability", counted(HTTP, "api-gateway", 194, {"failed": 1, "error": 2, "5xx": 3}), 0.03),
    # Nothing has failed, so there is no failed series: an error ratio of 0, not no error ratio.
    ("cockpit-availability", counted(HTTP, "cockpit", 100, {}), 0.0),
    # Somebody else's failures are not ours.
    (
        "reporting-availability",
        counted(HTTP, "reporting", 99, {"5xx": 1}) | counted(HTTP, "q2q-ai", 0, {"5xx": 50}),
        0.01,
    ),
    ("api-gateway-latency-p95", histogram(LATENCY, "api-gateway", {"0.25": 50, "0.5": 90, "+Inf": 100}), 0.1),
    # Both spellings of a whole bound.
    ("reporting-latency-p95", histogram(LATENCY, "reporting", {"2": 96, "+Inf": 100}), 0.04),
    ("q2q-ai-latency-p95", histogram(LATENCY, "q2q-ai", {"5.0": 80, "+Inf": 100}), 0.2),
    ("cockpit-inp", histogram("web_vitals_inp_milliseconds", "cockpit", {"200": 70, "+Inf": 100}), 0.3),
    # One partner fails wholly, the others not at all: 1 of 4 deliveries.
    *(
        (
            slo_id,
            counted("impact_in_delivery_total", "impact-in", 30, {}, ',platform="goodera"')
            | counted("impact_in_delivery_total", "impact-in", 0, {"failed": 10}, ',platform="workday"'),
            expected,
        )
        for slo_id, expected in (
            ("impact-in-availability", 0.25),
            ("impact-in-delivery-goodera", 0.0),
            ("impact-in-delivery-workday", 1.0),
        )
    ),
    # 4 requests per second of the 5 that are the minimum; no request at all; 6 per second.
    ("api-gateway-request-volume", counted(HTTP, "api-gateway", 240, {}), 1.0),
    ("api-gateway-request-volume", counted(HTTP, "cockpit", 240, {}), 1.0),
    ("api-gateway-request-volume", counted(HTTP, "api-gateway", 360, {}), 0.0),
    # Pod a uses 1.8 of 2 cores, pod b 1.0: half of the pod-minutes.
    (
        "api-gateway-cpu-saturation",
        LIMITS
        | {f"container_cpu_usage_seconds_total{POD % ('a', '')}": "0+108x200"}
        | {f"container_cpu_usage_seconds_total{POD % ('b', '')}": "0+60x200"},
        0.5,
    ),
    # 89 % and 91 % of the limit.
    (
        "api-gateway-memory-saturation",
        LIMITS
        | {f"container_memory_working_set_bytes{POD % ('a', '')}": "890x200"}
        | {f"container_memory_working_set_bytes{POD % ('b', '')}": "910x200"},
        0.5,
    ),
    # Two pods: 18 and 17 of 20 connections; 90 % counts.
    (
        "reporting-db-pool-health",
        {
            f'db_pool_connections_{what}{{service="reporting",pod="{pod}"}}': f"{n}x200"
            for pod, used in (("a", 18), ("b", 17))
            for what, n in (("in_use", used), ("max", 20))
        },
        0.5,
    ),
]


@pytest.mark.real
def test_prometheus_computes_the_error_ratios_that_a_person_does(tmp_path: Path) -> None:
    promtool = program("promtool", "Debian: prometheus")
    known = slos()
    tests = []
    for slo_id, series, expected in CASES:
        slo = known[slo_id]
        if slo.events is not None:
            query = f"({render(slo.events.error_query, '1h')}) / ({render(slo.events.total_query, '1h')})"
        else:
            assert slo.raw is not None
            query = render(slo.raw.error_ratio_query, "1h")
        # In whole millionths: promtool 2.42 compares to the last digit, and 0.03 has none.
        exact = [{"value": round(expected * 1_000_000)}]
        asked = {"expr": f"round(({query}) * 1000000)", "eval_time": "3h", "exp_samples": exact}
        inputs = [{"series": name, "values": values} for name, values in series.items()]
        tests.append({"name": slo_id, "interval": "1m", "input_series": inputs, "promql_expr_test": [asked]})
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"tests": tests}), encoding="utf-8")
    done = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
