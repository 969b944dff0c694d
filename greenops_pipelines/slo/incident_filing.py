"""What a page prepared for its rollback, filed as signed evidence: once per incident. Not here: gathering it."""

from __future__ import annotations

import json

from greenops_pipelines.evidence.archive import Archive
from greenops_pipelines.evidence.statement import Figure
from greenops_pipelines.lake import Lake
from greenops_pipelines.slo.incident import Incident
from greenops_pipelines.slo.incident_evidence import prepare
from greenops_pipelines.slo.incidents import Ledger

CONTROL = "J1.3"
"""Alerts that page, and prepare a rollback."""


def file_all(ledger: Ledger, lake: Lake, archive: Archive, namespace: str) -> list[str]:
    """Files each page that has no bundle yet; the bundles. What cannot be filed now waits in the archive's queue.

    Killed between filing and noting it, the next call files a second bundle of the same incident, and that one stays noted.
    """
    filed = []
    for incident in ledger.unfiled():
        document = json.dumps(prepare(lake, incident, namespace), indent=2, ensure_ascii=False).encode()
        receipt = archive.file(
            CONTROL, f"incident {incident.incident}", _figures(incident), {"rollback.json": document}, "passed"
        )
        ledger.filed(incident.incident, receipt.id)
        filed.append(receipt.id)
    return filed


def _figures(incident: Incident) -> dict[str, Figure]:
    return {
        "peak burn, times the sustainable rate": incident.peak_burn,
        "budget spent, percent": incident.budget_spent_percent,
        "bad events": incident.bad,
        "opened at": incident.opened_at.isoformat(),
    }
