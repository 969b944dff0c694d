"""Real programs, really killed. `processes_of` finds them by a mark in their arguments, whoever their parent is."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from greenops_pipelines.errors import ConfigurationError, PermanentError, TransientError
from greenops_pipelines.process import ports
from greenops_pipelines.process.child import Child, base_environment

# A grandchild, and a daemon that left the session and whose parent is gone. Every process carries the mark in its
# arguments, and touches a file named after its role once it is up.
TREE = """
import os, pathlib, signal, subprocess, sys
source, mark, folder, manners, role = sys.argv[1:6]
if manners == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
def start(role, **options):
    return subprocess.Popen([sys.executable, "-c", source, source, mark, folder, manners, role], **options)
if role == "program":
    start("grandchild")
    start("launcher", start_new_session=True).wait()
elif role == "launcher":
    start("daemon", start_new_session=True)
    os._exit(0)
pathlib.Path(folder, role).touch()
while True:
    signal.pause()
"""


def eventually(true: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def processes_of(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in process.cmdline():
                found.append(process)
    return found


@pytest.fixture
def mark() -> Iterator[str]:
    mark = f"mark-{uuid.uuid4().hex}"
    yield mark
    for process in processes_of(mark):
        with contextlib.suppress(psutil.Error):
            process.kill()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "child.log"


def shell(script: str, log: Path, **options: object) -> Child:
    return Child.start(["sh", "-c", script], log=log, **options)  # type: ignore[arg-type]


def tree(folder: Path, mark: str, manners: str) -> list[str]:
    return [sys.executable, "-c", TREE, TREE, mark, str(folder), manners, "program"]


def tree_is_up(folder: Path) -> bool:
    return all((folder / role).exists() for role in ("program", "grandchild", "daemon"))


def test_the_whole_tree_ends_with_the_block_and_nothing_is_left_to_reap(tmp_path: Path, log: Path, mark: str) -> None:
    with Child.start(tree(tmp_path, mark, "polite"), log=log) as child:
        child.wait_until(lambda: tree_is_up(tmp_path), 20)
        # The supervisor's arguments carry the mark too.
        assert len(processes_of(mark)) == 4
        assert psutil.Process(child.pid).cmdline()[0] == sys.executable
    assert processes_of(mark) == []
    assert not psutil.pid_exists(child.pid)
    assert child.exit_code == 128 + signal.SIGTERM
    assert [p for p in psutil.Process().children() if p.status() == psutil.STATUS_ZOMBIE] == []


def test_what_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path, log: Path, mark: str) -> None:
    with Child.start(tree(tmp_path, mark, "stubborn"), log=log, grace_seconds=0.5) as child:
        child.wait_until(lambda: tree_is_up(tmp_path), 20)
        started = time.monotonic()
    assert 0.5 <= time.monotonic() - started < 5
    assert processes_of(mark) == []
    assert child.exit_code == 128 + signal.SIGKILL


def test_a_stopped_program_still_ends_in_good_order(tmp_path: Path, log: Path) -> None:
    script = f"trap 'echo tidied up; exit 7' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done"
    with shell(script, log) as child:
        child.wait_until((tmp_path / "up").exists, 10)
        child.send_signal(signal.SIGSTOP)
        assert eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
    assert child.exit_code == 7
    # The shell may first say that its `sleep` was terminated.
    assert child.tail(1) == "tidied up"


def test_an_order_to_stop_said_again_and_again_does_not_hide_how_the_program_ended(tmp_path: Path, log: Path) -> None:
    with shell(f"trap 'exit 7' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done", log) as child:
        child.wait_until((tmp_path / "up").exists, 10)
        guard = psutil.Process(child.pid).parent()
        while child.running:
            guard.send_signal(signal.SIGTERM)
    assert child.exit_code == 7


PARENT = """
import os, pathlib, signal, sys
from greenops_pipelines.process.child import Child
child = Child.start(sys.argv[3:], log=pathlib.Path(sys.argv[1]), grace_seconds=0.2)
if sys.argv[2] == "forks" and os.fork() == 0:
    # Holds all of its parent's pipes open and outlives it.
    pathlib.Path(sys.argv[1] + ".fork").write_text(str(os.getpid()))
