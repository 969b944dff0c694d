"""A child program: started with its output in a log file, awaited until it serves, ended with its whole tree.

    with Child.start(["prometheus", "--web.listen-address=127.0.0.1:9090"], log=home / "prometheus.log",
                     install="the Debian package prometheus") as server:
        server.wait_for_http("http://127.0.0.1:9090/-/ready", seconds=30)

The program runs under `guard.py`, which ends the tree however this process ends, SIGKILL included. Not here: any
particular program, and programs whose whole output is the result (`subprocess.run` is enough for those).
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from greenops_pipelines.errors import ConfigurationError, PermanentError, TransientError
from greenops_pipelines.process import guard, ports

_POLL_SECONDS = 0.05
_GUARD_MARGIN_SECONDS = 10.0
_TAIL_BYTES = 64 * 1024

_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE")


def base_environment() -> dict[str, str]:
    """The variables any program needs and nothing secret: what a child gets unless told otherwise."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


class Child:
    """A running program. Leaving the `with` block ends it and everything it started."""

    def __init__(self, name: str, supervisor: subprocess.Popen[bytes], log: Path, log_start: int, grace: float) -> None:
        """Use `Child.start`."""
        self.name = name
        self.log = log
        self.pid = 0
        # Told apart by its start time from a later process with the same id.
        self._process: psutil.Process | None = None
        self._supervisor = supervisor
        self._log_start = log_start
        self._grace_seconds = grace

    @classmethod
    def start(
        cls,
        args: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        install: str = "",
        grace_seconds: float = 10.0,
    ) -> Self:
        """Starts `args[0]` with the rest as its arguments; both output streams are appended to `log` (mode 0600).

        `env` is the whole environment; None stands for `base_environment()`, so that no secret of this process
        reaches a child by accident. Secrets go in here and never into `args`, which any user can read. `install`
        says where the program comes from. `grace_seconds` pass between SIGTERM and SIGKILL at the end.

        Raises `ConfigurationError` where the program, or the folder `cwd`, is not there or cannot be run.
        """
        environment = base_environment() if env is None else dict(env)
        program, *rest = (os.fspath(arg) for arg in args)
        name = Path(program).name
        remedy = f"; install {install}" if install else ""
        if cwd is not None and not cwd.is_dir():
            raise ConfigurationError(f"{name}: found no folder {cwd} to run in")
        found = shutil.which(
            program if cwd is None or "/" not in program else cwd / program, path=environment.get("PATH")
        )
        if found is None:
            where = "" if "/" in program else " on PATH"
            raise ConfigurationError(f"{program}: found no such program{where}{remedy}")
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            log_start = os.fstat(descriptor).st_size
            supervisor = subprocess.Popen(
                [sys.executable, "-P", str(guard.__file__), str(grace_seconds), str(Path(found).absolute()), *rest],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=descriptor,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        child = cls(name, supervisor, log, log_start, grace_seconds)
        try:
            child._await_start(program, remedy)
        except BaseException:
            child.terminate()
            raise
        return child

    def _await_start(self, program: str, remedy: str) -> None:
        assert self._supervisor.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
        with self._supervisor.stdout as report:
            kind, _, number = report.readline().decode().strip().partition(" ")
        if kind == "pid":
            self.pid = int(number)
            with suppress(psutil.NoSuchProcess):
                self._process = psutil.Process(self.pid)
        elif kind == "errno":
            reason = "it is no program for this machine" if int(number) == errno.ENOEXEC else os.strerror(int(number))
            raise ConfigurationError(f"{program}: could not be run: {reason}{remedy}")
        else:
            raise PermanentError(f"{program}: its supervisor did not start; its log {self.log} ends:\n{self.tail()}")

    @property
    def running(self) -> bool:
        return self._supervisor.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; then the program's exit code, 128 + N where signal N ended it."""
        code = self._supervisor.poll()
        return None if code is None else code if code >= 0 else 128 - code

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Returns once `ready()` is true; asks about 20 times a second.

        Raises `PermanentError` with the end of the log as soon as the program has ended, and `TransientError`,
        also with it, when `seconds` have passed. The program is left running then.
        """
        deadline = time.monotonic() + seconds
        while self.running:
            # Asked again after ready(): a server of someone else may have answered on the port this one did not get.
            if ready() and self.running:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise TransientError(
                    f"{self.name}: not ready after {seconds:g} s; its log {self.log} ends:\n{self.tail()}"
                )
            self._pause(min(_POLL_SECONDS, left))
        raise PermanentError(
            f"{self.name}: exited with {self.exit_code} before it was ready; its log {self.log} ends:\n{self.tail()}"
        )

    def wait_for_port(self, port: int, seconds: float) -> None:
        """As `wait_until`: until 127.0.0.1 accepts connections on the port."""
        self.wait_until(lambda: ports.accepts_connections(port), seconds)

    def wait_for_http(self, url: str, seconds: float) -> None:
        """As `wait_until`: until a GET of `url` is answered with a status of 200 to 299."""
        self.wait_until(lambda: ports.answers_http(url), seconds)

    def wait(self, seconds: float) -> int:
        """The exit code, once the program and all it started have ended; raises `TransientError` after `seconds`."""
        try:
            self._supervisor.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TransientError(f"{self.name}: still running after {seconds:g} s; see its log {self.log}") from None
        return self.exit_code or 0

    def send_signal(self, number: signal.Signals) -> None:
        """To the program alone, not to what it started. Nothing happens once it has ended."""
        with suppress(psutil.NoSuchProcess):
            if self._process is not None:
                self._process.send_signal(number)

    def tail(self, lines: int = 20) -> str:
        """The last lines of what this run wrote to the log."""
        try:
            with self.log.open("rb") as stream:
                end = stream.seek(0, os.SEEK_END)
                stream.seek(max(self._log_start, end - _TAIL_BYTES))
                text = stream.read().decode("utf-8", "replace")
        except OSError as error:
            return f"(the log cannot be read: {error.strerror})"
        return "\n".join(text.splitlines()[-lines:]) or "(empty)"

    def terminate(self) -> int:
        """Ends the program and everything it started: SIGTERM, the grace, SIGKILL; all reaped. Its exit code.

        May be called again, and after the program has ended by itself.
        """
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.close()
        # Said twice, because a forked copy of this process may hold the pipe open.
        self._supervisor.send_signal(signal.SIGTERM)
        try:
            self._supervisor.wait(self._grace_seconds + _GUARD_MARGIN_SECONDS)
        except subprocess.TimeoutExpired:
            # The supervisor hangs, stopped by a signal perhaps: do its work from here.
            self._kill_tree()
        if self._supervisor.returncode < 0:
            # Someone killed the supervisor, and with it the program; what that had started is in its session still.
            self._kill_session()
        return self.exit_code or 0

    def _kill_tree(self) -> None:
        try:
            supervisor = psutil.Process(self._supervisor.pid)
            for process in [*supervisor.children(recursive=True), supervisor]:
                process.kill()
        except psutil.NoSuchProcess:
            pass
        self._supervisor.wait()

    def _kill_session(self) -> None:
        for process in psutil.process_iter():
            try:
                if self.pid and os.getsid(process.pid) == self.pid:
                    process.kill()
            except (psutil.Error, OSError):
                continue

    def _pause(self, seconds: float) -> None:
        """Shorter where the program ends meanwhile."""
        try:
            self._supervisor.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()
