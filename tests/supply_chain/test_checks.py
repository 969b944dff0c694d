"""The supply chain's figures, from tables written by hand."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.lake.supply_tables import (
    ADMISSION_CASES,
    IMAGE_FAULTS,
    IMAGE_STANDING,
    IMAGE_VERDICTS,
    IMAGES,
    SBOMS,
    VULNERABILITIES,
)
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.supply_chain import checks
from tests.supply_chain.small_images import NOW, Site, image_row, sbom_row

A, B, C = (f"sha256:{digit * 64}" for digit in "abc")
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SHORT = {digest: f"@{digest[:19]}" for digest in (A, B, C)}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Without anything."""
    return Site(tmp_path)


def images(site: Site, *rows: dict[str, Any]) -> None:
    site.put(IMAGES, *rows)


def published(site: Site, now: Any = NOW) -> Measurement:
    return checks.published(site.lake, site.store, now)


def stored(site: Site, digest: str, image: str, **changes: Any) -> dict[str, Any]:
    """A row of SBOMS whose documents are in the store."""
    keys = {f"{kind}_key": f"images/{digest[7:11]}-{changes.get('platform', 'x')}.{kind}".replace("linux/", "")
            for kind in ("cyclonedx", "spdx")}  # fmt: skip
    for key in keys.values():
        site.store.put(key, b"{}")
    return sbom_row(digest, image, **keys, **changes)


# --- published


def test_nothing_to_look_at_is_no_pass(site: Site) -> None:
    for found in (
        published(site),
        checks.ntia(site.lake),
        checks.verified(site.lake, NOW),
        checks.matrix(site.lake),
        checks.slsa_level(site.lake, NOW),
        checks.gate(site.lake, NOW),
    ):
        assert found.measured is None, found.check
        assert found.missing, found.check


def test_the_share_of_images_with_both_documents(site: Site) -> None:
    images(site, image_row(A, "a"), image_row(B, "b", is_sample=True), image_row(C, "c"))
    site.put(SBOMS, stored(site, A, "a"), stored(site, B, "b"))
    found = published(site)
    assert found.measured == pytest.approx(200 / 3)
    assert found.detail == f"c{SHORT[C]}: no SBOM yet"
    assert found.figures == {"images": 3, "sample images": 1}
    site.add(SBOMS, stored(site, C, "c"))
    assert (published(site).measured, published(site).missing) == (100, None)


def test_several_tags_of_one_digest_are_one_image(site: Site) -> None:
    images(site, image_row(A, "a"), image_row(A, "a", tag="latest"), image_row(A, "copy"))
    site.put(SBOMS, stored(site, A, "a"))
    assert published(site).figures["images"] == 1


def test_every_platforms_documents_must_be_there(site: Site) -> None:
    images(site, image_row(A, "a", is_index=True))
    rows = [stored(site, A, "a", platform=each) for each in ("linux/amd64", "linux/arm64")]
    site.put(SBOMS, *rows)
    assert published(site).measured == 100
    (site.home / "sbom" / rows[1]["spdx_key"]).unlink()
    found = published(site)
    assert (found.measured, found.detail) == (0, f"a{SHORT[A]}: {rows[1]['spdx_key']} is not in the store any more")


def test_a_fault_counts_at_once_and_even_where_there_are_documents(site: Site) -> None:
    images(site, image_row(A, "a", noticed_at=NOW), image_row(B, "b"))
    site.put(SBOMS, stored(site, B, "b"))
    fault = {"step": "sbom", "image": "a", "fault": "layer 1: damaged", "at": NOW}
    site.put(IMAGE_FAULTS, {**fault, "image_digest": A}, {**fault, "image_digest": B, "step": "scan"})
    found = published(site)
    assert (found.measured, found.detail) == (50, f"a{SHORT[A]}: layer 1: damaged")
    site.add(IMAGE_FAULTS, {**fault, "image_digest": B})
    assert published(site).measured == 0


@pytest.mark.parametrize(("age", "measured"), [(59 * MINUTE, 100), (60 * MINUTE, 50), (2 * HOUR, 50)])
def test_an_image_counts_as_missed_an_hour_after_it_was_noticed(site: Site, age: timedelta, measured: float) -> None:
    images(site, image_row(A, "a"), image_row(B, "b", noticed_at=NOW - age))
    site.put(SBOMS, stored(site, A, "a"))
    site.put(IMAGE_STANDING, standing(A))
    assert published(site).measured == measured
    assert checks.verified(site.lake, NOW).measured == measured


def test_what_no_tag_points_to_any_more_counts_for_nothing(site: Site) -> None:
    images(site, image_row(A, "a"))
    site.put(SBOMS, stored(site, A, "a"), sbom_row(B, "b", is_conformant=False, missing="supplier: x"))
    site.put(IMAGE_STANDING, standing(A), standing(B, missing="signature"))
    site.put(IMAGE_VERDICTS, verdict(A), verdict(B, outcome="failed", counted=9))
    assert published(site).measured == 100
    assert checks.ntia(site.lake).measured == 100
    assert checks.verified(site.lake, NOW).measured == 100
    assert checks.gate(site.lake, NOW).measured == 0


