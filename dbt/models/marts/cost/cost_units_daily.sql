-- What a unit costs: amortised cost of a service over what it served, on days that both the bills and the usage cover
-- whole. Currencies are not added up: a unit that is paid for in two has two rows, and costs both.
with units as (
    select
        name,
        measure,
        per,
        service
    from {{ source('lake_cost', 'cost_units') }}
),

latest as (
    select
        currency,
        end_day,
        max(end_day) over (partition by currency) as latest_day
    from {{ ref('stg_cost_spans') }}
),

-- A provider that is left does not hold up the others.
spans as (
    select
        currency,
        min(end_day) as end_day
    from latest
    where end_day > latest_day - 7
    group by all
),

charges as (
    select
        currency,
        coalesce(service, '') as service,
        coalesce(tenant, '') as tenant,
        effective_cost,
        tokens,
        is_sample,
        cast(charge_period_start as date) as day
    from {{ ref('stg_cost_charges') }}
),

costs as (
    select
        charges.day,
        charges.currency,
        charges.service,
        charges.tenant,
        sum(charges.effective_cost) as effective_cost,
        sum(charges.effective_cost) filter (where charges.tokens is not null) as cost_of_tokens,
        sum(charges.tokens) as tokens,
        bool_or(charges.is_sample) as is_sample
    from charges
    inner join spans on charges.currency = spans.currency and charges.day < spans.end_day
    group by all
),

whole_days as (
    select day
    from {{ ref('stg_resource_usage_hourly') }}
    group by all
    having count(distinct hour) = 24
),

requests as (
    select
        hourly.day,
        hourly.service,
        hourly.tenant,
        sum(hourly.requests) as requests
    from {{ ref('stg_resource_usage_hourly') }} as hourly
    inner join whole_days on hourly.day = whole_days.day
    group by all
),

-- A service is paid in these currencies on that day, whoever was served.
wanted as (
    select
        costs.day,
        costs.currency,
        costs.service,
        requests.tenant,
        any_value(requests.requests) as requests,
        bool_or(costs.is_sample) as is_sample
    from costs
    inner join requests on costs.day = requests.day and costs.service = requests.service
    group by all
),

-- And these tenants it costs something for, served or not.
paid as (
    select costs.*
    from costs
    semi join wanted on costs.day = wanted.day and costs.service = wanted.service
),

services as (
    select
        coalesce(wanted.day, paid.day) as day,
        coalesce(wanted.currency, paid.currency) as currency,
        coalesce(wanted.service, paid.service) as service,
        coalesce(wanted.tenant, paid.tenant) as tenant,
        coalesce(wanted.requests, 0) as requests,
        coalesce(paid.effective_cost, 0) as effective_cost,
        coalesce(wanted.is_sample, false) or coalesce(paid.is_sample, false) as is_sample
    from wanted
    full outer join paid
        on
            wanted.day = paid.day
            and wanted.currency = paid.currency
            and wanted.service = paid.service
            and wanted.tenant = paid.tenant
),

by_requests as (
    select
        services.day,
        services.currency,
        services.service,
        services.tenant,
        units.name as unit,
        services.requests / units.per as quantity,
        services.effective_cost,
        services.is_sample
    from services
    inner join units on units.service is null or services.service = units.service
    where units.measure = 'requests'
),

by_tokens as (
    select
        costs.day,
        costs.currency,
        costs.service,
        costs.tenant,
        units.name as unit,
        costs.tokens / units.per as quantity,
        costs.cost_of_tokens as effective_cost,
        costs.is_sample
    from costs
    inner join units on units.service is null or costs.service = units.service
    where units.measure = 'tokens' and costs.tokens is not null
),

together as (
    select * from by_requests
    union all by name
    select * from by_tokens
)

select
    day,
    currency,
    unit,
    service,
    tenant,
    cast(quantity as double) as quantity,
    cast(effective_cost as decimal(38, 12)) as effective_cost,
    is_sample
from together
