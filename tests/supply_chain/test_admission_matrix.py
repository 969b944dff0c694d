"""The admission matrix out of the rendered text and a repository's bytes: right for the right reason, denied after any one bit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.evidence.signing import Signer
from greenops_pipelines.lake.supply_tables import ADMISSION_CASES
from greenops_pipelines.process import docker_registry
from greenops_pipelines.supply_chain import admission, admission_trial, cel_policy, provenance
from greenops_pipelines.supply_chain.admission import Builder, Rules
from greenops_pipelines.supply_chain.admission_cases import ADMITTED, DENIED, NO_SBOM, NOT_SIGNED, Case, Stage, tried
from greenops_pipelines.supply_chain.admission_trial import Trial, cases_table, try_out
from greenops_pipelines.supply_chain.admission_world import RepositoryWorld
from greenops_pipelines.supply_chain.cel_policy import Decision
from greenops_pipelines.supply_chain.declared import Admission, Gate, Images, TrustedBuilder
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import Repository
from tests.supply_chain.conftest import Debian, flip
from tests.supply_chain.small_images import NOW

PLACE = "registry.example.com/team/app"
RULES = Rules(
    name="greenops-images",
    images=("registry.example.com/*",),
    builders=(Builder(provenance.LOCAL_BUILDER),),
    mode="Deny",
)
NO_REGISTRY = pytest.mark.skipif(not docker_registry.found(), reason="docker-registry is not installed")


class Hall:
    """A repository with one good image in it, and where its bytes lie."""

    def __init__(self, repository: Repository, blob: Callable[[str], Path], signer: Signer) -> None:
        self.repository, self.blob = repository, blob
        self.text = admission.render(RULES, signer.public.pem.decode())[admission.POLICY]
        self._cases = Stage(repository, PLACE, signer, provenance.LOCAL_BUILDER, NOW, 7, "CRITICAL").cases()

    def case(self, name: str) -> Case:
        """One of those to come."""
        return next(case for case in self._cases if case.name == name)

    def decided(self, pod: Mapping[str, Any], text: str = "") -> Decision:
        return cel_policy.decide(text or self.text, pod, RepositoryWorld(lambda _: self.repository), NOW)

    @cached_property
    def pod(self) -> Mapping[str, Any]:
        """Of the good image."""
        return self.case("signed and attested").pod

    @property
    def digest(self) -> str:
        return self.repository.manifest("case-0").digest

    def decide(self, text: str = "") -> Decision:
        return self.decided(self.pod, text)

    def files(self) -> dict[str, str]:
        """What the decision rests on: in words, and by digest."""
        found = {"the image's manifest": self.digest}
        for suffix in ("sig", "att"):
            manifest = self.repository.manifest(f"{self.digest.replace(':', '-')}.{suffix}")
            found[f".{suffix}"] = manifest.digest
            found |= {f".{suffix} {at}": layer.digest for at, layer in enumerate(manifest.layers)}
        for at, each in enumerate(self.repository.referrers(self.digest)):
            manifest = self.repository.manifest(each.digest)
            found[f"referrer {at}"] = manifest.digest
            found[f"referrer {at}'s bundle"] = manifest.layers[0].digest
        return found


@contextmanager
def flipped(path: Path, at: int | None = None) -> Iterator[None]:
    before = path.read_bytes()
    try:
        flip(path, at)
        yield
    finally:
        path.write_bytes(before)


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Hall:
    found = _in_layout(tmp_path_factory.mktemp("hall"), signer)
    assert found.decide().admitted
    return found


@pytest.fixture
def empty(tmp_path: Path, signer: Signer) -> Hall:
    return _in_layout(tmp_path, signer)


def _in_layout(folder: Path, signer: Signer) -> Hall:
    layout = Layout(folder / "layout", create=True)
    return Hall(layout, lambda digest: layout.folder / "blobs/sha256" / digest.removeprefix("sha256:"), signer)


def denied(decision: Decision) -> str:
    """The words of a denial: it must have some."""
    assert not decision.admitted
    assert decision.messages
    assert all(decision.messages)
    return "; ".join(decision.messages)


def trial(tmp_path: Path, signer: Signer, rules: Rules = RULES) -> Trial:
    return try_out(rules, signer, tmp_path / "scratch", NOW, lambda _: None)


def right(found: Trial, cases: int) -> None:
    assert [(each.case.name, each.found, each.message) for each in found.tried if not each.is_right] == []
    assert len(found.tried) == cases
    assert sum(each.found == DENIED for each in found.tried) == 18


# --- every case


@pytest.mark.real
@NO_REGISTRY
def test_every_case_is_decided_as_it_must_be_over_the_bytes_of_a_real_registry(tmp_path: Path, signer: Signer) -> None:
    found = trial(tmp_path, signer)
    right(found, 22)
    assert found.over == "a real registry (docker-registry)"
    rows = cases_table(found)
    assert rows.schema == ADMISSION_CASES.schema
    # Neither its port nor its folder: the same table the next time, and on every machine.
    assert not re.search(r"127\.0\.0\.1|/tmp|scratch", str(rows["message"].to_pylist()))
    assert list((tmp_path / "scratch").iterdir()) == []


def test_every_case_is_decided_as_it_must_be_over_a_layout(
    tmp_path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = trial(tmp_path, signer, replace(RULES, images=("*",), severities=("HIGH", "CRITICAL"), scan_days=3))
    right(found, 21)  # every image is the policy's affair
    assert found.over == "an OCI layout (docker-registry is not installed)"
    assert {each.case.name for each in found.tried} >= {"a scan 4 days old", "a CRITICAL vulnerability"}
    assert str(tmp_path) not in str(cases_table(found)["message"].to_pylist())


@pytest.mark.parametrize(
    ("expected", "reason", "is_right"),
    [
        (DENIED, NOT_SIGNED, True),
        (DENIED, NO_SBOM, False),
        (DENIED, "of the last 8 days", False),
        (ADMITTED, "", False),
    ],
)
def test_a_denial_for_another_reason_is_not_right(empty: Hall, expected: str, reason: str, is_right: bool) -> None:
    """An image that is attested and not signed: everything but the signature holds."""
    case = replace(empty.case("attested and not signed"), expected=expected, reason=reason)
    found = tried(case, empty.decided)
    assert (found.found, found.is_right) == (DENIED, is_right)


def test_a_policy_that_admits_everything_is_right_about_the_good_image_alone(empty: Hall) -> None:
    assert empty.text.count(") == 0\n") == 5
    empty.text = empty.text.replace(") == 0\n", ") >= 0\n")
    assert tried(empty.case("signed and attested"), empty.decided).is_right
    found = tried(empty.case("no SBOM"), empty.decided)
    assert (found.found, found.is_right) == (ADMITTED, False)


# --- one bit


def _key_positions(text: str) -> list[int]:
    """Every eleventh character of the key's Base64, and the first of its lines."""
    body = re.search(r"-----BEGIN PUBLIC KEY-----\n(.*?)-----END", text, re.S)
    assert body is not None
    return [at for at in range(body.start(1), body.end(1)) if not text[at].isspace()][::11]


