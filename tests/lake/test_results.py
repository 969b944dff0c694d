"""Check results in the lake."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone

import pytest

from greenops_pipelines.errors import SchemaViolation
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.results import record
from greenops_pipelines.lake.tables import CHECK_RESULTS
from greenops_pipelines.measurement import Measurement
from tests.lake.declared import at

MISSED = Measurement("slo/alerts:lead", 4.5, 5.0, ">=", "minutes", "half a minute late", figures={"b": 2, "a": "x"})
ABSENT = Measurement("slo/alerts:seen", None, 1, "==", "alerts", "no server", missing="GREENOPS_PROMETHEUS_URL")


def test_one_row_per_check_with_its_outcome(lake: Lake) -> None:
    written = record(lake, [MISSED, ABSENT], "run-1", at(23), evidence="bundle-7")
    assert len(written.paths) == 1
    missed, absent = lake.read(CHECK_RESULTS).to_pylist()
    assert missed == {
        "check": "slo/alerts:lead",
        "outcome": "failed",
        "measured": 4.5,
        "target": 5.0,
        "comparison": ">=",
        "unit": "minutes",
        "detail": "half a minute late",
        "missing": None,
        "figures": '{"a": "x", "b": 2}',
        "evidence": "bundle-7",
        "run_id": "run-1",
        "checked_at": at(23),
        "day": at(23).date(),
    }
    assert (absent["outcome"], absent["measured"], absent["missing"]) == (
        "cannot be measured",
        None,
        "GREENOPS_PROMETHEUS_URL",
    )
    assert json.loads(absent["figures"]) == {}


def test_results_are_added_never_replaced(lake: Lake) -> None:
    record(lake, [MISSED], "run-1", at(1))
    record(lake, [MISSED], "run-1", at(1))
    record(lake, [MISSED], "run-1", at(2))
    record(lake, [MISSED], "run-2", at(2))
    assert [row["run_id"] for row in lake.read(CHECK_RESULTS).to_pylist()] == ["run-1", "run-1", "run-2"]


def test_the_day_is_that_of_utc(lake: Lake) -> None:
    record(lake, [MISSED], "r", datetime(2026, 3, 2, 1, tzinfo=timezone(timedelta(hours=5))))
    (row,) = lake.read(CHECK_RESULTS, {"day": date(2026, 3, 1)}).to_pylist()
    assert row["checked_at"] == at(20)


def test_one_check_twice_at_one_time_is_refused(lake: Lake) -> None:
    with pytest.raises(SchemaViolation, match="key check, checked_at, run_id, rows 0 and 1: found twice"):
        record(lake, [MISSED, MISSED], "r", at(1))


def test_no_measurements_write_no_file(lake: Lake) -> None:
    assert record(lake, [], "r", at(1)).paths == ()
