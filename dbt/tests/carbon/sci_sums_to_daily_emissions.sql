{{ config(meta={'dagster': {'asset_key': ['carbon', 'sci_daily']}}) }}
-- SCI times its requests must give back the covered emissions of the day.
with emissions as (
    select
        day,
        service,
        sum(covered_energy_kwh) as covered_energy_kwh,
        sum(operational_kg) as operational_kg,
        sum(total_kg) as total_kg,
        sum(requests) as requests
    from {{ ref('emissions_daily') }}
    group by
        day,
        service
),

sci as (
    select
        day,
        service,
        covered_energy_kwh,
        operational_kg,
        requests,
        covered_requests,
        sci_g_per_request * covered_requests / 1000 as total_kg
    from {{ ref('sci_daily') }}
)

select
    coalesce(emissions.day, sci.day) as day,
    coalesce(emissions.service, sci.service) as service,
    emissions.covered_energy_kwh as emissions_covered_energy_kwh,
    sci.covered_energy_kwh as sci_covered_energy_kwh,
    emissions.operational_kg as emissions_operational_kg,
    sci.operational_kg as sci_operational_kg,
    emissions.total_kg as emissions_total_kg,
    sci.total_kg as sci_total_kg,
    emissions.requests as emissions_requests,
    sci.requests as sci_requests
from emissions
full outer join sci on emissions.day = sci.day and emissions.service = sci.service
where
    {{ differ('emissions.covered_energy_kwh', 'sci.covered_energy_kwh') }}
    or {{ differ('emissions.operational_kg', 'sci.operational_kg') }}
    or {{ differ('emissions.requests', 'sci.requests') }}
    or (sci.covered_requests > 0 and {{ differ('emissions.total_kg', 'sci.total_kg') }})
