"""The one HTTP client of the project: bounded in time, size and rate, and silent about secrets.

A call ends in one of three ways: the parsed JSON; a `TransientError`, after retries that did not help; a
`ProviderError`, where a retry cannot help. None of them, nor a log line on the way, holds a secret. Not here: what
the JSON means.
"""

from __future__ import annotations

import email.utils
import logging
import random
import re
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from pydantic import SecretStr

from greenops_pipelines import strict_json
from greenops_pipelines.errors import ConfigurationError, ProviderError, TransientError
from greenops_pipelines.redaction import one_line, redact, reveal

log = logging.getLogger(__name__)

Params = Mapping[str, str | int | SecretStr]

RETRIED = frozenset({429, 500, 502, 503, 504})
_REDIRECTS = 3
_FIX_URL = "change the base URL if the service has moved"
_CHUNK_BYTES = 65_536
_ERROR_BODY_BYTES = 16_384
_ONE_YEAR_SECONDS = 366 * 86_400.0
_JSON_TYPES = re.compile(r"(application|text)/(json|[\w.-]+\+json)", re.ASCII)


class HttpStatusError(ProviderError):
    """A status that no retry cures, mostly 4xx. `body` is what the server said, redacted and cut."""

    def __init__(self, message: str, status: int, body: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class HttpClient:
    """GET of JSON from one base URL. Not shared between threads.

    `timeout` is (connect, read) in seconds; `total_seconds` bounds one call with all its attempts and pauses, because
    a body that drips never exceeds a read timeout. `max_bytes` counts after decompression. `rate_per_minute` is our
    own budget: a call beyond it waits, and that wait does not count against `total_seconds`. A server that asks for
    more than `max_pause_seconds` (Retry-After) is not waited for. Values of `headers` and parameters that are
    `SecretStr` are sent, and never shown. `sleep`, `clock`, `now` and `rng` are there for tests.

    Raises `ConfigurationError` where the base URL or a header cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str | SecretStr] | None = None,
        timeout: tuple[float, float] = (5.0, 20.0),
        total_seconds: float = 120.0,
        attempts: int = 4,
        max_bytes: int = 10_000_000,
        rate_per_minute: int = 60,
        backoff_seconds: float = 1.0,
        max_pause_seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        self.base_url = _checked_base_url(base_url)
        self._headers = {name: _checked_header(name, value) for name, value in (headers or {}).items()}
        self._timeout = timeout
        self._total_seconds = total_seconds
        self._attempts = attempts
        self._max_bytes = max_bytes
        self._rate_per_minute = rate_per_minute
        self._backoff_seconds = backoff_seconds
        self._max_pause_seconds = max_pause_seconds
        self._sleep = sleep
        self._clock = clock
        self._now = now
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._sent: deque[float] = deque()
        self._session = requests.Session()
        # What runs on this machine is not asked for through a proxy that stands elsewhere.
        self._session.trust_env = urlsplit(self.base_url).hostname not in ("127.0.0.1", "localhost", "::1")
        # An `auth` of our own keeps secrets out of the session's headers, and keeps `requests` from replacing them
        # by what a ~/.netrc holds for the host.
        self._session.auth = self._authorise

    def __repr__(self) -> str:
        return f"HttpClient({self.base_url!r})"

    def get_json(self, path: str, params: Params | None = None) -> object:
        """The parsed JSON behind `base_url` + `path`.

        429, 500, 502, 503, 504, connection errors, timeouts and truncated bodies are retried with exponential
        backoff, full jitter and the server's Retry-After; then `TransientError`. `HttpStatusError` on other statuses;
        `ProviderError` on what is not strict JSON (NaN, duplicate keys), is too large, or redirects to another host.
        """
        url = f"{self.base_url}/{path.lstrip('/')}"
        shown = f"GET {one_line(url, 200)}"
        deadline = self._clock() + self._total_seconds
        for attempt in range(1, self._attempts + 1):
            deadline += self._await_budget()
            try:
                return self._attempt(url, params or {}, deadline)
            except _Fault as error:
                fault, wanted_seconds = str(error), error.retry_after_seconds
            # Raised and logged outside the `except`: the cause may hold the URL with its query, and stays behind.
            pause = self._pause(shown, fault, attempt, wanted_seconds, deadline)
            log.warning("%s: %s; retry %d of %d in %.1f s", shown, fault, attempt, self._attempts - 1, pause)
            self._sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _pause(self, shown: str, fault: str, attempt: int, wanted_seconds: float | None, deadline: float) -> float:
        """Seconds until the next attempt; raises `TransientError` where there is to be none."""
        if wanted_seconds is not None and wanted_seconds > self._max_pause_seconds:
            back = self._now() + timedelta(seconds=wanted_seconds)
            raise TransientError(
                f"{shown}: {fault}; come back after {back:%Y-%m-%dT%H:%M:%SZ}: it asks for a pause of "
                f"{wanted_seconds:.0f} s, and this client waits {self._max_pause_seconds:.0f} s at most"
            )
        if attempt == self._attempts:
            raise TransientError(f"{shown}: {fault}; gave up after {attempt} attempts")
        jitter = self._rng.uniform(0, min(self._backoff_seconds * 2 ** (attempt - 1), self._max_pause_seconds))
        pause = max(wanted_seconds or 0.0, jitter)
        if self._clock() + pause >= deadline:
            raise TransientError(f"{shown}: {fault}; no time for another attempt within {self._total_seconds:.0f} s")
        return pause

    def _await_budget(self) -> float:
        """Wait until one more request fits into the last minute's budget; the seconds waited."""
        moment = self._clock()
        while self._sent and self._sent[0] <= moment - 60:
            self._sent.popleft()
        waited = 0.0
        if len(self._sent) >= self._rate_per_minute:
            waited = self._sent.popleft() + 60 - moment
            self._sleep(waited)
        self._sent.append(moment + waited)
        return waited

    def _attempt(self, url: str, params: Params, deadline: float) -> object:
        with self._send(url, params, deadline) as response:
            status = response.status_code
            if status >= 300:
                said = self._error_body(response, deadline)
                answered = f"answered {status} {phrase(status)}" + (f": {one_line(said, 200)}" if said else "")
                if status in RETRIED:
                    raise _Fault(answered, retry_after_seconds(response.headers, self._now()))
                raise HttpStatusError(f"GET {one_line(url, 200)}: {answered}", status, redact(said)[:2000])
            body = self._body(response, deadline)
            content_type = response.headers.get("Content-Type", "")
        return _parse(body, content_type, f"GET {one_line(url, 200)}")

    def _send(self, url: str, params: Params, deadline: float) -> requests.Response:
        """The response with its body unread, after redirects within the same origin."""
        origin = urlsplit(url)[:2]
        query = {name: reveal(value) for name, value in params.items()}
        for _ in range(_REDIRECTS + 1):
            response = self._send_once(url, query, deadline)
            if not response.is_redirect:
                return response
            response.close()
            url, query = urljoin(url, response.headers["Location"]), {}
            if urlsplit(url)[:2] != origin:
                target = urlsplit(redact(url))  # neither user, path nor query of it: each may hold a secret
                shown = one_line(f"{target.scheme}://{target.hostname}", 100)
                raise ProviderError(f"GET {self.base_url}: redirects to {shown}, which is not followed; {_FIX_URL}")
        raise ProviderError(f"GET {self.base_url}: redirects more than {_REDIRECTS} times; {_FIX_URL}")

    def _send_once(self, url: str, query: Mapping[str, str], deadline: float) -> requests.Response:
        left = max(deadline - self._clock(), 0.001)
        connect, read = (min(seconds, left) for seconds in self._timeout)
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "greenops-pipelines"}
        try:
            return self._session.get(
                url, params=query, headers=headers, timeout=(connect, read), stream=True, allow_redirects=False
            )
        except (requests.RequestException, ValueError) as error:
            fault = described(error)
            # `requests` parses a redirect even where it does not follow it, and lets ValueError through.
            malformed, untrusted = isinstance(error, ValueError), "CERTIFICATE_VERIFY_FAILED" in str(error)
        if malformed:
            raise ProviderError(f"GET {self.base_url}: the address or its redirect is malformed; {_FIX_URL}")
        if untrusted:
            raise ProviderError(f"GET {self.base_url}: its TLS certificate is not trusted; {_FIX_URL}")
        raise _Fault(fault)

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        for name, value in self._headers.items():
            request.headers[name] = reveal(value)
        return request

    def _body(self, response: requests.Response, deadline: float) -> bytes:
        body = self._read(response, self._max_bytes + 1, deadline)
        if len(body) > self._max_bytes:
            raise ProviderError(f"GET {self.base_url}: the body is larger than the limit of {self._max_bytes:,} bytes")
        return body

    def _error_body(self, response: requests.Response, deadline: float) -> str:
        """The beginning of what a refusing server said; empty where even that does not arrive."""
        try:
            return self._read(response, _ERROR_BODY_BYTES, deadline).decode("utf-8", "replace").strip()
        except (_Fault, ProviderError):
            return ""

    def _read(self, response: requests.Response, limit: int, deadline: float) -> bytes:
        """The body, decompressed, up to `limit` bytes.

        `read1` returns what has arrived, so that the deadline is seen between two drips; `read` would wait for more.
        """
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in {"identity", "gzip"}:
            raise ProviderError(f"GET {self.base_url}: the body is encoded as {one_line(encoding, 40)}, not as asked")
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding == "gzip" else None
        body, fault = bytearray(), None
        try:
            while len(body) < limit and (chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False)):
                body += inflate.decompress(chunk, limit - len(body)) if inflate else chunk[: limit - len(body)]
                if self._clock() >= deadline:
                    fault = f"the body was still arriving after {self._total_seconds:.0f} s"
                    break
        except (urllib3.exceptions.HTTPError, OSError, zlib.error) as error:
            fault = described(error)
        if fault is None and inflate and not inflate.eof and len(body) < limit:
            fault = "the compressed body was cut off"
        if fault is not None:
            raise _Fault(fault)
        return bytes(body)


