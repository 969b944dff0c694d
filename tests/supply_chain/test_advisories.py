"""OSV snapshots against the packages of an SBOM: whose versions are affected, by each ecosystem's own order."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.errors import ConfigurationError, ProviderError
from greenops_pipelines.lake.supply_tables import ADVISORIES
from greenops_pipelines.supply_chain import advisories
from greenops_pipelines.supply_chain.advisories import Advisory, Snapshot
from greenops_pipelines.supply_chain.components import Component, Components, Distribution
from greenops_pipelines.supply_chain.scan_reports import Match
from greenops_pipelines.supply_chain.severity import Severity

DEBIAN = Distribution("debian", "12")


def component(purl: str) -> Component:
    name, _, stated = purl.partition("?")[0].rpartition("/")[2].partition("@")
    return Component(purl, name, unquote(stated), purl, "", "", "", "")


def affected(ecosystem: str, package: str, *events: dict[str, str], kind: str = "ECOSYSTEM", **more: Any) -> Any:
    ranges = {"ranges": [{"type": kind, "events": list(events)}]} if events else {}
    return {"package": {"ecosystem": ecosystem, "name": package}} | ranges | more


def record(name: str, *entries: Any, **more: Any) -> dict[str, Any]:
    base = {"schema_version": "1.7.0", "id": name, "modified": "2026-02-01T00:00:00Z", "affected": list(entries)}
    return base | more


def snapshot(tmp_path: Path, *records: dict[str, Any]) -> Snapshot:
    folder = tmp_path / "osv"
    folder.mkdir(exist_ok=True)
    for each in records:
        (folder / f"{each['id']}.json").write_text(json.dumps(each))
    return advisories.read(folder)


def matches(
    tmp_path: Path, entry: Any, purl: str, distribution: Distribution | None = None, **more: Any
) -> tuple[Match, ...]:
    found = snapshot(tmp_path, record("CVE-2026-0001", entry, **more))
    return advisories.evaluate(found.advisories, Components((component(purl),), distribution))


def since(introduced: str, **end: str) -> tuple[dict[str, str], ...]:
    return {"introduced": introduced}, *({key: value} for key, value in end.items())


@pytest.mark.parametrize(
    ("ecosystem", "package", "events", "purl", "is_affected"),
    [
        ("PyPI", "jinja2", since("0", fixed="3.1.4"), "pkg:pypi/jinja2@3.1.3", True),
        ("PyPI", "jinja2", since("0", fixed="3.1.4"), "pkg:pypi/jinja2@3.1.4", False),
        ("PyPI", "jinja2", since("0", fixed="3.1.4"), "pkg:pypi/jinja2@3.1.4rc1", True),
        ("PyPI", "jinja2", since("3.0", fixed="3.1.4"), "pkg:pypi/jinja2@2.9", False),
        ("PyPI", "jinja2", since("0", fixed="3.2"), "pkg:pypi/jinja2@3.10", False),
        ("PyPI", "Flask_Login", since("0"), "pkg:pypi/flask-login@9", True),
        ("PyPI", "jinja2", since("0", last_affected="3.1"), "pkg:pypi/jinja2@3.1", True),
        ("PyPI", "jinja2", since("0", last_affected="3.1"), "pkg:pypi/jinja2@3.1.1", False),
        ("npm", "@babel/core", since("0", fixed="7.23.2"), "pkg:npm/%40babel/core@7.23.0", True),
        ("npm", "lodash", since("0", fixed="4.17.21"), "pkg:npm/lodash@4.17.21", False),
        ("npm", "lodash", since("0", fixed="4.17.21"), "pkg:npm/lodash@4.17.21-rc.1", True),
        ("Go", "golang.org/x/net", since("0", fixed="0.17.0"), "pkg:golang/golang.org/x/net@v0.16.0", True),
        ("Go", "golang.org/x/net", since("0", fixed="0.17.0"), "pkg:golang/golang.org/x/net@v0.17.0", False),
        ("Go", "a.example/b", since("0", fixed="2.0.0"), "pkg:golang/a.example/b@v2.0.0+incompatible", False),
        ("Go", "a.example/b", since("2.0.0"), "pkg:golang/a.example/b@v2.0.0+incompatible", True),
        ("Go", "stdlib", since("0", fixed="1.21.5"), "pkg:golang/stdlib@1.21.4", True),
        ("Maven", "org.apache:log", since("2.0-beta9", fixed="2.15.0"), "pkg:maven/org.apache/log@2.14.1", True),
        ("Maven", "org.apache:log", since("2.0-beta9", fixed="2.15.0"), "pkg:maven/org.apache/log@2.0-alpha1", False),
        ("Maven:https://m.example", "a:b", since("0"), "pkg:maven/a/b@1", True),
        ("RubyGems", "rack", since("0", fixed="2.2.6.4"), "pkg:gem/rack@2.2.6.3", True),
        ("RubyGems", "rack", since("0", fixed="2.2.6.4"), "pkg:gem/rack@2.2.10", False),
        ("crates.io", "time", since("0.1.0", fixed="0.2.23"), "pkg:cargo/time@0.2.22", True),
        ("crates.io", "time", since("0.1.0", fixed="0.2.23"), "pkg:cargo/time@0.0.9", False),
        ("PyPI", "other", since("0"), "pkg:pypi/jinja2@3.1.3", False),
        ("npm", "jinja2", since("0"), "pkg:pypi/jinja2@3.1.3", False),
    ],
)
def test_a_language_package_is_affected_by_its_ecosystems_order(
    tmp_path: Path, ecosystem: str, package: str, events: Any, purl: str, is_affected: bool
):
    found = matches(tmp_path, affected(ecosystem, package, *events), purl)
    assert (len(found), [each.note for each in found if each.note]) == (int(is_affected), [])


@pytest.mark.parametrize(
    ("ecosystem", "purl", "distribution", "is_affected"),
    [
        ("Debian:12", "pkg:deb/debian/libssl3@3.0.11-1?upstream=openssl", DEBIAN, True),
        ("Debian:12", "pkg:deb/debian/libssl3@3.0.11-1~deb12u1?upstream=openssl", DEBIAN, True),
        ("Debian:12", "pkg:deb/debian/libssl3@3.0.11-1%2Bdeb12u3?upstream=openssl", DEBIAN, False),
        ("Debian:12", "pkg:deb/debian/openssl@3.0.11-1", DEBIAN, True),
        ("Debian:12", "pkg:deb/debian/libssl3@9?upstream=openssl%403.0.11-1", DEBIAN, True),
        ("Debian:12", "pkg:deb/debian/libssl3@3.0.11-1?upstream=openssl", Distribution("debian", "11"), False),
        ("Debian:12", "pkg:deb/debian/libssl3@3.0.11-1?upstream=openssl", Distribution("ubuntu", "12"), False),
        ("Debian:12", "pkg:deb/debian/libssl3@3.0.11-1?upstream=openssl&distro=debian-12", None, True),
        ("Debian:12", "pkg:deb/debian/libssl3@3.0.11-1", DEBIAN, False),
        ("Debian", "pkg:deb/debian/openssl@3.0.11-1", DEBIAN, True),
        ("Ubuntu:22.04:LTS", "pkg:deb/ubuntu/openssl@3.0.2-0", Distribution("ubuntu", "22.04"), True),
        ("Ubuntu:Pro:22.04:LTS", "pkg:deb/ubuntu/openssl@3.0.2-0", Distribution("ubuntu", "22.04"), True),
        ("Ubuntu:24.04:LTS", "pkg:deb/ubuntu/openssl@3.0.2-0", Distribution("ubuntu", "22.04"), False),
        ("Alpine:v3.19", "pkg:apk/alpine/libcrypto3@3.0.9-r9?upstream=openssl", Distribution("alpine", "3.19.1"), True),
        (
            "Alpine:v3.18",
            "pkg:apk/alpine/libcrypto3@3.0.9-r9?upstream=openssl",
            Distribution("alpine", "3.19.1"),
            False,
        ),
        ("Wolfi", "pkg:apk/wolfi/openssl@3.0.9-r9", Distribution("wolfi", "20230201"), True),
        ("Debian:12", "pkg:pypi/openssl@1.0", DEBIAN, False),
    ],
)
def test_a_package_of_a_distribution_is_its_source_package_in_its_release(
    tmp_path: Path, ecosystem: str, purl: str, distribution: Distribution | None, is_affected: bool
):
    fixed = "3.0.11-r1" if "lpine" in ecosystem or ecosystem == "Wolfi" else "3.0.11-1+deb12u2"
    found = matches(tmp_path, affected(ecosystem, "openssl", *since("0", fixed=fixed)), purl, distribution)
    assert len(found) == is_affected
    if found:
        assert (found[0].package, found[0].purl) == (component(purl).name, purl)


@pytest.mark.parametrize(
    ("version", "fixed_in"),
    [("1.0", "1.2"), ("1.1.9", "1.2"), ("1.2", None), ("1.9", None), ("2.0", "2.1"), ("2.1", None), ("3.0", "")],
)
def test_events_in_any_order_make_spans_and_the_end_of_the_right_one_is_the_fix(
    tmp_path: Path, version: str, fixed_in: str | None
):
    events = ({"fixed": "2.1"}, {"introduced": "3.0"}, {"introduced": "2.0"}, {"fixed": "1.2"}, {"introduced": "0"})
    found = matches(tmp_path, affected("PyPI", "a", *events), f"pkg:pypi/a@{version}")
    assert [each.fixed_in for each in found] == ([] if fixed_in is None else [fixed_in])


def test_a_listed_version_is_affected_whatever_the_ranges_say(tmp_path: Path):
    entry = affected("PyPI", "a", *since("5"), versions=["1.0", "odd version"])
    assert len(matches(tmp_path, entry, "pkg:pypi/a@1.0")) == 1
    assert len(matches(tmp_path, entry, "pkg:pypi/a@1.1")) == 0


@pytest.mark.parametrize(
    ("entry", "purl", "said"),
    [
        (
            affected("PyPI", "a", *since("0", fixed="2")),
            "pkg:pypi/a@2004d-special",
            "'2004d-special' cannot be compared",
        ),
        (affected("PyPI", "a", *since("0", fixed="r28")), "pkg:pypi/a@3", "'3' cannot be compared"),
        (affected("npm", "a", *since("0", fixed="2"), kind="SEMVER"), "pkg:npm/a@2.x", "'2.x' cannot be compared"),
        (affected("Go", "a", *since("0", fixed="2")), "pkg:golang/a@%28devel%29", "cannot be compared"),
        (affected("Go", "a", *since("0", fixed="2")), "pkg:golang/a", "states no version"),
        (affected("PyPI", "a"), "pkg:pypi/a@1", "cannot be compared"),
        (affected("PyPI", "a", versions=[]), "pkg:pypi/a@1", "cannot be compared"),
    ],
)
def test_a_version_that_cannot_be_compared_counts_as_affected_and_says_so(
    tmp_path: Path, entry: Any, purl: str, said: str
):
    (found,) = matches(tmp_path, entry, purl)
    assert said in found.note
    assert found.note.endswith("of CVE-2026-0001: counts as affected")
    assert (found.fixed_in, found.status) == ("", "affected")


@pytest.mark.parametrize(
    ("more", "entry_more", "expected"),
    [
        ({"database_specific": {"severity": "MODERATE"}}, {}, Severity.MEDIUM),
        (
            {"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]},
            {},
            Severity.CRITICAL,
        ),
        ({"severity": [{"type": "Ubuntu", "score": "medium"}]}, {}, Severity.MEDIUM),
        (
            {
                "database_specific": {"severity": "LOW"},
                "severity": [{"type": "CVSS_V2", "score": "AV:N/AC:L/Au:N/C:C/I:C/A:C"}],
            },
            {},
            Severity.LOW,
        ),
        ({"database_specific": {"severity": "LOW"}}, {"database_specific": {"severity": "HIGH"}}, Severity.HIGH),
        ({"database_specific": {"severity": ["HIGH"]}}, {}, Severity.UNKNOWN),
        ({}, {}, Severity.UNKNOWN),
    ],
)
def test_the_severity_is_the_databases_word_else_that_of_the_gravest_vector(
    tmp_path: Path, more: dict[str, Any], entry_more: dict[str, Any], expected: Severity
):
    (found,) = matches(tmp_path, affected("PyPI", "a", *since("0"), **entry_more), "pkg:pypi/a@1", **more)
    assert found.severity is expected


def test_two_databases_know_one_vulnerability_and_the_one_that_has_rated_it_speaks(tmp_path: Path):
    entry = affected("PyPI", "a", *since("0", fixed="2"))
    found = snapshot(
        tmp_path,
        record("GHSA-cccc-cccc-cccc", entry, aliases=["CVE-2026-0001"]),
        record("PYSEC-2026-1", entry, aliases=["CVE-2026-0001"], database_specific={"severity": "LOW"}),
        record("RUSTSEC-2026-0001", entry),
    )
    both = advisories.evaluate(found.advisories, Components((component("pkg:pypi/a@1"),), None))
    one, other = sorted(both, key=lambda match: match.id)
    assert (one.id, one.severity) == ("PYSEC-2026-1", Severity.LOW)
    assert one.aliases == ("CVE-2026-0001", "GHSA-cccc-cccc-cccc")
    assert other.id == "RUSTSEC-2026-0001"


def test_a_distributions_record_is_an_alias_of_the_one_vulnerability_that_it_is_about(tmp_path: Path):
    entry = affected("Debian:12", "openssl", *since("0"))
    purl = "pkg:deb/debian/openssl@3"
    (one,) = matches(tmp_path, entry, purl, DEBIAN, upstream=["CVE-2024-1"])
    assert one.aliases == ("CVE-2024-1",)
    (several,) = matches(tmp_path, entry, purl, DEBIAN, upstream=["CVE-2024-1", "CVE-2024-2"])
    assert several.aliases == ()


def test_withdrawn_records_and_those_of_commits_alone_are_counted_and_match_nothing(tmp_path: Path):
    commits = {"ranges": [{"type": "GIT", "repo": "https://git.example/a", "events": [{"introduced": "0"}]}]}
    found = snapshot(
        tmp_path,
        record("CVE-2026-1", affected("PyPI", "a", *since("0")), withdrawn="2026-01-01T00:00:00Z"),
        record("CVE-2026-2", commits),
        record("CVE-2026-3", affected("PyPI", "a", **commits)),
        record("CVE-2026-4", affected("PyPI", "b", *since("0"))),
    )
    assert (found.documents, found.withdrawn, found.git_only) == (4, 1, 2)
    assert [each.id for each in found.advisories] == ["CVE-2026-4"]


def test_a_snapshot_is_as_old_as_its_newest_advisory_or_as_its_manifest_says(tmp_path: Path):
    old = record("CVE-2026-1", modified="2025-01-01T00:00:00Z")
    new = record("CVE-2026-2", modified="2025-06-01T12:00:00.5Z", withdrawn="2025-06-01T12:00:00Z")
    assert snapshot(tmp_path, old, new).as_of == datetime(2025, 6, 1, 12, 0, 0, 500_000, UTC)
    (tmp_path / "osv" / "manifest.json").write_text('{"fetched_at": "2026-03-01T00:00:00Z"}')
    assert advisories.read(tmp_path / "osv").as_of == datetime(2026, 3, 1, tzinfo=UTC)


def test_a_zip_is_read_as_a_folder_is(tmp_path: Path):
    records = [record(f"CVE-2026-{number}", affected("PyPI", "a", *since("0"))) for number in range(3)]
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for each in records:
            archive.writestr(f"{each['id']}.json", json.dumps(each))
    assert advisories.read(tmp_path / "all.zip") == snapshot(tmp_path, *records)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "found an empty document"),
        ('{"id": "CVE-2026-1"', "the document ends early"),
        ("[]", "found \\[\\], allowed: an object"),
        ('{"id": "CVE-2026-1"}', "modified: found nothing, allowed: a time"),
        (json.dumps(record("", affected("PyPI", "a", *since("0")))), "id: found '', allowed: a text"),
        (json.dumps(record("A-1", affected("PyPI", "a", {"fixed": "1"}))), "allowed: one that says where it was"),
        (json.dumps(record("A-1", affected("", "a", *since("0")))), "ecosystem: found '', allowed: a text"),
    ],
)
def test_a_snapshot_with_a_hole_is_none(tmp_path: Path, content: str, said: str):
    folder = tmp_path / "osv"
    folder.mkdir()
    (folder / "bad.json").write_text(content)
    with pytest.raises(ProviderError, match=f"osv: bad.json: .*{said}"):
        advisories.read(folder)


def test_what_is_no_snapshot_at_all_is_said(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="found no advisories"):
        advisories.read(tmp_path / "absent")
    with pytest.raises(ProviderError, match="found no advisory"):
        advisories.read(tmp_path)
    whole = tmp_path / "all.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a.json", json.dumps(record("CVE-2026-1")))
    broken = tmp_path / "broken.zip"
    broken.write_bytes(whole.read_bytes().replace(b"modified", b"modifieD", 1))
    for path, content in ((broken, None), (tmp_path / "half.zip", whole.read_bytes()[:60])):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ProviderError, match="cannot be read"):
            advisories.read(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b" " * (advisories.MAX_FILE_BYTES + 1))
    with pytest.raises(ProviderError, match=r"a\.json: found 16,777,217 bytes"):
        advisories.read(tmp_path / "all.zip")


def test_kinds_of_packages_that_no_advisory_is_held_against_are_named():
    packages = (component("pkg:pypi/a@1"), replace(component("pkg:conan/z@1"), kind="conan"), component(""))
    assert advisories.uncovered(Components(packages, None)) == ("", "conan")


_events = st.lists(st.tuples(st.sampled_from(["introduced", "fixed", "last_affected"]), st.integers(0, 9)), max_size=5)


@given(events=_events, version=st.integers(0, 9), listed=st.sets(st.integers(0, 9), max_size=2))
def test_the_table_holds_what_the_evaluation_needs_and_the_evaluation_is_the_schemas(
    events: list[tuple[str, int]], version: int, listed: set[int]
):
    named = (("introduced", "0"), *((kind, f"{at}.0") for kind, at in events))
    spans = (advisories.Range("ECOSYSTEM", named),)
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    one = Advisory(
        "A-1", ("B-1",), moment, Severity.HIGH, "PyPI", "a", 3, spans, tuple(f"{each}.0" for each in sorted(listed))
    )
    rows = advisories.table([one])
    assert rows.schema == ADVISORIES.schema
    assert advisories.of_table(rows) == (one,)

    # OSV schema, "Evaluation", word for word; where events meet, in the order that the module states.
    vulnerable = False
    order = ["fixed", "introduced", "last_affected"]
    for kind, at in sorted([("introduced", -1), *events], key=lambda event: (event[1], order.index(event[0]))):
        if kind == "introduced" and version >= at:
            vulnerable = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            vulnerable = False
    found = advisories.evaluate([one], Components((component(f"pkg:pypi/a@{version}.0"),), None))
    assert bool(found) == (vulnerable or version in listed)
