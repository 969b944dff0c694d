"""Electricity Maps against a real local server: the contract, its traps, and every fault it may serve."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from greenops_pipelines.carbon.electricity_maps import ElectricityMaps
from greenops_pipelines.carbon.provider import FORECAST, POINTS
from greenops_pipelines.errors import BadInput, ConfigurationError, ProviderError, TransientError
from greenops_pipelines.http import HttpClient
from greenops_pipelines.settings import Settings

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "samples" / "electricitymaps"
TOKEN = "s3cr3t-of-the-operator"  # noqa: S105 - made up
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def sample(name: str) -> str:
    path = SAMPLES / name
    if not path.exists():
        pytest.skip(f"no sample payload {name} beside the repository")
    return path.read_text()


def row(hour: int, value: object, **fields: object) -> dict[str, object]:
    time = START + timedelta(hours=hour)
    return {"zone": "DE", "carbonIntensity": value, "datetime": time.strftime("%Y-%m-%dT%H:%M:%S.000Z")} | fields


@pytest.fixture
def provider(fault_server):
    def make(**options):
        http = HttpClient(fault_server.url, headers={"auth-token": SecretStr(TOKEN)}, attempts=2, sleep=lambda _: None)
        return ElectricityMaps(http, **options)

    return make


def test_the_vendors_past_range_sample(fault_server, provider):
    fault_server.reply(sample("v4_shape_carbon-intensity_past-range.json"))
    start = datetime(2030, 1, 1, tzinfo=UTC)
    table = provider().history("DK-DK2", start, start + DAY)
    assert table.schema.equals(POINTS)
    assert table.to_pylist() == [
        {
            "zone": "DK-DK2",
            "datetime": start + timedelta(hours=hour),
            "resolution_minutes": 60,
            "carbon_intensity_g_per_kwh": 100.0 + hour,
            "signal": "average",
            "emission_factor_type": "lifecycle",
            "is_flow_traced": True,
            "is_estimated": False,
            "estimation_method": None,
            "updated_at": start + timedelta(hours=hour, minutes=24, seconds=8, milliseconds=708),
        }
        for hour in range(3)
    ]


def test_the_vendors_forecast_sample_has_n_plus_1_points(fault_server, provider):
    fault_server.reply(sample("v4_shape_carbon-intensity_forecast.json"))
    table = provider().forecast("DK-DK2")
    assert table.schema.equals(FORECAST)
    assert table.num_rows == 25
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [100.0 + hour for hour in range(25)]
    assert table["datetime"][0].as_py() == datetime(2030, 1, 1, 17, tzinfo=UTC)
    assert set(table["issued_at"].to_pylist()) == {datetime(2030, 1, 1, 17, 34, 24, 392000, tzinfo=UTC)}
    [request] = fault_server.requests
    assert request.path == "/carbon-intensity/forecast"
    assert request.query["horizonHours"] == "24"


def test_v4_asks_without_the_callers_location(fault_server, provider):
    fault_server.json({"zone": "DE", "data": []})
    assert provider(emission_factor_type="direct").history("DE", START, START + DAY).num_rows == 0
    [request] = fault_server.requests
    assert request.path == "/carbon-intensity/past-range"
    assert request.query == {
        "zone": "DE",
        "start": "2026-01-01T00:00:00Z",
        "end": "2026-01-02T00:00:00Z",
        "temporalGranularity": "hourly",
        "emissionFactorType": "direct",
        "disableCallerLookup": "true",
    }
    assert request.headers["auth-token"] == TOKEN


def test_v3_names_the_same_switch_otherwise(fault_server, provider):
    fault_server.json({"zone": "DE", "data": []})
    provider(api_version="v3").history("DE", START, START + DAY)
    query = fault_server.requests[0].query
    assert query["shouldUseFallbackCallerLookup"] == "false"
    assert "disableCallerLookup" not in query


def test_a_range_is_split_to_ten_days_per_call(fault_server, provider):
    for day in (0, 10, 20):
        # Each call also returns the first hour of the next one, with another value: it belongs to the next.
        fault_server.json({"zone": "DE", "data": [row(24 * day, 100 + day), row(24 * (day + 10), 999)]})
    table = provider().history("DE", START, START + 25 * DAY)
    assert [(r.query["start"][:10], r.query["end"][:10]) for r in fault_server.requests] == [
        ("2026-01-01", "2026-01-11"),
        ("2026-01-11", "2026-01-21"),
        ("2026-01-21", "2026-01-26"),
    ]
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [100.0, 110.0, 120.0]


def test_rows_are_sorted_clipped_and_nulls_stay_nulls(fault_server, provider):
    rows = [row(24, 5), row(2, None), row(1, 0), row(0, 481.5), row(-1, 7)]
    fault_server.json({"zone": "DE", "data": rows})
    table = provider().history("DE", START, START + DAY)
    assert table["datetime"].to_pylist() == [START + timedelta(hours=hour) for hour in range(3)]
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [481.5, 0.0, None]


def test_estimates_are_marked(fault_server, provider):
    stated = {"isEstimated": True, "estimationMethod": "TIME_SLICER_AVERAGE", "flowTraced": False}
    fault_server.json({"zone": "DE", "data": [row(0, 300, **stated), row(1, 301)]})
    first, second = provider().history("DE", START, START + DAY).to_pylist()
    assert (first["is_estimated"], first["estimation_method"], first["is_flow_traced"]) == (
        True,
        "TIME_SLICER_AVERAGE",
        False,
    )
    assert (second["is_estimated"], second["estimation_method"], second["is_flow_traced"]) == (None, None, None)


def test_times_in_another_zone_are_converted(fault_server, provider):
    fault_server.json({"zone": "DE", "data": [row(0, 300, datetime="2026-01-01T06:00:00+01:00")]})
    table = provider().history("DE", START, START + DAY)
    assert table["datetime"].to_pylist() == [START + timedelta(hours=5)]


def test_forecast_points_without_a_value_are_left_out(fault_server, provider):
    points = [row(0, 100), row(1, None), row(2, 102), row(-1, 99)]
    fault_server.json({"zone": "DE", "forecast": points, "updatedAt": "2026-01-01T00:34:00Z"})
    table = provider().forecast("DE")
    assert table["datetime"].to_pylist() == [START, START + timedelta(hours=2)]


def test_equal_duplicates_collapse(fault_server, provider):
    fault_server.json({"zone": "DE", "data": [row(0, 300), row(1, 301), row(0, 300)]})
    table = provider().history("DE", START, START + DAY)
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [300.0, 301.0]


def test_a_duplicate_null_collapses_too(fault_server, provider):
    fault_server.json({"zone": "DE", "data": [row(0, None), row(0, None)]})
    assert provider().history("DE", START, START + DAY).num_rows == 1


@pytest.mark.parametrize(("second", "shown"), [(301, "301 g/kWh"), (None, "null")])
def test_conflicting_duplicates_are_an_error_with_both_values(second, shown, fault_server, provider):
    fault_server.json({"zone": "DE", "data": [row(5, 300), row(5, second)]})
    with pytest.raises(ProviderError, match=rf"zone DE, 2026-01-01T05:00:00Z: stated twice, as 300 g/kWh .*{shown}"):
        provider().history("DE", START, START + DAY)


@pytest.mark.parametrize("where", ["answer", "row"])
def test_the_wrong_zone_is_an_error(where, fault_server, provider):
    rows = [row(0, 300, zone="US-CAL-CISO" if where == "row" else "DE")]
    fault_server.json({"zone": "US-CAL-CISO" if where == "answer" else "DE", "data": rows})
    with pytest.raises(ProviderError, match="zone DE: asked for zone DE, the answer has 'US-CAL-CISO'"):
        provider().history("DE", START, START + DAY)


def test_a_forecast_for_the_wrong_zone_is_an_error(fault_server, provider):
    fault_server.json({"zone": "FR", "forecast": [], "updatedAt": "2026-01-01T00:00:00Z"})
    with pytest.raises(ProviderError, match="asked for zone DE, the answer has 'FR'"):
        provider().forecast("DE")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"emissionFactorType": "direct"}, "asked for emissionFactorType lifecycle, the answer has 'direct'"),
        ({"temporalGranularity": "5_minutes"}, "asked for temporalGranularity hourly, the answer has '5_minutes'"),
        ({"datetime": "2026-01-01T00:05:00Z"}, "2026-01-01T00:05:00Z: no 60-minute interval starts at this time"),
        ({"datetime": "2026-01-01T00:00:00"}, r"data\.0\.datetime: the time '2026-01-01T00:00:00' has no zone"),
        ({"datetime": "yesterday"}, "expected a time in ISO 8601, found 'yesterday'"),
        ({"datetime": 1767225600}, "expected a time in ISO 8601, found 1767225600"),
        ({"updatedAt": "2026-01-01T00:00"}, r"data\.0\.updatedAt: the time '2026-01-01T00:00' has no zone"),
        ({"carbonIntensity": "300"}, r"data\.0\.carbonIntensity: .*found '300'"),
        ({"carbonIntensity": True}, r"data\.0\.carbonIntensity: .*found True"),
        ({"carbonIntensity": -1}, r"2026-01-01T00:00:00Z: carbon intensity is -1 g/kWh; allowed is 0 to 5000"),
        ({"carbonIntensity": 5000.1}, r"carbon intensity is 5000\.1 g/kWh; allowed is 0 to 5000"),
        ({"isEstimated": "no"}, r"data\.0\.isEstimated"),
    ],
)
def test_a_row_that_cannot_be_right_is_an_error(fields, problem, fault_server, provider):
    fault_server.json({"zone": "DE", "data": [row(0, 300, **fields)]})
    with pytest.raises(ProviderError, match=f"^electricity-maps, zone DE.*{problem}"):
        provider().history("DE", START, START + DAY)


def test_a_row_without_the_value_is_not_a_null(fault_server, provider):
    fault_server.json({"zone": "DE", "data": [{"datetime": "2026-01-01T00:00:00Z"}] * 2})
    with pytest.raises(ProviderError, match=r"data\.0\.carbonIntensity: Field required \(and 1 more\)"):
        provider().history("DE", START, START + DAY)


@pytest.mark.parametrize("payload", [[], None, {}, {"zone": "DE"}, {"zone": "DE", "data": None}, "DE"])
def test_another_shape_is_an_error(payload, fault_server, provider):
    fault_server.json(payload)
    with pytest.raises(ProviderError, match="zone DE: the answer has an unexpected form"):
        provider().history("DE", START, START + DAY)


def test_a_bad_token_names_the_variable(fault_server, provider):
    fault_server.reply(sample("v3_error_token_invalid.json"), status=401)
    with pytest.raises(ConfigurationError, match=r"GREENOPS_CARBON_TOKEN: .*\(Token is invalid\); replace it"):
        provider().history("DE", START, START + DAY)


def test_a_plan_that_lacks_the_zone_is_told_apart(fault_server, provider):
    fault_server.reply(sample("v4_error_401_plan.json"), status=401)
    with pytest.raises(ProviderError) as caught:
        provider().history("DK-DK2", START, START + DAY)
    assert "zone DK-DK2: the token is valid, but its plan lacks carbon-intensity/past-range" in str(caught.value)
    assert "You do not have access to this specific endpoint" in str(caught.value)
    assert "extend the plan" in str(caught.value)


@pytest.mark.parametrize("status", [400, 404])
def test_other_refusals_carry_the_vendors_words(status, fault_server, provider):
    fault_server.json({"error": "No data for zone"}, status=status)
    with pytest.raises(ProviderError, match=f"past-range is refused with status {status}: No data for zone"):
        provider().history("DE", START, START + DAY)


FAULTS = {
    "500": (lambda server: server.reply("down", status=500), TransientError),
    "429 for a day": (lambda server: server.reply(status=429, Retry_After="86400"), TransientError),
    "html": (lambda server: server.reply("<html>Log in</html>", content_type="text/html"), ProviderError),
    "half a json": (lambda server: server.reply('{"zone": "DE", "data": [{"carbonIn'), TransientError),
    "50 MB": (lambda server: server.flood(50_000_000), ProviderError),
    "dropped": (lambda server: server.raw(b""), TransientError),
    "echoed token": (lambda server: server.json({"error": f"bad {TOKEN}"}, status=401), ConfigurationError),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_an_error_without_the_token(fault, fault_server, provider, caplog):
    caplog.set_level(logging.DEBUG)
    serve, error = FAULTS[fault]
    serve(fault_server)
    with pytest.raises(error) as caught:
        provider().history("DE", START, START + DAY)
    current, texts = caught.value, [caplog.text]
    while current is not None:
        texts += [str(current), repr(vars(current))]
        current = current.__context__
    assert "s3cr3t" not in "\n".join(texts)


def test_one_failed_call_fails_the_range(fault_server, provider):
    fault_server.json({"zone": "DE", "data": [row(0, 300)]})
    fault_server.reply(status=503)
    with pytest.raises(TransientError):
        provider().history("DE", START, START + 20 * DAY)


def test_a_missing_token_names_the_variable(monkeypatch):
    monkeypatch.delenv("GREENOPS_CARBON_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match="GREENOPS_CARBON_TOKEN: found nothing"):
        ElectricityMaps.from_settings(Settings(_env_file=None))


def test_settings_choose_version_factors_and_address(fault_server):
    fault_server.json({"zone": "DE", "data": [row(0, 20, emissionFactorType="direct")]})
    settings = Settings(
        _env_file=None,
        carbon_token=SecretStr(TOKEN),
        carbon_api_version="v3",
        carbon_emission_factors="direct",
        carbon_base_url=f"{fault_server.url}/v3",
    )
    provider = ElectricityMaps.from_settings(settings)
    table = provider.history("DE", START, START + DAY)
    assert table["emission_factor_type"].to_pylist() == ["direct"]
    [request] = fault_server.requests
    assert request.path == "/v3/carbon-intensity/past-range"
    assert request.query["shouldUseFallbackCallerLookup"] == "false"
    assert request.headers["auth-token"] == TOKEN
    assert (provider.name, provider.signal, provider.emission_factor_type) == ("electricity-maps", "average", "direct")
    assert provider.span() is None


def test_what_is_no_zone_is_refused_before_any_call(fault_server, provider):
    assert provider().covers("US-MIDA-PJM")
    assert not provider().covers("eu-central-1")
    with pytest.raises(ProviderError, match="'eu-central-1' is not a zone identifier"):
        provider().history("eu-central-1", START, START + DAY)
    assert fault_server.requests == []


def test_a_range_without_a_zone_is_bad_input(provider):
    with pytest.raises(BadInput, match="both times need a zone"):
        provider().history("DE", datetime(2026, 1, 1), START)  # noqa: DTZ001 - the point


def test_an_empty_range_asks_nothing(fault_server, provider):
    table = provider().history("DE", START, START)
    assert table.schema.equals(POINTS)
    assert table.num_rows == 0
    assert fault_server.requests == []


def test_duplicate_keys_never_pick_a_winner(fault_server, provider):
    body = json.dumps({"zone": "DE", "data": [row(0, 300)]}).replace(
        '"carbonIntensity": 300', '"carbonIntensity": 300, "carbonIntensity": 3'
    )
    fault_server.reply(body)
    with pytest.raises(ProviderError, match="the key 'carbonIntensity' stands twice"):
        provider().history("DE", START, START + DAY)
