"""The seeded services: what their series promise, and that what was planted in them is there to be found."""

from __future__ import annotations

import subprocess
import sys
import time as clock
from datetime import date, timedelta

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES
from greenops_pipelines.slo import sample_metrics, sample_services
from greenops_pipelines.slo.catalogue import read_catalogue
from greenops_pipelines.slo.sample_incidents import (
    INCIDENTS,
    PERIOD_DAYS,
    Occurrence,
    incidents_between,
    planted,
)
from greenops_pipelines.slo.sample_metrics import SampleMetrics
from greenops_pipelines.slo.sample_pods import is_deployment, pods_between
from greenops_pipelines.slo.sample_traffic import REGIONS, SERVICES, epoch_day
from greenops_pipelines.slo.series import Matcher, Selector, series_id
from tests.slo.sample_ledger import (
    MINUTE,
    OPS,
    Floats,
    Ledger,
    Shown,
    all_selectors,
    digest,
    midnight,
    shown,
    slos,
    whole_day,
)

DAY = timedelta(days=1)
FIRST = date(2026, 10, 20)
DAYS = 35
METRICS = sorted({line.metric for s in SERVICES for line in sample_services.lines_of(s)})
EVERYTHING = tuple(Selector(metric) for metric in METRICS)
# Of each service, and of each exporter; a third of all.
PARTS = tuple(Selector(metric) for metric in METRICS if metric.endswith(("_total", "_bytes", "_in_use", "_sum")))
OVERSPENT, YELLOW = {"impact-in-delivery-workday"}, {"reporting-db-pool-health"}


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    found = Ledger()
    for n in range(DAYS):
        found.add(FIRST + n * DAY)
    return found


def occurrence(name: str) -> Occurrence:
    start = midnight(FIRST)
    (found,) = (o for o in incidents_between(start, start + 30 * DAY) if o.incident.id == name)
    return found


def day_with(name: str) -> date:
    return occurrence(name).begin.date()


def series_of(day: date, metric: str, **labels: str) -> list[Shown]:
    matchers = tuple(Matcher(name, "=", value) for name, value in sorted(labels.items()))
    return list(shown(whole_day(day, [Selector(metric, matchers)])).values())


def forget() -> None:
    sample_services.moves_of.cache_clear()
    sample_metrics._grown.cache_clear()


def test_days_are_the_same_bytes_in_any_order_and_in_another_process() -> None:
    """Six days hold deployments of all services; what was read before must not matter."""
    days = [FIRST + n * DAY for n in range(6)]
    forget()
    forwards = {day: digest(whole_day(day, PARTS)) for day in days}
    assert len(set(forwards.values())) == 6
    forget()
    assert {day: digest(whole_day(day, PARTS)) for day in reversed(days)} == forwards
    script = (
        "from tests.slo.sample_ledger import *; "
        f"print(digest(whole_day(date.fromisoformat('{days[4]}'), map(Selector, {[one.metric for one in PARTS]}))))"
    )
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=OPS.parent).stdout
    assert found.strip() == forwards[days[4]]


def test_the_figures_are_the_same_on_every_machine() -> None:
    """A changed seed or shape would silently disagree with the days that a home has already stored."""
    (found,) = series_of(FIRST, "http_server_requests_total", service="cockpit", status="success", region="us-east-1")
    # Deployed three days earlier; scraped in the 18th second of every minute.
    assert (found.labels["version"], found.labels["pod"]) == ("2026.10.17", "cockpit-bnstlz2wzw-qq2jn")
    assert found.times[:2].tolist() == [17_014_000, 77_014_000]
    assert [*found.numbers[:3], found.numbers[-1]] == [1_585_449, 1_585_986, 1_586_525, 2_403_631]


def test_the_tables_are_as_declared_and_say_that_they_are_a_sample() -> None:
    batch = whole_day(day_with("q2q-ai-pod-gap"), EVERYTHING)
    assert batch.series.schema == METRIC_SERIES.schema
    assert batch.samples.schema == METRIC_SAMPLES.schema
    for table in (batch.series, batch.samples):
        table.validate(full=True)
        assert pc.unique(table["source"]).to_pylist() == ["sample"] == [SampleMetrics.name]
        assert pc.unique(table["day"]).to_pylist() == [day_with("q2q-ai-pod-gap")]
        assert all(column.null_count == 0 for column in table.columns)
    ids, times = batch.samples["series_id"].to_numpy(), batch.samples["time"].cast("int64").to_numpy()
    steps = np.diff(ids)
    assert (steps >= 0).all()
    assert (np.diff(times)[steps == 0] > 0).all()
    for row in batch.series.to_pylist():
        own = batch.samples.filter(pc.equal(batch.samples["series_id"], row["series_id"]))
        assert row["stale_markers"] == pc.sum(own["is_stale"]).as_py()
        assert row["samples"] + row["stale_markers"] == own.num_rows
        assert (row["unusable_samples"], row["duplicate_samples"]) == (0, 0)


