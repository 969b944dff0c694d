"""J1.5 and J1.6 as figures: what is missing counts once, and a fault of a common page is everybody's."""

from __future__ import annotations

import json
from typing import Any

import duckdb

from greenops_pipelines.observability import checks
from greenops_pipelines.observability.subjects import Subjects
from tests.observability.conftest import OVERVIEW

LCP = "runbooks/alerts/cockpit-lcp-slow.md"


def _split(rendered: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    dashboards = {path: text for path, text in rendered.items() if path.endswith(".json")}
    return dashboards, {path: text for path, text in rendered.items() if path not in dashboards}


def test_all_features_are_there(rendered: dict[str, str], subjects: Subjects) -> None:
    dashboards, pages = _split(rendered)
    found = checks.features(subjects, dashboards, pages)
    assert (found.measured, found.figures["features"], found.figures["dashboards"]) == (100, 11, 6)


def test_a_feature_that_is_missing_counts_once(rendered: dict[str, str], subjects: Subjects) -> None:
    dashboards, pages = _split(rendered)
    document: dict[str, Any] = json.loads(dashboards[OVERVIEW])
    document["panels"] = [each for each in document["panels"] if each["type"] != "heatmap"]
    found = checks.features(subjects, dashboards | {OVERVIEW: json.dumps(document)}, pages)
    assert round(found.measured or 0, 6) == round(100 * 10 / 11, 6)
    assert "latency heatmap" in found.detail


def test_every_alerts_page_is_tested(
    rendered: dict[str, str], subjects: Subjects, connection: duckdb.DuckDBPyConnection
) -> None:
    _, pages = _split(rendered)
    assert checks.tested(subjects, pages, connection).measured == 100
    spoilt = pages | {LCP: pages[LCP] + "\n```sh\nkubectl obliterate pods\n```\n"}
    assert round(checks.tested(subjects, spoilt, connection).measured or 0, 6) == round(100 * 23 / 24, 6)


def test_a_fault_of_the_page_that_all_alerts_lead_to_is_every_alerts(
    rendered: dict[str, str], subjects: Subjects, connection: duckdb.DuckDBPyConnection
) -> None:
    _, pages = _split(rendered)
    command = "\n```sh\nkubectl obliterate pods\n```\n"
    common = "runbooks/slo-breach.md"
    spoilt = pages | {path: pages[path] + command for path in (LCP, common)}
    assert checks.tested(subjects, spoilt, connection).measured == 0
