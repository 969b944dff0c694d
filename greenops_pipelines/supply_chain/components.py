"""What an SBOM lists, read from CycloneDX JSON. Not here: how the document is made (`sbom.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from greenops_pipelines import strict_json
from greenops_pipelines.errors import ProviderError

OS_PACKAGES = frozenset({"deb", "rpm", "apk", "alpm", "portage", "msrc"})
"""Syft's package types that belong to an operating system's distribution."""


@dataclass(frozen=True)
class Component:
    """One package in an image. Texts are empty where the SBOM does not say."""

    ref: str
    name: str
    version: str
    purl: str
    kind: str
    """Syft's package type: python, deb, npm, go-module, ..."""
    supplier: str
    licences: str
    """SPDX identifiers or names, joined by ` AND `."""
    path: str
    """The file it was found by, inside the image."""
    supplier_source: str = ""
    """Whose word the supplier is: metadata, module path, registry."""


@dataclass(frozen=True)
class Distribution:
    """The operating system an image is made of, as /etc/os-release names it: debian 12."""

    name: str
    version: str


@dataclass(frozen=True)
class Components:
    """The packages of an image, and its distribution where it has one."""

    packages: tuple[Component, ...]
    distribution: Distribution | None

    @property
    def has_os_packages(self) -> bool:
        return any(component.kind in OS_PACKAGES for component in self.packages)


def read(cyclonedx: bytes) -> Components:
    """The components of a CycloneDX document as Syft writes it; `ProviderError` where it is none."""
    try:
        document = strict_json.loads(cyclonedx)
    except ValueError as error:
        raise ProviderError(f"SBOM: {error}") from None
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX":
        raise ProviderError("SBOM: found another document, allowed: CycloneDX JSON")
    packages, distribution = [], None
    for each in document.get("components") or []:
        if each.get("type") == "operating-system":
            distribution = Distribution(each.get("name") or "", each.get("version") or "")
        elif each.get("type") != "file":
            packages.append(_component(each))
    return Components(tuple(packages), distribution)


def _component(each: dict[str, Any]) -> Component:
    properties = {p.get("name"): p.get("value") for p in each.get("properties") or []}
    supplier = each.get("supplier") or {}
    return Component(
        ref=each.get("bom-ref") or "",
        name=each.get("name") or "",
        version=each.get("version") or "",
        purl=each.get("purl") or "",
        kind=properties.get("syft:package:type") or properties.get("greenops:found:by") or "",
        supplier=supplier.get("name") or "",
        licences=" AND ".join(filter(None, map(_licence, each.get("licenses") or []))),
        path=properties.get("syft:location:0:path") or "",
        supplier_source=properties.get("greenops:supplier:source") or "",
    )


def _licence(each: dict[str, Any]) -> str:
    licence = each.get("license") or {}
    return str(each.get("expression") or licence.get("id") or licence.get("name") or "")
