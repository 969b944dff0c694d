"""Nobody touches anything: a schedule fires, the marts follow, and a person sees it all through the UI's own API."""

import pytest

from greenops_pipelines import wiring
from greenops_pipelines.lake import query
from greenops_pipelines.settings import load_settings
from tests.e2e.conftest import Site

RUNS = """
query Runs { runsOrError { ... on Runs { results { runId status jobName tags { key value } } } } }
"""
LOCATION = """
query Location { repositoriesOrError { ... on RepositoryConnection { nodes { name
  location { name } schedules { name scheduleState { status } } sensors { name sensorState { status } } } }
  ... on PythonError { message } } }
"""
LAUNCH = """
mutation Launch($selector: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $selector}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}
"""
CHECKS = """
query Checks($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name blocking executionForLatestMaterialization { status
    evaluation { success metadataEntries { label ... on TextMetadataEntry { text } } } } } } } } } }
"""


def runs(site: Site) -> list[dict]:
    found = site.ask(RUNS)["runsOrError"]["results"]
    return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]


def finished(site: Site, **wanted: str) -> dict | None:
    """The first successful run that carries the tags; fails at once if one of them failed."""
    matching = [r for r in runs(site) if all(r["tags"].get(k.replace("__", "/")) == v for k, v in wanted.items())]
    assert [r for r in matching if r["status"] == "FAILURE"] == []
    return next((r for r in matching if r["status"] == "SUCCESS"), None)


def test_the_graph_loads_and_everything_that_fires_is_running(site: Site) -> None:
    [repository] = site.ask(LOCATION)["repositoriesOrError"]["nodes"]
    assert repository["location"]["name"] == "greenops"
    states = {s["name"]: s["scheduleState"]["status"] for s in repository["schedules"]}
    states |= {s["name"]: s["sensorState"]["status"] for s in repository["sensors"]}
    assert set(states.values()) == {"RUNNING"}
    nodes = site.ask("query { assetNodes { groupName description owners { __typename } } }")["assetNodes"]
    assert len(nodes) >= 13
    assert all(n["groupName"] and n["description"] and n["owners"] for n in nodes)


def test_the_daemon_is_healthy(site: Site) -> None:
    ask = "query { instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"

    def healthy() -> bool:
        statuses = site.ask(ask)["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(s["healthy"] for s in statuses if s["required"])

    assert site.until(healthy, seconds=60)


def test_a_run_launched_through_graphql_succeeds(site: Site) -> None:
    [repository] = site.ask(LOCATION)["repositoriesOrError"]["nodes"]
    selector = {
        "jobName": "declarations",
        "repositoryName": repository["name"],
        "repositoryLocationName": "greenops",
        "assetSelection": [{"path": ["ops", "regions"]}],
    }
    launched = site.ask(LAUNCH, selector=selector)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    done = site.until(lambda: [r for r in runs(site) if r["runId"] == run_id and r["status"] == "SUCCESS"], seconds=120)
    assert done[0]["jobName"] == "declarations"


def test_a_schedule_fires_and_the_marts_follow_on_their_own(site: Site) -> None:
    """Schedule -> ingestion of two days -> automation condition -> marts, warehouse, scorecard, report."""
    run = site.until(lambda: finished(site, dagster__schedule_name="carbon_minutely"), seconds=150)
    assert run["jobName"] == "carbon_ingest"
    site.until(lambda: finished(site, dagster__sensor_name="declarations_changed"), seconds=60)
    site.until(lambda: (site.home / "reports" / "carbon.html").exists(), seconds=360)
    site.until(lambda: finished(site, dagster__sensor_name="assets_follow_inputs"), seconds=60)
    settings = load_settings()
    rows = query.run(
        settings.warehouse,
        wiring.storage(settings),
        "select count(*) as n, count(distinct service) as services, count(distinct tenant) as tenants from emissions_hourly",
    ).to_pylist()[0]
    assert rows["services"] == 5
    assert rows["tenants"] == 8
    assert rows["n"] % 40 == 0
    assert rows["n"] >= 40 * 24


def test_checks_are_seen_with_target_and_figure(site: Site) -> None:
    def latest() -> dict | None:
        node = site.ask(CHECKS, key={"path": ["carbon", "intensity"]})["assetNodeOrError"]
        checks = {c["name"]: c for c in node["assetChecksOrError"]["checks"]}
        executions = [c["executionForLatestMaterialization"] for c in checks.values()]
        return checks if all(e and e["evaluation"] for e in executions) else None

    checks = site.until(latest, seconds=120)
    assert set(checks) == {"schema", "completeness", "freshness", "estimated_share"}
    assert checks["schema"]["blocking"]
    evaluation = checks["completeness"]["executionForLatestMaterialization"]["evaluation"]
    shown = {e["label"]: e.get("text") for e in evaluation["metadataEntries"]}
    assert evaluation["success"]
    assert (shown["measured"], shown["target"]) == ("100 %", ">= 95 %")


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])  # noqa: S104 - what must not be listened on
def test_nothing_listens_beyond_loopback(site: Site, address: str) -> None:
    import psutil

    mine = [p.pid for p in psutil.Process().children(recursive=True)]
    listening = [c for c in psutil.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN and c.pid in mine]
    assert listening
    assert [c.laddr for c in listening if c.laddr.ip == address] == []


BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""


def test_a_backfill_of_a_range_of_days_is_one_run_and_one_file_per_day(site: Site) -> None:
    """What the UI's "Materialize" does when a person picks a range of partitions."""
    from datetime import date, timedelta

    days = [(date(2026, 3, 28) + timedelta(days=n)).isoformat() for n in range(4)]
    params = {"assetSelection": [{"path": ["carbon", "intensity"]}], "partitionNames": days}
    launched = site.ask(BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    run = site.until(lambda: finished(site, dagster__backfill=launched["backfillId"]), seconds=180)
    assert run["tags"]["dagster/asset_partition_range_start"] == days[0]
    assert run["tags"]["dagster/asset_partition_range_end"] == days[-1]
    same = [r for r in runs(site) if r["tags"].get("dagster/backfill") == launched["backfillId"]]
    assert len(same) == 1
    folder = site.home / "lake" / "bronze" / "carbon_intensity" / "provider=sample"
    assert [len(list((folder / f"day={day}").glob("*.parquet"))) for day in days] == [1, 1, 1, 1]
