-- How fast each budget is being spent at the end of each hour, and of the one that is not over at its newest minute: 1
-- spends it in exactly the period.
with hours as (
    select
        source,
        slo_id,
        time_bucket(interval 1 hour, minute) as hour,
        sum(total) as total,
        sum(bad) as bad,
        count(total) as known_minutes,
        max(minute) + interval 1 minute as newest_end
    from {{ ref('stg_slo_minutes') }}
    group by all
),

newest as (
    select
        source,
        slo_id,
        max(hour) as hour,
        max(newest_end) as through
    from hours
    group by all
),

windows as (
    select
        source,
        slo_id,
        hour,
        total,
        bad,
        known_minutes,
        sum(bad) over one_hour / nullif(sum(total) over one_hour, 0) as ratio_1h,
        sum(bad) over six_hours / nullif(sum(total) over six_hours, 0) as ratio_6h,
        sum(bad) over three_days / nullif(sum(total) over three_days, 0) as ratio_3d,
        sum(bad) over seven_days / nullif(sum(total) over seven_days, 0) as ratio_7d
    from hours
    window
        one_hour as (partition by source, slo_id, hour),
        six_hours as (
            partition by source, slo_id order by hour asc range between interval 5 hours preceding and current row
        ),
        three_days as (
            partition by source, slo_id order by hour asc range between interval 71 hours preceding and current row
        ),
        seven_days as (
            partition by source, slo_id order by hour asc range between interval 167 hours preceding and current row
        )
),

newest_windows as (
    select
        newest.source,
        newest.slo_id,
        sum(minutes.bad) filter (where minutes.minute >= newest.through - interval 1 hour)
        / nullif(sum(minutes.total) filter (where minutes.minute >= newest.through - interval 1 hour), 0) as ratio_1h,
        sum(minutes.bad) filter (where minutes.minute >= newest.through - interval 6 hours)
        / nullif(sum(minutes.total) filter (where minutes.minute >= newest.through - interval 6 hours), 0) as ratio_6h,
        sum(minutes.bad) filter (where minutes.minute >= newest.through - interval 72 hours)
        / nullif(sum(minutes.total) filter (where minutes.minute >= newest.through - interval 72 hours), 0) as ratio_3d,
        sum(minutes.bad) / nullif(sum(minutes.total), 0) as ratio_7d
    from newest
    inner join {{ ref('stg_slo_minutes') }} as minutes
        on
            newest.source = minutes.source
            and newest.slo_id = minutes.slo_id
            and minutes.minute >= newest.through - interval 168 hours
    group by all
),

ends as (
    select
        windows.source,
        windows.slo_id,
        windows.hour,
        windows.total,
        windows.bad,
        windows.known_minutes,
        if(newest.hour is null, windows.hour + interval 1 hour, newest.through) as through,
        if(newest.hour is null, windows.ratio_1h, newest_windows.ratio_1h) as ratio_1h,
        if(newest.hour is null, windows.ratio_6h, newest_windows.ratio_6h) as ratio_6h,
        if(newest.hour is null, windows.ratio_3d, newest_windows.ratio_3d) as ratio_3d,
        if(newest.hour is null, windows.ratio_7d, newest_windows.ratio_7d) as ratio_7d
    from windows
    left join newest
        on
            windows.source = newest.source
            and windows.slo_id = newest.slo_id
            and windows.hour = newest.hour
    left join newest_windows on newest.source = newest_windows.source and newest.slo_id = newest_windows.slo_id
)

select
    ends.hour,
    ends.slo_id,
    definitions.service,
    definitions.slo,
    definitions.objective,
    ends.through,
    ends.total,
    ends.bad,
    ends.known_minutes,
    ends.ratio_1h / definitions.allowed_ratio as burn_1h,
    ends.ratio_6h / definitions.allowed_ratio as burn_6h,
    ends.ratio_3d / definitions.allowed_ratio as burn_3d,
    ends.ratio_7d / definitions.allowed_ratio as burn_7d,
    ends.source = 'sample' as is_sample
from ends
inner join {{ ref('stg_slo_definitions') }} as definitions on ends.slo_id = definitions.slo_id
