"""kill -9 at every kind of step, two writers at once, a store that fails at every call: whole afterwards, none half."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.errors import ObjectExists, ObjectMissing, TransientError
from greenops_pipelines.evidence.archive import Archive
from greenops_pipelines.evidence.log import Log
from greenops_pipelines.evidence.opening import Evidence
from greenops_pipelines.evidence.queue import Queue
from greenops_pipelines.store.local import LocalObjectStore
from tests.evidence.conftest import filed, settings

FILER = Path(__file__).with_name("filer.py")


def filer(home: Path, count: int, kill_at: int = 0, gpg: str = "off", **extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(FILER), str(home), str(count), str(kill_at), gpg, json.dumps(extra)]
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )


def said(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), err
    return out.splitlines()


def assert_whole(evidence: Evidence, acknowledged: list[str]) -> None:
    """The log is whole, each filed bundle verifies, nothing waits, and nothing that was acknowledged is missing."""
    assert [receipt.detail for receipt in evidence.archive.flush() if receipt.state != "filed"] == []
    found = evidence.audit(evidence.trust())
    assert found.ok, found.findings
    assert found.entries == found.bundles
    assert evidence.archive.waiting() == []
    queue = evidence.settings.home / "evidence" / "queue"
    assert not queue.exists() or list(queue.iterdir()) == []
    assert set(acknowledged) <= set(evidence.archive.ids())


def test_kill_9_at_steps_all_over_a_filing_leaves_the_log_whole_and_no_bundle_half(tmp_path: Path) -> None:
    home = tmp_path / "home"
    second = str(tmp_path / "second")
    acknowledged = said(filer(home, 2, evidence_checkpoints=second))
    steps = int(acknowledged.pop().split()[1])
    points = [max(1, round(steps * n / 24)) for n in range(1, 25)]
    waited = 0
    for point in points:
        process = filer(home, 2, kill_at=point, evidence_checkpoints=second)
        acknowledged += [line for line in said(process) if not line.startswith("steps")]
        evidence = Evidence(settings(home, evidence_checkpoints=second))
        waited += len(evidence.archive.waiting())
    assert waited > 10
    assert_whole(Evidence(settings(home, evidence_checkpoints=second)), acknowledged)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed (Debian: gnupg)")
def test_kill_9_at_any_time_with_gpg_leaves_no_half_bundle(tmp_path: Path) -> None:
    home = tmp_path / "home"
    acknowledged = [line for line in said(filer(home, 1, gpg="required")) if not line.startswith("steps")]
    for number in range(20):
        process = filer(home, 50, gpg="required")
        assert process.stdout is not None
        acknowledged.append(process.stdout.readline().strip())
        time.sleep(0.012 * number)
        process.kill()
        acknowledged += said(process)
    evidence = Evidence(settings(home, evidence_gpg="required"))
    assert_whole(evidence, acknowledged)


@pytest.mark.parametrize("shared_home", [True, False])
def test_two_writers_append_to_one_log(tmp_path: Path, shared_home: bool) -> None:
    one = tmp_path / "one"
    two = one if shared_home else tmp_path / "two"
    store = str(tmp_path / "store")
    Evidence(settings(one, evidence_url=store)).vouchers()
    if not shared_home:
        shutil.copytree(one / "keys", two / "keys")
    writers = [filer(home, 15, evidence_url=store) for home in (one, two)]
    if shared_home:
        audited = Evidence(settings(one, evidence_url=store))
        while any(writer.poll() is None for writer in writers):
            found = audited.audit(audited.trust())
            assert found.ok, found.findings
    acknowledged = [line for writer in writers for line in said(writer) if not line.startswith("steps")]
    assert len(acknowledged) == 30
    for home in (one, two):
        assert_whole(Evidence(settings(home, evidence_url=store)), acknowledged)
    assert len(Evidence(settings(one, evidence_url=store)).archive.ids()) == 30


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed (Debian: gnupg)")
def test_two_writers_of_one_home_share_the_gpg_key(tmp_path: Path) -> None:
    writers = [filer(tmp_path / "home", 5, gpg="required") for _ in range(2)]
    acknowledged = [line for writer in writers for line in said(writer) if not line.startswith("steps")]
    assert len(acknowledged) == 10
    assert_whole(Evidence(settings(tmp_path / "home", evidence_gpg="required")), acknowledged)


def test_a_second_writer_with_a_key_of_its_own_is_refused(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    filed(Evidence(settings(tmp_path / "one", evidence_url=store)))
    with pytest.raises(Exception, match="two writers of one log need the same keys/log\\.key"):
        filed(Evidence(settings(tmp_path / "two", evidence_url=store)))
    assert_whole(Evidence(settings(tmp_path / "one", evidence_url=store)), [])


class FailingStore:
    """A store that is away at one call: before the call, or after it took effect and before its answer arrived."""

    def __init__(self, store: LocalObjectStore, fail_at: int, after: bool) -> None:
        self._store = store
        self._fail_at = fail_at
        self._after = after
        self.calls = 0

    def _call(self, action: Callable[..., Any], *args: Any) -> Any:
        self.calls += 1
        if self.calls != self._fail_at:
            return action(*args)
        if self._after:
            with suppress(ObjectExists, ObjectMissing):
                action(*args)
        raise TransientError("no answer from the store")

    def put(self, key: str, data: bytes) -> None:
        self._call(self._store.put, key, data)

    def get(self, key: str) -> bytes:
        found: bytes = self._call(self._store.get, key)
        return found

    def exists(self, key: str) -> bool:
        found: bool = self._call(self._store.exists, key)
        return found

    def list(self, prefix: str = "") -> tuple[str, ...]:
        found: tuple[str, ...] = self._call(self._store.list, prefix)
        return found


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_store_that_fails_at_any_call_of_a_filing_gets_the_bundle_later_and_once(tmp_path: Path, after: bool) -> None:
    home = tmp_path / "home"
    evidence = Evidence(settings(home))
    filed(evidence)
    queued = []
    for fail_at in range(1, 100):
        store = FailingStore(LocalObjectStore(home / "evidence" / "store"), fail_at, after)
        log = Log(store, evidence.keys.log_key(), home / "evidence" / "log-seen.txt")
        vouchers = Evidence(settings(home))
        vars(vouchers).update(store=store, log=log)
        archive = Archive(store, Queue(home / "evidence" / "queue"), vouchers.vouchers, lambda: None)
        receipt = archive.file("J4.2", f"failing at {fail_at}", {}, {"a": b"a"}, "failed")
        if store.calls < fail_at:
            break
        assert receipt.state == "queued"
        queued.append(receipt.id)
        assert [r.state for r in Evidence(settings(home)).archive.flush()] == ["filed"]
    assert len(queued) > 8
    assert_whole(Evidence(settings(home)), queued)
    assert len(Evidence(settings(home)).archive.ids()) == len(queued) + 2


def test_a_good_filing_takes_waiting_bundles_along(tmp_path: Path) -> None:
    home = tmp_path / "home"
    filed(Evidence(settings(home)))
    said(filer(home, 1, kill_at=30))
    waiting = Evidence(settings(home)).archive.waiting()
    assert len(waiting) == 1
    filed(Evidence(settings(home)))
    assert_whole(Evidence(settings(home)), waiting)
