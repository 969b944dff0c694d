"""The HTTP client against a real server that misbehaves. No test sleeps: pauses are recorded, clocks are driven."""

from __future__ import annotations

import gzip
import json
import logging
import random
import re
import socket
import tracemalloc
from datetime import UTC, datetime
from itertools import count

import pytest
import requests
from pydantic import SecretStr

from greenops_pipelines.errors import ConfigurationError, ProviderError, TransientError
from greenops_pipelines.http import HttpClient, HttpStatusError

TOKEN = "s3cr3t/t0ken+with=signs"  # noqa: S105 - made up
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def client(fault_server, clock):
    def make(**options):
        defaults = {
            "headers": {"auth-token": SecretStr(TOKEN)},
            "sleep": clock.sleep,
            "clock": clock,
            "now": lambda: NOW,
            "rng": random.Random(7),
        }
        return HttpClient(fault_server.url, **(defaults | options))

    return make


def chain(error: BaseException) -> str:
    """All that a traceback, a logger or a debugger would print of an exception and of what led to it."""
    texts: list[str] = []
    todo: list[BaseException | None] = [error]
    while todo:
        current = todo.pop()
        if current is not None:
            texts += [str(current), repr(current), repr(current.args), repr(vars(current))]
            todo += [current.__cause__, current.__context__]
    return "\n".join(texts)


def test_json_arrives_with_parameters_and_headers(fault_server, client):
    fault_server.json({"zone": "DE", "value": 481.5})
    assert client().get_json("/carbon/latest", {"zone": "DE", "hours": 24}) == {"zone": "DE", "value": 481.5}
    [request] = fault_server.requests
    assert request.path == "/carbon/latest"
    assert request.query == {"zone": "DE", "hours": "24"}
    assert request.headers["auth-token"] == TOKEN


def test_gzip_and_chunked_bodies_are_read(fault_server, client):
    packed = gzip.compress(json.dumps({"a": [1, 2]}).encode())
    fault_server.reply(packed, Content_Encoding="gzip")
    chunked = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n'
    fault_server.raw(chunked)
    http = client()
    assert http.get_json("/") == {"a": [1, 2]}
    assert http.get_json("/") == {"a": 1}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_error_is_retried_with_full_jitter(status, fault_server, client, clock, caplog):
    fault_server.reply("busy", status=status, content_type="text/plain")
    fault_server.reply("busy", status=status, content_type="text/plain")
    fault_server.json({"ok": True})
    assert client(backoff_seconds=10).get_json("/x") == {"ok": True}
    jitter = random.Random(7)
    assert clock.pauses == [jitter.uniform(0, 10), jitter.uniform(0, 20)]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert f"answered {status}" in caplog.text
    assert "retry 1 of 3" in caplog.text
    assert "retry 2 of 3" in caplog.text


def test_a_lasting_error_gives_up_and_says_so(fault_server, client):
    fault_server.reply("<h1>Oops</h1>", status=500, content_type="text/html")
    with pytest.raises(TransientError, match=r"/x: answered 500 Internal Server Error: <h1>Oops</h1>; gave up after 3"):
        client(attempts=3).get_json("/x")
    assert len(fault_server.requests) == 3


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [("7", 7.0), ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0), ("Sun, 01 Mar 2026 11:00:00 GMT", None), ("soon", None)],
)
def test_retry_after_is_honoured(retry_after, pause, fault_server, client, clock):
    fault_server.reply(status=429, Retry_After=retry_after)
    fault_server.json([])
    assert client().get_json("/") == []
    assert clock.pauses == [pause if pause is not None else random.Random(7).uniform(0, 1)]


@pytest.mark.parametrize(
    ("retry_after", "back"),
    [
        ("86400", "2026-03-02T12:00:00Z"),
        ("Mon, 02 Mar 2026 12:00:00 GMT", "2026-03-02T12:00:00Z"),
        ("9" * 400, "2027-03-02T12:00:00Z"),
    ],
    ids=["seconds", "date", "endless"],
)
def test_an_absurd_retry_after_is_reported_and_not_waited_for(retry_after, back, fault_server, client, clock):
    fault_server.reply(status=429, Retry_After=retry_after)
    with pytest.raises(TransientError, match=f"answered 429 Too Many Requests; come back after {back}"):
        client().get_json("/")
    assert clock.pauses == []
    assert len(fault_server.requests) == 1


