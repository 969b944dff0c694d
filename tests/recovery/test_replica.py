"""The second copy: what is in it, what it costs, what it survives, where it may lie."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import moto.backends
import pytest
from moto.server import ThreadedMotoServer

from greenops_pipelines.errors import (
    BadInput,
    ConfigurationError,
    ObjectMissing,
    PermanentError,
    ResidencyViolation,
    TransientError,
)
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.recovery import replica_state, snapshots
from greenops_pipelines.recovery.replica import copy
from greenops_pipelines.recovery.replica_region import allowed_target
from greenops_pipelines.recovery.replica_upkeep import Keep, prune, verify
from greenops_pipelines.recovery.restore import restore
from greenops_pipelines.recovery.snapshots import CHUNK_BYTES, chunk_key, snapshot_key
from greenops_pipelines.recovery.vault import LocalVault, S3Vault, open_vault
from greenops_pipelines.store.local import LocalObjectStore
from greenops_pipelines.store.s3 import s3_client
from tests.recovery.small_home import (
    AREAS,
    METERS,
    NOON,
    STATE,
    TARGET,
    TENANTS,
    ask,
    bytes_below,
    copied,
    database,
    file_bundle,
    killed,
    lake_of,
    made,
    readings,
    source_of,
    write,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return made(tmp_path / "home")


@pytest.fixture
def vault(tmp_path: Path) -> LocalVault:
    return LocalVault(tmp_path / "vault")


def document_bytes(vault: LocalVault, snapshot: str) -> int:
    return len(vault.get(snapshot_key(snapshot)))


def chunk_of(vault: LocalVault, path: str) -> Path:
    """The first chunk of a file in the newest snapshot."""
    [file] = [file for file in snapshots.read(vault).files if file.path == path]
    return vault.root / chunk_key(file.chunks[0])


# What is in it


def test_a_copy_has_what_is_state_and_nothing_else(home: Path, vault: LocalVault) -> None:
    found = copied(home, vault)
    paths = [file.path for file in snapshots.read(vault).files]
    store, lake = sorted((home / "evidence/store").rglob("*")), sorted((home / "lake").rglob("*.parquet"))
    expected = [*STATE, *(p.relative_to(home).as_posix() for p in (*store, *lake) if p.is_file())]
    assert sorted(paths) == sorted(expected)
    assert found.left_out == ()
    assert {name: part.files for name, part in found.parts.items()} == {
        "dagster": 5, "lake": 3, "evidence": 2 + len([p for p in store if p.is_file()]), "work": 5, "gitops": 2,
        "reports": 1, "keys": 3,
    }  # fmt: skip
    assert found.parts["reports"].bytes == len("<p>12.4 kg</p>")


def test_the_head_says_what_was_copied_when_and_where_to(home: Path, vault: LocalVault) -> None:
    times = iter([NOON, NOON + timedelta(seconds=3, microseconds=255)])
    found = copied(home, vault, lambda: next(times))
    assert re.fullmatch(r"20261127T120003Z-000ff[0-9a-f]{3}", found.snapshot)
    head = snapshots.read(vault)
    assert (head.begun_at, head.taken_at) == (NOON, NOON + timedelta(seconds=3, microseconds=255))
    assert (head.source_region, head.target_region, head.product) == ("eu-central-1", "eu-west-1", "0.1.0")


def test_a_parts_digest_is_over_its_sorted_paths_and_digests(home: Path, vault: LocalVault) -> None:
    # As a person would check it, with sha256sum.
    copied(home, vault)
    whole = subprocess.run(["sha256sum", home / "reports/carbon.html"], capture_output=True, text=True, check=True)
    lines = f"reports/carbon.html {whole.stdout.split()[0]}\n"
    digest = subprocess.run(["sha256sum"], input=lines, capture_output=True, text=True, check=True).stdout.split()[0]
    assert snapshots.read(vault).parts["reports"].digest == digest


def test_no_byte_of_a_private_key_reaches_the_vault(home: Path, vault: LocalVault) -> None:
    copied(home, vault)
    everything = b"\n".join(bytes_below(vault.root).values())
    private = [home / "keys/evidence.key", home / "keys/log.key", home / "keys/gnupg/private-keys-v1.d/A.key"]
    secrets = [line for path in private for line in path.read_bytes().splitlines() if not line.startswith(b"-----")]
    assert len(secrets) == 5
    for secret in [*secrets, b"PRIVATE KEY"]:
        assert secret not in everything
    assert (home / "keys/evidence.pub").read_bytes() in everything


def test_a_private_key_under_a_public_name_stops_the_copy(home: Path, vault: LocalVault) -> None:
    (home / "keys/evidence-old.pub").write_bytes((home / "keys/evidence.key").read_bytes())
    with pytest.raises(PermanentError, match=r"keys/evidence-old.pub: found no public key, allowed .* the public half"):
        copied(home, vault)
    assert snapshots.ids(vault) == ()
    assert b"PRIVATE KEY" not in b"".join(bytes_below(vault.root).values())


def test_what_nobody_declared_as_state_or_not_is_named(home: Path, vault: LocalVault) -> None:
    write(home / "rotation/state.json")
    write(home / "reports/two\nlines.html")
    assert copied(home, vault).left_out == (r"'reports/two\nlines.html'", "rotation")


def test_links_out_of_the_home_are_not_followed(home: Path, vault: LocalVault, tmp_path: Path) -> None:
    (home / "reports/link.html").symlink_to(write(tmp_path / "secret", b"secret"))
    (home / "reports/folder").symlink_to(tmp_path)
    assert copied(home, vault).parts["reports"].files == 1


# What it costs


def test_a_changed_byte_costs_its_chunk(home: Path, vault: LocalVault) -> None:
    big = write(home / "reports/big.csv", b"a" * CHUNK_BYTES + b"b" * CHUNK_BYTES + b"c" * CHUNK_BYTES + b"d" * 100)
    copied(home, vault)
    content = bytearray(big.read_bytes())
    content[CHUNK_BYTES + 5] = ord("x")
    big.write_bytes(content)
    again = copied(home, vault)
    assert again.new_bytes - document_bytes(vault, again.snapshot) == CHUNK_BYTES
    # Equal chunks lie once, whoever has them.
    write(home / "reports/other.csv", b"a" * CHUNK_BYTES)
    other = copied(home, vault)
    assert other.new_bytes == document_bytes(vault, other.snapshot)


def test_a_changed_row_costs_the_chunk_of_its_page(home: Path, vault: LocalVault) -> None:
    runs = home / "dagster/history/runs.db"
    with closing(sqlite3.connect(runs, isolation_level=None)) as connection:
        connection.executemany("insert into runs (body) values (?)", [("x" * 3000,) for _ in range(2000)])
    copied(home, vault)
    assert runs.stat().st_size > 5 * CHUNK_BYTES
    with closing(sqlite3.connect(runs, isolation_level=None)) as connection:
        connection.execute("update runs set body = 'y' where id = 1500")
    again = copied(home, vault)
    assert again.new_bytes - document_bytes(vault, again.snapshot) == CHUNK_BYTES


class Counting(LocalFolder):
    """A lake that counts what is read."""

    reads = 0

    def read_bytes(self, path: str) -> bytes:
        self.reads += 1
        return super().read_bytes(path)


def test_files_that_never_change_are_read_once(home: Path, vault: LocalVault) -> None:
    lake = Counting(home / "lake")
    for expected in (3, 3):
        copy(source_of(home, lake), vault, TARGET, AREAS, TENANTS)
        assert lake.reads == expected
    # Unless the vault lost what they are made of.
    [one, *_] = lake_of(home).files(METERS)
    chunk_of(vault, f"lake/{one}").unlink()
    assert verify(vault).faults == (f"lake/{one}: chunk {chunk_of(vault, f'lake/{one}').name} is missing",)
    copy(source_of(home, lake), vault, TARGET, AREAS, TENANTS)
    assert lake.reads == 4
    assert verify(vault).ok


def test_a_database_that_nobody_wrote_to_is_not_read_again(
    home: Path, vault: LocalVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = (NOON - timedelta(days=300)).timestamp()
    names = sorted(home.rglob("*.db"))
    for path in names:
        os.utime(path, (old, old))
    copied(home, vault)
    read: list[str] = []
    backup = replica_state.backup

    def noted(path: Path, target: Path) -> None:
        read.append(path.name)
        backup(path, target)

    monkeypatch.setattr(replica_state, "backup", noted)
    copied(home, vault)
    assert read == ["ledger.sqlite"]  # changed within the tick of the clock in which it was looked at
    with closing(sqlite3.connect(names[0], isolation_level=None)) as connection:
        # Held open, so that the row stays in the -wal and the file itself is as it was.
        [[table]] = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        connection.execute(f"insert into {table} (body) values ('new')")
        read.clear()
        copied(home, vault)
        assert sorted(read) == sorted(["ledger.sqlite", names[0].name])


# What goes on meanwhile


class Compacting(LocalFolder):
    """A lake in which the first file goes, and another one comes, just before it is read."""

    done = False

    def read_bytes(self, path: str) -> bytes:
        if not self.done and "2026-11-01" in path:
            self.done = True
            lake = lake_of(Path(self.root).parent)
            lake.write(METERS, readings(1, 12), refresh=False)
            self.remove(path)
        return super().read_bytes(path)


def test_files_that_a_compaction_takes_away_are_listed_again(home: Path, vault: LocalVault) -> None:
    copy(source_of(home, Compacting(home / "lake")), vault, TARGET, AREAS, TENANTS)
    names = [file.path for file in snapshots.read(vault).files if "/day=2026-11-01/" in file.path]
    assert len(names) == 1
    assert names[0].startswith("lake/bronze/meters/day=2026-11-01/data-000002-")


class Unreadable(LocalFolder):
    def read_bytes(self, path: str) -> bytes:
        raise FileNotFoundError(path)


def test_a_lake_whose_listed_files_cannot_be_read_is_no_lake_without_files(home: Path, vault: LocalVault) -> None:
    with pytest.raises(TransientError, match="found files that go while they are listed"):
        copy(source_of(home, Unreadable(home / "lake")), vault, TARGET, AREAS, TENANTS)
    assert snapshots.ids(vault) == ()


class Filing(LocalObjectStore):
    """A store into which a bundle is filed while the second object is read."""

    home: Path
    reads = 0

    def get(self, key: str) -> bytes:
        self.reads += 1
        if self.reads == 2:
            file_bundle(self.home, "drill meanwhile")
        return super().get(key)


def test_a_bundle_that_is_filed_meanwhile_is_there_with_its_log_entry(home: Path, vault: LocalVault) -> None:
    store = Filing(home / "evidence/store")
    store.home = home
    copy(source_of(home, evidence=store), vault, TARGET, AREAS, TENANTS)
    files = [file.path for file in snapshots.read(vault).files]
    assert len([path for path in files if path.startswith("evidence/store/bundles/")]) == 3
    assert len([path for path in files if path.startswith("evidence/store/log/entry/")]) == 3


WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("pragma journal_mode = wal")
connection.execute("create table runs (id integer primary key, body text)")
number = 0
while True:
    number += 1
    connection.execute("insert into runs values (?, ?)", [number, "x" * 700])
    print(number, flush=True)
"""


