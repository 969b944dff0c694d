"""The log's hashes as write-once tiles (the layout of C2SP `tlog-tiles`), read, and rebuilt where one is missing.

A tile holds up to 256 hashes of one level; level L's are those over 256^L entries each. A tile's bytes follow from
the entries below it, so writers that race write the same bytes, and a tile that a killed writer left out is made
again from the level below. Not here: who may append, and what an entry says.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from greenops_pipelines.errors import ObjectMissing, PermanentError
from greenops_pipelines.evidence import merkle
from greenops_pipelines.store.objects import ObjectStore

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
_KEPT_TILES = 512
"""8 KiB each: 4 MiB in memory, enough for every tile that proofs from 100,000 neighbouring entries touch."""


def path(number: int) -> str:
    """`1234067` -> `x001/x234/067`: no folder ever holds more than a thousand names."""
    text = f"{number % 1000:03d}"
    while number := number // 1000:
        text = f"x{number % 1000:03d}/{text}"
    return text


def entry_key(index: int) -> str:
    return f"log/entry/{path(index)}"


def checkpoint_key(size: int) -> str:
    return f"log/checkpoint/{path(size)}"


class Tiles:
    """The hashes over the first `size` entries of the log in `store`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._full: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._partial: dict[tuple[int, int], bytes] = {}

    def node(self, size: int, level: int, index: int) -> bytes:
        """The hash over the entries `index << level` up to `(index + 1) << level`, of which all are below `size`."""
        tile_level, inner = divmod(level, HEIGHT)
        first = index << inner
        hashes = self._tile(size, tile_level, first // WIDTH)
        start = 32 * (first % WIDTH)
        return _folded(hashes[start : start + (32 << inner)])

    def root(self, size: int) -> bytes:
        return merkle.root(size, lambda level, index: self.node(size, level, index))

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        return tuple(merkle.inclusion_proof(index, size, lambda level, number: self.node(size, level, number)))

    def consistency_proof(self, old: int, new: int) -> tuple[bytes, ...]:
        return tuple(merkle.consistency_proof(old, new, lambda level, number: self.node(new, level, number)))

    def store_edge(self, size: int) -> None:
        """Stores the tiles at the right edge of a tree that has just grown to `size` entries."""
        level = 0
        while (count := size >> (HEIGHT * level)) and size % (1 << (HEIGHT * level)) == 0:
            number = (count - 1) // WIDTH
            self._store.put(_key(level, number, count - number * WIDTH), self._tile(size, level, number))
            level += 1

    def _tile(self, size: int, level: int, number: int) -> bytes:
        """The tile as it is in a tree of `size` entries: 32 bytes for each hash it then holds."""
        width = min(WIDTH, (size >> (HEIGHT * level)) - number * WIDTH)
        if width < 1:
            raise ValueError(f"no tile {number} on level {level} in a tree of {size}")
        place = (level, number)
        if place in self._full:
            self._full.move_to_end(place)
            return self._full[place][: 32 * width]
        known = self._partial.get(place, b"")
        if len(known) >= 32 * width:
            return known[: 32 * width]
        try:
            found = self._store.get(_key(level, number, width))
        except ObjectMissing:
            found = known + b"".join(
                self._hash_below(size, level, number * WIDTH + i) for i in range(len(known) // 32, width)
            )
        if len(found) != 32 * width:
            raise PermanentError(f"log tile {_key(level, number, width)}: found {len(found)} bytes, not {32 * width}")
        if width == WIDTH:
            self._partial.pop(place, None)
            self._full[place] = found
            if len(self._full) > _KEPT_TILES:
                self._full.popitem(last=False)
        else:
            self._partial[place] = found
        return found

    def _hash_below(self, size: int, level: int, index: int) -> bytes:
        if level == 0:
            return merkle.leaf_hash(self._store.get(entry_key(index)))
        return _folded(self._tile(size, level - 1, index))


def _folded(hashes: bytes) -> bytes:
    """The root over a power of two of hashes."""
    row = [hashes[i : i + 32] for i in range(0, len(hashes), 32)]
    while len(row) > 1:
        row = [merkle.node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def _key(level: int, number: int, width: int) -> str:
    return f"log/tile/{level}/{path(number)}" + ("" if width == WIDTH else f".p/{width}")
