"""Shows 3: many processes at once, `kill -9` at any point, a full disk. Real processes, real signals.

Whatever happens, a reader's glob sees whole files only, each the old or the new one, and the next run repairs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from greenops_pipelines.errors import TransientError
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.parquet import DIGEST_KEY, digest
from greenops_pipelines.lake.schema import Kind
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.tables import RESOURCE_USAGE
from greenops_pipelines.lake.versions import is_version
from tests.carbon.test_dbt_models import small_lake
from tests.lake import jobs
from tests.lake.declared import CHARGES, edition, plain, rows

SEED = 20260301
POLL_SECONDS = 0.0005
"""How often a running child's files are looked at; it needs the processor more than we do."""
PARTITION = "bronze/charges/account=acme/day=2026-03-01"


@pytest.fixture(scope="module")
def warm() -> ForkServerContext:
    """Where children are forked from: a server that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.lake.jobs"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(jobs.ROOT))
        multiprocessing.forkserver.ensure_running()  # type: ignore[attr-defined]
    return context


@pytest.fixture
def start(warm: ForkServerContext) -> Iterator[Callable[..., ForkServerProcess]]:
    started: list[ForkServerProcess] = []

    def child(job: Callable[..., None], *arguments: Any) -> ForkServerProcess:
        process = warm.Process(target=job, args=arguments)
        process.start()
        started.append(process)
        return process

    yield child
    for process in started:
        process.kill()
        process.join()
        process.close()


Start = Callable[..., ForkServerProcess]


def say(request: pytest.FixtureRequest, line: str) -> None:
    """A figure that is worth seeing in every run."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n    {line}", end=" ")  # noqa: T201


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.parquet"))


def newest(folder: Path) -> Path:
    """The version that counts."""
    return folder / sorted(visible(folder))[-1]


def assert_only_versions(folder: Path) -> None:
    """A reader's glob sees whole versions and nothing else."""
    for name in visible(folder):
        assert is_version(name), name
        assert_whole(folder / name)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def assert_whole(path: Path) -> str:
    """The digest in the footer, which is that of the rows."""
    stored = pq.read_schema(path).metadata[DIGEST_KEY].decode()
    assert digest(pq.read_table(path, partitioning=None)) == stored
    return stored


def test_ad_hoc_sql_never_waits_and_never_sees_half_a_write(
    warm: ForkServerContext, start: Start, home: Path, lake: Lake, request: pytest.FixtureRequest
) -> None:
    jobs.first_round(lake)
    begun = time.monotonic()
    stop = warm.Event()
    rounds, writer_end = warm.Pipe(duplex=False)
    writer = start(jobs.keep_writing, home, stop, writer_end)
    answers = []
    for reader in range(4):
        answer, reader_end = warm.Pipe(duplex=False)
        start(jobs.keep_asking if reader else jobs.keep_asking_in_person, home, SEED + reader, 260, reader_end)
        answers.append(answer)
    told = [answer.recv() for answer in answers]
    stop.set()
    written, swaps = rounds.recv()
    writer.join()
    assert writer.exitcode == 0
    assert [t[0] for t in told] == [260] * 4, told
    assert written > 5
    assert swaps > 2
    say(
        request,
        f"1,040 queries of 4 processes during {written} rounds of writes and {swaps} swaps, "
        f"260 of them by DuckDB alone: no error, no wrong answer, in {time.monotonic() - begun:.1f} s",
    )


@pytest.mark.parametrize("kills", [50, pytest.param(1000, marks=pytest.mark.soak)])
def test_kills_of_a_write_leave_the_old_or_the_new_partition(
    warm: ForkServerContext, start: Start, home: Path, lake: Lake, request: pytest.FixtureRequest, kills: int
) -> None:
    count, point = 60_000, random.Random(SEED)
    folder = home / "lake" / PARTITION
    begun = time.monotonic()
    size = lake.write(CHARGES, edition(0, count)).bytes
    undisturbed = time.monotonic()
    known = lake.write(CHARGES, edition(0, count)).digests[0]
    undisturbed = time.monotonic() - undisturbed
    mid_write = finished = 0
    for number in range(1, kills + 1):
        ready, child_end = warm.Pipe(duplex=False)
        writer = start(jobs.write_edition, home, number, count, child_end)
        assert ready.recv() == "about to write"
        if number % 2:
            time.sleep(point.uniform(0, 1.5 * undisturbed))
        else:
            wait_for_size(folder, writer, point.uniform(0, 1) * size)
        writer.kill()
        writer.join()
        mid_write += bool(leftovers(folder))

        assert_only_versions(folder)
        found = assert_whole(newest(folder))
        new = digest(edition(number, count))
        assert found in (known, new)
        finished += found == new
        assert digest(lake.read(CHARGES)) == found

        known = lake.write(CHARGES, edition(number, count)).digests[0]
        assert known == new
        assert leftovers(folder) == []
    say(
        request,
        f"{kills} kills (seed {SEED}): {mid_write} in the middle of the file, {finished} after it stood, "
        f"{kills - mid_write - finished} before, in {time.monotonic() - begun:.1f} s",
    )
    assert mid_write >= kills // 5


