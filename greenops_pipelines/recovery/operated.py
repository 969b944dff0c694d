"""An operator's own clusters under drill: reached by their DSNs, moved by their commands (`clusters` in ops/gamedays.yaml).

Commands are programs with arguments, never a shell line; `{primary}`, `{standby}`, `{region}` and `{drill}` in an argument are
replaced. `dry-run`, which is the default, makes the health checks that only read, and says what would run. Not here: what a
drill does with a cluster.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import ConfigurationError, PermanentError, TransientError
from greenops_pipelines.process.child import base_environment
from greenops_pipelines.process.postgres import shell
from greenops_pipelines.recovery.client import Client, Refused, Unanswered
from greenops_pipelines.recovery.cluster import Cluster, Fault, Noted
from greenops_pipelines.recovery.declared import Clusters, Database
from greenops_pipelines.recovery.load import CLEAN

_POLL_SECONDS = 0.2
_SILENT_LOOKS = 3
_SILENT_SECONDS = 0.5
_SILENCE = (
    "connection refused",
    "no answer in time",
    "connection timed out",
    "no route to host",
    "network is unreachable",
)
_LIBPQ = ("PGPASSFILE", "PGSERVICEFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "KUBECONFIG", "SSH_AUTH_SOCK")


class OperatedCluster:
    """The declared clusters of one database."""

    def __init__(self, database: Database, clusters: Clusters, drill: str, noted: Noted, folder: Path) -> None:
        """Commands run in `folder`: the one in which ops/ lies."""
        self.primary = database.primary
        self.standby = database.standby
        self.endpoint = clusters.endpoint.dsn
        self._dsns = {database.primary: clusters.primary.dsn, database.standby: clusters.standby.dsn}
        self.fails_back_at_once = True
        self._clusters = clusters
        self._drill = drill
        self._noted = noted
        self._folder = folder

    def dsn(self, region: str) -> str:
        return self._dsns[region]

    def replicates(self, sync: bool) -> None:
        recovers = self._ask(self.standby, "select pg_is_in_recovery()")[0][0]
        if recovers != "t":
            raise PermanentError(f"{self.standby}: found a primary, allowed: a standby; two primaries are one too many")
        streams = self._ask(self.standby, "select status from pg_stat_wal_receiver")
        if not any(status == "streaming" for [status] in streams):
            raise PermanentError(f"{self.standby}: found no replication, allowed: a standby that streams")
        kinds = {kind for [kind] in self._ask(self.primary, "select sync_state from pg_stat_replication")}
        if sync and not kinds & {"sync", "quorum"}:
            raise PermanentError(
                f"{self.primary}: found {', '.join(sorted(map(str, kinds))) or 'no'} replication, allowed: a synchronous standby, "
                "or sync: false in ops/gamedays.yaml"
            )

    def fault(self, kind: Fault) -> None:
        command = None if kind == "stall" else self._clusters.commands.fault.get(kind)
        if command is None:
            named = ", ".join(sorted(self._clusters.commands.fault)) or "none is named"
            raise ConfigurationError(
                f"ops/gamedays.yaml: commands.fault: found no command for {kind}, allowed: {named}; or the scenario planned"
            )
        self._run(command, self.primary)

    def fence(self, planned: bool) -> None:
        self._run(self._clusters.commands.fence, self.primary)
        self._is_silent("do not promote")

    def _is_silent(self, otherwise: str) -> None:
        """A server is silent when it refuses connections, or does not answer in time, three times in a row.

        Everything else proves nothing: one that says that it is full, or starting up, or that does not know the password, lives.
        """
        for number in range(_SILENT_LOOKS):
            if number:
                time.sleep(_SILENT_SECONDS)
            client = Client(self._dsns[self.primary])
            try:
                client.ask("select 1", (), 3)
                found = "an answer"
            except (Refused, Unanswered) as error:
                found = str(error)
                if _is_silence(found):
                    continue
            finally:
                client.close()
            raise PermanentError(f"{self.primary}: found {found} after it was fenced, allowed: silence; {otherwise}")

    def promote(self) -> None:
        self._run(self._clusters.commands.promote, self.standby)
        self._until(self.standby, "select not pg_is_in_recovery()", "promotion failed: it is still a standby")
        self._is_silent("there are two primaries: end one of them")

    def route(self, region: str) -> None:
        self._run(self._clusters.commands.route, region)

    def rewind(self) -> None:
        # One command of the operator's does all of it; what it came to is looked at below.
        self._run(self._clusters.commands.failback, self.primary)

    def caught_up(self, seconds: float) -> None:
        return None

    def switch_back(self) -> None:
        self._until(self.primary, "select not pg_is_in_recovery()", "the failback failed: it is no primary")

    def rejoin(self, seconds: float) -> None:
        self._until(
            self.standby,
            "select pg_is_in_recovery() and exists (select 1 from pg_stat_wal_receiver where status = 'streaming')",
            "never caught up: it does not stream",
        )

    def tidy(self) -> None:
        """Removes the drill's rows; its table stays, empty, as it may belong to another drill's role."""
        client = Client(self.endpoint)
        try:
            client.ask(CLEAN, [self._drill], 30)
        except (Refused, Unanswered) as error:
            raise TransientError(f"{self.endpoint}: the drill's rows are not removed: {error}") from None
        finally:
            client.close()

    def _run(self, command: Sequence[str], region: str) -> None:
        words = filled(command, self.primary, self.standby, region, self._drill)
        begun = time.monotonic()
        try:
            # Into a file: a daemon that the command leaves behind may hold a pipe open for ever.
            with tempfile.TemporaryFile() as said_to:
                done = subprocess.run(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=said_to,
                    stderr=subprocess.STDOUT,
                    timeout=self._clusters.timeout_seconds,
                    env=_environment(),
                    cwd=self._folder,
                    check=False,
                )
                said_to.seek(0)
                output = said_to.read().decode("utf-8", "replace")
        except OSError as error:
            raise ConfigurationError(f"{words[0]}: could not be run: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise TransientError(f"{words[0]}: found no end after {self._clusters.timeout_seconds:g} s") from None
        if done.returncode:
            said = " ".join(output.split())[-300:]
            raise PermanentError(f"{shell(words)}: exited with {done.returncode}: {said}")
        self._noted(shell(words), time.monotonic() - begun, region)

    def _until(self, region: str, sql: str, otherwise: str) -> None:
        deadline = time.monotonic() + self._clusters.timeout_seconds
        found = "no answer"
        while time.monotonic() < deadline:
            try:
                found = str(self._ask(region, sql)[0][0])
            except TransientError as error:
                found = str(error)
            if found == "t":
                return
            time.sleep(_POLL_SECONDS)
        raise PermanentError(f"{region}: {otherwise} after {self._clusters.timeout_seconds:g} s ({found})")

    def _ask(self, region: str, sql: str) -> list[list[str | None]]:
        client = Client(self._dsns[region])
        try:
            return client.ask(sql, (), 10)
        except (Refused, Unanswered) as error:
            raise TransientError(f"{region}: {error}") from None
        finally:
            client.close()


def filled(command: Sequence[str], primary: str, standby: str, region: str, drill: str) -> list[str]:
    """The command with its placeholders replaced; other braces stay as they are."""
    values = {"{primary}": primary, "{standby}": standby, "{region}": region, "{drill}": drill}
    words = []
    for word in command:
        for name, value in values.items():
            word = word.replace(name, value)
        words.append(word)
    return words


def _is_silence(said: str) -> bool:
    """Each address that was tried must be silent; a FATAL is an answer."""
    return "FATAL" not in said and any(word in said.lower() for word in _SILENCE)


def _environment() -> dict[str, str]:
    return base_environment() | {name: os.environ[name] for name in _LIBPQ if name in os.environ}


@contextmanager
def operated(database: Database, drill: str, noted: Noted, folder: Path) -> Iterator[Cluster]:
    """The clusters, which stay as they are when the drill ends, without its rows. `folder`: where commands run."""
    assert database.clusters is not None  # noqa: S101 (the caller has looked)
    cluster = OperatedCluster(database, database.clusters, drill, noted, folder)
    try:
        yield cluster
    except BaseException:
        # What ended the drill is what is to be said; its rows go with the next drill, if not now.
        with contextlib.suppress(TransientError):
            cluster.tidy()
        raise
    cluster.tidy()


@dataclass(frozen=True)
class Rehearsal:
    """A dry run on an operator's clusters: what was checked by reading, and what would run."""

    database: str
    scenario: str
    checks: tuple[str, ...]
    faults: tuple[str, ...]
    commands: tuple[str, ...]

    def as_document(self) -> dict[str, Any]:
        return {
            "database": self.database,
            "scenario": self.scenario,
            "mode": "dry-run",
            "checks": list(self.checks),
            "faults": list(self.faults),
            "would_run": list(self.commands),
        }


