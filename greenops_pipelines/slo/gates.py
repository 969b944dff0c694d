"""The gates of a canary: the metrics of an AnalysisTemplate, each a PromQL query and the condition on its answer.

    metrics(canaries, "api-gateway", "cumulative", "background")[0]["successCondition"]
    'len(result) > 0 && all(result, # <= 0.0144)'

Every query asks about the canary's pods alone, and answers with one value without labels; or with none, or NaN, and
then the canary is not good: conditions say what is good, `all()` of no value is true and therefore never stands alone,
and a comparison with NaN is false. An SLO forgives an hour without requests; a canary that shows nothing has proven
nothing.

- Latency has to stay strictly below a limit that is a bucket's bound: there a quantile says exactly whether 5 % of the
  requests are slower, and where the limit is the histogram's last bound, Prometheus answers with that bound for
  everything beyond it, which `<=` would let pass.
- `or 0 * total`: a pod that has not failed yet may have no failed series.
- `clamp_min(a, scalar(b))` is the greater of two, and NaN or nothing where either is missing; `max(a or b)` would judge
  by the one that is there.
- Work that comes seldom (reports, deliveries) is divided by no less than what makes one failure alone pass, and none at
  all is good as long as its series exist. Model calls are different: requests without any are a canary that is ill.

Sources: Argo Rollouts 1.8, docs/features/analysis.md, docs/analysis/prometheus.md, metricproviders/prometheus and
utils/evaluate. Not here: thresholds (`canary.py`), and the objects around the metrics (`rollouts.py`).
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.canary_model import LATENCY, REQUESTS, SUCCESS, VITALS, CanaryEntry, Gate, Variant
from greenops_pipelines.slo.rollback import FAILURES

Kind: TypeAlias = Literal["background", "check"]
ARGUMENT = "canary-hash"
"""The template's argument: the pod template hash of the new version."""
QUANTILE_OF_VITALS = 0.75
OF_FAILED: frozenset[Gate] = frozenset({"error-rate"})
"""Gates that turn as soon as enough requests fail."""
OF_SLOW: frozenset[Gate] = frozenset({"latency", "latency-p95", "lcp"})
"""Gates that turn as soon as enough requests, or pages, are slower than P95, or the vital, allows."""
CERTIFIED: tuple[Gate, ...] = ("error-rate", "latency", "latency-p95", "latency-p99")
"""Gates that turn at a share of the requests, whose fewest are declared: what a certificate can be given for. How often a
report is written, a model called or a page measured is declared nowhere."""
QUERY_TIMEOUT_SECONDS = 10
"""After that a measurement is an Error; the controller's own default of 30 would hold up all gates of a run for as long."""
_FAILED = 'status=~"failed|error|5xx"'
_ONE_FAILURE_PASSES = 1.5
"""Work is divided by at least as much as lets this many failures be the objective's: one passes, two do not."""


@dataclass(frozen=True)
class _Measured:
    """`good` is what holds of the answer `#` of a good canary."""

    query: str
    good: str


def metrics(
    canaries: Canaries,
    service: str,
    variant: Variant,
    kind: Kind,
    time_scale: float = 1.0,
    address: str | None = None,
) -> list[dict[str, Any]]:
    """`spec.metrics` of the service's AnalysisTemplate: one per gate, in their order.

    `background` has no count and goes on for as long as the steps do; `check` is measured `analysis.checks` times.

    cumulative: a measurement that is not good is a failure, and the third one ends the analysis, in a row or not.

    consecutive: each measurement looks at the last three samples, and fails the analysis at once if all are bad. An
    absent sample does not stand in the answer of a range query, which is the values in a row: two bad ones and a gap
    would be `len(result)` 2, and no failure; a canary without any metrics would pass. So each query ends with
    `or vector(NaN)`, a sample that is there and not good. The controller evaluates `end` after `start`, so that the
    three fit in. Needs a controller of 1.8 (range queries).

    `time_scale` N is for a drill whose world runs N times as fast: the queries' windows are a Nth. What the controller
    reads (interval, initialDelay, rangeQuery) stays, since it runs on the drill's own clock. `address` is another
    Prometheus than the declared one.
    """
    entry = canaries.services[service]
    return [
        _metric(canaries, gate, _measured(canaries, entry, gate, time_scale), variant, kind, address)
        for gate in entry.gates
    ]


