"""The outbox: what is to be said to whom, what came of each attempt. One SQLite file; messages go in once, by their key.

A send is claimed before and recorded after it, each in a transaction of its own. Between the two a process may die: when
the claim's lease is over, nobody knows whether the message arrived. Where the same message twice is one alert
(`Target.asks_again`), it is sent again. Elsewhere it is recorded as `unknown` and never sent again: nobody is alerted twice.

Webhook and mail: what one service has to say within the window goes out as one message, and at most `per_hour` messages
leave in an hour; the last of them holds everything that waits, and what comes later waits for the next place.

The clock may have been wrong: a time that lies further ahead than anything waits here counts as past.

States of a delivery: waiting, sending; delivered, unknown, refused, too late, dry run. Not here: what is said
(`message.py`), and how (`slack.py`, `pagerduty.py`, `mail.py`).
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from greenops_pipelines.database import Database
from greenops_pipelines.instants import instant, micros
from greenops_pipelines.notify.message import Message, from_json, plain, redacted
from greenops_pipelines.notify.posting import NotSent, Refused, SentPerhaps, Target
from greenops_pipelines.redaction import redact

Outcome = Literal["delivered", "not sent", "unknown", "refused"]

NOBODY = "nobody"
_LEASE = timedelta(minutes=2)
"""Longer than a send takes: 5 s to connect, 10 s for an answer, 20 s for its body; a mail some 50 s."""
_BACKOFF = timedelta(seconds=30)
_LONGEST_BACKOFF = timedelta(minutes=15)
"""Also where a target asks for more: one asked for three years, and nobody was told anything until it was too late."""
_TOO_LATE = timedelta(days=1)
"""What could not be said for so long, a target that is no longer configured for one, alerts nobody any more."""
_HOUR = timedelta(hours=1)

_DDL = (
    """create table if not exists messages (
        key text primary key, dedup_key text not null, service text not null, body text not null, put_at integer not null)""",
    """create table if not exists deliveries (
        number integer primary key autoincrement, message text not null, target text not null, service text not null,
        dedup_key text not null, state text not null, put_at integer not null, due_at integer not null,
        failures integer not null default 0, attempt integer, detail text not null default '', settled_at integer,
        unique (message, target))""",
    "create index if not exists deliveries_by_state on deliveries (target, state, due_at)",
    "create index if not exists deliveries_by_dedup on deliveries (target, dedup_key)",
    """create table if not exists attempts (
        attempt integer primary key autoincrement, target text not null, asks_again integer not null,
        began_at integer not null, lease_until integer not null, ended_at integer, outcome text,
        detail text not null default '', said text not null)""",
    "create index if not exists attempts_by_time on attempts (target, began_at)",
    "create table if not exists pauses (target text primary key, until integer not null)",
)


@dataclass(frozen=True)
class Delivery:
    """A message on its way to a target, as far as it got."""

    target: str
    state: str
    failures: int
    detail: str
    settled_at: datetime | None


@dataclass(frozen=True)
class Attempt:
    """One send: what was said in it, and what came of it; `sending` where that is not recorded yet."""

    target: str
    began_at: datetime
    ended_at: datetime | None
    outcome: str
    detail: str
    said: str


class Outbox:
    """The outbox in `root`/outbox.sqlite. `clock` is UTC; `reached` is told each step by name, for tests that stop there.

    `window` is how long a webhook's message waits for others of its service.
    """

    def __init__(
        self,
        root: Path,
        *,
        window: timedelta = timedelta(seconds=30),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database = Database(root / "outbox.sqlite", _DDL)
        self._window = window
        self._clock = clock
        self._reached = reached

    @property
    def file(self) -> Path:
        return self._database.file

    def put(self, message: Message, targets: Sequence[Target]) -> bool:
        """Takes a message for the targets; True once per key, for whoever comes first. Without targets: dry run.

        PagerDuty is for pages: it takes a warning only where nobody else would hear of it.
        """
        now = micros(self._clock())
        message = redacted(message)
        with self._database.writing() as connection:
            row = (message.key, message.dedup_key, message.service, message.as_json(), now)
            if not connection.execute("insert or ignore into messages values (?, ?, ?, ?, ?)", row).rowcount:
                return False
            for target in _receivers(message, targets):
                due_at = now + (_microseconds(self._window) if target.groups else 0)
                self._insert(connection, message, target.name, "waiting", now, due_at)
            if not targets:
                said = f"would have been said: {plain([message])}"
                self._insert(connection, message, NOBODY, "dry run", now, now, said, now)
            self._reached("put, not committed")
        self._reached("put")
        return True

    def deliver(self, targets: Sequence[Target], budget_seconds: float = 40.0) -> Counter[str]:
        """Sends what is due, and counts messages by outcome. Begins no send after `budget_seconds`.

        A target that cannot be reached is left alone until the next call; what was put for one that is not among these
        is too late after a day. Safe in any number of processes.
        """
        counts: Counter[str] = Counter()
        if self._database.file.exists():
            with self._database.writing() as connection:
                self._expire(connection, micros(self._clock()))
        until = time.monotonic() + budget_seconds
        for target in targets:
            while time.monotonic() < until:
                claimed = self._claim(target)
                if claimed is None:
                    break
                attempt, messages = claimed
                self._reached("claimed")
                outcome, detail, wait = _sent(target, messages)
                self._reached("sent")
                self._record(attempt, outcome, detail, wait)
                self._reached("recorded")
                counts[outcome] += len(messages)
                if outcome == "not sent" or (outcome == "unknown" and target.asks_again):
                    break
        return counts

    def outcomes(self, keys: Collection[str]) -> Mapping[str, Sequence[Delivery]]:
        """What came of the messages, by key; a key that was never put is not there."""
        found: dict[str, list[Delivery]] = {}
        with self._database.reading() as connection:
            for key in keys:
                rows = connection.execute("select * from deliveries where message = ? order by target", [key])
                if deliveries := [_delivery(row) for row in rows]:
                    found[key] = deliveries
        return found

    def attempts(self) -> list[Attempt]:
        """Every send there was, by time."""
        with self._database.reading() as connection:
            rows = connection.execute("select * from attempts order by attempt").fetchall()
        return [
            Attempt(
                row["target"],
                instant(row["began_at"]),
                None if row["ended_at"] is None else instant(row["ended_at"]),
                row["outcome"] or "sending",
                row["detail"],
                row["said"],
            )
            for row in rows
        ]

    def waiting(self) -> Mapping[str, int]:
        """Messages per target that are not settled."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "select target, count(*) from deliveries where state in ('waiting', 'sending') group by target"
            ).fetchall()
        return dict(map(tuple, rows))

    def _insert(
        self,
        connection: sqlite3.Connection,
        message: Message,
        target: str,
        state: str,
        now: int,
        due_at: int,
        detail: str = "",
        settled_at: int | None = None,
    ) -> None:
        connection.execute(
            "insert into deliveries (message, target, service, dedup_key, state, put_at, due_at, detail, settled_at) "
            "values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (message.key, target, message.service, message.dedup_key, state, now, due_at, detail, settled_at),
        )

    def _claim(self, target: Target) -> tuple[int, list[Message]] | None:
        """Takes what is to be sent to a target next, for the time of the lease; None where there is nothing now."""
        now = micros(self._clock())
        with self._database.writing() as connection:
            self._expire(connection, now)
            paused = connection.execute("select 1 from pauses where target = ? and until > ?", [target.name, now])
            if paused.fetchone():
                return None
            chosen = _chosen(connection, target, now)
            if not chosen:
                return None
            numbers = [row["number"] for row in chosen]
            messages = [from_json(row["body"]) for row in chosen]
            attempt = connection.execute(
                "insert into attempts (target, asks_again, began_at, lease_until, said) values (?, ?, ?, ?, ?)",
                (target.name, target.asks_again, now, now + _microseconds(_LEASE), plain(messages)),
            ).lastrowid
            connection.executemany(
                "update deliveries set state = 'sending', attempt = ? where number = ?",
                [(attempt, number) for number in numbers],
            )
            self._reached("claimed, not committed")
        if attempt is None:
            raise AssertionError("unreachable: an insert has a row")
        return attempt, messages

    def _expire(self, connection: sqlite3.Connection, now: int) -> None:
        _put_right(connection, now, now + _microseconds(max(self._window, _LONGEST_BACKOFF)))
        _expire(connection, now)

    def _record(self, attempt: int, outcome: Outcome, detail: str, wait_seconds: float | None) -> None:
        """What came of a send, also where the lease was over meanwhile: who sent it knows more than who waited."""
        now = micros(self._clock())
        with self._database.writing() as connection:
            [target, asks_again] = connection.execute(
                "select target, asks_again from attempts where attempt = ?", [attempt]
            ).fetchone()
            connection.execute(
                "update attempts set ended_at = ?, outcome = ?, detail = ? where attempt = ?",
                [now, outcome, detail, attempt],
            )
            # Where somebody else has claimed it since, `attempt` is theirs.
            mine = "where attempt = ? and state in ('sending', 'unknown', 'waiting')"
            if outcome == "not sent" or (outcome == "unknown" and asks_again):
                _put_back(connection, mine, attempt, now, detail)
            else:
                connection.execute(
                    f"update deliveries set state = ?, detail = ?, settled_at = ? {mine}",
                    [outcome, detail, now, attempt],
                )
            if wait_seconds is not None:
                until = now + min(round(wait_seconds * 1e6), _microseconds(_LONGEST_BACKOFF))
                connection.execute("insert or replace into pauses values (?, ?)", [target, until])
            self._reached("recorded, not committed")


