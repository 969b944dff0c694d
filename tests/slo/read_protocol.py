"""Remote read and write as google.protobuf writes them, and a server that speaks as it is told to."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

STALE = struct.unpack("<d", (0x7FF0000000000002).to_bytes(8, "little"))[0]

Row = tuple[Mapping[str, str], Sequence[tuple[int, float]]]
"""Labels, and (milliseconds, value)."""

_F = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, list[tuple[str, int, int, str]]] = {
    "Label": [("name", 1, _F.TYPE_STRING, ""), ("value", 2, _F.TYPE_STRING, "")],
    "Sample": [("value", 1, _F.TYPE_DOUBLE, ""), ("timestamp", 2, _F.TYPE_INT64, "")],
    "TimeSeries": [("labels", 1, _F.TYPE_MESSAGE, "Label"), ("samples", 2, _F.TYPE_MESSAGE, "Sample")],
    "QueryResult": [("timeseries", 1, _F.TYPE_MESSAGE, "TimeSeries")],
    "ReadResponse": [("results", 1, _F.TYPE_MESSAGE, "QueryResult")],
    "WriteRequest": [("timeseries", 1, _F.TYPE_MESSAGE, "TimeSeries")],
    "LabelMatcher": [("type", 1, _F.TYPE_INT32, ""), ("name", 2, _F.TYPE_STRING, ""), ("value", 3, _F.TYPE_STRING, "")],
    "Query": [
        ("start_timestamp_ms", 1, _F.TYPE_INT64, ""),
        ("end_timestamp_ms", 2, _F.TYPE_INT64, ""),
        ("matchers", 3, _F.TYPE_MESSAGE, "LabelMatcher"),
    ],
    "ReadRequest": [("queries", 1, _F.TYPE_MESSAGE, "Query"), ("accepted_response_types", 2, _F.TYPE_INT32, "")],
}
_REPEATED = {"labels", "samples", "timeseries", "results", "matchers", "queries", "accepted_response_types"}


def _classes() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="remote.proto", package="prometheus", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, type_name in fields:
            label = _F.LABEL_REPEATED if field_name in _REPEATED else _F.LABEL_OPTIONAL
            more = {"type_name": f".prometheus.{type_name}"} if type_name else {}
            message.field.add(name=field_name, number=number, type=kind, label=label, **more)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"prometheus.{name}")) for name in _MESSAGES
    }


MESSAGES = _classes()


def series(rows: Sequence[Row]) -> list[Any]:
    return [
        MESSAGES["TimeSeries"](
            labels=[MESSAGES["Label"](name=name, value=value) for name, value in labels.items()],
            samples=[MESSAGES["Sample"](timestamp=at, value=value) for at, value in samples],
        )
        for labels, samples in rows
    ]


def snappy(message: bytes) -> bytes:
    return bytes(pa.Codec("snappy").compress(message, asbytes=True))


def response(rows: Sequence[Row]) -> bytes:
    """The uncompressed ReadResponse."""
    result = MESSAGES["QueryResult"](timeseries=series(rows))
    return bytes(MESSAGES["ReadResponse"](results=[result]).SerializeToString())


def write_request(rows: Sequence[Row]) -> bytes:
    return snappy(MESSAGES["WriteRequest"](timeseries=series(rows)).SerializeToString())


def asked(body: bytes) -> Any:
    """The ReadRequest in a body."""
    size, shift = 0, 0
    for byte in body:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return MESSAGES["ReadRequest"].FromString(pa.Codec("snappy").decompress(body, decompressed_size=size).to_pybytes())


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    declared_bytes: int | None = None
    """A Content-Length other than the body's."""


PROTOBUF = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}


def answer(rows: Sequence[Row]) -> Reply:
    return Reply(200, snappy(response(rows)), PROTOBUF)


def text(status: int, words: str) -> Reply:
    return Reply(status, words.encode(), {"Content-Type": "text/plain; charset=utf-8"})


class Stub:
    """An HTTP server on 127.0.0.1: POST is answered by `reads`, GET by `gets`; `reads` None says nothing at all."""

    def __init__(self) -> None:
        self.reads: Callable[[Any], Reply] | None = lambda _: answer([])
        self.gets: Callable[[str], Reply] = lambda _: text(404, "404 page not found")
        self.drips = False
        self.headers: list[dict[str, str]] = []
        self.queries: list[Any] = []
        self.paths: list[str] = []
        self._closing = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                stub.headers.append({name.lower(): value for name, value in self.headers.items()})
                stub.paths.append(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                query = asked(body).queries[0]
                stub.queries.append(query)
                if stub.reads is None:
                    stub._closing.wait()
                    return
                self._say(stub.reads(query))

            def do_GET(self) -> None:
                stub.headers.append({name.lower(): value for name, value in self.headers.items()})
                stub.paths.append(self.path)
                self._say(stub.gets(self.path))

            def _say(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                size = len(reply.body) if reply.declared_bytes is None else reply.declared_bytes
                self.send_header("Content-Length", str(size))
                self.end_headers()
                try:
                    self.wfile.write(reply.body)
                    while stub.drips and not stub._closing.wait(0.01):
                        self.wfile.write(b"\0")
                except OSError:
                    self.close_connection = True  # the client hung up, as it should

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        self.address = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.address}"

    def close(self) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
