"""The rollback certificate: how long a bad canary serves at most, and how often a good one is taken back.

    worst_case_seconds(threshold=0.0144, error=0.02, window_s=60, scrape_s=15, interval_s=15)
    110.2

Time runs from the first bad response to the last response of the canary. Not here: a drill that measures it (`drill.py`),
and the gates themselves (`gates.py`).

In the worst case over all phases of scraping and measuring, with errors at a steady ratio e and a threshold t:

    t / e x window   until enough of the window is bad
    + 1 / (e x rate) until the next error comes at all, where requests are few
    + answer         until the first slow answer is counted, where it is slowness that is bad: it is when it ends
    + scrape         until a scrape sees it, which may just have missed it
    + interval       until a measurement sees that, which may just have missed it
    + 2 x interval   until the third measurement that fails
    + 3 x query      as long as Prometheus takes to answer: the next measurement is due an interval after that
    + overhead       the controller's two reconciliations, and the router's new weights
    + answer         until the canary has given the slow answers that it had begun

An answer of Prometheus that does not come at all is an Error, which proves nothing, and is outside of this.

Prometheus' extrapolation only ever makes it sooner: while the window begins before the breach, the ratio that `rate`
gives is at least e x (last scrape - breach) / window, because a counter's own zero bounds what is added at the window's
beginning. That holds for counters that stand at 0 before the first error. A series that is born with its first error
needs a second sample to have a rate at all: one more scrape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

ERROR_PERCENTS = (100.0, 10.0, 5.0, 2.0)
"""Error rates of a canary that a certificate speaks of."""
FAILURES = 3
"""Failed measurements that take a canary back; cumulative with `failureLimit: 2`, and consecutive over a range."""
OVERHEAD_SECONDS = 7.0
"""From the decision to the router's new weights: two reconciliations and what Istio takes to tell its proxies."""
DEADLINE_SECONDS = 120.0
_RUNS = 20_000
_SEED = 20260101


@dataclass(frozen=True)
class Timing:
    """What decides how soon a canary is taken back. Seconds; `threshold` is the share of bad requests a gate allows."""

    threshold: float
    window_s: float
    scrape_s: float
    interval_s: float
    failures: int = FAILURES
    overhead_s: float = OVERHEAD_SECONDS
    initial_delay_s: float = 0.0
    starts_at_zero: bool = True
    rate_per_s: float | None = None
    """Requests of the canary per second, evenly spaced; None: as many as it takes for errors to come without a gap."""
    answer_s: float = 0.0
    """How long a bad answer takes, at most."""
    query_s: float = 0.0
    """How long Prometheus takes to answer, at most."""


def worst_case(timing: Timing, error: float, breach_after_s: float = math.inf) -> float | None:
    """Seconds from the breach to the rollback, at most; None where the gate never turns. `error` is a ratio in (0, 1].

    `breach_after_s` counts from the canary's first request: nothing is measured before the initial delay. By default the
    breach comes when measuring is under way; 0 is a canary that is bad from the start.
    """
    if not 0 < error <= 1 or error <= timing.threshold:
        return None
    births = 0.0 if timing.starts_at_zero else timing.scrape_s
    spacing = 0.0 if timing.rate_per_s is None else 1 / (error * timing.rate_per_s)
    filled = timing.threshold / error * timing.window_s + spacing + timing.answer_s + births + timing.scrape_s
    first_bad = max(filled + timing.interval_s, timing.initial_delay_s - breach_after_s)
    until_decided = first_bad + (timing.failures - 1) * timing.interval_s + timing.failures * timing.query_s
    return until_decided + timing.overhead_s + timing.answer_s


