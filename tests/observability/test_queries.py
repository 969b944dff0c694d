"""Queries: variables filled in, metrics and labels known, LogQL as far as it is read."""

from __future__ import annotations

import pytest

from greenops_pipelines.errors import BadInput
from greenops_pipelines.observability import queries
from greenops_pipelines.observability.subjects import Series, Subjects

SERIES = {
    "requests_total": Series({"service": frozenset({"shop"}), "status": None, "environment": None}),
    "up": Series({"service": frozenset({"shop"}), "pod": None}),
    "slo:ratio": Series({"sloth_service": frozenset({"shop"})}, is_recorded=True),
}


def test_variables_are_filled_in() -> None:
    assert queries.filled('rate(x{service=~"$service", e="${environment:regex}"}[$__rate_interval])') == (
        'rate(x{service=~"anything", e="anything"}[5m])'
    )
    assert queries.filled('x{pod=~"a-{{args.canary-hash}}-.+"}[$timeRange]') == 'x{pod=~"a-anything-.+"}[5m]'
    with pytest.raises(BadInput, match=r"found the variable \$nobody"):
        queries.filled("rate(x[$nobody])")


@pytest.mark.parametrize(
    "query",
    [
        'sum by (service) (rate(requests_total{service="shop", environment="$environment"}[$timeRange]))',
        'slo:ratio{sloth_service=~"$service"}',
        "sum by (made) (label_replace(up, 'made', '$1', 'pod', '(.*)'))".replace("$1", "x"),
        "requests_total / on (service) group_left (pod) up",
        "avg_over_time(slo:ratio[7d:5m])",
        "count by (service) (up) unless count by (service) (up offset 10m)",
    ],
)
def test_good_queries_have_no_fault(query: str) -> None:
    assert queries.faults(query, SERIES) == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("request_total", "found the metric 'request_total'"),
        ("sum(rate(request_total[5m]))", "nearest: requests_total"),
        ('slo:ratio{environment="x"}', "'environment' of slo:ratio, which no rule records, allowed: sloth_service"),
        ('up{service="shopp"}', "found service='shopp' of up, allowed: shop"),
        ("sum by (status) (up)", "found the label 'status' in `by`"),
        ("requests_total / on (pods) up", "found the label 'pods' in `on`"),
        ("requests_total / on (service) group_left (podd) up", "'podd' in `group_left, group_right`"),
        ('{service="shop"}', "without a metric's name"),
        ("rate(up)", "found no PromQL"),
        ("up + " * 2000 + "up", "found a query of 10,002 characters"),
        ("quantile_over_time(0.9, absent[5m])", "found the metric 'absent'"),
        ("clamp_min(up, scalar(absent))", "found the metric 'absent'"),
    ],
)
def test_a_fault_of_a_query_is_named(query: str, said: str) -> None:
    found = queries.faults(query, SERIES)
    assert any(said in fault for fault in found), found


def test_metrics_of_a_query() -> None:
    assert queries.metrics("sum(rate(requests_total[5m])) / on () group_left () count(up)") == {"requests_total", "up"}


def test_series_of_the_project_know_where_environment_is(subjects: Subjects) -> None:
    """The trap: `sum` without `by` takes the label away, and external labels are not on what a server answers itself."""
    having = {name for name, each in subjects.series.items() if "environment" in each.labels}
    assert "http_server_requests_total" in having
    assert "rollout_info" in having
    assert not {name for name in having if name.startswith(("slo:", "sloth_", "ALERTS"))}
    # The profile `workbook` records these windows, and no others.
    windows = {name.removeprefix("slo:sli_error:ratio_rate") for name in subjects.series if "ratio_rate" in name}
    assert windows == {"5m", "30m", "1h", "6h", "30d"}


@pytest.mark.parametrize(
    "query",
    [
        '{service_name="shop"}',
        '{service_name=~"a|b", k8s_namespace_name!="x"} |= "timeout" != `debug` |~ "a.+b"',
        '{service_name="shop"} | json | detected_level=~"error|fatal" and status >= 500 | line_format "{{.msg}}"',
        'sum by (service_name) (count_over_time({service_name=~"$service"} | detected_level="error" [5m]))',
        'topk(3, rate({service_name="shop"} | logfmt | duration > 2s [1m]))',
    ],
)
def test_good_logql_has_no_fault(query: str) -> None:
    assert queries.log_faults(query) == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("error", "no stream selector"),
        ("{}", "in the stream selector"),
        ('{service="shop"}', "stream label 'service'"),
        ('{service_name="shop"', "in the stream selector"),
        ("{service_name=shop}", "in the stream selector"),
        ('{service_name="shop"} |= timeout', "found '|= timeout'"),
        ('{service_name="shop"} | detected_level', "found '| detected_level'"),
        ('{service_name=~"sh(op"}', "allowed: one that compiles"),
        ('{service_name="shop"} |~ "[a"', "allowed: one that compiles"),
        ('{service_name="shop"} | nonsense "x"', "line filters, json, logfmt"),
        ('{service_name="$nobody"}', "found the variable $nobody"),
    ],
)
def test_a_fault_of_logql_is_named(query: str, said: str) -> None:
    found = queries.log_faults(query)
    assert any(said in fault for fault in found), found
