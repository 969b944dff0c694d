"""Sample traffic of the five services: how many requests, calls, page views and deliveries a minute, seeded and invented.

A minute depends on nothing but its flow, region and UTC day: any range, asked in any order, gives the same figures.
Only integers, random bits (Philox, whose bits are the same in every numpy and on every machine) and the four basic
operations are used, so that no library's sine moves a figure.

Not here: what goes wrong (`sample_incidents.py`), and the series that show it (`sample_services.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MINUTES = 1440
SERVICES = ("api-gateway", "reporting", "q2q-ai", "cockpit", "impact-in")
REGIONS: Mapping[str, int] = {"eu-central-1": 1, "us-east-1": -5}
"""The primary regions, and how many hours their people's clocks are ahead of UTC, all year."""

# Shares of the mean by hour of the local day, mean 1, and by weekday from Monday on, mean 1.
_WORKING_HOURS = (
    *(0.34, 0.30, 0.28, 0.28, 0.30, 0.38, 0.56, 0.86, 1.24, 1.62, 1.78, 1.78),
    *(1.68, 1.70, 1.76, 1.70, 1.60, 1.38, 1.14, 0.94, 0.80, 0.66, 0.52, 0.40),
)
_WORKING_DAYS = (1.15, 1.15, 1.15, 1.15, 1.15, 0.65, 0.60)
# 85 % of a day's deliveries go out between 01:00 and 04:00 UTC, in all regions and on every day.
_NIGHTLY = np.repeat([0.15 * 24 / 21, 0.85 * 24 / 3, 0.15 * 24 / 21], [60, 180, MINUTES - 240])
_KNOTS = 97
_SLOW_NOISE, _FAST_NOISE = 0.10, 0.04


@dataclass(frozen=True)
class Flow:
    """Events of one kind: how many a minute and region on average, and the share of them that fails on a good day.

    `faults` are the statuses of those that fail, with their shares; without any, there is no status.
    """

    per_minute: float
    bad: float = 0.0
    faults: Mapping[str, float] | None = None
    is_nightly: bool = False


FLOWS: Mapping[str, Mapping[str, Flow]] = {
    "api-gateway": {"http": Flow(1500, 0.0002, {"5xx": 1.0})},
    "reporting": {
        "http": Flow(180, 0.0005, {"5xx": 1.0}),
        "report": Flow(20, 0.004, {"failed": 0.6, "error": 0.4}),
    },
    "q2q-ai": {
        "http": Flow(240, 0.001, {"5xx": 1.0}),
        "llm": Flow(300, 0.004, {"failed": 0.2, "error": 0.3, "5xx": 0.5}),
        "classification": Flow(150, 0.018, {"failed": 1.0}),
    },
    "cockpit": {"http": Flow(500, 0.0002, {"5xx": 1.0}), "views": Flow(150)},
    "impact-in": {
        "http": Flow(90, 0.001, {"error": 1.0}),
        "delivery-benevity": Flow(20, 0.001, {"failed": 0.7, "error": 0.3}),
        "delivery-goodera": Flow(12, 0.001, {"failed": 0.7, "error": 0.3}),
        "delivery-workday": Flow(8, 0.001, {"failed": 0.7, "error": 0.3}, is_nightly=True),
    },
}


@dataclass(frozen=True)
class Histogram:
    """What a flow's events measured: the share beyond `good_up_to` on a good day, and where they lie on either side.

    `below` are the shares of the buckets up to that bound, `beyond` of those after it, the last of them beyond all
    bounds; each sums to 1.
    """

    metric: str
    flow: str
    bounds: tuple[float, ...]
    good_up_to: float
    slow: float
    below: tuple[float, ...]
    beyond: tuple[float, ...]


_DURATION = "http_server_request_duration_seconds"
_SECONDS = (0.1, 0.25, 0.5, 1, 2, 5, 10)
_LCP = (0.5, 1, 1.5, 2, 2.5, 3, 4, 6)
_INP = (50, 100, 150, 200, 300, 500, 1000)
_CLS = (0.01, 0.05, 0.1, 0.15, 0.25, 0.5)

