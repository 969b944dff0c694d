"""The ConfigMap for KEDA, field by field."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
import yaml

from greenops_pipelines.carbon.keda import config_map
from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake.tables import CARBON_OUTLOOK

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
            "message": "DE, file, by provider",
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
    assert found["data"]["message"] == "DE, sample, by provider (sample data)"
