"""The SLO dashboards: an overview of all services and one per service, as JSON that Grafana provisions from files.

    files(subjects)["observability/dashboards/slo-overview.json"]

Same subjects, same bytes: keys are sorted, and nothing is numbered by Grafana (`id`, `version`). Variables: `$service`,
`$timeRange`, `$environment`; the data sources follow from `$environment` by their names, `prometheus-production` and so on,
since recorded series do not know their environment. Not here: what panels show (`slo_panels.py`), and whether a dashboard
is in order (`validation.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from greenops_pipelines.observability import slo_panels
from greenops_pipelines.observability.panels import PROMETHEUS
from greenops_pipelines.observability.subjects import Service, Subjects, uid_of

FOLDER = "observability/dashboards"
WIDTH = 24
"""Columns of Grafana's grid."""
RANGES = ("1h", "6h", "1d", "7d", "30d")
DEFAULT_RANGE = "6h"
SOURCES: Mapping[str, tuple[str, str]] = {
    "datasource": ("prometheus", "Metrics"),
    "logs": ("loki", "Logs"),
    "traces": ("tempo", "Traces"),
}
"""Variable -> type of the data source, and its label. A data source is called `<type>-<environment>`."""

Row = tuple[int, Sequence[tuple[int, Any]]]
"""Height of a row, and its panels with their widths."""


def files(subjects: Subjects) -> dict[str, str]:
    """Path to text, one file per dashboard."""
    made = [overview(subjects), *(of_service(subjects, service) for service in subjects.services)]
    return {f"{FOLDER}/{each['uid']}.json": text(each) for each in made}


