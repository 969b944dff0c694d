"""When recurring work may start: five cron fields read on a wall clock, as instants in UTC.

Every time of the wall clock stands for one instant: one that does not exist (the clock is put forward) for the end of
the gap, one that comes twice (it is put back) for the second time. So do Dagster's own schedules, except in some zones
whose clocks change at midnight or at a quarter, where they keep to no one rule (Beirut, Havana, Chatham, ...). Where the field of
the hour is `*` the wall clock says nothing about the hour, and every real hour counts. Not here: what happens then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from greenops_pipelines.errors import BadInput

_FIVE_FIELDS = "five fields (minute hour day month weekday) such as '30 1 * * 1-5'"
_TICK = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)
_PROBE = datetime(2026, 1, 1)  # noqa: DTZ001 - a wall clock
_LARGEST_FOLD = timedelta(hours=3)
"""A clock was never put back by more since 1970 (Casey, Antarctica)."""


@dataclass(frozen=True)
class Recurrence:
    """`cron` on the wall clock of the IANA time zone `timezone`.

    Raises `BadInput` where either cannot be read, or where such a day does not come within 50 years.
    """

    cron: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        try:
            _ = self._zone
        except (OSError, ValueError, KeyError):
            raise BadInput(
                f"execution_timezone: found {self.timezone!r}, allowed: a name of the IANA database such as Europe/Berlin"
            ) from None
        # cronsim itself takes a sixth field, for seconds.
        if not isinstance(self.cron, str) or len(self.cron.split()) != 5:
            raise BadInput(f"cron: found {self.cron!r}, allowed: {_FIVE_FIELDS}")
        try:
            next(CronSim(self.cron, _PROBE))
        except CronSimError as error:
            field = str(error).removeprefix("Bad ")
            raise BadInput(f"cron: found {self.cron!r}, allowed: {_FIVE_FIELDS}; the {field} is wrong") from None
        except StopIteration:
            raise BadInput(f"cron: found {self.cron!r}, which does not come within 50 years") from None

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def after(self, time: datetime) -> Iterator[datetime]:
        """Instants in UTC later than `time` (with a zone), in order, each once."""
        if self.cron.split()[1] == "*":
            for found in CronSim(self.cron, time.astimezone(self._zone)):
                yield found.astimezone(UTC)
            return
        # A wall time a little earlier may stand for a later instant: the second of two equal ones.
        wall = time.astimezone(self._zone).replace(tzinfo=None) - _LARGEST_FOLD
        last = time.astimezone(UTC)
        for found in CronSim(self.cron, wall):
            instant = _instant(found, self._zone)
            if instant > last:
                last = instant
                yield instant

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Instants in UTC with after < instant <= until."""
        for instant in self.after(after):
            if instant > until:
                return
            yield instant

    def most_within(self, window: timedelta, most: int) -> int:
        """How many instants one window of that length can hold, as far as the next `most` x 10 of them tell; at most
        `most` + 1."""
        held: list[datetime] = []
        found = 0
        for count, instant in enumerate(self.after(_PROBE.replace(tzinfo=UTC))):
            held = [earlier for earlier in held if instant - earlier < window] + [instant]
            found = max(found, len(held))
            if found > most or count >= most * 10:
                break
        return found


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    second = wall.replace(tzinfo=zone, fold=1)
    found = second.astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) == wall:
        return found
    # It does not exist: the gap ends where the offset changes, between these two instants.
    low, high = found, wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    before = (low - _TICK).astimezone(zone).utcoffset()
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return low if low.astimezone(zone).utcoffset() != before else high
