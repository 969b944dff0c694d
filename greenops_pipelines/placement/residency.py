"""Residency: a tenant bound to an area never leaves it. The rule, the assertion over tables, the last look before dispatch.

Not here: what tenants and regions are (`carbon/regions.py`), and every reason other than residency and latency.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import duckdb
import pyarrow as pa

from greenops_pipelines.carbon.regions import Region, Tenant, regions_table, tenants_table
from greenops_pipelines.errors import ResidencyViolation, SchemaViolation


class _OfTenant(Protocol):
    @property
    def key(self) -> str: ...

    @property
    def tenant(self) -> str: ...


@dataclass(frozen=True)
class Violations:
    """What an assertion over rows of tenants in regions found. `rows` were looked at."""

    rows: int
    outside: int
    """Rows of bound tenants in a region of another area."""
    undeclared: int
    """Rows whose tenant or region is not declared: nobody can say whether they are outside."""
    example: str | None
    """One of them, in words."""

    @property
    def total(self) -> int:
        return self.outside + self.undeclared


def within(tenant: Tenant, area: str) -> bool:
    """Whether the tenant's work and data may be in a region of that area."""
    return tenant.residency in ("any", area)


def allowed_regions(
    tenant: Tenant,
    regions: Sequence[Region],
    wanted: Collection[str] | None = None,
    home: str | None = None,
    max_rtt_ms: float | None = None,
    rtt: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[str, ...]:
    """Names of the regions in which the tenant's work may run, in the order of `regions`; may be empty.

    Those inside the tenant's area; of them those `wanted` (None: all); of them, with a `max_rtt_ms`, `home` (None: the
    tenant's) and those whose round trip from home `rtt[home][region]`, in ms, is known and at most that.
    """
    start = home or tenant.home_region
    reach = (rtt or {}).get(start, {})
    return tuple(
        region.region
        for region in regions
        if within(tenant, region.residency)
        and (wanted is None or region.region in wanted)
        and (
            max_rtt_ms is None
            or region.region == start
            or (region.region in reach and reach[region.region] <= max_rtt_ms)
        )
    )


_JUDGED = """
with judged as (
    select
        r.tenant,
        r.region,
        t.residency as bound_to,
        g.residency as area,
        t.tenant is null or g.region is null as is_undeclared,
        t.residency <> 'any' and t.residency <> g.residency as is_outside,
        count(*) as n
    from rows_of_table as r
    left join declared_tenants as t on t.tenant = r.tenant
    left join declared_regions as g on g.region = r.region
    group by all
)

select tenant, region, bound_to, area, coalesce(is_outside, false) as is_outside, is_undeclared, n::bigint as n
from judged
order by is_outside desc, is_undeclared desc, tenant nulls first, region nulls first
"""


def violations(rows: pa.Table, regions: Sequence[Region], tenants: Sequence[Tenant]) -> Violations:
    """Every row of a table with the columns `tenant` and `region` held against the declared ones. Null is undeclared.

    Raises `SchemaViolation` where the table lacks one of the columns.
    """
    if missing := [name for name in ("tenant", "region") if name not in rows.column_names]:
        raise SchemaViolation(f"residency: found no column {' and no '.join(missing)}, allowed: both tenant and region")
    with duckdb.connect() as connection:
        connection.register("rows_of_table", rows.select(["tenant", "region"]))
        connection.register("declared_tenants", tenants_table(tenants))
        connection.register("declared_regions", regions_table(regions))
        found = connection.sql(_JUDGED).fetchall()
    outside = sum(n for *_, is_outside, is_undeclared, n in found if is_outside and not is_undeclared)
    undeclared = sum(n for *_, is_undeclared, n in found if is_undeclared)
    example = None
    if outside or undeclared:
        tenant, region, bound_to, area, *_ = found[0]
        example = f"{_shown(tenant, bound_to, 'tenant', 'bound to')} in {_shown(region, area, 'region', 'of')}"
    return Violations(rows.num_rows, outside, undeclared, example)


def refuse(request: _OfTenant, region: str, regions: Sequence[Region], tenants: Sequence[Tenant]) -> None:
    """Raises `ResidencyViolation` unless the request's tenant may be in the region, as declared now.

    To be called again right before dispatch: a plan may be older than the declarations, or come from elsewhere.
    """
    tenant = next((each for each in tenants if each.tenant == request.tenant), None)
    area = next((each.residency for each in regions if each.region == region), None)
    if tenant is None or area is None or not within(tenant, area):
        who = _shown(request.tenant, tenant.residency if tenant else None, "tenant", "bound to")
        where = _shown(region, area, "region", "of")
        allowed = "declared tenants and regions"
        if tenant is not None:
            allowed = ", ".join(allowed_regions(tenant, regions)) or "none is declared"
        raise ResidencyViolation(f"{request.key}: found {who} in {where}, allowed: {allowed}")


def _shown(name: str | None, area: str | None, what: str, relation: str) -> str:
    if area is None:
        return f"the undeclared {what} {name!r}" if name is not None else f"no {what}"
    return f"{what} {name} ({relation} {area})"
