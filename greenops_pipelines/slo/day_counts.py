"""The minutes of a day of every SLO: how many events, how many of them bad, and of which minutes nobody knows.

A minute that begins at m holds the samples with m < t <= m + 60 s, and what a counter grew by between two samples belongs
to the minute of the later one: a sample exactly at midnight belongs to the day before.

- A minute is a gap (null) where no series of the total was sampled in it, and the stretch between the samples around it is
  longer than 5 minutes; before the first sample ever; and from the newest one on, once 5 minutes have passed. Until then
  what comes after the newest sample is not over, and has no row.
- No traffic is 0 of 0, and no gap. No series of a bad counter is no bad event (`count_nodes.is_zero_where_absent`); where
  bad events cannot be told otherwise, the minute is a gap.
- Of samples at a minute's end, no value is a gap. An expression with `or vector(...)` always has a value: its minutes are
  gaps by the rule for counters, and also as long as a gap is in the range of its rates, which would be too low.
- Counters that were read at different times may show more bad events in a minute than events, or less than none: what is too
  much is carried to minutes around it (`bounds.py`), and what has no room there is cut and stands in `clamped`.
- A bad counter whose metric is none of the total's, and of which no series is left for an hour while the total goes on, was
  renamed, as far as anyone can tell: the minutes after its last sample are gaps. Where its metric has other series, or is the
  total's own, the day has a warning: it may have been renamed, and may have had nothing to count since a restart.
- Requests of a pod whose histogram lacks the SLO's bucket are unplaced, with a warning: nobody knows which of them were slow.

Not here: where samples come from and counts go (`ledger.py`), and what is doubtful (`doubts.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from greenops_pipelines.instants import micros
from greenops_pipelines.lake.budget_tables import SLO_DAYS, SLO_MINUTES
from greenops_pipelines.slo import count_nodes as nodes
from greenops_pipelines.slo import doubts
from greenops_pipelines.slo.bounds import bounded
from greenops_pipelines.slo.count_nodes import Constant, Growth, Rate
from greenops_pipelines.slo.counting import LONGEST_RANGE, Countable
from greenops_pipelines.slo.day_samples import (
    LOOKBACK,
    MINUTE,
    MINUTES,
    Bools,
    Floats,
    Ints,
    day_start,
    merged,
)
from greenops_pipelines.slo.grid import Grid
from greenops_pipelines.slo.series import Batch, Selector

_NOTABLE = 0.01
"""Share of all events from which on bad events below none are worth a warning: a request in flight between two reads is not."""
_NEVER = -(1 << 60)
_REACH = LONGEST_RANGE // timedelta(minutes=1)
DAYS_SCHEMA = pa.schema([field for field in SLO_DAYS.schema if field.name != "observed_at"])


@dataclass(frozen=True)
class Figures:
    """What was noticed while an SLO was counted. `clamped` is by how many events bad was out of [0, total], in the end."""

    clamped_minutes: int = 0
    clamped: float = 0.0
    conflicting_minutes: int = 0
    births: int = 0


@dataclass(frozen=True)
class Counts:
    """Rows of SLO_MINUTES, rows of SLO_DAYS without `observed_at`, and figures by SLO."""

    minutes: pa.Table
    days: pa.Table
    figures: Mapping[str, Figures]


@dataclass(frozen=True)
class _Minutes:
    """Of one SLO: which minutes are over, which of those are known, and what they hold."""

    is_over: Bools
    is_known: Bools
    total: Floats
    bad: Floats
    unplaced_total: Floats
    unplaced_bad: Floats
    resets: int
    clamped: float
    fault: str | None
    warning: str | None
    figures: Figures


def count_day(
    countables: Sequence[Countable],
    batch: Batch,
    before: Batch,
    day: date,
    until: datetime,
    *,
    source: str,
    after: Batch | None = None,
) -> Counts:
    """Counts a UTC day.

    `batch`: its samples, and those exactly at its end. `before`: 15 minutes before the day, and the last sample before it
    of every series, as far back as growth over gaps is to be looked for. `after`: 5 minutes after it, which tell whether
    there is a gap at its end; they may hold its very end. A sample that is in two of them counts once. `until`: how far the
    source was read; minutes that were not over by then have no row.
    """
    start = day_start(day)
    countables = sorted(countables, key=lambda each: each.slo_id)
    metrics = {selector.metric for each in countables for selector in each.selectors}
    grid = Grid(merged([before, batch, *([after] if after else [])], metrics), start)
    counted = [_counted(each, grid, micros(until)) for each in countables]
    ids = [each.slo_id for each in countables]
    return Counts(
        _minutes_table(ids, counted, day, source),
        pa.Table.from_pylist(
            [_day_row(slo_id, each, day, source) for slo_id, each in zip(ids, counted, strict=True)], schema=DAYS_SCHEMA
        ),
        {slo_id: each.figures for slo_id, each in zip(ids, counted, strict=True)},
    )


def fault_rows(faults: Mapping[str, str], day: date, source: str) -> pa.Table:
    """Rows of SLO_DAYS, as of `count_day`, of SLOs that cannot be counted."""
    nothing = np.zeros(0)
    none = np.zeros(0, bool)
    rows = [
        _day_row(
            slo_id,
            _Minutes(none, none, nothing, nothing, nothing, nothing, 0, 0.0, fault, None, Figures()),
            day,
            source,
        )
        for slo_id, fault in sorted(faults.items())
    ]
    return pa.Table.from_pylist(rows, schema=DAYS_SCHEMA)


def _counted(countable: Countable, grid: Grid, until: int) -> _Minutes:
    wanted = nodes.selectors(countable.total)
    is_gap, is_pending = _sampling(countable, grid, grid.rows(wanted), until)
    gone = doubts.vanished(countable, grid)
    for each in gone:
        if each.is_metric_gone:
            is_gap = is_gap | (np.arange(MINUTES) > (each.since - grid.start - 1) // MINUTE)
    lone = doubts.unmatched(countable, grid)
    matched = grid if lone is None else grid.without(lone.rows)
    total, mismatched = matched.placed(countable.total)
    bad, also_mismatched = matched.placed(countable.bad)
    mismatched = mismatched | also_mismatched
    if nodes.is_zero_where_absent(countable.total):
        total = np.nan_to_num(total, nan=0.0)
    if nodes.is_zero_where_absent(countable.bad):
        bad = np.nan_to_num(bad, nan=0.0)
    ends = grid.start + MINUTE * np.arange(1, MINUTES + 1, dtype=np.int64)
    # What was sampled exactly at `until` was not read; at the day's end the batch says what there was.
    is_over = ((ends < until) | (until >= ends[-1])) & ~is_pending
    is_known = is_over & ~is_gap & ~mismatched & np.isfinite(total) & ~np.isnan(bad)
    held = bounded(bad, total, is_known, is_carried=countable.kind == "counters")
    rows = grid.rows(
        part.selector
        for node in (countable.total, countable.bad)
        for part in nodes.parts(node)
        if isinstance(part, Growth | Rate)
    )
    figures = Figures(
        int(np.count_nonzero(held.above + held.below)),
        float((held.above + held.below).sum()),
        int((mismatched & is_over).sum()),
        int(grid.grown.births[rows].sum()),
    )
    lost_total, lost_bad = _unplaced(countable, grid, rows)
    warnings = _vanished_lines(countable, gone)
    if lone is not None:
        left_out = np.nan_to_num(grid.placed(countable.total)[0]) - np.nan_to_num(total)
        lost_total = lost_total + left_out
        warnings.append(f"{lone}: {left_out[is_over].sum():g} events are unplaced")
    if held.below.sum() > _NOTABLE * total[is_known].sum():
        warnings.append(f"found {held.below.sum():g} good events above all events")
    resets = int(grid.grown.resets[rows].sum())
    is_any = bool(is_known.any())
    fault = None if is_any or not is_over.any() else _fault(countable, grid, gone)
    return _Minutes(
        is_over,
        is_known,
        total,
        held.bad,
        lost_total,
        lost_bad,
        resets,
        float(held.above.sum()),
        fault,
        "; ".join(warnings) if is_any and warnings else None,
        figures,
    )


def _vanished_lines(countable: Countable, gone: Sequence[doubts.Vanished]) -> list[str]:
    is_zero = nodes.is_zero_where_absent(countable.bad)
    return [
        f"{each}, and counted no {'event of it' if is_zero and not each.is_metric_gone else 'minute'} since then"
        for each in gone
    ]


def _unplaced(countable: Countable, grid: Grid, rows: Ints) -> tuple[Floats, Floats]:
    lost = grid.grown.unplaced
    if lost is None or not lost[rows].any():
        return np.zeros(MINUTES), np.zeros(MINUTES)
    total, bad = (np.nan_to_num(grid.unplaced(node), nan=0.0) for node in (countable.total, countable.bad))
    total = np.maximum(total, 0.0)
    return total, np.clip(bad, 0.0, total)


def _sampling(countable: Countable, grid: Grid, rows: Ints, until: int) -> tuple[Bools, Bools]:
    """By minute: gaps by when the total's series were sampled; and what is not over, as a sample may still come."""
    parts = list(nodes.parts(countable.total))
    is_constant = any(isinstance(part, Constant) for part in parts)
    reach = max((part.range // timedelta(minutes=1) for part in parts if isinstance(part, Rate)), default=0)
    none = np.zeros(MINUTES, bool)
    if not is_constant and grid.grown.is_sampled[rows].any(axis=0).all():
        return none, none
    times = np.unique(grid.samples.of(rows, is_real=True).time)
    is_gap, is_pending = _stretches(times, grid.start, until)
    if is_constant:
        # A rate looks back over its whole range: minute m is touched by gaps in m - reach + 1 to m.
        touched = np.cumsum(np.concatenate([[0], is_gap]))
        here = np.arange(_REACH, _REACH + MINUTES)
        return touched[here + 1] > touched[here - max(reach, 1) + 1], is_pending[_REACH:]
    if any(isinstance(part, Growth) for part in parts):
        return is_gap[_REACH:], is_pending[_REACH:]
    return none, is_pending[_REACH:]


def _stretches(times: Ints, start: int, until: int) -> tuple[Bools, Bools]:
    """Gaps and minutes that are not over, of the 10 minutes before the day and the day; `times` rise."""
    begins = start + MINUTE * np.arange(-_REACH, MINUTES, dtype=np.int64)
    after = np.searchsorted(times, begins, side="right")
    is_sampled = np.searchsorted(times, begins + MINUTE, side="right") > after
    known = np.concatenate([[_NEVER], times, [until]])
    stretch = known[after + 1] - known[after]
    is_last = after == len(times)
    is_gap = ~is_sampled & (stretch > LOOKBACK)
    return is_gap, ~is_sampled & is_last & ~is_gap


def _fault(countable: Countable, grid: Grid, gone: Sequence[doubts.Vanished]) -> str:
    """Why no minute of the day is known."""
    needed = nodes.selectors(countable.total)
    if not nodes.is_zero_where_absent(countable.bad):
        needed |= nodes.selectors(countable.bad)
    missing = [str(each) for each in sorted(needed) if not _is_there(grid, each)]
    if missing:
        return f"found no sample of {', '.join(missing)}"
    renamed = [str(each) for each in gone if each.is_metric_gone]
    if renamed:
        return "; ".join(renamed)
    return (
        "found no minute in which its series have values that match; allowed: series with the same labels on both sides"
    )


def _is_there(grid: Grid, selector: Selector) -> bool:
    return bool(grid.grown.is_sampled[grid.rows([selector])].any())


def _day_row(slo_id: str, counted: _Minutes, day: date, source: str) -> dict[str, Any]:
    known, over = counted.is_known, counted.is_over
    is_any = bool(known.any())
    return {
        "source": source,
        "day": day,
        "slo_id": slo_id,
        "total": float(counted.total[known].sum()) if is_any else None,
        "bad": float(counted.bad[known].sum()) if is_any else None,
        "known_minutes": int(known.sum()),
        "gap_minutes": int((over & ~known).sum()),
        "unplaced_total": float(counted.unplaced_total[over].sum()),
        "unplaced_bad": float(counted.unplaced_bad[over].sum()),
        "resets": counted.resets,
        "clamped": counted.clamped if is_any else None,
        "fault": counted.fault,
        "warning": counted.warning,
    }


def _minutes_table(ids: Sequence[str], counted: Sequence[_Minutes], day: date, source: str) -> pa.Table:
    start = day_start(day)
    places = [np.flatnonzero(each.is_over) for each in counted]
    minute = _joined([start + MINUTE * place for place in places], np.int64)
    unknown = _joined([~each.is_known[place] for each, place in zip(counted, places, strict=True)], np.bool_)
    slo = np.repeat(np.arange(len(ids)), [len(place) for place in places])

    def column(name: str) -> Any:
        return _joined([getattr(each, name)[place] for each, place in zip(counted, places, strict=True)], np.float64)

    return pa.Table.from_arrays(
        [
            pa.repeat(pa.scalar(source, pa.string()), len(minute)),
            pa.repeat(pa.scalar(day, pa.date32()), len(minute)),
            pa.DictionaryArray.from_arrays(slo, pa.array(ids, pa.string())).cast(pa.string()),
            pa.array(minute, pa.timestamp("us", tz="UTC")),
            pa.array(column("total"), mask=unknown),
            pa.array(column("bad"), mask=unknown),
            pa.array(column("unplaced_total")),
            pa.array(column("unplaced_bad")),
        ],
        schema=SLO_MINUTES.schema,
    )


def _joined(pieces: Sequence[Any], kind: Any) -> Any:
    return np.concatenate([np.zeros(0, kind), *pieces])
