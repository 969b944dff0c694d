"""A home that files evidence, a local time-stamping authority, and specimens that tests may spoil copies of."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.evidence.bundle import Bundle, read
from greenops_pipelines.evidence.opening import Evidence
from greenops_pipelines.settings import Settings

FILES = {"scorecard.json": b'{"criteria": 39}\n', "drill/steps.log": b"started\nfenced\npromoted\n"}
FIGURES: dict[str, float | int | str | bool | None] = {"RPO seconds": 0.04, "target": 10, "passed": True, "note": "Ä"}

_CA = """
[req]
distinguished_name = dn
prompt = no
[dn]
CN = {name}
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[tsa]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = critical,timeStamping
[tsa_config]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""


class TimeStamper:
    """`openssl ts` behind HTTP. `status` other than 200 makes it refuse."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.roots = folder / "ca.pem"
        self.status = 200
        folder.mkdir()
        (folder / "conf").write_text(_CA.format(name=name, folder=folder))
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
                      "-keyout", "ca.key", "-out", "ca.pem", "-config", "conf", "-extensions", "ca")  # fmt: skip
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "tsa.key",
                      "-out", "tsa.csr", "-config", "conf", "-subj", f"/CN={name} signer")  # fmt: skip
        self._openssl("x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "7",
                      "-days", "3650", "-out", "tsa.pem", "-extfile", "conf", "-extensions", "tsa")  # fmt: skip
        (folder / "serial").write_text("01\n")
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = owner.answer(body) if owner.status == 200 else b""
                self.send_response(owner.status)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def answer(self, query: bytes) -> bytes:
        (self.folder / "query").write_bytes(query)
        self._openssl(
            "ts", "-reply", "-config", "conf", "-section", "tsa_config", "-queryfile", "query", "-out", "reply"
        )
        return (self.folder / "reply").read_bytes()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _openssl(self, *args: str) -> None:
        subprocess.run(["openssl", *args], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimeStamper]:
    found = TimeStamper(tmp_path_factory.mktemp("tsa") / "a", "First Authority")
    yield found
    found.close()


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimeStamper]:
    found = TimeStamper(tmp_path_factory.mktemp("tsa") / "b", "Second Authority")
    yield found
    found.close()


def settings(home: Path, **changes: Any) -> Settings:
    """Settings of a home without the environment's; GPG is off unless asked for, because it costs 0.1 s a bundle."""
    return Settings(_env_file=None, **({"home": home, "evidence_gpg": "off"} | changes))


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return Evidence(settings(tmp_path / "home"))


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Evidence]:
    """Opens a home anew, as another process would: `opened(evidence_key=...)`."""
    return lambda name="home", **changes: Evidence(settings(tmp_path / name, **changes))


def filed(evidence: Evidence, subject: str = "drill 2026-11", **changes: Any) -> str:
    """Files a small bundle; its id."""
    arguments: dict[str, Any] = {"control": "J4.2", "figures": FIGURES, "files": FILES, "verdict": "passed"} | changes
    receipt = evidence.archive.file(subject=subject, **arguments)
    assert receipt.state == "filed", receipt.detail
    return receipt.id


@dataclass(frozen=True)
class Specimens:
    """Two complete bundles (GPG, time stamp, published checkpoint) of one home, one of another, one without extras."""

    evidence: Evidence
    published: Path
    authority: TimeStamper
    one: Bundle
    two: Bundle
    foreign: Bundle
    plain: Bundle

    @property
    def public_key(self) -> Path:
        return self.evidence.keys.folder / "evidence.pub"


@pytest.fixture(scope="session")
def specimens(
    tmp_path_factory: pytest.TempPathFactory, authority: TimeStamper, other_authority: TimeStamper
) -> Specimens:
    if shutil.which("gpg") is None or shutil.which("gpgv") is None:
        missing("gpg and gpgv (Debian: gnupg, gpgv)")
    base = tmp_path_factory.mktemp("specimens")
    stamped = {"evidence_tsa_url": authority.url, "evidence_tsa_ca": str(authority.roots), "evidence_gpg": "required"}
    evidence = Evidence(settings(base / "home", evidence_checkpoints=str(base / "second"), **stamped))
    elsewhere = {"evidence_tsa_url": other_authority.url, "evidence_tsa_ca": str(other_authority.roots)}
    other = Evidence(settings(base / "other", **(stamped | elsewhere)))
    plain = Evidence(settings(base / "home", evidence_checkpoints=str(base / "second")))
    found = {}
    for name, source in (("one", evidence), ("two", evidence), ("foreign", other), ("plain", plain)):
        found[name] = read(source.archive.get(filed(source, f"drill {name}")))
    return Specimens(evidence, base / "second", authority, **found)


def tools() -> Path:
    """Where programs that are not of Debian are installed, once for all runs."""
    return Path(os.environ.get("GREENOPS_TOOLS") or Path(tempfile.gettempdir()) / "greenops-tools")


def missing(what: str) -> None:
    """Skips; fails where the run promised to have everything."""
    if os.environ.get("GREENOPS_REQUIRE_REAL") == "1":
        pytest.fail(f"GREENOPS_REQUIRE_REAL=1, and missing: {what}")
    pytest.skip(f"missing: {what}")


def unpacked(bundle: Bundle, folder: Path) -> Path:
    """The bundle as a folder below `folder`."""
    for name, data in bundle.parts.items():
        path = folder / bundle.id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / bundle.id


NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
