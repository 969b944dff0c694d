"""The write ledger and the event log: on disk when told so, whole after a kill, and never silent about a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.errors import PermanentError, TransientError
from greenops_pipelines.recovery import events, ledger
from greenops_pipelines.recovery.events import Events
from greenops_pipelines.recovery.ledger import Ledger, Outcome, Write

ROOT = Path(__file__).parents[2]


def put(book: Ledger, number: int, outcome: Outcome = "ok", region: str | None = "eu", detail: str = "") -> None:
    """A write that was begun at `number` seconds and answered half a second later."""
    book.begin(number, "client-1", f"digest-{number}", float(number))
    book.end(number, outcome, number + 0.5, region, detail)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_write_comes_back_as_it_was_noted(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as book:
        put(book, 3, "fail", None, "duplicate key")
        put(book, 1)
        put(book, 2, "in doubt", None, "no answer within 2 s")
    assert ledger.read(tmp_path / "ledger") == [
        Write(1, "client-1", "digest-1", 1.0, 1.5, "ok", "eu", ""),
        Write(2, "client-1", "digest-2", 2.0, 2.5, "in doubt", None, "no answer within 2 s"),
        Write(3, "client-1", "digest-3", 3.0, 3.5, "fail", None, "duplicate key"),
    ]


def test_a_write_without_an_end_is_in_doubt(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as book:
        book.begin(1, "client-1", "digest-1", 1.0)
    assert ledger.read(tmp_path / "ledger") == [
        Write(1, "client-1", "digest-1", 1.0, None, "in doubt", None, "no end was recorded")
    ]


def test_details_may_hold_any_text(tmp_path: Path) -> None:
    detail = 'line one\nline two\r\n"quoted" \u2028 \x00 naïve \U0001f600'
    with Ledger(tmp_path / "ledger") as book:
        put(book, 1, "fail", None, detail)
        put(book, 2)
    assert [write.detail for write in ledger.read(tmp_path / "ledger")] == [detail, ""]


def test_a_ledger_is_of_one_drill(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger"), pytest.raises(FileExistsError):
        Ledger(tmp_path / "ledger")


def test_no_ledger_has_no_writes(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "none") == []
    (tmp_path / "empty").touch()
    assert ledger.read(tmp_path / "empty") == []


def test_only_its_owner_may_read_a_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger"):
        assert (tmp_path / "ledger").stat().st_mode & 0o777 == 0o600


# On disk


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of the file at the end of each fdatasync: what a power cut would leave."""
    sizes: list[int] = []
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        real(descriptor)
        sizes.append(size)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return sizes


def test_each_line_is_on_disk_when_the_call_returns(tmp_path: Path, synced: list[int]) -> None:
    path = tmp_path / "ledger"
    with Ledger(path) as book:
        book.begin(1, "client-1", "digest-1", 1.25)
        assert lines(path) == [{"id": 1, "writer": "client-1", "sha256": "digest-1", "begun": 1.25}]
        assert synced == [path.stat().st_size]
        book.end(1, "ok", 1.5, "eu")
        assert lines(path)[1:] == [{"id": 1, "ended": 1.5, "outcome": "ok", "region": "eu"}]
        assert synced[1:] == [path.stat().st_size]


def test_no_thread_returns_before_its_line_is_on_disk(tmp_path: Path, synced: list[int]) -> None:
    path = tmp_path / "ledger"
    late: list[int] = []

    def write(first: int) -> None:
        for number in range(first, first + 25):
            book.begin(number, "w", "d", 0.0)
            on_disk = path.read_bytes()[: max(synced)]
            if f'"id":{number},'.encode() not in on_disk:
                late.append(number)

    with Ledger(path) as book:
        run([partial(write, first) for first in range(1000, 9000, 1000)])
    assert late == []
    assert len(ledger.read(path)) == 200


