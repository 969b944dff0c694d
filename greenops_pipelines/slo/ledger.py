"""The error-budget ledger: samples of the lake -> what happened in every minute of every SLO, and every correction of it.

A day is counted from its samples, those of the 5 minutes after it, and those before it that its first minutes follow from.
Its minutes are replaced whole, so that a late or corrected day restates them; of its totals what differs from the newest
row is appended (SLO_DAYS is bitemporal). Counting twice changes nothing. Beside the minutes stands a note of what they were
counted from: samples that are others now, or definitions, make the day due. Not here: how a day is read
(`ledger_reading.py`), and how it is counted (`day_counts.py`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, SLO_DAYS, SLO_MINUTES
from greenops_pipelines.slo import counting
from greenops_pipelines.slo.counting import Countable
from greenops_pipelines.slo.day_counts import Counts, Figures, count_day, fault_rows
from greenops_pipelines.slo.ledger_reading import Reader, batches
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.reading_times import DAY, settled

RULES = 2
"""Of counting. Another number where they change what a day counts: every day is due then, and restated."""

_log = logging.getLogger(__name__)
_CONTENT = [name for name in SLO_DAYS.schema.names if name != "observed_at"]


@dataclass(frozen=True)
class Restated:
    """A day of an SLO that was over and counted, and now has other totals. None: no minute was (or is) known."""

    slo_id: str
    day: date
    total_before: float | None
    total: float | None
    bad_before: float | None
    bad: float | None


@dataclass(frozen=True)
class CountedDay:
    """What was counted of a day. `appended` are its new rows of SLO_DAYS, of which `restated` correct what was known."""

    day: date
    minutes: int
    known_minutes: int
    gap_minutes: int
    resets: int
    appended: int
    restated: tuple[Restated, ...]
    faults: Mapping[str, str]
    figures: Mapping[str, Figures]


@dataclass(frozen=True)
class Counted:
    """What one count did, by day."""

    days: tuple[CountedDay, ...]

    @property
    def restated(self) -> tuple[Restated, ...]:
        return tuple(each for day in self.days for each in day.restated)


def count(
    lake: Lake,
    slos: Iterable[Slo],
    source: str,
    days: Sequence[date],
    now: datetime,
    *,
    run_id: str = "count",
    read_until: Mapping[date, datetime] | None = None,
    left_out: Mapping[date, Mapping[str, str]] | None = None,
) -> Counted:
    """Counts days of a source, and writes SLO_MINUTES and SLO_DAYS.

    `read_until`: how far the source was read, by day; what is later is not over, and no gap. A day that is not in it was never
    read, and is not counted. None: all were read until `now`. Three days of samples at most are held in memory.

    An SLO that cannot be counted has a row with the fault, and no minutes; and so has, on its day, one that needs a selector of
    `left_out`, by day and selector the reason.
    """
    if read_until is not None:
        days = [day for day in days if day in read_until]
    countables, faults = _compiled(slos)
    definitions = _digest(countables, faults)
    metrics = {selector.metric for each in countables for selector in each.selectors}
    known, notes = _newest(lake, source, days), _notes(lake, source, days)
    files = _files(lake, source, days)
    counted = []
    with lake.bare() as connection:
        reader = Reader(lake, connection, source, sorted(metrics))
        for day, batch, before, after in batches(reader, sorted(set(days))):
            until = min(now, (read_until or {}).get(day, now))
            unread = _unread(countables, (left_out or {}).get(day, {}))
            chosen = [each for each in countables if each.slo_id not in unread]
            found = count_day(chosen, batch, before, day, until, source=source, after=after)
            lake.write(SLO_MINUTES, found.minutes, [{"source": source, "day": day}], refresh=False)
            rows = pa.concat_tables([found.days, fault_rows({**faults, **unread}, day, source)]).to_pylist()
            fresh = [row for row in rows if not _is_same(row, known.get((day, row["slo_id"])))]
            stamped = [{**row, "observed_at": now} for row in fresh]
            lake.append(SLO_DAYS, pa.Table.from_pylist(stamped, schema=SLO_DAYS.schema), now, run_id)
            # Last of all: killed before this, the day is counted again, which changes nothing.
            _note(lake, source, day, until, files, definitions)
            was_over = day in notes and notes[day].counted_until >= settled(day)
            restated = [_restated(row, known[day, row["slo_id"]]) for row in fresh if (day, row["slo_id"]) in known]
            counted.append(_told(day, found, rows, len(fresh), restated if was_over else ()))
    lake.refresh()
    return Counted(tuple(counted))


def days_to_count(lake: Lake, source: str, days: Sequence[date], slos: Iterable[Slo] | None = None) -> list[date]:
    """Those of the days that have samples and are not counted as their samples are now.

    Due is a day that was never counted, one whose own samples or those of the day before (which its first minutes follow from)
    are in other files now, one that was counted before it was settled, once there is a day after it; and, where `slos` are given,
    one that was counted of others, or by other rules.
    """
    notes, files = _notes(lake, source, days), _files(lake, source, days)
    definitions = None if slos is None else _digest(*_compiled(slos))

    def is_due(day: date) -> bool:
        if day not in notes:
            return True
        note = notes[day]
        if definitions is not None and note.definitions != definitions:
            return True
        return note.files != _inputs(files, day) or (note.counted_until < settled(day) and day + DAY in files)

    return sorted(day for day in set(days) if day in files and is_due(day))


@dataclass(frozen=True)
class _Note:
    """What stands beside a day's minutes: how far it was counted, from which files, and of which definitions."""

    counted_until: datetime
    files: tuple[str | None, ...]
    definitions: str


