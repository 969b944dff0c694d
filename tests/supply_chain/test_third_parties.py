"""What we attach, verified by programs that share no code with us; and what cosign attaches, read by us. All offline."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from greenops_pipelines.evidence.signing import PublicKey, Signer, pae
from greenops_pipelines.supply_chain import attach, attestations
from greenops_pipelines.supply_chain.attestations import CYCLONEDX, PROVENANCE, SIGNATURE, SPDX, VULNERABILITIES
from greenops_pipelines.supply_chain.oci import Descriptor
from greenops_pipelines.supply_chain.provenance import LOCAL_BUILDER, OWN_BUILD_TYPE, Build
from greenops_pipelines.supply_chain.registry import Registry
from greenops_pipelines.supply_chain.vouching import Said, Scan, verdict, vouch
from tests.evidence.conftest import missing, tools
from tests.evidence.test_third_parties import _VERIFY_JS, COSIGN, NPM_PACKAGES
from tests.supply_chain.conftest import Debian, flip, pushed

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
NAME = "registry.example.com/team/app"
TYPES = {"slsaprovenance1": PROVENANCE, "cyclonedx": CYCLONEDX, "spdxjson": SPDX, "vuln": VULNERABILITIES}
"""cosign's words for predicate types."""
OLDER = ("--new-bundle-format=false",)
FORMATS = pytest.mark.parametrize("form", [(), OLDER], ids=["bundles", "tags"])
_CYCLONEDX = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": []}
_PREDICATE_NOTE = "dev.sigstore.bundle.predicateType"
_SPDX = {
    "spdxVersion": "SPDX-2.3",
    "dataLicense": "CC0-1.0",
    "SPDXID": "SPDXRef-DOCUMENT",
    "name": "app",
    "documentNamespace": "https://greenops-pipelines.example/spdx/app",
    "creationInfo": {"created": "2026-05-01T12:00:00Z", "creators": ["Tool: test"]},
}


@dataclass(frozen=True)
class Vouched:
    """An image in the real registry with everything attached to it."""

    repository: Registry
    digest: str

    @property
    def name(self) -> str:
        return f"{self.repository.name}@{self.digest}"

    def layer(self, kind: str, older: bool) -> Descriptor:
        """The blob that holds the statement of that type: the legacy tag's, or the bundle."""
        if older:
            suffix = "sig" if kind == SIGNATURE else "att"
            layers = self.repository.manifest(f"{self.digest.replace(':', '-')}.{suffix}").layers
            return next(each for each in layers if each.annotations.get("predicateType", SIGNATURE) == kind)
        manifests = [self.repository.manifest(each.digest) for each in self.repository.referrers(self.digest)]
        return next(each.layers[0] for each in manifests if each.annotations[_PREDICATE_NOTE] == kind)


@pytest.fixture(scope="module")
def image(debian: Debian, signer: Signer) -> Vouched:
    repository = debian.repository("team/vouched")
    digest = pushed(repository)
    scan = Scan("https://grype.example", "0.90.0", NOW, NOW, {"outcome": "passed", "counts": {}})
    said = Said("linux/amd64", digest, json.dumps(_CYCLONEDX).encode(), json.dumps(_SPDX).encode(), scan)
    build = Build(OWN_BUILD_TYPE, LOCAL_BUILDER, "", {}, {}, "", "8f2c1d0e" * 5)
    vouch(repository, NAME, digest, [said], build, signer, NOW)
    return Vouched(repository, digest)


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, env=env, check=False
    )


# --- openssl


@pytest.fixture
def key(signer: Signer, tmp_path: Path) -> Path:
    (tmp_path / "key.pub").write_bytes(signer.public.pem)
    return tmp_path / "key.pub"


def openssl(key: Path, signature: bytes, payload: bytes) -> str:
    (key.parent / "sig").write_bytes(signature)
    (key.parent / "payload").write_bytes(payload)
    return run("openssl", "dgst", "-sha256", "-verify", key.name, "-signature", "sig", "payload", cwd=key.parent).stdout


def test_openssl_verifies_the_legacy_signature(image: Vouched, key: Path) -> None:
    layer = image.layer(SIGNATURE, older=True)
    payload = image.repository.blob(layer, 10_000)
    signature = base64.b64decode(layer.annotations["dev.cosignproject.cosign/signature"])
    assert openssl(key, signature, payload) == "Verified OK\n"
    assert openssl(key, signature, payload.replace(image.digest[-8:].encode(), b"00000000")) == "Verification failure\n"


