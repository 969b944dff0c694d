"""What a forecast was worth: its error, and the saving lost by acting on it (regret), replayed over the record.

Replay convention: an interval's value is known at its end and as it stands in the lake now. Publication delay and later
revisions are left out, which flatters every method alike, not the provider's own forecasts: those stand as issued.
Regret is what counts. A forecast that is wrong by a constant costs nothing, one that swaps two hours does, and the mean
error sees no difference. Not here: the methods (`forecasting.py`), and what a plan may believe now (`outlook.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.carbon.forecasting import (
    METHODS,
    US_PER_MINUTE,
    Bools,
    Floats,
    Forecasts,
    Ints,
    Series,
    common_step,
    on_grid,
    series,
)
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.tables import FORECAST_SCORES

_log = logging.getLogger(__name__)

HORIZONS_HOURS = (6, 12, 24, 48)
RECORD_DAYS = 365
WARM_UP_DAYS = 60
"""Issues are scored from this day of the record on (from its middle, if that is earlier): ridge trains on 56 days."""


@dataclass(frozen=True)
class Score:
    """One forecast method over one horizon.

    `issues` were scored; `left_out` had a gap in the actual or the forecast values. Windows that reach beyond the
    record are not over yet, and count nowhere. `first` and `last` are the first and the last issue index scored.
    Figures are None where there is nothing to divide by.
    """

    issues: int
    left_out: int
    mae_g_per_kwh: float | None
    mape_pct: float | None
    regret_pct: float | None
    fallback_pct: float | None
    first: int | None
    last: int | None


def scores(
    values: Floats,
    issues: Ints,
    forecasts: Forecasts,
    per_day: int,
    horizons_hours: Sequence[int] = HORIZONS_HOURS,
) -> dict[int, Score]:
    """Score per horizon in hours, of forecasts [issues, slots] against actual `values` in g/kWh.

    Regret: one hour of work is submitted at every issue, with that many hours to choose from. Of the saving that the
    cheapest hour has over running at once, the percentage that is lost by running where the forecast is lowest.
    Raises `ValueError` for a horizon beyond the forecasts.
    """
    reach = forecasts.values.shape[1] * 24 // per_day
    if not horizons_hours or not 1 <= min(horizons_hours) <= max(horizons_hours) <= reach:
        raise ValueError(f"horizons_hours: found {tuple(horizons_hours)}, allowed: 1 to {reach}, what was forecast")
    return {hours: _score(values, issues, forecasts, per_day, hours) for hours in horizons_hours}


def score_table(
    provider: str, record: Mapping[str, Series], issued: Mapping[str, tuple[Ints, Floats]] | None = None
) -> pa.Table:
    """Rows of FORECAST_SCORES: all methods over every zone's record, an issue every hour, horizons up to 48 h.

    `issued` holds the provider's own forecasts per zone: issue indices into the record, and values [issues, slots].
    A horizon without a scored issue is no row.
    """
    rows: list[dict[str, object]] = []
    for zone, known in record.items():
        for method, found in _scored(known, (issued or {}).get(zone)):
            for hours, score in found.items():
                if score.first is None or score.last is None:
                    _log.info("zone %s, %s, %d h: no window is over and whole; no score", zone, method, hours)
                    continue
                rows.append(
                    {
                        "provider": provider,
                        "zone": zone,
                        "method": method,
                        "horizon_hours": hours,
                        "issues": score.issues,
                        "left_out": score.left_out,
                        "mae_g_per_kwh": score.mae_g_per_kwh,
                        "mape_pct": score.mape_pct,
                        "regret_pct": score.regret_pct,
                        "fallback_pct": score.fallback_pct,
                        "scored_from": known.time(score.first),
                        "scored_to": known.time(score.last),
                    }
                )
    return pa.Table.from_pylist(rows, schema=FORECAST_SCORES.schema)


def score(lake: Lake, provider_name: str, zones: Iterable[str], now: datetime) -> pa.Table:
    """Rows of FORECAST_SCORES for the last `RECORD_DAYS` of the configured provider's record.

    A zone's grid has the most common resolution of its record; coarser intervals are repeated. Of the provider's
    forecasts, the window begins with the interval in which they were issued.
    """
    record: dict[str, Series] = {}
    issued: dict[str, tuple[Ints, Floats]] = {}
    asked = {"provider": provider_name, "start": now - timedelta(days=RECORD_DAYS), "now": now}
    wanted = sorted(set(zones))
    with lake.connect(["carbon_intensity", "carbon_forecast"]) as connection:
        known: dict[str, Any] = connection.execute(_RECORD, asked | {"zones": wanted}).fetchnumpy()
        for zone in wanted:
            of_zone = known["zone"] == zone
            if not of_zone.any():
                _log.warning("zone %s: no intensity of %s in %d days; no score", zone, provider_name, RECORD_DAYS)
                continue
            starts, minutes, values = (known[name][of_zone] for name in ("start_us", "minutes", "value"))
            record[zone] = series(starts, minutes, values, common_step(minutes))
            ahead = connection.execute(_ISSUED, asked | {"zone": zone}).fetchnumpy()
            if len(ahead["start_us"]):
                issued[zone] = _issued(ahead, record[zone])
    return score_table(provider_name, record, issued)


_RECORD = """
select zone, epoch_us(datetime) as start_us, resolution_minutes::bigint as minutes, carbon_intensity_g_per_kwh as value
from carbon_intensity
where provider = $provider and list_contains($zones, zone)
    and datetime >= $start and day >= $start::date and datetime + to_minutes(resolution_minutes) <= $now
