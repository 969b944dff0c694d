"""What Argo Rollouts decides about a metric: the phase of a measurement, of a metric, and whether to measure again.

Pure functions over plain mappings, as an AnalysisTemplate and an AnalysisRun's status spell them. Not here: the
expressions (`conditions.py`), and a run that keeps count and time (`analysis_run.py`).
Source of behaviour: argoproj/argo-rollouts 1.10.2, analysis/analysis.go, utils/analysis/factory.go,
utils/evaluate/evaluate.go, metricproviders/prometheus/prometheus.go. 1.8.3 decides the same, with two exceptions: an
evaluation error does not name its condition, and a terminating run waits for `resumeAt`.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import conditions

DEFAULT_ERROR_RETRY_SECONDS = 10
"""A measurement that could not be taken is tried again so soon, whatever the interval."""
DEFAULT_CONSECUTIVE_ERROR_LIMIT = 4


class Phase(StrEnum):
    """`UNDECIDED` is Go's empty phase: no limit has been passed."""

    UNDECIDED = ""
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    ERROR = "Error"
    INCONCLUSIVE = "Inconclusive"

    @property
    def completed(self) -> bool:
        return self in (Phase.SUCCESSFUL, Phase.FAILED, Phase.ERROR, Phase.INCONCLUSIVE)


_BEST_TO_WORST = (
    Phase.SUCCESSFUL,
    Phase.RUNNING,
    Phase.PENDING,
    Phase.INCONCLUSIVE,
    Phase.ERROR,
    Phase.FAILED,
)


def is_worse(current: Phase, new: Phase) -> bool:
    """Of two metrics the Failed one decides a run, although within one metric Error overrides Failed."""
    return _BEST_TO_WORST.index(new) > _BEST_TO_WORST.index(current)


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_AMOUNT = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)", re.ASCII)


