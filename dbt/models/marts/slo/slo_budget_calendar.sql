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
        sum(unplaced_bad) as unplaced_bad
    from {{ ref('stg_slo_minutes') }}
    group by all
),

placed as (
    select
        quarters_of_an_hour.*,
        definitions.service,
        definitions.slo,
        definitions.objective,
        definitions.allowed_ratio,
        definitions.yellow_below,
        definitions.time_zone,
        quarters_of_an_hour.bucket at time zone definitions.time_zone as there
    from quarters_of_an_hour
    inner join {{ ref('stg_slo_definitions') }} as definitions on quarters_of_an_hour.slo_id = definitions.slo_id
),

periods as (
    select
        'month' as calendar,
        cast(date_trunc('month', placed.there) as date) as period_start,
        cast(date_trunc('month', placed.there) + interval 1 month as date) as next_start,
        placed.*
    from placed
    union all
    select
        'quarter' as calendar,
        cast(date_trunc('quarter', placed.there) as date) as period_start,
        cast(date_trunc('quarter', placed.there) + interval 3 months as date) as next_start,
        placed.*
    from placed
),

sums as (
    select
        calendar,
        period_start,
        next_start,
        slo_id,
        service,
        slo,
        objective,
        allowed_ratio,
        yellow_below,
        time_zone,
        source,
        sum(total) as total,
        sum(bad) as bad,
        cast(sum(known_minutes) as bigint) as known_minutes,
        cast(sum(gap_minutes) as bigint) as gap_minutes,
        sum(unplaced_total) as unplaced_total,
        sum(unplaced_bad) as unplaced_bad
    from periods
    group by all
),

bounds as (
    select
        *,
        cast(period_start as timestamp) at time zone time_zone as begins_at,
        cast(next_start as timestamp) at time zone time_zone as ends_at,
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
    unplaced_total,
    unplaced_bad,
    source = 'sample' as is_sample
from bounds
