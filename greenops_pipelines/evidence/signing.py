"""One signing key's three forms over a statement: plain, DSSE envelope, sigstore bundle v0.3; made and checked.

The plain signature is for openssl, the envelope for in-toto tools, the bundle (the same envelope, wrapped) for cosign
and npm. Not here: where the key lies (`keys.py`).
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from greenops_pipelines.evidence import canonical

PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_ECDSA = ec.ECDSA(hashes.SHA256())


class Signer(Protocol):
    """A private ECDSA P-256 key that may be used, and not necessarily read."""

    @property
    def public(self) -> PublicKey: ...

    def sign(self, data: bytes) -> bytes:
        """An ASN.1 DER signature over the SHA-256 of `data`."""
        ...


class PublicKey:
    """An ECDSA P-256 public key."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key
        self.pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self._fingerprint = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()

    @classmethod
    def parse(cls, pem: bytes) -> PublicKey:
        """The key in a PEM text; `ValueError` says what was found instead."""
        if b"PRIVATE KEY" in pem:
            raise ValueError("found a private key, allowed: its public half (PEM, ECDSA P-256)")
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("found no public key in PEM, allowed: ECDSA P-256") from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError(f"found {kind_of(key)}, allowed: ECDSA P-256")  # noqa: TRY004 - a wrong file, no wrong type
        return cls(key)

    @property
    def keyid(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, hexadecimal."""
        return self._fingerprint.hex()

    @property
    def hint(self) -> str:
        """The same, as sigstore writes it."""
        return base64.b64encode(self._fingerprint).decode()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        try:
            self._key.verify(signature, data, _ECDSA)
        except InvalidSignature:
            return False
        return True


def kind_of(key: object) -> str:
    """`RSA key of 2048 bits`, `ECDSA key on secp384r1`: what a refused key is."""
    name = type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey").strip("_")
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return f"an ECDSA key on {key.curve.name}"
    bits = getattr(key, "key_size", None)
    return f"a key of the kind {name}" + (f" with {bits} bits" if bits else "")


def pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: type and length are signed with the payload."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def envelope(signer: Signer, payload: bytes) -> bytes:
    """The DSSE envelope around a statement."""
    signature = signer.sign(pae(payload))
    return canonical.dumps(
        {
            "payload": _base64(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": signer.public.keyid, "sig": _base64(signature)}],
        }
    )


def sigstore_bundle(public: PublicKey, dsse: bytes) -> bytes:
    """The sigstore bundle v0.3 around an envelope. It names the key by hint, and no log or time of sigstore's.

    The envelope's key id is left out here: cosign 3.1.3 skips a signature whose id is not an SSH fingerprint.
    """
    wrapped: Any = canonical.loads(dsse)
    signatures = [{"sig": signature["sig"]} for signature in wrapped["signatures"]]
    return canonical.dumps(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": public.hint}},
            "dsseEnvelope": wrapped | {"signatures": signatures},
        }
    )


def check_envelope(document: bytes, payload: bytes, public: PublicKey) -> None:
    """Raises `ValueError` unless the document is the envelope of `payload`, with one signature, by `public`."""
    found: Any = canonical.loads(document)
    signature = _signature_in(found)
    expected = {
        "payload": _base64(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": public.keyid, "sig": _base64(signature)}],
    }
    for name in ("payload", "payloadType"):
        if found.get(name) != expected[name]:
            raise ValueError(f"{name} is not that of the statement")
    if found != expected:
        raise ValueError("found other members, or another key's id, than an envelope by this key has")
    if not public.verifies(signature, pae(payload)):
        raise ValueError(f"its signature is not by the key {public.keyid[:16]}...")


def _signature_in(found: Any) -> bytes:
    match found:
        case {"signatures": [{"sig": str() as text}]}:
            try:
                return base64.b64decode(text, validate=True)
            except ValueError:
                raise ValueError("its signature is not base64") from None
    raise ValueError("found no envelope with exactly one signature")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
