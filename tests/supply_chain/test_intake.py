"""An image from being noticed to being read back: nothing twice, nothing attached that was not asked for, every fault written down."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.errors import TransientError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.evidence.signing import Signer
from greenops_pipelines.lake.supply_tables import IMAGE_SCANS
from greenops_pipelines.supply_chain import attach, checks, provenance, subjects, vouching
from greenops_pipelines.supply_chain.attestations import CYCLONEDX, PROVENANCE, SIGNATURE, SPDX
from greenops_pipelines.supply_chain.declared import Image
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import OCI_CONFIG, OCI_MANIFEST, Repository
from tests.supply_chain.conftest import Answer, Asked, Debian, OciRegistry, flip, opened
from tests.supply_chain.small_images import DEMO, NOW, PURL, Site, push, push_index

DAY = timedelta(days=1)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def without_pauses_and_scanners(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        subjects, "open_registry", lambda reference, *_: opened(reference.registry, reference.repository)
    )
    # `nice`, `git` and no scanner.
    tools = tmp_path / "tools"
    tools.mkdir()
    for each in ("nice", "git"):
        (tools / each).symlink_to(f"/usr/bin/{each}")
    monkeypatch.setenv("PATH", f"{tools}")


def place(site: Site, name: str = "app") -> Layout:
    return Layout(site.ops / name, create=True)


def of_layout(folder: Path, **changes: Any) -> Site:
    return Site(folder, Image(name="app", source="oci:app", **changes))


def state(repository: Repository) -> dict[str, str]:
    """Every tag with what it points to."""
    return {tag: repository.manifest(tag).digest for tag in repository.tags()}


def published(site: Site, hours: int = 2) -> tuple[float | None, str]:
    found = checks.published(site.lake, site.store, NOW + timedelta(hours=hours))
    return found.measured, found.detail


# --- a real registry


@pytest.mark.real
@pytest.mark.parametrize("is_attached", [False, True])
def test_an_image_of_a_real_registry_is_taken_in_and_the_second_time_nothing_is_written(
    tmp_path: Path, debian: Debian, is_attached: bool
) -> None:
    repository = debian.repository(f"team/taken-{str(is_attached).lower()}")
    digest = push(repository)
    site = Site(tmp_path, Image(name="app", source=repository.name, attach=is_attached))
    before = state(repository)
    assert site.look().new == (digest,)
    made, scanned, attested = site.take(digest)
    assert (made, scanned) == ("1 SBOMs, 1 components", "no scanner")

    # Published in both formats, under the digest of their bytes.
    (row,) = site.sboms()
    documents = site.documents()
    assert set(documents) == {row["cyclonedx_key"], row["spdx_key"]}
    for kind in ("cyclonedx", "spdx"):
        assert hashlib.sha256(documents[row[f"{kind}_key"]]).hexdigest() == row[f"{kind}_sha256"]
        assert row[f"{kind}_key"].startswith(f"images/{digest.removeprefix('sha256:')}/linux-amd64/")
    assert (row["platform"], row["is_only"], row["components"], row["is_conformant"], row["missing"]) == (
        "linux/amd64", True, 1, True, None,
    )  # fmt: skip
    (component,) = site.rows("select * from sbom_components where name = 'demo'")
    assert (component["version"], component["purl"], component["image"], component["supplier"]) == (
        "1.0", PURL, "app", "Ada Lovelace",
    )  # fmt: skip
    (scan,) = site.rows("image_scans")
    assert (scan["scanner"], scan["origin"], scan["scanned_at"], scan["report_key"]) == ("none", "none", None, None)

    keys = [site.keys.signer().public]
    kinds = {each.predicate_type for each in attach.read(repository, digest, keys) if each.statement}
    if is_attached:
        assert kinds == {CYCLONEDX, SPDX}
        assert attested.startswith("lacks signature, ")
        assert "provenance" in attested
    else:
        assert (state(repository), kinds) == (before, set())
        assert attested.startswith("lacks signature, CycloneDX SBOM, SPDX SBOM, provenance; SLSA build level 0")
    (standing,) = site.rows("image_standing")
    assert standing["is_attached_here"] is is_attached

    after, rows = state(repository), {name: site.rows(name) for name in ("sboms", "sbom_components", "image_scans")}
    assert site.take(digest, NOW + DAY)[:2] == ["1 SBOMs were there", "no scanner"]
    assert (state(repository), site.documents()) == (after, documents)
    assert {name: site.rows(name) for name in rows} == rows


def test_what_is_built_here_is_given_everything_and_another_home_makes_the_same_bytes(tmp_path: Path) -> None:
    documents = []
    for name in ("a", "b"):
        site = Site(tmp_path / name, Image(name="sample", source="embedded"))
        (digest,) = site.look().digests
        assert site.take(digest)[2] == "everything is attached and verifies; SLSA build level 1"
        rows = site.rows("select predicate_type, way, is_verified, fault from image_attestations order by all")
        assert [(row["predicate_type"], row["way"]) for row in rows] == sorted(
            (kind, way) for kind in (SIGNATURE, CYCLONEDX, SPDX, PROVENANCE) for way in attach.WAYS
        )
        assert all(row["is_verified"] and row["fault"] is None for row in rows)
        documents.append(site.documents())
        text = json.dumps([site.rows(each) for each in ("sboms", "image_standing", "images")], default=str)
        assert str(tmp_path) not in text + "".join(each.decode() for each in site.documents().values())
    assert documents[0] == documents[1]


def test_a_signature_that_was_taken_away_is_missed_and_given_again(tmp_path: Path) -> None:
    site = Site(tmp_path, Image(name="sample", source="embedded"))
    (digest,) = site.look().digests
    site.take(digest)
    (site.home / "images" / "sample" / "index.json").unlink()
    site.look()
    assert site.intake.attest(digest, NOW + DAY)["outcome"].startswith("everything is attached and verifies")


# --- several platforms


def test_an_index_has_an_sbom_per_platform_and_everything_on_the_index_and_on_each_manifest(tmp_path: Path) -> None:
    site = of_layout(tmp_path, attach=True, platforms=("linux/amd64", "linux/arm64"))
    app = place(site)
    other = {"site/other-2.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: other\nVersion: 2.0\nAuthor: Ada\n"}
    amd64, arm64 = push(app, "a"), push(app, "b", other, "arm64", variant="v8")
    index = push_index(app, "v1", [("linux/amd64", amd64), ("linux/arm64/v8", arm64)])
    site.images = (site.images[0].model_copy(update={"tags": ("v1",)}),)
    assert site.look().digests == (index,)
    assert site.take(index)[0] == "2 SBOMs, 2 components"
    assert {row["platform"]: (row["platform_digest"], row["is_only"]) for row in site.sboms()} == {
        "linux/amd64": (amd64, False),
        "linux/arm64": (arm64, False),
    }
    found = site.rows("select platform, name from sbom_components order by all")
    assert [tuple(row.values()) for row in found] == [("linux/amd64", "demo"), ("linux/arm64", "other")]
    keys = [site.keys.signer().public]
    about: dict[str, list[set[str]]] = {
        each: [set(s.statement.subjects) for s in attach.read(app, each, keys) if s.statement and s.way == "tag"]
        for each in (index, amd64, arm64)
    }
    one, two = {index, amd64}, {index, arm64}
    assert [sorted(map(sorted, about[each])) for each in (index, amd64, arm64)] == [
        sorted(map(sorted, expected)) for expected in ([one, one, two, two], [one, one], [two, two])
    ]
    assert published(site)[0] == 100
    # Noticed as wanting when a further platform is declared, and no sooner for that reason.
    assert index not in site.intake._incomplete()
    site.images = (site.images[0].model_copy(update={"platforms": ("linux/amd64",)}),)
    assert index in site.intake._incomplete()
    assert site.take(index)[0] == "1 SBOMs, 1 components"
    assert [row["platform"] for row in site.sboms()] == ["linux/amd64"]
    assert index not in site.intake._incomplete()


def test_a_platform_that_is_declared_later_is_made_up_for(tmp_path: Path) -> None:
    site = of_layout(tmp_path, tags=("v1",))
    app = place(site)
    arm64 = ("linux/arm64", push(app, "b", architecture="arm64"))
    index = push_index(app, "v1", [("linux/amd64", push(app, "a")), arm64])
    site.look()
    assert site.intake.sbom(index, NOW)["outcome"] == "1 SBOMs, 1 components"
    site.images = (site.images[0].model_copy(update={"platforms": ("linux/amd64", "linux/arm64")}),)
    assert site.intake.wanting(NOW) == [index]
    assert site.intake.sbom(index, NOW)["outcome"] == "2 SBOMs, 2 components"


# --- faults


def corrupt(app: Layout, digest: str) -> None:
    layer = app.manifest(digest).layers[0]
    flip(app.folder / "blobs/sha256" / layer.digest.removeprefix("sha256:"))


def faults(site: Site) -> list[tuple[str, str]]:
    return [(row["step"], row["fault"]) for row in site.rows("image_faults")]


def test_a_corrupt_layer_is_a_fault_until_it_is_mended(tmp_path: Path) -> None:
    site = of_layout(tmp_path)
    app = place(site)
    digest = push(app)
    site.look()
    corrupt(app, digest)
    site.intake.sbom(digest, NOW)
    layer = app.manifest(digest).layers[0].digest
    said = f"app: {layer}: found other bytes in it than its digest says"
    assert faults(site) == [("sbom", said)]
    assert published(site) == (0, f"app@{digest[:19]}: {said}")
    assert (site.sboms(), site.documents(), list((site.home / "scratch").iterdir())) == ([], {}, [])
    assert site.intake.wanting(NOW) == [digest]
    corrupt(app, digest)
    assert site.intake.sbom(digest, NOW)["outcome"] == "1 SBOMs, 1 components"
    assert (faults(site), published(site)[0]) == ([], 100)


def test_a_fault_of_later_counts_although_the_sbom_was_there(tmp_path: Path) -> None:
    site = of_layout(tmp_path)
    app = place(site)
    digest = push(app)
    site.look()
    site.take(digest)
    manifest = app.folder / "blobs/sha256" / digest.removeprefix("sha256:")
    flip(manifest)
    outcomes = site.take(digest)
    assert all(each.startswith("fault: app: sha256:") for each in outcomes)
    assert [step for step, _ in faults(site)] == ["attest", "sbom", "scan"]
    assert published(site)[0] == 0
    assert checks.verified(site.lake, NOW + DAY).measured == 0
    flip(manifest)
    site.take(digest)
    assert (faults(site), published(site)[0]) == ([], 100)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"../../etc/cron.d/x": "x"}, "member '../../etc/cron.d/x'"),
        ({"a/../../x": "x"}, "member 'a/../../x'"),
    ],
)
def test_a_member_that_leaves_the_root_is_a_fault(tmp_path: Path, files: dict[str, str], said: str) -> None:
    site = of_layout(tmp_path)
    digest = push(place(site), files=files)
    site.look()
    assert said in site.intake.sbom(digest, NOW)["outcome"]
    assert [step for step, _ in faults(site)] == ["sbom"]
    assert published(site)[0] == 0


def test_a_layer_that_unpacks_to_something_else_is_a_fault(tmp_path: Path) -> None:
    site = of_layout(tmp_path)
    digest = push(place(site), diff_id=f"sha256:{'0' * 64}")
    site.look()
    assert site.intake.sbom(digest, NOW)["outcome"].startswith("fault: ")


def test_a_missing_platform_is_a_fault(tmp_path: Path) -> None:
    site = of_layout(tmp_path, platforms=("linux/amd64", "linux/arm64"), tags=("v1",))
    app = place(site)
    digest = push_index(app, "v1", [("linux/amd64", push(app, "a"))])
    site.look()
    said = f"app@{digest}: found the platforms linux/amd64, allowed: also linux/arm64, as ops/images.yaml says"
    assert site.intake.sbom(digest, NOW)["outcome"] == f"fault: {said}"
    assert published(site) == (0, f"app@{digest[:19]}: {said}")


def test_an_artifact_that_is_no_image_is_a_fault(tmp_path: Path) -> None:
    site = of_layout(tmp_path)
    app = place(site)
    blob = app.put_blob(b"{}", OCI_CONFIG).as_document()
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blob, "layers": []}
    document["artifactType"] = "application/vnd.example.chart"
    digest = app.put_manifest(canonical.dumps(document), OCI_MANIFEST, "v1").digest
    site.look()
    assert (
        "found an artifact of the type 'application/vnd.example.chart', allowed: an image"
        in site.intake.sbom(digest, NOW)["outcome"]
    )
    assert published(site)[0] == 0


@pytest.mark.parametrize(("status", "said"), [(401, "401"), (403, "403"), (404, "404")])
def test_a_registry_that_refuses_is_a_fault_until_it_answers(
    tmp_path: Path, oci_registry: OciRegistry, status: int, said: str
) -> None:
    digest = push(opened(oci_registry.host))
    site = Site(tmp_path, Image(name="app", source=f"{oci_registry.host}/team/app"))
    site.look()
    oci_registry.before = lambda asked: Answer(status)
    site.take(digest)
    assert [step for step, _ in faults(site)] == ["attest", "sbom", "scan"]
    assert all(said in fault for _, fault in faults(site))
    measured, detail = published(site)
    assert (measured, said in detail) == (0, True)
    oci_registry.before = lambda asked: None
    site.take(digest)
    assert (faults(site), published(site)[0]) == ([], 100)


def test_a_registry_that_is_down_for_a_while_is_asked_again_and_is_no_fault(
    tmp_path: Path, oci_registry: OciRegistry
) -> None:
    digest = push(opened(oci_registry.host))
    site = Site(tmp_path, Image(name="app", source=f"{oci_registry.host}/team/app"))
    site.look()
    oci_registry.before = lambda asked: Answer(500)
    with pytest.raises(TransientError, match="500"):
        site.intake.sbom(digest, NOW)
    assert faults(site) == []
    # Within the hour it counts for nothing, then as missed.
    assert published(site, 0) == (None, "nothing to look at")
    assert published(site) == (0, f"app@{digest[:19]}: no SBOM yet")


def test_a_layer_that_the_registry_lies_about_is_a_fault(tmp_path: Path, oci_registry: OciRegistry) -> None:
    registry = opened(oci_registry.host)
    digest = push(registry)
    layer = registry.manifest(digest).layers[0]
    site = Site(tmp_path, Image(name="app", source=f"{oci_registry.host}/team/app"))
    site.look()

    def lies(asked: Asked) -> Answer | None:
        return Answer(body=b"x" * layer.size) if asked.path.endswith(layer.digest) else None

    oci_registry.before = lies
    assert layer.digest in site.intake.sbom(digest, NOW)["outcome"]
    assert [step for step, _ in faults(site)] == ["sbom"]
    assert (site.home / "scratch").is_dir()
    assert list((site.home / "scratch").iterdir()) == []


def test_an_image_whose_tag_moved_is_taken_in_no_more(tmp_path: Path) -> None:
    site = of_layout(tmp_path)
    old = push(place(site))
    site.look()
    site.intake.sbom(old, NOW)
    new = push(place(site), files=DEMO | {"a": "a"})
    site.look()
    assert site.take(old) == ["no tag points to it any more"] * 3
    assert published(site) == (0, f"app@{new[:19]}: no SBOM yet")
    assert site.intake.wanting(NOW) == [new]
    # What it held can still be asked for.
    assert [row["image_digest"] for row in site.rows("sbom_components")] == [old]
    assert site.judge() == []


# --- what was lost, and what a run left that was killed


def test_documents_that_are_gone_from_the_store_are_missed_and_made_again(tmp_path: Path) -> None:
    site = of_layout(tmp_path)
    digest = push(place(site))
    site.look()
    site.intake.sbom(digest, NOW)
    before = site.documents()
    (row,) = site.sboms()
    (site.home / "sbom" / row["spdx_key"]).unlink()
    measured, detail = published(site)
    assert (measured, detail) == (0, f"app@{digest[:19]}: {row['spdx_key']} is not in the store any more")
    assert digest in site.intake._incomplete()
    assert site.intake.sbom(digest, NOW)["outcome"] == "1 SBOMs, 1 components"
    assert (site.documents(), published(site)[0]) == (before, 100)


def test_a_document_with_other_bytes_is_a_fault_of_its_image_alone(tmp_path: Path) -> None:
    site = of_layout(tmp_path)
    one, two = push(place(site)), push(place(site), "v2", DEMO | {"a": "a"})
    site.look()
    for digest in (one, two):
        site.intake.sbom(digest, NOW)
    (row,) = [row for row in site.sboms() if row["image_digest"] == one]
    flip(site.home / "sbom" / row["cyclonedx_key"])
    assert (
        site.intake.scan(one, NOW)["outcome"] == f"fault: {row['cyclonedx_key']}: found other bytes than were published"
    )
    verdicts = {row["image_digest"]: row["faults"] for row in site.judge()}
    said = "there is no report: its SBOM cannot be read\nthere is no SBOM to hold the scan against"
    assert verdicts == {one: said, two: None}


def test_a_run_that_is_killed_after_publishing_is_made_up_for_and_nothing_is_there_twice(tmp_path: Path) -> None:
    site = of_layout(tmp_path)
    digest = push(place(site))
    site.look()
    program = f"""
