-- Budgets of calendar months and quarters in the declared zone: a month is not thirty days, and begins at its own
-- midnight.
with quarters_of_an_hour as (
    -- Every zone's midnight is a quarter of an hour in UTC, so days of a zone are sums of these.
    select
        source,
        slo_id,
        time_bucket(interval 15 minutes, minute) as bucket,
        sum(total) as total,
        sum(bad) as bad,
        count(total) as known_minutes,
        count(*) - count(total) as gap_minutes,
        sum(unplaced_total) as unplaced_total,
        sum(unplaced_bad) as unplaced_bad,
        min(minute) as first_minute,
        max(minute) as newest_minute
    from {{ ref('stg_slo_minutes') }}
    group by all
),

reached as (
    select
        source,
        slo_id,
        min(first_minute) as first_minute,
        max(newest_minute) as newest_minute
    from quarters_of_an_hour
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
    -- As in slo_error_budget: an SLO that is more than a little behind its source was not counted since.
    select
        reached.source,
        reached.slo_id,
        reached.first_minute,
        definitions.service,
        definitions.slo,
        definitions.objective,
        definitions.allowed_ratio,
        definitions.yellow_below,
        definitions.time_zone,
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

calendars as (
    select
        'month' as calendar,
        interval 1 month as length
    union all
    select
        'quarter' as calendar,
        interval 3 months as length
),

periods as (
    -- Every one since the first, whether or not anybody read it.
    select
        ledgers.*,
        calendars.calendar,
        calendars.length,
        unnest(
            generate_series(
                date_trunc(calendars.calendar, ledgers.first_minute at time zone ledgers.time_zone),
                date_trunc(
                    calendars.calendar, (ledgers.through - interval 1 minute) at time zone ledgers.time_zone
                ),
                calendars.length
            )
        ) as there
    from ledgers
    cross join calendars
),

days as (
    select
        time_zone,
        there
    from periods
    union
    select
        time_zone,
        there + length as there
    from periods
),

around_midnight as (
    select
        *,
        unnest(
            generate_series(
                there at time zone time_zone - interval 3 hours,
                there at time zone time_zone + interval 3 hours,
                interval 15 minutes
            )
        ) as bucket
    from days
),

midnights as (
    -- Havana's first of November has two of them, and at some places a day begins at one o'clock: it begins with the
    -- first quarter of an hour that the zone calls its own.
    select
        time_zone,
        there,
        min(bucket) as moment
    from around_midnight
    where bucket at time zone time_zone >= there
    group by all
),

bounds as (
    select
        periods.*,
        begins.moment as begins_at,
        ends.moment as ends_at
    from periods
    inner join midnights as begins on periods.time_zone = begins.time_zone and periods.there = begins.there
    inner join midnights as ends on periods.time_zone = ends.time_zone and periods.there + periods.length = ends.there
),

sums as (
    select
        bounds.calendar,
        cast(bounds.there as date) as period_start,
        bounds.slo_id,
        bounds.service,
        bounds.slo,
        bounds.objective,
        bounds.allowed_ratio,
        bounds.yellow_below,
        bounds.time_zone,
        bounds.source,
        bounds.begins_at,
        bounds.ends_at,
        greatest(bounds.begins_at, bounds.first_minute) as first_minute,
        least(bounds.ends_at, bounds.through) as through,
        sum(counted.total) as total,
        sum(counted.bad) as bad,
        cast(coalesce(sum(counted.known_minutes), 0) as bigint) as known_minutes,
        cast(coalesce(sum(counted.gap_minutes), 0) as bigint) as gap_minutes,
        coalesce(sum(counted.unplaced_total), 0) as unplaced_total,
        coalesce(sum(counted.unplaced_bad), 0) as unplaced_bad
    from bounds
    left join quarters_of_an_hour as counted
        on
            bounds.source = counted.source
            and bounds.slo_id = counted.slo_id
            and bounds.begins_at <= counted.bucket
            and bounds.ends_at > counted.bucket
    group by all
),

budgets as (
    select
        *,
        1 - bad / nullif(total, 0) / allowed_ratio as remaining_ratio
    from sums
)

select
    calendar,
    period_start,
    slo_id,
    service,
    slo,
    objective,
    time_zone,
    begins_at,
    ends_at,
    first_minute,
    through,
    total,
    bad,
    bad / nullif(total, 0) as error_ratio,
    total * allowed_ratio as budget,
    total * allowed_ratio - bad as budget_remaining,
    remaining_ratio,
    case
        when remaining_ratio is null then 'unknown'
        when remaining_ratio <= 0 then 'red'
        when remaining_ratio < yellow_below then 'yellow'
        else 'green'
    end as status,
    cast(date_diff('minute', begins_at, ends_at) as bigint) as minutes,
    known_minutes,
    gap_minutes,
    date_diff('minute', first_minute, through) - known_minutes - gap_minutes as unread_minutes,
    unplaced_total,
    unplaced_bad,
    source = 'sample' as is_sample
from budgets
