"""The FinOps report and the tenants' statements: self-contained HTML, with the same sums as CSV and Parquet beside it.

`reports/finops/2026-10.html`, `.csv`, `.parquet`, and of a month `2026-10/<tenant>.html`, `.csv`, `.parquet`. Totals stand in the HTML as
`<data>` elements too, in full, so that a check (or anyone) can read them back. A statement is made from rows of one tenant alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from greenops_pipelines.cost import checks
from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import Lake, Written
from greenops_pipelines.lake.cost_tables import COST_REPORTS
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.report import pages
from greenops_pipelines.report.finops_figures import TABLES, Figures, Row, charged, gather, text, within
from greenops_pipelines.report.periods import Period, parse

FOLDER = "finops"
MONTHS = 3
"""How far back reports are made of a lake that has none yet; older ones are made by name."""
Progress = Callable[[str], None]
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


@dataclass(frozen=True)
class Made:
    """One report: where it is, what it says per currency (billed, effective), whose, and the statements beside it."""

    period: Period
    path: Path
    totals: dict[str, tuple[Decimal, Decimal]]
    statements: tuple[str, ...]
    attribution: str
    is_sample: bool


def due(lake: Lake) -> list[Period]:
    """What has to be made: the newest whole month and week, and the months under way; the two whole months before, where they were never made;
    and every period whose report does not say any more what its bills come to, or whose they are.
    """
    recorded = set(lake.query("select distinct period from cost_reports")["period"].to_pylist())
    whole, begun = charged(lake, "month")
    weeks = next((periods for periods in charged(lake, "week") if periods), [])
    found = {*whole[-1:], *begun[-MONTHS:], *weeks[-1:], *(p for p in whole[-MONTHS:] if p.name not in recorded)}
    stale = {parse(row["period"]) for row in differences(lake) if row["difference"] or row["effective_difference"]}
    made = lake.query("select period, any_value(attribution) as attribution from cost_reports group by all").to_pylist()
    with lake.connect(TABLES) as connection:
        for row in made:
            period = parse(row["period"])
            if attribution(connection, period) != row["attribution"]:
                stale.add(period)
    return sorted(found | stale)


def attribution(connection: duckdb.DuckDBPyConnection, period: Period) -> str:
    """A digest of what is whose: of a month with what is split, of a week by its charges. Empty: no charge."""
    rows = (
        f"select currency, tenant, service, provider, allocated_method_id as m, sum(effective_cost) as cost "
        f"from cost_allocated_monthly where {within(period)} group by all"
        if period.kind == "month"
        else f"select currency, tenant, service, provider, '' as m, sum(effective_cost) as cost from cost_daily where {within(period)} group by all"
    )
    ((found,),) = connection.sql(
        f"select coalesce(sha256(string_agg(to_json(r)::varchar, chr(10) order by to_json(r)::varchar)), '') from ({rows}) as r"
    ).fetchall()
    return str(found)


def differences(lake: Lake) -> list[Row]:
    """Per report and currency, what it says less what the source says: raw files for a month, charges for a week."""
    found: list[Row] = lake.query(
        """
        with said as (select period, kind, first_day, last_day, currency, billed_cost, effective_cost from cost_reports),

        months as (
            select strftime(billing_period, '%Y-%m') as period, currency, sum(billed_cost) as billed, sum(effective_cost) as effective
            from cost_files where state = 'counts' group by all
        ),

        weeks as (
            select said.period, c.billing_currency as currency, sum(c.billed_cost) as billed, sum(c.effective_cost) as effective
            from (select distinct period, first_day, last_day from said where kind = 'week') as said
            inner join cost_charges as c on c.charge_period_start::date between said.first_day and said.last_day
            group by all
        ),

        -- A currency that the report does not have at all differs by all of it.
        source as (
            select * from months where period in (select period from said where kind = 'month')
            union all
            select * from weeks
        )

        select coalesce(said.period, source.period) as period, coalesce(said.currency, source.currency) as currency,
            (coalesce(said.billed_cost, 0) - coalesce(source.billed, 0))::decimal(38, 12) as difference,
            (coalesce(said.effective_cost, 0) - coalesce(source.effective, 0))::decimal(38, 12) as effective_difference
        from said full outer join source on said.period = source.period and said.currency = source.currency
        order by 1, 2
        """
    ).to_pylist()
    return found


def reconciliation(lake: Lake, reports: Path) -> Measurement:
    """The largest difference, of any report, stage, billing period and currency: raw files = charges = marts = report.

    Reports are read back from their files, HTML and CSV, and not from what rendered them.
    """
    rows = lake.query("select * from cost_reports order by first_day, kind, currency").to_pylist()
    found: list[tuple[Decimal, str]] = []
    for path in sorted({row["file"] for row in rows}):
        of_it = [row for row in rows if row["file"] == path]
        found += _said(reports / path, of_it)
        if of_it[0]["kind"] == "month":
            found += _stated(lake, reports / path, parse(of_it[0]["period"]))
    for row in differences(lake):
        for column in ("difference", "effective_difference"):
            found.append(
                (
                    abs(row[column]),
                    f"{row['period']}, {row['currency']}: report and bills differ by {text(row[column])}",
                )
            )
    stages = lake.query("select * from cost_reconciliation").to_pylist()
    for row in stages:
        for column in ("billed_difference", "effective_difference"):
            where = f"{row['billing_period']:%Y-%m}, {row['currency']}, {row['stage']}"
            found.append((abs(row[column]), f"{where}: differs by {text(row[column])} from the raw files"))
    worst = max(found, key=lambda pair: pair[0], default=None)
    named = ", ".join(dict.fromkeys(row["period"] for row in rows))
    return Measurement(
        check="cost/report:reconciled",
        measured=None if worst is None or not rows else float(worst[0]),
        target=0,
        comparison="==",
        unit="difference",
        detail=worst[1]
        if worst and worst[0]
        else f"raw files, charges, marts and reports ({named}) agree to the last digit",
        missing=None if rows else "a report",
        figures={"reports": len({row["period"] for row in rows}), "comparisons": len(found)},
    )


def _stated(lake: Lake, path: Path, period: Period) -> list[tuple[Decimal, str]]:
    """What the statements of a month say, read back from their HTML, less what is whose by the mart."""
    whose = lake.query(
        f"select tenant, currency, sum(effective_cost) as cost from cost_allocated_monthly where {within(period)} and tenant <> '' group by all"
    ).to_pylist()
    found: list[tuple[Decimal, str]] = []
    for tenant in sorted({row["tenant"] for row in whose}):
        file = path.with_suffix("") / f"{file_name(tenant)}.html"
        said = read_back(file.read_text(encoding="utf-8")) if file.exists() else {}
        expected = {row["currency"]: row["cost"] for row in whose if row["tenant"] == tenant}
        for currency in {*said, *expected}:
            # A statement has no billed cost: invoices are not a tenant's.
            stated = said[currency][1] if currency in said else None
            difference = abs((stated or Decimal(0)) - expected.get(currency, Decimal(0)))
            missing = Decimal(1) if stated is None and not difference else Decimal(0)
            found.append(
                (difference or missing, f"{period.name}/{file.name}: {currency} differs from what is the tenant's")
            )
    return found


def _said(path: Path, rows: Sequence[Row]) -> list[tuple[Decimal, str]]:
    """What a report's files say, less what was recorded when they were made."""
    recorded = {row["currency"]: (row["billed_cost"], row["effective_cost"]) for row in rows}
    total = sum((abs(billed) for billed, _ in recorded.values()), Decimal(0)) or Decimal(1)
    if not path.exists() or not path.with_suffix(".csv").exists():
        # All of it is missing.
        return [(total, f"{path.name}, or its CSV, is not there")]
    html = read_back(path.read_text(encoding="utf-8"))
    with duckdb.connect() as connection:
        csv = {
            currency: (billed, effective)
            for currency, billed, effective in connection.execute(
                "select currency, sum(billed_cost::decimal(38, 12)), sum(effective_cost::decimal(38, 12)) "
                "from read_csv(?, all_varchar = true) group by all",
                [str(path.with_suffix(".csv"))],
            ).fetchall()
        }
    nothing = (Decimal(0), Decimal(0))
    return [
        (
            abs(said.get(currency, nothing)[n] - recorded.get(currency, nothing)[n]),
            f"{name}: {currency} differs from what was made",
        )
        for name, said in ((path.name, html), (path.with_suffix(".csv").name, csv))
        for currency in {*recorded, *said}
        for n in (0, 1)
    ]


