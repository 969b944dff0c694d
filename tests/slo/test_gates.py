"""The gates' queries and conditions: what they say of a good canary, of each bad one, and of one that shows nothing."""

from __future__ import annotations

import math
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import conditions, gates
from greenops_pipelines.slo.canary import Canaries, read_canary
from greenops_pipelines.slo.canary_model import Gate
from greenops_pipelines.slo.rendering import read
from tests.slo.conftest import program

OPS = Path(__file__).parents[2] / "ops"
NAN = math.nan


@pytest.fixture(scope="module")
def canaries() -> Canaries:
    slos = read(OPS)
    return read_canary(OPS, slos.declared, slos.slos, slos.catalogue)


def metric(canaries: Canaries, service: str, gate: str, variant: Any = "cumulative", **more: Any) -> dict[str, Any]:
    [found] = [m for m in gates.metrics(canaries, service, variant, "background", **more) if m["name"] == gate]
    return found


def is_good(made: dict[str, Any], result: list[float]) -> bool:
    """As the controller judges one answer of one measurement."""
    if "successCondition" in made:
        return conditions.compile(made["successCondition"]).evaluate(result)
    return not conditions.compile(made["failureCondition"]).evaluate(result)


def test_there_is_one_metric_per_gate(canaries: Canaries) -> None:
    counted = {s: len(gates.metrics(canaries, s, "cumulative", "background")) for s in canaries.services}
    assert counted == {"api-gateway": 6, "reporting": 5, "q2q-ai": 5, "cockpit": 6, "impact-in": 5}


def test_every_query_is_on_the_catalogues_metrics(canaries: Canaries) -> None:
    assert gates.faults(canaries) == []
    assert gates.faults(late(canaries)) == []
    for service in canaries.services:
        for variant in ("cumulative", "consecutive"):
            for made in gates.metrics(canaries, service, variant, "check", 7.0):
                assert canaries.catalogue.check(made["provider"]["prometheus"]["query"], "") == []


def test_a_metric_that_is_gone_from_the_catalogue_is_named_with_its_gate(canaries: Canaries) -> None:
    kept = tuple(m for m in canaries.catalogue.metrics if m.name != "llm_tokens_total")
    lines = gates.faults(replace(canaries, catalogue=replace(canaries.catalogue, metrics=kept)))
    assert len(lines) == 1
    assert lines[0].startswith("ops/canary.yaml: q2q-ai, gate token-usage: found the metric 'llm_tokens_total'")


def late(canaries: Canaries) -> Canaries:
    promise = canaries.rollback.model_copy(update={"counters_start_at_zero": False})
    return replace(canaries, rollback=promise)


def test_the_background_has_no_count_and_the_check_has_one(canaries: Canaries) -> None:
    [background, *_] = gates.metrics(canaries, "api-gateway", "cumulative", "background")
    assert "count" not in background
    assert (background["interval"], background["initialDelay"], background["failureLimit"]) == ("15s", "1m", 2)
    for variant in ("cumulative", "consecutive"):
        for made in gates.metrics(canaries, "api-gateway", variant, "check"):
            assert "initialDelay" not in made
            assert made["count"] == 3
            # What the controller refuses otherwise: count >= failureLimit + consecutiveSuccessLimit.
            assert made["count"] >= made["failureLimit"] + made.get("consecutiveSuccessLimit", 0)


def test_cumulative_has_a_success_condition_alone(canaries: Canaries) -> None:
    made = metric(canaries, "api-gateway", "error-rate")
    assert made["successCondition"] == "len(result) > 0 && all(result, # <= 0.0144)"
    assert "failureCondition" not in made
    assert [is_good(made, result) for result in ([0.0144], [0.0145], [NAN], [], [0.0, 0.02])] == [
        True,
        False,
        False,
        False,
        False,
    ]
    volume = metric(canaries, "api-gateway", "request-volume")
    assert [is_good(volume, result) for result in ([10.0], [9.9], [NAN], [])] == [True, False, False, False]


