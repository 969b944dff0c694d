"""What the SLO chain promises, measured: J1.1 services with valid SLOs, J1.2 confirmed certificates, J1.3 alerts."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from greenops_pipelines.measurement import Measurement
from greenops_pipelines.slo import promtool
from greenops_pipelines.slo.certificates import Row
from greenops_pipelines.slo.rendering import Slos, not_shipped, rule_files, shipped_tests
from greenops_pipelines.slo.service_alerts import alert_faults
from greenops_pipelines.slo.simulation import disagreements

SERVICES = ("api-gateway", "reporting", "q2q-ai", "cockpit", "impact-in")
"""The platform's services, which each promise something."""
ALERTS_PROMISED = 24
_AT_ONCE = 2


def services(found: Slos) -> Measurement:
    """J1.1: services of the platform with an availability SLO and at least one more."""
    per_service = {name: [slo.name for slo in found.slos if slo.service == name] for name in SERVICES}
    good = [name for name, slos in per_service.items() if "availability" in slos and len(slos) > 1]
    return Measurement(
        check="slo/definitions:services",
        measured=float(len(good)),
        target=len(SERVICES),
        comparison="==",
        unit="services",
        detail=f"{len(found.slos)} SLOs of {len(good)} services are valid for Sloth and ask for known metrics only",
        figures={f"SLOs of {name}": len(slos) for name, slos in per_service.items()},
    )


def alerts(found: Slos) -> Measurement:
    """J1.3: rendered alerts that carry severity, team, summary, description, dashboard and runbook."""
    faults = alert_faults(found.alerts)
    names = [rule.alert for group in found.alerts for rule in group.rules]
    burning = [rule for group in found.alerts for rule in group.rules if "sloth_severity" in rule.labels]
    return Measurement(
        check="slo/rules:alerts",
        measured=float(len(names) - len(faults)) if len(names) >= len(faults) else 0.0,
        target=ALERTS_PROMISED,
        comparison="==",
        unit="alerts",
        detail=faults[0]
        if faults
        else f"{len(burning)} burn-rate alerts and {len(names) - len(burning)} others, all complete",
        figures={"burn-rate alerts": len(burning), "other alerts": len(names) - len(burning), "faults": len(faults)},
    )


def confirmed(rows: list[Row], rendered: Mapping[str, str], folder: Path) -> Measurement:
    """J1.2: a simulation confirms every certificate, of every profile, and Prometheus' rule tests the rules shipped.

    `folder` holds the rendered tree. Without promtool nothing is confirmed here, and the result says so.
    """
    doubted = {
        (row.name, row.certificate.profile): fault for row in rows for fault in disagreements(row.certificate)[:1]
    }
    figures: dict[str, float | int | str] = {
        "certificates": len(rows),
        "confirmed by simulation": len(rows) - len(doubted),
    }
    if promtool.found() is None:
        return _confirmed(None, "simulated only", figures, promtool.MISSING)
    checked = promtool.check_rules(sorted(folder / path for path in rule_files(rendered)))
    failing = {} if checked.ok else {"check rules": checked.words}
    if cut := not_shipped({path: (folder / path).read_text(encoding="utf-8") for path in rendered}):
        failing["rules under test"] = f"not those that are loaded: {', '.join(cut)}"
    tests = shipped_tests(rendered)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        verdicts = pool.map(lambda path: promtool.test_rules(folder / path), tests)
        failing |= {path: verdict.words for path, verdict in zip(tests, verdicts, strict=True) if not verdict.ok}
    figures |= {"rule test files": len(tests), "rule test files that fail": len(failing)}
    whole = len(rows) + len(tests)
    good = whole - len(doubted) - len(failing)
    bad = next(iter([*doubted.values(), *(f"{path}: {words}" for path, words in failing.items())]), "")
    return _confirmed(
        100.0 * good / whole, bad or f"{len(rows)} certificates and {len(tests)} rule test files agree", figures
    )


def _confirmed(
    measured: float | None, detail: str, figures: Mapping[str, float | int | str], missing: str | None = None
) -> Measurement:
    return Measurement("slo/certificates:confirmed", measured, 100, "==", "%", detail, missing, figures)
