"""The gate before work is launched: what a plan says is held against what was accepted and what is declared now.

A plan is a table that anyone with the lake's rights can write, and may be older than the declarations. So the request is
read at its source, the region is held against the request's own list and its tenant's area, and a row that does not fit
is refused, recorded as an attempt, and not launched. Not here: launching, and the ledger's storage (`ledger.py`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from greenops_pipelines.errors import PermanentError, ResidencyViolation
from greenops_pipelines.placement.ledger import Ledger
from greenops_pipelines.placement.requests import Request
from greenops_pipelines.placement.residency import refuse

if TYPE_CHECKING:
    from greenops_pipelines.carbon.regions import Region, Tenant


def decision(
    request: Request,
    planned: Mapping[str, Any],
    regions: Sequence[Region],
    tenants: Sequence[Tenant],
    forecast: Mapping[str, Any] | None,
    now: datetime,
) -> dict[str, Any]:
    """A row of PLACEMENT_DISPATCHES from a request and its row of PLACEMENT_PLAN; `forecast` is what the outlook has for
    the region's zone at the start (method, issued_at).

    Raises `ResidencyViolation` where a run lies in a region that the tenant may not be in as declared now, and
    `PermanentError` where the row contradicts the request: another region, an earlier start, no run.
    """
    runs = planned_runs(planned)
    zone_of = {region.region: region.zone for region in regions}
    work = Work(request.key, request.tenant, request.regions)
    for region, start, _ in runs:
        allow(work, region, regions, tenants)
        if start < request.earliest_start:
            raise PermanentError(
                f"{request.key}: found a start at {start:%Y-%m-%d %H:%M} UTC, before its earliest start"
            )
    region, start, _ = runs[0]
    return {
        "key": request.key,
        "workload": request.workload,
        "kind": request.kind,
        "tenant": request.tenant,
        "service": request.service,
        "source": request.source,
        "region": region,
        "zone": zone_of[region],
        "home_region": request.home_region,
        "home_zone": zone_of.get(request.home_region, ""),
        "regions": ",".join(request.regions),
        "runs": planned["runs"],
        "earliest_start": request.earliest_start,
        "deadline": request.deadline,
        "duration_minutes": request.duration_minutes,
        "power_kw": request.power_kw * request.width,
        "data_gb": request.data_gb,
        "interruptible": request.interruptible,
        "forecast_method": None if forecast is None else forecast["method"],
        "forecast_issued_at": None if forecast is None else forecast["issued_at"],
        "runner": request.runner,
        "dispatched_at": now,
    } | {name: planned[name] for name in _AS_PLANNED}


_AS_PLANNED = ("state", "policy", "method", "signal", "expected_g", "baseline_g", "avoided_g", "reason", "planned_at")


@dataclass(frozen=True)
class Work:
    """Whose work it is, and the regions it was accepted for: what stands between a region and a launch."""

    key: str
    tenant: str
    regions: Collection[str]


def allow(work: Work, region: str, regions: Sequence[Region], tenants: Sequence[Tenant]) -> None:
    """Raises `ResidencyViolation` unless the work may run in the region: its tenant's area as declared now, and its own
    list of regions."""
    refuse(work, region, regions, tenants)
    if region not in work.regions:
        allowed = ", ".join(work.regions)
        raise ResidencyViolation(f"{work.key}: found the region {region}, allowed for this work: {allowed}")


def planned_runs(row: Mapping[str, Any]) -> list[tuple[str, datetime, datetime]]:
    """Region, start and end of each run of a row with the column `runs`, by start; never empty.

    Raises `PermanentError` where the column says something else.
    """
    try:
        found = [
            (str(run["region"]), datetime.fromisoformat(run["start"]), datetime.fromisoformat(run["end"]))
            for run in json.loads(row["runs"])
        ]
        found = [(region, start.astimezone(UTC), end.astimezone(UTC)) for region, start, end in found]
    except (ValueError, TypeError, KeyError) as error:
        raise PermanentError(
            f"{row['key']}: runs: found {type(error).__name__}, allowed: what a plan writes"
        ) from error
    if not found:
        raise PermanentError(f"{row['key']}: runs: found none, allowed: one or more")
    return sorted(found, key=lambda run: run[1])


def run_at(runs: Sequence[tuple[str, datetime, datetime]], now: datetime) -> tuple[str, datetime, datetime | None]:
    """The run that is due, or comes next: its region, its start, and when it is to pause (None: it is the last).

    Runs whose time is over were missed or done; the last one makes up for them, and is never cut.
    """
    for region, start, end in runs[:-1]:
        if now < end - timedelta(minutes=1):
            return region, start, end
    region, start, _ = runs[-1]
    return region, start, None


def recorded(root: Path) -> pa.Table:
    """Rows of PLACEMENT_DISPATCHES: every decision that was acted on."""
    return Ledger(root).dispatches()


def recorded_attempts(root: Path) -> pa.Table:
    """Rows of PLACEMENT_ATTEMPTS: every attempt, every refusal, and what was never tried."""
    return Ledger(root).attempts()
