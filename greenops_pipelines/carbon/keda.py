"""The carbon forecast as the ConfigMap that the Carbon Aware KEDA Operator reads, so that clusters scale by it.

The form is that of Azure/kubernetes-carbon-intensity-exporter (pkg/exporter/configmap.go), which the operator expects
(Azure/carbon-aware-keda-operator, controllers/carbon_forecast_fetcher.go): in `binaryData.data` a JSON list of location,
timestamp (RFC 3339), duration (minutes) and value (gCO2e per kWh); beside it the same figures in words. Not immutable, unlike
the exporter's, which deletes it first: this one is applied over the last. Not here: applying it.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import yaml

from greenops_pipelines.errors import BadInput

NAME, NAMESPACE, KEY = "carbon-intensity", "kube-system", "data"
"""What the operator's own samples name. A ConfigMap holds at most 1 MiB: 3 days of 5 minutes are 75 kB."""


def config_map(
    outlook: pa.Table, zone: str, provider: str, now: datetime, name: str = NAME, namespace: str = NAMESPACE
) -> str:
    """YAML of the ConfigMap for a zone, from rows of CARBON_OUTLOOK: the interval of `now` and all after it, by time.

    Raises `BadInput` where nothing is known of the zone from now on; an empty forecast would scale to nothing in silence.
    """
    rows = sorted(
        (row for row in outlook.to_pylist() if row["zone"] == zone and _end(row) > now.timestamp()),
        key=lambda row: row["datetime"],
    )
    if not rows:
        known = ", ".join(sorted(set(outlook["zone"].to_pylist()))) or "none"
        raise BadInput(f"--zone: found {zone}, of which no forecast is known, allowed: {known}")
    points = [
        {
            "location": zone,
            "timestamp": _time(row["datetime"]),
            "duration": row["resolution_minutes"],
            "value": row["carbon_intensity_g_per_kwh"],
        }
        for row in rows
    ]
    values = [row["carbon_intensity_g_per_kwh"] for row in rows]
    methods = sorted({row["method"] for row in rows})
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "greenops"},
        },
        "data": {
            "lastHeartbeatTime": _time(now),
            "message": f"{zone}, {provider}, by {', '.join(methods)}" + (" (sample data)" * (provider == "sample")),
            "numOfRecords": str(len(rows)),
            "forecastDateTime": _time(rows[0]["datetime"]),
            "minForecast": f"{min(values):f}",
            "maxForecast": f"{max(values):f}",
        },
        "binaryData": {KEY: base64.b64encode(json.dumps(points, separators=(",", ":")).encode()).decode()},
    }
    return yaml.safe_dump(document, sort_keys=False, width=1_000_000)


def _end(row: dict[str, Any]) -> float:
    return float(row["datetime"].timestamp() + 60 * row["resolution_minutes"])


def _time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
