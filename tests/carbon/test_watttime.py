"""WattTime against a real local server: login, renewal, marginal figures in grams, and nothing mixed or guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from greenops_pipelines.carbon.sources import selections, signal_of
from greenops_pipelines.carbon.watttime import WattTime
from greenops_pipelines.errors import ConfigurationError, ProviderError, TransientError
from greenops_pipelines.settings import Settings, load_settings
from tests.conftest import FaultServer

START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=5)
PASSWORD = "hunter2-s3cret"  # noqa: S105


def answer(*values: float | None, start: datetime = START, **meta: Any) -> dict[str, Any]:
    data = [{"point_time": (start + n * STEP).isoformat(), "value": value} for n, value in enumerate(values)]
    plain = {
        "region": "CAISO_NORTH",
        "signal_type": "co2_moer",
        "units": "lbs_co2_per_mwh",
        "data_point_period_seconds": 300,
        "generated_at": START.isoformat(),
        "warnings": [],
        "model": {"date": "2023-03-01"},
    }
    return {"data": data, "meta": plain | meta}


@pytest.fixture
def provider(fault_server: FaultServer) -> WattTime:
    regions = {"US-CAL-CISO": "CAISO_NORTH"}
    return WattTime(fault_server.url, "ops", SecretStr(PASSWORD), regions, attempts=2, sleep=lambda _: None)


def test_it_logs_in_once_and_pounds_per_mwh_become_grams_per_kwh(fault_server: FaultServer, provider: WattTime) -> None:
    fault_server.json({"token": "token-1"})
    fault_server.json(answer(1000, None, 0))
    fault_server.json(answer(500))
    table = provider.history("US-CAL-CISO", START, START + timedelta(hours=1))
    # 1,000 lb/MWh are 453.59237 kg/MWh.
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [453.59237, None, 0]
    assert table["datetime"].to_pylist() == [START, START + STEP, START + 2 * STEP]
    assert set(table["signal"].to_pylist()) == {"marginal"}
    assert set(table["emission_factor_type"].to_pylist()) == {"direct"}
    assert set(table["resolution_minutes"].to_pylist()) == {5}
    provider.history("US-CAL-CISO", START, START + timedelta(hours=1))
    login, first, second = fault_server.requests
    assert (login.path, login.headers["authorization"]) == ("/login", "Basic b3BzOmh1bnRlcjItczNjcmV0")
    assert first.headers["authorization"] == second.headers["authorization"] == "Bearer token-1"
    assert first.query == {
        "region": "CAISO_NORTH", "signal_type": "co2_moer",
        "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T01:00:00Z",
    }  # fmt: skip


def test_a_token_that_ran_out_is_renewed_once(fault_server: FaultServer, provider: WattTime) -> None:
    for reply in ({"token": "token-1"}, answer(1)):
        fault_server.json(reply)
    provider.forecast("US-CAL-CISO")
    fault_server._replies.clear()
    fault_server.json({"error": "expired"}, status=401)
    fault_server.json({"token": "token-2"})
    fault_server.json(answer(2))
    assert provider.forecast("US-CAL-CISO").num_rows == 1
    assert [request.headers["authorization"] for request in fault_server.requests[2:]] == [
        "Bearer token-1", "Basic b3BzOmh1bnRlcjItczNjcmV0", "Bearer token-2",
    ]  # fmt: skip
    fault_server._replies.clear()
    fault_server.json({"error": "expired"}, status=401)
    fault_server.json({"token": "token-3"})
    fault_server.json({"error": "still not"}, status=401)
    with pytest.raises(ProviderError, match="US-CAL-CISO: refused with status 401: still not"):
        provider.forecast("US-CAL-CISO")


def test_more_than_31_days_are_asked_for_in_pieces(fault_server: FaultServer, provider: WattTime) -> None:
    fault_server.json({"token": "token-0"})
    fault_server.json(answer(1))
    fault_server.json(answer(2, start=START + timedelta(days=32)))
    table = provider.history("US-CAL-CISO", START, START + timedelta(days=40))
    assert table["datetime"].to_pylist() == [START, START + timedelta(days=32)]
    assert [(r.query["start"][:10], r.query["end"][:10]) for r in fault_server.requests[1:]] == [
        ("2026-01-01", "2026-02-01"),
        ("2026-02-01", "2026-02-10"),
    ]


def test_a_forecast_is_issued_when_it_was_generated_and_leaves_out_nulls(
    fault_server: FaultServer, provider: WattTime
) -> None:
    fault_server.json({"token": "token-0"})
    fault_server.json(answer(1000, None, 2000))
    table = provider.forecast("US-CAL-CISO")
    assert table["issued_at"].to_pylist() == [START, START]
    assert table["carbon_intensity_g_per_kwh"].to_pylist() == [453.59237, 907.18474]


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"region": "PJM_DC"}, "asked for the region CAISO_NORTH, the answer is for PJM_DC"),
        ({"signal_type": "health_damage"}, "asked for the signal co2_moer, the answer is for health_damage"),
        ({"units": "kg"}, "asked for the units lbs_co2_per_mwh, the answer is for kg"),
        ({"data_point_period_seconds": 900}, "asked for the step 300, the answer is for 900"),
    ],
)
def test_an_answer_to_another_question_is_refused(
    fault_server: FaultServer, provider: WattTime, meta: dict[str, Any], words: str
) -> None:
    fault_server.json({"token": "token-0"})
    fault_server.json(answer(1, **meta))
    with pytest.raises(ProviderError, match=words):
        provider.forecast("US-CAL-CISO")


def test_refusals_say_why_and_no_secret(fault_server: FaultServer, provider: WattTime) -> None:
    fault_server.json({"error": f"no such user {PASSWORD}"}, status=403)
    with pytest.raises(ProviderError, match="the login was refused with status 403") as refused:
        provider.forecast("US-CAL-CISO")
    assert PASSWORD not in str(refused.value)
    assert "Basic" not in str(refused.value)
    fault_server._replies.clear()
    fault_server.json({"token": "token-0"})
    fault_server.json({"message": "your plan lacks this region"}, status=403)
    with pytest.raises(ProviderError, match="refused with status 403: your plan lacks this region"):
        provider.forecast("US-CAL-CISO")
    with pytest.raises(ProviderError, match="zone DE has no region in GREENOPS_WATTTIME_REGIONS, allowed: US-CAL-CISO"):
        provider.forecast("DE")
    fault_server._replies.clear()
    fault_server.json({}, status=429, Retry_After="1")
    with pytest.raises(TransientError):
        provider.forecast("US-CAL-CISO")


@pytest.mark.parametrize("missing", ["CARBON_USER", "CARBON_PASSWORD"])
def test_what_is_not_configured_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name, value in {"CARBON_USER": "u", "CARBON_PASSWORD": "p"}.items():
        monkeypatch.setenv(f"GREENOPS_{name}", "" if name == missing else value)
    with pytest.raises(ConfigurationError, match=f"^GREENOPS_{missing}: found nothing"):
        WattTime.from_settings(load_settings())


def test_regions_are_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(watttime_regions="DE=DE, US-CAL-CISO=CAISO_NORTH").watttime_region_of == {
        "DE": "DE",
        "US-CAL-CISO": "CAISO_NORTH",
    }
    monkeypatch.setenv("GREENOPS_WATTTIME_REGIONS", "DE")
    with pytest.raises(ConfigurationError, match=r"GREENOPS_WATTTIME_REGIONS: found 'DE'; .*zone=region pairs"):
        load_settings()


def test_the_plain_view_of_it_is_marginal_and_nothing_else() -> None:
    shown = selections(Settings(carbon_provider="watttime"))["carbon_intensity"]
    assert shown == {"provider": "watttime", "signal": "marginal", "emission_factor_type": "direct"}
    assert signal_of(Settings(carbon_provider="energy-charts")) == "average"
