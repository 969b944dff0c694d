with hourly as (
    select
        day,
        service,
        tenant,
        region,
        zone,
        tenant_residency,
        energy_kwh,
        is_covered,
        operational_kg,
        embodied_kg,
        total_kg,
        requests,
        is_sample
    from {{ ref('emissions_hourly') }}
)

select
    day,
    service,
    tenant,
    region,
    zone,
    tenant_residency,
    sum(energy_kwh) as energy_kwh,
    coalesce(sum(energy_kwh) filter (where is_covered), 0) as covered_energy_kwh,
    coalesce(sum(energy_kwh) filter (where not is_covered), 0) as uncovered_energy_kwh,
    -- Null in the uncovered hours, so these sums are over covered hours, and null where there is none.
    sum(operational_kg) as operational_kg,
    sum(embodied_kg) as embodied_kg,
    coalesce(sum(embodied_kg) filter (where is_covered), 0) as covered_embodied_kg,
    sum(total_kg) as total_kg,
    count(*) filter (where is_covered) as covered_hours,
    count(*) filter (where not is_covered) as uncovered_hours,
    sum(requests) as requests,
    bool_or(is_sample) as is_sample
from hourly
group by
    day,
    service,
    tenant,
    region,
    zone,
    tenant_residency
