"""The gate's word on images: every scan of a platform, the advisories, the exceptions, put together.

Several scans: what any of them finds counts; that one finds nothing counts only where it is believed. Not here: what is
believed, and what counts (`gate.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.errors import ProviderError
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.supply_tables import ADVISORIES, IMAGE_VERDICTS, VULNERABILITIES
from greenops_pipelines.store.objects import ObjectStore
from greenops_pipelines.supply_chain import advisories, components, gate, published, scanning, vouching
from greenops_pipelines.supply_chain.advisories import Snapshot
from greenops_pipelines.supply_chain.components import Components
from greenops_pipelines.supply_chain.declared import Gate
from greenops_pipelines.supply_chain.exceptions import Exceptions, Exemption
from greenops_pipelines.supply_chain.gate import FAILED, NO_SCANNER, PASSED, GatePolicy, Verdict
from greenops_pipelines.supply_chain.scan_reports import Match
from greenops_pipelines.supply_chain.scanning import Taken
from greenops_pipelines.supply_chain.severity import Severity

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Knowledge:
    """What every image is held against: advisories with their date, exceptions, and what counts."""

    index: advisories.Index | None
    as_of: datetime | None
    count: int
    exceptions: Exceptions
    policy: GatePolicy


@dataclass(frozen=True)
class Judged:
    """The verdict on one platform, and the scans it rests on."""

    verdict: Verdict
    taken: tuple[Taken, ...]
    believed: tuple[Taken, ...]

    @property
    def all_matches(self) -> tuple[tuple[Match, Exemption | None, bool], ...]:
        """Every vulnerability: with the exception that excuses it, and whether it counts."""
        found = self.verdict
        return (
            *((match, None, True) for match in found.counted),
            *((match, exemption, False) for match, exemption in found.excused),
            *((match, None, False) for match in found.uncounted),
        )


def knowledge(lake: Lake, declared: Gate, exceptions: Exceptions) -> Knowledge:
    """The advisories of the lake, indexed once for all images."""
    rows = lake.read(ADVISORIES)
    found = advisories.of_table(rows)
    as_of = pc.max(rows["snapshot_at"]).as_py() if found else None
    policy = GatePolicy(tuple(declared.severities), declared.database_days, declared.scan_days)
    index = advisories.Index(found) if found else None
    return Knowledge(index, as_of, len(found), exceptions, policy)


def take_advisories(snapshot: Snapshot | None) -> pa.Table:
    """Rows of ADVISORIES; none where no snapshot is configured."""
    if snapshot is None:
        return ADVISORIES.schema.empty_table()
    rows = advisories.table(snapshot.advisories)
    at = pa.array([snapshot.as_of] * rows.num_rows, ADVISORIES.schema.field("snapshot_at").type)
    return rows.set_column(rows.schema.get_field_index("snapshot_at"), ADVISORIES.schema.field("snapshot_at"), at)


def judge(
    taken: Sequence[Taken],
    listed: Components | None,
    known: Knowledge,
    *,
    digest: str,
    others: Sequence[str],
    sbom_sha256: str,
    now: datetime,
) -> Judged:
    """The verdict on one platform. `others` name the same image: its configuration, an index that holds nothing else.

    Without `listed`, what its SBOM lists, no scan is believed.
    """
    matches = known.index.matches(listed) if known.index and listed else ()
    verdicts = [
        gate.judge(
            each.report if each else None,
            listed,
            known.exceptions,
            image_digest=digest,
            now=now,
            policy=known.policy,
            other_digests=others,
            sbom_sha256=sbom_sha256,
            report_fault=each.fault if each else "",
            advisories=matches,
            advisories_as_of=known.as_of,
        )
        for each in (taken or (None,))
    ]
    good = [(each, verdict) for each, verdict in zip(taken, verdicts, strict=False) if not verdict.faults]
    if not good:
        return Judged(_joined(verdicts), tuple(taken), ())
    # What an old scan of this very image has found does not go away with its age: only its silence says nothing.
    heard = [
        replace(verdict, faults=(), remarks=(*verdict.remarks, *(f"{each.scanner}: {said}" for said in verdict.faults)))
        for each, verdict in zip(taken, verdicts, strict=False)
        if not verdict.faults or _is_of(each, {digest, *others}, sbom_sha256)
    ]
    return Judged(_joined(heard), tuple(taken), tuple(each for each, _ in good))


def _is_of(taken: Taken, digests: Collection[str], sbom_sha256: str) -> bool:
    report = taken.report
    if report is None:
        return False
    return report.of_sbom == sbom_sha256 if report.of_sbom else not set(report.digests).isdisjoint(digests)


def in_use(lake: Lake, store: ObjectStore, known: Knowledge, now: datetime) -> list[tuple[Mapping[str, Any], Judged]]:
    """The verdict on every platform of every image in use that has an SBOM."""
    rows = lake.query(
        "select s.* from sboms as s semi join images using (image_digest) order by s.image, s.image_digest, s.platform"
    ).to_pylist()
    scans: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for scan in lake.query("select * from image_scans order by scanner, origin").to_pylist():
        scans.setdefault((scan["image_digest"], scan["platform"]), []).append(scan)
    return [
        (row, of_row(row, scans.get((row["image_digest"], row["platform"]), ()), store, known, now)) for row in rows
    ]


def of_row(
    row: Mapping[str, Any], scans: Sequence[Mapping[str, Any]], store: ObjectStore, known: Knowledge, now: datetime
) -> Judged:
    """As `judge`, for a row of SBOMS and the rows of IMAGE_SCANS about it, documents read out of the store."""
    listed = None
    try:
        listed = components.read(published.read(store, row["cyclonedx_key"], row["cyclonedx_sha256"]))
    except ProviderError as error:
        # One image's fault: the others are judged all the same.
        _log.warning("%s@%s: %s", row["image"], row["image_digest"], error)
    taken = [scanning.again(each, store) for each in scans if each["scanner"] != scanning.NO_SCANNER]
    if listed is None and not taken:
        taken = [Taken(scanning.NO_SCANNER, scanning.NO_SCANNER, fault="its SBOM cannot be read")]
    return judge(
        taken,
        listed,
        known,
        digest=row["platform_digest"],
        others=others(row),
        sbom_sha256=row["cyclonedx_sha256"],
        now=now,
    )


def others(row: Mapping[str, Any]) -> list[str]:
    """Other names of the very image of a row of SBOMS."""
    return [each for each in (row["config_digest"], row["image_digest"] if row["is_only"] else None) if each]


def tables(
    judged: Sequence[tuple[Mapping[str, Any], Judged]], known: Knowledge, now: datetime
) -> tuple[pa.Table, pa.Table]:
    """Rows of VULNERABILITIES and IMAGE_VERDICTS, for rows of SBOMS with their verdicts."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    verdicts = []
    for row, each in judged:
        base = {name: row[name] for name in ("image", "image_digest", "platform")}
        for match, exemption, is_counted in each.all_matches:
            key = (row["image_digest"], row["platform"], match.id, match.package, match.version, match.source)
            found.setdefault(key, base | _match(match, exemption, is_counted))
        verdict = each.verdict
        verdicts.append(
            base
            | {
                "outcome": verdict.outcome,
                "counted": len(verdict.counted),
                "excused": len(verdict.excused),
                "faults": "\n".join((*verdict.faults, *verdict.remarks)) or None,
                "advisories": known.count,
                "scanned_at": verdict.scanned_at,
                "judged_at": now,
            }
        )
    ordered = [found[key] for key in sorted(found)]
    return (
        pa.Table.from_pylist(ordered, schema=VULNERABILITIES.schema),
        pa.Table.from_pylist(verdicts, schema=IMAGE_VERDICTS.schema),
    )


