"""What the pods of the five services show of their traffic: lines of metrics, and how far each moves in every minute.

A line is a series without the labels of its pod. Counters move by whole numbers of their smallest step: an event, a
thousandth of a second of latency or CPU. The statuses of a counter sum to its flow, and a histogram's counts to the
same flow, exactly.

Not here: which pod lives when, and what is scraped of it (`sample_metrics.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np

from greenops_pipelines.slo.sample_incidents import overlaid
from greenops_pipelines.slo.sample_traffic import (
    FLOWS,
    HISTOGRAMS,
    MINUTES,
    REGIONS,
    Floats,
    Histogram,
    Ints,
    noise,
    split,
    uniforms,
    usual,
    whole,
)

Exporter = Literal["service", "cadvisor", "kube-state-metrics"]

_COUNTERS: Mapping[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "http": ("http_server_requests_total", ()),
    "llm": ("llm_api_requests_total", ()),
    "classification": ("q2q_evidence_classification_total", ()),
    "report": ("genai_report_generation_total", ()),
    "delivery-benevity": ("impact_in_delivery_total", (("platform", "benevity"),)),
    "delivery-goodera": ("impact_in_delivery_total", (("platform", "goodera"),)),
    "delivery-workday": ("impact_in_delivery_total", (("platform", "workday"),)),
}
_TOKENS_PER_CALL = {"prompt": 900, "completion": 250}
_CPU_CORES: Mapping[str, int] = {"api-gateway": 4, "reporting": 2, "q2q-ai": 2, "cockpit": 1, "impact-in": 1}
_MEMORY_BYTES: Mapping[str, int] = {
    service: gibibytes * 2**30
    for service, gibibytes in {"api-gateway": 2, "reporting": 4, "q2q-ai": 4, "cockpit": 1, "impact-in": 1}.items()
}
_POOL_CONNECTIONS = 40
_PAGE_BYTES = 4096
_THOUSAND = 1000


@dataclass(frozen=True)
class Line:
    """A series without its pod. A counter's sample is what it has grown by, divided by `steps_per_unit`."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    exporter: Exporter = "service"
    is_counter: bool = True
    steps_per_unit: int = 1


@cache
def lines_of(service: str) -> tuple[Line, ...]:
    """The lines of each of the service's pods, the same ones on every day and in every region."""
    return tuple(line for line, _ in _lines(service, next(iter(REGIONS)), 0))


# Ten pods' places, today's and yesterday's; 0.6 MB each at most.
@lru_cache(maxsize=20)
def moves_of(service: str, region: str, day: int) -> Ints:
    """How far each line's counter moves and where each gauge is in every minute of a day since 1970, (lines, 1440)."""
    stacked = np.vstack([moves for _, moves in _lines(service, region, day)])
    stacked.flags.writeable = False
    return stacked


def _lines(service: str, region: str, day: int) -> Iterator[tuple[Line, Ints]]:
    statuses = {name: _by_status(service, name, region, day) for name in FLOWS[service]}
    for name, counted in statuses.items():
        if name in _COUNTERS:
            metric, labels = _COUNTERS[name]
            for status, counts in counted.items():
                yield Line(metric, (*labels, ("status", status))), counts
    if "llm" in statuses:
        for kind, tokens in _TOKENS_PER_CALL.items():
            labels = (("model", "gpt-small"), ("kind", kind))
            yield Line("llm_tokens_total", labels), statuses["llm"]["success"] * tokens
    for name, histogram in HISTOGRAMS.get(service, {}).items():
        slow = np.full(MINUTES, histogram.slow) * _lumps(f"{service}:{region}:{name}", day)
        slow = overlaid(slow, service, region, day, "slow", name)
        for status, counts in statuses[histogram.flow].items():
            labels = (("status", status),) if status else ()
            yield from _buckets(histogram, labels, counts, slow, f"{service}:{region}:{name}:{status}", day)
    load = sum(statuses["http"].values()) / FLOWS[service]["http"].per_minute
    yield from _resources(service, region, day, np.asarray(load, dtype=np.float64))


