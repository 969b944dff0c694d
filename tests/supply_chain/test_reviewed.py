"""What fresh eyes found in the supply chain as a whole: each case was wrong once, in silence."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.supply_chain import checks, gate, judging, listing, scan_reports, subjects
from greenops_pipelines.supply_chain.components import Component, Components
from greenops_pipelines.supply_chain.declared import Image
from greenops_pipelines.supply_chain.exceptions import Exceptions
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.scanning import HANDED_IN, Taken
from tests.supply_chain.small_images import NOW, Site, push

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DIGEST, CONFIG = f"sha256:{'a' * 64}", f"sha256:{'c' * 64}"
LISTED = Components((Component("demo", "demo", "1.0", "pkg:pypi/demo@1.0", "python", "ACME", "", ""),), None)


def test_one_tag_that_nobody_can_read_hides_no_other_and_is_missed(tmp_path: Path) -> None:
    site = Site(tmp_path, Image(name="app", source="oci:app"))
    app = Layout(site.ops / "app", create=True)
    good = push(app, "v1")
    bad = push(app, "v0-bad", {"other": "image"})
    (app.folder / "blobs" / "sha256" / bad.removeprefix("sha256:")).write_bytes(b"no manifest")
    look = site.look()
    assert look.digests == (good,)
    [fault] = look.faults
    assert fault.startswith("app:v0-bad: ")
    assert checks.looked(look.faults, 2).measured == 1
    site.intake.sbom(good, NOW)
    found = checks.published(site.lake, site.store, NOW + 2 * HOUR)
    assert found.measured == 50
    assert "v0-bad" in found.detail
    assert checks.gate(site.lake, NOW).figures["images without a scan"] == 2
    assert [(row["tag"], row["digest"]) for row in listing.images(site.lake)] == [("v0-bad", None), ("v1", good)]
    assert site.intake.wanting(NOW) == [good]


def test_an_image_in_two_registries_is_two(tmp_path: Path) -> None:
    site = Site(tmp_path, Image(name="eu", source="oci:eu", attach=True), Image(name="us", source="oci:us"))
    digest = push(Layout(site.ops / "eu", create=True))
    assert push(Layout(site.ops / "us", create=True)) == digest
    assert site.look().digests == (digest,)
    for step in (site.intake.sbom, site.intake.scan, site.intake.attest):
        step(digest, NOW)
    standing = {row["image"]: row["missing"] for row in site.rows("select image, missing from image_standing")}
    assert standing == {
        "eu": "signature, provenance",
        "us": "signature, CycloneDX SBOM, SPDX SBOM, provenance",
    }
    assert checks.verified(site.lake, NOW).figures["images"] == 2
    assert len(listing.images(site.lake)) == 2


def grype(days_old: int, *found: str) -> Taken:
    """A report of Grype about the image, that many days old."""
    made = (NOW - days_old * DAY).isoformat()
    document = {
        "matches": [
            {
                "vulnerability": {"id": each, "severity": "Critical", "fix": {"versions": [], "state": "unknown"}},
                "relatedVulnerabilities": [],
                "artifact": {"name": "demo", "version": "1.0", "type": "python", "purl": "pkg:pypi/demo@1.0"},
            }
            for each in found
        ],
        "source": {"type": "image", "target": {"manifestDigest": DIGEST}},
        "descriptor": {
            "name": "grype",
            "version": "0.104.0",
            "timestamp": made,
            "db": {"status": {"built": made}},
        },
    }
    text = json.dumps(document).encode()
    return Taken("grype", HANDED_IN, text, scan_reports.read(text, "report.json"))


def judged(*taken: Taken, digest: str = DIGEST) -> gate.Verdict:
    known = judging.Knowledge(None, None, 0, Exceptions(), gate.GatePolicy())
    return judging.judge(taken, LISTED, known, digest=digest, others=[CONFIG], sbom_sha256="", now=NOW).verdict


def test_what_an_old_scan_has_found_does_not_go_away_with_its_age() -> None:
    assert judged(grype(0)).outcome == "passed"
    assert judged(grype(8)).outcome == "failed"  # its silence says nothing
    found = judged(grype(8, "CVE-2026-1"), grype(0))
    assert (found.outcome, [each.id for each in found.counted]) == ("failed", ["CVE-2026-1"])
    assert "grype: the scan is too old" in "; ".join(found.remarks)


def test_what_was_found_in_another_image_is_not_this_ones() -> None:
    other = f"sha256:{'b' * 64}"
    assert judged(grype(0, "CVE-2026-1"), digest=other).outcome == "failed"
    document: Any = json.loads(grype(0).document or b"")
    document["source"]["target"]["manifestDigest"] = other
    text = json.dumps(document).encode()
    clean = Taken("grype", HANDED_IN, text, scan_reports.read(text, "other.json"))
    assert judged(grype(0, "CVE-2026-1"), clean, digest=other).outcome == "passed"


def test_a_look_ends_though_its_sources_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, Image(name="one", source="oci:one"), Image(name="two", source="oci:two"))
    for name in ("one", "two"):
        push(Layout(site.ops / name, create=True), "v1", {name: name})
    monkeypatch.setattr(subjects, "LOOK_SECONDS", -1)
    look = site.look()
    assert look.noticed == ()
    assert sorted(fault.partition(":")[0] for fault in look.faults) == ["one", "two"]
    monkeypatch.undo()
    assert len(site.look(NOW + HOUR).digests) == 2