import os, pathlib, signal
from greenops_pipelines.lake.supply_tables import SBOM_COMPONENTS
from greenops_pipelines.supply_chain.declared import Image
from tests.supply_chain.small_images import NOW, Site
site = Site(pathlib.Path({str(tmp_path)!r}), Image(name="app", source="oci:app"))
site.lake.write = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
site.intake.sbom({digest!r}, NOW)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=False, env={**os.environ, "PYTHONPATH": "."}
    )
    assert ended.returncode == -signal.SIGKILL
    there = site.documents()
    assert (len(there), site.sboms(), published(site)[0]) == (2, [], 0)
    assert site.intake.sbom(digest, NOW)["outcome"] == "1 SBOMs, 1 components"
    assert (site.documents(), len(site.sboms()), published(site)[0]) == (there, 1, 100)


def test_what_a_killed_run_had_fetched_is_removed_a_day_later(tmp_path: Path) -> None:
    site = of_layout(tmp_path)
    digest = push(place(site))
    site.look()
    old, young = (site.home / "scratch" / f"image-{name}" for name in ("old", "young"))
    for each in (old, young):
        each.mkdir(parents=True)
        (each / "layer").write_text("x")
    os.utime(old, (1, 1))
    site.intake.sbom(digest, NOW)
    assert list((site.home / "scratch").iterdir()) == [young]


