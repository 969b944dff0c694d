"""Incidents of burning budgets: opened, told and closed once, whatever is killed in between. One SQLite file.

Each alert of an SLO has a position per source: the last minute that was decided on, and the incident that was open then.
It never goes back. `advance` takes only what was decided from there, so the same burns twice, or from two processes, change
nothing. An incident, its position and what is to be said of it are one transaction; the outbox takes the message after
that, by its key, and what was not handed over because of a crash is handed over by the next call.

The lake's table is a copy of them. Not here: whether it is up to date (`incident_filing.py`), what burns (`burning.py`), who
is told when (`incident_telling.py`) and in which words (`incident.py`), and what a rollback needs (`incident_evidence.py`).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from greenops_pipelines.database import Database
from greenops_pipelines.instants import instant, micros
from greenops_pipelines.lake.budget_tables import SLO_INCIDENTS
from greenops_pipelines.notify.message import from_json
from greenops_pipelines.notify.outbox import Delivery, Outbox
from greenops_pipelines.notify.posting import Target
from greenops_pipelines.slo.burning import Burn, Position, Spell
from greenops_pipelines.slo.incident import Ending, Incident, from_row, natural_key
from greenops_pipelines.slo.incident_telling import tell

_DDL = (
    """create table if not exists incidents (
        number integer primary key autoincrement, incident text not null unique, slo_id text not null, slo text not null,
        service text not null, severity text not null, declared text not null, opened_at integer not null,
        noticed_at integer not null, closed_at integer, newest integer not null, is_above integer not null,
        peak real not null, bad real not null, total real not null, known integer not null,
        telling text not null default 'pending', evidence text)""",
    "create index if not exists incidents_by_slo on incidents (slo_id, severity)",
    """create table if not exists decided (
        source text not null, slo_id text not null, severity text not null, through integer not null,
        incident text not null, primary key (source, slo_id, severity))""",
    """create table if not exists tellings (
        number integer primary key autoincrement, key text not null unique, incident text not null, told text not null,
        body text not null, is_handed_over integer not null default 0)""",
)

OVERDUE = timedelta(minutes=15)
"""What a page waits for longer than this has woken nobody in time."""
_LOOK_BACK = timedelta(days=30)
_LOST = ("refused", "unknown", "too late", "overdue")
_HAND_OVER_SECONDS = 10.0
"""Of the sensor's 60; a message takes two commits, some 10 ms each."""


@dataclass(frozen=True)
class Changes:
    """What a call changed: incidents by key, messages that were written, and why nothing is known of an alert."""

    opened: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.opened or self.closed or self.messages)


