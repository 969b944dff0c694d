"""Resource usage per service, tenant, region and hour: from files, or a seeded sample of the five services.

Sample usage follows a working day, is larger for larger tenants, and never leaves a tenant's home region. It says
`source = sample` in every row.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.carbon.regions import Tenant
from greenops_pipelines.errors import ConfigurationError, ProviderError
from greenops_pipelines.lake.tables import RESOURCE_USAGE

_REQUIRED = ("hour", "service", "tenant", "region", "vcpu_hours")
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
    until = min(end, now).replace(minute=0, second=0, microsecond=0)
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("services", services)
        connection.register("people", people)
        rows = connection.sql(_SAMPLE, params={"start": start, "until": until}).to_arrow_table()
    return rows.select(RESOURCE_USAGE.schema.names).cast(RESOURCE_USAGE.schema)


# A working day in UTC peaks at 14:00, a weekend carries 40 %; the wobble is a hash, so every hour is reproducible.
_SAMPLE = """
with hours as (
    select unnest(generate_series($start::timestamptz, $until::timestamptz - interval 1 hour, interval 1 hour)) as hour
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

    Needed: hour (with a zone), service, tenant, region, vcpu_hours. Other quantities count as 0 where their column
    is absent; cpu_utilization as unknown. Raises `ProviderError` naming file, line, field, found and allowed.
    """
    tables = [_read(Path(p)) for p in _paths(path)]
    rows = pa.concat_tables(tables)
    hour = rows["hour"]
    kind = hour.type
    chosen = rows.filter(pc.and_(pc.greater_equal(hour, pa.scalar(start, kind)), pc.less(hour, pa.scalar(end, kind))))
    return chosen.select(RESOURCE_USAGE.schema.names).cast(RESOURCE_USAGE.schema)


def usage_span(path: str) -> tuple[date, date]:
    """First and last UTC day of the usage files."""
    days = [pc.min_max(_read(Path(p))["day"]).as_py() for p in _paths(path)]
    return min(d["min"] for d in days), max(d["max"] for d in days)


def _paths(path: str) -> list[str]:
    paths = sorted(glob.glob(path, recursive=True))
    if not paths:
        raise ConfigurationError(f"GREENOPS_USAGE_PATH: no file matches {path!r}")
    return paths


def _read(path: Path) -> pa.Table:
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".parquet"}:
        raise ConfigurationError(
            f"GREENOPS_USAGE_PATH: {path.name}: found {suffix or 'no ending'}, allowed: .csv, .parquet"
        )
    source = "read_parquet(?)" if suffix == ".parquet" else "read_csv(?, all_varchar = true, header = true)"
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        try:
            rows = connection.sql(f"select row_number() over () + 1 as line, * from {source}", params=[str(path)])
            types = dict(zip(rows.columns, map(str, rows.types), strict=True))
            _refuse_columns(types, path)
            connection.register("rows_of_file", rows.to_arrow_table())
            table = connection.sql(_typed(types)).to_arrow_table()
        except duckdb.Error as error:
            raise ProviderError(f"{path.name}: cannot be read: {str(error).splitlines()[0]}") from None
    _refuse_rows(table, path)
    return table


def _refuse_columns(types: dict[str, str], path: Path) -> None:
    missing = [name for name in _REQUIRED if name not in types]
    unknown = sorted(set(types) - {"line", *_REQUIRED, *_OPTIONAL})
    if missing or unknown:
        fault = f"missing {', '.join(missing)}" if missing else f"unknown {', '.join(unknown)}"
        raise ProviderError(f"{path.name}: columns: {fault}; allowed: {', '.join((*_REQUIRED, *_OPTIONAL))}")
    if types["hour"] not in {"VARCHAR", "TIMESTAMP WITH TIME ZONE"}:
        raise ProviderError(f"{path.name}: column hour: found {types['hour']} (no zone), allowed: a time with a zone")


def _typed(types: dict[str, str]) -> str:
    hour = "hour"
    if types["hour"] == "VARCHAR":
        hour = r"case when regexp_matches(hour, '(Z|[+-]\d\d(:?\d\d)?)$') then try_cast(hour as timestamptz) end"
    numbers = [
        f"coalesce(try_cast({n} as double), case when nullif({n}::varchar, '') is not null then 'nan'::double end"
        f"{'' if n == 'cpu_utilization' else ', 0'}) as {n}"
        if n in types
        else f"{'null::double' if n == 'cpu_utilization' else '0::double'} as {n}"
        for n in (*_OPTIONAL, "vcpu_hours")
    ]
    return f"""
        select line, hour::varchar as raw_hour, 'file' as source, {hour} as hour, service, tenant, region,
            {", ".join(numbers)}, ({hour})::date as day
        from rows_of_file
    """


def _refuse_rows(rows: pa.Table, path: Path) -> None:
    def refuse(mask: pa.ChunkedArray, field: str, shown: str, allowed: str) -> None:
        first = pc.index(pc.fill_null(mask, True), True).as_py()
        if first >= 0:
            raise ProviderError(
                f"{path.name}, line {rows['line'][first].as_py()}: {field}: "
                f"found {rows[shown][first].as_py()!r}, allowed: {allowed}"
            )

    refuse(pc.is_null(rows["hour"]), "hour", "raw_hour", "a full hour with a zone, e.g. 2026-01-01T00:00:00Z")
    floored = pc.floor_temporal(rows["hour"], unit="hour")
    refuse(pc.not_equal(floored, rows["hour"]), "hour", "raw_hour", "the start of a full hour")
    for name in ("service", "tenant", "region"):
        refuse(pc.or_kleene(pc.is_null(rows[name]), pc.equal(rows[name], "")), name, name, "a name")
    for name in ("vcpu_hours", *_OPTIONAL):
        values = pc.fill_null(rows[name], 0.0)
        upper = 1.0 if name == "cpu_utilization" else float("inf")
        bad = pc.or_(pc.invert(pc.is_finite(values)), pc.or_(pc.less(values, 0), pc.greater(values, upper)))
        refuse(bad, name, name, "a number from 0 to 1" if upper == 1 else "a number >= 0")


def _unit(text: str) -> float:
    """A reproducible number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def configured_usage(
    path: str, tenants: Sequence[Tenant], start: datetime, end: datetime, now: datetime
) -> tuple[str, pa.Table]:
    """Source name and rows of [start, end): from the files at `path`, or the sample where no path is set."""
    return ("file", file_usage(path, start, end)) if path else ("sample", sample_usage(tenants, start, end, now))