def wait_for_size(folder: Path, writer: ForkServerProcess, size: float) -> None:
    """Return when the file that is being written has grown to `size`, or the writer is done."""
    while writer.is_alive():
        for temporary in folder.glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if temporary.stat().st_size >= size:
                    return
        writer.join(POLL_SECONDS)


@pytest.mark.parametrize("kills", [8, pytest.param(20, marks=pytest.mark.soak)])
def test_kills_of_a_dbt_publish_leave_whole_marts(
    warm: ForkServerContext, start: Start, home: Path, request: pytest.FixtureRequest, kills: int
) -> None:
    point = random.Random(SEED)
    lake, project = jobs.dbt_lake(home)
    marts = {name: home / "lake" / "marts" / name for name in jobs.published(project)}
    for table, given in small_lake().items():
        whole = rows(table, *({name: row.get(name) for name in table.schema.names} for row in given))
        if table.kind is Kind.SNAPSHOT:
            lake.write(table, whole)
        else:
            lake.append(table, whole, whole["observed_at"][0].as_py(), "run")
    usage = lake.read(RESOURCE_USAGE)
    twice = ({**row, "vcpu_hours": 2 * row["vcpu_hours"], "requests": 2 * row["requests"]} for row in usage.to_pylist())
    doubled = rows(RESOURCE_USAGE, *twice)

    def run(kill_when: Callable[[ForkServerProcess, float], None] | None = None) -> float:
        ready, child_end = warm.Pipe(duplex=False)
        child = start(jobs.publish, home, child_end)
        ready.recv()
        began = time.monotonic()
        if kill_when:
            kill_when(child, began)
            child.kill()
        child.join()
        assert child.exitcode == (-9 if kill_when else 0) or (kill_when and child.exitcode == 0)
        return time.monotonic() - began

    begun = time.monotonic()
    expected: list[dict[str, str]] = []
    for given in (usage, doubled):
        lake.write(RESOURCE_USAGE, given)
        seconds = run()
        expected.append({name: assert_whole(newest(path)) for name, path in marts.items()})
    # Nothing was launched: there is nothing to be different.
    same = {name for name in marts if expected[0][name] == expected[1][name]}
    assert same <= {"avoided_emissions_monthly"}

    between = scratch_left = 0
    for attempt in range(kills):
        lake.write(RESOURCE_USAGE, (usage, doubled)[attempt % 2])
        before = {name: newest(path).name for name, path in marts.items()}
        if attempt % 4 == 0:
            due = point.uniform(0, seconds)

            def at_a_random_time(child: ForkServerProcess, began: float, due: float = due) -> None:
                child.join(max(0.0, began + due - time.monotonic()))

            run(at_a_random_time)
        else:
            published = point.randrange(len(marts))

            def while_publishing(
                child: ForkServerProcess,
                began: float,
                published: int = published,
                before: dict[str, str] = before,
            ) -> None:
                """After so many marts, when the next one is being written or about to be."""
                while child.is_alive():
                    new = sum(newest(path).name != before[name] for name, path in marts.items())
                    if new > published or (new == published and any(map(leftovers, marts.values()))):
                        return
                    child.join(POLL_SECONDS)

            run(while_publishing)
        new = sum(newest(path).name != before[name] for name, path in marts.items())
        between += 0 < new < len(marts)
        scratch = sorted((home / "dbt").glob("run-*"))
        scratch_left += bool(scratch)
        assert len(scratch) <= 1, "the run before was swept"
        for name, path in marts.items():
            assert_only_versions(path)
            assert assert_whole(newest(path)) in (expected[0][name], expected[1][name])

    run()
    assert {name: assert_whole(newest(path)) for name, path in marts.items()} == expected[1]
    assert list((home / "dbt").glob("run-*")) == []
    assert [leftovers(path) for path in marts.values()] == [[]] * len(marts)
    say(
        request,
        f"{kills} kills of a publish (seed {SEED}): {between} between marts, {scratch_left} left a scratch folder, "
        f"in {time.monotonic() - begun:.1f} s",
    )
    # Three of ten fall between two marts.
    assert between > 0 or kills < 20
    assert scratch_left > 0