def breach_threshold(entry: CanaryEntry, gate: Gate) -> float:
    """The share of bad events, 0 to 1, above which a gate turns: of requests, page views, or the service's own work.

    For `latency`, of requests slower than P95's limit, where it turns at the latest: of those that are slower than
    P99's as well, 1 % is enough. `BadInput` for gates that do not count bad events.
    """
    if gate == "error-rate":
        return entry.error_percent / 100
    if gate in ("latency-p95", "latency"):
        return 0.05
    if gate == "latency-p99":
        return 0.01
    if gate in VITALS:
        return 1 - QUANTILE_OF_VITALS
    if gate in SUCCESS and entry.success_percent is not None:
        return (100 - entry.success_percent) / 100
    raise BadInput(f"gate: found {gate!r} of {entry.service}, allowed: one that counts bad events, such as error-rate")


def faults(canaries: Canaries) -> list[str]:
    """One line for each thing in a gate's query that the catalogue does not know."""
    found = []
    for service, entry in canaries.services.items():
        for gate in entry.gates:
            query = _total(_measured(canaries, entry, gate, 1.0).query)
            found += canaries.catalogue.check(query, f"ops/canary.yaml: {service}, gate {gate}")
    return found


def _metric(
    canaries: Canaries, gate: Gate, measured: _Measured, variant: Variant, kind: Kind, address: str | None
) -> dict[str, Any]:
    made: dict[str, Any] = {"name": gate, "interval": canaries.analysis.interval}
    if kind == "background":
        made["initialDelay"] = canaries.analysis.initial_delay
    else:
        made["count"] = canaries.analysis.checks
    prometheus: dict[str, Any] = {"address": address or canaries.prometheus, "timeout": QUERY_TIMEOUT_SECONDS}
    if variant == "cumulative":
        made["successCondition"] = f"len(result) > 0 && all(result, {measured.good})"
        made["failureLimit"] = FAILURES - 1
        prometheus["query"] = measured.query + "\n"
    else:
        back = durations.text(durations.parse(canaries.analysis.interval) * (FAILURES - 1))
        made["failureCondition"] = f"len(result) >= {FAILURES} && all(result, !({measured.good}))"
        made["failureLimit"] = 0
        prometheus["query"] = _total(measured.query) + "\n"
        prometheus["rangeQuery"] = {
            "start": f'now() - duration("{back}")',
            "end": "now()",
            "step": canaries.analysis.interval,
        }
    return made | {"provider": {"prometheus": prometheus}}


def _total(query: str) -> str:
    return f"(\n{textwrap.indent(query, '  ')}\n)\nor vector(NaN)"


def _measured(canaries: Canaries, entry: CanaryEntry, gate: Gate, time_scale: float) -> _Measured:
    window_s = canaries.window_s / time_scale
    window = durations.text(timedelta(milliseconds=round(window_s * 1000)))
    asked = _Queries(entry, window, window_s, canaries.rollback.counters_start_at_zero)
    fewest = f"{entry.minimum_requests_per_second:.12g}"
    match gate:
        case "error-rate":
            query = f"{asked.failed(REQUESTS)}\n/ {asked.rate(REQUESTS)}"
            if "request-volume" not in entry.gates:
                query += f"\nand on() ({asked.rate(REQUESTS)} >= {fewest})"
            return _Measured(query, f"# <= {entry.error_percent / 100:.12g}")
        case "request-volume":
            return _Measured(asked.rate(REQUESTS), f"# >= {fewest}")
        case "latency-p95" | "latency-p99" | "latency":
            return _latency(asked, entry, gate)
        case "cpu":
            return _Measured(asked.cpu(), f"# <= {entry.cpu_percent / 100:.12g}")
        case "memory":
            return _Measured(asked.memory(), f"# <= {entry.memory_percent / 100:.12g}")
        case "saturation":
            cpu, memory = f"{entry.cpu_percent / 100:.12g}", f"{entry.memory_percent / 100:.12g}"
            return _Measured(_greater(f"{asked.cpu()}\n/ {cpu}", f"{asked.memory()}\n/ {memory}"), "# <= 1")
        case "genai-success" | "llm-health" | "delivery-success":
            objective = (100.0 if entry.success_percent is None else entry.success_percent) / 100
            return _Measured(_success(asked, gate, objective), f"# >= {objective:.12g}")
        case "token-usage":
            query = f"{asked.rate('llm_tokens_total')}\n/ {asked.rate(REQUESTS)}"
            return _Measured(query, f"# <= {entry.tokens_per_request or 0:.12g}")
        case "lcp" | "inp" | "cls":
            limit = entry.web_vitals.limit(gate) if entry.web_vitals else 0
            return _Measured(asked.quantile(QUANTILE_OF_VITALS, VITALS[gate]), f"# < {limit:.12g}")


