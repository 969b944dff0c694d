"""Scans of an image's platform: by the scanners on this machine over its SBOM, and of reports that were handed in.

A report is kept as it was made, and read anew whenever it is judged. Not here: what counts (`gate.py`), whose word it is on
which image (`judging.py`).
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import ProviderError
from greenops_pipelines.store.objects import ObjectStore
from greenops_pipelines.supply_chain import published, scan_reports, scanner
from greenops_pipelines.supply_chain.scan_reports import MAX_REPORT_BYTES, ScanReport

_log = logging.getLogger(__name__)

NO_SCANNER = "none"
HERE, HANDED_IN = "run here", "handed in"
VERSION_SUFFIX = ".version.json"
"""Beside a Trivy report `x.json`, what `trivy --version -f json` says lies in `x.version.json`: the report has no age of its own."""
_MAX_REPORTS = 10_000


@dataclass(frozen=True)
class Taken:
    """One scan: the report as it was made, or why there is none although there should be."""

    scanner: str
    origin: str
    document: bytes | None = None
    report: ScanReport | None = None
    fault: str = ""


def take(cyclonedx: bytes, digests: Collection[str], reports: Path | None, scratch: Path, now: datetime) -> list[Taken]:
    """Every scan that can be had now of the image that `digests` name; empty where there is no scanner and no report.

    Raises `TransientError` where a scanner may answer later.
    """
    return [*_here(cyclonedx, scratch, now), *_handed_in(digests, reports)]


def is_possible(reports: Path | None) -> bool:
    """Whether there is a scanner here, or a report that was handed in."""
    return bool(scanner.found() or _files(reports))


def rows(base: Mapping[str, Any], taken: Sequence[Taken], store: ObjectStore) -> list[dict[str, Any]]:
    """Rows of IMAGE_SCANS, their reports published; one that says so where there was no scan at all.

    `base` are image_digest, platform and image.
    """
    empty = dict.fromkeys(("version", "report_key", "report_sha256", "of_sbom", "database_at", "scanned_at", "detail"))
    if not taken:
        return [{**base, **empty, "scanner": NO_SCANNER, "origin": NO_SCANNER, "detail": "no scanner"}]
    found = []
    for each in taken:
        row = {**base, **empty, "scanner": each.scanner, "origin": each.origin, "detail": each.fault or None}
        if each.report is not None and each.document is not None:
            at = published.publish(store, base["image_digest"], base["platform"], f"{each.scanner}.json", each.document)
            row |= {
                "version": each.report.scanner_version or None,
                "report_key": at.key,
                "report_sha256": at.sha256,
                "of_sbom": each.report.of_sbom or None,
                "database_at": each.report.database_built,
                "scanned_at": each.report.scanned_at,
            }
        found.append(row)
    return found


def again(row: Mapping[str, Any], store: ObjectStore) -> Taken:
    """The scan of a row of IMAGE_SCANS, its report read again out of the store."""
    if row["report_key"] is None:
        return Taken(row["scanner"], row["origin"], fault=row["detail"] or "there is no report")
    try:
        document = published.read(store, row["report_key"], row["report_sha256"])
        report = scan_reports.read(document, row["report_key"], database_built=row["database_at"])
    except ProviderError as error:
        return Taken(row["scanner"], row["origin"], fault=str(error))
    told = replace(
        report,
        scanner_version=row["version"] or "",
        of_sbom=row["of_sbom"] or "",
        database_built=row["database_at"],
        scanned_at=row["scanned_at"],
    )
    return Taken(row["scanner"], row["origin"], document, told)


def _here(cyclonedx: bytes, scratch: Path, now: datetime) -> Iterator[Taken]:
    programs = scanner.found()
    if not programs:
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scan-", dir=scratch) as folder:
        sbom = Path(folder) / "sbom.cdx.json"
        sbom.write_bytes(cyclonedx)
        for program in programs:
            try:
                done = program.scan(sbom, Path(folder))
            except ProviderError as error:
                yield Taken(program.name, HERE, fault=str(error))
            else:
                # It was made now, whatever its own clock says.
                yield Taken(program.name, HERE, done.document, replace(done.report, scanned_at=now))


def _handed_in(digests: Collection[str], folder: Path | None) -> list[Taken]:
    """The newest report of each scanner about one of `digests`.

    A file that cannot be read counts where its name or its text holds one.
    """
    newest: dict[str, Taken] = {}
    hashes = [digest.removeprefix("sha256:") for digest in digests]
    for path in _files(folder):
        is_about = is_named = any(each in path.name for each in hashes)
        try:
            if path.stat().st_size > MAX_REPORT_BYTES:
                raise ProviderError(f"{path.name}: found more than {MAX_REPORT_BYTES:,} bytes")
            document = path.read_bytes()
            is_about = is_named or any(each.encode() in document for each in hashes)
            if not is_about:
                continue  # unparsed: of a thousand reports, all but one are of other images
            report = scan_reports.read(document, path.name)
            if report.scanner == scan_reports.TRIVY:
                report = _dated(report, path)
        except (ProviderError, OSError) as error:
            fault = f"{path.name}: {error.strerror}" if isinstance(error, OSError) else str(error)
            _log.warning("scan report %s", fault)
            if is_about:
                newest.setdefault(f"unreadable {path.name}", Taken("unknown", HANDED_IN, fault=fault))
            continue
        if not set(report.digests).isdisjoint(digests):
            known = newest.get(report.scanner)
            if known is None or _is_newer(report, known.report):
                newest[report.scanner] = Taken(report.scanner, HANDED_IN, document, report)
        elif is_named:
            fault = f"{path.name}: it is of another image: {', '.join(report.digests) or 'it names none'}"
            newest.setdefault(f"other {path.name}", Taken(report.scanner, HANDED_IN, fault=fault))
    return _distinct(list(newest.values()))


def _files(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    found = sorted(path for path in folder.rglob("*.json") if path.is_file() and not path.name.endswith(VERSION_SUFFIX))
    if len(found) > _MAX_REPORTS:
        raise ProviderError(
            f"{folder.name}: found {len(found):,} scan reports, allowed: {_MAX_REPORTS:,}; remove old ones"
        )
    return found


def _dated(report: ScanReport, path: Path) -> ScanReport:
    beside = path.with_name(path.name.removesuffix(".json") + VERSION_SUFFIX)
    if not beside.is_file():
        return report
    version, built = scan_reports.trivy_database(beside.read_bytes(), beside.name)
    return replace(report, scanner_version=version, database_built=built)


def _is_newer(one: ScanReport, other: ScanReport | None) -> bool:
    if other is None or other.scanned_at is None:
        return True
    return one.scanned_at is not None and one.scanned_at > other.scanned_at


def _distinct(taken: list[Taken]) -> list[Taken]:
    """One per scanner: a report that was read wins over a file that was not."""
    found: dict[str, Taken] = {}
    for each in taken:
        if each.scanner not in found or (found[each.scanner].report is None and each.report is not None):
            found[each.scanner] = each
    return list(found.values())


def sha256(document: bytes) -> str:
    """Of an SBOM, as `gate.judge` compares it."""
    return hashlib.sha256(document).hexdigest()
