"""The report of the sample: its statistics held against what is known of it, and its pages in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from typer.testing import CliRunner

from greenops_pipelines.cli import app
from greenops_pipelines.cost import checks, sample
from greenops_pipelines.cost.sources import Found
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.cost_tables import COST_REPORTS
from greenops_pipelines.report import finops
from greenops_pipelines.report.finops_reconciled import due, reconciliation
from tests.cost.small_cost_lake import ROOT, cost_lake
from tests.real import program

NOW = datetime(2026, 11, 27, 6, 0, tzinfo=UTC)
TENANTS = [
    ("acme", "eu-central-1"),
    ("globex", "us-east-1"),
    ("initech", "us-east-1"),
    (sample.ANOMALY_TENANT, "us-east-1"),
]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sample")


@pytest.fixture(scope="module")
def lake(home: Path) -> Lake:
    files = sample.write(home / "bills", TENANTS, NOW)
    ops = (ROOT / "ops" / "cost.yaml").read_text(encoding="utf-8")
    return cost_lake(home, ops, Found("sample", home / "bills", tuple(files)))


@pytest.fixture(scope="module")
def reports(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    periods = due(lake)
    assert [period.name for period in periods] == ["2026-09", "2026-10", "2026-11", "2026-W47"]
    finops.record(lake, folder, finops.write_reports(lake, folder, periods, NOW, "1"), NOW)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=program("chromium", "Debian's chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


def test_the_planted_anomaly_is_found_and_false_alarms_are_rare(lake: Lake) -> None:
    found = checks.false_alarms(lake)
    assert (found.figures["planted"], found.figures["found"]) == (1, 1)
    assert found.outcome == "passed"
    [event] = lake.query(
        "select day, service_name, tenant, since from cost_anomalies_daily where is_anomaly"
    ).to_pylist()
    assert (event["day"].isoformat(), event["tenant"]) == ("2026-10-12", sample.ANOMALY_TENANT)


def test_forecasts_hold_what_came(lake: Lake) -> None:
    found = checks.intervals(lake)
    assert found.figures["forecasts"] >= 40
    assert found.outcome == "passed", found.detail


def test_the_sample_reconciles_from_raw_files_to_report(lake: Lake, reports: Path) -> None:
    assert reconciliation(lake, reports).measured == 0.0


def test_the_command_renders_what_is_in_the_lake(
    home: Path, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HOME": home, "OPS_DIR": ROOT / "ops", "DBT_DIR": ROOT / "dbt"}.items():
        monkeypatch.setenv(f"GREENOPS_{name}", str(value))
    ended = CliRunner().invoke(app, ["cost", "report", "--period", "2026-10", "--out", str(tmp_path), "--json"])
    (report,) = json.loads(ended.stdout)["reports"]
    sums = "select currency, sum(billed_cost)::varchar as billed from cost_monthly where billing_period = '2026-10-01' group by all"
    expected = {row["currency"]: row["billed"] for row in lake.query(sums).to_pylist()}
    assert {currency: costs["billed_cost"] for currency, costs in report["totals"].items()} == expected
    assert (report["statements"], report["sample_data"]) == (4, True)
    assert sorted(path.name for path in tmp_path.rglob("*.html")) == [
        "2026-10.html", "acme.html", f"{sample.ANOMALY_TENANT}.html", "globex.html", "initech.html"
    ]  # fmt: skip
    # Into a folder of one's own nothing is recorded; into the home's it is, as what stands there has changed.
    CliRunner().invoke(app, ["cost", "report", "--period", "2026-W40"])
    said = lake.query("select period, file from cost_reports where period in ('2026-W40', '2026-W41')").to_pylist()
    assert {(row["period"], row["file"]) for row in said} == {("2026-W40", "finops/2026-W40.html")}
    lake.write(COST_REPORTS, COST_REPORTS.schema.empty_table(), [{"source": "sample", "period": "2026-W40"}])
    refused = CliRunner().invoke(app, ["cost", "report", "--period", "October"])
    assert str(refused.exception) == "period: found 'October', allowed: 2026-10 (a month) or 2026-W44 (an ISO week)"


@pytest.mark.real
@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["2026-10.html", "2026-W47.html", "2026-10/acme.html"])
def test_a_page_needs_nothing_but_itself(name: str, screen: dict[str, int], browser: Browser, reports: Path) -> None:
    path = reports / "finops" / name
    said: list[str] = []
    page = browser.new_page(viewport=screen)  # type: ignore[arg-type]
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url))
    page.goto(path.as_uri())
    assert said == [path.as_uri()]
    assert page.title().endswith("(sample data)")
    assert page.get_by_text("Sample data.", exact=True).is_visible()
    # Nothing sticks out of the screen: what is wide scrolls by itself.
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert path.stat().st_size < 1_000_000
    if name == "2026-10.html":
        bars = page.locator("svg[role=img]")
        assert bars.count() == 4
        assert bars.first.get_attribute("aria-label") == "Spent so far and expected for the month, USD"
        assert len(page.pdf(format="A4")) > 10_000
    page.close()
