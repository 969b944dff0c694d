"""The checks that read the lake itself: figures of fine tables, and of broken ones."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.inspect import repeated_keys, schema_measurement, views_measurement
from greenops_pipelines.lake.tables import CARBON_INTENSITY
from tests.lake.declared import CHARGES, DEPLOYMENTS, RATES, at, charge, deployment, intensity, rate, rows


def drop_in(lake: Lake, path: str, table: pa.Table) -> None:
    """A file that the lake did not write."""
    file = Path(lake.storage.root) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)


def test_a_fine_table_has_no_faults(any_lake: Lake) -> None:
    any_lake.write(CHARGES, rows(CHARGES, charge("a"), charge("b"), charge("b", at(1))))
    found = schema_measurement(any_lake, CHARGES, "cost/charges")
    assert (found.check, found.measured, found.target, found.outcome) == ("cost/charges:schema", 0.0, 0, "passed")
    assert found.figures == {"files": 2, "rows": 3, "columns": 10}
    assert found.detail == "every file fits the declaration"


def test_a_table_without_a_file_has_no_faults(lake: Lake) -> None:
    found = schema_measurement(lake, CARBON_INTENSITY, "carbon/intensity")
    assert (found.outcome, found.figures) == ("passed", {"files": 0, "rows": 0, "columns": 13})


def test_a_foreign_file_is_told_by_each_of_its_faults(lake: Lake) -> None:
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    drop_in(
        lake,
        "marts/rates/data-000009-aaaaaaaaaaaaaaaa.parquet",
        pa.table({"currency": ["X"], "edition": pa.array([1], pa.int64()), "odd": [1]}),
    )
    found = schema_measurement(lake, RATES, "cost/rates")
    # edition int64, odd not declared, rate missing, no digest
    assert (found.measured, found.outcome) == (4.0, "failed")
    assert (
        found.detail == "marts/rates/data-000009-aaaaaaaaaaaaaaaa.parquet: column edition: found int64, declared int32"
    )
    assert found.figures["rows"] == 1


def test_a_file_that_the_lake_did_not_write_is_a_fault_and_is_not_read(lake: Lake) -> None:
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    drop_in(lake, "marts/rates/stranger.parquet", rows(RATES, rate("USD", "9")))
    found = schema_measurement(lake, RATES, "k")
    assert (found.measured, found.detail) == (
        1.0,
        "marts/rates/stranger.parquet: not written by the lake, and not read",
    )
    assert lake.read(RATES).num_rows == 1


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda t: t, "no digest in the footer"),
        (lambda t: t.drop_columns(["rate"]), "column rate: missing"),
        (lambda t: t.append_column("x", pa.array([1])), "column x: not declared"),
    ],
)
def test_one_fault_at_a_time(lake: Lake, change: object, detail: str) -> None:
    good = rows(RATES, rate("EUR", "1.1")).replace_schema_metadata(None)
    drop_in(lake, "marts/rates/data-000009-aaaaaaaaaaaaaaaa.parquet", change(good))  # type: ignore[operator]
    assert schema_measurement(lake, RATES, "k").detail == f"marts/rates/data-000009-aaaaaaaaaaaaaaaa.parquet: {detail}"


def test_a_column_that_may_be_null_may_be_missing(lake: Lake) -> None:
    drop_in(
        lake,
        "marts/rates/data-000009-aaaaaaaaaaaaaaaa.parquet",
        rows(RATES, rate("EUR", "1.1")).drop_columns(["edition"]),
    )
    assert (
        schema_measurement(lake, RATES, "k").detail
        == "marts/rates/data-000009-aaaaaaaaaaaaaaaa.parquet: no digest in the footer"
    )


def test_a_file_that_is_no_parquet_is_a_fault_not_a_crash(lake: Lake) -> None:
    (Path(lake.storage.root) / "marts/rates").mkdir(parents=True)
    (Path(lake.storage.root) / "marts/rates/data-000009-aaaaaaaaaaaaaaaa.parquet").write_bytes(
        b"PAR1 and then the disk was full"
    )
    found = schema_measurement(lake, RATES, "k")
    assert (found.measured, found.figures["files"]) == (1.0, 1)
    assert found.detail.startswith(
        "marts/rates/data-000009-aaaaaaaaaaaaaaaa.parquet: Parquet magic bytes not found in footer"
    )


def test_a_key_in_two_appended_files_is_counted_and_equal_rows_are_not(lake: Lake) -> None:
    for run in ("one", "two"):
        lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("a", at(1))), at(2), run)
    assert repeated_keys(lake, DEPLOYMENTS) == 0, "the same row twice, as during a compaction"
    for run, value in (("one", 300.0), ("two", 301.0), ("three", 302.0)):
        seen = rows(CARBON_INTENSITY, intensity(value, at(2)), intensity(value, at(2), zone="FR"))
        lake.append(CARBON_INTENSITY, seen, at(2), run)
    assert repeated_keys(lake, CARBON_INTENSITY) == 4, "two zones, each known thrice at one time"
    found = schema_measurement(lake, CARBON_INTENSITY, "carbon/intensity")
    assert (found.measured, found.outcome, found.detail) == (4.0, "failed", "4 repeated keys")


def test_keys_are_counted_for_every_provider_whichever_is_configured(lake: Lake) -> None:
    for run, value in (("one", 300.0), ("two", 301.0)):
        seen = rows(CARBON_INTENSITY, intensity(value, at(2), provider="uk-neso"))
        lake.append(CARBON_INTENSITY, seen, at(2), run)
    assert repeated_keys(lake, CARBON_INTENSITY) == 1


def test_all_views_answer(any_lake: Lake) -> None:
    any_lake.write(CHARGES, rows(CHARGES, charge("a"), charge("b")))
    found = views_measurement(any_lake)
    # charges, rates, deployments, carbon_intensity with its history, and the catalog's own one
    assert (found.check, found.measured, found.outcome) == ("lake/warehouse:views_answer", 0.0, "passed")
    assert found.figures == {"views": 6, "rows": 3}
    assert found.detail == "6 views answer"


def test_a_view_that_does_not_answer_is_named(lake: Lake) -> None:
    lake.write(CHARGES, rows(CHARGES, charge("a")))
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    torn = lake.files(CHARGES)[0]
    (Path(lake.storage.root) / torn).write_bytes(b"torn")
    found = views_measurement(lake)
    assert (found.measured, found.outcome) == (1.0, "failed")
    assert found.detail.startswith("charges: ")
    assert torn in found.detail


def test_a_view_over_files_that_are_gone_is_named(lake: Lake) -> None:
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    (Path(lake.storage.root) / lake.files(RATES)[0]).unlink()
    assert views_measurement(lake).detail.startswith("rates: IO Error: No files found")
    assert lake.refresh(), "and the next refresh makes it an empty view"
    assert views_measurement(lake).outcome == "passed"


def test_the_warehouse_is_not_left_open(lake: Lake) -> None:
    lake.refresh()
    views_measurement(lake)
    with duckdb.connect(str(lake.warehouse)) as connection:  # a writer: refused while anyone has it open
        connection.execute("create view mine as select 1")
