"""The plan: figures by hand, limits, what has no forecast, no room, or no region any more."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from greenops_pipelines.carbon.factors import embodied_g_per_kwh, read_factors, values
from greenops_pipelines.carbon.regions import Region, Tenant
from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.lake.tables import CARBON_OUTLOOK
from greenops_pipelines.placement import plan as planning
from greenops_pipelines.placement.requests import Request, requests_table
from greenops_pipelines.placement.workloads import Placement
from tests.placement.small_ops import NOW, declared, small_ops

HOUR = timedelta(hours=1)
EMBODIED = embodied_g_per_kwh(values(read_factors()))
RUNNER = '{"command":["true"],"kind":"local","timeout_minutes":5}'


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Region, ...], tuple[Tenant, ...]]:
    return declared(small_ops(tmp_path_factory.mktemp("ops")))


def request(key: str = "a", **changes: object) -> Request:
    """An hour of 1 kW of the EU tenant, from now until six hours later."""
    plain = Request(
        key=key, workload="w", kind="batch", tenant="acme", service=None, submitted_at=NOW, earliest_start=NOW,
        deadline=NOW + 6 * HOUR, duration_minutes=60, power_kw=1.0, width=1, data_gb=0.0, interruptible=False,
        home_region="eu-central-1", regions=("eu-central-1", "eu-west-1", "eu-north-1"), cost_weight_g=None,
        runner=RUNNER, source="submitted",
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def outlook(hours: int = 24, **zones: list[float]) -> pa.Table:
    """DE 400, IE 300, SE-SE3 30 in every hour, US-MIDA-PJM 400; `zones` replaces the first hours of one."""
    rows = []
    for zone, level in {"DE": 400.0, "IE": 300.0, "SE-SE3": 30.0, "US-MIDA-PJM": 400.0}.items():
        known = zones.get(zone.replace("-", "_"))
        series = [level] * hours if known is None else known + [level] * (hours - len(known))
        rows += [
            {
                "zone": zone,
                "datetime": NOW + number * HOUR,
                "resolution_minutes": 60,
                "carbon_intensity_g_per_kwh": value,
                "method": "provider",
                "issued_at": NOW,
                "planned_at": NOW,
            }
            for number, value in enumerate(series)
            if not np.isnan(value)
        ]
    return pa.Table.from_pylist(rows, schema=CARBON_OUTLOOK.schema)


def made(world: tuple, requests: list[Request], known: pa.Table | None = None, **settings: object) -> planning.Plan:
    policy = Placement(**settings)  # type: ignore[arg-type]
    return planning.make(requests_table(requests), outlook() if known is None else known, *world, policy, NOW)


def test_an_hour_goes_to_the_cleanest_region_and_its_figures_add_up(world: tuple) -> None:
    [row] = made(world, [request()]).rows.to_pylist()
    assert (row["region"], row["zone"], row["state"]) == ("eu-north-1", "SE-SE3", "planned")
    assert (row["start_at"], row["end_at"]) == (NOW, NOW + HOUR)
    assert row["expected_g"] == pytest.approx(30 * 1.10 + EMBODIED)
    assert row["baseline_g"] == pytest.approx(400 * 1.35 + EMBODIED)
    assert row["avoided_g"] == pytest.approx(400 * 1.35 - 30 * 1.10)
    assert row["reason"].startswith(
        "eu-north-1 from 25 Nov 12:00 UTC: 163 g instead of 670 g at home at once, 76 % less"
    )
    assert row["plan_gap_pct"] == pytest.approx(0, abs=1e-6)


def test_a_cleaner_hour_is_waited_for_and_not_beyond_the_deadline(world: tuple) -> None:
    known = outlook(SE_SE3=[30, 30, 30, 20, 30, 30, 1])
    [row] = made(world, [request()], known).rows.to_pylist()
    assert (row["start_at"], row["end_at"]) == (NOW + 3 * HOUR, NOW + 4 * HOUR)


def test_interruptible_work_is_cut_and_all_its_runs_are_listed(world: tuple) -> None:
    known = outlook(SE_SE3=[30, 10, 30, 10, 30, 30])
    [row] = made(world, [request(duration_minutes=120, interruptible=True)], known).rows.to_pylist()
    assert json.loads(row["runs"]) == [
        {"region": "eu-north-1", "start": "2026-11-25T13:00:00Z", "end": "2026-11-25T14:00:00Z"},
        {"region": "eu-north-1", "start": "2026-11-25T15:00:00Z", "end": "2026-11-25T16:00:00Z"},
    ]
    assert "in 2 runs" in row["reason"]


def test_room_is_shared_and_width_counts(world: tuple) -> None:
    """Stockholm has room for 2 kW: of three jobs of 1 kW in one hour, one has to go elsewhere."""
    requests = [request(key, deadline=NOW + HOUR) for key in "abc"]
    plan = made(world, requests, capacity_kw={"eu-north-1": 2.0})
    assert sorted(plan.rows["region"].to_pylist()) == ["eu-north-1", "eu-north-1", "eu-west-1"]
    wide = made(world, [request(deadline=NOW + HOUR, width=3)], capacity_kw={"eu-north-1": 2.0})
    assert wide.rows["region"].to_pylist() == ["eu-west-1"]


def test_no_room_anywhere_is_late_and_says_so(world: tuple) -> None:
    limits = dict.fromkeys(("eu-central-1", "eu-west-1", "eu-north-1"), 0.5)
    [row] = made(world, [request()], capacity_kw=limits).rows.to_pylist()
    assert (row["state"], row["region"], row["start_at"]) == ("late", None, None)
    assert row["reason"] == "No room on the whole horizon: it waits for the next plan."


def test_without_any_forecast_it_runs_as_soon_as_it_may_at_home(world: tuple) -> None:
    [row] = made(world, [request(earliest_start=NOW + HOUR)], outlook(hours=0)).rows.to_pylist()
    assert (row["state"], row["region"], row["start_at"]) == ("fallback", "eu-central-1", NOW + HOUR)
    assert row["expected_g"] is None
    assert row["reason"] == "Nothing is known of its window: it runs as soon as it may, at home."


def test_a_forecast_shorter_than_the_deadline_is_planned_inside_what_is_known(world: tuple) -> None:
    known = outlook(hours=3, SE_SE3=[30, 30, 20])
    [row] = made(world, [request(deadline=NOW + 20 * HOUR)], known).rows.to_pylist()
    assert (row["state"], row["start_at"]) == ("planned", NOW + 2 * HOUR)


def test_a_gap_is_never_chosen(world: tuple) -> None:
    known = outlook(SE_SE3=[30, float("nan"), 30], DE=[400], IE=[300])
    only = request(duration_minutes=120, deadline=NOW + 3 * HOUR, regions=("eu-north-1",), home_region="eu-north-1")
    [row] = made(world, [only], known).rows.to_pylist()
    # Nothing of two hours fits around the gap.
    assert (row["state"], row["region"]) == ("fallback", "eu-north-1")


def test_what_can_no_longer_end_in_time_runs_at_home_at_once_and_what_was_launched_is_not_planned(world: tuple) -> None:
    over = request("over", earliest_start=NOW - 6 * HOUR, deadline=NOW + timedelta(minutes=59))
    plan = planning.make(requests_table([over, request("gone")]), outlook(), *world, Placement(), NOW, done={"gone"})
    [row] = plan.rows.to_pylist()
    assert (row["key"], row["state"], row["region"], row["start_at"]) == ("over", "late", "eu-central-1", NOW)
    assert row["avoided_g"] == 0
    assert row["reason"] == "Too late for its deadline: it runs in eu-central-1 as soon as there is room."


def test_launched_work_keeps_its_room(world: tuple) -> None:
    """Stockholm has room for 1 kW, and 0.5 kW of it are taken until 13:00: work of 1 kW waits, or goes to Dublin."""
    limits = {"eu-north-1": 1.0}
    taken = [planning.Busy("eu-north-1", NOW - HOUR, NOW + HOUR, 0.5)]

    def start(deadline: datetime) -> tuple[str, datetime]:
        rows = requests_table([request(deadline=deadline)])
        plan = planning.make(rows, outlook(), *world, Placement(capacity_kw=limits), NOW, busy=taken)
        return plan.rows["region"][0].as_py(), plan.rows["start_at"][0].as_py()

    assert start(NOW + 3 * HOUR) == ("eu-north-1", NOW + HOUR)
    assert start(NOW + HOUR) == ("eu-west-1", NOW)


def test_work_that_could_have_started_earlier_starts_now_at_the_earliest(world: tuple) -> None:
    now = NOW + timedelta(minutes=30)
    plan = planning.make(
        requests_table([request(earliest_start=NOW - HOUR)]), outlook(), *world, Placement(policy="run-now-home"), now
    )
    assert plan.rows["start_at"].to_pylist() == [now]


def test_residency_is_held_against_the_declarations_of_today(world: tuple) -> None:
    """Accepted for a free tenant, who has been bound since: no region is left."""
    regions, tenants = world
    loose = request(tenant="beta", regions=("us-east-1",), home_region="us-east-1")
    assert made(world, [loose]).rows["region"].to_pylist() == ["us-east-1"]
    bound = tuple(t.model_copy(update={"residency": "eu"}) if t.tenant == "beta" else t for t in tenants)
    plan = made((regions, bound), [loose])
    assert plan.rows.num_rows == 0
    assert plan.refused == {"a": "no region is left for beta: us-east-1 are not declared, or outside its area eu"}
    unknown = made(world, [request(tenant="nobody")])
    assert unknown.refused == {"a": "tenant nobody is not declared"}


def test_a_request_that_lists_a_forbidden_region_never_gets_it(world: tuple) -> None:
    """Whatever an accepted request says: candidates are today's."""
    tampered = request(regions=("us-east-1", "eu-central-1"))
    known = outlook(US_MIDA_PJM=[1.0] * 24)
    assert made(world, [tampered], known).rows["region"].to_pylist() == ["eu-central-1"]


