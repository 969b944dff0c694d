"""Small lakes written by hand: a few rows per table, in the schemas that the project declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.dbt import Project
from greenops_pipelines.lake.schema import Kind, Table
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.tables import CARBON_INTENSITY, DECLARED, RESOURCE_USAGE
from greenops_pipelines.settings import load_settings

ROOT = Path(__file__).parents[2]
CARBON_DATA = ROOT.parent / "shared" / "data" / "carbon"
OBSERVED = datetime(2026, 3, 10, tzinfo=UTC)

Row = dict[str, Any]


def at(hour: int, minute: int = 0, day: int = 1) -> datetime:
    """A time of March 2026."""
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


def marts(folder: Path) -> tuple[Table, ...]:
    """The tables that the shipped dbt project publishes."""
    return tuple(mart.table for mart in Project(ROOT / "dbt", folder, load_settings().dbt_cache).marts)


def selections(provider: str, usage: str = "sample", factors: str = "lifecycle") -> dict[str, dict[str, str]]:
    """As `carbon.sources.selections` makes them."""
    signal = "marginal" if provider == "watttime" else "average"
    intensity = {"provider": provider, "signal": signal, "emission_factor_type": factors}
    return {"carbon_intensity": intensity, "carbon_forecast": intensity, "resource_usage": {"source": usage}}


def empty_lake(folder: Path, provider: str = "file", published: Sequence[Table] = (), *, usage: str = "sample") -> Lake:
    """A lake without a file; the same folder with another provider is the same home, configured differently."""
    return Lake(
        LocalFolder(folder / "lake"),
        folder / "warehouse.duckdb",
        selections(provider, usage),
        DECLARED,
        marts=lambda: published,
    )


def put(lake: Lake, table: Table, rows: Sequence[Row], observed_at: datetime = OBSERVED) -> None:
    """Write rows that may lack columns: those are null, or the plainest value where null is not allowed."""
    complete = [
        {c.name: row[c.name] if c.name in row else None if c.nullable else _plainest(c.type) for c in table.columns}
        for row in rows
    ]
    arrow = pa.Table.from_pylist(complete, schema=table.schema)
    if table.kind is Kind.SNAPSHOT:
        lake.write(table, arrow)
    else:
        lake.append(table, arrow, observed_at, "run")


def table(lake: Lake, name: str) -> Table:
    """The declared table or mart of that name."""
    return next(table for table in lake.tables if table.name == name)


def intensity(zone: str, start: datetime, value: float | None = 100.0, **other: Any) -> Row:
    """A row of `carbon_intensity`: one hour of the provider `file`."""
    return {
        "provider": "file",
        "zone": zone,
        "datetime": start,
        "resolution_minutes": 60,
        "carbon_intensity_g_per_kwh": value,
        "signal": "average",
        "emission_factor_type": "lifecycle",
        "observed_at": OBSERVED,
        "day": start.date(),
    } | other


def put_intensity(lake: Lake, *rows: Row) -> None:
    put(lake, CARBON_INTENSITY, rows)


def usage(hour: datetime, tenant: str = "acme", region: str = "eu-central-1", **amounts: Any) -> Row:
    """A row of `resource_usage` of the service `search`."""
    row = {
        "source": "sample",
        "hour": hour,
        "service": "search",
        "tenant": tenant,
        "region": region,
        "day": hour.date(),
    }
    return row | amounts


def put_usage(lake: Lake, *rows: Row) -> None:
    put(lake, RESOURCE_USAGE, rows)


def _plainest(kind: pa.DataType) -> object:
    values: Mapping[pa.DataType, object] = {
        pa.string(): "x",
        pa.float64(): 0.0,
        pa.int64(): 0,
        pa.int32(): 0,
        pa.bool_(): False,
        pa.date32(): date(2026, 3, 1),
    }
    return values[kind]