# --- minimum elements


def test_the_share_of_sboms_with_the_minimum_elements(site: Site) -> None:
    images(site, image_row(A, "a"), image_row(B, "b"))
    lacking = {"is_conformant": False, "missing": "supplier: x and 3 more\nversion: y", "components": 7}
    site.put(SBOMS, sbom_row(A, "a", components=3), sbom_row(B, "b", unversioned=2, **lacking))
    found = checks.ntia(site.lake)
    assert (found.measured, found.detail) == (50, f"b{SHORT[B]} (linux/amd64): supplier: x and 3 more; version: y")
    assert found.figures == {
        "components": 10,
        "suppliers by their own metadata": 2,
        "components that state no version": 2,
    }


# --- verified, and the level


def standing(digest: str, image: str = "a", **changes: Any) -> dict[str, Any]:
    return {
        "image_digest": digest,
        "image": image,
        "verified": 8,
        "unverified": 0,
        "slsa_level": 1,
        "slsa_reason": "stated inside the build",
        "is_attached_here": True,
        "read_at": NOW,
    } | changes


def test_the_share_of_images_with_everything_attached(site: Site) -> None:
    images(site, image_row(A, "a"), image_row(B, "b"), image_row(C, "c"))
    site.put(IMAGE_STANDING, standing(A), standing(B, "b", missing="provenance", verified=6, unverified=2))
    found = checks.verified(site.lake, NOW)
    assert found.measured == pytest.approx(100 / 3)
    assert found.detail == f"b{SHORT[B]}: lacks provenance; c{SHORT[C]}: not read back yet"
    assert found.figures == {"images": 3, "statements that verify": 14, "attached things that do not": 2}
    fault = {"image_digest": A, "step": "attest", "image": "a", "fault": "answered 403", "at": NOW}
    site.put(IMAGE_FAULTS, fault)
    found = checks.verified(site.lake, NOW)
    assert (found.measured, found.detail.split("; ")[0]) == (0, f"a{SHORT[A]}: answered 403")


def test_the_level_cannot_be_measured_until_an_isolated_builders_provenance_is_there(site: Site) -> None:
    images(site, image_row(A, "a"), image_row(B, "b"))
    site.put(IMAGE_STANDING, standing(A), standing(B, "b", slsa_level=2))
    found = checks.slsa_level(site.lake, NOW)
    assert (found.measured, found.target, found.comparison) == (None, 3, ">=")
    assert "isolated builder" in (found.missing or "")
    assert found.detail == f"achieved: level 1; a{SHORT[A]}: stated inside the build"
    assert found.figures == {"achieved level": 1, "images": 2, "images at level 1": 1, "images at level 2": 1}


def test_then_the_lowest_level_counts(site: Site) -> None:
    images(site, image_row(A, "a"), image_row(B, "b"))
    site.put(IMAGE_STANDING, standing(A), standing(B, "b", slsa_level=3))
    found = checks.slsa_level(site.lake, NOW)
    assert (found.measured, found.missing, found.outcome) == (1, None, "failed")
    site.add(IMAGE_STANDING, standing(A, slsa_level=3))
    assert (checks.slsa_level(site.lake, NOW).measured, checks.slsa_level(site.lake, NOW).outcome) == (3, "passed")
    images(site, image_row(A, "a"), image_row(B, "b"), image_row(C, "c"))
    found = checks.slsa_level(site.lake, NOW)
    assert (found.measured, found.detail) == (0, f"achieved: level 0; c{SHORT[C]}: not read back yet")


# --- the gate


def verdict(digest: str, image: str = "a", **changes: Any) -> dict[str, Any]:
    return {
        "image": image,
        "image_digest": digest,
        "platform": "linux/amd64",
        "outcome": "passed",
        "counted": 0,
        "excused": 0,
        "advisories": 0,
        "scanned_at": NOW,
        "judged_at": NOW,
    } | changes


def hole(digest: str, vulnerability: str, **changes: Any) -> dict[str, Any]:
    return {
        "image": "a",
        "image_digest": digest,
        "platform": "linux/amd64",
        "id": vulnerability,
        "severity": "HIGH",
        "package": "openssl",
        "version": "3.0",
        "source": "grype",
        "is_counted": True,
    } | changes


def test_the_gate_passes_with_a_believed_scan_of_every_image(site: Site) -> None:
    images(site, image_row(A, "a"), image_row(B, "b"))
    site.put(IMAGE_VERDICTS, verdict(A), verdict(B, "b", excused=2))
    found = checks.gate(site.lake, NOW)
    assert (found.measured, found.missing, found.outcome) == (0, None, "passed")
    assert found.figures == {
        "images": 2,
        "counted": 0,
        "excused": 2,
        "images without a scan": 0,
        "scans that are not believed": 0,
    }


