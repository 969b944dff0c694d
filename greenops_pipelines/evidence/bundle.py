"""The form of a bundle: which parts it has, the folder and the tar that hold them, and their strict reading.

A tar has one spelling: what is read must be, byte for byte, what `pack` writes. A folder has the same parts as plain
files and nothing else. Not here: what the parts say (`statement.py`), and whether it is true (`verify.py`).
"""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from greenops_pipelines.errors import BadInput

MANIFEST = "manifest.json"
STATEMENT = "statement.json"
SIGNATURE = "statement.json.sig"
DSSE = "statement.dsse.json"
SIGSTORE = "statement.sigstore.json"
GPG_SIGNATURE = "statement.json.asc"
TIMESTAMP = "statement.json.sig.tsr"
ENTRY = "log-entry.json"
PROOF = "log-entry.tlog-proof"
PUBLIC_KEY = "keys/evidence.pub"
LOG_KEY = "keys/log.vkey"
GPG_KEY = "keys/gpg.pub"
TSA_ROOTS = "keys/tsa-ca.pem"
FILES = "files/"

ALWAYS = frozenset({MANIFEST, STATEMENT, SIGNATURE, DSSE, SIGSTORE, ENTRY, PROOF, PUBLIC_KEY, LOG_KEY})
OPTIONAL = frozenset({GPG_SIGNATURE, GPG_KEY, TIMESTAMP, TSA_ROOTS})

MAX_BYTES = 256 * 1024 * 1024
"""Of all parts together: a bundle is built and checked in memory."""
MAX_FILES = 4096
_BLOCK = 512
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{16}", re.ASCII)
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_MAX_FILE_NAME = 90
"""With `files/` it still fits into a ustar header's 100 bytes."""
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a folder entry",
    b"6": "a named pipe",
}


class NotABundle(ValueError):
    """What was read does not have the form of a bundle. The message names the place, found and allowed."""


@dataclass(frozen=True)
class Bundle:
    """An identifier and the parts under it, by path."""

    id: str
    parts: Mapping[str, bytes]

    @property
    def files(self) -> dict[str, bytes]:
        """What the caller handed in, by the name it had."""
        return {name.removeprefix(FILES): data for name, data in self.parts.items() if name.startswith(FILES)}


def check_id(text: str) -> str:
    """`text` itself where it has the form of a bundle's identifier; else `BadInput`."""
    if not _ID.fullmatch(text):
        raise BadInput(f"bundle id: found {text[:80]!r}, allowed: YYYYMMDDTHHMMSSZ-<16 hexadecimal digits>")
    return text


def check_file_name(name: str) -> str:
    """`name` itself where it may stand under `files/`; else `BadInput`."""
    if len(name) > _MAX_FILE_NAME or not _FILE_NAME.fullmatch(name):
        raise BadInput(
            f"evidence file: found the name {name[:100]!r}, allowed: letters, digits and ._- in segments joined by "
            f"single slashes, no segment starting with a dot or dash, at most {_MAX_FILE_NAME} characters"
        )
    return name


def check_file_names(names: list[str]) -> None:
    """Each name, and all together: no two that are one file on some systems, no file that is also a folder."""
    seen: dict[str, str] = {}
    for name in names:
        folded = check_file_name(name).casefold()
        if folded in seen:
            raise BadInput(
                f"evidence files: found {seen[folded]!r} and {name!r}, allowed: names that differ in letters"
            )
        seen[folded] = name
    for folded, name in seen.items():
        parents = [folded[:i] for i, character in enumerate(folded) if character == "/"]
        if clash := next((seen[parent] for parent in parents if parent in seen), None):
            raise BadInput(f"evidence files: found the file {clash!r} and {name!r} below it, allowed: one of them")


