"""Bad events of a minute between none and all: what is carried to other minutes, and what is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.slo.bounds import MOST_MINUTES, Bounded, bounded


def _of(bad: list[float], total: list[float], unknown: tuple[int, ...] = (), *, is_carried: bool = True) -> Bounded:
    is_known = np.ones(len(bad), bool)
    is_known[list(unknown)] = False
    return bounded(np.array(bad, float), np.array(total, float), is_known, is_carried=is_carried)


@pytest.mark.parametrize(
    ("bad", "total", "held"),
    [
        pytest.param([3, 0], [1, 9], [1, 2], id="into the next minute"),
        pytest.param([9, 3], [9, 1], [9, 1], id="the one before is full: cut"),
        pytest.param([0, 3], [9, 1], [2, 1], id="into the one before, where none follows"),
        pytest.param([0, 3, 0], [9, 1, 9], [0, 1, 2], id="the following first"),
        pytest.param([0, 4, 0], [9, 1, 1], [2, 1, 1], id="what is left into the one before"),
        pytest.param([0, 5, 0, 0], [1, 1, 2, 9], [1, 1, 2, 1], id="the nearer first"),
        pytest.param([4, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 9], [0, 0, 0, 0, 0, 4], id="five minutes"),
        pytest.param([4, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 9], [0] * 7, id="not six"),
        pytest.param([-2, 5], [9, 9], [0, 3], id="below none: out of the next minute"),
        pytest.param([5, -2], [9, 9], [3, 0], id="or out of the one before"),
        pytest.param([12, -2], [9, 9], [9, 1], id="too much here, too little there"),
    ],
)
def test_what_is_too_much_goes_where_there_is_room(bad: list[float], total: list[float], held: list[float]) -> None:
    assert _of(bad, total).bad.tolist() == held


def test_what_has_no_room_is_cut_where_it_was() -> None:
    found = _of([3, 0, 9], [1, 1, 9])
    assert (found.bad.tolist(), found.above.tolist(), found.below.tolist()) == ([1, 1, 9], [1, 0, 0], [0, 0, 0])
    found = _of([-3, 1], [9, 9])
    assert (found.bad.tolist(), found.above.tolist(), found.below.tolist()) == ([0, 0], [0, 0], [2, 0])


def test_nothing_goes_over_or_into_a_minute_of_which_nobody_knows() -> None:
    found = _of([4, 7, 0], [1, 9, 9], unknown=(1,))
    assert (found.bad.tolist(), found.above.tolist()) == ([1, 0, 0], [3, 0, 0])


def test_what_is_not_to_be_carried_is_cut() -> None:
    found = _of([4, 0], [1, 9], is_carried=False)
    assert (found.bad.tolist(), found.above.tolist()) == ([1, 0], [3, 0])


def test_infinitely_bad_is_all_of_one_minute() -> None:
    found = _of([np.inf, 0, -np.inf], [2, 9, 9])
    assert (found.bad.tolist(), found.above.sum(), found.below.sum()) == ([2, 0, 0], 0, 0)


def test_a_difference_of_rounding_is_none() -> None:
    found = _of([0.1 + 0.2], [0.3])
    assert (found.bad.tolist(), found.above.tolist()) == ([0.3], [0])


_EVENTS = st.lists(
    st.tuples(st.integers(-20, 60), st.integers(0, 40), st.sampled_from([True] * 9 + [False])), min_size=1
)


@given(_EVENTS)
def test_the_sum_stays_and_every_minute_is_within_its_bounds(minutes: list[tuple[int, int, bool]]) -> None:
    bad, total, known = (np.array(column) for column in zip(*minutes, strict=True))
    found = bounded(bad.astype(float), total.astype(float), known, is_carried=True)
    assert np.all((found.bad >= 0) & (found.bad <= total))
    assert np.all(found.bad[~known] == 0)
    is_end = np.append(~known[1:], True)
    sums = [np.cumsum(np.where(known, each, 0)) for each in (bad, found.bad + found.above - found.below)]
    # Over no stretch of known minutes anything goes in or out.
    assert (sums[0][is_end] == sums[1][is_end]).all()
    assert np.all(found.above <= np.maximum(bad - total, 0) * known)
    assert np.all(found.below <= np.maximum(-bad, 0) * known)


@given(st.integers(0, 30), st.integers(1, 50), st.lists(st.integers(0, 9), min_size=31, max_size=31))
def test_nothing_goes_further_than_five_minutes(place: int, size: int, total: list[int]) -> None:
    bad = np.zeros(31)
    bad[place] = size
    found = bounded(bad, np.array(total, float), np.ones(31, bool), is_carried=True)
    near = np.abs(np.arange(31) - place) <= MOST_MINUTES
    assert not found.bad[~near].any()
    assert found.bad.sum() == min(size, sum(np.array(total)[near]))
