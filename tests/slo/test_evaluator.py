"""Figures a person can check by hand; and the same queries over the same samples, asked of a real Prometheus."""

from __future__ import annotations

import math
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.errors import BadInput
from greenops_pipelines.process import prometheus as server
from greenops_pipelines.slo import evaluator
from greenops_pipelines.slo.evaluator import Store, quantile
from greenops_pipelines.slo.prometheus import Answer, Prometheus
from tests.slo.conftest import program

Samples = Sequence[tuple[float, float]]


def _store(*series: tuple[Mapping[str, str], Samples], retention_seconds: float = math.inf) -> Store:
    store = Store(retention_seconds)
    for labels, samples in series:
        for t, value in samples:
            assert store.append(labels, t, value)
    return store


def _named(name: str, **labels: str) -> dict[str, str]:
    return {"__name__": name, **labels}


def _one(query: str, store: Store, t: float) -> float:
    (value,) = evaluator.compile(query).at(store, t).values
    return value


def _by(label: str, answer: Answer) -> dict[str, float]:
    found = {}
    for labels, value in answer.samples:
        assert isinstance(value, float)
        found[labels.get(label, "")] = value
    return found


@pytest.mark.parametrize(
    ("samples", "increase"),
    [
        pytest.param([(0, 0), (15, 15), (30, 30), (45, 45), (60, 60)], 60, id="both edges sampled"),
        pytest.param([(0, 10), (20, 20), (40, 5), (60, 15)], 25, id="reset: 10, then 5 from zero, then 10"),
        # 30 over 30 s; 10 s to the start are less than 1.1 gaps and count; 20 s to the end do not: half a gap, 7.5 s.
        pytest.param([(10, 100), (25, 115), (40, 130)], 47.5, id="extrapolated"),
        # As above, but the counter was zero 3 s before its first sample.
        pytest.param([(10, 3), (25, 18), (40, 33)], 40.5, id="not before zero"),
        pytest.param([(-1, 0), (0, 7), (60, 9)], 2, id="closed on the left: -1 is out, 0 is in"),
        pytest.param([(0, 5), (30, 5), (60, 5)], 0, id="no change"),
    ],
)
def test_increase_and_rate_of_a_minute(samples: Samples, increase: float) -> None:
    store = _store((_named("c_total"), samples))
    assert _one("increase(c_total[1m])", store, 60) == pytest.approx(increase, rel=1e-15)
    assert _one("rate(c_total[1m])", store, 60) == pytest.approx(increase / 60, rel=1e-15)


def test_rate_needs_two_samples_and_loses_the_name() -> None:
    store = _store((_named("c_total", pod="a"), [(0, 1), (30, 2)]), (_named("c_total", pod="b"), [(30, 2)]))
    answer = evaluator.compile("rate(c_total[30s])").at(store, 30)
    assert answer == Answer("vector", (({"pod": "a"}, 1 / 30),))


def test_irate_takes_the_last_two_and_starts_at_zero_after_a_reset() -> None:
    store = _store((_named("c_total"), [(0, 0), (10, 100), (20, 130), (30, 6)]))
    assert _one("irate(c_total[1m])", store, 20) == 3
    assert _one("irate(c_total[1m])", store, 30) == 0.6


def test_over_time_functions_and_a_subquery() -> None:
    store = _store((_named("g"), [(0, 4), (10, -2), (20, 7)]))
    for function, value in {"avg": 3, "sum": 9, "max": 7, "min": -2, "count": 3}.items():
        assert _one(f"{function}_over_time(g[20s])", store, 20) == value
    # At 5, 10, 15, 20: 4, -2, -2, 7; 5 itself is the first multiple of 5 that is not before the range.
    assert _one("sum_over_time(g[17s:5s])", store, 20) == 7
    assert _one("delta(g[20s])", store, 20) == 3
    assert _one("sum_over_time(g[5s] offset 10s)", store, 20) == -2


