"""What is written down of incidents elsewhere: a page's rollback as signed evidence, once, and the copy in the lake.

Both are made by a run that may be killed or fail; `outstanding` says what is left to do. Not here: gathering the evidence
(`incident_evidence.py`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from greenops_pipelines.errors import GreenopsError
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import SLO_INCIDENTS
from greenops_pipelines.slo.incident import Incident
from greenops_pipelines.slo.incident_evidence import prepare
from greenops_pipelines.slo.incidents import Incidents, table

if TYPE_CHECKING:
    from greenops_pipelines.evidence.archive import Archive
    from greenops_pipelines.evidence.statement import Figure

CONTROL = "J1.3"
"""Alerts that page, and prepare a rollback."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outstanding:
    """The version of the incidents, whether the lake's table is this version, and how many pages have no evidence."""

    version: str
    is_recorded: bool
    unfiled: int

    def __bool__(self) -> bool:
        return self.unfiled > 0 or not self.is_recorded


def outstanding(incidents: Incidents, lake: Lake) -> Outstanding:
    """What a run that writes incidents down would still have to do, whoever was killed before."""
    now = version(table(incidents))
    return Outstanding(now, now == version(lake.read(SLO_INCIDENTS)), len(incidents.unfiled()))


def version(rows: pa.Table) -> str:
    """A digest of rows of SLO_INCIDENTS, whatever their order; empty where there are none."""
    text = json.dumps(rows.sort_by("incident").to_pylist(), default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if rows.num_rows else ""


def file_all(incidents: Incidents, lake: Lake, archive: Archive, namespace: str) -> list[str]:
    """Files each page that has no bundle yet; the bundles. What cannot be filed now waits in the archive's queue.

    What cannot be gathered is logged, stays `unfiled`, and keeps nothing else from being filed. Killed between filing and
    noting it, the next call files a second bundle of the same incident, and that one stays noted.
    """
    filed = []
    for incident in incidents.unfiled():
        try:
            document = json.dumps(prepare(lake, incident, namespace), indent=2, ensure_ascii=False).encode()
            receipt = archive.file(
                CONTROL, f"incident {incident.incident}", _figures(incident), {"rollback.json": document}, "passed"
            )
        except (GreenopsError, duckdb.Error) as error:
            _log.error("incident %s: its rollback is not prepared: %s", incident.incident, error)
            continue
        incidents.filed(incident.incident, receipt.id)
        filed.append(receipt.id)
    return filed


def _figures(incident: Incident) -> dict[str, Figure]:
    return {
        "peak burn, times the sustainable rate": incident.peak_burn,
        "budget spent, percent": incident.budget_spent_percent,
        "bad events": incident.bad,
        "opened at": incident.opened_at.isoformat(),
    }
