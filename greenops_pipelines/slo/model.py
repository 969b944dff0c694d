"""An SLO as the compiler sees it, whichever document it came from. Not here: reading, validating, compiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True)
class Events:
    """Two queries with `{{.window}}`: bad events, and all events."""

    error_query: str
    total_query: str


@dataclass(frozen=True)
class Raw:
    """One query with `{{.window}}` that is the error ratio itself, 0 to 1."""

    error_ratio_query: str


@dataclass(frozen=True)
class Alert:
    """Name, labels and annotations of one burn-rate alert."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Slo:
    """One objective. `objective` is a percentage in (0, 100]; an alert that is disabled is None.

    `events` and `raw` exclude each other in a valid SLO; validation needs to see both.
    """

    id: str
    name: str
    service: str
    objective: float
    period: timedelta
    events: Events | None
    raw: Raw | None
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    page: Alert | None = None
    ticket: Alert | None = None


@dataclass(frozen=True)
class KubernetesMeta:
    """Where the rules of a Kubernetes document go."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """The SLOs of one document. `spec` and `mode` are what Sloth calls the document's kind, and its way of working."""

    slos: tuple[Slo, ...]
    spec: str
    mode: str
    kubernetes: KubernetesMeta | None = None


@dataclass(frozen=True)
class Rule:
    """A recording rule (`record`) or an alerting rule (`alert`); `hold` is Prometheus' `for`."""

    expr: str
    record: str = ""
    alert: str = ""
    hold: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RuleGroup:
    """Rules that Prometheus evaluates together, in this order."""

    name: str
    rules: tuple[Rule, ...]
    interval: str = ""
