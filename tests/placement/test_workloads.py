"""The declared workloads: the shipped file, figures by hand, and every way the file can be wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from textwrap import indent

import pytest

from greenops_pipelines.errors import BadInput, ConfigurationError
from greenops_pipelines.lake.tables import PLACEMENT_REQUESTS, WORKLOADS
from greenops_pipelines.placement.requests import Request, requests_table
from greenops_pipelines.placement.workloads import Workloads, occurrences, read_workloads, workloads_table
from tests.placement.small_ops import ROOT, small_ops

MIDNIGHT = datetime(2026, 11, 25, tzinfo=UTC)
DAY = timedelta(days=1)
HEAD = """\
placement:
  horizon_hours: 24
  rtt_ms:
    eu-central-1: {eu-west-1: 25, eu-north-1: 24, eu-west-2: 15}
workloads:
"""
FIELDS = {
    "workload": "nightly",
    "kind": "etl",
    "tenant": "acme",
    "cron": '"0 2 * * *"',
    "window_minutes": "240",
    "duration_minutes": "60",
    "power_kw": "0.5",
    "runner": "{kind: local, command: [python3, -c, pass], timeout_minutes: 90}",
}
ALL = "eu-central-1, eu-north-1, eu-west-1, eu-west-2, us-east-1"
CRON = "five fields (minute hour day month weekday, UTC) such as '30 1 * * 1-5'"
POWER = "either power_kw, or any of vcpus, memory_gb, gpus"


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def workload(**changes: str | None) -> str:
    """An item of the list whose first field, the name, stands in its first line; None takes a field away."""
    fields = FIELDS | changes
    lines = "\n".join(f"{name}: {value}" for name, value in fields.items() if value is not None)
    return "  - " + indent(lines, "    ").lstrip() + "\n"


def read(*items: str, head: str = HEAD) -> Workloads:
    ops = small_ops(Path("ops"), head + "".join(items))
    return read_workloads(ops)


def refusal(*items: str, head: str = HEAD) -> str:
    with pytest.raises(ConfigurationError) as error:
        read(*items, head=head)
    return str(error.value)


def keys(workloads: Workloads, start: datetime, end: datetime) -> list[str]:
    return [request.key for request in occurrences(workloads, start, end)]


def test_the_shipped_workloads_are_ten_and_bound_ones_stay_in_their_area() -> None:
    workloads = read_workloads(ROOT / "ops")
    area = workloads.declarations.area_of
    bound = {tenant.tenant: tenant.residency for tenant in workloads.declarations.tenants}
    assert len(workloads.workloads) == 10
    assert {each.work.kind for each in workloads.workloads} == {"batch", "embeddings", "etl"}
    assert {each.work.runner.kind for each in workloads.workloads} == {"local", "kubernetes"}
    assert {each.work.interruptible for each in workloads.workloads} == {True, False}
    in_eu = {each.name for each in workloads.workloads if {area[r] for r in each.resolved.regions} == {"eu"}}
    assert in_eu == {each.name for each in workloads.workloads if bound[each.work.tenant] == "eu"}
    assert len(in_eu) == 4
    # From Thursday midnight to the next: five are daily (one of them four times a day), one is for the evenings before
    # working days, one for Fridays, one for Mondays, one for working days, one for the first of the month, and one once.
    week = occurrences(workloads, datetime(2026, 11, 26, tzinfo=UTC), datetime(2026, 12, 3, tzinfo=UTC))
    counted = {each.name: sum(r.workload == each.name for r in week) for each in workloads.workloads}
    assert counted == {
        "claims-embeddings": 7,
        "end-of-day-risk": 5,
        "grid-telemetry-etl": 28,
        "route-optimisation": 5,
        "catalogue-embeddings": 7,
        "demand-forecast": 1,
        "claims-etl": 7,
        "weekly-board-report": 1,
        "impact-model-training": 1,
        "archive-reencoding": 1,
    }


def test_latency_leaves_the_regions_that_keep_it() -> None:
    workloads = read_workloads(ROOT / "ops")
    risk = next(each for each in workloads.workloads if each.name == "end-of-day-risk")
    # Of the limit of 20 ms London is nearer than Milan (15 ms), and in another area.
    assert risk.resolved.regions == ("eu-central-1", "eu-west-3", "eu-south-1")


def test_power_is_computed_with_the_emission_factors() -> None:
    def power(**fields: str) -> float:
        (only,) = read(workload(power_kw=None, **fields)).workloads
        return only.resolved.power_kw

    # 0.74 + (3.5 - 0.74) x 0.5 = 2.12 W per vCPU; 0.392 W per GB; 18 + (153 - 18) x 0.5 = 85.5 W per GPU.
    assert power(vcpus="4") == pytest.approx(0.00848, rel=1e-12)
    assert power(memory_gb="16") == pytest.approx(0.006272, rel=1e-12)
    assert power(gpus="2") == pytest.approx(0.171, rel=1e-12)
    assert power(vcpus="4", memory_gb="16", gpus="2") == pytest.approx(0.185752, rel=1e-12)
    assert power(vcpus="4", gpus="0") == pytest.approx(0.00848, rel=1e-12)
    assert read(workload()).workloads[0].resolved.power_kw == 0.5


def test_an_occurrence_is_the_request_a_person_would_write() -> None:
    workloads = read(workload(service="reporting", width="3", data_gb="1.5", cost_weight_g="7", max_rtt_ms="24"))
    assert occurrences(workloads, MIDNIGHT, MIDNIGHT + DAY) == [
        Request(
            key="nightly:2026-11-25T02:00Z",
            workload="nightly",
            kind="etl",
            tenant="acme",
            service="reporting",
            submitted_at=datetime(2026, 11, 24, 2, tzinfo=UTC),
            earliest_start=datetime(2026, 11, 25, 2, tzinfo=UTC),
            deadline=datetime(2026, 11, 25, 6, tzinfo=UTC),
            duration_minutes=60,
            power_kw=0.5,
            width=3,
            data_gb=1.5,
            interruptible=False,
            home_region="eu-central-1",
            regions=("eu-central-1", "eu-north-1"),
            cost_weight_g=7.0,
            runner='{"command":["python3","-c","pass"],"kind":"local","timeout_minutes":90}',
            source="declared",
        )
    ]


def test_the_start_of_a_range_belongs_to_it_and_the_end_does_not() -> None:
    workloads, two = read(workload()), datetime(2026, 11, 25, 2, tzinfo=UTC)
    assert keys(workloads, two, two + 2 * DAY) == ["nightly:2026-11-25T02:00Z", "nightly:2026-11-26T02:00Z"]
    assert keys(workloads, two + timedelta(microseconds=1), two + DAY) == []
    assert keys(workloads, two + timedelta(seconds=30), two + DAY + timedelta(seconds=1)) == [
        "nightly:2026-11-26T02:00Z"
    ]
    assert keys(workloads, two, two) == keys(workloads, two + DAY, two) == []


def test_adjoining_ranges_tell_every_occurrence_once() -> None:
    workloads = read(workload(cron='"*/7 3-5 * * *"'))
    step = timedelta(minutes=11)
    parts = [keys(workloads, MIDNIGHT + n * step, MIDNIGHT + (n + 1) * step) for n in range(131)]
    whole = keys(workloads, MIDNIGHT, MIDNIGHT + 131 * step)
    assert [key for part in parts for key in part] == whole
    assert len(whole) == 27


def test_cron_is_utc_also_in_the_night_when_europe_changes_its_clocks() -> None:
    workloads, berlin = read(workload(cron='"30 2 * * *"')), timezone(timedelta(hours=2))
    asked = (datetime(2026, 10, 24, 2, tzinfo=berlin), datetime(2026, 10, 27, 2, tzinfo=berlin))
    assert keys(workloads, *asked) == [f"nightly:2026-10-{day}T02:30Z" for day in (24, 25, 26)]


def test_work_that_is_due_once_occurs_once() -> None:
    workloads = read(workload(cron=None, earliest_start="2026-11-25T03:00:00+01:00"))
    assert workloads.workloads[0].recurrence == "once 2026-11-25T02:00Z"
    assert keys(workloads, MIDNIGHT - 100 * DAY, MIDNIGHT + 100 * DAY) == ["nightly:2026-11-25T02:00Z"]
    assert keys(workloads, MIDNIGHT + DAY, MIDNIGHT + 2 * DAY) == []


def test_occurrences_come_in_the_order_of_time_and_key() -> None:
    workloads = read(workload(workload="b"), workload(workload="a"), workload(workload="c", cron='"0 1 * * *"'))
    found = keys(workloads, MIDNIGHT, MIDNIGHT + DAY)
    assert found == ["c:2026-11-25T01:00Z", "a:2026-11-25T02:00Z", "b:2026-11-25T02:00Z"]


def test_a_time_without_a_zone_asks_for_nothing() -> None:
    naive = MIDNIGHT.replace(tzinfo=None)
    with pytest.raises(BadInput) as error:
        occurrences(read(workload()), MIDNIGHT, naive)
    expected = "occurrences: end: found 2026-11-25 00:00:00 (no zone), allowed: a time with a zone"
    assert str(error.value) == expected


def test_rows_fit_the_lakes_tables() -> None:
    image = "{kind: kubernetes, image: 'ghcr.io/a/b:1', namespace: batch}"
    workloads = read(workload(cron='"0  2 * *   1"'), workload(workload="once", cron=None, tenant="beta",
        earliest_start="2026-11-25T02:00:00Z", regions="[us-east-1, eu-west-2]", runner=image))  # fmt: skip
    table = workloads_table(workloads)
    assert table.schema.equals(WORKLOADS.schema, check_metadata=True)
    first, second = table.to_pylist()
    assert first == {
        "workload": "nightly",
        "kind": "etl",
        "tenant": "acme",
        "service": None,
        "recurrence": "cron 0 2 * * 1",
        "duration_minutes": 60,
        "window_minutes": 240,
        "power_kw": 0.5,
        "width": 1,
        "data_gb": 0.0,
        "interruptible": False,
        "home_region": "eu-central-1",
        "regions": "eu-central-1,eu-west-1,eu-north-1",
        "runner": '{"command":["python3","-c","pass"],"kind":"local","timeout_minutes":90}',
        "cost_weight_g": None,
    }
    assert (second["recurrence"], second["regions"]) == ("once 2026-11-25T02:00Z", "eu-west-2,us-east-1")
    assert second["runner"] == '{"image":"ghcr.io/a/b:1","kind":"kubernetes","namespace":"batch"}'
    requests = requests_table(occurrences(workloads, MIDNIGHT, MIDNIGHT + 7 * DAY))
    assert requests.schema.equals(PLACEMENT_REQUESTS.schema, check_metadata=True)
    assert requests["key"].to_pylist() == ["once:2026-11-25T02:00Z", "nightly:2026-11-30T02:00Z"]
    assert requests["regions"].to_pylist() == ["eu-west-2,us-east-1", "eu-central-1,eu-west-1,eu-north-1"]
    assert requests["accepted_at"].to_pylist() == [None, None]
    assert workloads_table(read("  []\n")).schema.equals(WORKLOADS.schema)


def test_a_window_may_be_as_short_as_the_work() -> None:
    workloads = read(workload(window_minutes="60"))
    (request,) = occurrences(workloads, MIDNIGHT, MIDNIGHT + DAY)
    assert request.deadline - request.earliest_start == timedelta(minutes=request.duration_minutes)


def test_a_file_without_a_placement_section_has_its_defaults() -> None:
    settings = read(workload(), head="workloads:\n").settings
    assert (settings.policy, settings.cost_weight_g, settings.horizon_hours) == ("optimal", 0.0, 48)
    assert (settings.capacity_kw, settings.rtt_ms) == ({}, {})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"workload": "Nightly"}, "6: workloads[0].workload: found 'Nightly', allowed: text of at most 63 characters that matches ^[a-z][a-z0-9]*(-[a-z0-9]+)*$, such as nightly-embeddings"),
        ({"kind": "stream"}, "7: workloads[0].kind: found 'stream', allowed: one of 'batch', 'embeddings', 'etl'"),
        ({"tenant": "gamma"}, "8: workloads[0].tenant: found 'gamma', allowed: a tenant of tenants.yaml: acme, beta"),
        ({"cron": '"0 2 * *"'}, f"9: workloads[0].cron: found '0 2 * *', allowed: {CRON}"),
        ({"cron": '"0 0 2 * * *"'}, f"9: workloads[0].cron: found '0 0 2 * * *', allowed: {CRON}"),
        ({"cron": '"@daily"'}, f"9: workloads[0].cron: found '@daily', allowed: {CRON}"),
        ({"cron": '"60 2 * * *"'}, f"9: workloads[0].cron: found '60 2 * * *', allowed: {CRON}; the minute is wrong"),
        ({"cron": '"0 2 * * MON#1/2"'}, f"9: workloads[0].cron: found '0 2 * * MON#1/2', allowed: {CRON}; the day-of-week is wrong"),
        ({"cron": '"0 2 30 2 *"'}, f"9: workloads[0].cron: found '0 2 30 2 *', allowed: {CRON}; the day-of-month is wrong"),
        ({"cron": '"0 0 */40 * MON#2"'}, f"9: workloads[0].cron: found '0 0 */40 * MON#2', allowed: {CRON}; such a day does not come within 50 years"),
        ({"earliest_start": "2026-11-25T02:00:00Z"}, "6: workloads[0]: found both, allowed: either cron (recurring) or earliest_start (once)"),
        ({"cron": None}, "6: workloads[0]: found neither, allowed: either cron (recurring) or earliest_start (once)"),
        ({"cron": None, "earliest_start": "2026-11-25T02:00:00"}, "13: workloads[0].earliest_start: found '2026-11-25T02:00:00', allowed: a time with a zone, such as 2026-11-25T02:00:00Z"),
        ({"cron": None, "earliest_start": "2026-11-25"}, "13: workloads[0].earliest_start: found '2026-11-25', allowed: a time with a zone, such as 2026-11-25T02:00:00Z"),
        ({"cron": None, "earliest_start": "1764036000"}, "13: workloads[0].earliest_start: found 1764036000, allowed: a time with a zone, such as 2026-11-25T02:00:00Z"),
        ({"cron": None, "earliest_start": "2026-11-25T02:00:30Z"}, "13: workloads[0].earliest_start: found '2026-11-25T02:00:30Z', allowed: a time on a full minute, such as 2026-11-25T02:00:00Z"),
        ({"cron": None, "earliest_start": "9999-12-31T23:59:00Z"}, "13: workloads[0].earliest_start: found '9999-12-31T23:59:00Z', allowed: a time from 2000 to 2099, such as 2026-11-25T02:00:00Z"),
        ({"window_minutes": "59"}, "10: workloads[0].window_minutes: found 59, allowed: at least duration_minutes, 60"),
        ({"window_minutes": "-240"}, "10: workloads[0].window_minutes: found -240, allowed: a whole number > 0 and <= 44640"),
        ({"duration_minutes": "0"}, "11: workloads[0].duration_minutes: found 0, allowed: a whole number > 0 and <= 10080"),
        ({"duration_minutes": "10081"}, "11: workloads[0].duration_minutes: found 10081, allowed: a whole number > 0 and <= 10080"),
        ({"power_kw": "-0.5"}, "12: workloads[0].power_kw: found -0.5, allowed: a number > 0 or no value"),
        ({"power_kw": "0"}, "12: workloads[0].power_kw: found 0, allowed: a number > 0 or no value"),
        ({"vcpus": "2", "gpus": "1"}, f"6: workloads[0]: found power_kw beside vcpus, gpus, allowed: {POWER}"),
        ({"power_kw": None}, f"6: workloads[0]: found neither, allowed: {POWER}"),
        ({"power_kw": None, "vcpus": "0"}, f"6: workloads[0]: found only 0 for vcpus, allowed: {POWER}"),
        ({"power_kw": None, "vcpus": "-1"}, "13: workloads[0].vcpus: found -1, allowed: a number >= 0 or no value"),
        ({"runner": "{kind: docker}"}, "13: workloads[0].runner: found no kind or an unknown one, allowed: local, kubernetes"),
        ({"runner": "{command: [true]}"}, "13: workloads[0].runner: found no kind or an unknown one, allowed: local, kubernetes"),
        ({"runner": "{kind: local, command: [], timeout_minutes: 5}"}, "13: workloads[0].runner.command: found an empty list, allowed: a list of at least 1 item or no value"),
        ({"runner": "{kind: local, command: [sleep, 5], timeout_minutes: 5}"}, r"13: workloads[0].runner.command[1]: found 5, allowed: text that matches ^[^\x00]*$; put it in quotes"),
        ({"runner": "{kind: kubernetes, image: a, namespace: B}"}, "13: workloads[0].runner.namespace: found 'B', allowed: text of at most 63 characters that matches ^[a-z0-9]([a-z0-9-]*[a-z0-9])?$, such as batch"),
        ({"width": "0"}, "14: workloads[0].width: found 0, allowed: a whole number >= 1 and <= 100000"),
        ({"data_gb": "-1"}, "14: workloads[0].data_gb: found -1, allowed: a number >= 0"),
        ({"regions": "[]"}, "14: workloads[0].regions: found an empty list, allowed: a list of at least 1 item or no value"),
        ({"regions": "[eu-mars-1]"}, f"14: workloads[0].regions[0]: found 'eu-mars-1', allowed: a region of regions.yaml: {ALL}"),
        ({"regions": "[eu-west-1, us-east-1]"}, "14: workloads[0].regions[1]: found 'us-east-1', allowed: a region with residency eu, as the tenant's: eu-central-1, eu-north-1, eu-west-1"),
        ({"regions": "[eu-west-1, eu-west-1]"}, "14: workloads[0].regions[1]: found 'eu-west-1', allowed: each region once"),
        ({"home_region": "eu-west-2"}, "14: workloads[0].home_region: found 'eu-west-2', allowed: a region with residency eu, as the tenant's: eu-central-1, eu-north-1, eu-west-1"),
        ({"regions": "[eu-west-1]", "max_rtt_ms": "24.5"}, "15: workloads[0].max_rtt_ms: found 24.5, allowed: a limit that one of the regions keeps; rtt_ms from eu-central-1: eu-north-1 24, eu-west-1 25, eu-west-2 15"),
        ({"home_region": "eu-west-1", "regions": "[eu-north-1]", "max_rtt_ms": "90"}, "16: workloads[0].max_rtt_ms: found 90, allowed: a limit that one of the regions keeps; rtt_ms from eu-west-1: none is declared"),
        ({"colour": "green"}, "14: workloads[0].colour: found an unknown field, allowed: workload, kind, tenant, service, duration_minutes, window_minutes, power_kw, vcpus, memory_gb, gpus, width, data_gb, interruptible, regions, home_region, max_rtt_ms, cost_weight_g, runner, cron, earliest_start"),
    ],
)  # fmt: skip
def test_a_wrong_workload_is_refused_at_its_line(changes: dict[str, str | None], line: str) -> None:
    assert refusal(workload(**changes)) == f"ops/workloads.yaml:{line}"


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("policy: best", "2: placement.policy: found 'best', allowed: one of 'optimal', 'greedy', 'carbon-first', 'cost-first', 'run-now-home'"),
        ("cost_weight_g: -1", "2: placement.cost_weight_g: found -1, allowed: a number >= 0"),
        ("horizon_hours: 169", "2: placement.horizon_hours: found 169, allowed: a whole number >= 1 and <= 168"),
        ("capacity_kw: {eu-west-1: -3}", "2: placement.capacity_kw.eu-west-1: found -3, allowed: a number >= 0"),
        ("capacity_kw: {eu-mars-1: 3}", f"2: placement.capacity_kw: found 'eu-mars-1', allowed: a region of regions.yaml: {ALL}"),
        ("rtt_ms: {eu-mars-1: {}}", f"2: placement.rtt_ms: found 'eu-mars-1', allowed: a region of regions.yaml: {ALL}"),
        ("rtt_ms: {eu-west-1: {eu-mars-1: 3}}", f"2: placement.rtt_ms.eu-west-1: found 'eu-mars-1', allowed: a region of regions.yaml: {ALL}"),
        ("rtt_ms: {eu-west-1: {eu-west-2: x}}", "2: placement.rtt_ms.eu-west-1.eu-west-2: found 'x', allowed: a number >= 0"),
        ("capacity: {}", "2: placement.capacity: found an unknown field, allowed: policy, cost_weight_g, horizon_hours, capacity_kw, rtt_ms; did you mean capacity_kw?"),
    ],
)  # fmt: skip
def test_a_wrong_placement_section_is_refused_at_its_line(section: str, line: str) -> None:
    assert refusal(head=f"placement:\n  {section}\nworkloads: []\n") == f"ops/workloads.yaml:{line}"


def test_all_faults_between_files_are_told_together() -> None:
    lines = refusal(
        workload(tenant="gamma", window_minutes="5"),
        workload(),
        workload(regions="[us-east-1]"),
        head="placement: {capacity_kw: {eu-mars-1: 1}}\nworkloads:\n",
    ).splitlines()
    place = "ops/workloads.yaml"
    assert lines == [
        f"{place}:1: placement.capacity_kw: found 'eu-mars-1', allowed: a region of regions.yaml: {ALL}",
        f"{place}:5: workloads[0].tenant: found 'gamma', allowed: a tenant of tenants.yaml: acme, beta",
        f"{place}:7: workloads[0].window_minutes: found 5, allowed: at least duration_minutes, 60",
        f"{place}:11: workloads[1].workload: found 'nightly', allowed: each workload once",
        f"{place}:19: workloads[2].workload: found 'nightly', allowed: each workload once",
        f"{place}:27: workloads[2].regions[0]: found 'us-east-1', allowed: a region with residency eu, as the tenant's: eu-central-1, eu-north-1, eu-west-1",
    ]
