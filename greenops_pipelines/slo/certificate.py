"""What a pair of alert windows is worth: what is burnt before it fires, when it fires, when it stops. In closed form.

    burn = error ratio / (1 - SLO)        threshold = factor x (1 - SLO)
    budget spent at firing = factor x long window / period
    detection = longer window x threshold / error ratio       counted from the first error
    reset     = shorter window x (1 - threshold / error ratio)  counted from the last error

for traffic that is constant, and an error ratio that steps up from zero and back. The longer window is the last to rise
above the threshold and the shorter one the first to fall below it; the reset is the same for every outage that was long
enough to fire the alert, because it depends only on when its last errors leave the window. A burn that equals the factor
does not fire: rules compare with `>`. Source: SRE Workbook, "Alerting on SLOs".

Rules see this through a clock: ratios are recorded once per evaluation, and alerts read what was recorded, so each time
is up to `Certificate.lag` later, plus one scrape.

Not here: the numerical confirmation (`simulation.py`) and Prometheus' own (`rule_tests.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from greenops_pipelines.errors import BadInput, ConfigurationError
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.windows import Window, Windows

SEVERITIES = ("page", "ticket")
ERROR_PERCENTS = (100.0, 10.0, 2.0, 1.0, 0.5)
_SAME = 1e-9
"""Ratios that differ by less are the same: which side of an exact threshold a rule sees is left to rounding."""


@dataclass(frozen=True)
class Timing:
    """When an alert fires and stops at one error rate. All None where it never fires; reset None as well then."""

    error_percent: float
    detection: timedelta | None
    reset: timedelta | None
    spent_percent: float | None
    """Of the period's budget, between the first error and the firing."""


@dataclass(frozen=True)
class Pair:
    """One pair of windows. `threshold` is an error ratio, `budget_percent` what is spent before it fires."""

    severity: str
    short: timedelta
    long: timedelta
    factor: float
    threshold: float
    budget_percent: float
    timings: tuple[Timing, ...]

    @property
    def is_reachable(self) -> bool:
        """Whether any error ratio up to 1 is above the threshold."""
        return self.threshold < 1 - _SAME


@dataclass(frozen=True)
class Severity:
    """One alert: it holds while any of its pairs does, so it fires with the first and stops with the last of them."""

    name: str
    pairs: tuple[Pair, ...]
    timings: tuple[Timing, ...]


@dataclass(frozen=True)
class BlindBand:
    """Steady burns in (above, up_to] spend more than the whole budget, and no alert ever says so.

    `exhausted_after` is how soon at the upper end. A burn of 1 or less is no blind band: it stays within the budget.
    """

    above: float
    up_to: float
    exhausted_after: timedelta


@dataclass(frozen=True)
class Certificate:
    """All figures for one objective, a percentage, and one set of windows. `budget` is the error ratio allowed."""

    objective: float
    windows: Windows
    evaluation: timedelta
    budget: float
    severities: tuple[Severity, ...]
    blind: tuple[BlindBand, ...]
    profile: str = ""

    @property
    def highest_burn(self) -> float:
        """The burn of a complete outage."""
        return 1 / self.budget

    @property
    def lag(self) -> timedelta:
        """What evaluation adds at most: one interval until the ratio is recorded, one until the alert reads it."""
        return 2 * self.evaluation

    def as_document(self) -> dict[str, Any]:
        """Plain values for JSON: percentages, ratios, seconds; null where an alert never fires."""
        return {
            "profile": self.profile or None,
            "objective_percent": self.objective,
            "period_seconds": self.windows.period.total_seconds(),
            "error_budget_ratio": _digits(self.budget),
            "highest_burn": _digits(self.highest_burn),
            "evaluation_seconds": self.evaluation.total_seconds(),
            "lag_seconds": self.lag.total_seconds(),
            "alerts": [
                {
                    "severity": severity.name,
                    "timings": [_timing_document(timing) for timing in severity.timings],
                    "pairs": [_pair_document(pair) for pair in severity.pairs],
                }
                for severity in self.severities
            ],
            "blind_bands": [
                {
                    "burn_above": band.above,
                    "burn_up_to": _digits(band.up_to),
                    "budget_exhausted_after_seconds": band.exhausted_after.total_seconds(),
                }
                for band in self.blind
            ],
        }


