"""An image -> its SBOM: fetched whole, looked at layer by layer, read by Syft, put in order, held against the minimum elements.

Not here: what each of these does (`sbom.py`, `ntia.py`), and where the SBOM goes (`intake.py`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from greenops_pipelines.errors import ProviderError
from greenops_pipelines.supply_chain import components, environment, ntia, sbom
from greenops_pipelines.supply_chain.components import Components
from greenops_pipelines.supply_chain.declared import ENVIRONMENT
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.ntia import Ntia
from greenops_pipelines.supply_chain.oci import Manifest, Repository
from greenops_pipelines.supply_chain.sbom import Sbom
from greenops_pipelines.supply_chain.subjects import Part, Subject

MAX_BLOB_BYTES = 4 << 30
"""Of one layer as it is fetched: a larger one is refused before its first byte."""
MAX_IMAGE_BYTES = 8 << 30


@dataclass(frozen=True)
class Made:
    """The SBOM of one platform, its components, and what NTIA's minimum elements miss."""

    part: Part
    sbom: Sbom
    components: Components
    ntia: Ntia
    supplied_by_metadata: int

    @property
    def missing(self) -> str:
        """One line per element: `supplier: a, b and 3 more`. Empty where nothing is."""
        lines = []
        for element, names in self.ntia.missing.items():
            counted = [f"{name} x {n}" if n > 1 else name for name, n in Counter(names).items()]
            more = f" and {len(counted) - 5} more" if len(counted) > 5 else ""
            lines.append(f"{element}: {', '.join(counted[:5])}{more}" if counted else element)
        return "\n".join(lines)


def make(subject: Subject, part: Part, folder: Path, program: str = "") -> Made:
    """The SBOM of one platform of an image. `folder` takes what is fetched; the caller removes it.

    Raises `ProviderError` with image, layer and member where what is there is not what it says, and is not to be read.
    """
    if subject.image.source == ENVIRONMENT:
        return _made(part, environment.bill(part.manifest.digest, folder, program=program))
    if part.manifest.document.get("artifactType"):
        raise ProviderError(
            f"{subject.name}@{part.manifest.digest}: found an artifact of the type "
            f"{part.manifest.artifact_type[:80]!r}, allowed: an image"
        )
    staged = fetch(subject.repository, part.manifest, folder / part.manifest.digest.removeprefix("sha256:"))
    return _made(part, sbom.of_image(staged, part.manifest.digest, folder, name=subject.name, program=program))


def fetch(repository: Repository, manifest: Manifest, folder: Path) -> Path:
    """A layout in the new `folder` that holds this image alone, every byte under the digest that it must have."""
    described = [manifest.config, *manifest.layers]
    total = sum(each.size for each in described)
    if total > MAX_IMAGE_BYTES:
        raise ProviderError(
            f"{repository.name}@{manifest.digest}: found {total:,} bytes of layers, allowed: {MAX_IMAGE_BYTES:,}"
        )
    layout = Layout(folder, create=True)
    for each in described:
        target = folder / "blobs" / "sha256" / each.digest.removeprefix("sha256:")
        if not target.exists():
            repository.fetch(each, target, MAX_BLOB_BYTES)
    layout.put_manifest(manifest.data, manifest.media_type, "image")
    return folder


def _made(part: Part, made: Sbom) -> Made:
    found = components.read(made.cyclonedx)
    by_metadata = sum(each.supplier_source == "metadata" for each in found.packages)
    return Made(part, made, found, ntia.conformance(made.spdx, made.cyclonedx), by_metadata)
