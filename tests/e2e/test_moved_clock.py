"""The schedules of reports fire in a real daemon whose clock is moved over the third of a month that is a Monday."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from greenops_pipelines.carbon.regions import read_regions, read_tenants
from greenops_pipelines.cost.sources import find
from greenops_pipelines.integrations.once import prepare_home
from greenops_pipelines.process.child import Child
from greenops_pipelines.report.finops_reconciled import read_back
from greenops_pipelines.settings import load_settings
from tests.cost.small_cost_lake import cost_lake
from tests.real import program

_ROOT = Path(__file__).parents[2]
BEFORE, AFTER = datetime(2026, 8, 3, 5, 0, tzinfo=UTC), datetime(2026, 8, 3, 6, 23, 10, tzinfo=UTC)
SCHEDULES = {"finops_report_monthly": "2026-07", "finops_report_weekly": "2026-W31"}

# With a real monotonic clock, libfaketime 0.9.10 still moves the end of a sleep that is given as a time of that clock.
_SLEEP = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds)
"""


@dataclass(frozen=True)
class Clock:
    """What libfaketime reads anew at every look: the offset from the real time."""

    file: Path

    def move(self, to: datetime) -> None:
        """From now on it is `to`, and goes on from there."""
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(f"{to.timestamp() - time.time():+.0f}\n", encoding="utf-8")
        temporary.replace(self.file)


@dataclass(frozen=True)
class Daemon:
    home: Path
    clock: Clock
    instance: dg.DagsterInstance

    def until(self, look: Callable[[], object], seconds: float) -> None:
        """Wait for `look` to be true; fails with the daemon's log."""
        deadline = time.monotonic() + seconds
        while not look():
            if time.monotonic() > deadline:
                log = (self.home / "logs" / "dagster-daemon.log").read_text(encoding="utf-8")
                pytest.fail(f"not within {seconds} s; the daemon's log ends:\n{log[-4000:]}")
            time.sleep(0.5)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    program("faketime", "Debian's faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    assert library is not None
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(_ROOT / "ops"))
    monkeypatch.setenv("GREENOPS_DBT_DIR", str(_ROOT / "dbt"))
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SLEEP, encoding="utf-8")
    settings = load_settings()
    tenants = [(t.tenant, t.home_region) for t in read_tenants(settings.ops_dir, read_regions(settings.ops_dir))]
    # The bills of three months, as of that morning.
    cost_lake(tmp_path, (_ROOT / "ops" / "cost.yaml").read_text(encoding="utf-8"), find(settings, tenants, BEFORE))
    prepare_home(settings)
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(
        f"load_from:\n  - python_module:\n      module_name: tests.e2e.reports_only\n"
        f"      working_directory: {_ROOT}\n      location_name: greenops\n",
        encoding="utf-8",
    )
    clock = Clock(tmp_path / "clock")
    clock.move(BEFORE)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(settings.dagster_home),
        "PYTHONPATH": os.pathsep.join([str(site), str(_ROOT), os.environ.get("PYTHONPATH", "")]),
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock.file),
        "FAKETIME_NO_CACHE": "1",
        # What waits for a time to pass goes by the monotonic clock, which stays real; so do times of files.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    command = [Path(sys.executable).parent / "dagster-daemon", "run", "-w", workspace]
    log = tmp_path / "logs" / "dagster-daemon.log"
    with (
        dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance,
        Child.start(command, log=log, env=environment, cwd=tmp_path),
    ):
        yield Daemon(tmp_path, clock, instance)


@pytest.mark.real
def test_month_and_week_are_reported_when_their_hour_comes(daemon: Daemon) -> None:
    # The daemon has looked at both, and is past the look.
    daemon.until(lambda: len(daemon.instance.all_instigator_state()) == len(SCHEDULES), seconds=180)
    assert daemon.instance.get_runs_count() == 0
    daemon.clock.move(AFTER)
    made = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
    daemon.until(lambda: daemon.instance.get_runs_count(made) == len(SCHEDULES), seconds=300)
    runs = daemon.instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert {run.tags["dagster/schedule_name"]: run.tags["greenops/period"] for run in runs} == SCHEDULES
    reports = daemon.home / "reports" / "finops"
    assert {path.stem for path in reports.glob("*.html")} == set(SCHEDULES.values())
    assert len(list((reports / "2026-07").glob("*.html"))) == 8
    html = (reports / "2026-07.html").read_text(encoding="utf-8")
    assert set(read_back(html)) == {"EUR", "USD"}
    # Made when it was that morning there.
    assert "Made 2026-08-03 06:2" in html
