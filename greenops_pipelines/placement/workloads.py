"""Work that may wait or move, as declared in `ops/workloads.yaml`: the file, its checks, the occurrences it stands for.

Not here: what all work has in common (`requests.py`), work that arrives at run time (`submissions.py`), any decision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

import pyarrow as pa
from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator, model_validator

from greenops_pipelines import ops
from greenops_pipelines.carbon.factors import read_factors
from greenops_pipelines.carbon.regions import read_regions, read_tenants
from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake.tables import WORKLOADS
from greenops_pipelines.ops import OpsModel
from greenops_pipelines.ops.tree import Fault, Location
from greenops_pipelines.placement.requests import (
    Declarations,
    Instant,
    Request,
    Resolved,
    Work,
    minute_text,
    request_of,
)

_FIVE_FIELDS = "five fields (minute hour day month weekday, UTC) such as '30 1 * * 1-5'"
_NotNegative = Annotated[float, Field(ge=0)]
_TICK = timedelta(microseconds=1)
_PROBE = datetime(2026, 1, 1, tzinfo=UTC)


class Placement(OpsModel):
    """How work is placed. Regions without a capacity are unlimited; `rtt_ms` is home -> region -> round trip in ms."""

    policy: Literal["optimal", "greedy", "carbon-first", "cost-first", "run-now-home"] = "optimal"
    cost_weight_g: float = Field(0.0, ge=0)
    horizon_hours: int = Field(48, ge=1, le=168)
    capacity_kw: Mapping[str, _NotNegative] = Field(default_factory=dict)
    rtt_ms: Mapping[str, Mapping[str, _NotNegative]] = Field(default_factory=dict)


class _Workload(Work):
    cron: str | None = Field(None, max_length=100)
    earliest_start: Instant | None = None

    @field_validator("cron", mode="after")
    @classmethod
    def _occurs(cls, value: str | None) -> str | None:
        return value if value is None else _checked_cron(value)

    @field_validator("earliest_start", mode="after")
    @classmethod
    def _on_a_minute(cls, value: datetime | None) -> datetime | None:
        if value is not None and (value.second or value.microsecond):
            # The natural key says the minute.
            raise ValueError("a time on a full minute, such as 2026-11-25T02:00:00Z")
        return value

    @model_validator(mode="after")
    def _one_recurrence(self) -> Self:
        if (self.cron is None) == (self.earliest_start is None):
            found = "neither" if self.cron is None else "both"
            raise ValueError(f"found {found}, allowed: either cron (recurring) or earliest_start (once)")
        return self


class _File(OpsModel):
    placement: Placement = Placement()
    workloads: tuple[_Workload, ...]


@dataclass(frozen=True)
class Workload:
    """A declared workload, with what follows for it from other declarations."""

    work: Work
    cron: str | None
    """Five fields, UTC; None: once, at `earliest_start`."""
    earliest_start: datetime | None
    resolved: Resolved

    @property
    def name(self) -> str:
        return self.work.workload

    @property
    def recurrence(self) -> str:
        if self.earliest_start is not None:
            return f"once {minute_text(self.earliest_start)}"
        return f"cron {self.cron}"


@dataclass(frozen=True)
class Workloads:
    """What `ops/workloads.yaml` declares, and what it was held against."""

    settings: Placement
    workloads: tuple[Workload, ...]
    declarations: Declarations


def read_workloads(ops_dir: Path) -> Workloads:
    """The workloads of `ops_dir`/workloads.yaml, in the order of the file, checked against the folder's regions and tenants.

    Raises `ConfigurationError`, one line per fault: where the file does not fit, a workload stands twice, a tenant or
    region is not declared, a region lies outside the tenant's area, no region is left, or a window is too short.
    """
    regions = read_regions(ops_dir)
    tenants = read_tenants(ops_dir, regions)
    document = ops.load(ops_dir / "workloads.yaml", _File)
    settings, entries = document.value.placement, document.value.workloads
    table = read_factors()
    factors = dict(zip(table["factor"].to_pylist(), table["value"].to_pylist(), strict=True))
    declarations = Declarations(regions, tenants, settings.rtt_ms, factors)
    faults = list(_undeclared(document, declarations))
    seen: Counter[str] = Counter()
    for index, entry in enumerate(entries):
        if seen[entry.workload]:
            faults.append(document.fault(("workloads", index, "workload"), "each workload once"))
        seen[entry.workload] += 1
        faults += [document.fault(("workloads", index, *at), allowed) for at, allowed in declarations.faults(entry)]
    ops.refuse(faults)
    workloads = tuple(
        Workload(entry, entry.cron, entry.earliest_start, declarations.resolve(entry)) for entry in entries
    )
    return Workloads(settings, workloads, declarations)


def occurrences(workloads: Workloads, start: datetime, end: datetime) -> list[Request]:
    """Every occurrence with its earliest start in [start, end), by that time and then by key.

    It counts as submitted when the placement horizon reaches it: declared work is known ahead, and a plan may count
    on it that long before. Raises `BadInput` for a time without a zone.
    """
    for name, time in (("start", start), ("end", end)):
        if time.tzinfo is None:
            raise BadInput(f"occurrences: {name}: found {time} (no zone), allowed: a time with a zone")
    ahead = timedelta(hours=workloads.settings.horizon_hours)
    found = [
        request_of(
            workload.work,
            workload.resolved,
            key=f"{workload.name}:{minute_text(time)}",
            earliest_start=time,
            submitted_at=time - ahead,
            source="declared",
        )
        for workload in workloads.workloads
        for time in _starts(workload, start.astimezone(UTC), end.astimezone(UTC))
    ]
    return sorted(found, key=lambda request: (request.earliest_start, request.key))


def workloads_table(workloads: Workloads) -> pa.Table:
    """Rows of the lake's table WORKLOADS, one per workload."""
    rows = [
        {name: getattr(each.work, name) for name in WORKLOADS.schema.names if name in Work.model_fields}
        | {"recurrence": each.recurrence, "power_kw": each.resolved.power_kw, "runner": each.work.runner_json}
        | {"home_region": each.resolved.home_region, "regions": ",".join(each.resolved.regions)}
        for each in workloads.workloads
    ]
    return pa.Table.from_pylist(rows, schema=WORKLOADS.schema)


