"""What a source of carbon intensity must offer. Not here: any particular source, and storage.

A provider answers for one grid zone at a time. It never fills a gap, never averages, never converts null to a
number: what it does not know is a row with a null value, or no row.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import pyarrow as pa

from greenops_pipelines.lake.schema import TIMESTAMP

POINTS = pa.schema(
    [
        pa.field("zone", pa.string(), nullable=False),
        pa.field("datetime", TIMESTAMP, nullable=False),
        pa.field("resolution_minutes", pa.int32(), nullable=False),
        pa.field("carbon_intensity_g_per_kwh", pa.float64()),
        pa.field("signal", pa.string(), nullable=False),
        pa.field("emission_factor_type", pa.string(), nullable=False),
        pa.field("is_flow_traced", pa.bool_()),
        pa.field("is_estimated", pa.bool_()),
        pa.field("estimation_method", pa.string()),
        pa.field("updated_at", TIMESTAMP),
    ]
)
"""History: one row per interval, start of the interval in `datetime` (UTC)."""

FORECAST = pa.schema(
    [
        pa.field("zone", pa.string(), nullable=False),
        pa.field("issued_at", TIMESTAMP, nullable=False),
        pa.field("datetime", TIMESTAMP, nullable=False),
        pa.field("resolution_minutes", pa.int32(), nullable=False),
        pa.field("carbon_intensity_g_per_kwh", pa.float64(), nullable=False),
        pa.field("signal", pa.string(), nullable=False),
        pa.field("emission_factor_type", pa.string(), nullable=False),
    ]
)
"""Forecast: one row per future interval; points without a value are left out."""


class Provider(Protocol):
    """A source of carbon intensity.

    `signal` and `emission_factor_type` say what its plain view shows; they are part of the natural key.
    """

    @property
    def name(self) -> str: ...

    @property
    def signal(self) -> str: ...

    @property
    def emission_factor_type(self) -> str: ...

    def covers(self, zone: str) -> bool:
        """Whether the provider has this zone at all; asking for another one is a `ProviderError`."""
        ...

    def span(self) -> tuple[datetime, datetime] | None:
        """First and last instant (exclusive) the source holds, where that is fixed; None for live sources."""
        ...

    def history(self, zone: str, start: datetime, end: datetime) -> pa.Table:
        """Rows of `POINTS` with start <= datetime < end, sorted by datetime, one per interval.

        Raises `TransientError` where a retry may help, `ProviderError` where the answer cannot be used.
        """
        ...

    def forecast(self, zone: str) -> pa.Table:
        """The newest forecast as rows of `FORECAST`; no rows where the source has none."""
        ...
