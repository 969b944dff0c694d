"""`keys/`: the project's private keys, made on first use, refused where anyone else could have read or changed them.

The signing key is `evidence.key` here, a file of the operator's, or a key in a KMS. The log's key is always here.
A key that has gone is never replaced in silence: its public half, which stays beside it, shows that there was one.
Not here: GnuPG's keys (`gpg.py`), and secrets of other systems.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.evidence.checkpoint import LogKey, LogVerifier
from greenops_pipelines.evidence.signing import PublicKey, Signer, kind_of

SETTING = "GREENOPS_EVIDENCE_KEY"
_URI = re.compile(r"[a-z][a-z0-9]+:")
_MAX_KEY_BYTES = 65_536
_ORIGIN = "greenops-pipelines.example/log/"


@dataclass(frozen=True)
class FileSigner:
    """An ECDSA P-256 key held in memory."""

    private_key: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.private_key.public_key())

    def sign(self, data: bytes) -> bytes:
        return self.private_key.sign(data, ec.ECDSA(hashes.SHA256()))


class Keys:
    """The folder `keys/`. Raises `ConfigurationError` for every key that is not as it must be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def signer(self, named: str = "") -> Signer:
        """The signing key: `named` is a file, a KMS URI, or empty for `evidence.key`, made on first use."""
        if _URI.match(named):
            from greenops_pipelines.evidence.kms import KmsSigner

            signer: Signer = KmsSigner.open(named)
        elif named:
            signer = FileSigner(_p256(Path(named).expanduser().absolute()))
        else:
            with self._locked():
                path = self._own("evidence.key", "evidence.pub", lambda: ec.generate_private_key(ec.SECP256R1()))
                signer = FileSigner(_p256(path))
                self._note_public("evidence.pub", signer.public.pem)
            return signer
        with self._locked():
            self._note_public("evidence.pub", signer.public.pem, replace=True)
        return signer

    def public(self) -> tuple[PublicKey, ...]:
        """The public halves of the keys ever signed with, the present one first; empty before the first use."""
        found = []
        for path in (self.folder / "evidence.pub", *sorted(self.folder.glob("evidence-*.pub"))):
            try:
                found.append(PublicKey.parse(path.read_bytes()))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"{path}: {error}") from error
        return tuple(found)

    def log_key(self) -> LogKey:
        """The log's key, made on first use; two writers of one log need the same one."""
        with self._locked():
            path = self._own("log.key", "log.vkey", Ed25519PrivateKey.generate)
            key = _load(path)
            if not isinstance(key, Ed25519PrivateKey):
                raise ConfigurationError(f"{path}: found {kind_of(key)}, allowed: Ed25519")
            named = LogVerifier("", key.public_key().public_bytes_raw())
            log_key = LogKey(_ORIGIN + named.key_id.hex(), key)
            self._note_public("log.vkey", log_key.verifier.vkey.encode())
            return log_key

    @contextmanager
    def locked_folder(self) -> Iterator[Path]:
        """The folder, checked, for as long as no other process makes keys in it."""
        with self._locked():
            yield self.folder

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(self.folder, os.lstat(self.folder), stat.S_ISDIR, "a folder", "700")
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{self.folder}: {error.strerror}; allowed: a folder this user owns") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _own(
        self, name: str, public_name: str, make: Callable[[], ec.EllipticCurvePrivateKey | Ed25519PrivateKey]
    ) -> Path:
        """The path of a key of ours, which is made unless there ever was one."""
        path, public = self.folder / name, self.folder / public_name
        if not os.path.lexists(path):
            if public.exists():
                raise ConfigurationError(
                    f"{path}: found no such file, but its public half {public.name}; bring the key back from a backup, "
                    f"or rename {public.name} to {public.stem}-old{public.suffix} to begin with a new key"
                )
            _write(path, make().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        return path

    def _note_public(self, name: str, content: bytes, replace: bool = False) -> None:
        path = self.folder / name
        known = path.read_bytes() if path.exists() else None
        if known is None or (replace and known != content):
            if known is not None:
                # What the former key signed must stay verifiable.
                former = PublicKey.parse(known)
                _write(path.with_name(f"{path.stem}-{former.keyid[:16]}{path.suffix}"), known, 0o644)
            _write(path, content, 0o644)
        elif known != content:
            raise ConfigurationError(
                f"{path}: found the public half of another key than the private one beside it; "
                f"bring the right key back, or rename it to {path.stem}-old{path.suffix} to begin with a new key"
            )


def _p256(path: Path) -> ec.EllipticCurvePrivateKey:
    key = _load(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigurationError(f"{path}: found {kind_of(key)}, allowed: an ECDSA P-256 key; set {SETTING} to one")
    return key


def _load(path: Path) -> PrivateKeyTypes:
    """The private key in a file that only this user can read."""
    pem = _read_private(path)
    if b"PUBLIC KEY" in pem:
        raise ConfigurationError(f"{path}: found a public key, allowed: a private one in PEM")
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise ConfigurationError(f"{path}: found a key with a passphrase, allowed: one without, or a KMS URI") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{path}: found no private key in PEM, allowed: ECDSA P-256 in PKCS#8") from None


def _read_private(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        found = "a symbolic link" if error.errno == errno.ELOOP else (error.strerror or "an error").lower()
        raise ConfigurationError(f"{path}: found {found}, allowed: a key file this user can read") from error
    try:
        _check_private(path, os.fstat(descriptor), stat.S_ISREG, "a plain file", "600")
        return os.read(descriptor, _MAX_KEY_BYTES)
    finally:
        os.close(descriptor)


def _check_private(path: Path, status: os.stat_result, kind: Callable[[int], bool], noun: str, mode: str) -> None:
    if not kind(status.st_mode):
        raise ConfigurationError(f"{path}: found something else than {noun}")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(f"{path}: found the owner {status.st_uid}, allowed: this user ({os.geteuid()})")
    if found := stat.S_IMODE(status.st_mode) & 0o077:
        who = "everyone" if found & 0o007 else "the group"
        raise ConfigurationError(
            f"{path}: found mode {stat.S_IMODE(status.st_mode):o}, open to {who}; allowed: {mode} (chmod {mode} {path}). "
            "Make a new key if another user may have read it"
        )


def _write(path: Path, content: bytes, mode: int) -> None:
    """The file, whole or not at all. The caller holds the lock."""
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
