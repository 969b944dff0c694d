"""Bytes of remote read against google.protobuf; every way in which a server may fail; and a real Prometheus."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import math
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.errors import BadInput, ConfigurationError, GreenopsError, ProviderError, TransientError
from greenops_pipelines.process import prometheus as server
from greenops_pipelines.process.child import Child
from greenops_pipelines.process.ports import free_port
from greenops_pipelines.slo import matrix_read, series_day
from greenops_pipelines.slo.remote_read import RemoteRead
from greenops_pipelines.slo.remote_read_samples import Unreadable
from greenops_pipelines.slo.remote_read_wire import Answer, CutOff, NativeHistogram, TooLarge, decode, read_request
from greenops_pipelines.slo.series import Batch, Matcher, Selector, label_text, series_id
from tests.slo.conftest import program
from tests.slo.read_protocol import (
    PROTOBUF,
    STALE,
    Reply,
    Row,
    Stub,
    answer,
    asked,
    response,
    snappy,
    text,
    write_request,
)

DAY = date(2026, 3, 1)
START = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
MINUTE, HOUR = 60_000, 3_600_000
NEXT = datetime(2026, 3, 2, tzinfo=UTC)
X = Selector("x_total")
PLENTY = 1 << 30
ORDINARY_NAN = struct.unpack("<d", (0x7FF8000000000001).to_bytes(8, "little"))[0]


def x(**labels: str) -> dict[str, str]:
    return {"__name__": "x_total", **labels}


def rows_of(found: Answer) -> list[tuple[dict[str, str], list[tuple[int, bytes]]]]:
    """Series with (milliseconds, bits)."""
    ends = np.cumsum(found.counts)
    return [
        (dict(labels), [(int(t), v.tobytes()) for t, v in zip(found.times_ms[a:b], found.values[a:b], strict=True)])
        for labels, a, b in zip(found.labels, ends - found.counts, ends, strict=True)
    ]


def expected(rows: Sequence[Row]) -> list[tuple[dict[str, str], list[tuple[int, bytes]]]]:
    # Protobuf's own encoder writes -0.0 and Go's leaves it out; what is left out is 0.
    return [(dict(labels), [(at, struct.pack("<d", value)) for at, value in samples]) for labels, samples in rows]


# The request


def test_request_is_what_protobuf_reads_from_it() -> None:
    matchers = (
        Matcher("a", "=", "é"),
        Matcher("b", "!=", ""),
        Matcher("c", "=~", "x|y"),
        Matcher("d", "!~", "z" * 200),
    )
    request = asked(read_request(Selector("x_total", matchers), START, START + 86_399_999))
    assert list(request.accepted_response_types) == [0]
    [query] = request.queries
    assert (query.start_timestamp_ms, query.end_timestamp_ms) == (START, START + 86_399_999)
    assert [(m.type, m.name, m.value) for m in query.matchers] == [
        (0, "__name__", "x_total"),
        (0, "a", "é"),
        (1, "b", ""),
        (2, "c", "x|y"),
        (3, "d", "z" * 200),
    ]
    assert asked(read_request(X, -1, 0)).queries[0].start_timestamp_ms == -1


# The answer, byte for byte


def message(*samples: bytes, label: bytes = b"\x0a\x06\x0a\x01a\x12\x01b") -> bytes:
    """A ReadResponse with one series; each part shorter than 128 bytes."""
    inside = label + b"".join(samples)
    one = b"\x0a" + bytes([len(inside)]) + inside
    return b"\x0a" + bytes([len(one)]) + one


ONE = b"\x09" + struct.pack("<d", 1.5)
AT_300 = b"\x10\xac\x02"
"""300 is 0b10_0101100: the varint ac 02."""


@pytest.mark.parametrize(
    ("sample", "at", "value"),
    [
        (b"\x12\x0c" + ONE + AT_300, 300, 1.5),
        (b"\x12\x0c" + AT_300 + ONE, 300, 1.5),
        (b"\x12\x03" + AT_300, 300, 0.0),
        (b"\x12\x09" + ONE, 0, 1.5),
        (b"\x12\x00", 0, 0.0),
        (b"\x12\x0b\x10" + b"\xff" * 9 + b"\x01", -1, 0.0),
        (b"\x12\x0a\x10" + b"\xff" * 8 + b"\x7f", 2**63 - 1, 0.0),
        (b"\x12\x0b\x10" + b"\x80" * 9 + b"\x01", -(2**63), 0.0),
    ],
)
def test_each_form_of_a_sample_alone_and_among_others(sample: bytes, at: int, value: float) -> None:
    found = decode(snappy(message(sample)), PLENTY)
    assert (found.labels, found.times_ms.tolist(), found.values.tolist()) == (({"a": "b"},), [at], [value])
    usual = b"\x12\x0c" + ONE + AT_300
    found = decode(snappy(message(usual, sample, sample, usual)), PLENTY)
    assert found.times_ms.tolist() == [300, at, at, 300]
    assert found.values.tolist() == [1.5, value, value, 1.5]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (message(b"\x12\x0d" + ONE + AT_300 + b"\x00"), "a sample that is no value and time, at byte 12"),
        (message(b"\x12\x0c" + ONE + b"\x18\xac\x02"), "no value and time"),
        (message(b"\x12\x0c" + ONE + b"\x10\xac\x82"), "no value and time"),
        (message(b"\x12\x0c" + ONE + b"\x10\x2c\x02"), "no value and time"),
        (message(b"\x12\x0b\x10" + b"\xff" * 9 + b"\x02"), "no value and time"),
        (message(b"\x12\x0a" + ONE + b"\x10"), "no value and time"),
        (message(b"\x12\x0e" + ONE + AT_300), "a sample that is longer than what holds it, at byte 12"),
        (message(b"\x12\x03" + AT_300, b"\x0a\x02\x0a\x00"), "labels and samples are mixed, at byte 17"),
        (message(b"\x12\x03" + AT_300, b"\x1a\x00", b"\x12\x03" + AT_300), "labels and samples are mixed"),
        (message(label=b"\x0a\x03\x0a\x01a" * 2), "the label 'a' twice"),
        (message(label=b"\x0a\x03\x0a\x01\xff"), "not UTF-8"),
        (message(label=b"\x0b"), "unknown type 3"),
        (message(label=b"\x0a\x7f"), "longer than what holds it"),
        (b"", "0 results to one query"),
        (b"\x0a\x00\x0a\x00", "2 results to one query"),
        (b"\xff" * 11, "a number that does not end"),
        (b"<html>", "a field"),
    ],
)
def test_what_is_no_answer_says_where(content: bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        decode(snappy(content), PLENTY)


def test_unknown_fields_are_skipped_and_native_histograms_refused() -> None:
    exemplar, number, fixed = b"\x1a\x02ab", b"\x28\x96\x01", b"\x31" + bytes(8) + b"\x3d" + bytes(4)
    usual = b"\x12\x0c" + ONE + AT_300
    found = decode(snappy(message(number, usual, exemplar, fixed)), PLENTY)
    assert (found.counts.tolist(), found.times_ms.tolist()) == ([1], [300])
    with pytest.raises(NativeHistogram):
        decode(snappy(message(b"\x22\x02\x08\x01")), PLENTY)


def test_empty_answer_has_no_series() -> None:
    assert decode(snappy(response([])), PLENTY).labels == ()
    assert rows_of(decode(snappy(response([(x(), [])])), PLENTY)) == [(x(), [])]


TIMES = st.one_of(
    st.integers(START, START + 86_400_000),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 127, 128, 2**56 - 1, 2**56, 2**63 - 1, -1]),
)
VALUES = st.one_of(
    st.sampled_from([0.0, 1.0, math.inf, -math.inf, STALE, ORDINARY_NAN]),
    st.floats(),
    # Bytes that look like the start of a sample.
    st.sampled_from([b"\x12\x10" * 4, b"\x12\x00" * 4, b"\x12\x07\x09\x12\x01\x12\x02\x10"]).map(
        lambda b: struct.unpack("<d", b)[0]
    ),
)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
SERIES = st.tuples(
    st.dictionaries(NAMES, st.text(st.characters(codec="utf-8"), max_size=5), max_size=4),
    st.lists(st.tuples(TIMES, VALUES), max_size=40),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(SERIES, max_size=5))
def test_decodes_what_protobuf_encodes(rows: list[Row]) -> None:
    assert rows_of(decode(snappy(response(rows)), PLENTY)) == expected(rows)


def test_long_alternating_series_decodes_like_a_plain_one() -> None:
    # Values that start like a sample of either size, between samples whose value was left out.
    odd = struct.unpack("<d", b"\x12\x07\x12\x10\x12\x07\x12\x10")[0]
    samples = [(START + 1000 * k, odd if k % 2 else 0.0) for k in range(30_000)]
    rows: list[Row] = [(x(a="1"), samples), (x(a="2"), [(at, 5.0) for at, _ in samples])]
    assert rows_of(decode(snappy(response(rows)), PLENTY)) == expected(rows)


def test_a_value_that_looks_like_the_next_sample_of_the_same_size_is_a_value() -> None:
    # 9 bytes, then 18 whose tenth is a sample's tag: three samples to whoever looks at every ninth byte for tags only.
    odd = struct.unpack("<d", b"\0" * 6 + b"\x12\x41")[0]
    rows: list[Row] = [(x(), [(START, 0.0), (START + MINUTE, odd)])]
    assert rows_of(decode(snappy(response(rows)), PLENTY)) == expected(rows)


def test_the_worst_case_is_no_quadratic_one() -> None:
    pair = b"\x12\x0c" + ONE + AT_300 + b"\x12\x03" + AT_300
    inside = pair * 200_000
    one = b"\x0a" + _varint(len(inside)) + inside
    body = snappy(b"\x0a" + _varint(len(one)) + one)
    begun = time.process_time()
    found = decode(body, PLENTY)
    # Half a second; step by step along the chain it is many minutes.
    assert time.process_time() - begun < 20
    assert (found.samples, float(found.values.sum()), int(found.times_ms.sum())) == (400_000, 300_000.0, 120_000_000)


def _varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80, *_varint(value >> 7)]) if value > 0x7F else bytes([value])


def test_more_samples_than_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenops_pipelines.slo.remote_read_wire._AT_ONCE", 7)
    rows: list[Row] = [(x(a=str(n)), [(START + k, float(k % 3)) for k in range(n)]) for n in (3, 20, 1, 7, 0, 14)]
    assert rows_of(decode(snappy(response(rows)), PLENTY)) == expected(rows)


SMALL: list[Row] = [
    (x(pod="a"), [(START + MINUTE * k, float(k)) for k in range(4)]),
    (x(pod="b"), [(START + MINUTE * k, 7.5) for k in range(3)]),
]


def test_no_cut_gives_a_part() -> None:
    whole = response(SMALL)
    for size in range(len(whole)):
        with pytest.raises(Unreadable):
            decode(snappy(whole[:size]), PLENTY)
    packed = snappy(whole)
    for size in range(len(packed)):
        with pytest.raises(CutOff):
            decode(packed[:size], PLENTY)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_end_in_one_error_or_in_other_samples(data: st.DataObject) -> None:
    whole = bytearray(response(SMALL))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Unreadable, NativeHistogram):
        decode(snappy(bytes(whole)), PLENTY)


def test_size_in_front_is_looked_at_before_anything_is_unpacked() -> None:
    with pytest.raises(TooLarge, match="4,294,967,295 bytes"):
        decode(b"\xff\xff\xff\xff\x0f", PLENTY)
    with pytest.raises(CutOff):
        decode(b"\xff\xff\xff\xff\x1f", PLENTY)


# What is kept of the samples


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.close()


def read(stub: Stub, *selectors: Selector, until: datetime = NEXT, **options: Any) -> Batch:
    return RemoteRead(stub.url, **options).read(DAY, selectors or (X,), until)


def plain(batch: Batch) -> list[tuple[int, int, float, bool]]:
    """(series, milliseconds after midnight, value, is it a marker)."""
    return [
        (row["series_id"], int(row["time"].timestamp() * 1000) - START, row["value"], row["is_stale"])
        for row in batch.samples.to_pylist()
    ]


def test_a_day_becomes_rows_of_the_two_tables(stub: Stub) -> None:
    first, second = x(pod="b", le="+Inf"), x(pod="a")
    stub.reads = lambda _: answer(
        [(first, [(START, 1.0), (START + MINUTE, STALE)]), (second, [(START + 5, math.nan), (START + 9, math.inf)])]
    )
    batch = read(stub)
    number = series_id("x_total", first)
    assert plain(batch) == [(number, 0, 1.0, False), (number, MINUTE, 0.0, True)]
    rows = {row["series_id"]: row for row in batch.series.to_pylist()}
    assert rows[number] == {
        "source": "prometheus",
        "day": DAY,
        "series_id": number,
        "metric": "x_total",
        "labels": '{"le":"+Inf","pod":"b"}',
        "samples": 1,
        "stale_markers": 1,
        "unusable_samples": 0,
        "duplicate_samples": 0,
    }
    other = rows[series_id("x_total", second)]
    assert (other["samples"], other["stale_markers"], other["unusable_samples"]) == (0, 0, 2)
    assert sorted(rows) == batch.series["series_id"].to_pylist()


def test_the_day_ends_before_the_next_and_before_until(stub: Stub) -> None:
    ends = [START - 1, START, START + MINUTE - 1, START + MINUTE, START + 24 * HOUR - 1, START + 24 * HOUR]
    stub.reads = lambda _: answer([(x(), [(at, 1.0) for at in ends])])
    assert [row[1] for row in plain(read(stub))] == [0, MINUTE - 1, MINUTE, 24 * HOUR - 1]
    assert (stub.queries[0].start_timestamp_ms, stub.queries[0].end_timestamp_ms) == (START, START + 24 * HOUR - 1)
    until = datetime(2026, 3, 1, 0, 1, tzinfo=UTC)
    assert [row[1] for row in plain(read(stub, until=until))] == [0, MINUTE - 1]
    assert stub.queries[1].end_timestamp_ms == START + MINUTE - 1
    # A microsecond later, the sample of the minute is earlier than that.
    assert len(plain(read(stub, until=until + timedelta(microseconds=1)))) == 3
    asked_before = len(stub.queries)
    assert read(stub, until=datetime(2026, 3, 1, tzinfo=UTC)).samples.num_rows == 0
    assert len(stub.queries) == asked_before
    with pytest.raises(BadInput, match="without a zone"):
        read(stub, until=datetime(2026, 3, 1, 5))  # noqa: DTZ001


def test_one_labelset_twice_is_merged_and_a_repeated_sample_counted(stub: Stub) -> None:
    late = [(START + k * MINUTE, float(k)) for k in (2, 3, 4)]
    early = [(START + k * MINUTE, float(k)) for k in (0, 1, 2)]
    gone = [(START + 5 * MINUTE, STALE)] * 2 + [(START + 6 * MINUTE, ORDINARY_NAN), (START + 6 * MINUTE, math.nan)]
    stub.reads = lambda _: answer([(x(a="1"), late), (x(b="2"), [(START, 0.0)]), (x(a="1", empty=""), early + gone)])
    batch = read(stub)
    number = series_id("x_total", x(a="1"))
    assert [row[1:] for row in plain(batch) if row[0] == number] == [
        *[(k * MINUTE, float(k), False) for k in range(5)],
        (5 * MINUTE, 0.0, True),
    ]
    [row] = [row for row in batch.series.to_pylist() if row["series_id"] == number]
    assert (row["samples"], row["stale_markers"], row["unusable_samples"], row["duplicate_samples"]) == (5, 1, 1, 3)


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        (1.0, 2.0, "1.0 and 2.0"),
        (1.0, STALE, "1.0 and a stale marker"),
        (1.0, math.nan, "1.0 and nan"),
        (ORDINARY_NAN, STALE, "nan and a stale marker"),
    ],
)
def test_one_time_with_two_values_is_refused(stub: Stub, one: float, other: float, shown: str) -> None:
    stub.reads = lambda _: answer([(x(pod="a"), [(START + 61_005, one)]), (x(pod="a"), [(START + 61_005, other)])])
    with pytest.raises(BadInput) as refused:
        read(stub)
    assert f'x_total{{"pod":"a"}} at 2026-03-01T00:01:01.005Z: found two values, {shown}' in str(refused.value)


def test_two_values_leave_out_what_gave_them_and_keep_what_others_gave(stub: Stub) -> None:
    """x by pod b alone is whole; y has no part in it."""
    both = [(x(pod="a"), [(START, 1.0)]), (x(pod="a"), [(START, 2.0)]), (x(pod="b"), [(START, 3.0)])]
    y = Selector("y_total")

    def reads(query: Any) -> Reply:
        if query.matchers[0].value == "y_total":
            return answer([({"__name__": "y_total"}, [(START, 4.0)])])
        return answer(both if len(query.matchers) == 1 else both[2:])

    stub.reads = reads
    b = Selector("x_total", (Matcher("pod", "=", "b"),))
    for selectors in ((X, b, y), (y, b, X)):
        batch = read(stub, *selectors)
        assert sorted(row[2] for row in plain(batch)) == [3.0, 4.0]
        assert batch.series.num_rows == 2
        assert list(batch.left_out) == [X]
        assert batch.left_out[X].startswith('x_total: x_total{"pod":"a"} at 2026-03-01T00:00:00.000Z: found two values')


def test_order_of_an_answer_does_not_matter(stub: Stub) -> None:
    samples = [(START + k * MINUTE, float(k)) for k in (5, 1, 9, 0)]
    rows: list[Row] = [(x(pod=str(pod)), samples) for pod in range(5)]
    stub.reads = lambda _: answer(rows)
    found = plain(read(stub))
    assert found == sorted(found)
    assert len(found) == 20


def test_overlapping_selectors_give_a_series_once(stub: Stub) -> None:
    rows: list[Row] = [(x(pod=pod), [(START, 1.0), (START + HOUR, 2.0)]) for pod in "ab"]

    def reads(query: Any) -> Reply:
        return answer(rows[:1] if len(query.matchers) > 1 else rows)

    stub.reads = reads
    narrow = Selector("x_total", (Matcher("pod", "=", "a"),))
    batch = read(stub, narrow, X, narrow)
    assert len(stub.queries) == 2
    assert batch.samples.num_rows == 4
    assert batch.series["duplicate_samples"].to_pylist() == [0, 0]


def test_another_metric_than_asked_for_is_refused(stub: Stub) -> None:
    stub.reads = lambda _: answer([({"__name__": "y_total"}, [(START, 1.0)])])
    with pytest.raises(ProviderError, match="x_total: asked for this metric, found 'y_total'"):
        read(stub)


# The server


def test_what_is_sent(stub: Stub) -> None:
    source = RemoteRead(stub.url + "/prom/")
    source.read(DAY, [X], NEXT)
    assert stub.paths == ["/prom/api/v1/read"]
    sent = stub.headers[0]
    assert sent["x-prometheus-remote-read-version"] == "0.1.0"
    assert (sent["content-type"], sent["content-encoding"]) == ("application/x-protobuf", "snappy")
    assert "authorization" not in sent
    assert (source.name, source.route, source.fallbacks, source.requests) == ("prometheus", "remote read", 0, 1)


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (text(401, "who?"), ProviderError, "answered 401 Unauthorized: who?; change the user"),
        (text(403, ""), ProviderError, "answered 403 Forbidden; change the user"),
        (text(418, ""), ProviderError, "answered 418"),
        (Reply(302, b"", {"Location": "http://elsewhere/"}), ProviderError, "answered 302 Found; change the URL"),
        (text(429, "slow down"), TransientError, "answered 429 Too Many Requests: slow down"),
        (text(500, "oh"), TransientError, "answered 500 Internal Server Error: oh"),
        (text(503, "starting"), TransientError, "answered 503 Service Unavailable: starting"),
        (Reply(200, b"<html>login</html>", {"Content-Type": "text/html"}), ProviderError, "found text/html: '<html>"),
        (Reply(200, b"", {}), ProviderError, "found no type"),
        (
            Reply(200, b"", {"Content-Type": "application/x-streamed-protobuf; proto=x"}),
            ProviderError,
            "found application/x-streamed-protobuf",
        ),
        (Reply(200, b"", {**PROTOBUF, "Content-Encoding": "gzip"}), ProviderError, "a body in snappy, found gzip"),
        (Reply(200, snappy(response(SMALL))[:-3], PROTOBUF), TransientError, "cut off or damaged"),
        (Reply(200, b"", PROTOBUF), TransientError, "cut off or damaged"),
        (Reply(200, snappy(response(SMALL)), PROTOBUF, 10_000), TransientError, "the connection failed"),
        (Reply(200, snappy(b"\x0a\x01"), PROTOBUF), ProviderError, "no ReadResponse: found a field that is longer"),
    ],
)
def test_each_failure_is_one_line_and_no_part_of_a_day(
    stub: Stub, reply: Reply, error: type[GreenopsError], words: str
) -> None:
    replies = iter([answer(SMALL), reply])
    stub.reads = lambda _: next(replies)
    source = RemoteRead(stub.url)
    with pytest.raises(error) as refused:
        source.read(DAY, [Selector("x_total", (Matcher("a", "=", ""),)), X], NEXT)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None


REFUSALS = [
    (text(400, "bad matcher"), "x_total: Prometheus refuses it with 400: bad matcher"),
    (text(422, "cannot do it"), "x_total: Prometheus refuses it with 422: cannot do it"),
    (Reply(200, snappy(message(b"\x22\x00")), PROTOBUF), "native histogram"),
]


@pytest.mark.parametrize(("reply", "words"), REFUSALS)
def test_a_selector_that_cannot_be_read_is_left_out_and_the_others_are_read(
    stub: Stub, reply: Reply, words: str
) -> None:
    """The refused one had given half a day by then; the narrower one behind it gives a part of the same series."""
    narrow, refusals = Selector("x_total", (Matcher("pod", "=", "a"),)), iter([text(413, ""), answer(SMALL), reply])
    stub.reads = lambda query: answer(SMALL[:1]) if len(query.matchers) > 1 else next(refusals)
    batch = read(stub, X, narrow)
    assert list(batch.left_out) == [X]
    assert words in batch.left_out[X]
    assert "\n" not in batch.left_out[X]
    assert [row[2] for row in plain(batch)] == [0.0, 1.0, 2.0, 3.0]
    assert batch.series["labels"].to_pylist() == ['{"pod":"a"}']


@pytest.mark.parametrize(("reply", "words"), REFUSALS)
def test_where_no_selector_is_left_the_first_reason_is_raised(stub: Stub, reply: Reply, words: str) -> None:
    stub.reads = lambda _: reply
    with pytest.raises(BadInput) as refused:
        read(stub, X, Selector("x_total", (Matcher("pod", "=", "a"),)))
    assert words in str(refused.value)
    assert refused.value.__cause__ is None


def test_no_connection_no_answer_and_an_answer_that_drips(stub: Stub) -> None:
    with pytest.raises(TransientError, match="the connection failed"):
        RemoteRead(f"http://127.0.0.1:{free_port()}").read(DAY, [X], NEXT)
    began = time.monotonic()
    stub.drips = True
    stub.reads = lambda _: Reply(200, b"\0", PROTOBUF, 1_000_000)
    with pytest.raises(TransientError, match="no answer within the read timeout"):
        read(stub, timeout_seconds=0.2)
    stub.reads = None
    with pytest.raises(TransientError, match="no answer within the read timeout"):
        read(stub, timeout_seconds=0.2)
    assert time.monotonic() - began < 10


def test_secrets_are_sent_and_shown_nowhere(stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    password = "pa55/w0rd:4711"  # noqa: S105
    pair = base64.b64encode(f"ops:{password}".encode()).decode()
    source = RemoteRead(f"http://ops:pa55%2Fw0rd%3A4711@{stub.address}/p")
    shown = [repr(source), source.url]
    for reply in (text(500, f"bad {password}"), text(401, pair), text(404, "")):
        stub.reads = lambda _, reply=reply: reply  # type: ignore[misc]
        with pytest.raises(GreenopsError) as refused:
            source.read(DAY, [X], NEXT)
        shown.append(str(refused.value))
    assert all(sent["authorization"] == f"Basic {pair}" for sent in stub.headers)
    assert stub.paths[-1].startswith("/p/api/v1/query")
    bearer = RemoteRead(stub.url, token="tok-4711")  # noqa: S106
    stub.reads = lambda _: text(400, "tok-4711 is no good")
    with pytest.raises(BadInput) as refused:
        bearer.read(DAY, [X], NEXT)
    assert stub.headers[-1]["authorization"] == "Bearer tok-4711"
    shown += [str(refused.value), repr(bearer), caplog.text]
    assert [line for line in shown for secret in ("w0rd", "4711", pair[:12]) if secret in line] == []


@pytest.mark.parametrize(
    ("url", "token", "words"),
    [
        ("http://u:secret/w@host", "", "user and password percent-encoded"),
        ("u:secret@host", "", "user and password percent-encoded"),
        ("http://u:secret@host:99999", "", "allowed: http"),
        ("ftp://u:secret@host", "", "found 'ftp://host'"),
        ("http://u:secret@host", "t", "one of them"),
        ("http://host", "secret\n", "a line break"),
        ("http://u:secret@host?a=b", "", "query"),
    ],
)
def test_addresses_and_tokens_that_cannot_be_used(url: str, token: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RemoteRead(url, token=token)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)


# Limits


class Limited:
    """A Prometheus with one series and a sample limit: it answers what is asked for, or refuses."""

    def __init__(self, times: Sequence[int], limit: int) -> None:
        self.times = times
        self.limit = limit
        self.asked: list[tuple[int, int]] = []

    def __call__(self, query: Any) -> Reply:
        first, last = query.start_timestamp_ms, query.end_timestamp_ms
        self.asked.append((first - START, last - START))
        found = [(at, float(at)) for at in self.times if first <= at <= last]
        if len(found) > self.limit:
            return text(400, f"exceeded sample limit ({self.limit})\n")
        return answer([(x(), found)])


def test_the_range_is_halved_where_the_server_has_a_limit_and_that_is_remembered(stub: Stub) -> None:
    limited = Limited([START + k * HOUR for k in range(24)], 12)
    stub.reads = limited
    source = RemoteRead(stub.url)
    assert [row[1] for row in plain(source.read(DAY, [X], NEXT))] == [k * HOUR for k in range(24)]
    halves = [(0, 12 * HOUR - 1), (12 * HOUR, 24 * HOUR - 1)]
    assert limited.asked == [(0, 24 * HOUR - 1), *halves]
    limited.asked.clear()
    assert source.read(DAY, [X], NEXT).samples.num_rows == 24
    assert limited.asked == halves


def test_a_burst_is_read_minute_by_minute_and_no_further(stub: Stub) -> None:
    burst = [START + 7 * HOUR + k * 1000 for k in range(120)]
    stub.reads = Limited(burst, 60)
    source = RemoteRead(stub.url)
    assert [at for _, at, _, _ in plain(source.read(DAY, [X], NEXT))] == [at - START for at in burst]
    stub.reads = Limited(burst, 10)
    with pytest.raises(BadInput) as refused:
        source.read(DAY, [X], NEXT)
    assert "x_total: one minute from 2026-03-01T07:00" in str(refused.value)
    assert "exceeded sample limit (10)" in str(refused.value)
    shortest = min(last - first + 1 for first, last in stub.reads.asked)
    assert shortest == MINUTE


@pytest.mark.parametrize("status", [413, 422])
def test_other_refusals_of_size_are_the_same(stub: Stub, status: int) -> None:
    replies = itertools.chain([text(status, "query has too many samples")], itertools.repeat(answer([])))
    stub.reads = lambda _: next(replies)
    assert read(stub).samples.num_rows == 0
    assert len(stub.queries) == 3


def test_an_answer_over_our_own_limit_is_asked_for_in_halves(stub: Stub) -> None:
    limited = Limited([START + k * HOUR for k in range(24)], 1_000)
    stub.reads = limited
    # 24 samples of 18 bytes and the labels: 451 bytes; twelve: 234.
    assert read(stub, most_bytes=300).samples.num_rows == 24
    assert len(limited.asked) == 3
    with pytest.raises(BadInput, match="ours 20 bytes"):
        read(stub, most_bytes=20)
    # More than the limit on the wire is not read to its end.
    stub.reads = lambda _: Reply(200, b"\x05" + bytes(5_000_000), PROTOBUF)
    with pytest.raises(BadInput, match="more than 1,000 bytes"):
        read(stub, most_bytes=1_000)


def test_more_samples_than_a_day_may_have_leave_out_the_selector_that_brings_them(stub: Stub) -> None:
    """Ten are allowed: four of y, then x, of which the second half of the day would be the eleventh."""
    y, z = Selector("y_total"), Selector("z_total")

    def reads(query: Any) -> Reply:
        name, first, last = query.matchers[0].value, query.start_timestamp_ms, query.end_timestamp_ms
        if name == "x_total" and last - first > 12 * HOUR:
            return text(413, "")
        count = {"x_total": 2, "y_total": 2, "z_total": 3}[name]
        count = 5 if name == "x_total" and first > START else count
        return answer([({"__name__": name, "pod": pod}, [(first + k, 1.0) for k in range(count)]) for pod in "ab"])

    stub.reads = reads
    batch = read(stub, y, X, z, most_samples=10)
    assert batch.left_out == {
        X: "x_total: found 14 samples so far and 18 of all selectors on 2026-03-01, allowed: 10 a day; add matchers to the "
        "query, or drop a label that has too many values"
    }
    # What x had given went with it: there is room for z.
    assert (batch.samples.num_rows, batch.series.num_rows) == (4 + 6, 4)
    with pytest.raises(BadInput, match="x_total: found 4 samples so far and 4 of all selectors"):
        read(stub, X, most_samples=3)
    two = Selector("x_total", (Matcher("pod", "=", "a"),))
    assert "most are of z_total: 6; add" in read(stub, z, y, two, most_samples=8).left_out[y]


def test_twenty_million_samples_are_a_day_at_most() -> None:
    """20,000 series every 86 seconds; the benchmark's 2,000 a minute are 2.88 million."""
    assert series_day.MOST_SAMPLES == 20_000_000


