-- Usage is hourly, some grids publish half or quarter hours. An hour has an intensity only where its
-- intervals tile it: each begins where the one before ended, and together they last 60 minutes.
-- Checking the sum alone would accept a 60-minute interval from 00:30, or a half hour counted twice.
with intervals as (
    select
        provider,
        zone,
        signal,
        emission_factor_type,
        datetime,
        resolution_minutes,
        carbon_intensity_g_per_kwh,
        is_estimated,
        time_bucket(interval '1 hour', datetime) as hour
    from {{ source('lake', 'carbon_intensity') }}
    -- What one more kWh causes is not what a kWh emitted: no emissions are computed from it.
    where carbon_intensity_g_per_kwh is not null and signal is distinct from 'marginal'
),

placed as (
    select
        provider,
        zone,
        signal,
        emission_factor_type,
        hour,
        datetime,
        resolution_minutes,
        carbon_intensity_g_per_kwh,
        is_estimated,
        coalesce(
            sum(resolution_minutes) over (
                partition by provider, zone, signal, emission_factor_type, hour
                order by datetime
                rows between unbounded preceding and 1 preceding
            ),
            0
        ) as minutes_before
    from intervals
)

select
    provider,
    zone,
    signal,
    emission_factor_type,
    hour,
    count(*) as intervals,
    sum(carbon_intensity_g_per_kwh * resolution_minutes) / 60 as intensity_g_per_kwh,
    case
        when bool_or(is_estimated) then true
        when count(is_estimated) = count(*) then false
    end as is_estimated
from placed
group by
    provider,
    zone,
    signal,
    emission_factor_type,
    hour
having
    sum(resolution_minutes) = 60
    and bool_and(datetime = hour + to_minutes(cast(minutes_before as bigint)))
