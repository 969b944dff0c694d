"""The rollback certificate: against its reference table, against Prometheus' own arithmetic over all phases, and chance."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.slo import evaluator
from greenops_pipelines.slo.rollback import Timing, bad_sample, chance, knobs, worst_case, worst_case_seconds

THRESHOLD = 0.0144


@pytest.mark.parametrize(
    ("window", "scrape", "interval", "reference"),
    [
        (60, 15, 15, (66, 73, 82, 109)),
        (60, 15, 20, (81, 89, 97, 123)),
        (120, 15, 20, (81, 97, 115, 167)),
        (60, 30, 30, (125, 133, 143, 169)),
        (300, 15, 30, (115, 153, 197, 327)),
    ],
)
def test_the_reference_table_is_met_from_above(window: int, scrape: int, interval: int, reference: tuple) -> None:
    """The table was taken on a grid of phases, so that its figures are up to three seconds below the least upper bound."""
    for error, seconds in zip((1, 0.1, 0.05, 0.02), reference, strict=True):
        found = worst_case_seconds(THRESHOLD, error, window, scrape, interval)
        assert found is not None
        assert seconds <= found <= seconds + 3


def test_by_hand_at_two_percent() -> None:
    """43.2 s until 1.44 % of a minute is bad, a scrape, three measurements, the overhead."""
    assert worst_case_seconds(THRESHOLD, 0.02, 60, 15, 15) == pytest.approx(43.2 + 15 + 15 + 30 + 7)


@pytest.mark.parametrize("error", [0.0, 0.01, THRESHOLD])
def test_what_does_not_exceed_the_threshold_is_never_found(error: float) -> None:
    assert worst_case_seconds(THRESHOLD, error, 60, 15, 15) is None


def test_series_that_are_born_with_their_first_error_cost_a_scrape() -> None:
    born = worst_case_seconds(THRESHOLD, 0.02, 60, 15, 15, starts_at_zero=False)
    assert born == pytest.approx(125.2)


def test_slow_answers_are_counted_when_they_end_and_end_after_the_rollback() -> None:
    """12 s late at both ends."""
    quick, slow = (Timing(0.05, 60, 15, 15, answer_s=seconds) for seconds in (0, 12))
    assert worst_case(quick, 1) == pytest.approx(3 + 15 + 45 + 7)
    assert worst_case(slow, 1) == pytest.approx(3 + 15 + 45 + 7 + 24)


def test_a_slow_prometheus_costs_its_time_with_each_measurement() -> None:
    assert worst_case(Timing(THRESHOLD, 60, 15, 15, query_s=2), 0.02) == pytest.approx(110.2 + 6)


def test_few_requests_cost_the_wait_for_the_next_error() -> None:
    """At 5 a second every 50th comes after 10 s."""
    assert worst_case_seconds(THRESHOLD, 0.02, 60, 15, 15, rate_per_s=5) == pytest.approx(120.2)


def test_a_canary_that_is_bad_from_its_first_second_waits_for_the_initial_delay() -> None:
    timing = Timing(THRESHOLD, 60, 15, 15, initial_delay_s=60)
    assert worst_case(timing, 1, 0) == pytest.approx(60 + 30 + 7)
    assert worst_case(timing, 1, 25) == pytest.approx(35 + 30 + 7)
    assert worst_case(timing, 1) == worst_case(timing, 1, 50) == pytest.approx(67.864)
    assert worst_case(timing, 0.02, 0) == worst_case(timing, 0.02) == pytest.approx(110.2)


def test_the_knob_of_a_five_minute_window_is_the_window() -> None:
    found = knobs(Timing(THRESHOLD, 300, 15, 15), 0.02)
    assert found[0] == "analysis.rate_window: 300 s, at most 73 s"
    assert worst_case_seconds(THRESHOLD, 0.02, 73, 15, 15) <= 120  # type: ignore[operator]
    assert worst_case_seconds(THRESHOLD, 0.02, 74, 15, 15) > 120  # type: ignore[operator]


def test_a_threshold_above_the_error_rate_has_one_knob() -> None:
    [only] = knobs(Timing(0.025, 60, 15, 15), 0.02)
    assert only == "error_percent: 2.5 %, at most 1.76 %"
    assert worst_case_seconds(0.0176, 0.02, 60, 15, 15) <= 120  # type: ignore[operator]


def test_few_requests_have_a_knob_of_their_own() -> None:
    """At 5 a second the third failure may come 0.2 s too late; at 5.1 it does not."""
    found = knobs(Timing(THRESHOLD, 60, 15, 15, rate_per_s=5), 0.02)
    assert found[-1] == "minimum_requests_per_second: 5, at least 5.2"
    assert worst_case_seconds(THRESHOLD, 0.02, 60, 15, 15, rate_per_s=5.2) <= 120  # type: ignore[operator]
    assert worst_case_seconds(THRESHOLD, 0.02, 60, 15, 15, rate_per_s=5.1) > 120  # type: ignore[operator]


def test_nothing_is_said_where_the_deadline_is_kept() -> None:
    assert knobs(Timing(THRESHOLD, 60, 15, 15), 0.02) == ()


@given(
    threshold=st.floats(0.001, 0.1),
    error=st.floats(0.005, 1),
    window=st.integers(60, 900),
    scrape=st.integers(5, 60),
    interval=st.integers(5, 60),
    rate=st.none() | st.floats(0.1, 100),
    starts_at_zero=st.booleans(),
    answer=st.sampled_from([0, 5]),
)
def test_each_knob_alone_is_enough(
    threshold: float,
    error: float,
    window: int,
    scrape: int,
    interval: int,
    rate: float | None,
    starts_at_zero: bool,
    answer: int,
) -> None:
    timing = Timing(
        threshold, window, scrape, interval, rate_per_s=rate, starts_at_zero=starts_at_zero, answer_s=answer
    )
    fields = {
        "analysis.rate_window": "window_s",
        "analysis.interval": "interval_s",
        "scrape_interval": "scrape_s",
        "error_percent": "threshold",
        "minimum_requests_per_second": "rate_per_s",
    }
    for words in knobs(timing, error):
        name, _, rest = words.partition(": ")
        wanted = float(re.search(r"at (?:most|least) ([0-9.]+)", rest)[1])  # type: ignore[index]
        turned = replace(timing, **{fields[name]: wanted / 100 if name == "error_percent" else wanted})
        found = worst_case(turned, error)
        assert found is not None
        assert found <= 120 + 1e-6


# A minute of 20 requests a second before and after the breach, scraped, and asked as a gate asks.
_QUERY = evaluator.compile("sum(rate(errors_total[1m])) / sum(rate(requests_total[1m]))")
_BREACH = 1_000_000.0
_RATE = 20.0


def _third_bad_sample(error: float, scrape_phase: float, phase: float, scrape: float, interval: float) -> float:
    """Seconds from the breach to the third measurement above the threshold, by Prometheus' own arithmetic."""
    store = evaluator.Store()
    for n in range(-20, 30):
        at = scrape_phase + n * scrape
        bad = math.floor(max(0.0, at) * _RATE * error + 1e-9)
        store.append({"__name__": "errors_total"}, _BREACH + at, float(bad))
        store.append({"__name__": "requests_total"}, _BREACH + at, math.floor((at + 1000) * _RATE))
    found = 0
    for n in range(40):
        at = phase + n * interval
        [value] = _QUERY.at(store, _BREACH + at).values
        found += value > THRESHOLD
        if found == 3:
            return at
    raise AssertionError("never found")


