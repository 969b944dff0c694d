"""What placement promises, measured: all work placed, residency, bound and gap, the saving that is proven."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from greenops_pipelines.carbon.regions import Region, Tenant
from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.placement.ledger import Ledger
from greenops_pipelines.placement.plan import CARBON_AWARE
from greenops_pipelines.placement.residency import violations

PLACED_TARGET_PCT = 100.0
GAP_TARGET_PCT = 2.0
SAVING_TARGET_PCT = 20.0
REGRET_TARGET_PCT = 20.0


def placed(lake: Lake, refused: int) -> Measurement:
    """J2.2. Share of the work waiting that a carbon-aware policy gave a region and an hour.

    Not counted as placed: what ran by fallback since nothing was known, what found no room, and the `refused`, which may
    run nowhere under today's declarations.
    """
    found = _one(
        lake,
        """
        select count(*) as rows, count(*) filter (state = 'planned' and list_contains($aware, policy)) as placed,
            count(*) filter (state = 'fallback') as fallback, count(*) filter (state = 'late') as late,
            count(*) filter (not list_contains($aware, policy)) as unaware,
            coalesce(sum(avoided_g), 0) / 1000 as avoided_kg, coalesce(sum(baseline_g), 0) / 1000 as baseline_kg
        from placement_plan
        """,
        {"aware": sorted(CARBON_AWARE)},
    )
    asked = found["rows"] + refused
    return Measurement(
        check="placement/plan:placed",
        measured=100.0 * found["placed"] / asked if asked else None,
        target=PLACED_TARGET_PCT,
        comparison="==",
        unit="%",
        detail=f"{found['placed']} of {asked} pieces of work have a region and an hour by a carbon-aware policy",
        missing=None if asked else "work to place: no workload is due, nothing was submitted",
        figures={
            "avoided, kgCO2e expected": round(found["avoided_kg"], 3),
            "at home at once, kgCO2e": round(found["baseline_kg"], 3),
            "without a forecast": found["fallback"],
            "without room": found["late"],
            "may run nowhere": refused,
            "under a policy that does not look at the grid": found["unaware"],
        },
    )


def gap(lake: Lake) -> Measurement:
    """How far the newest plan is above its own lower bound at most."""
    found = _one(
        lake, "select max(plan_gap_pct) as gap, any_value(method) as method, count(*) as rows from placement_plan"
    )
    return Measurement(
        check="placement/plan:gap",
        measured=found["gap"],
        target=GAP_TARGET_PCT,
        comparison="<=",
        unit="%",
        detail=f"{found['rows']} pieces of work; found by: {found['method'] or 'nothing to plan'}",
        missing=None if found["rows"] else "work to place",
    )


def deadlines(lake: Lake) -> Measurement:
    """Work that the newest plan lets end after its deadline."""
    found = _one(
        lake,
        """
        select count(*) as rows, count(*) filter (end_at is null or end_at > deadline) as late,
            min(key) filter (end_at is null or end_at > deadline) as example
        from placement_plan
        """,
    )
    return Measurement(
        check="placement/plan:deadlines",
        measured=float(found["late"]),
        target=0,
        comparison="==",
        unit="pieces of work",
        detail=found["example"] or f"{found['rows']} pieces of work, all end in time",
    )


def plan_residency(lake: Lake, regions: Sequence[Region], tenants: Sequence[Tenant]) -> Measurement:
    """Planned runs of bound tenants outside their area: every run, not only the first of each piece of work."""
    rows = lake.query(
        """
        select tenant, run->>'region' as region
        from (select tenant, unnest(from_json(runs, '["JSON"]')) as run from placement_plan)
        """
    )
    return _residency("placement/plan:residency", rows, regions, tenants, "planned runs")


def dispatch_residency(lake: Lake, regions: Sequence[Region], tenants: Sequence[Tenant]) -> Measurement:
    """J2.3. Every dispatch there ever was, held against today's declarations."""
    rows = lake.query("select tenant, region from placement_dispatches")
    return _residency("placement/dispatches:residency", rows, regions, tenants, "dispatches")


