"""Forecasts of a zone's carbon intensity from its own past: same time yesterday, mean of a week, ridge regression.

A series is a 1-D float64 array in g/kWh at a regular step, `per_day` slots a day (24, 48 or 96), NaN where there is no
value. An issue is an index i: values[:i] are known, values[i:] are not, and no method reads them. Forecasts have the
shape [issues, horizon]: entry [m, h] is for slot issues[m] + h, and NaN only where nothing is known of that time of
day for a week. Not here: the lake (`outlook.py`, `forecast_scores.py`), and any judgement of a forecast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MIN_TRAIN_DAYS = 14
"""Fewer days of complete rows train no ridge: with 25 features, it would follow single days."""

ALPHA = 0.5
"""Ridge penalty per training row, for standardised features and target. A flat optimum: over ten zones of 2022 the mean
regret of a 24 h choice is 32.2 to 32.4 % from 0.25 to 1, that of a 48 h choice 39.7 % at 0.1 and 38.6 % from 0.5 on,
while the error of the first day grows from 12.4 to 12.8 %."""

US_PER_MINUTE = 60_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WEEK = 7
_ENOUGH = 0.75


@dataclass(frozen=True)
class Series:
    """Values in g/kWh of consecutive slots of `step_minutes`; the first one begins at `start_us` (since 1970, UTC)."""

    start_us: int
    step_minutes: int
    values: Floats

    @property
    def per_day(self) -> int:
        return 1440 // self.step_minutes

    @property
    def week_slot(self) -> int:
        """Slots from the last Monday 00:00 UTC to the first value."""
        since_1970 = self.start_us // (self.step_minutes * US_PER_MINUTE)
        return (since_1970 + 3 * self.per_day) % (_WEEK * self.per_day)  # 1970-01-01 was a Thursday

    def time(self, slot: int) -> datetime:
        """Start of a slot."""
        return _EPOCH + timedelta(microseconds=self.start_us) + timedelta(minutes=self.step_minutes) * slot


@dataclass(frozen=True)
class Forecasts:
    """Values in g/kWh [issues, horizon], and which of them came from a simpler method than the one asked for."""

    values: Floats
    is_fallback: Bools


class Method(Protocol):
    """A method of `METHODS`. `week_slot` is the place of values[0] in the week, in slots since Monday 00:00."""

    def __call__(
        self, values: Floats, issues: Ints, horizon: int, per_day: int, *, week_slot: int = 0
    ) -> Forecasts: ...


def persistence(values: Floats, issues: Ints, horizon: int, per_day: int, *, week_slot: int = 0) -> Forecasts:
    """The newest known value of the same time of day, of the seven newest days; `week_slot` changes nothing."""
    found = np.full((len(issues), horizon), np.nan)
    for day in _days_back(_known(values, issues, per_day), issues, horizon, per_day):
        found = np.where(np.isnan(found), day, found)
    return Forecasts(found, np.isnan(found))


def week_mean(values: Floats, issues: Ints, horizon: int, per_day: int, *, week_slot: int = 0) -> Forecasts:
    """Mean of the seven newest days at the same time of day, over those with a value; `week_slot` changes nothing.

    Where one day alone has a value, the mean is that day: the entry is persistence, and marked as a fallback.
    """
    mean, days = _mean(_days_back(_known(values, issues, per_day), issues, horizon, per_day))
    return Forecasts(mean, days < 2)


def ridge(
    values: Floats,
    issues: Ints,
    horizon: int,
    per_day: int,
    *,
    week_slot: int = 0,
    train_days: int = 56,
    retrain_days: int = 7,
    alpha: float = ALPHA,
) -> Forecasts:
    """Ridge regression of the deviation from the week's mean, one model per slot ahead, on calendar and lags.

    Features: two waves of the day, the weekend and its waves; the last value, those one and two hours before it, and
    what they were off their week's mean; the mean of the last day, and how far it is off the week's; the same time of
    the newest day, of the day before and a week before; the week's mean itself.

    Slots count in days from values[0]. At the start of every `retrain_days`-th day the models are trained on the
    targets of the `train_days` before it, each with the features that were known when its forecast was due; issues
    use the newest models. Where a feature is missing, or fewer than `MIN_TRAIN_DAYS` of rows are complete,
    the entry is `week_mean`'s and marked as a fallback. An intensity is never below 0: neither is the forecast.

    Ridge: Hoerl and Kennard, Technometrics 12 (1970). Raises `ValueError` for days or an alpha that are not positive.
    """
    if min(train_days, retrain_days) < 1 or not alpha > 0:
        raise ValueError(f"ridge: found train_days {train_days}, retrain_days {retrain_days}, alpha {alpha}; all > 0")
    known = _known(values, issues, per_day)
    simple = week_mean(known, issues, horizon, per_day)
    trained, which = np.unique(issues // (retrain_days * per_day) * retrain_days, return_inverse=True)
    if not len(trained) or trained[-1] == 0:
        return Forecasts(simple.values, np.ones_like(simple.is_fallback))
    first, last = max(int(trained[0]) - train_days, 0), int(trained[-1])
    until, since = trained - first, np.maximum(trained - train_days, 0) - first
    design = _Design(known, int(issues.max()) + horizon, per_day, week_slot)
    predicted = np.full((len(issues), horizon), np.nan)
    for ahead in range(horizon):
        rows = design.rows(ahead)
        daily = rows[first * per_day : last * per_day]
        # A zero row adds nothing to the moments. Dropping it would shift those behind it into another sum.
        daily = np.where(np.isfinite(daily).all(axis=1, keepdims=True), daily, 0.0).reshape(last - first, per_day, -1)
        moments = np.zeros((last - first + 1, rows.shape[1], rows.shape[1]))
        np.cumsum(daily.transpose(0, 2, 1) @ daily, axis=0, out=moments[1:])
        coefficients = _coefficients(moments[until] - moments[since], alpha, MIN_TRAIN_DAYS * per_day)
        targets = issues + ahead
        deviation = np.einsum("ij,ij->i", rows[targets, :-1], coefficients[which])
        predicted[:, ahead] = np.maximum(design.base[targets] + deviation, 0.0)
    is_fallback = np.isnan(predicted)
    return Forecasts(np.where(is_fallback, simple.values, predicted), is_fallback)


METHODS: Mapping[str, Method] = {"ridge": ridge, "week_mean": week_mean, "persistence": persistence}
"""All methods, the best first: mean regret of a 24 h choice over ten zones of 2022 is 32, 41 and 50 %."""


def noisy(values: Floats, share: float, seed: int) -> Floats:
    """`values` with normal errors of mean 0 and standard deviation `share` times their mean.

    A 2-D array is [zones, slots]: one generator, drawn zone after zone, each with its own mean. The error model of
    Wiesner et al., "Let's Wait Awhile", Middleware'21.
    """
    generator = np.random.default_rng(seed)
    lines = np.atleast_2d(np.asarray(values, dtype=np.float64))
    drawn = [line + generator.normal(0, share * _mean_of(line), size=len(line)) for line in lines]
    return np.array(drawn, dtype=np.float64).reshape(np.shape(values))


def on_grid(
    starts_us: Ints, minutes: Ints, values: Floats, *, first_us: Ints, step_minutes: int, slots: int, lines: Ints
) -> Floats:
    """Intervals on regular grids, [len(first_us), slots]: interval n belongs to line lines[n], which begins at
    first_us[lines[n]] (a multiple of the step since 1970, as `starts_us` are).

    An interval longer than the step is repeated. Shorter ones are averaged where they fill the step, and win over a
    longer one that says something about the same time. NaN where there is nothing.
    """
    grid = np.full(len(first_us) * slots, np.nan)
    step = step_minutes * US_PER_MINUTE
    offset = (starts_us - first_us[lines]) // step
    for length in np.unique(minutes)[::-1]:
        chosen = minutes == length
        line, begin, value = lines[chosen], offset[chosen], values[chosen]
        for slot in range(max(int(length) // step_minutes, 1)):
            inside = (begin + slot >= 0) & (begin + slot < slots)
            place = (line * slots + begin + slot)[inside]
            if length >= step_minutes:
                grid[place] = value[inside]
            else:
                filled = np.bincount(place, minlength=len(grid)) * length >= step_minutes
                total = np.bincount(place, value[inside], minlength=len(grid))
                grid[filled] = total[filled] * length / step_minutes
    return grid.reshape(len(first_us), slots)


def common_step(minutes: Ints) -> int:
    """The most common length of at least one interval, the shortest of equals."""
    lengths, counts = np.unique(minutes, return_counts=True)
    return int(lengths[counts.argmax()])


def series(starts_us: Ints, minutes: Ints, values: Floats, step_minutes: int) -> Series:
    """A zone's intervals (at least one) on their grid, from the first one to the end of the last."""
    step = step_minutes * US_PER_MINUTE
    first = int(starts_us.min()) // step * step
    slots = -((first - int((starts_us + minutes * US_PER_MINUTE).max())) // step)
    line, none = np.array([first], dtype=np.int64), np.zeros(len(starts_us), dtype=np.int64)
    grid = on_grid(starts_us, minutes, values, first_us=line, step_minutes=step_minutes, slots=slots, lines=none)
    return Series(first, step_minutes, grid[0])


class _Design:
    """Features and target of every slot below `end`, by target slot, for forecasts that are due `ahead` before it."""

    def __init__(self, known: Floats, end: int, per_day: int, week_slot: int) -> None:
        values = np.full(end, np.nan)
        values[: len(known)] = known[:end]
        self._values, self._per_day, self._day = values, per_day, 0
        slot = np.arange(end)
        angle = 2 * np.pi * slot / per_day
        waves = np.stack([f(k * angle) for k in (1, 2) for f in (np.sin, np.cos)], axis=1)
        weekend = ((slot + week_slot) // per_day % _WEEK >= 5).astype(np.float64)[:, None]
        self._fixed = np.hstack([np.ones((end, 1)), waves, weekend, weekend * waves])
        self._waves = waves
        hour = per_day // 24
        deviation = values - _mean(_lag(values, day * per_day) for day in range(1, _WEEK + 1))[0]
        day_mean, week_mean = _trailing_mean(values, per_day), _trailing_mean(values, _WEEK * per_day)
        self._state = np.stack(
            [
                *(_lag(deviation, back * hour) for back in range(3)),
                *(_lag(values, back * hour) for back in range(3)),
                day_mean,
                day_mean - week_mean,
            ],
            axis=1,
        )
        fixed, state, wave = self._fixed.shape[1], self._state.shape[1], waves.shape[1]
        self._rows = np.full((end, fixed + state + wave + 5), np.nan)
        self._rows[:, :fixed] = self._fixed
        self._at_issue, self._by_wave = slice(fixed, fixed + state), slice(fixed + state, fixed + state + wave)
        self.base = np.full(end, np.nan)

    def rows(self, ahead: int) -> Floats:
        """[end, features + 1]: 1, features, target; the array is used again by the next call. `base`: what the
        target is a deviation from."""
        rows, per_day, due = self._rows, self._per_day, ahead + 1
        day = ahead // per_day + 1
        if day != self._day:
            self._day = day
            same_time = [_lag(self._values, (day + back) * per_day) for back in range(_WEEK)]
            self.base = _mean(same_time)[0]
            week = -(-day // _WEEK) * _WEEK
            rows[:, -5:] = np.stack(
                [
                    same_time[0],
                    same_time[1],
                    _lag(self._values, week * per_day),
                    self.base,
                    self._values - self.base,
                ],
                axis=1,
            )
        rows[due:, self._at_issue] = self._state[:-due]
        rows[due:, self._by_wave] = self._waves[due:] * self._state[:-due, :1]
        return rows


def _coefficients(moments: Floats, alpha: float, fewest: int) -> Floats:
    """[models, features + 1] from the moments of (1, features, target); NaN where there were fewer rows."""
    rows = moments[:, 0, 0]
    counted = np.maximum(rows, 1.0)[:, None]
    mean = moments[:, 0, 1:] / counted
    covariance = moments[:, 1:, 1:] / counted[:, :, None] - mean[:, :, None] * mean[:, None, :]
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    # What is left of a constant is rounding, some 1e-16 of its square: it has no deviation to divide by.
    deviation = np.where(variance > 1e-12 * (variance + mean**2), np.sqrt(np.maximum(variance, 0.0)), np.inf)
    correlation = covariance / deviation[:, :, None] / deviation[:, None, :]
    features = correlation.shape[1] - 1
    system = correlation[:, :features, :features] + alpha * np.eye(features)
    slopes = np.linalg.solve(system, correlation[:, :features, features:])[:, :, 0]
    scale = np.where(np.isinf(deviation[:, -1:]), 0.0, deviation[:, -1:])
    slopes = slopes * scale / deviation[:, :-1]
    intercept = mean[:, -1] - (slopes * mean[:, :-1]).sum(axis=1)
    return np.where(rows[:, None] >= fewest, np.column_stack([intercept, slopes]), np.nan)


def _known(values: Floats, issues: Ints, per_day: int) -> Floats:
    """The values, infinity being none. Raises `ValueError` for issues outside the series and odd days."""
    if per_day < 24 or per_day % 24:
        raise ValueError(f"per_day: found {per_day}, allowed: a multiple of 24")
    if len(issues) and not 0 <= issues.min() <= issues.max() <= len(values):
        raise ValueError(f"issues: found {issues.min()} to {issues.max()}, allowed: 0 to {len(values)}")
    return np.where(np.isfinite(values), values, np.nan)


def _days_back(known: Floats, issues: Ints, horizon: int, per_day: int) -> Iterator[Floats]:
    """The seven newest days, newest first: each target's value of the same time of day, all before the issue."""
    ahead = np.arange(horizon)
    newest = issues[:, None] + ahead % per_day - per_day
    padded = np.concatenate([[np.nan], known])
    for day in range(_WEEK):
        yield padded[np.maximum(newest - day * per_day + 1, 0)]


def _lag(values: Floats, slots: int) -> Floats:
    lagged = np.full(len(values), np.nan)
    lagged[slots:] = values[: max(len(values) - slots, 0)]
    return lagged


def _mean(arrays: Iterator[Floats] | list[Floats]) -> tuple[Floats, Ints]:
    """Mean of arrays of one shape over those with a value, NaN where none has one; and how many have one."""
    total: Floats | float = 0.0
    count: Ints | int = 0
    for array in arrays:
        total = total + np.where(np.isnan(array), 0.0, array)
        count = count + ~np.isnan(array)
    counted = np.asarray(count, dtype=np.int64)
    return np.where(counted > 0, total / np.maximum(counted, 1), np.nan), counted


def _trailing_mean(values: Floats, slots: int) -> Floats:
    """Mean of each slot and those before it, `slots` in all; NaN where less than three quarters have a value."""
    is_known = ~np.isnan(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(is_known, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(is_known)])
    begin = np.maximum(np.arange(1, len(values) + 1) - slots, 0)
    held = count[1:] - count[begin]
    return np.where(held >= _ENOUGH * slots, (total[1:] - total[begin]) / np.maximum(held, 1), np.nan)


def _mean_of(values: Floats) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
