"""ops/images.yaml: whose supply chain is looked after, what is not shipped, whose word counts. Not here: looking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import Field

from greenops_pipelines import ops
from greenops_pipelines.errors import BadInput
from greenops_pipelines.evidence.signing import PublicKey
from greenops_pipelines.lake.supply_tables import DECLARED_IMAGES
from greenops_pipelines.ops import Document, OpsModel
from greenops_pipelines.ops.tree import Fault, Location
from greenops_pipelines.supply_chain.oci import Platform, Reference

FILE = "images.yaml"
EMBEDDED, ENVIRONMENT, LAYOUT = "embedded", "environment", "oci:"

_Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
_Severity = Literal["LOW", "MEDIUM", "HIGH", "CRITICAL"]


class Image(OpsModel):
    """One declared image: where it lies, and what of it is looked at."""

    name: _Name
    source: Annotated[str, Field(min_length=1)]
    tags: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = ("*",)
    platforms: Annotated[tuple[str, ...], Field(min_length=1)] = ("linux/amd64",)
    attach: bool = False

    @property
    def is_own(self) -> bool:
        """Whether this project builds it itself, and may say so in its provenance."""
        return self.source in (EMBEDDED, ENVIRONMENT)

    @property
    def kind(self) -> str:
        """embedded, environment, layout or registry."""
        if self.is_own:
            return self.source
        return "layout" if self.source.startswith(LAYOUT) else "registry"


class Gate(OpsModel):
    """What counts, and how old what it rests on may be."""

    severities: Annotated[tuple[_Severity, ...], Field(min_length=1)] = ("HIGH", "CRITICAL")
    database_days: Annotated[int, Field(ge=1, le=60)] = 5
    scan_days: Annotated[int, Field(ge=1, le=90)] = 7


class Vex(OpsModel):
    """Where exceptions lie, and whose signatures make them count."""

    folder: Annotated[str, Field(min_length=1)] = "vex"
    keys: tuple[str, ...] = ()


class Builder(OpsModel):
    """A build platform whose provenance is accepted; one with a key signs it itself."""

    id: Annotated[str, Field(min_length=1)]
    key: str = ""
    level: Literal[1, 2, 3] = 1


class Admission(OpsModel):
    """What the policies are about, and what they do."""

    images: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = ("*",)
    excluded: tuple[str, ...] = ("kube-system", "kyverno")
    mode: Literal["Audit", "Deny"] = "Audit"
    severities: Annotated[tuple[_Severity, ...], Field(min_length=1)] = ("CRITICAL",)


class _Images(OpsModel):
    images: Annotated[tuple[Image, ...], Field(min_length=1)]
    gate: Gate = Gate()
    vex: Vex = Vex()
    builders: tuple[Builder, ...] = ()
    admission: Admission = Admission()


@dataclass(frozen=True)
class TrustedBuilder:
    """A builder with its key read; None where our own key signs inside the build, which is of level 1."""

    id: str
    key: PublicKey | None = None
    level: int = 1


@dataclass(frozen=True)
class Images:
    """What is declared, with the keys it names; `folder` is where its relative paths begin."""

    images: tuple[Image, ...]
    gate: Gate
    vex_folder: Path
    vex_keys: tuple[PublicKey, ...]
    builders: tuple[TrustedBuilder, ...]
    admission: Admission
    folder: Path

    def of(self, name: str) -> Image:
        """The image of that name; `BadInput` names those there are."""
        for image in self.images:
            if image.name == name:
                return image
        raise BadInput(f"image {name!r}: allowed: {', '.join(each.name for each in self.images)}, by ops/{FILE}")


def read_images(ops_dir: Path) -> Images:
    """ops/images.yaml; `ConfigurationError` with file, line, field, found and allowed."""
    document = ops.load(ops_dir / FILE, _Images)
    value = document.value
    faults = _image_faults(document)
    keys: dict[Location, PublicKey] = {}
    for place, name in _named_keys(value):
        try:
            keys[place] = PublicKey.parse((ops_dir / name).read_bytes())
        except OSError as error:
            faults.append(document.fault(place, f"a PEM file beside {FILE} ({error.strerror})"))
        except ValueError as error:
            faults.append(document.fault(place, f"a file with a public key ({error})"))
    ops.refuse(faults)
    return Images(
        value.images,
        value.gate,
        ops_dir / value.vex.folder,
        tuple(key for place, key in keys.items() if place[0] == "vex"),
        tuple(
            TrustedBuilder(each.id, keys.get(("builders", at, "key")), each.level)
            for at, each in enumerate(value.builders)
        ),
        value.admission,
        ops_dir,
    )


def undeclared(ops_dir: Path, builder: str) -> Images:
    """What holds where there is no ops/images.yaml, as in another project's build: no image, and that one builder."""
    return Images((), Gate(), ops_dir / Vex().folder, (), (TrustedBuilder(builder),), Admission(), ops_dir)


def _named_keys(value: _Images) -> list[tuple[Location, str]]:
    vex: list[tuple[Location, str]] = [(("vex", "keys", at), name) for at, name in enumerate(value.vex.keys)]
    return vex + [(("builders", at, "key"), each.key) for at, each in enumerate(value.builders) if each.key]


def _image_faults(document: Document[_Images]) -> list[Fault]:
    faults = []
    names: set[str] = set()
    for at, image in enumerate(document.value.images):
        if image.name in names:
            faults.append(document.fault(("images", at, "name"), "each name once"))
        names.add(image.name)
        if image.source == LAYOUT:
            faults.append(document.fault(("images", at, "source"), "oci:PATH, the folder of an OCI image layout"))
        if image.kind == "registry":
            try:
                reference = Reference.parse(image.source)
            except BadInput as error:
                faults.append(document.fault(("images", at, "source"), str(error).rpartition("allowed: ")[2]))
            else:
                if reference.tag or reference.digest:
                    allowed = "registry/repository alone; tags stand under `tags`"
                    faults.append(document.fault(("images", at, "source"), allowed))
        for position, platform in enumerate(image.platforms):
            try:
                Platform.parse(platform)
            except BadInput as error:
                allowed = str(error).rpartition("allowed: ")[2]
                faults.append(document.fault(("images", at, "platforms", position), allowed))
    for at, glob in enumerate(document.value.admission.images):
        if not glob.endswith("*"):
            # Kyverno compares after it has pinned the digest: the image would be passed over.
            allowed = "a * at its end, for the tag and the digest, such as registry.example.com/team/api*"
            faults.append(document.fault(("admission", "images", at), allowed))
    for at, builder in enumerate(document.value.builders):
        if not builder.key and builder.level > 1:
            allowed = "1, or the builder's own key beside it: levels 2 and 3 are of builders that sign themselves"
            faults.append(document.fault(("builders", at, "level"), allowed))
        if builder.key and builder.level == 1:
            faults.append(document.fault(("builders", at), "level 2 or 3 for a builder that signs with its own key"))
    return faults


def images_table(declared: Images) -> pa.Table:
    """Rows of DECLARED_IMAGES."""
    return pa.Table.from_pylist(
        [
            {
                "image": each.name,
                "source": each.source,
                "kind": each.kind,
                "tags": ", ".join(each.tags),
                "platforms": ", ".join(each.platforms),
                "is_attached": each.attach or each.is_own,
                "is_sample": each.source == EMBEDDED,
            }
            for each in declared.images
        ],
        schema=DECLARED_IMAGES.schema,
    )
