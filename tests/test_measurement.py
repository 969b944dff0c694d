"""A figure against its target."""

from __future__ import annotations

import pytest

from greenops_pipelines.measurement import Comparison, Measurement


def outcome(measured: float | None, comparison: Comparison, target: float) -> str:
    return Measurement("a/b:c", measured, target, comparison, "%", "a sentence").outcome


@pytest.mark.parametrize(
    ("comparison", "below", "equal", "above"),
    [
        (">=", "failed", "passed", "passed"),
        ("<=", "passed", "passed", "failed"),
        ("==", "failed", "passed", "failed"),
    ],
)
def test_comparisons_at_and_around_the_target(comparison: Comparison, below: str, equal: str, above: str) -> None:
    assert [outcome(measured, comparison, 95) for measured in (94.999, 95, 95.001)] == [below, equal, above]


@pytest.mark.parametrize("comparison", [">=", "<=", "=="])
def test_nothing_measured_and_no_number_never_pass(comparison: Comparison) -> None:
    assert outcome(None, comparison, 0) == "cannot be measured"
    assert outcome(float("nan"), comparison, 0) == "failed"


def test_zero_is_a_measurement() -> None:
    assert outcome(0.0, "==", 0) == "passed"
    assert outcome(0.0, ">=", 1) == "failed"
