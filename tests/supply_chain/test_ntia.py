"""NTIA's minimum elements: each one taken away is missed by both counts."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from greenops_pipelines.errors import ProviderError
from greenops_pipelines.supply_chain import ntia

COMPLETE: dict[str, Any] = {
    "spdxVersion": "SPDX-2.3",
    "dataLicense": "CC0-1.0",
    "SPDXID": "SPDXRef-DOCUMENT",
    "name": "image",
    "documentNamespace": "https://example.org/sbom/1",
    "creationInfo": {"creators": ["Organization: ACME"], "created": "2024-05-06T07:08:09Z"},
    "packages": [
        {
            "SPDXID": f"SPDXRef-{name}",
            "name": name,
            "versionInfo": "1.0",
            "supplier": "Organization: ACME",
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False,
            "externalRefs": [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": f"pkg:generic/{name}@1.0",
                }
            ],
        }
        for name in ("image", "one", "two")
    ],
    "relationships": [
        {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-image"},
        {"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS", "relatedSpdxElement": "SPDXRef-one"},
        {"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS", "relatedSpdxElement": "SPDXRef-two"},
        {"spdxElementId": "SPDXRef-two", "relationshipType": "DEPENDENCY_OF", "relatedSpdxElement": "SPDXRef-one"},
    ],
}
SAME: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "metadata": {
        "timestamp": "2024-05-06T07:08:09Z",
        "authors": [{"name": "ACME"}],
        "component": {
            "bom-ref": "image",
            "name": "image",
            "version": "1.0",
            "supplier": {"name": "ACME"},
            "purl": "pkg:generic/image@1.0",
        },
    },
    "components": [
        {
            "bom-ref": name,
            "type": "library",
            "name": name,
            "version": "1.0",
            "supplier": {"name": "ACME"},
            "purl": f"pkg:generic/{name}@1.0",
        }
        for name in ("one", "two")
    ]
    + [{"bom-ref": "os", "type": "operating-system", "name": "debian"}],
    "dependencies": [{"ref": "image", "dependsOn": ["one"]}, {"ref": "one", "dependsOn": ["two"]}],
}


def edited(document: dict[str, Any], change: Callable[[Any], object]) -> bytes:
    copy = json.loads(json.dumps(document))
    change(copy)
    return json.dumps(copy).encode()


def nothing(document: Any) -> None:
    pass


def test_a_complete_pair_is_conformant_and_the_image_counts_as_a_component():
    found = ntia.conformance(edited(COMPLETE, nothing), edited(SAME, nothing))
    assert found == ntia.Ntia(True, 3, {})
    assert str(found) == "3 components, all minimum elements"


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda d: d["packages"][1].pop("supplier"), {"supplier": ("one",)}),
        (lambda d: d["packages"][1].update(supplier="NOASSERTION"), {"supplier": ("one",)}),
        (lambda d: d["packages"][0].pop("supplier"), {"supplier": ("image",)}),
        (lambda d: d["packages"][2].pop("versionInfo"), {"version": ("two",)}),
        # What the graph does not reach is left out by the checker, which is then content.
        (lambda d: d["relationships"].__delitem__(slice(2, 4)), {"relationship": ("SPDXRef-two",)}),
    ],
)
def test_what_the_spdx_document_lacks_is_told_by_element_and_component(
    change: Callable[[Any], object], missing: dict[str, tuple[str, ...]]
):
    found = ntia.conformance(edited(COMPLETE, change))
    assert (found.is_conformant, dict(found.missing)) == (False, missing)
    assert not ntia.conformance(edited(COMPLETE, change), edited(SAME, nothing)).is_conformant


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["creationInfo"].pop("creators"),
        lambda d: d["creationInfo"].pop("created"),
        lambda d: d["packages"][1].pop("name"),
        lambda d: d["packages"][1].update(SPDXID="not an identifier"),
        lambda d: d["relationships"].pop(0),
        lambda d: d["relationships"].append({**d["relationships"][1], "relatedSpdxElement": "SPDXRef-gone"}),
        lambda d: d["packages"][1].update(supplier="ACME without its kind"),
        lambda d: d.clear(),
    ],
)
def test_a_document_that_breaks_its_formats_rules_is_not_conformant(change: Callable[[Any], object]):
    found = ntia.conformance(edited(COMPLETE, change))
    assert not found.is_conformant
    assert found.missing


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda d: d["components"][0].pop("supplier"), {"supplier": ("one",)}),
        (lambda d: d["components"][0].update(supplier={"name": ""}), {"supplier": ("one",)}),
        (lambda d: d["components"][0].update(name=" "), {"name": ("one",)}),
        (lambda d: d["components"][1].pop("version"), {"version": ("two",)}),
        (lambda d: d["components"][1].pop("purl"), {"identifier": ("two",)}),
        (lambda d: d["dependencies"].pop(1), {"relationship": ("two",)}),
        (lambda d: d["dependencies"].pop(0), {"relationship": ("one", "two")}),
        (lambda d: d["metadata"].pop("authors"), {"author": ("document",)}),
        (lambda d: d["metadata"].pop("timestamp"), {"timestamp": ("document",)}),
        (lambda d: d["metadata"]["component"].pop("version"), {"version": ("image",)}),
    ],
)
def test_our_own_count_misses_each_of_the_seven_elements(
    change: Callable[[Any], object], missing: dict[str, tuple[str, ...]]
):
    document = edited(SAME, change)
    assert ntia.count(document) == ntia.Ntia(False, 3, missing)
    assert ntia.conformance(edited(COMPLETE, nothing), document) == ntia.Ntia(False, 3, missing)


def test_documents_of_two_images_are_not_counted_as_one():
    more = edited(SAME, lambda d: d["components"].append({**d["components"][0], "bom-ref": "three"}))
    with pytest.raises(ProviderError, match="found 4 components in CycloneDX and 3 in SPDX"):
        ntia.conformance(edited(COMPLETE, nothing), more)


@pytest.mark.parametrize("document", [b"", b"[]", b'{"bomFormat": "SPDX"}'])
def test_what_is_no_cyclonedx_is_refused(document: bytes):
    with pytest.raises(ProviderError, match=r"^SBOM: "):
        ntia.count(document)


def test_the_checker_neither_writes_to_our_log_nor_changes_it(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    before = list(logging.getLogger().handlers)
    ntia.conformance(edited(COMPLETE, lambda d: d["relationships"].__delitem__(slice(2, 4))))
    ntia.conformance(edited(COMPLETE, lambda d: d["relationships"][1].update(relatedSpdxElement="SPDXRef-gone")))
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == before
