"""What filing and verifying evidence costs, and what a proof costs from a log that has grown to a million entries.

Bundles are filed as in production: write-once store, every fsync, log, checkpoints in a second place; without GPG and
with it. The floor is the same bytes under the same guarantees and nothing else: one object in the write-once store.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Row
from greenops_pipelines.errors import ObjectMissing
from greenops_pipelines.evidence import merkle
from greenops_pipelines.evidence.opening import Evidence
from greenops_pipelines.evidence.tiles import HEIGHT, WIDTH, Tiles, path
from greenops_pipelines.settings import Settings
from greenops_pipelines.store.local import LocalObjectStore

BUNDLES = int(os.environ.get("GREENOPS_BENCH_BUNDLES", "1000"))
ENTRIES = 1_000_000
PROOFS = 500
FILES = {"scorecard.json": b"{}" * 2_000, "steps.log": b"step\n" * 2_000}


def main() -> list[Row]:
    """Seconds per bundle, milliseconds per proof."""
    with tempfile.TemporaryDirectory(prefix="greenops-bench-") as folder:
        rows = _bundles(Path(folder) / "plain", "off")
        if shutil.which("gpg"):
            rows += _bundles(Path(folder) / "gpg", "required")
    return rows + _proofs()


def _bundles(home: Path, gpg: str) -> list[Row]:
    second = str(home.with_suffix(".second"))
    evidence = Evidence(Settings(_env_file=None, home=home, evidence_gpg=gpg, evidence_checkpoints=second))
    kind = "with GPG" if gpg == "required" else "without GPG"
    first = evidence.archive.file("J4.2", "warm-up", {}, FILES, "passed").id
    filed: list[str] = []
    filing = _timed(
        lambda: filed.append(evidence.archive.file("J4.2", "drill", {"RPO seconds": 0.04}, FILES, "passed").id), BUNDLES
    )
    trust, remaining = evidence.trust(), iter(filed)
    verifying = _timed(lambda: _require(evidence.verify(next(remaining), trust).ok), BUNDLES)
    audit = _timed(lambda: _require(evidence.audit(trust).ok), 1)[0]
    bare, data = LocalObjectStore(home / "bare"), evidence.archive.get(first)
    names = iter(range(100))
    floor = statistics.mean(_timed(lambda: bare.put(f"bundles/{next(names)}", data), 100))
    mean = statistics.mean(filing)
    return [
        Row(
            f"file {BUNDLES:,} bundles {kind}, each",
            mean,
            "s",
            f"{mean / floor:.0f}x one object of {len(data):,} bytes",
        ),
        Row(f"  its 99th percentile, {kind}", statistics.quantiles(filing, n=100)[98], "s"),
        Row(f"verify {BUNDLES:,} bundles {kind}, each", statistics.mean(verifying), "s"),
        Row(f"audit that log and its bundles, {kind}", audit, "s"),
    ]


class _Tiles:
    """A store that holds tiles in memory and nothing else: a proof needs no entries."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.reads = 0

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def get(self, key: str) -> bytes:
        self.reads += 1
        if key not in self.objects:
            raise ObjectMissing(key)
        return self.objects[key]

    def exists(self, key: str) -> bool:
        return key in self.objects

    def list(self, prefix: str = "") -> tuple[str, ...]:
        return tuple(sorted(key for key in self.objects if key.startswith(prefix)))


def _grown() -> _Tiles:
    store = _Tiles()
    level, row = 0, [merkle.leaf_hash(str(n).encode()) for n in range(ENTRIES)]
    while row:
        above = []
        for number in range(-(-len(row) // WIDTH)):
            tile = row[number * WIDTH : (number + 1) * WIDTH]
            width = "" if len(tile) == WIDTH else f".p/{len(tile)}"
            store.put(f"log/tile/{level}/{path(number)}{width}", b"".join(tile))
            if len(tile) == WIDTH:
                for _ in range(HEIGHT):
                    tile = [merkle.node_hash(tile[i], tile[i + 1]) for i in range(0, len(tile), 2)]
                above += tile
        level, row = level + 1, above
    return store


def _proofs() -> list[Row]:
    store = _grown()
    root = Tiles(store).root(ENTRIES)
    indices = list(range(0, ENTRIES, ENTRIES // PROOFS))
    asked = iter(indices)
    proofs: list[tuple[bytes, ...]] = []
    store.reads = 0
    proving = _timed(lambda: proofs.append(Tiles(store).inclusion_proof(next(asked), ENTRIES)), PROOFS)
    reads = store.reads / PROOFS
    checks = iter(zip(indices, proofs, strict=True))

    def check() -> None:
        index, proof = next(checks)
        _require(merkle.includes(merkle.leaf_hash(str(index).encode()), index, ENTRIES, proof, root))

    checking = _timed(check, PROOFS)
    consistency = _timed(lambda: Tiles(store).consistency_proof(ENTRIES // 3, ENTRIES), 50)
    cold = f"nothing cached, {reads:.0f} tiles read"
    return [
        Row("inclusion proof against 1,000,000 entries", statistics.mean(proving) * 1_000, "ms", cold),
        Row("  its verification", statistics.mean(checking) * 1_000, "ms"),
        Row(
            "consistency proof, 333,333 to 1,000,000 entries",
            statistics.mean(consistency) * 1_000,
            "ms",
            "nothing cached",
        ),
    ]


def _require(condition: bool) -> None:
    assert condition


def _timed(action: Callable[[], object], times: int) -> list[float]:
    """Seconds of each of so many runs."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return seconds
