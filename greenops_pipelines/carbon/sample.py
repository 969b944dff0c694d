"""Sample data: a seeded model of grids, hour by hour. It stands in for no real grid and says so in every row.

A value depends on nothing but zone and hour: any range, asked in any order, gives the same figures. It is a mean
with a daily shape (a morning and an evening peak, a midday dip where there is sun), a season, a quieter weekend and
wind-like noise (a sum of slow waves with seeded phases, so that neighbouring hours resemble each other).

Like a real source it revises: an hour is an estimate for a day, then final. Its forecast errs more the further it
looks, about 4 % after an hour and 12 % after two days.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from greenops_pipelines.carbon.provider import FORECAST, POINTS
from greenops_pipelines.errors import ProviderError
from greenops_pipelines.instants import micros

Floats = npt.NDArray[np.float64]

HORIZON_HOURS = 72
_FINAL_AFTER = timedelta(hours=24)
_HOUR = 3_600_000_000
_WAVES = 14


@dataclass(frozen=True)
class Grid:
    """Shape of a modelled grid: mean in gCO2e/kWh, the rest as shares of the mean."""

    mean: float
    daily: float
    solar: float
    season: float
    weekend: float
    wind: float


# Orders of magnitude of the real grids' life-cycle intensity in the early 2020s, rounded; shapes are invented.
GRIDS: Mapping[str, Grid] = {
    "US-MIDA-PJM": Grid(420, 0.05, 0.03, 0.04, 0.02, 0.05),
    "DE": Grid(430, 0.10, 0.20, 0.10, 0.09, 0.28),
    "IE": Grid(380, 0.08, 0.04, 0.06, 0.04, 0.30),
    "FR": Grid(80, 0.10, 0.08, 0.25, 0.08, 0.18),
    "ES": Grid(190, 0.10, 0.25, 0.06, 0.08, 0.22),
    "SE-SE3": Grid(24, 0.06, 0.02, 0.10, 0.04, 0.10),
    "GB": Grid(230, 0.12, 0.08, 0.06, 0.07, 0.32),
    "US-CAL-CISO": Grid(260, 0.08, 0.38, 0.08, 0.04, 0.09),
    "US-NW-PACW": Grid(240, 0.08, 0.05, 0.10, 0.03, 0.14),
    "CA-QC": Grid(29, 0.04, 0.01, 0.06, 0.02, 0.05),
    "IT-NO": Grid(330, 0.10, 0.18, 0.06, 0.10, 0.10),
    "CA-AB": Grid(480, 0.05, 0.06, 0.04, 0.02, 0.16),
}


class SampleProvider:
    """The default provider: needs no account and no network."""

    name = "sample"
    signal = "average"
    emission_factor_type = "lifecycle"

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock

    def covers(self, zone: str) -> bool:
        return zone in GRIDS

    def span(self) -> None:
        return None

    def history(self, zone: str, start: datetime, end: datetime) -> pa.Table:
        now = self._clock()
        hours = _hours(start, end, now)
        estimated = hours > micros(now - _FINAL_AFTER)
        values = intensity(zone, hours)
        values = np.where(estimated, values * (1 + 0.02 * _noise(zone, "estimate", hours)), values)
        count = len(hours)
        return pa.table(
            {
                "zone": pa.repeat(zone, count),
                "datetime": pa.array(hours).cast(POINTS.field("datetime").type),
                "resolution_minutes": pa.repeat(pa.scalar(60, pa.int32()), count),
                "carbon_intensity_g_per_kwh": np.round(values, 2),
                "signal": pa.repeat(self.signal, count),
                "emission_factor_type": pa.repeat(self.emission_factor_type, count),
                "is_flow_traced": pa.repeat(pa.scalar(True), count),
                "is_estimated": estimated,
                "estimation_method": pa.repeat("SEEDED_MODEL", count),
                "updated_at": pa.nulls(count, POINTS.field("updated_at").type),
            },
            schema=POINTS,
        )

    def forecast(self, zone: str) -> pa.Table:
        issued = self._clock().replace(minute=0, second=0, microsecond=0)
        until = issued + timedelta(hours=HORIZON_HOURS)
        hours = _hours(issued, until, until)
        ahead = np.arange(1, len(hours) + 1)
        drift = _noise(zone, f"forecast:{micros(issued)}", hours)
        values = intensity(zone, hours) * (1 + drift * 0.04 * np.sqrt(ahead) ** 0.6)
        count = len(hours)
        return pa.table(
            {
                "zone": pa.repeat(zone, count),
                "issued_at": pa.repeat(pa.scalar(issued, FORECAST.field("issued_at").type), count),
                "datetime": pa.array(hours).cast(FORECAST.field("datetime").type),
                "resolution_minutes": pa.repeat(pa.scalar(60, pa.int32()), count),
                "carbon_intensity_g_per_kwh": np.round(np.maximum(values, 1.0), 2),
                "signal": pa.repeat(self.signal, count),
                "emission_factor_type": pa.repeat(self.emission_factor_type, count),
            },
            schema=FORECAST,
        )


def intensity(zone: str, hours: npt.NDArray[np.int64]) -> Floats:
    """Modelled gCO2e/kWh for hours given as microseconds since 1970, UTC; `ProviderError` for an unknown zone."""
    if zone not in GRIDS:
        raise ProviderError(f"sample: zone {zone}: not modelled; modelled: {', '.join(sorted(GRIDS))}")
    grid = GRIDS[zone]
    index = hours // _HOUR
    hour, day = index % 24, index // 24
    peaks = np.cos(2 * np.pi * (hour - 19) / 24) + 0.5 * np.cos(4 * np.pi * (hour - 8) / 24)
    sun = np.exp(-(((hour - 12) / 3.0) ** 2)) * (1 + 0.5 * np.cos(2 * np.pi * (day % 365.25 - 172) / 365.25))
    season = np.cos(2 * np.pi * (day % 365.25 - 15) / 365.25)
    weekend = ((day + 3) % 7 >= 5).astype(np.float64)  # 1970-01-01 was a Thursday
    share = (
        1 + grid.daily * peaks - grid.solar * sun + grid.season * season - grid.weekend * weekend
    ) + grid.wind * _noise(zone, "wind", hours)
    return np.asarray(grid.mean * np.maximum(share, 0.15), dtype=np.float64)


def _noise(zone: str, purpose: str, hours: npt.NDArray[np.int64]) -> Floats:
    """Smooth noise of mean 0 and standard deviation about 1: waves of 5 hours to 12 days with seeded phases."""
    seed = int.from_bytes(hashlib.sha256(f"greenops:{zone}:{purpose}".encode()).digest()[:8], "big")
    generator = np.random.default_rng(seed)
    periods = np.geomspace(5, 288, _WAVES) * generator.uniform(0.9, 1.1, _WAVES)
    phases = generator.uniform(0, 2 * np.pi, _WAVES)
    weights = np.sqrt(periods)
    weights /= np.sqrt((weights**2).sum() / 2)
    angle = 2 * np.pi * (hours[:, None] / _HOUR) / periods + phases
    return np.asarray((np.sin(angle) * weights).sum(axis=1), dtype=np.float64)


def _hours(start: datetime, end: datetime, now: datetime) -> npt.NDArray[np.int64]:
    """Starts of the full hours in [start, end) that have ended by `now`, as microseconds."""
    first = -(-micros(start) // _HOUR)
    last = min(-(-micros(end) // _HOUR), micros(now) // _HOUR)
    return np.arange(first, max(first, last), dtype=np.int64) * _HOUR
