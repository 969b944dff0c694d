"""Samples from a Prometheus, through remote read; through its HTTP API where there is no remote read.

Asked selector by selector for a whole day; where that is more than the server gives or this process takes, for half of it, and so
on. Not here: the bytes (`remote_read_wire.py`), the other way (`matrix_read.py`), what is kept of the samples (`series_day.py`).
"""

from __future__ import annotations

import base64
import logging
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Literal, NoReturn
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
import urllib3
from pydantic import SecretStr

from greenops_pipelines.errors import BadInput, ConfigurationError, ProviderError, TransientError
from greenops_pipelines.http import HttpClient, described, phrase
from greenops_pipelines.redaction import one_line, reveal
from greenops_pipelines.slo import matrix_read
from greenops_pipelines.slo.remote_read_samples import Unreadable
from greenops_pipelines.slo.remote_read_wire import (
    Answer,
    CutOff,
    NativeHistogram,
    TooLarge,
    decode,
    read_request,
)
from greenops_pipelines.slo.series import Batch, Selector
from greenops_pipelines.slo.series_day import MOST_SAMPLES, SeriesDay, milliseconds

_log = logging.getLogger(__name__)

Route = Literal["remote read", "HTTP matrix"]

MOST_BYTES = 64 * 1024 * 1024
"""Bytes of an unpacked answer: 3.7 million samples, a day of 2,500 series at one a minute."""
_MINUTE_MS = 60_000
_UNLIMITED = 1_000_000
_CHUNK_BYTES = 1 << 20
_SAID_BYTES = 4096
_MEDIA_TYPE = "application/x-protobuf"
_HEADERS = {
    "Content-Type": _MEDIA_TYPE,
    "Content-Encoding": "snappy",
    "Accept-Encoding": "snappy",
    "X-Prometheus-Remote-Read-Version": "0.1.0",
    "User-Agent": "greenops-pipelines",
}
_TOO_MANY = ("exceeded sample limit", "too many samples")
"""What Prometheus and its relatives say, with status 400 or 422, of more samples than they give."""
_BAD_PATTERN = "error parsing regexp"
"""What Prometheus says with status 500, as if it were its own fault."""
_NOT_THERE = frozenset({404, 405, 501})
_UNKNOWN_PATH = "unsupported path requested"
"""What VictoriaMetrics says, with status 400, of a path it does not serve."""


