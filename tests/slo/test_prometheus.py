"""What comes over the wire, from a server that says what it is told to; and a real Prometheus behind the client."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from greenops_pipelines.errors import BadInput, ProviderError, TransientError
from greenops_pipelines.process import prometheus as server
from greenops_pipelines.process.ports import free_port
from greenops_pipelines.slo.prometheus import Answer, Prometheus
from tests.slo.conftest import program


class Stub:
    """Answers everything with `status` and `body`; `length` other than the body's cuts it off, `waits` for nothing."""

    def __init__(self) -> None:
        self.status, self.body, self.content_type = 200, b"", "application/json"
        self.length: int | None = None
        self.hangs = False
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                stub.asked.append((parts.path, parse_qs(parts.query)))
                if stub.hangs:
                    self.connection.recv(1)
                    return
                self.send_response(stub.status)
                self.send_header("Content-Type", stub.content_type)
                self.send_header("Content-Length", str(len(stub.body) if stub.length is None else stub.length))
                self.end_headers()
                self.wfile.write(stub.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is declared there
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def says(self, data: object, **more: object) -> None:
        self.body = json.dumps({"status": "success", "data": data, **more}).encode()

    def refuses(self, status: int, kind: str, words: str) -> None:
        self.status = status
        self.body = json.dumps({"status": "error", "errorType": kind, "error": words}).encode()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.close()


def test_vector_with_values_that_json_has_no_numbers_for(stub: Stub) -> None:
    values = {"a": "0.5", "b": "NaN", "c": "+Inf", "d": "-Inf"}
    result = [{"metric": {"pod": pod}, "value": [1700000000.5, text]} for pod, text in values.items()]
    stub.says({"resultType": "vector", "result": result}, warnings=["not everything was read"])
    answer = Prometheus(stub.url + "/").query("sum by (pod) (x)", at=1700000000.5)
    assert answer.kind == "vector"
    assert answer.samples[0] == ({"pod": "a"}, 0.5)
    assert answer.values == pytest.approx((0.5, math.nan, math.inf, -math.inf), nan_ok=True)
    assert answer.warnings == ("not everything was read",)
    assert stub.asked == [
        ("/api/v1/query", {"query": ["sum by (pod) (x)"], "time": ["1700000000.500"], "timeout": ["10.000"]})
    ]


def test_scalar_matrix_and_nothing(stub: Stub) -> None:
    client = Prometheus(stub.url)
    stub.says({"resultType": "scalar", "result": [5, "2"]})
    assert client.query("2") == Answer("scalar", (({}, 2.0),))
    stub.says({"resultType": "vector", "result": []})
    assert client.query("x").values == ()
    rows = [{"metric": {"a": "1"}, "values": [[0, "1"], [0.3, "2"]]}, {"metric": {}, "values": [[0.3, "NaN"]]}]
    stub.says({"resultType": "matrix", "result": rows})
    answer = client.query_range("x", 0, 0.3, 0.3)
    assert answer.samples[0] == ({"a": "1"}, ((0.0, 1.0), (0.3, 2.0)))
    assert answer.values == pytest.approx((1, 2, math.nan), nan_ok=True)
    path, params = stub.asked[-1]
    assert path == "/api/v1/query_range"
    assert (params["start"], params["end"], params["step"]) == (["0.000"], ["0.300"], ["0.300"])
    assert "time" not in stub.asked[0][1]


@pytest.mark.parametrize(("status", "kind"), [(400, "bad_data"), (422, "execution")])
def test_refused_query_is_bad_input_in_the_words_of_prometheus(stub: Stub, status: int, kind: str) -> None:
    stub.refuses(status, kind, "1:5: parse error: unexpected )")
    with pytest.raises(BadInput, match=rf"query sum\)\): Prometheus says {kind}: 1:5: parse error: unexpected \)"):
        Prometheus(stub.url).query("sum))")
    assert len(stub.asked) == 1


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504])
def test_server_error_is_transient_and_asked_once(stub: Stub, status: int) -> None:
    stub.refuses(status, "timeout", "query timed out in expression evaluation")
    with pytest.raises(TransientError, match="query timed out in expression evaluation"):
        Prometheus(stub.url).query("x")
    assert len(stub.asked) == 1


