"""Lake write and scan of 10M rows, against DuckDB's own COPY and read_parquet on the same rows and codec.

The lake's write also checks columns, types, nulls, finiteness and keys, takes a SHA-256 of the values and fsyncs.
The rows lie in the order of their key, as every asset writes them; `shuffled` is what it costs otherwise.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.measure import Row, best_of, in_own_process, report
from greenops_pipelines.lake import Column, Lake, Table
from greenops_pipelines.lake.schema import TIMESTAMP
from greenops_pipelines.lake.storage import LocalFolder

ROWS = 10_000_000
ZONES = ("CA-QC", "DE", "ES", "FR", "GB", "IE", "SE-SE3", "US-CAL-CISO", "US-MIDA-PJM", "US-NW-PACW")

TABLE = Table(
    layer="bronze",
    name="bench",
    comment="Rows to measure with.",
    columns=(
        Column("zone", pa.string(), "Grid zone"),
        Column("datetime", TIMESTAMP, "Start of the hour"),
        Column("intensity", pa.float64(), "gCO2e/kWh"),
        Column("forecast", pa.float64(), "gCO2e/kWh"),
        Column("is_estimated", pa.bool_(), "Estimated"),
        Column("requests", pa.int64(), "Requests"),
    ),
    unique=("zone", "datetime"),
)


def rows(shuffled: bool = False) -> pa.Table:
    """10 zones x 1M hours."""
    random = np.random.default_rng(0)
    hours = np.arange(ROWS // len(ZONES), dtype=np.int64) * 3_600_000_000
    table = pa.table(
        {
            "zone": pa.array(np.repeat(np.array(ZONES), len(hours))),
            "datetime": pa.array(np.tile(hours, len(ZONES))).cast(TIMESTAMP),
            "intensity": random.uniform(10, 800, ROWS),
            "forecast": random.uniform(10, 800, ROWS),
            "is_estimated": random.integers(0, 2, ROWS).astype(bool),
            "requests": random.integers(0, 1000, ROWS),
        },
        schema=TABLE.schema,
    )
    return table.take(pa.array(random.permutation(ROWS))) if shuffled else table


def _lake(folder: str) -> Lake:
    return Lake(LocalFolder(Path(folder) / "lake"), Path(folder) / "warehouse.duckdb", {}, [TABLE])


def _case(name: str, folder: str) -> None:
    file = f"{folder}/copy.parquet"
    aggregate = "select zone, count(*), avg(intensity), sum(requests) from {} group by zone order by zone"
    if name in {"write", "write_shuffled"}:
        data, lake = rows(name == "write_shuffled"), _lake(folder)
        report(best_of(3, lambda: lake.write(TABLE, data)))
    elif name == "copy":
        data = rows()
        with duckdb.connect() as connection:
            connection.register("data", data)
            query = f"copy (from data) to '{file}' (format parquet, compression zstd)"
            report(best_of(3, lambda: (connection.execute(query), _fsync(file))))
    elif name == "scan":
        lake = _lake(folder)
        report(best_of(3, lambda: lake.read(TABLE)))
    elif name == "read_parquet":
        with duckdb.connect() as connection:
            report(best_of(3, lambda: connection.sql(f"from read_parquet('{file}')").to_arrow_table()))
    elif name == "aggregate":
        lake = _lake(folder)
        report(best_of(5, lambda: lake.query(aggregate.format("bench"))))
    elif name == "aggregate_file":
        with duckdb.connect() as connection:
            query = aggregate.format(f"read_parquet('{file}')")
            report(best_of(5, lambda: connection.execute(query).fetchall()))


def _fsync(file: str) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def main() -> list[Row]:
    """Seconds, peak memory and ratios."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for ours, peer, label in (
            ("write", "copy", "lake write, 10M rows"),
            ("scan", "read_parquet", "lake scan to Arrow, 10M rows"),
            ("aggregate", "aggregate_file", "aggregate through a lake view, 10M rows"),
        ):
            here, there = (in_own_process("benchmarks.lake", case, folder) for case in (ours, peer))
            found += [
                Row(label, here.seconds, "s", f"peak {here.peak_mb:,.0f} MB"),
                Row(f"  DuckDB's own ({peer})", there.seconds, "s", f"peak {there.peak_mb:,.0f} MB"),
                Row("  ratio", here.seconds / there.seconds, "x", "aim: within 1.3"),
            ]
        shuffled = in_own_process("benchmarks.lake", "write_shuffled", folder)
        found.append(
            Row("lake write, 10M rows in random order", shuffled.seconds, "s", f"peak {shuffled.peak_mb:,.0f} MB")
        )
    return found


if __name__ == "__main__":
    _case(*sys.argv[1:])