# Without remote read


class HttpApi:
    """The HTTP API over one series; `closed` is Prometheus 2, whose ranges hold both their ends."""

    def __init__(self, times: Sequence[int], closed: bool) -> None:
        self.times = times
        self.closed = closed
        self.asked: list[str] = []

    def __call__(self, path: str) -> Reply:
        params = parse_qs(urlsplit(path).query)
        query, at = params["query"][0], round(float(params["time"][0]) * 1000)
        self.asked.append(query)
        span = int(query.rpartition("[")[2].partition("ms]")[0])
        found = [t for t in self.times if at - span < t <= at or (self.closed and t == at - span)]
        if query.startswith("sum("):
            result = [{"metric": {}, "value": [at / 1000, str(len(found))]}] if found else []
            return self._says("vector", result)
        values = [[t / 1000, "NaN" if t % 10 == 3 else "+Inf" if t % 10 == 4 else "1.5e3"] for t in found]
        return self._says("matrix", [{"metric": x(pod="a"), "values": values}])

    def _says(self, kind: str, result: list[Any]) -> Reply:
        body = json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()
        return Reply(200, body, {"Content-Type": "application/json"})


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(
    "absent",
    [text(404, "404 page not found"), text(405, ""), text(501, ""), text(400, 'unsupported path requested: "/"')],
)
def test_without_remote_read_the_http_api_is_asked(
    stub: Stub, closed: bool, absent: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    times = [START - 1, START, START + 123, START + 124, START + 24 * HOUR - 1, START + 24 * HOUR]
    stub.reads, stub.gets = lambda _: absent, HttpApi(times, closed)
    source = RemoteRead(stub.url)
    batch = source.read(DAY, [X, Selector("x_total", (Matcher("pod", "=~", 'a"\\|b'),))], NEXT)
    assert [row[1:] for row in plain(batch)] == [(0, 1500.0, False), (24 * HOUR - 1, 1500.0, False)]
    assert batch.series["unusable_samples"].to_pylist() == [2]
    assert (source.route, source.fallbacks, len(stub.queries)) == ("HTTP matrix", 2, 1)
    assert stub.gets.asked[1] == '{__name__="x_total"}[86400000ms]'
    assert stub.gets.asked[3] == '{__name__="x_total", pod=~"a\\"\\\\|b"}[86400000ms]'
    source.read(DAY, [X], NEXT)
    assert len([record for record in caplog.records if "no remote read there" in record.message]) == 1


def test_the_http_api_is_asked_for_no_more_than_a_part(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_read, "MOST_SAMPLES", 6)
    api = HttpApi([START + k * HOUR for k in range(24)], closed=True)
    stub.reads, stub.gets = lambda _: text(404, ""), api
    batch = read(stub)
    assert [row[1] for row in plain(batch)] == [k * HOUR for k in range(24)]
    assert batch.series["duplicate_samples"].to_pylist() == [0]
    assert len([query for query in api.asked if not query.startswith("sum(")]) == 4


def json_error(status: int, kind: str, words: str) -> Reply:
    body = json.dumps({"status": "error", "errorType": kind, "error": words}).encode()
    return Reply(status, body, {"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (json_error(400, "bad_data", "parse error"), BadInput, "x_total: Prometheus says bad_data: parse error"),
        (json_error(422, "execution", "too many samples in it"), BadInput, "one minute from 2026-03-01T00:00:00Z"),
        (text(404, "nothing here"), ProviderError, "404 Not Found: nothing here"),
        (json_error(503, "timeout", "timed out"), TransientError, "timed out"),
        (Reply(200, b"{}", {"Content-Type": "application/json"}), ProviderError, "no answer of Prometheus"),
        (Reply(200, b"<html>", {"Content-Type": "text/html"}), ProviderError, "expected JSON"),
    ],
)
def test_failures_of_the_http_api(stub: Stub, reply: Reply, error: type[GreenopsError], words: str) -> None:
    stub.reads, stub.gets = lambda _: text(404, ""), lambda _: reply
    with pytest.raises(error) as refused:
        read(stub)
    assert words in str(refused.value)


def test_remote_read_that_was_there_and_is_gone_is_no_reason_to_read_otherwise(stub: Stub) -> None:
    source = RemoteRead(stub.url)
    source.read(DAY, [X], NEXT)
    stub.reads = lambda _: text(404, "404 page not found")
    with pytest.raises(TransientError, match="it was there a moment ago"):
        source.read(DAY, [X], NEXT)
    assert source.route == "remote read"


# A real Prometheus


@contextmanager
def receiving(folder: Path, *flags: str) -> Iterator[str]:
    """A Prometheus that takes remote write, so that it holds the very bits that a test wants."""
    program(server.PROGRAM, server.INSTALL)
    (folder / "prometheus.yml").write_text("global: {external_labels: {site: eu}}\n")
    port = free_port()
    arguments = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--log.level=warn",
        *flags,
    ]
    with Child.start([server.PROGRAM, *arguments], log=folder / "log", install=server.INSTALL) as child:
        child.wait_for_http(f"http://127.0.0.1:{port}/-/ready", seconds=30)
        yield f"http://127.0.0.1:{port}"


