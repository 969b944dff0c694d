"""Signatures and attestations attached to an image's digest, in both ways, and read back.

Legacy: the tags `sha256-<hex>.sig` (simple signing documents) and `.att` (DSSE envelopes), which cosign 2 and older policy
engines read. OCI 1.1: a manifest per sigstore bundle, with `subject`, which cosign 3 reads. Not here: what is signed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from greenops_pipelines.errors import ObjectMissing, ProviderError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.evidence.signing import BUNDLE_TYPE, PublicKey, Signer, sigstore_bundle
from greenops_pipelines.supply_chain import attestations
from greenops_pipelines.supply_chain.attestations import SIGNATURE, NotVerified, Statement
from greenops_pipelines.supply_chain.oci import (
    EMPTY_BYTES,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    Repository,
)

Way = Literal["tag", "referrer"]
WAYS: tuple[Way, ...] = ("tag", "referrer")

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
_SIGNATURE_NOTE = "dev.cosignproject.cosign/signature"
_PREDICATE_NOTE = "dev.sigstore.bundle.predicateType"
_CRITICAL_TYPE = "cosign container image signature"
MAX_BYTES = 128 * 1024 * 1024
"""Of one attached envelope: the SBOM of a large image has some 20 MB."""
_MAX_ATTACHED = 500
"""Of each way: whoever may push could otherwise make a verifier read for ever."""


@dataclass(frozen=True)
class Attached:
    """One thing found attached to a digest: a statement that verifies, or why it does not."""

    way: Way
    manifest: str
    """Digest of the manifest that holds it."""
    statement: Statement | None
    fault: str = ""

    @property
    def predicate_type(self) -> str:
        return self.statement.predicate_type if self.statement else ""


def sign(repository: Repository, digest: str, name: str, signer: Signer) -> None:
    """Says that the image of that digest is ours, both ways. What says so already stays; nothing is signed twice."""
    found = read(repository, digest, [signer.public])
    ways = {each.way for each in found if each.predicate_type == SIGNATURE}
    if "tag" not in ways:
        payload = simple_signing(name, digest)
        signature = base64.b64encode(signer.sign(payload)).decode()
        blob = repository.put_blob(payload, SIMPLE_SIGNING)
        _add_to_tag(repository, _tag(digest, "sig"), _noted(blob, {_SIGNATURE_NOTE: signature}), dropped=set())
    if "referrer" not in ways:
        _refer(repository, digest, SIGNATURE, attestations.statement(name, [digest], SIGNATURE, {}), signer)


def attest(repository: Repository, digest: str, predicate_type: str, payload: bytes, signer: Signer) -> None:
    """Attaches a statement to `digest`, both ways, in place of ours of the same type about the same digests."""
    new, about = json.loads(payload), set(attestations.subjects(payload))
    former = [
        each
        for each in read(repository, digest, [signer.public])
        if each.statement and each.predicate_type == predicate_type and set(each.statement.subjects) == about
    ]
    kept = {each.way for each in former if each.statement and each.statement.document == new}
    if "tag" not in kept:
        envelope = attestations.envelope(signer, payload)
        blob = repository.put_blob(envelope, DSSE)
        noted = _noted(blob, {_SIGNATURE_NOTE: "", "predicateType": predicate_type})
        dropped = _layers_of(repository, digest, former)
        _add_to_tag(repository, _tag(digest, "att"), noted, dropped)
    if "referrer" not in kept:
        made = _refer(repository, digest, predicate_type, payload, signer)
        for each in former:
            if each.way == "referrer" and each.manifest != made:
                repository.drop_referrer(digest, each.manifest)


def read(repository: Repository, digest: str, keys: Sequence[PublicKey]) -> list[Attached]:
    """Everything attached to the digest, verified against `keys`; a signature is a statement of type `SIGNATURE`."""
    return [*_in_tags(repository, digest, keys), *_in_referrers(repository, digest, keys)]


def simple_signing(name: str, digest: str) -> bytes:
    """The document that cosign 2 signs for an image (containers/image, "Atomic container signature")."""
    return canonical.dumps(
        {
            "critical": {
                "identity": {"docker-reference": name},
                "image": {"docker-manifest-digest": digest},
                "type": _CRITICAL_TYPE,
            },
            "optional": {},
        }
    )


def _in_tags(repository: Repository, digest: str, keys: Sequence[PublicKey]) -> Iterator[Attached]:
    for suffix in ("sig", "att"):
        try:
            manifest = repository.manifest(_tag(digest, suffix))
        except ObjectMissing:
            continue
        for layer in manifest.layers[:_MAX_ATTACHED]:
            wanted = SIMPLE_SIGNING if suffix == "sig" else DSSE
            if layer.media_type != wanted:
                continue
            try:
                data = repository.blob(layer, MAX_BYTES)
                if suffix == "sig":
                    found = _simple(data, layer.annotations.get(_SIGNATURE_NOTE, ""), keys, digest)
                else:
                    found = attestations.verified(data, keys, digest)
            except (NotVerified, ObjectMissing, ProviderError) as error:
                yield Attached("tag", manifest.digest, None, str(error))
            else:
                yield Attached("tag", manifest.digest, found)


def _in_referrers(repository: Repository, digest: str, keys: Sequence[PublicKey]) -> Iterator[Attached]:
    for each in repository.referrers(digest)[:_MAX_ATTACHED]:
        if each.artifact_type and not each.artifact_type.startswith("application/vnd.dev.sigstore.bundle"):
            continue
        try:
            manifest = repository.manifest(each.digest)
            layer = _bundle_layer(manifest, digest)
            if layer is None:
                continue
            bundle = attestations.in_bundle(repository.blob(layer, MAX_BYTES))
            found = attestations.verified(bundle, keys, digest)
        except (NotVerified, ObjectMissing, ProviderError) as error:
            yield Attached("referrer", each.digest, None, str(error))
        else:
            yield Attached("referrer", each.digest, found)


def _bundle_layer(manifest: Manifest, digest: str) -> Descriptor | None:
    if not manifest.artifact_type.startswith("application/vnd.dev.sigstore.bundle"):
        return None
    if manifest.subject != digest:
        raise NotVerified(f"referrer: its manifest is attached to {manifest.subject}, and not to {digest}")
    if len(manifest.layers) != 1:
        raise NotVerified(f"referrer: found {len(manifest.layers)} layers, allowed: one, the bundle")
    return manifest.layers[0]


def _simple(data: bytes, signature: str, keys: Sequence[PublicKey], digest: str) -> Statement:
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raise NotVerified("signature: it is not base64") from None
    key = next((key for key in keys if key.verifies(raw, data)), None)
    if key is None:
        raise NotVerified("signature: it is by none of the keys that are trusted")
    match json.loads(data):
        case {"critical": {"type": str(kind), "image": {"docker-manifest-digest": str(about)}}} as document:
            if kind != _CRITICAL_TYPE:
                raise NotVerified(f"signature: found the type {kind[:80]!r}, allowed: {_CRITICAL_TYPE}")
            if about != digest:
                raise NotVerified(f"signature: it is about {about[:80]}, and not about {digest}")
            return Statement(SIGNATURE, (about,), {}, document, key)
    raise NotVerified("signature: found no simple signing document")


def _refer(repository: Repository, digest: str, predicate_type: str, payload: bytes, signer: Signer) -> str:
    """Attaches the statement's bundle as OCI 1.1 does; the digest of the manifest."""
    bundle = sigstore_bundle(signer.public, attestations.envelope(signer, payload))
    layer = repository.put_blob(bundle, BUNDLE_TYPE)
    config = repository.put_blob(EMPTY_BYTES, OCI_EMPTY)
    subject = repository.manifest(digest).descriptor
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": BUNDLE_TYPE,
        "config": config.as_document(),
        "layers": [layer.as_document()],
        "subject": Descriptor(subject.media_type, subject.digest, subject.size).as_document(),
        "annotations": {
            "org.opencontainers.image.created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "dev.sigstore.bundle.content": "dsse-envelope",
            _PREDICATE_NOTE: predicate_type,
        },
    }
    return repository.put_manifest(canonical.dumps(document), OCI_MANIFEST).digest


