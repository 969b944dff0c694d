"""The images that are looked after: which tags point where now, and what each digest is for which platform.

Own subjects are built into layouts below HOME/images first. Not here: what is inside them.
"""

from __future__ import annotations

import fnmatch
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from greenops_pipelines import strict_json
from greenops_pipelines.errors import ConfigurationError, GreenopsError, ObjectMissing, ProviderError, TransientError
from greenops_pipelines.lake import Lake, Written
from greenops_pipelines.lake.supply_tables import IMAGES
from greenops_pipelines.supply_chain import credentials
from greenops_pipelines.supply_chain.declared import EMBEDDED, ENVIRONMENT, LAYOUT, Image, Images
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import Manifest, Platform, Reference, Repository
from greenops_pipelines.supply_chain.registry import Registry

_log = logging.getLogger(__name__)

_ATTACHMENT = re.compile(r"sha256-[0-9a-f]{64}(\.(sig|att|sbom))?")
NO_PLATFORM = "none"
MAX_TAGS = 500
"""Looked at per image: a look has to end within a sensor's minute."""
LOOK_SECONDS = 40
"""A sensor's tick has 60."""
LOOK_TIMEOUT = (3.0, 8.0)
"""Seconds to connect and between two bytes, while a look waits for a registry."""
_TIMEOUT = (5.0, 60.0)
_MAX_CONFIG_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Noticed:
    """A tag, and the digest that it points to."""

    image: Image
    tag: str
    repository: str
    """As the world knows it, without a machine's paths."""
    manifest: Manifest | None
    """None where what is there cannot be read; `fault` says why."""
    fault: str = ""

    @property
    def digest(self) -> str | None:
        return self.manifest.digest if self.manifest else None


@dataclass(frozen=True)
class Part:
    """What one SBOM is of: the manifest of one platform."""

    platform: str
    manifest: Manifest


@dataclass(frozen=True)
class Subject:
    """An image in use, opened: where it lies, and the parts of it that SBOMs are made of."""

    image: Image
    name: str
    """What statements call it."""
    digest: str
    repository: Repository
    manifest: Manifest

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        return parts(self.repository, self.manifest, self.image.platforms)


@dataclass(frozen=True)
class Look:
    """What a look at all images found, and what could not be looked at."""

    noticed: tuple[Noticed, ...]
    faults: tuple[str, ...]
    written: Written
    new: tuple[str, ...]
    """Digests, in order."""
    is_changed: bool
    """Whether a tag points elsewhere than at the last look."""

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.digest for each in self.noticed if each.digest))


def open_repository(image: Image, folder: Path, home: Path, timeout: tuple[float, float] = _TIMEOUT) -> Repository:
    """Where an image lies. `folder` is where relative layouts begin; what is built here lies below `home`."""
    if image.is_own:
        return Layout(own_layout(image, home), create=True)
    if image.source.startswith(LAYOUT):
        return Layout(folder / image.source.removeprefix(LAYOUT))
    return open_registry(Reference.parse(image.source), timeout)


def open_registry(reference: Reference, timeout: tuple[float, float] = _TIMEOUT) -> Registry:
    """The repository of a reference, with what `docker login` left."""
    return Registry(reference.registry, reference.repository, credentials.find, timeout=timeout)


def own_layout(image: Image, home: Path) -> Path:
    """Where a subject that is built here lies."""
    return home / "images" / image.name


def public_name(image: Image) -> str:
    """What statements call it: the same on every machine."""
    return f"greenops-pipelines/{image.name}" if image.is_own or image.source.startswith(LAYOUT) else image.source


def without_folders(text: str, *folders: Path) -> str:
    """A message as it may stand in a table or in evidence: a machine's own paths say nothing elsewhere, and are nobody's affair."""
    for folder in sorted(folders, key=lambda each: len(str(each)), reverse=True):
        text = text.replace(f"{folder.absolute()}/", "")
    return text


