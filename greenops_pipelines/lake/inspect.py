"""Does what lies in the lake fit its declaration? Read from the Parquet footers, and by the natural key."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import catalog, query, versions
from greenops_pipelines.lake.lake import Lake
from greenops_pipelines.lake.parquet import DIGEST_KEY
from greenops_pipelines.lake.schema import Kind, Table
from greenops_pipelines.lake.storage import url
from greenops_pipelines.measurement import Measurement

_MANY = 5_000_000
"""Rows that are grouped by their key in a second or two."""


def schema_faults(lake: Lake, table: Table) -> tuple[int, int, list[str]]:
    """Files, rows, and one line per fault: no Parquet, a column of another type, an unknown column, no digest.

    A file may lack columns that were declared later if they are nullable; views fill them with null.
    """
    declared = {c.name: c for c in table.columns}
    faults: list[str] = []
    rows = 0
    paths = lake.files(table)
    if table.kind is Kind.SNAPSHOT:
        # No view reads such a file, but whoever put it there believes that one does.
        strangers = [path for path in lake.storage.glob(table.glob) if not versions.is_version(path)]
        faults += [f"{path}: not written by the lake, and not read" for path in strangers]
    for path in paths:
        try:
            footer = pq.read_metadata(pa.BufferReader(lake.storage.read_bytes(path)))
        except pa.ArrowInvalid as error:
            faults.append(f"{path}: {error}")
            continue
        schema = footer.schema.to_arrow_schema()
        rows += footer.num_rows
        for field in schema:
            column = declared.get(field.name)
            if column is None:
                faults.append(f"{path}: column {field.name}: not declared")
            elif field.type != column.type:
                faults.append(f"{path}: column {field.name}: found {field.type}, declared {column.type}")
        faults += [
            f"{path}: column {name}: missing"
            for name, column in declared.items()
            if name not in schema.names and not column.nullable
        ]
        if DIGEST_KEY not in (footer.metadata or {}):
            faults.append(f"{path}: no digest in the footer")
    return len(paths), rows, faults


def repeated_keys(lake: Lake, table: Table, rows_there: int = 0) -> int:
    """Rows beyond the first of their natural key, over all files (equal rows of a compaction count once).

    Of a large table whose partition is part of the key, so that two files can share none, the newest file alone: a file's
    own rows were held against each other when it was written.
    """
    key = ", ".join(catalog.identifier(name) for name in table.row_key)
    if rows_there > _MANY and table.kind is Kind.SNAPSHOT and set(table.partition_by) <= set(table.unique):
        newest = url(lake.storage, lake.files(table)[-1])
        sql = f"select coalesce(sum(n - 1), 0) from (select count(*) as n from read_parquet(?) group by {key})"
        with lake.bare() as connection:
            return int(connection.execute(sql, [newest]).fetchall()[0][0])
    names = ", ".join(catalog.identifier(c.name) for c in table.columns)
    with lake.connect([table.name]) as connection:
        view = next(
            name
            for name in (f"{table.name}_history", f"{table.name}_all", table.name)
            if connection.execute("select count(*) from duckdb_views() where view_name = ?", [name]).fetchall()[0][0]
        )
        # A snapshot has no compaction beside it: its rows are counted as they are, without comparing all their columns.
        rows = view if table.kind is Kind.SNAPSHOT else f"(select distinct {names} from {view})"
        found = connection.execute(
            f"select coalesce(sum(n - 1), 0) from (select count(*) as n from {rows} group by {key})"
        ).fetchall()
    return int(found[0][0])


def schema_measurement(lake: Lake, table: Table, asset_key: str) -> Measurement:
    """The blocking schema check of one table: faults in its files, against zero."""
    files, rows, faults = schema_faults(lake, table)
    repeated = 0 if faults else repeated_keys(lake, table, rows)
    detail = faults[0] if faults else f"{repeated} repeated keys" if repeated else "every file fits the declaration"
    return Measurement(
        check=f"{asset_key}:schema",
        measured=float(len(faults) + repeated),
        target=0,
        comparison="==",
        unit="faults",
        detail=detail,
        figures={"files": files, "rows": rows, "columns": len(table.columns)},
    )


def views_measurement(lake: Lake) -> Measurement:
    """The warehouse's check: views that do not answer, against zero."""
    found = query.run(lake.warehouse, lake.storage, "select view_name from duckdb_views() where not internal")
    names = found["view_name"].to_pylist()
    silent: list[str] = []
    rows = 0
    for name in names:
        try:
            answer = query.run(lake.warehouse, lake.storage, f"select count(*) as n from {catalog.identifier(name)}")
            rows += answer["n"][0].as_py()
        except BadInput as error:
            silent.append(f"{name}: {error}")
    return Measurement(
        check="lake/warehouse:views_answer",
        measured=float(len(silent)),
        target=0,
        comparison="==",
        unit="views",
        detail=silent[0] if silent else f"{len(names)} views answer",
        figures={"views": len(names), "rows": rows},
    )