def test_sum_over_time_keeps_what_plain_addition_loses() -> None:
    store = _store((_named("g"), [(0, 1), (1, 1e100), (2, 1), (3, -1e100)]))
    assert _one("sum_over_time(g[10s])", store, 10) == 2


def test_sample_is_the_present_one_for_five_minutes() -> None:
    store = _store((_named("g"), [(0, 4)]))
    assert evaluator.compile("g").at(store, -0.001).values == ()
    assert evaluator.compile("g").at(store, 300).values == (4,)
    assert evaluator.compile("g").at(store, 300.001).values == ()
    assert evaluator.compile("g").at(store, 11, lookback_seconds=10).values == ()


def test_series_that_ended_is_gone_until_its_next_sample_and_ranges_skip_the_mark() -> None:
    store = _store((_named("c_total"), [(0, 10), (15, 25)]))
    assert store.end(_named("c_total"), 30)
    assert store.append(_named("c_total"), 45, 55)
    assert [len(evaluator.compile("c_total").at(store, t).values) for t in (29.999, 30, 44.999, 45)] == [1, 0, 0, 1]
    assert _one("count_over_time(c_total[1m])", store, 45) == 3
    assert _one("rate(c_total[45s])", store, 45) == 1


def test_store_takes_samples_in_their_order_only() -> None:
    store = _store((_named("g"), [(10, 1)]))
    assert store.append(_named("g", pod=""), 10, 1)  # The same series, and the same sample.
    assert not store.append(_named("g"), 10, 2)
    assert not store.append(_named("g"), 9, 1)
    assert not store.end(_named("g"), 10)
    assert len(store) == 1


def test_what_is_no_longer_kept_is_refused_and_not_taken_for_nothing() -> None:
    store = _store((_named("g"), [(t, t) for t in range(0, 2000, 10)]), retention_seconds=600)
    assert len(store) <= (600 + 2 * 150) / 10 + 1
    assert _one("count_over_time(g[5m])", store, 1990) == 31
    with pytest.raises(BadInput, match=r"allowed: the last 600 s"):
        evaluator.compile("count_over_time(g[20m])").at(store, 1990)
    with pytest.raises(BadInput, match=r"allowed: the last 600 s"):
        evaluator.compile("g").at(store, 1000)