def rehearse(database: Database, scenario: str) -> Rehearsal:
    """Nothing is written and nothing is moved: connections and replication are looked at, commands are listed."""
    clusters = database.clusters
    assert clusters is not None  # noqa: S101 (the caller has looked)
    cluster = OperatedCluster(database, clusters, "dry-run", lambda _command, _seconds, _where: None, Path())
    checks, faults = [], []
    for what, look in (
        (f"{database.primary} answers", lambda: cluster._ask(database.primary, "select 1")),
        (f"{database.standby} answers", lambda: cluster._ask(database.standby, "select 1")),
        (f"{database.standby} streams", lambda: cluster.replicates(clusters.sync)),
    ):
        try:
            look()
        except (PermanentError, TransientError) as error:
            faults.append(f"{what}: no: {error}")
        else:
            checks.append(what)
    commands = clusters.commands
    steps = [commands.fault.get(scenario, ()) if scenario != "planned" else ()]  # type: ignore[call-overload]
    if scenario != "planned" and not steps[0]:
        faults.append(f"no command is named for the fault {scenario}")
    steps += [commands.fence, commands.promote, commands.route, commands.failback]
    regions = [database.primary, database.primary, database.standby, database.standby, database.primary]
    would = [
        shell(filled(step, database.primary, database.standby, region, "DRILL"))
        for step, region in zip(steps, regions, strict=True)
        if step
    ]
    return Rehearsal(database.name, scenario, tuple(checks), tuple(faults), tuple(would))
