"""Load on the database under drill, and the probe that watches it.

Clients write at a rate through the endpoint that everybody uses, each write with a payload of its own, and note in the
ledger what they were told. The probe writes too, as the only proof that writes are possible. Not here: faults, verdicts.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from greenops_pipelines.recovery.client import Answer, Client, Refused, Unanswered
from greenops_pipelines.recovery.ledger import Ledger

PAYLOAD_BYTES = 128
PROBE = "probe"

SETUP = """
create table if not exists greenops_drill_writes (
    drill text not null, id bigint not null, writer text not null, payload text not null,
    kept_at timestamptz not null default clock_timestamp(), primary key (drill, id)
)
"""
WRITE = """
insert into greenops_drill_writes (drill, id, writer, payload) values ($1, $2::bigint, $3, $4)
returning substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
"""
TIMELINE = "select substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"
"""Which history of the write-ahead log a primary writes. Every promotion begins a new one: that tells the two regions apart
on any cluster, behind any endpoint, at the moment of the write."""
READ = """
select id, encode(sha256(convert_to(payload, 'UTF8')), 'hex') from greenops_drill_writes where drill = $1
"""
_NO_SUCH_TABLE = "42P01"
CLEAN = "delete from greenops_drill_writes where drill = $1 or kept_at < now() - interval '1 day'"
"""Its own rows, and those of drills that were killed."""


@dataclass
class Load:
    """`writers` clients that write `rate` times a second together, from `start` to `stop`."""

    dsn: str
    drill: str
    ledger: Ledger
    clock: Callable[[], float]
    rate: float
    writers: int
    timeout_seconds: float
    _places: dict[str, str] = field(default_factory=dict)
    _unplaced: list[tuple[int, str]] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _fault: BaseException | None = None
    _acknowledged: dict[str, int] = field(default_factory=dict)
    _change: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> None:
        self._threads = [
            threading.Thread(
                target=self._run, args=(f"client-{index + 1}", index), name=f"load-{index + 1}", daemon=True
            )
            for index in range(self.writers)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when no write is under way any more. Raises what broke a client: a ledger that cannot be kept."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(self.timeout_seconds + 10)
        if self._fault is not None:
            raise self._fault

    def acknowledged(self, region: str) -> int:
        """Writes that the region has acknowledged so far."""
        with self._change:
            return self._acknowledged.get(region, 0)

    def wait_for(self, region: str, more_than: int, seconds: float) -> bool:
        """Until the region has acknowledged more writes than that; False after `seconds`; raises what broke the load."""
        with self._change:
            self._change.wait_for(
                lambda: self._fault is not None or self._acknowledged.get(region, 0) > more_than, seconds
            )
            if self._fault is not None:
                raise self._fault
            return self._acknowledged.get(region, 0) > more_than

    def go_on_for(self, seconds: float) -> None:
        """Lets the load run; raises at once what broke a client."""
        with self._change:
            self._change.wait_for(lambda: self._fault is not None, seconds)
        if self._fault is not None:
            raise self._fault

    def probe(self, client: Client, seconds: float) -> Answer:
        """One write of the probe, over a connection of its own, noted as any other."""
        return self._write(client, PROBE, seconds)

    def _run(self, writer: str, index: int) -> None:
        client = Client(self.dsn)
        interval = self.writers / self.rate
        due = time.monotonic() + interval * index / self.writers
        try:
            while not self._stopping.wait(max(0.0, due - time.monotonic())):
                answer = self._write(client, writer, self.timeout_seconds)
                # What could not be written in time is not made up for: a client that was held up does not come in bursts.
                due = max(due + interval, time.monotonic() - interval)
                if answer.outcome != "ok" and self._stopping.wait(0.02):
                    return
        except Exception as error:  # noqa: BLE001 (handed to whoever stops the load)
            with self._change:
                self._fault = error
                self._change.notify_all()
        finally:
            client.close()

    def _write(self, client: Client, writer: str, seconds: float) -> Answer:
        number = next(self._numbers)
        payload = secrets.token_hex(PAYLOAD_BYTES // 2)
        self.ledger.begin(number, writer, hashlib.sha256(payload.encode()).hexdigest(), self.clock())
        answer = client.write(WRITE, [self.drill, str(number), writer, payload], seconds)
        with self._change:
            region = None if answer.timeline is None else self._places.get(answer.timeline)
            if answer.outcome == "ok" and region is None:
                self._unplaced.append((number, str(answer.timeline)))
        self.ledger.end(number, answer.outcome, self.clock(), region, answer.detail)
        if answer.outcome == "ok" and region:
            with self._change:
                self._acknowledged[region] = self._acknowledged.get(region, 0) + 1
                self._change.notify_all()
        return answer

    def belongs(self, timeline: str, region: str) -> None:
        """Whoever acknowledges on that timeline is of that region: said by the region's own server, after each promotion.

        Never guessed from the order of timelines: a primary that its own region has brought back begins a new one too. What was
        acknowledged on a timeline of which no server says that it is its own stays of no region, and counts as a fault.
        """
        with self._change:
            self._places[timeline] = region
            known = [number for number, unplaced in self._unplaced if unplaced == timeline]
            self._unplaced = [each for each in self._unplaced if each[1] != timeline]
        for number in known:
            self.ledger.place(number, region)
        with self._change:
            self._acknowledged[region] = self._acknowledged.get(region, 0) + len(known)
            self._change.notify_all()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(self.timeout_seconds + 10)


def survivors(dsn: str, drill: str, seconds: float = 120.0) -> dict[int, str]:
    """What the server at `dsn` has of a drill's writes: number to the digest of the payload, computed there."""
    client = Client(dsn)
    try:
        return {int(number or 0): digest or "" for number, digest in client.ask(READ, [drill], seconds)}
    except Refused as error:
        if error.state != _NO_SUCH_TABLE:
            raise
        # A standby that lags so far behind that it does not even know of the table.
        return {}
    finally:
        client.close()


def answers(dsn: str, seconds: float) -> bool:
    """Whether a server answers there at all."""
    client = Client(dsn)
    try:
        client.ask("select 1", (), seconds)
    except Unanswered:
        return False
    finally:
        client.close()
    return True
