"""The carbon report: read back from the rendered file, figure by figure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.carbon.factors import read_factors
from greenops_pipelines.lake import Lake, Table
from greenops_pipelines.lake.results import record
from greenops_pipelines.lake.tables import EMISSION_FACTORS
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.report.carbon import FILE_NAME, Report, reconciliation, write_report
from tests.carbon.small_lake import Row, at, empty_lake, intensity, marts, put, put_intensity, put_usage, table, usage

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
VOID = {"meta", "line", "rect", "br", "link", "path"}


class Page(HTMLParser):
    """A page as text, with its table rows and `<data>` values; refuses tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.rows: list[list[str]] = []
        self.data: dict[str, str] = {}
        self.tags: list[str] = []
        self.seen: set[str] = set()
        self.outside: list[str] = []
        self.feed(html)
        self.close()
        assert self.tags == [], "tags left open"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        given = dict(attributes)
        self.outside += [value for name in ("src", "href") if (value := given.get(name))]
        if tag == "data":
            self.data[given.get("id") or ""] = given["value"] or ""
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in VOID:
            self.tags.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.tags:
            return
        self.text += data
        if {"td", "th"} & set(self.tags):
            self.rows[-1][-1] = " ".join((self.rows[-1][-1] + data).split())

    def row(self, name: str) -> list[str]:
        """The cells after the first of the row that begins with `name`."""
        return next(row[1:] for row in self.rows if row and row[0] == name)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, ...]:
    return marts(tmp_path_factory.mktemp("dbt"))


@pytest.fixture
def lake(tmp_path: Path, published: tuple[Table, ...]) -> Lake:
    return empty_lake(tmp_path, "file", published, usage="file")


def emission(of_march: int, operational: float | None, **other: Any) -> Row:
    """A row of `emissions_daily`: 10 kWh and 0.5 kg embodied, covered unless `operational` is None."""
    covered = operational is not None
    return {
        "day": date(2026, 3, of_march),
        "service": "search",
        "tenant": "acme",
        "region": "eu-central-1",
        "zone": "DE",
        "energy_kwh": 10.0,
        "covered_energy_kwh": 10.0 if covered else 0.0,
        "operational_kg": operational,
        "embodied_kg": 0.5,
        "covered_embodied_kg": 0.5 if covered else 0.0,
        "total_kg": operational + 0.5 if operational is not None else None,
        "covered_hours": 24 if covered else 0,
        "uncovered_hours": 0 if covered else 24,
    } | other


def render(lake: Lake, folder: Path, *emissions: Row) -> tuple[Report, Page]:
    if emissions:
        put(lake, table(lake, "emissions_daily"), emissions)
    report = write_report(lake, folder, NOW)
    return report, Page(report.path.read_text(encoding="utf-8"))


def test_the_totals_and_shares_are_those_of_the_mart(lake: Lake, tmp_path: Path) -> None:
    report, page = render(
        lake,
        tmp_path,
        emission(1, 4.0),
        emission(2, 2.5),
        emission(1, 1.5, service="embed", tenant="globex", region="us-east-1", zone="US-MIDA-PJM"),
    )
    assert float(page.data["total_kg"]) == 9.5
    assert (page.data["first_day"], page.data["last_day"]) == ("2026-03-01", "2026-03-02")
    # Energy, operational, embodied, total, share of 9.5 kg.
    assert (
        page.row("search") == page.row("acme") == page.row("eu-central-1") == ["20.0", "6.50", "1.00", "7.50", "78.9 %"]
    )
    assert (
        page.row("embed") == page.row("globex") == page.row("us-east-1") == ["10.0", "1.50", "0.50", "2.00", "21.1 %"]
    )
    assert "2026-03-01 to 2026-03-02 (2 days). Made 2026-03-10 12:00 UTC." in page.text
    assert dict(report.figures) == {
        "total kgCO2e": 9.5,
        "of it embodied kgCO2e": 1.5,
        "energy kWh": 30.0,
        "period": "2026-03-01 to 2026-03-02",
        "data": "real data",
    }


