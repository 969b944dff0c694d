"""What is made in another process: its outcome, and what is left of it however it ends. Real processes, real signals."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path

import dagster as dg
import psutil
import pytest

from greenops_pipelines import orphans
from greenops_pipelines.integrations import beside, once
from greenops_pipelines.integrations.beside import Begun, Told, begun
from greenops_pipelines.process.child import Child
from greenops_pipelines.settings import load_settings
from tests.patience import PATIENCE

SMALL = """
import pathlib, time, warnings
import dagster as dg

folder = pathlib.Path(__file__).parent

@dg.asset
def good():
    warnings.warn("noise of the library", dg.BetaWarning)

@dg.asset
def bad():
    raise ValueError("first line\\nsecond line")

@dg.asset_check(asset=good, blocking=False)
def high():
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="too low")

@dg.asset_check(asset=good)
def present():
    return dg.AssetCheckResult(passed=True, description="all there")

@dg.asset(retry_policy=dg.RetryPolicy(max_retries=3, delay=60), tags={"greenops/runs": "beside"})
def slow():
    (folder / "begun").touch()
    while True:
        time.sleep(0.05)

@dg.asset(retry_policy=dg.RetryPolicy(max_retries=3, delay=60))
def busy():
    raise ValueError("again later")

@dg.asset(deps=[slow])
def card():
    pass

@dg.asset
def other():
    pass

defs = dg.Definitions([good, bad, slow, busy, card, other], asset_checks=[high, present], executor=dg.in_process_executor)
"""

# In the place of the other process where no run is needed: an outcome that tells its key, or none and no end.
FAKE = """
import json, pathlib, sys, time
outcome, _, key = sys.argv[1:]
(pathlib.Path(__file__).parent / f"begun {key}").touch()
while key == "slow":
    time.sleep(0.05)
pathlib.Path(outcome).write_text(json.dumps({"failures": [key], "checks": {}}))
"""

# In the place of `greenops run`.
WHOLE = """
import os, pathlib, sys
from greenops_pipelines.integrations import beside
folder = pathlib.Path(__file__).parent
beside._PROGRAM = [sys.executable, folder / "fake.py"]
with beside.begun([sys.argv[1]], folder / "logs", os.environ) as run:
    print("begun", flush=True)
    sys.stdin.readline()
    print(run.join().failures, sorted(path.name for path in (folder / "logs").iterdir()), flush=True)
"""


def eventually(true: Callable[[], object], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds * PATIENCE
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose databases are there already: they take seconds to make."""
    folder = tmp_path_factory.mktemp("template")
    for name, text in {"small_assets.py": SMALL, "fake.py": FAKE, "whole.py": WHOLE}.items():
        (folder / name).write_text(text, encoding="utf-8")
    config = "telemetry: {enabled: false}\n" + (
        "compute_logs: {module: dagster._core.storage.noop_compute_log_manager, class: NoOpComputeLogManager}\n"
    )
    (folder / "dagster").mkdir()
    (folder / "dagster" / "dagster.yaml").write_text(config, encoding="utf-8")
    with dg.DagsterInstance.from_config(str(folder / "dagster")):
        return folder


