-- The days that bills of a provider cover whole. A month under way ends with its last whole day: what is billed of
-- today is not what today will cost. Where charges are by the hour, the last hour says how far a bill reaches, else
-- its last day counts as under way unless a month ends with it. Charges of a month or a year say nothing about that.
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
    where charge_period_end - charge_period_start <= interval 25 hours
    group by all
),

spans as (
    select
        currency,
        provider,
        cast(first_start as date) as first_day,
        case
            when last_hour is not null then cast(last_hour as date)
            when day(last_end) = 1 then cast(last_end as date)
            else cast(last_end as date) - 1
        end as end_day
    from charges
)

select
    currency,
    provider,
    first_day,
    end_day
from spans
where end_day > first_day
