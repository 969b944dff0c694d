"""The gate: one passing case, and every single thing that makes it fail."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.supply_chain.components import Component, Components, Distribution
from greenops_pipelines.supply_chain.exceptions import Exceptions, Exemption
from greenops_pipelines.supply_chain.gate import GatePolicy, Verdict, judge
from greenops_pipelines.supply_chain.scan_reports import Match, ScanReport
from greenops_pipelines.supply_chain.severity import Severity

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
IMAGE, OTHER, CONFIG = (f"sha256:{digit * 64}" for digit in "abc")
SBOM = "d" * 64
DEBIAN = Distribution("debian", "12")
NONE = Exceptions()


def component(name: str, version: str = "1.0", kind: str = "deb") -> Component:
    return Component(name, name, version, f"pkg:deb/debian/{name}@{version}", kind, "", "", "")


COMPONENTS = Components((component("openssl"), component("zlib")), DEBIAN)
REPORT = ScanReport(
    scanner="trivy",
    scanner_version="0.70.0",
    digests=(IMAGE,),
    distribution=DEBIAN,
    database_built=NOW - 2 * DAY,
    scanned_at=NOW - DAY,
    matches=(),
    ignored=(),
    components=2,
    skipped=(),
    is_end_of_life=False,
)


def match(vulnerability: str = "CVE-2026-0001", severity: Severity = Severity.HIGH, **changes: Any) -> Match:
    found = Match(vulnerability, (), severity, "openssl", "1.0", "pkg:deb/debian/openssl@1.0", "1.1", "fixed", "trivy")
    return replace(found, **changes)


def exemption(*ids: str) -> Exemption:
    ends = NOW + DAY
    return Exemption(ids, IMAGE, (), "not_affected", "component_not_present", "", "a", NOW - DAY, ends, "key", "a.json")


def verdict(report: ScanReport | None = REPORT, components: Components | None = COMPONENTS, **more: Any) -> Verdict:
    return judge(report, components, **({"exceptions": NONE, "image_digest": IMAGE, "now": NOW} | more))


def test_a_clean_scan_of_this_image_by_a_fresh_database_passes():
    assert verdict() == Verdict("passed", (), (), (), (), (), NOW - DAY)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digests": (OTHER,)}, f"of another image: {OTHER}, allowed: {IMAGE}"),
        ({"digests": ()}, "does not say by a digest which image"),
        ({"of_sbom": "e" * 64}, "of another SBOM"),
        ({"of_sbom": SBOM, "digests": (OTHER,)}, "of another image"),
        ({"scanned_at": None}, "the scan is of unknown age"),
        ({"scanned_at": NOW - 7 * DAY - timedelta(seconds=1), "database_built": NOW - 8 * DAY}, "the scan is too old"),
        ({"scanned_at": NOW + timedelta(hours=1)}, "the scan is of the future"),
        ({"database_built": None}, "its database is of unknown age"),
        ({"database_built": NOW - 6 * DAY - timedelta(seconds=1)}, "its database is too old: of 2026-03-04 11:59 UTC"),
        ({"database_built": NOW}, "its database is of the future"),
        ({"skipped": ("pacman: disabled", "x: unknown")}, r"2 packages \(pacman: disabled, x: unknown\) left out"),
        ({"components": 1}, "has looked at 1 packages, the SBOM lists 2"),
        ({"components": 3}, "has looked at 3 packages, the SBOM lists 2"),
        ({"distribution": None}, "unknown which: the SBOM says debian 12, the report none"),
        ({"distribution": Distribution("debian", "")}, "unknown which"),
        ({"distribution": Distribution("debian", "11")}, "the report is of debian 11, the SBOM of debian 12"),
        ({"distribution": Distribution("ubuntu", "12")}, "the report is of ubuntu 12, the SBOM of debian 12"),
        ({"components": None}, "made without --list-all-pkgs: nobody can say what was looked at"),
        ({"limits": ("only-fixed: true",)}, "the report is partial: only-fixed: true"),
        ({"is_end_of_life": True}, "debian 12 is at its end of life"),
    ],
)
def test_a_report_that_cannot_be_believed_is_no_pass(changes: dict[str, Any], said: str):
    found = verdict(replace(REPORT, **changes), sbom_sha256=SBOM)
    assert found.outcome == "failed"
    assert found.counted == ()
    (fault,) = found.faults
    with pytest.raises(ValueError, match=said):
        raise ValueError(fault)


@pytest.mark.parametrize(
    ("components", "said"),
    [
        (None, "there is no SBOM"),
        (replace(COMPONENTS, distribution=None), "the SBOM says none, the report debian 12"),
        (replace(COMPONENTS, packages=(component("a"), component("b", ""))), r"1 packages \(b\) in the SBOM without"),
        (
            replace(COMPONENTS, packages=(component("a", kind="python"),) * 2),
            "debian 12, and no package of it in the SBOM",
        ),
    ],
)
def test_an_sbom_that_does_not_carry_the_scan_is_no_pass(components: Components | None, said: str):
    found = verdict(components=components)
    assert found.outcome == "failed"
    (fault,) = found.faults
    with pytest.raises(ValueError, match=said):
        raise ValueError(fault)


def test_an_image_whose_package_database_was_deleted_is_no_pass_whoever_names_its_distribution():
    python = (component("a", kind="python"),) * 2
    gone = "debian 12, and no package of it in the SBOM: the package database is missing or was removed"
    assert verdict(components=Components(python, DEBIAN)).faults == (gone,)
    assert verdict(components=Components(python, None)).faults == (
        gone,
        "the report is of debian 12, the SBOM of none",
    )
    without = replace(REPORT, distribution=None)
    assert verdict(without, Components(python, None)).outcome == "passed"
    assert verdict(without, Components(python, DEBIAN)).faults == (gone,)


def test_an_sbom_that_lists_nothing_is_no_pass():
    nothing = replace(REPORT, scanner="grype", distribution=None, components=None)
    found = verdict(nothing, Components((), None))
    assert found.outcome == "failed"
    assert found.faults == ("the SBOM lists no package: nothing can be found in what is not listed",)


def test_each_limit_of_a_report_is_a_fault_of_its_own():
    found = verdict(replace(REPORT, limits=("only-fixed: true", "exclude: /opt/**")))
    assert found.faults == ("the report is partial: only-fixed: true", "the report is partial: exclude: /opt/**")


def test_no_scanner_is_an_outcome_of_its_own_and_a_report_that_could_not_be_read_is_a_failure():
    assert verdict(None).outcome == "no scanner"
    assert verdict(None, None).outcome == "no scanner"
    known = verdict(None, advisories=(match(source="osv"),), advisories_as_of=NOW)
    assert (known.outcome, len(known.counted)) == ("no scanner", 1)
    broken = verdict(None, report_fault="report.json: the document ends early")
    assert (broken.outcome, broken.faults) == ("failed", ("there is no report: report.json: the document ends early",))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (("debian", "12.5"), ("debian", "12")),
        (("Debian", "12"), ("debian", "12")),
        (("redhat", "9.3"), ("rhel", "9.3")),
        (("amazon", "2 (Karoo)"), ("amzn", "2")),
        (("rockylinux", "9"), ("rocky", "9.3")),
    ],
)
def test_one_distribution_has_several_names(theirs: tuple[str, str], ours: tuple[str, str]):
    report = replace(REPORT, distribution=Distribution(*theirs))
    assert verdict(report, replace(COMPONENTS, distribution=Distribution(*ours))).outcome == "passed"


def test_an_image_without_an_operating_system_needs_none_and_grype_does_not_say_how_much_it_saw():
    report = replace(REPORT, scanner="grype", distribution=None, components=None)
    assert verdict(report, Components((component("a", kind="python"),), None)).outcome == "passed"


def test_an_image_has_other_names_and_a_scan_of_our_own_sbom_is_known_by_it():
    by_config = replace(REPORT, digests=(CONFIG,))
    assert verdict(by_config).outcome == "failed"
    assert verdict(by_config, other_digests=[CONFIG]).outcome == "passed"
    by_sbom = replace(REPORT, digests=(), of_sbom=SBOM)
    assert verdict(by_sbom, sbom_sha256=SBOM).outcome == "passed"
    assert verdict(by_sbom).outcome == "failed"


@pytest.mark.parametrize("severity", list(Severity))
def test_what_is_grave_or_unrated_counts(severity: Severity):
    found = verdict(replace(REPORT, matches=(match(severity=severity),)))
    is_grave = severity in (Severity.HIGH, Severity.CRITICAL, Severity.UNKNOWN)
    assert (len(found.counted), len(found.uncounted)) == (int(is_grave), int(not is_grave))
    assert found.outcome == ("failed" if is_grave else "passed")
    unrated = "CVE-2026-0001 in openssl 1.0: its severity is unknown, so it counts"
    assert found.remarks == ((unrated,) if severity is Severity.UNKNOWN else ())


def test_what_a_scanner_was_told_to_ignore_counts_unless_a_signed_exception_of_ours_says_so_too():
    report = replace(REPORT, ignored=(match(status="not_affected"), match("CVE-2026-0002", Severity.LOW)))
    found = verdict(report)
    assert [each.id for each in found.counted] == ["CVE-2026-0001"]
    assert found.remarks == (
        "CVE-2026-0001 in openssl 1.0: trivy was told to ignore it (not_affected), which is no exception here",
    )
    excused = verdict(report, exceptions=Exceptions((exemption("CVE-2026-0001"),)))
    assert (excused.outcome, excused.counted, len(excused.excused)) == ("passed", (), 1)


def test_an_exception_excuses_its_vulnerability_and_nothing_else_and_no_fault():
    report = replace(REPORT, matches=(match(), match("CVE-2026-0002", Severity.CRITICAL)))
    ours = exemption("CVE-2026-0001")
    found = verdict(report, exceptions=Exceptions((ours,)))
    assert [(each.id, by) for each, by in found.excused] == [("CVE-2026-0001", ours)]
    assert [each.id for each in found.counted] == ["CVE-2026-0002"]
    both = Exceptions((ours, exemption("CVE-2026-0002")))
    assert verdict(report, exceptions=both).outcome == "passed"
    assert verdict(replace(report, skipped=("a: b",)), exceptions=both).outcome == "failed"
    assert verdict(report, exceptions=both, now=NOW + 2 * DAY).outcome == "failed"
    assert verdict(replace(report, digests=(OTHER,)), exceptions=both, image_digest=OTHER).outcome == "failed"


def test_a_new_advisory_counts_for_an_old_scan():
    found = verdict(advisories=(match("GHSA-cccc-cccc-cccc", source="osv"),), advisories_as_of=NOW)
    assert (found.outcome, [each.source for each in found.counted]) == ("failed", ["osv"])


@pytest.mark.parametrize(
    ("scanned", "advisory", "counted"),
    [
        (Severity.HIGH, Severity.HIGH, ["trivy"]),
        (Severity.HIGH, Severity.CRITICAL, ["trivy"]),
        (Severity.LOW, Severity.UNKNOWN, []),
        (Severity.LOW, Severity.MEDIUM, []),
        (Severity.LOW, Severity.HIGH, ["osv"]),
        (Severity.UNKNOWN, Severity.LOW, ["trivy"]),
    ],
)
def test_what_scanner_and_advisory_both_know_counts_once_as_the_graver_word_has_it(
    scanned: Severity, advisory: Severity, counted: list[str]
):
    theirs = match(severity=scanned)
    again = match("GHSA-cccc-cccc-cccc", advisory, aliases=("CVE-2026-0001",), source="osv")
    again = replace(again, purl="pkg:deb/debian/openssl@1.0?arch=amd64", fixed_in="")
    found = verdict(replace(REPORT, matches=(theirs,)), advisories=(again,), advisories_as_of=NOW)
    assert [each.source for each in found.counted] == counted


def test_the_same_vulnerability_in_another_package_is_another():
    other = match(source="osv", package="zlib", purl="pkg:deb/debian/zlib@1.0")
    found = verdict(replace(REPORT, matches=(match(),)), advisories=(other,), advisories_as_of=NOW)
    assert [each.package for each in found.counted] == ["openssl", "zlib"]


def test_of_two_ratings_in_one_report_the_graver_counts_and_the_vulnerability_once():
    for first, second in ((Severity.HIGH, Severity.LOW), (Severity.LOW, Severity.HIGH)):
        found = verdict(replace(REPORT, matches=(match(severity=first), match(severity=second))))
        assert [each.severity for each in found.counted] == [Severity.HIGH]
        assert found.uncounted == ()


@pytest.mark.parametrize(("as_of", "faults"), [(NOW - 5 * DAY, 0), (NOW - 6 * DAY, 1), (NOW + DAY, 1)])
def test_a_snapshot_of_advisories_grows_old(as_of: datetime, faults: int):
    assert len(verdict(advisories_as_of=as_of).faults) == faults


def test_advisories_of_unknown_age_are_a_fault():
    assert verdict(advisories=(match(severity=Severity.LOW),)).faults == (
        "the newest advisory is of unknown age, allowed: up to 5 days",
    )


def test_a_version_that_could_not_be_compared_is_remarked():
    found = verdict(advisories=(match(source="osv", note="its version 'x' cannot be compared"),), advisories_as_of=NOW)
    assert found.remarks == ("CVE-2026-0001 in openssl 1.0: its version 'x' cannot be compared",)


def test_the_policy_names_what_counts_and_how_old_is_too_old():
    report = replace(REPORT, matches=(match(severity=Severity.MEDIUM),), scanned_at=NOW - 2 * DAY)
    assert verdict(report).outcome == "passed"
    assert verdict(report, policy=GatePolicy(severities=("MEDIUM",))).outcome == "failed"
    assert verdict(report, policy=GatePolicy(scan_days=1)).outcome == "failed"
    old = replace(report, database_built=NOW - 4 * DAY)
    assert verdict(old).outcome == "passed"
    assert verdict(old, policy=GatePolicy(database_days=1)).outcome == "failed"


_matches = st.lists(
    st.builds(match, st.sampled_from(["CVE-1", "CVE-2", "CVE-3"]), st.sampled_from(list(Severity))), max_size=6
)


@given(matches=_matches, ignored=_matches, advisories=_matches, excused=st.sets(st.sampled_from(["CVE-1", "CVE-2"])))
def test_a_pass_means_that_everything_grave_is_excused_by_us(
    matches: list[Match], ignored: list[Match], advisories: list[Match], excused: set[str]
):
    report = replace(REPORT, matches=tuple(matches), ignored=tuple(ignored))
    ours = Exceptions((exemption(*sorted(excused)),)) if excused else NONE
    found = verdict(report, exceptions=ours, advisories=tuple(advisories), advisories_as_of=NOW)
    grave = {each.id for each in (*matches, *ignored) if each.severity in (0, 4, 5)}
    grave |= {each.id for each in advisories if each.severity in (4, 5)}
    # An advisory that nobody has rated counts unless the scanner has rated it.
    rated = {each.id for each in (*matches, *ignored)}
    grave |= {each.id for each in advisories if each.severity == 0 and each.id not in rated | grave}
    assert {each.id for each in found.counted} == grave - excused
    assert found.outcome == ("failed" if grave - excused else "passed")
    everything = [*found.counted, *found.uncounted, *(each for each, _ in found.excused)]
    assert {each.id for each in everything} == {each.id for each in (*matches, *ignored, *advisories)}
