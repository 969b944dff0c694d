"""Which file of a SNAPSHOT partition counts: the newest version. Names are immutable; replacing is adding a newer one.

Why not one fixed name and `os.replace`: DuckDB 2.0.0 opens a Parquet file three times per query and keeps the footer of
the first. A file replaced in between makes it look for the old rows in the new file; measured: about one query in ten
fails while one partition is replaced 30 times a second. Views therefore list the files that count, and a query that
has begun reads to its end what it began with. A superseded version goes a while after it was superseded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

from greenops_pipelines.lake.schema import Kind, Table
from greenops_pipelines.lake.storage import Storage

GRACE_SECONDS = 3600.0
"""Longest that a reader may go on with files that have been superseded."""

_NAME = re.compile(r"data-(?P<version>\d{6,})-(?P<digest>[0-9a-f]{16})\.parquet")


def file_name(version: int, sha256: str) -> str:
    """Sorts by version; two writers of one version are told apart by their content."""
    return f"data-{version:06d}-{sha256[:16]}.parquet"


def is_version(path: str) -> bool:
    """Whether the lake wrote this file as a version."""
    return _NAME.fullmatch(path.rpartition("/")[2]) is not None


def version_of(path: str) -> int:
    """The number in a version's name."""
    match = _NAME.fullmatch(path.rpartition("/")[2])
    return int(match["version"]) if match else 0


def holds(path: str, sha256: str) -> bool:
    """Whether the version holds the rows of that digest."""
    match = _NAME.fullmatch(path.rpartition("/")[2])
    return match is not None and match["digest"] == sha256[:16]


def by_folder(paths: Iterable[str]) -> Mapping[str, list[str]]:
    """Versions per partition folder, oldest first."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if is_version(path):
            found[path.rpartition("/")[0]].append(path)
    return {folder: sorted(versions, key=lambda p: (version_of(p), p)) for folder, versions in found.items()}


def current(table: Table, paths: Iterable[str]) -> list[str]:
    """The paths that count, sorted: all of a log, the newest version per partition of a snapshot."""
    if table.kind is not Kind.SNAPSHOT:
        return list(paths)
    return sorted(versions[-1] for versions in by_folder(paths).values())


def superseded(storage: Storage, versions: list[str], grace_seconds: float = GRACE_SECONDS) -> list[str]:
    """Versions of one partition, oldest first, whose successor has been there for the grace."""
    return [old for old, newer in pairwise(versions) if storage.age_seconds(newer) >= grace_seconds]
