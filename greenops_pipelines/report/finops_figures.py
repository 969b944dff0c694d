"""The figures of a FinOps report, by SQL over the marts. Not here: how they look.

A month is a billing period, so that its sums are those of the invoices; a week is the days of its charges. Money is decimal
and has a currency; sums of two currencies do not exist. Shared costs are split by the month, so that a week shows them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import duckdb

from greenops_pipelines.lake import Lake
from greenops_pipelines.report.periods import Kind, Period, containing

Row = dict[str, Any]
MOVERS = 8
"""Movers shown per currency."""

TABLES = (
    "cost_charges", "cost_daily", "cost_monthly", "cost_allocated_monthly", "cost_charge_carbon", "cost_commitments_monthly",
    "cost_units_daily", "cost_anomalies_daily", "cost_forecasts_daily", "cost_files", "cost_reconciliation", "cost_budgets", "sci_daily",
)  # fmt: skip
"""What a report reads."""

_UNITS = """
select service, unit, currency, sum(quantity) as quantity, sum(effective_cost) as effective_cost,
    sum(effective_cost)::double / nullif(sum(quantity), 0) as unit_cost, count(distinct day) as days,
    bool_or(is_sample) as is_sample
from cost_units_daily where {where} group by service, unit, currency having sum(quantity) > 0 order by 1, 2, 3
"""


@dataclass(frozen=True)
class Figures:
    """Everything that a report says about a period."""

    period: Period
    is_partial: bool
    """Whether its bills do not reach its end."""
    as_of: date | None
    """Last day that bills cover whole."""
    totals: Sequence[Row]
    """Per currency: billed, effective, before (effective), change_pct, charges, is_sample."""
    days: Sequence[Row]
    breakdowns: Mapping[str, Sequence[Row]]
    tenants: Sequence[Row]
    movers: Sequence[Row]
    anomalies: Sequence[Row]
    allocation: Sequence[Row]
    unallocated: Sequence[Row]
    commitments: Sequence[Row]
    budgets: Sequence[Row]
    outlook: Sequence[Row]
    outlook_days: Sequence[Row]
    units: Sequence[Row]
    carbon: Mapping[str, Sequence[Row]]
    carbon_total: Row
    files: Sequence[Row]
    stages: Sequence[Row]

    @property
    def is_sample(self) -> bool:
        """Whether any of the money is sample data."""
        return any(row["is_sample"] for row in self.totals)


_REACH = """
    select currency, as_of from (
        select currency, as_of, max(as_of) over () as newest
        from (select currency, max(as_of) as as_of from cost_forecasts_daily where scope = '' group by all)
    ) where as_of >= date_trunc('month', newest) - interval 1 month
