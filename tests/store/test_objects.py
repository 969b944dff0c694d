"""One contract, both stores: a local folder, and S3 as moto's server speaks it. Then what only one of them can show."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from greenops_pipelines.errors import (
    BadInput,
    ConfigurationError,
    ObjectExists,
    ObjectMissing,
    PermanentError,
    TransientError,
)
from greenops_pipelines.store.local import LocalObjectStore
from greenops_pipelines.store.objects import ObjectStore, check_key
from greenops_pipelines.store.s3 import Retention, S3ObjectStore, s3_client

BUCKET = "evidence"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module", autouse=True)
def _credentials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTEST")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret-that-must-not-show")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", nowhere)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
        patch.delenv("AWS_PROFILE", raising=False)
        yield


@pytest.fixture(scope="module")
def shared_client(endpoint: str, _credentials: None) -> Iterator[Any]:
    client = s3_client(endpoint, "eu-central-1")
    yield client
    client.close()


@pytest.fixture
def bucket(endpoint: str, shared_client: Any) -> str:
    """A fresh, versioned bucket in an emptied store."""
    requests.post(f"{endpoint}/moto-api/reset", timeout=10).raise_for_status()
    shared_client.create_bucket(
        Bucket="evidence",
        CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
        ObjectLockEnabledForBucket=True,
    )
    return "evidence"


@pytest.fixture
def client(endpoint: str, bucket: str) -> Iterator[Any]:
    """A client of its own for tests that hang something into it."""
    client = s3_client(endpoint, "eu-central-1")
    yield client
    client.close()


@pytest.fixture(params=["local", "s3", "s3 with prefix and lock"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return LocalObjectStore(tmp_path / "objects")
    client, bucket = request.getfixturevalue("shared_client"), request.getfixturevalue("bucket")
    if request.param == "s3":
        return S3ObjectStore(client, bucket)
    return S3ObjectStore(client, bucket, prefix="team/green", retention=Retention(days=3))


# The contract


def test_what_was_put_is_there(store: ObjectStore) -> None:
    data = bytes(range(256)) * 1000
    store.put("2026-11/gameday/statement.json", data)
    store.put("empty", b"")
    assert store.get("2026-11/gameday/statement.json") == data
    assert store.get("empty") == b""
    assert store.exists("empty")


def test_what_was_not_put_is_missing(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    for key in ("a/c", "c/d/e", "a/b/c", "a", "a/"[:-1]):
        assert not store.exists(key)
        with pytest.raises(ObjectMissing, match=f"{key}: found no object under that key$"):
            store.get(key)


def test_other_bytes_under_the_same_key_are_refused_and_change_nothing(store: ObjectStore) -> None:
    store.put("k", b"first")
    with pytest.raises(ObjectExists, match=r"k: found an object with other bytes, allowed: each key once$"):
        store.put("k", b"second")
    with pytest.raises(ObjectExists):
        store.put("k", b"")
    assert store.get("k") == b"first"


def test_the_same_bytes_again_are_accepted_so_that_a_writer_may_try_again(store: ObjectStore) -> None:
    store.put("k", b"same")
    store.put("k", b"same")
    assert (store.get("k"), store.list()) == (b"same", ("k",))


def test_keys_are_listed_sorted_by_prefix_of_text(store: ObjectStore) -> None:
    for key in ("2026-02/b", "2026-01/z", "2026-01/a/deep", "2025", "Übung/ß"):
        store.put(key, key.encode())
    assert store.list() == ("2025", "2026-01/a/deep", "2026-01/z", "2026-02/b", "Übung/ß")
    assert store.list("2026-0") == ("2026-01/a/deep", "2026-01/z", "2026-02/b")
    assert store.list("2026-01/") == ("2026-01/a/deep", "2026-01/z")
    assert store.list("2026-01/a/de") == ("2026-01/a/deep",)
    assert store.list("none") == store.list("../") == store.list("/") == ()


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.", "a\\b", "a\nb", "a\0b", "a\x7f", "a\u202eb", "a\ud800",
     "a\u2028b", unicodedata.normalize("NFD", "ü"), "a" * 256, "ü" * 128, "a/" * 512 + "a", ".incoming/x"],
)  # fmt: skip
def test_keys_that_could_mean_another_place_or_no_place_are_refused(store: ObjectStore, key: str) -> None:
    for call in (lambda: store.put(key, b""), lambda: store.get(key), lambda: store.exists(key)):
        with pytest.raises(BadInput, match=r"^object key: found "):
            call()
    assert store.list() == ()


@pytest.mark.parametrize("key", ["a" * 255, "ü" * 127, "...", ".a", "a b", "'; drop table", "a/" * 500 + "a"])
def test_odd_keys_that_mean_one_place_are_taken(store: ObjectStore, key: str) -> None:
    store.put(key, b"x")
    assert (store.get(key), store.list()) == (b"x", (key,))


def test_of_many_racing_writers_one_wins_and_its_bytes_stay(store: ObjectStore) -> None:
    def put(writer: int) -> int | None:
        barrier.wait(30)
        try:
            store.put("race", f"writer {writer}".encode() * 1000)
        except ObjectExists:
            return None
        return writer

    barrier = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        winners = [writer for writer in pool.map(put, range(8)) if writer is not None]
    assert len(winners) == 1
    assert store.get("race") == f"writer {winners[0]}".encode() * 1000


# Keys


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "", "a", "b\\", "\0", ".incoming"])).map("/".join))
def test_no_accepted_key_leads_out_of_the_root(key: str) -> None:
    try:
        check_key(key)
    except BadInput:
        return
    joined = os.path.normpath(os.path.join("/root/store", key))  # noqa: PTH118 (the lexical join is the point)
    assert joined == f"/root/store/{key}"
    assert not key.startswith(".incoming/")


def test_messages_about_long_keys_are_short() -> None:
    with pytest.raises(BadInput) as error:
        check_key("a" * 5000)
    assert (
        str(error.value) == f"object key: found 5000 bytes ('{'a' * 40}'...), allowed: 255 bytes a segment, 1024 in all"
    )


# The local folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_objects_are_read_only_files_at_the_path_of_their_key(folder: Path) -> None:
    LocalObjectStore(folder).put("2026/a.json", b"{}")
    assert files_below(folder) == ["2026/a.json"]
    assert stat.S_IMODE((folder / "2026/a.json").stat().st_mode) == 0o444
    assert (folder / "2026/a.json").stat().st_nlink == 1


def test_no_link_is_followed_for_writing_reading_or_listing(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store = LocalObjectStore(folder)
    (folder / "dir").symlink_to(outside)
    (folder / "file").symlink_to(outside / "secret")
    (folder / "dangling").symlink_to(outside / "made")
    for key in ("dir/secret", "file", "dangling"):
        assert not store.exists(key)
        with pytest.raises(ObjectMissing):
            store.get(key)
        with pytest.raises(BadInput, match="found a file, folder or link in the way"):
            store.put(key, b"secret")
    with pytest.raises(BadInput):
        store.put("dir/new", b"x")
    assert store.list() == store.list("dir/") == ()
    assert files_below(outside) == ["secret"]


def test_what_is_no_file_is_no_object(folder: Path) -> None:
    store = LocalObjectStore(folder)
    os.mkfifo(folder / "pipe")
    assert not store.exists("pipe")
    with pytest.raises(ObjectMissing):
        store.get("pipe")
    with pytest.raises(BadInput):
        store.put("pipe", b"x")
    assert store.list() == ()


def test_a_key_cannot_be_a_folder_and_an_object(folder: Path) -> None:
    store = LocalObjectStore(folder)
    store.put("a/b", b"x")
    for key in ("a", "a/b/c"):
        with pytest.raises(BadInput, match="allowed: a key whose folders are folders, and that is no folder itself"):
            store.put(key, b"x")
    assert files_below(folder) == ["a/b"]


def test_foreign_names_are_not_listed(folder: Path) -> None:
    store = LocalObjectStore(folder)
    for name in (b"back\\slash", b"new\nline", b"\xff"):
        os.close(os.open(os.fsencode(folder) + b"/" + name, os.O_CREAT))
    assert store.list() == ()


class _Fails:
    """Fails a system call the way a full disk does."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, *_: object, **__: object) -> int:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
