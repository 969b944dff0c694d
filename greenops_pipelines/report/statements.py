"""What a tenant cost: a statement of a month, made from rows of that tenant alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from greenops_pipelines.report import pages
from greenops_pipelines.report.finops_figures import Row, text, within
from greenops_pipelines.report.periods import Period

_SPLITS = {
    "effective_cost": "in proportion to what each costs directly",
    "even": "evenly",
    "fixed": "by fixed shares",
}


@dataclass(frozen=True)
class Statement:
    """What a tenant's statement says; nothing in it is anybody else's."""

    tenant: str
    period: Period
    totals: Sequence[Row]
    direct: Sequence[Row]
    shared: Sequence[Row]
    units: Sequence[Row]
    carbon: Row
    carbon_services: Sequence[Row]

    @property
    def is_sample(self) -> bool:
        """Whether it is made of sample bills."""
        return any(row["is_sample"] for row in self.totals)


def file_name(tenant: str) -> str:
    """A name for a tenant's files: its own, where no other tenant's could be taken for it, else what is left of it and a digest.

    Some disks hold `Acme` and `acme` for the same.
    """
    plain = re.sub(r"[^a-z0-9._-]+", "-", tenant.lower()).strip(".-")[:60]
    is_own = plain == tenant and not re.search(r"-[0-9a-f]{8}$", plain)
    return plain if is_own else f"{plain or 'tenant'}-{hashlib.sha256(tenant.encode()).hexdigest()[:8]}"


def statement(connection: duckdb.DuckDBPyConnection, period: Period, tenant: str) -> Statement:
    """The figures of one tenant's month, by the views of `TABLES`."""
    given = {"tenant": tenant, "first": period.first, "last_day": period.last}
    now, before = within(period), within(period.before())

    def rows(sql: str) -> list[Row]:
        used = {name: value for name, value in given.items() if f"${name}" in sql}
        found: list[Row] = connection.sql(sql, params=used).to_arrow_table().to_pylist()
        return found

    return Statement(
        tenant=tenant,
        period=period,
        totals=rows(
            f"""
            select n.*, b.effective as before, 100 * (n.effective - b.effective)::double / nullif(b.effective::double, 0) as change_pct
            from (
                select currency, sum(effective_cost) as effective, bool_or(is_sample) as is_sample,
                    coalesce(sum(effective_cost) filter (where allocated_method_id <> ''), 0) as shared
                from cost_allocated_monthly where tenant = $tenant and {now} group by all
            ) as n
            left join (
                select currency, sum(effective_cost) as effective from cost_allocated_monthly
                where tenant = $tenant and {before} group by all
            ) as b on n.currency = b.currency
            order by 1 desc
            """
        ),
        direct=rows(
            f"""
            select service, provider, currency, sum(effective_cost) as effective_cost from cost_allocated_monthly
            where tenant = $tenant and {now} and allocated_method_id = ''
            group by all order by currency desc, effective_cost desc, service
            """
        ),
        # Neither the ratio nor the service of what is split: by the one everybody else's cost, by the other their services
        # could be told.
        shared=rows(
            f"""
            select allocated_method_id, provider, currency, sum(effective_cost) as effective_cost,
                any_value(json_extract_string(allocated_method_details, '$.Elements[0].UsageUnit')) as split
            from cost_allocated_monthly
            where tenant = $tenant and {now} and allocated_method_id <> ''
            group by all order by currency desc, effective_cost desc, allocated_method_id
            """
        ),
        units=rows(
            """
            select unit, service, currency, sum(quantity) as quantity, sum(effective_cost)::double / nullif(sum(quantity), 0) as unit_cost,
                count(distinct day) as days, bool_or(is_sample) as is_sample
            from cost_units_daily where tenant = $tenant and day between $first and $last_day
            group by unit, service, currency having sum(quantity) > 0 and sum(effective_cost) <> 0 order by 1, 2, 3 desc
            """
        ),
        carbon=rows(
            f"""
            select sum(operational_kg) + coalesce(sum(embodied_kg) filter (where is_covered), 0) as total_kg,
                100 * coalesce(sum(energy_kwh) filter (where is_covered), 0) / nullif(sum(energy_kwh), 0) as covered_pct,
                coalesce(bool_or(is_sample), false) as is_sample
            from cost_charge_carbon where tenant = $tenant and {now}
            """
        )[0],
        carbon_services=rows(
            f"""
            select service, region, sum(energy_kwh) as energy_kwh,
                sum(operational_kg) + coalesce(sum(embodied_kg) filter (where is_covered), 0) as total_kg,
                100 * coalesce(sum(energy_kwh) filter (where is_covered), 0) / nullif(sum(energy_kwh), 0) as covered_pct
            from cost_charge_carbon where tenant = $tenant and {now} group by all order by total_kg desc nulls last, service, region
            """
        ),
    )


def write_statement(connection: duckdb.DuckDBPyConnection, path: Path, found: Statement, made_at: str) -> None:
    pages.put_text(path, pages.render("statement.html.j2", s=found, made_at=made_at, exact=text, splits=_SPLITS))
    pages.put_rows(
        connection,
        path,
        f"""
        select '{found.period.name}' as period, tenant, case when allocated_method_id = '' then service else '' end as service, provider, currency,
            allocated_method_id, sum(effective_cost)::decimal(38, 12) as effective_cost, bool_or(is_sample) as is_sample
        from cost_allocated_monthly where tenant = $tenant and {within(found.period)} group by all order by all
        """,
        {"tenant": found.tenant},
    )
