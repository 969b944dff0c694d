"""What a snapshot is: one JSON document that names every file of a copy, and the chunks that the file is made of.

Files are cut every 1 MiB; a chunk lies once in the vault, under its digest, however many files and snapshots name it.
The document is written last, so a snapshot is there whole or not at all. Not here: what is copied, and restoring it.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from greenops_pipelines import strict_json
from greenops_pipelines.errors import BadInput, ObjectMissing, PermanentError
from greenops_pipelines.recovery.vault import Vault

FORMAT = 1
CHUNK_BYTES = 1 << 20
"""Small enough that a changed page of a database costs little, large enough that a chunk is worth its request."""

PARTS: Mapping[str, str] = {
    "dagster": "dagster",
    "lake": "lake",
    "evidence": "evidence",
    "inbox": "work",
    "dispatches": "work",
    "submissions": "work",
    "gitops": "gitops",
    "reports": "reports",
    "keys": "keys",
}
"""First folder of a file's path -> the part of the copy it belongs to."""

_KEY = re.compile(r"snapshots/(?P<id>\d{8}T\d{6}Z-[0-9a-f]{8})\.json")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """A file of a snapshot. `path` is relative to the home; `mark` tells whether the source changed since."""

    path: str
    size: int
    sha256: str
    chunks: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True)
class Part:
    """What belongs together, as figures; `digest` is over its sorted lines "<path> <sha256>"."""

    files: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class Snapshot:
    """A whole copy. What was on disk before `begun_at` is in it; what came until `taken_at` may be. Times are UTC."""

    id: str
    begun_at: datetime
    taken_at: datetime
    source_region: str
    target_region: str
    product: str
    files: tuple[File, ...] = field(repr=False)

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """The parts that have files, in the order of PARTS."""
        found: dict[str, list[File]] = defaultdict(list)
        for file in self.files:
            found[part_of(file.path)].append(file)
        order = [name for name in dict.fromkeys(PARTS.values()) if name in found]
        return {name: part({file.path: (file.size, file.sha256) for file in found[name]}) for name in order}

    @cached_property
    def chunks(self) -> frozenset[str]:
        """The digest of every chunk it needs."""
        return frozenset(chunk for file in self.files for chunk in file.chunks)


def part_of(path: str) -> str:
    """The part a path belongs to."""
    return PARTS[path.partition("/")[0]]


def part(files: Mapping[str, tuple[int, str]]) -> Part:
    """The figures over path -> (size, sha256)."""
    lines = "".join(f"{path} {sha256}\n" for path, (_, sha256) in sorted(files.items()))
    return Part(len(files), sum(size for size, _ in files.values()), hashlib.sha256(lines.encode()).hexdigest())


def chunk_key(digest: str) -> str:
    """Where a chunk lies."""
    return f"chunks/{digest[:2]}/{digest}"


def snapshot_key(snapshot: str) -> str:
    """Where a snapshot's document lies."""
    return f"snapshots/{snapshot}.json"


def new_id(taken_at: datetime) -> str:
    """An identifier that sorts by time to the microsecond, and differs for two copies that end in the same one."""
    utc = taken_at.astimezone(UTC)
    return f"{utc:%Y%m%dT%H%M%SZ}-{utc.microsecond:05x}{secrets.randbelow(16**3):03x}"