def worst_case_seconds(
    threshold: float,
    error: float,
    window_s: float,
    scrape_s: float,
    interval_s: float,
    *,
    failures: int = FAILURES,
    overhead_s: float = OVERHEAD_SECONDS,
    initial_delay_s: float = 0.0,
    breach_after_s: float = math.inf,
    starts_at_zero: bool = True,
    rate_per_s: float | None = None,
) -> float | None:
    """`worst_case` of plain figures."""
    timing = Timing(
        threshold,
        window_s,
        scrape_s,
        interval_s,
        failures,
        overhead_s,
        initial_delay_s,
        starts_at_zero,
        rate_per_s,
    )
    return worst_case(timing, error, breach_after_s)


_KNOBS = (
    ("analysis.rate_window", "window_s", "s"),
    ("analysis.interval", "interval_s", "s"),
    ("scrape_interval", "scrape_s", "s"),
    ("error_percent", "threshold", "%"),
)
"""The knobs in the order in which they cost least to turn, with the field of `Timing` and its unit."""


def knobs(timing: Timing, error: float, limit_s: float = DEADLINE_SECONDS) -> tuple[str, ...]:
    """For each setting that alone brings the worst case down to `limit_s`: its name, what it is, what it may be.

    Rounded to the safe side, to whole seconds, hundredths of a percent and tenths of a request. Empty where no setting
    does it alone, or none is needed. A window is never proposed below four scrapes: `rate` would lack samples.
    """
    worst = worst_case(timing, error)
    if worst is not None and worst <= limit_s:
        return ()
    births = 0.0 if timing.starts_at_zero else timing.scrape_s
    spacing = 0.0 if timing.rate_per_s is None else 1 / (error * timing.rate_per_s)
    filled = timing.threshold / error * timing.window_s
    whole = filled + births + spacing + timing.scrape_s + timing.failures * (timing.interval_s + timing.query_s)
    over = whole + timing.overhead_s + 2 * timing.answer_s - limit_s
    # Nothing else helps a gate that allows more than the canary errs.
    only_threshold = timing.threshold >= error
    at_most = {
        # A hundredth of a percent below, so that it is not rounded to the rate itself: there nothing is ever found.
        "threshold": min((filled - over) * error / timing.window_s, error - 0.0001)
    }
    if not only_threshold:
        at_most |= {
            "window_s": timing.window_s * (filled - over) / filled if filled else math.inf,
            "interval_s": timing.interval_s - over / timing.failures,
            "scrape_s": timing.scrape_s - over / (1 if timing.starts_at_zero else 2),
        }
    said = []
    for name, field, unit in _KNOBS:
        if field not in at_most or not math.isfinite(at_most[field]):
            continue
        found = getattr(timing, field) * (100 if unit == "%" else 1)
        allowed = math.floor(at_most[field] * 10_000 + 1e-6) / 100 if unit == "%" else math.floor(at_most[field] + 1e-9)
        least = 4 * timing.scrape_s if field == "window_s" else 0
        if 0 < allowed < found and allowed >= least:
            said.append(f"{name}: {found:g} {unit}, at most {allowed:g} {unit}")
    if timing.rate_per_s is not None and not only_threshold and spacing > over:
        least = math.ceil(10 / (error * (spacing - over)) - 1e-9) / 10
        said.append(f"minimum_requests_per_second: {timing.rate_per_s:g}, at least {least:g}")
    return tuple(said)


@dataclass(frozen=True)
class Chance:
    """Probabilities over a whole rollout. `at_volume` is requests of the canary per second.

    `false_rollback`: a healthy canary is taken back. `found_in_time`: one that errs at `bad_error` is taken back within
    the deadline. `found`: before it is promoted.
    """

    at_volume: float
    healthy_error: float
    bad_error: float
    one_sample: float
    false_rollback: float
    found_in_time: float
    found: float
    runs: int = _RUNS

    def as_document(self) -> dict[str, Any]:
        return {
            "requests_per_second": self.at_volume,
            "healthy_error_percent": self.healthy_error * 100,
            "bad_error_percent": self.bad_error * 100,
            "false_bad_sample": self.one_sample,
            "false_rollback": self.false_rollback,
            "found_in_time": self.found_in_time,
            "found": self.found,
            "runs": self.runs,
        }


