"""An analysis run on a clock of its own: what is due when, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.analysis import Phase, Response
from greenops_pipelines.slo.analysis_run import AnalysisRun, Measurement, Metric, RangeQuery

GOOD = Response(Phase.SUCCESSFUL, "[0.01]", "")
BAD = Response(Phase.FAILED, "[0.5]", "")
OPEN = Response(Phase.INCONCLUSIVE, "[NaN]", "")
OUTCOMES: dict[str, Response | str] = {"good": GOOD, "bad": BAD, "open": OPEN, "error": "connection refused"}


def document(**changes: object) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": "error-ratio",
        "interval": "15s",
        "failureLimit": 2,
        "failureCondition": "result[0] > 0.0144",
        "provider": {"prometheus": {"address": "http://127.0.0.1:9090", "query": "job:errors:ratio"}},
    }
    return {key: value for key, value in {**entry, **changes}.items() if value is not None}


def metric(**changes: object) -> Metric:
    return Metric.from_document(document(**changes))


def run_of(*metrics: Metric) -> AnalysisRun:
    return AnalysisRun("canary", metrics, 100.0)


def test_the_third_failure_ends_the_run() -> None:
    error_ratio = metric()
    run = run_of(error_ratio)
    assert (run.phase, run.next_at(100.0)) == (Phase.RUNNING, 100.0)
    for number, now in enumerate((100.0, 115.5, 131.0), start=1):
        assert run.due(now - 0.25 if number > 1 else now - 1) == ()
        assert run.due(now) == (error_ratio,)
        assert run.record(error_ratio, now, now + 0.5, BAD)
        assert run.assess(now + 0.5) is (Phase.FAILED if number == 3 else Phase.RUNNING)
        assert run.next_at(now + 0.5) == (None if number == 3 else now + 15.5)
    assert run.message == 'Metric "error-ratio" assessed Failed due to failed (3) > failureLimit (2)'
    assert (run.completed, run.completed_at) == (True, 131.5)
    result = run.results[0]
    assert (result.phase, result.counts.failed, result.counts.count) == (Phase.FAILED, 3, 3)
    assert result.measurements[0] == Measurement(Phase.FAILED, "[0.5]", "", 100.0, 100.5)
    assert run.due(1000.0) == ()
    assert not run.record(error_ratio, 1000.0, 1001.0, GOOD)
    assert run.assess(1001.0) is Phase.FAILED
    assert run.completed_at == 131.5


def test_errors_are_retried_after_ten_seconds_and_the_fifth_in_a_row_ends_the_run() -> None:
    error_ratio = metric(interval="5m")
    run = run_of(error_ratio)
    now = 100.0
    for number in range(1, 6):
        run.record(error_ratio, now, now + 1, "connection refused")
        assert run.assess(now + 1) is (Phase.ERROR if number == 5 else Phase.RUNNING)
        assert run.next_at(now + 1) == (None if number == 5 else now + 11)
        now += 11
    assert run.message == (
        'Metric "error-ratio" assessed Error due to consecutiveErrors (5) > consecutiveErrorLimit (4): '
        '"Error Message: connection refused"'
    )
    result = run.results[0]
    assert (result.message, result.counts.error, result.counts.count) == ("connection refused", 5, 0)
    assert result.measurements[-1].value == ""


def test_an_error_response_shows_no_value() -> None:
    error_ratio = metric()
    run = run_of(error_ratio)
    run.record(error_ratio, 100.0, 100.0, error_ratio.respond("vector", []))
    taken = run.results[0].measurements[0]
    assert (taken.phase, taken.value) == (Phase.ERROR, "")
    assert "metric result is nil or empty" in taken.message


def test_a_count_ends_the_run_and_neither_condition_leaves_it_inconclusive() -> None:
    counted = metric(count=2, failureLimit=None)
    run = run_of(counted)
    for now in (100.0, 115.0):
        run.record(counted, now, now, counted.respond("vector", [0.001]))
    assert run.assess(115.0) is Phase.SUCCESSFUL
    assert run.message == ""

    between = metric(successCondition="result[0] < 0.01")
    run = run_of(between)
    run.record(between, 100.0, 100.0, between.respond("vector", [0.012]))
    assert run.assess(100.0) is Phase.INCONCLUSIVE
    assert run.message == ('Metric "error-ratio" assessed Inconclusive due to inconclusive (1) > inconclusiveLimit (0)')


def test_without_interval_one_measurement_is_enough() -> None:
    once = metric(interval=None, failureLimit=None)
    run = run_of(once)
    run.record(once, 100.0, 101.0, GOOD)
    assert run.due(500.0) == ()
    assert run.assess(101.0) is Phase.SUCCESSFUL


def test_an_initial_delay_is_waited_for() -> None:
    now, later = metric(), metric(name="latency", initialDelay="40s")
    run = run_of(now, later)
    assert run.due(100.0) == (now,)
    run.record(now, 100.0, 100.0, GOOD)
    assert run.assess(100.0) is Phase.RUNNING
    assert run.next_at(100.0) == 115.0
    assert run.due(139.9) == (now,)
    assert run.due(140.0) == (now, later)
    assert [result.phase for result in run.results] == [Phase.RUNNING, Phase.PENDING]


def test_a_failing_metric_closes_its_siblings_with_what_they_have() -> None:
    first, second, third = metric(failureLimit=0), metric(name="latency"), metric(name="late", initialDelay="1h")
    run = run_of(first, second, third)
    run.record(second, 100.0, 100.0, GOOD)
    run.record(first, 100.0, 100.0, BAD)
    assert run.assess(100.0) is Phase.FAILED
    assert run.message == 'Metric "error-ratio" assessed Failed due to failed (1) > failureLimit (0)'
    assert [result.phase for result in run.results] == [Phase.FAILED, Phase.SUCCESSFUL, Phase.PENDING]


def test_of_several_metrics_the_worst_decides_and_the_first_of_them_speaks() -> None:
    ending = {"failureLimit": None, "consecutiveErrorLimit": 0}
    metrics = [metric(name=name, **ending) for name in ("a", "b", "c", "d")]
    run = run_of(*metrics)
    outcomes: tuple[Response | str, ...] = (OPEN, "timeout", BAD, BAD)
    for each, outcome in zip(metrics, outcomes, strict=True):
        run.record(each, 100.0, 100.0, outcome)
    assert run.assess(100.0) is Phase.FAILED
    assert run.message == 'Metric "c" assessed Failed due to failed (1) > failureLimit (0)'


def test_a_terminated_run_measures_nothing_more_and_is_successful() -> None:
    error_ratio, waiting = metric(), metric(name="late", initialDelay="1h")
    run = run_of(error_ratio, waiting)
    run.record(error_ratio, 100.0, 100.0, BAD)
    run.assess(100.0)
    run.terminate()
    assert run.due(1000.0) == ()
    assert run.next_at(110.0) == 110.0
    assert run.record(error_ratio, 109.0, 111.0, BAD), "it was in flight"
    assert run.assess(111.0) is Phase.SUCCESSFUL
    assert run.message == "Run Terminated"
    assert run.results[0].counts.failed == 2


def test_a_metric_that_is_complete_is_left_alone() -> None:
    counted, forever = metric(count=1, failureLimit=None), metric(name="latency")
    run = run_of(counted, forever)
    run.record(counted, 100.0, 100.0, GOOD)
    run.record(forever, 100.0, 100.0, GOOD)
    assert run.assess(100.0) is Phase.RUNNING
    assert run.due(200.0) == (forever,)
    assert not run.record(counted, 200.0, 200.0, BAD)
    assert run.results[0].counts.count == 1
    assert run.next_at(100.0) == 115.0


def test_a_metric_of_another_run_is_refused() -> None:
    with pytest.raises(BadInput, match="found metric 'latency', allowed: error-ratio"):
        run_of(metric()).record(metric(name="latency"), 0.0, 0.0, GOOD)
    with pytest.raises(BadInput, match=r"metrics\[1\]: duplicate name 'error-ratio'"):
        run_of(metric(), metric())
    with pytest.raises(BadInput, match="no metrics specified"):
        run_of()


def test_a_template_entry_is_read() -> None:
    prometheus = {
        "address": "https://prometheus.example:9090/path",
        "query": "q",
        "timeout": 5,
        "rangeQuery": {"start": 'now() - duration("45s")', "end": "now()", "step": "15s"},
    }
    found = metric(
        interval="1m30s",
        initialDelay="500ms",
        count="4",
        failureLimit="1",
        inconclusiveLimit=2,
        consecutiveErrorLimit=3,
        consecutiveSuccessLimit=2,
        successCondition="len(result) >= 3 && all(result, # < 0.01)",
        provider={"prometheus": prometheus},
    )
    limits = found.limits
    assert (limits.count, limits.failure, limits.inconclusive) == (4, 1, 2)
    assert (limits.consecutive_error, limits.consecutive_success) == (3, 2)
    assert found.prometheus.range == RangeQuery(-45.0, 0.0, 15.0)
    assert found.prometheus.timeout_seconds == 5
    assert metric().prometheus.timeout_seconds == 30
    assert found.respond("matrix", [[0.001, 0.002, 0.003]]).phase is Phase.SUCCESSFUL
    assert found.respond("matrix", [[0.001, 0.5, 0.003]]).phase is Phase.INCONCLUSIVE


PROMETHEUS = {"address": "http://127.0.0.1:9090", "query": "q"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"interval": None, "count": 2, "failureLimit": 0}, "metrics[0]: interval must be specified when count > 1"),
        ({"interval": "15"}, 'metrics[0]: invalid interval string: time: missing unit in duration "15"'),
        ({"interval": 15}, "metrics[0].interval: found 15, allowed: a text"),
        ({"count": "two"}, "metrics[0].count: found 'two', allowed: a whole number"),
        ({"failureLimit": 1.5}, "metrics[0].failureLimit: found 1.5, allowed: a whole number"),
        ({"failureLimit": -2}, "metrics[0]: failureLimit must be >= 0, or -1 to be disabled"),
        ({"failurelimit": 1}, "metrics[0]: found failurelimit, allowed: name, interval"),
        ({"name": ""}, "metrics[0].name: found '', allowed: a text"),
        ({"provider": None}, "metrics[0]: no provider specified"),
        ({"provider": {"job": {}}}, "metrics[0].provider: found job, allowed: prometheus"),
        ({"provider": {"prometheus": {"query": "q"}}}, "metrics[0].provider.prometheus.address: found None"),
        ({"provider": {"prometheus": {**PROMETHEUS, "address": "local"}}}, "address is not is url format"),
        ({"provider": {"prometheus": {**PROMETHEUS, "timeout": -20}}}, "prometheus timeout should not be negative"),
        ({"failureCondition": "result[0] > limit"}, "metrics[0].failureCondition: found 'result[0] > limit': unknown"),
        ({"successCondition": "result >"}, "metrics[0].successCondition: found 'result >': unexpected token EOF"),
    ],
)
def test_an_entry_that_would_not_work_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        metric(**changes)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": 'now() - duration("??")'}, 'rangeQuery.start as time: time: invalid duration "??"'),
        ({"end": 'now() - duration("??")'}, 'rangeQuery.end as time: time: invalid duration "??"'),
        ({"step": "??"}, 'rangeQuery.step as duration: time: invalid duration "??"'),
        ({"start": "hello"}, "rangeQuery.start: found 'hello', allowed: now()"),
        ({"step": "0s"}, "allowed: a step above 0"),
        ({"start": 'now() + duration("1m")'}, "a start before the end"),
    ],
)
def test_a_range_that_cannot_be_asked_is_refused(change: dict[str, str], words: str) -> None:
    asked = {"start": 'now() - duration("1m")', "end": "now()", "step": "15s", **change}
    with pytest.raises(BadInput) as caught:
        metric(provider={"prometheus": {**PROMETHEUS, "rangeQuery": asked}})
    assert words in str(caught.value)


@given(
    failure_limit=st.integers(0, 4),
    plan=st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=25),
    stop_after=st.none() | st.integers(0, 10),
)
def test_a_run_fails_exactly_with_one_failure_more_than_its_limit(
    failure_limit: int, plan: list[str], stop_after: int | None
) -> None:
    endless = metric(failureLimit=failure_limit, inconclusiveLimit=99, consecutiveErrorLimit=99)
    run, now, taken = run_of(endless), 100.0, 0
    for step, kind in enumerate(plan):
        if step == stop_after:
            run.terminate()
        at = run.next_at(now)
        if at is None:
            break
        now = at
        for due in run.due(now):
            assert run.record(due, now, now + 0.25, OUTCOMES[kind])
            taken += 1
        run.assess(now + 0.25)
        failed = plan[:taken].count("bad")
        assert (run.phase is Phase.FAILED) == (failed > failure_limit)
        if run.phase is Phase.SUCCESSFUL:
            assert step == stop_after
    assert run.results[0].counts.count == taken - plan[:taken].count("error")


@given(st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=20), st.sampled_from([0.01, 0.5, 60.0]))
def test_a_faster_clock_decides_the_same_sooner(plan: list[str], speed: float) -> None:
    """A drill that scales time scales the intervals with it; the retry after an error is Argo's own ten seconds."""

    def ended(factor: float) -> list[object]:
        error_ratio = metric(interval=f"{15 * factor}s", initialDelay=f"{5 * factor}s")
        run, now = AnalysisRun("drill", [error_ratio], 0.0), 0.0
        for kind in plan:
            if (at := run.next_at(now)) is None:
                break
            now = at
            for due in run.due(now):
                run.record(due, now, now + factor, OUTCOMES[kind])
            run.assess(now + factor)
        return [run.phase, run.message, run.results[0].counts]

    assert ended(speed) == ended(1.0)
