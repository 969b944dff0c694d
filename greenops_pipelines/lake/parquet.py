"""Rows -> one Parquet file that says what it holds: validation against the declaration, digest, writing.

The digest is SHA-256 over the values in declared column order (not over the file's bytes, which change with
compression and library version), so that two files with equal rows have equal digests. It stands in the
Parquet footer under `greenops.sha256`, and is the data version of what was written.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from greenops_pipelines.errors import SchemaViolation
from greenops_pipelines.lake.schema import Table

DIGEST_KEY = b"greenops.sha256"
TABLE_KEY = b"greenops.table"
_PIECE = 131_072


def conform(table: Table, rows: pa.Table) -> pa.Table:
    """`rows` in declared column order and sorted by the natural key, or `SchemaViolation`.

    Refused: missing or unknown columns, other types, times without a zone, nulls where none are allowed,
    NaN and infinity, two rows of one key. Times in another zone are the same instants and become UTC.
    """
    declared = [c.name for c in table.columns]
    missing = [name for name in declared if name not in rows.column_names]
    unknown = [name for name in rows.column_names if name not in declared]
    if missing or unknown or len(rows.column_names) != len(declared):
        found = ", ".join(rows.column_names)
        fault = f"missing {missing}" if missing else f"unknown {unknown}" if unknown else "a column twice"
        raise SchemaViolation(f"{table.path}: columns: {fault}; found: {found}; declared: {', '.join(declared)}")
    columns = [_conform_column(table, c.name, c.type, c.nullable, rows[c.name]) for c in table.columns]
    return _sorted_unique(table, pa.Table.from_arrays(columns, schema=table.schema))


def _conform_column(
    table: Table, name: str, wanted: pa.DataType, nullable: bool, values: pa.ChunkedArray
) -> pa.ChunkedArray:
    found = values.type
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(found):
        if found.tz is None:
            row = max(pc.index(values.is_valid(), True).as_py(), 0)
            example = values[row].as_py() if len(values) else "no rows"
            raise SchemaViolation(
                f"{table.path}: column {name}, row {row}: found a time without a zone ({example}), allowed: UTC"
            )
        if found != wanted and found.unit == wanted.unit:
            values = values.cast(wanted)
    if values.type != wanted:
        raise SchemaViolation(f"{table.path}: column {name}: found type {found}, declared: {wanted}")
    if values.null_count and not nullable:
        row = pc.index(values.is_null(), True).as_py()
        raise SchemaViolation(
            f"{table.path}: column {name}, row {row}: found null, allowed: a value ({values.null_count} nulls)"
        )
    if pa.types.is_floating(wanted):
        odd = pc.invert(pc.is_finite(values))
        if pc.any(odd).as_py():
            row = pc.index(odd, True).as_py()
            raise SchemaViolation(
                f"{table.path}: column {name}, row {row}: found {values[row].as_py()}, allowed: a finite number"
            )
    return values


def _sorted_unique(table: Table, rows: pa.Table) -> pa.Table:
    """Sort by partition columns and key, unless they are sorted already: looking costs a tenth of sorting."""
    order = [*dict.fromkeys((*table.partition_by, *table.row_key))]
    increasing, repeated = _neighbours(rows, order)
    if increasing:
        return rows
    given = rows
    if repeated is None:
        rows = rows.sort_by([(name, "ascending") for name in order])
        _, repeated = _neighbours(rows, order)
    if repeated is not None:
        key = {name: rows[name][repeated] for name in table.row_key}
        first, second = _where(given, key)[:2]
        raise SchemaViolation(
            f"{table.path}: key {', '.join(key)}, rows {first} and {second}: "
            f"found twice: {', '.join(f'{name} {value}' for name, value in key.items())}"
        )
    return rows


def _where(rows: pa.Table, key: Mapping[str, pa.Scalar]) -> list[int]:
    """Positions of the rows with that key."""
    found = functools.reduce(pc.and_, (pc.equal(rows[name], value) for name, value in key.items()))
    positions: list[int] = pc.indices_nonzero(found).to_pylist()
    return positions


def _neighbours(rows: pa.Table, order: list[str]) -> tuple[bool, int | None]:
    """Whether rows strictly increase by `order`; else the first row that equals the one before it, if any does."""
    if rows.num_rows < 2:
        return True, None
    before: Any = None
    same: Any = None
    for name in order:
        column = rows[name].combine_chunks()
        left, right = column.slice(0, len(column) - 1), column.slice(1)
        less, equal = pc.less(left, right), pc.equal(left, right)
        before = less if before is None else pc.or_(before, pc.and_(same, less))
        same = equal if same is None else pc.and_(same, equal)
    if pc.all(before).as_py():
        return True, None
    first = pc.index(same, True).as_py()
    return False, None if first < 0 else first + 1


def digest(rows: pa.Table) -> str:
    """SHA-256 of the values, independent of chunks, slices, compression and what lies under nulls.

    A column of one value, as every partition column is, stands for its one value and the number of rows: that halves the
    digest of 2.88M samples, which is the largest part of their write.
    """
    sha = hashlib.sha256()
    for field in rows.schema:
        column = rows[field.name].combine_chunks()
        header = f"{field.name}:{field.type}:{rows.num_rows}:{column.null_count}"
        if isinstance(column, pa.Array) and _is_one_value(column):
            sha.update(f"{header}=".encode())
            _update(sha, column.slice(0, 1))
            continue
        sha.update(f"{header};".encode())
        for array in column.chunks if isinstance(column, pa.ChunkedArray) else (column,):
            if array.null_count:
                sha.update(array.is_null().cast(pa.uint8()).buffers()[1])
                array = array.fill_null(_zero(array.type))
            _update(sha, array)
    return sha.hexdigest()


def _is_one_value(array: pa.Array) -> bool:
    """Whether all of at least two values are the same, bit for bit: 0 and -0 are not."""
    if len(array) < 2 or array.null_count or array[0].as_py() != array[-1].as_py():
        return False
    offset, count = array.offset, len(array)
    if pa.types.is_boolean(array.type):
        return array.true_count in (0, count)
    if not pa.types.is_string(array.type):
        width = array.type.bit_width // 8
        cells = np.frombuffer(array.buffers()[1], np.uint8, count * width, offset * width)
    else:
        ends = np.frombuffer(array.buffers()[1], np.int32, count + 1, offset * 4)
        width = int(ends[1] - ends[0])
        if not width or not (np.diff(ends) == width).all():
            return bool((ends == ends[0]).all())
        cells = np.frombuffer(array.buffers()[2], np.uint8, count * width, int(ends[0]))
    # A run of equal cells is what equals itself moved by one cell.
    return bool(np.array_equal(cells[width:], cells[:-width]))


def _zero(kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_string(kind):
        return pa.scalar("", kind)
    if pa.types.is_boolean(kind):
        return pa.scalar(False, kind)
    return pa.scalar(Decimal(0) if pa.types.is_decimal(kind) else 0, kind)


def _update(sha: Any, array: pa.Array) -> None:
    if not len(array):
        return
    if pa.types.is_string(array.type):
        sha.update(pc.binary_length(array).buffers()[1])
        offsets = memoryview(array.buffers()[1]).cast("i")[array.offset : array.offset + len(array) + 1]
        if array.buffers()[2] is not None:
            sha.update(memoryview(array.buffers()[2])[offsets[0] : offsets[-1]])
        return
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    width = array.type.bit_width // 8
    data = memoryview(array.buffers()[1])
    sha.update(data[array.offset * width : (array.offset + len(array)) * width])


def write_batches(file: Any, table: Table, batches: Iterable[pa.RecordBatch]) -> tuple[int, str]:
    """Write rows that come in the order of their key, a piece at a time; returns how many, and their digest.

    Memory holds one piece of `_PIECE` rows. The digest is over the digests of the pieces, so that it differs from that of
    `write` for the same rows: a partition is written the one way or the other.
    """
    sha, count = hashlib.sha256(), 0
    last: tuple[Any, ...] | None = None
    order = [*dict.fromkeys((*table.partition_by, *table.row_key))]
    text = [c.name for c in table.columns if pa.types.is_string(c.type)]
    with pq.ParquetWriter(
        file,
        table.schema,
        compression="zstd",
        use_dictionary=text,
        column_encoding=table.encodings or None,
        coerce_timestamps="us",
    ) as writer:
        for piece in _pieces(table, batches):
            rows = conform(table, piece)
            keys = [tuple(rows[name][place].as_py() for name in order) for place in (0, rows.num_rows - 1)]
            if last is not None and keys[0] <= last:
                raise SchemaViolation(f"{table.path}: key {', '.join(order)}: found {keys[0]} after {last}")
            last = keys[1]
            sha.update(digest(rows).encode())
            count += rows.num_rows
            writer.write_table(rows)
        sha256 = sha.hexdigest()
        writer.add_key_value_metadata({DIGEST_KEY: sha256.encode(), TABLE_KEY: table.path.encode()})
    return count, sha256


def _pieces(table: Table, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows in pieces of one size, whatever sizes they come in: equal rows have equal digests."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        rest = batch
        while held + rest.num_rows >= _PIECE:
            cut = _PIECE - held
            yield pa.Table.from_batches([*waiting, rest.slice(0, cut)])
            rest, waiting, held = rest.slice(cut), [], 0
        if rest.num_rows:
            waiting.append(rest)
            held += rest.num_rows
    if waiting:
        yield pa.Table.from_batches(waiting)


def write(file: Any, table: Table, rows: pa.Table, sha256: str, extra: Mapping[bytes, bytes] | None = None) -> None:
    """Write conforming rows as Parquet with digest and table name in the footer."""
    metadata = {
        **(rows.schema.metadata or {}),
        DIGEST_KEY: sha256.encode(),
        TABLE_KEY: table.path.encode(),
        **(extra or {}),
    }
    # A dictionary pays for text only: on 10M measured doubles it costs a fifth of the time and saves nothing.
    text = [c.name for c in table.columns if pa.types.is_string(c.type)]
    pq.write_table(
        rows.replace_schema_metadata(metadata),
        file,
        compression="zstd",
        use_dictionary=text,
        column_encoding=table.encodings or None,
        coerce_timestamps="us",
    )