@given(retention=st.integers(1, 500), gap=st.integers(1, 60), count=st.integers(1, 100))
def test_whole_retention_is_always_there(retention: int, gap: int, count: int) -> None:
    store = _store((_named("g"), [(i * gap, 1) for i in range(count)]), retention_seconds=retention)
    last = (count - 1) * gap
    assert _one(f"count_over_time(g[{retention}s])", store, last) == min(count - 1, retention // gap) + 1


def test_series_whose_samples_are_all_forgotten_leaves_the_store() -> None:
    store = _store((_named("a"), [(0, 1)]), (_named("b"), [(0, 1), (1000, 1)]), retention_seconds=300)
    assert len(store) == 1


@pytest.mark.parametrize(
    ("q", "buckets", "value"),
    [
        (0.95, {0.1: 50, 0.5: 90, 1: 100, math.inf: 100}, 0.75),  # Rank 95 of 90 to 100, half way from 0.5 to 1.
        (0.5, {0.1: 50, 0.5: 90, 1: 100, math.inf: 100}, 0.1),
        (0.25, {0.1: 50, math.inf: 100}, 0.05),
        (0.99, {0.1: 50, 0.5: 90, math.inf: 100}, 0.5),  # In the bucket without an upper edge.
        (0, {0.1: 0, 0.5: 10, math.inf: 10}, math.nan),  # 0 of 0 in the first bucket.
        (0.5, {-1: 8, 1: 10, math.inf: 10}, -1),  # No lower edge to start from.
        (0.5, {1: 10, 2: 8, math.inf: 20}, 1),  # 8 after 10 is lifted to 10.
        (0.5, {0.1: 50, 0.5: 90}, math.nan),
        (0.5, {math.inf: 90}, math.nan),
        (0.5, {}, math.nan),
        (0.5, {1: 0, math.inf: 0}, math.nan),
        (0.5, {-1: 0, math.inf: 0}, math.nan),
        (math.nan, {1: 5, math.inf: 5}, math.nan),
        (-0.1, {1: 5, math.inf: 5}, -math.inf),
        (1.1, {1: 5, math.inf: 5}, math.inf),
    ],
)
def test_quantile_by_hand(q: float, buckets: Mapping[float, float], value: float) -> None:
    assert quantile(q, buckets.items()) == pytest.approx(value, rel=1e-15, nan_ok=True)


def test_quantile_is_one_per_histogram_and_ignores_what_is_no_bucket() -> None:
    bounds = {"0.1": 10, "0.5": 20, "+Inf": 20}
    store = _store(
        *[(_named("m_bucket", pod="a", le=le), [(0, count)]) for le, count in bounds.items()],
        *[(_named("m_bucket", pod="b", le=le), [(0, count * (le != "0.1"))]) for le, count in bounds.items()],
        (_named("m_bucket", pod="c", le="1_0"), [(0, 1)]),
        (_named("m_bucket", pod="d"), [(0, 1)]),
    )
    answer = evaluator.compile("histogram_quantile(0.75, m_bucket)").at(store, 0)
    assert _by("pod", answer) == {"a": pytest.approx(0.3), "b": pytest.approx(0.4)}


def _gauges() -> Store:
    values = {"a": 1.0, "b": -3.0, "c": math.nan}
    return _store(
        *[(_named("g", pod=pod, zone="z"), [(0, value)]) for pod, value in values.items()],
        (_named("limit", zone="z", tier="gold"), [(0, 2)]),
    )


@pytest.mark.parametrize(
    ("query", "by_pod"),
    [
        ("g > 0", {"a": 1}),
        ("0 < g", {"a": 1}),
        ("g > bool 0", {"a": 1, "b": 0, "c": 0}),
        ("g != g", {"c": math.nan}),
        ("-g", {"a": -1, "b": 3, "c": math.nan}),
        ("2 - g{pod=~'a|b'}", {"a": 1, "b": 5}),
        ("g{pod!~'.'}", {}),
        ("g{pod=~'|a'}", {"a": 1}),
        ("g{pod=~'a.*', nothing=''}", {"a": 1}),
        ("g{pod!='c'} % 2", {"a": 1, "b": -1}),
        ("g{pod!='c'} ^ 2 / 0", {"a": math.inf, "b": math.inf}),
        ("g{pod!='c'} ^ 0.5", {"a": 1, "b": math.nan}),
        ("(g{pod!='c'} / 0) ^ 3", {"a": math.inf, "b": -math.inf}),
        ("(g{pod!='c'} * 1e200) ^ 3", {"a": math.inf, "b": -math.inf}),
        ("0 ^ g{pod!='c'}", {"a": 0, "b": math.inf}),
        ("g / 0 % 2", {"a": math.nan, "b": math.nan, "c": math.nan}),
        ("clamp_min(g, 0)", {"a": 1, "b": 0, "c": math.nan}),
        ("clamp_min(g, Inf)", {"a": math.inf, "b": math.inf, "c": math.inf}),
        ("clamp_max(g, -1)", {"a": -1, "b": -3, "c": math.nan}),
        ("abs(g)", {"a": 1, "b": 3, "c": math.nan}),
        ("g and on(zone) limit", {"a": 1, "b": -3, "c": math.nan}),
        ("g and limit", {}),
        ("g unless g > 0", {"b": -3, "c": math.nan}),
        ("g > 0 or g < 0 or vector(5)", {"a": 1, "b": -3, "": 5}),
        ("g * on(zone) group_left(tier) limit", {"a": 2, "b": -6, "c": math.nan}),
        ("limit - on(zone) group_right g", {"a": 1, "b": 5, "c": math.nan}),
        ("g{pod='a'} / ignoring(pod, tier) limit", {"": 0.5}),
        ("sum(g{pod!='c'})", {"": -2}),
        ("max(g)", {"": 1}),
        ("min by (pod) (g)", {"a": 1, "b": -3, "c": math.nan}),
        ("avg without (pod) (g{pod!='c'})", {"": -1}),
        ("count(g)", {"": 3}),
        ("vector(scalar(limit)) + time()", {"": 7}),
        ("vector(scalar(g))", {"": math.nan}),
        ("sum(nothing) / sum(nothing)", {}),
    ],
)
def test_operators_by_hand(query: str, by_pod: Mapping[str, float]) -> None:
    assert _by("pod", evaluator.compile(query).at(_gauges(), 5)) == pytest.approx(dict(by_pod), nan_ok=True)


def test_names_and_labels_of_results() -> None:
    def labels(query: str) -> list[dict[str, str]]:
        return [dict(each) for each, _ in evaluator.compile(query).at(_gauges(), 0).samples]

    assert labels("g > 0") == [{"__name__": "g", "pod": "a", "zone": "z"}]
    assert labels("g > bool 9")[0] == {"pod": "a", "zone": "z"}
    assert labels("g{pod='a'} < on(zone) limit") == [{"zone": "z"}]
    assert labels("g{pod='a'} + on(zone) group_left(tier) limit") == [{"pod": "a", "zone": "z", "tier": "gold"}]
    assert labels("sum by (zone, nothing) (g)") == [{"zone": "z"}]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("g / on(zone) limit", r'several matches for \{zone="z"\}, allowed: one, or group_left'),
        ("limit / on(zone) g", r'two series with \{zone="z"\} on the right side'),
        ("g + on(zone) group_right limit", r'two series with \{zone="z"\} on the left side'),
    ],
)
def test_series_that_do_not_match_one_to_one_are_refused(query: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        evaluator.compile(query).at(_gauges(), 0)


def test_two_series_that_differ_in_their_name_only_are_no_result() -> None:
    twins = _store((_named("a", x="1"), [(0, 1)]), (_named("b", x="1"), [(0, 1)]))
    with pytest.raises(BadInput, match=r'query -\{x="1"\}: found two series \{x="1"\} in one result'):
        evaluator.compile('-{x="1"}').at(twins, 0)


def test_scalars() -> None:
    for query, value in {
        "-2^2": -4,
        "2^3^2": 512,
        "7 % -4": 3,
        "1 > bool 2": 0,
        "time()": 5,
        "1 / 0": math.inf,
    }.items():
        assert evaluator.compile(query).at(_gauges(), 5) == Answer("scalar", (({}, value),))
    assert math.isnan(evaluator.compile("0 / 0").at(_gauges(), 5).values[0])


def test_range_of_answers_and_range_vector() -> None:
    store = _store((_named("g", pod="a"), [(0, 1), (10, 2)]), (_named("g", pod="b"), [(10, 5)]))
    answer = evaluator.compile("g * 2").between(store, 0, 25, 10)
    assert answer == Answer(
        "matrix",
        (({"pod": "a"}, ((0, 2), (10, 4), (20, 4))), ({"pod": "b"}, ((10, 10), (20, 10)))),
    )
    assert answer.values == (2, 4, 4, 10, 10)
    assert evaluator.compile("1").between(store, 0, 1, 0.5).samples == (({}, ((0, 1), (0.5, 1), (1, 1))),)
    assert evaluator.compile('g{pod="a"}[10s]').at(store, 10).samples == ((_named("g", pod="a"), ((0, 1), (10, 2))),)
    with pytest.raises(BadInput, match="range vector"):
        evaluator.compile("g[10s]").between(store, 0, 1, 1)
    for start, end, step in ((0, 11_000, 1), (1, 0, 1), (0, 1, 0)):
        with pytest.raises(BadInput, match="11,000 answers at most"):
            evaluator.compile("g").between(store, start, end, step)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("predict_linear(g[1m], 3)", r"predict_linear\(\), which the embedded scraper does not evaluate"),
        ("topk(3, g)", r"topk\(\)"),
        ("stddev(g)", r"stddev\(\)"),
        ("absent(g)", r"absent\(\)"),
        ("g atan2 g", "atan2"),
        ("g @ 5", "@"),
        ("rate(g[1m] @ end())", "@"),
        ("max_over_time(g[5m:])", "a subquery without a step"),
        ("max_over_time(g[1h:1ms])", "a subquery of more than 11,000 steps"),
        ("-" + "(-" * 1500 + "g" + ")" * 1500, "nested too deeply"),
        ("g + fill(0) g", "fill"),
        ('g{a="1" or b="2"}', "`or` between labels"),
        ('g{a=~"(?i)x"}', r"the expression '\(\?i\)x'"),
        ('g{a=~"[[:alpha:]]"}', "the expression"),
        ('"text"', "a text"),
        ("1 + topk(1, g)", r"topk\(\)"),
        ("rate(g[{{args.window}}])", "a variable"),
        ("sum(rate(g[1m])", "no PromQL"),
    ],
)
def test_what_is_outside_is_refused_when_compiled(query: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        evaluator.compile(query)


COUNTER = st.lists(st.tuples(st.integers(1, 20_000), st.floats(0, 1e6)), min_size=2, max_size=20)


@given(steps=COUNTER)
def test_counter_never_rates_below_zero_and_increase_is_rate_times_the_range(
    steps: list[tuple[int, float]],
) -> None:
    store, t = Store(), 0
    for gap, value in steps:
        t += gap
        store.append(_named("c_total"), t / 1000, value)
    rates = evaluator.compile("rate(c_total[1m])").at(store, t / 1000).values
    increases = evaluator.compile("increase(c_total[1m])").at(store, t / 1000).values
    assert all(rate >= 0 for rate in rates)
    assert increases == pytest.approx([rate * 60 for rate in rates], rel=1e-12)


@given(
    counts=st.lists(st.integers(1, 1000), min_size=2, max_size=8),
    qs=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_quantiles_rise_with_q_and_stay_within_the_bounds(counts: list[int], qs: tuple[float, float]) -> None:
    buckets = [(float(i), float(sum(counts[:i]))) for i in range(1, len(counts))] + [(math.inf, float(sum(counts)))]
    low, high = (quantile(q, buckets) for q in sorted(qs))
    assert 0 <= low <= high + 1e-12 <= len(counts)


T0 = 1_700_000_000
INSTANTS = (T0 + 5, T0 + 33, T0 + 61.5, T0 + 100, T0 + 243.217, T0 + 400, T0 + 599, T0 + 630, T0 + 890.5, T0 + 1200)
_API = 'service="api-gateway", pod=~"api-gateway-abc-.+"'
_ERRORS = (
    f'sum(rate(http_server_requests_total{{{_API}, status=~"failed|error|5xx"}}[1m])) '
    f"/ sum(rate(http_server_requests_total{{{_API}}}[1m]))"
)
GATES = (
    _ERRORS,
    'histogram_quantile(0.95, sum by (le) (rate(http_server_request_duration_seconds_bucket{pod=~"api-.+"}[1m])))',
    "max(histogram_quantile(0.95, sum by (le) (rate(m_bucket[1m]))) / 2"
    " or histogram_quantile(0.99, sum by (le) (rate(m_bucket[1m]))) / 5)",
    'max(sum by (pod) (rate(container_cpu_usage_seconds_total{container="c"}[1m]))'
    ' / sum by (pod) (kube_pod_container_resource_limits{resource="cpu"}) / 0.85'
    " or sum by (pod) (container_memory_working_set_bytes)"
    ' / sum by (pod) (kube_pod_container_resource_limits{resource="memory"}) / 0.9)',
    f"({_ERRORS}) and on() (sum(rate(http_server_requests_total[1m])) >= 5)",
    f"({_ERRORS}) and on() (sum(rate(http_server_requests_total[1m])) >= 5e9)",
)
QUERIES = (
    *GATES,
    "m_total",
    'm_total{status!~"5xx|ok"}',
    'm_total{nope="", pod=~"x-[12]"}',
    "rate(m_total[1m])",
    "increase(m_total[77s])",
    "irate(m_total[1m])",
    "delta(g[2m])",
    "rate(m_total[1m] offset 30s)",
    "rate(m_total[3m:10s])",
    "max_over_time(rate(m_total[1m])[3m:20s])",
    "avg_over_time((g > 0)[2m:7s] offset 10s)",
    "avg_over_time(g[2m])",
    "max_over_time(g[2m])",
    "min_over_time(g[2m])",
    "sum_over_time(g[2m])",
    "count_over_time(m_total[75s])",
    'm_total{status="ok"}[1m]',
    "sum by (pod) (m_total)",
    "avg without (status) (g)",
    'sum by (__name__) ({pod="x-1"})',
    "max(g)",
    "min(g)",
    "count by (pod) (m_bucket)",
    "histogram_quantile(0.5, m_bucket)",
    "histogram_quantile(0, rate(m_bucket[1m]))",
    "histogram_quantile(1, m_bucket)",
    "histogram_quantile(2, m_bucket)",
    "histogram_quantile(NaN, m_bucket)",
    'histogram_quantile(.5, m_bucket{le!="+Inf"})',
    "histogram_quantile(.5, -m_bucket)",
    "histogram_quantile(.5, m_bucket * 0)",
    "histogram_quantile(.5, m_total)",
    "g % 3",
    "-7 % g",
    "g ^ 0.5",
    "2 ^ g",
    "g / 0",
    "(0 * g) ^ -3",
    "(g * 1e200) ^ 3 + 0 ^ g",
    "1 / ceil(g / 1000)",
    "(g / 0) % 3",
    "-2^2",
    "0 < g",
    "g > bool 0",
    "g != g",
    "m_total and on(pod) (g > 0)",
    "m_total unless on(pod) (g > 0)",
    "g > 0 or m_total",
    "m_total * on(pod) group_left(extra) one",
    "one > on(pod) group_right(extra) m_total",
    "g > on(pod) one",
    "g > bool ignoring(extra) one",
    'sum by (le) (m_bucket) / ignoring(le) group_left sum(m_bucket{le="+Inf"})',
    "clamp_min(g, 0)",
    "clamp_min(g, Inf)",
    "clamp_max(g, scalar(sum(one)))",
    "ceil(abs(g)) + floor(g)",
    "scalar(g)",
    "vector(time())",
    "sum(nothing) / sum(m_total)",
)
REFUSED = (
    "m_total / on(pod) one",
    "one / on(pod) m_total",
    "m_total + on(pod) group_left(status) one",
    'abs({pod="x-1"})',
    'histogram_quantile(0.5, {__name__=~"m_bucket|n_bucket"})',
    "m_total / on(pod) group_left(pod) one",
)


def _random_series(rng: random.Random) -> dict[tuple[tuple[str, str], ...], list[tuple[float, float]]]:
    """Counters with resets and gaps, histograms, gauges with NaN and infinity, for ten minutes at 15 s."""
    rows: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}

    def add(name: str, values: Sequence[float], **labels: str) -> None:
        phase = rng.randrange(15_000)
        missing = {i for i in range(len(values)) if rng.random() < 0.05}
        rows[tuple(sorted(_named(name, **labels).items()))] = [
            ((T0 * 1000 + phase + 15_000 * i) / 1000, value) for i, value in enumerate(values) if i not in missing
        ]

    def counter(scale: float) -> list[float]:
        values, value = [], 0.0
        for _ in range(rng.choice((25, 40))):
            value = rng.random() if rng.random() < 0.05 else value + rng.random() * scale
            values.append(value)
        return values

    for pod in ("x-1", "x-2", "y-1", "api-gateway-abc-1", "api-gateway-abc-2", "api-gateway-def-1"):
        for status in ("ok", "5xx", "failed"):
            add("m_total", counter(100), pod=pod, status=status)
            add("http_server_requests_total", counter(500), service="api-gateway", pod=pod, status=status)
        for name in ("m_bucket", "http_server_request_duration_seconds_bucket"):
            below = [0.0] * 40
            for le in ("0.1", "0.5", "1.0", "2.5", "+Inf"):
                increments = [rng.randrange(6) for _ in below]
                below = [before + sum(increments[: i + 1]) for i, before in enumerate(below)]
                add(name, below, pod=pod, le=le)
        for le in ("0.1", "+Inf"):
            add("n_bucket", counter(10), pod=pod, le=le)
        odd = (math.nan, math.inf, -math.inf) if pod == "y-1" else (0.0, 1.0)
        add("g", [rng.choice((*odd, rng.gauss(0, 10), rng.gauss(0, 10))) for _ in range(40)], pod=pod)
        add("one", [rng.random() * 100 for _ in range(40)], pod=pod, extra=f"e{pod}")
        add("container_cpu_usage_seconds_total", counter(9), pod=pod, container="c")
        add("container_memory_working_set_bytes", [rng.random() * 1e9 for _ in range(40)], pod=pod)
        if pod != "x-2":
            add("kube_pod_container_resource_limits", [0.5] * 40, pod=pod, resource="cpu")
        add("kube_pod_container_resource_limits", [1e9] * 40, pod=pod, resource="memory")
    return rows


def _open_metrics(rows: Mapping[tuple[tuple[str, str], ...], Samples]) -> str:
    lines, families = [], sorted({dict(labels)["__name__"] for labels in rows})
    for family in families:
        lines.append(f"# TYPE {family} unknown")
        for labels, samples in rows.items():
            rest = ",".join(f'{name}="{value}"' for name, value in labels if name != "__name__")
            if dict(labels)["__name__"] == family:
                lines += [f"{family}{{{rest}}} {_go(value)} {t:.3f}" for t, value in samples]
    return "\n".join([*lines, "# EOF", ""])


def _go(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value).replace("inf", "Inf")


def _flat(answer: Answer) -> dict[tuple[object, ...], float]:
    found: dict[tuple[object, ...], float] = {}
    for labels, value in answer.samples:
        key = tuple(sorted(labels.items()))
        for t, number in value if isinstance(value, tuple) else [(None, value)]:
            found[key, t] = number
    return found


@pytest.mark.real
def test_same_figures_as_prometheus(tmp_path: Path) -> None:
    program(server.PROGRAM, server.INSTALL)
    promtool = program("promtool", server.INSTALL)
    rows = _random_series(random.Random(20))
    text = tmp_path / "samples.om"
    text.write_text(_open_metrics(rows))
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(text), str(tmp_path / "prometheus" / "data")]
    subprocess.run(command, check=True, capture_output=True)
    store = _store(*[(dict(labels), samples) for labels, samples in rows.items()])
    numbers = 0
    with server.running(tmp_path / "prometheus", (), 15) as child:
        client = Prometheus(child.url)
        for query in QUERIES:
            pairs = [(client.query(query, t), evaluator.compile(query).at(store, t)) for t in INSTANTS]
            if not query.endswith("]"):
                span = (T0 + 3, T0 + 900, 37.5)
                pairs.append((client.query_range(query, *span), evaluator.compile(query).between(store, *span)))
            for theirs, ours in pairs:
                assert theirs.kind == ours.kind, query
                assert _flat(ours) == pytest.approx(_flat(theirs), rel=1e-9, abs=0, nan_ok=True), query
                numbers += len(ours.values)
        for query in REFUSED:
            with pytest.raises(BadInput):
                client.query(query, T0 + 100)
            with pytest.raises(BadInput):
                evaluator.compile(query).at(store, T0 + 100)
    assert numbers > 10_000
