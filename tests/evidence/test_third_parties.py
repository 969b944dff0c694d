"""One bundle, verified by programs that share no code with us, with nothing but the files in it. All offline."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from tests.evidence.conftest import Specimens, missing, tools, unpacked

NPM_PACKAGES = ("@sigstore/verify@3.1.1", "@sigstore/bundle@4.0.0")
COSIGN = "github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3"

_VERIFY_JS = """
const { bundleFromJSON } = require('@sigstore/bundle');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');
const { readFileSync } = require('fs');
const { createPublicKey } = require('crypto');
const publicKey = createPublicKey(readFileSync(process.argv[2]));
const none = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
const trust = toTrustMaterial(none, hint => {
  const der = publicKey.export({ type: 'spki', format: 'der' });
  const own = require('crypto').createHash('sha256').update(der).digest('base64');
  if (hint !== own) throw new Error(`another key: ${hint}`);
  return { publicKey, validFor: () => true };
});
const bundle = bundleFromJSON(JSON.parse(readFileSync(process.argv[3])));
const thresholds = { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 };
new Verifier(trust, thresholds).verify(toSignedEntity(bundle));
console.log('verified', bundle.mediaType);
"""


@pytest.fixture
def folder(specimens: Specimens, tmp_path: Path) -> Path:
    return unpacked(specimens.one, tmp_path)


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, env=env, check=False
    )


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def test_openssl_verifies_the_signature_and_refuses_another_statement(folder: Path) -> None:
    command = ("openssl", "dgst", "-sha256", "-verify", "keys/evidence.pub", "-signature", "statement.json.sig")
    assert run(*command, "statement.json", cwd=folder).stdout == "Verified OK\n"
    spoil(folder / "statement.json")
    assert run(*command, "statement.json", cwd=folder).returncode == 1


def test_openssl_verifies_the_time_stamp_and_refuses_it_for_another_signature(folder: Path) -> None:
    command = ("openssl", "ts", "-verify", "-in", "statement.json.sig.tsr", "-CAfile", "keys/tsa-ca.pem", "-data")
    assert "Verification: OK" in run(*command, "statement.json.sig", cwd=folder).stdout
    assert run(*command, "statement.json", cwd=folder).returncode == 1


def test_gpgv_verifies_the_second_signature_and_refuses_another_statement(folder: Path) -> None:
    command = ("gpgv", "--keyring", folder / "keys/gpg.pub", "statement.json.asc", "statement.json")
    found = run(*command, cwd=folder)
    assert found.returncode == 0, found.stderr
    assert "Good signature" in found.stderr
    spoil(folder / "statement.json")
    assert "BAD signature" in run(*command, cwd=folder).stderr


def test_sha256sum_agrees_with_the_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    sums = "".join(f"{file['sha256']}  {file['path']}\n" for file in manifest["files"])
    (folder / "sums").write_text(sums)
    assert run("sha256sum", "--check", "--strict", "sums", cwd=folder).returncode == 0
    assert {file["path"] for file in manifest["files"]} >= {"files/scorecard.json", "files/drill/steps.log"}


def test_securesystemslib_verifies_the_envelope_and_refuses_another_payload(folder: Path) -> None:
    document = json.loads((folder / "statement.dsse.json").read_text())
    key = SSlibKey.from_crypto(
        load_pem_public_key((folder / "keys/evidence.pub").read_bytes()), document["signatures"][0]["keyid"]
    )
    Envelope.from_dict(document).verify([key], 1)
    document = json.loads((folder / "statement.dsse.json").read_text())
    document["payload"] = base64.b64encode(base64.b64decode(document["payload"]).replace(b"passed", b"failed")).decode()
    with pytest.raises(VerificationError):
        Envelope.from_dict(document).verify([key], 1)


def documented(folder: Path, *programs: str) -> list[str]:
    """The commands of docs/evidence.md that an auditor is told to type, each on one line."""
    text = (Path(__file__).parents[2] / "docs/evidence.md").read_text(encoding="utf-8").replace(" \\\n", " ")
    block = text.split("tar xf ID.tar && cd ID\n")[1].split("```")[0]
    shutil.copy(folder / "keys/evidence.pub", folder.parent / "evidence.pub")
    return [line for line in block.splitlines() if line.startswith(programs)]


def test_the_documented_commands_work(folder: Path) -> None:
    commands = documented(folder, "openssl", "gpgv", "python3")
    assert len(commands) == 4
    for command in commands:
        done = run("bash", "-o", "pipefail", "-c", command, cwd=folder)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@pytest.mark.real
def test_npm_sigstore_verifies_the_bundle_and_refuses_another_payload(folder: Path) -> None:
    home = tools() / "sigstore-js"
    if not (home / "node_modules/@sigstore/verify").is_dir():
        install = f"npm install --prefix {home} {' '.join(NPM_PACKAGES)}"
        if os.environ.get("GREENOPS_REQUIRE_REAL") != "1" or shutil.which("npm") is None:
            missing(f"@sigstore/verify: {install}")
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--prefix", str(home), "--no-audit", "--no-fund", *NPM_PACKAGES], check=True)
    script = home / "verify-evidence.js"
    script.write_text(_VERIFY_JS)
    command = ("node", script, folder / "keys/evidence.pub", folder / "statement.sigstore.json")
    assert run(*command, cwd=folder).stdout == "verified application/vnd.dev.sigstore.bundle.v0.3+json\n"
    document = json.loads((folder / "statement.sigstore.json").read_text())
    payload = base64.b64decode(document["dsseEnvelope"]["payload"]).replace(b"passed", b"failed")
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    (folder / "statement.sigstore.json").write_text(json.dumps(document))
    refused = run(*command, cwd=folder)
    assert refused.returncode != 0
    assert "signature verification failed" in refused.stderr


@pytest.mark.real_go
def test_cosign_verifies_every_file_of_the_bundle_and_refuses_another(folder: Path, tmp_path: Path) -> None:
    cosign = shutil.which("cosign", path=f"{tools() / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if cosign is None:
        missing(f"cosign: GOBIN={tools() / 'bin'} go install {COSIGN}")
        return
    options = ("--key", "keys/evidence.pub", "--bundle", "statement.sigstore.json", "--insecure-ignore-tlog=true")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    for name in ("manifest.json", "files/scorecard.json", "files/drill/steps.log"):
        found = run(cosign, "verify-blob", *options, name, cwd=folder, env=env)
        assert found.returncode == 0, found.stderr
        assert "Verified OK" in found.stderr + found.stdout
    predicate = "https://greenops-pipelines.example/evidence/v1"
    attested = run(
        cosign, "verify-blob-attestation", *options, "--type", predicate, "manifest.json", cwd=folder, env=env
    )
    assert attested.returncode == 0, attested.stderr
    for command in documented(folder, "cosign"):
        done = run("bash", "-c", command.replace("cosign", cosign, 1), cwd=folder, env=env)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    spoil(folder / "files/scorecard.json")
    assert run(cosign, "verify-blob", *options, "files/scorecard.json", cwd=folder, env=env).returncode != 0
