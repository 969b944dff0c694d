"""A project of its own, with nothing of this repository but the wheel: a real daemon launches its job."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import pytest

from greenops_pipelines.errors import BadInput
from greenops_pipelines.integrations.dagster import carbon_aware_schedule
from greenops_pipelines.process.child import Child
from tests.patience import PATIENCE

_ROOT = Path(__file__).parents[2]
_TOY = Path(__file__).with_name("toy")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel, what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed")

    def run(*arguments: str | Path) -> None:
        done = subprocess.run([uv, *arguments], capture_output=True, text=True, check=False, cwd=folder, timeout=300)
        assert done.returncode == 0, done.stderr

    builder = ("--python", sys.executable)
    run("build", "--quiet", "--wheel", "--no-build-isolation", *builder, "--out-dir", folder, _ROOT)
    run("venv", "--quiet", *builder, folder / "venv")
    python = folder / "venv" / "bin" / "python"
    [wheel] = folder.glob("*.whl")
    # What the lock pins is in uv's cache since this project was installed; elsewhere it comes from the index.
    run("pip", "install", "--quiet", "--python", python, "--constraint", _ROOT / "requirements.lock", wheel)
    return python


class _Forecasts(BaseHTTPRequestHandler):
    """From 01:00 to 08:00 UTC of 2026-11-26: FR is greenest at 04:00. `/down` is down."""

    hours: ClassVar = {"DE": [400, 380, 350, 300, 320, 340, 360], "FR": [200, 190, 180, 60, 170, 160, 150]}

    def do_GET(self) -> None:
        zone = self.path.rpartition("/")[2]
        points = [
            {"datetime": f"2026-11-26T{hour:02}:00:00Z", "carbonIntensity": value}
            for hour, value in enumerate(self.hours.get(zone, []), start=1)
        ]
        body = json.dumps({"zone": zone, "forecast": points, "updatedAt": "2026-11-26T00:30:00Z"}).encode()
        self.send_response(200 if points else 500)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def forecasts() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Forecasts)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass(frozen=True)
class Toy:
    """Their project, with its home."""

    python: Path
    home: Path
    environment: dict[str, str]

    def set_clock(self, time: str) -> None:
        new = self.home / "clock.new"
        new.write_text(time, encoding="utf-8")
        new.replace(self.home / "clock")

    @contextmanager
    def daemon(self) -> Iterator[Child]:
        """`dagster-daemon run` of their own environment."""
        program = self.python.with_name("dagster-daemon")
        arguments = [program, "run", "-f", _TOY / "defs.py", "-d", _TOY]
        log = self.home / "daemon.log"
        with Child.start(arguments, log=log, env=self.environment, cwd=self.home) as child:
            yield child

    def until(self, look: Callable[[], Any], seconds: float = 40.0) -> Any:
        """The first true answer of `look`; fails with the daemon's log when there is none in time."""
        deadline = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(0.1)
        return pytest.fail((self.home / "daemon.log").read_text(encoding="utf-8")[-4000:])


@pytest.fixture
def toy(python: Path, forecasts: str, tmp_path: Path) -> Toy:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return Toy(python, tmp_path, {**environment, "DAGSTER_HOME": str(tmp_path), "TOY_FORECASTS": forecasts})


