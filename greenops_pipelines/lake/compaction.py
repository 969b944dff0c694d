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

import pyarrow as pa
import pyarrow.parquet as pq

from greenops_pipelines.lake import parquet, versions
from greenops_pipelines.lake.catalog import identifier
from greenops_pipelines.lake.lake import Lake
from greenops_pipelines.lake.schema import Kind, Table
from greenops_pipelines.lake.storage import url
from greenops_pipelines.lake.versions import GRACE_SECONDS

COMPACTS_KEY = b"greenops.compacts"


@dataclass(frozen=True)
class Compacted:
    """What one pass did to one table."""

    partitions: int
    merged: int
    removed: int


def compact(lake: Lake, table: Table, at_least: int = 4, grace_seconds: float = GRACE_SECONDS) -> Compacted:
    """One pass over all partitions that hold `at_least` files; of a SNAPSHOT table superseded versions go."""
    if table.kind is Kind.SNAPSHOT:
        listed = versions.by_folder(lake.storage.glob(table.glob)).values()
        gone = [path for found in listed for path in versions.superseded(lake.storage, found, grace_seconds)]
        for path in gone:
            lake.storage.remove(path)
        return Compacted(0, 0, len(gone))
    folders: dict[str, list[str]] = defaultdict(list)
    for path in lake.files(table):
        folders[path.rpartition("/")[0]].append(path)
    partitions = merged = removed = 0
    for folder, paths in folders.items():
        replaced = {path: _replaced_by(lake, path) for path in paths if _is_compact(path)}
        ripe = [path for path in replaced if lake.storage.age_seconds(path) >= grace_seconds]
        superseded = set(paths) & set().union(*(replaced[path] for path in ripe))
        # Compacted files last: killed in between, what is left of theirs is still known to be replaced.
        for path in sorted(superseded, key=_is_compact):
            lake.storage.remove(path)
        removed += len(superseded)
        live = [path for path in paths if not any(path in listed for listed in replaced.values())]
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


def _replaced_by(lake: Lake, path: str) -> set[str]:
    """The files that a compacted file holds the rows of."""
    metadata = pq.read_schema(pa.BufferReader(lake.storage.read_bytes(path))).metadata or {}
    return set(json.loads(metadata.get(COMPACTS_KEY, b"[]")))


def _is_compact(path: str) -> bool:
    return path.rpartition("/")[2].startswith("compact-")
