"""What Argo Rollouts objects to in the metrics of an AnalysisTemplate, in its words.

Not here: what is refused beyond that before a run starts (`analysis_run.py`).
Source of behaviour: argoproj/argo-rollouts 1.10.2, utils/analysis/factory.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.analysis_limits import Limits, seconds, whole


def validate_metric(metric: Mapping[str, Any] | None, index: int = 0) -> str | None:
    """`ValidateMetric`'s objection, or None. A metric that does not mention `provider` is taken to have one.

    None is no metric at all. Any name counts as a provider: which there are differs between versions of Argo.
    """
    if metric is None:
        return validate_metrics([])
    objection = _objection(metric)
    return objection and f"metrics[{index}]: {objection}"


def validate_metrics(metrics: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None) -> str | None:
    """`ValidateMetrics`: each in turn, and each name once. One metric may stand without its list."""
    if isinstance(metrics, Mapping):
        return validate_metric(metrics)
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
    count, limits = whole(metric.get("count")), Limits.of(metric)
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
    provider = metric["provider"] or {}
    if not isinstance(provider, Mapping):
        raise BadInput(f"provider: found {provider!r:.80}, allowed: a mapping")
    given = {name: value for name, value in provider.items() if value is not None}
    number = len(given) - ("plugin" in given) + len(given.get("plugin", ()))
    return None if number == 1 else "no provider specified" if number == 0 else "multiple providers specified"
