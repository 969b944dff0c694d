"""Intensity from files: the reference data, the forms that are read, and every line that is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenops_pipelines.carbon.files import FileProvider
from greenops_pipelines.carbon.provider import FORECAST, POINTS
from greenops_pipelines.errors import ConfigurationError, ProviderError
from tests.carbon.small_lake import CARBON_DATA

LONG = "datetime,zone,carbon_intensity_g_per_kwh\n"
PORTAL = (
    "Datetime (UTC),Country,Zone Name,Zone Id,Carbon Intensity gCO₂eq/kWh (direct),"
    "Carbon Intensity gCO₂eq/kWh (LCA),Low Carbon Percentage,Renewable Percentage,Data Source,Data Estimated,"
    "Data Estimation Method\n"
)
JANUARY = datetime(2022, 1, 1, tzinfo=UTC)
ALWAYS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes, name: str = "ci.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def parquet(folder: Path, **columns: Any) -> Path:
    path = folder / "ci.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def points(path: Path | str, zone: str = "DE", factors: str = "lifecycle") -> list[tuple[str, float | None]]:
    """The rows of a zone with this emission factor type as (time, value)."""
    rows = FileProvider(str(path), factors).history(zone, *ALWAYS)
    rows = rows.filter(pc.equal(rows["emission_factor_type"], factors)).to_pylist()
    return [(f"{row['datetime']:%m-%dT%H:%M}", row["carbon_intensity_g_per_kwh"]) for row in rows]


def refusal(path: Path | str) -> str:
    with pytest.raises((ProviderError, ConfigurationError)) as error:
        FileProvider(str(path)).span()
    message = str(error.value)
    assert "\n" not in message
    return message


# The reference data


def reference(name: str) -> Path:
    path = CARBON_DATA / name
    if not path.exists():
        pytest.skip(f"no reference data beside the repository: {path.name}")
    return path


def test_a_year_of_ten_real_grids() -> None:
    provider = FileProvider(str(reference("ci_2022_hourly.parquet")))
    means = {zone: pc.mean(provider.history(zone, *ALWAYS)["carbon_intensity_g_per_kwh"]) for zone in provider.zones}
    assert len(means) == 10
    assert {provider.history(zone, *ALWAYS).num_rows for zone in means} == {8760}
    assert means["DE"].as_py() == pytest.approx(481.454210, abs=5e-7)
    assert means["US-MIDA-PJM"].as_py() == pytest.approx(425.341126, abs=5e-7)
    assert provider.span() == (JANUARY, datetime(2023, 1, 1, tzinfo=UTC))
    assert provider.history("DE", *ALWAYS).schema == POINTS


# Means and estimated rows taken from the files with Python's csv module.
@pytest.mark.parametrize(
    ("name", "zone", "direct", "lifecycle", "estimated"),
    [
        ("ES_2022_hourly.csv", "ES", 166.757334, 219.279729, 124),
        ("US-CAL-CISO_2022_hourly.csv", "US-CAL-CISO", 194.599178, 261.280868, 8),
    ],
)
def test_the_portals_files(name: str, zone: str, direct: float, lifecycle: float, estimated: int) -> None:
    rows = FileProvider(str(reference(name))).history(zone, *ALWAYS)
    assert rows.num_rows == 2 * 8760
    for kind, mean in (("direct", direct), ("lifecycle", lifecycle)):
        of_kind = rows.filter(pc.equal(rows["emission_factor_type"], kind))
        assert of_kind.num_rows == 8760
        assert pc.mean(of_kind["carbon_intensity_g_per_kwh"]).as_py() == pytest.approx(mean, abs=5e-7)
        assert pc.sum(of_kind["is_estimated"]).as_py() == estimated
    assert set(rows["resolution_minutes"].to_pylist()) == {60}


# What is read


def test_the_long_form(write: Write) -> None:
    path = write(LONG + "2022-01-01T01:00:00Z,DE,410.5\n2022-01-01T00:00:00Z,DE,400\n2022-01-01T00:00:00Z,FR,50\n")
    provider = FileProvider(str(path), "direct")
    assert provider.zones == {"DE", "FR"}
    assert provider.covers("FR")
    assert not provider.covers("ES")
    assert provider.history("DE", *ALWAYS).to_pylist() == [
        {
            "zone": "DE",
            "datetime": JANUARY + timedelta(hours=hour),
            "resolution_minutes": 60,
            "carbon_intensity_g_per_kwh": value,
            "signal": "average",
            "emission_factor_type": "direct",
            "is_flow_traced": None,
            "is_estimated": None,
            "estimation_method": None,
            "updated_at": None,
        }
        for hour, value in ((0, 400.0), (1, 410.5))
    ]


def test_the_portals_form_with_estimates(write: Write) -> None:
    path = write(
        PORTAL
        + "2022-01-01 00:00:00,Germany,Germany,DE,310.5,402.25,50,40,entsoe.eu,false,\n"
        + "2022-01-01 01:00:00,Germany,Germany,DE,,,50,40,entsoe.eu,true,TIME_SLICER_AVERAGE\n"
    )
    rows = FileProvider(str(path)).history("DE", *ALWAYS).to_pylist()
    shown = ("emission_factor_type", "carbon_intensity_g_per_kwh", "is_estimated", "estimation_method")
    assert [tuple(row[name] for name in shown) for row in rows] == [
        ("direct", 310.5, False, None),
        ("direct", None, True, "TIME_SLICER_AVERAGE"),
        ("lifecycle", 402.25, False, None),
        ("lifecycle", None, True, "TIME_SLICER_AVERAGE"),
    ]
    assert {row["datetime"] for row in rows} == {JANUARY, JANUARY + timedelta(hours=1)}


@pytest.mark.parametrize(
    "text",
    [
        (LONG + "2022-01-01T00:00:00Z,DE,5\n").replace("\n", "\r\n"),
        "\ufeff" + LONG + "2022-01-01T00:00:00Z,DE,5\n",
        '"datetime","zone","carbon_intensity_g_per_kwh"\n"2022-01-01T00:00:00Z","DE","5"\n',
        (LONG + "2022-01-01T00:00:00Z,DE,5\n").replace(",", ";"),
        LONG + "2022-01-01T00:00:00Z,DE,5",
        LONG + "\n2022-01-01T00:00:00Z,DE,5\n\n",
        "source,carbon_intensity_g_per_kwh,zone,datetime\nme,5,DE,2022-01-01T00:00:00Z\n",
        LONG + "2022-01-01T01:00:00+01:00,DE,5\n",
        LONG + "2021-12-31 18:30:00.000-05:30,DE,5\n",
        LONG + "2022-01-01 01:00+01,DE,5\n",
        LONG + "2022-01-01 01:00+0100,DE,5\n",
    ],
    ids=[
        "CRLF",
        "byte order mark",
        "quoted",
        "semicolons",
        "no last newline",
        "blank lines",
        "other order and columns",
        "offset",
        "offset of half an hour",
        "hours only",
        "no colon",
    ],
)
def test_forms_of_csv_that_mean_the_same(write: Write, text: str) -> None:
    assert points(write(text)) == [("01-01T00:00", 5.0)]


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC"), pa.timestamp("ms", "Europe/Berlin")], ids=str
)
def test_parquet_times_of_any_unit_and_zone(tmp_path: Path, kind: pa.DataType) -> None:
    """Nanoseconds are what pandas wrote until its version 3."""
    path = parquet(tmp_path, datetime=pa.array([JANUARY], kind), zone=["DE"], carbon_intensity_g_per_kwh=[5])
    assert points(path) == [("01-01T00:00", 5.0)]


def test_names_of_zones_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        datetime=pa.array([JANUARY], pa.timestamp("us", "UTC")),
        zone=pa.array([7]),
        carbon_intensity_g_per_kwh=[5.0],
    )
    assert points(path, "7") == [("01-01T00:00", 5.0)]


def test_gaps_stay_gaps(write: Write) -> None:
    path = write(
        LONG
        + "2022-01-01T00:00Z,DE,400\n2022-01-01T01:00Z,DE,410\n"
        + "2022-01-01T02:00Z,DE,\n"
        + "2022-01-01T05:00Z,DE,420\n"
    )
    expected = [("01-01T00:00", 400.0), ("01-01T01:00", 410.0), ("01-01T02:00", None), ("01-01T05:00", 420.0)]
    assert points(path) == expected
    assert FileProvider(str(path)).span() == (JANUARY, JANUARY + timedelta(hours=6))


@pytest.mark.parametrize("minutes", [5, 15, 30, 60])
def test_the_length_of_the_intervals_is_found_from_the_rows(write: Write, minutes: int) -> None:
    times = [JANUARY + timedelta(minutes=minutes) * n for n in (0, 1, 2, 7)]
    path = write(LONG + "".join(f"{time.isoformat()},DE,5\n" for time in times) + "2022-01-01T00:00Z,FR,5\n")
    provider = FileProvider(str(path))
    assert set(provider.history("DE", *ALWAYS)["resolution_minutes"].to_pylist()) == {minutes}
    # A single row does not say how long it lasts.
    assert provider.history("FR", *ALWAYS)["resolution_minutes"].to_pylist() == [60]


def test_equal_rows_count_once(write: Write) -> None:
    assert points(write(LONG + "2022-01-01T00:00Z,DE,5\n2022-01-01T01:00+01:00,DE,5.0\n")) == [("01-01T00:00", 5.0)]


def test_a_glob_reads_several_files_as_one(write: Write, tmp_path: Path) -> None:
    write(LONG + "2022-01-01T01:00Z,DE,2\n2022-01-01T02:00Z,DE,3\n", "b.csv")
    write(LONG + "2022-01-01T00:00Z,DE,1\n2022-01-01T01:00Z,DE,2\n", "a.csv")
    write("not read", "notes.txt")
    (tmp_path / "deeper").mkdir()
    write(LONG + "2022-01-01T00:00Z,FR,9\n", "deeper/c.csv")
    assert points(tmp_path / "*.csv") == [("01-01T00:00", 1.0), ("01-01T01:00", 2.0), ("01-01T02:00", 3.0)]
    assert FileProvider(str(tmp_path / "**" / "*.csv")).zones == {"DE", "FR"}


@given(low=st.integers(-2, 12), high=st.integers(-2, 12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_history_is_half_open(provider_of_ten_hours: FileProvider, low: int, high: int) -> None:
    rows = provider_of_ten_hours.history("DE", JANUARY + timedelta(hours=low), JANUARY + timedelta(hours=high))
    assert rows["carbon_intensity_g_per_kwh"].to_pylist() == [float(n) for n in range(10) if low <= n < high]


@pytest.fixture
def provider_of_ten_hours(write: Write) -> FileProvider:
    rows = [f"{(JANUARY + timedelta(hours=n)).isoformat()},DE,{n}\n" for n in range(10)]
    return FileProvider(str(write(LONG + "".join(rows))))


def test_a_file_has_no_forecast(write: Write) -> None:
    assert FileProvider(str(write(LONG + "2022-01-01T00:00Z,DE,5\n"))).forecast("DE").equals(FORECAST.empty_table())


# What is refused

TIME = "allowed: a time with a zone, e.g. 2022-01-01T00:00:00Z"
VALUE = "allowed: a number from 0 to 5000 g/kWh, or nothing"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2022-01-01T02:00:00,DE,5", f"datetime: found '2022-01-01T02:00:00', {TIME}"),
        ("2022-01-01,DE,5", f"datetime: found '2022-01-01', {TIME}"),
        ("2022-01-01T02:00 Berlin,DE,5", f"datetime: found '2022-01-01T02:00 Berlin', {TIME}"),
        ("2022-13-01T02:00Z,DE,5", f"datetime: found '2022-13-01T02:00Z', {TIME}"),
        ("01.01.2022 02:00Z,DE,5", f"datetime: found '01.01.2022 02:00Z', {TIME}"),
        (",DE,5", f"datetime: found '', {TIME}"),
        ("2022-01-01T02:00Z,,5", "zone: found '', allowed: a grid zone"),
        ("2022-01-01T02:00Z,DE,-0.1", f"carbon intensity: found '-0.1', {VALUE}"),
        ("2022-01-01T02:00Z,DE,5001", f"carbon intensity: found '5001', {VALUE}"),
        ("2022-01-01T02:00Z,DE,nan", f"carbon intensity: found 'nan', {VALUE}"),
        ("2022-01-01T02:00Z,DE,inf", f"carbon intensity: found 'inf', {VALUE}"),
        ("2022-01-01T02:00Z,DE,many", f"carbon intensity: found 'many', {VALUE}"),
        ('2022-01-01T02:00Z,DE,"400,5"', f"carbon intensity: found '400,5', {VALUE}"),
        ("2022-01-01T02:00Z,DE,null", f"carbon intensity: found 'null', {VALUE}"),
    ],
)
def test_a_bad_line_is_named(write: Write, line: str, message: str) -> None:
    path = write(f"{LONG}2022-01-01T00:00Z,DE,5\n2022-01-01T01:00Z,DE,0\n{line}\n2022-01-01T03:00Z,DE,bad too\n")
    assert refusal(path) == f"ci.csv, line 4: {message}"


def test_a_bad_row_of_parquet_is_counted_from_one(tmp_path: Path) -> None:
    times = pa.array([JANUARY, JANUARY + timedelta(hours=1)], pa.timestamp("us", "UTC"))
    path = parquet(tmp_path, datetime=times, zone=["DE", "DE"], carbon_intensity_g_per_kwh=[5.0, float("nan")])
    assert refusal(path) == f"ci.parquet, row 2: carbon intensity: found 'nan', {VALUE}"


def test_a_bad_line_of_the_portals_form_is_named(write: Write) -> None:
    path = write(PORTAL + "2022-01-01 00:00:00,Germany,Germany,DE,310.5,n/a,50,40,entsoe.eu,false,\n")
    assert refusal(path) == f"ci.csv, line 2: carbon intensity: found 'n/a', {VALUE}"
    path = write(PORTAL + "yesterday,Germany,Germany,DE,310.5,400,50,40,entsoe.eu,false,\n")
    assert refusal(path) == f"ci.csv, line 2: datetime: found 'yesterday', {TIME}"


def test_a_contradiction_is_named_within_and_across_files(write: Write, tmp_path: Path) -> None:
    path = write(LONG + "2022-01-01T00:00Z,DE,5\n2022-01-01T00:00Z,DE,6\n", "a.csv")
    assert refusal(path) == f"{path}: zone DE, 2022-01-01T00:00Z: found twice with 5.0 and 6.0 g/kWh"
    write(LONG + "2022-01-01T00:00Z,DE,5\n", "a.csv")
    write(LONG + "2022-01-01T00:00Z,DE,\n", "b.csv")
    assert refusal(tmp_path / "*.csv").endswith("zone DE, 2022-01-01T00:00Z: found twice with 5.0 and no value g/kWh")


def test_two_statements_about_one_value_differ_in_words_too(write: Write) -> None:
    row = "2022-01-01 00:00:00,Germany,Germany,DE,310.5,402.25,50,40,entsoe.eu,"
    message = refusal(write(PORTAL + row + "false,\n" + row + "true,\n"))
    assert message.endswith("zone DE, 2022-01-01T00:00Z: found twice with different estimation marks")


@pytest.mark.parametrize(
    ("times", "minutes"),
    [
        (["2022-01-01T00:00Z", "2022-01-02T00:00Z", "2022-01-03T00:00Z"], 1440),
        (["2022-01-01T00:30Z", "2022-01-01T01:30Z"], 60),
        (["2022-01-01T00:07Z", "2022-01-01T00:22Z"], 15),
        (["2022-01-01T00:00Z", "2022-01-01T00:10Z", "2022-01-01T00:20Z"], 10),
        (["2022-01-01T00:00:00Z", "2022-01-01T00:15:24Z"], 15),
    ],
    ids=["daily", "hours at half past", "quarters off the clock", "ten minutes", "a drifting clock"],
)
def test_times_off_the_grid_are_refused(write: Write, times: list[str], minutes: int) -> None:
    message = refusal(write(LONG + "".join(f"{time},DE,5\n" for time in times)))
    assert f"found steps of {minutes} minutes; allowed: intervals of 5, 15, 30, 60 minutes" in message
    assert "zone DE, 2022-01-01T00:" in message


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "ci.csv", "ci.csv: the file is empty"),
        (LONG, "ci.csv", "ci.csv: no rows"),
        (PORTAL, "ci.csv", "ci.csv: no rows"),
        (
            "time,zone,value\n2022-01-01T00:00Z,DE,5\n",
            "ci.csv",
            "ci.csv: found columns time, value, zone; allowed: carbon_intensity_g_per_kwh, datetime, zone, "
            "or the portal's form with 'Datetime (UTC)'",
        ),
        (
            "Datetime (UTC),Zone Id,Carbon Intensity gCO₂eq/kWh (direct)\n",
            "ci.csv",
            "ci.csv: not the portal's form: 'Zone Id' and the direct and LCA intensities are needed",
        ),
        ("datetime,zone,zone,carbon_intensity_g_per_kwh\n", "ci.csv", "found the column 'zone' twice, allowed: once"),
        (LONG + "2022-01-01T00:00Z,DE,5,6\n", "ci.csv", "Expected 3 columns, got 4: 2022-01-01T00:00Z,DE,5,6"),
        (LONG.encode() + b"2022-01-01T00:00Z,D\xdc,5\n", "ci.csv", "ci.csv: cannot be read: "),
        (bytes(range(256)) * 20, "ci.csv", "ci.csv: "),
        ("{}", "ci.json", "GREENOPS_CARBON_PATH: ci.json: found .json, allowed: .csv, .parquet"),
        ("{}", "intensity", "GREENOPS_CARBON_PATH: intensity: found no ending, allowed: .csv, .parquet"),
        (b"PAR1 and nothing more", "ci.parquet", "ci.parquet: cannot be read: "),
    ],
    ids=[
        "empty",
        "header only",
        "portal's header only",
        "other columns",
        "half a portal",
        "a column twice",
        "ragged",
        "Latin-1",
        "binary",
        "JSON",
        "no ending",
        "torn Parquet",
    ],
)
def test_a_file_that_cannot_be_used_is_named(write: Write, text: str | bytes, name: str, message: str) -> None:
    found = refusal(write(text, name))
    assert message in found
    assert found.isprintable()


def test_parquet_times_without_a_zone_are_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, datetime=[datetime(2022, 1, 1)], zone=["DE"], carbon_intensity_g_per_kwh=[5.0])  # noqa: DTZ001
    assert refusal(path) == "ci.parquet: column datetime: found TIMESTAMP (no zone), allowed: a time with a zone"


def test_no_path_and_no_match_name_the_variable(tmp_path: Path) -> None:
    assert refusal("") == "GREENOPS_CARBON_PATH: not set; the provider `file` needs a file or a glob"
    assert refusal(tmp_path / "*.csv") == f"GREENOPS_CARBON_PATH: no file matches '{tmp_path}/*.csv'"


def test_a_zone_that_is_not_in_the_file_is_refused_with_those_that_are(write: Write) -> None:
    provider = FileProvider(str(write(LONG + "2022-01-01T00:00Z,FR,5\n2022-01-01T00:00Z,DE,5\n")))
    with pytest.raises(ProviderError, match=r"file: zone ES: not in .*ci\.csv; there: DE, FR$"):
        provider.history("ES", *ALWAYS)