def seconds(text: str) -> float:
    """A Go duration (`1m30s`, `1.5s`, `500ms`, `0`) in seconds. Raises `BadInput` in Go's words."""
    invalid = BadInput(f'time: invalid duration "{text}"')
    sign, rest = (-1 if text[:1] == "-" else 1), text[text[:1] in ("+", "-") :]
    if rest == "0":
        return 0.0
    if not rest:
        raise invalid
    total, at = 0.0, 0
    while at < len(rest):
        match = _AMOUNT.match(rest, at)
        if match is None:
            raise invalid
        amount, unit = match.groups()
        if not unit:
            raise BadInput(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise BadInput(f'time: unknown unit "{unit}" in duration "{text}"')
        total, at = total + float(amount) * _UNITS[unit], match.end()
    if total >= 2**63 / 1e9:
        raise invalid
    return sign * total


def _whole(value: object) -> int:
    """Kubernetes' IntOrString: a text that is no number counts as 0."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[+-]?[0-9]{1,18}", value, re.ASCII) else 0
    return int(value) if isinstance(value, int) else 0


@dataclass(frozen=True)
class Limits:
    """When a metric ends, with Argo's defaults filled in. A negative `failure` and a `success` of 0 are disabled."""

    count: int | None
    """Measurements that end the metric; None: it runs until stopped."""
    failure: int
    inconclusive: int
    consecutive_error: int
    consecutive_success: int
    interval: str
    initial_delay: str

    @classmethod
    def of(cls, metric: Mapping[str, object]) -> Limits:
        """From an entry of `spec.metrics`. Without count and interval a metric is measured once."""
        interval = str(metric.get("interval") or "")
        errors = metric.get("consecutiveErrorLimit")
        return cls(
            count=_whole(metric.get("count")) or (None if interval else 1),
            failure=_whole(metric.get("failureLimit")),
            inconclusive=_whole(metric.get("inconclusiveLimit")),
            consecutive_error=DEFAULT_CONSECUTIVE_ERROR_LIMIT if errors is None else _whole(errors),
            consecutive_success=_whole(metric.get("consecutiveSuccessLimit")),
            interval=interval,
            initial_delay=str(metric.get("initialDelay") or ""),
        )


@dataclass(frozen=True)
class Counts:
    """Of a metric's measurements so far. `count` leaves errors out."""

    successful: int = 0
    failed: int = 0
    inconclusive: int = 0
    error: int = 0
    count: int = 0
    consecutive_error: int = 0
    consecutive_success: int = 0

    def after(self, phase: Phase) -> Counts:
        """With one more completed measurement."""
        failed = phase is Phase.ERROR
        return Counts(
            successful=self.successful + (phase is Phase.SUCCESSFUL),
            failed=self.failed + (phase is Phase.FAILED),
            inconclusive=self.inconclusive + (phase is Phase.INCONCLUSIVE),
            error=self.error + failed,
            count=self.count + (not failed),
            consecutive_error=self.consecutive_error + 1 if failed else 0,
            consecutive_success=self.consecutive_success + 1 if phase is Phase.SUCCESSFUL else 0,
        )


class Passed(NamedTuple):
    """The limit that was passed, if any."""

    phase: Phase
    message: str


def limit_passed(limits: Limits, counts: Counts) -> Passed:
    """Several at once: Error over Inconclusive over Failed."""
    if counts.consecutive_error > limits.consecutive_error:
        text = f"consecutiveErrors ({counts.consecutive_error}) > consecutiveErrorLimit ({limits.consecutive_error})"
        return Passed(Phase.ERROR, text)
    if counts.inconclusive > limits.inconclusive:
        text = f"inconclusive ({counts.inconclusive}) > inconclusiveLimit ({limits.inconclusive})"
        return Passed(Phase.INCONCLUSIVE, text)
    if 0 <= limits.failure < counts.failed:
        return Passed(Phase.FAILED, f"failed ({counts.failed}) > failureLimit ({limits.failure})")
    return Passed(Phase.UNDECIDED, "")


def metric_phase(limits: Limits, counts: Counts, last: Phase | None, terminating: bool) -> Phase:
    """Of a metric not yet complete. `last` is the phase of its newest measurement, None before the first."""
    if last is None:
        return Phase.SUCCESSFUL if terminating else Phase.PENDING
    if not last.completed:
        return Phase.RUNNING
    if passed := limit_passed(limits, counts).phase:
        return passed
    wants_successes = limits.consecutive_success > 0
    if wants_successes and counts.consecutive_success >= limits.consecutive_success:
        return Phase.SUCCESSFUL
    if limits.count is not None and counts.count >= limits.count:
        if not wants_successes:
            return Phase.SUCCESSFUL
        return Phase.FAILED if limits.failure < 0 else Phase.INCONCLUSIVE
    return Phase.SUCCESSFUL if terminating else Phase.RUNNING


def _counts(result: Mapping[str, object]) -> Counts:
    return Counts(
        successful=_whole(result.get("successful")),
        failed=_whole(result.get("failed")),
        inconclusive=_whole(result.get("inconclusive")),
        error=_whole(result.get("error")),
        count=_whole(result.get("count")),
        consecutive_error=_whole(result.get("consecutiveError")),
        consecutive_success=_whole(result.get("consecutiveSuccess")),
    )


def _last_phase(result: Mapping[str, object]) -> Phase | None:
    """Counts without a word about measurements mean a completed one; its kind decides nothing."""
    stated = result.get("lastPhase")
    some = stated is not None or any(vars(_counts(result)).values())
    if not _whole(result.get("measurements", int(some))):
        return None
    return Phase.SUCCESSFUL if stated is None else Phase(str(stated))


def assess_metric_status(
    metric: Mapping[str, object], result: Mapping[str, object], terminating: bool = False
) -> Phase:
    """`assessMetricStatus`. `result`: the counts, `lastPhase`, `measurements` (how many), `phase` if already decided."""
    decided = Phase(str(result.get("phase") or ""))
    if decided.completed:
        return decided
    return metric_phase(Limits.of(metric), _counts(result), _last_phase(result), terminating)


def assess_failure_inconclusive_error(metric: Mapping[str, object], result: Mapping[str, object]) -> Passed:
    """`assessMetricFailureInconclusiveOrError`."""
    return limit_passed(Limits.of(metric), _counts(result))


class Evaluation(NamedTuple):
    """`message` is empty unless the phase is Error."""

    phase: Phase
    message: str


def evaluate(success: str, failure: str, result: object = None) -> Evaluation:
    """What the conditions, empty where not given, make of one result."""
    holds = {}
    for name, expression in (("successCondition", success), ("failureCondition", failure)):
        try:
            holds[name] = bool(expression) and conditions.compile(expression).evaluate(result)
        except conditions.ConditionError as error:
            empty = result is None or (isinstance(result, Sequence) and not isinstance(result, str) and not result)
            nothing = "metric result is nil or empty: no data returned from the metric provider"
            why = nothing if empty else str(error)
            return Evaluation(Phase.ERROR, f'could not evaluate {name} "{expression}": {why}')
    good, bad = holds["successCondition"], holds["failureCondition"]
    if bad or (success and not failure and not good):
        return Evaluation(Phase.FAILED, "")
    return Evaluation(Phase.SUCCESSFUL if good or not success else Phase.INCONCLUSIVE, "")


def evaluate_result(success: str, failure: str, result: object = None) -> Phase:
    """`EvaluateResult`."""
    return evaluate(success, failure, result).phase


class Response(NamedTuple):
    """A measurement's phase, the value as Argo shows it, and why it is an Error."""

    phase: Phase
    str: builtins.str
    message: builtins.str


def process_response(type: str, value: object, success: str, failure: str) -> Response:  # noqa: A002
    """`processResponse`: what a Prometheus answer of this type makes of a measurement.

    `value`: scalar a number, vector the samples' numbers, matrix a list of numbers per series, which Argo strings
    together. A number is also what the HTTP API writes: "0.5", "NaN", "+Inf". `nil` is no answer at all: the
    conditions are asked first, since their message names the condition. Raises `BadInput` for a value that is none.
    """
    if type == "scalar":
        number = _number(value)
        evaluation = evaluate(success, failure, number)
        return Response(evaluation.phase, conditions.sample_text(number), evaluation.message)
    if type in ("vector", "matrix"):
        numbers = list(_samples(value))
        evaluation = evaluate(success, failure, numbers)
        shown = ",".join(map(conditions.sample_text, numbers))
        return Response(evaluation.phase, f"[{shown}]", evaluation.message)
    evaluation = evaluate(success, failure, None) if value is None else Evaluation(Phase.ERROR, "")
    return Response(Phase.ERROR, "", evaluation.message or "Prometheus metric type not supported")


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?(Inf|([0-9]+[.]?[0-9]*|[.][0-9]+)(e[+-]?[0-9]+)?)|NaN", value):
        return float(value)
    raise BadInput(f"sample: found {value!r}, allowed: a number, NaN, +Inf or -Inf")


def _samples(value: object) -> Iterator[float]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadInput(f"samples: found {value!r}, allowed: a list")
    for item in value:
        if isinstance(item, Sequence) and not isinstance(item, str):
            yield from map(_number, item)
        else:
            yield _number(item)


def validate_metric(metric: Mapping[str, Any], index: int = 0) -> str | None:
    """`ValidateMetric`'s objection, or None. A metric that does not mention `provider` is taken to have one."""
    objection = _objection(metric)
    return objection and f"metrics[{index}]: {objection}"


def validate_metrics(metrics: Sequence[Mapping[str, Any]]) -> str | None:
    """`ValidateMetrics`: each in turn, and each name once."""
    if not metrics:
        return "no metrics specified"
    names = [str(metric.get("name", "")) for metric in metrics]
    for index, metric in enumerate(metrics):
        if names[index] in names[:index]:
            return f"metrics[{index}]: duplicate name '{names[index]}'"
        if objection := validate_metric(metric, index):
            return objection
    return None


def _objection(metric: Mapping[str, Any]) -> str | None:
    count, limits = _whole(metric.get("count")), Limits.of(metric)
    failure, success = limits.failure, limits.consecutive_success
    checks = (
        (success < 0, "consecutiveSuccessLimit must be >= 0"),
        (failure < -1, "failureLimit must be >= 0, or -1 to be disabled"),
        (success == 0 and failure == -1, "failureLimit and consecutiveSuccessLimit cannot both be disabled"),
        (limits.inconclusive < 0, "inconclusiveLimit must be >= 0"),
        (limits.consecutive_error < 0, "consecutiveErrorLimit must be >= 0"),
        (
            0 < count < failure + success and failure >= 0,
            f"count ({count}) must be >= failureLimit + consecutiveSuccessLimit ({failure} + {success}) if both >= 0",
        ),
        (0 < count < success, "count must be >= consecutiveSuccessLimit"),
        (0 < count < limits.inconclusive, "count must be >= inconclusiveLimit"),
        (count > 1 and not limits.interval, "interval must be specified when count > 1"),
    )
    for wrong, objection in checks:
        if wrong:
            return objection
    for name, text in (("interval", limits.interval), ("startDelay", limits.initial_delay)):
        try:
            seconds(text or "0")
        except BadInput as error:
            return f"invalid {name} string: {error}"
    return _provider_objection(metric)


def _provider_objection(metric: Mapping[str, Any]) -> str | None:
    if "provider" not in metric:
        return None
    given = {name: value for name, value in (metric["provider"] or {}).items() if value is not None}
    number = len(given) - ("plugin" in given) + len(given.get("plugin", ()))
    return None if number == 1 else "no provider specified" if number == 0 else "multiple providers specified"


@dataclass(frozen=True)
class Last:
    """A metric's newest measurement, on the caller's clock in seconds."""

    phase: Phase
    finished: float | None
    """None: still in flight."""
    resume: float | None = None


def due_at(limits: Limits, counts: Counts, last: Last | None, started: float | None) -> float | None:
    """When a metric that is not complete is to be measured next, in seconds; None: not again, or not known.

    `started` is when the run started. A delay or an interval that does not parse is never due, as in the controller.
    """
    try:
        if last is None:
            delay = seconds(limits.initial_delay or "0")
            return started + delay if started is not None else None if limits.initial_delay else float("-inf")
        if last.finished is None:
            return float("-inf") if last.resume is None else last.resume
        if limits.count is not None and counts.count >= limits.count:
            return None
        if last.phase is Phase.ERROR or not limits.interval:
            return last.finished + DEFAULT_ERROR_RETRY_SECONDS
        return last.finished + seconds(limits.interval)
    except BadInput:
        return None


def is_due(
    limits: Limits, counts: Counts, last: Last | None, started: float | None, now: float, terminating: bool
) -> bool:
    """Whether to measure, or to go on measuring, now. A run that is terminating only ends what is in flight."""
    if terminating:
        return last is not None and last.finished is None
    at = due_at(limits, counts, last, started)
    return at is not None and at <= now


def generate_tasks(
    name: str = "",
    metric: Mapping[str, object] | None = None,
    last: Mapping[str, Any] | None = None,
    startedAgo: float | None = None,  # noqa: N803  (the fields of a case, as they are written)
    count: int | None = None,
    phase: str = "",
    siblings: Sequence[str] = (),
    terminating: bool = False,
) -> int:
    """`generateMetricTasks` for one metric: how many measurements to take now, 0 or 1. Times in seconds.

    `last`: `phase`, `finishedAgo` (null: in flight), `resumeAgo` or `resumeIn`. `count` defaults to 1 after a
    completed measurement that was no error. `phase` is the metric's own, `siblings` are those of the run's other
    metrics, one of which may have ended it. Without a metric there is nothing to measure; `name` is for the reader.
    """
    del name
    if metric is None or Phase(phase).completed:
        return 0
    ended = terminating or any(Phase(other) in (Phase.FAILED, Phase.ERROR, Phase.INCONCLUSIVE) for other in siblings)
    newest, counts = None, Counts()
    if last is not None:
        ago, resume = last.get("finishedAgo"), last.get("resumeIn")
        resume = -last["resumeAgo"] if last.get("resumeAgo") is not None else resume
        newest = Last(Phase(last["phase"]), None if ago is None else -ago, resume)
        counts = counts.after(newest.phase) if ago is not None else counts
    if count is not None:
        counts = Counts(count=count)
    started = None if startedAgo is None else -startedAgo
    return int(is_due(Limits.of(metric), counts, newest, started, 0.0, ended))
