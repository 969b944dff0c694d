-- One row per criterion with its newest measurement. Reads: criteria (registered), check_results.
with latest as (
    select
        "check",
        arg_max(outcome, checked_at) as outcome,
        max(checked_at) as checked_at,
        arg_max(struct_pack(measured := measured, missing := missing, evidence := evidence), checked_at) as result
    from check_results
    where checked_at <= $now
    group by "check"
)

select
    c.id,
    c.domain,
    c.criterion,
    c.comparison,
    c.target,
    l.result.measured as measured,
    c.unit,
    case
        when l.checked_at is null then 'not yet measured'
        when l.checked_at < $now - to_hours(c.valid_hours) then 'stale'
        when l.outcome = 'cannot be measured' or l.result.measured is null then 'cannot be measured here'
        when
            case c.comparison
                when '>=' then l.result.measured >= c.target
                when '<=' then l.result.measured <= c.target
                else l.result.measured = c.target
            end
            then 'met'
        else 'missed'
    end as verdict,
    l.result.missing as missing,
    l.checked_at,
    l.result.evidence as evidence
from criteria as c
left join latest as l on c.check = l."check"
order by c.position
