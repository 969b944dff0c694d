"""What ops/canary.yaml may say, and the promise it is held to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.slo import rollback
from greenops_pipelines.slo.canary import GATES, Canaries, read_canary
from greenops_pipelines.slo.rendering import Slos, read

OPS = Path(__file__).parents[2] / "ops"


@pytest.fixture(scope="module")
def slos() -> Slos:
    return read(OPS)


def canaries(slos: Slos, folder: Path = OPS) -> Canaries:
    return read_canary(folder, slos.declared, slos.slos, slos.catalogue)


def refused(slos: Slos, tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    """The lines of the refusal of the project's own file with these changes, each made once."""
    text = (OPS / "canary.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    shutil.copytree(OPS, tmp_path / "ops")
    (tmp_path / "ops" / "canary.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as error:
        canaries(slos, tmp_path / "ops")
    return str(error.value).splitlines()


def test_the_five_services_are_judged_by_the_gates_of_the_requirements(slos: Slos) -> None:
    found = canaries(slos)
    gates = {name: entry.gates for name, entry in found.services.items()}
    assert list(gates) == ["api-gateway", "reporting", "q2q-ai", "cockpit", "impact-in"]
    assert gates["api-gateway"] == ("error-rate", "latency-p95", "latency-p99", "request-volume", "cpu", "memory")
    assert gates["reporting"] == ("error-rate", "latency", "request-volume", "saturation", "genai-success")
    assert gates["q2q-ai"] == ("error-rate", "latency", "saturation", "llm-health", "token-usage")
    assert set().union(*gates.values()) == set(GATES)
    assert [(step.weight, step.pause) for step in found.steps] == [(5, "2m"), (25, "5m"), (50, "10m")]


def test_every_service_keeps_the_two_minutes_at_two_percent_errors(slos: Slos) -> None:
    """threshold x 60 s / 2 %, the wait for the next error of 50 requests, a scrape, three intervals and queries, overhead."""
    found = canaries(slos)
    worst = {
        name: rollback.worst_case(found.timing(entry.error_percent / 100, entry.minimum_requests_per_second), 0.02)
        for name, entry in found.services.items()
    }
    assert worst == {
        "api-gateway": pytest.approx(43.2 + 50 / 10 + 15 + 3 * (15 + 1) + 7),
        "reporting": pytest.approx(36 + 50 / 5 + 70),
        "q2q-ai": pytest.approx(42 + 50 / 8 + 70),
        "cockpit": pytest.approx(43.2 + 50 / 10 + 70),
        "impact-in": pytest.approx(42 + 50 / 8 + 70),
    }
    assert max(value for value in worst.values() if value) <= found.rollback.deadline_seconds == 120


def test_a_host_is_the_services_own_or_the_general_one(slos: Slos) -> None:
    found = canaries(slos)
    assert found.host("cockpit") == "cockpit.production.svc.cluster.local"
    assert found.port("cockpit") == 8080


def test_a_window_of_five_minutes_is_refused_with_the_window_that_would_do(slos: Slos, tmp_path: Path) -> None:
    # 120 s - 70 s - 5 s leave 45 s = threshold x window / 2 %: 62 s at 1.44 %; with 10 s, 66 s at 1.2 %.
    lines = refused(slos, tmp_path, ("rate_window: 1m", "rate_window: 5m"))
    own = [line for line in lines if "error_percent" in line]
    assert len(own) == 5
    assert "services[0].error_percent: found 1.44, allowed: a rollback within 120 s at 2 % errors" in own[0]
    assert "it comes after 291.0 s at worst; enough alone: analysis.rate_window: 300 s, at most 62 s" in own[0]
    assert "analysis.rate_window: 300 s, at most 66 s" in own[1]
    assert [line for line in lines if line not in own] == [
        next(line for line in lines if "analysis.initial_delay: found '1m', allowed: at least rate_window, 5m" in line)
    ]


ROUTER = ("router: istio", "router: none")
GATEWAY = "[error-rate, latency-p95, latency-p99, request-volume, cpu, memory]"
COCKPIT = "[error-rate, request-volume, saturation, lcp, inp, cls]"
BAD = [
    ("- service: api-gateway", "- service: gateway", "found 'gateway', allowed: a service of ops/slo.yaml: api-gateway"),
    ("error_percent: 1.44", "error_percent: 2", "found 2, allowed: below 2, or a canary that errs at 2 % is never found"),
    ("error_percent: 1.44", "error_percent: 1.9", "after 132.0 s at worst; enough alone: analysis.interval: 15 s, at most 11 s"),
    ("healthy_error_percent: 0.05", "healthy_error_percent: 1.5", "found 1.5, allowed: below error_percent, 1.44"),
    ("variant: cumulative", "variant: exact", "found 'exact', allowed: one of 'cumulative', 'consecutive'"),
    ("router: istio", "router: nginx", "found 'nginx', allowed: one of 'istio', 'none'"),
    ("rate_window: 1m", "rate_window: 45s", "found '45s', allowed: at least 60 s, 4 scrapes of 15s"),
    ("interval: 15s, init", "interval: 7s, init", "found '7s', allowed: at least 7.5 s, or three failures are one"),
    ("initial_delay: 1m", "initial_delay: 30s", "found '30s', allowed: at least rate_window, 1m"),
    ("initial_delay: 1m", "initial_delay: 90s", "found '90s', allowed: at most 83 s, for a rollback within 120 s"),
    ("initial_delay: 1m", "initial_delay: 0s", "found 0, allowed: a duration above 0"),
    ("checks: 3", "checks: 2", "analysis.checks: found 2, allowed: a whole number >= 3"),
    ("pause: 10m", "pause: 1d", "found '1d', allowed: at most 12h"),
    ("weight: 25", "weight: 5", "found 5, allowed: more than the step before, 5"),
    ("p95_seconds: 0.5", "p95_seconds: 0.6", "found 0.6, allowed: a bucket's bound of http_server_request_duration_seconds: 0.1, 0.25"),
    ("p99_seconds: 1}", "p99_seconds: 0.25}", "found 0.25, allowed: at least p95_seconds"),
    ("lcp_seconds: 2.5", "lcp_seconds: 2.4", "found 2.4, allowed: a bucket's bound of web_vitals_lcp_seconds: 0.5, 1"),
    ("success_percent: 98", "success_percent: 97", "found 97, allowed: 98, as in slo-definitions, reporting"),
    ("    success_percent: 98\n", "", "found 'genai-success', allowed: with the field success_percent beside it"),
    ("    tokens_per_request: 6000\n", "", "found 'token-usage', allowed: with the field tokens_per_request beside it"),
    ("cpu_percent: 85", "cpu_percent: 185", "found 185, allowed: a number > 0 and <= 100"),
    ("replicas: 3", "replicas: 0", "found 0, allowed: a whole number >= 1"),
    (GATEWAY, GATEWAY.replace("cpu, ", ""), "allowed: a list with saturation, or cpu and memory"),
    (GATEWAY, GATEWAY.replace("latency-p99, ", ""), "allowed: a list with latency, or latency-p95 and latency-p99"),
    (GATEWAY, GATEWAY.replace("error-rate, ", ""), "allowed: a list with error-rate"),
    (GATEWAY, GATEWAY.replace("cpu", "cpu, cpu"), "gates[5]: found 'cpu', allowed: each gate once"),
    (GATEWAY, GATEWAY.replace("cpu", "cpuu"), "gates[4]: found 'cpuu', allowed: one of 'error-rate'"),
    (GATEWAY, GATEWAY.replace("cpu", "cpu, llm-health"), "found 'llm-health', allowed: a gate on metrics of api-gateway, not on llm_api_requests_total"),
    (COCKPIT, COCKPIT.replace(", cls", ""), "allowed: a list with lcp and inp and cls"),
    ("saturation, llm-health, token-usage]", "saturation, token-usage]", "allowed: a list with llm-health"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), BAD, ids=[case[2][:50] for case in BAD])
def test_what_is_declared_wrongly_is_one_line(old: str, new: str, message: str, slos: Slos, tmp_path: Path) -> None:
    lines = refused(slos, tmp_path, (old, new))
    # A service by another name is one that is unknown, and one that is missing.
    lines = [line for line in lines if "missing: api-gateway" not in line]
    assert len(lines) == 1, lines
    assert message in lines[0]
    assert lines[0].partition(":")[0].endswith("canary.yaml")


def test_a_service_without_an_entry_and_one_with_two_are_refused(slos: Slos, tmp_path: Path) -> None:
    lines = refused(slos, tmp_path, ("- service: cockpit", "- service: reporting"))
    assert any("services[3].service: found 'reporting', allowed: each service once" in line for line in lines)
    assert any("allowed: an entry for each service; missing: cockpit" in line for line in lines)


def test_without_a_router_the_pods_have_to_realise_the_first_weight(slos: Slos, tmp_path: Path) -> None:
    lines = refused(slos, tmp_path, ROUTER, ("replicas: 3", "replicas: 7"), *[("replicas: 2\n", "replicas: 20\n")] * 4)
    assert len(lines) == 1
    assert (
        "services[0].replicas: found 7, allowed: a multiple of 20, since without a router 5 % of the requests are 5 % of the pods"
        in lines[0]
    )


def test_series_that_are_born_with_their_first_event_cost_a_scrape(slos: Slos, tmp_path: Path) -> None:
    # Even reporting's 116 s and 15 s more are too late.
    lines = refused(slos, tmp_path, ("counters_start_at_zero: true", "counters_start_at_zero: false"))
    assert [line.split(": ")[1].split(".")[0] for line in lines] == [
        "services[0]",
        "services[1]",
        "services[2]",
        "services[3]",
        "services[4]",
    ]
    assert "after 133.2 s at worst" in lines[0]
