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
from greenops_pipelines.settings import load_settings


@dataclass(frozen=True)
class World:
    """A materialised home."""

    home: Path
    instance: dg.DagsterInstance
    first: str
    last: str
    daily: dg.ExecuteInProcessResult
    rest: dg.ExecuteInProcessResult

    def lake(self) -> Lake:
        return wiring.lake(load_settings())


def materialise(
    instance: dg.DagsterInstance, keys: list[dg.AssetKey], first: str = "", last: str = "", raise_on_error: bool = True
) -> dg.ExecuteInProcessResult:
    """Run the assets through the graph's own job; a range of days where `first` is given."""
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last} if first else {}
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=keys,
        tags=tags,
        raise_on_error=raise_on_error,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def newest_day() -> date:
    """The newest UTC day of which an hour is over: in the first one of a day, nobody has an actual of it."""
    return (datetime.now(UTC) - timedelta(hours=1)).date()


def split() -> tuple[list[dg.AssetKey], list[dg.AssetKey]]:
    """Daily assets, and all others."""
    graph = defs.resolve_asset_graph()
    daily = [k for k in graph.materializable_asset_keys if graph.get(k).partitions_def is not None]
    return sorted(daily), sorted(graph.materializable_asset_keys - set(daily))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("GREENOPS_HOME", str(home))
        last_day = newest_day()
        first, last = (last_day - timedelta(days=2)).isoformat(), last_day.isoformat()
        daily, rest = split()
        yield World(
            home,
            instance,
            first,
            last,
            materialise(instance, daily, first, last),
            materialise(instance, rest),
        )
