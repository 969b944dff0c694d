"""Samples of a remote read as they lie in its bytes: where each starts, and all their times and values at once.

A sample is a value (tag, eight bytes) and a time (tag, a varint of milliseconds); an encoder leaves out what is 0. So most have
16 bytes, and those with the value 0 have 7. Not here: the messages around them (`remote_read_wire.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PAD = 16
"""Bytes that must follow the last sample, so that its numbers may be read eight bytes at a time."""
SAMPLE = 0x12
"""The tag of a sample in a TimeSeries."""
_VALUE, _TIME = 0x09, 0x10


class Unreadable(ValueError):
    """The bytes are no ReadResponse: what was found, and where."""


def starts_from(data: Bytes, at: int, end: int) -> tuple[Ints, int]:
    """Where the samples start that follow one another from `at` on, and where they stop: at `end`, or at another field.

    Raises `Unreadable`.
    """
    stride = int(data[at + 1]) + 2
    if stride < 0x82 and (end - at) % stride == 0:
        heads, lengths = data[at:end:stride], data[at + 1 : end : stride]
        if (heads == SAMPLE).all() and (lengths == stride - 2).all():
            return np.arange(at, end, stride, dtype=np.int64), end
    return _chained(data, at, end)


def _chained(data: Bytes, at: int, end: int) -> tuple[Ints, int]:
    """The same where samples have different sizes: exact, and n log n for whatever bytes.

    A sample starts where a tag and a length stand *and* the one before it ends there. The first alone is true of some bytes
    inside of values as well, so the chain is followed from `at`: from each place that was reached one place ahead, then two,
    four, and so on.
    """
    region = data[at:end]
    places = np.flatnonzero((region[:-1] == SAMPLE) & (region[1:] < 0x80))
    if not len(places) or places[0] != 0:
        raise Unreadable(f"a sample that is longer than any, at byte {at:,}")
    count = len(places)
    ends = places + 2 + region[places + 1]
    following = np.searchsorted(places, ends)
    known = following < count
    known[known] = places[following[known]] == ends[known]
    ahead = np.append(np.where(known, following, count), count)
    reached = np.zeros(count + 1, bool)
    reached[0] = True
    while True:
        targets = ahead[np.flatnonzero(reached[:count])]
        if reached[targets[targets < count]].all():
            break
        reached[targets] = True
        ahead = ahead[ahead]
    chain = np.flatnonzero(reached[:count])
    stop = at + int(ends[chain[-1]])
    if stop > end:
        raise Unreadable(f"a sample that is longer than what holds it, at byte {at + int(places[chain[-1]]):,}")
    return places[chain] + at, stop


def samples(data: Bytes, starts: Ints) -> tuple[Ints, Floats]:
    """Times in milliseconds, and values, of the samples that start there. Raises `Unreadable`."""
    length = _once(data[starts + 1].astype(np.int64))
    # Value in front of time, each left out where it is 0: how every encoder writes that keeps the fields' order.
    value_first = _once((data[starts + 2] == _VALUE) & (length >= 9))
    value_at = np.where(value_first, starts + 3, -1)
    time_at = starts + 2 + 9 * value_first
    width = length - 9 * value_first - 1
    good, times = _times(data, time_at, width)
    if not good.all():
        # An encoder may also write the time first.
        odd = np.flatnonzero(~good)
        long = np.broadcast_to(length, starts.shape)[odd]
        late = starts[odd] + 2 + long - 9
        fits = (long >= 11) & (data[late] == _VALUE)
        value_at[odd] = late + 1
        good[odd], times[odd] = _times(data, starts[odd] + 2, long - 10)
        good[odd] &= fits
        if not good.all():
            raise Unreadable(f"a sample that is no value and time, at byte {int(starts[np.argmin(good)]):,}")
    has_value = value_at >= 0
    if has_value.all():
        return times, _eight_bytes(data, value_at).view(np.float64)
    values = np.zeros(len(starts))
    values[has_value] = _eight_bytes(data, value_at[has_value]).view(np.float64)
    return times, values


def _once(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One value for all where all are equal, as most samples are of one size: a third of the time."""
    return values[:1] if (values == values[0]).all() else values


_WIDTHS = range(9)
_TAKEN = np.array([(1 << 8 * w) - 1 for w in _WIDTHS], np.uint64)
"""The first w bytes of eight."""
_CONTINUED = np.array([0x8080808080808080 & ((1 << 8 * max(w - 1, 0)) - 1) for w in _WIDTHS], np.uint64)
"""The bits that say that a varint of w bytes goes on: of all its bytes but the last."""
_HIGH = np.uint64(0x8080808080808080)


def _times(data: Bytes, at: Ints, width: Ints) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Whether a time stands at `at`, tag and varint of `width` bytes, and which; -1 bytes are a time that was left out."""
    good = (width == -1) | ((width >= 1) & (width <= 10) & (data[at] == _TIME))
    short = np.clip(width, 0, 8)
    raw = _eight_bytes(data, at + 1) & _TAKEN[short]
    good &= ((raw & _HIGH) == _CONTINUED[short]) | (width > 8)
    number = _packed(raw & ~_HIGH)
    long = np.flatnonzero(good & (width > 8))
    if len(long):
        ninth, tenth = data[at[long] + 9].astype(np.uint64), data[at[long] + 10].astype(np.uint64)
        is_ten = np.broadcast_to(width, at.shape)[long] == 10
        begun = (raw[long] & _HIGH) == _HIGH
        good[long] = begun & np.where(is_ten, (ninth >= 0x80) & (tenth <= 1), ninth < 0x80)
        number[long] |= (ninth & np.uint64(0x7F)) << np.uint64(56)
        number[long] |= np.where(is_ten, tenth << np.uint64(63), np.uint64(0))
    return good, number.view(np.int64)


def _eight_bytes(data: Bytes, at: Ints) -> npt.NDArray[np.uint64]:
    """The little-endian number in the eight bytes from each place on."""
    overlapping: npt.NDArray[np.uint64] = np.ndarray((len(data) - 7,), np.dtype("<u8"), data, strides=(1,))
    return overlapping[at]


def _packed(raw: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Eight groups of seven bits, one a byte, moved together: by pairs, by fours, by eights."""
    for shift, low in ((1, 0x007F007F007F007F), (2, 0x00003FFF00003FFF), (4, 0x000000000FFFFFFF)):
        kept = np.uint64(low)
        high = np.uint64(low << (8 * shift))
        raw = (raw & kept) | ((raw & high) >> np.uint64(shift))
    return raw
