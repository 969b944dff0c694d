"""What fires unattended, tick by tick: schedules, sensors with their cursors, conditions of the graph."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from greenops_pipelines import wiring
from greenops_pipelines.definitions import defs
from greenops_pipelines.resources import Platform
from greenops_pipelines.settings import load_settings
from sensors.carbon import carbon_hourly, forecast_hourly
from sensors.cost import finops_report_monthly, finops_report_weekly
from sensors.graph import declarations_changed
from sensors.maintenance import maintenance, maintenance_daily
from sensors.recovery import gameday_monthly
from tests.graph.conftest import World, materialise, newest_day

MARTS = {
    *(f"carbon/{name}" for name in ("coverage_daily", "emissions_daily", "emissions_hourly", "emissions_monthly")),
    "carbon/sci_daily",
    "placement/avoided_monthly",
}
# Charges are weighed with the intensity of their hours: what holds emissions follows it, and what is made of that.
COSTS = {
    *(
        f"cost/{name}"
        for name in ("allocated_monthly", "charge_carbon", "daily", "monthly", "reconciliation", "report")
    ),
    *(f"cost/{name}" for name in ("anomalies_daily", "forecasts_daily", "units_daily")),
}
PLANNED = {"carbon/outlook", "placement/plan", "placement/settlements"}
BILLS = {*(f"cost/{name}" for name in ("charges", "commitments_monthly", "files", "periods"))}
FOLLOWERS = {*MARTS, *COSTS, *PLANNED, "lake/warehouse", "evidence/bundles", "report/scorecard", "report/carbon"}
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


def requested(instance: dg.DagsterInstance, cursor: object = None) -> tuple[set[str], object]:
    result = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=cursor)
    keys = {r.key.to_user_string() for r in result.results if not r.true_subset.is_empty and hasattr(r.key, "path")}
    return keys, result.cursor


def test_marts_warehouse_and_reports_follow_a_new_day_of_intensity(world: World) -> None:
    found, cursor = requested(world.instance)
    found, cursor = requested(world.instance, cursor)
    assert found == set()
    materialise(world.instance, [dg.AssetKey(["carbon", "intensity"])], world.last, world.last)
    found, cursor = requested(world.instance, cursor)
    assert found == FOLLOWERS
    found, _ = requested(world.instance, cursor)
    assert found == set()


def test_inputs_that_came_before_the_first_look_are_followed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon may be slow to start: what is missing then is made, and not asked for again and again if it fails."""
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    day = newest_day().isoformat()
    with dg.DagsterInstance.ephemeral() as instance:
        assert requested(instance)[0] == set()
        materialise(instance, DECLARED)
        materialise(instance, BY_DAY, day, day)
        found, cursor = requested(instance)
        assert found == MISSING
        for _ in range(3):
            found, cursor = requested(instance, cursor)
            assert found == set()


def test_two_runs_that_overlap_on_an_asset_do_not_stop_what_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run planned last wrote first: Dagster's newest check record then speaks of a materialisation that is not the newest."""
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    day = newest_day().isoformat()
    regions, schema = dg.AssetKey(["ops", "regions"]), dg.AssetCheckKey(dg.AssetKey(["ops", "regions"]), "schema")
    with dg.DagsterInstance.ephemeral() as instance:
        materialise(instance, DECLARED)
        materialise(instance, BY_DAY, day, day)
        first = instance.fetch_materializations(regions, limit=1).records[0]
        materialise(instance, [regions])
        stale = dg.AssetCheckEvaluation(
            asset_key=regions,
            check_name="schema",
            passed=True,
            metadata={},
            target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                storage_id=first.storage_id, run_id=first.run_id, timestamp=first.timestamp
            ),
        )
        instance.report_runless_asset_event(stale)
        newest = instance.event_log_storage.get_asset_check_execution_history(schema, limit=1)[0]
        assert newest.evaluation is not None
        assert newest.evaluation.target_materialization_data.storage_id == first.storage_id
        assert requested(instance)[0] == MISSING


def test_a_failed_blocking_check_stops_what_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    day = newest_day().isoformat()
    regions = dg.AssetKey(["ops", "regions"])
    with dg.DagsterInstance.ephemeral() as instance:
        materialise(instance, DECLARED)
        materialise(instance, BY_DAY, day, day)
        last = instance.fetch_materializations(regions, limit=1).records[0]
        failed = dg.AssetCheckEvaluation(
            asset_key=regions,
            check_name="schema",
            passed=False,
            metadata={},
            target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                storage_id=last.storage_id, run_id=last.run_id, timestamp=last.timestamp
            ),
        )
        instance.report_runless_asset_event(failed)
        # Bills and events are read whatever the regions are; what weighs them with a grid is not. Drills hang on ops/gamedays and
        # the canaries' gates, images on ops/images, which are sound.
        sound = {*BILLS, *BUDGETS, *CANARY, *SUPPLY, "recovery/gameday", "recovery/steps"}
        assert requested(instance)[0] == sound


def test_maintenance_merges_small_files_and_forgets_old_runs(world: World) -> None:
    lake = world.lake()
    results = next(t for t in lake.tables if t.name == "check_results")
    files = len(lake.files(results))
    rows = lake.query("select count(*) as n from check_results")["n"][0].as_py()
    assert files >= 4
    resources = {"platform": defs.resources["platform"]}
    done = maintenance.execute_in_process(
        instance=world.instance,
        resources=resources,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    assert done.success
    assert lake.query("select count(*) as n from check_results")["n"][0].as_py() == rows
    assert len(lake.files(results)) == files + 1


def test_a_carbon_provider_that_cannot_be_asked_fails_without_retry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENOPS_CARBON_PROVIDER", "file")
    monkeypatch.setenv("GREENOPS_CARBON_PATH", str(world.home / "nothing.csv"))
    result = materialise(
        world.instance, [dg.AssetKey(["carbon", "intensity"])], world.first, world.first, raise_on_error=False
    )
    assert not result.success
    assert not [e for e in result.all_events if e.event_type_value == "STEP_UP_FOR_RETRY"]
    message = next(e for e in result.all_events if e.event_type_value == "STEP_FAILURE").step_failure_data.error
    assert "GREENOPS_CARBON_PATH: no file matches" in message.to_string()
    monkeypatch.undo()
    assert wiring.lake(load_settings()) is not None
