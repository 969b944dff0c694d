"""The generated rule tests: one by hand, all of them with the real promtool, and with rules that are wrong."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.model import Alert, Events, Raw, Slo
from greenops_pipelines.slo.output import prometheus
from greenops_pipelines.slo.profiles import PROFILES
from greenops_pipelines.slo.rule_tests import promtool_tests
from greenops_pipelines.slo.rules import Options, compile_slo
from greenops_pipelines.slo.traffic import Series, series_of
from greenops_pipelines.slo.windows import Window, Windows
from tests.slo.conftest import program

AVAILABILITY = Events(
    'sum(rate(hits_total{service="shop",status=~"failed|error|5xx"}[{{.window}}]))',
    'sum(rate(hits_total{service="shop"}[{{.window}}]))',
)
LATENCY = Events(
    'sum(rate(wait_seconds_count{service="shop"}[{{.window}}]))'
    ' - sum(rate(wait_seconds_bucket{service="shop",le="0.5"}[{{.window}}]))',
    'sum(rate(wait_seconds_count{service="shop"}[{{.window}}]))',
)
PAGE, TICKET = Alert("ShopBurn", {"severity": "critical"}, {"summary": "{{ $value }}"}), Alert("ShopBurn")


def slo(
    objective: float = 99.9, events: Events | None = AVAILABILITY, raw: Raw | None = None, *, alerts: bool = True
) -> Slo:
    return Slo(
        "shop-a", "a", "shop", objective, timedelta(days=30), events, raw,
        page=PAGE if alerts else None, ticket=TICKET if alerts else None,
    )  # fmt: skip


def ratio(query: str) -> Slo:
    return slo(events=None, raw=Raw(query))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            slo(),
            {'hits_total{service="shop",status="failed"}': (0, 1), 'hits_total{service="shop",status="other"}': (1, 0)},
        ),
        (
            slo(events=LATENCY),
            {'wait_seconds_count{service="shop"}': (1, 1), 'wait_seconds_bucket{service="shop",le="0.5"}': (1, 0)},
        ),
        (
            ratio('1 - (sum(rate(ok_total{a!~"x|y"}[{{.window}}])) / sum(rate(all_total[{{.window}}])))'),
            {'ok_total{a="other"}': (1, 0), "all_total{}": (1, 1)},
        ),
        (
            ratio(
                '(sum(rate(r_total{code=~"(5..|429)"}[{{ .window }}])) or vector(0)) / sum(rate(r_total[{{.window}}]))'
            ),
            {'r_total{code="500"}': (0, 1), 'r_total{code="other"}': (1, 0)},
        ),
        (
            ratio('sum(increase(r_total{ok!="yes"}[{{.window}}])) / (sum(increase(r_total[{{.window}}])) > 0)'),
            {'r_total{ok="yes"}': (1, 0), 'r_total{ok="other"}': (0, 1)},
        ),
    ],
)
def test_the_counters_behind_a_query(given: Slo, expected: dict[str, tuple[float, float]]) -> None:
    assert {series.selector: (series.good, series.bad) for series in series_of(given)} == expected


@pytest.mark.parametrize(
    "query",
    [
        "avg_over_time(\n  (up < bool 1)[{{.window}}:1m]\n)",
        "sum(rate(a_total[{{.window}}] offset 1m)) / sum(rate(a_total[{{.window}}]))",
        "sum(rate(a_total[{{.window}}])) / sum(rate(a_total[{{.window}}]))",
        'sum(rate(a_total{x=~"[^a]+z{3}"}[{{.window}}])) / sum(rate(a_total[{{.window}}]))',
        "vector(1)",
    ],
)
def test_a_query_that_cannot_be_solved_is_refused_in_one_line(query: str) -> None:
    with pytest.raises(
        BadInput, match=r"^shop-a: sli: found .*, allowed for a derived rule test: sums of rates"
    ) as caught:
        series_of(ratio(query))
    assert "\n" not in str(caught.value)


def test_one_test_by_hand() -> None:
    found = promtool_tests(slo(), PROFILES["workbook"], ["rules.yaml"], error_percents=[10])
    page = yaml.safe_load(found["page"])
    assert page["rule_files"] == ["rules.yaml"]
    assert page["evaluation_interval"] == "1m"
    assert page["group_eval_order"] == [
        "sloth-slo-sli-recordings-shop-a", "sloth-slo-meta-recordings-shop-a", "sloth-slo-alerts-shop-a",
    ]  # fmt: skip
    (test,) = page["tests"]
    assert test["name"] == "shop-a: page at 10 % errors fires within 9 min, and for 4 min after the outage"
    # The 1-hour window is full at minute 60. Certified are 8.64 min, so an outage that starts at 60.86 shows at 69.5, and
    # rules are evaluated at 69 and 70. By minute 61 it has lasted 0.14 min: 6000 x 0.1 x 0.14 requests have failed.
    bad, good = (series["values"].split() for series in test["input_series"])
    assert bad[:3] == ["0+0x60", "84+84x0", "684+600x9"]
    assert good[:3] == ["0+6000x60", "365916+5916x0", "371316+5400x9"]
    fires = 'count(ALERTS{alertname="ShopBurn",alertstate="firing",sloth_id="shop-a",sloth_severity="page"})'
    assert {expectation["expr"] for expectation in test["promql_expr_test"]} == {fires}
    # From 71.22 on nothing fails any more; 4.28 min later, at 75.5, the 5-minute window is below the threshold.
    assert [(e["eval_time"], len(e["exp_samples"])) for e in test["promql_expr_test"]] == [
        ("1h9m", 0), ("1h10m", 1), ("1h15m", 1), ("1h16m", 0),
    ]  # fmt: skip


def test_long_windows_have_a_twin_a_minute_later_that_must_not_fire() -> None:
    ticket = yaml.safe_load(promtool_tests(slo(), PROFILES["user-table"], ["r"], error_percents=[10])["ticket"])
    assert ticket["evaluation_interval"] == "30m"
    seen, twin = ticket["tests"]
    assert seen["name"] == "shop-a: ticket at 10 % errors fires within 4.33 h, and for 5.63 h after the outage"
    assert twin["name"] == "shop-a: ticket at 10 % errors a minute later: not yet, and not yet over"
    # 72 h full, 4.32 h to detection: evaluated at 76.5 h.
    at = [(t["promql_expr_test"][0]["eval_time"], len(t["promql_expr_test"][0]["exp_samples"])) for t in (seen, twin)]
    assert at == [("3d4h30m", 1), ("3d4h30m", 0)]
    # A minute's worth of errors is all the difference there is: 1/30 of a step at 10 %.
    until = [float(test["input_series"][0]["values"].split()[1].split("+")[0]) for test in (seen, twin)]
    assert until[0] - until[1] == pytest.approx(6000 * 0.1 / 30)


def test_each_pair_is_alone_at_one_rate_and_an_unreachable_rate_must_stay_silent() -> None:
    names = [t["name"] for t in yaml.safe_load(promtool_tests(slo(), PROFILES["sloth"], ["r"])["page"])["tests"]]
    # 1.37 % is a burn of 13.7, below 14.4: 360 min x 0.006 / 0.0137.
    assert names[2] == "shop-a: page at 1.37 % errors fires within 2.63 h, and for 16 min after the outage"
    found = promtool_tests(slo(99.0), PROFILES["workbook"], ["r"])
    silent = yaml.safe_load(found["page"])["tests"][1]
    assert silent["name"] == "shop-a: page at 10 % errors never fires, even when all windows are full"
    assert [(e["eval_time"], e["exp_samples"]) for e in silent["promql_expr_test"]] == [("2h", []), ("2h1m", [])]
    # 10 % of a 90 % objective is a burn of exactly 1: rounding would decide, so it is left out.
    tests = yaml.safe_load(promtool_tests(slo(90), PROFILES["sloth"], ["r"])["ticket"])["tests"]
    assert {test["name"].split(" errors")[0] for test in tests} == {
        "shop-a: ticket at 100 %", "shop-a: ticket at 28.5 %",
    }  # fmt: skip


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(BadInput, match=r"shop-a: alerting: found no enabled alert"):
        promtool_tests(slo(alerts=False), PROFILES["workbook"], ["r"])
    odd = Window(2, timedelta(seconds=90), timedelta(hours=1))
    with pytest.raises(
        BadInput, match=r"shop-a: page windows: found 1m30s, 1h, allowed for a rule test: whole minutes"
    ):
        promtool_tests(slo(), Windows(timedelta(days=30), odd, odd, odd, odd), ["r"])


def verdicts(
    folder: Path, tested: Slo, windows: Windows, compiled: Windows | None = None, series: list[Series] | None = None
) -> dict[str, tuple[bool, str]]:
    """What promtool says by severity; `compiled` are windows of the rules that differ from those of the tests."""
    promtool = program("promtool", "Debian: prometheus")
    (folder / "rules.yaml").write_text(prometheus(compile_slo(tested, compiled or windows, Options()), "test"))
    found = {}
    for severity, text in promtool_tests(tested, windows, ["rules.yaml"], series=series).items():
        (folder / f"{severity}.yaml").write_text(text)
        done = subprocess.run(
            [promtool, "test", "rules", f"{severity}.yaml"], cwd=folder, capture_output=True, text=True, check=False
        )
        found[severity] = (done.returncode == 0, done.stdout + done.stderr)
    return found


PASSED = {"page": True, "ticket": True}


@pytest.mark.real
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "objective", [99.9, *(pytest.param(each, marks=pytest.mark.soak) for each in (99.5, 99.0, 90.0))]
)
def test_prometheus_fires_at_the_certified_minute(tmp_path: Path, profile: str, objective: float) -> None:
    found = verdicts(tmp_path, slo(objective), PROFILES[profile])
    assert {severity: ok for severity, (ok, _) in found.items()} == PASSED, found


@pytest.mark.real
def test_latency_from_a_histogram_and_named_series(tmp_path: Path) -> None:
    assert all(ok for ok, _ in verdicts(tmp_path, slo(95, LATENCY), PROFILES["workbook"]).values())
    named = [Series('up_total{x="1"}', 1, 1), Series('down_total{x="1"}', 0, 1)]
    raw = ratio("avg(rate(down_total[{{.window}}])) / avg(rate(up_total[{{.window}}]))")
    assert all(ok for ok, _ in verdicts(tmp_path, raw, PROFILES["workbook"], series=named).values())


def _page(budget: float, short: timedelta, long: timedelta) -> Windows:
    pair, ticket = Window(budget, short, long), PROFILES["workbook"].ticket_quick
    return Windows(timedelta(days=30), pair, pair, ticket, ticket)


@pytest.mark.real
@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        # 8.64 min at 10 %: a factor 8 % higher makes it 9.33, one 8 % lower 7.95, which the half minutes tell apart.
        (_page(2.16, timedelta(minutes=5), timedelta(hours=1)), "got:nil"),
        (_page(1.84, timedelta(minutes=5), timedelta(hours=1)), "exp:nil"),
        # The same factor over other windows: 2 % x 65/60, and a reset a minute later.
        (_page(2 * 65 / 60, timedelta(minutes=5), timedelta(minutes=65)), "got:nil"),
        (_page(2, timedelta(minutes=6), timedelta(hours=1)), "exp:nil"),
    ],
)
def test_rules_that_are_a_little_wrong_fail(tmp_path: Path, wrong: Windows, fault: str) -> None:
    found = verdicts(tmp_path, slo(), PROFILES["workbook"], compiled=wrong)
    assert {severity: ok for severity, (ok, _) in found.items()} == {"page": False, "ticket": True}
    assert fault in found["page"][1].replace(" ", "")
