"""The ConfigMap for KEDA, field by field."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

from greenops_pipelines import wiring
from greenops_pipelines.carbon.keda import config_map
from greenops_pipelines.cli import app
from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake.tables import CARBON_OUTLOOK
from greenops_pipelines.settings import load_settings
from tests.placement.small_ops import small_ops

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def outlook(*values: float, zone: str = "DE") -> pa.Table:
    rows = [
        {
            "zone": zone,
            "datetime": NOON + n * HOUR,
            "resolution_minutes": 60,
            "carbon_intensity_g_per_kwh": value,
            "method": "provider",
            "issued_at": NOON,
            "planned_at": NOON,
        }
        for n, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows[::-1], schema=CARBON_OUTLOOK.schema)


def test_every_field_is_what_the_operator_reads() -> None:
    text = config_map(outlook(500.5, 321.25, 400.0), "DE", "file", NOON + timedelta(minutes=90))
    found = yaml.safe_load(text)
    points = json.loads(base64.b64decode(found.pop("binaryData")["data"]))
    assert points == [
        {"location": "DE", "timestamp": "2026-11-25T13:00:00Z", "duration": 60, "value": 321.25},
        {"location": "DE", "timestamp": "2026-11-25T14:00:00Z", "duration": 60, "value": 400.0},
    ]
    assert found == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "carbon-intensity",
            "namespace": "kube-system",
            "labels": {"app.kubernetes.io/managed-by": "greenops"},
        },
        "data": {
            "lastHeartbeatTime": "2026-11-25T13:30:00Z",
            "message": "DE, average intensity, file, by provider",
            "numOfRecords": "2",
            "forecastDateTime": "2026-11-25T13:00:00Z",
            "minForecast": "321.250000",
            "maxForecast": "400.000000",
        },
    }
    assert config_map(outlook(500.5, 321.25, 400.0), "DE", "file", NOON + timedelta(minutes=90)) == text


@pytest.mark.parametrize(("zone", "hours"), [("FR", 0), ("DE", 2)])
def test_no_forecast_is_no_config_map(zone: str, hours: int) -> None:
    with pytest.raises(BadInput, match=f"--zone: found {zone}, of which no forecast is known, allowed: DE"):
        config_map(outlook(1, 2), zone, "file", NOON + hours * HOUR)


def test_sample_data_says_so() -> None:
    found = yaml.safe_load(config_map(outlook(1, 2), "DE", "sample", NOON))
    assert found["data"]["message"] == "DE, average intensity, sample, by provider (sample data)"


def test_marginal_grams_say_so() -> None:
    found = yaml.safe_load(config_map(outlook(1, 2), "DE", "watttime", NOON, signal="marginal"))
    assert found["data"]["message"] == "DE, marginal intensity, watttime, by provider"


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ({"name": "Carbon"}, "--name: found 'Carbon', allowed: a DNS-1123 name"),
        ({"name": "../carbon"}, "--name: found '../carbon', allowed: a DNS-1123 name"),
        ({"name": "a" * 64}, f"--name: found '{'a' * 64}', allowed: a DNS-1123 name"),
        ({"namespace": "kube.system"}, "--namespace: found 'kube.system', allowed: a DNS-1123 label"),
        ({"namespace": ""}, "--namespace: found '', allowed: a DNS-1123 label"),
    ],
)
def test_names_that_kubernetes_refuses_are_refused_here(names: dict[str, str], line: str) -> None:
    with pytest.raises(BadInput) as error:
        config_map(outlook(1, 2), "DE", "file", NOON, **names)
    assert str(error.value).startswith(line)


def test_the_command_prints_it_or_puts_it_into_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(small_ops(tmp_path / "ops")))
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + HOUR
    rows = [row | {"datetime": now + (row["datetime"] - NOON)} for row in outlook(1, 2).to_pylist()]
    wiring.lake(load_settings()).write(CARBON_OUTLOOK, pa.Table.from_pylist(rows, schema=CARBON_OUTLOOK.schema))
    printed = CliRunner().invoke(app, ["carbon", "keda", "--region", "eu-central-1"])
    assert printed.exit_code == 0
    assert yaml.safe_load(printed.stdout)["data"]["numOfRecords"] == "2"
    kept = CliRunner().invoke(app, ["carbon", "keda", "--zone", "DE", "--name", "de", "--out", str(tmp_path / "out")])
    assert kept.stdout == f"{tmp_path}/out/de.yaml\n"
    assert yaml.safe_load((tmp_path / "out" / "de.yaml").read_text())["metadata"]["name"] == "de"
    neither = CliRunner().invoke(app, ["carbon", "keda"])
    assert str(neither.exception) == "--zone, --region: found neither, allowed: one of them"
