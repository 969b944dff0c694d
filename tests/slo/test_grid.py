"""The minute grid: growth by hand, and expressions as our own PromQL evaluator answers them at each minute's end."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import evaluator
from greenops_pipelines.slo.count_nodes import Growth, Sampled
from greenops_pipelines.slo.counting import compile_slo
from greenops_pipelines.slo.day_samples import day_start, merged
from greenops_pipelines.slo.grid import Grid
from greenops_pipelines.slo.samples import Labels, unnamed
from greenops_pipelines.slo.series import Selector
from tests.slo.counted_days import DAY, Line, batch, raw

_MIDNIGHT = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC).timestamp()


def _grid(*lines: Line) -> Grid:
    return Grid(merged([batch(*lines)], {metric for metric, _, _ in lines}), day_start(DAY))


def _sampled(expression: str) -> Sampled:
    bad = compile_slo(raw(f"avg_over_time(({expression})[{{{{.window}}}}:1m])")).bad
    assert isinstance(bad, Sampled)
    return bad


def _growth(*lines: Line) -> dict[Labels, np.ndarray]:
    found = _grid(*lines).vector(Growth(Selector("c_total")))
    return dict(zip(found.labels, found.values, strict=True))


def test_growth_belongs_to_the_minute_of_the_later_sample() -> None:
    """A sample at a minute's end is in it: 12:00:00 belongs to 11:59, and 12:00:01 to 12:00."""
    noon = 12 * 3600
    (row,) = _growth(("c_total", {}, [(noon - 60, 5), (noon, 12), (noon + 1, 20), (noon + 60, 23)])).values()
    assert (row[719], row[720]) == (7, 8 + 3)
    assert (row[718], math.isnan(row[717]), math.isnan(row[721])) == (0, True, True)


def test_a_counter_that_falls_began_again_at_zero() -> None:
    grid = _grid(("c_total", {}, [(30, 100), (90, 110), (150, 4), (210, 5)]))
    row = grid.vector(Growth(Selector("c_total"))).values[0]
    assert row[:4].tolist() == [0, 10, 4, 1]
    assert grid.grown.resets.tolist() == [1]


def test_scraped_four_times_a_minute_all_of_it_counts() -> None:
    (row,) = _growth(("c_total", {}, [(15 * n, 3 * n) for n in range(0, 17)])).values()
    assert row[:4].tolist() == [12, 12, 12, 12]


def test_scraped_every_two_minutes_the_minute_between_had_nothing() -> None:
    (row,) = _growth(("c_total", {}, [(30, 0), (150, 8), (270, 20)])).values()
    assert row[:5].tolist() == [0, 0, 8, 0, 12]


def test_five_minutes_without_a_sample_are_no_gap_and_a_second_more_is() -> None:
    near = _growth(("c_total", {}, [(60, 0), (360, 7)]))[()]
    assert near[:6].tolist() == [0, 0, 0, 0, 0, 7]
    grid = _grid(("c_total", {}, [(60, 0), (361, 7)]))
    far = grid.vector(Growth(Selector("c_total"))).values[0]
    assert (far[0], far[6]) == (0, 0)
    assert np.isnan(far[1:6]).all()
    assert grid.grown.unplaced is not None
    assert grid.grown.unplaced[0, 6] == 7


def test_a_series_is_born_where_its_target_was_scraped_without_it() -> None:
    target = {"instance": "a", "job": "shop"}
    ok = [(60 * n, 500.0 + n) for n in range(10)]
    rows = _growth(
        ("c_total", {**target, "code": "200"}, ok),
        ("c_total", {**target, "code": "500"}, [(180, 3), (240, 4)]),
        ("c_total", {"instance": "b", "job": "shop", "code": "500"}, [(180, 9000), (240, 9001)]),
    )
    born, new_target = (
        rows[tuple(sorted({**target, "code": "500"}.items()))],
        rows[(("code", "500"), ("instance", "b"), ("job", "shop"))],
    )
    assert born[2:4].tolist() == [3, 1]
    # Of the metric nothing was there before the day: nobody knows anything of those 9,000, not even that they were new.
    assert new_target[2:4].tolist() == [0, 1]