def _add_to_tag(repository: Repository, tag: str, layer: Descriptor, dropped: set[str]) -> None:
    """One more layer in the manifest under `tag`, without those whose digests are dropped."""
    try:
        before = repository.manifest(tag).layers
    except ObjectMissing:
        before = ()
    layers = [*(each for each in before if each.digest not in dropped), layer]
    # What cosign writes as the configuration of these: an image of no platform, its diff ids those of the layers.
    config = {
        "architecture": "",
        "config": {},
        "created": "0001-01-01T00:00:00Z",
        "history": [{"created": "0001-01-01T00:00:00Z"}] * len(layers),
        "os": "",
        "rootfs": {"diff_ids": [each.digest for each in layers], "type": "layers"},
    }
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": repository.put_blob(canonical.dumps(config), OCI_CONFIG).as_document(),
        "layers": [each.as_document() for each in layers],
    }
    repository.put_manifest(canonical.dumps(document), OCI_MANIFEST, tag)


def _layers_of(repository: Repository, digest: str, former: Sequence[Attached]) -> set[str]:
    """Digests of the layers of the `.att` manifest that hold these statements."""
    wanted = [each.statement.document for each in former if each.way == "tag" and each.statement]
    if not wanted:
        return set()
    found = set()
    for layer in repository.manifest(_tag(digest, "att")).layers:
        try:
            payload = json.loads(base64.b64decode(json.loads(repository.blob(layer, MAX_BYTES))["payload"]))
        except (ValueError, KeyError, TypeError):
            continue
        if payload in wanted:
            found.add(layer.digest)
    return found


def _noted(blob: Descriptor, annotations: dict[str, str]) -> Descriptor:
    return Descriptor(blob.media_type, blob.digest, blob.size, annotations)


def _tag(digest: str, suffix: str) -> str:
    return f"{digest.replace(':', '-')}.{suffix}"
