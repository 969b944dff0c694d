"""The second copy: `copy` takes a snapshot of a home while the platform works on.

It may be killed at any moment: what it wrote are chunks that no snapshot names yet, which the next copy finds there. Not
here: what of a home is state (`replica_state.py`), the document's form (`snapshots.py`), reading copies back and letting
them go (`replica_upkeep.py`), the way back (`restore.py`).
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from greenops_pipelines import __version__
from greenops_pipelines.errors import ConfigurationError, PermanentError, TransientError
from greenops_pipelines.recovery import replica_state as state
from greenops_pipelines.recovery import snapshots
from greenops_pipelines.recovery.replica_lock import WORKERS, alone
from greenops_pipelines.recovery.replica_region import allowed_target, check_target
from greenops_pipelines.recovery.replica_state import Source
from greenops_pipelines.recovery.snapshots import CHUNK_BYTES, File, Part, Snapshot, chunk_key
from greenops_pipelines.recovery.vault import LocalVault, Vault

_log = logging.getLogger(__name__)

_LISTINGS = 10
_CLOCK_TOLERANCE = timedelta(seconds=60)


@dataclass(frozen=True)
class Copied:
    """A copy that was taken. `new_bytes` were written to the vault for it, the document included."""

    snapshot: str
    begun_at: datetime
    taken_at: datetime
    parts: Mapping[str, Part]
    new_bytes: int
    seconds: float
    left_out: tuple[str, ...]
    """Names in the home that are not copied though nothing says that they are no state, and names that are no text."""

    @property
    def files(self) -> int:
        return sum(part.files for part in self.parts.values())

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts.values())


def utc_now() -> datetime:
    return datetime.now(UTC)


def copy(
    source: Source,
    vault: Vault,
    target_region: str,
    areas: Mapping[str, str],
    tenants: Mapping[str, str],
    now: Callable[[], datetime] = utc_now,
) -> Copied:
    """Takes a snapshot of the source into the vault, which is declared to lie in `target_region`.

    `areas` is region -> residency area, `tenants` tenant -> area or `any`: see `allowed_target`. A vault belongs to one
    home. Raises `ResidencyViolation`, `ConfigurationError` or `PermanentError` before anything is copied; `TransientError`
    where another copy is under way, or the vault or the source cannot be used now.
    """
    allowed_target(target_region, areas, tenants)
    check_target(vault, target_region, source.region)
    _check_apart(source.home, vault)
    with alone(source.home) as scratch:
        begun, started = now(), time.monotonic()
        copying = _Copying(source, vault, _base(vault, begun), scratch)
        files = tuple(sorted(copying.all(), key=lambda file: file.path))
        taken = now()
        snapshot = Snapshot(
            snapshots.new_id(taken), begun, taken, source.region, target_region, __version__, files
        )  # fmt: skip
        size = snapshots.write(vault, snapshot)
        left_out = (
            *copying.left_out,
            *state.strangers(source.home, {*snapshots.PARTS, _name_inside(source.home, vault)}),
        )
    if left_out:
        _log.warning("second copy: left out, and not known to be no state: %s", ", ".join(left_out))
    seconds = time.monotonic() - started
    return Copied(snapshot.id, begun, taken, snapshot.parts, copying.new_bytes + size, seconds, left_out)


class _Copying:
    """One copy under way. The parts are read in the order that `replica_state` gives reasons for."""

    def __init__(self, source: Source, vault: Vault, base: Snapshot | None, scratch: Path) -> None:
        self._source = source
        self._vault = vault
        self._scratch = scratch
        self._there = {key.rpartition("/")[2] for key in vault.list("chunks/")}
        self._lock = threading.Lock()
        # What the newest snapshot has need not be read again, unless a chunk of it has gone from the vault.
        self._base = {f.path: f for f in base.files if self._there.issuperset(f.chunks)} if base else {}
        self.new_bytes = 0
        self.left_out: list[str] = []

    def all(self) -> Iterator[File]:
        home = self._source.home
        yield from self._plain(state.dagster_paths(home))
        with ThreadPoolExecutor(WORKERS) as pool:
            yield from self._lake(pool)
            yield from self._evidence(pool)
        yield from self._plain(state.work_paths(home))
        yield from self._plain(state.shown_paths(home))
        yield from self._plain(state.key_paths(home))

    def _lake(self, pool: ThreadPoolExecutor) -> list[File]:
        """The files of a listing of which all could be read: compaction may remove some meanwhile."""
        read: dict[str, File] = {}
        for _ in range(_LISTINGS):
            listed = state.lake_paths(self._source.lake)
            for file in pool.map(self._lake_file, [path for path in listed if path not in read]):
                if file is not None:
                    read[file.path.removeprefix("lake/")] = file
            if all(path in read for path in listed):
                return [read[path] for path in listed]
        raise TransientError(f"{self._source.lake.root}: found files that go while they are listed; copy again later")

    def _lake_file(self, path: str) -> File | None:
        """None where it is gone. Its name ends in the digest of its rows, so the same name is the same content."""
        name = f"lake/{path}"
        if known := self._base.get(name):
            return known
        lake = self._source.lake
        try:
            content = lake.read_bytes(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PermanentError(f"{lake.root}/{path}: found {error.strerror!r}, allowed: a file to be read") from error
        except PermanentError:
            if lake.has(path):
                raise
            return None
        return self._stored(name, io.BytesIO(content))

    def _evidence(self, pool: ThreadPoolExecutor) -> list[File]:
        """Log, bundles and queue of one moment: two listings of what only grows, with the reading between, are equal.

        Else an entry of the log might be copied without its bundle, which is neither filed nor waits: a gap, for audits.
        """
        home, store = self._source.home, self._source.evidence
        for pause in (0.0, *[0.2] * (_LISTINGS - 1)):
            time.sleep(pause)
            heads = list(self._plain(f"evidence/{name}" for name in state.HEADS))
            listed = store.list()
            waiting = state.queue_paths(home)
            filed = list(pool.map(self._evidence_object, listed))
            queue = list(self._plain(waiting))
            if (state.queue_paths(home), store.list()) == (waiting, listed) and len(queue) == len(waiting):
                return [*heads, *filed, *queue]
            self._base |= {file.path: file for file in filed}
        raise TransientError("evidence: found bundles being filed without a pause; copy again later")

    def _evidence_object(self, key: str) -> File:
        name = f"evidence/store/{key}"
        return self._base.get(name) or self._stored(name, io.BytesIO(self._source.evidence.get(key)))

    def _plain(self, paths: Iterable[str]) -> Iterator[File]:
        """Files of the home itself. One that goes before it is read is no state any more."""
        for path in paths:
            if not snapshots.is_plain(path):
                self.left_out.append(repr(path))
                continue
            place = self._source.home / path
            try:
                seen = state.mark(place)
                known = self._base.get(path)
                if known is not None and seen and known.mark == seen:
                    yield known
                    continue
                yield self._read(path, place, seen)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise PermanentError(f"{place}: found {error.strerror!r}, allowed: a file to be read") from error

    def _read(self, path: str, place: Path, seen: str) -> File:
        if path.startswith("keys/"):
            state.check_public(place, place.read_bytes())
        if not state.is_database(place):
            with place.open("rb") as stream:
                return self._stored(path, stream, seen)
        target = self._scratch / "database"
        try:
            state.backup(place, target)
            with target.open("rb") as stream:
                return self._stored(path, stream, seen)
        finally:
            target.unlink(missing_ok=True)

    def _stored(self, path: str, stream: IO[bytes], seen: str = "") -> File:
        whole, size, chunks = hashlib.sha256(), 0, []
        while data := stream.read(CHUNK_BYTES):
            whole.update(data)
            size += len(data)
            chunks.append(self._chunk(data))
        return File(path, size, whole.hexdigest(), tuple(chunks), seen)

    def _chunk(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            if digest in self._there:
                return digest
            # Another thread may take it for stored before it is: no snapshot is written unless all of them were.
            self._there.add(digest)
            self.new_bytes += len(data)
        self._vault.put(chunk_key(digest), data)
        return digest


def _base(vault: Vault, now: datetime) -> Snapshot | None:
    """The newest snapshot, where it can be read."""
    there = snapshots.ids(vault)
    if not there:
        return None
    if snapshots.taken_at(there[-1]) > now + _CLOCK_TOLERANCE:
        raise TransientError(
            f"this host's clock shows {now:%Y-%m-%dT%H:%M:%SZ}, the newest snapshot is {there[-1]}; set the clock right "
            "(NTP); a copy would count as older than it"
        )
    try:
        return snapshots.read(vault, there[-1])
    except PermanentError as error:
        _log.warning("second copy: everything is read again, because the newest snapshot cannot be: %s", error)
        return None


def _name_inside(home: Path, vault: Vault) -> str:
    """The home's own folder that the vault lies in; empty where it lies elsewhere."""
    if isinstance(vault, LocalVault) and vault.root.resolve().is_relative_to(home.resolve()):
        return vault.root.resolve().relative_to(home.resolve()).parts[0]
    return ""


def _check_apart(home: Path, vault: Vault) -> None:
    if not isinstance(vault, LocalVault):
        return
    root, home = vault.root.resolve(), home.resolve()
    if root == home or root in home.parents or any(root.is_relative_to(home / name) for name in snapshots.PARTS):
        raise ConfigurationError(
            f"{root}: found the second copy inside of what is copied, allowed: a place outside {home}"
        )
