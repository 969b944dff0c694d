"""Electricity Maps, API v4 and v3: hourly average intensity per zone, with the operator's own token.

Their terms forbid redistribution: what comes from here stays in the operator's lake. Contract:
https://portal.electricitymaps.com/docs/api
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal, TypeVar

import pyarrow as pa

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
from greenops_pipelines.errors import ConfigurationError, PermanentError, ProviderError
from greenops_pipelines.http import HttpClient, HttpStatusError
from greenops_pipelines.settings import EmissionFactorType, Settings

BASE_URL = "https://api.electricitymaps.com"
MAX_DAYS_PER_CALL = 10
RESOLUTION_MINUTES = 60

ApiVersion = Literal["v4", "v3"]
HorizonHours = Literal[6, 24, 48, 72]

# Without these, a zone they do not know is answered with the zone of the caller's IP address.
_NO_CALLER_LOOKUP: dict[ApiVersion, tuple[str, str]] = {
    "v4": ("disableCallerLookup", "true"),
    "v3": ("shouldUseFallbackCallerLookup", "false"),
}


class _Answer(Payload):
    zone: str
    emission_factor_type: str | None = None
    temporal_granularity: str | None = None


class _Interval(Payload):
    zone: str | None = None
    datetime: Instant
    carbon_intensity: float | None
    emission_factor_type: str | None = None
    temporal_granularity: str | None = None
    flow_traced: bool | None = None
    is_estimated: bool | None = None
    estimation_method: str | None = None
    updated_at: Instant | None = None


class _Range(_Answer):
    data: list[_Interval]


class _ForecastInterval(Payload):
    datetime: Instant
    carbon_intensity: float | None


class _Forecast(_Answer):
    forecast: list[_ForecastInterval]
    updated_at: Instant


A = TypeVar("A", bound=_Answer)


class ElectricityMaps:
    """`Provider` over `http`, whose base URL ends in the API version and whose headers hold `auth-token`."""

    name = "electricity-maps"
    signal = "average"

    def __init__(
        self,
        http: HttpClient,
        *,
        api_version: ApiVersion = "v4",
        emission_factor_type: EmissionFactorType = "lifecycle",
        horizon_hours: HorizonHours = 24,
    ) -> None:
        self._http = http
        self._api_version: ApiVersion = api_version
        self._emission_factor_type: EmissionFactorType = emission_factor_type
        self._horizon_hours: HorizonHours = horizon_hours

    @classmethod
    def from_settings(cls, settings: Settings) -> ElectricityMaps:
        """Raises `ConfigurationError` where no token is configured."""
        if not settings.carbon_token.get_secret_value():
            raise ConfigurationError(
                "GREENOPS_CARBON_TOKEN: found nothing; the provider electricity-maps needs an API token"
            )
        base_url = settings.carbon_base_url or f"{BASE_URL}/{settings.carbon_api_version}"
        return cls(
            HttpClient(base_url, headers={"auth-token": settings.carbon_token}),
            api_version=settings.carbon_api_version,
            emission_factor_type=settings.carbon_emission_factors,
        )

    @property
    def emission_factor_type(self) -> str:
        return self._emission_factor_type

    def covers(self, zone: str) -> bool:
        """Whether it is a zone identifier at all: the identifiers are theirs, and which ones a token may ask for is
        known to them alone."""
        return re.fullmatch(r"[A-Z]{2}(-[A-Z0-9]+)*", zone) is not None

    def span(self) -> None:
        return None

    def history(self, zone: str, start: datetime, end: datetime) -> pa.Table:
        points: list[Point] = []
        for begin, stop in windows(start, end, MAX_DAYS_PER_CALL):
            answer = self._ask(_Range, zone, "past-range", {"start": _iso(begin), "end": _iso(stop)})
            for row in answer.data:
                self._assert_as_asked(zone, row.zone, row.emission_factor_type, row.temporal_granularity)
            points += within(map(_point, answer.data), begin, stop)
        return points_table(self, zone, RESOLUTION_MINUTES, points)

    def forecast(self, zone: str) -> pa.Table:
        answer = self._ask(_Forecast, zone, "forecast", {"horizonHours": str(self._horizon_hours)})
        points = [Point(row.datetime, row.carbon_intensity) for row in answer.forecast]
        return forecast_table(self, zone, RESOLUTION_MINUTES, points, issued_at=answer.updated_at)

    def _ask(self, model: type[A], zone: str, endpoint: str, params: dict[str, str]) -> A:
        if not self.covers(zone):
            raise ProviderError(f"{self.name}: {zone!r} is not a zone identifier; expected is one like DE or SE-SE3")
        switch, off = _NO_CALLER_LOOKUP[self._api_version]
        asked = {
            "zone": zone,
            "temporalGranularity": "hourly",
            "emissionFactorType": self._emission_factor_type,
            switch: off,
        }
        try:
            payload = self._http.get_json(f"/carbon-intensity/{endpoint}", asked | params)
        except HttpStatusError as error:
            raise self._refusal(error, zone, endpoint) from error
        answer = validated(model, payload, self, zone)
        self._assert_as_asked(zone, answer.zone, answer.emission_factor_type, answer.temporal_granularity)
        return answer

    def _assert_as_asked(self, zone: str, got_zone: str | None, factors: str | None, granularity: str | None) -> None:
        """What the vendor may leave out is not compared; what it states must be what was asked for."""
        for what, asked, got in (
            ("zone", zone, got_zone),
            ("emissionFactorType", self._emission_factor_type, factors),
            ("temporalGranularity", "hourly", granularity),
        ):
            if got is not None and got != asked:
                raise ProviderError(f"{self.name}, zone {zone}: asked for {what} {asked}, the answer has {got!r}")

    def _refusal(self, error: HttpStatusError, zone: str, endpoint: str) -> PermanentError:
        words = said(error)
        where = f"{self.name}, zone {zone}"
        # 401 is both "who are you" and "your plan lacks this"; only the words tell them apart.
        is_plan = "unauthorized for zone" in error.body.lower() or "do not have access" in error.body.lower()
        if error.status == 403 or (error.status == 401 and is_plan):
            return ProviderError(
                f"{where}: the token is valid, but its plan lacks carbon-intensity/{endpoint} for this zone ({words}); "
                f"extend the plan at Electricity Maps, or choose another GREENOPS_CARBON_PROVIDER"
            )
        if error.status == 401:
            return ConfigurationError(
                f"GREENOPS_CARBON_TOKEN: Electricity Maps refuses the token ({words}); replace it"
            )
        return ProviderError(f"{where}: carbon-intensity/{endpoint} is refused with status {error.status}: {words}")


def _point(row: _Interval) -> Point:
    return Point(
        row.datetime,
        row.carbon_intensity,
        is_flow_traced=row.flow_traced,
        is_estimated=row.is_estimated,
        estimation_method=row.estimation_method,
        updated_at=row.updated_at,
    )


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
