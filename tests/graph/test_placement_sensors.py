"""What launches and plans unattended: ticks of the sensors over a ledger and a plan, restarts and duplicates included."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from greenops_pipelines.definitions import defs
from greenops_pipelines.resources import Platform
from sensors import placement as sensors
from tests.placement.small_ops import document
from tests.placement.test_launching import MINUTE, Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    found = Site(tmp_path)
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(found.settings.ops_dir))
    return found


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def tick(
    sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None = None
) -> tuple[list, str | None, str]:
    resources = {"platform": Platform()}
    with dg.build_sensor_context(instance=instance, cursor=cursor, definitions=defs, resources=resources) as context:
        found = sensor.evaluate_tick(context)
    return list(found.run_requests or []), found.cursor, found.skip_message or ""


def run(request: dg.RunRequest, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """What the run that was asked for does."""
    return defs.resolve_job_def("placement_launch").execute_in_process(
        run_config={**request.run_config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        tags=dict(request.tags),
        instance=instance,
        raise_on_error=False,
    )


def test_due_work_is_launched_with_its_region_and_reason_as_tags(site: Site, instance: dg.DagsterInstance) -> None:
    site.submit("month-end", ["true"])
    [row] = site.plan()
    [request], _, _ = tick(sensors.placement_due, instance)
    assert {name: request.tags[name] for name in request.tags if name.startswith("greenops/")} == {
        "greenops/key": "month-end",
        "greenops/workload": "ad-hoc-report",
        "greenops/tenant": "acme",
        "greenops/region": "eu-central-1",
        "greenops/zone": "DE",
        "greenops/state": "fallback",
        "greenops/avoided_g": "unknown",
        "greenops/reason": row["reason"],
        "greenops/deadline": f"{row['deadline']:%Y-%m-%dT%H:%MZ}",
    }
    # The program's own limit of one minute, and half an hour.
    assert request.tags["dagster/max_runtime"] == str(31 * 60)
    done = run(request, instance)
    assert done.success
    tags = instance.get_run_by_id(done.run_id).tags
    assert (tags["greenops/outcome"], tags["greenops/attempt"]) == ("succeeded", "1")
    assert tick(sensors.placement_due, instance)[0] == []


def test_a_tick_that_comes_twice_launches_once(site: Site, instance: dg.DagsterInstance) -> None:
    """The daemon died between asking and remembering that it did: two runs of one key."""
    marks = site.settings.home / "marks"
    site.submit("k", ["sh", "-c", f"echo done >> {marks}"])
    site.plan()
    first, second = tick(sensors.placement_due, instance)[0], tick(sensors.placement_due, instance)[0]
    for request in (*first, *second):
        assert run(request, instance).success
    assert marks.read_text() == "done\n"


def test_what_waits_in_the_queue_is_not_asked_for_again(site: Site, instance: dg.DagsterInstance) -> None:
    site.submit("k", ["true"])
    site.plan()
    [request], _, _ = tick(sensors.placement_due, instance)
    job = defs.resolve_job_def("placement_launch")
    waiting = instance.create_run_for_job(
        job, run_config=request.run_config, tags=dict(request.tags), status=dg.DagsterRunStatus.NOT_STARTED
    )
    assert tick(sensors.placement_due, instance)[0] == []
    instance.report_run_canceled(waiting)
    assert len(tick(sensors.placement_due, instance)[0]) == 1


def test_no_more_is_asked_for_than_can_wait_and_the_most_pressing_first(
    site: Site, instance: dg.DagsterInstance
) -> None:
    start = (datetime.now(UTC) - MINUTE).isoformat()
    for number in range(50):
        site.submit(f"k{number:02}", ["true"], earliest_start=start, window_minutes=600 - number)
    site.plan()
    requests, _, _ = tick(sensors.placement_due, instance)
    assert [request.tags["greenops/key"] for request in requests] == [f"k{number}" for number in range(49, 9, -1)]


def test_a_refused_launch_is_a_failed_run_that_says_why(site: Site, instance: dg.DagsterInstance) -> None:
    site.submit("k", ["true"])
    [row] = site.plan()
    runs = json.dumps([{**each, "region": "us-east-1"} for each in json.loads(row["runs"])])
    site.store([row | {"region": "us-east-1", "runs": runs}])
    [request], _, _ = tick(sensors.placement_due, instance)
    assert request.tags["greenops/region"] == "us-east-1"
    done = run(request, instance)
    assert not done.success
    assert instance.get_run_by_id(done.run_id).tags["greenops/outcome"] == "refused"
    requests, _, said = tick(sensors.placement_due, instance)
    assert requests == []
    assert said == "nothing is due; 0 missed their hour and wait for a new plan, 1 were refused"


def test_submissions_are_planned_once_each_by_whatever_way_they_came(site: Site, instance: dg.DagsterInstance) -> None:
    assert tick(sensors.placement_new_work, instance) == ([], None, "nothing new was submitted")
    inbox = site.settings.inbox / "placement"
    inbox.mkdir(parents=True)
    (inbox / ".being-written.json").write_text("{")
    assert tick(sensors.placement_new_work, instance)[0] == []
    start = datetime.now(UTC).replace(second=0, microsecond=0)
    (inbox / "one.json").write_text(json.dumps(document("one", earliest_start=start.isoformat())))
    asked, cursor, _ = tick(sensors.placement_new_work, instance)
    assert len(asked) == 1
    # Asked, and not swept yet; a daemon that starts anew has the cursor.
    assert tick(sensors.placement_new_work, instance, cursor)[0] == []
    assert [row["key"] for row in site.plan()] == ["one"]
    assert tick(sensors.placement_new_work, instance, cursor) == ([], cursor, "nothing new was submitted")
    site.submit("two", ["true"])
    asked, after, _ = tick(sensors.placement_new_work, instance, cursor)
    assert (len(asked), after == cursor) == (1, False)
    assert sorted(row["key"] for row in site.plan()) == ["one", "two"]
    assert tick(sensors.placement_new_work, instance, after)[0] == []


def test_one_plan_at_a_time_is_asked_for(site: Site, instance: dg.DagsterInstance) -> None:
    site.submit("one", ["true"])
    job = defs.resolve_job_def("placement_plan")
    waiting = instance.create_run_for_job(job, status=dg.DagsterRunStatus.NOT_STARTED)
    assert tick(sensors.placement_new_work, instance) == ([], None, "a plan is about to be made")
    instance.report_run_canceled(waiting)
    assert len(tick(sensors.placement_new_work, instance)[0]) == 1


def test_what_was_launched_reaches_the_lake_at_most_every_five_minutes(
    site: Site, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, cursor, said = tick(sensors.placement_recorded, instance)
    assert (asked, said) == ([], "nothing was launched yet")
    site.submit("k", ["true"])
    site.plan()
    site.launch("k")
    assert tick(sensors.placement_recorded, instance, cursor)[2] == "within five minutes of the last time"
    asked, cursor, _ = tick(sensors.placement_recorded, instance)
    assert len(asked) == 1
    assert tick(sensors.placement_recorded, instance, cursor)[2] == "nothing was launched"
    site.submit("l", ["true"])
    site.plan()
    site.launch("l")
    assert tick(sensors.placement_recorded, instance, cursor)[2] == "within five minutes of the last time"
    version, _, at = (cursor or "").partition("@")
    before = datetime.fromisoformat(at) - timedelta(minutes=5)
    assert len(tick(sensors.placement_recorded, instance, f"{version}@{before.isoformat()}")[0]) == 1
    # A clock that was set back does not stop it for long.
    ahead = datetime.fromisoformat(at) + timedelta(days=1)
    assert len(tick(sensors.placement_recorded, instance, f"{version}@{ahead.isoformat()}")[0]) == 1


def test_work_that_was_not_launched_is_looked_for_every_six_hours(site: Site, instance: dg.DagsterInstance) -> None:
    """A launcher that stands still writes nothing into the ledger."""
    now = datetime.now(UTC)
    for version, hours, asked in (("", 5, 0), ("", 6, 1)):
        before = now - timedelta(hours=hours)
        assert len(tick(sensors.placement_recorded, instance, f"{version}@{before.isoformat()}")[0]) == asked


def test_a_lost_home_is_no_error(site: Site, instance: dg.DagsterInstance) -> None:
    shutil.rmtree(site.settings.dispatches, ignore_errors=True)
    for sensor in sensors.SENSORS:
        assert tick(sensor, instance)[0] == []


def test_the_hour_of_a_plan_is_not_jumped(site: Site, instance: dg.DagsterInstance) -> None:
    site.submit("k", ["true"], window_minutes=600)
    [row] = site.plan()
    site.store([row | {"start_at": datetime.now(UTC) + MINUTE}])
    assert tick(sensors.placement_due, instance)[0] == []
