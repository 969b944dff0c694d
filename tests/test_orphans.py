"""Runs whose process is gone are ended, and no others."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.storage.tags import GRPC_INFO_TAG

from greenops_pipelines import orphans
from greenops_pipelines.definitions import defs


def begun(instance: dg.DagsterInstance, pid: int, tags: dict[str, str]) -> str:
    """A run that a process of that number works on, as the default launcher leaves it."""
    job = defs.resolve_job_def("maintenance")
    run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTING)
    data = EngineEventData({"pid": dg.MetadataValue.text(str(pid))})
    instance.report_engine_event("Started process for run", run, data)
    event = DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
    instance.report_dagster_event(event, run.run_id)
    return run.run_id


def test_a_run_that_never_began_is_ended_with_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_SETTLED_SECONDS", 0.0)
    address = str(tmp_path / "server")
    tags = {GRPC_INFO_TAG: json.dumps({"host": "localhost", "socket": address})}
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def("maintenance")
        run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTING)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(address)
            server.listen()
            assert orphans.end_orphans(instance) == []
        # A killed server leaves its file.
        assert Path(address).exists()
        assert orphans.end_orphans(instance) == [run.run_id]


def test_only_runs_of_dead_processes_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    later = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = {GRPC_INFO_TAG: "{}"}
    with dg.DagsterInstance.ephemeral() as instance:
        dead, alive, elsewhere = (
            begun(instance, gone.pid, here), begun(instance, os.getpid(), here), begun(instance, gone.pid, {})
        )  # fmt: skip
        assert orphans.end_orphans(instance) == []
        monkeypatch.setattr(orphans, "_SETTLED_SECONDS", 0.0)
        assert orphans.end_orphans(instance) == [dead]
        statuses = {run.run_id: run.status for run in instance.get_runs()}
        assert statuses[dead] == dg.DagsterRunStatus.FAILURE
        assert {statuses[alive], statuses[elsewhere]} == {dg.DagsterRunStatus.STARTED}
    # A number that was given again is not the run's process.
    assert orphans._lives(later.pid, time.time())
    assert not orphans._lives(later.pid, time.time() - 3600)
    later.communicate(b"\n")


def test_what_a_process_makes_itself_goes_with_it() -> None:
    def told(run_id: str, **other: object) -> dict[str, str]:
        here = json.loads(orphans.made_here(run_id)[orphans.PROCESS_TAG])
        return {orphans.PROCESS_TAG: json.dumps(here | other)}

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = {"pid": gone.pid}
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def("maintenance")

        def run(tags: Callable[[str], dict[str, str]], status: dg.DagsterRunStatus) -> str:
            run_id = str(uuid4())
            instance.create_run_for_job(job, run_id=run_id, tags=tags(run_id), status=status)
            return run_id

        started, planned = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED
        ended = {
            run(lambda run_id: told(run_id, **dead), started),
            run(lambda run_id: told(run_id, **dead), planned),
            # The number was given again.
            run(lambda run_id: told(run_id, started=time.time() - 3600), started),
        }
        kept = {
            run(told, started),
            run(told, planned),
            run(lambda run_id: told(run_id, host="elsewhere", **dead), started),
            # Executed again from the UI, with the tags of the first.
            run(lambda run_id: told("another", **dead), started),
            run(lambda run_id: {}, planned),
            run(lambda run_id: told(run_id, **dead), dg.DagsterRunStatus.SUCCESS),
        }
        assert set(orphans.end_orphans(instance)) == ended
        failed = {run.run_id for run in instance.get_runs() if run.status == dg.DagsterRunStatus.FAILURE}
        assert failed == ended
        assert not failed & kept