@pytest.mark.real
def test_real_prometheus_gives_back_every_bit_by_both_routes(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows: list[Row] = []
    for pod in range(5):
        values = [float(v) for v in np.cumsum(rng.poisson(0.2 if pod % 2 else 3, 1442))]
        values[700:703] = [math.nan, STALE, math.inf] if pod == 1 else [1e300, -2.5, 5e-324]
        times = range(START - MINUTE, START + 24 * HOUR + 1, MINUTE)
        rows.append((x(pod=f"p{pod}", quote='"\\é'), list(zip(times, values, strict=True))))
    with receiving(tmp_path, "--storage.remote.read-sample-limit=3000") as url:
        headers = {"Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
        sent = requests.post(f"{url}/api/v1/write", data=write_request(rows), headers=headers, timeout=30)
        assert sent.status_code == 204, sent.text
        source = RemoteRead(url)
        batch = source.read(DAY, [X], NEXT)
        assert (source.route, source.requests) == ("remote read", 7)  # a day and two halves refused, four quarters
        for labels, samples in rows:
            number = series_id("x_total", {**labels, "site": "eu"})
            kept = [
                (number, at - START, 0.0 if math.isnan(value) else value, math.isnan(value))
                for at, value in samples
                if START <= at < START + 24 * HOUR and (math.isfinite(value) or value is STALE)
            ]
            assert [row for row in plain(batch) if row[0] == number] == kept
        assert sum(batch.series["unusable_samples"].to_pylist()) == 2
        assert sum(batch.series["stale_markers"].to_pylist()) == 1
        # Without the labels of the server, without the marker.
        other = RemoteRead(url)
        other.route = "HTTP matrix"
        found = other.read(DAY, [X, Selector("x_total", (Matcher("quote", "=", '"\\é'),))], NEXT)
        assert other.fallbacks == 2
        assert found.samples.num_rows == batch.samples.num_rows - 1
        assert sum(found.series["unusable_samples"].to_pylist()) == 2
        assert sorted(found.samples["value"].to_pylist()) == sorted(v for _, _, v, mark in plain(batch) if not mark)
        assert found.series["labels"][0].as_py() == label_text(
            {"pod": json.loads(found.series["labels"][0].as_py())["pod"], "quote": '"\\é'}
        )
        for operator, value, count in (("=", "p1", 1), ("!=", "p1", 4), ("=~", "p[12]", 2), ("!~", "p[12]", 3)):
            chosen = source.read(DAY, [Selector("x_total", (Matcher("pod", operator, value),))], NEXT)  # type: ignore[arg-type]
            assert chosen.series.num_rows == count
        with pytest.raises(BadInput, match="Prometheus refuses it with 500: error parsing regexp"):
            source.read(DAY, [Selector("x_total", (Matcher("pod", "=~", "("),))], NEXT)


@pytest.mark.real
def test_real_prometheus_with_a_limit_below_a_minute_is_told_of(tmp_path: Path) -> None:
    rows: list[Row] = [(x(pod=str(pod)), [(START + 1000 * k, 1.0) for k in range(10)]) for pod in range(2)]
    with receiving(tmp_path, "--storage.remote.read-sample-limit=19") as url:
        headers = {"Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
        assert requests.post(f"{url}/api/v1/write", data=write_request(rows), headers=headers, timeout=30).ok
        with pytest.raises(
            BadInput, match=r"x_total: one minute from 2026-03-01T00:00:00Z.*exceeded sample limit \(19\)"
        ):
            RemoteRead(url).read(DAY, [X], NEXT)
