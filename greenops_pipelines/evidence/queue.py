"""Bundles on their way into the store: one file each, replaced whole as it goes from stage to stage.

Whoever works on one holds a lock that ends with the process, so a bundle whose filer was killed is free for the next
one. Not here: what the stages are.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from greenops_pipelines.errors import BadInput, PermanentError, TransientError
from greenops_pipelines.evidence.bundle import check_id

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Slot:
    """One bundle's place in the queue, for as long as the lock is held."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> bytes:
        return self._path.read_bytes()

    def write(self, content: bytes) -> None:
        """Replaces the content, whole or not at all, safe from a power cut."""
        temporary = self._path.with_suffix(".new")
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self._path)
            self._sync()
        except OSError as error:
            kind = TransientError if error.errno in _FULL else PermanentError
            raise kind(f"{self._path}: not written: {error.strerror}; the evidence is as it was before") from error

    def remove(self) -> None:
        self._path.unlink()
        self._sync()

    def _sync(self) -> None:
        descriptor = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Queue:
    """The queue in `folder`, which is made where missing (0700: it holds what was not checked in yet)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def ids(self) -> list[str]:
        """The bundles that wait or are being filed, oldest first."""
        found = []
        for path in sorted(self.folder.glob("*.tar")):
            with suppress(BadInput):
                found.append(check_id(path.stem))
        return found

    def peek(self, bundle_id: str) -> bytes | None:
        """What is known of a waiting bundle, without its lock."""
        try:
            return (self.folder / f"{check_id(bundle_id)}.tar").read_bytes()
        except FileNotFoundError:
            return None

    @contextmanager
    def claim(self, bundle_id: str, new: bool = False) -> Iterator[Slot | None]:
        """The bundle's slot; None where another process has it, or where it is gone (unless it is `new`)."""
        path = self.folder / f"{check_id(bundle_id)}.tar"
        lock = path.with_suffix(".lock")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            kind = TransientError if error.errno in _FULL else PermanentError
            raise kind(f"{lock}: {error.strerror}; allowed: a folder this user can write to") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            # The one who held it may have finished between the two calls, and removed both files.
            mine = os.fstat(descriptor).st_nlink > 0
            yield Slot(path) if mine and (new or path.exists()) else None
            if mine and not path.exists():
                lock.unlink()
        finally:
            os.close(descriptor)

    def sweep(self) -> None:
        """Removes what killed filers left: locks without a bundle, halves of a write."""
        for path in (*self.folder.glob("*.lock"), *self.folder.glob("*.new")):
            with suppress(BadInput), self.claim(path.stem, new=True) as slot:
                if slot is not None:
                    path.with_suffix(".new").unlink(missing_ok=True)