def test_its_job_is_launched_in_the_greenest_slot_and_by_the_deadline_across_a_killed_daemon(toy: Toy) -> None:
    with dg.DagsterInstance.from_config(str(toy.home)) as instance:

        def waiting() -> dict[str, str]:
            """What each sensor's newest tick said."""
            said = {}
            for state in instance.all_instigator_state():
                ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
                if ticks:
                    said[state.instigator_name] = ticks[0].skip_reason or ""
            return said

        def both(what: str) -> bool:
            said = waiting()
            return len(said) == 2 and all(what in line for line in said.values())

        def run(name: str) -> dg.DagsterRun | None:
            runs = instance.get_runs(dg.RunsFilter(tags={"dagster/sensor_name": name}))
            return next((each for each in runs if each.status is dg.DagsterRunStatus.SUCCESS), None)

        toy.set_clock("2026-11-26T00:59:00+00:00")
        with toy.daemon() as daemon:
            toy.until(lambda: both("nothing waits, the next opens at 2026-11-26T01:00Z"))
            toy.set_clock("2026-11-26T01:00:05+00:00")
            toy.until(lambda: both("2026-11-26T01:00Z waits for"))
            assert "waits for 2026-11-26T04:00Z in FR" in waiting()["nightly"]
            assert "waits for a forecast, until 2026-11-26T06:00Z; no forecast for zone DE" in waiting()["unserved"]
            daemon.send_signal(signal.SIGKILL)
            daemon.wait(20)
        assert instance.get_runs() == []
        toy.set_clock("2026-11-26T04:00:10+00:00")
        with toy.daemon():
            greenest = toy.until(lambda: run("nightly"))
            toy.set_clock("2026-11-26T06:00:10+00:00")
            blind = toy.until(lambda: run("unserved"))
            # And no more of it afterwards.
            toy.set_clock("2026-11-26T06:30:00+00:00")
            toy.until(lambda: both("nothing waits, the next opens at 2026-11-27T01:00Z"))
        assert len(instance.get_runs()) == 2
        assert {name: value for name, value in greenest.tags.items() if not name.startswith((".", "dagster/"))} == {
            "team": "ml",
            "greenops/key": "nightly:2026-11-26T01:00Z",
            "greenops/zone": "FR",
            "greenops/reason": "greenest start until 2026-11-26T06:00Z: 60 g/kWh in FR, 400 at once in DE",
            "greenops/avoided_pct": "85.0",
            "greenops/earliest_start": "2026-11-26T01:00Z",
            "greenops/deadline": "2026-11-26T07:00:00Z",
            "greenops/forecast": "127.0.0.1",
        }
        assert greenest.tags["dagster/run_key"] == "nightly:2026-11-26T01:00Z"
        assert blind.tags["greenops/reason"] == "no forecast: run at the deadline"
        assert (blind.tags["greenops/forecast"], blind.tags["greenops/avoided_pct"]) == ("none", "unknown")
        assert "so far 1 launched, 0 late, 1 without a forecast, 0 missed" in waiting()["unserved"]
    assert (toy.home / "ran").read_text(encoding="utf-8").splitlines() == [
        "nightly:2026-11-26T01:00Z in FR",
        "unserved:2026-11-26T01:00Z in DE",
    ]


