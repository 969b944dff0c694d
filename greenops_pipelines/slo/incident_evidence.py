"""What somebody needs who decides on a rollback, gathered when a page opens. Not here: rolling back (`rollback.py`)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES, SLO_MINUTES
from greenops_pipelines.lake.storage import url
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.incident import Incident

_LOOK_BACK = timedelta(days=7)
_MINUTES = 720
_VERSIONS = 5


def prepare(lake: Lake, incident: Incident, namespace: str = "") -> dict[str, Any]:
    """Plain values for JSON: the SLO, its burn, the minutes with their counts, recent rollouts, and how to undo one.

    Times are ISO 8601, UTC. A rollout is a version that emitted metrics, from its first to its last sample in the 7 days
    before; `first_seen` is null where it was there before those. The service's Rollout bears its name.
    """
    minutes, left_out = _counts(lake, incident)
    where = f" -n {namespace}" if namespace else ""
    return {
        "incident": incident.incident,
        "slo": incident.slo_id,
        "service": incident.service,
        "team": incident.team,
        "severity": incident.severity,
        "source": incident.source,
        "objective_percent": incident.objective,
        "period_days": incident.period / timedelta(days=1),
        "windows": [
            {"short": durations.text(each.short), "long": durations.text(each.long), "factor": each.factor}
            for each in incident.thresholds
        ],
        "opened_at": incident.opened_at.isoformat(),
        "noticed_at": incident.noticed_at.isoformat(),
        "closed_at": incident.closed_at.isoformat() if incident.closed_at else None,
        "as_of": incident.newest.isoformat(),
        "peak_burn": incident.peak_burn,
        "budget_spent_percent": incident.budget_spent_percent,
        "bad_events": incident.bad,
        "minutes": minutes,
        "minutes_left_out": left_out,
        "recent_rollouts": _versions(lake, incident),
        "runbook": incident.links.get("runbook"),
        "dashboard": incident.links.get("dashboard"),
        # https://argoproj.github.io/argo-rollouts/generated/kubectl-argo-rollouts/kubectl-argo-rollouts_undo/
        "undo": f"kubectl argo rollouts undo {incident.service}{where}",
    }


def _counts(lake: Lake, incident: Incident) -> tuple[list[dict[str, Any]], int]:
    """The minutes from one shorter window before it began, the first 720, and how many more there are. Gaps are null."""
    begin = incident.opened_at - min((each.short for each in incident.thresholds), default=timedelta())
    end = incident.closed_at or incident.newest + timedelta(minutes=1)
    days = (begin.date(), end.date())
    rows = lake.read(SLO_MINUTES, {"source": incident.source, "day": days}, ["slo_id", "minute", "total", "bad"])
    with lake.bare() as connection:
        connection.register("minutes", rows)
        found: pa.Table = connection.sql(
            "select minute, total, bad from minutes where slo_id = ? and minute >= ? and minute < ? order by minute",
            params=[incident.slo_id, begin, end],
        ).to_arrow_table()
    shown = [row | {"minute": _text(row["minute"])} for row in found.slice(0, _MINUTES).to_pylist()]
    return shown, max(0, found.num_rows - _MINUTES)


def _versions(lake: Lake, incident: Incident) -> list[dict[str, Any]]:
    """The newest versions that the service's series name, newest first."""
    first, last = (incident.opened_at - _LOOK_BACK).date(), incident.newest.date()
    series = lake.read(METRIC_SERIES, {"source": incident.source, "day": (first, last)}, ["day", "series_id", "labels"])
    with lake.bare() as connection:
        connection.register("series", series)
        connection.execute(
            "create temp table versions as select json_extract_string(labels, '$.version') as version, series_id, day "
            "from series where json_extract_string(labels, '$.service') = ? and version <> ''",
            [incident.service],
        )
        spans = connection.execute(
            "select version, min(day) as first_day, max(day) as last_day from versions group by version"
        ).fetchall()
        if not spans:
            return []
        days = {day for _, first_day, last_day in spans for day in (first_day, last_day)}
        files = [
            url(lake.storage, path)
            for day in sorted(days)
            for path in lake.files(METRIC_SAMPLES, {"source": incident.source, "day": day})
        ]
        if not files:
            return []
        seen = connection.execute(
            "select version, min(time), max(time) from read_parquet(?, hive_partitioning = false) "
            "join (select distinct version, series_id from versions) using (series_id) "
            "where not is_stale group by version order by min(time) desc, version limit ?",
            [files, _VERSIONS],
        ).fetchall()
        oldest = min(series["day"].to_pylist())
    return [
        {
            "version": version,
            # On the first day that was read it may have been there for long.
            "first_seen": None if begun.date() == oldest else _text(begun),
            "last_seen": _text(ended),
        }
        for version, begun, ended in seen
    ]


def _text(moment: datetime) -> str:
    return moment.isoformat()
