"""References as Docker reads them, and manifests that two readers could read in two ways."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.errors import BadInput, ProviderError
from greenops_pipelines.supply_chain.oci import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    Platform,
    Reference,
    digest_of,
    is_tag,
    manifest_of,
)
from tests.supply_chain.conftest import image

DIGEST = "sha256:" + "0123456789abcdef" * 4
EMPTY_SHA256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpine", ("docker.io", "library/alpine", "", "")),
        ("alpine:3.20", ("docker.io", "library/alpine", "3.20", "")),
        ("team/app", ("docker.io", "team/app", "", "")),
        ("docker.io/alpine", ("docker.io", "library/alpine", "", "")),
        ("index.docker.io/team/app", ("docker.io", "team/app", "", "")),
        ("localhost/x", ("localhost", "x", "", "")),
        ("localhost:5000/x", ("localhost:5000", "x", "", "")),
        ("localhost:5000", ("docker.io", "library/localhost", "5000", "")),
        ("ghcr.io/team/app/part:v1", ("ghcr.io", "team/app/part", "v1", "")),
        (f"registry.example.com:443/x:tag@{DIGEST}", ("registry.example.com:443", "x", "tag", DIGEST)),
        (f"alpine@{DIGEST}", ("docker.io", "library/alpine", "", DIGEST)),
        ("[::1]:5000/team/app:v1", ("[::1]:5000", "team/app", "v1", "")),
        ("host.example/a__b/c-d--e.f", ("host.example", "a__b/c-d--e.f", "", "")),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(text: str, expected: tuple[str, str, str, str]) -> None:
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.tag, found.digest) == expected


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", "a repository in lower case"),
        ("/alpine", "a repository in lower case"),
        ("Team/App", "a repository in lower case"),
        ("team//app", "a repository in lower case"),
        ("team/app/", "a repository in lower case"),
        ("../../etc/passwd", "host[:port]"),
        ("host.example/../app", "a repository in lower case"),
        ("host.example/team/app name", "a repository in lower case"),
        ("host.example/" + "a" * 256, "a repository in lower case"),
        ("alpine:", "a tag of letters"),
        ("alpine:.hidden", "a tag of letters"),
        ("alpine:" + "v" * 129, "a tag of letters"),
        ("alpine@", "a digest of the form sha256"),
        ("alpine@sha256:abc", "a digest of the form sha256"),
        (f"alpine@{DIGEST.upper()}", "a digest of the form sha256"),
        (f"alpine@{DIGEST}@{DIGEST}", "a digest of the form sha256"),
        ("alpine@sha512:" + "0" * 128, "a digest of the form sha256"),
        ("host.example:0/app", "host[:port]"),
        ("host.example:65536/app", "host[:port]"),
        ("host.example:٣/app", "host[:port]"),
        ("-host.example/app", "host[:port]"),
        ("user@host.example/app", "a digest of the form sha256"),
        ("https://host.example/app", "host[:port]"),
    ],
)
def test_what_is_no_reference_is_refused_with_what_is_allowed(text: str, allowed: str) -> None:
    with pytest.raises(BadInput) as refused:
        Reference.parse(text)
    assert f"found {text[:120]!r}, allowed: {allowed}" in str(refused.value)


_PART = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)
_HOSTS = st.sampled_from(
    ["docker.io", "localhost", "localhost:5000", "127.0.0.1:80", "a.b", "x-y.example:65535", "[::1]:1"]
)


@given(
    registry=_HOSTS,
    parts=st.lists(_PART, min_size=2, max_size=4),
    tag=st.just("") | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
    digest=st.just("") | st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}"),
)
def test_a_reference_written_out_is_read_back_as_itself(registry: str, parts: list[str], tag: str, digest: str) -> None:
    reference = Reference(registry, "/".join(parts), tag, digest)
    assert Reference.parse(str(reference)) == reference


@given(st.text(max_size=60))
def test_any_text_is_a_reference_that_reads_back_or_bad_input(text: str) -> None:
    try:
        found = Reference.parse(text)
    except BadInput:
        return
    assert Reference.parse(str(found)) == found


def test_what_is_asked_for_is_the_digest_then_the_tag_then_latest() -> None:
    assert Reference.parse(f"a/b:v1@{DIGEST}").wanted == DIGEST
    assert Reference.parse("a/b:v1").wanted == "v1"
    assert Reference.parse("a/b").wanted == "latest"


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm/v7", "windows/amd64"])
def test_a_platform_reads_back(text: str) -> None:
    assert str(Platform.parse(text)) == text


@pytest.mark.parametrize("text", ["", "linux", "linux/", "Linux/amd64", "linux/amd64/", "linux/arm/v7/x"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="allowed: os/architecture"):
        Platform.parse(text)


def test_a_digest_is_the_sha256_of_the_bytes() -> None:
    assert digest_of(b"") == EMPTY_SHA256


@given(
    st.builds(
        Descriptor,
        st.sampled_from([OCI_MANIFEST, "a/b"]),
        st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}"),
        st.integers(0, 1 << 50),
        st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
        st.sampled_from(["", "application/x"]),
        st.none() | st.just(Platform("linux", "arm", "v7")) | st.just(Platform("linux", "amd64")),
    )
)
def test_a_descriptor_reads_back_as_itself(descriptor: Descriptor) -> None:
    assert Descriptor.read(json.loads(json.dumps(descriptor.as_document())), "x") == descriptor


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"mediaType": "a/b", "digest": DIGEST},
        {"mediaType": "a/b", "digest": DIGEST, "size": -1},
        {"mediaType": "a/b", "digest": DIGEST, "size": 1.5},
        {"mediaType": "a/b", "digest": DIGEST, "size": True},
        {"mediaType": "a/b", "digest": DIGEST, "size": "5"},
        {"mediaType": "a/b", "digest": "sha256:../../etc/passwd", "size": 5},
        {"mediaType": "a/b", "digest": DIGEST + "\n", "size": 5},
    ],
)
def test_what_is_no_descriptor_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(ProviderError, match=r"^layers\[3\]: found "):
        Descriptor.read(value, "layers[3]")


def manifest(**changes: Any) -> bytes:
    return json.dumps({**json.loads(image()[0]), **changes}).encode()


@pytest.mark.parametrize("served_as", [OCI_MANIFEST, f"{OCI_MANIFEST}; charset=utf-8", "application/json", ""])
def test_a_manifest_is_what_it_says_of_itself(served_as: str) -> None:
    data = image()[0]
    found = manifest_of(data, served_as, "x")
    assert (found.media_type, found.digest, found.is_index) == (OCI_MANIFEST, digest_of(data), False)
    assert [each.digest for each in found.layers] == [digest_of(b"layer")]


@pytest.mark.parametrize(
    ("document", "expected"),
    [({"schemaVersion": 2, "manifests": []}, OCI_INDEX), ({"schemaVersion": 2, "layers": []}, OCI_MANIFEST)],
)
def test_one_that_names_no_type_is_known_by_what_it_holds(document: dict[str, Any], expected: str) -> None:
    assert manifest_of(json.dumps(document).encode(), "text/plain", "x").media_type == expected


@pytest.mark.parametrize(
    ("data", "served_as", "says"),
    [
        (manifest(), OCI_INDEX, "served as application/vnd.oci.image.index"),
        (manifest(), DOCKER_MANIFEST, "served as application/vnd.docker"),
        (manifest(mediaType="text/html"), "text/html", "found the media type 'text/html'"),
        (manifest(manifests=[]), OCI_MANIFEST, "a manifest that is an index as well"),
        (json.dumps({"manifests": [], "layers": []}).encode(), OCI_INDEX, "a manifest that is an index as well"),
        (json.dumps({"manifests": [], "config": {}}).encode(), DOCKER_INDEX, "a manifest that is an index as well"),
        (json.dumps({"manifests": [], "layers": []}).encode(), "", "a manifest that is an index as well"),
        (b'{"layers": [], "layers": [1]}', OCI_MANIFEST, "the key 'layers' stands twice"),
        (b"[]", OCI_MANIFEST, "found no object"),
        (b"", OCI_MANIFEST, "Expecting value"),
        (b"\xff\xfe", OCI_MANIFEST, "not UTF-8"),
        (b"[" * 100_000, OCI_MANIFEST, "nested too deeply"),
        (b" " * (4 * 1024 * 1024 + 1), OCI_MANIFEST, "4,194,305 bytes, allowed: 4,194,304"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_a_manifest_that_lies_or_is_none_is_refused(data: bytes, served_as: str, says: str) -> None:
    with pytest.raises(ProviderError, match=r"^(here|manifest)") as refused:
        manifest_of(data, served_as, "here")
    assert says in str(refused.value)


def test_lists_that_are_missing_or_broken_are_refused_with_their_place() -> None:
    def found(**changes: Any) -> Manifest:
        return manifest_of(manifest(**changes), OCI_MANIFEST, "x")

    with pytest.raises(ProviderError, match="found no list of layers"):
        _ = found(layers=None).layers
    with pytest.raises(ProviderError, match=r"layers\[0\]: found no descriptor"):
        _ = found(layers=[{}]).layers
    with pytest.raises(ProviderError, match="config: found no descriptor"):
        _ = found(config=5).config
    with pytest.raises(ProviderError, match="subject: found no descriptor"):
        _ = found(subject="sha256:abc").subject
    assert found().subject is None


def test_an_artifacts_type_is_its_own_else_that_of_its_configuration() -> None:
    assert manifest_of(manifest(artifactType="a/b"), OCI_MANIFEST, "x").artifact_type == "a/b"
    assert manifest_of(manifest(), OCI_MANIFEST, "x").artifact_type == "application/vnd.oci.image.config.v1+json"
    assert manifest_of(manifest(config=None), OCI_MANIFEST, "x").artifact_type == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [("v1", True), ("_", True), ("1.0_a-b", True), ("a" * 128, True)]
    + [(each, False) for each in ("", ".v", "-v", "v/1", "v 1", "v1\n", "v1\ud800", "é", "a" * 129)],
)
def test_a_tag_is_letters_digits_and_a_few_signs(text: str, expected: bool) -> None:
    assert is_tag(text) is expected
