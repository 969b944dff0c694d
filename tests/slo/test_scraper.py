"""Targets are real HTTP servers on loopback; every wait is for a scrape that was seen, none for time to pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from greenops_pipelines.errors import BadInput, ConfigurationError
from greenops_pipelines.process import prometheus as server
from greenops_pipelines.process.ports import free_port
from greenops_pipelines.slo.evaluator import Labels, canonical
from greenops_pipelines.slo.prometheus import Metrics, Prometheus
from greenops_pipelines.slo.scraper import Scraper
from tests.slo.conftest import program

SECONDS = 0.1
Respond = Callable[[BaseHTTPRequestHandler], None]


class Service:
    """Exposes `text`, or does what `respond` does; counts its scrapes."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.respond: Respond | None = None
        self._scrapes = 0
        self._scraped = threading.Condition()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service._serve(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is declared there
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.address = f"127.0.0.1:{self._http.server_port}"

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        if self.respond is not None:
            self.respond(request)
        else:
            body = self.text.encode()
            request.send_response(200)
            request.send_header("Content-Type", "text/plain; version=0.0.4")
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        with self._scraped:
            self._scrapes += 1
            self._scraped.notify_all()

    def scraped(self, more: int = 2) -> None:
        """Waits for whole scrapes; two by default: when the second has begun, what the first brought is recorded."""
        with self._scraped:
            wanted = self._scrapes + more
            assert self._scraped.wait_for(lambda: self._scrapes >= wanted, timeout=15)

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@contextmanager
def _service(text: str = "") -> Iterator[Service]:
    service = Service(text)
    try:
        yield service
    finally:
        service.close()


def _eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _series(metrics: Metrics, query: str) -> set[Labels]:
    return {canonical(labels) for labels, _ in metrics.query(query).samples}


TEXT = """\
# HELP jobs what a counter is called without `_total`
# TYPE jobs counter
jobs 3
# TYPE requests_total counter
requests_total{status="ok",instance="mine"} 5
requests_total{status="5xx",job=""} 1
# TYPE d histogram
d_bucket{le="0.1"} 1
d_bucket{le="+Inf"} 2
d_sum 0.7
d_count 2
odd{a="back\\\\slash, \\"quote\\" and # hash"} NaN
"""


def test_target_labels_are_added_where_the_service_has_none_of_that_name() -> None:
    with _service(TEXT) as service, Scraper([(service.address, {"pod": "p-1"})], SECONDS, 600) as scraper:
        service.scraped()
        target = {"job": "drill", "instance": service.address, "pod": "p-1"}
        assert _series(scraper, "requests_total") == {
            canonical({**target, "__name__": "requests_total", "status": "ok", "instance": "mine"}),
            canonical({**target, "__name__": "requests_total", "status": "5xx", "job": ""}),
        }
        assert _series(scraper, "jobs") == {canonical({**target, "__name__": "jobs"})}
        assert _series(scraper, "jobs_total") == set()
        assert _series(scraper, 'odd{a="back\\\\slash, \\"quote\\" and # hash"}') != set()
        assert scraper.query("sum(d_bucket)").values == (3,)
        assert scraper.query("up").samples == (({**target, "__name__": "up"}, 1),)
        assert scraper.query("scrape_samples_scraped").values == (8,)
        ((labels, health, error, last),) = scraper.targets()
        assert (labels, health, error) == (target, "up", "")
        assert last is not None
        assert abs(time.time() - last.timestamp()) < 15


def test_rate_over_scrapes_and_a_range_of_answers() -> None:
    with _service("c_total 0\n") as service, Scraper([(service.address, {})], SECONDS, 600) as scraper:
        began = time.time()
        for value in range(1, 6):
            service.scraped(1)
            service.text = f"c_total {value * 10}\n"
        service.scraped()
        assert scraper.query("max_over_time(c_total[1m])").values == (50,)
        (rate,) = scraper.query("rate(c_total[10s])").values
        # 50 within the ten seconds and, extrapolated, two half gaps more at most.
        assert 5 <= rate <= 7.5
        answer = scraper.query_range("c_total", began, time.time(), 0.05)
        assert answer.kind == "matrix"
        assert answer.values[0] == 0
        assert answer.values[-1] == 50


def test_series_that_is_no_longer_exposed_is_gone_with_the_next_scrape() -> None:
    with _service('g{a="1"} 1\ng{a="2"} 2\n') as service, Scraper([(service.address, {})], SECONDS, 600) as scraper:
        service.scraped()
        assert scraper.query("count(g)").values == (2,)
        service.text = 'g{a="2"} 3\n'
        service.scraped(3)
        assert scraper.query("g").values == (3,)
        service.text = 'g{a="1"} 4\ng{a="2"} 4\n'
        service.scraped(3)
        assert scraper.query("g").values == (4, 4)


def test_sample_with_a_time_of_its_own_keeps_it_and_stays() -> None:
    stamp = round(time.time() * 1000) - 60_000
    with _service(f"g 7 {stamp}\n") as service, Scraper([(service.address, {})], SECONDS, 600) as scraper:
        service.scraped()
        service.text = ""
        service.scraped(3)
        assert scraper.query("g[2m]").samples[0][1] == ((stamp / 1000, 7),)
        assert scraper.query("g").values == (7,)


def test_target_that_vanishes_is_down_and_its_series_are_gone() -> None:
    with _service("g 1\n") as other:
        service = Service("g 1\n")
        with Scraper([(service.address, {}), (other.address, {})], SECONDS, 600) as scraper:
            service.scraped()
            other.scraped()
            assert scraper.query("sum(up)").values == (2,)
            service.close()
            _eventually(lambda: scraper.query("sum(up)").values == (1,))
            assert [labels["instance"] for labels, _ in scraper.query("g").samples] == [other.address]
            assert scraper.targets()[0].health == "down"
            assert scraper.targets()[0].last_error == "not reached, or cut off: ConnectionRefusedError"


def _hangs(request: BaseHTTPRequestHandler) -> None:
    request.connection.recv(1)  # Until the other side has enough.


def _drips(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b"g 1\n")
            request.wfile.flush()
            time.sleep(0.02)
    except OSError:
        return


def _truncates(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "100")
    request.end_headers()
    request.wfile.write(b"g 1\n")


def _fails(request: BaseHTTPRequestHandler) -> None:
    request.send_error(503)


def _page(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"<html>\n")


@pytest.mark.parametrize(
    ("respond", "words"),
    [
        (_hangs, "no answer within 0.1 s"),
        (_drips, "no answer within 0.1 s"),
        (_truncates, "the answer was cut off"),
        (_fails, "answered 503"),
        (_page, "not the text format: "),
    ],
)
def test_bad_target_costs_its_own_scrapes_only(respond: Respond, words: str) -> None:
    with _service("g 1\n") as bad, _service("g 1\n") as good:
        bad.respond = respond
        with Scraper([(bad.address, {"pod": "bad"}), (good.address, {"pod": "good"})], SECONDS, 600) as scraper:
            _eventually(lambda: scraper.targets()[0].health == "down")
            good.scraped(5)
            assert scraper.targets()[0].last_error.startswith(words)
            assert scraper.query('up{pod="bad"}').values == (0,)
            assert scraper.query('up{pod="good"}').values == (1,)
            assert [labels["pod"] for labels, _ in scraper.query("g").samples] == ["good"]
            bad.respond = None
            _eventually(lambda: scraper.query("sum(g)").values == (2,))


def test_good_target_is_scraped_at_its_interval_beside_one_that_hangs() -> None:
    with _service() as bad, _service("g 1\n") as good:
        bad.respond = _hangs
        with Scraper([(bad.address, {}), (good.address, {})], SECONDS, 600) as scraper:
            good.scraped(11)
        instants = [t for t, _ in scraper.query("g[1m]").samples[0][1]]  # type: ignore[union-attr]
        gaps = sorted(after - before for before, after in pairwise(instants))
        assert gaps[len(gaps) // 2] == pytest.approx(SECONDS, rel=0.2)


def test_threads_end_with_the_block_even_while_a_target_hangs_and_answers_remain() -> None:
    before, reached = set(threading.enumerate()), threading.Event()

    def hangs(request: BaseHTTPRequestHandler) -> None:
        reached.set()
        _hangs(request)

    with _service("g 1\n") as service, _service() as stuck:
        stuck.respond = hangs
        with Scraper([(service.address, {})], 30, 600) as scraper, Scraper([(stuck.address, {})], 30, 600):
            _eventually(lambda: scraper.query("g").values == (1,))
            assert reached.wait(15)
            ending = time.monotonic()
        assert time.monotonic() - ending < 5
        assert scraper.query("g").values == (1,)
        assert scraper.name == "embedded scraper"
    _eventually(lambda: set(threading.enumerate()) <= before)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadInput, match="a retention not below the look-back"):
        Scraper([], 15, 299)
    with pytest.raises(BadInput, match=r"an interval from 0.001 s"):
        Scraper([], 0, 600)
    with pytest.raises(ConfigurationError, match=r"found the target 'http://x/metrics'"):
        Scraper([("http://x/metrics", {})], 15, 600)
    with pytest.raises(BadInput, match=r"topk\(\)"):
        Scraper([], 15, 600).query("topk(1, g)")


@pytest.mark.real
def test_same_series_as_prometheus(tmp_path: Path) -> None:
    program(server.PROGRAM, server.INSTALL)
    with _service(TEXT + 'gone{a="1"} 1\n') as service:
        dead = f"127.0.0.1:{free_port()}"
        targets = [(service.address, {"pod": "p-1", "status": "mine"}), (dead, {"job": "other"})]
        with server.running(tmp_path, targets, SECONDS) as child, Scraper(targets, SECONDS, 600) as scraper:
            everyone: tuple[Metrics, ...] = (scraper, Prometheus(child.url))
            for metrics in everyone:
                _eventually(lambda metrics=metrics: len(metrics.query("gone or (up == 0)").samples) == 2)  # type: ignore[misc]
            service.text = TEXT
            for metrics in everyone:
                _eventually(lambda metrics=metrics: not metrics.query("gone").samples)  # type: ignore[misc]
                assert len(metrics.query("gone[1m]").samples) == 1
            wanted = '{instance!="", __name__!~"scrape_.+_relabeling|scrape_series_added"}'
            ours, theirs = (_series(metrics, wanted) for metrics in everyone)
            assert ours == theirs
            assert len(ours) == 8 + 2 * 3
