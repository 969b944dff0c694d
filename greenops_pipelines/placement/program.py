"""Runs one program while it holds a lock, and writes down how it ended. A script of its own, under `process/guard.py`.

The program inherits the lock: it is free only when the program and all that it started are gone, whoever was killed.
The end is written under another name and renamed, so that it is whole or not there.

Usage: python -P program.py LOCK END PROGRAM [ARGUMENT...]. Exit code: the program's, as a shell has it; 75 (EX_TEMPFAIL)
where the lock is taken. Only the standard library, so that it starts in 30 ms.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

BUSY = 75
_PR_SET_PDEATHSIG = 1


def main(lock: str, end: str, program: list[str]) -> int:
    """See the module's head."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return BUSY
    asked: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        # The guard sends it to the program as well.
        asked.append(number)

    # A handler, not SIG_IGN: a program started from here would inherit that.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    parent, libc = os.getpid(), ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(127)

    try:
        child = subprocess.Popen(program, stdin=subprocess.DEVNULL, pass_fds=(descriptor,), preexec_fn=die_with_parent)
        code = child.wait()
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
        code = 127
    code = code if code >= 0 else 128 - code
    content = json.dumps({"exit_code": code, "asked": bool(asked), "ended_at": time.time()})
    whole = Path(f"{end}.new")
    with whole.open("w", encoding="utf-8") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    whole.replace(end)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
