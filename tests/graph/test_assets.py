"""The assets through Dagster: what they write, what they say, and what happens when something is wrong."""

import json
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pyarrow.parquet as pq
import pytest

from greenops_pipelines import wiring
from greenops_pipelines.definitions import defs
from greenops_pipelines.evidence import inventory
from greenops_pipelines.evidence.bundle import read
from greenops_pipelines.lake.tables import CARBON_INTENSITY, CHECK_RESULTS, RESOURCE_USAGE
from greenops_pipelines.settings import load_settings
from sensors.maintenance import maintenance
from tests.graph.conftest import FOLLOWERS, World, materialise, requested


def metadata(result: dg.ExecuteInProcessResult, key: str) -> dict:
    events = result.asset_materializations_for_node(key)
    return {name: value.value for name, value in events[-1].metadata.items()}


def test_every_check_ran_and_passed(world: World) -> None:
    results = [c for run in (world.daily, world.images, world.rest) for c in run.get_asset_check_evaluations()]
    # The sample has an anomaly of cost on the 12th of every other month, and a week later it still is one of the last seven days.
    found = [c for c in results if (c.asset_key.path[-1], c.check_name) != ("anomalies_daily", "recent")]
    failed = [f"{c.asset_key.to_user_string()}:{c.check_name} {c.description}" for c in found if not c.passed]
    # Three days hold no week to prove a saving on, and nothing was launched: the checks say so.
    assert sorted(line.partition(" ")[0] for line in failed if "Cannot be measured here: " in line) == [
        "placement/dispatches:exactly_once",
        *(f"placement/proof:{name}" for name in ("gap", "limits", "regret", "saving")),
        *(f"placement/settlements:{name}" for name in ("avoided", "settled")),
        "recovery/gameday:restored",
        # The copy lies in the home itself.
        "recovery/replica:fresh",
        # Sped up, a drill says nothing of a deadline.
        *(f"slo/drill:{name}" for name in ("bounded", "promoted", "rollback", "weekly")),
        # No isolated builder, and no scanner.
        "supply_chain/attestations:slsa_level",
        "supply_chain/vulnerabilities:gate",
    ]
    assert len(failed) == 15
    assert len(results) >= 50


def test_every_check_result_is_in_the_lake(world: World) -> None:
    results = [c for run in (world.daily, world.images, world.rest) for c in run.get_asset_check_evaluations()]
    ran = {f"{c.asset_key.to_user_string()}:{c.check_name}" for c in results}
    assert set(world.lake().read(CHECK_RESULTS)["check"].to_pylist()) == ran


def test_one_file_per_table_and_day(world: World) -> None:
    days = [date.fromisoformat(world.first) + timedelta(days=n) for n in range(3)]
    lake = world.lake()
    for day in days:
        assert len(lake.files(CARBON_INTENSITY, {"provider": "sample", "day": day})) == 1
        folder = world.home / "lake" / "bronze" / "resource_usage" / "source=sample" / f"day={day}"
        assert len(list(folder.iterdir())) == 1


def test_rows_of_a_full_day_are_zones_times_hours(world: World) -> None:
    rows = world.lake().read(CARBON_INTENSITY, {"day": date.fromisoformat(world.first)})
    assert rows.num_rows == 12 * 24
    assert set(rows["provider"].to_pylist()) == {"sample"}


def test_metadata_tells_rows_schema_and_that_it_is_sample_data(world: World) -> None:
    found = metadata(world.daily, "carbon__intensity")
    hours = int((datetime.now(UTC) - datetime.fromisoformat(world.first).replace(tzinfo=UTC)) / timedelta(hours=1))
    assert found["provider"] == "sample (sample data)"
    assert found["dagster/row_count"] == found["new intervals"]
    assert abs(found["new intervals"] - 12 * hours) <= 12  # an hour may have ended since
    assert found["zones that failed"] == "none"
    columns = {c.name: c for c in found["dagster/column_schema"].columns}
    assert columns["carbon_intensity_g_per_kwh"].description.startswith("gCO2e per kWh")
    assert columns["datetime"].type == "timestamp with time zone"


