"""Raw samples through Prometheus' HTTP API, for a server without remote read: `metric{...}[...]` at an instant.

It takes about four times as long, and stale markers are not there to see: a series that has ended has no more samples, and
nothing says so. Labels that a server adds in remote read (`external_labels`) are not there either. Not here: remote read, and
what a sample means.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from greenops_pipelines.errors import BadInput, ProviderError
from greenops_pipelines.http import HttpClient, HttpStatusError
from greenops_pipelines.redaction import one_line
from greenops_pipelines.slo.remote_read_wire import Answer, TooLarge
from greenops_pipelines.slo.series import Matcher, Selector

MOST_SAMPLES = 250_000
"""Samples of one answer: 8 MB of JSON, and 40 MB of Python's numbers and texts."""
_MINUTE_MS = 60_000
_TOO_MANY = ("too many samples",)


def matrix(client: HttpClient, selector: Selector, first_ms: int, last_ms: int) -> Answer:
    """The samples from `first_ms` to `last_ms`, both of them included.

    Prometheus 2 takes both ends of a range, Prometheus 3 leaves its start out: one millisecond more is asked for, and whoever
    reads the answer leaves out what is too early. Raises `TooLarge` where there are more than `MOST_SAMPLES` in more than a
    minute, or more than the server handles; `BadInput` with its words where it refuses; `TransientError` and `ProviderError` as
    `HttpClient`.
    """
    name = Matcher("__name__", "=", selector.metric)
    inside = str(Selector("", (name, *selector.matchers)))
    ranged = f"{inside}[{last_ms - first_ms + 1}ms]"
    counted = _asked(client, selector, f"sum(count_over_time({ranged}))", last_ms, "vector")
    try:
        count = int(float(counted[0]["value"][1])) if counted else 0
        if not count:
            return _answer([])
        if count > MOST_SAMPLES and last_ms - first_ms >= _MINUTE_MS:
            raise TooLarge(f"{count:,} samples")
        return _answer(_asked(client, selector, ranged, last_ms, "matrix"))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        found = one_line(f"{type(error).__name__}: {error}", 120)
    raise ProviderError(f"{client.base_url}: {selector}: the answer cannot be used: {found}")


def _answer(result: list[Any]) -> Answer:
    values = [each["values"] for each in result]
    pairs = [pair for series in values for pair in series]
    return Answer(
        tuple({str(name): str(value) for name, value in each["metric"].items()} for each in result),
        np.array([len(series) for series in values], np.int64),
        np.rint(np.array([at for at, _ in pairs], np.float64) * 1000).astype(np.int64),
        # "NaN", "+Inf" and "-Inf" are read as what they are.
        np.array([value for _, value in pairs], np.str_).astype(np.float64),
    )


def _asked(client: HttpClient, selector: Selector, query: str, at_ms: int, kind: str) -> list[Any]:
    seconds, rest = divmod(at_ms, 1000)
    try:
        answer = client.get_json("/api/v1/query", {"query": query, "time": f"{seconds}.{rest:03d}"})
    except HttpStatusError as error:
        refused = error
    else:
        if isinstance(answer, dict) and answer.get("status") == "success":
            data = answer.get("data")
            if isinstance(data, dict) and data.get("resultType") == kind and isinstance(data.get("result"), list):
                result: list[Any] = data["result"]
                return result
        raise ProviderError(f"{client.base_url}: {selector}: found no answer of Prometheus; change its URL")
    if refused.status not in (400, 422):
        raise refused
    try:
        body = json.loads(refused.body)
        said = f"{body['errorType']}: {body['error']}"
    except (ValueError, KeyError, TypeError):
        said = refused.body
    if any(words in said for words in _TOO_MANY):
        raise TooLarge(one_line(said, 200))
    raise BadInput(f"{selector}: Prometheus says {one_line(said, 300)}")
