"""SBOMs: the same bytes for the same image, valid in both formats, right about what Syft leaves open."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from greenops_pipelines.errors import ProviderError, TransientError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.supply_chain import components, environment, ntia, sample_image, sbom, syft
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import OCI_CONFIG, OCI_MANIFEST, digest_of
from greenops_pipelines.supply_chain.suppliers import Supplier

NAME = "registry.example/team/app"

DPKG = """Package: libssl3
Status: install ok installed
Maintainer: Debian OpenSSL Team <pkg-openssl-devel@alioth-lists.debian.net>
Architecture: amd64
Version: 3.0.11-1
Depends: libc6

Package: libc6
Status: install ok installed
Maintainer: Ada Lovelace <ada@debian.org>
Architecture: amd64
Version: 2.36-9
"""
FILES = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n',
    "var/lib/dpkg/status": DPKG,
    "site/a-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: A\nVersion: 1.0\nAuthor: Ada Lovelace\n"
    "Author-email: ada@example.org\nRequires-Dist: b_b (>=1)\nRequires-Dist: c; extra == 'x'\nRequires-Dist: gone\n",
    "site/b_b-2.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: b-b\nVersion: 2.0\n",
    "site/c-3.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: c\nVersion: 3.0\nHome-page: https://github.com/own/c\n",
    "node/node_modules/left/package.json": '{"name": "left", "version": "1.0.0", "license": "MIT"}',
}


def build(place: Path, created: str = "2024-05-06T09:08:09.123456789+02:00") -> str:
    """An image with Debian, Python and npm packages in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))
    layout = Layout(place, create=True)
    labels = {"org.opencontainers.image.vendor": "ACME GmbH"}
    rootfs = {"type": "layers", "diff_ids": [digest_of(out.getvalue())]}
    # Another architecture than most machines that run the tests.
    config = {
        "architecture": "s390x",
        "os": "linux",
        "created": created,
        "rootfs": rootfs,
        "config": {"Labels": labels},
    }
    layer = layout.put_blob(out.getvalue(), "application/vnd.oci.image.layer.v1.tar")
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": layout.put_blob(json.dumps(config).encode(), OCI_CONFIG).as_document(),
        "layers": [layer.as_document()],
    }
    return layout.put_manifest(json.dumps(manifest).encode(), OCI_MANIFEST, "app").digest


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, sbom.Sbom]:
    folder = tmp_path_factory.mktemp("made")
    digest = build(folder / "layout")
    # A second image in the same layout, as attachments are.
    sample_image.build(folder / "layout")
    return digest, sbom.of_image(folder / "layout", digest, folder, name=NAME)


def by_name(found: sbom.Sbom) -> dict[str, Any]:
    return {each["name"]: each for each in json.loads(found.cyclonedx)["components"]}


def test_another_scan_elsewhere_gives_the_same_bytes(made, tmp_path: Path):
    digest, found = made
    assert build(tmp_path / "another folder") == digest
    again = sbom.of_image(tmp_path / "another folder", digest, tmp_path, name=NAME)
    assert again == found
    assert canonical.loads(found.cyclonedx)
    assert canonical.loads(found.spdx)


def test_both_documents_are_valid_and_have_the_minimum_elements(made, tmp_path: Path):
    _, found = made
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(found.cyclonedx.decode()) is None
    path = tmp_path / "sbom.spdx.json"
    path.write_bytes(found.spdx)
    assert validate_full_spdx_document(parse_file(str(path))) == []
    assert ntia.conformance(found.spdx, found.cyclonedx).is_conformant


def test_the_images_digest_name_and_moment_stand_in_both(made):
    digest, found = made
    hexadecimal = digest.removeprefix("sha256:")
    bom, spdx = json.loads(found.cyclonedx), json.loads(found.spdx)
    purl = f"pkg:oci/app@sha256%3A{hexadecimal}?repository_url=registry.example/team/app"
    subject = bom["metadata"]["component"]
    assert (subject["bom-ref"], subject["purl"], subject["version"]) == (purl, purl, digest)
    assert subject["hashes"] == [{"alg": "SHA-256", "content": hexadecimal}]
    assert subject["supplier"] == {"name": "ACME GmbH"}
    assert bom["metadata"]["timestamp"] == spdx["creationInfo"]["created"] == "2024-05-06T07:08:09Z"
    assert bom["metadata"]["authors"] == [{"name": "greenops-pipelines"}]
    root = next(each for each in spdx["packages"] if each["SPDXID"] == "SPDXRef-Image")
    assert root["checksums"] == [{"algorithm": "SHA256", "checksumValue": hexadecimal}]
    assert (root["versionInfo"], root["supplier"]) == (digest, "Organization: ACME GmbH")
    assert {"name": "greenops:timestamp:source", "value": "image"} in bom["metadata"]["properties"]
    assert spdx["creationInfo"]["comment"] == "greenops:timestamp:source=image"