def test_metrics_labels_and_buckets_are_those_of_the_catalogue() -> None:
    catalogue = read_catalogue(OPS)
    everything = shown(whole_day(FIRST, EVERYTHING))
    for number, series in everything.items():
        declared = catalogue.series[series.metric]
        assert set(series.labels) <= set(declared.labels) | set(catalogue.common_labels), series.metric
        assert number == series_id(series.metric, series.labels)
        assert series.labels["environment"] == "production"
    bounds = {s.labels["le"] for s in everything.values() if s.metric == "web_vitals_inp_milliseconds_bucket"}
    # As Prometheus 2 writes them: a whole number without ".0".
    assert bounds == {"50", "100", "150", "200", "300", "500", "1000", "+Inf"}
    # One service is deployed on each day, and only its series are there twice.
    assert 320 < len(everything) < 420


def test_every_selector_of_the_slos_finds_series_and_nothing_else_is_read() -> None:
    selectors = all_selectors()
    assert len(selectors) > 30
    everything = shown(whole_day(FIRST, EVERYTHING))
    for selector in selectors:
        found = shown(whole_day(FIRST, [selector]))
        wanted = {n for n, s in everything.items() if selector.selects(s.metric, s.labels)}
        assert set(found) == wanted, selector
        assert {s.labels["region"] for s in found.values()} == set(REGIONS), selector
    together = shown(whole_day(FIRST, selectors))
    assert set(together) == {
        n for n, s in everything.items() if any(selector.selects(s.metric, s.labels) for selector in selectors)
    }
    for number, series in together.items():
        assert np.array_equal(series.values, everything[number].values)
        assert np.array_equal(series.times, everything[number].times)


def test_what_nobody_asks_for_or_emits_is_an_empty_day() -> None:
    for selectors in ([], [Selector("up")], [Selector(METRICS[0], (Matcher("region", "=", "mars"),))]):
        batch = whole_day(FIRST, selectors)
        assert (batch.series.num_rows, batch.samples.num_rows) == (0, 0)
        assert (batch.series.schema, batch.samples.schema) == (METRIC_SERIES.schema, METRIC_SAMPLES.schema)


@settings(max_examples=25)
@given(st.integers(-60, 1500 * 60), st.sampled_from(("q2q-ai-pod-gap", "reporting-gap", "api-gateway-errors")))
@example(0, "reporting-gap")
@example(86_400, "reporting-gap")
@example(1, "reporting-gap")  # before any target's first second
def test_until_only_cuts_the_end(second: int, which: str) -> None:
    day = day_with(which)
    selectors = [Selector("http_server_requests_total"), Selector("kube_pod_container_resource_limits")]
    until = midnight(day) + timedelta(seconds=second)
    whole, cut = whole_day(day, selectors), SampleMetrics().read(day, selectors, until)
    assert cut.samples.equals(whole.samples.filter(pc.less(whole.samples["time"], until)))
    assert cut.series["series_id"].to_pylist() == pc.unique(cut.samples["series_id"]).to_pylist()
    assert sum(cut.series["samples"].to_pylist()) + sum(cut.series["stale_markers"].to_pylist()) == cut.samples.num_rows


def test_a_sample_at_until_is_left_out() -> None:
    selector = Selector("web_vitals_lcp_seconds_count", (Matcher("region", "=", "us-east-1"),))
    (series,) = shown(whole_day(FIRST, [selector])).values()
    third = midnight(FIRST) + timedelta(microseconds=int(series.times[2]))
    for until, samples in ((third, 2), (third + timedelta(microseconds=1), 3)):
        assert SampleMetrics().read(FIRST, [selector], until).series["samples"].to_pylist() == [samples]


