"""What a canary drill is held with, and what is done to it: two services, router, clients, and whoever scrapes.

    with Stage(spec, canaries, folder) as stage:
        stage.router.set_weight(5)
        stage.break_()

All of it listens on loopback and ends with the block, or with this process. Not here: the Rollout, and what is measured.
"""

from __future__ import annotations

import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from greenops_pipelines.errors import PermanentError, TransientError
from greenops_pipelines.process import prometheus
from greenops_pipelines.process.child import Child, base_environment
from greenops_pipelines.slo import gates
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.clients import Clients
from greenops_pipelines.slo.drill_results import Spec, error_ratio
from greenops_pipelines.slo.prometheus import Metrics, Prometheus
from greenops_pipelines.slo.router import Router

_START_SECONDS = 30.0
_TICK_SECONDS = 0.05
RESTART_SECONDS = 5.0
"""How long Prometheus is away in `prometheus-restart`. It scrapes again five to twenty seconds after it is back: away for 20 s,
it leaves windows with a single sample, and sometimes three of them, which takes a good canary back."""
_SLOW_SECONDS, _PULSE_SECONDS = 2.0, 3.0
"""In `prometheus-slow` it stands still for so long, that often."""
_SLOW = 1.2
"""An injected delay, times what is allowed: over it, and below the router's timeout."""
_CONNECTIONS = 2048
_OPEN_FILES = 8192
"""Each open request takes three: at the client, and on both sides of the router."""
_LOOKBACK_SECONDS = 300.0


