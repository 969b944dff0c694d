"""A registry that refuses, stumbles, cuts off and lies: a real HTTP server says so, and Debian's registry beside it."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr

from greenops_pipelines.errors import (
    BadInput,
    ConfigurationError,
    GreenopsError,
    ObjectMissing,
    PermanentError,
    ProviderError,
    TransientError,
)
from greenops_pipelines.evidence import canonical
from greenops_pipelines.supply_chain import registry as module
from greenops_pipelines.supply_chain.credentials import Credentials
from greenops_pipelines.supply_chain.oci import (
    EMPTY_BYTES,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    NotAManifest,
    Repository,
    digest_of,
)
from greenops_pipelines.supply_chain.registry import Registry, is_loopback
from tests.conftest import FaultServer
from tests.supply_chain.conftest import LAYER, Answer, Asked, Debian, OciRegistry, Web, flip, image, opened, pushed

PASSWORD = "s3cr3t-of-the-registry"  # noqa: S105 - a test's own
KNOWN = Credentials("robot", SecretStr(PASSWORD))
BASIC = "Basic " + base64.b64encode(f"robot:{PASSWORD}".encode()).decode()
MANIFEST = image()[0]
CONTENT = b"0123456789" * 1000
BLOB = Descriptor(LAYER, digest_of(CONTENT), len(CONTENT))


def of(server: FaultServer | Web, **changes: Any) -> Registry:
    return opened(server.url.removeprefix("http://"), **changes)


def with_password(server: FaultServer | Web, **changes: Any) -> Registry:
    return of(server, credentials=lambda _: KNOWN, **changes)


@pytest.fixture
def elsewhere() -> Iterator[FaultServer]:
    """Another origin: a host is told apart by its port too."""
    server = FaultServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    for secret in (PASSWORD, BASIC.removeprefix("Basic "), "t0ken"):
        assert secret not in caplog.text


def refused(kind: type[GreenopsError], call: Callable[[], object]) -> str:
    """The message that a call fails with, without a secret in it or in what led to it."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind or (kind, type(caught.value)) == (ProviderError, NotAManifest)
    error: BaseException | None = caught.value
    while error is not None:
        for secret in (PASSWORD, BASIC.removeprefix("Basic "), "t0ken"):
            assert secret not in str(error)
        error = error.__cause__ or error.__context__
    return str(caught.value)


# --- who we are


def test_a_basic_challenge_is_answered_with_the_password_and_only_then(fault_server: FaultServer) -> None:
    fault_server.reply(status=401, WWW_Authenticate='Basic realm="registry"')
    fault_server.reply(MANIFEST, content_type=OCI_MANIFEST)
    assert with_password(fault_server).manifest("v1").digest == digest_of(MANIFEST)
    assert [each.headers.get("authorization") for each in fault_server.requests] == [None, BASIC]


def test_a_wrong_password_is_said_once_with_what_to_do(fault_server: FaultServer) -> None:
    fault_server.reply(status=401, WWW_Authenticate='Basic realm="registry"')
    host = fault_server.url.removeprefix("http://")
    said = refused(ConfigurationError, lambda: with_password(fault_server).manifest("v1"))
    assert said.startswith(f"GET {host}/team/app: manifests/v1: answered 401 Unauthorized; run `docker login {host}`")
    assert len(fault_server.requests) == 2


def test_without_a_password_nothing_is_sent(fault_server: FaultServer) -> None:
    fault_server.reply(status=401, WWW_Authenticate='Basic realm="registry"')
    refused(ConfigurationError, lambda: of(fault_server).manifest("v1"))
    assert all("authorization" not in each.headers for each in fault_server.requests)


def test_a_bearer_challenge_is_answered_with_a_token_of_its_realm(
    fault_server: FaultServer, elsewhere: FaultServer
) -> None:
    challenge = f'Bearer realm="{elsewhere.url}/token",service="reg",scope="repository:team/app:pull"'
    fault_server.reply(status=401, WWW_Authenticate=challenge)
    fault_server.reply(MANIFEST, content_type=OCI_MANIFEST)
    elsewhere.json({"token": "t0ken"})
    repository = with_password(fault_server)
    assert repository.manifest("v1").digest == repository.manifest("v1").digest == digest_of(MANIFEST)
    assert elsewhere.requests[0].query == {"service": "reg", "scope": "repository:team/app:pull"}
    assert elsewhere.requests[0].headers["authorization"] == BASIC
    sent = [each.headers.get("authorization") for each in fault_server.requests]
    assert sent == [None, "Bearer t0ken", "Bearer t0ken"]
    assert len(elsewhere.requests) == 1


