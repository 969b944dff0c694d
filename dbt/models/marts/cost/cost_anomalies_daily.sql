-- Whether a day's cost is unlike its own past: against the median of the same weekday in the eight weeks before, in
-- units of the usual deviation (1.4826 times the median absolute one, never less than a twentieth of what is
-- expected). Medians: an anomaly does not hide the next one. Only the past is looked at: a day is judged as it would
-- have been on that day.
with expected as (
    select
        *,
        median(effective_cost) over same_weekday as expected,
        count(*) over same_weekday as weeks
    from {{ ref('stg_cost_series') }}
    window same_weekday as (
        partition by currency, provider, service_name, tenant, service, isodow(day)
        order by day asc
        rows between 8 preceding and 1 preceding
    )
),

deviations as (
    select
        *,
        case when weeks >= 2 then effective_cost - expected end as deviation
    from expected
),

scaled as (
    select
        *,
        greatest(
            1.4826 * median(abs(deviation)) over (
                partition by currency, provider, service_name, tenant, service
                order by day asc
                rows between 56 preceding and 1 preceding
            ),
            0.05 * abs(expected)
        ) as scale
    from deviations
),

totals as (
    select
        currency,
        day,
        sum(effective_cost) as total
    from {{ ref('stg_cost_series') }}
    group by all
),

-- What matters is a share of what a usual day costs, in any currency; where most days cost nothing, of their mean.
usual as (
    select
        currency,
        day,
        {{ var('anomaly_least_share') }} * coalesce(nullif(abs(median(total) over past), 0), avg(abs(total)) over past)
            as least
    from totals
    window past as (partition by currency order by day asc rows between 28 preceding and 1 preceding)
),

judged as (
    select
        scaled.*,
        scaled.weeks >= 4 and usual.least is not null as is_judged,
        case
            when scaled.weeks >= 4 and usual.least is not null
                then
                    scaled.deviation <> 0
                    and abs(scaled.deviation) >= usual.least
                    and abs(scaled.deviation) >= {{ var('anomaly_score') }} * scaled.scale
            else false
        end as is_anomaly
    from scaled
    inner join usual on scaled.currency = usual.currency and scaled.day = usual.day
),

-- Days of one cause: at most three days apart, in the same direction.
apart as (
    select
        *,
        is_anomaly and coalesce(
            day - max(case when is_anomaly then day end) over earlier > 3,
            true
        ) as is_first
    from judged
    window earlier as (
        partition by currency, provider, service_name, tenant, service, deviation > 0
        order by day asc
        rows between unbounded preceding and 1 preceding
    )
)

select
    day,
    currency,
    provider,
    service_name,
    tenant,
    service,
    effective_cost,
    case when is_judged then expected end as expected_cost,
    case when is_judged then deviation end as deviation,
    case when is_judged and scale > 0 then deviation / scale end as score,
    is_judged,
    is_anomaly,
    case
        when is_anomaly
            then max(case when is_first then day end) over (
                    partition by currency, provider, service_name, tenant, service, deviation > 0
                    order by day asc
                    rows between unbounded preceding and current row
                )
    end as since,
    is_sample
from apart
