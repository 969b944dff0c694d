"""Where a carbon-aware schedule's forecasts come from: an address, a provider, a function. Bounded in time as a whole.

What cannot be had is a fault of its zone, in one line, and never an exception: work waits for a forecast, it does not
depend on one. Not here: what is decided by it (`greenest.py`).

The JSON behind an address is that of Electricity Maps' forecast, or the same in this project's names:

    {"zone": "DE", "updatedAt": "2026-11-25T10:00:00Z",
     "forecast": [{"datetime": "2026-11-25T10:00:00Z", "carbonIntensity": 312}, ...]}
    {"zone": "DE", "issued_at": "2026-11-25T10:00:00Z", "resolution_minutes": 15,
     "forecast": [{"datetime": "2026-11-25T10:00:00Z", "carbon_intensity_g_per_kwh": 312}, ...]}

Only `forecast` and its `datetime` are needed. An interval without a value is a gap. Without a resolution, intervals are
as long as the shortest step between two of them, an hour where there is one only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Protocol, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AliasChoices, Field, SecretStr

from greenops_pipelines.carbon.outlook import FORECAST_AGE
from greenops_pipelines.carbon.payload import MAX_G_PER_KWH, Instant, Payload, Point, forecast_table, validated
from greenops_pipelines.errors import BadInput, ProviderError
from greenops_pipelines.http import HttpClient, HttpStatusError
from greenops_pipelines.lake.schema import TIMESTAMP
from greenops_pipelines.placement.model import MINUTE, Floats, Ints
from greenops_pipelines.redaction import one_line

Rows: TypeAlias = "pa.Table | Iterable[Mapping[str, object]]"
"""Columns `datetime` (with a zone), `carbon_intensity_g_per_kwh`, optionally `resolution_minutes` (60) and `issued_at`."""

Ask = Callable[[str], Rows]

_GRANULARITY = {"5_minutes": 5, "15_minutes": 15, "hourly": 60}


@dataclass(frozen=True)
class Series:
    """One zone's forecast: the intervals that have a value."""

    start: Ints
    """Microseconds since 1970, UTC."""
    minutes: Ints
    g_per_kwh: Floats


@dataclass(frozen=True)
class Answer:
    """What was to be had for the zones: a series, or a fault in one line."""

    series: Mapping[str, Series] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """Who is asked."""

    @property
    def name(self) -> str: ...

    def ask(self, zone: str) -> Rows:
        """Rows of the newest forecast; no rows where there is none."""
        ...


@dataclass(frozen=True)
class Called:
    """A function of the zone, or the `forecast` of a provider."""

    name: str
    ask: Ask


