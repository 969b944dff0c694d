"""Whatever is killed, whenever: each piece of work is completed once, never runs twice at once, and leaves a record.

A real daemon with its code server, run workers and programs; every few seconds one of them gets SIGKILL, and a daemon that
was killed is started again. Each program takes a lock that its death frees: where it is taken, two run at once.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from greenops_pipelines.integrations.once import prepare_home
from greenops_pipelines.placement import program
from greenops_pipelines.placement.ledger import Ledger
from greenops_pipelines.process import guard
from greenops_pipelines.process.child import Child
from greenops_pipelines.settings import load_settings
from tests.placement.small_ops import document

_ROOT = Path(__file__).parents[2]
_SCRIPT = """
exec 9>"$1.lock"
flock --nonblock 9 || { echo "two at once" >> "$1"; exit 9; }
echo "begun $GREENOPS_PLACEMENT_ATTEMPT" >> "$1"
sleep "$2"
echo "done $GREENOPS_PLACEMENT_ATTEMPT" >> "$1"
"""


def _processes() -> list[tuple[str, psutil.Process]]:
    """What can be killed, by kind: everything below this process that belongs to a launch, or is the daemon."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            kinds = {
                "program's supervisor": program.__file__,
                "guard": f"{guard.__file__} 30.0",
                "daemon": "bin/dagster-daemon run",
                "run worker": "multiprocessing.spawn",
                "program": "flock --nonblock",
            }
            for kind, mark in kinds.items():
                if mark in line and (kind != "daemon" or guard.__file__ not in line):
                    found.append((kind, process))
                    break
    return found


@pytest.mark.soak
@pytest.mark.parametrize("kills", [20])
def test_work_is_done_once_whoever_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ops = tmp_path / "ops"
    ops.mkdir()
    for file in (_ROOT / "ops").rglob("*.yaml"):
        (ops / file.relative_to(_ROOT / "ops")).parent.mkdir(exist_ok=True, parents=True)
        (ops / file.relative_to(_ROOT / "ops")).write_text(file.read_text())
    (ops / "workloads.yaml").write_text("workloads: []\n")
    home = tmp_path / "home"
    for name, value in {"HOME": home, "OPS_DIR": ops, "DBT_DIR": _ROOT / "dbt", "CARBON_LOOKBACK_DAYS": 1}.items():
        monkeypatch.setenv(f"GREENOPS_{name}", str(value))
    settings = load_settings()
    prepare_home(settings)
    inbox, marks, draw = settings.inbox / "placement", tmp_path / "marks", random.Random(2026)
    inbox.mkdir(parents=True)
    marks.mkdir()
    start = datetime.now(UTC).replace(second=0, microsecond=0)
    keys = [f"job-{number:02}" for number in range(12)]
    for key in keys:
        command = ["sh", "-c", _SCRIPT, "job", str(marks / key), str(draw.randint(4, 12))]
        runner = {"kind": "local", "command": command, "timeout_minutes": 5}
        fields = {"earliest_start": start.isoformat(), "duration_minutes": 1, "window_minutes": 20, "runner": runner}
        (inbox / f"{key}.json").write_text(json.dumps(document(key, tenant="nordlys-energi", **fields)))
    environment = {**os.environ, "DAGSTER_HOME": str(settings.dagster_home), "PYTHONPATH": str(_ROOT)}
    ledger, killed, limit = Ledger(settings.dispatches), Counter[str](), time.monotonic() + 1500

    def started() -> Child:
        args = [Path(sys.executable).parent / "dagster-daemon", "run", "-w", _ROOT / "workspace.yaml"]
        return Child.start(args, log=home / "daemon.log", env=environment, cwd=_ROOT)

    daemon = started()
    try:
        while any(ledger.outcome(key) is None for key in keys):
            assert time.monotonic() < limit, (home / "daemon.log").read_text()[-3000:]
            time.sleep(draw.uniform(1, 5))
            if not daemon.running:
                daemon.terminate()
                daemon = started()
            living = _processes()
            # From the first launch on; whichever kind, each as often as the others.
            if sum(killed.values()) < kills and any(kind == "program" for kind, _ in living):
                kind = draw.choice(sorted({kind for kind, _ in living}))
                process = draw.choice([process for other, process in living if other == kind])
                with suppress(psutil.NoSuchProcess):
                    process.kill()
                    killed[kind] += 1
    finally:
        daemon.terminate()
    lines = {key: (marks / key).read_text().splitlines() for key in keys}
    with capsys.disabled():
        sys.stdout.write(f"\n    killed: {dict(killed)}\n")
        for key in keys:
            tried = ", ".join(f"{each.attempt} {each.outcome}" for each in ledger.tried(key))
            sys.stdout.write(f"    {key}: {ledger.outcome(key)}; attempts: {tried}\n")
    assert sum(killed.values()) == kills
    assert {ledger.outcome(key) for key in keys} == {"succeeded"}
    for key in keys:
        outcomes = [each.outcome for each in ledger.tried(key)]
        assert outcomes.count("succeeded") == 1
        assert set(outcomes) <= {"lost", "failed", "succeeded"}
        assert "two at once" not in lines[key]
        assert sum(line.startswith("done") for line in lines[key]) == 1