def taken_at(snapshot: str) -> datetime:
    """When a snapshot was taken, to the second, from its identifier."""
    return datetime.strptime(snapshot[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def ids(vault: Vault) -> tuple[str, ...]:
    """The snapshots in a vault, oldest first."""
    found = map(_KEY.fullmatch, vault.list("snapshots/"))
    return tuple(sorted(match["id"] for match in found if match))


def write(vault: Vault, snapshot: Snapshot) -> int:
    """Stores the document, from when on the snapshot counts; its size in bytes.

    Raises `PermanentError` for a file that it could not be read back with.
    """
    for file in snapshot.files:
        if not is_plain(file.path):
            raise PermanentError(f"{file.path[:80]!r}: found controls or dots in its path; rename it, and copy again")
    data = _document(snapshot)
    vault.put(snapshot_key(snapshot.id), data)
    return len(data)


def read(vault: Vault, snapshot: str | None = None) -> Snapshot:
    """The named snapshot, or the newest.

    Raises `BadInput` where there is none of that name, `PermanentError` where it is damaged or of a newer product.
    """
    there = ids(vault)
    if not there:
        raise BadInput(f"{vault.place}: found no snapshot, allowed: a place that `greenops replica copy` copied to")
    if snapshot is None:
        snapshot = there[-1]
    elif snapshot not in there:
        raise BadInput(f"snapshot {snapshot!r}: found none of that name, allowed: {listed(there)}")
    try:
        return _read(snapshot, vault.get(snapshot_key(snapshot)))
    except ObjectMissing:
        raise PermanentError(f"snapshot {snapshot}: it was removed meanwhile; take a newer one") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        others = [other for other in there if other != snapshot]
        raise PermanentError(
            f"{vault.place}/{snapshot_key(snapshot)}: damaged ({error}); remove it, and take another snapshot: "
            f"{listed(others)}"
        ) from error


def listed(snapshots: Iterable[str]) -> str:
    """Identifiers for a message: the newest five."""
    newest = sorted(snapshots, reverse=True)
    more = f" and {len(newest) - 5} older" if len(newest) > 5 else ""
    return ", ".join(newest[:5]) + more if newest else "there is none"


def _document(snapshot: Snapshot) -> bytes:
    body = {
        "format": FORMAT,
        "id": snapshot.id,
        "begun_at": snapshot.begun_at.isoformat(),
        "taken_at": snapshot.taken_at.isoformat(),
        "source_region": snapshot.source_region,
        "target_region": snapshot.target_region,
        "product": snapshot.product,
        "parts": {
            name: {"files": part.files, "bytes": part.bytes, "digest": part.digest}
            for name, part in snapshot.parts.items()
        },
        "files": [
            {"path": file.path, "size": file.size, "sha256": file.sha256, "chunks": list(file.chunks)}
            | ({"mark": file.mark} if file.mark else {})
            for file in snapshot.files
        ],
    }
    return _text(body | {"sha256": hashlib.sha256(_text(body)).hexdigest()})


def _text(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _read(name: str, data: bytes) -> Snapshot:
    body: Any = strict_json.loads(data)
    if not isinstance(body, dict):
        raise TypeError("no JSON object")
    if body["format"] != FORMAT:
        raise PermanentError(
            f"snapshot {name}: found format {body['format']}, allowed: {FORMAT}; restore it with the version of "
            f"greenops-pipelines that made it ({body.get('product')})"
        )
    stated = body.pop("sha256")
    if hashlib.sha256(_text(body)).hexdigest() != stated or body["id"] != name:
        raise ValueError("its digest is not the one it states")
    files = tuple(
        File(_path(file["path"]), int(file["size"]), _digest(file["sha256"]), tuple(map(_digest, file["chunks"])),
             file.get("mark", ""))
        for file in body["files"]
    )  # fmt: skip
    begun, taken = (datetime.fromisoformat(body[name]).astimezone(UTC) for name in ("begun_at", "taken_at"))
    return Snapshot(name, begun, taken, body["source_region"], body["target_region"], body["product"], files)


def _path(path: str) -> str:
    """The path, where it leads to one place below the home; the vault may have been in other hands."""
    if not is_plain(path) or path.partition("/")[0] not in PARTS:
        raise ValueError(f"it names the file {path[:80]!r}")
    return path


def is_plain(path: str) -> bool:
    """Whether a snapshot can name the path: below the home, and text."""
    segments = path.split("/")
    # Controls would break the lines of a part's digest; lone surrogates are names that are no UTF-8.
    is_text = not any(unicodedata.category(character) in ("Cc", "Cs") for character in path)
    return is_text and not {"", ".", ".."} & set(segments) and len(segments) > 1


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"found {text[:80]!r} for a digest")
    return text
