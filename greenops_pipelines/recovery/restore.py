"""The way back: a snapshot of the second copy becomes a home, digest by digest, where there was none.

A restore may be killed at any moment: the folder then still has its marker, `.restoring`, and the next restore goes on
there. Not here: whether what was restored is usable (`restored.py`), and private keys, which no copy has.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from greenops_pipelines.errors import BadInput, ObjectMissing, PermanentError, TransientError
from greenops_pipelines.recovery import snapshots
from greenops_pipelines.recovery.replica_lock import WORKERS
from greenops_pipelines.recovery.snapshots import CHUNK_BYTES, File, Snapshot, chunk_key
from greenops_pipelines.recovery.vault import Vault, fsync_folder

MARKER = ".restoring"
"""In the folder until all of it is there. A home with this file in it is no home yet."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SHOWN = 5


@dataclass(frozen=True)
class Compared:
    """A part of the home as it lies on disk, against the snapshot."""

    files: int
    bytes: int
    expected: str
    found: str
    differs: str
    """The first path that differs, is missing or is too many; empty where the digests are equal."""


@dataclass(frozen=True)
class Restored:
    """What a restore did. `kept` files of a restore that was killed were good already."""

    snapshot: str
    files: int
    bytes: int
    kept: int
    seconds: float
    parts: Mapping[str, Compared]

    @property
    def ok(self) -> bool:
        return all(part.expected == part.found for part in self.parts.values())


def restore(vault: Vault, into: Path, snapshot: str | None = None) -> Restored:
    """Makes `into` the home that a snapshot (None: the newest) was taken of. Lake and evidence become folders of it.

    Every file is held against its digest before it gets its name; in the end all of it is read from disk once more, and
    where a part is not the snapshot's (`Restored.ok` is false), the marker stays. All files belong to this user alone.
    Raises `BadInput` unless the folder is empty, missing, or that of a restore that was killed; `PermanentError` for
    a damaged or missing chunk, naming the snapshots that can do without it; `TransientError` where another
    restore works there, the disk is full, or the vault does not answer.
    """
    started = time.monotonic()
    into = into.absolute()
    chosen = snapshots.read(vault, snapshot)
    with _marked(into, chosen.id), _faults(into):
        wanted = {file.path for file in chosen.files}
        _clear(into, wanted)
        for folder in sorted({above for path in wanted for above in (into / path).parents if into in above.parents}):
            folder.mkdir(mode=0o700, exist_ok=True)
        with ThreadPoolExecutor(WORKERS) as pool:
            kept = sum(pool.map(lambda file: _bring(vault, into, chosen, file), chosen.files))
        _flush_folders(into)
        parts = _compared(into, chosen)
        done = Restored(
            chosen.id,
            len(chosen.files),
            sum(file.size for file in chosen.files),
            kept,
            time.monotonic() - started,
            parts,
        )
        if done.ok:
            (into / MARKER).unlink()
            fsync_folder(into)
    return done


@contextmanager
def _marked(into: Path, snapshot: str) -> Iterator[None]:
    """The folder, empty or with our marker, for this restore alone."""
    with _faults(into):
        marker = into / MARKER
        if into.exists() and not into.is_dir():
            raise BadInput(f"{into}: found a file, allowed: an empty folder, or none")
        there = sorted(entry.name for entry in into.iterdir()) if into.is_dir() else []
        if there and MARKER not in there:
            shown = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else "")
            raise BadInput(f"{into}: found {shown}; allowed: an empty folder, or none: a restore overwrites nothing")
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        into.chmod(0o700)
        descriptor = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransientError(
                f"{into}: found another restore at work there; let it end, or restore elsewhere"
            ) from None
        if not os.fstat(descriptor).st_nlink:
            raise BadInput(f"{into}: found it restored just now by another process, allowed: an empty folder, or none")
        if not os.fstat(descriptor).st_size and len(list(into.iterdir())) > 1:
            # Made by us this moment, in a home that another restore finished since we looked.
            marker.unlink()
            raise BadInput(f"{into}: found a home that was not there before, allowed: an empty folder, or none")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"snapshot": snapshot, "process": os.getpid()}).encode() + b"\n", 0)
        os.fsync(descriptor)
        with _faults(into):
            fsync_folder(into)
        yield
    finally:
        os.close(descriptor)


def _clear(into: Path, wanted: set[str]) -> None:
    """Removes what is not of this snapshot: halves of files, and files of another one whose restore was killed."""
    stays = wanted | {MARKER}
    for folder, names, files in os.walk(into, topdown=False):
        for name in (*files, *names):
            path = Path(folder, name)
            if path.is_symlink() or not path.is_dir():
                if str(path.relative_to(into)) not in stays:
                    path.unlink()
            else:
                # One that is wanted is not empty, or is made again.
                with suppress(OSError):
                    path.rmdir()


