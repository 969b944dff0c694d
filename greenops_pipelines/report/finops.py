"""The FinOps report, and the statements beside it: self-contained HTML, with the same sums as CSV and Parquet.

`reports/finops/2026-10.html`, `.csv`, `.parquet`, and of a month `2026-10/<tenant>.html`, `.csv`, `.parquet`. Totals stand in the HTML as
`<data>` elements too, in full, so that a check (or anyone) can read them back. Not here: which have to be made, and whether they reconcile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from greenops_pipelines.cost import checks
from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import Lake, Written
from greenops_pipelines.lake.cost_tables import COST_REPORTS
from greenops_pipelines.report import pages
from greenops_pipelines.report.finops_figures import TABLES, Figures, Row, gather, text, within
from greenops_pipelines.report.finops_reconciled import attribution, read_back
from greenops_pipelines.report.periods import Period
from greenops_pipelines.report.statements import file_name, statement, write_statement

FOLDER = "finops"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """One report: where it is, what it says per currency (billed, effective), whose, and the statements beside it."""

    period: Period
    path: Path
    totals: dict[str, tuple[Decimal, Decimal]]
    statements: tuple[str, ...]
    attribution: str
    is_sample: bool


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
    pages.put_rows(
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
        write_statement(connection, target, statement(connection, period, tenant), made_at)
        progress(f"{FOLDER}/{period.name}/{file_name(tenant)}.html")
    # Of a tenant whose charges were restated away, no statement is left that says otherwise.
    for old in path.with_suffix("").glob("*"):
        if old not in wanted and old.suffix in _SUFFIXES:
            old.unlink()
    totals = {row["currency"]: (row["billed"], row["effective"]) for row in figures.totals}
    return Made(period, path, totals, tuple(tenants), attribution(connection, period), figures.is_sample)


_SUFFIXES = (".html", ".csv", ".parquet")


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