def test_money_counts_only_with_prices_and_by_its_weight(world: tuple) -> None:
    regions, tenants = world
    with pytest.raises(ConfigurationError, match=r"no price_per_kwh for eu-central-1, eu-west-1"):
        made(world, [request(cost_weight_g=10.0)])
    prices = {"eu-north-1": "9.00", "eu-west-1": "1.00"}
    priced = tuple(r.model_copy(update={"price_per_kwh": Decimal(prices.get(r.region, "5.00"))}) for r in regions)
    # 1 kWh in Stockholm: 33 g and 9; in Dublin: 333 g and 1. The 8 are worth 300 g from 37.5 g each on.
    for weight, region in ((30.0, "eu-north-1"), (40.0, "eu-west-1")):
        assert made((priced, tenants), [request(cost_weight_g=weight)]).rows["region"].to_pylist() == [region]
    assert made((priced, tenants), [request()], policy="cost-first").rows["region"].to_pylist() == ["eu-west-1"]


def test_data_is_charged_on_the_way(world: tuple) -> None:
    """10,000 GB at 0.001 kWh/GB are 10 kWh at the mean of both ends: 2,150 g, more than Stockholm saves."""
    [row] = made(world, [request(data_gb=10_000.0)]).rows.to_pylist()
    assert row["region"] == "eu-central-1"
    assert row["reason"] == "Nowhere cleaner than at home, eu-central-1, from 25 Nov 12:00 UTC."
    [row] = made(world, [request(data_gb=100.0)]).rows.to_pylist()
    assert row["expected_g"] == pytest.approx(30 * 1.10 + EMBODIED + 0.1 * (400 + 30) / 2)


