"""What counters really grew by in each minute of a day, without extrapolation: resets, gaps, and series that appear.

What a counter grew by between two samples belongs to the minute of the later one. Not here: which counters an SLO adds up
(`grid.py`), and which of its minutes are known (`day_counts.py`).

- A value that falls is a reset: the counter began again at 0, and the new value is the growth.
- Over more than 5 minutes without a sample of the series nobody knows in which minute it grew: unplaced.
- A series whose target was scraped in the 5 minutes before, and did not have it, was born at 0: its first value is growth.
  So is the value to which it fell, where it was away for longer: its process began again, and had not counted yet.
- A series that appears together with its target is unplaced by its first value; but not on the first day of its metric,
  of whose past nothing is known at all.
"""

from __future__ import annotations

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
    born, unknown = _appearances(samples, real, appears[in_day[appears]], frozenset(heads.tolist()), start)
    grown[unknown] = value[unknown]
    grown[born] = value[born]
    lost = np.setdiff1d(np.concatenate([far, unknown]), born)
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


def _appearances(
    samples: DaySamples, real: Slices, appears: Ints, heads: frozenset[int], start: int
) -> tuple[Ints, Ints]:
    """Of the samples with which series appear: those that were born, and those of which nobody knows since when."""
    if not len(appears):
        return appears, appears
    known = np.array(sorted(heads), dtype=np.int64)
    known = known[real.time[known] <= start]
    was_there = {samples.texts[row][NAME] for row in real.row_of(known).tolist()}
    members: dict[tuple[str, ...], list[int]] = {}
    target = []
    for row, found in enumerate(samples.texts):
        target.append((found[NAME], *(found.get(name, "") for name in _TARGET)))
        members.setdefault(target[-1], []).append(row)
    by_target: dict[tuple[str, ...], list[int]] = {}
    for place, row in zip(appears.tolist(), real.row_of(appears).tolist(), strict=True):
        by_target.setdefault(target[row], []).append(place)
    born: list[int] = []
    unknown: list[int] = []
    for key, places in by_target.items():
        scraped = _was_scraped(samples, np.array(members[key], dtype=np.int64), real.time[places])
        for place, was_scraped in zip(places, scraped.tolist(), strict=True):
            if was_scraped:
                born.append(place)
            elif place in heads and key[0] in was_there:
                unknown.append(place)
    return np.array(born, dtype=np.int64), np.array(unknown, dtype=np.int64)


def _was_scraped(samples: DaySamples, rows: Ints, times: Ints) -> Bools:
    """Whether any of the series had a sample in the 5 minutes before each time; one that appears then had none itself."""
    distinct, where = np.unique(times, return_inverse=True)
    theirs = samples.of(rows, is_real=True)
    is_there: Bools = theirs.since(distinct) > theirs.since(distinct - LOOKBACK)
    return np.asarray(is_there.any(axis=0))[where]
