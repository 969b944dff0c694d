"""From a vendor's payload to the rows of `POINTS` and `FORECAST`: what every live provider must check alike.

Not here: the shape of any one vendor's payload, and any call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Protocol, TypeVar

import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from greenops_pipelines import strict_json
from greenops_pipelines.carbon.provider import FORECAST, POINTS
from greenops_pipelines.errors import BadInput, ProviderError
from greenops_pipelines.http import HttpStatusError
from greenops_pipelines.redaction import one_line

MAX_G_PER_KWH = 5000.0
"""Above any grid: lignite alone emits some 1,200 g/kWh over its life cycle (IPCC AR5, WG III, Annex III)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Payload(BaseModel):
    """Base of the vendors' models: camelCase names, no conversion of types, unknown fields ignored."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="ignore", allow_inf_nan=False, alias_generator=to_camel, populate_by_name=True
    )


def _instant(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError(f"expected a time in ISO 8601, found {value!r}")  # noqa: TRY004 - pydantic wants ValueError
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"expected a time in ISO 8601, found {value!r}") from None
    if time.tzinfo is None:
        raise ValueError(f"the time {value!r} has no zone")
    return time.astimezone(UTC)


Instant = Annotated[datetime, BeforeValidator(_instant)]
"""A time in ISO 8601 that says its zone; UTC after validation."""


class Source(Protocol):
    """What a provider says about all its rows."""

    @property
    def name(self) -> str: ...

    @property
    def signal(self) -> str: ...

    @property
    def emission_factor_type(self) -> str: ...


@dataclass(frozen=True)
class Point:
    """One interval as the vendor states it: its start, and g/kWh, or None where the vendor has no value."""

    start: datetime
    g_per_kwh: float | None
    is_flow_traced: bool | None = None
    is_estimated: bool | None = None
    estimation_method: str | None = None
    updated_at: datetime | None = None


M = TypeVar("M", bound=Payload)


def validated(model: type[M], payload: object, source: Source, zone: str) -> M:
    """The payload as its model; `ProviderError` naming provider, zone, field and what was found."""
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    first = faults[0]
    field = ".".join(map(str, first["loc"])) or "answer"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    found = "" if first["type"] in {"value_error", "missing"} else f", found {first['input']!r}"
    message = one_line(first["msg"].removeprefix("Value error, ") + found, 200)
    raise ProviderError(f"{source.name}, zone {zone}: the answer has an unexpected form: {field}: {message}{more}")


def said(error: HttpStatusError) -> str:
    """The vendor's own words in a refusal: `message`, `error` or `detail` of a JSON object, else the body."""
    try:
        body: Any = strict_json.loads(error.body.encode())
    except ValueError:
        return one_line(error.body, 300)
    while isinstance(body, dict):
        body = next((body[key] for key in ("message", "error", "detail") if body.get(key)), "")
    return one_line(str(body), 300)


def windows(start: datetime, end: datetime, days: int) -> Iterator[tuple[datetime, datetime]]:
    """[start, end) in pieces of at most `days` days, in UTC; `BadInput` where a time has no zone."""
    if start.tzinfo is None or end.tzinfo is None:
        raise BadInput(f"range {start} to {end}: both times need a zone")
    begin, end = start.astimezone(UTC), end.astimezone(UTC)
    while begin < end:
        stop = min(begin + timedelta(days=days), end)
        yield begin, stop
        begin = stop


def within(points: Iterable[Point], start: datetime, end: datetime) -> list[Point]:
    """The points that start in [start, end): vendors return intervals that only touch the range."""
    return [point for point in points if start <= point.start < end]


def points_table(source: Source, zone: str, resolution_minutes: int, points: Iterable[Point]) -> pa.Table:
    """Rows of `POINTS`, sorted, one per interval; `ProviderError` on what `_checked` refuses."""
    rows = _checked(source, zone, resolution_minutes, points)
    return pa.table(
        {
            "zone": [zone] * len(rows),
            "datetime": [row.start for row in rows],
            "resolution_minutes": [resolution_minutes] * len(rows),
            "carbon_intensity_g_per_kwh": [row.g_per_kwh for row in rows],
            "signal": [source.signal] * len(rows),
            "emission_factor_type": [source.emission_factor_type] * len(rows),
            "is_flow_traced": [row.is_flow_traced for row in rows],
            "is_estimated": [row.is_estimated for row in rows],
            "estimation_method": [row.estimation_method for row in rows],
            "updated_at": [row.updated_at for row in rows],
        },
        schema=POINTS,
    )


def forecast_table(
    source: Source, zone: str, resolution_minutes: int, points: Iterable[Point], issued_at: datetime
) -> pa.Table:
    """Rows of `FORECAST`, sorted: the points that have a value and whose interval was not over when issued."""
    length = timedelta(minutes=resolution_minutes)
    ahead = [point for point in points if point.g_per_kwh is not None and point.start + length > issued_at]
    rows = _checked(source, zone, resolution_minutes, ahead)
    return pa.table(
        {
            "zone": [zone] * len(rows),
            "issued_at": [issued_at] * len(rows),
            "datetime": [row.start for row in rows],
            "resolution_minutes": [resolution_minutes] * len(rows),
            "carbon_intensity_g_per_kwh": [row.g_per_kwh for row in rows],
            "signal": [source.signal] * len(rows),
            "emission_factor_type": [source.emission_factor_type] * len(rows),
        },
        schema=FORECAST,
    )


def _checked(source: Source, zone: str, resolution_minutes: int, points: Iterable[Point]) -> list[Point]:
    """The points sorted, equal duplicates collapsed.

    Raises `ProviderError` naming provider, zone and time: a value outside [0, `MAX_G_PER_KWH`]; a time that no
    interval of this resolution starts at (an answer in another granularity than asked for); two different
    statements about one interval.
    """
    rows: dict[datetime, Point] = {}
    for point in points:
        where = f"{source.name}, zone {zone}, {point.start:%Y-%m-%dT%H:%M:%SZ}"
        if point.g_per_kwh is not None and not 0 <= point.g_per_kwh <= MAX_G_PER_KWH:
            raise ProviderError(
                f"{where}: carbon intensity is {point.g_per_kwh:g} g/kWh; allowed is 0 to {MAX_G_PER_KWH:g}"
            )
        if (point.start - _EPOCH) % timedelta(minutes=resolution_minutes):
            raise ProviderError(f"{where}: no {resolution_minutes}-minute interval starts at this time")
        known = rows.setdefault(point.start, point)
        if known != point:
            raise ProviderError(f"{where}: stated twice, as {_stated(known)} and as {_stated(point)}")
    return [rows[time] for time in sorted(rows)]


def _stated(point: Point) -> str:
    value = "null" if point.g_per_kwh is None else f"{point.g_per_kwh:g} g/kWh"
    updated = f", updated {point.updated_at:%Y-%m-%dT%H:%M:%SZ}" if point.updated_at else ""
    return f"{value} (estimated: {point.is_estimated}{updated})"
