"""Work to be placed: one concrete piece of it (`Request`), and the fields that declared and submitted work share.

Here: those fields, what they are held against, the power they stand for, rows for the lake. Not here: recurrence and
`ops/workloads.yaml` (`workloads.py`), what arrives at run time (`submissions.py`), where anything runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
import rfc8785
from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from greenops_pipelines.carbon.regions import Region, RegionName, Tenant, TenantName
from greenops_pipelines.lake.tables import PLACEMENT_REQUESTS
from greenops_pipelines.ops import OpsModel
from greenops_pipelines.ops.tree import Location
from greenops_pipelines.placement.residency import allowed_regions, within

MAX_DURATION_MINUTES = 7 * 24 * 60
MAX_WINDOW_MINUTES = 31 * 24 * 60

KebabName = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=63, examples=["nightly-embeddings"])
]
_EXAMPLE = "2026-11-25T02:00:00Z"
_Argument = Annotated[str, Field(pattern=r"^[^\x00]*$")]
_SOURCES = ("vcpus", "memory_gb", "gpus")
_POWER = f"either power_kw, or any of {', '.join(_SOURCES)}"


@dataclass(frozen=True)
class Request:
    """One concrete piece of work. Times are UTC; nothing of it may run before `earliest_start` or after `deadline`."""

    key: str
    """Natural key: `<workload>:<earliest start>` of declared work, the submitter's own of submitted work."""
    workload: str
    kind: str
    tenant: str
    service: str | None
    submitted_at: datetime
    earliest_start: datetime
    deadline: datetime
    duration_minutes: int
    power_kw: float
    """IT power of each of `width` instances."""
    width: int
    data_gb: float
    interruptible: bool
    home_region: str
    regions: tuple[str, ...]
    """Where it may run: what is left after residency, the workload's own choice and latency; never empty."""
    cost_weight_g: float | None
    """Grams CO2e that one currency unit is worth; None: as `placement.cost_weight_g` of ops/workloads.yaml says."""
    runner: str
    """The runner as canonical JSON."""
    source: Literal["declared", "submitted"]


def _zoned(value: Any) -> datetime:
    """Read here: pydantic takes digits for seconds since 1970, and has one word for every text that is no time."""
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError(f"a time with a zone, such as {_EXAMPLE}")
    if not 2000 <= time.year < 2100:
        raise ValueError(f"a time from 2000 to 2099, such as {_EXAMPLE}")
    return time.astimezone(UTC)


Instant = Annotated[datetime, BeforeValidator(_zoned)]
"""A time that says its zone, in UTC."""


class LocalRunner(OpsModel):
    """A program started beside the scheduler."""

    kind: Literal["local"]
    command: tuple[_Argument, ...] = Field(min_length=1)
    timeout_minutes: int = Field(gt=0, le=MAX_DURATION_MINUTES)


class KubernetesRunner(OpsModel):
    """A Job in the region's cluster. Without a command the image's own runs."""

    kind: Literal["kubernetes"]
    image: str = Field(pattern=r"^\S+$", max_length=500, examples=["ghcr.io/acme/etl:1.4"])
    command: tuple[_Argument, ...] | None = Field(None, min_length=1)
    namespace: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63, examples=["batch"])


def _kind(runner: Any) -> Any:
    # What is no mapping at all goes to a member, which says so.
    return runner.get("kind") if isinstance(runner, Mapping) else getattr(runner, "kind", "local")


# With a validator's words, because a union by field can only say that none of its members fits.
_UNKNOWN: dict[str, int | str | float] = {"error": "found no kind or an unknown one, allowed: local, kubernetes"}
_BY_KIND = Discriminator(_kind, custom_error_type="value_error", custom_error_context=_UNKNOWN)
Runner = Annotated[Annotated[LocalRunner, Tag("local")] | Annotated[KubernetesRunner, Tag("kubernetes")], _BY_KIND]


class Work(OpsModel):
    """What declared and submitted work have in common.

    The deadline is the earliest start plus `window_minutes`. `width` instances run at once, each drawing the power.
    `data_gb` moves where the work runs away from home. `max_rtt_ms` is kept by its home, and by regions whose round
    trip from there is declared and not longer.
    """

    workload: KebabName
    kind: Literal["batch", "embeddings", "etl"]
    tenant: TenantName
    service: KebabName | None = None
    duration_minutes: int = Field(gt=0, le=MAX_DURATION_MINUTES)
    window_minutes: int = Field(gt=0, le=MAX_WINDOW_MINUTES)
    power_kw: float | None = Field(None, gt=0)
    vcpus: float | None = Field(None, ge=0)
    memory_gb: float | None = Field(None, ge=0)
    gpus: float | None = Field(None, ge=0)
    width: int = Field(1, ge=1, le=100_000)
    data_gb: float = Field(0.0, ge=0)
    interruptible: bool = False
    regions: tuple[RegionName, ...] | None = Field(None, min_length=1)
    home_region: RegionName | None = None
    max_rtt_ms: float | None = Field(None, gt=0)
    cost_weight_g: float | None = Field(None, ge=0)
    runner: Runner

    @model_validator(mode="after")
    def _one_form_of_power(self) -> Self:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if self.power_kw is not None and given:
            raise ValueError(f"found power_kw beside {', '.join(given)}, allowed: {_POWER}")
        if self.power_kw is None and not any(getattr(self, name) for name in given):
            found = f"only 0 for {', '.join(given)}" if given else "neither"
            raise ValueError(f"found {found}, allowed: {_POWER}")
        return self

    @property
    def runner_json(self) -> str:
        return rfc8785.dumps(self.runner.model_dump(mode="json", exclude_none=True)).decode()


