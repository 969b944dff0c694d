"""What wheels say they carry: libraries and crates compiled into them, by the SBOMs in their dist-info (PEP 770).

Of a document the components that can be installed are read, nested ones too; its subject is the wheel itself, its needs
between components are left out. Not here: SBOMs in images, whose layers would have to be read once more, documents in SPDX,
and where the components stand in ours (`sbom.py`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from greenops_pipelines import strict_json
from greenops_pipelines.evidence import canonical
from greenops_pipelines.supply_chain.scan_reports import Purl
from greenops_pipelines.supply_chain.suppliers import METADATA, SOURCE_PROPERTY, Supplier

FOUND_BY = "pep770"
MAX_DOCUMENT_BYTES = 16 << 20
MAX_COMPONENTS = 50_000
"""Of all wheels together. An environment of 240 distributions has 1,300."""

_INSTALLED = frozenset({"application", "container", "firmware", "framework", "library", "platform"})
"""Types in CycloneDX. Not a file, nor an operating system: that would be taken for the one around the wheel."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_TEXT = 1000


@dataclass(frozen=True)
class Carried:
    """One component, and the wheels that carry it by the paths of their METADATA. Texts are empty where nobody says."""

    type: str
    name: str
    version: str
    purl: str
    licences: tuple[tuple[str, str], ...]
    """Each expression, id or name, and which of these it is."""
    sha256: str
    people: tuple[str, ...]
    """Its supplier, publisher and author."""
    urls: tuple[str, ...]
    """Where it was fetched from."""
    is_local: bool
    """Whether it lay beside the wheel's own source."""
    wheels: tuple[str, ...]
    sources: tuple[str, ...]
    """The documents that list it."""

    @property
    def key(self) -> tuple[str, ...]:
        return key(self.purl, self.name, self.version)

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits, as Syft's ids of packages are."""
        return hashlib.sha256(canonical.dumps([FOUND_BY, *self.key])).hexdigest()[:16]

    @property
    def ref(self) -> str:
        """In the CycloneDX document."""
        name = self.purl or f"{FOUND_BY}:{self.name}"
        return f"{name}{'&' if '?' in name else '?'}package-id={self.id}"

    @property
    def spdx_id(self) -> str:
        return f"SPDXRef-Package-{FOUND_BY}-{re.sub(r'[^A-Za-z0-9.-]', '-', self.name)}-{self.id}"

    def as_cyclonedx(self, who: Supplier | None) -> dict[str, Any]:
        """The component, with its supplier, how and where it was found."""
        properties = [("greenops:found:by", FOUND_BY), *(("greenops:found:in", each) for each in self.sources)]
        if who is not None:
            properties.append((SOURCE_PROPERTY, who.source))
        found: dict[str, Any] = {
            "bom-ref": self.ref,
            "type": self.type,
            "name": self.name,
            "version": self.version,
            "purl": self.purl,
            "supplier": {"name": who.name} if who else None,
            "hashes": [{"alg": "SHA-256", "content": self.sha256}] if self.sha256 else None,
            "properties": [{"name": name, "value": value} for name, value in sorted(properties)],
        }
        if [kind for _, kind in self.licences] == ["expression"]:
            found["licenses"] = [{"expression": self.licences[0][0]}]
        elif self.licences:
            # Ids as names: CycloneDX 1.6 does not know those that came later.
            found["licenses"] = [{"license": {"name": told}} for told, _ in self.licences]
        return {name: value for name, value in found.items() if value}

    def as_spdx(self, who: Supplier | None) -> dict[str, Any]:
        """The package; its licence is in the CycloneDX document alone, since SPDX refuses a text that is no expression."""
        told = f"greenops:found:by={FOUND_BY}" + (f" {SOURCE_PROPERTY}={who.source}" if who else "")
        reference = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": self.purl}
        found = {
            "SPDXID": self.spdx_id,
            "name": self.name,
            "versionInfo": self.version,
            "supplier": who.spdx if who else "NOASSERTION",
            "originator": who.spdx if who and who.source == METADATA else "",
            "checksums": [{"algorithm": "SHA256", "checksumValue": self.sha256}] if self.sha256 else [],
            "externalRefs": [reference] if self.purl else [],
            "comment": told,
        }
        never = dict.fromkeys(
            ("downloadLocation", "licenseConcluded", "licenseDeclared", "copyrightText"), "NOASSERTION"
        )
        return {name: value for name, value in found.items() if value} | never | {"filesAnalyzed": False}


