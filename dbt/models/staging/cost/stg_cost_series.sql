-- What is used day by day, per currency, provider, its service, tenant and service of the platform: dense, so that a
-- day without a charge is a zero. Purchases, taxes, credits and corrections come when they come, and are no series.
with charges as (
    select
        currency,
        coalesce(provider, '') as provider,
        coalesce(service_name, '') as service_name,
        coalesce(tenant, '') as tenant,
        coalesce(service, '') as service,
        cast(charge_period_start as date) as day,
        cast(sum(effective_cost) as double) as effective_cost,
        bool_or(is_sample) as is_sample
    from {{ ref('stg_cost_charges') }}
    where
        charge_category = 'Usage'
        and charge_class is null
        and charge_period_end - charge_period_start <= interval 25 hours
    group by all
),

series as (
    select
        currency,
        provider,
        service_name,
        tenant,
        service,
        bool_or(is_sample) as is_sample
    from charges
    group by all
),

days as (
    select
        series.*,
        cast(unnest(generate_series(spans.first_day, spans.end_day - 1, interval 1 day)) as date) as day
    from series
    inner join {{ ref('stg_cost_spans') }} as spans
        on series.currency = spans.currency and series.provider = spans.provider
)

select
    days.*,
    coalesce(charges.effective_cost, 0) as effective_cost
from days
left join charges
    on
        days.currency = charges.currency
        and days.provider = charges.provider
        and days.service_name = charges.service_name
        and days.tenant = charges.tenant
        and days.service = charges.service
        and days.day = charges.day
