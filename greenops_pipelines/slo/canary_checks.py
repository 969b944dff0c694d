"""What gates and drills of canaries prove: J1.4 the seconds from breach to rollback, and that certificates and drills hold.

Only drills in real time count. A figure is that of the last eight days, so that a weekly drill that was missed shows, and a
fault that was mended does not stand for ever. Not here: drilling, and the certificates themselves.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.drill_plans import WEEKLY

SELDOM_PERCENT = 5.0
"""More often than one good canary in twenty, and people stop believing the gate."""
WINDOW = timedelta(days=8)
"""A week and a day: the weekly drill may be late."""
_BREACH = "(d.scenario like 'errors-%' or d.scenario = 'latency')"
_RECENT = "d.began_at >= $1 and d.speed = 1"
_NOT_PASSED_SINCE = """not exists (
    select 1 from slo_drills as l
    where l.service = d.service and l.scenario = d.scenario and l.variant = d.variant and l.speed = 1
        and l.began_at > d.began_at and l.verdict = 'passed'
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
        f"select max(d.began_at) as at from slo_drills as d where d.speed = 1 and d.verdict = 'passed' and {_BREACH}"
    ).to_pylist()
    return row["at"]  # type: ignore[no-any-return]


def rollback(lake: Lake, canaries: Canaries, now: datetime) -> Measurement:
    """J1.4: the longest time from breach to rollback complete. One that never came lasts until its like passes."""
    rows = lake.query(
        f"""
        select scenario, count(*)::bigint as drills, max(rollback_s) as worst, median(rollback_s) as middle, coalesce(max(bound_s), 0) as certified, count(distinct service)::bigint as services,
            bool_or(source = 'embedded scraper') as embedded
        from slo_drills as d where {_RECENT} and {_BREACH} and rollback_s is not null
        group by scenario order by worst desc
        """,
        [now - WINDOW],
    ).to_pylist()
    never = lake.query(
        f"""
        select d.drill, d.began_at from slo_drills as d
        where d.speed = 1 and d.verdict = 'failed' and d.outcome in ('promoted', 'paused') and {_BREACH} and {_NOT_PASSED_SINCE}
        order by d.began_at limit 1
        """
    ).to_pylist()
    worst: float | None = rows[0]["worst"] if rows else None
    if never:
        worst = max(worst or 0.0, (now - never[0]["began_at"]).total_seconds())
    said = [
        f"{row['scenario']} {row['worst']:.1f} s (certified {row['certified']:.1f} s, {row['services']} services)"
        for row in rows
    ]
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
        from slo_drills as d where {_RECENT} and rollback_s is not null and bound_s is not null
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


def weekly(lake: Lake, now: datetime) -> Measurement:
    """Kinds of the week's drills that were held in real time lately; nothing to be asked for in a home's first days."""
    [row] = lake.query(
        """
        select min(began_at) as since,
            coalesce(list(distinct scenario) filter (began_at >= $1 and verdict <> 'aborted'), []) as held
        from slo_drills where speed = 1
        """,
        [now - WINDOW],
    ).to_pylist()
    lacking = [scenario for scenario in WEEKLY if scenario not in row["held"]]
    is_young = row["since"] is None or now - row["since"] < WINDOW
    return Measurement(
        check="slo/drill:weekly",
        measured=None if is_young and lacking else float(len(WEEKLY) - len(lacking)),
        target=float(len(WEEKLY)),
        comparison="==",
        unit="kinds of drills",
        detail=f"not held in the last 8 days: {', '.join(lacking)}" if lacking else f"held: {', '.join(WEEKLY)}",
        missing="a whole week with the daemon running" if is_young and lacking else None,
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
        from slo_drills as d where {_RECENT} and scenario = 'healthy' and verdict <> 'aborted'
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
    """Services of which each declared gate is compiled. That those judge all that has to be judged, `canary.py` sees to."""
    gates: dict[str, set[str]] = {name: set() for name in canaries.services}
    for row in rows.to_pylist():
        gates.setdefault(row["service"], set()).add(row["gate"])
    good = [name for name, entry in canaries.services.items() if gates[name] == set(entry.gates)]
    return Measurement(
        check="slo/gates:complete",
        measured=float(len(good)),
        target=float(len(canaries.services)),
        comparison="==",
        unit="services",
        detail="; ".join(f"{name}: {', '.join(entry.gates)}" for name, entry in canaries.services.items()),
        figures={f"gates of {name}": len(found) for name, found in gates.items()},
    )
