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

spans as (
    select
        currency,
        min(first_day) as first_day,
        any_value(currency_end_day) as end_day
    from {{ ref('stg_cost_spans') }}
    group by all
),

-- What is charged for a month or a year is spread over its days.
charges as (
    select
        currency,
        coalesce(service, '') as service,
        coalesce(tenant, '') as tenant,
        tokens,
        is_sample,
        effective_cost,
        cast(charge_period_start as date) as first_day,
        case
            when charge_period_end - charge_period_start > interval 25 hours
                then greatest(1, cast(charge_period_end as date) - cast(charge_period_start as date))
            else 1
        end as days
    from {{ ref('stg_cost_charges') }}
),

spread as (
    select
        currency,
        service,
        tenant,
        tokens / days as tokens,
        is_sample,
        cast(effective_cost / days as decimal(38, 12)) as effective_cost,
        cast(unnest(generate_series(first_day, first_day + cast(days as integer) - 1, interval 1 day)) as date) as day
    from charges
),

costs as (
    select
        spread.day,
        spread.currency,
        spread.service,
        spread.tenant,
        sum(spread.effective_cost) as effective_cost,
        sum(spread.effective_cost) filter (where spread.tokens is not null) as cost_of_tokens,
        sum(spread.tokens) as tokens,
        bool_or(spread.is_sample) as is_sample
    from spread
    inner join spans
        on
            spread.currency = spans.currency
            and spread.day >= spans.first_day
            and spread.day < spans.end_day
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
        sum(hourly.requests) as requests,
        bool_or(hourly.usage_source = 'sample') as is_sample
    from {{ ref('stg_resource_usage_hourly') }} as hourly
    inner join whole_days on hourly.day = whole_days.day
    group by all
),

-- The currencies that a service is paid in, in a month: a day without a charge was served all the same.
months as (
    select distinct
        date_trunc('month', day) as month,
        currency,
        service
    from costs
),

wanted as (
    select
        requests.day,
        months.currency,
        requests.service,
        requests.tenant,
        requests.requests,
        requests.is_sample
    from requests
    inner join months
        on requests.service = months.service and date_trunc('month', requests.day) = months.month
    inner join spans
        on
            months.currency = spans.currency
            and requests.day >= spans.first_day
            and requests.day < spans.end_day
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
