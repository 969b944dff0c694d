"""What the error-budget ledger proves: that everything is counted, how much of it is known, and that it adds up.

Not here: counting, and the burn alerts (`burning.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement

FRESH_MINUTES = 20.0
"""Counted is every five minutes."""
KNOWN_PERCENT = 95.0
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
    """Share of the declared SLOs, by their ids, that were counted on the newest day that is over."""
    rows = lake.query(
        f"""
        with counted as ({_COUNTED}),
        newest as (select max(day) as day from counted where known_minutes + gap_minutes >= 1440)
        select slo_id, fault, counted.day from counted join newest on counted.day = newest.day
        """,
        [_source(lake)],
    ).to_pylist()
    check = "slo/days:counted"
    if not rows or not declared:
        return Measurement(check, None, 100, "==", "%", "no day is over", "a whole day of samples")
    faults = {row["slo_id"]: row["fault"] for row in rows}
    lacking = [f"{slo}: {faults.get(slo, 'no row')}" for slo in sorted(declared) if faults.get(slo, "no row")]
    share = 100 * (len(declared) - len(lacking)) / len(declared)
    detail = "; ".join(lacking[:3]) or f"{len(declared)} SLOs on {rows[0]['day']}"
    figures = {"SLOs": len(declared), "not counted": len(lacking)}
    return Measurement(check, share, 100, "==", "%", detail, figures=figures)


def known(lake: Lake) -> Measurement:
    """Known share of the minutes of the rolling period, of the SLO of which least is known."""
    rows = lake.query(
        """
        select slo_id, 100 * known_minutes / nullif(known_minutes + gap_minutes, 0) as share, gap_minutes, unplaced_total
        from slo_error_budget where day = (select max(day) from slo_error_budget)
        order by share, slo_id
        """
    ).to_pylist()
    check = "slo/error_budget:known"
    if not rows:
        return Measurement(check, None, KNOWN_PERCENT, ">=", "%", "the ledger is empty", _NOTHING)
    least = rows[0]
    figures = {
        "SLOs with gaps": sum(row["gap_minutes"] > 0 for row in rows),
        "minutes of the longest sum of gaps": int(max(row["gap_minutes"] for row in rows)),
        "events over gaps, in no budget": float(sum(row["unplaced_total"] for row in rows)),
    }
    detail = f"least is known of {least['slo_id']}: {least['gap_minutes']:.0f} minutes are gaps"
    return Measurement(check, float(least["share"] or 0), KNOWN_PERCENT, ">=", "%", detail, figures=figures)


def reconciled(lake: Lake) -> Measurement:
    """Budgets of the newest day against the days' totals, which were summed when they were counted."""
    rows = lake.query(
        f"""
        with counted as ({_COUNTED})
        select b.slo_id, b.total, b.bad, sum(d.total) as day_total, sum(d.bad) as day_bad
        from slo_error_budget as b
        join slo_definitions as s on s.slo_id = b.slo_id
        left join counted as d on d.slo_id = b.slo_id and d.day between b.day - (s.period_days::int - 1) and b.day
        where b.day = (select max(day) from slo_error_budget)
        group by all
        having not (
            coalesce(abs(b.total - sum(d.total)) <= 1e-9 * greatest(b.total, 1), b.total is null and sum(d.total) is null)
            and coalesce(abs(b.bad - sum(d.bad)) <= 1e-9 * greatest(b.total, 1), b.bad is null and sum(d.bad) is null)
        )
        order by b.slo_id
        """,
        [_source(lake)],
    ).to_pylist()
    check = "slo/error_budget:reconciled"
    [count] = lake.query(
        "select count(*) as slos from slo_error_budget where day = (select max(day) from slo_error_budget)"
    ).to_pylist()
    if not count["slos"]:
        return Measurement(check, None, 0, "==", "SLOs", "the ledger is empty", _NOTHING)
    differ = [f"{r['slo_id']}: {r['total']:g} by minute, {r['day_total'] or 0:g} by day" for r in rows if r["total"]]
    detail = "; ".join(differ[:3]) or f"{count['slos']} budgets are the sums of their days"
    return Measurement(check, float(len(rows)), 0, "==", "SLOs", detail)


def told(lake: Lake) -> Measurement:
    """Incidents of which nobody could be told."""
    rows = lake.query("select incident, told from slo_incidents order by opened_at desc").to_pylist()
    lost = [row for row in rows if any(word in row["told"] for word in ("refused", "unknown", "too late"))]
    detail = "; ".join(f"{row['incident']}: {row['told']}" for row in lost[:3]) or f"{len(rows)} incidents"
    return Measurement(
        "slo/incidents:told", float(len(lost)), 0, "==", "incidents", detail, figures={"incidents": len(rows)}
    )


def _source(lake: Lake) -> str:
    return lake.selections["slo_days"]["source"]
