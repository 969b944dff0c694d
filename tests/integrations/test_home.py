"""The home that Dagster's processes share: its databases are whole before the first of them starts."""

import sqlite3
import subprocess
import sys
from pathlib import Path

from greenops_pipelines.settings import load_settings

_PREPARE = """
import sys
from greenops_pipelines.integrations.once import prepare_home
from greenops_pipelines.settings import load_settings
print("ready", flush=True)
sys.stdin.readline()
prepare_home(load_settings())
"""


def test_a_home_prepared_by_many_at_once_has_one_revision_per_database(tmp_path: Path, monkeypatch) -> None:
    """Without the lock two of them stamp the schedules' database, and nobody opens it again."""
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    processes = [
        subprocess.Popen([sys.executable, "-c", _PREPARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [p.stdout.readline() for p in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=120) and process.returncode for process in processes] == [0] * 4
    databases = sorted(load_settings().dagster_home.rglob("*.db"))
    assert {path.name for path in databases} >= {"runs.db", "index.db", "schedules.db"}
    for path in databases:
        with sqlite3.connect(path) as connection:
            assert len(connection.execute("select version_num from alembic_version").fetchall()) == 1, path