def test_the_good_image_is_admitted(hall: Hall) -> None:
    decision = hall.decide()
    assert (decision.admitted, decision.enforced, decision.messages) == (True, True, ())
    assert decision.digests == {f"{PLACE}:case-0": hall.digest}


def test_one_bit_of_the_key_in_the_text_denies(hall: Hall) -> None:
    positions = _key_positions(hall.text)
    assert len(positions) == 12
    for at in positions:
        text = hall.text[:at] + chr(ord(hall.text[at]) ^ 1) + hall.text[at + 1 :]
        assert text != hall.text
        said = denied(hall.decide(text))
        assert "key" in said


def test_one_bit_of_any_file_that_the_decision_rests_on_denies(hall: Hall) -> None:
    files = hall.files()
    # The manifest; .sig and its payload, .att and four envelopes; five bundles in a manifest each.
    assert len(files) == 1 + 2 + 5 + 10
    for name, digest in files.items():
        with flipped(hall.blob(digest)):
            said = denied(hall.decide())
        assert ("other bytes" if name == "the image's manifest" else "is damaged: ") in said, name
    assert hall.decide().admitted


@pytest.mark.real
def test_one_bit_of_any_kind_of_file_in_a_real_registrys_folder_denies(debian: Debian, signer: Signer) -> None:
    hall = Hall(debian.repository("team/flipped"), debian.blob, signer)
    assert hall.decide().admitted
    files = hall.files()
    # The index under the fallback tag: this registry does not know the referrers API.
    files["what is attached"] = hall.repository.manifest(hall.digest.replace(":", "-")).digest
    kinds = ("the image's manifest", "what is attached", ".sig", ".sig 0", ".att", ".att 2", "referrer 1")
    for name in (*kinds, "referrer 0's bundle"):
        with flipped(debian.blob(files[name])):
            said = denied(hall.decide())
        assert ("the registry lies" if name == "the image's manifest" else "is damaged: ") in said, name
    assert hall.decide().admitted


# --- what is declared


def declared(*builders: TrustedBuilder, **changes: Any) -> Images:
    return Images((), Gate(scan_days=3), Path("vex"), (), builders, Admission(**changes), Path())


def test_what_is_declared_is_what_is_rendered(signer: Signer, other_signer: Signer) -> None:
    builders = (TrustedBuilder("https://a.example/x"), TrustedBuilder("https://b.example/y", other_signer.public, 3))
    found = admission_trial.rules(declared(*builders, images=("r.example/*",), mode="Deny"), [])
    assert found.builders == (
        Builder("https://a.example/x"),
        Builder("https://b.example/y", other_signer.public.pem.decode()),
    )
    assert (found.images, found.scan_days, found.severities, found.mode) == (("r.example/*",), 3, ("CRITICAL",), "Deny")
    assert admission_trial.rules(declared(), []).builders == (Builder(provenance.LOCAL_BUILDER),)


@pytest.mark.parametrize(
    ("glob", "place"),
    [
        ("*", "registry.example.com/greenops-admission"),
        ("registry.example.com/*", "registry.example.com/greenops-admission"),
        ("registry.example.com/team/app*", "registry.example.com/team/appgreenops-admission"),
        ("registry.example.com/team/app:*", "registry.example.com/team/app"),
    ],
)
def test_the_trials_images_are_called_as_the_policy_asks_for(glob: str, place: str) -> None:
    assert admission_trial._place(glob) == place
