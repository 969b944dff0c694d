"""What a drilled service exposes: its requests, its container, and what ops/metrics.yaml says of the service beside them.

Loaded by drills alone. Not here: the requests themselves (`drilled_service.py`), and the labels that scraping adds (pod,
namespace, instance).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import prometheus_client as prometheus
import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

STATUSES = ("success", "failed", "error", "5xx")
CPU_LIMIT_CORES = 1.0
MEMORY_LIMIT_BYTES = 512 * 2**20

_POOL_CONNECTIONS = 20
_MODELS = ("small", "medium", "large")
_PROMPT_TOKENS, _COMPLETION_TOKENS = 800, 200
_PLATFORMS = ("benevity", "goodera", "workday")
_DURATION_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10)
_LCP_BUCKETS = (0.5, 1, 1.5, 2, 2.5, 3, 4, 6)
_INP_BUCKETS = (50, 100, 150, 200, 300, 500, 1000)
_CLS_BUCKETS = (0.01, 0.05, 0.1, 0.15, 0.25, 0.5)
_HEALTHY_LCP_SECONDS, _HEALTHY_INP_MILLISECONDS, _HEALTHY_CLS = 1.2, 80.0, 0.02

Observe = Callable[[bool, float], None]
"""Counts one answer: whether it was a success, and the seconds it took."""


class Exposed:
    """The metrics of one instance, in a registry of its own; every series is there, at 0, before the first request."""

    def __init__(self, service: str, version: str, in_flight: Callable[[], int]) -> None:
        # For the whole process; Prometheus' text format would have them as series of their own, unknown to the catalogue.
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.registry.register(_Container(service))
        who = {"service": service, "version": version}
        requests = _by_status(self.registry, "http_server_requests_total", "Requests answered.", who)
        self._requests = {True: requests["success"], False: requests["5xx"]}
        self._observes = [observe(self.registry, who, in_flight) for observe in OWN[service]]

    def answered(self, succeeded: bool, seconds: float) -> None:
        self._requests[succeeded].inc()
        for observe in self._observes:
            observe(succeeded, seconds)

    def page(self) -> bytes:
        return prometheus.generate_latest(self.registry)


class _Container(Collector):
    """What cAdvisor and kube-state-metrics would say of the container: the real use of this process, and its limits."""

    def __init__(self, container: str) -> None:
        self._container = container
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        cpu = CounterMetricFamily("container_cpu_usage_seconds", "CPU time used by a container.", labels=["container"])
        cpu.add_metric([self._container], time.process_time())
        yield cpu
        memory = GaugeMetricFamily(
            "container_memory_working_set_bytes", "Memory that the kernel cannot reclaim.", labels=["container"]
        )
        memory.add_metric([self._container], self._process.memory_info().rss)
        yield memory
        limits = GaugeMetricFamily(
            "kube_pod_container_resource_limits", "Limits of a container.", labels=["container", "resource", "unit"]
        )
        limits.add_metric([self._container, "cpu", "core"], CPU_LIMIT_CORES)
        limits.add_metric([self._container, "memory", "byte"], MEMORY_LIMIT_BYTES)
        yield limits


def _by_status(
    registry: CollectorRegistry, name: str, words: str, who: Mapping[str, str]
) -> dict[str, prometheus.Counter]:
    counter = prometheus.Counter(name, words, [*who, "status"], registry=registry)
    return {status: counter.labels(**who, status=status) for status in STATUSES}


def _counted(name: str, words: str) -> Callable[..., Observe]:
    """One more count per answer, by status; an injected error is a failure of it."""

    def build(registry: CollectorRegistry, who: Mapping[str, str], _in_flight: Callable[[], int]) -> Observe:
        of = _by_status(registry, name, words, who)
        return lambda succeeded, _seconds: of["success" if succeeded else "failed"].inc()

    return build


def _duration(registry: CollectorRegistry, who: Mapping[str, str], _in_flight: Callable[[], int]) -> Observe:
    histogram = prometheus.Histogram(
        "http_server_request_duration_seconds",
        "Time that an answer took.",
        [*who, "status"],
        buckets=_DURATION_BUCKETS,
        registry=registry,
    )
    of = {status: histogram.labels(**who, status=status) for status in STATUSES}
    return lambda succeeded, seconds: of["success" if succeeded else "5xx"].observe(seconds)


def _tokens(registry: CollectorRegistry, who: Mapping[str, str], _in_flight: Callable[[], int]) -> Observe:
    counter = prometheus.Counter(
        "llm_tokens_total", "Tokens sent and received.", [*who, "model", "kind"], registry=registry
    )
    sent = [counter.labels(**who, model=model, kind="prompt") for model in _MODELS]
    received = [counter.labels(**who, model=model, kind="completion") for model in _MODELS]
    calls = Counter[bool]()

    def observe(succeeded: bool, _seconds: float) -> None:
        model = calls[succeeded] % len(_MODELS)
        calls[succeeded] += 1
        sent[model].inc(_PROMPT_TOKENS)
        if succeeded:
            received[model].inc(_COMPLETION_TOKENS)

    return observe


def _deliveries(registry: CollectorRegistry, who: Mapping[str, str], _in_flight: Callable[[], int]) -> Observe:
    counter = prometheus.Counter(
        "impact_in_delivery_total", "Deliveries to a platform.", [*who, "platform", "status"], registry=registry
    )
    of = {
        status: [counter.labels(**who, platform=platform, status=status) for platform in _PLATFORMS]
        for status in STATUSES
    }
    turns = Counter[str]()

    def observe(succeeded: bool, _seconds: float) -> None:
        # Turns of their own: with one turn for both, every third request failing would hit one platform alone.
        status = "success" if succeeded else "failed"
        of[status][turns[status] % len(_PLATFORMS)].inc()
        turns[status] += 1

    return observe


def _pool(registry: CollectorRegistry, who: Mapping[str, str], in_flight: Callable[[], int]) -> Observe:
    used = prometheus.Gauge("db_pool_connections_in_use", "Connections handed out.", [*who], registry=registry)
    used.labels(**who).set_function(lambda: float(min(in_flight(), _POOL_CONNECTIONS)))
    most = prometheus.Gauge("db_pool_connections_max", "Connections that may be opened.", [*who], registry=registry)
    most.labels(**who).set(_POOL_CONNECTIONS)
    return lambda _succeeded, _seconds: None


def _web_vitals(registry: CollectorRegistry, who: Mapping[str, str], _in_flight: Callable[[], int]) -> Observe:
    def histogram(name: str, words: str, buckets: Sequence[float]) -> prometheus.Histogram:
        return prometheus.Histogram(name, words, [*who], buckets=buckets, registry=registry).labels(**who)

    lcp = histogram("web_vitals_lcp_seconds", "Largest Contentful Paint.", _LCP_BUCKETS)
    inp = histogram("web_vitals_inp_milliseconds", "Interaction to Next Paint.", _INP_BUCKETS)
    cls = histogram("web_vitals_cls_score", "Cumulative Layout Shift.", _CLS_BUCKETS)

    def observe(succeeded: bool, seconds: float) -> None:
        # A page that did not come is no page view, and no browser reports it.
        if succeeded:
            lcp.observe(_HEALTHY_LCP_SECONDS + seconds)
            inp.observe(_HEALTHY_INP_MILLISECONDS + seconds * 1000)
            cls.observe(_HEALTHY_CLS)

    return observe


OWN: Mapping[str, tuple[Callable[..., Observe], ...]] = {
    "api-gateway": (_duration,),
    "reporting": (_duration, _counted("genai_report_generation_total", "Reports that a model wrote."), _tokens, _pool),
    "q2q-ai": (
        _duration,
        _counted("llm_api_requests_total", "Calls to language models."),
        _counted("q2q_evidence_classification_total", "Pieces of evidence classified."),
        _tokens,
    ),
    "cockpit": (_web_vitals,),
    "impact-in": (_duration, _deliveries),
}
"""By service, what it exposes beside its requests and its container. Held against ops/metrics.yaml by the tests."""
