"""Offline verification: every property of a bundle by name, passed, failed or absent, and why.

Nothing here asks a network, a store or a clock that could be left out. A property that cannot be checked has failed.
Not here: the log as a whole (`audit.py`).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from greenops_pipelines.evidence import bundle as form
from greenops_pipelines.evidence import canonical, gpg, merkle, signing, timestamp
from greenops_pipelines.evidence.bundle import Bundle, NotABundle
from greenops_pipelines.evidence.checkpoint import Checkpoint, LogVerifier, Proof, read_proof
from greenops_pipelines.evidence.log import CLOCK_TOLERANCE
from greenops_pipelines.evidence.publication import name as published_name
from greenops_pipelines.evidence.report import Finding, Report, Trust
from greenops_pipelines.evidence.signing import PublicKey
from greenops_pipelines.evidence.statement import Entry, Manifest, Statement, digests, subjects, time_of, time_text

_T = TypeVar("_T")


class _Absent(Exception):
    """The property is not there, and says why."""


def verify(
    source: Path | bytes, trust: Trust, *, expected_id: str | None = None, now: datetime | None = None
) -> Report:
    """Everything about a bundle (a tar, its bytes, or a folder) that can be known offline.

    `expected_id` is the identifier under which it was asked for: another bundle in its place is a replay. Raises
    `BadInput` only where there is nothing to read.
    """
    try:
        bundle = form.read(source)
    except NotABundle as error:
        return Report("", (Finding("layout", "failed", str(error)),), None)
    examination = _Examination(bundle, trust, expected_id, now or datetime.now(UTC))
    findings = [
        Finding("layout", "passed", f"{len(bundle.parts)} parts, {sum(map(len, bundle.parts.values())):,} bytes")
    ]
    findings += list(examination.run())
    # Only what is signed may be shown as what the bundle says.
    doubted = any(f.state == "failed" and f.property in ("statement", "signature") for f in findings)
    return Report(bundle.id, tuple(findings), None if doubted else examination.statement)


class _Examination:
    """One pass over one bundle. What a check reads well, later ones may rest on."""

    def __init__(self, bundle: Bundle, trust: Trust, expected_id: str | None, now: datetime) -> None:
        self._bundle = bundle
        self._parts = bundle.parts
        self._trust = trust
        self._expected_id = expected_id
        self._now = now
        self._manifest: Manifest | None = None
        self.statement: Statement | None = None
        self._entry: Entry | None = None
        self._proof: Proof | None = None
        self._log: LogVerifier | None = None
        self._checkpoint: Checkpoint | None = None
        self._stamped: datetime | None = None

    def run(self) -> Iterator[Finding]:
        checks: Mapping[str, Callable[[], str]] = {
            "manifest": self._check_manifest,
            "files": self._check_files,
            "statement": self._check_statement,
            "identity": self._check_identity,
            "key": self._check_key,
            "signature": self._check_signature,
            "dsse": self._check_dsse,
            "sigstore bundle": self._check_sigstore,
            "gpg": self._check_gpg,
            "timestamp": self._check_timestamp,
            "log entry": self._check_entry,
            "checkpoint": self._check_checkpoint,
            "log inclusion": self._check_inclusion,
            "checkpoint published": self._check_published,
            "clock": self._check_clock,
        }
        for name, check in checks.items():
            try:
                yield Finding(name, "passed", check())
            except _Absent as reason:
                yield Finding(name, "absent", str(reason))
            except ValueError as error:
                yield Finding(name, "failed", str(error))

    def _check_manifest(self) -> str:
        found = Manifest.read(self._parts[form.MANIFEST])
        paths = [file.path for file in found.files]
        if paths != sorted(set(paths)):
            raise ValueError("its files are not sorted, or one stands there twice")
        self._manifest = found
        return f"{len(paths)} files"

    def _check_files(self) -> str:
        stated = {file.path: file for file in _needs(self._manifest, "manifest").files}
        present = {name for name in self._parts if name.startswith((form.FILES, "keys/"))}
        if missing := sorted(stated.keys() - present):
            raise ValueError(f"{missing[0]!r} is in the manifest, and not in the bundle")
        if extra := sorted(present - stated.keys()):
            raise ValueError(f"{extra[0]!r} is in the bundle, and not in the manifest")
        for name, file in stated.items():
            data = self._parts[name]
            if len(data) != file.size or hashlib.sha256(data).hexdigest() != file.sha256:
                raise ValueError(f"{name!r} has other bytes than the manifest states")
        return f"{len(stated)} files as stated"

    def _check_statement(self) -> str:
        found = Statement.read(self._parts[form.STATEMENT])
        if found.subject != subjects(self._parts[form.MANIFEST], _needs(self._manifest, "manifest")):
            raise ValueError("its subjects are not the manifest and the files in it")
        said = found.predicate.signing
        for what, fact, reason in (
            ("gpg", said.gpg.fingerprint, said.gpg.absent),
            ("timestamp", said.timestamp.authority, said.timestamp.absent),
        ):
            if (fact is None) == (reason is None):
                raise ValueError(f"{what}: allowed is either a signature or the reason why there is none")
        self.statement = found
        return f"{found.predicate.control}: {found.predicate.verdict}"

    def _check_identity(self) -> str:
        inside = {_needs(self._manifest, "manifest").bundle, _needs(self.statement, "statement").predicate.bundle}
        if inside != {self._bundle.id}:
            raise ValueError(f"it is called {self._bundle.id}, its parts are of {', '.join(sorted(inside))}")
        if self._expected_id not in (None, self._bundle.id):
            raise ValueError(f"asked for was {self._expected_id}, found {self._bundle.id}: another bundle replayed")
        return self._bundle.id

    def _check_key(self) -> str:
        said = _needs(self.statement, "statement").predicate.signing.keyid
        inside = PublicKey.parse(self._parts[form.PUBLIC_KEY])
        if inside.pem != self._parts[form.PUBLIC_KEY] or inside.keyid != said:
            raise ValueError(f"{form.PUBLIC_KEY} is not the key that the statement names")
        if not self._trust.keys:
            raise _Absent("no key to trust was given; anyone could have made this bundle")
        if said not in (trusted := [key.keyid for key in self._trust.keys]):
            raise ValueError(
                f"signed by {said[:16]}..., trusted is {', '.join(f'{keyid[:16]}...' for keyid in trusted)}"
            )
        return f"{said[:16]}..., ECDSA P-256, is a trusted one"

    @property
    def _key(self) -> PublicKey:
        """The trusted key; without one, the bundle's own, which shows no more than that its parts belong together."""
        if not self._trust.keys:
            return PublicKey.parse(self._parts[form.PUBLIC_KEY])
        named = self.statement.predicate.signing.keyid if self.statement else ""
        return next((key for key in self._trust.keys if key.keyid == named), self._trust.keys[0])

    def _check_signature(self) -> str:
        if not self._key.verifies(self._parts[form.SIGNATURE], self._parts[form.STATEMENT]):
            raise ValueError(f"it is not over {form.STATEMENT} by the key {self._key.keyid[:16]}...")
        return "ECDSA P-256 over SHA-256"

    def _check_dsse(self) -> str:
        signing.check_envelope(self._parts[form.DSSE], self._parts[form.STATEMENT], self._key)
        return signing.PAYLOAD_TYPE

    def _check_sigstore(self) -> str:
        signing.check_envelope(self._parts[form.DSSE], self._parts[form.STATEMENT], self._key)
        canonical.loads(self._parts[form.SIGSTORE])
        if self._parts[form.SIGSTORE] != signing.sigstore_bundle(self._key, self._parts[form.DSSE]):
            raise ValueError("it is not the bundle v0.3 of the DSSE envelope under this key")
        return signing.BUNDLE_TYPE

    def _check_gpg(self) -> str:
        said = _needs(self.statement, "statement").predicate.signing.gpg
        signature, public = self._parts.get(form.GPG_SIGNATURE), self._parts.get(form.GPG_KEY)
        if said.fingerprint is None:
            if signature is not None or public is not None:
                raise ValueError("found a GPG signature or key, and the statement says that there is none")
            raise _Absent(f"stated: {said.absent}")
        if signature is None or public is None:
            raise ValueError(f"the statement names the GPG key {said.fingerprint}, and its signature or key is missing")
        gpg.check(signature, self._parts[form.STATEMENT], public, said.fingerprint)
        return said.fingerprint

    def _check_timestamp(self) -> str:
        said = _needs(self.statement, "statement").predicate.signing.timestamp
        response, roots = self._parts.get(form.TIMESTAMP), self._parts.get(form.TSA_ROOTS)
        if said.authority is None:
            if response is not None or roots is not None:
                raise ValueError("found a time stamp or its certificates, and the statement says that there is none")
            raise _Absent(f"stated: {said.absent}")
        if response is None or roots is None:
            raise ValueError(f"the statement names the authority {said.authority}, and its time stamp is missing")
        self._stamped = timestamp.check(response, self._parts[form.SIGNATURE], self._trust.tsa_roots or roots)
        return f"{time_text(self._stamped)} by {said.authority}"

    def _check_entry(self) -> str:
        found = Entry.read(self._parts[form.ENTRY])
        if found.bundle != self._bundle.id:
            raise ValueError(f"it is of the bundle {found.bundle}")
        sums = digests({name: data for name, data in self._parts.items() if name not in (form.ENTRY, form.PROOF)})
        if differing := sorted(
            name for name in sums.keys() | found.parts.keys() if sums.get(name) != found.parts.get(name)
        ):
            raise ValueError(f"{differing[0]!r} is not what was logged")
        self._entry = found
        return f"logged at {found.logged_at}"

    def _check_checkpoint(self) -> str:
        self._proof = read_proof(self._parts[form.PROOF])
        said = _needs(self.statement, "statement").predicate.signing.log
        if self._parts[form.LOG_KEY] != said.encode():
            raise ValueError(f"{form.LOG_KEY} is not the log that the statement names")
        self._log = LogVerifier.parse(said)
        self._checkpoint = self._log.open(self._proof.checkpoint)
        return f"{self._checkpoint.origin} at {self._checkpoint.size:,} entries"

    def _check_inclusion(self) -> str:
        proof, at = _needs(self._proof, "checkpoint"), _needs(self._checkpoint, "checkpoint")
        leaf = merkle.leaf_hash(self._parts[form.ENTRY])
        if not merkle.includes(leaf, proof.index, at.size, proof.path, at.root):
            raise ValueError(f"the proof does not show the entry at {proof.index:,} of {at.size:,}")
        return f"entry {proof.index:,} of {at.size:,}"

    def _check_published(self) -> str:
        if self._trust.published is None:
            raise _Absent("no second place to compare with was given")
        at = _needs(self._checkpoint, "checkpoint")
        note = self._trust.published(published_name(at.origin, at.size))
        if note is None:
            raise ValueError(
                f"the second place has no checkpoint over {at.size:,} entries: not published yet, or forked"
            )
        if note != _needs(self._proof, "checkpoint").checkpoint.encode():
            raise ValueError(f"the second place has another checkpoint over {at.size:,} entries: the log is forked")
        return published_name(at.origin, at.size)

    def _check_clock(self) -> str:
        predicate = _needs(self.statement, "statement").predicate
        times = {"signed": time_of(predicate.created_at)}
        if self._stamped:
            times["stamped"] = self._stamped
        times["logged"] = time_of(_needs(self._entry, "log entry").logged_at)
        times["this host's clock"] = self._now
        named = list(times.items())
        for (before, early), (after, late) in itertools.pairwise(named):
            if early > late + CLOCK_TOLERANCE:
                raise ValueError(f"{before} {time_text(early)}, which is after {after}: {time_text(late)}")
        return f"signed {predicate.created_at}"


def _needs(value: _T | None, name: str) -> _T:
    """What an earlier check read."""
    if value is None:
        raise ValueError(f"cannot be checked: {name} does not stand")
    return value
