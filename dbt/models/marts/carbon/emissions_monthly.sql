-- Numerator and denominator of the rate are both taken over covered hours, as in sci_daily.
with hourly as (
    select
        date_trunc('month', day)::date as month,
        service,
        tenant,
        region,
        zone,
        tenant_residency,
        carbon_provider,
        energy_kwh,
        operational_kg,
        is_sample,
        case when is_covered then energy_kwh end as covered_energy_kwh,
        case when is_covered then embodied_kg end as covered_embodied_kg,
        case when is_covered then requests end as covered_requests,
        case when is_estimated then energy_kwh end as estimated_energy_kwh,
        requests
    from {{ ref('emissions_hourly') }}
),

factors as (
    select max(vintage) as factor_vintage
    from {{ source('lake', 'emission_factors') }}
),

totals as (
    select
        month,
        service,
        tenant,
        region,
        zone,
        tenant_residency,
        string_agg(distinct carbon_provider, ', ' order by carbon_provider) as carbon_provider,
        sum(energy_kwh) as energy_kwh,
        coalesce(sum(covered_energy_kwh), 0) as covered_energy_kwh,
        coalesce(sum(estimated_energy_kwh), 0) as estimated_energy_kwh,
        sum(operational_kg) as scope3_operational_kg,
        case when sum(covered_energy_kwh) is not null then sum(covered_embodied_kg) end as scope3_embodied_kg,
        sum(requests) as requests,
        coalesce(sum(covered_requests), 0) as covered_requests,
        bool_or(is_sample) as is_sample
    from hourly
    group by
        month,
        service,
        tenant,
        region,
        zone,
        tenant_residency
)

select
    totals.month,
    totals.service,
    totals.tenant,
    totals.region,
    totals.zone,
    totals.tenant_residency,
    totals.energy_kwh,
    totals.covered_energy_kwh,
    totals.estimated_energy_kwh,
    totals.scope3_operational_kg,
    totals.scope3_embodied_kg,
    totals.scope3_operational_kg + totals.scope3_embodied_kg as scope3_location_based_kg,
    totals.requests,
    totals.covered_requests,
    1000 * (totals.scope3_operational_kg + totals.scope3_embodied_kg)
    / nullif(totals.covered_requests, 0) as sci_g_per_request,
    totals.carbon_provider,
    factors.factor_vintage,
    totals.is_sample
from totals
cross join factors