def test_an_older_sibling_does_not_vouch() -> None:
    """The target was last scraped 5 minutes and a second before: both come back together."""
    target = {"instance": "a"}
    grid = _grid(
        ("c_total", {**target, "code": "200"}, [(-30, 1), (60, 2), (361, 3)]),
        ("c_total", {**target, "code": "500"}, [(361, 40)]),
    )
    assert grid.grown.births.tolist() == [0, 0]
    assert grid.grown.unplaced is not None
    # What grew over the gap is unplaced; of the 40 nobody knows whether they happened in it.
    assert sorted(grid.grown.unplaced[:, 6].tolist()) == [0, 1]


def test_a_counter_that_comes_back_smaller_in_a_scraped_target_was_born_again() -> None:
    """A restart forgets counters that have nothing to say yet: the first error after it is an hour later."""
    ok = [(60 * n, 100.0 + n) for n in range(100)]
    errors = [(60, 7), (120, 7), (3600, 2)]
    rows = _growth(
        ("c_total", {"instance": "a", "code": "200"}, ok), ("c_total", {"instance": "a", "code": "500"}, errors)
    )
    assert rows[(("code", "500"), ("instance", "a"))][59] == 2


def test_a_marked_end_ends_an_instant_value_and_not_a_counter() -> None:
    ends = _grid(("g", {}, [(30, 5), (100, None), (400, 6)]), ("c_total", {}, [(30, 5), (100, None), (160, 9)]))
    value = ends.vector(_sampled("g")).values[0]
    assert value[0] == 5
    assert np.isnan(value[1:6]).all()
    assert value[6] == 6
    assert ends.vector(Growth(Selector("c_total"))).values[0][2] == 4


def test_two_series_of_one_name_at_once_make_the_minute_unknown() -> None:
    grid = _grid(
        ("a", {"pod": "x"}, [(60, 1), (120, 1)]),
        ("b", {"pod": "x", "node": "1"}, [(60, 1), (100, None)]),
        ("b", {"pod": "x", "node": "2"}, [(90, 4), (120, 4)]),
    )
    value, conflicts = grid.placed(_sampled("a / on (pod) b"))
    assert (value[0], conflicts[0]) == (1, False)
    assert (value[1], conflicts[1]) == (0.25, False)
    grid = _grid(("a", {"pod": "x"}, [(60, 1)]), *[("b", {"pod": "x", "node": n}, [(60, 1)]) for n in "12"])
    assert grid.placed(_sampled("a / on (pod) b"))[1][:5].tolist() == [True] * 5


def test_where_one_side_is_empty_nobody_asks_about_the_other() -> None:
    grid = _grid(("a", {"pod": "x"}, [(1200, 1)]), *[("b", {"pod": "x", "node": n}, [(60, 1)]) for n in "12"])
    value, conflicts = grid.placed(_sampled("a / on (pod) b"))
    assert np.isnan(value).all()
    assert not conflicts.any()


@pytest.mark.parametrize(
    ("points", "increase"),
    [
        pytest.param([(0, 0), (15, 15), (30, 30), (45, 45), (60, 60)], 60, id="both edges sampled"),
        pytest.param([(0, 10), (20, 20), (40, 5), (60, 15)], 25, id="reset: 10, then 5 from zero, then 10"),
        # 30 over 30 s; 10 s to the start are less than 1.1 gaps and count; 20 s to the end do not: half a gap, 7.5 s.
        pytest.param([(10, 100), (25, 115), (40, 130)], 47.5, id="extrapolated"),
        # As above, but the counter was zero 3 s before its first sample.
        pytest.param([(10, 3), (25, 18), (40, 33)], 40.5, id="not before zero"),
        pytest.param([(-1, 0), (0, 7), (60, 9)], 2, id="closed on the left: -1 is out, 0 is in"),
        pytest.param([(0, 7), (20, 8), (21, None)], 1.5, id="a mark is no sample: half a gap to the end"),
    ],
)
def test_increase_and_rate_of_a_minute(points: list[tuple[float, float | None]], increase: float) -> None:
    grid = _grid(("c_total", {}, points))
    assert grid.vector(_sampled("increase(c_total[1m])")).values[0, 0] == pytest.approx(increase, rel=1e-12)
    assert grid.vector(_sampled("rate(c_total[1m])")).values[0, 0] == pytest.approx(increase / 60, rel=1e-12)


