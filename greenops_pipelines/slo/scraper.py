"""Metrics without a Prometheus: the targets are scraped from this process, and the same queries are evaluated here.

Scraped as Prometheus scrapes with `honor_labels`: on a fixed phase, with `up` beside what the target exposes, and with a
mark where a series or a whole target is gone. Not here: PromQL (`evaluator.py`), and a real Prometheus
(`process/prometheus.py`).
"""

from __future__ import annotations

import http.client
import logging
import math
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import NamedTuple, Self

from greenops_pipelines.errors import BadInput, ConfigurationError
from greenops_pipelines.process import prometheus
from greenops_pipelines.redaction import one_line
from greenops_pipelines.slo import evaluator
from greenops_pipelines.slo.evaluator import LOOKBACK_SECONDS
from greenops_pipelines.slo.prometheus import Answer, Target
from greenops_pipelines.slo.samples import Labels, Store, canonical

log = logging.getLogger(__name__)

_MAX_BYTES = 10_000_000
_ACCEPT = "text/plain;version=0.0.4"


class Scraper:
    """Scrapes while its `with` block lasts; answers also after it, from what it holds. Safe between threads."""

    name = "embedded scraper"

    def __init__(
        self,
        targets: Sequence[prometheus.Target],
        scrape_seconds: float,
        retention_seconds: float,
        *,
        lookback_seconds: float = LOOKBACK_SECONDS,
    ) -> None:
        """`targets` are addresses, `127.0.0.1:8080`, with the labels of their series. The interval is the timeout too.

        Samples are kept for `retention_seconds`; a query that needs older ones is refused. Raises `BadInput` for a
        retention below the look-back, `ConfigurationError` for an address that is none.
        """
        if not 0 < lookback_seconds <= retention_seconds or scrape_seconds < 0.001:
            raise BadInput(
                f"scraper: found an interval of {scrape_seconds:g} s, a look-back of {lookback_seconds:g} s and a retention "
                f"of {retention_seconds:g} s, allowed: an interval from 0.001 s, and a retention not below the look-back"
            )
        self.store = Store(retention_seconds)
        self._lookback_seconds = lookback_seconds
        self._loops = [
            # Spread over the interval, so that they do not all compete for one moment.
            _Loop(self.store, address, labels, scrape_seconds, scrape_seconds * i / len(targets))
            for i, (address, labels) in enumerate(targets)
        ]

    def query(self, expr: str, at: float | None = None) -> Answer:
        """The answer at `at`, seconds since 1970, now by default. `BadInput` for what `evaluator.py` does not evaluate."""
        moment = time.time() if at is None else at
        return evaluator.compile(expr).at(self.store, moment, self._lookback_seconds)

    def query_range(self, expr: str, start: float, end: float, step: float) -> Answer:
        """A matrix of the answers at `start`, `start + step`, ... up to `end`, in seconds. Raises as `query`."""
        return evaluator.compile(expr).between(self.store, start, end, step, self._lookback_seconds)

    def targets(self) -> list[Target]:
        """What it scrapes, and how that went last."""
        return [loop.target() for loop in self._loops]

    def __enter__(self) -> Self:
        for loop in self._loops:
            loop.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for loop in self._loops:
            loop.stop()
        for loop in self._loops:
            loop.join()


class _Scraped(NamedTuple):
    labels: Labels
    value: float
    t: float | None
    """Where the target states it itself; such a series is not marked when it goes."""


class _Failed(Exception):
    """A scrape did not give samples."""