def text(dashboard: Mapping[str, Any]) -> str:
    """Canonical JSON."""
    return json.dumps(dashboard, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def source_names(environments: Sequence[str]) -> dict[str, str]:
    """The data sources that dashboards expect to be provisioned: name -> type."""
    return {f"{kind}-{each}": kind for kind, _ in SOURCES.values() for each in environments}


def overview(subjects: Subjects) -> dict[str, Any]:
    """All services: who keeps the promises, who burns, and where to look next."""
    heat, quantiles = slo_panels.latency(subjects, None)[0]
    rate, share = slo_panels.traffic(subjects, None)
    logs, traces = slo_panels.evidence(None)
    sections: list[tuple[str, list[Row]]] = [
        (
            "Promises",
            [(5, [(24, slo_panels.compliance(subjects, None))]), (7, [(24, slo_panels.budgets(subjects, None))])],
        ),
        ("Burning", [(10, [(16, slo_panels.burn(subjects, None)), (8, slo_panels.firing(subjects, None))])]),
        ("Latency", [(9, [(12, heat), (12, quantiles)])]),
        ("Traffic", [(8, [(12, rate), (12, share)])]),
        ("Objectives", [(12, [(24, slo_panels.objectives(subjects))])]),
        ("Logs and traces", [(10, [(14, logs), (10, traces)])]),
    ]
    about = (
        "Error budgets of all services over 30 days. Rendered by greenops from ops/slo-definitions, ops/slo.yaml, "
        "ops/canary.yaml and ops/metrics.yaml: change those, not this."
    )
    return _assembled(subjects, uid_of(subjects.overview), "SLO overview", about, sections, None)


def of_service(subjects: Subjects, service: Service) -> dict[str, Any]:
    """One service: each of its objectives, its latency, its versions, its logs."""
    rate, share = slo_panels.traffic(subjects, service)
    logs, traces = slo_panels.evidence(service)
    latency: list[Row] = [(9, [(12, heat), (12, drawn)]) for heat, drawn in slo_panels.latency(subjects, service)]
    sections: list[tuple[str, list[Row]]] = [
        (
            "Promises",
            [(5, [(24, slo_panels.compliance(subjects, service))]), (7, [(24, slo_panels.budgets(subjects, service))])],
        ),
        ("Burning", [(10, [(16, slo_panels.burn(subjects, service)), (8, slo_panels.firing(subjects, service))])]),
        ("Latency", latency),
        ("Traffic", [(8, [(12, rate), (12, share)])]),
        ("Logs and traces", [(10, [(14, logs), (10, traces)])]),
    ]
    promises = "; ".join(f"{each.name}: {each.promise.rstrip('.')}" for each in service.objectives)
    about = f"{service.name}, team {service.team}. Promised: {promises}. Rendered by greenops: change ops/, not this."
    return _assembled(subjects, service.uid, f"SLO {service.name}", about, sections, service)


def _assembled(
    subjects: Subjects,
    uid: str,
    title: str,
    about: str,
    sections: Sequence[tuple[str, Sequence[Row]]],
    service: Service | None,
) -> dict[str, Any]:
    from grafana_foundation_sdk.builders import dashboard as builders
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

    made = builders.Dashboard(title).uid(uid).description(about).tags(["slo", "greenops"])
    made = made.timezone("utc").readonly().tooltip(DashboardCursorSync.CROSSHAIR).refresh("1m").time("now-7d", "now")
    for variable in _variables(subjects, service):
        made = made.with_variable(variable)
    made = made.annotations(_annotations(service)).links(_links(subjects, service))
    _lay_out(made, sections)
    document: dict[str, Any] = json.loads(JSONEncoder().encode(made.build()))
    # What Grafana's Prometheus annotations read and the builders do not know.
    for annotation, words in zip(document["annotations"]["list"], _WORDS, strict=True):
        annotation.update(words)
    return document


def _lay_out(made: Any, sections: Sequence[tuple[str, Sequence[Row]]]) -> None:
    """Sections below each other, panels from left to right. Every panel has a number of its own."""
    from grafana_foundation_sdk.builders.dashboard import Row as Heading
    from grafana_foundation_sdk.models.dashboard import GridPos

    number, top = 1, 0
    for heading, rows in sections:
        made.with_row(Heading(heading).id(number).grid_pos(GridPos(h=1, w=WIDTH, x=0, y=top)))
        number, top = number + 1, top + 1
        for height, shown in rows:
            left = 0
            for width, panel in shown:
                made.with_panel(panel.id(number).grid_pos(GridPos(h=height, w=width, x=left, y=top)))
                number, left = number + 1, left + width
            top += height


def _variables(subjects: Subjects, service: Service | None) -> list[Any]:
    from grafana_foundation_sdk.builders import dashboard as builders
    from grafana_foundation_sdk.models.dashboard import VariableHide, VariableOption

    def option(value: str, chosen: str) -> Any:
        return VariableOption(selected=value == chosen, text=value, value=value)

    first = subjects.environments[0]
    found: list[Any] = []
    if service is None:
        names = [each.name for each in subjects.services]
        everything = VariableOption(selected=True, text=["All"], value=["$__all"])
        options = [VariableOption(selected=True, text="All", value="$__all"), *(option(each, "") for each in names)]
        chosen = builders.CustomVariable("service").label("Service").description("Services shown; several at a time.")
        chosen = chosen.values(",".join(names)).multi(True).include_all(True).current(everything).options(options)
        found.append(chosen)
    ranged = builders.IntervalVariable("timeRange").label("Range").values(",".join(RANGES))
    ranged = ranged.description("What latency, traffic and shares are shown over; the burn rate always shows 7 days.")
    ranged = ranged.current(option(DEFAULT_RANGE, DEFAULT_RANGE)).options([option(r, DEFAULT_RANGE) for r in RANGES])
    where = builders.CustomVariable("environment").label("Environment").values(",".join(subjects.environments))
    where = where.description("Chooses the data sources: each environment has a Prometheus, a Loki and a Tempo.")
    where = where.current(option(first, first)).options([option(each, first) for each in subjects.environments])
    found += [ranged, where]
    for name, (kind, label) in SOURCES.items():
        source = builders.DatasourceVariable(name).label(label).type(kind).regex(f"/^{kind}-$environment$/")
        found.append(source.hide(VariableHide.HIDE_VARIABLE).description("Follows from the environment."))
    return found


_WORDS = (
    {"titleFormat": "Rollout of {{name}}", "textFormat": "{{phase}}", "tagKeys": "name,phase"},
    {
        "titleFormat": "{{service}} {{version}}",
        "textFormat": "a version that was not there before",
        "tagKeys": "service",
    },
    {"titleFormat": "{{alertname}}", "textFormat": "{{severity}} alert of {{service}}", "tagKeys": "service,severity"},
)


def _annotations(service: Service | None) -> list[Any]:
    """Rollouts under way, versions that appear, alerts that fire; in the order of `_WORDS`."""
    from grafana_foundation_sdk.builders.dashboard import AnnotationQuery
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    is_chosen = f'="{service.name}"' if service else '=~"$service"'
    up = f'up{{service{is_chosen}, environment="$environment"}}'
    rollout = f'rollout_info{{name{is_chosen}, environment="$environment", phase=~"Progressing|Paused|Degraded"}}'
    queries = (
        ("Rollouts", f"max by (name, phase) ({rollout})", "blue"),
        (
            "Versions",
            f"count by (service, version) ({up}) unless count by (service, version) ({up} offset 10m)",
            "purple",
        ),
        ("Alerts", f'ALERTS{{service{is_chosen}, alertstate="firing"}}', "red"),
    )
    source = DataSourceRef(type_val=PROMETHEUS["type"], uid=PROMETHEUS["uid"])
    return [
        AnnotationQuery().name(name).datasource(source).enable(True).hide(False).icon_color(color).expr(expr)
        for name, expr, color in queries
    ]


def _links(subjects: Subjects, service: Service | None) -> list[Any]:
    """Runbooks and the other dashboards, above the panels."""
    from grafana_foundation_sdk.builders.dashboard import DashboardLink
    from grafana_foundation_sdk.models.dashboard import DashboardLinkType

    def link(title: str, url: str, icon: str, tooltip: str) -> Any:
        made = DashboardLink(title).type(DashboardLinkType.LINK).url(url).icon(icon).tooltip(tooltip)
        is_runbook = url.startswith("http")
        return made.tags([]).target_blank(is_runbook).include_vars(not is_runbook).keep_time(not is_runbook)

    shown = subjects.services if service is None else (service,)
    found = (
        [] if service is None else [link("Overview", f"/d/{uid_of(subjects.overview)}", "dashboard", "All services")]
    )
    if service is None:
        found += [link(each.name, f"/d/{each.uid}", "dashboard", f"Dashboard of {each.name}") for each in shown]
    found += [link(f"Runbook {each.name}", each.runbook, "doc", "What to do when its SLO is missed") for each in shown]
    return found
