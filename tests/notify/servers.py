"""A real HTTP server on 127.0.0.1 that takes POSTs and answers as told, one that breaks TLS off, and a real SMTP server that
speaks STARTTLS."""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Posted:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class PostServer:
    """Answers POSTs with the queued replies in order; the last one is repeated."""

    def __init__(self) -> None:
        self.posts: list[Posted] = []
        self.arrived = threading.Event()
        self._replies: list[Reply] = []
        self._closing = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                owner.posts.append(Posted(self.path, headers, json.loads(body)))
                owner.arrived.set()
                reply = owner._replies.pop(0) if len(owner._replies) > 1 else owner._replies[0]
                with contextlib.suppress(OSError):
                    reply(self)
                self.close_connection = True

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

    def answer(self, status: int = 200, body: str = "ok", declared_bytes: int | None = None, **headers: str) -> None:
        """Queue an answer. `declared_bytes` is a Content-Length that the body does not have."""
        payload = body.encode()

        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(payload) if declared_bytes is None else declared_bytes))
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(payload)

        self._replies.append(send)

    def hang(self) -> None:
        """Queue no answer: the connection stays open until the server closes."""
        self._replies.append(lambda _: self._closing.wait() and None)

    def hang_up(self) -> None:
        """Queue the end of the connection, after the whole request and before any answer."""
        self._replies.append(lambda _: None)


class BrokenTls:
    """Reads whole requests over TLS, and answers with what is no TLS record."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.posts: list[bytes] = []
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                raw = os.dup(self.connection.fileno())
                try:
                    with context.wrap_socket(self.connection, server_side=True) as connection:
                        with connection.makefile("rb") as file:
                            length = 0
                            while (line := file.readline().lower()) not in (b"\r\n", b""):
                                if line.startswith(b"content-length:"):
                                    length = int(line.split(b":")[1])
                            if body := file.read(length):
                                owner.posts.append(body)
                        os.write(raw, b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                        connection.setblocking(False)
                        # The client reads what was written before the connection ends.
                        with contextlib.suppress(OSError):
                            connection.unwrap()
                except OSError:
                    pass  # the client did not trust the certificate
                finally:
                    os.close(raw)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"https://localhost:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class SmtpServer:
    """Takes mails; `codes` answers a verb with another code, "DATA." is the end of the mail, 0 hangs up."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.mails: list[str] = []
        self.verbs: list[str] = []
        self.codes: dict[str, int] = {}
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.is_over_tls = False
                self._say("220 here")
                while line := self.rfile.readline():
                    verb = line.decode().strip().split(" ")[0].upper()
                    owner.verbs.append(verb + (" over TLS" if self.is_over_tls else ""))
                    if verb in owner.codes:
                        if not owner.codes[verb]:
                            return
                        self._say(f"{owner.codes[verb]} as told, by {line.decode().strip()}")
                    elif verb == "EHLO":
                        offers = "250-STARTTLS\r\n" if context and not self.is_over_tls else ""
                        self._say(f"250-here\r\n{offers}250 AUTH PLAIN")
                    elif verb == "STARTTLS" and context:
                        self._say("220 go on")
                        self.connection = context.wrap_socket(self.connection, server_side=True)
                        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                        self.is_over_tls = True
                    elif verb == "DATA":
                        self._say("354 go on")
                        mail = b""
                        while (part := self.rfile.readline()) != b".\r\n":
                            mail += part
                        owner.mails.append(mail.decode())
                        if "DATA." in owner.codes:
                            if not owner.codes["DATA."]:
                                return
                            self._say(f"{owner.codes['DATA.']} as told")
                        else:
                            self._say("250 taken")
                    elif verb == "QUIT":
                        self._say("221 bye")
                        return
                    else:
                        self._say("235 in" if verb == "AUTH" else "250 ok")

            def finish(self) -> None:
                super().finish()
                self.connection.close()

            def _say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.port = self._server.server_address[1]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
