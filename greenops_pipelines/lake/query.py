"""Ad-hoc SQL on `warehouse.duckdb`: one statement that reads, told by DuckDB's own parser.

Everything that could write is refused twice: by the kind of the statement, and by a read-only connection that
may touch no file outside the lake.
"""

from __future__ import annotations

import itertools
import json
import math
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import catalog
from greenops_pipelines.lake.storage import Storage

_ALLOWED = "one SELECT, EXPLAIN, DESCRIBE, SHOW or SUMMARIZE statement"


class QueryFailed(BadInput):
    """DuckDB refused the statement: its own message."""


def check(sql: str) -> None:
    """Raise `BadInput` unless `sql` is one statement that only reads."""
    try:
        found = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryFailed(_first_lines(error)) from None
    if len(found) != 1:
        raise BadInput(f"found {len(found)} statements, allowed: {_ALLOWED}")
    kind = found[0].type
    if kind == duckdb.StatementType.EXPLAIN:
        kind = _explained(sql)
    if kind != duckdb.StatementType.SELECT:
        raise BadInput(f"found a {kind.name} statement, allowed: {_ALLOWED}")


def _explained(sql: str) -> duckdb.StatementType:
    """What an EXPLAIN explains: EXPLAIN ANALYZE runs it. It is the first rest of the text that is a statement."""
    encoded = sql.encode()
    for offset, _ in duckdb.tokenize(sql)[1:]:
        rest = encoded[offset:].decode(errors="ignore")
        try:
            inner = duckdb.extract_statements(rest)
        except duckdb.Error:
            continue
        if len(inner) == 1 and inner[0].type != duckdb.StatementType.EXPLAIN:
            return inner[0].type
    raise BadInput(f"found an EXPLAIN of nothing, allowed: {_ALLOWED}")


def run(warehouse: Path, storage: Storage, sql: str) -> pa.Table:
    """The rows of one reading statement. Raises `BadInput` for anything else, or where there is no warehouse yet."""
    check(sql)
    if not warehouse.exists():
        raise BadInput(f"{warehouse.name}: not there yet; `greenops run` makes it")

    try:
        with catalog.opened(warehouse) as connection:
            storage.register(connection)
            _lock_down(connection, storage)
            return connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        raise QueryFailed(_first_lines(error)) from None


def _lock_down(connection: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    connection.execute(f"set allowed_directories = [{catalog.quoted(storage.root + '/')}]")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


def _first_lines(error: Exception) -> str:
    """DuckDB's message without the parts that repeat the whole statement."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) if lines else type(error).__name__


def as_objects(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows for JSON: times as ISO 8601, decimals exact (as text where a double would not hold them), NaN as text.

    Integers stay integers, DuckDB's sum of integers included, which comes as DECIMAL(38, 0).
    """
    names: list[str] = []
    for name in rows.column_names:
        taken = {*names, *rows.column_names}
        others = (other for n in itertools.count(2) if (other := f"{name}_{n}") not in taken)
        names.append(name if name not in names else next(others))
    return [{k: _plain(v) for k, v in row.items()} for row in rows.rename_columns(names).to_pylist()]


def write_csv(rows: pa.Table, file: Any) -> None:
    """Rows as CSV with a header; nested values and intervals as JSON text."""
    columns = [
        pa.array([None if v is None else json.dumps(_plain(v)) for v in column.to_pylist()], pa.string())
        if pa.types.is_nested(column.type) or pa.types.is_interval(column.type)
        else column
        for column in rows.columns
    ]
    pa.csv.write_csv(pa.Table.from_arrays(columns, names=rows.column_names), file)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        if value.as_tuple().exponent == 0:
            return int(value)
        near = float(value)
        return near if Decimal(repr(near)) == value else str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.hex() if isinstance(value, bytes) else str(value)
