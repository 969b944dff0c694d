"""The vulnerability gate: whether an image may be shipped by what is known of it. What is not known fails.

Not here: how a report, an SBOM, advisories and exceptions are read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from greenops_pipelines.supply_chain.components import Components, Distribution
from greenops_pipelines.supply_chain.exceptions import CLOCKS, Exceptions, Exemption
from greenops_pipelines.supply_chain.scan_reports import TRIVY, Match, ScanReport
from greenops_pipelines.supply_chain.severity import Severity, counts

PASSED, FAILED, NO_SCANNER = "passed", "failed", "no scanner"

_SAME_DISTRIBUTION = {
    "redhat": "rhel",
    "oracle": "ol",
    "oraclelinux": "ol",
    "amazon": "amzn",
    "amazonlinux": "amzn",
    "alma": "almalinux",
    "rockylinux": "rocky",
    "opensuse.leap": "opensuse-leap",
    "suse linux enterprise server": "sles",
    "cbl-mariner": "mariner",
}
"""Grype's and Trivy's names of distributions to /etc/os-release's ID. Source: their lists of types and families."""


@dataclass(frozen=True)
class GatePolicy:
    """What counts, and how old what it rests on may be."""

    severities: tuple[str, ...] = ("HIGH", "CRITICAL")
    """What is at least the least of them counts, and what nobody has rated."""
    database_days: int = 5
    """From the database's making to the scan; and from the newest advisory of a snapshot until now."""
    scan_days: int = 7


@dataclass(frozen=True)
class Verdict:
    """`passed` only without a fault, and with nothing that counts."""

    outcome: str
    """passed, failed, or no scanner."""
    counted: tuple[Match, ...]
    excused: tuple[tuple[Match, Exemption], ...]
    uncounted: tuple[Match, ...]
    """Too slight."""
    faults: tuple[str, ...]
    """Why the scan is not believed."""
    remarks: tuple[str, ...]
    """What has to be known of single matches: unrated ones, versions that could not be compared, scanners' own exceptions."""
    scanned_at: datetime | None


def judge(
    report: ScanReport | None,
    components: Components | None,
    exceptions: Exceptions,
    *,
    image_digest: str,
    now: datetime,
    policy: GatePolicy = GatePolicy(),
    other_digests: Collection[str] = (),
    sbom_sha256: str = "",
    report_fault: str = "",
    advisories: Sequence[Match] = (),
    advisories_as_of: datetime | None = None,
) -> Verdict:
    """The verdict on one platform of one image.

    `components` are its SBOM's, whose SHA-256 is `sbom_sha256`. `other_digests` name this very image as well: its
    configuration (what Docker and Trivy call the image's id), an index that holds nothing else. `report_fault` is why there
    is no report although there should be one; with neither, there was no scanner, and that is the outcome. `advisories`
    are what `advisories.evaluate` found in a snapshot as of `advisories_as_of`.
    """
    digests = {image_digest, *other_digests}
    faults = [f"there is no report: {report_fault}"] if report_fault else []
    if components is None:
        faults.append("there is no SBOM to hold the scan against")
    else:
        faults += _unmatchable(components)
        faults += _emptiness(components, report)
    if report is not None:
        faults += _identity(report, digests, sbom_sha256)
        faults += _ages(report, now, policy)
        faults += _coverage(report, components)
    if advisories or advisories_as_of is not None:
        faults += _age("the newest advisory", advisories_as_of, now, policy.database_days)
    counted, excused, uncounted = [], [], []
    found = _distinct(report, advisories, policy)
    for match in found:
        if not counts(match.severity, policy.severities):
            uncounted.append(match)
        elif (exemption := exceptions.excusing(match, digests, now)) is not None:
            excused.append((match, exemption))
        else:
            counted.append(match)
    outcome = FAILED if faults or counted else PASSED
    return Verdict(
        outcome=NO_SCANNER if report is None and not report_fault else outcome,
        counted=tuple(counted),
        excused=tuple(excused),
        uncounted=tuple(uncounted),
        faults=tuple(faults),
        remarks=tuple(_remarks(counted, report)),
        scanned_at=report.scanned_at if report else None,
    )


def _identity(report: ScanReport, digests: Collection[str], sbom_sha256: str) -> list[str]:
    if report.of_sbom and report.of_sbom != sbom_sha256:
        return [f"the report is of another SBOM: {report.of_sbom}, allowed: {sbom_sha256 or 'that of this image'}"]
    if report.digests and set(report.digests).isdisjoint(digests):
        return [f"the report is of another image: {', '.join(report.digests)}, allowed: {', '.join(sorted(digests))}"]
    if not report.digests and not report.of_sbom:
        return [f"the report does not say by a digest which image it is of, allowed: {', '.join(sorted(digests))}"]
    return []


def _ages(report: ScanReport, now: datetime, policy: GatePolicy) -> list[str]:
    """The database's age is that on the day of the scan: the scan's own age comes on top."""
    scan = _age("the scan", report.scanned_at, now, policy.scan_days)
    return scan + _age("its database", report.database_built, report.scanned_at or now, policy.database_days)