def test_a_token_without_a_password_is_asked_for_without_one(fault_server: FaultServer, elsewhere: FaultServer) -> None:
    fault_server.reply(status=401, WWW_Authenticate=f'Bearer realm="{elsewhere.url}/token",service="reg"')
    fault_server.reply(MANIFEST, content_type=OCI_MANIFEST)
    elsewhere.json({"access_token": "t0ken"})
    of(fault_server).manifest("v1")
    assert "authorization" not in elsewhere.requests[0].headers
    assert elsewhere.requests[0].query["scope"] == "repository:team/app:pull"


def test_an_expired_token_is_replaced(fault_server: FaultServer, elsewhere: FaultServer) -> None:
    for reply in (401, 200, 401, 200):
        fault_server.reply(
            MANIFEST if reply == 200 else b"",
            status=reply,
            content_type=OCI_MANIFEST,
            WWW_Authenticate=f'Bearer realm="{elsewhere.url}/token"',
        )
    elsewhere.json({"token": "t0ken1"})
    elsewhere.json({"token": "t0ken2"})
    repository = of(fault_server)
    repository.manifest("v1")
    repository.manifest("v1")
    sent = [each.headers.get("authorization") for each in fault_server.requests]
    assert sent == [None, "Bearer t0ken1", "Bearer t0ken1", "Bearer t0ken2"]


def test_an_identity_token_is_posted_and_never_in_an_address() -> None:
    def answers(asked: Asked) -> Answer:
        if asked.path == "/token":
            return Answer(body=b'{"access_token": "t0ken"}')
        if "authorization" not in asked.headers:
            return Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{server.url}/token",service="reg"'})
        return Answer(body=MANIFEST, headers={"Content-Type": OCI_MANIFEST})

    server = Web(answers)
    try:
        of(server, credentials=lambda _: Credentials("<token>", SecretStr(PASSWORD))).manifest("v1")
    finally:
        server.close()
    asked = next(each for each in server.asked if each.path == "/token")
    assert (asked.method, asked.query) == ("POST", {})
    form = parse_qs(asked.body.decode())
    assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], [PASSWORD])
    assert form["scope"] == ["repository:team/app:pull"]


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (401, b"", ConfigurationError, "127.0.0.1 gave no token (401 Unauthorized); run `docker login 127.0.0.1:"),
        (403, b"", ConfigurationError, "127.0.0.1 gave no token (403 Forbidden)"),
        (500, b"", TransientError, "no token from 127.0.0.1: 500 Internal Server Error; gave up after 4 attempts"),
        (429, b"", TransientError, "no token from 127.0.0.1: 429 Too Many Requests"),
        (200, b"<html>", ProviderError, "token: Expecting value"),
        (200, b"[]", ProviderError, "token: found no object"),
        (200, b"{}", ProviderError, "127.0.0.1 answered without a token"),
        (200, b'{"token": "two\\r\\nlines"}', ProviderError, "127.0.0.1 answered without a token"),
        (200, b'{"token": 5}', ProviderError, "127.0.0.1 answered without a token"),
    ],
)
def test_a_token_server_that_fails_is_named(
    fault_server: FaultServer, elsewhere: FaultServer, status: int, body: bytes, kind: type[GreenopsError], says: str
) -> None:
    fault_server.reply(status=401, WWW_Authenticate=f'Bearer realm="{elsewhere.url}/token"')
    elsewhere.reply(body, status=status)
    assert says in refused(kind, lambda: with_password(fault_server).manifest("v1"))


def test_a_token_server_that_stumbles_is_asked_again(fault_server: FaultServer, elsewhere: FaultServer) -> None:
    challenge = f'Bearer realm="{elsewhere.url}/token"'
    fault_server.reply(status=401, WWW_Authenticate=challenge)
    fault_server.reply(status=401, WWW_Authenticate=challenge)
    fault_server.reply(MANIFEST, content_type=OCI_MANIFEST)
    elsewhere.reply(status=503)
    elsewhere.json({"token": "t0ken"})
    assert with_password(fault_server).manifest("v1").digest == digest_of(MANIFEST)