def test_emissions_are_usage_times_intensity(world: World) -> None:
    """One row worked by hand: energy by the factors, times the hour's intensity."""
    lake = world.lake()
    row = lake.query(
        """
        select e.energy_kwh, e.operational_kg, i.carbon_intensity_g_per_kwh as g, u.*, r.pue
        from emissions_hourly as e
        join resource_usage as u using (hour, service, tenant, region)
        join regions as r on r.region = e.region
        join carbon_intensity as i on i.zone = r.zone and i.datetime = e.hour
        where e.service = 'q2q-ai' order by e.hour, e.tenant limit 1
        """
    ).to_pylist()[0]
    f = {r["factor"]: r["value"] for r in lake.query("select factor, value from emission_factors").to_pylist()}
    vcpu = f["cpu_min_w_per_vcpu"] + row["cpu_utilization"] * (f["cpu_max_w_per_vcpu"] - f["cpu_min_w_per_vcpu"])
    gpu = f["gpu_min_w"] + f["gpu_default_utilization"] * (f["gpu_max_w"] - f["gpu_min_w"])
    inside = (
        row["vcpu_hours"] * vcpu / 1000
        + row["memory_gb_hours"] * f["memory_kwh_per_gb_hour"]
        + row["storage_tb_hours"] * f["storage_wh_per_tb_hour"] * f["storage_replication"] / 1000
        + row["gpu_hours"] * gpu / 1000
    )
    energy = inside * row["pue"] + row["network_gb"] * f["network_kwh_per_gb"]
    assert row["energy_kwh"] == pytest.approx(energy, rel=1e-12)
    assert row["operational_kg"] == pytest.approx(energy * row["g"] / 1000, rel=1e-12)


def test_the_scorecard_shows_the_checks_of_its_own_run(world: World) -> None:
    verdicts = {r["id"]: r for r in world.lake().query("from scorecard").to_pylist()}
    assert verdicts["J2.1"]["verdict"] == "met"
    assert verdicts["J2.4"]["verdict"] == "met"
    assert verdicts["J2.4"]["measured"] == pytest.approx(100)
    assert verdicts["J4.1"]["measured"] == 2
    assert verdicts["J4.2"]["verdict"] == "met"
    assert verdicts["J5.1"]["verdict"] == "not yet measured"
    assert (verdicts["J4.3"]["verdict"], verdicts["J4.3"]["measured"]) == ("met", 100)


def test_the_evidence_behind_a_figure_is_named_from_check_to_scorecard_and_verifies(world: World) -> None:
    """UI metadata, `check_results`, scorecard and the table of bundles name the same bundle, which says the same figure."""
    [shown] = [c for c in world.rest.get_asset_check_evaluations() if c.check_name == "coverage"]
    lake = world.lake()
    result = lake.query("select * from check_results where \"check\" = 'carbon/emissions_hourly:coverage'").to_pylist()[
        0
    ]
    card = {r["id"]: r for r in lake.query("from scorecard").to_pylist()}
    bundle = shown.metadata["evidence"].value
    assert bundle == result["evidence"] == card["J2.4"]["evidence"]
    evidence = wiring.evidence(load_settings())
    report = evidence.verify(bundle, evidence.trust())
    assert report.ok
    assert report.statement is not None
    assert report.statement.predicate.control == "J2.4"
    assert report.statement.predicate.figures["measured"] == result["measured"] == 100
    inputs = json.loads(read(evidence.archive.get(bundle)).files["inputs.json"])
    mart = next(t for t in lake.tables if t.name == "emissions_hourly")
    assert inputs == {"marts/emissions_hourly": lake.files(mart)}
    listed = lake.query("select control, is_verified from evidence_bundles where bundle = ?", [bundle]).to_pylist()
    assert listed == [{"control": "J2.4", "is_verified": True}]


def test_the_signed_scorecard_holds_the_card_the_report_and_the_results(world: World) -> None:
    found = metadata(world.rest, "evidence__scorecard")
    evidence = wiring.evidence(load_settings())
    bundle = read(evidence.archive.get(found["evidence"]))
    assert set(bundle.files) == {"scorecard.json", "check-results.json", "carbon.html"}
    card = {c["id"]: c for c in json.loads(bundle.files["scorecard.json"])["criteria"]}
    assert card["J2.1"]["verdict"] == "met"
    proofs = {r["check"]: r["evidence"] for r in json.loads(bundle.files["check-results.json"])}
    assert proofs["carbon/intensity:completeness"] == card["J2.1"]["evidence"] is not None
    assert bundle.files["carbon.html"] == (world.home / "reports" / "carbon.html").read_bytes()


