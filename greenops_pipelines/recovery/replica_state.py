"""What of a home is state, in which order it is read, and how a database is read that others write to meanwhile.

Parts are read one after the other while the platform works, so each is read before what refers to it: a restored
platform may know of less than it has, never of more. Not here: where it is copied to (`replica.py`).
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from greenops_pipelines.errors import PermanentError, TransientError
from greenops_pipelines.lake.storage import Storage
from greenops_pipelines.store.objects import ObjectStore

REBUILT = frozenset(
    {
        "warehouse.duckdb",  # views, built from the lake
        "scratch",
        "dbt",  # the manifest, parsed from dbt/
        "recovery",  # what drills left
        "logs",
        "sample",  # bills of the sample, written from a seed
        "cost-files",  # a cache of the bucket that GREENOPS_COST_PATH names
        "opencost",  # the last answer; what counts of it is in the lake
    }
)
"""Names in a home that are no state: made again, or of use to nobody after a loss."""

_SQLITE = b"SQLite format 3\0"
_SQLITE_ENDINGS = (".db", ".sqlite", ".sqlite3")
# Halves of a write mean nothing to anybody. A database's -wal, -shm and -journal are part of what the backup API
# reads; beside a copy of another moment they would spoil it.
_HALVES = re.compile(r"\..*\.tmp|.*\.(db|sqlite3?)-(wal|shm|journal)")
# In folders of ours; in GitOps a Chart.lock is a file like any other.
_LOCKS = re.compile(r"(.*/)?([^/]*\.lock|[^/]*\.new)")
_LAKE_DEPTHS = range(2, 9)
_BUSY_SECONDS = 30.0
_LOCKED_SECONDS = 120.0
_RACY_SECONDS = 2.0
"""A file changed so shortly before it is looked at may change again within one tick of the file system's clock."""

_PUBLIC = (".pub", ".vkey", ".fingerprint")
"""Ends of the names of public halves. With the fingerprint, a restored home misses its GnuPG key instead of making another."""
HEADS = ("log-seen.txt", "published-size.txt")
"""What HOME/evidence knows of the log: read before the log itself, of which they must not be ahead."""


@dataclass(frozen=True)
class Source:
    """What is copied. `lake` and `evidence` may lie in the home or in buckets; `region` is where they lie."""

    home: Path
    region: str
    lake: Storage
    evidence: ObjectStore


def lake_paths(lake: Storage) -> tuple[str, ...]:
    """Every file of the lake. By depth, because the pattern's `*` does not cross a slash; three partition keys are 6."""
    found = [path for depth in _LAKE_DEPTHS for path in lake.glob("/".join(["*"] * (depth - 1) + ["*.parquet"]))]
    return tuple(sorted(path for path in found if not path.rpartition("/")[2].startswith(".")))


def dagster_paths(home: Path) -> tuple[str, ...]:
    """Dagster's storage: cursors before the runs they asked for, runs before their events, events before the index.

    The other way round a cursor would be past a run that nobody has. Lake and ledger are read later still: an asset
    that Dagster takes for made is there. Compute logs (storage/*/compute_logs) and logs are no state: people read
    them, nothing else does, and they are most of the bytes.
    """

    def rank(path: str) -> tuple[int, str]:
        below = path.removeprefix("dagster/")
        if below.startswith("schedules/"):
            return 0, path
        return {"history/runs.db": 1, "history/runs/index.db": 3}.get(below, 2), path

    def is_state(path: str) -> bool:
        folders = path.split("/")[1:-1]
        is_log = "compute_logs" in folders or folders[:1] == ["logs"] or any(f.startswith(".") for f in folders)
        return not is_log and not _LOCKS.fullmatch(path)

    return tuple(sorted(filter(is_state, _below(home, "dagster")), key=rank))


def queue_paths(home: Path) -> tuple[str, ...]:
    """Bundles that wait to be filed. Of HOME/evidence only this and HEADS: the store is copied as a store, and
    `published` is a clone of the second place."""
    return tuple(path for path in _below(home, "evidence/queue") if path.endswith(".tar"))


def work_paths(home: Path) -> Iterator[str]:
    """Work that waits, was launched, or was done; each folder is looked at when the one before has been read.

    The inbox comes before the submissions that its files become: a file may be in both, never in none. The ledger comes
    before the ends of attempts (no attempt that it knows has lost its end), and before the submissions (none that it
    knows is missing). Logs of work are no state, as above. A name with a dot in the inbox is half of a file.
    """
    yield from (path for path in _below(home, "inbox") if not path.rpartition("/")[2].startswith("."))
    ledger = "dispatches/ledger.sqlite"
    if (home / ledger).is_file():
        yield ledger
    others = (path for path in _below(home, "dispatches") if path != ledger and not path.endswith(".log"))
    yield from (path for path in others if not _LOCKS.fullmatch(path))
    yield from (path for path in _below(home, "submissions") if not path.startswith("submissions/.incoming/"))


