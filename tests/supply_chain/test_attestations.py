"""Statements signed and verified: only what a trusted key says of this very digest counts."""

from __future__ import annotations

import base64
import json
import re
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.evidence.signing import Signer, sigstore_bundle
from greenops_pipelines.supply_chain import attestations
from greenops_pipelines.supply_chain.attestations import CYCLONEDX, NotVerified, verified, verified_bundle

ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")
PAYLOAD = attestations.statement("team/app", [ONE, TWO], CYCLONEDX, {"bomFormat": "CycloneDX"})


def wrapped(signer: Signer, signed: bytes, /, **changes: Any) -> bytes:
    """An envelope as another tool may write it."""
    return json.dumps({**json.loads(attestations.envelope(signer, signed)), **changes}, indent=2).encode()


def reason(data: bytes, signer: Signer, digest: str = ONE) -> str:
    with pytest.raises(NotVerified) as refused:
        verified(data, [signer.public], digest)
    return str(refused.value)


def test_a_statement_is_the_canonical_in_toto_v1() -> None:
    assert PAYLOAD == (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{"bomFormat":"CycloneDX"},'
        b'"predicateType":"https://cyclonedx.org/bom","subject":['
        b'{"digest":{"sha256":"' + b"1" * 64 + b'"},"name":"team/app"},'
        b'{"digest":{"sha256":"' + b"2" * 64 + b'"},"name":"team/app"}]}'
    )
    assert attestations.subjects(PAYLOAD) == (ONE, TWO)


def test_an_envelope_by_a_trusted_key_about_the_digest_is_believed(signer: Signer, other_signer: Signer) -> None:
    data = attestations.envelope(signer, PAYLOAD)
    for digest in (ONE, TWO):
        found = verified(data, [other_signer.public, signer.public], digest)
        assert (found.predicate_type, found.subjects) == (CYCLONEDX, (ONE, TWO))
        assert found.predicate == {"bomFormat": "CycloneDX"}
        assert found.key.keyid == signer.public.keyid


def test_what_another_tool_wrote_is_believed_too(signer: Signer) -> None:
    older = {**json.loads(PAYLOAD), "_type": "https://in-toto.io/Statement/v0.1"}
    found = verified(wrapped(signer, json.dumps(older, indent=1).encode()), [signer.public], ONE)
    assert found.predicate_type == CYCLONEDX


def test_one_good_signature_among_others_is_enough(signer: Signer, other_signer: Signer) -> None:
    theirs = json.loads(attestations.envelope(other_signer, PAYLOAD))["signatures"]
    ours = json.loads(attestations.envelope(signer, PAYLOAD))["signatures"]
    assert verified(wrapped(signer, PAYLOAD, signatures=theirs + ours), [signer.public], ONE).subjects == (ONE, TWO)


def test_another_key_another_digest_and_no_key_are_refused(signer: Signer, other_signer: Signer) -> None:
    assert reason(attestations.envelope(other_signer, PAYLOAD), signer) == (
        "envelope: its signature is by none of the keys that are trusted"
    )
    assert reason(attestations.envelope(signer, PAYLOAD), signer, THREE) == (
        f"statement: it is about {ONE}, {TWO}, and not about {THREE}"
    )
    with pytest.raises(NotVerified, match="by none of the keys"):
        verified(attestations.envelope(signer, PAYLOAD), [], ONE)


def test_a_signature_is_over_the_type_too(signer: Signer) -> None:
    plain = base64.b64encode(signer.sign(PAYLOAD)).decode()
    assert "by none of the keys" in reason(wrapped(signer, PAYLOAD, signatures=[{"sig": plain}]), signer)
    assert reason(wrapped(signer, PAYLOAD, payloadType="text/plain"), signer) == (
        "envelope: found the payload type 'text/plain'"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"payload": "%%%"}, "envelope: its payload is not base64"),
        ({"payload": None}, "envelope: its payload is not base64"),
        ({"signatures": []}, "envelope: found no signature"),
        ({"signatures": None}, "envelope: found no signature"),
        ({"signatures": {"sig": ""}}, "envelope: found no signature"),
        ({"signatures": [{"sig": "%%%"}]}, "envelope: its signature is not base64"),
        ({"signatures": [{"sig": ""}]}, "envelope: its signature is by none"),
        ({"signatures": [{}]}, "envelope: its signature is "),
        ({"signatures": ["x"]}, "envelope: its signature is by none"),
        ({"signatures": [{"sig": "eA=="}] * 33}, "envelope: found 33 signatures, allowed: 32"),
    ],
)
def test_a_broken_envelope_is_refused(signer: Signer, changes: dict[str, Any], says: str) -> None:
    assert reason(wrapped(signer, PAYLOAD, **changes), signer).startswith(says)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "statement: Expecting value"),
        (b"[]", "statement: found no object"),
        (b"{}", "statement: found the type 'None'"),
        (json.dumps({**json.loads(PAYLOAD), "_type": "x"}).encode(), "statement: found the type 'x'"),
        (json.dumps({**json.loads(PAYLOAD), "predicate": []}).encode(), "statement: found no subject, predicateType"),
        (json.dumps({**json.loads(PAYLOAD), "subject": ONE}).encode(), "statement: found no subject, predicateType"),
        (json.dumps({**json.loads(PAYLOAD), "subject": []}).encode(), "statement: it is about nothing, and not about"),
        (
            json.dumps({**json.loads(PAYLOAD), "subject": [{"digest": {"sha512": "1" * 64}}]}).encode(),
            "statement: it is about nothing, and not about",
        ),
        (PAYLOAD[:-1] + b',"subject":[]}', "statement: the key 'subject' stands twice"),
    ],
)
def test_what_a_trusted_key_signed_and_is_no_statement_is_refused(signer: Signer, payload: bytes, says: str) -> None:
    assert reason(attestations.envelope(signer, payload), signer).startswith(says)


