"""The weighted router of a canary drill: an HTTP reverse proxy that sends an exact share of the requests to the canary.

    with Router(stable=stable_url, canary=canary_url) as router:
        router.set_weight(5)                    every 20th request from the next one on
        switched = router.set_weight(0)
        router.wait_until_idle("canary", 5)     the last answers of the canary are there
        router.last_answer("canary")

What it knows stays small however long a drill runs: counters, and the first and last of what matters. Loaded by drills
alone. Not here: who sets the weight, how it is counted (`router_counts.py`), and what the answers mean.
"""

from __future__ import annotations

import asyncio
import errno
import re
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from greenops_pipelines.errors import BadInput, TransientError
from greenops_pipelines.slo.router_counts import (
    BACKENDS,
    ERROR_STATUS,
    Answer,
    Backend,
    BackendCounts,
    BackendName,
    FaultKind,
    Snapshot,
)

__all__ = ["BACKENDS", "BACKEND_HEADER", "Answer", "BackendCounts", "BackendName", "FaultKind", "Router", "Snapshot"]

BACKEND_HEADER = "x-backend"
FAULT_HEADER = "x-router-fault"
LOOPBACK = "127.0.0.1"

_FAULT_STATUS: Mapping[FaultKind, int] = {"refused": 502, "broken": 502, "absent": 503, "full": 503, "timeout": 504}
_SHUTDOWN_SECONDS = 1.0
_THREAD_SECONDS = 10.0
_BACKLOG = 1024
_NOT_PASSED_ON = re.compile(
    "connection|keep-alive|proxy-connection|proxy-authenticate|proxy-authorization|te|trailer|transfer-encoding|upgrade"
    "|content-length|expect|host|date|server",
    re.IGNORECASE,
)
"""Hop by hop (RFC 9110, section 7.6.1), and what each side makes anew."""


class _Fault(Exception):
    def __init__(self, kind: FaultKind) -> None:
        super().__init__(kind)
        self.kind = kind


