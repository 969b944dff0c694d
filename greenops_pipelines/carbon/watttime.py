"""WattTime, API v3: *marginal* intensity, what one more kWh causes, in steps of five minutes, with the operator's own account.

Marginal and average intensity answer different questions and never mix: `signal` is `marginal` in every row and part of the
key, emissions, settlements and the proof read `average` alone. Placement can choose by either. `emission_factor_type` is
`direct`: the signal co2_moer is CO2 of combustion.

Contract: https://docs.watttime.org (v3). Their regions are not grid zones as declared in ops/regions.yaml: which one stands
for which zone is named in GREENOPS_WATTTIME_REGIONS. Its default follows the Green Software Foundation's cloud region metadata
(real-time-cloud, 2024, em-zone-id and wt-region-id).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import pyarrow as pa
from pydantic import Field, SecretStr

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
from greenops_pipelines.errors import ConfigurationError, ProviderError
from greenops_pipelines.http import HttpClient, HttpStatusError
from greenops_pipelines.redaction import reveal
from greenops_pipelines.settings import Settings

BASE_URL = "https://api.watttime.org"
MAX_DAYS_PER_CALL = 31
"""They allow 32 days, and count the end in."""
RESOLUTION_MINUTES = 5
SIGNAL, UNITS = "co2_moer", "lbs_co2_per_mwh"
G_PER_KWH = 0.45359237
"""Of one pound per MWh: the international pound is 453.59237 g."""
_UNAUTHORISED = 401


class _Token(Payload):
    token: str = Field(min_length=1)


class _Point(Payload):
    point_time: Instant = Field(alias="point_time")
    value: float | None


class _Meta(Payload):
    region: str
    signal_type: str = Field(alias="signal_type")
    units: str
    data_point_period_seconds: Annotated[int, Field(alias="data_point_period_seconds")]
    generated_at: Instant | None = Field(None, alias="generated_at")


class _Answer(Payload):
    data: list[_Point]
    meta: _Meta


M = TypeVar("M", bound=Payload)


class WattTime:
    """`Provider` of the zones in `regions` (zone to WattTime's region). Logs in when first asked, and again when told to."""

    name = "watttime"
    signal = "marginal"
    emission_factor_type = "direct"

    def __init__(
        self, base_url: str, user: str, password: SecretStr, regions: Mapping[str, str], **http: object
    ) -> None:
        self._base_url, self._user, self._password, self._regions = base_url, user, password, dict(regions)
        self._options = http
        self._client: HttpClient | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> WattTime:
        """Raises `ConfigurationError` where user or password are not configured."""
        for name, value, what in (
            ("GREENOPS_CARBON_USER", settings.carbon_user, "the name of an account"),
            ("GREENOPS_CARBON_PASSWORD", settings.carbon_password.get_secret_value(), "its password"),
        ):
            if not value:
                raise ConfigurationError(f"{name}: found nothing; the provider watttime needs {what}")
        base_url = settings.carbon_base_url or BASE_URL
        return cls(base_url, settings.carbon_user, settings.carbon_password, settings.watttime_region_of)

    def covers(self, zone: str) -> bool:
        return zone in self._regions

    def span(self) -> None:
        return None

    def history(self, zone: str, start: datetime, end: datetime) -> pa.Table:
        points: list[Point] = []
        for begin, stop in windows(start, end, MAX_DAYS_PER_CALL):
            answer = self._ask(zone, "/v3/historical", {"start": _iso(begin), "end": _iso(stop)})
            points += within(map(_point, answer.data), begin, stop)
        return points_table(self, zone, RESOLUTION_MINUTES, points)

    def forecast(self, zone: str) -> pa.Table:
        """The newest forecast, issued when the vendor generated it."""
        answer = self._ask(zone, "/v3/forecast", {})
        issued_at = answer.meta.generated_at
        if issued_at is None:
            raise ProviderError(f"{self.name}, zone {zone}: the forecast does not say when it was generated")
        return forecast_table(self, zone, RESOLUTION_MINUTES, map(_point, answer.data), issued_at)

    def _ask(self, zone: str, path: str, params: dict[str, str]) -> _Answer:
        region = self._regions.get(zone)
        if region is None:
            known = ", ".join(sorted(self._regions)) or "none"
            raise ProviderError(
                f"{self.name}: zone {zone} has no region in GREENOPS_WATTTIME_REGIONS, allowed: {known}"
            )
        try:
            payload = self._authorised(path, {"region": region, "signal_type": SIGNAL, **params})
        except HttpStatusError as error:
            raise ProviderError(
                f"{self.name}, zone {zone}: refused with status {error.status}: {said(error)}"
            ) from error
        answer = validated(_Answer, payload, self, zone)
        for what, found, wanted in (
            ("region", answer.meta.region, region),
            ("signal", answer.meta.signal_type, SIGNAL),
            ("units", answer.meta.units, UNITS),
            ("step", str(answer.meta.data_point_period_seconds), str(RESOLUTION_MINUTES * 60)),
        ):
            if found != wanted:
                raise ProviderError(
                    f"{self.name}, zone {zone}: asked for the {what} {wanted}, the answer is for {found}"
                )
        return answer

    def _authorised(self, path: str, params: dict[str, str]) -> object:
        """With the token at hand; once more with a new one where it is refused: it lives for half an hour."""
        fresh = self._client is None
        client = self._client or self._login()
        try:
            return client.get_json(path, params)
        except HttpStatusError as error:
            if error.status != _UNAUTHORISED or fresh:
                raise
        return self._login().get_json(path, params)

    def _login(self) -> HttpClient:
        # Revealed on its own as well: a server that echoes it in a refusal must not show it.
        pair = f"{self._user}:{reveal(self._password)}".encode()
        basic = SecretStr("Basic " + base64.b64encode(pair).decode())
        try:
            payload = self._http(basic).get_json("/login")
        except HttpStatusError as error:
            raise ProviderError(
                f"{self.name}: the login was refused with status {error.status}: {said(error)}"
            ) from error
        token = SecretStr(validated(_Token, payload, self, "login").token)
        self._client = self._http(SecretStr(f"Bearer {reveal(token)}"))
        return self._client

    def _http(self, authorisation: SecretStr) -> HttpClient:
        return HttpClient(self._base_url, headers={"Authorization": authorisation}, **self._options)  # type: ignore[arg-type]


def _point(row: _Point) -> Point:
    return Point(row.point_time, None if row.value is None else row.value * G_PER_KWH)


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
