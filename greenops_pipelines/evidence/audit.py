"""The log as a whole: every entry, every checkpoint, every bundle, and what the second place knows of them.

Reads everything and changes nothing; a bundle by itself is verified without any of this. Not here: repair, because a
log that needs it has lost its worth.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from greenops_pipelines.errors import ObjectMissing, PermanentError
from greenops_pipelines.evidence import merkle
from greenops_pipelines.evidence.archive import key
from greenops_pipelines.evidence.checkpoint import Checkpoint, LogVerifier
from greenops_pipelines.evidence.log import CLOCK_TOLERANCE, Log
from greenops_pipelines.evidence.publication import Place, folder
from greenops_pipelines.evidence.report import Finding, Trust
from greenops_pipelines.evidence.statement import Entry, time_of
from greenops_pipelines.evidence.tiles import Tiles, checkpoint_key, entry_key
from greenops_pipelines.evidence.verify import verify
from greenops_pipelines.store.objects import ObjectStore


@dataclass(frozen=True)
class Audit:
    """What was found; `entries` and `bundles` are counts."""

    entries: int
    bundles: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.state != "failed" for finding in self.findings)


class _Walk:
    """One pass over the log, keeping O(log n) hashes: the roots of the complete subtrees at the right edge."""

    def __init__(self, store: ObjectStore, verifier: LogVerifier) -> None:
        self._store = store
        self._verifier = verifier
        self.sizes: set[int] = set()
        self._edge: list[tuple[int, bytes]] = []
        self.checkpoints: dict[int, Checkpoint] = {}
        self._newest = datetime(1970, 1, 2, tzinfo=UTC)
        self.bundles: set[str] = set()

    def add(self, index: int) -> None:
        """Takes in one entry; `ValueError` says what is wrong with it or with the checkpoint over it."""
        try:
            document = self._store.get(entry_key(index))
        except ObjectMissing:
            raise ValueError(f"entry {index:,} is missing") from None
        entry = Entry.read(document)
        if entry.bundle in self.bundles:
            raise ValueError(f"entry {index:,} logs {entry.bundle} a second time")
        if time_of(entry.logged_at) < self._newest - CLOCK_TOLERANCE:
            raise ValueError(f"entry {index:,} of {entry.logged_at} is older than one before it: a clock was set back")
        self._newest = max(self._newest, time_of(entry.logged_at))
        self.bundles.add(entry.bundle)
        level, node = 0, merkle.leaf_hash(document)
        while self._edge and self._edge[-1][0] == level:
            level, node = level + 1, merkle.node_hash(self._edge.pop()[1], node)
        self._edge.append((level, node))
        if index + 1 in self.sizes:
            self._compare(index + 1)

    def _compare(self, size: int) -> None:
        found = self._verifier.open(self._store.get(checkpoint_key(size)).decode("utf-8", "replace"))
        root = self._edge[-1][1]
        for _, node in reversed(self._edge[:-1]):
            root = merkle.node_hash(node, root)
        if found.size != size or found.root != root:
            raise ValueError(f"checkpoint {size:,} is not over the entries in the store: the log is forked")
        self.checkpoints[size] = found


def audit(
    store: ObjectStore, log: Log, trust: Trust, place: Place | None, waiting: Callable[[], Collection[str]]
) -> Audit:
    """Everything about the log in `store`, which may grow meanwhile.

    `waiting` gives the bundles of this home that are logged perhaps, and not filed yet. One that another host has just
    logged, and files next, is missed like one that is gone: ask again.
    """
    findings: list[Finding] = []
    walk = _Walk(store, log.verifier)
    filed: set[str] = set()
    size = 0

    def entries() -> str:
        nonlocal size
        for name in store.list("log/checkpoint/"):
            walk.sizes.add(int(name.removeprefix("log/checkpoint/").replace("x", "").replace("/", "")))
        size = log.size()
        for index in range(size):
            walk.add(index)
        if (last := max(walk.sizes, default=0)) > size:
            raise ValueError(f"checkpoint {last:,} is over more than the {size:,} entries found: truncated")
        return f"{size:,} entries, {len(walk.checkpoints):,} checkpoints"

    def history() -> str:
        seen = log.seen()
        return f"continues {seen.size:,} entries seen by this home" if seen else "nothing seen before"

    def bundles() -> str:
        # In this order: a bundle is logged, waits, and is filed; then those filed since the walk are walked as well.
        logged, waits = frozenset(walk.bundles), frozenset(waiting())
        filed.update(name.rpartition("/")[2].removesuffix(".tar") for name in store.list("bundles/"))
        for index in range(size, log.size()):
            walk.add(index)
        for bundle in sorted(logged - filed - waits):
            raise ValueError(f"{bundle} is logged, and not in the store")
        for bundle in sorted(filed - walk.bundles):
            raise ValueError(f"{bundle} is in the store, and not logged")
        for bundle in sorted(filed):
            report = verify(store.get(key(bundle)), trust, expected_id=bundle)
            if not report.ok:
                raise ValueError(f"{bundle}: {report.summary}")
        return f"{len(filed):,} bundles verified"

    def published() -> str:
        if place is None:
            raise _Nothing("no second place is configured (GREENOPS_EVIDENCE_CHECKPOINTS)")
        found = list(_published(place, log.verifier))
        tiles = Tiles(store)
        for name, old in found:
            if old.size > size:
                raise ValueError(f"{name} is over {old.size:,} entries, the log has {size:,}: truncated")
            proof = tiles.consistency_proof(old.size, size)
            if not merkle.consistent(old.size, old.root, size, tiles.root(size), proof):
                raise ValueError(f"the log does not continue {name}: forked")
        return f"continues {len(found):,} published checkpoints"

    for name, check in (
        ("log", entries),
        ("history", history),
        ("bundles", bundles),
        ("checkpoints published", published),
    ):
        try:
            findings.append(Finding(name, "passed", check()))
        except _Nothing as reason:
            findings.append(Finding(name, "absent", str(reason)))
        except (ValueError, PermanentError) as error:
            findings.append(Finding(name, "failed", str(error)))
    return Audit(size, len(filed), tuple(findings))


class _Nothing(Exception):
    """There is nothing to compare with."""


def _published(place: Place, verifier: LogVerifier) -> Iterator[tuple[str, Checkpoint]]:
    for name in place.read_all(folder(verifier.origin)):
        note = place.read(name) or b""
        yield name, verifier.open(note.decode("utf-8", "replace"))
