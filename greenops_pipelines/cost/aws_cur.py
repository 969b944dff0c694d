"""AWS' Cost and Usage Report of before FOCUS (CUR, legacy and 2.0) in the columns of FOCUS: SQL per column.

What was billed is `lineItem/UnblendedCost` on every line, so that the sum of a file stays what AWS billed: the on-demand price
of usage that a savings plan covers stands there once as covered usage and once, negative, as its negation. What it cost
effectively follows AWS' own amortisation (AWS, "CUR Query Library": amortised cost):

    DiscountedUsage           reservation/EffectiveCost
    SavingsPlanCoveredUsage   savingsPlan/SavingsPlanEffectiveCost
    SavingsPlanNegation       0
    SavingsPlanUpfrontFee     0
    SavingsPlanRecurringFee   savingsPlan/TotalCommitmentToDate - savingsPlan/UsedCommitment (what was not used)
    RIFee                     reservation/UnusedAmortizedUpfrontFeeForBillingPeriod + reservation/UnusedRecurringFee
    Fee of a reservation      0
    anything else             lineItem/UnblendedCost
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from greenops_pipelines.lake.catalog import identifier, quoted

_SIGN = "line_item_unblended_cost"

_CATEGORY = {
    "Usage": "Usage",
    "DiscountedUsage": "Usage",
    "SavingsPlanCoveredUsage": "Usage",
    "SavingsPlanNegation": "Usage",
    "Fee": "Purchase",
    "RIFee": "Purchase",
    "SavingsPlanUpfrontFee": "Purchase",
    "SavingsPlanRecurringFee": "Purchase",
    "Tax": "Tax",
    "Credit": "Credit",
    "BundledDiscount": "Credit",
    "EdpDiscount": "Credit",
    "PrivateRateDiscount": "Credit",
    "Refund": "Adjustment",
}

_SERVICES = {
    "AmazonEC2": "Compute",
    "AWSLambda": "Compute",
    "AmazonECS": "Compute",
    "AmazonEKS": "Compute",
    "AmazonS3": "Storage",
    "AmazonEFS": "Storage",
    "AmazonRDS": "Databases",
    "AmazonDynamoDB": "Databases",
    "AmazonElastiCache": "Databases",
    "AmazonVPC": "Networking",
    "AWSELB": "Networking",
    "AmazonCloudFront": "Networking",
    "AWSDataTransfer": "Networking",
    "AmazonBedrock": "AI and Machine Learning",
    "AmazonSageMaker": "AI and Machine Learning",
    "AmazonCloudWatch": "Management and Governance",
    "awskms": "Security",
    "AmazonSNS": "Integration",
    "AWSQueueService": "Integration",
}


def is_cur(names: Mapping[str, str]) -> bool:
    """Whether a file's columns are those of a Cost and Usage Report."""
    return any(_normal(name) == _SIGN for name in names)


