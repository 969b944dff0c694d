"""Schedules fire in a real daemon whose clock is moved: reports over the third of a month that is a Monday, a GameDay over the
end of a month."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from greenops_pipelines import wiring
from greenops_pipelines.carbon.regions import read_regions, read_tenants
from greenops_pipelines.cost.sources import find
from greenops_pipelines.integrations.once import prepare_home
from greenops_pipelines.process.child import Child
from greenops_pipelines.report.finops_reconciled import read_back
from greenops_pipelines.report.scorecard import scorecard
from greenops_pipelines.settings import load_settings
from tests.cost.small_cost_lake import cost_lake
from tests.patience import PATIENCE
from tests.real import program

# Six minutes of a daemon's life; what it does then, the tests of the graph and of the domains show every time.
pytestmark = pytest.mark.soak

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
        deadline = time.monotonic() + seconds * PATIENCE
        while not look():
            if time.monotonic() > deadline:
                log = (self.home / "logs" / "dagster-daemon.log").read_text(encoding="utf-8")
                pytest.fail(f"not within {seconds * PATIENCE} s; the daemon's log ends:\n{log[-4000:]}")
            time.sleep(0.5)


@contextmanager
def moved(home: Path, module: str, now: datetime) -> Iterator[Daemon]:
    """A daemon over `home` that loads `module`, and for which it is `now`. The caller has set what else it needs."""
    program("faketime", "Debian's faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    assert library is not None
    site = home / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SLEEP, encoding="utf-8")
    settings = load_settings()
    prepare_home(settings)
    workspace = home / "workspace.yaml"
    workspace.write_text(
        f"load_from:\n  - python_module:\n      module_name: {module}\n"
        f"      working_directory: {_ROOT}\n      location_name: greenops\n",
        encoding="utf-8",
    )
    clock = Clock(home / "clock")
    clock.move(now)
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
    log = home / "logs" / "dagster-daemon.log"
    with (
        dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance,
        Child.start(command, log=log, env=environment, cwd=home),
    ):
        yield Daemon(home, clock, instance)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    program("faketime", "Debian's faketime")
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(_ROOT / "ops"))
    monkeypatch.setenv("GREENOPS_DBT_DIR", str(_ROOT / "dbt"))
    settings = load_settings()
    tenants = [(t.tenant, t.home_region) for t in read_tenants(settings.ops_dir, read_regions(settings.ops_dir))]
    # The bills of three months, as of that morning.
    cost_lake(tmp_path, (_ROOT / "ops" / "cost.yaml").read_text(encoding="utf-8"), find(settings, tenants, BEFORE))
    with moved(tmp_path, "tests.e2e.reports_only", BEFORE) as running:
        yield running


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


_GAMEDAYS = """
gameday: {weekday: tuesday, week: 1, hour: 9}
objectives: {rto_minutes: 15, rpo_seconds: 1}
drill: {rate: 50, clients: 4, wan_ms: 10, probe_timeout_seconds: 1, steady_seconds: 0.5, sync: "off"}
rotation: [kill]
databases:
  - {name: platform-us, primary: us-east-1, standby: eu-central-1, tenants: [bluefield-retail]}
  - {name: platform-eu, primary: eu-central-1, standby: us-east-1, tenants: [helvetia-foundation]}
replica: {home_region: eu-central-1, region: eu-west-1}
"""
NOVEMBER, DECEMBER = datetime(2026, 11, 30, 23, 50, tzinfo=UTC), datetime(2026, 12, 1, 9, 7, 10, tzinfo=UTC)


@pytest.mark.real
def test_gameday_is_held_when_the_month_is_over_and_its_hour_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first Tuesday of December 2026 is the 1st."""
    ops = tmp_path / "ops"
    ops.mkdir()
    for path in (_ROOT / "ops").glob("*.yaml"):
        (ops / path.name).write_bytes(path.read_bytes())
    (ops / "gamedays.yaml").write_text(_GAMEDAYS, encoding="utf-8")
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(ops))
    monkeypatch.setenv("GREENOPS_DBT_DIR", str(_ROOT / "dbt"))
    monkeypatch.setenv("GREENOPS_EVIDENCE_GPG", "off")
    with moved(tmp_path, "tests.e2e.gameday_only", NOVEMBER) as daemon:
        daemon.until(lambda: len(daemon.instance.all_instigator_state()) == 1, seconds=180)
        assert daemon.instance.get_runs_count() == 0
        daemon.clock.move(DECEMBER)
        made = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
        daemon.until(lambda: daemon.instance.get_runs_count(made) == 1, seconds=400)
        [run] = daemon.instance.get_runs()
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert run.tags["greenops/gameday"] == "2026-12"
        assert run.tags["dagster/run_key"] == "gameday:2026-12"
        # An hour later it is asked again, and not held again.
        daemon.clock.move(DECEMBER.replace(hour=10))
        log = tmp_path / "logs" / "dagster-daemon.log"
        daemon.until(lambda: "2026-12 was held" in log.read_text(encoding="utf-8"), seconds=120)
        assert daemon.instance.get_runs_count() == 1
    lake = wiring.lake(load_settings())
    drills = lake.query(
        "select gameday, scenario, primary_region, verdict, began_at, bundle from recovery_drills order by all"
    ).to_pylist()
    assert {row["gameday"] for row in drills} == {"2026-12"}
    assert sorted((row["scenario"], row["primary_region"], row["verdict"]) for row in drills) == [
        ("kill", "eu-central-1", "passed"),
        ("kill", "us-east-1", "passed"),
        ("stall", "us-east-1", "missed as intended"),
    ]
    assert {row["began_at"].date().isoformat() for row in drills} == {"2026-12-01"}
    assert all(row["bundle"] for row in drills)
    # The scorecard shows the month.
    card = {row["id"]: row for row in scorecard(lake, datetime(2026, 12, 1, 12, tzinfo=UTC)).to_pylist()}
    assert [card[name]["verdict"] for name in ("J4.1", "J4.2", "J4.2-rpo", "J4.4")] == ["met"] * 4
    [held] = lake.query(
        "select detail from check_results where \"check\" = 'recovery/gameday:held' order by checked_at desc limit 1"
    ).to_pylist()
    assert held["detail"] == "held: 2026-12"
