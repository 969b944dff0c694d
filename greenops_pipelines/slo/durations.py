"""Durations as Prometheus reads and prints them: `5m`, `1h30m`, `4w`."""

from __future__ import annotations

import re
from datetime import timedelta

from greenops_pipelines.errors import BadInput

_UNITS = {
    "y": timedelta(days=365),
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_FORM = re.compile("".join(f"(?:(?P<{unit}>[0-9]+){unit})?" for unit in _UNITS), re.ASCII)
_LONGEST = timedelta(days=365 * 292)
"""What Go's 64 bits of nanoseconds hold."""


def parse(text: str) -> timedelta:
    """Units from y to ms, each at most once and in falling order; `0` alone. `BadInput` otherwise."""
    if text == "0":
        return timedelta()
    match = _FORM.fullmatch(text)
    try:
        total = sum(((int(n) * _UNITS[u]) for u, n in match.groupdict("0").items()), timedelta()) if match else None
    except OverflowError:
        total = None
    if not text or total is None or total > _LONGEST:
        raise BadInput(
            f"duration: found {text[:40]!r}, allowed: a number with a unit of y, w, d, h, m, s or ms, e.g. 30d"
        )
    return total


def text(duration: timedelta) -> str:
    """Prometheus' own spelling. Years and weeks are used only where nothing is left over: 28 days are `4w`, 30 `30d`."""
    if not duration:
        return "0s"
    shown, rest = "", duration
    for unit, size in _UNITS.items():
        if unit in ("y", "w") and rest % size:
            continue
        if count := rest // size:
            shown += f"{count}{unit}"
            rest -= count * size
    return shown


def hours(duration: timedelta) -> float:
    """Hours as Go computes them; the order of operations decides the last digit of a burn rate factor."""
    whole, rest = divmod(duration, timedelta(hours=1))
    return float(whole) + (rest // timedelta(microseconds=1) * 1000) / (60 * 60 * 1e9)
