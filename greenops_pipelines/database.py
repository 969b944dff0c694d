"""A small SQLite file that any number of processes write at once, and any of them may be killed while it does.

Each `writing` block is one transaction that is on disk when the block ends. A file whose tables are not those of this program
is refused, with what differs: nothing is migrated. Not here: tables.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from greenops_pipelines.errors import PermanentError, TransientError

_BUSY_SECONDS = 30.0
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,  # among others: too many open files
        sqlite3.SQLITE_PROTOCOL,
    }
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_FORBIDDEN = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})


class Database:
    """The file, made with its folder by the first write. `ddl` makes the tables, each statement `if not exists`.

    `version` is the file's `user_version`: another number for other tables. `name` is what messages call the file.

    Errors: `TransientError` for a lock, a full disk and the like; `PermanentError` for a file that is damaged, may not be
    written, or has other tables. What is wrong with a statement, or with a row (`sqlite3.IntegrityError`), is the caller's
    and comes through as it is.
    """

    def __init__(self, file: Path, ddl: Sequence[str], *, version: int = 1, name: str = "file") -> None:
        self.file = file
        self._ddl = tuple(ddl)
        self._version = version
        self._name = name
        self._is_checked = False

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes beside; undone where the block raises. `TransientError` while locked."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self._faults():
            connection = self._connect()
            try:
                connection.execute("begin immediate")
                yield connection
                connection.execute("commit")
            finally:
                connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent state; empty tables where there is no file yet, which reading does not make."""
        with self._faults():
            connection = self._connect() if self.file.exists() else self._empty()
            try:
                connection.execute("begin")
                yield connection
                connection.execute("rollback")
            finally:
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.file, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            # FULL: what is written is acted upon as soon as the call returns, and must be known after a power cut.
            connection.execute("pragma synchronous = full")
            found = _version(connection)
            if found == 0:
                self._make(connection)
                found = _version(connection)
            self._check(connection, found)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self, connection: sqlite3.Connection) -> None:
        # Two that make it at once: the change to WAL does not wait for the other's, but fails.
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _version(connection):
                return
            connection.execute("pragma journal_mode = wal")
            connection.execute("begin immediate")
            for statement in self._ddl:
                connection.execute(statement)
            connection.execute(f"pragma user_version = {self._version}")
            connection.execute("commit")

    def _check(self, connection: sqlite3.Connection, found: int) -> None:
        """Whether the file's tables are ours: by its version at each connection, and by their columns once."""
        advice = f"move the {self._name} away, or use the program that wrote it"
        if found != self._version:
            raise PermanentError(
                f"{self.file}: version of the tables: found {found}, allowed: {self._version}; {advice}"
            )
        if self._is_checked:
            return
        columns = _columns(connection)
        for table, allowed in self._allowed.items():
            if (there := columns.get(table, ())) != allowed:
                raise PermanentError(
                    f"{self.file}: columns of table {table}: found {', '.join(there) or 'no such table'}; "
                    f"allowed: {', '.join(allowed)}; {advice}"
                )
        self._is_checked = True

    @cached_property
    def _allowed(self) -> Mapping[str, Sequence[str]]:
        connection = self._empty()
        try:
            return _columns(connection)
        finally:
            connection.close()

    def _empty(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.row_factory = sqlite3.Row
        for statement in self._ddl:
            connection.execute(statement)
        return connection

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            # The primary code is the last byte: https://www.sqlite.org/rescode.html
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            said = f"{self.file}: {error}"
            if code in _PASSING:
                raise TransientError(said) from error
            if code in _DAMAGED:
                raise PermanentError(f"{said}; allowed: the {self._name} as it was written; restore it") from error
            if code in _FORBIDDEN:
                raise PermanentError(f"{said}; allowed: a {self._name} that this user may write") from error
            raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("pragma user_version").fetchone()[0])


def _columns(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """The columns of each table, in order, as rows are inserted by it."""
    rows = connection.execute(
        "select m.name, c.name from sqlite_schema as m, pragma_table_info(m.name) as c where m.type = 'table' "
        "and m.name not like 'sqlite@_%' escape '@' order by m.name, c.cid"
    ).fetchall()
    found: dict[str, tuple[str, ...]] = {}
    for table, column in rows:
        found[table] = (*found.get(table, ()), column)
    return found