def test_what_placement_avoided_is_shown_per_tenant_and_region(lake: Lake, tmp_path: Path) -> None:
    _, page = render(lake, tmp_path, emission(1, 4.0))
    assert "Nothing is settled yet" in page.text
    row = {"month": date(2026, 3, 1), "tenant": "globex", "region": "eu-north-1", "home_region": "eu-central-1"}
    figures = {
        "scope3_location_based_kg": 0.1,
        "at_home_at_once_kg": 0.75,
        "avoided_kg": 0.65,
        "expected_avoided_kg": 0.7,
    }
    rows = [row | figures | {"settled_jobs": 2, "kind": "etl"}, row | {"unsettled_jobs": 1, "kind": "batch"}]
    put(lake, table(lake, "avoided_emissions_monthly"), rows)
    _, page = render(lake, tmp_path)
    assert page.row("globex") == ["eu-north-1", "eu-central-1", "2", "1", "0.100", "0.750", "0.650", "0.700"]
    assert "Nothing is settled yet" not in page.text


def test_uncovered_hours_are_stated_and_not_counted(lake: Lake, tmp_path: Path) -> None:
    report, page = render(lake, tmp_path, emission(1, 4.0), emission(1, None, tenant="globex"))
    assert float(page.data["total_kg"]) == 4.5
    assert report.figures["of it embodied kgCO2e"] == 0.5
    assert "24 hours of service and tenant have no carbon intensity." in page.text
    assert "50.0 %of the energy has a carbon intensity" in page.text.replace("\n", "")
    assert page.row("globex") == ["10.0", "none", "0.00", "none", "none"]


def test_a_day_without_any_intensity_leaves_a_gap_in_the_bars(lake: Lake, tmp_path: Path) -> None:
    _, page = render(lake, tmp_path, emission(1, 4.0), emission(2, None), emission(3, 2.0))
    assert float(page.data["total_kg"]) == 7.0
    assert "2026-03-02: 0.00 kgCO2e" in page.text


def test_days_after_the_last_covered_one_are_left_out(lake: Lake, tmp_path: Path) -> None:
    _, page = render(lake, tmp_path, emission(1, 4.0), emission(2, None))
    assert page.data["last_day"] == "2026-03-01"
    assert "have no carbon intensity" not in page.text


def test_the_report_covers_the_last_366_days_in_weeks(lake: Lake, tmp_path: Path) -> None:
    last = date(2026, 3, 1)
    rows = [emission(1, 1.0, day=last - timedelta(days=n)) for n in range(400)]
    _, page = render(lake, tmp_path, *rows)
    assert page.data["first_day"] == str(last - timedelta(days=365))
    assert float(page.data["total_kg"]) == 366 * 1.5
    assert "Emissions per week" in page.text
    assert reconciliation(lake, tmp_path).outcome == "passed"


def test_the_scis_are_per_thousand_requests(lake: Lake, tmp_path: Path) -> None:
    sci = {"service": "search", "operational_kg": 4.0, "covered_embodied_kg": 1.0, "covered_requests": 20_000.0}
    put(lake, table(lake, "sci_daily"), [sci | {"day": date(2026, 3, day)} for day in (1, 2)])
    _, page = render(lake, tmp_path, emission(1, 4.0, service="other"), emission(2, 4.0, service="other"))
    # 10 kg over 40,000 requests are 0.25 g each, 8 kg of them operational.
    assert page.row("search") == ["250.000", "200.000"]


def test_the_grids_are_shown_over_the_days_of_the_report(lake: Lake, tmp_path: Path) -> None:
    put_intensity(
        lake,
        intensity("DE", at(0), 300.0, is_estimated=True),
        intensity("DE", at(1), 500.0, is_estimated=False),
        intensity("FR", at(0), 50.0),
        intensity("DE", at(0, day=5), 9000.0),
    )
    _, page = render(lake, tmp_path, emission(1, 4.0))
    assert page.row("DE") == ["400.0", "300.0", "500.0", "50.0 %"]
    assert page.row("FR") == ["50.0", "50.0", "50.0", "not stated"]


@pytest.mark.parametrize("is_sample", [True, False])
def test_sample_data_is_marked_if_and_only_if_it_is_sample_data(
    tmp_path: Path, published: tuple[Table, ...], is_sample: bool
) -> None:
    provider = "sample" if is_sample else "file"
    lake = empty_lake(tmp_path, provider, published, usage=provider)
    put_intensity(lake, intensity("DE", at(0), provider=provider))
    put_usage(lake, usage(at(0), source=provider))
    report, page = render(lake, tmp_path, emission(1, 4.0, is_sample=is_sample))
    html = report.path.read_text(encoding="utf-8")
    assert ('<div class="sample">' in html) is is_sample
    assert ("sample data" in page.text.lower()) is is_sample
    assert report.figures["data"] == ("sample data" if is_sample else "real data")
    if is_sample:
        assert "Carbon intensity: sample; resource usage: sample." in page.text


