"""Compaction: fewer files, the same rows, at no moment more or fewer for a reader."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.compaction import COMPACTS_KEY, Compacted, compact
from greenops_pipelines.lake.inspect import schema_faults
from greenops_pipelines.lake.tables import CARBON_INTENSITY
from tests.lake.declared import CHARGES, DAY, DEPLOYMENTS, at, charge, deployment, intensity, plain, rows
from tests.lake.jobs import footer

FOLDER = f"bronze/deployments/day={DAY}"


@pytest.fixture
def filled(any_lake: Lake) -> Lake:
    """Five files of one day, one of which repeats another's row, and one of the next day."""
    for n in range(4):
        any_lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment(f"s{n}", at(n))), at(n), "r")
    any_lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("s0", at(0))), at(9), "again")
    tomorrow = at() + timedelta(days=1)
    any_lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("s9", tomorrow)), tomorrow, "r")
    return any_lake


def shown(lake: Lake, view: str = "deployments") -> list[tuple[object, ...]]:
    return list(plain(lake.query(f"from {view} order by all")))


def test_the_files_of_a_partition_become_one_that_says_what_it_replaces(filled: Lake) -> None:
    before, originals = shown(filled), filled.files(DEPLOYMENTS, {"day": DAY})
    assert compact(filled, DEPLOYMENTS) == Compacted(partitions=1, merged=5, removed=0)
    (compacted,) = set(filled.files(DEPLOYMENTS, {"day": DAY})) - set(originals)
    assert compacted.startswith(f"{FOLDER}/compact-")
    assert shown(filled) == before, "both stand side by side, and equal rows count once"
    assert len(before) == 5

    assert compact(filled, DEPLOYMENTS) == Compacted(0, 0, 0), "within the grace nothing is removed, nor merged again"
    assert compact(filled, DEPLOYMENTS, grace_seconds=0) == Compacted(0, 0, removed=5)
    assert filled.files(DEPLOYMENTS, {"day": DAY}) == [compacted]
    assert shown(filled) == before
    assert plain(filled.read(DEPLOYMENTS, {"day": DAY}), "service") == [("s0",), ("s1",), ("s2",), ("s3",)]
    assert schema_faults(filled, DEPLOYMENTS) == (2, 5, [])


def test_the_footer_lists_what_was_replaced(lake: Lake) -> None:
    paths = [lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("a", at(n))), at(n), "r").paths[0] for n in (1, 2)]
    compact(lake, DEPLOYMENTS, at_least=2)
    (compacted,) = set(lake.files(DEPLOYMENTS)) - set(paths)
    assert json.loads(footer(Path(lake.storage.root) / compacted)[COMPACTS_KEY]) == paths


def test_a_compacted_file_is_compacted_with_those_that_come_later(filled: Lake) -> None:
    compact(filled, DEPLOYMENTS)
    for n in range(10, 13):
        filled.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment(f"s{n}", at(n))), at(n), "r")
    before = shown(filled)
    assert compact(filled, DEPLOYMENTS, grace_seconds=0) == Compacted(partitions=1, merged=4, removed=5)
    assert compact(filled, DEPLOYMENTS, grace_seconds=0) == Compacted(0, 0, removed=4)
    assert len(filled.files(DEPLOYMENTS, {"day": DAY})) == 1
    assert shown(filled) == before


def test_every_observation_of_a_revised_table_is_kept(lake: Lake) -> None:
    for n, value in enumerate((300.0, None, 310.0, 305.0)):
        lake.append(CARBON_INTENSITY, rows(CARBON_INTENSITY, intensity(value, at(n))), at(n), "r")
    views = ("carbon_intensity", "carbon_intensity_history", f"carbon_intensity_as_of('{at(2)}')")
    before = [shown(lake, view) for view in views]
    assert [len(found) for found in before] == [1, 4, 1]
    assert before[0][0][4] == 305.0
    assert before[2][0][4] == 310.0
    assert compact(lake, CARBON_INTENSITY).merged == 4
    assert [shown(lake, view) for view in views] == before
    assert compact(lake, CARBON_INTENSITY, grace_seconds=0).removed == 4
    assert len(lake.files(CARBON_INTENSITY)) == 1
    assert [shown(lake, view) for view in views] == before


def test_a_file_from_before_a_column_was_declared_is_merged_with_null(lake: Lake) -> None:
    import pyarrow.parquet as pq

    (path,) = lake.append(CARBON_INTENSITY, rows(CARBON_INTENSITY, intensity(300.0, at(1))), at(1), "r").paths
    file = Path(lake.storage.root) / path
    pq.write_table(pq.read_table(file, partitioning=None).drop_columns(["estimation_method"]), file)
    lake.append(CARBON_INTENSITY, rows(CARBON_INTENSITY, intensity(310.0, at(2))), at(2), "r")
    assert compact(lake, CARBON_INTENSITY, at_least=2, grace_seconds=0).merged == 2
    compact(lake, CARBON_INTENSITY, grace_seconds=0)
    assert plain(lake.read(CARBON_INTENSITY), "carbon_intensity_g_per_kwh", "estimation_method") == [
        (300.0, None),
        (310.0, None),
    ]


def test_a_snapshot_table_is_left_alone(lake: Lake) -> None:
    lake.write(CHARGES, rows(CHARGES, charge("a"), charge("b")))
    assert compact(lake, CHARGES, at_least=1, grace_seconds=0) == Compacted(0, 0, 0)
    assert len(lake.files(CHARGES)) == 2


def test_few_files_are_left_alone(lake: Lake) -> None:
    lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("a", at(1))), at(1), "r")
    lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("b", at(1))), at(2), "r")
    assert compact(lake, DEPLOYMENTS, at_least=3) == Compacted(0, 0, 0)


def compact_twice(lake: Lake, ready: Connection) -> None:
    ready.send("about to compact")
    compact(lake, DEPLOYMENTS, at_least=2)
    compact(lake, DEPLOYMENTS, grace_seconds=0)


def test_killed_at_any_moment_it_is_harmless_and_the_next_pass_ends_it(lake: Lake, home: Path) -> None:
    for n in range(40):
        lake.append(
            DEPLOYMENTS, rows(DEPLOYMENTS, *(deployment(f"s{n}-{i}", at(2)) for i in range(20))), at(n % 24), "r"
        )
    before, untouched = shown(lake), home.parent / "untouched"
    assert len(before) == 800
    shutil.copytree(home / "lake", untouched)
    folder = home / "lake" / FOLDER
    fork = multiprocessing.get_context("forkserver")
    fork.set_forkserver_preload(["tests.lake.jobs"])
    removing = 0
    for attempt in range(8):
        shutil.rmtree(home / "lake")
        shutil.copytree(untouched, home / "lake")
        ready, child_end = fork.Pipe(duplex=False)
        child = fork.Process(target=compact_twice, args=(lake, child_end))
        child.start()
        ready.recv()
        # Every second one while the old files go, one after the other; the others while the new one is made.
        while child.is_alive():
            names = [path.name for path in folder.iterdir()]
            if len(names) < 40 if attempt % 2 else any(name.startswith((".", "compact-")) for name in names):
                break
            child.join(0.0005)
        child.kill()
        child.join()
        child.close()
        removing += 2 <= len(list(folder.glob("*.parquet"))) < 41
        assert shown(lake) == before
        compact(lake, DEPLOYMENTS, at_least=2)
        compact(lake, DEPLOYMENTS, grace_seconds=0)
        assert shown(lake) == before
        assert [path.name.startswith("compact-") for path in folder.iterdir()] == [True]
    assert removing > 0