def _sent(target: Target, messages: Sequence[Message]) -> tuple[Outcome, str, float | None]:
    """What came of it, in words, and the seconds that the target wants to be left alone."""
    try:
        return "delivered", target.send(messages), None
    except NotSent as error:
        return "not sent", redact(str(error)), error.retry_after_seconds
    except SentPerhaps as error:
        return "unknown", redact(str(error)), None
    except Refused as error:
        return "refused", redact(str(error)), None


def _receivers(message: Message, targets: Sequence[Target]) -> list[Target]:
    pages = message.severity == "critical"
    return [target for target in targets if pages or target.groups] or list(targets)


def _put_right(connection: sqlite3.Connection, now: int, furthest: int) -> None:
    """What a clock said that was ahead: nothing was put later than now, and nothing waits longer than until `furthest`."""
    connection.execute(
        "update deliveries set put_at = min(put_at, :now), due_at = :now "
        "where state = 'waiting' and (put_at > :now or due_at > :furthest)",
        {"now": now, "furthest": furthest},
    )
    connection.execute("delete from pauses where until > ?", [furthest])


def _expire(connection: sqlite3.Connection, now: int) -> None:
    """Ends the claims whose lease is over, and what has waited too long."""
    over = connection.execute(
        "select attempt, asks_again from attempts where outcome is null and (lease_until <= ? or lease_until > ?)",
        [now, now + 2 * _microseconds(_LEASE)],
    ).fetchall()
    for attempt, asks_again in over:
        detail = "nobody recorded what came of it: whoever sent it was stopped"
        connection.execute(
            "update attempts set outcome = 'unknown', ended_at = ?, detail = ? where attempt = ?",
            [now, detail, attempt],
        )
        if asks_again:
            connection.execute(
                "update deliveries set state = 'waiting', failures = failures + 1, due_at = ?, detail = ? "
                "where attempt = ? and state = 'sending'",
                [now, detail, attempt],
            )
        else:
            connection.execute(
                "update deliveries set state = 'unknown', detail = ?, settled_at = ? where attempt = ? and state = 'sending'",
                [detail, now, attempt],
            )
    connection.execute(
        "update deliveries set state = 'too late', settled_at = ?, "
        "detail = case detail when '' then 'waited for a day: no send came about' else detail end "
        "where state = 'waiting' and put_at <= ?",
        [now, now - _microseconds(_TOO_LATE)],
    )


