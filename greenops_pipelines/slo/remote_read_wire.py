"""Bytes of Prometheus' remote read: the request in, the answer out as arrays, no loop over samples.

The format is `prompb/remote.proto` and `prompb/types.proto` of Prometheus, response type SAMPLES, under snappy's raw format.
Not here: the samples in it (`remote_read_samples.py`), HTTP, and what a sample means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa

from greenops_pipelines.slo.remote_read_samples import (
    PAD,
    SAMPLE,
    Bytes,
    Floats,
    Ints,
    Unreadable,
    samples,
    starts_from,
)
from greenops_pipelines.slo.series import Operator, Selector

_OPERATORS: Mapping[Operator, int] = {"=": 0, "!=": 1, "=~": 2, "!~": 3}
_LABEL, _HISTOGRAM = 0x0A, 0x22
"""Tags of fields of a TimeSeries."""
_BYTES = 2
_AT_ONCE = 262_144
"""Samples that are decoded at once: the arrays in between take 30 MB whatever the answer's size."""
_SNAPPY_MOST = 2**32 - 1


class CutOff(Unreadable):
    """The bytes are no whole snappy block: a transfer broke off, or was damaged."""


class TooLarge(Exception):
    """The answer is larger than the limit."""


class NativeHistogram(ValueError):
    """A series holds native histograms, which have no one value per time."""


@dataclass(frozen=True)
class Answer:
    """Series with their labels, `__name__` among them, and the samples of all of them, series by series as they came."""

    labels: tuple[Mapping[str, str], ...]
    counts: Ints
    """Samples of each series."""
    times_ms: Ints
    values: Floats

    @property
    def samples(self) -> int:
        return len(self.times_ms)


def read_request(selector: Selector, first_ms: int, last_ms: int) -> bytes:
    """The compressed ReadRequest of one query: samples from `first_ms` to `last_ms`, both of them included."""
    matchers = [("__name__", 0, selector.metric)]
    matchers += [(m.name, _OPERATORS[m.operator], m.value) for m in selector.matchers]
    query = b"\x08" + _number(first_ms) + b"\x10" + _number(last_ms)
    for name, kind, value in matchers:
        query += _field(3, b"\x08" + _number(kind) + _field(2, name.encode()) + _field(3, value.encode()))
    # Field 2, the accepted response types: SAMPLES. It is also what a server answers that does not know the field.
    message = _field(1, query) + b"\x10\x00"
    return cast(bytes, pa.Codec("snappy").compress(message, asbytes=True))


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(content)) + content


def _number(value: int) -> bytes:
    """A varint; a negative number as its two's complement of 64 bits."""
    rest, out = value & (2**64 - 1), bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def decode(body: bytes, most_bytes: int) -> Answer:
    """The answer to one query.

    Raises `TooLarge` before anything is unpacked that would have more than `most_bytes`, `CutOff` where it cannot be unpacked,
    `Unreadable` where what is inside is something else, `NativeHistogram` for those.
    """
    data, size = _unpacked(body, most_bytes)
    view = data.data[:size]
    labels: list[Mapping[str, str]] = []
    counts: list[int] = []
    times, values = [np.empty(0, np.int64)], [np.empty(0, np.float64)]
    waiting: list[Ints] = []
    held = 0
    for found, starts in _series(view, data):
        labels.append(found)
        counts.append(len(starts))
        # A long series is cut as well.
        for at in range(0, len(starts), _AT_ONCE):
            waiting.append(starts[at : at + _AT_ONCE])
            held += len(waiting[-1])
            if held >= _AT_ONCE:
                _decode_into(data, waiting, times, values)
                held = 0
    _decode_into(data, waiting, times, values)
    return Answer(tuple(labels), np.array(counts, np.int64), np.concatenate(times), np.concatenate(values))


