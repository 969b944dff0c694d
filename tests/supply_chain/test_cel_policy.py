"""What the rendered policy decides: every promise broken in turn, and every way in which a doubt might have admitted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.errors import TransientError
from greenops_pipelines.evidence.signing import PublicKey
from greenops_pipelines.supply_chain.admission import POLICY, Builder, Rules, render
from greenops_pipelines.supply_chain.attestations import CYCLONEDX, PROVENANCE, SPDX, VULNERABILITIES
from greenops_pipelines.supply_chain.cel_policy import Decision, decide, evaluate

NOW = datetime(2025, 3, 10, 12, tzinfo=UTC)
OURS, FORMER, TEKTON, STRANGER = (
    PublicKey(ec.derive_private_key(number, ec.SECP256R1()).public_key()).pem.decode() for number in (11, 12, 13, 14)
)
GOOD, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
CI, TEKTON_ID = "https://ci.example/v1", "https://tekton.example/v2"
RULES = Rules(
    "images-are-vouched-for",
    ("registry.example.com/*",),
    (Builder(CI), Builder(TEKTON_ID, TEKTON)),
    former_keys=(FORMER,),
    excluded_namespaces=("kyverno",),
    mode="Deny",
)
POLICY_YAML = render(RULES, OURS)[POLICY]
API = "registry.example.com/team/api:1.0"


@dataclass
class Memory:
    """A registry of digests: what tags point to, whose signatures there are, and statements by type and key."""

    tags: dict[str, str] = field(default_factory=dict)
    signed: dict[str, list[str]] = field(default_factory=dict)
    said: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)

    def resolve(self, image: str) -> str:
        if image not in self.tags:
            raise TransientError(f"{image}: the registry answered 503")
        return self.tags[image]

    def signatures(self, image: str, key_pem: str) -> int:
        return self.signed.get(image.partition("@")[2], []).count(key_pem)

    def attestations(self, image: str, predicate_type: str, key_pem: str) -> list[dict[str, Any]]:
        return self.said.get((image.partition("@")[2], predicate_type, key_pem), [])

    def say(self, kind: str, predicate: dict[str, Any], key: str = OURS, digest: str = GOOD) -> None:
        self.said.setdefault((digest, kind, key), []).append({"predicateType": kind, "predicate": predicate})


def provenance(builder: str = CI) -> dict[str, Any]:
    return {"runDetails": {"builder": {"id": builder}}}


def scan(finished: object = "2025-03-09T12:00:00Z", outcome: object = "passed", **counts: object) -> dict[str, Any]:
    result = {"outcome": outcome, "counts": {"CRITICAL": 0, "HIGH": 2} | counts}
    return {"scanner": {"result": result}, "metadata": {"scanFinishedOn": finished}}


def world(*, without: str = "") -> Memory:
    made = Memory({API: GOOD}, {} if without == "signature" else {GOOD: [OURS]})
    for kind, predicate in {CYCLONEDX: {}, SPDX: {}, PROVENANCE: provenance(), VULNERABILITIES: scan()}.items():
        if kind != without:
            made.say(kind, predicate)
    return made


def pod(*images: str, **further: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": each} for each in images], **further},
    }


def judged(there: Any, of: dict[str, Any] | None = None, policy: str = POLICY_YAML, now: datetime = NOW) -> Decision:
    return decide(policy, of or pod(API), there, now)


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    document = copy.deepcopy(yaml.safe_load(POLICY_YAML))
    change(document["spec"])
    return yaml.safe_dump(document)


def expecting(expression: str) -> str:
    """The policy with another first validation."""
    return changed(lambda spec: spec["validations"][0].update(expression=expression))


UNSIGNED = "not signed by our key; where it is built, run: greenops attest "
UNLISTED = "no SBOM (cyclonedx or spdx) attested by our key; run: greenops attest "
UNPROVEN = f"no provenance of an allowed builder ({CI}, {TEKTON_ID}); build it there, and there run: greenops attest "
UNSCANNED = "no vulnerability scan of the last 7 days attested by our key; scan it, and run: greenops attest "
VULNERABLE = "no attested scan that found 0 CRITICAL; update what it is made of, and run: greenops attest "


def about(image: str, *messages: str) -> tuple[str, ...]:
    return tuple(f"{image}: {message}{image}" for message in messages)


def test_an_image_of_which_everything_was_said_is_admitted_on_the_digest_of_its_tag() -> None:
    assert judged(world()) == Decision(True, (), {API: GOOD})


def _say(kind: str, predicate: dict[str, Any], key: str = OURS) -> Callable[[Memory], object]:
    def change(there: Memory) -> None:
        there.said.pop((GOOD, kind, OURS), None)
        there.say(kind, predicate, key)

    return change


def _without(*kinds: str) -> Callable[[Memory], object]:
    return lambda there: [there.said.pop((GOOD, kind, OURS), None) for kind in kinds]


BROKEN: dict[str, tuple[Callable[[Memory], object], tuple[str, ...]]] = {
    "unsigned": (lambda there: there.signed.clear(), (UNSIGNED,)),
    "signed by a stranger": (lambda there: there.signed.update({GOOD: [STRANGER]}), (UNSIGNED,)),
    "signed by a builder": (lambda there: there.signed.update({GOOD: [TEKTON]}), (UNSIGNED,)),
    "no SBOM": (_without(CYCLONEDX, SPDX), (UNLISTED,)),
    "SBOM of a stranger": (lambda there: (_without(SPDX)(there), _say(CYCLONEDX, {}, STRANGER)(there)), (UNLISTED,)),
    "SBOM of a builder": (lambda there: (_without(SPDX)(there), _say(CYCLONEDX, {}, TEKTON)(there)), (UNLISTED,)),
    "no provenance": (_without(PROVENANCE), (UNPROVEN,)),
    "another builder": (_say(PROVENANCE, provenance("https://laptop.example")), (UNPROVEN,)),
    "a builder that begins alike": (_say(PROVENANCE, provenance(CI + "/fork")), (UNPROVEN,)),
    "a builder that is the beginning": (_say(PROVENANCE, provenance(CI[:-1])), (UNPROVEN,)),
    "our key in another builder's name": (_say(PROVENANCE, provenance(TEKTON_ID)), (UNPROVEN,)),
    "a builder's key in another's name": (_say(PROVENANCE, provenance(), TEKTON), (UNPROVEN,)),
    "provenance of no builder": (_say(PROVENANCE, {"runDetails": {}}), (UNPROVEN,)),
    "builder null": (_say(PROVENANCE, {"runDetails": {"builder": {"id": None}}}), (UNPROVEN,)),
    "no scan": (_without(VULNERABILITIES), (UNSCANNED, VULNERABLE)),
    "scan of a stranger": (_say(VULNERABILITIES, scan(), STRANGER), (UNSCANNED, VULNERABLE)),
    "scan of 7 days ago": (_say(VULNERABILITIES, scan("2025-03-03T12:00:00Z")), (UNSCANNED,)),
    "scan of tomorrow": (_say(VULNERABILITIES, scan("2025-03-11T12:00:00Z")), (UNSCANNED,)),
    "scan in a moment, in another zone": (_say(VULNERABILITIES, scan("2025-03-10T10:00:01-02:00")), (UNSCANNED,)),
    "one CRITICAL": (_say(VULNERABILITIES, scan(CRITICAL=1)), (VULNERABLE,)),
    "CRITICAL not counted": (_say(VULNERABILITIES, {**scan(), "scanner": {"result": {"outcome": "passed", "counts": {}}}}), (VULNERABLE,)),
    "no scanner": (_say(VULNERABILITIES, scan(outcome="no scanner")), (VULNERABLE,)),
    "an outcome of no known name": (_say(VULNERABILITIES, scan(outcome="skipped")), (VULNERABLE,)),
    "an empty scan": (_say(VULNERABILITIES, {}), (UNSCANNED, VULNERABLE)),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_each_broken_promise_denies_with_its_own_message(case: str) -> None:
    change, messages = BROKEN[case]
    there = world()
    change(there)
    assert judged(there) == Decision(False, about(f"{API}@{GOOD}", *messages), {API: GOOD})


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(sorted(BROKEN))))
def test_a_world_is_admitted_if_and_only_if_no_promise_is_broken(cases: set[str]) -> None:
    there = world()
    for case in sorted(cases):
        BROKEN[case][0](there)
    assert judged(there).admitted is not bool(cases)


@pytest.mark.parametrize(
    "predicate",
    [
        scan("garbage"),
        scan("2025-03-09"),
        scan("2025-03-09T12:00:00"),
        scan("2025-03-09 12:00:00Z"),
        scan("2025-13-09T12:00:00Z"),
        scan(1741521600),
        scan(None),
        scan(["2025-03-09T12:00:00Z"]),
        scan(CRITICAL=None),
        scan(CRITICAL="0"),
        scan(CRITICAL=False),
        scan(CRITICAL=[]),
        scan(CRITICAL=-1),
        scan(CRITICAL=0.5),
        scan(outcome=None),
        scan(outcome=True),
        {**scan(), "scanner": {"result": []}},
        {**scan(), "scanner": "passed"},
        {**scan(), "metadata": None},
    ],
)
def test_a_scan_that_is_not_what_it_should_be_never_passes(predicate: dict[str, Any]) -> None:
    there = world()
    _say(VULNERABILITIES, predicate)(there)
    decision = judged(there)
    assert not decision.admitted
    assert decision.messages


@pytest.mark.parametrize("finished", ["2025-03-03T12:00:01Z", "2025-03-10T12:00:00Z", "2025-03-10T14:00:00.0+02:00"])
def test_a_scan_counts_until_the_moment_its_days_are_over(finished: str) -> None:
    there = world()
    _say(VULNERABILITIES, scan(finished))(there)
    assert judged(there).admitted


def test_one_of_either_sort_of_sbom_is_enough() -> None:
    assert judged(world(without=SPDX)).admitted
    assert judged(world(without=CYCLONEDX)).admitted


def test_a_builder_speaks_with_its_own_key_in_its_own_name() -> None:
    there = world(without=PROVENANCE)
    there.say(PROVENANCE, provenance(TEKTON_ID), TEKTON)
    assert judged(there).admitted


def test_after_a_rotation_the_former_key_still_counts_and_todays_has_the_last_word() -> None:
    there = Memory({API: GOOD}, {GOOD: [FORMER]})
    for kind, predicate in {CYCLONEDX: {}, PROVENANCE: provenance(), VULNERABILITIES: scan()}.items():
        there.say(kind, predicate, FORMER)
    assert judged(there).admitted

    there.say(VULNERABILITIES, scan(CRITICAL=1), OURS)
    assert judged(there).messages == about(f"{API}@{GOOD}", VULNERABLE)

    there.said[GOOD, VULNERABILITIES, FORMER] = [
        {"predicateType": VULNERABILITIES, "predicate": scan("2025-01-01T00:00:00Z")}
    ]
    there.said[GOOD, VULNERABILITIES, OURS] = [{"predicateType": VULNERABILITIES, "predicate": scan()}]
    assert judged(there).admitted


def test_of_several_statements_the_last_one_counts_as_it_does_for_kyverno() -> None:
    there = world()
    there.say(VULNERABILITIES, scan("2025-01-01T00:00:00Z"))
    assert judged(there).messages == about(f"{API}@{GOOD}", UNSCANNED)
    there.say(VULNERABILITIES, scan())
    assert judged(there).admitted


def test_a_statement_of_another_type_is_none() -> None:
    there = world()
    there.said[GOOD, PROVENANCE, OURS][0]["predicateType"] = "https://example.com/provenance"
    assert judged(there).messages == about(f"{API}@{GOOD}", UNPROVEN)


# Images: which ones are looked at, and by which digest.


def test_a_tag_that_was_moved_is_judged_by_where_it_points_now_and_a_digest_by_itself() -> None:
    there = world()
    there.tags[API] = OTHER
    moved = judged(there)
    assert moved.messages == about(f"{API}@{OTHER}", UNSIGNED, UNLISTED, UNPROVEN, UNSCANNED, VULNERABLE)
    assert moved.digests == {API: OTHER}

    for by_digest in (f"registry.example.com/team/api@{GOOD}", f"{API}@{GOOD}"):
        assert judged(there, pod(by_digest)) == Decision(True, (), {by_digest: GOOD})


def test_an_image_without_a_tag_is_that_of_latest() -> None:
    there = world()
    there.tags["registry.example.com/team/api:latest"] = GOOD
    assert judged(there, pod("registry.example.com/team/api")).digests == {"registry.example.com/team/api": GOOD}
    assert judged(there, pod("registry.example.com/team/api")).admitted


def test_what_cannot_be_resolved_is_denied_with_the_registrys_own_words() -> None:
    assert judged(Memory()) == Decision(False, (f"{API}: {API}: the registry answered 503",))
    there = world()
    there.tags[API] = "sha256:short"
    assert judged(there).messages == (f"{API}: found 'sha256:short' as its digest",)


@pytest.mark.parametrize(
    "where",
    [
        {"initContainers": [{"image": "registry.example.com/bad:1"}]},
        {"ephemeralContainers": [{"image": "registry.example.com/bad:1"}]},
        {"volumes": [{"name": "a"}, {"name": "b", "image": {"reference": "registry.example.com/bad:1"}}]},
    ],
)
def test_one_bad_image_anywhere_in_the_pod_denies_and_is_the_one_that_is_named(where: dict[str, Any]) -> None:
    there = world()
    there.tags["registry.example.com/bad:1"] = OTHER
    bad = f"registry.example.com/bad:1@{OTHER}"

    decision = judged(there, pod(API, "docker.io/library/other:1", **where))

    assert decision.messages == about(bad, UNSIGNED, UNLISTED, UNPROVEN, UNSCANNED, VULNERABLE)
    assert decision.digests == {API: GOOD, "registry.example.com/bad:1": OTHER}


def test_two_bad_images_stand_in_one_message() -> None:
    there = world(without=PROVENANCE)
    there.tags["registry.example.com/second:1"] = GOOD
    (message,) = judged(there, pod(API, "registry.example.com/second:1")).messages
    assert message == ". ".join(
        about(f"{API}@{GOOD}", UNPROVEN) + about(f"registry.example.com/second:1@{GOOD}", UNPROVEN)
    )


@pytest.mark.parametrize(
    "of",
    [
        pod("docker.io/library/other:1"),
        pod("registry.example.community/team/api:1"),
        pod("xregistry.example.com/team/api:1"),
        {"spec": {"containers": []}},
        {"spec": {}},
        {"spec": {"containers": None}},
        pod(API) | {"metadata": {"namespace": "kyverno"}},
    ],
)
def test_what_is_not_the_policys_matter_is_said_to_be_so(of: dict[str, Any]) -> None:
    decision = judged(Memory(), of)
    assert (decision.admitted, decision.matched) == (True, False)
    assert len(decision.messages) == 1


def test_short_names_are_read_as_docker_reads_them() -> None:
    policy = render(replace(RULES, images=("docker.io/library/nginx*",)), OURS)[POLICY]
    there = world()
    there.tags = {"docker.io/library/nginx:1": OTHER}
    assert judged(there, pod("nginx:1"), policy).digests == {"nginx:1": OTHER}
    assert judged(there, pod(f"nginx@{OTHER}"), policy).digests == {f"nginx@{OTHER}": OTHER}
    assert judged(there, pod(f"index.docker.io/library/nginx@{OTHER}"), policy).matched


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"spec": {"containers": [{"name": "c"}]}}, "KeyError: image"),
        (pod(""), "pod: found '' as an image"),
        (
            pod("registry.example.com/Team/API"),
            "registry.example.com/Team/API: image: found 'registry.example.com/Team/API'",
        ),
        (pod(f"{API}@sha256:1"), "allowed: a digest of the form sha256:"),
        ({}, "KeyError: spec"),
    ],
)
def test_a_pod_that_cannot_be_read_is_denied(of: dict[str, Any], said: str) -> None:
    decision = decide(POLICY_YAML, of, world(), NOW)
    assert not decision.admitted
    assert said in decision.messages[0]


# The policy's own text decides: what is damaged in it denies.


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(OURS.strip()) - 1), st.integers(1, 127))
def test_flipping_one_byte_of_the_key_denies(at: int, flip: int) -> None:
    flipped = OURS[:at] + chr(ord(OURS[at]) ^ flip) + OURS[at + 1 :]

    def change(spec: dict[str, Any]) -> None:
        (key,) = (each for each in spec["attestors"] if each["cosign"]["key"]["data"] == OURS)
        key["cosign"]["key"]["data"] = flipped

    decision = judged(world(), policy=changed(change))
    assert not decision.admitted
    assert decision.messages


@pytest.mark.parametrize("spelt", [OURS.replace("\n", "\r\n"), OURS.replace("\n", "\n "), "x\n" + OURS])
def test_the_same_key_spelt_otherwise_is_not_the_text_that_was_rendered(spelt: str) -> None:
    assert PublicKey.parse(spelt.encode()).pem.decode() == OURS
    policy = changed(lambda spec: spec["attestors"][2]["cosign"]["key"].update(data=spelt))
    assert judged(world(), policy=policy).messages == (
        "attestor signer2: found a key that is not in its canonical PEM form",
    )


def test_another_key_in_the_policy_is_another_policy() -> None:
    decision = judged(world(), policy=POLICY_YAML.replace(OURS.splitlines()[1], STRANGER.splitlines()[1]))
    assert not decision.admitted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s["attestors"][0]["cosign"]["key"].update(data="no key"),
            "attestor builder1: found no public key in PEM",
        ),
        (lambda s: s["attestors"][0]["cosign"]["ctlog"].update(insecureIgnoreTlog=False), "no transparency log"),
        (
            lambda s: s["attestors"][0]["cosign"].update(annotations={"a": "b"}),
            "attestor builder1: allowed here: a key alone",
        ),
        (lambda s: s["attestors"].pop(1), "signer1"),
        (lambda s: s["attestations"].pop(1), "provenance"),
        (lambda s: s["attestations"][0].update(referrer={"type": "x"}), "attestation cyclonedx: allowed here: intoto"),
        (lambda s: s["validations"][0].update(expression="size("), "CEL does not compile"),
        (lambda s: s["validations"][0].update(messageExpression="1 +"), "CEL does not compile"),
        (lambda s: s["validations"][0].update(expression="1"), "is IntType, and no boolean"),
        (lambda s: s["validations"][0].update(expression="'true'"), "is StringType, and no boolean"),
        (lambda s: s["validations"][0].update(expression="null"), "and no boolean"),
        (lambda s: s["validations"][0].update(expression="unknown(1)"), "undeclared reference to 'unknown'"),
        (lambda s: s["validations"][0].update(expression="variables.nothing"), "nothing"),
        (
            lambda s: s["validations"][0].update(expression="false", messageExpression="1/0"),
            "failed to evaluate message",
        ),
        (lambda s: s["validations"].clear(), "no validation verified anything of it"),
        (lambda s: s["matchConditions"][0].update(expression="1"), "match condition spec-changed: found no boolean"),
        (lambda s: s["matchConditions"][0].update(expression="nothing.x"), "match condition spec-changed: "),
        (
            lambda s: s["matchImageReferences"][0].update(glob="registry.example.com/{a,b}"),
            "allowed here: globs of * and ?",
        ),
        (lambda s: s.update(failurePolicy="Ignore"), "it would admit on errors"),
        (lambda s: s.update(images=[]), "spec.images cannot be evaluated here"),
        (
            lambda s: s["matchConstraints"].update(objectSelector={}),
            "matchConstraints.objectSelector cannot be evaluated here",
        ),
        (lambda s: s.pop("validations"), "KeyError: validations"),
    ],
)
def test_a_policy_that_cannot_be_evaluated_as_it_stands_denies(
    change: Callable[[dict[str, Any]], object], said: str
) -> None:
    decision = judged(world(), policy=changed(change))
    assert not decision.admitted
    assert said in " ".join(decision.messages)


def test_the_days_of_the_policy_are_those_that_count_and_not_those_of_the_code() -> None:
    there = world()
    _say(VULNERABILITIES, scan("2025-03-02T12:00:00Z"))(there)
    assert not judged(there).admitted
    assert judged(there, policy=POLICY_YAML.replace('duration("168h")', 'duration("720h")')).admitted


def test_without_pinning_an_image_by_tag_has_no_digest_and_is_denied() -> None:
    policy = changed(lambda spec: spec["validationConfigurations"].update(mutateDigest=False))
    assert judged(world(), policy=policy).messages == (f"{API}: has no digest",)
    assert judged(world(), pod(f"{API}@{GOOD}"), policy).admitted


def test_a_policy_that_only_audits_judges_the_same_and_says_that_it_only_reports() -> None:
    decision = judged(Memory({API: OTHER}), policy=render(replace(RULES, mode="Audit"), OURS)[POLICY])
    assert (decision.admitted, decision.enforced) == (False, False)


def test_something_else_than_a_policy_denies() -> None:
    for text in ("", "[]", "kind: ClusterPolicy", "a: [", "\0"):
        assert not judged(world(), policy=text).admitted


# Doubt inside CEL: cel-python ends `.all()` early where a function raises StopIteration, and what has not failed yet is true.


@pytest.mark.parametrize(
    "raised", [StopIteration(), KeyError("x"), TransientError("503"), RecursionError(), SystemError()]
)
@pytest.mark.parametrize("question", ["resolve", "signatures", "attestations"])
@pytest.mark.parametrize("images", [1, 2])
def test_a_world_that_raises_whatever_it_likes_never_admits(raised: Exception, question: str, images: int) -> None:
    def fail(*_: Any) -> Any:
        raise raised

    there = world()
    there.tags["registry.example.com/second:1"] = GOOD
    setattr(there, question, fail)
    assert not judged(there, pod(*[API, "registry.example.com/second:1"][:images])).admitted


@pytest.mark.parametrize("bad_first", [True, False])
def test_an_error_about_one_image_denies_whatever_is_true_of_the_other(bad_first: bool) -> None:
    class Half(Memory):
        def signatures(self, image: str, key_pem: str) -> int:
            if "second" in image:
                raise StopIteration
            return super().signatures(image, key_pem)

    there = Half(**vars(world()))
    there.tags["registry.example.com/second:1"] = GOOD
    images = ["registry.example.com/second:1", API] if bad_first else [API, "registry.example.com/second:1"]
    for expression in (
        "size(variables.unsigned) == 0",
        "variables.images.all(i, verifyImageSignatures(i, [attestors.signer2]) > 0)",
        "variables.images.map(i, verifyImageSignatures(i, [attestors.signer2])).all(e, e > 0)",
        "!variables.images.exists(i, verifyImageSignatures(i, [attestors.signer2]) == 0)",
    ):
        policy = expecting(expression)
        decision = judged(there, pod(*images), policy)
        assert not decision.admitted, expression
        assert decision.messages[0].startswith("an image: not signed by our key ("), expression


@pytest.mark.parametrize("answer", [True, "1", None, -1, 1.0])
def test_an_answer_that_is_no_count_is_no_signature(answer: Any) -> None:
    there = world()
    there.signatures = lambda *_: answer  # type: ignore[method-assign]
    assert not judged(there).admitted


@pytest.mark.parametrize(
    "wordless", [{"messageExpression": "''"}, {"messageExpression": "''", "message": ""}, {"messageExpression": "null"}]
)
def test_a_denial_without_a_word_is_a_denial(wordless: dict[str, str]) -> None:
    decision = judged(
        world(), policy=changed(lambda spec: spec["validations"].append({"expression": "false", **wordless}))
    )
    assert not decision.admitted
    assert decision.messages[0]


def test_an_image_that_fits_a_glob_only_until_it_is_pinned_is_passed_over_as_kyverno_does() -> None:
    policy = changed(lambda spec: spec["matchImageReferences"][0].update(glob=API))
    assert not judged(world(), policy=policy).matched


def test_nothing_is_verified_of_an_image_that_fits_no_glob() -> None:
    text = f"verifyImageSignatures('docker.io/library/other@{GOOD}', [attestors.signer2]) == 1"
    assert not judged(world(), policy=expecting(text)).admitted
    assert judged(world(), policy=expecting(text.replace("docker.io/library/other", API))).admitted


def test_an_unknown_attestor_is_an_error_and_not_an_empty_list() -> None:
    policy = changed(
        lambda spec: spec["validations"][0].update(expression="verifyImageSignatures('x', [attestors.nobody]) >= 0")
    )
    decision = judged(world(), policy=policy)
    assert not decision.admitted
    assert "nobody" in decision.messages[0]


def test_a_payload_is_read_only_after_it_was_verified() -> None:
    text = "variables.images.all(i, extractPayload(i, attestations.spdx).predicate.x == 'y')"
    decision = judged(world(), policy=changed(lambda spec: spec["validations"].insert(0, {"expression": text})))
    assert "extractPayload before a verification of spdx" in decision.messages[0]


def test_time_is_had_as_kyverno_has_it_and_nothing_else_has_a_now() -> None:
    later = judged(world(), now=NOW + timedelta(days=6))
    assert later.messages == about(f"{API}@{GOOD}", UNSCANNED)
    policy = changed(lambda spec: spec["validations"][0].update(expression="images.now() == images.now()"))
    assert not judged(world(), policy=policy).admitted


def test_evaluation_leaves_the_processs_recursion_limit_alone() -> None:
    import sys

    before = sys.getrecursionlimit()
    assert evaluate("1 + 1 == 2", {})
    assert sys.getrecursionlimit() == before
    with pytest.raises(ValueError, match="undeclared reference to 'nothing'"):
        evaluate("nothing", {})
