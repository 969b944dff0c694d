"""The alerts that are not burn alerts: an SLO missed over one window, and a budget nearly gone.

"P95 above 500 ms" is the same statement as "more than 5 % of the requests take longer than 500 ms", and the second needs no
interpolation within a bucket. So every alert compares the SLO's own error ratio with its own objective: nothing is declared
twice. Not here: burn-rate alerts (`rules.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.declared import Declared, ServiceAlert
from greenops_pipelines.slo.model import Rule, RuleGroup, Slo
from greenops_pipelines.slo.validate import render
from greenops_pipelines.slo.yaml_go import shortest

REQUIRED_LABELS = ("severity", "team")
REQUIRED_ANNOTATIONS = ("summary", "description", "dashboard", "runbook")


def service_alerts(declared: Declared, slos: Sequence[Slo]) -> tuple[RuleGroup, ...]:
    """One group per service, and one over all services."""
    by_id = {(slo.service, slo.name): slo for slo in slos}
    groups = [
        RuleGroup(
            f"greenops-service-alerts-{name}",
            tuple(
                _alert(declared, by_id[name, alert.slo], alert)
                for alert in declared.service_alerts
                if alert.service == name
            ),
            entry.evaluation_interval,
        )
        for name, entry in declared.services.items()
    ]
    groups.append(RuleGroup("greenops-error-budgets", (_exhausted(declared),)))
    return tuple(group for group in groups if group.rules)


def _alert(declared: Declared, slo: Slo, alert: ServiceAlert) -> Rule:
    allowed = shortest(round((100 - slo.objective) / 100, 12))
    promise = " ".join(slo.description.split()).rstrip(".")
    return Rule(
        f"{_ratio(slo, alert)} > {allowed}\n{_enough(slo, alert)}",
        alert=alert.alert,
        hold=alert.hold,
        labels={"severity": alert.severity, "service": slo.service, "team": declared.services[slo.service].team},
        annotations={
            "summary": f"{slo.service} misses its objective {slo.name}",
            "description": (
                f"{{{{ $value | humanizePercentage }}}} were bad over {alert.window}, where "
                f"{shortest(round(100 - slo.objective, 10))} % may be. Promised: {promise}."
            ),
            **declared.links(slo.service),
        },
    )


def _ratio(slo: Slo, alert: ServiceAlert) -> str:
    if slo.events is not None:
        error, total = (_indented(render(q, alert.window)) for q in (slo.events.error_query, slo.events.total_query))
        return f"(\n{error}\n)\n/\n(\n{total}\n)"
    if slo.raw is not None:
        return f"(\n{_indented(render(slo.raw.error_ratio_query, alert.window))}\n)"
    raise ConfigurationError(f"{slo.id}: sli: found nothing, allowed: events or raw")


def _enough(slo: Slo, alert: ServiceAlert) -> str:
    """Whether the window holds enough events to speak of; only where a minimum is declared."""
    if not alert.minimum_events or slo.events is None:
        return ""
    seconds = int(durations.parse(alert.window).total_seconds())
    total = _indented(render(slo.events.total_query, alert.window))
    return f"and\n(\n{total}\n) * {seconds} >= {alert.minimum_events}\n"


def _indented(query: str) -> str:
    return "\n".join(f"  {line}" for line in query.strip().split("\n"))


def _exhausted(declared: Declared) -> Rule:
    alert = declared.budget_exhausted
    remaining = shortest(round(alert.remaining_below_percent / 100, 12))
    return Rule(
        f'slo:period_error_budget_remaining:ratio{{sloth_slo="{alert.slo}"}} < {remaining}',
        alert=alert.alert,
        hold=alert.hold,
        labels={"severity": alert.severity, "service": "{{ $labels.sloth_service }}", "team": alert.team},
        annotations={
            "summary": "{{ $labels.sloth_service }} has nearly spent its error budget",
            "description": (
                "{{ $value | humanizePercentage }} of the 30-day budget of {{ $labels.sloth_service }} "
                f"{{{{ $labels.sloth_slo }}}} is left, less than {alert.remaining_below_percent:g} %. "
                "Stop risky changes until it recovers."
            ),
            "dashboard": alert.dashboard,
            "runbook": alert.runbook,
        },
    )


def alert_faults(groups: Iterable[RuleGroup]) -> list[str]:
    """One line per alert that lacks a label or an annotation, or shares its name and severity with another."""
    faults = []
    seen: set[tuple[str, str]] = set()
    for group in groups:
        for rule in group.rules:
            missing = [name for name in REQUIRED_LABELS if not rule.labels.get(name)]
            missing += [name for name in REQUIRED_ANNOTATIONS if not rule.annotations.get(name)]
            key = (rule.alert, rule.labels.get("severity", ""))
            if missing:
                faults.append(f"{group.name}: {rule.alert}: found no {', '.join(missing)}, allowed: all of them")
            elif key in seen:
                faults.append(f"{group.name}: {rule.alert}: found a second time as {key[1]}, allowed: once")
            seen.add(key)
    return faults
