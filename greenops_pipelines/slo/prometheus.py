"""A client of Prometheus' HTTP API: one question, one answer, no second try.

Whoever asks counts the errors: an analysis has limits for them, and a client that tries again would hide them. Not here:
the server (`process/prometheus.py`), and answers without one (`scraper.py`).
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

import requests

from greenops_pipelines.errors import BadInput, ProviderError, TransientError
from greenops_pipelines.http import HttpClient, HttpStatusError, Params
from greenops_pipelines.redaction import one_line

_MAX_BYTES = 50_000_000
_UNLIMITED = 1_000_000
"""Requests a minute: a server of one's own is asked as often as the gates say."""
_NEVER = 1
"""The year of Go's zero time: a target that was not scraped yet."""

Labels = Mapping[str, str]
Point = tuple[float, float]
"""Seconds since 1970, and the value."""
Samples = tuple[tuple[Labels, float], ...] | tuple[tuple[Labels, tuple[Point, ...]], ...]


@dataclass(frozen=True)
class Answer:
    """What a query says.

    `samples` of a "vector" are (labels, value), of a "matrix" (labels, ((seconds since 1970, value), ...)); a "scalar"
    has the one sample ({}, value). Values may be NaN and infinite. The order of series has no meaning.
    """

    kind: Literal["scalar", "vector", "matrix"]
    samples: Samples
    warnings: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[float, ...]:
        """All numbers in their order: of a matrix, series by series."""
        found: list[float] = []
        for _, value in self.samples:
            found.extend([number for _, number in value] if isinstance(value, tuple) else [value])
        return tuple(found)


class Metrics(Protocol):
    """Whoever answers PromQL: a Prometheus, or the embedded scraper."""

    def query(self, expr: str, at: float | None = None) -> Answer:
        """The answer at an instant, seconds since 1970; now by default."""

    def query_range(self, expr: str, start: float, end: float, step: float) -> Answer:
        """A matrix: the answers at `start`, `start + step` and so on, up to `end` where a step meets it. In seconds."""


class Target(NamedTuple):
    """A target as Prometheus sees it. `last_scrape` is None before the first one."""

    labels: Labels
    health: str
    last_error: str
    last_scrape: datetime | None


class Prometheus:
    """The API behind a base URL. Safe between threads: each has a connection of its own.

    Every call raises `TransientError` where the server is not reached, does not answer within `timeout_seconds`, answers
    5xx (its own timeout is a 503), or breaks off; `BadInput`, with its words, where it refuses the query (400 `bad_data`) or
    cannot carry it out (422 `execution`); `ProviderError` for what is no Prometheus.
    """

    name = "Prometheus"

    def __init__(self, url: str, timeout_seconds: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._own = threading.local()
        self._connect()

    def _connect(self) -> HttpClient:
        """This thread's connection. Raises `ConfigurationError` for a URL that is none."""
        client = getattr(self._own, "client", None)
        if client is None:
            seconds = self._timeout_seconds
            client = self._own.client = HttpClient(
                self.url,
                timeout=(seconds, seconds),
                total_seconds=seconds,
                attempts=1,
                max_bytes=_MAX_BYTES,
                rate_per_minute=_UNLIMITED,
            )
        return client

    def query(self, expr: str, at: float | None = None) -> Answer:
        """The answer at `at`, seconds since 1970; without it at the server's now."""
        return self._asked("query", {"query": expr} if at is None else {"query": expr, "time": _seconds(at)})

    def query_range(self, expr: str, start: float, end: float, step: float) -> Answer:
        """A matrix of the answers at `start`, `start + step`, ... up to `end`; at most 11,000 of them."""
        times = {"start": _seconds(start), "end": _seconds(end), "step": _seconds(step)}
        return self._asked("query_range", {"query": expr, **times})

    def is_ready(self) -> bool:
        """Whether it says that it serves queries."""
        try:
            with requests.get(f"{self.url}/-/ready", timeout=self._timeout_seconds, stream=True) as response:
                return response.status_code == 200
        except requests.RequestException:
            return False

    def targets(self) -> list[Target]:
        """What it scrapes, and how that goes."""
        data, _ = self._get("targets", {"state": "active"})
        try:
            return [
                Target(each["labels"], each["health"], each["lastError"], _moment(each["lastScrape"]))
                for each in data["activeTargets"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            self._unusable("targets", error)

    def _asked(self, path: str, params: dict[str, str]) -> Answer:
        # The server gives up as well: otherwise it goes on with what nobody waits for.
        data, warnings = self._get(path, {**params, "timeout": _seconds(self._timeout_seconds)})
        try:
            return Answer(data["resultType"], _samples(data["resultType"], data["result"]), warnings)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._unusable(path, error)

    def _get(self, path: str, params: Params) -> tuple[Any, tuple[str, ...]]:
        try:
            answer = self._connect().get_json(f"/api/v1/{path}", params)
        except HttpStatusError as error:
            raise _refusal(error, params) from None
        if not isinstance(answer, dict) or answer.get("status") != "success" or "data" not in answer:
            raise ProviderError(f"{self.url}: found no answer of Prometheus to {path}; change its URL")
        return answer["data"], tuple(str(each) for each in answer.get("warnings") or ())

    def _unusable(self, path: str, error: Exception) -> NoReturn:
        raise ProviderError(
            f"{self.url}: the answer to {path} cannot be used: {one_line(f'{type(error).__name__}: {error}', 120)}"
        ) from None


def _refusal(error: HttpStatusError, params: Params) -> BadInput | ProviderError | TransientError:
    if error.status >= 500:
        return TransientError(str(error))
    if error.status not in (400, 422):
        return error
    try:
        body = json.loads(error.body)
        said = f"{body['errorType']}: {body['error']}"
    except (ValueError, KeyError, TypeError):
        said = error.body
    return BadInput(f"query {one_line(str(params.get('query', '')), 200)}: Prometheus says {one_line(said, 1000)}")


def _samples(kind: str, result: Any) -> Samples:
    match kind:
        case "scalar":
            return (({}, float(result[1])),)
        case "vector":
            return tuple((each["metric"], float(each["value"][1])) for each in result)
        case "matrix":
            return tuple((each["metric"], tuple((float(t), float(v)) for t, v in each["values"])) for each in result)
    raise ValueError(f"found {kind!r}, allowed: a scalar, a vector or a matrix")


def _seconds(value: float) -> str:
    if not math.isfinite(value):
        raise BadInput(f"time: found {value}, allowed: a finite number of seconds")
    return f"{value:.3f}"


def _moment(text: str) -> datetime | None:
    moment = datetime.fromisoformat(text)
    return None if moment.year == _NEVER else moment
