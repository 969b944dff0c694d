-- Kilograms are of settled work alone; what waits for actuals, or failed, is counted beside it.
with work as (
    select
        date_trunc('month', coalesce(ended_at, deadline))::date as month,
        tenant,
        coalesce(service, 'none') as service,
        kind,
        home_region,
        coalesce(region, 'nowhere') as region,
        state,
        provider,
        factor_vintage,
        energy_kwh,
        operational_g,
        transfer_g,
        embodied_g,
        actual_g,
        wasted_g,
        counterfactual_g,
        avoided_g,
        expected_avoided_g,
        is_estimated
    from {{ source('lake_placement', 'placement_settlements') }}
)

select
    month,
    tenant,
    service,
    kind,
    home_region,
    region,
    count(*) filter (where state = 'settled') as settled_jobs,
    count(*) filter (where state = 'awaiting actuals') as unsettled_jobs,
    count(*) filter (where state not in ('settled', 'awaiting actuals')) as other_jobs,
    sum(energy_kwh) filter (where state = 'settled') as energy_kwh,
    sum(operational_g) filter (where state = 'settled') / 1000 as scope3_operational_kg,
    sum(transfer_g) filter (where state = 'settled') / 1000 as scope3_transfer_kg,
    sum(embodied_g) filter (where state = 'settled') / 1000 as scope3_embodied_kg,
    sum(actual_g) filter (where state = 'settled') / 1000 as scope3_location_based_kg,
    sum(wasted_g) filter (where state = 'settled') / 1000 as wasted_kg,
    sum(counterfactual_g) filter (where state = 'settled') / 1000 as at_home_at_once_kg,
    sum(avoided_g) filter (where state = 'settled') / 1000 as avoided_kg,
    sum(expected_avoided_g) filter (where state = 'settled') / 1000 as expected_avoided_kg,
    sum(actual_g) filter (where state = 'settled')
    / nullif(count(*) filter (where state = 'settled'), 0) as sci_g_per_job,
    count(*) filter (where is_estimated) as estimated_jobs,
    max(provider) as carbon_provider,
    max(factor_vintage) as factor_vintage,
    bool_or(provider = 'sample') as is_sample
from work
group by
    month,
    tenant,
    service,
    kind,
    home_region,
    region
