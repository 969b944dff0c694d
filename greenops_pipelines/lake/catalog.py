"""Tables -> DuckDB views: for `warehouse.duckdb`, for in-memory connections, and for dbt's scratch file.

`warehouse.duckdb` holds views only, over the files that count when it is built. It is built under a temporary name and swapped by `os.replace`, so that
ad-hoc SQL may hold it open for ever and no run waits for a lock. Per table:

- SNAPSHOT and LOG: a view of its own name.
- REVISED: `<name>` (latest known value), `<name>_history` (every observation), `<name>_as_of(ts)` (a macro).
- Tables with a configured source: the plain view shows the configured one; `<name>_all` shows every one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from greenops_pipelines.lake.schema import Column, Kind, Table
from greenops_pipelines.lake.storage import Storage, sweep, temporary_path, url
from greenops_pipelines.lake.types import to_duckdb
from greenops_pipelines.lake.versions import current

Selections = Mapping[str, Mapping[str, str]]
"""Table name -> column -> configured value."""


def quoted(value: str) -> str:
    """A SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def statements(
    tables: Iterable[Table],
    storage: Storage,
    selections: Selections,
    schema: str = "main",
    *,
    with_comments: bool = True,
) -> list[str]:
    """The DDL of all views; the same for the same declarations, selections and files that count."""
    found = [ddl for of_table in views(tables, storage, selections, schema).values() for ddl in of_table]
    return found if with_comments else [ddl for ddl in found if not ddl.startswith("comment on ")]


def views(
    tables: Iterable[Table], storage: Storage, selections: Selections, schema: str = "main"
) -> dict[str, list[str]]:
    """The same, by the name of the table."""
    return {table.name: _views(table, storage, selections.get(table.name, {}), schema) for table in tables}


def _views(table: Table, storage: Storage, selection: Mapping[str, str], schema: str) -> list[str]:
    rows = _rows(table, storage)
    chosen = " and ".join(f"{identifier(k)} = {quoted(selection[k])}" for k in table.selected_by if k in selection)

    def named(name: str) -> str:
        return f"{identifier(schema)}.{name}"

    names = ", ".join(identifier(c.name) for c in table.columns)
    # A compacted file and those it replaces stand side by side for a while: equal rows count once.
    once = rows if table.kind is Kind.SNAPSHOT else f"select distinct {names} from ({rows})"
    if table.kind is not Kind.REVISED:
        if not chosen:
            return _view(named(identifier(table.name)), table, once)
        return [
            *_view(named(identifier(f"{table.name}_all")), table, once),
            *_view(named(identifier(table.name)), table, f"select {names} from ({once}) where {chosen}"),
        ]
    # The partition columns follow from the key; naming them lets a filter on the day reach the files.
    key = ", ".join(map(identifier, dict.fromkeys((*table.partition_by, *table.unique))))
    newest = f"row_number() over (partition by {key} order by observed_at desc)"
    known = [chosen, f"{identifier(table.measure)} is not null" if table.measure else ""]

    def latest(*conditions: str) -> str:
        return f"select {names} from ({rows}) where {' and '.join(filter(None, conditions)) or 'true'} qualify {newest} = 1"

    macro = named(identifier(f"{table.name}_as_of"))
    return [
        *_view(named(identifier(f"{table.name}_history")), table, once),
        *_view(named(identifier(table.name)), table, latest(*known)),
        f"create or replace macro {macro}(ts) as table {latest(*known, 'observed_at <= ts::timestamptz')}",
    ]


def _view(name: str, table: Table, body: str) -> list[str]:
    def comment(kind: str, on: str, text: str) -> str:
        return f"comment on {kind} {on} is {quoted(text)}"

    def column(c: Column) -> str:
        return comment("column", f"{name}.{identifier(c.name)}", c.comment)

    return [
        f"create or replace view {name} as {body}",
        comment("view", name, table.comment),
        *map(column, table.columns),
    ]


def _rows(table: Table, storage: Storage) -> str:
    """All stored rows. The typed empty relation in front gives order, types, and columns that older files lack."""
    typed = ", ".join(f"null::{to_duckdb(c.type)} as {identifier(c.name)}" for c in table.columns)
    empty = f"select {typed} where false"
    if table.kind is Kind.SNAPSHOT:
        paths = current(table, storage.glob(table.glob))
        source = f"[{', '.join(quoted(url(storage, path)) for path in paths)}]" if paths else ""
    else:
        source = quoted(url(storage, table.glob)) if storage.has(table.glob) else ""
    if not source:
        return empty
    types = {c.name: to_duckdb(c.type) for c in table.columns}
    hive = ", ".join(f"{quoted(k)}: {types[k]}" for k in table.partition_by)
    partitions = f", hive_partitioning = true, hive_types = {{{hive}}}" if hive else ", hive_partitioning = false"
    files = f"read_parquet({source}, union_by_name = true{partitions})"
    names = ", ".join(identifier(c.name) for c in table.columns)
    return f"select {names} from ({empty} union all by name select * from {files})"