HISTOGRAMS: Mapping[str, Mapping[str, Histogram]] = {
    "api-gateway": {
        "http": Histogram(_DURATION, "http", _SECONDS, 0.5, 0.012, (0.6, 0.3, 0.1), (0.6, 0.25, 0.1, 0.04, 0.01))
    },
    "reporting": {
        "http": Histogram(_DURATION, "http", _SECONDS, 2, 0.014, (0.1, 0.2, 0.3, 0.25, 0.15), (0.8, 0.15, 0.05))
    },
    "q2q-ai": {
        "http": Histogram(_DURATION, "http", _SECONDS, 5, 0.015, (0.02, 0.05, 0.13, 0.3, 0.35, 0.15), (0.85, 0.15))
    },
    "impact-in": {
        "http": Histogram(_DURATION, "http", _SECONDS, 10, 0.01, (0.05, 0.1, 0.2, 0.25, 0.25, 0.1, 0.05), (1.0,))
    },
    "cockpit": {
        "lcp": Histogram(
            "web_vitals_lcp_seconds", "views", _LCP, 2.5, 0.11, (0.05, 0.25, 0.35, 0.2, 0.15), (0.4, 0.35, 0.15, 0.1)
        ),
        "inp": Histogram(
            "web_vitals_inp_milliseconds", "views", _INP, 200, 0.09, (0.35, 0.35, 0.2, 0.1), (0.5, 0.3, 0.15, 0.05)
        ),
        "cls": Histogram("web_vitals_cls_score", "views", _CLS, 0.1, 0.08, (0.5, 0.3, 0.2), (0.4, 0.3, 0.2, 0.1)),
    },
}


def epoch_day(day: date) -> int:
    """Days since 1970-01-01, which was a Thursday."""
    return (day - date(1970, 1, 1)).days


def uniforms(stream: str, day: int, count: int) -> Floats:
    """`count` numbers in [0, 1) of a stream and a day since 1970, from no other state than those two."""
    key = np.array([_number(stream), day % 2**64], dtype=np.uint64)
    raw = np.random.Philox(key=key).random_raw(count)
    return np.asarray((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53)


@cache
def _number(stream: str) -> int:
    return int.from_bytes(hashlib.sha256(f"greenops:metrics:{stream}".encode()).digest()[:8], "big")


def usual(service: str, flow: str, region: str, day: int) -> Floats:
    """Events of each minute of the day, without noise and incidents: fractions, shape (1440,)."""
    declared = FLOWS[service][flow]
    if declared.is_nightly:
        return declared.per_minute * _NIGHTLY
    # The hour is the people's; the weekday turns at midnight UTC for all.
    hours = np.arange(MINUTES) / 60 + REGIONS[region]
    shape = np.interp(hours % 24, np.arange(25), (*_WORKING_HOURS, _WORKING_HOURS[0]))
    return np.asarray(declared.per_minute * _WORKING_DAYS[(day + 3) % 7] * shape)


def noise(stream: str, day: int) -> Floats:
    """Factors around 1, shape (1440,): slow ones that are 1 at midnight, so that days meet, and fast ones."""
    drawn = uniforms(f"{stream}:noise", day, _KNOTS + MINUTES)
    knots = 2 * drawn[:_KNOTS] - 1
    knots[[0, -1]] = 0.0
    slow = np.interp(np.arange(MINUTES), np.linspace(0, MINUTES, _KNOTS), knots)
    return np.asarray((1 + _SLOW_NOISE * slow) * (1 + _FAST_NOISE * (2 * drawn[_KNOTS:] - 1)))


def whole(expected: Floats, phase: float) -> Ints:
    """Whole numbers whose sum over any stretch differs from `expected`'s by less than 1: what is left is carried on.

    `phase` in [0, 1) is what is carried into the first. Where `expected` is a share, at most 1, of whole numbers, none
    is larger than its own.
    """
    reached = np.floor(np.cumsum(expected) + phase).astype(np.int64)
    counts = reached.copy()
    counts[1:] -= reached[:-1]
    return counts


def split(counts: Ints, shares: Sequence[float], phases: Floats) -> list[Ints]:
    """Each minute's count in parts that sum to it, in the long run as `shares`, which sum to 1. A phase per share."""
    parts: list[Ints] = []
    rest, left = counts, 1.0
    for share, phase in zip(shares[:-1], phases, strict=False):
        part = whole(np.asarray(rest * min(1.0, share / left), dtype=np.float64), float(phase))
        parts.append(part)
        rest, left = rest - part, left - share
    return [*parts, rest]
