"""The event log of a drill: every step is written down before it is taken, and again when it is done. JSON lines, fsynced.

It is what is left of a drill that was killed: what it was, how far it came, what was running. Not here: the steps.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import PermanentError, TransientError
from greenops_pipelines.recovery.ledger import whole_lines

FILE = "events.jsonl"


@dataclass
class Step:
    """A step under way; what it finds out and the commands it ran are written down with its end."""

    name: str
    at: float
    commands: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


class Events:
    """The log in `path`. Times are seconds of one monotonic clock, which began with the drill; `at` is the host's clock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._wall = time.time()
        self._step: Step | None = None
        self._fault: OSError | None = None

    @property
    def clock(self) -> float:
        """Seconds since the drill began."""
        return time.monotonic() - self._began

    @property
    def clock_moved(self) -> float:
        """By how many seconds this host's clock was set meanwhile; durations do not depend on it."""
        return (time.time() - self._wall) - self.clock

    def add(self, event: str, **more: Any) -> float:
        """One line; when this returns it is on disk. Its time."""
        at = self.clock
        line = {"t": round(at, 6), "at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **more}
        data = json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            with self._lock:
                if self._fault is not None:
                    # What was written after half a line could not be read.
                    raise self._fault
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                os.fsync(self._descriptor)
        except OSError as error:
            self._fault = error
            kind = TransientError if error.errno == errno.ENOSPC else PermanentError
            raise kind(f"{self._path}: the drill's log cannot be kept: {error.strerror}; free some room") from error
        return at

    @contextmanager
    def step(self, name: str, **more: Any) -> Iterator[Step]:
        """One step: `begin` before it, `end` or `failed` after it."""
        step = Step(name, self.add("begin", step=name, **more))
        outer, self._step = self._step, step
        try:
            yield step
        except BaseException as error:
            self.add(
                "failed", step=name, error=f"{type(error).__name__}: {error}", commands=step.commands, **step.notes
            )
            raise
        else:
            seconds = round(self.clock - step.at, 6)
            self.add("end", step=name, seconds=seconds, commands=step.commands, **step.notes)
        finally:
            self._step = outer

    def ran(self, command: str, seconds: float, where: str) -> None:
        """A command that ran in the step under way."""
        if self._step is not None:
            self._step.commands.append({"command": command, "where": where, "seconds": round(seconds, 3)})

    def close(self) -> None:
        os.close(self._descriptor)


def read(path: Path) -> Sequence[dict[str, Any]]:
    """Every event that was written down whole."""
    return [json.loads(line) for line in whole_lines(path)]