def shown_paths(home: Path) -> Iterator[str]:
    """What was rendered for others: GitOps and reports."""
    yield from _below(home, "gitops")
    yield from _below(home, "reports")


def key_paths(home: Path) -> tuple[str, ...]:
    """Public halves of keys, and nothing else of HOME/keys. Private keys are backed up apart from what they vouch for."""
    return tuple(path for path in _below(home, "keys") if path.count("/") == 1 and path.endswith(_PUBLIC))


def check_public(path: Path, content: bytes) -> None:
    """Raises `PermanentError` where a file that is named like a public key is not one."""
    is_public = path.suffix != ".pub" or content.startswith(b"-----BEGIN PUBLIC KEY-----")
    if b"PRIVATE" in content or not is_public:
        raise PermanentError(
            f"{path}: found no public key, allowed in a file of that name: the public half alone; move it elsewhere, "
            "and make a new key if it is a private one that others may have read"
        )


def strangers(home: Path, copied: AbstractSet[str]) -> tuple[str, ...]:
    """Names in the home that are neither copied nor known to be no state."""
    with suppress(FileNotFoundError), os.scandir(home) as entries:
        names = sorted(entry.name for entry in entries)
        return tuple(
            n for n in names if n not in copied and n not in REBUILT and not n.startswith((".", "warehouse.duckdb."))
        )
    return ()


def _below(home: Path, folder: str) -> tuple[str, ...]:
    """Paths of the files below a folder of the home, sorted; no link below it is followed."""
    return tuple(sorted(_walk(home / folder, folder)))


def _walk(folder: Path, above: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in listed:
        path = f"{above}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), path)
        elif entry.is_file(follow_symlinks=False) and not _HALVES.fullmatch(entry.name):
            yield path


def is_database(path: Path) -> bool:
    """Whether the file is SQLite's, by name (one just made may have all its pages in the -wal) or by its first bytes."""
    if path.name.endswith(_SQLITE_ENDINGS):
        return True
    with path.open("rb") as stream:
        return stream.read(len(_SQLITE)) == _SQLITE


def mark(path: Path) -> str:
    """Differs whenever the file, or its -wal, was written to; empty where that could not be told.

    Raises `FileNotFoundError`.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(path)
    looked_at = [found]
    with suppress(FileNotFoundError):
        # The empty one that readers leave is as good as none.
        if (wal := path.with_name(f"{path.name}-wal").stat()).st_size:
            looked_at.append(wal)
    if any(abs(time.time() - each.st_mtime) < _RACY_SECONDS for each in looked_at):
        return ""
    return " ".join(f"{each.st_ino}:{each.st_size}:{each.st_mtime_ns}" for each in looked_at)


def opened(path: Path) -> sqlite3.Connection:
    """A connection that reads a database which others may write to.

    Not `mode=ro`: such a reader leaves an empty -wal and a -shm beside each of thousands of files, for ever.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS)
    connection.execute("pragma query_only = on")
    return connection


def backup(path: Path, target: Path, clock: Callable[[], float] = time.monotonic) -> None:
    """Copies a database as of one moment into a new file, through SQLite: what is committed and in the -wal is in it.

    All pages in one step, which is one read transaction: in steps, each writer would make it begin again.
    Raises `TransientError` where a writer keeps it locked, `PermanentError` where it is no database.
    """
    limit = clock() + _LOCKED_SECONDS

    def waited(_status: int, remaining: int, _total: int) -> None:
        if remaining and clock() >= limit:
            raise TransientError(
                f"{path}: found it locked for {_LOCKED_SECONDS:.0f} s; try again when its writer is done"
            )

    try:
        with closing(opened(path)) as source, closing(sqlite3.connect(target)) as copied:
            # It is flushed as chunks; here it may go with the machine.
            copied.execute("pragma synchronous = off")
            source.backup(copied, progress=waited)
    except sqlite3.OperationalError as error:
        if not path.exists():
            raise FileNotFoundError(path) from None
        raise TransientError(f"{path}: {error}; try again when its writer is done") from error
    except sqlite3.DatabaseError as error:
        raise PermanentError(f"{path}: found {error}, allowed: a SQLite database; mend it, or move it away") from error