def test_a_thousand_requests_are_planned_with_a_gap_below_two_percent(world: tuple) -> None:
    draw = np.random.default_rng(3)
    requests = [
        request(
            f"job-{number}",
            duration_minutes=int(draw.integers(1, 5)) * 30,
            power_kw=float(draw.uniform(0.2, 2)),
            interruptible=bool(draw.random() < 0.5),
            deadline=NOW + timedelta(minutes=int(draw.integers(5, 40)) * 30),
        )
        for number in range(1000)
    ]
    wave = [200 + 180 * float(np.sin(hour / 4)) for hour in range(24)]
    plan = made(world, requests, outlook(SE_SE3=wave), capacity_kw={"eu-north-1": 30.0, "eu-west-1": 30.0})
    assert plan.rows.num_rows == 1000
    assert set(plan.rows["state"].to_pylist()) == {"planned"}
    assert plan.gap_pct <= 2


def test_marginal_grams_say_so_in_the_reason(world: tuple) -> None:
    rows = requests_table([request("a")])
    average = planning.make(rows, outlook(), *world, Placement(), NOW).rows.to_pylist()[0]
    marginal = planning.make(rows, outlook(), *world, Placement(), NOW, signal="marginal").rows.to_pylist()[0]
    assert (average["signal"], marginal["signal"]) == ("average", "marginal")
    assert marginal["reason"] == average["reason"] + " (marginal grams)"
    nothing = outlook().slice(0, 0)
    [unknown] = planning.make(rows, nothing, *world, Placement(), NOW, signal="marginal").rows.to_pylist()
    assert unknown["reason"] == "Nothing is known of its window: it runs as soon as it may, at home."


def test_the_plan_of_the_shipped_declarations_places_everything(tmp_path: Path) -> None:
    from greenops_pipelines.carbon.regions import read_regions, read_tenants
    from greenops_pipelines.placement.workloads import occurrences, read_workloads
    from tests.placement.small_ops import ROOT

    regions = read_regions(ROOT / "ops")
    tenants = read_tenants(ROOT / "ops", regions)
    workloads = read_workloads(ROOT / "ops")
    rows = [
        {
            "zone": region.zone, "datetime": NOW + number * HOUR, "resolution_minutes": 60,
            "carbon_intensity_g_per_kwh": 100.0 + number, "method": "ridge", "issued_at": NOW, "planned_at": NOW,
        }
        for region in regions
        for number in range(72)
    ]  # fmt: skip
    waiting = requests_table(occurrences(workloads, NOW, NOW + 48 * HOUR))
    known = pa.Table.from_pylist(rows, schema=CARBON_OUTLOOK.schema)
    plan = planning.make(waiting, known, regions, tenants, workloads.settings, NOW)
    assert plan.rows.num_rows == waiting.num_rows > 10
    assert set(plan.rows["state"].to_pylist()) == {"planned"}
    areas = {region.region: region.residency for region in regions}
    bound = {tenant.tenant for tenant in tenants if tenant.residency == "eu"}
    ran = [(row["tenant"], run["region"]) for row in plan.rows.to_pylist() for run in json.loads(row["runs"])]
    assert {areas[region] for tenant, region in ran if tenant in bound} == {"eu"}


def test_times_are_utc(world: tuple) -> None:
    elsewhere = datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert made(world, [request()]).rows["planned_at"].to_pylist() == [elsewhere]
