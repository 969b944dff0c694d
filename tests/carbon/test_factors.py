"""The emission factors that come with the project, and what a wrong file is told."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from greenops_pipelines.carbon.factors import FACTORS_FILE, REQUIRED, read_factors
from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.lake.tables import EMISSION_FACTORS

STAGING = Path(__file__).parents[2] / "dbt" / "models" / "staging" / "carbon" / "stg_emission_factors.sql"


def lines() -> list[list[str]]:
    with FACTORS_FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def row_of(rows: list[list[str]], factor: str) -> list[str]:
    return next(row for row in rows if row[0] == factor)


def test_the_shipped_factors_are_the_published_figures() -> None:
    table = read_factors()
    values = dict(zip(table["factor"].to_pylist(), table["value"].to_pylist(), strict=True))
    assert table.schema.equals(EMISSION_FACTORS.schema, check_metadata=True)
    assert (values["cpu_min_w_per_vcpu"], values["cpu_max_w_per_vcpu"]) == (0.74, 3.5)
    assert values["memory_kwh_per_gb_hour"] == 0.000392
    assert values["storage_wh_per_tb_hour"] * values["storage_replication"] == 2.4
    assert values["server_embodied_kg_per_gb_memory"] == 533 / 384
    assert values["server_lifetime_hours"] == 4 * 365 * 24
    embodied_kg = (
        values["server_embodied_base_kg"]
        + values["server_embodied_kg_per_additional_cpu"] * (values["server_cpus"] - 1)
        + values["server_embodied_kg_per_gb_memory"] * (values["server_memory_gb"] - values["server_memory_gb_in_base"])
    )
    assert embodied_kg == pytest.approx(1610.79, abs=0.005)
    assert embodied_kg / values["server_lifetime_hours"] / values["server_vcpus"] == pytest.approx(4.789e-4, rel=1e-3)


def test_every_factor_names_source_and_vintage() -> None:
    for row in read_factors().to_pylist():
        assert len(row["source"]) > 10, row
        assert re.fullmatch(r"20\d\d", row["vintage"]), row


def test_the_models_read_exactly_the_required_factors() -> None:
    assert re.findall(r"factor\('(\w+)'\)", STAGING.read_text()) == list(REQUIRED)


def test_blank_lines_and_empty_notes_are_allowed(tmp_path: Path) -> None:
    rows = lines()
    row_of(rows, "gpu_min_w")[5] = ""
    table = read_factors(write(tmp_path / "factors.csv", [rows[0], [], *rows[1:], []]))
    notes = dict(zip(table["factor"].to_pylist(), table["note"].to_pylist(), strict=True))
    assert notes["gpu_min_w"] is None
    assert table.num_rows == len(rows) - 1


@pytest.mark.parametrize(
    ("factor", "field", "found", "message"),
    [
        ("gpu_min_w", "value", "18 W", "value: found 18 W; allowed: a number, 0 or more"),
        ("gpu_min_w", "value", "nan", "value: found nan; allowed: a number, 0 or more"),
        ("gpu_min_w", "value", "inf", "value: found inf; allowed: a number, 0 or more"),
        ("gpu_min_w", "value", "-18", "value: found -18; allowed: a number, 0 or more"),
        ("gpu_min_w", "value", "", "value: found nothing; allowed: Value in `unit`"),
        ("cpu_default_utilization", "value", "50", "value: found 50; allowed: a number from 0 to 1"),
        ("server_vcpus", "value", "0", "value: found 0; allowed: a number, 1 or more"),
        ("storage_wh_per_tb_hour", "unit", "kWh/TBh", "unit: found kWh/TBh; allowed: Wh/TBh"),
        ("gpu_min_w", "source", " ", "source: found nothing; allowed: Publication or data set"),
        ("gpu_min_w", "vintage", "", "vintage: found nothing; allowed: Year or version"),
        ("gpu_min_w", "factor", "", "factor: found nothing; allowed: Name of the factor"),
        ("gpu_min_w", "value", "200", "value: found 200 for gpu_min_w; allowed: at most gpu_max_w, which line"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(
    tmp_path: Path, factor: str, field: str, found: str, message: str
) -> None:
    rows = lines()
    row = row_of(rows, factor)
    line = rows.index(row) + 1
    row[rows[0].index(field)] = found
    path = write(tmp_path / "factors.csv", rows)
    with pytest.raises(ConfigurationError) as raised:
        read_factors(path)
    assert str(raised.value).startswith(f"{path}:{line}: {message}")


def test_a_factor_that_stands_twice_is_refused(tmp_path: Path) -> None:
    rows = lines()
    first = rows.index(row_of(rows, "gpu_min_w")) + 1
    path = write(tmp_path / "factors.csv", [*rows, row_of(rows, "gpu_min_w")])
    with pytest.raises(ConfigurationError) as raised:
        read_factors(path)
    expected = f"{path}:{len(rows) + 1}: factor: found gpu_min_w; allowed: each factor once; line {first} has it too"
    assert str(raised.value) == expected


def test_missing_factors_are_listed(tmp_path: Path) -> None:
    rows = [row for row in lines() if row[0] not in {"gpu_min_w", "server_cpus"}]
    path = write(tmp_path / "factors.csv", rows)
    with pytest.raises(ConfigurationError) as raised:
        read_factors(path)
    assert str(raised.value) == f"{path}: factor: found no row for gpu_min_w, server_cpus; the models need them"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: header: found nothing; allowed: factor,value,unit,source,vintage,note"),
        (b"name,value\n", ":1: header: found name,value; allowed: factor,value,unit,source,vintage,note"),
        (b"factor,value,unit,source,vintage,note\na,1\n", ":2: row: found 2 fields; allowed: 6: factor, value"),
        (b'factor,value,unit,source,vintage,note\na,1,W,"x,2021,y\n', ":2: not CSV: unexpected end of data"),
        (b"factor,value,unit,source,vintage,note\n\xff\n", ": not UTF-8 text (byte 38); save the file as UTF-8"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "factors.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        read_factors(path)
    assert str(raised.value).startswith(f"{path}{message}")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.csv: cannot be read: No such file"):
        read_factors(tmp_path / "nowhere.csv")
