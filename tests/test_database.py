"""A SQLite file of many writers: whole transactions through kill -9, and whose fault an error is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from greenops_pipelines import database
from greenops_pipelines.database import Database
from greenops_pipelines.errors import PermanentError, TransientError

DDL = ("create table if not exists counts (name text primary key, value integer not null)",)
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def counts(tmp_path: Path) -> Database:
    return Database(tmp_path / "deep" / "counts.sqlite", DDL, name="book")


def values(counts: Database) -> dict[str, int]:
    with counts.reading() as connection:
        return {row["name"]: row["value"] for row in connection.execute("select * from counts")}


def count(counts: Database, name: str, times: int = 1) -> None:
    for _ in range(times):
        with counts.writing() as connection:
            # Read first: who writes at once may not have written meanwhile.
            row = connection.execute("select value from counts where name = ?", [name]).fetchone()
            connection.execute("insert or replace into counts values (?, ?)", [name, (row["value"] if row else 0) + 1])


def test_the_first_write_makes_the_file_and_reading_does_not(counts: Database) -> None:
    assert values(counts) == {}
    assert not counts.file.parent.exists()
    count(counts, "a")
    assert values(counts) == {"a": 1}
    assert {path.name for path in counts.file.parent.iterdir()} >= {"counts.sqlite", "counts.lock"}
    with sqlite3.connect(counts.file) as connection:
        assert connection.execute("pragma user_version").fetchone() == (1,)
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    connection.close()


def run(counts: Database, *statements: str, fault: Exception | None = None) -> None:
    with counts.writing() as connection:
        for statement in statements:
            connection.execute(statement)
        if fault:
            raise fault


def test_a_block_that_raises_is_undone(counts: Database) -> None:
    count(counts, "a")
    with pytest.raises(KeyError):
        run(counts, "insert into counts values ('b', 7)", fault=KeyError())
    assert values(counts) == {"a": 1}


def test_a_reader_sees_one_state_while_others_write(counts: Database) -> None:
    count(counts, "a")
    with counts.reading() as connection:
        before = connection.execute("select sum(value) from counts").fetchone()[0]
        count(Database(counts.file, DDL), "a")
        assert connection.execute("select sum(value) from counts").fetchone()[0] == before == 1
    assert values(counts) == {"a": 2}


@pytest.mark.parametrize(("is_over", "kept"), [(False, {"a": 1}), (True, {"a": 1, "b": 7})])
def test_kill_9_leaves_whole_transactions(counts: Database, is_over: bool, kept: dict[str, int]) -> None:
    count(counts, "a")

    def work() -> None:
        with counts.writing() as connection:
            connection.execute("insert into counts values ('b', 7)")
            if not is_over:
                os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert values(counts) == kept
    count(counts, "a")
    assert values(counts) == kept | {"a": 2}


def test_kill_9_while_the_file_is_made(tmp_path: Path) -> None:
    """Killed between its tables and its version: the next one makes it."""
    file = tmp_path / "counts.sqlite"

    def work() -> None:
        class Killed(tuple[str, ...]):
            def __iter__(self):  # type: ignore[no-untyped-def]
                yield from super().__iter__()
                os.kill(os.getpid(), signal.SIGKILL)

        made = Database(file, DDL)
        made._ddl = Killed(DDL)
        count(made, "a")

    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert file.exists()
    count(Database(file, DDL), "a")
    assert values(Database(file, DDL)) == {"a": 1}


def test_no_count_is_lost_between_processes_that_also_make_the_file(counts: Database) -> None:
    processes = [FORK.Process(target=count, args=(counts, "a", 20)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert values(counts) == {"a": 60}


def test_threads_that_make_the_file_at_once(counts: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: count(Database(counts.file, DDL), f"n{n}"), range(8)))
    assert values(counts) == {f"n{n}": 1 for n in range(8)}


def test_a_lock_may_be_gone_later(counts: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.05)
    count(counts, "a")
    with counts.writing(), pytest.raises(TransientError, match=r"counts.sqlite: database is locked"):
        count(Database(counts.file, DDL), "a")
    assert values(counts) == {"a": 1}


def test_a_full_disk_may_have_room_later(counts: Database) -> None:
    count(counts, "a")
    with pytest.raises(TransientError, match=r"counts.sqlite: database or disk is full"):
        run(counts, "pragma max_page_count = 1", f"insert into counts values ('{'b' * 100_000}', 1)")
    assert values(counts) == {"a": 1}


def test_a_file_that_may_not_be_written_is_said(counts: Database) -> None:
    count(counts, "a")
    with pytest.raises(PermanentError, match="allowed: a book that this user may write"):
        run(counts, "pragma query_only = 1", "insert into counts values ('b', 1)")


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_said(counts: Database, content: bytes) -> None:
    counts.file.parent.mkdir()
    counts.file.write_bytes(content)
    said = (
        r"counts.sqlite: (file is not a database|database disk image is malformed); allowed: the book as it was written"
    )
    with pytest.raises(PermanentError, match=said):
        count(counts, "a")
    with pytest.raises(PermanentError, match=said):
        values(counts)


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("insert into counts values ('a', 2)", sqlite3.IntegrityError),
        ("insert into counts values ('b', null)", sqlite3.IntegrityError),
        ("select wrong from counts", sqlite3.OperationalError),
        ("insert into counts values (?, ?)", sqlite3.ProgrammingError),
    ],
)
def test_a_wrong_row_or_statement_is_neither_damage_nor_passing(
    counts: Database, statement: str, kind: type[Exception]
) -> None:
    count(counts, "a")
    with pytest.raises(sqlite3.Error) as raised, counts.writing() as connection:
        connection.execute(statement)
    assert type(raised.value) is kind
    assert values(counts) == {"a": 1}


@pytest.mark.parametrize(("found", "allowed"), [(1, 2), (2, 1)])
def test_tables_of_another_version_are_said_and_left_alone(counts: Database, found: int, allowed: int) -> None:
    count(Database(counts.file, DDL, version=found), "a")
    other = Database(counts.file, DDL, version=allowed, name="book")
    said = rf"counts.sqlite: version of the tables: found {found}, allowed: {allowed}; move the book away, or use"
    with pytest.raises(PermanentError, match=said):
        count(other, "a")
    with pytest.raises(PermanentError, match=said):
        values(other)
    assert values(Database(counts.file, DDL, version=found)) == {"a": 1}


@pytest.mark.parametrize(
    ("ddl", "said"),
    [
        (
            ["create table if not exists counts (name text primary key, value integer, unit text)"],
            r"columns of table counts: found name, value; allowed: name, value, unit; move",
        ),
        (
            ["create table if not exists counts (value integer, name text primary key)"],
            r"columns of table counts: found name, value; allowed: value, name; move",
        ),
        (
            [*DDL, "create table if not exists units (unit text)"],
            r"columns of table units: found no such table; allowed: unit; move",
        ),
    ],
)
def test_other_columns_under_the_same_version_are_said(counts: Database, ddl: list[str], said: str) -> None:
    count(counts, "a")
    with pytest.raises(PermanentError, match=said):
        values(Database(counts.file, ddl))


def test_a_table_more_does_no_harm(counts: Database) -> None:
    count(Database(counts.file, [*DDL, "create table if not exists units (unit text)"]), "a")
    assert values(counts) == {"a": 1}