def expressions(names: Mapping[str, str]) -> dict[str, str]:
    """SQL text per column of FOCUS, for the columns that the report has."""
    found = {_normal(name): name for name in names}

    def column(name: str) -> str | None:
        return f"nullif({identifier(found[name])}::varchar, '')" if name in found else None

    def number(name: str) -> str:
        return f"coalesce(try_cast({column(name)} as decimal(38, 18)), 0)" if name in found else "0"

    kind = column("line_item_line_item_type") or "'Usage'"
    unblended = column(_SIGN) or "null"
    category = " ".join(f"when {quoted(k)} then {quoted(v)}" for k, v in _CATEGORY.items())
    service = " ".join(f"when {quoted(k)} then {quoted(v)}" for k, v in _SERVICES.items())
    code = column("line_item_product_code") or "'AWS'"
    effective = (
        f"case {kind} when 'DiscountedUsage' then {number('reservation_effective_cost')}::varchar "
        f"when 'SavingsPlanCoveredUsage' then {number('savings_plan_savings_plan_effective_cost')}::varchar "
        "when 'SavingsPlanNegation' then '0' when 'SavingsPlanUpfrontFee' then '0' "
        f"when 'SavingsPlanRecurringFee' then ({number('savings_plan_total_commitment_to_date')} - {number('savings_plan_used_commitment')})::varchar "
        f"when 'RIFee' then ({number('reservation_unused_amortized_upfront_fee_for_billing_period')} + {number('reservation_unused_recurring_fee')})::varchar "
        f"when 'Fee' then case when {column('reservation_reservation_a_r_n') or 'null'} is not null then '0' else {unblended} end "
        f"else {unblended} end"
    )
    used = kind + " in ('DiscountedUsage', 'SavingsPlanCoveredUsage')"
    commitment = f"coalesce({column('reservation_reservation_a_r_n') or 'null'}, {column('savings_plan_savings_plan_a_r_n') or 'null'})"
    listed: dict[str, str | None] = {
        "ServiceProviderName": "'AWS'",
        "HostProviderName": "'AWS'",
        "PublisherName": column("bill_billing_entity"),
        "InvoiceIssuerName": column("line_item_legal_entity"),
        "InvoiceId": column("bill_invoice_id"),
        "BillingAccountId": column("bill_payer_account_id"),
        "SubAccountId": column("line_item_usage_account_id"),
        "BillingPeriodStart": column("bill_billing_period_start_date"),
        "BillingPeriodEnd": column("bill_billing_period_end_date"),
        "ChargePeriodStart": column("line_item_usage_start_date"),
        "ChargePeriodEnd": column("line_item_usage_end_date"),
        "ChargeCategory": f"case {kind} {category} else 'Adjustment' end",
        "ChargeDescription": column("line_item_line_item_description"),
        "ChargeFrequency": f"case when {kind} in ('Fee', 'SavingsPlanUpfrontFee', 'Credit', 'Refund', 'Tax') then 'One-Time' "
        f"when {kind} in ('RIFee', 'SavingsPlanRecurringFee') then 'Recurring' else 'Usage-Based' end",
        "BilledCost": unblended,
        "EffectiveCost": effective,
        "ListCost": column("pricing_public_on_demand_cost"),
        "ListUnitPrice": column("pricing_public_on_demand_rate"),
        "BillingCurrency": column("line_item_currency_code") or "'USD'",
        "ServiceName": f"coalesce({column('product_product_name') or 'null'}, {code})",
        "ServiceCategory": f"case {code} {service} else 'Other' end",
        "RegionId": column("product_region_code") or column("product_region"),
        "AvailabilityZone": column("line_item_availability_zone"),
        "ResourceId": column("line_item_resource_id"),
        "SkuId": column("product_sku"),
        "SkuPriceId": column("pricing_rate_id"),
        "PricingCategory": f"case when {used} then 'Committed' when {kind} = 'Usage' then 'Standard' end",
        "PricingQuantity": column("line_item_usage_amount"),
        "PricingUnit": column("pricing_unit"),
        "ConsumedQuantity": f"case when {kind} in ('Usage', 'DiscountedUsage', 'SavingsPlanCoveredUsage') then {column('line_item_usage_amount') or 'null'} end",
        "ConsumedUnit": f"case when {kind} in ('Usage', 'DiscountedUsage', 'SavingsPlanCoveredUsage') then {column('pricing_unit') or 'null'} end",
        "CommitmentDiscountId": commitment,
        "CommitmentDiscountStatus": f"case when {used} then 'Used' end",
        "Tags": _tags(found),
    }
    return {name: sql for name, sql in listed.items() if sql is not None}


def _normal(name: str) -> str:
    """`lineItem/UnblendedCost` and `line_item_unblended_cost` are one."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z])", "_", name)
    return re.sub(r"[/_]+", "_", split).lower() if "resourceTags" not in name else name


def _tags(found: Mapping[str, str]) -> str | None:
    """Tags stand in a column each, `resourceTags/user:team`, or in one map, `resource_tags`."""
    if "resource_tags" in found:
        return f"to_json({identifier(found['resource_tags'])})::varchar"
    tags = {
        name.partition("/")[2].removeprefix("user:"): name
        for name in found.values()
        if name.startswith("resourceTags/")
    }
    if not tags:
        return None
    pairs = ", ".join(f"{quoted(key)}: nullif({identifier(name)}::varchar, '')" for key, name in sorted(tags.items()))
    return f"json_merge_patch('{{}}', to_json({{{pairs}}}))::varchar"
