"""Series of metrics as they are read and kept: selectors, identity, and a day of samples.

Not here: who reads them (`remote_read.py`, `sample_metrics.py`), who writes them to the lake (`metrics_ingest.py`), and
what is counted of them (`counting.py`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal, Protocol

import pyarrow as pa

Operator = Literal["=", "!=", "=~", "!~"]


@functools.cache
def _anchored(pattern: str) -> re.Pattern[str]:
    return re.compile(f"^(?:{pattern})$", re.DOTALL)


@dataclass(frozen=True, order=True)
class Matcher:
    """One condition on a label, with Prometheus' operators; a label that is not there is the empty string."""

    name: str
    operator: Operator
    value: str

    def holds(self, labels: Mapping[str, str]) -> bool:
        found = labels.get(self.name, "")
        match self.operator:
            case "=":
                return found == self.value
            case "!=":
                return found != self.value
            case "=~":
                return _anchored(self.value).match(found) is not None
            case "!~":
                return _anchored(self.value).match(found) is None


@dataclass(frozen=True, order=True)
class Selector:
    """A metric and conditions on its labels, sorted: `http_server_requests_total{service="api-gateway"}`."""

    metric: str
    matchers: tuple[Matcher, ...] = ()

    def selects(self, metric: str, labels: Mapping[str, str]) -> bool:
        return metric == self.metric and all(matcher.holds(labels) for matcher in self.matchers)

    def __str__(self) -> str:
        inside = ", ".join(f"{m.name}{m.operator}{json.dumps(m.value, ensure_ascii=False)}" for m in self.matchers)
        return f"{self.metric}{{{inside}}}" if inside else self.metric


@dataclass(frozen=True)
class Batch:
    """A day of a source: rows of `METRIC_SERIES`, and rows of `METRIC_SAMPLES` sorted by series and time.

    `left_out`: selectors that could not be read, each with the reason; nothing that they alone select is here.
    """

    series: pa.Table
    samples: pa.Table
    left_out: Mapping[Selector, str] = field(default_factory=dict)


class Source(Protocol):
    """Whoever has samples."""

    name: str

    def read(self, day: date, selectors: Sequence[Selector], until: datetime) -> Batch:
        """The samples of a UTC day, those at `until` and later left out, of every series that a selector selects.

        A selector of which another try is of no help is left out, the others are read. Raises `TransientError` where another try
        may help, `BadInput` where no selector can be read, `ProviderError` where the source cannot be used at all.
        """


def label_text(labels: Mapping[str, str]) -> str:
    """Labels without the metric's name, as they stand in the lake: JSON, names sorted, none that is empty."""
    kept = {name: value for name, value in labels.items() if value and name != "__name__"}
    return json.dumps(kept, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def series_id(metric: str, labels: Mapping[str, str]) -> int:
    """The same number for the same series, everywhere and always: 63 bits, so that it is a signed integer everywhere."""
    digest = hashlib.sha256(f"{metric}{label_text(labels)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
