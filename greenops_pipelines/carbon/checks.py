"""What the carbon chain promises, measured: completeness, freshness, estimated share, coverage, energy balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from greenops_pipelines.carbon.provider import Provider
from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement

COMPLETENESS_TARGET_PCT = 95.0
FRESHNESS_TARGET_HOURS = 3.0
ESTIMATED_TARGET_PCT = 25.0
COVERAGE_TARGET_PCT = 99.0
FORECAST_TARGET_HOURS = 24.0
BALANCE_TARGET = 1e-9


def _one(lake: Lake, sql: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = lake.query(sql, parameters).to_pylist()
    return rows[0]


def completeness(lake: Lake, provider: Provider, zones: Sequence[str]) -> Measurement:
    """Share of the expected intervals that the lake holds with a value, from the first to the last one known.

    Expected are all intervals between the earliest and the latest over the provider's zones: a zone that stopped
    early, or never came, is short of intervals. They weigh by their length: zones may publish hours or quarters.
    """
    covered = [zone for zone in zones if provider.covers(zone)]
    found = _one(
        lake,
        """
        with bounds as (
            select min(datetime) as low, max(datetime + to_minutes(resolution_minutes)) as high
            from carbon_intensity where list_contains($zones, zone)
        ),

        per_zone as (
            select z.zone, coalesce(sum(i.resolution_minutes), 0) / 60 as hours
            from unnest($zones) as z(zone) left join carbon_intensity as i on z.zone = i.zone
            group by all
        )

        select
            (select epoch(high) - epoch(low) from bounds) / 3600 as expected_per_zone,
            sum(hours) as hours,
            arg_min(zone, hours) as worst_zone,
            min(hours) as worst_hours
        from per_zone
        """,
        {"zones": covered or [""]},
    )
    missing = sorted(set(zones) - set(covered))
    expected = (found["expected_per_zone"] or 0) * len(covered)
    return Measurement(
        check="carbon/intensity:completeness",
        measured=100.0 * found["hours"] / expected if expected else 0.0,
        target=COMPLETENESS_TARGET_PCT,
        comparison=">=",
        unit="%",
        detail=f"{found['hours']:,.10g} of {expected:,.10g} hours of {len(covered)} zones have a value",
        figures={
            "worst zone": found["worst_zone"] if covered else "none",
            "hours of the worst zone": found["worst_hours"] if covered else 0,
            "zones the provider does not have": ", ".join(missing) or "none",
            "provider": provider.name,
        },
    )


def freshness(lake: Lake, provider: Provider, zones: Sequence[str], now: datetime) -> Measurement:
    """Hours from the end of the newest interval to now, for the zone that is furthest behind.

    A source with a fixed span is measured against its own end: a file of 2022 is as fresh as it can be.
    """
    covered = [zone for zone in zones if provider.covers(zone)]
    span = provider.span()
    until = min(now, span[1]) if span else now
    rows = lake.query(
        """
        select z.zone, max(i.datetime + to_minutes(i.resolution_minutes)) as newest,
            (select min(datetime) from carbon_intensity) as oldest
        from unnest($zones) as z(zone) left join carbon_intensity as i on z.zone = i.zone
        group by all order by newest nulls first, z.zone
        """,
        {"zones": covered or [""]},
    ).to_pylist()
    empty = [row["zone"] for row in rows if row["newest"] is None]
    ages = {row["zone"]: (until - row["newest"]).total_seconds() / 3600 for row in rows if row["newest"] is not None}
    worst = max(ages.values(), default=None)
    if empty and ages:
        detail = f"no value at all for {', '.join(empty)}: behind by the whole record"
        worst = (until - rows[0]["oldest"]).total_seconds() / 3600
    elif worst is None:
        detail = "no zone has a value"
    else:
        detail = f"{next(iter(ages))} is furthest behind, measured against {until:%Y-%m-%d %H:%M} UTC" + (
            ", where the file ends" if span else ""
        )
    return Measurement(
        check="carbon/intensity:freshness",
        measured=None if worst is None else max(worst, 0.0),
        target=FRESHNESS_TARGET_HOURS,
        comparison="<=",
        unit="hours",
        detail=detail,
        missing=None if ages else "carbon intensity of any zone",
        figures={f"hours behind, {zone}": round(age, 2) for zone, age in ages.items()},
    )


def estimated_share(lake: Lake, now: datetime) -> Measurement:
    """Share of estimates among the intervals that ended more than two days ago and should be final by now.

    Intervals of which the provider does not say whether they are estimates count apart.
    """
    found = _one(
        lake,
        """
        select count(*) filter (is_estimated) as estimated, count(*) filter (is_estimated is null) as unstated,
            count(*) as intervals
        from carbon_intensity where datetime + to_minutes(resolution_minutes) <= $now - interval 48 hours
        """,
        {"now": now},
    )
    stated = found["intervals"] - found["unstated"]
    nothing = found["intervals"] == 0
    return Measurement(
        check="carbon/intensity:estimated_share",
        measured=None if nothing else 100.0 * found["estimated"] / stated if stated else 0.0,
        target=ESTIMATED_TARGET_PCT,
        comparison="<=",
        unit="%",
        detail=f"{found['estimated']} of {stated} intervals older than two days are estimates; {found['unstated']} do not say",
        missing="carbon intensity older than two days" if nothing else None,
        figures={"estimated": found["estimated"], "not stated": found["unstated"]},
    )


def forecast_horizon(lake: Lake, provider: Provider, zones: Sequence[str], now: datetime) -> Measurement:
    """Hours ahead that the newest forecast reaches, for the zone with the shortest one."""
    covered = [zone for zone in zones if provider.covers(zone)]
    rows = lake.query(
        """
        select z.zone, coalesce(epoch(max(f.datetime + to_minutes(f.resolution_minutes)) - $now) / 3600, 0) as hours
        from unnest($zones) as z(zone) left join carbon_forecast as f on z.zone = f.zone
        group by all order by hours, z.zone
        """,
        {"zones": covered or [""], "now": now},
    ).to_pylist()
    nothing = all(row["hours"] == 0 for row in rows)
    return Measurement(
        check="carbon/forecast:horizon",
        measured=None if nothing else max(rows[0]["hours"], 0.0),
        target=FORECAST_TARGET_HOURS,
        comparison=">=",
        unit="hours",
        detail="no forecast reaches beyond now" if nothing else f"{rows[0]['zone']} has the shortest forecast",
        missing=f"a current forecast by the provider {provider.name}" if nothing else None,
        figures={f"hours ahead, {row['zone']}": round(row["hours"], 1) for row in rows},
    )


def outlook_ahead(lake: Lake, zones: Sequence[str]) -> Measurement:
    """Hours ahead that something is known of, for the zone with the least; and how much of it the provider said."""
    rows = lake.query(
        """
        select z.zone, coalesce(sum(o.resolution_minutes), 0) / 60 as hours,
            count(*) filter (o.method <> 'provider') as own, count(o.zone) as intervals
        from unnest($zones) as z(zone) left join carbon_outlook as o on z.zone = o.zone
        group by all order by hours, z.zone
        """,
        {"zones": list(zones) or [""]},
    ).to_pylist()
    own, intervals = (sum(row[name] for row in rows) for name in ("own", "intervals"))
    return Measurement(
        check="carbon/outlook:ahead",
        measured=rows[0]["hours"] if intervals else None,
        target=FORECAST_TARGET_HOURS,
        comparison=">=",
        unit="hours",
        detail=f"{rows[0]['zone']} has the least; {own} of {intervals} intervals are our own forecast, not the provider's",
        missing=None if intervals else "any forecast, or a record to make one from",
        figures={"intervals not forecast by the provider": own},
    )


def forecasts_scored(lake: Lake, provider: Provider, zones: Sequence[str]) -> Measurement:
    """Zones whose forecasts have an error and a regret."""
    rows = lake.query(
        """
        select zone, min(regret_pct) as best
        from forecast_scores where horizon_hours = 24 group by zone order by zone
        """
    ).to_pylist()
    covered = [zone for zone in zones if provider.covers(zone)]
    found = [row for row in rows if row["zone"] in covered]
    return Measurement(
        check="carbon/forecast_scores:scored",
        measured=100.0 * len(found) / len(covered) if covered else None,
        target=95.0,
        comparison=">=",
        unit="%",
        detail=f"{len(found)} of {len(covered)} zones are scored a day ahead",
        missing=None if found else "a record of two weeks to score forecasts on",
        figures={
            f"regret a day ahead, {row['zone']}, %": round(row["best"], 1) for row in found if row["best"] is not None
        },
    )


def usage_residency(lake: Lake, regions: pa.Table, tenants: pa.Table) -> Measurement:
    """Usage rows of tenants bound to an area that lie outside it, or whose tenant or region is not declared.

    `regions` and `tenants` are the declarations of this moment, in the schemas of the tables of that name.
    """
    with lake.connect(["resource_usage"]) as connection:
        connection.register("declared_regions", regions)
        connection.register("declared_tenants", tenants)
        found = (
            connection.sql(
                """
                with placed as (
                    select u.tenant, u.region, t.tenant is null or r.region is null as is_undeclared,
                        t.residency <> 'any' as is_bound, r.residency is distinct from t.residency as is_elsewhere
                    from resource_usage as u
                    left join declared_tenants as t on u.tenant = t.tenant
                    left join declared_regions as r on u.region = r.region
                )

                select count(*) filter (is_bound) as bound, count(*) filter (is_undeclared) as undeclared,
                    count(*) filter (is_bound and is_elsewhere and not is_undeclared) as outside,
                    min(tenant || ' in ' || region) filter (is_undeclared or (is_bound and is_elsewhere)) as example
                from placed
                """
            )
            .to_arrow_table()
            .to_pylist()[0]
        )
    return Measurement(
        check="carbon/usage:residency",
        measured=float(found["outside"] + found["undeclared"]),
        target=0,
        comparison="==",
        unit="rows",
        detail=found["example"] or f"{found['bound']} rows of bound tenants, all inside their area",
        figures={"rows of bound tenants": found["bound"], "rows of undeclared tenants or regions": found["undeclared"]},
    )


def coverage(lake: Lake) -> Measurement:
    """Share of the energy used while the provider's record runs that has a carbon intensity.

    For a file, usage outside its own span is out of scope and counted apart. For live and sample sources usage
    before the first fetch is out of scope, and everything after it is in: a source that stops is seen.
    """
    found = _one(
        lake,
        """
        with span as (
            select min(datetime) as low,
                case when any_value(provider) = 'file' then max(datetime + to_minutes(resolution_minutes))
                else 'infinity'::timestamptz end as high
            from carbon_intensity
        ),

        scoped as (
            select e.*, s.low is null or (e.hour >= s.low and e.hour < s.high) as in_scope
            from emissions_hourly as e cross join span as s
        )

        select (select coalesce(bool_or(signal = 'marginal'), false) from carbon_intensity) as is_marginal,
            coalesce(sum(energy_kwh) filter (in_scope), 0) as energy_kwh,
            coalesce(sum(energy_kwh) filter (in_scope and not is_covered), 0) as uncovered_kwh,
            count(*) filter (in_scope and not is_covered) as uncovered_rows,
            count(*) filter (not in_scope) as outside_rows,
            coalesce(bool_or(is_sample), false) as is_sample
        from scoped
        """,
    )
    nothing = found["energy_kwh"] == 0
    return Measurement(
        check="carbon/emissions_hourly:coverage",
        # From what is missing: two sums of the same floats in another order differ in the last digit.
        measured=None if nothing else 100.0 * (1 - found["uncovered_kwh"] / found["energy_kwh"]),
        target=COVERAGE_TARGET_PCT,
        comparison=">=",
        unit="%",
        detail=f"{found['energy_kwh'] - found['uncovered_kwh']:,.1f} of {found['energy_kwh']:,.1f} kWh have a carbon intensity"
        + (
            "; the provider's is marginal, and emissions are reckoned by the average only"
            if found["is_marginal"]
            else ""
        ),
        missing="resource usage within the provider's record" if nothing else None,
        figures={
            "uncovered rows": found["uncovered_rows"],
            "rows outside the provider's record": found["outside_rows"],
            "data": "sample data" if found["is_sample"] else "real data",
        },
    )


def energy_balance(lake: Lake) -> Measurement:
    """Relative difference between the energy and rows of usage and of the mart: nothing lost, nothing doubled."""
    found = _one(
        lake,
        """
        select (select count(*) from resource_usage) as used_rows, (select count(*) from emissions_hourly) as mart_rows,
            (select coalesce(sum(requests), 0) from resource_usage) as used_requests,
            (select coalesce(sum(requests), 0) from emissions_hourly) as mart_requests,
            (select coalesce(sum(energy_kwh), 0) from emissions_hourly) as hourly_kwh,
            (select coalesce(sum(energy_kwh), 0) from emissions_daily) as daily_kwh,
            (select coalesce(sum(operational_kg), 0) from emissions_hourly) as hourly_kg,
            (select coalesce(sum(operational_kg), 0) from emissions_daily) as daily_kg
        """,
    )

    def apart(left: float, right: float) -> float:
        return abs(left - right) / max(abs(left), abs(right), 1e-12)

    pairs = {
        "rows, usage and mart": apart(found["used_rows"], found["mart_rows"]),
        "requests, usage and mart": apart(found["used_requests"], found["mart_requests"]),
        "energy, hourly and daily": apart(found["hourly_kwh"], found["daily_kwh"]),
        "emissions, hourly and daily": apart(found["hourly_kg"], found["daily_kg"]),
    }
    worst = max(pairs, key=lambda name: pairs[name])
    return Measurement(
        check="carbon/emissions_daily:energy_balance",
        measured=pairs[worst],
        target=BALANCE_TARGET,
        comparison="<=",
        unit="relative difference",
        detail=f"largest difference: {worst}; {found['daily_kwh']:,.1f} kWh, {found['daily_kg']:,.1f} kg operational",
        figures={"energy kWh": round(found["hourly_kwh"], 3), "rows": found["mart_rows"], **pairs},
    )
