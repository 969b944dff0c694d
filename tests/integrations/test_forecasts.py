"""Where forecasts come from, against a real local server and real providers."""

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from greenops_pipelines.carbon.sample import SampleProvider
from greenops_pipelines.integrations.forecasts import Address, Answer, Bounded, Called

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def asked(source: object, zone: str = "DE", seconds: float = 5.0) -> Answer:
    return Bounded(lambda: source, seconds).ask([zone], NOW)  # type: ignore[arg-type, return-value]


def text(hours: float) -> str:
    return (NOW + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def test_the_form_of_electricity_maps(fault_server) -> None:
    points = [{"carbonIntensity": v, "datetime": text(i)} for i, v in enumerate([300, None, 120.5])]
    fault_server.json({"zone": "DE", "forecast": points, "updatedAt": text(0), "unit": "gCO2eq/kWh"})
    url = f"{fault_server.url}/v4/carbon-intensity/forecast?horizonHours=48"
    series = asked(Address(url, {}, 5.0)).series["DE"]
    # The null is no row, and no number.
    assert series.g_per_kwh.tolist() == [300.0, 120.5]
    assert series.minutes.tolist() == [60, 60]
    assert series.start.tolist() == [int((NOW + timedelta(hours=h)).timestamp()) * 1_000_000 for h in (0, 2)]
    [request] = fault_server.requests
    assert (request.path, request.query) == (
        "/v4/carbon-intensity/forecast",
        {"horizonHours": "48", "zone": "DE"},
    )


def test_the_form_in_our_names_and_a_zone_in_the_path(fault_server) -> None:
    points = [{"datetime": text(i / 4), "carbon_intensity_g_per_kwh": 100 + i} for i in range(3)]
    fault_server.json({"resolution_minutes": 15, "issued_at": text(0), "forecast": points})
    series = asked(Address(f"{fault_server.url}/forecast/{{zone}}.json", {"x-key": "k"}, 5.0), "FR").series["FR"]
    assert series.minutes.tolist() == [15, 15, 15]
    [request] = fault_server.requests
    assert (request.path, request.query, request.headers["x-key"]) == ("/forecast/FR.json", {}, "k")


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        ({"zone": "FR", "forecast": [{"datetime": text(0), "carbonIntensity": 1}]}, "asked for zone DE, found FR"),
        ({"forecast": []}, "it has no forecast"),
        ({"forecast": [{"datetime": text(0), "carbonIntensity": None}]}, "it has no forecast"),
        # Issued at the same hour: without a time it would be issued when the test runs, and begin before that.
        (
            {"forecast": [{"datetime": text(0), "carbonIntensity": -1}], "updatedAt": text(0)},
            "carbon intensity is -1 g/kWh",
        ),
        ({"forecast": [{"datetime": "2026-11-26T00:00", "carbonIntensity": 1}]}, "has no zone"),
        ({"data": []}, "forecast: Field required"),
        (
            {
                "forecast": [{"datetime": text(-30 + i), "carbonIntensity": 1} for i in range(72)],
                "updatedAt": text(-30),
            },
            "its newest forecast is of .*, more than a day ago",
        ),
    ],
)
def test_what_cannot_be_used_is_a_fault_and_no_exception(payload, fault, fault_server) -> None:
    fault_server.json(payload)
    answer = asked(Address(fault_server.url, {}, 5.0))
    assert answer.series == {}
    assert re.search(fault, answer.faults["DE"]), answer.faults
    assert "\n" not in answer.faults["DE"]


def test_a_refusal_shows_no_secret(fault_server) -> None:
    from pydantic import SecretStr

    fault_server.reply("no plan for key s3cr3t-token", status=403)
    answer = asked(Address(fault_server.url, {"auth-token": SecretStr("s3cr3t-token")}, 5.0))
    assert answer.faults["DE"] == "answered 403: no plan for key ***"


def test_a_server_that_does_not_answer_costs_the_time_agreed(fault_server) -> None:
    fault_server.silence()
    begin = datetime.now(UTC)
    answer = asked(Address(fault_server.url, {}, 0.3), seconds=0.3)
    assert datetime.now(UTC) - begin < timedelta(seconds=3)
    assert set(answer.faults) == {"DE"}


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_function_that_hangs_is_left_alone_and_not_called_again(hanging) -> None:
    calls = []

    def forecast(zone: str) -> list[dict[str, object]]:
        calls.append(zone)
        if zone == "FR":
            hanging.wait()
        return [{"datetime": NOW, "carbon_intensity_g_per_kwh": 7}]

    bounded = Bounded(lambda: Called("mine", forecast), 0.2)
    for _ in range(3):
        answer = bounded.ask(["DE", "FR"], NOW)
        assert answer.series["DE"].g_per_kwh.tolist() == [7.0]
        assert answer.faults == {"FR": "no answer within 0.2 s"}
    assert calls == ["DE", "FR"]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (lambda zone: 1 / 0, "division by zero"),
        (lambda zone: [], "it has no forecast"),
        (
            lambda zone: [{"datetime": NOW.replace(tzinfo=None), "carbon_intensity_g_per_kwh": 1}],
            "allowed: a datetime with a zone",
        ),
        (lambda zone: [{"datetime": NOW, "value": 1}], "missing: ['carbon_intensity_g_per_kwh']"),
        (lambda zone: [{"datetime": NOW, "carbon_intensity_g_per_kwh": 5001}], "allowed is 0 to 5000"),
        (lambda zone: [(NOW, 1)], "found tuple, allowed: a pyarrow table or mappings"),
        (
            lambda zone: pa.table({"zone": ["FR"], "datetime": [NOW], "carbon_intensity_g_per_kwh": [1.0]}),
            "found ['FR']",
        ),
    ],
)
def test_a_function_of_someone_else_may_do_anything(rows, fault) -> None:
    assert fault in asked(Called("mine", rows)).faults["DE"]


def test_a_provider_of_ours() -> None:
    provider = SampleProvider()
    answer = asked(Called(provider.name, provider.forecast))
    assert len(answer.series["DE"].start) > 20
    assert asked(Called(provider.name, provider.forecast), "XX").faults["XX"]
