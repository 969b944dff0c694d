"""The platform's own restore, as a drill and by hand: digests equal, evidence verified, the warehouse answers."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from greenops_pipelines import wiring
from greenops_pipelines.integrations.once import prepare_home
from greenops_pipelines.recovery import checks
from greenops_pipelines.recovery.copies import NO_SECOND_PLACE
from greenops_pipelines.recovery.filing import Filed
from greenops_pipelines.recovery.gameday import Wanted
from greenops_pipelines.settings import Settings
from tests.recovery.small_drills import bundle, home

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with a drill in lake and evidence, a run in Dagster's storage, and a copy of all that elsewhere."""
    found = home(tmp_path, monkeypatch)
    monkeypatch.setenv("GREENOPS_REPLICA_URL", str(tmp_path / "elsewhere"))
    found = found.model_copy(update={"replica_url": str(tmp_path / "elsewhere")})
    prepare_home(found)
    monkeypatch.setenv("DAGSTER_HOME", str(found.dagster_home))

    @dg.op
    def nothing() -> None:
        """Nothing."""

    @dg.job
    def one() -> None:
        nothing()

    with dg.DagsterInstance.from_config(str(found.dagster_home)) as instance:
        assert one.execute_in_process(instance=instance).success
    wanted = Wanted(scenarios=("planned",), databases=wiring.gamedays(found).databases[:1], with_control=False)
    wiring.hold_gameday(found, wanted)
    return found


def _drill(settings: Settings) -> Filed:
    [filed] = wiring.hold_gameday(settings, Wanted(scenarios=("restore",), with_control=False)).drills
    return filed


def test_restore_is_drilled_and_its_digests_are_equal(settings: Settings) -> None:
    copied = wiring.copy_home(settings).copied
    filed = _drill(settings)
    result = filed.result
    assert (result.verdict, result.deficiencies) == ("passed", ())
    assert (result.database, result.primary, result.standby) == ("greenops-pipelines", "eu-central-1", "eu-west-1")
    assert [step["step"] for step in result.steps] == ["choose", "restore", "prove"]
    assert result.rto_s is not None
    assert 0 < result.rto_s < 60
    # The age of the copy.
    assert result.rpo_s is not None
    assert 0 < result.rpo_s < 60
    told = json.loads(bundle(settings, filed.bundle)["restored.json"])
    assert told["snapshot"] == copied.snapshot
    assert {"lake", "evidence", "dagster"} <= set(told["parts"])
    assert all(
        part["equal"] and part["digest_restored"] == part["digest_of_the_copy"] for part in told["parts"].values()
    )
    assert {name: part["digest_restored"] for name, part in told["parts"].items()} == {
        name: part.digest for name, part in copied.parts.items()
    }
    assert (told["runs"], told["bundles_verified"], told["rows"]["recovery_drills"]) == (1, 1, 1)
    assert set(told["databases"].values()) == {"ok"}
    # It is a drill of the lake, in no distribution of databases.
    [row] = wiring.lake(settings).query("select * from recovery_drills where scenario = 'restore'").to_pylist()
    assert (row["rate_per_s"], row["wan_ms"], row["lost_writes"]) == (None, None, None)
    assert not list((settings.recovery / "drills").iterdir())


def test_restore_without_a_copy_fails_and_says_what_is_missing(settings: Settings) -> None:
    result = _drill(settings).result
    assert result.verdict == "failed"
    assert result.rto_s is None
    assert "found no snapshot" in result.deficiencies[0]


def test_restore_from_a_damaged_copy_fails_and_names_the_file(settings: Settings) -> None:
    wiring.copy_home(settings)
    chunks = sorted(Path(settings.replica_url).glob("chunks/*/*"), key=lambda path: path.stat().st_size)
    damaged = bytearray(chunks[-1].read_bytes())
    damaged[100] ^= 1
    chunks[-1].write_bytes(bytes(damaged))
    result = _drill(settings).result
    assert result.verdict == "failed"
    assert chunks[-1].name[:12] in result.deficiencies[0]


def test_copy_that_is_older_than_its_objective_misses_it(settings: Settings) -> None:
    wiring.copy_home(settings)
    path = settings.ops_dir / "gamedays.yaml"
    text = path.read_text(encoding="utf-8").replace("region: eu-west-1}", "region: eu-west-1, rpo_minutes: 0.0001}")
    path.write_text(text, encoding="utf-8")
    result = _drill(settings).result
    assert result.verdict == "failed"
    assert "RPO missed: the copy was" in result.deficiencies[0]


def test_commands_copy_list_verify_and_restore(settings: Settings, tmp_path: Path) -> None:
    def greenops(*words: str) -> tuple[int, dict]:  # type: ignore[type-arg]
        done = subprocess.run(
            [str(Path(sys.executable).parent / "greenops"), "replica", *words, "--json"],
            capture_output=True, text=True, cwd=_ROOT, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}

    code, copied = greenops("copy")
    assert code == 0
    assert copied["lies"] == "in eu-west-1"
    code, listed = greenops("list")
    assert [each["snapshot"] for each in listed["snapshots"]] == [copied["snapshot"]]
    code, verified = greenops("verify")
    assert (code, verified["ok"]) == (0, True)
    code, restored = greenops("restore", "--into", str(tmp_path / "again"))
    assert code == 0
    assert all(part["equal"] for part in restored["parts"].values())
    assert (restored["runs"], restored["bundles_verified"], restored["faults"]) == (1, 1, [])
    # Its lake is the one that was copied.
    there = settings.model_copy(update={"home": tmp_path / "again"})
    wanted = "select drill, rto_s, bundle from recovery_drills"
    assert wiring.lake(there).query(wanted).equals(wiring.lake(settings).query(wanted))
    code, refused = greenops("restore", "--into", str(tmp_path / "again"))
    assert code == 2
    assert "allowed: " in refused["error"]
    code, rows = 0, wiring.lake(settings).query("select part, region from recovery_copies order by part").to_pylist()
    assert {row["region"] for row in rows} == {"eu-west-1"}
    assert {"lake", "evidence", "dagster"} <= {row["part"] for row in rows}


def test_copy_in_the_home_says_that_it_is_no_second_place(settings: Settings) -> None:
    inside = settings.model_copy(update={"replica_url": str(settings.home / "second")})
    done = wiring.copy_home(inside)
    # A folder below the home is the home.
    assert wiring.lake(inside).query("select distinct region from recovery_copies").to_pylist() == [{"region": None}]
    measured = checks.fresh(wiring.lake(inside), wiring.gamedays(inside), datetime.now(UTC))
    assert (measured.outcome, measured.missing) == ("cannot be measured", "a second place (GREENOPS_REPLICA_URL)")
    assert done.figures["lies"] == NO_SECOND_PLACE


def test_copy_of_bound_tenants_outside_their_area_is_refused(settings: Settings) -> None:
    from greenops_pipelines.errors import ResidencyViolation

    path = settings.ops_dir / "gamedays.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("region: eu-west-1}", "region: us-east-1}"), encoding="utf-8"
    )
    with pytest.raises(ResidencyViolation, match="is bound to eu, and its rows are in the lake"):
        wiring.copy_home(settings)
