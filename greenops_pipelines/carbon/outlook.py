"""What a plan made now may believe of the hours ahead, per zone and interval: the best source that was known by then.

The provider's newest forecast comes first; what it does not reach is forecast from the zone's own past. Nothing that was
observed after `now` is read, so that a plan can be made again later as it was. Not here: the methods
(`forecasting.py`), and how good they are (`forecast_scores.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from greenops_pipelines.carbon.forecasting import (
    US_PER_MINUTE,
    Floats,
    Ints,
    Series,
    common_step,
    on_grid,
    ridge,
    series,
    week_mean,
)
from greenops_pipelines.instants import micros
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.schema import TIMESTAMP
from greenops_pipelines.lake.tables import CARBON_OUTLOOK

_log = logging.getLogger(__name__)

FORECAST_AGE = timedelta(hours=24)
"""An older forecast of the provider is not believed: its day ahead is over."""

RIDGE_AGE = timedelta(hours=24)
"""Ridge lives from the last hours; a record that ended earlier leaves the week's mean."""

RECORD_AGE = timedelta(days=7)
"""A record that ended earlier says nothing about the hours ahead."""

_TRAINING = timedelta(days=70)
"""56 days of targets and the week of lags before them, in whole weeks: ridge's models are trained up to the last value."""

_METHODS = ("provider", "ridge", "week_mean", "persistence")
_RIDGE, _WEEK_MEAN, _PERSISTENCE = 1, 2, 3


@dataclass(frozen=True)
class Outlook:
    """`rows` of CARBON_OUTLOOK, how many came from each method, and what is missing.

    `missing` counts intervals that no method knows anything of; `empty_zones` have such intervals only.
    """

    rows: pa.Table
    counts: Mapping[str, int]
    missing: int
    empty_zones: tuple[str, ...]


def outlook(lake: Lake, provider: str, zones: Iterable[str], now: datetime, hours: int = 72) -> Outlook:
    """One row per zone and interval from the one that `now` lies in, for `hours` hours, as known at `now`.

    Per interval the newest forecast of the configured `provider` (its name), not older than `FORECAST_AGE`; else ridge
    on the record as of `now`; else the week's mean; else no row. The interval is the most common one of the record or
    of the forecast, whichever is shorter. Whatever the provider did not forecast is logged as a warning, and counted.
    """
    wanted = sorted(set(zones))
    asked = {"provider": provider, "zones": wanted, "now": now}
    since = {"start": now - _TRAINING - RECORD_AGE}
    ahead = {"issued": now - FORECAST_AGE, "until": now + timedelta(hours=hours)}
    with lake.connect(["carbon_intensity", "carbon_forecast"]) as connection:
        known = connection.execute(_KNOWN, asked | since).fetchnumpy()
        issued = connection.execute(_ISSUED, asked | ahead).fetchnumpy()
    tables: list[pa.Table] = []
    counts = dict.fromkeys(_METHODS, 0)
    missing, empty = 0, []
    unsaid: dict[str, list[str]] = {}
    for zone in wanted:
        found = _zone(_of(zone, known), _of(zone, issued), micros(now), hours)
        own = {name: int((found.method == code).sum()) for code, name in enumerate(_METHODS)}
        counts = {name: counts[name] + own[name] for name in _METHODS}
        lacking = len(found.values) - sum(own.values())
        missing += lacking
        if not sum(own.values()):
            empty.append(zone)
        instead = {name: count for name, count in own.items() if count and name != "provider"}
        if lacking:
            instead["nobody"] = lacking
        if instead:
            said = ", ".join(f"{count} by {name}" for name, count in instead.items())
            unsaid.setdefault(said, []).append(zone)
        tables.append(_table(zone, found, now))
    if unsaid:
        shown = "; ".join(f"{said} ({', '.join(its)})" for said, its in unsaid.items())
        _log.warning("next %d hours: intervals that the provider does not forecast: %s", hours, shown)
    return Outlook(pa.concat_tables([CARBON_OUTLOOK.schema.empty_table(), *tables]), counts, missing, tuple(empty))


_KNOWN = """
select zone, epoch_us(datetime) as start_us, resolution_minutes::bigint as minutes, carbon_intensity_g_per_kwh as value
from carbon_intensity_as_of($now)
where provider = $provider and list_contains($zones, zone)
    and datetime >= $start and day >= $start::date and datetime + to_minutes(resolution_minutes) <= $now
order by zone, datetime
"""

# A day is that of `observed_at`: a vendor's clock may be ahead of ours, hence a day more.
_ISSUED = """
select
    zone, epoch_us(issued_at) as issued_us, epoch_us(datetime) as start_us, resolution_minutes::bigint as minutes,
    carbon_intensity_g_per_kwh as value
from carbon_forecast
where provider = $provider and list_contains($zones, zone)
    and observed_at <= $now and issued_at >= $issued and day >= $issued::date - 1
    and datetime < $until and datetime + to_minutes(resolution_minutes) > $now - interval 1 hour
order by zone, issued_at, datetime
"""


