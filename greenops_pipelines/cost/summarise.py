"""What a file of charges comes to, by provider, service, region and month: exact sums, per currency.

Sums are decimal from the file's text to the answer; currencies are never added up. `month` is that of ChargePeriodStart, UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from greenops_pipelines.cost import charges
from greenops_pipelines.cost.columns import snake
from greenops_pipelines.cost.reading import opened
from greenops_pipelines.errors import BadInput

DIMENSIONS = {
    "provider": "ServiceProviderName",
    "service": "ServiceName",
    "region": "RegionId",
    "month": "ChargePeriodStart",
    "category": "ChargeCategory",
    "sub_account": "SubAccountId",
}
BY = ("provider", "service", "region", "month")
_DECIMALS = 12


@dataclass(frozen=True)
class Summary:
    """Rows of `by`, `currency`, `billed_cost`, `effective_cost` and `charges`, and the totals per currency."""

    by: tuple[str, ...]
    rows: pa.Table
    totals: pa.Table

    def as_document(self) -> dict[str, Any]:
        """For scripts: decimals as text. `total` is of the file's one currency; where it has several, `totals` has each."""
        totals = [_plain(row) for row in self.totals.to_pylist()]
        one = totals[0] if len(totals) == 1 else None
        empty = {"billed_cost": text(Decimal(0)), "effective_cost": text(Decimal(0)), "currency": None, "charges": 0}
        several = {
            "billed_cost": None,
            "effective_cost": None,
            "currency": None,
            "charges": sum(t["charges"] for t in totals),
        }
        return {
            "by": list(self.by),
            "rows": [_plain(row) for row in self.rows.to_pylist()],
            "total": one or (several if totals else empty),
            "totals": totals,
        }


def summarise(path: Path, by: Sequence[str] = BY) -> Summary:
    """Sums of the file at `path`. Raises `BadInput` where it cannot be read, or for a dimension that is unknown."""
    unknown = [name for name in by if name not in DIMENSIONS]
    if unknown:
        raise BadInput(f"--by: found {', '.join(unknown)}, allowed: {', '.join(DIMENSIONS)}")
    if len(set(by)) < len(by):
        raise BadInput(f"--by: found {','.join(by)}, allowed: each once")
    with opened(path) as file:
        shape = charges.shape_of(file)
        times = ("ChargePeriodStart",) if "month" in by else ()
        charges.require(file, shape, ("BilledCost", "EffectiveCost", *times))
        charges.refuse_values(file, shape, ("BilledCost", "EffectiveCost", *times))
        keys = [_key(name, shape) for name in by]
        sums = ", ".join(
            f"sum({charges.typed(name, shape, charges.EXACT)}) as {snake(name)}"
            for name in ("BilledCost", "EffectiveCost")
        )
        currency = charges.typed("BillingCurrency", shape)
        ordered = "".join(f", {name} nulls last" for name in by)
        rows = file.connection.sql(
            f"select {''.join(f'{key}, ' for key in keys)}{currency} as currency, {sums}, count(*) as charges from file "
            f"group by {', '.join([*by, 'currency'])} order by currency nulls last{ordered}"
        ).to_arrow_table()
        totals = file.connection.sql(
            f"select {currency} as currency, {sums}, count(*) as charges from file group by currency order by currency nulls last"
        ).to_arrow_table()
    return Summary(tuple(by), rows, totals)


def text(value: Decimal) -> str:
    """A decimal for scripts: all its digits, at least twelve decimals, never an exponent."""
    decimals = max(_DECIMALS, -int(value.normalize().as_tuple().exponent))
    return f"{value:.{decimals}f}"


def _key(name: str, shape: charges.Shape) -> str:
    sql = charges.typed(DIMENSIONS[name], shape)
    if name == "month":
        return f"strftime({sql}, '%Y-%m') as month"
    if name == "region":
        # Some providers name a region and give it no identifier.
        sql = f"coalesce({sql}, {charges.typed('RegionName', shape)})"
    return f"{sql} as {name}"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: text(value) if isinstance(value, Decimal) else value for name, value in row.items()}
