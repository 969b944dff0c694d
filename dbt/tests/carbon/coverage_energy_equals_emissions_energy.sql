{{ config(meta={'dagster': {'asset_key': ['carbon', 'coverage_daily']}}) }}
with emissions as (
    select
        day,
        zone,
        sum(energy_kwh) as energy_kwh,
        sum(covered_energy_kwh) as covered_energy_kwh
    from {{ ref('emissions_daily') }}
    group by
        day,
        zone
),

coverage as (
    select
        day,
        zone,
        energy_kwh,
        covered_energy_kwh
    from {{ ref('carbon_coverage_daily') }}
)

select
    coalesce(emissions.day, coverage.day) as day,
    coalesce(emissions.zone, coverage.zone) as zone,
    emissions.energy_kwh as emissions_energy_kwh,
    coverage.energy_kwh as coverage_energy_kwh,
    emissions.covered_energy_kwh as emissions_covered_energy_kwh,
    coverage.covered_energy_kwh as coverage_covered_energy_kwh
from emissions
full outer join coverage on emissions.day = coverage.day and emissions.zone = coverage.zone
where
    {{ differ('emissions.energy_kwh', 'coverage.energy_kwh') }}
    or {{ differ('emissions.covered_energy_kwh', 'coverage.covered_energy_kwh') }}
