"""Bad counters that vanish while requests go on, and pods whose histogram lacks the bucket: each day worked by hand."""

from __future__ import annotations

import pytest

from tests.slo.counted_days import END, Line, Told, counted, events, raw, req, steady

NOON = 12 * 3600
_CROSS = events("sum(rate(err_total[{{.window}}]))", "sum(rate(req_total[{{.window}}]))", "cross")
_LATENCY = events(
    'sum(rate(lat_count[{{.window}}])) - sum(rate(lat_bucket{le="0.5"}[{{.window}}]))',
    "sum(rate(lat_count[{{.window}}]))",
    "latency",
)
_REQUESTS: Line = ("req_total", {"instance": "lb"}, steady(60))


def _errors(until: int, instance: str = "app") -> Line:
    return "err_total", {"instance": instance}, steady(6, until=until)


def test_an_error_counter_that_was_renamed_before_the_day_is_a_fault() -> None:
    before = [("err_total", {"instance": "app"}, [(-90, 4.0), (-30, 10.0)])]
    told = Told(counted(_CROSS, [_REQUESTS], before))
    assert (told.day["total"], told.day["known_minutes"], told.day["gap_minutes"]) == (None, 0, 1440)
    assert told.day["fault"] == "found no sample of err_total since 2026-02-28T23:59:30Z"
    assert (told.day["warning"], told.day["clamped"]) == (None, None)


def test_one_that_is_renamed_at_noon_leaves_gaps_after_it() -> None:
    """Its last sample, of 12:00:00, belongs to the minute 11:59."""
    told = Told(counted(_CROSS, [_REQUESTS, _errors(NOON)]))
    assert told.gaps == list(range(720, 1440))
    assert (told[719], told.day["bad"], told.day["fault"]) == ((60, 6), 6 * 720, None)
    assert (
        told.day["warning"]
        == "found no sample of err_total since 2026-03-01T12:00:00Z, and counted no minute since then"
    )


@pytest.mark.parametrize(("until", "gaps"), [(NOON + 3600, 0), (NOON + 3660, 61)])
def test_for_an_hour_a_process_that_began_again_may_have_had_no_error(until: int, gaps: int) -> None:
    requests = ("req_total", {"instance": "lb"}, steady(60, until=until))
    told = Told(counted(_CROSS, [requests, _errors(NOON)], until_seconds=until + 1))
    assert len(told.gaps) == gaps
    assert (told.day["warning"] is None) is (gaps == 0)


def test_an_error_after_three_hours_says_that_there_was_none_before() -> None:
    """A deployment at noon, and the new pod's first error at 15:00: between them there was none."""
    late: Line = ("err_total", {"instance": "b"}, steady(6, since=15 * 3600))
    told = Told(counted(_CROSS, [_REQUESTS, _errors(NOON), late]))
    assert (told.gaps, told[800], told.day["warning"]) == ([], (60, 0), None)


def test_where_another_services_series_go_on_the_metric_was_not_renamed() -> None:
    slo = events('sum(rate(err_total{instance="app"}[{{.window}}]))', "sum(rate(req_total[{{.window}}]))")
    told = Told(counted(slo, [_REQUESTS, _errors(NOON), _errors(END, "other")]))
    assert (told.gaps, told[800], told.day["fault"]) == ([], (60, 0), None)
    assert told.day["warning"] == (
        'found no sample of err_total{instance="app"} since 2026-03-01T12:00:00Z, and counted no event of it since then'
    )


def test_a_status_that_a_restarted_pod_does_not_have_yet_is_no_fault() -> None:
    """The total's own metric. Of the day before, 5xx of pod a; since midnight pod b, without an error all day."""
    before = [req("200", [(-60, 900.0)]), req("5xx", [(-60, 7.0)])]
    told = Told(counted(events(), [req("200", steady(60), "b")], before))
    assert (told.day["total"], told.day["bad"], told.day["known_minutes"], told.day["fault"]) == (86_400, 0, 1440, None)
    assert told.day["warning"] == (
        'found no sample of req_total{status="5xx"} since 2026-02-28T23:59:00Z, and counted no event of it since then'
    )


def test_what_never_was_there_is_no_doubt() -> None:
    assert Told(counted(_CROSS, [_REQUESTS])).day["warning"] is None
    assert Told(counted(events(), [req("200", steady(60))])).day["warning"] is None


