"""A small ledger for the tests of the sample metrics: what every SLO of `ops/` saw in each minute, counted from samples.

It counts with its own few lines and not with the library's, so that one can be wrong without the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import promql_parser

from greenops_pipelines.slo.load import read_file
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.sample_metrics import SampleMetrics
from greenops_pipelines.slo.series import Batch, Matcher, Operator, Selector
from greenops_pipelines.slo.validate import render

OPS = Path(__file__).parents[2] / "ops"
MINUTE = 60_000_000
_OPERATORS: Mapping[str, Operator] = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """A series of a day: labels, microseconds since midnight, values, and which of them are marks of its end."""

    metric: str
    labels: Mapping[str, str]
    times: npt.NDArray[np.int64]
    values: Floats
    is_stale: npt.NDArray[np.bool_]

    @property
    def minutes(self) -> npt.NDArray[np.int64]:
        return (self.times // MINUTE)[~self.is_stale]

    @property
    def numbers(self) -> Floats:
        return self.values[~self.is_stale]


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def whole_day(day: date, selectors: Iterable[Selector]) -> Batch:
    return SampleMetrics().read(day, tuple(selectors), midnight(day) + timedelta(days=1))


def digest(batch: Batch) -> str:
    """Of all bytes of both tables."""
    hasher = hashlib.sha256()
    for table in (batch.series, batch.samples):
        for row in table.combine_chunks().to_batches():
            hasher.update(row.serialize())
    return hasher.hexdigest()


def shown(batch: Batch) -> dict[int, Shown]:
    ids = batch.samples["series_id"].to_numpy()
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    times = batch.samples["time"].cast("int64").to_numpy() % (1440 * MINUTE)
    values, stale = batch.samples["value"].to_numpy(), batch.samples["is_stale"].to_numpy(zero_copy_only=False)
    rows = {row["series_id"]: row for row in batch.series.to_pylist()}
    ends = [*starts[1:], len(ids)]
    return {
        int(ids[a]): Shown(
            rows[ids[a]]["metric"], json.loads(rows[ids[a]]["labels"]), times[a:b], values[a:b], stale[a:b]
        )
        for a, b in zip(starts, ends, strict=True)
    }


@cache
def slos() -> dict[str, Slo]:
    files = sorted((OPS / "slo-definitions").glob("*.yaml"))
    return {slo.id: slo for path in files for group in read_file(path, timedelta(days=30)) for slo in group.slos}


def selectors_in(query: str) -> list[Selector]:
    found: list[Selector] = []

    def visit(node: Any) -> None:
        if type(node).__name__ == "VectorSelector":
            matchers = [(m.name, str(m.op).rpartition(".")[2], m.value) for m in node.matchers.matchers]
            found.append(Selector(node.name, tuple(sorted(Matcher(n, _OPERATORS[op], v) for n, op, v in matchers))))

    promql_parser.walk(promql_parser.parse(render(query, "1m")), visit)
    return found


def queries(slo: Slo) -> list[str]:
    if slo.events is not None:
        return [slo.events.error_query, slo.events.total_query]
    assert slo.raw is not None
    return [slo.raw.error_ratio_query]


@cache
def all_selectors() -> tuple[Selector, ...]:
    return tuple(sorted({s for slo in slos().values() for query in queries(slo) for s in selectors_in(query)}))


@dataclass
class Ledger:
    """Bad and all events per SLO, day and minute. A counter's growth over a gap stands in the minute it was seen in.

    What the counters of the first day's first samples had grown by before is nobody's.
    """

    bad: dict[str, list[Floats]] = field(default_factory=dict)
    total: dict[str, list[Floats]] = field(default_factory=dict)
    _last: dict[int, float] = field(default_factory=dict)

    def add(self, day: date) -> None:
        everything = shown(whole_day(day, all_selectors()))
        grown = {number: self._grown(number, series) for number, series in everything.items()}

        def counted(selector: Selector) -> Floats:
            chosen = [grown[n] for n, s in everything.items() if selector.selects(s.metric, s.labels)]
            return np.sum(chosen, axis=0) if chosen else np.zeros(1440)

        for name, slo in slos().items():
            bad, total = _pods(name, everything, grown) or _events(name, slo, counted)
            self.bad.setdefault(name, []).append(bad)
            self.total.setdefault(name, []).append(total)

    def _grown(self, number: int, series: Shown) -> Floats:
        values = series.numbers
        start = self._last.get(number, 0.0 if self.bad else values[0])
        before = np.concatenate([[start], values[:-1]])
        minutes = np.zeros(1440)
        # A value below the one before: the counter began again at 0, and all of it is new.
        np.add.at(minutes, series.minutes, np.where(values < before, values, values - before))
        if len(values):
            self._last[number] = float(values[-1])
        return minutes

    def left(self, slo: str, first: int, days: int = 30) -> float:
        """Share of the budget that is left after so many days, from the `first` on."""
        bad = sum(float(minutes.sum()) for minutes in self.bad[slo][first : first + days])
        total = sum(float(minutes.sum()) for minutes in self.total[slo][first : first + days])
        return 1 - bad / total / (1 - slos()[slo].objective / 100)


def _events(name: str, slo: Slo, counted: Any) -> tuple[Floats, Floats]:
    if name == "api-gateway-request-volume":
        (selector,) = selectors_in(queries(slo)[0])
        return (counted(selector) / 60 < 5).astype(float), np.ones(1440)
    errors, (all_of_it,) = selectors_in(queries(slo)[0]), selectors_in(queries(slo)[1])
    buckets = [s for s in errors if s.metric.endswith("_bucket")]
    if buckets:
        return counted(all_of_it) - counted(buckets[0]), counted(all_of_it)
    return counted(errors[0]), counted(all_of_it)


def _pods(name: str, everything: Mapping[int, Shown], grown: Mapping[int, Floats]) -> tuple[Floats, Floats] | None:
    """Pod-minutes above the limit, and all: of the saturation SLOs only, minute by minute instead of over 5."""
    used_metric, limit_metric, resource, worst = {
        "api-gateway-cpu-saturation": ("container_cpu_usage_seconds_total", "kube_pod_container_resource_limits", "cpu", 0.85),
        "api-gateway-memory-saturation": ("container_memory_working_set_bytes", "kube_pod_container_resource_limits", "memory", 0.9),
        "reporting-db-pool-health": ("db_pool_connections_in_use", "db_pool_connections_max", "", 0.8999),
    }.get(name, ("", "", "", 0.0))  # fmt: skip
    if not used_metric:
        return None
    bad, total = np.zeros(1440), np.zeros(1440)
    service = "reporting" if "pool" in used_metric else "api-gateway"
    for number, series in everything.items():
        if series.metric != used_metric or series.labels.get("container", service) != service:
            continue
        (limit,) = {
            other.numbers[0]
            for other in everything.values()
            if (other.metric, other.labels["pod"]) == (limit_metric, series.labels["pod"])
            and other.labels.get("resource", "") == resource
        }
        used = grown[number][series.minutes] / 60 if resource == "cpu" else series.numbers
        total[series.minutes] += 1
        bad[series.minutes] += used / limit > worst
    return bad, total
