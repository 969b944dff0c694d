"""What fires unattended, tick by tick: schedules, sensors with their cursors, conditions of the graph."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from greenops_pipelines.definitions import defs
from greenops_pipelines.resources import Platform
from greenops_pipelines.settings import load_settings
from sensors.carbon import carbon_hourly, forecast_hourly
from sensors.cost import finops_report_monthly, finops_report_weekly
from sensors.graph import declarations_changed
from sensors.maintenance import maintenance_daily
from sensors.recovery import gameday_monthly
from tests.graph.conftest import FOLLOWERS, materialise, newest_day, requested

BILLS = {*(f"cost/{name}" for name in ("charges", "commitments_monthly", "files", "periods"))}
SUPPLY = {*(f"supply_chain/{name}" for name in ("images", "advisories", "vulnerabilities", "verdicts", "admission"))}
CANARY = {"slo/drill", "slo/drill_measurements"}
BUDGETS = {*(f"slo/{name}" for name in ("error_budget", "burn", "budget_calendar", "incidents"))}
MISSING = {
    *FOLLOWERS,
    *(f"carbon/{name}" for name in ("forecast", "forecast_scores")),
    *(f"placement/{name}" for name in ("requests", "dispatches", "attempts", "proof")),
    *BILLS,
    *(f"recovery/{name}" for name in ("gameday", "steps", "replica")),
    "report/recovery",
    *CANARY,
    *BUDGETS,
    *SUPPLY,
}
"""What a home without it asks for, once declarations and a day of data are there."""
DECLARED = [
    *(
        dg.AssetKey(["ops", key])
        for key in ("regions", "tenants", "workloads", "gamedays", "images", "cost", "budgets", "units")
    ),
    *(
        dg.AssetKey(["slo", key])
        for key in (
            *("definitions", "rules", "certificates", "dashboard", "runbooks"),
            *("gates", "rollback_certificates", "canary_chances"),
        )
    ),
    dg.AssetKey(["carbon", "emission_factors"]),
]
BY_DAY = [
    *(dg.AssetKey(["carbon", key]) for key in ("intensity", "usage")),
    *(dg.AssetKey(["slo", key]) for key in ("metric_series", "metric_samples", "minutes", "days")),
]
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def tick(schedule: dg.ScheduleDefinition, at: datetime) -> dg.RunRequest:
    requests = schedule.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=at)).run_requests
    assert len(requests) == 1
    return requests[0]


def test_the_hourly_schedule_fetches_today_and_the_look_back() -> None:
    request = tick(carbon_hourly, datetime(2026, 3, 1, 0, 7, tzinfo=UTC))
    assert (request.tags[START], request.tags[END]) == ("2026-02-26", "2026-03-01")
    assert request.run_key == "carbon_hourly:2026-03-01T00"


def test_the_look_back_is_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_CARBON_LOOKBACK_DAYS", "10")
    request = tick(carbon_hourly, datetime(2026, 3, 15, 5, 7, tzinfo=UTC))
    assert request.tags[START] == "2026-03-05"


def test_hours_around_a_change_to_summer_time_have_keys_of_their_own() -> None:
    """On 29 March 2026 Berlin goes from 02:00 to 03:00, on 25 October 03:00 comes twice. UTC knows neither."""
    for first in (datetime(2026, 3, 29, 0, 7, tzinfo=UTC), datetime(2026, 10, 25, 0, 7, tzinfo=UTC)):
        local = [(first + timedelta(hours=n)).astimezone(ZoneInfo("Europe/Berlin")) for n in range(4)]
        assert len({tick(carbon_hourly, time).run_key for time in local}) == 4
        assert len({tick(forecast_hourly, time).run_key for time in local}) == 4


def test_reports_are_asked_for_by_the_name_of_what_has_ended() -> None:
    month = tick(finops_report_monthly, datetime(2027, 1, 3, 6, 23, tzinfo=UTC))
    week = tick(finops_report_weekly, datetime(2027, 1, 4, 6, 23, tzinfo=UTC))
    assert (month.run_key, week.run_key) == ("finops_report:2026-12", "finops_report:2026-W53")
    assert month.run_config == {"ops": {"cost__report": {"config": {"period": "2026-12"}}}}


_GAMEDAYS = """
gameday: {weekday: tuesday, week: 1, hour: 9}
rotation: [hang]
databases: [{name: platform-us, primary: us-east-1, standby: eu-central-1, tenants: [bluefield-retail]}]
replica: {home_region: eu-central-1, region: eu-west-1}
"""


def test_the_gameday_of_a_month_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first Tuesday of December 2026 is the 1st, at nine."""
    settings = load_settings()
    for name in ("regions.yaml", "tenants.yaml"):
        (tmp_path / name).write_bytes((settings.ops_dir / name).read_bytes())
    (tmp_path / "gamedays.yaml").write_text(_GAMEDAYS, encoding="utf-8")
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(tmp_path))
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path / "home"))

    def ask(at: datetime) -> tuple[str | None, str | None]:
        context = dg.build_schedule_context(scheduled_execution_time=at, resources={"platform": Platform()})
        found = gameday_monthly.evaluate_tick(context)
        if not found.run_requests:
            return None, found.skip_message
        [request] = found.run_requests
        config = request.run_config["ops"]["recovery_gameday"]["config"]["month"]
        assert request.tags["greenops/gameday"] == config
        return request.run_key, config

    before = datetime(2026, 12, 1, 8, 7, tzinfo=UTC)
    assert ask(before) == (None, "the one of 2026-11 is too long ago to be made up for; the next one is on 2026-12-01")
    assert ask(datetime(2026, 12, 1, 9, 7, tzinfo=UTC)) == ("gameday:2026-12", "2026-12")
    # The same key for the rest of the day, another one where it was not held by the next.
    assert ask(datetime(2026, 12, 1, 17, 7, tzinfo=UTC)) == ("gameday:2026-12", "2026-12")
    assert ask(datetime(2026, 12, 2, 0, 7, tzinfo=UTC)) == (
        None,
        "2026-12 is made up for at 09:00Z, the hour of GameDays",
    )
    assert ask(datetime(2026, 12, 2, 9, 7, tzinfo=UTC)) == ("gameday:2026-12:2026-12-02", "2026-12")
    assert ask(datetime(2026, 12, 9, 0, 7, tzinfo=UTC))[0] is None