def test_no_pause_beyond_the_time_of_the_call(fault_server, client, clock):
    fault_server.reply(status=503, Retry_After="40")
    with pytest.raises(TransientError, match="no time for another attempt within 90 s"):
        client(total_seconds=90, attempts=9).get_json("/")
    assert clock.pauses == [40, 40]


def test_a_server_that_says_nothing_times_out(fault_server, client):
    fault_server.silence()
    with pytest.raises(TransientError, match="no answer within the read timeout; gave up after 2 attempts"):
        client(timeout=(1, 0.05), attempts=2).get_json("/")
    assert len(fault_server.requests) == 2


def test_a_dripping_body_ends_at_the_deadline(fault_server, client):
    fault_server.drip()
    ticks = count(step=1)
    with pytest.raises(TransientError, match="the body was still arriving after 30 s; no time for another attempt"):
        client(clock=lambda: float(next(ticks)), total_seconds=30).get_json("/")
    assert len(fault_server.requests) == 1


def test_a_refused_connection_is_transient(clock):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    http = HttpClient(url, attempts=2, sleep=clock.sleep)
    with pytest.raises(TransientError, match=r"the connection failed \(\[Errno \d+\] Connection refused\); gave up"):
        http.get_json("/")


def test_a_dropped_connection_is_retried(fault_server, client):
    fault_server.raw(b"")
    fault_server.json(1)
    assert client().get_json("/") == 1


@pytest.mark.parametrize(
    "half",
    ['{"zone": "D', '{"data": [{"a": 1}', '{"data": [1, 2', "[tru", '{"a":', "[1.5,", "", '{"a": "x}', '{"a": "é'],
)
def test_half_a_json_is_retried_then_transient(half, fault_server, client):
    fault_server.reply(half)
    with pytest.raises(TransientError, match="the JSON was cut off after"):
        client(attempts=2).get_json("/")
    assert len(fault_server.requests) == 2


def test_half_a_character_counts_as_cut_off(fault_server, client):
    fault_server.reply('{"a": "é'.encode()[:-1])
    with pytest.raises(TransientError, match="cut off"):
        client(attempts=2).get_json("/")


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (b'{"a": 1}', {"declared_bytes": 500}),
        (gzip.compress(b'{"a": 1}')[:-9], {"Content_Encoding": "gzip"}),
        (b"not gzip at all", {"Content_Encoding": "gzip"}),
    ],
    ids=["short", "short gzip", "no gzip"],
)
def test_a_body_shorter_than_declared_is_retried(body, options, fault_server, client):
    fault_server.reply(body, **options)
    fault_server.json("whole")
    assert client().get_json("/") == "whole"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<html><b>Log in</b></html>", "text/html; charset=utf-8"),
        ("  <!doctype html>", "application/json"),
        ('{"looks": "fine"}', "text/plain"),
    ],
)
def test_what_is_not_sent_as_json_is_a_permanent_error_with_an_excerpt(body, content_type, fault_server, client):
    fault_server.reply(body, content_type=content_type)
    with pytest.raises(ProviderError, match=f"expected JSON, found .*: '{re.escape(body.strip())}'"):
        client().get_json("/")
    assert len(fault_server.requests) == 1


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ('{"v": NaN}', "NaN is not a number in JSON"),
        ('{"v": -Infinity}', "-Infinity is not a number in JSON"),
        ('{"v": 1e999}', "the number 1e999 is out of range"),
        ('{"v": 1, "v": 2}', "the key 'v' stands twice in one object"),
        ("{'v': 1}", "Expecting property name"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        (b'{"v": "\xff"}', "not UTF-8"),
    ],
    ids=["NaN", "Infinity", "overflow", "duplicate key", "not JSON", "nested", "not UTF-8"],
)
def test_what_is_not_strict_json_is_refused(body, what, fault_server, client):
    fault_server.reply(body)
    with pytest.raises(ProviderError, match=f"the JSON cannot be used: .*{re.escape(what)}"):
        client().get_json("/")
    assert len(fault_server.requests) == 1


