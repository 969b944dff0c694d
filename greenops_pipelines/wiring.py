"""Settings -> the objects of the domain library. Used by `resources.py` and the command line alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from greenops_pipelines.carbon.regions import read_regions, read_tenants
from greenops_pipelines.carbon.sources import selections
from greenops_pipelines.cost import sources as cost
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.dbt import Project
from greenops_pipelines.lake.storage import LocalFolder, S3Bucket, Storage
from greenops_pipelines.lake.tables import DECLARED
from greenops_pipelines.settings import Settings

if TYPE_CHECKING:
    from greenops_pipelines.evidence.opening import Evidence
    from greenops_pipelines.recovery.declared import GameDays, Residency
    from greenops_pipelines.recovery.gameday import GameDay, Wanted


def storage(settings: Settings) -> Storage:
    """Where the lake lies: `GREENOPS_LAKE_URL`, else a folder in the home."""
    if settings.lake_url:
        return S3Bucket(settings.lake_url, settings.s3_endpoint, settings.s3_region)
    return LocalFolder(settings.home / "lake")


def dbt_project(settings: Settings) -> Project:
    """The SQL models, with manifest and scratch files in the home."""
    return Project(settings.dbt_dir, settings.home / "dbt")


def lake(settings: Settings) -> Lake:
    """The lake of this home."""
    project = dbt_project(settings)
    return Lake(
        storage(settings),
        settings.warehouse,
        {**selections(settings), **cost.selections(settings)},
        DECLARED,
        marts=lambda: [mart.table for mart in project.marts],
    )


def residency(settings: Settings) -> Residency:
    """Regions with their areas, and tenants with what they are bound to."""
    from greenops_pipelines.recovery.declared import Residency

    regions = read_regions(settings.ops_dir)
    tenants = read_tenants(settings.ops_dir, regions)
    return Residency(
        {region.region: region.residency for region in regions}, {tenant.tenant: tenant.residency for tenant in tenants}
    )


def gamedays(settings: Settings) -> GameDays:
    """What is drilled, held against the declared regions and tenants."""
    from greenops_pipelines.recovery.declared import read_gamedays

    return read_gamedays(settings.ops_dir, residency(settings))


def hold_gameday(settings: Settings, wanted: Wanted, progress: Callable[[str], None] = lambda _text: None) -> GameDay:
    """Holds a GameDay on this home."""
    from greenops_pipelines.recovery import gameday

    return gameday.hold(
        wanted,
        gamedays(settings),
        residency(settings),
        settings.recovery,
        evidence(settings).archive,
        lake(settings),
        progress=progress,
    )


def rendered(settings: Settings) -> dict[str, dict[str, str]]:
    """Everything that is rendered for GitOps, by the domain that owns it: path to text."""
    from greenops_pipelines.slo import rendering

    return {"slo": rendering.files(rendering.read(settings.ops_dir))}


def evidence(settings: Settings) -> Evidence:
    """The evidence of this home: `.archive.file(...)`, `.verify(...)`."""
    # Imported late: cryptography and the time-stamp reader cost every process that loads the graph 0.2 s.
    from greenops_pipelines.evidence.opening import Evidence

    return Evidence(settings)
