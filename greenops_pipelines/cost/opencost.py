"""OpenCost's `/allocation` as charges: one FOCUS row per window, name and component.

A component's cost is its cost and its adjustment; the components of an allocation make its totalCost to five decimals, and an
answer in which they do not is refused. `__idle__`, `__unallocated__` and `__unmounted__` keep their names as resources, so that
they stay visible. Idle can be negative where usage exceeds what nodes were counted with: it is clamped to zero, and reported.

Source: OpenCost, "API examples" (https://www.opencost.io/docs/integrations/api-examples). The currency is configured there and
not said in the answer: `GREENOPS_OPENCOST_CURRENCY`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from greenops_pipelines.errors import ProviderError
from greenops_pipelines.http import HttpClient, HttpStatusError

_MONEY = pa.decimal128(38, 12)
_STEP = Decimal("0.00001")
_GB = 10**9

# Component, its cost and adjustment, its quantity with the unit and the divisor, category and subcategory of FOCUS.
_COMPONENTS = (
    ("cpu", "cpuCost", "cpuCostAdjustment", "cpuCoreHours", "Hours", 1, "Compute", "Containers"),
    ("gpu", "gpuCost", "gpuCostAdjustment", "gpuHours", "Hours", 1, "Compute", "Containers"),
    ("ram", "ramCost", "ramCostAdjustment", "ramByteHours", "GB-Hours", _GB, "Compute", "Containers"),
    ("pv", "pvCost", "pvCostAdjustment", "pvByteHours", "GB-Hours", _GB, "Storage", "Block Storage"),
    ("network", "networkCost", "networkCostAdjustment", "networkTransferBytes", "GB", _GB, "Networking", "Network Connectivity"),
    ("load balancer", "loadBalancerCost", "loadBalancerCostAdjustment", None, None, 1, "Networking", "Application Networking"),
    ("shared", "sharedCost", None, None, None, 1, "Compute", "Other (Compute)"),
    ("external", "externalCost", None, None, None, 1, "Other", "Other (Other)"),
)  # fmt: skip

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("ServiceProviderName", "InvoiceIssuerName", "BillingAccountId", "BillingCurrency", "ChargeCategory",
            "ChargeFrequency", "ChargeDescription", "ServiceName", "ServiceCategory", "ServiceSubcategory", "SkuMeter", "ResourceId", "ResourceName",
            "SubAccountId", "ConsumedUnit", "SkuPriceDetails", "Tags")),
        *((name, pa.timestamp("us", tz="UTC")) for name in ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")),
        *((name, _MONEY) for name in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "ConsumedQuantity")),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Allocations:
    """Charges, and what was clamped: how many idle components were negative, and their sum."""

    rows: pa.Table
    clamped: int
    clamped_sum: Decimal


def fetch(http: HttpClient, start: datetime, end: datetime, currency: str) -> Allocations:
    """Daily allocations by namespace of [start, end). Raises `ProviderError` for an answer that cannot be used."""
    window = f"{start:%Y-%m-%dT%H:%M:%SZ},{end:%Y-%m-%dT%H:%M:%SZ}"
    parameters = {"window": window, "aggregate": "namespace", "step": "1d", "includeIdle": "true"}
    try:
        answer = http.get_json("/allocation", parameters)
    except HttpStatusError as error:
        raise ProviderError(f"opencost: refused with status {error.status}: {error.body or 'nothing said'}") from error
    return parse(answer, currency)


def parse(answer: Any, currency: str) -> Allocations:
    """The charges of one answer."""
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise ProviderError("opencost: found no list under data, allowed: {code, status, data: [{name: allocation}]}")
    rows: list[dict[str, Any]] = []
    clamped, total = 0, Decimal(0)
    for step in answer["data"]:
        for name, allocation in (step or {}).items():
            made, cut = _charges(name, allocation, currency)
            rows += made
            clamped += len(cut)
            total += sum(cut, Decimal(0))
    return Allocations(pa.Table.from_pylist(rows, schema=SCHEMA), clamped, total)


def _charges(name: str, allocation: dict[str, Any], currency: str) -> tuple[list[dict[str, Any]], list[Decimal]]:
    start, end = (_time(name, allocation, key) for key in ("start", "end"))
    if end <= start:
        return [], []
    amounts = {
        c[0]: _number(name, allocation, c[1]) + (_number(name, allocation, c[2]) if c[2] else 0) for c in _COMPONENTS
    }
    said, summed = _number(name, allocation, "totalCost"), sum(amounts.values(), Decimal(0))
    if abs(said - summed) > _STEP * len(amounts):
        raise ProviderError(f"opencost: {name}: totalCost: found {said}, allowed: the sum of its components, {summed}")
    cut: list[Decimal] = []
    if name.rpartition("/")[2] == "__idle__":
        cut = [amount for amount in amounts.values() if amount < 0]
        amounts = {key: max(amount, Decimal(0)) for key, amount in amounts.items()}
    properties = allocation.get("properties") or {}
    tags = {
        "namespace": properties.get("namespace") or name,
        **(properties.get("namespaceLabels") or {}),
        **(properties.get("labels") or {}),
    }
    month = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    common = {
        "ServiceProviderName": "OpenCost", "InvoiceIssuerName": "OpenCost", "BillingAccountId": properties.get("cluster") or "cluster",
        "SubAccountId": properties.get("namespace") or name, "BillingCurrency": currency, "ChargeCategory": "Usage", "ChargeFrequency": "Usage-Based",
        "ServiceName": "Kubernetes", "ResourceId": name, "ResourceName": name, "BillingPeriodStart": month, "BillingPeriodEnd": after,
        "ChargePeriodStart": start, "ChargePeriodEnd": end, "Tags": json.dumps(tags, ensure_ascii=False, sort_keys=True),
    }  # fmt: skip
    rows = []
    for component, _, _, quantity, unit, divisor, category, subcategory in _COMPONENTS:
        amount = amounts[component]
        used = _number(name, allocation, quantity) / divisor if quantity else None
        if not amount and not used:
            continue
        # An hour of a core is an hour of a machine with one.
        details = {"cpu": '{"CoreCount": 1}', "gpu": '{"GpuCount": 1}'}.get(component)
        rows.append(
            {
                **common,
                "ChargeDescription": f"{component} of {name}",
                "SkuMeter": component,
                "ServiceCategory": category,
                "ServiceSubcategory": subcategory,
                "BilledCost": amount,
                "EffectiveCost": amount,
                "ListCost": amount,
                "ContractedCost": amount,
                "ConsumedQuantity": None if used is None else used.quantize(Decimal("1e-12")),
                "ConsumedUnit": unit,
                "SkuPriceDetails": details,
            }
        )
    return rows, cut


def _number(name: str, allocation: dict[str, Any], key: str) -> Decimal:
    value = allocation.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise ProviderError(f"opencost: {name}: {key}: found {value!r}, allowed: a number")
    return Decimal(repr(value))


def _time(name: str, allocation: dict[str, Any], key: str) -> datetime:
    try:
        return datetime.fromisoformat(str(allocation.get(key))).astimezone(UTC)
    except ValueError:
        raise ProviderError(f"opencost: {name}: {key}: found {allocation.get(key)!r}, allowed: a time in UTC") from None
