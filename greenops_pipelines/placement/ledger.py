"""The ledger of what was decided and done: rows that are added, once, and never changed. One SQLite file under HOME.

Any number of processes read and write it at once, and any of them may be killed: each row is one transaction that is on
disk when the call returns. The keys make things happen once; triggers refuse to change or remove a row.
Not here: what may be done (`dispatches.py`), doing it (`launching.py`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from greenops_pipelines.database import Database
from greenops_pipelines.instants import instant, micros
from greenops_pipelines.lake.tables import PLACEMENT_ATTEMPTS, PLACEMENT_DISPATCHES
from greenops_pipelines.placement.launches import Ended

_ENDS = ("ended_at", "outcome", "exit_code")
_CLOSED = ("key", "outcome", "at", "workload", "tenant", "deadline", "detail")
_BEGUN = tuple(name for name in PLACEMENT_ATTEMPTS.schema.names if name not in (*_ENDS, "detail"))


def _columns(names: Sequence[str], schema: pa.Schema) -> str:
    return ", ".join(f"{name} {_affinity(schema.field(name).type)}" for name in names)


def _affinity(kind: pa.DataType) -> str:
    if pa.types.is_floating(kind):
        return "real"
    return "text" if pa.types.is_string(kind) else "integer"


_TABLES = {
    "claims": f"({_columns(PLACEMENT_DISPATCHES.schema.names, PLACEMENT_DISPATCHES.schema)}, primary key (key))",
    "attempts": f"({_columns(_BEGUN, PLACEMENT_ATTEMPTS.schema)}, primary key (key, attempt))",
    "ends": "(key text, attempt integer, ended_at integer, outcome text, exit_code integer, detail text, "
    "primary key (key, attempt))",
    "closed": "(key text primary key, outcome text, at integer, workload text, tenant text, deadline integer, detail text)",
    "watched": "(workload text, recurrence text, since integer, primary key (workload, recurrence))",
    "gathered": "(at integer primary key)",
}
_DDL = (
    *(f"create table if not exists {table} {columns}" for table, columns in _TABLES.items()),
    *(
        f"create trigger if not exists {table}_{change} before {change} on {table} "
        f"begin select raise(abort, 'rows of the ledger are added, never changed'); end"
        for table in _TABLES
        for change in ("update", "delete")
    ),
    "create index if not exists ends_by_outcome on ends (outcome, ended_at)",
)


@dataclass(frozen=True)
class Tried:
    """An attempt as far as it went."""

    attempt: int
    region: str
    zone: str
    began_at: datetime
    ended_at: datetime | None
    outcome: str
    """`running` where no end is recorded."""
    detail: str


class Ledger:
    """The ledger below `root`, made with the first write. Times are UTC."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._database = Database(root / "ledger.sqlite", _DDL, name="ledger")

    @property
    def root(self) -> Path:
        return self._root

    def watch(self, workloads: Collection[tuple[str, str]], now: datetime) -> Mapping[tuple[str, str], datetime]:
        """Since when each (workload, recurrence) is declared, as far as the ledger knows; new ones since now."""
        with self._database.writing() as connection:
            connection.executemany(
                "insert or ignore into watched values (?, ?, ?)", [(*each, micros(now)) for each in workloads]
            )
        return self.watching()

    def gathered(self, now: datetime) -> None:
        """Record that work was looked for now."""
        with self._database.writing() as connection:
            connection.execute("insert or ignore into gathered values (?)", [micros(now)])

    def newest_gathering(self) -> datetime | None:
        """When work was looked for last."""
        with self._database.reading() as connection:
            [[last]] = connection.execute("select max(at) from gathered").fetchall()
        return None if last is None else instant(last)

    def watching(self) -> Mapping[tuple[str, str], datetime]:
        """As `watch`, of what it knows already."""
        with self._database.reading() as connection:
            found = connection.execute("select workload, recurrence, since from watched").fetchall()
        return {(workload, recurrence): instant(since) for workload, recurrence, since in found}

    def last_gathered(self, now: datetime) -> datetime:
        """When work was last looked for before now; now itself, if never."""
        with self._database.reading() as connection:
            [[last]] = connection.execute("select max(at) from gathered where at <= ?", [micros(now)]).fetchall()
        return now if last is None else instant(last)

    def claim(self, row: Mapping[str, Any]) -> bool:
        """Record a decision, a row of PLACEMENT_DISPATCHES: True once per key, for whoever comes first."""
        names = PLACEMENT_DISPATCHES.schema.names
        with self._database.writing() as connection:
            return self._insert(connection, "claims", names, row) == 1

    def claimed(self, key: str) -> dict[str, Any] | None:
        """The decision on a key, a row of PLACEMENT_DISPATCHES."""
        with self._database.reading() as connection:
            row = connection.execute("select * from claims where key = ?", [key]).fetchone()
        return None if row is None else _typed(row, PLACEMENT_DISPATCHES.schema)

    def begin(self, row: Mapping[str, Any]) -> int:
        """Record the beginning of the key's next attempt, and give its number. `row` is one of PLACEMENT_ATTEMPTS."""
        with self._database.writing() as connection:
            [[last]] = connection.execute(
                "select coalesce(max(attempt), 0) from attempts where key = ?", [row["key"]]
            ).fetchall()
            self._insert(connection, "attempts", _BEGUN, {**row, "attempt": last + 1})
        return int(last) + 1

    def end(
        self, key: str, attempt: int, ended: Ended | None = None, *, refused: tuple[datetime, str] | None = None
    ) -> None:
        """Record how an attempt ended; what was recorded first stays."""
        if refused is not None:
            values: tuple[Any, ...] = (key, attempt, micros(refused[0]), "refused", None, refused[1])
        elif ended is not None:
            values = (key, attempt, micros(ended.ended_at), ended.outcome, ended.exit_code, ended.detail)
        else:
            raise ValueError("neither an end nor a refusal")
        with self._database.writing() as connection:
            connection.execute("insert or ignore into ends values (?, ?, ?, ?, ?, ?)", values)

    def close(self, row: Mapping[str, Any]) -> bool:
        """Record that nothing more will be done for a key; True for whoever comes first.

        `row` has key, outcome, at, workload, tenant, deadline and detail.
        """
        return self.close_all([row]) == 1

    def close_all(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """The same for many keys at once; how many were open."""
        if not rows:
            return 0
        with self._database.writing() as connection:
            return sum(self._insert(connection, "closed", _CLOSED, row) for row in rows)

    def outcome(self, key: str) -> str | None:
        """How a key was closed; None where it is open."""
        with self._database.reading() as connection:
            row = connection.execute("select outcome from closed where key = ?", [key]).fetchone()
        return None if row is None else str(row[0])

    def tried(self, key: str) -> list[Tried]:
        """The attempts on a key, in order."""
        with self._database.reading() as connection:
            found = connection.execute(f"{_TRIED} where a.key = ? order by a.attempt", [key]).fetchall()
        return [_tried(row[1:]) for row in found]

    def open_claims(self) -> list[tuple[dict[str, Any], list[Tried]]]:
        """Decisions that were acted on and are not closed, with their attempts."""
        with self._database.reading() as connection:
            claims = connection.execute(
                "select c.* from claims as c left join closed as d using (key) where d.key is null"
            ).fetchall()
            tried = connection.execute(
                f"{_TRIED} left join closed as d on d.key = a.key where d.key is null order by a.key, a.attempt"
            ).fetchall()
        of: dict[str, list[Tried]] = {}
        for key, *row in tried:
            of.setdefault(key, []).append(_tried(row))
        rows = [_typed(row, PLACEMENT_DISPATCHES.schema) for row in claims]
        return [(row, of.get(row["key"], [])) for row in rows]

    def taken(self, keys: Collection[str] | None = None) -> set[str]:
        """Of the keys (None: of all), those that were acted on or closed: no plan is made for them."""
        chosen = "" if keys is None else " where key in (select value from json_each(?))"
        given = [] if keys is None else [json.dumps(list(keys))]
        with self._database.reading() as connection:
            found = connection.execute(
                f"select key from claims{chosen} union select key from closed{chosen}",
                given * 2,
            ).fetchall()
        return {key for (key,) in found}

    def refused_since(self, keys: Collection[str], planned_at: datetime) -> set[str]:
        """Of the keys, those that were refused after `planned_at`: the plan has to change first."""
        with self._database.reading() as connection:
            found = connection.execute(
                "select key from ends where outcome = 'refused' and ended_at >= ? "
                "and key in (select value from json_each(?))",
                [micros(planned_at), json.dumps(list(keys))],
            ).fetchall()
        return {key for (key,) in found}

    def version(self) -> str:
        """Differs after every row that was added: how many there are; empty where there are none."""
        with self._database.reading() as connection:
            counts = [
                connection.execute(f"select coalesce(max(rowid), 0) from {table}").fetchone()[0]
                for table in ("claims", "attempts", "ends", "closed")
            ]
        return ".".join(map(str, counts)) if any(counts) else ""

    def dispatches(self) -> pa.Table:
        """Rows of PLACEMENT_DISPATCHES, by time."""
        with self._database.reading() as connection:
            found = connection.execute("select * from claims order by dispatched_at, key").fetchall()
        return _table(found, PLACEMENT_DISPATCHES.schema)

    def attempts(self) -> pa.Table:
        """Rows of PLACEMENT_ATTEMPTS, by time; what was closed without an attempt has one, of number 0."""
        with self._database.reading() as connection:
            found = connection.execute(_ATTEMPTS).fetchall()
        return _table(found, PLACEMENT_ATTEMPTS.schema)

    def _insert(self, connection: sqlite3.Connection, table: str, names: Sequence[str], row: Mapping[str, Any]) -> int:
        values = [micros(row[name]) if isinstance(row[name], datetime) else row[name] for name in names]
        marks = ", ".join("?" * len(names))
        return connection.execute(f"insert or ignore into {table} values ({marks})", values).rowcount


@contextmanager
def only_one(path: Path, *, touch: bool = False) -> Iterator[bool]:
    """Whether nobody else holds the lock file `path` now; it is held until the end of the block, or of this process.

    `touch` sets its time of change to now where it is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            if touch:
                os.utime(descriptor)
            yield True
    finally:
        os.close(descriptor)


def work_folder(root: Path, key: str) -> Path:
    """Where the locks, logs and ends of a key's attempts lie."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return root / "work" / digest[:2] / digest


_TRIED = """
select a.key, a.attempt, a.region, a.zone, a.began_at, e.ended_at, coalesce(e.outcome, 'running'), coalesce(e.detail, '')
from attempts as a left join ends as e on e.key = a.key and e.attempt = a.attempt
"""

_ATTEMPTS = """
select
    a.key, a.attempt, a.workload, a.tenant, a.region, a.zone, a.runner, a.run_id, a.began_at, e.ended_at,
    coalesce(e.outcome, 'running') as outcome, e.exit_code, a.deadline, coalesce(e.detail, '') as detail
from attempts as a left join ends as e on e.key = a.key and e.attempt = a.attempt
union all
select c.key, 0, c.workload, c.tenant, null, null, '', '', c.at, c.at, c.outcome, null, c.deadline, c.detail
from closed as c where c.key not in (select key from attempts)
order by 9, 1, 2
"""


def _tried(row: Sequence[Any]) -> Tried:
    attempt, region, zone, began_at, ended_at, outcome, detail = row
    ended = None if ended_at is None else instant(ended_at)
    return Tried(attempt, region or "", zone or "", instant(began_at), ended, outcome, detail)


def _typed(row: Sequence[Any], schema: pa.Schema) -> dict[str, Any]:
    named = dict(zip(schema.names, row, strict=True))
    times = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    flags = [field.name for field in schema if pa.types.is_boolean(field.type)]
    named |= {name: bool(named[name]) for name in flags}
    return named | {name: None if named[name] is None else instant(named[name]) for name in times}


def _table(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    stored = [pa.int64() if _affinity(field.type) == "integer" else field.type for field in schema]
    arrays = [
        pa.array(values, kind).cast(field.type) for values, kind, field in zip(columns, stored, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
