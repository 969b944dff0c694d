"""Energy-Charts against a real local server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from greenops_pipelines.carbon.energy_charts import COUNTRIES, EnergyCharts
from greenops_pipelines.carbon.provider import FORECAST, POINTS
from greenops_pipelines.errors import ProviderError, TransientError
from greenops_pipelines.http import HttpClient
from greenops_pipelines.settings import Settings

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "samples" / "energycharts" / "co2eq_shape.json"
START = datetime(2026, 1, 1, tzinfo=UTC)
T0 = int(START.timestamp())
DAY = timedelta(days=1)


def series(step_seconds: int, measured: list[float | None], forecast: list[float | None]) -> dict[str, object]:
    return {
        "unix_seconds": [T0 + i * step_seconds for i in range(len(measured))],
        "co2eq": measured,
        "co2eq_forecast": forecast,
        "deprecated": False,
    }


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def provider(fault_server, pauses):
    http = HttpClient(fault_server.url, attempts=2, sleep=pauses.append)
    return EnergyCharts(http, now=lambda: START + timedelta(minutes=40))


def test_the_vendors_sample(fault_server, provider):
    if not SAMPLE.exists():
        pytest.skip("no sample payload co2eq_shape.json beside the repository")
    fault_server.reply(SAMPLE.read_text())
    start = datetime(2026, 7, 12, 22, tzinfo=UTC)
    table = provider.history("DE", start, start + DAY)
    assert table.schema.equals(POINTS)
    assert table["datetime"].to_pylist() == [start + timedelta(minutes=15 * i) for i in range(3)]
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [491.5, 497.4, 502.6]
    assert table.to_pylist()[0] == {
        "zone": "DE",
        "datetime": start,
        "resolution_minutes": 15,
        "carbon_intensity_g_per_kwh": 491.5,
        "signal": "average",
        "emission_factor_type": "lifecycle",
        "is_flow_traced": None,
        "is_estimated": None,
        "estimation_method": None,
        "updated_at": None,
    }
    forecast = provider.forecast("DE")
    assert forecast.schema.equals(FORECAST)
    assert forecast["carbon_intensity_g_per_kwh"].to_pylist() == [505.0, 508.0]
    assert forecast["datetime"].to_pylist() == [start + timedelta(minutes=45), start + timedelta(minutes=60)]
    assert forecast["resolution_minutes"].to_pylist() == [15, 15]


def test_history_asks_in_utc_for_the_country(fault_server, provider):
    fault_server.json(series(900, [], []))
    assert provider.history("SE", START, START + DAY).num_rows == 0
    [request] = fault_server.requests
    assert request.path == "/co2eq"
    assert request.query == {"country": "se", "start": "2026-01-01T00:00Z", "end": "2026-01-02T00:00Z"}


def test_rows_outside_the_range_are_dropped(fault_server, provider):
    fault_server.json(series(900, [1, 2, 3, 4], [None] * 4))
    table = provider.history("DE", START + timedelta(minutes=15), START + timedelta(minutes=45))
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [2.0, 3.0]


def test_a_long_range_is_split(fault_server, provider):
    fault_server.json(series(900, [], []))
    provider.history("DE", START, START + 100 * DAY)
    assert [(r.query["start"][:10], r.query["end"][:10]) for r in fault_server.requests] == [
        ("2026-01-01", "2026-04-03"),
        ("2026-04-03", "2026-04-11"),
    ]


@pytest.mark.parametrize(
    ("times", "minutes"),
    [
        ([0, 15, 30], 15),
        ([0, 60, 120], 60),
        ([0, 30, 60], 30),
        ([0, 60, 75, 120], 15),
        ([0, 120], 15),
        ([0], 15),
    ],
)
def test_the_step_is_read_from_the_answer_and_never_overstated(times, minutes, fault_server, provider):
    payload = series(900, [100] * len(times), [None] * len(times))
    payload["unix_seconds"] = [T0 + 60 * minute for minute in times]
    fault_server.json(payload)
    table = provider.history("FR", START, START + DAY)
    assert set(table["resolution_minutes"].to_pylist()) == {minutes}
    assert table.num_rows == len(times)


def test_the_forecast_holds_what_is_still_to_come(fault_server, provider):
    fault_server.json(series(900, [400, None, None, None, None], [None, 401, 402, None, 404]))
    table = provider.forecast("DE")
    assert fault_server.requests[0].query == {"country": "de"}
    # At 00:40 the intervals of 00:00 and 00:15 are over; that of 00:30 runs; 00:45 has no value.
    assert table["datetime"].to_pylist() == [START + timedelta(minutes=30), START + timedelta(minutes=60)]
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [402.0, 404.0]
    assert set(table["issued_at"].to_pylist()) == {START + timedelta(minutes=40)}


def test_a_series_without_a_forecast_has_no_rows(fault_server, provider):
    fault_server.json({"unix_seconds": [T0], "co2eq": [400.0], "co2eq_forecast": None, "deprecated": False})
    assert provider.forecast("DE").num_rows == 0


@pytest.mark.parametrize("name", ["co2eq", "co2eq_forecast"])
def test_arrays_of_unequal_length_are_an_error(name, fault_server, provider):
    fault_server.json(series(900, [1, 2, 3], [1, 2, 3]) | {name: [1, 2]})
    with pytest.raises(ProviderError, match=f"zone DE: 3 times, but 2 values of {name}$"):
        provider.history("DE", START, START + DAY)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"unix_seconds": [T0, T0 + 420]}, "times are 420 s apart"),
        ({"unix_seconds": [T0 + 1, T0 + 901]}, "no 15-minute interval starts at this time"),
        ({"unix_seconds": [T0 * 1000, T0 * 1000 + 1]}, r"unix_seconds\.0: .*found 1767225600000"),
        ({"unix_seconds": [T0, None]}, r"unix_seconds\.1"),
        ({"unix_seconds": ["2026-01-01T00:00", "2026-01-01T00:15"]}, r"unix_seconds\.0: .*found '2026-01-01T00:00'"),
        ({"co2eq": [-3, 1]}, "zone DE, 2026-01-01T00:00:00Z: carbon intensity is -3 g/kWh"),
        ({"co2eq": [1, 5001]}, "zone DE, 2026-01-01T00:15:00Z: carbon intensity is 5001 g/kWh"),
        ({"unix_seconds": [T0, T0]}, "2026-01-01T00:00:00Z: stated twice, as 1 g/kWh .* and as 2 g/kWh"),
    ],
)
def test_a_series_that_cannot_be_right_is_an_error(change, problem, fault_server, provider):
    fault_server.json(series(900, [1, 2], [None, None]) | change)
    with pytest.raises(ProviderError, match=problem):
        provider.history("DE", START, START + DAY)


def test_equal_duplicates_collapse(fault_server, provider):
    fault_server.json(series(900, [7, 7], [None, None]) | {"unix_seconds": [T0, T0]})
    assert provider.history("DE", START, START + DAY)["carbon_intensity_g_per_kwh"].to_pylist() == [7.0]


def test_a_refusal_in_plain_text_is_passed_on(fault_server, provider):
    fault_server.reply("'xx' is not an available country", status=400, content_type="text/plain")
    with pytest.raises(ProviderError, match="zone XK: refused with status 400: 'xx' is not an available country"):
        provider.history("XK", START, START + DAY)


def test_429_is_waited_for(fault_server, provider, pauses):
    fault_server.reply("Too many requests", status=429, content_type="text/plain", Retry_After="11")
    fault_server.json(series(900, [7], [None]))
    assert provider.history("DE", START, START + DAY).num_rows == 1
    assert pauses == [11.0]


def test_a_lasting_500_is_transient(fault_server, provider):
    fault_server.reply(status=500)
    with pytest.raises(TransientError, match="answered 500"):
        provider.history("DE", START, START + DAY)


def test_a_deprecated_endpoint_is_logged(fault_server, provider, caplog):
    fault_server.json(series(900, [7], [None]) | {"deprecated": True})
    provider.history("DE", START, START + DAY)
    assert "marks /co2eq as deprecated" in caplog.text


@pytest.mark.parametrize("zone", ["GB", "SE-SE3", "US-MIDA-PJM", "EU", "ALL", "de", ""])
def test_what_it_does_not_cover_is_not_asked_for(zone, fault_server, provider):
    assert not provider.covers(zone)
    with pytest.raises(ProviderError, match="is not covered"):
        provider.history(zone, START, START + DAY)
    with pytest.raises(ProviderError, match="is not covered"):
        provider.forecast(zone)
    assert fault_server.requests == []


def test_the_european_zones_of_the_house_are_covered(provider):
    assert {"DE", "IE", "FR", "ES"} <= COUNTRIES
    assert provider.covers("IE")
    assert provider.span() is None


def test_settings_choose_the_address(fault_server):
    fault_server.json(series(900, [7], [None]))
    settings = Settings(_env_file=None, carbon_base_url=fault_server.url + "/mirror/")
    assert EnergyCharts.from_settings(settings).history("DE", START, START + DAY).num_rows == 1
    assert fault_server.requests[0].path == "/mirror/co2eq"