def test_counters_are_whole_and_only_grow_except_at_the_restarts_that_are_listed() -> None:
    first = day_with("api-gateway-restart") - 4 * DAY
    start, days = midnight(first), 7
    begun = {(pod.name, pod.started) for pod in pods_between(start - DAY, start + days * DAY)}
    restarts = {
        o.begin for o in incidents_between(start, start + days * DAY) if o.incident.effects[0].kind == "restart"
    }
    last: dict[int, float] = {}
    seen_restarts, first_seen = set(), set()
    for n in range(days):
        day = first + n * DAY
        for number, series in shown(whole_day(day, EVERYTHING)).items():
            if not series.metric.endswith(("_total", "_bucket", "_count", "_sum")):
                continue
            if not series.metric.endswith(("_seconds_total", "_sum")):
                assert (series.values % 1 == 0).all(), series.metric
            if number not in last and n:
                assert series.values[0] == 0, series.metric
                first_seen.add((series.labels["pod"], midnight(day) + timedelta(minutes=int(series.minutes[0]))))
            values = np.concatenate([[last.get(number, 0.0)], series.numbers])
            for index in np.flatnonzero(np.diff(values) < 0):
                seen_restarts.add(midnight(day) + timedelta(minutes=int(series.minutes[index])))
            last[number] = values[-1]
    assert seen_restarts == restarts == {occurrence("api-gateway-restart").begin}
    assert first_seen == {(pod, at) for pod, at in begun if at >= start + DAY}


def test_midnight_is_a_minute_like_any_other() -> None:
    """Of all requests of all services; a lost or doubled day would stand out a hundredfold."""
    day, tomorrow = FIRST + 4 * DAY, FIRST + 5 * DAY
    today, next_day = (shown(whole_day(d, [Selector("http_server_requests_total")])) for d in (day, tomorrow))
    checked = 0
    for number in today.keys() & next_day.keys():
        if today[number].labels["status"] == "success":
            usual = np.diff(today[number].numbers[-30:]).mean()
            over_midnight = next_day[number].numbers[0] - today[number].numbers[-1]
            assert 0.4 * usual < over_midnight < 1.6 * usual
            checked += 1
    assert checked == 10


