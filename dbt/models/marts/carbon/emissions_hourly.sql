-- Energy, operational and embodied emissions of every usage row. All joins are left joins on declared unique
-- keys: a usage row is never dropped and never doubled, and what is missing is null, not zero.
with usage as (
    select
        hour,
        day,
        service,
        tenant,
        region,
        usage_source,
        vcpu_hours,
        cpu_utilization,
        memory_gb_hours,
        storage_tb_hours,
        network_gb,
        gpu_hours,
        requests
    from {{ ref('stg_resource_usage_hourly') }}
),

regions as (
    select
        region,
        zone,
        pue
    from {{ ref('stg_regions') }}
),

tenants as (
    select
        tenant,
        residency
    from {{ ref('stg_tenants') }}
),

intensity as (
    select
        zone,
        hour,
        provider,
        intensity_g_per_kwh,
        is_estimated
    from {{ ref('stg_carbon_intensity_hourly') }}
),

rates as (
    select
        cpu_default_utilization,
        cpu_min_w_per_vcpu,
        cpu_max_w_per_vcpu - cpu_min_w_per_vcpu as cpu_dynamic_w_per_vcpu,
        memory_kwh_per_gb_hour,
        storage_wh_per_tb_hour * storage_replication as storage_wh_per_tb_hour,
        network_kwh_per_gb,
        gpu_min_w + gpu_default_utilization * (gpu_max_w - gpu_min_w) as gpu_w,
        -- M = TE * (TR / EL) * (RR / ToR) of ISO/IEC 21031, for one vCPU reserved for one hour.
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
        usage.hour,
        usage.day,
        usage.service,
        usage.tenant,
        usage.region,
        regions.zone,
        tenants.residency as tenant_residency,
        usage.usage_source,
        usage.requests,
        -- PUE is facility energy over IT energy of one data centre: it applies to what runs there. The network
        -- figure is the energy of the lines and routers between data centres, so PUE does not touch it.
        regions.pue * (
            usage.vcpu_hours
            * (
                rates.cpu_min_w_per_vcpu
                + coalesce(usage.cpu_utilization, rates.cpu_default_utilization) * rates.cpu_dynamic_w_per_vcpu
            )
            / 1000
            + usage.memory_gb_hours * rates.memory_kwh_per_gb_hour
            + usage.storage_tb_hours * rates.storage_wh_per_tb_hour / 1000
            + usage.gpu_hours * rates.gpu_w / 1000
        )
        + usage.network_gb * rates.network_kwh_per_gb as energy_kwh,
        usage.vcpu_hours * rates.embodied_kg_per_vcpu_hour
        + usage.gpu_hours * rates.embodied_kg_per_gpu_hour as embodied_kg
    from usage
    cross join rates
    left join regions on usage.region = regions.region
    left join tenants on usage.tenant = tenants.tenant
)

select
    energy.hour,
    energy.day,
    energy.service,
    energy.tenant,
    energy.region,
    energy.zone,
    energy.tenant_residency,
    energy.energy_kwh,
    intensity.intensity_g_per_kwh,
    intensity.intensity_g_per_kwh is not null as is_covered,
    intensity.is_estimated,
    energy.energy_kwh * intensity.intensity_g_per_kwh / 1000 as operational_kg,
    energy.embodied_kg,
    energy.energy_kwh * intensity.intensity_g_per_kwh / 1000 + energy.embodied_kg as total_kg,
    energy.requests,
    intensity.provider as carbon_provider,
    energy.usage_source,
    energy.usage_source = 'sample' or coalesce(intensity.provider = 'sample', false) as is_sample
from energy
left join intensity on energy.zone = intensity.zone and energy.hour = intensity.hour
