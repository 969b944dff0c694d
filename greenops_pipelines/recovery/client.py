"""One client of the database, with a deadline on every step: what it asked for, and what became of it.

On libpq's non-blocking interface, because a server that is stopped, or a line that is stalled, answers nothing, and no
timeout of the server or of `connect` ends the wait for a COMMIT. Not here: load, probes, verdicts.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from greenops_pipelines.recovery.ledger import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.pq.abc import PGconn, PGresult


@dataclass(frozen=True)
class Answer:
    """What a write came to: on which `timeline` it was kept; `detail` is the server's or the line's word where it was not."""

    outcome: Outcome
    timeline: str | None
    detail: str


class Unanswered(Exception):
    """No answer: refused, broken off, or not in time. `sent`: the statement may have reached the server."""

    def __init__(self, detail: str, sent: bool) -> None:
        super().__init__(detail)
        self.sent = sent


class Refused(Exception):
    """The server answered with an error, and has undone what was asked. `state`: its SQLSTATE."""

    def __init__(self, detail: str, state: str) -> None:
        super().__init__(detail)
        self.state = state


class Client:
    """A connection to `dsn`, opened with the first statement and again after it broke. For one thread."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: PGconn | None = None
        self._warnings: list[str] = []

    def write(self, sql: str, parameters: Sequence[str], seconds: float) -> Answer:
        """One statement in its own transaction that returns the timeline on which it was kept."""
        self._warnings.clear()
        try:
            rows = self.ask(sql, parameters, seconds)
        except Refused as error:
            return Answer("fail", None, str(error))
        except Unanswered as error:
            return Answer("in doubt" if error.sent else "fail", None, str(error))
        if self._warnings:
            # "The transaction has already committed locally, but might not have been replicated": an acknowledgement
            # that a synchronous standby has not seen.
            return Answer("in doubt", rows[0][0], self._warnings[0])
        return Answer("ok", rows[0][0], "")

    def ask(self, sql: str, parameters: Sequence[str] = (), seconds: float = 10.0) -> list[list[str | None]]:
        """One statement's rows, as text; raises `Unanswered` and `Refused`."""
        deadline = time.monotonic() + seconds
        connection = self._opened(deadline)
        try:
            connection.send_query_params(sql.encode(), [value.encode() for value in parameters] or None)
            while connection.flush():
                self._await(connection, deadline, writing=True)
            found = self._result(connection, deadline)
            while (more := self._result(connection, deadline)) is not None:
                found = more
        except (psycopg.Error, OSError) as error:
            self.close()
            raise Unanswered(_words(error), sent=True) from None
        except Unanswered:
            self.close()
            raise
        if found is None:
            self.close()
            raise Unanswered("the connection was closed", sent=True)
        return self._rows(found)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.finish()
            self._connection = None

    def _rows(self, result: PGresult) -> list[list[str | None]]:
        if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            return [
                [
                    None if (cell := result.get_value(row, column)) is None else cell.decode()
                    for column in range(result.nfields)
                ]
                for row in range(result.ntuples)
            ]
        detail = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode(
            "utf-8", "replace"
        )
        severity = (result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) or b"").decode()
        if severity == "ERROR":
            state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            raise Refused(detail.strip(), state)
        # A session that is ended while its COMMIT waits for a standby has committed already.
        self.close()
        raise Unanswered(detail.strip() or "the connection was closed", sent=True)

    def _opened(self, deadline: float) -> PGconn:
        if self._connection is not None:
            return self._connection
        connection = pq.PGconn.connect_start(self._dsn.encode())
        try:
            while True:
                if connection.status == pq.ConnStatus.BAD:
                    raise Unanswered(_words(connection.get_error_message()), sent=False)
                state = connection.connect_poll()
                if state == pq.PollingStatus.OK:
                    break
                if state == pq.PollingStatus.FAILED:
                    raise Unanswered(_words(connection.get_error_message()), sent=False)
                self._await(connection, deadline, writing=state == pq.PollingStatus.WRITING, sent=False)
        except BaseException:
            connection.finish()
            raise
        connection.nonblocking = 1
        connection.notice_handler = self._on_notice
        self._connection = connection
        return connection

    def _on_notice(self, notice: PGresult) -> None:
        if notice.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) == b"WARNING":
            self._warnings.append(
                (notice.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace")
            )

    def _result(self, connection: PGconn, deadline: float) -> PGresult | None:
        connection.consume_input()
        while connection.is_busy():
            self._await(connection, deadline, writing=False)
            connection.consume_input()
        return connection.get_result()

    @staticmethod
    def _await(connection: PGconn, deadline: float, writing: bool, sent: bool = True) -> None:
        left = deadline - time.monotonic()
        if left > 0:
            poll = select.poll()
            poll.register(connection.socket, select.POLLOUT if writing else select.POLLIN)
            if poll.poll(left * 1000):
                return
        raise Unanswered("no answer in time", sent)


def _words(error: object) -> str:
    return " ".join(str(error).split()) or "the connection was closed"