def test_nothing_by_nothing_is_no_value() -> None:
    grid = _grid(("a", {}, [(60, 0)]), ("b", {}, [(60, 0)]), ("c", {}, [(60, 2)]))
    assert np.isnan(grid.vector(_sampled("a / b")).values[0, 0])
    assert grid.vector(_sampled("c / b > bool 5")).values[0, 0] == 1


_EXPRESSIONS = [
    "g",
    "rate(c_total[5m])",
    "rate(c_total[90s])",
    "increase(c_total[2m])",
    "sum by (pod) (rate(c_total[5m])) / sum by (pod) (g) > bool 0.05",
    "sum without (code) (rate(c_total[3m]))",
    "(sum(rate(c_total[5m])) or vector(0)) < bool 0.5",
    "max by (code) (g) - min by (code) (g)",
    "avg(g) * 2 + count(g)",
    "g / on (pod, code) h",
    "g > on (pod, code) h",
    "g - ignoring (zone) h",
    "g / on (pod) h",
    "g >= 3",
    "2 < g",
    "-g",
    "3 - g",
    "sum by (pod) (g) or sum by (pod) (c_total)",
    "g or on (pod) h",
    "g == bool 3",
    'g{code!="1"} * h{pod=~"x|y"}',
]
_LABELS = st.fixed_dictionaries({"pod": st.sampled_from("xy"), "code": st.sampled_from("12")})


@st.composite
def _line(draw: st.DrawFn, metric: str, start: int) -> list[tuple[float, float | None]]:
    """Samples with every kind of distance, restarts and ends, from `start` on."""
    at, value, points = float(start), float(draw(st.integers(0, 20))), []
    for _ in range(draw(st.integers(0, 14))):
        at += draw(st.sampled_from([1, 15, 15, 30, 45, 60, 60, 60, 120, 300, 301, 420])) + draw(
            st.sampled_from([0, 0, 0.25])
        )
        kind = draw(st.sampled_from(["grows", "grows", "grows", "stays", "restarts", "ends"]))
        value = value + draw(st.integers(1, 30)) if kind == "grows" else 1.0 if kind == "restarts" else value
        points.append((at, None if kind == "ends" else max(value, 1.0)))
    return points


@st.composite
def _lines(draw: st.DrawFn) -> list[Line]:
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Line] = {}
    for metric in ("c_total", "g", "h"):
        for _ in range(draw(st.integers(0, 3))):
            labels = dict(draw(_LABELS)) | ({"zone": "z"} if metric == "h" else {})
            points = draw(_line(metric, draw(st.sampled_from([-600, -90, -60, 0, 7, 200]))))
            found[metric, tuple(sorted(labels.items()))] = (metric, labels, points)
    return list(found.values())


@settings(max_examples=30)
@given(_lines())
def test_expressions_have_the_values_that_the_evaluator_finds(lines: list[Line]) -> None:
    store = evaluator.Store()
    for metric, labels, points in lines:
        for at, value in points:
            name, t = {"__name__": metric, **labels}, _MIDNIGHT + at
            assert store.end(name, t) if value is None else store.append(name, t, value)
    grid = _grid(*lines, ("never", {}, []))
    for expression in _EXPRESSIONS:
        node, query = _sampled(expression), evaluator.compile(expression)
        _, conflicts = grid.placed(node)
        found = grid.vector(node)
        for minute in (*range(0, 9), 12, 20):
            values = {each: row[minute] for each, row in zip(found.labels, found.values, strict=True)}
            try:
                answer = query.at(store, _MIDNIGHT + 60 * (minute + 1))
            except BadInput:
                assert conflicts[minute]
                continue
            assert not conflicts[minute]
            expected = {unnamed(tuple(sorted(labels.items()))): value for labels, value in answer.samples}
            known = {labels: value for labels, value in values.items() if not math.isnan(value)}
            assert known == {labels: pytest.approx(value, rel=1e-9) for labels, value in expected.items()}, expression
