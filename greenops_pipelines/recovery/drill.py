"""One drill: a database in two regions is checked, put under load, broken, failed over, verified, failed back, verified again.

Every step is in the event log before it is taken, every write in the ledger before it is sent. What comes out is a `Result`,
good, failed or aborted; what it lost is counted by `accounting.py`. Not here: the databases (`cluster.py`, `operated.py`),
which drills are run (`gameday.py`), and what becomes of their results (`filing.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import GreenopsError, PermanentError, TransientError
from greenops_pipelines.recovery import load as under_load
from greenops_pipelines.recovery.client import Client, Refused, Unanswered
from greenops_pipelines.recovery.cluster import Cluster, EmbeddedCluster, Noted
from greenops_pipelines.recovery.declared import Residency
from greenops_pipelines.recovery.events import FILE as EVENTS
from greenops_pipelines.recovery.events import Events
from greenops_pipelines.recovery.judging import Times, judged
from greenops_pipelines.recovery.ledger import Ledger, read
from greenops_pipelines.recovery.load import Load
from greenops_pipelines.recovery.operated import operated
from greenops_pipelines.recovery.results import KEPT, LEDGER, RESULT, Result, Spec, Verdict, put_json, remove_data, told

_FIRST_WRITE_SECONDS = 60.0
_NOTICED_SECONDS = 300.0
_BETWEEN_PROBES_SECONDS = 0.1
_AFTER_SECONDS = 1.0
_CATCH_UP_SECONDS = 60.0
_CONTENT_SECONDS = 30.0
_DAMAGE = ("XX001", "XX002")
"""SQLSTATEs for a table or an index that is corrupted."""

ClusterOf = Callable[[Spec, Path, Noted], AbstractContextManager[Cluster]]


class Damaged(PermanentError):
    """A server's copy is not what was written."""


class _Stopped(Exception):
    """The drill ends here, with a verdict."""

    def __init__(self, verdict: Verdict, deficiency: str | None) -> None:
        super().__init__(deficiency or verdict)
        self.verdict = verdict
        self.deficiency = deficiency


