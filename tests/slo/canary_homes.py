"""A home for canary drills, and what a drill may leave behind."""

from pathlib import Path

import psutil
import pytest

from greenops_pipelines.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]


def home(path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a home below `path`, with the repository's declarations."""
    monkeypatch.setenv("GREENOPS_HOME", str(path / "home"))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(ROOT / "ops"))
    monkeypatch.setenv("GREENOPS_DBT_DIR", str(ROOT / "dbt"))
    # A second signature by another program takes a second each; tests/evidence has it.
    monkeypatch.setenv("GREENOPS_EVIDENCE_GPG", "off")
    return load_settings()


def left_running(folder: Path) -> list[str]:
    """Processes whose command line names `folder`."""
    found = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [" ".join(words) for words in found if str(folder) in " ".join(words)]
