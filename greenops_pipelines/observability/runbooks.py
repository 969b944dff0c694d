"""Runbooks: a page per alert and a page per service's canary, rendered with the real names, commands and queries.

    files(subjects)["runbooks/alerts/cockpit-lcp-slow.md"]

    runbooks/README.md               all pages
    runbooks/slo-breach.md           where the alerts' links lead: a heading per service, and one for exhausted budgets
    runbooks/alerts/<alert>.md       SLO breach response, one per alert
    runbooks/canary/<service>.md     canary failure investigation

Templates are in `templates/`. Same subjects, same bytes. Not here: whether commands, queries and links are in order
(`runbook_checks.py`).
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.observability.links import RUNBOOKS
from greenops_pipelines.observability.subjects import Alert, Service, Subjects, runbook_of

if TYPE_CHECKING:
    from jinja2 import Environment

CANARY_HASH = "CANARY_HASH"
"""In a query, where the reader puts the pod template hash of the new version."""
_TEMPLATE_VALUE = re.compile(r"\{\{.*?\}\}")


def files(subjects: Subjects) -> dict[str, str]:
    """Path to Markdown. `ConfigurationError` where the alerts' links lead to a page that is not rendered."""
    page = _index(subjects)
    made = {
        f"{RUNBOOKS}/README.md": _render("readme.md.j2", subjects=subjects, index=page),
        f"{RUNBOOKS}/{page}.md": _render(
            "slo-breach.md.j2",
            subjects=subjects,
            by_service={
                each.name: [a for a in subjects.alerts if a.service == each.name] for each in subjects.services
            },
            over_all=[each for each in subjects.alerts if each.service is None],
            forward=_forward(subjects.prometheus),
        ),
    }
    for alert in subjects.alerts:
        made[path_of(subjects, alert)] = _alert(subjects, alert, page)
    for service in subjects.services:
        made[f"{RUNBOOKS}/canary/{service.name}.md"] = _canary(subjects, service, page)
    return made


def path_of(subjects: Subjects, alert: Alert) -> str:
    """Where the alert's page lies in the rendered tree."""
    return f"{RUNBOOKS}/alerts/{subjects.page(alert)}.md"


def title(alert: Alert) -> str:
    """The first line of the alert's page, by which it is found again."""
    return f"# {alert.name} ({alert.severity})"


def _index(subjects: Subjects) -> str:
    """The one page that all alerts lead to."""
    found = sorted({runbook_of(alert.runbook)[0] for alert in subjects.alerts})
    if found != ["slo-breach"]:
        raise ConfigurationError(
            f"ops/slo.yaml: runbook: found links to {', '.join(found)}, allowed: https://<host>/slo-breach#<anchor>"
        )
    return found[0]


def _alert(subjects: Subjects, alert: Alert, page: str) -> str:
    service = subjects.service(alert.service)
    chosen = subjects.services if service is None else (service,)
    name = alert.slo or ""
    watched = [each for one in chosen for each in one.objectives if each.name == name]
    if not watched:
        raise ConfigurationError(f"{alert.name}: slo: found {name or 'none'}, allowed: an objective of its service")
    return _render(
        "alert.md.j2",
        subjects=subjects,
        alert=alert,
        title=title(alert),
        summary=_TEMPLATE_VALUE.sub("a service", alert.summary),
        services=chosen,
        objectives=watched,
        queries={each.name: _failed_by_version(each) for each in chosen},
        index=page,
    )


def _failed_by_version(service: Service) -> str:
    """Share of failed requests per version; the catalogue's one counter that every service has."""
    where = f'service="{service.name}"'
    total = f"sum by (version) (rate(http_server_requests_total{{{where}}}[5m]))"
    failed = f'sum by (version) (rate(http_server_requests_total{{{where}, status=~"failed|error|5xx"}}[5m]))'
    return f"({failed} or 0 * {total}) / {total}"


def _canary(subjects: Subjects, service: Service, page: str) -> str:
    argument = re.compile(r"\{\{\s*args\." + re.escape(service.canary.argument) + r"\s*\}\}")
    gates = [
        {
            "name": gate.name,
            "condition": gate.condition,
            "query": argument.sub(CANARY_HASH, gate.query.strip()),
            # Between double quotes, where the shell fills in its variables.
            "canary": argument.sub("$CANARY", gate.query.strip()).replace('"', "'"),
            "stable": argument.sub("$STABLE", gate.query.strip()).replace('"', "'"),
        }
        for gate in service.canary.gates
    ]
    return _render("canary.md.j2", subjects=subjects, service=service, gates=gates, index=page, hash=CANARY_HASH)


def _forward(address: str) -> dict[str, str] | None:
    """Service, namespace and port of an address inside the cluster; None for one that is reached from outside."""
    parts = urlsplit(address)
    names = (parts.hostname or "").split(".")
    if len(names) < 3 or names[2] != "svc":
        return None
    return {"service": names[0], "namespace": names[1], "port": str(parts.port or 80)}


def _render(template: str, **data: Any) -> str:
    return _environment().get_template(template).render(page=data["subjects"].page, **data)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Markdown: nothing is escaped. What is put in comes from ops/, which is read strictly.
    return Environment(
        loader=PackageLoader("greenops_pipelines.observability"),
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
