-- Mean intensity of the spans that charges cover: hours, days and months. A span has one only where each hour has.
with hours as (
    select
        zone,
        hour,
        provider,
        intensity_g_per_kwh
    from {{ ref('stg_carbon_intensity_hourly') }}
),

spans as (
    select
        zone,
        provider,
        hour as span_start,
        hour + interval 1 hour as span_end,
        1 as hours,
        intensity_g_per_kwh
    from hours
    union all
    select
        zone,
        provider,
        date_trunc('day', hour) as span_start,
        date_trunc('day', hour) + interval 1 day as span_end,
        count(*) as hours,
        avg(intensity_g_per_kwh) as intensity_g_per_kwh
    from hours
    group by all
    union all
    select
        zone,
        provider,
        date_trunc('month', hour) as span_start,
        date_trunc('month', hour) + interval 1 month as span_end,
        count(*) as hours,
        avg(intensity_g_per_kwh) as intensity_g_per_kwh
    from hours
    group by all
)

select
    zone,
    provider,
    span_start,
    span_end,
    intensity_g_per_kwh
from spans
where hours = date_diff('hour', span_start, span_end)
