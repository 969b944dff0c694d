"""Settings -> the objects of the domain library. Used by `resources.py` and the command line alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenops_pipelines.carbon.sources import selections
from greenops_pipelines.cost import sources as cost
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.dbt import Project
from greenops_pipelines.lake.storage import LocalFolder, S3Bucket, Storage
from greenops_pipelines.lake.tables import DECLARED
from greenops_pipelines.settings import Settings

if TYPE_CHECKING:
    from greenops_pipelines.evidence.opening import Evidence


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


def rendered(settings: Settings) -> dict[str, dict[str, str]]:
    """Everything that is rendered for GitOps, by the domain that owns it: path to text."""
    from greenops_pipelines.slo import rendering

    return {"slo": rendering.files(rendering.read(settings.ops_dir))}


def evidence(settings: Settings) -> Evidence:
    """The evidence of this home: `.archive.file(...)`, `.verify(...)`."""
    # Imported late: cryptography and the time-stamp reader cost every process that loads the graph 0.2 s.
    from greenops_pipelines.evidence.opening import Evidence

    return Evidence(settings)
