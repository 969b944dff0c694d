"""What launched work saved, by actuals: figures worked by hand, equal to the plan's where all came as forecast."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from greenops_pipelines.carbon.regions import Region
from greenops_pipelines.lake.tables import PLACEMENT_ATTEMPTS, PLACEMENT_DISPATCHES
from greenops_pipelines.placement import dispatches, settlement
from greenops_pipelines.placement import plan as planning
from greenops_pipelines.placement.requests import Request, requests_table
from greenops_pipelines.placement.workloads import Placement
from tests.placement.small_ops import NOW, declared, small_ops
from tests.placement.test_plan import EMBODIED, HOUR, outlook, request

MINUTE = timedelta(minutes=1)


@pytest.fixture
def world(tmp_path: Path) -> tuple:
    return declared(small_ops(tmp_path / "ops"))


def actuals(known: pa.Table, **changes: Any) -> pa.Table:
    """The values of an outlook, as they came."""
    rows = known.select(["zone", "datetime", "resolution_minutes", "carbon_intensity_g_per_kwh"])
    rows = rows.append_column(
        "is_estimated", pa.array([changes.get("is_estimated", False)] * rows.num_rows, pa.bool_())
    )
    return rows.append_column("observed_at", pa.array([NOW + 30 * HOUR] * rows.num_rows, known["datetime"].type))


def decided(world: tuple, work: Request, known: pa.Table) -> dict[str, Any]:
    regions, tenants = world
    [planned] = planning.make(requests_table([work]), known, regions, tenants, Placement(), NOW).rows.to_pylist()
    return dispatches.decision(work, planned, regions, tenants, None, NOW)


def tried(row: dict[str, Any], *runs: tuple[str, datetime, datetime | None, str]) -> pa.Table:
    """Attempts: region, begin, end, outcome."""
    common = {"key": row["key"], "workload": "w", "tenant": row["tenant"], "zone": "", "runner": "local", "run_id": ""}
    rows = [
        common
        | {"attempt": number, "region": region, "began_at": begin, "ended_at": end, "outcome": outcome}
        | {"exit_code": None, "deadline": row["deadline"], "detail": ""}
        for number, (region, begin, end, outcome) in enumerate(runs, 1)
    ]
    return pa.Table.from_pylist(rows, schema=PLACEMENT_ATTEMPTS.schema)


def settled(regions: tuple[Region, ...], row: dict[str, Any], attempts: pa.Table, came: pa.Table) -> dict[str, Any]:
    rows = pa.Table.from_pylist([row], schema=PLACEMENT_DISPATCHES.schema)
    [found] = settlement.settle(rows, attempts, came, regions, "file").to_pylist()
    return found


@pytest.mark.parametrize("interruptible", [False, True])
def test_what_came_as_it_was_forecast_settles_as_it_was_planned(world: tuple, interruptible: bool) -> None:
    """Two hours with data to move, in the cleanest hours of Stockholm: expected, baseline and saving are the plan's."""
    known = outlook(SE_SE3=[30, 30, 10, 30, 10, 30, 30])
    work = request(duration_minutes=120, interruptible=interruptible, data_gb=7.0)
    row = decided(world, work, known)
    runs = [(region, start, end, "paused") for region, start, end in dispatches.planned_runs(row)]
    runs[-1] = (*runs[-1][:3], "succeeded")
    assert len(runs) == (2 if interruptible else 1)
    found = settled(world[0], row, tried(row, *runs), actuals(known))
    assert (found["state"], found["region"], found["ran_minutes"]) == ("settled", "eu-north-1", 120)
    assert found["actual_g"] == pytest.approx(row["expected_g"])
    assert found["counterfactual_g"] == pytest.approx(row["baseline_g"])
    assert found["avoided_g"] == pytest.approx(row["avoided_g"]) == pytest.approx(found["expected_avoided_g"])
    assert (found["wasted_g"], found["is_estimated"]) == (0, False)


def test_parts_of_hours_count_by_the_minute(world: tuple) -> None:
    """1 kW in Dublin (PUE 1.11) from 13:40 to 14:10, at 300 g and then 600 g; at home (1.35) half an hour of 400 g."""
    known = outlook(IE=[300, 300, 600])
    row = decided(world, request(duration_minutes=30), known)
    begin = NOW + 100 * MINUTE
    found = settled(world[0], row, tried(row, ("eu-west-1", begin, begin + 30 * MINUTE, "succeeded")), actuals(known))
    assert found["operational_g"] == pytest.approx(1.11 * (300 * 20 + 600 * 10) / 60)
    assert found["embodied_g"] == pytest.approx(EMBODIED / 2)
    assert found["counterfactual_g"] == pytest.approx(1.35 * 400 / 2 + EMBODIED / 2)
    assert found["avoided_g"] == pytest.approx(1.35 * 200 - 1.11 * 200)


