"""The service that a canary drill deploys: it answers requests, exposes what they did, and fails when it is told to.

    python -m greenops_pipelines.slo.drilled_service --service api-gateway --version 2.0.0 --pod api-gateway-7d9f-x2 \
        --port-file PATH

    GET /           the request; 200, or 500 for an injected error
    GET /metrics    Prometheus text: what ops/metrics.yaml says of the service, and its container
    POST /fault     {"error_ratio": 0..1, "delay_seconds": 0..30, "stuck": bool}: from now on, what is left out being healthy
    GET /counts     what was served, for comparison with what Prometheus has seen

`/metrics`, `/fault` and `/counts` answer while the service is stuck. Loaded by drills alone, and ended by
`process/child.py`. Not here: which metrics there are (`drilled_metrics.py`), traffic, verdicts.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from greenops_pipelines.slo.drilled_metrics import OWN, Exposed

__all__ = ["LOOPBACK", "OWN", "Exposed", "Fault", "Instance", "is_error", "main", "make_app", "publish_port", "serve"]

LOOPBACK = "127.0.0.1"

_HEALTHY_SECONDS = (0.002, 0.003, 0.004, 0.005)
"""What a request takes by itself, in turn."""
_SHUTDOWN_SECONDS = 1.0


class Fault(BaseModel):
    """What is injected. `stuck` holds every request until it is lifted, or until the client hangs up.

    `hides_metrics`: the service serves, and `/metrics` is a 404.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    error_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    delay_seconds: Annotated[float, Field(ge=0, le=30)] = 0.0
    stuck: bool = False
    hides_metrics: bool = False


def is_error(index: int, ratio: Fraction) -> bool:
    """Whether request `index` (0 is the first under the fault) fails: ceil(n x ratio) of the first n do, evenly spread."""
    return math.ceil((index + 1) * ratio) > math.ceil(index * ratio)


class Instance:
    """One instance: the fault it is under, what it has served, and its handlers."""

    def __init__(self, service: str, version: str, pod: str) -> None:
        self._identity = {"service": service, "version": version, "pod": pod}
        self._fault = Fault()
        self._ratio = Fraction(0)
        self._under_fault = 0
        self._first_error_ns: int | None = None
        self._released = asyncio.Event()
        self._released.set()
        self._served = Counter[str](success=0, error=0)
        self._abandoned = 0
        self._in_flight = 0
        self.exposed = Exposed(service, version, lambda: self._in_flight)

    def inject(self, fault: Fault) -> None:
        """Holds for requests that begin from now on, and for those that are stuck; others in flight finish as they began."""
        self._fault = fault
        # Through its digits: as a binary float 0.02 is a little more than 1/50, and would fail 3 of the first 100.
        self._ratio = Fraction(repr(float(fault.error_ratio)))
        self._under_fault = 0
        self._first_error_ns = None
        if fault.stuck:
            self._released.clear()
        else:
            self._released.set()

    async def answer(self, _request: web.Request) -> web.Response:
        began = time.perf_counter()
        self._in_flight += 1
        try:
            while self._fault.stuck:
                await self._released.wait()
            index, fault = self._under_fault, self._fault
            self._under_fault += 1
            succeeded = not is_error(index, self._ratio)
            await asyncio.sleep(_HEALTHY_SECONDS[index % len(_HEALTHY_SECONDS)] + fault.delay_seconds)
        except asyncio.CancelledError:
            self._abandoned += 1
            raise
        finally:
            self._in_flight -= 1
        self._served["success" if succeeded else "error"] += 1
        if not succeeded and self._first_error_ns is None and fault is self._fault:
            self._first_error_ns = time.time_ns()
        self.exposed.answered(succeeded, time.perf_counter() - began)
        return web.Response(body=b"ok\n") if succeeded else web.Response(status=500, body=b"injected error\n")

    async def metrics(self, _request: web.Request) -> web.Response:
        if self._fault.hides_metrics:
            return web.Response(status=404)
        return web.Response(body=self.exposed.page(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def fault(self, request: web.Request) -> web.Response:
        """The instant from which the fault holds, and the requests served until then; 400 leaves all as it was."""
        try:
            fault = Fault.model_validate_json(await request.read())
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()]
            return web.json_response({"faults": faults}, status=400)
        self.inject(fault)
        return web.json_response(
            {"instant_ns": time.time_ns(), "requests_served": self._served.total(), "fault": fault.model_dump()}
        )

    async def counts(self, _request: web.Request) -> web.Response:
        """`first_error_ns`: the first error of the present fault. `abandoned`: the client hung up before the answer."""
        counts: dict[str, Any] = {
            **self._identity,
            "requests_served": self._served.total(),
            "by_outcome": dict(self._served),
            "abandoned": self._abandoned,
            "in_flight": self._in_flight,
            "first_error_ns": self._first_error_ns,
            "fault": self._fault.model_dump(),
        }
        return web.json_response(counts)


def make_app(service: str, version: str, pod: str) -> web.Application:
    """The service as an application. It wants a runner with `handler_cancellation`: clients that hang up free what they held."""
    instance = Instance(service, version, pod)
    app = web.Application()
    app.router.add_get("/", instance.answer, allow_head=False)
    app.router.add_get("/metrics", instance.metrics, allow_head=False)
    app.router.add_post("/fault", instance.fault)
    app.router.add_get("/counts", instance.counts, allow_head=False)
    return app


async def serve(app: web.Application, on_port: Callable[[int], None], until: asyncio.Event) -> None:
    """Serves on a free port of the loopback, says which, and stops when `until` is set."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, 0).start()
        on_port(runner.addresses[0][1])
        await until.wait()
    finally:
        await runner.cleanup()


def publish_port(port_file: Path, port: int) -> None:
    """The file is there as a whole or not at all."""
    beside = port_file.with_name(f".{port_file.name}.{os.getpid()}")
    beside.write_text(f"{port}\n")
    beside.replace(port_file)


async def _run(asked: argparse.Namespace) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    app = make_app(asked.service, asked.version, asked.pod)
    await serve(app, lambda port: publish_port(asked.port_file, port), ended)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="drilled_service", description="A service that fails when it is told to.")
    parser.add_argument("--service", required=True, choices=sorted(OWN))
    parser.add_argument("--version", required=True)
    parser.add_argument("--pod", required=True)
    parser.add_argument("--port-file", required=True, type=Path, help="where the port is written once it serves")
    asyncio.run(_run(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
