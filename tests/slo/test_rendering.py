"""The project's own declarations, rendered: five services, 24 alerts, the same bytes twice, valid for Prometheus."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from greenops_pipelines import gitops
from greenops_pipelines.errors import BadInput, ConfigurationError
from greenops_pipelines.slo import checks, rendering
from greenops_pipelines.slo.certificates import lines, of_objective
from greenops_pipelines.slo.configmap import configmap
from greenops_pipelines.slo.profiles import PROFILES
from tests.slo.conftest import SHARED, program
from tests.slo.test_generate import greenops

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> rendering.Slos:
    return rendering.read(ROOT / "ops")


@pytest.fixture(scope="module")
def tree(found: rendering.Slos, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    gitops.write(folder, rendering.files(found), "slo")
    return folder


def alerts_of(tree: Path) -> list[dict]:
    document = yaml.safe_load((tree / rendering.ALERTS).read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_objectives_and_budgets_are_those_of_the_requirements(found: rendering.Slos) -> None:
    rows = {r["slo_id"]: r for r in rendering.definitions_table(found).to_pylist()}
    budgets = {
        s: (rows[f"{s}-availability"]["objective"], rows[f"{s}-availability"]["error_budget_minutes"])
        for s in found.chosen
    }
    assert {s: (o, pytest.approx(b, abs=0.05)) for s, (o, b) in budgets.items()} == {
        "api-gateway": (99.9, 43.2),
        "reporting": (99.8, 86.4),
        "q2q-ai": (99.5, 216.0),
        "cockpit": (99.9, 43.2),
        "impact-in": (99.0, 432.0),
    }
    alerting = {r["slo_id"] for r in rows.values() if r["pages"] or r["tickets"]}
    assert alerting == {f"{service}-availability" for service in found.chosen}


def test_the_alert_file_holds_exactly_the_24_alerts(tree: Path) -> None:
    rules = alerts_of(tree)
    assert len(rules) == 24
    assert all("alert" in rule for rule in rules)
    burning = [rule for rule in rules if "sloth_severity" in rule["labels"]]
    assert len(burning) == 10
    assert sorted(rule["labels"]["severity"] for rule in burning) == ["critical"] * 5 + ["warning"] * 5
    named = " ".join(rule["alert"] for rule in rules)
    for part in (
        "Benevity",
        "Goodera",
        "Workday",
        "Lcp",
        "Inp",
        "Cls",
        "Llm",
        "GenAi",
        "Confidence",
        "CriticallyExhausted",
    ):
        assert named.count(part) == 1, part
    assert named.count("LatencyP95") == 4


def test_every_alert_says_who_what_and_where(tree: Path) -> None:
    for rule in alerts_of(tree):
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["labels"]["team"]
        assert rule["labels"]["service"]
        assert all(rule["annotations"][key] for key in ("summary", "description", "dashboard", "runbook")), rule[
            "alert"
        ]


def test_a_service_alert_is_its_slos_own_error_ratio_and_objective(found: rendering.Slos) -> None:
    rules = {rule.alert: rule for group in found.alerts for rule in group.rules}
    assert rules["ApiGatewayLatencyP95High"].expr == (
        "(\n"
        '  sum(rate(http_server_request_duration_seconds_count{service="api-gateway"}[5m]))\n'
        '  - sum(rate(http_server_request_duration_seconds_bucket{service="api-gateway", le="0.5"}[5m]))\n'
        ")\n/\n(\n"
        '  sum(rate(http_server_request_duration_seconds_count{service="api-gateway"}[5m]))\n'
        ") > 0.05\n"
    )
    assert rules["LlmCallFailureRateHigh"].expr.endswith(") * 600 >= 20\n")
    assert rules["ErrorBudgetCriticallyExhausted"].expr.endswith('{sloth_slo="availability"} < 0.1')


def test_two_renders_are_the_same_bytes(found: rendering.Slos) -> None:
    again = rendering.files(rendering.read(ROOT / "ops"))
    assert list(again.items()) == list(rendering.files(found).items())


def test_the_expected_series_are_within_the_planned_budget(found: rendering.Slos) -> None:
    measured = found.series()
    assert measured.outcome == "passed", measured.detail
    assert measured.target == 2250


def test_what_the_chain_promises_is_met(found: rendering.Slos) -> None:
    assert (checks.services(found).measured, checks.alerts(found).measured) == (5, 24)


def strict(schema: Any) -> Any:
    """Unknown fields refused, as the API server's strict mode does."""
    if isinstance(schema, dict):
        made = {key: strict(value) for key, value in schema.items()}
        if "properties" in made and not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
        if schema.get("x-kubernetes-int-or-string"):
            made.pop("type", None)
        return made
    return [strict(item) for item in schema] if isinstance(schema, list) else schema


