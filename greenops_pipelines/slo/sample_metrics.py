"""The embedded default source of metrics: five services, scraped once a minute. Nobody emitted them: all is seeded.

Counters begin at 0 with their pod, and a pod lives five days. So a counter's value needs at most five days' looking
back, and a day is the same bytes whenever and in whichever order it is read.

A sample lies some seconds into its minute, the same ones for all series of a scraped target. It shows all that happened
until then; what the ledger counts in a minute is what was first seen in it.

Not here: the traffic (`sample_traffic.py`), what goes wrong (`sample_incidents.py`), what a pod shows of both
(`sample_services.py`), and which pod lives when (`sample_pods.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from greenops_pipelines.instants import micros
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES
from greenops_pipelines.lake.schema import TIMESTAMP
from greenops_pipelines.slo.sample_incidents import PERIOD_DAYS, Incident, Kind, calendar
from greenops_pipelines.slo.sample_pods import Pod, identity, is_deployment, last_deployment, start_minute
from greenops_pipelines.slo.sample_services import Exporter, lines_of, moves_of
from greenops_pipelines.slo.sample_traffic import MINUTES, REGIONS, SERVICES, Ints, epoch_day
from greenops_pipelines.slo.series import Batch, Selector

NAME = "sample"
_MINUTE = 60_000_000

_Flags = npt.NDArray[np.bool_]


class SampleMetrics:
    """The default source: needs no Prometheus and no network."""

    name = NAME

    def read(self, day: date, selectors: Sequence[Selector], until: datetime) -> Batch:
        """The samples of a UTC day before `until`, of every series that a selector selects; series without any left out."""
        scraped = sorted(_scraped(day, selectors, micros(until)), key=lambda series: series.id)
        return Batch(_series_table(day, scraped), _samples_table(day, scraped))


@dataclass(frozen=True)
class _Scraped:
    """A series of a day, its samples in the order of time."""

    id: int
    metric: str
    labels: str
    times: Ints
    values: npt.NDArray[np.float64]
    is_stale: _Flags


@dataclass(frozen=True)
class _Stretch:
    """A pod, and its minutes of a day since 1970, the last one included."""

    pod: Pod
    day: int
    first: int
    last: int


def _scraped(day: date, selectors: Sequence[Selector], until: int) -> Iterator[_Scraped]:
    midnight = micros(datetime.combine(day, time(), UTC))
    by_metric: dict[str, list[Selector]] = {}
    for selector in selectors:
        by_metric.setdefault(selector.metric, []).append(selector)
    for stretch in _stretches(epoch_day(day)):
        values: Ints | None = None
        scrapes: dict[Exporter, tuple[Ints, _Flags, Ints]] = {}
        for index, line in enumerate(lines_of(stretch.pod.service)):
            asking = by_metric.get(line.metric, ())
            labels, text, number, offset = identity(stretch.pod, line)
            if not any(selector.selects(line.metric, labels) for selector in asking):
                continue
            # All lines of an exporter of a pod are of one target, and are scraped at once.
            if line.exporter not in scrapes:
                scrapes[line.exporter] = _scrapes(stretch, line.exporter, midnight + offset, until)
            minutes, is_stale, times = scrapes[line.exporter]
            if len(minutes):
                values = _values(stretch) if values is None else values
                numbers = np.where(is_stale, 0, values[index, minutes]) / line.steps_per_unit
                yield _Scraped(number, line.metric, text, times, numbers, is_stale)


def _stretches(day: int) -> Iterator[_Stretch]:
    for service in SERVICES:
        for region in REGIONS:
            pod = Pod(service, region, last_deployment(service, day - 1))
            if is_deployment(service, day):
                start = start_minute(service, region, day)
                yield _Stretch(pod, day, 0, start)
                yield _Stretch(Pod(service, region, day), day, start, MINUTES - 1)
            else:
                yield _Stretch(pod, day, 0, MINUTES - 1)


def _values(stretch: _Stretch) -> Ints:
    """What each line shows in each minute of the day, (lines, 1440); outside the stretch it means nothing."""
    service, region, day = stretch.pod.service, stretch.pod.region, stretch.day
    moves = moves_of(service, region, day)
    values = np.cumsum(moves, axis=1)
    if stretch.first:
        values -= values[:, stretch.first, None]
    else:
        values += _grown(service, region, day - 1)[:, None]
    for restart in _minutes_of(service, region, day, "restart"):
        if stretch.first < restart <= stretch.last:
            values[:, restart:] -= values[:, restart - 1, None]
    gauges = [index for index, line in enumerate(lines_of(service)) if not line.is_counter]
    values[gauges] = moves[gauges]
    return values


# Thirty-five days of ten places; a few hundred bytes each.
@lru_cache(maxsize=1024)
def _grown(service: str, region: str, day: int) -> Ints:
    """What the lines' counters have grown by from their pod's start, or its container's, to the end of a day."""
    moves = moves_of(service, region, day)
    begins = _minutes_of(service, region, day, "restart")
    if is_deployment(service, day):
        # What happens in its first minute is still the old pod's.
        begins.append(start_minute(service, region, day) + 1)
    if begins:
        return np.asarray(moves[:, max(begins) :].sum(axis=1))
    return np.asarray(moves.sum(axis=1) + _grown(service, region, day - 1))


