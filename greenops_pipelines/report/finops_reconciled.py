"""What reports say against what they are made of; and which of them have to be made anew. Not here: how they are made."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import duckdb

from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.report.finops_figures import TABLES, Row, charged, text, within
from greenops_pipelines.report.periods import Period, parse
from greenops_pipelines.report.statements import file_name

MONTHS = 3
"""How far back reports are made of a lake that has none yet; older ones are made by name."""


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

    Reports are read back from their files, HTML, CSV and Parquet, and not from what rendered them.
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
    csv, parquet = path.with_suffix(".csv"), path.with_suffix(".parquet")
    if missing := [file.name for file in (path, csv, parquet) if not file.exists()]:
        # All of it is missing.
        return [(total, f"{path.parent.name}: {', '.join(missing)} is not there")]
    files = {
        path: read_back(path.read_text(encoding="utf-8")),
        csv: _summed("read_csv(?, all_varchar = true)", csv),
        parquet: _summed("read_parquet(?)", parquet),
    }
    nothing = (Decimal(0), Decimal(0))
    return [
        (
            abs(said.get(currency, nothing)[n] - recorded.get(currency, nothing)[n]),
            f"{file.name}: {currency} differs from what was made",
        )
        for file, said in files.items()
        for currency in {*recorded, *said}
        for n in (0, 1)
    ]


def _summed(reader: str, path: Path) -> dict[str, tuple[Decimal, Decimal]]:
    with duckdb.connect() as connection:
        found = connection.execute(
            "select currency, sum(billed_cost::decimal(38, 12)), sum(effective_cost::decimal(38, 12)) "
            f"from {reader} group by all",
            [str(path)],
        ).fetchall()
    return {currency: (billed, effective) for currency, billed, effective in found}


def read_back(html: str) -> dict[str, tuple[Decimal, Decimal]]:
    """What a report says it comes to, per currency: billed and effective."""
    reader = _Totals()
    reader.feed(html)
    reader.close()
    return {
        currency: (measures.get("billed_cost", Decimal(0)), measures.get("effective_cost", Decimal(0)))
        for currency, measures in reader.found.items()
    }


class _Totals(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, Decimal]] = {}

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "data" and given.get("class") == "total":
            measures = self.found.setdefault(given.get("data-currency") or "", {})
            measures[given.get("data-measure") or ""] = Decimal(given.get("value") or "0")
