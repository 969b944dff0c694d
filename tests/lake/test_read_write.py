"""Writing and reading back, on a folder and on a bucket alike."""

from __future__ import annotations

import tempfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings

from greenops_pipelines.errors import ConfigurationError, SchemaViolation
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.parquet import conform
from greenops_pipelines.lake.storage import LocalFolder, S3Bucket
from greenops_pipelines.lake.versions import version_of
from tests.lake.declared import CHARGES, DAY, DEPLOYMENTS, RATES, TABLES, at, charge, deployment, plain, rate, rows
from tests.lake.test_digest import CHARGE_ROWS

MARCH_2 = date(2026, 3, 2)
MARCH_3 = date(2026, 3, 3)


@settings(max_examples=25, deadline=None)
@given(CHARGE_ROWS)
def test_what_is_read_is_what_was_written(given_rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(LocalFolder(Path(folder)), Path(folder) / "warehouse.duckdb", {}, [CHARGES])
        table = rows(CHARGES, *given_rows)
        written = lake.write(CHARGES, table)
        assert lake.read(CHARGES).equals(conform(CHARGES, table))
        assert written.rows == len(given_rows)
        assert written.bytes == sum((Path(folder) / path).stat().st_size for path in written.paths)


def test_values_come_back_exactly(any_lake: Lake) -> None:
    odd = charge("Ünïcode €", at(23, 59), "日本語 🌍", "999999999999.999999", note="a\x00b\n\"',", edition=2**63 - 1)
    bare = charge("acme", billed="-0.000001", usage=None, is_spot=None, invoiced=None, note=None)
    any_lake.write(CHARGES, rows(CHARGES, odd, bare))
    assert any_lake.read(CHARGES).to_pylist() == [bare, odd]
    assert any_lake.query("from charges order by account").to_pylist() == [bare, odd]
    assert any_lake.query("select sum(billed) as s from charges")["s"].to_pylist() == [Decimal("999999999999.999998")]


def test_a_table_without_partitions_is_one_file_and_may_be_empty(any_lake: Lake) -> None:
    written = any_lake.write(RATES, rows(RATES, rate("USD", "1"), rate("EUR", "1.1")))
    assert [version_of(path) for path in written.paths] == [1]
    assert plain(any_lake.read(RATES), "currency", "rate") == [("EUR", Decimal("1.1")), ("USD", Decimal(1))]
    assert any_lake.write(RATES, RATES.schema.empty_table()).rows == 0
    assert [version_of(path) for path in any_lake.files(RATES)] == [2]
    assert any_lake.read(RATES).equals(RATES.schema.empty_table())


def test_a_table_that_was_never_written_reads_as_empty(any_lake: Lake) -> None:
    assert any_lake.read(CHARGES).equals(CHARGES.schema.empty_table())
    assert any_lake.read(CHARGES, columns=["billed"]).schema.names == ["billed"]


@pytest.fixture
def filled(any_lake: Lake) -> Lake:
    """Accounts a and b; a on 1, 2 and 3 March, b on 2 March."""
    some = [charge("a", at(day=d), edition=i) for i, d in enumerate((DAY, MARCH_2, MARCH_3))]
    any_lake.write(CHARGES, rows(CHARGES, *some, charge("b", at(day=MARCH_2), edition=7)))
    return any_lake


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (None, [("a", "01"), ("a", "02"), ("a", "03"), ("b", "02")]),
        ({"account": "a"}, [("a", "01"), ("a", "02"), ("a", "03")]),
        ({"day": MARCH_2}, [("a", "02"), ("b", "02")]),
        ({"day": (MARCH_2, MARCH_3)}, [("a", "02"), ("a", "03"), ("b", "02")]),
        ({"day": (MARCH_3, MARCH_3), "account": "a"}, [("a", "03")]),
        ({"day": (MARCH_3, MARCH_2)}, []),
        ({"account": "c"}, []),
    ],
)
def test_partitions_are_pruned_by_value_and_by_range_of_days(filled: Lake, where: Any, found: Any) -> None:
    folders = [f"bronze/charges/account={a}/day=2026-03-{d}" for a, d in found]
    assert [path.rpartition("/")[0] for path in filled.files(CHARGES, where)] == folders
    read = filled.read(CHARGES, where, columns=["day", "account"])
    assert [(row["account"], f"{row['day']:%d}") for row in read.to_pylist()] == found


def test_a_filter_on_anything_but_a_partition_key_is_refused(filled: Lake) -> None:
    with pytest.raises(SchemaViolation, match="bronze/charges: service is no partition key; keys: account, day"):
        filled.read(CHARGES, {"service": "db"})


def test_a_write_replaces_its_partitions_and_no_others(filled: Lake) -> None:
    filled.write(CHARGES, rows(CHARGES, charge("a", at(5), edition=20), charge("a", at(6), edition=21)))
    assert plain(filled.read(CHARGES), "account", "day", "edition") == [
        ("a", DAY, 20),
        ("a", DAY, 21),
        ("a", MARCH_2, 1),
        ("a", MARCH_3, 2),
        ("b", MARCH_2, 7),
    ]


