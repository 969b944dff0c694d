"""The SQL behind `burning.py`: burn rates over rolling windows, and the spells in them, a pass over all minutes at once.

Both statements read `minutes` (SLO_MINUTES) and `given`: SLO, severity, `after` (the last minute decided on, minutes since
1970), `is_open`, and `allowed`, the error ratio that spends the budget exactly. Not here: what is made of the rows.
"""

from __future__ import annotations

from datetime import timedelta

from greenops_pipelines.slo.windows import Window, Windows

CALM_MINUTES = 5
"""Known minutes below before an incident is over: one more bad minute within them, and it goes on."""
SAME = 1e-9
"""Burns that differ by less are the same, as in `certificate.py`: one that equals the factor is not above it."""
_MINUTE = timedelta(minutes=1)


def pairs_of(windows: Windows, severity: str) -> tuple[Window, ...]:
    """The pairs of an alert, each once."""
    pairs = (
        (windows.page_quick, windows.page_slow) if severity == "page" else (windows.ticket_quick, windows.ticket_slow)
    )
    return tuple(dict.fromkeys(pairs))


def length_minutes(window: timedelta) -> int:
    """Whole minutes of a window, at least one."""
    return max(1, window // _MINUTE)


def column(window: timedelta) -> str:
    """Name of the column with the burn over a window."""
    return f"burn_{length_minutes(window)}m"


def rates(windows: Windows) -> str:
    """The burn over every window, at every known minute up to the parameter, as the table `rates`.

    `last_event` is the last minute until then in which anything happened.
    """
    burns = ",\n".join(
        f"coalesce(sum(bad) over w{n} / nullif(sum(total) over w{n}, 0), 0) / allowed as burn_{n}m"
        for n in map(length_minutes, windows.lengths)
    )
    frames = ",\n".join(
        f"w{n} as (partition by slo_id order by m range between {n - 1} preceding and current row)"
        for n in map(length_minutes, windows.lengths)
    )
    return f"""
create temp table rates as
with known as (
    select slo_id, epoch_us(minute) // 60000000 as m, total, bad, allowed
    from minutes join (select distinct slo_id, allowed from given) using (slo_id)
    where total is not null and bad is not null and epoch_us(minute) // 60000000 <= ?
)
select slo_id, m, total, bad,
    max(m) filter (total > 0) over (partition by slo_id order by m) as last_event,
    {burns}
from known
window {frames}
"""


def spells(windows: Windows) -> str:
    """One row per spell. `loud` numbers the stretches that a minute which is not calm begins.

    `silent` is the first minute without events where none came in the minutes that closed it.
    """

    def either(severity: str, both: bool) -> str:
        lengths = [[pair.short, pair.long] if both else [pair.short] for pair in pairs_of(windows, severity)]
        factors = [pair.factor(windows.period) * (1 + SAME) for pair in pairs_of(windows, severity)]
        return " or ".join(
            "(" + " and ".join(f"{column(length)} > {factor!r}" for length in each) + ")"
            for each, factor in zip(lengths, factors, strict=True)
        )

    def by_severity(page: str, ticket: str) -> str:
        return f"case severity when 'page' then {page} else {ticket} end"

    shortest = [column(min(pair.short for pair in pairs_of(windows, name))) for name in ("page", "ticket")]
    whole = "partition by slo_id, severity order by m rows between unbounded preceding and current row"
    return f"""
with judged as (
    select slo_id, severity, is_open, "after", m, total, bad, last_event,
        {by_severity(*shortest)} as burn,
        {by_severity(either("page", True), either("ticket", True))} as is_above,
        not {by_severity(f"({either('page', False)})", f"({either('ticket', False)})")} as is_calm
    from rates join given using (slo_id)
    where m > "after"
),
stretches as (
    select *, count(*) filter (not is_calm) over ({whole}) as loud from judged
),
runs as (
    select *,
        count(*) filter (is_calm) over (
            partition by slo_id, severity, loud order by m rows between unbounded preceding and current row
        ) as calm_minutes,
        min(m) filter (is_calm) over (partition by slo_id, severity, loud) as calm_since,
        sum(total) filter (is_calm) over (
            partition by slo_id, severity, loud order by m rows between unbounded preceding and current row
        ) as calm_total
    from stretches
),
states as (
    select *,
        coalesce(
            last_value(case when is_above then 1 when calm_minutes >= {CALM_MINUTES} then 0 end ignore nulls) over ({whole}),
            is_open
        ) as state
    from runs
),
changes as (
    select *, coalesce(lag(state) over (partition by slo_id, severity order by m), is_open) as was from states
),
numbered as (
    select *, is_open + sum(case when state = 1 and was = 0 then 1 else 0 end) over ({whole}) as spell from changes
),
spans as (
    select *,
        max(m) filter (state = 1 and not is_calm) over (partition by slo_id, severity, spell) as counted_to
    from numbered
    where spell > 0
)
select slo_id, severity, spell,
    is_open = 1 and spell = 1 as continues,
    coalesce(min(m) filter (state = 1 and m <= counted_to), min(m)) as opened,
    min(calm_since) filter (state = 0 and was = 1) as closed,
    min(last_event + 1) filter (state = 0 and was = 1 and calm_total = 0) as silent,
    coalesce(max(counted_to), max("after")) as counted_to,
    max(burn) filter (state = 1 and m <= counted_to) as peak,
    sum(bad) filter (state = 1 and m <= counted_to) as bad,
    sum(total) filter (state = 1 and m <= counted_to) as total,
    count(*) filter (state = 1 and m <= counted_to) as known
from spans
group by slo_id, severity, spell, is_open
order by slo_id, severity, spell
"""
