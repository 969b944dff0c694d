"""A time as microseconds since 1970, UTC, and back: exactly, in whole numbers, as Arrow and the ledger keep it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(time: datetime) -> int:
    """Microseconds since 1970 of a time with a zone."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def instant(since_1970: int) -> datetime:
    """The time, UTC, of so many microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=int(since_1970))
