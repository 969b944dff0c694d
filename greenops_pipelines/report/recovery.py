"""The recovery report: every drill with what it measured, loss against throughput, months held and missed. One HTML file.

Failed and aborted drills are in it as well as good ones; negative controls stand apart. Not here: drilling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.recovery import calendar, checks
from greenops_pipelines.recovery.declared import GameDays
from greenops_pipelines.report import pages
from greenops_pipelines.report.charts import COLOURS, chart_of, svg

FILE_NAME = "recovery.html"
_SHOWN = 200
"""Drills that the page lists one by one."""
_DRILL = re.compile(r'<tr data-drill="([^"]+)" data-rto="([^"]*)" data-rpo="([^"]*)"')

_DRILLS = """
select drill, gameday, database, primary_region, standby_region, scenario, is_sync, is_negative_control, is_embedded, verdict,
    deficiencies, rto_s, rpo_s, client_outage_s, detection_s, failback_s, lost_writes, in_doubt_writes, acked_writes,
    throughput_per_s, rate_per_s, wan_ms, rto_objective_s, rpo_objective_s, bundle, began_at
from recovery_drills order by began_at desc
"""
_SPREAD = """
select scenario, is_sync, count(*)::bigint as drills, count(rto_s)::bigint as failovers,
    quantile_cont(rto_s, 0.5) as rto_p50, max(rto_s) as rto_max, quantile_cont(rpo_s, 0.5) as rpo_p50, max(rpo_s) as rpo_max,
    sum(lost_writes)::bigint as lost, sum(acked_writes)::bigint as acked, quantile_cont(client_outage_s, 0.5) as outage_p50,
    quantile_cont(failback_s, 0.5) as failback_p50, count(*) filter (where verdict not in ('passed', 'refused as intended'))::bigint as bad
from recovery_drills where not is_negative_control group by all order by scenario, is_sync
"""
_CURVE = """
select is_sync, wan_ms, is_embedded, rate_per_s, count(*)::bigint as drills, avg(throughput_per_s) as throughput, max(rpo_s) as rpo_max,
    quantile_cont(rpo_s, 0.5) as rpo_p50, max(lost_writes)::bigint as lost_max
from recovery_drills where not is_negative_control and scenario = 'kill' and rpo_s is not null and throughput_per_s is not null
group by all order by is_sync, wan_ms, is_embedded, rate_per_s
"""
_COPIES = """
select snapshot, region, max(taken_at) as taken_at, sum(files)::bigint as files, sum(bytes)::bigint as bytes, max(bytes_new)::bigint as bytes_new,
    max(seconds) as seconds
from recovery_copies group by all order by taken_at desc limit 5
"""


@dataclass(frozen=True)
class Report:
    """Where the report is, and its figures."""

    path: Path
    figures: Mapping[str, float | int | str]


def write_report(lake: Lake, folder: Path, declared: GameDays, now: datetime) -> Report:
    """Render it, and put the file into `folder` whole."""
    drills = lake.query(_DRILLS).to_pylist()
    curve = lake.query(_CURVE).to_pylist()
    held = checks.held_months(lake, declared)
    since = min((row["began_at"] for row in drills if row["verdict"] != "aborted"), default=None)
    missed = calendar.missed(declared, held, since, now) if since else []
    measured = {
        "rto": checks.rto(lake, declared, now),
        "rpo": checks.rpo(lake, declared, now),
        "can_fail": checks.can_fail(lake, now),
        "restored": checks.restored(lake, now),
    }
    html = pages.render(
        "recovery.html.j2",
        made_at=now.strftime("%Y-%m-%d %H:%M UTC"),
        drills=[row for row in drills if not row["is_negative_control"]][:_SHOWN],
        left_out=max(0, sum(not row["is_negative_control"] for row in drills) - _SHOWN),
        controls=[row for row in drills if row["is_negative_control"]][:10],
        spread=lake.query(_SPREAD).to_pylist(),
        curve=curve,
        chart=_loss(curve) if curve else "",
        months=_months(declared, held, missed, now),
        coming=[(f"{day:%Y-%m-%d}", ", ".join(what)) for day, what in calendar.coming(declared, now, 3)],
        copies=lake.query(_COPIES).to_pylist(),
        is_stand_in=any(row["is_embedded"] for row in drills),
        measured=measured,
        objectives=declared.objectives,
    )
    path = pages.put_text(folder / FILE_NAME, html)
    figures: dict[str, float | int | str] = {
        "drills": sum(not row["is_negative_control"] for row in drills),
        "negative controls": sum(row["is_negative_control"] for row in drills),
        "months missed": len(missed),
        "next GameDay": f"{calendar.coming(declared, now, 1)[0][0]:%Y-%m-%d}",
    }
    return Report(path, figures)


def completeness(lake: Lake, folder: Path) -> Measurement:
    """Drills of the lake that the page lacks, or shows with other figures."""
    path = folder / FILE_NAME
    shown = (
        {drill: (rto, rpo) for drill, rto, rpo in _DRILL.findall(path.read_text(encoding="utf-8"))}
        if path.exists()
        else {}
    )
    rows = [row for row in lake.query(_DRILLS).to_pylist() if not row["is_negative_control"]][:_SHOWN]
    wrong = [row["drill"] for row in rows if shown.get(row["drill"]) != (_exact(row["rto_s"]), _exact(row["rpo_s"]))]
    return Measurement(
        check="report/recovery:complete",
        measured=float(len(wrong)) if path.exists() else None,
        target=0,
        comparison="==",
        unit="drills",
        detail=f"such as {wrong[0]}" if wrong else f"the page lists {len(shown)} drills, each with its figures",
        missing=None if path.exists() else FILE_NAME,
    )


def _months(declared: GameDays, held: set[str], missed: list[str], now: datetime) -> list[dict[str, Any]]:
    """The last twelve months, oldest first: held, missed, or before the first drill."""
    month, found = now.date().replace(day=1), []
    for _ in range(12):
        name = f"{month:%Y-%m}"
        state = "held" if name in held else "missed" if name in missed else ""
        if not state and calendar.begins(declared, month) > now:
            state = "to come"
        found.append({"name": name, "state": state})
        month = calendar.before(month)
    return found[::-1]


def _loss(rows: list[dict[str, Any]]) -> str:
    """How much a killed primary takes along, by the writes a second that it took: one line per mode and distance."""
    import altair as alt

    shown = [
        {
            "throughput": row["throughput"],
            "rpo": row["rpo_max"],
            "mode": _mode(row),
        }
        for row in rows
    ]
    marks = sorted({0.0, *(row["rate_per_s"] for row in rows)})
    base = chart_of(shown, "RPO by throughput, when the primary is killed")
    chart: Any = base.mark_line(point=alt.OverlayMarkDef(size=60)).encode(
        x=alt.X(
            "throughput:Q",
            title="writes a second, before the fault",
            scale=alt.Scale(type="sqrt"),
            axis=alt.Axis(grid=False, values=marks, labelOverlap=True),
        ),
        y=alt.Y("rpo:Q", title="RPO, seconds", axis=alt.Axis(tickCount=5)),
        color=alt.Color("mode:N", title=None, scale=alt.Scale(range=COLOURS)),
    )
    return svg(chart)


def _mode(row: dict[str, Any]) -> str:
    mode = "synchronous" if row["is_sync"] else "asynchronous"
    return f"{mode}, {row['wan_ms']:g} ms{'' if row['is_embedded'] else ', your clusters'}"


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)
