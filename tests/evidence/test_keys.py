"""Keys: made once, refused where anyone else could have had them, never replaced in silence. GnuPG's and a KMS' too."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from moto.server import ThreadedMotoServer

from greenops_pipelines.errors import ConfigurationError, PermanentError
from greenops_pipelines.evidence.keys import FileSigner, Keys
from greenops_pipelines.evidence.kms import KmsSigner
from greenops_pipelines.evidence.opening import Evidence
from tests.evidence.conftest import filed, settings

GPG = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed (Debian: gnupg)")


def pem(key: Any, passphrase: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return data


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


P256 = ec.generate_private_key(ec.SECP256R1())


def test_the_key_is_made_on_first_use_for_this_user_alone_and_is_the_same_ever_after(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    assert keys.public() == ()
    first = keys.signer()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert (modes["evidence.key"], modes["evidence.pub"]) == (0o600, 0o644)
    assert Keys(tmp_path / "keys").signer().public.keyid == first.public.keyid
    [public] = keys.public()
    assert public.verifies(first.sign(b"data"), b"data")
    assert not public.verifies(first.sign(b"data"), b"other")


def test_ten_threads_make_one_key(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(Keys(tmp_path / "keys").signer().public.keyid)) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    assert len(set(found)) == 1


REFUSED: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "missing": ("found no such file or directory", lambda path: None),
    "readable by the group": ("mode 640, open to the group; allowed: 600", lambda path: written(path, pem(P256), 0o640)),
    "readable by everyone": ("mode 604, open to everyone; allowed: 600", lambda path: written(path, pem(P256), 0o604)),
    "a link": ("found a symbolic link", lambda path: path.symlink_to(written(path.with_name("target"), pem(P256)))),
    "a folder": ("something else than a plain file", lambda path: path.mkdir()),
    "a pipe": ("something else than a plain file", lambda path: os.mkfifo(path, 0o600)),
    "an RSA key": ("found a key of the kind RSA with 2048 bits, allowed: an ECDSA P-256 key", lambda path: written(path, pem(rsa.generate_private_key(65537, 2048)))),
    "a P-384 key": ("found an ECDSA key on secp384r1", lambda path: written(path, pem(ec.generate_private_key(ec.SECP384R1())))),
    "an Ed25519 key": ("found a key of the kind Ed25519", lambda path: written(path, pem(ed25519.Ed25519PrivateKey.generate()))),
    "with a passphrase": ("found a key with a passphrase", lambda path: written(path, pem(P256, b"secret"))),
    "a public key": ("found a public key", lambda path: written(path, P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))),
    "no key at all": ("found no private key in PEM", lambda path: written(path, b"hello")),
    "empty": ("found no private key in PEM", lambda path: written(path, b"")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_key_that_was_named_and_is_not_as_it_must_be_is_refused_and_nothing_is_filed(
    name: str, tmp_path: Path
) -> None:
    said, make = REFUSED[name]
    make(tmp_path / "own.pem")
    evidence = Evidence(settings(tmp_path / "home", evidence_key=str(tmp_path / "own.pem")))
    with pytest.raises(ConfigurationError) as caught:
        filed(evidence)
    assert said in str(caught.value)
    assert str(tmp_path / "own.pem") in str(caught.value)
    assert not (tmp_path / "own.pem").exists() or name != "missing"
    assert evidence.archive.waiting() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(written(tmp_path / "own.pem", pem(P256)), 65534, 65534)
    with pytest.raises(ConfigurationError, match="found the owner 65534, allowed: this user"):
        Keys(tmp_path / "keys").signer(str(tmp_path / "own.pem"))


def test_an_own_key_is_used(tmp_path: Path) -> None:
    written(tmp_path / "own.pem", pem(P256))
    evidence = Evidence(settings(tmp_path / "home", evidence_key=str(tmp_path / "own.pem")))
    report = evidence.verify(filed(evidence), evidence.trust())
    assert report.ok
    assert report.statement is not None
    assert report.statement.predicate.signing.keyid == FileSigner(P256).public.keyid
    assert not (tmp_path / "home/keys/evidence.key").exists()


@pytest.mark.parametrize("name", ["evidence.key", "log.key"])
def test_a_key_that_went_missing_is_not_replaced_in_silence(
    name: str, evidence: Evidence, opened: Callable[..., Evidence]
) -> None:
    filed(evidence)
    key = evidence.keys.folder / name
    content = key.read_bytes()
    key.unlink()
    with pytest.raises(ConfigurationError, match=f"{name}: found no such file, but its public half"):
        filed(opened())
    assert not key.exists()
    written(key, pem(P256 if name == "evidence.key" else ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(ConfigurationError, match="the public half of another key"):
        filed(opened())
    written(key, content)
    filed(opened())


def test_a_folder_open_to_others_is_refused(evidence: Evidence, opened: Callable[..., Evidence]) -> None:
    filed(evidence)
    evidence.keys.folder.chmod(0o755)
    with pytest.raises(ConfigurationError, match="found mode 755, open to everyone; allowed: 700"):
        filed(opened())


@GPG
def test_gpg_signs_with_a_home_of_its_own_however_long_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(tmp_path / "the operators"))
    home = tmp_path / ("long" * 30)
    evidence = Evidence(settings(home, evidence_gpg="required"))
    one, two = (evidence.verify(filed(evidence), evidence.trust()) for _ in range(2))
    assert one.ok
    assert two.ok
    assert one.statement is not None
    assert two.statement is not None
    assert one.statement.predicate.signing.gpg.fingerprint == two.statement.predicate.signing.gpg.fingerprint
    assert stat.S_IMODE((home / "keys/gnupg").stat().st_mode) == 0o700
    assert not (tmp_path / "the operators").exists()
    shutil.rmtree(home / "keys/gnupg")
    with pytest.raises(PermanentError, match="found no private key, but gpg\\.fingerprint"):
        filed(Evidence(settings(home, evidence_gpg="required")))


def without_gpg(folder: Path) -> str:
    """A PATH on which everything is but gpg."""
    for source in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in source.iterdir() if source.is_dir() else ():
            if not program.name.startswith("gpg") and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    return str(folder)


def test_an_absent_gpg_is_stated_in_what_is_signed_and_is_an_error_where_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", without_gpg(tmp_path / "bin"))
    evidence = Evidence(settings(tmp_path / "home", evidence_gpg="auto"))
    report = evidence.verify(filed(evidence), evidence.trust())
    assert report.ok
    gpg = next(finding for finding in report.findings if finding.property == "gpg")
    assert (gpg.state, gpg.detail) == ("absent", "stated: no gpg program was found where this was signed")
    with pytest.raises(ConfigurationError, match="GREENOPS_EVIDENCE_GPG=required: no gpg program"):
        filed(Evidence(settings(tmp_path / "home", evidence_gpg="required")))


@GPG
def test_a_verifier_without_gpgv_does_not_pass_what_it_cannot_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = Evidence(settings(tmp_path / "home", evidence_gpg="required"))
    bundle = filed(evidence)
    monkeypatch.setenv("PATH", str(tmp_path))
    report = evidence.verify(bundle, evidence.trust())
    assert report.failed == ["gpg"]
    assert "found no gpgv to check it with" in report.summary


def use_aws(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL_KMS": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    use_aws(monkeypatch, f"http://{host}:{port}")
    yield boto3.client("kms")
    server.stop()


class Kms(BaseHTTPRequestHandler):
    """GetPublicKey and Sign as AWS documents them: moto 5.2 hashes a DIGEST once more, so nothing verifies there."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["X-Amz-Target"] == "TrentService.GetPublicKey":
            public = P256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            answer = {"PublicKey": base64.b64encode(public).decode(), "SigningAlgorithms": ["ECDSA_SHA_256"]}
        else:
            assert (asked["MessageType"], asked["SigningAlgorithm"]) == ("DIGEST", "ECDSA_SHA_256")
            signature = P256.sign(base64.b64decode(asked["Message"]), ec.ECDSA(Prehashed(hashes.SHA256())))
            answer = {"Signature": base64.b64encode(signature).decode()}
        body = json.dumps({"KeyId": asked["KeyId"], **answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served_kms(port: int) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", port), Kms)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_key_in_a_kms_signs_bundles_and_while_it_is_away_they_wait_unsigned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = Evidence(settings(tmp_path / "home", evidence_key="awskms:alias/evidence"))
    with served_kms(0) as port:
        use_aws(monkeypatch, f"http://127.0.0.1:{port}")
        report = evidence.verify(filed(evidence), evidence.trust())
        assert report.ok
        assert report.statement is not None
        assert report.statement.predicate.signing.keyid == FileSigner(P256).public.keyid
        assert not (tmp_path / "home/keys/evidence.key").exists()
    receipt = evidence.archive.file("J4.2", "while it is away", {}, {}, "failed")
    assert receipt.state == "queued"
    assert "the service does not answer" in receipt.detail
    assert [r.state for r in evidence.archive.flush()] == ["queued"]
    with served_kms(port):
        assert [r.state for r in evidence.archive.flush()] == ["filed"]


def test_a_service_that_signs_something_else_than_it_was_given_is_noticed(tmp_path: Path, kms: Any) -> None:
    key = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    with pytest.raises(PermanentError, match="the service signs with another key than it published, or something else"):
        filed(Evidence(settings(tmp_path / "home", evidence_key=f"awskms:{key}")))


def test_a_kms_key_of_another_kind_or_of_no_name_is_refused(tmp_path: Path, kms: Any) -> None:
    other = kms.create_key(KeySpec="ECC_NIST_P384", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    with pytest.raises(ConfigurationError, match="found a key for ecdsa-sha2-nistp384, allowed: ecdsa-sha2-nistp256"):
        KmsSigner.open(f"awskms:{other}")
    with pytest.raises(ConfigurationError, match="NotFoundException; check the key's name"):
        KmsSigner.open("awskms:00000000-0000-0000-0000-000000000000")
    with pytest.raises(ConfigurationError, match="allowed: a file, or awskms:"):
        KmsSigner.open("carrier-pigeon:x")
    with pytest.raises(ConfigurationError, match="install securesystemslib's extra"):
        KmsSigner.open("hv:key")


def test_after_a_change_of_keys_the_former_bundles_still_verify(
    evidence: Evidence, opened: Callable[..., Evidence], tmp_path: Path
) -> None:
    before = filed(evidence)
    changed = opened(evidence_key=str(written(tmp_path / "own.pem", pem(P256))))
    after = filed(changed)
    assert len(changed.keys.public()) == 2
    for bundle in (before, after):
        assert changed.verify(bundle, changed.trust()).ok
    assert changed.audit(changed.trust()).ok
    only_new = changed.trust(changed.keys.folder / "evidence.pub")
    assert "key" in changed.verify(before, only_new).failed
