"""Ingestion: what is appended, what is kept, what is recorded, and what is raised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from greenops_pipelines.carbon.files import FileProvider
from greenops_pipelines.carbon.ingest import Ingested, ingest_forecast, ingest_history
from greenops_pipelines.carbon.provider import FORECAST, POINTS, Provider
from greenops_pipelines.errors import GreenopsError, PermanentError, ProviderError, TransientError
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.tables import CARBON_FORECAST, CARBON_INTENSITY
from tests.carbon.small_lake import at, empty_lake

START, END = at(0), at(0, day=2)
NOON = at(12, day=2)
"""When the first fetch is made; later ones are hours after."""

Values = Mapping[int, float | None]


@dataclass
class Grid:
    """A source that holds what it is told: values by hour of 2026-03-01, or an error, per zone."""

    name: str = "uk-neso"
    signal: str = "average"
    emission_factor_type: str = "lifecycle"
    zones: dict[str, Values | GreenopsError] = field(default_factory=dict)
    answers_for: str = ""
    issued_at: datetime = START
    is_estimated: bool | None = None
    resolution_minutes: int = 60

    def covers(self, zone: str) -> bool:
        return zone in self.zones

    def span(self) -> None:
        return None

    def history(self, zone: str, start: datetime, end: datetime) -> pa.Table:
        rows = [
            self._row(zone, at(hour), value) | {"is_estimated": self.is_estimated}
            for hour, value in self._values(zone).items()
            if start <= at(hour) < end
        ]
        return pa.Table.from_pylist(rows, schema=POINTS)

    def forecast(self, zone: str) -> pa.Table:
        values = self._values(zone).items()
        rows = [self._row(zone, at(hour), value) | {"issued_at": self.issued_at} for hour, value in values]
        return pa.Table.from_pylist(rows, schema=FORECAST)

    def _values(self, zone: str) -> Values:
        held = self.zones[zone]
        if isinstance(held, GreenopsError):
            raise held
        return held

    def _row(self, zone: str, time: datetime, value: float | None) -> dict[str, Any]:
        return {
            "zone": self.answers_for or zone,
            "datetime": time,
            "resolution_minutes": self.resolution_minutes,
            "carbon_intensity_g_per_kwh": value,
            "signal": self.signal,
            "emission_factor_type": self.emission_factor_type,
        }


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return empty_lake(tmp_path, "uk-neso")


def ingest(lake: Lake, source: Provider, zones: Iterable[str] = ("GB",), hours_later: int = 0) -> Ingested:
    return ingest_history(source, lake, zones, START, END, "run-1", NOON + timedelta(hours=hours_later))


def seen(lake: Lake, view: str = "carbon_intensity", zone: str = "GB") -> dict[int, float | None]:
    """Value by hour."""
    sql = f"select hour(datetime) as hour, carbon_intensity_g_per_kwh as g from {view} where zone = ? order by 1"
    return {row["hour"]: row["g"] for row in lake.query(sql, [zone]).to_pylist()}


def counted(done: Ingested) -> list[tuple[str, int, int, int, int]]:
    return [(z.outcome, z.intervals, z.new_rows, z.revised_rows, z.null_rows) for z in done.zones]


def fetches(lake: Lake) -> list[dict[str, Any]]:
    return lake.query("from carbon_fetches order by observed_at, zone").to_pylist()


def test_new_values_are_stored_with_provider_time_and_day(lake: Lake) -> None:
    done = ingest(lake, Grid(zones={"GB": {0: 200.0, 1: 210.5}}))
    assert counted(done) == [("complete", 2, 2, 0, 0)]
    rows = lake.query("from carbon_intensity order by datetime").to_pylist()
    assert [(row["datetime"], row["carbon_intensity_g_per_kwh"]) for row in rows] == [(at(0), 200.0), (at(1), 210.5)]
    assert {(row["provider"], row["observed_at"], row["day"]) for row in rows} == {("uk-neso", NOON, START.date())}
    (path,) = done.written.paths
    assert path.startswith("bronze/carbon_intensity/provider=uk-neso/day=2026-03-01/20260302T120000")


def test_a_fetch_is_recorded_with_what_was_asked_and_what_came(lake: Lake) -> None:
    ingest(lake, Grid(zones={"GB": {0: 200.0, 1: None}}))
    assert fetches(lake) == [
        {
            "provider": "uk-neso",
            "kind": "history",
            "zone": "GB",
            "requested_from": START,
            "requested_to": END,
            "outcome": "gaps",
            "intervals": 1,
            "new_rows": 2,
            "revised_rows": 0,
            "null_rows": 1,
            "error": None,
            "observed_at": NOON,
            "day": NOON.date(),
        }
    ]


def test_what_is_known_already_is_not_stored_again(lake: Lake) -> None:
    source = Grid(zones={"GB": {0: 200.0, 1: None}})
    ingest(lake, source)
    files = lake.files(CARBON_INTENSITY)
    again = ingest(lake, source, hours_later=1)
    assert counted(again) == [("gaps", 1, 0, 0, 1)]
    assert again.written.paths == ()
    assert lake.files(CARBON_INTENSITY) == files
    assert [row["observed_at"] for row in fetches(lake)] == [NOON, NOON + timedelta(hours=1)]


def test_a_revision_is_added_and_the_former_value_stays_in_the_history(lake: Lake) -> None:
    ingest(lake, Grid(zones={"GB": {0: 200.0, 1: 210.0}}))
    done = ingest(lake, Grid(zones={"GB": {0: 200.0, 1: 215.0, 2: 220.0}}), hours_later=3)
    assert counted(done) == [("complete", 3, 1, 1, 0)]
    assert done.written.rows == 2
    assert seen(lake) == {0: 200.0, 1: 215.0, 2: 220.0}
    history = lake.query("from carbon_intensity_history where hour(datetime) = 1 order by observed_at").to_pylist()
    assert [row["carbon_intensity_g_per_kwh"] for row in history] == [210.0, 215.0]


def test_as_of_shows_what_was_known_then(lake: Lake) -> None:
    ingest(lake, Grid(zones={"GB": {0: 200.0}}))
    ingest(lake, Grid(zones={"GB": {0: 190.0, 1: 195.0}}), hours_later=3)

    def known(hours_later: float) -> dict[int, float | None]:
        return seen(lake, f"carbon_intensity_as_of('{NOON + timedelta(hours=hours_later):%Y-%m-%dT%H:%M:%SZ}')")

    assert known(-0.5) == {}
    assert known(0) == known(2.5) == {0: 200.0}
    assert known(3) == {0: 190.0, 1: 195.0}


@pytest.mark.parametrize("change", [{"is_estimated": True}, {"resolution_minutes": 30}], ids=str)
def test_a_change_of_status_or_length_is_a_revision_too(lake: Lake, change: dict[str, Any]) -> None:
    ingest(lake, Grid(zones={"GB": {0: 200.0}}, is_estimated=False))
    done = ingest(lake, Grid(zones={"GB": {0: 200.0}}, **({"is_estimated": False} | change)), hours_later=1)
    assert counted(done) == [("complete", 1, 0, 1, 0)]
    (row,) = lake.query("from carbon_intensity").to_pylist()
    assert {name: row[name] for name in change} == change


def test_a_value_that_comes_back_is_news_again(lake: Lake) -> None:
    """200, 210, 200: compared with any earlier value the third would be lost."""
    for hours, value in enumerate((200.0, 210.0, 200.0)):
        ingest(lake, Grid(zones={"GB": {0: value}}), hours_later=hours)
    assert seen(lake) == {0: 200.0}


def test_a_null_never_replaces_a_value(lake: Lake) -> None:
    ingest(lake, Grid(zones={"GB": {0: 200.0}}))
    done = ingest(lake, Grid(zones={"GB": {0: None}}), hours_later=1)
    assert counted(done) == [("gaps", 0, 0, 0, 1)]
    assert done.written.paths == ()
    assert seen(lake) == {0: 200.0}


def test_a_null_is_kept_in_the_history_and_gives_way_to_a_value(lake: Lake) -> None:
    ingest(lake, Grid(zones={"GB": {0: None}}))
    assert seen(lake) == {}
    assert seen(lake, "carbon_intensity_history") == {0: None}
    done = ingest(lake, Grid(zones={"GB": {0: 200.0}}), hours_later=1)
    assert counted(done) == [("complete", 1, 0, 1, 0)]
    assert seen(lake) == {0: 200.0}


def test_a_zone_that_fails_is_recorded_and_the_others_are_kept(lake: Lake) -> None:
    ingest(lake, Grid(zones={"GB": {0: 200.0}, "DE": {0: 400.0}}), ["GB", "DE"])
    broken = TransientError("GET /intensity: no answer within 20 s")
    done = ingest(lake, Grid(zones={"GB": broken, "DE": {0: 410.0}}), ["GB", "DE"], hours_later=1)
    assert [(z.zone, z.outcome, z.error) for z in done.zones] == [
        ("GB", "failed", "GET /intensity: no answer within 20 s"),
        ("DE", "complete", None),
    ]
    assert [z.zone for z in done.failed] == ["GB"]
    assert done.total("revised_rows") == 1
    assert seen(lake) == {0: 200.0}
    assert seen(lake, zone="DE") == {0: 410.0}
    failed = fetches(lake)[-1]
    assert (failed["zone"], failed["outcome"], failed["intervals"]) == ("GB", "failed", 0)
    assert failed["error"] == "GET /intensity: no answer within 20 s"


def test_where_every_zone_fails_what_was_there_stays_and_all_is_recorded(lake: Lake) -> None:
    ingest(lake, Grid(zones={"GB": {0: 200.0}}))
    broken = Grid(zones={"GB": TransientError("503"), "DE": TransientError("timeout")})
    with pytest.raises(TransientError, match="timeout"):
        ingest(lake, broken, ["GB", "DE"], hours_later=1)
    assert seen(lake) == {0: 200.0}
    assert [(row["zone"], row["outcome"], row["error"]) for row in fetches(lake)] == [
        ("GB", "complete", None),
        ("DE", "failed", "timeout"),
        ("GB", "failed", "503"),
    ]


def test_an_error_that_no_retry_can_mend_outweighs_those_that_one_can(lake: Lake) -> None:
    zones = {"A": TransientError("503"), "B": ProviderError("the token is refused"), "C": TransientError("timeout")}
    with pytest.raises(PermanentError, match="the token is refused"):
        ingest(lake, Grid(zones=zones), zones)
    with pytest.raises(PermanentError, match="the token is refused"):
        ingest_forecast(Grid(zones=zones), lake, zones, "run-1", NOON)


def test_another_zones_answer_is_refused(lake: Lake) -> None:
    """Electricity Maps answers for the caller's own zone where it does not know the one asked for."""
    source = Grid(zones={"GB": {0: 25.0}}, answers_for="SE-SE3")
    message = r"uk-neso: asked for zone GB, found \['SE-SE3'\]"
    with pytest.raises(ProviderError, match=message):
        ingest(lake, source)
    with pytest.raises(ProviderError, match=message):
        ingest_forecast(source, lake, ["GB"], "run-1", NOON)
    assert lake.files(CARBON_INTENSITY) == lake.files(CARBON_FORECAST) == []