def test_a_forecast_that_was_wrong_may_have_made_it_worse(world: tuple) -> None:
    row = decided(world, request(), outlook())
    came = actuals(outlook(SE_SE3=[900, 900]))
    found = settled(world[0], row, tried(row, ("eu-north-1", NOW, NOW + HOUR, "succeeded")), came)
    assert found["avoided_g"] == pytest.approx(400 * 1.35 - 900 * 1.10)
    assert found["expected_avoided_g"] == pytest.approx(400 * 1.35 - 30 * 1.10)


def test_what_was_decided_by_marginal_grams_is_settled_by_the_average_and_expected_nothing_of_it(world: tuple) -> None:
    row = decided(world, request(), outlook()) | {"signal": "marginal"}
    found = settled(world[0], row, tried(row, ("eu-north-1", NOW, NOW + HOUR, "succeeded")), actuals(outlook()))
    assert found["avoided_g"] == pytest.approx(400 * 1.35 - 30 * 1.10)
    assert found["expected_avoided_g"] is None


def test_an_hour_without_an_actual_on_either_side_waits(world: tuple) -> None:
    row = decided(world, request(), outlook())
    attempts = tried(row, ("eu-north-1", NOW, NOW + HOUR, "succeeded"))
    for zones in ({"DE": [np.nan]}, {"SE_SE3": [np.nan]}):
        found = settled(world[0], row, attempts, actuals(outlook(**zones)))
        assert (found["state"], found["avoided_g"]) == ("awaiting actuals", None)
    nothing = actuals(outlook(hours=0))
    assert settled(world[0], row, attempts, nothing)["state"] == "awaiting actuals"
    # An hour that it did not touch says nothing about it.
    later = actuals(outlook(DE=[400, np.nan]))
    assert settled(world[0], row, attempts, later)["state"] == "settled"


def test_what_was_thrown_away_counts_against_placement(world: tuple) -> None:
    """Half an hour failed in Stockholm, then an hour succeeded: the counterfactual is one hour."""
    row = decided(world, request(), outlook())
    half = NOW + 30 * MINUTE
    attempts = tried(row, ("eu-north-1", NOW, half, "failed"), ("eu-north-1", half, half + HOUR, "succeeded"))
    found = settled(world[0], row, attempts, actuals(outlook()))
    assert (found["attempts"], found["ran_minutes"], found["useful_minutes"]) == (2, 90, 60)
    assert found["wasted_g"] == pytest.approx(0.5 * 30 * 1.10)
    assert found["actual_g"] == pytest.approx(1.5 * (30 * 1.10 + EMBODIED))
    assert found["counterfactual_g"] == pytest.approx(400 * 1.35 + EMBODIED)


def test_what_an_interruptible_program_did_before_it_was_lost_is_saved(world: tuple) -> None:
    row = decided(world, request(interruptible=True), outlook())
    half = NOW + 30 * MINUTE
    attempts = tried(row, ("eu-north-1", NOW, half, "lost"), ("eu-north-1", half, half + 30 * MINUTE, "succeeded"))
    found = settled(world[0], row, attempts, actuals(outlook()))
    assert (found["useful_minutes"], found["wasted_g"]) == (60, 0)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("rendered", "not run"), ("running", "open"), ("paused", "open"), ("lost", "open"), ("failed", "failed")],
)
def test_what_has_not_succeeded_is_not_settled(world: tuple, outcome: str, state: str) -> None:
    row = decided(world, request(), outlook())
    end = None if outcome == "running" else NOW + HOUR
    found = settled(world[0], row, tried(row, ("eu-north-1", NOW, end, outcome)), actuals(outlook()))
    assert (found["state"], found["avoided_g"]) == (state, None)


def test_a_claim_without_any_attempt_is_not_run(world: tuple) -> None:
    row = decided(world, request(), outlook())
    found = settled(world[0], row, tried(row), actuals(outlook()))
    assert (found["state"], found["region"], found["actual_g"]) == ("not run", None, None)


def test_estimates_are_marked(world: tuple) -> None:
    row = decided(world, request(), outlook())
    attempts = tried(row, ("eu-north-1", NOW, NOW + HOUR, "succeeded"))
    assert settled(world[0], row, attempts, actuals(outlook(), is_estimated=True))["is_estimated"]


def test_nothing_settles_to_nothing(world: tuple) -> None:
    none = PLACEMENT_DISPATCHES.schema.empty_table(), PLACEMENT_ATTEMPTS.schema.empty_table()
    assert settlement.settle(*none, actuals(outlook()), world[0], "file").num_rows == 0
    assert json.dumps(settlement.settle(*none, actuals(outlook(hours=0)), world[0], "file").to_pylist()) == "[]"