def test_a_result_is_kept_where_its_evidence_cannot_be_filed_and_the_reason_is_counted(world: World) -> None:
    key = world.home / "keys" / "evidence.key"
    key.chmod(0o644)
    try:
        keys = [dg.AssetKey(["carbon", "emissions_hourly"])]
        result = materialise(world.instance, keys, raise_on_error=False)
        [coverage] = [c for c in result.get_asset_check_evaluations() if c.check_name == "coverage"]
        assert coverage.passed
        assert "evidence.key" in coverage.metadata["evidence"].value
        counted = inventory.complete(world.lake(), datetime.now(UTC))
        assert (counted.measured, counted.outcome) == (1, "failed")
        assert "evidence.key" in counted.detail
    finally:
        key.chmod(0o600)


def test_the_report_is_there_and_says_that_it_is_sample_data(world: World) -> None:
    html = (world.home / "reports" / "carbon.html").read_text(encoding="utf-8")
    assert "Sample data." in html
    assert sorted(p.name for p in (world.home / "reports").iterdir()) == ["carbon.html", "finops", "recovery.html"]
    # Three months, of each a statement per tenant.
    months = [p for p in (world.home / "reports" / "finops").iterdir() if p.is_dir()]
    assert [len(list(p.glob("*.html"))) for p in months] == [8, 8, 8]
    for path in (world.home / "reports" / "finops").rglob("*.html"):
        assert "Sample data." in path.read_text(encoding="utf-8")


def test_running_the_same_days_again_adds_no_known_interval(world: World) -> None:
    before = world.lake().query("select count(*) as n from carbon_intensity_history")["n"][0].as_py()
    yesterday = (date.fromisoformat(world.last) - timedelta(days=1)).isoformat()
    result = materialise(world.instance, [dg.AssetKey(["carbon", "intensity"])], world.first, yesterday)
    found = metadata(result, "carbon__intensity")
    after = world.lake().query("select count(*) as n from carbon_intensity_history")["n"][0].as_py()
    # Hours turn from estimate to final after a day: those are revisions, and the only news.
    assert found["new intervals"] == 0
    assert after - before == found["revised intervals"]


def test_marts_warehouse_and_reports_follow_a_new_day_of_intensity(world: World) -> None:
    found, cursor = requested(world.instance)
    found, cursor = requested(world.instance, cursor)
    assert found == set()
    materialise(world.instance, [dg.AssetKey(["carbon", "intensity"])], world.last, world.last)
    found, cursor = requested(world.instance, cursor)
    assert found == FOLLOWERS
    found, _ = requested(world.instance, cursor)
    assert found == set()


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


def test_a_broken_rule_publishes_nothing_and_fails_the_run(world: World) -> None:
    lake = world.lake()
    mart = lake.storage.glob("marts/*/*.parquet")
    bad = lake.read(RESOURCE_USAGE, {"day": date.fromisoformat(world.first)})
    index = bad.schema.get_field_index("region")
    nowhere = bad.set_column(index, bad.schema.field(index), [["nowhere-1"] * bad.num_rows])
    lake.write(RESOURCE_USAGE, nowhere)
    try:
        marts = [dg.AssetKey(mart.asset_key) for mart in wiring.dbt_project(load_settings()).marts]
        result = materialise(world.instance, marts, raise_on_error=False)
        assert not result.success
        failed = {c.check_name for c in result.get_asset_check_evaluations() if not c.passed}
        assert "usage_regions_are_declared" in failed
        assert [p for p in lake.storage.glob("marts/*/*.parquet") if "scorecard" not in p] == [
            p for p in mart if "scorecard" not in p
        ]
    finally:
        lake.write(RESOURCE_USAGE, bad)


def test_a_schema_breach_stops_what_is_downstream(world: World) -> None:
    folder = world.home / "lake" / "bronze" / "regions"
    stranger = folder / "stranger.parquet"
    pq.write_table(pq.read_table(next(folder.glob("data-*"))), stranger)
    try:
        keys = [dg.AssetKey(["ops", "regions"]), dg.AssetKey(["carbon", "forecast"])]
        result = materialise(world.instance, keys, raise_on_error=False)
        assert not result.success
        done = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events() if e.asset_key}
        assert done == {"ops/regions"}
    finally:
        stranger.unlink()