def write_reports(
    lake: Lake,
    reports: Path,
    periods: Sequence[Period],
    now: datetime,
    version: str,
    progress: Progress = lambda name: None,
) -> list[Made]:
    """Render each period into `reports`. `BadInput` for one that never had a charge.

    One whose charges were all restated away has its report removed, and is no `Made`.
    """
    intervals = checks.intervals(lake).measured
    recorded = set(lake.query("select distinct period from cost_reports")["period"].to_pylist())
    with lake.connect(TABLES) as connection:
        write = partial(_write, connection, reports / FOLDER, now, version, intervals, progress)
        made = [write(period, period.name in recorded) for period in periods]
    return [one for one in made if one is not None]


def record(lake: Lake, reports: Path, made: Sequence[Made], now: datetime, asked: Sequence[Period] = ()) -> Written:
    """Rows of COST_REPORTS for the reports that were made, read back from their files.

    Of `asked` periods that have none any more, the rows are taken away.
    """
    source = lake.query("select any_value(source) as source from cost_charges")["source"][0].as_py()
    rows: list[Row] = []
    for report in made:
        content = report.path.read_bytes()
        for currency, (billed, effective) in sorted(read_back(content.decode()).items()):
            rows.append(
                {
                    "source": source,
                    "period": report.period.name,
                    "kind": report.period.kind,
                    "first_day": report.period.first,
                    "last_day": report.period.last,
                    "currency": currency,
                    "billed_cost": billed,
                    "effective_cost": effective,
                    "file": report.path.relative_to(reports).as_posix(),
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "bytes": len(content),
                    "statements": len(report.statements),
                    "attribution": report.attribution,
                    "made_at": now,
                }
            )
    gone = {period.name for period in asked} - {one.period.name for one in made} if source is not None else set()
    partitions = [{"source": source, "period": name} for name in sorted(gone)]
    return lake.write(COST_REPORTS, pa.Table.from_pylist(rows, schema=COST_REPORTS.schema), partitions)