def build_own(image: Image, home: Path) -> None:
    """Builds what is declared as built here: the same bytes as long as what it is made of has not changed."""
    from greenops_pipelines.supply_chain import environment, sample_image

    folder = own_layout(image, home)
    if image.source == EMBEDDED:
        sample_image.build(folder)
    elif image.source == ENVIRONMENT:
        environment.as_layout(environment.inventory(), folder)


def is_attachment(tag: str) -> bool:
    """Whether it is the tag of something attached to an image, and none of a person's."""
    return _ATTACHMENT.fullmatch(tag) is not None


def look(
    declared: Images, home: Path, lake: Lake, now: datetime, opened: Callable[[Image], Repository] | None = None
) -> Look:
    """Asks every source which digests its tags point to, and writes that down. One that fails keeps what it had.

    A look ends within a sensor's minute: what there was no time for is named, and another source comes first at the next one.
    """
    open_ = opened or (lambda image: open_repository(image, declared.folder, home, LOOK_TIMEOUT))
    noticed: list[Noticed] = []
    faults: list[str] = []
    asked: list[Image] = []
    deadline = time.monotonic() + LOOK_SECONDS
    first = int(now.timestamp() // 300) % len(declared.images)
    for image in (*declared.images[first:], *declared.images[:first]):
        try:
            if time.monotonic() > deadline:
                raise TransientError(f"{image.source}: not asked, as other sources took {LOOK_SECONDS} s")
            found = list(_of(image, open_, home, deadline))
        except GreenopsError as error:
            fault = f"{image.name}: {without_folders(str(error), home, declared.folder)}"
            _log.warning("image %s", fault)
            faults.append(fault)
        else:
            if not found:
                faults.append(f"{image.name}: no tag fits {', '.join(image.tags)}")
            asked.append(image)
            noticed += found
    before = lake.read(IMAGES).to_pylist()
    rows = _rows(noticed, before, now)
    names = {image.name for image in declared.images}
    gone = {row["image"] for row in before} - names
    partitions = [{"image": each} for each in (*sorted(image.name for image in asked), *sorted(gone))]
    written = lake.write(IMAGES, pa.Table.from_pylist(rows, schema=IMAGES.schema), partitions)
    faults += [f"{each.image.name}:{each.tag}: {each.fault}" for each in noticed if each.fault]
    known = {row["image_digest"] for row in before}
    new = dict.fromkeys(each.digest for each in noticed if each.digest and each.digest not in known)
    return Look(tuple(noticed), tuple(faults), written, tuple(new), is_changed=written.bytes > 0)


def parts(repository: Repository, manifest: Manifest, platforms: Sequence[str]) -> tuple[Part, ...]:
    """The manifests that SBOMs are made of: one per platform asked for.

    A missing one, and one that is listed twice, is a `ProviderError` that says so.
    """
    if not manifest.is_index:
        return (Part(_platform(repository, manifest), manifest),)
    listed: dict[str, list[str]] = {}
    for each in manifest.manifests:
        if each.platform is None or each.platform.os == "unknown":
            continue  # BuildKit's own attestations
        listed.setdefault(_plain(each.platform), []).append(each.digest)
    wanted = wanted_platforms(platforms)
    if missing := [each for each in wanted if each not in listed]:
        has = ", ".join(sorted(listed)) or "none"
        raise ProviderError(
            f"{repository.name}@{manifest.digest}: found the platforms {has}, allowed: also {', '.join(missing)}, "
            "as ops/images.yaml says"
        )
    found = []
    for platform in wanted:
        if len(set(listed[platform])) > 1:
            # Which of them a machine pulls is its own affair: one would run that nobody has looked at.
            raise ProviderError(
                f"{repository.name}@{manifest.digest}: found {platform} {len(listed[platform])} times, allowed: once"
            )
        part = repository.manifest(listed[platform][0])
        if part.is_index:
            raise ProviderError(f"{repository.name}@{manifest.digest}: found an index inside the index for {platform}")
        found.append(Part(platform, part))
    return tuple(found)


def wanted_platforms(platforms: Sequence[str]) -> list[str]:
    """As `Part` names them, each once: linux/arm64/v8 is linux/arm64."""
    return list(dict.fromkeys(_plain(Platform.parse(each)) for each in platforms))


def named(declared: Images, lake: Lake, digest: str) -> list[Image]:
    """The declared images that the digest is in use as, our own first; none where no tag of one points to it any more.

    One image in two registries, as of two regions, is two of them: what is attached to one is not attached to the other.
    """
    names = {image.name for image in declared.images}
    rows = lake.query("select distinct image, is_own from images where image_digest = $1", [digest]).to_pylist()
    used = sorted((not row["is_own"], row["image"]) for row in rows if row["image"] in names)
    return [declared.of(name) for _, name in used]


def opened(image: Image, declared: Images, home: Path, digest: str) -> Subject:
    """The image of that digest, asked for where it lies. Raises as a `Repository` does."""
    repository = open_repository(image, declared.folder, home)
    return Subject(image, public_name(image), digest, repository, repository.manifest(digest))


def _of(image: Image, opened: Callable[[Image], Repository], home: Path, deadline: float) -> Sequence[Noticed]:
    if image.is_own:
        build_own(image, home)
    repository = opened(image)
    tags = [
        tag
        for tag in repository.tags()
        if not is_attachment(tag) and any(fnmatch.fnmatchcase(tag, each) for each in image.tags)
    ]
    if len(tags) > MAX_TAGS:
        raise ConfigurationError(
            f"{image.source}: found {len(tags):,} tags that fit {', '.join(image.tags)}, allowed: {MAX_TAGS}; "
            "name fewer under `tags` in ops/images.yaml"
        )
    found: list[Noticed] = []
    for tag in tags:
        if time.monotonic() > deadline:
            raise TransientError(f"{image.source}: {len(found)} of {len(tags)} tags read within {LOOK_SECONDS} s")
        try:
            found.append(Noticed(image, tag, public_name(image), repository.manifest(tag)))
        except ObjectMissing:
            continue  # moved or deleted since it was listed
        except ProviderError as error:
            # One tag that nobody can read must not hide the others.
            found.append(Noticed(image, tag, public_name(image), None, str(error)))
    return found


def _rows(noticed: Sequence[Noticed], before: Sequence[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    known = {(row["image"], row["tag"], row["image_digest"]): row["noticed_at"] for row in before}
    return [
        {
            "image": each.image.name,
            "tag": each.tag,
            "image_digest": each.digest,
            "repository": each.repository,
            "media_type": each.manifest.media_type if each.manifest else None,
            "is_index": each.manifest.is_index if each.manifest else False,
            "is_own": each.image.is_own,
            "is_sample": each.image.source == EMBEDDED,
            "fault": each.fault or None,
            "noticed_at": known.get((each.image.name, each.tag, each.digest), now),
        }
        for each in noticed
    ]


def _platform(repository: Repository, manifest: Manifest) -> str:
    """As the image's own configuration says; `none` for what is no image."""
    if manifest.document.get("artifactType"):
        return NO_PLATFORM
    try:
        match strict_json.loads(repository.blob(manifest.config, _MAX_CONFIG_BYTES)):
            case {"os": str(os), "architecture": str(architecture), **rest} if os and architecture:
                return _plain(Platform(os, architecture, str(rest.get("variant") or "")))
    except ValueError as error:
        raise ProviderError(f"{repository.name}@{manifest.digest}: its configuration: {error}") from None
    raise ProviderError(
        f"{repository.name}@{manifest.digest}: its configuration names no os and architecture, allowed: an image"
    )


def _plain(platform: Platform) -> str:
    """v8 is what arm64 is without a variant (OCI Image Index, "Platform Variants"): some builders write it, some do not."""
    is_v8 = (platform.architecture, platform.variant) == ("arm64", "v8")
    return str(Platform(platform.os, platform.architecture) if is_v8 else platform)
