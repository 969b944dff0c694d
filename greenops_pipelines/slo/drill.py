"""One drill of a canary: real requests, real metrics, the rendered gates, and how long a bad one goes on serving.

A stable and a canary HTTP service serve clients behind a weighted router. Prometheus scrapes both (without it, an embedded
scraper answers the same queries, and the result says so). The Rollout that is rendered for the service is walked as Argo's
controller would (`rollout.py`); at some moment the canary is made to fail, and every instant from there to its last answer
is written down. Not here: several drills, and what becomes of the result (`drills.py`).
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import requests

from greenops_pipelines.errors import BadInput, GreenopsError, PermanentError, TransientError
from greenops_pipelines.gitops import put
from greenops_pipelines.process import prometheus
from greenops_pipelines.process.child import Child, base_environment
from greenops_pipelines.slo import gates, rollback, rollouts
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.clients import Clients, Counts
from greenops_pipelines.slo.drill_results import (
    EVENTS,
    MEASUREMENTS,
    OF_METRICS,
    Result,
    Spec,
    error_ratio,
    expected,
    is_breach,
)
from greenops_pipelines.slo.prometheus import Metrics, Prometheus
from greenops_pipelines.slo.rollout import Taken, Walk
from greenops_pipelines.slo.router import BACKENDS, BackendName, Router

_START_SECONDS = 30.0
_TICK_SECONDS = 0.05
_LAST_SECONDS = 16.0
"""What the canary has begun by then is over: the router waits for no answer longer than 15 s."""
_SETTLE_SECONDS = 2.0
"""How long it is watched that no request reaches a canary that was taken back; in the world's seconds."""
_RESTART_SECONDS = 20.0
_SLOW = 1.2
"""An injected delay, times what is allowed: over it, and below the router's timeout."""
_CONNECTIONS = 2048
_OPEN_FILES = 8192
"""Each open request takes three: at the client, and on both sides of the router."""
_QUERY_SECONDS = 10.0
_LOOKBACK_SECONDS = 300.0
_MOST_OF_ROLLOUT = 1.5
"""A Rollout that takes longer than this many times its pauses and checks does not end by itself."""


