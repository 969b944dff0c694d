"""How near a day is: when it is settled, when it is read again, and how far back holes are looked for.

Not here: what a count needs of the days around it (`ledger_reading.py`).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

DAY = timedelta(days=1)

SETTLED = timedelta(minutes=10)
"""After the end of a day: what was read or counted before is read and counted again. A sample has the time at which its scrape began
and arrives when it ends, a minute later at most; whether the last minutes are a gap shows 5 minutes after them."""

NEAR = timedelta(days=1)
"""Days so near are read again though they are settled: remote write may be late by hours."""

NEAR_AGAIN = timedelta(hours=1)
"""How often that is done. Every five minutes it was 288 times a day, to find late samples perhaps once a week."""

FAILED_AGAIN = timedelta(hours=1)
"""When an older day that could not be read is tried again: it must not stand in the way of those after it."""

DAYS_AT_ONCE = 3
"""Older days that one tick asks for: a month that was missed is there within the hour, and no run takes longer than a minute or two."""


def start(day: date) -> datetime:
    """The first moment of a UTC day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def settled(day: date) -> datetime:
    """From when on a reading of the day is a whole one."""
    return start(day) + DAY + SETTLED


def is_near(day: date, now: datetime) -> bool:
    """Today, or so near that it may still change."""
    return day >= (now.astimezone(UTC) - NEAR).date()
