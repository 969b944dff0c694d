"""Dagster's UI and daemon as children of this process, on loopback, ended with it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.integrations.once import prepare_home
from greenops_pipelines.process.child import Child
from greenops_pipelines.settings import Settings

_START_SECONDS = 90.0


@contextmanager
def running(settings: Settings, workspace: Path) -> Iterator[tuple[Child, Child]]:
    """Start webserver and daemon for `workspace`; the webserver answers when the block begins."""
    if not workspace.exists():
        raise ConfigurationError(f"{workspace.name}: not in {Path.cwd()}; start from the project's root")
    prepare_home(settings)
    logs = settings.home / "logs"
    environment = {**os.environ, "DAGSTER_HOME": str(settings.dagster_home)}
    programs = Path(sys.executable).parent
    web: list[str | Path] = [
        programs / "dagster-webserver",
        "-w",
        workspace,
        "-h",
        "127.0.0.1",
        "-p",
        str(settings.ui_port),
    ]
    daemon: list[str | Path] = [programs / "dagster-daemon", "run", "-w", workspace]
    with (
        Child.start(web, log=logs / "dagster-webserver.log", env=environment, cwd=workspace.parent) as webserver,
        Child.start(daemon, log=logs / "dagster-daemon.log", env=environment, cwd=workspace.parent) as runner,
    ):
        webserver.wait_for_http(f"http://127.0.0.1:{settings.ui_port}/server_info", seconds=_START_SECONDS)
        yield webserver, runner


def serve_until_stopped(settings: Settings, say: Callable[[str], None]) -> int:
    """Run until SIGINT or SIGTERM (exit code 0), or until one of the two ends by itself (1)."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    say("starting the UI and the daemon ...")
    with running(settings, Path.cwd() / "workspace.yaml") as children:
        say(f"UI on http://127.0.0.1:{settings.ui_port}, schedules and sensors running; Ctrl-C stops both")
        while not stop.wait(1.0):
            ended = [child for child in children if not child.running]
            if ended:
                say(f"{ended[0].name} ended by itself; its log {ended[0].log} ends:\n{ended[0].tail()}")
                return 1
    return 0
