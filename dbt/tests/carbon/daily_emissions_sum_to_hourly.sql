{{ config(meta={'dagster': {'asset_key': ['carbon', 'emissions_daily']}}) }}
with hourly as (
    select
        day,
        sum(energy_kwh) as energy_kwh,
        sum(operational_kg) as operational_kg,
        sum(embodied_kg) as embodied_kg,
        sum(total_kg) as total_kg,
        sum(requests) as requests,
        count(*) as usage_hours
    from {{ ref('emissions_hourly') }}
    group by day
),

daily as (
    select
        day,
        sum(energy_kwh) as energy_kwh,
        sum(operational_kg) as operational_kg,
        sum(embodied_kg) as embodied_kg,
        sum(total_kg) as total_kg,
        sum(requests) as requests,
        sum(covered_hours + uncovered_hours) as usage_hours
    from {{ ref('emissions_daily') }}
    group by day
)

select
    coalesce(hourly.day, daily.day) as day,
    hourly.energy_kwh as hourly_energy_kwh,
    daily.energy_kwh as daily_energy_kwh,
    hourly.operational_kg as hourly_operational_kg,
    daily.operational_kg as daily_operational_kg,
    hourly.embodied_kg as hourly_embodied_kg,
    daily.embodied_kg as daily_embodied_kg,
    hourly.total_kg as hourly_total_kg,
    daily.total_kg as daily_total_kg,
    hourly.requests as hourly_requests,
    daily.requests as daily_requests,
    hourly.usage_hours as hourly_usage_hours,
    daily.usage_hours as daily_usage_hours
from hourly
full outer join daily on hourly.day = daily.day
where
    {{ differ('hourly.energy_kwh', 'daily.energy_kwh') }}
    or {{ differ('hourly.operational_kg', 'daily.operational_kg') }}
    or {{ differ('hourly.embodied_kg', 'daily.embodied_kg') }}
    or {{ differ('hourly.total_kg', 'daily.total_kg') }}
    or {{ differ('hourly.requests', 'daily.requests') }}
    or hourly.usage_hours is distinct from daily.usage_hours
