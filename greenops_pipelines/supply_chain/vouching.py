"""What is said about an image: which statements, attached to which digests, and whether they are there when read back.

An index and its images are spoken of together: each statement names the digest of the platform's manifest and that of the
index, and is attached to both, because a policy gates on whichever a pod names. Signature and provenance are given to what is
built here, or by `greenops attest` inside a build: signing whatever lies in a registry would make the signature worthless.
Not here: how statements are written (`attestations.py`) and attached (`attach.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from greenops_pipelines import strict_json
from greenops_pipelines.errors import ConfigurationError, ProviderError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.evidence.signing import PublicKey, Signer
from greenops_pipelines.evidence.statement import time_of, time_text
from greenops_pipelines.redaction import one_line
from greenops_pipelines.supply_chain import attach, attestations, provenance
from greenops_pipelines.supply_chain.attach import Attached
from greenops_pipelines.supply_chain.attestations import (
    CYCLONEDX,
    PROVENANCE,
    SIGNATURE,
    SPDX,
    VULNERABILITIES,
    Statement,
)
from greenops_pipelines.supply_chain.declared import TrustedBuilder
from greenops_pipelines.supply_chain.oci import Repository
from greenops_pipelines.supply_chain.provenance import Build, Level

REQUIRED: Mapping[str, str] = {
    SIGNATURE: "signature",
    CYCLONEDX: "CycloneDX SBOM",
    SPDX: "SPDX SBOM",
    PROVENANCE: "provenance",
}
"""What every image must have, in words."""
SCAN = "vulnerability scan"

PASSED, FAILED, NOT_BELIEVED = "passed", "failed", "not believed"
"""Outcomes of an attested scan. One that is not believed (stale, of something else, cut off) is denied whatever it counts."""


@dataclass(frozen=True)
class Scan:
    """A scan as it is attested: who scanned with what, and how the gate judged it."""

    scanner: str
    version: str
    database_at: datetime | None
    scanned_at: datetime
    result: Mapping[str, Any]
    """`outcome`, `counts` by severity, `excused`, `faults`."""


@dataclass(frozen=True)
class Said:
    """What there is to say about one platform of an image."""

    platform: str
    digest: str
    cyclonedx: bytes
    spdx: bytes
    scan: Scan | None = None


@dataclass(frozen=True)
class Verdict:
    """What is attached to a digest, verified; what it lacks; and the build level that its provenance supports."""

    digest: str
    found: tuple[Attached, ...]
    missing: tuple[str, ...]
    level: Level

    @property
    def ok(self) -> bool:
        return not self.missing

    @property
    def verified(self) -> tuple[Attached, ...]:
        return tuple(each for each in self.found if each.statement is not None)


def runnable(repository: Repository, digest: str) -> dict[str, str]:
    """Digest and platform of each manifest of an index that a machine may run; empty for what is no index.

    One without a platform is one of them: a runtime looks for it in the configuration.
    """
    manifest = repository.manifest(digest)
    if not manifest.is_index:
        return {}
    return {
        each.digest: str(each.platform or "no platform")
        for each in manifest.manifests
        if each.platform is None or each.platform.os != "unknown"  # BuildKit's own attestations
    }


def statements(
    name: str,
    digest: str,
    said: Sequence[Said],
    build: Build | None,
    now: datetime,
    runs: Mapping[str, str] | None = None,
) -> list[tuple[str, bytes]]:
    """Predicate type and statement, in order, of everything there is to say. `digest` is what tags point to.

    `runs` is what `runnable` found in it. Where something of that is not in `said`, a scan says of the whole that it is not
    believed, and each scanned manifest has a statement of its own.
    """
    written: list[tuple[str, bytes]] = []
    for each in said:
        about = list(dict.fromkeys([digest, each.digest]))
        documents = {CYCLONEDX: each.cyclonedx, SPDX: each.spdx}
        written += [
            (kind, attestations.statement(name, about, kind, _object(text))) for kind, text in documents.items()
        ]
    seen = {each.digest for each in said}
    unseen = {each: platform for each, platform in (runs or {}).items() if each not in seen}
    for about, predicate in _scans(digest, said, unseen):
        written.append((VULNERABILITIES, attestations.statement(name, about, VULNERABILITIES, predicate)))
    if build is not None:
        about = list(dict.fromkeys([digest, *(each.digest for each in said)]))
        predicate = provenance.predicate(build, None, now, {"image": name})
        written.append((PROVENANCE, attestations.statement(name, about, PROVENANCE, predicate)))
    return written


def vouch(
    repository: Repository,
    name: str,
    digest: str,
    said: Sequence[Said],
    build: Build | None,
    signer: Signer,
    now: datetime,
) -> None:
    """Attaches everything there is to say to every digest that it is about; a signature too, where the build is ours to state.

    What is attached already and says the same is left; a provenance of ours is never restated later. To an image without a
    signature of ours statements are attached by tag alone: `cosign verify --key` of cosign 3 takes any bundle by the key, even
    one about an SBOM, for a signature.
    """
    places = list(dict.fromkeys([digest, *(each.digest for each in said)]))
    written = statements(name, digest, said, build, now, runnable(repository, digest))
    for place in places:
        there = attach.read(repository, place, [signer.public])
        if build is not None:
            attach.sign(repository, place, name, signer)
        is_signed = build is not None or any(each.predicate_type == SIGNATURE for each in there)
        for kind, payload in written:
            if place not in attestations.subjects(payload):
                continue
            if kind == PROVENANCE and (stated := [each for each in there if each.predicate_type == kind]):
                if {each.way for each in stated} == set(attach.WAYS):
                    continue
                # Lost in one way: what was said then is said there again.
                payload = canonical.dumps(dict(stated[0].statement.document)) if stated[0].statement else payload
            attach.attest(repository, place, kind, payload, signer, attach.WAYS if is_signed else ("tag",), there)


def verdict(
    repository: Repository,
    digest: str,
    keys: Sequence[PublicKey],
    builders: Sequence[TrustedBuilder],
    *,
    wants_scan: bool = False,
    now: datetime | None = None,
    scan_days: int | None = None,
    severities: Sequence[str] | None = None,
) -> Verdict:
    """Reads back what is attached to `digest`. Ours must be there in both ways; a builder's provenance in either.

    With `wants_scan` the newest of our scans must have passed; be younger than `scan_days`, and count 0 of each of `severities`,
    where they are given. `now` is this moment by default.
    """
    for builder in builders:
        if builder.key and builder.key.keyid in {key.keyid for key in keys}:
            # It would lift what is signed inside the build to the level of a control plane.
            raise ConfigurationError(
                f"builder {builder.id}: found this home's own key, allowed: the builder's, or none and level 1"
            )
    trusted = [*keys, *(builder.key for builder in builders if builder.key)]
    found = tuple(attach.read(repository, digest, trusted))
    ours = {key.keyid for key in keys}
    ways: dict[str, set[str]] = {}
    scans, undeclared = [], ""
    for each in found:
        if each.statement is None:
            continue
        is_ours = each.statement.key.keyid in ours
        if each.predicate_type == PROVENANCE:
            if provenance.is_declared(each, builders):
                # A builder's key is trusted with provenance of its own builds alone. Where it put that is its affair.
                ways.setdefault(PROVENANCE, set()).update([each.way] if is_ours else attach.WAYS)
            elif is_ours:
                undeclared = provenance.builder_of(each.statement.predicate) or "no builder"
        elif is_ours:
            ways.setdefault(each.predicate_type, set()).add(each.way)
            if each.predicate_type == VULNERABILITIES:
                scans.append(each.statement)
    words = dict(REQUIRED)
    if undeclared:
        words[PROVENANCE] = f"provenance by a declared builder (found {one_line(undeclared, 100)})"
    if wants_scan:
        unclean = _unclean(scans, now or datetime.now(UTC), scan_days, severities or ())
        words[VULNERABILITIES] = f"a clean {SCAN} ({unclean})" if unclean else SCAN
        if unclean:
            ways.pop(VULNERABILITIES, None)
    return Verdict(digest, found, tuple(_missing(words, ways)), provenance.level(found, builders))


def verdicts(
    repository: Repository,
    digest: str,
    platforms: Mapping[str, str],
    keys: Sequence[PublicKey],
    builders: Sequence[TrustedBuilder],
    *,
    wants_scan: bool = False,
    now: datetime | None = None,
    scan_days: int | None = None,
    severities: Sequence[str] | None = None,
) -> Verdict:
    """`verdict` on an image and on its manifests too, in one: a policy gates on whichever a pod names.

    `platforms` is digest to platform, such as linux/arm64. What a manifest lacks is named with it; the lowest level counts.
    """
    read = [
        verdict(
            repository,
            place,
            keys,
            builders,
            wants_scan=wants_scan,
            now=now,
            scan_days=scan_days,
            severities=severities,
        )
        for place in dict.fromkeys([digest, *platforms])
    ]
    missing = [*read[0].missing]
    for each in read[1:]:
        missing += [f"{word} on {platforms[each.digest]}'s manifest {each.digest}" for word in each.missing]
    return Verdict(
        digest,
        tuple(attached for each in read for attached in each.found),
        tuple(missing),
        min((each.level for each in read), key=lambda each: each.level),
    )


def _missing(words: Mapping[str, str], ways: Mapping[str, set[str]]) -> Iterator[str]:
    # `vouch` leaves that way out where there is no signature.
    expected = attach.WAYS if SIGNATURE in ways else ("tag",)
    for kind, word in words.items():
        if not (there := ways.get(kind, set())):
            yield word
        elif absent := [way for way in expected if way not in there]:
            yield f"{REQUIRED.get(kind, SCAN)} by {absent[0]}"


def _unclean(scans: Sequence[Statement], now: datetime, days: int | None, severities: Sequence[str]) -> str:
    """Why the newest of our scans does not count; empty where it does."""
    if not scans:
        return "none is attached"
    found = [(_finished(each), _result(each)) for each in scans]
    dates = [at for at, _ in found if at is not None]
    if len(dates) < len(found):
        return "one does not say of when it is"
    newest = max(dates)
    when = f"the newest is of {time_text(newest)}"
    if days is not None and newest > now:
        return f"{when}: in the future"
    if days is not None and now - newest >= timedelta(days=days):
        return f"{when}: allowed is one of the last {days} days"
    for at, result in found:
        if at != newest:
            continue
        if (outcome := result.get("outcome")) != PASSED:
            faults = result.get("faults")
            why = f": {faults[0]}" if isinstance(faults, list) and faults else ""
            return f"{when}: {one_line(f'{outcome}{why}', 160)}"
        counts = result.get("counts")
        for severity in severities:
            count = counts.get(severity) if isinstance(counts, dict) else None
            if count != 0:
                return f"{when}: {'no count of' if count is None else count} {severity}"
    return ""


def _finished(scan: Statement) -> datetime | None:
    match scan.predicate:
        case {"metadata": {"scanFinishedOn": str(text)}}:
            try:
                return time_of(text)
            except ValueError:
                return None
    return None


def _result(scan: Statement) -> Mapping[str, Any]:
    match scan.predicate:
        case {"scanner": {"result": dict(result)}}:
            return result
    return {}


def attested_outcome(verdict: Verdict) -> str | None:
    """The outcome of the scan that is attested of an image; None where none is, and the worst where several are."""
    found = set()
    for each in verdict.verified:
        if each.predicate_type == VULNERABILITIES and each.statement is not None:
            match each.statement.predicate:
                case {"scanner": {"result": {"outcome": str(outcome)}}}:
                    found.add(outcome)
                case _:
                    found.add(NOT_BELIEVED)
    return next((each for each in (NOT_BELIEVED, FAILED, PASSED) if each in found), None)


def row(attached: Attached, builders: Sequence[TrustedBuilder]) -> dict[str, Any]:
    """What a table says of one attached thing."""
    is_provenance = attached.predicate_type == PROVENANCE
    level = provenance.level_of(attached, builders) if is_provenance else None
    return {
        "predicate_type": attached.predicate_type,
        "way": attached.way,
        "manifest": attached.manifest,
        "is_verified": attached.statement is not None,
        "fault": attached.fault or None,
        "key": attached.statement.key.keyid if attached.statement else None,
        "builder": (level.builder or None) if level else None,
        "slsa_level": level.level if level else None,
    }


def _scans(digest: str, said: Sequence[Said], unseen: Mapping[str, str]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """What each statement about scans is about, and its predicate."""
    scans = [(each, each.scan) for each in said if each.scan is not None]
    if not scans:
        return
    everything = {each.platform: scan for each, scan in scans}
    if not unseen:
        about = list(dict.fromkeys([digest, *(each.digest for each, _ in scans)]))
        yield about, _vulnerabilities(everything, complete=len(scans) == len(said))
        return
    for each, scan in scans:
        yield [each.digest], _vulnerabilities({each.platform: scan}, complete=True)
    faults = [f"{platform}: nobody has looked at it ({each})" for each, platform in unseen.items()]
    yield [digest], _vulnerabilities(everything, complete=False, faults=faults)


def _vulnerabilities(scans: Mapping[str, Scan], *, complete: bool, faults: Sequence[str] = ()) -> dict[str, Any]:
    """The predicate of cosign's `vuln/v1` over all platforms: counts are added up, and the oldest scan gives the date."""
    oldest = min(scans.values(), key=lambda scan: scan.scanned_at)
    counts: dict[str, int] = {}
    for scan in scans.values():
        for severity, count in scan.result.get("counts", {}).items():
            counts[severity] = counts.get(severity, 0) + int(count)
    outcomes = {str(scan.result.get("outcome")) for scan in scans.values()}
    worst = next((each for each in (NOT_BELIEVED, FAILED) if each in outcomes), PASSED if complete else NOT_BELIEVED)
    outcome = worst if outcomes <= {PASSED, FAILED, NOT_BELIEVED} and not faults else NOT_BELIEVED
    moment = time_text(oldest.scanned_at)
    return {
        "invocation": {"parameters": [], "uri": "", "event_id": "", "builder.id": provenance.LOCAL_BUILDER},
        "scanner": {
            "uri": oldest.scanner,
            "version": oldest.version,
            "db": {"uri": "", "version": "", "lastUpdate": time_text(oldest.database_at) if oldest.database_at else ""},
            "result": {
                "outcome": outcome,
                "counts": counts,
                "platforms": {platform: dict(scan.result) for platform, scan in scans.items()},
                **({"faults": list(faults)} if faults else {}),
            },
        },
        "metadata": {"scanStartedOn": moment, "scanFinishedOn": moment},
    }


def _object(document: bytes) -> dict[str, Any]:
    try:
        found = strict_json.loads(document)
    except ValueError as error:
        raise ProviderError(f"SBOM: {error}") from None
    if not isinstance(found, dict):
        raise ProviderError("SBOM: found no object")
    return found
