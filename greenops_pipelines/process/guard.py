"""Runs one program and outlives its caller by as much as it takes to end the program's whole tree.

Started by `child.py` as a script of its own, between the caller and the program, because nothing in the caller's
process can do this safely:

- The caller may be killed with SIGKILL. It holds the write end of this process' standard input; when it goes,
  however it goes, that pipe ends, and so does the tree.
- PR_SET_PDEATHSIG set by the caller would need code between fork and exec (a deadlock waiting to happen in a process
  with threads), would fire when the *thread* that started the program ends, and would not reach grandchildren.
  This process has one thread, so it sets it on the program, for the case that it is itself killed.
- Descendants that leave their parent ("daemons") become children of this process, not of init, so none is lost.

Usage: python -P guard.py GRACE_SECONDS PROGRAM [ARGUMENT...]. Standard output: one line, `pid N` or `errno N`.
Standard error: the program's output. Exit code: the program's, 128 + N after signal N, as a shell has it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_POLL_SECONDS = 1.0
"""How often the parent's id is compared: a forked copy of the caller may keep the pipe open when the caller dies."""


class Guard:
    """One program and its tree."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._parent = os.getppid()
        self._pid = 0
        self._status: int | None = None
        self._asked_to_stop = False
        # Signals wake the waits below through a pipe: a handler alone could run just before the wait begins.
        self._wake, write_end = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in _STOPS:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def run(self, program: list[str]) -> int:
        """Starts the program, waits for its end or the order to end it, ends what is left; its exit code."""
        libc = ctypes.CDLL(None, use_errno=True) if _LINUX else None
        if libc is not None:
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        guard = os.getpid()

        def die_with_guard() -> None:
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != guard:
                    os._exit(127)

        try:
            process = subprocess.Popen(
                program,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                start_new_session=True,
                preexec_fn=die_with_guard,
            )
        except OSError as error:
            self._report(f"errno {error.errno}")
            return 127
        self._pid = process.pid
        self._report(f"pid {process.pid}")
        while self._status is None and not self._asked_to_stop:
            self._wait(_POLL_SECONDS, watch_caller=True)
        # Said again from here on, an order to stop has nothing to add: the interpreter lets go of its handlers before it
        # exits, and the signal would end this process in the place of the program's exit code.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        self._end_tree()
        # Reaped here, not by Popen.
        process.returncode = self._status if self._status is not None else -signal.SIGKILL
        return process.returncode if process.returncode >= 0 else 128 - process.returncode

    def _end_tree(self) -> None:
        """SIGTERM to each, SIGKILL after the grace to who is left; who is started meanwhile is met by the next round."""
        asked: set[psutil.Process] = set()
        deadline = time.monotonic() + self._grace_seconds
        while (living := _tree()) and time.monotonic() < deadline:
            for process in living:
                if process not in asked:
                    # A stopped process acts on SIGTERM only once it runs again.
                    _send(process, signal.SIGTERM)
                    _send(process, signal.SIGCONT)
            asked.update(living)
            self._wait(min(0.05, max(0.0, deadline - time.monotonic())), watch_caller=False)
        while living := _tree():
            for process in living:
                _send(process, signal.SIGKILL)
            self._wait(0.02, watch_caller=False)
        self._reap()

    def _wait(self, seconds: float, watch_caller: bool) -> None:
        """Until a signal arrives, the caller lets go, or the time is over; then reaps."""
        watched = [self._wake, sys.stdin.fileno()] if watch_caller else [self._wake]
        readable, _, _ = select.select(watched, [], [], seconds)
        if self._wake in readable:
            os.read(self._wake, 4096)
        if sys.stdin.fileno() in readable or os.getppid() != self._parent:
            self._asked_to_stop = True
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._status = os.waitstatus_to_exitcode(status)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._asked_to_stop = True

    @staticmethod
    def _report(line: str) -> None:
        # The caller may have been killed meanwhile: the program is ended then, but by us, and with its tree.
        with suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), f"{line}\n".encode())
        # The caller reads to the end; from here on only the program's output is wanted.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _send(process: psutil.Process, number: signal.Signals) -> None:
    # Gone meanwhile, or another user's (a program with the setuid bit): nothing more can be done.
    with suppress(psutil.Error):
        process.send_signal(number)


def _tree() -> list[psutil.Process]:
    """Every living descendant. Zombies wait to be reaped and need no signal."""
    living = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


if __name__ == "__main__":
    sys.exit(Guard(float(sys.argv[1])).run(sys.argv[2:]))
