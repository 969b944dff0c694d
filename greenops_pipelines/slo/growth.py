"""What counters really grew by in each minute of a day, without extrapolation: resets, gaps, and series that appear.

What a counter grew by between two samples belongs to the minute of the later one. Not here: which counters an SLO adds up
(`grid.py`), and which of its minutes are known (`day_counts.py`).

- A value that falls is a reset: the counter began again at 0, and the new value is the growth.
- Over more than 5 minutes without a sample of the series nobody knows in which minute it grew: unplaced.
- A series was born at 0, and its first value is growth, where its target was scraped in the 5 minutes before and did not
  have it: where a sibling (same metric, instance, pod and job) has a sample in those 5 minutes and another one at the very
  time at which the series appears. So is the value to which it fell, where it was away for longer: its process began again,
  and had not counted yet.
- Any other first value is no growth and not unplaced either: it was counted before anyone looked. So with a new target; with
  a process that goes on under other labels, where every old series ends as the new ones appear; and with series that have
  none of the three labels, which say nothing of who was scraped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from greenops_pipelines.slo.day_samples import (
    LOOKBACK,
    MINUTE,
    MINUTES,
    Bools,
    DaySamples,
    Floats,
    Ints,
    Slices,
    minute_of,
)
from greenops_pipelines.slo.samples import NAME

_TARGET = ("instance", "pod", "job")


@dataclass(frozen=True)
class Growth:
    """By row and minute; NaN where a series is not alive. `unplaced` is None where there is none.

    A series is alive in a minute in which it had a sample, and between two samples that are at most 5 minutes apart.
    """

    placed: Floats
    unplaced: Floats | None
    is_sampled: Bools
    resets: Ints
    births: Ints


def growth(samples: DaySamples, start: int) -> Growth:
    """Of every series, as if all were counters; `start` is the day's first moment."""
    real = samples.real
    rows, value = real.count, real.value
    # A column more on each side for what is before and after the day, which is cut off in the end.
    width = MINUTES + 2
    minute = minute_of(real.time, start)
    np.clip(minute, -1, MINUTES, out=minute)
    cell = np.repeat(np.arange(rows) * width + 1, np.diff(real.starts))
    cell += minute
    in_day = _in_day(minute)
    heads = real.starts[:-1][real.starts[:-1] < real.starts[1:]]

    grown = np.empty_like(value)
    np.subtract(value[1:], value[:-1], out=grown[1:])
    grown[heads] = 0.0
    resets = np.flatnonzero(grown < 0)
    grown[resets] = value[resets]
    # Two samples more than 5 minutes apart are in minutes that are no neighbours, or before the day: few pairs are looked at.
    wide = np.flatnonzero((cell[1:] - cell[:-1] > 1) | (minute[:-1] < 0)) + 1
    wide = wide[real.row_of(wide) == real.row_of(wide - 1)]
    is_far = real.time[wide] - real.time[wide - 1] > LOOKBACK
    far = wide[is_far]

    appears = np.concatenate([heads, np.intersect1d(far, resets)])
    born = _born(samples, real, appears[in_day[appears]])
    grown[born] = value[born]
    lost = np.setdiff1d(far, born)
    lost = lost[grown[lost] != 0]

    def cut(grid: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return grid.reshape(rows, width)[:, 1:-1]

    unplaced = None
    if in_day[lost].any():
        unplaced = cut(np.bincount(cell[lost], grown[lost], rows * width))
    grown[lost] = 0.0
    is_sampled = np.zeros(rows * width, bool)
    is_sampled[cell] = True
    is_alive = is_sampled.copy()
    _bridge(is_alive, real, cell, wide[~is_far])
    placed = np.bincount(cell, grown, rows * width).astype(np.float64, copy=False)
    placed[~is_alive] = np.nan
    return Growth(
        cut(placed),
        unplaced,
        cut(is_sampled),
        np.bincount(real.row_of(resets[in_day[resets]]), minlength=rows),
        np.bincount(real.row_of(born), minlength=rows),
    )


def _in_day(minute: Ints) -> Bools:
    return (minute >= 0) & (minute < MINUTES)


def _bridge(is_alive: Bools, real: Slices, cell: Ints, near: Ints) -> None:
    """Marks the minutes between each sample of `near` and the one before it."""
    steps = cell[near] - cell[near - 1]
    for back in range(1, LOOKBACK // MINUTE):
        near, steps = near[steps > back], steps[steps > back]
        is_alive[cell[near] - back] = True


def target_of(labels: Mapping[str, str]) -> tuple[str, ...] | None:
    """Instance, pod and job, empty where there is none; None without any of them."""
    found = tuple(labels.get(name, "") for name in _TARGET)
    return found if any(found) else None


def _born(samples: DaySamples, real: Slices, appears: Ints) -> Ints:
    """Of the samples with which series appear, those of series that were born at 0."""
    if not len(appears):
        return appears
    keys = [(found[NAME], target_of(found)) for found in samples.texts]
    by_key: dict[tuple[str, tuple[str, ...] | None], list[int]] = {}
    for place, row in zip(appears.tolist(), real.row_of(appears).tolist(), strict=True):
        if keys[row][1] is not None:
            by_key.setdefault(keys[row], []).append(place)
    members: dict[tuple[str, tuple[str, ...] | None], list[int]] = {}
    for row, key in enumerate(keys):
        if key in by_key:
            members.setdefault(key, []).append(row)
    born = [np.zeros(0, np.int64)]
    for key, found in by_key.items():
        places = np.array(found, dtype=np.int64)
        born.append(places[_is_vouched(samples, np.array(members[key], dtype=np.int64), real.time[places])])
    return np.sort(np.concatenate(born))


def _is_vouched(samples: DaySamples, rows: Ints, times: Ints) -> Bools:
    """Whether any one of the series has a sample at each time and one in the 5 minutes before: what appears then has none."""
    distinct, where = np.unique(times, return_inverse=True)
    theirs = samples.of(rows, is_real=True)
    now = theirs.since(distinct)
    was_there, is_there = now > theirs.since(distinct - LOOKBACK), theirs.until(distinct) > now
    return np.asarray((was_there & is_there).any(axis=0))[where]
