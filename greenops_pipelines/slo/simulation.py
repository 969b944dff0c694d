"""The same alert, played through step by step: confirms the closed form without using any of it.

Error counts of every step are added up, each window slides over the sums, and the alert is read off as a rule would
read it. Not here: the formulas (`certificate.py`), and Prometheus' own evaluation (`rule_tests.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.certificate import Certificate
from greenops_pipelines.slo.windows import Window, Windows


@dataclass(frozen=True)
class Observed:
    """From the first error to the first step at which the alert holds, and from the last error to the first at which it
    does not. Both None for an alert that never held."""

    detection: timedelta | None
    reset: timedelta | None


def simulate(
    objective: float,
    windows: Windows,
    error_ratio: float,
    step_seconds: int = 60,
    outage: timedelta | None = None,
) -> Mapping[str, Observed]:
    """By severity, what an outage at `error_ratio` (0 to 1) does under constant traffic, after clean traffic.

    `outage` is by default long enough to fill every window. The step has to divide every window, and the outage.
    Times are those of the first step that shows the change, so up to one step after the change itself.
    """
    longest = windows.lengths[-1]
    start = _steps(longest, step_seconds)
    end = start + _steps(outage if outage is not None else longest + timedelta(seconds=step_seconds), step_seconds)
    is_bad = np.zeros(end + start + 1, dtype=np.int64)
    is_bad[start + 1 : end + 1] = 1  # Step n holds what happened between the readings n - 1 and n.
    bad_so_far = np.cumsum(is_bad)
    budget = (100 - objective) / 100
    found = {}
    for severity, pairs in (
        ("page", (windows.page_quick, windows.page_slow)),
        ("ticket", (windows.ticket_quick, windows.ticket_slow)),
    ):
        holds = np.zeros(len(is_bad), dtype=bool)
        for pair in pairs:
            holds |= _holds(pair, pair.factor(windows.period) * budget, error_ratio, bad_so_far, step_seconds)
        found[severity] = _observed(holds, start, end, step_seconds)
    return found


def disagreements(certificate: Certificate, step_seconds: int = 60) -> list[str]:
    """One line for each figure of the certificate that the simulation does not give within one step; none is good."""
    step = timedelta(seconds=step_seconds)
    said = []
    for index, error_percent in enumerate(t.error_percent for t in certificate.severities[0].timings):
        seen = simulate(certificate.objective, certificate.windows, error_percent / 100, step_seconds)
        for severity in certificate.severities:
            closed, observed = severity.timings[index], seen[severity.name]
            for what, computed, played in (
                ("detection", closed.detection, observed.detection),
                ("reset", closed.reset, observed.reset),
            ):
                if not _agree(computed, played, step):
                    said.append(
                        f"{severity.name} at {error_percent:g} % errors: {what}: certified {computed or 'never'}, "
                        f"simulated {played or 'never'}, allowed: up to {durations.text(step)} later"
                    )
    return said


def _agree(computed: timedelta | None, played: timedelta | None, step: timedelta) -> bool:
    if computed is None or played is None:
        return computed is played
    return computed - timedelta(microseconds=1) <= played <= computed + step


def _holds(
    pair: Window, threshold: float, error_ratio: float, bad_so_far: npt.NDArray[np.int64], step_seconds: int
) -> npt.NDArray[np.bool_]:
    """At which steps both windows are above the threshold; windows that reach back before the first step hold nothing."""
    above = np.ones(len(bad_so_far), dtype=bool)
    for length in (pair.short, pair.long):
        width = _steps(length, step_seconds)
        within = bad_so_far.copy()
        within[width:] -= bad_so_far[:-width]
        above &= within / width * error_ratio > threshold * (1 + 1e-9)
    return above


def _observed(holds: npt.NDArray[np.bool_], start: int, end: int, step_seconds: int) -> Observed:
    if not holds.any():
        return Observed(None, None)
    first = int(np.argmax(holds))
    over = end + int(np.argmin(holds[end:]))
    return Observed(timedelta(seconds=(first - start) * step_seconds), timedelta(seconds=(over - end) * step_seconds))


def _steps(duration: timedelta, step_seconds: int) -> int:
    steps, rest = divmod(duration, timedelta(seconds=step_seconds))
    if rest or not steps:
        raise BadInput(f"step: found {step_seconds} s, allowed: a divisor of {durations.text(duration)}")
    return steps
