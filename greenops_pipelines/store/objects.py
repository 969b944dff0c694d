"""What a write-once object store must offer, and which keys it takes. Not here: any particular store.

There is no delete and no overwrite. A second `put` of the same bytes under the same key is accepted, because a
writer that timed out, or was killed after its write landed, must be able to try again without knowing which.
"""

from __future__ import annotations

import unicodedata
from typing import Protocol

from greenops_pipelines.errors import BadInput

MAX_KEY_BYTES = 1024
"""S3's limit."""
MAX_SEGMENT_BYTES = 255
"""The limit of a file name on ext4, XFS and APFS."""
INCOMING = ".incoming"
"""First segment that no key may have: the local store writes its temporary files there."""


class ObjectStore(Protocol):
    """Objects that are written once and read for ever.

    Keys are checked by `check_key` (`BadInput`). A key must not continue another one as if that were a folder:
    with `a/b` stored, a local folder cannot take `a`, and says so with `BadInput`. Any method may raise
    `TransientError` (try again later) or `PermanentError` (what to change).
    """

    def put(self, key: str, data: bytes) -> None:
        """Stores `data`; when this returns, the object is whole and survives a power cut.

        Raises `ObjectExists` where other bytes stand under the key already; the same bytes again are accepted.
        """
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes; raises `ObjectMissing`."""
        ...

    def exists(self, key: str) -> bool:
        """Whether the object is there, whole."""
        ...

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """The keys that start with `prefix` (text, not a folder: `2026-0` finds `2026-01/a`), sorted."""
        ...


def check_key(key: str) -> str:
    """`key` itself, where every store can hold it and it names one place below the root; else `BadInput`.

    Allowed: segments joined by single slashes, none of them `.` or `..`, no backslash, no control or invisible
    characters, Unicode in NFC (two spellings of one name would be one file on some systems and two on others),
    at most 255 bytes a segment and 1,024 in all.
    """
    segments = key.split("/")
    for wrong, allowed in (
        (not key, "at least one character"),
        (any(_is_invisible(character) for character in key), "no control or invisible characters"),
        ("\\" in key, "forward slashes only"),
        (key.startswith("/"), "no slash at the start"),
        ("" in segments, "one slash between segments, none at the end"),
        ("." in segments or ".." in segments, "no segment '.' or '..'"),
        (segments[0] == INCOMING, f"another first segment than {INCOMING}"),
        (unicodedata.normalize("NFC", key) != key, "Unicode in the composed form (NFC)"),
    ):
        if wrong:
            raise BadInput(f"object key: found {key[:80]!r}, allowed: {allowed}")
    if len(key.encode()) > MAX_KEY_BYTES or any(len(segment.encode()) > MAX_SEGMENT_BYTES for segment in segments):
        limits = f"{MAX_SEGMENT_BYTES} bytes a segment, {MAX_KEY_BYTES} in all"
        raise BadInput(f"object key: found {len(key.encode())} bytes ({key[:40]!r}...), allowed: {limits}")
    return key


def _is_invisible(character: str) -> bool:
    # Control, format (bidirectional overrides, zero width), lone surrogates, line and paragraph separators.
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
