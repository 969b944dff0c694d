"""From a source of samples into the lake, day by day: each day is there whole or not at all, and what is there stays.

The samples are written first, the series last, and then a note beside the series that says of what they were read, until when,
and which files came of it: a day without that note is read again, and so is one whose files are others. A day that could not be
read has a note of that. Not here: the sources, what stays of a day that its source has lost (`lost_samples.py`), and what is
counted of the samples.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.errors import BadInput, GreenopsError, TransientError
from greenops_pipelines.lake import Lake, Table
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES
from greenops_pipelines.slo import lost_samples
from greenops_pipelines.slo.reading_times import DAY, settled, start
from greenops_pipelines.slo.series import Batch, Selector, Source

_log = logging.getLogger(__name__)

_NOTE = "read.json"
_FAILURE = "failed.json"


@dataclass(frozen=True)
class DayIngested:
    """One day's outcome, figures as in `METRIC_SERIES`; `bytes` is what was written, 0 where it was there already.

    `left_out`: selectors that could not be read, each with the reason. `error`: the day stayed as it was, or, with figures, as far
    as it had been read before.
    """

    day: date
    series: int = 0
    samples: int = 0
    stale_markers: int = 0
    unusable: int = 0
    duplicates: int = 0
    seconds: float = 0.0
    bytes: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)
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


@dataclass(frozen=True)
class Reading:
    """What is known of a day's last reading: until when, and which selectors it left out, each with the reason."""

    read_at: datetime
    left_out: Mapping[str, str]


def ingest(
    source: Source,
    lake: Lake,
    selectors: Sequence[Selector],
    days: Sequence[date],
    now: datetime,
    progress: Callable[[DayIngested], None] | None = None,
    *,
    take_less: bool = False,
) -> Ingested:
    """Reads each of these UTC days, up to `now`, and replaces what the lake holds of it.

    A day that fails stays as it was, is logged and shown, and does not stop the others. Where all fail, raises the first error
    that no other try can help, or else the last. Raises `BadInput` for a day that has not begun.

    Of a metric of which the source has clearly fewer samples than were read before, those stay, and what is later is added; the day
    is shown as failed. With `take_less` it is replaced.
    """
    now = _utc(now)
    if early := [day for day in days if start(day) >= now]:
        raise BadInput(f"{source.name}: found the day {early[0]}, allowed: up to {now:%Y-%m-%dT%H:%M:%SZ}")
    outcomes: list[DayIngested] = []
    errors: list[GreenopsError] = []
    try:
        for day in days:
            begun = time.perf_counter()
            try:
                outcome = _one_day(source, lake, selectors, day, now, begun, take_less)
            except GreenopsError as error:
                _log.warning("%s, %s: %s", source.name, day, error)
                errors.append(error)
                outcome = DayIngested(day, seconds=time.perf_counter() - begun, error=f"{day}: {error}"[:500])
                _write_note(lake, source.name, day, _FAILURE, {"at": now.isoformat(), "error": outcome.error})
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
    begun = [day for day in days if start(day) < now]
    notes = set(lake.storage.glob(_note(source_name, "*")))
    there = {table.name: _current(lake, table, source_name) for table in (METRIC_SAMPLES, METRIC_SERIES)}

    def is_missing(day: date) -> bool:
        path = _note(source_name, day.isoformat())
        if path not in notes:
            return True
        note = _parsed(lake.storage.read_bytes(path))
        files = {name: found.get(day.isoformat()) for name, found in there.items()}
        is_old = note is None or note.read_at < min(now, settled(day))
        return note is None or is_old or note.selectors != digest or note.files != files

    return [day for day in begun if is_missing(day)]


def readings(lake: Lake, source_name: str, days: Sequence[date]) -> dict[date, Reading]:
    """The last reading of each of these days; days that never were read are left out."""
    notes = set(lake.storage.glob(_note(source_name, "*")))
    paths = {day: _note(source_name, day.isoformat()) for day in days}
    found = {day: _parsed(lake.storage.read_bytes(path)) for day, path in paths.items() if path in notes}
    return {day: Reading(note.read_at, note.left_out) for day, note in found.items() if note is not None}


def days_read(lake: Lake, source_name: str) -> list[date]:
    """All days that were ever read, in order."""
    notes = lake.storage.glob(_note(source_name, "*"))
    return [date.fromisoformat(path.split("/")[-2].removeprefix("day=")) for path in notes]


def failed_since(lake: Lake, source_name: str, since: datetime, days: Sequence[date]) -> set[date]:
    """Those of the days whose last reading failed at `since` or later."""
    notes = set(lake.storage.glob(_note(source_name, "*", _FAILURE)))
    found = set()
    for day in days:
        path = _note(source_name, day.isoformat(), _FAILURE)
        try:
            is_late = (
                path in notes and _utc(datetime.fromisoformat(json.loads(lake.storage.read_bytes(path))["at"])) >= since
            )
        except (ValueError, KeyError, TypeError, BadInput):
            continue
        if is_late:
            found.add(day)
    return found


