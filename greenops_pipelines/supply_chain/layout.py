"""An OCI image layout: a folder with `oci-layout`, `index.json` and `blobs/`, as a `Repository`.

Tags are the descriptors of `index.json` that carry `org.opencontainers.image.ref.name`; what is attached to a digest lies
there too, without a name. Writers take turns by a lock on the folder. Not here: registries (`registry.py`).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from greenops_pipelines import strict_json
from greenops_pipelines.errors import BadInput, ObjectMissing, PermanentError, ProviderError, TransientError
from greenops_pipelines.supply_chain.oci import (
    INDEXES,
    MANIFESTS,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    Descriptor,
    Manifest,
    check_digest,
    digest_of,
    is_digest,
    manifest_of,
)

log = logging.getLogger(__name__)

REF_NAME = "org.opencontainers.image.ref.name"
_CHUNK = 1 << 20
PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE})
"""Faults of a disk or of the system that pass."""


class Layout:
    """A `Repository` in `folder`. `create` makes an empty one where there is none; else `BadInput` says what was found."""

    def __init__(self, folder: Path, create: bool = False) -> None:
        self.folder = folder.absolute()
        if create and not (self.folder / "index.json").exists():
            with self._faults():
                (self.folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
                with self._locked():
                    if not (self.folder / "index.json").exists():
                        self._write(self.folder / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
                        self._write_index([])
        self._check()

    @property
    def name(self) -> str:
        return str(self.folder)

    def manifest(self, wanted: str) -> Manifest:
        if is_digest(wanted):
            served = next((each.media_type for each in self.entries() if each.digest == wanted), "")
            return self._manifest(wanted, served)
        for each in self.entries():
            if each.annotations.get(REF_NAME) == wanted:
                return self._manifest(each.digest, each.media_type)
        raise ObjectMissing(f"{self.folder}: found no manifest {wanted!r}")

    def blob(self, descriptor: Descriptor, limit: int) -> bytes:
        size = self._size(descriptor)
        if size > limit:
            raise ProviderError(f"{self._shown(descriptor.digest)}: found {size:,} bytes, allowed: {limit:,}")
        with self._faults():
            data = self._path(descriptor.digest).read_bytes()
        if digest_of(data) != descriptor.digest:
            raise ProviderError(f"{self._shown(descriptor.digest)}: found other bytes in it than its digest says")
        return data

    def fetch(self, descriptor: Descriptor, target: Path, limit: int) -> None:
        """Linked where the file system can, after a look at every byte."""
        size = self._size(descriptor)
        if size > limit:
            raise ProviderError(f"{self._shown(descriptor.digest)}: found {size:,} bytes, allowed: {limit:,}")
        with self._faults():
            found = hashlib.sha256()
            with self._path(descriptor.digest).open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    found.update(chunk)
            if f"sha256:{found.hexdigest()}" != descriptor.digest:
                raise ProviderError(f"{self._shown(descriptor.digest)}: found other bytes in it than its digest says")
            # Beside the target first: a target that is there may be a link to another blob, and must not be written through.
            part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            try:
                try:
                    os.link(self._path(descriptor.digest).resolve(), part)
                except OSError:
                    # Another file system, or one that knows no hard links.
                    shutil.copyfile(self._path(descriptor.digest), part)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)

    def put_blob(self, data: bytes, media_type: str) -> Descriptor:
        digest = digest_of(data)
        path = self._path(digest)
        with self._faults():
            if path.is_file():
                if path.stat().st_size == len(data) and path.read_bytes() == data:
                    return Descriptor(media_type, digest, len(data))
                log.warning("%s: found other bytes in it than its digest says; written anew", self._shown(digest))
            self._write(path, data)
        return Descriptor(media_type, digest, len(data))

    def put_manifest(self, data: bytes, media_type: str, tag: str = "") -> Descriptor:
        manifest = manifest_of(data, media_type, str(self.folder))
        stored = self.put_blob(data, media_type)
        annotations = {REF_NAME: tag} if tag else {}
        artifact = manifest.artifact_type if manifest.subject else ""
        new = Descriptor(media_type, stored.digest, stored.size, annotations, artifact)

        def placed(entries: list[Descriptor]) -> list[Descriptor]:
            if new in entries:
                return entries
            # A tag points at one manifest; what has no tag stands there once.
            kept = [e for e in entries if (e.annotations.get(REF_NAME) != tag if tag else e.digest != new.digest)]
            kept = [e for e in kept if e.digest != new.digest or e.annotations.get(REF_NAME)]
            if not tag and any(e.digest == new.digest for e in entries if e.annotations.get(REF_NAME)):
                return entries
            return [*kept, new]

        self._edit(placed)
        return Descriptor(media_type, stored.digest, stored.size)

    def tags(self) -> tuple[str, ...]:
        return tuple(sorted({each.annotations[REF_NAME] for each in self.entries() if REF_NAME in each.annotations}))

    def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        found = []
        for each in self.entries():
            if each.media_type in INDEXES or REF_NAME in each.annotations:
                continue
            manifest = self._manifest(each.digest, each.media_type)
            if manifest.subject == digest:
                found.append(
                    Descriptor(
                        manifest.media_type,
                        manifest.digest,
                        len(manifest.data),
                        manifest.annotations,
                        manifest.artifact_type,
                    )
                )
        return tuple(found)

    def drop_referrer(self, subject: str, digest: str) -> bool:
        """From the list alone: its bytes stay, as those of any manifest."""
        self._edit(lambda entries: [e for e in entries if e.digest != digest or REF_NAME in e.annotations])
        return True

    def entries(self) -> tuple[Descriptor, ...]:
        """The descriptors of index.json, in its order."""
        where = f"{self.folder}/index.json"
        with self._faults():
            data = _bounded(self.folder / "index.json")
        try:
            document = strict_json.loads(data)
        except ValueError as error:
            raise ProviderError(f"{where}: {error}") from None
        listed = document.get("manifests") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise ProviderError(f"{where}: found no list of manifests")
        return tuple(Descriptor.read(each, f"{where}: manifests[{at}]") for at, each in enumerate(listed))

    def _manifest(self, digest: str, served_as: str) -> Manifest:
        path = self._path(digest)
        if not path.is_file():
            raise ObjectMissing(f"{self._shown(digest)}: found no such file")
        with self._faults():
            data = _bounded(path)
        if digest_of(data) != digest:
            raise ProviderError(f"{self._shown(digest)}: found other bytes in it than its digest says")
        return manifest_of(data, served_as if served_as in (*MANIFESTS, *INDEXES) else "", self._shown(digest))

    def _size(self, descriptor: Descriptor) -> int:
        try:
            found = self._path(descriptor.digest).stat()
        except OSError:
            found = None
        if found is None or not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            raise ObjectMissing(f"{self._shown(descriptor.digest)}: found no such file")
        size = found.st_size
        if size != descriptor.size:
            raise ProviderError(
                f"{self._shown(descriptor.digest)}: found {size:,} bytes, allowed: {descriptor.size:,}, as its descriptor says"
            )
        return size

    def _path(self, digest: str) -> Path:
        return self.folder / "blobs" / "sha256" / check_digest(digest, str(self.folder)).removeprefix("sha256:")

    def _shown(self, digest: str) -> str:
        return f"{self.folder}: {digest}"

    def _check(self) -> None:
        marker = self.folder / "oci-layout"
        try:
            document: Any = strict_json.loads(marker.read_bytes())
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BadInput(f"{marker}: {reason}; allowed: the folder of an OCI image layout") from None
        version = document.get("imageLayoutVersion") if isinstance(document, dict) else None
        if version != "1.0.0":
            raise BadInput(f"{marker}: found imageLayoutVersion {version!r}, allowed: '1.0.0'")

    def _edit(self, change: Callable[[list[Descriptor]], list[Descriptor]]) -> None:
        with self._faults(), self._locked():
            before = list(self.entries())
            after = change(before)
            if after != before:
                self._write_index(after)

    def _write_index(self, entries: list[Descriptor]) -> None:
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [each.as_document() for each in entries],
        }
        self._write(self.folder / "index.json", json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        """Whole or not at all."""
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ObjectMissing(f"{error.filename}: found no such file") from error
        except OSError as error:
            where = error.filename or self.folder
            if error.errno in PASSING:
                raise TransientError(f"{where}: {error.strerror}; free some, then try again") from error
            raise PermanentError(
                f"{where}: {error.strerror}, allowed: a folder this user can read and write"
            ) from error


def _bounded(path: Path) -> bytes:
    """A manifest's or an index' bytes; one that is no manifest by its size is not read at all."""
    with path.open("rb") as stream:
        data = stream.read(MAX_MANIFEST_BYTES + 1)
    if len(data) > MAX_MANIFEST_BYTES:
        raise ProviderError(f"{path}: found more than {MAX_MANIFEST_BYTES:,} bytes, which no manifest has")
    return data
