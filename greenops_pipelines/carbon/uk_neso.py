"""Carbon Intensity API of Great Britain's system operator NESO: half-hourly average intensity, without a key. CC BY 4.0.

`emission_factor_type` is `direct`: the forecast "includes CO2 emissions related to electricity generation only"
(carbonintensity.org.uk), and its factors put wind, solar, hydro and nuclear at 0 and gas (CCGT) at 394 g/kWh (NESO,
National Carbon Intensity Forecast methodology, May 2024). Imports are counted at the exporting country's average:
that is not flow tracing, and `is_flow_traced` stays null.

Contract: https://carbon-intensity.github.io/api-definitions/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pydantic import Field

from greenops_pipelines.carbon.payload import (
    Instant,
    Payload,
    Point,
    forecast_table,
    points_table,
    said,
    validated,
    windows,
    within,
)
from greenops_pipelines.errors import ProviderError
from greenops_pipelines.http import HttpClient, HttpStatusError
from greenops_pipelines.settings import Settings

BASE_URL = "https://api.carbonintensity.org.uk"
ZONE = "GB"
MAX_DAYS_PER_CALL = 14
RESOLUTION_MINUTES = 30

_HALF_HOUR = timedelta(minutes=RESOLUTION_MINUTES)


class _Intensity(Payload):
    forecast: float | None
    actual: float | None


class _HalfHour(Payload):
    start: Instant = Field(alias="from")
    end: Instant = Field(alias="to")
    intensity: _Intensity


class _Answer(Payload):
    data: list[_HalfHour]


class UkNeso:
    """`Provider` over `http`, whose base URL is the vendor's root. Its one zone is GB."""

    name = "uk-neso"
    signal = "average"
    emission_factor_type = "direct"

    def __init__(self, http: HttpClient, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._http = http
        self._now = now

    @classmethod
    def from_settings(cls, settings: Settings) -> UkNeso:
        return cls(HttpClient(settings.carbon_base_url or BASE_URL))

    def covers(self, zone: str) -> bool:
        return zone == ZONE

    def span(self) -> None:
        return None

    def history(self, zone: str, start: datetime, end: datetime) -> pa.Table:
        """One row per half-hour that is over, null where `actual` is; a half-hour to come is no gap, and no row."""
        points: list[Point] = []
        over = self._now() - _HALF_HOUR
        for begin, stop in windows(start, end, MAX_DAYS_PER_CALL):
            # The vendor also returns the half-hours that only touch the range: clipped call by call, so that the
            # edge of one call is not compared with a revision in the next.
            rows = [
                Point(row.start, row.intensity.actual) for row in self._ask(zone, f"{_minute(begin)}/{_minute(stop)}")
            ]
            points += [p for p in within(rows, begin, stop) if p.g_per_kwh is not None or p.start <= over]
        return points_table(self, zone, RESOLUTION_MINUTES, points)

    def forecast(self, zone: str) -> pa.Table:
        """The next 48 hours. The vendor does not say when it was issued: `issued_at` is when it was fetched."""
        issued_at = self._now()
        rows = self._ask(zone, f"{_minute(issued_at)}/fw48h")
        points = [Point(row.start, row.intensity.forecast) for row in rows]
        return forecast_table(self, zone, RESOLUTION_MINUTES, points, issued_at)

    def _ask(self, zone: str, span: str) -> Iterator[_HalfHour]:
        if not self.covers(zone):
            raise ProviderError(f"{self.name}: zone {zone} is not covered; it has {ZONE} only")
        try:
            payload = self._http.get_json(f"/intensity/{span}")
        except HttpStatusError as error:
            raise ProviderError(
                f"{self.name}, zone {zone}: refused with status {error.status}: {said(error)}"
            ) from error
        for row in validated(_Answer, payload, self, zone).data:
            if row.end - row.start != _HALF_HOUR:
                raise ProviderError(
                    f"{self.name}, zone {zone}: expected half-hours, found {_minute(row.start)} to {_minute(row.end)}"
                )
            yield row


def _minute(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
