"""Energy-Charts of Fraunhofer ISE: average intensity of European countries, without a key. CC BY 4.0.

`emission_factor_type` is `lifecycle`: `co2eq` is published in grams of CO2 *equivalent* of the generation mix, a
figure that direct combustion alone (CO2) does not give. The vendor offers no other type and no flow tracing; its API
document does not list the factors, so treat the level with care and never compare it with another provider's.

Contract: https://api.energy-charts.info (`/co2eq`). A country's values come in the step of its generation data, mostly
15 minutes: the step is read from the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from greenops_pipelines.carbon.payload import (
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

log = logging.getLogger(__name__)

BASE_URL = "https://api.energy-charts.info"
MAX_DAYS_PER_CALL = 92  # The vendor names no limit; a quarter in steps of 15 minutes is 8,832 rows.
RATE_PER_MINUTE = 20  # "Stricter rate limitations for public API" since v1.5 (2025-10-21), without a figure.

_CODES = """
    AL AM AT AZ BA BE BG BY CH CY CZ DE DK EE ES FI FR GE GR HR HU IE IT LT LU LV MD ME MK MT NL NO PL PT RO RS SE SI SK
    TR UA XK
"""
COUNTRIES = frozenset(_CODES.split())
"""Countries of the API's own list whose code, in lower case, is the API's and, as it is, the Electricity Maps zone of
the same area (API document v1.5). Left out: `uk`, `nie`, `ru` (not the areas of GB, GB-NIR and the RU zones) and the
aggregates `eu` and `all`. Zones below a country (SE-SE3) do not exist there."""

_STEPS_MINUTES = (15, 30, 60)


class _Series(Payload):
    unix_seconds: list[Annotated[int, Field(ge=0, lt=4_102_444_800)]] = Field(alias="unix_seconds")
    co2eq: list[float | None] | None = Field(None, alias="co2eq")
    co2eq_forecast: list[float | None] | None = Field(None, alias="co2eq_forecast")
    deprecated: bool = False

    def times(self) -> list[datetime]:
        return [datetime.fromtimestamp(seconds, UTC) for seconds in self.unix_seconds]


class EnergyCharts:
    """`Provider` over `http`, whose base URL is the vendor's root."""

    name = "energy-charts"
    signal = "average"
    emission_factor_type = "lifecycle"

    def __init__(self, http: HttpClient, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._http = http
        self._now = now

    @classmethod
    def from_settings(cls, settings: Settings) -> EnergyCharts:
        return cls(HttpClient(settings.carbon_base_url or BASE_URL, rate_per_minute=RATE_PER_MINUTE))

    def covers(self, zone: str) -> bool:
        return zone in COUNTRIES

    def span(self) -> None:
        return None

    def history(self, zone: str, start: datetime, end: datetime) -> pa.Table:
        """Intervals with a measured value; the others are forecast there, and no rows here."""
        points: list[Point] = []
        seconds: set[int] = set()
        for begin, stop in windows(start, end, MAX_DAYS_PER_CALL):
            series = self._ask(zone, {"start": _minute(begin), "end": _minute(stop)})
            measured = zip(series.times(), series.co2eq or [], strict=False)
            points += within((Point(time, value) for time, value in measured if value is not None), begin, stop)
            seconds.update(series.unix_seconds)
        return points_table(self, zone, self._step_minutes(zone, seconds), points)

    def forecast(self, zone: str) -> pa.Table:
        """The forecast from now on. The vendor does not say when it was issued: `issued_at` is when it was fetched."""
        # Without start and end: today (local), and on as far as there is a forecast.
        series = self._ask(zone, {})
        issued_at = self._now()
        ahead = zip(series.times(), series.co2eq_forecast or [], strict=False)
        points = [Point(time, value) for time, value in ahead]
        return forecast_table(self, zone, self._step_minutes(zone, set(series.unix_seconds)), points, issued_at)

    def _ask(self, zone: str, params: dict[str, str]) -> _Series:
        if not self.covers(zone):
            raise ProviderError(
                f"{self.name}: zone {zone} is not covered; it has whole countries of Europe only: "
                f"{', '.join(sorted(COUNTRIES))}"
            )
        try:
            payload = self._http.get_json("/co2eq", {"country": zone.lower()} | params)
        except HttpStatusError as error:
            raise ProviderError(
                f"{self.name}, zone {zone}: refused with status {error.status}: {said(error)}"
            ) from error
        series = validated(_Series, payload, self, zone)
        if series.deprecated:
            log.warning("%s: the vendor marks /co2eq as deprecated; it ends at least six months after that", self.name)
        for name, values in (("co2eq", series.co2eq), ("co2eq_forecast", series.co2eq_forecast)):
            if values is not None and len(values) != len(series.unix_seconds):
                raise ProviderError(
                    f"{self.name}, zone {zone}: {len(series.unix_seconds)} times, but {len(values)} values of {name}"
                )
        return series

    def _step_minutes(self, zone: str, seconds: set[int]) -> int:
        """The shortest step between two times: a gap makes a step longer, and nothing makes it shorter."""
        step = min((b - a for a, b in pairwise(sorted(seconds))), default=900)
        if step % 900:
            raise ProviderError(
                f"{self.name}, zone {zone}: times are {step} s apart; expected are steps of 15, 30 or 60 minutes"
            )
        return step // 60 if step // 60 in _STEPS_MINUTES else min(_STEPS_MINUTES)


def _minute(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%MZ")
