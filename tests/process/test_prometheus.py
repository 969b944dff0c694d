"""A real Prometheus, really scraping a server of this process; skipped where it is not installed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import requests

from greenops_pipelines.errors import BadInput, ConfigurationError, PermanentError, TransientError
from greenops_pipelines.process import prometheus
from greenops_pipelines.process.ports import free_port
from greenops_pipelines.process.prometheus import INSTALL, PROGRAM, Server, running
from greenops_pipelines.slo.prometheus import Prometheus
from tests.real import program

SECONDS = 0.3


class Counting(BaseHTTPRequestHandler):
    """A counter that each scrape raises by one, with an `instance` of its own."""

    count = 0

    def do_GET(self) -> None:
        Counting.count += 1
        body = f'# TYPE scrapes_total counter\nscrapes_total{{instance="mine"}} {Counting.count}\n'.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is declared there
        return


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def _eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.real
def test_scrapes_every_300_ms_through_a_stop_and_a_pause(tmp_path: Path, address: str) -> None:
    program(PROGRAM, INSTALL)
    with running(tmp_path, [(address, {"pod": "p-1"})], SECONDS) as server:
        client = Prometheus(server.url, timeout_seconds=1)
        _eventually(lambda: client.query("count_over_time(scrapes_total[1m]) >= 5").values != ())
        ((labels, points),) = client.query("scrapes_total[1m]").samples
        assert labels == {"__name__": "scrapes_total", "job": "drill", "instance": "mine", "pod": "p-1"}
        assert isinstance(points, tuple)
        gaps = sorted(after - before for (before, _), (after, _) in pairwise(points))
        assert gaps[len(gaps) // 2] == pytest.approx(SECONDS, abs=0.1)
        (rate,) = client.query("rate(scrapes_total[1m])").values
        assert rate > 0
        (target,) = client.targets()
        assert (target.health, target.labels["instance"]) == ("up", address)

        url = server.url
        server.stop()
        server.stop()
        with pytest.raises(TransientError, match="the connection failed"):
            client.query("up")
        stopped = time.time()
        server.start()
        server.start()
        assert server.url == url
        # What was scraped before is still there, and more comes.
        assert client.query("count_over_time(scrapes_total[1m])", at=stopped).values[0] >= 5
        _eventually(lambda: client.query(f"timestamp(scrapes_total) > {stopped}").values != ())

        server.pause()
        with pytest.raises(TransientError, match="no answer within the read timeout"):
            client.query("up")
        assert not client.is_ready()
        server.resume()
        _eventually(client.is_ready)
        assert client.query("up").values == (1,)
        assert "level=error" not in (tmp_path / "prometheus.log").read_text()


@pytest.mark.real
def test_ends_with_its_block_even_paused(tmp_path: Path) -> None:
    program(PROGRAM, INSTALL)
    began = time.monotonic()
    with running(tmp_path, (), SECONDS) as server:
        server.pause()
    assert time.monotonic() - began < 10  # SIGTERM was enough: a SIGKILL would have come after ten seconds.
    assert [p.pid for p in psutil.process_iter() if str(tmp_path) in " ".join(_arguments(p))] == []


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.real
def test_port_that_is_taken_is_said_with_its_words_and_loopback_is_all_it_listens_on(tmp_path: Path) -> None:
    program(PROGRAM, INSTALL)
    with running(tmp_path / "a", (), SECONDS) as first:
        port = int(first.url.rpartition(":")[2])
        listening = {each.laddr[0] for each in psutil.net_connections("tcp") if each.laddr and each.laddr[1] == port}
        assert listening == {"127.0.0.1"}
        with pytest.raises(PermanentError, match="address already in use"), running(tmp_path / "b", (), 1, port=port):
            pass


@pytest.mark.real
def test_taken_port_of_its_own_choice_is_chosen_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(PROGRAM, INSTALL)
    with running(tmp_path / "a", (), SECONDS) as first:
        taken = int(first.url.rpartition(":")[2])
        ports = iter([taken, free_port()])
        monkeypatch.setattr(prometheus, "free_port", lambda: next(ports))
        with running(tmp_path / "b", (), SECONDS) as second:
            assert second.url != first.url
            assert Prometheus(second.url).is_ready()


@pytest.mark.real
def test_look_back_is_as_told(tmp_path: Path) -> None:
    program(PROGRAM, INSTALL)
    with running(tmp_path, (), 60, lookback_seconds=2.5) as server:
        flags = requests.get(f"{server.url}/api/v1/status/flags", timeout=10).json()["data"]
        assert flags["query.lookback-delta"] == "2s500ms"


def test_config_says_milliseconds_and_that_the_services_labels_win(tmp_path: Path) -> None:
    Server(tmp_path, [("127.0.0.1:8080", {"pod": "p-1"})], 0.3)
    (job,) = json.loads((tmp_path / "prometheus.yml").read_text())["scrape_configs"]
    assert job == {
        "job_name": "drill",
        "scrape_interval": "300ms",
        "scrape_timeout": "300ms",
        "honor_labels": True,
        "sample_limit": 50_000,
        "static_configs": [{"targets": ["127.0.0.1:8080"], "labels": {"pod": "p-1"}}],
    }


def test_what_prometheus_could_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"found the target 'http://127.0.0.1/metrics'"):
        Server(tmp_path, [("http://127.0.0.1/metrics", {})], 1)
    with pytest.raises(BadInput, match=r"found a scrape interval of 0.0005 s"):
        Server(tmp_path, (), 0.0005)


def test_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not prometheus.found()
    words = "prometheus: found no such program on PATH; install the Debian package prometheus"
    with pytest.raises(ConfigurationError, match=words), running(tmp_path, (), 1):
        pass
