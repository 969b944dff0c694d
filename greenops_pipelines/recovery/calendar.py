"""When GameDays are: the day of each month, what is due now, and which months went by without one.

Not here: what is drilled on them.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta

from greenops_pipelines.recovery.declared import GameDays, Scenario


def begins(declared: GameDays, month: date) -> datetime:
    """When the GameDay of a month begins, UTC."""
    day = declared.gameday.day(month.year, month.month)
    return datetime.combine(day, time(declared.gameday.hour), UTC)


def due(declared: GameDays, now: datetime) -> str:
    """The month whose GameDay was the last to begin, as `2026-11`: what should have been held by now."""
    month = now.date().replace(day=1)
    if begins(declared, month) > now:
        month = before(month)
    return f"{month:%Y-%m}"


def coming(declared: GameDays, now: datetime, months: int) -> list[tuple[date, tuple[Scenario, ...]]]:
    """The next GameDays, and what each drills."""
    month = now.date().replace(day=1)
    if begins(declared, month) <= now:
        month = after(month)
    found = []
    for _ in range(months):
        found.append((begins(declared, month).date(), declared.scenarios_of(month)))
        month = after(month)
    return found


def missed(declared: GameDays, held: Collection[str], since: datetime, now: datetime) -> list[str]:
    """Months whose GameDay began after `since` and was not held within a day, up to now; at most the last twelve."""
    last = now - timedelta(days=1)
    month, found = now.date().replace(day=1), []
    for _ in range(12):
        begun = begins(declared, month)
        if since < begun <= last and f"{month:%Y-%m}" not in held:
            found.append(f"{month:%Y-%m}")
        month = before(month)
    return sorted(found)


def after(month: date) -> date:
    return (month.replace(day=28) + timedelta(days=4)).replace(day=1)


def before(month: date) -> date:
    return (month - timedelta(days=1)).replace(day=1)