@pytest.mark.parametrize(
    "realm", ["http://auth.example.com/token", "", "ftp://127.0.0.1/x", "http://[", "https://a:b/"]
)
def test_the_password_goes_to_no_realm_in_the_clear(fault_server: FaultServer, realm: str) -> None:
    fault_server.reply(status=401, WWW_Authenticate=f'Bearer realm="{realm}"')
    said = refused(ProviderError, lambda: with_password(fault_server).manifest("v1"))
    assert said.endswith(f"tokens are to be had at {realm!r}, allowed: an https address")


def test_a_registry_of_another_machine_cannot_send_us_to_our_own() -> None:
    assert opened("127.0.0.1:5000")._is_safe(module.urlsplit("http://localhost:81/token"))
    assert not opened("registry.example.com")._is_safe(module.urlsplit("http://localhost:81/token"))


def test_the_password_does_not_follow_a_redirect_to_another_origin(
    fault_server: FaultServer, elsewhere: FaultServer
) -> None:
    fault_server.reply(status=401, WWW_Authenticate='Basic realm="registry"')
    fault_server.reply(status=307, Location=f"{elsewhere.url}/storage/1")
    elsewhere.reply(CONTENT)
    assert with_password(fault_server).blob(BLOB, 1 << 20) == CONTENT
    assert fault_server.requests[1].headers["authorization"] == BASIC
    assert "authorization" not in elsewhere.requests[0].headers


@pytest.mark.parametrize("challenge", ['Bearer realm="{url}/token"', 'Basic realm="here"'])
def test_another_origin_that_asks_for_the_password_is_not_told(
    fault_server: FaultServer, elsewhere: FaultServer, challenge: str
) -> None:
    fault_server.reply(status=307, Location=f"{elsewhere.url}/storage/1")
    elsewhere.reply(status=401, WWW_Authenticate=challenge.format(url=elsewhere.url))
    refused(ConfigurationError, lambda: with_password(fault_server).blob(BLOB, 1 << 20))
    assert [each.path for each in elsewhere.requests] == ["/storage/1"]
    assert "authorization" not in elsewhere.requests[0].headers


@pytest.mark.parametrize(
    ("location", "says"),
    [("http://storage.example.com/1", "redirects to http://storage.example.com, which is not followed"),
     ("ftp://storage.example.com/1", "redirects to ftp://storage.example.com")],
)  # fmt: skip
def test_a_redirect_to_plain_http_elsewhere_is_not_followed(
    fault_server: FaultServer, location: str, says: str
) -> None:
    fault_server.reply(status=307, Location=location)
    assert says in refused(ProviderError, lambda: of(fault_server).blob(BLOB, 1 << 20))


def test_redirects_in_a_circle_end(fault_server: FaultServer) -> None:
    fault_server.reply(status=307, Location="/again")
    assert "more than 5 times" in refused(ProviderError, lambda: of(fault_server).blob(BLOB, 1 << 20))
    assert len(fault_server.requests) == 6


