"""The FinOps report and its statements, read back from their files; and what one of them must never hold."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from greenops_pipelines.carbon.factors import read_factors
from greenops_pipelines.cost.allocation import read_cost
from greenops_pipelines.cost.ingest import ingest
from greenops_pipelines.cost.reconciliation import reconcile
from greenops_pipelines.cost.sources import Found
from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.cost_tables import COST_RECONCILIATION, COST_REPORTS
from greenops_pipelines.report import finops
from greenops_pipelines.report.finops_reconciled import differences, due, read_back, reconciliation
from greenops_pipelines.report.periods import parse
from greenops_pipelines.report.statements import file_name
from tests.carbon.small_lake import intensity, put, table
from tests.cost import focus_rows
from tests.cost.small_cost_lake import LATER, ROOT, charge, cost_lake
from tests.report.test_carbon_report import Page

NOW = datetime(2026, 5, 3, 6, 23, tzinfo=UTC)
SCRIPT = "<script>alert('1')</script>"
PLANTED = "planted-tenant"
OPS = """
allocation:
  tenant: {tags: [tenant]}
  service: {tags: [service]}
shared:
  - {name: tax, charge_category: Tax, split: effective_cost}
budgets:
  - {name: tight, amount: "100", currency: USD, service: web}
  - {name: roomy, amount: "9000", currency: EUR}
