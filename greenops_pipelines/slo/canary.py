"""`ops/canary.yaml`: the steps by which a version comes into production, its gates, and the promise of a rollback.

    read_canary(Path("ops"), declared, slos, catalogue).services["api-gateway"].error_percent
    1.44

Here: the file read, and what is refused. Not here: its models (`canary_model.py`), the gates' queries (`gates.py`), the
certificate's formula (`rollback.py`), and the objects made of it (`rollouts.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from greenops_pipelines import ops
from greenops_pipelines.ops.tree import Fault
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.canary_model import (
    GATES,
    LATENCY,
    METRICS,
    NEEDS,
    SUCCESS,
    VARIANTS,
    VITALS,
    Analysis,
    CanaryEntry,
    File,
    Gate,
    Rollback,
    Routing,
    Step,
    Variant,
)
from greenops_pipelines.slo.catalogue import Catalogue
from greenops_pipelines.slo.declared import Declared
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.rollback import FAILURES, Timing, knobs, worst_case

__all__ = ["FILE", "GATES", "VARIANTS", "Canaries", "CanaryEntry", "Gate", "Variant", "read_canary"]

FILE = "canary.yaml"
_FEWEST_SCRAPES = 4


@dataclass(frozen=True)
class Canaries:
    """The file, its services by name, and the catalogue that the gates' queries have to pass."""

    prometheus: str
    namespace: str
    router: Literal["istio", "none"]
    routing: Routing
    scrape_interval: str
    analysis: Analysis
    rollback: Rollback
    steps: tuple[Step, ...]
    services: Mapping[str, CanaryEntry]
    catalogue: Catalogue

    @property
    def scrape_s(self) -> float:
        return _seconds(self.scrape_interval)

    @property
    def window_s(self) -> float:
        return _seconds(self.analysis.rate_window)

    @property
    def interval_s(self) -> float:
        return _seconds(self.analysis.interval)

    @property
    def initial_delay_s(self) -> float:
        return _seconds(self.analysis.initial_delay)

    def host(self, service: str) -> str:
        """The Service that callers name."""
        host = self.services[service].host or self.routing.host
        return host.replace("{service}", service).replace("{namespace}", self.namespace)

    def port(self, service: str) -> int:
        return self.services[service].port or self.routing.port

    @property
    def timeout_s(self) -> float:
        return _seconds(self.routing.timeout)

    def timing(self, threshold: float, requests_per_second: float, answer_s: float = 0.0) -> Timing:
        """What a gate's certificate is made of: the share of bad requests at which it turns, the canary's volume, and how
        long a bad answer takes."""
        return replace(_timing(self, threshold, requests_per_second), answer_s=answer_s)


def read_canary(ops_dir: Path, declared: Declared, slos: Sequence[Slo], catalogue: Catalogue) -> Canaries:
    """`ops_dir`/canary.yaml, held against SLOs and catalogue. Raises `ConfigurationError` with one line per fault."""
    document = ops.load(ops_dir / FILE, File)
    value = document.value
    faults = list(_settings(document))
    names = [entry.service for entry in value.services]
    for index, entry in enumerate(value.services):
        if entry.service in names[:index]:
            faults.append(document.fault(("services", index, "service"), "each service once"))
        elif entry.service not in declared.services:
            allowed = f"a service of ops/slo.yaml: {', '.join(sorted(declared.services))}"
            faults.append(document.fault(("services", index, "service"), allowed))
        else:
            faults += _gates(document, index, catalogue)
            faults += _limits(document, index, slos, catalogue)
            faults += _promise(document, index)
    if missing := sorted(set(declared.services) - set(names)):
        faults.append(document.fault(("services",), f"an entry for each service; missing: {', '.join(missing)}"))
    ops.refuse(faults)
    return Canaries(
        value.prometheus.rstrip("/"),
        value.namespace,
        value.router,
        value.routing,
        value.scrape_interval,
        value.analysis,
        value.rollback,
        value.steps,
        {entry.service: entry for entry in value.services},
        catalogue,
    )


def _settings(document: ops.Document[File]) -> Iterator[Fault]:
    value = document.value
    analysis, scrape = value.analysis, _seconds(value.scrape_interval)
    window, interval, delay = map(_seconds, (analysis.rate_window, analysis.interval, analysis.initial_delay))
    if window < _FEWEST_SCRAPES * scrape:
        least = f"at least {_FEWEST_SCRAPES * scrape:g} s, {_FEWEST_SCRAPES} scrapes of {value.scrape_interval}"
        yield document.fault(("analysis", "rate_window"), least)
    if (FAILURES - 1) * interval < scrape:
        least = f"at least {scrape / (FAILURES - 1):g} s, or three failures are one and the same scrape"
        yield document.fault(("analysis", "interval"), least)
    if delay < window:
        yield document.fault(("analysis", "initial_delay"), f"at least rate_window, {analysis.rate_window}")
    promise = value.rollback
    latest = promise.deadline_seconds - promise.overhead_seconds - (FAILURES - 1) * interval
    if delay > latest:
        allowed = (
            f"at most {latest:g} s, for a rollback within {promise.deadline_seconds:g} s of a canary bad from the start"
        )
        yield document.fault(("analysis", "initial_delay"), allowed)
    for index, (step, next_step) in enumerate(zip(value.steps, value.steps[1:], strict=False), start=1):
        if next_step.weight <= step.weight:
            yield document.fault(("steps", index, "weight"), f"more than the step before, {step.weight}")


