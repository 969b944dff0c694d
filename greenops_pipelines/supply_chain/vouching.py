"""What is said about an image: which statements, attached to which digests, and whether they are there when read back.

An index and its images are spoken of together: each statement names the digest of the platform's manifest and that of the
index, and is attached to both, because a policy gates on whichever a pod names. Signature and provenance are given to what is
built here, or by `greenops attest` inside a build: signing whatever lies in a registry would make the signature worthless.
Not here: how statements are written (`attestations.py`) and attached (`attach.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from greenops_pipelines import strict_json
from greenops_pipelines.errors import ConfigurationError, ProviderError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.evidence.signing import PublicKey, Signer
from greenops_pipelines.evidence.statement import time_text
from greenops_pipelines.supply_chain import attach, attestations, provenance
from greenops_pipelines.supply_chain.attach import Attached
from greenops_pipelines.supply_chain.attestations import CYCLONEDX, PROVENANCE, SIGNATURE, SPDX, VULNERABILITIES
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


def statements(
    name: str, digest: str, said: Sequence[Said], build: Build | None, now: datetime
) -> list[tuple[str, bytes]]:
    """Predicate type and statement, in order, of everything there is to say. `digest` is what tags point to."""
    written: list[tuple[str, bytes]] = []
    for each in said:
        about = list(dict.fromkeys([digest, each.digest]))
        documents = {CYCLONEDX: each.cyclonedx, SPDX: each.spdx}
        written += [
            (kind, attestations.statement(name, about, kind, _object(text))) for kind, text in documents.items()
        ]
    if scans := [(each, each.scan) for each in said if each.scan is not None]:
        about = list(dict.fromkeys([digest, *(each.digest for each, _ in scans)]))
        predicate = _vulnerabilities({each.platform: scan for each, scan in scans}, complete=len(scans) == len(said))
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
    for place in places:
        there = attach.read(repository, place, [signer.public])
        if build is not None:
            attach.sign(repository, place, name, signer)
        is_signed = build is not None or any(each.predicate_type == SIGNATURE for each in there)
        for kind, payload in statements(name, digest, said, build, now):
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
) -> Verdict:
    """Reads back what is attached to `digest`. Ours must be there in both ways; a builder's provenance in either."""
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
    for each in found:
        if each.statement is None:
            continue
        if each.statement.key.keyid in ours:
            ways.setdefault(each.predicate_type, set()).add(each.way)
        elif each.predicate_type == PROVENANCE and provenance.level_of(each, builders).level > 1:
            # A builder's key is trusted with provenance of its own builds, and with nothing else. Where it put that is its affair.
            ways.setdefault(PROVENANCE, set()).update(attach.WAYS)
    wanted = {**REQUIRED, **({VULNERABILITIES: SCAN} if wants_scan else {})}
    missing = []
    for kind, word in wanted.items():
        there = ways.get(kind, set())
        if not there:
            missing.append(word)
        elif absent := [way for way in attach.WAYS if way not in there]:
            missing.append(f"{word} by {absent[0]}")
    return Verdict(digest, found, tuple(missing), provenance.level(found, builders))


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


def _vulnerabilities(scans: Mapping[str, Scan], *, complete: bool) -> dict[str, Any]:
    """The predicate of cosign's `vuln/v1` over all platforms: counts are added up, and the oldest scan gives the date."""
    oldest = min(scans.values(), key=lambda scan: scan.scanned_at)
    counts: dict[str, int] = {}
    for scan in scans.values():
        for severity, count in scan.result.get("counts", {}).items():
            counts[severity] = counts.get(severity, 0) + int(count)
    outcomes = {str(scan.result.get("outcome")) for scan in scans.values()}
    worst = next((each for each in (NOT_BELIEVED, FAILED) if each in outcomes), PASSED if complete else NOT_BELIEVED)
    outcome = worst if outcomes <= {PASSED, FAILED, NOT_BELIEVED} else NOT_BELIEVED
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