def test_what_netrc_says_is_not_sent(
    fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fault_server.reply(MANIFEST, content_type=OCI_MANIFEST)
    of(fault_server).manifest("v1")
    assert "authorization" not in fault_server.requests[0].headers


@pytest.mark.parametrize("echo", [PASSWORD, BASIC, "Bearer t0ken"])
def test_a_registry_that_repeats_what_we_sent_does_not_make_us_say_it(
    fault_server: FaultServer, elsewhere: FaultServer, echo: str
) -> None:
    scheme = "Basic" if echo == BASIC else f'Bearer realm="{elsewhere.url}/token",service="reg"'
    fault_server.reply(status=401, WWW_Authenticate=scheme)
    fault_server.json({"errors": [{"code": "DENIED", "message": f"no such {echo} here"}]}, status=403)
    elsewhere.json({"token": "t0ken"})
    said = refused(ConfigurationError, lambda: with_password(fault_server).manifest("v1"))
    assert "answered 403 Forbidden: DENIED no such" in said
    assert "***" in said


# --- statuses


def test_what_is_forbidden_is_a_matter_of_rights(fault_server: FaultServer) -> None:
    fault_server.json({"errors": [{"code": "DENIED", "message": "not yours"}]}, status=403)
    said = refused(ConfigurationError, lambda: of(fault_server).manifest("v1"))
    assert "answered 403 Forbidden: DENIED not yours; run `docker login" in said


def test_what_is_not_there_is_missing(fault_server: FaultServer) -> None:
    fault_server.reply("no document at all", status=404)
    host = fault_server.url.removeprefix("http://")
    for call in (lambda: of(fault_server).manifest("v1"), lambda: of(fault_server).blob(BLOB, 1 << 20)):
        assert refused(ObjectMissing, call).startswith(f"GET {host}/team/app: ")


def test_a_short_pause_that_is_asked_for_is_made(fault_server: FaultServer) -> None:
    pauses: list[float] = []
    fault_server.reply(status=429, Retry_After="7")
    fault_server.reply(MANIFEST, content_type=OCI_MANIFEST)
    assert of(fault_server, sleep=pauses.append).manifest("v1").digest == digest_of(MANIFEST)
    assert pauses == [7.0]


@pytest.mark.parametrize("asked", ["86400", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_an_absurd_pause_is_not_made(fault_server: FaultServer, asked: str) -> None:
    pauses: list[float] = []
    fault_server.reply(status=429, Retry_After=asked)
    said = refused(TransientError, lambda: of(fault_server, sleep=pauses.append).manifest("v1"))
    assert "answered 429 Too Many Requests; it asks for a pause of " in said
    assert pauses == []


@pytest.mark.parametrize("asked", ["-5", "soon", ""])
def test_a_pause_that_is_none_is_our_own(fault_server: FaultServer, asked: str) -> None:
    pauses: list[float] = []
    fault_server.reply(status=503, Retry_After=asked)
    fault_server.reply(MANIFEST, content_type=OCI_MANIFEST)
    of(fault_server, sleep=pauses.append).manifest("v1")
    assert len(pauses) == 1
    assert 0 <= pauses[0] <= 1


def test_a_registry_that_stumbles_is_asked_again(fault_server: FaultServer) -> None:
    for status in (500, 503, 502):
        fault_server.reply(status=status)
    fault_server.reply(MANIFEST, content_type=OCI_MANIFEST)
    assert of(fault_server).manifest("v1").digest == digest_of(MANIFEST)
    assert len(fault_server.requests) == 4


def test_a_registry_that_keeps_failing_is_given_up(fault_server: FaultServer) -> None:
    fault_server.reply(status=500)
    said = refused(TransientError, lambda: of(fault_server).manifest("v1"))
    assert said.endswith("answered 500 Internal Server Error; gave up after 4 attempts")
    assert len(fault_server.requests) == 4


def test_a_registry_that_is_not_there_is_given_up() -> None:
    server = FaultServer()
    server.close()
    assert "the connection failed" in refused(TransientError, lambda: of(server).manifest("v1"))


def test_a_status_of_no_known_kind_is_permanent(fault_server: FaultServer) -> None:
    fault_server.reply(status=418)
    assert "answered 418" in refused(ProviderError, lambda: of(fault_server).manifest("v1"))
    assert len(fault_server.requests) == 1


def test_silence_ends(fault_server: FaultServer) -> None:
    fault_server.silence()
    repository = of(fault_server, timeout=(1, 0.05))
    assert "no answer within the read timeout" in refused(TransientError, lambda: repository.manifest("v1"))


def test_a_body_that_drips_for_ever_ends(fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TOTAL_SECONDS", 0.1)
    monkeypatch.setattr(module, "_SLOWEST_BYTES_PER_SECOND", 1 << 40)
    fault_server.drip()
    assert "still arriving after" in refused(TransientError, lambda: of(fault_server).manifest("v1"))


# --- bytes


def test_a_blob_that_is_cut_off_is_fetched_anew(fault_server: FaultServer, tmp_path: Path) -> None:
    fault_server.reply(CONTENT[:5000], declared_bytes=len(CONTENT))
    fault_server.reply(CONTENT)
    of(fault_server).fetch(BLOB, tmp_path / "layer", 1 << 20)
    assert (tmp_path / "layer").read_bytes() == CONTENT
    assert [each.name for each in tmp_path.iterdir()] == ["layer"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_blob_that_is_always_cut_off_leaves_no_file(fault_server: FaultServer, tmp_path: Path, chunked: bool) -> None:
    if chunked:
        fault_server.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2710\r\n" + CONTENT[:5000])
    else:
        fault_server.reply(CONTENT[:5000], declared_bytes=len(CONTENT))
    said = refused(TransientError, lambda: of(fault_server).fetch(BLOB, tmp_path / "layer", 1 << 20))
    assert "gave up after 4 attempts" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("served", "says"),
    [
        (CONTENT + b"!", "more bytes than the 10,000 that are allowed"),
        (CONTENT[:-1], "the registry lies: found 9,999 bytes with sha256:"),
        (b"x" + CONTENT[1:], "the registry lies: found 10,000 bytes with sha256:"),
        (b"", "the registry lies: found 0 bytes"),
    ],
)
def test_other_bytes_than_the_descriptor_says_are_refused(
    fault_server: FaultServer, tmp_path: Path, served: bytes, says: str
) -> None:
    fault_server.reply(served)
    assert says in refused(ProviderError, lambda: of(fault_server).blob(BLOB, 1 << 20))
    assert says in refused(ProviderError, lambda: of(fault_server).fetch(BLOB, tmp_path / "layer", 1 << 20))
    assert list(tmp_path.iterdir()) == []


def test_a_flood_is_read_no_further_than_the_descriptor(fault_server: FaultServer, tmp_path: Path) -> None:
    fault_server.flood(500_000_000)
    said = refused(ProviderError, lambda: of(fault_server).fetch(BLOB, tmp_path / "layer", 1 << 30))
    assert "more bytes than the 10,000 that are allowed" in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_larger_than_allowed_is_not_asked_for(fault_server: FaultServer, tmp_path: Path) -> None:
    said = refused(ProviderError, lambda: of(fault_server).fetch(BLOB, tmp_path / "layer", 9_999))
    assert said.endswith("10,000 bytes, allowed: 9,999")
    assert fault_server.requests == []


def test_a_file_that_cannot_be_written_is_no_fault_of_the_registry(fault_server: FaultServer, tmp_path: Path) -> None:
    fault_server.reply(CONTENT)
    said = refused(PermanentError, lambda: of(fault_server).fetch(BLOB, tmp_path / "no" / "layer", 1 << 20))
    assert "layer: No such file or directory" in said
    assert "No space left" in refused(
        TransientError, lambda: of(fault_server).fetch(BLOB, Full(tmp_path / "x"), 1 << 20)
    )


class Full(type(Path())):
    """A path on the one device of every Linux that is always full."""

    def with_name(self, name: str) -> Path:
        return FullDevice("/dev/full")


class FullDevice(type(Path())):
    def unlink(self, missing_ok: bool = False) -> None:
        """The device stays."""


def test_a_manifest_of_another_digest_than_asked_for_is_a_lie(fault_server: FaultServer) -> None:
    asked = digest_of(b"another")
    fault_server.reply(MANIFEST, content_type=OCI_MANIFEST)
    said = refused(ProviderError, lambda: of(fault_server).manifest(asked))
    assert f"the registry lies: {asked} was said, and the bytes are {digest_of(MANIFEST)}" in said


def test_a_manifest_of_another_digest_than_said_is_a_lie(fault_server: FaultServer) -> None:
    said = digest_of(b"another")
    fault_server.reply(MANIFEST, content_type=OCI_MANIFEST, Docker_Content_Digest=said)
    for wanted in ("v1", digest_of(MANIFEST)):
        found = refused(ProviderError, lambda wanted=wanted: of(fault_server).manifest(wanted))
        assert f"the registry lies: {said} was said" in found


@pytest.mark.parametrize(
    ("body", "served_as", "says"),
    [
        (MANIFEST, OCI_INDEX, "served as application/vnd.oci.image.index.v1+json, and says of itself"),
        (json.dumps({"mediaType": OCI_INDEX, "manifests": [], "layers": []}), OCI_INDEX, "that is an index as well"),
        (b" " * 5_000_000, OCI_MANIFEST, "more bytes than the 4,194,304 that are allowed"),
        ("<html>log in</html>", "text/html", "Expecting value"),
        ("", OCI_MANIFEST, "Expecting value"),
    ],
    ids=["other type", "both", "5 MB", "a page", "empty"],
)
def test_a_manifest_that_is_none_is_refused(
    fault_server: FaultServer, body: bytes | str, served_as: str, says: str
) -> None:
    fault_server.reply(body, content_type=served_as)
    assert says in refused(ProviderError, lambda: of(fault_server).manifest("v1"))


# --- lists


def test_tags_come_in_pages(oci_registry: OciRegistry) -> None:
    repository = of(oci_registry)
    assert repository.tags() == ()
    for at in range(7):
        pushed(repository, f"v{at}")
    oci_registry.page_size = 3
    asked = len(oci_registry.asked)
    assert repository.tags() == ("v0", "v1", "v2", "v3", "v4", "v5", "v6")
    assert len(oci_registry.asked) - asked == 3


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ("http://127.0.0.1:9/v2/team/app/tags/list?last=v1", "found the address http://127.0.0.1, allowed: one at http://"),
        ("//tags.example.com/x", "found the address http://tags.example.com"),
        ("https://user:t0ken@tags.example.com/x", "found the address https://tags.example.com"),
        ("http://[", "found the address http://[, allowed"),
    ],
)  # fmt: skip
def test_the_next_page_lies_at_no_other_host(fault_server: FaultServer, link: str, says: str) -> None:
    says = says.replace("http://tags", "://tags") if link.startswith("//") else says
    fault_server.json({"tags": ["v1"]}, Link=f'<{link}>; rel="next"')
    assert says in refused(ProviderError, lambda: of(fault_server).tags())
    assert len(fault_server.requests) == 1


def test_pages_without_end_end(fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGES", 5)
    fault_server.json({"tags": ["v1"]}, Link='</v2/team/app/tags/list>; rel="next"')
    assert "more than 5 pages of tags" in refused(ProviderError, lambda: of(fault_server).tags())


def test_names_that_are_no_tags_are_passed_over_and_never_asked_for(
    fault_server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    fault_server.json({"tags": ["v1", "v1\ud800", "../../other", "", ".v", "v" * 129, "1.0_a-b"]})
    assert of(fault_server).tags() == ("1.0_a-b", "v1")
    assert "passed over 5 names that are no tags: '', '../../other', '.v', 'v1\\ud800'" in caplog.text


@pytest.mark.parametrize("wanted", ["v1\ud800", "../v2", "v1?x", "", "sha256:12", "v" * 129])
def test_what_is_no_tag_and_no_digest_is_not_asked_for(oci_registry: OciRegistry, wanted: str) -> None:
    assert "allowed: a tag of letters" in refused(BadInput, lambda: of(oci_registry).manifest(wanted))
    assert oci_registry.asked == []


@pytest.mark.parametrize("tags", ["v1", 5, [5], {"v1": 1}])
def test_tags_that_are_no_list_of_names_are_refused(fault_server: FaultServer, tags: object) -> None:
    fault_server.json({"tags": tags})
    assert "another thing than a list of names" in refused(ProviderError, lambda: of(fault_server).tags())


def test_a_page_that_is_missing_is_not_the_end_of_the_list(fault_server: FaultServer) -> None:
    fault_server.json({"tags": ["v1"]}, Link='</v2/team/app/tags/list?last=v1>; rel="next"')
    fault_server.reply(status=404)
    assert "answered 404 Not Found" in refused(ObjectMissing, lambda: of(fault_server).tags())


# --- what is attached


def attached(repository: Repository, subject: str, note: str) -> str:
    """Attaches a small manifest to `subject`; its digest."""
    found = repository.manifest(subject)
    config = repository.put_blob(EMPTY_BYTES, OCI_EMPTY)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/x",
        "config": config.as_document(),
        "layers": [config.as_document()],
        "subject": found.descriptor.as_document(),
        "annotations": {"note": note},
    }
    return repository.put_manifest(canonical.dumps(document), OCI_MANIFEST).digest


def fallback(subject: str) -> str:
    return subject.replace(":", "-")


def test_a_registry_that_knows_referrers_keeps_the_list_itself(oci_registry: OciRegistry) -> None:
    repository = of(oci_registry)
    subject = pushed(repository)
    one, two = attached(repository, subject, "one"), attached(repository, subject, "two")
    oci_registry.page_size = 1
    assert [each.digest for each in repository.referrers(subject)] == [one, two]
    assert repository.referrers(one) == ()
    assert fallback(subject) not in oci_registry.manifests


def test_for_one_that_does_not_the_list_is_an_index_under_a_tag(older_registry: OciRegistry) -> None:
    repository = of(older_registry)
    subject = pushed(repository)
    one, two = attached(repository, subject, "one"), attached(repository, subject, "two")
    media_type, data = older_registry.manifests[fallback(subject)]
    assert media_type == OCI_INDEX
    listed = json.loads(data)["manifests"]
    assert {each["digest"] for each in listed} == {one, two}
    assert listed[0] == {
        "mediaType": OCI_MANIFEST,
        "digest": two,
        "size": len(older_registry.manifests[two][1]),
        "artifactType": "application/x",
        "annotations": {"note": "two"},
    }
    assert {each.digest for each in repository.referrers(subject)} == {one, two}
    assert repository.referrers(one) == ()


def test_an_entry_that_another_writer_overwrote_is_written_again(older_registry: OciRegistry) -> None:
    repository = of(older_registry)
    subject = pushed(repository)
    theirs = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"theirs"), "size": 6}
    overwritten = []

    def other_writer(asked: Asked) -> Answer | None:
        """Writes between our write and our look, with a list that it read before ours."""
        if asked.method == "GET" and asked.path.endswith(fallback(subject)) and len(overwritten) < 2:
            listed = [theirs] if fallback(subject) in older_registry.manifests else []
            if listed:
                overwritten.append(1)
                document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
                older_registry.manifests[fallback(subject)] = (OCI_INDEX, json.dumps(document).encode())
        return None

    older_registry.before = other_writer
    ours = attached(repository, subject, "ours")
    assert len(overwritten) == 2
    assert {each.digest for each in repository.referrers(subject)} == {ours, theirs["digest"]}


def test_what_others_wrote_while_we_waited_is_kept(older_registry: OciRegistry) -> None:
    subject = pushed(of(older_registry))
    late = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"late"), "size": 4}

    def written_meanwhile(_: float) -> None:
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [late]}
        older_registry.manifests[fallback(subject)] = (OCI_INDEX, json.dumps(document).encode())

    lost = iter([Answer(201)])  # our first write, overwritten at once
    older_registry.before = lambda asked: (
        next(lost, None) if asked.method == "PUT" and asked.path.endswith(fallback(subject)) else None
    )
    ours = attached(of(older_registry, sleep=written_meanwhile), subject, "ours")
    assert {each.digest for each in of(older_registry).referrers(subject)} == {ours, late["digest"]}


