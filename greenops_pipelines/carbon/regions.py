"""Cloud regions and business tenants, as declared in `ops/regions.yaml` and `ops/tenants.yaml`.

Here: their models, the checks across both files, and their rows for the lake. Not here: intensity, emissions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import Field

from greenops_pipelines import ops
from greenops_pipelines.lake.tables import REGIONS, TENANTS
from greenops_pipelines.ops import OpsModel
from greenops_pipelines.ops.tree import Fault

Residency = Literal["eu", "us", "uk", "ca"]

RegionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40, examples=["eu-central-1"])]
Zone = Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]+)*$", max_length=20, examples=["DE", "US-CAL-CISO"])]
TenantName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=63, examples=["acme-retail"])]


class Region(OpsModel):
    """A cloud region. `pue` is facility energy / machine energy; above 3 it was typed in percent."""

    region: RegionName
    zone: Zone
    pue: float = Field(ge=1, le=3)
    pue_source: str = Field(min_length=1, max_length=200)
    residency: Residency
    primary: bool = False
    price_per_kwh: Decimal | None = Field(None, ge=0, description="Money per kWh of IT energy; in quotes")


class Tenant(OpsModel):
    """A business tenant. `residency` is the area its work and data must stay in, or `any`."""

    tenant: TenantName
    residency: Residency | Literal["any"]
    home_region: RegionName


class _Regions(OpsModel):
    regions: tuple[Region, ...] = Field(min_length=1)


class _Tenants(OpsModel):
    tenants: tuple[Tenant, ...] = Field(min_length=1)


def read_regions(ops_dir: Path) -> tuple[Region, ...]:
    """The regions of `ops_dir`/regions.yaml, in the order of the file.

    Raises `ConfigurationError` where the file does not fit, a region stands twice, or none is primary.
    """
    return read_regions_file(ops_dir / "regions.yaml")


def read_regions_file(path: Path) -> tuple[Region, ...]:
    """As `read_regions`, of any file of that form."""
    document = ops.load(path, _Regions)
    regions = document.value.regions
    faults = _repeated(document, "regions", "region", [region.region for region in regions])
    if not any(region.primary for region in regions):
        faults.append(document.fault(("regions",), "at least one region with primary: true"))
    ops.refuse(faults)
    return regions


def read_tenants(ops_dir: Path, regions: Sequence[Region]) -> tuple[Tenant, ...]:
    """The tenants of `ops_dir`/tenants.yaml, in the order of the file, checked against the declared regions.

    Raises `ConfigurationError` where the file does not fit, a tenant stands twice, a home region is not declared,
    or a bound tenant's home lies outside its area.
    """
    document = ops.load(ops_dir / "tenants.yaml", _Tenants)
    tenants = document.value.tenants
    faults = _repeated(document, "tenants", "tenant", [tenant.tenant for tenant in tenants])
    area_of = {region.region: region.residency for region in regions}
    for index, tenant in enumerate(tenants):
        at = ("tenants", index, "home_region")
        if tenant.home_region not in area_of:
            allowed = f"a region of regions.yaml: {_listed(area_of)}"
            faults.append(document.fault(at, allowed))
        elif tenant.residency not in ("any", area_of[tenant.home_region]):
            inside = _listed(region for region, area in area_of.items() if area == tenant.residency)
            allowed = f"a region with residency {tenant.residency}, as the tenant's: {inside or 'none is declared'}"
            faults.append(document.fault(at, allowed))
    ops.refuse(faults)
    return tenants


def regions_table(regions: Iterable[Region]) -> pa.Table:
    """Rows of the lake's table REGIONS, one per region."""
    rows = [
        {**region.model_dump(exclude={"primary", "price_per_kwh"}), "is_primary": region.primary} for region in regions
    ]
    return pa.Table.from_pylist(rows, schema=REGIONS.schema)


def tenants_table(tenants: Iterable[Tenant]) -> pa.Table:
    """Rows of the lake's table TENANTS, one per tenant."""
    return pa.Table.from_pylist([tenant.model_dump() for tenant in tenants], schema=TENANTS.schema)


def _repeated(
    document: ops.Document[_Regions] | ops.Document[_Tenants], items: str, field: str, names: Sequence[str]
) -> list[Fault]:
    seen: Counter[str] = Counter()
    faults = []
    for index, name in enumerate(names):
        if seen[name]:
            faults.append(document.fault((items, index, field), f"each {field} once"))
        seen[name] += 1
    return faults


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
