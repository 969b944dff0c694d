"""Programs that tests marked `real` or `real_go` need: found, or skipped with a reason, or failing where required."""

import os
import shutil

import pytest


def program(name: str, package: str) -> str:
    """The path of a program; skips where it is absent, fails where GREENOPS_REQUIRE_REAL=1 says it must be there."""
    found = shutil.which(name)
    if found:
        return found
    reason = f"{name} is not installed ({package})"
    if os.environ.get("GREENOPS_REQUIRE_REAL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
