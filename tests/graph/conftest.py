"""One home for the graph's tests: three sample days, materialised once through Dagster on an ephemeral instance."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from greenops_pipelines import wiring
from greenops_pipelines.definitions import defs
from greenops_pipelines.lake import Lake
from greenops_pipelines.resources import Platform
from greenops_pipelines.settings import load_settings
from greenops_pipelines.slo import drill_plans
from tests.slo.canary_homes import quick_drill

MARTS = {
    *(f"carbon/{name}" for name in ("coverage_daily", "emissions_daily", "emissions_hourly", "emissions_monthly")),
    "carbon/sci_daily",
    "placement/avoided_monthly",
}
# Charges are weighed with the intensity of their hours: what holds emissions follows it, and what is made of that.
COSTS = {
    *(
        f"cost/{name}"
        for name in ("allocated_monthly", "charge_carbon", "daily", "monthly", "reconciliation", "report")
    ),
    *(f"cost/{name}" for name in ("anomalies_daily", "forecasts_daily", "units_daily")),
}
PLANNED = {"carbon/outlook", "placement/plan", "placement/settlements"}
FOLLOWERS = {*MARTS, *COSTS, *PLANNED, "lake/warehouse", "evidence/bundles", "report/scorecard", "report/carbon"}
"""What a new day of intensity has made anew."""


@dataclass(frozen=True)
class World:
    """A materialised home."""

    home: Path
    instance: dg.DagsterInstance
    first: str
    last: str
    daily: dg.ExecuteInProcessResult
    images: dg.ExecuteInProcessResult
    rest: dg.ExecuteInProcessResult

    def lake(self) -> Lake:
        return wiring.lake(load_settings())


def materialise(
    instance: dg.DagsterInstance,
    keys: list[dg.AssetKey],
    first: str = "",
    last: str = "",
    raise_on_error: bool = True,
    tags: dict[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run the assets through the graph's own job; a range of days where `first` is given."""
    if first:
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=keys,
        tags=tags or {},
        raise_on_error=raise_on_error,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def requested(instance: dg.DagsterInstance, cursor: object = None) -> tuple[set[str], object]:
    """What the conditions ask for now, and the cursor of the next look."""
    result = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=cursor)
    keys = {r.key.to_user_string() for r in result.results if not r.true_subset.is_empty and hasattr(r.key, "path")}
    return keys, result.cursor


def newest_day() -> date:
    """The newest UTC day of which an hour is over: in the first one of a day, nobody has an actual of it."""
    return (datetime.now(UTC) - timedelta(hours=1)).date()


def split() -> tuple[list[dg.AssetKey], list[dg.AssetKey]]:
    """Daily assets, and those without partitions."""
    graph = defs.resolve_asset_graph()
    keys = sorted(graph.materializable_asset_keys)
    daily = [k for k in keys if isinstance(graph.get(k).partitions_def, dg.DailyPartitionsDefinition)]
    return daily, [k for k in keys if graph.get(k).partitions_def is None]


def materialise_images(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """The assets that have a partition per image, for each image that is noticed now; what the last run says."""
    graph = defs.resolve_asset_graph()
    keys = [
        k
        for k in sorted(graph.materializable_asset_keys)
        if isinstance(graph.get(k).partitions_def, dg.DynamicPartitionsDefinition)
    ]
    digests = Platform().look_for_images().digests
    instance.add_dynamic_partitions("images", digests)
    for digest in digests:
        result = materialise(instance, keys, tags={"dagster/partition": digest})
    return result


@pytest.fixture(autouse=True)
def no_drill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Canary drills take minutes of the world's time; `world` holds one, quickly."""
    monkeypatch.setattr(drill_plans, "first", lambda *_: [])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("GREENOPS_HOME", str(home))
        patch.setattr(drill_plans, "first", quick_drill)
        last_day = newest_day()
        first, last = (last_day - timedelta(days=2)).isoformat(), last_day.isoformat()
        daily, rest = split()
        yield World(
            home,
            instance,
            first,
            last,
            materialise(instance, daily, first, last),
            materialise_images(instance),
            materialise(instance, rest),
        )
