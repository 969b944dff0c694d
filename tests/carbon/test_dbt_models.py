"""The carbon models on a small lake: unit tests, data tests, figures worked by hand, and data tests that must fail.

dbt is started five times, always on the same scratch path: another path would make it parse the project again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from greenops_pipelines.carbon.factors import read_factors
from greenops_pipelines.lake.budget_tables import SLO_MINUTES
from greenops_pipelines.lake.cost_tables import COST_BUDGETS, COST_CHARGES, COST_SHARES, COST_UNITS
from greenops_pipelines.lake.schema import Table
from greenops_pipelines.lake.tables import (
    CARBON_INTENSITY,
    EMISSION_FACTORS,
    PLACEMENT_SETTLEMENTS,
    REGIONS,
    RESOURCE_USAGE,
    SLO_DEFINITIONS,
    TENANTS,
)

PROJECT = Path(__file__).parents[2] / "dbt"
DAY = date(2026, 3, 1)
MARTS = {
    "carbon_coverage_daily": "coverage_daily",
    "emissions_daily": "emissions_daily",
    "emissions_hourly": "emissions_hourly",
    "emissions_monthly": "emissions_monthly",
    "sci_daily": "sci_daily",
}

Rows = list[dict[str, Any]]

EMBODIED_KG_PER_VCPU_HOUR = (1000 + 100 + 533 / 384 * (384 - 16)) / 35040 / 96


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, 1, hour, minute, tzinfo=UTC)


def region(name: str, zone: str, pue: float) -> dict[str, Any]:
    return {"region": name, "zone": zone, "pue": pue, "pue_source": "test", "residency": "eu", "is_primary": True}


def tenant(name: str, residency: str) -> dict[str, Any]:
    return {"tenant": name, "residency": residency, "home_region": "eu-central-1"}


def intensity(zone: str, start: datetime, minutes: int, value: float, **other: Any) -> dict[str, Any]:
    row = {
        "provider": "file",
        "zone": zone,
        "datetime": start,
        "resolution_minutes": minutes,
        "carbon_intensity_g_per_kwh": value,
        "signal": "average",
        "emission_factor_type": "lifecycle",
        "is_estimated": False,
        "observed_at": at(23),
        "day": DAY,
    }
    return row | other


def usage(hour: datetime, service: str, of_tenant: str, in_region: str, **amounts: float | None) -> dict[str, Any]:
    row = {
        "source": "file",
        "hour": hour,
        "service": service,
        "tenant": of_tenant,
        "region": in_region,
        "vcpu_hours": 0.0,
        "cpu_utilization": None,
        "memory_gb_hours": 0.0,
        "storage_tb_hours": 0.0,
        "network_gb": 0.0,
        "gpu_hours": 0.0,
        "requests": 0.0,
        "day": DAY,
    }
    return row | amounts


def small_lake() -> dict[Table, Rows]:
    """Two regions, two hours. Frankfurt's second hour lacks a quarter, so it is uncovered."""
    search = {"vcpu_hours": 1000.0, "memory_gb_hours": 4000.0, "storage_tb_hours": 10.0, "network_gb": 100.0}
    return {
        EMISSION_FACTORS: read_factors().to_pylist(),
        REGIONS: [region("eu-central-1", "DE", 1.35), region("us-east-1", "US-MIDA-PJM", 1.15)],
        TENANTS: [tenant("acme", "eu"), tenant("globex", "any")],
        CARBON_INTENSITY: [
            *(intensity("DE", at(10, minute), 15, 300.0 + 100 * minute / 15) for minute in (0, 15, 30, 45)),
            *(intensity("DE", at(11, minute), 15, 500.0) for minute in (0, 15, 45)),
            intensity("US-MIDA-PJM", at(10), 60, 400.0, is_estimated=True),
            intensity("US-MIDA-PJM", at(11), 60, 420.0),
        ],
        RESOURCE_USAGE: [
            usage(at(10), "search", "acme", "eu-central-1", cpu_utilization=0.5, requests=10_000.0, **search),
            usage(at(11), "search", "acme", "eu-central-1", requests=9_000.0, **search),
            usage(at(10), "embed", "globex", "us-east-1", vcpu_hours=80.0, cpu_utilization=0.25, gpu_hours=10.0),
            usage(at(11), "search", "globex", "us-east-1", vcpu_hours=100.0, cpu_utilization=1.0, requests=500.0),
        ],
        PLACEMENT_SETTLEMENTS: [],
        COST_BUDGETS: [],
        COST_CHARGES: [],
        COST_SHARES: [],
        COST_UNITS: [],
        SLO_DEFINITIONS: [],
        SLO_MINUTES: [],
    }


@dataclass(frozen=True)
class Outcome:
    """Names of nodes by what became of them, unit tests apart."""

    passed: frozenset[str]
    failed: frozenset[str]
    skipped: frozenset[str]
    unit_tests: Mapping[str, str]


