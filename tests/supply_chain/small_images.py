"""Small images with packages in them, and a home that looks after some: the steps of the intake taken by hand."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from greenops_pipelines.evidence import canonical
from greenops_pipelines.evidence.keys import Keys
from greenops_pipelines.lake import Lake, Table
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.supply_tables import ADVISORIES, IMAGES, SBOMS, SUPPLY_TABLES
from greenops_pipelines.store.local import LocalObjectStore
from greenops_pipelines.supply_chain import advisories, judging, provenance, published, subjects
from greenops_pipelines.supply_chain.declared import Admission, Gate, Image, Images, TrustedBuilder
from greenops_pipelines.supply_chain.intake import Intake, Outcome
from greenops_pipelines.supply_chain.oci import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Repository, digest_of

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
LAYER = "application/vnd.oci.image.layer.v1.tar"
DEMO = {
    "site/demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nAuthor: Ada Lovelace\n"
    "Author-email: ada@example.org\n"
}
PURL = "pkg:pypi/demo@1.0"


def tar(files: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))
    return out.getvalue()


def push(
    repository: Repository,
    tag: str = "v1",
    files: Mapping[str, str] | None = None,
    architecture: str = "amd64",
    diff_id: str = "",
    variant: str = "",
) -> str:
    """Puts an image of one layer there; its digest."""
    layer = tar(DEMO if files is None else files)
    config: dict[str, Any] = {
        "architecture": architecture,
        "os": "linux",
        "created": "2026-03-01T00:00:00Z",
        "config": {"Labels": {"org.opencontainers.image.vendor": "ACME GmbH"}},
        "rootfs": {"type": "layers", "diff_ids": [diff_id or digest_of(layer)]},
    } | ({"variant": variant} if variant else {})
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": repository.put_blob(canonical.dumps(config), OCI_CONFIG).as_document(),
        "layers": [repository.put_blob(layer, LAYER).as_document()],
    }
    return repository.put_manifest(canonical.dumps(manifest), OCI_MANIFEST, tag).digest


def push_index(repository: Repository, tag: str, manifests: Sequence[tuple[str, str]]) -> str:
    """An index of (platform, digest of its manifest); its digest."""
    listed = []
    for platform, digest in manifests:
        os, architecture, *variant = platform.split("/")
        said = {"os": os, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        listed.append({"mediaType": OCI_MANIFEST, "digest": digest, "size": 1, "platform": said})
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    return repository.put_manifest(canonical.dumps(document), OCI_INDEX, tag).digest


class Site:
    """A home, with images declared by hand. Its lake has the supply chain's tables alone."""

    def __init__(
        self,
        folder: Path,
        *images: Image,
        reports: Path | None = None,
        builders: Sequence[TrustedBuilder] = (),
        gate: Gate | None = None,
    ) -> None:
        self.folder, self.home, self.ops = folder, folder / "home", folder / "ops"
        self.ops.mkdir(parents=True, exist_ok=True)
        self.keys = Keys(self.home / "keys")
        self.lake = Lake(LocalFolder(self.home / "lake"), self.home / "warehouse.duckdb", {}, SUPPLY_TABLES)
        self.store = LocalObjectStore(self.home / "sbom")
        self.reports, self.builders, self.gate = reports, tuple(builders), gate or Gate()
        self.images = images

    @property
    def declared(self) -> Images:
        return Images(self.images, self.gate, self.ops / "vex", (), self.builders, Admission(), self.ops)

    @property
    def intake(self) -> Intake:
        return Intake(
            declared=self.declared,
            home=self.home,
            lake=self.lake,
            store=self.store,
            store_name="local folder",
            signer=self.keys.signer,
            keys=self.keys.public,
            build=lambda: provenance.Build(provenance.OWN_BUILD_TYPE, provenance.LOCAL_BUILDER, "", {}),
            reports=self.reports,
        )

    def look(self, now: datetime = NOW) -> subjects.Look:
        return subjects.look(self.declared, self.home, self.lake, now)

    def take(self, digest: str, now: datetime = NOW) -> list[str]:
        """The three steps; what came of each."""
        intake = self.intake
        done: list[Outcome] = [step(digest, now) for step in (intake.sbom, intake.scan, intake.attest)]
        return [each["outcome"] for each in done]

    def judge(self, now: datetime = NOW) -> list[dict[str, Any]]:
        """Verdicts on what is in use."""
        self.intake.judge(now)
        return self.rows("image_verdicts")

    def advise(self, *records: dict[str, Any]) -> None:
        """A snapshot of advisories, read into the lake."""
        place = self.folder / "osv"
        place.mkdir(exist_ok=True)
        for each in records:
            (place / f"{each['id']}.json").write_text(json.dumps(each))
        self.lake.write(ADVISORIES, judging.take_advisories(advisories.read(place)))

    def put(self, table: Table, *rows: Mapping[str, Any]) -> None:
        """Rows written by hand; what a row leaves out is null."""
        blank = dict.fromkeys(table.schema.names)
        new = pa.Table.from_pylist([{**blank, **row} for row in rows], schema=table.schema)
        self.lake.write(table, new, refresh=False)  # nobody reads the warehouse here

    def listed(self, digest: str, *packages: str, image: str = "app", platform: str = "linux/amd64") -> str:
        """An image in use whose SBOM was made and published, of Python packages such as demo@1.0; the SBOM's SHA-256."""
        document = canonical.dumps({"bomFormat": "CycloneDX", "components": [_component(each) for each in packages]})
        at = published.publish(self.store, digest, platform, "cdx.json", document)
        self.add(IMAGES, image_row(digest, image))
        self.add(SBOMS, sbom_row(digest, image, platform=platform, cyclonedx_key=at.key, cyclonedx_sha256=at.sha256))
        return at.sha256

    def add(self, table: Table, row: Mapping[str, Any]) -> None:
        """A row beside those that are there, in place of one with the same key."""
        others = [each for each in self.lake.read(table).to_pylist() if any(each[k] != row[k] for k in table.unique)]
        self.put(table, *others, row)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.lake.query(
            sql if " " in sql else f"select * from {sql} order by all"
        ).to_pylist()
        return found

    def documents(self) -> dict[str, bytes]:
        return {key: self.store.get(key) for key in self.store.list()}

    def sboms(self) -> list[dict[str, Any]]:
        return self.lake.read(SBOMS).to_pylist()


