"""An image -> its SBOM: fetched whole, looked at layer by layer, read by Syft, put in order, held against the minimum elements.

Not here: what each of these does (`layers.py`, `syft.py`, `sbom.py`, `ntia.py`), and where the SBOM goes (`intake.py`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from greenops_pipelines.errors import ProviderError
from greenops_pipelines.supply_chain import components, environment, layers, ntia, sbom, suppliers, syft
from greenops_pipelines.supply_chain.components import Components
from greenops_pipelines.supply_chain.declared import ENVIRONMENT
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.ntia import Ntia
from greenops_pipelines.supply_chain.oci import Manifest, Repository
from greenops_pipelines.supply_chain.sbom import Sbom
from greenops_pipelines.supply_chain.subjects import Part, Subject
from greenops_pipelines.supply_chain.suppliers import Supplier

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
        return _of_environment(subject, part, folder, program)
    if part.manifest.document.get("artifactType"):
        raise ProviderError(
            f"{subject.name}@{part.manifest.digest}: found an artifact of the type "
            f"{part.manifest.artifact_type[:80]!r}, allowed: an image"
        )
    digest = part.manifest.digest
    staged = fetch(subject.repository, part.manifest, folder / "layout")
    contents = layers.inspect(staged, digest)
    raw = syft.scan(f"oci-dir:{staged}", folder, name=subject.name, version=digest, program=program)
    files = layers.read(staged, digest, sbom.wanted(raw.cyclonedx))
    who = suppliers.of_image(subject.name, contents.labels)
    return _normal(subject, part, raw, contents.created, files, who, "container")


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


def _of_environment(subject: Subject, part: Part, folder: Path, program: str) -> Made:
    packages = environment.site_packages()
    raw = syft.scan(
        f"dir:{packages}",
        folder,
        name=subject.name,
        version=part.manifest.digest,
        program=program,
        catalogers=environment.CATALOGERS,
        exclude=environment.EXCLUDED,
    )
    files = {}
    for wanted in sbom.wanted(raw.cyclonedx):
        path = packages / wanted.lstrip("/")
        if path.is_file():
            files[wanted] = path.read_bytes()
    who = suppliers.of_image(subject.name, part.manifest.annotations)
    return _normal(subject, part, raw, "", files, who, "application")


def _normal(
    subject: Subject,
    part: Part,
    raw: syft.Scan,
    created: str,
    files: dict[str, bytes],
    supplier: Supplier | None,
    kind: str,
) -> Made:
    made = sbom.normalise(
        raw.cyclonedx,
        raw.spdx,
        digest=part.manifest.digest,
        name=subject.name,
        created=created,
        files=files,
        supplier=supplier,
        kind=kind,
    )
    found = components.read(made.cyclonedx)
    by_metadata = sum(each.supplier_source == "metadata" for each in found.packages)
    return Made(part, made, found, ntia.conformance(made.spdx), by_metadata)
