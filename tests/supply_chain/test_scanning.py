"""Scans as they can be had: by programs on PATH over the SBOM, and of reports that were handed in; each a stated outcome."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.errors import ProviderError, TransientError
from greenops_pipelines.lake.supply_tables import IMAGE_SCANS
from greenops_pipelines.store.local import LocalObjectStore
from greenops_pipelines.supply_chain import scanning
from greenops_pipelines.supply_chain.scanning import Taken, again, rows, sha256, take
from tests.supply_chain.small_images import NOW

IMAGE, OTHER, CONFIG = (f"sha256:{digit * 64}" for digit in "abc")
SBOM = b'{"bomFormat": "CycloneDX", "components": []}'
DAY = timedelta(days=1)
BASE = {"image_digest": IMAGE, "platform": "linux/amd64", "image": "app"}


def grype(digest: str = IMAGE, *ids: str, at: datetime = NOW, built: datetime = NOW, severity: str = "Critical") -> Any:
    """A report of the image, with these vulnerabilities in demo 1.0."""
    return {
        "matches": [
            {
                "vulnerability": {"id": each, "severity": severity, "fix": {"versions": ["1.1"], "state": "fixed"}},
                "artifact": {"name": "demo", "version": "1.0", "purl": "pkg:pypi/demo@1.0"},
            }
            for each in ids
        ],
        "source": {"type": "image", "target": {"manifestDigest": digest}},
        "descriptor": {
            "name": "grype",
            "version": "0.104.0",
            "timestamp": at.isoformat(),
            "db": {"status": {"built": built.isoformat()}},
        },
    }


def trivy(digest: str = IMAGE, *ids: str, at: datetime = NOW) -> Any:
    found = [
        {
            "VulnerabilityID": each,
            "PkgName": "demo",
            "PkgIdentifier": {"PURL": "pkg:pypi/demo@1.0"},
            "InstalledVersion": "1.0",
            "Severity": "CRITICAL",
        }
        for each in ids
    ]
    packages = [{"Name": "demo", "Version": "1.0"}]
    return {
        "SchemaVersion": 2,
        "ArtifactName": "app",
        "CreatedAt": at.isoformat(),
        "Metadata": {"RepoDigests": [f"registry.example.com/team/app@{digest}"]},
        "Results": [{"Target": "Python", "Class": "lang-pkgs", "Packages": packages, "Vulnerabilities": found}],
    }


VERSION = {"Version": "0.70.0", "VulnerabilityDB": {"UpdatedAt": NOW.isoformat()}}


def program(folder: Path, name: str, *lines: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def prints(folder: Path, name: str, document: object, version: object = None) -> None:
    """A scanner that writes a prepared report; asked for its version, what there is of that."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document))
    (folder / f"{name}-version.json").write_text(json.dumps(version))
    program(
        folder,
        name,
        f'if [ "$1" = --version ]; then /bin/cat {folder}/{name}-version.json; else /bin/cat {folder}/{name}.json; fi',
    )


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that is on PATH."""
    folder = tmp_path / "tools"
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    folder.mkdir()
    return folder


def handed_in(tmp_path: Path, *digests: str) -> list[Taken]:
    return take(SBOM, digests or (IMAGE,), tmp_path / "reports", tmp_path / "scratch", NOW)


def put(reports: Path, name: str, document: object) -> Path:
    path = reports / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return path


# --- scanners that are here


def test_without_a_scanner_and_a_report_nothing_is_taken_and_that_is_said(tools: Path, tmp_path: Path) -> None:
    assert take(SBOM, [IMAGE], None, tmp_path / "scratch", NOW) == []
    (row,) = rows(BASE, [], LocalObjectStore(tmp_path / "store"))
    assert (row["scanner"], row["origin"], row["detail"], row["scanned_at"]) == ("none", "none", "no scanner", None)


def test_every_scanner_on_path_is_run_now_over_the_sbom(tools: Path, tmp_path: Path) -> None:
    # Their clocks are wrong; that they were run now is known.
    prints(tools, "grype", grype(at=NOW - 30 * DAY))
    prints(tools, "trivy", trivy(at=NOW + 30 * DAY), VERSION)
    found = take(SBOM, [IMAGE], None, tmp_path / "scratch", NOW)
    assert [(each.scanner, each.origin, each.fault) for each in found] == [
        ("grype", "run here", ""),
        ("trivy", "run here", ""),
    ]
    assert [(each.report.scanned_at, each.report.of_sbom) for each in found if each.report] == [(NOW, sha256(SBOM))] * 2
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_scanner_that_fails_is_a_fault_and_the_other_goes_on(tools: Path, tmp_path: Path) -> None:
    program(tools, "grype", "echo database is too old >&2", "exit 1")
    prints(tools, "trivy", trivy(), VERSION)
    found = take(SBOM, [IMAGE], None, tmp_path / "scratch", NOW)
    assert [(each.scanner, each.report is None) for each in found] == [("grype", True), ("trivy", False)]
    assert "ended with 1: database is too old" in found[0].fault
    assert str(tmp_path) not in found[0].fault


def test_a_scanner_that_is_ended_from_outside_is_asked_again(tools: Path, tmp_path: Path) -> None:
    program(tools, "grype", "kill -9 $$")
    with pytest.raises(TransientError, match="ended by signal 9"):
        take(SBOM, [IMAGE], None, tmp_path / "scratch", NOW)


# --- reports that were handed in


@pytest.mark.usefixtures("tools")
def test_a_report_is_found_by_any_digest_of_its_image_whatever_its_name(tmp_path: Path, reports: Path) -> None:
    put(reports, "nightly/one.json", grype(CONFIG))
    put(reports, "two.json", grype(OTHER))
    (found,) = handed_in(tmp_path, IMAGE, CONFIG)
    assert found.report is not None
    assert (found.scanner, found.origin, found.report.digests, found.report.of_sbom) == (
        "grype",
        "handed in",
        (CONFIG,),
        "",
    )


@pytest.mark.usefixtures("tools")
def test_the_newest_report_of_each_scanner_counts(tmp_path: Path, reports: Path) -> None:
    for name, hours in (("a", 3), ("b", 1), ("c", 2)):
        put(reports, f"{name}.json", grype(at=NOW - timedelta(hours=hours)))
    put(reports, "d.json", trivy(at=NOW - 9 * DAY))
    undated = grype()
    del undated["descriptor"]["timestamp"]
    put(reports, "e.json", undated)
    found = {each.scanner: each.report.scanned_at for each in handed_in(tmp_path) if each.report}
    assert found == {"grype": NOW - timedelta(hours=1), "trivy": NOW - 9 * DAY}


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "found an empty document"),
        (json.dumps(grype()).encode()[:-40], "the document ends early"),
        (b"{}", "found another document"),
        (b"\xff\xfe", "not UTF-8"),
        (json.dumps(grype(OTHER)).encode(), f"it is of another image: {OTHER}"),
        (json.dumps({**grype(), "source": {"type": "directory", "target": "/app"}}).encode(), "it names none"),
        (json.dumps({**trivy(), "Results": []}).encode(), "found no Results for packages"),
    ],
)
def test_a_file_that_is_named_after_the_image_and_says_nothing_of_it_is_a_fault(
    tmp_path: Path, reports: Path, content: bytes, said: str
) -> None:
    (reports / f"{IMAGE.removeprefix('sha256:')}.json").write_bytes(content)
    (found,) = handed_in(tmp_path)
    assert found.report is None
    assert said in found.fault
    assert str(tmp_path) not in found.fault
    assert handed_in(tmp_path, OTHER if OTHER.encode() not in content else CONFIG) == []


@pytest.mark.usefixtures("tools")
def test_a_report_that_ends_early_is_a_fault_of_the_image_that_it_still_names(tmp_path: Path, reports: Path) -> None:
    (reports / "nightly.json").write_bytes(json.dumps(grype()).encode()[:-10])
    (found,) = handed_in(tmp_path)
    assert "nightly.json: the document ends early" in found.fault
    assert handed_in(tmp_path, OTHER) == []


@pytest.mark.usefixtures("tools")
def test_a_good_report_wins_over_a_file_that_is_of_another_image(tmp_path: Path, reports: Path) -> None:
    put(reports, f"a-{IMAGE.removeprefix('sha256:')}.json", grype(OTHER))
    put(reports, "b.json", grype())
    (found,) = handed_in(tmp_path)
    assert (found.fault, found.report is not None) == ("", True)


@pytest.mark.usefixtures("tools")
def test_trivys_database_is_told_by_the_file_beside_its_report(tmp_path: Path, reports: Path) -> None:
    put(reports, "a.json", trivy())
    (found,) = handed_in(tmp_path)
    assert found.report is not None
    assert found.report.database_built is None
    put(reports, "a.version.json", VERSION)
    (found,) = handed_in(tmp_path)
    assert found.report is not None
    assert (found.report.database_built, found.report.scanner_version) == (NOW, "0.70.0")
    (reports / "a.version.json").write_text("{")
    (found,) = handed_in(tmp_path)
    assert "a.version.json: the document ends early" in found.fault


@pytest.mark.usefixtures("tools")
def test_a_file_that_cannot_be_read_is_named_without_its_folder(tmp_path: Path, reports: Path) -> None:
    name = f"{IMAGE.removeprefix('sha256:')}.json"
    (reports / name).symlink_to(reports / "target")
    (reports / "target").write_text("x" * 10)
    (reports / "target").chmod(0)
    found = handed_in(tmp_path)
    if found[0].fault.endswith("Permission denied"):
        assert found[0].fault == f"{name}: Permission denied"
    assert str(tmp_path) not in found[0].fault  # root may read everything


@pytest.mark.usefixtures("tools")
def test_too_many_reports_and_too_large_ones_are_refused(
    tmp_path: Path, reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(reports, f"{IMAGE.removeprefix('sha256:')}.json", grype())
    monkeypatch.setattr(scanning, "MAX_REPORT_BYTES", 100)
    (found,) = handed_in(tmp_path)
    assert "found more than 100 bytes" in found.fault
    monkeypatch.setattr(scanning, "_MAX_REPORTS", 1)
    put(reports, "b.json", grype())
    with pytest.raises(ProviderError, match="reports: found 2 scan reports, allowed: 1; remove old ones"):
        handed_in(tmp_path)


# --- kept, and read again


@pytest.mark.usefixtures("tools")
def test_a_scan_is_kept_as_it_was_made_and_read_again_as_it_was_believed(tmp_path: Path, tools: Path) -> None:
    prints(tools, "grype", grype(IMAGE, "CVE-2026-0001"))
    prints(tools, "trivy", trivy(IMAGE), VERSION)
    store = LocalObjectStore(tmp_path / "store")
    taken = take(SBOM, [IMAGE], None, tmp_path / "scratch", NOW)
    kept = rows(BASE, taken, store)
    assert rows(BASE, taken, store) == kept
    assert len(store.list()) == 2
    assert [again(each, store) for each in kept] == taken
    assert set(kept[0]) == set(IMAGE_SCANS.schema.names)
    assert kept[1]["database_at"] == NOW


@pytest.mark.usefixtures("tools")
def test_a_report_that_is_lost_or_changed_is_a_fault(tmp_path: Path, tools: Path) -> None:
    prints(tools, "grype", grype())
    store = LocalObjectStore(tmp_path / "store")
    (row,) = rows(BASE, take(SBOM, [IMAGE], None, tmp_path / "scratch", NOW), store)
    path = tmp_path / "store" / row["report_key"]
    path.chmod(0o600)
    path.write_bytes(b"{}")
    assert again(row, store).fault == f"{row['report_key']}: found other bytes than were published"
    path.unlink()
    assert again(row, store).fault == f"{row['report_key']}: it was published, and is not in the store"
    assert again({**row, "report_key": None, "detail": "it broke"}, store) == Taken(
        "grype", "run here", fault="it broke"
    )
