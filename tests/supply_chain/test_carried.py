"""What wheels carry by their own SBOMs: each component once, a document whole or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from greenops_pipelines.supply_chain import carried
from greenops_pipelines.supply_chain.suppliers import Supplier, of_carried

ONE, TWO = "/one-1.0.dist-info/sboms/a.cdx.json", "/two-2.0.dist-info/sboms/deep/b.cdx.json"


def document(*components: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"bomFormat": "CycloneDX", "components": list(components)} | more).encode()


def component(name: str = "heck", purl: str = "pkg:cargo/heck@0.5.0", **more: Any) -> dict[str, Any]:
    return {"type": "library", "name": name, "version": "0.5.0", "purl": purl} | more


def test_a_component_in_two_wheels_is_one_with_all_that_either_says():
    first = component(hashes=[{"alg": "MD5", "content": "00"}])
    second = component(author="Ada <ada@example.org>", hashes=[{"alg": "SHA-256", "content": "AB" * 32}])
    (found,), faults = carried.read({TWO: document(second), ONE: document(first)})
    assert faults == ()
    assert found.wheels == ("/one-1.0.dist-info/METADATA", "/two-2.0.dist-info/METADATA")
    assert found.sources == (ONE, TWO)
    assert (found.sha256, found.people) == ("ab" * 32, ("Ada <ada@example.org>",))


def test_nested_components_count_and_the_wheel_itself_files_and_operating_systems_do_not():
    wheel = component("one", "pkg:pypi/one@1.0?file_name=one.whl", version="1.0")
    centos = component("centos", "", type="operating-system")
    deep = component(
        "a", "pkg:cargo/a@1", components=[component("b", "pkg:cargo/b@1"), component("c", "", type="file")]
    )
    found, _ = carried.read({ONE: document(wheel, centos, deep, metadata={"component": wheel})})
    assert [each.name for each in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("purl", "expected"),
    [
        ("pkg:cargo/a@1?download_url=file://../a", "pkg:cargo/a@1"),
        ("pkg:cargo/a@1?download_url=file://.#src/lib.rs", "pkg:cargo/a@1"),
        ("pkg:pypi/a@1?file_name=a.whl&x=y", "pkg:pypi/a@1?x=y"),
        (
            "pkg:generic/a@1?download_url=https://example.org/a.tar",
            "pkg:generic/a@1?download_url=https://example.org/a.tar",
        ),
    ],
)
def test_folders_of_whoever_built_a_wheel_are_left_out_of_package_urls(purl: str, expected: str):
    (found,), _ = carried.read({ONE: document(component(purl=purl))})
    assert found.purl == expected


def test_the_same_crate_from_a_registry_and_from_a_repository_are_two():
    forked = component(purl="pkg:cargo/heck@0.5.0?vcs_url=git%2Bhttps://github.com/own/heck.git%40ab")
    found, _ = carried.read({ONE: document(component(), forked)})
    assert len(found) == len({each.ref for each in found}) == len({each.spdx_id for each in found}) == 2


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"{", "Expecting property name"),
        (b"[]", "found another document, allowed: CycloneDX JSON"),
        (b'{"bomFormat": "CycloneDX", "bomFormat": "CycloneDX"}', "stands twice"),
        (document() + b" " * (16 << 20), "allowed: up to 16,777,216"),
        (document(component(), component(name="")), "found a component without a name"),
        (document(component(), component(purl=7)), "purl: found '7', allowed: a text"),
        (document(component(version="1" * 1001)), "version: found"),
        (document(component(licenses="MIT")), "licenses: found 'MIT', allowed: a list of objects"),
        (document(component(components=[1])), "components: found"),
        (document(*[component()] * 50_001), "found more than 50,000 components"),
    ],
)
def test_a_bad_document_is_told_and_the_others_are_read(data: bytes, told: str):
    found, (fault,) = carried.read({ONE: data, TWO: document(component("good", "pkg:cargo/good@1"))})
    assert [each.name for each in found] == ["good"]
    assert fault.startswith(f"{ONE}: ")
    assert told in fault


def test_licences_are_told_as_each_format_allows_and_what_nobody_says_is_left_out():
    mixed = [{"license": {"id": "MIT"}}, {"license": {"name": "Own words"}}]
    found, _ = carried.read({ONE: document(component("a", "", licenses=mixed), component("b", "pkg:cargo/b@1"))})
    first, second = (each.as_cyclonedx(None) for each in found)
    assert first["licenses"] == [{"license": {"name": "MIT"}}, {"license": {"name": "Own words"}}]
    assert "purl" not in first
    assert set(second) == {"bom-ref", "type", "name", "version", "purl", "properties"}
    assert found[0].as_spdx(None)["supplier"] == "NOASSERTION"
    assert "externalRefs" not in found[0].as_spdx(None)


WHEEL = Supplier("The Wheel Team", "metadata")


@pytest.mark.parametrize(
    ("people", "purl", "urls", "is_local", "expected"),
    [
        (
            ["", "Ada Lovelace <ada@example.org>"],
            "pkg:cargo/a@1",
            [],
            False,
            Supplier("Ada Lovelace", "metadata", True),
        ),
        ([], "pkg:cargo/a@1", ["https://github.com/own/a"], False, Supplier("crates.io", "registry")),
        ([], "pkg:rpm/centos/a@1", [], False, Supplier("centos", "registry")),
        ([], "pkg:cargo/a@1", [], True, Supplier("The Wheel Team", "carrier")),
        (
            [],
            "pkg:cargo/a@1?vcs_url=x",
            ["git+https://github.com/own/a.git@1"],
            False,
            Supplier("github.com/own", "repository"),
        ),
        ([], "pkg:generic/a@1", ["https://github.com/own/a/a.tar"], False, Supplier("github.com/own", "repository")),
        ([], "pkg:generic/a@1", ["https://example.org/a.tar"], False, Supplier("The Wheel Team", "carrier")),
        (["<ada@example.org>"], "", [], False, Supplier("The Wheel Team", "carrier")),
    ],
)
def test_the_supplier_of_what_a_wheel_carries(
    people: list[str], purl: str, urls: list[str], is_local: bool, expected: Supplier
):
    assert of_carried(people, purl, urls, WHEEL, is_local=is_local) == expected
    if expected.source == "carrier":
        assert of_carried(people, purl, urls, None, is_local=is_local) is None
