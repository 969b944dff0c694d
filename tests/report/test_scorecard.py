"""The scorecard: the shipped criteria, and the verdict on every kind of result."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.carbon import checks
from greenops_pipelines.carbon.sample import SampleProvider
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.results import record
from greenops_pipelines.lake.tables import SCORECARD
from greenops_pipelines.measurement import Comparison, Measurement
from greenops_pipelines.report.scorecard import (
    VERDICTS,
    as_document,
    counts,
    criteria,
    missed_measurement,
    scorecard,
)
from tests.carbon.small_lake import ROOT, empty_lake, marts

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
ITEMS = {"J1": 6, "J2": 6, "J3": 5, "J4": 4, "J5": 5, "J6": 5}
COMPLETENESS = "carbon/intensity:completeness"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return empty_lake(tmp_path)


def result(check: str, measured: float | None, **other: Any) -> Measurement:
    given: dict[str, Any] = {"target": 0, "comparison": "==", "unit": "rows", "detail": "a sentence"}
    return Measurement(check=check, measured=measured, **(given | other))


def row(lake: Lake, number: str, now: datetime = NOW) -> dict[str, Any]:
    return next(r for r in scorecard(lake, now).to_pylist() if r["id"] == number)


# The declaration


def test_every_numbered_requirement_has_a_criterion() -> None:
    """31 items; some promise two things and have a second row with a suffix."""
    numbered = [f"{part}.{item}" for part, items in ITEMS.items() for item in range(1, items + 1)]
    assert len(numbered) == 31
    ids = [c.id for c in criteria()]
    assert [i for i in ids if "-" not in i] == numbered
    assert [i for i in ids if "-" in i] == ["J4.2-rpo", "J5.3-slsa", "J6.3-errors"]
    assert [i.split("-")[0] for i in ids] == sorted(i.split("-")[0] for i in ids)


def test_the_numbers_are_those_of_the_requirements() -> None:
    path = ROOT.parent / "shared" / "requirements.md"
    if not path.exists():
        pytest.skip("no requirements.md beside the repository")
    found: Counter[str] = Counter()
    part = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        heading = re.match(r"## (J\d)?", line)
        part = (heading[1] or "") if heading else part
        found[part] += bool(re.match(r"\d+\. ", line))
    assert {part: count for part, count in found.items() if part} == ITEMS


def test_ids_and_checks_stand_once() -> None:
    for names in ([c.id for c in criteria()], [c.check for c in criteria()]):
        assert [name for name, count in Counter(names).items() if count > 1] == []


def test_a_check_lies_in_the_domain_that_owns_the_criterion() -> None:
    assert [c.id for c in criteria() if c.check.split("/")[0] != c.domain] == []


def test_the_checks_that_are_built_hold_what_the_criteria_promise(tmp_path: Path) -> None:
    """The same promise stands in two files: a check's own target decides its colour in the UI."""
    lake = empty_lake(tmp_path, "file", marts(tmp_path))
    measured = [checks.completeness(lake, SampleProvider(), ["DE"]), checks.coverage(lake)]
    declared = {c.check: (c.comparison, c.target, c.unit) for c in criteria()}
    assert {m.check: (m.comparison, m.target, m.unit) for m in measured} == {
        m.check: declared[m.check] for m in measured
    }
    assert {c.id for c in criteria() if c.check in {m.check for m in measured}} == {"J2.1", "J2.4"}


# The verdicts


def test_without_results_nothing_is_measured_yet(lake: Lake) -> None:
    rows = scorecard(lake, NOW)
    assert rows.schema.equals(SCORECARD.schema)
    assert counts(rows) == dict.fromkeys(VERDICTS, 0) | {"not yet measured": 34}
    assert rows["id"].to_pylist() == [c.id for c in criteria()]
    assert set(rows["checked_at"].to_pylist()) == {None}


# J2.1 promises >= 95 %, J1.4 <= 120 seconds, J1.1 == 5 services.
@pytest.mark.parametrize(
    ("number", "measured", "verdict"),
    [
        ("J2.1", 95.0, "met"),
        ("J2.1", 94.999, "missed"),
        ("J2.1", 100.0, "met"),
        ("J1.4", 120.0, "met"),
        ("J1.4", 119.0, "met"),
        ("J1.4", 120.001, "missed"),
        ("J1.1", 5.0, "met"),
        ("J1.1", 4.0, "missed"),
        ("J1.1", 6.0, "missed"),
        ("J2.3", 0.0, "met"),
    ],
)
def test_a_figure_is_held_against_the_target(lake: Lake, number: str, measured: float, verdict: str) -> None:
    check = next(c.check for c in criteria() if c.id == number)
    record(lake, [result(check, measured)], "run-1", NOW, evidence="bundle-7")
    found = row(lake, number)
    assert (found["verdict"], found["measured"], found["checked_at"]) == (verdict, measured, NOW)
    assert found["evidence"] == "bundle-7"


