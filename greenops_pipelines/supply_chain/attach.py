"""Signatures and attestations attached to an image's digest, in both ways, and read back.

Legacy: the tags `sha256-<hex>.sig` (simple signing documents) and `.att` (DSSE envelopes), which cosign 2 and older policy
engines read. OCI 1.1: a manifest per sigstore bundle, with `subject`, which cosign 3 reads. Not here: what is signed.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from greenops_pipelines import strict_json
from greenops_pipelines.errors import ObjectMissing, ProviderError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.evidence.signing import BUNDLE_TYPE, PublicKey, Signer, sigstore_bundle
from greenops_pipelines.supply_chain import attestations
from greenops_pipelines.supply_chain.attestations import (
    PROVENANCE,
    SIGNATURE,
    VULNERABILITIES,
    NotVerified,
    Statement,
)
from greenops_pipelines.supply_chain.oci import (
    EMPTY_BYTES,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    NotAManifest,
    Repository,
)

log = logging.getLogger(__name__)

Way = Literal["tag", "referrer"]
WAYS: tuple[Way, ...] = ("tag", "referrer")

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
_SIGNATURE_NOTE = "dev.cosignproject.cosign/signature"
_PREDICATE_NOTE = "dev.sigstore.bundle.predicateType"
_CRITICAL_TYPE = "cosign container image signature"
MAX_BYTES = 128 * 1024 * 1024
"""Of one attached envelope: the SBOM of a large image has some 20 MB."""
MAX_ATTACHED = 500
MAX_TOTAL_BYTES = 1024 * 1024 * 1024
"""Of one digest, in each of its lists: whoever may push could otherwise make a verifier read for ever."""
MAX_LISTED = 500
MAX_LIST_BYTES = 1024 * 1024
"""Of what is written under a legacy tag: registries take 4 MiB, and others would fill them until there is no room for ours."""
_ONE_AT_A_TIME = (VULNERABILITIES, PROVENANCE)
"""Of these one alone is ours at a place, whatever else it is about. SBOMs stay: of an index there is one per platform."""


@dataclass(frozen=True)
class Attached:
    """One thing found attached to a digest: a statement that verifies, or why it does not."""

    way: Way
    manifest: str
    """Digest of the manifest that holds it; empty where that cannot be read."""
    statement: Statement | None
    fault: str = ""
    layer: str = ""
    """Digest of the envelope or bundle."""
    is_damaged: bool = False
    """Whether the repository has handed out something that cannot be right, such as other bytes than the digest says."""

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
        _write_tag(repository, _tag(digest, "sig"), [_noted(blob, {_SIGNATURE_NOTE: signature})], dropped=set())
    if "referrer" not in ways:
        _refer(repository, digest, SIGNATURE, attestations.statement(name, [digest], SIGNATURE, {}), signer)


def attest(
    repository: Repository,
    digest: str,
    predicate_type: str,
    payload: bytes,
    signer: Signer,
    ways: Sequence[Way] = WAYS,
    there: Sequence[Attached] | None = None,
) -> None:
    """Attaches a statement to `digest`, in place of ours of the same type about the same digests.

    Of scans and provenances it takes the place of every one of ours: an engine may read the older "passed" beside the newer.
    `there` is what `read` has found there for our key, where that is known: an SBOM of 20 MB is not read once per statement.
    """
    new, about = json.loads(payload), set(attestations.subjects(payload))
    kept: dict[Way, str] = {}
    former: list[Attached] = []
    ours: set[str] = set()
    for each in read(repository, digest, [signer.public]) if there is None else there:
        if each.statement is None:
            continue
        if each.way == "tag":
            ours.add(each.layer)
        if each.predicate_type != predicate_type:
            continue
        if predicate_type not in _ONE_AT_A_TIME and set(each.statement.subjects) != about:
            continue
        if each.statement.document == new and each.way not in kept:
            kept[each.way] = each.layer
        else:
            # One that says the same again is of a writer that ended between its two writes, or of two at once.
            former.append(each)
    dropped = {each.layer for each in former if each.way == "tag"} - set(kept.values())
    if "tag" in ways and "tag" not in kept:
        blob = repository.put_blob(attestations.envelope(signer, payload), DSSE)
        noted = _noted(blob, {_SIGNATURE_NOTE: "", "predicateType": predicate_type})
        _write_tag(repository, _tag(digest, "att"), [noted], dropped, ours)
    elif dropped:
        _write_tag(repository, _tag(digest, "att"), [], dropped, ours)
    is_referred = "referrer" in kept or "referrer" not in ways
    made = "" if is_referred else _refer(repository, digest, predicate_type, payload, signer)
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
    for suffix, wanted in (("sig", SIMPLE_SIGNING), ("att", DSSE)):
        try:
            manifest = repository.manifest(_tag(digest, suffix))
            layers = [each for each in manifest.layers if each.media_type == wanted]
        except ObjectMissing:
            continue
        except ProviderError as error:
            yield Attached("tag", "", None, str(error), is_damaged=True)
            continue
        total = 0
        for at, layer in enumerate(layers):
            total += layer.size
            if at == MAX_ATTACHED or total > MAX_TOTAL_BYTES:
                yield _too_many("tag", at, len(layers))
                break
            try:
                data = repository.blob(layer, MAX_BYTES)
                if suffix == "sig":
                    found = _simple(data, layer.annotations.get(_SIGNATURE_NOTE, ""), keys, digest)
                else:
                    found = attestations.verified(data, keys, digest)
            except (NotVerified, ObjectMissing, ProviderError) as error:
                is_damaged = isinstance(error, ProviderError)
                yield Attached("tag", manifest.digest, None, str(error), layer.digest, is_damaged)
            else:
                yield Attached("tag", manifest.digest, found, "", layer.digest)


def _in_referrers(repository: Repository, digest: str, keys: Sequence[PublicKey]) -> Iterator[Attached]:
    try:
        listed = [
            each for each in repository.referrers(digest) if not each.artifact_type or _is_bundle(each.artifact_type)
        ]
    except (ObjectMissing, ProviderError) as error:
        yield Attached("referrer", "", None, str(error), is_damaged=isinstance(error, ProviderError))
        return
    total = 0
    for at, each in enumerate(listed):
        if at == MAX_ATTACHED or total > MAX_TOTAL_BYTES:
            yield _too_many("referrer", at, len(listed))
            return
        layer = None
        try:
            manifest = repository.manifest(each.digest)
            layer = _bundle_layer(manifest, digest)
            if layer is None:
                continue
            total += layer.size
            found = attestations.verified_bundle(repository.blob(layer, MAX_BYTES), keys, digest)
        except (NotVerified, ObjectMissing, ProviderError) as error:
            is_damaged = isinstance(error, ProviderError)
            yield Attached("referrer", each.digest, None, str(error), layer.digest if layer else "", is_damaged)
        else:
            yield Attached("referrer", each.digest, found, "", layer.digest)


def _too_many(way: Way, at: int, there: int) -> Attached:
    return Attached(way, "", None, f"found {there:,} attached; read were the first {at:,}, and no more than 1 GB")


def _is_bundle(artifact_type: str) -> bool:
    return artifact_type.startswith("application/vnd.dev.sigstore.bundle")


def _bundle_layer(manifest: Manifest, digest: str) -> Descriptor | None:
    if not _is_bundle(manifest.artifact_type):
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
    try:
        said: Any = strict_json.loads(data)
    except ValueError as error:
        # The key signs other things than images.
        raise NotVerified(f"signature: it is over no simple signing document: {error}") from None
    match said:
        case {"critical": {"type": str(kind), "image": {"docker-manifest-digest": str(about)}}}:
            if kind != _CRITICAL_TYPE:
                raise NotVerified(f"signature: found the type {kind[:80]!r}, allowed: {_CRITICAL_TYPE}")
            if about != digest:
                raise NotVerified(f"signature: it is about {about[:80]}, and not about {digest}")
            return Statement(SIGNATURE, (about,), {}, said, key)
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


def _write_tag(
    repository: Repository, tag: str, new: Sequence[Descriptor], dropped: set[str], ours: Set[str] = frozenset()
) -> None:
    """New layers in the manifest under `tag`, before all others: they stay among those that are read."""
    layers = [*new, *(each for each in _listed(repository, tag) if each.digest not in dropped)]
    if len(layers) > MAX_LISTED or _size(layers) > MAX_LIST_BYTES:
        layers = _fitting(new, layers[len(new) :], ours, f"{repository.name}:{tag}")
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


def _listed(repository: Repository, tag: str) -> tuple[Descriptor, ...]:
    """The layers under the tag. Bytes that are damaged are an error; what is whole, and no list of layers, gives way."""
    try:
        return repository.manifest(tag).layers
    except ObjectMissing:
        return ()
    except NotAManifest as error:
        log.warning("%s:%s: overwritten: %s", repository.name, tag, error)
        return ()


def _fitting(new: Sequence[Descriptor], before: Sequence[Descriptor], ours: Set[str], where: str) -> list[Descriptor]:
    """What there is room for: the new ones, ours once each, then others' from the front, which are the oldest of theirs."""
    own = {each.digest: each for each in reversed(before) if each.digest in ours}
    others = [each for each in before if each.digest not in ours]
    kept, total = list(new), _size(new)
    for each in (*reversed(own.values()), *others):
        size = _size([each])
        if len(kept) < MAX_LISTED and total + size <= MAX_LIST_BYTES:
            kept.append(each)
            total += size
    log.warning("%s: %d layers that others have put there are dropped", where, len(new) + len(before) - len(kept))
    return kept


def _size(layers: Sequence[Descriptor]) -> int:
    """Bytes that they take in a manifest; too many for what others wrote, and no canonical JSON can carry."""
    try:
        return sum(len(canonical.dumps(each.as_document())) + 1 for each in layers)
    except ValueError:
        return MAX_LIST_BYTES + 1


def _noted(blob: Descriptor, annotations: dict[str, str]) -> Descriptor:
    return Descriptor(blob.media_type, blob.digest, blob.size, annotations)


def _tag(digest: str, suffix: str) -> str:
    return f"{digest.replace(':', '-')}.{suffix}"
