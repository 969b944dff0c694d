"""What goes wrong in the sample metrics, and when: a calendar that repeats every 30 days.

A day's place in it is its number since 1970-01-01 modulo 30. So any 30 whole days hold every incident once, and what a
rolling budget of 30 days has spent on them hardly depends on when one looks. No incident touches midnight UTC, and none
falls on a day on which its service is deployed (`sample_metrics.py`).

Not here: the traffic without them (`sample_traffic.py`), and how they show in the series (`sample_services.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Literal

import numpy as np

from greenops_pipelines.slo.sample_traffic import FLOWS, REGIONS, Floats, epoch_day, usual

PERIOD_DAYS = 30

Kind = Literal["bad", "slow", "traffic", "use", "gap", "failed-scrape", "restart"]


@dataclass(frozen=True)
class Effect:
    """One thing that is different while an incident lasts.

    `bad`: the share of the flow `of` that fails. `slow`: the share of the histogram `of` that is beyond its good bound.
    `traffic`: the factor on the flow `of`. `use`: the share of its limit that each pod uses of `of`. `gap`: nobody
    scrapes, and no sample is there. `failed-scrape`: the same, after Prometheus' mark that the series have ended.
    `restart`: the container restarts, and its counters begin at 0. `slos` are the SLOs whose budgets it spends.
    """

    kind: Kind
    of: str = ""
    value: float = 0.0
    slos: tuple[str, ...] = ()


@dataclass(frozen=True)
class Incident:
    """An entry of the calendar: on that day of the 30, from `begin` UTC on; without a region, in both."""

    id: str
    service: str
    what: str
    day: int
    begin: time
    minutes: int
    effects: tuple[Effect, ...]
    region: str | None = None

    @property
    def first(self) -> int:
        """First minute of the day."""
        return self.begin.hour * 60 + self.begin.minute

    @property
    def regions(self) -> tuple[str, ...]:
        return (self.region,) if self.region else tuple(REGIONS)


@dataclass(frozen=True)
class Occurrence:
    """An incident that was planted in [begin, end), UTC, whole minutes."""

    incident: Incident
    begin: datetime
    end: datetime


@dataclass(frozen=True)
class Planted:
    """What an occurrence roughly does to an SLO while it lasts: its bad and all events, or pod-minutes, or minutes.

    Of counted events `total` is the traffic without its noise, which is at most 15 % of it, and `bad` a share of that.
    Of minutes and pod-minutes, a query that looks back 5 minutes finds up to 4 fewer.
    """

    slo: str
    bad: float
    total: float

    @property
    def share(self) -> float:
        """Of the events that are bad. Where one flow makes up the SLO, `share` of the events that the series show are
        bad, less than one of each series off.
        """
        return self.bad / self.total


INCIDENTS: tuple[Incident, ...] = (
    Incident(
        "api-gateway-errors", "api-gateway", "5 % of the requests fail", 3, time(14, 10), 22,
        (Effect("bad", "http", 0.05, ("api-gateway-availability",)),),
    ),
    Incident(
        "api-gateway-restart", "api-gateway", "a container restarts while requests fail: its counters begin at 0",
        3, time(14, 21), 1, (Effect("restart"),), "eu-central-1",
    ),
    Incident(
        "q2q-ai-llm-outage", "q2q-ai", "60 % of the calls to the language model fail, and requests wait for them",
        5, time(15, 20), 35,
        (
            Effect("bad", "llm", 0.6, ("q2q-ai-llm-call-success",)),
            Effect("bad", "http", 0.25, ("q2q-ai-availability",)),
            Effect("slow", "http", 0.3, ("q2q-ai-latency-p95",)),
        ),
    ),
    Incident(
        "api-gateway-lost-traffic", "api-gateway", "2 % of the requests arrive", 7, time(10, 30), 25,
        (Effect("traffic", "http", 0.02, ("api-gateway-request-volume",)),),
    ),
    Incident(
        "reporting-slow", "reporting", "45 % of the requests take longer than 2 s", 8, time(13, 30), 50,
        (Effect("slow", "http", 0.45, ("reporting-latency-p95",)),),
    ),
    Incident(
        "cockpit-slow-lcp", "cockpit", "a slow burn: 60 % of the page views show their largest element too late",
        10, time(9, 0), 540, (Effect("slow", "lcp", 0.6, ("cockpit-lcp",)),),
    ),
    Incident(
        "api-gateway-cpu", "api-gateway", "a pod uses 96 % of its CPU", 11, time(13, 0), 150,
        (Effect("use", "cpu", 0.96, ("api-gateway-cpu-saturation",)),), "us-east-1",
    ),
    # 360 of the 432 bad pod-minutes that 99.5 % leave two pods in 30 days: 17 % left, whatever the weekday.
    Incident(
        "reporting-full-pool", "reporting", "a pod uses 95 % of its database connections", 12, time(7, 0), 360,
        (Effect("use", "pool", 0.95, ("reporting-db-pool-health",)),), "eu-central-1",
    ),
    Incident(
        "q2q-ai-low-confidence", "q2q-ai", "18 % of the evidence is classified below the threshold", 13, time(8, 0),
        240, (Effect("bad", "classification", 0.18, ("q2q-ai-classification-confidence",)),),
    ),
    # The nightly batch: 85 % of 85 % of a thirtieth is 2.4 % of the partner's deliveries, where 2 % may fail.
    Incident(
        "impact-in-workday", "impact-in", "85 % of the nightly deliveries to Workday fail", 15, time(1, 0), 180,
        (Effect("bad", "delivery-workday", 0.85, ("impact-in-delivery-workday", "impact-in-availability")),),
    ),
    Incident(
        "api-gateway-memory", "api-gateway", "a pod holds 94 % of its memory", 17, time(5, 0), 95,
        (Effect("use", "memory", 0.94, ("api-gateway-memory-saturation",)),), "eu-central-1",
    ),
    Incident(
        "q2q-ai-pod-gap", "q2q-ai", "the scrapes of one pod fail", 19, time(11, 15), 25, (Effect("failed-scrape"),),
        "us-east-1",
    ),
    Incident(
        "reporting-failed-reports", "reporting", "half of the reports that a model writes fail", 20, time(16, 0), 60,
        (Effect("bad", "report", 0.5, ("reporting-genai-report-success",)),),
    ),
    Incident(
        "reporting-gap", "reporting", "nobody scrapes the service", 23, time(12, 0), 40, (Effect("gap"),),
    ),
    Incident(
        "cockpit-errors", "cockpit", "20 % of the requests fail", 26, time(10, 5), 12,
        (Effect("bad", "http", 0.2, ("cockpit-availability",)),),
    ),
)  # fmt: skip

_DELIVERIES = tuple(flow for flow in FLOWS["impact-in"] if flow.startswith("delivery-"))
_COUNTED_TOGETHER: Mapping[str, tuple[str, ...]] = {"impact-in-availability": _DELIVERIES}
_VIEWS = ("lcp", "inp", "cls")


def incidents_between(start: datetime, end: datetime) -> tuple[Occurrence, ...]:
    """The incidents that overlap [start, end), in the order of their begin."""
    days = range(epoch_day(start.astimezone(UTC).date()), epoch_day(end.astimezone(UTC).date()) + 1)
    found = (occurrence for day in days for occurrence in _of_day(day))
    return tuple(o for o in sorted(found, key=lambda o: o.begin) if o.begin < end and o.end > start)


def _of_day(day: int) -> Iterator[Occurrence]:
    midnight = datetime.combine(date(1970, 1, 1) + timedelta(days=day), time(), UTC)
    for incident in INCIDENTS:
        if incident.day == day % PERIOD_DAYS:
            begin = midnight + timedelta(minutes=incident.first)
            yield Occurrence(incident, begin, begin + timedelta(minutes=incident.minutes))


@cache
def calendar(service: str, region: str, place: int) -> tuple[Incident, ...]:
    """The incidents of a service in a region on a day of the 30."""
    return tuple(i for i in INCIDENTS if (i.service, i.day) == (service, place) and region in i.regions)


def overlaid(usually: Floats, service: str, region: str, day: int, kind: Kind, of: str) -> Floats:
    """A day's minutes with the effects' values where an incident of that day says so; the usual ones elsewhere."""
    values = usually
    for incident in calendar(service, region, day % PERIOD_DAYS):
        for effect in incident.effects:
            if (effect.kind, effect.of) == (kind, of):
                values = values.copy() if values is usually else values
                values[incident.first : incident.first + incident.minutes] = effect.value
    return values


def planted(occurrence: Occurrence) -> tuple[Planted, ...]:
    """What it does to each SLO whose budget it spends; none for gaps and restarts, which spend nothing."""
    return tuple(_planted(occurrence, e, slo) for e in occurrence.incident.effects for slo in e.slos)


def _planted(occurrence: Occurrence, effect: Effect, slo: str) -> Planted:
    incident = occurrence.incident
    if effect.kind == "traffic":
        return Planted(slo, incident.minutes, incident.minutes)
    if effect.kind == "use":
        return Planted(slo, incident.minutes * len(incident.regions), incident.minutes * len(REGIONS))
    flow = "views" if effect.of in _VIEWS else effect.of

    def events(name: str) -> float:
        day, span = epoch_day(occurrence.begin.date()), slice(incident.first, incident.first + incident.minutes)
        return float(sum(np.sum(usual(incident.service, name, region, day)[span]) for region in REGIONS))

    others = [name for name in _COUNTED_TOGETHER.get(slo, ()) if name != flow]
    unaffected = {name: events(name) for name in others}
    bad = effect.value * events(flow) + sum(
        FLOWS[incident.service][name].bad * count for name, count in unaffected.items()
    )
    return Planted(slo, bad, events(flow) + sum(unaffected.values()))