def test_consecutive_fails_after_exactly_three_bad_samples_in_a_row(canaries: Canaries) -> None:
    made = metric(canaries, "api-gateway", "error-rate", "consecutive")
    assert made["failureCondition"] == "len(result) >= 3 && all(result, !(# <= 0.0144))"
    assert made["failureLimit"] == 0
    assert "successCondition" not in made
    assert made["provider"]["prometheus"]["rangeQuery"] == {
        "start": 'now() - duration("30s")',
        "end": "now()",
        "step": "15s",
    }
    assert not is_good(made, [0.02, 0.02, 0.02])
    assert not is_good(made, [NAN, NAN, NAN])
    assert not is_good(made, [0.02, NAN, 0.02])
    assert is_good(made, [0.02, 0.0, 0.02])
    # Why no sample may be absent: these two would be no failure.
    assert is_good(made, [0.02, 0.02])
    assert is_good(made, [])
    assert all(
        m["provider"]["prometheus"]["query"].endswith(")\nor vector(NaN)\n")
        for service in canaries.services
        for m in gates.metrics(canaries, service, "consecutive", "background")
    )
    below = metric(canaries, "api-gateway", "request-volume", "consecutive")
    assert [is_good(below, result) for result in ([9.0, 9.0, 9.0], [9.0, 10.0, 9.0])] == [False, True]


def test_queries_ask_about_the_canarys_pods_alone(canaries: Canaries) -> None:
    for service in canaries.services:
        for made in gates.metrics(canaries, service, "cumulative", "background"):
            query = made["provider"]["prometheus"]["query"]
            selectors = re.findall(r"[a-z_]+\{((?:[^{}]|\{\{[^{}]*\}\})*)\}", query)
            assert selectors
            assert all(f'pod=~"{service}-{{{{args.canary-hash}}}}-.+"' in selector for selector in selectors)


def test_a_world_that_runs_faster_has_shorter_windows_and_the_same_controller(canaries: Canaries) -> None:
    plain = metric(canaries, "api-gateway", "error-rate", "consecutive")
    fast = metric(canaries, "api-gateway", "error-rate", "consecutive", time_scale=40.0, address="http://127.0.0.1:1")
    before, after = plain["provider"]["prometheus"], fast["provider"]["prometheus"]
    assert after["query"] == before["query"].replace("[1m]", "[1s500ms]")
    assert (fast["interval"], fast["initialDelay"], after["rangeQuery"]) == ("15s", "1m", before["rangeQuery"])
    assert (before["address"], after["address"]) == (canaries.prometheus, "http://127.0.0.1:1")


def test_the_share_at_which_a_gate_turns(canaries: Canaries) -> None:
    services = canaries.services
    turns: list[tuple[str, Gate, float]] = [
        ("api-gateway", "error-rate", 0.0144),
        ("api-gateway", "latency-p95", 0.05),
        ("api-gateway", "latency-p99", 0.01),
        ("reporting", "latency", 0.05),
        ("reporting", "genai-success", 0.02),
        ("cockpit", "lcp", 0.25),
    ]
    for service, gate, share in turns:
        assert gates.breach_threshold(services[service], gate) == pytest.approx(share)
    for entry in services.values():
        for gate in entry.gates:
            if gate in ("request-volume", "cpu", "memory", "saturation", "token-usage"):
                with pytest.raises(BadInput, match="one that counts bad events"):
                    gates.breach_threshold(entry, gate)
            else:
                assert 0 < gates.breach_threshold(entry, gate) < 1


