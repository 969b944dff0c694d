"""What gates and drills of canaries prove: J1.4 the seconds from breach to rollback, and that certificates and drills hold.

Only drills in real time count. A figure is that of the last eight days, so that a weekly drill that was missed shows, and a
fault that was mended does not stand for ever. Not here: drilling, and the certificates themselves.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.slo.canary import Canaries

SELDOM_PERCENT = 5.0
"""More often than one good canary in twenty, and people stop believing the gate."""
WINDOW = timedelta(days=8)
"""A week and a day: the weekly drill may be late."""
_BREACH = "(scenario like 'errors-%' or scenario = 'latency')"
_RECENT = "began_at >= $1 and speed = 1"
_NOT_PASSED_SINCE = """not exists (
    select 1 from slo_drills as l
    where l.service = d.service and l.scenario = d.scenario and l.speed = 1 and l.began_at > d.began_at and l.verdict = 'passed'
)"""


def listed(lake: Lake, limit: int) -> list[dict[str, Any]]:
    """The newest drills, for scripts."""
    rows = lake.query(f"select * from slo_drills order by began_at desc limit {limit:d}").to_pylist()
    return [
        row
        | {
            "deficiencies": (row["deficiencies"] or "").splitlines(),
            **{name: row[name].isoformat() for name in ("began_at", "ended_at")},
        }
        for row in rows
    ]


def newest(lake: Lake, limit: int = 20) -> pa.Table:
    """The newest drills, for people."""
    return lake.query(
        f"""
        select strftime(began_at, '%Y-%m-%d %H:%M') as began, service, scenario, verdict, outcome,
            round(rollback_s, 1) as rollback_s, round(bound_s, 1) as certified_s, speed, source
        from slo_drills order by began_at desc limit {limit:d}
        """
    )


def held_in(lake: Lake, week: str) -> set[str]:
    """Scenarios of a week's drills that came to their end, good or bad."""
    rows = lake.query(
        "select distinct scenario from slo_drills where batch = $1 and verdict <> 'aborted' and speed = 1", [week]
    )
    return set(rows["scenario"].to_pylist())


def newest_breach(lake: Lake) -> datetime | None:
    """When the newest drill in real time began in which a breach was rolled back."""
    [row] = lake.query(
        f"select max(began_at) as at from slo_drills where speed = 1 and verdict = 'passed' and {_BREACH}"
    ).to_pylist()
    return row["at"]  # type: ignore[no-any-return]


def rollback(lake: Lake, canaries: Canaries, now: datetime) -> Measurement:
    """J1.4: the longest time from breach to rollback complete. One that never came lasts until its like passes."""
    rows = lake.query(
        f"""
        select scenario, count(*)::bigint as drills, max(rollback_s) as worst, median(rollback_s) as middle, max(bound_s) as certified,
            bool_or(source = 'embedded scraper') as embedded
        from slo_drills where {_RECENT} and {_BREACH} and rollback_s is not null
        group by scenario order by worst desc
        """,
        [now - WINDOW],
    ).to_pylist()
    never = lake.query(
        f"""
        select d.drill, d.began_at from slo_drills as d
        where d.speed = 1 and d.verdict = 'failed' and d.outcome in ('promoted', 'paused') and {_BREACH.replace("scenario", "d.scenario")} and {_NOT_PASSED_SINCE}
        order by d.began_at limit 1
        """
    ).to_pylist()
    worst: float | None = rows[0]["worst"] if rows else None
    if never:
        worst = max(worst or 0.0, (now - never[0]["began_at"]).total_seconds())
    said = [f"{row['scenario']} {row['worst']:.1f} s (certified {row['certified']:.1f} s)" for row in rows]
    embedded = " by an embedded scraper, without Prometheus" if any(row["embedded"] for row in rows) else ""
    return Measurement(
        check="slo/drill:rollback",
        measured=worst,
        target=canaries.rollback.deadline_seconds,
        comparison="<=",
        unit="seconds",
        detail=(f"drill {never[0]['drill']}: the bad canary was not rolled back; " if never else "")
        + ("longest of each: " + ", ".join(said) + embedded if said else "no drill in real time in the last 8 days"),
        missing=None if worst is not None else "a drill of a breach in real time in the last 8 days",
        figures={f"{row['scenario']}, drills": row["drills"] for row in rows}
        | {f"{row['scenario']}, median s": round(row["middle"], 1) for row in rows},
    )


