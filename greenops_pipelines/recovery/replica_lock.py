"""One copy or pruning of a home at a time, and a folder for what it writes on the way. Not here: what they do."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from greenops_pipelines.errors import BadInput, TransientError

WORKERS = 8
"""Requests at once: a request to another region takes 50 to 150 ms, nearly all of it waiting."""
_SCRATCH = ".replica-"


@contextmanager
def alone(home: Path) -> Iterator[Path]:
    """The only copy or pruning of this home, with a folder for its temporary files."""
    if not home.is_dir():
        raise BadInput(f"{home}: found no such folder, allowed: the home of a platform (GREENOPS_HOME)")
    folder = home / "recovery"
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / "replica.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "not said yet"
            raise TransientError(
                f"{folder / 'replica.lock'}: found the second copy being taken or pruned by process {holder}; "
                "try again when it is done"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        for left in folder.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder) as scratch:
            yield Path(scratch)
    finally:
        os.close(descriptor)
