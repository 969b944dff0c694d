"""A real webserver and daemon on loopback over a home of its own, started once for all end-to-end tests that need no other, and
ended with the last of them: a daemon takes its part of two cores."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from greenops_pipelines.integrations.server import running
from greenops_pipelines.process.ports import free_port
from greenops_pipelines.settings import load_settings
from tests.patience import PATIENCE

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Site:
    """The running UI."""

    url: str
    home: Path

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of a GraphQL query; fails on any error."""
        answer = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60)
        body = answer.json()
        assert "errors" not in body, body["errors"]
        return body["data"]

    def until(self, look: Callable[[], Any], seconds: float) -> Any:
        """The first true answer of `look`; fails with the daemon's log when there is none in time.

        `seconds` are those of a fast machine with nothing else to do.
        """
        deadline = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(0.5)
        log = (self.home / "logs" / "dagster-daemon.log").read_text(encoding="utf-8")
        pytest.fail(f"not within {seconds * PATIENCE} s; the daemon's log ends:\n{log[-3000:]}")


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("site")
    workspace = home / "workspace.yaml"
    workspace.write_text(
        f"load_from:\n  - python_module:\n      module_name: tests.e2e.minutely\n"
        f"      working_directory: {_ROOT}\n      location_name: greenops\n",
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GREENOPS_HOME", str(home))
        patch.setenv("GREENOPS_UI_PORT", str(free_port()))
        patch.setenv("GREENOPS_OPS_DIR", str(_ROOT / "ops"))
        patch.setenv("GREENOPS_DBT_DIR", str(_ROOT / "dbt"))
        patch.setenv("GREENOPS_CARBON_LOOKBACK_DAYS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]))
        settings = load_settings()
        with running(settings, workspace):
            yield Site(f"http://127.0.0.1:{settings.ui_port}", home)
