"""What dashboards and runbooks speak of: services, their objectives, alerts and canary gates, and the series that exist.

Plain values, so that nothing here reads a declaration or knows a compiler. Links are those of the alerts: a dashboard's
uid and a runbook's page follow from them. Not here: who fills this in (`greenops_pipelines/observed.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from greenops_pipelines.errors import BadInput

ENVIRONMENTS = ("production", "staging")
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
"""What Grafana takes for a uid."""


@dataclass(frozen=True)
class Series:
    """One series name: which labels a selector may ask for, with their values where these are known.

    `is_recorded`: made by a rule. Its labels are those that the rule gives it and no others: `sum` without `by` takes
    `environment` and `region` away, and a server's external labels are not on what it answers itself.
    """

    labels: Mapping[str, frozenset[str] | None]
    is_recorded: bool = False


@dataclass(frozen=True)
class Histogram:
    """A histogram of a service. `limit` is what its objective promises at the quantile `promised`, in `unit`."""

    name: str
    title: str
    unit: str
    limit: float
    promised: float


@dataclass(frozen=True)
class Objective:
    """One SLO. `objective` in percent; `kind` is what it is about, `unit` what is counted: requests, pod-minutes."""

    id: str
    name: str
    service: str
    objective: float
    kind: str
    unit: str
    promise: str
    total_query: str
    error_query: str


@dataclass(frozen=True)
class Gate:
    """A metric of a canary's analysis: its query, and the condition under which the canary is good or bad."""

    name: str
    query: str
    condition: str


@dataclass(frozen=True)
class Canary:
    """How a service's new version is judged. `argument` stands in the queries as `{{args.<argument>}}`."""

    templates: tuple[str, ...]
    steps: tuple[str, ...]
    gates: tuple[Gate, ...]
    argument: str


@dataclass(frozen=True)
class Service:
    """One service. `page_burn` and `ticket_burn` are the burn rates that its alerts fire at."""

    name: str
    team: str
    dashboard: str
    runbook: str
    page_burn: float
    ticket_burn: float
    objectives: tuple[Objective, ...]
    histograms: tuple[Histogram, ...]
    canary: Canary

    @property
    def uid(self) -> str:
        return uid_of(self.dashboard)

    @property
    def budget(self) -> Objective:
        """The objective whose error budget the service is steered by."""
        return next(each for each in self.objectives if each.kind == "availability")


@dataclass(frozen=True)
class Alert:
    """One alert rule. `service` and `slo` are None where it is about all of them."""

    name: str
    severity: str
    team: str
    service: str | None
    slo: str | None
    expr: str
    hold: str
    summary: str
    description: str
    dashboard: str
    runbook: str


@dataclass(frozen=True)
class Subjects:
    """Everything. `dashboard` is the declared link with `{service}`; `prometheus` the address inside the cluster.

    Of what is left of a budget, 0 to 1: below `yellow_below` its colour is yellow, below `exhausted_below` the alert fires.
    """

    services: tuple[Service, ...]
    alerts: tuple[Alert, ...]
    series: Mapping[str, Series]
    dashboard: str
    overview: str
    exhausted_below: float
    yellow_below: float
    namespace: str
    pod_label: str
    prometheus: str
    environments: tuple[str, ...] = field(default=ENVIRONMENTS)

    @cached_property
    def uids(self) -> frozenset[str]:
        """Of all dashboards that are rendered."""
        return frozenset({uid_of(self.overview), *(service.uid for service in self.services)})

    @cached_property
    def _shared(self) -> Counter[str]:
        return Counter(alert.name for alert in self.alerts)

    def page(self, alert: Alert) -> str:
        """The name of the alert's page: `cockpit-lcp-slow`; with its severity where two alerts share a name."""
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", alert.name).lower()
        return f"{words}-{alert.severity}" if self._shared[alert.name] > 1 else words

    def service(self, name: str | None) -> Service | None:
        return next((service for service in self.services if service.name == name), None)


def uid_of(link: str) -> str:
    """The uid in a link to a dashboard, `https://grafana.example/d/<uid>`. `BadInput` for any other link."""
    parts = urlsplit(link).path.strip("/").split("/")
    if len(parts) < 2 or parts[-2] != "d" or not _UID.fullmatch(parts[-1]):
        raise BadInput(f"dashboard link: found {link}, allowed: https://.../d/<uid>, a uid of 40 letters at most")
    return parts[-1]


def runbook_of(link: str) -> tuple[str, str]:
    """Page and anchor of a link to a runbook: `https://runbooks.example/slo-breach#cockpit` is `slo-breach`, `cockpit`."""
    parts = urlsplit(link)
    page = parts.path.strip("/")
    if not re.fullmatch(r"[a-z0-9-]+", page):
        raise BadInput(f"runbook link: found {link}, allowed: https://<host>/<page>#<anchor>")
    return page, parts.fragment
