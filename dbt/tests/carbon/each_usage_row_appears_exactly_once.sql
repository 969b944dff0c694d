{{ config(meta={'dagster': {'asset_key': ['carbon', 'emissions_hourly']}}) }}
-- Joins drop rows or double them; sums then still look plausible.
with usage as (
    select
        hour,
        service,
        tenant,
        region,
        count(*) as occurrences
    from {{ ref('stg_resource_usage_hourly') }}
    group by
        hour,
        service,
        tenant,
        region
),

emissions as (
    select
        hour,
        service,
        tenant,
        region,
        count(*) as occurrences
    from {{ ref('emissions_hourly') }}
    group by
        hour,
        service,
        tenant,
        region
)

select
    coalesce(usage.hour, emissions.hour) as hour,
    coalesce(usage.service, emissions.service) as service,
    coalesce(usage.tenant, emissions.tenant) as tenant,
    coalesce(usage.region, emissions.region) as region,
    coalesce(usage.occurrences, 0) as occurrences_in_usage,
    coalesce(emissions.occurrences, 0) as occurrences_in_emissions
from usage
full outer join emissions
    on
        usage.hour = emissions.hour
        and usage.service = emissions.service
        and usage.tenant = emissions.tenant
        and usage.region = emissions.region
where
    usage.occurrences is distinct from 1
    or emissions.occurrences is distinct from 1