def run(actions: list[Callable[[], object]]) -> None:
    """All at once, each in a thread."""
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_writers_that_come_together_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, free, calls = os.fdatasync, threading.Event(), list[int]()

    def slow(descriptor: int) -> None:
        calls.append(descriptor)
        free.wait(10)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    with Ledger(tmp_path / "ledger") as book:
        threads = [threading.Thread(target=book.begin, args=(n, "w", "d", 0.0)) for n in range(20)]
        threads[0].start()
        until(lambda: len(calls) == 1)
        for thread in threads[1:]:
            thread.start()
        time.sleep(0.2)
        free.set()
        for thread in threads:
            thread.join(10)
    assert len(calls) <= 3
    assert [write.id for write in ledger.read(tmp_path / "ledger")] == list(range(20))


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_writers_at_once_lose_nothing_and_each_begins_before_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "ledger"

    def write(first: int) -> None:
        for number in range(first, first + 50):
            put(book, number)

    with Ledger(path) as book:
        run([partial(write, first) for first in range(0, 800, 50)])
    assert [write.id for write in ledger.read(path)] == list(range(800))
    assert {write.outcome for write in ledger.read(path)} == {"ok"}
    kinds: dict[int, list[str]] = {}
    for line in lines(path):
        kinds.setdefault(line["id"], []).append("end" if "outcome" in line else "begin")
    assert set(map(tuple, kinds.values())) == {("begin", "end")}


def test_an_interrupted_fsync_confirms_no_line_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe writes in the main thread, which Ctrl-C interrupts while it syncs for the clients too."""
    path, real = tmp_path / "ledger", os.write
    first, waiting, done = threading.Event(), threading.Event(), set[int]()
    calls = 0

    def interrupted(descriptor: int, data: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            first.set()
            waiting.wait(10)
        if calls == 2:
            raise KeyboardInterrupt
        return real(descriptor, data)

    def begin(number: int) -> None:
        with contextlib.suppress(KeyboardInterrupt, PermanentError, TransientError):
            book.begin(number, "w", "d", 0.0)
            done.add(number)

    with Ledger(path) as book:
        monkeypatch.setattr(os, "write", interrupted)
        threads = [threading.Thread(target=begin, args=(number,), daemon=True) for number in (1, 2, 3)]
        threads[0].start()
        assert first.wait(10)
        for thread in threads[1:]:
            thread.start()
        time.sleep(0.1)
        waiting.set()
        threads[0].join(10)
        time.sleep(0.1)
        begin(4)
        for thread in threads:
            thread.join(2)
        stuck = [thread for thread in threads if thread.is_alive()]
    assert stuck == []
    assert done <= {write.id for write in ledger.read(path)}


# Cut off


WRITES = st.lists(
    st.tuples(
        st.sampled_from(["ok", "fail", "in doubt", None]),
        st.floats(0, 1e4, allow_nan=False),
        st.text(max_size=6),
    ),
    max_size=3,
)


@settings(max_examples=15)
@given(WRITES)
def test_a_last_line_that_was_cut_off_anywhere_is_ignored(writes: list[tuple[Outcome | None, float, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger"
        after: dict[int, list[Write]] = {0: []}
        """Length of the file -> the writes it holds."""
        with Ledger(path) as book:
            for number, (outcome, at, detail) in enumerate(writes):
                book.begin(number, "client-1", "d", at)
                after[path.stat().st_size] = ledger.read(path)
                if outcome is not None:
                    book.end(number, outcome, at + 1, None, detail)
                    after[path.stat().st_size] = ledger.read(path)
        content = path.read_bytes()
        assert len(after[len(content)]) == len(writes)
        cut = Path(folder) / "cut"
        for length in range(len(content) + 1):
            cut.write_bytes(content[:length])
            whole = max(size for size in after if size <= length)
            assert ledger.read(cut) == after[whole]


def test_a_log_that_was_cut_off_anywhere_has_its_whole_lines(tmp_path: Path) -> None:
    log = Events(tmp_path / "log")
    for number in range(3):
        log.add("probe", number=number, detail="naïve\n")
    log.close()
    content = (tmp_path / "log").read_bytes()
    for length in range(len(content) + 1):
        (tmp_path / "cut").write_bytes(content[:length])
        assert [e["number"] for e in events.read(tmp_path / "cut")] == list(range(content[:length].count(b"\n")))


# A full disk


def fill(path: Path) -> None:
    """From here on, what this process has open as `path` is a disk without room."""
    full = os.open("/dev/full", os.O_WRONLY)
    [descriptor] = [int(p.name) for p in Path("/proc/self/fd").iterdir() if p.is_symlink() and p.readlink() == path]
    os.dup2(full, descriptor)
    os.close(full)


def test_a_full_disk_is_an_error_that_may_pass(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with Ledger(path) as book:
        put(book, 1)
        fill(path)
        expected = rf"^{path}: the write ledger cannot be kept: No space left on device; free some room$"
        with pytest.raises(TransientError, match=expected):
            book.begin(2, "client-1", "digest-2", 2.0)
        # And it stays one: whatever was written after a gap could not be relied on.
        with pytest.raises(TransientError, match=expected):
            book.begin(3, "client-1", "digest-3", 3.0)
    assert [write.id for write in ledger.read(path)] == [1]


def test_every_thread_hears_of_a_full_disk(tmp_path: Path) -> None:
    path, errors = tmp_path / "ledger", list[str]()

    def write(number: int) -> None:
        try:
            book.begin(number, "w", "d", 0.0)
        except TransientError as error:
            errors.append(str(error))

    with Ledger(path) as book:
        fill(path)
        run([partial(write, number) for number in range(12)])
    assert len(errors) == 12


def test_a_full_disk_stops_the_event_log(tmp_path: Path) -> None:
    log = Events(Path("/dev/full"))
    with pytest.raises(TransientError, match=r"^/dev/full: the drill's log cannot be kept: No space left on device; "):
        log.add("begin", step="fence")
    log.close()


LIMITED = """
import resource, sys
from pathlib import Path
from greenops_pipelines.recovery.events import Events
from greenops_pipelines.recovery.ledger import Ledger

