"""A signing key that never leaves its KMS, through securesystemslib's signers. Not here: credentials.

`awskms:<key id or ARN>` works with what is installed; the other schemes need
securesystemslib's extra of the same name beside it, and say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from greenops_pipelines.errors import ConfigurationError, TransientError
from greenops_pipelines.evidence.signing import PublicKey

if TYPE_CHECKING:
    from securesystemslib.signer import Signer as LibrarySigner

_ALLOWED = "awskms:<key id>, gcpkms:<version path>, azurekms:<vault>.vault.azure.net/<key>, hv:<key name>"
_SETTING = "GREENOPS_EVIDENCE_KEY"


class KmsSigner:
    """An ECDSA P-256 key in a KMS. One call to the service per signature."""

    def __init__(self, uri: str, signer: LibrarySigner, public: PublicKey) -> None:
        self._uri = uri
        self._signer = signer
        self._public = public

    @classmethod
    def open(cls, uri: str) -> KmsSigner:
        """Fetches the public key; raises `ConfigurationError` or, where the service does not answer, `TransientError`."""
        from securesystemslib.signer import (
            AWSSigner,
            AzureSigner,
            GCPSigner,
            SSlibKey,
            VaultSigner,
        )

        scheme, _, name = uri.partition(":")
        importers: dict[str, Any] = {
            "awskms": AWSSigner,
            "gcpkms": GCPSigner,
            "azurekms": AzureSigner,
            "hv": VaultSigner,
        }
        if scheme not in importers:
            raise ConfigurationError(f"{_SETTING}: found {uri!r}, allowed: a file, or {_ALLOWED}")
        found = _call(uri, lambda: _imported(importers[scheme], scheme, name))
        address, key = found
        if not isinstance(key, SSlibKey) or key.scheme != "ecdsa-sha2-nistp256":
            raise ConfigurationError(f"{_SETTING}={uri}: found a key for {key.scheme}, allowed: ecdsa-sha2-nistp256")
        public = PublicKey.parse(key.keyval["public"].encode())
        signer = _call(uri, lambda: importers[scheme].from_priv_key_uri(address, key))
        return cls(uri, signer, public)

    @property
    def public(self) -> PublicKey:
        return self._public

    def sign(self, data: bytes) -> bytes:
        signature: bytes = _call(self._uri, lambda: bytes.fromhex(self._signer.sign(data).signature))
        if not self._public.verifies(signature, data):
            raise ConfigurationError(
                f"{_SETTING}={self._uri}: the service signs with another key than it published, "
                "or something else than it was given"
            )
        return signature


def _imported(signer: Any, scheme: str, name: str) -> tuple[str, Any]:
    if scheme == "azurekms":
        vault, _, key = name.removeprefix("//").partition("/")
        found: tuple[str, Any] = signer.import_(vault.partition(".")[0], key)
    else:
        found = signer.import_(name)
    return found


def _call(uri: str, action: Any) -> Any:
    from securesystemslib.exceptions import UnsupportedLibraryError

    try:
        return action()
    except UnsupportedLibraryError as error:
        raise ConfigurationError(f"{_SETTING}={uri}: {error}; install securesystemslib's extra for it") from error
    except Exception as error:
        kind = type(error).__name__
        if kind in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ServiceUnavailable"):
            raise TransientError(f"{_SETTING}={uri}: the service does not answer ({kind}); try again later") from error
        raise ConfigurationError(
            f"{_SETTING}={uri}: {kind}; check the key's name, its region and the right to use it"
        ) from error
