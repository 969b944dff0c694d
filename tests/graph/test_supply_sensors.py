"""What notices images and makes up for what is missing, unattended: ticks over layouts and registries that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from greenops_pipelines.definitions import defs
from greenops_pipelines.process import ports
from greenops_pipelines.resources import Platform
from greenops_pipelines.supply_chain import subjects
from greenops_pipelines.supply_chain.layout import Layout
from sensors import supply_chain as sensors
from tests.supply_chain.conftest import opened
from tests.supply_chain.small_images import push

NIGHT = datetime(2026, 3, 11, 2, 41, tzinfo=UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Not an ephemeral one: Dagster finds the partitions that are asked for where it can open the instance anew."""
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as found:
        yield found


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A layout that is declared, and no scanner."""
    ops = tmp_path / "ops"
    ops.mkdir()
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(ops))
    monkeypatch.setattr(
        subjects, "open_registry", lambda reference, *_: opened(reference.registry, reference.repository)
    )
    declare(ops, "{name: app, source: oci:app}")
    return Layout(ops / "app", create=True)


def declare(ops: Path, *images: str) -> None:
    (ops / "images.yaml").write_text("images:\n" + "".join(f"  - {each}\n" for each in images))


def tick(instance: dg.DagsterInstance) -> tuple[list[dg.RunRequest], list[str], str]:
    """Runs that are asked for, partitions that are added, why there are none. As the daemon does, partitions are added then."""
    resources = {"platform": Platform()}
    ref = instance.get_ref()
    with dg.build_sensor_context(instance, instance_ref=ref, definitions=defs, resources=resources) as context:
        found = sensors.new_images.evaluate_tick(context)
    added = [key for each in found.dynamic_partitions_requests or [] for key in each.partition_keys]
    instance.add_dynamic_partitions("images", added)
    return list(found.run_requests or []), added, found.skip_message or ""


def nightly(instance: dg.DagsterInstance) -> tuple[list[dg.RunRequest], str]:
    with dg.build_schedule_context(
        instance,
        NIGHT,
        {"platform": Platform()},
        repository_def=defs.get_repository_def(),
        instance_ref=instance.get_ref(),
    ) as context:
        found = sensors.images_nightly.evaluate_tick(context)
    return list(found.run_requests or []), found.skip_message or ""


def test_a_new_digest_is_a_partition_and_a_run_once(app: Layout, instance: dg.DagsterInstance) -> None:
    one, two = push(app, "v1"), push(app, "v2", {"a": "a"})
    push(app, "latest")  # the same image
    requests, added, _ = tick(instance)
    assert added == [one, two]
    assert [(each.run_key, each.partition_key, each.tags["greenops/image"]) for each in requests] == [
        (f"image:{digest}", digest, digest[:19]) for digest in (one, two)
    ]
    assert tick(instance) == ([], [], "2 images, none of them new; 0 sources not reached")
    moved = push(app, "v1", {"b": "b"})
    assert tick(instance)[1] == [moved]
    # Back to what was there before, which has its partition: what the images are is looked at anew, and no image taken in.
    push(app, "v1")
    (request,), added, _ = tick(instance)
    assert (request.job_name, request.partition_key, added) == ("images_moved", None, [])
    assert tick(instance)[0] == []


def test_twenty_are_asked_for_at_a_tick_and_the_rest_at_the_next(app: Layout, instance: dg.DagsterInstance) -> None:
    digests = {push(app, f"v{number:02}", {"a": str(number)}) for number in range(23)}
    first, second, third = (tick(instance)[0] for _ in range(3))
    assert [len(each) for each in (first, second, third)] == [20, 3, 0]
    assert {each.partition_key for each in (*first, *second)} == digests


def test_a_registry_that_is_down_is_a_line_and_the_others_go_on(
    app: Layout, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    closed = f"127.0.0.1:{ports.free_port()}"
    declare(app.folder.parent, f"{{name: down, source: '{closed}/team/app'}}", "{name: app, source: oci:app}")
    digest = push(app, "v1")
    assert tick(instance)[1] == [digest]
    assert tick(instance) == ([], [], "1 images, none of them new; 1 sources not reached")
    assert f"{closed}/team/app" in caplog.text


def test_nothing_that_can_be_reached_is_a_skip(app: Layout, instance: dg.DagsterInstance) -> None:
    (app.folder / "index.json").write_text("{")
    assert tick(instance) == ([], [], "0 images, none of them new; 1 sources not reached")


def test_every_night_asks_for_what_is_missing_and_not_for_what_is_complete(
    app: Layout, instance: dg.DagsterInstance
) -> None:
    assert nightly(instance) == ([], "every image in use has its SBOM, its scan and its attestations")
    one, two = sorted([push(app, "v1"), push(app, "v2", {"a": "a"})])
    tick(instance)
    requests, _ = nightly(instance)
    assert [(each.run_key, each.partition_key) for each in requests] == [
        (f"images_nightly:2026-03-11:{digest}", digest) for digest in (one, two)
    ]
    # A digest whose partition was never added, or was removed by hand, has one afterwards.
    instance.delete_dynamic_partition("images", two)
    nightly(instance)
    assert sorted(instance.get_dynamic_partitions("images")) == [one, two]


def test_the_run_that_is_asked_for_takes_the_image_in(app: Layout, instance: dg.DagsterInstance) -> None:
    digest = push(app, "v1")
    (request,), _, _ = tick(instance)
    done = defs.resolve_job_def("image_intake").execute_in_process(
        partition_key=request.partition_key,
        tags=dict(request.tags),
        instance=instance,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    assert done.success
    lake = Platform().lake()
    assert lake.query("select image_digest from sboms").to_pylist() == [{"image_digest": digest}]
    assert lake.query("select missing from image_standing").to_pylist() == [
        {"missing": "signature, CycloneDX SBOM, SPDX SBOM, provenance"}
    ]


def test_the_daily_run_has_a_key_per_day() -> None:
    with dg.build_schedule_context(scheduled_execution_time=NIGHT) as context:
        (request,) = sensors.supply_chain_daily.evaluate_tick(context).run_requests
    assert request.run_key == "supply_chain:2026-03-11"
