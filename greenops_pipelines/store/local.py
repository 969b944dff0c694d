"""The write-once object store in a local folder: one read-only file per object, at the path its key names.

An object is written to a temporary file, flushed to disk, then hard-linked to its name. Linking fails where the
name is taken, in the kernel, so two writers can race and neither overwrites; a reader sees all of an object or none
of it. Folders are opened one by one, relative to each other and without following links, so no key and no planted
link leads out of the root. POSIX only; the file system must know hard links.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from greenops_pipelines.errors import BadInput, ObjectExists, ObjectMissing, PermanentError, TransientError
from greenops_pipelines.store.objects import INCOMING, check_key

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking, because opening a planted named pipe would wait for a writer for ever.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE})
_NO_SUCH_OBJECT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class LocalObjectStore:
    """An `ObjectStore` below `root`, which is created where missing. What dead writers left behind is swept."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        with self._faults(""):
            (self._root / INCOMING).mkdir(parents=True, exist_ok=True)
            self._sweep()

    def put(self, key: str, data: bytes) -> None:
        *folders, name = check_key(key).split("/")
        with self._faults(key), self._folders(folders, create=True) as opened:
            if not self._link_new(opened[-1], name, data):
                there = self._read(opened[-1], name)
                if there is None:
                    raise _in_the_way(self._root / key)
                if there != data:
                    raise ObjectExists(f"{self._root / key}: found an object with other bytes, allowed: each key once")
            # Also where the object was there: whoever linked it may have died before it was safe.
            for descriptor in reversed(opened):
                os.fsync(descriptor)

    def get(self, key: str) -> bytes:
        *folders, name = check_key(key).split("/")
        with self._faults(key):
            try:
                with self._folders(folders) as opened:
                    data = self._read(opened[-1], name)
            except OSError as error:
                if error.errno not in _NO_SUCH_OBJECT:
                    raise
                data = None
        if data is None:
            raise ObjectMissing(f"{self._root / key}: found no object under that key")
        return data

    def exists(self, key: str) -> bool:
        *folders, name = check_key(key).split("/")
        with self._faults(key):
            try:
                with self._folders(folders) as opened:
                    return stat.S_ISREG(os.stat(name, dir_fd=opened[-1], follow_symlinks=False).st_mode)
            except OSError as error:
                if error.errno not in _NO_SUCH_OBJECT:
                    raise
                return False

    def list(self, prefix: str = "") -> tuple[str, ...]:
        with self._faults(prefix):
            return tuple(sorted(self._keys(self._root, "", prefix)))

    def _keys(self, folder: Path, above: str, prefix: str) -> Iterator[str]:
        with os.scandir(folder) as entries:
            for entry in entries:
                key = above + entry.name
                if key == INCOMING:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below = f"{key}/"
                    if below.startswith(prefix) or prefix.startswith(below):
                        yield from self._keys(Path(entry.path), below, prefix)
                elif entry.is_file(follow_symlinks=False) and key.startswith(prefix):
                    # What a person dropped here under a name that no `put` takes is no object.
                    with suppress(BadInput):
                        yield check_key(key)

    @contextmanager
    def _folders(self, names: Sequence[str], create: bool = False) -> Iterator[Sequence[int]]:
        """Descriptors of the root and each folder on the way down; no link is followed below the root."""
        opened = [os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            for name in names:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=opened[-1])
                opened.append(os.open(name, _FOLDER, dir_fd=opened[-1]))
            yield opened
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _link_new(self, folder: int, name: str, data: bytes) -> bool:
        """Whether `data` now stands under `name`; False where the name was taken."""
        incoming = os.open(self._root / INCOMING, _FOLDER)
        try:
            temporary, descriptor = _locked_temporary(incoming)
            try:
                _write_all(descriptor, data)
                os.fchmod(descriptor, 0o444)
                os.fsync(descriptor)
                os.link(temporary, name, src_dir_fd=incoming, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                return False
            finally:
                os.unlink(temporary, dir_fd=incoming)
                os.close(descriptor)
            return True
        finally:
            os.close(incoming)

    @staticmethod
    def _read(folder: int, name: str) -> bytes | None:
        """The object's bytes; None where something else than a file stands there."""
        try:
            descriptor = os.open(name, _READ, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                return None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        with os.fdopen(descriptor, "rb") as stream:
            return stream.read()

    def _sweep(self) -> None:
        """Removes temporary files whose writer is gone: it held a lock on the file, which ended with it.

        A lock rather than a process id in the name: ids are used again, and mean nothing to another machine that
        shares the folder.
        """
        with os.scandir(self._root / INCOMING) as entries:
            paths = [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]
        for path in paths:
            # Another process may sweep the same file, or its writer finish, meanwhile.
            with suppress(FileNotFoundError):
                descriptor = os.open(path, _READ)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                except BlockingIOError:
                    continue
                finally:
                    os.close(descriptor)

    @contextmanager
    def _faults(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place, reason = self._root / key, error.strerror or str(error)
            if error.errno in _PASSING:
                raise TransientError(f"{place}: not stored or read: {reason}; free some, then try again") from error
            if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ELOOP):
                raise _in_the_way(place) from error
            raise PermanentError(
                f"{place}: found {reason!r}, allowed: a folder this user can read and write"
            ) from error


def _in_the_way(place: Path) -> BadInput:
    allowed = "a key whose folders are folders, and that is no folder itself"
    return BadInput(f"{place}: found a file, folder or link in the way, allowed: {allowed}")


def _locked_temporary(incoming: int) -> tuple[str, int]:
    """A new file's name and descriptor, locked for as long as this process has it open."""
    while True:
        name = uuid.uuid4().hex
        descriptor = os.open(name, _CREATE, 0o600, dir_fd=incoming)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A sweep may have come between the two calls, and taken the file for abandoned.
            if os.fstat(descriptor).st_nlink:
                return name, descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
