-- The days that bills of a provider cover whole. A month under way ends with its last whole day: what is billed of
-- today is not what today will cost. Where use is charged by the hour up to the end, the last hour says how far a
-- bill reaches, else its last day counts as under way unless a month ends with it. Purchases, and charges of a month
-- or a year, say nothing about that. A currency is covered as far as each of its providers is that had a charge in
-- the month before or since: one that is delivered by the month holds up the others, one that was left does not.
with charges as (
    select
        currency,
        coalesce(provider, '') as provider,
        min(charge_period_start) as first_start,
        max(charge_period_end) as last_end,
        max(charge_period_end) filter (
            where charge_period_end - charge_period_start <= interval 1 hour
        ) as last_hour
    from {{ ref('stg_cost_charges') }}
    where
        charge_category = 'Usage'
        and charge_class is null
        and charge_period_end > charge_period_start
        and charge_period_end - charge_period_start <= interval 25 hours
    group by all
),

spans as (
    select
        currency,
        provider,
        cast(first_start as date) as first_day,
        case
            when last_hour >= last_end - interval 1 day then cast(last_hour as date)
            when day(last_end) = 1 then cast(last_end as date)
            else cast(last_end as date) - 1
        end as end_day
    from charges
),

latest as (
    select
        *,
        date_trunc('month', max(end_day) over (partition by currency) - 1) - interval 1 month as month_before
    from spans
    where end_day > first_day
)

select
    currency,
    provider,
    first_day,
    end_day,
    min(end_day) filter (where end_day > month_before) over (partition by currency) as currency_end_day
from latest
