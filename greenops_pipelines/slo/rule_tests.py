"""The certificate as a test for `promtool test rules`: Prometheus itself says that the alert fires then, and not before.

Each test feeds the counters that the SLO's queries read (`traffic.py`): good traffic until the longest window is full,
an outage at a constant error rate, good traffic again. It asks the loaded rules, around the certified moments,

    half a minute before (first error + detection): no alert         half a minute after: the alert
    half a minute before (last error + reset):      still the alert  half a minute after: none

so what is proven is the minute, and the closed form is never more than one step of a clock of minutes away. Half a minute
on either side also avoids the tie, where the last digit of a binary fraction decides. Long windows are evaluated at longer
steps (a 3-day window costs 9 s per test at 1 minute, 0.2 s at 30), and the outage is moved instead, because it may start
between two scrapes: one test where the moment has just passed when the rules are evaluated, and its twin, where the same
outage came a minute later.

Exact for Prometheus 2.x, whose ranges are closed: a window of n steps holds n + 1 samples and `rate` needs to extrapolate
nothing. In 3.x a range is left-open, and `rate` extrapolates by a step. Rule groups are evaluated in the order that the
file names, so an alert reads the ratios of its own step: `Certificate.lag` does not occur here.

Not here: running promtool, and the closed form (`certificate.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import yaml

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.certificate import Certificate, Severity, certify, minutes, timing
from greenops_pipelines.slo.model import Alert, Slo
from greenops_pipelines.slo.traffic import Series, series_of
from greenops_pipelines.slo.windows import Windows

REQUESTS_PER_STEP = 6000
_PRECISION = timedelta(minutes=1)
_STEPS = tuple(timedelta(minutes=minutes) for minutes in (30, 5, 1))
_STEPS_PER_WINDOW = 4


def promtool_tests(
    slo: Slo,
    windows: Windows,
    rule_files: Sequence[str],
    *,
    series: Sequence[Series] | None = None,
    groups: Sequence[str] | None = None,
    error_percents: Sequence[float] = (100.0, 10.0),
) -> dict[str, str]:
    """Test files by severity for the alerts of one SLO; `rule_files` are relative to where the tests will lie.

    Two files, because a file has one evaluation interval, and a page's windows are shorter than a ticket's. Tested are
    these error rates, and for each pair of windows that is slower than another of its alert one rate at which it is
    alone. A rate that an alert does not react to is tested as such. `series` replaces what is derived from the queries,
    `groups` the names in the order of evaluation: Sloth's three. `BadInput` for an SLO without alerts, for windows that
    are no whole minutes, and for an SLO whose series cannot be derived.
    """
    alerts = {name: alert for name, alert in (("page", slo.page), ("ticket", slo.ticket)) if alert is not None}
    if not alerts:
        raise BadInput(f"{slo.id}: alerting: found no enabled alert, allowed: page, ticket or both")
    certificate = certify(slo.objective, windows, severities=tuple(alerts))
    counters = tuple(series if series is not None else series_of(slo))
    if groups is None:
        groups = [f"sloth-slo-{part}-{slo.id}" for part in ("sli-recordings", "meta-recordings", "alerts")]
    found = {}
    for severity in certificate.severities:
        step = _step(slo, severity)
        document = {
            "rule_files": list(rule_files),
            "evaluation_interval": durations.text(step),
            "group_eval_order": list(groups),
            "tests": [
                _test(slo, alerts[severity.name], outage, counters, step)
                for error_percent in _rates(severity, certificate.budget, error_percents)
                for outage in _outages(severity, certificate, error_percent, step)
            ],
        }
        found[severity.name] = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    return found


def _step(slo: Slo, severity: Severity) -> timedelta:
    """Scrape and evaluation interval: the longest that divides all windows and leaves a few steps to the shortest."""
    lengths = sorted({length for pair in severity.pairs for length in (pair.short, pair.long)})
    for step in _STEPS:
        if not any(length % step for length in lengths) and (
            lengths[0] >= _STEPS_PER_WINDOW * step or step == _STEPS[-1]
        ):
            return step
    raise BadInput(
        f"{slo.id}: {severity.name} windows: found {', '.join(map(durations.text, lengths))}, "
        "allowed for a rule test: whole minutes"
    )


def _rates(severity: Severity, budget: float, error_percents: Sequence[float]) -> Iterator[float]:
    """The wanted rates, and for each slower pair one at which it is alone: just below the factor of the next.

    A rate that is some pair's threshold exactly is left out: the last digit of a binary fraction decides that one.
    """
    for wanted in error_percents:
        if not any(math.isclose(wanted / 100, pair.threshold, rel_tol=1e-6) for pair in severity.pairs):
            yield wanted
    factors = sorted({pair.factor for pair in severity.pairs}, reverse=True)
    for higher, lower in itertools.pairwise(factors):
        error_percent = float(f"{max(higher * 0.95, (higher + lower) / 2) * budget * 100:.3g}")
        if error_percent <= 100:
            yield error_percent


@dataclass(frozen=True)
class _Outage:
    """Errors flow from `start` to `end`, both in steps and rarely whole; `expected` is the alert at whole steps."""

    name: str
    severity: str
    error_ratio: float
    start: float
    end: float
    expected: tuple[tuple[int, bool], ...]

    def bad_until(self, step: int) -> float:
        """Steps' worth of failed traffic so far."""
        return min(max(step - self.start, 0.0), self.end - self.start) * self.error_ratio


