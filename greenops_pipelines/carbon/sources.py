"""Settings -> the configured provider, and what its plain view shows."""

from __future__ import annotations

from collections.abc import Sequence

from greenops_pipelines.carbon.provider import Provider
from greenops_pipelines.settings import Settings


def provider(settings: Settings) -> Provider:
    """The provider that `GREENOPS_CARBON_PROVIDER` names. Raises `ConfigurationError` where a setting is missing."""
    match settings.carbon_provider:
        case "sample":
            from greenops_pipelines.carbon.sample import SampleProvider

            return SampleProvider()
        case "file":
            from greenops_pipelines.carbon.files import FileProvider

            return FileProvider(settings.carbon_path, settings.carbon_emission_factors)
        case "electricity-maps":
            from greenops_pipelines.carbon.electricity_maps import ElectricityMaps

            return ElectricityMaps.from_settings(settings)
        case "energy-charts":
            from greenops_pipelines.carbon.energy_charts import EnergyCharts

            return EnergyCharts.from_settings(settings)
        case "uk-neso":
            from greenops_pipelines.carbon.uk_neso import UkNeso

            return UkNeso.from_settings(settings)
        case "watttime":
            from greenops_pipelines.carbon.watttime import WattTime

            return WattTime.from_settings(settings)


_FIXED_FACTORS = {"sample": "lifecycle", "energy-charts": "lifecycle", "uk-neso": "direct", "watttime": "direct"}
"""Providers that offer one emission factor type only; the others follow the setting."""
_MARGINAL = frozenset({"watttime"})


def signal_of(settings: Settings) -> str:
    """What the configured provider's grams are: `average`, or `marginal`."""
    return "marginal" if settings.carbon_provider in _MARGINAL else "average"


def selections(settings: Settings) -> dict[str, dict[str, str]]:
    """Configured values of the lake's `selected_by` columns, per table, without reaching any source."""
    name = settings.carbon_provider
    intensity = {
        "provider": name,
        "signal": signal_of(settings),
        "emission_factor_type": _FIXED_FACTORS.get(name, settings.carbon_emission_factors),
    }
    usage = {"source": "file" if settings.usage_path else "sample"}
    return {"carbon_intensity": intensity, "carbon_forecast": intensity, "resource_usage": usage}


def zones_to_fetch(source: Provider, declared: Sequence[str]) -> list[str]:
    """The declared zones that the source has; from a file, every zone in it."""
    from greenops_pipelines.carbon.files import FileProvider

    if isinstance(source, FileProvider):
        return sorted(source.zones)
    return [zone for zone in declared if source.covers(zone)]