class RemoteRead:
    """The `Source` named "prometheus". Not shared between threads.

    `url` is that of Prometheus, without `/api/v1`; `user:password@` in it is sent as basic authorisation, `token` as a bearer's,
    and both are shown nowhere. `timeout_seconds` bounds one question with its whole answer, `most_bytes` one unpacked answer,
    `most_samples` a day.
    Every question is asked once: who reads days tries again by day.

    `route` is how it reads, None before the first answer; `fallbacks` counts the reads of a selector that went through the
    HTTP API because the server has no remote read (`matrix_read.py` says what is not seen there); `requests` counts questions.

    A server with `external_labels` adds them to every series in remote read, as it does when it sends to others.

    Raises `ConfigurationError` for a URL or token that cannot be used.
    """

    name = "prometheus"

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        timeout_seconds: float = 120.0,
        most_bytes: int = MOST_BYTES,
        most_samples: int = MOST_SAMPLES,
    ) -> None:
        base_url, authorisation = _authorisation(url, token)
        self._client = HttpClient(
            base_url,
            headers={"Authorization": authorisation} if authorisation else None,
            timeout=(min(timeout_seconds, 10.0), timeout_seconds),
            total_seconds=timeout_seconds,
            attempts=1,
            max_bytes=most_bytes,
            rate_per_minute=_UNLIMITED,
        )
        self.url = self._client.base_url
        self._authorisation = authorisation
        self._timeout_seconds = timeout_seconds
        self._most_bytes = most_bytes
        self._most_samples = most_samples
        self._session = requests.Session()
        # As `HttpClient` does: no proxy for what runs here, nothing out of a ~/.netrc.
        self._session.trust_env = urlsplit(self.url).hostname not in ("127.0.0.1", "localhost", "::1")
        self._session.auth = self._authorise
        self._spans: dict[Selector, int] = {}
        self.route: Route | None = None
        self.fallbacks = 0
        self.requests = 0

    def __repr__(self) -> str:
        return f"RemoteRead({self.url!r})"

    def read(self, day: date, selectors: Sequence[Selector], until: datetime) -> Batch:
        """The samples of a UTC day, those at `until` and later left out.

        A selector is left out, with its reason, which the server refuses, which gives too few samples at once or more than a day may
        have, or has native histograms or two values for one time. Raises `TransientError` where the server is not reached,
        answers too slowly, with 429 or 5xx, or breaks off; `ProviderError` for what is no Prometheus; `BadInput` where no selector
        is left.
        """
        if until.tzinfo is None:
            raise BadInput(f"until: found {until}, a time without a zone, allowed: UTC")
        first, last = milliseconds(day, until.astimezone(UTC))
        found = SeriesDay(self.name, day, first, last, most_samples=self._most_samples)
        wanted = dict.fromkeys(selectors)
        if last >= first:
            for number, selector in enumerate(wanted):
                self._read_into(found, number, selector, first, last)
        batch = found.batch()
        if wanted and batch.left_out.keys() == wanted.keys():
            raise BadInput(next(iter(batch.left_out.values())))
        for reason in batch.left_out.values():
            _log.warning("%s: left out: %s", day, reason)
        return batch

    def _read_into(self, found: SeriesDay, number: int, selector: Selector, first_ms: int, last_ms: int) -> None:
        try:
            for answer in self._answers(selector, first_ms, last_ms):
                found.add(number, selector, answer)
        except BadInput as error:
            found.leave_out(number, selector, str(error))

    def _answers(self, selector: Selector, first_ms: int, last_ms: int) -> Iterator[Answer]:
        """One after the other, so that one is in memory at a time. Begins with the span that was not too long the last time."""
        whole = last_ms - first_ms + 1
        span, longest = min(self._spans.get(selector, whole), whole), 0
        left = [(at, min(at + span, last_ms + 1)) for at in range(first_ms, last_ms + 1, span)][::-1]
        while left:
            start, end = left.pop()
            try:
                answer = self._answer(selector, start, end - 1)
            except TooLarge as refused:
                if end - start <= _MINUTE_MS:
                    self._too_much(selector, start, refused)
                minutes = -(-(end - start) // _MINUTE_MS)
                middle = start + (minutes + 1) // 2 * _MINUTE_MS
                left += [(middle, end), (start, middle)]
                continue
            longest = max(longest, end - start)
            yield answer
        if longest < whole:
            self._spans[selector] = longest

    def _too_much(self, selector: Selector, start_ms: int, refused: TooLarge) -> NoReturn:
        at = datetime.fromtimestamp(start_ms / 1000, UTC)
        raise BadInput(
            f"{selector}: one minute from {at:%Y-%m-%dT%H:%M:%SZ} on is too much for one answer: {refused}; add matchers to the "
            f"selector, or raise the limit (the server's is --storage.remote.read-sample-limit, ours {self._most_bytes:,} bytes)"
        )

    def _answer(self, selector: Selector, first_ms: int, last_ms: int) -> Answer:
        if self.route != "HTTP matrix":
            answer = self._remote(selector, first_ms, last_ms)
            if answer is not None:
                self.route = "remote read"
                return answer
            _log.warning("%s: no remote read there: reading through the HTTP API, without stale markers", self.url)
            self.route = "HTTP matrix"
        self.fallbacks += 1
        self.requests += 1
        return matrix_read.matrix(self._client, selector, first_ms, last_ms)

    def _remote(self, selector: Selector, first_ms: int, last_ms: int) -> Answer | None:
        """None: there is no remote read."""
        body = self._posted(selector, read_request(selector, first_ms, last_ms))
        if body is None:
            return None
        try:
            return decode(body, self._most_bytes)
        except CutOff as error:
            found: Exception = TransientError(f"{self._shown}: {selector}: found {error}: cut off or damaged")
        except NativeHistogram as error:
            found = BadInput(
                f"{selector}: {one_line(str(error), 100)} is a native histogram, allowed: counters, as its classic buckets are"
            )
        except Unreadable as error:
            found = ProviderError(
                f"{self._shown}: {selector}: the answer is no ReadResponse: found {one_line(str(error), 150)}"
            )
        raise found

    @property
    def _shown(self) -> str:
        return f"POST {one_line(self.url, 200)}/api/v1/read"

    def _posted(self, selector: Selector, request: bytes) -> bytes | None:
        """The body of the answer as it came; None where there is no remote read."""
        deadline = time.monotonic() + self._timeout_seconds
        self.requests += 1
        fault = ""
        untrusted = False
        try:
            with self._session.post(
                f"{self.url}/api/v1/read",
                data=request,
                headers=_HEADERS,
                timeout=(min(self._timeout_seconds, 10.0), self._timeout_seconds),
                stream=True,
                allow_redirects=False,
            ) as response:
                is_whole = response.status_code == 200
                body = self._body(response, self._most_bytes if is_whole else _SAID_BYTES, deadline, is_whole)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            fault, untrusted = described(error), "CERTIFICATE_VERIFY_FAILED" in str(error)
        # Outside the `except`: the cause may hold the URL as it was sent.
        if untrusted:
            raise ProviderError(f"{self._shown}: its TLS certificate is not trusted")
        if fault:
            raise TransientError(f"{self._shown}: {selector}: {fault}")
        if not is_whole:
            self._check_status(selector, response.status_code, body.decode("utf-8", "replace"))
            return None
        self._check_type(response, body)
        return body

    def _body(self, response: requests.Response, most: int, deadline: float, is_whole: bool) -> bytes:
        """Up to `most` bytes. `read1` returns what has arrived, so that the deadline is seen between two drips."""
        body = bytearray()
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
            body += chunk
            if len(body) > most:
                if is_whole:
                    raise TooLarge(f"more than {most:,} bytes")
                break
            if time.monotonic() >= deadline:
                raise TimeoutError
        return bytes(body[:most])

    def _check_status(self, selector: Selector, status: int, body: str) -> None:
        """Raises what a status means; returns where it means that there is no remote read."""
        said = one_line(body.strip(), 300)
        answered = f"answered {status} {phrase(status)}" + (f": {said}" if said else "")
        if status in _NOT_THERE or (status == 400 and _UNKNOWN_PATH in said):
            if self.route is None:
                return
            raise TransientError(f"{self._shown}: {selector}: {answered}; it was there a moment ago")
        if status == 413 or (status in (400, 422) and any(words in said for words in _TOO_MANY)):
            raise TooLarge(said or answered)
        if status in (400, 422) or _BAD_PATTERN in said:
            raise BadInput(f"{selector}: Prometheus refuses it with {status}: {said}")
        if status >= 500 or status in (408, 425, 429):
            raise TransientError(f"{self._shown}: {selector}: {answered}")
        if status in (401, 403):
            raise ProviderError(f"{self._shown}: {answered}; change the user, password or token")
        raise ProviderError(f"{self._shown}: {answered}; change the URL if the service has moved")

    def _check_type(self, response: requests.Response, body: bytes) -> None:
        found = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        encoding = response.headers.get("Content-Encoding", "snappy").strip().lower()
        if found != _MEDIA_TYPE:
            excerpt = one_line(body[:2000].decode("utf-8", "replace"), 120)
            raise ProviderError(
                f"{self._shown}: expected {_MEDIA_TYPE}, found {one_line(found, 60) or 'no type'}: {excerpt!r}"
            )
        if encoding != "snappy":
            raise ProviderError(f"{self._shown}: expected a body in snappy, found {one_line(encoding, 40)}")

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._authorisation is not None:
            request.headers["Authorization"] = reveal(self._authorisation)
        return request


def _authorisation(url: str, token: str) -> tuple[str, SecretStr | None]:
    """The URL without what is secret in it, and the header's value that says it instead."""
    try:
        parts = urlsplit(url)
        user, password = parts.username, parts.password
        is_url = parts.hostname is not None and (parts.port or 0) >= 0 and "@" not in url.rpartition(parts.netloc)[2]
    except ValueError:
        is_url = False
    if not is_url:
        # A / or # of a password ends the host's part: whatever follows would be shown.
        raise ConfigurationError(
            "the URL of Prometheus: found none, allowed: http(s)://[user:password@]host[:port][/path], user and password "
            "percent-encoded"
        )
    if user is None and password is None:
        if not token:
            return url, None
        if not re.fullmatch(r"[!-~]+", token):
            raise ConfigurationError(
                "the token of Prometheus: found a space, a line break or a non-ASCII character in it"
            )
        reveal(SecretStr(token))
        return url, SecretStr(f"Bearer {token}")
    if token:
        raise ConfigurationError("Prometheus: found a user in the URL and a token, allowed: one of them")
    for secret in (password or "", unquote(password or "")):
        reveal(SecretStr(secret))
    pair = base64.b64encode(f"{unquote(user or '')}:{unquote(password or '')}".encode()).decode()
    reveal(SecretStr(pair))
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return bare, SecretStr(f"Basic {pair}")
