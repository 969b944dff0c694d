"""Resource usage per service, tenant, region and hour: from files, or a seeded sample of the five services.

Sample usage follows a working day, is larger for larger tenants, and never leaves a tenant's home region. It says
`source = sample` in every row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.carbon import tabular
from greenops_pipelines.carbon.regions import Tenant
from greenops_pipelines.errors import ProviderError
from greenops_pipelines.lake.tables import RESOURCE_USAGE

_VARIABLE = "GREENOPS_USAGE_PATH"
_TICK = timedelta(microseconds=1)
_NAMES = ("service", "tenant", "region")
_REQUIRED = ("hour", *_NAMES, "vcpu_hours")
_OPTIONAL = ("cpu_utilization", "memory_gb_hours", "storage_tb_hours", "network_gb", "gpu_hours", "requests")


@dataclass(frozen=True)
class Service:
    """A service's sample footprint: vCPUs at rest per tenant, what it needs beside them, and requests per vCPU hour."""

    name: str
    vcpus: float
    memory_gb_per_vcpu: float
    storage_tb: float
    network_gb_per_vcpu: float
    gpus: float
    requests_per_vcpu_hour: float


SERVICES: tuple[Service, ...] = (
    Service("api-gateway", 2.0, 2.0, 0.02, 1.50, 0.0, 40_000),
    Service("reporting", 3.0, 4.0, 0.60, 0.40, 0.0, 900),
    Service("q2q-ai", 2.0, 6.0, 0.30, 0.20, 0.50, 220),
    Service("cockpit", 1.0, 2.0, 0.01, 0.90, 0.0, 25_000),
    Service("impact-in", 1.5, 2.5, 0.15, 0.30, 0.0, 1_500),
)


def sample_usage(tenants: Sequence[Tenant], start: datetime, end: datetime, now: datetime) -> pa.Table:
    """Rows of `resource_usage` for the full hours in [start, end) that have ended by `now`."""
    names = [t.tenant for t in tenants]
    sizes = [0.5 + _unit(f"size:{name}") * 2.5 for name in names]
    services = pa.Table.from_pylist([s.__dict__ for s in SERVICES])
    people = pa.table({"tenant": names, "region": [t.home_region for t in tenants], "size": sizes})
    hour = timedelta(hours=1)
    first, last = _floor(start + hour - _TICK), min(_floor(end + hour - _TICK), _floor(now))
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("services", services)
        connection.register("people", people)
        rows = connection.sql(_SAMPLE, params={"first": first, "last": last}).to_arrow_table()
    return rows.select(RESOURCE_USAGE.schema.names).cast(RESOURCE_USAGE.schema)


# A working day in UTC peaks at 14:00, a weekend carries 40 %; the wobble is a hash, so every hour is reproducible.
_SAMPLE = """
with hours as (
    select unnest(generate_series($first::timestamptz, $last::timestamptz - interval 1 hour, interval 1 hour)) as hour
),

load as (
    select
        h.hour, s.*, p.tenant, p.region,
        p.size
        * (0.35 + 0.65 * exp(-pow((date_part('hour', h.hour) - 14) / 5.0, 2)))
        * case when date_part('isodow', h.hour) >= 6 then 0.4 else 1 end
        * (0.9 + 0.2 * (('0x' || md5(s.name || p.tenant || epoch(h.hour)::bigint::varchar)[1:8])::bigint / 4294967296.0))
        as factor
    from hours as h cross join services as s cross join people as p
)

select
    'sample' as source,
    hour,
    name as service,
    tenant,
    region,
    round(vcpus * (1 + factor), 4) as vcpu_hours,
    round(least(0.9, 0.15 + 0.4 * factor), 4) as cpu_utilization,
    round(vcpus * (1 + factor) * memory_gb_per_vcpu, 4) as memory_gb_hours,
    round(storage_tb * (0.8 + 0.2 * factor), 6) as storage_tb_hours,
    round(vcpus * factor * network_gb_per_vcpu, 4) as network_gb,
    round(gpus * factor, 4) as gpu_hours,
    round(vcpus * factor * requests_per_vcpu_hour) as requests,
    hour::date as day
from load
"""


