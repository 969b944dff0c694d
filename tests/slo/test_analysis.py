"""Argo Rollouts' decisions about a metric. The values are those of its own Go tests (argoproj/argo-rollouts 1.10.2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import analysis
from greenops_pipelines.slo.analysis import Counts, Limits, Phase

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "argo" / "cases.json"

MINUTE: dict[str, object] = {"interval": "60s"}
SUCCESSES_ONLY: dict[str, object] = {**MINUTE, "failureLimit": -1}
BOTH: dict[str, object] = {**MINUTE, "failureLimit": 4, "consecutiveSuccessLimit": 4}


def counts(failed: int, successful: int, count: int, in_a_row: int) -> dict[str, object]:
    return {
        "failed": failed,
        "successful": successful,
        "count": count,
        "consecutiveSuccess": in_a_row,
        "lastPhase": "Failed",
    }


FOUR_OF_SEVEN = counts(3, 4, 7, 3)
STATUSES: list[tuple[dict[str, object], dict[str, object], str, str]] = [
    ({}, {"measurements": 0}, "Pending", "Successful"),
    ({}, {"measurements": 2, "lastPhase": "Running"}, "Running", "Running"),
    ({}, {"measurements": [{"phase": "Successful"}, {"phase": "Running"}]}, "Running", "Running"),
    ({}, {"measurements": [{"phase": "Failed"}], "failed": 1}, "Failed", "Failed"),
    ({}, {"measurements": []}, "Pending", "Successful"),
    ({}, {"phase": "Failed", "measurements": 0}, "Failed", "Failed"),
    ({**MINUTE, "failureLimit": 2}, {"failed": 3, "count": 3, "lastPhase": "Failed"}, "Failed", "Failed"),
    ({**MINUTE, "failureLimit": 3}, {"failed": 3, "count": 3, "lastPhase": "Failed"}, "Running", "Successful"),
    ({**MINUTE, "failureLimit": "3"}, {"failed": 4, "count": 4, "lastPhase": "Failed"}, "Failed", "Failed"),
    ({**SUCCESSES_ONLY, "consecutiveSuccessLimit": 3}, FOUR_OF_SEVEN, "Successful", "Successful"),
    ({**SUCCESSES_ONLY, "consecutiveSuccessLimit": 5}, FOUR_OF_SEVEN, "Running", "Successful"),
    ({**SUCCESSES_ONLY, "consecutiveSuccessLimit": 5, "count": 7}, FOUR_OF_SEVEN, "Failed", "Failed"),
    ({**SUCCESSES_ONLY, "consecutiveSuccessLimit": 3, "count": 7}, FOUR_OF_SEVEN, "Successful", "Successful"),
    ({**SUCCESSES_ONLY, "consecutiveSuccessLimit": 3, "count": 9}, FOUR_OF_SEVEN, "Successful", "Successful"),
    ({**SUCCESSES_ONLY, "consecutiveSuccessLimit": 5, "count": 9}, FOUR_OF_SEVEN, "Running", "Successful"),
    (BOTH, FOUR_OF_SEVEN, "Running", "Successful"),
    (BOTH, counts(5, 9, 9, 0), "Failed", "Failed"),
    (BOTH, counts(3, 5, 8, 4), "Successful", "Successful"),
    (BOTH, counts(5, 5, 10, 4), "Failed", "Failed"),
    ({**BOTH, "count": 10}, counts(4, 6, 10, 3), "Inconclusive", "Inconclusive"),
    ({**BOTH, "count": 10}, counts(5, 5, 10, 3), "Failed", "Failed"),
    ({**BOTH, "count": 10}, counts(4, 6, 10, 4), "Successful", "Successful"),
    ({**BOTH, "count": 10}, counts(5, 5, 10, 4), "Failed", "Failed"),
    ({**BOTH, "count": 10}, counts(3, 5, 8, 3), "Running", "Successful"),
    ({**BOTH, "count": 10}, counts(5, 3, 8, 3), "Failed", "Failed"),
    ({**BOTH, "count": 10}, counts(3, 5, 8, 4), "Successful", "Successful"),
    ({**BOTH, "count": 10}, counts(5, 4, 9, 4), "Failed", "Failed"),
    (
        {**MINUTE, "inconclusiveLimit": 2},
        {"inconclusive": 3, "count": 3, "lastPhase": "Inconclusive"},
        *("Inconclusive", "Inconclusive"),
    ),
    (
        {**MINUTE, "inconclusiveLimit": 3},
        {"inconclusive": 3, "count": 3, "lastPhase": "Inconclusive"},
        *("Running", "Successful"),
    ),
    (MINUTE, {"consecutiveError": 5, "count": 5, "lastPhase": "Error"}, "Error", "Error"),
    (MINUTE, {"consecutiveError": 4, "count": 5, "lastPhase": "Error"}, "Running", "Successful"),
    ({"count": 10}, {"successful": 10, "count": 10, "lastPhase": "Successful"}, "Successful", "Successful"),
    ({"count": 10}, {"successful": 5, "inconclusive": 5, "count": 10}, "Inconclusive", "Inconclusive"),
    ({}, {"failed": 1, "lastPhase": "Failed"}, "Failed", "Failed"),
    ({}, {"inconclusive": 1, "lastPhase": "Inconclusive"}, "Inconclusive", "Inconclusive"),
    ({}, {"successful": 1, "count": 1, "lastPhase": "Successful"}, "Successful", "Successful"),
    ({}, {"error": 1, "consecutiveError": 1, "lastPhase": "Error"}, "Running", "Successful"),
]


@pytest.mark.parametrize(("metric", "result", "running", "terminating"), STATUSES)
def test_a_metrics_phase(
    metric: Mapping[str, object], result: Mapping[str, object], running: str, terminating: str
) -> None:
    assert analysis.assess_metric_status(metric, result, False) == running
    assert analysis.assess_metric_status(metric, result, True) == terminating


@pytest.mark.parametrize(
    ("metric", "result", "expected"),
    [
        ({}, {"failed": 1}, ("Failed", "failed (1) > failureLimit (0)")),
        ({}, {"inconclusive": 1}, ("Inconclusive", "inconclusive (1) > inconclusiveLimit (0)")),
        ({}, {"consecutiveError": 5}, ("Error", "consecutiveErrors (5) > consecutiveErrorLimit (4)")),
        ({"failureLimit": 1}, {"failed": 1, "consecutiveError": 4}, ("", "")),
        ({"failureLimit": -1}, {"failed": 99}, ("", "")),
        ({"consecutiveErrorLimit": 0}, {"consecutiveError": 1, "failed": 1}, ("Error", None)),
        ({}, {"failed": 1, "inconclusive": 1}, ("Inconclusive", None)),
        ({}, {"failed": 1, "inconclusive": 1, "consecutiveError": 5}, ("Error", None)),
    ],
)
def test_which_limit_was_passed(
    metric: Mapping[str, object], result: Mapping[str, object], expected: tuple[str, str | None]
) -> None:
    phase, message = analysis.assess_failure_inconclusive_error(metric, result)
    assert (phase, message if expected[1] is not None else None) == expected


@pytest.mark.parametrize(
    ("success", "failure", "phase"),
    [
        ("true", "false", "Successful"),
        ("true", "true", "Failed"),
        ("false", "true", "Failed"),
        ("false", "false", "Inconclusive"),
        ("", "false", "Successful"),
        ("", "true", "Failed"),
        ("true", "", "Successful"),
        ("false", "", "Failed"),
        ("", "", "Successful"),
        ("a == true", "true", "Error"),
        ("true", "a == true", "Error"),
    ],
)
def test_what_two_conditions_make_of_a_result(success: str, failure: str, phase: str) -> None:
    assert analysis.evaluate_result(success, failure, True) == phase
    assert analysis.evaluate_result(success or None, failure or None, True) == phase
    given = {name: text for name, text in (("success", success), ("failure", failure)) if text}
    assert analysis.evaluate_result(**given, result=True) == phase


@pytest.mark.parametrize(
    ("success", "failure", "result", "words"),
    [
        ("result[0] >= 0.95", "", None, 'successCondition "result[0] >= 0.95": metric result is nil or empty'),
        ("result[0] >= 0.95", "", [], 'successCondition "result[0] >= 0.95": metric result is nil or empty'),
        ("a == true", "", True, 'could not evaluate successCondition "a == true": unknown name a'),
        ("true", "invalidVar == true", True, 'could not evaluate failureCondition "invalidVar == true": unknown name'),
        ("result[2] > 1", "", [1.0], "index out of range: 2 (array length is 1)"),
    ],
)
def test_an_error_names_the_condition_and_its_cause(success: str, failure: str, result: object, words: str) -> None:
    phase, message = analysis.evaluate(success, failure, result)
    assert phase is Phase.ERROR
    assert words in message


TEN = ("result == 10", "result != 10")


@pytest.mark.parametrize(
    ("kind", "value", "conditions", "phase", "shown"),
    [
        ("scalar", 10, TEN, "Successful", "10"),
        ("scalar", "10", TEN, "Successful", "10"),
        ("scalar", "NaN", ("result >= 0.9", "result < 0.9"), "Inconclusive", "NaN"),
        ("scalar", "NaN", ("result >= 0.9 || isNaN(result)", ""), "Successful", "NaN"),
        ("scalar", "NaN", ("result >= 0.9", ""), "Failed", "NaN"),
        ("scalar", "+Inf", ("result >= 0.9", ""), "Successful", "+Inf"),
        ("scalar", "+Inf", ("", "isInf(result)"), "Failed", "+Inf"),
        ("vector", [10, 11], ("10 in result", "len(result) != 2"), "Successful", "[10,11]"),
        ("vector", ["0.5", "NaN", "-Inf", 1e-7], ("", "false"), "Successful", "[0.5,NaN,-Inf,0.0000001]"),
        ("vector", [], ("result[0] >= 0.95", ""), "Error", "[]"),
        ("vector", [], ("len(result) == 0 || result[0] < 1", ""), "Successful", "[]"),
        ("matrix", [[11, 12], [13, 14]], ("all(result, # > 10)", "all(result, # < 10)"), "Successful", "[11,12,13,14]"),
        ("matrix", [11, 12], ("all(result, # > 10)", ""), "Successful", "[11,12]"),
        ("vector", None, ("result[0] >= 0.95", ""), "Error", "[]"),
        ("nil", None, ("true", "true"), "Error", ""),
        ("nil", None, TEN, "Error", ""),
        ("string", "10", TEN, "Error", ""),
    ],
)
def test_what_an_answer_of_prometheus_makes_of_a_measurement(
    kind: str, value: object, conditions: tuple[str, str], phase: str, shown: str
) -> None:
    response = analysis.process_response(kind, value, *conditions)
    assert (response.phase, response.str) == (phase, shown)
    assert bool(response.message) == (phase == "Error")


def test_no_answer_is_told_from_an_answer_of_another_kind() -> None:
    assert analysis.process_response("nil", None, *TEN).message == "Prometheus metric type not supported"
    assert "metric result is nil or empty" in analysis.process_response("nil", None, "result[0] >= 1", "").message


def test_what_is_left_out_of_an_answer_is_none() -> None:
    assert analysis.process_response("nil").message == "Prometheus metric type not supported"
    assert analysis.process_response("scalar", "+Inf", failure="isInf(result)").phase == "Failed"


@pytest.mark.parametrize("value", [2.5, True, [1]])
def test_a_limit_is_a_whole_number(value: object) -> None:
    with pytest.raises(BadInput, match=r"limit: found .*, allowed: a whole number"):
        analysis.assess_metric_status({"failureLimit": value}, {"failed": 1})


@pytest.mark.parametrize("value", ["ten", True, None, [1], "1e", "1.2.3"])
def test_a_sample_is_a_number(value: object) -> None:
    with pytest.raises(BadInput, match="allowed: a number, NaN"):
        analysis.process_response("scalar", value, "", "")


@pytest.mark.parametrize(
    ("metric", "objection"),
    [
        (
            {"count": 1, "failureLimit": 2},
            "count (1) must be >= failureLimit + consecutiveSuccessLimit (2 + 0) if both >= 0",
        ),
        ({"count": 0, "failureLimit": 2}, None),
        ({"count": 1, "inconclusiveLimit": 2}, "count must be >= inconclusiveLimit"),
        ({"count": 0, "inconclusiveLimit": 2}, None),
        ({"count": 2, "interval": "60s", "failureLimit": 2}, None),
        (
            {"count": 2, "interval": "60s-typo", "failureLimit": 2},
            'invalid interval string: time: unknown unit "s-typo" in duration "60s-typo"',
        ),
        (
            {"count": 2, "interval": "60s", "initialDelay": "60s-typo", "failureLimit": 2},
            'invalid startDelay string: time: unknown unit "s-typo" in duration "60s-typo"',
        ),
        ({"count": 2}, "interval must be specified when count > 1"),
        ({"count": "2"}, "interval must be specified when count > 1"),
        ({"failureLimit": -2}, "failureLimit must be >= 0, or -1 to be disabled"),
        ({"inconclusiveLimit": -1}, "inconclusiveLimit must be >= 0"),
        ({"consecutiveErrorLimit": -1}, "consecutiveErrorLimit must be >= 0"),
        ({"consecutiveSuccessLimit": -1}, "consecutiveSuccessLimit must be >= 0"),
        (
            {"consecutiveSuccessLimit": 0, "failureLimit": -1},
            "failureLimit and consecutiveSuccessLimit cannot both be disabled",
        ),
        (
            {"count": 2, "interval": "1s", "consecutiveSuccessLimit": 3, "failureLimit": -1},
            "count must be >= consecutiveSuccessLimit",
        ),
        ({"count": 1, "provider": None}, "no provider specified"),
        ({"count": 1, "provider": {}}, "no provider specified"),
        ({"provider": {"prometheus": None, "plugin": {}}}, "no provider specified"),
        ({"provider": {"gcp": {}}}, None),
        ({"provider": {"plugin": {"a": {}}}}, None),
        ({"provider": {"plugin": {"a": {}, "b": {}}}}, "multiple providers specified"),
        ({"provider": {"prometheus": {}, "job": {}, "web": {}, "gcp": {}}}, "multiple providers specified"),
    ],
)
def test_what_argo_objects_to(metric: Mapping[str, Any], objection: str | None) -> None:
    assert analysis.validate_metric(metric) == (objection and f"metrics[0]: {objection}")


def test_several_metrics_have_several_names() -> None:
    assert analysis.validate_metrics([]) == "no metrics specified"
    assert analysis.validate_metric(None) == "no metrics specified"
    assert analysis.validate_metrics({"count": 2}) == "metrics[0]: interval must be specified when count > 1"
    with pytest.raises(BadInput, match="provider: found 'prometheus', allowed: a mapping"):
        analysis.validate_metric({"provider": "prometheus"})
    twice = [{"name": "success-rate"}, {"name": "success-rate"}]
    assert analysis.validate_metrics(twice) == "metrics[1]: duplicate name 'success-rate'"
    assert analysis.validate_metrics([{"name": "a"}, {"name": "b", "count": 2}]) == (
        "metrics[1]: interval must be specified when count > 1"
    )
    assert analysis.validate_metrics([{"name": "a"}, {"name": "b"}]) is None


def done(phase: str, ago: float) -> dict[str, object]:
    return {"phase": phase, "finishedAgo": ago}


@pytest.mark.parametrize(
    ("case", "tasks"),
    [
        ({"metric": MINUTE, "last": done("Successful", 50)}, 0),
        ({"metric": MINUTE, "last": done("Successful", 61)}, 1),
        ({"metric": MINUTE, "last": done("Successful", 60)}, 1),
        ({"name": "nothing to measure"}, 0),
        ({"metric": {}, "siblings": ["Failed"]}, 0),
        ({"metric": {}, "siblings": ["Successful", "Running"]}, 1),
        ({"metric": {}}, 1),
        ({"metric": {}, "last": done("Successful", 50), "count": 1}, 0),
        ({"metric": {}, "last": done("Successful", 50)}, 0),
        ({"metric": {}, "last": done("Successful", 50), "result": {"count": 1}}, 0),
        ({"metric": MINUTE, "last": done("Successful", 61), "result": {"phase": "Successful"}}, 0),
        ({"metric": {**MINUTE, "count": 3}, "last": {"finishedAgo": 61}}, 1),
        ({"metric": {}, "last": None}, 1),
        ({"metric": {}, "count": 0}, 1),
        ({"metric": {}, "last": {"phase": "Successful", "finishedAgo": None}}, 1),
        ({"metric": {"initialDelay": "20s"}}, 0),
        ({"metric": {"initialDelay": "20s"}, "startedAgo": 10}, 0),
        ({"metric": {"initialDelay": "20s"}, "startedAgo": 20}, 1),
        ({"metric": {"initialDelay": "invalid-start-delay"}, "startedAgo": 20}, 0),
        ({"metric": {"interval": "invalid"}, "last": done("Successful", 500)}, 0),
        ({"metric": {}, "last": {"phase": "Successful", "finishedAgo": None, "resumeIn": 10}}, 0),
        ({"metric": {}, "last": {"phase": "Successful", "finishedAgo": None, "resumeAgo": 10}}, 1),
        ({"metric": {}, "last": {"phase": "Running", "finishedAgo": None, "resumeIn": 10}, "terminating": True}, 1),
        ({"metric": {}, "last": done("Error", 120)}, 1),
        ({"metric": {"interval": "5m"}, "last": done("Error", 120)}, 1),
        ({"metric": {"interval": "5m"}, "last": done("Error", 9)}, 0),
        ({"metric": {"interval": "5m"}, "last": done("Failed", 120)}, 0),
        ({"metric": MINUTE, "last": done("Successful", 61), "terminating": True}, 0),
        ({"metric": MINUTE, "last": done("Successful", 61), "phase": "Successful"}, 0),
        ({"metric": {**MINUTE, "count": 3}, "last": done("Successful", 61), "count": 3}, 0),
        ({"metric": {**MINUTE, "count": "4"}, "last": done("Successful", 61), "count": 3}, 1),
    ],
)
def test_whether_to_measure_now(case: Mapping[str, Any], tasks: int) -> None:
    assert analysis.generate_tasks(**case) == tasks


@pytest.mark.parametrize(
    ("text", "length"),
    [("1m30s", 90), ("1.5s", 1.5), ("500ms", 0.5), ("0", 0), ("-1h", -3600), (".5m", 30), ("+1µs", 1e-6)],
)
def test_a_go_duration(text: str, length: float) -> None:
    assert analysis.seconds(text) == pytest.approx(length)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 'time: invalid duration ""'),
        ("??", 'time: invalid duration "??"'),
        ("10", 'time: missing unit in duration "10"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1m 30s", 'time: unknown unit "m " in duration "1m 30s"'),
        ("9999999h", 'time: invalid duration "9999999h"'),
    ],
)
def test_no_go_duration(text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        analysis.seconds(text)
    assert str(caught.value) == words


def test_of_two_metrics_the_failed_one_is_the_worse() -> None:
    order = [Phase.SUCCESSFUL, Phase.INCONCLUSIVE, Phase.ERROR, Phase.FAILED]
    assert [[analysis.is_worse(a, b) for b in order] for a in order] == [[i < j for j in range(4)] for i in range(4)]


MEASURED = st.sampled_from([Phase.SUCCESSFUL, Phase.FAILED, Phase.INCONCLUSIVE, Phase.ERROR])
LIMITS = st.builds(
    Limits,
    count=st.none() | st.integers(1, 12),
    failure=st.integers(-1, 4),
    inconclusive=st.integers(0, 4),
    consecutive_error=st.integers(0, 5),
    consecutive_success=st.integers(0, 4),
    interval=st.just("1s"),
    initial_delay=st.just(""),
)


def counted(phases: list[Phase]) -> Counts:
    found = Counts()
    for phase in phases:
        found = found.after(phase)
    return found


@given(LIMITS, st.lists(MEASURED, min_size=1, max_size=15), st.booleans())
def test_never_failed_before_one_failure_more_than_the_limit(
    limits: Limits, phases: list[Phase], terminating: bool
) -> None:
    found = counted(phases)
    phase = analysis.metric_phase(limits, found, phases[-1], terminating)
    if phase is Phase.FAILED and found.failed <= limits.failure:
        pytest.fail(f"{found} failed within {limits}")
    if phase is Phase.FAILED and limits.failure < 0:
        assert limits.consecutive_success > found.consecutive_success
        assert limits.count is not None


@given(st.lists(MEASURED, max_size=15))
def test_errors_do_not_count_and_end_a_row(phases: list[Phase]) -> None:
    found = counted(phases)
    assert found.count == len(phases) - phases.count(Phase.ERROR)
    assert found.count == found.successful + found.failed + found.inconclusive
    assert found.error == phases.count(Phase.ERROR)
    assert (found.consecutive_error > 0) == (phases[-1:] == [Phase.ERROR])
    assert (found.consecutive_success > 0) == (phases[-1:] == [Phase.SUCCESSFUL])


@given(LIMITS, st.lists(MEASURED, min_size=1, max_size=15))
def test_error_over_inconclusive_over_failed(limits: Limits, phases: list[Phase]) -> None:
    found = counted(phases)
    passed = analysis.limit_passed(limits, found).phase
    if found.consecutive_error > limits.consecutive_error:
        assert passed is Phase.ERROR
    elif found.inconclusive > limits.inconclusive:
        assert passed is Phase.INCONCLUSIVE
    else:
        assert passed is (Phase.FAILED if 0 <= limits.failure < found.failed else Phase.UNDECIDED)


@given(LIMITS, st.lists(MEASURED, max_size=15))
def test_terminating_a_running_metric_makes_it_successful_and_changes_no_other(
    limits: Limits, phases: list[Phase]
) -> None:
    last = phases[-1] if phases else None
    before = analysis.metric_phase(limits, counted(phases), last, False)
    after = analysis.metric_phase(limits, counted(phases), last, True)
    assert after is (Phase.SUCCESSFUL if before in (Phase.RUNNING, Phase.PENDING) else before)


@pytest.fixture(scope="module")
def cases() -> Any:
    if not SHARED.exists():
        pytest.skip("missing: shared/data/argo, other projects' cases beside the repository")
    return json.loads(SHARED.read_text(encoding="utf-8"))


def test_the_shared_cases(cases: Any) -> None:
    for case in cases["assess_metric_status"]:
        for key, phase in case["expect"].items():
            found = analysis.assess_metric_status(case["metric"], case["result"], key.endswith("=true"))
            assert phase in (None, found), case
    for case in cases["failure_inconclusive_error"]:
        passed = analysis.assess_failure_inconclusive_error(case["metric"], case["result"])
        assert [*passed] == [case["phase"], case["message"]]
    for case in cases["evaluate_result"]:
        assert analysis.evaluate_result(case["success"], case["failure"]) == case["phase"]
    for case in cases["prometheus_process_response"]:
        response = analysis.process_response(case["type"], case["value"], case["success"], case["failure"])
        assert response.phase == case["phase"], case
        assert response.str == case.get("str", response.str)
        assert case.get("messageContains", "") in response.message
    for case in cases["validate_metrics"]:
        objection = analysis.validate_metric(case["metric"]) or ""
        exact = not case["error"].startswith("~")
        assert (objection == case["error"]) if exact else objection.startswith(case["error"][1:])
    for case in cases["generate_tasks"]:
        fields = {key: value for key, value in case.items() if key != "tasks"}
        assert analysis.generate_tasks(**fields) == case["tasks"], case
