"""The router between two real services: exact shares, a switch that is a switch, and faults that stay where they are."""

from __future__ import annotations

import asyncio
import itertools
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import requests

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.clients import Clients
from greenops_pipelines.slo.drilled_service import make_app, serve
from greenops_pipelines.slo.router import BackendName, Router


@dataclass(frozen=True)
class Service:
    url: str

    def inject(self, **fault: object) -> None:
        requests.post(f"{self.url}/fault", json=fault, timeout=5).raise_for_status()

    def counts(self) -> dict[str, Any]:
        return dict(requests.get(f"{self.url}/counts", timeout=5).json())


@contextmanager
def running(version: str) -> Iterator[Service]:
    port: Future[int] = Future()
    handles: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        ended = asyncio.Event()
        handles.set_result((asyncio.get_running_loop(), ended))
        await serve(make_app("api-gateway", version, f"api-gateway-{version}"), port.set_result, ended)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield Service(f"http://127.0.0.1:{port.result(5)}")
    finally:
        loop, ended = handles.result(5)
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)


@pytest.fixture
def stable() -> Iterator[Service]:
    with running("1.0.0") as service:
        yield service


@pytest.fixture
def canary() -> Iterator[Service]:
    with running("2.0.0") as service:
        yield service


def asked(url: str, number: int, at_a_time: int) -> list[tuple[int, str]]:
    """Status and backend of each answer, in the order of the requests where one is asked at a time."""

    async def run() -> list[tuple[int, str]]:
        gate = asyncio.Semaphore(at_a_time)
        async with aiohttp.ClientSession() as session:

            async def one() -> tuple[int, str]:
                async with gate, session.get(url) as answer:
                    await answer.read()
                    return answer.status, answer.headers["x-backend"]

            return await asyncio.gather(*(one() for _ in range(number)))

    return asyncio.run(run())


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("weight", [5, 25, 50, 100])
def test_the_share_of_a_thousand_requests_is_exact(stable: Service, canary: Service, weight: int) -> None:
    with Router(stable.url, canary.url) as router:
        before = router.set_weight(weight)
        answers = Counter(asked(router.url, 1000, at_a_time=40))
        seen = router.snapshot()
    expected = {(200, "canary"): 10 * weight, (200, "stable"): 1000 - 10 * weight}
    assert answers == {answer: number for answer, number in expected.items() if number}
    assert {name: counts.answered for name, counts in seen.backends.items()} == {
        "canary": 10 * weight,
        "stable": 1000 - 10 * weight,
    }
    assert router.answered == 1000
    assert canary.counts()["requests_served"] == 10 * weight
    assert stable.counts()["requests_served"] == 1000 - 10 * weight
    last = router.last_answer("canary")
    assert last is not None
    assert before < last.at_ns <= seen.at_ns
    assert (last.backend, last.status) == ("canary", 200)
    assert 0.002 <= last.seconds < 5


