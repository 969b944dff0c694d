"""Closed form against a simulation that shares nothing with it, for any objective, windows and error rate."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.certificate import certify, timing
from greenops_pipelines.slo.profiles import PROFILES
from greenops_pipelines.slo.simulation import disagreements, simulate
from greenops_pipelines.slo.windows import Window, Windows

STEP = timedelta(minutes=1)


@st.composite
def pairs(draw: st.DrawFn) -> Window:
    short = draw(st.integers(1, 120))
    long = draw(st.integers(short + 1, 24 * 60))
    return Window(draw(st.floats(0.05, 100)), timedelta(minutes=short), timedelta(minutes=long))


windows = st.builds(
    Windows, st.integers(7, 60).map(lambda days: timedelta(days=days)), pairs(), pairs(), pairs(), pairs()
)


def test_a_clock_of_minutes_sees_the_table_of_the_reference() -> None:
    seen = simulate(99.9, PROFILES["user-table"], 0.02)["ticket"]
    # 3 days x 0.006 / 0.02 = 1296 min; a count that has only reached the threshold is not above it.
    assert seen.detection == timedelta(minutes=1297)
    assert seen.reset == timedelta(minutes=252)  # 360 x (1 - 0.3)
    page = simulate(99.9, PROFILES["workbook"], 1.0)["page"]
    assert (page.detection, page.reset) == (timedelta(minutes=1), timedelta(minutes=5))


def test_a_burn_within_the_blind_band_is_never_seen_however_long() -> None:
    blind = simulate(99.9, PROFILES["workbook"], 0.0059, outage=timedelta(days=10))
    assert {observed.detection for observed in blind.values()} == {None}
    assert simulate(99.9, PROFILES["sloth"], 0.0011)["ticket"].detection is not None


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("objective", [99.99, 99.9, 99.8, 99.5, 99.0, 95.0, 90.0])
def test_every_profile_is_confirmed(profile: str, objective: float) -> None:
    assert disagreements(certify(objective, PROFILES[profile])) == []


def test_a_certificate_that_is_wrong_is_not_confirmed() -> None:
    certificate = certify(99.9, PROFILES["workbook"])
    page, ticket = certificate.severities
    late = replace(page.timings[1], detection=timedelta(minutes=11))
    unseen = replace(page.timings[2], detection=None, reset=None)
    spoiled = replace(page, timings=(page.timings[0], late, unseen, *page.timings[3:]))
    said = disagreements(replace(certificate, severities=(spoiled, ticket)))
    assert said[0] == "page at 10 % errors: detection: certified 0:11:00, simulated 0:09:00, allowed: up to 1m later"
    assert [line.split(", simulated")[0] for line in said[1:]] == [
        "page at 2 % errors: detection: certified never",
        "page at 2 % errors: reset: certified never",
    ]


@settings(max_examples=300)
@given(st.floats(50, 99.999), windows, st.floats(0.0005, 1))
def test_closed_form_and_simulation_agree_within_a_step(objective: float, windows: Windows, error_ratio: float) -> None:
    certificate = certify(objective, windows)
    seen = simulate(objective, windows, error_ratio)
    for severity in certificate.severities:
        closed = timing(severity.pairs, error_ratio * 100, certificate.budget, windows.period)
        observed = seen[severity.name]
        if closed.detection is None or closed.reset is None:
            assert (observed.detection, observed.reset) == (None, None)
            continue
        assert observed.detection is not None
        assert observed.reset is not None
        assert closed.detection - timedelta(microseconds=2) <= observed.detection <= closed.detection + STEP
        assert closed.reset - timedelta(microseconds=2) <= observed.reset <= closed.reset + STEP


@settings(max_examples=200)
@given(st.floats(50, 99.999), pairs(), st.floats(0.001, 1), st.integers(1, 2000))
def test_the_reset_is_the_same_for_every_outage_that_fired(
    objective: float, pair: Window, error_ratio: float, length: int
) -> None:
    windows = Windows(timedelta(days=30), pair, pair, pair, pair)
    certificate = certify(objective, windows)
    closed = timing(certificate.severities[0].pairs, error_ratio * 100, certificate.budget, windows.period)
    outage = length * STEP
    observed = simulate(objective, windows, error_ratio, outage=outage)["page"]
    if closed.detection is None or closed.reset is None or outage < closed.detection:
        assert observed.detection is None
        return
    assume(outage >= closed.detection + STEP)
    assert observed.reset is not None
    assert closed.reset - timedelta(microseconds=2) <= observed.reset <= closed.reset + STEP


def test_a_step_that_does_not_divide_the_windows_is_refused() -> None:
    with pytest.raises(BadInput, match=r"step: found 420 s, allowed: a divisor of 3d"):
        simulate(99.9, PROFILES["sloth"], 0.1, step_seconds=420)