class Incidents:
    """The incidents in `root`/incidents.sqlite. `clock` is UTC; `reached` is told each step by name, for tests that stop
    there.
    """

    def __init__(
        self,
        root: Path,
        outbox: Outbox,
        targets: Sequence[Target] = (),
        reached: Callable[[str], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = Database(root / "incidents.sqlite", _DDL, name="record of incidents")
        self._outbox = outbox
        self._targets = tuple(targets)
        self._reached = reached
        self._clock = clock

    def positions(self, source: str) -> dict[tuple[str, str], Position]:
        """How far the minutes of a source were decided on, by SLO and severity: what `burning` goes on from."""
        with self._database.reading() as connection:
            rows = connection.execute("select * from decided where source = ?", [source]).fetchall()
        return {(row["slo_id"], row["severity"]): Position(instant(row["through"]), row["incident"]) for row in rows}

    def advance(
        self, burns: Iterable[Burn], now: datetime, *, source: str, declared: Collection[tuple[str, str]]
    ) -> Changes:
        """Takes every alert as `burning` decided it; opens, follows and closes incidents; puts messages into the outbox.

        `declared` is SLO and severity of all alerts there are. An open incident of none of them, or of another source than
        the one that is looked at now, is closed: what became of it is not known, and its message says that.
        """
        burns = list(burns)
        opened: list[str] = []
        closed: dict[str, Ending] = {}
        with self._database.writing() as connection:
            for burn in burns:
                if burn.through is not None and burn.since == _position(connection, burn):
                    _follow(connection, burn, burn.through, now, opened, closed)
            closed |= _given_up(connection, source, declared, now)
            told = tell(connection, closed)
            self._reached("decided, not committed")
        self._reached("decided")
        self.hand_over()
        unknown = {f"{burn.slo.id}:{burn.severity}": burn.why for burn in burns if burn.state == "unknown"}
        return Changes(tuple(opened), tuple(closed), tuple(told), unknown)

    def hand_over(self, budget_seconds: float = _HAND_OVER_SECONDS) -> None:
        """Puts into the outbox what was written and is not in there yet; what is left after the time, the next call puts."""
        until = time.monotonic() + budget_seconds
        with self._database.reading() as connection:
            rows = connection.execute("select * from tellings where not is_handed_over order by number").fetchall()
        for row in rows:
            if time.monotonic() >= until:
                return
            self._outbox.put(from_json(row["body"]), self._targets)
            self._reached("handed over")
            with self._database.writing() as connection:
                connection.execute("update tellings set is_handed_over = 1 where key = ?", [row["key"]])

    def incidents(self) -> list[Incident]:
        """All of them, by when they began."""
        with self._database.reading() as connection:
            rows = connection.execute("select * from incidents order by opened_at, number").fetchall()
        return [from_row(row) for row in rows]

    def unfiled(self) -> list[Incident]:
        """Pages for which nothing was filed yet."""
        return [each for each in self.incidents() if each.severity == "page" and each.evidence is None]

    def filed(self, incident: str, bundle: str) -> None:
        """Records the bundle with what was prepared for it; the first one stays."""
        with self._database.writing() as connection:
            connection.execute(
                "update incidents set evidence = ? where incident = ? and evidence is null", [bundle, incident]
            )

    def told(self) -> dict[str, str]:
        """Whom each incident was told, in words. `overdue` is a page that has waited for 15 minutes since it was noticed."""
        with self._database.reading() as connection:
            tellings = connection.execute(
                "select key, incident, told, severity, noticed_at from tellings join incidents using (incident) "
                "order by tellings.number"
            ).fetchall()
            states = connection.execute("select incident, telling from incidents").fetchall()
        outcomes = self._outbox.outcomes([row["key"] for row in tellings])
        said: dict[str, list[str]] = {row["incident"]: [] for row in states}
        late = micros(self._clock() - OVERDUE)
        for row in tellings:
            is_late = row["told"] == "trigger" and row["severity"] == "page" and row["noticed_at"] < late
            said[row["incident"]].append(f"{row['told']}: {_outcome(outcomes.get(row['key'], ()), is_late)}")
        silent = {row["incident"]: row["telling"] == "included" for row in states}
        quiet = {True: "not told: its page was", False: "not told yet"}
        return {incident: "; ".join(words) or quiet[silent[incident]] for incident, words in said.items()}


def table(incidents: Incidents) -> pa.Table:
    """Rows of SLO_INCIDENTS."""
    told = incidents.told()
    rows = [
        {
            "incident": each.incident,
            "slo_id": each.slo_id,
            "service": each.service,
            "source": each.source,
            "severity": each.severity,
            "state": "closed" if each.closed_at else "open",
            "opened_at": each.opened_at,
            "noticed_at": each.noticed_at,
            "closed_at": each.closed_at,
            "peak_burn": each.peak_burn,
            "budget_spent_percent": each.budget_spent_percent,
            "bad": each.bad,
            "told": told.get(each.incident, "not told yet"),
            "evidence": each.evidence,
        }
        for each in incidents.incidents()
    ]
    return pa.Table.from_pylist(rows, schema=SLO_INCIDENTS.schema)


def untold(rows: Iterable[Mapping[str, Any]], now: datetime) -> dict[str, str]:
    """Of rows of SLO_INCIDENTS, those that somebody was not told of, by key, as `told` has it.

    Open ones, and those of the last 30 days: what became of a message is never mended afterwards.
    """
    return {
        row["incident"]: row["told"]
        for row in rows
        if (row["state"] == "open" or row["closed_at"] > now - _LOOK_BACK)
        and any(word in row["told"] for word in _LOST)
    }


def _position(connection: sqlite3.Connection, burn: Burn) -> Position | None:
    row = connection.execute(
        "select through, incident from decided where source = ? and slo_id = ? and severity = ?",
        [burn.source, burn.slo.id, burn.severity],
    ).fetchone()
    return None if row is None else Position(instant(row["through"]), row["incident"])


def _follow(
    connection: sqlite3.Connection,
    burn: Burn,
    through: datetime,
    now: datetime,
    opened: list[str],
    closed: dict[str, Ending],
) -> None:
    """One alert from its position on. A spell that is known already, since its position was lost, is the same incident."""
    current = burn.since.incident if burn.since else ""
    for spell in burn.spells:
        if not spell.continues:
            known = connection.execute(
                "select incident, closed_at from incidents where slo_id = ? and severity = ? and opened_at = ? "
                "and json_extract(declared, '$.source') = ?",
                [burn.slo.id, burn.severity, micros(spell.opened_at), burn.source],
            ).fetchone()
            if known and known["closed_at"] is not None:
                continue
            if known:
                # All of it is in this spell, and not only what came to it.
                current = known["incident"]
                connection.execute("update incidents set bad = 0, total = 0, known = 0 where incident = ?", [current])
            else:
                current = natural_key(burn.slo.id, burn.severity, spell.opened_at, burn.source)
                _open(connection, burn, current, spell, now)
                opened.append(current)
        _add(connection, current, spell, burn)
        if spell.closed_at is not None:
            _close(connection, current, spell.closed_at)
            closed[current] = Ending("resolve", spell.silent_since)
            current = ""
    furthest = max(through, burn.since.through) if burn.since else through
    connection.execute(
        "insert or replace into decided values (?, ?, ?, ?, ?)",
        [burn.source, burn.slo.id, burn.severity, micros(furthest), current],
    )


def _close(connection: sqlite3.Connection, incident: str, closed_at: datetime) -> None:
    connection.execute("update incidents set closed_at = ? where incident = ?", [micros(closed_at), incident])


def _open(connection: sqlite3.Connection, burn: Burn, incident: str, spell: Spell, now: datetime) -> None:
    annotations, labels = burn.alert.annotations, {**burn.slo.labels, **burn.alert.labels}
    declared = {
        "source": burn.source,
        "team": labels.get("team", ""),
        "summary": annotations.get("summary", ""),
        "links": {name: annotations[name] for name in ("dashboard", "runbook") if name in annotations},
        "objective": burn.slo.objective,
        "period_seconds": burn.slo.period.total_seconds(),
        "thresholds": [[p.short.total_seconds(), p.long.total_seconds(), p.factor] for p in burn.pairs],
    }
    connection.execute(
        "insert into incidents (incident, slo_id, slo, service, severity, declared, opened_at, noticed_at, newest, "
        "is_above, peak, bad, total, known) values (?, ?, ?, ?, ?, ?, ?, ?, 0, 1, 0, 0, 0, 0)",
        [
            incident,
            burn.slo.id,
            burn.slo.name,
            burn.slo.service,
            burn.severity,
            json.dumps(declared, sort_keys=True),
            micros(spell.opened_at),
            micros(now),
        ],
    )


def _add(connection: sqlite3.Connection, incident: str, spell: Spell, burn: Burn) -> None:
    connection.execute(
        "update incidents set peak = max(peak, ?), bad = bad + ?, total = total + ?, known = known + ?, "
        "newest = max(newest, ?), is_above = ? where incident = ?",
        [
            spell.peak_burn,
            spell.bad,
            spell.total,
            spell.known_minutes,
            micros(burn.newest or spell.counted_to),
            burn.state == "burning",
            incident,
        ],
    )


def _given_up(
    connection: sqlite3.Connection, source: str, declared: Collection[tuple[str, str]], now: datetime
) -> dict[str, Ending]:
    """Closes what nobody looks at any more, and not before the last minute that is known of it is over."""
    closed = {}
    for each in map(from_row, connection.execute("select * from incidents where closed_at is null").fetchall()):
        if each.source != source:
            closed[each.incident] = Ending("source changed")
        elif (each.slo_id, each.severity) not in declared:
            closed[each.incident] = Ending("withdrawn")
        else:
            continue
        _close(connection, each.incident, max(now.replace(second=0, microsecond=0), each.newest + timedelta(minutes=1)))
        connection.execute("update decided set incident = '' where incident = ?", [each.incident])
    return closed


def _outcome(deliveries: Sequence[Delivery], is_late: bool) -> str:
    """Each target with what came of it. Nothing is overdue that somebody else took."""
    is_late = is_late and all(each.state != "delivered" for each in deliveries)
    words = [
        f"{each.target} {'overdue' if is_late and each.state in ('waiting', 'sending') else each.state}"
        for each in deliveries
    ]
    return ", ".join(words) or ("not in the outbox yet" + (", overdue" if is_late else ""))
