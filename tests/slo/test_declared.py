"""`ops/slo.yaml`: who is asked and how, and that it says the same as the definitions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.slo import load
from greenops_pipelines.slo.declared import Declared, read_declared
from greenops_pipelines.slo.model import Alert, Slo
from greenops_pipelines.slo.profiles import PERIOD

OPS = Path(__file__).parents[2] / "ops"
SLOS = tuple(
    slo
    for path in sorted((OPS / "slo-definitions").glob("*.yaml"))
    for group in load.read_file(path, PERIOD)
    for slo in group.slos
)


def declared_as(tmp_path: Path, *changes: tuple[str, str], slos: tuple[Slo, ...] = SLOS) -> Declared:
    text = (OPS / "slo.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "slo.yaml").write_text(text, encoding="utf-8")
    return read_declared(tmp_path, slos)


def test_the_five_services_their_teams_and_their_profile() -> None:
    declared = read_declared(OPS, SLOS)
    assert {name: (s.team, s.profile) for name, s in declared.services.items()} == {
        "api-gateway": ("platform", "workbook"),
        "reporting": ("reporting", "workbook"),
        "q2q-ai": ("ai", "workbook"),
        "cockpit": ("web", "workbook"),
        "impact-in": ("integrations", "workbook"),
    }
    assert declared.links("q2q-ai") == {
        "dashboard": "https://grafana.example/d/slo-q2q-ai",
        "runbook": "https://runbooks.example/slo-breach#q2q-ai",
    }


def test_a_profile_that_is_not_named_is_the_workbooks(tmp_path: Path) -> None:
    assert declared_as(tmp_path, ("    profile: workbook\n", "")).services["api-gateway"].profile == "workbook"


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        (("service: reporting\n", "service: api-gateway\n"), "services[1].service", "allowed: each service once"),
        (("team: web", "team: Web"), "services[3].team", "found 'Web'"),
        (("team: web", "team: cockpit"), "services[3].team", "found 'cockpit', allowed: web, as in slo-definitions"),
        (("team: web\n", "tema: web\n"), "services[3].tema", "found an unknown field"),
        (("second: 5\n", "second: 4\n"), "services[0].minimum_requests_per_second", "found 4, allowed: 5, as in"),
        (("second: 5\n", "second: -1\n"), "services[0].minimum_requests_per_second", "found -1"),
        (("interval: 30s", "interval: 30"), "services[0].evaluation_interval", "found 30"),
        (("interval: 30s", "interval: 0s"), "services[0].evaluation_interval", "allowed: a duration above 0"),
        (("interval: 30s", "interval: half a minute"), "services[0].evaluation_interval", "half a minute"),
        (("{page: 2,", "{page: 101,"), "services[0].declared_budget_percent.page", "found 101"),
        (("slo-{service}", "{service}"), "links.dashboard", "allowed: one that gives https://grafana.example/d/slo-"),
        (("https://grafana.example/d/slo-{", "grafana/{"), "links.dashboard", "found 'grafana/{service}'"),
        (("slo: availability", "slo: uptime"), "budget_exhausted.slo", "found 'uptime'"),
        (("below_percent: 10", "below_percent: 100"), "budget_exhausted.remaining_below_percent", "found 100"),
        (("service: q2q-ai, slo", "service: q2q, slo"), "service_alerts[2].slo", "allowed: an SLO of q2q: none"),
    ],
)  # fmt: skip
def test_a_fault_is_a_line_with_its_place(change: tuple[str, str], field: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        declared_as(tmp_path, change)
    at_field = [line for line in str(refused.value).split("\n") if f": {field}: " in line]
    assert at_field, str(refused.value)
    assert said in at_field[0]
    assert re.search(r"slo\.yaml:[0-9]+: ", at_field[0])


def test_a_service_without_an_entry_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"services: .*an entry for each service; missing: shop"):
        declared_as(tmp_path, slos=(*SLOS, replace(SLOS[0], service="shop", id="shop-availability")))


def test_an_entry_without_a_service_is_named(tmp_path: Path) -> None:
    without = tuple(slo for slo in SLOS if slo.service != "cockpit")
    with pytest.raises(ConfigurationError, match=r"services\[3\]\.service: found 'cockpit', allowed: a service with a"):
        declared_as(tmp_path, slos=without)


def test_an_alert_that_goes_to_another_team_is_named(tmp_path: Path) -> None:
    first = SLOS[0]
    assert first.page is not None
    wrong = replace(first, page=Alert(first.page.name, {**first.page.labels, "team": "web"}, first.page.annotations))
    with pytest.raises(ConfigurationError, match=r"services\[0\]\.team: found 'platform', allowed: web, as in"):
        declared_as(tmp_path, slos=(wrong, *SLOS[1:]))