def _age(what: str, made_at: datetime | None, now: datetime, days: int) -> list[str]:
    if made_at is None:
        return [f"{what} is of unknown age, allowed: up to {days} days"]
    if made_at > now + CLOCKS:
        return [f"{what} is of the future: {made_at:%Y-%m-%d %H:%M} UTC, later than {now:%Y-%m-%d %H:%M} UTC"]
    if now - made_at > timedelta(days=days):
        return [f"{what} is too old: of {made_at:%Y-%m-%d %H:%M} UTC, allowed: up to {days} days"]
    return []


def _unmatchable(components: Components) -> list[str]:
    names = sorted({each.name for each in components.packages if not each.version})
    return [f"{_listed(names)} in the SBOM without a version: no scanner can match that"] if names else []


def _emptiness(components: Components, report: ScanReport | None) -> list[str]:
    """Nothing listed is nothing scanned: an image from which the package database was deleted scans clean."""
    if not components.packages:
        return ["the SBOM lists no package: nothing can be found in what is not listed"]
    known = components.distribution or (report.distribution if report else None)
    if known is None or components.has_os_packages:
        return []
    return [
        f"{_shown(known)}, and no package of it in the SBOM: the package database is missing or was removed",
    ]


def _coverage(report: ScanReport, components: Components | None) -> list[str]:
    faults = [f"{_listed(report.skipped)} left out by the scanner"] if report.skipped else []
    faults += [f"the report is partial: {each}" for each in report.limits]
    if report.scanner == TRIVY and report.components is None:
        faults.append("the report was made without --list-all-pkgs: nobody can say what was looked at")
    if report.is_end_of_life:
        faults.append(
            f"{_shown(report.distribution)} is at its end of life: nobody looks for its vulnerabilities any more"
        )
    if components is None:
        return faults
    listed = len(components.packages)
    if report.components is not None and report.components != listed:
        faults.append(f"the scanner has looked at {report.components:,} packages, the SBOM lists {listed:,}")
    ours, theirs = components.distribution, report.distribution
    if components.has_os_packages and not (_is_known(ours) and _is_known(theirs)):
        faults.append(
            f"there are packages of an operating system, and it is unknown which: the SBOM says {_shown(ours)}, the report {_shown(theirs)}"
        )
    elif theirs is not None and (ours is None or not _is_same(ours, theirs)):
        faults.append(f"the report is of {_shown(theirs)}, the SBOM of {_shown(ours)}")
    return faults


def _is_known(distribution: Distribution | None) -> bool:
    return distribution is not None and bool(distribution.name and distribution.version)


def _is_same(one: Distribution, other: Distribution) -> bool:
    """12 and 12.5 are the same: os-release says less than /etc/debian_version, which Trivy reads."""
    names = {_SAME_DISTRIBUTION.get(each.name.lower(), each.name.lower()) for each in (one, other)}
    shorter, longer = sorted((_parts(one.version), _parts(other.version)), key=len)
    return len(names) == 1 and longer[: len(shorter)] == shorter


def _parts(version: str) -> list[str]:
    """Trivy adds words: `2 (Karoo)`."""
    return version.partition(" ")[0].split(".")


def _distinct(report: ScanReport | None, advisories: Sequence[Match], policy: GatePolicy) -> list[Match]:
    """Each vulnerability of each package once, ignored ones included; an advisory's where it says more than the scanner."""
    found = _gravest([*report.matches, *report.ignored], policy) if report else []
    by_package: dict[tuple[str, ...], list[Match]] = {}
    for each in found:
        by_package.setdefault(each.package_key, []).append(each)
    for match in _gravest(advisories, policy):
        twins = [each for each in by_package.get(match.package_key, ()) if not each.ids.isdisjoint(match.ids)]
        if not any(each.severity >= match.severity or counts(each.severity, policy.severities) for each in twins):
            found.append(match)
    return found


def _gravest(matches: Sequence[Match], policy: GatePolicy) -> list[Match]:
    """One per vulnerability and package: two databases may rate it differently, and a package may lie in two places."""
    found: dict[tuple[str, tuple[str, ...]], Match] = {}
    for each in matches:
        found[each.id, each.package_key] = max(
            found.get((each.id, each.package_key), each),
            each,
            key=lambda match: (counts(match.severity, policy.severities), match.severity),
        )
    return list(found.values())


def _remarks(counted: Sequence[Match], report: ScanReport | None) -> list[str]:
    ignored = {(each.id, each.package_key) for each in report.ignored} if report else set()
    remarks = []
    for each in counted:
        where = f"{each.id} in {each.package} {each.version}".rstrip()
        if each.severity is Severity.UNKNOWN:
            remarks.append(f"{where}: its severity is unknown, so it counts")
        if each.note:
            remarks.append(f"{where}: {each.note}")
        if (each.id, each.package_key) in ignored:
            remarks.append(
                f"{where}: {each.source} was told to ignore it ({each.status or 'no reason given'}), which is no exception here"
            )
    return remarks


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{len(names):,} packages ({shown}{', ...' if len(names) > 5 else ''})"


def _shown(distribution: Distribution | None) -> str:
    return f"{distribution.name} {distribution.version}".strip() if distribution is not None else "none"
