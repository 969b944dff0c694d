-- Sloth's SLI is the ratio of the last five minutes, each time it is evaluated, whatever the traffic: its period value
-- is the mean of those. Kept beside the counts, so that the difference can be said.
select
    source,
    day,
    slo_id,
    minute,
    total,
    bad,
    unplaced_total,
    unplaced_bad,
    sum(bad) over five_minutes / nullif(sum(total) over five_minutes, 0) as sloth_ratio
from {{ source('lake_slo', 'slo_minutes') }}
window five_minutes as (
    partition by source, slo_id
    order by minute asc
    range between interval 4 minutes preceding and current row
)