def test_cut_off_body_is_transient(stub: Stub) -> None:
    stub.says({"resultType": "vector", "result": []})
    stub.length = len(stub.body) + 10
    with pytest.raises(TransientError, match="the connection failed"):
        Prometheus(stub.url).query("x")
    stub.body, stub.length = stub.body[:-5], None
    with pytest.raises(TransientError, match="cut off"):
        Prometheus(stub.url).query("x")


def test_server_that_hangs_is_transient_within_the_timeout_and_not_ready(stub: Stub) -> None:
    stub.hangs = True
    client = Prometheus(stub.url, timeout_seconds=0.2)
    began = time.monotonic()
    with pytest.raises(TransientError, match="no answer within the read timeout"):
        client.query("x")
    assert not client.is_ready()
    assert time.monotonic() - began < 5


def test_server_that_is_not_there_is_transient_and_not_ready() -> None:
    client = Prometheus(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TransientError, match="the connection failed"):
        client.query("x")
    assert not client.is_ready()


def test_readiness_is_what_it_says(stub: Stub) -> None:
    stub.content_type = "text/plain"
    assert Prometheus(stub.url).is_ready()
    stub.status = 503
    assert not Prometheus(stub.url).is_ready()
    assert {path for path, _ in stub.asked} == {"/-/ready"}


@pytest.mark.parametrize(
    "data",
    [
        {"resultType": "string", "result": [0, "text"]},
        {"resultType": "vector", "result": [{"metric": {}, "histogram": [0, {}]}]},
        {"resultType": "vector", "result": [{"metric": {}, "value": [0, "many"]}]},
        {"result": []},
        [],
    ],
)
def test_answer_that_is_none_of_the_three_cannot_be_used(stub: Stub, data: object) -> None:
    stub.says(data)
    with pytest.raises(ProviderError, match="the answer to query cannot be used"):
        Prometheus(stub.url).query("x")


def test_something_else_on_the_port_is_no_prometheus(stub: Stub) -> None:
    stub.body = b'{"hello": "world"}'
    with pytest.raises(ProviderError, match="found no answer of Prometheus to query; change its URL"):
        Prometheus(stub.url).query("x")
    stub.status, stub.body, stub.content_type = 404, b"404 page not found", "text/plain"
    with pytest.raises(ProviderError, match="404 page not found"):
        Prometheus(stub.url).query("x")


def test_time_that_is_none_is_refused(stub: Stub) -> None:
    with pytest.raises(BadInput, match="found nan, allowed: a finite number of seconds"):
        Prometheus(stub.url).query("x", at=math.nan)
    assert stub.asked == []


def test_targets_and_one_that_was_never_scraped(stub: Stub) -> None:
    common = {"labels": {"job": "drill"}, "lastError": ""}
    active = [
        {**common, "health": "up", "lastScrape": "2024-05-01T10:00:00.123456789Z"},
        {**common, "health": "unknown", "lastScrape": "0001-01-01T00:00:00Z"},
    ]
    stub.says({"activeTargets": active, "droppedTargets": []})
    first, second = Prometheus(stub.url).targets()
    assert first == ({"job": "drill"}, "up", "", datetime(2024, 5, 1, 10, 0, 0, 123456, tzinfo=UTC))
    assert second.last_scrape is None


@pytest.mark.real
def test_real_prometheus_answers_and_refuses(tmp_path: Path) -> None:
    program(server.PROGRAM, server.INSTALL)
    with server.running(tmp_path, (), 15) as child:
        client = Prometheus(child.url)
        assert client.is_ready()
        assert client.targets() == []
        assert client.query("vector(1) / 0", at=5) == Answer("vector", (({}, math.inf),))
        assert client.query("time()", at=1700000000.057).values == (1700000000.057,)
        assert client.query_range("time()", 1, 2, 0.5).samples == (({}, ((1.0, 1.0), (1.5, 1.5), (2.0, 2.0))),)
        with pytest.raises(BadInput, match=r"Prometheus says bad_data: .*parse error"):
            client.query("sum((")
        with pytest.raises(BadInput, match=r"Prometheus says bad_data: .*11,000 points"):
            client.query_range("1", 0, 12_000, 1)
        clash = 'label_replace(vector(1), "a", "1", "", "") or label_replace(vector(1), "a", "2", "", "")'
        with pytest.raises(BadInput, match=r"Prometheus says execution: .*duplicate series"):
            client.query(f"vector(1) + on() ({clash})")
        with pytest.raises(ProviderError, match="cannot be used"):
            client.query('"text"')