def _latency(asked: _Queries, entry: CanaryEntry, gate: Gate) -> _Measured:
    p95, p99 = (entry.latency.p95_seconds, entry.latency.p99_seconds) if entry.latency else (0.0, 0.0)
    if gate == "latency-p95":
        return _Measured(asked.quantile(0.95, LATENCY), f"# < {p95:.12g}")
    if gate == "latency-p99":
        return _Measured(asked.quantile(0.99, LATENCY), f"# < {p99:.12g}")
    shares = f"{asked.quantile(0.95, LATENCY)} / {p95:.12g}", f"{asked.quantile(0.99, LATENCY)} / {p99:.12g}"
    return _Measured(_greater(*shares), "# < 1")


def _success(asked: _Queries, gate: Gate, objective: float) -> str:
    metric = SUCCESS[gate][0]
    by = " by (platform) " if gate == "delivery-success" else ""
    query = f"1 - {asked.failed(metric, by)}\n/ clamp_min({asked.work(metric, by)}, {asked.floor(objective)})"
    if gate == "llm-health":
        return f"{query}\nand on() ({asked.rate(metric)} > 0)"
    return f"min(\n{textwrap.indent(query, '  ')}\n)" if by else query


def _greater(first: str, second: str) -> str:
    inner = f"{first},\nscalar(\n{textwrap.indent(second, '  ')}\n)"
    return f"clamp_min(\n{textwrap.indent(inner, '  ')}\n)"


@dataclass(frozen=True)
class _Queries:
    """Pieces of PromQL about the canary's pods of one service. `window` is that of the rates."""

    entry: CanaryEntry
    window: str
    window_s: float
    start_at_zero: bool

    @property
    def _pods(self) -> str:
        # A ReplicaSet of a Rollout is <rollout>-<hash>, and its pods add a random part.
        return f'pod=~"{self.entry.service}-{{{{args.{ARGUMENT}}}}}-.+"'

    def _selected(self, *more: str) -> str:
        return ", ".join((f'service="{self.entry.service}"', self._pods, *more))

    def _contained(self, *more: str) -> str:
        return ", ".join((f'container="{self.entry.service}"', self._pods, *more))

    def rate(self, metric: str, by: str = "", *more: str) -> str:
        """Per second, of all pods together."""
        return f"sum{by}(rate({metric}{{{self._selected(*more)}}}[{self.window}]))"

    def work(self, metric: str, by: str = "") -> str:
        """As `rate`; where series are born late, no series yet is no work yet."""
        return (
            self.rate(metric, by) if self.start_at_zero else f"({self.rate(metric, by)} or 0 * {self.rate(REQUESTS)})"
        )

    def failed(self, metric: str, by: str = "") -> str:
        """Failures per second, 0 where there is no failed series."""
        lines = f"{self.rate(metric, by, _FAILED)}\nor 0 * {self.work(metric, by)}"
        return f"(\n{textwrap.indent(lines, '  ')}\n)"

    def floor(self, objective: float) -> str:
        """Events per second that work is divided by at least."""
        return f"{_ONE_FAILURE_PASSES / (1 - objective) / self.window_s:.6g}"

    def quantile(self, share: float, histogram: str) -> str:
        buckets = f"rate({histogram}_bucket{{{self._selected()}}}[{self.window}])"
        return f"histogram_quantile({share:g}, sum by (le) ({buckets}))"

    def cpu(self) -> str:
        """Share of the CPU limit that the fullest pod uses."""
        used = f"rate(container_cpu_usage_seconds_total{{{self._contained()}}}[{self.window}])"
        return self._fullest(used, "cpu")

    def memory(self) -> str:
        return self._fullest(f"container_memory_working_set_bytes{{{self._contained()}}}", "memory")

    def _fullest(self, used: str, resource: str) -> str:
        selected = self._contained(f'resource="{resource}"')
        limit = f"kube_pod_container_resource_limits{{{selected}}}"
        return f"max(\n  sum by (namespace, pod) ({used})\n  / sum by (namespace, pod) ({limit})\n)"
