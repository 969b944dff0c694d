"""The definitions in a fresh interpreter: fast, silent, without reaching anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]

# Warnings of Dagster and its dependencies that loading cannot avoid, each with its reason.
_KNOWN = (
    # The only way to fetch a range of days in one run; in beta since 1.5 and unchanged.
    ("BetaWarning", "Parameter `backfill_policy` of function `asset`"),
    # Dagster's configurable resources ask pydantic models for `__fields__`.
    ("PydanticDeprecatedSince20", "The `__fields__` attribute is deprecated"),
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict:
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "GREENOPS_HOME": str(home), "PYTHONPATH": str(_ROOT)}
    # The first load of a clone parses dbt's manifest; from then on it is read.
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("load.py")],
            capture_output=True,
            text=True,
            env=environment,
            cwd=_ROOT,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_whole_graph_is_there(loaded: dict) -> None:
    assert loaded["assets"] >= 13


def test_loading_takes_less_than_five_seconds_of_cpu(loaded: dict) -> None:
    assert loaded["cpu_seconds"] < 5


def test_loading_warns_of_nothing_that_is_ours(loaded: dict) -> None:
    ours = [
        (category, message, filename)
        for category, message, filename in loaded["warnings"]
        # The environment may lie inside the repository: what is installed there is not ours.
        if (str(_ROOT) in filename and "site-packages" not in filename)
        or not any(category == c and message.startswith(m) for c, m in _KNOWN)
    ]
    assert ours == []


def test_loading_connects_to_nothing_and_writes_nothing(loaded: dict) -> None:
    assert loaded["connections"] == []
    assert loaded["written"] == []


def test_loading_leaves_heavy_libraries_alone(loaded: dict) -> None:
    assert loaded["heavy"] == []