def test_a_list_that_is_always_overwritten_is_an_error(older_registry: OciRegistry) -> None:
    repository = of(older_registry)
    subject = pushed(repository)
    older_registry.before = lambda asked: (
        Answer(201) if asked.method == "PUT" and asked.path.endswith(fallback(subject)) else None
    )
    assert "keep overwriting the index" in refused(TransientError, lambda: attached(repository, subject, "x"))


def test_an_image_under_the_lists_tag_is_not_overwritten(older_registry: OciRegistry) -> None:
    repository = of(older_registry)
    subject = pushed(repository)
    before = pushed(repository, fallback(subject), b"another")
    for call in (lambda: repository.referrers(subject), lambda: attached(repository, subject, "x")):
        assert "found an image, allowed: the index of what is attached" in refused(ProviderError, call)
    assert digest_of(older_registry.manifests[fallback(subject)][1]) == before


def test_an_answer_about_referrers_that_is_no_index_is_refused(fault_server: FaultServer) -> None:
    fault_server.reply("<html>", content_type="text/html")
    said = refused(ProviderError, lambda: of(fault_server).referrers(digest_of(MANIFEST)))
    assert "found another document than an index" in said


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("lets", [True, False])
def test_what_is_dropped_is_listed_no_more_where_that_can_be_done(knows: bool, lets: bool) -> None:
    server = OciRegistry(knows_referrers=knows, lets_delete=lets)
    try:
        repository = of(server)
        subject = pushed(repository)
        one, two = attached(repository, subject, "one"), attached(repository, subject, "two")
        can = lets or not knows
        assert repository.drop_referrer(subject, one) is can
        assert {each.digest for each in repository.referrers(subject)} == ({two} if can else {one, two})
        assert repository.drop_referrer(subject, two) is can
        assert {each.digest for each in repository.referrers(subject)} == (set() if can else {one, two})
    finally:
        server.close()