def attested(judged: Judged) -> vouching.Scan | None:
    """What may be attested of a scan: None where there was none."""
    verdict = judged.verdict
    scans = [each.report for each in (judged.believed or judged.taken) if each.report is not None]
    if not scans or verdict.scanned_at is None:
        return None
    counts = {severity.name: 0 for severity in Severity}
    for match in (*verdict.counted, *verdict.uncounted):
        counts[match.severity.name] += 1
    outcome = vouching.NOT_BELIEVED if verdict.faults else vouching.FAILED if verdict.counted else vouching.PASSED
    result = {
        "outcome": outcome,
        "counts": counts,
        "excused": sorted({match.id for match, _ in verdict.excused}),
        "faults": list(verdict.faults),
    }
    first = scans[0]
    names = ", ".join(sorted({each.scanner for each in scans}))
    return vouching.Scan(names, first.scanner_version, first.database_built, verdict.scanned_at, result)


def _joined(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict of several, none of which is believed less than the others."""
    if len(verdicts) == 1:
        return verdicts[0]
    counted = {(each.id, each.package_key): each for verdict in verdicts for each in verdict.counted}
    excused = {(each.id, each.package_key): (each, by) for verdict in verdicts for each, by in verdict.excused}
    slight = {(each.id, each.package_key): each for verdict in verdicts for each in verdict.uncounted}
    faults = tuple(dict.fromkeys(fault for verdict in verdicts for fault in verdict.faults))
    scanned = [verdict.scanned_at for verdict in verdicts if verdict.scanned_at is not None]
    outcomes = {verdict.outcome for verdict in verdicts}
    return Verdict(
        outcome=NO_SCANNER if outcomes == {NO_SCANNER} else PASSED if outcomes == {PASSED} else FAILED,
        counted=tuple(counted.values()),
        excused=tuple(found for key, found in excused.items() if key not in counted),
        uncounted=tuple(found for key, found in slight.items() if key not in counted and key not in excused),
        faults=faults,
        remarks=tuple(dict.fromkeys(remark for verdict in verdicts for remark in verdict.remarks)),
        scanned_at=min(scanned, default=None),
    )


def _match(match: Match, exemption: Exemption | None, is_counted: bool) -> dict[str, Any]:
    return {
        "id": match.id,
        "severity": match.severity.name,
        "package": match.package,
        "version": match.version,
        "purl": match.purl or None,
        "fixed_in": match.fixed_in or None,
        "aliases": ", ".join(match.aliases) or None,
        "source": match.source,
        "is_counted": is_counted,
        "excused_by": f"{exemption.status}, {exemption.author}: {exemption.file}" if exemption else None,
        "expires_at": exemption.expires_at if exemption else None,
    }