@pytest.mark.parametrize("kind", TYPES.values())
def test_openssl_verifies_the_envelope_of_either_way(image: Vouched, key: Path, kind: str) -> None:
    for older in (True, False):
        document = json.loads(image.repository.blob(image.layer(kind, older), 100_000))
        envelope = document if older else document["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"])
        assert json.loads(payload)["predicateType"] == kind
        # The pre-authentication encoding, as DSSE's own text has it.
        encoded = f"DSSEv1 28 application/vnd.in-toto+json {len(payload)} ".encode() + payload
        assert encoded == pae(payload)
        signature = base64.b64decode(envelope["signatures"][0]["sig"])
        assert openssl(key, signature, encoded) == "Verified OK\n"
        assert openssl(key, signature, payload) == "Verification failure\n"


# --- npm


@pytest.mark.real
@pytest.mark.parametrize("kind", [SIGNATURE, *TYPES.values()])
def test_npm_sigstore_verifies_the_bundle_and_refuses_another_payload(image: Vouched, key: Path, kind: str) -> None:
    home = tools() / "sigstore-js"
    if not (home / "node_modules/@sigstore/verify").is_dir():
        install = f"npm install --prefix {home} {' '.join(NPM_PACKAGES)}"
        if os.environ.get("GREENOPS_REQUIRE_REAL") != "1" or shutil.which("npm") is None:
            missing(f"@sigstore/verify: {install}")
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--prefix", str(home), "--no-audit", "--no-fund", *NPM_PACKAGES], check=True)
    script = home / "verify-image.js"
    script.write_text(_VERIFY_JS)
    bundle = image.repository.blob(image.layer(kind, older=False), 100_000)
    (key.parent / "bundle.json").write_bytes(bundle)
    command = ("node", script, key, key.parent / "bundle.json")
    assert run(*command, cwd=key.parent).stdout == "verified application/vnd.dev.sigstore.bundle.v0.3+json\n"
    document = json.loads(bundle)
    payload = base64.b64decode(document["dsseEnvelope"]["payload"]).replace(image.digest[-8:].encode(), b"00000000")
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    (key.parent / "bundle.json").write_text(json.dumps(document))
    refused = run(*command, cwd=key.parent)
    assert refused.returncode != 0
    assert "signature verification failed" in refused.stderr


# --- cosign


@dataclass(frozen=True)
class Cosign:
    """The real program, cut off from the network, with keys in its folder."""

    program: str
    folder: Path

    def __call__(self, *command: str) -> subprocess.CompletedProcess[str]:
        nowhere = "http://127.0.0.1:9"
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "COSIGN_PASSWORD": "",
            "HTTPS_PROXY": nowhere,
            "HTTP_PROXY": nowhere,
            "NO_PROXY": "127.0.0.1",
        }
        return run(self.program, *command, cwd=self.folder, env=env)

    def verify(self, image: str, *form: str, key: str = "key.pub") -> bool:
        return self._verified("verify", "--key", key, "--insecure-ignore-tlog=true", *form, image)

    def verify_attestation(self, image: str, kind: str, *form: str, key: str = "key.pub") -> bool:
        return self._verified(
            "verify-attestation", "--type", kind, "--key", key, "--insecure-ignore-tlog=true", *form, image
        )

    def _verified(self, *command: str) -> bool:
        done = self(*command)
        # It has to be a refusal, and no fault of the call.
        assert done.returncode == 0 or "unknown flag" not in done.stderr, done.stderr
        return done.returncode == 0 and "were verified against the specified public key" in done.stderr


