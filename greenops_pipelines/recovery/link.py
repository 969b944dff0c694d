"""TCP links with a distance: a proxy on loopback that delays, stalls, drops and cuts what it carries.

    with Links() as links:
        wan = links.add("wan", target=5432, delay_seconds=0.045)
        wan.stall()

All links of one drill share an event loop in a thread of their own. Bytes arrive late, whole and in order, as TCP has
it. Not here: what runs over them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from greenops_pipelines.errors import TransientError
from greenops_pipelines.process.ports import LOOPBACK

T = TypeVar("T")

_CHUNK = 64 * 1024
_LOOP_SECONDS = 30
_ROUNDS = 5
_ON_THE_WAY = 256
"""Chunks that are on the way in one direction; beyond that the sender waits, as on a full line."""


class Link:
    """One port on loopback whose connections go on to another, `delay_seconds` later in each direction."""

    def __init__(self, name: str, links: Links, delay_seconds: float) -> None:
        """Use `Links.add`."""
        self.name = name
        self.port = 0
        self.target = 0
        self._links = links
        self._delay = delay_seconds
        self._server: asyncio.Server
        self._flows: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._cut = False

    def route(self, target: int) -> None:
        """New connections go to `target`; those that are open are closed, so that nobody stays behind. Ends a stall and a cut."""
        self._links.call(self._route, target)

    def stall(self) -> None:
        """Nothing is carried any more, and nothing is closed: new connections open, and hear nothing."""
        self._links.call(self._open.clear)

    def resume(self) -> None:
        """What was held up arrives, and new connections are taken again."""
        self._links.call(self._resume)

    def cut(self) -> None:
        """Connections are closed, and new ones closed at once."""
        self._links.call(self._close_all)

    async def _listen(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0, limit=_CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    def _route(self, target: int) -> None:
        self.target = target
        self._close_all()
        self._resume()

    def _resume(self) -> None:
        self._cut = False
        self._open.set()

    def _close_all(self) -> None:
        self._cut = True
        for flow in tuple(self._flows):
            flow.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow = asyncio.current_task()
        assert flow is not None  # noqa: S101 (for the type checker: a server's handler runs as a task)
        self._flows.add(flow)
        try:
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            # A connection that breaks, or is cut, is what this is for.
            pass
        finally:
            self._flows.discard(flow)
            _abort(writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            return
        await self._open.wait()
        far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self.target, limit=_CHUNK)
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._one_way(reader, far_writer))
                directions.create_task(self._one_way(far_reader, writer))
        except* OSError:
            pass
        finally:
            _abort(far_writer)

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        # So that drain() waits for the last byte: what is written before an end must not be lost with it.
        writer.transport.set_write_buffer_limits(0)
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_ON_THE_WAY)

        async def deliver() -> None:
            while True:
                due, chunk = await under_way.get()
                if (left := due - now()) > 0:
                    await asyncio.sleep(left)
                await self._open.wait()
                if not chunk:
                    writer.write_eof()
                    return
                writer.write(chunk)
                await writer.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(deliver())
            # A reset comes behind what was sent before it, and a stall holds it like anything else.
            with contextlib.suppress(OSError):
                while chunk := await reader.read(_CHUNK):
                    await under_way.put((now() + self._delay, chunk))
            await under_way.put((now() + self._delay, b""))

    def _stop_listening(self) -> None:
        for each in self._server.sockets:
            asyncio.get_running_loop().remove_reader(each.fileno())
        self._close_all()


class Links:
    """The links of one drill. Leaving the `with` block closes all of them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._links: list[Link] = []

    def add(self, name: str, target: int = 0, delay_seconds: float = 0.0) -> Link:
        """A link on a free port (`.port`); `TransientError` where there is none."""
        link = Link(name, self, delay_seconds)
        link.target = target
        try:
            self._await(link._listen())
        except OSError as error:
            raise TransientError(
                f"link {name}: found no free port on {LOOPBACK}: {error.strerror}; try again"
            ) from None
        self._links.append(link)
        return link

    def call(self, action: Callable[..., object], *arguments: object) -> None:
        """Runs `action` in the loop's thread, and returns when it has run."""

        async def run() -> None:
            action(*arguments)

        self._await(run())

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(_LOOP_SECONDS)
        except TimeoutError:
            raise TransientError(
                f"links: found no answer of their loop in {_LOOP_SECONDS} s; is this machine overloaded?"
            ) from None

    async def _close(self) -> None:
        for link in self._links:
            link._stop_listening()
        # What was accepted a moment ago is closed too: a server that is closed first would leave it open.
        for _ in range(_ROUNDS):
            if not (others := asyncio.all_tasks() - {asyncio.current_task()}):
                break
            await asyncio.wait(others, timeout=2)
        for link in self._links:
            link._server.close()
        await asyncio.sleep(0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._await(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def _abort(writer: asyncio.StreamWriter) -> None:
    # Not close(), which would first send what the other side does not read any more.
    writer.transport.abort()
