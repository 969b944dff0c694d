-- SCI = (E * I + M) / R, ISO/IEC 21031. Numerator and denominator are both taken over covered hours: requests of an
-- hour whose emissions are unknown must not dilute the figure.
with covered as (
    select
        day,
        service,
        is_sample,
        requests,
        case when is_covered then energy_kwh end as covered_energy_kwh,
        case when is_covered then operational_kg end as operational_kg,
        case when is_covered then embodied_kg end as covered_embodied_kg,
        case when is_covered then requests end as covered_requests
    from {{ ref('emissions_hourly') }}
),

totals as (
    select
        day,
        service,
        coalesce(sum(covered_energy_kwh), 0) as covered_energy_kwh,
        sum(operational_kg) as operational_kg,
        coalesce(sum(covered_embodied_kg), 0) as covered_embodied_kg,
        sum(requests) as requests,
        coalesce(sum(covered_requests), 0) as covered_requests,
        bool_or(is_sample) as is_sample
    from covered
    group by
        day,
        service
)

select
    day,
    service,
    covered_energy_kwh,
    1000 * operational_kg / nullif(covered_energy_kwh, 0) as intensity_g_per_kwh,
    operational_kg,
    covered_embodied_kg,
    requests,
    covered_requests,
    1000 * (operational_kg + covered_embodied_kg) / nullif(covered_requests, 0) as sci_g_per_request,
    1000 * operational_kg / nullif(covered_requests, 0) as sci_without_embodied_g_per_request,
    is_sample
from totals
