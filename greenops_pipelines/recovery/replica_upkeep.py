"""Keeping the second copy worth its name: `verify` reads a whole snapshot back, `prune` lets old ones go.

Not here: taking a copy (`replica.py`), and bringing a home back from one (`restore.py`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from greenops_pipelines.errors import ObjectMissing
from greenops_pipelines.recovery import snapshots
from greenops_pipelines.recovery.replica_lock import WORKERS, alone
from greenops_pipelines.recovery.snapshots import File, chunk_key, snapshot_key
from greenops_pipelines.recovery.vault import Vault

YOUNGEST_SWEPT = timedelta(hours=24)
"""A chunk that no snapshot names may be of a copy that is under way elsewhere; none takes a day."""
_FAULTS_SHOWN = 20


@dataclass(frozen=True)
class Keep:
    """How long snapshots stay: all of the last `hours`, then the newest of each UTC day and month, today's included."""

    hours: int = 48
    days: int = 35
    months: int = 13


@dataclass(frozen=True)
class Pruned:
    """What went, and what stayed."""

    kept: tuple[str, ...]
    removed: tuple[str, ...]
    chunks_kept: int
    chunks_removed: int
    chunks_young: int
    """Named by no snapshot, and too young to go."""


@dataclass(frozen=True)
class Verified:
    """A snapshot read back: what was read, and what is wrong with it. `faults` are the first ones."""

    snapshot: str
    files: int
    bytes: int
    chunks: int
    fault_count: int
    faults: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        return not self.fault_count


def verify(vault: Vault, snapshot: str | None = None) -> Verified:
    """Reads every chunk of a snapshot (None: of the newest), and holds chunks and files against their digests.

    A damaged chunk is mended by removing it from the vault and copying again, as long as the source has the file.
    Raises as `snapshots.read`.
    """
    started = time.monotonic()
    found = snapshots.read(vault, snapshot)
    with ThreadPoolExecutor(WORKERS) as pool:
        faults = [fault for fault in pool.map(lambda file: _fault(vault, file), found.files) if fault]
    return Verified(
        found.id,
        len(found.files),
        sum(file.size for file in found.files),
        len(found.chunks),
        len(faults),
        tuple(faults[:_FAULTS_SHOWN]),
        time.monotonic() - started,
    )


def _fault(vault: Vault, file: File) -> str:
    """What is wrong with a file of a snapshot; empty where nothing is."""
    whole, size = hashlib.sha256(), 0
    for chunk in file.chunks:
        try:
            data = vault.get(chunk_key(chunk))
        except ObjectMissing:
            return f"{file.path}: chunk {chunk} is missing"
        if (found := hashlib.sha256(data).hexdigest()) != chunk:
            return f"{file.path}: chunk {chunk} is damaged: its bytes have the digest {found}"
        whole.update(data)
        size += len(data)
    if (whole.hexdigest(), size) != (file.sha256, file.size):
        return f"{file.path}: its chunks come to {size:,} bytes with the digest {whole.hexdigest()}, not to the file"
    return ""


def prune(vault: Vault, home: Path, now: datetime, keep: Keep = Keep()) -> Pruned:
    """Removes the snapshots that `keep` does not ask for, then the chunks that no snapshot names any more.

    The newest snapshot always stays. Killed in between, it leaves chunks that the next one removes. No copy of `home`
    runs meanwhile. Raises `TransientError` where one does, `PermanentError` where a snapshot that stays is damaged: what
    it needs could not be told from what nobody needs, so nothing is removed.
    """
    with alone(home):
        there = snapshots.ids(vault)
        kept = _kept(there, now, keep)
        needed: set[str] = set()
        for snapshot in kept:
            needed |= snapshots.read(vault, snapshot).chunks
        removed = tuple(snapshot for snapshot in there if snapshot not in kept)
        for snapshot in removed:
            vault.delete(snapshot_key(snapshot))
        chunks = vault.list("chunks/")
        unnamed = [key for key in chunks if key.rpartition("/")[2] not in needed]
        with ThreadPoolExecutor(WORKERS) as pool:
            gone = list(pool.map(lambda key: _sweep(vault, key, now), unnamed))
    swept = sum(gone)
    return Pruned(kept, removed, len(chunks) - len(unnamed), swept, len(unnamed) - swept)


def _sweep(vault: Vault, key: str, now: datetime) -> bool:
    try:
        if now - vault.modified(key) < YOUNGEST_SWEPT:
            return False
    except ObjectMissing:
        return True
    vault.delete(key)
    return True


def _kept(there: Iterable[str], now: datetime, keep: Keep) -> tuple[str, ...]:
    """Of identifiers in order of time, those that stay, in that order."""
    ordered = tuple(there)
    # In order, so that the newest of a day and of a month is the one that remains.
    daily = {snapshots.taken_at(each).date(): each for each in ordered}
    monthly = {(day.year, day.month): each for day, each in daily.items()}

    def stays(each: str) -> bool:
        taken = snapshots.taken_at(each)
        day = taken.date()
        months = 12 * (now.year - day.year) + now.month - day.month
        return (
            each == ordered[-1]
            or now - taken <= timedelta(hours=keep.hours)
            or (daily[day] == each and (now.date() - day).days < keep.days)
            or (monthly[day.year, day.month] == each and months < keep.months)
        )

    return tuple(filter(stays, ordered))
