"""Runs whose process is gone: Dagster's default launcher does not notice when it died with the daemon.

Such a run would hold its place in the run queue until its time limit, and what waits in its lane would wait for hours.
Only runs that were started on this machine by that launcher, which says so in a tag. Not here: the work of such a run,
which is tried again by its own rules.
"""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC

import dagster as dg
import psutil
from dagster._core.storage.tags import GRPC_INFO_TAG

_SETTLED_SECONDS = 30.0
"""After a start: its process may not have said its number yet."""
_STATUSES = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def end_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Report every such run as failed; their ids."""
    found = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=_STATUSES)):
        run = record.dagster_run
        begun = record.start_time or record.create_timestamp.replace(tzinfo=UTC).timestamp()
        if GRPC_INFO_TAG not in run.tags or time.time() - begun < _SETTLED_SECONDS:
            continue
        pid = _pid(instance, run.run_id)
        # Before a run has begun, the server that was to begin it is all there is.
        if _answers(run.tags[GRPC_INFO_TAG]) if pid is None else _lives(pid, record.start_time or time.time()):
            continue
        # It may have ended by itself meanwhile.
        now = instance.get_run_by_id(run.run_id)
        if now is not None and now.status in _STATUSES:
            instance.report_run_failed(now, "Its process is gone: it was killed, or the machine went down.")
            found.append(run.run_id)
    return found


def _pid(instance: dg.DagsterInstance, run_id: str) -> int | None:
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        value = None if event is None else event.event_specific_data.metadata.get("pid")  # type: ignore[union-attr]
        if value is not None:
            return int(str(value.value))
    return None


def _lives(pid: int, started: float) -> bool:
    """Whether the process is there, and older than the run: a number is given again."""
    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= started)
    except psutil.NoSuchProcess:
        return False


def _answers(server: str) -> bool:
    """Whether anyone listens where the code server did."""
    told = json.loads(server)
    family, address = (
        (socket.AF_UNIX, told["socket"]) if told.get("socket") else (socket.AF_INET, (told["host"], told["port"]))
    )
    with socket.socket(family) as connection:
        connection.settimeout(5)
        try:
            connection.connect(address)
        except OSError:
            return False
    return True
