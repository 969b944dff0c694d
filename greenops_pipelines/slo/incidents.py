"""Incidents of burning budgets: opened, told and closed once, whatever is killed in between. One SQLite file.

Each alert of an SLO has a position: the last minute that was decided on, and the incident that was open then. `advance`
takes only what was decided from there, so the same burns twice, or from two processes, change nothing. An incident, its
position and what is to be said of it are one transaction; the outbox takes the message after that, by its key, and what
was not handed over because of a crash is handed over by the next call.

Not here: what burns (`burning.py`), who is told when (`incident_telling.py`) and in which words (`incident.py`), and what a
rollback needs (`incident_evidence.py`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from greenops_pipelines.instants import instant, micros
from greenops_pipelines.lake.budget_tables import SLO_INCIDENTS
from greenops_pipelines.notify.database import Database
from greenops_pipelines.notify.message import from_json
from greenops_pipelines.notify.outbox import Delivery, Outbox
from greenops_pipelines.notify.posting import Target
from greenops_pipelines.slo.burning import Burn, Position, Spell
from greenops_pipelines.slo.incident import Incident, from_row, natural_key
from greenops_pipelines.slo.incident_telling import tell

_DDL = (
    """create table if not exists incidents (
        number integer primary key autoincrement, incident text not null unique, slo_id text not null, slo text not null,
        service text not null, severity text not null, declared text not null, opened_at integer not null,
        noticed_at integer not null, closed_at integer, newest integer not null, is_above integer not null,
        peak real not null, bad real not null, total real not null, known integer not null,
        telling text not null default 'pending', evidence text)""",
    "create index if not exists incidents_by_slo on incidents (slo_id, severity)",
    """create table if not exists positions (
        slo_id text not null, severity text not null, through integer not null, incident text not null,
        primary key (slo_id, severity))""",
    """create table if not exists tellings (
        number integer primary key autoincrement, key text not null unique, incident text not null, told text not null,
        body text not null, is_handed_over integer not null default 0)""",
)


@dataclass(frozen=True)
class Changes:
    """What a call changed: incidents by key, messages that were written, and why nothing is known of an alert."""

    opened: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    unknown: Mapping[str, str] | None = None

    def __bool__(self) -> bool:
        return bool(self.opened or self.closed or self.messages)


class Ledger:
    """The incidents in `root`/incidents.sqlite. `reached` is told each step by name, for tests that stop there."""

    def __init__(
        self,
        root: Path,
        outbox: Outbox,
        targets: Sequence[Target] = (),
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database = Database(root / "incidents.sqlite", _DDL)
        self._outbox = outbox
        self._targets = tuple(targets)
        self._reached = reached

    def positions(self) -> dict[tuple[str, str], Position]:
        """How far was decided, by SLO and severity: what `burning` goes on from."""
        with self._database.reading() as connection:
            rows = connection.execute("select * from positions").fetchall()
        return {(row["slo_id"], row["severity"]): Position(instant(row["through"]), row["incident"]) for row in rows}

    def advance(self, burns: Iterable[Burn], now: datetime) -> Changes:
        """Takes every alert as `burning` decided it; opens, follows and closes incidents; puts messages into the outbox.

        An open incident of an alert that is no longer among them, since nobody declares it any more, is closed.
        """
        burns = list(burns)
        opened: list[str] = []
        closed: list[str] = []
        with self._database.writing() as connection:
            for burn in burns:
                if burn.through is not None and burn.since == _position(connection, burn):
                    self._follow(connection, burn, burn.through, now, opened, closed)
            if burns:
                closed += _undeclared(connection, {(burn.slo.id, burn.severity) for burn in burns}, now)
            told = tell(connection)
            self._reached("decided, not committed")
        self._reached("decided")
        self.hand_over()
        unknown = {f"{burn.slo.id}:{burn.severity}": burn.why for burn in burns if burn.state == "unknown"}
        return Changes(tuple(opened), tuple(closed), tuple(told), unknown)

    def hand_over(self) -> None:
        """Puts into the outbox what was written and is not in there yet."""
        with self._database.reading() as connection:
            rows = connection.execute("select * from tellings where not is_handed_over order by number").fetchall()
        for row in rows:
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
        """Whom each incident was told, in words."""
        with self._database.reading() as connection:
            tellings = connection.execute("select key, incident, told from tellings order by number").fetchall()
            states = connection.execute("select incident, telling from incidents").fetchall()
        outcomes = self._outbox.outcomes([row["key"] for row in tellings])
        said: dict[str, list[str]] = {row["incident"]: [] for row in states}
        for row in tellings:
            said[row["incident"]].append(f"{row['told']}: {_outcome(outcomes.get(row['key'], ()))}")
        silent = {row["incident"]: row["telling"] == "included" for row in states}
        quiet = {True: "not told: its page was", False: "not told yet"}
        return {incident: "; ".join(words) or quiet[silent[incident]] for incident, words in said.items()}

    def _follow(
        self,
        connection: sqlite3.Connection,
        burn: Burn,
        through: datetime,
        now: datetime,
        opened: list[str],
        closed: list[str],
    ) -> None:
        current = burn.since.incident if burn.since else ""
        for spell in burn.spells:
            if not spell.continues:
                current = natural_key(burn.slo.id, burn.severity, spell.opened_at)
                _open(connection, burn, current, spell, now)
                opened.append(current)
            _add(connection, current, spell, burn)
            if spell.closed_at is not None:
                connection.execute(
                    "update incidents set closed_at = ? where incident = ?", [micros(spell.closed_at), current]
                )
                closed.append(current)
                current = ""
        connection.execute(
            "insert or replace into positions values (?, ?, ?, ?)",
            [burn.slo.id, burn.severity, micros(through), current],
        )


def table(ledger: Ledger) -> pa.Table:
    """Rows of SLO_INCIDENTS."""
    told = ledger.told()
    rows = [
        {
            "incident": each.incident,
            "slo_id": each.slo_id,
            "service": each.service,
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
        for each in ledger.incidents()
    ]
    return pa.Table.from_pylist(rows, schema=SLO_INCIDENTS.schema)


def _position(connection: sqlite3.Connection, burn: Burn) -> Position | None:
    row = connection.execute(
        "select through, incident from positions where slo_id = ? and severity = ?", [burn.slo.id, burn.severity]
    ).fetchone()
    return None if row is None else Position(instant(row["through"]), row["incident"])


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
        "update incidents set peak = max(peak, ?), bad = bad + ?, total = total + ?, known = known + ?, newest = ?, "
        "is_above = ? where incident = ?",
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


def _undeclared(connection: sqlite3.Connection, declared: set[tuple[str, str]], now: datetime) -> list[str]:
    """Closes what no alert stands behind any more."""
    rows = connection.execute("select slo_id, severity, incident from positions where incident <> ''").fetchall()
    over = [row for row in rows if (row["slo_id"], row["severity"]) not in declared]
    for row in over:
        at = micros(now.replace(second=0, microsecond=0))
        connection.execute("update incidents set closed_at = ? where incident = ?", [at, row["incident"]])
        connection.execute("update positions set incident = '' where incident = ?", [row["incident"]])
    return [row["incident"] for row in over]


def _outcome(deliveries: Sequence[Delivery]) -> str:
    return ", ".join(f"{each.target} {each.state}" for each in deliveries) or "not in the outbox yet"
