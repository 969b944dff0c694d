"""Files that people hand in to placement: jobs, intensity, capacity, regions; what they become, and each refused line."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.carbon import factors
from greenops_pipelines.errors import BadInput, ConfigurationError, ProviderError
from greenops_pipelines.placement import files
from greenops_pipelines.placement.model import HOUR, MINUTE, Jobs
from tests.carbon.small_lake import CARBON_DATA, ROOT

JANUARY = datetime(2022, 1, 1, tzinfo=UTC)
START = int(JANUARY.timestamp()) * 1_000_000
LONG = "datetime,zone,carbon_intensity_g_per_kwh\n"
PORTAL = (
    "Datetime (UTC),Country,Zone Name,Zone Id,Carbon Intensity gCO₂eq/kWh (direct),"
    "Carbon Intensity gCO₂eq/kWh (LCA),Low Carbon Percentage,Renewable Percentage,Data Source,Data Estimated,"
    "Data Estimation Method\n"
)
JOBS = (
    "id,submitted_at,earliest_start,deadline,duration_minutes,power_kw,interruptible,width,home_zone,allowed_zones,"
    "data_gb\n"
)
GOOD = {
    "id": "a",
    "submitted_at": "2021-12-31T22:00Z",
    "earliest_start": "2022-01-01T01:36Z",
    "deadline": "2022-01-01T06:00Z",
    "duration_minutes": "90",
    "power_kw": "1.5",
    "interruptible": "true",
    "width": "4",
    "home_zone": "DE",
    "allowed_zones": "DE;FR",
    "data_gb": "12.5",
}
ZONES = ("DE", "FR", "SE")

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "file.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def line(**changes: str) -> str:
    return ",".join((GOOD | changes).values()) + "\n"


def long(rows: Sequence[tuple[str, str, object]]) -> str:
    """(time of 2022-01-01, zone, value)"""
    return LONG + "".join(f"2022-01-01T{time}Z,{zone},{value}\n" for time, zone, value in rows)


def refused(read: Callable[[], Any]) -> str:
    # The command makes one thing of the three: `_handed_in`.
    with pytest.raises((BadInput, ProviderError, ConfigurationError)) as error:
        read()
    return str(error.value)


def minutes(times: np.ndarray) -> list[float]:
    """Since the beginning of 2022."""
    return [(int(time) - START) / MINUTE for time in times]


# Intensity


def test_the_long_form_has_a_zone_per_place_and_a_gap_where_there_is_no_value(write: Write) -> None:
    rows = [
        ("00:00", "FR", 50),
        ("02:00", "FR", 70),
        ("03:00", "FR", 80),
        ("00:00", "DE", 400),
        ("01:00", "DE", ""),
        ("03:00", "DE", 300),
    ]
    found = files.intensity(str(write(long(rows))), None)
    assert (found.zones, found.start, found.step) == (("DE", "FR"), START, HOUR)
    # 02:00 of DE and 01:00 of FR stand nowhere; 01:00 of DE stands there without a value.
    np.testing.assert_array_equal(found.values, [[400, np.nan, np.nan, 300], [50, np.nan, 70, 80]])


def test_the_portals_form_counts_life_cycle_unless_told(write: Write) -> None:
    rows = "2022-01-01 00:00:00,Spain,Spain,ES,133.64,175.54,76.35,42.94,entsoe.eu,false,\n"
    path = str(write(PORTAL + rows + rows.replace("00:00:00", "01:00:00").replace("133.64,175.54", "139.1,181.54")))
    assert files.intensity(path, None).values.tolist() == [[175.54, 181.54]]
    assert files.intensity(path, None, "direct").values.tolist() == [[133.64, 139.1]]
    assert files.intensity(path, None).zones == ("ES",)


def test_a_year_from_the_portal() -> None:
    path = CARBON_DATA / "ES_2022_hourly.csv"
    if not path.exists():
        pytest.skip(f"no reference data beside the repository: {path.name}")
    found = files.intensity(str(path), None)
    assert found.values.shape == (1, 8760)
    assert found.values[0, :2].tolist() == [175.54, 181.54]
    assert files.intensity(str(path), None, "direct").values[0, :2].tolist() == [133.64, 139.1]


def test_an_hour_fills_two_half_hours(write: Write) -> None:
    found = files.intensity(str(write(long([("00:00", "DE", 400), ("01:00", "DE", ""), ("02:00", "DE", 300)]))), 30)
    assert found.step == 30 * MINUTE
    np.testing.assert_array_equal(found.values, [[400, 400, np.nan, np.nan, 300, 300]])


def test_two_half_hours_are_their_mean_or_a_gap(write: Write) -> None:
    values = [("00:00", 400), ("00:30", 300), ("01:00", 100), ("01:30", ""), ("02:00", 10), ("02:30", 20)]
    path = str(write(long([(time, "DE", value) for time, value in values])))
    np.testing.assert_array_equal(files.intensity(path, 60).values, [[350, np.nan, 15]])
    found = files.intensity(path, None)  # the file's own step
    assert found.step == 30 * MINUTE
    np.testing.assert_array_equal(found.values, [[400, 300, 100, np.nan, 10, 20]])


def test_half_hours_that_begin_at_half_past_leave_half_an_hour_unknown(write: Write) -> None:
    path = str(write(long([("00:30", "DE", 1), ("01:00", "DE", 2), ("01:30", "DE", 4)])))
    found = files.intensity(path, 60)
    assert found.start == START
    np.testing.assert_array_equal(found.values, [[np.nan, 3]])


def test_a_glob_is_all_of_its_files(write: Write, tmp_path: Path) -> None:
    write(long([("00:00", "DE", 1), ("01:00", "DE", 2)]), "ci_de.csv")
    write(long([("00:00", "FR", 3), ("01:00", "FR", 4)]), "ci_fr.csv")
    found = files.intensity(str(tmp_path / "ci_*.csv"), None)
    assert (found.zones, found.values.tolist()) == (("DE", "FR"), [[1, 2], [3, 4]])


def test_intensity_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "ci.parquet"
    times = pa.array([JANUARY, JANUARY + timedelta(hours=1)], pa.timestamp("us", "UTC"))
    pq.write_table(
        pa.table({"datetime": times, "zone": ["DE", "DE"], "carbon_intensity_g_per_kwh": [400.0, None]}), path
    )
    np.testing.assert_array_equal(files.intensity(str(path), 30).values, [[400, 400, np.nan, np.nan]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            LONG + "2022-01-01T00:00,DE,400\n",
            "--intensity: file.csv, line 2: datetime: found '2022-01-01T00:00', "
            "allowed: a time with a zone, e.g. 2022-01-01T00:00:00Z",
        ),
        (
            LONG + "2022-01-01T00:00Z,DE,400\n2022-01-01T01:00Z,DE,-1\n",
            "--intensity: file.csv, line 3: carbon intensity: found '-1', "
            "allowed: a number from 0 to 5000 g/kWh, or nothing",
        ),
        (
            "datetime,zone\n2022-01-01T00:00Z,DE\n",
            "--intensity: file.csv: found columns datetime, zone; allowed: carbon_intensity_g_per_kwh, datetime, zone, "
            "or the portal's form with 'Datetime (UTC)'",
        ),
        ("", "--intensity: file.csv: the file is empty"),
        (
            LONG + "2022-01-01T00:00Z,DE,1\n2034-01-01T00:00Z,DE,1\n",
            "--intensity: {path}: zone DE, 2022-01-01T00:00:00Z: found steps of",
        ),
    ],
)
def test_intensity_that_does_not_fit(write: Write, text: str, expected: str) -> None:
    path = write(text)
    assert refused(lambda: files.intensity(str(path), None)).startswith(expected.format(path=path))


def test_intensity_that_is_not_there(tmp_path: Path) -> None:
    path = str(tmp_path / "none.csv")
    assert refused(lambda: files.intensity(path, None)) == f"--intensity: no file matches {path!r}"


def test_more_than_ten_years_are_refused(write: Write) -> None:
    text = LONG + "2022-01-01T00:00Z,DE,1\n2022-01-01T01:00Z,DE,1\n2034-01-01T00:00Z,DE,1\n"
    assert refused(lambda: files.intensity(str(write(text)), None)) == ("--intensity: found 4,383 days, allowed: 3,660")


# Jobs


def read(path: Path) -> Jobs:
    found, notes = files.jobs(path, ZONES)
    assert notes == []
    return found


def test_a_job_with_all_columns(write: Write) -> None:
    job = read(write(JOBS + line()))
    assert job.ids == ("a",)
    assert [minutes(column) for column in (job.submitted, job.earliest, job.deadline)] == [[-120], [96], [360]]
    assert (job.duration / MINUTE).tolist() == [90]
    assert job.power_kw.tolist() == [6.0]  # four machines of 1.5 kW
    assert job.energy_kwh.tolist() == [9.0]
    assert (job.interruptible.tolist(), job.data_gb.tolist()) == ([True], [12.5])
    assert (job.home.tolist(), job.allowed.tolist()) == ([0], [[True, True, False]])


def test_what_may_be_left_out(write: Write) -> None:
    """Submitted at its earliest start, contiguous, one machine, at home alone, without data."""
    text = "home_zone,id,power_kw,duration_minutes,deadline,earliest_start\n"
    text += "FR,a,2,0.5,2022-01-01T06:00Z,2022-01-01T01:30Z\n"
    job = read(write(text))
    assert (minutes(job.submitted), minutes(job.earliest)) == ([90], [90])
    assert (job.duration / MINUTE).tolist() == [0.5]
    assert (job.interruptible.tolist(), job.power_kw.tolist(), job.data_gb.tolist()) == ([False], [2.0], [0.0])
    assert (job.home.tolist(), job.allowed.tolist()) == ([1], [[False, True, False]])


def test_empty_cells_are_as_columns_left_out(write: Write) -> None:
    job = read(write(JOBS + line(interruptible="", width="", allowed_zones="", data_gb="")))
    assert (job.interruptible.tolist(), job.power_kw.tolist(), job.data_gb.tolist()) == ([False], [1.5], [0.0])
    assert job.allowed.tolist() == [[True, False, False]]


def test_times_in_any_zone_are_one_time(write: Write) -> None:
    there = {"earliest_start": "2022-01-01T03:06+01:30", "deadline": "2021-12-31 22:00:00-08", "submitted_at": "2021-12-31T22:00:00.000Z"}  # fmt: skip
    here, job = read(write(JOBS + line())), read(write(JOBS + line(**there)))
    for column in ("submitted", "earliest", "deadline"):
        assert getattr(here, column).tolist() == getattr(job, column).tolist()


def test_a_file_with_tabs_or_semicolons_and_lists_of_zones(write: Write) -> None:
    job = read(write((JOBS + line(allowed_zones=" SE ; DE;")).replace(",", "\t")))
    assert job.allowed.tolist() == [[True, False, True]]


def test_jobs_from_parquet_are_those_of_the_csv(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "jobs.parquet"
    zone = pa.timestamp("ms", "Europe/Berlin")
    columns = {
        "id": pa.array([7, 8]),
        "submitted_at": pa.array([JANUARY - timedelta(hours=2)] * 2, zone),
        "earliest_start": pa.array([JANUARY + timedelta(minutes=96)] * 2, zone),
        "deadline": pa.array([JANUARY + timedelta(hours=6)] * 2, zone),
        "duration_minutes": pa.array([90, 45], pa.int16()),
        "power_kw": pa.array([1.5, 2.0], pa.float32()),
        "interruptible": pa.array([True, None]),
        "width": pa.array([4, 1]),
        "home_zone": ["DE", "DE"],
        "allowed_zones": pa.array(["DE;FR", None]),
        "data_gb": [12.5, 0.0],
    }
    pq.write_table(pa.table(columns), path)
    second = {"id": "8", "duration_minutes": "45", "power_kw": "2", "interruptible": "false", "width": "1", "data_gb": "0"}  # fmt: skip
    job = read(path)
    same = read(write(JOBS + line(id="7") + line(**second, allowed_zones="DE")))
    assert job.ids == same.ids == ("7", "8")
    for name in ("submitted", "earliest", "deadline", "duration", "power_kw", "interruptible", "home", "allowed"):
        assert getattr(job, name).tolist() == getattr(same, name).tolist(), name


def test_parquet_times_without_a_zone_are_anyones(tmp_path: Path) -> None:
    path = tmp_path / "jobs.parquet"
    time = pa.array([datetime(2022, 1, 1)], pa.timestamp("us"))  # noqa: DTZ001
    rest = {"id": ["a"], "duration_minutes": [60], "power_kw": [1.0], "home_zone": ["DE"]}
    pq.write_table(pa.table({"earliest_start": time, "deadline": time} | rest), path)
    assert refused(lambda: files.jobs(path, ZONES)) == (
        "jobs.parquet: column earliest_start: found TIMESTAMP (no zone), allowed: a time with a zone"
    )


def test_a_fault_in_parquet_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "jobs.parquet"
    start = pa.array([JANUARY] * 2, pa.timestamp("us", "UTC"))
    end = pa.array([JANUARY + timedelta(hours=3)] * 2, pa.timestamp("us", "UTC"))
    rest = {"id": ["a", "b"], "duration_minutes": [60, 60], "power_kw": [1.0, -2.5], "home_zone": ["DE", "DE"]}
    pq.write_table(pa.table({"earliest_start": start, "deadline": end} | rest), path)
    assert refused(lambda: files.jobs(path, ZONES)) == (
        "jobs.parquet, row 2: power_kw: found -2.5, allowed: a number > 0"
    )


WITH_ZONE = "a time with its zone, e.g. 2022-01-01T00:00Z"
REFUSED = [
    ("deadline", "2022-01-01T01:36Z", "a time after earliest_start"),
    ("deadline", "2022-01-01T01:00Z", "a time after earliest_start"),
    ("earliest_start", "2022-01-01T01:36", WITH_ZONE),
    ("earliest_start", "2022-01-01", WITH_ZONE),
    ("submitted_at", "yesterday", WITH_ZONE),
    ("submitted_at", "", WITH_ZONE),
    ("earliest_start", "2022-02-30T00:00Z", WITH_ZONE),
    ("duration_minutes", "265", "at most the time from earliest_start (and submitted_at) to deadline"),
    ("duration_minutes", "0", "a number > 0"),
    ("duration_minutes", "-5", "a number > 0"),
    ("duration_minutes", "nan", "a number > 0"),
    ("duration_minutes", "1h", "a number > 0"),
    ("duration_minutes", "", "a number > 0"),
    ("power_kw", "-1.5", "a number > 0"),
    ("power_kw", "0", "a number > 0"),
    ("power_kw", "inf", "a number > 0"),
    ("width", "0", "a whole number >= 1"),
    ("width", "1.5", "a whole number >= 1"),
    ("data_gb", "-1", "a number >= 0"),
    ("data_gb", "much", "a number >= 0"),
    ("interruptible", "perhaps", "true or false"),
    ("home_zone", "XX", "a zone of the intensity file: DE, FR, SE"),
    ("home_zone", "", "a zone of the intensity file: DE, FR, SE"),
    ("allowed_zones", "XX;YY", "at least one of: DE, FR, SE"),
    ("id", "", "a name"),
]


@pytest.mark.parametrize(("column", "found", "allowed"), REFUSED)
def test_each_fault_is_one_line_with_line_field_found_and_allowed(
    write: Write, column: str, found: str, allowed: str
) -> None:
    path = write(JOBS + line(id="first") + line(**{column: found}), "jobs.csv")
    assert refused(lambda: files.jobs(path, ZONES)) == (
        f"jobs.csv, line 3: {column}: found {found or 'nothing'}, allowed: {allowed}"
    )


@pytest.mark.parametrize("found", ["2022-01-01T06:00", "", "2022-01-01", "soon"])
def test_an_unreadable_deadline_is_one_fault(write: Write, found: str) -> None:
    path = write(JOBS + line(deadline=found), "jobs.csv")
    assert refused(lambda: files.jobs(path, ZONES)) == (
        f"jobs.csv, line 2: deadline: found {found or 'nothing'}, allowed: {WITH_ZONE}"
    )


def test_an_empty_line_counts_as_a_line(write: Write) -> None:
    path = write(JOBS + "\n" + line(power_kw="-1"), "jobs.csv")
    assert refused(lambda: files.jobs(path, ZONES)).startswith("jobs.csv, line 3: power_kw: found -1")


def test_a_run_as_long_as_its_window_fits(write: Write) -> None:
    assert (read(write(JOBS + line(duration_minutes="264"))).duration / MINUTE).tolist() == [264]


def test_a_window_begins_when_the_job_is_submitted(write: Write) -> None:
    late = {"submitted_at": "2022-01-01T05:00Z"}
    found, notes = files.jobs(write(JOBS + line(duration_minutes="60", **late), "jobs.csv"), ZONES)
    assert minutes(found.release) == [300]
    assert notes == ["jobs.csv: 1 jobs were submitted after their earliest start: only the baseline starts before"]
    path = write(JOBS + line(duration_minutes="61", **late), "jobs.csv")
    assert "line 2: duration_minutes: found 61, allowed: at most" in refused(lambda: files.jobs(path, ZONES))


def test_faults_come_in_the_order_of_lines_and_twenty_at_most(write: Write) -> None:
    path = write(JOBS + "".join(line(id=f"j{n}", power_kw="-1", width="0" if n == 1 else "1") for n in range(30)))
    said = refused(lambda: files.jobs(path, ZONES)).splitlines()
    assert [text.split(":")[0] for text in said[:4]] == [f"file.csv, line {n}" for n in (2, 3, 3, 4)]
    assert (len(said), said[-1]) == (21, "... and 11 more")


def test_the_same_job_twice_is_taken_once(write: Write) -> None:
    # In Berlin's time and with another zero it is the same job still.
    again = line(earliest_start="2022-01-01T02:36+01:00", power_kw="1.50")
    found, notes = files.jobs(write(JOBS + line(id="z") + line() + again + line(id="b"), "jobs.csv"), ZONES)
    assert found.ids == ("z", "a", "b")
    assert found.power_kw.tolist() == [6.0] * 3
    assert notes == ["jobs.csv: 1 jobs stand there a second time with the same content: taken once"]


@pytest.mark.parametrize(
    ("column", "value"), [("power_kw", "2"), ("deadline", "2022-01-01T07:00Z"), ("allowed_zones", "DE"), ("width", "5")]
)
def test_another_job_under_an_id_that_is_taken(write: Write, column: str, value: str) -> None:
    path = write(JOBS + line() + line(id="b") + line(**{column: value}), "jobs.csv")
    assert refused(lambda: files.jobs(path, ZONES)) == (
        "jobs.csv, line 4: id: found a, allowed: each id once, or again with the same content"
    )


def test_nothing_is_placed_in_an_allowed_zone_without_data(write: Write) -> None:
    found, notes = files.jobs(write(JOBS + line(allowed_zones="XX;FR"), "jobs.csv"), ZONES)
    assert found.allowed.tolist() == [[False, True, False]]
    assert notes == [
        "jobs.csv: allowed_zones: XX: no intensity, so nothing is placed there",
        "jobs.csv: 1 jobs may not run at home: only the baseline does, which counts as a violation",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "jobs.csv: the file is empty"),
        (JOBS, "jobs.csv: found no jobs, allowed: at least one"),
        (
            "id,earliest_start,deadline,home_zone\na,2022-01-01T00:00Z,2022-01-01T01:00Z,DE\n",
            "jobs.csv: found no column duration_minutes, power_kw; allowed: id, submitted_at, earliest_start, deadline, "
            "duration_minutes, power_kw, interruptible, width, home_zone, allowed_zones, data_gb, "
            "of which allowed_zones, data_gb, interruptible, submitted_at, width may be left out",
        ),
        (JOBS.replace("width", "id") + line(), "jobs.csv: found the column 'id' twice, allowed: once"),
    ],
)
def test_a_jobs_file_that_does_not_fit(write: Write, text: str, expected: str) -> None:
    path = write(text, "jobs.csv")
    assert refused(lambda: files.jobs(path, ZONES)) == expected


def test_jobs_that_are_not_there(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    assert refused(lambda: files.jobs(path, ZONES)) == f"--jobs: {path}: no such file"
    path = write("{}", "jobs.json")
    assert refused(lambda: files.jobs(path, ZONES)) == "--jobs: jobs.json: found .json, allowed: .csv, .parquet"


@given(
    st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(1, 500), st.integers(0, 1000), st.sampled_from(ZONES)),
        min_size=1,
        max_size=15,
    )
)
@settings(max_examples=40)
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    def text(after: int) -> str:
        return f"{JANUARY + timedelta(minutes=after):%Y-%m-%dT%H:%MZ}"

    path = tmp_path_factory.mktemp("jobs") / "jobs.csv"
    lines = [
        line(
            id=f"j{number}",
            submitted_at=text(start),
            earliest_start=text(start),
            deadline=text(start + length + slack),
            duration_minutes=str(length),
            home_zone=home,
            allowed_zones="",
        )
        for number, (start, length, slack, home) in enumerate(rows)
    ]
    path.write_text(JOBS + "".join(lines))
    found = read(path)
    assert minutes(found.earliest) == [start for start, *_ in rows]
    assert minutes(found.deadline) == [start + length + slack for start, length, slack, _ in rows]
    assert (found.duration / MINUTE).tolist() == [length for _, length, *_ in rows]
    assert [ZONES[home] for home in found.home] == [home for *_, home in rows]
    assert (found.allowed.sum(axis=1) == 1).all()


# Capacity


def series(zones: Sequence[str] = ("DE", "FR"), slots: int = 4, step: int = HOUR) -> files.Series:
    return files.Series(tuple(zones), START, step, np.full((len(zones), slots), 100.0))


def test_without_a_capacity_file_there_is_no_limit() -> None:
    limits, notes = files.capacity(None, series())
    assert (limits.tolist(), notes) == ([[math.inf] * 4] * 2, [])


def test_one_capacity_for_all_time_and_zones_without_an_entry(write: Write) -> None:
    limits, notes = files.capacity(write("zone,capacity_kw\nDE,2.5\nXX,1\n", "capacity.csv"), series())
    assert limits.tolist() == [[2.5] * 4, [math.inf] * 4]
    assert notes == ["capacity.csv: XX: no such zone in the intensity file"]


def test_a_capacity_file_without_rows_limits_nothing(write: Write) -> None:
    assert np.isinf(files.capacity(write("zone,capacity_kw\n"), series())[0]).all()


def test_a_row_of_capacity_holds_until_the_zones_next(write: Write) -> None:
    text = "zone,datetime,capacity_kw\nDE,2022-01-01T03:00Z,0\nFR,2022-01-01T02:00Z,7\nDE,2022-01-01T01:00Z,5\n"
    limits, _ = files.capacity(write(text), series(slots=5))
    # In whatever order; before a zone's first row there is no limit.
    assert limits.tolist() == [[math.inf, 5, 5, 0, 0], [math.inf, math.inf, 7, 7, 7]]
    # What began before the record still holds; in half hours, each hour is two.
    text = "zone;datetime;capacity_kw\nDE;2021-12-31T12:00Z;5\nDE;2022-01-01T02:00+01:00;6\n"
    assert files.capacity(write(text), series(["DE"], step=HOUR // 2))[0].tolist() == [[5, 5, 6, 6]]


def test_a_limit_inside_a_slot_holds_for_the_slot(write: Write) -> None:
    """From 00:30 to 01:00 there is no room: an hour's slot may not promise any."""
    text = "zone,datetime,capacity_kw\nDE,2022-01-01T00:00Z,9\nDE,2022-01-01T00:30Z,0\nDE,2022-01-01T01:00Z,9\n"
    assert files.capacity(write(text), series(["DE"]))[0].tolist() == [[0, 9, 9, 9]]