def test_the_ids_of_both_documents_are_those_of_their_content(made):
    digest, found = made
    bom, spdx = json.loads(found.cyclonedx), json.loads(found.spdx)
    told, serial = spdx.pop("documentNamespace"), bom.pop("serialNumber")
    where = f"https://greenops-pipelines.example/sbom/{digest}"
    assert told == f"{where}/{hashlib.sha256(canonical.dumps(spdx)).hexdigest()}"
    of_content = f"{where}/{hashlib.sha256(canonical.dumps(bom)).hexdigest()}"
    assert serial == f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, of_content)}"


def test_packages_of_every_kind_have_their_supplier_and_say_where_it_is_from(made):
    found = by_name(made[1])
    told = {
        name: (
            each["supplier"]["name"],
            next(p["value"] for p in each["properties"] if p["name"] == "greenops:supplier:source"),
        )
        for name, each in found.items()
        if each["type"] != "operating-system"
    }
    assert told == {
        "libssl3": ("Debian OpenSSL Team", "metadata"),
        "libc6": ("Ada Lovelace", "metadata"),
        "a": ("Ada Lovelace", "metadata"),
        "b-b": ("PyPI", "registry"),
        "c": ("github.com/own", "repository"),
        "left": ("npm", "registry"),
    }
    spdx = {each["name"]: each for each in json.loads(made[1].spdx)["packages"]}
    assert (spdx["a"]["supplier"], spdx["b-b"]["supplier"]) == ("Person: Ada Lovelace", "Organization: PyPI")
    assert "greenops:supplier:source=registry" in spdx["b-b"]["comment"]
    assert "originator" not in spdx["b-b"]


def test_needs_between_packages_are_those_their_metadata_states_in_both_documents(made):
    bom, spdx = json.loads(made[1].cyclonedx), json.loads(made[1].spdx)
    names = {each["bom-ref"]: each["name"] for each in bom["components"]}
    needs = {names.get(e["ref"], "image"): [names[r] for r in e["dependsOn"]] for e in bom["dependencies"]}
    assert sorted(needs.pop("image")) == ["a", "b-b", "c", "left", "libc6", "libssl3"]
    assert needs == {"a": ["b-b"], "b-b": [], "c": [], "left": [], "libc6": [], "libssl3": ["libc6"]}
    names = {each["SPDXID"]: each["name"] for each in spdx["packages"]}
    told = [
        (names[r["relatedSpdxElement"]], names[r["spdxElementId"]])
        for r in spdx["relationships"]
        if r["relationshipType"] == "DEPENDENCY_OF"
    ]
    assert sorted(told) == [("a", "b-b"), ("libssl3", "libc6")]


def test_no_address_of_a_person_no_path_of_this_machine_and_no_made_up_checksum_gets_in(made):
    for document in (made[1].cyclonedx, made[1].spdx):
        for text in (b"ada@", b"@debian.org", b"@alioth", b"/tmp", b"0" * 40, b"anchore.com"):
            assert text not in document
    assert "files" not in json.loads(made[1].spdx)


def test_guessed_cpes_are_left_out_where_advisories_go_by_package_url_and_kept_elsewhere(made):
    found = by_name(made[1])
    assert "cpe" not in found["a"]
    assert found["libssl3"]["cpe"].startswith("cpe:2.3:a:libssl3:libssl3:3.0.11-1:")
    assert "cpe:2.3" not in json.dumps(found["a"])
    spdx = {
        each["name"]: {r["referenceType"] for r in each["externalRefs"]}
        for each in json.loads(made[1].spdx)["packages"]
    }
    assert (spdx["a"], spdx["libssl3"]) == ({"purl"}, {"purl", "cpe23Type"})


