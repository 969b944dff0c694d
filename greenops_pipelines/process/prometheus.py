"""A real Prometheus on loopback, Debian's `prometheus`, with its data in a folder: started, paused, ended, started again.

Not here: what it is asked (`slo/prometheus.py`), and what the targets expose.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from greenops_pipelines.errors import BadInput, ConfigurationError, PermanentError
from greenops_pipelines.process.child import Child
from greenops_pipelines.process.ports import LOOPBACK, answers_http, free_port

PROGRAM = "prometheus"
INSTALL = "the Debian package prometheus"
JOB = "drill"
"""The label `job` of every target that brings none of its own."""
SAMPLE_LIMIT = 50_000
"""Samples of one scrape; a target with more of them is down, as far as Prometheus is concerned."""
_START_SECONDS = 30.0
_PORT_TRIES = 3

Target = tuple[str, Mapping[str, str]]
"""Its address, `127.0.0.1:8080`, and the labels that its series get where they have none of that name."""


def found() -> bool:
    """Whether it is installed."""
    return shutil.which(PROGRAM) is not None


def version() -> str:
    """Of the one that is installed: `2.42.0`; empty where it does not say."""
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=20, check=False)
    match = re.search(r"version ([0-9][0-9.]*)", done.stdout + done.stderr)
    return match[1] if match else ""


class Server:
    """A Prometheus that scrapes fixed targets. Ended by `stop` for good, or until the next `start`."""

    def __init__(
        self,
        folder: Path,
        targets: Sequence[Target],
        scrape_seconds: float,
        *,
        port: int | None = None,
        lookback_seconds: float = 300.0,
    ) -> None:
        """Use `running`."""
        if scrape_seconds < 0.001 or lookback_seconds < 0.001:
            raise BadInput(
                f"Prometheus: found a scrape interval of {scrape_seconds:g} s and a look-back of "
                f"{lookback_seconds:g} s, allowed: at least 0.001 s each"
            )
        self._folder = folder
        self._port = port
        self._lookback = _duration(lookback_seconds)
        self._child: Child | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(_config(targets, _duration(scrape_seconds)))

    @property
    def url(self) -> str:
        """http://127.0.0.1:<port>; the same over every `stop` and `start`."""
        return f"http://{LOOPBACK}:{self._port}"

    def start(self) -> None:
        """Returns once it answers queries. Does nothing while it runs.

        Raises `ConfigurationError` where it is not installed, `PermanentError` with the end of its log where it exits,
        and `TransientError` where it is not ready after 30 s.
        """
        if self._child is not None and self._child.running:
            return
        tries = _PORT_TRIES if self._port is None else 1
        for left in reversed(range(tries)):
            port = self._port or free_port()
            child = self._started(port)
            try:
                child.wait_until(functools.partial(_serves, child.pid, port), _START_SECONDS)
            except BaseException as error:
                child.terminate()
                if left and isinstance(error, PermanentError) and "address already in use" in str(error):
                    continue
                raise
            self._port, self._child = port, child
            return

    def _started(self, port: int) -> Child:
        return Child.start(
            [
                PROGRAM,
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={LOOPBACK}:{port}",
                f"--query.lookback-delta={self._lookback}",
                "--log.level=warn",
            ],
            log=self._folder / "prometheus.log",
            install=INSTALL,
        )

    def stop(self) -> None:
        """Ends it and keeps its data. May be called again, and while it is paused."""
        if self._child is not None:
            # A paused program sees SIGTERM only once it goes on: it would be killed after the grace, and hold everybody up.
            self.resume()
            self._child.terminate()
            self._child = None

    def pause(self) -> None:
        """It keeps its port and accepts connections, and answers nothing: SIGSTOP."""
        if self._child is not None:
            self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undoes `pause`."""
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)


@contextmanager
def running(
    folder: Path,
    targets: Sequence[Target],
    scrape_seconds: float,
    *,
    port: int | None = None,
    lookback_seconds: float = 300.0,
) -> Iterator[Server]:
    """A Prometheus that keeps its data below `folder`, for as long as the block lasts; it answers when the block begins.

    Its first scrape comes some 5 s later, whatever the interval, and again after each `start`: its discovery of targets
    hands them over every 5 s. `slo/prometheus.py: Prometheus.targets` tells when.

    `scrape_seconds` is both interval and timeout, in whole milliseconds. A label that a service exposes itself wins over
    the target's (`honor_labels`). `port` is a free one by default. `lookback_seconds` is how old a sample may be and still
    count as the present one. Raises as `Server.start`, and `BadInput` for an interval below a millisecond.
    """
    server = Server(folder, targets, scrape_seconds, port=port, lookback_seconds=lookback_seconds)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _serves(pid: int, port: int) -> bool:
    """Whether this very process does: where another Prometheus has the port, that one answers while this one still starts."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    listens = any(each.status == psutil.CONN_LISTEN and each.laddr[1] == port for each in connections)
    return listens and answers_http(f"http://{LOOPBACK}:{port}/-/ready")


def _config(targets: Sequence[Target], interval: str) -> str:
    for address, _ in targets:
        host, _, port = address.rpartition(":")
        if not host or "/" in address or not port.isdecimal():
            raise ConfigurationError(f"Prometheus: found the target {address!r}, allowed: an address as 127.0.0.1:8080")
    job = {
        "job_name": JOB,
        "scrape_interval": interval,
        "scrape_timeout": interval,
        "honor_labels": True,
        "sample_limit": SAMPLE_LIMIT,
        "static_configs": [{"targets": [address], "labels": dict(labels)} for address, labels in targets],
    }
    return json.dumps({"scrape_configs": [job]}, indent=2)  # JSON is YAML


def _duration(seconds: float) -> str:
    """As Prometheus reads it."""
    return f"{round(seconds * 1000)}ms"
