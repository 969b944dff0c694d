"""One incident, and what people are told of it. Not here: when it begins and ends (`burning.py`), and what keeps it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from greenops_pipelines.instants import instant
from greenops_pipelines.notify.message import Message
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.burning import figure

Told = Literal["trigger", "resolve", "over", "withdrawn", "source changed"]


@dataclass(frozen=True)
class Ending:
    """Why an incident is closed: it burns no longer, its alert is no longer declared, or the counts come from elsewhere.

    `silent_since`: it burns no longer since there is no traffic.
    """

    told: Literal["resolve", "withdrawn", "source changed"] = "resolve"
    silent_since: datetime | None = None


@dataclass(frozen=True)
class Threshold:
    """A pair of windows, and the burn that both have to be above."""

    short: timedelta
    long: timedelta
    factor: float


@dataclass(frozen=True)
class Incident:
    """A budget that burnt faster than an alert allows. `severity` is page or ticket, `objective` a percentage.

    Sums are over the known minutes from `opened_at` until it was last above; `closed_at` is the first minute below.
    """

    incident: str
    slo_id: str
    service: str
    severity: str
    source: str
    team: str
    summary: str
    links: Mapping[str, str]
    objective: float
    period: timedelta
    thresholds: tuple[Threshold, ...]
    opened_at: datetime
    noticed_at: datetime
    closed_at: datetime | None
    newest: datetime
    peak_burn: float
    bad: float
    total: float
    known_minutes: int
    evidence: str | None

    @property
    def budget_spent_percent(self) -> float:
        """Of the period's budget, where the traffic of the whole period is that of these minutes.

        burn x duration / period, as `certificate.py` has it for constant traffic.
        """
        if not self.total:
            return 0.0
        burn = self.bad / self.total / ((100 - self.objective) / 100)
        return 100 * burn * (timedelta(minutes=self.known_minutes) / self.period)


def natural_key(slo_id: str, severity: str, opened_at: datetime, source: str) -> str:
    """`<slo_id>:<severity>:<opened_at>:<source>`, to the minute."""
    return f"{slo_id}:{severity}:{opened_at:%Y-%m-%dT%H:%MZ}:{source}"


def message(incident: Incident, told: Told, slo: str, silent_since: datetime | None = None) -> Message:
    """What is said when it begins, when it ends or is given up, and where it was over before anybody looked.

    All but the first resolve: PagerDuty drops what it was never told of, so nobody is woken for what is over, and a channel
    reads of it. Of a `source` in the details that is sample data, `notify` says so in every title.
    """
    title, text = _words(incident, told, silent_since)
    return Message(
        key=f"{incident.incident}:{told}",
        severity="critical" if incident.severity == "page" else "warning",
        action="trigger" if told == "trigger" else "resolve",
        title=title,
        text=text,
        service=incident.service,
        team=incident.team,
        dedup_key=incident.incident,
        at=incident.opened_at if told == "trigger" else incident.closed_at or incident.newest,
        links=incident.links,
        component=slo,
        kind=f"error budget burn, {incident.severity}",
        details={
            "slo": incident.slo_id,
            "peak_burn": round(incident.peak_burn, 3),
            "budget_spent_percent": round(incident.budget_spent_percent, 4),
            "bad_events": round(incident.bad, 3),
            "source": incident.source,
        },
    )


def _words(incident: Incident, told: Told, silent_since: datetime | None) -> tuple[str, str]:
    """Title and text."""
    thresholds = " or ".join(
        f"{figure(each.factor)}x over {durations.text(each.short)} and {durations.text(each.long)}"
        for each in incident.thresholds
    )
    begun, peak = f"{incident.opened_at:%Y-%m-%d %H:%M} UTC", f"{figure(incident.peak_burn)}x"
    until = f"{incident.closed_at:%Y-%m-%d %H:%M} UTC" if incident.closed_at else "now"
    spent = f"{figure(incident.budget_spent_percent)} % of the {incident.period.days}-day budget"
    rule = f"the threshold is {thresholds}, the objective {incident.objective:g} %"
    lasted = f"From {begun} to {until}, {peak} at the most; {rule}. {spent} was spent."
    silent = f"no traffic since {silent_since:%Y-%m-%d %H:%M} UTC" if silent_since else ""
    lost = " An outage in front of it would look the same." if silent_since else ""
    if told == "trigger":
        text = f"Since {begun}; {rule}. {spent} is spent since then."
        text = f"{incident.summary}\n{text}" if incident.summary else text
        return f"{incident.slo_id} burns its error budget {peak} too fast", text
    if told == "resolve":
        quiet = f"has {silent}, and " if silent else ""
        return f"{incident.slo_id} {quiet}no longer burns its error budget", lasted + lost
    if told == "withdrawn":
        title = f"the {incident.severity} alert of {incident.slo_id} is no longer declared; its incident is closed"
        return title, f"Whether the budget still burns is not looked at any more. {lasted}"
    if told == "source changed":
        title = f"source changed: the incident of {incident.slo_id} is closed, for its counts now come from elsewhere"
        return title, f"Whether it still burns by the counts of {incident.source} is not looked at any more. {lasted}"
    title = f"{incident.slo_id} burnt its error budget {peak} too fast, and it is over{f': {silent}' if silent else ''}"
    return title, f"From {begun} to {until}, and seen only afterwards; {rule}. {spent} was spent.{lost}"


def from_row(row: sqlite3.Row) -> Incident:
    """The incident of a row of the ledger."""
    declared = json.loads(row["declared"])
    return Incident(
        incident=row["incident"],
        slo_id=row["slo_id"],
        service=row["service"],
        severity=row["severity"],
        source=declared["source"],
        team=declared["team"],
        summary=declared["summary"],
        links=declared["links"],
        objective=declared["objective"],
        period=timedelta(seconds=declared["period_seconds"]),
        thresholds=tuple(
            Threshold(timedelta(seconds=short), timedelta(seconds=long), factor)
            for short, long, factor in declared["thresholds"]
        ),
        opened_at=instant(row["opened_at"]),
        noticed_at=instant(row["noticed_at"]),
        closed_at=None if row["closed_at"] is None else instant(row["closed_at"]),
        newest=instant(row["newest"]),
        peak_burn=row["peak"],
        bad=row["bad"],
        total=row["total"],
        known_minutes=row["known"],
        evidence=row["evidence"],
    )
