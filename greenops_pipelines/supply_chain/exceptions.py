"""Exceptions: signed statements that a vulnerability does not count for an image, for a while. Without an end there is none.

An OpenVEX 0.2.0 document is the predicate of an in-toto statement about the image, in a DSSE envelope. Each of its
statements carries `expires`, an extension of ours that OpenVEX's own schema does not know. One is taken back by removing its file. Not here: what an exception
excuses from (`gate.py`), and where the key lies.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from greenops_pipelines import strict_json
from greenops_pipelines.errors import BadInput, ProviderError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.evidence.signing import PublicKey, Signer
from greenops_pipelines.supply_chain import attestations
from greenops_pipelines.supply_chain.attestations import NotVerified, Statement
from greenops_pipelines.supply_chain.oci import is_digest
from greenops_pipelines.supply_chain.scan_reports import Fields, Match, Purl

OPENVEX = "https://openvex.dev/ns/v0.2.0"
NOT_AFFECTED, FIXED = "not_affected", "fixed"
JUSTIFICATIONS = (
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
)
"""Source: OpenVEX 0.2.0, "Status Justifications"."""
MAX_DAYS = 90
_MAX_BYTES = 1 << 20
CLOCKS = timedelta(minutes=5)
"""By which two machines' clocks may differ."""
_ID = re.compile(
    r"CVE-\d{4}-\d{4,}"
    r"|GHSA(-[23456789cfghjmpqrvwx]{4}){3}"
    r"|(?!CVE-|GHSA-)[A-Z][A-Za-z0-9]*(-[A-Z]+)*-\d[\w.:-]*"  # PYSEC-2023-1, DSA-5417-1, DEBIAN-CVE-2023-1234, ...
)


@dataclass(frozen=True)
class Exemption:
    """One vulnerability that does not count for one image, until it expires."""

    ids: tuple[str, ...]
    """The vulnerability's, and its aliases."""
    image_digest: str
    purls: tuple[str, ...]
    """The packages it is limited to; empty: wherever the vulnerability is found in the image."""
    status: str
    justification: str
    notes: str
    author: str
    made_at: datetime
    expires_at: datetime
    keyid: str
    file: str

    def excuses(self, match: Match, digests: Collection[str], now: datetime) -> bool:
        """Whether it is about this vulnerability, in this package, of an image with one of these digests, and in force."""
        return (
            self.made_at <= now + CLOCKS
            and now < self.expires_at
            and not match.ids.isdisjoint(self.ids)
            and self.image_digest in digests
            and (not self.purls or any(_means(purl, match) for purl in self.purls))
        )


@dataclass(frozen=True)
class Refused:
    """A file, or a statement in one, that excuses nothing."""

    file: str
    reason: str


@dataclass(frozen=True)
class Exceptions:
    """What is excused, and what was not accepted, with the reason."""

    valid: tuple[Exemption, ...] = ()
    refused: tuple[Refused, ...] = ()

    def excusing(self, match: Match, digests: Collection[str], now: datetime) -> Exemption | None:
        """The exemption of `match`, the one that lasts longest where there are several."""
        found = [each for each in self.valid if each.excuses(match, digests, now)]
        return max(found, key=lambda each: each.expires_at, default=None)


