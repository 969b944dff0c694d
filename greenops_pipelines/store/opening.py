"""An address -> the store there: a folder or s3://bucket/prefix. Not here: which setting holds the address."""

from __future__ import annotations

import re
from pathlib import Path

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.store.local import LocalObjectStore
from greenops_pipelines.store.objects import ObjectStore
from greenops_pipelines.store.s3 import Retention, S3ObjectStore, s3_client

_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/?")


def open_store(
    address: str, setting: str, endpoint: str = "", region: str = "", retention: Retention | None = None
) -> ObjectStore:
    """The write-once store at `address`; `ConfigurationError` names `setting` where it is none."""
    if not address.startswith("s3://"):
        if "://" in address:
            raise ConfigurationError(f"{setting}: found {address!r}, allowed: a folder or s3://bucket/prefix")
        return LocalObjectStore(Path(address).expanduser())
    match = _S3.fullmatch(address)
    if match is None:
        raise ConfigurationError(f"{setting}: found {address!r}, allowed: s3://bucket or s3://bucket/prefix")
    return S3ObjectStore(s3_client(endpoint, region), match[1], match[2] or "", retention)
