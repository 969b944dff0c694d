"""Measurements -> the lake's `check_results`: one row per check and time, appended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa

from greenops_pipelines.lake.lake import Lake, Written
from greenops_pipelines.lake.tables import CHECK_RESULTS
from greenops_pipelines.measurement import Measurement


def record(
    lake: Lake, measurements: Sequence[Measurement], run_id: str, now: datetime, evidence: str | None = None
) -> Written:
    """Append results made at one time; `evidence` is the identifier of the bundle that proves them, if one was filed."""
    rows = [
        {
            "check": m.check,
            "outcome": m.outcome,
            "measured": m.measured,
            "target": m.target,
            "comparison": m.comparison,
            "unit": m.unit,
            "detail": m.detail,
            "missing": m.missing,
            "figures": json.dumps(dict(m.figures), sort_keys=True),
            "evidence": evidence,
            "run_id": run_id,
            "checked_at": now,
            "day": now.astimezone(UTC).date(),
        }
        for m in measurements
    ]
    return lake.append(CHECK_RESULTS, pa.Table.from_pylist(rows, schema=CHECK_RESULTS.schema), now, run_id)
