"""A drill's result: what it measured, held against its objectives; and that a negative control missed its own.

Not here: what a write's outcome means (`accounting.py`), and drilling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.recovery.accounting import Account, account
from greenops_pipelines.recovery.events import FILE as EVENTS
from greenops_pipelines.recovery.ledger import Write, read
from greenops_pipelines.recovery.results import LEDGER, Result, Spec, Verdict, steps_of

_MOVED_SECONDS = 1.0
"""A host's clock that was set by more than this while a drill ran is named."""


@dataclass
class Times:
    fault: float | None = None
    detected: float | None = None
    fenced: float | None = None
    failback: float | None = None
    failed_back: float | None = None
    steady: float = 0.0
    steady_acked: int = 0


def judged(
    spec: Spec,
    folder: Path,
    times: Times,
    kept: Mapping[str, Mapping[int, str]],
    health_checks: int,
    clock_moved: float,
    began: datetime,
    verdict: Verdict,
    deficiencies: list[str],
) -> Result:
    """`verdict` is how it ended; what was measured may make it worse. `kept`: rows by when they were looked at."""
    writes = read(folder / LEDGER)
    counted = None
    if times.fault is not None:
        counted = account(
            writes,
            spec.database.primary,
            spec.database.standby,
            times.fault,
            times.fenced,
            kept.get("failover"),
            times.failback,
            kept.get("failback"),
        )
        if "failover" in kept and not spec.is_negative_control:
            deficiencies += _shortcomings(spec, counted)
    if verdict == "passed" and deficiencies:
        verdict = "failed"
    if spec.is_negative_control and counted is not None and "failover" in kept:
        verdict, found = _of_control(spec, counted)
        deficiencies = [*deficiencies, *found]
    if (
        spec.database.clusters is not None
        and verdict in ("failed", "aborted")
        and times.fault is not None
        and times.failed_back is None
    ):
        deficiencies = [
            *deficiencies,
            f"the clusters are as the last step left them{', fenced' if times.fenced else ''}: look which of them takes writes, "
            "and bring the other one back by your failback",
        ]
    moved = clock_moved
    if abs(moved) > _MOVED_SECONDS:
        deficiencies.append(
            f"this host's clock was set by {moved:+.1f} s during the drill; durations are from a monotonic clock and stand, "
            "times of day do not"
        )
    listed = list(steps_of(folder / EVENTS))
    return Result(
        drill=spec.id,
        gameday=spec.gameday,
        database=spec.database.name,
        primary=spec.database.primary,
        standby=spec.database.standby,
        scenario=spec.scenario,
        sync=spec.sync,
        rate=spec.rate,
        clients=spec.clients,
        wan_ms=spec.wan_ms,
        is_negative_control=spec.is_negative_control,
        is_embedded=spec.database.clusters is None,
        began_at=_text(began),
        ended_at=_text(datetime.now(UTC)),
        rto_objective_s=spec.rto_objective_s,
        rpo_objective_s=spec.rpo_objective_s,
        verdict=verdict,
        deficiencies=tuple(deficiencies),
        **_figures(counted, "failover" in kept),
        throughput_per_s=round(times.steady_acked / times.steady, 2) if times.steady else None,
        detection_s=_rounded(None if times.detected is None or times.fault is None else times.detected - times.fault),
        failback_s=_rounded(
            None if times.failed_back is None or times.failback is None else times.failed_back - times.failback
        ),
        failback_outage_s=_failback_outage(spec, times, writes),
        clock_moved_s=round(moved, 3),
        health_checks=health_checks,
        assumptions=_assumptions(spec),
        remediation=tuple(dict.fromkeys(_remedy(each) for each in deficiencies)),
        steps=tuple({"step": step, "seconds": seconds, "outcome": outcome} for step, seconds, outcome, _ in listed),
        commands=tuple({"step": step, **command} for step, _, _, commands in listed for command in commands),
    )


