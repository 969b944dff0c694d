"""FOCUS 1.2 rows by the million, as a provider would deliver them: what the cost benchmarks read. Seeded by the row's number."""

from __future__ import annotations

from pathlib import Path

import duckdb

_ROWS = """
with numbered as (
    select i, hash(i) as h, hash(i + 1000000007) as k, (i % 2160)::int as hour, 5 + (hash(i * 3) % 40)::int as service
    from range({rows}) as t(i)
),

drawn as (
    select
        *,
        'tenant-' || lpad((h % 40)::varchar, 2, '0') as tenant,
        ['us-east-1', 'eu-central-1', 'eu-west-1', 'us-west-2', 'eu-west-3', 'eu-north-1'][1 + (k % 6)::int] as region,
        round(0.01 + (h % 1000003) / 1000003.0 * 7, 9)::decimal(38, 12) as price,
        (1 + k % 4)::decimal(38, 12) as quantity,
        timestamp '2026-07-01' + to_hours(hour) as start
    from numbered
)

select
    'AWS' as "ProviderName", 'AWS' as "PublisherName", 'Amazon Web Services, Inc.' as "InvoiceIssuerName",
    'INV-' || strftime(start, '%Y-%m') as "InvoiceId", '100000000001' as "BillingAccountId", 'Payer' as "BillingAccountName",
    'Payer Account' as "BillingAccountType", (200000000000 + h % 60)::varchar as "SubAccountId", 'account ' || h % 60 as "SubAccountName",
    'Linked Account' as "SubAccountType",
    date_trunc('month', start) at time zone 'UTC' as "BillingPeriodStart",
    (date_trunc('month', start) + interval 1 month) at time zone 'UTC' as "BillingPeriodEnd",
    start at time zone 'UTC' as "ChargePeriodStart", (start + interval 1 hour) at time zone 'UTC' as "ChargePeriodEnd",
    'Usage' as "ChargeCategory", null::varchar as "ChargeClass", 'Linux on-demand, type ' || service as "ChargeDescription",
    'Usage-Based' as "ChargeFrequency",
    (price * quantity)::decimal(24, 12) as "BilledCost", (price * quantity)::decimal(24, 12) as "EffectiveCost", (price * quantity)::decimal(24, 12) as "ListCost", (price * quantity)::decimal(24, 12) as "ContractedCost",
    price as "ListUnitPrice", price as "ContractedUnitPrice", 'Standard' as "PricingCategory", quantity as "PricingQuantity", 'Hours' as "PricingUnit",
    'USD' as "PricingCurrency", price as "PricingCurrencyContractedUnitPrice", (price * quantity)::decimal(24, 12) as "PricingCurrencyEffectiveCost",
    price as "PricingCurrencyListUnitPrice", 'USD' as "BillingCurrency", quantity as "ConsumedQuantity", 'Hours' as "ConsumedUnit",
    'Service ' || service as "ServiceName", 'Compute' as "ServiceCategory", 'Virtual Machines' as "ServiceSubcategory",
    'SKU-' || service as "SkuId", 'Compute' as "SkuMeter", 'SKU-' || service || '-' || h % 50 as "SkuPriceId",
    '{{"CoreCount": ' || 2 * (1 + k % 4) || ', "InstanceType": "m6i.large", "OperatingSystem": "Linux"}}' as "SkuPriceDetails",
    'arn:aws:ec2:' || region || ':100000000001:instance/i-' || lower(hex(h % 200000)) as "ResourceId", 'i-' || lower(hex(h % 200000)) as "ResourceName",
    'EC2 Instance' as "ResourceType", region as "RegionId", 'Region ' || region as "RegionName", region || 'a' as "AvailabilityZone",
    null::varchar as "CommitmentDiscountId", null::varchar as "CommitmentDiscountName", null::varchar as "CommitmentDiscountCategory",
    null::varchar as "CommitmentDiscountType", null::varchar as "CommitmentDiscountStatus", null::decimal(38, 12) as "CommitmentDiscountQuantity",
    null::varchar as "CommitmentDiscountUnit", null::varchar as "CapacityReservationId", null::varchar as "CapacityReservationStatus",
    '{{"tenant": "' || tenant || '", "service": "svc-' || service % 5 || '", "environment": "production", "x-cost-center": "cc-' || h % 900 || '"}}' as "Tags"
from drawn
"""


def write(path: Path, rows: int) -> None:
    """`rows` charges of three months as Parquet, or as CSV with times and numbers as FOCUS prints them."""
    with duckdb.connect(config={"temp_directory": str(path.parent)}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        sql = _ROWS.format(rows=rows)
        if path.suffix == ".parquet":
            connection.execute(f"copy ({sql}) to '{path}' (format parquet, compression zstd)")
        else:
            connection.execute(f"copy ({sql}) to '{path}' (header, timestampformat '%Y-%m-%dT%H:%M:%SZ')")
