"""The project's own declarations, rendered once; an empty lake; a panel by its title."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from greenops_pipelines import observed
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.tables import DECLARED
from greenops_pipelines.observability import links
from greenops_pipelines.observability.subjects import Subjects
from greenops_pipelines.slo import rendering
from greenops_pipelines.slo.canary import read_canary

ROOT = Path(__file__).parents[2]
OVERVIEW = "observability/dashboards/slo-overview.json"


@pytest.fixture(scope="session")
def subjects() -> Subjects:
    slos = rendering.read(ROOT / "ops")
    return observed.subjects(slos, read_canary(ROOT / "ops", slos.declared, slos.slos, slos.catalogue))


@pytest.fixture(scope="session")
def rendered(subjects: Subjects) -> dict[str, str]:
    return observed.files(subjects)


@pytest.fixture(scope="session")
def dashboards(rendered: dict[str, str]) -> dict[str, dict[str, Any]]:
    """By uid."""
    found = [json.loads(text) for path, text in rendered.items() if path.endswith(".json")]
    return {each["uid"]: each for each in found}


@pytest.fixture(scope="session")
def overview(dashboards: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return dashboards["slo-overview"]


@pytest.fixture(scope="session")
def pages(rendered: dict[str, str]) -> links.Pages:
    return links.pages(rendered)


@pytest.fixture(scope="session")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Views of all declared tables, without a row."""
    home = tmp_path_factory.mktemp("home")
    lake = Lake(LocalFolder(home / "lake"), home / "warehouse.duckdb", {}, DECLARED)
    connection = lake.connect()
    yield connection
    connection.close()


def panel(dashboard: dict[str, Any], title: str) -> dict[str, Any]:
    return next(each for each in dashboard["panels"] if each["title"].startswith(title))


def queries_of(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]
