-- What is left of each SLO's budget at the end of each UTC day, and of the one that is not over at its newest minute:
-- of the events of the rolling period up to then, counted.
with reached as (
    select
        source,
        slo_id,
        min(minute) as first_minute,
        max(minute) as newest_minute
    from {{ ref('stg_slo_minutes') }}
    group by all
),

newest as (
    select
        source,
        max(newest_minute) as newest_minute
    from reached
    group by all
),

ledgers as (
    -- An SLO's own newest minute is up to five minutes behind its source's while its last sample may still be followed
    -- by one. If it is further behind, or of another day, nobody counted it.
    select
        reached.source,
        reached.slo_id,
        reached.first_minute,
        definitions.service,
        definitions.slo,
        definitions.objective,
        definitions.allowed_ratio,
        definitions.error_budget_minutes,
        definitions.yellow_below,
        to_days(definitions.period_days) as period,
        interval 1 minute + if(
            reached.newest_minute
            >= greatest(newest.newest_minute - interval 10 minutes, date_trunc('day', newest.newest_minute)),
            reached.newest_minute,
            newest.newest_minute
        ) as through
    from reached
    inner join newest on reached.source = newest.source
    inner join {{ ref('stg_slo_definitions') }} as definitions on reached.slo_id = definitions.slo_id
),

days as (
    -- Every one since the first, whether or not anybody read it.
    select
        *,
        unnest(
            generate_series(
                date_trunc('day', first_minute), date_trunc('day', through - interval 1 minute), interval 1 day
            )
        ) as midnight
    from ledgers
),

ends as (
    select
        * exclude (through),
        least(midnight + interval 1 day, through) as through,
        least(midnight + interval 1 day, through) - period as begins_at
    from days
),

parts as (
    -- Days, of which the one in which the newest period begins is two.
    select
        minutes.source,
        minutes.slo_id,
        minutes.day,
        if(minutes.minute < ledgers.through - ledgers.period, null, ledgers.through - ledgers.period) as cut_at,
        sum(minutes.total) as total,
        sum(minutes.bad) as bad,
        count(minutes.total) as known_minutes,
        count(*) - count(minutes.total) as gap_minutes,
        sum(minutes.unplaced_total) as unplaced_total,
        sum(minutes.unplaced_bad) as unplaced_bad,
        sum(minutes.sloth_ratio) as sloth_ratios,
        count(minutes.sloth_ratio) as sloth_samples
    from {{ ref('stg_slo_minutes') }} as minutes
    inner join ledgers on minutes.source = ledgers.source and minutes.slo_id = ledgers.slo_id
    group by all
),

periods as (
    select
        cast(ends.midnight as date) as day,
        ends.source,
        ends.slo_id,
        ends.service,
        ends.slo,
        ends.objective,
        ends.allowed_ratio,
        ends.error_budget_minutes,
        ends.yellow_below,
        ends.through,
        greatest(ends.begins_at, ends.first_minute) as first_minute,
        sum(parts.total) as total,
        sum(parts.bad) as bad,
        cast(coalesce(sum(parts.known_minutes), 0) as bigint) as known_minutes,
        cast(coalesce(sum(parts.gap_minutes), 0) as bigint) as gap_minutes,
        coalesce(sum(parts.unplaced_total), 0) as unplaced_total,
        coalesce(sum(parts.unplaced_bad), 0) as unplaced_bad,
        sum(parts.sloth_ratios) / nullif(sum(parts.sloth_samples), 0) as sloth_error_ratio
    from ends
    left join parts
        on
            ends.slo_id = parts.slo_id
            and ends.source = parts.source
            and ends.begins_at <= greatest(cast(parts.day as timestamptz), parts.cut_at)
            and ends.midnight >= cast(parts.day as timestamptz)
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
    through,
    first_minute,
    cast(first_minute as date) as first_day,
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
    date_diff('minute', first_minute, through) - known_minutes - gap_minutes as unread_minutes,
    unplaced_total,
    unplaced_bad,
    sloth_error_ratio,
    sloth_remaining_ratio,
    sloth_remaining_ratio - remaining_ratio as sloth_difference,
    source = 'sample' as is_sample
from budgets