def test_sample_usage_on_real_intensity_is_marked_too(tmp_path: Path, published: tuple[Table, ...]) -> None:
    lake = empty_lake(tmp_path, "file", published)
    put_intensity(lake, intensity("DE", at(0)))
    put_usage(lake, usage(at(0)))
    _, page = render(lake, tmp_path, emission(1, 4.0, is_sample=True))
    assert "Carbon intensity: file; resource usage: sample." in page.text


def test_an_empty_lake_has_a_report_that_says_so(lake: Lake, tmp_path: Path) -> None:
    report, page = render(lake, tmp_path)
    assert "no covered day yet" in page.text
    assert "none %" not in page.text
    assert page.data == {"total_kg": "", "first_day": "", "last_day": ""}
    assert "34 not yet measured" in page.text
    assert report.figures["total kgCO2e"] == 0.0
    found = reconciliation(lake, tmp_path)
    assert (found.measured, found.missing) == (None, "an emission in the period")


def test_names_are_text_and_never_markup(lake: Lake, tmp_path: Path) -> None:
    name = '<script>alert(1)</script> & "Söhne"'
    _, page = render(lake, tmp_path, emission(1, 4.0, tenant=name))
    assert page.row(name)[3] == "4.50"
    assert "script" not in page.seen


def test_the_file_stands_alone_and_its_tags_nest(lake: Lake, tmp_path: Path) -> None:
    put(lake, EMISSION_FACTORS, read_factors().to_pylist())
    _, page = render(lake, tmp_path, emission(1, 4.0))
    assert page.outside == []
    assert {"html", "svg", "table"} <= page.seen
    assert page.row("network_kwh_per_gb")[:2] == ["0.001", "kWh/GB"]


def test_the_scorecard_stands_in_the_report(lake: Lake, tmp_path: Path) -> None:
    met = Measurement("carbon/intensity:completeness", 99.5, 95, ">=", "%", "a sentence")
    record(lake, [met], "run-1", NOW)
    _, page = render(lake, tmp_path)
    assert page.row("J2.1") == ["Carbon intensity ingested: share of expected intervals", ">= 95 %", "99.5", "met"]
    assert "1 met, 0 missed, 0 stale, 0 cannot be measured here, 33 not yet measured." in page.text


def test_a_new_report_replaces_the_old_one_whole(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    render(lake, folder, emission(1, 4.0))
    _, page = render(lake, folder, emission(1, 6.0))
    assert float(page.data["total_kg"]) == 6.5
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]


# Reconciliation


def test_the_rendered_total_reconciles_with_the_mart(lake: Lake, tmp_path: Path) -> None:
    render(lake, tmp_path, *(emission(1, 1 / 3, tenant=f"t{n}") for n in range(100)))
    found = reconciliation(lake, tmp_path)
    assert found.outcome == "passed"
    assert found.detail.startswith("the report says 83.333333")


def test_a_tampered_total_is_found(lake: Lake, tmp_path: Path) -> None:
    report, _ = render(lake, tmp_path, emission(1, 4.0))
    html = report.path.read_text(encoding="utf-8")
    assert html.count('value="4.500000000"') == 1
    report.path.write_text(html.replace('value="4.500000000"', 'value="4.499990000"'), encoding="utf-8")
    found = reconciliation(lake, tmp_path)
    assert found.outcome == "failed"
    assert found.measured == pytest.approx(1e-5)
    assert (found.target, found.unit) == (1e-6, "kgCO2e difference")


def test_a_mart_that_changed_under_the_report_is_found(lake: Lake, tmp_path: Path) -> None:
    render(lake, tmp_path, emission(1, 4.0), emission(2, 4.0))
    put(lake, table(lake, "emissions_daily"), [emission(1, 4.0)])
    assert reconciliation(lake, tmp_path).measured == pytest.approx(4.5)


def test_a_missing_report_cannot_be_reconciled(lake: Lake, tmp_path: Path) -> None:
    found = reconciliation(lake, tmp_path / "nowhere")
    assert (found.measured, found.missing) == (None, "carbon.html, which is not there")
