"""Where the lake's files lie: a local folder or an S3 bucket, behind one interface.

Both publish a file whole or not at all. Locally: a temporary name in the same folder, fsync, `os.replace`.
On S3: one PUT per object. Paths are relative to the lake, with forward slashes.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import io
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from greenops_pipelines.errors import ConfigurationError, TransientError

if TYPE_CHECKING:
    import duckdb

_TEMPORARY = re.compile(r"^\..+\.(?P<pid>\d+)-[0-9a-f]{8}\.tmp(?:\.wal)?$")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ABANDONED_SECONDS = 86_400
"""A temporary file this old is abandoned even if a process of its number runs: numbers are reused."""


class Storage(Protocol):
    """A place for immutable-once-published files."""

    @property
    def root(self) -> str:
        """Absolute folder or s3:// URL, without a trailing slash."""
        ...

    def publish(self, path: str, write: Callable[[Any], None]) -> int:
        """Write a file through `write(binary file)` and make it visible whole; returns its size in bytes."""
        ...

    def glob(self, pattern: str) -> list[str]:
        """Sorted paths that match; a `*` does not cross a slash."""
        ...

    def has(self, pattern: str) -> bool:
        """Whether any path matches."""
        ...

    def read_bytes(self, path: str) -> bytes: ...

    def age_seconds(self, path: str) -> float: ...

    def remove(self, path: str) -> None:
        """Remove a file that a compaction has superseded. A missing one is fine."""
        ...

    def tidy(self, folder: str) -> None:
        """Remove what killed writers left in a folder; `publish` does so by itself."""
        ...

    def register(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Teach a DuckDB connection to read from here."""
        ...


def url(storage: Storage, path: str) -> str:
    """The absolute address of a path."""
    return f"{storage.root}/{path}"


def temporary_path(target: Path) -> Path:
    """A name beside `target` that no reader's glob matches and `sweep` knows."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left behind; their names start with a dot, so no reader saw them."""
    for entry in os.scandir(folder):
        match = _TEMPORARY.match(entry.name)
        if match is None:
            continue
        # Another writer may finish or sweep the same file meanwhile.
        with contextlib.suppress(FileNotFoundError):
            abandoned = time.time() - entry.stat().st_mtime > _ABANDONED_SECONDS
            if abandoned or not alive(int(match["pid"])):
                Path(entry.path).unlink()


class LocalFolder:
    """A folder on a local disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        _refuse_pattern(self.root)

    @property
    def root(self) -> str:
        return self._folder.as_posix()

    def publish(self, path: str, write: Callable[[Any], None]) -> int:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        temporary = temporary_path(target)
        try:
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            temporary.replace(target)
        except BaseException as error:
            # A full disk, an interrupt: the old file is still whole, only our own leftover goes.
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise TransientError(f"{target}: {os.strerror(error.errno)}; what was there before is kept") from error
            raise
        _fsync_folder(target.parent)
        return size

    def glob(self, pattern: str) -> list[str]:
        return sorted(p.relative_to(self._folder).as_posix() for p in self._folder.glob(pattern))

    def has(self, pattern: str) -> bool:
        return next(self._folder.glob(pattern), None) is not None

    def read_bytes(self, path: str) -> bytes:
        return (self._folder / path).read_bytes()

    def age_seconds(self, path: str) -> float:
        return time.time() - (self._folder / path).stat().st_mtime

    def remove(self, path: str) -> None:
        (self._folder / path).unlink(missing_ok=True)

    def tidy(self, folder: str) -> None:
        sweep(self._folder / folder)

    def register(self, connection: duckdb.DuckDBPyConnection) -> None:
        """DuckDB reads local files by itself."""


class S3Bucket:
    """A bucket and prefix of an S3-compatible store. Credentials come from AWS' own environment."""

    def __init__(self, lake_url: str, endpoint: str = "", region: str = "eu-central-1") -> None:
        match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/?", lake_url)
        if match is None:
            raise ConfigurationError(
                f"GREENOPS_LAKE_URL: found {lake_url!r}, allowed: s3://bucket or s3://bucket/prefix"
            )
        self._bucket = match[1]
        self._prefix = f"{match[2]}/" if match[2] else ""
        _refuse_pattern(self.root)
        self._endpoint = endpoint
        self._region = region
        self._cached_client: Any = None

    @property
    def root(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def _client(self) -> Any:
        if self._cached_client is None:
            from greenops_pipelines.store.s3 import s3_client

            self._cached_client = s3_client(self._endpoint, self._region)
        return self._cached_client

    def publish(self, path: str, write: Callable[[Any], None]) -> int:
        buffer = io.BytesIO()
        write(buffer)
        size = buffer.tell()
        buffer.seek(0)
        with self._faults():
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=buffer)
        return size

    def glob(self, pattern: str) -> list[str]:
        with self._faults():
            return sorted(self._matching(pattern))

    def has(self, pattern: str) -> bool:
        with self._faults():
            return next(self._matching(pattern), None) is not None

    def _faults(self) -> contextlib.AbstractContextManager[None]:
        from greenops_pipelines.store.s3 import s3_faults

        return s3_faults(self.root)

    def _matching(self, pattern: str) -> Any:
        parts = pattern.split("/")
        fixed = pattern.split("*", 1)[0].rpartition("/")[0]
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}{fixed}/" if fixed else self._prefix
        )
        for page in pages:
            for entry in page.get("Contents", ()):
                path = entry["Key"][len(self._prefix) :]
                found = path.split("/")
                if len(found) == len(parts) and all(map(fnmatch.fnmatchcase, found, parts)):
                    yield path

    def read_bytes(self, path: str) -> bytes:
        with self._faults():
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)["Body"].read()
            return body

    def age_seconds(self, path: str) -> float:
        with self._faults():
            head = self._client.head_object(Bucket=self._bucket, Key=self._prefix + path)
        return time.time() - float(head["LastModified"].timestamp())

    def remove(self, path: str) -> None:
        with self._faults():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + path)

    def tidy(self, folder: str) -> None:
        """A PUT that was cut off leaves nothing."""

    def register(self, connection: duckdb.DuckDBPyConnection) -> None:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import S3FileSystem

        class _S3(ArrowFSWrapper):  # type: ignore[misc]
            protocol = "s3"

        scheme, _, address = self._endpoint.rpartition("://")
        options = {"endpoint_override": address, "scheme": scheme or "https"} if self._endpoint else {}
        connection.register_filesystem(_S3(S3FileSystem(region=self._region, **options)))


def _refuse_pattern(root: str) -> None:
    """DuckDB reads the root as a part of its glob, and every `key=value` in it as a partition of each table."""
    if any(c in root for c in "*?[]="):
        raise ConfigurationError(f"the lake's place: found {root!r}, allowed: a path without * ? [ ] =")


def alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fsync_folder(folder: Path) -> None:
    """Make a rename survive a power cut: the folder's entry is data of its own."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