# --- uploads


def test_a_blob_that_is_there_is_not_sent_again(oci_registry: OciRegistry) -> None:
    repository = of(oci_registry)
    assert repository.put_blob(CONTENT, LAYER) == repository.put_blob(CONTENT, LAYER) == BLOB
    assert oci_registry.writes() == ["POST /v2/team/app/blobs/uploads/", "PUT /v2/team/app/blobs/uploads/1"]


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("http://127.0.0.1:9/upload", "uploads: found the address http://127.0.0.1, allowed: one at http://127.0.0.1:"),
        ("https://uploads.example.com/1?sig=t0ken", "uploads: found the address https://uploads.example.com, allowed"),
        ("", "uploads: found the address nowhere"),
        ("http://[", "uploads: found the address http://["),
    ],
)
def test_an_upload_goes_to_no_other_host(oci_registry: OciRegistry, location: str, says: str) -> None:
    oci_registry.before = lambda asked: Answer(202, headers={"Location": location}) if asked.method == "POST" else None
    assert says in refused(ProviderError, lambda: of(oci_registry).put_blob(CONTENT, LAYER))
    assert [each.method for each in oci_registry.asked] == ["HEAD", "POST"]


def test_an_upload_whose_answer_is_lost_is_not_a_failure(oci_registry: OciRegistry) -> None:
    def lost(asked: Asked) -> Answer | None:
        if asked.method != "PUT":
            return None
        if asked.query["digest"] in oci_registry.blobs:
            return Answer(404)  # the upload's own session is over
        oci_registry.blobs[asked.query["digest"]] = asked.body
        return Answer(502)

    oci_registry.before = lost
    repository = of(oci_registry)
    assert repository.put_blob(CONTENT, LAYER) == BLOB
    assert repository.blob(BLOB, 1 << 20) == CONTENT


