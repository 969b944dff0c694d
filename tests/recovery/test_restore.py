"""The way back from the second copy: into an empty home only, digest by digest, and usable in the end."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.errors import BadInput, ConfigurationError, PermanentError, TransientError
from greenops_pipelines.placement.ledger import Ledger
from greenops_pipelines.recovery import snapshots
from greenops_pipelines.recovery.restore import MARKER, restore
from greenops_pipelines.recovery.restored import counts, prove
from greenops_pipelines.recovery.snapshots import CHUNK_BYTES, chunk_key, snapshot_key
from greenops_pipelines.recovery.vault import LocalVault
from tests.recovery.small_home import (
    NOON,
    STATE,
    ask,
    bytes_below,
    copied,
    evidence_of,
    file_bundle,
    killed,
    lake_of,
    made,
    write,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return made(tmp_path / "home")


@pytest.fixture
def vault(tmp_path: Path) -> LocalVault:
    return LocalVault(tmp_path / "vault")


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "into"


def plain_files(folder: Path) -> dict[str, bytes]:
    """What has to be the same byte for byte: all that is state, but databases and what the evidence store keeps to itself."""
    found = bytes_below(folder)
    named = {path for path in STATE if not path.endswith((".db", ".sqlite"))}
    return {
        path: data
        for path, data in found.items()
        if path in named or (path.startswith(("lake/", "evidence/store/")) and ".incoming" not in path)
    }


def test_what_comes_back_is_what_was_copied(home: Path, vault: LocalVault, into: Path) -> None:
    found = copied(home, vault)
    done = restore(vault, into)
    assert (done.ok, done.snapshot, done.files, done.bytes, done.kept) == (
        True, found.snapshot, found.files, found.bytes, 0,
    )  # fmt: skip
    assert {name: (part.expected, part.found, part.differs) for name, part in done.parts.items()} == {
        name: (part.digest, part.digest, "") for name, part in found.parts.items()
    }
    assert plain_files(into) == plain_files(home)
    # Nothing else: no marker, no half, no -wal, no private key.
    stored = {path for path in plain_files(home) if path.startswith(("lake/", "evidence/store/"))}
    assert set(bytes_below(into)) == {*STATE, *stored}
    assert ask(into / "dagster/history/runs.db", "select count(*), max(body) from runs") == [(5, "row 4")]
    assert ask(into / "dispatches/ledger.sqlite", "select count(*) from claims") == [(7,)]


def test_what_comes_back_is_this_users_alone(home: Path, vault: LocalVault, into: Path) -> None:
    copied(home, vault)
    restore(vault, into)
    paths = [path for path in into.rglob("*") if not path.is_dir()]
    modes = {path.relative_to(into).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in paths}
    public = ("keys/evidence.pub", "keys/log.vkey", "keys/gpg.fingerprint")
    assert {modes.pop(name) for name in public} == {0o644}
    # The write-once stores keep their objects read-only.
    assert {mode for path, mode in modes.items() if path.startswith(("evidence/store/", "submissions/"))} == {0o444}
    assert {m for path, m in modes.items() if not path.startswith(("evidence/store/", "submissions/"))} == {0o600}
    folders = (into, *(path for path in into.rglob("*") if path.is_dir()))
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_an_older_snapshot_brings_the_older_state(home: Path, vault: LocalVault, into: Path, tmp_path: Path) -> None:
    older = copied(home, vault)
    write(home / "reports/carbon.html", "<p>99 kg</p>")
    (home / "gitops/k8s/rules.yaml").unlink()
    newer = copied(home, vault)
    restore(vault, into, older.snapshot)
    assert (into / "reports/carbon.html").read_text() == "<p>12.4 kg</p>"
    assert (into / "gitops/k8s/rules.yaml").exists()
    restore(vault, tmp_path / "newest")
    assert (tmp_path / "newest/reports/carbon.html").read_text() == "<p>99 kg</p>"
    assert not (tmp_path / "newest/gitops").joinpath("k8s/rules.yaml").exists()
    with pytest.raises(BadInput) as refused:
        restore(vault, tmp_path / "none", "20260101T000000Z-00000000")
    listed = f"{newer.snapshot}, {older.snapshot}"
    assert str(refused.value) == f"snapshot '20260101T000000Z-00000000': found none of that name, allowed: {listed}"
    assert not (tmp_path / "none").exists()


def test_a_vault_without_snapshots_says_so(vault: LocalVault, into: Path) -> None:
    with pytest.raises(BadInput, match=rf"^{vault.root}: found no snapshot, allowed: "):
        restore(vault, into)


# Only into what is empty


def test_nothing_is_overwritten(home: Path, vault: LocalVault, into: Path) -> None:
    copied(home, vault)
    for name in ("a", "b", "c", "d", "e", "f"):
        write(into / name)
    with pytest.raises(BadInput, match=r"into: found a, b, c, d, e and 1 more; allowed: an empty folder, or none"):
        restore(vault, into)
    assert len(bytes_below(into)) == 6
    before = bytes_below(home)
    with pytest.raises(BadInput, match="found dagster, dbt, dispatches, evidence, gitops and "):
        restore(vault, home)
    assert bytes_below(home) == before
    with pytest.raises(BadInput, match="found a file, allowed: an empty folder, or none"):
        restore(vault, into / "a")


def test_an_empty_folder_will_do_and_twice_will_not(home: Path, vault: LocalVault, into: Path) -> None:
    copied(home, vault)
    into.mkdir()
    restore(vault, into)
    with pytest.raises(BadInput, match="a restore overwrites nothing"):
        restore(vault, into)


# Killed


def test_a_restore_killed_at_any_moment_is_gone_on_with(
    home: Path, vault: LocalVault, into: Path, tmp_path: Path
) -> None:
    found = copied(home, vault)
    calls = killed("restore", tmp_path / "whole", vault.root, "replace", "before", 0)
    assert calls == found.files
    kept = []
    for call, moment, number in (
        ("pwrite", "before", 1),  # the marker is empty still
        ("replace", "before", 1),
        ("replace", "after", calls // 2),
        ("fsync", "before", 3),  # after those of marker and folder: a file is half written
        ("replace", "after", 2),
    ):
        assert killed("restore", into, vault.root, call, moment, number) is None
        assert (into / MARKER).exists()
        with pytest.raises(BadInput, match="found a restore that has not ended"):
            prove(into, lake_of(into))
        kept.append(len([path for path in bytes_below(into) if not path.rpartition("/")[2].startswith(".")]))
    # Other threads may be renaming theirs at that moment.
    assert kept[0] == 0
    assert kept[1] < 8
    assert kept[2] >= calls // 2 - 4
    done = restore(vault, into)
    assert done.ok
    assert 0 < done.kept <= done.files
    assert bytes_below(into) == bytes_below(tmp_path / "whole")
    # The last moment: all is there and compared, and the marker is to go.
    last = tmp_path / "last"
    assert killed("restore", last, vault.root, "unlink", "before", found.files + 1) is None
    assert (last / MARKER).exists()
    done = restore(vault, last)
    assert (done.ok, done.kept) == (True, done.files)


def test_files_of_another_snapshot_whose_restore_was_killed_go(home: Path, vault: LocalVault, into: Path) -> None:
    write(home / "reports/old/deep.html", "old")
    older = copied(home, vault)
    shutil.rmtree(home / "reports/old")
    write(home / "reports/old", "now a file")
    copied(home, vault)
    restore(vault, into, older.snapshot)
    write(into / MARKER, json.dumps({"snapshot": older.snapshot, "process": 1}))
    write(into / "reports/.0123456789abcdef.restoring", "half")
    (into / "gitops/k8s/rules.yaml").chmod(0o600)
    write(into / "gitops/k8s/rules.yaml", "spoilt")
    done = restore(vault, into)
    assert (done.ok, done.files - done.kept) == (True, 2)
    assert (into / "reports/old").read_text() == "now a file"
    assert plain_files(into) == plain_files(home)


HOLDER = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_second_restore_at_the_same_place_is_refused(home: Path, vault: LocalVault, into: Path) -> None:
    copied(home, vault)
    into.mkdir()
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, into / MARKER], **pipes) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(TransientError, match="into: found another restore at work there"):
            restore(vault, into)
        first.communicate("\n")
    assert restore(vault, into).ok


# Damaged


def damaged(vault: LocalVault, snapshot: str, path: str, number: int = 0) -> str:
    """Flips a bit of a file's chunk; its digest."""
    [file] = [file for file in snapshots.read(vault, snapshot).files if file.path == path]
    place = vault.root / chunk_key(file.chunks[number])
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    return file.chunks[number]


