"""The Carbon Intensity API of Great Britain against a real local server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from greenops_pipelines.carbon.provider import FORECAST, POINTS
from greenops_pipelines.carbon.uk_neso import UkNeso
from greenops_pipelines.errors import ProviderError, TransientError
from greenops_pipelines.http import HttpClient
from greenops_pipelines.settings import Settings

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "samples" / "uk"
START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, 12, 17, tzinfo=UTC)
DAY = timedelta(days=1)


def sample(name: str) -> str:
    path = SAMPLES / name
    if not path.exists():
        pytest.skip(f"no sample payload {name} beside the repository")
    return path.read_text()


def half_hour(number: float, actual: object, forecast: object = 100) -> dict[str, object]:
    start = START + timedelta(minutes=30 * number)
    return {
        "from": start.strftime("%Y-%m-%dT%H:%MZ"),
        "to": (start + timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%MZ"),
        "intensity": {"forecast": forecast, "actual": actual, "index": "moderate"},
    }


@pytest.fixture
def provider(fault_server):
    return UkNeso(HttpClient(fault_server.url, attempts=2, sleep=lambda _: None), now=lambda: NOW)


def test_the_vendors_sample(fault_server, provider):
    fault_server.reply(sample("intensity_current.json"))
    start = datetime(2018, 1, 20, 12, tzinfo=UTC)
    table = provider.history("GB", start, start + DAY)
    assert table.schema.equals(POINTS)
    assert table.to_pylist() == [
        {
            "zone": "GB",
            "datetime": start,
            "resolution_minutes": 30,
            "carbon_intensity_g_per_kwh": 263.0,
            "signal": "average",
            "emission_factor_type": "direct",
            "is_flow_traced": None,
            "is_estimated": None,
            "estimation_method": None,
            "updated_at": None,
        }
    ]
    assert fault_server.requests[0].path == "/intensity/2018-01-20T12:00Z/2018-01-21T12:00Z"


def test_the_vendors_sample_with_a_null_is_a_gap(fault_server, provider):
    fault_server.reply(sample("intensity_fw_actual_null.json"))
    start = datetime(2020, 5, 24, tzinfo=UTC)
    table = provider.history("GB", start, start + DAY)
    assert table["datetime"].to_pylist() == [datetime(2020, 5, 24, 20, 30, tzinfo=UTC)]
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [None]


def test_half_hours_that_only_touch_the_range_are_dropped(fault_server, provider):
    fault_server.json({"data": [half_hour(n, 100 + n) for n in range(-1, 5)]})
    table = provider.history("GB", START, START + timedelta(hours=2))
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [100.0, 101.0, 102.0, 103.0]


def test_a_range_is_split_to_fourteen_days_and_clipped_call_by_call(fault_server, provider):
    edge = 14 * 48
    fault_server.json({"data": [half_hour(edge - 1, 50), half_hour(edge, 99)]})
    fault_server.json({"data": [half_hour(edge - 1, 98), half_hour(edge, 51)]})
    table = provider.history("GB", START, START + 20 * DAY)
    assert [request.path for request in fault_server.requests] == [
        "/intensity/2026-01-01T00:00Z/2026-01-15T00:00Z",
        "/intensity/2026-01-15T00:00Z/2026-01-21T00:00Z",
    ]
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [50.0, 51.0]


def test_a_half_hour_that_is_not_over_is_no_gap(fault_server, provider):
    # At 12:17: 11:30 is over and unknown, 12:00 runs, 12:30 is to come.
    fault_server.json({"data": [half_hour(23, None), half_hour(24, None), half_hour(25, None)]})
    table = provider.history("GB", START, START + DAY)
    assert table["datetime"].to_pylist() == [datetime(2026, 1, 1, 11, 30, tzinfo=UTC)]


def test_the_forecast(fault_server, provider):
    rows = [half_hour(23, 90, 91), half_hour(24, None, 92), half_hour(25, None, None), half_hour(26, None, 94)]
    fault_server.json({"data": rows})
    table = provider.forecast("GB")
    assert fault_server.requests[0].path == "/intensity/2026-01-01T12:17Z/fw48h"
    assert table.schema.equals(FORECAST)
    assert table["datetime"].to_pylist() == [START + timedelta(hours=12), START + timedelta(hours=13)]
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [92.0, 94.0]
    assert table["issued_at"].to_pylist() == [NOW, NOW]
    assert table["emission_factor_type"].to_pylist() == ["direct", "direct"]


def test_a_refusal_carries_the_vendors_message(fault_server, provider):
    fault_server.reply(sample("error_400.json"), status=400)
    with pytest.raises(ProviderError, match=r"zone GB: refused with status 400: string$"):
        provider.history("GB", START, START + DAY)


def test_duplicates(fault_server, provider):
    fault_server.json({"data": [half_hour(0, 80), half_hour(0, 80)]})
    fault_server.json({"data": [half_hour(1, 80), half_hour(1, 81)]})
    assert provider.history("GB", START, START + DAY).num_rows == 1
    with pytest.raises(ProviderError, match=r"GB, 2026-01-01T00:30:00Z: stated twice, as 80 g/kWh .* and as 81 g/kWh"):
        provider.history("GB", START, START + DAY)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"from": "2026-01-01T00:00"}, r"data\.0\.from: the time '2026-01-01T00:00' has no zone"),
        ({"to": "2026-01-01T01:00Z"}, "expected half-hours, found 2026-01-01T00:00Z to 2026-01-01T01:00Z"),
        (half_hour(0.5, 80), "2026-01-01T00:15:00Z: no 30-minute interval starts at this time"),
        ({"intensity": {"forecast": 1}}, r"data\.0\.intensity\.actual: Field required"),
        ({"intensity": {"forecast": 1, "actual": -1}}, "carbon intensity is -1 g/kWh; allowed is 0 to 5000"),
    ],
)
def test_a_row_that_cannot_be_right_is_an_error(change, problem, fault_server, provider):
    fault_server.json({"data": [half_hour(0, 80) | change]})
    with pytest.raises(ProviderError, match=f"^uk-neso, zone GB.*{problem}"):
        provider.history("GB", START, START + DAY)


def test_a_lasting_503_is_transient(fault_server, provider):
    fault_server.reply(status=503)
    with pytest.raises(TransientError, match="answered 503"):
        provider.forecast("GB")


def test_its_one_zone_is_great_britain(fault_server, provider):
    assert provider.covers("GB")
    assert not provider.covers("DE")
    with pytest.raises(ProviderError, match="zone DE is not covered; it has GB only"):
        provider.history("DE", START, START + DAY)
    with pytest.raises(ProviderError, match="zone DE is not covered"):
        provider.forecast("DE")
    assert fault_server.requests == []
    assert provider.span() is None


def test_settings_choose_the_address(fault_server):
    fault_server.json({"data": [half_hour(0, 80)]})
    settings = Settings(_env_file=None, carbon_base_url=fault_server.url)
    assert UkNeso.from_settings(settings).history("GB", START, START + DAY).num_rows == 1
