"""What the ledger's checks say of small ledgers worked by hand."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES, SLO_DAYS, SLO_INCIDENTS
from greenops_pipelines.lake.schema import Table
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.tables import DECLARED
from greenops_pipelines.slo import budget_checks

DAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    chosen = {name: {"source": "sample"} for name in ("metric_series", "metric_samples", "slo_minutes", "slo_days")}
    return Lake(LocalFolder(tmp_path / "lake"), tmp_path / "warehouse.duckdb", chosen, DECLARED, marts=lambda: ())


def put(lake: Lake, table: Table, rows: list[dict[str, Any]]) -> None:
    arrow = pa.Table.from_pylist(rows, schema=table.schema)
    if table is SLO_DAYS:
        lake.append(table, arrow, NOON, "run")
    else:
        lake.write(table, arrow)


def series(number: int, **counts: int) -> dict[str, Any]:
    none = {"samples": 0, "stale_markers": 0, "unusable_samples": 0, "duplicate_samples": 0}
    identity = {"source": "sample", "day": DAY, "series_id": number, "metric": f"metric_{number}", "labels": "{}"}
    return {**identity, **none, **counts}


def day(slo: str, known: int, fault: str | None = None) -> dict[str, Any]:
    return {
        "source": "sample",
        "day": DAY,
        "slo_id": slo,
        "total": 10.0 if known else None,
        "bad": 1.0 if known else None,
        "known_minutes": known,
        "gap_minutes": 1440 - known,
        "unplaced_total": 0.0,
        "unplaced_bad": 0.0,
        "resets": 0,
        "fault": fault,
        "observed_at": NOON + timedelta(days=1),
    }


def test_an_empty_ledger_proves_nothing(lake: Lake) -> None:
    measured = [budget_checks.fresh(lake, NOON), budget_checks.usable(lake), budget_checks.counted(lake, ["a"])]
    assert [each.outcome for each in measured] == ["cannot be measured"] * 3


def test_one_unusable_sample_in_four(lake: Lake) -> None:
    put(lake, METRIC_SERIES, [series(1, samples=2, duplicate_samples=3), series(2, samples=1, unusable_samples=1)])
    found = budget_checks.usable(lake)
    assert (found.measured, found.outcome) == (75, "failed")
    assert found.detail == "NaN or infinite, for example of metric_2"
    # Evidence and metadata take them as JSON.
    assert json.loads(json.dumps(found.figures)) == {"series": 2, "samples": 3, "NaN or infinite": 1, "twice": 3}


def test_the_newest_sample_of_all(lake: Lake) -> None:
    rows = [
        {"source": "sample", "day": DAY, "series_id": n, "time": time, "value": 1.0, "is_stale": False}
        for n, time in ((1, NOON - timedelta(minutes=30)), (2, NOON - timedelta(minutes=5)))
    ]
    put(lake, METRIC_SAMPLES, rows)
    assert budget_checks.fresh(lake, NOON).measured == 5
    assert budget_checks.fresh(lake, NOON + timedelta(minutes=16)).outcome == "failed"


def test_what_was_not_counted_is_named(lake: Lake) -> None:
    put(lake, SLO_DAYS, [day("shop-a", 1440), day("shop-b", 0, "no sample of shop_total")])
    found = budget_checks.counted(lake, ["shop-a", "shop-b", "shop-c", "shop-d"])
    assert (found.measured, found.outcome) == (25, "failed")
    assert found.detail == "shop-b: no sample of shop_total; shop-c: no row; shop-d: no row"
    assert budget_checks.counted(lake, ["shop-a"]).outcome == "passed"


def test_a_day_is_what_it_was_counted_as_last(lake: Lake) -> None:
    """A fault that was mended is none any more, and a total that was withdrawn is not shown for ever."""
    later = {"observed_at": NOON + timedelta(days=2)}
    lost, found = day("shop-a", 0, "no sample of shop_total"), day("shop-a", 1440)
    put(lake, SLO_DAYS, [lost, day("shop-b", 1440)])
    lake.append(
        SLO_DAYS,
        pa.Table.from_pylist(
            [found | later, day("shop-b", 0, "no sample of shop_total") | later], schema=SLO_DAYS.schema
        ),
        NOON + timedelta(days=2),
        "run",
    )
    measured = budget_checks.counted(lake, ["shop-a", "shop-b"])
    assert (measured.measured, measured.detail) == (50, "shop-b: no sample of shop_total")


def test_who_could_not_be_told(lake: Lake) -> None:
    row = {
        "slo_id": "shop-a",
        "service": "shop",
        "severity": "page",
        "state": "open",
        "opened_at": NOON,
        "noticed_at": NOON,
        "closed_at": None,
        "peak_burn": 20.0,
        "budget_spent_percent": 2.0,
        "bad": 5.0,
        "evidence": None,
    }
    told = {
        "1": "trigger: nobody dry run",
        "2": "trigger: slack delivered",
        "3": "trigger: slack refused",
        "4": "trigger: slack unknown, pagerduty delivered",
    }
    put(lake, SLO_INCIDENTS, [{**row, "incident": key, "told": words} for key, words in told.items()])
    found = budget_checks.told(lake)
    assert (found.measured, found.outcome, found.figures) == (2, "failed", {"incidents": 4})