def test_fifty_megabytes_stop_at_the_limit(fault_server, client):
    fault_server.flood(50_000_000)
    with pytest.raises(ProviderError, match="larger than the limit of 10,000,000 bytes"):
        client().get_json("/")


def test_the_limit_counts_decompressed_bytes(fault_server, client):
    bomb = gzip.compress(b'"' + b"x" * 50_000_000 + b'"')
    assert len(bomb) < 100_000
    fault_server.reply(bomb, Content_Encoding="gzip")
    tracemalloc.start()
    with pytest.raises(ProviderError, match="larger than the limit of 10,000,000 bytes"):
        client().get_json("/")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 40_000_000


def test_a_body_of_exactly_the_limit_is_read(fault_server, client):
    fault_server.reply('"12345678"')
    assert client(max_bytes=10).get_json("/") == "12345678"
    with pytest.raises(ProviderError, match="limit of 9 bytes"):
        client(max_bytes=9).get_json("/")


def test_an_unknown_encoding_is_refused(fault_server, client):
    fault_server.reply(b"??", Content_Encoding="br")
    with pytest.raises(ProviderError, match="encoded as br"):
        client().get_json("/")


def test_a_refusal_carries_status_and_words(fault_server, client):
    fault_server.json({"error": "no such zone"}, status=404)
    with pytest.raises(HttpStatusError, match="answered 404 Not Found") as caught:
        client().get_json("/zones/XX")
    assert caught.value.status == 404
    assert caught.value.body == '{"error": "no such zone"}'
    assert len(fault_server.requests) == 1


def test_a_redirect_within_the_host_is_followed(fault_server, client):
    fault_server.reply(status=301, Location="/new?zone=DE")
    fault_server.json(2)
    assert client().get_json("/old", {"zone": "DE"}) == 2
    assert [request.path for request in fault_server.requests] == ["/old", "/new"]
    assert fault_server.requests[1].query == {"zone": "DE"}


@pytest.mark.parametrize("target", ["http://localhost:{port}/x", "https://127.0.0.1:{port}/x", "//evil.example/x"])
def test_a_redirect_elsewhere_is_not_followed(target, fault_server, client):
    fault_server.reply(status=302, Location=target.format(port=fault_server.url.rpartition(":")[2]))
    with pytest.raises(ProviderError, match=r"redirects to .*, which is not followed"):
        client().get_json("/")
    assert len(fault_server.requests) == 1


@pytest.mark.parametrize("target", ["http://[bad", "http://a b/", "http://x:port/"])
def test_a_malformed_redirect_is_an_error(target, fault_server, client):
    fault_server.reply(status=302, Location=target)
    with pytest.raises(ProviderError, match=r"malformed|not followed"):
        client().get_json("/")


def test_an_untrusted_certificate_is_not_retried(fault_server, client, clock, monkeypatch):
    def refuse(*args, **kwargs):
        raise requests.exceptions.SSLError(f"[SSL: CERTIFICATE_VERIFY_FAILED] at https://x/?token={TOKEN}")

    http = client()
    monkeypatch.setattr(requests.Session, "get", refuse)
    with pytest.raises(ProviderError, match="its TLS certificate is not trusted") as caught:
        http.get_json("/")
    assert "s3cr3t" not in chain(caught.value)
    assert clock.pauses == []


def test_a_circle_of_redirects_ends(fault_server, client):
    fault_server.reply(status=302, Location="/again")
    with pytest.raises(ProviderError, match="redirects more than 3 times"):
        client().get_json("/again")


def test_calls_beyond_the_budget_wait(fault_server, client, clock):
    fault_server.json(0)
    http = client(rate_per_minute=2, total_seconds=10)
    for _ in range(3):
        http.get_json("/")
    assert clock.pauses == [60.0]
    clock.time += 100
    http.get_json("/")
    assert clock.pauses == [60.0]