def _failback_outage(spec: Spec, times: Times, writes: list[Write]) -> float | None:
    if times.failed_back is None or times.failback is None:
        return None
    acked = [(write.region, write.ended) for write in writes if write.outcome == "ok" and write.ended is not None]
    last = max((ended for region, ended in acked if region == spec.database.standby), default=None)
    first = min(
        (ended for region, ended in acked if region == spec.database.primary and ended > times.failback), default=None
    )
    return None if last is None or first is None else _rounded(first - last)


def _shortcomings(spec: Spec, counted: Account) -> list[str]:
    found = list(counted.faults)
    if counted.rto_s is not None and counted.rto_s > spec.rto_objective_s:
        found.append(f"RTO missed: {round(counted.rto_s, 4):.10g} s, the objective is {spec.rto_objective_s:g} s")
    if counted.rpo_s > spec.rpo_objective_s:
        found.append(f"RPO missed: {round(counted.rpo_s, 4):.10g} s, the objective is {spec.rpo_objective_s:g} s")
    if counted.lost_writes and (spec.sync or spec.scenario == "planned"):
        how = "a planned switchover" if spec.scenario == "planned" else "synchronous replication"
        found.append(f"{how} lost {counted.lost_writes} acknowledged writes; none may be lost")
    return found


def _assumptions(spec: Spec) -> tuple[str, ...]:
    found = [
        f"a fault is noticed by {spec.probes} write probes in a row that fail, each within {spec.probe_timeout_seconds:g} s",
        "clients connect again by themselves, and write each payload once",
    ]
    if spec.database.clusters is None:
        found.insert(
            0, "two PostgreSQL servers on one machine stand in for the database; the line between them is delayed"
        )
        found.append("clients are beside the endpoint, which is moved at once")
        if spec.scenario in ("kill", "hang", "stall"):
            found.append("the failed primary can be switched off without its help")
        if spec.scenario == "partition":
            found.append("the endpoint alone keeps clients from the old primary, which lives on until the failback")
    return tuple(found)


_REMEDIES = (
    ("RTO missed", "see which step took the time; shorten detection, or prepare the promotion"),
    ("RPO missed", "see how far the standby was behind; widen the line, or replicate synchronously"),
    (
        "lost",
        "see which writes are lost (kept.json against ledger.jsonl), and whether synchronous_standby_names was set",
    ),
    ("never caught up", "look at the line and at the standby's log"),
    ("promotion failed", "look at the standby's log; is it a standby, and does it run?"),
    ("clock was set", "see to the time synchronisation of this host"),
    ("fenced", "mend the fence before anything else: two primaries lose data"),
    ("cannot see a loss", "trust no drill until the negative control misses again"),
    ("free", "free some room"),
    ("answer", "see whether both servers run, and whether the line between them holds"),
)


def _remedy(deficiency: str) -> str:
    return next(
        (remedy for word, remedy in _REMEDIES if word in deficiency), "see the step that failed in events.jsonl"
    )


def _of_control(spec: Spec, counted: Account) -> tuple[Verdict, list[str]]:
    if counted.faults:
        return "failed", list(counted.faults)
    if counted.rpo_s > spec.rpo_objective_s:
        return "missed as intended", []
    return "not missed", [
        f"the negative control came back with an RPO of {counted.rpo_s:.2f} s within its objective of "
        f"{spec.rpo_objective_s:g} s, after a stall of {spec.stall_seconds:g} s: these drills cannot see a loss"
    ]


def _figures(counted: Account | None, is_verified: bool) -> dict[str, Any]:
    if counted is None:
        return {}
    known: dict[str, Any] = {
        "rto_s": _rounded(counted.rto_s),
        "client_outage_s": _rounded(counted.client_outage_s),
        "in_doubt_writes": counted.in_doubt_writes,
        "failed_writes": counted.failed_writes,
        "acked_writes": counted.acked,
        "acked_before": counted.acked_before,
        "acked_after": counted.acked_after,
        "acked_back": counted.acked_back,
    }
    # Nobody looked at what survived: then nothing is known of a loss, not even that there was none.
    if is_verified:
        known |= {
            "rpo_s": _rounded(counted.rpo_s),
            "lost_writes": counted.lost_writes,
            "in_doubt_kept": counted.in_doubt_kept,
        }
    return known


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
