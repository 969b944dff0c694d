"""The doctor: every finding with its state, and the line to add."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from greenops_pipelines import wiring
from greenops_pipelines.doctor import Finding, examine
from greenops_pipelines.settings import load_settings
from tests.carbon.small_lake import ROOT
from tests.placement.kube_double import KubeDouble

SUBJECTS = [
    "home",
    "ops/",
    "SLOs",
    "SLO metrics",
    "incidents",
    "promtool",
    "dbt",
    "lake",
    "carbon intensity",
    "resource usage",
    "bills",
    "warehouse",
    "drills",
    "second copy",
    "images",
    "SBOMs",
    "scanners",
    "kubernetes",
    "UI port",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, so that dbt's manifest is parsed once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def free_port(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A folder without `.env`, the shipped declarations, and a port that nothing listens on."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GREENOPS_")]:
        monkeypatch.delenv(name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    for name, value in {"HOME": home, "OPS_DIR": ROOT / "ops", "DBT_DIR": ROOT / "dbt", "UI_PORT": port}.items():
        monkeypatch.setenv(f"GREENOPS_{name}", str(value))
    return port


def finding(subject: str) -> Finding:
    (found,) = (f for f in examine() if f.subject == subject)
    return found


def test_a_fresh_home_lacks_data_and_a_run_and_is_not_broken() -> None:
    found = examine()
    assert [f.subject for f in found] == SUBJECTS
    # promtool and scanners are there or not, as the machine has it; either is said.
    assert {f.subject: f.state for f in found if f.state != "fine" and f.subject not in {"promtool", "scanners"}} == {
        "SLO metrics": "missing",
        "incidents": "missing",
        "carbon intensity": "missing",
        "resource usage": "missing",
        "bills": "missing",
        "warehouse": "missing",
        "drills": "missing",
        "second copy": "missing",
        "kubernetes": "missing",
    }
    assert all(f.advice for f in found if f.state != "fine")
    assert finding("ops/").detail == "12 regions, 8 tenants, 10 workloads"
    assert finding("SLOs").detail == "22 SLOs of 5 services, 24 alerts"
    assert finding("warehouse").advice == "greenops run"
    assert finding("carbon intensity").detail == "sample data for 12 zones"


@pytest.mark.parametrize(
    "subject", ["SLO metrics", "incidents", "carbon intensity", "resource usage", "second copy", "kubernetes"]
)
def test_the_advice_is_a_line_that_can_be_added(subject: str) -> None:
    assert re.fullmatch(r"GREENOPS_[A-Z_]+=\S.*", finding(subject).advice)


def test_a_wrong_setting_is_the_only_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_RUN_DAYS", "many")
    (found,) = examine()
    assert (found.subject, found.state) == ("settings", "broken")
    assert found.detail.startswith("GREENOPS_RUN_DAYS: found 'many'; ")


def test_a_misspelt_variable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_CARBON_PROVDER", "file")
    found = examine()[0]
    assert (found.subject, found.state) == ("settings", "broken")
    assert found.detail == "GREENOPS_CARBON_PROVDER means nothing"
    assert found.advice == "did you mean GREENOPS_CARBON_PROVIDER?"


def test_a_home_that_is_a_file_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "home"
    path.write_text("")
    monkeypatch.setenv("GREENOPS_HOME", str(path))
    assert (finding("home").state, finding("home").detail) == ("broken", f"{path} is no folder")


def test_a_home_that_does_not_exist_yet_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path / "a" / "b"))
    assert finding("home").state == "fine"
    assert finding("home").detail.startswith(f"{tmp_path}/a/b, ")


def test_a_missing_or_wrong_declaration_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(tmp_path))
    assert finding("ops/").state == finding("carbon intensity").state == "broken"
    (tmp_path / "regions.yaml").write_text("regions:\n  - region: eu-central-1\n    pue: abc\n")
    assert "regions.yaml:3: regions[0].pue: found 'abc'" in finding("ops/").detail


def test_a_folder_without_models_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_DBT_DIR", str(tmp_path))
    assert finding("dbt").state == "broken"
    assert finding("dbt").detail.startswith("GREENOPS_DBT_DIR: no dbt_project.yml in ")


def test_a_file_of_intensity_is_shown_with_zones_and_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ci.csv").write_text(
        "datetime,zone,carbon_intensity_g_per_kwh\n2022-01-01T00:00Z,DE,5\n2022-03-01T00:00Z,PL,5\n"
    )
    monkeypatch.setenv("GREENOPS_CARBON_PROVIDER", "file")
    assert finding("carbon intensity").detail.startswith("GREENOPS_CARBON_PATH: not set")
    monkeypatch.setenv("GREENOPS_CARBON_PATH", "ci.csv")
    found = finding("carbon intensity")
    assert (found.state, found.detail) == ("fine", "file: 1 declared zones, 2022-01-01 to 2022-03-01")
    monkeypatch.setenv("GREENOPS_CARBON_PATH", "*.parquet")
    assert finding("carbon intensity").state == "broken"


def test_a_live_source_is_asked(fault_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_CARBON_PROVIDER", "uk-neso")
    monkeypatch.setenv("GREENOPS_CARBON_BASE_URL", fault_server.url)
    fault_server.json({"data": []})
    found = finding("carbon intensity")
    assert (found.state, found.detail) == ("fine", "uk-neso answers: 0 intervals of GB in 6 hours")
    assert fault_server.requests[0].path.startswith("/intensity/")


def test_a_marginal_source_is_said_to_be_one(fault_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_CARBON_PROVIDER", "watttime")
    monkeypatch.setenv("GREENOPS_CARBON_BASE_URL", fault_server.url)
    monkeypatch.setenv("GREENOPS_CARBON_USER", "ops")
    monkeypatch.setenv("GREENOPS_CARBON_PASSWORD", "s3cret-t0ken")
    monkeypatch.setenv("GREENOPS_WATTTIME_REGIONS", "US-CAL-CISO=CAISO_NORTH,US-MIDA-PJM=PJM_DC")
    fault_server.json({"token": "token-1"})
    meta = {"region": "PJM_DC", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh", "data_point_period_seconds": 300}
    fault_server.json(
        {"data": [], "meta": meta | {"generated_at": "2026-01-01T00:00:00Z", "warnings": [], "model": {}}}
    )
    found = finding("carbon intensity")
    assert (found.state, found.detail) == (
        "fine",
        "watttime answers: 0 intervals of US-MIDA-PJM in 6 hours, marginal: plans only, no emissions",
    )


def test_a_live_source_that_refuses_is_broken(fault_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_CARBON_PROVIDER", "electricity-maps")
    assert finding("carbon intensity").detail.startswith("GREENOPS_CARBON_TOKEN: ")
    monkeypatch.setenv("GREENOPS_CARBON_BASE_URL", fault_server.url)
    monkeypatch.setenv("GREENOPS_CARBON_TOKEN", "s3cret-t0ken")
    fault_server.json({"error": "Invalid auth-token s3cret-t0ken"}, status=401)
    found = finding("carbon intensity")
    assert found.state == "broken"
    assert "s3cret-t0ken" not in str(found)


def test_usage_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "u.csv").write_text("hour,service,tenant,region,vcpu_hours\n2026-03-01T00:00Z,s,t,r,1\n")
    monkeypatch.setenv("GREENOPS_USAGE_PATH", "u.csv")
    assert finding("resource usage").detail == "u.csv: 2026-03-01 to 2026-03-01"
    (tmp_path / "u.csv").write_text("hour,service,tenant,region,vcpu_hours\n")
    found = finding("resource usage")
    assert (found.state, found.detail) == ("broken", "GREENOPS_USAGE_PATH: u.csv: no rows")


def test_a_warehouse_is_fine_once_built_and_broken_once_torn(home: Path) -> None:
    warehouse = home / "warehouse.duckdb"
    wiring.lake(load_settings()).refresh()
    assert (finding("warehouse").state, finding("warehouse").detail) == ("fine", str(warehouse))
    warehouse.write_bytes(b"torn")
    assert finding("warehouse").state == "broken"
    assert finding("SLOs").detail == "22 SLOs of 5 services, 24 alerts"
    assert finding("warehouse").advice.endswith("greenops run --select lake/warehouse")
    warehouse.unlink()


def test_a_bucket_that_does_not_answer_is_broken(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    for name, value in {
        "GREENOPS_LAKE_URL": "s3://lake/of-mine",
        "GREENOPS_S3_ENDPOINT": f"http://127.0.0.1:{free_port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    found = finding("lake")
    assert found.state == "broken"
    assert "GREENOPS_S3_ENDPOINT" in found.advice + found.detail
    monkeypatch.setenv("GREENOPS_LAKE_URL", "https://lake")
    assert finding("lake").detail.startswith("GREENOPS_LAKE_URL: found 'https://lake', allowed: s3://bucket")


def test_each_regions_cluster_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = KubeDouble()
    monkeypatch.setenv("GREENOPS_KUBECONFIG", str(cluster.kubeconfig(tmp_path)))
    monkeypatch.setenv("GREENOPS_KUBE_CONTEXTS", "eu-central-1=prod-eu")
    found = finding("kubernetes")
    assert (found.state, found.detail) == ("fine", "eu-central-1=prod-eu answers: v1.33.1")
    monkeypatch.setenv("GREENOPS_KUBE_CONTEXTS", "eu-central-1=prod-eu,us-east-1=prod-us")
    found = finding("kubernetes")
    assert found.state == "broken"
    assert found.detail.startswith(
        "eu-central-1=prod-eu answers: v1.33.1; GREENOPS_KUBE_CONTEXTS: found us-east-1=prod-us"
    )
    monkeypatch.setenv("GREENOPS_KUBE_CONTEXTS", "eu-central-1=prod-eu,mars=prod-eu")
    assert finding("kubernetes").detail == "GREENOPS_KUBE_CONTEXTS: found mars, allowed: regions of regions.yaml"
    cluster.kubeconfig(tmp_path, token="wrong-t0ken")  # noqa: S106
    monkeypatch.setenv("GREENOPS_KUBE_CONTEXTS", "eu-central-1=prod-eu")
    assert finding("kubernetes").detail == (
        "kubernetes: region eu-central-1, context prod-eu: version: answered 401: Unauthorized"
    )
    cluster.stop()
    assert finding("kubernetes").state == "broken"


def test_a_second_copy_elsewhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_REPLICA_URL", str(tmp_path / "elsewhere"))
    found = finding("second copy")
    assert (found.state, found.detail) == ("fine", f"{tmp_path / 'elsewhere'}, declared to lie in eu-west-1")
    # It looks, and makes nothing.
    assert not (tmp_path / "elsewhere").exists()


def test_a_port_in_use_is_named_with_another_one(free_port: int) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port))
        listener.listen()
        found = finding("UI port")
    assert (found.state, found.advice) == ("missing", "GREENOPS_UI_PORT=3001")
    assert finding("UI port").state == "fine"


def test_what_looks_after_images_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert finding("images").detail == "2 images, 2 of them built here; 1 builders"
    assert finding("SBOMs").detail.startswith("Syft is there; published to ")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (finding("scanners").state, finding("scanners").advice) == (
        "missing",
        "install grype or trivy, or GREENOPS_SCAN_REPORTS=<folder>",
    )
    (tmp_path / "api.json").write_text("{}")
    monkeypatch.setenv("GREENOPS_SCAN_REPORTS", str(tmp_path))
    assert finding("scanners").state == "fine"
    monkeypatch.setenv("GREENOPS_SYFT", "no-such-syft")
    assert finding("SBOMs").state == "missing"
    assert "found no program 'no-such-syft'" in finding("SBOMs").detail