@pytest.fixture
def home(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with the small assets, which `begun` loads."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    for name, value in {
        "DAGSTER_HOME": str(tmp_path / "dagster"), "GREENOPS_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(beside, "_DEFINITIONS", "small_assets")
    monkeypatch.syspath_prepend(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    sys.modules.pop("small_assets", None)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as found:
        yield found


@pytest.fixture
def fake(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_PROGRAM", [sys.executable, home / "fake.py"])


def made(home: Path, *keys: str) -> Told:
    with begun(keys, home / "logs", os.environ) as run:
        return run.join()


def child_of(home: Path, run: Begun) -> Child:
    """It is at work."""
    assert run.child is not None
    assert eventually(lambda: any(home.glob("begun*"))), run.child.tail()
    return run.child


def descendants(pid: int | None = None) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def statuses(instance: dg.DagsterInstance) -> list[dg.DagsterRunStatus]:
    return [run.status for run in instance.get_runs()]


def execute(instance: dg.DagsterInstance, *keys: str) -> Told:
    from small_assets import defs  # type: ignore[import-not-found]

    job = defs.resolve_implicit_global_asset_job_def()
    return once.told(once.execute(job, instance, [dg.AssetKey(key) for key in keys], {}, lambda name: None))


@contextmanager
def signalled(number: signal.Signals, when: Callable[[], object]) -> Iterator[None]:
    """This process gets the signal as soon as that is so."""

    def send() -> None:
        if eventually(when):
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_a_good_run_tells_its_checks_and_leaves_its_log(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = made(home, "good")
    assert found == Told([], {"good:high": (False, "good:high: too low"), "good:present": (True, "")})
    assert [path.name for path in (home / "logs").iterdir()] == ["beside.log"]
    assert "noise of the library" in (home / "logs" / "beside.log").read_text(encoding="utf-8")
    assert capfd.readouterr() == ("", "")


def test_a_failed_step_is_told_by_its_first_line(home: Path) -> None:
    outcome = home / "outcome.json"
    assert beside.main(outcome, "small_assets", ["bad", "other"]) == 0
    assert json.loads(outcome.read_text(encoding="utf-8")) == {
        "failures": ["bad: ValueError: first line"],
        "checks": {},
    }


def test_without_keys_there_is_no_process(home: Path) -> None:
    with begun([], home / "logs", os.environ) as run:
        assert run.join() == Told()
    assert not (home / "logs").exists()


def test_what_cannot_be_loaded_is_one_line_that_names_the_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_DEFINITIONS", "not_there")
    assert made(home, "good").failures == [
        f"the run beside ended with 1 and no outcome; its log {home}/logs/beside.log ends: "
        "ModuleNotFoundError: No module named 'not_there'"
    ]


@contextmanager
def forked(home: Path, key: str, module: str = "small_assets") -> Iterator[BaseProcess]:
    """`main` in a process that has loaded Dagster already; it is at work."""
    process = multiprocessing.get_context("fork").Process(
        target=lambda: sys.exit(beside.main(home / "outcome.json", module, [key]))
    )
    process.start()
    try:
        assert eventually((home / "begun").exists)
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def test_the_run_of_a_killed_process_is_ended_by_orphans(home: Path, instance: dg.DagsterInstance) -> None:
    with forked(home, "slow") as process:
        assert orphans.end_orphans(instance) == []
        process.kill()
        process.join()
        [left] = instance.get_runs()
        assert left.status == dg.DagsterRunStatus.STARTED
        assert orphans.end_orphans(instance) == [left.run_id]
    assert statuses(instance) == [dg.DagsterRunStatus.FAILURE]
    assert orphans.end_orphans(instance) == []


def test_sigterm_closes_the_run_within_seconds(home: Path, instance: dg.DagsterInstance) -> None:
    with forked(home, "slow") as process:
        process.terminate()
        process.join(9)
        assert process.exitcode == 130
    assert statuses(instance) == [dg.DagsterRunStatus.FAILURE]
    assert not (home / "outcome.json").exists()


def test_sigterm_before_the_run_ends_it_in_order(home: Path) -> None:
    text = "import pathlib, time\npathlib.Path(__file__).with_name('begun').touch()\ntime.sleep(60)\n"
    (home / "loads_long.py").write_text(text, encoding="utf-8")
    with forked(home, "slow", "loads_long") as process:
        process.terminate()
        process.join(9)
        assert process.exitcode == 130


@pytest.mark.usefixtures("fake")
def test_a_killed_process_is_one_line_that_names_the_log(home: Path) -> None:
    with begun(["slow"], home / "logs", os.environ) as run:
        child_of(home, run).send_signal(signal.SIGKILL)
        assert run.join().failures == [
            f"the run beside ended with 137 and no outcome; its log {home}/logs/beside.log ends: (empty)"
        ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_step_is_not_made_again(
    home: Path, instance: dg.DagsterInstance, number: signal.Signals
) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asked = time.monotonic()
    with pytest.raises(KeyboardInterrupt), signalled(number, (home / "begun").exists):
        execute(instance, "slow")
    assert time.monotonic() - asked < 30
    assert statuses(instance) == [dg.DagsterRunStatus.FAILURE]


def test_a_signal_ends_the_wait_for_a_retry(home: Path, instance: dg.DagsterInstance) -> None:
    def waits() -> bool:
        kind = dg.DagsterEventType.STEP_UP_FOR_RETRY
        return any(instance.all_logs(run.run_id, of_type=kind) for run in instance.get_runs())

    asked = time.monotonic()
    with pytest.raises(KeyboardInterrupt), signalled(signal.SIGTERM, waits):
        execute(instance, "busy")
    assert time.monotonic() - asked < 30
    assert statuses(instance) == [dg.DagsterRunStatus.FAILURE]


def test_sigterm_keeps_its_handler_where_sigint_is_ignored(home: Path, instance: dg.DagsterInstance) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    execute(instance, "other")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("fake")
def test_it_is_ended_after_the_most_it_may_take(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_MOST_SECONDS", 0.2)
    # Other tests of this process may have left a fork server.
    before = set(descendants())
    with begun(["slow"], home / "logs", os.environ) as run:
        child_of(home, run)
        assert run.join().failures == [
            f"the run beside was ended after 0.2 s; its log {home}/logs/beside.log ends: (empty)"
        ]
        assert set(descendants()) <= before


@pytest.mark.usefixtures("fake")
def test_what_comes_after_is_made_though_the_run_beside_failed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from small_assets import defs

    monkeypatch.setattr(beside, "_MOST_SECONDS", 0.0)
    settings = load_settings()
    planned = once.plan(defs, settings, 'key:"slow" or key:"card" or key:"other"', datetime.now(UTC))
    told: list[str] = []
    outcome = once.run(defs, planned, settings, told.append)
    assert len(outcome.failures) == 1
    assert outcome.failures[0].startswith("the run beside was ended after 0 s")
    assert [name for name in told if not name.endswith(" ...")] == ["other", "slow", "card"]


def whole(home: Path, key: str) -> subprocess.Popen[str]:
    """`begun` in a process of its own, which joins after a line."""
    program = subprocess.Popen(
        [sys.executable, home / "whole.py", key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "begun\n"
    assert eventually((home / f"begun {key}").exists)
    return program


def test_two_at_once_do_not_disturb_each_other(home: Path) -> None:
    first, second = whole(home, "first"), whole(home, "second")
    assert eventually(lambda: len(list((home / "logs").glob("beside.*.json"))) == 2)
    assert first.communicate("\n")[0] == (
        f"['first'] ['beside.{first.pid}.json', 'beside.{second.pid}.json', 'beside.log']\n"
    )
    assert second.communicate("\n")[0] == f"['second'] ['beside.{second.pid}.json', 'beside.log']\n"
    assert [path.name for path in (home / "logs").iterdir()] == ["beside.log"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_whoever_ends_the_first(home: Path, number: signal.Signals) -> None:
    program = whole(home, "slow")
    tree = descendants(program.pid)
    assert len(tree) == 2
    program.send_signal(number)
    program.communicate()
    assert eventually(lambda: not any(process.is_running() for process in tree), 12)