class Router:
    """Between `start` and `stop`, or in a `with` block, it serves on `url`, in a thread of its own.

    A backend is a URL without a path, or None while there is none. One that does not answer within `timeout_seconds`
    (default: what Envoy gives a route) costs its client a 504, one that refuses or breaks off a 502, one that is absent or
    has `concurrency` requests in flight a 503, and so does a process out of file descriptors (three per open request where
    the clients are in it too); the header `x-router-fault` names which. `x-backend` names the backend
    always. Neither backend can use up what the other needs.
    """

    def __init__(
        self,
        stable: str | None,
        canary: str | None,
        *,
        weight: int = 0,
        timeout_seconds: float = 15.0,
        concurrency: int = 1024,
    ) -> None:
        self._backends: dict[BackendName, Backend] = {"stable": Backend(None), "canary": Backend(None)}
        self._weight = 0
        self._credit = 0
        self._timeout_seconds = timeout_seconds
        self._concurrency = concurrency
        # One lock over the choice of a backend and the weight: once set_weight(0) has returned, whatever still goes to the
        # canary is in flight, and is counted as such.
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._port = 0
        self.set_backend("stable", stable)
        self.set_backend("canary", canary)
        self.set_weight(weight)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    def set_weight(self, percent: int) -> int:
        """The canary's share from the next request on; the instant (`time.time_ns`) from which it holds.

        Of any 100 requests under one weight exactly `percent` go to the canary, evenly spread. `BadInput` outside 0..100.
        """
        if not 0 <= percent <= 100:
            raise BadInput(f"weight: found {percent}, allowed: 0 to 100 percent")
        with self._change:
            self._weight = percent
            return time.time_ns()

    def set_backend(self, name: BackendName, url: str | None) -> None:
        """Where its requests go from the next one on. What it has answered so far stays counted under its name."""
        with self._change:
            self._backends[name].base = None if url is None else url.rstrip("/")

    @property
    def answered(self) -> int:
        """Requests that a backend answered, whatever the status."""
        with self._change:
            return sum(backend.by_status.total() for backend in self._backends.values())

    def last_answer(self, backend: BackendName) -> Answer | None:
        with self._change:
            return self._backends[backend].last

    def snapshot(self) -> Snapshot:
        with self._change:
            counts = {name: backend.counts() for name, backend in self._backends.items()}
            return Snapshot(time.time_ns(), self._weight, counts)

    def wait_until_idle(self, backend: BackendName, seconds: float) -> bool:
        """Whether nothing was in flight to the backend, at some moment before `seconds` had passed."""
        with self._change:
            return self._change.wait_for(lambda: self._backends[backend].in_flight == 0, seconds)

    def start(self) -> Self:
        """`TransientError` where no port can be had."""
        ready: Future[int] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), name="canary router", daemon=True
        )
        self._thread.start()
        try:
            self._port = ready.result(_THREAD_SECONDS)
        except OSError as error:
            self._thread.join(_THREAD_SECONDS)
            reason = error.strerror or f"no answer of its thread in {_THREAD_SECONDS:g} s"
            raise TransientError(f"router: cannot listen on {LOOPBACK}: {reason}; try again") from None
        return self

    def stop(self) -> None:
        """Requests in flight get a second; then they are cut off. May be called again."""
        thread, loop, stopping = self._thread, self._loop, self._stopping
        if thread is None or loop is None or stopping is None:
            return
        if thread.is_alive():
            loop.call_soon_threadsafe(stopping.set)
        thread.join(_THREAD_SECONDS)
        if thread.is_alive():
            raise TransientError(
                f"router: still running {_THREAD_SECONDS:g} s after its stop; is this machine overloaded?"
            )
        self._thread = self._loop = self._stopping = None

    async def _serve(self, ready: Future[int]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        # No limit of its own: what is in flight is bounded per backend, and a queue here would hide it.
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE),
        ) as session:

            async def handle(request: web.BaseRequest) -> web.Response:
                return await self._handle(request, session)

            server = web.Server(handle, access_log=None, handler_cancellation=True)
            runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECONDS)
            await runner.setup()
            try:
                await web.TCPSite(runner, LOOPBACK, 0, backlog=_BACKLOG).start()
                ready.set_result(runner.addresses[0][1])
                await self._stopping.wait()
            except OSError as error:
                ready.set_exception(error)
            finally:
                await runner.cleanup()

    async def _handle(self, request: web.BaseRequest, session: aiohttp.ClientSession) -> web.Response:
        began = time.perf_counter()
        body = await request.read() if request.body_exists else None
        with self._chosen() as name:
            try:
                status, headers, content = await self._ask(name, request, body, session)
            except _Fault as fault:
                status = _FAULT_STATUS[fault.kind]
                self._note_fault(
                    fault.kind, Answer(time.time_ns(), name, status, time.perf_counter() - began, time.monotonic_ns())
                )
                headers, content = CIMultiDict({FAULT_HEADER: fault.kind}), f"{name}: {fault.kind}\n".encode()
            except asyncio.CancelledError:
                with self._change:
                    self._backends[name].abandoned += 1
                raise
            else:
                self._note(Answer(time.time_ns(), name, status, time.perf_counter() - began, time.monotonic_ns()))
        headers[BACKEND_HEADER] = name
        return web.Response(status=status, headers=headers, body=content)

    @contextmanager
    def _chosen(self) -> Iterator[BackendName]:
        with self._change:
            self._credit += self._weight
            name: BackendName = "stable"
            if self._credit >= 100:
                self._credit -= 100
                name = "canary"
            backend = self._backends[name]
            backend.in_flight += 1
        try:
            yield name
        finally:
            with self._change:
                backend.in_flight -= 1
                if not backend.in_flight:
                    self._change.notify_all()

    async def _ask(
        self, name: BackendName, request: web.BaseRequest, body: bytes | None, session: aiohttp.ClientSession
    ) -> tuple[int, CIMultiDict[str], bytes]:
        backend = self._backends[name]
        if backend.base is None:
            raise _Fault("absent")
        if backend.in_flight > self._concurrency:
            raise _Fault("full")
        url = URL(f"{backend.base}/{request.rel_url.raw_path_qs.lstrip('/')}", encoded=True)
        try:
            async with session.request(
                request.method, url, headers=_end_to_end(request.headers), data=body, allow_redirects=False
            ) as answer:
                return answer.status, _end_to_end(answer.headers), await answer.read()
        except TimeoutError:
            raise _Fault("timeout") from None
        except aiohttp.ClientConnectorError as error:
            # Out of file descriptors is this process' own trouble, and must not look like a dead canary.
            raise _Fault("full" if error.errno in (errno.EMFILE, errno.ENFILE) else "refused") from None
        except aiohttp.ClientError:
            raise _Fault("broken") from None

    def _note(self, answer: Answer) -> None:
        with self._change:
            backend = self._backends[answer.backend]
            backend.by_status[answer.status] += 1
            backend.last = answer
            if answer.status >= ERROR_STATUS:
                backend.first_error = backend.first_error or answer
                backend.last_error = answer

    def _note_fault(self, kind: FaultKind, answer: Answer) -> None:
        with self._change:
            backend = self._backends[answer.backend]
            backend.faults[kind] += 1
            backend.first_fault = backend.first_fault or answer
            backend.last_fault = answer

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Without those that are between two neighbours only, the ones that `Connection` names included."""
    named = {name.strip().lower() for value in headers.getall(hdrs.CONNECTION, ()) for name in value.split(",")}
    kept = CIMultiDict[str]()
    for name, value in headers.items():
        if not _NOT_PASSED_ON.fullmatch(name) and name.lower() not in named:
            kept.add(name, value)
    return kept