def test_capacity_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "capacity.parquet"
    times = pa.array([JANUARY, JANUARY + timedelta(hours=2)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"zone": ["DE", "DE"], "datetime": times, "capacity_kw": [3, 4]}), path)
    assert files.capacity(path, series(["DE"]))[0].tolist() == [[3, 3, 4, 4]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "zone,capacity_kw\nDE,1\nFR,-1\n",
            "capacity.csv, line 3: capacity_kw: found -1, allowed: a number >= 0",
        ),
        ("zone,capacity_kw\nDE,\n", "capacity.csv, line 2: capacity_kw: found nothing, allowed: a number >= 0"),
        ("zone,capacity_kw\nDE,lots\n", "capacity.csv, line 2: capacity_kw: found lots, allowed: a number >= 0"),
        ("zone,capacity_kw\nDE,1\nFR,1\nDE,2\n", "capacity.csv, line 4: zone: found DE, allowed: each zone once"),
        (
            "zone,datetime,capacity_kw\nDE,2022-01-01T00:00Z,1\nDE,2022-01-01T01:00+01:00,2\n",
            "capacity.csv, line 3: zone: found DE, allowed: each zone once per datetime",
        ),
        (
            "zone,datetime,capacity_kw\nDE,2022-01-01T00:00,1\n",
            f"capacity.csv, line 2: datetime: found 2022-01-01T00:00, allowed: {WITH_ZONE}",
        ),
        (
            "zone,kw\nDE,1\n",
            "capacity.csv: found columns kw, zone; allowed: zone, capacity_kw, or zone, datetime, capacity_kw",
        ),
        ("", "capacity.csv: the file is empty"),
    ],
)
def test_capacity_that_does_not_fit(write: Write, text: str, expected: str) -> None:
    path = write(text, "capacity.csv")
    assert refused(lambda: files.capacity(path, series())) == expected


