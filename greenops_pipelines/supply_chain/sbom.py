"""An SBOM in two formats from Syft's raw ones: the same bytes for the same image, its digest inside, suppliers filled in.

What Syft guesses or leaves open is put right: made-up CPEs of packages that advisories name by package URL, all-zero
checksums of files, dependencies between Python packages. Not here: Syft (`syft.py`), who supplies what (`suppliers.py`),
what packages carry (`carried.py`), what the minimum elements are (`ntia.py`), the environment's own (`environment.py`).
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from greenops_pipelines import strict_json
from greenops_pipelines.errors import ProviderError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.supply_chain import carried, layers, suppliers, syft
from greenops_pipelines.supply_chain.carried import Carried
from greenops_pipelines.supply_chain.oci import check_digest
from greenops_pipelines.supply_chain.suppliers import SOURCE_PROPERTY, Supplier

NAMESPACE = "https://greenops-pipelines.example/sbom"
AUTHOR = "greenops-pipelines"
TIMESTAMP_PROPERTY = "greenops:timestamp:source"
UNREAD_PROPERTY = "greenops:unread"
ROOT = "SPDXRef-Image"
EPOCH = "1970-01-01T00:00:00Z"

_ID = re.compile(r"(?<=package-id=)[0-9a-f]{16}|[0-9a-f]{16}$")
_BY_PURL = frozenset({"python", "npm", "gem", "go-module", "rust-crate", "php-composer"})
"""Syft's types of packages that advisories name by package URL. Its CPEs for them are guesses, 35 for one package, made of
authors' names and mail addresses: nine tenths of a document."""
_NO_VERSION = frozenset({"", "UNKNOWN", "(devel)"})

Document = dict[str, Any]


@dataclass(frozen=True)
class Sbom:
    """Both documents in canonical JSON, and what is known to be missing from them, by component's name."""

    cyclonedx: bytes
    spdx: bytes
    tool: str
    """Syft's version."""
    components: int
    without_version: tuple[str, ...]
    without_supplier: tuple[str, ...]
    unread: tuple[str, ...] = ()
    """Documents about what packages carry that could not be read, each with the reason."""


def of_image(
    layout: Path,
    digest: str,
    folder: Path,
    *,
    name: str,
    program: str = "",
    seconds: float = 600,
    limits: layers.Limits | None = None,
) -> Sbom:
    """The SBOM of the image `digest` in the OCI layout `layout`, known as `name`: looked at first, scanned, put in order.

    Syft unpacks in a temporary folder inside `folder`. Raises as `layers.inspect` and `syft.scan`.
    """
    contents = layers.inspect(layout, digest, limits)
    with tempfile.TemporaryDirectory(prefix="image-", dir=folder) as work:
        alone = layers.alone(layout, digest, Path(work) / "layout")
        raw = syft.scan(f"oci-dir:{alone}", Path(work), name=name, version=digest, program=program, seconds=seconds)
    return normalise(
        raw.cyclonedx,
        raw.spdx,
        digest=digest,
        name=name,
        created=contents.created,
        files=layers.read(layout, digest, wanted(raw.cyclonedx), limits),
        supplier=suppliers.of_image(name, contents.labels),
    )


def wanted(cyclonedx: bytes) -> frozenset[str]:
    """The files, by their absolute path in the image, that `normalise` can make use of."""
    return suppliers.wanted(_packages(_parsed(cyclonedx, "CycloneDX", "bomFormat")))


