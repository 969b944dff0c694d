"""In-toto attestations of images: statements, their DSSE envelopes and sigstore bundles, made and verified.

What is verified here may come from other people's tools: any JSON spelling, either version of the statement. Not here:
where envelopes are attached (`attach.py`), the predicates' contents, and evidence (`evidence/`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greenops_pipelines import strict_json
from greenops_pipelines.evidence import canonical
from greenops_pipelines.evidence.signing import BUNDLE_TYPE, PAYLOAD_TYPE, PublicKey, Signer, pae
from greenops_pipelines.supply_chain.oci import is_digest

PROVENANCE = "https://slsa.dev/provenance/v1"
SPDX = "https://spdx.dev/Document"
CYCLONEDX = "https://cyclonedx.org/bom"
VULNERABILITIES = "https://cosign.sigstore.dev/attestation/vuln/v1"
SIGNATURE = "https://sigstore.dev/cosign/sign/v1"
"""What cosign 3 signs in place of an image's simple signing document."""

_STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
_MAX_SIGNATURES = 32
"""Of one envelope: each is held against each key."""
_MAX_STRUCTURE = 10_000
"""Braces, brackets and commas of an envelope or bundle, which has some dozens: its payload is Base64, and has none."""
_OLDER_BUNDLE = "application/vnd.dev.sigstore.bundle+json;version=0.3"


@dataclass(frozen=True)
class Statement:
    """What a verified envelope says: about which digests, in which words, by whose key."""

    predicate_type: str
    subjects: tuple[str, ...]
    predicate: Mapping[str, Any]
    document: Mapping[str, Any]
    key: PublicKey


class NotVerified(ValueError):
    """An envelope that proves nothing here. The message says why, in one line."""


def statement(name: str, digests: Sequence[str], predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """The in-toto Statement v1 about these digests (`sha256:...`), in its canonical spelling."""
    return canonical.dumps(
        {
            "_type": _STATEMENTS[0],
            "subject": [{"name": name, "digest": {"sha256": each.removeprefix("sha256:")}} for each in digests],
            "predicateType": predicate_type,
            "predicate": dict(predicate),
        }
    )


def subjects(payload: bytes) -> tuple[str, ...]:
    """The digests that a statement of ours is about."""
    said = _object(payload, "statement")
    return tuple(filter(None, map(_digest, said["subject"])))


def envelope(signer: Signer, payload: bytes) -> bytes:
    """The DSSE envelope around a statement. It names no key: cosign skips a signature whose name it cannot resolve."""
    return canonical.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": "", "sig": base64.b64encode(signer.sign(pae(payload))).decode()}],
        }
    )


def verified_bundle(data: bytes, keys: Sequence[PublicKey], digest: str) -> Statement:
    """As `verified`, of the DSSE envelope in a sigstore bundle v0.3."""
    document = _wrapping(data, "sigstore bundle")
    if document.get("mediaType") not in (BUNDLE_TYPE, _OLDER_BUNDLE):
        raise NotVerified(f"sigstore bundle: found the media type {str(document.get('mediaType'))[:80]!r}")
    inner = document.get("dsseEnvelope")
    if not isinstance(inner, dict):
        raise NotVerified("sigstore bundle: found no DSSE envelope in it")
    return _verified(inner, keys, digest)


def verified(data: bytes, keys: Sequence[PublicKey], digest: str) -> Statement:
    """The statement in a DSSE envelope, signed by one of `keys` and about `digest`; `NotVerified` otherwise.

    The signature is looked at before anything that it covers is read.
    """
    return _verified(_wrapping(data, "envelope"), keys, digest)


def _verified(document: Mapping[str, Any], keys: Sequence[PublicKey], digest: str) -> Statement:
    if document.get("payloadType") != PAYLOAD_TYPE:
        raise NotVerified(f"envelope: found the payload type {str(document.get('payloadType'))[:80]!r}")
    payload = _decoded(document.get("payload"), "payload")
    signatures = document.get("signatures")
    if not isinstance(signatures, list) or not signatures:
        raise NotVerified("envelope: found no signature")
    if len(signatures) > _MAX_SIGNATURES:
        raise NotVerified(f"envelope: found {len(signatures):,} signatures, allowed: {_MAX_SIGNATURES}")
    signed = pae(payload)
    key = next(
        (
            key
            for each in signatures
            if isinstance(each, dict)
            for key in keys
            if key.verifies(_decoded(each.get("sig"), "signature"), signed)
        ),
        None,
    )
    if key is None:
        raise NotVerified("envelope: its signature is by none of the keys that are trusted")
    return _read(payload, digest, key)


def _read(payload: bytes, digest: str, key: PublicKey) -> Statement:
    said = _object(payload, "statement")
    if said.get("_type") not in _STATEMENTS:
        raise NotVerified(f"statement: found the type {str(said.get('_type'))[:80]!r}")
    match said:
        case {"predicateType": str(predicate_type), "subject": [*subjects], "predicate": dict(predicate)}:
            about = tuple(filter(None, map(_digest, subjects)))
        case _:
            raise NotVerified("statement: found no subject, predicateType or predicate")
    if digest not in about:
        shown = ", ".join(about)[:200] or "nothing"
        raise NotVerified(f"statement: it is about {shown}, and not about {digest}")
    return Statement(predicate_type, about, predicate, said, key)


def _digest(subject: object) -> str | None:
    match subject:
        case {"digest": {"sha256": str(found)}} if is_digest(f"sha256:{found}"):
            return f"sha256:{found}"
    return None


def _wrapping(data: bytes, what: str) -> dict[str, Any]:
    """Parsed before anybody's signature is looked at: 128 MiB of `{},{}` would become 3 GB."""
    if (found := sum(map(data.count, (b"{", b"[", b",")))) > _MAX_STRUCTURE:
        raise NotVerified(f"{what}: found {found:,} braces, brackets and commas, allowed: {_MAX_STRUCTURE:,}")
    return _object(data, what)


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = strict_json.loads(data)
    except ValueError as error:
        raise NotVerified(f"{what}: {error}") from None
    if not isinstance(found, dict):
        raise NotVerified(f"{what}: found no object")
    return found


def _decoded(text: object, what: str) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise NotVerified(f"envelope: its {what} is not base64")
