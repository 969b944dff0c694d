"""A home for canary drills, and what a drill may leave behind."""

from datetime import datetime
from pathlib import Path

import psutil
import pytest

from greenops_pipelines.settings import Settings, load_settings
from greenops_pipelines.slo import drill_plans
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.drill_results import Spec

ROOT = Path(__file__).parents[2]


def home(path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a home below `path`, with the repository's declarations."""
    monkeypatch.setenv("GREENOPS_HOME", str(path / "home"))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(ROOT / "ops"))
    monkeypatch.setenv("GREENOPS_DBT_DIR", str(ROOT / "dbt"))
    # A second signature by another program takes a second each; tests/evidence has it.
    monkeypatch.setenv("GREENOPS_EVIDENCE_GPG", "off")
    return load_settings()


def quick_drill(canaries: Canaries, newest: datetime | None, now: datetime) -> list[Spec]:
    """In place of `drill_plans.first`: the same twenty times as fast. The whole graph is not made to wait two minutes."""
    return [
        drill_plans.spec(canaries, "errors-100", "reporting", breach_after_s=65, speed=20)
        for _ in [newest]
        if newest is None
    ]


def left_running(folder: Path) -> list[str]:
    """Processes whose command line names `folder`."""
    found = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [" ".join(words) for words in found if str(folder) in " ".join(words)]