def bounded(lake: Lake, now: datetime) -> Measurement:
    """The part of its certificate that the slowest rollback took: above 100 % the certificate is wrong."""
    [row] = lake.query(
        f"""
        select max(100 * rollback_s / bound_s) as share, count(*)::bigint as drills,
            arg_max(drill, rollback_s / bound_s) as drill, arg_max(scenario, rollback_s / bound_s) as scenario
        from slo_drills where {_RECENT} and rollback_s is not null and bound_s is not null
        """,
        [now - WINDOW],
    ).to_pylist()
    return Measurement(
        check="slo/drill:bounded",
        measured=row["share"],
        target=100,
        comparison="<=",
        unit="% of the certified time",
        detail=f"drill {row['drill']} ({row['scenario']}) came nearest, of {row['drills']}"
        if row["drills"]
        else "no drill in real time in the last 8 days",
        missing=None if row["drills"] else "a drill of a breach in real time in the last 8 days",
    )


def sound(lake: Lake, now: datetime) -> Measurement:
    """Drills in real time that failed or were killed and were not passed since, and drills without their evidence."""
    rows = lake.query(
        f"""
        select d.drill, d.scenario, coalesce(d.deficiencies, 'its evidence is not filed') as deficiencies
        from slo_drills as d
        where d.began_at <= $1 and d.speed = 1
            and (d.bundle is null or d.verdict <> 'passed' and {_NOT_PASSED_SINCE})
        order by d.began_at
        """,
        [now],
    ).to_pylist()
    return Measurement(
        check="slo/drill:sound",
        measured=float(len(rows)),
        target=0,
        comparison="==",
        unit="drills",
        detail="; ".join(
            f"{row['drill']} ({row['scenario']}): {row['deficiencies'].splitlines()[0]}" for row in rows[:3]
        )
        or "every drill that failed or was killed has passed since",
    )


def promoted(lake: Lake, now: datetime) -> Measurement:
    """Good canaries of the window that were not promoted: gates that take back what is good are switched off by people."""
    [row] = lake.query(
        f"""
        select count(*)::bigint as drills, count(*) filter (outcome is distinct from 'promoted')::bigint as wrong
        from slo_drills where {_RECENT} and scenario = 'healthy' and verdict <> 'aborted'
        """,
        [now - WINDOW],
    ).to_pylist()
    return Measurement(
        check="slo/drill:promoted",
        measured=float(row["wrong"]) if row["drills"] else None,
        target=0,
        comparison="==",
        unit="good canaries taken back",
        detail=f"{row['drills']} good canaries were drilled in real time in the last 8 days",
        missing=None if row["drills"] else "a good canary in real time: the weekly drill (19 minutes)",
    )


def certified(rows: pa.Table, canaries: Canaries) -> Measurement:
    """The longest certified rollback at the error rate that has to be found in time. `rows` are the certificates."""
    asked = [row for row in rows.to_pylist() if row["error_percent"] == canaries.rollback.at_error_percent]
    errors = [row for row in asked if row["gate"] == "error-rate"]
    worst = max(errors, key=lambda row: float("inf") if row["worst_s"] is None else row["worst_s"])
    return Measurement(
        check="slo/rollback_certificates:certified",
        measured=worst["worst_s"],
        target=canaries.rollback.deadline_seconds,
        comparison="<=",
        unit="seconds",
        detail=f"{worst['service']} is slowest: {canaries.rollback.at_error_percent:g} % errors against a threshold of "
        f"{worst['threshold_percent']:g} %",
        figures={f"{row['service']}, s": round(row["worst_s"], 1) for row in errors if row["worst_s"] is not None},
    )


def seldom_wrong(rows: pa.Table) -> Measurement:
    """The highest probability that a good canary is taken back. `rows` are the chances."""
    worst = max(rows.to_pylist(), key=lambda row: row["false_rollback"])
    return Measurement(
        check="slo/canary_chances:seldom_wrong",
        measured=100 * worst["false_rollback"],
        target=SELDOM_PERCENT,
        comparison="<=",
        unit="% of good canaries",
        detail=f"{worst['service']} at {worst['requests_per_second']:g} requests a second, erring at "
        f"{worst['healthy_error_percent']:g} % against a threshold of {worst['threshold_percent']:g} %",
        figures={f"{row['service']}, %": round(100 * row["false_rollback"], 3) for row in rows.to_pylist()}
        | {
            f"{row['service']}, bad one found in time, %": round(100 * row["found_in_time"], 1)
            for row in rows.to_pylist()
        },
    )


def complete(rows: pa.Table, canaries: Canaries) -> Measurement:
    """Services of which a canary is judged. What each has to be judged by is refused where it is not (`canary.py`)."""
    gates = Counter(rows["service"].to_pylist())
    return Measurement(
        check="slo/gates:complete",
        measured=float(len(gates)),
        target=float(len(canaries.services)),
        comparison="==",
        unit="services",
        detail="; ".join(f"{name}: {', '.join(entry.gates)}" for name, entry in canaries.services.items()),
        figures={f"gates of {name}": gates[name] for name in canaries.services},
    )