def normalise(
    cyclonedx: bytes,
    spdx: bytes,
    *,
    digest: str,
    name: str,
    created: str = "",
    files: Mapping[str, bytes] | None = None,
    supplier: Supplier | None = None,
    kind: str = "container",
    inside: Sequence[Carried] = (),
    unread: Sequence[str] = (),
) -> Sbom:
    """The SBOM of the image (or artifact) `digest`, known as `name`, such as registry.example/team/app.

    `created` is the image's own time of creation (RFC 3339); where it has none, 1970 stands in, and both documents say so:
    the time of the scan would make every document another one. `files` are the contents of `wanted`, by path; `kind` is a CycloneDX type.
    `inside` is what Python packages carry, `unread` why documents about that could not be read: both documents say so.
    Raises `ProviderError` for documents that Syft would not write, or that are of another image.
    """
    files = files or {}
    hexadecimal = check_digest(digest, "SBOM").removeprefix("sha256:")
    bom, document = _parsed(cyclonedx, "CycloneDX", "bomFormat"), _parsed(spdx, "SPDX-2.3", "spdxVersion")
    tool = _tool(bom)
    moment = _moment(created)
    dated_by = f"{TIMESTAMP_PROPERTY}={'image' if created else 'none: reproducible epoch'}"
    packages = _packages(bom)
    found = [suppliers.of_component(each, files) for each in packages]
    ids = _ids(packages)
    subject: Document = {
        "bom-ref": _purl(name, digest),
        "type": kind,
        "name": name,
        "version": digest,
        "purl": _purl(name, digest),
        "hashes": [{"alg": "SHA-256", "content": hexadecimal}],
    } | _supplied(supplier)
    edges = _edges(bom, packages, ids, files)
    components = [_component(each, ids, who) for each, who in zip(packages, found, strict=True)]
    more = _inside(inside, packages, ids, found)
    others = [each for each in bom.get("components") or [] if each.get("type") == "operating-system"]
    needs = {str(subject["bom-ref"]): {str(each["bom-ref"]) for each in components}} | edges
    needs |= {each.ref: set() for each, _ in more.components}
    for ref, needed in more.needs:
        needs[ref] = needs[ref] | {needed}
    told = [dated_by, *(f"{UNREAD_PROPERTY}={each}" for each in (*unread, *more.unread))]
    metadata = bom["metadata"]
    normal = {
        "$schema": bom.get("$schema"),
        "bomFormat": "CycloneDX",
        "specVersion": bom.get("specVersion"),
        "version": 1,
        "metadata": {
            "timestamp": moment,
            "authors": [{"name": AUTHOR}],
            "tools": metadata["tools"],
            "component": subject,
            "properties": _sorted([*(metadata.get("properties") or []), *map(_property, told)]),
        },
        "components": sorted(
            [*components, *map(_tidied, others), *(each.as_cyclonedx(who) for each, who in more.components)],
            key=lambda each: str(each["bom-ref"]),
        ),
        "dependencies": [{"ref": ref, "dependsOn": sorted(needed)} for ref, needed in sorted(needs.items())],
        # What a scan finds is never known to be all.
        "compositions": [{"aggregate": "unknown", "assemblies": [subject["bom-ref"]]}],
    }
    spdx_normal = _spdx(document, subject, moment, "\n".join(told), tool, ids, found, packages, edges, supplier)
    _add_to_spdx(spdx_normal, more)
    normal["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, _identity(normal, digest))}"
    spdx_normal["documentNamespace"] = _identity(spdx_normal, digest)
    return Sbom(
        _spelled(normal),
        _spelled(spdx_normal),
        tool,
        len(packages) + len(more.components),
        tuple(
            sorted(
                [str(c["name"]) for c in components if "version" not in c]
                + [each.name for each, _ in more.components if not each.version]
            )
        ),
        tuple(
            sorted(
                [str(c["name"]) for c, who in zip(packages, found, strict=True) if who is None]
                + [each.name for each, who in more.components if who is None]
            )
        ),
        (*unread, *more.unread),
    )


@dataclass(frozen=True)
class _Inside:
    """What is added to Syft's components: new ones with suppliers, and by references which package carries what."""

    components: tuple[tuple[Carried, Supplier | None], ...]
    needs: tuple[tuple[str, str], ...]
    unread: tuple[str, ...]


def _inside(
    inside: Sequence[Carried], packages: list[Document], ids: Mapping[str, str], found: list[Supplier | None]
) -> _Inside:
    refs = [_renamed(each["bom-ref"], ids) for each in packages]
    by_path = {suppliers.location(p): n for n, p in enumerate(packages) if _is_python(p)}
    known = {
        carried.key(str(p.get("purl") or ""), str(p["name"]), str(p.get("version") or "")): ref
        for p, ref in zip(packages, refs, strict=True)
    }
    components, needs, unread = [], [], []
    for each in inside:
        wheels = [by_path[path] for path in each.wheels if path in by_path]
        if not wheels:
            unread += [f"{path}: found no package that it belongs to" for path in each.sources]
            continue
        ref = known.get(each.key, each.ref)
        needs += [(refs[n], ref) for n in wheels if refs[n] != ref]
        if each.key not in known:
            who = suppliers.of_carried(each.people, each.purl, each.urls, found[wheels[0]], is_local=each.is_local)
            components.append((each, who))
    return _Inside(tuple(components), tuple(needs), tuple(sorted(set(unread))))


def _add_to_spdx(document: Document, more: _Inside) -> None:
    """Each new package is contained in the one that carries it, as all others are in the root."""
    by_id = {_syft_id(each["SPDXID"]): each["SPDXID"] for each in document["packages"] if each["SPDXID"] != ROOT}
    by_id |= {each.id: each.spdx_id for each, _ in more.components}
    listed = [*document["packages"], *(each.as_spdx(who) for each, who in more.components)]
    document["packages"] = sorted(listed, key=lambda each: str(each["SPDXID"]))
    kept = [
        {
            "spdxElementId": by_id[_syft_id(ref)],
            "relatedSpdxElement": by_id[_syft_id(needed)],
            "relationshipType": "CONTAINS",
        }
        for ref, needed in more.needs
    ]
    document["relationships"] = _sorted([*document["relationships"], *kept])


def _identity(document: Document, digest: str) -> str:
    """Of a document without its own id. It has the subject's name inside: what is known by two names has two SBOMs."""
    return f"{NAMESPACE}/{digest}/{hashlib.sha256(_spelled(document)).hexdigest()}"


def _spdx(
    document: Document,
    subject: Document,
    moment: str,
    dated_by: str,
    tool: str,
    ids: Mapping[str, str],
    found: Iterable[Supplier | None],
    packages: Iterable[Document],
    edges: Mapping[str, set[str]],
    supplier: Supplier | None,
) -> Document:
    relationships = document.get("relationships") or []
    root = next((r["relatedSpdxElement"] for r in relationships if r["relationshipType"] == "DESCRIBES"), None)
    suppliers_by_id = {_syft_id(c["bom-ref"]): who for c, who in zip(packages, found, strict=True)}
    # Syft's own id links the two documents.
    names = {
        each["SPDXID"]: _renamed(each["SPDXID"], ids) if each["SPDXID"] != root else ROOT
        for each in document.get("packages") or []
    }
    by_id = {ids[_syft_id(old)]: new for old, new in names.items() if old != root}
    if root not in names or set(by_id) != set(ids.values()):
        raise ProviderError("SBOM: found other packages in the SPDX document than in the CycloneDX one")
    listed = []
    for each in document["packages"]:
        if each["SPDXID"] == root:
            _check_subject(each, subject)
            listed.append(_spdx_root(each, subject, supplier))
        else:
            listed.append(_spdx_package(each, names, suppliers_by_id[_syft_id(each["SPDXID"])]))
    # Files are not listed (Syft gives each the checksum 000...0), nor what is said about them.
    elements = names | {"SPDXRef-DOCUMENT": "SPDXRef-DOCUMENT"}
    kept = [
        {
            **each,
            "spdxElementId": elements[each["spdxElementId"]],
            "relatedSpdxElement": elements[each["relatedSpdxElement"]],
        }
        for each in relationships
        if each["relationshipType"] != "DEPENDENCY_OF"
        and each["spdxElementId"] in elements
        and each["relatedSpdxElement"] in elements
    ]
    kept += [
        {
            "spdxElementId": by_id[_syft_id(need)],
            "relatedSpdxElement": by_id[_syft_id(ref)],
            "relationshipType": "DEPENDENCY_OF",
        }
        for ref, needs in edges.items()
        for need in needs
    ]
    licences = document.get("hasExtractedLicensingInfos")
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": document.get("dataLicense"),
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject["name"],
        "creationInfo": {
            "licenseListVersion": document["creationInfo"].get("licenseListVersion"),
            "creators": [f"Organization: {AUTHOR}", f"Tool: {AUTHOR}", f"Tool: syft-{tool}"],
            "created": moment,
            "comment": dated_by,
        },
        "packages": sorted(listed, key=lambda each: str(each["SPDXID"])),
        "relationships": _sorted(kept),
    } | ({"hasExtractedLicensingInfos": _sorted(licences)} if licences else {})


