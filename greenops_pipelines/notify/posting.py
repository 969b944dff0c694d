"""One POST of JSON to whoever is told, and what is known afterwards: it arrived, it did not, or nobody knows.

Nothing is tried again here: the outbox does that, durably. No address, key or answer with a secret is in any error: a
target shows as its name and its host. Not here: what is posted, and what an answer means (`slack.py`, `pagerduty.py`).
"""

from __future__ import annotations

import io
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

import requests
import urllib3
from pydantic import SecretStr

from greenops_pipelines.errors import ConfigurationError, ProviderError, TransientError
from greenops_pipelines.http import described, phrase, retry_after_seconds
from greenops_pipelines.notify.message import Message
from greenops_pipelines.redaction import one_line, reveal

_ANSWER_BYTES = 4096
_SHORTEST_SECRET = 8
_NO_WORD_CHARACTERS = 20
"""Tokens have digits or capitals, or are longer than this; words of a path, "services" and "webhooks", are neither."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class NotSent(TransientError):
    """It certainly did not arrive, and may another time. `retry_after_seconds`: what the target asked for."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SentPerhaps(TransientError):
    """It was handed over, and no answer says what became of it."""


class Refused(ProviderError):
    """The target will never take it as it is."""


class Target(Protocol):
    """Somebody who is told. `asks_again`: the same message twice is one alert there, so what is unknown is sent again.

    `groups`: several messages are one there, at most `per_hour` of them.
    """

    name: str
    asks_again: bool
    groups: bool
    per_hour: int | None

    def send(self, messages: Sequence[Message]) -> str:
        """Says them, and gives what came of it in a few words. Raises `NotSent`, `SentPerhaps` or `Refused`."""
        ...


@dataclass(frozen=True)
class Answer:
    """A status and the beginning of the body. `is_whole`: the body came to its end."""

    status: int
    text: str
    is_whole: bool
    retry_after_seconds: float | None = None

    @property
    def words(self) -> str:
        """Status and body, redacted, for a message of ours."""
        said = one_line(self.text, 120)
        return f"answered {self.status} {phrase(self.status)}".rstrip() + (f": {said}" if said else "")


@dataclass(frozen=True)
class Address:
    """Where a target takes messages. Its path may be a credential: it is never shown."""

    name: str
    url: SecretStr = field(repr=False)

    @property
    def shown(self) -> str:
        return f"{self.name} ({urlsplit(self.url.get_secret_value()).hostname})"


def address(name: str, url: SecretStr, variable: str, *, is_credential: bool = True) -> Address:
    """The checked address: https, or http on this machine. `ConfigurationError` names the variable and shows nothing.

    `is_credential`: whoever knows it may post, so from here on it is starred out of every message, part by part.
    """
    parts = None
    try:
        parts = urlsplit(url.get_secret_value().strip())
        usable = bool(parts.hostname) and (parts.port or 1) > 0 and not (parts.username or parts.fragment)
    except ValueError:
        usable = False
    if parts is None or not usable or (parts.scheme, parts.hostname in LOOPBACK) not in _ALLOWED:
        raise ConfigurationError(
            f"{variable}: found (hidden), allowed: an address as the service gives it, https://..."
        )
    if is_credential:
        # Servers like to quote the path, or its last part, in what they answer.
        pieces = [*parts.path.split("/"), *(value for _, value in parse_qsl(parts.query))]
        for secret in (parts.geturl(), parts.path, parts.query, *filter(_is_token, pieces)):
            if len(secret) >= _SHORTEST_SECRET:
                reveal(SecretStr(secret))
    return Address(name, SecretStr(parts.geturl()))


def _is_token(piece: str) -> bool:
    return len(piece) > _NO_WORD_CHARACTERS or any(c.isdigit() or c.isupper() for c in piece)


_ALLOWED = {("https", True), ("https", False), ("http", True)}


def post(
    to: Address, body: Mapping[str, object], timeout: tuple[float, float] = (5.0, 10.0), total_seconds: float = 20.0
) -> Answer:
    """The answer, whatever its status; redirects are not followed. Timeouts in seconds: (connect, read), and the body's.

    `NotSent` where nothing of the body left: no connection came about, or no TLS. `SentPerhaps` where it was lost later.
    """
    deadline = time.monotonic() + total_seconds
    # A stream, since it knows afterwards whether anybody read from it: an error's class does not. A TLS record that is
    # broken by the answer raises the same SSLError as a certificate that is not trusted.
    stream = io.BytesIO(json.dumps(body, ensure_ascii=False).encode())
    fault = ""
    with requests.Session() as session:
        # What runs on this machine is not asked for through a proxy that stands elsewhere.
        session.trust_env = urlsplit(to.url.get_secret_value()).hostname not in LOOPBACK
        try:
            response = session.post(
                to.url.get_secret_value(),
                data=stream,
                headers={
                    "Content-Type": "application/json; charset=utf-8",
                    "Accept-Encoding": "identity",
                    "User-Agent": "greenops-pipelines",
                },
                auth=lambda request: request,  # or `requests` would add what a ~/.netrc holds for the host
                timeout=timeout,
                stream=True,
                allow_redirects=False,
            )
        except (requests.RequestException, ValueError) as error:
            fault = _tls_fault(error) or described(error)
        # Raised outside the `except`: the cause holds the address, and stays behind.
        if fault:
            raise (SentPerhaps if stream.tell() else NotSent)(f"{to.shown}: {fault}")
        with response:
            text, is_whole = _read(response, deadline)
            asked = retry_after_seconds(response.headers, datetime.now(UTC))
            return Answer(response.status_code, text, is_whole, asked)


def _tls_fault(error: Exception) -> str:
    """What was wrong with TLS, by OpenSSL's own name for it; empty where it was something else."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    for each in (*getattr(reason, "args", ()), *error.args):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({one_line(each.verify_message, 100)})"
        if isinstance(each, ssl.SSLError):
            return f"TLS failed ({one_line(each.reason or type(each).__name__, 100)})"
    return ""


def _read(response: requests.Response, deadline: float) -> tuple[str, bool]:
    """The beginning of the body, and whether it came to its end."""
    body = bytearray()
    try:
        while len(body) < _ANSWER_BYTES:
            chunk = response.raw.read1(_ANSWER_BYTES - len(body), decode_content=False)
            if not chunk:
                left = response.raw.length_remaining
                return body.decode("utf-8", "replace").strip(), not left
            body += chunk
            if time.monotonic() >= deadline:
                break
    except (urllib3.exceptions.HTTPError, OSError):
        pass
    return body.decode("utf-8", "replace").strip(), False
