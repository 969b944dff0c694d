"""Anomalies, forecasts and unit costs on a bill whose every day is known: 10 on a working day, 4 at the weekend."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from greenops_pipelines.cost import checks
from greenops_pipelines.lake import Lake
from tests.cost.small_cost_lake import asked, charge, cost_lake, served

FIRST, LAST = date(2026, 3, 1), date(2026, 4, 20)
SPIKE = date(2026, 4, 15)
OPS = """
allocation:
  tenant: {tags: [tenant]}
  service: {tags: [service]}
budgets:
  - {name: all of it, amount: "300", currency: USD}
  - {name: web of acme, amount: "1000", currency: USD, tenant: acme, service: web}
units:
  - {name: request, measure: requests}
  - {name: report, measure: requests, service: reports, per: 10}
  - {name: "1,000 tokens", measure: tokens, per: 1000}
"""


def usual(day: date) -> str:
    return "60" if day in {SPIKE, SPIKE + timedelta(days=1)} else "4" if day.isoweekday() > 5 else "10"


DAYS = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)]
BILL = [
    *(charge(day, usual(day)) for day in DAYS),
    # A service that did not exist before.
    *(charge(day, "3", ServiceName="Lambda") for day in DAYS if day >= date(2026, 4, 13)),
    # A thirtieth of a dollar up or down matters to nobody.
    *(charge(day, "0.03" if day == SPIKE else "0.01", ServiceName="SNS") for day in DAYS),
    # Tax on the third, and a credit once.
    *(charge(date(2026, month, 3), "30", ChargeCategory="Tax", Tags=None) for month in (3, 4)),
    charge(date(2026, 4, 5), "-7", ChargeCategory="Credit", ChargeFrequency="One-Time"),
    charge(date(2026, 4, 5), "0.5", ServiceName="OpenAI", ConsumedQuantity="5000", ConsumedUnit="Tokens"),
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    usage = [
        *served(date(2026, 4, 5), "web", "acme"),
        *served(date(2026, 4, 5), "web", "globex"),
        *served(date(2026, 4, 5), "reports", "acme"),
        # An hour of the day is missing, so that the day says nothing.
        *served(date(2026, 4, 6), "web", "acme", hours=23),
    ]
    return cost_lake(tmp_path_factory.mktemp("statistics"), OPS, BILL, usage=usage)


# Anomalies


def test_a_day_unlike_its_past_is_found_and_its_days_are_one_event(lake: Lake) -> None:
    found = asked(
        lake,
        "select day, since, effective_cost, expected_cost, deviation, score from cost_anomalies_daily "
        "where is_anomaly and service_name = 'Amazon EC2' order by day",
    )
    # No other deviation yet: a twentieth of 10 is the unit. The second day has the first in its past, and a median.
    assert found == [(SPIKE, SPIKE, 60, 10, 50, 100), (SPIKE + timedelta(days=1), SPIKE, 60, 10, 50, 100)]


def test_what_is_new_is_an_anomaly_until_it_is_known(lake: Lake) -> None:
    found = asked(
        lake,
        "select day, since, expected_cost, score from cost_anomalies_daily where is_anomaly and service_name = 'Lambda' order by day",
    )
    monday = date(2026, 4, 13)
    # Nothing was expected, and there is no usual deviation to divide by.
    assert found == [(monday + timedelta(days=n), monday, 0, None) for n in range(7)]


def test_what_does_not_matter_is_none(lake: Lake) -> None:
    assert asked(lake, "select count(*) from cost_anomalies_daily where is_anomaly and service_name = 'SNS'") == [(0,)]


def test_a_series_is_judged_from_its_fifth_week_on_and_the_last_day_is_not_over(lake: Lake) -> None:
    found = asked(lake, "select min(day) filter (where is_judged), max(day) from cost_anomalies_daily")
    assert found == [(FIRST + timedelta(days=28), LAST - timedelta(days=1))]


def test_taxes_credits_and_corrections_are_no_series(lake: Lake) -> None:
    at_the_third = "select sum(effective_cost) from cost_anomalies_daily where day = '2026-04-03'"
    assert asked(lake, at_the_third) == [(pytest.approx(10.01),)]


def test_the_check_names_the_dearest(lake: Lake) -> None:
    found = checks.anomalies(lake)
    # Of the seven days up to the 19th: the spike, and the new service.
    assert (found.measured, found.outcome) == (2.0, "failed")
    assert found.detail == "Amazon EC2, acme, since 2026-04-15: +100.00 USD"


def test_false_alarms_cannot_be_told_on_real_bills(lake: Lake) -> None:
    assert checks.false_alarms(lake).missing == "bills of which it is known what is wrong; the sample is such"


# Forecasts


def forecast(lake: Lake, day: str, scope: str = "all of it") -> tuple[Any, ...]:
    found = asked(
        lake,
        f"select spent::double, expected, low, high, days_left from cost_forecasts_daily where as_of = '{day}' and scope = '{scope}'",
    )
    return tuple(None if value is None else round(value, 6) for value in found[0])


def test_a_month_is_what_was_spent_what_is_usual_and_what_is_due(lake: Lake) -> None:
    # April has 22 working days and 8 of the weekend: 252 and a tax of 30. And a cent a day.
    assert forecast(lake, "2026-04-02") == (20.02, 282.3, None, None, 28)
    # The tax has come, and is not due again; the credit was not foreseen, and is not expected twice.
    assert forecast(lake, "2026-04-05") == (20.05 + 10 + 30 + 8 - 7 + 0.5, 275.8, None, None, 25)


def test_an_interval_is_what_the_method_was_wrong_by(lake: Lake) -> None:
    # Twelve earlier spans of 18 days, from 14 March to the 25th: 0.5 of tokens and a credit that is no usual cost.
    spent, expected, low, high, left = forecast(lake, "2026-04-12")
    assert (left, expected) == (18, 275.8)
    assert (round(expected - low, 6), round(high - expected, 6)) == (0.5, 0.5)
    # Three days later the spike, 50 and 3 a day of the new service, is among what it was wrong by.
    # 10 working days, 4 of the weekend, the spike, the new service, a cent a day and three, tax, credit, tokens.
    spent, expected, low, high, left = forecast(lake, "2026-04-15")
    assert spent == round(100 + 16 + 60 + 9 + 0.17 + 30 - 7 + 0.5, 6)
    # 11 working days and 4 of the weekend are left; medians know neither the spike nor the new service yet.
    assert (left, expected) == (15, round(spent + 110 + 16 + 0.15, 6))
    # What was foretold on the last of March for fifteen days missed the spike, the new service and the tokens.
    assert round(high - expected, 6) == round(expected - low, 6) == round(50.02 + 9 + 0.5, 6)


def test_before_five_weeks_no_interval_is_given_and_before_one_no_figure(lake: Lake) -> None:
    assert forecast(lake, "2026-03-05")[1:4] == (None, None, None)
    assert forecast(lake, "2026-03-10")[2:4] == (None, None)


def test_a_month_that_is_over_is_what_was_spent(lake: Lake) -> None:
    # 22 working days, 9 of the weekend, tax, a cent a day.
    assert forecast(lake, "2026-03-31") == (286.31, 286.31, 286.31, 286.31, 0)


def test_a_budget_holds_its_tenants_and_services_direct_charges(lake: Lake) -> None:
    # Without the tax, which nobody's tag names.
    assert forecast(lake, "2026-03-31", "web of acme")[0] == 256.31
    over = checks.budgets(lake)
    assert (over.measured, over.detail.split(":")[0]) == (1.0, "all of it")


def test_intervals_are_held_against_what_came(lake: Lake) -> None:
    # Of March's last days, with ten earlier spans of as many.
    found = checks.intervals(lake)
    assert found.figures["forecasts"] > 0
    assert found.measured == 100.0


# Unit costs


def unit(lake: Lake, name: str) -> list[tuple[Any, ...]]:
    return asked(
        lake,
        f"select day, service, tenant, quantity, effective_cost::double from cost_units_daily where unit = '{name}' order by all",
    )


def test_a_request_costs_what_its_service_costs_on_whole_days(lake: Lake) -> None:
    sunday = date(2026, 4, 5)
    # 4, a cent, 0.5 of tokens and the credit of 7, over 2,400 requests; globex was served and charged nothing.
    assert unit(lake, "request") == [(sunday, "web", "acme", 2400, -2.49), (sunday, "web", "globex", 2400, 0)]
    # Nothing is billed to the service reports.
    assert unit(lake, "report") == []


def test_tokens_cost_what_charges_of_tokens_come_to(lake: Lake) -> None:
    assert unit(lake, "1,000 tokens") == [(date(2026, 4, 5), "web", "acme", 5, 0.5)]
