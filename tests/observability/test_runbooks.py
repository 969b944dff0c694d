"""Runbooks: one for each alert, the promised steps in each, and every command, query and link in them in order."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import duckdb
import pytest

from greenops_pipelines import gitops, observed
from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.observability import commands, links, runbook_checks, runbooks
from greenops_pipelines.observability.subjects import Subjects
from tests.observability.conftest import ROOT

BREACH = (
    "1. Acknowledge",
    "2. Look at the dashboard",
    "3. Look for recent rollouts",
    "4. Look at the logs",
    "5. Decide",
    "6. Undo",
    "7. Watch the recovery",
    "8. Post-mortem within 24 hours",
)
CANARY = (
    "1. Find the metric that failed",
    "2. Ask the canary's query",
    "3. Compare with the stable version",
    "4. Look at the canary's logs",
    "5. Look at its dependencies",
    "6. Document",
)
LCP = "runbooks/alerts/cockpit-lcp-slow.md"


def steps(markdown: str) -> tuple[str, ...]:
    return tuple(re.findall(r"^## (.+)$", markdown, re.MULTILINE))


def test_every_one_of_the_24_alerts_has_one_page_with_the_steps_of_a_breach(
    rendered: dict[str, str], subjects: Subjects
) -> None:
    assert len(subjects.alerts) == 24
    paths = [runbooks.path_of(subjects, alert) for alert in subjects.alerts]
    assert sorted(paths) == sorted(path for path in rendered if path.startswith("runbooks/alerts/"))
    for alert, path in zip(subjects.alerts, paths, strict=True):
        assert rendered[path].startswith(f"# {alert.name} ({alert.severity})\n")
        assert steps(rendered[path]) == BREACH


def test_every_service_has_a_canary_page_with_the_steps_of_an_investigation(
    rendered: dict[str, str], subjects: Subjects
) -> None:
    for service in subjects.services:
        page = rendered[f"runbooks/canary/{service.name}.md"]
        assert steps(page) == CANARY
        asked = [block.text for block in runbook_checks.blocks(page) if block.language == "promql"]
        # Each gate's own query, and two about dependencies.
        assert len(asked) == len(service.canary.gates) + 2
        for gate in service.canary.gates:
            assert f"`{gate.name}`" in page


def test_canary_and_stable_version_are_asked_the_gates_own_question(
    rendered: dict[str, str], subjects: Subjects
) -> None:
    for service in subjects.services:
        asked = [
            words[-1]
            for block in runbook_checks.blocks(rendered[f"runbooks/canary/{service.name}.md"])
            if block.language == "sh"
            for words in commands.split(block.text)
            if words[0] == "promtool"
        ]
        for gate, canary, stable in zip(service.canary.gates, asked[::2], asked[1::2], strict=True):
            question = gate.query.strip().replace('"', "'")
            assert canary == question.replace("{{args.canary-hash}}", "$CANARY")
            assert stable == question.replace("{{args.canary-hash}}", "$STABLE")
            assert "$CANARY" in canary


def test_the_gates_are_as_many_as_promised(subjects: Subjects) -> None:
    gates = {service.name: len(service.canary.gates) for service in subjects.services}
    assert (gates["api-gateway"], gates["reporting"], gates["q2q-ai"]) == (6, 5, 5)


def test_links_of_alerts_lead_to_a_heading(pages: links.Pages, subjects: Subjects) -> None:
    wanted = {links.runbook_of(alert.runbook) for alert in subjects.alerts}
    assert wanted == {("slo-breach", each) for each in (*(s.name for s in subjects.services), "error-budget-exhausted")}
    assert {anchor for _, anchor in wanted} <= pages["runbooks/slo-breach.md"]


def test_real_names_stand_in_a_page(rendered: dict[str, str]) -> None:
    page = rendered[LCP]
    for expected in (
        "kubectl argo rollouts undo cockpit -n production",
        '{service_name="cockpit", k8s_namespace_name="production"}',
        'web_vitals_lcp_seconds_bucket{service="cockpit", le="2.5"}',
        "amtool alert query alertname=CockpitLcpSlow severity=warning",
        "where slo_id in ('cockpit-lcp')",
        "It fires when this has an answer for 15m",
        "pictures, fonts, third-party scripts",
    ):
        assert expected in page
    assert "{{" not in re.sub(r"```.*?```", "", page, flags=re.DOTALL)


def test_the_alert_over_all_services_speaks_of_each(rendered: dict[str, str], subjects: Subjects) -> None:
    page = rendered["runbooks/alerts/error-budget-critically-exhausted.md"]
    for service in subjects.services:
        assert f"kubectl argo rollouts undo {service.name} -n production" in page
        assert f"'{service.name}-availability'" in page


def test_what_is_rendered_has_no_fault(
    rendered: dict[str, str], subjects: Subjects, connection: duckdb.DuckDBPyConnection
) -> None:
    assert observed.faults(rendered, subjects, connection) == []
    languages = {b.language for text in rendered.values() for b in runbook_checks.blocks(text)}
    assert languages == {"sh", "promql", "logql", "sql"}


def test_every_path_can_be_written(rendered: dict[str, str], tmp_path: Any) -> None:
    done = gitops.write(tmp_path, rendered, "observability")
    assert done.files == 6 + 24 + 5 + 2
    assert gitops.write(tmp_path, rendered, "observability").digest == done.digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("--since=30m", "--sinse=30m", "kubectl logs: found the option --sinse"),
        ("kubectl argo rollouts undo", "kubectl argo rollout undo", "found 'kubectl argo rollout undo'"),
        ("greenops status", "greenops state", "found 'greenops state --json'"),
        ("greenops slo certify --json", "greenops slo certify --yaml", "greenops slo certify: found the option --yaml"),
        ("severity=warning -o extended", "severity=warning -o 'extended", "found no shell"),
        ("amtool silence expire", "if amtool silence expire", "syntax error"),
        ("slo:current_burn_rate:ratio", "slo:current_burn:ratio", "promtool: found the metric"),
        ("rate(http_server_requests_total", "rate(http_requests_total", "found the metric 'http_requests_total'"),
        ("{service_name=", "{service=", "found the stream label 'service'"),
        ("{service_name=", "{service=", "logcli: found the stream label 'service'"),
        ("from slo_minutes", "from slo_minute", "found no SQL of this warehouse"),
        ("select slo_id, minute, bad", "select slo_id, minute, good", "found no SQL of this warehouse"),
        ("../canary/cockpit.md", "../canary/cockpits.md", "runbooks/canary/cockpits.md is none"),
        ("/d/slo-overview", "/d/slo-all", "found the link https://grafana.example/d/slo-all"),
        ("../slo-breach.md", "../slo-breach.md#nobody", "allowed: a heading of runbooks/slo-breach.md"),
        ("```sql", "```SQL", "found a block in SQL, allowed: sh, promql, logql, sql"),
        ("# CockpitLcpSlow (", "# CockpitLcpSlower (", "CockpitLcpSlow (warning): found 0 runbooks"),
        ("# CockpitLcpSlow (", "# CockpitLcpSlower (", "found a page '# CockpitLcpSlower (warning)'"),
    ],
)
def test_a_fault_of_a_page_is_found(
    old: str,
    new: str,
    said: str,
    rendered: dict[str, str],
    subjects: Subjects,
    connection: duckdb.DuckDBPyConnection,
) -> None:
    assert old in rendered[LCP]
    # Of the other pages what links and alerts look for, so that the one page is read and nothing else.
    stubs = {path: f"{text.splitlines()[0]}\n" for path, text in rendered.items() if path.endswith(".md")}
    stubs["runbooks/slo-breach.md"] = (
        "".join(f"## {each.name}\n" for each in subjects.services) + "## Error budget exhausted\n"
    )
    kept = stubs | {LCP: rendered[LCP]}
    assert runbook_checks.faults(kept, subjects, connection) == []
    kept[LCP] = kept[LCP].replace(old, new)
    found = runbook_checks.faults(kept, subjects, connection)
    assert any(said in fault for fault in found), found


def test_a_second_page_for_an_alert_is_found(
    rendered: dict[str, str], subjects: Subjects, connection: duckdb.DuckDBPyConnection
) -> None:
    title = rendered[LCP].splitlines()[0]
    found = runbook_checks.faults({LCP: title, "runbooks/alerts/again.md": title}, subjects, connection)
    assert any(fault.startswith("CockpitLcpSlow (warning): found 2 runbooks") for fault in found)


def test_a_link_to_another_page_is_refused_before_anything_is_rendered(subjects: Subjects) -> None:
    strayed = replace(subjects.alerts[0], runbook="https://runbooks.example/elsewhere#x")
    with pytest.raises(ConfigurationError, match="found links to elsewhere, slo-breach"):
        runbooks.files(replace(subjects, alerts=(strayed, *subjects.alerts[1:])))


def test_a_prometheus_outside_the_cluster_is_not_forwarded(subjects: Subjects) -> None:
    inside = runbooks.files(subjects)["runbooks/slo-breach.md"]
    assert "kubectl port-forward service/prometheus 9090:9090 -n observability" in inside
    outside = runbooks.files(replace(subjects, prometheus="https://prometheus.example"))["runbooks/slo-breach.md"]
    assert "port-forward" not in outside


def test_anchors_are_those_that_renderers_make() -> None:
    markdown = "# A b\n## Error budget exhausted\n```sh\n# no heading\n```\n### q2q-ai, twice!\n"
    assert links.anchors(markdown) == {"a-b", "error-budget-exhausted", "q2q-ai-twice"}


def test_no_machine_path_stands_in_what_is_rendered(rendered: dict[str, str]) -> None:
    assert not [path for path, text in rendered.items() if str(ROOT) in text]
