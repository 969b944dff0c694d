"""The fourteen alerts that are not burn alerts: by name, by what they lack, and by when Prometheus fires them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from greenops_pipelines.slo import output
from greenops_pipelines.slo.catalogue import read_catalogue
from greenops_pipelines.slo.declared import read_declared
from greenops_pipelines.slo.model import Rule, RuleGroup
from greenops_pipelines.slo.service_alerts import alert_faults, service_alerts
from tests.slo.conftest import program
from tests.slo.test_declared import OPS, SLOS

DECLARED = read_declared(OPS, SLOS)
GROUPS = service_alerts(DECLARED, SLOS)

HELD = {
    "ApiGatewayLatencyP95High": ("api-gateway", "platform", "10m"),
    "ReportingLatencyP95High": ("reporting", "reporting", "10m"),
    "GenAiReportFailureRateHigh": ("reporting", "reporting", "5m"),
    "Q2qAiLatencyP95High": ("q2q-ai", "ai", "10m"),
    "LlmCallFailureRateHigh": ("q2q-ai", "ai", "5m"),
    "ClassificationConfidenceLow": ("q2q-ai", "ai", "10m"),
    "CockpitLcpSlow": ("cockpit", "web", "15m"),
    "CockpitInpSlow": ("cockpit", "web", "15m"),
    "CockpitClsHigh": ("cockpit", "web", "15m"),
    "ImpactInLatencyP95High": ("impact-in", "integrations", "10m"),
    "BenevityDeliveryFailureRateHigh": ("impact-in", "integrations", "10m"),
    "GooderaDeliveryFailureRateHigh": ("impact-in", "integrations", "10m"),
    "WorkdayDeliveryFailureRateHigh": ("impact-in", "integrations", "10m"),
    "ErrorBudgetCriticallyExhausted": ("{{ $labels.sloth_service }}", "sre", "5m"),
}


def test_fourteen_alerts_each_with_service_team_and_hold() -> None:
    rules = [rule for group in GROUPS for rule in group.rules]
    assert {r.alert: (r.labels.get("service"), r.labels["team"], r.hold) for r in rules} == HELD
    assert len(rules) == 14
    assert alert_faults(GROUPS) == []


def test_every_expression_asks_for_known_metrics_only() -> None:
    assert read_catalogue(OPS).check_rules(GROUPS) == []


@pytest.mark.parametrize("lacking", ["severity", "team", "summary", "description", "dashboard", "runbook"])
def test_an_alert_that_lacks_something_is_named(lacking: str) -> None:
    kept = {key: "x" for key in ("summary", "description", "dashboard", "runbook") if key != lacking}
    labels = {key: "x" for key in ("severity", "team") if key != lacking}
    group = RuleGroup("g", (Rule("up", alert="A", labels=labels, annotations=kept),))
    assert alert_faults([group]) == [f"g: A: found no {lacking}, allowed: all of them"]


def test_one_name_may_stand_once_per_severity() -> None:
    notes = dict.fromkeys(("summary", "description", "dashboard", "runbook"), "x")
    page, ticket = (
        Rule("up", alert="A", labels={"severity": s, "team": "t"}, annotations=notes) for s in ("critical", "warning")
    )
    assert alert_faults([RuleGroup("g", (page, ticket))]) == []
    assert alert_faults([RuleGroup("g", (page, ticket, page))]) == [
        "g: A: found a second time as critical, allowed: once"
    ]


def calls(metric: str, labels: str, good: str, bad: str) -> dict[str, str]:
    return {f'{metric}{{{labels},status="success"}}': good, f'{metric}{{{labels},status="error"}}': bad}


def answers(service: str, le: str, fast: str, all_: str) -> dict[str, str]:
    metric = "http_server_request_duration_seconds"
    return {
        f'{metric}_bucket{{service="{service}",le="{le}"}}': fast,
        f'{metric}_count{{service="{service}"}}': all_,
    }


LLM = ("llm_api_requests_total", 'service="q2q-ai"')
PARTNER = ("impact_in_delivery_total", 'service="impact-in",platform="workday"')
CASES: Sequence[tuple[str, dict[str, str], dict[str, bool]]] = [
    # 3 % fail from the start. A rate exists from the second sample on: pending at 1m, firing 5 minutes later.
    ("LlmCallFailureRateHigh", calls(*LLM, "0+97x60", "0+3x60"), {"5m": False, "6m": True, "50m": True}),
    # 2 % is what may fail.
    ("LlmCallFailureRateHigh", calls(*LLM, "0+98x60", "0+2x60"), {"50m": False}),
    # Every call fails, but there is one in a minute: 10 in the window, and 20 are wanted.
    ("LlmCallFailureRateHigh", calls(*LLM, "0x60", "0+1x60"), {"50m": False}),
    # P95 above half a second: 6 % are slower. And not: 5 % are.
    ("ApiGatewayLatencyP95High", answers("api-gateway", "0.5", "0+94x60", "0+100x60"), {"10m": False, "11m": True}),
    ("ApiGatewayLatencyP95High", answers("api-gateway", "0.5", "0+95x60", "0+100x60"), {"50m": False}),
    ("ImpactInLatencyP95High", answers("impact-in", "10.0", "0+50x60", "0+100x60"), {"11m": True}),
    # One partner's outage is that partner's alert.
    ("WorkdayDeliveryFailureRateHigh", calls(*PARTNER, "0x60", "0+5x60"), {"50m": True}),
    ("GooderaDeliveryFailureRateHigh", calls(*PARTNER, "0x60", "0+5x60"), {"50m": False}),
    # A bad night: one delivery, failed.
    ("WorkdayDeliveryFailureRateHigh", calls(*PARTNER, "0x60", "0x10 1x50"), {"20m": False, "50m": False}),
]


@pytest.mark.real
def test_prometheus_fires_them_when_a_person_would(tmp_path: Path) -> None:
    promtool = program("promtool", "Debian: prometheus")
    (tmp_path / "rules.yaml").write_text(output.rule_file(GROUPS), encoding="utf-8")
    tests: list[dict[str, Any]] = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                    "eval_time": at,
                    "exp_samples": [{"value": 1}] if fires else [],
                }
                for at, fires in moments.items()
            ],
        }
        for alert, series, moments in CASES
    ]
    remaining = 'slo:period_error_budget_remaining:ratio{sloth_service="cockpit",sloth_slo="%s"}'
    tests.append(
        {
            "interval": "1m",
            # At 10 minutes 0.11 becomes 0.09; an SLO that is not availability has spent everything all along.
            "input_series": [
                {"series": remaining % "availability", "values": "0.11x9 0.09x50"},
                {"series": remaining % "lcp", "values": "-1x60"},
            ],
            "alert_rule_test": [
                {"alertname": "ErrorBudgetCriticallyExhausted", "eval_time": "14m", "exp_alerts": []},
                {"alertname": "ErrorBudgetCriticallyExhausted", "eval_time": "15m", "exp_alerts": [_exhausted()]},
            ],
        }
    )
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    done = subprocess.run([promtool, "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _exhausted() -> dict[str, Any]:
    return {
        "exp_labels": {
            "severity": "critical", "service": "cockpit", "team": "sre", "sloth_service": "cockpit", "sloth_slo": "availability",
        },
        "exp_annotations": {
            "summary": "cockpit has nearly spent its error budget",
            "description": "9% of the 30-day budget of cockpit availability is left, less than 10 %. "
            "Stop risky changes until it recovers.",
            "dashboard": "https://grafana.example/d/slo-overview",
            "runbook": "https://runbooks.example/slo-breach#error-budget-exhausted",
        },
    }  # fmt: skip
