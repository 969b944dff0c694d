"""Sample bills: three months of three providers as FOCUS 1.2 files, seeded; nobody was ever billed them.

They are files like any other, and take the way of any other: what is counted, allocated and reconciled here is what would be of
an operator's own. In them: eight tenants, hourly machines of three services of AWS under a savings plan that is not fully used,
databases, storage and traffic, tokens of language models by the hour (in euro), support and tax that belong to everybody, credits,
a refund, a correction of the month before, charges without tags, a day on which a tenant's traffic costs nine times its usual, and of
AWS' last closed month the earlier snapshot that the later one replaces.

A charge depends on nothing but its key, so that any two runs agree on what has already happened.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from greenops_pipelines.lake.catalog import identifier

MONTHS = 3
ANOMALY_DAY = 12
ANOMALY_TENANT = "cascade-outfitters"
ANOMALY_SERVICE = "AWS Data Transfer"
"""Whose traffic costs nine times its usual on the 12th of every even month."""

_HOURLY_COMMITMENT = "3.1"

# Columns that every row has; the rest is null unless a statement below gives it.
_COLUMNS = {
    "ProviderName": "varchar", "PublisherName": "varchar", "InvoiceIssuerName": "varchar", "InvoiceId": "varchar",
    "BillingAccountId": "varchar", "BillingAccountName": "varchar", "BillingAccountType": "varchar", "SubAccountId": "varchar",
    "SubAccountName": "varchar", "SubAccountType": "varchar", "BillingPeriodStart": "timestamptz", "BillingPeriodEnd": "timestamptz",
    "ChargePeriodStart": "timestamptz", "ChargePeriodEnd": "timestamptz", "ChargeCategory": "varchar", "ChargeClass": "varchar",
    "ChargeDescription": "varchar", "ChargeFrequency": "varchar", "BilledCost": "decimal(38,12)", "EffectiveCost": "decimal(38,12)",
    "ListCost": "decimal(38,12)", "ContractedCost": "decimal(38,12)", "ListUnitPrice": "decimal(38,12)", "ContractedUnitPrice": "decimal(38,12)",
    "PricingCategory": "varchar", "PricingQuantity": "decimal(38,12)", "PricingUnit": "varchar", "BillingCurrency": "varchar",
    "ConsumedQuantity": "decimal(38,12)", "ConsumedUnit": "varchar", "ServiceName": "varchar", "ServiceCategory": "varchar",
    "ServiceSubcategory": "varchar", "SkuId": "varchar", "SkuMeter": "varchar", "SkuPriceId": "varchar", "SkuPriceDetails": "varchar",
    "ResourceId": "varchar", "ResourceName": "varchar", "ResourceType": "varchar", "RegionId": "varchar", "RegionName": "varchar",
    "AvailabilityZone": "varchar", "CommitmentDiscountId": "varchar", "CommitmentDiscountName": "varchar",
    "CommitmentDiscountCategory": "varchar", "CommitmentDiscountType": "varchar", "CommitmentDiscountStatus": "varchar",
    "CommitmentDiscountQuantity": "decimal(38,12)", "CommitmentDiscountUnit": "varchar", "Tags": "varchar",
}  # fmt: skip


def write(folder: Path, tenants: Sequence[tuple[str, str]], now: datetime) -> list[Path]:
    """The files as of `now` (UTC), below `folder`; `tenants` are names with their home regions.

    A file whose rows have not changed keeps its bytes. Files of months that have left the window are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    wanted: list[Path] = []
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("set threads = 2")
        connection.execute(
            "create macro unit(key) as ('0x' || md5('greenops cost ' || key)[1:8])::bigint / 4294967296.0"
        )
        people = pa.table({"tenant": [t for t, _ in tenants], "home": [h for _, h in tenants]})
        connection.register("people", people)
        for first in _months(until):
            end = _next(first)
            for provider, sql in (("aws", _AWS), ("azure", _AZURE), ("google-cloud", _GOOGLE)):
                stop = min(until, _at(end))
                wanted += _file(connection, folder, provider, first, stop, sql)
                # What was delivered in the middle of the month before, and is still lying about.
                middle = _at(first) + timedelta(days=14)
                if provider == "aws" and end == until.date().replace(day=1):
                    wanted += _file(connection, folder, provider, first, middle, sql)
    for path in folder.rglob("*.parquet"):
        if path not in wanted:
            path.unlink()
    return wanted