def read(documents: Mapping[str, bytes]) -> tuple[tuple[Carried, ...], tuple[str, ...]]:
    """The components in `documents`, each once, and why single documents were not read: one line each.

    Keys are absolute paths, as /demo-1.0.dist-info/sboms/demo.cdx.json. A document counts whole or not at all.
    """
    found: dict[tuple[str, ...], Carried] = {}
    faults = []
    for path, data in sorted(documents.items()):
        try:
            listed = list(_components(path, data))
            if len(found.keys() | {each.key for each in listed}) > MAX_COMPONENTS:
                raise ValueError(f"found more than {MAX_COMPONENTS:,} components in all")
        except ValueError as error:
            faults.append(f"{path}: {error}")
            continue
        for each in listed:
            known = found.get(each.key, each)
            found[each.key] = Carried(
                known.type,
                known.name,
                known.version,
                known.purl,
                known.licences or each.licences,
                known.sha256 or each.sha256,
                known.people or each.people,
                known.urls,
                known.is_local,
                tuple(sorted({*known.wheels, *each.wheels})),
                tuple(sorted({*known.sources, *each.sources})),
            )
    return tuple(found[key] for key in sorted(found)), tuple(faults)


def key(purl: str, name: str, version: str) -> tuple[str, ...]:
    """What two components share that are the same package in the same version."""
    if found := Purl.parse(purl):
        origin = found.qualifier("vcs_url")
        return found.kind, found.namespace, found.name, found.version, origin
    return "", "", name, version, ""


def _components(path: str, data: bytes) -> Iterator[Carried]:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"found {len(data):,} bytes, allowed: up to {MAX_DOCUMENT_BYTES:,}")
    document = strict_json.loads(data)
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX":
        raise ValueError("found another document, allowed: CycloneDX JSON")
    wheel = f"{path.partition('/sboms/')[0]}/METADATA"
    subject = _subject(document)
    ahead = _objects(document, "components")
    count = 0
    while ahead:
        each = ahead.pop()
        ahead += _objects(each, "components")
        count += 1
        if count > MAX_COMPONENTS:
            raise ValueError(f"found more than {MAX_COMPONENTS:,} components")
        name, version, purl = _text(each, "name"), _text(each, "version"), _purl(_text(each, "purl"))
        if not name:
            raise ValueError("found a component without a name")
        if _text(each, "type") in _INSTALLED and key(purl, name, version) != subject:
            supplier = each.get("supplier")
            named = _text(supplier, "name") if isinstance(supplier, dict) else ""
            people = named, _text(each, "publisher"), _text(each, "author")
            urls, is_local = _origin(each)
            yield Carried(
                _text(each, "type"),
                name,
                version,
                purl,
                tuple(sorted(set(_licences(each)))),
                _sha256(each),
                tuple(filter(None, people)),
                urls,
                is_local,
                (wheel,),
                (path,),
            )


def _subject(document: Mapping[str, Any]) -> tuple[str, ...]:
    """auditwheel lists the wheel among what it carries."""
    metadata = document.get("metadata")
    component = metadata.get("component") if isinstance(metadata, dict) else None
    if not isinstance(component, dict):
        return ()
    return key(_purl(_text(component, "purl")), _text(component, "name"), _text(component, "version"))


def _origin(each: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    purl = Purl.parse(_text(each, "purl"))
    told = [purl.qualifier("vcs_url"), purl.qualifier("download_url")] if purl else ["", ""]
    told += [_text(r, "url") for r in _objects(each, "externalReferences") if r.get("type") in ("vcs", "distribution")]
    return tuple(url for url in told if url and not url.startswith("file:")), told[1].startswith("file:")


def _licences(each: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for listed in _objects(each, "licenses"):
        licence = listed.get("license")
        inner = licence if isinstance(licence, dict) else {}
        for kind, told in ("expression", _text(listed, "expression")), *((k, _text(inner, k)) for k in ("id", "name")):
            if told:
                yield told, kind
                break


def _sha256(each: Mapping[str, Any]) -> str:
    told = (_text(h, "content").lower() for h in _objects(each, "hashes") if h.get("alg") == "SHA-256")
    return next((h for h in told if _SHA256.fullmatch(h)), "")


def _purl(text: str) -> str:
    """Without what names a folder or a file of whoever built the wheel."""
    body, mark, qualifiers = text.partition("#")[0].partition("?")
    kept = [q for q in qualifiers.split("&") if q and not re.match(r"(download_url=file:|file_name=)", q)]
    return body + (mark + "&".join(kept) if kept else "")


def _objects(value: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = value.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"{name}: found {str(found)[:60]!r}, allowed: a list of objects")
    return found


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if found is None:
        return ""
    if not isinstance(found, str) or len(found) > _MAX_TEXT:
        raise ValueError(f"{name}: found {str(found)[:60]!r}, allowed: a text of up to {_MAX_TEXT:,} characters")
    return found
