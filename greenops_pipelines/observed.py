"""What is declared about SLOs and canaries -> the plain values that dashboards and runbooks are rendered from.

    found = subjects(rendering.read(ops), canaries)
    rendered = files(found)                 path to text, by owner for `gitops.write`
    faults(rendered, found, connection)     what is wrong with it, one line each

Beside `wiring.py`, because it knows two domains. Not here: how either is read (`slo`) or rendered (`observability`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from greenops_pipelines.observability import dashboard, links, runbook_checks, runbooks, validation
from greenops_pipelines.observability.subjects import (
    Alert,
    Canary,
    Gate,
    Histogram,
    Objective,
    Series,
    Service,
    Subjects,
)
from greenops_pipelines.slo import gates, rollouts
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.catalogue import Catalogue, Metric
from greenops_pipelines.slo.certificates import windows_of
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.rendering import Slos

if TYPE_CHECKING:
    import duckdb

_TITLES: Mapping[str, str] = {
    "http_server_request_duration_seconds": "Latency",
    "web_vitals_lcp_seconds": "Largest Contentful Paint",
    "web_vitals_inp_milliseconds": "Interaction to Next Paint",
    "web_vitals_cls_score": "Cumulative Layout Shift",
}
_WORD = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_BOUND = re.compile(r'le=~?"([0-9.]+)')


def files(found: Subjects) -> dict[str, str]:
    """Dashboards and runbooks: path to text."""
    return dashboard.files(found) | runbooks.files(found)


def faults(rendered: Mapping[str, str], found: Subjects, connection: duckdb.DuckDBPyConnection) -> list[str]:
    """What is wrong with rendered dashboards and runbooks; none where all is well. SQL is prepared on the connection,
    whose tables have to be there and may be empty: `Lake.connect()`."""
    dashboards = {path: text for path, text in rendered.items() if path.startswith(f"{dashboard.FOLDER}/")}
    pages = links.pages(rendered)
    return [*validation.faults(dashboards, found, pages), *runbook_checks.faults(rendered, found, connection)]


def subjects(slos: Slos, canaries: Canaries) -> Subjects:
    """Everything that dashboards and runbooks speak of."""
    declared = slos.declared
    return Subjects(
        services=tuple(_service(slos, canaries, name) for name in declared.services),
        alerts=tuple(_alerts(slos)),
        series=_series(slos),
        dashboard=declared.dashboard,
        overview=declared.budget_exhausted.dashboard,
        exhausted_below=declared.budget_exhausted.remaining_below_percent / 100,
        yellow_below=declared.ledger.yellow_below_percent / 100,
        namespace=canaries.namespace,
        pod_label=canaries.routing.pod_label,
        prometheus=canaries.prometheus,
    )


def _service(slos: Slos, canaries: Canaries, name: str) -> Service:
    links = slos.declared.links(name)
    windows = windows_of(slos.chosen[name])
    own = [slo for slo in slos.slos if slo.service == name]
    factors = {
        kind: min(window.factor(own[0].period) for window in pair)
        for kind, pair in (
            ("page", (windows.page_quick, windows.page_slow)),
            ("ticket", (windows.ticket_quick, windows.ticket_slow)),
        )
    }
    return Service(
        name=name,
        team=slos.declared.services[name].team,
        dashboard=links["dashboard"],
        runbook=links["runbook"],
        page_burn=round(factors["page"], 9),
        ticket_burn=round(factors["ticket"], 9),
        objectives=tuple(_objective(slos, slo) for slo in own),
        histograms=tuple(_histograms(slos.catalogue, own)),
        canary=_canary(canaries, name),
    )


def _objective(slos: Slos, slo: Slo) -> Objective:
    total = slo.events.total_query if slo.events else ""
    error = slo.events.error_query if slo.events else slo.raw.error_ratio_query if slo.raw else ""
    kind, unit = _kind(slos, slo, total)
    promise = " ".join(slo.description.split())
    return Objective(slo.id, slo.name, slo.service, slo.objective, kind, unit, promise, total, error)


def _kind(slos: Slos, slo: Slo, total: str) -> tuple[str, str]:
    """What the objective is about, and what is counted."""
    metrics = _metrics(slos.catalogue, total)
    if not metrics:
        return "volume", "minutes"
    metric = metrics[0]
    if slo.name == slos.declared.budget_exhausted.slo:
        return "availability", metric.unit
    if metric.type == "histogram":
        return ("web-vital", "page views") if metric.name.startswith("web_vitals_") else ("latency", "requests")
    if any(each.type == "gauge" for each in metrics):
        return "saturation", "pod-minutes"
    return "success", metric.unit


def _metrics(catalogue: Catalogue, query: str) -> list[Metric]:
    """The catalogue's metrics in the query, in their order."""
    return [catalogue.series[word].metric for word in _WORD.findall(query) if word in catalogue.series]


