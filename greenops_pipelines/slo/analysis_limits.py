"""A metric's limits as an AnalysisTemplate spells them: whole numbers, Go durations, and Argo's defaults.

Not here: what a limit decides (`analysis.py`), and which of them contradict each other (`analysis_validation.py`).
Source of behaviour: argoproj/argo-rollouts 1.10.2, pkg/apis/rollouts/v1alpha1/analysis_types.go and utils/defaults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from greenops_pipelines.errors import BadInput

DEFAULT_CONSECUTIVE_ERROR_LIMIT = 4

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


def whole(value: object) -> int:
    """Kubernetes' IntOrString: a text that is no number, and null, count as 0. `BadInput` for what is neither."""
    if value is None:
        return 0
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[+-]?[0-9]{1,18}", value, re.ASCII) else 0
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise BadInput(f"limit: found {value!r:.80}, allowed: a whole number, or one as a text")


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
            count=whole(metric.get("count")) or (None if interval else 1),
            failure=whole(metric.get("failureLimit")),
            inconclusive=whole(metric.get("inconclusiveLimit")),
            consecutive_error=DEFAULT_CONSECUTIVE_ERROR_LIMIT if errors is None else whole(errors),
            consecutive_success=whole(metric.get("consecutiveSuccessLimit")),
            interval=interval,
            initial_delay=str(metric.get("initialDelay") or ""),
        )
