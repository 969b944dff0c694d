"""The views: typed, documented, up to date, portable, and built without anyone waiting."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from greenops_pipelines.lake import Lake, Table, catalog, query
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.tables import CARBON_INTENSITY, DECLARED
from greenops_pipelines.lake.types import to_arrow, to_duckdb
from tests.lake.declared import (
    CHARGES,
    DAY,
    DEPLOYMENTS,
    RATES,
    SAMPLE,
    TABLES,
    at,
    charge,
    deployment,
    edition,
    intensity,
    plain,
    rate,
    rows,
)


def ask(lake: Lake, sql: str) -> list[tuple[object, ...]]:
    """As `greenops sql` does."""
    return list(plain(query.run(lake.warehouse, lake.storage, sql)))


def test_every_declared_table_is_a_typed_empty_view_before_it_has_a_file(home: Path) -> None:
    lake = Lake(LocalFolder(home / "lake"), home / "warehouse.duckdb", SAMPLE, [*DECLARED, *TABLES[:3]])
    assert lake.refresh()
    for table in lake.tables:
        described = [(n, to_arrow(t)) for n, t, *_ in ask(lake, f"describe {table.name}")]
        assert described == [(c.name, c.type) for c in table.columns]
        assert ask(lake, f"select count(*) from {table.name}") == [(0,)]
    assert ask(lake, "select * from carbon_intensity_as_of('2026-01-01')") == []


def test_types_do_not_change_when_files_come(lake: Lake) -> None:
    lake.refresh()
    before = ask(lake, "describe charges")
    lake.write(CHARGES, rows(CHARGES, charge()))
    assert ask(lake, "describe charges") == before
    assert query.run(lake.warehouse, lake.storage, "from charges").schema.types == CHARGES.schema.types


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_types_map_both_ways(table: Table) -> None:
    assert [to_arrow(to_duckdb(c.type)) for c in table.columns] == [c.type for c in table.columns]


def test_the_comments_of_tables_and_columns_are_there_for_a_person_to_see(lake: Lake) -> None:
    lake.refresh()
    with duckdb.connect(str(lake.warehouse), read_only=True) as person:
        said = "select comment from duckdb_views() where view_name = ?"
        assert person.execute(said, ["charges"]).fetchall() == [(CHARGES.comment,)]
        said = "select column_name, comment from duckdb_columns() where table_name = ? order by column_index"
        assert person.execute(said, ["charges"]).fetchall() == [(c.name, c.comment) for c in CHARGES.columns]
        assert (
            person.execute(said, ["carbon_intensity_history"]).fetchall()[4][1] == CARBON_INTENSITY.columns[4].comment
        )


def test_a_file_from_before_a_column_was_declared_shows_null_there(lake: Lake) -> None:
    older = replace(CHARGES, columns=tuple(c for c in CHARGES.columns if c.name not in ("note", "is_spot")))
    Lake(lake.storage, lake.warehouse, {}, [older]).write(
        older, rows(CHARGES, charge("old")).drop_columns(["note", "is_spot"])
    )
    assert lake.read(CHARGES).to_pylist() == [charge("old", note=None, is_spot=None)]
    assert lake.refresh(), "the declaration changed"
    lake.write(CHARGES, rows(CHARGES, charge("new")))
    assert ask(lake, "select account, note, is_spot from charges order by account desc") == [
        ("old", None, None),
        ("new", "n", False),
    ]


def test_nothing_is_built_where_nothing_changed(lake: Lake) -> None:
    assert lake.refresh()
    inode = lake.warehouse.stat().st_ino
    assert not lake.refresh()
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    assert lake.warehouse.stat().st_ino != inode, "the first file of a table changes its view"
    inode = lake.warehouse.stat().st_ino
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    assert not lake.refresh()
    assert lake.warehouse.stat().st_ino == inode, "nothing new was written"
    lake.write(RATES, rows(RATES, rate("EUR", "1.2")))
    assert lake.warehouse.stat().st_ino != inode
    assert not lake.refresh()
    assert ask(lake, "select rate from rates")[0][0] == rate("EUR", "1.2")["rate"]


def test_views_of_other_tables_are_carried_over(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    build = catalog.build
    monkeypatch.setattr(catalog, "build", lambda *given: made.append(build(*given)))
    lake.refresh()
    assert made == [len(TABLES)]
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    assert made[1:] == [1]
    fewer = Lake(lake.storage, lake.warehouse, SAMPLE, [table for table in TABLES if table is not RATES])
    assert fewer.refresh()
    assert made[2:] == [len(TABLES) - 1], "of a table that is declared no more nothing is left"
    with pytest.raises(query.QueryFailed, match="rates"):
        ask(fewer, "from rates")
    assert lake.refresh()
    assert ask(lake, "select currency from rates") == [("EUR",)]


def test_carried_over_or_made_anew_it_is_the_same_warehouse(lake: Lake) -> None:
    def shown() -> list[tuple[object, ...]]:
        views = "select view_name, sql, comment from duckdb_views() where not internal order by 1"
        columns = "select table_name, column_name, comment from duckdb_columns() where not internal order by 1, 2"
        return [*ask(lake, views), *ask(lake, columns)]

    lake.refresh()
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    lake.write(CHARGES, rows(CHARGES, charge()))
    lake.write(RATES, rows(RATES, rate("EUR", "1.2")))
    carried = shown()
    lake.warehouse.unlink()
    lake.refresh()
    assert carried == shown()


def test_a_warehouse_that_cannot_be_read_is_built_anew(lake: Lake) -> None:
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    for damage in (b"", b"not a database", lake.warehouse.read_bytes()[:5000]):
        lake.warehouse.write_bytes(damage)
        assert lake.refresh()
        assert ask(lake, "select currency from rates") == [("EUR",)]


def test_a_restored_home_reads_its_own_files(lake: Lake, home: Path, tmp_path: Path) -> None:
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    restored = tmp_path / "restored"
    shutil.copytree(home, restored)
    lake.write(RATES, rows(RATES, rate("GBP", "1.3")))
    moved = Lake(LocalFolder(restored / "lake"), restored / "warehouse.duckdb", SAMPLE, TABLES)
    assert moved.refresh(), "paths are absolute"
    assert ask(moved, "select currency from rates") == [("EUR",)]
    assert ask(moved, "select lake from greenops_catalog") == [((restored / "lake").as_posix(),)]


def test_what_a_killed_build_left_behind_is_swept_by_the_next(lake: Lake, home: Path) -> None:
    lake.refresh()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for suffix in (".tmp", ".tmp.wal"):
        (home / f".warehouse.duckdb.{gone.pid}-0123abcd{suffix}").touch()
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    assert sorted(path.name for path in home.iterdir()) == ["lake", "warehouse.duckdb"]


def test_a_build_that_fails_leaves_the_warehouse_of_before(lake: Lake, home: Path) -> None:
    lake.refresh()
    before = lake.warehouse.read_bytes()
    with pytest.raises(duckdb.Error):
        catalog.build(lake.warehouse, lake.storage, {"broken": ["create view broken as select * from nowhere"]})
    assert lake.warehouse.read_bytes() == before
    assert [path.name for path in home.iterdir()] == ["warehouse.duckdb"]


def test_threads_of_one_process_ask_while_it_swaps_the_warehouse(lake: Lake) -> None:
    """DuckDB gives threads that open one file one instance: neither its lock-down nor its old views may leak."""
    lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    held = duckdb.connect(str(lake.warehouse), read_only=True)
    failures: list[BaseException] = []

    def loop() -> None:
        try:
            for _ in range(15):
                assert ask(lake, "select currency from rates") == [("EUR",)]
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    other = Lake(lake.storage, lake.warehouse, {}, TABLES)
    for _ in range(3):
        assert other.refresh()
        assert lake.refresh(), "although this process still has the first file open"
    for thread in threads:
        thread.join()
    held.close()
    assert failures == []


def files_read(lake: Lake, sql: str) -> int:
    (_, plan), *_ = ask(lake, f"explain analyze {sql}")
    found = re.findall(r"Total Files Read:\s*(\d+)", str(plan))
    assert found, plan
    return sum(map(int, found))


def test_a_filter_on_the_partition_opens_only_its_files(lake: Lake) -> None:
    for n in range(5):
        day = DAY + timedelta(days=n)
        lake.write(CHARGES, edition(1, 10, day=day))
        lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("a", at(1, day=day))), at(3), "r")
        seen = intensity(300.0 + n, at(3)) | {"datetime": at(day=day), "day": day}
        lake.append(CARBON_INTENSITY, rows(CARBON_INTENSITY, seen), at(3), "r")
    for view in ("charges", "deployments", "carbon_intensity", "carbon_intensity_history"):
        assert files_read(lake, f"select * from {view}") == 5
        assert files_read(lake, f"select * from {view} where day = date '2026-03-03'") == 1
        assert files_read(lake, f"select * from {view} where day >= date '2026-03-04'") == 2
    assert files_read(lake, "select * from carbon_intensity_as_of('2026-03-09') where day = date '2026-03-03'") == 1
    assert files_read(lake, "select * from charges where account = 'nobody'") == 0


def test_the_warehouse_holds_no_rows(lake: Lake) -> None:
    lake.write(CHARGES, edition(1, 1000))
    with duckdb.connect(str(lake.warehouse), read_only=True) as person:
        assert person.sql("select count(*) from duckdb_tables()").fetchall() == [(0,)]
        assert person.sql("select count(*) from charges").fetchall() == [(1000,)]
    assert pq.read_metadata(Path(lake.storage.root) / lake.files(CHARGES)[0]).num_rows == 1000
