"""Signatures and attestations beside an image: written once, both ways; whatever else is found there proves nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.errors import TransientError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.evidence.signing import BUNDLE_TYPE, Signer, pae, sigstore_bundle
from greenops_pipelines.supply_chain import attach, attestations
from greenops_pipelines.supply_chain.attach import DSSE, SIMPLE_SIGNING, Attached
from greenops_pipelines.supply_chain.attestations import CYCLONEDX, PROVENANCE, SIGNATURE, SPDX, VULNERABILITIES
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import (
    EMPTY_BYTES,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Repository,
    digest_of,
)
from greenops_pipelines.supply_chain.registry import Registry
from tests.supply_chain.conftest import Answer, Debian, OciRegistry, flip, opened, pushed

NAME = "registry.example.com/team/app"
NOTE = "dev.cosignproject.cosign/signature"


@pytest.fixture(params=["Debian's registry", "registry with referrers", "layout"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    """An empty repository of each kind."""
    if request.param == "layout":
        return Layout(tmp_path / "layout", create=True)
    if request.param == "Debian's registry":
        found: Registry = request.getfixturevalue("repository")
        return found
    return opened(request.getfixturevalue("oci_registry").host)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout", create=True)


def tag(digest: str, suffix: str) -> str:
    return f"{digest.replace(':', '-')}.{suffix}"


def statement(digest: str, kind: str = CYCLONEDX, **predicate: Any) -> bytes:
    return attestations.statement(NAME, [digest], kind, predicate)


def good(repository: Repository, digest: str, *signers: Signer) -> list[tuple[str, str]]:
    """Way and type of all that verifies."""
    found = attach.read(repository, digest, [each.public for each in signers])
    return sorted((each.way, each.predicate_type) for each in found if each.statement)


def faults(repository: Repository, digest: str, *signers: Signer) -> list[tuple[str, str]]:
    """Way and reason of all that does not."""
    found = attach.read(repository, digest, [each.public for each in signers])
    return [(each.way, each.fault) for each in found if each.statement is None]


def state(repository: Repository, digest: str) -> list[str]:
    """Digests of everything that lies there."""
    return [repository.manifest(each).digest for each in repository.tags()] + sorted(
        each.digest for each in repository.referrers(digest)
    )


# --- what is written


def test_a_signature_is_written_both_ways_once(place: Repository, signer: Signer) -> None:
    digest = pushed(place)
    attach.sign(place, digest, NAME, signer)
    assert good(place, digest, signer) == [("referrer", SIGNATURE), ("tag", SIGNATURE)]
    before = state(place, digest)
    attach.sign(place, digest, NAME, signer)
    assert state(place, digest) == before
    assert faults(place, digest, signer) == []


def test_the_second_time_nothing_is_sent(oci_registry: OciRegistry, signer: Signer) -> None:
    repository = opened(oci_registry.host)
    digest = pushed(repository)
    attach.sign(repository, digest, NAME, signer)
    attach.attest(repository, digest, CYCLONEDX, statement(digest), signer)
    written = len(oci_registry.writes())
    attach.sign(repository, digest, NAME, signer)
    attach.attest(repository, digest, CYCLONEDX, statement(digest), signer)
    assert oci_registry.writes()[written:] == []


def test_the_legacy_signature_is_cosigns_document(layout: Layout, signer: Signer) -> None:
    digest = pushed(layout)
    attach.sign(layout, digest, NAME, signer)
    (layer,) = layout.manifest(tag(digest, "sig")).layers
    payload = layout.blob(layer, 1000)
    assert layer.media_type == "application/vnd.dev.cosign.simplesigning.v1+json"
    assert json.loads(payload) == {
        "critical": {
            "identity": {"docker-reference": NAME},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": {},
    }
    assert signer.public.verifies(base64.b64decode(layer.annotations[NOTE]), payload)


def test_an_attestation_is_written_both_ways_in_cosigns_forms(place: Repository, signer: Signer) -> None:
    digest = pushed(place)
    payload = statement(digest, SPDX, spdxVersion="SPDX-2.3")
    attach.attest(place, digest, SPDX, payload, signer)
    (layer,) = place.manifest(tag(digest, "att")).layers
    assert (layer.media_type, layer.annotations["predicateType"]) == (DSSE, SPDX)
    envelope = json.loads(place.blob(layer, 10_000))
    assert base64.b64decode(envelope["payload"]) == payload
    (listed,) = place.referrers(digest)
    manifest = place.manifest(listed.digest)
    assert (manifest.subject, manifest.artifact_type) == (digest, BUNDLE_TYPE)
    assert manifest.annotations["dev.sigstore.bundle.predicateType"] == SPDX
    (bundle,) = manifest.layers
    assert base64.b64decode(json.loads(place.blob(bundle, 10_000))["dsseEnvelope"]["payload"]) == payload


def test_a_newer_scan_takes_the_place_of_ours_and_of_nothing_else(
    place: Repository, signer: Signer, other_signer: Signer
) -> None:
    digest = pushed(place)
    attach.attest(place, digest, VULNERABILITIES, statement(digest, VULNERABILITIES, day=0), other_signer)
    attach.attest(place, digest, CYCLONEDX, statement(digest), signer)
    both = attestations.statement(NAME, [digest, digest_of(b"index")], VULNERABILITIES, {"day": 0})
    attach.attest(place, digest, VULNERABILITIES, both, signer)
    for day in (1, 2, 3):
        attach.attest(place, digest, VULNERABILITIES, statement(digest, VULNERABILITIES, day=day), signer)
        ours = attach.read(place, digest, [signer.public])
        said = sorted(
            (each.way, len(each.statement.subjects), each.statement.predicate.get("day"))
            for each in ours
            if each.statement and each.predicate_type == VULNERABILITIES
        )
        assert said == [("referrer", 1, day), ("tag", 1, day)]
    assert good(place, digest, other_signer) == [("referrer", VULNERABILITIES), ("tag", VULNERABILITIES)]
    assert [each for each in good(place, digest, signer) if each[1] == CYCLONEDX] == [
        ("referrer", CYCLONEDX),
        ("tag", CYCLONEDX),
    ]


@pytest.mark.parametrize("kind", [CYCLONEDX, SPDX])
def test_an_sbom_of_another_platform_stays_beside_ours(layout: Layout, signer: Signer, kind: str) -> None:
    index = pushed(layout)
    about = [attestations.statement(NAME, [index, digest_of(each)], kind, {}) for each in (b"amd64", b"arm64")]
    for payload in about:
        attach.attest(layout, index, kind, payload, signer)
    assert good(layout, index, signer) == [("referrer", kind)] * 2 + [("tag", kind)] * 2


@pytest.mark.parametrize("kind", [VULNERABILITIES, PROVENANCE])
@pytest.mark.parametrize("again", [False, True])
def test_of_scans_and_provenances_one_alone_is_ours_whatever_else_it_is_about(
    place: Repository, signer: Signer, other_signer: Signer, kind: str, again: bool
) -> None:
    digest = pushed(place)
    former = attestations.statement(NAME, [digest, digest_of(b"amd64")], kind, {"outcome": "passed"})
    newer = attestations.statement(NAME, [digest], kind, {"outcome": "failed"})
    for payload, by in (
        (former, other_signer),
        (former, signer),
        (newer, signer),
        *([(newer, signer)] if again else []),
    ):
        attach.attest(place, digest, kind, payload, by)
    found = attach.read(place, digest, [signer.public])
    assert [each.statement.predicate["outcome"] for each in found if each.statement] == ["failed"] * 2
    assert good(place, digest, other_signer) == [("referrer", kind), ("tag", kind)]


def test_the_same_statement_by_another_key_stays_when_ours_is_replaced(
    place: Repository, signer: Signer, other_signer: Signer
) -> None:
    digest = pushed(place)
    for each in (other_signer, signer):
        attach.attest(place, digest, VULNERABILITIES, statement(digest, VULNERABILITIES, day=1), each)
    attach.attest(place, digest, VULNERABILITIES, statement(digest, VULNERABILITIES, day=2), signer)
    assert good(place, digest, other_signer) == [("referrer", VULNERABILITIES), ("tag", VULNERABILITIES)]


def test_an_older_scan_that_comes_back_is_taken_away_again(place: Repository, signer: Signer) -> None:
    digest = pushed(place)
    attach.attest(place, digest, VULNERABILITIES, statement(digest, VULNERABILITIES, day=1), signer)
    referrer = place.manifest(place.referrers(digest)[0].digest)
    older = place.manifest(tag(digest, "att")).layers
    attach.attest(place, digest, VULNERABILITIES, statement(digest, VULNERABILITIES, day=2), signer)
    # As a writer leaves it that was killed before it dropped the former, or whoever puts back what was signed once.
    place.put_manifest(referrer.data, OCI_MANIFEST)
    put_tag(place, digest, "att", [*older, *place.manifest(tag(digest, "att")).layers])
    assert len(good(place, digest, signer)) == 4
    attach.attest(place, digest, VULNERABILITIES, statement(digest, VULNERABILITIES, day=2), signer)
    left = attach.read(place, digest, [signer.public])
    assert [(each.way, each.statement and each.statement.predicate["day"]) for each in left] == [
        ("tag", 2),
        ("referrer", 2),
    ]


def test_ours_that_someone_listed_twice_is_not_dropped(layout: Layout, signer: Signer) -> None:
    digest = pushed(layout)
    attach.attest(layout, digest, CYCLONEDX, statement(digest), signer)
    put_tag(layout, digest, "att", [*layout.manifest(tag(digest, "att")).layers] * 2)
    attach.attest(layout, digest, CYCLONEDX, statement(digest), signer)
    assert ("tag", CYCLONEDX) in good(layout, digest, signer)


def test_only_the_way_that_is_lost_is_written_again(oci_registry: OciRegistry, signer: Signer) -> None:
    repository = opened(oci_registry.host)
    digest = pushed(repository)
    attach.attest(repository, digest, CYCLONEDX, statement(digest), signer)
    (listed,) = repository.referrers(digest)
    del oci_registry.manifests[tag(digest, "att")]
    attach.attest(repository, digest, CYCLONEDX, statement(digest), signer)
    assert [each.digest for each in repository.referrers(digest)] == [listed.digest]
    assert good(repository, digest, signer) == [("referrer", CYCLONEDX), ("tag", CYCLONEDX)]


def test_a_registry_that_lets_nobody_delete_still_gets_the_newer_one(signer: Signer) -> None:
    server = OciRegistry(lets_delete=False)
    try:
        repository = opened(server.host)
        digest = pushed(repository)
        for day in (1, 2):
            attach.attest(repository, digest, VULNERABILITIES, statement(digest, VULNERABILITIES, day=day), signer)
        days = [
            (each.way, each.statement.predicate["day"])
            for each in attach.read(repository, digest, [signer.public])
            if each.statement
        ]
        assert sorted(days) == [("referrer", 1), ("referrer", 2), ("tag", 2)]
    finally:
        server.close()


# --- what is found


def put_tag(repository: Repository, digest: str, suffix: str, layers: list[Descriptor]) -> None:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": repository.put_blob(EMPTY_BYTES, OCI_EMPTY).as_document(),
        "layers": [each.as_document() for each in layers],
    }
    repository.put_manifest(canonical.dumps(document), OCI_MANIFEST, tag(digest, suffix))


def put_signature(repository: Repository, digest: str, payload: bytes, signature: str | None) -> None:
    blob = repository.put_blob(payload, SIMPLE_SIGNING)
    notes = {} if signature is None else {NOTE: signature}
    put_tag(repository, digest, "sig", [Descriptor(SIMPLE_SIGNING, blob.digest, blob.size, notes)])


def put_bundle(repository: Repository, digest: str, bundle: bytes, layers: int = 1) -> None:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": BUNDLE_TYPE,
        "config": repository.put_blob(EMPTY_BYTES, OCI_EMPTY).as_document(),
        "layers": [repository.put_blob(bundle, BUNDLE_TYPE).as_document()] * layers,
        "subject": repository.manifest(digest).descriptor.as_document(),
    }
    repository.put_manifest(canonical.dumps(document), OCI_MANIFEST)


def signed(signer: Signer, payload: bytes) -> str:
    return base64.b64encode(signer.sign(payload)).decode()


def test_nothing_attached_is_nothing_found(place: Repository, signer: Signer) -> None:
    assert attach.read(place, pushed(place), [signer.public]) == []


def test_what_another_key_says_is_not_believed(place: Repository, signer: Signer, other_signer: Signer) -> None:
    digest = pushed(place)
    attach.sign(place, digest, NAME, other_signer)
    attach.attest(place, digest, CYCLONEDX, statement(digest), other_signer)
    assert good(place, digest, signer) == []
    assert sorted(faults(place, digest, signer)) == [
        ("referrer", "envelope: its signature is by none of the keys that are trusted"),
        ("referrer", "envelope: its signature is by none of the keys that are trusted"),
        ("tag", "envelope: its signature is by none of the keys that are trusted"),
        ("tag", "signature: it is by none of the keys that are trusted"),
    ]


def test_what_is_copied_from_another_image_is_not_believed(place: Repository, signer: Signer) -> None:
    ours, evil = pushed(place), pushed(place, "evil", b"evil")
    attach.sign(place, ours, NAME, signer)
    attach.attest(place, ours, CYCLONEDX, statement(ours), signer)
    for suffix in ("sig", "att"):
        place.put_manifest(place.manifest(tag(ours, suffix)).data, OCI_MANIFEST, tag(evil, suffix))
    for each in place.referrers(ours):
        put_bundle(place, evil, place.blob(place.manifest(each.digest).layers[0], 10_000))
    assert good(place, evil, signer) == []
    assert sorted(faults(place, evil, signer)) == [
        ("referrer", f"statement: it is about {ours}, and not about {evil}"),
        ("referrer", f"statement: it is about {ours}, and not about {evil}"),
        ("tag", f"signature: it is about {ours}, and not about {evil}"),
        ("tag", f"statement: it is about {ours}, and not about {evil}"),
    ]


def test_a_referrer_of_another_digest_is_not_believed_whatever_the_list_says(
    older_registry: OciRegistry, signer: Signer
) -> None:
    repository = opened(older_registry.host)
    ours, evil = pushed(repository), pushed(repository, "evil", b"evil")
    both = attestations.statement(NAME, [ours, evil], CYCLONEDX, {})
    attach.attest(repository, ours, CYCLONEDX, both, signer)
    listed = repository.manifest(ours.replace(":", "-"))
    repository.put_manifest(listed.data, OCI_INDEX, evil.replace(":", "-"))
    assert faults(repository, evil, signer) == [
        ("referrer", f"referrer: its manifest is attached to {ours}, and not to {evil}")
    ]
    assert good(repository, evil, signer) == []


def flipped(data: bytes) -> bytes:
    """The envelope with one bit of its payload changed, and nothing of its form."""
    document = json.loads(data)
    payload = bytearray(base64.b64decode(document["payload"]))
    payload[len(payload) // 2] ^= 1
    return canonical.dumps(document | {"payload": base64.b64encode(payload).decode()})


def test_a_flipped_bit_under_a_right_digest_is_not_believed(place: Repository, signer: Signer) -> None:
    digest = pushed(place)
    envelope = flipped(attestations.envelope(signer, statement(digest)))
    put_tag(place, digest, "att", [place.put_blob(envelope, DSSE)])
    put_bundle(place, digest, sigstore_bundle(signer.public, envelope))
    payload = bytearray(attach.simple_signing(NAME, digest))
    signature = signed(signer, bytes(payload))
    payload[len(payload) // 2] ^= 1
    put_signature(place, digest, bytes(payload), signature)
    assert good(place, digest, signer) == []
    assert [why.rpartition(" is by ")[2] for _, why in faults(place, digest, signer)] == [
        "none of the keys that are trusted"
    ] * 3


def stored(repository: Repository, digest: str) -> Iterator[str]:
    """Digests of the layers that signatures and attestations lie in."""
    for suffix in ("sig", "att"):
        yield repository.manifest(tag(digest, suffix)).layers[0].digest
    for each in repository.referrers(digest):
        yield repository.manifest(each.digest).layers[0].digest


def test_a_byte_flipped_on_disk_is_not_believed(repository: Registry, debian: Debian, signer: Signer) -> None:
    digest = pushed(repository, "v1", b"flipped later")
    attach.sign(repository, digest, NAME, signer)
    attach.attest(repository, digest, CYCLONEDX, statement(digest), signer)
    for each in list(stored(repository, digest)):
        flip(debian.blob(each))
    assert good(repository, digest, signer) == []
    assert len(faults(repository, digest, signer)) == 4
    assert all("the registry lies" in why for _, why in faults(repository, digest, signer))


@pytest.mark.parametrize("suffix", ["sig", "att"])
def test_a_damaged_list_is_a_fault_of_its_way_and_is_not_overwritten(
    layout: Layout, signer: Signer, suffix: str
) -> None:
    digest = pushed(layout)
    attach.sign(layout, digest, NAME, signer)
    attach.attest(layout, digest, CYCLONEDX, statement(digest), signer)
    damaged = layout.manifest(tag(digest, suffix)).digest
    flip(layout.folder / "blobs/sha256" / damaged.removeprefix("sha256:"))
    assert len(good(layout, digest, signer)) == 3
    ((way, why),) = faults(layout, digest, signer)
    assert way == "tag"
    assert "found other bytes in it than its digest says" in why
    with pytest.raises(Exception, match="found other bytes in it"):
        (attach.sign if suffix == "sig" else attested)(layout, digest, NAME, signer)


def attested(repository: Repository, digest: str, name: str, signer: Signer) -> None:
    attach.attest(repository, digest, CYCLONEDX, statement(digest), signer)


def test_an_index_under_the_tag_is_no_list_of_signatures(layout: Layout, signer: Signer) -> None:
    digest = pushed(layout)
    layout.put_manifest(b'{"schemaVersion":2,"manifests":[]}', OCI_INDEX, tag(digest, "sig"))
    ((way, why),) = faults(layout, digest, signer)
    assert (way, why.partition(": ")[2]) == ("tag", "found no list of layers")


Made = Callable[[Repository, str, Signer], None]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda r, d, s: put_signature(r, d, attach.simple_signing(NAME, d), None), "by none of the keys"),
        (lambda r, d, s: put_signature(r, d, attach.simple_signing(NAME, d), "%%"), "signature: it is not base64"),
        # What the key signs elsewhere, brought here as a signature of the image.
        (
            lambda r, d, s: put_signature(r, d, pae(statement(d)), signed(s, pae(statement(d)))),
            "signature: it is over no simple signing document",
        ),
        (
            lambda r, d, s: put_signature(r, d, statement(d), signed(s, statement(d))),
            "signature: found no simple signing document",
        ),
        (
            lambda r, d, s: put_signature(r, d, typed(d), signed(s, typed(d))),
            "signature: found the type 'atomic container signature', allowed: cosign container image signature",
        ),
        (lambda r, d, s: put_tag(r, d, "att", [r.put_blob(b"{", DSSE)]), "envelope: Expecting"),
        (lambda r, d, s: put_tag(r, d, "att", [Descriptor(DSSE, digest_of(b"gone"), 4)]), "found no such file"),
        (
            lambda r, d, s: put_tag(r, d, "att", [Descriptor(DSSE, digest_of(b"gone"), 1 << 40)]),
            "read were the first 0",
        ),
        (lambda r, d, s: put_bundle(r, d, b"{}"), "sigstore bundle: found the media type 'None'"),
        (lambda r, d, s: put_bundle(r, d, b"{}", layers=2), "referrer: found 2 layers, allowed: one, the bundle"),
    ],
)
def test_what_was_put_there_to_deceive_is_not_believed(layout: Layout, signer: Signer, made: Made, says: str) -> None:
    digest = pushed(layout)
    made(layout, digest, signer)
    assert good(layout, digest, signer) == []
    ((_, why),) = faults(layout, digest, signer)
    assert says in why


def typed(digest: str) -> bytes:
    document = json.loads(attach.simple_signing(NAME, digest))
    document["critical"]["type"] = "atomic container signature"
    return canonical.dumps(document)


def test_what_is_attached_for_other_ends_is_passed_over(layout: Layout, signer: Signer) -> None:
    digest = pushed(layout)
    put_tag(layout, digest, "att", [layout.put_blob(b"note", "text/plain")])
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.signature",
        "config": layout.put_blob(EMPTY_BYTES, OCI_EMPTY).as_document(),
        "layers": [],
        "subject": layout.manifest(digest).descriptor.as_document(),
    }
    layout.put_manifest(canonical.dumps(document), OCI_MANIFEST)
    assert attach.read(layout, digest, [signer.public]) == []


def test_a_registry_that_stumbles_is_no_reason_to_believe_that_nothing_is_there(
    oci_registry: OciRegistry, signer: Signer
) -> None:
    repository = opened(oci_registry.host)
    digest = pushed(repository)
    oci_registry.before = lambda asked: Answer(503) if "referrers" in asked.path else None
    with pytest.raises(TransientError, match="503"):
        attach.read(repository, digest, [signer.public])


# --- how much is read


def junk(repository: Repository, at: int) -> Descriptor:
    return repository.put_blob(b"junk %d" % at, DSSE)


def test_of_thousands_the_first_are_read_and_ours_are_among_them(
    older_registry: OciRegistry, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attach.MAX_ATTACHED == 500
    monkeypatch.setattr(attach, "MAX_ATTACHED", 5)
    repository = opened(older_registry.host)
    digest = pushed(repository)
    put_tag(repository, digest, "att", [junk(repository, at % 7) for at in range(2000)])
    for at in range(6):
        put_bundle(repository, digest, b"junk %d" % at)
    attach.attest(repository, digest, CYCLONEDX, statement(digest), signer)
    asked = len(older_registry.asked)
    assert good(repository, digest, signer) == [("referrer", CYCLONEDX), ("tag", CYCLONEDX)]
    assert len(older_registry.asked) - asked < 25
    said = [why for _, why in faults(repository, digest, signer) if why.startswith("found")]
    assert said == [
        "found 500 attached; read were the first 5, and no more than 1 GB",
        "found 7 attached; read were the first 5, and no more than 1 GB",
    ]
    before = len(repository.manifest(tag(digest, "att")).layers)
    attach.attest(repository, digest, CYCLONEDX, statement(digest), signer)
    assert len(repository.manifest(tag(digest, "att")).layers) == before


def test_no_more_than_a_bounded_sum_of_bytes_is_read(
    place: Repository, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = pushed(place)
    attach.attest(place, digest, CYCLONEDX, statement(digest), signer)
    attach.attest(place, digest, SPDX, statement(digest, SPDX), signer)
    monkeypatch.setattr(attach, "MAX_TOTAL_BYTES", 900)
    found: list[Attached] = attach.read(place, digest, [signer.public])
    assert [(each.way, bool(each.statement)) for each in found].count(("tag", True)) == 1
    assert [each.fault for each in found if each.way == "tag" and not each.statement] == [
        "found 2 attached; read were the first 1, and no more than 1 GB"
    ]


# --- what others have put where ours should go


def put_raw(repository: Repository, digest: str, suffix: str, data: bytes, media_type: str = OCI_MANIFEST) -> None:
    """Any bytes under the tag: what a registry takes that looks less closely than we do."""
    assert isinstance(repository, Layout)
    stored = repository.put_blob(data, media_type)
    index = repository.folder / "index.json"
    document = json.loads(index.read_text())
    notes = {"org.opencontainers.image.ref.name": tag(digest, suffix)}
    document["manifests"].append(Descriptor(media_type, stored.digest, stored.size, notes).as_document())
    index.write_text(json.dumps(document))


NOTHING = b'"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{}'


@pytest.mark.parametrize("suffix", ["sig", "att"])
@pytest.mark.parametrize(
    "data",
    [
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
        b"{%s}" % NOTHING,
        b'{%s,"layers":5}' % NOTHING,
        b'{%s,"layers":[{"mediaType":"text/plain"}]}' % NOTHING,
        b'{%s,"layers":[],"layers":[]}' % NOTHING,
        b'{%s,"layers":[],"manifests":[]}' % NOTHING,
        b"[]",
        b"{",
    ],
    ids=["index", "no layers", "no list", "no descriptor", "a key twice", "both", "a list", "no JSON"],
)
def test_what_is_whole_and_no_list_of_layers_gives_way_to_ours(
    layout: Layout, signer: Signer, suffix: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    digest = pushed(layout)
    put_raw(layout, digest, suffix, data, OCI_INDEX if b"image.index" in data else OCI_MANIFEST)
    ((way, _),) = faults(layout, digest, signer)
    assert way == "tag"
    attach.sign(layout, digest, NAME, signer)
    attested(layout, digest, NAME, signer)
    assert [each for each in good(layout, digest, signer) if each[0] == "tag"] == [
        ("tag", CYCLONEDX),
        ("tag", SIGNATURE),
    ]
    assert faults(layout, digest, signer) == []
    assert f"{tag(digest, suffix)}: overwritten: " in caplog.text


def listed(repository: Repository, digest: str, suffix: str = "att") -> tuple[Descriptor, ...]:
    return repository.manifest(tag(digest, suffix)).layers


def test_others_fill_the_list_and_ours_still_finds_room(
    layout: Layout, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    digest = pushed(layout)
    attach.attest(layout, digest, CYCLONEDX, statement(digest), signer)
    (ours,) = listed(layout, digest)
    blob = junk(layout, 1)
    foreign = [Descriptor(DSSE, blob.digest, blob.size, {"n": str(at), "fill": "x" * 6_000}) for at in range(600)]
    put_tag(layout, digest, "att", [*foreign[:400], ours, *foreign[400:]])
    assert len(layout.manifest(tag(digest, "att")).data) > 3_600_000
    attach.attest(layout, digest, SPDX, statement(digest, SPDX), signer)
    found = listed(layout, digest)
    assert len(layout.manifest(tag(digest, "att")).data) <= attach.MAX_LIST_BYTES + 1_000
    assert [each.annotations.get("predicateType") for each in found[:3]] == [SPDX, CYCLONEDX, None]
    # Those in front of a list that is appended to are the oldest.
    assert [each.annotations["n"] for each in found[2:]] == [str(at) for at in range(len(found) - 2)]
    assert 150 < len(found) < 175
    assert f"{602 - len(found)} layers that others have put there are dropped" in caplog.text


def test_of_many_layers_no_more_than_a_few_hundred_stay(layout: Layout, signer: Signer) -> None:
    digest = pushed(layout)
    attach.attest(layout, digest, CYCLONEDX, statement(digest), signer)
    (ours,) = listed(layout, digest)
    blob = junk(layout, 1)
    foreign = [Descriptor(DSSE, blob.digest, blob.size, {"n": str(at)}) for at in range(498)]
    put_tag(layout, digest, "att", [ours, *foreign])
    attach.attest(layout, digest, SPDX, statement(digest, SPDX), signer)
    assert len(listed(layout, digest)) == 500  # the last that fits
    attach.attest(layout, digest, VULNERABILITIES, statement(digest, VULNERABILITIES), signer)
    assert len(listed(layout, digest)) == 500
    assert [each.annotations.get("n") for each in listed(layout, digest)][-1] == "496"
    put_tag(layout, digest, "att", [*foreign, *[ours] * 400])
    attach.attest(layout, digest, SPDX, statement(digest, SPDX), signer)
    kept = [each.annotations.get("predicateType") for each in listed(layout, digest)]
    assert (kept[:2], kept.count(CYCLONEDX), len(kept)) == ([SPDX, CYCLONEDX], 1, 500)


@pytest.mark.parametrize("notes", [{"x": "\ud800"}, {"x": "y" * 2_000_000}], ids=["half a pair", "2 MB"])
@pytest.mark.parametrize("is_ours", [False, True])
def test_a_layer_that_cannot_be_written_again_is_dropped(
    layout: Layout, signer: Signer, notes: dict[str, str], is_ours: bool
) -> None:
    digest = pushed(layout)
    attach.attest(layout, digest, CYCLONEDX, statement(digest), signer)
    blob = listed(layout, digest)[0] if is_ours else junk(layout, 1)
    there = json.dumps(Descriptor(DSSE, blob.digest, blob.size, notes).as_document()).encode()
    put_raw(layout, digest, "other", b'{%s,"layers":[%s]}' % (NOTHING, there))
    layout.put_manifest(layout.manifest(tag(digest, "other")).data, OCI_MANIFEST, tag(digest, "att"))
    # The first run drops it; where it was ours, the next finds that it is gone.
    for _ in range(2):
        attach.attest(layout, digest, SPDX, statement(digest, SPDX), signer)
        attach.attest(layout, digest, CYCLONEDX, statement(digest), signer)
    assert good(layout, digest, signer) == [(way, kind) for way in ("referrer", "tag") for kind in (CYCLONEDX, SPDX)]
    assert len(listed(layout, digest)) == 2