def bad_sample(threshold: float, error: float, requests: int) -> float:
    """Probability that more than `threshold` of `requests` fail, each with probability `error`: a binomial tail.

    Summed from the logarithms of its terms, so that neither small nor large counts lose it. A window without a request
    is no bad sample of this gate.
    """
    if requests < 1 or error <= 0:
        return 0.0
    if error >= 1:
        return 1.0 if threshold < 1 else 0.0
    least = math.floor(threshold * requests + 1e-9) + 1
    log_error, log_good = math.log(error), math.log1p(-error)
    total = math.lgamma(requests + 1)
    terms = (
        math.exp(total - math.lgamma(k + 1) - math.lgamma(requests - k + 1) + k * log_error + (requests - k) * log_good)
        for k in range(least, requests + 1)
    )
    return min(1.0, math.fsum(terms))


def chance(
    timing: Timing,
    requests_per_s: float,
    healthy_error: float,
    bad_error: float,
    lasts_s: float,
    *,
    consecutive: bool = False,
    deadline_s: float = DEADLINE_SECONDS,
    runs: int = _RUNS,
) -> Chance:
    """What chance does at a volume of requests, over a rollout of `lasts_s` seconds of measuring.

    Windows overlap, so samples that follow each other share most of their requests, and no product of single
    probabilities is right. Played through instead, `runs` times from a fixed seed: requests fail independently, counted
    per scrape, and windows are sums of scrapes. The error of a probability p is about sqrt(p (1 - p) / runs).
    """
    window = max(1, round(timing.window_s / timing.scrape_s))
    per_scrape = max(1, round(requests_per_s * timing.scrape_s))
    false, _ = _rolled_back(timing, healthy_error, per_scrape, window, lasts_s, consecutive, math.inf, runs)
    found, in_time = _rolled_back(timing, bad_error, per_scrape, window, lasts_s, consecutive, deadline_s, runs)
    one = bad_sample(timing.threshold, healthy_error, per_scrape * window)
    return Chance(requests_per_s, healthy_error, bad_error, one, false, in_time, found, runs)


def _rolled_back(
    timing: Timing,
    error: float,
    per_scrape: int,
    window: int,
    lasts_s: float,
    consecutive: bool,
    deadline_s: float,
    runs: int,
) -> tuple[float, float]:
    """Shares of the runs in which the canary was taken back: ever, and within the deadline."""
    import numpy as np

    random = np.random.default_rng(_SEED)
    scrapes = max(window, math.floor(lasts_s / timing.scrape_s))
    failed = random.binomial(per_scrape, min(1.0, error), size=(runs, scrapes)).astype(np.int32)
    # Before the breach the canary was good: the windows of a late breach begin empty, which is the slower case.
    padded = np.concatenate([np.zeros((runs, window), np.int32), np.cumsum(failed, axis=1, dtype=np.int32)], axis=1)
    in_window = padded[:, window:] - padded[:, :-window]
    seen = np.arange(1, scrapes + 1) * timing.scrape_s
    step = max(1, round(timing.interval_s / timing.scrape_s))
    begins = max(0, math.ceil(timing.initial_delay_s / timing.scrape_s) - 1)
    bad = in_window[:, begins::step] > timing.threshold * per_scrape * window + 1e-9
    at = seen[begins::step] + timing.interval_s + timing.overhead_s
    if consecutive:
        run_of = bad.astype(np.int32)
        for back in range(1, timing.failures):
            run_of[:, back:] += bad[:, :-back]
        turned = run_of >= timing.failures
    else:
        turned = np.cumsum(bad, axis=1) >= timing.failures
    ever = turned.any(axis=1)
    first = np.where(ever, at[turned.argmax(axis=1)], np.inf)
    return float(ever.mean()), float((first <= deadline_s).mean())