def _scrapes(stretch: _Stretch, exporter: Exporter, first: int, until: int) -> tuple[Ints, _Flags, Ints]:
    """The minutes of which there is a sample before `until`, whether it is the mark that the series has ended, and its
    time. `first` is when the day's first minute is scraped; both in microseconds since 1970.
    """
    service, region, day = stretch.pod.service, stretch.pod.region, stretch.day
    has, is_stale = np.zeros(MINUTES, dtype=bool), np.zeros(MINUTES, dtype=bool)
    has[stretch.first : stretch.last + 1] = True
    if stretch.last < MINUTES - 1:
        has[stretch.last + 1] = is_stale[stretch.last + 1] = True
    kinds: tuple[Kind, ...] = ("gap", "failed-scrape") if exporter == "service" else ()
    for kind in kinds:
        for incident in _incidents(service, region, day, kind):
            has[incident.first : incident.first + incident.minutes] = False
            if kind == "failed-scrape":
                has[incident.first] = is_stale[incident.first] = True
    minutes = np.flatnonzero(has)
    times = first + minutes * _MINUTE
    seen = int(np.searchsorted(times, until))
    return minutes[:seen], is_stale[minutes[:seen]], times[:seen]


def _incidents(service: str, region: str, day: int, kind: Kind) -> list[Incident]:
    of_day = calendar(service, region, day % PERIOD_DAYS)
    return [incident for incident in of_day if any(effect.kind == kind for effect in incident.effects)]


def _minutes_of(service: str, region: str, day: int, kind: Kind) -> list[int]:
    return [incident.first for incident in _incidents(service, region, day, kind)]


def _series_table(day: date, scraped: Sequence[_Scraped]) -> pa.Table:
    schema, count = METRIC_SERIES.schema, len(scraped)
    marks = [int(np.count_nonzero(series.is_stale)) for series in scraped]
    none = pa.repeat(pa.scalar(0, pa.int64()), count)
    return pa.table(
        {
            "source": pa.repeat(NAME, count),
            "day": pa.repeat(pa.scalar(day, pa.date32()), count),
            "series_id": pa.array([series.id for series in scraped], pa.int64()),
            "metric": pa.array([series.metric for series in scraped], pa.string()),
            "labels": pa.array([series.labels for series in scraped], pa.string()),
            "samples": pa.array([len(s.times) - mark for s, mark in zip(scraped, marks, strict=True)], pa.int64()),
            "stale_markers": pa.array(marks, pa.int64()),
            "unusable_samples": none,
            "duplicate_samples": none,
        },
        schema=schema,
    )


def _samples_table(day: date, scraped: Sequence[_Scraped]) -> pa.Table:
    if not scraped:
        return METRIC_SAMPLES.schema.empty_table()
    lengths = [len(series.times) for series in scraped]
    ids = np.repeat(np.array([series.id for series in scraped], dtype=np.int64), lengths)
    return pa.table(
        {
            "source": pa.repeat(NAME, len(ids)),
            "day": pa.repeat(pa.scalar(day, pa.date32()), len(ids)),
            "series_id": ids,
            "time": pa.array(np.concatenate([series.times for series in scraped])).cast(TIMESTAMP),
            "value": np.concatenate([series.values for series in scraped]),
            "is_stale": np.concatenate([series.is_stale for series in scraped]),
        },
        schema=METRIC_SAMPLES.schema,
    )
