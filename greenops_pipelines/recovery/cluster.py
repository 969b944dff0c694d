"""The system under drill: a primary and a streaming standby in another region, and what a drill can do to them.

`EmbeddedCluster` is two real PostgreSQL servers on loopback with a distance between them. Not here: an operator's own
clusters (`operated.py`), and when which step is taken (`drill.py`).
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from greenops_pipelines.errors import PermanentError, TransientError
from greenops_pipelines.process import postgres
from greenops_pipelines.process.ports import accepts_connections
from greenops_pipelines.process.postgres import Server
from greenops_pipelines.recovery.client import Client, Refused, Unanswered
from greenops_pipelines.recovery.link import Link, Links

Fault = Literal["kill", "hang", "partition", "stall"]

Noted = Callable[[str, float, str], None]
"""Called with a command that ran, the seconds it took, and where."""

_USER = "greenops"
_CATCH_UP_SECONDS = 60.0
_POLL_SECONDS = 0.05
_NEEDED_BYTES = 1024**3
_DATA_PAGE = 8192
_SYNC = ("sync", "quorum")


class Cluster(Protocol):
    """What a drill needs of a database in two regions. Every method may raise `PermanentError` or `TransientError`."""

    primary: str
    standby: str
    endpoint: str
    """DSN of the endpoint that clients use, wherever it leads."""

    def dsn(self, region: str) -> str:
        """DSN of one region's server, past the endpoint."""
        ...

    fails_back_at_once: bool
    """Whether `rewind` does all of the failback, so that there is nothing to catch up with and to switch."""

    def replicates(self, sync: bool) -> None:
        """Raises unless the standby streams from the primary; synchronously, where that is what is drilled."""
        ...

    def fault(self, kind: Fault) -> None: ...

    def fence(self, planned: bool) -> None:
        """After this the primary acknowledges nothing to any client. `planned`: it hands over all it has before."""
        ...

    def promote(self) -> None:
        """The standby becomes a primary."""
        ...

    def route(self, region: str) -> None:
        """The endpoint leads to that region."""
        ...

    def rewind(self) -> None:
        """The old primary becomes a standby of the new one: what only it has is taken back."""
        ...

    def caught_up(self, seconds: float) -> None:
        """Waits until the old primary has all that the new one has."""
        ...

    def switch_back(self) -> None:
        """Both are what they were before, but for the endpoint and the replication."""
        ...

    def rejoin(self, seconds: float) -> None:
        """The standby streams from the primary again."""
        ...