def read_back(html: str) -> dict[str, tuple[Decimal, Decimal]]:
    """What a report says it comes to, per currency: billed and effective."""
    reader = _Totals()
    reader.feed(html)
    reader.close()
    return {
        currency: (measures.get("billed_cost", Decimal(0)), measures.get("effective_cost", Decimal(0)))
        for currency, measures in reader.found.items()
    }


def file_name(tenant: str) -> str:
    """A name for a tenant's files: its own, where no other tenant's could be taken for it, else what is left of it and a digest.

    Some disks hold `Acme` and `acme` for the same.
    """
    plain = re.sub(r"[^a-z0-9._-]+", "-", tenant.lower()).strip(".-")[:60]
    is_own = plain == tenant and not re.search(r"-[0-9a-f]{8}$", plain)
    return plain if is_own else f"{plain or 'tenant'}-{hashlib.sha256(tenant.encode()).hexdigest()[:8]}"


def statement(connection: duckdb.DuckDBPyConnection, period: Period, tenant: str) -> Statement:
    """The figures of one tenant's month, by the views of `TABLES`."""
    given = {"tenant": tenant, "first": period.first, "before": period.before().first, "last_day": period.last}

    def rows(sql: str) -> list[Row]:
        used = {name: value for name, value in given.items() if f"${name}" in sql}
        found: list[Row] = connection.sql(sql, params=used).to_arrow_table().to_pylist()
        return found

    return Statement(
        tenant=tenant,
        period=period,
        totals=rows(
            """
            select n.*, b.effective as before, 100 * (n.effective - b.effective)::double / nullif(b.effective::double, 0) as change_pct
            from (
                select currency, sum(effective_cost) as effective, bool_or(is_sample) as is_sample,
                    coalesce(sum(effective_cost) filter (where allocated_method_id <> ''), 0) as shared
                from cost_allocated_monthly where tenant = $tenant and date_trunc('month', billing_period) = $first group by all
            ) as n
            left join (
                select currency, sum(effective_cost) as effective from cost_allocated_monthly
                where tenant = $tenant and date_trunc('month', billing_period) = $before group by all
            ) as b on n.currency = b.currency
            order by 1 desc
            """
        ),
        direct=rows(
            """
            select service, provider, currency, sum(effective_cost) as effective_cost from cost_allocated_monthly
            where tenant = $tenant and date_trunc('month', billing_period) = $first and allocated_method_id = ''
            group by all order by currency desc, effective_cost desc, service
            """
        ),
        # Neither the ratio nor the service of what is split: by the one everybody else's cost, by the other their services
        # could be told.
        shared=rows(
            """
            select allocated_method_id, provider, currency, sum(effective_cost) as effective_cost,
                any_value(json_extract_string(allocated_method_details, '$.Elements[0].UsageUnit')) as split
            from cost_allocated_monthly
            where tenant = $tenant and date_trunc('month', billing_period) = $first and allocated_method_id <> ''
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
            """
            select sum(operational_kg) + coalesce(sum(embodied_kg) filter (where is_covered), 0) as total_kg,
                100 * coalesce(sum(energy_kwh) filter (where is_covered), 0) / nullif(sum(energy_kwh), 0) as covered_pct,
                coalesce(bool_or(is_sample), false) as is_sample
            from cost_charge_carbon where tenant = $tenant and date_trunc('month', billing_period) = $first
            """
        )[0],
        carbon_services=rows(
            """
            select service, region, sum(energy_kwh) as energy_kwh,
                sum(operational_kg) + coalesce(sum(embodied_kg) filter (where is_covered), 0) as total_kg,
                100 * coalesce(sum(energy_kwh) filter (where is_covered), 0) / nullif(sum(energy_kwh), 0) as covered_pct
            from cost_charge_carbon where tenant = $tenant and date_trunc('month', billing_period) = $first group by all order by total_kg desc nulls last, service, region
            """
        ),
    )


def _write(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    now: datetime,
    version: str,
    intervals: float | None,
    progress: Progress,
    period: Period,
    is_known: bool,
) -> Made | None:
    figures = gather(connection, period)
    if not figures.totals and is_known:
        for old in (folder / f"{period.name}.html", *(folder / period.name).glob("*")):
            for suffix in _SUFFIXES:
                old.with_suffix(suffix).unlink(missing_ok=True)
        return None
    if not figures.totals:
        raise BadInput(f"period: found {period.name}, which has no charge; allowed: {_periods(connection)}")
    made_at = now.strftime("%Y-%m-%d %H:%M UTC")
    tenants = sorted({row["name"] for row in figures.tenants if row["name"]}) if period.kind == "month" else []
    html = pages.render(
        "finops.html.j2",
        f=figures,
        charts=_charts(figures),
        interval_pct=intervals,
        statements=len(tenants),
        version=version,
        made_at=made_at,
        exact=text,
    )
    path = pages.put_text(folder / f"{period.name}.html", html)
    _data(
        connection,
        path,
        f"""
        select '{period.name}' as period, provider, service_name, service, tenant, region, charge_category, currency,
            sum(billed_cost)::decimal(38, 12) as billed_cost, sum(effective_cost)::decimal(38, 12) as effective_cost,
            sum(charges)::bigint as charges, sum(operational_kg) as operational_kg, bool_or(is_sample) as is_sample
        from cost_daily where {within(period)} group by all order by all
        """,
    )
    progress(f"{FOLDER}/{path.name}")
    wanted = {path.with_suffix("") / f"{file_name(tenant)}{suffix}" for tenant in tenants for suffix in _SUFFIXES}
    for tenant in tenants:
        target = path.with_suffix("") / f"{file_name(tenant)}.html"
        _statement(connection, target, statement(connection, period, tenant), made_at)
        progress(f"{FOLDER}/{period.name}/{file_name(tenant)}.html")
    # Of a tenant whose charges were restated away, no statement is left that says otherwise.
    for old in path.with_suffix("").glob("*"):
        if old not in wanted and old.suffix in _SUFFIXES:
            old.unlink()
    totals = {row["currency"]: (row["billed"], row["effective"]) for row in figures.totals}
    return Made(period, path, totals, tuple(tenants), attribution(connection, period), figures.is_sample)


_SUFFIXES = (".html", ".csv", ".parquet")


def _statement(connection: duckdb.DuckDBPyConnection, path: Path, found: Statement, made_at: str) -> None:
    pages.put_text(path, pages.render("statement.html.j2", s=found, made_at=made_at, exact=text, splits=_SPLITS))
    _data(
        connection,
        path,
        f"""
        select '{found.period.name}' as period, tenant, case when allocated_method_id = '' then service else '' end as service, provider, currency,
            allocated_method_id, sum(effective_cost)::decimal(38, 12) as effective_cost, bool_or(is_sample) as is_sample
        from cost_allocated_monthly where tenant = $tenant and {within(found.period)} group by all order by all
        """,
        {"tenant": found.tenant},
    )


def _data(
    connection: duckdb.DuckDBPyConnection, path: Path, sql: str, parameters: dict[str, Any] | None = None
) -> None:
    """The rows as Parquet, and as CSV, where a text that a spreadsheet would take for a formula begins with an apostrophe."""
    import pyarrow.parquet

    rows = connection.sql(sql, params=parameters).to_arrow_table()
    pages.put(path.with_suffix(".parquet"), lambda temporary: pyarrow.parquet.write_table(rows, temporary))
    listed = ", ".join(
        f"case when regexp_matches({name}, '^[=+@\\-\\t\\r]') then '''' || {name} else {name} end as {name}"
        if pa.types.is_string(kind) or pa.types.is_large_string(kind)
        else name
        for name, kind in zip(rows.schema.names, rows.schema.types, strict=True)
    )
    connection.register("rows", rows)
    safe = connection.sql(f"select {listed} from rows")
    pages.put(path.with_suffix(".csv"), lambda temporary: safe.write_csv(str(temporary), header=True))
    connection.unregister("rows")


def _charts(figures: Figures) -> dict[str, list[Any]]:
    from markupsafe import Markup

    from greenops_pipelines.report import finops_charts as charts

    # What vl-convert draws is markup; every text in it has been escaped there.
    daily = [
        charts.daily(figures.days, row["currency"], figures.period.first, figures.period.last) for row in figures.totals
    ]
    ahead = sorted({row["currency"] for row in figures.outlook_days}, reverse=True)
    return {
        "daily": [Markup(svg) for svg in daily],  # noqa: S704
        "outlook": [Markup(charts.outlook(figures.outlook_days, currency)) for currency in ahead],  # noqa: S704
    }


def _periods(connection: duckdb.DuckDBPyConnection) -> str:
    found = connection.sql(
        "select distinct strftime(billing_period, '%Y-%m') as p from cost_charges order by 1"
    ).fetchall()
    return f"{', '.join(name for (name,) in found)}, and their weeks" if found else "nothing, until bills are there"


class _Totals(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, Decimal]] = {}

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "data" and given.get("class") == "total":
            measures = self.found.setdefault(given.get("data-currency") or "", {})
            measures[given.get("data-measure") or ""] = Decimal(given.get("value") or "0")
