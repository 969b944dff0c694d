"""What the validator says of whole files, and how it says it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from greenops_pipelines.cli import app
from greenops_pipelines.cost.validate import validate
from greenops_pipelines.errors import BadInput
from tests.cost import focus_rows as rows

SHARED = Path(__file__).parents[3] / "shared/data/focus"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/focus")


@needs_shared
def test_the_known_dirt_of_the_official_sample_is_found() -> None:
    done = validate(SHARED / "focus_sample.csv")
    assert (done.spec, done.rows, done.unknown_columns) == ("1.0", 1000, ("Id",))
    failed = {o.rule.id: o for o in done.failed}
    # Oracle's seven rows: no ContractedCost, empty texts for null, a frequency in another case.
    assert failed["ContractedCost-C-003-M"].failing_rows == 7
    assert failed["NullHandling-A-002-M"].failing_rows == 7
    assert failed["ChargeFrequency-C-003-M"].failing_rows == 7
    assert failed["ChargeFrequency-C-003-M"].examples[0]["values"]["ChargeFrequency"] == "Usage-based"
    # A column that is neither FOCUS' nor marked as custom; times without T and Z.
    assert failed["ColumnHandling-A-010-M"].examples == ({"column": "Id"},)
    assert failed["DateTimeFormat-A-006-M"].failing_rows == 1000
    # AWS' rounded costs: prices times quantities do not meet them.
    assert failed["ContractedUnitPrice-C-011-C"].failing_rows == 18
    assert failed["CostAndUsage-D-000-M"].failing_rows == 1000


@needs_shared
def test_a_clean_file_of_aws_breaks_no_rule() -> None:
    done = validate(SHARED / "aws_1_2_cost_and_usage_rows100_seed42.csv")
    assert (done.spec, done.rows, done.failed) == ("1.2", 100, [])
    assert done.counts["passed"] > 440


def test_the_document_has_every_rule_with_three_examples_at_most(tmp_path: Path) -> None:
    path = rows.write(tmp_path / "bad.csv", [row | {"BilledCost": "abc"} for row in rows.rows_for("1.2")])
    done = CliRunner().invoke(app, ["cost", "validate", str(path), "--spec", "1.2", "--json"])
    document = json.loads(done.stdout)
    assert (done.exit_code, document["spec"], document["rows"]) == (1, "1.2", 11)
    assert len(document["rules"]) == sum(document["counts"].values()) > 470
    rule = next(r for r in document["rules"] if r["id"] == "BilledCost-C-001-M")
    assert (rule["level"], rule["status"], rule["failing_rows"], len(rule["examples"])) == ("MUST", "failed", 11, 3)
    assert rule["examples"][0] == {"row": 1, "values": {"BilledCost": "abc"}}


def test_fitting_charges_exit_with_zero_and_a_table_says_so(tmp_path: Path) -> None:
    path = rows.write(tmp_path / "good.csv", rows.rows_for("1.2"))
    done = CliRunner().invoke(app, ["cost", "validate", str(path)])
    assert done.exit_code == 0
    assert "good.csv: FOCUS 1.2, 11 rows;" in done.stdout
    assert "0 failed" in done.stdout


def test_unknown_versions_and_rules_are_refused(tmp_path: Path) -> None:
    path = rows.write(tmp_path / "good.csv", rows.rows_for("1.2"))
    with pytest.raises(BadInput, match=r"--spec: found '2.0', allowed: 1.0, 1.1, 1.2, 1.3, 1.4"):
        validate(path, "2.0")
    with pytest.raises(BadInput, match="such as BilledCost-C-001-M"):
        validate(path, "1.2", ["BilledCost-C-1-M"])


def test_a_file_without_rows_fails_no_row_rule(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    path.write_text(",".join(rows.USAGE) + "\n", encoding="utf-8")
    done = validate(path, "1.2")
    assert (done.rows, done.failed) == (0, [])