class EmbeddedCluster:
    """Two PostgreSQL servers below `folder`, a link of `wan_seconds` round trip between them, and an endpoint.

    Use it as a context; leaving it ends every process and closes every port.
    """

    def __init__(
        self, folder: Path, primary: str, standby: str, sync: bool, wan_seconds: float, noted: Noted | None = None
    ) -> None:
        self.primary = primary
        self.standby = standby
        self.endpoint = ""
        self.fails_back_at_once = False
        self._is_cut_off = False
        self.sync = sync
        self.folder = folder
        self._noted = noted or (lambda _command, _seconds, _where: None)
        self._wan_seconds = wan_seconds
        self._stack = ExitStack()
        self._servers: dict[str, Server] = {}
        self._wan: dict[str, Link] = {}
        self._front: Link | None = None

    def __enter__(self) -> Self:
        try:
            self._set_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _set_up(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < _NEEDED_BYTES:
            raise TransientError(
                f"{self.folder}: found {free // 1024**2:,} MB free, allowed: {_NEEDED_BYTES // 1024**2:,} MB "
                "for the two servers of a drill; free some room"
            )
        using, password = postgres.programs(), secrets.token_urlsafe(24)
        links = self._stack.enter_context(Links())
        for region in (self.primary, self.standby):
            server = Server(region, self.folder / region, using, _USER, password, self._noting(region))
            self._stack.callback(server.close)
            self._servers[region] = server
            # By the region that sends: the other one receives over it.
            self._wan[region] = links.add(f"from {region}", delay_seconds=self._wan_seconds / 2)
        self._front = links.add("endpoint")
        first, second = self._servers[self.primary], self._servers[self.standby]
        first.create()
        self._configure(self.primary, sync=False)
        first.start()
        self._wan[self.primary].route(first.port)
        second.clone(self._source_of(self.standby))
        self._configure(self.standby, sync=False)
        second.start(as_standby=True)
        self._wan[self.standby].route(second.port)
        self._await_stream(self.primary, self.standby, _CATCH_UP_SECONDS)
        if self.sync:
            self._configure(self.primary, sync=True)
            first.reload()
        self._front.route(first.port)
        self.endpoint = first.dsn(self._front.port, application_name="drill")

    @property
    def front(self) -> Link:
        assert self._front is not None  # noqa: S101 (set up before anything else can be called)
        return self._front

    def dsn(self, region: str) -> str:
        return self._servers[region].dsn(application_name="drill")

    def replicates(self, sync: bool) -> None:
        states = self._ask(
            self.primary,
            "select application_name, state, sync_state from pg_stat_replication where state = 'streaming'",
        )
        kinds = [kind for name, _, kind in states if name == self.standby]
        if sync and kinds and kinds[0] not in _SYNC:
            raise PermanentError(
                f"{self.standby}: found {kinds[0]} replication, allowed: a synchronous standby, as drilled"
            )
        if not kinds:
            raise PermanentError(
                f"{self.standby}: found no replication from {self.primary}, allowed: a standby that streams; "
                f"its log ends: {' '.join(self._servers[self.standby].log_tail.split()[-40:])}"
            )
        [[recovers]] = self._ask(self.standby, "select pg_is_in_recovery()")
        if recovers != "t":
            raise PermanentError(f"{self.standby}: found a primary, allowed: a standby; two primaries are one too many")

    def fault(self, kind: Fault) -> None:
        server, begun = self._servers[self.primary], time.monotonic()
        said = {
            "kill": _signalled("KILL", server),
            "hang": _signalled("STOP", server),
            "partition": f"# the lines of {self.primary} to its clients and to {self.standby} carry nothing",
            "stall": f"# the line from {self.primary} to {self.standby} carries nothing",
        }[kind]
        match kind:
            case "kill":
                server.kill()
            case "hang":
                server.freeze()
            case "partition":
                self._is_cut_off = True
                self.front.stall()
                self._wan[self.primary].stall()
            case "stall":
                self._wan[self.primary].stall()
        self._noted(said, time.monotonic() - begun, self.primary)

    def fence(self, planned: bool) -> None:
        begun = time.monotonic()
        self.front.cut()
        self._noted("# the endpoint refuses connections", time.monotonic() - begun, "endpoint")
        server, begun = self._servers[self.primary], time.monotonic()
        if planned:
            server.stop()
        elif self._is_cut_off:
            # Nobody reaches it, this side neither: it lives on, and the endpoint is what keeps clients from it.
            return
        else:
            # As its machine would be switched off: it need not answer for that.
            said = _signalled("KILL", server)
            server.kill()
            self._noted(said, time.monotonic() - begun, self.primary)
        if accepts_connections(server.port):
            raise PermanentError(
                f"{self.primary}: found a server that still answers after it was fenced; do not promote"
            )
        if planned:
            self._handed_over(self.primary, self.standby)

    def promote(self) -> None:
        self._promote(self.standby)

    def route(self, region: str) -> None:
        begun = time.monotonic()
        self.front.route(self._servers[region].port)
        self._noted(f"# the endpoint leads to {region}", time.monotonic() - begun, "endpoint")

    def rewind(self) -> None:
        # The line is that of the other direction now, and whole again.
        old = self._servers[self.primary]
        if old.running:
            said, begun = _signalled("KILL", old), time.monotonic()
            old.kill()
            self._noted(said, time.monotonic() - begun, self.primary)
            self._is_cut_off = False
        old.rewind(self._source_of(self.primary))
        self._configure(self.primary, sync=False)
        old.start(as_standby=True)
        self._wan[self.primary].route(old.port)

    def caught_up(self, seconds: float) -> None:
        self._await_stream(self.standby, self.primary, seconds)

    def switch_back(self) -> None:
        self.front.cut()
        self._servers[self.standby].stop()
        self._handed_over(self.standby, self.primary)
        self._promote(self.primary)

    def rejoin(self, seconds: float) -> None:
        again = self._servers[self.standby]
        self._configure(self.standby, sync=False)
        again.start(as_standby=True)
        self._wan[self.standby].route(again.port)
        self._await_stream(self.primary, self.standby, seconds)
        if self.sync:
            self._configure(self.primary, sync=True)
            self._servers[self.primary].reload()

    def corrupt(self, table: str) -> None:
        """Turns bytes over in the middle of every page of the standby's copy of a table, as a failing disk would."""
        server = self._servers[self.standby]
        [[path]] = self._ask(self.standby, "select pg_relation_filepath($1)", table)
        # Or replay would begin before the writes and put whole pages over the damage.
        self._ask(self.primary, "checkpoint")
        self._await_stream(self.primary, self.standby, _CATCH_UP_SECONDS)
        self._ask(self.standby, "checkpoint")
        # Its cache would hide it: what matters is what a restart would find.
        server.stop()
        self._wan[self.standby].cut()
        file, begun = server.data / str(path), time.monotonic()
        content = bytearray(file.read_bytes())
        for middle in range(_DATA_PAGE // 2, len(content), _DATA_PAGE):
            content[middle] ^= 0xFF
        file.write_bytes(content)
        self._noted(f"# bytes of {file.name} turned over", time.monotonic() - begun, self.standby)
        server.start(as_standby=True)
        self._wan[self.standby].route(server.port)
        self._await_stream(self.primary, self.standby, _CATCH_UP_SECONDS)

    def ports(self) -> list[int]:
        """Every port that is in use by this cluster."""
        lines = [*self._wan.values(), self.front]
        return [*(line.port for line in lines), *(server.port for server in self._servers.values() if server.port)]

    def close(self) -> None:
        self._stack.close()

    def _promote(self, region: str) -> None:
        statement = "select pg_promote(wait => true, wait_seconds => 60)"
        begun = time.monotonic()
        try:
            [[done]] = self._ask(region, statement, seconds=65)
        except (Refused, Unanswered) as error:
            raise PermanentError(f"{region}: promotion failed: {error}; is it a standby that runs?") from None
        said = postgres.shell(["psql", self._servers[region].dsn(), "--command", statement])
        self._noted(said, time.monotonic() - begun, region)
        if done != "t":
            raise PermanentError(f"{region}: promotion failed: not done after 60 s; its log says why")

    def _handed_over(self, sender: str, receiver: str) -> None:
        """A sender that was stopped in the clean way has sent its last record; this makes sure that it arrived."""
        server = self._servers[sender]
        last = server.shutdown_location()
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        received: str | None = None
        while time.monotonic() < deadline:
            [[received]] = self._ask(receiver, "select pg_last_wal_receive_lsn()")
            if received is not None and _location(received) > _location(last):
                return
            time.sleep(_POLL_SECONDS)
        raise TransientError(
            f"{receiver}: never caught up: found {received} after {_CATCH_UP_SECONDS:g} s, "
            f"and {sender} had stopped at {last}; look at the line between them"
        )

    def _await_stream(self, sender: str, receiver: str, seconds: float) -> None:
        [[target]] = self._ask(sender, "select pg_current_wal_lsn()")
        deadline = time.monotonic() + seconds
        found = "no replication"
        while time.monotonic() < deadline:
            rows = self._ask(
                sender,
                "select state, replay_lsn from pg_stat_replication where application_name = $1 order by state = 'streaming' desc",
                receiver,
            )
            if rows:
                found = f"{rows[0][0]} at {rows[0][1]}"
                if rows[0][0] == "streaming" and rows[0][1] and _location(rows[0][1]) >= _location(str(target)):
                    return
            time.sleep(_POLL_SECONDS)
        raise TransientError(
            f"{receiver}: never caught up with {sender}: found {found} after {seconds:g} s, allowed: streaming at "
            f"{target}; its log ends: {' '.join(self._servers[receiver].log_tail.split()[-40:])}"
        )

    def _ask(self, region: str, sql: str, *parameters: str, seconds: float = 10.0) -> list[list[str | None]]:
        client = Client(self.dsn(region))
        try:
            return client.ask(sql, parameters, seconds)
        except (Refused, Unanswered) as error:
            if sql.startswith("select pg_promote"):
                raise
            raise TransientError(f"{region}: {error}") from None
        finally:
            client.close()

    def _source_of(self, receiver: str) -> str:
        """Where the receiver finds the other one: over the line between them."""
        sender = self.primary if receiver == self.standby else self.standby
        return self._servers[sender].dsn(self._wan[sender].port, application_name=receiver)

    def _configure(self, region: str, sync: bool) -> None:
        other = self.standby if region == self.primary else self.primary
        self._servers[region].configure(
            {
                "cluster_name": region,
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "",
                "max_connections": 60,
                "shared_buffers": "32MB",
                # Nothing starts a process for every backend's reads here.
                "io_method": "sync",
                "wal_level": "replica",
                "wal_keep_size": "256MB",
                "hot_standby": "on",
                "primary_conninfo": self._source_of(region),
                "wal_retrieve_retry_interval": "200ms",
                "wal_receiver_status_interval": "1s",
                "synchronous_standby_names": f'FIRST 1 ("{other}")' if sync else "",
                "log_line_prefix": "%m [%p] ",
            }
        )

    def _noting(self, region: str) -> postgres.Ran:
        return lambda words, seconds: self._noted(postgres.shell(words), seconds, region)


def _signalled(name: str, server: Server) -> str:
    pids = server.pids()
    return f"kill -{name} {' '.join(map(str, pids))}" if pids else f"# no process of {server.name} is left to be ended"


def _location(text: str) -> int:
    """A position in the write-ahead log, `0/3000148`, as a number."""
    if not re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", text):
        raise PermanentError(f"found {text!r}, allowed: a position in the write-ahead log such as 0/3000148")
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)
