"""What the ledger's checks say of small ledgers worked by hand."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES, SLO_DAYS, SLO_INCIDENTS, SLO_MINUTES
from greenops_pipelines.lake.schema import TIMESTAMP, Column, Table
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.tables import DECLARED, SLO_DEFINITIONS
from greenops_pipelines.slo import budget_checks

DAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)

_BUDGET_TYPES: dict[str, pa.DataType] = {
    "day": pa.date32(),
    "slo_id": pa.string(),
    "through": TIMESTAMP,
    "first_day": pa.date32(),
    "total": pa.float64(),
    "bad": pa.float64(),
    "known_minutes": pa.int64(),
    "gap_minutes": pa.int64(),
    "unread_minutes": pa.int64(),
    "unplaced_total": pa.float64(),
}
ERROR_BUDGET = Table(
    "marts",
    "slo_error_budget",
    "What the checks read of dbt's mart",
    tuple(Column(name, kind, name, nullable=name in ("total", "bad")) for name, kind in _BUDGET_TYPES.items()),
    ("day", "slo_id"),
)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    chosen = {name: {"source": "sample"} for name in ("metric_series", "metric_samples", "slo_minutes", "slo_days")}
    return Lake(
        LocalFolder(tmp_path / "lake"), tmp_path / "warehouse.duckdb", chosen, DECLARED, marts=lambda: (ERROR_BUDGET,)
    )


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


def day(slo: str, known: int, fault: Any = None, **other: Any) -> dict[str, Any]:
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
        "clamped": 0.0 if known else None,
        "fault": fault,
        "warning": None,
        "observed_at": NOON + timedelta(days=1),
    } | other


def definition(slo: str, period_days: int) -> dict[str, Any]:
    """Only `slo_id` and `period_days` are read by the checks."""
    fillers = {pa.string(): "x", pa.float64(): 1.0, pa.int64(): 1, pa.bool_(): False}
    row: dict[str, Any] = {field.name: fillers[field.type] for field in SLO_DEFINITIONS.schema}
    return row | {"slo_id": slo, "period_days": period_days}


def budget(slo: str, **other: Any) -> dict[str, Any]:
    """The whole first of March, of 10 events of which 1 is bad."""
    row = {"day": DAY, "slo_id": slo, "through": MIDNIGHT, "first_day": DAY, "total": 10.0, "bad": 1.0}
    return row | {"known_minutes": 1440, "gap_minutes": 0, "unread_minutes": 0, "unplaced_total": 0.0} | other


def minute(slo: str, at: datetime, total: float | None) -> dict[str, Any]:
    row = {"source": "sample", "day": at.date(), "slo_id": slo, "minute": at, "total": total, "bad": total and 0.0}
    return row | {"unplaced_total": 0.0, "unplaced_bad": 0.0}


def test_an_empty_ledger_proves_nothing(lake: Lake) -> None:
    measured = [budget_checks.fresh(lake, NOON), budget_checks.usable(lake), budget_checks.counted(lake, ["a"])]
    measured += [budget_checks.known(lake), budget_checks.reconciled(lake)]
    assert [each.outcome for each in measured] == ["cannot be measured"] * 5


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


def test_warnings_are_named_and_change_no_share(lake: Lake) -> None:
    """Of the newest day that is over, and of the one that is not; not of those before, nor of an SLO that is not declared."""
    today = {"day": DAY + timedelta(days=1), "known_minutes": 720, "gap_minutes": 0}
    yesterday = {"day": DAY - timedelta(days=1)}
    rows = [
        day("shop-a", 1440, **yesterday, warning="old"),
        day("shop-a", 1440),
        day("shop-b", 1440, warning="found no sample of err_total since noon"),
        day("shop-c", 1440),
        day("shop-c", 720, **today, warning="found no sample of c_total since ten"),
        day("shop-x", 1440, warning="of nobody's SLO"),
    ]
    put(lake, SLO_DAYS, rows)
    found = budget_checks.counted(lake, ["shop-a", "shop-b", "shop-c"])
    assert (found.measured, found.outcome) == (100, "passed")
    assert found.detail == (
        "3 SLOs on 2026-03-01; warning: shop-b on 2026-03-01: found no sample of err_total since noon; "
        "warning: shop-c on 2026-03-02: found no sample of c_total since ten"
    )
    assert found.figures == {"SLOs": 3, "not counted": 0, "SLOs with a warning": 2}


def test_a_fault_is_named_before_a_warning(lake: Lake) -> None:
    put(lake, SLO_DAYS, [day("shop-a", 1440, warning="doubtful"), day("shop-b", 0, "no sample of shop_total")])
    found = budget_checks.counted(lake, ["shop-a", "shop-b"])
    assert found.detail == "shop-b: no sample of shop_total; warning: shop-a on 2026-03-01: doubtful"


def test_what_nobody_read_is_as_little_known_as_a_gap(lake: Lake) -> None:
    put(lake, SLO_MINUTES, [minute(slo, NOON, 1.0) for slo in ("shop-a", "shop-b")])
    rows = [
        budget("shop-a", known_minutes=900, gap_minutes=40, unread_minutes=60, unplaced_total=5.0),
        budget("shop-b", known_minutes=970, gap_minutes=30),
        budget("shop-b", day=DAY - timedelta(days=1), known_minutes=0, gap_minutes=9999),
    ]
    put(lake, ERROR_BUDGET, rows)
    found = budget_checks.known(lake)
    assert (found.measured, found.outcome) == (90, "failed"), "900 of 900 + 40 + 60, of the newest day"
    assert found.detail == "least is known of shop-a: 40 minutes are gaps, 60 nobody read"
    assert json.loads(json.dumps(found.figures)) == {
        "SLOs with gaps": 2,
        "minutes of the longest sum of gaps": 40,
        "minutes that nobody read, at most": 60,
        "SLOs that are silent": 0,
        "events over gaps, in no budget": 5.0,
    }


@pytest.mark.parametrize(("silent_minutes", "outcome"), [(40, "passed"), (60, "passed"), (61, "failed")])
def test_an_slo_that_fell_silent_is_named_while_its_period_is_known_well(
    lake: Lake, silent_minutes: int, outcome: str
) -> None:
    """40 minutes are the longest planted gap of the sample. Gaps have rows, without a total."""
    last = NOON - timedelta(minutes=silent_minutes)
    rows = [
        minute("shop-a", NOON, 1.0),
        minute("shop-b", last - timedelta(minutes=1), 5.0),
        minute("shop-b", last, 0.0),
        minute("shop-b", NOON, None),
        minute("shop-c", last + timedelta(minutes=1), 1.0),
    ]
    put(lake, SLO_MINUTES, rows)
    put(
        lake,
        ERROR_BUDGET,
        [budget(slo, known_minutes=43_100, gap_minutes=100) for slo in ("shop-a", "shop-b", "shop-c")],
    )
    found = budget_checks.known(lake)
    assert found.outcome == outcome
    if outcome == "failed":
        assert found.measured == 0
        assert found.detail == (
            "nothing is known of shop-b since 2026-03-01T11:00Z, 61 minutes before the newest minute; 1 of 3 SLOs are silent"
        )


def test_the_longest_silence_is_named(lake: Lake) -> None:
    hours = {"shop-a": 0, "shop-b": 2, "shop-c": 23}
    put(lake, SLO_MINUTES, [minute(slo, NOON - timedelta(hours=ago), 1.0) for slo, ago in hours.items()])
    put(lake, ERROR_BUDGET, [budget(slo) for slo in hours])
    found = budget_checks.known(lake)
    assert found.detail.startswith("nothing is known of shop-c since 2026-02-28T13:01Z, 1380 minutes before")
    assert found.detail.endswith("2 of 3 SLOs are silent")


def test_budgets_are_the_sums_of_their_days(lake: Lake) -> None:
    """Two days of shop-a are in its period; shop-b is one event off, and of shop-c its days know nothing."""
    before = {"day": DAY - timedelta(days=1), "total": 30.0, "bad": 2.0}
    put(lake, SLO_DEFINITIONS, [definition(slo, 2) for slo in ("shop-a", "shop-b", "shop-c", "shop-d")])
    rows = [
        day("shop-a", 1440, **before),
        *(day(slo, 1440) for slo in ("shop-a", "shop-b")),
        day("shop-c", 0),
        day("shop-d", 0),
    ]
    put(lake, SLO_DAYS, [*rows, day("shop-a", 1440, day=DAY - timedelta(days=2))])
    nothing = {"total": None, "bad": None}
    put(
        lake,
        ERROR_BUDGET,
        [
            budget("shop-a", total=40.0, bad=3.0),
            budget("shop-b", bad=2.0),
            budget("shop-c"),
            budget("shop-d", **nothing),
        ],
    )
    found = budget_checks.reconciled(lake)
    assert (found.measured, found.outcome) == (2, "failed")
    assert found.detail == "shop-b: 2 of 10 by minute, 1 of 10 by day; shop-c: 1 of 10 by minute, nothing by day"


def test_a_period_that_begins_in_the_middle_of_a_day_is_not_compared(lake: Lake) -> None:
    """Its newest minute is at noon of the 2nd, so it holds half of the first day too; the one of the day before is whole."""
    put(lake, SLO_DEFINITIONS, [definition("shop-a", 1), definition("shop-young", 1)])
    today = {"day": DAY + timedelta(days=1), "through": MIDNIGHT + timedelta(hours=12)}
    put(
        lake,
        SLO_DAYS,
        [day("shop-a", 1440), day("shop-a", 720, day=today["day"]), day("shop-young", 720, day=today["day"])],
    )
    rows = [
        budget("shop-a"),
        budget("shop-a", **today, total=15.0),
        budget("shop-young", **today, first_day=today["day"]),
    ]
    put(lake, ERROR_BUDGET, rows)
    found = budget_checks.reconciled(lake)
    assert (found.measured, found.detail) == (0, "2 budgets are the sums of their days")


@pytest.mark.parametrize(("clamped", "outcome"), [(0.01, "passed"), (0.02, "failed")])
def test_bad_events_that_were_cut_off_are_named_above_one_in_a_hundred(
    lake: Lake, clamped: float, outcome: str
) -> None:
    put(lake, SLO_DEFINITIONS, [definition(slo, 1) for slo in ("shop-a", "shop-b")])
    put(lake, SLO_DAYS, [day("shop-a", 1440, clamped=None), day("shop-b", 1440, clamped=clamped)])
    put(lake, ERROR_BUDGET, [budget("shop-a"), budget("shop-b")])
    found = budget_checks.reconciled(lake)
    assert found.outcome == outcome
    if outcome == "failed":
        assert (found.measured, found.detail) == (1, "shop-b: 0.02 bad events were cut off, beside 1 that count")
        assert found.figures == {"SLOs that differ": 0, "SLOs with bad events cut off": 1, "bad events cut off": 0.02}


def test_bad_events_that_were_all_cut_off_are_no_full_budget(lake: Lake) -> None:
    put(lake, SLO_DEFINITIONS, [definition("shop-a", 1)])
    put(lake, SLO_DAYS, [day("shop-a", 1440, bad=0.0, clamped=14_360.0)])
    put(lake, ERROR_BUDGET, [budget("shop-a", bad=0.0)])
    assert budget_checks.reconciled(lake).detail == "shop-a: 14360 bad events were cut off, beside 0 that count"


def test_who_could_not_be_told(lake: Lake) -> None:
    row = {
        "slo_id": "shop-a",
        "service": "shop",
        "source": "sample",
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
    found = budget_checks.told(lake, NOON)
    assert (found.measured, found.outcome, found.figures) == (2, "failed", {"incidents": 4})
