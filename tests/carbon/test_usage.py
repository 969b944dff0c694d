"""Resource usage: the sample's promises, what files may hold, and every line that is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.carbon.regions import Tenant, read_regions, read_tenants
from greenops_pipelines.carbon.usage import SERVICES, configured_usage, file_usage, sample_usage, usage_span
from greenops_pipelines.errors import ConfigurationError, ProviderError
from greenops_pipelines.lake.tables import RESOURCE_USAGE
from tests.carbon.small_lake import ROOT, at

HOUR = timedelta(hours=1)
NOW = datetime(2026, 3, 3, 9, 41, tzinfo=UTC)
TENANTS = (
    Tenant(tenant="acme", residency="eu", home_region="eu-central-1"),
    Tenant(tenant="globex", residency="any", home_region="us-east-1"),
)
ALWAYS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
AMOUNTS = ("memory_gb_hours", "storage_tb_hours", "network_gb", "gpu_hours", "requests")
HEADER = "hour,service,tenant,region,vcpu_hours\n"
ROW = "2026-03-01T00:00Z,search,acme,eu-central-1,"

WHOLE = sample_usage(TENANTS, at(0), at(0, day=9), NOW)

# The sample


def test_the_sample_has_every_service_tenant_and_ended_hour_once() -> None:
    assert WHOLE.schema == RESOURCE_USAGE.schema
    keys = {tuple(row.values()) for row in WHOLE.select(["hour", "service", "tenant"]).to_pylist()}
    # Two days and nine hours: 09:00 is still under way at 09:41.
    assert keys == {(at(0) + n * HOUR, s.name, t.tenant) for n in range(57) for s in SERVICES for t in TENANTS}
    assert WHOLE.num_rows == 57 * 5 * 2
    assert set(WHOLE["source"].to_pylist()) == {"sample"}
    assert [row["day"] for row in WHOLE.to_pylist()] == [row["hour"].date() for row in WHOLE.to_pylist()]


def test_the_services_are_those_of_the_platform() -> None:
    assert [service.name for service in SERVICES] == ["api-gateway", "reporting", "q2q-ai", "cockpit", "impact-in"]


@given(st.integers(0, 58 * 60), st.integers(0, 70 * 60))
def test_any_range_is_the_slice_of_the_whole(first: int, last: int) -> None:
    low, high = at(0) + timedelta(minutes=first), at(0) + timedelta(minutes=last)
    inside = pc.and_(pc.greater_equal(WHOLE["hour"], low), pc.less(WHOLE["hour"], high))
    assert _sorted(sample_usage(TENANTS, low, high, NOW)) == _sorted(WHOLE.filter(inside))


def _sorted(rows: pa.Table) -> list[dict[str, Any]]:
    return sorted(rows.to_pylist(), key=lambda row: (row["hour"], row["service"], row["tenant"]))


def test_a_tenants_usage_does_not_depend_on_who_else_is_declared() -> None:
    alone = sample_usage(TENANTS[:1], at(0), at(5), NOW)
    both = sample_usage(TENANTS, at(0), at(5), NOW)
    assert _sorted(alone) == _sorted(both.filter(pc.equal(both["tenant"], "acme")))


def test_the_figures_are_the_same_on_every_machine() -> None:
    """A home keeps what it has stored: a changed model would make one of two halves."""
    (row,) = (r for r in _sorted(WHOLE) if (r["hour"], r["service"], r["tenant"]) == (at(14), "q2q-ai", "acme"))
    names = ("vcpu_hours", "cpu_utilization", "memory_gb_hours", "gpu_hours", "requests")
    # A load of 0.28243: 2 vCPUs * 1.28243, 0.15 + 0.4 * load, 6 GB per vCPU, 0.5 GPUs * load, 2 * 220 requests * load.
    assert [row[name] for name in names] == [2.5649, 0.263, 15.3891, 0.1412, 124.0]


def test_the_sample_respects_residency_for_the_declared_tenants() -> None:
    regions = read_regions(ROOT / "ops")
    tenants = read_tenants(ROOT / "ops", regions)
    area = {region.region: region.residency for region in regions}
    bound = {tenant.tenant: tenant.residency for tenant in tenants if tenant.residency != "any"}
    rows = sample_usage(tenants, at(0), at(1), NOW).to_pylist()
    assert {row["tenant"] for row in rows} == {tenant.tenant for tenant in tenants}
    outside = [row for row in rows if area[row["region"]] != bound.get(row["tenant"], area[row["region"]])]
    assert bound
    assert outside == []


def test_the_sample_is_fit_for_the_emission_model() -> None:
    utilization = WHOLE["cpu_utilization"].to_numpy()
    assert ((utilization >= 0.15) & (utilization <= 0.9)).all()
    for name in ("vcpu_hours", *AMOUNTS):
        assert pc.min(WHOLE[name]).as_py() >= 0, name
    with_gpus = WHOLE.filter(pc.greater(WHOLE["gpu_hours"], 0))
    assert set(with_gpus["service"].to_pylist()) == {"q2q-ai"}


def test_a_working_day_is_busier_than_its_night_and_than_a_sunday() -> None:
    def vcpus(hour: datetime) -> float:
        return float(pc.sum(sample_usage(TENANTS, hour, hour + HOUR, NOW)["vcpu_hours"]).as_py())

    sunday, monday = at(14), at(14, day=2)
    assert (sunday.isoweekday(), monday.isoweekday()) == (7, 1)
    assert vcpus(monday) > 1.2 * vcpus(at(3, day=2))
    assert vcpus(monday) > 1.2 * vcpus(sunday)


def test_nothing_is_used_in_the_future_or_in_an_empty_range() -> None:
    assert sample_usage(TENANTS, NOW, NOW + 5 * HOUR, NOW).num_rows == 0
    assert sample_usage(TENANTS, at(5), at(5), NOW).num_rows == 0
    assert sample_usage(TENANTS, at(6), at(5), NOW).num_rows == 0


# Files

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "usage.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path | str) -> str:
    with pytest.raises((ProviderError, ConfigurationError)) as error:
        file_usage(str(path), *ALWAYS)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_csv_with_every_column(write: Write) -> None:
    path = write(
        "requests,hour,service,tenant,region,vcpu_hours,cpu_utilization,memory_gb_hours,storage_tb_hours,network_gb,gpu_hours\n"
        "1000,2026-03-01T01:00:00+01:00,search,acme,eu-central-1,2.5,0.25,10,0.5,3,1\n"
    )
    (row,) = file_usage(str(path), *ALWAYS).to_pylist()
    assert row == {
        "source": "file",
        "hour": at(0),
        "service": "search",
        "tenant": "acme",
        "region": "eu-central-1",
        "vcpu_hours": 2.5,
        "cpu_utilization": 0.25,
        "memory_gb_hours": 10.0,
        "storage_tb_hours": 0.5,
        "network_gb": 3.0,
        "gpu_hours": 1.0,
        "requests": 1000.0,
        "day": date(2026, 3, 1),
    }


def test_what_a_file_does_not_state_is_nothing_and_its_utilisation_unknown(write: Write) -> None:
    for text in (
        HEADER + ROW + "2\n",
        "hour,service,tenant,region,vcpu_hours,cpu_utilization," + ",".join(AMOUNTS) + "\n" + ROW + "2,,,,,,\n",
    ):
        rows = file_usage(str(write(text)), *ALWAYS)
        assert rows.schema == RESOURCE_USAGE.schema
        (row,) = rows.to_pylist()
        assert row["vcpu_hours"] == 2.0
        assert row["cpu_utilization"] is None
        assert [row[name] for name in AMOUNTS] == [0.0] * 5


def test_parquet_of_any_number_type(tmp_path: Path) -> None:
    path = tmp_path / "usage.parquet"
    names = {"service": ["search"], "tenant": pa.array([7]), "region": ["eu-central-1"]}
    hour = pa.array([at(5)], pa.timestamp("ns", "America/New_York"))
    pq.write_table(pa.table({"hour": hour, **names, "vcpu_hours": pa.array([2]), "requests": pa.array([None])}), path)
    (row,) = file_usage(str(path), *ALWAYS).to_pylist()
    assert (row["hour"], row["tenant"], row["vcpu_hours"], row["requests"]) == (at(5), "7", 2.0, 0.0)


def test_a_range_is_half_open_over_all_files_of_a_glob(write: Write, tmp_path: Path) -> None:
    for hour in (0, 1, 2, 3):
        write(HEADER + ROW.replace("T00", f"T0{hour}") + "1\n", f"usage-{hour}.csv")
    rows = file_usage(str(tmp_path / "usage-*.csv"), at(1), at(3))
    assert rows["hour"].to_pylist() == [at(1), at(2)]


def test_the_span_is_in_utc_days(write: Write, tmp_path: Path) -> None:
    write(HEADER + ROW.replace("01T00:00Z", "02T00:00+01:00") + "1\n", "a.csv")
    write(HEADER + ROW.replace("01T", "05T") + "1\n", "b.csv")
    write(HEADER, "c.csv")
    assert usage_span(str(tmp_path / "*.csv")) == (date(2026, 3, 1), date(2026, 3, 5))


def test_files_without_a_row_have_no_span(write: Write) -> None:
    path = write(HEADER)
    with pytest.raises(ProviderError, match=r"GREENOPS_USAGE_PATH: .*usage\.csv: no rows"):
        usage_span(str(path))


FULL_HOUR = "allowed: a full hour with a zone, e.g. 2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2026-03-01T02:00,s,t,r,1,0", f"hour: found '2026-03-01T02:00', {FULL_HOUR}"),
        ("2026-03-01,s,t,r,1,0", f"hour: found '2026-03-01', {FULL_HOUR}"),
        ("noon,s,t,r,1,0", f"hour: found 'noon', {FULL_HOUR}"),
        (",s,t,r,1,0", f"hour: found '', {FULL_HOUR}"),
        ("2026-03-01T02:30Z,s,t,r,1,0", "hour: found '2026-03-01T02:30Z', allowed: the start of a full hour"),
        ("2026-03-01T02:00+05:30,s,t,r,1,0", "hour: found '2026-03-01T02:00+05:30', allowed: the start of a full hour"),
        ("2026-03-01T02:00Z,,t,r,1,0", "service: found '', allowed: a name"),
        ("2026-03-01T02:00Z,s,,r,1,0", "tenant: found '', allowed: a name"),
        ("2026-03-01T02:00Z,s,t,,1,0", "region: found '', allowed: a name"),
        ("2026-03-01T02:00Z,s,t,r,,0", "vcpu_hours: found '', allowed: a number >= 0"),
        ("2026-03-01T02:00Z,s,t,r,-1,0", "vcpu_hours: found '-1', allowed: a number >= 0"),
        ("2026-03-01T02:00Z,s,t,r,two,0", "vcpu_hours: found 'two', allowed: a number >= 0"),
        ("2026-03-01T02:00Z,s,t,r,nan,0", "vcpu_hours: found 'nan', allowed: a number >= 0"),
        ("2026-03-01T02:00Z,s,t,r,inf,0", "vcpu_hours: found 'inf', allowed: a number >= 0"),
        ("2026-03-01T02:00Z,s,t,r,1,1.5", "cpu_utilization: found '1.5', allowed: a number from 0 to 1"),
        ("2026-03-01T02:00Z,s,t,r,1,50%", "cpu_utilization: found '50%', allowed: a number from 0 to 1"),
    ],
)
def test_a_bad_line_is_named(write: Write, line: str, message: str) -> None:
    header = "hour,service,tenant,region,vcpu_hours,cpu_utilization\n"
    path = write(header + ROW + "1,\n" + line + f"\n{ROW}1,bad too\n")
    assert refusal(path) == f"usage.csv, line 3: {message}"


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "usage.csv", "usage.csv: the file is empty"),
        (
            "hour,service,tenant,region\n",
            "usage.csv",
            "usage.csv: columns: missing vcpu_hours; allowed: hour, service,",
        ),
        (HEADER.replace("\n", ",watts\n"), "usage.csv", "usage.csv: columns: unknown watts; allowed: hour, service,"),
        (HEADER + ROW + "1,2\n", "usage.csv", "usage.csv: cannot be read: CSV parse error: Expected 5 columns, got 6"),
        ("x", "usage.xlsx", "GREENOPS_USAGE_PATH: usage.xlsx: found .xlsx, allowed: .csv, .parquet"),
        ("x", "usage.parquet", "usage.parquet: cannot be read: "),
    ],
    ids=["empty", "missing column", "unknown column", "ragged", "another ending", "torn Parquet"],
)
def test_a_file_that_cannot_be_used_is_named(write: Write, text: str, name: str, message: str) -> None:
    assert refusal(write(text, name)).startswith(message)


def test_parquet_hours_without_a_zone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "usage.parquet"
    names = {"service": ["s"], "tenant": ["t"], "region": ["r"], "vcpu_hours": [1.0]}
    pq.write_table(pa.table({"hour": [datetime(2026, 3, 1)], **names}), path)  # noqa: DTZ001
    assert refusal(path) == "usage.parquet: column hour: found TIMESTAMP (no zone), allowed: a time with a zone"


def test_no_match_names_the_variable(tmp_path: Path) -> None:
    assert refusal(tmp_path / "*.csv") == f"GREENOPS_USAGE_PATH: no file matches '{tmp_path}/*.csv'"


def test_the_path_decides_between_sample_and_files(write: Write) -> None:
    source, rows = configured_usage("", TENANTS, at(0), at(1), NOW)
    assert (source, rows.num_rows) == ("sample", 10)
    source, rows = configured_usage(str(write(HEADER + ROW + "1\n")), TENANTS, at(0), at(1), NOW)
    assert (source, rows["source"].to_pylist()) == ("file", ["file"])
