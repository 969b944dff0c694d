"""A bundle's way from a request to its final bytes: request -> signed -> logged. Each stage is one tar in the queue.

A stage is written down before the next one begins, so a filing that is killed goes on where it was: it signs once,
and is logged once. Not here: when that happens, and where the bundle goes then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import Field

from greenops_pipelines import __version__
from greenops_pipelines.evidence import bundle as form
from greenops_pipelines.evidence import canonical, signing, statement
from greenops_pipelines.evidence.bundle import Bundle
from greenops_pipelines.evidence.gpg import Gpg
from greenops_pipelines.evidence.log import Log
from greenops_pipelines.evidence.signing import Signer
from greenops_pipelines.evidence.statement import Document, Figure, Line, Time, Verdict
from greenops_pipelines.evidence.timestamp import Authority

REQUEST = "request.json"
SIGNED = "signed.json"


class Request(Document):
    """What was asked for."""

    control: Line
    subject: Line
    verdict: Verdict
    figures: dict[str, Figure]
    requested_at: Time = Field(alias="requestedAt")


class SignedStage(Document):
    """Beside the signed parts: from which entry on the log may hold this bundle."""

    log_size: int = Field(alias="logSize", ge=0)


@dataclass(frozen=True)
class Vouchers:
    """Everything that vouches for a bundle. Of gpg and authority, None goes with the reason why there is none."""

    signer: Signer
    log: Log
    gpg: Gpg | None
    no_gpg: str
    authority: Authority | None


def requested(bundle_id: str, request: Request, files: Mapping[str, bytes]) -> bytes:
    """The first stage."""
    parts = {REQUEST: request.encode()} | {form.FILES + name: data for name, data in files.items()}
    return form.pack(Bundle(bundle_id, parts))


def signed(bundle_id: str, stage: Mapping[str, bytes], vouchers: Vouchers, now: datetime) -> bytes:
    """The second stage: manifest, statement, signatures and time stamp."""
    request = Request.read(stage[REQUEST])
    size = vouchers.log.size()
    vouchers.log.check_clock(size, now)
    public = vouchers.signer.public
    vkey = vouchers.log.verifier.vkey
    parts = {name: data for name, data in stage.items() if name.startswith(form.FILES)}
    parts |= {form.PUBLIC_KEY: public.pem, form.LOG_KEY: vkey.encode()}
    if vouchers.gpg:
        parts[form.GPG_KEY] = vouchers.gpg.public
    if vouchers.authority:
        parts[form.TSA_ROOTS] = vouchers.authority.roots
    manifest = statement.manifest(bundle_id, parts)
    predicate = statement.Predicate(
        bundle=bundle_id,
        control=request.control,
        subject=request.subject,
        verdict=request.verdict,
        figures=request.figures,
        requested_at=request.requested_at,
        created_at=statement.time_text(now),
        producer=statement.Producer(name="greenops-pipelines", version=__version__),
        signing=_signing(vouchers),
    )
    parts[form.MANIFEST] = manifest.encode()
    body = statement.statement(parts[form.MANIFEST], manifest, predicate).encode()
    parts[form.STATEMENT] = body
    parts[form.SIGNATURE] = vouchers.signer.sign(body)
    parts[form.DSSE] = signing.envelope(vouchers.signer, body)
    parts[form.SIGSTORE] = signing.sigstore_bundle(public, parts[form.DSSE])
    if vouchers.gpg:
        parts[form.GPG_SIGNATURE] = vouchers.gpg.sign(body)
    if vouchers.authority:
        parts[form.TIMESTAMP] = vouchers.authority.stamp(parts[form.SIGNATURE])
    return form.pack(Bundle(bundle_id, parts | {SIGNED: SignedStage(log_size=size).encode()}))


def logged(bundle_id: str, stage: Mapping[str, bytes], log: Log, now: datetime) -> bytes:
    """The last stage: the bundle as it is filed."""
    parts = {name: data for name, data in stage.items() if name != SIGNED}
    since = SignedStage.read(stage[SIGNED]).log_size
    found = log.append(bundle_id, since, lambda at: _entry(bundle_id, parts, at), now)
    return form.pack(Bundle(bundle_id, parts | {form.ENTRY: found.entry, form.PROOF: found.proof.encode()}))


def _entry(bundle_id: str, parts: Mapping[str, bytes], at: datetime) -> bytes:
    return statement.Entry(
        type=statement.ENTRY_TYPE, bundle=bundle_id, logged_at=statement.time_text(at), parts=statement.digests(parts)
    ).encode()


def _signing(vouchers: Vouchers) -> statement.Signing:
    gpg, authority = vouchers.gpg, vouchers.authority
    return statement.Signing(
        keyid=vouchers.signer.public.keyid,
        scheme="ecdsa-sha2-nistp256",
        gpg=statement.Gpg(fingerprint=gpg.fingerprint if gpg else None, absent=None if gpg else vouchers.no_gpg),
        timestamp=statement.Timestamp(
            authority=authority.url if authority else None,
            absent=None if authority else "no time-stamping authority is configured (GREENOPS_EVIDENCE_TSA_URL)",
        ),
        log=vouchers.log.verifier.vkey,
    )


def request(control: str, subject: str, figures: Mapping[str, Figure], verdict: Verdict, now: datetime) -> Request:
    """The request, checked; `ValueError` says which field, what was found and what is allowed."""
    return Request.read(
        canonical.dumps(
            {
                "control": control,
                "subject": subject,
                "verdict": verdict,
                "figures": dict(figures),
                "requestedAt": statement.time_text(now),
            }
        )
    )