class Dbt:
    """Runs dbt in this process on one scratch file."""

    def __init__(self, folder: Path) -> None:
        self.scratch = folder / "scratch.duckdb"
        self.target = folder / "target"
        self._logs = folder / "logs"

    def prepare(self, lake: Mapping[Table, Rows]) -> None:
        self.scratch.unlink(missing_ok=True)
        with duckdb.connect(str(self.scratch)) as connection:
            connection.execute("create schema lake")
            for table, rows in lake.items():
                names = table.schema.names
                arrow = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows], table.schema)
                connection.register("arrow", arrow)
                connection.execute(f"create table lake.{table.name} as select * from arrow")
                connection.unregister("arrow")

    def __call__(self, *arguments: str) -> Outcome:
        from dbt.cli.main import dbtRunner

        options = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--log-level", "none"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GREENOPS_DBT_SCRATCH", str(self.scratch))
            patch.setenv("DBT_TARGET_PATH", str(self.target))
            patch.setenv("DBT_LOG_PATH", str(self._logs))
            answer = dbtRunner().invoke([*arguments, *options])
        assert answer.exception is None, answer.exception
        names: dict[str, set[str]] = {"passed": set(), "failed": set(), "skipped": set()}
        unit_tests = {}
        for result in answer.result.results:
            status = {"pass": "passed", "success": "passed", "fail": "failed", "skipped": "skipped"}.get(result.status)
            if result.node.resource_type == "unit_test":
                # With its words: a unit test that fails once in many runs has to say why.
                words = "" if result.status == "pass" else f": {result.message}"
                unit_tests[result.node.name] = f"{result.status}{words}"
            elif result.node.resource_type != "exposure":
                assert status is not None, f"{result.node.name}: {result.status}: {result.message}"
                names[status].add(result.node.name)
        return Outcome(frozenset(names["passed"]), frozenset(names["failed"]), frozenset(names["skipped"]), unit_tests)

    def rows(self, sql: str) -> Rows:
        with duckdb.connect(str(self.scratch), read_only=True) as connection:
            connection.execute("set TimeZone = 'UTC'")
            return connection.sql(sql).to_arrow_table().to_pylist()


