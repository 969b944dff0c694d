-- How fast each budget is being spent at the end of each hour: 1 spends it in exactly the period.
with hours as (
    select
        source,
        slo_id,
        date_trunc('hour', minute) as hour,
        sum(total) as total,
        sum(bad) as bad,
        count(total) as known_minutes
    from {{ ref('stg_slo_minutes') }}
    group by all
),

windows as (
    select
        *,
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
)

select
    windows.hour,
    windows.slo_id,
    definitions.service,
    definitions.slo,
    definitions.objective,
    windows.total,
    windows.bad,
    windows.known_minutes,
    windows.ratio_1h / definitions.allowed_ratio as burn_1h,
    windows.ratio_6h / definitions.allowed_ratio as burn_6h,
    windows.ratio_3d / definitions.allowed_ratio as burn_3d,
    windows.ratio_7d / definitions.allowed_ratio as burn_7d,
    windows.source = 'sample' as is_sample
from windows
inner join {{ ref('stg_slo_definitions') }} as definitions on windows.slo_id = definitions.slo_id