_READY = """
select d.number, d.service, d.due_at, m.body from deliveries as d join messages as m on m.key = d.message
where d.target = :target and d.state = 'waiting' and (d.due_at <= :now or d.failures = 0)
and not exists (
    select 1 from deliveries as e
    where e.target = d.target and e.dedup_key = d.dedup_key and e.number < d.number
    and (e.state = 'sending' or (e.state = 'waiting' and e.due_at > :now and e.failures > 0))
)
order by d.number
"""
"""What may go out now: not what failed a moment ago, nor a resolve before its trigger."""


def _chosen(connection: sqlite3.Connection, target: Target, now: int) -> list[sqlite3.Row]:
    """The rows of the next send."""
    ready = connection.execute(_READY, {"target": target.name, "now": now}).fetchall()
    due = [row for row in ready if row["due_at"] <= now]
    if not due:
        return []
    if not target.groups:
        return due[:1]
    if target.per_hour is not None:
        [[used]] = connection.execute(
            "select count(*) from attempts where target = ? and began_at > ? and began_at <= ? "
            "and coalesce(outcome, 'unknown') in ('delivered', 'unknown')",
            [target.name, now - _microseconds(_HOUR), now],
        ).fetchall()
        if used >= target.per_hour:
            return []
        if used == target.per_hour - 1:
            return ready
    return [row for row in ready if row["service"] == due[0]["service"]]


def _put_back(connection: sqlite3.Connection, mine: str, attempt: int, now: int, detail: str) -> None:
    """Waits twice as long after each failure: 30 s, 60 s, up to 15 minutes."""
    connection.execute(
        f"update deliveries set state = 'waiting', failures = failures + 1, detail = ?, settled_at = null, "
        f"due_at = ? + min(? << min(failures, 10), ?) {mine}",
        [detail, now, _microseconds(_BACKOFF), _microseconds(_LONGEST_BACKOFF), attempt],
    )


def _delivery(row: sqlite3.Row) -> Delivery:
    settled_at = None if row["settled_at"] is None else instant(row["settled_at"])
    return Delivery(row["target"], row["state"], row["failures"], row["detail"], settled_at)


def _microseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)