def _note(lake: Lake, source: str, day: date, until: datetime, files: Mapping[date, str], definitions: str) -> None:
    note = {"counted_until": until.isoformat(), "files": _inputs(files, day), "definitions": definitions}
    document = json.dumps(note).encode()
    lake.storage.publish(_note_path(source, day.isoformat()), lambda file: file.write(document))


def _notes(lake: Lake, source: str, days: Sequence[date]) -> dict[date, _Note]:
    """Of those days that have one. One that cannot be used is none: its day is counted again."""
    there = set(lake.storage.glob(_note_path(source, "*")))
    found = {}
    for day in set(days):
        path = _note_path(source, day.isoformat())
        if path not in there:
            continue
        try:
            note = json.loads(lake.storage.read_bytes(path))
            found[day] = _Note(
                datetime.fromisoformat(note["counted_until"]), tuple(note["files"]), str(note.get("definitions", ""))
            )
        except (ValueError, KeyError, TypeError):
            _log.warning("%s: found no note of a count, which is made anew", path)
    return found


def _note_path(source: str, day: str) -> str:
    return f"{SLO_MINUTES.path}/source={source}/day={day}/counted.json"


def _files(lake: Lake, source: str, days: Sequence[date]) -> dict[date, str]:
    """The name of the file that holds each day's samples, of those days and their neighbours."""
    if not days:
        return {}
    around = (min(days) - DAY, max(days) + DAY)
    paths = [path.split("/") for path in lake.files(METRIC_SAMPLES, {"source": source, "day": around})]
    return {date.fromisoformat(parts[-2].removeprefix("day=")): parts[-1] for parts in paths}


def _inputs(files: Mapping[date, str], day: date) -> tuple[str | None, ...]:
    return files.get(day - DAY), files.get(day)


def _compiled(slos: Iterable[Slo]) -> tuple[list[Countable], dict[str, str]]:
    countables, faults = [], {}
    for slo in slos:
        try:
            countables.append(counting.compile_slo(slo))
        except BadInput as error:
            faults[slo.id] = str(error)
    return countables, faults


def _digest(countables: Sequence[Countable], faults: Mapping[str, str]) -> str:
    """The same for the same queries in whatever order: objectives and periods change no count."""
    compiled = sorted((each.slo_id, repr(each)) for each in countables)
    return hashlib.sha256(repr((RULES, compiled, sorted(faults.items()))).encode()).hexdigest()


def _unread(countables: Sequence[Countable], left_out: Mapping[str, str]) -> dict[str, str]:
    """SLOs that need what was left out, each with the first reason."""
    reasons = {
        each.slo_id: next((left_out[name] for name in map(str, each.selectors) if name in left_out), None)
        for each in countables
    }
    return {slo_id: reason for slo_id, reason in reasons.items() if reason is not None}


def _is_same(row: Mapping[str, Any], there: Mapping[str, Any] | None) -> bool:
    return there is not None and all(there[name] == row[name] for name in _CONTENT)


def _told(
    day: date, found: Counts, rows: Sequence[Mapping[str, Any]], appended: int, restated: Iterable[Restated]
) -> CountedDay:
    return CountedDay(
        day,
        found.minutes.num_rows,
        sum(row["known_minutes"] for row in rows),
        sum(row["gap_minutes"] for row in rows),
        sum(row["resets"] for row in rows),
        appended,
        tuple(restated),
        {row["slo_id"]: row["fault"] for row in rows if row["fault"] is not None},
        found.figures,
    )


def _restated(row: Mapping[str, Any], there: Mapping[str, Any]) -> Restated:
    return Restated(row["slo_id"], row["day"], there["total"], row["total"], there["bad"], row["bad"])


def _newest(lake: Lake, source: str, days: Sequence[date]) -> dict[tuple[date, str], dict[str, Any]]:
    """The newest row of each day and SLO, whether or not it knew a total."""
    if not days:
        return {}
    rows = lake.read(SLO_DAYS, {"source": source, "day": (min(days), max(days))}).sort_by("observed_at")
    return {(row["day"], row["slo_id"]): row for row in rows.to_pylist()}
