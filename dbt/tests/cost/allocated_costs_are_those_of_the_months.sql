{{ config(meta={'dagster': {'asset_key': ['cost', 'allocated_monthly']}}) }}
with one as (
    select
        month,
        currency,
        provider,
        sum(billed_cost) as billed_cost,
        sum(effective_cost) as effective_cost
    from {{ ref('cost_allocated_monthly') }}
    group by all
),

other as (
    select
        month,
        currency,
        provider,
        sum(billed_cost) as billed_cost,
        sum(effective_cost) as effective_cost
    from {{ ref('cost_monthly') }}
    group by all
)

select
    coalesce(one.month, other.month) as month,
    coalesce(one.currency, other.currency) as currency,
    coalesce(one.provider, other.provider) as provider,
    one.billed_cost as one_billed_cost,
    other.billed_cost as other_billed_cost,
    one.effective_cost as one_effective_cost,
    other.effective_cost as other_effective_cost
from one
full outer join other on one.month = other.month and one.currency = other.currency and one.provider = other.provider
where
    one.billed_cost is distinct from other.billed_cost
    or one.effective_cost is distinct from other.effective_cost
