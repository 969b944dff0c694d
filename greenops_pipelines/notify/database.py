"""A small SQLite file that any number of processes write at once, and any of them may be killed while it does.

Each `writing` block is one transaction that is on disk when the block ends. Not here: tables.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from greenops_pipelines.errors import PermanentError, TransientError

_BUSY_SECONDS = 30.0


class Database:
    """The file, made with its folder by the first write. `ddl` makes the tables, each statement `if not exists`."""

    def __init__(self, file: Path, ddl: Sequence[str]) -> None:
        self.file = file
        self._ddl = tuple(ddl)

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
            # FULL: people are told as soon as the call returns, and it must be known after a power cut.
            connection.execute("pragma synchronous = full")
            if connection.execute("pragma user_version").fetchone()[0] < 1:
                self._make(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self, connection: sqlite3.Connection) -> None:
        # Two that make it at once: the change to WAL does not wait for the other's, but fails.
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            connection.execute("pragma journal_mode = wal")
            connection.execute("begin immediate")
            for statement in self._ddl:
                connection.execute(statement)
            connection.execute("pragma user_version = 1")
            connection.execute("commit")

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
        except sqlite3.OperationalError as error:
            raise TransientError(f"{self.file}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise PermanentError(f"{self.file}: {error}; allowed: the file as it was written; restore it") from error