def test_a_database_that_is_written_to_all_the_time_is_copied_as_of_one_moment(
    home: Path, vault: LocalVault, tmp_path: Path
) -> None:
    live = home / "dagster/history/live.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, live], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for number in range(3):
            for _ in range(500):
                committed = int(writer.stdout.readline())
            found = copied(home, vault)
            restore(vault, tmp_path / f"{number}", found.snapshot)
            there = tmp_path / f"{number}/dagster/history/live.db"
            assert ask(there, "pragma integrity_check") == [("ok",)]
            [(rows, last)] = ask(there, "select count(*), max(id) from runs")
            assert rows == last
            assert isinstance(rows, int)
            assert rows >= committed
        writer.kill()
    # What a killed writer had committed is in its -wal alone, which belongs to the database.
    [(before,)] = ask(live, "select count(*) from runs")
    copied(home, vault)
    restore(vault, tmp_path / "after")
    assert ask(tmp_path / "after/dagster/history/live.db", "select count(*) from runs") == [(before,)]


def test_what_is_no_database_is_named(home: Path, vault: LocalVault) -> None:
    write(home / "dagster/history/torn.db", b"not a database " * 1000)
    with pytest.raises(PermanentError, match=r"torn.db: found file is not a database, allowed: a SQLite database"):
        copied(home, vault)


