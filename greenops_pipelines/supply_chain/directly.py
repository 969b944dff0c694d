"""`greenops attest` and `greenops verify` on any image: in a build, where there is no lake, or on a declared one by its name.

Not here: the unattended way (`intake.py`), which writes down what it does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import BadInput
from greenops_pipelines.evidence.signing import PublicKey, Signer
from greenops_pipelines.store.objects import ObjectStore
from greenops_pipelines.supply_chain import attestations, judging, published, scanning, subjects, vouching
from greenops_pipelines.supply_chain.attestations import SIGNATURE
from greenops_pipelines.supply_chain.declared import LAYOUT, Image, Images
from greenops_pipelines.supply_chain.judging import Knowledge
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.making import Made, make
from greenops_pipelines.supply_chain.oci import Reference
from greenops_pipelines.supply_chain.provenance import Build
from greenops_pipelines.supply_chain.subjects import Part, Subject

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Attested:
    """What `attest` has made and attached, or would have; and what is there when it is read back."""

    image: str
    digest: str
    dry_run: bool
    statements: tuple[tuple[str, tuple[str, ...]], ...]
    """Predicate type and the digests it is about."""
    sboms: tuple[dict[str, Any], ...]
    verdict: vouching.Verdict | None

    def as_document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "image": self.image,
            "digest": self.digest,
            "dry_run": self.dry_run,
            "statements": [{"predicate_type": kind, "about": list(about)} for kind, about in self.statements],
            "sboms": list(self.sboms),
            "verdict": None if self.verdict is None else document(self.verdict),
        }


def document(verdict: vouching.Verdict) -> dict[str, Any]:
    """A verdict for `--json`."""
    return {
        "digest": verdict.digest,
        "ok": verdict.ok,
        "missing": list(verdict.missing),
        "slsa_level": verdict.level.level,
        "slsa_reason": verdict.level.reason,
        "builder": verdict.level.builder or None,
        "attached": [
            {
                "predicate_type": each.predicate_type or None,
                "way": each.way,
                "manifest": each.manifest,
                "verified": each.statement is not None,
                "key": each.statement.key.keyid if each.statement else None,
                "fault": each.fault or None,
            }
            for each in verdict.found
        ],
    }


def open_image(text: str, declared: Images, home: Path, platforms: Sequence[str] = ()) -> Subject:
    """The image that a person named: by its name in ops/images.yaml, as oci:PATH[:TAG], or registry/repository[:tag][@digest]."""
    by_name = {image.name: image for image in declared.images}
    name, _, tag = text.partition(":")
    if name in by_name:
        image = by_name[name]
        if image.is_own:
            subjects.build_own(image, home)
        repository = subjects.open_repository(image, declared.folder, home)
        wanted = tag or _only_tag(repository.tags(), text)
        shown = subjects.public_name(image)
    elif text.startswith(LAYOUT):
        path, _, tag = text.removeprefix(LAYOUT).partition(":")
        repository = Layout(Path(path))
        image = Image(name="image", source=f"{LAYOUT}{path}")
        wanted, shown = tag or _only_tag(repository.tags(), text), Path(path).absolute().name
    else:
        reference = Reference.parse(text)
        repository = subjects.open_registry(reference)
        image = Image(name="image", source=repository.name)
        wanted, shown = reference.wanted, repository.name
    if platforms:
        image = image.model_copy(update={"platforms": tuple(platforms)})
    manifest = repository.manifest(wanted)
    return Subject(image, shown, manifest.digest, repository, manifest)


def attest(
    subject: Subject,
    declared: Images,
    known: Knowledge,
    store: ObjectStore,
    signer: Callable[[], Signer],
    keys: Callable[[], Sequence[PublicKey]],
    build: Build,
    now: datetime,
    *,
    syft: str = "",
    reports: Path | None = None,
    dry_run: bool = False,
    progress: Progress = lambda _text: None,
) -> Attested:
    """SBOMs made and published, scans taken, everything attached and read back. A dry run stops before anything is written."""
    said, listed = [], []
    with tempfile.TemporaryDirectory(prefix="greenops-image-") as temporary:
        folder = Path(temporary)
        for part in subject.parts:
            progress(f"{part.platform}: SBOM ...")
            made = make(subject, part, folder, syft)
            row = {
                "platform": part.platform,
                "digest": part.manifest.digest,
                "components": made.sbom.components,
                "ntia": made.ntia.is_conformant,
                "missing": made.missing or None,
            }
            if not dry_run:
                for kind, text in (("cdx.json", made.sbom.cyclonedx), ("spdx.json", made.sbom.spdx)):
                    at = published.publish(store, subject.digest, part.platform, kind, text)
                    row[kind] = at.key
            listed.append(row)
            progress(f"{part.platform}: scan ...")
            scan = _scan(subject, part, made, known, reports, folder, now)
            said.append(vouching.Said(part.platform, part.manifest.digest, made.sbom.cyclonedx, made.sbom.spdx, scan))
    runs = vouching.runnable(subject.repository, subject.digest)
    written = vouching.statements(subject.name, subject.digest, said, build, now, runs)
    about = tuple((kind, attestations.subjects(payload)) for kind, payload in written)
    about = ((SIGNATURE, (subject.digest,)), *about)
    if dry_run:
        return Attested(subject.name, subject.digest, True, about, tuple(listed), None)
    progress("attaching ...")
    vouching.vouch(subject.repository, subject.name, subject.digest, said, build, signer(), now)
    places = {each.digest: each.platform for each in said}
    verdict = vouching.verdicts(subject.repository, subject.digest, places, keys(), declared.builders)
    return Attested(subject.name, subject.digest, False, about, tuple(listed), verdict)


def _scan(
    subject: Subject, part: Part, made: Made, known: Knowledge, reports: Path | None, folder: Path, now: datetime
) -> vouching.Scan | None:
    digest = part.manifest.digest
    others = [part.manifest.config.digest, *([subject.digest] if not subject.manifest.is_index else [])]
    taken = scanning.take(made.sbom.cyclonedx, [digest, *others], reports, folder, now)
    sha256 = scanning.sha256(made.sbom.cyclonedx)
    judged = judging.judge(taken, made.components, known, digest=digest, others=others, sbom_sha256=sha256, now=now)
    return judging.attested(judged)


def _only_tag(tags: Sequence[str], text: str) -> str:
    found = [tag for tag in tags if not subjects.is_attachment(tag)]
    if len(found) != 1:
        shown = ", ".join(found[:10]) or "none"
        raise BadInput(f"image {text}: found the tags {shown}, allowed: one of them after a colon")
    return found[0]
