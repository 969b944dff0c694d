"""Where the metrics of the error-budget ledger come from, which of them are read, and which days.

Not here: the sources themselves (`remote_read.py`, `sample_metrics.py`), and what is counted (`ledger.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import Lake
from greenops_pipelines.settings import Settings
from greenops_pipelines.slo import counting, metrics_ingest
from greenops_pipelines.slo.metrics_ingest import DayIngested, Ingested
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.series import Selector, Source

SAMPLE = "sample"
PROMETHEUS = "prometheus"
LOOK_BACK = timedelta(days=2)
"""Days so near are read again whenever they are asked for: remote write may be late by hours."""


def source_of(settings: Settings) -> str:
    """The configured source."""
    return PROMETHEUS if settings.prometheus_url.get_secret_value() else SAMPLE


def selections(settings: Settings) -> dict[str, dict[str, str]]:
    """The configured value of `source`: sources never mix."""
    source = source_of(settings)
    return {name: {"source": source} for name in ("metric_series", "metric_samples", "slo_minutes", "slo_days")}


def open_source(settings: Settings) -> Source:
    """The configured source, ready to be read."""
    if source_of(settings) == SAMPLE:
        from greenops_pipelines.slo.sample_metrics import SampleMetrics

        return SampleMetrics()
    from greenops_pipelines.slo.remote_read import RemoteRead

    return RemoteRead(settings.prometheus_url.get_secret_value(), token=settings.prometheus_token.get_secret_value())


def selectors_of(slos: Iterable[Slo]) -> tuple[Selector, ...]:
    """What has to be read for these SLOs. One that cannot be counted asks for nothing: the ledger says why."""
    found: set[Selector] = set()
    for slo in slos:
        try:
            found.update(counting.compile_slo(slo).selectors)
        except BadInput:
            continue
    return tuple(sorted(found))


@dataclass(frozen=True)
class Read:
    """What reading did; `there` are days that were whole in the lake already."""

    ingested: Ingested
    there: tuple[date, ...]


def read_days(
    source: Source,
    lake: Lake,
    slos: Sequence[Slo],
    days: Sequence[date],
    now: datetime,
    *,
    again: bool = False,
    progress: Callable[[DayIngested], None] | None = None,
) -> Read:
    """Reads the days that have begun: all of them with `again`, or those that are not whole in the lake or are near.

    So a run over months that was killed goes on where it was. Errors as `metrics_ingest.ingest`.
    """
    selectors = selectors_of(slos)
    begun = [day for day in days if day <= now.date()]
    wanted = begun
    if not again:
        missing = set(metrics_ingest.missing_days(lake, source.name, selectors, begun, now))
        wanted = [day for day in begun if day in missing or day >= (now - LOOK_BACK).date()]
    there = tuple(day for day in begun if day not in wanted)
    return Read(metrics_ingest.ingest(source, lake, selectors, wanted, now, progress), there)