def signature(ddl: Iterable[str]) -> str:
    """What a warehouse was built from, to see whether it has to be built again."""
    return hashlib.sha256("\n".join(ddl).encode()).hexdigest()


def connect(storage: Storage, ddl: Iterable[str], path: str = ":memory:") -> duckdb.DuckDBPyConnection:
    """A connection in UTC that reads from `storage` and holds the views."""
    connection = duckdb.connect(path)
    try:
        connection.execute("set TimeZone = 'UTC'")
        storage.register(connection)
        # One transaction: a commit per statement would be an fsync per column comment.
        connection.execute(";".join(["begin", *ddl, "commit"]))
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def opened(warehouse: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, attached read-only to a connection of its own.

    `duckdb.connect(warehouse)` would hand out the instance that another thread of this process has open: its file
    from before the last swap, and its locked configuration.
    """
    with duckdb.connect(config={"temp_directory": f"{warehouse}.tmp"}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"attach {quoted(str(warehouse))} as warehouse (read_only)")
        connection.execute("use warehouse")
        yield connection


_SEEN: dict[Path, tuple[tuple[int, int, int], str]] = {}
"""Of warehouses this process has looked into: which file that was, and its signature. To open one costs more than to write a table."""


def built_signature(warehouse: Path) -> str | None:
    """The signature a warehouse was built with; None where there is none or it cannot be read."""
    try:
        file = _identity(warehouse)
    except FileNotFoundError:
        return None
    if (seen := _SEEN.get(warehouse)) and seen[0] == file:
        return seen[1]
    try:
        with opened(warehouse) as connection:
            row = connection.execute("select signature from greenops_catalog").fetchone()
    except duckdb.Error:
        return None
    if row is None:
        return None
    _SEEN[warehouse] = file, str(row[0])
    return str(row[0])


def _identity(file: Path) -> tuple[int, int, int]:
    """Another file under the same name has another one, and so has one that was written to."""
    stat = file.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def build(warehouse: Path, storage: Storage, views: Mapping[str, list[str]]) -> int:
    """Build the file of views under a temporary name and swap it in; the number of tables whose views were made.

    `views`: of each table its DDL. Those of tables that are as they were are carried over with a copy of the file that is there: to
    make the views of a hundred tables takes a second.
    """
    warehouse.parent.mkdir(parents=True, exist_ok=True)
    sweep(warehouse.parent)
    temporary = temporary_path(warehouse)
    digests = {name: signature(ddl) for name, ddl in views.items()}
    whole = signature(ddl for of_table in views.values() for ddl in of_table)
    marker = (
        f"create or replace view greenops_catalog as select {quoted(whole)} as signature, {quoted(storage.root)} as lake, "
        f"{quoted(json.dumps(digests))} as tables"
    )
    try:
        connection, there = _copied(warehouse, temporary, storage, set(views))
        changed = [name for name in views if digests[name] != there.get(name)]
        with connection:
            # One transaction: a commit per statement would be an fsync per column comment.
            connection.execute(";".join(["begin", *(ddl for name in changed for ddl in views[name]), marker, "commit"]))
        temporary.replace(warehouse)
    finally:
        for leftover in (temporary, temporary.with_name(f"{temporary.name}.wal")):
            leftover.unlink(missing_ok=True)
    return len(changed)


def _copied(
    warehouse: Path, copy: Path, storage: Storage, names: set[str]
) -> tuple[duckdb.DuckDBPyConnection, dict[str, str]]:
    """A copy of a warehouse of the same tables, open, and the digest of each table's views in it; else an empty one."""
    with suppress(FileNotFoundError, duckdb.Error, ValueError):
        shutil.copyfile(warehouse, copy)
        connection = connect(storage, [], str(copy))
        try:
            [(found,)] = connection.execute("select tables from greenops_catalog").fetchall()
            # A table that is declared no more would leave its views behind.
            if set(digests := json.loads(found)) == names:
                return connection, digests
        except BaseException:
            connection.close()
            raise
        connection.close()
    copy.unlink(missing_ok=True)
    return connect(storage, [], str(copy)), {}
