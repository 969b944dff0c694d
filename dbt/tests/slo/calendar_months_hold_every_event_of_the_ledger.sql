{{ config(meta={'dagster': {'asset_key': ['slo', 'budget_calendar']}}) }}
with months as (
    select
        slo_id,
        sum(total) as total,
        sum(bad) as bad,
        sum(known_minutes + gap_minutes) as minutes
    from {{ ref('slo_budget_calendar') }}
    where calendar = 'month'
    group by all
),

ledger as (
    select
        minutes.slo_id,
        sum(minutes.total) as total,
        sum(minutes.bad) as bad,
        count(*) as minutes
    from {{ source('lake_slo', 'slo_minutes') }} as minutes
    inner join {{ ref('stg_slo_definitions') }} as definitions on minutes.slo_id = definitions.slo_id
    group by all
)

select
    coalesce(ledger.slo_id, months.slo_id) as slo_id,
    ledger.total as ledger_total,
    months.total as months_total,
    ledger.bad as ledger_bad,
    months.bad as months_bad
from ledger
full outer join months on ledger.slo_id = months.slo_id
where
    {{ differ('ledger.total', 'months.total') }}
    or {{ differ('ledger.bad', 'months.bad') }}
    or ledger.minutes is distinct from months.minutes
