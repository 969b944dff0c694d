"""A home with a little of everything that a home has, for the tests of the second copy; and programs that are killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa

from greenops_pipelines.evidence.opening import Evidence
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.schema import Column, Table
from greenops_pipelines.lake.storage import LocalFolder, Storage
from greenops_pipelines.recovery.replica import Copied, copy
from greenops_pipelines.recovery.replica_state import Source
from greenops_pipelines.recovery.vault import Vault
from greenops_pipelines.settings import Settings
from greenops_pipelines.store.objects import ObjectStore

AREAS = {"eu-central-1": "eu", "eu-west-1": "eu", "us-east-1": "us"}
TENANTS = {"alpenblick": "eu", "bluefield": "any"}
TARGET = "eu-west-1"
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)

METERS = Table(
    "bronze",
    "meters",
    "Readings.",
    (Column("day", pa.date32(), "UTC day"), Column("meter", pa.string(), "Name"), Column("kwh", pa.int64(), "Energy")),
    unique=("day", "meter"),
    partition_by=("day",),
)


def lake_of(home: Path) -> Lake:
    return Lake(LocalFolder(home / "lake"), home / "warehouse.duckdb", {}, [METERS])


def evidence_of(home: Path) -> Evidence:
    return Evidence(Settings(_env_file=None, home=home, evidence_gpg="off"))


def file_bundle(home: Path, subject: str) -> str:
    """Files a small bundle; its id."""
    receipt = evidence_of(home).archive.file("J4.2", subject, {"n": 1}, {"a.txt": b"a" * 500}, "passed")
    assert receipt.state == "filed", receipt.detail
    return receipt.id


def readings(day: int, meters: int) -> pa.Table:
    """`meters` rows of a day of November 2026."""
    rows = [{"day": date(2026, 11, day), "meter": f"m{n}", "kwh": 10 * n} for n in range(meters)]
    return pa.Table.from_pylist(rows, schema=METERS.schema)


def write(path: Path, content: bytes | str = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def database(path: Path, table: str, rows: int) -> None:
    """A SQLite file in WAL mode with a table of that many rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute(f"create table {table} (id integer primary key, body text)")
        connection.executemany(f"insert into {table} (body) values (?)", [(f"row {n}",) for n in range(rows)])


def ask(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


# What a copy has of it, besides lake and evidence store; the rest of what `made` writes is no state.
STATE = (
    "dagster/dagster.yaml",
    "dagster/history/runs.db",
    "dagster/history/runs/0a1b.db",
    "dagster/history/runs/index.db",
    "dagster/schedules/schedules.db",
    "dispatches/ledger.sqlite",
    "dispatches/work/ab/cd/attempt-1.end.json",
    "evidence/log-seen.txt",
    "evidence/queue/20261127T110000Z-0123456789abcdef.tar",
    "gitops/chart/Chart.lock",
    "gitops/k8s/rules.yaml",
    "inbox/placement/.taking/b.json",
    "inbox/placement/a.json",
    "keys/evidence.pub",
    "keys/gpg.fingerprint",
    "keys/log.vkey",
    "reports/carbon.html",
    "submissions/ab/abcd.json",
)


def made(home: Path) -> Path:
    """The home: 30 readings on three days, two bundles, five runs, private keys, and much that is no state."""
    lake = lake_of(home)
    for day in (1, 2, 3):
        lake.write(METERS, readings(day, 10), refresh=False)
    for subject in ("drill 1", "drill 2"):
        file_bundle(home, subject)
    database(home / "dagster/history/runs.db", "runs", 5)
    database(home / "dagster/history/runs/0a1b.db", "event_logs", 50)
    database(home / "dagster/history/runs/index.db", "event_logs", 50)
    database(home / "dagster/schedules/schedules.db", "jobs", 3)
    database(home / "dispatches/ledger.sqlite", "claims", 7)
    contents: Mapping[str, str] = {
        "dagster/dagster.yaml": "telemetry:\n  enabled: false\n",
        "dagster/storage/0a1b/compute_logs/x.err": "a log",
        "dagster/logs/event.log": "a log",
        "dagster/.telemetry/id.yaml": "x",
        "dispatches/ledger.lock": "",
        "dispatches/work/ab/cd/attempt-1.end.json": '{"exit_code": 0}',
        "dispatches/work/ab/cd/attempt-1.log": "a log",
        "dispatches/work/ab/cd/running.lock": "",
        "dispatches/work/ab/cd/attempt-2.end.json.new": "half",
        "evidence/queue/20261127T110000Z-0123456789abcdef.tar": "waits",
        "evidence/queue/20261127T110000Z-0123456789abcdef.lock": "",
        "evidence/published/README": "a clone of the second place",
        "gitops/k8s/rules.yaml": "groups: []\n",
        "gitops/k8s/.rules.yaml.77.tmp": "half",
        "gitops/chart/Chart.lock": "dependencies: []\n",
        "inbox/placement/a.json": "{}",
        "inbox/placement/.half.json": "{",
        "inbox/placement/.taking/b.json": "{}",
        "inbox/placement/.lock": "",
        "keys/gnupg/private-keys-v1.d/A.key": "Key: (private-key (ecc (d #5EC12E7#)))",
        "keys/gpg.fingerprint": "A" * 40,
        "reports/carbon.html": "<p>12.4 kg</p>",
        "reports/.carbon.html.77-0123abcd.tmp": "<p>",
        "submissions/ab/abcd.json": "{}",
        "submissions/.incoming/7f": "half",
        "scratch/x.duckdb": "x",
        "recovery/postgres/base": "x",
        "dbt/manifest.json": "{}",
        "sample/cost/aws.parquet": "x",
        "warehouse.duckdb": "views",
        "logs/daemon.log": "a log",
    }
    for path, content in contents.items():
        write(home / path, content)
    return home


def source_of(home: Path, lake: Storage | None = None, evidence: ObjectStore | None = None) -> Source:
    return Source(home, "eu-central-1", lake or LocalFolder(home / "lake"), evidence or evidence_of(home).store)


def copied(home: Path, vault: Vault, now: Callable[[], datetime] | None = None) -> Copied:
    """A copy to another region of the EU."""
    return copy(source_of(home), vault, TARGET, AREAS, TENANTS, *([now] if now else []))


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# Kills itself before or after the n-th call of a function of `os`. Files are written by several threads: each call takes a
# number of its own.
_DYING = """
import itertools, os, signal, sys
from pathlib import Path
from greenops_pipelines.recovery.restore import restore
from greenops_pipelines.recovery.vault import LocalVault
from tests.recovery.small_home import copied
what, home, place, name, moment, number = sys.argv[1:]
vault, call, numbers = LocalVault(Path(place)), getattr(os, name), itertools.count(1)
def dying(*args, **options):
    mine = next(numbers) == int(number)
    if mine and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answer = call(*args, **options)
    if mine:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
setattr(os, name, dying)
copied(Path(home), vault) if what == "copy" else restore(vault, Path(home))
print(next(numbers) - 1)
"""
_ROOT = Path(__file__).parents[2]


def killed(what: str, home: Path, vault: Path, call: str, moment: str, number: int) -> int | None:
    """A copy or restore in a process of its own: None where it was killed, else how many calls there were."""
    args = [sys.executable, "-c", _DYING, what, str(home), str(vault), call, moment, str(number)]
    done = subprocess.run(args, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
