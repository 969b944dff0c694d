"""Sample bills: they fit FOCUS, what has happened stays as it was, and what is said to be in them is."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from greenops_pipelines.cost import sample
from greenops_pipelines.cost.deliveries import judge, scan
from greenops_pipelines.cost.validate import validate

TENANTS = [("acme", "eu-central-1"), (sample.ANOMALY_TENANT, "us-east-1"), ("globex", "eu-central-1")]
NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("sample")
    sample.write(found, TENANTS, NOW)
    return found


def ask(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        # The snapshot of the middle of October is contained in the one that replaced it.
        files = [str(p) for p in folder.rglob("*.parquet") if "20261015" not in str(p)]
        return connection.sql(sql.replace("bills", f"read_parquet({files})")).fetchall()


def test_every_file_keeps_every_rule_that_must_hold(folder: Path) -> None:
    found = [validate(path) for path in sorted(folder.rglob("*.parquet"))]
    assert len(found) == 3 * 3 + 1
    assert [(v.file, [o.rule.id for o in v.failed]) for v in found if not v.conforms] == []


def test_the_superseded_snapshot_is_told_and_the_rest_counts(folder: Path) -> None:
    verdicts = judge([scan(path, folder) for path in sorted(folder.rglob("*.parquet"))])
    assert [v.file.name for v in verdicts if v.state != "counts"] == [
        "aws/BILLING_PERIOD=2026-10/20261015/sample-aws.parquet"
    ]


def test_what_has_happened_stays_as_it_was(folder: Path, tmp_path: Path) -> None:
    sample.write(tmp_path, TENANTS, datetime(2026, 11, 21, tzinfo=UTC))
    sql = 'select "BillingPeriodStart", "BillingCurrency", sum("BilledCost"), count(*) from bills where "ChargePeriodEnd" <= \'2026-11-20\' group by all order by all'
    assert ask(folder, sql) == ask(tmp_path, sql)


def test_the_plan_costs_what_of_it_was_used_and_not(folder: Path) -> None:
    (found,) = ask(
        folder,
        """select sum("BilledCost") filter (where "ChargeCategory" = 'Purchase'), sum("EffectiveCost") filter (where "CommitmentDiscountStatus" is not null),
        min("EffectiveCost") filter (where "CommitmentDiscountStatus" = 'Unused') from bills where "CommitmentDiscountId" is not null""",
    )
    bought, spent, least = found
    # 61 days of September and October, 19 of November and nine hours, at 3.10 an hour.
    assert bought == spent == Decimal("3.1") * ((61 + 19) * 24 + 9)
    assert isinstance(least, Decimal)
    assert least > 0


def test_traffic_costs_nine_times_its_usual_on_one_day(folder: Path) -> None:
    rows = ask(
        folder,
        f"""select "ChargePeriodStart"::date, "BilledCost" from bills where "ServiceName" = 'AWS Data Transfer' and "ChargeClass" is null
        and "Tags" like '%{sample.ANOMALY_TENANT}%' order by 2 desc limit 2""",
    )
    assert str(rows[0][0]) == "2026-10-12"
    assert rows[0][1] > 5 * rows[1][1]  # type: ignore[operator]


def test_credits_refunds_and_corrections_are_negative_and_two_currencies_stand_side_by_side(folder: Path) -> None:
    negative = ask(
        folder, 'select distinct "ChargeCategory", "ChargeClass" from bills where "BilledCost" < 0 order by all'
    )
    assert negative == [("Adjustment", None), ("Credit", None), ("Usage", "Correction")]
    assert ask(folder, 'select distinct "BillingCurrency" from bills order by 1') == [("EUR",), ("USD",)]