def test_what_reads_components_reads_these(made):
    found = components.read(made[1].cyclonedx)
    assert found.distribution == components.Distribution("debian", "12")
    assert {each.name for each in found.packages} == set(by_name(made[1])) - {"debian"}
    assert next(each for each in found.packages if each.name == "c").path == "/site/c-3.0.dist-info/METADATA"
    assert made[1].components == len(found.packages) == 6


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> syft.Scan:
    info = tmp_path_factory.mktemp("raw") / "packages" / "demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    return syft.scan(f"dir:{info.parent}", info.parent.parent, name="x", version="1")


DIGEST = "sha256:" + "ab" * 32


def edited(document: bytes, change: Callable[[Any], object]) -> bytes:
    found = json.loads(document)
    change(found)
    return json.dumps(found).encode()


def test_the_order_ids_and_moments_of_syft_make_no_difference(raw: syft.Scan):
    first = sbom.normalise(raw.cyclonedx, raw.spdx, digest=DIGEST, name="x")

    def otherwise(document: Any) -> None:
        for key in ("components", "packages", "relationships"):
            document.get(key, []).reverse()
        for key in ("serialNumber", "documentNamespace"):
            if key in document:
                document[key] = "another"

    syft_id = json.loads(raw.cyclonedx)["components"][0]["bom-ref"][-16:].encode()
    other = [edited(d, otherwise).replace(syft_id, b"0123456789abcdef") for d in (raw.cyclonedx, raw.spdx)]
    assert sbom.normalise(*other, digest=DIGEST, name="x") == first


def test_two_components_that_cannot_be_told_apart_keep_a_reference_each(raw: syft.Scan):
    old = json.loads(raw.cyclonedx)["components"][0]["bom-ref"][-16:]

    def twice(document: Any) -> None:
        for key in ("components", "packages"):
            if key in document:
                document[key].append(json.loads(json.dumps(document[key][0]).replace(old, "0123456789abcdef")))

    found = sbom.normalise(edited(raw.cyclonedx, twice), edited(raw.spdx, twice), digest=DIGEST, name="x")
    assert len({each["bom-ref"] for each in json.loads(found.cyclonedx)["components"]}) == 2
    assert len({each["SPDXID"] for each in json.loads(found.spdx)["packages"]}) == 3


def test_another_image_name_tool_or_content_has_another_id_in_both_formats(raw: syft.Scan):
    def ids(cyclonedx: bytes = raw.cyclonedx, spdx: bytes = raw.spdx, digest: str = DIGEST, **more: Any) -> list[str]:
        found = sbom.normalise(cyclonedx, spdx, digest=digest, **({"name": "x"} | more))
        return [json.loads(found.cyclonedx)["serialNumber"], json.loads(found.spdx)["documentNamespace"]]

    newer = raw.cyclonedx.replace(b'"version":"1.18.1"', b'"version":"1.19.0"')
    others = [
        ids(),
        ids(digest="sha256:" + "cd" * 32),
        ids(name="y"),
        ids(newer),
        ids(supplier=Supplier("me", "metadata")),
        ids(created="2024-01-01T00:00:00Z"),
    ]
    assert all(len(set(of_format)) == len(others) for of_format in zip(*others, strict=True))
    assert ids() == others[0]


def test_an_image_without_a_moment_gets_1970_and_one_with_a_wrong_one_is_refused(raw: syft.Scan):
    found = sbom.normalise(raw.cyclonedx, raw.spdx, digest=DIGEST, name="x")
    metadata, creation = json.loads(found.cyclonedx)["metadata"], json.loads(found.spdx)["creationInfo"]
    assert metadata["timestamp"] == creation["created"] == "1970-01-01T00:00:00Z"
    assert metadata["properties"] == [{"name": "greenops:timestamp:source", "value": "none: reproducible epoch"}]
    assert creation["comment"] == "greenops:timestamp:source=none: reproducible epoch"
    with pytest.raises(ProviderError, match="image: found created 'yesterday'"):
        sbom.normalise(raw.cyclonedx, raw.spdx, digest=DIGEST, name="x", created="yesterday")


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("greenops-pipelines/sample", ""),
        ("x", ""),
        ("registry.example/team/x", "?repository_url=registry.example/team/x"),
        ("localhost/x", "?repository_url=localhost/x"),
        ("registry:5000/x", "?repository_url=registry%3A5000/x"),
    ],
)
def test_only_a_name_with_a_registry_has_its_address_in_the_package_url(raw: syft.Scan, name: str, ending: str):
    found = sbom.normalise(raw.cyclonedx, raw.spdx, digest=DIGEST, name=name)
    purl = json.loads(found.cyclonedx)["metadata"]["component"]["purl"]
    assert purl == f"pkg:oci/{name.rpartition('/')[2]}@sha256%3A{'ab' * 32}{ending}"


