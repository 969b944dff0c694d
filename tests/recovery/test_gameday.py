"""GameDays: what is filed, what is refused, and what becomes of a drill that was killed at any step."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from greenops_pipelines import cli, wiring
from greenops_pipelines.errors import BadInput, ResidencyViolation, TransientError
from greenops_pipelines.recovery import gameday, ledger
from greenops_pipelines.recovery.accounting import account
from greenops_pipelines.recovery.gameday import Wanted
from greenops_pipelines.settings import Settings
from tests.recovery.small_drills import bundle, home, left_running

_HOLD = Path(__file__).with_name("hold.py")
_ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    yield home(tmp_path, monkeypatch)
    assert left_running(tmp_path) == []


def _cli(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "greenops"), *words], capture_output=True, text=True, cwd=_ROOT, check=False
    )


def test_both_directions_with_a_control_as_json(settings: Settings) -> None:
    done = _cli("gameday", "run", "--scenario", "kill", "--rate", "80", "--wan-ms", "20", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    drills, [control] = document["drills"], document["negative_controls"]
    assert [(each["primary"], each["standby"]) for each in drills] == [
        ("us-east-1", "eu-central-1"),
        ("eu-central-1", "us-east-1"),
    ]
    for each in drills:
        assert each["verdict"] == "passed"
        assert each["rto_s"] < 3
        assert each["rpo_s"] < 1
        assert (each["rate"], each["wan_ms"]) == (80, 20)
        assert each["acked_writes"] > each["lost_writes"] >= 0
    assert control["verdict"] == "missed as intended"
    assert control["rpo_s"] > control["objective_s"] == 1
    # Each has a bundle that verifies; the controls are apart, in the lake too.
    lake = wiring.lake(settings)
    rows = lake.query(
        "select drill, is_negative_control, bundle, verdict from recovery_drills order by drill"
    ).to_pylist()
    assert {row["bundle"] for row in rows} == {each["bundle"] for each in (*drills, control)}
    assert [row["drill"] for row in rows if row["is_negative_control"]] == [control["drill"]]
    assert not list((settings.recovery / "drills").iterdir())
    listed = json.loads(_cli("gameday", "list", "--json").stdout)["drills"]
    assert {each["drill"] for each in listed} == {row["drill"] for row in rows}
    said = _cli("gameday", "runbook", drills[0]["drill"]).stdout
    assert "# Failover of platform-us: us-east-1 to eu-central-1" in said
    # Whoever has the bundle alone counts the same loss.
    files = bundle(settings, drills[0]["bundle"])
    (settings.home / "ledger.jsonl").write_bytes(files["ledger.jsonl"])
    events = [json.loads(line) for line in files["events.jsonl"].splitlines()]
    fault = next(event["t"] for event in events if event["event"] == "fault")
    fenced = next(event["t"] for event in events if event["event"] == "end" and event["step"] == "fence")
    failback = next(event["t"] for event in events if event["event"] == "begin" and event["step"] == "rewind")
    kept = {
        name: {int(number): digest for number, digest in rows.items()}
        for name, rows in json.loads(files["kept.json"]).items()
    }
    counted = account(
        ledger.read(settings.home / "ledger.jsonl"),
        "us-east-1", "eu-central-1", fault, fenced, kept["failover"], failback, kept["failback"],
    )  # fmt: skip
    assert (counted.lost_writes, counted.acked) == (drills[0]["lost_writes"], drills[0]["acked_writes"])
    assert counted.rpo_s == pytest.approx(drills[0]["rpo_s"], abs=1e-3)
    assert counted.rto_s == pytest.approx(drills[0]["rto_s"], abs=1e-3)
    result = json.loads(files["result.json"])
    assert {step["step"] for step in result["steps"]} >= {"fence", "promote", "route", "rewind"}
    # No password of either server is anywhere in it.
    assert not any(b"password=" in data or b"PGPASSWORD" in data for data in files.values())


def test_dry_run_says_what_would_be_drilled_and_drills_nothing(settings: Settings) -> None:
    done = _cli("gameday", "run", "--scenario", "kill,planned", "--dry-run", "--json")
    planned = json.loads(done.stdout)["planned"]
    assert [(each["scenario"], each["database"]) for each in planned] == [
        ("kill", "platform-us"), ("kill", "platform-eu"), ("planned", "platform-us"), ("planned", "platform-eu"),
        ("stall", "platform-us"),
    ]  # fmt: skip
    assert [each["negative_control"] for each in planned] == [False] * 4 + [True]
    assert not (settings.recovery / "drills").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--scenario", "earthquake"],
            "--scenario: found 'earthquake', allowed: kill, hang, partition, stall, planned",
        ),
        (["--scenario", ""], "--scenario: found nothing, allowed: kill"),
        (["--database", "orders"], "--database: found 'orders', allowed: platform-us, platform-eu"),
        (["--rate", "0"], "--rate: found 0, allowed: 0.1 to 2000"),
        (["--wan-ms", "-1"], "--wan-ms: found -1, allowed: 0 to 2000"),
        (["--sync", "perhaps"], "--sync: found 'perhaps', allowed: on, off"),
        (["--month", "2026-13"], "--month: found '2026-13', allowed: a month such as 2026-11"),
        (["--database", "platform-us", "--to", "mars-1"], "--to: found 'mars-1', allowed: ca-central-1"),
        (["--to", "eu-west-1"], "--to: found no --database, allowed: with one"),
    ],
)
def test_bad_input_is_one_line(
    settings: Settings, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(_ROOT)
    monkeypatch.setattr(sys, "argv", ["greenops", "gameday", "run", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error
    assert error.count("\n") == 1


_BOUND = """
databases:
  - {name: resident, primary: eu-central-1, standby: %s, tenants: [banque-du-rivage]}