def _file(
    connection: duckdb.DuckDBPyConnection, folder: Path, provider: str, first: date, stop: datetime, sql: str
) -> list[Path]:
    if stop <= _at(first):
        return []
    # As exports name their runs: the folder says when.
    is_closed = stop >= _at(_next(first))
    stamp = (
        f"{_next(first) + timedelta(days=2):%Y%m%d}"
        if is_closed
        else f"{stop:%Y%m%dT%H%M}"
        if stop.hour
        else f"{stop:%Y%m%d}"
    )
    path = folder / provider / f"BILLING_PERIOD={first:%Y-%m}" / stamp / f"sample-{provider}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    connection.execute(f"create or replace temp table drawn as {sql}", {"first": _at(first), "stop": stop})
    there = {row[0] for row in connection.execute("select column_name from (describe drawn)").fetchall()}
    listed = ", ".join(
        f"{identifier(n) if n in there else 'null'}::{kind} as {identifier(n)}" for n, kind in _COLUMNS.items()
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        connection.execute(
            f"copy (select {listed} from drawn order by all) to '{temporary}' (format parquet, compression zstd)"
        )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return [path]


def _months(until: datetime) -> list[date]:
    found = [until.date().replace(day=1)]
    while len(found) < MONTHS:
        found.insert(0, (found[0] - timedelta(days=1)).replace(day=1))
    return found


def _next(first: date) -> date:
    return (first + timedelta(days=32)).replace(day=1)


def _at(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


_TIMES = """
with hours as (select unnest(generate_series($first::timestamptz, $stop::timestamptz - interval 1 hour, interval 1 hour)) as hour),
days as (select distinct date_trunc('day', hour) as day from hours),
sized as (select *, 0.5 + 2.5 * unit('size' || tenant) as size from people),
services(service, vcpus) as (values ('api-gateway', 2.0), ('reporting', 3.0), ('q2q-ai', 2.0)),
period as (
    select date_trunc('month', $first::timestamptz) as s, date_trunc('month', $first::timestamptz) + interval 1 month as e,
    strftime($first::timestamptz, '%Y-%m') as month
),
"""

_ACCOUNT_AWS = """
    'AWS' as "ProviderName", 'AWS' as "PublisherName", 'Amazon Web Services, Inc.' as "InvoiceIssuerName", 'SAMPLE-AWS-' || month as "InvoiceId",
    '100000000001' as "BillingAccountId", 'Sample payer' as "BillingAccountName", 'Payer Account' as "BillingAccountType", 'USD' as "BillingCurrency",
    period.s as "BillingPeriodStart", period.e as "BillingPeriodEnd"
"""
_TAGS = """'{"tenant": "' || tenant || '", "service": "' || service || '", "environment": "production"}'"""
_PLAN = """
    'arn:aws:savingsplans::100000000001:savingsplan/sample' as "CommitmentDiscountId", 'Compute, one year' as "CommitmentDiscountName",
    'Spend' as "CommitmentDiscountCategory", 'Savings Plan' as "CommitmentDiscountType", 'USD' as "CommitmentDiscountUnit"
"""

# A working day in UTC peaks at 14:00, a weekend carries 40 %.
_LOAD = """
    round(size * vcpus / 2 * (0.6 + (0.35 + 0.65 * exp(-pow((date_part('hour', hour) - 14) / 5.0, 2)))
    * case when date_part('isodow', hour) >= 6 then 0.4 else 1 end * (0.9 + 0.2 * unit(service || tenant || epoch(hour)::bigint::varchar))), 4)
"""

_AWS = (
    _TIMES
    + f"""
machines as (
    select hour, service, tenant, home, ({_LOAD})::decimal(18, 4) as instance_hours,
        case home when 'eu-central-1' then 0.115 else 0.096 end::decimal(18, 12) as price,
        service in ('api-gateway', 'reporting') as is_committed
    from hours cross join services cross join sized
),
committed as (
    select *, round({_HOURLY_COMMITMENT} * least(0.97, 0.82 + 0.2 * unit('used' || epoch(hour)::bigint::varchar))
        * (instance_hours / sum(instance_hours) over (partition by hour))::double, 9)::decimal(18, 12) as used
    from machines where is_committed
),
daily as (select day, tenant, home, size from days cross join sized)

select {_ACCOUNT_AWS}, '2000' || lpad((10 + unit(tenant) * 80)::int::varchar, 8, '0') as "SubAccountId", tenant || ' production' as "SubAccountName", 'Linked Account' as "SubAccountType",
    hour as "ChargePeriodStart", hour + interval 1 hour as "ChargePeriodEnd", 'Usage' as "ChargeCategory",
    'Linux on-demand, m6i.large' as "ChargeDescription", 'Usage-Based' as "ChargeFrequency",
    case when used is null then instance_hours * price else 0 end as "BilledCost", coalesce(used, instance_hours * price) as "EffectiveCost",
    instance_hours * price as "ListCost", instance_hours * price as "ContractedCost", price as "ListUnitPrice", price as "ContractedUnitPrice",
    case when used is null then 'Standard' else 'Committed' end as "PricingCategory", instance_hours as "PricingQuantity", 'Hours' as "PricingUnit",
    instance_hours as "ConsumedQuantity", 'Hours' as "ConsumedUnit", 'Amazon EC2' as "ServiceName", 'Compute' as "ServiceCategory",
    'Virtual Machines' as "ServiceSubcategory", 'EC2-M6I-LARGE' as "SkuId", 'Compute' as "SkuMeter", 'EC2-M6I-LARGE-' || home as "SkuPriceId",
    '{{"CoreCount": 2, "MemorySize": 8, "InstanceType": "m6i.large", "OperatingSystem": "Linux"}}' as "SkuPriceDetails",
    'arn:aws:ec2:' || home || ':2000:fleet/' || service || '-' || tenant as "ResourceId", service || ' for ' || tenant as "ResourceName", 'Fleet' as "ResourceType",
    home as "RegionId", home as "RegionName",
    case when used is not null then 'arn:aws:savingsplans::100000000001:savingsplan/sample' end as "CommitmentDiscountId",
    case when used is not null then 'Compute, one year' end as "CommitmentDiscountName", case when used is not null then 'Spend' end as "CommitmentDiscountCategory",
    case when used is not null then 'Savings Plan' end as "CommitmentDiscountType", case when used is not null then 'Used' end as "CommitmentDiscountStatus",
    used as "CommitmentDiscountQuantity", case when used is not null then 'USD' end as "CommitmentDiscountUnit",
    -- One machine in twenty has lost its tags.
    case when unit('untagged' || service || tenant) >= 0.05 then {_TAGS} end as "Tags"
from (select *, null::decimal(18, 12) as used from machines where not is_committed union all by name from committed) cross join period

union all by name
select {_ACCOUNT_AWS}, {_PLAN}, hour as "ChargePeriodStart", hour + interval 1 hour as "ChargePeriodEnd", kind as "ChargeCategory",
    case kind when 'Purchase' then 'Savings plan, no upfront' else 'Savings plan, not used' end as "ChargeDescription",
    case kind when 'Purchase' then 'Recurring' else 'Usage-Based' end as "ChargeFrequency",
    case kind when 'Purchase' then {_HOURLY_COMMITMENT}::decimal(18, 12) else 0 end as "BilledCost",
    case kind when 'Purchase' then 0 else {_HOURLY_COMMITMENT}::decimal(18, 12) - used end as "EffectiveCost",
    case kind when 'Purchase' then {_HOURLY_COMMITMENT}::decimal(18, 12) else {_HOURLY_COMMITMENT}::decimal(18, 12) - used end as "ListCost", "ListCost" as "ContractedCost",
    1 as "ListUnitPrice", 1 as "ContractedUnitPrice", case kind when 'Purchase' then 'Standard' else 'Committed' end as "PricingCategory",
    "ListCost" as "PricingQuantity", 'USD' as "PricingUnit", case kind when 'Usage' then 'Unused' end as "CommitmentDiscountStatus",
    "ListCost" as "CommitmentDiscountQuantity", 'Savings Plans for AWS Compute' as "ServiceName", 'Compute' as "ServiceCategory",
    'Other (Compute)' as "ServiceSubcategory", 'SP' as "SkuId", 'Commitment' as "SkuMeter", 'SP-1' as "SkuPriceId",
    'arn:aws:savingsplans::100000000001:savingsplan/sample' as "ResourceId", 'sample plan' as "ResourceName", 'Savings Plan' as "ResourceType"
from (select hour, sum(used) as used from committed group by hour) cross join (values ('Purchase'), ('Usage')) as kinds(kind) cross join period

union all by name
select {_ACCOUNT_AWS}, day as "ChargePeriodStart", day + interval 1 day as "ChargePeriodEnd", 'Usage' as "ChargeCategory", what as "ChargeDescription",
    'Usage-Based' as "ChargeFrequency", (quantity * price)::decimal(18, 12) as "BilledCost", "BilledCost" as "EffectiveCost", "BilledCost" as "ListCost", "BilledCost" as "ContractedCost",
    price::decimal(18, 12) as "ListUnitPrice", price::decimal(18, 12) as "ContractedUnitPrice", 'Standard' as "PricingCategory", quantity as "PricingQuantity",
    unit_name as "PricingUnit", quantity as "ConsumedQuantity", unit_name as "ConsumedUnit", name as "ServiceName", category as "ServiceCategory", subcategory as "ServiceSubcategory",
    sku as "SkuId", what as "SkuMeter", sku || '-1' as "SkuPriceId", details as "SkuPriceDetails", 'arn:aws:' || sku || ':' || home || ':' || tenant as "ResourceId",
    sku || ' ' || tenant as "ResourceName", 'Resource' as "ResourceType", home as "RegionId", home as "RegionName",
    '2000' || lpad((10 + unit(tenant) * 80)::int::varchar, 8, '0') as "SubAccountId", tenant || ' production' as "SubAccountName", 'Linked Account' as "SubAccountType",
    case when service is not null then {_TAGS} end as "Tags"
from (
    select day, tenant, home, 'reporting' as service, 'PostgreSQL, db.r6g.large' as what, (24 * round(size, 1))::decimal(18, 4) as quantity, 0.26 as price, 'Hours' as unit_name,
        'Amazon RDS' as name, 'Databases' as category, 'Relational Databases' as subcategory, 'RDS' as sku, '{{"CoreCount": 2, "MemorySize": 16}}' as details from daily
    union all
    select day, tenant, home, 'impact-in', 'Storage, standard', (round(size * 40, 2) / 30)::decimal(18, 4), 0.023, 'GB-Months', 'Amazon S3', 'Storage', 'Object Storage', 'S3', null from daily
    union all
    select day, tenant, home, 'api-gateway', 'Data transfer out',
        (round(size * 60 * (0.85 + 0.3 * unit('traffic' || tenant || day::varchar)) * case when date_part('isodow', day) >= 6 then 0.5 else 1 end, 3)
        * case when tenant = '{ANOMALY_TENANT}' and date_part('day', day) = {ANOMALY_DAY} and date_part('month', day) % 2 = 0 then 9 else 1 end)::decimal(18, 4),
        0.09, 'GB', 'AWS Data Transfer', 'Networking', 'Network Connectivity', 'DT', null from daily
    union all
    select day, 'shared', 'us-east-1', null, 'Logs ingested', (14 + 4 * unit('logs' || day::varchar))::decimal(18, 4), 0.5, 'GB', 'Amazon CloudWatch',
        'Management and Governance', 'Observability', 'CW', null from days
) cross join period

union all by name
select {_ACCOUNT_AWS}, day as "ChargePeriodStart", day + interval 1 day as "ChargePeriodEnd", category as "ChargeCategory", class as "ChargeClass", what as "ChargeDescription",
    'One-Time' as "ChargeFrequency", amount::decimal(18, 12) as "BilledCost", amount::decimal(18, 12) as "EffectiveCost", amount::decimal(18, 12) as "ListCost",
    amount::decimal(18, 12) as "ContractedCost", case category when 'Purchase' then amount::decimal(18, 12) end as "ListUnitPrice", "ListUnitPrice" as "ContractedUnitPrice",
    case category when 'Purchase' then 1 end as "PricingQuantity", case category when 'Purchase' then 'Months' end as "PricingUnit",
    case category when 'Purchase' then 'Standard' end as "PricingCategory", case category when 'Purchase' then 'SUPPORT' end as "SkuId",
    case category when 'Purchase' then 'SUPPORT-1' end as "SkuPriceId", name as "ServiceName", kind as "ServiceCategory", 'Other (' || kind || ')' as "ServiceSubcategory"
from period cross join (
    select s as day, 'Purchase' as category, null as class, 'Business support' as what, 640.00 as amount, 'AWS Support' as name, 'Management and Governance' as kind from period
    union all select s + interval 2 day, 'Tax', null, 'Value added tax', 318.27, 'Tax', 'Other' from period
    union all select s + interval 4 day, 'Credit', null, 'Migration credit', -250.00, 'AWS Credits', 'Other' from period
    union all select s + interval 6 day, 'Adjustment', null, 'Refund of a support case', -38.40, 'AWS Support', 'Management and Governance' from period
    union all select s + interval 1 day, 'Usage', 'Correction', 'Correction of the month before: traffic counted twice', -12.615, 'AWS Data Transfer', 'Networking' from period
) where day < $stop
"""
)

_AZURE = (
    _TIMES
    + """
models(model, input, output) as (values ('gpt-large', 0.0000023, 0.0000092), ('gpt-small', 0.00000014, 0.00000055)),
calls as (
    select hour, tenant, home, model, class, service,
        (round(size * case when model = 'gpt-large' then 260000 else 900000 end
        * case class when 'input' then 1 when 'cached' then 0.35 else 0.22 end * case service when 'q2q-ai' then 1 else 0.4 end
        * exp(-pow((date_part('hour', hour) - 13) / 4.0, 2))
        * (0.8 + 0.4 * unit(tenant || model || class || service || epoch(hour)::bigint::varchar))))::decimal(18, 0) as tokens,
        case class when 'output' then output when 'cached' then input / 2 else input end as price
    from hours cross join sized cross join models cross join (values ('input'), ('cached'), ('output')) as c(class)
        cross join (values ('q2q-ai', 'gpt-large'), ('q2q-ai', 'gpt-small'), ('reporting', 'gpt-small')) as s(service, served)
    where served = model and date_part('hour', hour) between 7 and 19 and date_part('isodow', hour) < 6 and unit('ai ' || tenant) < 0.7
)

select 'Microsoft' as "ProviderName", 'Microsoft' as "PublisherName", 'Microsoft' as "InvoiceIssuerName", 'SAMPLE-AZ-' || month as "InvoiceId",
    '/billingAccounts/sample' as "BillingAccountId", 'Sample enrolment' as "BillingAccountName", 'Billing Account' as "BillingAccountType", 'EUR' as "BillingCurrency",
    tenant as "SubAccountId", tenant as "SubAccountName", 'Subscription' as "SubAccountType", period.s as "BillingPeriodStart", period.e as "BillingPeriodEnd",
    hour as "ChargePeriodStart", hour + interval 1 hour as "ChargePeriodEnd", 'Usage' as "ChargeCategory", model || ', ' || class || ' tokens' as "ChargeDescription",
    'Usage-Based' as "ChargeFrequency", (tokens * price)::decimal(18, 12) as "BilledCost", "BilledCost" as "EffectiveCost", "BilledCost" as "ListCost", "BilledCost" as "ContractedCost",
    price::decimal(18, 12) as "ListUnitPrice", price::decimal(18, 12) as "ContractedUnitPrice", 'Standard' as "PricingCategory", tokens as "PricingQuantity", 'Tokens' as "PricingUnit",
    tokens as "ConsumedQuantity", 'Tokens' as "ConsumedUnit", 'Azure OpenAI' as "ServiceName", 'AI and Machine Learning' as "ServiceCategory", 'Generative AI' as "ServiceSubcategory",
    'AOAI-' || model as "SkuId", class as "SkuMeter", 'AOAI-' || model || '-' || class as "SkuPriceId", '/sample/openai/' || service || '/' || tenant as "ResourceId",
    service || ' ' || tenant as "ResourceName", 'Deployment' as "ResourceType", case home when 'us-east-1' then 'eastus' else 'germanywestcentral' end as "RegionId", "RegionId" as "RegionName",
    '{"tenant": "' || tenant || '", "app": "' || service || '", "env": "production", "model": "' || model || '"}' as "Tags"
from calls cross join period
where tokens > 0
"""
)

_GOOGLE = (
    _TIMES
    + """
daily as (select day, tenant, size from days cross join sized)

select 'Google Cloud' as "ProviderName", 'Google Cloud' as "PublisherName", 'Google Cloud EMEA Limited' as "InvoiceIssuerName", 'SAMPLE-GC-' || month as "InvoiceId",
    'SAMPLE-01' as "BillingAccountId", 'Sample billing account' as "BillingAccountName", 'Billing Account' as "BillingAccountType", 'USD' as "BillingCurrency",
    'analytics' as "SubAccountId", 'analytics' as "SubAccountName", 'Project' as "SubAccountType", period.s as "BillingPeriodStart", period.e as "BillingPeriodEnd",
    day as "ChargePeriodStart", day + interval 1 day as "ChargePeriodEnd", 'Usage' as "ChargeCategory", what as "ChargeDescription", 'Usage-Based' as "ChargeFrequency",
    (quantity * price)::decimal(18, 12) as "BilledCost", "BilledCost" as "EffectiveCost", "BilledCost" as "ListCost", "BilledCost" as "ContractedCost",
    price::decimal(18, 12) as "ListUnitPrice", price::decimal(18, 12) as "ContractedUnitPrice", 'Standard' as "PricingCategory", quantity as "PricingQuantity", unit_name as "PricingUnit",
    quantity as "ConsumedQuantity", unit_name as "ConsumedUnit", name as "ServiceName", category as "ServiceCategory", subcategory as "ServiceSubcategory", sku as "SkuId", what as "SkuMeter",
    sku || '-1' as "SkuPriceId", '//sample/' || sku || '/' || tenant as "ResourceId", sku || ' ' || tenant as "ResourceName", 'Dataset' as "ResourceType", 'europe-west3' as "RegionId",
    'Frankfurt' as "RegionName", '{"customer": "' || tenant || '", "service": "reporting"}' as "Tags"
from (
    select day, tenant, 'Queries' as what, (round(size * 2.4 * (0.8 + 0.4 * unit('bq' || tenant || day::varchar)) * case when date_part('isodow', day) >= 6 then 0.3 else 1 end, 4))::decimal(18, 4) as quantity,
        6.25 as price, 'TiB' as unit_name, 'BigQuery' as name, 'Analytics' as category, 'Analytics Platforms' as subcategory, 'BQ' as sku from daily
    union all
    select day, tenant, 'Storage, active', (round(size * 160, 2) / 30)::decimal(18, 4), 0.02, 'GB-Months', 'BigQuery storage', 'Storage', 'Storage Platforms', 'BQS' from daily
) cross join period
"""
)
