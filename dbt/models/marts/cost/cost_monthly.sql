-- Cost and carbon of the same charges, per month of the charge. Money is added up as decimals, per currency.
with charges as (
    select
        currency,
        billing_period,
        provider,
        service_name,
        tenant,
        service,
        environment,
        region,
        charge_category,
        shared_by,
        billed_cost,
        effective_cost,
        list_cost,
        contracted_cost,
        energy_kwh,
        operational_kg,
        embodied_kg,
        tokens,
        is_sample,
        cast(date_trunc('month', charge_period_start) as date) as month
    from {{ ref('stg_cost_charges') }}
)

select
    month,
    currency,
    billing_period,
    coalesce(provider, '') as provider,
    coalesce(service_name, '') as service_name,
    coalesce(tenant, '') as tenant,
    coalesce(service, '') as service,
    coalesce(environment, '') as environment,
    coalesce(region, '') as region,
    charge_category,
    coalesce(shared_by, '') as shared_by,
    cast(sum(billed_cost) as decimal(38, 12)) as billed_cost,
    cast(sum(effective_cost) as decimal(38, 12)) as effective_cost,
    cast(sum(list_cost) as decimal(38, 12)) as list_cost,
    cast(sum(contracted_cost) as decimal(38, 12)) as contracted_cost,
    count(*) as charges,
    sum(energy_kwh) as energy_kwh,
    coalesce(sum(energy_kwh) filter (where operational_kg is not null), 0) as covered_energy_kwh,
    sum(operational_kg) as operational_kg,
    sum(embodied_kg) filter (where operational_kg is not null) as covered_embodied_kg,
    sum(tokens) as tokens,
    bool_or(is_sample) as is_sample
from charges
group by all
