"""Launching into a region's cluster: dry run, adoption after a worker's death, a cluster that cannot be reached.

The API server is a test double, for the reasons that `kube_double.py` gives.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from greenops_pipelines.placement import due
from greenops_pipelines.process.ports import free_port
from greenops_pipelines.settings import Settings
from tests.placement.kube_double import KubeDouble
from tests.placement.test_launching import Site, worker

RUNNER = {"kind": "kubernetes", "image": "ghcr.io/acme/etl:1.4", "command": ["etl"], "namespace": "batch"}


@pytest.fixture
def cluster() -> Iterator[KubeDouble]:
    double = KubeDouble()
    yield double
    double.stop()


def named(site: Site, contexts: str, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site with its regions' contexts, for workers in other processes as well."""
    monkeypatch.setenv("GREENOPS_KUBE_CONTEXTS", contexts)
    monkeypatch.setenv("GREENOPS_KUBECONFIG", str(kubeconfig))
    site.settings = Settings(home=site.settings.home, ops_dir=site.settings.ops_dir)
    return site


def test_without_a_context_it_is_rendered_once_and_said_to_be(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.submit("k", [], runner=RUNNER)
    site.plan()
    report = site.launch("k")
    assert report.state == "rendered"
    assert report.detail.startswith("dry run: ")
    assert site.ledger.outcome("k") == "rendered"
    assert site.attempts("k") == [(1, "rendered")]
    assert len(list((tmp_path / "gitops/k8s/jobs/eu-central-1").iterdir())) == 1


def test_a_job_whose_worker_was_killed_is_adopted_and_not_started_again(
    tmp_path: Path, cluster: KubeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = named(Site(tmp_path), "eu-central-1=prod-eu", cluster.kubeconfig(tmp_path), monkeypatch)
    site.submit("k", [], runner=RUNNER)
    site.plan()
    first = worker(site, "k")
    cluster.await_job()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    # Looked at again after two minutes: the Job runs meanwhile.
    assert due.find(site.lake, site.ledger, datetime.now(UTC)).due == []
    cluster.ends(0)
    assert site.launch("k").state == "succeeded"
    assert site.attempts("k") == [(1, "succeeded")]
    assert sum(verb == "POST" for verb, _ in cluster.requests) == 1


def test_a_job_in_a_region_that_is_not_declared_any_more_is_adopted_all_the_same(
    tmp_path: Path, cluster: KubeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = named(Site(tmp_path), "eu-central-1=prod-eu,eu-west-1=prod-eu", cluster.kubeconfig(tmp_path), monkeypatch)
    site.submit("k", [], runner=RUNNER)
    [row] = site.plan()
    runs = row["runs"].replace("eu-central-1", "eu-west-1")
    site.store([row | {"region": "eu-west-1", "zone": "IE", "runs": runs}])
    first = worker(site, "k")
    cluster.await_job()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    regions = site.settings.ops_dir / "regions.yaml"
    regions.write_text("".join(line for line in regions.read_text().splitlines(True) if "eu-west-1" not in line))
    workloads = site.settings.ops_dir / "workloads.yaml"
    workloads.write_text(workloads.read_text().replace("eu-west-1: 25, ", ""))
    cluster.ends(0)
    report = site.launch("k")
    assert (report.state, report.region) == ("succeeded", "eu-west-1")
    assert (report.tags or {})["greenops/zone"] == "IE"


def test_a_cluster_that_cannot_be_reached_is_lost_three_times_and_then_it_runs_at_home(
    tmp_path: Path, cluster: KubeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned for Dublin, whose server is away; Frankfurt is there."""
    away = tmp_path / "away"
    away.mkdir()
    cluster.kubeconfig(away, server=f"http://127.0.0.1:{free_port()}")
    site = named(Site(tmp_path), "eu-west-1=prod-eu", away / "kubeconfig", monkeypatch)
    site.submit("k", [], runner=RUNNER)
    [row] = site.plan()
    runs = row["runs"].replace("eu-central-1", "eu-west-1")
    site.store([row | {"region": "eu-west-1", "zone": "IE", "runs": runs}])
    for _ in range(3):
        report = site.launch("k")
        assert (report.state, report.region) == ("lost", "eu-west-1")
        assert "region eu-west-1, context prod-eu: read Job: the connection failed" in report.detail
        ended = site.ledger.tried("k")[-1].ended_at
        assert ended is not None
        # A cluster that is away for a moment is asked again, a minute later the first time.
        assert due.find(site.lake, site.ledger, ended + timedelta(seconds=59)).due == []
    # No context is named for home: a dry run, which says where the work would go.
    assert (site.launch("k").state, site.ledger.tried("k")[-1].region) == ("rendered", "eu-central-1")