def make(
    signer: Signer,
    *,
    vulnerability: str,
    image_digest: str,
    image_name: str,
    author: str,
    now: datetime,
    expires_at: datetime,
    status: str = NOT_AFFECTED,
    justification: str = "",
    notes: str = "",
    purl: str = "",
    aliases: Sequence[str] = (),
) -> bytes:
    """The signed envelope of one exception; `BadInput` says why it would not be accepted."""
    name = quote(image_name.rpartition("/")[2].lower(), safe="")
    digest = image_digest.removeprefix("sha256:")
    product: dict[str, Any] = {"@id": f"pkg:oci/{name}@{quote(image_digest, safe='')}", "hashes": {"sha-256": digest}}
    statement: dict[str, Any] = {
        "vulnerability": {"name": vulnerability} | ({"aliases": list(aliases)} if aliases else {}),
        "timestamp": _stamp(now),
        "expires": _stamp(expires_at),
        "products": [product | ({"subcomponents": [{"@id": purl}]} if purl else {})],
        "status": status,
    }
    statement |= {"justification": justification} if justification else {}
    # OpenVEX's schema allows an impact statement only in place of a justification.
    statement |= {"status_notes": notes} if notes else {}
    document = {"author": author, "timestamp": _stamp(now), "version": 1, "statements": [statement]}
    identity = hashlib.sha256(canonical.dumps(document)).hexdigest()
    document |= {"@context": OPENVEX, "@id": f"https://openvex.dev/docs/public/vex-{identity}"}
    payload = attestations.statement(image_name, [image_digest], OPENVEX, document)
    envelope = attestations.envelope(signer, payload)
    read = _read("exception", envelope, [signer.public], now)
    if read.refused:
        raise BadInput(f"exception: {read.refused[0].reason}")
    return envelope


def file_name(vulnerability: str, image_digest: str, envelope: bytes) -> str:
    """Of an exception's file: another exception for the same image and vulnerability has another name."""
    own = hashlib.sha256(envelope).hexdigest()[:8]
    return f"{vulnerability}-{image_digest.removeprefix('sha256:')[:12]}-{own}.json"


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes exceptions into the folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, envelope in files.items():
        # Not *.json before it is whole: a reader would refuse half of it, and say so.
        part = folder / f".{name}.part"
        part.write_bytes(envelope)
        part.replace(folder / name)


def read_folder(path: Path, keys: Sequence[PublicKey], now: datetime) -> Exceptions:
    """The exceptions in `path/*.json` that are signed by one of `keys` and in force; none where there is no such folder."""
    valid: list[Exemption] = []
    refused: list[Refused] = []
    for file in sorted(path.glob("*.json")):
        try:
            data = file.read_bytes() if file.stat().st_size <= _MAX_BYTES else None
        except OSError as error:
            refused.append(Refused(file.name, f"cannot be read: {error.strerror}"))
            continue
        if data is None:
            refused.append(Refused(file.name, f"larger than {_MAX_BYTES:,} bytes"))
            continue
        found = _read(file.name, data, keys, now)
        valid += found.valid
        refused += found.refused
    return Exceptions(tuple(valid), tuple(refused))


def _read(file: str, data: bytes, keys: Sequence[PublicKey], now: datetime) -> Exceptions:
    valid: list[Exemption] = []
    refused: list[Refused] = []
    try:
        statement = _opened(data, keys)
        document = Fields(statement.predicate, "document")
        if statement.predicate_type != OPENVEX or document.text("@context") != OPENVEX:
            raise _NotAccepted(f"found the predicate {statement.predicate_type[:80]!r}, allowed: {OPENVEX}")
        entries = list(document.each("statements"))
        if not entries:
            raise _NotAccepted("found no statement in it")
    except (_NotAccepted, NotVerified, ProviderError) as error:
        return Exceptions(refused=(Refused(file, str(error)),))
    for at, entry in enumerate(entries):
        try:
            valid += _exemptions(file, statement, document, entry, now)
        except (_NotAccepted, ProviderError) as error:
            refused.append(Refused(file, f"statements[{at}]: {error}"))
    return Exceptions(tuple(valid), tuple(refused))


class _NotAccepted(ValueError):
    """The message is the reason."""


def _opened(data: bytes, keys: Sequence[PublicKey]) -> Statement:
    """The verified statement, of whatever image. Its subject is read first, as a guess that the verification is held to."""
    try:
        match strict_json.loads(data):
            case {"payload": str(payload)}:
                about = attestations.subjects(base64.b64decode(payload, validate=True))
            case _:
                about = ()
    except (ValueError, KeyError, TypeError) as error:
        raise _NotAccepted(f"found no signed statement: {error}") from None
    if not about:
        raise _NotAccepted("found no statement about a sha256 digest in a DSSE envelope")
    return attestations.verified(data, keys, about[0])