def test_an_upload_that_is_redirected_is_refused(oci_registry: OciRegistry) -> None:
    oci_registry.before = lambda asked: Answer(307, headers={"Location": "/x"}) if asked.method == "POST" else None
    assert "a POST is redirected" in refused(ProviderError, lambda: of(oci_registry).put_blob(CONTENT, LAYER))


def test_a_manifest_that_is_stored_as_another_is_a_lie(oci_registry: OciRegistry) -> None:
    headers = {"Docker-Content-Digest": digest_of(b"another")}
    oci_registry.before = lambda asked: Answer(201, headers=headers) if asked.method == "PUT" else None
    said = refused(ProviderError, lambda: of(oci_registry).put_manifest(MANIFEST, OCI_MANIFEST, "v1"))
    assert f"{digest_of(MANIFEST)} was stored, and the registry says {digest_of(b'another')}" in said


# --- Debian's


def test_the_real_registry_gives_back_what_was_pushed(repository: Registry, tmp_path: Path) -> None:
    digest = pushed(repository, "v1", CONTENT)
    found = repository.manifest("v1")
    assert (found.digest, found.media_type, repository.manifest(digest)) == (digest, OCI_MANIFEST, found)
    assert repository.blob(found.layers[0], 1 << 20) == CONTENT
    repository.fetch(found.layers[0], tmp_path / "layer", 1 << 20)
    assert (tmp_path / "layer").read_bytes() == CONTENT
    pushed(repository, "v2", CONTENT)
    assert repository.tags() == ("v1", "v2")
    moved = pushed(repository, "v1", b"newer")
    assert repository.manifest("v1").digest == moved != digest


