"""Whether a restored home is usable: its databases whole, its evidence verified, its warehouse built and answering.

Nothing is made that a running platform would have to make: no key, no entry of the log. Not here: restoring it.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import duckdb

from greenops_pipelines.errors import BadInput, GreenopsError, PermanentError
from greenops_pipelines.lake import Lake, query
from greenops_pipelines.lake.catalog import identifier
from greenops_pipelines.recovery.replica_state import is_database, opened
from greenops_pipelines.recovery.restore import MARKER

_FOLDERS_WITH_DATABASES = ("dagster", "dispatches")


@dataclass(frozen=True)
class Proven:
    """What was found. `faults` says in words what is wrong; empty where the home is usable."""

    databases: Mapping[str, str]
    """Path -> what SQLite's integrity check says: `ok`."""
    runs: int | None
    """Runs in Dagster's own storage; None where that is elsewhere (PostgreSQL)."""
    entries: int
    bundles: int
    """Of the evidence log: entries, and bundles verified with the restored public keys."""
    rows: Mapping[str, int]
    """Table -> rows that the rebuilt warehouse answers with."""
    faults: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        return not self.faults


def prove(into: Path, lake: Lake, expected: Mapping[str, int] | None = None) -> Proven:
    """Looks into a restored home. `lake` is the one in it; `expected` is table -> rows, as `counts` gave them at the copy.

    Builds `warehouse.duckdb`, and changes no file that was restored. Raises `BadInput` where `into` is no restored home, or the lake
    is another one's.
    """
    started = time.monotonic()
    into = into.absolute()
    if not into.is_dir() or (into / MARKER).exists():
        found = "a restore that has not ended" if into.is_dir() else "no folder"
        raise BadInput(f"{into}: found {found}, allowed: a home that was restored to its end")
    if lake.storage.root != (into / "lake").as_posix() or into not in lake.warehouse.absolute().parents:
        raise BadInput(
            f"{lake.storage.root}: found the lake of another home, allowed: {into / 'lake'}; the settings of the restored "
            "home have no GREENOPS_LAKE_URL"
        )
    faults: list[str] = []
    databases = _databases(into)
    faults += [f"{path}: integrity check: {found}" for path, found in databases.items() if found != "ok"]
    runs = _runs(into, faults)
    entries, bundles = _evidence(into, faults)
    rows = _rows(lake, faults)
    for table, wanted in sorted((expected or {}).items()):
        if rows and rows.get(table) != wanted:
            shown = f"{rows[table]:,} rows" if table in rows else "no such table"
            faults.append(f"table {table}: found {shown}, expected: {wanted:,}")
    return Proven(databases, runs, entries, bundles, rows, tuple(faults), time.monotonic() - started)


def counts(lake: Lake) -> dict[str, int]:
    """Rows per table, as the lake's warehouse answers; it is built where it is not up to date."""
    lake.refresh()
    names = [table.name for table in lake.tables]
    each = (f"select '{name}' as name, count(*) as counted from {identifier(name)}" for name in names)
    found = query.run(lake.warehouse, lake.storage, " union all ".join(each)) if names else None
    return {} if found is None else {row["name"]: row["counted"] for row in found.to_pylist()}


def _databases(into: Path) -> dict[str, str]:
    places = (place for folder in _FOLDERS_WITH_DATABASES for place in sorted((into / folder).rglob("*")))
    return {p.relative_to(into).as_posix(): _integrity(p) for p in places if p.is_file() and is_database(p)}


def _integrity(path: Path) -> str:
    try:
        with closing(opened(path)) as connection:
            [first, *_] = connection.execute("pragma integrity_check").fetchall()
            return str(first[0])
    except sqlite3.DatabaseError as error:
        return str(error)


def _runs(into: Path, faults: list[str]) -> int | None:
    path = into / "dagster" / "history" / "runs.db"
    if not path.exists():
        return None
    try:
        with closing(opened(path)) as connection:
            return int(connection.execute("select count(*) from runs").fetchone()[0])
    except sqlite3.DatabaseError as error:
        faults.append(f"dagster/history/runs.db: {error}")
        return None


def _evidence(into: Path, faults: list[str]) -> tuple[int, int]:
    """Entries and bundles after an audit of the whole log with the public keys alone."""
    # Imported late: cryptography and the time-stamp reader cost every process that loads recovery 0.2 s.
    from greenops_pipelines.evidence.audit import audit
    from greenops_pipelines.evidence.checkpoint import LogKey, LogVerifier
    from greenops_pipelines.evidence.keys import Keys
    from greenops_pipelines.evidence.log import Log
    from greenops_pipelines.evidence.queue import Queue
    from greenops_pipelines.evidence.report import Trust
    from greenops_pipelines.store.local import LocalObjectStore

    class PublicHalf(LogKey):
        """The log's key without its private half, which a restored home does not have: enough to verify."""

        def __init__(self, known: LogVerifier) -> None:
            object.__setattr__(self, "origin", known.origin)
            object.__setattr__(self, "known", known)

        @property
        def verifier(self) -> LogVerifier:
            found: LogVerifier = self.__dict__["known"]
            return found

        def sign(self, size: int, root: bytes) -> NoReturn:
            raise PermanentError(f"the log {self.origin}: found its public key alone, which signs nothing")

    folder, vkey = into / "evidence" / "store", into / "keys" / "log.vkey"
    if not folder.is_dir():
        return 0, 0
    store = LocalObjectStore(folder)
    if not vkey.exists():
        if store.list("log/"):
            faults.append("evidence: found a log, and no keys/log.vkey to verify it with")
        return 0, 0
    try:
        # The audit notes what it has seen: in a copy, so that the home stays what was restored.
        with tempfile.TemporaryDirectory() as scratch:
            seen = Path(scratch) / "log-seen.txt"
            if (known := into / "evidence" / "log-seen.txt").exists():
                shutil.copyfile(known, seen)
            log = Log(store, PublicHalf(LogVerifier.parse(vkey.read_text(encoding="utf-8"))), seen)
            trust = Trust(Keys(into / "keys").public())
            found = audit(store, log, trust, None, Queue(into / "evidence" / "queue").ids)
    except (ValueError, GreenopsError) as error:
        faults.append(f"evidence: {error}")
        return 0, 0
    faults += [f"evidence: {each.property}: {each.detail}" for each in found.findings if each.state == "failed"]
    return found.entries, found.bundles


def _rows(lake: Lake, faults: list[str]) -> dict[str, int]:
    try:
        return counts(lake)
    except (GreenopsError, duckdb.Error) as error:
        faults.append(f"warehouse: {error}")
        return {}