order by zone, datetime
"""

_ISSUED = """
select
    epoch_us(issued_at) as issued_us, epoch_us(datetime) as start_us, resolution_minutes::bigint as minutes,
    carbon_intensity_g_per_kwh as value
from carbon_forecast
where provider = $provider and zone = $zone and observed_at <= $now and issued_at >= $start and day >= $start::date
order by issued_at, datetime
"""


def _issued(rows: Mapping[str, Any], record: Series) -> tuple[Ints, Floats]:
    """The provider's forecasts as issued: issue indices into the record, and values of the longest horizon."""
    step = record.step_minutes * US_PER_MINUTE
    times, lines = np.unique(rows["issued_us"], return_inverse=True)
    issues = (times - record.start_us) // step
    grid = on_grid(
        rows["start_us"],
        rows["minutes"],
        rows["value"],
        first_us=record.start_us + issues * step,
        step_minutes=record.step_minutes,
        slots=max(HORIZONS_HOURS) * record.per_day // 24,
        lines=lines,
    )
    inside = (issues >= 0) & (issues < len(record.values))
    return issues[inside], grid[inside]


def _scored(record: Series, issued: tuple[Ints, Floats] | None) -> Iterator[tuple[str, dict[int, Score]]]:
    values, per_day = record.values, record.per_day
    first = min(WARM_UP_DAYS * per_day, len(values) // 2)
    issues = np.arange(first, len(values), per_day // 24)
    for name, method in METHODS.items():
        found = method(values, issues, max(HORIZONS_HOURS) * per_day // 24, per_day, week_slot=record.week_slot)
        yield name, scores(values, issues, found, per_day)
    if issued is not None:
        of_provider = Forecasts(issued[1], np.zeros(issued[1].shape, dtype=np.bool_))
        yield "provider", scores(values, issued[0], of_provider, per_day)


def _score(values: Floats, issues: Ints, forecasts: Forecasts, per_day: int, hours: int) -> Score:
    slots = hours * per_day // 24
    is_over = issues + slots <= len(values)
    actual = values[issues[is_over][:, None] + np.arange(slots)]
    forecast = forecasts.values[is_over, :slots]
    whole: Bools = np.isfinite(actual).all(axis=1) & np.isfinite(forecast).all(axis=1)
    scored, left_out = issues[is_over][whole], int((~whole).sum())
    if not len(scored):
        return Score(0, left_out, None, None, None, None, None, None)
    actual, forecast = actual[whole], forecast[whole]
    error, is_positive = np.abs(forecast - actual), actual > 0
    # An hour of work fills several slots of a finer grid: it is placed where their mean is lowest.
    costs, believed = _hourly(actual, per_day // 24), _hourly(forecast, per_day // 24)
    cheapest = costs.min(axis=1)
    chosen = np.take_along_axis(costs, believed.argmin(axis=1)[:, None], axis=1)[:, 0]
    lost, possible = float((chosen - cheapest).sum()), float((costs[:, 0] - cheapest).sum())
    return Score(
        issues=len(scored),
        left_out=left_out,
        mae_g_per_kwh=float(error.mean()),
        mape_pct=float(100 * (error[is_positive] / actual[is_positive]).mean()) if is_positive.any() else None,
        regret_pct=100 * lost / possible if possible > 0 else None,
        fallback_pct=float(100 * forecasts.is_fallback[is_over, :slots][whole].mean()),
        first=int(scored.min()),
        last=int(scored.max()),
    )


def _hourly(values: Floats, slots: int) -> Floats:
    """Mean of each slot and those behind it that make an hour, along the last axis."""
    if slots == 1:
        return values
    return np.asarray(np.lib.stride_tricks.sliding_window_view(values, slots, axis=1).mean(axis=-1))


def day_ahead(rows: pa.Table) -> pa.Table:
    """The scores for 24 hours, with the columns that a person compares."""
    names = ["zone", "method", "mape_pct", "regret_pct", "fallback_pct"]
    return rows.filter(pc.equal(rows["horizon_hours"], 24)).select(names)
