"""Bills that real accounts have, each in a currency of its own: what is rare, late, licensed, or billed from the fifteenth."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.cost import checks
from greenops_pipelines.lake import Lake
from greenops_pipelines.report import finops
from greenops_pipelines.report.finops_reconciled import due, reconciliation
from greenops_pipelines.report.periods import parse
from tests.cost import focus_rows as rows
from tests.cost.small_cost_lake import asked, charge, cost_lake, served

NOW = datetime(2026, 5, 3, tzinfo=UTC)
OPS = """
allocation:
  tenant: {tags: [tenant]}
  service: {tags: [service]}
budgets:
  - {name: spent already, amount: "5", currency: SEK}
  - {name: mistyped, amount: "5", currency: SEK, service: wbe}
  - {name: other money, amount: "5", currency: BRL}
units:
  - {name: request, measure: requests}
"""


def days(first: date, last: date, step: int = 1) -> list[date]:
    return [first + timedelta(days=n) for n in range(0, (last - first).days + 1, step)]


def hour(day: date, cost: str, **other: Any) -> rows.Row:
    times = {"ChargePeriodStart": f"{day}T08:00:00Z", "ChargePeriodEnd": f"{day}T09:00:00Z"}
    return charge(day, cost, **(times | other))


MONTH = {"ChargePeriodStart": "2026-04-01T00:00:00Z", "ChargePeriodEnd": "2026-05-01T00:00:00Z"}
FROM_THE_15TH = {"BillingPeriodStart": "2026-04-15T00:00:00Z", "BillingPeriodEnd": "2026-05-15T00:00:00Z"}
JAN, APR = date(2026, 1, 5), date(2026, 4, 1)

BILL = [
    # Pounds: a marketplace that bills on Mondays.
    *(charge(day, "20", BillingCurrency="GBP") for day in days(JAN, date(2026, 4, 20), 7)),
    # Yen: AWS day by day; Azure, ten times as dear, when a month is over.
    *(charge(day, "10", BillingCurrency="JPY") for day in days(date(2026, 3, 1), date(2026, 4, 20))),
    *(
        charge(day, "100", BillingCurrency="JPY", ProviderName="Microsoft")
        for day in days(date(2026, 3, 1), date(2026, 3, 31))
    ),
    # Kronor: daily use up to the 10th, an hour once in March, and a fee that is bought for the 30th.
    *(charge(day, "1", BillingCurrency="SEK") for day in days(date(2026, 3, 3), date(2026, 4, 10))),
    hour(date(2026, 3, 20), "1", BillingCurrency="SEK", ResourceId="i-3"),
    charge(date(2026, 4, 30), "5", BillingCurrency="SEK", ChargeCategory="Purchase", ChargeFrequency="One-Time", ResourceId="i-4"),
    # A fee on the first, before anything is used.
    charge(date(2026, 3, 1), "7", BillingCurrency="SEK", ChargeCategory="Purchase", ChargeFrequency="One-Time", ResourceId="i-5"),
    # Norwegian: a licence of a month, and something small every day.
    charge(APR, "3000", BillingCurrency="NOK", ChargeFrequency="Recurring", Tags='{"service": "licensed"}', **MONTH),
    *(charge(day, "1", BillingCurrency="NOK", Tags=None, ResourceId="i-6") for day in days(APR, date(2026, 4, 30))),
    # Zloty: billing periods from the fifteenth to the fifteenth.
    *(charge(day, "2", BillingCurrency="PLN", **FROM_THE_15TH) for day in days(date(2026, 4, 15), date(2026, 4, 30))),
    # A name with what XML cannot hold.
    charge(date(2026, 4, 2), "1", BillingCurrency="PLN", ProviderName="Sna\x07ke"),
]  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    usage = [*served(date(2026, 4, 5), "licensed", "acme"), *served(date(2026, 4, 6), "licensed", "acme")]
    return cost_lake(tmp_path_factory.mktemp("odd"), OPS, BILL, usage=usage)


def reach(lake: Lake, currency: str) -> date:
    sql = f"select max(as_of) from cost_forecasts_daily where scope = '' and currency = '{currency}'"
    found: date = asked(lake, sql)[0][0]
    return found


def test_what_comes_once_a_week_is_no_anomaly_and_nor_is_a_day_of_nothing(lake: Lake) -> None:
    pounds = "select count(*) filter (where is_judged) > 50, count(*) filter (where is_anomaly) from cost_anomalies_daily where currency = 'GBP'"
    assert asked(lake, pounds) == [(True, 0)]


def test_a_provider_that_delivers_by_the_month_holds_up_the_forecast(lake: Lake) -> None:
    # April of AWS alone would be foretold as the whole of April.
    assert reach(lake, "JPY") == date(2026, 3, 31)
    assert asked(
        lake,
        "select spent::int from cost_forecasts_daily where currency = 'JPY' and as_of = '2026-03-31' and scope = ''",
    ) == [(3410,)]


def test_neither_a_rare_hour_nor_a_purchase_says_how_far_a_bill_reaches(lake: Lake) -> None:
    # The last day of a bill by the day may be under way.
    assert reach(lake, "SEK") == date(2026, 4, 9)


def test_a_fee_before_the_first_use_is_spent_too(lake: Lake) -> None:
    # 7, 29 days of 1, and the hour.
    march = "select spent::int from cost_forecasts_daily where currency = 'SEK' and as_of = '2026-03-31' and scope = ''"
    assert asked(lake, march) == [(37,)]


def test_a_licence_is_spread_over_its_month(lake: Lake) -> None:
    found = asked(
        lake,
        "select day, sum(quantity), sum(effective_cost)::int, bool_and(is_sample) from cost_units_daily where service = 'licensed' group by all order by 1",
    )
    # A hundred a day, of nobody, and 2,400 requests of acme; of them it is known that they are made up.
    whole = [row for row in found if row[1]]
    assert whole == [(date(2026, 4, 5), 2400, 100, False), (date(2026, 4, 6), 2400, 100, False)]
    assert asked(
        lake, "select bool_or(is_sample) from cost_units_daily where tenant = 'acme' and service = 'licensed'"
    ) == [(True,)]


def test_budgets_that_are_spent_or_mistyped_are_seen(lake: Lake, tmp_path: Path) -> None:
    over = checks.budgets(lake)
    assert (over.measured, over.detail) == (1.0, "spent already: 30 of 5 SEK expected")
    (made,) = finops.write_reports(lake, tmp_path, [parse("2026-04")], NOW, "1")
    html = made.path.read_text(encoding="utf-8")
    assert html.count("no such charge") >= 2
    assert '<span class="over">over</span>' in html


def test_a_period_from_the_fifteenth_counts_in_the_month_it_begins_in(lake: Lake, tmp_path: Path) -> None:
    made = finops.write_reports(lake, tmp_path, [parse("2026-04"), parse("2026-W16")], NOW, "1")
    assert made[0].totals["PLN"] == (33, 33)
    finops.record(lake, tmp_path, made, NOW)
    assert reconciliation(lake, tmp_path).measured == 0.0
    # What XML cannot hold is replaced where it is drawn.
    assert "Sna\N{REPLACEMENT CHARACTER}ke" in made[0].path.read_text(encoding="utf-8")


def test_a_new_account_has_a_report_of_what_there_is(tmp_path: Path) -> None:
    bill = [charge(day, "3") for day in days(date(2026, 4, 14), date(2026, 4, 17))]
    young = cost_lake(tmp_path, OPS, bill)
    assert [period.name for period in due(young)] == ["2026-04", "2026-W16"]
    month, week = finops.write_reports(young, tmp_path / "reports", due(young), NOW, "1")
    assert month.totals == week.totals == {"USD": (12, 12)}
    assert "Cost report: April 2026, so far" in month.path.read_text(encoding="utf-8")
