"""A small platform: three areas, one tenant bound to the EU and one bound to nothing. And what child processes do."""

from __future__ import annotations

from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pandas as pd  # noqa: F401 - for the server that forks children to have it: pyarrow imports it at its first table

from greenops_pipelines.carbon.regions import Region, Tenant, read_regions, read_tenants
from greenops_pipelines.errors import BadInput
from greenops_pipelines.placement.acceptance import Submissions
from greenops_pipelines.placement.submissions import take_inbox
from greenops_pipelines.settings import Settings

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)

REGIONS = """\
regions:
  - {region: eu-central-1, zone: DE, pue: 1.35, pue_source: x, residency: eu, primary: true}
  - {region: eu-west-1, zone: IE, pue: 1.11, pue_source: x, residency: eu}
  - {region: eu-north-1, zone: SE-SE3, pue: 1.10, pue_source: x, residency: eu}
  - {region: eu-west-2, zone: GB, pue: 1.135, pue_source: x, residency: uk}
  - {region: us-east-1, zone: US-MIDA-PJM, pue: 1.15, pue_source: x, residency: us, primary: true}
"""
TENANTS = """\
tenants:
  - {tenant: acme, residency: eu, home_region: eu-central-1}
  - {tenant: beta, residency: any, home_region: us-east-1}
"""
PLACEMENT = """\
placement:
  horizon_hours: 24
  rtt_ms:
    eu-central-1: {eu-west-1: 25, eu-north-1: 24, eu-west-2: 15}
workloads: []
"""


def small_ops(folder: Path, workloads: str = PLACEMENT) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "regions.yaml").write_text(REGIONS)
    (folder / "tenants.yaml").write_text(TENANTS)
    (folder / "workloads.yaml").write_text(workloads)
    return folder


def declared(folder: Path) -> tuple[tuple[Region, ...], tuple[Tenant, ...]]:
    regions = read_regions(folder)
    return regions, read_tenants(folder, regions)


def document(key: str = "month-end", **changes: Any) -> dict[str, Any]:
    """A submission of acme for tomorrow; a change to `...` takes the field away."""
    fields: dict[str, Any] = {
        "key": key,
        "workload": "ad-hoc-report",
        "kind": "batch",
        "tenant": "acme",
        "earliest_start": "2026-11-26T18:00:00Z",
        "window_minutes": 600,
        "duration_minutes": 45,
        "power_kw": 0.5,
        "runner": {"kind": "local", "command": ["true"], "timeout_minutes": 60},
    }
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def submit_all(settings: Settings, keys: list[str], begin: Barrier, answers: Connection) -> None:
    """Submits every key, and sends how often each answer came."""
    submissions, counted = Submissions.of(settings), {"accepted": 0, "already accepted": 0}
    begin.wait()
    for key in keys:
        counted[submissions.accept(document(key), now=NOW).state] += 1
    answers.send(counted)


def submit_different(settings: Settings, keys: list[str], width: int, begin: Barrier, answers: Connection) -> None:
    """Submits every key with a width of its own, and sends the keys that were accepted."""
    submissions, won = Submissions.of(settings), []
    begin.wait()
    for key in keys:
        try:
            submissions.accept(document(key, width=width), now=NOW)
        except BadInput:
            continue
        won.append(key)
    answers.send(won)


def sweep(settings: Settings, ready: Connection) -> None:
    ready.send(None)
    take_inbox(settings, now=NOW)
