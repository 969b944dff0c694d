"""What is wrong with a dashboard is found: one fault put in at a time."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from greenops_pipelines.observability import validation
from greenops_pipelines.observability.links import Pages
from greenops_pipelines.observability.subjects import Subjects
from tests.observability.conftest import OVERVIEW, panel

Dashboard = dict[str, Any]


def faults(rendered: dict[str, str], subjects: Subjects, pages: Pages, changed: Dashboard | None = None) -> list[str]:
    files = {path: text for path, text in rendered.items() if path.endswith(".json")}
    if changed is not None:
        files[OVERVIEW] = json.dumps(changed)
    return validation.faults(files, subjects, pages)


def test_what_is_rendered_has_no_fault(rendered: dict[str, str], subjects: Subjects, pages: Pages) -> None:
    assert faults(rendered, subjects, pages) == []


def _expr(title: str, expr: str) -> Callable[[Dashboard], None]:
    def change(document: Dashboard) -> None:
        panel(document, title)["targets"][0]["expr"] = expr

    return change


def _set(title: str, name: str, value: object) -> Callable[[Dashboard], None]:
    return lambda document: panel(document, title).__setitem__(name, value)


def _grid(title: str, **at: int) -> Callable[[Dashboard], None]:
    return lambda document: panel(document, title)["gridPos"].update(at)


def _link(url: str) -> Callable[[Dashboard], None]:
    return lambda document: document["links"][0].update(url=url)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_expr("Requests per", "sum(rate(http_request_total[5m]))"), "nearest: http_server_requests_total"),
        (_expr("Requests per", "sum(rate("), "query A: found no PromQL"),
        (
            _expr("Compliance", 'slo:objective:ratio{environment="$environment"}'),
            "'environment' of slo:objective:ratio",
        ),
        (_expr("Compliance", 'slo:objective:ratio{sloth_slo="uptime"}'), "found sloth_slo='uptime'"),
        (_expr("Requests per", "up[$window]"), "found the variable $window"),
        (_expr("Errors in", '{service="x"}'), "found the stream label 'service'"),
        (_set("Compliance", "description", "short"), "found no meaning of the threshold 'red'"),
        (_set("Compliance", "title", ""), "title: found none"),
        (
            _set("Compliance", "datasource", {"type": "prometheus", "uid": "abc"}),
            "allowed: a variable of the dashboard",
        ),
        (_set("Compliance", "targets", []), "targets: found none"),
        (_set("Compliance", "id", 1), "found an id missing or twice"),
        (_grid("Alerts", x=15), "found cells of Burn rate, last 7 days"),
        (_grid("Alerts", w=9), "found columns to 25, allowed: 24"),
        (_link("/d/slo-nobody"), "found the link /d/slo-nobody, allowed: a dashboard of"),
        (_link("https://runbooks.example/slo-breach#nobody"), "allowed: a heading of runbooks/slo-breach.md"),
        (_link("https://runbooks.example/elsewhere#cockpit"), "runbooks/elsewhere.md is none"),
        (_link("https://example.org/"), "allowed: to a rendered dashboard or runbook"),
        (lambda d: d["annotations"]["list"][0].update(expr="rollout_infos"), "annotation 'Rollouts': found the metric"),
        (lambda d: d.update(uid="slo-cockpit"), "found slo-cockpit, allowed: another than that of"),
        (lambda d: d.update(uid="slo-cockpit"), "found none with the uid slo-overview"),
    ],
)
def test_a_fault_is_named(
    change: Callable[[Dashboard], None],
    said: str,
    rendered: dict[str, str],
    overview: Dashboard,
    subjects: Subjects,
    pages: Pages,
) -> None:
    changed = copy.deepcopy(overview)
    change(changed)
    found = faults(rendered, subjects, pages, changed)
    assert any(said in fault for fault in found), found


def _without_unit(document: Dashboard) -> None:
    del panel(document, "Compliance")["fieldConfig"]["defaults"]["unit"]


def _without_thresholds(document: Dashboard) -> None:
    panel(document, "Compliance")["fieldConfig"]["defaults"]["thresholds"]["steps"] = []


def test_a_panel_without_unit_or_thresholds_is_named(
    rendered: dict[str, str], overview: Dashboard, subjects: Subjects, pages: Pages
) -> None:
    for change, said in ((_without_unit, "unit: found none"), (_without_thresholds, "thresholds: found none")):
        changed = copy.deepcopy(overview)
        change(changed)
        assert any(said in fault for fault in faults(rendered, subjects, pages, changed))


def _drop(title: str) -> Callable[[Dashboard], None]:
    def change(document: Dashboard) -> None:
        document["panels"] = [each for each in document["panels"] if not each["title"].startswith(title)]

    return change


def _variable(name: str, **values: object) -> Callable[[Dashboard], None]:
    return lambda d: next(v for v in d["templating"]["list"] if v["name"] == name).update(values)


def _without_drill_downs(document: Dashboard) -> None:
    document["links"] = [each for each in document["links"] if not each["url"].startswith("/d/")]
    for each in document["panels"]:
        each.pop("fieldConfig", None)


def _without_runbooks(document: Dashboard) -> None:
    document["links"] = []
    for each in document["panels"]:
        each.pop("fieldConfig", None)


FEATURES: list[tuple[str, Callable[[Dashboard], None]]] = [
    ("error-budget gauge", _drop("Error budget left")),
    ("burn-rate lines of 7 days", _set("Burn rate", "timeFrom", "1d")),
    ("compliance status", _drop("Compliance")),
    ("latency heatmap", _drop("Latency, distribution")),
    ("P50, P95, P99", lambda d: panel(d, "Latency, P50")["targets"].pop()),
    ("drill-downs", _without_drill_downs),
    ("deployment annotations", lambda d: d["annotations"].update(list=[])),
    ("runbook links", _without_runbooks),
    ("variable $service", _variable("service", multi=False)),
    ("variable $timeRange", _variable("timeRange", query="1h,6h")),
    ("variable $environment", _variable("environment", query="production")),
]


def test_every_promised_feature_is_there(overview: Dashboard, subjects: Subjects) -> None:
    found = validation.features(overview, subjects)
    assert [each.name for each in found] == [name for name, _ in FEATURES]
    assert all(each.is_there and each.where for each in found)


@pytest.mark.parametrize(("name", "change"), FEATURES, ids=[name for name, _ in FEATURES])
def test_a_feature_that_is_taken_away_is_missed(
    name: str, change: Callable[[Dashboard], object], overview: Dashboard, subjects: Subjects
) -> None:
    changed = copy.deepcopy(overview)
    change(changed)
    found = {each.name: each.is_there for each in validation.features(changed, subjects)}
    assert not found[name]


def test_a_services_dashboard_has_all_but_what_the_overview_alone_has(
    dashboards: dict[str, Dashboard], subjects: Subjects
) -> None:
    missed = {each.name for each in validation.features(dashboards["slo-cockpit"], subjects) if not each.is_there}
    assert missed == set(validation.OVERVIEW_ALONE)