def test_capacity_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    assert refused(lambda: files.capacity(path, series())) == f"--capacity: {path}: no such file"


# Regions


def test_without_regions_nothing_is_added() -> None:
    grid = files.grid(series(), np.full((2, 4), np.inf), files.regions(None))
    assert grid.pue.tolist() == [1.0, 1.0]
    assert (grid.network_kwh_per_gb, grid.embodied_g_per_kwh, grid.price_per_kwh) == (0.0, 0.0, None)
    assert (grid.places, grid.start, grid.step, grid.slots) == (("DE", "FR"), START, HOUR, 4)


def test_the_projects_own_regions_count_with_the_projects_factors() -> None:
    found = files.regions(ROOT / "ops" / "regions.yaml")
    assert (found.by_zone["DE"].pue, found.by_zone["SE-SE3"].pue) == (1.35, 1.10)
    known = factors.values(factors.read_factors())
    assert found.network_kwh_per_gb == known["network_kwh_per_gb"] > 0
    assert found.embodied_g_per_kwh == factors.embodied_g_per_kwh(known) > 0
    grid = files.grid(series(["DE", "XX"]), np.full((2, 4), np.inf), found)
    assert grid.pue.tolist() == [1.35, 1.0]


def test_prices_in_yaml_and_two_regions_in_one_zone(write: Write) -> None:
    entry = "  - {{region: {}, zone: DE, pue: {}, pue_source: x, residency: eu, price_per_kwh: {}, primary: true}}\n"
    path = write(
        "regions:\n" + entry.format("eu-central-1", 1.35, 0.31) + entry.format("eu-central-9", 1.5, 0.4), "r.yaml"
    )
    assert files.regions(path).by_zone == {"DE": files.Region("DE", 1.35, 0.31)}  # the first stands for both