def test_no_scanner_is_no_pass_and_says_so(site: Site) -> None:
    images(site, image_row(A, "a"), image_row(B, "b"))
    site.put(IMAGE_VERDICTS, verdict(A), verdict(B, "b", outcome="no scanner", scanned_at=None))
    found = checks.gate(site.lake, NOW)
    assert found.measured is None
    assert (found.missing or "").startswith(
        "no scanner: neither trivy nor grype is on PATH, and no report was handed in"
    )
    assert found.detail == "1 images without a scan"


def test_an_image_that_was_not_judged_yet_is_no_pass_not_even_in_its_first_hour(site: Site) -> None:
    images(site, image_row(A, "a"), image_row(B, "b", noticed_at=NOW))
    site.put(IMAGE_VERDICTS, verdict(A))
    found = checks.gate(site.lake, NOW)
    assert (found.measured, found.missing) == (None, "a scan of every image")


def test_what_counts_is_named_the_gravest_first_whatever_else_is_missing(site: Site) -> None:
    images(site, image_row(A, "a"), image_row(B, "b"))
    site.put(IMAGE_VERDICTS, verdict(A, outcome="failed", counted=2), verdict(B, "b", outcome="no scanner"))
    site.put(
        VULNERABILITIES,
        hole(A, "CVE-2026-0002"),
        hole(A, "CVE-2026-0003", severity="CRITICAL"),
        hole(A, "CVE-2026-0001", is_counted=False),
    )
    found = checks.gate(site.lake, NOW)
    assert (found.measured, found.missing, found.outcome) == (2, None, "failed")
    assert found.detail == "a: CVE-2026-0003 CRITICAL in openssl 3.0; a: CVE-2026-0002 HIGH in openssl 3.0"


def test_a_scan_that_is_not_believed_counts_as_a_hole(site: Site) -> None:
    images(site, image_row(A, "a"), image_row(B, "b"))
    site.put(IMAGE_VERDICTS, verdict(A, outcome="failed", faults="the scan is too old\nof another image"), verdict(B))
    found = checks.gate(site.lake, NOW)
    assert (found.measured, found.detail) == (1, f"a{SHORT[A]}: the scan is too old; of another image")
    assert found.figures["scans that are not believed"] == 1


def test_each_platform_is_scanned(site: Site) -> None:
    images(site, image_row(A, "a", is_index=True))
    arm64 = verdict(A, platform="linux/arm64", outcome="no scanner")
    site.put(IMAGE_VERDICTS, verdict(A), arm64)
    assert checks.gate(site.lake, NOW).measured is None
    site.put(IMAGE_VERDICTS, verdict(A), {**arm64, "outcome": "failed", "counted": 1})
    assert checks.gate(site.lake, NOW).measured == 1


def test_a_verdict_of_long_ago_proves_nothing_today(site: Site) -> None:
    images(site, image_row(A, "a"))
    site.put(IMAGE_VERDICTS, verdict(A))
    assert checks.gate(site.lake, NOW + checks.JUDGED_AGAIN).measured == 0
    found = checks.gate(site.lake, NOW + checks.JUDGED_AGAIN + MINUTE)
    assert (found.measured, "a verdict that is younger than" in (found.missing or "")) == (None, True)


# --- the matrix, and what was reached


def case(position: int, **changes: Any) -> dict[str, Any]:
    return {
        "position": position,
        "case": f"case {position}",
        "expected": "denied",
        "found": "denied",
        "is_right": True,
        "message": "not signed",
    } | changes


def test_the_share_of_cases_that_were_decided_as_they_must_be(site: Site) -> None:
    admitted = {"expected": "admitted", "found": "admitted", "message": None}
    site.put(ADMISSION_CASES, case(1, **admitted), case(2), case(3, found="admitted", is_right=False), case(4))
    found = checks.matrix(site.lake)
    assert (found.measured, found.detail) == (75, "case 3: admitted, expected denied")
    assert found.figures == {"cases": 4, "denied": 2}


def test_a_case_that_is_denied_for_another_reason_is_shown_with_it(site: Site) -> None:
    site.put(ADMISSION_CASES, case(1, is_right=False, message="no SBOM"))
    found = checks.matrix(site.lake)
    assert (found.measured, found.detail) == (0, "case 1: denied, expected denied, for another reason than: no SBOM")


def test_sources_that_were_not_reached_are_counted() -> None:
    found = checks.looked(["a: answered 401", "b: no tag fits v*"], 3)
    assert (found.measured, found.outcome, found.detail) == (2, "failed", "a: answered 401; b: no tag fits v*")
    assert checks.looked([], 3).outcome == "passed"
