"""The metrics catalogue: what a query may ask, told by name, and how many series there will be."""

from __future__ import annotations

from pathlib import Path

import pytest

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.slo.catalogue import Catalogue, expected_series, read_catalogue, series_measurement

ROOT = Path(__file__).parents[2]
SMALL = """
series_budget: 100
instances: {shop: 3, cart: 2}
common_labels: [job, pod]
metrics:
  - name: requests_total
    type: counter
    unit: requests
    labels: {service: services, status: [ok, failed], version: 1}
    services: [shop, cart]
    emitter: service
    comment: Requests.
  - name: seconds
    type: histogram
    unit: seconds
    labels: {service: services}
    buckets: [0.5, 1]
    services: [shop]
    emitter: service
    comment: Time.
  - name: queue_length
    type: gauge
    unit: jobs
    labels: {queue: 4}
    services: [cart]
    per: service
    emitter: exporter
    comment: Jobs that wait.
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    (tmp_path / "metrics.yaml").write_text(SMALL, encoding="utf-8")
    return read_catalogue(tmp_path)


@pytest.mark.parametrize(
    "query",
    [
        'sum by (status) (rate(requests_total{service="shop", pod="a"}[{{.window}}]))',
        'histogram_quantile(0.95, sum by (le) (rate(seconds_bucket{service="shop"}[$__rate_interval])))',
        "max_over_time(queue_length[1h:5m]) > 3",
        'seconds_sum / on (pod) group_left (status) requests_total{status=~"ok|failed"}',
        "sum without (pod) (queue_length) or vector(0)",
        'sum by (service) (rate(requests_total{service=~"$service", status=~"${service:regex}"}[$timeRange]))',
        'sum(rate(requests_total{service="{{args.service-name}}"}[{{ args.window }}])) > {{args.minimum}}',
        'rate(seconds_bucket{le=~"1|1[.]0"}[1m]) and on (service) requests_total{status=~"(ok|failed)", service!~"c.+"}',
        # RE2 takes it, Python does not.
        'requests_total{status=~"\\\\pL+"}',
        'label_replace(queue_length, "shop", "$1", "queue", "(.*)") * on (shop) group_left () queue_length',
    ],
)
def test_a_good_query_passes(query: str, catalogue: Catalogue) -> None:
    assert catalogue.check(query, "here") == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("rate(request_total[5m])", "found the metric 'request_total'"),
        ("rate(request_total[5m])", "nearest: requests_total"),
        ('requests_total{state="ok"}', "'state'"),
        ("sum by (zone) (queue_length)", "'zone'"),
        ("queue_length / on (zone) requests_total", "'zone'"),
        ('requests_total{status="fine"}', "'fine'"),
        ('requests_total{service="cat"}', "'cat'"),
        ("rate(seconds[5m])", "allowed: seconds_bucket, seconds_sum or seconds_count"),
        ('rate(seconds_bucket{le="0.7"}[5m])', "'0.7'"),
        ("sum(rate(requests_total[5m])", "here: found no PromQL"),
        ('requests_total{status=~"ok|faild"}', "found status='faild'"),
        ('requests_total{status!="faild"}', "found status='faild'"),
        ('requests_total{service="$team"}', "found service='$team'"),
        ("sum by (pod) (sum by (service) (requests_total))", "found the label 'pod' in `by`, allowed: service"),
        ("rate(queue_length[5m])", "found rate() of the gauge queue_length"),
        ('{__name__=~"requests.*"}', "without a metric"),
        ('requests_total{status="ok" or service="shop"}', "found `or` between the matchers"),
        pytest.param("(" * 5000 + "up" + ")" * 5000, "found a query of 10,002 characters, allowed: at most", id="long"),
        pytest.param("1" + "+1" * 3000, "nested too deep", id="deep"),
        ("max_over_time((rate(request_total[5m]))[1h:1m])", "'request_total'"),
    ],
)
def test_what_the_catalogue_does_not_know_is_named(query: str, said: str, catalogue: Catalogue) -> None:
    found = catalogue.check(query, "here")
    assert len(found) == 1, found
    assert found[0].startswith("here: ")
    assert said in found[0]


def test_series_are_labels_times_instances_and_recordings(catalogue: Catalogue) -> None:
    # shop: 2 status x 3 instances, and (2 buckets + Inf + sum + count) x 3; cart: 2 status x 2, and 4 queues once.
    assert expected_series(catalogue, {"shop": 7}) == {"shop": 6 + 15 + 7, "cart": 4 + 4}
    measured = series_measurement(catalogue, {"shop": 7})
    assert (measured.measured, measured.target, measured.outcome) == (36, 100, "passed")
    assert series_measurement(catalogue, {"shop": 80}).outcome == "failed"


def test_the_projects_own_catalogue_knows_the_metrics_of_the_requirements() -> None:
    known = read_catalogue(ROOT / "ops").series
    for name in (
        "http_server_requests_total", "http_server_request_duration_seconds_bucket", "llm_api_requests_total",
        "q2q_evidence_classification_total", "genai_report_generation_total", "impact_in_delivery_total",
        "web_vitals_lcp_seconds_bucket", "web_vitals_inp_milliseconds_bucket", "web_vitals_cls_score_bucket",
    ):  # fmt: skip
        assert name in known
    assert known["impact_in_delivery_total"].labels["platform"] == {"benevity", "goodera", "workday"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("buckets: [0.5, 1]", "buckets: [1, 0.5]", "metrics[1].buckets"),
        ("buckets: [0.5, 1]", "per: instance", "metrics[1].buckets"),
        ("services: [shop]\n", "services: [shoe]\n", "metrics[1].services[0]: found 'shoe'"),
        ("name: queue_length", "name: requests_total", "metrics[2].name"),
        ("{queue: 4}", "{pod: 4}", "metrics[2].labels.pod"),
        ("type: gauge", "type: summary", "metrics[2].type: found 'summary'"),
    ],
)
def test_a_fault_in_the_file_is_one_line_with_its_place(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in SMALL
    (tmp_path / "metrics.yaml").write_text(SMALL.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        read_catalogue(tmp_path)
    assert said in str(refused.value)
    assert "metrics.yaml:" in str(refused.value)