def certify(
    objective: float,
    windows: Windows,
    evaluation: timedelta = timedelta(minutes=1),
    *,
    profile: str = "",
    severities: Sequence[str] = SEVERITIES,
) -> Certificate:
    """The certificate of an objective (a percentage) under these windows; `profile` is only a name to print.

    `severities` are the alerts that exist: one that is disabled widens the blind band. `evaluation` is the interval of
    the rules, Prometheus' default of 1 minute. `BadInput` for an objective outside (0, 100): at 100 there is no budget.
    """
    if not 0 < objective < 100:
        why = "; at 100 there is no error budget to burn" if objective == 100 else ""
        raise BadInput(f"objective: found {objective:g}, allowed: a percentage above 0 and below 100{why}")
    budget = (100 - objective) / 100
    alerts = tuple(_severity(name, windows, budget) for name in SEVERITIES if name in severities)
    return Certificate(objective, windows, evaluation, budget, alerts, _blind(alerts, budget, windows.period), profile)


def timing(pairs: Iterable[Pair], error_percent: float, budget: float, period: timedelta) -> Timing:
    """When the alert made of these pairs fires and stops at an error rate; any rate, also one not in the certificate."""
    found = [
        (max(pair.short, pair.long) * share, min(pair.short, pair.long) * (1 - share))
        for pair in pairs
        if (share := pair.threshold / (error_percent / 100)) < 1 - _SAME
    ]
    if not found:
        return Timing(error_percent, None, None, None)
    detection = min(detection for detection, _ in found)
    spent_percent = error_percent / budget * (detection / period)
    return Timing(error_percent, detection, max(reset for _, reset in found), spent_percent)


def confirm_declared(declared_percent: float, derived_percent: float, acknowledged: str | None, where: str) -> None:
    """Refuses a budget that was declared and is not the one the windows give, unless somebody wrote down why.

    `where` is file and field. Percentages agree to a thousandth of the derived one.
    """
    if math.isclose(declared_percent, derived_percent, rel_tol=1e-3) or (acknowledged or "").strip():
        return
    raise ConfigurationError(
        f"{where}: found a declared budget of {declared_percent:g} %, allowed: {derived_percent:g} %, which is what the "
        f"factor and the long window give (factor x long window / period), or an acknowledgement of the difference"
    )


def words(certificate: Certificate, beside: Certificate | None = None) -> list[str]:
    """The certificate in sentences for a person; the figures of `beside` follow in brackets where it has that alert."""
    other = {severity.name: severity for severity in beside.severities} if beside else {}
    beside_name = (beside.profile or "the other") if beside else ""
    period = f"{certificate.windows.period / timedelta(days=1):g}-day"
    said = []
    for severity in certificate.severities:
        name = severity.name
        for pair in severity.pairs:
            if not pair.is_reachable:
                said.append(
                    f"{name}: {pair.factor:g}x over {_windows(pair)} never fires at an objective of "
                    f"{certificate.objective:g} %: a complete outage burns {certificate.highest_burn:g}x."
                )
        if severity.timings[0].detection is None:
            continue
        spent, reset = _spent(severity), _kept(severity)
        if twin := other.get(name):
            spent += f" ({beside_name}: {_spent(twin)})"
            reset += f" ({beside_name}: {_kept(twin)})"
        said.append(
            f"{name}: {spent} of the {period} budget is gone before it fires, "
            f"and it keeps firing {reset} after a complete outage."
        )
        said.append(f"{name}: {_detections(severity)}.")
    for band in certificate.blind:
        said.append(
            f"blind: a steady burn above {band.above:g}x and up to {band.up_to:g}x never alerts, and spends the whole "
            f"budget, at {band.up_to:g}x in {band.exhausted_after / timedelta(days=1):.3g} days; "
            "a burn of 1x or less stays within the budget."
        )
    if not certificate.blind:
        said.append("blind: no burn above 1x goes without an alert.")
    return said


