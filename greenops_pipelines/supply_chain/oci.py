"""The OCI forms: digests, descriptors, references, manifests and indexes, read strictly.

Sources: OCI Image Format and Distribution Specification 1.1, Docker Image Manifest V2 Schema 2. Not here: where they lie
(`registry.py`, `layout.py`), and what is inside the layers (`layers.py`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from greenops_pipelines import strict_json
from greenops_pipelines.errors import BadInput, ProviderError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_INDEX)

EMPTY_BYTES = b"{}"
"""The content of the empty descriptor (OCI 1.1, "Guidance for an Empty Descriptor")."""

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""What registries accept at least, by the distribution specification; larger ones are refused unread."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"({_LABEL}(\.{_LABEL})*|\[[0-9a-fA-F:]+\])(:(?P<port>[0-9]{{1,5}}))?")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?")


class NotAManifest(ProviderError):
    """What was served is whole, and no manifest by its form: whoever may push has put it there."""


def digest_of(data: bytes) -> str:
    """`sha256:<hex>` of the bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def is_digest(text: str) -> bool:
    """Whether it is a SHA-256 digest; other algorithms are not used by any registry of note."""
    return _DIGEST.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether it may be the name of a tag (OCI Distribution Specification, "Pulling manifests")."""
    return _TAG.fullmatch(text) is not None


def check_digest(text: str, where: str) -> str:
    """`text` itself where it is a SHA-256 digest; `ProviderError` otherwise."""
    if not is_digest(text):
        raise ProviderError(f"{where}: found the digest {text[:100]!r}, allowed: sha256:<64 hexadecimal digits>")
    return text


@dataclass(frozen=True)
class Platform:
    """What an image runs on, such as linux/amd64."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """linux/amd64, linux/arm/v7; `BadInput` otherwise."""
        if not _PLATFORM.fullmatch(text):
            raise BadInput(f"platform: found {text[:60]!r}, allowed: os/architecture[/variant], such as linux/amd64")
        return cls(*text.split("/"))


@dataclass(frozen=True)
class Descriptor:
    """Points at content: its media type, digest and size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    platform: Platform | None = None

    def as_document(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform is not None:
            document["platform"] = {"os": self.platform.os, "architecture": self.platform.architecture}
            if self.platform.variant:
                document["platform"]["variant"] = self.platform.variant
        return document

    @classmethod
    def read(cls, value: object, where: str) -> Descriptor:
        """The descriptor in a parsed document; `ProviderError` names `where`."""
        match value:
            case {"mediaType": str(media_type), "digest": str(digest), "size": int(size), **rest} if (
                size >= 0 and size is not True and size is not False
            ):
                annotations = rest.get("annotations") or {}
                artifact = rest.get("artifactType") or ""
                platform = rest.get("platform")
                return cls(
                    media_type,
                    check_digest(digest, where),
                    size,
                    {str(k): str(v) for k, v in annotations.items()} if isinstance(annotations, dict) else {},
                    artifact if isinstance(artifact, str) else "",
                    _platform(platform),
                )
        raise ProviderError(f"{where}: found no descriptor, allowed: an object with mediaType, digest and size")


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index as it was served: `data` hashes to `descriptor.digest`."""

    descriptor: Descriptor
    data: bytes

    @property
    def digest(self) -> str:
        return self.descriptor.digest

    @property
    def media_type(self) -> str:
        return self.descriptor.media_type

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEXES

    @cached_property
    def document(self) -> dict[str, Any]:
        """Parsed strictly: a key that stands twice is read in two ways by two readers."""
        try:
            found = strict_json.loads(self.data)
        except ValueError as error:
            raise NotAManifest(f"manifest {self.digest}: {error}") from None
        if not isinstance(found, dict):
            raise NotAManifest(f"manifest {self.digest}: found no object")
        return found

    @property
    def config(self) -> Descriptor:
        return Descriptor.read(self.document.get("config"), f"manifest {self.digest}: config")

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return self._descriptors("layers")

    @property
    def manifests(self) -> tuple[Descriptor, ...]:
        """Of an index."""
        return self._descriptors("manifests")

    @property
    def subject(self) -> str | None:
        """Digest of what this one is attached to (OCI 1.1)."""
        found = self.document.get("subject")
        return None if found is None else Descriptor.read(found, f"manifest {self.digest}: subject").digest

    @property
    def annotations(self) -> dict[str, str]:
        found = self.document.get("annotations") or {}
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    @property
    def artifact_type(self) -> str:
        found = self.document.get("artifactType")
        if isinstance(found, str) and found:
            return found
        config = self.document.get("config")
        found = config.get("mediaType") if isinstance(config, dict) else None
        return found if isinstance(found, str) else ""

    def _descriptors(self, name: str) -> tuple[Descriptor, ...]:
        found = self.document.get(name)
        if not isinstance(found, list):
            raise NotAManifest(f"manifest {self.digest}: found no list of {name}")
        try:
            return tuple(
                Descriptor.read(each, f"manifest {self.digest}: {name}[{at}]") for at, each in enumerate(found)
            )
        except ProviderError as error:
            raise NotAManifest(str(error)) from None


def manifest_of(data: bytes, served_as: str, where: str) -> Manifest:
    """The manifest in `data`. Where it names its own media type, that is what it is: a server that says another lies."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise ProviderError(f"{where}: found a manifest of {len(data):,} bytes, allowed: {MAX_MANIFEST_BYTES:,}")
    media_type = served_as.partition(";")[0].strip()
    manifest = Manifest(Descriptor(media_type, digest_of(data), len(data)), data)
    said = manifest.document.get("mediaType")
    if said is None and media_type not in (*MANIFESTS, *INDEXES):
        media_type = OCI_INDEX if "manifests" in manifest.document else OCI_MANIFEST
    if said is not None and said != media_type:
        if media_type in (*MANIFESTS, *INDEXES):
            raise NotAManifest(f"{where}: served as {media_type}, and says of itself {str(said)[:100]!r}")
        media_type = str(said)
    if media_type not in (*MANIFESTS, *INDEXES):
        raise NotAManifest(
            f"{where}: found the media type {media_type[:100]!r}, allowed: {', '.join((*MANIFESTS, *INDEXES))}"
        )
    both = ("layers", "config") if media_type in INDEXES else ("manifests",)
    if any(each in manifest.document for each in both):
        # CVE-2021-41190: one that is both is read in two ways.
        raise NotAManifest(f"{where}: found a manifest that is an index as well")
    return Manifest(Descriptor(media_type, manifest.digest, len(data)), data)


@dataclass(frozen=True)
class Reference:
    """registry/repository[:tag][@digest]. `registry` is host[:port], or empty for a layout."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        place = f"{self.registry}/{self.repository}" if self.registry else self.repository
        return place + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def wanted(self) -> str:
        """What is asked for: the digest where there is one."""
        return self.digest or self.tag or "latest"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """As Docker reads it: `alpine` is docker.io/library/alpine, and the first part is a host if it looks like one."""
        rest, at, digest = text.partition("@")
        head, slash, last = rest.rpartition("/")
        name, colon, tag = last.partition(":")
        first, _, _ = rest.partition("/")
        is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
        path = head + slash + name
        registry, repository = (first, path[len(first) + 1 :]) if is_host else ("docker.io", path)
        if registry == "index.docker.io":
            registry = "docker.io"
        if registry == "docker.io" and "/" not in repository:
            repository = f"library/{repository}"
        for wrong, allowed in (
            (bool(at) and not is_digest(digest), "a digest of the form sha256:<64 hexadecimal digits> after the @"),
            (bool(colon) and not _TAG.fullmatch(tag), "a tag of letters, digits and ._- after the colon"),
            (not _is_host(registry), "host[:port] as the registry"),
            (not _NAME.fullmatch(repository) or len(repository) > 255, "a repository in lower case, such as team/app"),
        ):
            if wrong:
                raise BadInput(f"image: found {text[:120]!r}, allowed: {allowed}")
        return cls(registry, repository, tag, digest)


class Repository(Protocol):
    """One repository: manifests and blobs by digest, manifests by tag too. What is returned is what was asked for.

    Every digest is checked against the bytes. Raises `ObjectMissing` for what is not there, `ConfigurationError` where
    access is refused, `TransientError` where a retry may help, `ProviderError` for an answer that cannot be right.
    """

    @property
    def name(self) -> str:
        """registry/repository, or the layout's folder: what a person knows it by."""
        ...

    def manifest(self, wanted: str) -> Manifest:
        """By digest or tag."""
        ...

    def blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """In memory; `ProviderError` where it is larger than `limit` bytes or than its descriptor says."""
        ...

    def fetch(self, descriptor: Descriptor, target: Path, limit: int) -> None:
        """Into a new file, streamed; the file is there only if its digest is right."""
        ...

    def put_blob(self, data: bytes, media_type: str) -> Descriptor:
        """Stores it, unless it is there."""
        ...

    def put_manifest(self, data: bytes, media_type: str, tag: str = "") -> Descriptor:
        """Stores it, under a tag where one is given, which is moved if it pointed elsewhere."""
        ...

    def tags(self) -> tuple[str, ...]:
        """All of them, sorted; those of attachments (sha256-...) too."""
        ...

    def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """What is attached to a digest (OCI 1.1): the registry's answer, or that of the fallback index tag."""
        ...

    def drop_referrer(self, subject: str, digest: str) -> bool:
        """Takes an attached manifest away from its subject; False where the repository lets nobody do so."""
        ...


def _is_host(text: str) -> bool:
    match = _HOST.fullmatch(text)
    return match is not None and 0 < int(match["port"] or 443) < 65_536


def _platform(value: object) -> Platform | None:
    match value:
        case {"os": str(os), "architecture": str(architecture), **rest}:
            variant = rest.get("variant")
            return Platform(os, architecture, variant if isinstance(variant, str) else "")
    return None