@dataclass(frozen=True)
class _Believed:
    """Consecutive slots of one zone from the one that now lies in; `method` indexes `_METHODS`, -1 is none."""

    start_us: int
    step_minutes: int
    values: Floats
    method: Ints
    issued_us: Ints


def _of(zone: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    chosen = rows["zone"] == zone
    return {name: values[chosen] for name, values in rows.items()}


def _zone(known: Mapping[str, Any], issued: Mapping[str, Any], now_us: int, hours: int) -> _Believed:
    steps = [common_step(rows["minutes"]) for rows in (known, issued) if len(rows["minutes"])]
    step_minutes = min(steps, default=60)
    step = step_minutes * US_PER_MINUTE
    start, slots = now_us // step * step, hours * 60 // step_minutes
    values, issued_us = _issued(issued, start, step_minutes, slots)
    method = np.where(np.isnan(values), -1, 0)
    if len(known["value"]) and np.isnan(values).any():
        record = series(known["start_us"], known["minutes"], known["value"], step_minutes)
        own, own_method, until_us = _own(record, start, slots, now_us)
        is_own = np.isnan(values)
        values = np.where(is_own, own, values)
        method = np.where(is_own, own_method, method)
        issued_us = np.where(is_own, until_us, issued_us)
    return _Believed(start, step_minutes, values, method, issued_us)


def _issued(rows: Mapping[str, Any], start_us: int, step_minutes: int, slots: int) -> tuple[Floats, Ints]:
    """Per slot the value of the newest forecast that has one, and when that was issued; NaN and 0 where none has."""
    times, lines = np.unique(rows["issued_us"], return_inverse=True)
    if not len(times):
        return np.full(slots, np.nan), np.zeros(slots, dtype=np.int64)
    grid = on_grid(
        rows["start_us"],
        rows["minutes"],
        rows["value"],
        first_us=np.full(len(times), start_us),
        step_minutes=step_minutes,
        slots=slots,
        lines=lines,
    )
    newest = len(times) - 1 - np.isfinite(grid[::-1]).argmax(axis=0)
    return grid[newest, np.arange(slots)], times[newest]


def _own(record: Series, start_us: int, slots: int, now_us: int) -> tuple[Floats, Ints, int]:
    """Values and methods from the zone's past, issued at the end of its newest interval, and when that was."""
    known = int(np.flatnonzero(np.isfinite(record.values)).max(initial=-1)) + 1
    step, week = record.step_minutes * US_PER_MINUTE, 7 * record.per_day
    until_us = record.start_us + known * step
    age = timedelta(microseconds=now_us - until_us)
    if not known or age > RECORD_AGE:
        return np.full(slots, np.nan), np.full(slots, -1), until_us
    # Whole weeks up to the issue: ridge retrains every seven days from the first value, so at the issue too.
    missing = -known % week
    values = np.concatenate([np.full(missing, np.nan), record.values[:known]])
    padded = Series(record.start_us - missing * step, record.step_minutes, values)
    gap = (start_us - until_us) // step
    issue, horizon = np.array([len(values)]), gap + slots
    mean = week_mean(values, issue, horizon, record.per_day)
    method = np.where(mean.is_fallback, _PERSISTENCE, _WEEK_MEAN)
    best = mean.values
    if age <= RIDGE_AGE:
        found = ridge(values, issue, horizon, record.per_day, week_slot=padded.week_slot)
        method, best = np.where(found.is_fallback, method, _RIDGE), found.values
    method = np.where(np.isnan(best), -1, method)
    return best[0, gap:], method[0, gap:], until_us


def _table(zone: str, found: _Believed, now: datetime) -> pa.Table:
    is_known = found.method >= 0
    starts = found.start_us + np.arange(len(found.values)) * found.step_minutes * US_PER_MINUTE
    count = int(is_known.sum())
    return pa.table(
        {
            "zone": pa.repeat(zone, count),
            "datetime": pa.array(starts[is_known]).cast(TIMESTAMP),
            "resolution_minutes": pa.repeat(pa.scalar(found.step_minutes, pa.int32()), count),
            "carbon_intensity_g_per_kwh": found.values[is_known],
            "method": np.array(_METHODS)[found.method[is_known]],
            "issued_at": pa.array(found.issued_us[is_known]).cast(TIMESTAMP),
            "planned_at": pa.repeat(pa.scalar(now, TIMESTAMP), count),
        },
        schema=CARBON_OUTLOOK.schema,
    )
