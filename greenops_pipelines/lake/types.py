"""Arrow types and DuckDB types, one table for both directions."""

from __future__ import annotations

import re

import pyarrow as pa

from greenops_pipelines.lake.schema import TIMESTAMP

_DUCKDB: tuple[tuple[pa.DataType, str], ...] = (
    (pa.string(), "VARCHAR"),
    (pa.float64(), "DOUBLE"),
    (pa.int64(), "BIGINT"),
    (pa.int32(), "INTEGER"),
    (pa.bool_(), "BOOLEAN"),
    (pa.date32(), "DATE"),
    (TIMESTAMP, "TIMESTAMP WITH TIME ZONE"),
)
_ALIASES = {
    "text": "VARCHAR",
    "string": "VARCHAR",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "int": "INTEGER",
    "integer": "INTEGER",
    "bool": "BOOLEAN",
}
_DECIMAL = re.compile(r"(?:decimal|numeric)\((\d+),\s*(\d+)\)", re.IGNORECASE)


def to_duckdb(arrow: pa.DataType) -> str:
    """DuckDB's name of an Arrow type; raises `ValueError` for one the lake does not use."""
    if pa.types.is_decimal128(arrow):
        return f"DECIMAL({arrow.precision},{arrow.scale})"
    for ours, name in _DUCKDB:
        if ours == arrow:
            return name
    raise ValueError(f"the lake has no DuckDB type for {arrow}")


def to_arrow(duckdb: str) -> pa.DataType:
    """The Arrow type of a DuckDB type name; raises `ValueError` for one the lake does not use."""
    if decimal := _DECIMAL.fullmatch(duckdb.strip()):
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    wanted = _ALIASES.get(duckdb.strip().lower(), duckdb.strip().upper())
    for ours, name in _DUCKDB:
        if name == wanted:
            return ours
    raise ValueError(f"the lake has no Arrow type for {duckdb}")
