"""What a charge used, where its own columns say it: SQL of vCPU, memory, storage, network, GPU hours and tokens.

Only what is measured counts: a quantity in hours of a machine whose cores the price names, gigabytes held for a time,
gigabytes moved, tokens. Anything else is null, and no figure is made of money. A month of storage is 730 hours.
"""

from __future__ import annotations

_HOURS_PER_MONTH = 730

_QUANTITY = "consumed_quantity::double"
_UNIT = "lower(consumed_unit)"
_DETAIL = "try_cast(json_extract_string(sku_price_details, '/{key}') as double)"

_IS_HOURS = f"{_UNIT} in ('hours', 'hour', 'hrs', 'hr')"
_IS_MACHINE = "service_category in ('Compute', 'Databases', 'AI and Machine Learning', 'Analytics')"
_GB_MONTHS = "('gb-months', 'gb-month', 'gb-mo', 'gibibyte month', 'gib-months')"
_GB_HOURS = "('gb-hours', 'gb-hour', 'gib-hours')"
_GB = "('gb', 'gib', 'gigabytes')"


def columns_sql() -> str:
    """The six columns, over the schema's. Usage of a commitment that nobody used is none."""
    cores, memory, gpus = (_DETAIL.format(key=key) for key in ("CoreCount", "MemorySize", "GpuCount"))
    # An unused commitment has no consumed quantity; a correction is of money, not of what was used.
    is_usage = "charge_category = 'Usage' and charge_class is null and consumed_quantity is not null"
    listed = {
        "vcpu_hours": f"case when {is_usage} and {_IS_HOURS} and {_IS_MACHINE} then {_QUANTITY} * {cores} end",
        "memory_gb_hours": f"case when {is_usage} and {_IS_HOURS} and {_IS_MACHINE} then {_QUANTITY} * {memory} end",
        "storage_gb_hours": f"case when {is_usage} and {_UNIT} in {_GB_MONTHS} then {_QUANTITY} * {_HOURS_PER_MONTH} "
        f"when {is_usage} and {_UNIT} in {_GB_HOURS} then {_QUANTITY} end",
        "network_gb": f"case when {is_usage} and service_category = 'Networking' and {_UNIT} in {_GB} then {_QUANTITY} end",
        "gpu_hours": f"case when {is_usage} and {_IS_HOURS} and {gpus} > 0 then {_QUANTITY} * {gpus} end",
        "tokens": f"case when {is_usage} and {_UNIT} in ('tokens', 'token') then {_QUANTITY} "
        f"when {is_usage} and {_UNIT} in ('1k tokens', '1000 tokens') then 1000 * {_QUANTITY} end",
    }
    return ", ".join(f"{sql} as {name}" for name, sql in listed.items())
