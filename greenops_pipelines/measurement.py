"""What a check measured: the one shape shared by asset checks, the lake's `check_results` and the scorecard."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Comparison = Literal[">=", "<=", "=="]
Outcome = Literal["passed", "failed", "cannot be measured"]

_COMPARE: Mapping[Comparison, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Measurement:
    """One figure against its target.

    `check` is "<asset key>:<check name>". `measured` is None only where nothing could be measured; then
    `missing` names what is missing. `figures` are further numbers a person wants to see beside it.
    """

    check: str
    measured: float | None
    target: float
    comparison: Comparison
    unit: str
    detail: str
    missing: str | None = None
    figures: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        if self.measured is None:
            return "cannot be measured"
        return "passed" if _COMPARE[self.comparison](self.measured, self.target) else "failed"
