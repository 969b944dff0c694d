"""Signed statements about the log: checkpoints and inclusion proofs, in the C2SP text formats.

`signed-note` (Ed25519 only), `tlog-checkpoint` and `tlog-proof@v1`, each of one spelling: what is read must be what
would be written. Not here: where checkpoints are kept, and what they are about.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519 = b"\x01"
_NAME = re.compile(r"[A-Za-z0-9./_-]{1,128}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
_PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_MAX_PROOF_HASHES = 64


@dataclass(frozen=True)
class Checkpoint:
    """The state of the log `origin` at `size` entries."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"


@dataclass(frozen=True)
class Proof:
    """An entry's place in the log: index, audit path, and the signed checkpoint (its text, verbatim)."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: str

    def encode(self) -> bytes:
        lines = [_PROOF_HEADER, f"index {self.index}", *map(_base64, self.path), "", self.checkpoint]
        return "\n".join(lines).encode()


@dataclass(frozen=True)
class LogVerifier:
    """A log's name and Ed25519 public key; as text the `vkey` of signed notes: name+id+base64(0x01, key)."""

    origin: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.origin.encode() + b"\n" + _ED25519 + self.public_key).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self.origin}+{self.key_id.hex()}+{_base64(_ED25519 + self.public_key)}"

    @classmethod
    def parse(cls, vkey: str) -> LogVerifier:
        """The verifier a `vkey` describes; `ValueError` where it is none, or is not of an Ed25519 key."""
        origin, _, rest = vkey.partition("+")
        _, _, key = rest.partition("+")
        raw = _unbase64(key)
        if not _NAME.fullmatch(origin) or len(raw) != 33 or raw[:1] != _ED25519:
            raise ValueError("no log key of the form origin+id+base64, Ed25519")
        found = cls(origin, raw[1:])
        if found.vkey != vkey:
            raise ValueError("the log key's identifier does not belong to its name and key")
        return found

    def open(self, note: str) -> Checkpoint:
        """The checkpoint in a note signed by this log; `ValueError` says why it is none."""
        text, blank, signatures = note.rpartition("\n\n")
        lines = text.split("\n")
        if not blank or len(lines) != 3:
            raise ValueError("no checkpoint: three lines, a blank line and a signature are expected")
        origin, size, root = lines[0], lines[1], _unbase64(lines[2])
        if not _NUMBER.fullmatch(size) or len(root) != 32:
            raise ValueError("no checkpoint: the size is no number, or the root no SHA-256")
        if origin != self.origin:
            raise ValueError(f"a checkpoint of another log: found {origin[:80]!r}, expected {self.origin!r}")
        found = Checkpoint(origin, int(size), root)
        match = re.fullmatch(r"— (\S+) ([A-Za-z0-9+/=]+)\n", signatures)
        raw = _unbase64(match[2]) if match else b""
        if not match or match[1] != self.origin or raw[:4] != self.key_id:
            raise ValueError("the checkpoint is not signed by this log's key")
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(raw[4:], found.text.encode())
        except InvalidSignature:
            raise ValueError("the checkpoint's signature does not stand") from None
        return found


@dataclass(frozen=True)
class LogKey:
    """The log's private key. Ed25519 signs alike each time, so that two writers of one tree size write one note."""

    origin: str
    private_key: Ed25519PrivateKey

    @property
    def verifier(self) -> LogVerifier:
        return LogVerifier(self.origin, self.private_key.public_key().public_bytes_raw())

    def sign(self, size: int, root: bytes) -> str:
        text = Checkpoint(self.origin, size, root).text
        signature = _base64(self.verifier.key_id + self.private_key.sign(text.encode()))
        return f"{text}\n— {self.origin} {signature}\n"


def read_proof(document: bytes) -> Proof:
    """The proof in a `tlog-proof@v1` document without extra data; `ValueError` where it is none."""
    head, blank, checkpoint = document.decode().partition("\n\n")
    header, index, *path = [*head.split("\n"), ""]
    path, number = path[:-1], index.removeprefix("index ")
    if not blank or header != _PROOF_HEADER or not _NUMBER.fullmatch(number) or len(path) > _MAX_PROOF_HASHES:
        raise ValueError(f"no {_PROOF_HEADER} document")
    found = Proof(int(number), tuple(map(_unbase64, path)), checkpoint)
    if found.encode() != document or any(len(node) != 32 for node in found.path):
        raise ValueError(f"no {_PROOF_HEADER} document in its one spelling")
    return found


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unbase64(text: str) -> bytes:
    """The bytes; `ValueError` also for a second spelling of the same bytes."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
    if _base64(raw) != text:
        raise ValueError("not base64 in its one spelling")
    return raw
