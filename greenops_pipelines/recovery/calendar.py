"""When GameDays are: the day of each month, what is due now, and which months went by without one.

Not here: what is drilled on them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from greenops_pipelines.recovery.declared import GameDays, Scenario

_MADE_UP_FOR = timedelta(days=7)


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
    """Months whose GameDay began after `since`, more than a day ago, and that have none; of the last twelve."""
    last = now - timedelta(days=1)
    month, found = now.date().replace(day=1), []
    for _ in range(12):
        begun = begins(declared, month)
        if since < begun <= last and f"{month:%Y-%m}" not in held:
            found.append(f"{month:%Y-%m}")
        month = before(month)
    return sorted(found)


@dataclass(frozen=True)
class Due:
    """The month whose GameDay is to be held now; None, and why not."""

    month: str | None
    why: str
    run_key: str = ""


def due_now(declared: GameDays, held: Collection[str], now: datetime) -> Due:
    """Whether one is to be held: from its hour on, once; where that failed, on each of the next days, for a week.

    The run key is the month's, and another day's where that was not enough: Dagster remembers keys for ever.
    """
    month = due(declared, now)
    begun = begins(declared, date(int(month[:4]), int(month[5:]), 1))
    upcoming = coming(declared, now, 1)[0][0]
    if month in held:
        return Due(None, f"{month} was held; the next one is on {upcoming:%Y-%m-%d}")
    if now - begun > _MADE_UP_FOR:
        return Due(
            None, f"the one of {month} is too long ago to be made up for; the next one is on {upcoming:%Y-%m-%d}"
        )
    if now.date() != begun.date() and now.hour < declared.gameday.hour:
        return Due(None, f"{month} is made up for at {declared.gameday.hour:02}:00Z, the hour of GameDays")
    day = "" if now.date() == begun.date() else f":{now:%Y-%m-%d}"
    return Due(month, f"{month} is due since {begun:%Y-%m-%d %H:%M}Z", f"gameday:{month}{day}")


def is_of(declared: GameDays, name: str, began: datetime) -> bool:
    """Whether what began then can be the GameDay of that month: on its day, or in the week in which it may be made up for."""
    try:
        begun = begins(declared, date(int(name[:4]), int(name[5:]), 1))
    except ValueError:
        return False
    return timedelta(0) <= began - begun.replace(hour=0) <= _MADE_UP_FOR + timedelta(days=1)


def after(month: date) -> date:
    return (month.replace(day=28) + timedelta(days=4)).replace(day=1)


def before(month: date) -> date:
    return (month - timedelta(days=1)).replace(day=1)
