"""`ops/slo.yaml`: how the SLOs are alerted on. Whom, under which profile, where the links lead, and the alerts that are
not burn alerts. Not here: the SLOs themselves (`load.py`), and the rules made of this (`service_alerts.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from greenops_pipelines import ops
from greenops_pipelines.errors import BadInput
from greenops_pipelines.ops import OpsModel
from greenops_pipelines.ops.tree import Fault
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.catalogue import Service
from greenops_pipelines.slo.model import Slo

FILE = "slo.yaml"
VOLUME = "request-volume"
"""The SLO that counts the minutes below `minimum_requests_per_second`, `< bool N` in its query."""
_MINIMUM = re.compile(r"< bool ([0-9]+(?:[.][0-9]+)?)")
_LONGEST_INTERVAL = timedelta(minutes=2)


def _duration(text: str) -> str:
    try:
        if durations.parse(text):
            return text
    except BadInput as error:
        raise ValueError(str(error).removeprefix("duration: ")) from None
    raise ValueError("found 0, allowed: a duration above 0")


def _interval(text: str) -> str:
    if durations.parse(_duration(text)) > _LONGEST_INTERVAL:
        raise ValueError("allowed: at most 2m, since Prometheus looks back 5 minutes for a recorded value")
    return text


Duration = Annotated[str, AfterValidator(_duration), Field(max_length=20, examples=["5m"])]
Interval = Annotated[str, AfterValidator(_interval), Field(max_length=20, examples=["30s"])]
Link = Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=300, examples=["https://grafana.example/d/x"])]
AlertName = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=80, examples=["ShopLatencyHigh"])]
Severity = Literal["critical", "warning"]
Team = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=40, examples=["platform"])]


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):  # of what is not there, of a path, of a folder
        raise ValueError("allowed: a name of the IANA time zone database, e.g. Europe/Berlin or UTC") from None
    return text


Zone = Annotated[str, AfterValidator(_zone), Field(max_length=50, examples=["Europe/Berlin"])]


class Ledger(OpsModel):
    """How error budgets are kept."""

    time_zone: Zone = "UTC"
    yellow_below_percent: float = Field(25, ge=0, lt=100)


class _Links(OpsModel):
    dashboard: Link
    runbook: Link


class DeclaredBudget(OpsModel):
    """Percent of the budget that the team was told is gone before an alert fires."""

    page: Annotated[float, Field(gt=0, le=100)] | None = None
    ticket: Annotated[float, Field(gt=0, le=100)] | None = None


class ServiceEntry(OpsModel):
    """One service; the fields are explained at the head of the file."""

    service: Service
    team: Team
    profile: Literal["workbook", "user-table", "sloth"] = "workbook"
    declared_budget_percent: DeclaredBudget | None = None
    acknowledged: str | None = Field(None, min_length=10, max_length=300)
    minimum_requests_per_second: float = Field(ge=0)
    evaluation_interval: Interval = "30s"


class BudgetExhausted(OpsModel):
    """The one alert over all services."""

    alert: AlertName
    slo: str
    remaining_below_percent: float = Field(gt=0, lt=100)
    hold: Duration
    severity: Severity
    team: Team
    dashboard: Link
    runbook: Link


class ServiceAlert(OpsModel):
    """An alert on an SLO's error ratio over one window; its threshold is the SLO's objective."""

    alert: AlertName
    service: Service
    slo: str
    window: Duration
    hold: Duration
    severity: Severity
    minimum_events: int = Field(0, ge=0)


class _File(OpsModel):
    links: _Links
    ledger: Ledger = Ledger()
    services: tuple[ServiceEntry, ...] = Field(min_length=1)
    budget_exhausted: BudgetExhausted
    service_alerts: tuple[ServiceAlert, ...]


@dataclass(frozen=True)
class Declared:
    """The file, its services by name."""

    services: Mapping[str, ServiceEntry]
    budget_exhausted: BudgetExhausted
    service_alerts: tuple[ServiceAlert, ...]
    dashboard: str
    runbook: str
    ledger: Ledger = field(default_factory=Ledger)

    def links(self, service: str) -> dict[str, str]:
        """Dashboard and runbook of a service's alerts."""
        return {
            "dashboard": self.dashboard.replace("{service}", service),
            "runbook": self.runbook.replace("{service}", service),
        }


def read_declared(ops_dir: Path, slos: Sequence[Slo]) -> Declared:
    """`ops_dir`/slo.yaml, held against the SLOs. Raises `ConfigurationError` with one line per fault."""
    document = ops.load(ops_dir / FILE, _File)
    value = document.value
    known = {slo.service for slo in slos}
    names = [entry.service for entry in value.services]
    faults = []
    for index, name in enumerate(names):
        if name in names[:index]:
            faults.append(document.fault(("services", index, "service"), "each service once"))
        elif name not in known:
            allowed = f"a service with a file in slo-definitions: {', '.join(sorted(known))}"
            faults.append(document.fault(("services", index, "service"), allowed))
    if missing := sorted(known - set(names)):
        faults.append(document.fault(("services",), f"an entry for each service; missing: {', '.join(missing)}"))
    ids = {(slo.service, slo.name) for slo in slos}
    alerts = [value.budget_exhausted.alert, *(alert.alert for alert in value.service_alerts)]
    for index, alert in enumerate(value.service_alerts):
        if (alert.service, alert.slo) not in ids:
            there = ", ".join(sorted(name for service, name in ids if service == alert.service)) or "none"
            faults.append(document.fault(("service_alerts", index, "slo"), f"an SLO of {alert.service}: {there}"))
        if alert.alert in alerts[: index + 1]:
            faults.append(document.fault(("service_alerts", index, "alert"), "each name once"))
    if value.budget_exhausted.slo not in {name for _, name in ids}:
        faults.append(document.fault(("budget_exhausted", "slo"), "the name of an SLO"))
    ops.refuse(faults)
    declared = Declared(
        {entry.service: entry for entry in value.services},
        value.budget_exhausted,
        value.service_alerts,
        value.links.dashboard,
        value.links.runbook,
        value.ledger,
    )
    ops.refuse(_contradictions(document, declared, slos))
    return declared


def _contradictions(document: ops.Document[_File], declared: Declared, slos: Sequence[Slo]) -> Iterator[Fault]:
    """What a definition repeats so that Sloth alone can read it, and what it says differently."""
    index_of = {entry.service: index for index, entry in enumerate(document.value.services)}
    for slo in slos:
        entry, at = declared.services[slo.service], ("services", index_of[slo.service])
        where = f"as in slo-definitions, {slo.service}, {slo.name}"
        alerts = [alert for alert in (slo.page, slo.ticket) if alert is not None]
        for team in sorted(
            {slo.labels.get("team"), *(a.labels.get("team") for a in alerts)} - {entry.team, None}, key=str
        ):
            yield document.fault((*at, "team"), f"{team}, {where}")
        for kind, link in declared.links(slo.service).items():
            for other in sorted({a.annotations.get(kind, link) for a in alerts} - {link}):
                yield document.fault(("links", kind), f"one that gives {other}, {where}")
        minimum = _MINIMUM.search(slo.raw.error_ratio_query) if slo.name == VOLUME and slo.raw else None
        if minimum is not None and float(minimum[1]) != entry.minimum_requests_per_second:
            yield document.fault((*at, "minimum_requests_per_second"), f"{minimum[1]}, {where}")