def test_regions_from_csv(write: Write) -> None:
    text = "zone,pue,price_per_kwh,network_kwh_per_gb,embodied_g_per_kwh\nDE,1.35,0.3,0.002,40\nFR,1.15,0.2,0.002,40\n"
    grid = files.grid(series(), np.full((2, 4), np.inf), files.regions(write(text)))
    assert grid.price_per_kwh is not None
    assert (grid.pue.tolist(), grid.price_per_kwh.tolist()) == ([1.35, 1.15], [0.3, 0.2])
    assert (grid.network_kwh_per_gb, grid.embodied_g_per_kwh) == (0.002, 40)


def test_a_zone_without_a_price_leaves_no_prices(write: Write) -> None:
    grid = files.grid(series(), np.full((2, 4), np.inf), files.regions(write("zone,pue,price_per_kwh\nFR,1.15,0.2\n")))
    assert (grid.pue.tolist(), grid.price_per_kwh) == ([1.0, 1.15], None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zone,pue\nDE,0.9\n", "regions.csv, line 2: pue: found 0.9, allowed: a number >= 1"),
        ("zone,pue\nDE,1\nFR,\n", "regions.csv, line 3: pue: found nothing, allowed: a number >= 1"),
        (
            "zone,pue,price_per_kwh\nDE,1,-0.1\n",
            "regions.csv, line 2: price_per_kwh: found -0.1, allowed: a number >= 0",
        ),
        (
            "zone,pue,network_kwh_per_gb\nDE,1,x\n",
            "regions.csv, line 2: network_kwh_per_gb: found x, allowed: a number >= 0",
        ),
        ("zone,pue\nDE,1\nDE,1.2\n", "regions.csv, line 3: zone: found DE a second time, allowed: once"),
        ("zone\nDE\n", "regions.csv: found columns zone; allowed: zone, pue[, price_per_kwh]"),
    ],
)
def test_regions_that_do_not_fit(write: Write, text: str, expected: str) -> None:
    path = write(text, "regions.csv")
    assert refused(lambda: files.regions(path)) == expected


def test_one_network_factor_for_all_or_none(write: Write) -> None:
    path = write("zone,pue,network_kwh_per_gb\nDE,1,0.1\nFR,1,0.2\n", "regions.csv")
    assert refused(lambda: files.regions(path)).startswith("regions.csv, line 3: network_kwh_per_gb: found 0.2")


def test_regions_that_are_not_there_or_not_yaml_of_that_form(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert refused(lambda: files.regions(path)) == f"--regions: {path}: no such file"
    path = write("regions: []\n", "regions.yaml")
    assert "regions" in refused(lambda: files.regions(path))
