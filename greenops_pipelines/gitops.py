"""A rendered tree of files on disk: written whole, file by file, with a manifest that `sha256sum --check` reads.

    write(folder, {"observability/prometheus/rules/slo-alerts.yaml": text, ...}, owner="slo")

Domains render into one tree. Files that an owner's earlier render wrote and this one does not are removed; files of other
owners and of people stay. What comes one file at a time, and stays, is `put` there without a manifest. Not here: what is
rendered.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from greenops_pipelines.errors import BadInput, TransientError

_LINE = re.compile(r"[0-9a-f]{64}  (?P<path>[^\n]+)")
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*", re.ASCII)


@dataclass(frozen=True)
class Rendered:
    """What a render did: files in the tree, those that changed, those that went, and one digest over all."""

    folder: Path
    files: int
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    digest: str


def manifest(owner: str) -> str:
    """The name of an owner's manifest in the tree."""
    return f"MANIFEST.{owner}.sha256"


def write(folder: Path, files: Mapping[str, str], owner: str) -> Rendered:
    """Bring `folder` to hold `files` (path to text) and no other file of `owner`.

    Raises `BadInput` for a path or a folder that cannot be written, `TransientError` where the disk is full.
    """
    for path in files:
        if not _SAFE.fullmatch(path):
            raise BadInput(f"rendered file: found the path {path!r}, allowed: a plain path below the folder")
    removed = tuple(sorted(_known(folder / manifest(owner)) - set(files)))
    changed = tuple(path for path in sorted(files) if _put(folder / path, files[path]))
    for path in removed:
        (folder / path).unlink(missing_ok=True)
    text = "".join(f"{hashlib.sha256(files[path].encode()).hexdigest()}  {path}\n" for path in sorted(files))
    _put(folder / manifest(owner), text)
    return Rendered(folder, len(files), changed, removed, hashlib.sha256(text.encode()).hexdigest())


def put(folder: Path, path: str, text: str) -> Path:
    """One file of the tree, whole or not at all; the path it lies at. Raises as `write`."""
    if not _SAFE.fullmatch(path):
        raise BadInput(f"rendered file: found the path {path!r}, allowed: a plain path below the folder")
    _put(folder / path, text)
    return folder / path


def _known(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    found = (_LINE.fullmatch(line) for line in lines)
    return {match["path"] for match in found if match and _SAFE.fullmatch(match["path"])}


def _put(path: Path, text: str) -> bool:
    """Whether the file had to change."""
    content = text.encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.is_file() and path.read_bytes() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        kind = TransientError if error.errno in (errno.ENOSPC, errno.EDQUOT) else BadInput
        raise kind(f"{path}: not written: {error.strerror}; what was there before stays") from None
    finally:
        with suppress(NotADirectoryError):
            temporary.unlink(missing_ok=True)
    return True