@pytest.fixture(scope="module")
def sealed(signer: Signer) -> bytes:
    """One envelope for all examples: each signature is another, and may be a byte longer."""
    return attestations.envelope(signer, PAYLOAD)


@given(st.integers(0, 10**6))
def test_a_flipped_bit_never_says_another_thing(signer: Signer, sealed: bytes, at: int) -> None:
    envelope = bytearray(sealed)
    at %= len(envelope) * 8
    envelope[at // 8] ^= 1 << at % 8
    try:
        found = verified(bytes(envelope), [signer.public], ONE)
    except NotVerified:
        return
    assert found.document == json.loads(PAYLOAD)


def test_a_bundle_is_its_envelope(signer: Signer) -> None:
    bundle = sigstore_bundle(signer.public, attestations.envelope(signer, PAYLOAD))
    assert verified_bundle(bundle, [signer.public], ONE).subjects == (ONE, TWO)
    older = {**json.loads(bundle), "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.3"}
    assert verified_bundle(json.dumps(older).encode(), [signer.public], ONE).predicate_type == CYCLONEDX


@pytest.mark.parametrize(
    ("bundle", "says"),
    [
        (b"", "sigstore bundle: Expecting value"),
        (b"[]", "sigstore bundle: found no object"),
        (b"{}", "sigstore bundle: found the media type 'None'"),
        (b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}', "sigstore bundle: found no DSSE envelope"),
        (
            b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "messageSignature": {}}',
            "sigstore bundle: found no DSSE envelope",
        ),
        (
            b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": {"payloadType": %d}}'
            % 2**70,
            "envelope: found the payload type '11805",
        ),
        (
            b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": {"x": "\\ud800"}}',
            "envelope: found the payload type 'None'",
        ),
        (
            b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": {"x": %s1%s}}'
            % (b"[" * 400, b"]" * 400),
            "envelope: found the payload type 'None'",
        ),
        (b'{"dsseEnvelope": ' * 9_000, "sigstore bundle: nested too deeply"),
    ],
    ids=["empty", "list", "no type", "no envelope", "message", "big number", "half a pair", "deep", "deeper"],
)
def test_a_bundle_made_to_break_a_reader_is_refused(signer: Signer, bundle: bytes, says: str) -> None:
    with pytest.raises(NotVerified) as refused:
        verified_bundle(bundle, [signer.public], ONE)
    assert str(refused.value).startswith(says)


def test_the_reason_is_one_short_line(signer: Signer) -> None:
    many = attestations.statement("x", [f"sha256:{at:064x}" for at in range(100)], CYCLONEDX, {})
    assert len(reason(attestations.envelope(signer, many), signer)) < 320
    assert len(reason(wrapped(signer, PAYLOAD, payloadType="x" * 10_000), signer)) < 200


@pytest.mark.parametrize("filler", [b"{}", b"[]", b"0", b'""'])
def test_what_is_all_brackets_is_refused_before_it_is_parsed(signer: Signer, filler: bytes) -> None:
    """Each pair becomes an object of its own: 128 MiB of them would take gigabytes, whoever pushed them."""
    junk = b'{"payload":[' + b",".join([filler] * 4_000_000) + b"]}"
    tracemalloc.start()
    try:
        said = reason(junk, signer)
        with pytest.raises(NotVerified, match=r"^sigstore bundle: found .* allowed: 10,000$"):
            verified_bundle(junk, [signer.public], ONE)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert re.fullmatch(r"envelope: found [4-9],[0-9,]+ braces, brackets and commas, allowed: 10,000", said)


def test_a_large_sbom_is_no_structure_of_its_envelope(signer: Signer) -> None:
    predicate = {"components": [{"name": f"c{at}", "licenses": []} for at in range(20_000)]}
    payload = attestations.statement("team/app", [ONE], CYCLONEDX, predicate)
    envelope = attestations.envelope(signer, payload)
    assert verified(envelope, [signer.public], ONE).predicate == predicate
    assert verified_bundle(sigstore_bundle(signer.public, envelope), [signer.public], ONE).predicate == predicate
