"""The scorecard: every acceptance criterion with target, measured figure, verdict and when.

Criteria are declared in `criteria.yaml`; figures come from `check_results` in the lake. The verdict is found by
SQL (`scorecard.sql`) at the moment of asking, so that a figure grows stale without anything running.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from greenops_pipelines import ops
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.tables import SCORECARD
from greenops_pipelines.measurement import Comparison, Measurement
from greenops_pipelines.ops import OpsModel

VERDICTS = ("met", "missed", "stale", "cannot be measured here", "not yet measured")


class Criterion(OpsModel):
    """One promise: the check that measures it, and what it is held against."""

    id: str = Field(pattern=r"^J[1-6]\.[1-9](-[a-z]+)?$")
    domain: str
    criterion: str
    check: str = Field(pattern=r"^[a-z0-9_]+/[a-z0-9_]+:[a-z0-9_]+$")
    comparison: Comparison
    target: float
    unit: str
    valid_hours: int = Field(ge=1)


class _Criteria(OpsModel):
    criteria: tuple[Criterion, ...]


def criteria() -> tuple[Criterion, ...]:
    """The declared criteria, in order."""
    with resources.as_file(resources.files("greenops_pipelines.report") / "criteria.yaml") as path:
        return ops.read(Path(path), _Criteria).criteria


def scorecard(lake: Lake, now: datetime) -> pa.Table:
    """Rows of the table SCORECARD as of `now` (UTC)."""
    declared = pa.Table.from_pylist([{**c.model_dump(), "position": n} for n, c in enumerate(criteria())])
    sql = (resources.files("greenops_pipelines.report") / "scorecard.sql").read_text(encoding="utf-8")
    with lake.connect(["check_results"]) as connection:
        connection.register("criteria", declared)
        return connection.sql(sql, params={"now": now}).to_arrow_table().cast(SCORECARD.schema)


def as_document(rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """The scorecard for scripts: times as ISO 8601 UTC, unknown figures as null."""
    listed = rows.to_pylist()
    for row in listed:
        row["checked_at"] = row["checked_at"].isoformat() if row["checked_at"] else None
    return {"criteria": listed}


def counts(rows: pa.Table) -> dict[str, int]:
    """Criteria per verdict, in the order of `VERDICTS`."""
    found = Counter(rows["verdict"].to_pylist())
    return {verdict: found.get(verdict, 0) for verdict in VERDICTS}


def missed_measurement(rows: pa.Table) -> Measurement:
    """The scorecard's own check: no measured criterion is missed or stale."""
    found = counts(rows)
    bad = [r["id"] for r in rows.to_pylist() if r["verdict"] in {"missed", "stale"}]
    return Measurement(
        check="report/scorecard:kept",
        measured=float(len(bad)),
        target=0,
        comparison="==",
        unit="criteria",
        detail=f"missed or stale: {', '.join(bad)}" if bad else f"{found['met']} met, none missed or stale",
        figures=dict(found),
    )