def test_a_deployment_overlaps_and_the_old_pods_series_are_marked_as_ended() -> None:
    old: list[Shown] = []
    new: list[Shown] = []
    pod = next(p for p in pods_between(midnight(FIRST), midnight(FIRST) + DAY) if p.region == "us-east-1")
    at = pod.started.hour * 60 + pod.started.minute
    for series in series_of(FIRST, "container_memory_working_set_bytes", container=pod.service, region=pod.region):
        (new if series.labels["pod"] == pod.name else old).append(series)
    assert (len(old), len(new)) == (1, 1)
    assert old[0].minutes.tolist() == list(range(at + 1))
    assert (old[0].times[old[0].is_stale] // MINUTE).tolist() == [at + 1]
    assert new[0].minutes.tolist() == list(range(at, 1440))
    assert not new[0].is_stale.any()
    assert pod.version == f"{FIRST.year}.{FIRST.month}.{FIRST.day}"


def test_histograms_are_cumulative_and_count_what_the_requests_count() -> None:
    day = day_with("reporting-slow")
    everything = shown(whole_day(day, EVERYTHING)).values()
    by_pod: dict[tuple[object, ...], Shown] = {
        (s.metric, s.labels.get("pod"), s.labels.get("status"), s.labels.get("le")): s for s in everything
    }
    histograms = {m.removesuffix("_count") for m in METRICS if m.endswith("_count")}
    checked = 0
    for (metric, pod, status, le), count in by_pod.items():
        if le is not None or str(metric).removesuffix("_count") not in histograms or not str(metric).endswith("_count"):
            continue
        name = str(metric).removesuffix("_count")
        bounds = sorted(float(str(k[3])) for k in by_pod if k[:3] == (f"{name}_bucket", pod, status))
        assert bounds[-1] == np.inf
        names = [f"{b:g}" if b < np.inf else "+Inf" for b in bounds]
        rows = np.vstack([by_pod[f"{name}_bucket", pod, status, n].numbers for n in names])
        assert (np.diff(rows, axis=0) >= 0).all()
        # Not only in value: no event leaves a bucket.
        assert (np.diff(np.diff(rows, axis=1), axis=0) >= 0).all()
        assert np.array_equal(rows[-1], count.numbers)
        total = by_pod[f"{name}_sum", pod, status, None].numbers
        assert (np.diff(total) >= 0).all()
        assert (total <= count.numbers * 2 * bounds[-2]).all()
        if name == "http_server_request_duration_seconds":
            assert np.array_equal(count.numbers, by_pod["http_server_requests_total", pod, status, None].numbers)
        checked += 1
    # Four services with two statuses and three web vitals, in two regions, and what was deployed that day twice.
    assert checked >= 22


def test_the_sum_of_a_histogram_is_that_of_its_buckets_middles() -> None:
    """Up to 0.1 s count 0.05 s, up to 0.25 s 0.175 s, and so on; beyond 10 s 15 s."""
    middles = {"0.1": 0.05, "0.25": 0.175, "0.5": 0.375, "1": 0.75, "2": 1.5, "5": 3.5, "10": 7.5, "+Inf": 15.0}
    labels = {"service": "impact-in", "status": "success", "region": "us-east-1"}
    name = "http_server_request_duration_seconds"
    buckets = {s.labels["le"]: s.numbers[-1] for s in series_of(FIRST, f"{name}_bucket", **labels)}
    (total,) = series_of(FIRST, f"{name}_sum", **labels)
    below, expected = 0.0, 0.0
    for le, middle in middles.items():
        expected += (buckets[le] - below) * middle
        below = buckets[le]
    assert total.numbers[-1] == pytest.approx(expected, abs=1e-3)


def test_every_planted_share_is_there_to_the_event(ledger: Ledger) -> None:
    """Less than one event off in each of two regions; a histogram is one per status, and there are two of those."""
    tolerance = {"bad": 2, "slow": 4, "use": 0, "traffic": 0}
    start = midnight(FIRST)
    checked = set()
    for found in incidents_between(start, start + DAYS * DAY):
        day, first = (found.begin.date() - FIRST).days, found.incident.first
        span = slice(first, first + found.incident.minutes)
        for one in planted(found):
            bad, total = ledger.bad[one.slo][day], ledger.total[one.slo][day]
            (kind,) = {effect.kind for effect in found.incident.effects if one.slo in effect.slos}
            if one.slo == "impact-in-availability":
                # The other partners' usual failures come on top, about one in a thousand.
                assert bad[span].sum() == pytest.approx(one.share * total[span].sum(), rel=0.02)
            else:
                assert abs(bad[span].sum() - one.share * total[span].sum()) <= tolerance[kind], one
            assert total[span].sum() == pytest.approx(one.total, rel=0.1), one
            # Right before it and right after it is a day like any other.
            for minutes in (slice(span.start - 10, span.start), slice(span.stop, span.stop + 10)):
                assert bad[minutes].sum() / total[minutes].sum() < one.share / 2, one
            checked.add(one.slo)
    assert checked == {slo for i in INCIDENTS for e in i.effects for slo in e.slos}


def test_planted_figures_that_one_can_do_in_the_head(ledger: Ledger) -> None:
    def minutes_of(name: str, slo: str) -> tuple[Floats, Floats]:
        found = occurrence(name)
        day, first = (found.begin.date() - FIRST).days, found.incident.first
        span = slice(first, first + found.incident.minutes)
        return ledger.bad[slo][day][span], ledger.total[slo][day][span]

    bad, total = minutes_of("reporting-full-pool", "reporting-db-pool-health")
    assert (bad.sum(), total.sum()) == (360, 720)  # one pod of two, six hours
    bad, total = minutes_of("api-gateway-lost-traffic", "api-gateway-request-volume")
    assert (bad.sum(), total.sum()) == (25, 25)
    bad, total = minutes_of("api-gateway-errors", "api-gateway-availability")
    # Every minute of it, not only on average: one in twenty, and the reset in between loses none.
    assert (abs(bad - total / 20) < 2).all()
    assert len(bad) == 22


def test_a_months_budgets_are_mostly_green_one_yellow_and_one_overspent(ledger: Ledger) -> None:
    for first in range(DAYS - 29):
        left = {slo: ledger.left(slo, first) for slo in slos()}
        assert {slo for slo, share in left.items() if share < 0} == OVERSPENT
        assert {slo for slo, share in left.items() if 0 <= share < 0.25} == YELLOW
        assert left["reporting-db-pool-health"] == pytest.approx(1 - 360 / 432, abs=0.01)


def test_a_quiet_day_keeps_every_objective_with_room(ledger: Ledger) -> None:
    start = midnight(FIRST)
    days = {n: incidents_between(start + n * DAY, start + (n + 1) * DAY) for n in range(DAYS)}
    quiet = [n for n, found in days.items() if not found]
    assert len(quiet) > 10
    for slo in slos():
        assert min(ledger.left(slo, n, 1) for n in quiet) > 0.5, slo


def test_the_scrape_gap_is_no_sample_at_all_and_only_of_the_service() -> None:
    found = occurrence("reporting-gap")
    day, first = found.begin.date(), found.incident.first
    gap = set(range(first, first + 40))
    for metric in ("http_server_requests_total", "db_pool_connections_max", "genai_report_generation_total"):
        for series in series_of(day, metric, service="reporting"):
            assert set(range(1440)) - set((series.times // MINUTE).tolist()) == gap
            assert not series.is_stale.any()
    for series in series_of(day, "container_memory_working_set_bytes", container="reporting"):
        assert len(series.times) == 1440
    # What happened meanwhile shows in the first sample after it.
    (one,) = series_of(day, "http_server_requests_total", service="reporting", status="success", region="eu-central-1")
    growth = np.diff(one.numbers)
    assert growth[first - 1] == pytest.approx(41 * growth[first - 30 : first - 1].mean(), rel=0.1)


def test_the_failed_scrapes_of_one_pod_begin_with_the_mark_and_spare_the_other() -> None:
    found = occurrence("q2q-ai-pod-gap")
    day, first = found.begin.date(), found.incident.first
    for series in series_of(day, "llm_api_requests_total", service="q2q-ai"):
        missing = set(range(1440)) - set(series.minutes.tolist())
        marks = (series.times[series.is_stale] // MINUTE).tolist()
        if series.labels["region"] == "us-east-1":
            assert missing == set(range(first, first + 25))
            assert marks == [first]
            assert series.values[series.is_stale].tolist() == [0]
        else:
            assert (missing, marks) == (set(), [])


def test_a_container_restarts_in_the_middle_of_an_incident() -> None:
    errors, restart = occurrence("api-gateway-errors"), occurrence("api-gateway-restart")
    assert errors.begin < restart.begin < restart.end < errors.end
    first = restart.incident.first
    for series in series_of(restart.begin.date(), "http_server_requests_total", service="api-gateway"):
        falls = series.minutes[1:][np.diff(series.numbers) < 0].tolist()
        assert falls == ([first] if series.labels["region"] == "eu-central-1" else [])
        if falls and series.labels["status"] == "success":
            # It shows what came in since: a minute's worth, at 1.7 times the 1500 of the mean and its weekday.
            assert 1000 < series.numbers[first] < 4000


@given(st.dates(date(2001, 1, 1), date(2098, 1, 1)))
def test_any_thirty_days_hold_every_incident_once(day: date) -> None:
    found = incidents_between(midnight(day), midnight(day) + PERIOD_DAYS * DAY)
    assert sorted(o.incident.id for o in found) == sorted(i.id for i in INCIDENTS)
    assert [o.begin for o in found] == sorted(o.begin for o in found)
    for o in found:
        assert epoch_day(o.begin.date()) % PERIOD_DAYS == o.incident.day
        assert o.end - o.begin == timedelta(minutes=o.incident.minutes)


def test_incidents_between_is_half_open() -> None:
    one = occurrence("reporting-gap")
    second = timedelta(seconds=1)
    assert incidents_between(one.end - second, one.end) == (one,) == incidents_between(one.begin, one.begin + second)
    assert incidents_between(one.end, one.end + second) == () == incidents_between(one.begin - second, one.begin)


def test_the_calendar_is_sound() -> None:
    assert len({incident.id for incident in INCIDENTS}) == len(INCIDENTS)
    known = set(slos())
    for incident in INCIDENTS:
        assert 0 <= incident.day < PERIOD_DAYS
        # Not the day's first minute and not its last: each day's figures are its own.
        assert 0 < incident.first < incident.first + incident.minutes < 1440
        assert not is_deployment(incident.service, incident.day), incident.id
        assert {slo for effect in incident.effects for slo in effect.slos} <= known, incident.id


def test_a_day_before_1970_is_a_day_like_any_other() -> None:
    series = series_of(date(1969, 12, 30), "http_server_requests_total", service="cockpit", status="success")
    assert {s.labels["region"] for s in series} == set(REGIONS)


def test_thirty_five_days_of_all_series(record_property: object) -> None:
    """Measured and reported, not judged: machines differ."""
    forget()
    began, rows = clock.process_time(), 0
    for n in range(DAYS):
        rows += whole_day(FIRST + n * DAY, EVERYTHING).samples.num_rows
    record_property("cpu_seconds_of_35_days", clock.process_time() - began)  # type: ignore[operator]
    # 326 series of 1440 minutes on 35 days, and what the deployments and gaps add and take.
    assert rows == pytest.approx(326 * 1440 * DAYS, rel=0.02)