def test_the_real_registry_lists_what_is_attached_and_drops_it(repository: Registry) -> None:
    subject = pushed(repository)
    one, two = attached(repository, subject, "one"), attached(repository, subject, "two")
    assert {each.digest for each in repository.referrers(subject)} == {one, two}
    assert repository.drop_referrer(subject, one)
    assert repository.drop_referrer(subject, two)
    assert repository.referrers(subject) == ()


def test_a_byte_flipped_on_the_real_registrys_disk_is_noticed(repository: Registry, debian: Debian) -> None:
    digest = pushed(repository, "v1", b"flipped later")
    layer = repository.manifest(digest).layers[0]
    flip(debian.blob(layer.digest))
    assert "the registry lies" in refused(ProviderError, lambda: repository.blob(layer, 1 << 20))
    flip(debian.blob(digest))
    for wanted in ("v1", digest):
        refused(ProviderError, lambda wanted=wanted: repository.manifest(wanted))
    debian.blob(layer.digest).unlink()
    with pytest.raises(GreenopsError):
        repository.blob(layer, 1 << 20)


def test_several_writers_at_once_lose_nothing_after_each_has_looked_again(repository: Registry) -> None:
    subject = pushed(repository)
    writers = [opened(repository.name.partition("/")[0], repository.name.partition("/")[2]) for _ in range(3)]
    started = threading.Barrier(len(writers))
    made: list[str] = []

    def write(at: int) -> None:
        started.wait()
        made.append(attached(writers[at], subject, f"writer {at}"))

    threads = [threading.Thread(target=write, args=(at,)) for at in range(len(writers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3
    for at in range(len(writers)):
        attached(writers[at], subject, f"writer {at}")
    assert {each.digest for each in repository.referrers(subject)} == set(made)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:80", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("127.0.0.1@example.com", False),
        ("10.0.0.1", False),
        ("registry.example.com:5000", False),
    ],
)
def test_only_this_machine_is_spoken_to_in_the_clear(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert opened(host)._base.startswith("http://" if expected else "https://")
