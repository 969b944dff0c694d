"""Settings -> provider: each name gives its provider, and the views show what that provider is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from greenops_pipelines import wiring
from greenops_pipelines.carbon.ingest import ingest_history
from greenops_pipelines.carbon.sample import SampleProvider
from greenops_pipelines.carbon.sources import provider, selections, zones_to_fetch
from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.lake import query
from greenops_pipelines.settings import CarbonProvider, Settings
from tests.carbon.small_lake import ROOT, at

TOKEN = SecretStr("t0ken")
DECLARED = ["DE", "GB", "FR"]


def settings(folder: Path, **values: Any) -> Settings:
    account = {"carbon_user": "u", "carbon_password": SecretStr("p"), "watttime_regions": "DE=DE"}
    given = {"home": folder / "home", "ops_dir": ROOT / "ops", "dbt_dir": ROOT / "dbt"} | account | values
    return Settings(_env_file=None, **given)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "ci.csv"
    path.write_text(
        "datetime,zone,carbon_intensity_g_per_kwh\n2026-03-01T00:00Z,DE,777\n2026-03-01T00:00Z,PL,800\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("factors", ["lifecycle", "direct"])
@pytest.mark.parametrize("name", get_args(CarbonProvider))
def test_each_name_gives_its_provider_and_the_views_that_fit_it(
    tmp_path: Path, csv: Path, name: str, factors: str
) -> None:
    """A selection that differs from what the provider writes would show an empty view for ever."""
    configured = settings(
        tmp_path, carbon_provider=name, carbon_emission_factors=factors, carbon_path=str(csv), carbon_token=TOKEN
    )
    source = provider(configured)
    assert source.name == name
    shown = {"provider": name, "signal": source.signal, "emission_factor_type": source.emission_factor_type}
    chosen = selections(configured)
    assert chosen["carbon_intensity"] == chosen["carbon_forecast"] == shown


def test_the_emission_factors_can_be_chosen_where_the_source_offers_both(tmp_path: Path, csv: Path) -> None:
    def chosen(name: str) -> str:
        configured = settings(
            tmp_path, carbon_provider=name, carbon_emission_factors="direct", carbon_path=str(csv), carbon_token=TOKEN
        )
        return provider(configured).emission_factor_type

    assert {name: chosen(name) for name in get_args(CarbonProvider)} == {
        "sample": "lifecycle",
        "file": "direct",
        "electricity-maps": "direct",
        "energy-charts": "lifecycle",
        "uk-neso": "direct",
        "watttime": "direct",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", r"^GREENOPS_CARBON_PATH: not set; the provider `file` needs a file or a glob$"),
        ("electricity-maps", r"^GREENOPS_CARBON_TOKEN: "),
    ],
)
def test_a_missing_setting_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        provider(settings(tmp_path, carbon_provider=name))


def test_usage_is_shown_from_where_it_is_configured(tmp_path: Path) -> None:
    assert selections(settings(tmp_path))["resource_usage"] == {"source": "sample"}
    assert selections(settings(tmp_path, usage_path="u.csv"))["resource_usage"] == {"source": "file"}


def test_the_declared_zones_that_a_source_has_are_fetched_and_every_zone_of_a_file(tmp_path: Path, csv: Path) -> None:
    assert zones_to_fetch(SampleProvider(), ["DE", "PL", "GB"]) == ["DE", "GB"]
    assert zones_to_fetch(provider(settings(tmp_path, carbon_provider="uk-neso")), DECLARED) == ["GB"]
    assert zones_to_fetch(provider(settings(tmp_path, carbon_provider="file", carbon_path=str(csv))), DECLARED) == [
        "DE",
        "PL",
    ]


def test_the_warehouse_shows_the_configured_provider_and_follows_a_switch(tmp_path: Path, csv: Path) -> None:
    sample = settings(tmp_path)
    file = settings(tmp_path, carbon_provider="file", carbon_path=str(csv))

    def shown(configured: Settings) -> list[tuple[Any, ...]]:
        wiring.lake(configured).refresh()
        sql = "select provider, zone, carbon_intensity_g_per_kwh as g from carbon_intensity order by 2"
        rows = query.run(configured.warehouse, wiring.storage(configured), sql)
        return [tuple(row.values()) for row in rows.to_pylist()]

    for configured in (sample, file):
        source = SampleProvider(lambda: at(12)) if configured is sample else provider(configured)
        zones = zones_to_fetch(source, ["DE"])
        ingest_history(source, wiring.lake(configured), zones, at(0), at(1), "run-1", at(12))

    (modelled,) = shown(sample)
    assert modelled[:2] == ("sample", "DE")
    assert modelled[2] != 777
    assert shown(file) == [("file", "DE", 777.0), ("file", "PL", 800.0)]
    assert shown(sample) == [modelled]