def _spdx_root(each: Document, subject: Document, supplier: Supplier | None) -> Document:
    return {
        **each,
        "SPDXID": ROOT,
        "name": subject["name"],
        "versionInfo": subject["version"],
        "supplier": supplier.spdx if supplier else "NOASSERTION",
        "checksums": [{"algorithm": "SHA256", "checksumValue": subject["hashes"][0]["content"]}],
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": subject["purl"],
            }
        ],
        "primaryPackagePurpose": str(subject["type"]).upper(),
    }


def _spdx_package(each: Document, names: Mapping[str, str], who: Supplier | None) -> Document:
    kept = {key: value for key, value in each.items() if key not in ("supplier", "originator", "externalRefs")}
    references = each.get("externalRefs") or []
    kind = str(each["SPDXID"]).removeprefix("SPDXRef-Package-")
    if any(kind.startswith(f"{known}-") for known in _BY_PURL) and each["name"] != "stdlib":
        references = [r for r in references if r.get("referenceType") != "cpe23Type"]
    if references:
        kept["externalRefs"] = _sorted(references)
    if kept.get("versionInfo", "") in _NO_VERSION:
        kept.pop("versionInfo", None)
    if str(kept.get("downloadLocation", "")).startswith("file:"):
        kept["downloadLocation"] = "NOASSERTION"
    if who is None:
        return {**kept, "SPDXID": names[each["SPDXID"]], "supplier": "NOASSERTION"}
    return {
        **kept,
        "SPDXID": names[each["SPDXID"]],
        "supplier": who.spdx,
        "comment": f"{SOURCE_PROPERTY}={who.source}",
    } | ({"originator": who.spdx} if who.source == suppliers.METADATA else {})


