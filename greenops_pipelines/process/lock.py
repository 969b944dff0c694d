"""A lock that one process at a time holds, and that ends with it: a drill, a copy. Not here: what it protects."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from greenops_pipelines.errors import TransientError


class LockHeld(TransientError):
    """Somebody else has it."""


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Holds the lock in the file `path`, whose folder is there; `LockHeld` naming who has it. `what` is a noun."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 100).decode("utf-8", "replace").strip() or "another process"
            raise LockHeld(
                f"{path.parent}: found {what} under way ({holder}), allowed: one at a time; try again when it is over"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
