"""Many small files of a partition -> one, without a reader noticing.

LOG and REVISED tables grow by a file per write. Compaction writes the rows of a partition's files into one
`compact-*.parquet`, whose footer lists what it replaces, and removes those only in a later pass, when no query
that listed the old files can still be running. Meanwhile both stand side by side: the views count equal rows once.
Killed at any moment it leaves either the old files, or both.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass

import pyarrow.parquet as pq

from greenops_pipelines.lake import parquet
from greenops_pipelines.lake.catalog import identifier
from greenops_pipelines.lake.lake import Lake
from greenops_pipelines.lake.schema import Kind, Table
from greenops_pipelines.lake.storage import url

COMPACTS_KEY = b"greenops.compacts"
GRACE_SECONDS = 3600.0
"""Longest query a reader may run over files that are about to go."""


@dataclass(frozen=True)
class Compacted:
    """What one pass did to one table."""

    partitions: int
    merged: int
    removed: int


def compact(lake: Lake, table: Table, at_least: int = 4, grace_seconds: float = GRACE_SECONDS) -> Compacted:
    """One pass over all partitions that hold `at_least` files. SNAPSHOT tables have one file anyway."""
    if table.kind is Kind.SNAPSHOT:
        return Compacted(0, 0, 0)
    folders: dict[str, list[str]] = defaultdict(list)
    for path in lake.files(table):
        folders[path.rpartition("/")[0]].append(path)
    partitions = merged = removed = 0
    for folder, paths in folders.items():
        superseded = _superseded(lake, paths, grace_seconds)
        for path in superseded:
            lake.storage.remove(path)
        removed += len(superseded)
        live = [path for path in paths if path not in superseded and path not in _listed(lake, paths)]
        if len(live) >= at_least:
            _merge(lake, table, folder, live)
            partitions += 1
            merged += len(live)
    return Compacted(partitions, merged, removed)


def _merge(lake: Lake, table: Table, folder: str, paths: list[str]) -> None:
    names = ", ".join(identifier(c.name) for c in table.columns)
    with lake.bare() as connection:
        connection.register("typed", table.schema.empty_table())
        rows = connection.sql(
            f"select distinct {names} from (from typed union all by name "
            "from read_parquet(?, union_by_name = true, hive_partitioning = false))",
            params=[[url(lake.storage, path) for path in paths]],
        ).to_arrow_table()
    rows = parquet.conform(table, rows.cast(table.schema))
    sha256 = parquet.digest(rows)
    listed = {COMPACTS_KEY: json.dumps(paths).encode()}
    lake.storage.publish(
        f"{folder}/compact-{sha256[:16]}.parquet", lambda file: parquet.write(file, table, rows, sha256, listed)
    )


def _superseded(lake: Lake, paths: list[str], grace_seconds: float) -> set[str]:
    """Files that a compacted file, itself older than the grace, has replaced."""
    ripe = [p for p in paths if _is_compact(p) and lake.storage.age_seconds(p) >= grace_seconds]
    return _listed(lake, ripe) & set(paths)


def _listed(lake: Lake, paths: list[str]) -> set[str]:
    import pyarrow as pa

    found: set[str] = set()
    for path in filter(_is_compact, paths):
        metadata = pq.read_schema(pa.BufferReader(lake.storage.read_bytes(path))).metadata or {}
        found.update(json.loads(metadata.get(COMPACTS_KEY, b"[]")))
    return found


def _is_compact(path: str) -> bool:
    return path.rpartition("/")[2].startswith("compact-")
