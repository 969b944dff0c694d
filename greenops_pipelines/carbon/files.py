"""Carbon intensity from files: the Electricity Maps portal's CSV, or long CSV and Parquet.

The portal's CSV has one row per zone and hour with a column for direct and one for life-cycle (LCA) intensity:
both are read, as two emission factor types. The long form has `datetime, zone, carbon_intensity_g_per_kwh` and is
taken as life-cycle, average, as configured. Times in text without a zone are UTC only in the portal's form, whose
header says so ("Datetime (UTC)"); in the long form they are refused.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.carbon import tabular
from greenops_pipelines.carbon.provider import FORECAST, POINTS
from greenops_pipelines.errors import ConfigurationError, ProviderError

_LONG = {"datetime", "zone", "carbon_intensity_g_per_kwh"}
_PORTAL_TIME = "Datetime (UTC)"
_MAX_G_PER_KWH = 5000
_PORTAL_TYPES = {"direct": "direct", "lifecycle": "LCA"}


class FileProvider:
    """One file, or all files that match a glob."""

    name = "file"
    signal = "average"

    def __init__(
        self, path: str, emission_factor_type: str = "lifecycle", variable: str = "GREENOPS_CARBON_PATH"
    ) -> None:
        if not path:
            raise ConfigurationError(f"{variable}: not set; the provider `file` needs a file or a glob")
        self._path = path
        self._variable = variable
        self.emission_factor_type = emission_factor_type

    def covers(self, zone: str) -> bool:
        return zone in self.zones

    def span(self) -> tuple[datetime, datetime]:
        bounds = pc.min_max(self._rows["datetime"])
        resolution = timedelta(minutes=int(pc.max(self._rows["resolution_minutes"]).as_py()))
        return bounds["min"].as_py().astimezone(UTC), bounds["max"].as_py().astimezone(UTC) + resolution

    def history(self, zone: str, start: datetime, end: datetime) -> pa.Table:
        if zone not in self.zones:
            raise ProviderError(f"file: zone {zone}: not in {self._path}; there: {', '.join(sorted(self.zones))}")
        rows = self._rows
        kind = rows.schema.field("datetime").type
        wanted = pc.and_(
            pc.equal(rows["zone"], zone),
            pc.and_(
                pc.greater_equal(rows["datetime"], pa.scalar(start, kind)),
                pc.less(rows["datetime"], pa.scalar(end, kind)),
            ),
        )
        return rows.filter(wanted)

    def forecast(self, zone: str) -> pa.Table:
        return FORECAST.empty_table()

    @functools.cached_property
    def zones(self) -> frozenset[str]:
        """All zones in the files."""
        return frozenset(pc.unique(self._rows["zone"]).to_pylist())

    @property
    def rows(self) -> pa.Table:
        """All zones and times, of the chosen emission factor type: rows of `POINTS`."""
        return self._rows.filter(pc.equal(self._rows["emission_factor_type"], self.emission_factor_type))

    @functools.cached_property
    def _rows(self) -> pa.Table:
        paths = tabular.matching(self._path, self._variable)
        rows = pa.concat_tables([_read(path, self.emission_factor_type) for path in paths])
        if not rows.num_rows:
            raise ProviderError(f"{self._variable}: {self._path}: no rows")
        return _unique(rows, self._path)


def _read(path: Path, emission_factor_type: str) -> pa.Table:
    with tabular.opened(path) as (connection, types):
        if _PORTAL_TIME in types:
            typed = _portal(list(types), path)
        elif set(types) >= _LONG:
            time = tabular.instant("datetime", types, path)
            value = "carbon_intensity_g_per_kwh"
            typed = _points(time, "zone", value, "datetime", f"'{emission_factor_type}'", "null", "null")
        else:
            raise ProviderError(
                f"{path.name}: found columns {', '.join(sorted(set(types) - {'line'}))}; "
                f"allowed: {', '.join(sorted(_LONG))}, or the portal's form with {_PORTAL_TIME!r}"
            )
        table = connection.sql(typed).to_arrow_table()
    _refuse_bad(table, path)
    return table.drop_columns(["line", "raw_time", "raw_value"]).cast(POINTS)


def _portal(columns: list[str], path: Path) -> str:
    values = {
        kind: next((c for c in columns if c.startswith("Carbon Intensity") and c.endswith(f"({label})")), None)
        for kind, label in _PORTAL_TYPES.items()
    }
    zone = next((c for c in columns if c in {"Zone Id", "Zone id"}), None)
    if zone is None or None in values.values():
        raise ProviderError(
            f"{path.name}: not the portal's form: 'Zone Id' and the direct and LCA intensities are needed"
        )
    estimated = next((c for c in columns if c == "Data Estimated"), None)
    method = next((c for c in columns if c == "Data Estimation Method"), None)
    parts = [
        _points(
            f"""try_cast("{_PORTAL_TIME}" || '+00' as timestamptz)""",
            f'"{zone}"',
            f'"{column}"',
            f'"{_PORTAL_TIME}"',
            f"'{kind}'",
            f'try_cast("{estimated}" as boolean)' if estimated else "null",
            f"nullif(\"{method}\", '')" if method else "null",
        )
        for kind, column in values.items()
    ]
    return " union all ".join(parts)


def _points(time: str, zone: str, value: str, raw_time: str, kind: str, estimated: str, method: str) -> str:
    return f"""
        select line, {raw_time}::varchar as raw_time, nullif({value}::varchar, '') as raw_value,
            {zone}::varchar as zone, {time} as datetime, 60::integer as resolution_minutes,
            try_cast({value} as double) as carbon_intensity_g_per_kwh, 'average' as signal,
            {kind} as emission_factor_type, null::boolean as is_flow_traced, {estimated}::boolean as is_estimated,
            {method}::varchar as estimation_method, null::timestamptz as updated_at
        from rows_of_file
    """


def _refuse_bad(table: pa.Table, path: Path) -> None:
    """One clear line for the first row that cannot be used. An empty value is a gap, not a fault."""
    value = table["carbon_intensity_g_per_kwh"]
    odd = pc.or_(pc.invert(pc.is_finite(value)), pc.or_(pc.less(value, 0), pc.greater(value, _MAX_G_PER_KWH)))
    rules = (
        (pc.is_null(table["datetime"]), "datetime", "raw_time", "a time with a zone, e.g. 2022-01-01T00:00:00Z"),
        (pc.or_kleene(pc.is_null(table["zone"]), pc.equal(table["zone"], "")), "zone", "zone", "a grid zone"),
        (
            pc.or_kleene(odd, pc.and_(pc.is_null(value), pc.is_valid(table["raw_value"]))),
            "carbon intensity",
            "raw_value",
            f"a number from 0 to {_MAX_G_PER_KWH} g/kWh, or nothing",
        ),
    )
    for mask, field, shown, allowed in rules:
        first = pc.index(pc.fill_null(mask, False), True).as_py()
        if first >= 0:
            line, found = table["line"][first].as_py(), table[shown][first].as_py()
            raise ProviderError(f"{tabular.place(path, line)}: {field}: found {found!r}, allowed: {allowed}")


_KEY = "zone, signal, emission_factor_type"
_RESOLUTIONS = (5, 15, 30, 60)


def _unique(rows: pa.Table, path: str) -> pa.Table:
    """Equal rows once, with the interval's length found from the rows; a contradiction is an error."""
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("points", rows)
        clash = connection.execute(
            "select zone, datetime, list(distinct coalesce(carbon_intensity_g_per_kwh::varchar, 'no value')) from "
            f"(select distinct * from points) group by {_KEY}, datetime having count(*) > 1 order by 1, 2 limit 1"
        ).fetchone()
        if clash:
            zone, time, values = clash
            found = f"{' and '.join(sorted(values))} g/kWh" if len(values) > 1 else "different estimation marks"
            raise ProviderError(f"{path}: zone {zone}, {time:%Y-%m-%dT%H:%MZ}: found twice with {found}")
        connection.execute(f"""
            create temp table measured as
            with spaced as (
                select *, datetime - lag(datetime) over (partition by {_KEY} order by datetime) as step
                from (select distinct * from points)
            )
            select *, coalesce(epoch(min(step) over (partition by {_KEY})) / 60, 60)::integer as minutes from spaced
        """)
        odd = connection.execute(
            "select zone, datetime, minutes from measured where minutes not in (5, 15, 30, 60) "
            "or epoch(datetime) % (minutes * 60) <> 0 order by 1, 2 limit 1"
        ).fetchone()
        if odd:
            zone, time, minutes = odd
            raise ProviderError(
                f"{path}: zone {zone}, {time:%Y-%m-%dT%H:%M:%SZ}: found steps of {minutes} minutes; "
                f"allowed: intervals of {', '.join(map(str, _RESOLUTIONS))} minutes that start on the clock"
            )
        unique = connection.sql(
            f"select * replace (minutes as resolution_minutes) from measured order by {_KEY}, datetime"
        ).to_arrow_table()
    return unique.select(POINTS.names).cast(POINTS)
