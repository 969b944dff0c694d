-- Whose cost it is, with shared costs split among the tenants. A split adds up to what was split, to the last digit:
-- shares are rounded to six decimals, and what rounding leaves goes to the tenant with the largest share.
with monthly as (
    select
        month,
        billing_period,
        currency,
        provider,
        tenant,
        service,
        shared_by,
        is_sample,
        billed_cost,
        effective_cost
    from {{ ref('cost_monthly') }}
),

direct as (
    select
        month,
        currency,
        tenant,
        cast(sum(effective_cost) as double) as own
    from monthly
    where tenant <> '' and shared_by = ''
    group by all
),

pools as (
    select
        month,
        billing_period,
        currency,
        provider,
        service,
        shared_by,
        cast(sum(billed_cost) as decimal(38, 12)) as billed_cost,
        cast(sum(effective_cost) as decimal(38, 12)) as effective_cost,
        bool_or(is_sample) as is_sample
    from monthly
    where shared_by <> ''
    group by all
),

rules as (
    select
        name,
        split,
        tenant,
        share
    from {{ source('lake_cost', 'cost_shares') }}
),

weights as (
    select
        pools.month,
        pools.currency,
        pools.shared_by,
        direct.tenant,
        any_value(rules.split) as split,
        case any_value(rules.split)
            when 'even' then 1.0
            when 'fixed' then max(cast(rules.share as double)) filter (where rules.tenant = direct.tenant)
            else greatest(any_value(direct.own), 0)
        end as weight
    from pools
    inner join rules on pools.shared_by = rules.name
    inner join direct on pools.month = direct.month and pools.currency = direct.currency
    group by all
),

ratios as (
    select
        month,
        currency,
        shared_by,
        tenant,
        split,
        weight / sum(weight) over (partition by month, currency, shared_by) as ratio,
        row_number() over (partition by month, currency, shared_by order by weight desc, tenant asc) as place
    from weights
    where weight > 0
),

shares as (
    select
        pools.month,
        pools.billing_period,
        pools.currency,
        pools.provider,
        pools.service,
        pools.shared_by,
        pools.is_sample,
        ratios.tenant,
        ratios.split,
        ratios.ratio,
        ratios.place,
        pools.billed_cost as pool_billed,
        pools.effective_cost as pool_effective,
        cast(round(cast(pools.billed_cost as double) * ratios.ratio, 6) as decimal(38, 12)) as billed_share,
        cast(round(cast(pools.effective_cost as double) * ratios.ratio, 6) as decimal(38, 12)) as effective_share
    from pools
    inner join ratios
        on
            pools.month = ratios.month
            and pools.currency = ratios.currency
            and pools.shared_by = ratios.shared_by
),

split as (
    select
        month,
        billing_period,
        currency,
        provider,
        service,
        shared_by,
        is_sample,
        tenant,
        split,
        ratio,
        billed_share + case
            when place = 1 then pool_billed - sum(billed_share) over pool else 0
        end as billed_cost,
        effective_share + case
            when place = 1 then pool_effective - sum(effective_share) over pool else 0
        end as effective_cost
    from shares
    window pool as (partition by month, billing_period, currency, provider, service, shared_by)
),

unsplit as (
    select pools.*
    from pools
    where
        not exists (
            select 1
            from ratios
            where
                ratios.month = pools.month
                and ratios.currency = pools.currency
                and ratios.shared_by = pools.shared_by
        )
),

together as (
    select
        month,
        billing_period,
        currency,
        provider,
        tenant,
        service,
        '' as allocated_method_id,
        cast(null as varchar) as allocated_method_details,
        billed_cost,
        effective_cost,
        is_sample
    from monthly
    where shared_by = ''
    union all
    select
        month,
        billing_period,
        currency,
        provider,
        tenant,
        service,
        shared_by as allocated_method_id,
        '{"Elements": [{"AllocatedRatio": ' || round(ratio, 9) || ', "UsageUnit": "' || split || '"}]}'
            as allocated_method_details,
        billed_cost,
        effective_cost,
        is_sample
    from split
    union all
    select
        month,
        billing_period,
        currency,
        provider,
        '' as tenant,
        service,
        shared_by as allocated_method_id,
        cast(null as varchar) as allocated_method_details,
        billed_cost,
        effective_cost,
        is_sample
    from unsplit
)

select
    month,
    billing_period,
    currency,
    provider,
    tenant,
    service,
    allocated_method_id,
    any_value(allocated_method_details) as allocated_method_details,
    cast(sum(billed_cost) as decimal(38, 12)) as billed_cost,
    cast(sum(effective_cost) as decimal(38, 12)) as effective_cost,
    bool_or(is_sample) as is_sample
from together
group by month, billing_period, currency, provider, tenant, service, allocated_method_id
