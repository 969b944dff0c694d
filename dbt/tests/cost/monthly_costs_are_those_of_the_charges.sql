{{ config(meta={'dagster': {'asset_key': ['cost', 'monthly']}}) }}
with charges as (
    select
        billing_period,
        billing_currency as currency,
        sum(billed_cost) as billed_cost,
        sum(effective_cost) as effective_cost,
        count(*) as charges
    from {{ source('lake_cost', 'cost_charges') }}
    group by all
),

months as (
    select
        billing_period,
        currency,
        sum(billed_cost) as billed_cost,
        sum(effective_cost) as effective_cost,
        sum(charges) as charges
    from {{ ref('cost_monthly') }}
    group by all
)

select
    coalesce(charges.billing_period, months.billing_period) as billing_period,
    coalesce(charges.currency, months.currency) as currency,
    charges.billed_cost as charged,
    months.billed_cost as summed,
    charges.effective_cost as charged_effectively,
    months.effective_cost as summed_effectively
from charges
full outer join months on charges.billing_period = months.billing_period and charges.currency = months.currency
where
    charges.billed_cost is distinct from months.billed_cost
    or charges.effective_cost is distinct from months.effective_cost
    or charges.charges is distinct from months.charges
