"""Where and when a run of given length emits least, by the forecasts at hand. Exact to the microsecond.

A run pays for its part of an interval only. What has no value is never chosen. Not here: who is asked, what is launched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from greenops_pipelines.carbon.forecasting import on_grid
from greenops_pipelines.instants import instant, micros
from greenops_pipelines.integrations.forecasts import Series
from greenops_pipelines.placement import windows
from greenops_pipelines.placement.model import HOUR, MINUTE, Grid, Ints, Jobs, integral

_MOST_SLOTS = 200_000
_TIE = 1e-9


@dataclass(frozen=True)
class Slot:
    """A run of one zone from `start` on, at a mean intensity."""

    start: datetime
    zone: str
    g_per_kwh: float


@dataclass(frozen=True)
class Sky:
    """The forecasts of some zones on one grid."""

    zones: tuple[str, ...]
    grid: Grid


def sky(series: Mapping[str, Series], zones: Sequence[str]) -> Sky | None:
    """The forecasts of `zones`, in that order, in the longest common step; None where there are none."""
    found = [(zone, series[zone]) for zone in zones if zone in series and len(series[zone].start)]
    if not found:
        return None
    # Whatever the resolutions: every begin and every length is a multiple of the step.
    step = int(np.gcd.reduce(np.concatenate([np.concatenate([s.start, s.minutes * MINUTE]) for _, s in found])))
    first = min(int(s.start.min()) for _, s in found)
    last = max(int((s.start + s.minutes * MINUTE).max()) for _, s in found)
    slots = min((last - first) // step, _MOST_SLOTS)
    intensity = np.concatenate(
        [
            on_grid(
                s.start,
                s.minutes,
                s.g_per_kwh,
                first_us=np.array([first]),
                step_minutes=step // MINUTE,
                slots=slots,
                lines=np.zeros(len(s.start), dtype=np.int64),
            )
            for _, s in found
        ]
    )
    names = tuple(zone for zone, _ in found)
    unlimited = np.full(intensity.shape, np.inf)
    return Sky(names, Grid(names, first, step, intensity, np.ones(len(names)), unlimited))


def window(seen: Sky, begin: datetime, end: datetime, duration: timedelta) -> Slot | None:
    """The cheapest contiguous run inside [begin, end), the earliest of equals, then the first zone; None: none is known."""
    count = len(seen.zones)
    jobs = _jobs(count, micros(begin), micros(end), duration // timedelta(microseconds=1))
    view = windows.window(jobs, seen.grid)
    rows = np.arange(count)[:, None]
    value = seen.grid.intensity[rows, np.where(view.inside, view.slot, 0)]
    start, cost = windows.least(
        windows.candidates(view, np.where(view.inside & np.isfinite(value), value, np.inf)),
    )
    return _best(seen, start, cost / (jobs.duration / HOUR))


def cells(seen: Sky, begin: datetime, length: timedelta, indices: Sequence[int], wanted: int) -> list[Slot]:
    """The `wanted` cheapest cells [begin + i * length, ...) of `indices`, each in its best zone, in order of time.

    Fewer where fewer are known; the earlier of equals.
    """
    lasts = length // timedelta(microseconds=1)
    start = micros(begin) + np.array(indices, dtype=np.int64) * lasts
    places = np.repeat(np.arange(len(seen.zones)), len(start))
    starts = np.tile(start, len(seen.zones))
    value = integral(seen.grid, seen.grid.intensity, places, starts, starts + lasts) / (lasts / HOUR)
    mean = np.where(np.isfinite(value), value, np.inf).reshape(len(seen.zones), -1)
    zone = mean.argmin(axis=0)
    best = mean.min(axis=0)
    order = [int(i) for i in np.lexsort((start, best)) if np.isfinite(best[i])][:wanted]
    return [Slot(instant(start[i]), seen.zones[int(zone[i])], float(best[i])) for i in sorted(order)]


def mean(seen: Sky, zone: str, begin: datetime, duration: timedelta) -> float | None:
    """The mean intensity of a run in `zone` from `begin` on; None where a part of it has no value."""
    if zone not in seen.zones:
        return None
    place = np.array([seen.zones.index(zone)])
    start = np.array([micros(begin)])
    lasts = duration // timedelta(microseconds=1)
    found = float(integral(seen.grid, seen.grid.intensity, place, start, start + lasts)[0]) / (lasts / HOUR)
    return found if np.isfinite(found) else None


def _best(seen: Sky, start: Ints, mean_g: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Slot | None:
    least = mean_g.min()
    if not np.isfinite(least):
        return None
    near = np.flatnonzero(mean_g <= least + _TIE * abs(least))
    chosen = int(near[start[near].argmin()])
    return Slot(instant(start[chosen]), seen.zones[chosen], float(mean_g[chosen]))


def _jobs(count: int, begin: int, end: int, duration: int) -> Jobs:
    """The same run once per place."""
    same = np.ones(count, dtype=np.int64)
    return Jobs(
        ids=("",) * count,
        submitted=same * begin,
        earliest=same * begin,
        deadline=same * end,
        duration=same * duration,
        power_kw=np.ones(count),
        interruptible=np.zeros(count, dtype=bool),
        home=np.arange(count),
        allowed=np.eye(count, dtype=bool),
        data_gb=np.zeros(count),
    )
