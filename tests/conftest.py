"""A real HTTP server on 127.0.0.1 that answers as told, faults included."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import settings as hypothesis_settings
from xdist.scheduler import LoadFileScheduling

# A deadline per example fails where two workers share two cores with a webserver; the examples stay the same.
hypothesis_settings.register_profile("patient", deadline=None)
hypothesis_settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Hundreds of fresh homes need not parse the same SQL models."""
    if getattr(config, "cache", None) is not None:
        os.environ["GREENOPS_DBT_CACHE"] = str(config.cache.mkdir("dbt"))


class _Scheduling(LoadFileScheduling):
    """A file goes to one worker, and files that share a site do."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "a site" if file in _OF_A_SITE else file


_OF_A_SITE = {f"tests/e2e/test_{name}.py" for name in ("browser", "launching", "unattended")}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """In place of `--dist loadfile`'s."""
    return _Scheduling(config, log)


Reply = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Request:
    path: str
    query: dict[str, str]
    headers: dict[str, str]


class FaultServer:
    """Answers requests with the queued replies in order; the last one is repeated."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._replies: list[Reply] = []
        self._closing = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                owner.requests.append(Request(url.path, dict(parse_qsl(url.query)), headers))
                reply = owner._replies.pop(0) if len(owner._replies) > 1 else owner._replies[0]
                try:
                    reply(self)
                except OSError:
                    self.close_connection = True  # the client hung up, as it should

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply(
        self,
        body: bytes | str = b"",
        *,
        status: int = 200,
        content_type: str = "application/json",
        declared_bytes: int | None = None,
        **headers: str,
    ) -> None:
        """Queue an answer. `declared_bytes` is a Content-Length that differs from the body's."""
        payload = body.encode() if isinstance(body, str) else body

        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Type", content_type)
            handler.send_header("Content-Length", str(len(payload) if declared_bytes is None else declared_bytes))
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(payload)

        self._replies.append(send)

    def json(self, payload: object, *, status: int = 200, **headers: str) -> None:
        self.reply(json.dumps(payload), status=status, **headers)

    def raw(self, answer: bytes) -> None:
        """Queue an answer byte for byte, status line included."""
        self._replies.append(lambda handler: handler.wfile.write(answer) and None)

    def silence(self) -> None:
        """Queue no answer: the connection stays open until the server closes."""
        self._replies.append(lambda handler: self._closing.wait() and None)

    def drip(self, byte: bytes = b" ") -> None:
        """Queue a body that arrives a byte at a time, and never ends."""

        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.end_headers()
            while not self._closing.wait(0.002):
                handler.wfile.write(byte)

        self._replies.append(send)

    def flood(self, total_bytes: int) -> None:
        """Queue a JSON string of that size, sent in pieces and without a Content-Length."""

        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.end_headers()
            handler.wfile.write(b'"')
            for _ in range(total_bytes // 65_536):
                handler.wfile.write(b"x" * 65_536)
            handler.wfile.write(b'"')

        self._replies.append(send)


@pytest.fixture
def fault_server() -> Iterator[FaultServer]:
    server = FaultServer()
    yield server
    server.close()
