with zone_hours as (
    select
        day,
        zone,
        hour,
        -- One zone and hour has one intensity, so these two are the same in all its rows.
        bool_and(is_covered) as is_covered,
        bool_or(is_estimated) as is_estimated,
        sum(energy_kwh) as energy_kwh,
        bool_or(is_sample) as is_sample
    from {{ ref('emissions_hourly') }}
    group by
        day,
        zone,
        hour
)

select
    day,
    zone,
    count(*) as usage_hours,
    count(*) filter (where is_covered) as covered_hours,
    count(*) filter (where is_covered) / count(*) as covered_share,
    sum(energy_kwh) as energy_kwh,
    coalesce(sum(energy_kwh) filter (where is_covered), 0) as covered_energy_kwh,
    count(*) filter (where is_estimated) as estimated_hours,
    count(*) filter (where is_estimated) / nullif(count(is_estimated), 0) as estimated_share,
    bool_or(is_sample) as is_sample
from zone_hours
group by
    day,
    zone
