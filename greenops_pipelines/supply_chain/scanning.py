"""Scans of an image's platform: by the scanners on this machine over its SBOM, and of reports that were handed in.

A report is kept as it was made, and judged anew whenever it is asked for. Not here: what counts (`gate.py`).
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import GreenopsError, ProviderError
from greenops_pipelines.evidence.signing import PublicKey
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.supply_tables import IMAGE_SCANS
from greenops_pipelines.store.objects import ObjectStore
from greenops_pipelines.supply_chain import components, exceptions, gate, published, scan_reports, scanner
from greenops_pipelines.supply_chain.components import Components
from greenops_pipelines.supply_chain.declared import Images
from greenops_pipelines.supply_chain.gate import Verdict
from greenops_pipelines.supply_chain.making import Made
from greenops_pipelines.supply_chain.scan_reports import ScanReport
from greenops_pipelines.supply_chain.subjects import Part
from greenops_pipelines.supply_chain.vouching import Scan

_log = logging.getLogger(__name__)

NO_SCANNER = "none"
HERE, HANDED_IN = "run here", "handed in"
_MAX_REPORT_BYTES = 256 << 20


@dataclass(frozen=True)
class Taken:
    """One scan: the report as it was made, or why there is none that can be read."""

    scanner: str
    origin: str
    document: bytes | None
    report: ScanReport | None
    scanned_at: datetime | None
    detail: str = ""


def take(
    digest: str, platform_digest: str, cyclonedx: bytes, reports: Path | None, folder: Path, now: datetime
) -> list[Taken]:
    """Every scan that can be had of the platform of an image now; empty where there is no scanner and no report."""
    return [*_here(cyclonedx, folder, now), *_handed_in({digest, platform_digest}, reports)]


def rows(
    image: str, digest: str, platform: str, taken: Sequence[Taken], store: ObjectStore
) -> list[dict[str, Any]]:
    """Rows of IMAGE_SCANS, their reports published; one that says so where there was no scan at all."""
    base = {"image_digest": digest, "platform": platform, "image": image}
    empty = dict.fromkeys(("version", "report_key", "report_sha256", "database_at", "scanned_at", "detail"))
    if not taken:
        return [base | empty | {"scanner": NO_SCANNER, "origin": NO_SCANNER, "detail": "no scanner"}]
    found = []
    for each in taken:
        row = base | empty | {"scanner": each.scanner, "origin": each.origin, "scanned_at": each.scanned_at}
        row["detail"] = each.detail or None
        if each.report is not None:
            row |= {"version": each.report.scanner_version or None, "database_at": each.report.database_built}
        if each.document is not None:
            at = published.publish(store, digest, platform, f"{each.scanner}.json", each.document)
            row |= {"report_key": at.key, "report_sha256": at.sha256}
        found.append(row)
    return found
