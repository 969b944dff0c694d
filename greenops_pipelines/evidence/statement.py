"""What a bundle says: manifest, in-toto Statement and log entry, as typed documents with one spelling each.

`docs/schemas/` holds their JSON Schemas, generated from these models. Not here: signatures and files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from greenops_pipelines.evidence import canonical

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://greenops-pipelines.example/evidence/v1"
MANIFEST_TYPE: Final = "https://greenops-pipelines.example/evidence/manifest/v1"
ENTRY_TYPE: Final = "https://greenops-pipelines.example/evidence/log-entry/v1"

Verdict = Literal["passed", "failed", "aborted", "cannot be measured"]
Figure = float | int | str | bool | None

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Id = Annotated[str, Field(pattern=r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}$")]


class Document(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_by_name=True, validate_by_alias=True, allow_inf_nan=False
    )

    @classmethod
    def read(cls, document: bytes) -> Self:
        """The document, strictly; `ValueError` says in one line what is wrong."""
        value = canonical.loads(document)
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "document"
            raise ValueError(f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}") from None

    def encode(self) -> bytes:
        return canonical.dumps(self.model_dump(mode="json", by_alias=True))


class ManifestFile(Document):
    path: str = Field(description="Path below the bundle's folder")
    sha256: Digest
    size: int = Field(ge=0, description="Bytes")


class Manifest(Document):
    """Every file a bundle was filed with, and the public keys it travels with; sorted by path."""

    type: Literal["https://greenops-pipelines.example/evidence/manifest/v1"]
    bundle: Id
    files: list[ManifestFile]


class Gpg(Document):
    """The second signature: the key's fingerprint, or why there is none."""

    fingerprint: Annotated[str, Field(pattern=r"^[0-9A-F]{40}$")] | None
    absent: str | None


class Timestamp(Document):
    """The time-stamping authority (RFC 3161) that was asked, or why none was."""

    authority: str | None
    absent: str | None


class Signing(Document):
    """Everything that vouches for this statement, stated inside it: what is stripped off later is missed."""

    keyid: Digest = Field(description="SHA-256 of the public key's SubjectPublicKeyInfo, DER")
    scheme: Literal["ecdsa-sha2-nistp256"]
    gpg: Gpg
    timestamp: Timestamp
    log: str = Field(description="The transparency log's verifier key (C2SP signed-note vkey)")


class Producer(Document):
    name: Literal["greenops-pipelines"]
    version: str


class Predicate(Document):
    """What happened: which control, about what, with which figures, and how it ended."""

    bundle: Id
    control: Line = Field(description="The obligation this is evidence for, e.g. J4.2")
    subject: Line = Field(description="What was looked at, e.g. an asset and its partition, or a drill")
    verdict: Verdict
    figures: dict[str, Figure] = Field(description="Measured figures, targets and texts, by name")
    requested_at: Time = Field(alias="requestedAt", description="When the filing was asked for, by this host's clock")
    created_at: Time = Field(alias="createdAt", description="When this statement was signed, by this host's clock")
    producer: Producer
    signing: Signing


class Sha256(Document):
    sha256: Digest


class Subject(Document):
    name: str
    digest: Sha256


class Statement(Document):
    """An in-toto Statement v1. Its subjects are the manifest and each file."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[Subject] = Field(min_length=1)
    predicate_type: Literal["https://greenops-pipelines.example/evidence/v1"] = Field(alias="predicateType")
    predicate: Predicate


class Entry(Document):
    """One entry of the transparency log: the digest of every part of a bundle but the proof itself."""

    type: Literal["https://greenops-pipelines.example/evidence/log-entry/v1"]
    bundle: Id
    logged_at: Time = Field(alias="loggedAt")
    parts: dict[str, Digest]


def digests(parts: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(parts.items())}


def manifest(bundle_id: str, parts: Mapping[str, bytes]) -> Manifest:
    """The manifest over these files and keys."""
    sums = digests(parts)
    files = [ManifestFile(path=name, sha256=sums[name], size=len(parts[name])) for name in sums]
    return Manifest(type=MANIFEST_TYPE, bundle=bundle_id, files=files)


def subjects(manifest_bytes: bytes, described: Manifest) -> list[Subject]:
    """The statement's subjects: the manifest first, then what it lists."""
    first = Subject(name="manifest.json", digest=Sha256(sha256=hashlib.sha256(manifest_bytes).hexdigest()))
    return [first, *(Subject(name=file.path, digest=Sha256(sha256=file.sha256)) for file in described.files)]


def statement(manifest_bytes: bytes, described: Manifest, predicate: Predicate) -> Statement:
    return Statement(
        type=STATEMENT_TYPE,
        subject=subjects(manifest_bytes, described),
        predicate_type=PREDICATE_TYPE,
        predicate=predicate,
    )


def time_text(moment: datetime) -> str:
    """RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_of(text: str) -> datetime:
    """The moment that `time_text` wrote; `ValueError` for a day that is in no calendar."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def schema(document: type[Document]) -> str:
    """The JSON Schema of one document, as it stands in `docs/schemas/`."""
    described = document.model_json_schema(by_alias=True)
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | described
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"


SCHEMAS: Mapping[str, type[Document]] = {
    "evidence-statement-v1.json": Statement,
    "evidence-manifest-v1.json": Manifest,
    "evidence-log-entry-v1.json": Entry,
}
