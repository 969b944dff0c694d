-- What is left of each SLO's budget at the end of each UTC day: of the events of the rolling period, counted.
with days as (
    select
        source,
        day,
        slo_id,
        sum(total) as total,
        sum(bad) as bad,
        count(total) as known_minutes,
        count(*) - count(total) as gap_minutes,
        sum(unplaced_total) as unplaced_total,
        sum(unplaced_bad) as unplaced_bad,
        sum(sloth_ratio) as sloth_ratios,
        count(sloth_ratio) as sloth_samples
    from {{ ref('stg_slo_minutes') }}
    group by all
),

periods as (
    select
        ends.day,
        ends.source,
        definitions.slo_id,
        definitions.service,
        definitions.slo,
        definitions.objective,
        definitions.allowed_ratio,
        definitions.error_budget_minutes,
        definitions.yellow_below,
        min(days.day) as first_day,
        sum(days.total) as total,
        sum(days.bad) as bad,
        cast(sum(days.known_minutes) as bigint) as known_minutes,
        cast(sum(days.gap_minutes) as bigint) as gap_minutes,
        sum(days.unplaced_total) as unplaced_total,
        sum(days.unplaced_bad) as unplaced_bad,
        sum(days.sloth_ratios) / nullif(sum(days.sloth_samples), 0) as sloth_error_ratio
    from days as ends
    inner join {{ ref('stg_slo_definitions') }} as definitions on ends.slo_id = definitions.slo_id
    inner join days
        on
            ends.slo_id = days.slo_id
            and ends.source = days.source
            and days.day between ends.day - (definitions.period_days - 1) and ends.day
    group by all
),

budgets as (
    select
        *,
        bad / nullif(total, 0) as error_ratio,
        1 - bad / nullif(total, 0) / allowed_ratio as remaining_ratio,
        1 - sloth_error_ratio / allowed_ratio as sloth_remaining_ratio
    from periods
)

select
    day,
    slo_id,
    service,
    slo,
    objective,
    first_day,
    total,
    bad,
    error_ratio,
    total * allowed_ratio as budget,
    total * allowed_ratio - bad as budget_remaining,
    remaining_ratio,
    remaining_ratio * error_budget_minutes as remaining_minutes,
    case
        when remaining_ratio is null then 'unknown'
        when remaining_ratio <= 0 then 'red'
        when remaining_ratio < yellow_below then 'yellow'
        else 'green'
    end as status,
    known_minutes,
    gap_minutes,
    unplaced_total,
    unplaced_bad,
    sloth_error_ratio,
    sloth_remaining_ratio,
    sloth_remaining_ratio - remaining_ratio as sloth_difference,
    source = 'sample' as is_sample
from budgets
