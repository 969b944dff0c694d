"""What a decision may believe: the right slot of the right forecast, and nothing beside it."""

from __future__ import annotations

import numpy as np
import pytest

from greenops_pipelines.errors import BadInput
from greenops_pipelines.placement.belief import believe
from greenops_pipelines.placement.model import HOUR, Grid

DAY = 24


def grid() -> Grid:
    """Two places over five days; a value is the number of its slot, 1,000 more in the second place."""
    slots = np.arange(5 * DAY, dtype=float)
    values = np.stack([slots, slots + 1000])
    return Grid(("A", "B"), 0, HOUR, values, np.ones(2), np.full(values.shape, np.inf))


def test_persistence_is_yesterdays_value_of_the_same_hour() -> None:
    belief = believe("persistence", grid(), np.array([48, 50]), DAY)
    slots = np.array([[48, 49, 71], [50, 51, 73]])
    found = belief.over(np.array([0, 1]), np.array([48, 50]), slots)
    assert found.tolist() == [[24, 25, 47], [1026, 1027, 1049]]
    assert belief.ahead(50, 3).tolist() == [[26, 27, 28], [1026, 1027, 1028]]


def test_nothing_is_believed_of_the_past_beyond_the_horizon_or_where_no_forecast_was_made() -> None:
    belief = believe("persistence", grid(), np.array([48]), DAY)
    found = belief.over(np.array([0, 0]), np.array([48, 47]), np.array([[47, 72, 500], [47, 48, 49]]))
    assert np.isnan(found).all()


def test_a_series_is_the_same_for_every_decision_and_ends_with_the_record() -> None:
    belief = believe("perfect", grid(), np.array([0]), DAY)
    assert belief.over(np.array([1]), np.array([7]), np.array([[0, 119, 120]]))[0, :2].tolist() == [1000, 1119]
    assert np.isnan(belief.over(np.array([1]), np.array([7]), np.array([[120, -1]]))).all()
    assert belief.ahead(118, 4)[0].tolist()[:2] == [118, 119]
    assert np.isnan(belief.ahead(118, 4)[0, 2:]).all()


def test_noise_is_drawn_zone_after_zone_with_each_ones_mean() -> None:
    base = grid()
    draw = np.random.default_rng(3)
    expected = [row + draw.normal(0, 0.05 * row.mean(), size=len(row)) for row in base.intensity]
    assert np.array_equal(believe("noise:0.05", base, np.array([0]), 1, seed=3).series, np.stack(expected))


@pytest.mark.parametrize("kind", ["oracle", "noise", "noise:-1", "noise:x", "ridge:2"])
def test_another_name_is_refused(kind: str) -> None:
    with pytest.raises(BadInput, match="--forecast: found"):
        believe(kind, grid(), np.array([48]), DAY)
