"""The place of the second copy: a folder or a bucket, which should lie in another region. Not here: what lies in it.

Keys are those of `store/objects.py`. Unlike the write-once stores a vault deletes, because old snapshots go, and it
replaces, because a damaged chunk is mended by writing it again.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from greenops_pipelines.errors import BadInput, ConfigurationError, ObjectMissing, PermanentError, TransientError
from greenops_pipelines.store.objects import INCOMING, MAX_KEY_BYTES, check_key
from greenops_pipelines.store.s3 import s3_client, s3_faults

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/?")
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE})
# Names that S3 gave to regions before they had their own.
_OLD_NAMES = {"": "us-east-1", "EU": "eu-west-1"}


class Vault(Protocol):
    """Objects by key, whole or not there. Any method may raise `TransientError` or `PermanentError`."""

    @property
    def place(self) -> str:
        """Absolute folder or s3:// address, for messages."""
        ...

    def region(self) -> str | None:
        """The region it really lies in, as its provider says; None for a folder, of which nobody can say."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Stores `data`, in place of what was there; when this returns, it survives a power cut."""
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes; raises `ObjectMissing`."""
        ...

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """The keys that start with `prefix` (text, not a folder), sorted."""
        ...

    def modified(self, key: str) -> datetime:
        """When the object was stored, UTC; raises `ObjectMissing`."""
        ...

    def delete(self, key: str) -> None:
        """Removes the object; a missing one is fine."""
        ...


def open_vault(address: str, endpoint: str = "", region: str = "", setting: str = "GREENOPS_REPLICA_URL") -> Vault:
    """The vault at `address`: a folder, made where missing, or s3://bucket[/prefix]. `setting` stands in messages."""
    if not address.startswith("s3://"):
        if not address or "://" in address:
            raise ConfigurationError(f"{setting}: found {address!r}, allowed: a folder or s3://bucket/prefix")
        return LocalVault(Path(address).expanduser())
    match = _S3.fullmatch(address)
    if match is None:
        raise ConfigurationError(f"{setting}: found {address!r}, allowed: s3://bucket or s3://bucket/prefix")
    return S3Vault(s3_client(endpoint, region), match[1], match[2] or "")


