"""What a cost report is about: a month, as billed, or an ISO week, by the day of the charge."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from greenops_pipelines.errors import BadInput

Kind = Literal["month", "week"]
_FORMS = "2026-10 (a month) or 2026-W44 (an ISO week)"
_MONTH = re.compile(r"(\d{4})-(\d{2})")
_WEEK = re.compile(r"(\d{4})-W(\d{2})")


@dataclass(frozen=True, order=True)
class Period:
    """Days from `first`, up to and without `end`, UTC."""

    first: date
    end: date
    kind: Kind

    @property
    def name(self) -> str:
        """As it is typed, and stands in file names: 2026-10, 2026-W44."""
        if self.kind == "month":
            return f"{self.first:%Y-%m}"
        year, week, _ = self.first.isocalendar()
        return f"{year}-W{week:02d}"

    @property
    def title(self) -> str:
        """As a person reads it."""
        if self.kind == "month":
            return f"{self.first:%B %Y}"
        return f"Week {self.first.isocalendar().week}, {self.first:%-d %B} to {self.last:%-d %B %Y}"

    @property
    def last(self) -> date:
        """The last day."""
        return self.end - timedelta(days=1)

    @property
    def days(self) -> int:
        """How many days it has."""
        return (self.end - self.first).days

    def before(self) -> Period:
        """The period before it, of the same kind."""
        return containing(self.kind, self.first - timedelta(days=1))


def containing(kind: Kind, day: date) -> Period:
    """The month or week that `day` lies in."""
    if kind == "month":
        first = day.replace(day=1)
        return Period(first, (first + timedelta(days=32)).replace(day=1), kind)
    first = day - timedelta(days=day.weekday())
    return Period(first, first + timedelta(days=7), kind)


def parse(text: str) -> Period:
    """The period of its name. `BadInput` says what is allowed."""
    try:
        if found := _MONTH.fullmatch(text):
            return _with_one_before(containing("month", date(int(found[1]), int(found[2]), 1)))
        if found := _WEEK.fullmatch(text):
            return _with_one_before(containing("week", date.fromisocalendar(int(found[1]), int(found[2]), 1)))
    except (ValueError, OverflowError):
        pass
    raise BadInput(f"period: found {text!r}, allowed: {_FORMS}")


def _with_one_before(period: Period) -> Period:
    """Years 1 and 9999 have no neighbour to be compared with: the calendar ends there."""
    period.before()
    return period
