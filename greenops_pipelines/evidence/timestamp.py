"""RFC 3161 time stamps: another party's word on when a signature existed. Not here: which authority, and when to ask."""

from __future__ import annotations

from datetime import UTC, datetime

import requests
from cryptography.x509 import Certificate, load_pem_x509_certificates
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from greenops_pipelines.errors import ConfigurationError, PermanentError, TransientError

_TIMEOUT = (5.0, 20.0)
_MAX_BYTES = 262_144
_CHUNK = 16_384


class Authority:
    """A time-stamping authority at `url`; `roots` are the certificates (PEM) that vouch for it."""

    def __init__(self, url: str, roots: bytes) -> None:
        self.url = url
        self.roots = roots
        try:
            self._certificates = certificates(roots)
        except ValueError as error:
            raise ConfigurationError(f"GREENOPS_EVIDENCE_TSA_CA: {error}") from error

    def stamp(self, data: bytes) -> bytes:
        """The authority's response (DER) over the SHA-256 of `data`, checked.

        Raises `TransientError` where it cannot be had now, `PermanentError` where the answer does not stand.
        """
        request = TimestampRequestBuilder(data=data, hash_algorithm=HashAlgorithm.SHA256).build()
        answer = self._post(request.as_bytes())
        try:
            response = decode_timestamp_response(answer)
            verifier = VerifierBuilder.from_request(request)
            for certificate in self._certificates:
                verifier = verifier.add_root_certificate(certificate)
            verifier.build().verify_message(response, data)
        except (ValueError, VerificationError) as error:
            raise PermanentError(f"time-stamping authority {self.url}: its answer does not stand: {error}") from error
        return answer

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/timestamp-query", "User-Agent": "greenops-pipelines"}
        try:
            with requests.post(
                self.url, data=body, headers=headers, timeout=_TIMEOUT, stream=True, allow_redirects=False
            ) as response:
                if response.status_code in (408, 429) or response.status_code >= 500:
                    raise TransientError(f"time-stamping authority {self.url}: answered {response.status_code}")
                if response.status_code != 200:
                    raise PermanentError(f"time-stamping authority {self.url}: answered {response.status_code}")
                answer = b""
                for chunk in response.iter_content(_CHUNK):
                    answer += chunk
                    if len(answer) > _MAX_BYTES:
                        raise PermanentError(
                            f"time-stamping authority {self.url}: its answer is over {_MAX_BYTES:,} bytes"
                        )
                return answer
        except requests.RequestException as error:
            kind = type(error).__name__
            raise TransientError(f"time-stamping authority {self.url}: does not answer ({kind})") from error


def certificates(pem: bytes) -> list[Certificate]:
    """The certificates in a PEM text; `ValueError` where there is none."""
    try:
        found = load_pem_x509_certificates(pem)
    except ValueError:
        found = []
    if not found:
        raise ValueError("found no certificate, allowed: one or more in PEM")
    return found


def check(response: bytes, data: bytes, roots: bytes) -> datetime:
    """The stamped time; `ValueError` unless an authority under `roots` stamped exactly this data."""
    try:
        decoded: TimeStampResponse = decode_timestamp_response(response)
        builder = VerifierBuilder()
        for certificate in certificates(roots):
            builder = builder.add_root_certificate(certificate)
        builder.build().verify_message(decoded, data)
    except (ValueError, VerificationError) as error:
        raise ValueError(str(error)) from error
    except Exception as error:
        raise ValueError(f"it cannot be read ({type(error).__name__})") from error
    return decoded.tst_info.gen_time.astimezone(UTC)