@dataclass(frozen=True)
class Resolved:
    """What follows for work from declarations."""

    power_kw: float
    """IT power of each instance: as given, or from vCPUs, memory and GPUs."""
    home_region: str
    regions: tuple[str, ...]
    """Where it may run, in the order of ops/regions.yaml."""


@dataclass(frozen=True)
class Declarations:
    """What work is held against: regions, tenants, round trips (home -> region -> ms), emission factors by name."""

    regions: Sequence[Region]
    tenants: Sequence[Tenant]
    rtt_ms: Mapping[str, Mapping[str, float]]
    factors: Mapping[str, float]

    @cached_property
    def area_of(self) -> Mapping[str, str]:
        return {region.region: region.residency for region in self.regions}

    @cached_property
    def tenant_of(self) -> Mapping[str, Tenant]:
        return {tenant.tenant: tenant for tenant in self.tenants}

    def faults(self, work: Work) -> Iterator[tuple[Location, str]]:
        """Where well-formed work is wrong all the same, and what is allowed there."""
        if work.window_minutes < work.duration_minutes:
            yield ("window_minutes",), f"at least duration_minutes, {work.duration_minutes}"
        tenant = self.tenant_of.get(work.tenant)
        if tenant is None:
            yield ("tenant",), f"a tenant of tenants.yaml: {_listed(self.tenant_of)}"
            return
        named: list[tuple[Location, str]] = [(("regions", i), region) for i, region in enumerate(work.regions or ())]
        named += [(("home_region",), work.home_region)] if work.home_region else []
        wrong = [(at, allowed) for at, region in named if (allowed := self._allowed(tenant, region))]
        listed = work.regions or ()
        wrong += [(("regions", i), "each region once") for i, region in enumerate(listed) if region in listed[:i]]
        yield from wrong
        if not wrong and not self.resolve(work).regions:
            home = work.home_region or tenant.home_region
            known = ", ".join(f"{to} {ms:g}" for to, ms in sorted(self.rtt_ms.get(home, {}).items()))
            yield (
                ("max_rtt_ms",),
                f"a limit that one of the regions keeps; rtt_ms from {home}: {known or 'none is declared'}",
            )

    def resolve(self, work: Work) -> Resolved:
        """Needs a declared tenant; the regions are empty where `faults` says so."""
        tenant = self.tenant_of[work.tenant]
        home = work.home_region or tenant.home_region
        regions = allowed_regions(tenant, self.regions, work.regions, home, work.max_rtt_ms, self.rtt_ms)
        return Resolved(self._power_kw(work), home, regions)

    def _allowed(self, tenant: Tenant, region: str) -> str:
        """What may stand in the region's place; empty where it may stand there itself."""
        area = self.area_of.get(region)
        if area is None:
            return f"a region of regions.yaml: {_listed(self.area_of)}"
        if within(tenant, area):
            return ""
        inside = _listed(name for name, its in self.area_of.items() if within(tenant, its))
        return f"a region with residency {tenant.residency}, as the tenant's: {inside}"

    def _power_kw(self, work: Work) -> float:
        """IT power of one instance, kW, at the default utilisation where it is not given.

        vCPUs and GPUs draw min + (max - min) x utilisation, memory a constant per GB: the formulas and factors of the
        emission models (`carbon/emission_factors.csv`, Cloud Carbon Footprint), so that a plan and the bill agree.
        """
        if work.power_kw is not None:
            return work.power_kw
        f = self.factors
        per_vcpu_w = _at(f["cpu_default_utilization"], f["cpu_min_w_per_vcpu"], f["cpu_max_w_per_vcpu"])
        per_gpu_w = _at(f["gpu_default_utilization"], f["gpu_min_w"], f["gpu_max_w"])
        watts = (work.vcpus or 0.0) * per_vcpu_w + (work.gpus or 0.0) * per_gpu_w
        return watts / 1000 + (work.memory_gb or 0.0) * f["memory_kwh_per_gb_hour"]


def request_of(
    work: Work,
    resolved: Resolved,
    *,
    key: str,
    earliest_start: datetime,
    submitted_at: datetime,
    source: Literal["declared", "submitted"],
) -> Request:
    """The work, started at `earliest_start` at the earliest."""
    return Request(
        key=key,
        workload=work.workload,
        kind=work.kind,
        tenant=work.tenant,
        service=work.service,
        submitted_at=submitted_at,
        earliest_start=earliest_start,
        deadline=earliest_start + timedelta(minutes=work.window_minutes),
        duration_minutes=work.duration_minutes,
        power_kw=resolved.power_kw,
        width=work.width,
        data_gb=work.data_gb,
        interruptible=work.interruptible,
        home_region=resolved.home_region,
        regions=resolved.regions,
        cost_weight_g=work.cost_weight_g,
        runner=work.runner_json,
        source=source,
    )


def requests_table(requests: Iterable[Request], accepted_at: Iterable[datetime | None] | None = None) -> pa.Table:
    """Rows of PLACEMENT_REQUESTS. `accepted_at` goes beside `requests`; None where nobody had to accept: declared."""
    chosen = list(requests)
    columns: dict[str, Any] = {field.name: [getattr(r, field.name) for r in chosen] for field in fields(Request)}
    columns["regions"] = [",".join(regions) for regions in columns["regions"]]
    columns["accepted_at"] = [None] * len(chosen) if accepted_at is None else list(accepted_at)
    return pa.table(columns, schema=PLACEMENT_REQUESTS.schema)


def minute_text(time: datetime) -> str:
    """As it stands in natural keys: `2026-11-25T02:00Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")


def _at(utilization: float, idle: float, busy: float) -> float:
    return idle + (busy - idle) * utilization


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
