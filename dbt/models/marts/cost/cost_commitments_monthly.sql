-- Commitments (savings plans, reservations): what was bought for the month, what of it was used and what was not. Of a
-- commitment that is bought and used in the same spans, purchases equal use, used and unused, to the last digit.
with charges as (
    select
        commitment_discount_id,
        commitment_discount_name,
        commitment_discount_status,
        charge_category,
        billing_currency as currency,
        charge_period_start,
        charge_period_end,
        billed_cost,
        effective_cost,
        source = 'sample' as is_sample,
        cast(date_trunc('month', charge_period_start) as date) as month
    from {{ source('lake_cost', 'cost_charges') }}
    where commitment_discount_id is not null
)

select
    month,
    currency,
    commitment_discount_id,
    any_value(commitment_discount_name) as commitment_discount_name,
    cast(coalesce(sum(billed_cost) filter (where charge_category = 'Purchase'), 0) as decimal(38, 12)) as purchased,
    cast(
        coalesce(sum(effective_cost) filter (where commitment_discount_status = 'Used'), 0) as decimal(38, 12)
    ) as used,
    cast(
        coalesce(sum(effective_cost) filter (where commitment_discount_status = 'Unused'), 0) as decimal(38, 12)
    ) as unused,
    coalesce(
        min(charge_period_start) filter (where charge_category = 'Purchase')
        = min(charge_period_start) filter (where commitment_discount_status is not null)
        and max(charge_period_end) filter (where charge_category = 'Purchase')
        = max(charge_period_end) filter (where commitment_discount_status is not null),
        false
    ) as is_whole,
    bool_or(is_sample) as is_sample
from charges
group by month, currency, commitment_discount_id
