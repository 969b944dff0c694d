"""Every rule of FOCUS: it passes on charges that fit, and finds the one that was broken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from greenops_pipelines.cost.columns import SPECS, focus_columns
from greenops_pipelines.cost.rules import Rule, all_rules
from greenops_pipelines.cost.validate import Outcome, validate
from tests.cost import focus_rows as rows

RULES = {rule.id: rule for rule in all_rules()}
# Rows of rows.BASE by what they are.
USAGE, PURCHASE, USED, UNUSED, TAX, CREDIT, CORRECTION, MARKET, RESERVED, IDLE, VIRTUAL = range(len(rows.BASE))

NO_ACCOUNT = rows.USAGE | {"BillingAccountId": None, "BillingAccountType": None, "BillingAccountName": None}
NO_INVOICE = rows.newest(rows.USAGE | {"InvoiceId": None})
DYNAMIC = Path(__file__).parents[3] / "shared/data/focus/dynamic_must_rules.txt"
EXTRA = {"BillingAccountType-C-004-C": NO_ACCOUNT, "x-InvoiceDetailId-4": NO_INVOICE}
"""Rows that no charge that fits every rule could be, for the two rules about them."""

# Rule: (row, what is written over it). -1 is the row of EXTRA.
BROKEN: dict[str, tuple[int, dict[str, str | None]]] = {
    "DateTimeFormat-A-001-M": (USAGE, {"ChargePeriodStart": "2026-05-01T00:00:00+02:00"}),
    "DateTimeFormat-A-002-M": (USAGE, {"ChargePeriodStart": "01.05.2026 00:00"}),
    "DateTimeFormat-A-004-M": (USAGE, {"ChargePeriodStart": "2026-05-01 00:00:00Z"}),
    "DateTimeFormat-A-005-M": (USAGE, {"ChargePeriodStart": "2026-05-01T0:00:00Z"}),
    "DateTimeFormat-A-006-M": (USAGE, {"ChargePeriodStart": "2026-05-01T00:00:00"}),
    "CurrencyFormat-A-001-C": (USAGE, {"BillingCurrency": "US$"}),
    "CurrencyFormat-A-002-C": (VIRTUAL, {"PricingCurrency": "credits \ufffd"}),
    "NumericFormat-A-002-M": (USAGE, {"BilledCost": "1 2"}),
    "NumericFormat-A-003-M": (USAGE, {"BilledCost": "twelve"}),
    "NumericFormat-A-004-M": (USAGE, {"BilledCost": "1/2"}),
    "NumericFormat-A-005-M": (USAGE, {"BilledCost": "3x10^8"}),
    "NumericFormat-A-006-M": (USAGE, {"BilledCost": "3E+8"}),
    "NumericFormat-A-007-M": (USAGE, {"BilledCost": "=1+2"}),
    "NumericFormat-A-008-M": (USAGE, {"BilledCost": "$12"}),
    "NumericFormat-A-009-M": (USAGE, {"BilledCost": "1,234.56"}),
    "NumericFormat-A-010-M": (USAGE, {"BilledCost": "+3"}),
    "NumericFormat-A-011-M": (USAGE, {"BilledCost": "(3.00)"}),
    "NumericFormat-A-012-M": (USAGE, {"BilledCost": "abc"}),
    "StringHandling-A-001-M": (USAGE, {"ResourceName": "caf\ufffd"}),
    "UnitFormat-A-003-M": (USAGE, {"ConsumedUnit": "hours"}),
    "KeyValueFormat-A-001-M": (USAGE, {"Tags": '["a"]'}),
    "KeyValueFormat-A-002-M": (USAGE, {"Tags": '{"a": "1", "a": "2"}'}),
    "KeyValueFormat-A-003-M": (USAGE, {"Tags": '{"a": {"b": "1"}}'}),
    "KeyValueFormat-A-004-M": (USAGE, {"Tags": '{"a": ["1"]}'}),
    "NullHandling-A-001-C": (USAGE, {"ResourceName": ""}),
    "NullHandling-A-002-M": (USAGE, {"RegionName": "Not Applicable"}),
    "DiscountHandling-A-006-C": (USED, {"CommitmentDiscountId": None}),
    "DiscountHandling-A-009-C": (USED, {"BilledCost": "0.75"}),
    "DiscountHandling-A-011-C": (USED, {"EffectiveCost": "0.7"}),
    "DiscountHandling-A-012-C": (PURCHASE, {"ResourceId": "i-1"}),
    "DiscountHandling-A-013-C": (PURCHASE, {"ChargeCategory": "Usage"}),
    "DiscountHandling-A-014-C": (USED, {"CommitmentDiscountStatus": None}),
    "DiscountHandling-A-015-C": (USED, {"CommitmentDiscountId": None}),
    "DiscountHandling-A-016-C": (USED, {"ResourceId": None}),
    "DiscountHandling-A-018-C": (UNUSED, {"ChargeCategory": "Purchase"}),
    "DiscountHandling-A-019-C": (UNUSED, {"ResourceId": "i-1"}),
    "BillingPeriodStart-C-004-M": (USAGE, {"BillingPeriodStart": "2026-06-01T00:00:00Z"}),
    "BillingPeriodEnd-C-004-M": (USAGE, {"BillingPeriodEnd": "2026-05-31T23:59:59Z"}),
    "ChargePeriodStart-C-004-M": (USAGE, {"ChargePeriodStart": "2026-05-01T01:00:00Z"}),
    "ChargePeriodEnd-C-004-M": (USAGE, {"ChargePeriodEnd": "2026-05-01T00:59:59Z"}),
    "PricingQuantity-C-009-C": (USAGE, {"ContractedCost": "0.3"}),
    "ContractedCost-C-009-C": (USAGE, {"ContractedCost": "0.3"}),
    "ContractedUnitPrice-C-011-C": (USAGE, {"ContractedCost": "0.3"}),
    "ListUnitPrice-C-010-C": (USAGE, {"ListCost": "0.3"}),
    "ListCost-C-009-C": (USAGE, {"ListCost": "0.3"}),
    "CommitmentDiscountId-C-005-C": (USED, {"CommitmentDiscountId": None}),
    "ResourceId-C-005-C": (USAGE, {"ResourceId": None}),
    "SkuPriceId-C-008-M": (USAGE, {"SkuId": "SKU-9"}),
    "SkuPriceId-C-012-C": (USAGE, {"ServiceName": None, "ResourceId": None}),
    "SkuId-C-011-C": (USAGE, {"ServiceName": None, "ResourceId": None}),
    "ServiceName-C-005-C": (USAGE, {"ServiceCategory": "Storage"}),
    "ServiceName-C-008-C": (USAGE, {"ServiceSubcategory": "Containers"}),
    "InvoiceId-C-007-C": (USAGE, {"BillingAccountId": "999"}),
    "SkuPriceDetails-C-007-M": (USAGE, {"SkuPriceId": None}),
    "SkuPriceDetails-C-017-C": (USAGE, {"SkuPriceDetails": '{"Tenancy": "Shared"}'}),
    "SkuPriceDetails-C-020-M": (USAGE, {"SkuPriceDetails": '{"coreCount": 2}'}),
    "SkuPriceDetails-C-021-M": (USAGE, {"SkuPriceDetails": '{"CoreCount": "two"}'}),
    "PricingCategory-C-009-C": (USED, {"PricingCategory": "Standard"}),
    "CommitmentDiscountUnit-C-008-M": (USED, {"CommitmentDiscountUnit": "Hours"}),
    "EffectiveCost-C-010-C": (CREDIT, {"EffectiveCost": "-3"}),
    "EffectiveCost-C-012-C": (UNUSED, {"EffectiveCost": "0.2"}),
    "EffectiveCost-C-013-C": (USED, {"CommitmentDiscountStatus": None}),
    "RegionId-C-004-C": (USAGE, {"RegionId": None}),
    "BillingCurrency-C-005-M": (USAGE, {"BillingCurrency": "EUR"}),
    "BillingAccountId-C-004-M": (USAGE, {"ProviderName": "Other Cloud"}),
    "BillingAccountType-C-006-M": (USAGE, {"BillingAccountType": "Other"}),
    "SubAccountType-C-006-M": (USAGE, {"SubAccountType": "Other"}),
    "Tags-C-008-M": (USAGE, {"Tags": '{"flag": ""}'}),
    "ResourceName-C-004-C": (TAX, {"ResourceName": "web"}),
    "ContractedCost-C-008-C": (CREDIT, {"ContractedCost": "-3"}),
    "ListCost-C-008-C": (CREDIT, {"ListCost": "-3"}),
    "SubAccountId-C-005-C": (USAGE, {"SubAccountId": None}),
    "CapacityReservationStatus-C-007-C": (IDLE, {"CapacityReservationStatus": "Used"}),
    "CapacityReservationStatus-C-008-C": (RESERVED, {"CapacityReservationStatus": "Unused"}),
    "CapacityReservationId-C-005-C": (IDLE, {"CapacityReservationId": None}),
    "BilledCost-C-005-C": (MARKET, {"BilledCost": "9"}),
    "EffectiveCost-C-005-C": (PURCHASE, {"EffectiveCost": "1"}),
    "PricingCurrencyEffectiveCost-C-005-M": (PURCHASE, {"PricingCurrencyEffectiveCost": "1"}),
    "ServiceSubcategory-C-004-M": (USAGE, {"ServiceSubcategory": "Object Storage"}),
    "ChargeFrequency-C-004-C": (PURCHASE, {"ChargeFrequency": "Usage-Based"}),
    "BillingCurrency-C-006-M": (USAGE, {"BillingCurrency": "Tokens"}),
    "ConsumedQuantity-C-004-C": (TAX, {"ConsumedQuantity": "1"}),
    "CommitmentDiscountQuantity-C-007-C": (USAGE, {"CommitmentDiscountQuantity": "1"}),
    "BillingAccountType-C-004-C": (-1, {"BillingAccountType": "Payer Account"}),
    "x-InvoiceDetailId-4": (-1, {"InvoiceDetailId": "L-9"}),
}

BAD_VALUE = {
    "fmt_text": "bad \ufffd", "fmt_number": "1,5", "fmt_time": "2026-05-01 00:00:00", "fmt_unit": "gib", "fmt_currency": "usd",
    "fmt_key_value": '{"a": {"b": 1}}', "is_decimal": "abc", "is_time": "yesterday", "is_json_object": "[1]",
}  # fmt: skip


def spec_for(rule: Rule) -> str:
    return max(rule.since, "1.2") if not rule.until else min(rule.until, "1.2")


_OUTCOMES: dict[str, dict[str, Outcome]] = {}


def passed(spec: str, folder: Path) -> dict[str, Outcome]:
    """What becomes of every rule on charges that fit; one validation per version."""
    if spec not in _OUTCOMES:
        done = validate(rows.write(folder / "all.csv", rows.rows_for(spec)), spec)
        _OUTCOMES[spec] = {outcome.rule.id: outcome for outcome in done.outcomes}
    return _OUTCOMES[spec]


def fitting(rule: Rule, spec: str) -> list[rows.Row]:
    return [*rows.rows_for(spec), *([EXTRA[rule.id]] if rule.id in EXTRA else [])]


def broken(rule: Rule, spec: str) -> tuple[list[rows.Row], int]:
    """Charges of which one breaks the rule, and which: by the table above, else by what the rule's check says."""
    found = fitting(rule, spec)
    if rule.id in BROKEN:
        place, values = BROKEN[rule.id]
        place %= len(found)
        return _with(found, place, values), place
    if match := re.fullmatch(r"(fmt_\w+|is_decimal|is_time|is_json_object)\((\w+)\)", rule.check):
        return _with(found, USAGE, {match[2]: BAD_VALUE[match[1]]}), USAGE
    if match := re.fullmatch(r"num\((\w+)\) (>= 0|is not null)", rule.check):
        return _with(found, USAGE, {match[1]: "-1" if match[2] == ">= 0" else "abc"}), USAGE
    if match := re.fullmatch(r"(\w+) (in \(.*\)|= 'Correction')", rule.check):
        place = {
            "CommitmentDiscountCategory": USED,
            "CommitmentDiscountStatus": USED,
            "CapacityReservationStatus": RESERVED,
            "ChargeClass": CORRECTION,
        }
        at = place.get(match[1], USAGE)
        return _with(found, at, {match[1]: "Nonsense"}), at
    match = re.fullmatch(r"(\w+) is (not )?null", rule.check)
    assert match, rule.check
    at = next(n for n, row in enumerate(found) if _meets(row, rule.when))
    if match[2]:
        return _with(found, at, {match[1]: None}), at
    value = (
        "1"
        if focus_columns()[match[1]].type == "decimal"
        else "{}"
        if focus_columns()[match[1]].type == "json"
        else "something"
    )
    return _with(found, at, {match[1]: value}), at


