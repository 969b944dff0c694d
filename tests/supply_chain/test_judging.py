"""The gate's word on images in use: scans, advisories and exceptions put together, judged anew without a scan. Never a pass by default."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake.supply_tables import IMAGE_SCANS, IMAGE_VERDICTS, VULNERABILITIES
from greenops_pipelines.supply_chain import checks, exceptions, judging, scanning, vouching
from greenops_pipelines.supply_chain.declared import Image
from greenops_pipelines.supply_chain.judging import Judged
from tests.supply_chain.conftest import flip
from tests.supply_chain.small_images import NOW, PURL, Site
from tests.supply_chain.test_scanning import CONFIG, IMAGE, OTHER, VERSION, grype, prints, program, put, trivy

DAY = timedelta(days=1)
HOLE = "CVE-2026-0001"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that is on PATH."""
    folder = tmp_path / "tools"
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def site(tmp_path: Path, tools: Path) -> Site:
    """One image in use, whose SBOM lists demo 1.0; no scanner on PATH."""
    site = Site(tmp_path, Image(name="app", source="oci:app"), reports=tmp_path / "reports")
    (tmp_path / "reports").mkdir()
    site.listed(IMAGE, "demo@1.0")
    return site


def scan(site: Site, digest: str = IMAGE) -> None:
    """As the intake does, which asks the registry as well."""
    intake = site.intake
    (row,) = [row for row in site.sboms() if row["image_digest"] == digest]
    cyclonedx = site.store.get(row["cyclonedx_key"])
    digests = [row["platform_digest"], *judging.others(row)]
    taken = scanning.take(cyclonedx, digests, site.reports, site.home / "scratch", NOW)
    base = {name: row[name] for name in ("image_digest", "platform", "image")}
    site.put(IMAGE_SCANS, *scanning.rows(base, taken, intake.store))


def verdict(site: Site, days: float = 0) -> tuple[str, int, int, str]:
    """Outcome, counted, excused, faults; of the one image, some days after NOW."""
    (row,) = site.judge(NOW + days * DAY)
    return row["outcome"], row["counted"], row["excused"], row["faults"] or ""


def gate(site: Site) -> tuple[float | None, str | None]:
    found = checks.gate(site.lake, NOW)
    return found.measured, found.missing


def excuse(site: Site, days: int = 30, vulnerability: str = HOLE, digest: str = IMAGE, **more: Any) -> Path:
    """A signed exception in ops/vex."""
    envelope = exceptions.make(
        site.keys.signer(),
        vulnerability=vulnerability,
        image_digest=digest,
        image_name="registry.example.com/team/app",
        author="security@example.com",
        now=NOW,
        expires_at=NOW + days * DAY,
        justification="vulnerable_code_not_in_execute_path",
        **more,
    )
    folder = site.ops / "vex"
    folder.mkdir(exist_ok=True)
    path = folder / f"{vulnerability}.json"
    path.write_bytes(envelope)
    return path


