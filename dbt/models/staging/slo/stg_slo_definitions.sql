-- At an objective of 100 there is no budget: what may fail is null, and so is everything that is divided by it.
select
    slo_id,
    service,
    slo,
    objective,
    nullif((100 - objective) / 100, 0) as allowed_ratio,
    error_budget_minutes,
    cast(period_days as integer) as period_days,
    time_zone,
    yellow_below_percent / 100 as yellow_below
from {{ source('lake_slo', 'slo_definitions') }}