"""
"""How far the bills of each currency reach. One that had no charge in the month before or since holds up nobody."""


def charged(lake: Lake, kind: Kind) -> tuple[list[Period], list[Period]]:
    """The periods that have a charge: those that the bills cover whole, and those that they do not, each in order."""
    with lake.connect(["cost_charges", "cost_forecasts_daily"]) as connection:
        ((as_of,),) = connection.sql(f"select min(as_of) from ({_REACH})").fetchall()
        column = "billing_period" if kind == "month" else "charge_period_start::date"
        days = connection.sql(f"select distinct {column} from cost_charges").fetchall()
    known = sorted({containing(kind, day) for (day,) in days})
    whole = [period for period in known if as_of is not None and period.last <= as_of]
    return whole, known[len(whole) :]


def gather(connection: duckdb.DuckDBPyConnection, period: Period) -> Figures:
    """The figures of `period` by the views of `TABLES`; without a charge in it, `totals` is empty."""
    return _Asked(connection, period).figures()


def within(period: Period, day: str = "day") -> str:
    """The SQL condition of a charge that belongs to a period. A billing period counts in the month that it begins in."""
    if period.kind == "month":
        return f"date_trunc('month', billing_period) = date '{period.first}'"
    return f"{day} between date '{period.first}' and date '{period.last}'"


class _Asked:
    def __init__(self, connection: duckdb.DuckDBPyConnection, period: Period) -> None:
        self.connection = connection
        self.period = period
        self.before = period.before()
        self.as_of: date | None = self.rows(f"select min(as_of) as d from ({_REACH})")[0]["d"]
        # A period under way is held against as many days of the one before.
        self.is_partial = self.as_of is None or self.as_of < period.last
        known = (self.as_of - period.first).days + 1 if self.as_of is not None and self.is_partial else period.days
        self.until = period.first + timedelta(days=max(known, 0)) if self.is_partial else period.end
        cut = self.before.first + timedelta(days=max(known, 0)) if self.is_partial else self.before.end
        days = f"day < date '{self.until}'" if self.is_partial else "true"
        days_before = f"day < date '{cut}'" if self.is_partial else "true"
        connection.execute(f"create or replace temp view shown as select * from cost_daily where {within(period)}")
        connection.execute(f"create or replace temp view compared as select * from shown where {days}")
        connection.execute(
            f"create or replace temp view earlier as select * from cost_daily where {within(self.before)} and {days_before}"
        )

    def rows(self, sql: str) -> list[Row]:
        found: list[Row] = self.connection.sql(sql).to_arrow_table().to_pylist()
        return found

    def span(self, day: str = "day") -> str:
        """The condition of a day of it."""
        return f"{day} between date '{self.period.first}' and date '{self.period.last}'"

    def figures(self) -> Figures:
        month = containing("month", self.period.last)
        return Figures(
            period=self.period,
            is_partial=self.is_partial,
            as_of=self.as_of,
            totals=self.totals(),
            days=self.rows(
                "select day, currency, provider, sum(effective_cost)::double as effective_cost from shown group by all order by 1, 2, 3"
            ),
            breakdowns={
                name: self.breakdown(column)
                for name, column in (("provider", "provider"), ("service", "service"), ("region", "region"))
            },
            tenants=self.tenants(),
            movers=self.movers(),
            anomalies=self.anomalies(),
            allocation=self.allocation(),
            unallocated=self.unallocated(),
            commitments=self.rows(
                f"""
                select commitment_discount_id, commitment_discount_name, currency, purchased, used, unused,
                    100 * used::double / nullif((used + unused)::double, 0) as used_pct
                from cost_commitments_monthly where month = date '{month.first}' order by unused desc, 1
                """
            ),
            budgets=self.forecasts(f"month = date '{month.first}' and as_of <= date '{self.period.last}'"),
            outlook=self.forecasts("month = (select max(month) from cost_forecasts_daily)"),
            outlook_days=self.rows(
                """
                select as_of, currency, scope, budget::double as budget, spent::double as spent, expected, low, high from cost_forecasts_daily
                where scope = '' and month = (select max(month) from cost_forecasts_daily) and expected is not null order by 1, 2
                """
            ),
            units=self.units(),
            carbon={
                name: self.carbon(column)
                for name, column in (("service", "service"), ("tenant", "tenant"), ("region", "region"))
            },
            carbon_total=self.carbon_total(),
            files=self.files(),
            stages=self.stages(),
        )

    def totals(self) -> list[Row]:
        return self.rows(
            """
            select s.currency, s.billed, s.effective, s.charges, s.is_sample, e.effective as before,
                100 * (coalesce(c.effective, 0) - e.effective)::double / nullif(e.effective::double, 0) as change_pct
            from (
                select currency, sum(billed_cost) as billed, sum(effective_cost) as effective, sum(charges)::bigint as charges,
                    bool_or(is_sample) as is_sample
                from shown group by all
            ) as s
            left join (select currency, sum(effective_cost) as effective from earlier group by all) as e on s.currency = e.currency
            left join (select currency, sum(effective_cost) as effective from compared group by all) as c on s.currency = c.currency
            order by s.currency desc
            """
        )

    def breakdown(self, column: str) -> list[Row]:
        return self.rows(
            f"""
            with sums as (
                select currency, {column} as name, sum(billed_cost) as billed, sum(effective_cost) as effective from shown group by all
            )

            select *, 100 * effective::double / nullif(sum(effective) over (partition by currency)::double, 0) as share_pct
            from sums order by currency desc, effective desc, name
            """
        )

    def tenants(self) -> list[Row]:
        if self.period.kind == "month":
            return self.rows(
                f"""
                select currency, tenant as name, coalesce(sum(effective_cost) filter (where allocated_method_id = ''), 0) as direct,
                    coalesce(sum(effective_cost) filter (where allocated_method_id <> ''), 0) as shared, sum(effective_cost) as effective
                from cost_allocated_monthly where {within(self.period)}
                group by all order by currency desc, effective desc, name
                """
            )
        return self.rows(
            f"""
            select billing_currency as currency, coalesce(tenant, '') as name, coalesce(sum(effective_cost) filter (where shared_by is null), 0) as direct,
                coalesce(sum(effective_cost) filter (where shared_by is not null), 0) as shared, sum(effective_cost) as effective
            from cost_charges where {self.span("charge_period_start::date")}
            group by all order by currency desc, effective desc, name
            """
        )

    def movers(self) -> list[Row]:
        return self.rows(
            f"""
            with together as (
                select currency, service_name, tenant, effective_cost as now, 0 as earlier from compared
                union all
                select currency, service_name, tenant, 0, effective_cost from earlier
            ),

            moved as (
                select currency, service_name, tenant, sum(now) as effective, sum(earlier) as before, sum(now) - sum(earlier) as change
                from together where currency in (select currency from earlier) group by all
            )

            select *, 100 * change::double / nullif(before::double, 0) as change_pct from moved where change <> 0
            qualify row_number() over (partition by currency order by abs(change) desc, service_name, tenant) <= {MOVERS}
            order by currency desc, abs(change) desc, service_name, tenant
            """
        )

    def anomalies(self) -> list[Row]:
        return self.rows(
            f"""
            select since, max(day) as until, currency, provider, service_name, tenant, service, sum(effective_cost) as effective_cost,
                sum(expected_cost) as expected_cost, sum(deviation) as deviation
            from cost_anomalies_daily where is_anomaly and {self.span()}
            group by since, currency, provider, service_name, tenant, service, deviation > 0
            order by abs(sum(deviation)) desc, since
            """
        )

    def allocation(self) -> list[Row]:
        if self.period.kind == "month":
            # What could not be split, because nobody costs anything directly, is nobody's.
            return self.rows(
                f"""
                select currency, coalesce(sum(effective_cost) filter (where tenant <> '' and allocated_method_id = ''), 0) as named,
                    coalesce(sum(effective_cost) filter (where tenant <> '' and allocated_method_id <> ''), 0) as split,
                    coalesce(sum(effective_cost) filter (where tenant = ''), 0) as nobody,
                    100 * coalesce(sum(abs(effective_cost)) filter (where tenant <> ''), 0)::double
                        / nullif(sum(abs(effective_cost))::double, 0) as allocated_pct
                from cost_allocated_monthly where {within(self.period)} group by all order by 1 desc
                """
            )
        return self.rows(
            f"""
            with charges as (
                select billing_currency as currency, effective_cost, tenant is not null as is_named,
                    shared_by is not null and bool_or(tenant is not null) over (partition by billing_currency) as is_split
                from cost_charges where {self.span("charge_period_start::date")}
            )

            select currency, coalesce(sum(effective_cost) filter (where is_named), 0) as named,
                coalesce(sum(effective_cost) filter (where not is_named and is_split), 0) as split,
                coalesce(sum(effective_cost) filter (where not is_named and not is_split), 0) as nobody,
                100 * coalesce(sum(abs(effective_cost)) filter (where is_named or is_split), 0)::double
                    / nullif(sum(abs(effective_cost))::double, 0) as allocated_pct
            from charges group by all order by 1 desc
            """
        )

    def unallocated(self) -> list[Row]:
        condition = within(self.period, "charge_period_start::date")
        return self.rows(
            f"""
            select billing_currency as currency, coalesce(service_provider_name, '') as provider, coalesce(service_name, '') as service_name,
                charge_category, sum(effective_cost) as effective, count(*) as charges
            from cost_charges where tenant is null and shared_by is null and {condition}
            group by all having sum(effective_cost) <> 0 order by abs(sum(effective_cost)) desc limit 6
            """
        )

    def forecasts(self, condition: str) -> list[Row]:
        """Of each scope the newest, with how it stands; scopes without a budget are the currencies."""
        return self.rows(
            f"""
            with newest as (
                select * from cost_forecasts_daily where {condition}
                qualify row_number() over (partition by scope, currency order by as_of desc) = 1
            ),

            -- A budget that no charge was ever held against is shown too: its name, or its currency, is mistyped.
            listed as (
                select n.month, n.as_of, n.currency, n.scope, n.budget, n.spent, n.expected, n.low, n.high, n.days_left from newest as n
                union all
                select (select max(month) from newest), null, b.currency, b.name, b.amount, 0, null, null, null, null
                from cost_budgets as b
                where b.name not in (select scope from newest) and exists (select 1 from newest)
            )

            select *, 100 * spent::double / budget::double as spent_pct, 100 * expected / budget::double as expected_pct,
                case
                    when budget is null then ''
                    when spent > budget then 'over'
                    when spent = 0 and coalesce(expected, 0) = 0 then 'no such charge'
                    when days_left = 0 then 'within'
                    when expected is null then 'too little is known'
                    when expected > budget then 'expected to be over'
                    when high > budget then 'may be over'
                    else 'within'
                end as state
            from listed order by scope = '', currency desc, scope
            """
        )

    def units(self) -> list[Row]:
        before = f"day between date '{self.before.first}' and date '{self.before.last}'"
        return self.rows(
            f"""
            select n.*, e.unit_cost as before, 100 * (n.unit_cost / nullif(e.unit_cost, 0) - 1) as change_pct, c.g_per_request
            from ({_UNITS.format(where=self.span())}) as n
            left join ({_UNITS.format(where=before)}) as e on n.service = e.service and n.unit = e.unit and n.currency = e.currency
            left join (
                select service, 1000 * sum(operational_kg + covered_embodied_kg) / nullif(sum(covered_requests), 0) as g_per_request
                from sci_daily where {self.span()} group by all
            ) as c on n.service = c.service
            order by n.unit, n.service, n.currency desc
            """
        )

    def carbon(self, column: str) -> list[Row]:
        return self.rows(
            f"""
            select {column} as name, sum(energy_kwh) as energy_kwh, sum(operational_kg) as operational_kg,
                sum(embodied_kg) filter (where is_covered) as embodied_kg,
                coalesce(sum(operational_kg), 0) + coalesce(sum(embodied_kg) filter (where is_covered), 0) as total_kg,
                100 * coalesce(sum(energy_kwh) filter (where is_covered), 0) / nullif(sum(energy_kwh), 0) as covered_pct
            from cost_charge_carbon where {within(self.period, "charge_period_start::date")}
            group by all order by total_kg desc, name
            """
        )

    def carbon_total(self) -> Row:
        return self.rows(
            f"""
            select sum(operational_kg) as operational_kg, sum(embodied_kg) filter (where is_covered) as embodied_kg,
                sum(operational_kg) + coalesce(sum(embodied_kg) filter (where is_covered), 0) as total_kg, count(*) as charges, coalesce(bool_or(is_sample), false) as is_sample,
                100 * coalesce(sum(energy_kwh) filter (where is_covered), 0) / nullif(sum(energy_kwh), 0) as covered_pct
            from cost_charge_carbon where {within(self.period, "charge_period_start::date")}
            """
        )[0]

    def _periods(self) -> str:
        return "billing_period in (select billing_period from shown)"

    def files(self) -> list[Row]:
        return self.rows(
            f"""
            select name, file, billing_period, provider, currency, format, charges, billed_cost, effective_cost
            from cost_files where state = 'counts' and {self._periods()} order by billing_period, name, currency
            """
        )

    def stages(self) -> list[Row]:
        return self.rows(
            f"""
            select billing_period, currency, stage, charges, billed_cost, effective_cost, billed_difference, effective_difference
            from cost_reconciliation where {self._periods()}
            order by billing_period, currency desc, stage <> 'raw files', stage <> 'charges', stage
            """
        )


def text(value: Decimal | None) -> str:
    """A decimal in full, without zeros at its end; empty: null."""
    return "" if value is None else f"{value.normalize():f}"
