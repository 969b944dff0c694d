"""Work that waits for its greenest hour: what was agreed for it, what is remembered of it, what its run is told.

An occurrence of the cron is open from its earliest start until it was launched (in all its pieces) or is missed. Not
here: when occurrences begin (`recurrence.py`), what becomes of them (`looking.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from greenops_pipelines.errors import BadInput
from greenops_pipelines.integrations.recurrence import Recurrence
from greenops_pipelines.slo.durations import text

MOST_OPEN = 100
"""Occurrences that may be open at once: the cursor holds a line for each."""

_VERSION = 1


@dataclass(frozen=True)
class Terms:
    """What was agreed for the work. `piece` is the whole duration where the work must not be interrupted.

    Raises `BadInput`, in one line, for what cannot be kept.
    """

    name: str
    recurrence: Recurrence
    window: timedelta
    duration: timedelta
    zones: tuple[str, ...]
    piece: timedelta
    refresh: timedelta
    tolerance: timedelta
    """How long after its time a start still counts as kept: nobody looks all the time."""

    def __post_init__(self) -> None:
        if self.cells < self.pieces:
            raise BadInput(
                f"window: found {text(self.window)}, allowed: at least {self.pieces} pieces of {text(self.piece)}, "
                f"for a duration of {text(self.duration)}"
                if self.is_cut
                else f"window: found {text(self.window)}, allowed: at least the duration of {text(self.duration)}"
            )
        if self.recurrence.most_within(self.window, MOST_OPEN) > MOST_OPEN:
            raise BadInput(
                f"window: found {text(self.window)}, allowed: one in which {self.recurrence.cron!r} comes at most "
                f"{MOST_OPEN} times"
            )

    @property
    def is_cut(self) -> bool:
        return self.piece < self.duration

    @property
    def pieces(self) -> int:
        return -(-self.duration // self.piece)

    @property
    def cells(self) -> int:
        """Whole pieces that the window holds."""
        return self.window // self.piece

    def latest_start(self, each: Open) -> datetime:
        """When the next piece must start for all that are left to end by the deadline, one after the other."""
        if not self.is_cut:
            return each.at + self.window - self.duration
        return max(each.at + (self.cells - self.pieces + each.done) * self.piece, each.not_before)

    def open_cells(self, each: Open, now: datetime) -> list[int]:
        """Cells, counted from the earliest start, in which the next piece may start.

        One that has begun counts as long as little of it is gone, and all that is left can end by the deadline.
        """
        begin = max(now, each.not_before)
        grace = min(self.tolerance, self.piece / 2)
        if begin + (self.pieces - each.done) * self.piece > each.at + self.window:
            grace = timedelta()
        return [i for i in range(self.cells) if each.at + i * self.piece >= begin - grace]

    def key(self, at: datetime, piece: int) -> str:
        """The natural key of a launch; pieces count from 1."""
        return f"{self.name}:{minute(at)}" + (f":{piece}" if self.is_cut else "")


@dataclass(frozen=True)
class Launch:
    """A run that is due: what its job may want to know. Times are UTC."""

    key: str
    zone: str
    """Where it emits least; the first zone where nothing is known."""
    earliest_start: datetime
    deadline: datetime
    reason: str
    avoided_pct: float | None
    """Of the emissions of running at once in the first zone, by forecast; None: not known. Negative: it emits more."""
    has_forecast: bool
    is_late: bool
    """Whether it starts too late to end by the deadline: nothing looked when its time came."""
    piece: int = 1
    pieces: int = 1

    @property
    def tags(self) -> dict[str, str]:
        tags = {
            "greenops/key": self.key,
            "greenops/zone": self.zone,
            "greenops/reason": self.reason,
            "greenops/avoided_pct": "unknown" if self.avoided_pct is None else f"{self.avoided_pct:.1f}",
            "greenops/earliest_start": minute(self.earliest_start),
            "greenops/deadline": self.deadline.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if self.is_late:
            tags["greenops/late"] = "true"
        if self.pieces > 1:
            tags["greenops/piece"] = f"{self.piece}/{self.pieces}"
        return tags


@dataclass(frozen=True)
class Choice:
    """Where and when the next piece is to start."""

    start: datetime
    zone: str
    g_per_kwh: float


@dataclass(frozen=True)
class Open:
    """An occurrence that was not launched yet, or not in all its pieces."""

    at: datetime
    not_before: datetime
    """When its next piece may start: the one before it takes its time, from when it was really launched."""
    done: int = 0
    at_once_g_per_kwh: float | None = None
    """Mean intensity of running at once in the first zone, as first known."""
    choice: Choice | None = None


@dataclass(frozen=True)
class Counts:
    """Since the sensor was first started."""

    launched: int = 0
    late: int = 0
    no_forecast: int = 0
    missed: int = 0


@dataclass(frozen=True)
class State:
    """What the cursor holds: positions."""

    through: datetime
    """Occurrences up to here were opened."""
    asked: datetime | None = None
    """When forecasts were last asked for."""
    last: datetime | None = None
    """The newest occurrence that was launched or missed."""
    open: tuple[Open, ...] = ()
    counts: Counts = Counts()

    def cursor(self) -> str:
        return json.dumps({"version": _VERSION, **asdict(self)}, default=lambda time: time.isoformat())

    @staticmethod
    def of(cursor: str) -> State | None:
        """None where it is not one of ours, or of another version."""
        try:
            found = json.loads(cursor)
            if found.pop("version") != _VERSION:
                return None
            return State(
                _time(found["through"]),
                _time(found["asked"]) if found["asked"] else None,
                _time(found["last"]) if found["last"] else None,
                tuple(_open(each) for each in found["open"]),
                Counts(**found["counts"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def first(now: datetime) -> State:
    """Of a sensor that never looked before: what opened earlier is not its business."""
    return State(now - timedelta(microseconds=1))


def resumed(terms: Terms, now: datetime, is_launched: Callable[[str], bool]) -> State:
    """Of a sensor whose cursor was lost: what may still be launched in time and was not is open again."""
    state = first(now)
    for at in terms.recurrence.between(now - terms.window, now - timedelta(microseconds=1)):
        done = sum(is_launched(terms.key(at, piece + 1)) for piece in range(terms.pieces))
        if done < terms.pieces:
            state = replace(state, open=(*state.open, Open(at, now + terms.piece if done else at, done)))
    return state


def minute(time: datetime) -> str:
    """In UTC, to the minute, as keys say it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")


def _open(found: Mapping[str, Any]) -> Open:
    choice = found["choice"]
    return Open(
        _time(found["at"]),
        _time(found["not_before"]),
        int(found["done"]),
        found["at_once_g_per_kwh"],
        Choice(_time(choice["start"]), str(choice["zone"]), float(choice["g_per_kwh"])) if choice else None,
    )


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    return time