def test_the_prometheus_rules_fit_the_operators_crd(tree: Path) -> None:
    path = SHARED / "crds" / "prometheus-operator" / "monitoring.coreos.com_prometheusrules.yaml"
    if not path.is_file():
        pytest.skip("missing: shared/crds, other projects' definitions beside the repository")
    crd = yaml.safe_load(path.read_text(encoding="utf-8"))
    schema = strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    for name, count in (("slo-alerts", 24), ("slo-recordings", 263)):
        document = yaml.safe_load((tree / "k8s" / "base" / f"{name}.yaml").read_text(encoding="utf-8"))
        Draft202012Validator(schema).validate(document)
        assert sum(len(group["rules"]) for group in document["spec"]["groups"]) >= count - 1
        document["spec"]["groups"][0]["unknown"] = 1
        assert not Draft202012Validator(schema).is_valid(document)


def test_the_definitions_travel_in_a_configmap(tree: Path) -> None:
    document = yaml.safe_load((tree / "k8s" / "base" / "slo-definitions.yaml").read_text(encoding="utf-8"))
    assert document["kind"] == "ConfigMap"
    for path in (ROOT / "ops" / "slo-definitions").glob("*.yaml"):
        assert document["data"][path.name] == path.read_text(encoding="utf-8")


def test_a_configmap_has_kubernetes_names_and_size() -> None:
    with pytest.raises(BadInput, match="found the name 'A_b'"):
        configmap("A_b", {})
    with pytest.raises(BadInput, match=r"found 1,048,578 bytes, allowed: at most 1,048,576"):
        configmap("a", {"k.": "x" * 1024 * 1024})


@pytest.mark.real
def test_prometheus_takes_the_rules(tree: Path) -> None:
    promtool = program("promtool", "Debian: prometheus")
    rules = sorted(map(str, (tree / rendering.PROMETHEUS / "rules").glob("*.yaml")))
    subprocess.run([promtool, "check", "rules", *rules], check=True, capture_output=True)


@pytest.mark.real
@pytest.mark.parametrize(
    "profile", ["", *(pytest.param(f"profiles/{name}", marks=pytest.mark.soak) for name in PROFILES)]
)
def test_prometheus_takes_the_tests_of_the_rules(tree: Path, profile: str) -> None:
    """The rules that are shipped, and under each profile; every test asks a step early as well, when nothing may fire."""
    promtool = program("promtool", "Debian: prometheus")
    files = sorted((tree / rendering.PROMETHEUS / profile / "tests").glob("*.yaml"))
    assert len(files) == 10
    for path in files:
        asked = [e for t in yaml.safe_load(path.read_text())["tests"] for e in t["promql_expr_test"]]
        assert any(e["exp_samples"] for e in asked)
        assert any(not e["exp_samples"] for e in asked)
        done = subprocess.run([promtool, "test", "rules", path.name], cwd=path.parent, capture_output=True, text=True)
        assert done.returncode == 0, f"{path}: {done.stdout}{done.stderr}"


@pytest.mark.real
def test_a_rule_that_fires_later_than_certified_is_caught(tree: Path, found: rendering.Slos, tmp_path: Path) -> None:
    program("promtool", "Debian: prometheus")
    spoilt = tmp_path / "tree"
    shutil.copytree(tree, spoilt)
    alerts = spoilt / rendering.ALERTS
    tested = spoilt / rendering.PROMETHEUS / "tests" / "rules" / "reporting-availability.yaml"
    for path in (alerts, tested):
        path.write_text(path.read_text().replace("> (14.4 * ", "> (16 * "), encoding="utf-8")
    # One service's tests are enough: the others' take as long and say the same.
    rendered = {
        path: text
        for path, text in rendering.files(found).items()
        if "/tests/" not in path or "/reporting-availability" in path
    }
    measured = checks.confirmed(found.certificates, rendered, spoilt)
    assert measured.outcome == "failed"
    assert "reporting-availability-page" in measured.detail
    # What is tested has to be what is loaded, and the tests alone would not see it.
    tested.write_text(rendered[str(tested.relative_to(spoilt))], encoding="utf-8")
    measured = checks.confirmed(found.certificates, rendered, spoilt)
    assert measured.outcome == "failed"
    assert "rules under test: not those that are loaded" in measured.detail
    assert "sloth-slo-alerts-reporting-availability" in measured.detail


