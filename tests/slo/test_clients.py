"""Clients against a real service: as many requests as the rate says, whatever the answers do, and each accounted for."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
import requests

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.clients import Clients, Counts
from greenops_pipelines.slo.drilled_service import make_app, serve


@pytest.fixture
def url() -> Iterator[str]:
    port: Future[int] = Future()
    handles: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        ended = asyncio.Event()
        handles.set_result((asyncio.get_running_loop(), ended))
        await serve(make_app("api-gateway", "1.0.0", "api-gateway-1"), port.set_result, ended)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    yield f"http://127.0.0.1:{port.result(5)}"
    loop, ended = handles.result(5)
    loop.call_soon_threadsafe(ended.set)
    thread.join(10)


def inject(url: str, **fault: object) -> None:
    requests.post(f"{url}/fault", json=fault, timeout=5).raise_for_status()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def accounted(counts: Counts) -> int:
    return sum(counts.answered.values()) + sum(counts.failed.values()) + counts.cut_off + counts.open


def test_the_rate_is_kept_without_drift(url: str) -> None:
    clients = Clients(url, 100, 64)
    before = time.monotonic()
    clients.start()
    until(lambda: clients.counts().sent >= 101)
    took = time.monotonic() - before
    # Request 101 is due exactly one second after the first; what the thread's start and the look took comes on top.
    assert 1.0 <= took < 2.0
    counts = clients.stop()
    assert (counts.not_sent, counts.open, counts.cut_off, counts.failed) == (0, 0, 0, {})
    assert counts.answered == {200: counts.sent}
    assert requests.get(f"{url}/counts", timeout=5).json()["requests_served"] == counts.sent


def test_what_a_stall_held_up_is_sent_after_it(url: str) -> None:
    with Clients(url, 100, 300) as clients:
        with clients._lock:  # Their loop waits for it, as it would wait for a busy machine.
            time.sleep(1.0)
        ended = time.monotonic()
        until(lambda: clients.counts().sent >= 100)
        assert time.monotonic() - ended < 0.5
        assert clients.counts().not_sent == 0


def test_slow_answers_do_not_slow_the_clients_down(url: str) -> None:
    inject(url, delay_seconds=0.5)
    with Clients(url, 100, 200) as clients:
        until(lambda: clients.counts().sent >= 30)
        # Under half a second has passed since the first: nobody had waited for it.
        counts = clients.counts()
        assert counts.not_sent == 0
        assert counts.open >= 25
        assert accounted(counts) == counts.sent


def test_beyond_the_bound_nothing_is_sent_and_that_is_counted(url: str) -> None:
    inject(url, stuck=True)
    with Clients(url, 200, 10) as clients:
        until(lambda: clients.counts().not_sent >= 20)
        counts = clients.counts()
        assert (counts.sent, counts.open, counts.answered) == (10, 10, {})
        inject(url)
        until(lambda: clients.counts().answered.get(200, 0) >= 30)
        counts = clients.stop()
    assert counts.answered == {200: counts.sent}


def test_answers_are_counted_by_status(url: str) -> None:
    inject(url, error_ratio=0.25)
    with Clients(url, 200, 64) as clients:
        until(lambda: clients.counts().sent >= 100)
        counts = clients.stop()
    assert counts.answered[500] == -(-counts.sent // 4)
    assert accounted(counts) == counts.sent
    assert counts.last_from == {}


def test_stop_waits_for_what_is_in_flight(url: str) -> None:
    inject(url, delay_seconds=0.4)
    with Clients(url, 50, 64) as clients:
        until(lambda: clients.counts().sent >= 5)
        counts = clients.stop(10)
    assert counts.answered == {200: counts.sent}
    assert (counts.open, counts.cut_off) == (0, 0)


def test_stop_waits_no_longer_than_its_deadline(url: str) -> None:
    inject(url, stuck=True)
    with Clients(url, 100, 5) as clients:
        until(lambda: clients.counts().not_sent >= 1)
        began = time.monotonic()
        counts = clients.stop(0.2)
        assert 0.2 <= time.monotonic() - began < 3
    assert (counts.sent, counts.cut_off, counts.open) == (5, 5, 0)
    assert clients.stop() == counts


def test_requests_without_an_answer_are_failures(url: str) -> None:
    inject(url, stuck=True)
    with Clients(url, 100, 50, timeout_seconds=0.1) as clients:
        until(lambda: clients.counts().failed.get("timeout", 0) >= 5)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with Clients(nobody, 100, 50) as clients:
            until(lambda: clients.counts().failed.get("ClientConnectorError", 0) >= 5)
            counts = clients.stop()
    assert counts.failed == {"ClientConnectorError": counts.sent}


def test_no_thread_is_left(url: str) -> None:
    threads = set(threading.enumerate())
    with Clients(url, 50, 5) as clients:
        until(lambda: clients.counts().sent >= 2)
        assert {thread.name for thread in set(threading.enumerate()) - threads} == {"canary clients"}
    assert set(threading.enumerate()) == threads


@pytest.mark.parametrize(
    ("rate", "connections", "words"),
    [
        (0, 1, r"rate: found 0, allowed: above 0"),
        (float("nan"), 1, r"rate: found nan"),
        (1, 0, r"connections: found 0, allowed: 1 and more"),
    ],
)
def test_a_load_that_cannot_be_is_refused(rate: float, connections: int, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Clients("http://127.0.0.1:1", rate, connections)
