"""The carbon forecast as the ConfigMap that the Carbon Aware KEDA Operator reads, so that clusters scale by it.

The form is that of Azure/kubernetes-carbon-intensity-exporter (pkg/exporter/configmap.go), which the operator expects
(Azure/carbon-aware-keda-operator, controllers/carbon_forecast_fetcher.go): in `binaryData.data` a JSON list of location,
timestamp (RFC 3339), duration (minutes) and value (gCO2e per kWh); beside it the same figures in words. Not immutable, unlike
the exporter's, which deletes it first: this one is applied over the last. Not here: applying it.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import yaml

from greenops_pipelines.errors import BadInput

NAME, NAMESPACE, KEY = "carbon-intensity", "kube-system", "data"
"""What the operator's own samples name. A ConfigMap holds at most 1 MiB: 3 days of 5 minutes are 116 kB."""
_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME, _NAMESPACE = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*"), re.compile(_LABEL)


def config_map(
    outlook: pa.Table,
    zone: str,
    provider: str,
    now: datetime,
    *,
    signal: str = "average",
    name: str = NAME,
    namespace: str = NAMESPACE,
) -> str:
    """YAML of the ConfigMap for a zone, from rows of CARBON_OUTLOOK: the interval of `now` and all after it, by time.

    `signal` is what the outlook's grams are, average or marginal. Raises `BadInput` for a name that Kubernetes refuses,
    and where nothing is known of the zone from now on; an empty forecast would scale to nothing in silence.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(f"--name: found {name!r}, allowed: a DNS-1123 name: a-z, 0-9, - and ., at most 253 characters")
    if not _NAMESPACE.fullmatch(namespace):
        raise BadInput(
            f"--namespace: found {namespace!r}, allowed: a DNS-1123 label: a-z, 0-9 and -, at most 63 characters"
        )
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
            "message": f"{zone}, {signal} intensity, {provider}, by {', '.join(methods)}"
            + (" (sample data)" if provider == "sample" else ""),
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
