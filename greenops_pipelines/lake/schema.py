"""How a table of the lake is declared: columns with comments, partition keys, unique key, kind.

One declaration makes the write check, the schema asset check, the column metadata in the UI, the view in
`warehouse.duckdb` and the docs. Not here: the declarations themselves (`tables.py`) and any I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")

Encoding = Literal["DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"]
"""Parquet's own, before the codec: whole numbers and times that grow by similar steps; floating-point numbers that resemble
each other."""


class Kind(StrEnum):
    """What a second write to the same partition means."""

    SNAPSHOT = "snapshot"
    """The partition is replaced: its newest version counts."""
    LOG = "log"
    """One more file per write; nothing is ever replaced. Events."""
    REVISED = "revised"
    """A log of observations of the same facts, keyed by `observed_at` as well: bitemporal."""


@dataclass(frozen=True)
class Column:
    """A column: Arrow type, whether it may be null, and a comment that says unit and meaning.

    `encoding` is how its values are laid out in the file, where the default takes more room.
    """

    name: str
    type: pa.DataType
    comment: str
    nullable: bool = False
    encoding: Encoding | None = None


@dataclass(frozen=True)
class Table:
    """A declared table.

    `partition_by` columns stand in the path and in the rows. `unique` is the natural key: no two rows of one
    write may share it; for REVISED tables it excludes `observed_at`, which is added. `measure` is the column
    whose null means "asked, and nobody knew". `selected_by` names columns whose value is configured (provider,
    source): the plain view shows the configured value only, so that sources never mix.
    """

    layer: str
    name: str
    comment: str
    columns: tuple[Column, ...]
    unique: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    kind: Kind = Kind.SNAPSHOT
    measure: str | None = None
    selected_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """A key that may be null could neither be compared nor stand in a path; an encoding is for some types only."""
        values = {c.name for c in self.columns if not c.nullable}
        if faults := [name for name in (*self.partition_by, *self.row_key) if name not in values]:
            raise ValueError(f"{self.path}: key: found {faults}, allowed: declared columns that are never null")
        for column in self.columns:
            if column.encoding is not None and not _encodes(column.encoding, column.type):
                raise ValueError(f"{self.path}: column {column.name}: found {column.encoding} for {column.type}")

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(
            [pa.field(c.name, c.type, c.nullable, {"comment": c.comment}) for c in self.columns],
            metadata={"comment": self.comment},
        )

    @property
    def encodings(self) -> dict[str, Encoding]:
        """The encoding of each column that has one of its own."""
        return {c.name: c.encoding for c in self.columns if c.encoding is not None}

    @property
    def row_key(self) -> tuple[str, ...]:
        """The columns that identify a stored row."""
        return (*self.unique, "observed_at") if self.kind is Kind.REVISED else self.unique

    @property
    def path(self) -> str:
        return f"{self.layer}/{self.name}"

    @property
    def glob(self) -> str:
        """Path pattern of all files of the table, relative to the lake."""
        return "/".join([self.path, *(f"{key}=*" for key in self.partition_by), "*.parquet"])


def _encodes(encoding: Encoding, kind: pa.DataType) -> bool:
    if encoding == "BYTE_STREAM_SPLIT":
        return bool(pa.types.is_floating(kind))
    return bool(pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_date32(kind))