@pytest.mark.parametrize("weight", [0, 1, 5, 33, 50, 99])
def test_the_canary_s_requests_are_evenly_spread(weight: int) -> None:
    with Router(None, None, weight=weight) as router:
        backends = [backend for _, backend in asked(router.url, 300, at_a_time=1)]
    at = [index for index, backend in enumerate(backends) if backend == "canary"]
    assert {sum(start <= index < start + 100 for index in at) for start in range(201)} == {weight}
    gaps = {later - earlier for earlier, later in itertools.pairwise(at)}
    assert gaps <= ({100 // weight, -(-100 // weight)} if weight else set())
    if weight == 5:
        assert at == list(range(19, 300, 20))


def test_a_switch_under_load_leaves_only_what_was_in_flight(stable: Service, canary: Service) -> None:
    canary.inject(delay_seconds=0.3)
    with Router(stable.url, canary.url, weight=50) as router, Clients(router.url, 200, 256) as clients:
        until(lambda: router.snapshot().backends["canary"].answered >= 20)
        switched = router.set_weight(0)
        at_switch = router.snapshot().backends["canary"]
        assert router.wait_until_idle("canary", 5)
        after = router.snapshot().backends["canary"]
        last = router.last_answer("canary")
        asked_since = router.answered
        until(lambda: router.answered >= asked_since + 100)
        clients.stop()
        end = router.snapshot().backends["canary"]
        counts = clients.counts()
    # About 30 were in flight (100 per second for 0.3 s), and each of them was answered.
    assert at_switch.in_flight > 0
    assert after.answered == at_switch.answered + at_switch.in_flight
    assert last is not None
    assert switched < last.at_ns < switched + 5_000_000_000
    assert end == after
    assert canary.counts()["requests_served"] == end.answered
    assert canary.counts()["abandoned"] == 0
    # What the clients saw themselves.
    assert abs(counts.last_from["canary"] - last.at_ns) < 1_000_000_000
    assert counts.last_from["stable"] > counts.last_from["canary"]
    assert counts.answered == {200: counts.sent}


def test_a_dead_canary_costs_its_share_and_nothing_else(stable: Service) -> None:
    with Router(stable.url, f"http://127.0.0.1:{free_port()}", weight=25) as router:
        assert Counter(asked(router.url, 40, at_a_time=4)) == {(200, "stable"): 30, (502, "canary"): 10}
        dead = router.snapshot().backends["canary"]
        assert dead.faults == {"refused": 10}
        assert (dead.answered, dead.last, dead.last_error) == (0, None, None)
        assert dead.first_fault is not None
        assert dead.last_fault is not None
        assert dead.first_fault.at_ns < dead.last_fault.at_ns
        router.set_weight(0)
        assert Counter(asked(router.url, 40, at_a_time=4)) == {(200, "stable"): 40}


def test_a_canary_that_dies_and_comes_back_elsewhere(stable: Service, canary: Service) -> None:
    with Router(stable.url, None, weight=100) as router:
        answer = requests.get(router.url, timeout=5)
        assert (answer.status_code, answer.headers["x-router-fault"]) == (503, "absent")
        with running("1.9.0") as first:
            router.set_backend("canary", first.url)
            assert asked(router.url, 3, at_a_time=1) == [(200, "canary")] * 3
        # The connections to it were pooled.
        assert asked(router.url, 2, at_a_time=1) == [(502, "canary")] * 2
        router.set_backend("canary", canary.url + "/")
        assert asked(router.url, 2, at_a_time=1) == [(200, "canary")] * 2
        counts = router.snapshot().backends["canary"]
        assert (counts.by_status, counts.faults) == ({200: 5}, {"refused": 2, "absent": 1})


def test_a_canary_that_never_answers_is_a_timeout_and_holds_up_nobody_else(stable: Service, canary: Service) -> None:
    canary.inject(stuck=True)
    with (
        Router(stable.url, canary.url, weight=100, timeout_seconds=1.5, concurrency=2) as router,
        ThreadPoolExecutor(2) as threads,
    ):
        held = [threads.submit(requests.get, router.url, timeout=5) for _ in range(2)]
        until(lambda: router.snapshot().backends["canary"].in_flight == 2)
        full = requests.get(router.url, timeout=5)
        assert (full.status_code, full.headers["x-router-fault"]) == (503, "full")
        router.set_weight(0)
        assert requests.get(router.url, timeout=5).status_code == 200
        late = [each.result(5) for each in held]
        assert [(each.status_code, each.headers["x-router-fault"]) for each in late] == [(504, "timeout")] * 2
        counts = router.snapshot().backends["canary"]
        assert (counts.answered, counts.faults) == (0, {"timeout": 2, "full": 1})
        assert counts.last_fault is not None
        assert counts.last_fault.seconds >= 1.5
    until(lambda: canary.counts()["in_flight"] == 0)


def test_a_lack_of_file_descriptors_is_no_fault_of_the_canary(canary: Service) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Router(None, None, weight=100) as router, requests.Session() as session:
        assert session.get(router.url, timeout=5).headers["x-router-fault"] == "absent"  # Its connection stays open.
        router.set_backend("canary", canary.url)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            answer = session.get(router.url, timeout=5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert (answer.status_code, answer.headers["x-router-fault"]) == (503, "full")


def test_errors_of_a_backend_are_its_answers_the_first_and_the_last_kept(stable: Service, canary: Service) -> None:
    canary.inject(error_ratio=0.2)
    with Router(stable.url, canary.url, weight=100) as router:
        asked(router.url, 15, at_a_time=1)
        counts = router.snapshot().backends["canary"]
    assert counts.by_status == {200: 12, 500: 3}
    assert (counts.errors, counts.faults) == (3, {})
    assert counts.first_error is not None
    assert counts.last_error is not None
    assert counts.last is not None
    assert counts.first_error.at_ns < counts.last_error.at_ns < counts.last.at_ns
    assert (counts.last_error.status, counts.last.status) == (500, 200)


def test_a_client_that_hangs_up_costs_nothing(stable: Service, canary: Service) -> None:
    canary.inject(stuck=True)
    with Router(stable.url, canary.url, weight=100) as router:
        with socket.create_connection(("127.0.0.1", int(router.url.rpartition(":")[2]))) as impatient:
            impatient.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: canary.counts()["in_flight"] == 1)
            assert not router.wait_until_idle("canary", 0.01)
        began = time.monotonic()
        assert router.wait_until_idle("canary", 30)
        assert time.monotonic() - began < 10  # Told, not found out when the time was over.
        counts = router.snapshot().backends["canary"]
        assert (counts.abandoned, counts.answered, counts.faults) == (1, 0, {})
        until(lambda: canary.counts()["abandoned"] == 1)
        canary.inject()
        assert requests.get(router.url, timeout=5).status_code == 200


def test_path_body_and_headers_are_passed_on(stable: Service) -> None:
    with Router(stable.url, None) as router:
        told = requests.post(f"{router.url}/fault?by=drill", json={"error_ratio": 1}, timeout=5)
        assert told.json()["fault"]["error_ratio"] == 1
        assert told.headers["Content-Type"] == "application/json; charset=utf-8"
        assert told.headers["x-backend"] == "stable"
        assert requests.get(router.url, timeout=5).text == "injected error\n"
        assert requests.get(f"{router.url}/none", timeout=5).status_code == 404
        assert requests.get(f"{router.url}//counts", timeout=5).json()["requests_served"] == 1


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_weight_that_is_no_share_is_refused(percent: int) -> None:
    router = Router(None, None, weight=5)
    with pytest.raises(BadInput, match=rf"weight: found {percent}, allowed: 0 to 100 percent"):
        router.set_weight(percent)
    assert router.snapshot().weight == 5


def test_nothing_is_left_after_the_stop(stable: Service, canary: Service) -> None:
    threads = set(threading.enumerate())
    canary.inject(stuck=True)
    with Router(stable.url, canary.url, weight=50) as router, ThreadPoolExecutor(1) as pool:
        asked(router.url, 1, at_a_time=1)
        cut_off = pool.submit(requests.get, router.url, timeout=10)
        until(lambda: canary.counts()["in_flight"] == 1)
        router.stop()
        with pytest.raises(requests.ConnectionError):
            cut_off.result(5)
    router.stop()
    assert set(threading.enumerate()) == threads
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(router.url.rpartition(":")[2])))
    backends: dict[BackendName, int] = {name: c.in_flight for name, c in router.snapshot().backends.items()}
    assert backends == {"stable": 0, "canary": 0}
    until(lambda: canary.counts()["in_flight"] == 0)