HOLDER = """
import sys
from pathlib import Path
from greenops_pipelines.recovery.replica_lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_copy_at_the_same_time_is_refused_and_names_the_first(home: Path, vault: LocalVault) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, home], **pipes) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        for call in (lambda: copied(home, vault), lambda: prune(vault, home, NOON)):
            with pytest.raises(TransientError, match=f"taken or pruned by process {first.pid}; try again"):
                call()
        first.communicate("\n")
    copied(home, vault)


def test_a_clock_that_was_set_back_takes_no_copy(home: Path, vault: LocalVault) -> None:
    copied(home, vault, lambda: NOON)
    with pytest.raises(
        TransientError, match=r"clock shows 2026-11-27T11:58:00Z, the newest snapshot is 20261127T120000"
    ):
        copied(home, vault, lambda: NOON - timedelta(minutes=2))
    copied(home, vault, lambda: NOON - timedelta(seconds=59))


# What it survives


def test_a_copy_killed_at_any_moment_leaves_older_snapshots_and_the_next_one_goes_on(
    home: Path, vault: LocalVault, tmp_path: Path
) -> None:
    older = copied(home, vault)
    other = LocalVault(tmp_path / "other")
    calls = killed("copy", home, other.root, "replace", "before", 0)
    assert calls is not None
    assert calls > 20
    # Three chunks more, and the document. Each try begins where the one before it died.
    write(home / "reports/new.html", b"n" * CHUNK_BYTES + b"e")
    database(home / "dagster/history/runs/ffff.db", "event_logs", 5)
    for moment, number, count in (("before", 1, 1), ("after", 1, 1), ("before", 2, 1), ("after", 2, 2)):
        assert killed("copy", home, vault.root, "replace", moment, number) is None
        assert len(snapshots.ids(vault)) == count
        assert all(verify(vault, each).ok for each in snapshots.ids(vault))
    assert snapshots.ids(vault)[0] == older.snapshot
    for number in (1, calls // 2, calls - 1, calls):
        assert killed("copy", home, (tmp_path / f"v{number}"), "replace", "before", number) is None
        empty = LocalVault(tmp_path / f"v{number}")
        assert snapshots.ids(empty) == ()
        assert list((empty.root / ".incoming").iterdir()) == []
    copied(home, empty)
    assert verify(empty).ok
    assert verify(vault).ok
    assert sorted(path.name for path in (home / "recovery").iterdir()) == ["postgres", "replica.lock"]


def test_what_a_copy_killed_amid_a_database_left_is_swept(home: Path, vault: LocalVault) -> None:
    left = write(home / "recovery/.replica-abc/database")
    copied(home, vault)
    assert not left.parent.exists()


def test_a_damaged_newest_snapshot_does_not_spoil_the_next(
    home: Path, vault: LocalVault, caplog: pytest.LogCaptureFixture
) -> None:
    first = copied(home, vault)
    path = vault.root / snapshot_key(first.snapshot)
    path.write_bytes(path.read_bytes().replace(b'"reports/carbon.html"', b'"reports/karbon.html"'))
    with pytest.raises(
        PermanentError, match=rf"{first.snapshot}.json: damaged \(its digest is not the one it states\)"
    ):
        verify(vault)
    copied(home, vault)
    assert "everything is read again" in caplog.text
    assert verify(vault).ok


def test_a_flipped_byte_in_a_chunk_is_named(home: Path, vault: LocalVault) -> None:
    found = copied(home, vault)
    good = verify(vault)
    assert (good.ok, good.files, good.bytes) == (True, found.files, found.bytes)
    chunk = chunk_of(vault, "reports/carbon.html")
    chunk.write_bytes(b"<p>12.5 kg</p>")
    bad = verify(vault)
    assert bad.fault_count == 1
    assert bad.faults[0].startswith(f"reports/carbon.html: chunk {chunk.name} is damaged: its bytes have the digest ")
    # Mended: remove it, and copy again.
    vault.delete(chunk_key(chunk.name))
    copied(home, vault)
    assert verify(vault).ok


# What goes


def taken(home: Path, vault: LocalVault, *times: datetime) -> list[str]:
    return [copied(home, vault, lambda time=time: time).snapshot for time in times]  # type: ignore[misc]


def test_pruning_keeps_two_days_then_days_then_months(home: Path, vault: LocalVault) -> None:
    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    kept_if_right = {
        "2025-10-31T23:00": False,  # 13 months ago, and this month is the 13th
        "2025-11-01T00:00": False,
        "2025-11-30T10:00": True,  # newest of its month
        "2026-05-02T00:00": False,
        "2026-05-31T23:59": True,
        "2026-10-23T06:00": False,  # 35 days ago: today is the first of 35
        "2026-10-24T06:00": False,
        "2026-10-24T18:00": True,  # newest of its day
        "2026-10-31T01:00": True,
        "2026-11-25T11:59": False,  # older than 48 h, and not the newest of its day
        "2026-11-25T12:00": True,
        "2026-11-25T13:00": True,
        "2026-11-27T11:00": True,
        "2026-11-27T11:59": True,
    }
    names = taken(home, vault, *map(at, kept_if_right))
    done = prune(vault, home, NOON)
    assert done.kept == tuple(name for name, kept in zip(names, kept_if_right.values(), strict=True) if kept)
    assert done.removed == tuple(name for name, kept in zip(names, kept_if_right.values(), strict=True) if not kept)
    assert snapshots.ids(vault) == done.kept
    assert prune(vault, home, NOON).removed == ()
    assert all(verify(vault, name).ok for name in done.kept)


def test_the_newest_snapshot_stays_however_old_it_is(home: Path, vault: LocalVault) -> None:
    names = taken(home, vault, NOON, NOON + timedelta(hours=1))
    done = prune(vault, home, NOON + timedelta(days=3650), Keep(0, 0, 0))
    assert done.kept == (names[1],)
    assert verify(vault).ok


def test_chunks_go_when_no_snapshot_names_them_and_not_within_a_day(home: Path, vault: LocalVault) -> None:
    report = write(home / "reports/big.csv", b"a" * CHUNK_BYTES + b"b" * CHUNK_BYTES)
    taken(home, vault, NOON)
    only = [chunk_of(vault, "reports/big.csv"), chunk_of(vault, "reports/carbon.html")]
    report.write_bytes(b"b" * CHUNK_BYTES + b"c" * CHUNK_BYTES)
    taken(home, vault, NOON + timedelta(hours=1))
    now, keep = datetime.now(UTC), Keep(0, 0, 0)
    soon = prune(vault, home, now + timedelta(hours=23), keep)
    assert (len(soon.removed), soon.chunks_removed, soon.chunks_young) == (1, 0, 1)
    later = prune(vault, home, now + timedelta(hours=25), keep)
    assert (later.removed, later.chunks_removed, later.chunks_young) == ((), 1, 0)
    # The one with the a's has gone; the b's, now first, and what never changed are in use.
    assert [path.exists() for path in only] == [False, True]
    assert verify(vault).ok


def test_nothing_goes_while_a_snapshot_that_stays_is_damaged(home: Path, vault: LocalVault) -> None:
    names = taken(home, vault, NOON - timedelta(days=400), NOON - timedelta(hours=1), NOON)
    write(vault.root / snapshot_key(names[1]), b"{}")
    before = bytes_below(vault.root)
    with pytest.raises(
        PermanentError, match=rf"snapshots/{names[1]}.json: damaged .* take another snapshot: {names[2]}"
    ):
        prune(vault, home, NOON)
    assert bytes_below(vault.root) == before


# Where it may lie


@pytest.mark.parametrize(
    ("region", "tenants", "message"),
    [
        ("eu-west-1", {"a": "eu", "b": "any"}, None),
        ("us-east-1", {"a": "any"}, None),
        ("us-east-1", {}, None),
        (
            "us-east-1",
            {"bluefield": "any", "alpenblick": "eu"},
            "second copy in us-east-1 (area us): tenant alpenblick is bound to eu, and its rows are in the lake; "
            "allowed: eu-central-1, eu-west-1",
        ),
        (
            "mars-1",
            {"a": "eu"},
            "second copy in mars-1: found a region that ops/regions.yaml does not declare, so that nobody knows its area; "
            "allowed: eu-central-1, eu-west-1",
        ),
        (
            "eu-west-1",
            {"a": "eu", "b": "us"},
            "second copy in eu-west-1 (area eu): tenant b is bound to us, and its rows are in the lake; "
            "allowed: none: tenants are bound to eu and us, and one copy cannot lie in each",
        ),
        (
            "eu-west-1",
            {"a": "uk"},
            "second copy in eu-west-1 (area eu): tenant a is bound to uk, and its rows are in the lake; "
            "allowed: none is declared in uk",
        ),
    ],
)
def test_a_copy_lies_inside_the_area_of_every_bound_tenant(
    region: str, tenants: dict[str, str], message: str | None
) -> None:
    if message is None:
        allowed_target(region, AREAS, tenants)
        return
    with pytest.raises(ResidencyViolation) as refused:
        allowed_target(region, AREAS, tenants)
    assert str(refused.value) == message


def test_nothing_is_copied_where_it_may_not_lie(home: Path, vault: LocalVault) -> None:
    refused: list[tuple[str, type[Exception], str]] = [
        ("us-east-1", ResidencyViolation, "tenant alpenblick is bound to eu"),
        ("eu-central-1", ConfigurationError, "found the region of the first one, allowed: another region"),
    ]
    for region, kind, message in refused:
        with pytest.raises(kind, match=message):
            copy(source_of(home), vault, region, AREAS, TENANTS)
    assert vault.list() == ()


def test_a_vault_inside_of_what_is_copied_is_refused(home: Path, tmp_path: Path) -> None:
    for inside in (home / "reports/vault", home, tmp_path):
        with pytest.raises(ConfigurationError, match="found the second copy inside of what is copied"):
            copied(home, LocalVault(inside))
    # Beside the parts it is no safer than they are, and does no harm: the default of a home without settings.
    assert copied(home, LocalVault(home / "replica")).left_out == ()


def test_a_home_that_is_not_there_is_not_made(vault: LocalVault, tmp_path: Path) -> None:
    source = source_of(made(tmp_path / "home"))
    with pytest.raises(BadInput, match="found no such folder, allowed: the home of a platform"):
        copy(
            type(source)(tmp_path / "none", source.region, source.lake, source.evidence), vault, TARGET, AREAS, TENANTS
        )


# The folder


def test_a_vault_is_this_users_alone(tmp_path: Path) -> None:
    vault = LocalVault(tmp_path / "deep/vault")
    vault.put("chunks/ab/abc", b"one")
    vault.put("chunks/ab/abc", b"two")
    assert (vault.get("chunks/ab/abc"), vault.list()) == (b"two", ("chunks/ab/abc",))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (vault.root, *vault.root.rglob("*"))}
    assert modes == {"vault": 0o700, ".incoming": 0o700, "chunks": 0o700, "ab": 0o700, "abc": 0o600}
    vault.delete("chunks/ab/abc")
    vault.delete("chunks/ab/abc")
    assert not vault.exists("chunks/ab/abc")
    for call in (vault.get, vault.modified):
        with pytest.raises(ObjectMissing, match=r"chunks/ab/abc: found no object under that key$"):
            call("chunks/ab/abc")
    with pytest.raises(BadInput):
        vault.put("../out", b"x")


DYING_WRITER = """
import os, pathlib, signal, sys
from greenops_pipelines.recovery.vault import LocalVault
vault = LocalVault(pathlib.Path(sys.argv[1]))
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
vault.put("k", b"data")
"""


def test_halves_of_killed_writers_are_swept(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", DYING_WRITER, tmp_path / "vault"], check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "vault/.incoming").iterdir())) == 1
    vault = LocalVault(tmp_path / "vault")
    assert list((tmp_path / "vault/.incoming").iterdir()) == []
    assert vault.list() == ()


def test_a_full_disk_is_passing_and_leaves_what_was_there(vault: LocalVault, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    vault.put("k", b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(TransientError, match="k: not stored or read: No space left on device; free some"):
            vault.put("k", b"after")
    assert (vault.get("k"), list((vault.root / ".incoming").iterdir())) == (b"before", [])


@pytest.mark.parametrize("address", ["", "gs://bucket", "s3://B", "s3://"])
def test_addresses_that_are_none_are_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^GREENOPS_REPLICA_URL: found .*, allowed: "):
        open_vault(address)


# The bucket


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket_in(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], S3Vault]]:
    """Makes the bucket `second` in a region."""
    for backend in moto.backends.get_backend("s3").values():
        backend.reset()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    clients = []

    def make(region: str) -> S3Vault:
        client = s3_client(endpoint, region)
        clients.append(client)
        if region == "us-east-1":
            client.create_bucket(Bucket="second")
        else:
            client.create_bucket(Bucket="second", CreateBucketConfiguration={"LocationConstraint": region})  # type: ignore[typeddict-item]
        return S3Vault(client, "second", "team/green")

    yield make
    for client in clients:
        client.close()


def test_there_and_back_through_a_bucket(bucket_in: Callable[[str], S3Vault], home: Path, tmp_path: Path) -> None:
    bucket = bucket_in("eu-west-1")
    first = copied(home, bucket)
    again = copied(home, bucket)
    assert again.new_bytes == len(bucket.get(snapshot_key(again.snapshot)))
    assert verify(bucket, first.snapshot).ok
    done = restore(bucket, tmp_path / "into")
    assert (done.ok, done.files) == (True, again.files)
    assert (tmp_path / "into/reports/carbon.html").read_text() == "<p>12.4 kg</p>"
    write(home / "reports/carbon.html", "<p>13 kg</p>")
    copied(home, bucket)
    gone = prune(bucket, home, datetime.now(UTC) + timedelta(days=2), Keep(0, 0, 0))
    assert (len(gone.removed), gone.chunks_removed) == (2, 1)
    assert verify(bucket).ok
    with pytest.raises(ObjectMissing, match=r"^s3://second/team/green/chunks/none: found no object under that key$"):
        bucket.get("chunks/none")


def test_the_bucket_itself_says_where_it_lies(bucket_in: Callable[[str], S3Vault], home: Path) -> None:
    bucket = bucket_in("us-east-1")
    assert bucket.region() == "us-east-1"
    with pytest.raises(
        PermanentError, match=r"^s3://second/team/green: found it in us-east-1, declared: eu-west-1; a decl"
    ):
        copied(home, bucket)
    assert bucket.list() == ()
    with pytest.raises(ResidencyViolation):
        copy(source_of(home), bucket, "us-east-1", AREAS, TENANTS)


def test_a_bucket_that_is_not_there_is_named(bucket_in: Callable[[str], S3Vault], endpoint: str, home: Path) -> None:
    bucket_in("eu-west-1")
    other = open_vault("s3://other/prefix", endpoint, "eu-west-1")
    with pytest.raises(PermanentError, match="s3://other/prefix: found no such bucket; create it"):
        copied(home, other)
