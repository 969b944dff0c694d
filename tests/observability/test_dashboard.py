"""The rendered dashboards: each promised feature, Grafana's own schemas, the layout, and the same bytes twice."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from greenops_pipelines.errors import BadInput
from greenops_pipelines.observability import dashboard, slo_panels
from greenops_pipelines.observability.subjects import Subjects, runbook_of, uid_of
from tests.observability.conftest import ROOT, panel, queries_of

SCHEMAS = ROOT.parent / "shared" / "schemas" / "grafana"
SERVICES = ["api-gateway", "reporting", "q2q-ai", "cockpit", "impact-in"]
Dashboard = dict[str, Any]


def test_one_overview_and_one_dashboard_per_service_under_the_uids_of_the_alerts_links(
    dashboards: dict[str, Dashboard], subjects: Subjects
) -> None:
    assert set(dashboards) == {"slo-overview", *(f"slo-{service}" for service in SERVICES)}
    assert {uid_of(alert.dashboard) for alert in subjects.alerts} == set(dashboards)


# The features of the SLO dashboard, one by one.


def test_feature_error_budget_gauge_per_service_over_rolling_30_days(overview: Dashboard) -> None:
    shown = panel(overview, "Error budget left, rolling 30 days")
    assert shown["type"] == "gauge"
    assert queries_of(shown) == [
        'slo:period_error_budget_remaining:ratio{sloth_service=~"$service", sloth_slo="availability"}'
    ]
    defaults = shown["fieldConfig"]["defaults"]
    assert (defaults["unit"], defaults["min"], defaults["max"]) == ("percentunit", 0, 1)
    # Below a tenth is where the alert on exhausted budgets stands, below a quarter the ledger calls it yellow.
    assert [(step["value"], step["color"]) for step in defaults["thresholds"]["steps"]] == [
        (None, "red"),
        (0.1, "yellow"),
        (0.25, "green"),
    ]


def test_feature_burn_rate_lines_over_7_days(overview: Dashboard) -> None:
    shown = panel(overview, "Burn rate, last 7 days")
    assert (shown["type"], shown["timeFrom"]) == ("timeseries", "7d")
    now, mean = queries_of(shown)
    assert now == 'slo:current_burn_rate:ratio{sloth_service=~"$service", sloth_slo="availability"}'
    assert mean == f"avg_over_time({now}[7d:5m])"
    steps = shown["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [step["value"] for step in steps] == [None, 1, 6, 14.4]


def test_feature_compliance_status_in_green_yellow_and_red(overview: Dashboard) -> None:
    shown = panel(overview, "Compliance")
    assert shown["type"] == "stat"
    assert queries_of(shown) == [
        'min by (sloth_service) (slo:period_error_budget_remaining:ratio{sloth_service=~"$service"})'
    ]
    words = [
        (each["options"]["from"], each["options"]["to"], each["options"]["result"]["text"])
        for each in shown["fieldConfig"]["defaults"]["mappings"]
    ]
    assert words == [(0.25, None, "met"), (None, 0, "missed"), (0, 0.25, "at risk")]
    steps = shown["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["value"], step["color"]) for step in steps] == [(None, "red"), (0, "yellow"), (0.25, "green")]


def test_feature_latency_heatmap_with_p50_p95_and_p99(overview: Dashboard) -> None:
    heat, quantiles = panel(overview, "Latency, distribution"), panel(overview, "Latency, P50, P95, P99")
    assert (heat["type"], heat["options"]["calculate"], heat["targets"][0]["format"]) == ("heatmap", False, "heatmap")
    rates = (
        'rate(http_server_request_duration_seconds_bucket{service=~"$service", environment="$environment"}'
        "[$__rate_interval])"
    )
    assert queries_of(heat) == [f"sum by (le) ({rates})"]
    assert queries_of(quantiles) == [
        f"histogram_quantile({q}, sum by (service, le) ({rates}))" for q in ("0.5", "0.95", "0.99")
    ]
    assert heat["timeFrom"] == quantiles["timeFrom"] == "$timeRange"
    # 0.5 s is api-gateway's promise, 10 s impact-in's.
    steps = quantiles["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [step["value"] for step in steps] == [None, 0.5, 10]


def test_feature_drill_downs_to_the_dashboards_of_the_services(overview: Dashboard) -> None:
    assert [f"/d/slo-{service}" for service in SERVICES] == [each["url"] for each in overview["links"][:5]]
    for title in ("Compliance", "Error budget", "Burn rate"):
        links = panel(overview, title)["fieldConfig"]["defaults"]["links"]
        assert links[0]["url"].startswith("/d/slo-${__field.labels.sloth_service}?${environment:queryparam}&")


def test_feature_deployment_annotations(overview: Dashboard) -> None:
    found = {each["name"]: each for each in overview["annotations"]["list"]}
    assert "rollout_info{" in found["Rollouts"]["expr"]
    assert found["Rollouts"]["titleFormat"] == "Rollout of {{name}}"
    assert found["Versions"]["expr"].startswith("count by (service, version) (up{")
    assert " unless count by (service, version) (up{" in found["Versions"]["expr"]


def test_feature_runbook_links(overview: Dashboard, dashboards: dict[str, Dashboard]) -> None:
    books = {each["url"] for each in overview["links"] if each["title"].startswith("Runbook")}
    assert books == {f"https://runbooks.example/slo-breach#{service}" for service in SERVICES}
    own = {each["url"] for each in dashboards["slo-cockpit"]["links"]}
    assert own == {"/d/slo-overview", "https://runbooks.example/slo-breach#cockpit"}


def test_feature_variables(overview: Dashboard) -> None:
    found = {each["name"]: each for each in overview["templating"]["list"]}
    service = found["service"]
    assert (service["multi"], service["includeAll"], service["query"]) == (True, True, ",".join(SERVICES))
    assert [each["value"] for each in found["timeRange"]["options"]] == ["1h", "6h", "1d", "7d", "30d"]
    assert [each["value"] for each in found["environment"]["options"]] == ["production", "staging"]
    # Recorded series do not know their environment: the data source does.
    sources = {name: (found[name]["query"], found[name]["regex"]) for name in ("datasource", "logs", "traces")}
    assert sources == {
        "datasource": ("prometheus", "/^prometheus-$environment$/"),
        "logs": ("loki", "/^loki-$environment$/"),
        "traces": ("tempo", "/^tempo-$environment$/"),
    }
    assert dashboard.source_names(["production"]) == {
        "prometheus-production": "prometheus",
        "loki-production": "loki",
        "tempo-production": "tempo",
    }


def test_feature_logs_and_traces_in_every_dashboard(dashboards: dict[str, Dashboard]) -> None:
    for each in dashboards.values():
        assert panel(each, "Errors in the logs")["datasource"] == {"type": "loki", "uid": "${logs}"}
        assert panel(each, "Failed traces")["datasource"] == {"type": "tempo", "uid": "${traces}"}


def test_environment_is_asked_of_emitted_series_and_of_no_recorded_one(dashboards: dict[str, Dashboard]) -> None:
    for each in dashboards.values():
        for shown in each["panels"]:
            for target in shown.get("targets", []):
                expr = target.get("expr", "")
                if "slo:" in expr or "ALERTS" in expr:
                    assert "environment" not in expr
                elif target["datasource"]["type"] == "prometheus":
                    assert expr.count('environment="$environment"') == expr.count("rate(")


def test_a_service_shows_what_it_promises(dashboards: dict[str, Dashboard]) -> None:
    vitals = [each["title"] for each in dashboards["slo-cockpit"]["panels"] if each["type"] == "heatmap"]
    assert vitals == [
        "Largest Contentful Paint, distribution",
        "Interaction to Next Paint, distribution",
        "Cumulative Layout Shift, distribution",
    ]
    lcp = panel(dashboards["slo-cockpit"], "Largest Contentful Paint, P50")["fieldConfig"]["defaults"]
    assert (lcp["unit"], [step["value"] for step in lcp["thresholds"]["steps"]]) == ("s", [None, 2.5])
    inp = panel(dashboards["slo-cockpit"], "Interaction to Next Paint, P50")["fieldConfig"]["defaults"]
    assert (inp["unit"], inp["thresholds"]["steps"][1]["value"]) == ("ms", 200)
    latency = panel(dashboards["slo-reporting"], "Latency, P50")["fieldConfig"]["defaults"]
    assert [step["value"] for step in latency["thresholds"]["steps"]] == [None, 2]


def test_a_profile_that_opens_tickets_from_1_on_has_no_band_without_alerts(subjects: Subjects) -> None:
    services = tuple(replace(each, ticket_burn=1.0) for each in subjects.services)
    shown = slo_panels.burn(replace(subjects, services=services), None).build()
    assert [step.value for step in shown.field_config.defaults.thresholds.steps] == [None, 1.0, 14.4]


# The documents as a whole.


def _schema_errors(file: str, definition: str, value: object) -> list[str]:
    schema = json.loads((SCHEMAS / f"{file}.jsonschema.json").read_text(encoding="utf-8"))
    validator = Draft7Validator({"$ref": f"#/definitions/{definition}", "definitions": schema["definitions"]})
    return [f"{definition}: {'/'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(value)]


_QUERY = {"prometheus": "Dataquery", "loki": "dataquery", "tempo": "Dataquery"}


def test_documents_and_panels_are_valid_by_grafanas_own_schemas(dashboards: dict[str, Dashboard]) -> None:
    if not SCHEMAS.is_dir():
        pytest.skip("missing: shared/schemas/grafana, Grafana's schemas beside the repository")
    errors: list[str] = []
    seen: Counter[str] = Counter()
    for each in dashboards.values():
        errors += _schema_errors("dashboard", "Dashboard", each | {"panels": []})
        for shown in each["panels"]:
            kind = shown["type"]
            seen[kind] += 1
            if kind == "row":
                errors += _schema_errors("dashboard", "RowPanel", shown)
                continue
            # The generated schema has `any` as `object`. An override's matcher `byName` takes a text, and links a list.
            bare = (
                shown | {"fieldConfig": shown["fieldConfig"] | {"overrides": []}} if "fieldConfig" in shown else shown
            )
            errors += _schema_errors("dashboard", "Panel", bare)
            errors += _schema_errors(kind, "Options", shown["options"])
            if kind in ("timeseries", "table", "heatmap"):
                custom = shown["fieldConfig"]["defaults"].get("custom", {})
                errors += _schema_errors(kind, "FieldConfig", custom)
            for target in shown["targets"]:
                source = target["datasource"]["type"]
                errors += _schema_errors(source, _QUERY[source], target)
    assert errors == []
    assert set(seen) == {"row", "stat", "gauge", "timeseries", "table", "heatmap", "logs"}


def test_units_are_grafanas_own(dashboards: dict[str, Dashboard]) -> None:
    if not SCHEMAS.is_dir():
        pytest.skip("missing: shared/schemas/grafana, Grafana's schemas beside the repository")
    schema = json.loads((SCHEMAS / "units.jsonschema.json").read_text(encoding="utf-8"))
    known = {each["const"] for each in schema["definitions"].values() if "const" in each}
    units = {
        shown["fieldConfig"]["defaults"]["unit"]
        for each in dashboards.values()
        for shown in each["panels"]
        if shown["type"] not in ("row", "logs")
    }
    assert units - known == {"suffix:x"}
    assert units & known == {"percentunit", "s", "ms", "reqps", "none"}


def test_the_overview_lies_as_declared(overview: Dashboard) -> None:
    places = {each["title"]: tuple(each["gridPos"][k] for k in "xywh") for each in overview["panels"]}
    assert places["Promises"] == (0, 0, 24, 1)
    assert places["Compliance"] == (0, 1, 24, 5)
    assert places["Error budget left, rolling 30 days"] == (0, 6, 24, 7)
    assert places["Burn rate, last 7 days"] == (0, 14, 16, 10)
    assert places["Alerts"] == (16, 14, 8, 10)


def test_rendering_twice_gives_the_same_bytes_in_another_process_too(
    rendered: dict[str, str], subjects: Subjects
) -> None:
    assert dashboard.files(subjects) == {path: text for path, text in rendered.items() if path.endswith(".json")}
    program = (
        "import hashlib, pathlib; from greenops_pipelines import observed; from greenops_pipelines.slo import rendering;"
        "from greenops_pipelines.slo.canary import read_canary; ops = pathlib.Path('ops'); s = rendering.read(ops);"
        "files = observed.files(observed.subjects(s, read_canary(ops, s.declared, s.slos, s.catalogue)));"
        "print(hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == hashlib.sha256(repr(sorted(rendered.items())).encode()).hexdigest()


def test_the_text_is_canonical_and_numbered_by_nobody_else(rendered: dict[str, str]) -> None:
    for path, text in rendered.items():
        if path.endswith(".json"):
            document = json.loads(text)
            assert text == json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
            assert not {"id", "version", "iteration"} & set(document)


@pytest.mark.parametrize("link", ["https://grafana.example/slo", "https://grafana.example/d/", "https://g.example/d/ü"])
def test_a_link_without_a_uid_is_refused(link: str) -> None:
    with pytest.raises(BadInput, match=r"allowed: https://\.\.\./d/<uid>"):
        uid_of(link)


def test_links_to_runbooks_have_page_and_anchor() -> None:
    assert runbook_of("https://runbooks.example/slo-breach#q2q-ai") == ("slo-breach", "q2q-ai")
    with pytest.raises(BadInput, match=r"allowed: https://<host>/<page>#<anchor>"):
        runbook_of("https://runbooks.example/a/b#c")
