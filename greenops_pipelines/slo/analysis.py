"""What Argo Rollouts decides about a metric: its phase after some measurements, and whether to measure again.

Pure functions over plain mappings, as an AnalysisTemplate and an AnalysisRun's status spell them. Not here: one
measurement (`analysis_measurement.py`), and a run that keeps count and time (`analysis_run.py`).
Source of behaviour: argoproj/argo-rollouts 1.10.2, analysis/analysis.go. 1.8.3 decides the same, except that a terminating
run waits for `resumeAt`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.analysis_limits import Limits, seconds, whole
from greenops_pipelines.slo.analysis_measurement import (
    Evaluation,
    Phase,
    Response,
    evaluate,
    evaluate_result,
    process_response,
)
from greenops_pipelines.slo.analysis_validation import validate_metric, validate_metrics

__all__ = [
    "DEFAULT_ERROR_RETRY_SECONDS",
    "Counts",
    "Evaluation",
    "Last",
    "Limits",
    "Passed",
    "Phase",
    "Response",
    "assess_failure_inconclusive_error",
    "assess_metric_status",
    "due_at",
    "evaluate",
    "evaluate_result",
    "generate_tasks",
    "is_due",
    "is_worse",
    "limit_passed",
    "metric_phase",
    "process_response",
    "seconds",
    "validate_metric",
    "validate_metrics",
]

DEFAULT_ERROR_RETRY_SECONDS = 10
"""A measurement that could not be taken is tried again so soon, whatever the interval."""


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
        successful=whole(result.get("successful")),
        failed=whole(result.get("failed")),
        inconclusive=whole(result.get("inconclusive")),
        error=whole(result.get("error")),
        count=whole(result.get("count")),
        consecutive_error=whole(result.get("consecutiveError")),
        consecutive_success=whole(result.get("consecutiveSuccess")),
    )


def _last_phase(result: Mapping[str, object]) -> Phase | None:
    """Counts without a word about measurements mean a completed one; its kind decides nothing."""
    stated, taken = result.get("lastPhase"), result.get("measurements")
    if isinstance(taken, Sequence) and not isinstance(taken, str):
        if taken and stated is None:
            stated = taken[-1].get("phase") or ""
        taken = len(taken)
    elif taken is None:
        taken = int(stated is not None or any(vars(_counts(result)).values()))
    if not whole(taken):
        return None
    return Phase.SUCCESSFUL if stated is None else Phase(str(stated))


def assess_metric_status(
    metric: Mapping[str, object], result: Mapping[str, object], terminating: bool = False
) -> Phase:
    """`assessMetricStatus`. `result`: the counts, `lastPhase`, `measurements`, `phase` if already decided.

    `measurements` is how many there were, or a list of them as a run's status has it.
    """
    decided = Phase(str(result.get("phase") or ""))
    if decided.completed:
        return decided
    return metric_phase(Limits.of(metric), _counts(result), _last_phase(result), terminating)


def assess_failure_inconclusive_error(metric: Mapping[str, object], result: Mapping[str, object]) -> Passed:
    """`assessMetricFailureInconclusiveOrError`."""
    return limit_passed(Limits.of(metric), _counts(result))


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
    result: Mapping[str, object] | None = None,
) -> int:
    """`generateMetricTasks` for one metric: how many measurements to take now, 0 or 1. Times in seconds.

    `last`: `phase`, `finishedAgo` (null: in flight), `resumeAgo` or `resumeIn`. `count`, which `result` may hold too,
    defaults to 1 after a completed measurement that was no error. `phase`, likewise, is the metric's own, `siblings`
    are those of the run's other metrics, one of which may have ended it. Without a metric there is nothing to measure;
    `name` is for the reader.
    """
    del name
    stated = result or {}
    count = whole(stated["count"]) if count is None and stated.get("count") is not None else count
    if metric is None or Phase(phase or str(stated.get("phase") or "")).completed:
        return 0
    ended = terminating or any(Phase(other) in (Phase.FAILED, Phase.ERROR, Phase.INCONCLUSIVE) for other in siblings)
    newest, counts = None, Counts()
    if last is not None:
        ago, resume = last.get("finishedAgo"), last.get("resumeIn")
        resume = -last["resumeAgo"] if last.get("resumeAgo") is not None else resume
        newest = Last(
            Phase(last.get("phase", Phase.RUNNING if ago is None else Phase.SUCCESSFUL)),
            None if ago is None else -ago,
            resume,
        )
        counts = counts.after(newest.phase) if ago is not None else counts
    if count is not None:
        counts = Counts(count=count)
    started = None if startedAgo is None else -startedAgo
    return int(is_due(Limits.of(metric), counts, newest, started, 0.0, ended))