def _meets(row: rows.Row, condition: str) -> bool:
    if not condition:
        return True
    names = {k: v for k, v in row.items() if re.search(rf"\b{k}\b", condition)}
    with duckdb.connect() as connection:
        listed = ", ".join(f"?::varchar as {name}" for name in names)
        return bool(
            connection.execute(
                f"select coalesce(({condition}), false) from (select {listed})", list(names.values())
            ).fetchall()[0][0]
        )


def _with(found: list[rows.Row], place: int, values: dict[str, str | None]) -> list[rows.Row]:
    if "ProviderName" in values and "ProviderName" not in found[place]:
        values = {"ServiceProviderName": values["ProviderName"]}
    return [row | values if n == place else row for n, row in enumerate(found)]


OF_ROWS = [rule for rule in all_rules() if rule.kind in ("row", "group") and not rule.check.startswith("is_text(")]


@pytest.mark.parametrize("rule", OF_ROWS, ids=lambda rule: rule.id)
def test_a_rule_passes_on_rows_that_fit_and_finds_the_one_that_does_not(rule: Rule, tmp_path: Path) -> None:
    spec = spec_for(rule)
    good = (
        validate(rows.write(tmp_path / "good.csv", fitting(rule, spec)), spec, [rule.id]).outcomes[0]
        if rule.id in EXTRA
        else passed(spec, tmp_path)[rule.id]
    )
    assert (good.status, good.failing_rows, good.examples) == ("passed", 0, ())
    listed, place = broken(rule, spec)
    bad = validate(rows.write(tmp_path / "bad.csv", listed), spec, [rule.id]).outcomes[0]
    assert bad.status == "failed"
    found = [example["row"] for example in bad.examples]
    assert place + 1 in found or rule.kind == "group"
    assert bad.failing_rows == 1 or rule.kind == "group"


