"""What child processes of these tests do. A warm server forks them, so that a kill costs no import of pyarrow."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import daff  # noqa: F401 - this and the others, for the server that forks to have them
import dbt.adapters.duckdb
import dbt.cli.main
import dbt.parser.manifest
import dbt.task.build  # noqa: F401
import duckdb
import pandas as pd  # noqa: F401 - likewise
import pyarrow as pa
import pyarrow.parquet as pq
import pytest  # noqa: F401 - children import the main module of the run

from greenops_pipelines.errors import TransientError
from greenops_pipelines.lake import Lake, query
from greenops_pipelines.lake.dbt import Project
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.tables import CARBON_INTENSITY, DECLARED
from greenops_pipelines.settings import load_settings
from tests.lake.declared import (
    CHARGES,
    DAY,
    DEPLOYMENTS,
    RATES,
    SAMPLE,
    TABLES,
    at,
    billed_of,
    deployment,
    edition,
    intensity,
    plain,
    rows,
)

ROOT = Path(__file__).parents[2]

DAYS = tuple(DAY + timedelta(days=n) for n in range(3))
ROWS, CURRENCIES, BATCH, HOURS = 2000, 50, 20, 24


Ask = Callable[[str], Sequence[tuple[Any, ...]]]


def lake_in(home: Path, provider: str = "sample") -> Lake:
    pa.set_cpu_count(2)
    selection = {"carbon_intensity": SAMPLE["carbon_intensity"] | {"provider": provider}}
    return Lake(LocalFolder(home / "lake"), home / "warehouse.duckdb", selection, TABLES)


def write_edition(home: Path, number: int, count: int, ready: Connection) -> None:
    """Replace one partition, once told that everything up to the write is done."""
    lake, charges = lake_in(home), edition(number, count)
    ready.send("about to write")
    lake.write(CHARGES, charges)


def write_at_once(home: Path, number: int, count: int, start: Barrier, gone: Connection) -> None:
    """Replace one partition at the same moment as another process."""
    lake, charges = lake_in(home), edition(number, count)
    start.wait()
    lake.write(CHARGES, charges)
    gone.send("written")


def write_a_first_file(home: Path, names: list[str], mine: str, start: Barrier) -> None:
    """The first file of one of several tables: the warehouse has to be built anew."""
    lake = Lake(LocalFolder(home / "lake"), home / "warehouse.duckdb", {}, [replace(RATES, name=n) for n in names])
    start.wait()
    lake.write(replace(RATES, name=mine), RATES.schema.empty_table())


def write_beyond_a_limit(home: Path, number: int, count: int, limit: int, answer: Connection) -> None:
    """A disk with a quota: no file may grow beyond `limit` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        lake_in(home).write(CHARGES, edition(number, count))
    except TransientError as error:
        answer.send(str(error))


def publish(home: Path, ready: Connection) -> None:
    """Build, test and publish what `published` names."""
    lake, project = dbt_lake(home)
    ready.send(os.getpid())
    assert not project.build(lake, published(project)).failed


def published(project: Project) -> list[str]:
    """The marts of emissions and placement. Others are published the same way, and would double the time of a kill."""
    return [mart.table.name for mart in project.marts if mart.group in ("carbon", "placement")]


def dbt_lake(home: Path) -> tuple[Lake, Project]:
    pa.set_cpu_count(2)
    project = Project(ROOT / "dbt", home / "dbt", load_settings().dbt_cache)
    chosen = {
        "carbon_intensity": SAMPLE["carbon_intensity"] | {"provider": "file"},
        "resource_usage": {"source": "file"},
    }
    marts = [mart.table for mart in project.marts]
    return Lake(LocalFolder(home / "lake"), home / "warehouse.duckdb", chosen, DECLARED, lambda: marts), project


def first_round(lake: Lake) -> None:
    for day in DAYS:
        lake.write(CHARGES, edition(1, ROWS, day=day))
    lake.write(RATES, rates(1))
    revise(lake, 1)


def rates(number: int) -> pa.Table:
    return rows(
        RATES,
        *({"currency": f"{i:03}", "rate": Decimal(number) + i, "edition": number} for i in range(CURRENCIES)),
    )


def revise(lake: Lake, number: int) -> None:
    """One more batch of deployments, and every hour's intensity seen anew, at a value that tells when."""
    lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, *(deployment(f"s{i}", at(1), number) for i in range(BATCH))), at(2), "r")
    observed = at() + timedelta(seconds=number)
    seen = rows(CARBON_INTENSITY, *(intensity(float(number), observed, hour=h) for h in range(HOURS)))
    lake.append(CARBON_INTENSITY, seen, observed, "r")


