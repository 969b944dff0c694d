"""What people ask of the ledger: what is left of each budget, and which incidents spent it.

Reads the warehouse's views, without a lock. Not here: how the figures are made (`dbt/models/marts/slo`), and how they are shown
(`budget_commands.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import pyarrow as pa

from greenops_pipelines.errors import BadInput

Period = Literal["rolling", "month", "quarter"]
PERIODS: tuple[Period, ...] = get_args(Period)

Ask = Callable[[str], pa.Table]
"""One SELECT statement -> its rows."""

_COLUMNS = """service, slo_id, objective, total, bad, budget_remaining, 100 * remaining_ratio as left_percent, status,
    strftime(first_minute at time zone 'UTC', '%Y-%m-%dT%H:%M:%SZ') as first_minute,
    strftime(through at time zone 'UTC', '%Y-%m-%dT%H:%M:%SZ') as through,
    known_minutes, gap_minutes, unread_minutes, is_sample"""


def budgets(ask: Ask, period: Period, service: str | None = None) -> list[dict[str, Any]]:
    """The newest budget of every SLO, the emptiest first: `left_percent` (below 0: overspent; None: no event), events, minutes.

    Each is of [`first_minute`, `through`), UTC. A rolling one has `burn_1h` and `burn_6h`, and `sloth_left_percent`: what the
    mean of ratios makes of the same minutes. A calendar one has `period_start` (a day there) and `ends_at`. Raises `BadInput`
    where `service` has no SLO.
    """
    view, statement = (
        ("slo_error_budget", _ROLLING) if period == "rolling" else ("slo_budget_calendar", _calendar(period))
    )
    rows = _rows(ask, view, statement)
    services = sorted({row["service"] for row in rows})
    if service is not None and rows and service not in services:
        raise BadInput(f"--service: found {service!r}, allowed: {', '.join(services)}")
    return [row for row in rows if service in (None, row["service"])]


def incidents(ask: Ask, limit: int, only_open: bool = False) -> list[dict[str, Any]]:
    """Incidents, open ones first, then the newest, as rows of SLO_INCIDENTS."""
    where = "where state = 'open'" if only_open else ""
    statement = (
        f"select * from slo_incidents {where} order by state = 'open' desc, opened_at desc, incident limit {limit:d}"
    )
    return _rows(ask, "slo_incidents", statement)


def _rows(ask: Ask, view: str, statement: str) -> list[dict[str, Any]]:
    if not ask(f"select 1 from information_schema.tables where table_name = '{view}'").num_rows:
        raise BadInput(f"{view}: not in the warehouse yet; `greenops run` makes it")
    rows: list[dict[str, Any]] = ask(statement).to_pylist()
    return rows


_ROLLING = f"""
    with newest as (
        select * from slo_error_budget qualify row_number() over (partition by slo_id order by day desc, is_sample) = 1
    ),
    burning as (
        select slo_id, is_sample, burn_1h, burn_6h from slo_burn
        qualify row_number() over (partition by slo_id, is_sample order by hour desc) = 1
    )
    select {_COLUMNS}, burn_1h, burn_6h, 100 * sloth_remaining_ratio as sloth_left_percent
    from newest left join burning using (slo_id, is_sample)
    order by left_percent nulls last, slo_id
"""


def _calendar(period: Period) -> str:
    return f"""
        select {_COLUMNS}, strftime(ends_at at time zone 'UTC', '%Y-%m-%dT%H:%M:%SZ') as ends_at,
            cast(period_start as varchar) as period_start
        from slo_budget_calendar where calendar = '{period}'
        qualify row_number() over (partition by slo_id order by period_start desc, is_sample) = 1
        order by left_percent nulls last, slo_id
    """