def test_daylight_saving_in_their_own_interpreter_and_what_importing_it_loads(toy: Toy) -> None:
    """Both nights in Berlin, a look every ten minutes: one launch each, at the latest start of its one instant."""
    nights = []
    for begin in ("2026-03-28T22:00:00+00:00", "2026-10-24T22:00:00+00:00"):
        first = datetime.fromisoformat(begin)
        nights.append([(first + timedelta(minutes=10 * n)).isoformat() for n in range(6 * 8)])
    environment = {**toy.environment, "PYTHONPATH": str(_TOY)}
    done = subprocess.run(
        [toy.python, _TOY / "ticks.py", json.dumps(nights)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=toy.home,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["keys"] == [
        # 02:30 does not exist: the gap ends at 01:00 UTC. Two hours' window, an hour's work: 02:00.
        ["2026-03-29T02:00:00+00:00", "berlin:2026-03-29T01:00Z", "no forecast: run at the deadline"],
        # 02:30 comes twice: the second time is 01:30 UTC.
        ["2026-10-25T02:30:00+00:00", "berlin:2026-10-25T01:30Z", "no forecast: run at the deadline"],
    ]
    assert set(found["loaded"]).isdisjoint(
        {"pandas", "duckdb", "pyarrow", "numpy", "sklearn", "ortools", "dbt", "boto3"}
    )
    assert found["library"].startswith(str(toy.python.parents[1]))
    assert Path(found["typed"]).exists()
    assert found["graph"] == []


def test_the_example_of_the_documentation_loads() -> None:
    page = (_ROOT / "docs" / "dagster-projects.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "docs/dagster-projects.md", "exec"), names)  # noqa: S102
    dg.Definitions.validate_loadable(names["defs"])
    assert [sensor.name for sensor in names["defs"].sensors] == ["nightly_training"]


@dg.job
def training() -> None:
    """Somebody's job."""


GOOD: dict[str, Any] = {"cron": "0 1 * * *", "window": "6h", "duration": "45m", "zones": ["DE"]}


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"window": "30m"}, "window: found 30m, allowed: at least the duration of 45m"),
        ({"window": "6 hours"}, "window: found '6 hours', allowed: a number with a unit of"),
        ({"duration": "45x"}, "duration: found '45x', allowed: a number with a unit of"),
        ({"duration": "0m"}, "duration: found '0m', allowed: more than nothing"),
        ({"duration": 45}, "duration: found 45, allowed: a text such as '45m', or a timedelta"),
        ({"zones": []}, r"zones: found \[\], allowed: a list of zones"),
        ({"zones": "DE"}, "zones: found 'DE', allowed: a list of zones"),
        ({"zones": ["DE", "DE"]}, r"zones: found \['DE', 'DE'\], allowed: each zone once"),
        ({"cron": "0 1 * *"}, r"cron: found '0 1 \* \*', allowed: five fields"),
        ({"execution_timezone": "Mars"}, "execution_timezone: found 'Mars', allowed: a name of the IANA database"),
        ({"forecast": "ftp://host/x"}, r"forecast: allowed: http\(s\)://host/path"),
        ({"forecast": "http://user:secret@host/x"}, "forecast: allowed: .*, credentials in headers"),
        ({"forecast": 7}, "forecast: found int, allowed: a URL, a provider, or a function of the zone"),
        ({"headers": {"auth-token": "x"}}, "headers: allowed: with a URL as forecast only"),
        ({"timeout_seconds": 60}, "timeout_seconds: found 60, allowed: above 0, and at most 45"),
        (
            {"interruptible": True, "piece": "5h", "duration": "6h"},
            "window: found 6h, allowed: at least 2 pieces of 5h",
        ),
    ],
)
def test_bad_arguments_are_one_line(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadInput, match=f"^carbon_aware_schedule training_carbon_aware: {problem}") as refused:
        carbon_aware_schedule(training, **{**GOOD, **wrong})
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_cursor_that_was_reset_launches_what_is_open_and_has_not_run() -> None:
    """03:00, window to 07:00, the first ticks long past: it is taken up again, unless its run is there."""
    clock = ["2026-11-26T03:00:00+00:00"]
    sensor = carbon_aware_schedule(
        training, **GOOD, name="nightly", forecast=lambda zone: [], now=lambda: datetime.fromisoformat(clock[0])
    )
    definitions = dg.Definitions(jobs=[training], sensors=[sensor])
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(cursor: str | None, completed: float | None = 1.0) -> dg.SensorResult:
            context = dg.SensorEvaluationContext(
                instance_ref=None,
                instance=instance,
                last_tick_completion_time=completed,
                last_run_key=None,
                cursor=cursor,
                definitions=definitions,
                repository_name=None,
                sensor_name="nightly",
            )
            found = sensor(context)
            assert isinstance(found, dg.SensorResult)
            return found

        assert "nothing waits" in str(tick(None, completed=None).skip_reason)
        reset = tick(None)
        assert "2026-11-26T01:00Z waits for a forecast" in str(reset.skip_reason)
        clock[0] = "2026-11-26T06:15:00+00:00"
        [request] = tick(reset.cursor).run_requests or []
        assert request.run_key == "nightly:2026-11-26T01:00Z"
        ran = training.execute_in_process(
            instance=instance, tags={"dagster/run_key": str(request.run_key), "dagster/sensor_name": "nightly"}
        )
        assert ran.success
        assert "nothing waits" in str(tick("{damaged").skip_reason)
