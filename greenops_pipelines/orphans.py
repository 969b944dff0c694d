"""Runs whose process is gone: Dagster does not notice when a run died with the daemon, or with `greenops run`.

Such a run would hold its place in the run queue until its time limit, and what waits in its lane, or for what the run was
to make, would wait for hours. Only runs that were started on this machine: by the default launcher, which says so in a tag,
or by a process that makes them itself and put `made_here` among their tags. Not here: the work of such a run, which is
tried again by its own rules.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import dagster as dg
import psutil
from dagster._core.storage.tags import GRPC_INFO_TAG

PROCESS_TAG = "greenops/process"
_SETTLED_SECONDS = 30.0
"""After a start: its process may not have said its number yet."""
_SAME_START_SECONDS = 2.0
"""The system clock is part of a start time, and is corrected now and then."""
_STATUSES = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def made_here(run_id: str) -> dict[str, str]:
    """The tag of a run that this process makes itself: number and start of the process, machine.

    And the run, because one that is executed again from the UI has the tags of the first.
    """
    started = psutil.Process().create_time()
    return {
        PROCESS_TAG: json.dumps({"run": run_id, "pid": os.getpid(), "started": started, "host": socket.gethostname()})
    }


def end_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Report every such run as failed; their ids."""
    found = []
    # The launcher's runs wait as NOT_STARTED for their turn; one that its own process makes never waits.
    statuses = [dg.DagsterRunStatus.NOT_STARTED, *_STATUSES]
    for record in instance.get_run_records(dg.RunsFilter(statuses=statuses)):
        run = record.dagster_run
        told = json.loads(run.tags.get(PROCESS_TAG, "{}"))
        if not (_maker_is_gone(told) if told.get("run") == run.run_id else _worker_is_gone(instance, record)):
            continue
        # It may have ended by itself meanwhile.
        now = instance.get_run_by_id(run.run_id)
        if now is not None and now.status in statuses:
            instance.report_run_failed(now, "Its process is gone: it was killed, or the machine went down.")
            found.append(run.run_id)
    return found


def _maker_is_gone(told: Mapping[str, Any]) -> bool:
    if told["host"] != socket.gethostname():
        return False
    try:
        process = psutil.Process(told["pid"])
        is_another = abs(process.create_time() - told["started"]) > _SAME_START_SECONDS
        return bool(is_another or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _worker_is_gone(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    run = record.dagster_run
    begun = record.start_time or record.create_timestamp.replace(tzinfo=UTC).timestamp()
    if run.status not in _STATUSES or GRPC_INFO_TAG not in run.tags or time.time() - begun < _SETTLED_SECONDS:
        return False
    pid = _pid(instance, run.run_id)
    # Before a run has begun, the server that was to begin it is all there is.
    if pid is None:
        return not _answers(run.tags[GRPC_INFO_TAG])
    return not _lives(pid, record.start_time or time.time())


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
