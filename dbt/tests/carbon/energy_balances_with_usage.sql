{{ config(meta={'dagster': {'asset_key': ['carbon', 'emissions_hourly']}}) }}
-- The energy of a region by a second route: usage is summed first and multiplied by the factors afterwards,
-- without the joins of the mart.
with usage as (
    select
        region,
        sum(vcpu_hours) as vcpu_hours,
        sum(vcpu_hours * cpu_utilization) as utilized_vcpu_hours,
        sum(vcpu_hours) filter (where cpu_utilization is null) as vcpu_hours_of_unknown_utilization,
        sum(memory_gb_hours) as memory_gb_hours,
        sum(storage_tb_hours) as storage_tb_hours,
        sum(network_gb) as network_gb,
        sum(gpu_hours) as gpu_hours
    from {{ ref('stg_resource_usage_hourly') }}
    group by region
),

-- One PUE per region, whatever the declaration says: a region declared twice must show up as a difference.
pue as (
    select
        region,
        max(pue) as pue
    from {{ ref('stg_regions') }}
    group by region
),

expected as (
    select
        usage.region,
        usage.network_gb * factors.network_kwh_per_gb
        + pue.pue
        * (
            usage.vcpu_hours * factors.cpu_min_w_per_vcpu / 1000
            + (
                coalesce(usage.utilized_vcpu_hours, 0)
                + coalesce(usage.vcpu_hours_of_unknown_utilization, 0) * factors.cpu_default_utilization
            )
            * (factors.cpu_max_w_per_vcpu - factors.cpu_min_w_per_vcpu)
            / 1000
            + usage.memory_gb_hours * factors.memory_kwh_per_gb_hour
            + usage.storage_tb_hours * factors.storage_wh_per_tb_hour * factors.storage_replication / 1000
            + usage.gpu_hours
            * (
                factors.gpu_min_w * (1 - factors.gpu_default_utilization)
                + factors.gpu_max_w * factors.gpu_default_utilization
            )
            / 1000
        ) as energy_kwh
    from usage
    left join pue on usage.region = pue.region
    cross join {{ ref('stg_emission_factors') }} as factors
),

found as (
    select
        region,
        sum(energy_kwh) as energy_kwh
    from {{ ref('emissions_hourly') }}
    group by region
)

select
    coalesce(expected.region, found.region) as region,
    expected.energy_kwh as expected_energy_kwh,
    found.energy_kwh as found_energy_kwh
from expected
full outer join found on expected.region = found.region
where {{ differ('expected.energy_kwh', 'found.energy_kwh') }}