class _Control(Protocol):
    """What can be done to whoever scrapes."""

    def stop(self) -> None: ...
    def start(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class _Log:
    """Events as JSON lines, with the world's time and the Rollout's seconds."""

    def __init__(self, path: Path, progress: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._progress, self._clock = progress, clock

    def add(self, event: str, more: Mapping[str, Any] | None = None) -> None:
        at = {"at": datetime.now(UTC).isoformat(), "seconds": round(self._clock(), 3), "event": event}
        with self._lock:
            os.write(self._descriptor, (json.dumps({**at, **(more or {})}, ensure_ascii=False) + "\n").encode())
        told = ", ".join(f"{key} {value}" for key, value in (more or {}).items())
        self._progress(f"{self._clock():7.1f} s  {event}{': ' + told if told else ''}")

    def close(self) -> None:
        os.close(self._descriptor)


def run(spec: Spec, canaries: Canaries, folder: Path, progress: Callable[[str], None]) -> Result:
    """Drills, with all that it needs below `folder`. A drill that cannot be carried through is a failed one.

    Raises `BadInput` where the scenario cannot be drilled with what is installed.
    """
    if spec.scenario == "prometheus-restart" and spec.speed > 1:
        # It begins to scrape five seconds after its start, whatever the interval: sped up, that is a minute without a sample.
        raise BadInput(f"--speed: found {spec.speed:g}, allowed: 1 for prometheus-restart")
    if spec.scenario in OF_METRICS and (spec.embedded or not prometheus.found()):
        raise BadInput(f"{spec.scenario}: found no Prometheus, allowed: install {prometheus.INSTALL}")
    return _Drill(spec, canaries, folder, progress).run()


class _Drill:
    def __init__(self, spec: Spec, canaries: Canaries, folder: Path, progress: Callable[[str], None]) -> None:
        self.spec, self.canaries, self.folder = spec, canaries, folder
        self.entry = canaries.services[spec.service]
        self._began: float | None = None
        self._wall = datetime.now(UTC)
        self._log = _Log(folder / EVENTS, progress, self.clock)
        self._deficiencies: list[str] = []
        self._breach: float | None = None
        self._breach_percent: int | None = None
        self._routed_back: float | None = None
        self._last_canary: float | None = None
        self._source = "none"
        self._walk: Walk | None = None
        self._counts: dict[str, int] = {}
        self._undo: list[Callable[[], None]] = []

    def clock(self) -> float:
        """Seconds of the Rollout since the canary's first request; `speed` of them to one of the world's."""
        return 0.0 if self._began is None else (time.monotonic() - self._began) * self.spec.speed

    def world(self, seconds: float) -> float:
        """The world's Unix time at a moment of the Rollout's clock."""
        return time.time() - (self.clock() - seconds) / self.spec.speed

    def run(self) -> Result:
        try:
            with ExitStack() as stack:
                stack.callback(self._log.close)
                self._hold(stack)
        except GreenopsError as error:
            self._deficiencies.append(str(error).splitlines()[0])
        finally:
            if self._walk is not None:
                self._walk.close()
        return self._result()

    def _hold(self, stack: ExitStack) -> None:
        spec = self.spec
        self._log_begin()
        hashes = {version: secrets.token_hex(5) for version in ("stable", "canary")}
        urls, children = {}, {}
        for version, number in (("stable", "1.0.0"), ("canary", "1.1.0")):
            children[version], urls[version] = self._service(stack, version, number, hashes[version])
        metrics, control = self._scraping(stack, urls, hashes)
        _allow_open_files(_OPEN_FILES)
        router = stack.enter_context(Router(urls["stable"], urls["canary"], concurrency=_CONNECTIONS))
        clients = stack.enter_context(Clients(router.url, spec.rate, _CONNECTIONS))
        self._await_scrapes(metrics)
        rollout = rollouts.rollout(self.canaries, spec.service, spec.variant)
        templates = {
            rollouts.template_name(spec.service, spec.variant, kind): gates.metrics(
                self.canaries, spec.service, spec.variant, kind, spec.speed
            )
            for kind in rollouts.KINDS
        }
        gets_traffic = spec.scenario != "no-traffic"
        self._began = time.monotonic()
        walk = self._walk = Walk(
            rollout,
            templates,
            metrics,
            lambda percent: self._weigh(router, percent if gets_traffic else 0, percent),
            {"canary-hash": hashes["canary"]},
            self.clock,
            self.world,
            self._log.add,
        )
        last = self._longest(rollout)
        while not walk.is_over:
            now = self.clock()
            if self._breach is None and spec.scenario != "healthy" and now >= spec.breach_after_s and walk.weight:
                self._break(router, urls["canary"], children["canary"], control)
            for child in children.values():
                if not child.running and not (spec.scenario == "canary-dies" and child is children["canary"]):
                    raise PermanentError(f"{child.name} ended by itself; its log ends:\n{child.tail()}")
            walk.advance(now)
            if now > last:
                raise TransientError(f"the Rollout is not over after {now:.0f} s, at step {walk.step}")
            time.sleep(_TICK_SECONDS)
        for undo in self._undo:
            undo()
        self._settle(router, walk)
        self._count(router, clients.stop())

    def _log_begin(self) -> None:
        self._log.add("begun", asdict(self.spec))

    def _service(self, stack: ExitStack, version: str, number: str, hash_: str) -> tuple[Child, str]:
        port_file = self.folder / f"{version}.port"
        command: list[str | Path] = [
            sys.executable,
            *("-m", "greenops_pipelines.slo.drilled_service"),
            *("--service", self.spec.service, "--version", number),
            *("--pod", f"{self.spec.service}-{hash_}-{secrets.token_hex(2)}", "--port-file", port_file),
        ]
        environment = base_environment() | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        child = stack.enter_context(
            Child.start(command, log=self.folder / f"{version}.log", env=environment, grace_seconds=2.0)
        )
        child.wait_until(port_file.exists, _START_SECONDS)
        return child, f"http://127.0.0.1:{int(port_file.read_text(encoding='ascii'))}"

    def _scraping(
        self, stack: ExitStack, urls: Mapping[str, str], hashes: Mapping[str, str]
    ) -> tuple[Metrics, _Control | None]:
        spec = self.spec
        namespace = self.canaries.namespace
        targets = [
            (
                url.removeprefix("http://"),
                {"job": "drill", "namespace": namespace, "pod": f"{spec.service}-{hashes[version]}-0"},
            )
            for version, url in urls.items()
        ]
        every, lookback = self.canaries.scrape_s / spec.speed, _LOOKBACK_SECONDS / spec.speed
        if spec.embedded or not prometheus.found():
            from greenops_pipelines.slo.scraper import Scraper

            self._source = "embedded scraper"
            kept = max(lookback, 4 * self.canaries.window_s / spec.speed)
            return stack.enter_context(Scraper(targets, every, kept, lookback_seconds=lookback)), None
        server = stack.enter_context(
            prometheus.running(self.folder / "prometheus", targets, every, lookback_seconds=lookback)
        )
        self._source = f"Prometheus {prometheus.version()}"
        return Prometheus(server.url, _QUERY_SECONDS), server

    def _await_scrapes(self, metrics: Metrics) -> None:
        """Both are seen before anything begins, as pods of a service in production are."""
        deadline = time.monotonic() + _START_SECONDS + 2 * self.canaries.scrape_s / self.spec.speed
        while True:
            try:
                if metrics.query('sum(up{job="drill"})', None).values == (2.0,):
                    return
            except TransientError:
                pass
            if time.monotonic() > deadline:
                raise TransientError(f"{self._source}: found one of the two services not scraped in time")
            time.sleep(_TICK_SECONDS)

    def _weigh(self, router: Router, percent: int, wanted: int) -> None:
        router.set_weight(percent)
        if wanted == 0:
            self._routed_back = self.clock()

    def _break(self, router: Router, url: str, child: Child, control: _Control | None) -> None:
        """What the scenario does. The breach is the moment before, so that nothing of it is left out."""
        scenario, speed = self.spec.scenario, self.spec.speed
        self._breach = self.clock()
        self._breach_percent = router.snapshot().weight
        ratio = error_ratio(scenario)
        if ratio is not None:
            _inject(url, error_ratio=ratio)
        elif scenario == "latency":
            _inject(url, delay_seconds=_SLOW * self._slowest_allowed())
        elif scenario == "canary-dies":
            child.send_signal(signal.SIGKILL)
        elif scenario == "prometheus-hangs":
            _known(control).pause()
            self._undo.append(_known(control).resume)
        elif scenario in ("prometheus-down", "prometheus-restart"):
            _known(control).stop()
            if scenario == "prometheus-restart":
                back = threading.Timer(_RESTART_SECONDS / speed, _known(control).start)
                back.start()
                self._undo.append(back.join)
        self._log.add("breach", {"scenario": scenario, "canary_percent": self._breach_percent})

    def _slowest_allowed(self) -> float:
        """Seconds that a request may take, by the gate that the delay is to turn."""
        if self.entry.latency is not None:
            return self.entry.latency.p95_seconds
        return self.entry.web_vitals.lcp_seconds if self.entry.web_vitals else 1.0

    def _longest(self, rollout: Mapping[str, Any]) -> float:
        return _MOST_OF_ROLLOUT * rollouts.lasts_seconds(self.canaries) + 300.0

    def _settle(self, router: Router, walk: Walk) -> None:
        """After a rollback the canary may finish what it has begun, and no more; after a promotion it has everything."""
        if not router.wait_until_idle("canary", _LAST_SECONDS) and walk.outcome == "rolled back":
            self._deficiencies.append(f"the canary still had requests {_LAST_SECONDS:g} s after the new weights")
        time.sleep(_SETTLE_SECONDS)
        last = router.last_answer("canary")
        if last is not None:
            self._last_canary = (last.at_ns / 1e9 - self.world(0.0)) * self.spec.speed
        until = time.monotonic() + _SETTLE_SECONDS / 2
        before = router.snapshot()
        while time.monotonic() < until:
            time.sleep(_TICK_SECONDS)
        after = router.snapshot()
        newly = {name: after.backends[name].answered - before.backends[name].answered for name in BACKENDS}
        wrongs: dict[str | None, BackendName] = {"rolled back": "canary", "promoted": "stable"}
        wrong = wrongs.get(walk.outcome)
        if wrong is not None and newly[wrong]:
            self._deficiencies.append(f"{newly[wrong]} requests were answered by the {wrong} version after all")
        if walk.outcome and not sum(newly.values()):
            self._deficiencies.append("nobody answered any request at the end")

    def _count(self, router: Router, counts: Counts) -> None:
        found = router.snapshot().backends
        unanswered = sum(sum(found[name].faults.values()) for name in BACKENDS) + sum(counts.failed.values())
        self._counts = {
            "canary_answers": found["canary"].answered,
            "canary_bad_answers": found["canary"].errors,
            "stable_answers": found["stable"].answered,
            "failed_requests": unanswered,
        }
        if counts.not_sent:
            self._deficiencies.append(f"{counts.not_sent} requests could not be sent: this machine was too busy")

    def _result(self) -> Result:
        spec, walk = self.spec, self._walk
        taken = walk.taken if walk else []
        put(self.folder, MEASUREMENTS, json.dumps([_row(each) for each in taken], indent=1, ensure_ascii=False) + "\n")
        outcome = walk.outcome if walk else None
        breach = self._breach
        since: Callable[[float | None], float | None] = lambda at: (  # noqa: E731 - one line, used four times
            None if at is None or breach is None else round(at - breach, 3)
        )
        first = min(
            (
                each.finished_s
                for each in taken
                if breach is not None and each.phase != "Successful" and each.finished_s >= breach
            ),
            default=None,
        )
        back = since(self._routed_back) if outcome == "rolled back" else None
        last = since(self._last_canary)
        rollback_s = None if back is None else max(back, last) if last is not None else back
        bound = self.bound()
        if outcome is not None and outcome != expected(spec.scenario):
            self._deficiencies.append(f"found it {outcome}, allowed: {expected(spec.scenario)}")
        if outcome is None and not self._deficiencies:
            self._deficiencies.append("came to no end")
        deadline = self.canaries.rollback.deadline_seconds
        if spec.speed == 1 and is_breach(spec.scenario) and rollback_s is not None:
            if rollback_s > deadline:
                self._deficiencies.append(f"rollback complete after {rollback_s:.1f} s, allowed: {deadline:g} s")
            if bound is not None and rollback_s > bound:
                self._deficiencies.append(f"rollback complete after {rollback_s:.1f} s, certified: {bound:.1f} s")
        if breach is None and spec.scenario not in ("healthy", "no-traffic") and not self._deficiencies:
            self._deficiencies.append("the Rollout was over before anything was done to it")
        return Result(
            drill=spec.drill,
            batch=spec.batch,
            service=spec.service,
            scenario=spec.scenario,
            variant=spec.variant,
            speed=spec.speed,
            rate=spec.rate,
            source=self._source,
            verdict="failed" if self._deficiencies else "passed",
            outcome=outcome,
            deficiencies=tuple(self._deficiencies),
            why=walk.message if walk else "",
            last_step=walk.step if walk else "",
            canary_percent=self._breach_percent,
            first_bad_sample_s=since(first),
            decision_s=since(walk.decided_at) if walk else None,
            routed_back_s=back,
            rollback_s=rollback_s,
            bound_s=bound,
            deadline_s=deadline,
            canary_answers=self._counts.get("canary_answers", 0),
            canary_bad_answers=self._counts.get("canary_bad_answers", 0),
            stable_answers=self._counts.get("stable_answers", 0),
            failed_requests=self._counts.get("failed_requests", 0),
            measurements=len(taken),
            began_at=self._wall.isoformat(),
            ended_at=datetime.now(UTC).isoformat(),
        )

    def bound(self) -> float | None:
        """What the certificate says of this fault at this drill's volume; None where it says nothing."""
        error = 1.0 if self.spec.scenario == "latency" else error_ratio(self.spec.scenario)
        if error is None or self._breach is None:
            return None
        rate = self.spec.rate * self.canaries.steps[0].weight / 100 / self.spec.speed
        bounds = [
            rollback.worst_case(
                self.canaries.timing(gates.breach_threshold(self.entry, gate), rate), error, self._breach
            )
            for gate in self.entry.gates
            if gate in (gates.OF_SLOW if self.spec.scenario == "latency" else gates.OF_FAILED)
        ]
        return min((bound for bound in bounds if bound is not None), default=None)


def _row(taken: Taken) -> dict[str, Any]:
    return {
        "run": taken.run,
        "gate": taken.metric,
        "at_s": round(taken.finished_s, 3),
        "value": taken.value,
        "phase": taken.phase,
        "message": taken.message or None,
    }


def _inject(url: str, **fault: float) -> None:
    """Tells the canary how to fail from its next request on."""
    try:
        with requests.Session() as session:
            # Whatever proxy there is, the canary is on this machine.
            session.trust_env = False
            session.post(f"{url}/fault", json=fault, timeout=5).raise_for_status()
    except requests.RequestException as error:
        raise TransientError(f"canary: the fault could not be injected: {type(error).__name__}") from error


def _allow_open_files(wanted: int) -> None:
    """This process may open so many files, as far as it is allowed to allow itself that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _known(control: _Control | None) -> _Control:
    if control is None:
        raise PermanentError("found an embedded scraper, allowed: Prometheus")
    return control
