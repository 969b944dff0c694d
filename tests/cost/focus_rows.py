"""Charges that fit FOCUS, one of each kind, to be written as a file and broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from greenops_pipelines.cost.columns import focus_columns

Row = dict[str, Any]

_PLAN = "arn:aws:savingsplans::1:savingsplan/a1"
_RESERVATION = "cr-1"

USAGE: Row = {
    "ProviderName": "AWS", "PublisherName": "AWS", "InvoiceIssuerName": "AWS", "InvoiceId": "INV-1",
    "BillingAccountId": "100", "BillingAccountName": "Payer", "BillingAccountType": "Payer Account",
    "SubAccountId": "200", "SubAccountName": "production", "SubAccountType": "Linked Account",
    "BillingPeriodStart": "2026-05-01T00:00:00Z", "BillingPeriodEnd": "2026-06-01T00:00:00Z",
    "ChargePeriodStart": "2026-05-01T00:00:00Z", "ChargePeriodEnd": "2026-05-01T01:00:00Z",
    "ChargeCategory": "Usage", "ChargeClass": None, "ChargeDescription": "m6i.large, on demand", "ChargeFrequency": "Usage-Based",
    "BilledCost": "0.2", "EffectiveCost": "0.2", "ListCost": "0.25", "ContractedCost": "0.2", "ListUnitPrice": "0.125",
    "ContractedUnitPrice": "0.1", "PricingCategory": "Standard", "PricingQuantity": "2", "PricingUnit": "Hours",
    "PricingCurrency": "USD", "PricingCurrencyContractedUnitPrice": "0.1", "PricingCurrencyEffectiveCost": "0.2",
    "PricingCurrencyListUnitPrice": "0.125", "BillingCurrency": "USD", "ConsumedQuantity": "2", "ConsumedUnit": "Hours",
    "ServiceName": "Amazon EC2", "ServiceCategory": "Compute", "ServiceSubcategory": "Virtual Machines", "SkuId": "SKU-1",
    "SkuMeter": "Compute", "SkuPriceId": "SKU-1-OD", "SkuPriceDetails": '{"CoreCount": 2, "InstanceType": "m6i.large", "x_Tenancy": "Shared"}',
    "ResourceId": "i-1", "ResourceName": "web", "ResourceType": "EC2 Instance", "RegionId": "eu-west-1", "RegionName": "EU (Ireland)",
    "AvailabilityZone": "eu-west-1b", "CommitmentDiscountId": None, "CommitmentDiscountName": None, "CommitmentDiscountCategory": None,
    "CommitmentDiscountType": None, "CommitmentDiscountStatus": None, "CommitmentDiscountQuantity": None, "CommitmentDiscountUnit": None,
    "CapacityReservationId": None, "CapacityReservationStatus": None, "Tags": '{"tenant": "acme", "env": "prod"}',
}  # fmt: skip

_COMMITTED: Row = {
    "CommitmentDiscountId": _PLAN, "CommitmentDiscountName": "Compute plan", "CommitmentDiscountCategory": "Spend",
    "CommitmentDiscountType": "Savings Plan", "CommitmentDiscountUnit": "USD",
}  # fmt: skip
_NO_SERVICE: Row = {
    "ResourceId": None, "ResourceName": None, "ResourceType": None, "RegionId": None, "RegionName": None, "AvailabilityZone": None,
    "ConsumedQuantity": None, "ConsumedUnit": None, "PricingQuantity": None, "PricingUnit": None, "PricingCategory": None,
    "ListUnitPrice": None, "ContractedUnitPrice": None, "SkuId": None, "SkuMeter": None, "SkuPriceId": None, "SkuPriceDetails": None,
    "PricingCurrencyContractedUnitPrice": None, "PricingCurrencyListUnitPrice": None, "ServiceSubcategory": "Virtual Machines",
}  # fmt: skip

# A plan of 1.00 for one hour: 0.75 of it used, 0.25 not.
PURCHASE: Row = USAGE | _COMMITTED | {
    "ChargeCategory": "Purchase", "ChargeFrequency": "Recurring", "ResourceId": _PLAN, "ResourceName": "plan", "ResourceType": "Savings Plan",
    "BilledCost": "1", "EffectiveCost": "0", "ListCost": "1", "ContractedCost": "1", "ListUnitPrice": "1", "ContractedUnitPrice": "1",
    "PricingQuantity": "1", "PricingUnit": "USD", "ConsumedQuantity": None, "ConsumedUnit": None, "PricingCurrencyEffectiveCost": "0",
    "PricingCurrencyContractedUnitPrice": "1", "PricingCurrencyListUnitPrice": "1", "CommitmentDiscountQuantity": "1",
    "SkuId": "SKU-P", "SkuPriceId": "SKU-P-1", "SkuPriceDetails": '{"x_Term": "1yr"}',
}  # fmt: skip
USED: Row = USAGE | _COMMITTED | {
    "PricingCategory": "Committed", "CommitmentDiscountStatus": "Used", "CommitmentDiscountQuantity": "0.75", "BilledCost": "0",
    "EffectiveCost": "0.75", "PricingCurrencyEffectiveCost": "0.75", "ContractedUnitPrice": "0.5", "ContractedCost": "1", "ListUnitPrice": "0.5", "ListCost": "1",
    "SkuPriceId": "SKU-1-SP",
}  # fmt: skip
UNUSED: Row = PURCHASE | {
    "ChargeCategory": "Usage", "ChargeFrequency": "Usage-Based", "PricingCategory": "Committed", "CommitmentDiscountStatus": "Unused",
    "CommitmentDiscountQuantity": "0.25", "BilledCost": "0", "EffectiveCost": "0.25", "PricingCurrencyEffectiveCost": "0.25",
    "ListCost": "0.25", "ContractedCost": "0.25", "PricingQuantity": "0.25",
}  # fmt: skip
TAX: Row = USAGE | _NO_SERVICE | {
    "ChargeCategory": "Tax", "ChargeFrequency": "One-Time", "BilledCost": "0.4", "EffectiveCost": "0.4", "ListCost": "0.4", "ContractedCost": "0.4",
}  # fmt: skip
CREDIT: Row = USAGE | _NO_SERVICE | {
    "ChargeCategory": "Credit", "ChargeFrequency": "One-Time", "BilledCost": "-3.5", "EffectiveCost": "-3.5", "ListCost": "-3.5", "ContractedCost": "-3.5",
}  # fmt: skip
CORRECTION: Row = USAGE | {
    "ChargeClass": "Correction",
    "BilledCost": "-0.1",
    "EffectiveCost": "-0.1",
    "ChargeFrequency": "One-Time",
}
MARKET: Row = USAGE | {"ProviderName": "Snow Corp", "PublisherName": "Snow Corp", "InvoiceIssuerName": "AWS", "BilledCost": "0",
                       "BillingAccountId": "101", "BillingAccountName": "Snow", "InvoiceId": "INV-2", "ServiceName": "Snow", "SkuId": "S", "SkuPriceId": "S-1",
                       "SubAccountId": None, "SubAccountName": None, "SubAccountType": None, "RegionId": None, "RegionName": None, "AvailabilityZone": None}  # fmt: skip
RESERVED: Row = USAGE | {"CapacityReservationId": _RESERVATION, "CapacityReservationStatus": "Used"}
IDLE: Row = USAGE | {
    "CapacityReservationId": _RESERVATION, "CapacityReservationStatus": "Unused", "ConsumedQuantity": None, "ConsumedUnit": None, "ChargeClass": "Correction",
}  # fmt: skip
VIRTUAL: Row = USAGE | {"PricingCurrency": "DBU credits"}

BASE: tuple[Row, ...] = (USAGE, PURCHASE, USED, UNUSED, TAX, CREDIT, CORRECTION, MARKET, RESERVED, IDLE, VIRTUAL)


def newest(row: Row) -> Row:
    """The row in the columns of FOCUS 1.4, an allocated one."""
    is_resource = row["ResourceId"] is not None
    more = {
        "ServiceProviderName": row["ProviderName"], "HostProviderName": "AWS", "AllocatedMethodId": "by-pod" if is_resource else None,
        "AllocatedMethodDetails": '{"Elements": [{"AllocatedRatio": 1}]}' if is_resource else None,
        "AllocatedResourceId": "pod-1" if is_resource else None, "AllocatedResourceName": "pod" if is_resource else None,
        "AllocatedTags": '{"team": "blue"}' if is_resource else None, "ContractApplied": '{"Elements": []}',
        "InvoiceDetailId": "L-1" if row["InvoiceId"] else None, "CommitmentProgramEligibilityDetails": '{"Programs": []}',
    }  # fmt: skip
    return {k: v for k, v in (row | more).items() if k not in ("ProviderName", "PublisherName")}


def rows_for(spec: str) -> list[Row]:
    """Conforming rows in the columns of a version."""
    if spec >= "1.3":
        return [newest(row) for row in BASE]
    known = focus_columns()
    return [{k: v for k, v in row.items() if known[k].is_in(spec)} for row in BASE]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """CSV with every value in quotes and null as an empty field without them."""
    lines = [",".join(rows[0])]
    for row in rows:
        lines.append(",".join("" if v is None else '"' + str(v).replace('"', '""') + '"' for v in row.values()))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
