"""An analysis run: metrics measured over time, on a clock that the caller holds.

The controller of Argo Rollouts without Kubernetes: what is due, what a measurement changes, when the run is over. The
clock is seconds as a float and may run at any speed; nothing here waits, queries or reads the time. Not here: the
decisions themselves (`analysis.py`), and asking Prometheus.
Source of behaviour: argoproj/argo-rollouts 1.10.2, analysis/analysis.go. Unlike the controller's status, a run keeps all
its measurements, not the newest ten.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import analysis, conditions
from greenops_pipelines.slo.analysis import Counts, Last, Limits, Phase, Response

_FIELDS = (
    *("name", "interval", "initialDelay", "count", "failureLimit", "inconclusiveLimit", "consecutiveErrorLimit"),
    *("consecutiveSuccessLimit", "successCondition", "failureCondition", "provider"),
)
_TEXTS = ("interval", "initialDelay", "successCondition", "failureCondition")
_PROVIDERS = ("prometheus",)
_PROMETHEUS_FIELDS = ("address", "query", "rangeQuery", "timeout")
_RANGE_FIELDS = ("start", "end", "step")
_DEFAULT_TIMEOUT_SECONDS = 30
_INSTANT = re.compile(r"""\s*now\(\)((?:\s*[+-]\s*duration\(\s*(?:"[^"]*"|'[^']*')\s*\))*)\s*""")
_OFFSET = re.compile(r"""([+-])\s*duration\(\s*["']([^"']*)["']""")


@dataclass(frozen=True)
class RangeQuery:
    """Both ends in seconds from the moment of the query (0: now, negative: before), and the step in seconds."""

    start: float
    end: float
    step: float


@dataclass(frozen=True)
class Prometheus:
    """Where and what to ask. Without `range` an instant query."""

    address: str
    query: str
    timeout_seconds: int
    range: RangeQuery | None


@dataclass(frozen=True)
class Metric:
    """An entry of `spec.metrics`; conditions that are empty are not given."""

    name: str
    limits: Limits
    success: str
    failure: str
    prometheus: Prometheus

    @classmethod
    def from_document(cls, document: Mapping[str, Any], index: int = 0) -> Metric:
        """Raises `BadInput` in the words of Argo's own validation, or for a field or condition it would ignore."""
        where = f"metrics[{index}]"
        _only(document, _FIELDS, where)
        name = _text(document, "name", where)
        for key in _TEXTS:
            if not isinstance(document.get(key) or "", str):
                raise BadInput(f"{where}.{key}: found {document[key]!r:.80}, allowed: a text")
        for key in _FIELDS:
            if (key == "count" or key.endswith("Limit")) and document.get(key) is not None:
                _integer(document[key], f"{where}.{key}")
        _only(document.get("provider") or {}, _PROVIDERS, f"{where}.provider")
        if objection := analysis.validate_metric({"provider": None, **document}, index):
            raise BadInput(objection)
        success, failure = (document.get(key) or "" for key in _TEXTS[2:])
        for key, expression in (("successCondition", success), ("failureCondition", failure)):
            try:
                if expression:
                    conditions.compile(expression)
            except conditions.ConditionError as error:
                raise BadInput(f"{where}.{key}: found {expression[:200]!r}: {error}") from None
        return cls(name, Limits.of(document), success, failure, _prometheus(document["provider"], where))

    def respond(self, type: str, value: object) -> Response:  # noqa: A002
        """`analysis.process_response` with this metric's conditions."""
        return analysis.process_response(type, value, self.success, self.failure)


@dataclass(frozen=True)
class Measurement:
    """One taken value, as Argo shows it; empty when it is an Error, whose cause is `message`."""

    phase: Phase
    value: str
    message: str
    started: float
    finished: float


@dataclass(frozen=True)
class MetricResult:
    """What a metric has come to. Pending until its first measurement."""

    name: str
    phase: Phase = Phase.PENDING
    message: str = ""
    counts: Counts = field(default_factory=Counts)
    measurements: tuple[Measurement, ...] = ()


class AnalysisRun:
    """Ask what is `due`, take it, `record` it, `assess`; again at `next_at`, until `completed`."""

    def __init__(self, name: str, metrics: Sequence[Metric], started_at: float) -> None:
        if not metrics:
            raise BadInput("no metrics specified")
        names = [metric.name for metric in metrics]
        for index, metric in enumerate(names):
            if metric in names[:index]:
                raise BadInput(f"metrics[{index}]: duplicate name '{metric}'")
        self.name, self.metrics, self.started_at = name, tuple(metrics), started_at
        self.phase, self.message = Phase.RUNNING, ""
        self.completed_at: float | None = None
        self._results = {metric.name: MetricResult(metric.name) for metric in metrics}
        self._stopped = False

    @property
    def results(self) -> tuple[MetricResult, ...]:
        """In the order of the metrics."""
        return tuple(self._results.values())

    @property
    def completed(self) -> bool:
        return self.phase.completed

    @property
    def terminating(self) -> bool:
        """Stopped by the caller, or by a metric that ended badly."""
        ends = (Phase.FAILED, Phase.ERROR, Phase.INCONCLUSIVE)
        return self._stopped or any(result.phase in ends for result in self.results)

    def terminate(self) -> None:
        """No further measurements; the next `assess` ends the run with what is known."""
        self._stopped = True

    def due(self, now: float) -> tuple[Metric, ...]:
        """Metrics to measure now. The very end of a delay or an interval is due."""
        if self.completed or self.terminating:
            return ()
        return tuple(metric for metric in self._open() if (at := self._due_at(metric)) is not None and at <= now)

    def next_at(self, now: float) -> float | None:
        """The earliest time, from `now` on, at which something is due or the run can end; None when it is over."""
        if self.completed:
            return None
        if self.terminating:
            return now
        times = [at for metric in self._open() if (at := self._due_at(metric)) is not None]
        return max(now, min(times, default=now))

    def record(self, metric: Metric, started: float, finished: float, outcome: Response | str) -> bool:
        """A measurement that was taken; a text is the reason why it could not be.

        False, and nothing changed, when the metric or the run was already complete: a query may come back late.
        """
        if metric.name not in self._results:
            raise BadInput(f"run {self.name}: found metric {metric.name!r}, allowed: {', '.join(self._results)}")
        result = self._results[metric.name]
        if self.completed or result.phase.completed:
            return False
        if isinstance(outcome, str):
            outcome = Response(Phase.ERROR, "", outcome)
        shown = "" if outcome.phase is Phase.ERROR else outcome.str
        measurement = Measurement(outcome.phase, shown, outcome.message, started, finished)
        self._results[metric.name] = replace(
            result,
            phase=Phase.RUNNING,
            counts=result.counts.after(outcome.phase),
            measurements=(*result.measurements, measurement),
        )
        return True

    def assess(self, now: float) -> Phase:
        """The run's phase after what has been recorded; once completed it stays.

        A metric that ends badly ends the run: the others close with what they have. The controller needs a second
        pass for that, which its own status update starts at once; here both happen in one call.
        """
        while not self.completed:
            terminating = self.terminating
            self._assess(terminating)
            if terminating or not self.terminating:
                break
        if self.phase.completed and self.completed_at is None:
            self.completed_at = now
        return self.phase

    def _open(self) -> tuple[Metric, ...]:
        return tuple(metric for metric in self.metrics if not self._results[metric.name].phase.completed)

    def _due_at(self, metric: Metric) -> float | None:
        result = self._results[metric.name]
        newest = result.measurements[-1] if result.measurements else None
        last = Last(newest.phase, newest.finished) if newest else None
        return analysis.due_at(metric.limits, result.counts, last, self.started_at)

    def _assess(self, terminating: bool) -> None:
        worst, message = Phase.UNDECIDED, "Run Terminated" if self._stopped else ""
        everything_completed = True
        for metric in self.metrics:
            result = self._results[metric.name]
            if not result.measurements:
                everything_completed = False
                continue
            result = self._results[metric.name] = self._assessed(metric, result, terminating)
            if not result.phase.completed:
                everything_completed = False
            elif not worst or analysis.is_worse(worst, result.phase):
                worst = result.phase
                if cause := analysis.limit_passed(metric.limits, result.counts).message:
                    message = f'Metric "{metric.name}" assessed {worst} due to {cause}'
                    message += f': "Error Message: {result.message}"' if result.message else ""
        if terminating:
            self.phase, self.message = worst or Phase.SUCCESSFUL, message
        elif everything_completed and worst:
            self.phase, self.message = worst, message

    @staticmethod
    def _assessed(metric: Metric, result: MetricResult, terminating: bool) -> MetricResult:
        if result.phase.completed:
            return result
        newest = result.measurements[-1]
        phase = analysis.metric_phase(metric.limits, result.counts, newest.phase, terminating)
        return replace(result, phase=phase, message=newest.message if phase is not result.phase else result.message)


def _only(document: object, allowed: Sequence[str], where: str) -> None:
    if not isinstance(document, Mapping):
        raise BadInput(f"{where}: found {document!r:.80}, allowed: a mapping")
    if unknown := [str(key) for key in document if key not in allowed]:
        raise BadInput(f"{where}: found {', '.join(unknown)}, allowed: {', '.join(allowed)}")


def _text(document: Mapping[str, Any], key: str, where: str) -> str:
    value = document.get(key)
    if isinstance(value, str) and value.strip():
        return value
    raise BadInput(f"{where}.{key}: found {value!r:.80}, allowed: a text that is not empty")


def _integer(value: object, where: str) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if (whole or isinstance(value, str)) and re.fullmatch(r"-?[0-9]{1,9}", str(value), re.ASCII):
        return int(str(value))
    raise BadInput(f"{where}: found {value!r:.80}, allowed: a whole number of at most 9 digits")


def _prometheus(provider: Mapping[str, Any], where: str) -> Prometheus:
    document, where = provider["prometheus"], f"{where}.provider.prometheus"
    _only(document, _PROMETHEUS_FIELDS, where)
    timeout = _integer(document.get("timeout", _DEFAULT_TIMEOUT_SECONDS), f"{where}.timeout")
    if timeout < 0:
        raise BadInput(f"{where}.timeout: prometheus timeout should not be negative")
    address, query = _text(document, "address", where), _text(document, "query", where)
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/]+\S*", address):
        raise BadInput(f"{where}.address: prometheus address is not is url format, found {address[:80]!r}")
    return Prometheus(address, query, timeout, _range(document.get("rangeQuery"), f"{where}.rangeQuery"))


def _range(document: Any, where: str) -> RangeQuery | None:
    if document is None:
        return None
    _only(document, _RANGE_FIELDS, where)
    ends = []
    for key in ("start", "end"):
        expression = _text(document, key, where)
        match = _INSTANT.fullmatch(expression)
        if match is None:
            allowed = 'now() and now() - duration("1m")'
            raise BadInput(f"{where}.{key}: found {expression[:80]!r}, allowed: {allowed}")
        offsets = _OFFSET.findall(match[1])
        ends.append(
            sum(_seconds(text, f"{where}.{key} as time") * (-1 if sign == "-" else 1) for sign, text in offsets)
        )
    step = _seconds(_text(document, "step", where), f"{where}.step as duration")
    if step <= 0 or ends[0] > ends[1]:
        raise BadInput(f"{where}: found {dict(document)!r:.200}, allowed: a step above 0 and a start before the end")
    return RangeQuery(float(ends[0]), float(ends[1]), step)


def _seconds(text: str, where: str) -> float:
    try:
        return analysis.seconds(text)
    except BadInput as error:
        raise BadInput(f"failed to parse {where}: {error}") from None