def pack(bundle: Bundle) -> bytes:
    """The tar: one entry per part, sorted by name, owned by nobody, dated 1970. Same parts, same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(bundle.parts):
            info = tarfile.TarInfo(f"{bundle.id}/{name}")
            info.size, info.mode, info.mtime = len(bundle.parts[name]), 0o444, 0
            tar.addfile(info, io.BytesIO(bundle.parts[name]))
    return buffer.getvalue()


def read(source: Path | bytes) -> Bundle:
    """The bundle in a tar's bytes, a tar or a folder.

    Raises `NotABundle`; `BadInput` where there is nothing to read at all.
    """
    if isinstance(source, bytes):
        return _unpack(source)
    try:
        if source.is_dir():
            return _read_folder(source)
        return _unpack(_read_file(source, MAX_BYTES * 2))
    except OSError as error:
        raise BadInput(f"{source}: cannot be read: {error.strerror or error}") from error


def parts_of(data: bytes) -> dict[str, bytes]:
    """What a tar of our own holds, below its top folder, without a check of the names."""
    return {name.partition("/")[2]: content for name, content in _entries(data)}


def _unpack(data: bytes) -> Bundle:
    if len(data) > MAX_BYTES * 2:
        raise NotABundle(f"the tar: found {len(data):,} bytes, allowed: {MAX_BYTES * 2:,}")
    parts: dict[str, bytes] = {}
    identifiers = set()
    for name, content in _entries(data):
        identifier, _, part = name.partition("/")
        identifiers.add(identifier)
        if part in parts:
            raise NotABundle(f"the tar: found {name!r} twice")
        parts[part] = content
    if len(identifiers) != 1:
        raise NotABundle(f"the tar: found {len(identifiers)} top folders, allowed: one, named as the bundle")
    bundle = _checked(identifiers.pop(), parts)
    if pack(bundle) != data:
        raise NotABundle("the tar: found other bytes in it than its parts, allowed: the tar as it was filed")
    return bundle


def _entries(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a ustar archive of plain files. `_unpack` compares the rest of the bytes."""
    offset = 0
    while data[offset : offset + _BLOCK].strip(b"\0"):
        header = data[offset : offset + _BLOCK]
        name, prefix = (field.split(b"\0", 1)[0] for field in (header[:100], header[345:500]))
        shown = repr((prefix + b"/" + name if prefix else name).decode("utf-8", "replace"))
        if header[257:263] != b"ustar\0":
            raise NotABundle(f"the tar: found no ustar header at byte {offset:,}")
        if (kind := header[156:157]) != b"0":
            raise NotABundle(f"the tar: {shown} is {_KINDS.get(kind, 'no plain file')}, allowed: plain files")
        if not re.fullmatch(rb"[0-7]{11}", header[124:135]):
            raise NotABundle(f"the tar: {shown} has no readable size")
        size = int(header[124:135], 8)
        content = data[offset + _BLOCK : offset + _BLOCK + size]
        if len(content) < size:
            raise NotABundle(f"the tar: it ends in the middle of {shown}")
        try:
            full = (prefix + b"/" + name if prefix else name).decode("ascii")
        except UnicodeDecodeError:
            raise NotABundle(f"the tar: {shown}: allowed: names in ASCII") from None
        yield full, content
        offset += _BLOCK + -(-size // _BLOCK) * _BLOCK


def _read_folder(folder: Path) -> Bundle:
    """Every part, by a walk that follows no link and opens nothing but plain files."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - `resolve` would follow the folder's own link
    parts: dict[str, bytes] = {}
    total = 0
    pending = [(folder, "")]
    while pending:
        place, above = pending.pop()
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        if not entries:
            raise NotABundle(f"{above or 'the folder'}: found an empty folder, allowed: the bundle's parts")
        for entry in entries:
            name = above + entry.name
            if entry.is_symlink():
                raise NotABundle(f"{name!r} is a symbolic link, allowed: plain files")
            if entry.is_dir(follow_symlinks=False):
                pending.append((Path(entry.path), f"{name}/"))
                continue
            if len(parts) > MAX_FILES:
                raise NotABundle(f"the folder: found more than {MAX_FILES} files")
            if not entry.is_file(follow_symlinks=False):
                raise NotABundle(f"{name!r} is a device, pipe or socket, allowed: plain files")
            parts[name] = _read_file(Path(entry.path), MAX_BYTES - total)
            total += len(parts[name])
    return _checked(folder.name, parts)


def _read_file(path: Path, limit: int) -> bytes:
    # Non-blocking, because opening a named pipe would wait for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotABundle(f"{path.name!r} is no plain file")
        if status.st_size > limit:
            raise NotABundle(f"{path.name!r}: found {status.st_size:,} bytes, allowed: {MAX_BYTES:,} in all")
        return stream.read()


def _checked(identifier: str, parts: dict[str, bytes]) -> Bundle:
    """The bundle, where every name may stand in one and none that must is missing."""
    if not _ID.fullmatch(identifier):
        raise NotABundle(f"the top folder: found {identifier[:80]!r}, allowed: the bundle's id (rename it back)")
    for name in parts:
        if name in ALWAYS or name in OPTIONAL:
            continue
        if not name.startswith(FILES):
            raise NotABundle(f"{name[:120]!r} does not belong into a bundle")
        try:
            check_file_name(name.removeprefix(FILES))
        except BadInput as error:
            raise NotABundle(str(error)) from None
    if missing := sorted(ALWAYS - parts.keys()):
        raise NotABundle(f"{missing[0]!r} is missing")
    if sum(map(len, parts.values())) > MAX_BYTES or len(parts) > MAX_FILES:
        raise NotABundle(f"allowed: {MAX_BYTES:,} bytes and {MAX_FILES:,} parts in all")
    return Bundle(identifier, parts)