"""


def of(tenant: str, service: str = "web") -> dict[str, str]:
    return {"Tags": f'{{"tenant": "{tenant}", "service": "{service}"}}'}


BILL = [
    *(charge(date(2026, 3, n), "1.5", **of("acme")) for n in range(1, 32)),
    *(charge(date(2026, 4, n), "2", **of("acme")) for n in range(1, 31)),
    charge(date(2026, 4, 7), "7.000000000001", ServiceName="=cmd|' /C calc'!A0", **of("acme", SCRIPT)),
    charge(date(2026, 4, 8), "1", ResourceId="i-2", **of(SCRIPT)),
    charge(date(2026, 4, 8), "-0.25", ChargeCategory="Credit", ChargeFrequency="One-Time", Tags=None),
    charge(date(2026, 4, 9), "3", BillingCurrency="EUR", **of("acme")),
    charge(date(2026, 4, 3), "19", ChargeCategory="Tax", Tags=None),
    # Three of four parts of what is direct: what acme may not see.
    charge(
        date(2026, 4, 10),
        "7654.321",
        ServiceName="Planted Service",
        RegionId="planted-region",
        RegionName="planted-region",
        SubAccountId="planted-account",
        SubAccountName="planted-account",
        **of(PLANTED, "planted-own"),
    ),
    charge(
        date(2026, 4, 11),
        "1",
        ConsumedQuantity="24",
        SkuPriceDetails='{"CoreCount": 2}',
        ResourceId="i-9",
        **of("acme"),
    ),
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    hours = [intensity("IE", datetime(2026, 4, 11, n, tzinfo=UTC), 500.0, day=date(2026, 4, 11)) for n in range(24)]
    return cost_lake(tmp_path_factory.mktemp("finops"), OPS, BILL, intensity=hours)


@pytest.fixture(scope="module")
def reports(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    made = finops.write_reports(lake, folder, [parse("2026-04"), parse("2026-W15")], NOW, "1.2.3")
    finops.record(lake, folder, made, NOW)
    return folder


@pytest.fixture
def april(reports: Path) -> Iterator[Path]:
    """The report of April, put back afterwards."""
    path = reports / "finops" / "2026-04.html"
    kept = {file: file.read_bytes() for file in (path, path.with_suffix(".csv"), path.with_suffix(".parquet"))}
    yield path
    for file, content in kept.items():
        file.write_bytes(content)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


# 30 times 2, 7.000000000001, 1 and 1, a credit of 0.25, tax of 19, and what is planted.
USD = Decimal("60") + Decimal("7.000000000001") + 2 - Decimal("0.25") + 19 + Decimal("7654.321")


def test_the_report_says_what_the_bill_comes_to_to_the_last_digit(april: Path) -> None:
    assert read_back(april.read_text(encoding="utf-8")) == {"USD": (USD, USD), "EUR": (Decimal(3), Decimal(3))}
    for suffix in (".csv", ".parquet"):
        assert april.with_suffix(suffix).exists()
    rows = read_csv(april.with_suffix(".csv"))
    assert sum(Decimal(row["billed_cost"]) for row in rows if row["currency"] == "USD") == USD
    stored = pq.read_table(april.with_suffix(".parquet"))
    assert str(stored.schema.field("billed_cost").type) == "decimal128(38, 12)"
    assert sum(stored["effective_cost"].to_pylist()) == USD + 3


def test_a_week_is_the_days_of_its_charges(reports: Path) -> None:
    # 6 to 12 April: seven times 2, what is dear on the 7th, and so on; no tax of the third.
    week = Decimal(14) + Decimal("7.000000000001") + 2 - Decimal("0.25") + Decimal("7654.321")
    html = (reports / "finops" / "2026-W15.html").read_text(encoding="utf-8")
    assert read_back(html) == {"USD": (week, week), "EUR": (Decimal(3), Decimal(3))}
    assert not (reports / "finops" / "2026-W15").exists()


def test_its_tables_show_the_figures(april: Path) -> None:
    shown = page(april)
    assert "Cost report: April 2026" in shown.text
    # Per provider: billed, amortised, share.
    assert shown.row("AWS") == ["USD", "7,742.07", "7,742.07", "100.0 %"]
    # Spent on the service web: 30 times 2, and twice 1; the dear charge is of another service.
    assert shown.row("tight") == ["USD", "100.00", "62.00", "62.0 %", "within"]
    # acme: 61 and 7 directly, and of the tax of 19 its part.
    share = round(19 * 68.000000000001 / (68.000000000001 + 1 + 7654.321), 2)
    assert shown.row("acme")[:3] == ["USD", "68.00", f"{share:,.2f}"]
    assert ["Amazon EC2", "acme", "USD", "46.50", "61.00", "+14.50", "+31.2 %"] in shown.rows


def test_carbon_stands_beside_cost(april: Path) -> None:
    shown = page(april)
    watts = {row["factor"]: row["value"] for row in read_factors().to_pylist()}
    busy = watts["cpu_default_utilization"]
    per_vcpu = watts["cpu_min_w_per_vcpu"] + busy * (watts["cpu_max_w_per_vcpu"] - watts["cpu_min_w_per_vcpu"])
    # 24 hours of two cores, PUE 2, half a kilogram per kWh.
    kwh = 48 * per_vcpu / 1000 * 2
    figures = [f"{kwh:.1f}", f"{kwh / 2:.2f}"]
    assert [row[0] for row in shown.rows if row[1:3] == figures] == ["web", "acme", "eu-west-1"]


def test_what_tags_say_is_text_and_never_markup(april: Path) -> None:
    shown = page(april)
    assert "script" not in shown.seen
    assert SCRIPT in shown.text
    assert shown.row(SCRIPT)


def test_every_file_stands_alone(reports: Path) -> None:
    pages = list(reports.rglob("*.html"))
    # Two reports, and a statement for each of three tenants.
    assert len(pages) == 5
    for path in pages:
        shown = page(path)
        assert [address for address in shown.outside if address != "data:,"] == []
        assert "script" not in shown.seen
        assert path.stat().st_size < 1_000_000


def test_a_spreadsheet_takes_nothing_for_a_formula(april: Path) -> None:
    rows = read_csv(april.with_suffix(".csv"))
    assert [row["service_name"] for row in rows if "cmd" in row["service_name"]] == ["'=cmd|' /C calc'!A0"]
    # Below zero is a number.
    assert [row["billed_cost"] for row in rows if row["charge_category"] == "Credit"] == ["-0.250000000000"]
    assert "=cmd|' /C calc'!A0" in pq.read_table(april.with_suffix(".parquet"))["service_name"].to_pylist()


def test_nothing_planted_shows_in_another_tenants_statement(april: Path) -> None:
    folder = april.with_suffix("")
    theirs = (folder / f"{PLANTED}.html").read_text(encoding="utf-8")
    assert "planted-own" in theirs
    assert "7,654.32" in theirs
    # Names, and the figures of the planted tenant and of everybody together.
    whole = f"{USD:,.2f}"
    for suffix in (".html", ".csv"):
        mine = (folder / f"acme{suffix}").read_text(encoding="utf-8").lower()
        assert [other for other in ("planted", "7,654", "7654", "654.32", whole, f"{USD}") if other in mine] == []
    for file in folder.glob("*.parquet"):
        assert len(set(pq.read_table(file)["tenant"].to_pylist())) == 1


def test_a_statement_says_what_is_direct_and_what_is_shared(april: Path) -> None:
    shown = page(april.with_suffix("") / "acme.html")
    share = 68.000000000001 / (68.000000000001 + 1 + 7654.321)
    # Not its ratio: with what acme costs directly, that would tell what everybody else does.
    assert shown.row("tax") == ["AWS", "in proportion to what each costs directly", "USD", f"{19 * share:,.2f}"]
    assert "Statement of costs: acme" in shown.text
    assert "Ratio" not in april.with_suffix("").joinpath("acme.csv").read_text(encoding="utf-8")


def test_statements_and_what_is_nobodys_come_to_the_report(april: Path) -> None:
    folder = april.with_suffix("")
    stated = sum(
        (sum(pq.read_table(path)["effective_cost"].to_pylist(), Decimal(0)) for path in folder.glob("*.parquet")),
        Decimal(0),
    )
    # The credit names nobody.
    assert stated - Decimal("0.25") == USD + 3


def test_a_tenants_name_is_a_file_name_or_made_one() -> None:
    assert file_name("acme-1.eu") == "acme-1.eu"
    made = file_name("a b")
    names = ("../../etc/passwd", "a/b", "a b", "a-b", SCRIPT, "Ä", "..", "", "Acme", "acme", "ACME", made)
    found = {file_name(name).casefold() for name in names}
    assert len(found) == len(names)
    assert all("/" not in name and not name.startswith(".") for name in found)


# Reconciliation


def test_from_raw_file_to_report_nothing_differs(lake: Lake, april: Path) -> None:
    found = reconciliation(lake, april.parents[1])
    assert (found.measured, found.outcome) == (0.0, "passed")
    assert found.detail == "raw files, charges, marts and reports (2026-04, 2026-W15) agree to the last digit"
    assert found.figures == {"reports": 2, "comparisons": found.figures["comparisons"]}


@pytest.mark.parametrize("suffix", [".html", ".csv"])
def test_a_digit_that_was_changed_in_a_file_is_found(suffix: str, lake: Lake, april: Path) -> None:
    path = april.with_suffix(suffix)
    text = path.read_text(encoding="utf-8")
    digits = f"{USD:f}" if suffix == ".html" else "7.000000000001"
    path.write_text(text.replace(digits, digits[:-1] + "2"), encoding="utf-8")
    found = reconciliation(lake, april.parents[1])
    assert found.outcome == "failed"
    assert found.measured == pytest.approx(1e-12, rel=1e-6)
    assert found.detail == f"2026-04{suffix}: USD differs from what was made"


def test_a_digit_that_was_changed_in_the_parquet_is_found(lake: Lake, april: Path) -> None:
    path = april.with_suffix(".parquet")
    stored = pq.read_table(path)
    given = stored.to_pylist()
    given[0]["billed_cost"] += Decimal("0.000000000001")
    pq.write_table(pa.Table.from_pylist(given, schema=stored.schema), path)
    found = reconciliation(lake, april.parents[1])
    assert found.measured == pytest.approx(1e-12, rel=1e-6)
    assert found.detail.startswith("2026-04.parquet: ")


def test_a_report_that_is_gone_is_no_report(lake: Lake, april: Path) -> None:
    april.unlink()
    found = reconciliation(lake, april.parents[1])
    assert found.outcome == "failed"
    assert found.detail == "finops: 2026-04.html is not there"


def test_a_bill_that_is_restated_makes_its_report_due(lake: Lake, april: Path, tmp_path: Path) -> None:
    assert [p.name for p in due(lake)] == ["2026-03", "2026-04", "2026-W17"]
    bill = focus_rows.write(
        tmp_path / "bill.csv", [*BILL, charge(date(2026, 4, 12), "0.5", ResourceId="i-3", **of("acme"))]
    )
    (tmp_path / "cost.yaml").write_text(OPS, encoding="utf-8")
    kept = focus_rows.write(tmp_path / "kept.csv", BILL)
    try:
        ingest(lake, Found("file", tmp_path, (bill,)), read_cost(tmp_path), "run", LATER)
        assert {p.name for p in due(lake)} >= {"2026-04", "2026-W15"}
        assert reconciliation(lake, april.parents[1]).measured == 0.5
    finally:
        ingest(lake, Found("file", tmp_path, (kept,)), read_cost(tmp_path), "run", LATER)
        lake.write(COST_RECONCILIATION, reconcile(lake))
    assert reconciliation(lake, april.parents[1]).measured == 0.0


def test_a_currency_that_a_week_did_not_have_makes_it_due(lake: Lake, april: Path, tmp_path: Path) -> None:
    kept = focus_rows.write(tmp_path / "kept.csv", BILL)
    more = charge(date(2026, 4, 8), "4000", BillingCurrency="CHF", ResourceId="i-7", **of("acme"))
    bill = focus_rows.write(tmp_path / "bill.csv", [*BILL, more])
    (tmp_path / "cost.yaml").write_text(OPS, encoding="utf-8")
    try:
        ingest(lake, Found("file", tmp_path, (bill,)), read_cost(tmp_path), "run", LATER)
        found = {(row["period"], row["currency"]): row["difference"] for row in differences(lake)}
        assert found["2026-W15", "CHF"] == found["2026-04", "CHF"] == -4000
    finally:
        ingest(lake, Found("file", tmp_path, (kept,)), read_cost(tmp_path), "run", LATER)
    assert reconciliation(lake, april.parents[1]).measured == 0.0


def test_costs_that_change_hands_make_their_report_due_and_its_statements_wrong(lake: Lake, april: Path) -> None:
    mart, march, reports = table(lake, "cost_allocated_monthly"), parse("2026-03"), april.parents[1]
    finops.record(lake, reports, finops.write_reports(lake, reports, [march], NOW, "1"), NOW)
    assert march not in due(lake)
    stored = lake.read(mart)
    given = [row | {"tenant": "globex"} if row["month"] == march.first else row for row in stored.to_pylist()]
    try:
        lake.write(mart, pa.Table.from_pylist(given, schema=mart.schema))
        # No sum differs, and still it is due.
        assert [row for row in differences(lake) if row["difference"]] == []
        assert march in due(lake)
        found = reconciliation(lake, reports)
        # acme's 31 times 1.5, in a statement of acme and in none of globex.
        assert found.measured == 46.5
        assert found.detail == "2026-03/globex.html: USD differs from what is the tenant's"
    finally:
        lake.write(mart, stored)
    assert reconciliation(lake, reports).measured == 0.0
    finops.record(lake, reports, [], NOW, [march])


def test_a_period_whose_charges_are_gone_has_no_report_any_more(lake: Lake, tmp_path: Path) -> None:
    """Only of a report that was made: of a period that never had a charge there is nothing to take away."""
    row = {"source": "file", "period": "2026-02", "kind": "month", "file": "finops/2026-02.html", "currency": "USD"}
    row |= {"billed_cost": Decimal(1), "effective_cost": Decimal(1), "made_at": NOW}
    put(lake, COST_REPORTS, [row])
    folder = tmp_path / "finops"
    folder.mkdir()
    (folder / "2026-02.html").write_text("as it was", encoding="utf-8")
    assert finops.write_reports(lake, tmp_path, [parse("2026-02")], NOW, "1") == []
    assert list(folder.iterdir()) == []
    finops.record(lake, tmp_path, [], NOW, [parse("2026-02")])
    assert "2026-02" not in lake.read(COST_REPORTS)["period"].to_pylist()


def test_a_period_without_a_charge_is_refused(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match="found 2020-01, which has no charge; allowed: 2026-03, 2026-04, and their weeks"
    ):
        finops.write_reports(lake, tmp_path, [parse("2020-01")], NOW, "1")
    assert list(tmp_path.rglob("*.html")) == []


SAMPLE = ROOT.parent / "shared" / "data" / "focus" / "focus_sample.csv"


@pytest.mark.skipif(not SAMPLE.exists(), reason=f"{SAMPLE.name} is not beside the project")
def test_the_official_sample_from_its_file_to_its_reports(tmp_path: Path) -> None:
    ours = cost_lake(tmp_path, OPS, Found("file", SAMPLE.parent, (SAMPLE,)))
    made = finops.write_reports(ours, tmp_path / "reports", due(ours), NOW, "1")
    finops.record(ours, tmp_path / "reports", made, NOW)
    said = [read_back(one.path.read_text(encoding="utf-8"))["USD"] for one in made if one.period.kind == "month"]
    # September, and what was bought for October.
    assert [one.period.name for one in made if one.period.kind == "month"] == ["2024-09", "2024-10"]
    assert sum(billed for billed, _ in said) == Decimal("20.520226728990")
    assert sum(effective for _, effective in said) == Decimal("14.976514185860")
    assert reconciliation(ours, tmp_path / "reports").measured == 0.0
