"""The drilled service over HTTP: what it is told to inject is what it answers and what its metrics say, to the request."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from greenops_pipelines.process.child import Child
from greenops_pipelines.slo import drilled_service
from greenops_pipelines.slo.catalogue import read_catalogue
from greenops_pipelines.slo.drilled_service import OWN, Exposed, is_error, make_app

OPS = Path(__file__).parents[2] / "ops"
CATALOGUE = read_catalogue(OPS)
Client = TestClient[Any, Any]


@asynccontextmanager
async def served(service: str) -> AsyncIterator[Client]:
    async with TestClient(TestServer(make_app(service, "2.0.0", f"{service}-7d9f-x2"))) as client:
        yield client


async def ask(client: Client) -> int:
    async with client.get("/") as answer:
        await answer.read()
        return answer.status


async def inject(client: Client, **fault: object) -> dict[str, Any]:
    async with client.post("/fault", json=fault) as answer:
        assert answer.status == 200
        return dict(await answer.json())


async def counts(client: Client) -> dict[str, Any]:
    async with client.get("/counts") as answer:
        return dict(await answer.json())


async def samples(client: Client) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels, `service` and `version` aside."""
    async with client.get("/metrics") as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return flat(await answer.text())


def flat(page: str) -> dict[tuple[str, ...], float]:
    return {
        (s.name, *(value for label, value in sorted(s.labels.items()) if label not in ("service", "version"))): s.value
        for family in text_string_to_metric_families(page)
        for s in family.samples
    }


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await holds():
            await asyncio.sleep(0.005)


ratios = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@given(ratios, st.integers(0, 400), st.integers(1, 200))
def test_errors_are_spread_evenly_and_the_first_comes_at_once(ratio: float, start: int, width: int) -> None:
    exact = Fraction(repr(ratio))
    fails = [is_error(index, exact) for index in range(start + width)]
    assert sum(fails) == math.ceil((start + width) * exact)
    assert fails[0] == (ratio > 0)
    assert math.floor(width * exact) <= sum(fails[start:]) <= math.ceil(width * exact)


def test_two_percent_are_exactly_two_of_a_hundred() -> None:
    async def run() -> None:
        async with served("api-gateway") as client:
            assert [await ask(client) for _ in range(7)] == [200] * 7
            before = time.time_ns()
            told = await inject(client, error_ratio=0.02)
            assert before < told["instant_ns"] < time.time_ns()
            assert told["requests_served"] == 7
            statuses = [await ask(client) for _ in range(100)]
            assert [index for index, status in enumerate(statuses) if status == 500] == [0, 50]
            seen = await samples(client)
            assert seen["http_server_requests_total", "success"] == 105
            assert seen["http_server_requests_total", "5xx"] == 2
            assert seen["http_server_request_duration_seconds_count", "5xx"] == 2
            known = await counts(client)
            assert (known["requests_served"], known["by_outcome"]) == (107, {"success": 105, "error": 2})
            assert told["instant_ns"] < known["first_error_ns"] < time.time_ns()
            await inject(client)
            assert await ask(client) == 200

    asyncio.run(run())


def test_an_injected_delay_is_in_the_answer_and_in_the_histogram() -> None:
    async def run() -> None:
        async with served("api-gateway") as client:
            await ask(client)
            await inject(client, delay_seconds=0.3)
            began = time.perf_counter()
            assert await ask(client) == 200
            assert time.perf_counter() - began >= 0.3
            seen = await samples(client)
            assert seen["http_server_request_duration_seconds_bucket", "0.25", "success"] == 1
            assert seen["http_server_request_duration_seconds_count", "success"] == 2
            assert seen["http_server_request_duration_seconds_sum", "success"] >= 0.302

    asyncio.run(run())


