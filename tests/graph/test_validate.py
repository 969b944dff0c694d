"""What CI of any Dagster project runs first."""

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def test_dagster_definitions_validate(tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path), "GREENOPS_HOME": str(tmp_path / "home")},
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert "Validation successful for code location greenops" in done.stderr + done.stdout