def _gates(document: ops.Document[File], index: int, catalogue: Catalogue) -> Iterator[Fault]:
    """Each gate is one that the service's metrics can answer, and nothing that has to be judged is left out."""
    entry, at = document.value.services[index], ("services", index, "gates")
    emitted = {metric.name for metric in catalogue.metrics if entry.service in metric.services}
    for place, gate in enumerate(entry.gates):
        if gate in entry.gates[:place]:
            yield document.fault((*at, place), "each gate once")
        elif lacking := [metric for metric in METRICS[gate] if metric not in emitted]:
            yield document.fault((*at, place), f"a gate on metrics of {entry.service}, not on {', '.join(lacking)}")
        elif (field := NEEDS.get(gate)) and getattr(entry, field) is None:
            yield document.fault((*at, place), f"with the field {field} beside it")
    found = set(entry.gates)
    latency = [("latency",), ("latency-p95", "latency-p99")] if LATENCY in emitted else [tuple(VITALS)]
    wanted: list[list[tuple[str, ...]]] = [[("error-rate",)], latency, [("saturation",), ("cpu", "memory")]]
    wanted += [[(gate,)] for gate, (metric, _) in SUCCESS.items() if metric in emitted]
    for ways in wanted:
        if not any(found.issuperset(way) for way in ways):
            said = ", or ".join(" and ".join(way) for way in ways)
            yield document.fault(at, f"a list with {said}")


def _limits(document: ops.Document[File], index: int, slos: Sequence[Slo], catalogue: Catalogue) -> Iterator[Fault]:
    entry, at = document.value.services[index], ("services", index)
    buckets = {metric.name: metric.buckets for metric in catalogue.metrics if metric.buckets}
    histograms: list[tuple[str, str, str]] = []
    if entry.latency is not None:
        histograms += [("latency", field, LATENCY) for field in ("p95_seconds", "p99_seconds")]
        if entry.latency.p99_seconds < entry.latency.p95_seconds:
            yield document.fault((*at, "latency", "p99_seconds"), "at least p95_seconds")
    if entry.web_vitals is not None:
        histograms += [("web_vitals", f"{vital}_{name.rsplit('_', 1)[1]}", name) for vital, name in VITALS.items()]
    for group, field, metric in histograms:
        bounds = buckets.get(metric, ())
        if getattr(getattr(entry, group), field) not in bounds:
            listed = ", ".join(f"{bound:g}" for bound in bounds)
            yield document.fault((*at, group, field), f"a bucket's bound of {metric}: {listed}")
    if entry.healthy_error_percent >= entry.error_percent:
        yield document.fault((*at, "healthy_error_percent"), f"below error_percent, {entry.error_percent:g}")
    for gate in entry.gates:
        if gate not in SUCCESS or entry.success_percent is None:
            continue
        begins = SUCCESS[gate][1]
        objectives = {slo.objective for slo in slos if slo.service == entry.service and slo.name.startswith(begins)}
        if entry.success_percent not in objectives:
            said = " or ".join(f"{each:g}" for each in sorted(objectives)) or f"the objective of an SLO {begins}"
            yield document.fault((*at, "success_percent"), f"{said}, as in slo-definitions, {entry.service}")
    weight = document.value.steps[0].weight
    multiple = 100 // math.gcd(100, weight)
    if document.value.router == "none" and entry.replicas % multiple:
        allowed = (
            f"a multiple of {multiple}, since without a router {weight} % of the requests are {weight} % of the pods"
        )
        yield document.fault((*at, "replicas"), allowed)


def _promise(document: ops.Document[File], index: int) -> Iterator[Fault]:
    """The rollback's deadline at the lowest error rate, and the one setting that would keep it.

    The initial delay is left out here: where it decides, none of these settings helps.
    """
    value, entry = document.value, document.value.services[index]
    promise, at = value.rollback, ("services", index, "error_percent")
    if entry.error_percent >= promise.at_error_percent:
        lowest = f"{promise.at_error_percent:g}"
        allowed = f"below {lowest}, or a canary that errs at {lowest} % is never found"
        yield document.fault(at, allowed)
        return
    found = _timing(value, entry.error_percent / 100, entry.minimum_requests_per_second)
    error = promise.at_error_percent / 100
    worst = worst_case(found, error)
    if worst is not None and worst <= promise.deadline_seconds:
        return
    turned = knobs(found, error, promise.deadline_seconds)
    takes = "never" if worst is None else f"after {worst:.1f} s at worst"
    wanted = f"a rollback within {promise.deadline_seconds:g} s at {promise.at_error_percent:g} % errors"
    enough = f"enough alone: {'; '.join(turned)}" if turned else "no setting does it alone"
    yield document.fault(at, f"{wanted}, and it comes {takes}; {enough}")


def _timing(found: File | Canaries, threshold: float, requests_per_second: float) -> Timing:
    return Timing(
        threshold,
        _seconds(found.analysis.rate_window),
        _seconds(found.scrape_interval),
        _seconds(found.analysis.interval),
        overhead_s=found.rollback.overhead_seconds,
        initial_delay_s=_seconds(found.analysis.initial_delay),
        starts_at_zero=found.rollback.counters_start_at_zero,
        rate_per_s=requests_per_second,
        query_s=found.analysis.query_seconds,
    )


def _seconds(text: str) -> float:
    return durations.parse(text).total_seconds()