def _bring(vault: Vault, into: Path, snapshot: Snapshot, file: File) -> bool:
    """Writes one file; whether it was there already, whole."""
    target = into / file.path
    if target.is_file() and not target.is_symlink() and _hashed(target) == (file.size, file.sha256):
        target.chmod(_mode(file.path))
        return True
    temporary = target.with_name(f".{hashlib.sha256(target.name.encode()).hexdigest()[:16]}.restoring")
    whole, size = hashlib.sha256(), 0
    with _faults(target):
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            for chunk in file.chunks:
                data = _chunk(vault, snapshot, file, chunk)
                whole.update(data)
                size += len(data)
                stream.write(data)
            stream.flush()
            os.fchmod(descriptor, _mode(file.path))
            os.fsync(descriptor)
        if (size, whole.hexdigest()) != (file.size, file.sha256):
            temporary.unlink()
            raise PermanentError(
                f"{file.path}: its chunks in {vault.place} come to {size:,} bytes with the digest {whole.hexdigest()}, "
                f"expected: {file.size:,} and {file.sha256}; {_instead(vault, snapshot, None)}"
            )
        temporary.replace(target)
    return False


def _chunk(vault: Vault, snapshot: Snapshot, file: File, chunk: str) -> bytes:
    try:
        data = vault.get(chunk_key(chunk))
    except ObjectMissing:
        wrong = "is missing"
    else:
        if hashlib.sha256(data).hexdigest() == chunk:
            return data
        wrong = "is damaged"
    raise PermanentError(
        f"{file.path}: chunk {chunk} {wrong} in {vault.place} ({chunk_key(chunk)}); {_instead(vault, snapshot, chunk)}"
    )


def _instead(vault: Vault, snapshot: Snapshot, chunk: str | None) -> str:
    """Which other snapshots can be restored; for a chunk, those that do without it."""
    others, unreadable = [], 0
    for other in snapshots.ids(vault):
        if other == snapshot.id:
            continue
        try:
            if chunk not in snapshots.read(vault, other).chunks:
                others.append(other)
        except PermanentError:
            unreadable += 1
    lost = f" ({unreadable} more are damaged themselves)" if unreadable else ""
    if others:
        return f"restore another snapshot that does without it: {snapshots.listed(others)}{lost}"
    return (
        f"every other snapshot needs it too{lost}; bring the object back from the vault's versions or backup, or where the "
        "source still stands, remove it from the vault and copy again"
    )


def _compared(into: Path, snapshot: Snapshot) -> dict[str, Compared]:
    """Every part as it lies on disk now, what is there too much included."""
    paths = [path for path in into.rglob("*") if not path.is_dir() and path != into / MARKER]
    with ThreadPoolExecutor(WORKERS) as pool:
        hashed = list(pool.map(_hashed, paths))
    found: dict[str, dict[str, tuple[int, str]]] = {name: {} for name in snapshot.parts}
    for path, figures in zip(paths, hashed, strict=True):
        name = path.relative_to(into).as_posix()
        found.setdefault(snapshots.PARTS.get(name.partition("/")[0], name), {})[name] = figures
    expected: dict[str, dict[str, tuple[int, str]]] = {name: {} for name in found}
    for file in snapshot.files:
        expected[snapshots.part_of(file.path)][file.path] = (file.size, file.sha256)
    result = {}
    for name, files in found.items():
        is_there, should_be = snapshots.part(files), snapshots.part(expected[name])
        differs = min((path for path, _ in files.items() ^ expected[name].items()), default="")
        result[name] = Compared(is_there.files, is_there.bytes, should_be.digest, is_there.digest, differs)
    return result


def _hashed(path: Path) -> tuple[int, str]:
    whole, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while data := stream.read(CHUNK_BYTES):
            whole.update(data)
            size += len(data)
    return size, whole.hexdigest()


def _mode(path: str) -> int:
    """As the stores keep their objects; public keys are for everyone; the rest is this user's, as a database must be."""
    if path.startswith(("evidence/store/", "submissions/")):
        return 0o444
    return 0o644 if path.startswith("keys/") else 0o600


def _flush_folders(into: Path) -> None:
    """Makes the renames survive a power cut, each folder once; only then may the marker go."""
    for folder, _, _ in os.walk(into):
        fsync_folder(Path(folder))


@contextmanager
def _faults(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise TransientError(f"{place}: {error.strerror}; make room, then restore again: it goes on") from error
        raise PermanentError(
            f"{error.filename or place}: found {error.strerror!r}, allowed: a folder this user can write to"
        ) from error