class _Fault(Exception):
    """One attempt failed in a way that another may not."""

    def __init__(self, what: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(what)
        self.retry_after_seconds = retry_after_seconds


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds the server asks us to wait (RFC 9110, 10.2.3: delay-seconds or an HTTP-date); None: not said."""
    asked = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+", asked, re.ASCII):
        return min(float(asked), _ONE_YEAR_SECONDS)
    try:
        until = email.utils.parsedate_to_datetime(asked)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return min(max((until - now).total_seconds(), 0.0), _ONE_YEAR_SECONDS)


def phrase(status: int) -> str:
    """The standard's word for a status; empty for one of the server's own making."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # a status of the server's own making
        return ""


def described(error: Exception) -> str:
    """What went wrong on the wire, without the URL that the error's own text may hold."""
    match error:
        case requests.ConnectTimeout():
            return "no connection within the connect timeout"
        case requests.Timeout() | urllib3.exceptions.ReadTimeoutError() | TimeoutError():
            return "no answer within the read timeout"
        case urllib3.exceptions.IncompleteRead() | zlib.error():
            return "the body was cut off or damaged"
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return "the connection failed" + (f" ({one_line(str(reason).rpartition(': ')[2], 100)})" if reason else "")


def _checked_base_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(f"base URL: found {base_url!r}; allowed is http(s)://host[:port][/path]")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(f"base URL of {parts.hostname}: a user, password, query or fragment is not allowed")
    return base_url.rstrip("/")


def _checked_header(name: str, value: str | SecretStr) -> str | SecretStr:
    # http.client quotes a malformed value in its exception: a token with a line break would be shown.
    if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", reveal(value)):
        raise ConfigurationError(f"header {name}: the value is empty, or holds a line break or a non-ASCII character")
    return value


def _parse(body: bytes, content_type: str, shown: str) -> object:
    media_type = content_type.partition(";")[0].strip().lower()
    if (media_type and not _JSON_TYPES.fullmatch(media_type)) or body.lstrip()[:1] == b"<":
        excerpt = one_line(body[:2000].decode("utf-8", "replace"), 120)
        raise ProviderError(f"{shown}: expected JSON, found {one_line(media_type, 60) or 'no type'}: {excerpt!r}")
    try:
        return strict_json.loads(body)
    except ValueError as error:
        wrong = error
    # Outside the `except` again: what is wrong may quote the answer, and the answer may quote a secret.
    if isinstance(wrong, strict_json.TruncatedJsonError):
        raise _Fault(f"the JSON was cut off after {len(body):,} bytes")
    raise ProviderError(f"{shown}: the JSON cannot be used: {one_line(str(wrong), 120)}")