def _component(each: Document, ids: Mapping[str, str], who: Supplier | None) -> Document:
    kept = _tidied(each) | _supplied(who)
    kept["bom-ref"] = _renamed(each["bom-ref"], ids)
    properties = each.get("properties") or []
    kind = next((p["value"] for p in properties if p["name"] == "syft:package:type"), "")
    if kind in _BY_PURL and each["name"] != "stdlib":
        kept.pop("cpe", None)
        properties = [p for p in properties if p["name"] != "syft:cpe23"]
    if who is not None:
        properties = [*properties, {"name": SOURCE_PROPERTY, "value": who.source}]
    kept["properties"] = _sorted(properties)
    return kept


def _tidied(each: Document) -> Document:
    """Without addresses of people and of this machine, and without a version that says there is none."""
    kept = dict(each)
    for field in ("author", "publisher"):
        if (name := suppliers.without_address(kept.pop(field, None) or "")) != "":
            kept[field] = name
    if kept.get("version", "") in _NO_VERSION:
        kept.pop("version", None)
    references = [r for r in kept.pop("externalReferences", None) or [] if not str(r.get("url")).startswith("file:")]
    if references:
        kept["externalReferences"] = _sorted(references)
    return kept


def _edges(
    bom: Document, packages: list[Document], ids: Mapping[str, str], files: Mapping[str, bytes]
) -> dict[str, set[str]]:
    """Which component needs which. For Python what METADATA says: Syft 1.18 takes extras for needs and misses most others."""
    refs = {each["bom-ref"]: _renamed(each["bom-ref"], ids) for each in packages}
    edges: dict[str, set[str]] = {new: set() for new in refs.values()}
    python = {
        each["bom-ref"]: path for each in packages if (path := suppliers.location(each)) in files and _is_python(each)
    }
    for each in bom.get("dependencies") or []:
        if each["ref"] in refs and each["ref"] not in python:
            edges[refs[each["ref"]]] |= {refs[need] for need in each.get("dependsOn") or [] if need in refs}
    beside: dict[tuple[str, str], str] = {}
    for each in packages:
        if each["bom-ref"] in python:
            beside[_folder(python[each["bom-ref"]]), suppliers.normalised(each["name"])] = refs[each["bom-ref"]]
    for old, path in python.items():
        for need in suppliers.python_requires(files[path]):
            if found := beside.get((_folder(path), need)):
                edges[refs[old]] |= {found} - {refs[old]}
    return edges


