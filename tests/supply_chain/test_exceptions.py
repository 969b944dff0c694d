"""Signed exceptions: what is accepted, for how long and for what; and every reason for which one is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from greenops_pipelines.errors import BadInput
from greenops_pipelines.evidence.keys import FileSigner
from greenops_pipelines.supply_chain import attestations, exceptions
from greenops_pipelines.supply_chain.exceptions import OPENVEX, Exceptions
from greenops_pipelines.supply_chain.scan_reports import Match
from greenops_pipelines.supply_chain.severity import Severity

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
DAY = timedelta(days=1)
IMAGE, OTHER = (f"sha256:{digit * 64}" for digit in "ab")
SIGNER, STRANGER = (FileSigner(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
JINJA = "pkg:pypi/jinja2@3.1.2"


def made(**changes: Any) -> bytes:
    given = {
        "vulnerability": "CVE-2024-34064",
        "image_digest": IMAGE,
        "image_name": "registry.example/team/app",
        "author": "security@example.com",
        "now": NOW,
        "expires_at": NOW + 30 * DAY,
        "justification": "vulnerable_code_not_in_execute_path",
        "notes": "xmlattr is not used",
    }
    return exceptions.make(SIGNER, **(given | changes))


def match(vulnerability: str = "CVE-2024-34064", *aliases: str, purl: str = JINJA) -> Match:
    return Match(vulnerability, aliases, Severity.HIGH, "jinja2", "3.1.2", purl, "3.1.4", "fixed", "grype")


def read(tmp_path: Path, *envelopes: bytes, now: datetime = NOW) -> Exceptions:
    for number, each in enumerate(envelopes):
        (tmp_path / f"{number}.json").write_bytes(each)
    return exceptions.read_folder(tmp_path, [SIGNER.public], now)


def document() -> dict[str, Any]:
    """An acceptable OpenVEX document as a person would write it."""
    return {
        "@context": OPENVEX,
        "@id": "https://openvex.dev/docs/public/vex-1",
        "author": "security@example.com",
        "timestamp": "2026-03-01T00:00:00Z",
        "version": 1,
        "statements": [
            {
                "vulnerability": {"name": "CVE-2024-34064", "aliases": ["GHSA-h75v-3vvj-5mfj"]},
                "products": [{"@id": f"pkg:oci/app@{IMAGE}", "subcomponents": [{"@id": JINJA}]}],
                "status": "not_affected",
                "justification": "vulnerable_code_not_present",
                "expires": "2026-05-01T00:00:00Z",
            }
        ],
    }


def signed(predicate: Any, kind: str = OPENVEX, image: str = IMAGE, signer: FileSigner = SIGNER) -> bytes:
    return attestations.envelope(signer, attestations.statement("app", [image], kind, predicate))


def test_what_is_made_is_read_back_and_excuses_its_vulnerability_in_its_image_until_it_expires(tmp_path: Path):
    found = read(tmp_path, made(purl=JINJA, aliases=["GHSA-h75v-3vvj-5mfj"]))
    assert found.refused == ()
    (one,) = found.valid
    assert (one.ids, one.image_digest) == (("CVE-2024-34064", "GHSA-h75v-3vvj-5mfj"), IMAGE)
    assert (one.status, one.justification) == ("not_affected", "vulnerable_code_not_in_execute_path")
    assert (one.notes, one.author, one.file) == ("xmlattr is not used", "security@example.com", "0.json")
    assert (one.made_at, one.expires_at, one.keyid) == (NOW, NOW + 30 * DAY, SIGNER.public.keyid)
    assert found.excusing(match(), {IMAGE}, NOW) is one
    assert found.excusing(match(), {IMAGE}, NOW + 30 * DAY - timedelta(seconds=1)) is one
    assert found.excusing(match(), {IMAGE}, NOW + 30 * DAY) is None
    assert found.excusing(match(), {IMAGE}, NOW - DAY) is None
    assert found.excusing(match(), {OTHER}, NOW) is None
    assert found.excusing(match(), {OTHER, IMAGE}, NOW) is one


@pytest.mark.parametrize(
    ("found", "is_excused"),
    [
        (match(), True),
        (match("GHSA-h75v-3vvj-5mfj"), True),
        (match("GHSA-aaaa-aaaa-aaaa", "CVE-2024-34064"), True),
        (match("CVE-2024-34065"), False),
        (match(purl="pkg:pypi/Jinja2@3.1.2?os=linux"), True),
        (match(purl="pkg:pypi/jinja2@3.1.3"), False),
        (match(purl="pkg:npm/jinja2@3.1.2"), False),
        (match(purl=""), False),
    ],
)
def test_it_is_about_one_vulnerability_by_any_of_its_names_in_one_package(
    tmp_path: Path, found: Match, is_excused: bool
):
    read_back = read(tmp_path, signed(document()))
    assert read_back.refused == ()
    assert (read_back.excusing(found, {IMAGE}, NOW) is not None) == is_excused


def test_without_a_package_it_holds_in_the_whole_image_and_a_package_without_a_version_in_all_of_its(tmp_path: Path):
    everywhere = read(tmp_path, made())
    assert everywhere.excusing(match(purl=""), {IMAGE}, NOW) is not None
    any_version = read(tmp_path, made(purl="pkg:pypi/jinja2"))
    assert any_version.excusing(match(purl="pkg:pypi/jinja2@9"), {IMAGE}, NOW) is not None
    assert any_version.excusing(match(purl="pkg:pypi/other@9"), {IMAGE}, NOW) is None


def test_of_several_the_one_that_lasts_longest_is_named(tmp_path: Path):
    found = read(tmp_path, made(expires_at=NOW + 5 * DAY), made(expires_at=NOW + 50 * DAY), made())
    chosen = found.excusing(match(), {IMAGE}, NOW)
    assert chosen is not None
    assert chosen.expires_at == NOW + 50 * DAY


def test_fixed_needs_no_justification(tmp_path: Path):
    assert len(read(tmp_path, made(status="fixed", justification="")).valid) == 1


def _statement(**changes: Any) -> Callable[[], bytes]:
    def build() -> bytes:
        whole = document()
        whole["statements"][0] |= changes
        whole["statements"][0] = {key: value for key, value in whole["statements"][0].items() if value is not None}
        return signed(whole)

    return build


def _flipped() -> bytes:
    envelope = json.loads(signed(document()))
    payload = base64.b64decode(envelope["payload"]).replace(b"CVE-2024-34064", b"CVE-2024-34065")
    return json.dumps(envelope | {"payload": base64.b64encode(payload).decode()}).encode()


def _product(**members: Any) -> list[dict[str, Any]]:
    return [members]


REFUSED: list[tuple[Callable[[], bytes], str]] = [
    (_statement(expires=None), "does not say when it expires"),
    (_statement(expires="2026-03-02T10:00:00Z"), "has expired at 2026-03-02T10:00:00Z"),
    (_statement(expires="2026-06-01T00:00:00Z"), "allowed: 90 days after 2026-03-01T00:00:00Z at most"),
    (_statement(expires="some day"), "expires: found 'some day', allowed: a time"),
    (_statement(expires="2026-05-01T00:00:00"), "with its zone"),
    (_statement(timestamp="2026-03-03T00:00:00Z"), "found the timestamp 2026-03-03T00:00:00Z"),
    (_statement(status="under_investigation"), "'under_investigation' excuses nothing"),
    (_statement(status="affected"), "'affected' excuses nothing"),
    (_statement(status=None), "'' excuses nothing"),
    (_statement(justification=None), "found the justification '', allowed: component_not_present"),
    (_statement(justification="trust me"), "found the justification 'trust me'"),
    (_statement(vulnerability={"name": "*"}), "found the vulnerability '\\*'"),
    (_statement(vulnerability={}), "found the vulnerability ''"),
    (_statement(vulnerability={"name": "CVE-24-1"}), "found the vulnerability 'CVE-24-1'"),
    (_statement(vulnerability={"name": "CVE-2024-34064", "aliases": ["all"]}), "found the vulnerability 'all'"),
    (_statement(products=[]), "found no products"),
    (_statement(products=_product(**{"@id": "*"})), "found the product '\\*', allowed: one image by its digest"),
    (_statement(products=_product(**{"@id": "pkg:oci/app"})), "allowed: one image by its digest"),
    (_statement(products=_product(**{"@id": "pkg:oci/app@latest"})), "allowed: one image by its digest"),
    (_statement(products=_product(**{"@id": f"pkg:oci/app@{OTHER}"})), "is another image than was signed for"),
    (
        _statement(products=_product(**{"@id": f"pkg:oci/app@{IMAGE}", "hashes": {"sha-256": "b" * 64}})),
        "allowed: one image by its digest",
    ),
    (
        _statement(products=_product(**{"@id": f"pkg:oci/app@{IMAGE}", "subcomponents": [{"@id": "jinja2"}]})),
        "found the subcomponent 'jinja2', allowed: a package URL",
    ),
    (
        _statement(products=_product(**{"@id": f"pkg:oci/app@{IMAGE}", "subcomponents": [{"@id": "pkg:pypi/*"}]})),
        "found the subcomponent",
    ),
    (lambda: signed(document(), signer=STRANGER), "by none of the keys that are trusted"),
    (lambda: signed(document(), image=OTHER), "is another image than was signed for"),
    (lambda: signed(document(), kind="https://slsa.dev/provenance/v1"), "allowed: https://openvex.dev/ns/v0.2.0"),
    (lambda: signed(document() | {"@context": "https://openvex.dev/ns/v0.0.1"}), "allowed: https://openvex.dev"),
    (lambda: signed(document() | {"statements": []}), "found no statement in it"),
    (lambda: signed(document() | {"author": ""}), "author: found '', allowed: a text"),
    (lambda: signed(document() | {"statements": [7]}), "found 7, allowed: an object"),
    (_flipped, "by none of the keys that are trusted"),
    (lambda: json.dumps(document()).encode(), "found no statement about a sha256 digest in a DSSE envelope"),
    (lambda: b"", "found no signed statement"),
    (lambda: signed(document())[:-20], "found no signed statement"),
    (lambda: b'{"payload": "e30="}', "found no signed statement"),
    (lambda: b'{"payload": "not base64!"}', "found no signed statement"),
    (lambda: b"[1]", "found no statement about"),
    (lambda: b" " * (1 << 21), "larger than 1,048,576 bytes"),
]


@pytest.mark.parametrize(("envelope", "reason"), REFUSED, ids=[reason[:40] for _, reason in REFUSED])
def test_what_is_not_accepted_is_named_with_its_reason_and_excuses_nothing(
    tmp_path: Path, envelope: Callable[[], bytes], reason: str
):
    found = read(tmp_path, envelope())
    assert found.valid == ()
    (refused,) = found.refused
    assert refused.file == "0.json"
    with pytest.raises(ValueError, match=reason):
        raise ValueError(refused.reason)
    assert found.excusing(match(), {IMAGE}, NOW) is None


def test_one_bad_statement_does_not_spoil_the_others_and_each_product_stands_for_itself(tmp_path: Path):
    whole = document()
    good = whole["statements"][0]
    good["products"].append({"@id": "app", "hashes": {"sha-256": "a" * 64}})
    whole["statements"] = [good | {"status": "affected"}, good]
    found = read(tmp_path, signed(whole))
    assert [each.purls for each in found.valid] == [(JINJA,), ()]
    assert [each.reason[:13] for each in found.refused] == ["statements[0]"]


def test_what_is_made_is_openvex_but_for_its_end():
    payload = json.loads(base64.b64decode(json.loads(made(purl=JINJA))["payload"]))
    vex = payload["predicate"]
    assert (payload["predicateType"], payload["subject"][0]["digest"]) == (OPENVEX, {"sha256": "a" * 64})
    assert sorted(vex) == ["@context", "@id", "author", "statements", "timestamp", "version"]
    assert vex["statements"] == [
        {
            "vulnerability": {"name": "CVE-2024-34064"},
            "timestamp": "2026-03-02T10:00:00Z",
            "expires": "2026-04-01T10:00:00Z",
            "products": [
                {
                    "@id": f"pkg:oci/app@sha256%3A{'a' * 64}",
                    "hashes": {"sha-256": "a" * 64},
                    "subcomponents": [{"@id": JINJA}],
                }
            ],
            "status": "not_affected",
            "justification": "vulnerable_code_not_in_execute_path",
            "status_notes": "xmlattr is not used",
        }
    ]


def test_only_an_acceptable_exception_is_made():
    for changes, said in (
        ({"expires_at": NOW + 91 * DAY}, "90 days after"),
        ({"vulnerability": "all"}, "found the vulnerability 'all'"),
        ({"image_digest": "latest"}, "no statement about a sha256 digest"),
        ({"justification": ""}, "found the justification ''"),
        ({"purl": "jinja2"}, "found the subcomponent 'jinja2'"),
    ):
        with pytest.raises(BadInput, match=said):
            made(**changes)


def test_no_folder_and_other_files_are_no_exceptions(tmp_path: Path):
    (tmp_path / "README.md").write_text("how to")
    assert read(tmp_path) == Exceptions()
    assert exceptions.read_folder(tmp_path / "absent", [SIGNER.public], NOW) == Exceptions()
