"""The carbon report: one self-contained HTML file, figures from the marts by SQL.

The total stands in the file as a `<data>` element too, so that a check (or anyone) can read it back and hold it
against the mart's rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.report import pages
from greenops_pipelines.report.scorecard import counts, scorecard

FILE_NAME = "carbon.html"
LONGEST_DAYS = 366
_DAYS_SHOWN_SINGLY = 70
_TOTAL = re.compile(r'<data id="(total_kg|first_day|last_day)" value="([^"]*)"')


@dataclass(frozen=True)
class Report:
    """Where the report is, and its figures."""

    path: Path
    figures: Mapping[str, float | int | str]


def write_report(lake: Lake, folder: Path, now: datetime) -> Report:
    """Render the `LONGEST_DAYS` days up to the last one with covered emissions, and put the file into `folder` whole."""
    data = _figures(lake)
    card = scorecard(lake, now)
    html = pages.render(
        "carbon.html.j2",
        **data,
        card=card.to_pylist(),
        verdicts=counts(card),
        made_at=now.strftime("%Y-%m-%d %H:%M UTC"),
    )
    path = pages.put_text(folder / FILE_NAME, html)
    total = data["total"]
    figures = {
        "total kgCO2e": round(total["total_kg"] or 0.0, 3),
        "of it embodied kgCO2e": round(total["embodied_kg"] or 0.0, 3),
        "energy kWh": round(total["energy_kwh"] or 0.0, 1),
        "period": f"{total['first_day']} to {total['last_day']}",
        "data": "sample data" if total["is_sample"] else "real data",
    }
    return Report(path, figures)


def reconciliation(lake: Lake, folder: Path) -> Measurement:
    """The rendered total against the sum of the mart's rows over the rendered period."""
    path = folder / FILE_NAME
    found = dict(_TOTAL.findall(path.read_text(encoding="utf-8"))) if path.exists() else {}
    missing = "an emission in the period" if found and not found.get("first_day") else None
    if not found:
        missing = f"{FILE_NAME}, which is not there"
    difference = None
    if missing is None:
        period = [date.fromisoformat(found["first_day"]), date.fromisoformat(found["last_day"])]
        rows = lake.query("select sum(total_kg) as kg from emissions_daily where day between ? and ?", period)
        difference = abs(float(found["total_kg"]) - (rows["kg"][0].as_py() or 0.0))
    return Measurement(
        check="report/carbon:reconciled",
        measured=difference,
        target=1e-6,
        comparison="<=",
        unit="kgCO2e difference",
        detail=f"the report says {found.get('total_kg') or 'nothing'} kgCO2e",
        missing=missing,
    )


def _figures(lake: Lake) -> dict[str, Any]:
    with lake.connect() as connection:
        connection.execute(
            f"""
            create temp table shown as
            with last as (select max(day) as day from emissions_daily where covered_hours > 0)

            select e.* from emissions_daily as e cross join last as l
            where e.day > l.day - {LONGEST_DAYS} and e.day <= l.day
            """
        )

        def rows(sql: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
            return found

        def by(column: str) -> list[dict[str, Any]]:
            return rows(
                f"""
                select {column} as name, sum(energy_kwh) as energy_kwh, sum(operational_kg) as operational_kg,
                    sum(covered_embodied_kg) as embodied_kg, sum(total_kg) as total_kg,
                    100 * sum(total_kg) / nullif((select sum(total_kg) from shown), 0) as share_pct
                from shown group by all order by total_kg desc
                """
            )

        total = rows(
            """
            select sum(total_kg) as total_kg, sum(operational_kg) as operational_kg, sum(covered_embodied_kg) as embodied_kg,
                sum(energy_kwh) as energy_kwh, sum(covered_energy_kwh) as covered_kwh, sum(uncovered_hours)::bigint as uncovered_hours,
                min(day) as first_day, max(day) as last_day, count(distinct day) as days,
                coalesce(bool_or(is_sample), false) as is_sample,
                (select any_value(provider) from carbon_intensity) as provider,
                (select any_value(source) from resource_usage) as source
            from shown
            """
        )[0]
        days = total["days"] or 0
        width = 1 if days <= _DAYS_SHOWN_SINGLY else 7
        bars = rows(
            f"""
            select min(day) as day, sum(operational_kg) as operational_kg, sum(covered_embodied_kg) as embodied_kg,
                sum(total_kg) as total_kg
            from shown group by (day - (select min(day) from shown)) // {width} order by 1
            """
        )
        return {
            "total": total,
            "bars": bars,
            "bar_days": width,
            "highest": max((bar["total_kg"] or 0.0 for bar in bars), default=0.0),
            "services": by("service"),
            "tenants": by("tenant"),
            "regions": by("region"),
            "sci": rows(
                """
                select service,
                    1000 * sum(operational_kg + covered_embodied_kg) / nullif(sum(covered_requests), 0) as sci,
                    1000 * sum(operational_kg) / nullif(sum(covered_requests), 0) as operational
                from sci_daily where day between (select min(day) from shown) and (select max(day) from shown)
                group by all order by sci desc
                """
            ),
            "avoided": rows(
                f"""
                select tenant, region, home_region, sum(settled_jobs)::bigint as jobs, sum(unsettled_jobs)::bigint as waiting,
                    sum(scope3_location_based_kg) as emitted_kg, sum(at_home_at_once_kg) as home_kg,
                    sum(avoided_kg) as avoided_kg, sum(expected_avoided_kg) as expected_kg
                from avoided_emissions_monthly
                where month > (select max(month) from avoided_emissions_monthly) - {LONGEST_DAYS}
                group by all having sum(settled_jobs + unsettled_jobs) > 0 order by avoided_kg desc nulls last, tenant, region
                """
            ),
            "grids": rows(
                """
                select zone, signal = 'marginal' as is_marginal, avg(carbon_intensity_g_per_kwh) as mean, min(carbon_intensity_g_per_kwh) as low,
                    max(carbon_intensity_g_per_kwh) as high, 100.0 * avg(is_estimated::integer) as estimated_pct
                from carbon_intensity
                where day between (select min(day) from shown) and (select max(day) from shown)
                group by all order by mean
                """
            ),
            "factors": rows("select factor, value, unit, source, vintage from emission_factors order by factor"),
        }