class LocalVault:
    """A vault below `root` (0700, files 0600). What killed writers left there is swept."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._incoming = self.root / INCOMING
        with self._faults(""):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._incoming.mkdir(mode=0o700, exist_ok=True)
            self._sweep()

    @property
    def place(self) -> str:
        return str(self.root)

    def region(self) -> str | None:
        return None

    def put(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with self._faults(key):
            made = self._folders(target.parent)
            with self._temporary() as (temporary, descriptor):
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
                temporary.replace(target)
            for folder in (target.parent, *made):
                fsync_folder(folder)

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with self._faults(key):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise _missing(str(path)) from None

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with self._faults(key):
            return path.is_file()

    def list(self, prefix: str = "") -> tuple[str, ...]:
        with self._faults(prefix):
            return tuple(sorted(self._keys(self.root, "", prefix)))

    def modified(self, key: str) -> datetime:
        path = self._path(key)
        with self._faults(key):
            try:
                return datetime.fromtimestamp(path.stat().st_mtime, UTC)
            except (FileNotFoundError, NotADirectoryError):
                raise _missing(str(path)) from None

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._faults(key), suppress(FileNotFoundError):
            path.unlink()
            # Or a power cut could bring a snapshot back whose chunks have gone since.
            fsync_folder(path.parent)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _keys(self, folder: Path, above: str, prefix: str) -> Iterator[str]:
        with os.scandir(folder) as entries:
            for entry in entries:
                key = above + entry.name
                if key == INCOMING:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below = f"{key}/"
                    if below.startswith(prefix) or prefix.startswith(below):
                        yield from self._keys(Path(entry.path), below, prefix)
                elif entry.is_file(follow_symlinks=False) and key.startswith(prefix):
                    # What a person dropped here under a name that no `put` takes is no object.
                    with suppress(BadInput):
                        yield check_key(key)

    def _folders(self, folder: Path) -> Iterable[Path]:
        """Makes the folder; those whose entries are new and have to be flushed as well."""
        missing = []
        while folder != self.root and not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
        return [each.parent for each in missing]

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, int]]:
        """A new file, locked for as long as this process has it open, and gone afterwards if it was not renamed."""
        while True:
            path = self._incoming / uuid.uuid4().hex
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # A sweep may have come between the two calls, and taken the file for abandoned.
                if os.fstat(descriptor).st_nlink:
                    yield path, descriptor
                    return
            finally:
                path.unlink(missing_ok=True)
                os.close(descriptor)

    def _sweep(self) -> None:
        """Removes temporary files whose writer is gone: it held a lock on the file, which ended with it."""
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                except BlockingIOError:
                    continue
                finally:
                    os.close(descriptor)

    @contextmanager
    def _faults(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place, reason = self.root / key, error.strerror or str(error)
            if error.errno in _PASSING:
                raise TransientError(f"{place}: not stored or read: {reason}; free some, then try again") from error
            raise PermanentError(
                f"{place}: found {reason!r}, allowed: a folder this user can read and write"
            ) from error


class S3Vault:
    """A vault in `bucket`, below `prefix`. Needs s3:ListBucket, s3:GetBucketLocation, s3:Get-, Put- and DeleteObject.

    The client belongs to the caller. Any number of threads may use one vault.
    """

    def __init__(self, client: S3Client, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{check_key(prefix)}/" if prefix else ""

    @property
    def place(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def region(self) -> str | None:
        with s3_faults(self.place):
            found: str | None = self._client.get_bucket_location(Bucket=self._bucket).get("LocationConstraint")
        return _OLD_NAMES.get(found or "", found)

    def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        with s3_faults(f"{self.place}/{key}"):
            # The store compares the digest with what arrived, and refuses the object where they differ.
            self._client.put_object(
                Bucket=self._bucket, Key=name, Body=data, ChecksumAlgorithm="SHA256", ChecksumSHA256=checksum
            )

    def get(self, key: str) -> bytes:
        name = self._name(key)
        with s3_faults(f"{self.place}/{key}"):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=name, ChecksumMode="ENABLED")
                with closing(answer["Body"]) as stream:
                    return stream.read()
            except self._client.exceptions.NoSuchKey:
                pass
        raise _missing(f"{self.place}/{key}")

    def exists(self, key: str) -> bool:
        return self._entry(key) is not None

    def list(self, prefix: str = "") -> tuple[str, ...]:
        keys = []
        with s3_faults(f"{self.place}/{prefix}"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                keys += [entry["Key"].removeprefix(self._prefix) for entry in page.get("Contents", ())]
        return tuple(sorted(keys))

    def modified(self, key: str) -> datetime:
        found = self._entry(key)
        if found is None:
            raise _missing(f"{self.place}/{key}")
        return found

    def delete(self, key: str) -> None:
        with s3_faults(f"{self.place}/{key}"):
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def _entry(self, key: str) -> datetime | None:
        """When it was stored. By listing: a HEAD answers 404 for a missing bucket as for a missing object."""
        name = self._name(key)
        with s3_faults(f"{self.place}/{key}"):
            found = self._client.list_objects_v2(Bucket=self._bucket, Prefix=name, MaxKeys=1).get("Contents", ())
        return next((entry["LastModified"].astimezone(UTC) for entry in found if entry["Key"] == name), None)

    def _name(self, key: str) -> str:
        name = self._prefix + check_key(key)
        if len(name.encode()) > MAX_KEY_BYTES:
            raise BadInput(f"object key: found {len(name.encode())} bytes with the prefix, allowed: {MAX_KEY_BYTES}")
        return name


def _missing(place: str) -> ObjectMissing:
    return ObjectMissing(f"{place}: found no object under that key")


def fsync_folder(folder: Path) -> None:
    """Names in it survive a power cut when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
