"""What a write refuses, word for word, and what it brings into order."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from greenops_pipelines.errors import SchemaViolation
from greenops_pipelines.lake import Column, Kind, Lake, Table
from greenops_pipelines.lake.parquet import conform
from greenops_pipelines.lake.tables import CARBON_INTENSITY
from tests.lake.declared import CHARGES, DEPLOYMENTS, RATES, at, charge, deployment, intensity, plain, rate, rows


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def test_rows_that_fit_come_back_equal_with_the_declared_schema() -> None:
    given = rows(CHARGES, charge(), charge(hour=at(1), usage=None, is_spot=None, invoiced=None, note=None))
    conformed = conform(CHARGES, given)
    assert conformed.equals(given)
    assert conformed.schema.metadata == {b"comment": b"What each service of an account costs per hour."}
    assert conformed.schema.field("billed").metadata == {b"comment": b"Billed cost in USD"}
    assert [f.name for f in conformed.schema if f.nullable] == ["usage", "is_spot", "invoiced", "note"]


def test_columns_come_into_declared_order() -> None:
    given = rows(RATES, rate("EUR", "1.1"))
    assert conform(RATES, given.select(["edition", "currency", "rate"])).column_names == ["currency", "rate", "edition"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.drop_columns(["rate"]),
            "marts/rates: columns: missing ['rate']; found: currency, edition; declared: currency, rate, edition",
        ),
        (
            lambda t: t.append_column("origin", pa.array(["ecb", "ecb"])),
            "marts/rates: columns: unknown ['origin']; found: currency, rate, edition, origin; "
            "declared: currency, rate, edition",
        ),
        (
            lambda t: t.append_column("edition", pa.array([1, 2], pa.int32())),
            "marts/rates: columns: a column twice; found: currency, rate, edition, edition; "
            "declared: currency, rate, edition",
        ),
        (
            lambda t: with_column(t, "rate", pa.array([1.1, 1.2])),
            "marts/rates: column rate: found type double, declared: decimal128(12, 6)",
        ),
        (
            lambda t: with_column(t, "rate", t["rate"].cast(pa.decimal128(18, 6))),
            "marts/rates: column rate: found type decimal128(18, 6), declared: decimal128(12, 6)",
        ),
        (
            lambda t: with_column(t, "edition", pa.array([1, 2], pa.int64())),
            "marts/rates: column edition: found type int64, declared: int32",
        ),
        (
            lambda t: with_column(t, "currency", pa.array(["EUR", None])),
            "marts/rates: column currency, row 1: found null, allowed: a value (1 nulls)",
        ),
    ],
)
def test_wrong_columns_types_and_nulls_are_named(change: Any, message: str) -> None:
    given = rows(RATES, rate("EUR", "1.1"), rate("GBP", "1.3"))
    with pytest.raises(SchemaViolation) as refused:
        conform(RATES, change(given))
    assert str(refused.value) == message


def test_a_time_without_a_zone_is_named() -> None:
    naive = pa.array([None, datetime(2026, 3, 1, 7)], pa.timestamp("us"))  # noqa: DTZ001
    given = with_column(rows(DEPLOYMENTS, deployment("a", at()), deployment("b", at())), "at", naive)
    with pytest.raises(SchemaViolation) as refused:
        conform(DEPLOYMENTS, given)
    assert str(refused.value) == (
        "bronze/deployments: column at, row 1: found a time without a zone (2026-03-01 07:00:00), allowed: UTC"
    )


@pytest.mark.parametrize("values", [[], [None]])
def test_naive_times_are_refused_where_no_value_shows_them(values: list[None]) -> None:
    table = Table("bronze", "t", "t", (Column("id", pa.string(), "id"), CARBON_INTENSITY.columns[10]), ("id",))
    given = pa.table({"id": ["a"][: len(values)], "updated_at": pa.array(values, pa.timestamp("us"))})
    with pytest.raises(SchemaViolation, match="column updated_at, row 0: found a time without a zone"):
        conform(table, given.cast(pa.schema([("id", pa.string()), ("updated_at", pa.timestamp("us"))])))


def test_times_of_another_zone_become_the_same_instants_in_utc() -> None:
    # 00:30 in Kolkata (+05:30) is 19:00 UTC the day before.
    kolkata = pa.array([datetime(2026, 3, 1, 19, tzinfo=UTC)], pa.timestamp("us", tz="Asia/Kolkata"))
    assert kolkata[0].as_py().isoformat() == "2026-03-02T00:30:00+05:30"
    given = with_column(rows(DEPLOYMENTS, deployment("a", at())), "at", kolkata)
    conformed = conform(DEPLOYMENTS, given)
    assert conformed.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert conformed["at"].to_pylist() == [datetime(2026, 3, 1, 19, tzinfo=UTC)]


def test_a_coarser_or_finer_clock_is_refused_not_rounded() -> None:
    given = rows(DEPLOYMENTS, deployment("a", at()))
    finer = with_column(given, "at", given["at"].cast(pa.timestamp("ns", tz="UTC")))
    with pytest.raises(SchemaViolation, match=r"column at: found type timestamp\[ns, tz=UTC\]"):
        conform(DEPLOYMENTS, finer)


@pytest.mark.parametrize(("odd", "shown"), [(float("nan"), "nan"), (float("inf"), "inf"), (float("-inf"), "-inf")])
def test_nan_and_infinity_are_named(odd: float, shown: str) -> None:
    given = rows(
        CHARGES, charge(service="a", usage=None), charge(service="b", usage=1.0), charge(service="c", usage=odd)
    )
    with pytest.raises(SchemaViolation) as refused:
        conform(CHARGES, given)
    assert str(refused.value) == f"bronze/charges: column usage, row 2: found {shown}, allowed: a finite number"


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ([charge(service="a"), charge(service="b"), charge(service="b", billed="9")], "rows 1 and 2"),
        # Sorted, the two stand in other places: the message counts as the caller does.
        ([charge(service="b"), charge(service="c"), charge(service="a"), charge(service="b")], "rows 0 and 3"),
    ],
)
def test_a_key_that_stands_twice_is_named(given: list[dict[str, Any]], where: str) -> None:
    with pytest.raises(SchemaViolation) as refused:
        conform(CHARGES, rows(CHARGES, *given))
    assert str(refused.value) == (
        f"bronze/charges: key account, hour, service, {where}: "
        "found twice: account acme, hour 2026-03-01 00:00:00+00:00, service b"
    )


def test_the_key_of_a_revised_table_includes_when_it_was_observed() -> None:
    assert CARBON_INTENSITY.row_key[-1] == "observed_at"
    twice = [intensity(300.0, at(5)), intensity(310.0, at(6))]
    assert conform(CARBON_INTENSITY, rows(CARBON_INTENSITY, *twice)).num_rows == 2
    with pytest.raises(SchemaViolation, match="rows 0 and 1: found twice"):
        conform(CARBON_INTENSITY, rows(CARBON_INTENSITY, intensity(300.0, at(5)), intensity(310.0, at(5))))


def test_rows_are_sorted_by_partition_then_key() -> None:
    given = rows(
        CHARGES,
        charge("b", at(1), "x"),
        charge("a", at(2), "y"),
        charge("a", at(2), "x"),
        charge("a", at(1, day=date(2026, 2, 28)), "z"),
    )
    assert plain(conform(CHARGES, given), "account", "hour", "service") == [
        ("a", at(1, day=date(2026, 2, 28)), "z"),
        ("a", at(2), "x"),
        ("a", at(2), "y"),
        ("b", at(1), "x"),
    ]


def test_a_key_that_may_be_null_cannot_be_declared() -> None:
    columns = (Column("id", pa.string(), "id", nullable=True), Column("day", pa.date32(), "day"))
    with pytest.raises(ValueError, match=r"bronze/t: key: found \['id'\], allowed: declared columns that are never"):
        Table("bronze", "t", "t", columns, unique=("id",))
    with pytest.raises(ValueError, match=r"found \['hour'\]"):
        Table("bronze", "t", "t", columns, unique=("day",), partition_by=("hour",))
    with pytest.raises(ValueError, match=r"found \['observed_at'\]"):
        Table("bronze", "t", "t", columns, unique=("day",), kind=Kind.REVISED)


def test_nothing_is_written_where_a_single_row_is_wrong(lake: Lake) -> None:
    before = rows(CHARGES, charge("a"), charge("b"))
    lake.write(CHARGES, before)
    with pytest.raises(SchemaViolation, match="column usage, row 1"):
        lake.write(CHARGES, rows(CHARGES, charge("a", usage=0.0), charge("c", usage=float("nan"))))
    assert lake.read(CHARGES).equals(before)
    assert len(lake.files(CHARGES)) == 2
