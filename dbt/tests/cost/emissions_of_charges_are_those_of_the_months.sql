{{ config(meta={'dagster': {'asset_key': ['cost', 'charge_carbon']}}) }}
with charges as (
    select
        sum(energy_kwh) as energy_kwh,
        sum(operational_kg) as operational_kg
    from {{ ref('cost_charge_carbon') }}
),

months as (
    select
        sum(energy_kwh) as energy_kwh,
        sum(operational_kg) as operational_kg
    from {{ ref('cost_monthly') }}
)

select
    charges.energy_kwh as charges_energy_kwh,
    months.energy_kwh as months_energy_kwh,
    charges.operational_kg as charges_operational_kg,
    months.operational_kg as months_operational_kg
from charges
cross join months
where
    {{ differ('charges.energy_kwh', 'months.energy_kwh') }}
    or {{ differ('charges.operational_kg', 'months.operational_kg') }}
