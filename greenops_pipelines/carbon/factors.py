"""The emission factors: a data file read and checked. Not here: the formulas, which are SQL (`dbt/models`).

`emission_factors.csv` holds what the models multiply with, and alternatives for sensitivity tables that the models
leave out. Every row names its source and vintage.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.lake.tables import EMISSION_FACTORS

FACTORS_FILE = Path(__file__).with_name("emission_factors.csv")
_FIELDS = tuple(column.name for column in EMISSION_FACTORS.columns)


@dataclass(frozen=True)
class _Required:
    """What the models expect of a factor: its unit, and the range in which the formulas mean anything."""

    unit: str
    minimum: float = 0.0
    maximum: float = math.inf


REQUIRED: Mapping[str, _Required] = {
    "cpu_default_utilization": _Required("share", maximum=1),
    "cpu_min_w_per_vcpu": _Required("W"),
    "cpu_max_w_per_vcpu": _Required("W"),
    "memory_kwh_per_gb_hour": _Required("kWh/GBh"),
    "storage_wh_per_tb_hour": _Required("Wh/TBh"),
    "storage_replication": _Required("copies", minimum=1),
    "network_kwh_per_gb": _Required("kWh/GB"),
    "gpu_default_utilization": _Required("share", maximum=1),
    "gpu_min_w": _Required("W"),
    "gpu_max_w": _Required("W"),
    "server_embodied_base_kg": _Required("kgCO2e"),
    "server_embodied_kg_per_additional_cpu": _Required("kgCO2e"),
    "server_embodied_kg_per_gb_memory": _Required("kgCO2e/GB"),
    "server_memory_gb_in_base": _Required("GB"),
    "server_cpus": _Required("CPUs", minimum=1),
    "server_memory_gb": _Required("GB"),
    "server_vcpus": _Required("vCPUs", minimum=1),
    "server_lifetime_hours": _Required("h", minimum=1),
    "gpu_embodied_kg": _Required("kgCO2e"),
}
"""The factors `dbt/models/staging/carbon/stg_emission_factors.sql` reads; a test compares the two."""

_NOT_ABOVE = (
    ("cpu_min_w_per_vcpu", "cpu_max_w_per_vcpu"),
    ("gpu_min_w", "gpu_max_w"),
    ("server_memory_gb_in_base", "server_memory_gb"),
)


@dataclass(frozen=True)
class _Factor:
    line: int
    factor: str
    value: float
    unit: str
    source: str
    vintage: str
    note: str | None


def read_factors(path: Path | None = None) -> pa.Table:
    """The emission factors as rows of `EMISSION_FACTORS`, in the order of the file.

    `path` defaults to the file that comes with the project. Raises `ConfigurationError` naming file, line and field
    for a value that is not a number, out of range or in another unit than the models calculate with, a missing source
    or vintage, a factor that stands twice, and a factor that is missing.
    """
    path = path or FACTORS_FILE
    factors: dict[str, _Factor] = {}
    for factor in _rows(path):
        first = factors.setdefault(factor.factor, factor)
        if first is not factor:
            raise _error(path, factor.line, "factor", factor.factor, f"each factor once; line {first.line} has it too")
    missing = [name for name in REQUIRED if name not in factors]
    if missing:
        raise ConfigurationError(f"{path}: factor: found no row for {', '.join(missing)}; the models need them")
    for low, high in _NOT_ABOVE:
        if factors[low].value > factors[high].value:
            raise _error(
                path,
                factors[low].line,
                "value",
                f"{factors[low].value:g} for {low}",
                f"at most {high}, which line {factors[high].line} gives as {factors[high].value:g}",
            )
    return pa.table(
        {name: [getattr(factor, name) for factor in factors.values()] for name in _FIELDS},
        schema=EMISSION_FACTORS.schema,
    )


def values(factors: pa.Table) -> dict[str, float]:
    """The factors by name."""
    return dict(zip(factors["factor"].to_pylist(), factors["value"].to_pylist(), strict=True))


def embodied_g_per_kwh(factor: Mapping[str, float]) -> float:
    """Manufacture of the reference server per kWh of IT energy that it uses, at the default utilisation, in gCO2e.

    The same machine hours are needed wherever work runs: the term is a constant of a placement, and thins its savings.
    """
    server_kg = (
        factor["server_embodied_base_kg"]
        + factor["server_embodied_kg_per_additional_cpu"] * (factor["server_cpus"] - 1)
        + factor["server_embodied_kg_per_gb_memory"] * (factor["server_memory_gb"] - factor["server_memory_gb_in_base"])
    )
    idle, busy = factor["cpu_min_w_per_vcpu"], factor["cpu_max_w_per_vcpu"]
    memory_kw = factor["memory_kwh_per_gb_hour"] * factor["server_memory_gb"] / factor["server_vcpus"]
    vcpu_kw = (idle + (busy - idle) * factor["cpu_default_utilization"]) / 1000 + memory_kw
    return 1000 * server_kg / factor["server_lifetime_hours"] / factor["server_vcpus"] / vcpu_kw


def _rows(path: Path) -> Iterator[_Factor]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = next(reader, [])
        if tuple(header) != _FIELDS:
            raise _error(path, 1, "header", ",".join(header), ",".join(_FIELDS))
        for cells in reader:
            if cells:
                yield _factor(path, reader.line_num, cells)
    except csv.Error as error:
        raise ConfigurationError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _factor(path: Path, line: int, cells: list[str]) -> _Factor:
    if len(cells) != len(_FIELDS):
        raise _error(path, line, "row", f"{len(cells)} fields", f"{len(_FIELDS)}: {', '.join(_FIELDS)}")
    row = {name: cell.strip() for name, cell in zip(_FIELDS, cells, strict=True)}
    for column in EMISSION_FACTORS.columns:
        if not column.nullable and not row[column.name]:
            raise _error(path, line, column.name, "", column.comment)
    value = _number(path, line, row["value"])
    required = REQUIRED.get(row["factor"])
    if required is not None:
        if row["unit"] != required.unit:
            raise _error(path, line, "unit", row["unit"], f"{required.unit}, which the models calculate with")
        if not required.minimum <= value <= required.maximum:
            raise _error(path, line, "value", row["value"], _allowed(required))
    return _Factor(line, row["factor"], value, row["unit"], row["source"], row["vintage"], row["note"] or None)


def _number(path: Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise _error(path, line, "value", text, "a number, 0 or more")
    return value


def _allowed(required: _Required) -> str:
    if required.maximum < math.inf:
        return f"a number from {required.minimum:g} to {required.maximum:g}"
    return f"a number, {required.minimum:g} or more"


def _error(path: Path, line: int, field: str, found: str, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{path}:{line}: {field}: found {found or 'nothing'}; allowed: {allowed}")