# --- what is wanting


@pytest.fixture
def scanned(tmp_path: Path, signer: Signer) -> tuple[Site, str]:
    """An image that has everything, its scan being of NOW."""
    site = of_layout(tmp_path)
    app = place(site)
    digest = push(app)
    site.look()
    site.intake.sbom(digest, NOW)
    site.keys.signer()
    build = provenance.Build(provenance.OWN_BUILD_TYPE, provenance.LOCAL_BUILDER, "", {})
    (row,) = site.sboms()
    documents = site.documents()
    said = vouching.Said("linux/amd64", digest, documents[row["cyclonedx_key"]], documents[row["spdx_key"]])
    vouching.vouch(app, "app", digest, [said], build, site.keys.signer(), NOW)
    site.reports = tmp_path / "reports"
    site.reports.mkdir()
    (site.reports / "report.json").write_text(json.dumps(report(digest)))
    site.intake.scan(digest, NOW)
    site.intake.attest(digest, NOW)
    return site, digest


def report(digest: str, **changes: Any) -> dict[str, Any]:
    """A clean one of Grype's."""
    return {
        "matches": [],
        "source": {"type": "image", "target": {"manifestDigest": digest}},
        "descriptor": {
            "name": "grype",
            "version": "0.104.0",
            "timestamp": NOW.isoformat(),
            "db": {"status": {"built": NOW.isoformat()}},
        },
    } | changes


