"""Where the metrics of the error-budget ledger come from, which of them are read, and which days.

Not here: the sources themselves (`remote_read.py`, `sample_metrics.py`), and what is counted (`ledger.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.settings import Settings
from greenops_pipelines.slo import counting, metrics_ingest
from greenops_pipelines.slo.metrics_ingest import DayIngested, Ingested
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.reading_times import DAY, DAYS_AT_ONCE, FAILED_AGAIN, NEAR_AGAIN, is_near
from greenops_pipelines.slo.series import Selector, Source

if TYPE_CHECKING:
    from greenops_pipelines.slo.ledger import Counted

SAMPLE = "sample"
PROMETHEUS = "prometheus"
READ = "slo/metric_samples:read"


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
    """Reads the days that have begun: those that are not whole in the lake, and near ones once an hour.

    So a run over months that was killed goes on where it was. With `again` all of them, and a day of which the source has less than
    before is replaced. Errors as `metrics_ingest.ingest`.
    """
    selectors = selectors_of(slos)
    begun = [day for day in days if day <= now.date()]
    wanted = begun
    if not again:
        missing = set(metrics_ingest.missing_days(lake, source.name, selectors, begun, now))
        stale = _stale(lake, source.name, begun, now)
        wanted = [day for day in begun if day in missing or day in stale]
    there = tuple(day for day in begun if day not in wanted)
    return Read(metrics_ingest.ingest(source, lake, selectors, wanted, now, progress, take_less=again), there)


def _stale(lake: Lake, source_name: str, days: Sequence[date], now: datetime) -> set[date]:
    """Near days that were read an hour ago or earlier."""
    near = [day for day in days if is_near(day, now)]
    found = metrics_ingest.readings(lake, source_name, near)
    return {day for day, reading in found.items() if reading.read_at <= now - NEAR_AGAIN}


@dataclass(frozen=True)
class Range:
    """Days from `first` to `last`, both included, that one run reads and counts."""

    first: date
    last: date


def due(lake: Lake, source_name: str, slos: Sequence[Slo], now: datetime) -> tuple[Range, ...]:
    """What is to be read and counted now. Looks at names and notes of the lake's files, and reads no sample.

    First today, from yesterday on where that is missing, due or was read an hour ago. Then the oldest few of the earlier days
    within the longest period of the SLOs that are not whole in the lake, or not counted as they are now; one that failed in the
    last hour waits. Of the sample source nothing is looked for before the first day that was ever read: a new home fills with
    its first run, not by ticks.
    """
    from greenops_pipelines.slo import ledger

    today = now.astimezone(UTC).date()
    yesterday = today - DAY
    first = today - max((math.ceil(slo.period / DAY) for slo in slos), default=1) * DAY
    if source_name == SAMPLE:
        first = max(first, next(iter(metrics_ingest.days_read(lake, source_name)), yesterday))
    first = min(first, yesterday)
    days = [first + n * DAY for n in range((today - first).days + 1)]
    wanted = set(metrics_ingest.missing_days(lake, source_name, selectors_of(slos), days, now))
    wanted.update(ledger.days_to_count(lake, source_name, days, slos), _stale(lake, source_name, [yesterday], now))
    near = Range(yesterday if yesterday in wanted else today, today)
    earlier = [day for day in days if day in wanted and day < yesterday]
    waiting = metrics_ingest.failed_since(lake, source_name, now - FAILED_AGAIN, earlier)
    earlier = [day for day in earlier if day not in waiting]
    if not earlier:
        return (near,)
    last = max(day for day in earlier if day < earlier[0] + DAYS_AT_ONCE * DAY)
    return near, Range(earlier[0], last)


def count_days(
    lake: Lake, source_name: str, slos: Sequence[Slo], days: Sequence[date], now: datetime, run_id: str
) -> Counted:
    """Counts these days, as far as each was read; and the day after an earlier one, whose first minutes follow from it."""
    from greenops_pipelines.slo import ledger

    # Near days are looked at by the next tick, and may be counted by another run right now.
    following = [day + DAY for day in days if day + DAY not in days and not is_near(day + DAY, now)]
    wanted = sorted({*days, *ledger.days_to_count(lake, source_name, following, slos)})
    found = metrics_ingest.readings(lake, source_name, wanted)
    return ledger.count(
        lake,
        slos,
        source_name,
        wanted,
        now,
        run_id=run_id,
        read_until={day: reading.read_at for day, reading in found.items()},
        left_out={day: reading.left_out for day, reading in found.items()},
    )


def reading(read: Read) -> Measurement:
    """Days that were not read whole, with their errors: the check of what one run read."""
    days = read.ingested.days
    faults = [day.error for day in days if day.error is not None]
    faults += [f"{day.day}: left out: {reason}" for day in days for reason in day.left_out.values()]
    lacking = sum(day.error is not None or bool(day.left_out) for day in days)
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    detail = "; ".join(faults[:3]) + more if faults else f"{len(days)} days were read, {len(read.there)} were there"
    return Measurement(READ, float(lacking), 0, "==", "days", detail)


def not_read(days: Sequence[date], error: str) -> Measurement:
    """The same where none of the days could be read."""
    return Measurement(READ, float(len(days)), 0, "==", "days", f"{days[0]} to {days[-1]}: {error}")