def test_a_named_partition_without_rows_becomes_empty(filled: Lake) -> None:
    named = [{"account": "a", "day": DAY}, {"account": "a", "day": MARCH_2}, {"account": "new", "day": DAY}]
    written = filled.write(CHARGES, rows(CHARGES, charge("a", at(), edition=30)), partitions=named)
    assert [(path.rpartition("/")[0], version_of(path)) for path in written.paths] == [
        ("bronze/charges/account=a/day=2026-03-01", 2),
        ("bronze/charges/account=a/day=2026-03-02", 2),
        ("bronze/charges/account=new/day=2026-03-01", 1),
    ]
    assert plain(filled.read(CHARGES), "account", "day", "edition") == [
        ("a", DAY, 30),
        ("a", MARCH_3, 2),
        ("b", MARCH_2, 7),
    ]
    assert filled.query("select count(*) as n from charges where account = 'new'")["n"].to_pylist() == [0]


@pytest.mark.parametrize(
    "value",
    [
        "../../../etc",
        "..",
        ".",
        ".hidden",
        "",
        "a/b",
        "a\\b",
        "a\x00b",
        "a\nb",
        "a*",
        "a?",
        "[a]",
        "a=b",
        "50%",
        "__HIVE_DEFAULT_PARTITION__",
    ],
)
def test_a_partition_value_that_is_no_plain_name_is_refused(any_lake: Lake, value: str) -> None:
    """In the rows, in the named partitions and in a filter."""
    shown = f"bronze/charges: partition account: found {value!r}, allowed: a plain name"
    for refused in (
        lambda: any_lake.write(CHARGES, rows(CHARGES, charge("fine"), charge(value))),
        lambda: any_lake.write(CHARGES, rows(CHARGES, charge()), partitions=[{"account": value, "day": DAY}]),
        lambda: any_lake.read(CHARGES, {"account": value}),
    ):
        with pytest.raises(SchemaViolation) as error:
            refused()
        assert str(error.value) == shown
    assert any_lake.storage.glob("*/*/*/*/*") == []


@pytest.mark.parametrize("value", ["it's", "a b", "{a,b}", "null", "007", "1e5", "~", "日本", "a+b"])
def test_a_view_shows_a_partition_value_as_it_was_written(any_lake: Lake, value: str) -> None:
    any_lake.write(CHARGES, rows(CHARGES, charge(value)))
    assert any_lake.query("select account, day from charges").to_pylist() == [{"account": value, "day": DAY}]
    assert any_lake.read(CHARGES, {"account": value}).num_rows == 1


def test_the_partition_that_is_named_must_have_the_declared_keys(lake: Lake) -> None:
    with pytest.raises(SchemaViolation, match=r"partition: found \['day'\], declared: \['account', 'day'\]"):
        lake.write(CHARGES, CHARGES.schema.empty_table(), partitions=[{"day": DAY}])


def test_kinds_are_written_their_own_way_only(lake: Lake) -> None:
    with pytest.raises(SchemaViolation, match="a log table is appended to, never replaced"):
        lake.write(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("a", at())))
    with pytest.raises(SchemaViolation, match="a snapshot table is replaced by partition, not appended to"):
        lake.append(RATES, rows(RATES, rate("EUR", "1.1")), at(), "run")


def test_files_lie_where_the_prefix_says(bucket: S3Bucket, s3_endpoint: str) -> None:
    """And two lakes in one bucket do not see each other."""
    lake = Lake(bucket, Path("unused"), {}, [])
    other = S3Bucket(bucket.root.removesuffix("/prefix") + "/pre", s3_endpoint)
    lake.storage.publish("bronze/rates/data.parquet", lambda file: file.write(b"x"))
    assert other.glob("*/*/*") == other.glob("fix/bronze/rates/*") == []
    assert bucket.glob("*/*/*") == ["bronze/rates/data.parquet"]
    assert bucket.glob("bronze/*") == [], "a star does not cross a slash"
    bucket.remove("bronze/rates/data.parquet")
    bucket.remove("bronze/rates/data.parquet")
    assert not bucket.has("bronze/rates/*.parquet")


@pytest.mark.parametrize("name", ["a[b]", "what?", "star*", "day=2026-01-01"])
def test_a_place_that_duckdb_would_read_as_a_pattern_is_refused(tmp_path: Path, name: str) -> None:
    """`day=...` in the lake's own place would replace the day of every row."""
    with pytest.raises(ConfigurationError, match="allowed: a path without"):
        LocalFolder(tmp_path / name / "lake")


@pytest.mark.parametrize("name", ["it's", "a b", "ünï 100%", "{a,b}"])
def test_other_odd_places_work(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    lake = Lake(LocalFolder(home / "lake"), home / "warehouse.duckdb", {}, TABLES)
    lake.write(CHARGES, rows(CHARGES, charge("a", edition=5)))
    assert lake.query("select edition from charges where account = 'a'")["edition"].to_pylist() == [5]
    assert lake.read(CHARGES)["edition"].to_pylist() == [5]


@pytest.mark.parametrize("address", ["lake", "s3://", "s3://A_b", "https://bucket/x"])
def test_an_address_that_is_no_bucket_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed: s3://bucket or s3://bucket/prefix"):
        S3Bucket(address)


def test_written_says_what_a_person_wants_to_know(lake: Lake) -> None:
    written = lake.write(CHARGES, pa.concat_tables([rows(CHARGES, charge("a")), rows(CHARGES, charge("b"))]))
    assert (written.table, written.rows, len(written.digests)) == (CHARGES, 2, 2)
    assert written.paths[0].startswith("bronze/charges/account=a/day=2026-03-01/data-000001-")