def test_a_full_disk_is_passing_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    store = LocalObjectStore(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _Fails(errno.ENOSPC))
        with pytest.raises(TransientError, match="k: not stored or read: No space left on device; free some"):
            store.put("k", b"data")
    assert files_below(folder) == []
    store.put("k", b"data")
    assert store.get("k") == b"data"


def test_short_writes_are_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    store = LocalObjectStore(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
        store.put("k", b"0123456789" * 10)
    assert store.get("k") == b"0123456789" * 10


def test_what_no_retry_helps_says_what_to_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalObjectStore(folder)
    monkeypatch.setattr(os, "link", _Fails(errno.EROFS))
    with pytest.raises(PermanentError, match="found 'Read-only file system', allowed: a folder this user can read and"):
        store.put("k", b"data")


WRITER = """
import pathlib, sys
from greenops_pipelines.store.local import LocalObjectStore
store = LocalObjectStore(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
for number in range(10_000):
    store.put(f"{number % 7}/{number}", str(number).encode() * 50_000)
    print(number, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [0, 1, 3, 10, 25])
def test_a_killed_writer_leaves_whole_objects_only_and_its_rest_is_swept(folder: Path, acknowledged: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        confirmed = [writer.stdout.readline() for _ in range(acknowledged + 1)][1:]
        writer.send_signal(signal.SIGKILL)
        confirmed += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    store = LocalObjectStore(folder)
    assert list((folder / ".incoming").iterdir()) == []
    numbers = {int(key.split("/")[1]) for key in store.list()}
    assert {int(line) for line in confirmed} <= numbers
    for number in numbers:
        assert store.get(f"{number % 7}/{number}") == str(number).encode() * 50_000
    assert {stat.S_IMODE((folder / key).stat().st_mode) for key in store.list()} <= {0o444}


DYING = """
import os, pathlib, signal, sys
from greenops_pipelines.store.local import LocalObjectStore
store, call, moment = LocalObjectStore(pathlib.Path(sys.argv[1])), getattr(os, sys.argv[2]), sys.argv[3]
def dying(*args, **options):
    if moment == "after":
        call(*args, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], dying)
