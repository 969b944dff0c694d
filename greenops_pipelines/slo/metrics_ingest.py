"""From a source of samples into the lake, day by day: each day is there whole or not at all, and what is there stays.

The samples are written first, the series last, and then a note beside the series that says of what they were read, until when,
and which files came of it: a day without that note is read again, and so is one whose files are others. Not here: the sources,
and what is counted of the samples.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.errors import BadInput, GreenopsError, TransientError
from greenops_pipelines.lake import Lake, Table
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES
from greenops_pipelines.slo.series import Batch, Selector, Source

_log = logging.getLogger(__name__)

SETTLED = timedelta(minutes=2)
"""A sample has the time at which its scrape began, and arrives when it ends: up to a scrape's timeout later, which is a minute at
most wherever the interval is one. A day that was read before this is read again."""
_NOTE = "read.json"


@dataclass(frozen=True)
class DayIngested:
    """One day's outcome, figures as in `METRIC_SERIES`; `bytes` is what was written, 0 where it was there already."""

    day: date
    series: int = 0
    samples: int = 0
    stale_markers: int = 0
    unusable: int = 0
    duplicates: int = 0
    seconds: float = 0.0
    bytes: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Ingested:
    """What one ingestion did, day by day."""

    days: tuple[DayIngested, ...]

    @property
    def failed(self) -> list[DayIngested]:
        return [each for each in self.days if each.error is not None]

    def total(self, field: str) -> float:
        """Sum of a figure over all days."""
        return sum(float(getattr(each, field)) for each in self.days)


def ingest(
    source: Source,
    lake: Lake,
    selectors: Sequence[Selector],
    days: Sequence[date],
    now: datetime,
    progress: Callable[[DayIngested], None] | None = None,
) -> Ingested:
    """Reads each of these UTC days, up to `now`, and replaces what the lake holds of it.

    A day that fails stays as it was, is logged and shown, and does not stop the others. Where all fail, raises the first error
    that no other try can help, or else the last. Raises `BadInput` for a day that has not begun.
    """
    now = _utc(now)
    if early := [day for day in days if _start(day) >= now]:
        raise BadInput(f"{source.name}: found the day {early[0]}, allowed: up to {now:%Y-%m-%dT%H:%M:%SZ}")
    outcomes: list[DayIngested] = []
    errors: list[GreenopsError] = []
    try:
        for day in days:
            begun = time.perf_counter()
            try:
                outcome = _one_day(source, lake, selectors, day, now, begun)
            except GreenopsError as error:
                _log.warning("%s, %s: %s", source.name, day, error)
                errors.append(error)
                outcome = DayIngested(day, seconds=time.perf_counter() - begun, error=str(error)[:500])
            outcomes.append(outcome)
            if progress is not None:
                progress(outcome)
    finally:
        lake.refresh()
    if errors and len(errors) == len(outcomes):
        raise next((error for error in errors if not isinstance(error, TransientError)), errors[-1])
    return Ingested(tuple(outcomes))


def missing_days(
    lake: Lake, source_name: str, selectors: Sequence[Selector], days: Sequence[date], now: datetime
) -> list[date]:
    """Those of the days that are not in the lake, or were read before they were over, or with other selectors.

    A day that is not over is missing as soon as `now` is later than its reading; one that has not begun is not.
    """
    now, digest = _utc(now), selectors_digest(selectors)
    begun = [day for day in days if _start(day) < now]
    notes = set(lake.storage.glob(_note(source_name, "*")))
    there = {table.name: _current(lake, table, source_name) for table in (METRIC_SAMPLES, METRIC_SERIES)}

    def is_missing(day: date) -> bool:
        path = _note(source_name, day.isoformat())
        if path not in notes:
            return True
        note = _parsed(lake.storage.read_bytes(path))
        files = {name: found.get(day.isoformat()) for name, found in there.items()}
        is_old = note is None or note.read_at < min(now, _start(day) + timedelta(days=1) + SETTLED)
        return note is None or is_old or note.selectors != digest or note.files != files

    return [day for day in begun if is_missing(day)]


