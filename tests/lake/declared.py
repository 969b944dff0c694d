"""The tables of these tests: one of each kind, and between them every type the lake knows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from greenops_pipelines.lake import Column, Kind, Table
from greenops_pipelines.lake.schema import TIMESTAMP
from greenops_pipelines.lake.tables import CARBON_INTENSITY

DAY = date(2026, 3, 1)

CHARGES = Table(
    layer="bronze",
    name="charges",
    comment="What each service of an account costs per hour.",
    columns=(
        Column("account", pa.string(), "Account that is billed"),
        Column("hour", TIMESTAMP, "Start of the hour, UTC"),
        Column("service", pa.string(), "Service of the cloud"),
        Column("billed", pa.decimal128(18, 6), "Billed cost in USD"),
        Column("usage", pa.float64(), "Amount used; null: not metered", nullable=True),
        Column("is_spot", pa.bool_(), "Whether spot capacity; null: not stated", nullable=True),
        Column("edition", pa.int64(), "Number of the bill's edition"),
        Column("invoiced", pa.date32(), "Day of the invoice; null: not yet", nullable=True),
        Column("note", pa.string(), "Free text", nullable=True),
        Column("day", pa.date32(), "UTC day of `hour`"),
    ),
    unique=("account", "hour", "service"),
    partition_by=("account", "day"),
)

RATES = Table(
    layer="marts",
    name="rates",
    comment="Exchange rates, the whole table at once.",
    columns=(
        Column("currency", pa.string(), "ISO 4217 code"),
        Column("rate", pa.decimal128(12, 6), "USD per unit"),
        Column("edition", pa.int32(), "Number of the edition", nullable=True),
    ),
    unique=("currency",),
)

DEPLOYMENTS = Table(
    layer="bronze",
    name="deployments",
    comment="Deployments as they happen.",
    columns=(
        Column("service", pa.string(), "What was deployed"),
        Column("at", TIMESTAMP, "When"),
        Column("batch", pa.int64(), "Number of the append it came with"),
        Column("day", pa.date32(), "UTC day of `at`"),
    ),
    unique=("service", "at", "batch"),
    partition_by=("day",),
    kind=Kind.LOG,
)

TABLES = (CHARGES, RATES, DEPLOYMENTS, CARBON_INTENSITY)
SAMPLE = {"carbon_intensity": {"provider": "sample", "signal": "average", "emission_factor_type": "lifecycle"}}


def at(hour: int = 0, minute: int = 0, *, day: date = DAY) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


def rows(table: Table, *given: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(given), schema=table.schema)


def charge(
    account: str = "acme", hour: datetime | None = None, service: str = "db", billed: str = "1.5", **other: Any
) -> dict[str, Any]:
    hour = hour or at()
    row = {
        "account": account,
        "hour": hour,
        "service": service,
        "billed": Decimal(billed),
        "usage": 2.5,
        "is_spot": False,
        "edition": 1,
        "invoiced": date(2026, 4, 2),
        "note": "n",
        "day": hour.date(),
    }
    return row | other


def rate(currency: str, value: str, edition: int | None = 1) -> dict[str, Any]:
    return {"currency": currency, "rate": Decimal(value), "edition": edition}


def deployment(service: str, when: datetime, batch: int = 1) -> dict[str, Any]:
    return {"service": service, "at": when, "batch": batch, "day": when.date()}


def intensity(
    value: float | None, observed_at: datetime, *, zone: str = "DE", hour: int = 0, provider: str = "sample"
) -> dict[str, Any]:
    return {
        "provider": provider,
        "zone": zone,
        "datetime": at(hour),
        "resolution_minutes": 60,
        "carbon_intensity_g_per_kwh": value,
        "signal": "average",
        "emission_factor_type": "lifecycle",
        "is_flow_traced": None,
        "is_estimated": False,
        "estimation_method": None,
        "updated_at": None,
        "observed_at": observed_at,
        "day": DAY,
    }


def edition(number: int, count: int, account: str = "acme", day: date = DAY) -> pa.Table:
    """`count` charges of one edition. Edition and billed cost tell of every row which write it came from:
    row i of edition n costs n + i / 1,000,000."""
    index = np.arange(count)
    start = np.datetime64(day, "us")
    micro = pa.array(index + number * 1_000_000, pa.int64())
    return pa.table(
        [
            pa.repeat(pa.scalar(account), count),
            pa.array(start + (index * 86_400_000_000 // max(count, 1)).astype("timedelta64[us]"), TIMESTAMP),
            pa.array([f"service-{i:07d}" for i in index], pa.string()),
            pa.compute.multiply(micro.cast(pa.decimal128(19, 0)), pa.scalar(Decimal("0.000001"))).cast(
                pa.decimal128(18, 6)
            ),
            pa.array(np.random.default_rng(number).random(count)),
            pa.array(index % 2 == 0),
            pa.array(np.full(count, number)),
            pa.repeat(pa.scalar(day + timedelta(days=number % 28)), count),
            pa.nulls(count, pa.string()),
            pa.repeat(pa.scalar(day), count),
        ],
        schema=CHARGES.schema,
    )


def billed_of(number: int, count: int) -> Decimal:
    """What all rows of `edition(number, count)` cost together."""
    return count * number + Decimal(count * (count - 1) // 2) / 1_000_000


def plain(table: pa.Table, *columns: str) -> Sequence[tuple[Any, ...]]:
    """Rows as tuples of Python values."""
    chosen = table.select(list(columns)) if columns else table
    return [tuple(row.values()) for row in chosen.to_pylist()]