def exactly_once(lake: Lake, ledger: Ledger, now: datetime) -> Measurement:
    """J2.6. Of the work whose hour has come, the share that was launched, at most one at a time and completed at most once.

    From the ledger, over all time. Not launched is what was closed as missed, and what the plan has for more than
    `LAUNCH_MINUTES` ago and no later hour is left for. A dry run launches nothing: it is counted apart, and so is what
    a person cancelled.
    """
    attempts = ledger.attempts()
    with duckdb.connect() as connection:
        connection.register("attempts", attempts)
        launched, missed, twice, overlapping, rendered, refused, late, example = _row(connection, _EXACTLY_ONCE)
    rows = lake.query(_OVERDUE, {"now": now, "before": now - timedelta(minutes=LAUNCH_MINUTES)})["key"].to_pylist()
    waiting = sorted(set(rows) - ledger.taken(rows))
    asked = launched + missed + len(waiting)
    wrong = missed + twice + overlapping + len(waiting)
    example = example or (waiting[0] if waiting else None)
    return Measurement(
        check="placement/dispatches:exactly_once",
        measured=100.0 * (asked - wrong) / asked if asked else None,
        target=100,
        comparison="==",
        unit="%",
        detail=f"{asked - wrong} of {asked} pieces of work were launched once"
        + (f"; not: {example}" if example else ""),
        missing=None if asked else "work whose hour has come" + (" (only dry runs)" if rendered else ""),
        figures={
            "missed": missed,
            "due and not launched": len(waiting),
            "completed more than once": twice,
            "two attempts at once": overlapping,
            "ended after their deadline": late,
            "rendered only (dry run)": rendered,
            "attempts refused": refused,
        },
    )


LAUNCH_MINUTES = 15

_EXACTLY_ONCE = """
with timed as (
    select *, lag(coalesce(ended_at, 'infinity'::timestamptz)) over (partition by key order by attempt) as before
    from attempts where outcome not in ('refused', 'cancelled')
),

by_key as (
    select key, count(*) filter (attempt > 0 and outcome <> 'rendered') as made,
        count(*) filter (outcome = 'missed') as missed, count(*) filter (outcome = 'succeeded') as completed,
        bool_or(coalesce(before > began_at, false)) as at_once, bool_or(outcome = 'rendered') as rendered,
        bool_or(outcome = 'succeeded' and ended_at > deadline) as late
    from timed group by key
)

select count(*) filter (made > 0), count(*) filter (missed > 0 and made = 0),
    count(*) filter (completed > 1), count(*) filter (at_once and completed <= 1), count(*) filter (rendered),
    (select count(*) from attempts where outcome = 'refused'), count(*) filter (late),
    min(key) filter (missed > 0 or completed > 1 or at_once)
from by_key
"""

_OVERDUE = """
select key from placement_plan where start_at < $before and deadline - (end_at - start_at) < $now
"""


def settled(lake: Lake, now: datetime) -> Measurement:
    """Of the work that succeeded more than three days ago, the share whose saving is settled by actuals."""
    found = _one(
        lake,
        """
        select count(*) filter (state in ('settled', 'awaiting actuals') and ended_at < $before) as ended,
            count(*) filter (state = 'settled' and ended_at < $before) as settled,
            count(*) filter (state = 'awaiting actuals') as awaiting, count(*) filter (state = 'open') as open,
            count(*) filter (state = 'failed') as failed, count(*) filter (state = 'not run') as not_run,
            min(key) filter (state = 'awaiting actuals' and ended_at < $before) as example
        from placement_settlements
        """,
        {"before": now - timedelta(days=SETTLED_DAYS)},
    )
    return Measurement(
        check="placement/settlements:settled",
        measured=100.0 * found["settled"] / found["ended"] if found["ended"] else None,
        target=100,
        comparison="==",
        unit="%",
        detail=f"{found['settled']} of {found['ended']} are settled"
        + (f"; not: {found['example']}" if found["example"] else ""),
        missing=None if found["ended"] else f"work that succeeded more than {SETTLED_DAYS} days ago",
        figures={
            "awaiting actuals": found["awaiting"],
            "open": found["open"],
            "failed": found["failed"],
            "not run": found["not_run"],
        },
    )


SETTLED_DAYS = 3


def avoided(lake: Lake, now: datetime) -> Measurement:
    """What the settled work of the last 35 days avoided, % of what it would have emitted at home at once."""
    found = _one(
        lake,
        """
        select count(*) as jobs, sum(avoided_g) / 1000 as avoided, sum(counterfactual_g) / 1000 as at_home,
            sum(expected_avoided_g) / 1000 as expected, sum(wasted_g) / 1000 as wasted,
            count(*) filter (avoided_g < 0) as worse, count(*) filter (is_estimated) as estimated,
            any_value(provider) as provider
        from placement_settlements where state = 'settled' and ended_at >= $since
        """,
        {"since": now - timedelta(days=35)},
    )
    is_measured = bool(found["jobs"]) and found["at_home"] > 0
    sample = "; sample data" if found["provider"] == "sample" else ""
    return Measurement(
        check="placement/settlements:avoided",
        measured=100.0 * found["avoided"] / found["at_home"] if is_measured else None,
        target=0,
        comparison=">=",
        unit="%",
        detail=f"{found['avoided']:.3f} of {found['at_home']:.3f} kgCO2e avoided by {found['jobs']} pieces of work{sample}"
        if is_measured
        else "",
        missing=None if is_measured else "settled work of the last 35 days",
        figures={
            "expected, kgCO2e": round(found["expected"] or 0.0, 3),
            "thrown away by failures and losses, kgCO2e": round(found["wasted"] or 0.0, 3),
            "made worse": found["worse"],
            "by estimated actuals": found["estimated"],
        },
    )


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    [found] = connection.sql(sql).fetchall()
    return found