class Address:
    """A URL with `{zone}` in it, or one that takes `zone` as a parameter."""

    name = "http"
    signal = "unknown"
    emission_factor_type = "unknown"

    def __init__(self, url: str, headers: Mapping[str, str | SecretStr], total_seconds: float) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if "{zone}" not in url:
            self._query["zone"] = "{zone}"
        self._http = HttpClient(
            f"{parts.scheme}://{parts.netloc}",
            headers=headers,
            timeout=(min(5.0, total_seconds), total_seconds),
            total_seconds=total_seconds,
            attempts=2,
        )

    def ask(self, zone: str) -> pa.Table:
        query = {name: value.replace("{zone}", zone) for name, value in self._query.items()}
        try:
            payload = self._http.get_json(self._path.replace("{zone}", zone), query)
        except HttpStatusError as error:
            raise ProviderError(f"answered {error.status}: {one_line(error.body, 120)}") from error
        body = validated(_Body, payload, self, zone)
        if body.zone not in (None, zone):
            raise ProviderError(f"asked for zone {zone}, found {one_line(str(body.zone), 40)}")
        starts = sorted({interval.datetime for interval in body.forecast})
        step = min((later - earlier for earlier, later in pairwise(starts)), default=timedelta(hours=1))
        stated = body.resolution_minutes or _GRANULARITY.get(body.temporal_granularity or "")
        points = [Point(interval.datetime, interval.g_per_kwh) for interval in body.forecast]
        minutes = stated or max(step // timedelta(minutes=1), 1)
        return forecast_table(self, zone, minutes, points, body.issued_at or datetime.now(UTC))


class _Interval(Payload):
    datetime: Instant
    g_per_kwh: float | None = Field(validation_alias=AliasChoices("carbonIntensity", "carbon_intensity_g_per_kwh"))


class _Body(Payload):
    zone: str | None = None
    forecast: list[_Interval]
    issued_at: Instant | None = Field(None, validation_alias=AliasChoices("updatedAt", "issued_at"))
    resolution_minutes: int | None = Field(None, ge=1, le=1440, validation_alias=AliasChoices("resolution_minutes"))
    temporal_granularity: str | None = None


class Bounded:
    """Asks `source`, which is made when it is first needed, for at most `seconds` in all.

    It asks in a thread of its own: a function that hangs must not hang the daemon's tick. While one still hangs, none is
    started beside it.
    """

    def __init__(self, source: Callable[[], Source], seconds: float) -> None:
        self._make = source
        self._seconds = seconds
        self._source: Source | None = None
        self._asking: _Asking | None = None

    def ask(self, zones: Sequence[str], now: datetime) -> Answer:
        """What the zones' forecasts are; those that were not there in time are faults."""
        asking = self._asking
        if asking is None or not asking.thread.is_alive():
            asking = self._asking = self._begin(zones, now)
        asking.thread.join(self._seconds)
        if not asking.thread.is_alive():
            self._asking = None
        series, faults = dict(asking.series), dict(asking.faults)
        silent = [zone for zone in zones if zone not in series and zone not in faults]
        return Answer(series, faults | dict.fromkeys(silent, f"no answer within {self._seconds:g} s"))

    def _begin(self, zones: Sequence[str], now: datetime) -> _Asking:
        asking = _Asking({}, {})
        until = time.monotonic() + self._seconds

        def work() -> None:
            for zone in zones:
                if time.monotonic() > until:
                    return
                try:
                    if self._source is None:
                        self._source = self._make()
                    asking.series[zone] = _series(self._source.ask(zone), zone, now)
                except Exception as error:  # noqa: BLE001 - someone else's function may raise anything
                    asking.faults[zone] = one_line(f"{error}" or type(error).__name__, 200)

        asking.thread = threading.Thread(target=work, name="greenops forecast", daemon=True)
        asking.thread.start()
        return asking


@dataclass
class _Asking:
    series: dict[str, Series]
    faults: dict[str, str]
    thread: threading.Thread = field(default_factory=threading.Thread)


def _series(rows: Rows, zone: str, now: datetime) -> Series:
    """Raises `BadInput` or `ProviderError` where the rows cannot be used."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([_row(row) for row in rows])
    if not table.num_rows:
        raise ProviderError("it has no forecast")
    lacking = {"datetime", "carbon_intensity_g_per_kwh"} - set(table.column_names)
    if lacking:
        raise BadInput(f"forecast rows: found {sorted(table.column_names)}, missing: {sorted(lacking)}")
    if "zone" in table.column_names and (found := pc.unique(table["zone"]).to_pylist()) != [zone]:
        raise ProviderError(f"asked for zone {zone}, found {found}")
    if not pa.types.is_timestamp(table["datetime"].type) or table["datetime"].type.tz is None:
        raise BadInput(f"forecast rows: datetime: found {table['datetime'].type}, allowed: times with a zone")
    if "issued_at" in table.column_names:
        issued = pc.max(table["issued_at"]).as_py()
        if issued is not None and now - issued > FORECAST_AGE:
            raise ProviderError(f"its newest forecast is of {issued:%Y-%m-%dT%H:%MZ}, more than a day ago")
    if "resolution_minutes" not in table.column_names:
        table = table.append_column("resolution_minutes", pa.repeat(60, table.num_rows))
    table = table.select(["datetime", "resolution_minutes", "carbon_intensity_g_per_kwh"])
    start = table["datetime"].cast(TIMESTAMP, safe=False).cast(pa.int64()).to_numpy()
    minutes = table["resolution_minutes"].cast(pa.int64()).to_numpy()
    value = table["carbon_intensity_g_per_kwh"].cast(pa.float64()).to_numpy()
    known = np.isfinite(value)
    start, minutes, value = start[known], minutes[known], value[known]
    if not len(value):
        raise ProviderError("it has no forecast")
    if (value < 0).any() or (value > MAX_G_PER_KWH).any():
        raise ProviderError(f"carbon intensity is {value.min():g} to {value.max():g} g/kWh; allowed is 0 to 5000")
    if (minutes < 1).any() or (start % MINUTE).any():
        raise BadInput("forecast rows: found an interval that is not of whole minutes, allowed: whole minutes")
    return Series(start, minutes, value)


def _row(row: object) -> Mapping[str, object]:
    if not isinstance(row, Mapping):
        raise BadInput(f"forecast rows: found {type(row).__name__}, allowed: a pyarrow table or mappings")
    time = row.get("datetime")
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise BadInput(f"forecast rows: datetime: found {time!r}, allowed: a datetime with a zone")
    return {**row, "datetime": time.astimezone(UTC)}