def test_the_wait_for_the_budget_is_not_taken_from_the_call(fault_server, client, clock):
    fault_server.json(0)
    fault_server.reply(status=503)
    fault_server.json(1)
    http = client(rate_per_minute=1, total_seconds=10)
    http.get_json("/")
    assert http.get_json("/") == 1


@pytest.mark.parametrize(
    ("base_url", "problem"),
    [
        ("api.example.com/v4", "allowed is http"),
        ("ftp://api.example.com", "allowed is http"),
        ("http://[bad", "allowed is http"),
        ("https://me:hunter2@api.example.com", "a user, password, query or fragment is not allowed"),
        ("https://api.example.com?key=hunter2", "a user, password, query or fragment is not allowed"),
    ],
)
def test_an_unusable_base_url_is_a_configuration_error(base_url, problem):
    with pytest.raises(ConfigurationError, match=problem) as caught:
        HttpClient(base_url)
    assert "hunter2" not in chain(caught.value)


@pytest.mark.parametrize("token", ["abc-line-break\n", "abc-ümlaut", ""])
def test_a_malformed_token_is_refused_without_being_shown(token):
    with pytest.raises(ConfigurationError, match="header auth-token: the value is empty, or") as caught:
        HttpClient("http://127.0.0.1", headers={"auth-token": SecretStr(token)})
    assert "abc" not in chain(caught.value)


def test_netrc_does_not_replace_the_token(fault_server, client, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    fault_server.json(1)
    client(headers={"Authorization": SecretStr("Bearer mine")}).get_json("/")
    assert fault_server.requests[0].headers["authorization"] == "Bearer mine"


FAULTS = {
    "silence": lambda server: server.silence(),
    "dropped": lambda server: server.raw(b""),
    "garbage": lambda server: server.raw(b"\x00 nonsense\r\n\r\n"),
    "bad headers": lambda server: server.raw(b"HTTP/1.1 404 No\r\nbroken header\r\n\r\n{}"),
    "echo in 500": lambda server: server.reply(f"you sent {TOKEN}", status=500),
    "echo in 401": lambda server: server.json({"error": f"bad token {TOKEN}"}, status=401),
    "echo in html": lambda server: server.reply(f"<p>{TOKEN}</p>", content_type="text/html"),
    "echo in json": lambda server: server.reply(f'{{"{TOKEN}": 1, "{TOKEN}": 2}}'),
    "echo in type": lambda server: server.reply("x", content_type=f"text/{TOKEN}"),
    "echo in redirect": lambda server: server.reply(status=302, Location=f"http://{TOKEN}.example/"),
    "half a json": lambda server: server.reply(f'{{"a": "{TOKEN}'),
    "cut off": lambda server: server.reply("{}", declared_bytes=99),
    "absurd": lambda server: server.reply(TOKEN, status=429, Retry_After="86400"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_secrets_are_sent_and_never_shown(fault, fault_server, client, caplog):
    caplog.set_level(logging.DEBUG)
    FAULTS[fault](fault_server)
    http = client(timeout=(1, 0.05), attempts=2)
    with pytest.raises((ProviderError, TransientError)) as caught:
        http.get_json("/x", {"zone": "DE", "token": SecretStr(TOKEN)})
    assert fault_server.requests[0].headers["auth-token"] == TOKEN
    assert fault_server.requests[0].query["token"] == TOKEN
    shown = "\n".join([chain(caught.value), caplog.text, repr(http), repr([r.__dict__ for r in caplog.records])])
    for part in ("s3cr3t", "t0ken"):
        assert part not in shown
    assert "urllib3" in caplog.text  # its DEBUG lines were there to be checked


def test_secrets_stay_out_of_an_unreachable_host(clock, caplog):
    caplog.set_level(logging.DEBUG)
    http = HttpClient("http://127.0.0.1:9", headers={"auth-token": SecretStr(TOKEN)}, attempts=2, sleep=clock.sleep)
    with pytest.raises(TransientError) as caught:
        http.get_json("/x", {"token": SecretStr(TOKEN)})
    assert "s3cr3t" not in chain(caught.value) + caplog.text
