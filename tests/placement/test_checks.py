"""What placement promises, measured on tables written by hand; one that was tampered with is seen."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.tables import DECLARED, PLACEMENT_DISPATCHES, PLACEMENT_PLAN, PLACEMENT_PROOF
from greenops_pipelines.placement import checks
from greenops_pipelines.placement import plan as planning
from greenops_pipelines.placement.launches import Ended, Outcome
from greenops_pipelines.placement.ledger import Ledger
from greenops_pipelines.placement.proof import table
from greenops_pipelines.placement.requests import requests_table
from greenops_pipelines.placement.workloads import Placement
from tests.placement.small_ops import NOW, declared, small_ops
from tests.placement.test_plan import outlook, request


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(LocalFolder(tmp_path / "lake"), tmp_path / "warehouse.duckdb", {}, DECLARED)


def planned(lake: Lake, ops: Path, **settings: object) -> pa.Table:
    regions, tenants = declared(small_ops(ops))
    rows = planning.make(
        requests_table([request("a"), request("b", tenant="beta", regions=("us-east-1",), home_region="us-east-1")]),
        outlook(),
        regions,
        tenants,
        Placement(**settings),  # type: ignore[arg-type]
        NOW,
    ).rows
    lake.write(PLACEMENT_PLAN, rows)
    return rows


def test_placed_counts_what_was_placed_and_what_may_run_nowhere(lake: Lake, tmp_path: Path) -> None:
    assert checks.placed(lake, 0).missing is not None
    planned(lake, tmp_path / "ops")
    assert checks.placed(lake, 0).measured == 100
    assert checks.placed(lake, 2).measured == 50
    planned(lake, tmp_path / "ops", policy="run-now-home")
    unaware = checks.placed(lake, 0)
    assert (unaware.measured, unaware.outcome) == (0, "failed")
    assert unaware.figures["under a policy that does not look at the grid"] == 2


def test_a_plan_that_was_tampered_with_is_outside_its_area(lake: Lake, tmp_path: Path) -> None:
    rows = planned(lake, tmp_path / "ops")
    regions, tenants = declared(tmp_path / "ops")
    assert checks.plan_residency(lake, regions, tenants).measured == 0
    # Only a later run of the EU tenant's work is moved: its first region is as it was.
    runs = [
        '[{"region":"eu-north-1","start":"x","end":"y"},{"region":"us-east-1","start":"y","end":"z"}]'
        if row["tenant"] == "acme"
        else row["runs"]
        for row in rows.to_pylist()
    ]
    column = rows.schema.get_field_index("runs")
    lake.write(PLACEMENT_PLAN, rows.set_column(column, rows.schema.field("runs"), pa.array(runs)))
    found = checks.plan_residency(lake, regions, tenants)
    assert (found.measured, found.outcome) == (1, "failed")
    assert "acme" in found.detail


def test_every_dispatch_there_ever_was_is_held_against_today(lake: Lake, tmp_path: Path) -> None:
    regions, tenants = declared(small_ops(tmp_path / "ops"))
    assert checks.dispatch_residency(lake, regions, tenants).measured == 0
    planned(lake, tmp_path / "ops")
    [row] = lake.query("from placement_plan limit 1").to_pylist()
    row |= {"source": "submitted", "home_zone": "DE", "duration_minutes": 60, "power_kw": 1.0, "data_gb": 0.0}
    row |= {
        "regions": "eu-west-1",
        "interruptible": False,
        "forecast_method": None,
        "forecast_issued_at": None,
        "runner": "{}",
    }
    row |= {"dispatched_at": NOW}
    pairs = [("acme", "eu-west-1"), ("acme", "us-east-1"), ("beta", "us-east-1"), ("ghost", "eu-west-1")]
    rows = [
        row | {"key": str(number), "tenant": tenant, "region": region} for number, (tenant, region) in enumerate(pairs)
    ]
    lake.write(PLACEMENT_DISPATCHES, pa.Table.from_pylist(rows, schema=PLACEMENT_DISPATCHES.schema))
    found = checks.dispatch_residency(lake, regions, tenants)
    assert found.measured == 2
    assert found.figures == {"dispatches of bound tenants": 2, "of undeclared tenants or regions": 1}


def test_what_was_launched_is_counted_once(lake: Lake, tmp_path: Path) -> None:
    """Five keys: in order, missed, completed twice, two attempts at once, a dry run; and one that is overdue."""
    planned(lake, tmp_path / "ops")
    ledger = Ledger(tmp_path / "dispatches")
    assert checks.exactly_once(lake, ledger, NOW).missing == "work whose hour has come"

    def attempt(key: str, minute: int, outcome: Outcome, minutes: int = 5) -> None:
        begun = NOW + timedelta(minutes=minute)
        row = {"workload": "w", "tenant": "acme", "region": "eu-west-1", "zone": "IE", "runner": "local", "run_id": ""}
        number = ledger.begin(row | {"key": key, "began_at": begun, "deadline": NOW + timedelta(minutes=7)})
        ledger.end(key, number, Ended(outcome, None, begun + timedelta(minutes=minutes), ""))

    attempt("dry", 0, "rendered")
    assert checks.exactly_once(lake, ledger, NOW).missing == "work whose hour has come (only dry runs)"
    attempt("fine", 0, "lost")
    attempt("fine", 5, "succeeded")
    found = checks.exactly_once(lake, ledger, NOW)
    assert (found.measured, found.figures["ended after their deadline"]) == (100, 1)
    attempt("twice", 0, "succeeded")
    attempt("twice", 5, "succeeded")
    attempt("at-once", 0, "lost")
    attempt("at-once", 4, "succeeded")
    ledger.close_all(
        [{"key": "gone", "outcome": "missed", "at": NOW, "workload": "w", "tenant": "t", "deadline": NOW, "detail": ""}]
    )
    found = checks.exactly_once(lake, ledger, NOW)
    assert found.measured == 25
    wrong = ("missed", "completed more than once", "two attempts at once", "due and not launched")
    assert [found.figures[name] for name in wrong] == [1, 1, 1, 0]
    assert found.detail == "1 of 4 pieces of work were launched once; not: at-once"
    assert checks.exactly_once(lake, ledger, NOW + timedelta(days=3)).figures["due and not launched"] > 0


def test_deadlines_and_gap_of_the_newest_plan(lake: Lake, tmp_path: Path) -> None:
    planned(lake, tmp_path / "ops")
    assert checks.deadlines(lake).measured == 0
    assert checks.gap(lake).measured == pytest.approx(0, abs=1e-6)
    planned(lake, tmp_path / "ops", capacity_kw=dict.fromkeys(("eu-central-1", "eu-west-1", "eu-north-1"), 0.1))
    late = checks.deadlines(lake)
    assert (late.measured, late.detail) == (1, "a")


def test_nothing_is_proven_without_a_record(lake: Lake) -> None:
    lake.write(PLACEMENT_PROOF, table(None, "sample"))
    for check in (checks.saving, checks.regret, checks.proof_gap, checks.proof_limits):
        assert check(lake).outcome == "cannot be measured"
