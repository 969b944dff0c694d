"""Everything there is to say of an image, said once; and what is missing when it is read back, by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.errors import BadInput, ConfigurationError, ObjectMissing, ProviderError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.evidence.signing import Signer
from greenops_pipelines.supply_chain import admission, attach, attestations, cel_policy, provenance, vouching
from greenops_pipelines.supply_chain.admission_world import RepositoryWorld
from greenops_pipelines.supply_chain.attestations import CYCLONEDX, PROVENANCE, SIGNATURE, SPDX, VULNERABILITIES
from greenops_pipelines.supply_chain.declared import TrustedBuilder
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import OCI_INDEX, Repository
from greenops_pipelines.supply_chain.provenance import LOCAL_BUILDER, Build
from greenops_pipelines.supply_chain.registry import Registry
from greenops_pipelines.supply_chain.vouching import Said, Scan, Verdict, verdict, vouch
from tests.supply_chain.conftest import Debian, OciRegistry, flip, opened, pushed

NAME = "registry.example.com/team/app"
NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
HOSTED = "https://github.com/actions/runner/github-hosted"
TEKTON = "https://tekton.example.com/chains/v2"
BUILD = Build(provenance.OWN_BUILD_TYPE, LOCAL_BUILDER, "", {}, {}, "", "8f2c1d0e" * 5)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout", create=True)


def scan(at: datetime = NOW, outcome: str = "passed", **counts: int) -> Scan:
    return Scan("https://grype.example", "0.90.0", at - timedelta(hours=6), at, {"outcome": outcome, "counts": counts})


def said(digest: str, platform: str = "linux/amd64", found: Scan | None = None) -> Said:
    return Said(platform, digest, b'{"bomFormat": "CycloneDX"}', b'{"spdxVersion": "SPDX-2.3"}', found)


def image(
    repository: Repository,
    signer: Signer,
    build: Build | None = BUILD,
    found: Scan | None = None,
    content: bytes = b"layer",
) -> str:
    digest = pushed(repository, "v1", content)
    vouch(repository, NAME, digest, [said(digest, found=found)], build, signer, NOW)
    return digest


def judged(repository: Repository, digest: str, signer: Signer, *builders: TrustedBuilder, **wants: Any) -> Verdict:
    return verdict(repository, digest, [signer.public], builders, **wants)


def untagged(layout: Layout, digest: str, suffix: str) -> None:
    """Takes a list of signatures or attestations away."""
    tag = f"{digest.replace(':', '-')}.{suffix}"
    index = layout.folder / "index.json"
    document = json.loads(index.read_text())
    kept = [each for each in document["manifests"] if tag not in each.get("annotations", {}).values()]
    assert len(kept) == len(document["manifests"]) - 1
    index.write_text(json.dumps({**document, "manifests": kept}))


def unreferred(layout: Layout, digest: str, kind: str) -> None:
    for each in layout.referrers(digest):
        if each.annotations["dev.sigstore.bundle.predicateType"] == kind:
            layout.drop_referrer(digest, each.digest)


# --- what is said


def test_an_image_that_is_vouched_for_lacks_nothing(repository: Registry, signer: Signer) -> None:
    digest = image(repository, signer, found=scan())
    found = judged(repository, digest, signer, wants_scan=True)
    assert (found.ok, found.missing, found.level.level, found.level.builder) == (True, (), 1, LOCAL_BUILDER)
    assert sorted((each.predicate_type, each.way) for each in found.verified) == sorted(
        (kind, way) for kind in (SIGNATURE, CYCLONEDX, SPDX, PROVENANCE, VULNERABILITIES) for way in ("tag", "referrer")
    )
    assert len(found.found) == 10


def test_the_second_time_nothing_is_written(oci_registry: OciRegistry, signer: Signer) -> None:
    repository = opened(oci_registry.host)
    digest = image(repository, signer, found=scan())
    written = len(oci_registry.writes())
    vouch(repository, NAME, digest, [said(digest, found=scan())], BUILD, signer, NOW + timedelta(days=1))
    assert oci_registry.writes()[written:] == []
    vouch(repository, NAME, digest, [said(digest, found=scan(NOW + timedelta(days=1)))], BUILD, signer, NOW)
    # The newer scan: envelope, configuration and list of the tag; bundle and manifest of the referrer; the former's end.
    assert [each.partition("/v2/team/app/")[0] + each.split("/")[4] for each in oci_registry.writes()[written:]] == [
        "POST blobs", "PUT blobs", "POST blobs", "PUT blobs", "PUT manifests",
        "POST blobs", "PUT blobs", "PUT manifests", "DELETE manifests",
    ]  # fmt: skip


def test_only_what_is_built_here_is_signed_and_has_a_provenance(layout: Layout, signer: Signer) -> None:
    digest = image(layout, signer, build=None)
    found = judged(layout, digest, signer)
    assert found.missing == ("signature", "provenance")
    # A bundle of ours would pass for a signature with cosign 3.
    assert {(each.predicate_type, each.way) for each in found.verified} == {(CYCLONEDX, "tag"), (SPDX, "tag")}
    assert found.level.level == 0


def test_what_has_our_signature_already_is_attested_both_ways(layout: Layout, signer: Signer) -> None:
    digest = image(layout, signer, build=None)
    attach.sign(layout, digest, NAME, signer)
    assert image(layout, signer, build=None) == digest
    assert judged(layout, digest, signer).missing == ("provenance",)


def indexed(layout: Layout, *others: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """An index of an image for amd64 and one for arm64, and of what else is given; and the two, by architecture."""
    images = {arch: pushed(layout, arch, arch.encode(), arch) for arch in ("amd64", "arm64")}
    listed = [
        {**layout.manifest(digest).descriptor.as_document(), "platform": {"os": "linux", "architecture": arch}}
        for arch, digest in images.items()
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*listed, *others]}
    return layout.put_manifest(canonical.dumps(document), OCI_INDEX, "v1").digest, images


def entry(layout: Layout, content: bytes, **platform: str) -> dict[str, Any]:
    """One more entry of an index."""
    descriptor = layout.manifest(pushed(layout, content.decode(), content)).descriptor.as_document()
    return {**descriptor, **({"platform": platform} if platform else {})}


def scans(layout: Layout, digest: str, signer: Signer) -> list[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """Way, subjects and result of every scan of ours that is attached."""
    return [
        (each.way, each.statement.subjects, each.statement.predicate["scanner"]["result"])
        for each in attach.read(layout, digest, [signer.public])
        if each.statement and each.predicate_type == VULNERABILITIES
    ]


def test_of_an_index_with_a_platform_that_nobody_looked_at_no_scan_is_believed(layout: Layout, signer: Signer) -> None:
    index, images = indexed(layout)
    amd64 = images["amd64"]
    vouch(layout, NAME, index, [said(amd64, found=scan())], BUILD, signer, NOW)
    fault = f"linux/arm64: nobody has looked at it ({images['arm64']})"
    for way, about, result in scans(layout, index, signer):
        assert (way in attach.WAYS, about, result["outcome"], result["faults"]) == (
            True,
            (index,),
            "not believed",
            [fault],
        )
    assert [(about, result["outcome"], "faults" in result) for _, about, result in scans(layout, amd64, signer)] == [
        ((amd64,), "passed", False)
    ] * 2
    assert judged(layout, amd64, signer, wants_scan=True).missing == ()
    (why,) = judged(layout, index, signer, wants_scan=True).missing
    assert why.startswith(
        "a clean vulnerability scan (the newest is of 2026-05-01T12:00:00Z: not believed: linux/arm64: "
    )
    # SBOMs say what they are of, and may stand at both.
    for each in judged(layout, index, signer).verified:
        if each.statement and each.predicate_type in (CYCLONEDX, SPDX):
            assert each.statement.subjects == (index, amd64)


def test_the_policy_admits_no_index_of_which_a_platform_was_not_looked_at(layout: Layout, signer: Signer) -> None:
    index, images = indexed(layout)
    rules = admission.Rules("r", ("*",), (admission.Builder(LOCAL_BUILDER),), mode="Deny")
    text = admission.render(rules, signer.public.pem.decode())[admission.POLICY]

    def decided(digest: str) -> cel_policy.Decision:
        containers = [{"name": "c", "image": f"{NAME}@{digest}"}]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}}
        world = RepositoryWorld(lambda _: layout)
        return cel_policy.decide(text, {**pod, "spec": {"containers": containers}}, world, NOW + timedelta(hours=1))

    clean = scan(CRITICAL=0)
    everything = [said(digest, f"linux/{arch}", clean) for arch, digest in images.items()]
    vouch(layout, NAME, index, everything[:1], BUILD, signer, NOW)
    assert decided(images["amd64"]).admitted
    denied = decided(index)
    assert not denied.admitted
    assert "no attested scan that found 0 CRITICAL" in denied.messages[0]
    # Once both are looked at, one statement takes the place of both.
    vouch(layout, NAME, index, everything, BUILD, signer, NOW)
    for place in (index, *images.values()):
        assert decided(place).admitted
        assert {about for _, about, _ in scans(layout, place, signer)} == {(index, *images.values())}


@pytest.mark.parametrize(
    ("platform", "outcome"),
    [
        ({"os": "unknown", "architecture": "unknown"}, "passed"),
        ({"os": "windows", "architecture": "amd64"}, "not believed"),
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, "not believed"),
        ({"os": "linux", "architecture": "unknown"}, "not believed"),
        ({"os": "linux"}, "not believed"),
        ({}, "not believed"),
    ],
)
def test_what_a_machine_may_run_of_an_index_is_all_but_what_is_for_an_unknown_system(
    layout: Layout, signer: Signer, platform: dict[str, str], outcome: str
) -> None:
    index, images = indexed(layout, entry(layout, b"one-more", **platform))
    everything = [said(digest, f"linux/{arch}", scan()) for arch, digest in images.items()]
    vouch(layout, NAME, index, everything, BUILD, signer, NOW)
    assert {result["outcome"] for _, _, result in scans(layout, index, signer)} == {outcome}
    for digest in images.values():
        assert {result["outcome"] for _, _, result in scans(layout, digest, signer)} == {"passed"}


def test_a_failed_platform_keeps_its_own_outcome_beside_one_that_was_not_looked_at() -> None:
    one, two, three, index = (f"sha256:{digit * 64}" for digit in "1234")
    everything = [said(one, "linux/amd64", scan(outcome="failed", HIGH=2)), said(two, "linux/arm64", scan(LOW=1))]
    runs = {one: "linux/amd64", two: "linux/arm64", three: "windows/amd64"}
    found = [
        json.loads(payload)
        for kind, payload in vouching.statements(NAME, index, everything, None, NOW, runs)
        if kind == VULNERABILITIES
    ]
    assert [
        (
            [f"sha256:{each['digest']['sha256']}" for each in statement["subject"]],
            statement["predicate"]["scanner"]["result"]["outcome"],
            statement["predicate"]["scanner"]["result"]["counts"],
        )
        for statement in found
    ] == [
        ([one], "failed", {"HIGH": 2}),
        ([two], "passed", {"LOW": 1}),
        ([index], "not believed", {"HIGH": 2, "LOW": 1}),
    ]
    without = [said(one, "linux/amd64")]
    assert VULNERABILITIES not in dict(vouching.statements(NAME, index, without, None, NOW, runs))


def test_what_a_manifest_of_an_index_lacks_is_named_with_its_platform(layout: Layout, signer: Signer) -> None:
    index, images = indexed(layout)
    everything = [said(digest, f"linux/{arch}", scan()) for arch, digest in images.items()]
    vouch(layout, NAME, index, everything, BUILD, signer, NOW)
    platforms = {digest: f"linux/{arch}" for arch, digest in images.items()}

    def read(**wants: Any) -> Verdict:
        return vouching.verdicts(layout, index, platforms, [signer.public], [], **wants)

    found = read(wants_scan=True, now=NOW, scan_days=7)
    assert (found.digest, found.missing, found.level.level, len(found.verified)) == (index, (), 1, 3 * 10 + 4)
    arm64 = images["arm64"]
    unreferred(layout, arm64, PROVENANCE)
    untagged(layout, arm64, "sig")
    assert read().missing == tuple(
        f"{word} on linux/arm64's manifest {arm64}" for word in ("signature by tag", "provenance by referrer")
    )
    untagged(layout, arm64, "att")
    assert read().level.level == 0
    untagged(layout, index, "sig")
    assert read().missing[0] == "signature by tag"


def test_an_index_and_its_images_are_vouched_for_together(layout: Layout, signer: Signer) -> None:
    index, images = indexed(layout)
    vouch(
        layout,
        NAME,
        index,
        [said(digest, f"linux/{arch}", scan(HIGH=1)) for arch, digest in images.items()],
        BUILD,
        signer,
        NOW,
    )
    for place in (index, *images.values()):
        assert judged(layout, place, signer, wants_scan=True).missing == ()
    about = {
        kind: {
            each.statement.subjects
            for each in judged(layout, index, signer).found
            if each.statement and each.predicate_type == kind
        }
        for kind in (CYCLONEDX, PROVENANCE, VULNERABILITIES)
    }
    assert about[CYCLONEDX] == {(index, each) for each in images.values()}
    assert about[PROVENANCE] == about[VULNERABILITIES] == {(index, *images.values())}
    sboms = [e for e in judged(layout, images["arm64"], signer).verified if e.predicate_type == CYCLONEDX]
    assert {e.statement.subjects for e in sboms if e.statement} == {(index, images["arm64"])}


def predicate(found: Scan, *others: Scan | None) -> dict[str, Any]:
    everything = [said("sha256:" + "1" * 64, "linux/amd64", found)]
    everything += [said("sha256:" + "2" * 64, f"linux/arm{at}", each) for at, each in enumerate(others)]
    statements = dict(vouching.statements(NAME, "sha256:" + "3" * 64, everything, None, NOW))
    found_predicate: dict[str, Any] = json.loads(statements[VULNERABILITIES])["predicate"]
    return found_predicate


def test_a_scan_is_said_in_cosigns_words() -> None:
    assert predicate(scan(HIGH=2)) == {
        "invocation": {"parameters": [], "uri": "", "event_id": "", "builder.id": LOCAL_BUILDER},
        "scanner": {
            "uri": "https://grype.example",
            "version": "0.90.0",
            "db": {"uri": "", "version": "", "lastUpdate": "2026-05-01T06:00:00Z"},
            "result": {
                "outcome": "passed",
                "counts": {"HIGH": 2},
                "platforms": {"linux/amd64": {"outcome": "passed", "counts": {"HIGH": 2}}},
            },
        },
        "metadata": {"scanStartedOn": "2026-05-01T12:00:00Z", "scanFinishedOn": "2026-05-01T12:00:00Z"},
    }


def test_of_several_platforms_counts_add_up_the_oldest_dates_and_one_failure_fails() -> None:
    found = predicate(scan(HIGH=2, LOW=1), scan(NOW - timedelta(days=3), "failed", HIGH=1, CRITICAL=1))
    assert found["scanner"]["result"]["counts"] == {"HIGH": 3, "LOW": 1, "CRITICAL": 1}
    assert found["scanner"]["result"]["outcome"] == "failed"
    assert found["metadata"]["scanFinishedOn"] == "2026-04-28T12:00:00Z"
    assert predicate(scan(), None)["scanner"]["result"]["outcome"] == "not believed"
    assert predicate(scan(outcome="failed"), None)["scanner"]["result"]["outcome"] == "failed"
    assert predicate(scan(), scan())["scanner"]["result"]["outcome"] == "passed"
    assert predicate(scan(), scan(outcome="not believed"))["scanner"]["result"]["outcome"] == "not believed"
    assert predicate(scan(outcome=""))["scanner"]["result"]["outcome"] == "not believed"


@pytest.mark.parametrize("document", [b"", b"[]", b'{"a": 1, "a": 2}'])
def test_what_is_no_sbom_is_not_attested(document: bytes, layout: Layout, signer: Signer) -> None:
    digest = pushed(layout)
    broken = Said("linux/amd64", digest, document, b"{}")
    with pytest.raises(ProviderError, match=r"^SBOM: "):
        vouch(layout, NAME, digest, [broken], None, signer, NOW)
    assert judged(layout, digest, signer).found == ()


def test_a_provenance_is_never_restated_even_where_one_way_was_lost(layout: Layout, signer: Signer) -> None:
    digest = image(layout, signer)
    untagged(layout, digest, "att")
    assert judged(layout, digest, signer).missing == (
        "CycloneDX SBOM by tag",
        "SPDX SBOM by tag",
        "provenance by tag",
    )
    vouch(layout, NAME, digest, [said(digest)], BUILD, signer, NOW + timedelta(days=30))
    found = judged(layout, digest, signer)
    assert found.missing == ()
    finished = [
        (each.way, each.statement.predicate["runDetails"]["metadata"]["finishedOn"])
        for each in found.found
        if each.statement and each.predicate_type == PROVENANCE
    ]
    assert finished == [("tag", "2026-05-01T12:00:00Z"), ("referrer", "2026-05-01T12:00:00Z")]


# --- what is missing


def test_of_an_image_with_nothing_everything_is_missing(layout: Layout, signer: Signer) -> None:
    found = judged(layout, pushed(layout), signer, wants_scan=True)
    none = "a clean vulnerability scan (none is attached)"
    assert found.missing == ("signature", "CycloneDX SBOM", "SPDX SBOM", "provenance", none)
    assert not found.ok


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        (SIGNATURE, "signature by referrer"),
        (CYCLONEDX, "CycloneDX SBOM by referrer"),
        (SPDX, "SPDX SBOM by referrer"),
        (PROVENANCE, "provenance by referrer"),
        (VULNERABILITIES, "vulnerability scan by referrer"),
    ],
)
def test_what_is_there_in_one_way_alone_is_named_with_the_other(
    layout: Layout, signer: Signer, kind: str, missing: str
) -> None:
    digest = image(layout, signer, found=scan())
    unreferred(layout, digest, kind)
    assert judged(layout, digest, signer, wants_scan=True).missing == (missing,)


def test_a_signature_that_is_lost_by_tag_is_named(layout: Layout, signer: Signer) -> None:
    digest = image(layout, signer)
    untagged(layout, digest, "sig")
    assert judged(layout, digest, signer).missing == ("signature by tag",)


def test_another_key_has_said_nothing(layout: Layout, signer: Signer, other_signer: Signer) -> None:
    digest = image(layout, other_signer)
    found = judged(layout, digest, signer)
    assert found.missing == ("signature", "CycloneDX SBOM", "SPDX SBOM", "provenance")
    assert (found.verified, found.level.level) == ((), 0)
    assert len(found.found) == 8


def test_what_was_said_of_another_image_is_not_said_of_this_one(layout: Layout, signer: Signer) -> None:
    ours, evil = image(layout, signer), pushed(layout, "evil", b"evil")
    for suffix in ("sig", "att"):
        list_of = layout.manifest(f"{ours.replace(':', '-')}.{suffix}")
        layout.put_manifest(list_of.data, list_of.media_type, f"{evil.replace(':', '-')}.{suffix}")
    for each in layout.referrers(ours):
        document = {**layout.manifest(each.digest).document, "subject": layout.manifest(evil).descriptor.as_document()}
        layout.put_manifest(canonical.dumps(document), each.media_type)
    found = judged(layout, evil, signer)
    assert found.missing == ("signature", "CycloneDX SBOM", "SPDX SBOM", "provenance")
    assert found.level.reason == "no provenance that verifies is attached"
    assert len(found.found) == 8
    assert all(each.fault.endswith(f"it is about {ours}, and not about {evil}") for each in found.found)
    assert judged(layout, ours, signer).ok


def test_a_flipped_byte_in_the_registry_is_missing(repository: Registry, debian: Debian, signer: Signer) -> None:
    digest = image(repository, signer, content=b"flipped later")
    (layer,) = repository.manifest(f"{digest.replace(':', '-')}.sig").layers
    flip(debian.blob(layer.digest))
    assert judged(repository, digest, signer).missing == ("signature by tag",)


# --- a scan that was asked for


@pytest.mark.parametrize(
    ("found", "wants", "why"),
    [
        (scan(), {}, ""),
        (scan(outcome="failed", HIGH=1), {}, "the newest is of 2026-05-01T12:00:00Z: failed"),
        (scan(outcome="not believed"), {}, "the newest is of 2026-05-01T12:00:00Z: not believed"),
        (scan(NOW - timedelta(days=365)), {}, ""),
        (scan(NOW - timedelta(days=7, seconds=-1)), {"scan_days": 7}, ""),
        (
            scan(NOW - timedelta(days=7)),
            {"scan_days": 7},
            "the newest is of 2026-04-24T12:00:00Z: allowed is one of the last 7 days",
        ),
        (scan(NOW + timedelta(hours=1)), {"scan_days": 7}, "the newest is of 2026-05-01T13:00:00Z: in the future"),
        (scan(HIGH=1, CRITICAL=0), {"severities": ["CRITICAL"]}, ""),
        (
            scan(HIGH=1, CRITICAL=0),
            {"severities": ["CRITICAL", "HIGH"]},
            "the newest is of 2026-05-01T12:00:00Z: 1 HIGH",
        ),
        (scan(HIGH=0), {"severities": ["CRITICAL"]}, "the newest is of 2026-05-01T12:00:00Z: no count of CRITICAL"),
    ],
)
def test_a_scan_that_is_wanted_must_be_clean_and_young(
    layout: Layout, signer: Signer, found: Scan, wants: dict[str, Any], why: str
) -> None:
    digest = image(layout, signer, found=found)
    assert judged(layout, digest, signer).ok
    missing = judged(layout, digest, signer, wants_scan=True, now=NOW, **wants).missing
    assert missing == ((f"a clean vulnerability scan ({why})",) if why else ())


@pytest.mark.parametrize("newest", ["passed", "failed"])
def test_of_several_scans_the_newest_counts(layout: Layout, signer: Signer, newest: str) -> None:
    digest = image(layout, signer, found=scan(outcome=newest))
    older = scan(NOW - timedelta(hours=1), "failed" if newest == "passed" else "passed")
    payload = dict(vouching.statements(NAME, digest, [said(digest, found=older)], None, NOW))[VULNERABILITIES]
    attach.attest(layout, digest, VULNERABILITIES, payload, signer, there=())  # as one that could not be deleted
    assert len(scans(layout, digest, signer)) == 4
    assert judged(layout, digest, signer, wants_scan=True).ok is (newest == "passed")


def test_a_scan_of_ours_without_a_date_is_not_passed_over(layout: Layout, signer: Signer) -> None:
    digest = image(layout, signer, found=scan())
    payload = attestations.statement(NAME, [digest], VULNERABILITIES, {"metadata": {"scanFinishedOn": "today"}})
    attach.attest(layout, digest, VULNERABILITIES, payload, signer, there=())
    assert judged(layout, digest, signer, wants_scan=True).missing == (
        "a clean vulnerability scan (one does not say of when it is)",
    )


def test_a_scan_by_another_key_is_no_scan(layout: Layout, signer: Signer, other_signer: Signer) -> None:
    digest = image(layout, signer, found=scan(outcome="failed"))
    vouch(layout, NAME, digest, [said(digest, found=scan(NOW + timedelta(days=1)))], BUILD, other_signer, NOW)
    assert judged(layout, digest, signer, wants_scan=True).missing == (
        "a clean vulnerability scan (the newest is of 2026-05-01T12:00:00Z: failed)",
    )


# --- builders


@pytest.mark.parametrize(
    ("builder", "declared", "missing"),
    [
        (LOCAL_BUILDER, [], ()),
        (HOSTED, [], (f"provenance by a declared builder (found {HOSTED})",)),
        (HOSTED, [HOSTED], ()),
        (HOSTED, [LOCAL_BUILDER, HOSTED], ()),
        (LOCAL_BUILDER, [HOSTED], (f"provenance by a declared builder (found {LOCAL_BUILDER})",)),
        (f"{HOSTED}/x", [HOSTED], (f"provenance by a declared builder (found {HOSTED}/x)",)),
    ],
)
def test_a_provenance_counts_where_its_builder_is_declared(
    layout: Layout, signer: Signer, builder: str, declared: list[str], missing: tuple[str, ...]
) -> None:
    digest = image(layout, signer, Build("https://t.example/v1", builder, "", {}))
    found = judged(layout, digest, signer, *map(TrustedBuilder, declared))
    # Whoever is named, we have signed it inside the build.
    assert (found.missing, found.level.level, found.level.builder) == (missing, 1, builder)


def test_our_key_does_not_speak_for_a_builder_with_a_key_of_its_own(
    layout: Layout, signer: Signer, other_signer: Signer
) -> None:
    digest = image(layout, signer, Build("https://t.example/v1", TEKTON, "", {}))
    found = judged(layout, digest, signer, TrustedBuilder(TEKTON, other_signer.public, 3))
    assert (found.missing, found.level.level) == ((f"provenance by a declared builder (found {TEKTON})",), 1)


def built(layout: Layout, digest: str, signer: Signer, builder: str, kind: str = PROVENANCE) -> None:
    """What a build platform attaches itself."""
    words = provenance.predicate(Build("https://t.example/v1", builder, "", {}), None, NOW, {"image": NAME})
    attach.attest(layout, digest, kind, attestations.statement(NAME, [digest], kind, words), signer)


def test_a_builders_provenance_may_lie_in_one_way_alone(layout: Layout, signer: Signer, other_signer: Signer) -> None:
    digest = image(layout, signer, build=None)
    attach.sign(layout, digest, NAME, signer)
    image(layout, signer, build=None)
    built(layout, digest, other_signer, TEKTON)
    unreferred(layout, digest, PROVENANCE)
    found = judged(layout, digest, signer, TrustedBuilder(TEKTON, other_signer.public, 3))
    assert (found.missing, found.level.level, found.level.builder) == ((), 3, TEKTON)
    assert judged(layout, digest, signer).missing == ("provenance",)


def test_a_builders_key_counts_for_provenance_alone(layout: Layout, signer: Signer, other_signer: Signer) -> None:
    digest = image(layout, other_signer, found=scan())
    built(layout, digest, other_signer, TEKTON)
    found = judged(layout, digest, signer, TrustedBuilder(TEKTON, other_signer.public, 3), wants_scan=True)
    none = "a clean vulnerability scan (none is attached)"
    assert found.missing == ("signature", "CycloneDX SBOM", "SPDX SBOM", none)


def test_a_builders_key_counts_for_its_own_builds_alone(layout: Layout, signer: Signer, other_signer: Signer) -> None:
    digest = image(layout, signer, build=None)
    attach.sign(layout, digest, NAME, signer)
    image(layout, signer, build=None)
    built(layout, digest, other_signer, HOSTED)
    found = judged(layout, digest, signer, TrustedBuilder(TEKTON, other_signer.public, 3), TrustedBuilder(HOSTED))
    assert (found.missing, found.level.level) == (("provenance",), 0)


def test_our_own_key_cannot_be_declared_as_a_builders(layout: Layout, signer: Signer) -> None:
    digest = image(layout, signer)
    with pytest.raises(ConfigurationError, match=rf"^builder {TEKTON}: found this home's own key, allowed: "):
        judged(layout, digest, signer, TrustedBuilder(TEKTON, signer.public, 3))


# --- what a policy asks


def test_a_policys_questions_are_answered_from_the_bytes(
    repository: Registry, signer: Signer, other_signer: Signer
) -> None:
    digest = image(repository, signer)
    attach.sign(repository, digest, NAME, other_signer)
    world = RepositoryWorld(lambda reference: opened(reference.registry, reference.repository))
    named, pem = f"{repository.name}:v1", signer.public.pem.decode()
    assert world.resolve(named) == world.resolve(f"{repository.name}@{digest}") == digest
    assert world.signatures(named, pem) == 1
    assert [each["predicate"] for each in world.attestations(named, CYCLONEDX, pem)] == [{"bomFormat": "CycloneDX"}]
    assert world.attestations(named, VULNERABILITIES, pem) == []
    assert world.attestations(named, CYCLONEDX, other_signer.public.pem.decode()) == []
    moved = pushed(repository, "v1", b"another")
    world = RepositoryWorld(lambda reference: opened(reference.registry, reference.repository))
    assert (world.resolve(named), world.signatures(named, pem)) == (moved, 0)
    with pytest.raises(ObjectMissing):
        world.resolve(f"{repository.name}:nope")
    with pytest.raises(BadInput, match="the policy's key: found no public key"):
        world.signatures(named, "nonsense")


def test_a_number_that_canonical_json_cannot_carry_is_no_fault_of_the_statement(layout: Layout, signer: Signer) -> None:
    digest = pushed(layout)
    words = json.loads(attestations.statement(NAME, [digest], CYCLONEDX, {}))
    payload = json.dumps({**words, "predicate": {"serial": 2**60}}).encode()
    attach.attest(layout, digest, CYCLONEDX, payload, signer)
    world = RepositoryWorld(lambda _: layout)
    (found,) = world.attestations(f"x.example/app@{digest}", CYCLONEDX, signer.public.pem.decode())
    assert found["predicate"] == {"serial": 2**60}


def test_where_any_bundle_is_attached_the_tags_do_not_count_as_with_kyverno(
    layout: Layout, signer: Signer, other_signer: Signer
) -> None:
    digest = pushed(layout)
    attach.sign(layout, digest, NAME, signer)
    asked, pem = f"x.example/app@{digest}", signer.public.pem.decode()
    unreferred(layout, digest, SIGNATURE)
    assert RepositoryWorld(lambda _: layout).signatures(asked, pem) == 1
    payload = attestations.statement(NAME, [digest], CYCLONEDX, {})
    attach.attest(layout, digest, CYCLONEDX, payload, other_signer, ("referrer",))
    assert RepositoryWorld(lambda _: layout).signatures(asked, pem) == 0
    attach.sign(layout, digest, NAME, signer)
    assert RepositoryWorld(lambda _: layout).signatures(asked, pem) == 1


def test_our_bundle_about_an_sbom_is_no_signature_here(layout: Layout, signer: Signer) -> None:
    digest = pushed(layout)
    attach.attest(layout, digest, CYCLONEDX, attestations.statement(NAME, [digest], CYCLONEDX, {}), signer)
    asked = f"x.example/app@{digest}"
    assert RepositoryWorld(lambda _: layout).signatures(asked, signer.public.pem.decode()) == 0