def _residency(
    check: str, rows: pa.Table, regions: Sequence[Region], tenants: Sequence[Tenant], what: str
) -> Measurement:
    found = violations(rows, regions, tenants)
    bound = {tenant.tenant for tenant in tenants if tenant.residency != "any"}
    of_bound = sum(name in bound for name in rows["tenant"].to_pylist())
    return Measurement(
        check=check,
        measured=float(found.total),
        target=0,
        comparison="==",
        unit="dispatches" if what == "dispatches" else "runs",
        detail=found.example or f"{rows.num_rows} {what}, {of_bound} of them of bound tenants, all inside their area",
        figures={f"{what} of bound tenants": of_bound, "of undeclared tenants or regions": found.undeclared},
    )


def saving(lake: Lake) -> Measurement:
    """J2.5. The saving of the promise's scenario, everything included."""
    row = _promise(lake, "optimal")
    if row is None:
        return Measurement(
            check="placement/proof:saving", measured=None, target=SAVING_TARGET_PCT, comparison=">=", unit="%",
            detail="", missing=_NO_RECORD,
        )  # fmt: skip
    halves = "" if row["sides"] == "eu, us" else f"; only the half {row['sides']} has intensity"
    return Measurement(
        check="placement/proof:saving",
        measured=row["saving_pct"],
        target=SAVING_TARGET_PCT,
        comparison=">=",
        unit="%",
        detail=(
            f"{row['weeks']} weeks of {row['provider']} intensity, 95 % within {row['saving_low_pct']:.1f} to "
            f"{row['saving_high_pct']:.1f} % ({row['interval_of']} resampled); no plan saves more than "
            f"{row['bound_saving_pct']:.1f} %{halves}"
        ),
        figures={
            "interval, low %": round(row["saving_low_pct"], 2),
            "interval, high %": round(row["saving_high_pct"], 2),
            "without manufacture %": round(row["saving_without_embodied_pct"], 2),
            "manufacture in the total %": round(row["embodied_share_pct"], 2),
            "bound %": round(row["bound_saving_pct"], 2),
            "jobs": row["jobs"],
            "provider": row["provider"] + (" (sample data)" if row["provider"] == "sample" else ""),
        },
    )


def regret(lake: Lake) -> Measurement:
    """Of the saving that perfect foresight could reach, what was missed."""
    row = _promise(lake, "optimal")
    return Measurement(
        check="placement/proof:regret",
        measured=None if row is None else row["regret_pct"],
        target=REGRET_TARGET_PCT,
        comparison="<=",
        unit="%",
        detail="" if row is None else f"{row['saving_pct']:.1f} of {row['bound_saving_pct']:.1f} % were saved",
        missing=_NO_RECORD if row is None else None,
    )


def proof_gap(lake: Lake) -> Measurement:
    """How far the clairvoyant plan of the proof is above the bound at most."""
    row = _promise(lake, "clairvoyant")
    return Measurement(
        check="placement/proof:gap",
        measured=None if row is None else row["gap_pct"],
        target=GAP_TARGET_PCT,
        comparison="<=",
        unit="%",
        detail="" if row is None else str(row["note"]),
        missing=_NO_RECORD if row is None else None,
    )


def proof_limits(lake: Lake) -> Measurement:
    """Late jobs, jobs outside their area and overfull regions, over all scenarios of the proof."""
    found = _one(
        lake,
        """
        select count(*) as rows, coalesce(sum(deadline_misses), 0) as late,
            coalesce(sum(residency_violations), 0) as outside, coalesce(sum(capacity_exceeded), 0) as overfull
        from placement_proof
        """,
    )
    return Measurement(
        check="placement/proof:limits",
        measured=float(found["late"] + found["outside"] + found["overfull"]) if found["rows"] else None,
        target=0,
        comparison="==",
        unit="violations",
        detail=f"{found['late']} late, {found['outside']} outside their area, {found['overfull']} overfull slots",
        missing=None if found["rows"] else _NO_RECORD,
    )


_NO_RECORD = "23 days of hourly intensity for eu-central-1 or us-east-1"


def _promise(lake: Lake, policy: str) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = lake.query(
        "select * from placement_proof where scenario = 'the promise' and policy = ?", [policy]
    ).to_pylist()
    return rows[0] if rows else None


def _one(lake: Lake, sql: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = lake.query(sql, parameters).to_pylist()
    return rows[0]
