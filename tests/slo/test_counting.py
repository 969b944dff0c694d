"""What is counted of an SLO: every declared one can be counted, and what is not linear is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import count_nodes as nodes
from greenops_pipelines.slo import load, profiles
from greenops_pipelines.slo.count_nodes import (
    Aggregate,
    Binary,
    Constant,
    Growth,
    Instant,
    Number,
    Present,
    Rate,
    Sampled,
)
from greenops_pipelines.slo.counting import compile_slo
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.series import Matcher, Selector
from tests.slo.counted_days import events, raw

_OPS = Path(__file__).parents[2] / "ops" / "slo-definitions"
_TOTAL = "sum(rate(t_total[{{.window}}]))"
_E, _T = Selector("e_total"), Selector("t_total")


def _declared() -> list[Slo]:
    groups = [group for path in sorted(_OPS.glob("*.yaml")) for group in load.read_file(path, profiles.PERIOD)]
    return [slo for group in groups for slo in group.slos]


def _sum(inner: nodes.Node) -> Aggregate:
    return Aggregate("sum", False, (), inner)


def test_every_declared_slo_can_be_counted() -> None:
    slos = _declared()
    compiled = [compile_slo(slo) for slo in slos]
    assert len(compiled) >= 22
    assert {each.slo_id for each in compiled if each.kind == "samples"} == {
        "api-gateway-request-volume",
        "api-gateway-cpu-saturation",
        "api-gateway-memory-saturation",
        "reporting-db-pool-health",
    }


def test_a_rate_over_the_window_is_growth() -> None:
    countable = compile_slo(events('sum(rate(e_total{code=~"5.."}[{{.window}}]))', _TOTAL))
    errors = Selector("e_total", (Matcher("code", "=~", "5.."),))
    assert (countable.kind, countable.bad, countable.total) == ("counters", _sum(Growth(errors)), _sum(Growth(_T)))
    assert countable.selectors == (errors, _T)


def test_a_subquery_by_the_minute_is_its_value_in_each_minute() -> None:
    countable = compile_slo(raw("avg_over_time(((sum(rate(t_total[5m])) or vector(0)) < bool 5)[{{.window}}:1m])"))
    rate = Rate(_T, profiles.PERIOD / 30 / 288, is_per_second=True)
    inner = Binary("<", Binary("or", _sum(rate), Constant(0)), Number(5), is_bool=True)
    assert (countable.kind, countable.bad, countable.total) == ("samples", Sampled(inner), Sampled(Present(inner)))


def test_a_filter_that_lets_nothing_through_has_counted_nothing() -> None:
    """`> 2` drops the minutes below it: of the minutes that are known, they are 0."""
    above = Binary(">", Instant(_E), Number(2), is_bool=True)
    total = "sum(count_over_time((t_total)[{{.window}}:1m]))"
    counts = compile_slo(events("sum(count_over_time((e_total > 2)[{{.window}}:1m]))", total))
    sums = compile_slo(events("sum(sum_over_time((e_total > 2)[{{.window}}:1m]))", total))
    assert counts.bad == _sum(Sampled(above))
    assert sums.bad == _sum(Sampled(Binary("*", Instant(_E), above)))


@pytest.mark.parametrize(
    ("bad", "is_zero"),
    [
        ("sum(rate(e_total[{{.window}}]))", True),
        ("2 * sum(rate(e_total[{{.window}}])) / 3", True),
        ("sum(rate(e_total[{{.window}}])) or vector(0)", True),
        ("sum(rate(t_total[{{.window}}])) - sum(rate(e_total[{{.window}}]))", False),
        ("sum(rate(e_total[{{.window}}])) + sum(rate(f_total[{{.window}}]))", False),
    ],
)
def test_no_series_is_no_event_where_only_counters_are_added_up(bad: str, is_zero: bool) -> None:
    assert nodes.is_zero_where_absent(compile_slo(events(bad, _TOTAL)).bad) is is_zero


@pytest.mark.parametrize(
    ("error", "found"),
    [
        ("sum(rate(e_total[{{.window}}])) / sum(rate(t_total[{{.window}}]))", "/ sum(rate(t_total"),
        ("max(rate(e_total[{{.window}}]))", "`max(rate(e_total{}[{{.window}}]))`"),
        ("sum(irate(e_total[{{.window}}]))", "`irate(e_total{}[{{.window}}])`"),
        ("sum(rate(e_total[5m]))", "`rate(e_total{}[5m])`"),
        ("sum(increase(e_total[{{.window}}]))", "increase beside rate"),
        ("sum(sum_over_time((up)[{{.window}}:1m]))", "a subquery beside rate"),
        ("sum(rate(e_total[{{.window}}])) + 5", "`5`"),
        ("sum(rate(e_total[{{.window}}])) or vector(1)", "`vector(1)`"),
        (
            "sum(rate(e_total[{{.window}}])) or sum(rate(f_total[{{.window}}]))",
            "`or` `sum(rate(f_total{}[{{.window}}]))`",
        ),
        ("sum(rate(e_total[{{.window}}])) > 3", "> 3`"),
        ("sum(rate(e_total[{{.window}}] offset 5m))", "an offset or @ in `e_total{} offset 5m`"),
        ('sum(rate({job="a"}[{{.window}}]))', "the selector"),
        ('sum(rate(e_total{job=~"a++"}[{{.window}}]))', "the expression 'a++'"),
        ("sum(rate(e_total[$__rate_interval]))", "a variable in error_query"),
        ("sum(rate(e_total[{{.Window}}]))", "the template action"),
        ("sum(rate(", "no PromQL"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_one_line(error: str, found: str) -> None:
    with pytest.raises(BadInput) as refused:
        compile_slo(events(error, _TOTAL))
    text = str(refused.value)
    assert text.startswith("SLO shop-availability: found ")
    assert found in text
    assert text.count("\n") == 0
    assert "{{.window}}" in text or "allowed" in text or "PromQL" in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("1 - avg_over_time((up)[{{.window}}:1m])", "`1 - avg_over_time"),
        ("2 - sum(rate(e_total[{{.window}}])) / sum(rate(t_total[{{.window}}]))", "`2 - sum"),
        ("1 - sum(rate(e_total[{{.window}}]))", "`1 - sum(rate(e_total"),
        ("1 + sum(rate(e_total[{{.window}}])) / sum(rate(t_total[{{.window}}]))", "`1 + sum"),
        ("sum(rate(e_total[{{.window}}])) / 100", "/ 100`"),
        ("1 / sum(rate(e_total[{{.window}}]))", "`1 / sum"),
        ("rate(e_total[{{.window}}]) / on (pod) rate(t_total[{{.window}}])", "/ on (pod)"),
        ("max(rate(e_total[{{.window}}])) / sum(rate(t_total[{{.window}}]))", "`max(rate(e_total{}[{{.window}}]))`"),
        ("sum(rate(e_total[{{.window}}])) / sum(increase(t_total[{{.window}}]))", "increase beside rate"),
        ("avg_over_time(up[{{.window}}])", "`avg_over_time(up{}[{{.window}}])`"),
        ("avg_over_time((up)[{{.window}}:30s])", "30s"),
        ("avg_over_time((up)[{{.window}}:])", "`avg_over_time"),
        ("avg_over_time((up)[{{.window}}:1m] offset 1h)", "an offset or @"),
        ("avg_over_time((abs(up))[{{.window}}:1m])", "`abs(up{})`"),
        ("avg_over_time((rate(e_total[11m]))[{{.window}}:1m])", "`rate(e_total{}[11m])`"),
        ("avg_over_time((a / on(pod) group_left b)[{{.window}}:1m])", "group_left"),
        ("avg_over_time((a and b)[{{.window}}:1m])", "`a{} and b{}`"),
        ("avg_over_time((topk(1, a))[{{.window}}:1m])", "`topk"),
    ],
)
def test_what_a_ratio_may_not_be(query: str, found: str) -> None:
    with pytest.raises(BadInput, match=r"^SLO shop-volume: found ") as refused:
        compile_slo(raw(query))
    assert found in str(refused.value)


@pytest.mark.parametrize(
    ("query", "is_of_good"),
    [
        ("sum(rate(e_total[{{.window}}])) / sum(rate(t_total[{{.window}}]))", False),
        ("((sum(rate(e_total[{{.window}}]))) / (sum(rate(t_total[{{.window}}]))))", False),
        ("1 - sum(rate(e_total[{{.window}}])) / sum(rate(t_total[{{.window}}]))", True),
        ("(1 - ((sum(rate(e_total[{{.window}}])) / sum(rate(t_total[{{.window}}])))))", True),
    ],
)
def test_a_ratio_of_counters_is_counted_as_what_it_divides(query: str, *, is_of_good: bool) -> None:
    countable = compile_slo(raw(query))
    named, total = _sum(Growth(_E)), _sum(Growth(_T))
    bad = Binary("-", total, named) if is_of_good else named
    assert (countable.kind, countable.bad, countable.total) == ("counters", bad, total)


def test_a_ratio_of_subqueries_is_of_samples() -> None:
    query = "sum(sum_over_time((e_total > bool 2)[{{.window}}:1m])) / sum(count_over_time((t_total)[{{.window}}:1m]))"
    countable = compile_slo(raw(query))
    assert (countable.kind, countable.total) == ("samples", _sum(Sampled(Present(Instant(_T)))))


def test_numbers_inside_are_folded() -> None:
    countable = compile_slo(raw("avg_over_time((increase(e_total[2m]) > bool (2 * -3 + 7))[{{.window}}:1m])"))
    minutes = profiles.PERIOD / 30 / 1440
    assert countable.bad == Sampled(Binary(">", Rate(_E, 2 * minutes, is_per_second=False), Number(1), is_bool=True))