def read_until(lake: Lake, source_name: str, days: Sequence[date]) -> dict[date, datetime]:
    """How far each of these days was read when it was read last; days that never were are left out."""
    notes = set(lake.storage.glob(_note(source_name, "*")))
    found: dict[date, datetime] = {}
    for day in days:
        path = _note(source_name, day.isoformat())
        note = _parsed(lake.storage.read_bytes(path)) if path in notes else None
        if note is not None:
            found[day] = note.read_at
    return found


def selectors_digest(selectors: Sequence[Selector]) -> str:
    """The same for the same selectors in whatever order."""
    return hashlib.sha256("\n".join(sorted({str(each) for each in selectors})).encode()).hexdigest()


def _one_day(
    source: Source, lake: Lake, selectors: Sequence[Selector], day: date, now: datetime, begun: float
) -> DayIngested:
    batch = source.read(day, selectors, min(now, _start(day) + timedelta(days=1)))
    _check(source, day, batch)
    partition: list[Mapping[str, str | date]] = [{"source": source.name, "day": day}]
    samples = lake.write(METRIC_SAMPLES, batch.samples, partition, refresh=False)
    series = lake.write(METRIC_SERIES, batch.series, partition, refresh=False)
    files = {written.table.name: written.paths[0].rpartition("/")[2] for written in (samples, series)}
    note = {"read_at": now.isoformat(), "selectors": selectors_digest(selectors), "files": files}
    document = json.dumps(note, indent=2).encode()
    lake.storage.publish(_note(source.name, day.isoformat()), lambda file: file.write(document))
    return DayIngested(
        day,
        series=batch.series.num_rows,
        samples=_sum(batch.series, "samples"),
        stale_markers=_sum(batch.series, "stale_markers"),
        unusable=_sum(batch.series, "unusable_samples"),
        duplicates=_sum(batch.series, "duplicate_samples"),
        seconds=time.perf_counter() - begun,
        bytes=samples.bytes + series.bytes,
    )


def _check(source: Source, day: date, batch: Batch) -> None:
    """Rows of another day or source would replace what the lake holds of those."""
    for rows in (batch.series, batch.samples):
        for name, wanted in (("source", source.name), ("day", day)):
            bounds = pc.min_max(rows[name]).as_py()
            if rows.num_rows and (bounds["min"], bounds["max"]) != (wanted, wanted):
                raise BadInput(f"{source.name}: asked for {name} {wanted}, found {bounds['min']} to {bounds['max']}")


def _sum(rows: pa.Table, column: str) -> int:
    return int(pc.sum(rows[column]).as_py() or 0)


def _note(source: str, day: str) -> str:
    return f"{METRIC_SERIES.path}/source={source}/day={day}/{_NOTE}"


@dataclass(frozen=True)
class _Note:
    """What stands beside a day: when it was read, the digest of the selectors, the file's name of each table."""

    read_at: datetime
    selectors: str
    files: dict[str, str]


def _parsed(document: bytes) -> _Note | None:
    """None for a note that cannot be used: its day is read again."""
    try:
        note = json.loads(document)
        return _Note(_utc(datetime.fromisoformat(note["read_at"])), str(note["selectors"]), dict(note["files"]))
    except (ValueError, KeyError, TypeError, BadInput):
        return None


def _current(lake: Lake, table: Table, source: str) -> dict[str, str]:
    """The name of the file that counts, by day."""
    paths = [path.split("/") for path in lake.files(table, {"source": source})]
    return {parts[-2].removeprefix("day="): parts[-1] for parts in paths}


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _utc(now: datetime) -> datetime:
    if now.tzinfo is None:
        raise BadInput(f"now: found {now}, a time without a zone, allowed: UTC")
    return now.astimezone(UTC)