def _folder(metadata: str) -> str:
    """Of packages: the folder that holds the dist-info with this METADATA."""
    return metadata.rpartition("/")[0].rpartition("/")[0]


def _is_python(each: Document) -> bool:
    return {"name": "syft:package:type", "value": "python"} in (each.get("properties") or [])


def _ids(packages: list[Document]) -> dict[str, str]:
    """Syft's id of each component to one that depends on what it is and where alone.

    Syft's own covers everything it read, such as the folder an installer took the package from.
    """
    ids: dict[str, str] = {}
    taken: set[str] = set()
    for each in sorted(packages, key=canonical.dumps):
        places = sorted(p["value"] for p in each.get("properties") or [] if str(p["name"]).endswith(":path"))
        described = [each.get("type"), each["name"], each.get("version"), each.get("purl"), places]
        for copy in range(len(packages)):
            told = hashlib.sha256(canonical.dumps([*described, copy])).hexdigest()[:16]
            if told not in taken:
                break
        taken.add(told)
        ids[_syft_id(each["bom-ref"])] = told
    return ids


def _syft_id(reference: str) -> str:
    if found := _ID.search(reference):
        return found[0]
    raise ProviderError(f"SBOM: found the reference {reference[:200]!r}, allowed: one that ends with Syft's id")


def _renamed(reference: str, ids: Mapping[str, str]) -> str:
    try:
        return _ID.sub(ids[_syft_id(reference)], reference)
    except KeyError:
        raise ProviderError(f"SBOM: found {reference[:200]!r} in the SPDX document alone") from None


def _check_subject(root: Document, subject: Document) -> None:
    """Where Syft names the image it has read, it is the one asked for."""
    for each in root.get("externalRefs") or []:
        told = re.search(r"@sha256(?::|%3A)([0-9a-f]{64})", str(each.get("referenceLocator")))
        if told and f"sha256:{told[1]}" != subject["version"]:
            raise ProviderError(f"SBOM: found that of sha256:{told[1]}, allowed: that of {subject['version']}")


def _packages(bom: Document) -> list[Document]:
    return [c for c in bom.get("components") or [] if c.get("type") not in ("operating-system", "file")]


def _property(text: str) -> Document:
    name, _, value = text.partition("=")
    return {"name": name, "value": value}


def _supplied(who: Supplier | None) -> Document:
    return {} if who is None else {"supplier": {"name": who.name}}


def _purl(name: str, digest: str) -> str:
    """As the package-url specification has it for OCI: the repository's last part, and the whole as a qualifier.

    A name without a registry's host has no such address.
    """
    last = quote(name.rpartition("/")[2].lower(), safe="")
    host, slash, _ = name.partition("/")
    is_host = bool(slash) and ("." in host or ":" in host or host == "localhost")
    where = f"?repository_url={quote(name, safe='/')}" if is_host else ""
    return f"pkg:oci/{last}@{quote(digest, safe='')}{where}"


def _moment(created: str) -> str:
    """To the second, in UTC, as SPDX wants it."""
    try:
        found = datetime.fromisoformat(re.sub(r"\.\d+", "", created or EPOCH))
    except ValueError:
        raise ProviderError(f"image: found created {created[:60]!r}, allowed: a moment such as {EPOCH}") from None
    return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tool(bom: Document) -> str:
    match bom:
        case {"metadata": {"tools": {"components": [{"name": "syft", "version": str(tool)}]}}}:
            return tool
    raise ProviderError("SBOM: found another tool's document, allowed: Syft's own")


def _parsed(data: bytes, wanted: str, field: str) -> Document:
    try:
        found = strict_json.loads(data)
    except ValueError as error:
        raise ProviderError(f"SBOM: {error}") from None
    if not isinstance(found, dict) or found.get(field) != wanted:
        raise ProviderError(f"SBOM: found another document, allowed: {wanted} JSON")
    return found


def _sorted(values: Iterable[Any]) -> list[Any]:
    return sorted(values, key=canonical.dumps)


def _spelled(document: Document) -> bytes:
    try:
        return canonical.dumps({key: value for key, value in document.items() if value is not None})
    except ValueError as error:
        raise ProviderError(f"SBOM: {error}") from None