def _outages(severity: Severity, certificate: Certificate, error_percent: float, step: timedelta) -> Iterator[_Outage]:
    period = certificate.windows.period
    full = max(pair.long for pair in severity.pairs) // step
    each = [timing([pair], error_percent, certificate.budget, period) for pair in severity.pairs]
    fired = [(t.detection / step, t.reset / step) for t in each if t.detection is not None and t.reset is not None]
    name, ratio = f"{severity.name} at {error_percent:g} % errors", error_percent / 100
    if not fired:
        end = 2 * full + 1
        never = ((end - 1, False), (end, False))
        yield _Outage(f"{name} never fires, even when all windows are full", severity.name, ratio, full, end, never)
        return
    first, last = min(detection for detection, _ in fired), max(detection for detection, _ in fired)
    reset = max(reset for _, reset in fired)
    said = f"{name} fires within {minutes(first * step, up=True)}, and for {minutes(reset * step, up=False)} after the outage"
    margin = min(_PRECISION / step, 1) / 2
    fires = math.ceil(full + first + margin)
    # Errors last until every pair that can fire at this rate has: the slowest of them decides when the alert stops.
    stops = math.ceil(fires - first + last + margin + reset) + 1
    after = _Outage(said, severity.name, ratio, fires - margin - first, stops - margin - reset, ())
    if margin == 0.5:
        yield replace(after, expected=((fires - 1, False), (fires, True), (stops - 1, True), (stops, False)))
        return
    yield replace(after, expected=((fires, True), (stops, False)))
    yield replace(
        after,
        name=f"{name} a minute later: not yet, and not yet over",
        start=after.start + 2 * margin,
        end=after.end + 2 * margin,
        expected=((fires, False), (stops, True)),
    )


def _test(slo: Slo, alert: Alert, outage: _Outage, counters: Sequence[Series], step: timedelta) -> dict[str, Any]:
    return {
        "name": f"{slo.id}: {outage.name}",
        "interval": durations.text(step),
        "input_series": [{"series": counter.selector, "values": _values(counter, outage)} for counter in counters],
        "promql_expr_test": [
            _expectation(slo, alert, outage.severity, step * at, firing) for at, firing in outage.expected
        ],
    }


def _expectation(slo: Slo, alert: Alert, severity: str, at: timedelta, firing: bool) -> dict[str, Any]:
    """Asked of `ALERTS`, not with `alert_rule_test`: page and ticket may share a name, and annotations are not meant."""
    selected = {
        "alertname": alert.name,
        "alertstate": "firing",
        "sloth_id": slo.id,
        "sloth_severity": alert.labels.get("sloth_severity", severity),
    }
    matchers = ",".join(f'{name}="{value}"' for name, value in selected.items())
    return {
        "expr": f"count(ALERTS{{{matchers}}})",
        "eval_time": durations.text(at),
        "exp_samples": [{"labels": "{}", "value": 1}] if firing else [],
    }


def _values(counter: Series, outage: _Outage) -> str:
    """The counter's samples in promtool's notation, `start+increment x repetitions`, one stretch per kind of traffic."""

    def at(step: int) -> float:
        bad = outage.bad_until(step)
        return REQUESTS_PER_STEP * (counter.good * (step - bad) + counter.bad * bad)

    # Whole steps at which the slope changes: those around the start and the end of the outage.
    turns = sorted({turn(moment) for moment in (outage.start, outage.end) for turn in (math.floor, math.ceil)})
    last = max(outage.expected[-1][0], turns[-1] + 1)
    stretches = [f"0+{_number(at(1))}x{turns[0]}"]
    for low, high in itertools.pairwise([*turns, last]):
        slope = (at(high) - at(low)) / (high - low)
        stretches.append(f"{_number(at(low) + slope)}+{_number(slope)}x{high - low - 1}")
    return " ".join(stretches)


def _number(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")
