"""Which file of a snapshot partition counts, what goes and when, and what a reader that has begun goes on with."""

from __future__ import annotations

import os
import time
from pathlib import Path

import duckdb

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.compaction import compact
from greenops_pipelines.lake.versions import current, file_name, version_of
from tests.lake.declared import RATES, plain, rate, rows

A, B = "a" * 64, "b" * 64


def test_the_newest_version_counts_and_names_sort_beyond_a_million() -> None:
    names = [f"marts/rates/{file_name(n, A)}" for n in (1, 2, 999_999, 1_000_000)]
    assert current(RATES, names) == ["marts/rates/data-1000000-aaaaaaaaaaaaaaaa.parquet"]


def test_of_two_writers_of_one_version_one_wins_for_every_reader() -> None:
    names = [f"marts/rates/{file_name(1, B)}", f"marts/rates/{file_name(1, A)}"]
    assert current(RATES, names) == current(RATES, names[::-1]) == [names[0]]


def test_what_is_there_already_is_not_written_again(any_lake: Lake) -> None:
    first = any_lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    again = any_lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    assert again.paths == first.paths
    assert (again.bytes, again.rows, again.version) == (0, 1, first.version)
    assert not any_lake.refresh()


def test_values_that_come_back_are_a_new_version(any_lake: Lake) -> None:
    for value in ("1.1", "1.2", "1.1"):
        written = any_lake.write(RATES, rows(RATES, rate("EUR", value)))
    assert version_of(written.paths[0]) == 3
    assert plain(any_lake.query("select rate::varchar from rates"))[0][0].startswith("1.1")


def age(path: Path, hours: float) -> None:
    past = time.time() - 3600 * hours
    os.utime(path, (past, past))


def test_a_superseded_version_goes_an_hour_after_its_successor_came(lake: Lake) -> None:
    folder = Path(lake.storage.root) / "marts" / "rates"

    def there() -> list[int]:
        return sorted(version_of(path.name) for path in folder.iterdir())

    for value in ("1", "2", "3"):
        lake.write(RATES, rows(RATES, rate("EUR", value)))
    assert there() == [1, 2, 3]
    age(next(folder.glob("data-000002-*")), hours=1.1)
    lake.write(RATES, rows(RATES, rate("EUR", "4")))
    assert there() == [2, 3, 4]
    assert compact(lake, RATES, grace_seconds=0).removed == 2
    assert there() == [4]


def test_a_person_who_has_the_warehouse_open_goes_on_with_what_it_showed(lake: Lake) -> None:
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    with duckdb.connect(str(lake.warehouse), read_only=True) as person:
        lake.write(RATES, rows(RATES, rate("EUR", "1.2"), rate("USD", "1")))
        assert person.execute("select count(*) from rates").fetchall() == [(1,)]
    assert lake.query("select count(*) from rates").to_pydict() == {"count_star()": [2]}


def test_several_tables_change_for_readers_at_once(lake: Lake) -> None:
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    lake.write(RATES, rows(RATES, rate("EUR", "1.2")), refresh=False)

    def shown() -> str:
        with duckdb.connect(str(lake.warehouse), read_only=True) as person:
            return str(person.execute("select rate from rates").fetchall()[0][0])

    assert shown().startswith("1.1")
    assert lake.refresh()
    assert shown().startswith("1.2")
