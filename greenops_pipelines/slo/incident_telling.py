"""Which incidents are told, and when: each begins once and ends once, and a page includes its ticket.

While a page of an SLO is open, and for as long as its errors stay in the ticket's shorter window, its ticket is recorded and
not told; a ticket that burns on after that is. What was over before anybody looked is told as that. An incident of another
source is no page of this ticket. Not here: the words.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

from greenops_pipelines.slo.incident import Ending, Told, from_row, message

_Decision = Told | Literal["included"]


def tell(connection: sqlite3.Connection, endings: Mapping[str, Ending]) -> list[str]:
    """Writes what is to be said of each incident that was not told, or whose end was not; the keys.

    `endings` says by key why the incidents that this transaction closes are closed.
    """
    found = []
    rows = connection.execute(
        "select * from incidents where telling = 'pending' or (telling = 'triggered' and closed_at is not null) "
        "order by severity, number"
    ).fetchall()
    for row in rows:
        ending = endings.get(row["incident"], Ending())
        decided: _Decision | None = ending.told
        if row["telling"] == "pending":
            decided = _decided(connection, row, ending)
        if decided is None:
            continue
        if decided == "included":
            connection.execute("update incidents set telling = 'included' where number = ?", [row["number"]])
            continue
        told: Told = decided
        said = message(from_row(row), told, row["slo"], ending.silent_since)
        connection.execute(
            "insert into tellings (key, incident, told, body) values (?, ?, ?, ?)",
            [said.key, row["incident"], told, said.as_json()],
        )
        state = "triggered" if told == "trigger" else "told"
        connection.execute("update incidents set telling = ? where number = ?", [state, row["number"]])
        found.append(said.key)
    return found


def _decided(connection: sqlite3.Connection, row: sqlite3.Row, ending: Ending) -> _Decision | None:
    """What to say of an incident that was not told: nothing yet (None), or never (`included` in its page)."""
    end = row["closed_at"]
    if row["severity"] == "page":
        return "trigger" if end is None else "over"
    pages = connection.execute(
        "select closed_at from incidents where slo_id = ? and severity = 'page' and opened_at <= ? "
        "and coalesce(closed_at, ?) >= ? and json_extract(declared, '$.source') = ?",
        [row["slo_id"], end or row["newest"], row["newest"], row["opened_at"], from_row(row).source],
    ).fetchall()
    if end is not None and ending.told != "resolve":
        # Nobody was told that it began, and nobody knows that it is over.
        return "included"
    if end is not None:
        return "included" if pages else "over"
    if any(page["closed_at"] is None for page in pages):
        return None
    # The errors that the page was about are in the ticket's shorter window for so long.
    after = _shorts(row)
    if any(row["newest"] < page["closed_at"] + after for page in pages) or (pages and not row["is_above"]):
        return None
    return "trigger"


def _shorts(row: sqlite3.Row) -> int:
    thresholds = from_row(row).thresholds
    return max((each.short for each in thresholds), default=timedelta()) // timedelta(microseconds=1)
