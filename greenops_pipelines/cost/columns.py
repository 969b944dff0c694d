"""The columns of FOCUS 1.0 to 1.4, and what a file's columns are called here. Not here: the rules about their values.

`focus_columns.csv` holds them with type, first and last version, nullability and presence. Source: the FOCUS
specification, https://focus.finops.org (CC-BY-4.0).
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal, cast, get_args

Spec = Literal["1.0", "1.1", "1.2", "1.3", "1.4"]
SPECS: tuple[Spec, ...] = get_args(Spec)
LATEST: Spec = "1.4"

Type = Literal["text", "decimal", "time", "json"]

_INITIALISMS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True)
class FocusColumn:
    """A column: its FOCUS name, its type, the versions that have it, whether it may be null."""

    name: str
    type: Type
    format: str
    since: str
    until: str
    nullable: bool
    presence: str

    @property
    def snake(self) -> str:
        """Its name in the lake: BilledCost is billed_cost."""
        return snake(self.name)

    def is_in(self, spec: str) -> bool:
        """Whether a version of the specification has it."""
        return is_between(self.since, self.until, spec)


_SIGNS_OF: Mapping[str, tuple[str, ...]] = {
    "1.4": ("InvoiceDetailId", "CommitmentProgramEligibilityDetails"),
    "1.3": ("ServiceProviderName", "HostProviderName", "AllocatedMethodId", "AllocatedResourceId", "ContractApplied"),
    "1.2": ("InvoiceId", "BillingAccountType", "SubAccountType", "PricingCurrency"),
    "1.1": ("SkuMeter", "SkuPriceDetails", "ServiceSubcategory", "CapacityReservationId", "CommitmentDiscountUnit"),
}


def is_between(since: str, until: str, spec: str) -> bool:
    """Whether `spec` lies from `since` to `until`, both included; an empty `until` means to this day."""
    return since <= spec and (not until or spec <= until)


def snake(name: str) -> str:
    """BilledCost -> billed_cost, SkuPriceId -> sku_price_id."""
    return _INITIALISMS.sub("_", name).lower()


@functools.cache
def focus_columns() -> Mapping[str, FocusColumn]:
    """Every column by its FOCUS name."""
    text = (resources.files("greenops_pipelines.cost") / "focus_columns.csv").read_text(encoding="utf-8")
    return {
        row["column"]: FocusColumn(
            name=row["column"],
            type=cast(Type, row["type"]),
            format=row["format"],
            since=row["since"],
            until=row["until"],
            nullable=row["nullable"] == "true",
            presence=row["presence"],
        )
        for row in csv.DictReader(text.splitlines())
    }


def spec_of(names: Iterable[str]) -> Spec:
    """The version of FOCUS that a file's columns point to: the newest of which it has a column of its own."""
    present = set(names)
    for spec in reversed(SPECS):
        if any(name in present for name in _SIGNS_OF.get(spec, ())):
            return spec
    return "1.0"