def test_the_criterions_target_decides_not_the_checks_own(lake: Lake) -> None:
    comparison: Comparison = ">="
    record(lake, [result(COMPLETENESS, 90.0, target=80.0, comparison=comparison)], "run-1", NOW)
    assert (row(lake, "J2.1")["target"], row(lake, "J2.1")["verdict"]) == (95.0, "missed")


def test_what_cannot_be_measured_names_what_is_missing(lake: Lake) -> None:
    record(lake, [result(COMPLETENESS, None, missing="a provider")], "run-1", NOW)
    found = row(lake, "J2.1")
    assert (found["verdict"], found["measured"], found["missing"]) == ("cannot be measured here", None, "a provider")


@pytest.mark.parametrize("measured", [100.0, 0.0, None], ids=["was met", "was missed", "was unmeasurable"])
def test_a_result_is_stale_when_it_is_older_than_its_validity(lake: Lake, measured: float | None) -> None:
    """J2.1 stands for 26 hours, to the second."""
    record(lake, [result(COMPLETENESS, measured)], "run-1", NOW - timedelta(hours=26))
    assert row(lake, "J2.1")["verdict"] != "stale"
    assert row(lake, "J2.1", NOW + timedelta(seconds=1))["verdict"] == "stale"
    assert row(lake, "J2.1", NOW + timedelta(seconds=1))["measured"] == measured


def test_the_newest_result_wins_in_whatever_order_they_were_written(lake: Lake) -> None:
    for minutes, measured in ((0, 10.0), (-10, 99.0), (-20, None)):
        record(lake, [result(COMPLETENESS, measured, missing="x")], "run", NOW + timedelta(minutes=minutes))
    assert (row(lake, "J2.1")["measured"], row(lake, "J2.1")["verdict"]) == (10.0, "missed")
    assert row(lake, "J2.1", NOW - timedelta(minutes=5))["verdict"] == "met"
    unmeasured = row(lake, "J2.1", NOW - timedelta(minutes=15))
    assert (unmeasured["verdict"], unmeasured["missing"]) == ("cannot be measured here", "x")


def test_a_null_does_not_let_an_older_figure_shine_through(lake: Lake) -> None:
    record(lake, [result(COMPLETENESS, 99.0)], "run-1", NOW - timedelta(hours=1))
    record(lake, [result(COMPLETENESS, None, missing="a provider")], "run-2", NOW)
    assert (row(lake, "J2.1")["measured"], row(lake, "J2.1")["missing"]) == (None, "a provider")


def test_results_of_other_checks_change_nothing(lake: Lake) -> None:
    record(lake, [result("carbon/intensity:freshness", 1.0)], "run-1", NOW)
    assert counts(scorecard(lake, NOW))["not yet measured"] == 34


# The forms it is given out in


def test_the_document_for_scripts(lake: Lake) -> None:
    record(lake, [result(COMPLETENESS, 99.5)], "run-1", NOW, evidence="bundle-7")
    document = as_document(scorecard(lake, NOW))
    assert list(document) == ["criteria"]
    assert len(document["criteria"]) == 34
    wanted = {"id", "domain", "criterion", "target", "measured", "unit", "verdict", "checked_at", "evidence"}
    assert {frozenset(c) for c in document["criteria"]} == {frozenset(wanted | {"comparison", "missing"})}
    assert next(c for c in document["criteria"] if c["id"] == "J2.1") == {
        "id": "J2.1",
        "domain": "carbon",
        "criterion": "Carbon intensity ingested: share of expected intervals",
        "comparison": ">=",
        "target": 95.0,
        "measured": 99.5,
        "unit": "%",
        "verdict": "met",
        "missing": None,
        "checked_at": "2026-03-10T12:00:00+00:00",
        "evidence": "bundle-7",
    }
    assert document["criteria"][0]["checked_at"] is None


def test_missed_and_stale_criteria_are_named_by_the_scorecards_own_check(lake: Lake) -> None:
    record(lake, [result(COMPLETENESS, 99.0), result("slo/definitions:services", 4.0)], "run-1", NOW)
    record(lake, [result("slo/rules:alerts", 24.0)], "run-1", NOW - timedelta(hours=49))
    record(lake, [result("slo/runbooks:tested", None, missing="runbooks")], "run-1", NOW)
    found = missed_measurement(scorecard(lake, NOW))
    assert (found.measured, found.outcome, found.detail) == (2.0, "failed", "missed or stale: J1.1, J1.3")
    assert found.figures == {
        "met": 1,
        "missed": 1,
        "stale": 1,
        "cannot be measured here": 1,
        "not yet measured": 30,
    }


def test_what_was_never_measured_is_not_missed(lake: Lake) -> None:
    found = missed_measurement(scorecard(lake, NOW))
    assert (found.measured, found.outcome, found.detail) == (0.0, "passed", "0 met, none missed or stale")