@settings(max_examples=60)
@given(
    error=st.sampled_from([1.0, 0.1, 0.05, 0.02]),
    scrape_phase=st.floats(0, 15, exclude_max=True),
    phase=st.floats(0, 15, exclude_max=True),
)
def test_no_phase_of_scraping_and_measuring_exceeds_the_certificate(
    error: float, scrape_phase: float, phase: float
) -> None:
    timing = Timing(THRESHOLD, 60, 15, 15, overhead_s=0, rate_per_s=_RATE)
    bound = worst_case(timing, error)
    assert bound is not None
    assert _third_bad_sample(error, scrape_phase, phase, 15, 15) <= bound


@pytest.mark.parametrize(("error", "slack"), [(1.0, 2.0), (0.02, 16.0)])
def test_some_phase_comes_near_the_certificate(error: float, slack: float) -> None:
    """A bound that nothing comes near would be none. At 2 % Prometheus' extrapolation makes it up to a scrape sooner."""
    worst = max(_third_bad_sample(error, s, m, 15, 15) for s in np.arange(0, 15, 0.75) for m in np.arange(0, 15, 0.75))
    bound = worst_case(Timing(THRESHOLD, 60, 15, 15, overhead_s=0, rate_per_s=_RATE), error)
    assert bound is not None
    assert bound - slack <= worst <= bound


def test_a_bad_sample_is_a_binomial_tail() -> None:
    """Of 10 requests at a threshold of 10 % two have to fail: 1 - 0.9^10 - 10 x 0.1 x 0.9^9."""
    assert bad_sample(0.1, 0.1, 10) == pytest.approx(1 - 0.9**10 - 10 * 0.1 * 0.9**9)
    assert bad_sample(0.0144, 0.02, 6) == pytest.approx(1 - 0.98**6)
    assert bad_sample(0.0144, 0.5, 0) == 0
    assert bad_sample(0.5, 1, 3) == 1
    assert bad_sample(0.0144, 1e-9, 300) < 1e-30


def test_a_good_canary_is_hardly_ever_taken_back_where_there_is_enough_traffic() -> None:
    timing = Timing(0.0144, 60, 15, 15, initial_delay_s=60)
    found = chance(timing, 10, 0.0005, 0.02, 1155)
    assert found.false_rollback < 0.001
    assert found.found > 0.999
    assert found.one_sample == bad_sample(0.0144, 0.0005, 600)


def test_at_six_requests_a_minute_one_error_decides() -> None:
    """The certificate's bound is of little use there: most bad canaries show no error in time."""
    timing = Timing(0.016, 60, 15, 15, initial_delay_s=60)
    found = chance(timing, 0.1, 0.01, 0.02, 1155)
    assert found.false_rollback > 0.5
    assert found.found_in_time < 0.3


def test_three_in_a_row_are_rarer_than_three_in_all() -> None:
    timing = Timing(0.016, 60, 15, 15, initial_delay_s=60)
    cumulative = chance(timing, 1, 0.003, 0.02, 1155)
    consecutive = chance(timing, 1, 0.003, 0.02, 1155, consecutive=True)
    assert consecutive.false_rollback < cumulative.false_rollback
    assert chance(timing, 1, 0.003, 0.02, 1155) == cumulative