def keep_writing(home: Path, stop: Event, answer: Connection) -> None:
    """Replace partitions and a mart, append revisions, swap the warehouse, until told to stop."""
    lake, other = lake_in(home), lake_in(home, "other")
    number = swaps = 1
    while not stop.is_set():
        number += 1
        lake.write(CHARGES, edition(number, ROWS, day=DAYS[number % 3]))
        lake.write(RATES, rates(number))
        if number % 8 == 0:
            revise(lake, number)
        if number % 4 == 0:
            # Another configured provider: the views change, so the file is built and swapped.
            swaps += other.refresh() + lake.refresh()
    answer.send((number, swaps))


def keep_asking(home: Path, seed: int, count: int, answer: Connection) -> None:
    """Ask `count` questions as `greenops sql` does; send how many were answered, or what was wrong."""
    lake, order, told = lake_in(home), random.Random(seed), Told()
    asked = 0
    try:
        while asked < count:
            order.choice(QUESTIONS)(told, lambda sql: plain(query.run(lake.warehouse, lake.storage, sql)))
            asked += 1
    except Exception as error:  # noqa: BLE001 - handed to the test, with what it was
        answer.send(f"question {asked}: {type(error).__name__}: {error}")
    else:
        answer.send((asked, 0))


def keep_asking_in_person(home: Path, seed: int, count: int, answer: Connection) -> None:
    """The same with DuckDB alone, 20 questions per connection."""
    order, told = random.Random(seed), Told()
    asked = 0
    try:
        while asked < count:
            with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as person:
                person.execute("set threads = 2")
                for _ in range(20):
                    question = order.choice(QUESTIONS)
                    question(told, lambda sql: person.sql(sql).fetchall())
                    asked += 1
    except Exception as error:  # noqa: BLE001 - handed to the test, with what it was
        answer.send(f"question {asked}: {type(error).__name__}: {error}")
    else:
        answer.send((asked, 0))


class Told:
    """What this reader has seen: nothing may go back."""

    def __init__(self) -> None:
        self.editions = dict.fromkeys(DAYS, 0)
        self.rates = 0
        self.batches = 0
        self.intensity = 0.0

    def charges(self, ask: Ask) -> None:
        found = ask(
            "select day, count(*), count(distinct service), min(edition), max(edition), sum(billed) "
            "from charges group by day order by day"
        )
        assert [row[0] for row in found] == list(DAYS), found
        for day, count, services, oldest, newest, billed in found:
            assert (count, services) == (ROWS, ROWS), found
            assert oldest == newest >= self.editions[day], found
            assert billed == billed_of(newest, ROWS), found
            self.editions[day] = newest

    def one_day(self, ask: Ask) -> None:
        found = ask(f"select edition, billed from charges where day = date '{DAYS[0]}' and usage >= 0")
        newest = found[0][0]
        assert newest >= self.editions[DAYS[0]]
        assert {e for e, _ in found} == {newest}
        assert sum(billed for _, billed in found) == billed_of(newest, ROWS)
        self.editions[DAYS[0]] = newest

    def mart(self, ask: Ask) -> None:
        ((count, oldest, newest, total),) = ask("select count(*), min(edition), max(edition), sum(rate) from rates")
        assert count == CURRENCIES
        assert oldest == newest >= self.rates
        assert total == newest * CURRENCIES + CURRENCIES * (CURRENCIES - 1) // 2
        self.rates = newest

    def log(self, ask: Ask) -> None:
        found = ask("select batch, count(*) from deployments group by batch")
        assert {count for _, count in found} == {BATCH}, found
        assert len(found) >= self.batches
        self.batches = len(found)

    def revisions(self, ask: Ask) -> None:
        value = "carbon_intensity_g_per_kwh"
        ((count, low, high),) = ask(f"select count(*), min({value}), max({value}) from carbon_intensity")
        # No rows while the other provider is configured.
        if count:
            assert count == HOURS
            assert low == high >= self.intensity
            self.intensity = high


QUESTIONS = (Told.charges, Told.one_day, Told.mart, Told.log, Told.revisions)


def footer(path: Path) -> dict[bytes, bytes]:
    return dict(pq.read_schema(path).metadata)