def _exemptions(file: str, signed: Statement, document: Fields, entry: Fields, now: datetime) -> list[Exemption]:
    """One per product."""
    status, justification = entry.text("status"), entry.text("justification")
    if status not in (NOT_AFFECTED, FIXED):
        raise _NotAccepted(f"the status {status!r} excuses nothing, allowed: {NOT_AFFECTED}, {FIXED}")
    if status == NOT_AFFECTED and justification not in JUSTIFICATIONS:
        raise _NotAccepted(f"found the justification {justification!r}, allowed: {', '.join(JUSTIFICATIONS)}")
    vulnerability = entry.inner("vulnerability")
    ids = (vulnerability.text("name"), *vulnerability.texts("aliases"))
    if wrong := [each for each in ids if not _ID.fullmatch(each)]:
        raise _NotAccepted(f"found the vulnerability {wrong[0]!r}, allowed: an id such as CVE-2024-1234")
    made_at, expires_at = _term(document, entry, now)
    products = list(entry.each("products"))
    if not products:
        raise _NotAccepted("found no products, allowed: images by their digests")
    return [
        Exemption(
            ids=ids,
            image_digest=_image(product, signed),
            purls=tuple(_package(each) for each in product.each("subcomponents")),
            status=status,
            justification=justification,
            notes=entry.text("status_notes") or entry.text("impact_statement"),
            author=document.text("author", needed=True),
            made_at=made_at,
            expires_at=expires_at,
            keyid=signed.key.keyid,
            file=file,
        )
        for product in products
    ]


def _term(document: Fields, entry: Fields, now: datetime) -> tuple[datetime, datetime]:
    made_at = entry.instant("timestamp") or document.instant("timestamp")
    expires_at = entry.instant("expires")
    if made_at is None or made_at > now + CLOCKS:
        raise _NotAccepted(f"found the timestamp {made_at and _stamp(made_at)}, allowed: one that has passed")
    if expires_at is None:
        raise _NotAccepted("it does not say when it expires")
    if expires_at <= now:
        raise _NotAccepted(f"it has expired at {_stamp(expires_at)}")
    if expires_at - made_at > timedelta(days=MAX_DAYS):
        raise _NotAccepted(
            f"it expires at {_stamp(expires_at)}, allowed: {MAX_DAYS} days after {_stamp(made_at)} at most"
        )
    return made_at, expires_at


def _image(product: Fields, signed: Statement) -> str:
    """The one digest that the product names, by hash or package URL, if it is among those that were signed for."""
    hashed = product.inner("hashes").text("sha-256")
    named = {f"sha256:{hashed}"} if hashed else set()
    named |= {purl.version for purl in map(Purl.parse, _names(product)) if purl and is_digest(purl.version)}
    if len(named) != 1:
        shown = ", ".join(sorted(named)) or product.text("@id")[:200]
        raise _NotAccepted(f"found the product {shown!r}, allowed: one image by its digest")
    digest = named.pop()
    if digest not in signed.subjects:
        raise _NotAccepted(f"its product {digest} is another image than was signed for: {', '.join(signed.subjects)}")
    return digest


def _package(subcomponent: Fields) -> str:
    for name in _names(subcomponent):
        if (purl := Purl.parse(name)) and "*" not in purl.namespace + purl.name + purl.version:
            return name
    raise _NotAccepted(f"found the subcomponent {subcomponent.text('@id')[:200]!r}, allowed: a package URL")


def _names(part: Fields) -> tuple[str, str]:
    return part.text("@id"), part.inner("identifiers").text("purl")


def _means(purl: str, match: Match) -> bool:
    """Whether the package URL is the match's, in any version where it names none."""
    ours, theirs = Purl.parse(purl), Purl.parse(match.purl)
    if ours is None or theirs is None:
        return False
    same = (ours.kind, ours.namespace, ours.name) == (theirs.kind, theirs.namespace, theirs.name)
    return same and ours.version in ("", theirs.version)


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