def _lumps(stream: str, day: int) -> Floats:
    """Factors between 0 and 2 with mean 1, since failures do not come like clockwork."""
    return 2 * uniforms(f"{stream}:lumps", day, MINUTES)


def _by_status(service: str, name: str, region: str, day: int) -> dict[str, Ints]:
    flow, stream = FLOWS[service][name], f"{service}:{region}:{name}"
    factor = overlaid(np.ones(MINUTES), service, region, day, "traffic", name)
    phases = uniforms(f"{stream}:phase", day, 2 + len(flow.faults or ()))
    total = whole(usual(service, name, region, day) * noise(stream, day) * factor, float(phases[0]))
    if flow.faults is None:
        return {"": total}
    bad = overlaid(flow.bad * _lumps(stream, day), service, region, day, "bad", name)
    failed = whole(np.asarray(total * bad), float(phases[1]))
    parts = split(failed, tuple(flow.faults.values()), phases[2:])
    return {"success": total - failed, **dict(zip(flow.faults, parts, strict=True))}


def _buckets(
    histogram: Histogram, labels: tuple[tuple[str, str], ...], counts: Ints, slow: Floats, stream: str, day: int
) -> Iterator[tuple[Line, Ints]]:
    below = len(histogram.below)
    phases = uniforms(f"{stream}:phase", day, 1 + below + len(histogram.beyond))
    beyond = whole(np.asarray(counts * slow), float(phases[0]))
    parts = split(counts - beyond, histogram.below, phases[1 : 1 + below])
    parts += split(beyond, histogram.beyond, phases[1 + below :])
    names = [f"{bound:g}" for bound in histogram.bounds] + ["+Inf"]
    for le, running in zip(names, accumulate(parts), strict=True):
        yield Line(f"{histogram.metric}_bucket", (*labels, ("le", le))), running
    yield Line(f"{histogram.metric}_count", labels), counts
    # Each event measured the middle of its bucket; those beyond all bounds half as much again as the last bound.
    edges = (0.0, *histogram.bounds, 2 * histogram.bounds[-1])
    middles = [round(_THOUSAND * (low + high) / 2) for low, high in pairwise(edges)]
    measured = sum(part * middle for part, middle in zip(parts, middles, strict=True))
    yield Line(f"{histogram.metric}_sum", labels, steps_per_unit=_THOUSAND), np.asarray(measured)


def _resources(service: str, region: str, day: int, load: Floats) -> Iterator[tuple[Line, Ints]]:
    stream, container = f"{service}:{region}", ("container", service)
    cpu = overlaid(0.12 + 0.2 * load, service, region, day, "use", "cpu")
    milliseconds = whole(cpu * float(_CPU_CORES[service] * 60 * _THOUSAND), 0.0)
    yield Line("container_cpu_usage_seconds_total", (container,), "cadvisor", steps_per_unit=_THOUSAND), milliseconds
    memory = overlaid(0.5 + 0.4 * (noise(f"{stream}:memory", day) - 1), service, region, day, "use", "memory")
    pages = np.rint(memory * _MEMORY_BYTES[service] / _PAGE_BYTES).astype(np.int64)
    yield Line("container_memory_working_set_bytes", (container,), "cadvisor", is_counter=False), pages * _PAGE_BYTES
    for resource, unit, limit in (("cpu", "core", _CPU_CORES[service]), ("memory", "byte", _MEMORY_BYTES[service])):
        labels = (container, ("resource", resource), ("unit", unit))
        yield (
            Line("kube_pod_container_resource_limits", labels, "kube-state-metrics", is_counter=False),
            np.full(MINUTES, limit, dtype=np.int64),
        )
    if service == "reporting":
        pool = overlaid(0.1 + 0.22 * load, service, region, day, "use", "pool")
        used = np.rint(pool * _POOL_CONNECTIONS).astype(np.int64)
        yield Line("db_pool_connections_in_use", (), is_counter=False), used
        yield Line("db_pool_connections_max", (), is_counter=False), np.full(MINUTES, _POOL_CONNECTIONS, dtype=np.int64)
