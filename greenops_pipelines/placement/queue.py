"""What waits: declared occurrences that are due, and what was submitted; and the plan for it, from the lake.

Here: putting the pieces of this package together for the graph and the command line. Not here: any of the pieces.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.tables import PLACEMENT_REQUESTS
from greenops_pipelines.placement import plan as planning
from greenops_pipelines.placement.acceptance import accepted
from greenops_pipelines.placement.dispatches import planned_runs
from greenops_pipelines.placement.ledger import Ledger
from greenops_pipelines.placement.requests import Request, requests_table
from greenops_pipelines.placement.submissions import inbox_state, newest_submission, submissions_table, take_inbox
from greenops_pipelines.placement.workloads import Workloads, occurrences
from greenops_pipelines.settings import Settings

_RECORD_DAYS = 40
"""Occurrences of declared work that passed while the platform was down are recorded as missed, this far back."""


@dataclass(frozen=True)
class Gathered:
    """Rows of PLACEMENT_REQUESTS that are to be planned, and what was done to get them."""

    rows: pa.Table
    figures: Mapping[str, int | str]


def gather(settings: Settings, workloads: Workloads, now: datetime) -> Gathered:
    """Take what lies in the inbox; then everything open: occurrences within the horizon, and submissions.

    What missed its deadline by more than its window is closed as missed in the ledger.
    """
    begin = time.monotonic()
    swept = take_inbox(settings, now=now)
    ledger = Ledger(settings.dispatches)
    since = ledger.watch({(each.name, each.recurrence) for each in workloads.workloads}, now)
    last = ledger.last_gathered(now)
    ledger.gathered(now + timedelta(seconds=time.monotonic() - begin))
    waiting = _waiting(settings, workloads, ledger, since, last, now)
    _miss(ledger, waiting.missed, now)
    figures: dict[str, int | str] = {
        "declared": waiting.declared,
        "submitted": waiting.rows.num_rows - waiting.declared,
        "too late for their deadline, run all the same": waiting.overdue,
        "missed": waiting.missed.num_rows,
        "accepted from the inbox just now": len(swept.accepted),
        "accepted before": len(swept.already_accepted),
        "refused": "; ".join(f"{each.file}: {each.reason}" for each in swept.refused)[:1000] or "none",
        "left in the inbox, still being written": len(swept.left),
    }
    return Gathered(waiting.rows, figures)


def waiting(settings: Settings, workloads: Workloads, now: datetime) -> pa.Table:
    """The same rows without a look into the inbox, and without a trace."""
    ledger = Ledger(settings.dispatches)
    since, last = ledger.watching(), ledger.last_gathered(now)
    return _waiting(settings, workloads, ledger, since, last, now).rows


def new_work(settings: Settings) -> str:
    """A digest of what was submitted and not yet gathered; empty where there is nothing. Cheap: names and times only."""
    found = inbox_state(settings)
    newest, last = newest_submission(settings), Ledger(settings.dispatches).newest_gathering()
    if newest is not None and (last is None or newest > last):
        found.append(newest.isoformat())
    return hashlib.sha256("\n".join(found).encode()).hexdigest() if found else ""


def request(settings: Settings, workloads: Workloads, key: str) -> Request | None:
    """The work of that key at its source: the occurrence of a declared workload, or what was accepted."""
    name, _, minute = key.partition(":")
    if any(each.name == name for each in workloads.workloads):
        with suppress(ValueError):
            start = datetime.strptime(minute, "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)
            for found in occurrences(workloads, start, start + timedelta(minutes=1)):
                if found.key == key:
                    return found
    submitted = accepted(settings.submissions, key)
    return None if submitted is None else submitted.request


@dataclass(frozen=True)
class _Waiting:
    rows: pa.Table
    missed: pa.Table
    declared: int
    overdue: int


def _waiting(
    settings: Settings,
    workloads: Workloads,
    ledger: Ledger,
    since: Mapping[tuple[str, str], datetime],
    last: datetime,
    now: datetime,
) -> _Waiting:
    longest = timedelta(minutes=max((each.work.window_minutes for each in workloads.workloads), default=0))
    begin = max(min(last, now) - 2 * longest, now - timedelta(days=_RECORD_DAYS) - longest)
    until = now + timedelta(hours=workloads.settings.horizon_hours)
    recurrence = {each.name: each.recurrence for each in workloads.workloads}
    declared = requests_table(
        [
            each
            for each in occurrences(workloads, begin, until)
            # What was too late when it was first declared is nobody's promise: a new platform makes up for no past.
            if each.deadline - timedelta(minutes=each.duration_minutes) >= now
            or each.earliest_start >= since.get((each.workload, recurrence[each.workload]), now)
        ]
    )
    submitted = submissions_table(settings)
    # The submitter chose the key: one that a declared occurrence has as well is the occurrence.
    of_declared = pc.is_in(submitted["key"], declared["key"])
    rows = pa.concat_tables([declared, submitted.filter(pc.invert(of_declared))]).cast(PLACEMENT_REQUESTS.schema)
    taken = ledger.taken(rows["key"].to_pylist())
    rows = rows.filter(pc.invert(pc.is_in(rows["key"], pa.array(sorted(taken), pa.string()))))
    at = pa.scalar(now, rows["deadline"].type)
    too_late = pc.less(_latest_start(rows), at)
    window = pc.subtract(rows["deadline"], rows["earliest_start"])
    gone = pc.less(pc.add(rows["deadline"], window), at)
    left = rows.filter(pc.invert(gone))
    return _Waiting(
        left,
        rows.filter(gone),
        pc.sum(pc.equal(left["source"], "declared")).as_py() or 0,
        pc.sum(pc.and_(too_late, pc.invert(gone))).as_py() or 0,
    )


def _latest_start(rows: pa.Table) -> pa.ChunkedArray:
    lasts = pc.multiply(rows["duration_minutes"].cast(pa.int64()), 60_000_000).cast(pa.duration("us"))
    return pc.subtract(rows["deadline"], lasts)


def _miss(ledger: Ledger, missed: pa.Table, now: datetime) -> None:
    names = ("key", "workload", "tenant", "deadline")
    rows = missed.select(names).to_pylist()
    ledger.close_all(
        [
            {**row, "outcome": "missed", "at": now, "detail": "not launched within one window after its deadline"}
            for row in rows
        ]
    )


def plan(
    lake: Lake, ledger: Ledger, workloads: Workloads, now: datetime, *, signal: str = "average", seconds: float = 20.0
) -> planning.Plan:
    """The plan for the lake's requests by the lake's outlook, of that `signal`, in the room that launched work leaves."""
    rows = lake.query("from placement_requests order by key")
    return planning.make(
        rows,
        lake.query("from carbon_outlook"),
        workloads.declarations.regions,
        workloads.declarations.tenants,
        workloads.settings,
        now,
        done=ledger.taken(rows["key"].to_pylist()),
        busy=busy(ledger, now),
        signal=signal,
        seconds=seconds,
    )


def busy(ledger: Ledger, now: datetime) -> list[planning.Busy]:
    """The room that launched work takes, or is to take when it goes on; what is over its time takes the next quarter hour."""
    found = []
    for claim, _ in ledger.open_claims():
        runs = planned_runs(claim)
        region, start, end = runs[-1]
        runs[-1] = (region, start, max(end, now + timedelta(minutes=planning.SLOT_MINUTES)))
        found += [planning.Busy(*run, claim["power_kw"]) for run in runs if run[2] > now]
    return found


def refused(lake: Lake, ledger: Ledger, workloads: Workloads) -> int:
    """Requests that may run nowhere under today's declarations."""
    rows = lake.query("from placement_requests")
    done = ledger.taken(rows["key"].to_pylist())
    return len(planning.refusals(rows, workloads.declarations.regions, workloads.declarations.tenants, done))
