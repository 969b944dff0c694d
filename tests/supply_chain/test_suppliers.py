"""Suppliers, by what each kind of package says of itself."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest

from greenops_pipelines.supply_chain import suppliers
from greenops_pipelines.supply_chain.suppliers import Supplier

PATH = "/lib/METADATA"


def component(kind: str, path: str = PATH, **fields: Any) -> dict[str, Any]:
    properties = [("syft:package:type", kind), ("syft:location:0:path", path)]
    return {"name": "demo", "properties": [{"name": n, "value": v} for n, v in properties], **fields}


def carried(path: str, virtual: str) -> dict[str, Any]:
    """A Java package inside another archive."""
    found = component("java-archive", path=path, purl="pkg:maven/org.inner/a@1")
    found["properties"].append({"name": "syft:metadata:virtualPath", "value": virtual})
    return found


def python(*headers: str) -> Supplier | None:
    metadata = "\n".join(["Metadata-Version: 2.4", "Name: demo", *headers, "", "Author: of the description"])
    return suppliers.of_component(component("python", purl="pkg:pypi/demo@1"), {PATH: metadata.encode()})


@pytest.mark.parametrize(
    ("headers", "spdx", "source"),
    [
        (["Author: Ada Lovelace", "Author-email: ada@example.org"], "Person: Ada Lovelace", "metadata"),
        (["Author-email: Trail of Bits <opensource@trailofbits.com>"], "Organization: Trail of Bits", "metadata"),
        (["Author-email: Ada Lovelace <a@x.org>, Charles Babbage <c@x.org>"], "Person: Ada Lovelace", "metadata"),
        (['Author-email: "Astral Software Inc." <hey@astral.sh>'], "Organization: Astral Software Inc.", "metadata"),
        (["Maintainer: aiohttp team <team@aiohttp.org>"], "Organization: aiohttp team", "metadata"),
        (["Author: UNKNOWN", "Maintainer-Email: NumPy Developers <n@x.org>"], "Organization: NumPy Developers", "metadata"),
        (["Author-email: mail@example.org", "Home-page: https://github.com/own/x"], "Organization: github.com/own", "repository"),
        (
            ["Project-URL: Homepage, https://github.com/up/x", "Project-URL: Source Code, https://gitlab.com/own/x"],
            "Organization: gitlab.com/own",
            "repository",
        ),
        (["Author-email: mail@example.org", "Home-page: https://example.org"], "Organization: PyPI", "registry"),
        ([], "Organization: PyPI", "registry"),
    ],
)  # fmt: skip
def test_a_python_distribution_is_supplied_by_whom_its_metadata_names(headers: list[str], spdx: str, source: str):
    found = python(*headers)
    assert found is not None
    assert (found.spdx, found.source) == (spdx, source)


JAR = io.BytesIO()
with zipfile.ZipFile(JAR, "w") as archive:
    archive.writestr(
        "META-INF/MANIFEST.MF",
        "Manifest-Version: 1.0\r\nImplementation-Vendor: The Apache Software \r\n Foundation\r\n\r\nName: a\r\n",
    )

OTHERS = [
    (component("deb", publisher="Debian OpenSSL Team <pkg-openssl@lists.debian.org>"), b"",
     "Organization: Debian OpenSSL Team", "metadata"),
    (component("deb", purl="pkg:deb/debian/openssl@3?arch=amd64"), b"", "Organization: debian", "registry"),
    (component("apk", publisher="Natanael Copa <n@alpinelinux.org>"), b"", "Person: Natanael Copa", "metadata"),
    (component("rpm", publisher="Red Hat, Inc."), b"", "Organization: Red Hat, Inc.", "metadata"),
    (component("go-module", name="github.com/owner/repo/v2"), b"", "Organization: github.com/owner", "module path"),
    (component("go-module", name="golang.org/x/net"), b"", "Organization: golang.org", "module path"),
    (component("go-module", name="stdlib"), b"", "Organization: golang.org", "module path"),
    (component("go-module", name="command-line-arguments"), b"", None, None),
    (component("npm", author="Isaac Z. Schlueter <i@izs.me>"), b"", "Person: Isaac Z. Schlueter", "metadata"),
    (component("npm"), json.dumps({"maintainers": ["TJ Holowaychuk <t@x.ca> (https://t.ca)"]}).encode(),
     "Person: TJ Holowaychuk", "metadata"),
    (component("npm"), json.dumps({"author": {"name": "Babel Team"}}).encode(), "Organization: Babel Team", "metadata"),
    (component("npm"), json.dumps({"repository": {"url": "git+https://github.com/expressjs/express.git"}}).encode(),
     "Organization: github.com/expressjs", "repository"),
    (component("npm", purl="pkg:npm/%40angular/core@1"), b"no JSON", "Organization: @angular", "module path"),
    (component("npm", purl="pkg:npm/express@4"), b"[]", "Organization: npm", "registry"),
    (component("java-archive", purl="pkg:maven/org.apache/a@1"), JAR.getvalue(),
     "Organization: The Apache Software Foundation", "metadata"),
    (component("java-archive", purl="pkg:maven/org.apache/a@1"), b"no archive", "Organization: org.apache", "module path"),
    (carried(PATH, f"{PATH}:inner.jar"), JAR.getvalue(), "Organization: org.inner", "module path"),
    (carried(PATH, PATH), JAR.getvalue(), "Organization: The Apache Software Foundation", "metadata"),
    (component("binary", cpe="cpe:2.3:a:python_software_foundation:python:3.11:*:*:*:*:*:*:*"), b"",
     "Organization: python software foundation", "cpe"),
    (component("binary"), b"", None, None),
    (component("rust-crate", purl="pkg:cargo/serde@1"), b"", "Organization: crates.io", "registry"),
    (component("unheard-of", purl="pkg:unheard/x@1"), b"", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("found", "data", "spdx", "source"), OTHERS)
def test_other_kinds_of_packages_by_their_own_rules(
    found: dict[str, Any], data: bytes, spdx: str | None, source: str | None
):
    supplier = suppliers.of_component(found, {PATH: data} if data else {})
    assert (supplier and supplier.spdx, supplier and supplier.source) == (spdx, source)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ada Lovelace <ada@example.org>", "Ada Lovelace"),
        ("Ada Lovelace (ada@example.org)", "Ada Lovelace"),
        ("ada@example.org", ""),
        ("me+github@example.org, Ada", "Ada"),
        ('"Foo, Inc." <x@y.org>', "Foo, Inc."),
        ("Ada\x00\nLovelace", "Ada Lovelace"),
        ("UNKNOWN", ""),
        ("x" * 300, "x" * 200),
    ],
)
def test_addresses_of_people_do_not_get_into_what_cannot_be_erased(text: str, name: str):
    assert suppliers.without_address(text) == name


@pytest.mark.parametrize(
    ("name", "person"),
    [
        ("Ada Lovelace", True),
        ("Sébastien Eustace", True),
        ("Isaac Z. Schlueter", True),
        ("Amazon Web Services", False),
        ("The Pallets", False),
        ("Pallets", False),
        ("holger krekel and others", False),
        ("Terence Parr, Sam Harwell", False),
        ("Docker Inc.", False),
        ("pandas development team", False),
    ],
)
def test_a_person_is_called_one_only_where_it_reads_like_a_persons_name(name: str, person: bool):
    assert suppliers.is_person(name) is person


def test_needs_are_those_that_no_extra_asks_for():
    metadata = (
        b"Name: x\nRequires-Dist: Babel >=2.0\nRequires-Dist: zope.interface[all]>5; python_version > '3'\n"
        b"Requires-Dist: pytest ; extra == 'test'\nRequires-Dist: botocore (<2,>=1)\n\nRequires-Dist: not-a-header\n"
    )
    assert suppliers.python_requires(metadata) == {"babel", "zope-interface", "botocore"}


@pytest.mark.parametrize(
    ("name", "labels", "spdx"),
    [
        ("ghcr.io/team/app", {"org.opencontainers.image.vendor": "ACME GmbH"}, "Organization: ACME GmbH"),
        ("ghcr.io/team/app", {"org.opencontainers.image.authors": "a@example.org"}, "Organization: ghcr.io/team"),
        ("ghcr.io/team/app", {}, "Organization: ghcr.io/team"),
        ("app", {}, None),
    ],
)
def test_an_image_is_supplied_by_its_label_or_the_namespace_it_lies_in(
    name: str, labels: dict[str, str], spdx: str | None
):
    supplier = suppliers.of_image(name, labels)
    assert (supplier and supplier.spdx) == spdx


def test_only_files_that_tell_more_than_syft_did_are_asked_for():
    listed = [
        component("python", path="/a/METADATA", author="Ada"),
        component("npm", path="/b/package.json"),
        component("npm", path="/c/package.json", author="Ada"),
        component("java-archive", path="/d.jar"),
        carried("/e.jar", "/e.jar:inner.jar"),
        component("deb", path="/var/lib/dpkg/status"),
    ]
    assert suppliers.wanted(listed) == {"/a/METADATA", "/b/package.json", "/d.jar"}