def _starts(workload: Workload, start: datetime, end: datetime) -> Iterator[datetime]:
    if workload.earliest_start is not None:
        if start <= workload.earliest_start < end:
            yield workload.earliest_start
    elif workload.cron is not None and start < end:
        # It yields times after the given one, and `start` itself counts.
        for time in CronSim(workload.cron, start - _TICK):
            if time >= end:
                return
            yield time


def _checked_cron(expression: str) -> str:
    """With single blanks. Raises `ValueError` with what is allowed.

    cronsim itself takes a sixth field, for seconds, and most days that never come.
    """
    if len(expression.split()) != 5:
        raise ValueError(_FIVE_FIELDS)
    try:
        next(CronSim(expression, _PROBE))
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        raise ValueError(f"{_FIVE_FIELDS}; the {field} is wrong") from None
    except StopIteration:
        raise ValueError(f"{_FIVE_FIELDS}; such a day does not come within 50 years") from None
    return " ".join(expression.split())


def _undeclared(document: ops.Document[_File], declarations: Declarations) -> Iterator[Fault]:
    settings = document.value.placement
    places: list[tuple[Location, str]] = [(("capacity_kw",), name) for name in settings.capacity_kw]
    for home, reach in settings.rtt_ms.items():
        places += [(("rtt_ms",), home), *((("rtt_ms", home), region) for region in reach)]
    for at, name in places:
        if name not in declarations.area_of:
            # The region is the key here, and what stands beside it may be right.
            allowed = f"a region of regions.yaml: {', '.join(sorted(declarations.area_of))}"
            fault = document.fault(("placement", *at, name), allowed)
            yield replace(
                fault, field=f"placement.{'.'.join(map(str, at))}", text=f"found {name!r}, allowed: {allowed}"
            )