store.put("a/k", b"data")
"""


@pytest.mark.parametrize(
    ("call", "moment", "stored"),
    [("write", "before", False), ("write", "after", False), ("link", "before", False), ("link", "after", True)],
)
def test_a_writer_killed_at_the_worst_moment_leaves_all_or_nothing(
    folder: Path, call: str, moment: str, stored: bool
) -> None:
    died = subprocess.run([sys.executable, "-c", DYING, str(folder), call, moment], check=False)
    assert died.returncode == -signal.SIGKILL
    # Its temporary file is there until the next store is opened, and is no object meanwhile.
    assert len(list((folder / ".incoming").iterdir())) == 1
    store = LocalObjectStore(folder)
    assert list((folder / ".incoming").iterdir()) == []
    assert store.list() == (("a/k",) if stored else ())
    store.put("a/k", b"data")
    assert store.get("a/k") == b"data"


def test_a_sweep_spares_the_file_of_a_living_writer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, fsync, seen = LocalObjectStore(folder), os.fsync, []

    def sweep_meanwhile(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            LocalObjectStore(folder)
            seen.append(len(list((folder / ".incoming").iterdir())))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sweep_meanwhile)
    store.put("k", b"data")
    assert (seen, store.get("k")) == ([1], b"data")


RACER = """
import pathlib, sys
from greenops_pipelines.errors import ObjectExists
from greenops_pipelines.store.local import LocalObjectStore
store = LocalObjectStore(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    try:
        store.put(f"n/{number}", sys.argv[2].encode() * 5000)
        print(number, flush=True)
    except ObjectExists:
        pass
"""


def test_racing_processes_share_the_keys_without_a_tie(folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        racers = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", RACER, str(folder), f"{writer}"], **pipes))
            for writer in range(4)
        ]
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 4
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        won = [racer.communicate()[0].split() for racer in racers]
    assert sorted(int(number) for numbers in won for number in numbers) == list(range(100))
    store = LocalObjectStore(folder)
    for writer, numbers in enumerate(won):
        assert all(store.get(f"n/{number}") == f"{writer}".encode() * 5000 for number in numbers)


# S3


def before_call(client: Any, operation: str, action: Callable[[], object]) -> None:
    """Runs `action` once, right before the next `operation` leaves for the server."""

    def once(**_: object) -> None:
        client.meta.events.unregister(f"before-send.s3.{operation}", once)
        action()

    client.meta.events.register(f"before-send.s3.{operation}", once)


def test_a_writer_that_comes_between_the_question_and_the_put_is_not_overwritten(client: Any) -> None:
    store = S3ObjectStore(client, BUCKET)
    before_call(client, "PutObject", lambda: S3ObjectStore(client, BUCKET).put("k", b"theirs"))
    with pytest.raises(ObjectExists):
        store.put("k", b"ours")
    assert store.get("k") == b"theirs"
    assert len(client.list_object_versions(Bucket=BUCKET)["Versions"]) == 1


def test_a_store_that_ignores_the_condition_still_keeps_the_first(client: Any) -> None:
    client.meta.events.register(
        "before-sign.s3.PutObject", lambda request, **_: request.headers.__delitem__("If-None-Match")
    )
    store = S3ObjectStore(client, BUCKET)
    store.put("k", b"first")
    with pytest.raises(ObjectExists):
        store.put("k", b"second")
    assert len(client.list_object_versions(Bucket=BUCKET)["Versions"]) == 1


def test_bytes_that_changed_in_the_store_are_noticed(client: Any) -> None:
    store = S3ObjectStore(client, BUCKET)
    before_call(client, "GetObject", lambda: client.put_object(Bucket=BUCKET, Key="k", Body=b"rotten"))
    with pytest.raises(PermanentError, match="found other bytes than were stored; do not trust this store"):
        store.put("k", b"ours")


def test_the_store_is_given_the_checksum_of_the_bytes(client: Any) -> None:
    S3ObjectStore(client, BUCKET).put("k", b"abc")
    head = client.head_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")
    # SHA-256 of "abc", FIPS 180-2 appendix B.1, in base64.
    assert head["ChecksumSHA256"] == "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="


def test_a_retention_is_set_and_read_back(client: Any) -> None:
    before = datetime.now(UTC)
    S3ObjectStore(client, BUCKET, retention=Retention(days=90, mode="COMPLIANCE")).put("k", b"x")
    head = client.head_object(Bucket=BUCKET, Key="k")
    assert head["ObjectLockMode"] == "COMPLIANCE"
    assert timedelta(days=90) - timedelta(seconds=2) <= head["ObjectLockRetainUntilDate"] - before < timedelta(days=91)


def test_an_object_without_the_lock_asked_for_is_not_taken_for_locked(client: Any) -> None:
    S3ObjectStore(client, BUCKET).put("k", b"x")
    with pytest.raises(PermanentError, match="found the lock none until never, allowed: GOVERNANCE for 3 days"):
        S3ObjectStore(client, BUCKET, retention=Retention(days=3)).put("k", b"x")


def test_a_lock_is_not_promised_by_a_bucket_that_has_none(client: Any) -> None:
    client.create_bucket(Bucket="plain", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    store = S3ObjectStore(client, "plain", retention=Retention(days=3))
    with pytest.raises(PermanentError, match=r"s3://plain: found no versioning, .* --bucket plain .*Status=Enabled$"):
        store.put("k", b"x")
    client.put_bucket_versioning(Bucket="plain", VersioningConfiguration={"Status": "Enabled"})
    with pytest.raises(PermanentError, match=r"s3://plain: found no Object Lock, .*ObjectLockEnabled=Enabled$"):
        store.put("k", b"x")
    assert store.list() == ()


def test_a_retention_of_no_days_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="found 0 days, allowed: at least 1"):
        Retention(days=0)


def test_listings_are_read_to_the_last_page(client: Any) -> None:
    store = S3ObjectStore(client, BUCKET, prefix="p")
    client.put_object(Bucket=BUCKET, Key="p/folder/", Body=b"")
    client.put_object(Bucket=BUCKET, Key="pq/other", Body=b"")
    for number in range(5):
        store.put(f"{number}", b"")
    client.meta.events.register(
        "before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.__setitem__("MaxKeys", 2)
    )
    assert store.list() == ("0", "1", "2", "3", "4")


def test_a_missing_bucket_is_named_and_never_an_absent_object(client: Any) -> None:
    store = S3ObjectStore(client, "nowhere")
    for call in (lambda: store.exists("k"), lambda: store.get("k"), lambda: store.list(), lambda: store.put("k", b"")):
        with pytest.raises(PermanentError, match=r"^s3://nowhere/k?: found no such bucket; create it, or correct"):
            call()


class _Refusing(BaseHTTPRequestHandler):
    """Answers every request with the server's `answer`: status, code of S3's error document."""

    def do_GET(self) -> None:
        status, code = self.server.answer  # type: ignore[attr-defined]
        text = "the key secret-that-must-not-show was quoted"
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 sleeps between its tries."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _seconds: None)


@pytest.mark.parametrize(
    ("status", "code", "error", "says"),
    [
        (503, "SlowDown", TransientError, "the store cannot take ListObjectsV2 now (SlowDown); try again later"),
        (500, "InternalError", TransientError, "the store cannot take ListObjectsV2 now (InternalError); try again later"),
        (502, "", TransientError, "the store cannot take ListObjectsV2 now (no code); try again later"),
        (429, "TooMany", TransientError, "the store cannot take ListObjectsV2 now (TooMany); try again later"),
        (403, "AccessDenied", PermanentError, "ListObjectsV2 is not permitted (AccessDenied); grant it to these credentials"),
        (403, "InvalidAccessKeyId", PermanentError, "the credentials were refused (InvalidAccessKeyId); renew the AWS_* credentials"),
        (403, "SignatureDoesNotMatch", PermanentError, "the credentials were refused (SignatureDoesNotMatch); renew the AWS_* credentials"),
        (403, "RequestTimeTooSkewed", PermanentError, "this machine's clock is wrong by over 15 minutes; synchronise it"),
        (400, "AuthorizationHeaderMalformed", PermanentError, "the bucket lies in another region; set GREENOPS_S3_REGION to it"),
        (405, "MethodNotAllowed", PermanentError, "the store refused ListObjectsV2 (MethodNotAllowed, HTTP 405)"),
    ],
)  # fmt: skip
def test_refusals_say_whether_a_retry_helps_and_what_to_change(
    refusing: HTTPServer, impatient: None, status: int, code: str, error: type[Exception], says: str
) -> None:
    refusing.answer = (status, code)  # type: ignore[attr-defined]
    client = s3_client(f"http://127.0.0.1:{refusing.server_port}", "eu-central-1")
    with pytest.raises(error) as refused:
        S3ObjectStore(client, BUCKET).exists("k")
    client.close()
    assert str(refused.value) == f"s3://{BUCKET}/k: {says}"


def test_a_store_that_is_not_there_is_passing(impatient: None) -> None:
    client = s3_client("http://127.0.0.1:9", "eu-central-1")
    with pytest.raises(TransientError, match=r"the connection to the store failed \(EndpointConnectionError\)"):
        S3ObjectStore(client, BUCKET).put("k", b"x")
    client.close()


def test_no_credentials_say_what_to_set(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    client = s3_client(endpoint, "eu-central-1")
    with pytest.raises(PermanentError, match="found no usable credentials; set AWS_ACCESS_KEY_ID and"):
        S3ObjectStore(client, BUCKET).list()
    client.close()


@pytest.mark.parametrize("endpoint", ["s3.example.org", "ftp://x", "http://", "https://user:hunter2@s3.example.org"])
def test_an_endpoint_is_an_address_without_secrets(endpoint: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^GREENOPS_S3_ENDPOINT: found .*, allowed: an address such as"
    ) as error:
        s3_client(endpoint, "eu-central-1")
    assert "hunter2" not in str(error.value)


def test_the_client_gives_up_in_time() -> None:
    client = s3_client("", "eu-west-1")
    config = client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (5, 60)
    assert config.retries == {"mode": "standard", "total_max_attempts": 5}
    assert client.meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"
    client.close()
