"""What stands in `ops/canary.yaml`, field by field. Not here: what fits together and what does not (`canary.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import AfterValidator, Field

from greenops_pipelines.ops import OpsModel
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.catalogue import Service
from greenops_pipelines.slo.declared import Duration
from greenops_pipelines.slo.rollback import FAILURES

REQUESTS = "http_server_requests_total"
LATENCY = "http_server_request_duration_seconds"
Gate: TypeAlias = Literal[
    "error-rate",
    "latency-p95",
    "latency-p99",
    "latency",
    "request-volume",
    "cpu",
    "memory",
    "saturation",
    "genai-success",
    "llm-health",
    "token-usage",
    "lcp",
    "inp",
    "cls",
    "delivery-success",
]
Variant: TypeAlias = Literal["cumulative", "consecutive"]
GATES: tuple[Gate, ...] = get_args(Gate)
VARIANTS: tuple[Variant, ...] = get_args(Variant)

VITALS = {"lcp": "web_vitals_lcp_seconds", "inp": "web_vitals_inp_milliseconds", "cls": "web_vitals_cls_score"}
SUCCESS = {
    "genai-success": ("genai_report_generation_total", "genai-report-success"),
    "llm-health": ("llm_api_requests_total", "llm-call-success"),
    "delivery-success": ("impact_in_delivery_total", "delivery-"),
}
"""Gates on the success of a service's own work: the metric, and how the names of its SLOs begin."""
_CPU, _MEMORY = "container_cpu_usage_seconds_total", "container_memory_working_set_bytes"
_LIMITS = "kube_pod_container_resource_limits"
METRICS: Mapping[str, tuple[str, ...]] = {
    "error-rate": (REQUESTS,),
    "request-volume": (REQUESTS,),
    "latency-p95": (LATENCY,),
    "latency-p99": (LATENCY,),
    "latency": (LATENCY,),
    "cpu": (_CPU, _LIMITS),
    "memory": (_MEMORY, _LIMITS),
    "saturation": (_CPU, _MEMORY, _LIMITS),
    "token-usage": ("llm_tokens_total", REQUESTS),
    **{gate: (metric,) for gate, metric in VITALS.items()},
    **{gate: (metric,) for gate, (metric, _) in SUCCESS.items()},
}
"""The metrics by which a gate judges."""
NEEDS = {
    "latency": "latency",
    "latency-p95": "latency",
    "latency-p99": "latency",
    "token-usage": "tokens_per_request",
    **dict.fromkeys(VITALS, "web_vitals"),
    **dict.fromkeys(SUCCESS, "success_percent"),
}
"""The field that a gate needs beside it."""
_LONGEST = timedelta(hours=12)


def _go(text: str) -> str:
    if durations.parse(text) > _LONGEST:
        # The controller reads Go's durations, which know no unit above the hour.
        raise ValueError(f"found {text!r}, allowed: at most 12h")
    return text


Span = Annotated[Duration, AfterValidator(_go)]
Percent = Annotated[float, Field(gt=0, le=100)]
Host = Annotated[str, Field(pattern=r"^[a-z0-9.{}-]+$", max_length=200, examples=["{service}.{namespace}.svc"])]
Port = Annotated[int, Field(ge=1, le=65535)]


class Routing(OpsModel):
    host: Host
    port: Port
    pod_label: Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9._-]+$", max_length=120)]
    timeout: Span


class Analysis(OpsModel):
    rate_window: Span
    interval: Span
    initial_delay: Span
    query_seconds: float = Field(ge=0, le=10)
    checks: int = Field(ge=FAILURES, le=100)


class Rollback(OpsModel):
    deadline_seconds: float = Field(gt=0, le=3600)
    at_error_percent: Percent
    overhead_seconds: float = Field(ge=0, le=600)
    counters_start_at_zero: bool


class Step(OpsModel):
    """`weight` is percent of the requests."""

    weight: int = Field(ge=1, le=99)
    pause: Span


class Latency(OpsModel):
    p95_seconds: float = Field(gt=0)
    p99_seconds: float = Field(gt=0)


class WebVitals(OpsModel):
    lcp_seconds: float = Field(gt=0)
    inp_milliseconds: float = Field(gt=0)
    cls_score: float = Field(gt=0)

    def limit(self, vital: str) -> float:
        """Of `lcp`, `inp` or `cls`, in the unit of its metric."""
        return {"lcp": self.lcp_seconds, "inp": self.inp_milliseconds, "cls": self.cls_score}[vital]


class Ingress(OpsModel):
    gateway: Annotated[
        str, Field(pattern=r"^([a-z0-9-]+/)?[a-z0-9-]+$", max_length=120, examples=["istio-ingress/public"])
    ]
    host: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$", max_length=200, examples=["api.example"])]


class CanaryEntry(OpsModel):
    """One service; the fields are explained at the head of the file."""

    service: Service
    replicas: int = Field(ge=1, le=10_000)
    variant: Variant
    error_percent: Percent
    healthy_error_percent: float = Field(ge=0, le=100)
    minimum_requests_per_second: float = Field(gt=0)
    latency: Latency | None = None
    web_vitals: WebVitals | None = None
    success_percent: float | None = Field(None, gt=0, lt=100)
    tokens_per_request: float | None = Field(None, gt=0)
    cpu_percent: Percent
    memory_percent: Percent
    host: Host | None = None
    port: Port | None = None
    ingress: Ingress | None = None
    gates: tuple[Gate, ...] = Field(min_length=1)


class File(OpsModel):
    prometheus: Annotated[str, Field(pattern=r"^https?://[^\s/]+(/[^\s]*)?$", max_length=300)]
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    router: Literal["istio", "none"]
    routing: Routing
    scrape_interval: Span
    analysis: Analysis
    rollback: Rollback
    steps: tuple[Step, ...] = Field(min_length=1, max_length=20)
    services: tuple[CanaryEntry, ...] = Field(min_length=1)
