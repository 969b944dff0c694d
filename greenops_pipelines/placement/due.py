"""What is due now: planned work whose hour has come, and launched work that goes on or is tried again.

Here: reading plan and ledger, in bounded time. Not here: starting anything (`launching.py`), asking Dagster (`sensors/`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greenops_pipelines.placement.dispatches import planned_runs, run_at
from greenops_pipelines.placement.launching import limit_minutes, worker_lock
from greenops_pipelines.placement.ledger import Ledger, Tried, only_one

if TYPE_CHECKING:
    from greenops_pipelines.lake import Lake

STALE = timedelta(minutes=30)
"""A planned start that is over by more was missed, while the daemon was down or all workers were busy: the hour was
chosen, so another one has to be. Waited for only while the deadline leaves `SPARE` for it."""
SPARE = timedelta(hours=1)
_AGAIN = timedelta(minutes=1)
_LONGEST_AGAIN = timedelta(minutes=10)
_ADOPT = timedelta(minutes=2)
_LOSSES_AT_ONCE = 3


@dataclass(frozen=True)
class Due:
    """Work to be launched now."""

    key: str
    workload: str
    tenant: str
    region: str
    zone: str
    home_region: str
    start_at: datetime
    deadline: datetime
    latest_start: datetime
    state: str
    avoided_g: float | None
    reason: str
    limit_minutes: float
    """Its time limit."""

    @property
    def tags(self) -> dict[str, str]:
        """What its run carries."""
        return {
            "greenops/key": self.key,
            "greenops/workload": self.workload,
            "greenops/tenant": self.tenant,
            "greenops/region": self.region,
            "greenops/zone": self.zone,
            "greenops/state": self.state,
            "greenops/avoided_g": "unknown" if self.avoided_g is None else f"{self.avoided_g:.0f}",
            "greenops/reason": self.reason,
            "greenops/deadline": f"{self.deadline:%Y-%m-%dT%H:%MZ}",
        }


@dataclass(frozen=True)
class Found:
    """What is due, the most pressing first, and what is not launched though its hour has come."""

    due: list[Due]
    refused: int
    """Of the plan: refused since it was made, waiting for another one."""
    missed_slot: int
    """Of the plan: their hour is over, and the deadline leaves time for a new plan."""


def find(lake: Lake, ledger: Ledger, now: datetime, but: Collection[str] = (), limit: int = 50) -> Found:
    """At most `limit` pieces of work that are due, none of them in `but`."""
    found = [each for row, tried in ledger.open_claims() if (each := _goes_on(ledger, row, tried, now))]
    rows = lake.query(_PLANNED, {"now": now}).to_pylist()
    keys = [row["key"] for row in rows]
    taken = ledger.taken(keys) if keys else set()
    refused = ledger.refused_since(keys, min(row["planned_at"] for row in rows)) if keys else set()
    waiting = [row for row in rows if row["key"] not in taken]
    stale = {row["key"] for row in waiting if _is_stale(row, now)}
    found += [_due(row) for row in waiting if row["key"] not in refused | stale]
    due = sorted((each for each in found if each.key not in but), key=lambda each: (each.latest_start, each.key))
    return Found(due[:limit], len(refused - taken), len(stale - refused))


_PLANNED = """
select p.key, p.workload, p.tenant, p.region, p.zone, p.home_region, p.start_at, p.deadline, p.state, p.avoided_g,
    p.reason, p.planned_at, p.deadline - (p.end_at - p.start_at) as latest_start,
    coalesce((r.runner->>'timeout_minutes')::double, 2 * r.duration_minutes + 60, 1440) as limit_minutes
from placement_plan as p left join placement_requests as r on r.key = p.key
where p.start_at <= $now
"""


def _is_stale(row: Mapping[str, Any], now: datetime) -> bool:
    return bool(row["state"] == "planned" and now - row["start_at"] > STALE and row["latest_start"] - now > SPARE)


def _due(row: Mapping[str, Any]) -> Due:
    return Due(**{name: row[name] for name in Due.__dataclass_fields__})


def _goes_on(ledger: Ledger, claim: Mapping[str, Any], tried: list[Tried], now: datetime) -> Due | None:
    """A claimed piece of work as due; None while it runs, pauses, or waits after a failure."""
    region, start, _ = run_at(planned_runs(claim), now)
    is_local = json.loads(claim["runner"])["kind"] == "local"
    last = tried[-1] if tried else None
    if last is None:
        is_due = True
    elif last.ended_at is None:
        lock = worker_lock(ledger, claim["key"])
        with only_one(lock) as free:
            is_due = free and (is_local or _age(lock, now) >= _ADOPT)
    elif last.outcome == "paused":
        is_due = now >= start
    else:
        is_due = now - last.ended_at >= _pause(last, tried, is_local)
    if not is_due:
        return None
    zone = claim["zone"] if region == claim["region"] else ""
    return _due(
        {
            **claim,
            "region": region,
            "zone": zone,
            "start_at": start,
            "latest_start": claim["deadline"] - timedelta(minutes=claim["duration_minutes"]),
            "limit_minutes": limit_minutes(claim),
        }
    )


def _pause(last: Tried, tried: list[Tried], is_local: bool) -> timedelta:
    """Before the next attempt: a minute, two, four, up to ten; none where a local program or its worker was killed, unless
    that happened several times."""
    alike = sum(each.outcome == last.outcome for each in tried)
    if last.outcome == "lost" and is_local:
        return timedelta(0) if alike <= _LOSSES_AT_ONCE else _AGAIN
    return min(_AGAIN * 2.0 ** (alike - 1), _LONGEST_AGAIN)


def _age(path: Path, now: datetime) -> timedelta:
    return now - datetime.fromtimestamp(path.stat().st_mtime, UTC)
