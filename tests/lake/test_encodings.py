"""Columns whose file has an encoding of its own: what is read is what was written, by every reader."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from greenops_pipelines.lake import Column, Lake, Table
from greenops_pipelines.lake.parquet import digest
from greenops_pipelines.lake.schema import TIMESTAMP, Encoding
from greenops_pipelines.lake.storage import LocalFolder

READINGS = Table(
    layer="bronze",
    name="readings",
    comment="Readings of meters.",
    columns=(
        Column("meter", pa.string(), "Meter"),
        Column("at", TIMESTAMP, "When", encoding="DELTA_BINARY_PACKED"),
        Column("count", pa.int64(), "Pulses", encoding="DELTA_BINARY_PACKED"),
        Column("power_w", pa.float64(), "Power; null: not measured", nullable=True, encoding="BYTE_STREAM_SPLIT"),
        Column("plain", pa.float64(), "The same without an encoding", nullable=True),
    ),
    unique=("meter", "at"),
    partition_by=("meter",),
)
START = datetime(2026, 3, 1, tzinfo=UTC)


def readings(count: int = 5_000) -> pa.Table:
    power = np.random.default_rng(0).uniform(100, 200, count)
    values = pa.array(power, mask=np.arange(count) % 7 == 0)
    return pa.table(
        [
            pa.repeat(pa.scalar("a"), count),
            pa.array([START + timedelta(seconds=k) for k in range(count)], TIMESTAMP),
            pa.array(np.where(np.arange(count) % 2, 2**62, -(2**62))),
            values,
            values,
        ],
        schema=READINGS.schema,
    )


@pytest.fixture
def readings_lake(tmp_path: Path) -> Lake:
    return Lake(LocalFolder(tmp_path / "lake"), tmp_path / "warehouse.duckdb", {}, [READINGS])


@pytest.mark.parametrize("way", ["write", "load"])
def test_rows_come_back_and_the_file_is_encoded(readings_lake: Lake, way: str) -> None:
    rows = readings()
    if way == "write":
        written = readings_lake.write(READINGS, rows)
    else:
        written = readings_lake.load(READINGS, {"meter": "a"}, rows.to_batches(max_chunksize=700))
    assert readings_lake.read(READINGS).equals(rows)
    path = f"{readings_lake.storage.root}/{written.paths[0]}"
    assert digest(pq.read_table(path, partitioning=None)) == digest(rows)
    with duckdb.connect() as connection:
        query = "select sum(count::hugeint)::varchar, count(power_w), sum(power_w) = sum(plain) from read_parquet(?)"
        assert connection.execute(query, [path]).fetchall() == [("0", 5_000 - 715, True)]
    group = pq.ParquetFile(path).metadata.row_group(0)
    encodings = {group.column(i).path_in_schema: set(group.column(i).encodings) for i in range(group.num_columns)}
    assert "DELTA_BINARY_PACKED" in encodings["at"] & encodings["count"]
    assert "BYTE_STREAM_SPLIT" in encodings["power_w"]
    assert not {"BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"} & (encodings["plain"] | encodings["meter"])
    assert READINGS.encodings == {
        "at": "DELTA_BINARY_PACKED",
        "count": "DELTA_BINARY_PACKED",
        "power_w": "BYTE_STREAM_SPLIT",
    }


@pytest.mark.parametrize(
    ("kind", "encoding"),
    [
        (pa.float64(), "DELTA_BINARY_PACKED"),
        (pa.string(), "DELTA_BINARY_PACKED"),
        (pa.int64(), "BYTE_STREAM_SPLIT"),
        (pa.decimal128(9, 2), "BYTE_STREAM_SPLIT"),
    ],
)
def test_an_encoding_for_another_type_is_refused_where_it_is_declared(kind: pa.DataType, encoding: Encoding) -> None:
    with pytest.raises(ValueError, match=f"bronze/t: column x: found {encoding} for"):
        Table("bronze", "t", "", (Column("x", kind, "", encoding=encoding),), unique=("x",))


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ([1, 1, 1], [1, 1], pa.int64()),
        ([1, 1, 1], [2, 2, 2], pa.int64()),
        ([1, 1, 1], [1, 2, 1], pa.int64()),
        ([0.0, 0.0], [-0.0, -0.0], pa.float64()),
        ([0.0, 0.0, 0.0], [0.0, -0.0, 0.0], pa.float64()),
        (["ab", "ab"], ["abab", ""], pa.string()),
        (["ab", "ab", "ab"], ["ab", "ba", "ab"], pa.string()),
        (["", "", ""], ["", "a", ""], pa.string()),
        (["", ""], ["", "", ""], pa.string()),
        ([True, True, True], [True, False, True], pa.bool_()),
        ([True, True], [False, False], pa.bool_()),
        ([None, None], [0, 0], pa.int64()),
    ],
)
def test_columns_of_one_value_are_told_apart(one: list[object], other: list[object], kind: pa.DataType) -> None:
    assert digest(pa.table({"x": pa.array(one, kind)})) != digest(pa.table({"x": pa.array(other, kind)}))


@pytest.mark.parametrize("value", [7, 1.5, "text", True, START, START.date()])
def test_a_column_of_one_value_has_one_digest_however_it_lies(value: object) -> None:
    plain = pa.table({"x": pa.array([value] * 9)})
    padded = pa.concat_tables([plain, plain, plain]).combine_chunks()
    assert digest(padded.slice(5, 9)) == digest(plain)
    assert digest(pa.concat_tables([plain.slice(0, 2), plain.slice(0, 7)])) == digest(plain)