def test_two_processes_that_write_one_partition_leave_one_of_the_two_results(
    warm: ForkServerContext, start: Start, home: Path, lake: Lake
) -> None:
    folder = home / "lake" / PARTITION
    lake.refresh()
    won = set()
    for number in range(0, 30, 2):
        together = warm.Barrier(2)
        answers = []
        for one in (number, number + 1):
            answer, child_end = warm.Pipe(duplex=False)
            start(jobs.write_at_once, home, one, 5000, together, child_end)
            answers.append(answer)
        assert [answer.recv() for answer in answers] == ["written", "written"]
        results = [digest(edition(one, 5000)) for one in (number, number + 1)]
        won.add(results.index(assert_whole(newest(folder))))
        assert_only_versions(folder)
        assert leftovers(folder) == []
    assert won <= {0, 1}


def test_processes_that_write_the_first_files_of_different_tables_at_once_all_show(
    warm: ForkServerContext, start: Start, home: Path
) -> None:
    """Each builds the warehouse from the tables it saw, and whoever swaps last has seen all."""
    names = [f"rates_{n}" for n in range(6)]
    for attempt in range(3):
        place = home / str(attempt)
        together = warm.Barrier(len(names))
        writers = [start(jobs.write_a_first_file, place, names, name, together) for name in names]
        for writer in writers:
            writer.join()
        assert [writer.exitcode for writer in writers] == [0] * len(names)
        shown = Lake(LocalFolder(place / "lake"), place / "warehouse.duckdb", {}, [])
        definitions = "select view_name from duckdb_views() where contains(sql, 'read_parquet') order by 1"
        from greenops_pipelines.lake import query

        assert plain(query.run(shown.warehouse, shown.storage, definitions)) == [(name,) for name in names]


def test_a_quota_leaves_the_partition_of_before_and_says_so(
    warm: ForkServerContext, start: Start, home: Path, lake: Lake
) -> None:
    folder = home / "lake" / PARTITION
    before = lake.write(CHARGES, edition(1, 1000)).digests[0]
    answer, child_end = warm.Pipe(duplex=False)
    start(jobs.write_beyond_a_limit, home, 2, 50_000, 100_000, child_end)
    assert re.fullmatch(rf"{folder}/data-000002-[0-9a-f]{{16}}.parquet: File too large; .* is kept", answer.recv())
    assert assert_whole(newest(folder)) == before
    assert os.listdir(folder) == [newest(folder).name]  # noqa: PTH208 - hidden ones too


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mount is not permitted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_partition_of_before_and_says_so(small_disk: Path) -> None:
    lake = jobs.lake_in(small_disk)
    folder = small_disk / "lake" / PARTITION
    before = lake.write(CHARGES, edition(1, 1000)).digests[0]
    with pytest.raises(TransientError) as full:
        lake.write(CHARGES, edition(2, 200_000))
    assert re.fullmatch(rf"{folder}/data-000002-[0-9a-f]{{16}}.parquet: No space left .* is kept", str(full.value))
    assert assert_whole(newest(folder)) == before
    assert os.listdir(folder) == [newest(folder).name]  # noqa: PTH208 - hidden ones too
    assert plain(lake.query("select count(*), min(edition) from charges")) == [(1000, 1)]
    after = lake.write(CHARGES, edition(3, 1000)).digests[0]
    assert assert_whole(newest(folder)) == after


def fill(path: Path) -> None:
    """Grow a file until nothing more fits on its disk."""
    with path.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def test_a_full_disk_leaves_the_warehouse_of_before(small_disk: Path) -> None:
    lake = jobs.lake_in(small_disk)
    lake.write(CHARGES, edition(1, 1000))
    views = lake.warehouse.read_bytes()
    fill(small_disk / "ballast")
    with pytest.raises(Exception, match="No space left"):
        jobs.lake_in(small_disk, "other").refresh()
    assert lake.warehouse.read_bytes() == views
    assert leftovers(small_disk) == []