def _unpacked(body: bytes, most_bytes: int) -> tuple[Bytes, int]:
    """What snappy's raw format holds, padded, and its size, which stands in front of it."""
    try:
        size, _ = _read_number(memoryview(body), 0, min(len(body), 5))
    except Unreadable:
        raise CutOff(f"{len(body):,} bytes that are no snappy block") from None
    if size > _SNAPPY_MOST:
        raise CutOff(f"{len(body):,} bytes that are no snappy block")
    if size > most_bytes:
        raise TooLarge(f"{size:,} bytes")
    try:
        unpacked = pa.Codec("snappy").decompress(pa.py_buffer(body), decompressed_size=size) if size else b""
    except (pa.ArrowInvalid, OSError):
        raise CutOff(f"{len(body):,} bytes that are no whole snappy block of {size:,} bytes") from None
    data = np.zeros(size + PAD, np.uint8)
    data[:size] = np.frombuffer(unpacked, np.uint8, size)
    return data, size


def _series(view: memoryview, data: Bytes) -> Iterator[tuple[dict[str, str], Ints]]:
    """Labels of each series of the one result, and where its samples start."""
    results = [span for tag, *span in _fields(view, 0, len(view)) if tag == 0x0A]
    if len(results) != 1:
        raise Unreadable(f"{len(results)} results to one query")
    for tag, at, end in _fields(view, *results[0]):
        if tag == 0x0A:
            yield _one_series(view, data, at, end)


def _one_series(view: memoryview, data: Bytes, at: int, end: int) -> tuple[dict[str, str], Ints]:
    """Labels stand in front of the samples, which follow one another: every server writes them so, and here they must."""
    labels: dict[str, str] = {}
    starts = np.empty(0, np.int64)
    while at < end:
        if view[at] == SAMPLE and not len(starts):
            starts, at = starts_from(data, at, end)
            continue
        began = at
        tag, first, last, at = _next_field(view, at, end)
        if tag == _HISTOGRAM:
            raise NativeHistogram(str(labels.get("__name__", "")))
        if tag in (_LABEL, SAMPLE):
            if len(starts):
                raise Unreadable(f"a series whose labels and samples are mixed, at byte {began:,}")
            name, value = _label(view, first, last)
            if name in labels:
                raise Unreadable(f"the label {name!r} twice in one series, at byte {began:,}")
            labels[name] = value
    return labels, starts


def _label(view: memoryview, at: int, end: int) -> tuple[str, str]:
    parts = {tag: bytes(view[first:last]) for tag, first, last in _fields(view, at, end)}
    try:
        return parts.get(0x0A, b"").decode(), parts.get(0x12, b"").decode()
    except UnicodeDecodeError:
        raise Unreadable(f"a label that is not UTF-8, at byte {at:,}") from None


def _fields(view: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Tag, start and end of the content of every field of a message."""
    while at < end:
        tag, first, last, at = _next_field(view, at, end)
        yield tag, first, last


def _next_field(view: memoryview, at: int, end: int) -> tuple[int, int, int, int]:
    """Tag, start and end of the content, and where the next field starts."""
    began = at
    tag, at = _read_number(view, at, end)
    first = at
    match tag & 7:
        case 2:
            size, first = _read_number(view, at, end)
            at = first + size
        case 0:
            _, at = _read_number(view, at, end)
        case 1:
            at += 8
        case 5:
            at += 4
        case kind:
            raise Unreadable(f"a field of the unknown type {kind}, at byte {began:,}")
    if at > end:
        raise Unreadable(f"a field that is longer than what holds it, at byte {began:,}")
    return tag, first, at, at


def _read_number(view: memoryview, at: int, end: int) -> tuple[int, int]:
    if at < end and view[at] < 0x80:
        return view[at], at + 1
    value = 0
    for place, byte in enumerate(view[at : min(end, at + 10)]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & (2**64 - 1), at + place + 1
    raise Unreadable(f"a number that does not end, at byte {at:,}")


def _decode_into(data: Bytes, waiting: list[Ints], times: list[Ints], values: list[Floats]) -> None:
    if waiting:
        found_times, found_values = samples(data, np.concatenate(waiting))
        times.append(found_times)
        values.append(found_values)
        waiting.clear()