def advisory(name: str = "PYSEC-2026-1", fixed: str = "1.1", modified: str = "2026-03-09T00:00:00Z") -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": fixed}]
    affected = {"package": {"ecosystem": "PyPI", "name": "demo"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    vector = {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}
    return {"schema_version": "1.7.0", "id": name, "modified": modified, "affected": [affected], "severity": [vector]}


# --- scans


def test_without_a_scanner_there_is_no_pass(site: Site) -> None:
    scan(site)
    assert verdict(site) == ("no scanner", 0, 0, "")
    measured, missing = gate(site)
    assert measured is None
    assert str(missing).startswith("no scanner: neither trivy nor grype is on PATH")


def test_a_clean_scan_passes(site: Site, tools: Path) -> None:
    prints(tools, "grype", grype())
    prints(tools, "trivy", trivy(), VERSION)
    scan(site)
    assert verdict(site) == ("passed", 0, 0, "")
    assert gate(site) == (0, None)


def test_what_any_scanner_finds_counts_once(site: Site, tools: Path) -> None:
    prints(tools, "grype", grype(IMAGE, HOLE))
    prints(tools, "trivy", trivy(IMAGE, HOLE, "CVE-2026-0002"), VERSION)
    scan(site)
    assert verdict(site)[:3] == ("failed", 2, 0)
    rows = site.rows("select id, source, severity, package, version, is_counted from vulnerabilities order by id")
    assert [tuple(row.values()) for row in rows] == [
        (HOLE, "trivy", "CRITICAL", "demo", "1.0", True),
        ("CVE-2026-0002", "trivy", "CRITICAL", "demo", "1.0", True),
    ]
    assert gate(site) == (2, None)
    assert f"app: {HOLE} CRITICAL in demo 1.0" in checks.gate(site.lake, NOW).detail


def test_what_is_slight_is_listed_and_does_not_count(site: Site, tools: Path) -> None:
    prints(tools, "grype", grype(IMAGE, HOLE, severity="Medium"))
    scan(site)
    assert verdict(site) == ("passed", 0, 0, "")
    assert [row["is_counted"] for row in site.rows("vulnerabilities")] == [False]


def test_a_scanner_that_broke_matters_only_where_no_other_has_had_a_look(site: Site, tools: Path) -> None:
    program(tools, "grype", "exit 1")
    scan(site)
    outcome, counted, _, faults = verdict(site)
    assert (outcome, counted) == ("failed", 0)
    assert "there is no report: " in faults
    assert gate(site) == (1, None)
    prints(tools, "trivy", trivy(), VERSION)
    scan(site)
    assert verdict(site) == ("passed", 0, 0, "")


@pytest.mark.parametrize(
    ("name", "document", "said"),
    [
        ("a.json", grype(), ""),
        ("a.json", grype(CONFIG), ""),
        (f"{IMAGE[7:]}.json", grype(OTHER), f"there is no report: {IMAGE[7:]}.json: it is of another image"),
        ("a.json", grype(built=NOW - 6 * DAY), "its database is too old"),
        ("a.json", grype(at=NOW - 8 * DAY, built=NOW - 9 * DAY), "the scan is too old"),
        ("a.json", grype(at=NOW + DAY), "the scan is of the future"),
        ("a.json", trivy(), "its database is of unknown age, allowed: up to 5 days"),
        ("a.json", {**trivy(), "Metadata": {"RepoDigests": [f"x@{IMAGE}"], "OS": {"Family": "debian", "Name": "12"}}},
         "the report is of debian 12, the SBOM of none"),
    ],
)  # fmt: skip
def test_a_report_that_was_handed_in_is_believed_or_is_a_fault(
    site: Site, tmp_path: Path, name: str, document: Any, said: str
) -> None:
    put(tmp_path / "reports", name, document)
    scan(site)
    outcome, counted, _, faults = verdict(site)
    assert (outcome, counted) == ("failed" if said else "passed", 0)
    assert said in faults
    assert gate(site)[0] == (1 if said else 0)


@pytest.mark.parametrize("content", ["", '{"matches": ['])
def test_an_empty_or_cut_off_report_is_a_fault(site: Site, tmp_path: Path, content: str) -> None:
    (tmp_path / "reports" / f"{IMAGE[7:]}.json").write_text(content)
    scan(site)
    assert verdict(site)[0] == "failed"


def test_trivys_report_counts_with_its_version_beside_it(site: Site, tmp_path: Path) -> None:
    put(tmp_path / "reports", "a.json", trivy())
    put(tmp_path / "reports", "a.version.json", VERSION)
    scan(site)
    assert verdict(site) == ("passed", 0, 0, "")


def test_a_scan_grows_too_old_without_anybody_doing_anything(site: Site, tools: Path) -> None:
    prints(tools, "grype", grype())
    scan(site)
    assert verdict(site, 7)[0] == "passed"
    outcome, counted, _, faults = verdict(site, 7.01)
    assert (outcome, counted) == ("failed", 0)
    assert "the scan is too old" in faults
    assert gate(site)[0] == 1


def test_a_report_of_another_sbom_is_not_believed(site: Site, tools: Path) -> None:
    """The SBOM was made anew since."""
    prints(tools, "grype", grype())
    scan(site)
    site.listed(IMAGE, "demo@1.0", "other@2.0")
    outcome, _, _, faults = verdict(site)
    assert (outcome, "the report is of another SBOM" in faults) == ("failed", True)


# --- exceptions


def test_a_signed_exception_excuses_until_it_ends_without_a_new_scan(site: Site, tools: Path) -> None:
    prints(tools, "grype", grype(IMAGE, HOLE))
    site.gate = site.gate.model_copy(update={"scan_days": 90})
    scan(site)
    assert verdict(site)[:3] == ("failed", 1, 0)
    path = excuse(site, days=30)
    assert verdict(site) == ("passed", 0, 1, "")
    (row,) = site.rows("vulnerabilities")
    assert (row["is_counted"], row["expires_at"]) == (False, NOW + 30 * DAY)
    assert row["excused_by"] == f"not_affected, security@example.com: {HOLE}.json"
    assert verdict(site, 29.99)[:3] == ("passed", 0, 1)
    assert verdict(site, 30)[:3] == ("failed", 1, 0)
    path.unlink()
    assert verdict(site)[:3] == ("failed", 1, 0)


def test_an_exception_for_another_image_another_package_or_by_another_key_excuses_nothing(
    site: Site, tools: Path, tmp_path: Path
) -> None:
    prints(tools, "grype", grype(IMAGE, HOLE))
    scan(site)
    for changes in ({"digest": OTHER}, {"purl": "pkg:pypi/other@1.0"}):
        excuse(site, **changes)  # type: ignore[arg-type]
        assert verdict(site)[:3] == ("failed", 1, 0)
    stranger = Site(tmp_path / "stranger")
    (site.ops / "vex" / f"{HOLE}.json").write_bytes(excuse(stranger).read_bytes())
    *_, figures = site.intake.judge(NOW)
    assert verdict(site)[:3] == ("failed", 1, 0)
    assert figures["exceptions not accepted"].startswith(f"{HOLE}.json: ")
    excuse(site, purl=PURL)
    assert verdict(site)[:3] == ("passed", 0, 1)


def test_an_exception_of_the_images_only_index_excuses(site: Site, tools: Path) -> None:
    row = site.sboms()[0]
    assert judging.others(row) == [CONFIG, IMAGE]
    assert judging.others({**row, "is_only": False, "config_digest": None}) == []
    with pytest.raises(BadInput, match="allowed: 90 days"):
        excuse(site, days=91)


# --- advisories


def test_a_new_advisory_makes_an_old_sbom_fail_without_a_scan(site: Site, tools: Path) -> None:
    prints(tools, "grype", grype())
    scan(site)
    assert verdict(site)[0] == "passed"
    (tools / "grype").unlink()
    site.advise(advisory())
    assert verdict(site)[:3] == ("failed", 1, 0)
    (row,) = site.rows("vulnerabilities")
    assert (row["id"], row["severity"], row["source"], row["fixed_in"]) == ("PYSEC-2026-1", "CRITICAL", "osv", "1.1")
    excuse(site, vulnerability="PYSEC-2026-1")
    assert verdict(site) == ("passed", 0, 1, "")


def test_an_advisory_of_other_versions_counts_for_nothing(site: Site, tools: Path) -> None:
    prints(tools, "grype", grype())
    scan(site)
    site.advise(advisory(fixed="1.0"))
    assert verdict(site) == ("passed", 0, 0, "")


def test_advisories_alone_are_no_scan(site: Site) -> None:
    scan(site)
    site.advise(advisory(fixed="1.0"))
    assert verdict(site)[:2] == ("no scanner", 0)
    site.advise(advisory())
    assert verdict(site)[:2] == ("no scanner", 1)
    assert gate(site) == (1, None)


def test_a_snapshot_that_is_old_is_believed_no_more(site: Site, tools: Path) -> None:
    prints(tools, "grype", grype())
    scan(site)
    site.advise(advisory(fixed="1.0", modified="2026-02-01T00:00:00Z"))
    outcome, _, _, faults = verdict(site)
    assert (outcome, "the newest advisory is too old" in faults) == ("failed", True)


# --- which images


def test_images_are_judged_as_long_as_a_tag_points_to_them_each_by_itself(
    site: Site, tools: Path, tmp_path: Path
) -> None:
    site.listed(OTHER, "demo@1.0", image="other")
    put(tmp_path / "reports", "a.json", grype(IMAGE, HOLE))
    scan(site)
    found = {row["image"]: row["outcome"] for row in site.judge()}
    assert found == {"app": "failed", "other": "no scanner"}
    figures = checks.gate(site.lake, NOW).figures
    assert (figures["images"], figures["counted"], figures["images without a scan"]) == (2, 1, 1)


def test_an_sbom_whose_bytes_changed_is_a_fault_of_its_image_alone(site: Site, tools: Path) -> None:
    site.listed(OTHER, "demo@1.0", image="other")
    prints(tools, "grype", grype())
    scan(site)
    flip(site.home / "sbom" / site.sboms()[0]["cyclonedx_key"])
    found = {row["image"]: (row["outcome"], row["faults"]) for row in site.judge()}
    assert found["app"] == ("failed", "there is no SBOM to hold the scan against")
    assert found["other"][0] == "no scanner"


def test_the_tables_have_their_declared_form_and_are_the_same_the_second_time(site: Site, tools: Path) -> None:
    prints(tools, "grype", grype(IMAGE, HOLE, "CVE-2026-0002"))
    scan(site)
    first, second = site.intake.judge(NOW), site.intake.judge(NOW)
    assert [each.version for each in first[:2]] == [each.version for each in second[:2]]
    known = site.intake.knowledge(NOW)
    rows, verdicts = judging.tables(judging.in_use(site.lake, site.store, known, NOW), known, NOW)
    assert (rows.schema, verdicts.schema) == (VULNERABILITIES.schema, IMAGE_VERDICTS.schema)


# --- what is attested of a scan


def judged(site: Site) -> Judged:
    ((_, found),) = judging.in_use(site.lake, site.store, site.intake.knowledge(NOW), NOW)
    return found


@pytest.mark.parametrize(
    ("document", "outcome", "critical"),
    [
        (grype(), vouching.PASSED, 0),
        (grype(IMAGE, HOLE), vouching.FAILED, 1),
        (grype(IMAGE, HOLE, built=NOW - 9 * DAY), vouching.NOT_BELIEVED, 1),
    ],
)
def test_what_is_attested_of_a_scan_is_what_the_gate_says(
    site: Site, tmp_path: Path, document: Any, outcome: str, critical: int
) -> None:
    put(tmp_path / "reports", "a.json", document)
    scan(site)
    found = judging.attested(judged(site))
    assert found is not None
    assert (found.scanner, found.version, found.scanned_at) == ("grype", "0.104.0", NOW)
    assert (found.result["outcome"], found.result["counts"]["CRITICAL"]) == (outcome, critical)
    assert json.loads(json.dumps(found.result)) == found.result


def test_an_excused_hole_is_attested_by_name_and_not_counted(site: Site, tools: Path) -> None:
    prints(tools, "grype", grype(IMAGE, HOLE))
    scan(site)
    excuse(site)
    found = judging.attested(judged(site))
    assert found is not None
    assert (found.result["excused"], found.result["counts"]["CRITICAL"]) == ([HOLE], 0)


def test_nothing_is_attested_where_there_was_no_scan(site: Site, tmp_path: Path) -> None:
    scan(site)
    assert judging.attested(judged(site)) is None
    (tmp_path / "reports" / f"{IMAGE[7:]}.json").write_text("")
    scan(site)
    assert judging.attested(judged(site)) is None
