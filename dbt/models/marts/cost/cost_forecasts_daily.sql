-- What a month will have cost, as it could be told at the end of each day: spent so far, the remaining days at the
-- median of their last four weekdays, and what came once a month and is due again. The interval is what the same
-- method has been wrong by, over as many days, at every earlier day: eight of ten months should end inside. Too few
-- earlier days: none.
with scopes as (
    select
        name as scope,
        currency,
        amount as budget,
        tenant,
        service,
        provider
    from {{ source('lake_cost', 'cost_budgets') }}
    union all by name
    select distinct
        currency,
        '' as scope
    from {{ ref('stg_cost_spans') }}
),

charges as (
    select
        currency,
        provider,
        service,
        tenant,
        effective_cost,
        is_sample,
        cast(charge_period_start as date) as day,
        coalesce(charge_frequency, '') <> 'One-Time'
        and charge_category in ('Usage', 'Purchase')
        and charge_class is null
        and charge_period_end - charge_period_start <= interval 25 hours as is_daily,
        charge_category = 'Tax' or (
            charge_frequency = 'Recurring' and charge_period_end - charge_period_start > interval 25 hours
        ) as is_monthly
    from {{ ref('stg_cost_charges') }}
),

costs as (
    select
        scopes.scope,
        scopes.currency,
        charges.day,
        sum(charges.effective_cost) as spent,
        cast(coalesce(sum(charges.effective_cost) filter (where charges.is_daily), 0) as double) as daily,
        cast(coalesce(sum(charges.effective_cost) filter (where charges.is_monthly), 0) as double) as monthly,
        bool_or(charges.is_sample) as is_sample
    from scopes
    inner join charges
        on
            scopes.currency = charges.currency
            and (scopes.tenant is null or scopes.tenant = charges.tenant)
            and (scopes.service is null or scopes.service = charges.service)
            and (scopes.provider is null or scopes.provider = charges.provider)
    group by all
),

-- From the first charge of a currency, which may come before the first day of use: a fee is spent too.
begun as (
    select
        currency,
        min(day) as first_charge
    from charges
    group by all
),

spans as (
    select
        spans.currency,
        least(min(spans.first_day), any_value(begun.first_charge)) as first_day,
        any_value(spans.currency_end_day) as end_day
    from {{ ref('stg_cost_spans') }} as spans
    inner join begun on spans.currency = begun.currency
    group by all
),

days as (
    select
        scopes.scope,
        scopes.currency,
        scopes.budget,
        spans.first_day,
        spans.end_day - 1 as last_day,
        cast(unnest(generate_series(spans.first_day, spans.end_day - 1, interval 1 day)) as date) as day
    from scopes
    inner join spans on scopes.currency = spans.currency
),

dense as (
    select
        days.*,
        coalesce(costs.spent, 0) as spent,
        coalesce(costs.daily, 0) as daily,
        coalesce(costs.monthly, 0) as monthly,
        coalesce(costs.is_sample, false) as is_sample
    from days
    left join costs on days.scope = costs.scope and days.currency = costs.currency and days.day = costs.day
),

levels as (
    select
        *,
        median(daily) over (
            partition by scope, currency, isodow(day) order by day asc rows between 3 preceding and current row
        ) as level,
        sum(daily) over (partition by scope, currency order by day asc rows unbounded preceding) as so_far,
        last_day(day) - day as days_left
    from dense
),

ahead as (
    select cast(unnest(generate_series(1, 31)) as integer) as n
),

-- Of each day, the sum of the next 1 to 31 days: as foretold on it, and as it came.
steps as (
    select
        origin.scope,
        origin.currency,
        origin.day,
        ahead.n as days_ahead,
        sum(base.level) over (
            partition by origin.scope, origin.currency, origin.day order by ahead.n asc rows unbounded preceding
        ) as foretold
    from levels as origin
    cross join ahead
    inner join levels as base
        on
            origin.scope = base.scope
            and origin.currency = base.currency
            and base.day = origin.day + ahead.n - 7 * ((ahead.n + 6) // 7)
    where origin.day >= origin.first_day + 6
),

errors as (
    select
        steps.scope,
        steps.currency,
        steps.day,
        steps.days_ahead,
        later.so_far - origin.so_far - steps.foretold as error
    from steps
    inner join levels as origin
        on steps.scope = origin.scope and steps.currency = origin.currency and steps.day = origin.day
    inner join levels as later
        on
            steps.scope = later.scope
            and steps.currency = later.currency
            and later.day = steps.day + steps.days_ahead
    where steps.day >= origin.first_day + 13
),

known_errors as (
    select
        levels.scope,
        levels.currency,
        levels.day,
        count(*) as n,
        -- Spans that overlap err together: as many are independent as fit one after the other.
        least(1, 0.8 * (1 + any_value(levels.days_left) / count(*))) as quantile,
        list_sort(list(abs(errors.error))) as sorted
    from levels
    inner join errors
        on
            levels.scope = errors.scope
            and levels.currency = errors.currency
            and levels.days_left = errors.days_ahead
            and errors.day + errors.days_ahead <= levels.day
            and errors.day >= levels.day - 180
    group by all
),

-- Once-a-month charges of the month before that came on a later day of the month.
due as (
    select
        levels.scope,
        levels.currency,
        levels.day,
        sum(before.monthly) as due
    from levels
    inner join levels as before
        on
            levels.scope = before.scope
            and levels.currency = before.currency
            and date_trunc('month', before.day) = date_trunc('month', levels.day) - interval 1 month
            and day(before.day) > day(levels.day)
    where levels.days_left > 0
    group by all
),

foretold as (
    select
        levels.scope,
        levels.currency,
        levels.day as as_of,
        levels.budget,
        levels.days_left,
        levels.last_day,
        cast(date_trunc('month', levels.day) as date) as month,
        sum(levels.spent) over month_so_far as spent,
        bool_or(levels.is_sample) over (partition by levels.scope, levels.currency) as is_sample,
        case when levels.days_left = 0 then 0 else steps.foretold end as to_come,
        coalesce(due.due, 0) as due,
        case
            when levels.days_left = 0 then 0
            when known_errors.n >= 10
                then known_errors.sorted[cast(ceil(known_errors.quantile * known_errors.n) as bigint)]
        end as margin
    from levels
    left join steps
        on
            levels.scope = steps.scope
            and levels.currency = steps.currency
            and levels.day = steps.day
            and levels.days_left = steps.days_ahead
    left join known_errors
        on
            levels.scope = known_errors.scope
            and levels.currency = known_errors.currency
            and levels.day = known_errors.day
    left join due
        on levels.scope = due.scope and levels.currency = due.currency and levels.day = due.day
    window month_so_far as (
        partition by levels.scope, levels.currency, date_trunc('month', levels.day)
        order by levels.day asc
        rows unbounded preceding
    )
)

select
    month,
    as_of,
    currency,
    scope,
    budget,
    cast(spent as decimal(38, 12)) as spent,
    cast(spent as double) + due + to_come as expected,
    cast(spent as double) + due + to_come - margin as low,
    cast(spent as double) + due + to_come + margin as high,
    days_left,
    is_sample
from foretold