def test_where_the_total_ends_too_nothing_is_doubtful() -> None:
    told = Told(counted(_CROSS, [("req_total", {"instance": "lb"}, steady(60, until=NOON)), _errors(NOON)]))
    assert (told.gaps, told.day["warning"]) == (list(range(720, 1440)), None)


def test_good_events_that_vanish_leave_gaps_and_a_warning() -> None:
    """1 - good / all: from noon on no series of a good one, so that nobody counts; Prometheus has no value there either."""
    query = 'sum(rate(req_total{status="200"}[{{.window}}])) / sum(rate(req_total[{{.window}}]))'
    lines = [req("200", steady(60, until=NOON)), req("404", steady(6))]
    told = Told(counted(raw(f"1 - {query}"), lines))
    assert (told[719], told.gaps) == ((66, 6), list(range(720, 1440)))
    assert told.day["warning"] == (
        'found no sample of req_total{status="200"} since 2026-03-01T12:00:00Z, and counted no minute since then'
    )


def _histogram(pod: str, bound: str | None, until: int = END) -> list[Line]:
    target = {"instance": pod, "job": "shop"}
    lines: list[Line] = [("lat_count", target, steady(60))]
    return lines if bound is None else [*lines, ("lat_bucket", {**target, "le": bound}, steady(57, until=until))]


def test_requests_of_a_pod_without_the_bucket_are_unplaced() -> None:
    """Pod a: 3 of 60 too slow. Pod b has another bound: nobody knows which of its 86,400 requests were slow."""
    told = Told(counted(_LATENCY, [*_histogram("a", "0.5"), *_histogram("b", "0.75")]))
    assert (told[700], told.gaps) == ((60, 3), [])
    assert (told.day["total"], told.day["bad"]) == (86_400, 3 * 1440)
    assert (told.day["unplaced_total"], told.day["unplaced_bad"]) == (86_400, 0)
    assert told.day["warning"] == 'found no lat_bucket{le="0.5"} of b/shop: 86400 events are unplaced'


def test_from_when_on_the_bucket_is_missing() -> None:
    told = Told(counted(_LATENCY, [*_histogram("a", "0.5"), *_histogram("b", "0.5", until=NOON)]))
    assert (told[719], told[720]) == ((120, 6), (60, 3))
    assert (told.day["unplaced_total"], told.day["total"]) == (43_200, 86_400 + 43_200)


def test_of_a_histogram_without_target_labels_the_sum_is_counted() -> None:
    lines: list[Line] = [
        ("lat_count", {"service": "a"}, steady(60)),
        ("lat_count", {"service": "b"}, steady(60)),
        ("lat_bucket", {"service": "a", "le": "0.5"}, steady(57)),
    ]
    told = Told(counted(_LATENCY, lines))
    assert (told[700], told.day["warning"]) == ((120, 63), None)


def test_bad_by_good_ones_a_pod_in_outage_is_bad_and_not_unknown() -> None:
    """Pod b has no series of a good request since its restart: no histogram, all of its requests are bad."""
    slo = events(
        'sum(rate(req_total[{{.window}}])) - sum(rate(req_total{status="200"}[{{.window}}]))',
        "sum(rate(req_total[{{.window}}]))",
    )
    told = Told(counted(slo, [req("200", steady(60)), req("5xx", steady(60), "b")]))
    assert (told[700], told.day["warning"]) == ((120, 60), None)


def test_four_pods_are_named_as_three_and_one_more() -> None:
    lines = _histogram("a", "0.5") + [line for pod in "bcde" for line in _histogram(pod, None)]
    warning = Told(counted(_LATENCY, lines)).day["warning"]
    assert warning == 'found no lat_bucket{le="0.5"} of b/shop, c/shop, d/shop and 1 more: 345600 events are unplaced'


def test_a_difference_of_two_metrics_is_no_histogram() -> None:
    """The load balancer counts all, the pods the fast ones: their targets differ, and nothing is missing."""
    slo = events(
        'sum(rate(req_total[{{.window}}])) - sum(rate(lat_bucket{le="0.5"}[{{.window}}]))',
        "sum(rate(req_total[{{.window}}]))",
    )
    told = Told(counted(slo, [_REQUESTS, ("lat_bucket", {"instance": "a", "le": "0.5"}, steady(57))]))
    assert (told[700], told.day["unplaced_total"], told.day["warning"]) == ((60, 3), 0, None)