def selectors_digest(selectors: Sequence[Selector]) -> str:
    """The same for the same selectors in whatever order."""
    return hashlib.sha256("\n".join(sorted({str(each) for each in selectors})).encode()).hexdigest()


def _one_day(
    source: Source,
    lake: Lake,
    selectors: Sequence[Selector],
    day: date,
    now: datetime,
    begun: float,
    take_less: bool,
) -> DayIngested:
    batch = source.read(day, selectors, min(now, start(day) + DAY))
    _check(source, day, batch)
    error = None
    if not take_less:
        batch, error = _with_what_was_there(source, lake, selectors, day, batch)
    partition: list[Mapping[str, str | date]] = [{"source": source.name, "day": day}]
    samples = lake.write(METRIC_SAMPLES, batch.samples, partition, refresh=False)
    series = lake.write(METRIC_SERIES, batch.series, partition, refresh=False)
    files = {written.table.name: written.paths[0].rpartition("/")[2] for written in (samples, series)}
    left_out = {str(selector): reason[:500] for selector, reason in batch.left_out.items()}
    digest = selectors_digest(selectors)
    note = {"read_at": now.isoformat(), "selectors": digest, "files": files, "left_out": left_out}
    _write_note(lake, source.name, day, _NOTE, note)
    lake.storage.remove(_note(source.name, day.isoformat(), _FAILURE))
    return DayIngested(
        day,
        series=batch.series.num_rows,
        samples=_sum(batch.series, "samples"),
        stale_markers=_sum(batch.series, "stale_markers"),
        unusable=_sum(batch.series, "unusable_samples"),
        duplicates=_sum(batch.series, "duplicate_samples"),
        seconds=time.perf_counter() - begun,
        bytes=samples.bytes + series.bytes,
        left_out=left_out,
        error=error,
    )


def _with_what_was_there(
    source: Source, lake: Lake, selectors: Sequence[Selector], day: date, batch: Batch
) -> tuple[Batch, str | None]:
    """The batch, with what the lake holds and the source has lost; and what that was."""
    path = _note(source.name, day.isoformat())
    note = _parsed(lake.storage.read_bytes(path)) if lake.storage.has(path) else None
    if note is None:
        return batch, None
    chosen = None if note.selectors == selectors_digest(selectors) else selectors
    lost = lost_samples.lost(lake, source.name, day, note.read_at, batch, chosen)
    if not lost:
        return batch, None
    batch = lost_samples.kept(lake, source.name, day, note.read_at, batch, [each.metric for each in lost])
    # Of what was left out is known why.
    known = {selector.metric for selector in batch.left_out}
    told = [str(each) for each in lost if each.metric not in known]
    if not told:
        return batch, None
    more = f" and {len(told) - 3} metrics more" if len(told) > 3 else ""
    error = f"{day}: {'; '.join(told[:3])}{more}: what was read before stays; `again: true` takes what was found"
    _log.warning("%s, %s", source.name, error)
    return batch, error


def _check(source: Source, day: date, batch: Batch) -> None:
    """Rows of another day or source would replace what the lake holds of those."""
    for rows in (batch.series, batch.samples):
        for name, wanted in (("source", source.name), ("day", day)):
            bounds = pc.min_max(rows[name]).as_py()
            if rows.num_rows and (bounds["min"], bounds["max"]) != (wanted, wanted):
                raise BadInput(f"{source.name}: asked for {name} {wanted}, found {bounds['min']} to {bounds['max']}")


def _sum(rows: pa.Table, column: str) -> int:
    return int(pc.sum(rows[column]).as_py() or 0)


def _note(source: str, day: str, name: str = _NOTE) -> str:
    return f"{METRIC_SERIES.path}/source={source}/day={day}/{name}"


def _write_note(lake: Lake, source: str, day: date, name: str, content: Mapping[str, object]) -> None:
    document = json.dumps(content, indent=2).encode()
    lake.storage.publish(_note(source, day.isoformat(), name), lambda file: file.write(document))


@dataclass(frozen=True)
class _Note:
    """What stands beside a day: when it was read, the digest of the selectors, the file's name of each table, what was left out."""

    read_at: datetime
    selectors: str
    files: dict[str, str]
    left_out: dict[str, str]


def _parsed(document: bytes) -> _Note | None:
    """None for a note that cannot be used: its day is read again."""
    try:
        note = json.loads(document)
        read_at = _utc(datetime.fromisoformat(note["read_at"]))
        return _Note(read_at, str(note["selectors"]), dict(note["files"]), dict(note.get("left_out", {})))
    except (ValueError, KeyError, TypeError, BadInput):
        return None


def _current(lake: Lake, table: Table, source: str) -> dict[str, str]:
    """The name of the file that counts, by day."""
    paths = [path.split("/") for path in lake.files(table, {"source": source})]
    return {parts[-2].removeprefix("day="): parts[-1] for parts in paths}


def _utc(now: datetime) -> datetime:
    if now.tzinfo is None:
        raise BadInput(f"now: found {now}, a time without a zone, allowed: UTC")
    return now.astimezone(UTC)
