"""The figures of the workbook, of the user's table and of Sloth's defaults, each worked out by hand."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path

import pytest

from greenops_pipelines.errors import BadInput, ConfigurationError
from greenops_pipelines.slo.certificate import Certificate, Severity, certify, confirm_declared, minutes, words
from greenops_pipelines.slo.profiles import PROFILES
from greenops_pipelines.slo.windows import Window, Windows


def certified(profile: str, objective: float = 99.9) -> Certificate:
    return certify(objective, PROFILES[profile], profile=profile)


def severity(certificate: Certificate, name: str) -> Severity:
    return next(severity for severity in certificate.severities if severity.name == name)


def detections(severity: Severity) -> list[str | None]:
    """At 100, 10, 2, 1 and 0.5 %."""
    return [None if t.detection is None else minutes(t.detection, up=True) for t in severity.timings]


# reference/slo.md, SLO 99.9; the windows' minutes x threshold / error ratio, e.g. 60 x 0.0144 / 0.1 = 8.64 -> 9.
TABLE = [
    # profile, alert, factor, budget %, detection in seconds at 100 / 10 / 2 %, and the clock's minutes, reset in seconds
    ("workbook", "page", 14.4, 2, (51.84, 518.4, 2592), ("1 min", "9 min", "44 min"), 295.68, "4 min"),
    ("workbook", "ticket", 6, 5, (129.6, 1296, 6480), ("3 min", "22 min", "1.8 h"), 1789.2, "29 min"),
    ("user-table", "page", 14.4, 12, (311.04, 3110.4, 15552), ("6 min", "52 min", "4.33 h"), 3548.16, "59 min"),
    ("user-table", "ticket", 6, 60, (1555.2, 15552, 77760), ("26 min", "4.33 h", "21.6 h"), 21470.4, "5.95 h"),
]


@pytest.mark.parametrize(("profile", "name", "factor", "budget", "seconds", "shown", "reset", "kept"), TABLE)
def test_the_table_of_the_reference(
    profile: str,
    name: str,
    factor: float,
    budget: float,
    seconds: tuple[float, ...],
    shown: tuple[str, ...],
    reset: float,
    kept: str,
) -> None:
    alert = severity(certified(profile), name)
    (pair,) = alert.pairs  # quick and slow are the same pair, certified once
    assert pair.factor == pytest.approx(factor)
    assert pair.threshold == pytest.approx(factor / 1000)
    assert pair.budget_percent == pytest.approx(budget)
    assert [t.detection.total_seconds() for t in alert.timings[:3] if t.detection] == pytest.approx(seconds)
    assert tuple(detections(alert)[:3]) == shown
    first = alert.timings[0]
    assert first.reset is not None
    assert first.reset.total_seconds() == pytest.approx(reset)
    assert minutes(first.reset, up=False) == kept
    assert first.spent_percent == pytest.approx(budget)


def test_a_burn_that_only_equals_the_factor_never_fires() -> None:
    # 99.9 %: 1 % is a burn of 10, below 14.4; 0.5 % is 5, below 6.
    assert detections(severity(certified("workbook"), "page"))[3:] == [None, None]
    assert detections(severity(certified("workbook"), "ticket"))[3:] == ["3.6 h", None]
    # 99.5 %: 0.5 % is a burn of exactly 1, and Sloth's lowest factor is 1. 1 % is 2: 3 days x 1 / 2.
    assert detections(severity(certified("sloth", 99.5), "ticket"))[3:] == ["36 h", None]


def test_an_alert_of_two_pairs_fires_with_the_first_and_stops_with_the_last() -> None:
    page = severity(certified("sloth"), "page")
    assert [(p.factor, p.budget_percent) for p in page.pairs] == [pytest.approx((14.4, 2)), pytest.approx((6, 5))]
    # 1 %: only 6x, 360 min x 0.006 / 0.01 = 216 min, and 30 min x (1 - 0.6) = 12 min.
    assert detections(page) == ["1 min", "9 min", "44 min", "3.6 h", None]
    assert [t.reset and t.reset.total_seconds() for t in page.timings] == [
        pytest.approx(1789.2), pytest.approx(1692), pytest.approx(1260), pytest.approx(720), None,
    ]  # fmt: skip
    assert [t.spent_percent for t in page.timings] == [pytest.approx(2)] * 3 + [pytest.approx(5), None]


def test_14_4x_never_fires_where_a_complete_outage_burns_10x() -> None:
    certificate = certified("workbook", 90)
    page, ticket = certificate.severities
    assert not page.pairs[0].is_reachable
    assert detections(page) == [None] * 5
    assert ticket.pairs[0].is_reachable
    assert detections(ticket) == ["3.6 h", None, None, None, None]  # 6 h x 0.6
    assert words(certificate)[0] == (
        "page: 14.4x over 5m/1h never fires at an objective of 90 %: a complete outage burns 10x."
    )
    # A burn can equal the highest one, and rules compare with `>`: 14.4 x (1 - SLO) = 1.
    assert not certified("workbook", 100 - 100 / 14.4).severities[0].pairs[0].is_reachable


def test_blind_bands() -> None:
    (band,) = certified("workbook").blind
    assert (band.above, band.up_to) == (1, pytest.approx(6))
    assert band.exhausted_after == timedelta(days=5)
    assert certified("sloth").blind == ()
    # Nothing above the highest burn is missed: at 80 % a complete outage burns 5x, which no pair of 6x or more sees.
    (band,) = certified("workbook", 80).blind
    assert (band.up_to, band.exhausted_after) == (pytest.approx(5), timedelta(days=6))
    # Without the ticket, the page alone is what there is.
    (band,) = certify(99.9, PROFILES["workbook"], severities=("page",)).blind
    assert band.up_to == pytest.approx(14.4)


@pytest.mark.parametrize("objective", [0, -1, 100, 101, math.nan])
def test_an_objective_without_a_budget_is_refused(objective: float) -> None:
    with pytest.raises(BadInput, match=r"^objective: found \S+, allowed: a percentage above 0 and below 100") as caught:
        certify(objective, PROFILES["workbook"])
    assert ("no error budget" in str(caught.value)) == (objective == 100)
    assert "\n" not in str(caught.value)


def test_the_words_say_what_the_users_table_costs_beside_the_workbook() -> None:
    said = words(certified("user-table"), certified("workbook"))
    assert said == [
        "page: 12 % (workbook: 2 %) of the 30-day budget is gone before it fires, "
        "and it keeps firing 59 min (workbook: 4 min) after a complete outage.",
        "page: it fires after 6 min at 100 % errors, 52 min at 10 % errors, 4.33 h at 2 % errors; never at 1 %, 0.5 %.",
        "ticket: 60 % (workbook: 5 %) of the 30-day budget is gone before it fires, "
        "and it keeps firing 5.95 h (workbook: 29 min) after a complete outage.",
        "ticket: it fires after 26 min at 100 % errors, 4.33 h at 10 % errors, 21.6 h at 2 % errors, "
        "43.2 h at 1 % errors; never at 0.5 %.",
        "blind: a steady burn above 1x and up to 6x never alerts, and spends the whole budget, at 6x in 5 days; "
        "a burn of 1x or less stays within the budget.",
    ]
    assert words(certified("sloth"))[-1] == "blind: no burn above 1x goes without an alert."
    assert "10 % at 3x or 10 % at 1x of the 30-day budget" in words(certified("sloth"))[2]


def test_the_period_in_words_is_in_days() -> None:
    pair = Window(2, timedelta(minutes=5), timedelta(hours=1))
    assert "the 28-day budget" in words(certify(99, Windows(timedelta(days=28), pair, pair, pair, pair)))[0]


def test_the_document_is_json_with_null_for_never() -> None:
    document = json.loads(json.dumps(certified("workbook").as_document(), allow_nan=False))
    page = document["alerts"][0]
    assert (document["objective_percent"], document["error_budget_ratio"], document["highest_burn"]) == (
        99.9,
        0.001,
        1000,
    )
    assert document["lag_seconds"] == 120
    assert page["pairs"][0] | {"timings": 0} == {
        "short": "5m", "long": "1h", "factor": 14.4, "threshold_ratio": 0.0144, "budget_percent": 2,
        "is_reachable": True, "timings": 0,
    }  # fmt: skip
    assert page["timings"][1] == {
        "error_percent": 10, "detection_seconds": 518.4, "reset_seconds": 256.8, "spent_percent": 2,
    }  # fmt: skip
    assert page["timings"][3] == {
        "error_percent": 1, "detection_seconds": None, "reset_seconds": None, "spent_percent": None,
    }  # fmt: skip
    assert document["blind_bands"] == [{"burn_above": 1, "burn_up_to": 6, "budget_exhausted_after_seconds": 432000}]


def test_a_declared_budget_is_the_derived_one_or_acknowledged() -> None:
    confirm_declared(12, 12.000000000001, None, "ops/slo.yaml: page")
    confirm_declared(2, 12, "agreed on 2026-03-02: fewer pages matter more", "ops/slo.yaml: page")
    for silence in (None, "", "  "):
        with pytest.raises(
            ConfigurationError, match=r"^ops/slo.yaml: page: found a declared budget of 2 %, allowed: 12 %"
        ) as e:
            confirm_declared(2, 12, silence, "ops/slo.yaml: page")
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("profile", ["workbook", "user-table", "sloth"])
def test_the_docs_table_says_what_the_certificate_says(profile: str) -> None:
    """Of an outage at 99.9 %: detections rounded up, resets down, page and ticket."""
    text = (Path(__file__).parents[2] / "docs" / "slo.md").read_text(encoding="utf-8")
    [row] = [line for line in text.splitlines() if line.startswith(f"| `{profile}`") and "14.4x" in line]
    detected, reset = (cell.replace("*", "").strip() for cell in row.split("|")[-3:-1])
    outages = [severity.timings[0] for severity in certify(99.9, PROFILES[profile]).severities]
    assert [minutes(t.detection, up=True) for t in outages if t.detection] == detected.split(", ")
    assert [minutes(t.reset, up=False) for t in outages if t.reset] == reset.split(", ")
