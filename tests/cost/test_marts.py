"""The cost models on a bill of a few rows, with figures worked by hand; and that no stage may lose or make a digit."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from greenops_pipelines.carbon.factors import read_factors
from greenops_pipelines.cost import reconciliation
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.cost_tables import COST_CHARGES, COST_FILES
from tests.carbon.small_lake import intensity
from tests.cost import focus_rows as rows
from tests.cost.small_cost_lake import cost_lake

OPS = """
allocation:
  tenant: {tags: [tenant]}
  service: {tags: [service]}
shared:
  - {name: tax, charge_category: Tax, split: effective_cost}
  - {name: even, service_name: Logs, split: even}
"""
MAY = datetime(2026, 5, 1, tzinfo=UTC)


def charge(number: int, tenant: str | None, cost: str, **other: Any) -> rows.Row:
    tags = None if tenant is None else f'{{"tenant": "{tenant}", "service": "web"}}'
    return rows.USAGE | {"ResourceId": f"i-{number}", "Tags": tags, "BilledCost": cost, "EffectiveCost": cost} | other


# acme 2.00 and globex 1.00 directly, 0.50 that nobody owns; tax of 0.10, and logs of 0.07 for everybody.
BILL = [
    charge(1, "acme", "2", SkuPriceDetails='{"CoreCount": 10}', ConsumedQuantity="10"),
    charge(2, "globex", "1", SkuPriceDetails=None),
    charge(3, None, "0.5", SkuPriceDetails=None),
    charge(4, None, "0.1", ChargeCategory="Tax", SkuPriceDetails=None),
    charge(5, None, "0.07", ServiceName="Logs", SkuPriceDetails=None),
    charge(6, "acme", "4", BillingCurrency="EUR", SkuPriceDetails=None),
    rows.PURCHASE | {"Tags": None},
    rows.USED | {"Tags": None},
    rows.UNUSED | {"Tags": None},
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    hour = intensity("IE", MAY, 500.0, day=MAY.date())
    return cost_lake(tmp_path_factory.mktemp("cost"), OPS, BILL, intensity=[hour])


def sums(lake: Lake, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in lake.query(sql).to_pylist()]


def test_a_month_is_its_charges_per_currency(lake: Lake) -> None:
    assert sums(
        lake, "select currency, sum(billed_cost), sum(charges)::int from cost_monthly group by all order by 1"
    ) == [
        ("EUR", Decimal(4), 1),
        # 2 + 1 + 0.5 + 0.1 + 0.07 and the plan's purchase of 1; what it covers is billed with 0.
        ("USD", Decimal("4.67"), 8),
    ]


def test_shared_costs_are_split_to_the_last_digit(lake: Lake) -> None:
    found = sums(
        lake,
        "select allocated_method_id, tenant, sum(effective_cost) from cost_allocated_monthly where currency = 'USD' and allocated_method_id <> '' "
        "group by all order by 1, 2",
    )
    # Logs evenly: 0.035 each. Tax as 2 to 1: 0.066667 (rounded) and what is left.
    assert found == [
        ("even", "acme", Decimal("0.035")),
        ("even", "globex", Decimal("0.035")),
        ("tax", "acme", Decimal("0.066667")),
        ("tax", "globex", Decimal("0.033333")),
    ]
    unallocated = "select sum(effective_cost) from cost_allocated_monthly where tenant = '' and currency = 'USD'"
    # What nobody owns: 0.5, and the plan's 0.75 used and 0.25 not.
    assert sums(lake, unallocated) == [(Decimal("1.5"),)]


def test_a_commitment_comes_to_what_was_bought(lake: Lake) -> None:
    assert sums(lake, "select purchased, used, unused, is_whole from cost_commitments_monthly") == [
        (Decimal(1), Decimal("0.75"), Decimal("0.25"), True)
    ]


def test_carbon_stands_on_the_row_that_used_the_power(lake: Lake) -> None:
    watts = {row["factor"]: row["value"] for row in read_factors().to_pylist()}
    busy = watts["cpu_default_utilization"]
    per_vcpu = watts["cpu_min_w_per_vcpu"] + busy * (watts["cpu_max_w_per_vcpu"] - watts["cpu_min_w_per_vcpu"])
    (found,) = sums(
        lake,
        "select row_number, billed_cost, energy_kwh, operational_kg, zone from cost_charge_carbon where row_number = 1",
    )
    # 10 hours of 10 cores, PUE 2, half a kilogram per kWh.
    kwh = 100 * per_vcpu / 1000 * 2
    assert found == (1, Decimal(2), pytest.approx(kwh), pytest.approx(kwh / 2), "IE")
    # No other row says what it used, but for the plan's covered hours of two cores.
    assert sums(lake, "select row_number from cost_charge_carbon order by 1") == [(1,), (8,)]


def test_every_stage_reconciles_with_the_raw_file(lake: Lake) -> None:
    found = reconciliation.reconcile(lake)
    assert found.num_rows == 2 * 4
    measured = reconciliation.measurement(found)
    assert (measured.measured, measured.outcome) == (0.0, "passed")


@pytest.mark.parametrize("change", ["digit", "lost", "doubled"])
def test_a_single_digit_or_row_that_differs_is_found(change: str, lake: Lake) -> None:
    stored = lake.read(COST_CHARGES)
    where = {"source": "file", "billing_period": date(2026, 5, 1)}
    changed = stored.to_pylist()
    if change == "digit":
        changed[0]["billed_cost"] += Decimal("0.000000000001")
    elif change == "lost":
        changed = [row for row in changed if row["billed_cost"] != 0 or row["effective_cost"] != Decimal("0.25")]
    else:
        changed.append(changed[-1] | {"row_number": 99, "billed_cost": Decimal(0), "effective_cost": Decimal(0)})
    try:
        lake.write(COST_CHARGES, pa.Table.from_pylist(changed, schema=COST_CHARGES.schema), [where])
        measured = reconciliation.measurement(reconciliation.reconcile(lake))
        assert measured.outcome == "failed"
        assert measured.measured == pytest.approx({"digit": 1e-12, "lost": 0.25, "doubled": 1}[change], rel=1e-9)
    finally:
        lake.write(COST_CHARGES, stored, [where])


def test_the_check_says_where_a_stage_differs(lake: Lake) -> None:
    found = reconciliation.reconcile(lake).to_pylist()
    found[1]["billed_difference"] = Decimal("0.01")
    detail = reconciliation.measurement(pa.Table.from_pylist(found)).detail
    assert detail.startswith(f"{found[1]['stage']}, 2026-05 EUR: differs by 0.01 billed")


def test_the_files_table_explains_itself(lake: Lake) -> None:
    (eur, usd) = sorted(lake.read(COST_FILES).to_pylist(), key=lambda row: row["currency"])
    assert (eur["name"], eur["state"], usd["billed_cost"], usd["charges"]) == ("bill.csv", "counts", Decimal("4.67"), 8)
