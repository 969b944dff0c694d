"""The clients of a canary drill: they ask all the time, at a rate that slow answers do not slow down.

    with Clients(router.url, rate=200, connections=256) as clients:
        ...
    clients.counts().answered                   {200: 23_962, 500: 38}

Open loop: each request has its instant, fixed at the start, so that a slow service meets as many requests as a quick one
(closed loops hide an outage from its own figures: Gil Tene, "How NOT to Measure Latency"). Loaded by drills alone. Not
here: where the requests go, and what the answers mean.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp

from greenops_pipelines.errors import BadInput, TransientError
from greenops_pipelines.slo.router import BACKEND_HEADER

_THREAD_SECONDS = 10.0


@dataclass(frozen=True)
class Counts:
    """Requests whose instant has come: each is sent or `not_sent`; each sent one is answered, failed, cut off or open.

    `answered` by status, `failed` by what happened instead (`timeout`, or aiohttp's name of the error). `not_sent`: as
    many as allowed were open. `cut_off`: open when `stop` could wait no longer. `last_from`: by `x-backend`, when the
    last answer from it had arrived (`time.time_ns`), router's faults included.
    """

    sent: int
    not_sent: int
    answered: Mapping[int, int]
    failed: Mapping[str, int]
    cut_off: int
    open: int
    last_from: Mapping[str, int]


class Clients:
    """`rate` GETs of `url` per second, evenly spaced, with at most `connections` of them open at a time.

    They run between `start` and `stop`, or in a `with` block, in a thread of their own; once. A request without an answer
    fails after `timeout_seconds`.
    """

    def __init__(self, url: str, rate: float, connections: int, *, timeout_seconds: float = 30.0) -> None:
        if not 0 < rate <= 10_000:
            raise BadInput(f"rate: found {rate:g}, allowed: above 0, up to 10000 requests per second")
        if connections < 1:
            raise BadInput(f"connections: found {connections}, allowed: 1 and more")
        self._url = url
        self._rate = rate
        self._connections = connections
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._due = 0
        self._sent = 0
        self._cut_off = 0
        self._answered = Counter[int]()
        self._failed = Counter[str]()
        self._last_from: dict[str, int] = {}
        self._open: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._deadline_seconds = 0.0

    def counts(self) -> Counts:
        with self._lock:
            ended = self._answered.total() + self._failed.total() + self._cut_off
            return Counts(
                sent=self._sent,
                not_sent=self._due - self._sent,
                answered=dict(self._answered),
                failed=dict(self._failed),
                cut_off=self._cut_off,
                open=self._sent - ended,
                last_from=dict(self._last_from),
            )

    def start(self) -> Self:
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(ready)), name="canary clients", daemon=True
        )
        self._thread.start()
        ready.result(_THREAD_SECONDS)
        return self

    def stop(self, seconds: float = 5.0) -> Counts:
        """Sends no more, waits up to `seconds` for what is in flight and cuts off the rest. May be called again."""
        thread, loop, stopping = self._thread, self._loop, self._stopping
        if thread is not None and loop is not None and stopping is not None:
            if thread.is_alive():
                self._deadline_seconds = seconds
                loop.call_soon_threadsafe(stopping.set)
            thread.join(seconds + _THREAD_SECONDS)
            if thread.is_alive():
                raise TransientError(f"clients: still running {_THREAD_SECONDS:g} s after their deadline")
            self._thread = self._loop = self._stopping = None
        return self.counts()

    async def _run(self, ready: Future[None]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            ready.set_result(None)
            self._send_due(session, self._loop, self._loop.time(), self._stopping)
            await self._stopping.wait()
            if self._open:
                await asyncio.wait(self._open, timeout=self._deadline_seconds)
            cut_off = list(self._open)
            for task in cut_off:
                task.cancel()
            ends = await asyncio.gather(*cut_off, return_exceptions=True)
            with self._lock:
                self._cut_off = sum(isinstance(end, asyncio.CancelledError) for end in ends)

    def _send_due(
        self,
        session: aiohttp.ClientSession,
        loop: asyncio.AbstractEventLoop,
        began: float,
        stopping: asyncio.Event,
    ) -> None:
        """Sends what is due by now. Request n is due n / rate seconds after the first, however late the one before was."""
        if stopping.is_set():
            return
        due = int((loop.time() - began) * self._rate) + 1
        sent = min(due - self._due, self._connections - len(self._open))
        with self._lock:
            self._due = due
            self._sent += sent
        for _ in range(sent):
            task = loop.create_task(self._ask(session))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        loop.call_at(began + due / self._rate, self._send_due, session, loop, began, stopping)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.get(self._url, allow_redirects=False) as answer:
                await answer.read()
        except TimeoutError:
            self._fail("timeout")
        except aiohttp.ClientError as error:
            self._fail(type(error).__name__)
        else:
            with self._lock:
                self._answered[answer.status] += 1
                if backend := answer.headers.get(BACKEND_HEADER):
                    self._last_from[backend] = time.time_ns()

    def _fail(self, what: str) -> None:
        with self._lock:
            self._failed[what] += 1

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
