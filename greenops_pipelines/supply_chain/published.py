"""SBOMs and scan reports in the write-once object store, under names that end in their digest, read back after each write.

Not here: making them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from greenops_pipelines.errors import ObjectMissing, PermanentError, ProviderError
from greenops_pipelines.store.objects import ObjectStore


@dataclass(frozen=True)
class Published:
    """Where a document lies, and the SHA-256 that it was read back with."""

    key: str
    sha256: str


def publish(store: ObjectStore, digest: str, platform: str, kind: str, document: bytes) -> Published:
    """Puts a document about an image's platform into the store. The same document again is one object.

    `kind` is the end of its name: cdx.json, spdx.json, grype.json, trivy.json.
    """
    sha256 = hashlib.sha256(document).hexdigest()
    key = f"images/{digest.removeprefix('sha256:')}/{platform.replace('/', '-')}/{sha256}.{kind}"
    store.put(key, document)
    if hashlib.sha256(store.get(key)).hexdigest() != sha256:
        raise PermanentError(f"{key}: found other bytes than were stored; look at the store before anything else")
    return Published(key, sha256)


def read(store: ObjectStore, key: str, sha256: str) -> bytes:
    """The document under `key`; `ProviderError` where it is gone, or its bytes are not those of `sha256`."""
    try:
        document = store.get(key)
    except ObjectMissing:
        raise ProviderError(f"{key}: it was published, and is not in the store") from None
    if hashlib.sha256(document).hexdigest() != sha256:
        raise ProviderError(f"{key}: found other bytes than were published")
    return document
