"""The tree against its definition, the log against those who cut, fork or swap it, the second place against the log."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.errors import PermanentError
from greenops_pipelines.evidence import merkle
from greenops_pipelines.evidence.archive import Archive
from greenops_pipelines.evidence.opening import Evidence
from greenops_pipelines.evidence.queue import Queue
from greenops_pipelines.evidence.tiles import Tiles, checkpoint_key, entry_key, path
from greenops_pipelines.store.local import LocalObjectStore
from tests.evidence.conftest import filed, settings

# The eight entries and the root of Certificate Transparency's reference tests.
CT_ENTRIES = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
CT_ROOT = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def defined_root(entries: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\1" + defined_root(entries[:k]) + defined_root(entries[k:])).digest()


def tree(entries: list[bytes]) -> merkle.Node:
    return lambda level, index: defined_root(entries[index << level : (index + 1) << level])


def test_the_root_is_certificate_transparencys() -> None:
    assert merkle.root(8, tree(CT_ENTRIES)).hex() == CT_ROOT
    assert merkle.root(0, tree([])) == merkle.EMPTY_ROOT


@pytest.mark.parametrize("size", [*range(1, 20), 31, 32, 33, 64, 65])
def test_each_leaf_is_proven_at_its_place_and_at_no_other(size: int) -> None:
    entries = [bytes([n]) for n in range(size)]
    root = merkle.root(size, tree(entries))
    assert root == defined_root(entries)
    for index in range(size):
        proof = merkle.inclusion_proof(index, size, tree(entries))
        leaf = merkle.leaf_hash(entries[index])
        assert merkle.includes(leaf, index, size, proof, root)
        assert not any(merkle.includes(leaf, other, size, proof, root) for other in range(size) if other != index)
        assert not merkle.includes(leaf, index, size, proof[:-1], root) or not proof
        assert not merkle.includes(leaf, index, size, [*proof, root], root)
        assert not merkle.includes(leaf, index, size, proof, bytes(32))


@pytest.mark.parametrize("new", [1, 2, 3, 7, 8, 9, 16, 31, 33])
def test_each_tree_is_proven_to_be_the_beginning_of_a_later_one(new: int) -> None:
    entries = [bytes([n]) for n in range(new)]
    new_root = defined_root(entries)
    for old in range(1, new + 1):
        old_root = defined_root(entries[:old])
        proof = merkle.consistency_proof(old, new, tree(entries))
        assert merkle.consistent(old, old_root, new, new_root, proof)
        fork = defined_root([*entries[: old - 1], b"forged"])
        assert not merkle.consistent(old, fork, new, new_root, proof)
        assert not merkle.consistent(old, old_root, new, bytes(32), proof)
        assert not merkle.consistent(old, old_root, new, new_root, [*proof, bytes(32)])
        if proof:
            assert not merkle.consistent(old, old_root, new, new_root, proof[:-1])


@given(st.integers(0, 10**15))
def test_paths_sort_into_folders_of_a_thousand(number: int) -> None:
    segments = path(number).split("/")
    assert all(segment.startswith("x") and len(segment) == 4 for segment in segments[:-1])
    assert int("".join(segments).replace("x", "")) == number


def test_tiles_prove_over_a_full_tile_and_are_rebuilt_where_one_is_missing(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path)
    entries = [str(n).encode() for n in range(530)]
    writer = Tiles(store)
    for index, entry in enumerate(entries):
        store.put(entry_key(index), entry)
        if index % 7 != 3:  # every seventh writer is killed before it stores its tile
            writer.store_edge(index + 1)
    for size in (1, 255, 256, 257, 512, 530):
        reader = Tiles(store)
        root = defined_root(entries[:size])
        assert reader.root(size) == root
        for index in {0, size // 2, size - 1}:
            proof = reader.inclusion_proof(index, size)
            assert merkle.includes(merkle.leaf_hash(entries[index]), index, size, proof, root)
    assert store.get("log/tile/1/000.p/2") == defined_root(entries[:256]) + defined_root(entries[256:512])


def remove(store: Path, *keys: str) -> None:
    for key in keys:
        (store / key).unlink()


def test_a_truncated_log_is_named_and_nothing_is_signed_on_it(
    evidence: Evidence, opened: Callable[..., Evidence]
) -> None:
    for _ in range(3):
        filed(evidence)
    store = evidence.settings.home / "evidence/store"
    remove(store, entry_key(2), checkpoint_key(3))
    with pytest.raises(PermanentError, match=r"waits in .*truncated: found no entry 2, seen were 3 entries"):
        filed(opened())
    assert not (store / checkpoint_key(3)).exists()
    audit = opened().audit(opened().trust())
    assert next(f.property for f in audit.findings if f.state == "failed") == "log"


def test_a_forked_log_is_named_and_nothing_is_signed_on_it(evidence: Evidence, opened: Callable[..., Evidence]) -> None:
    """Somebody with the store, not with this home, puts another history in place of the last entries."""
    for _ in range(2):
        filed(evidence)
    home = evidence.settings.home
    shutil.copytree(home, home.with_name("copy"))
    filed(opened())
    filed(opened("copy"))
    shutil.rmtree(home / "evidence/store")
    shutil.copytree(home.with_name("copy") / "evidence/store", home / "evidence/store")
    with pytest.raises(PermanentError, match="forked: its first 3 entries are not those seen before"):
        filed(opened())


def test_a_tile_that_lies_is_named(evidence: Evidence, opened: Callable[..., Evidence]) -> None:
    filed(evidence)
    tile = evidence.settings.home / "evidence/store/log/tile/0/000.p/1"
    tile.chmod(0o600)
    tile.write_bytes(bytes(32))
    with pytest.raises(PermanentError, match="forked"):
        filed(opened())


def test_a_log_whose_home_forgot_it_is_still_checked_against_its_checkpoint(
    evidence: Evidence, opened: Callable[..., Evidence]
) -> None:
    filed(evidence)
    (evidence.settings.home / "evidence/log-seen.txt").unlink()
    entry = evidence.settings.home / "evidence/store" / entry_key(0)
    entry.chmod(0o600)
    entry.write_bytes(entry.read_bytes().replace(b'"loggedAt":"2', b'"loggedAt":"1'))
    shutil.rmtree(evidence.settings.home / "evidence/store/log/tile")
    with pytest.raises(PermanentError, match="checkpoint 1 is not over the entries in the store"):
        filed(opened())


def archive_at(evidence: Evidence, moment: datetime) -> Archive:
    queue = Queue(evidence.settings.home / "evidence/queue")
    return Archive(evidence.store, queue, evidence.vouchers, lambda: None, now=lambda: moment)


def test_with_a_clock_set_back_nothing_is_signed_until_it_is_right_again(evidence: Evidence) -> None:
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    archive_at(evidence, noon).file("J4.2", "one", {}, {}, "passed")
    late = archive_at(evidence, noon - timedelta(seconds=61)).file("J4.2", "two", {}, {}, "failed")
    assert late.state == "queued"
    assert "clock shows 2026-05-01T11:58:59Z, the log's newest entry is of 2026-05-01T12:00:00Z" in late.detail
    assert evidence.log.size() == 1
    assert archive_at(evidence, noon - timedelta(seconds=59)).flush()[0].state == "filed"
    [statement] = [evidence.verify(late.id, evidence.trust()).statement]
    assert statement is not None
    assert statement.predicate.requested_at == "2026-05-01T11:58:59Z"
    assert statement.predicate.created_at == "2026-05-01T11:59:01Z"
    assert evidence.audit(evidence.trust()).ok


def git_remote(folder: Path) -> str:
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch", "main", str(folder)], check=True)
    return f"git+{folder}"


@pytest.mark.parametrize("kind", ["folder", "git"])
def test_checkpoints_reach_the_second_place_and_bundles_are_held_against_it(tmp_path: Path, kind: str) -> None:
    remote = git_remote(tmp_path / "remote.git") if kind == "git" else str(tmp_path / "second")
    evidence = Evidence(settings(tmp_path / "home", evidence_checkpoints=remote))
    bundles = [filed(evidence) for _ in range(3)]
    place = evidence.place
    assert place is not None
    origin = evidence.log.verifier.origin.rpartition("/")[2]
    assert place.read_all("checkpoints/") == tuple(f"checkpoints/{origin}/00000000000{n}.txt" for n in (1, 2, 3))
    copy = tmp_path / "second"
    if kind == "git":
        subprocess.run(["git", "clone", "--quiet", str(tmp_path / "remote.git"), str(copy)], check=True)
    for bundle in bundles:
        assert evidence.verify(bundle, evidence.trust(checkpoints=copy)).ok
    assert evidence.audit(evidence.trust()).ok
    (copy / f"checkpoints/{origin}/000000000002.txt").unlink()
    assert evidence.verify(bundles[1], evidence.trust(checkpoints=copy)).failed == ["checkpoint published"]


def test_two_homes_publish_to_one_git_remote(tmp_path: Path) -> None:
    remote = git_remote(tmp_path / "remote.git")
    store = str(tmp_path / "store")
    one = Evidence(settings(tmp_path / "one", evidence_checkpoints=remote, evidence_url=store))
    filed(one)
    shutil.copytree(tmp_path / "one/keys", tmp_path / "two/keys")
    two = Evidence(settings(tmp_path / "two", evidence_checkpoints=remote, evidence_url=store))
    for evidence in (two, one, two):
        filed(evidence)
    assert one.audit(one.trust()).ok
    assert one.place is not None
    assert [name[-5] for name in one.place.read_all("checkpoints/")] == ["1", "2", "3", "4"]


def test_a_second_place_that_is_away_gets_its_checkpoints_later(tmp_path: Path) -> None:
    evidence = Evidence(settings(tmp_path / "home", evidence_checkpoints=f"git+{tmp_path / 'remote.git'}"))
    receipt = evidence.archive.file("J4.2", "drill", {}, {}, "passed")
    assert receipt.state == "filed"
    assert "not published yet: git fetch" in receipt.detail
    git_remote(tmp_path / "remote.git")
    assert evidence.archive.flush() == []
    assert evidence.place is not None
    assert len(evidence.place.read_all("checkpoints/")) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda note: note.unlink(), "is gone"),
        (lambda note: note.write_text(note.read_text().replace("\n1\n", "\n2\n")), "another one"),
    ],
)
def test_a_published_checkpoint_that_changed_is_named(
    tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    evidence = Evidence(settings(tmp_path / "home", evidence_checkpoints=str(tmp_path / "second")))
    filed(evidence)
    [note] = (tmp_path / "second/checkpoints").rglob("*.txt")
    note.chmod(0o600)
    change(note)
    with pytest.raises(PermanentError, match=f"is filed, its checkpoint is not published: .*{said}"):
        filed(evidence)


def test_a_log_cut_together_with_the_homes_memory_is_caught_by_the_second_place(tmp_path: Path) -> None:
    evidence = Evidence(settings(tmp_path / "home", evidence_checkpoints=str(tmp_path / "second")))
    for _ in range(2):
        filed(evidence)
    remove(tmp_path / "home/evidence", "log-seen.txt", "published-size.txt")
    remove(tmp_path / "home/evidence/store", entry_key(1), checkpoint_key(2))
    again = Evidence(settings(tmp_path / "home", evidence_checkpoints=str(tmp_path / "second")))
    with pytest.raises(PermanentError, match=r"truncated: found 1 entries, the published checkpoint .* is over 2"):
        filed(again)
    assert [f.property for f in again.audit(again.trust()).findings if f.state == "failed"] == [
        "bundles",
        "checkpoints published",
    ]


def test_an_audit_names_a_bundle_that_is_gone_replayed_or_broken(
    evidence: Evidence, opened: Callable[..., Evidence]
) -> None:
    one, two = filed(evidence, "one"), filed(evidence, "two")
    store = evidence.settings.home / "evidence/store"
    paths = {name: next(store.rglob(f"{name}.tar")) for name in (one, two)}
    good = paths[two].read_bytes()
    paths[two].chmod(0o600)

    def said() -> str:
        return next(f.detail for f in opened().audit(opened().trust()).findings if f.property == "bundles")

    assert said() == "2 bundles verified"
    paths[two].write_bytes(paths[one].read_bytes())
    assert "another bundle replayed" in said()
    report = evidence.verify(two, evidence.trust())
    assert report.failed == ["identity"]
    paths[two].write_bytes(good[:-1])
    assert said().startswith(f"{two}: layout: ")
    paths[two].unlink()
    assert said() == f"{two} is logged, and not in the store"
    paths[two].write_bytes(good)
    paths[two].with_name("20260101T000000Z-0000000000000000.tar").write_bytes(good)
    assert said() == "20260101T000000Z-0000000000000000 is in the store, and not logged"


def test_an_audit_names_what_does_not_belong_into_the_store(evidence: Evidence) -> None:
    filed(evidence)
    evidence.store.put("bundles/notes.txt", b"hello")
    evidence.store.put("log/checkpoint/latest", b"hello")
    failed = {f.property: f.detail for f in evidence.audit(evidence.trust()).findings if f.state == "failed"}
    assert failed["bundles"] == "notes.txt is in the store, and not logged"
    assert "latest" in failed["log"]
