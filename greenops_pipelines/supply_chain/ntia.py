"""Whether an SBOM has NTIA's minimum elements (2021): supplier, name, version, identifier, relationship, author, timestamp.

Counted twice: SPDX's own checker over the SPDX document, our count over the CycloneDX one. Both must agree. Not here: what
to do about what is missing.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenops_pipelines import strict_json
from greenops_pipelines.errors import ProviderError

DOCUMENT = "document"
"""Stands where a document breaks its own format's rules, or lies outside what its root contains."""
_CHECKER = "ntia_conformance_checker"
_MAX_MESSAGES = 5


@dataclass(frozen=True)
class Ntia:
    """`missing` has the names of components that lack an element, by element; what the document itself lacks, by `DOCUMENT`."""

    is_conformant: bool
    components: int
    """The image itself is one of them."""
    missing: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        told = "; ".join(f"{element}: {', '.join(names[:5])}" for element, names in sorted(self.missing.items()))
        return f"{self.components} components" + (f", missing {told}" if told else ", all minimum elements")


def conformance(spdx: bytes, cyclonedx: bytes | None = None) -> Ntia:
    """SPDX's checker over the SPDX document, and our count over the CycloneDX one where it is given.

    Raises `ProviderError` where the two list different numbers of components: one of them is not the other's SBOM.
    """
    found = _by_checker(spdx)
    if cyclonedx is None:
        return found
    ours = count(cyclonedx)
    if DOCUMENT not in found.missing and ours.components != found.components:
        raise ProviderError(
            f"SBOM: found {ours.components:,} components in CycloneDX and {found.components:,} in SPDX, allowed: as many"
        )
    elements = {*found.missing, *ours.missing}
    missing = {each: _names([*found.missing.get(each, ()), *ours.missing.get(each, ())]) for each in elements}
    return Ntia(found.is_conformant and ours.is_conformant, ours.components, missing)


def count(cyclonedx: bytes) -> Ntia:
    """Our own count over a CycloneDX document; `ProviderError` where it is none."""
    try:
        document: Any = strict_json.loads(cyclonedx)
    except ValueError as error:
        raise ProviderError(f"SBOM: {error}") from None
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX":
        raise ProviderError("SBOM: found another document, allowed: CycloneDX JSON")
    metadata = document.get("metadata") or {}
    subject = metadata.get("component") or {}
    listed = [c for c in document.get("components") or [] if c.get("type") not in ("operating-system", "file")]
    edges = {each.get("ref"): each.get("dependsOn") or [] for each in document.get("dependencies") or []}
    reached, ahead = {subject.get("bom-ref")}, [subject.get("bom-ref")]
    while ahead:
        new = set(edges.get(ahead.pop(), ())) - reached
        reached |= new
        ahead += new
    missing: dict[str, list[str]] = {}
    for each in [subject, *listed]:
        name = str(each.get("name") or "").strip()
        for element, has in {
            "supplier": (each.get("supplier") or {}).get("name"),
            "name": name,
            "version": each.get("version"),
            "identifier": each.get("purl") or each.get("cpe") or each.get("swid"),
            "relationship": each.get("bom-ref") in reached,
        }.items():
            if not has:
                missing.setdefault(element, []).append(name or str(each.get("bom-ref")))
    if not (metadata.get("authors") or metadata.get("manufacturer")):
        missing["author"] = [DOCUMENT]
    if not metadata.get("timestamp"):
        missing["timestamp"] = [DOCUMENT]
    return Ntia(not missing, 1 + len(listed), {element: _names(names) for element, names in missing.items()})


def _by_checker(spdx: bytes) -> Ntia:
    from ntia_conformance_checker import NTIAChecker

    with tempfile.TemporaryDirectory(prefix="ntia-") as folder, _quiet():
        path = Path(folder) / "sbom.spdx.json"
        path.write_bytes(spdx)
        # Not its look at SPDX's grammar, which grows with the square of the packages: 9 s for 1,400. The tests have that.
        checker = NTIAChecker(str(path), validate=False, compliance="ntia", sbom_spec="spdx2")
    missing: dict[str, list[str]] = {}
    for element, components in checker.all_components_without_info:
        missing[element] = [name or identifier for name, identifier in components]
    if checker.doc is not None:
        for element, has in {
            "author": checker.doc_author,
            "timestamp": checker.doc_timestamp,
            "relationship": checker.dependency_relationships,
        }.items():
            if not has:
                missing[element] = [DOCUMENT]
    # The checker leaves out what its graph does not reach, and then finds nothing wrong with it.
    missing["relationship"] = [*missing.get("relationship", []), *sorted(checker.floating_component_ids)]
    wrong = [*checker.parsing_errors, *(m.validation_message for m in checker.validation_messages)]
    if checker.has_unknown_pointers:
        wrong.append(f"relationships with elements that are not there: {', '.join(checker.unknown_pointer_edges)}")
    missing[DOCUMENT] = [str(each)[:300] for each in wrong[:_MAX_MESSAGES]]
    told = {element: _names(names) for element, names in missing.items() if names}
    total = checker.get_total_number_components() if checker.doc is not None else 0
    return Ntia(bool(checker.compliant) and not told, int(total), told)


def _names(names: list[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the checker logs out of ours: it logs to the root logger, and gives it a handler where it has none."""

    def others(record: logging.LogRecord) -> bool:
        return _CHECKER not in record.pathname

    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(others)
    try:
        yield
    finally:
        root.removeFilter(others)
        root.removeHandler(handler)