@pytest.fixture(scope="module")
def dbt(tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    return Dbt(tmp_path_factory.mktemp("dbt"))


@pytest.fixture(scope="module")
def first_build(dbt: Dbt) -> tuple[Outcome, Path]:
    """Outcome of a whole build of the small lake, and a copy of its database."""
    dbt.prepare(small_lake())
    outcome = dbt("build")
    copy = dbt.scratch.with_name("built.duckdb")
    shutil.copyfile(dbt.scratch, copy)
    return outcome, copy


@pytest.fixture
def built(dbt: Dbt, first_build: tuple[Outcome, Path]) -> Outcome:
    outcome, copy = first_build
    shutil.copyfile(copy, dbt.scratch)
    return outcome


def test_everything_builds_and_every_test_passes(built: Outcome) -> None:
    assert {name: status for name, status in built.unit_tests.items() if status != "pass"} == {}
    assert not built.failed | built.skipped
    assert set(MARTS) <= built.passed
    assert {
        "energy_of_each_resource_worked_by_hand",
        "an_hour_without_intensity_is_uncovered_not_zero",
        "sci_is_emissions_per_request_of_covered_hours",
    } <= set(built.unit_tests)


def test_the_build_leaves_the_scratch_file_unlocked_and_the_repository_untouched(dbt: Dbt, built: Outcome) -> None:
    """An open adapter would keep the lock until the process ends."""
    with duckdb.connect(str(dbt.scratch), config={"threads": 1}) as connection:  # fails while dbt has it open
        assert connection.sql("select hour from main.emissions_hourly").fetchall() != []
    assert not (PROJECT / "target").exists()
    assert not (PROJECT / "logs").exists()


def test_hourly_figures_with_the_shipped_factors(dbt: Dbt, built: Outcome) -> None:
    covered, embedding, uncovered, virginia = dbt.rows("from emissions_hourly order by hour, region")
    # (1000 * 2.12 W + 4000 * 0.392 W + 10 * 1.2 W * 2) = 3.712 kWh * 1.35 + 100 GB * 0.001 = 5.1112 kWh
    assert covered["energy_kwh"] == pytest.approx(5.1112)
    assert covered["intensity_g_per_kwh"] == 450  # (300 + 400 + 500 + 600) / 4
    assert covered["operational_kg"] == pytest.approx(2.30004)
    assert (
        covered["embodied_kg"] == pytest.approx(1000 * EMBODIED_KG_PER_VCPU_HOUR) == pytest.approx(0.478855, abs=1e-6)
    )
    assert covered["total_kg"] == pytest.approx(2.30004 + 0.478855, abs=1e-6)
    assert (covered["hour"], covered["day"], covered["zone"]) == (at(10), DAY, "DE")
    assert (covered["carbon_provider"], covered["is_estimated"], covered["is_sample"]) == ("file", False, False)
    # Utilisation unknown, so 50 % as above; three of four quarters, so no intensity.
    assert uncovered["energy_kwh"] == pytest.approx(5.1112)
    assert uncovered["embodied_kg"] == pytest.approx(0.478855, abs=1e-6)
    assert uncovered["is_covered"] is False
    unknown = ("intensity_g_per_kwh", "operational_kg", "total_kg", "carbon_provider", "is_estimated")
    assert [uncovered[name] for name in unknown] == [None] * 5
    # (80 * (0.74 + 0.25 * 2.76) W + 10 * (18 + 0.5 * 135) W) = 0.9694 kWh * 1.15
    assert embedding["energy_kwh"] == pytest.approx(1.11481)
    assert embedding["operational_kg"] == pytest.approx(0.445924)
    assert embedding["embodied_kg"] == pytest.approx(80 * EMBODIED_KG_PER_VCPU_HOUR + 10 * 150 / 35040)
    assert (embedding["is_estimated"], embedding["tenant_residency"]) == (True, "any")
    # 100 * 3.5 W * 1.15 = 0.4025 kWh; * 420 g
    assert virginia["operational_kg"] == pytest.approx(0.16905)


def test_daily_figures_keep_what_is_not_covered_apart(dbt: Dbt, built: Outcome) -> None:
    (acme,) = dbt.rows("from emissions_daily where tenant = 'acme'")
    assert acme["energy_kwh"] == pytest.approx(2 * 5.1112)
    assert (acme["covered_energy_kwh"], acme["uncovered_energy_kwh"]) == pytest.approx((5.1112, 5.1112))
    assert acme["operational_kg"] == pytest.approx(2.30004)
    assert acme["embodied_kg"] == pytest.approx(2 * acme["covered_embodied_kg"]) == pytest.approx(0.957710, abs=1e-6)
    assert acme["total_kg"] == pytest.approx(acme["operational_kg"] + acme["covered_embodied_kg"])
    assert (acme["covered_hours"], acme["uncovered_hours"], acme["requests"]) == (1, 1, 19_000)


def test_sci_is_over_covered_hours_with_and_without_embodied(dbt: Dbt, built: Outcome) -> None:
    embed, search = dbt.rows("from sci_daily order by service")
    # 2.30004 + 0.16905 = 2.46909 kg over 10,000 + 500 requests; the 9,000 of the uncovered hour do not count
    assert (search["requests"], search["covered_requests"]) == (19_500, 10_500)
    assert search["sci_without_embodied_g_per_request"] == pytest.approx(0.235151, abs=1e-6)
    embodied_g = 1000 * 1100 * EMBODIED_KG_PER_VCPU_HOUR
    assert search["sci_g_per_request"] == pytest.approx((2469.09 + embodied_g) / 10_500)
    assert embed["operational_kg"] == pytest.approx(0.445924)
    assert (embed["sci_g_per_request"], embed["sci_without_embodied_g_per_request"]) == (None, None)


def test_no_emissions_come_of_marginal_intensity(dbt: Dbt) -> None:
    lake = small_lake()
    lake[CARBON_INTENSITY] = [row | {"signal": "marginal"} for row in lake[CARBON_INTENSITY]]
    dbt.prepare(lake)
    assert dbt("build", "--exclude-resource-type", "unit_test").failed == set()
    assert dbt.rows("select bool_or(is_covered) as any, sum(operational_kg) as kg from emissions_hourly") == [
        {"any": False, "kg": None}
    ]


def test_coverage_per_zone(dbt: Dbt, built: Outcome) -> None:
    germany, pjm = dbt.rows("from carbon_coverage_daily order by zone")
    assert (germany["usage_hours"], germany["covered_hours"], germany["covered_share"]) == (2, 1, 0.5)
    assert (germany["energy_kwh"], germany["covered_energy_kwh"]) == pytest.approx((10.2224, 5.1112))
    assert (pjm["usage_hours"], pjm["covered_hours"], pjm["covered_share"]) == (2, 2, 1)
    assert (germany["estimated_share"], pjm["estimated_share"]) == (0, 0.5)


def test_broken_inputs_fail_the_tests_that_name_them_and_build_no_mart(dbt: Dbt) -> None:
    lake = small_lake()
    lake[REGIONS] += [region("eu-central-1", "DE", 1.35), region("eu-west-1", "IE", 111.0)]
    lake[TENANTS] += [tenant("acme", "any")]
    lake[EMISSION_FACTORS] = [row for row in lake[EMISSION_FACTORS] if row["factor"] != "gpu_max_w"]
    lake[CARBON_INTENSITY] += [
        intensity("US-MIDA-PJM", at(10), 60, 900.0, emission_factor_type="direct"),
        intensity("IE", at(10), 60, -1.0),
    ]
    lake[RESOURCE_USAGE] += [
        lake[RESOURCE_USAGE][0],
        usage(at(12), "search", "nobody", "nowhere"),
        usage(at(12, 30), "search", "acme", "eu-central-1", cpu_utilization=50.0),
        usage(at(13), "search", "acme", "eu-central-1", vcpu_hours=-1.0, gpu_hours=float("nan")),
    ]
    dbt.prepare(lake)
    outcome = dbt("build", "--exclude-resource-type", "unit_test")
    assert outcome.failed == {
        "regions_are_unique",
        "pue_is_plausible",
        "tenants_are_unique",
        "emission_factors_are_complete",
        "intensity_has_one_value_per_zone_and_hour",
        "intensity_is_plausible",
        "usage_rows_are_unique",
        "usage_tenants_are_declared",
        "usage_regions_are_declared",
        "usage_begins_on_the_full_hour",
        "cpu_utilization_is_a_share",
        "vcpu_hours_are_not_negative",
        "gpu_hours_are_not_negative",
    }
    assert set(MARTS) <= outcome.skipped


def double_a_region(connection: duckdb.DuckDBPyConnection) -> None:
    """What a join on a key that is not unique does."""
    connection.execute("insert into emissions_hourly from emissions_hourly where region = 'us-east-1'")


def drop_and_falsify(connection: duckdb.DuckDBPyConnection) -> None:
    """Missing data written as zero, a lost day, and figures that no longer fit each other."""
    connection.execute("update emissions_hourly set operational_kg = 0, total_kg = 0 where not is_covered")
    connection.execute(
        "update emissions_daily set uncovered_energy_kwh = 0, operational_kg = null where tenant = 'acme'"
    )
    connection.execute("update sci_daily set sci_g_per_request = 0 where service = 'embed'")
    connection.execute("update sci_daily set sci_g_per_request = 0.1 where service = 'search'")
    connection.execute("update carbon_coverage_daily set covered_hours = 25, covered_energy_kwh = 0 where zone = 'DE'")


@pytest.mark.parametrize(
    ("break_marts", "expected"),
    [
        (
            double_a_region,
            {
                "each_usage_row_appears_exactly_once",
                "emissions_hourly_key_is_unique",
                "energy_balances_with_usage",
                "daily_emissions_sum_to_hourly",
            },
        ),
        (
            drop_and_falsify,
            {
                "uncovered_hours_have_no_operational_emissions",
                "covered_and_uncovered_energy_make_the_day",
                "a_day_without_covered_hours_has_no_operational_emissions",
                "daily_emissions_sum_to_hourly",
                "sci_is_null_without_covered_requests",
                "sci_with_embodied_is_not_below_sci_without",
                "sci_sums_to_daily_emissions",
                "covered_hours_are_among_usage_hours",
                "coverage_energy_equals_emissions_energy",
            },
        ),
    ],
)
def test_broken_marts_fail_the_tests_that_name_them(
    dbt: Dbt, built: Outcome, break_marts: Callable[[duckdb.DuckDBPyConnection], None], expected: set[str]
) -> None:
    with duckdb.connect(str(dbt.scratch)) as connection:
        break_marts(connection)
    assert dbt("test", "--exclude-resource-type", "unit_test").failed == expected


def test_every_data_test_says_which_asset_it_checks(dbt: Dbt, built: Outcome) -> None:
    nodes = json.loads((dbt.target / "manifest.json").read_text())["nodes"].values()
    models = [node for node in nodes if node["resource_type"] == "model"]
    tests = [node for node in nodes if node["resource_type"] == "test"]
    marts = [asset_key(node) for node in models if node["config"]["materialized"] == "table"]
    cost = (
        "allocated_monthly",
        "anomalies_daily",
        "charge_carbon",
        "commitments_monthly",
        "daily",
        "forecasts_daily",
        "monthly",
        "units_daily",
    )
    assert sorted(marts) == [
        *(["carbon", name] for name in sorted(MARTS.values())),
        *(["cost", name] for name in cost),
        ["placement", "avoided_monthly"],
        *(["slo", name] for name in ("budget_calendar", "burn", "error_budget")),
    ]
    assert len(tests) == len(built.passed) - len(models)
    for test in tests:
        assert asset_key(test) in marts, test["name"]
        assert test["description"].endswith("."), test["name"]
    for model in models:
        assert model["description"], model["name"]
        assert all(column["description"] for column in model["columns"].values()), model["name"]


def asset_key(node: Mapping[str, Any]) -> list[str]:
    return node["config"]["meta"]["dagster"]["asset_key"]
