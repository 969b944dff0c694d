"""Reading and writing the lake's tables. Not here: what the tables are, where files lie, what views look like."""

from __future__ import annotations

import functools
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.errors import SchemaViolation
from greenops_pipelines.lake import catalog, parquet, versions
from greenops_pipelines.lake.schema import Kind, Table
from greenops_pipelines.lake.storage import Storage, url

_log = logging.getLogger(__name__)

PartitionValue = str | date

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Written:
    """What a write did: table, rows, files with their sizes and digests."""

    table: Table
    rows: int
    paths: tuple[str, ...]
    bytes: int
    digests: tuple[str, ...]

    @property
    def version(self) -> str:
        """One digest for all files: the data version."""
        return catalog.signature(self.digests)


class Lake:
    """The tables of one home.

    `selections` holds the configured value of columns such as `provider`; `marts` is asked for the tables that
    dbt declares (late, because its manifest is read only where it is needed).
    """

    def __init__(
        self,
        storage: Storage,
        warehouse: Path,
        selections: catalog.Selections,
        declared: Sequence[Table],
        marts: Callable[[], Sequence[Table]] = tuple,
    ) -> None:
        self.storage = storage
        self.warehouse = warehouse
        self.selections = selections
        self._declared = tuple(declared)
        self._marts = marts

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables: the declared ones and dbt's marts."""
        return (*self._declared, *self._marts())

    # Writing

    def write(
        self,
        table: Table,
        rows: pa.Table,
        partitions: Iterable[Mapping[str, PartitionValue]] = (),
        *,
        refresh: bool = True,
    ) -> Written:
        """Replace partitions of a SNAPSHOT table: those in `rows`, and those named in `partitions`.

        A named partition without rows becomes empty: what was there before is gone, as after any replacement. Rows
        that are there already are not written again. Readers of the warehouse see all partitions change at once,
        with its refresh; `refresh=False` leaves that to the caller, who has more tables to write.
        Raises `SchemaViolation` before anything is written.
        """
        if table.kind is not Kind.SNAPSHOT:
            raise SchemaViolation(f"{table.path}: a {table.kind} table is appended to, never replaced")
        parts = dict(_split(table, parquet.conform(table, rows)))
        for named in partitions:
            parts.setdefault(_folder(table, named), table.schema.empty_table())
        if not table.partition_by:
            parts = parts or {table.path: table.schema.empty_table()}
        there = versions.by_folder(self.storage.glob(table.glob))
        paths, digests, size, is_changed = [], [], 0, False
        for folder, part in parts.items():
            known, sha256 = there.get(folder, []), parquet.digest(part)
            if known and versions.holds(known[-1], sha256):
                path = known[-1]
                self.storage.tidy(folder)
            else:
                path = f"{folder}/{versions.file_name(versions.version_of(known[-1]) + 1 if known else 1, sha256)}"
                size += self._publish(table, path, part, sha256)
                is_changed = True
            for old in versions.superseded(self.storage, known):
                self.storage.remove(old)
            paths.append(path)
            digests.append(sha256)
        if is_changed and refresh:
            self.refresh()
        return Written(table, sum(part.num_rows for part in parts.values()), tuple(paths), size, tuple(digests))

    def append(self, table: Table, rows: pa.Table, at: datetime, run_id: str) -> Written:
        """Add rows to a LOG or REVISED table as one new file per partition; no rows write no file.

        The file's name holds the time, the run and the digest: the same append twice is one file.
        """
        if table.kind is Kind.SNAPSHOT:
            raise SchemaViolation(f"{table.path}: a snapshot table is replaced by partition, not appended to")
        if at.tzinfo is None:
            raise SchemaViolation(f"{table.path}: append at {at}: found a time without a zone, allowed: UTC")
        stamp = at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        run = "".join(c for c in run_id if c.isalnum())[:12] or "none"
        is_first = not self.storage.has(table.glob)
        paths, digests, size = [], [], 0
        for folder, part in _split(table, parquet.conform(table, rows)):
            sha256 = parquet.digest(part)
            path = f"{folder}/{stamp}-{run}-{sha256[:12]}.parquet"
            size += self._publish(table, path, part, sha256)
            paths.append(path)
            digests.append(sha256)
        if is_first and paths:
            self.refresh()
        return Written(table, rows.num_rows, tuple(paths), size, tuple(digests))

    def load(
        self,
        table: Table,
        partition: Mapping[str, PartitionValue],
        batches: Iterable[pa.RecordBatch],
        *,
        refresh: bool = True,
    ) -> Written:
        """Replace one partition of a SNAPSHOT table with rows that need not fit into memory.

        They come in the order of the natural key, which is checked, and are written to a temporary file before anything is
        published. Raises `SchemaViolation` as `write` does.
        """
        if table.kind is not Kind.SNAPSHOT:
            raise SchemaViolation(f"{table.path}: a {table.kind} table is appended to, never replaced")
        folder = _folder(table, partition)
        known = versions.by_folder(self.storage.glob(f"{folder}/*.parquet")).get(folder, [])
        with tempfile.TemporaryFile() as file:
            rows, sha256 = parquet.write_batches(file, table, batches)
            if known and versions.holds(known[-1], sha256):
                return Written(table, rows, (known[-1],), 0, (sha256,))
            path = f"{folder}/{versions.file_name(versions.version_of(known[-1]) + 1 if known else 1, sha256)}"
            file.seek(0)
            size = self.storage.publish(path, functools.partial(shutil.copyfileobj, file, length=1 << 20))
        for old in versions.superseded(self.storage, known):
            self.storage.remove(old)
        if refresh:
            self.refresh()
        return Written(table, rows, (path,), size, (sha256,))

    def _publish(self, table: Table, path: str, rows: pa.Table, sha256: str) -> int:
        return self.storage.publish(path, functools.partial(parquet.write, table=table, rows=rows, sha256=sha256))

    # Reading

    def files(self, table: Table, where: Mapping[str, PartitionValue | tuple[date, date]] | None = None) -> list[str]:
        """Paths of the files that count, pruned by partition: a value, or an inclusive range of days."""
        chosen = where or {}
        for key, value in chosen.items():
            if key not in table.partition_by:
                raise SchemaViolation(f"{table.path}: {key} is no partition key; keys: {', '.join(table.partition_by)}")
            if not isinstance(value, tuple):
                _plain(table, key, value)
        pattern = "/".join(
            [table.path]
            + [
                f"{key}={v}" if isinstance(v := chosen.get(key, "*"), str | date) else f"{key}=*"
                for key in table.partition_by
            ]
            + ["*.parquet"]
        )
        paths = versions.current(table, self.storage.glob(pattern))
        for key, value in chosen.items():
            if isinstance(value, tuple):
                low, high = (f"/{key}={bound.isoformat()}/" for bound in value)
                position = table.partition_by.index(key) + 2
                paths = [p for p in paths if low <= f"/{p.split('/')[position]}/" <= high]
        return paths

    def stored(self, table: Table, where: Mapping[str, PartitionValue | tuple[date, date]] | None = None) -> Written:
        """What is in the lake of a table that is written part by part, or of some of its partitions, as one write would report it."""
        paths = tuple(self.files(table, where))
        if where is None:
            [row] = self.query(f"select count(*)::bigint as n from {table.name}").to_pylist()
            return Written(table, row["n"], paths, 0, paths)
        return Written(table, self.read(table, where, [table.columns[0].name]).num_rows, paths, 0, paths)

    def read(
        self,
        table: Table,
        where: Mapping[str, PartitionValue | tuple[date, date]] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """All stored rows of the chosen partitions, in declared order and types."""
        schema = table.schema if columns is None else pa.schema([table.schema.field(c) for c in columns])
        paths = self.files(table, where)
        if not paths:
            return schema.empty_table()
        names = ", ".join(f"t.{catalog.identifier(name)}" for name in schema.names)
        with self.bare() as connection:
            connection.register("typed", table.schema.empty_table())
            files = [url(self.storage, path) for path in paths]
            query = (
                f"select {names} from (from typed union all by name "
                "from read_parquet(?, union_by_name = true, hive_partitioning = false)) t"
            )
            return connection.sql(query, params=[files]).to_arrow_table().cast(schema)

    def bare(self) -> duckdb.DuckDBPyConnection:
        """A connection in UTC that can read the lake's files, without views."""
        return catalog.connect(self.storage, [])

    def connect(self, names: Iterable[str] | None = None) -> duckdb.DuckDBPyConnection:
        """An in-memory connection with the views of all tables, or of the named ones."""
        if names is None:
            tables = self.tables
        else:
            wanted = set(names)
            # dbt's manifest is read only where a mart is asked for.
            known = self._declared if wanted <= {t.name for t in self._declared} else self.tables
            tables = tuple(t for t in known if t.name in wanted)
        ddl = catalog.statements(tables, self.storage, self.selections, with_comments=False)
        return catalog.connect(self.storage, ddl)

    def query(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> pa.Table:
        """The result of one statement over the lake's views."""
        text = sql.casefold()
        # To make all hundred of them takes 0.15 s; a name that stands in the text for something else costs its view alone.
        with self.connect(table.name for table in self.tables if table.name in text) as connection:
            return connection.sql(sql, params=parameters).to_arrow_table()

    # The warehouse

    def refresh(self) -> bool:
        """Bring `warehouse.duckdb` up to date; True if it was built anew.

        Two runs may refresh at once, and the one that saw fewer tables may swap last. So each looks again
        after its swap, and builds again if the lake moved on meanwhile: whoever is last has seen everything.
        """
        built = False
        while True:
            views = catalog.views(self.tables, self.storage, self.selections)
            signature = catalog.signature(ddl for of_table in views.values() for ddl in of_table)
            if catalog.built_signature(self.warehouse) == signature:
                return built
            made = catalog.build(self.warehouse, self.storage, views)
            _log.info("built %s: views of %d of %d tables", self.warehouse.name, made, len(views))
            built = True


def _folder(table: Table, values: Mapping[str, PartitionValue]) -> str:
    if set(values) != set(table.partition_by):
        raise SchemaViolation(f"{table.path}: partition: found {sorted(values)}, declared: {list(table.partition_by)}")
    parts = [table.path]
    for key in table.partition_by:
        parts.append(f"{key}={_plain(table, key, values[key])}")
    return "/".join(parts)


def _plain(table: Table, key: str, value: PartitionValue) -> str:
    """A partition value as it stands in a path. DuckDB must read it back from there as it is."""
    name = str(value)
    if not name or not name.isprintable() or name[0] == "." or set(name) & set("/\\*?[]=%") or name == _HIVE_NULL:
        raise SchemaViolation(f"{table.path}: partition {key}: found {name!r}, allowed: a plain name")
    return name


def _split(table: Table, rows: pa.Table) -> Iterable[tuple[str, pa.Table]]:
    """Slices of sorted rows, one per partition; nothing is copied."""
    if not table.partition_by:
        if rows.num_rows:
            yield table.path, rows
        return
    counted = rows.group_by(list(table.partition_by), use_threads=False).aggregate([([], "count_all")])
    counted = counted.sort_by([(key, "ascending") for key in table.partition_by])
    offset = 0
    for entry in counted.to_pylist():
        length = entry.pop("count_all")
        yield _folder(table, entry), rows.slice(offset, length)
        offset += length


def utc_day(times: pa.ChunkedArray | pa.Array) -> Any:
    """The UTC day of each time, for `day` columns."""
    return pc.cast(times, pa.date32())