def _some(rules: list[Rule]) -> list[Any]:
    """A rule per column, all of one kind: a few of them each time, the others in `make soak`."""
    return [rule if number < 6 else pytest.param(rule, marks=pytest.mark.soak) for number, rule in enumerate(rules)]


@pytest.mark.parametrize(
    "rule", _some([r for r in all_rules() if r.check.startswith("is_text(")]), ids=lambda rule: rule.id
)
def test_a_column_of_another_type_than_text_is_found(rule: Rule, tmp_path: Path) -> None:
    spec, name = spec_for(rule), rule.check[8:-1]
    csv = rows.write(tmp_path / "all.csv", rows.rows_for(spec))
    with duckdb.connect() as connection:
        for file, value in (("good", name), ("bad", f"strlen({name})")):
            sql = f"select * replace ({value} as {name}) from read_csv('{csv}', all_varchar = true)"
            connection.execute(f"copy ({sql}) to '{tmp_path / file}.parquet' (format parquet)")
    assert validate(tmp_path / "good.parquet", spec, [rule.id]).outcomes[0].status == "passed"
    bad = validate(tmp_path / "bad.parquet", spec, [rule.id]).outcomes[0]
    assert (bad.status, bad.failing_rows) == ("failed", len(rows.BASE))


@pytest.mark.parametrize("rule", _some([r for r in all_rules() if r.kind == "present"]), ids=lambda rule: rule.id)
def test_a_column_that_is_not_there_is_found(rule: Rule, tmp_path: Path) -> None:
    spec = spec_for(rule)
    listed = rows.rows_for(spec)
    assert passed(spec, tmp_path)[rule.id].status == "passed"
    cut = validate(
        rows.write(tmp_path / "cut.csv", [{k: v for k, v in row.items() if k != rule.check} for row in listed]),
        spec,
        [rule.id],
    )
    # What only those who support something must have is not asked where nothing else shows that they do.
    alone = bool(rule.criteria) and cut.outcomes[0].status == "not applicable"
    assert cut.outcomes[0].status == "failed" or alone


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("ColumnHandling-A-001-M", "x_cost_centre"),
        ("ColumnHandling-A-003-M", "x_Cost-Centre"),
        ("ColumnHandling-A-010-M", "CostCentre"),
    ],
)
def test_a_misnamed_column_is_found(rule: str, name: str, tmp_path: Path) -> None:
    fine = [row | {"x_CostCentre": "1"} for row in rows.rows_for("1.2")]
    assert validate(rows.write(tmp_path / "good.csv", fine), "1.2", [rule]).outcomes[0].status == "passed"
    bad = validate(
        rows.write(tmp_path / "bad.csv", [row | {name: "1"} for row in rows.rows_for("1.2")]), "1.2", [rule]
    ).outcomes[0]
    assert (bad.status, bad.examples) == ("failed", ({"column": name},))