@pytest.mark.parametrize("version", ["", "UNKNOWN", "(devel)"])
def test_a_component_without_a_version_has_none_and_is_named(raw: syft.Scan, version: str):
    cyclonedx = edited(raw.cyclonedx, lambda d: d["components"][0].update(version=version))
    spdx = edited(raw.spdx, lambda d: d["packages"][0].update(versionInfo=version))
    found = sbom.normalise(cyclonedx, spdx, digest=DIGEST, name="x", supplier=Supplier("me", "metadata"))
    assert found.without_version == ("demo",)
    assert "version" not in by_name(found)["demo"]
    assert ntia.conformance(found.spdx, found.cyclonedx).missing == {"version": ("demo",)}


def test_a_component_that_nobody_supplies_is_named(raw: syft.Scan):
    cyclonedx = edited(raw.cyclonedx, lambda d: d["components"][0].update(purl="pkg:unheard/demo@1.0"))
    found = sbom.normalise(cyclonedx, raw.spdx, digest=DIGEST, name="x", supplier=Supplier("me", "metadata"))
    assert found.without_supplier == ("demo",)
    assert "supplier" not in by_name(found)["demo"]
    assert ntia.conformance(found.spdx, found.cyclonedx).missing == {"supplier": ("demo",)}


def test_a_local_address_is_dropped_and_a_public_one_kept(raw: syft.Scan):
    references = [{"url": "file:///home/me", "type": "vcs"}, {"url": "https://example.org", "type": "website"}]
    cyclonedx = edited(raw.cyclonedx, lambda d: d["components"][0].update(externalReferences=references))
    found = sbom.normalise(cyclonedx, raw.spdx, digest=DIGEST, name="x")
    assert by_name(found)["demo"]["externalReferences"] == references[1:]


@pytest.mark.parametrize(
    ("cyclonedx", "spdx", "told"),
    [
        (lambda d: d.update(bomFormat="other"), lambda d: None, "allowed: CycloneDX JSON"),
        (lambda d: None, lambda d: d.update(spdxVersion="SPDX-2.2"), "allowed: SPDX-2.3 JSON"),
        (lambda d: d["metadata"].pop("tools"), lambda d: None, "found another tool's document"),
        (lambda d: d.update(components=[]), lambda d: None, "in the SPDX document alone"),
        (lambda d: None, lambda d: d["packages"].pop(0), "found other packages in the SPDX document"),
        (lambda d: None, lambda d: d.update(relationships=[]), "found other packages|allowed: one that ends with"),
        (lambda d: d["components"][0].update({"bom-ref": "demo"}), lambda d: None, "one that ends with Syft's id"),
    ],
)
def test_documents_that_do_not_belong_together_are_refused(
    raw: syft.Scan, cyclonedx: Callable[[Any], object], spdx: Callable[[Any], object], told: str
):
    with pytest.raises(ProviderError, match=told):
        sbom.normalise(edited(raw.cyclonedx, cyclonedx), edited(raw.spdx, spdx), digest=DIGEST, name="x")


def test_a_document_of_another_image_is_refused(raw: syft.Scan):
    other = {"referenceLocator": "pkg:oci/x@sha256:" + "cd" * 32 + "?arch=", "referenceType": "purl"}
    spdx = edited(raw.spdx, lambda d: d["packages"][-1].update(externalRefs=[other]))
    with pytest.raises(ProviderError, match=f"found that of sha256:{'cd' * 32}, allowed: that of {DIGEST}"):
        sbom.normalise(raw.cyclonedx, spdx, digest=DIGEST, name="x")


def test_a_damaged_image_never_reaches_syft(tmp_path: Path):
    digest = build(tmp_path / "layout")
    layer = Layout(tmp_path / "layout").manifest(digest).layers[0]
    path = tmp_path / "layout" / "blobs" / "sha256" / layer.digest.removeprefix("sha256:")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ProviderError, match=r"layer 1 of 1 .* as described"):
        sbom.of_image(tmp_path / "layout", digest, tmp_path, name=NAME, program="no-such-syft")