def test_the_users_table_is_said_in_words_beside_the_workbook() -> None:
    said = "\n".join(lines(of_objective(99.9, "user-table")))
    assert "page: 12 % (workbook: 2 %) of the 30-day budget is gone before it fires" in said
    assert "ticket: 60 % (workbook: 5 %) of the 30-day budget is gone" in said
    assert "59 min (workbook: 4 min)" in said
    assert "5.95 h (workbook: 29 min)" in said
    assert "a steady burn above 1x and up to 6x never alerts" in said


BAD = [
    ("slo.yaml", "profile: workbook", "profile: google", "found 'google', allowed: one of 'workbook', 'user-table', 'sloth'"),
    ("slo.yaml", "{page: 2, ticket: 5}", "{page: 4, ticket: 5}", "found a declared budget of 4 %, allowed: 2 %"),
    ("slo.yaml", "profile: workbook", "profile: sloth", "found a declared budget of 2 %, allowed: 5 %"),
    ("slo.yaml", "service: api-gateway\n", "service: gateway\n", "found 'gateway', allowed: a service with a file"),
    ("slo.yaml", "slo: lcp", "slo: lpc", "found 'lpc', allowed: an SLO of cockpit"),
    ("slo.yaml", "evaluation_interval: 30s", "evaluation_interval: 5m", "at most 2m"),
    ("slo.yaml", "alert: CockpitInpSlow", "alert: CockpitLcpSlow", "found 'CockpitLcpSlow', allowed: each name once"),
    ("slo-definitions/api-gateway.yaml", "http_server_requests_total", "http_request_total", "nearest: http_server_requests_total"),
    ("slo-definitions/api-gateway.yaml", 'status=~"failed', 'state=~"failed', "'state'"),
    ("slo-definitions/api-gateway.yaml", "objective: 99.9", "objective: 100", "objective: found 100"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "message"), BAD, ids=[case[3][:45] for case in BAD])
def test_what_is_declared_wrongly_is_refused_by_name(
    file: str, old: str, new: str, message: str, tmp_path: Path
) -> None:
    ops = tmp_path / "ops"
    shutil.copytree(ROOT / "ops", ops)
    text = (ops / file).read_text(encoding="utf-8")
    assert old in text
    (ops / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        rendering.read(ops)
    assert message in str(refused.value)


def test_a_budget_that_differs_can_be_acknowledged(tmp_path: Path) -> None:
    ops = tmp_path / "ops"
    shutil.copytree(ROOT / "ops", ops)
    text = (ops / "slo.yaml").read_text(encoding="utf-8")
    known = "profile: user-table\n    acknowledged: the board wants fewer pages than the workbook gives"
    (ops / "slo.yaml").write_text(text.replace("profile: workbook", known, 1), encoding="utf-8")
    found = rendering.read(ops)
    assert found.chosen["api-gateway"] == "user-table"
    assert "slo:sli_error:ratio_rate5m" in {rule.record for group in found.recordings for rule in group.rules}


def test_the_command_line_certifies_and_renders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(ROOT / "ops"))
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path / "home"))
    assert greenops(monkeypatch, "slo", "certify", "--json") == 0
    certificates = json.loads(capsys.readouterr().out)["certificates"]
    assert [c["slo"] for c in certificates if c["is_chosen"]] == [
        f"{service}-availability" for service in ("api-gateway", "cockpit", "impact-in", "q2q-ai", "reporting")
    ]
    page = certificates[0]["alerts"][0]
    assert page["severity"] == "page"
    # 14.4 x 0.1 % of an hour at 100 % errors.
    assert page["timings"][0]["detection_seconds"] == pytest.approx(51.84)
    assert greenops(monkeypatch, "slo", "certify", "--profile", "google") == 2
    assert "found 'google', allowed: workbook, user-table, sloth" in capsys.readouterr().err
    assert greenops(monkeypatch, "render", "--out", str(tmp_path / "tree")) == 0
    assert greenops(monkeypatch, "render", "--out", str(tmp_path / "tree"), "--json") == 0
    out = capsys.readouterr().out
    again = json.loads(out[out.index("{") :])
    assert (again["changed"], again["removed"]) == ([], [])
    assert again["files"] >= 60