path, limit = Path(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
book = Ledger(path) if sys.argv[1] == "ledger" else Events(path)
number = 0
try:
    while number < 100:
        if sys.argv[1] == "ledger":
            book.begin(number, "client-1", "d", 1.0)
        else:
            book.add("probe", number=number)
        number += 1
except Exception as error:
    print(number, type(error).__name__, error)
else:
    print(number, "no error")
"""


def limited(kind: str, path: Path, limit: int) -> tuple[int, str]:
    """How many lines a process reported as done before its file reached the limit, and what it said then."""
    command = [sys.executable, "-c", LIMITED, kind, str(path), str(limit)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    number, _, said = done.stdout.strip().partition(" ")
    return int(number), said


def test_a_ledger_at_its_limit_says_so_and_has_what_it_confirmed(tmp_path: Path) -> None:
    # A line of the first ten has 54 bytes, and the others 55.
    path = tmp_path / "ledger"
    number, said = limited("ledger", path, 54 * 10 + 55 * 4 + 20)
    assert said == f"PermanentError {path}: the write ledger cannot be kept: File too large; free some room"
    assert number == 14
    assert path.stat().st_size == 54 * 10 + 55 * 4 + 20
    assert [write.id for write in ledger.read(path)] == list(range(14))


def test_an_event_log_at_its_limit_says_so_and_has_what_it_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    number, said = limited("events", path, 1000)
    assert said == f"PermanentError {path}: the drill's log cannot be kept: File too large; free some room"
    assert [event["number"] for event in events.read(path)] == list(range(number))


def test_an_event_log_stays_readable_after_a_disk_that_was_full_for_a_while(tmp_path: Path) -> None:
    """A step that found no room fails, and with room again the drill writes down how it ended."""
    path = tmp_path / "log"
    program = """
import resource, sys
from pathlib import Path
from greenops_pipelines.errors import GreenopsError
from greenops_pipelines.recovery.events import Events
log = Events(Path(sys.argv[1]))
log.add("begin", step="check")
size = Path(sys.argv[1]).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, resource.RLIM_INFINITY))
try:
    log.add("end", step="check")
except GreenopsError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    log.add("done")
except GreenopsError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "cannot be kept: File too large" in done.stdout
    assert events.read(path)[0]["event"] == "begin"


# A killed writer


WRITER = """
import os, sys, threading
from pathlib import Path
from greenops_pipelines.recovery.events import Events
from greenops_pipelines.recovery.ledger import Ledger

folder = Path(sys.argv[1])
book, log = Ledger(folder / "ledger"), Events(folder / "log")

def run(first):
    for number in range(first, first + 100_000):
        book.begin(number, "client", "d", 1.0)
        book.end(number, "ok", 2.0, "eu")
        log.add("probe", number=number)
        os.write(1, b"%d\\n" % number)

for first in range(0, 600_000, 100_000):
    threading.Thread(target=run, args=(first,)).start()
"""