while True:
    signal.pause()
"""


@pytest.mark.parametrize("manners", ["polite", "stubborn"])
@pytest.mark.parametrize("habit", ["alone", "forks"])
def test_the_whole_tree_ends_when_the_parent_is_killed(
    tmp_path: Path, log: Path, mark: str, manners: str, habit: str
) -> None:
    note = Path(f"{log}.fork")
    command = [sys.executable, "-c", PARENT, str(log), habit, *tree(tmp_path, mark, manners)]
    with subprocess.Popen(command) as parent:
        try:
            assert eventually(
                lambda: tree_is_up(tmp_path) and (habit == "alone" or (note.exists() and note.read_text()))
            )
        finally:
            parent.send_signal(signal.SIGKILL)
    assert parent.returncode == -signal.SIGKILL
    forked = [psutil.Process(int(note.read_text()))] if habit == "forks" else []
    assert eventually(lambda: processes_of(mark) == forked), processes_of(mark)


def test_a_forked_copy_of_the_parent_does_not_keep_the_program_alive(log: Path) -> None:
    with shell("exec sleep 60", log) as child:
        pipe = child._supervisor.stdin
        assert pipe is not None
        copy = os.dup(pipe.fileno())
        started = time.monotonic()
    os.close(copy)
    assert time.monotonic() - started < 5
    assert child.exit_code == 128 + signal.SIGTERM


def test_the_program_outlives_the_thread_that_started_it(log: Path) -> None:
    children: list[Child] = []
    thread = threading.Thread(target=lambda: children.append(shell("sleep 60", log)))
    thread.start()
    thread.join()
    with children[0] as child:
        # A parent-death signal would arrive with the thread's end, long before half a second is over.
        with pytest.raises(TransientError):
            child.wait(0.5)
        assert child.running


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_killing_the_supervisor_ends_the_tree_too(tmp_path: Path, log: Path, mark: str) -> None:
    with shell(f"sh -c 'sleep 300; :' {mark} & touch {tmp_path}/up; wait", log) as child:
        child.wait_until((tmp_path / "up").exists, 10)
        supervisor = psutil.Process(child.pid).parent()
        assert supervisor is not None
        supervisor.kill()
        assert eventually(lambda: not child.running)
        assert eventually(lambda: not psutil.pid_exists(child.pid))
        assert len(processes_of(mark)) == 1
        assert child.terminate() == 128 + signal.SIGKILL
    assert eventually(lambda: processes_of(mark) == [])


def test_a_hanging_supervisor_is_ended_from_outside(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenops_pipelines.process.child._GUARD_MARGIN_SECONDS", 0.1)
    with shell("sleep 300", log, grace_seconds=0.1) as child:
        supervisor = psutil.Process(child.pid).parent()
        assert supervisor is not None
        supervisor.send_signal(signal.SIGSTOP)
    assert not supervisor.is_running()
    assert eventually(lambda: not psutil.pid_exists(child.pid))


def test_an_early_death_is_told_at_once_with_the_end_of_the_log(log: Path) -> None:
    script = "for n in $(seq 1 30); do echo line $n; done; echo 'port in use' >&2; exit 3"
    started = time.monotonic()
    with shell(script, log) as child, pytest.raises(PermanentError) as refusal:
        child.wait_until(lambda: False, 60)
    assert time.monotonic() - started < 10
    first, *tail = str(refusal.value).splitlines()
    assert first == f"sh: exited with 3 before it was ready; its log {log} ends:"
    assert tail == [f"line {n}" for n in range(12, 31)] + ["port in use"]


def test_an_answer_by_someone_else_does_not_count_once_the_program_is_dead(log: Path) -> None:
    with shell("exit 1", log) as child, pytest.raises(PermanentError, match="exited with 1"):
        # True only after the program has ended: as when another server holds the port.
        child.wait_until(lambda: eventually(lambda: not child.running), 30)


def test_not_ready_in_time_leaves_the_program_running_and_shows_the_log(log: Path) -> None:
    with shell("echo still warming up; exec sleep 60", log) as child:
        assert eventually(lambda: child.tail() == "still warming up")
        with pytest.raises(TransientError, match=r"sh: not ready after 0\.2 s;.*ends:\nstill warming up"):
            child.wait_until(lambda: False, 0.2)
        assert child.running
        assert child.exit_code is None


def test_what_the_program_leaves_behind_when_it_exits_is_ended(log: Path, mark: str) -> None:
    with shell(f"sh -c 'sleep 300; :' {mark} & exit 4", log) as child:
        assert child.wait(10) == 4
        assert processes_of(mark) == []


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_exit_codes_are_a_shells(log: Path, script: str, code: int) -> None:
    with shell(script, log) as child:
        assert child.wait(10) == code
        assert (child.running, child.exit_code) == (False, code)
        child.send_signal(signal.SIGTERM)
        assert child.terminate() == code


def test_a_missing_program_is_named_with_what_to_install(log: Path, tmp_path: Path) -> None:
    expected = "prometheus-of-nowhere: found no such program on PATH; install the Debian package prometheus"
    with pytest.raises(ConfigurationError) as refusal:
        Child.start(["prometheus-of-nowhere"], log=log, install="the Debian package prometheus")
    assert str(refusal.value) == expected
    with pytest.raises(ConfigurationError, match=r"found no such program$"):
        Child.start([tmp_path / "absent"], log=log)


def test_what_cannot_be_run_is_told(log: Path, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("echo no interpreter line\n")
    (tmp_path / "script").chmod(0o755)
    with pytest.raises(ConfigurationError, match="could not be run: it is no program for this machine"):
        Child.start([tmp_path / "script"], log=log)
    with pytest.raises(ConfigurationError, match=r"sh: found no folder .*absent to run in"):
        shell(":", log, cwd=tmp_path / "absent")


def test_only_the_named_environment_reaches_the_program(
    log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GREENOPS_CARBON_TOKEN", "of-the-parent")
    with shell("pwd; echo ${GREENOPS_CARBON_TOKEN:-none}", log, cwd=tmp_path) as child:
        child.wait(10)
    assert child.tail() == f"{tmp_path}\nnone"
    with shell("echo $PGPASSWORD", log, env={**base_environment(), "PGPASSWORD": "hunter2"}) as child:
        child.wait(10)
        assert child.tail() == "hunter2"
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_tail_is_of_this_run_and_bad_bytes_do_not_hurt(log: Path) -> None:
    for text, shown in ((r"first \377", "first \N{REPLACEMENT CHARACTER}"), ("second", "second")):
        with shell(f"printf '{text}\\n'", log) as child:
            child.wait(10)
            assert child.tail() == shown
    assert log.read_bytes() == b"first \xff\nsecond\n"


def test_descriptors_are_given_back(log: Path) -> None:
    before = psutil.Process().num_fds()
    for _ in range(5):
        with shell("exit 0", log) as child:
            child.wait(10)
    assert psutil.Process().num_fds() == before


SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        self.send_response(200 if Handler.asked > 2 and self.path == "/ready?full" else 503)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_is_awaited_by_port_and_by_address(log: Path) -> None:
    port = ports.free_port()
    assert not ports.accepts_connections(port)
    with Child.start([sys.executable, "-u", "-c", SERVER, str(port)], log=log) as child:
        child.wait_for_port(port, 20)
        child.wait_for_http(f"http://127.0.0.1:{port}/ready?full", 20)
    assert re.findall(r'" (\d+) ', child.tail()) == ["503", "503", "200"]
    assert not ports.accepts_connections(port)


def test_a_free_port_is_free_and_on_loopback() -> None:
    with socket.create_server((ports.LOOPBACK, ports.free_port())) as server:
        assert server.getsockname()[0] == "127.0.0.1"
        assert ports.accepts_connections(server.getsockname()[1])


def test_only_http_addresses_are_asked() -> None:
    with pytest.raises(ValueError, match="allowed: an http:// address"):
        ports.answers_http("file:///etc/passwd")