def _first_leaf(rule: Rule) -> Rule | None:
    for name in rule.names:
        part = RULES[name]
        if part.kind == "all":
            found = _first_leaf(part)
            if found is not None:
                return found
        elif part in OF_ROWS and part.is_mandatory >= rule.is_mandatory:
            return part
    return None


COMPOSED = [(rule, leaf) for rule in all_rules() if rule.kind == "all" and (leaf := _first_leaf(rule))]


@pytest.mark.parametrize(("rule", "leaf"), COMPOSED, ids=lambda rule: rule.id)
def test_a_rule_that_names_others_fails_with_one_of_them(rule: Rule, leaf: Rule, tmp_path: Path) -> None:
    spec = max(spec_for(rule), spec_for(leaf)) if not leaf.until else "1.2"
    listed, place = broken(leaf, spec)
    outcomes = {o.rule.id: o for o in validate(rows.write(tmp_path / "bad.csv", listed), spec, [rule.id]).outcomes}
    assert outcomes[rule.id].status == "failed"
    assert place + 1 in [example["row"] for example in outcomes[rule.id].examples] or leaf.kind == "group"


@pytest.mark.parametrize("spec", SPECS)
def test_charges_that_fit_break_no_rule_of_any_version(spec: str, tmp_path: Path) -> None:
    done = validate(rows.write(tmp_path / "all.csv", rows.rows_for(spec)), spec)
    assert done.failed == []
    assert done.counts["passed"] > 340


def test_there_are_three_hundred_rules_of_the_model_and_forty_that_no_validator_automates() -> None:
    if not DYNAMIC.exists():
        pytest.skip("needs ../shared/data/focus: the list of rules that no validator automates")
    dynamic = {line.split("\t")[0] for line in DYNAMIC.read_text(encoding="utf-8").splitlines()}
    ids = {rule.id for rule in all_rules()}
    assert len(ids) == len(all_rules())
    assert len(ids & dynamic) >= 70
    assert len({i for i in ids if not i.startswith(("x-", "CAU-"))} - dynamic) >= 390


def test_every_rule_is_tested() -> None:
    tested = {rule.id for rule in OF_ROWS} | {rule.id for rule, _ in COMPOSED}
    tested |= {r.id for r in all_rules() if r.kind in ("present", "column") or r.check.startswith("is_text(")}
    # Rules that name presence rules only are as those are.
    assert {r.id for r in all_rules()} - tested <= {
        r.id for r in all_rules() if r.kind == "all" and all(RULES[n].kind != "row" for n in r.names)
    }
