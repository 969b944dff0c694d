"""The user's page: its example loads as it stands."""

from pathlib import Path
from typing import Any

import dagster as dg

_PAGE = Path(__file__).parents[2] / "docs" / "dagster-projects.md"


def test_the_example_loads_and_is_running() -> None:
    code = _PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(compile(code, str(_PAGE), "exec", dont_inherit=True), found)  # noqa: S102 - the page is ours
    dg.Definitions.validate_loadable(found["defs"])
    assert found["nightly"].default_status is dg.DefaultSensorStatus.RUNNING