class World:
    """Series of one canary pod and one stable pod, for promtool. Rates are per second; scrapes are 15 s apart."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.series: list[dict[str, str]] = []

    def _add(self, name: str, pod: str, labels: dict[str, str], values: str) -> None:
        labels = {"namespace": "production", "pod": f"{self.service}-{pod}"} | labels
        shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
        self.series.append({"series": f"{name}{{{shown}}}", "values": values})

    def count(self, name: str, rate: float, pod: str = "abc12-x1", **labels: str) -> None:
        self._add(name, pod, {"service": self.service, "version": "2"} | labels, f"0+{rate * 15:g}x12")

    def by_status(self, name: str, good: float, bad: float, **more: str) -> None:
        self.count(name, good, status="success", **more)
        if bad:
            self.count(name, bad, status="5xx", **more)

    def histogram(self, name: str, bounds: dict[str, float], rate: float) -> None:
        for bound, share in (bounds | {"+Inf": 1.0}).items():
            self.count(f"{name}_bucket", rate * share, le=bound)

    def container(self, cpu: float, memory: float, pod: str = "abc12-x1") -> None:
        """Shares of the limits, which are 2 cores and 1000 bytes."""
        own = {"container": self.service}
        self._add("container_cpu_usage_seconds_total", pod, own, f"0+{cpu * 2 * 15:g}x12")
        self._add("container_memory_working_set_bytes", pod, own, f"{memory * 1000:g}+0x12")
        for resource, unit, limit in (("cpu", "core", 2), ("memory", "byte", 1000)):
            labels = own | {"resource": resource, "unit": unit}
            self._add("kube_pod_container_resource_limits", pod, labels, f"{limit}+0x12")


GOOD: dict[str, Any] = {
    "requests": 20.0,
    "errors": 0.01,
    "slower_than_p95": 0.04,
    "slower_than_p99": 0.005,
    "cpu": 0.84,
    "memory": 0.89,
    "work": 4.0,
    "work_errors": 0.015,
    "tokens": 5900.0,
    "good_vitals": 0.76,
}
P95 = {"api-gateway": ("0.5", "1"), "reporting": ("2", "5"), "q2q-ai": ("5", "10"), "impact-in": ("10", "10")}


def world(service: str, **changed: float) -> World:
    it, made = GOOD | changed, World(service)
    requests = it["requests"]
    made.by_status("http_server_requests_total", requests * (1 - it["errors"]), requests * it["errors"])
    # A stable version that fails at everything is not the canary's fault.
    made.count("http_server_requests_total", 500.0, pod="old99-x1", status="5xx")
    made.container(5.0, 5.0, pod="old99-x1")
    if service in P95:
        p95, p99 = P95[service]
        slow = {p95: 1 - it["slower_than_p95"], p99: 1 - it["slower_than_p99"]}
        made.histogram("http_server_request_duration_seconds", slow, requests)
    made.container(it["cpu"], it["memory"])
    good, bad = it["work"] * (1 - it["work_errors"]), it["work"] * it["work_errors"]
    if service == "reporting":
        made.by_status("genai_report_generation_total", good, bad)
    if service == "q2q-ai":
        made.by_status("llm_api_requests_total", good, bad)
        made.count("llm_tokens_total", requests * it["tokens"] / 2, model="a", kind="prompt")
        made.count("llm_tokens_total", requests * it["tokens"] / 2, model="a", kind="completion")
    if service == "impact-in":
        made.by_status("impact_in_delivery_total", it["work"], 0, platform="benevity")
        made.by_status("impact_in_delivery_total", good, bad, platform="workday")
    if service == "cockpit":
        for name, bound in (("lcp_seconds", "2.5"), ("inp_milliseconds", "200"), ("cls_score", "0.1")):
            made.histogram(f"web_vitals_{name}", {bound: it["good_vitals"]}, 2.0)
    return made


BREACHES: list[tuple[str, dict[str, float], set[str]]] = [
    *[(service, {}, set()) for service in ("api-gateway", "reporting", "q2q-ai", "cockpit", "impact-in")],
    *[(service, {"errors": 0.02}, {"error-rate"}) for service in ("api-gateway", "reporting", "q2q-ai", "impact-in")],
    # Nobody failed yet, so that there is no failed series; and nobody asked for a report yet.
    ("reporting", {"errors": 0.0, "work": 0.0}, set()),
    ("impact-in", {"work": 0.0}, set()),
    # One failure of four in the window is 25 %, and no reason for a rollback: 3 + 1 are 4 in 60 s.
    ("reporting", {"work": 4 / 60, "work_errors": 0.25}, set()),
    ("impact-in", {"work": 4 / 60, "work_errors": 0.25}, set()),
    ("reporting", {"work": 4.0, "work_errors": 0.025}, {"genai-success"}),
    ("impact-in", {"work_errors": 0.025}, {"delivery-success"}),
    ("q2q-ai", {"work_errors": 0.025}, {"llm-health"}),
    # Requests come, and no model is called.
    ("q2q-ai", {"work": 0.0}, {"llm-health"}),
    ("q2q-ai", {"tokens": 6100.0}, {"token-usage"}),
    ("api-gateway", {"requests": 9.0}, {"request-volume"}),
    ("q2q-ai", {"requests": 4.0}, {"error-rate"}),
    ("api-gateway", {"slower_than_p95": 0.06}, {"latency-p95"}),
    ("api-gateway", {"slower_than_p99": 0.02}, {"latency-p99"}),
    ("reporting", {"slower_than_p95": 0.06}, {"latency"}),
    ("q2q-ai", {"slower_than_p99": 0.02}, {"latency"}),
    # The limit is the histogram's last bound, which Prometheus answers for everything beyond it.
    ("impact-in", {"slower_than_p95": 0.06, "slower_than_p99": 0.06}, {"latency"}),
    ("api-gateway", {"cpu": 0.86}, {"cpu"}),
    ("api-gateway", {"memory": 0.91}, {"memory"}),
    ("cockpit", {"cpu": 0.86}, {"saturation"}),
    ("reporting", {"memory": 0.91}, {"saturation"}),
    ("cockpit", {"good_vitals": 0.74}, {"lcp", "inp", "cls"}),
]


def asked(canaries: Canaries, service: str, variant: Any) -> dict[str, str]:
    """Of each gate, a query that answers 1 for a good value, 0 for a bad one, and nothing where there is none."""
    made = {}
    for each in gates.metrics(canaries, service, "cumulative", "background"):
        [(sign, limit)] = re.findall(r"# (<=|<|>=) ([0-9.]+)\)$", each["successCondition"])
        query = metric(canaries, service, each["name"], variant)["provider"]["prometheus"]["query"]
        made[each["name"]] = f"sum((\n{query}) {sign} bool {limit})".replace("{{args.canary-hash}}", "abc12")
    return made


def promtool(folder: Path, tests: list[dict[str, Any]]) -> None:
    path = folder / "gates.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "15s", "tests": tests}), encoding="utf-8")
    done = subprocess.run(
        [program("promtool", "Debian: prometheus"), "test", "rules", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def group(name: str, made: World, wanted: dict[str, tuple[str, float | None]]) -> dict[str, Any]:
    expected = [
        {"expr": expr, "eval_time": "2m", "exp_samples": [] if value is None else [{"labels": "{}", "value": value}]}
        for expr, value in wanted.values()
    ]
    return {"name": name, "interval": "15s", "input_series": made.series, "promql_expr_test": expected}


@pytest.mark.real
def test_prometheus_finds_each_breach_by_its_gate_and_nothing_else(canaries: Canaries, tmp_path: Path) -> None:
    tests = []
    for variant in ("cumulative", "consecutive"):
        for service, changed, bad in BREACHES:
            wanted: dict[str, tuple[str, float | None]] = {}
            for gate, expr in asked(canaries, service, variant).items():
                # Below the minimum the error rate has no value, and NaN where absent samples must not be.
                absent = (
                    (gate, service) == ("error-rate", "q2q-ai") and "requests" in changed and variant == "cumulative"
                )
                no_calls = gate == "llm-health" and changed.get("work") == 0.0 and variant == "cumulative"
                wanted[gate] = (expr, None if absent or no_calls else float(gate not in bad))
            tests.append(group(f"{variant} {service} {changed}", world(service, **changed), wanted))
    promtool(tmp_path, tests)


@pytest.mark.real
def test_a_canary_that_shows_nothing_is_never_good(canaries: Canaries, tmp_path: Path) -> None:
    tests = []
    for service in canaries.services:
        nothing = World(service)
        nothing.count("http_server_requests_total", 100.0, pod="old99-x1", status="success")
        for variant, value in (("cumulative", None), ("consecutive", 0.0)):
            wanted = {gate: (expr, value) for gate, expr in asked(canaries, service, variant).items()}
            tests.append(group(f"{variant} {service}", nothing, wanted))
        # One of the two that are judged together is not enough.
        half = world(service)
        half.series = [each for each in half.series if "memory" not in each["series"]]
        saturation = {g: (e, 0.0) for g, e in asked(canaries, service, "cumulative").items() if g == "saturation"}
        tests += [group(f"{service} without memory", half, saturation)] if saturation else []
    promtool(tmp_path, tests)


@pytest.mark.real
def test_work_whose_series_are_born_late_is_no_work_yet(canaries: Canaries, tmp_path: Path) -> None:
    tests = []
    for service, gate, name in (
        ("reporting", "genai-success", "genai_report"),
        ("impact-in", "delivery-success", "impact_in_delivery"),
    ):
        unborn = world(service)
        unborn.series = [each for each in unborn.series if not each["series"].startswith(name)]
        wanted = {gate: (asked(late(canaries), service, "cumulative")[gate], 1.0)}
        tests.append(group(service, unborn, wanted))
        bad = {gate: (asked(late(canaries), service, "cumulative")[gate], 0.0)}
        tests.append(group(f"{service}, failing", world(service, work_errors=0.05), bad))
    promtool(tmp_path, tests)