def minutes(duration: timedelta, *, up: bool) -> str:
    """Whole minutes; from 90 of them, hours. A detection is rounded up and a reset down, as a clock of minutes sees."""
    exact = round(duration / timedelta(minutes=1), 6)
    whole = math.ceil(exact) if up else math.floor(exact)
    return f"{whole} min" if whole < 90 else f"{whole / 60:.2f}".rstrip("0").rstrip(".") + " h"


def _severity(name: str, windows: Windows, budget: float) -> Severity:
    quick, slow = (
        (windows.page_quick, windows.page_slow) if name == "page" else (windows.ticket_quick, windows.ticket_slow)
    )
    pairs = tuple(_pair(name, window, windows.period, budget) for window in dict.fromkeys((quick, slow)))
    return Severity(name, pairs, tuple(timing(pairs, percent, budget, windows.period) for percent in ERROR_PERCENTS))


def _pair(severity: str, window: Window, period: timedelta, budget: float) -> Pair:
    factor = window.factor(period)
    bare = Pair(severity, window.short, window.long, factor, factor * budget, factor * (window.long / period) * 100, ())
    timings = tuple(timing([bare], percent, budget, period) for percent in ERROR_PERCENTS)
    return Pair(severity, bare.short, bare.long, factor, bare.threshold, bare.budget_percent, timings)


def _blind(alerts: Sequence[Severity], budget: float, period: timedelta) -> tuple[BlindBand, ...]:
    """At a steady burn the lowest factor decides. No burn can be above 1 / budget, so nothing is missed beyond that."""
    lowest = min((pair.factor for severity in alerts for pair in severity.pairs), default=math.inf)
    up_to = min(lowest, 1 / budget)
    return (BlindBand(1.0, up_to, period / up_to),) if up_to > 1 + _SAME else ()


def _windows(pair: Pair) -> str:
    return f"{durations.text(pair.short)}/{durations.text(pair.long)}"


def _spent(severity: Severity) -> str:
    return " or ".join(
        f"{pair.budget_percent:.3g} %" + (f" at {pair.factor:.3g}x" if len(severity.pairs) > 1 else "")
        for pair in severity.pairs
        if pair.is_reachable
    )


def _kept(severity: Severity) -> str:
    reset = severity.timings[0].reset
    return "nothing" if reset is None else minutes(reset, up=False)


def _detections(severity: Severity) -> str:
    reached = [
        f"{minutes(timing.detection, up=True)} at {timing.error_percent:g} % errors"
        for timing in severity.timings
        if timing.detection is not None
    ]
    never = [f"{timing.error_percent:g} %" for timing in severity.timings if timing.detection is None]
    return "it fires after " + ", ".join(reached) + (f"; never at {', '.join(never)}" if never else "")


def _timing_document(timing: Timing) -> dict[str, Any]:
    return {
        "error_percent": timing.error_percent,
        "detection_seconds": None if timing.detection is None else timing.detection.total_seconds(),
        "reset_seconds": None if timing.reset is None else timing.reset.total_seconds(),
        "spent_percent": None if timing.spent_percent is None else _digits(timing.spent_percent),
    }


def _pair_document(pair: Pair) -> dict[str, Any]:
    return {
        "short": durations.text(pair.short),
        "long": durations.text(pair.long),
        "factor": _digits(pair.factor),
        "threshold_ratio": _digits(pair.threshold),
        "budget_percent": _digits(pair.budget_percent),
        "is_reachable": pair.is_reachable,
        "timings": [_timing_document(timing) for timing in pair.timings],
    }


def _digits(value: float) -> float:
    """Without the noise of binary fractions: 0.0144, not 0.014399999999999181."""
    return float(f"{value:.12g}")