def test_a_zone_without_any_row_is_no_failure(lake: Lake) -> None:
    done = ingest(lake, Grid(zones={"GB": {}}))
    assert counted(done) == [("complete", 0, 0, 0, 0)]
    assert done.written.paths == ()
    assert [row["outcome"] for row in fetches(lake)] == ["complete"]


def test_no_zones_do_nothing(lake: Lake) -> None:
    done = ingest(lake, Grid(), [])
    assert (done.zones, done.written.paths) == ((), ())


def test_intervals_of_a_long_range_lie_in_the_file_of_their_day(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "ci.csv"
    hours = [datetime(2026, 3, 1, 22, tzinfo=UTC) + timedelta(hours=n) for n in range(4)]
    lines = "".join(f"{hour.isoformat()},DE,{n}\n" for n, hour in enumerate(hours))
    path.write_text("datetime,zone,carbon_intensity_g_per_kwh\n" + lines)
    done = ingest_history(FileProvider(str(path)), lake, ["DE"], START, at(0, day=3), "run-1", NOON)
    assert [path.split("/")[2:4] for path in done.written.paths] == [
        ["provider=file", "day=2026-03-01"],
        ["provider=file", "day=2026-03-02"],
    ]


# Forecasts


def test_a_forecast_is_stored_once_per_issue(lake: Lake) -> None:
    source = Grid(zones={"GB": {13: 200.0, 14: 210.0}}, issued_at=at(12))
    first = ingest_forecast(source, lake, ["GB"], "run-1", NOON)
    assert (first.total("intervals"), first.total("new_rows"), first.written.rows) == (2, 2, 2)
    again = ingest_forecast(source, lake, ["GB"], "run-2", NOON + timedelta(minutes=5))
    assert (again.total("intervals"), again.total("new_rows"), again.written.paths) == (2, 0, ())
    source.issued_at = at(13)
    source.zones["GB"] = {14: 205.0}
    assert ingest_forecast(source, lake, ["GB"], "run-3", NOON + timedelta(hours=1)).total("new_rows") == 1
    rows = lake.query("from carbon_forecast order by issued_at, datetime").to_pylist()
    assert [(row["issued_at"], row["datetime"], row["carbon_intensity_g_per_kwh"]) for row in rows] == [
        (at(12), at(13), 200.0),
        (at(12), at(14), 210.0),
        (at(13), at(14), 205.0),
    ]


def test_a_zone_whose_forecast_fails_does_not_keep_the_others_out(lake: Lake) -> None:
    source = Grid(zones={"GB": ProviderError("no forecast in this plan"), "DE": {13: 400.0}})
    done = ingest_forecast(source, lake, ["GB", "DE"], "run-1", NOON)
    assert [(z.zone, z.error) for z in done.zones] == [("GB", "no forecast in this plan"), ("DE", None)]
    assert lake.query("select zone from carbon_forecast")["zone"].to_pylist() == ["DE"]


def test_a_provider_without_forecasts_is_no_failure(lake: Lake) -> None:
    done = ingest_forecast(Grid(zones={"GB": {}}), lake, ["GB"], "run-1", NOON)
    assert (done.failed, done.written.paths) == ([], ())


# Two providers in one home


def test_two_providers_in_one_home_do_not_mix(tmp_path: Path) -> None:
    homes = {name: empty_lake(tmp_path, name) for name in ("uk-neso", "energy-charts")}
    for value, (name, lake) in zip((200.0, 300.0), homes.items(), strict=True):
        source = Grid(name=name, zones={"DE": {0: value}}, issued_at=at(12))
        ingest(lake, source, ["DE"])
        ingest_forecast(source, lake, ["DE"], "run-1", NOON)
    assert seen(homes["uk-neso"], zone="DE") == {0: 200.0}
    assert seen(homes["energy-charts"], zone="DE") == {0: 300.0}
    for name, lake in homes.items():
        forecast = lake.query("select provider, carbon_intensity_g_per_kwh as g from carbon_forecast").to_pylist()
        assert forecast == [{"provider": name, "g": 200.0 if name == "uk-neso" else 300.0}]
        both = lake.query("select provider from carbon_intensity_history order by 1")["provider"].to_pylist()
        assert both == ["energy-charts", "uk-neso"]


def test_one_providers_value_is_never_taken_for_the_others_knowledge(tmp_path: Path) -> None:
    """The same figure from another provider is news, and no revision."""
    ingest(empty_lake(tmp_path, "uk-neso"), Grid(zones={"DE": {0: 200.0}}), ["DE"])
    done = ingest(empty_lake(tmp_path, "energy-charts"), Grid(name="energy-charts", zones={"DE": {0: 200.0}}), ["DE"])
    assert counted(done) == [("complete", 1, 1, 0, 0)]


def test_direct_and_life_cycle_values_are_different_facts(lake: Lake) -> None:
    ingest(lake, Grid(zones={"GB": {0: 250.0}}))
    direct = Grid(zones={"GB": {0: 180.0}}, emission_factor_type="direct")
    assert counted(ingest(lake, direct, hours_later=1)) == [("complete", 1, 1, 0, 0)]
    assert seen(lake) == {0: 250.0}
