-- Cost per day, for what looks at days: anomalies, forecasts, budgets. A charge longer than a day counts on its first.
with charges as (
    select
        currency,
        billing_period,
        provider,
        service_name,
        tenant,
        service,
        region,
        charge_category,
        billed_cost,
        effective_cost,
        operational_kg,
        is_sample,
        cast(charge_period_start as date) as day
    from {{ ref('stg_cost_charges') }}
)

select
    day,
    currency,
    billing_period,
    coalesce(provider, '') as provider,
    coalesce(service_name, '') as service_name,
    coalesce(tenant, '') as tenant,
    coalesce(service, '') as service,
    coalesce(region, '') as region,
    charge_category,
    cast(sum(billed_cost) as decimal(38, 12)) as billed_cost,
    cast(sum(effective_cost) as decimal(38, 12)) as effective_cost,
    count(*) as charges,
    sum(operational_kg) as operational_kg,
    bool_or(is_sample) as is_sample
from charges
group by all
