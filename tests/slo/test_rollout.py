"""The walk of a Rollout on a clock that the test holds: order of steps, the two analyses, abort, pause, promotion."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from greenops_pipelines.errors import BadInput, TransientError
from greenops_pipelines.slo.prometheus import Answer
from greenops_pipelines.slo.rollout import Walk

STEPS: list[dict[str, Any]] = [
    {"setWeight": 5},
    {"pause": {"duration": "2m"}},
    {"analysis": {"templates": [{"templateName": "check"}]}},
    {"setWeight": 50},
    {"pause": {"duration": "30s"}},
    {"setWeight": 100},
]
BACKGROUND = {"templates": [{"templateName": "background"}], "startingStep": 1}


def _metric(**more: Any) -> dict[str, Any]:
    plain = {
        "name": "error-rate",
        "interval": "15s",
        "failureLimit": 2,
        "successCondition": "len(result) > 0 && result[0] <= 0.01",
        "provider": {"prometheus": {"address": "http://127.0.0.1:9090", "query": 'errors{pod=~"x-{{args.hash}}-.+"}'}},
    }
    return plain | more


class _Scripted:
    """Answers as it is told; nothing else of Prometheus is needed here."""

    def __init__(self, answer: Callable[[], Answer]) -> None:
        self.answer, self.asked = answer, list[str]()

    def query(self, expr: str, at: float | None = None) -> Answer:
        self.asked.append(expr)
        return self.answer()

    def query_range(self, expr: str, start: float, end: float, step: float) -> Answer:
        self.asked.append(f"{expr} from {start - self.now:g} to {end - self.now:g} by {step:g}")
        return self.answer()

    now = 0.0


def _value(*numbers: float) -> Answer:
    return Answer("vector", tuple(({}, number) for number in numbers))


class _Walked:
    def __init__(self, answer: Callable[[], Answer], *, background: list[Any] | None = None, **more: Any) -> None:
        self.pace = 1.0
        self.now, self.weights, self.events = 0.0, list[tuple[float, int]](), list[tuple[float, str]]()
        self.metrics = _Scripted(answer)
        rollout = {"spec": {"strategy": {"canary": {"steps": STEPS, "analysis": BACKGROUND}}}}
        templates = {"background": background or [_metric()], "check": [_metric(count=3)]}
        self.walk = Walk(
            rollout,
            templates,
            self.metrics,
            lambda percent: self.weights.append((self.now, percent)),
            {"hash": "abc"},
            lambda: self.now,
            said=lambda event, _more: self.events.append((self.now, event)),
            **more,
        )

    def until(self, seconds: float) -> None:
        """One reconciliation a second. What is asked comes back before the next one."""
        try:
            while self.now < seconds and not self.walk.is_over:
                self.metrics.now = self.now * self.pace
                self.walk.advance(self.now)
                deadline = time.monotonic() + 5
                while any(not f.done() for r in (self.walk._watch, self.walk._check) if r for *_, f in r.asked):
                    assert time.monotonic() < deadline
                self.now += 1
        finally:
            if self.walk.is_over:
                self.walk.close()


def test_a_good_canary_goes_through_all_steps() -> None:
    walked = _Walked(lambda: _value(0.0))
    walked.until(1000)
    assert walked.walk.outcome == "promoted"
    # Two minutes, three measurements of the check, half a minute.
    assert [percent for _, percent in walked.weights] == [5, 50, 100]
    [first, second, third] = [at for at, _ in walked.weights]
    assert first == 0
    assert 120 + 30 <= second <= 120 + 30 + 5
    assert second + 30 <= third <= second + 32
    assert {each.run for each in walked.walk.taken} == {"background", "check at 5 %"}
    assert walked.metrics.asked[0] == 'errors{pod=~"x-abc-.+"}'


def test_the_third_bad_sample_takes_it_back_after_the_overhead() -> None:
    walked = _Walked(lambda: _value(1.0), overhead_s=7)
    walked.until(1000)
    walk = walked.walk
    assert walk.outcome == "rolled back"
    assert walk.decided_by == ("error-rate",)
    # At 0, 15 and 30, each taken in a second later; long before the pause is over.
    assert walk.decided_at == pytest.approx(34, abs=3)
    [_, (back, weight)] = walked.weights
    assert weight == 0
    assert back == pytest.approx(walk.decided_at + 7, abs=1)
    assert walk.weight == 0
    assert "failed (3) > failureLimit (2)" in walk.message
    assert [each.phase for each in walk.taken] == ["Failed"] * 3


def test_two_bad_samples_do_not() -> None:
    answers = iter([1.0, 1.0])
    walked = _Walked(lambda: _value(next(answers, 0.0)))
    walked.until(1000)
    assert walked.walk.outcome == "promoted"


@pytest.mark.parametrize("answer", [_value(), _value(float("nan"))])
def test_no_series_and_nan_are_bad_samples(answer: Answer) -> None:
    walked = _Walked(lambda: answer)
    walked.until(1000)
    assert walked.walk.outcome == "rolled back"
    assert {each.phase for each in walked.walk.taken} == {"Failed"}


def test_the_fifth_error_in_a_row_takes_it_back() -> None:
    def away() -> Answer:
        raise TransientError("not reached")

    walked = _Walked(away)
    walked.until(1000)
    assert walked.walk.outcome == "rolled back"
    assert "consecutiveErrors (5) > consecutiveErrorLimit (4)" in walked.walk.message
    # Ten seconds apart, whatever the interval.
    assert walked.walk.decided_at == pytest.approx(45, abs=6)
    assert walked.walk.taken[0].message == "not reached"


def test_inconclusive_pauses_and_leaves_the_weight() -> None:
    neither = _metric(failureCondition="len(result) > 0 && result[0] > 0.5", inconclusiveLimit=0)
    walked = _Walked(lambda: _value(0.1), background=[neither])
    walked.until(1000)
    assert (walked.walk.outcome, walked.walk.weight) == ("paused", 5)


def test_a_range_is_asked_in_the_worlds_time() -> None:
    """A clock ten times as fast: 30 s of the Rollout are 3 of the world's."""
    metric = _metric(failureLimit=0, successCondition="", failureCondition="len(result) >= 3 && all(result, # > 0.01)")
    metric["provider"]["prometheus"]["rangeQuery"] = {
        "start": 'now() - duration("30s")',
        "end": "now()",
        "step": "15s",
    }
    matrix = Answer("matrix", (({}, ((0.0, 1.0), (1.5, 1.0), (3.0, 1.0))),))
    walked = _Walked(lambda: matrix, background=[metric], world=lambda seconds: seconds / 10)
    walked.pace = 0.1
    walked.until(1000)
    assert walked.walk.outcome == "rolled back"
    assert walked.metrics.asked[0] == 'errors{pod=~"x-abc-.+"} from -3 to 0 by 1.5'


def test_an_argument_that_nobody_gives_is_refused() -> None:
    bad = _metric(provider={"prometheus": {"address": "http://127.0.0.1:1", "query": "x{a='{{args.other}}'}"}})
    with pytest.raises(BadInput, match="found the argument 'other', allowed: hash"):
        _Walked(lambda: _value(0.0), background=[bad])
