-- Every charge with the energy of what it used and the emissions of that energy. What is not known stays null: no
-- figure is made of money. Left joins on unique keys: a charge is neither dropped nor doubled.
with charges as (
    select
        billing_period,
        file,
        row_number,
        source = 'sample' as is_sample,
        billing_currency as currency,
        charge_period_start,
        charge_period_end,
        charge_category,
        charge_class,
        charge_frequency,
        service_provider_name as provider,
        sub_account_id as sub_account,
        service_name,
        tenant,
        service,
        environment,
        region,
        shared_by,
        billed_cost,
        effective_cost,
        list_cost,
        contracted_cost,
        vcpu_hours,
        memory_gb_hours,
        storage_gb_hours,
        network_gb,
        gpu_hours,
        tokens,
        coalesce(vcpu_hours, memory_gb_hours, storage_gb_hours, network_gb, gpu_hours) is not null as is_usage_known
    from {{ source('lake_cost', 'cost_charges') }}
),

regions as (
    select
        region,
        zone,
        pue
    from {{ ref('stg_regions') }}
),

intensity as (
    select
        zone,
        provider,
        span_start,
        span_end,
        intensity_g_per_kwh
    from {{ ref('stg_cost_intensity') }}
),

rates as (
    select
        (
            cpu_min_w_per_vcpu + cpu_default_utilization * (cpu_max_w_per_vcpu - cpu_min_w_per_vcpu)
        ) / 1000 as kwh_per_vcpu_hour,
        memory_kwh_per_gb_hour,
        storage_wh_per_tb_hour * storage_replication / 1000 / 1000 as kwh_per_storage_gb_hour,
        network_kwh_per_gb,
        (gpu_min_w + gpu_default_utilization * (gpu_max_w - gpu_min_w)) / 1000 as kwh_per_gpu_hour,
        (
            server_embodied_base_kg
            + server_embodied_kg_per_additional_cpu * (server_cpus - 1)
            + server_embodied_kg_per_gb_memory * (server_memory_gb - server_memory_gb_in_base)
        ) / server_lifetime_hours / server_vcpus as embodied_kg_per_vcpu_hour,
        gpu_embodied_kg / server_lifetime_hours as embodied_kg_per_gpu_hour
    from {{ ref('stg_emission_factors') }}
),

energy as (
    select
        charges.*,
        regions.zone,
        case
            when charges.is_usage_known then regions.pue * (
                    coalesce(charges.vcpu_hours, 0) * rates.kwh_per_vcpu_hour
                    + coalesce(charges.memory_gb_hours, 0) * rates.memory_kwh_per_gb_hour
                    + coalesce(charges.storage_gb_hours, 0) * rates.kwh_per_storage_gb_hour
                    + coalesce(charges.gpu_hours, 0) * rates.kwh_per_gpu_hour
                ) + coalesce(charges.network_gb, 0) * rates.network_kwh_per_gb
        end as energy_kwh,
        case
            when charges.vcpu_hours is not null or charges.gpu_hours is not null
                then
                    coalesce(charges.vcpu_hours, 0) * rates.embodied_kg_per_vcpu_hour
                    + coalesce(charges.gpu_hours, 0) * rates.embodied_kg_per_gpu_hour
        end as embodied_kg
    from charges
    cross join rates
    left join regions on charges.region = regions.region
)

select
    energy.*,
    intensity.intensity_g_per_kwh,
    coalesce(intensity.provider = 'sample', false) as is_sample_intensity,
    energy.energy_kwh * intensity.intensity_g_per_kwh / 1000 as operational_kg
from energy
left join intensity
    on
        energy.zone = intensity.zone
        and energy.charge_period_start = intensity.span_start
        and energy.charge_period_end = intensity.span_end
