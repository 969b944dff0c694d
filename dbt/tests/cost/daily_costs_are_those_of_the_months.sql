{{ config(meta={'dagster': {'asset_key': ['cost', 'daily']}}) }}
with one as (
    select
        billing_period,
        currency,
        sum(billed_cost) as billed_cost,
        sum(effective_cost) as effective_cost,
        sum(charges) as charges
    from {{ ref('cost_daily') }}
    group by all
),

other as (
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
    coalesce(one.billing_period, other.billing_period) as billing_period,
    coalesce(one.currency, other.currency) as currency,
    one.billed_cost as one_billed_cost,
    other.billed_cost as other_billed_cost,
    one.effective_cost as one_effective_cost,
    other.effective_cost as other_effective_cost,
    one.charges as one_charges,
    other.charges as other_charges
from one
full outer join other on one.billing_period = other.billing_period and one.currency = other.currency
where
    one.billed_cost is distinct from other.billed_cost
    or one.effective_cost is distinct from other.effective_cost
    or one.charges is distinct from other.charges