@pytest.fixture
def cosign(tmp_path: Path, signer: Signer, other_signer: Signer) -> Cosign:
    program = shutil.which("cosign", path=f"{tools() / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        missing(f"cosign: GOBIN={tools() / 'bin'} go install {COSIGN}")
        raise AssertionError
    (tmp_path / "key.pub").write_bytes(signer.public.pem)
    (tmp_path / "other.pub").write_bytes(other_signer.public.pem)
    return Cosign(program, tmp_path)


@pytest.fixture
def flipped(debian: Debian) -> Iterator[Callable[[Descriptor], None]]:
    """Changes one byte of a blob in the registry's folder, for the test alone."""
    changed: list[Path] = []

    def change(layer: Descriptor) -> None:
        changed.append(debian.blob(layer.digest))
        flip(changed[-1])

    yield change
    for each in changed:
        flip(each)


@pytest.fixture
def bare(image: Vouched) -> str:
    """An image with nothing attached to it."""
    return f"{image.repository.name}@{pushed(image.repository, 'bare', b'bare')}"


@pytest.mark.real_go
@FORMATS
def test_cosign_verifies_the_signature_and_refuses_whatever_else(
    image: Vouched, bare: str, cosign: Cosign, form: tuple[str, ...], flipped: Callable[[Descriptor], None]
) -> None:
    assert cosign.verify(image.name, *form)
    assert cosign.verify(f"{image.repository.name}:v1", *form)
    assert not cosign.verify(image.name, *form, key="other.pub")
    assert not cosign.verify(bare, *form)
    flipped(image.layer(SIGNATURE, older=True))
    if not form:
        # cosign 3.1 takes any bundle of the key for a signature, and looks at the tag where it can read none.
        assert cosign.verify(image.name)
        for kind in (SIGNATURE, *TYPES.values()):
            assert cosign.verify(image.name)
            flipped(image.layer(kind, older=False))
    assert not cosign.verify(image.name, *form)


@pytest.mark.real_go
def test_cosign_3_takes_an_attestation_for_a_signature_and_we_do_not(
    repository: Registry, signer: Signer, cosign: Cosign
) -> None:
    """Why whoever gates with `cosign verify` alone should ask for an attestation of a type as well, and why `vouch` attaches to
    an unsigned image by tag alone.
    """
    digest = pushed(repository)
    statement = attestations.statement(NAME, [digest], CYCLONEDX, _CYCLONEDX)
    attach.attest(repository, digest, CYCLONEDX, statement, signer)
    assert cosign.verify(f"{repository.name}@{digest}")
    assert not cosign.verify(f"{repository.name}@{digest}", *OLDER)
    assert "signature" in verdict(repository, digest, [signer.public], []).missing

    unsigned = pushed(repository, "unsigned", b"an image that nobody signed")
    said = Said("linux/amd64", unsigned, json.dumps(_CYCLONEDX).encode(), json.dumps(_SPDX).encode())
    vouch(repository, NAME, unsigned, [said], None, signer, datetime.now(UTC))
    assert not cosign.verify(f"{repository.name}@{unsigned}")
    assert cosign.verify_attestation(f"{repository.name}@{unsigned}", "cyclonedx", *OLDER)


@pytest.mark.real_go
@FORMATS
@pytest.mark.parametrize("kind", TYPES)
def test_cosign_verifies_each_attestation_and_refuses_whatever_else(
    image: Vouched, bare: str, cosign: Cosign, kind: str, form: tuple[str, ...], flipped: Callable[[Descriptor], None]
) -> None:
    assert cosign.verify_attestation(image.name, kind, *form)
    assert not cosign.verify_attestation(image.name, kind, *form, key="other.pub")
    assert not cosign.verify_attestation(bare, kind, *form)
    flipped(image.layer(TYPES[kind], older=bool(form)))
    assert not cosign.verify_attestation(image.name, kind, *form)


@pytest.mark.real_go
def test_what_cosign_signs_and_attests_is_read_and_verified(
    repository: Registry, signer: Signer, cosign: Cosign
) -> None:
    digest = pushed(repository, "v1", b"signed by cosign")
    image = f"{repository.name}@{digest}"
    assert cosign("generate-key-pair").returncode == 0
    # One without services: by default cosign 3 asks the public ones.
    assert cosign("signing-config", "create", "--out", "offline.json").returncode == 0
    (cosign.folder / "sbom.json").write_text(json.dumps(_CYCLONEDX))
    attest = ("attest", "--key", "cosign.key", "--type", "cyclonedx", "--predicate", "sbom.json")
    newer = ("--signing-config", "offline.json", "-y")
    older = (*OLDER, "--use-signing-config=false", "--tlog-upload=false", "-y")
    for command in (("sign", "--key", "cosign.key", *newer), ("sign", "--key", "cosign.key", *older),
                    (*attest, *newer), (*attest, *older)):  # fmt: skip
        done = cosign(*command, image)
        assert done.returncode == 0, done.stderr
    theirs = PublicKey.parse((cosign.folder / "cosign.pub").read_bytes())
    found = attach.read(repository, digest, [theirs])
    assert sorted((each.predicate_type, each.way) for each in found) == [
        (CYCLONEDX, "referrer"),
        (CYCLONEDX, "tag"),
        (SIGNATURE, "referrer"),
        (SIGNATURE, "tag"),
    ]
    assert [each.fault for each in found] == [""] * 4
    assert [
        dict(each.statement.predicate) for each in found if each.statement and each.predicate_type == CYCLONEDX
    ] == [_CYCLONEDX] * 2
    assert [each.statement for each in attach.read(repository, digest, [signer.public])] == [None] * 4
    # Beside theirs, ours goes on, and theirs stays.
    attach.sign(repository, digest, NAME, signer)
    assert cosign.verify(image, key="key.pub")
    assert cosign.verify(image, *OLDER, key="key.pub")
    assert cosign.verify(image, *OLDER, key="cosign.pub")
    assert len(attach.read(repository, digest, [theirs, signer.public])) == 6