def test_the_same_tick_twice_has_the_same_key() -> None:
    at = datetime(2026, 3, 1, 3, 37, tzinfo=UTC)
    assert tick(maintenance_daily, at).run_key == tick(maintenance_daily, at).run_key == "maintenance:2026-03-01"


def test_declarations_fire_once_per_change_and_also_when_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(tmp_path))
    file = tmp_path / "regions.yaml"

    def evaluate(cursor: str | None) -> tuple[int, str | None]:
        with dg.build_sensor_context(cursor=cursor, definitions=defs) as context:
            found = declarations_changed.evaluate_tick(context)
            return len(found.run_requests or []), found.cursor

    file.write_text("a: 1\n")
    count, first = evaluate(None)
    assert count == 1
    assert evaluate(first) == (0, first)
    file.write_text("a: 2\n")
    count, second = evaluate(first)
    assert count == 1
    assert second != first
    file.write_text("a: 1\n")
    assert evaluate(second) == (1, first)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with declarations and a day of data, and what Dagster knows of it; each test takes a copy."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "dagster").mkdir()
    day = newest_day().isoformat()
    with (
        pytest.MonkeyPatch.context() as patch,
        dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance,
    ):
        patch.setenv("GREENOPS_HOME", str(folder / "home"))
        assert requested(instance)[0] == set()
        materialise(instance, DECLARED)
        materialise(instance, BY_DAY, day, day)
    return folder


@pytest.fixture
def early(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    shutil.copytree(begun, tmp_path / "begun")
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path / "begun" / "home"))
    with dg.DagsterInstance.local_temp(str(tmp_path / "begun" / "dagster")) as instance:
        yield instance


def test_inputs_that_came_before_the_first_look_are_followed_once(early: dg.DagsterInstance) -> None:
    """The daemon may be slow to start: what is missing then is made, and not asked for again and again if it fails."""
    found, cursor = requested(early)
    assert found == MISSING
    for _ in range(3):
        found, cursor = requested(early, cursor)
        assert found == set()


def test_two_runs_that_overlap_on_an_asset_do_not_stop_what_follows_it(early: dg.DagsterInstance) -> None:
    """The run planned last wrote first: Dagster's newest check record then speaks of a materialisation that is not the newest."""
    regions, schema = dg.AssetKey(["ops", "regions"]), dg.AssetCheckKey(dg.AssetKey(["ops", "regions"]), "schema")
    first = early.fetch_materializations(regions, limit=1).records[0]
    materialise(early, [regions])
    stale = dg.AssetCheckEvaluation(
        asset_key=regions,
        check_name="schema",
        passed=True,
        metadata={},
        target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
            storage_id=first.storage_id, run_id=first.run_id, timestamp=first.timestamp
        ),
    )
    early.report_runless_asset_event(stale)
    newest = early.event_log_storage.get_asset_check_execution_history(schema, limit=1)[0]
    assert newest.evaluation is not None
    assert newest.evaluation.target_materialization_data.storage_id == first.storage_id
    assert requested(early)[0] == MISSING


def test_a_failed_blocking_check_stops_what_follows_it(early: dg.DagsterInstance) -> None:
    regions = dg.AssetKey(["ops", "regions"])
    last = early.fetch_materializations(regions, limit=1).records[0]
    failed = dg.AssetCheckEvaluation(
        asset_key=regions,
        check_name="schema",
        passed=False,
        metadata={},
        target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
            storage_id=last.storage_id, run_id=last.run_id, timestamp=last.timestamp
        ),
    )
    early.report_runless_asset_event(failed)
    # Bills and events are read whatever the regions are; what weighs them with a grid is not. Drills hang on ops/gamedays and
    # the canaries' gates, images on ops/images, which are sound.
    sound = {*BILLS, *BUDGETS, *CANARY, *SUPPLY, "recovery/gameday", "recovery/steps"}
    assert requested(early)[0] == sound