def _histograms(catalogue: Catalogue, own: list[Slo]) -> list[Histogram]:
    """Those that an objective of the service holds against a bound."""
    found = []
    for slo in own:
        bound = _BOUND.search(slo.events.error_query) if slo.events else None
        metrics = _metrics(catalogue, slo.events.error_query) if slo.events else []
        if bound is not None and metrics and metrics[0].type == "histogram":
            metric = metrics[0]
            title = _TITLES.get(metric.name, metric.name)
            found.append(Histogram(metric.name, title, metric.unit, float(bound[1]), slo.objective / 100))
    return found


def _canary(canaries: Canaries, name: str) -> Canary:
    variant = canaries.services[name].variant
    made = gates.metrics(canaries, name, variant, "background")
    return Canary(
        templates=tuple(rollouts.template_name(name, variant, kind) for kind in rollouts.KINDS),
        steps=tuple(f"{step.weight} % for {step.pause}" for step in canaries.steps),
        gates=tuple(
            Gate(
                each["name"],
                each["provider"]["prometheus"]["query"],
                each.get("successCondition") or f"not ({each['failureCondition']})",
            )
            for each in made
        ),
        argument=gates.ARGUMENT,
    )


def _alerts(slos: Slos) -> list[Alert]:
    burning = {f"sloth-slo-alerts-{slo.id}": slo.name for slo in slos.alerting}
    exhausted = slos.declared.budget_exhausted
    declared = {each.alert: each.slo for each in slos.declared.service_alerts} | {exhausted.alert: exhausted.slo}
    found = []
    for group in slos.alerts:
        for rule in group.rules:
            service = rule.labels["service"]
            is_known = service in slos.declared.services
            found.append(
                Alert(
                    name=rule.alert,
                    severity=rule.labels["severity"],
                    team=rule.labels.get("team") or slos.declared.services[service].team,
                    service=service if is_known else None,
                    slo=burning.get(group.name) or declared.get(rule.alert),
                    expr=rule.expr,
                    hold=rule.hold,
                    summary=rule.annotations["summary"],
                    description=rule.annotations["description"],
                    dashboard=rule.annotations["dashboard"],
                    runbook=rule.annotations["runbook"],
                )
            )
    return found


def _series(slos: Slos) -> dict[str, Series]:
    """Emitted series have the catalogue's common labels besides their own. Recorded ones have what their rule gives
    them, and so has ALERTS, which is made of them."""
    catalogue = slos.catalogue
    named = {
        "sloth_slo": frozenset(slo.name for slo in slos.slos),
        "sloth_id": frozenset(slo.id for slo in slos.slos),
        "alertname": frozenset(rule.alert for group in slos.alerts for rule in group.rules),
    }
    windows = {rule.record for group in slos.recordings for rule in group.rules}
    found = {}
    for name, series in catalogue.series.items():
        is_recorded = series.metric.type == "recorded"
        if is_recorded and name not in windows:
            # A window that no chosen profile records.
            continue
        common = frozenset[str]() if is_recorded or series.metric.per == "none" else catalogue.common_labels
        labels = {**dict.fromkeys(sorted(common)), **series.labels}
        found[name] = Series({k: labels[k] or named.get(k) for k in labels}, is_recorded)
    return found
