"""What an answer of Prometheus and the two conditions make of one measurement.

Not here: the expressions (`conditions.py`), and what several measurements make of a metric (`analysis.py`).
Source of behaviour: argoproj/argo-rollouts 1.10.2, utils/evaluate/evaluate.go, metricproviders/prometheus/prometheus.go.
1.8.3 decides the same, but its errors do not name their condition.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import conditions


class Phase(StrEnum):
    """`UNDECIDED` is Go's empty phase: no limit has been passed."""

    UNDECIDED = ""
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    ERROR = "Error"
    INCONCLUSIVE = "Inconclusive"

    @property
    def completed(self) -> bool:
        return self in (Phase.SUCCESSFUL, Phase.FAILED, Phase.ERROR, Phase.INCONCLUSIVE)


class Evaluation(NamedTuple):
    """`message` is empty unless the phase is Error."""

    phase: Phase
    message: str


def evaluate(success: str | None = "", failure: str | None = "", result: object = None) -> Evaluation:
    """What the conditions, empty or None where not given, make of one result."""
    holds = {}
    for name, expression in (("successCondition", success), ("failureCondition", failure)):
        try:
            holds[name] = conditions.compile(expression).evaluate(result) if expression else False
        except conditions.ConditionError as error:
            empty = result is None or (isinstance(result, Sequence) and not isinstance(result, str) and not result)
            nothing = "metric result is nil or empty: no data returned from the metric provider"
            why = nothing if empty else str(error)
            return Evaluation(Phase.ERROR, f'could not evaluate {name} "{expression}": {why}')
    good, bad = holds["successCondition"], holds["failureCondition"]
    if bad or (success and not failure and not good):
        return Evaluation(Phase.FAILED, "")
    return Evaluation(Phase.SUCCESSFUL if good or not success else Phase.INCONCLUSIVE, "")


def evaluate_result(success: str | None = "", failure: str | None = "", result: object = None) -> Phase:
    """`EvaluateResult`."""
    return evaluate(success, failure, result).phase


class Response(NamedTuple):
    """A measurement's phase, the value as Argo shows it, and why it is an Error."""

    phase: Phase
    str: builtins.str
    message: builtins.str


def process_response(
    type: str | None,  # noqa: A002
    value: object = None,
    success: str | None = "",
    failure: str | None = "",
) -> Response:
    """`processResponse`: what a Prometheus answer of this type makes of a measurement.

    `value`: scalar a number, vector the samples' numbers, matrix a list of numbers per series, which Argo strings
    together; None is an empty one. A number is also what the HTTP API writes: "0.5", "NaN", "+Inf". `nil` is no answer
    at all: the conditions are asked first, since their message names the condition. Raises `BadInput` for a value that
    is none.
    """
    if type == "scalar":
        number = _number(value)
        evaluation = evaluate(success, failure, number)
        return Response(evaluation.phase, conditions.sample_text(number), evaluation.message)
    if type in ("vector", "matrix"):
        numbers = list(_samples([] if value is None else value))
        evaluation = evaluate(success, failure, numbers)
        shown = ",".join(map(conditions.sample_text, numbers))
        return Response(evaluation.phase, f"[{shown}]", evaluation.message)
    evaluation = evaluate(success, failure, None) if value is None else Evaluation(Phase.ERROR, "")
    return Response(Phase.ERROR, "", evaluation.message or "Prometheus metric type not supported")


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?(Inf|([0-9]+[.]?[0-9]*|[.][0-9]+)(e[+-]?[0-9]+)?)|NaN", value):
        return float(value)
    raise BadInput(f"sample: found {value!r}, allowed: a number, NaN, +Inf or -Inf")


def _samples(value: object) -> Iterator[float]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadInput(f"samples: found {value!r}, allowed: a list")
    for item in value:
        if isinstance(item, Sequence) and not isinstance(item, str):
            yield from map(_number, item)
        else:
            yield _number(item)