class _Loop(threading.Thread):
    """One target. Each has a thread of its own, so that a slow one delays no other."""

    def __init__(
        self, store: Store, address: str, labels: Mapping[str, str], interval_seconds: float, phase_seconds: float
    ) -> None:
        super().__init__(name=f"scrape {address}", daemon=True)
        host, _, port = address.rpartition(":")
        if not host or "/" in address or not port.isdecimal():
            raise ConfigurationError(f"scraper: found the target {address!r}, allowed: an address as 127.0.0.1:8080")
        self._host, self._port = host, int(port)
        self._store = store
        self._labels = {"job": prometheus.JOB, "instance": address, **labels}
        self._interval_seconds = interval_seconds
        self._phase_seconds = phase_seconds
        self._stopped = threading.Event()
        self._socket: socket.socket | None = None
        self._present: set[Labels] = set()
        self._state = Target(self._labels, "unknown", "", None)

    def target(self) -> Target:
        return self._state

    def stop(self) -> None:
        self._stopped.set()
        self._cut()

    def run(self) -> None:
        due = time.monotonic() + self._phase_seconds
        while not self._stopped.wait(max(due - time.monotonic(), 0.0)):
            self._scrape()
            # The phase stays. What a slow scrape has missed is made up once, not scrape by scrape.
            late = (time.monotonic() - due) / self._interval_seconds
            due += self._interval_seconds * max(1, math.floor(late))

    def _scrape(self) -> None:
        t, began, fault = time.time(), time.monotonic(), ""
        scraped: list[_Scraped] = []
        try:
            scraped = self._parsed(self._fetched())
        except _Failed as error:
            fault = str(error)
        if self._stopped.is_set():
            return  # Cut off by the end, not by the target.
        with self._store.lock:
            self._record(t, scraped)
            self._report(t, time.monotonic() - began, fault, len(scraped))
        self._state = Target(self._labels, "down" if fault else "up", fault, datetime.fromtimestamp(t, UTC))

    def _record(self, t: float, scraped: Sequence[_Scraped]) -> None:
        taken = [self._store.append(dict(each.labels), t if each.t is None else each.t, each.value) for each in scraped]
        if dropped := taken.count(False):
            log.warning("%s:%d: %d samples dropped: duplicate or out of order", self._host, self._port, dropped)
        present = {each.labels for each in scraped if each.t is None}
        for gone in self._present - present:
            self._store.end(dict(gone), t)
        self._present = present

    def _report(self, t: float, seconds: float, fault: str, count: int) -> None:
        report = {
            "up": 0.0 if fault else 1.0,
            "scrape_duration_seconds": seconds,
            "scrape_samples_scraped": float(count),
        }
        for name, value in report.items():
            self._store.append({**self._labels, "__name__": name}, t, value)

    def _fetched(self) -> str:
        timed_out = threading.Event()

        def cut() -> None:
            timed_out.set()
            self._cut()

        # A target that drips never exceeds a socket's own timeout.
        watchdog = threading.Timer(self._interval_seconds, cut)
        watchdog.daemon = True
        watchdog.start()
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._interval_seconds)
        fault = None
        try:
            body = self._body(connection)
        except (OSError, http.client.HTTPException) as error:
            body, fault = b"", f"not reached, or cut off: {type(error).__name__}"
            if isinstance(error, TimeoutError):
                timed_out.set()
        finally:
            watchdog.cancel()
            self._socket = None
            connection.close()
        # Asked first: a body that ends where the connection does looks whole after the cut.
        if timed_out.is_set():
            raise _Failed(f"no answer within {self._interval_seconds:g} s")
        if fault is not None:
            raise _Failed(fault)
        return body.decode("utf-8", "replace")

    def _body(self, connection: http.client.HTTPConnection) -> bytes:
        connection.connect()
        self._socket = connection.sock
        if self._stopped.is_set():
            raise _Failed("the scraper has ended")
        connection.request("GET", "/metrics", headers={"Accept": _ACCEPT})
        with connection.getresponse() as response:
            if response.status != 200:
                raise _Failed(f"answered {response.status}")
            body = response.read(_MAX_BYTES + 1)
            if len(body) > _MAX_BYTES:
                raise _Failed(f"the answer is larger than {_MAX_BYTES:,} bytes")
            if response.length:
                # A read of at most so many bytes does not itself complain.
                raise _Failed("the answer was cut off")
        return body

    def _parsed(self, text: str) -> list[_Scraped]:
        from prometheus_client.parser import text_string_to_metric_families

        # With its type, this parser renames a counter that is not called `_total`; Prometheus does not.
        lines = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#")) + "\n"
        try:
            scraped = [
                _Scraped(
                    canonical({**self._labels, **sample.labels, "__name__": sample.name}),
                    float(sample.value),
                    None if sample.timestamp is None else float(sample.timestamp),
                )
                for family in text_string_to_metric_families(lines)
                for sample in family.samples
            ]
        except (ValueError, IndexError) as error:
            raise _Failed(f"not the text format: {one_line(str(error), 200)}") from None
        if len(scraped) > prometheus.SAMPLE_LIMIT:
            raise _Failed(f"{len(scraped):,} samples, allowed are {prometheus.SAMPLE_LIMIT:,}")
        return scraped

    def _cut(self) -> None:
        """Ends a transfer that is under way, from another thread."""
        if (current := self._socket) is not None:
            with suppress(OSError):
                current.shutdown(socket.SHUT_RDWR)
