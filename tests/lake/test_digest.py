"""The digest is of the values: the same however Arrow lays them out, another one for any other value."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.parquet import DIGEST_KEY, conform, digest
from tests.lake.declared import CHARGES, at, charge, rows

quick = settings(max_examples=60, deadline=None)

CHARGE_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "account": st.sampled_from(["a", "b"]),
            "hour": st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 3), timezones=st.just(UTC)),  # noqa: DTZ001
            "service": st.text(max_size=4),
            "billed": st.decimals(-1_000_000, 1_000_000, places=6),
            "usage": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "is_spot": st.none() | st.booleans(),
            "edition": st.integers(-(2**63), 2**63 - 1),
            "invoiced": st.none() | st.dates(date(1, 1, 1), date(9999, 12, 31)),
            "note": st.none() | st.text(max_size=6),
        }
    ).map(lambda row: row | {"day": row["hour"].date()}),
    min_size=1,
    max_size=8,
    unique_by=lambda row: (row["account"], row["hour"], row["service"]),
)


@quick
@given(CHARGE_ROWS, st.data())
def test_chunks_and_slices_do_not_matter(given_rows: list[dict[str, Any]], data: st.DataObject) -> None:
    table = rows(CHARGES, *given_rows)
    expected = digest(table)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(table)), max_size=4)))
    edges = [0, *cuts, len(table)]
    chunked = pa.concat_tables([table.slice(a, b - a) for a, b in itertools.pairwise(edges)])
    assert digest(chunked) == expected
    start = data.draw(st.integers(1, 9))
    longer = pa.concat_tables([rows(CHARGES, *[charge(note="pad")] * start), table, rows(CHARGES, charge())])
    assert digest(longer.combine_chunks().slice(start, len(table))) == expected


@quick
@given(CHARGE_ROWS, st.randoms(use_true_random=False))
def test_the_order_in_which_rows_came_does_not_matter(given_rows: list[dict[str, Any]], random: Any) -> None:
    shuffled = random.sample(given_rows, len(given_rows))
    assert digest(conform(CHARGES, rows(CHARGES, *shuffled))) == digest(conform(CHARGES, rows(CHARGES, *given_rows)))


@quick
@given(CHARGE_ROWS, st.data())
def test_any_other_value_is_another_digest(given_rows: list[dict[str, Any]], data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(given_rows) - 1))
    name = data.draw(st.sampled_from(CHARGES.schema.names))
    others = {
        "account": st.just("c"),
        "hour": st.just(datetime(2027, 1, 1, tzinfo=UTC)),
        "service": st.text(max_size=4),
        "billed": st.decimals(-1_000_000, 1_000_000, places=6),
        "usage": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "is_spot": st.none() | st.booleans(),
        "edition": st.integers(-(2**63), 2**63 - 1),
        "invoiced": st.none() | st.dates(),
        "note": st.none() | st.text(max_size=6),
        "day": st.just(date(2027, 1, 1)),
    }
    other = data.draw(others[name].filter(lambda value: value != given_rows[row][name]))
    changed = [r | {name: other} if i == row else r for i, r in enumerate(given_rows)]
    assert digest(rows(CHARGES, *changed)) != digest(rows(CHARGES, *given_rows))


def only(values: list[Any], kind: pa.DataType) -> str:
    return digest(pa.table({"x": pa.array(values, kind)}))


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ([None], [0.0], pa.float64()),
        ([None], [0], pa.int64()),
        ([None], [False], pa.bool_()),
        ([None], [Decimal(0)], pa.decimal128(9, 2)),
        ([None], [date(1970, 1, 1)], pa.date32()),
        ([None], [datetime(1970, 1, 1, tzinfo=UTC)], pa.timestamp("us", tz="UTC")),
        ([None], [""], pa.string()),
        ([None, "a"], ["a", None], pa.string()),
        (["ab", "c"], ["a", "bc"], pa.string()),
        (["", "abc"], ["abc", ""], pa.string()),
        # The nulls of one column must not read as values of another.
        ([None, 1, 2], [1, None, 2], pa.int32()),
        ([True, False], [False, True], pa.bool_()),
        ([1.0], [1.0000000000000002], pa.float64()),
        ([Decimal("0.01")], [Decimal("-0.01")], pa.decimal128(9, 2)),
        ([1], [1, 1], pa.int64()),
        ([], [None], pa.string()),
    ],
)
def test_near_misses_differ(one: list[Any], other: list[Any], kind: pa.DataType) -> None:
    assert only(one, kind) != only(other, kind)


def test_name_type_and_column_of_a_value_matter() -> None:
    digests = {
        digest(pa.table({"a": pa.array([1], pa.int32()), "b": pa.array([2], pa.int32())})),
        digest(pa.table({"a": pa.array([2], pa.int32()), "b": pa.array([1], pa.int32())})),
        digest(pa.table({"b": pa.array([1], pa.int32()), "a": pa.array([2], pa.int32())})),
        digest(pa.table({"a": pa.array([1], pa.int64()), "b": pa.array([2], pa.int64())})),
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("kind", "garbage", "width"), [(pa.int64(), 2**62, "q"), (pa.float64(), 1.5, "d"), (pa.date32(), 9, "i")]
)
def test_what_lies_under_a_null_does_not_matter(kind: pa.DataType, garbage: Any, width: str) -> None:
    import struct

    def array(hidden: Any) -> pa.Array:
        values = pa.py_buffer(struct.pack(f"=2{width}", hidden, 3))
        return pa.Array.from_buffers(kind, 2, [pa.py_buffer(b"\x02"), values], null_count=1)

    assert array(garbage).to_pylist()[0] is None
    assert digest(pa.table({"x": array(garbage)})) == digest(pa.table({"x": array(0)}))


def test_hidden_text_under_a_null_does_not_matter() -> None:
    def array(text: bytes, ends: tuple[int, int]) -> pa.Array:
        offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, *ends)))
        return pa.StringArray.from_buffers(2, offsets, pa.py_buffer(text), pa.py_buffer(b"\x02"), null_count=1)

    assert array(b"secretok", (6, 8)).to_pylist() == [None, "ok"]
    assert digest(pa.table({"x": array(b"secretok", (6, 8))})) == digest(pa.table({"x": array(b"ok", (0, 2))}))


def test_the_footer_holds_the_digest_and_it_is_the_data_version(lake: Lake, home: Any) -> None:
    given_rows = rows(CHARGES, charge("a"), charge("b"), charge("b", at(1)))
    written = lake.write(CHARGES, given_rows)
    footers = [pq.read_schema(home / "lake" / path).metadata for path in written.paths]
    assert tuple(f[DIGEST_KEY].decode() for f in footers) == written.digests
    assert written.digests == (digest(given_rows.slice(0, 1)), digest(given_rows.slice(1, 2)))
    assert {f[b"greenops.table"] for f in footers} == {b"bronze/charges"}
    assert lake.write(CHARGES, given_rows).version == written.version
    assert lake.write(CHARGES, given_rows.slice(0, 2)).version != written.version
