"""What the error-budget ledger proves: that everything is counted, how much of it is known, and that it adds up.

Not here: counting, and the burn alerts (`burning.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.slo.incidents import untold

FRESH_MINUTES = 20.0
"""Counted is every five minutes."""
KNOWN_PERCENT = 95.0
SILENT_MINUTES = 60
"""An SLO of which nothing is known for longer, while its source goes on, is lost. The longest gap of the sample is 40 minutes."""
CLAMPED_PERCENT = 1.0
"""Bad events that had to be cut off, of those that were counted: more of them are a budget that is too good by as much."""
_NOTHING = "minutes in the ledger"
_COUNTED = """
    select * from slo_days_history where source = $1
    qualify row_number() over (partition by slo_id, day order by observed_at desc) = 1
"""
"""How each day was counted last. The plain view shows the last total that was known, and so no fault."""


def fresh(lake: Lake, now: datetime) -> Measurement:
    """How old the newest sample is."""
    [row] = lake.query("select max(time) as newest, any_value(source) as source from metric_samples").to_pylist()
    check = "slo/metric_samples:fresh"
    if row["newest"] is None:
        return Measurement(check, None, FRESH_MINUTES, "<=", "minutes", "no sample is there", "samples")
    age = (now - row["newest"]) / timedelta(minutes=1)
    return Measurement(check, max(age, 0.0), FRESH_MINUTES, "<=", "minutes", f"newest of the source {row['source']}")


def usable(lake: Lake) -> Measurement:
    """How many samples can be used."""
    [row] = lake.query(
        """
        select sum(samples)::bigint as kept, sum(unusable_samples)::bigint as unusable,
            sum(duplicate_samples)::bigint as twice,
            count(distinct series_id) as series,
            any_value(metric) filter (where unusable_samples > 0) as example
        from metric_series
        """
    ).to_pylist()
    check = "slo/metric_series:usable"
    if not row["kept"]:
        return Measurement(check, None, 99.9, ">=", "%", "no sample is there", "samples")
    share = 100 * row["kept"] / (row["kept"] + row["unusable"])
    detail = f"NaN or infinite, for example of {row['example']}" if row["unusable"] else "none was NaN or infinite"
    figures = {
        "series": row["series"],
        "samples": row["kept"],
        "NaN or infinite": row["unusable"],
        "twice": row["twice"],
    }
    return Measurement(check, share, 99.9, ">=", "%", detail, figures=figures)


def counted(lake: Lake, declared: Sequence[str]) -> Measurement:
    """Share of the declared SLOs, by their ids, that were counted on the newest day that is over.

    Warnings of that day and of the one that is not over change no share, and are named.
    """
    rows = lake.query(
        f"""
        with counted as ({_COUNTED}),
        newest as (select max(day) as day from counted where known_minutes + gap_minutes >= 1440)
        select slo_id, fault, warning, counted.day, counted.day = newest.day as is_over
        from counted join newest on counted.day >= newest.day
        order by slo_id, counted.day
        """,
        [_source(lake)],
    ).to_pylist()
    check = "slo/days:counted"
    over = [row for row in rows if row["is_over"]]
    if not over or not declared:
        return Measurement(check, None, 100, "==", "%", "no day is over", "a whole day of samples")
    faults = {row["slo_id"]: row["fault"] for row in over}
    lacking = [f"{slo}: {faults.get(slo, 'no row')}" for slo in sorted(declared) if faults.get(slo, "no row")]
    warnings = {row["slo_id"]: row for row in rows if row["warning"] and row["slo_id"] in declared}
    named = [f"warning: {slo} on {row['day']}: {row['warning']}" for slo, row in warnings.items()]
    share = 100 * (len(declared) - len(lacking)) / len(declared)
    said = lacking[:3] or [f"{len(declared)} SLOs on {over[0]['day']}"]
    figures = {"SLOs": len(declared), "not counted": len(lacking), "SLOs with a warning": len(warnings)}
    return Measurement(check, share, 100, "==", "%", "; ".join(said + named[:3]), figures=figures)


def known(lake: Lake) -> Measurement:
    """Known share of the minutes of the rolling period, of the SLO of which least is known.

    What nobody read is as little known as a gap. Of an SLO that has been silent for over an hour, 0 % is known: of its last hour.
    """
    rows = lake.query(
        """
        with last as (select slo_id, max(minute) as minute from slo_minutes where total is not null group by slo_id),
        newest as (select max(minute) as minute from slo_minutes)
        select b.slo_id, b.gap_minutes, b.unread_minutes, b.unplaced_total,
            100 * b.known_minutes / nullif(b.known_minutes + b.gap_minutes + b.unread_minutes, 0) as share,
            date_diff('minute', last.minute, newest.minute) as silent_minutes,
            strftime((last.minute + interval 1 minute) at time zone 'UTC', '%Y-%m-%dT%H:%MZ') as silent_since
        from slo_error_budget as b cross join newest left join last on last.slo_id = b.slo_id
        where b.day = (select max(day) from slo_error_budget)
        order by share nulls first, b.slo_id
        """
    ).to_pylist()
    check = "slo/error_budget:known"
    if not rows:
        return Measurement(check, None, KNOWN_PERCENT, ">=", "%", "the ledger is empty", _NOTHING)
    silent = [row for row in rows if row["silent_minutes"] is not None and row["silent_minutes"] > SILENT_MINUTES]
    least = rows[0]
    figures = {
        "SLOs with gaps": sum(row["gap_minutes"] > 0 for row in rows),
        "minutes of the longest sum of gaps": int(max(row["gap_minutes"] for row in rows)),
        "minutes that nobody read, at most": int(max(row["unread_minutes"] for row in rows)),
        "SLOs that are silent": len(silent),
        "events over gaps, in no budget": float(sum(row["unplaced_total"] for row in rows)),
    }
    if silent:
        worst = max(silent, key=lambda row: row["silent_minutes"])
        detail = (
            f"nothing is known of {worst['slo_id']} since {worst['silent_since']}, "
            f"{worst['silent_minutes']} minutes before the newest minute; {len(silent)} of {len(rows)} SLOs are silent"
        )
        return Measurement(check, 0.0, KNOWN_PERCENT, ">=", "%", detail, figures=figures)
    detail = f"least is known of {least['slo_id']}: {least['gap_minutes']} minutes are gaps, {least['unread_minutes']} nobody read"
    return Measurement(check, float(least["share"] or 0), KNOWN_PERCENT, ">=", "%", detail, figures=figures)


def reconciled(lake: Lake) -> Measurement:
    """SLOs whose budget is not the sum of its days as they were counted, or lacks bad events that were cut off.

    Compared is each SLO's newest period of whole days: that of a day that is not over begins in the middle of one.
    """
    rows = lake.query(
        f"""
        with counted as ({_COUNTED}),
        periods as (
            select b.slo_id, b.day, b.total, b.bad, s.period_days::int as days
            from slo_error_budget as b join slo_definitions as s on s.slo_id = b.slo_id
            where b.through = (b.day + 1)::timestamptz or b.first_day > b.day - s.period_days::int
            qualify row_number() over (partition by b.slo_id order by b.day desc) = 1
        )
        select p.slo_id, p.day, p.total, p.bad, sum(d.total) as day_total, sum(d.bad) as day_bad,
            coalesce(sum(d.clamped), 0) as clamped
        from periods as p
        left join counted as d on d.slo_id = p.slo_id and d.day between p.day - (p.days - 1) and p.day
        group by all
        order by p.slo_id
        """,
        [_source(lake)],
    ).to_pylist()
    check = "slo/error_budget:reconciled"
    if not rows:
        return Measurement(check, None, 0, "==", "SLOs", "no period of whole days is there", _NOTHING)
    differ = {
        row["slo_id"]: f"{row['slo_id']}: {_events(row, '')} by minute, {_events(row, 'day_')} by day"
        for row in rows
        if not all(_is_same(row[name], row[f"day_{name}"], row["total"]) for name in ("total", "bad"))
    }
    cut = {
        row[
            "slo_id"
        ]: f"{row['slo_id']}: {row['clamped']:g} bad events were cut off, beside {row['bad'] or 0:g} that count"
        for row in rows
        if row["clamped"] > CLAMPED_PERCENT / 100 * (row["bad"] or 0)
    }
    said = [*differ.values()][:3] + [*cut.values()][:3]
    detail = "; ".join(said) or f"{len(rows)} budgets are the sums of their days"
    figures = {
        "SLOs that differ": len(differ),
        "SLOs with bad events cut off": len(cut),
        "bad events cut off": float(sum(row["clamped"] for row in rows)),
    }
    return Measurement(check, float(len(differ | cut)), 0, "==", "SLOs", detail, figures=figures)


def _is_same(by_minute: float | None, by_day: float | None, total: float | None) -> bool:
    """To 1e-9 of all events: DuckDB adds in the order in which its threads deliver."""
    if by_minute is None or by_day is None:
        return by_minute is by_day
    return abs(by_minute - by_day) <= 1e-9 * max(total or 0, 1)


def _events(row: Mapping[str, Any], prefix: str) -> str:
    bad, total = row[f"{prefix}bad"], row[f"{prefix}total"]
    return "nothing" if total is None else f"{bad:.12g} of {total:.12g}"


def told(lake: Lake, now: datetime) -> Measurement:
    """Incidents of which somebody was not told: open ones, and those of the last 30 days."""
    rows = lake.query("select incident, state, closed_at, told from slo_incidents order by opened_at desc").to_pylist()
    lost = untold(rows, now)
    detail = "; ".join(f"{incident}: {said}" for incident, said in list(lost.items())[:3]) or f"{len(rows)} incidents"
    return Measurement(
        "slo/incidents:told", float(len(lost)), 0, "==", "incidents", detail, figures={"incidents": len(rows)}
    )


def _source(lake: Lake) -> str:
    return lake.selections["slo_days"]["source"]
