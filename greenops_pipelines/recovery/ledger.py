"""The write ledger: what clients asked the database to keep, and what they were told. One JSON line each, fsynced.

A write has one of three outcomes: `ok` (acknowledged), `fail` (surely not kept), `in doubt` (sent, and no word came back).
What is lost is found from here and from the survivors alone, never from what a server says of its own lag. A line is on
disk before the next step is taken; writers that come together share one fsync. Not here: who writes, and what follows.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from greenops_pipelines.errors import PermanentError, TransientError

Outcome = Literal["ok", "fail", "in doubt"]


@dataclass(frozen=True)
class Write:
    """One write: when it was begun and answered (seconds of the drill's monotonic clock), by which region, and how."""

    id: int
    writer: str
    sha256: str
    begun: float
    ended: float | None
    outcome: Outcome
    """In doubt also where no end was recorded: whoever wrote it was killed."""
    region: str | None
    """The region that acknowledged it."""
    detail: str


class Ledger:
    """The ledger in `path`, for one drill. Threads may write at once."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._path = path
        self._turn = threading.Condition()
        self._pending: list[bytes] = []
        self._written = 0
        self._synced = 0
        self._is_syncing = False
        self._fault: OSError | None = None

    def begin(self, number: int, writer: str, sha256: str, at: float) -> None:
        """A write is about to be sent."""
        self._add({"id": number, "writer": writer, "sha256": sha256, "begun": round(at, 6)})

    def end(self, number: int, outcome: Outcome, at: float, region: str | None = None, detail: str = "") -> None:
        """Its answer has come, or will not."""
        line: dict[str, object] = {"id": number, "ended": round(at, 6), "outcome": outcome}
        if region:
            line["region"] = region
        if detail:
            line["detail"] = detail
        self._add(line)

    def place(self, number: int, region: str) -> None:
        """Which region acknowledged a write, where that became known only after its answer."""
        self._add({"id": number, "placed": region})

    def _add(self, line: dict[str, object]) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        with self._turn:
            self._pending.append(data)
            self._written += 1
            mine = self._written
            while self._synced < mine and self._fault is None:
                if self._is_syncing:
                    self._turn.wait()
                    continue
                self._sync()
            if self._fault is not None:
                kind = TransientError if self._fault.errno == errno.ENOSPC else PermanentError
                raise kind(f"{self._path}: the write ledger cannot be kept: {self._fault.strerror}; free some room")

    def _sync(self) -> None:
        """Called with the lock, which is given up while the disk works."""
        self._is_syncing = True
        content, upto = b"".join(self._pending), self._written
        self._pending.clear()
        self._turn.release()
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._fault = error
        except BaseException:
            # Lines of others may have been in it, and nobody knows how far it came.
            self._fault = OSError(errno.EINTR, os.strerror(errno.EINTR))
            raise
        finally:
            self._turn.acquire()
            self._is_syncing = False
            if self._fault is None:
                self._synced = upto
            self._turn.notify_all()

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path) -> list[Write]:
    """Every write of a ledger, by number. A last line that was cut off by a crash is left out: it was never relied on."""
    begun: dict[int, dict[str, object]] = {}
    ended: dict[int, dict[str, object]] = {}
    for line in whole_lines(path):
        entry = json.loads(line)
        if "placed" in entry:
            ended[entry["id"]]["region"] = entry["placed"]
            continue
        (ended if "outcome" in entry else begun)[entry["id"]] = entry
    return [_write(each, ended.get(number, {})) for number, each in sorted(begun.items())]


def _write(begun: dict[str, object], ended: dict[str, object]) -> Write:
    return Write(
        id=int(str(begun["id"])),
        writer=str(begun["writer"]),
        sha256=str(begun["sha256"]),
        begun=float(str(begun["begun"])),
        ended=float(str(ended["ended"])) if ended else None,
        outcome=ended.get("outcome", "in doubt"),  # type: ignore[arg-type]
        region=str(ended["region"]) if "region" in ended else None,
        detail=str(ended.get("detail", "" if ended else "no end was recorded")),
    )


def whole_lines(path: Path) -> Iterable[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return content[: content.rfind(b"\n") + 1].splitlines()