class Stage:
    """Started by its `with` block. The canary is scraped and served, and gets no request until the router says so."""

    router: Router
    clients: Clients
    metrics: Metrics

    def __init__(self, spec: Spec, canaries: Canaries, folder: Path) -> None:
        self._spec, self._canaries, self._folder = spec, canaries, folder
        self._entry = canaries.services[spec.service]
        self._stack = ExitStack()
        self._children: dict[str, Child] = {}
        self._urls: dict[str, str] = {}
        self._hashes = {version: secrets.token_hex(5) for version in ("stable", "canary")}
        self._server: prometheus.Server | None = None
        self._upkeep: Callable[[float], None] | None = None
        self.source = "none"

    @property
    def canary_hash(self) -> str:
        """The canary's pod template hash, which its pod is named by."""
        return self._hashes["canary"]

    @property
    def slow_seconds(self) -> float:
        """How long a request takes under `latency`: more than the gate allows, which judges it by P95 or by LCP."""
        if self._entry.latency is not None:
            return _SLOW * self._entry.latency.p95_seconds
        return _SLOW * (self._entry.web_vitals.lcp_seconds if self._entry.web_vitals else 1.0)

    def __enter__(self) -> Self:
        try:
            _allow_open_files(_OPEN_FILES)
            for version, number in (("stable", "1.0.0"), ("canary", "1.1.0")):
                self._start(version, number)
            self.metrics = self._scraping()
            stable, canary = self._urls["stable"], self._urls["canary"]
            self.router = self._stack.enter_context(
                Router(stable, canary, timeout_seconds=self._canaries.timeout_s, concurrency=_CONNECTIONS)
            )
            self.clients = self._stack.enter_context(Clients(self.router.url, self._spec.rate, _CONNECTIONS))
            self._await_scrapes()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def break_(self) -> None:
        """What the scenario does, from now on."""
        scenario = self._spec.scenario
        ratio = error_ratio(scenario)
        if ratio is not None:
            self._inject(error_ratio=ratio)
        elif scenario == "latency":
            self._inject(delay_seconds=self.slow_seconds)
        elif scenario == "metrics-vanish":
            self._inject(hides_metrics=True)
        elif scenario == "canary-dies":
            self._children["canary"].send_signal(signal.SIGKILL)
        elif scenario == "prometheus-hangs":
            self._prometheus.pause()
        elif scenario == "prometheus-slow":
            self._inject(error_ratio=1.0)
            self._upkeep = self._pulse
        elif scenario in ("prometheus-down", "prometheus-restart"):
            self._prometheus.stop()
            if scenario == "prometheus-restart":
                self._upkeep = self._bring_back

    def tick(self, since_breach: float) -> None:
        """What goes on meanwhile; `since_breach` in the Rollout's seconds. Raises where a program ended by itself."""
        if self._upkeep is not None:
            self._upkeep(since_breach)
        for version, child in self._children.items():
            if not child.running and not (version == "canary" and self._spec.scenario == "canary-dies"):
                raise PermanentError(f"{version} service: ended by itself; its log ends:\n{child.tail()}")

    def heal(self) -> None:
        """A Prometheus that stands still goes on, so that it can end."""
        self._upkeep = None
        if self._server is not None:
            self._server.resume()

    def _pulse(self, since_breach: float) -> None:
        if since_breach % _PULSE_SECONDS < _SLOW_SECONDS:
            self._prometheus.pause()
        else:
            self._prometheus.resume()

    def _bring_back(self, since_breach: float) -> None:
        if since_breach >= RESTART_SECONDS:
            self._upkeep = None
            self._prometheus.start()

    @property
    def _prometheus(self) -> prometheus.Server:
        if self._server is None:
            raise PermanentError("found an embedded scraper, allowed: Prometheus")
        return self._server

    def _start(self, version: str, number: str) -> None:
        port_file = self._folder / f"{version}.port"
        command: list[str | Path] = [
            sys.executable,
            *("-m", "greenops_pipelines.slo.drilled_service"),
            *("--service", self._spec.service, "--version", number),
            *("--pod", self._pod(version), "--port-file", port_file),
        ]
        environment = base_environment() | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        child = self._stack.enter_context(
            Child.start(command, log=self._folder / f"{version}.log", env=environment, grace_seconds=2.0)
        )
        child.wait_until(port_file.exists, _START_SECONDS)
        self._children[version] = child
        self._urls[version] = f"http://127.0.0.1:{int(port_file.read_text(encoding='ascii'))}"

    def _pod(self, version: str) -> str:
        return f"{self._spec.service}-{self._hashes[version]}-0"

    def _scraping(self) -> Metrics:
        speed = self._spec.speed
        targets = [
            (
                url.removeprefix("http://"),
                {"job": prometheus.JOB, "namespace": self._canaries.namespace, "pod": self._pod(version)},
            )
            for version, url in self._urls.items()
        ]
        every, lookback = self._canaries.scrape_s / speed, _LOOKBACK_SECONDS / speed
        if self._spec.embedded or not prometheus.found():
            from greenops_pipelines.slo.scraper import Scraper

            self.source = Scraper.name
            kept = max(lookback, 4 * self._canaries.window_s / speed)
            return self._stack.enter_context(Scraper(targets, every, kept, lookback_seconds=lookback))
        self._server = self._stack.enter_context(
            prometheus.running(self._folder / "prometheus", targets, every, lookback_seconds=lookback)
        )
        self.source = f"Prometheus {prometheus.version()}"
        return Prometheus(self._server.url, gates.QUERY_TIMEOUT_SECONDS / speed)

    def _await_scrapes(self) -> None:
        """Both are seen before anything begins, as pods of a service in production are."""
        deadline = time.monotonic() + _START_SECONDS + 2 * self._canaries.scrape_s / self._spec.speed
        while True:
            try:
                if self.metrics.query(f'sum(up{{job="{prometheus.JOB}"}})').values == (2.0,):
                    return
            except TransientError:
                pass
            if time.monotonic() > deadline:
                raise TransientError(f"{self.source}: found one of the two services not scraped in time")
            time.sleep(_TICK_SECONDS)

    def _inject(self, **fault: float | bool) -> None:
        """Tells the canary how to fail from its next request on."""
        try:
            with requests.Session() as session:
                # Whatever proxy there is, the canary is on this machine.
                session.trust_env = False
                session.post(f"{self._urls['canary']}/fault", json=fault, timeout=5).raise_for_status()
        except requests.RequestException as error:
            raise TransientError(f"canary: the fault could not be injected: {type(error).__name__}") from error


def _allow_open_files(wanted: int) -> None:
    """This process may open so many files, as far as it is allowed to allow itself that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
