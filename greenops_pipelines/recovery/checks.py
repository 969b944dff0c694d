"""What the drills in the lake prove: directions, RTO, RPO, that they can fail, that no month went by without one.

A figure is that of the last 35 days, so that a fault that was mended does not stand for ever; the distribution over all drills
stands beside it. Negative controls are in none of them. Not here: drilling.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.recovery import calendar
from greenops_pipelines.recovery.declared import GameDays

WINDOW = timedelta(days=35)
"""From one first Tuesday to the next."""

_DRILLS = "recovery_drills"
_SOUND = "('passed', 'refused as intended')"
_NOT_PASSED_SINCE = f"""not exists (
    select 1 from {_DRILLS} as l
    where l.database = d.database and l.scenario = d.scenario and l.is_sync = d.is_sync and l.is_embedded = d.is_embedded
        and l.began_at > d.began_at and l.verdict in {_SOUND}
)"""


def listed(lake: Lake, limit: int) -> list[dict[str, Any]]:
    """The newest drills, for scripts."""
    rows = lake.query(
        f"""
        select drill, gameday, database, primary_region as "primary", standby_region as standby, scenario, is_sync as sync,
            is_negative_control as negative_control, verdict, rto_s, rpo_s, client_outage_s, failback_s, lost_writes,
            in_doubt_writes, acked_writes, deficiencies, bundle
        from {_DRILLS} order by began_at desc limit {limit:d}
        """
    )
    return [row | {"deficiencies": _lines(row["deficiencies"])} for row in rows.to_pylist()]


def _lines(text: str | None) -> list[str]:
    return text.splitlines() if text else []


def with_runbook(lake: Lake, drill: str | None) -> str:
    """The bundle of a drill, or of the newest one that failed over and back; `BadInput` where there is none."""
    rows = lake.query(
        f"""
        select bundle from {_DRILLS}
        where bundle is not null and case when $1 is null then failback_s is not null else drill = $1 end
        order by began_at desc limit 1
        """,
        [drill],
    ).to_pylist()
    if not rows:
        raise BadInput(
            f"drill {drill}: found none of that name with evidence, allowed: one of greenops gameday list"
            if drill
            else "found no drill that failed over and back, allowed: after `greenops gameday run --scenario kill`"
        )
    return str(rows[0]["bundle"])


def held_months(lake: Lake, declared: GameDays) -> set[str]:
    """Months whose GameDay was held: within a week of its day, and to its end, which is the negative control."""
    rows = lake.query(
        f"select gameday, began_at from {_DRILLS} where is_negative_control and verdict <> 'aborted' and gameday <> 'ad hoc'"
    ).to_pylist()
    return {row["gameday"] for row in rows if calendar.is_of(declared, row["gameday"], row["began_at"])}


def newest_drill(lake: Lake) -> datetime | None:
    """When the newest drill of a database began that came to its end."""
    [row] = lake.query(
        f"select max(began_at) as at from {_DRILLS} where verdict <> 'aborted' and not is_negative_control and scenario <> 'restore'"
    ).to_pylist()
    return row["at"]  # type: ignore[no-any-return]


def newest(lake: Lake, limit: int = 20) -> pa.Table:
    """The newest drills, for people."""
    return lake.query(
        f"""
        select strftime(began_at, '%Y-%m-%d %H:%M') as began, case when is_negative_control then 'negative control' else scenario end as scenario,
            primary_region || ' -> ' || standby_region as direction, is_sync as sync, round(rto_s, 2) as rto_s, round(rpo_s, 2) as rpo_s,
            lost_writes, verdict
        from {_DRILLS} order by began_at desc limit {limit:d}
        """
    )


def fresh(lake: Lake, declared: GameDays, now: datetime) -> Measurement:
    """The age of the newest second copy."""
    [row] = lake.query(
        "select max(taken_at) as taken_at, arg_max(struct_pack(region := region), taken_at).region as region, arg_max(snapshot, taken_at) as snapshot from recovery_copies"
    ).to_pylist()
    taken = row["taken_at"]
    return Measurement(
        check="recovery/replica:fresh",
        # A copy in the home goes with the home, however young it is.
        measured=None if taken is None or row["region"] is None else (now - taken).total_seconds() / 60,
        target=declared.replica.rpo_minutes,
        comparison="<=",
        unit="minutes",
        detail=f"{row['snapshot']} in {row['region'] or 'the home itself'}" if taken else "no second copy was taken",
        missing=None
        if taken and row["region"]
        else "a second place (GREENOPS_REPLICA_URL)"
        if taken
        else "a second copy",
    )


def directions(lake: Lake, now: datetime) -> Measurement:
    """J4.1: directions between two areas in which a failover and its failback were drilled, health checks made before."""
    rows = lake.query(
        f"""
        select d.primary_region || ' -> ' || d.standby_region as direction, p.residency as here, s.residency as there, count(*)::bigint as drills
        from {_DRILLS} as d
        join regions as p on p.region = d.primary_region
        join regions as s on s.region = d.standby_region
        where d.began_at >= $1 and d.verdict = 'passed' and not d.is_negative_control and d.scenario <> 'restore'
            and d.failback_s is not null and d.health_checks >= 5 and p.residency <> s.residency
        group by all order by 1
        """,
        [now - WINDOW],
    ).to_pylist()
    ways = {(row["here"], row["there"]) for row in rows}
    return Measurement(
        check="recovery/gameday:directions",
        measured=float(max((1 + ((b, a) in ways) for a, b in ways), default=0)),
        target=2,
        comparison="==",
        unit="directions",
        detail="; ".join(f"{row['direction']}: {row['drills']} drills" for row in rows) or "none in the last 35 days",
        figures={row["direction"]: row["drills"] for row in rows},
    )


def rto(lake: Lake, declared: GameDays, now: datetime) -> Measurement:
    """J4.2: the longest recovery time of the window. A failover that never came back lasts until its like passes."""
    found = _distribution(lake, "rto_s", now)
    target = declared.objectives.rto_minutes
    [never] = lake.query(
        f"""
        select min(d.began_at) as since, min(d.drill) as drill from {_DRILLS} as d
        where not d.is_negative_control and d.verdict = 'failed' and d.rto_s is null and d.scenario not in ('restore', 'corrupt-standby')
            and {_NOT_PASSED_SINCE}
        """
    ).to_pylist()
    worst = found["worst"]
    if never["since"] is not None:
        worst = max(worst or 0.0, (now - never["since"]).total_seconds())
    return Measurement(
        check="recovery/gameday:rto",
        measured=None if worst is None else worst / 60,
        target=target,
        comparison="<=",
        unit="minutes",
        detail=(f"drill {never['drill']} never came back; " if never["drill"] else "")
        + _said(found, "from fault to first write elsewhere"),
        missing=None if worst is not None else "a drill that failed over in the last 35 days",
        figures=_figures(found),
    )


def rpo(lake: Lake, declared: GameDays, now: datetime) -> Measurement:
    """J4.2: the longest span of acknowledged writes that a drill of the window has lost."""
    found = _distribution(lake, "rpo_s", now)
    worst = found["worst"]
    return Measurement(
        check="recovery/gameday:rpo",
        measured=worst,
        target=declared.objectives.rpo_seconds,
        comparison="<=",
        unit="seconds",
        detail=_said(found, "of acknowledged writes lost"),
        missing=None if worst is not None else "a drill whose survivors were looked at in the last 35 days",
        figures=_figures(found)
        | {"lost writes": int(found["lost"] or 0), "acknowledged writes": int(found["acked"] or 0)},
    )


def sound(lake: Lake, now: datetime) -> Measurement:
    """Drills that failed or were killed and were not passed since (same database, scenario and replication), or have no evidence."""
    rows = lake.query(
        f"""
        select d.drill, d.scenario, d.database, d.verdict, coalesce(d.deficiencies, case when d.bundle is null then 'its evidence is not filed' end) as deficiencies
        from {_DRILLS} as d
        where d.began_at <= $1 and (
            d.bundle is null
            or not d.is_negative_control and d.verdict not in {_SOUND}
            and {_NOT_PASSED_SINCE}
        )
        order by d.began_at
        """,
        [now],
    ).to_pylist()
    first = rows[0] if rows else None
    return Measurement(
        check="recovery/gameday:sound",
        measured=float(len(rows)),
        target=0,
        comparison="==",
        unit="drills",
        detail=f"{first['drill']} ({first['scenario']}, {first['database']}) {first['verdict']}: {'; '.join(_lines(first['deficiencies']))}"
        if first
        else "each drill passed, or its like did since, and has its evidence",
    )


def can_fail(lake: Lake, now: datetime) -> Measurement:
    """The newest negative control of the window: it must have missed its objective, or these drills prove nothing."""
    rows = lake.query(
        f"""
        select drill, verdict, rpo_s, rpo_objective_s, lost_writes from {_DRILLS}
        where is_negative_control and began_at >= $1 order by began_at desc limit 1
        """,
        [now - WINDOW],
    ).to_pylist()
    newest = rows[0] if rows else None
    if newest is None:
        detail = "no negative control was run in the last 35 days"
    elif newest["verdict"] == "missed as intended":
        detail = f"drill {newest['drill']} lost {newest['lost_writes']:,} writes on purpose: {newest['verdict']}"
    else:
        detail = f"drill {newest['drill']} has shown no loss: {newest['verdict']}"
    return Measurement(
        check="recovery/gameday:can_fail",
        # Of a control that broke off, no second of loss is shown.
        measured=None if newest is None else newest["rpo_s"] if newest["verdict"] == "missed as intended" else 0.0,
        target=newest["rpo_objective_s"] if newest else 10.0,
        comparison=">=",
        unit="seconds of loss shown",
        detail=detail,
        missing=None if newest else "a negative control",
    )


def held(lake: Lake, declared: GameDays, now: datetime) -> Measurement:
    """J4.4: months that went by without a GameDay, of the last twelve, since the first drill on this home."""
    [first] = lake.query(f"select min(began_at) as at from {_DRILLS} where verdict <> 'aborted'").to_pylist()
    since = first["at"]
    months = sorted(held_months(lake, declared))
    gaps = calendar.missed(declared, months, since, now) if since is not None else []
    dry = [d.name for d in declared.databases if d.clusters is not None and d.clusters.mode == "dry-run"]
    looked = f"; only looked at, as their mode is dry-run: {', '.join(dry)}" if dry else ""
    return Measurement(
        check="recovery/gameday:held",
        measured=float(len(gaps)) if since is not None else None,
        target=0,
        comparison="==",
        unit="months missed",
        detail=f"no GameDay in {', '.join(gaps)}{looked}"
        if gaps
        else f"held: {', '.join(months[-12:]) or 'ad hoc drills only, no month is over yet'}{looked}",
        missing=None if since is not None else "a first drill",
        figures={"held": len(months), "next": f"{calendar.coming(declared, now, 1)[0][0]:%Y-%m-%d}"},
    )


def restored(lake: Lake, now: datetime) -> Measurement:
    """What was wrong with the newest restore of this platform into an empty home; a missed RTO or RPO is such a thing."""
    rows = lake.query(
        f"""
        select drill, verdict, rto_s, rto_objective_s, rpo_s, rpo_objective_s, deficiencies from {_DRILLS}
        where scenario = 'restore' and began_at >= $1 order by began_at desc limit 1
        """,
        [now - timedelta(days=400)],
    ).to_pylist()
    newest = rows[0] if rows else None
    wrong = _lines(newest["deficiencies"]) if newest else []
    if newest and newest["verdict"] != "passed" and not wrong:
        wrong = [str(newest["verdict"])]
    figures: dict[str, float | int | str] = {}
    if newest:
        known = {"RTO s": newest["rto_s"], "RTO objective s": newest["rto_objective_s"], "RPO s": newest["rpo_s"]}
        figures = {
            name: value
            for name, value in (known | {"RPO objective s": newest["rpo_objective_s"]}).items()
            if value is not None
        }
    return Measurement(
        check="recovery/gameday:restored",
        measured=float(len(wrong)) if newest else None,
        target=0,
        comparison="==",
        unit="deficiencies",
        detail="; ".join([f"drill {newest['drill']}: {newest['verdict']}", *wrong])
        if newest
        else "no restore has been drilled",
        missing=None if newest else "a drill of the scenario restore",
        figures=figures,
    )


def _distribution(lake: Lake, column: str, now: datetime) -> dict[str, Any]:
    """`worst` of the window; `n`, `p50`, `p95`, `maximum` of all drills of databases."""
    [row] = lake.query(
        f"""
        select
            max({column}) filter (where began_at >= $1) as worst,
            count({column}) filter (where began_at >= $1)::bigint as recent,
            count({column})::bigint as n,
            quantile_cont({column}, 0.5) as p50,
            quantile_cont({column}, 0.95) as p95,
            max({column}) as maximum,
            sum(lost_writes)::bigint as lost,
            sum(acked_writes)::bigint as acked
        from {_DRILLS} where not is_negative_control and scenario <> 'restore'
        """,
        [now - WINDOW],
    ).to_pylist()
    return dict(row)


def _said(found: dict[str, Any], what: str) -> str:
    if not found["n"]:
        return "no drill yet"
    return f"seconds {what}, {found['n']} drills: median {found['p50']:.2f}, 95th percentile {found['p95']:.2f}, longest {found['maximum']:.2f}"


def _figures(found: dict[str, Any]) -> dict[str, float | int | str]:
    named = {
        "drills of the last 35 days": "recent",
        "drills": "n",
        "median s": "p50",
        "95th percentile s": "p95",
        "longest s": "maximum",
    }
    return {name: found[key] for name, key in named.items() if found[key] is not None}
