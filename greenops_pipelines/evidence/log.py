"""The transparency log: an append-only list of entries in a write-once store, and the signed checkpoints over it.

An entry's number is taken by storing it under that number, which only one writer can; so two writers need no lock,
and a writer that is killed leaves either nothing or an entry that the next one builds on. Before anything is signed,
the log must continue what this home has seen of it. Not here: what an entry says, and the second place for
checkpoints (`publication.py`).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from greenops_pipelines.errors import ObjectExists, ObjectMissing, PermanentError, TransientError
from greenops_pipelines.evidence import merkle
from greenops_pipelines.evidence.checkpoint import Checkpoint, LogKey, LogVerifier, Proof
from greenops_pipelines.evidence.statement import Entry, time_of, time_text
from greenops_pipelines.evidence.tiles import Tiles, checkpoint_key, entry_key
from greenops_pipelines.store.objects import ObjectStore

CLOCK_TOLERANCE = timedelta(seconds=60)
"""How far two hosts' clocks may differ before one counts as wrong. NTP keeps them within a second."""
_LOOK_BACK = 256
"""Checkpoints that killed writers may have left out in a row."""


class LogBroken(PermanentError):
    """The log is not the one this home has seen: truncated, forked, or another one."""


class ClockSetBack(TransientError):
    """This host's clock stands before the log's newest entry."""


@dataclass(frozen=True)
class Logged:
    """An entry and its place in the log."""

    entry: bytes
    proof: Proof


class Log:
    """The log in `store`, signed with `key`. `seen` is the file with the newest checkpoint this home knows."""

    def __init__(self, store: ObjectStore, key: LogKey, seen: Path) -> None:
        self._store = store
        self._key = key
        self._seen = seen
        self._tiles = Tiles(store)

    @property
    def verifier(self) -> LogVerifier:
        return self._key.verifier

    def size(self) -> int:
        """The number of entries; raises `LogBroken` where they do not continue what was seen before."""
        known = self.seen()
        low = known.size if known else 0
        if known and not self._store.exists(entry_key(known.size - 1)):
            raise LogBroken(
                f"the log {known.origin} is truncated: found no entry {known.size - 1:,}, seen were {known.size:,} entries; "
                "bring the store back from a backup"
            )
        size = self._count_from(low)
        if known and self._tiles.root(known.size) != known.root:
            raise LogBroken(
                f"the log {known.origin} is forked: its first {known.size:,} entries are not those seen before; "
                "bring the store back from a backup"
            )
        for candidate in range(size, max(low, size - _LOOK_BACK), -1):
            note = self.checkpoint(candidate)
            if note is not None:
                self._accept(note, candidate)
                break
        return size

    def seen(self) -> Checkpoint | None:
        """The newest checkpoint this home knows of."""
        try:
            return self.verifier.open(self._seen.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise LogBroken(f"{self._seen}: {error}; the log's key in keys/ is not the one it was") from error

    def check_clock(self, size: int, now: datetime) -> None:
        """Raises `ClockSetBack` where `now` lies before the newest entry's time."""
        if size == 0:
            return
        newest = time_of(self.entry(size - 1).logged_at)
        if now < newest - CLOCK_TOLERANCE:
            raise ClockSetBack(
                f"this host's clock shows {time_text(now)}, the log's newest entry is of {time_text(newest)}; "
                "set the clock right (NTP); nothing is signed before"
            )

    def append(self, bundle_id: str, since: int, build: Callable[[datetime], bytes], now: datetime) -> Logged:
        """Appends `build(now)`, or finds the entry of that bundle that an earlier try appended at `since` or later."""
        size = self.size()
        index, entry = self._find(bundle_id, since, size)
        if index is None:
            entry = build(now)
            index = size
            while True:
                self.check_clock(index, now)
                try:
                    self._store.put(entry_key(index), entry)
                    break
                except ObjectExists:
                    index += 1  # another writer was faster
        return Logged(entry, self._prove(index, entry))

    def entry(self, index: int) -> Entry:
        try:
            return Entry.read(self._store.get(entry_key(index)))
        except ValueError as error:
            raise LogBroken(f"log entry {index:,}: {error}") from error
        except ObjectMissing as error:
            raise LogBroken(f"log entry {index:,}: found none, allowed: no gap") from error

    def checkpoint(self, size: int) -> str | None:
        """The stored checkpoint over the first `size` entries, if one was made."""
        try:
            return self._store.get(checkpoint_key(size)).decode("utf-8", "replace")
        except ObjectMissing:
            return None

    def _prove(self, index: int, entry: bytes) -> Proof:
        size = index + 1
        try:
            self._tiles.store_edge(size)
            root = self._tiles.root(size)
            path = self._tiles.inclusion_proof(index, size)
            if not merkle.includes(merkle.leaf_hash(entry), index, size, path, root):
                raise LogBroken(f"the log {self._key.origin}: its tiles do not belong to its entries at {index:,}")
            note = self._key.sign(size, root)
            self._store.put(checkpoint_key(size), note.encode())
        except ObjectExists as error:
            raise LogBroken(f"the log {self._key.origin} is forked at {size:,} entries: {error}") from error
        self._remember(note, size)
        return Proof(index, path, note)

    def _accept(self, note: str, size: int) -> None:
        try:
            found = self.verifier.open(note)
        except ValueError as error:
            raise LogBroken(
                f"checkpoint {size:,}: {error}; two writers of one log need the same keys/log.key"
            ) from error
        if found.size != size or found.root != self._tiles.root(size):
            raise LogBroken(
                f"the log {found.origin} is forked: checkpoint {size:,} is not over the entries in the store"
            )
        self._remember(note, size)

    def _find(self, bundle_id: str, since: int, size: int) -> tuple[int | None, bytes]:
        for index in range(since, size):
            if self.entry(index).bundle == bundle_id:
                return index, self._store.get(entry_key(index))
        return None, b""

    def _count_from(self, known: int) -> int:
        """The number of entries, of which `known` are there: by doubling, then halving the steps."""
        low, step = known, 1
        while self._store.exists(entry_key(low + step - 1)):
            low, step = low + step, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            if self._store.exists(entry_key(middle - 1)):
                low = middle
            else:
                high = middle
        return low

    def _remember(self, note: str, size: int) -> None:
        known = self.seen()
        if known and known.size >= size:
            return
        self._seen.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._seen.with_name(f".{self._seen.name}.{os.getpid()}-{secrets.token_hex(4)}")
        with temporary.open("xb") as stream:
            stream.write(note.encode())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._seen)