def file_usage(path: str, start: datetime, end: datetime) -> pa.Table:
    """Rows of `resource_usage` in [start, end) from Parquet or CSV files.

    Needed: hour (with a zone), service, tenant, region, vcpu_hours. Other quantities count as 0 where their column or
    value is absent; cpu_utilization as unknown. Raises `ProviderError` naming file, line, field, found and allowed.
    """
    rows = pa.concat_tables([_read(p) for p in tabular.matching(path, _VARIABLE)])
    hour = rows["hour"]
    kind = hour.type
    chosen = rows.filter(pc.and_(pc.greater_equal(hour, pa.scalar(start, kind)), pc.less(hour, pa.scalar(end, kind))))
    return chosen.select(RESOURCE_USAGE.schema.names).cast(RESOURCE_USAGE.schema)


def usage_span(path: str) -> tuple[date, date]:
    """First and last UTC day of the usage files."""
    rows = pa.concat_tables([_read(p) for p in tabular.matching(path, _VARIABLE)])
    if not rows.num_rows:
        raise ProviderError(f"{_VARIABLE}: {path}: no rows")
    days = pc.min_max(rows["day"])
    return days["min"].as_py(), days["max"].as_py()


def _read(path: Path) -> pa.Table:
    with tabular.opened(path) as (connection, types):
        _refuse_columns(types, path)
        table = connection.sql(_typed(types, tabular.instant("hour", types, path))).to_arrow_table()
    _refuse_rows(table, path)
    return table


def _refuse_columns(types: Mapping[str, str], path: Path) -> None:
    missing = [name for name in _REQUIRED if name not in types]
    unknown = sorted(set(types) - {"line", *_REQUIRED, *_OPTIONAL})
    if missing or unknown:
        fault = f"missing {', '.join(missing)}" if missing else f"unknown {', '.join(unknown)}"
        raise ProviderError(f"{path.name}: columns: {fault}; allowed: {', '.join((*_REQUIRED, *_OPTIONAL))}")


def _typed(types: Mapping[str, str], hour: str) -> str:
    """SQL for the rows with their types; a value that is no number becomes NaN, which `_refuse_rows` refuses."""
    columns = []
    for name in ("vcpu_hours", *_OPTIONAL):
        absent = "'nan'::double" if name in _REQUIRED else "null::double" if name == "cpu_utilization" else "0::double"
        if name in types:
            number = f"coalesce(try_cast({name} as double), 'nan'::double)"
            columns.append(f"case when nullif({name}::varchar, '') is null then {absent} else {number} end as {name}")
            columns.append(f"{name}::varchar as raw_{name}")
        else:
            columns.append(f"{absent} as {name}")
    names = ", ".join(f"{name}::varchar as {name}" for name in _NAMES)
    return f"""
        select line, hour::varchar as raw_hour, 'file' as source, {hour} as hour, {names},
            {", ".join(columns)}, ({hour})::date as day
        from rows_of_file
    """


def _refuse_rows(rows: pa.Table, path: Path) -> None:
    def refuse(mask: pa.ChunkedArray, field: str, shown: str, allowed: str) -> None:
        first = pc.index(pc.fill_null(mask, True), True).as_py()
        if first >= 0:
            where = tabular.place(path, rows["line"][first].as_py())
            raise ProviderError(f"{where}: {field}: found {rows[shown][first].as_py()!r}, allowed: {allowed}")

    refuse(pc.is_null(rows["hour"]), "hour", "raw_hour", "a full hour with a zone, e.g. 2026-01-01T00:00:00Z")
    floored = pc.floor_temporal(rows["hour"], unit="hour")
    refuse(pc.not_equal(floored, rows["hour"]), "hour", "raw_hour", "the start of a full hour")
    for name in _NAMES:
        refuse(pc.or_kleene(pc.is_null(rows[name]), pc.equal(rows[name], "")), name, name, "a name")
    for name in ("vcpu_hours", *_OPTIONAL):
        values = pc.fill_null(rows[name], 0.0)
        upper = 1.0 if name == "cpu_utilization" else float("inf")
        bad = pc.or_(pc.invert(pc.is_finite(values)), pc.or_(pc.less(values, 0), pc.greater(values, upper)))
        refuse(bad, name, f"raw_{name}", "a number from 0 to 1" if upper == 1 else "a number >= 0")


def _floor(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _unit(text: str) -> float:
    """A reproducible number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def configured_usage(
    path: str, tenants: Sequence[Tenant], start: datetime, end: datetime, now: datetime
) -> tuple[str, pa.Table]:
    """Source name and rows of [start, end): from the files at `path`, or the sample where no path is set."""
    return ("file", file_usage(path, start, end)) if path else ("sample", sample_usage(tenants, start, end, now))
