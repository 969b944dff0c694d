"""What a verification rests on and what it finds: trust, findings, report. Not here: the checks (`verify.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from greenops_pipelines.evidence.signing import PublicKey
from greenops_pipelines.evidence.statement import Statement

State = Literal["passed", "failed", "absent"]


@dataclass(frozen=True)
class Trust:
    """What the verifier brings along: none of it comes from the bundle.

    `keys` are the signer's public keys, present and past; without one nothing is verified as good. `tsa_roots` replaces the certificates
    (PEM) that the signer named for the time-stamping authority. `published` reads the checkpoints from the second
    place by name.
    """

    keys: tuple[PublicKey, ...]
    tsa_roots: bytes | None = None
    published: Callable[[str], bytes | None] | None = None


@dataclass(frozen=True)
class Finding:
    """One property of a bundle."""

    property: str
    state: State
    detail: str


@dataclass(frozen=True)
class Report:
    """All properties, in the order in which they rest on each other. `statement` is None where none could be read."""

    bundle: str
    findings: tuple[Finding, ...]
    statement: Statement | None

    @property
    def ok(self) -> bool:
        """Whether the bundle is verified as good."""
        may_be_absent = {"gpg", "timestamp", "checkpoint published"}
        return all(f.state == "passed" or (f.state == "absent" and f.property in may_be_absent) for f in self.findings)

    @property
    def failed(self) -> list[str]:
        return [finding.property for finding in self.findings if finding.state == "failed"]

    @property
    def summary(self) -> str:
        """The first property that stands in the way, with its reason; empty where the bundle is good."""
        if self.ok:
            return ""
        bad = [f for f in self.findings if f.state == "failed"] or [f for f in self.findings if f.state == "absent"]
        return f"{bad[0].property}: {bad[0].detail}"

    def as_document(self) -> dict[str, Any]:
        """For `--json`."""
        predicate = self.statement.predicate if self.statement else None
        return {
            "bundle": self.bundle,
            "verified": self.ok,
            "control": predicate.control if predicate else None,
            "subject": predicate.subject if predicate else None,
            "verdict": predicate.verdict if predicate else None,
            "properties": [finding.__dict__ for finding in self.findings],
        }
