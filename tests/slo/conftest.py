"""Other projects' cases, real peers, and a small valid document that tests spoil."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2].parent / "shared"

DOCUMENT = """
version: prometheus/v1
service: shop
slos:
  - name: availability
    objective: 99.9
    sli:
      events:
        error_query: sum(rate(http_requests_total{status="5xx"}[{{.window}}]))
        total_query: sum(rate(http_requests_total[{{.window}}]))
    alerting:
      name: ShopAvailability
"""


@pytest.fixture
def sloth_data() -> Path:
    folder = SHARED / "data" / "sloth"
    if not folder.is_dir():
        pytest.skip("missing: shared/data/sloth, other projects' cases beside the repository")
    return folder


def program(name: str, what: str) -> str:
    """The path of a real program; skips without it, fails where the run promised to have everything."""
    tools = os.environ.get("GREENOPS_TOOLS")
    found = shutil.which(name) or (shutil.which(name, path=f"{tools}/bin") if tools else None)
    if found:
        return found
    if os.environ.get("GREENOPS_REQUIRE_REAL") == "1":
        pytest.fail(f"GREENOPS_REQUIRE_REAL=1, and missing: {name} ({what})")
    pytest.skip(f"missing: {name} ({what})")