def test_a_stuck_service_answers_nothing_but_questions_about_itself() -> None:
    async def run() -> None:
        async with served("reporting") as client:
            await inject(client, stuck=True)
            held = [asyncio.create_task(ask(client)) for _ in range(3)]
            await until(lambda: in_flight(client, 3))
            seen = await samples(client)
            assert seen[("db_pool_connections_in_use",)] == 3
            assert sum(value for name, value in seen.items() if name[0] == "http_server_requests_total") == 0
            held.pop().cancel()
            await until(lambda: in_flight(client, 2))
            assert (await counts(client))["abandoned"] == 1
            # Released under the fault that holds then.
            await inject(client, error_ratio=1)
            assert await asyncio.gather(*held) == [500, 500]

    async def in_flight(client: Client, number: int) -> bool:
        return bool((await counts(client))["in_flight"] == number)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('{"error_ratio": 1.2}', "error_ratio: Input should be less than or equal to 1"),
        ('{"delay_seconds": 31}', "delay_seconds: Input should be less than or equal to 30"),
        ('{"stuck": 1}', "stuck: Input should be a valid boolean"),
        ('{"latency": 1}', "latency: Extra inputs are not permitted"),
        ('{"error_ratio": NaN}', "error_ratio: Input should be a finite number"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_and_changes_nothing(body: str, fault: str) -> None:
    async def run() -> None:
        async with served("api-gateway") as client:
            await inject(client, error_ratio=1)
            async with client.post("/fault", data=body) as answer:
                assert (answer.status, await answer.json()) == (400, {"faults": [fault]})
            assert await ask(client) == 500

    asyncio.run(run())


@pytest.mark.parametrize("service", sorted(CATALOGUE.instances))
def test_the_page_is_what_the_catalogue_declares_and_nothing_else(service: str) -> None:
    exposed = Exposed(service, "2.0.0", lambda: 0)
    before = {family.name: family for family in text_string_to_metric_families(exposed.page().decode())}
    for succeeded in (True, False):
        exposed.answered(succeeded, 0.003)
    after = {family.name: family for family in text_string_to_metric_families(exposed.page().decode())}
    declared = [metric for metric in CATALOGUE.metrics if service in metric.services]
    names = {name for family in after.values() for name in {sample.name for sample in family.samples}}
    assert names <= {name for name, series in CATALOGUE.series.items() if series.metric in declared}
    # All series are there from the start: the first increase of one that only then appears is no increase.
    assert series_of(before) == series_of(after)
    for metric in declared:
        family = after.get(metric.name.removesuffix("_total"))
        if metric.emitter != "service":
            continue
        assert family is not None, metric.name
        assert family.type == metric.type
        assert len(family.samples) == metric.cardinality
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == metric.labels.keys()
        for label, values in metric.labels.items():
            found = {sample.labels[label] for sample in family.samples}
            expected = {service} if values == "services" else set(values) if isinstance(values, tuple) else values
            assert (len(found) if isinstance(expected, int) else found) == expected
        bounds = sorted({float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels})
        assert bounds == ([*metric.buckets, math.inf] if metric.buckets else [])


def series_of(families: dict[str, Metric]) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {(s.name, frozenset(s.labels.items())) for family in families.values() for s in family.samples}


def test_the_services_are_those_of_the_catalogue() -> None:
    assert OWN.keys() == CATALOGUE.instances.keys()


def test_the_container_is_this_process() -> None:
    seen = flat(Exposed("q2q-ai", "2.0.0", lambda: 0).page().decode())
    assert seen["kube_pod_container_resource_limits", "q2q-ai", "cpu", "core"] == 1
    assert seen["kube_pod_container_resource_limits", "q2q-ai", "memory", "byte"] == 536_870_912
    mine = psutil.Process()
    assert seen["container_memory_working_set_bytes", "q2q-ai"] == pytest.approx(mine.memory_info().rss, rel=0.2)
    used = mine.cpu_times()
    assert seen["container_cpu_usage_seconds_total", "q2q-ai"] == pytest.approx(used.user + used.system, abs=0.5)


def test_an_error_fails_what_the_service_is_for() -> None:
    def after(service: str, *answers: bool) -> dict[tuple[str, ...], float]:
        exposed = Exposed(service, "2.0.0", lambda: 0)
        for succeeded in answers:
            exposed.answered(succeeded, 0.003)
        return flat(exposed.page().decode())

    mostly = (False, True, True, True, True, True, False)
    reporting = after("reporting", *mostly)
    assert reporting["genai_report_generation_total", "success"] == 5
    assert reporting["genai_report_generation_total", "failed"] == 2
    assert reporting["llm_tokens_total", "prompt", "small"] == 800 * 3
    assert reporting["llm_tokens_total", "completion", "small"] == 200 * 2
    q2q = after("q2q-ai", *mostly)
    assert q2q["llm_api_requests_total", "failed"] == q2q["q2q_evidence_classification_total", "failed"] == 2
    # Every third fails, and yet each platform has its part of the failures.
    impact = after("impact-in", *(False, True, True) * 3)
    for platform in ("benevity", "goodera", "workday"):
        assert impact["impact_in_delivery_total", platform, "success"] == 2
        assert impact["impact_in_delivery_total", platform, "failed"] == 1
    cockpit = after("cockpit", *mostly)
    assert cockpit["http_server_requests_total", "5xx"] == 2
    assert cockpit[("web_vitals_lcp_seconds_count",)] == 5  # No browser reports a page that did not come.


def test_web_vitals_are_good_until_the_page_is_slow() -> None:
    exposed = Exposed("cockpit", "2.0.0", lambda: 0)
    good = [("web_vitals_lcp_seconds_bucket", "2.5"), ("web_vitals_inp_milliseconds_bucket", "200.0")]
    exposed.answered(True, 0.004)
    assert [flat(exposed.page().decode())[name] for name in good] == [1, 1]
    exposed.answered(True, 1.5)
    seen = flat(exposed.page().decode())
    assert [seen[name] for name in good] == [1, 1]
    assert seen["web_vitals_lcp_seconds_bucket", "3.0"] == 2
    assert seen["web_vitals_cls_score_bucket", "0.1"] == 2


def test_as_a_program_it_says_its_port_once_it_serves_and_ends_with_its_supervisor(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    args = [sys.executable, "-m", drilled_service.__name__, "--service", "cockpit", "--version", "2.0.0"]
    args += ["--pod", "cockpit-7d9f-x2", "--port-file", str(port_file)]
    with Child.start(args, log=tmp_path / "log") as child:
        child.wait_until(port_file.exists, 15)
        url = f"http://127.0.0.1:{int(port_file.read_text())}"
        assert requests.get(url, timeout=5).status_code == 200
        known = requests.get(f"{url}/counts", timeout=5).json()
        assert (known["pod"], known["requests_served"]) == ("cockpit-7d9f-x2", 1)
        assert requests.post(f"{url}/fault", json={"stuck": True}, timeout=5).status_code == 200
        with pytest.raises(requests.Timeout):
            requests.get(url, timeout=0.2)
        assert [path.name for path in tmp_path.iterdir() if "port" in path.name] == ["port"]
    assert child.exit_code == 0
    assert not psutil.pid_exists(child.pid)