def wheel(folder: Path, name: str, version: str, **sboms: str) -> Path:
    """An installed distribution, with SBOMs of what it carries."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    (info / "sboms").mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nAuthor: {name} Team\n")
    lines = ["x.py,,"]
    for stem, text in sboms.items():
        (info / "sboms" / f"{stem}.cdx.json").write_text(text)
        told = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        lines.append(f"{info.name}/sboms/{stem}.cdx.json,sha256={told},{len(text)}")
    (info / "RECORD").write_text("".join(f"{line}\n" for line in lines))
    return info


def bill(packages: Path, folder: Path) -> sbom.Sbom:
    expected = environment.digest(environment.inventory(packages))
    return environment.bill(expected, folder, packages=packages)


def listing(*components: dict[str, Any], **more: Any) -> str:
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "components": list(components)} | more)


OPENSSL = {
    "type": "library",
    "name": "openssl",
    "version": "4.0.3",
    "purl": "pkg:generic/openssl@4.0.3?download_url=https://github.com/openssl/openssl/releases/openssl-4.0.3.tar.gz",
    "hashes": [{"alg": "SHA-256", "content": "32" * 32}],
    "licenses": [{"expression": "Apache-2.0"}],
}
HECK = {"type": "library", "name": "heck", "version": "0.5.0", "purl": "pkg:cargo/heck@0.5.0"}
LOCAL = {"type": "library", "name": "own", "version": "0.1.0", "purl": "pkg:cargo/own@0.1.0?download_url=file://own"}


@pytest.fixture(scope="module")
def carrying(tmp_path_factory: pytest.TempPathFactory) -> sbom.Sbom:
    folder = tmp_path_factory.mktemp("carrying")
    packages = folder / "packages"
    wheel(packages, "crypto", "50.0", a=listing(OPENSSL), b=listing(HECK, LOCAL), c='{"spdxVersion": "SPDX-2.3"}')
    itself = {"type": "library", "name": "demo", "version": "1.0", "purl": "pkg:pypi/demo@1.0?file_name=demo.whl"}
    installed = {"type": "library", "name": "Crypto", "version": "50.0", "purl": "pkg:pypi/Crypto@50.0"}
    wheel(packages, "demo", "1.0", a=listing(itself, HECK, installed, metadata={"component": itself}))
    return bill(packages, folder)


def test_what_wheels_say_they_carry_is_listed_once_below_the_wheels_that_carry_it(carrying: sbom.Sbom):
    bom, spdx = json.loads(carrying.cyclonedx), json.loads(carrying.spdx)
    names = {each["bom-ref"]: each["name"] for each in bom["components"]}
    assert sorted(names.values()) == ["crypto", "demo", "heck", "openssl", "own"]
    needs = {names.get(e["ref"], "root"): sorted(names[r] for r in e["dependsOn"]) for e in bom["dependencies"]}
    assert needs.pop("root") == ["crypto", "demo"]
    carried = {"crypto": ["heck", "openssl", "own"], "demo": ["crypto", "heck"]}
    assert needs == carried | {"heck": [], "openssl": [], "own": []}
    names = {each["SPDXID"]: each["name"] for each in spdx["packages"]}
    contained: dict[str, list[str]] = {}
    for each in spdx["relationships"]:
        if each["relationshipType"] == "CONTAINS" and each["spdxElementId"] != "SPDXRef-Image":
            contained.setdefault(names[each["spdxElementId"]], []).append(names[each["relatedSpdxElement"]])
    assert {name: sorted(found) for name, found in contained.items()} == carried
    assert carrying.components == 5


def test_what_a_wheel_carries_says_how_it_was_found_and_by_whose_word_its_supplier_is(carrying: sbom.Sbom):
    found = by_name(carrying)
    suppliers = {
        name: (
            each["supplier"]["name"],
            next(p["value"] for p in each["properties"] if p["name"] == sbom.SOURCE_PROPERTY),
        )
        for name, each in found.items()
    }
    assert suppliers == {
        "crypto": ("crypto Team", "metadata"),
        "demo": ("demo Team", "metadata"),
        "heck": ("crates.io", "registry"),
        "openssl": ("github.com/openssl", "repository"),
        "own": ("crypto Team", "carrier"),
    }
    assert found["openssl"]["properties"][:2] == [
        {"name": "greenops:found:by", "value": "pep770"},
        {"name": "greenops:found:in", "value": "/crypto-50.0.dist-info/sboms/a.cdx.json"},
    ]
    assert found["openssl"]["hashes"] == OPENSSL["hashes"]
    assert found["openssl"]["licenses"] == OPENSSL["licenses"]
    assert found["own"]["purl"] == "pkg:cargo/own@0.1.0"
    spdx = {each["name"]: each for each in json.loads(carrying.spdx)["packages"]}
    assert spdx["openssl"]["checksums"] == [{"algorithm": "SHA256", "checksumValue": "32" * 32}]
    assert spdx["openssl"]["supplier"] == "Organization: github.com/openssl"
    assert spdx["openssl"]["comment"] == "greenops:found:by=pep770 greenops:supplier:source=repository"


def test_documents_with_what_wheels_carry_are_valid_and_have_the_minimum_elements(carrying: sbom.Sbom, tmp_path: Path):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(carrying.cyclonedx.decode()) is None
    path = tmp_path / "sbom.spdx.json"
    path.write_bytes(carrying.spdx)
    assert validate_full_spdx_document(parse_file(str(path))) == []
    told = ntia.conformance(carrying.spdx, carrying.cyclonedx)
    assert (told.is_conformant, told.components) == (True, 6)


def test_a_document_about_what_a_wheel_carries_that_cannot_be_read_is_stated_in_both(carrying: sbom.Sbom):
    (fault,) = carrying.unread
    assert fault == "/crypto-50.0.dist-info/sboms/c.cdx.json: found another document, allowed: CycloneDX JSON"
    properties = json.loads(carrying.cyclonedx)["metadata"]["properties"]
    assert {"name": "greenops:unread", "value": fault} in properties
    assert f"greenops:unread={fault}" in json.loads(carrying.spdx)["creationInfo"]["comment"].splitlines()


def test_only_what_the_environments_digest_covers_is_believed(tmp_path: Path):
    info = wheel(tmp_path / "packages", "demo", "1.0", a=listing(HECK), b=listing(OPENSSL))
    (info / "sboms" / "a.cdx.json").write_text(listing(LOCAL))
    (info / "sboms" / "added.cdx.json").write_text(listing(LOCAL))
    found = bill(tmp_path / "packages", tmp_path)
    assert sorted(by_name(found)) == ["demo", "openssl"]
    where = "/demo-1.0.dist-info/sboms"
    assert found.unread == tuple(
        f"{where}/{name}.cdx.json: found other bytes than RECORD lists" for name in ("a", "added")
    )


def test_an_environment_that_is_not_the_one_asked_for_is_looked_at_again_later(tmp_path: Path):
    wheel(tmp_path / "packages", "demo", "1.0")
    with pytest.raises(TransientError, match=f"changed meanwhile: found sha256:.*, allowed: {DIGEST}; the next look"):
        environment.bill(DIGEST, tmp_path, packages=tmp_path / "packages", program="no-such-syft")


def test_a_package_installed_while_syft_looks_is_not_listed_under_the_old_digest(tmp_path: Path):
    wheel(tmp_path / "packages", "demo", "1.0")
    wheel(tmp_path / "later", "other", "2.0")
    program = tmp_path / "syft"
    move = f"mv {tmp_path}/later/other-2.0.dist-info {tmp_path}/packages/"
    program.write_text(f'#!/bin/sh\n{move}\nexec {syft.find()} "$@"\n')
    program.chmod(0o755)
    expected = environment.digest(environment.inventory(tmp_path / "packages"))
    with pytest.raises(TransientError, match=f"allowed: {expected}; the next look will notice it"):
        environment.bill(expected, tmp_path, packages=tmp_path / "packages", program=str(program))


def test_the_environments_bill_is_the_same_for_a_wheel_and_for_an_editable_install(tmp_path: Path):
    sources = tmp_path / "checkout" / "greenops_pipelines"
    sources.mkdir(parents=True)
    (sources / "__init__.py").write_bytes(b"")
    empty = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    lines = {
        "wheel": f"greenops_pipelines/__init__.py,sha256={empty},0\n",
        "editable": "_editable_impl_greenops.pth,sha256=x,10\n",
    }
    for kind, line in lines.items():
        info = tmp_path / kind / "greenops_pipelines-0.1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.4\nName: greenops-pipelines\nVersion: 0.1.0\n")
        (info / "RECORD").write_text(line)
    origin = {"url": f"file://{tmp_path}/checkout", "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(origin))
    made = [bill(tmp_path / kind, tmp_path) for kind in lines]
    assert made[0] == made[1]
    assert ntia.conformance(made[0].spdx, made[0].cyclonedx).is_conformant
    assert json.loads(made[0].cyclonedx)["metadata"]["component"]["type"] == "application"
