-- The emissions of each charge whose usage is known: cost and carbon on the same row of the same file.
select
    billing_period,
    file,
    row_number,
    currency,
    charge_period_start,
    charge_period_end,
    coalesce(provider, '') as provider,
    coalesce(service_name, '') as service_name,
    coalesce(tenant, '') as tenant,
    coalesce(service, '') as service,
    coalesce(region, '') as region,
    zone,
    billed_cost,
    effective_cost,
    energy_kwh,
    intensity_g_per_kwh,
    operational_kg,
    embodied_kg,
    operational_kg is not null as is_covered,
    is_sample or is_sample_intensity as is_sample
from {{ ref('stg_cost_charges') }}
where energy_kwh is not null