replica: {home_region: eu-central-1, region: eu-west-1}
"""


def test_bound_database_refuses_a_target_outside_its_area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home(tmp_path / "a", monkeypatch, _BOUND % "eu-west-1")
    done = _cli("gameday", "run", "--database", "resident", "--to", "us-east-1")
    assert done.returncode == 1
    assert (
        "resident: found us-east-1 (of us) as a target for tenant banque-du-rivage (bound to eu), allowed: eu-central-1"
        in done.stderr
    )
    home(tmp_path / "b", monkeypatch, _BOUND % "us-east-1")
    done = _cli("gameday", "run")
    assert done.returncode == 2
    assert "gamedays.yaml:3: databases[0].standby: found 'us-east-1'" in done.stderr


def test_declaration_that_changed_since_the_plan_is_refused_before_anything_begins(settings: Settings) -> None:
    moved = wiring.gamedays(settings).databases[1].model_copy(update={"tenants": ("banque-du-rivage",)})
    with pytest.raises(ResidencyViolation, match="bound to eu"):
        wiring.hold_gameday(settings, Wanted(databases=(moved,)))
    assert not (settings.recovery / "drills").exists()


def test_two_at_once_are_refused(settings: Settings) -> None:
    with gameday.alone(settings.recovery):
        with pytest.raises(TransientError, match=rf"found a drill under way \(process {os.getpid()}, since 20"):
            wiring.hold_gameday(settings, Wanted())
        done = _cli("gameday", "run")
        assert done.returncode == 1
        assert "allowed: one at a time; try again when it is over" in done.stderr


def test_months_that_are_none_are_refused() -> None:
    with pytest.raises(BadInput, match="allowed: a month such as 2026-11"):
        gameday.parse_month("2026-1")


_STEPS = [
    "set_up", "check", "steady_state", "check_standby", "fault", "detect", "fence", "promote", "route", "first_write",
    "verify", "rewind", "catch_up", "switch_back", "route_back", "first_write_back", "rejoin", "verify_again", "take_down",
]  # fmt: skip


_EACH_TIME = ("fault", "promote", "rewind")
"""The other steps are killed in `make soak`."""


@pytest.mark.parametrize(
    "step", [step if step in _EACH_TIME else pytest.param(step, marks=pytest.mark.soak) for step in _STEPS]
)
def test_drill_that_was_killed_is_cleaned_up_and_filed_as_aborted(
    settings: Settings, tmp_path: Path, step: str
) -> None:
    _kill_at(settings, f'"step":"{step}"')
    [place] = (settings.recovery / "drills").iterdir()
    begun = [json.loads(line) for line in (place / "events.jsonl").read_bytes().splitlines()]
    told = ledger.read(place / "ledger.jsonl")
    [filed] = gameday.clean(settings.recovery, wiring.evidence(settings).archive, wiring.lake(settings))
    assert not list((settings.recovery / "drills").iterdir())
    assert left_running(tmp_path) == []
    # The processes of a killed drill end by themselves, or are ended: the drill may have come to its end meanwhile.
    assert filed.result.verdict == "aborted"
    assert "the drill itself was killed" in filed.result.deficiencies[0]
    assert filed.result.acked_writes == sum(write.outcome == "ok" for write in told)
    assert filed.result.rpo_s is None
    files = bundle(settings, filed.bundle)
    kept = [json.loads(line) for line in files["events.jsonl"].splitlines()]
    assert kept == begun[: len(kept)]
    [row] = wiring.lake(settings).query("select verdict, bundle, deficiencies from recovery_drills").to_pylist()
    assert (row["verdict"], row["bundle"]) == ("aborted", filed.bundle)


def test_next_drill_cleans_up_first(settings: Settings) -> None:
    _kill_at(settings, '"step":"promote"')
    held = wiring.hold_gameday(settings, Wanted(databases=wiring.gamedays(settings).databases[:1], with_control=False))
    assert [each.result.verdict for each in held.remains] == ["aborted"]
    assert [each.result.verdict for each in held.drills] == ["passed"]


@pytest.mark.parametrize("mark", ["result.json", "filed.json"])
def test_drill_that_was_killed_while_it_was_filed_is_filed_once(settings: Settings, mark: str) -> None:
    # Stopped at the moment the file appears: between two steps of the filing.
    _kill_at(settings, mark, in_names=True)
    left = list((settings.recovery / "drills").iterdir())
    found = gameday.clean(settings.recovery, wiring.evidence(settings).archive, wiring.lake(settings))
    assert len(found) == len(left)
    evidence = wiring.evidence(settings)
    evidence.archive.flush()
    assert len(evidence.archive.ids()) == 1
    [row] = wiring.lake(settings).query("select verdict, bundle from recovery_drills").to_pylist()
    assert (row["verdict"], row["bundle"]) == ("passed", evidence.archive.ids()[0])


def _kill_at(settings: Settings, what: str, in_names: bool = False) -> None:
    """Starts a drill and sends SIGKILL as soon as that stands in its event log, or a file of that name is there."""
    process = subprocess.Popen(
        [sys.executable, str(_HOLD), "kill"], cwd=_ROOT, env=os.environ | {"PYTHONPATH": str(_ROOT)}
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            logs = list((settings.recovery / "drills").glob("[0-9]*/events.jsonl"))
            if in_names and list((settings.recovery / "drills").glob(f"[0-9]*/{what}")):
                break
            if not in_names and logs and what.encode() in logs[0].read_bytes():
                break
            time.sleep(0.002)
        assert process.poll() is None, f"the drill ended before {what}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_figures_of_a_drill_are_those_of_its_row(settings: Settings) -> None:
    wanted = Wanted(scenarios=("planned",), databases=wiring.gamedays(settings).databases[:1], with_control=False)
    [filed] = wiring.hold_gameday(settings, wanted).drills
    [row] = wiring.lake(settings).query("select * from recovery_drills").to_pylist()
    told = asdict(filed.result)
    for name in (
        "rto_s",
        "rpo_s",
        "lost_writes",
        "acked_writes",
        "failback_s",
        "client_outage_s",
        "verdict",
        "health_checks",
    ):
        assert row[name] == told[name]
    steps = (
        wiring.lake(settings).query("select step, seconds, outcome from recovery_steps order by position").to_pylist()
    )
    assert [step["step"] for step in steps] == [step["step"] for step in told["steps"]]
    assert {step["outcome"] for step in steps} == {"done"}