def test_a_damaged_chunk_is_named_with_the_snapshots_that_do_without_it(
    home: Path, vault: LocalVault, into: Path
) -> None:
    first, second = (copied(home, vault, lambda n=n: NOON + timedelta(hours=n)).snapshot for n in (0, 1))  # type: ignore[misc]
    write(home / "reports/big.csv", b"a" * CHUNK_BYTES + b"b")
    third, fourth = (copied(home, vault, lambda n=n: NOON + timedelta(hours=n)).snapshot for n in (2, 3))  # type: ignore[misc]
    chunk = damaged(vault, fourth, "reports/big.csv", 1)
    with pytest.raises(PermanentError) as refused:
        restore(vault, into)
    assert str(refused.value) == (
        f"reports/big.csv: chunk {chunk} is damaged in {vault.root} (chunks/{chunk[:2]}/{chunk}); "
        f"restore another snapshot that does without it: {second}, {first}"
    )
    assert (into / MARKER).exists()
    assert not (into / "reports/big.csv").exists()
    # The same folder takes another snapshot then.
    assert restore(vault, into, second).ok
    vault.delete(chunk_key(chunk))
    with pytest.raises(PermanentError, match=rf"reports/big.csv: chunk {chunk} is missing in .*: {second}, {first}$"):
        restore(vault, into.with_name("other"), third)


