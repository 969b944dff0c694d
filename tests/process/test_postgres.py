"""PostgreSQL's programs as root, as an ordinary user, and where user namespaces are forbidden."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from greenops_pipelines.errors import ConfigurationError, PermanentError, TransientError
from greenops_pipelines.process import postgres
from greenops_pipelines.process.postgres import Server, programs
from tests.real import program

_ROOT = Path(__file__).parents[2]
_SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    postgres.prefix.cache_clear()
    yield
    postgres.prefix.cache_clear()


def _server(folder: Path) -> Server:
    return Server("us-east-1", folder / "us-east-1", programs(), "greenops", "it's a \\ secret")


def _serves(server: Server) -> None:
    from greenops_pipelines.recovery.client import Client

    server.create()
    server.configure(_SETTINGS)
    server.start()
    client = Client(server.dsn())
    assert client.ask("select current_user") == [["greenops"]]
    client.close()
    # Nobody gets in without the password, and nobody from elsewhere.
    wrong = server.folder / "wrong"
    wrong.write_text("127.0.0.1:*:*:greenops:guess\n")
    wrong.chmod(0o600)
    from greenops_pipelines.recovery.client import Unanswered

    with pytest.raises(Unanswered, match="password authentication failed"):
        Client(server.dsn(passfile=wrong)).ask("select 1")
    listening = {each.laddr.ip for each in psutil.net_connections("tcp") if each.laddr.port == server.port}
    assert listening == {"127.0.0.1"}


def test_server_of_this_user_below_a_folder_that_only_this_user_can_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    server = _server(tmp_path)
    try:
        _serves(server)
        assert stat.S_IMODE(server.passfile.stat().st_mode) == 0o600
        assert "secret" not in " ".join(psutil.Process(server.pids()[0]).cmdline())
        pids = server.pids()
        assert len(pids) > 3
    finally:
        server.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert postgres.server_processes(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user is not to be made by an ordinary user")
def test_server_as_an_ordinary_user(tmp_path: Path) -> None:
    # In a namespace in which root is `daemon`: an ordinary user with an entry, to everything that asks.
    program("unshare", "Debian's util-linux")
    script = (
        "import os, sys; sys.path.insert(0, '.'); from pathlib import Path; from tests.process.test_postgres import _serves, _server\n"
        "from greenops_pipelines.process import postgres\n"
        "assert os.geteuid() == 1, os.geteuid()\n"
        "folder = Path(sys.argv[1]); assert postgres.prefix(folder) == ()\n"
        "server = _server(folder)\n"
        "try: _serves(server)\n"
        "finally: server.close()\n"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-user=1", "--map-group=1", sys.executable, "-c", script, str(tmp_path)],
        cwd=_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unshare failed" in done.stderr:
        pytest.skip(f"user namespaces are not permitted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_root_becomes_nobody_where_namespaces_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = postgres._works
    monkeypatch.setattr(postgres, "_works", lambda command: command[0] != "unshare" and whole(command))
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o755)
        if not whole(["setpriv", "--reuid=65534", "--clear-groups", programs().path("postgres"), "--version"]):
            pytest.skip("`nobody` cannot reach the programs here")
        assert postgres.prefix(folder)[0] == "setpriv"
        server = _server(folder)
        try:
            _serves(server)
            assert psutil.Process(server.pids()[0]).username() == "nobody"
        finally:
            server.close()
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root cannot run PostgreSQL as itself")
def test_folder_that_nobody_can_enter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = postgres._works
    monkeypatch.setattr(postgres, "_works", lambda command: command[0] != "unshare" and whole(command))
    tmp_path.chmod(0o700)
    with pytest.raises(
        ConfigurationError, match="allowed: an ordinary user, or a GREENOPS_HOME in a folder that all may"
    ):
        postgres.prefix(tmp_path)


def test_port_that_is_taken_is_given_up_for_another(tmp_path: Path) -> None:
    first, second = _server(tmp_path / "a"), _server(tmp_path / "b")
    try:
        for server in (first, second):
            server.create()
            server.configure(_SETTINGS)
        first.start()
        second.port = first.port
        second.start()
        assert second.port != first.port
    finally:
        first.close()
        second.close()


def test_no_free_port_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _server(tmp_path / "a"), _server(tmp_path / "b")
    try:
        for server in (first, second):
            server.create()
            server.configure(_SETTINGS)
        first.start()
        monkeypatch.setattr(postgres, "free_port", lambda: first.port)
        with pytest.raises(TransientError, match=r"found no free port on 127.0.0.1 in 3 tries; try again, or end"):
            second.start()
    finally:
        first.close()
        second.close()


def test_configuration_that_is_wrong_is_said_with_the_servers_words(tmp_path: Path) -> None:
    server = _server(tmp_path)
    server.create()
    server.configure({**_SETTINGS, "no_such_setting": "on"})
    with pytest.raises(PermanentError, match='unrecognized configuration parameter "no_such_setting"'):
        server.start()


def test_program_that_fails_is_said_with_its_words(tmp_path: Path) -> None:
    server = _server(tmp_path)
    server.create()
    with pytest.raises(PermanentError, match=r"initdb \(us-east-1\): exited with 1: .*exists but is not empty"):
        server.create()


def test_version_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="PostgreSQL 9: found no programs, allowed: 18, 16"):
        programs(9)


def test_killed_caller_leaves_no_server(tmp_path: Path) -> None:
    script = (
        "import sys, time; sys.path.insert(0, '.'); from pathlib import Path; from tests.process.test_postgres import _server, _SETTINGS\n"
        "server = _server(Path(sys.argv[1])); server.create(); server.configure(_SETTINGS); server.start()\n"
        "print(*server.pids(), flush=True); time.sleep(600)\n"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert caller.stdout is not None
    pids = [int(word) for word in caller.stdout.readline().split()]
    caller.kill()
    caller.wait()
    caller.stdout.close()
    assert len(pids) > 3
    # Its guard too, which ends last.
    _, alive = psutil.wait_procs(postgres.server_processes(tmp_path), timeout=20)
    assert alive == []
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert postgres.server_processes(tmp_path) == []