def test_a_killed_process_leaves_everything_that_it_reported_as_done(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        reported = [process.stdout.readline() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        reported += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    done = {int(line) for line in reported if line.endswith(b"\n")}
    assert len(done) >= 300
    found = {write.id: write for write in ledger.read(tmp_path / "ledger")}
    assert {number for number in done if number not in found or found[number].outcome != "ok"} == set()
    assert done - {event["number"] for event in events.read(tmp_path / "log")} == set()
    # What the kill caught on its way is in doubt, one write of each thread at most.
    assert len([write for write in found.values() if write.outcome == "in doubt"]) <= 6


# Events


def test_a_step_is_written_down_before_it_is_taken_and_after_it(tmp_path: Path) -> None:
    log = Events(tmp_path / "log")
    with log.step("fence", region="eu") as step:
        [begun] = events.read(tmp_path / "log")
        log.ran("pg_ctl stop", 0.12345, "eu")
        step.notes["sessions"] = 3
    log.close()
    assert (begun["event"], begun["step"], begun["region"]) == ("begin", "fence", "eu")
    [_, ended] = events.read(tmp_path / "log")
    assert (ended["event"], ended["step"], ended["sessions"]) == ("end", "fence", 3)
    assert ended["commands"] == [{"command": "pg_ctl stop", "where": "eu", "seconds": 0.123}]
    assert ended["seconds"] == pytest.approx(ended["t"] - begun["t"], abs=0.05)


def test_a_step_that_fails_is_written_down_with_its_error_and_its_commands(tmp_path: Path) -> None:
    log = Events(tmp_path / "log")

    def promote() -> None:
        with log.step("promote") as step:
            log.ran("pg_promote", 1.0, "us")
            step.notes["tries"] = 2
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        promote()
    log.close()
    [_, failed] = events.read(tmp_path / "log")
    assert (failed["event"], failed["step"], failed["error"], failed["tries"]) == (
        "failed",
        "promote",
        "ValueError: no",
        2,
    )
    assert [each["command"] for each in failed["commands"]] == ["pg_promote"]


def test_a_command_belongs_to_the_innermost_step(tmp_path: Path) -> None:
    log = Events(tmp_path / "log")
    log.ran("before any step", 0.0, "here")
    with log.step("outer"):
        with log.step("inner"):
            log.ran("in inner", 0.0, "here")
        log.ran("in outer", 0.0, "here")
    log.close()
    found = {e["step"]: [c["command"] for c in e["commands"]] for e in events.read(tmp_path / "log") if "commands" in e}
    assert found == {"inner": ["in inner"], "outer": ["in outer"]}


def test_times_of_events_are_seconds_since_the_log_was_opened(tmp_path: Path) -> None:
    log = Events(tmp_path / "log")
    time.sleep(0.05)
    first, second = log.add("one"), log.add("two")
    assert 0.05 <= first < second <= log.clock
    log.close()
    assert [event["t"] for event in events.read(tmp_path / "log")] == [round(first, 6), round(second, 6)]
    assert abs(log.clock_moved) < 0.05


def test_each_event_is_on_disk_when_the_call_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    log = Events(tmp_path / "log")
    for _ in range(3):
        log.add("probe")
        assert sizes[-1] == (tmp_path / "log").stat().st_size
    log.close()
    assert len(sizes) == 3


def test_threads_that_log_at_once_lose_no_event(tmp_path: Path) -> None:
    log = Events(tmp_path / "log")

    def add(first: int) -> None:
        for number in range(first, first + 40):
            log.add("probe", number=number)

    run([partial(add, first) for first in range(0, 400, 40)])
    log.close()
    assert sorted(event["number"] for event in events.read(tmp_path / "log")) == list(range(400))


def test_a_log_that_is_opened_again_is_continued(tmp_path: Path) -> None:
    for name in ("one", "two"):
        log = Events(tmp_path / "log")
        log.add(name)
        log.close()
    assert [event["event"] for event in events.read(tmp_path / "log")] == ["one", "two"]
