"""`ops/cost.yaml`: whose a charge is, how shared costs are split, what may be spent, what it is divided by; and the first two as SQL.

A dimension is read from tags, then from the sub account, then from the mappings, and stays null where nothing says it. Not
here: the splitting itself (dbt, `cost_allocated_monthly`).
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import Field, model_validator

from greenops_pipelines import ops
from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.lake.catalog import quoted
from greenops_pipelines.lake.cost_tables import COST_BUDGETS, COST_SHARES, COST_UNITS
from greenops_pipelines.ops import OpsModel

Dimension = Literal["tenant", "service", "environment"]
DIMENSIONS: tuple[Dimension, ...] = ("tenant", "service", "environment")

_CONDITIONS = {
    "provider": "service_provider_name",
    "service_name": "service_name",
    "charge_category": "charge_category",
    "sub_account": "sub_account_id",
}


class Source(OpsModel):
    """Where a dimension stands: tag keys in order of trust, and sub accounts that belong to one value."""

    tags: tuple[str, ...] = ()
    sub_accounts: dict[str, str] = Field(default_factory=dict)


class Allocation(OpsModel):
    """The three dimensions."""

    tenant: Source = Source()
    service: Source = Source()
    environment: Source = Source()


class Conditions(OpsModel):
    """What a charge must be; every condition that is given has to hold, and one must be given."""

    provider: str | None = None
    service_name: str | None = None
    charge_category: Literal["Usage", "Purchase", "Tax", "Credit", "Adjustment"] | None = None
    sub_account: str | None = None
    resource_prefix: str | None = None

    @model_validator(mode="after")
    def _some(self) -> Conditions:
        if not self.sql():
            raise ValueError("at least one of provider, service_name, charge_category, sub_account, resource_prefix")
        return self

    def sql(self) -> str:
        """The conditions over the schema's columns."""
        parts = [
            f"{column} = {quoted(value)}" for name, column in _CONDITIONS.items() if (value := getattr(self, name))
        ]
        if self.resource_prefix:
            parts.append(f"starts_with(resource_id, {quoted(self.resource_prefix)})")
        return " and ".join(parts)


class Sets(OpsModel):
    """What a mapping says."""

    tenant: str | None = None
    service: str | None = None
    environment: str | None = None


class Mapping(Conditions):
    """What charges without a tag are."""

    sets: Sets


class Shared(Conditions):
    """Costs that belong to everybody, and how they are split among the tenants."""

    name: str = Field(min_length=1, max_length=80)
    split: Literal["effective_cost", "even", "fixed"]
    shares: dict[str, Decimal] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _shares(self) -> Shared:
        if (self.split == "fixed") != bool(self.shares):
            raise ValueError("shares with split: fixed, and with that alone")
        if any(share <= 0 for share in self.shares.values()):
            raise ValueError("shares above zero")
        return self


class Budget(OpsModel):
    """Money per month: of everything in a currency, or of a tenant, a service or a provider."""

    name: str = Field(min_length=1, max_length=80)
    amount: Decimal = Field(gt=0)
    currency: str = Field(pattern="^[A-Z]{3}$")
    tenant: str | None = None
    service: str | None = None
    provider: str | None = None


class Unit(OpsModel):
    """What the cost of a service is divided by."""

    name: str = Field(min_length=1, max_length=80)
    measure: Literal["requests", "tokens"]
    per: int = Field(default=1, ge=1)
    service: str | None = None


class CostOps(OpsModel):
    """The whole file."""

    allocation: Allocation = Allocation()
    mappings: tuple[Mapping, ...] = ()
    shared: tuple[Shared, ...] = ()
    budgets: tuple[Budget, ...] = ()
    units: tuple[Unit, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> CostOps:
        for items in (self.shared, self.budgets, self.units):
            if len({item.name for item in items}) < len(items):
                raise ValueError("each name once")
        return self


def read_cost(ops_dir: Path, tenants: Collection[str] | None = None) -> CostOps:
    """The file `cost.yaml` of `ops_dir`, held against the declared tenants where they are given.

    Raises `ConfigurationError` naming file, line, field, found and allowed.
    """
    declared = ops.read(ops_dir / "cost.yaml", CostOps)
    if tenants is not None and (unknown := unknown_tenants(declared, tenants)):
        raise ConfigurationError(
            f"cost.yaml: tenant: found {', '.join(unknown)}, allowed: {', '.join(sorted(tenants))}"
        )
    return declared


def columns_sql(declared: CostOps) -> str:
    """SQL of tenant, service, environment and shared_by, over the schema's columns."""
    listed = [f"{_dimension(name, declared)} as {name}" for name in DIMENSIONS]
    rules = " ".join(f"when {rule.sql()} then {quoted(rule.name)}" for rule in declared.shared)
    # What names its tenant is nobody else's.
    shared = (
        f"case when {_dimension('tenant', declared)} is not null then null {rules} end" if rules else "null::varchar"
    )
    return ", ".join([*listed, f"{shared} as shared_by"])


def _dimension(name: Dimension, declared: CostOps) -> str:
    source: Source = getattr(declared.allocation, name)
    parts = [f"nullif(json_extract_string(tags, {quoted(_pointer(key))}), '')" for key in source.tags]
    if source.sub_accounts:
        cases = " ".join(f"when {quoted(k)} then {quoted(v)}" for k, v in source.sub_accounts.items())
        parts.append(f"case sub_account_id {cases} end")
    mappings = [(m.sql(), value) for m in declared.mappings if (value := getattr(m.sets, name))]
    if mappings:
        parts.append("case " + " ".join(f"when {sql} then {quoted(value)}" for sql, value in mappings) + " end")
    return f"coalesce({', '.join(parts)})" if len(parts) > 1 else parts[0] if parts else "null::varchar"


def _pointer(key: str) -> str:
    """A tag's key as a JSON pointer: keys hold dots, slashes and quotes."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def tables(declared: CostOps) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Rows of COST_SHARES, COST_BUDGETS and COST_UNITS."""
    shares: list[dict[str, object]] = []
    for rule in declared.shared:
        shares += [
            {"name": rule.name, "split": rule.split, "tenant": t, "share": s} for t, s in rule.shares.items()
        ] or [{"name": rule.name, "split": rule.split, "tenant": "", "share": None}]
    budgets = [budget.model_dump() for budget in declared.budgets]
    units = [unit.model_dump() for unit in declared.units]
    return (
        pa.Table.from_pylist(shares, schema=COST_SHARES.schema),
        pa.Table.from_pylist(budgets, schema=COST_BUDGETS.schema),
        pa.Table.from_pylist(units, schema=COST_UNITS.schema),
    )


def unknown_tenants(declared: CostOps, tenants: Collection[str]) -> list[str]:
    """Tenants that the file names and ops/tenants.yaml does not have."""
    found = [m.sets.tenant for m in declared.mappings] + [b.tenant for b in declared.budgets]
    found += [tenant for rule in declared.shared for tenant in rule.shares]
    found += list(declared.allocation.tenant.sub_accounts.values())
    return sorted({tenant for tenant in found if tenant and tenant not in tenants})
