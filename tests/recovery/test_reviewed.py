"""Cases that a review has found: what must not be done to an operator's clusters, and what must not count."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines import wiring
from greenops_pipelines.errors import BadInput
from greenops_pipelines.process import postgres
from greenops_pipelines.recovery import gameday, operated
from greenops_pipelines.recovery.cluster import EmbeddedCluster
from greenops_pipelines.recovery.declared import GameDays
from greenops_pipelines.recovery.gameday import Wanted, specs, wanted_in
from greenops_pipelines.recovery.ledger import Ledger, read
from greenops_pipelines.recovery.load import Load
from greenops_pipelines.settings import Settings
from tests.recovery.small_drills import EU, US, home, left_running, run, spec
from tests.recovery.test_checks import NOW

_SERVER = {"dsn": "host=orders user=gameday"}
_COMMANDS = {"fault": {"kill": ("k",)}, "fence": ("f",), "promote": ("p",), "route": ("r",), "failback": ("b",)}


def _declared(**commands: Any) -> GameDays:
    clusters = {
        "mode": "act", "primary": _SERVER, "standby": _SERVER, "endpoint": _SERVER, "commands": _COMMANDS | commands,
    }  # fmt: skip
    return GameDays.model_validate(
        {
            "databases": (
                {"name": "orders", "primary": US, "standby": EU, "tenants": ("shop",), "clusters": clusters},
            ),
            "replica": {"home_region": EU, "region": "eu-west-1"},
        }
    )


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return home(tmp_path, monkeypatch)


def test_new_home_kills_nobodys_primary(settings: Settings) -> None:
    wanted = wanted_in("", _declared(), wiring.lake(settings), NOW)
    assert wanted is not None
    assert [each.database.clusters for each in specs(wanted, _declared())] == [None, None]


def test_faults_without_a_command_and_damage_are_for_stand_ins() -> None:
    wanted = Wanted(scenarios=("kill", "hang", "stall", "corrupt-standby", "planned"))
    found = {each.scenario: each.database.clusters is not None for each in specs(wanted, _declared())[:-1]}
    assert found == {"kill": True, "hang": False, "stall": False, "corrupt-standby": False, "planned": True}


def test_database_that_does_not_come_back_is_failed_over_once() -> None:
    wanted = Wanted(scenarios=("kill", "planned"), with_control=False)
    assert [each.scenario for each in specs(wanted, _declared(failback=()))] == ["kill"]


def test_operators_replication_is_what_is_declared_not_what_the_month_would_have() -> None:
    [kill, control] = specs(Wanted(sync=True), _declared())
    assert (kill.sync, control.sync, control.database.clusters) == (False, False, None)


def test_more_writes_than_evidence_can_hold_are_refused_before_anything_begins(settings: Settings) -> None:
    declared = wiring.gamedays(settings)
    long = declared.model_copy(update={"drill": declared.drill.model_copy(update={"steady_seconds": 600.0})})
    with pytest.raises(BadInput, match=r"found 2000 writes a second for up to .*, allowed: 250,000 writes"):
        specs(Wanted(rate=2000), long)


@pytest.mark.parametrize(
    ("said", "is_silent"),
    [
        ('connection to server at "10.0.0.1", port 5432 failed: Connection refused Is the server running?', True),
        ("no answer in time", True),
        ("connection failed: Connection timed out", True),
        ("connection failed: FATAL: sorry, too many clients already", False),
        ("connection failed: FATAL: the database system is starting up", False),
        ("connection failed: FATAL: password authentication failed", False),
        # Of two addresses one is dead, and the other one answers.
        (
            "to 10.0.0.1 failed: Connection refused; to 10.0.0.2 failed: FATAL: the database system is starting up",
            False,
        ),
        ('could not translate host name "orders-us" to address: Name or service not known', False),
        ("an answer", False),
    ],
)
def test_fence_is_silence_and_nothing_else(said: str, is_silent: bool) -> None:
    assert operated._is_silence(said) is is_silent


def test_standby_that_does_not_answer_is_not_refused_for_damage(tmp_path: Path) -> None:
    def dies(cluster: EmbeddedCluster) -> None:
        cluster.corrupt = lambda _table: cluster._servers[EU].kill()  # type: ignore[method-assign]

    result = run(tmp_path, spec("corrupt-standby"), dies)
    assert result.verdict == "aborted"


def test_acknowledgement_on_a_timeline_that_is_nobodys_is_of_no_region(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        load = Load("", "d", ledger, lambda: 1.0, 10, 1, 1)
        load.belongs("00000001", US)

        class Answers:
            """A primary that its own region has brought back on a timeline of its own, then the other region."""

            timelines: Iterator[str] = iter(["00000001", "00000002", "00000003"])

            def write(self, *_: object) -> Any:
                from greenops_pipelines.recovery.client import Answer

                return Answer("ok", next(self.timelines), "")

        for _ in range(3):
            load.probe(Answers(), 1)  # type: ignore[arg-type]
        assert [write.region for write in read(tmp_path / "ledger.jsonl")] == [US, None, None]
        # Said by the region's own server afterwards, it holds for what was acknowledged before.
        load.belongs("00000003", EU)
    assert [write.region for write in read(tmp_path / "ledger.jsonl")] == [US, None, EU]
    assert (load.acknowledged(US), load.acknowledged(EU)) == (1, 1)


@pytest.mark.parametrize(
    "content",
    [{}, {"events.jsonl": ""}, {"events.jsonl": "{torn\n"}, {"events.jsonl": "", "result.json": '{"drill": "x"}'}],
    ids=["nothing", "no event", "a torn line", "another version's result"],
)
def test_remains_that_nobody_can_read_do_not_keep_drills_from_being_held(
    settings: Settings, content: dict[str, str]
) -> None:
    place = settings.recovery / "drills" / "20261103T090000Z-0000000a"
    place.mkdir(parents=True)
    for name, text in content.items():
        (place / name).write_text(text)
    said: list[str] = []
    found = gameday.clean(settings.recovery, wiring.evidence(settings).archive, wiring.lake(settings), said.append)
    assert found == []
    assert not place.exists()
    assert (settings.recovery / "unreadable" / place.name).is_dir()
    assert "cannot be read" in said[-1]


def test_filed_drill_whose_folder_is_half_gone_keeps_its_row(settings: Settings) -> None:
    wanted = Wanted(scenarios=("planned",), databases=wiring.gamedays(settings).databases[:1], with_control=False)
    [filed] = wiring.hold_gameday(settings, wanted).drills
    # Killed while it was removed: it has another name by then.
    rest = settings.recovery / "drills" / f".{filed.result.drill}"
    rest.mkdir()
    (rest / "events.jsonl").write_text(json.dumps({"event": "drill"}) + "\n")
    assert gameday.clean(settings.recovery, wiring.evidence(settings).archive, wiring.lake(settings)) == []
    [row] = wiring.lake(settings).query("select verdict, bundle from recovery_drills").to_pylist()
    assert (row["verdict"], row["bundle"]) == ("passed", filed.bundle)
    assert not rest.exists()


@pytest.mark.skipif(postgres.os.geteuid() != 0, reason="only root becomes another user")
def test_whole_drill_as_nobody_where_namespaces_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = postgres._works
    monkeypatch.setattr(postgres, "_works", lambda command: command[0] != "unshare" and whole(command))
    postgres.prefix.cache_clear()
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    try:
        if not whole(["setpriv", "--reuid=65534", "--clear-groups", postgres.programs().path("postgres"), "--version"]):
            pytest.skip("`nobody` cannot reach the programs here")
        settings = home(folder, monkeypatch)
        wanted = Wanted(scenarios=("kill",), databases=wiring.gamedays(settings).databases[:1], with_control=False)
        [filed] = wiring.hold_gameday(settings, wanted).drills
        assert (filed.result.verdict, filed.result.deficiencies) == ("passed", ())
        assert left_running(folder) == []
    finally:
        shutil.rmtree(folder)
        postgres.prefix.cache_clear()


def test_month_that_is_not_the_due_one_is_refused(settings: Settings) -> None:
    from tests.recovery.test_gameday import _cli

    done = _cli("gameday", "run", "--month", "2019-01")
    assert done.returncode == 2
    assert "--month: found '2019-01', allowed: 20" in done.stderr