def test_nothing_is_wanting_of_what_is_complete_until_its_scan_is_about_to_be_too_old(
    scanned: tuple[Site, str],
) -> None:
    site, digest = scanned
    assert site.rows("select missing from image_standing") == [{"missing": None}]
    assert [row["outcome"] for row in site.judge()] == ["passed"]
    assert site.intake.wanting(NOW + 6 * DAY) == []
    assert site.intake.wanting(NOW + 6 * DAY + timedelta(seconds=1)) == [digest]


def test_where_nothing_scans_the_want_of_a_scan_asks_for_no_image(scanned: tuple[Site, str]) -> None:
    site, digest = scanned
    (site.reports / "report.json").unlink()
    site.intake.scan(digest, NOW)
    assert site.rows("select scanner from image_scans") == [{"scanner": "none"}]
    assert site.intake.wanting(NOW) == []
    (site.reports / "report.json").write_text(json.dumps(report(digest)))
    assert site.intake.wanting(NOW) == [digest]


def test_a_scan_that_failed_or_is_not_believed_is_tried_again(scanned: tuple[Site, str]) -> None:
    site, digest = scanned
    assert site.reports is not None
    (site.reports / "report.json").write_text(json.dumps({**report(digest), "descriptor": {"name": "grype"}}))
    site.intake.scan(digest, NOW)
    assert site.intake.wanting(NOW) == [digest]
    old = report(digest)
    old["descriptor"]["db"]["status"]["built"] = (NOW - 9 * DAY).isoformat()
    (site.reports / "report.json").write_text(json.dumps(old))
    site.intake.scan(digest, NOW)
    assert site.intake.wanting(NOW) == []
    site.judge()
    assert site.intake.wanting(NOW) == [digest]


def test_a_second_scanner_that_is_old_makes_nothing_wanting(scanned: tuple[Site, str]) -> None:
    site, _ = scanned
    (row,) = site.rows("image_scans")
    site.put(IMAGE_SCANS, row, {**row, "scanner": "trivy", "scanned_at": NOW - 9 * DAY})
    assert site.intake.wanting(NOW) == []
    site.put(IMAGE_SCANS, row, {**row, "platform": "linux/arm64", "scanned_at": None})
    assert site.intake.wanting(NOW) == []  # of no platform that has an SBOM


def test_a_lost_standing_or_attachment_is_wanting(scanned: tuple[Site, str]) -> None:
    site, digest = scanned
    app = place(site)
    index = json.loads((app.folder / "index.json").read_text())
    kept = [each for each in index["manifests"] if ".sig" not in str(each.get("annotations"))]
    (app.folder / "index.json").write_text(json.dumps({**index, "manifests": kept}))
    assert site.intake.attest(digest, NOW)["outcome"] == "lacks signature by tag; SLSA build level 1"
    assert site.intake.wanting(NOW) == [digest]