def test_a_chunk_that_every_snapshot_needs_has_to_come_back(home: Path, vault: LocalVault, into: Path) -> None:
    copied(home, vault)
    last = copied(home, vault)
    damaged(vault, last.snapshot, "gitops/k8s/rules.yaml")
    with pytest.raises(
        PermanentError, match="every other snapshot needs it too; bring the object back from the vault's"
    ):
        restore(vault, into)


def forged(vault: LocalVault, snapshot: str, old: str, new: str) -> None:
    """Another text in a snapshot's document, with a digest that fits again."""
    path = vault.root / snapshot_key(snapshot)
    body = json.loads(path.read_text().replace(old, new))
    del body["sha256"]
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(body | {"sha256": digest}, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


@pytest.mark.parametrize(
    "path", ["../out.html", "reports/../../out.html", "/etc/out", "keys/", "scratch/x", ".restoring"]
)
def test_a_forged_document_leads_nowhere_else(home: Path, vault: LocalVault, into: Path, path: str) -> None:
    found = copied(home, vault)
    forged(vault, found.snapshot, "reports/carbon.html", path)
    with pytest.raises(PermanentError, match=r"json: damaged \(it names the file "):
        restore(vault, into)
    assert not into.exists()


def test_a_file_that_its_chunks_do_not_come_to_is_refused(home: Path, vault: LocalVault, into: Path) -> None:
    found = copied(home, vault)
    file = next(file for file in snapshots.read(vault).files if file.path == "reports/carbon.html")
    forged(vault, found.snapshot, f'"sha256":"{file.sha256}"', f'"sha256":"{"0" * 64}"')
    with pytest.raises(
        PermanentError, match=r"reports/carbon.html: its chunks in .* come to 14 bytes with the digest "
    ):
        restore(vault, into)
    assert not (into / "reports/carbon.html").exists()


def test_a_document_of_a_newer_version_says_which(home: Path, vault: LocalVault, into: Path) -> None:
    found = copied(home, vault)
    forged(vault, found.snapshot, '"format":1', '"format":2')
    with pytest.raises(PermanentError, match=r"found format 2, allowed: 1; restore it with the version .* \(0.1.0\)"):
        restore(vault, into)


# Usable


@pytest.fixture
def back(home: Path, vault: LocalVault, into: Path) -> Path:
    """A restored home."""
    # What waits in the queue of the small home is no bundle; here everything is to be as it should.
    (home / "evidence/queue/20261127T110000Z-0123456789abcdef.tar").unlink()
    copied(home, vault)
    assert restore(vault, into).ok
    return into


def test_a_restored_home_is_usable(home: Path, back: Path) -> None:
    before = bytes_below(back)
    found = prove(back, lake_of(back), counts(lake_of(home)))
    assert found.faults == ()
    assert found.ok
    assert dict(found.databases) == dict.fromkeys([p for p in STATE if p.endswith((".db", ".sqlite"))], "ok")
    assert (found.runs, found.entries, found.bundles) == (5, 2, 2)
    assert found.rows == {"meters": 30}
    # No key, no log entry, nothing but the warehouse.
    after = bytes_below(back)
    assert after.pop("warehouse.duckdb")
    assert after == before
    assert sorted(path.name for path in (back / "keys").iterdir()) == ["evidence.pub", "gpg.fingerprint", "log.vkey"]


def test_a_restored_home_signs_nothing_until_its_keys_come_back(home: Path, back: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"found no such file, but its public half evidence\.pub; bring the key back"
    ):
        file_bundle(back, "drill 3")
    for name in ("evidence.key", "log.key"):
        shutil.copy2(home / "keys" / name, back / "keys" / name)
    file_bundle(back, "drill 3")
    evidence = evidence_of(back)
    assert evidence.audit(evidence.trust()).ok
    assert prove(back, lake_of(back)).bundles == 3


def test_a_bundle_that_did_not_come_back_is_found(back: Path) -> None:
    [one, *_] = sorted((back / "evidence/store/bundles").rglob("*.tar"))
    one.unlink()
    found = prove(back, lake_of(back))
    assert found.faults == (f"evidence: bundles: {one.stem} is logged, and not in the store",)


def test_a_log_without_its_public_key_is_found(back: Path) -> None:
    (back / "keys/log.vkey").unlink()
    found = prove(back, lake_of(back))
    assert found.faults == ("evidence: found a log, and no keys/log.vkey to verify it with",)
    assert sorted(path.name for path in (back / "keys").iterdir()) == ["evidence.pub", "gpg.fingerprint"]


def test_a_log_shorter_than_what_was_seen_of_it_is_found(home: Path, back: Path) -> None:
    file_bundle(home, "drill 3")
    shutil.copyfile(home / "evidence/log-seen.txt", back / "evidence/log-seen.txt")
    found = prove(back, lake_of(back))
    assert "is truncated: found no entry 2, seen were 3 entries" in found.faults[0]


def test_a_spoilt_database_is_found(back: Path) -> None:
    path = back / "dagster/history/runs.db"
    content = bytearray(path.read_bytes())
    content[4096:4200] = bytes(104)
    path.write_bytes(content)
    found = prove(back, lake_of(back))
    assert found.faults[0].startswith("dagster/history/runs.db: integrity check: ")
    assert found.databases["dispatches/ledger.sqlite"] == "ok"


def test_rows_that_did_not_come_back_are_counted(back: Path) -> None:
    [one, *_] = sorted((back / "lake").rglob("*.parquet"))
    one.unlink()
    found = prove(back, lake_of(back), {"meters": 30, "gauges": 4})
    assert found.faults == (
        "table gauges: found no such table, expected: 4",
        "table meters: found 20 rows, expected: 30",
    )


def test_the_lake_of_another_home_proves_nothing(home: Path, back: Path) -> None:
    with pytest.raises(BadInput, match=r"home/lake: found the lake of another home, allowed: .*/into/lake"):
        prove(back, lake_of(home))
    with pytest.raises(BadInput, match="found no folder, allowed: a home that was restored to its end"):
        prove(back / "none", lake_of(back / "none"))


def test_work_that_was_launched_is_not_launched_again_by_a_restored_platform(
    home: Path, vault: LocalVault, into: Path
) -> None:
    (home / "dispatches/ledger.sqlite").unlink()
    row = {"key": "etl/1", "outcome": "succeeded", "at": datetime(2026, 11, 27, tzinfo=UTC), "workload": "etl",
           "tenant": "bluefield", "deadline": datetime(2026, 11, 28, tzinfo=UTC), "detail": ""}  # fmt: skip
    assert Ledger(home / "dispatches").close(row)
    copied(home, vault)
    restore(vault, into)
    assert not Ledger(into / "dispatches").close(row)
    with closing(sqlite3.connect(into / "dispatches/ledger.sqlite")) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