def image_row(digest: str, image: str = "app", **changes: Any) -> dict[str, Any]:
    """A row of IMAGES, noticed two hours before NOW."""
    return {
        "image": image,
        "tag": f"v-{digest[7:11]}",
        "image_digest": digest,
        "repository": f"registry.example.com/team/{image}",
        "media_type": OCI_MANIFEST,
        "is_index": False,
        "is_own": False,
        "is_sample": False,
        "noticed_at": NOW - timedelta(hours=2),
    } | changes


def sbom_row(digest: str, image: str = "app", **changes: Any) -> dict[str, Any]:
    """A row of SBOMS: one package, nothing missing."""
    return {
        "image_digest": digest,
        "platform": "linux/amd64",
        "image": image,
        "platform_digest": digest,
        "is_only": True,
        "config_digest": f"sha256:{'c' * 64}",
        "components": 1,
        "unversioned": 0,
        "is_conformant": True,
        "supplied_by_metadata": 1,
        "cyclonedx_key": "images/a.cdx.json",
        "cyclonedx_sha256": "0" * 64,
        "spdx_key": "images/a.spdx.json",
        "spdx_sha256": "0" * 64,
        "tool": "syft 1.18.1",
        "store": "local folder",
    } | changes


def _component(package: str) -> dict[str, Any]:
    name, _, version = package.partition("@")
    kind = [{"name": "syft:package:type", "value": "python"}]
    purl = f"pkg:pypi/{package}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "properties": kind}
