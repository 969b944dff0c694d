"""Grype's and Trivy's reports as they write them, in both databases' forms, and everything that is no report."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from greenops_pipelines.errors import ProviderError
from greenops_pipelines.supply_chain import scan_reports
from greenops_pipelines.supply_chain.components import Distribution
from greenops_pipelines.supply_chain.scan_reports import Purl
from greenops_pipelines.supply_chain.severity import Severity, counts, of_vector, parse

MANIFEST, INDEX, CONFIG = (f"sha256:{digit * 64}" for digit in "abc")


def grype(**changes: Any) -> dict[str, Any]:
    return {
        "matches": [
            {
                "vulnerability": {
                    "id": "GHSA-h75v-3vvj-5mfj",
                    "severity": "Medium",
                    "fix": {"versions": ["3.1.4"], "state": "fixed"},
                },
                "relatedVulnerabilities": [{"id": "CVE-2024-34064", "severity": "Medium"}],
                "matchDetails": [],
                "artifact": {"name": "jinja2", "version": "3.1.2", "type": "python", "purl": "pkg:pypi/jinja2@3.1.2"},
            }
        ],
        "source": {
            "type": "image",
            "target": {
                "userInput": "registry.example/app:1",
                "imageID": CONFIG,
                "manifestDigest": MANIFEST,
                "repoDigests": [f"registry.example/app@{INDEX}"],
            },
        },
        "distro": {"name": "debian", "version": "12", "idLike": None},
        "descriptor": {
            "name": "grype",
            "version": "0.104.0",
            "timestamp": "2026-03-02T11:00:00.123456789+01:00",
            "db": {"status": {"schemaVersion": "v6.1.9", "built": "2026-03-01T06:42:30Z", "valid": True}},
        },
    } | changes


def trivy(**changes: Any) -> dict[str, Any]:
    return {
        "SchemaVersion": 2,
        "Trivy": {"Version": "0.70.0"},
        "CreatedAt": "2026-03-02T10:00:00.5Z",
        "ArtifactName": "registry.example/app:1",
        "ArtifactType": "container_image",
        "Metadata": {
            "OS": {"Family": "debian", "Name": "12.5"},
            "ImageID": CONFIG,
            "RepoDigests": [f"registry.example/app@{INDEX}"],
        },
        "Results": [
            {
                "Target": "app (debian 12.5)",
                "Class": "os-pkgs",
                "Type": "debian",
                "Packages": [{"Name": "libssl3", "Version": "3.0.11"}, {"Name": "zlib1g", "Version": "1.2.13"}],
                "Vulnerabilities": [
                    {
                        "VulnerabilityID": "CVE-2024-0001",
                        "PkgName": "libssl3",
                        "PkgIdentifier": {"PURL": "pkg:deb/debian/libssl3@3.0.11?arch=amd64&distro=debian-12.5"},
                        "InstalledVersion": "3.0.11",
                        "FixedVersion": "3.0.13",
                        "Status": "fixed",
                        "Severity": "CRITICAL",
                    }
                ],
                "ExperimentalModifiedFindings": [
                    {
                        "Type": "vulnerability",
                        "Status": "not_affected",
                        "Source": "./vex.json",
                        "Finding": {
                            "VulnerabilityID": "CVE-2024-0002",
                            "PkgName": "zlib1g",
                            "InstalledVersion": "1.2.13",
                            "Status": "affected",
                            "Severity": "HIGH",
                        },
                    },
                    {"Type": "secret", "Status": "ignored", "Finding": {"RuleID": "a"}},
                ],
            },
            {
                "Target": "Python",
                "Class": "lang-pkgs",
                "Type": "python-pkg",
                "Packages": [{"Name": "a", "Version": "1"}],
            },
        ],
    } | changes


def read(document: object, **more: Any) -> scan_reports.ScanReport:
    return scan_reports.read(json.dumps(document).encode(), "report.json", **more)


def test_grypes_report_says_of_which_image_when_with_which_database_and_what():
    found = read(grype())
    assert (found.scanner, found.scanner_version) == ("grype", "0.104.0")
    assert found.digests == (MANIFEST, CONFIG, INDEX)
    assert found.distribution == Distribution("debian", "12")
    assert found.scanned_at == datetime(2026, 3, 2, 10, 0, 0, 123456, UTC)
    assert found.database_built == datetime(2026, 3, 1, 6, 42, 30, tzinfo=UTC)
    (match,) = found.matches
    assert (match.id, match.aliases) == ("GHSA-h75v-3vvj-5mfj", ("CVE-2024-34064",))
    assert (match.package, match.version, match.fixed_in, match.status) == ("jinja2", "3.1.2", "3.1.4", "fixed")
    assert (match.severity, match.source) == (Severity.MEDIUM, "grype")
    assert (found.components, found.skipped, found.is_end_of_life) == (None, (), False)


def test_trivys_report_counts_its_packages_and_shows_what_others_vex_has_taken_out():
    built = datetime(2026, 3, 1, tzinfo=UTC)
    found = read(trivy(), database_built=built)
    assert (found.scanner, found.scanner_version, found.database_built) == ("trivy", "0.70.0", built)
    assert found.digests == (INDEX, CONFIG)
    assert found.distribution == Distribution("debian", "12.5")
    assert found.components == 3
    assert [(m.id, m.severity, m.fixed_in) for m in found.matches] == [("CVE-2024-0001", Severity.CRITICAL, "3.0.13")]
    assert [(m.id, m.severity, m.status) for m in found.ignored] == [("CVE-2024-0002", Severity.HIGH, "affected")]


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ({"built": "2024-05-02T01:29:31Z", "schemaVersion": 5}, datetime(2024, 5, 2, 1, 29, 31, tzinfo=UTC)),
        ({"status": {"built": "2026-03-01T00:00:00Z"}}, datetime(2026, 3, 1, tzinfo=UTC)),
        ({"status": {"built": "0001-01-01T00:00:00Z"}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_age_of_grypes_database_stands_where_its_version_has_it(database: object, expected: datetime | None):
    document = grype()
    document["descriptor"]["db"] = database
    assert read(document).database_built == expected


def test_packages_that_grype_could_not_hold_against_anything_are_skipped_and_an_end_of_life_is_told_apart():
    package = {"name": "pacman", "version": "6", "purl": ""}
    alerts = [
        {"package": package, "alerts": [{"type": "distro-disabled", "message": "Package is from arch"}]},
        {"package": package | {"name": "odd"}, "alerts": [{"type": "of-a-kind-to-come"}]},
    ]
    found = read(grype(alertsByPackage=alerts))
    assert (found.skipped, found.is_end_of_life) == (("pacman: Package is from arch", "odd: of-a-kind-to-come"), False)
    found = read(grype(alertsByPackage=[{"package": package, "alerts": [{"type": "distro-eol", "message": "old"}]}]))
    assert (found.skipped, found.is_end_of_life) == ((), True)
    assert read(trivy(Metadata={"OS": {"Family": "debian", "Name": "9", "EOSL": True}})).is_end_of_life


def rule(package: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """An ignore rule as Grype writes it: every field, empty or not."""
    named = {"name": "", "version": "", "language": "", "type": "", "location": "", "upstream-name": ""}
    empty = {"vulnerability": "", "include-aliases": False, "reason": "", "namespace": "", "fix-state": ""}
    return (
        empty | {"package": named | (package or {}), "vex-status": "", "vex-justification": "", "match-type": ""} | more
    )


HEADERS = {"name": "linux(-.*)?-headers-.*", "type": "deb", "upstream-name": "linux.*"}
INDIRECT = {"match-type": "exact-indirect-match"}
BUILT_IN = [
    rule({"name": "kernel-headers", "type": "rpm", "upstream-name": "kernel"}, **INDIRECT),
    rule(HEADERS, **INDIRECT),
    rule({"name": "linux-libc-dev", "type": "deb", "upstream-name": "linux"}, **INDIRECT),
    rule({"name": "linux-kbuild-.*", "type": "deb", "upstream-name": "linux.*"}, **INDIRECT),
    {"package": {"name": "linux-headers-.*", "type": "deb", "upstream-name": "linux"}, **INDIRECT},
]


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        (None, []),
        ({"only-fixed": False, "only-notfixed": False, "ignore-wontfix": "", "exclude": None, "ignore": None}, []),
        ({"exclude": [], "ignore": BUILT_IN, "search": {"scope": "squashed"}}, []),
        ({"only-fixed": True}, ["only-fixed: true"]),
        ({"only-notfixed": True, "ignore": BUILT_IN}, ["only-notfixed: true"]),
        ({"ignore-wontfix": "wont-fix,unknown"}, ["ignore-states: wont-fix,unknown"]),
        ({"exclude": ["/opt/**", "**/a.jar"]}, ["exclude: /opt/**, **/a.jar"]),
        (
            {"ignore": [*BUILT_IN, rule(vulnerability="CVE-2024-1")]},
            ["ignore: 1 rules that are not Grype's own, the first {'vulnerability': 'CVE-2024-1'}"],
        ),
        ({"ignore": [rule(**{"vex-status": "fixed"})]}, ["the first {'vex-status': 'fixed'}"]),
        ({"ignore": [rule(HEADERS)]}, ["ignore: 1 rules"]),
        ({"ignore": [rule(HEADERS | {"name": ".*"}, **INDIRECT)]}, ["ignore: 1 rules"]),
        ({"ignore": [rule(HEADERS, vulnerability="CVE-2024-1", **INDIRECT)]}, ["ignore: 1 rules"]),
        ({"only-fixed": True, "exclude": ["/a"]}, ["only-fixed: true", "exclude: /a"]),
    ],
)
def test_settings_by_which_grypes_report_is_partial_are_told(settings: object, limits: list[str]):
    document = grype()
    document["descriptor"]["configuration"] = settings
    found = read(document).limits
    assert len(found) == len(limits)
    assert all(said in told for said, told in zip(limits, found, strict=True))


def test_a_notice_that_closes_several_vulnerabilities_is_an_alias_of_none():
    document = grype()
    document["matches"][0]["relatedVulnerabilities"] = [{"id": "CVE-2024-1"}, {"id": "CVE-2024-2"}]
    assert read(document).matches[0].aliases == ()


@pytest.mark.parametrize("target", ["app.cdx.json", None, {"userInput": "app", "manifestDigest": "1.0"}])
def test_what_is_no_image_has_no_digest(target: object):
    kind = "image" if isinstance(target, dict) else "sbom-file"
    assert read(grype(source={"type": kind, "target": target})).digests == ()


def test_a_trivy_report_that_lists_no_packages_does_not_say_how_many_it_saw():
    document = trivy()
    for result in document["Results"]:
        result.pop("Packages")
    assert read(document).components is None


def test_a_package_without_a_version_was_not_looked_at():
    document = trivy()
    document["Results"][0]["Packages"].append({"Name": "nameless-version"})
    assert read(document).skipped == ("nameless-version: it states no version",)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "found an empty document"),
        (b" \n", "found an empty document"),
        (json.dumps(grype()).encode()[:-40], "the document ends early"),
        (json.dumps(trivy()).encode()[:300], "the document ends early"),
        (b'{"matches": [], "matches": [], "descriptor": {"name": "grype"}}', "the key 'matches' stands twice"),
        (b'{"matches": NaN, "descriptor": {"name": "grype"}}', "NaN is not a number"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "found another document"),
        (b"null", "found another document"),
        (b'{"bomFormat": "CycloneDX"}', "found another document"),
        (b'{"matches": null, "descriptor": {"name": "grype"}}', "found another document"),
        (json.dumps(grype(descriptor={"name": "other"})).encode(), "found another document"),
        (
            json.dumps(grype(descriptor={"name": "grype", "configuration": {"only-fixed": "no"}})).encode(),
            "only-fixed: found 'no', allowed: true or false",
        ),
        (
            json.dumps(grype(descriptor={"name": "grype", "configuration": {"exclude": "/a"}})).encode(),
            "exclude: found '/a', allowed: a list",
        ),
        (json.dumps(trivy(SchemaVersion=1)).encode(), "SchemaVersion 1, allowed: 2"),
        (json.dumps(trivy(Results=None)).encode(), "nothing was scanned"),
        (json.dumps(trivy(Results=[])).encode(), "nothing was scanned"),
        (json.dumps(trivy(Results=[{"Class": "secret"}])).encode(), "nothing was scanned"),
        (json.dumps(grype(matches=[7])).encode(), r"matches\[0\]: found 7, allowed: an object"),
        (json.dumps(grype(matches=[{}])).encode(), r"vulnerability: id: found nothing, allowed: a text"),
        (json.dumps(grype(ignoredMatches={})).encode(), r"ignoredMatches: found \{\}, allowed: a list"),
        (json.dumps(trivy(CreatedAt="yesterday")).encode(), "CreatedAt: found 'yesterday', allowed: a time"),
        (json.dumps(trivy(CreatedAt="2026-03-02T10:00:00")).encode(), "with its zone"),
        (json.dumps(trivy(Metadata={"OS": {"EOSL": "no"}})).encode(), "EOSL: found 'no', allowed: true or false"),
        (json.dumps(trivy(Metadata={"RepoDigests": [1]})).encode(), r"RepoDigests: found \[1\], allowed: texts"),
    ],
)
def test_everything_else_is_one_clear_error_with_the_place(document: bytes, said: str):
    with pytest.raises(ProviderError, match=said) as refused:
        scan_reports.read(document, "report.json")
    assert str(refused.value).startswith("report.json: ")
    assert "\n" not in str(refused.value)


def test_every_beginning_of_a_report_is_refused():
    whole = json.dumps(trivy()).encode()
    for length in range(0, len(whole), 17):
        with pytest.raises(ProviderError):
            scan_reports.read(whole[:length], "report.json")


def test_trivys_version_and_database_are_told_by_the_program_itself():
    document = {"Version": "0.70.0", "VulnerabilityDB": {"Version": 2, "UpdatedAt": "2026-03-01T06:00:00.1Z"}}
    expected = "0.70.0", datetime(2026, 3, 1, 6, 0, 0, 100_000, UTC)
    assert scan_reports.trivy_database(json.dumps(document).encode(), "trivy") == expected
    assert scan_reports.trivy_database(b'{"Version": "0.70.0"}', "trivy") == ("0.70.0", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pkg:pypi/Flask_Login@0.6", Purl("pypi", "", "flask-login", "0.6")),
        ("pkg:npm/%40babel/core@7.23.0", Purl("npm", "@babel", "core", "7.23.0")),
        ("pkg:golang/golang.org/x/net@v0.17.0#http2", Purl("golang", "golang.org/x", "net", "v0.17.0")),
        ("pkg:deb/debian/base@1%3A2-3?epoch=1", Purl("deb", "debian", "base", "1:2-3", (("epoch", "1"),))),
        ("pkg:oci/app@sha256%3Aab", Purl("oci", "", "app", "sha256:ab")),
        ("pkg:pypi/a", Purl("pypi", "", "a", "")),
        ("pkg:pypi/a@", None),
        ("pkg:pypi", None),
        ("cpe:/a:b", None),
        ("", None),
    ],
)
def test_package_urls(text: str, expected: Purl | None):
    assert Purl.parse(text) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Critical", Severity.CRITICAL),
        ("MODERATE", Severity.MEDIUM),
        (" high ", Severity.HIGH),
        ("Negligible", Severity.NEGLIGIBLE),
        ("Unknown", Severity.UNKNOWN),
        ("", Severity.UNKNOWN),
        ("terrible", Severity.UNKNOWN),
    ],
)
def test_everybodys_words_for_severities(word: str, expected: Severity):
    assert parse(word) is expected


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", Severity.CRITICAL),  # 9.8
        ("CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H", Severity.HIGH),  # 7.5
        ("CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N", Severity.LOW),  # 1.8
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", Severity.NEGLIGIBLE),  # 0.0
        ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", Severity.CRITICAL),  # 9.3
        ("AV:N/AC:L/Au:N/C:P/I:N/A:N", Severity.MEDIUM),  # 5.0
        ("CVSS:3.1/AV:N", Severity.UNKNOWN),
        ("7.5", Severity.UNKNOWN),
        ("", Severity.UNKNOWN),
    ],
)
def test_a_cvss_vector_has_its_rating(vector: str, expected: Severity):
    assert of_vector(vector) is expected


def test_what_is_graver_than_what_is_named_counts_and_what_is_unknown_too():
    counted = [each.name for each in Severity if counts(each, ("HIGH",))]
    assert counted == ["UNKNOWN", "HIGH", "CRITICAL"]
    assert not counts(Severity.HIGH, ["CRITICAL"])
