"""Registries for the tests: Debian's own, and one that knows OCI 1.1 and misbehaves as told. And images to put into them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from greenops_pipelines.evidence import canonical
from greenops_pipelines.evidence.keys import Keys
from greenops_pipelines.evidence.signing import Signer
from greenops_pipelines.process import docker_registry
from greenops_pipelines.supply_chain.oci import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Repository, digest_of
from greenops_pipelines.supply_chain.registry import Registry
from tests.real import program

LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Web:
    """A real HTTP server on 127.0.0.1: `answers` says what comes back; all that was asked is kept."""

    def __init__(self, answers: Callable[[Asked], Answer]) -> None:
        self.asked: list[Asked] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: two wait for each other's acknowledgement

            def answer(self) -> None:
                url = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", "0")))
                asked = Asked(self.command, unquote(url.path), dict(parse_qsl(url.query)), headers, body)
                owner.asked.append(asked)
                answer = answers(asked)
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - http.server's names

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class OciRegistry(Web):
    """The distribution API over one repository in memory. `before` may answer in its place."""

    def __init__(self, *, knows_referrers: bool = True, lets_delete: bool = True) -> None:
        self.knows_referrers, self.lets_delete = knows_referrers, lets_delete
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        """By digest and by tag: media type and bytes."""
        self.page_size = 1000
        self.before: Callable[[Asked], Answer | None] = lambda asked: None
        super().__init__(lambda asked: self.before(asked) or self._answer(asked))

    def writes(self) -> list[str]:
        """What was written, in order: method and path."""
        return [f"{each.method} {each.path}" for each in self.asked if each.method not in ("GET", "HEAD")]

    def _answer(self, asked: Asked) -> Answer:
        match = re.fullmatch(r"/v2/team/app/(manifests|blobs/uploads|blobs|tags|referrers)/(.*)", asked.path)
        if match is None:
            return Answer(404)
        kind, name = match.groups()
        return getattr(self, f"_{asked.method.lower()}_{kind.replace('/', '_')}", self._none)(asked, name)

    def _none(self, asked: Asked, name: str) -> Answer:
        return Answer(404, json.dumps({"errors": [{"code": "UNKNOWN", "message": "not known"}]}).encode())

    def _get_blobs(self, asked: Asked, name: str) -> Answer:
        return Answer(body=self.blobs[name]) if name in self.blobs else self._none(asked, name)

    _head_blobs = _get_blobs

    def _post_blobs_uploads(self, asked: Asked, name: str) -> Answer:
        return Answer(202, headers={"Location": "/v2/team/app/blobs/uploads/1?state=a"})

    def _put_blobs_uploads(self, asked: Asked, name: str) -> Answer:
        assert digest_of(asked.body) == asked.query["digest"]
        self.blobs[asked.query["digest"]] = asked.body
        return Answer(201)

    def _get_manifests(self, asked: Asked, name: str) -> Answer:
        if name not in self.manifests:
            return self._none(asked, name)
        media_type, data = self.manifests[name]
        return Answer(body=data, headers={"Content-Type": media_type, "Docker-Content-Digest": digest_of(data)})

    def _put_manifests(self, asked: Asked, name: str) -> Answer:
        stored = (asked.headers["content-type"], asked.body)
        self.manifests[name] = self.manifests[digest_of(asked.body)] = stored
        subject = json.loads(asked.body).get("subject")
        return Answer(201, headers={"OCI-Subject": subject["digest"]} if subject and self.knows_referrers else {})

    def _delete_manifests(self, asked: Asked, name: str) -> Answer:
        if not self.lets_delete:
            return Answer(405)
        return Answer(202) if self.manifests.pop(name, None) else self._none(asked, name)

    def _get_tags(self, asked: Asked, name: str) -> Answer:
        tags = sorted(each for each in self.manifests if not each.startswith("sha256:"))
        start = int(asked.query.get("last", "0"))
        page, following = tags[start : start + self.page_size], start + self.page_size
        link = {"Link": f'</v2/team/app/tags/list?last={following}>; rel="next"'} if following < len(tags) else {}
        return Answer(body=json.dumps({"tags": page}).encode(), headers=link)

    def _get_referrers(self, asked: Asked, name: str) -> Answer:
        if not self.knows_referrers:
            return self._none(asked, name)
        found = [
            {
                "mediaType": media_type,
                "digest": digest,
                "size": len(data),
                "artifactType": json.loads(data).get("artifactType", ""),
            }
            for digest, (media_type, data) in self.manifests.items()
            if digest.startswith("sha256:") and (json.loads(data).get("subject") or {}).get("digest") == name
        ]
        start = int(asked.query.get("last", "0"))
        following = start + self.page_size
        link = {"Link": f'<?last={following}>; rel="next"'} if following < len(found) else {}
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found[start:following]}
        return Answer(body=json.dumps(document).encode(), headers={"Content-Type": OCI_INDEX, **link})


def opened(host: str, repository: str = "team/app", **changes: Any) -> Registry:
    """Without credentials, and without waiting between attempts."""
    return Registry(host, repository, changes.pop("credentials", lambda _: None), **{"sleep": lambda _: None} | changes)


def image(content: bytes = b"layer", architecture: str = "amd64") -> tuple[bytes, dict[str, bytes]]:
    """A small image: its manifest, and its blobs by media type."""
    config = canonical.dumps(
        {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(content)]}}
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": LAYER, "digest": digest_of(content), "size": len(content)}],
    }
    return canonical.dumps(manifest), {OCI_CONFIG: config, LAYER: content}


def pushed(repository: Repository, tag: str = "v1", content: bytes = b"layer", architecture: str = "amd64") -> str:
    """Puts a small image there; its digest."""
    manifest, blobs = image(content, architecture)
    for media_type, data in blobs.items():
        repository.put_blob(data, media_type)
    return repository.put_manifest(manifest, OCI_MANIFEST, tag).digest


def flip(path: Path, at: int | None = None) -> None:
    """One bit of a file, in its middle unless told otherwise."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


@dataclass(frozen=True)
class Debian:
    """A running registry of Debian's, and where it keeps its bytes."""

    host: str
    folder: Path

    def repository(self, name: str = "team/app") -> Registry:
        return opened(self.host, name)

    def blob(self, digest: str) -> Path:
        """The file that holds a blob or a manifest."""
        found = digest.removeprefix("sha256:")
        return self.folder / "data/docker/registry/v2/blobs/sha256" / found[:2] / found / "data"


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    program("docker-registry", "apt-get install docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    with docker_registry.running(folder) as host:
        yield Debian(host, folder)


@pytest.fixture
def repository(debian: Debian, request: pytest.FixtureRequest) -> Registry:
    """An empty repository of the test's own."""
    return debian.repository(f"team/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]}")


@pytest.fixture
def oci_registry() -> Iterator[OciRegistry]:
    server = OciRegistry()
    yield server
    server.close()


@pytest.fixture
def older_registry() -> Iterator[OciRegistry]:
    """One without the referrers API."""
    server = OciRegistry(knows_referrers=False)
    yield server
    server.close()


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Keys(tmp_path_factory.mktemp("keys") / "own").signer()


@pytest.fixture(scope="session")
def other_signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Keys(tmp_path_factory.mktemp("keys") / "other").signer()