@dataclass
class Drill:
    """One drill in `folder`, which must be empty. `run` may be called once."""

    spec: Spec
    folder: Path
    residency: Callable[[], Residency]
    """Read again at every asking: what is declared may change while a drill runs."""
    cluster_of: ClusterOf
    progress: Callable[[str], None] = lambda _text: None
    _times: Times = field(default_factory=Times)
    _kept: dict[str, dict[int, str]] = field(default_factory=dict)
    _checks: int = 0
    _events: Events | None = None

    @property
    def _log(self) -> Events:
        assert self._events is not None  # noqa: S101 (announced before anything else)
        return self._events

    def announce(self) -> None:
        """Writes down what is to be drilled, as the first line of the event log."""
        self._events = Events(self.folder / EVENTS)
        self._events.add("drill", **told(self.spec))

    def run(self) -> Result:
        """Everything, from an empty folder to a `Result`, which is in `result.json` when this returns.

        Only what stops the drill itself is raised (KeyboardInterrupt, a log that cannot be kept); what the databases
        do is a finding.
        """
        began = datetime.now(UTC)
        if self._events is None:
            self.announce()
        events = self._log
        verdict: Verdict
        deficiencies: list[str] = []
        try:
            with Ledger(self.folder / LEDGER) as ledger:
                self._ledger = ledger
                self._failover()
            verdict = "passed"
        except _Stopped as stop:
            verdict = stop.verdict
            deficiencies += [stop.deficiency] if stop.deficiency else []
        except GreenopsError as error:
            verdict = "failed" if self._times.fault is not None else "aborted"
            deficiencies.append(str(error))
        # What the servers had takes most of the room, and a full disk must not keep this from being written down.
        if self.spec.database.clusters is None:
            remove_data(self.folder)
        self._keep()
        result = judged(
            self.spec,
            self.folder,
            self._times,
            self._kept,
            self._checks,
            self._log.clock_moved,
            began,
            verdict,
            deficiencies,
        )
        put_json(self.folder / RESULT, result.as_document())
        events.add("done", verdict=result.verdict)
        events.close()
        return result

    def _failover(self) -> None:
        spec = self.spec
        if spec.scenario == "restore":
            raise PermanentError("found the scenario restore, allowed here: scenarios of databases")
        with self._step("refuse"):
            self.residency().refuse(spec.database, spec.database.standby)
        with contextlib.ExitStack() as stack:
            with self._step("set_up"):
                cluster = stack.enter_context(self.cluster_of(spec, self.folder, self._log.ran))
                self._ask(cluster.dsn(cluster.primary), under_load.SETUP)
            with self._step("check"):
                self._check(cluster)
            load = Load(
                cluster.endpoint,
                spec.id,
                self._ledger,
                lambda: self._log.clock,
                spec.rate,
                spec.clients,
                spec.probe_timeout_seconds,
            )
            self._note_timeline(load, cluster, cluster.primary)
            with load:
                self._steady(load, cluster)
                self._break(load, cluster)
                if spec.scenario != "planned":
                    with self._step("detect"):
                        self._detect(load, cluster)
                self._move(load, cluster)
                if spec.fails_back and not spec.is_negative_control:
                    self._fail_back(load, cluster)
                load.stop()
            with self._step("verify_again" if self._times.failed_back else "verify"):
                self._verify(cluster)
            with self._step("take_down"):
                stack.close()

    def _check(self, cluster: Cluster) -> None:
        """Connections, a write and the replication: each answers, or there is no failover."""
        for region in (cluster.primary, cluster.standby):
            if not under_load.answers(cluster.dsn(region), self.spec.probe_timeout_seconds):
                raise PermanentError(f"{region}: found no answer to a connection; the failover is not begun")
            self._checks += 1
        self._ask(cluster.endpoint, under_load.CLEAN, self.spec.id)
        cluster.replicates(self.spec.sync)
        self._checks += 2

    def _steady(self, load: Load, cluster: Cluster) -> None:
        spec, begun = self.spec, self._log.clock
        with self._step("steady_state") as step:
            if not load.wait_for(cluster.primary, 0, _FIRST_WRITE_SECONDS):
                raise PermanentError(
                    f"{cluster.primary}: found no acknowledged write; there is no steady state to break"
                )
            first, since = load.acknowledged(cluster.primary), self._log.clock
            load.go_on_for(spec.steady_seconds)
            acked, seconds = load.acknowledged(cluster.primary) - first, self._log.clock - since
            self._times.steady, self._times.steady_acked = seconds, acked
            step.notes["acknowledged_per_s"] = round(acked / seconds, 2)
            step.notes["since"] = round(begun, 6)
        if spec.scenario == "corrupt-standby":
            if not isinstance(cluster, EmbeddedCluster):
                raise PermanentError("corrupt-standby: found an operator's clusters, allowed: embedded ones")
            with self._step("corrupt"):
                cluster.corrupt("greenops_drill_writes")
            self._refused(cluster)
        with self._step("check_standby"):
            self._check_content(cluster)

    def _refused(self, cluster: Cluster) -> None:
        """The standby is damaged: the check must say so, and nothing may be failed over to it."""
        try:
            with self._step("check_standby"):
                self._check_content(cluster)
        except Damaged as error:
            self._log.add("refused", why=str(error))
            raise _Stopped("refused as intended", None) from error
        raise _Stopped("failed", "a damaged standby was taken for a sound one")

    def _check_content(self, cluster: Cluster) -> None:
        """What was acknowledged so far is on the standby too, each payload as it was written."""
        must = {write.id: write.sha256 for write in read(self.folder / LEDGER) if write.outcome == "ok"}
        deadline = time.monotonic() + _CONTENT_SECONDS
        while True:
            found = self._survivors(cluster, cluster.standby)
            if wrong := [number for number, digest in must.items() if found.get(number, digest) != digest]:
                raise Damaged(f"{cluster.standby}: found another payload than was written in write {wrong[0]}")
            missing = [number for number in must if number not in found]
            if not missing:
                break
            if time.monotonic() > deadline:
                raise TransientError(
                    f"{cluster.standby}: never caught up: {len(missing)} acknowledged writes are missing after "
                    f"{_CONTENT_SECONDS:g} s; look at the replication"
                )
            time.sleep(0.1)
        self._checks += 1

    def _break(self, load: Load, cluster: Cluster) -> None:
        spec = self.spec
        if spec.scenario == "planned":
            return
        with self._step("fault"):
            if spec.scenario == "stall":
                cluster.fault("stall")
                self._log.add("stalled", seconds=spec.stall_seconds)
                load.go_on_for(spec.stall_seconds)
                self._times.fault = self._log.add("fault", kind="kill")
                cluster.fault("kill")
            else:
                self._times.fault = self._log.add("fault", kind=spec.scenario)
                cluster.fault(spec.scenario)  # type: ignore[arg-type]

    def _detect(self, load: Load, cluster: Cluster) -> None:
        """Probes that fail in a row; each writes, over a connection of its own."""
        spec, failing = self.spec, 0
        deadline = time.monotonic() + _NOTICED_SECONDS
        while failing < spec.probes:
            if time.monotonic() > deadline:
                raise _Stopped(
                    "failed", f"the fault was not noticed within {_NOTICED_SECONDS:g} s: probes still succeed"
                )
            client = Client(cluster.endpoint)
            answer = load.probe(client, spec.probe_timeout_seconds)
            client.close()
            failing = 0 if answer.outcome == "ok" else failing + 1
            self._log.add("probe", outcome=answer.outcome, detail=answer.detail, failing=failing)
            if failing < spec.probes:
                time.sleep(_BETWEEN_PROBES_SECONDS)
        self._times.detected = self._log.clock

    def _move(self, load: Load, cluster: Cluster) -> None:
        planned = self.spec.scenario == "planned"
        # Said again: the declaration may have changed since the plan was made.
        self.residency().refuse(self.spec.database, cluster.standby)
        before = load.acknowledged(cluster.standby)
        if planned:
            self._times.fault = self._log.add("fault", kind="planned")
        with self._step("fence"):
            cluster.fence(planned)
            self._times.fenced = self._log.clock
        with self._step("promote"):
            cluster.promote()
        self._note_timeline(load, cluster, cluster.standby)
        with self._step("route"):
            cluster.route(cluster.standby)
        with self._step("first_write"):
            if not load.wait_for(cluster.standby, before, self._first_write_seconds):
                raise PermanentError(
                    f"{cluster.standby}: found no acknowledged write {self._first_write_seconds:g} s after the failover"
                )
        self.progress("failed over")
        load.go_on_for(_AFTER_SECONDS)
        if self.spec.fails_back and not self.spec.is_negative_control:
            with self._step("verify"):
                self._kept["failover"] = self._survivors(cluster, cluster.standby)

    def _fail_back(self, load: Load, cluster: Cluster) -> None:
        self._times.failback = self._log.clock
        with self._step("rewind"):
            cluster.rewind()
        if not cluster.fails_back_at_once:
            with self._step("catch_up"):
                cluster.caught_up(_CATCH_UP_SECONDS)
        self.residency().refuse(self.spec.database, cluster.primary)
        before = load.acknowledged(cluster.primary)
        with self._step("switch_back"):
            cluster.switch_back()
        self._note_timeline(load, cluster, cluster.primary)
        with self._step("route_back"):
            cluster.route(cluster.primary)
        with self._step("first_write_back"):
            if not load.wait_for(cluster.primary, before, self._first_write_seconds):
                raise PermanentError(
                    f"{cluster.primary}: found no acknowledged write {self._first_write_seconds:g} s after the failback"
                )
        self._times.failed_back = self._log.clock
        with self._step("rejoin"):
            cluster.rejoin(_CATCH_UP_SECONDS)
        self.progress("failed back")

    def _note_timeline(self, load: Load, cluster: Cluster, region: str) -> None:
        """Asks the region's own server on which timeline it writes: from now on that is how its acknowledgements are known."""
        timeline = str(self._ask(cluster.dsn(region), under_load.TIMELINE)[0][0])
        load.belongs(timeline, region)
        self._log.add("timeline", timeline=timeline, region=region)

    @property
    def _first_write_seconds(self) -> float:
        """An operator's route may take as long as the objective allows, a name that has to expire for one."""
        own = self.spec.database.clusters is None
        return _FIRST_WRITE_SECONDS if own else max(_FIRST_WRITE_SECONDS, self.spec.rto_objective_s)

    def _verify(self, cluster: Cluster) -> None:
        """With the load at rest: what is kept now, and that both servers have the same."""
        if self._times.failed_back is None:
            self._kept["failover"] = self._survivors(cluster, cluster.standby)
            return
        kept = self._survivors(cluster, cluster.primary)
        self._kept["failback"] = kept
        deadline = time.monotonic() + _CONTENT_SECONDS
        while self._survivors(cluster, cluster.standby) != kept:
            if time.monotonic() > deadline:
                raise PermanentError(
                    f"{cluster.standby}: found other rows than {cluster.primary} has, after the failback"
                )
            time.sleep(0.1)

    def _survivors(self, cluster: Cluster, region: str) -> dict[int, str]:
        try:
            return under_load.survivors(cluster.dsn(region), self.spec.id)
        except Refused as error:
            kind = Damaged if error.state in _DAMAGE else PermanentError
            raise kind(f"{region}: its rows cannot be read: {error}") from None
        except Unanswered as error:
            raise PermanentError(f"{region}: its rows cannot be read: {error}") from None

    def _ask(self, dsn: str, sql: str, *parameters: str) -> list[list[str | None]]:
        client = Client(dsn)
        try:
            return client.ask(sql, parameters, self.spec.probe_timeout_seconds + 10)
        except (Refused, Unanswered) as error:
            raise PermanentError(f"{self.spec.database.name}: {error}") from None
        finally:
            client.close()

    @contextmanager
    def _step(self, name: str) -> Iterator[Any]:
        self.progress(name.replace("_", " "))
        with self._log.step(name) as step:
            yield step

    def _keep(self) -> None:
        """What the servers had, beside the ledger: from the two, anyone can count again what was lost."""
        named = {name: {str(number): digest for number, digest in kept.items()} for name, kept in self._kept.items()}
        put_json(self.folder / KEPT, named)


def cluster_of(spec: Spec, folder: Path, noted: Noted, base: Path | None = None) -> AbstractContextManager[Cluster]:
    """Two servers of our own, or the operator's where some are declared; their commands run in `base`."""
    database = spec.database
    if database.clusters is not None:
        return operated(database, spec.id, noted, base or Path())
    return EmbeddedCluster(folder, database.primary, database.standby, spec.sync, spec.wan_ms / 1000, noted)
