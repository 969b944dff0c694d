"""The service that a canary drill deploys: it answers requests, exposes what they did, and fails when it is told to.

    python -m greenops_pipelines.slo.drilled_service --service api-gateway --version 2.0.0 --pod api-gateway-7d9f-x2 \
        --port-file PATH

    GET /           the request; 200, or 500 for an injected error
    GET /metrics    Prometheus text: what ops/metrics.yaml says of the service, and its container
    POST /fault     {"error_ratio": 0..1, "delay_seconds": 0..30, "stuck": bool}: from now on, what is left out being healthy
    GET /counts     what was served, for comparison with what Prometheus has seen

`/metrics`, `/fault` and `/counts` answer while the service is stuck. Loaded by drills alone, and ended by
`process/child.py`. Not here: the labels that scraping adds (pod, namespace, instance), traffic, verdicts.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import prometheus_client as prometheus
import psutil
from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from pydantic import BaseModel, ConfigDict, Field, ValidationError

STATUSES = ("success", "failed", "error", "5xx")
CPU_LIMIT_CORES = 1.0
MEMORY_LIMIT_BYTES = 512 * 2**20
LOOPBACK = "127.0.0.1"

_HEALTHY_SECONDS = (0.002, 0.003, 0.004, 0.005)
"""What a request takes by itself, in turn."""
_SHUTDOWN_SECONDS = 1.0
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


class Fault(BaseModel):
    """What is injected. `stuck` holds every request until it is lifted, or until the client hangs up."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    error_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    delay_seconds: Annotated[float, Field(ge=0, le=30)] = 0.0
    stuck: bool = False


def is_error(index: int, ratio: Fraction) -> bool:
    """Whether request `index` (0 is the first under the fault) fails: ceil(n x ratio) of the first n do, evenly spread."""
    return math.ceil((index + 1) * ratio) > math.ceil(index * ratio)


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


class Instance:
    """One instance: the fault it is under, what it has served, and its handlers."""

    def __init__(self, service: str, version: str, pod: str) -> None:
        self._identity = {"service": service, "version": version, "pod": pod}
        self._fault = Fault()
        self._ratio = Fraction(0)
        self._under_fault = 0
        self._first_error_ns: int | None = None
        self._released = asyncio.Event()
        self._released.set()
        self._served = Counter[str](success=0, error=0)
        self._abandoned = 0
        self._in_flight = 0
        self.exposed = Exposed(service, version, lambda: self._in_flight)

    def inject(self, fault: Fault) -> None:
        """Holds for requests that begin from now on, and for those that are stuck; others in flight finish as they began."""
        self._fault = fault
        # Through its digits: as a binary float 0.02 is a little more than 1/50, and would fail 3 of the first 100.
        self._ratio = Fraction(repr(float(fault.error_ratio)))
        self._under_fault = 0
        self._first_error_ns = None
        if fault.stuck:
            self._released.clear()
        else:
            self._released.set()

    async def answer(self, _request: web.Request) -> web.Response:
        began = time.perf_counter()
        self._in_flight += 1
        try:
            while self._fault.stuck:
                await self._released.wait()
            index, fault = self._under_fault, self._fault
            self._under_fault += 1
            succeeded = not is_error(index, self._ratio)
            await asyncio.sleep(_HEALTHY_SECONDS[index % len(_HEALTHY_SECONDS)] + fault.delay_seconds)
        except asyncio.CancelledError:
            self._abandoned += 1
            raise
        finally:
            self._in_flight -= 1
        self._served["success" if succeeded else "error"] += 1
        if not succeeded and self._first_error_ns is None and fault is self._fault:
            self._first_error_ns = time.time_ns()
        self.exposed.answered(succeeded, time.perf_counter() - began)
        return web.Response(body=b"ok\n") if succeeded else web.Response(status=500, body=b"injected error\n")

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self.exposed.page(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def fault(self, request: web.Request) -> web.Response:
        """The instant from which the fault holds, and the requests served until then; 400 leaves all as it was."""
        try:
            fault = Fault.model_validate_json(await request.read())
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()]
            return web.json_response({"faults": faults}, status=400)
        self.inject(fault)
        return web.json_response(
            {"instant_ns": time.time_ns(), "requests_served": self._served.total(), "fault": fault.model_dump()}
        )

    async def counts(self, _request: web.Request) -> web.Response:
        """`first_error_ns`: the first error of the present fault. `abandoned`: the client hung up before the answer."""
        counts: dict[str, Any] = {
            **self._identity,
            "requests_served": self._served.total(),
            "by_outcome": dict(self._served),
            "abandoned": self._abandoned,
            "in_flight": self._in_flight,
            "first_error_ns": self._first_error_ns,
            "fault": self._fault.model_dump(),
        }
        return web.json_response(counts)


def make_app(service: str, version: str, pod: str) -> web.Application:
    """The service as an application. It wants a runner with `handler_cancellation`: clients that hang up free what they held."""
    instance = Instance(service, version, pod)
    app = web.Application()
    app.router.add_get("/", instance.answer, allow_head=False)
    app.router.add_get("/metrics", instance.metrics, allow_head=False)
    app.router.add_post("/fault", instance.fault)
    app.router.add_get("/counts", instance.counts, allow_head=False)
    return app


async def serve(app: web.Application, on_port: Callable[[int], None], until: asyncio.Event) -> None:
    """Serves on a free port of the loopback, says which, and stops when `until` is set."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, 0).start()
        on_port(runner.addresses[0][1])
        await until.wait()
    finally:
        await runner.cleanup()


def publish_port(port_file: Path, port: int) -> None:
    """The file is there as a whole or not at all."""
    beside = port_file.with_name(f".{port_file.name}.{os.getpid()}")
    beside.write_text(f"{port}\n")
    beside.replace(port_file)


async def _run(asked: argparse.Namespace) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    app = make_app(asked.service, asked.version, asked.pod)
    await serve(app, lambda port: publish_port(asked.port_file, port), ended)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="drilled_service", description="A service that fails when it is told to.")
    parser.add_argument("--service", required=True, choices=sorted(OWN))
    parser.add_argument("--version", required=True)
    parser.add_argument("--pod", required=True)
    parser.add_argument("--port-file", required=True, type=Path, help="where the port is written once it serves")
    asyncio.run(_run(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
