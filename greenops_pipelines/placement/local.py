"""The local runner: a program beside the scheduler, without a shell, with a time limit, never two at once for a key.

The program runs under `process/guard.py`, which ends its tree however the worker ends, and under `program.py`, which
holds the key's lock for as long as the program lives and writes down how it ended. So the end of a program is known also
where the worker that awaited it was killed, and the next attempt waits until the last one is gone.
Not here: when something is launched, and what follows from its end (`launching.py`).
"""

from __future__ import annotations

import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from greenops_pipelines import strict_json
from greenops_pipelines.errors import PermanentError, TransientError
from greenops_pipelines.placement import program
from greenops_pipelines.placement.launches import Ended, Launch
from greenops_pipelines.placement.ledger import only_one, work_folder
from greenops_pipelines.placement.requests import LocalRunner
from greenops_pipelines.process.child import Child, base_environment
from greenops_pipelines.redaction import one_line
from greenops_pipelines.settings import Settings

GRACE_SECONDS = 30.0
"""Between SIGTERM and SIGKILL, to save what was done."""
_GONE_SECONDS = GRACE_SECONDS + 30.0
_POLL_SECONDS = 0.1
_KILLED = 128 + signal.SIGKILL


def run(launch: Launch, settings: Settings) -> Ended:
    """Start the program and await its end. Its environment is a plain one and `launch.variables`; its output goes to
    `HOME/dispatches/work/<digest of the key>/attempt-<n>.log`. It runs in the folder that this process runs in.

    Raises `TransientError` where an earlier attempt's program still runs.
    """
    runner = launch.runner
    if not isinstance(runner, LocalRunner):
        raise PermanentError(f"{launch.key}: found a runner of the kind {runner.kind}, allowed: local")
    folder = work_folder(settings.dispatches, launch.key)
    log = folder / f"attempt-{launch.attempt}.log"
    limit = time.monotonic() + 60.0 * launch.limit_minutes
    # By the wall clock once, then by a clock that does not jump.
    pause = None if launch.until is None else time.monotonic() + (launch.until - datetime.now(UTC)).total_seconds()
    args = [
        sys.executable,
        "-P",
        program.__file__,
        str(_lock(folder)),
        str(_end(folder, launch.attempt)),
        *runner.command,
    ]
    environment = base_environment() | launch.variables
    with Child.start(args, log=log, env=environment, grace_seconds=GRACE_SECONDS) as child:
        stopped = ""
        while child.running:
            now = time.monotonic()
            if now >= limit:
                stopped = "timed out"
            elif pause is not None and now >= pause:
                stopped = "paused"
            if stopped:
                child.terminate()
                break
            until = min(limit, limit if pause is None else pause)
            try:
                child.wait(max(min(until - now, 5.0), 0.01))
            except TransientError:
                continue
        code, tail = child.exit_code, child.tail(3)
    said = "" if tail == "(empty)" else "; " + one_line(" | ".join(tail.splitlines()), 300)
    return _judged(launch, folder, stopped, code, said)


def lookup(launch_key: str, attempt: int, interruptible: bool, settings: Settings) -> Ended:
    """How an attempt ended whose worker is gone. Waits, up to a minute, until its program is gone as well.

    Raises `TransientError` where it still runs.
    """
    folder = work_folder(settings.dispatches, launch_key)
    limit = time.monotonic() + _GONE_SECONDS
    while True:
        with only_one(_lock(folder)) as gone:
            if gone:
                return _read(folder, attempt, interruptible) or _lost("its worker and its program are gone")
        if time.monotonic() >= limit:
            raise TransientError(f"{launch_key}: attempt {attempt} still runs, its worker is gone")
        time.sleep(_POLL_SECONDS)


def _judged(launch: Launch, folder: Path, stopped: str, code: int | None, said: str) -> Ended:
    if code == program.BUSY:
        with only_one(_lock(folder)) as gone:
            if not gone:
                raise TransientError(f"{launch.key}: an earlier attempt still runs")
    found = _read(folder, launch.attempt, launch.interruptible)
    now = datetime.now(UTC)
    if found is not None and found.outcome == "succeeded":
        return found
    if stopped == "timed out":
        detail = f"not done after {launch.limit_minutes} min, its time limit{said}"
        return Ended("timed out", None if found is None else found.exit_code, now, detail)
    if stopped == "paused":
        return Ended(
            "paused", None if found is None else found.exit_code, now, "its hour is over; it goes on in the next"
        )
    if found is None:
        return _lost(f"its program was killed{said}")
    return Ended(found.outcome, found.exit_code, found.ended_at, f"{found.detail}{said}")


def _read(folder: Path, attempt: int, interruptible: bool) -> Ended | None:
    """What the program's supervisor wrote; None where it was killed before it could."""
    try:
        found: Any = strict_json.loads(_end(folder, attempt).read_bytes())
    except FileNotFoundError:
        return None
    code, asked = int(found["exit_code"]), bool(found["asked"])
    ended_at = datetime.fromtimestamp(found["ended_at"], UTC)
    # A program that saves and leaves when it is asked to says 0 as well; one that cannot be interrupted has finished.
    if code == 0 and not (asked and interruptible):
        return Ended("succeeded", 0, ended_at, "exit code 0")
    if code == _KILLED:
        return Ended("lost", code, ended_at, "it was killed by SIGKILL: by a person, or for want of memory")
    if asked:
        return Ended("lost", code, ended_at, "it was ended, because its worker was")
    return Ended("failed", code, ended_at, f"exit code {code}")


def _lost(detail: str) -> Ended:
    return Ended("lost", None, datetime.now(UTC), detail)


def _lock(folder: Path) -> Path:
    return folder / "running.lock"


def _end(folder: Path, attempt: int) -> Path:
    return folder / f"attempt-{attempt}.end.json"
