"""Which files count: the forty-five-fold trap, increments, restatements, manifests. Totals are worked out by hand."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from greenops_pipelines.cost.deliveries import Delivered, judge, scan, stamp_of
from greenops_pipelines.errors import BadInput

COLUMNS = (
    "ProviderName,BillingAccountId,BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargePeriodStart,ChargePeriodEnd,"
    "ChargeCategory,ResourceId,SkuPriceId,BilledCost,EffectiveCost"
)


def line(day: int, resource: str = "i-1", cost: str = "1", provider: str = "AWS", month: int = 9) -> str:
    start, end = f"2024-{month:02}-{day:02}T00:00:00Z", f"2024-{month:02}-{day:02}T23:00:00Z"
    return f"{provider},1,USD,2024-{month:02}-01T00:00:00Z,2024-{month + 1:02}-01T00:00:00Z,{start},{end},Usage,{resource},p,{cost},{cost}"


def deliver(root: Path, name: str, lines: Sequence[str], modified: float = 1_700_000_000) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([COLUMNS, *lines]) + "\n", encoding="utf-8")
    os.utime(path, (modified, modified))
    return path


def states(root: Path, manifests: Sequence[Path] = ()) -> dict[str, str]:
    return {
        f"{v.file.name} {v.key[2]:%m}" if len(v.file.parts) > 1 else v.file.name: v.state
        for v in judge(_scanned(root), manifests)
    }


def counted(root: Path, manifests: Sequence[Path] = ()) -> Decimal:
    verdicts = judge(_scanned(root), manifests)
    return sum((p.billed for v in verdicts for p in v.file.parts if v.state == "counts" and p.key == v.key), Decimal(0))


def _scanned(root: Path) -> list[Delivered]:
    return [scan(p, root) for p in sorted(root.rglob("*.csv"))]


def test_forty_five_daily_snapshots_are_one_month(tmp_path: Path) -> None:
    # A month of 30 charges of 1.00, delivered again every day for 45 days: adding the files up would give 915.
    for day in range(1, 46):
        deliver(
            tmp_path,
            f"export/20240901-20240930/2024{9 + day // 31:02}{(day - 1) % 30 + 1:02}0600/part_0.csv",
            [line(d) for d in range(1, min(day, 30) + 1)],
        )
    everything = sum(p.billed for f in _scanned(tmp_path) for p in f.parts)
    assert (everything, counted(tmp_path)) == (Decimal(915), Decimal(30))
    assert sorted(states(tmp_path).values()).count("counts") == 1


def test_snapshots_without_a_stamp_are_told_by_their_last_charge(tmp_path: Path) -> None:
    deliver(tmp_path, "a.csv", [line(d) for d in range(1, 21)], modified=2_000_000_000)
    deliver(tmp_path, "b.csv", [line(d) for d in range(1, 11)], modified=2_100_000_000)
    assert states(tmp_path) == {"a.csv": "counts", "b.csv": "superseded"}


def test_a_restated_month_is_told_by_its_time_and_replaces_every_row(tmp_path: Path) -> None:
    # Each price has changed, so no row is equal: what a charge is for decides, not what it costs.
    deliver(tmp_path, "bill.csv", [line(d, cost="1.00") for d in range(1, 31)], modified=1_000)
    deliver(tmp_path, "bill (1).csv", [line(d, cost="0.90") for d in range(1, 31)], modified=2_000)
    assert counted(tmp_path) == Decimal("27.00")
    verdict = next(v for v in judge(_scanned(tmp_path)) if v.state == "superseded")
    assert (verdict.file.name, verdict.instead, verdict.overlap) == ("bill.csv", "bill (1).csv", 1.0)


def test_increments_all_count(tmp_path: Path) -> None:
    # As Oracle delivers: a file a day with that day's charges.
    for day in range(1, 11):
        deliver(tmp_path, f"2024/09/{day:02}/0001.csv", [line(day), line(day, "i-2")])
    assert counted(tmp_path) == Decimal(20)


def test_parts_of_a_snapshot_count_together_and_are_replaced_together(tmp_path: Path) -> None:
    deliver(tmp_path, "20240910/part_0.csv", [line(d) for d in range(1, 6)])
    deliver(tmp_path, "20240910/part_1.csv", [line(d, "i-2") for d in range(1, 6)])
    assert counted(tmp_path) == Decimal(10)
    deliver(tmp_path, "20240912/part_0.csv", [line(d) for d in range(1, 8)])
    deliver(tmp_path, "20240912/part_1.csv", [line(d, "i-2") for d in range(1, 8)])
    assert counted(tmp_path) == Decimal(14)


def test_the_same_file_twice_counts_once(tmp_path: Path) -> None:
    deliver(tmp_path, "a/bill.csv", [line(1), line(2)])
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a/bill.csv", tmp_path / "b/bill.csv")
    assert states(tmp_path) == {"a/bill.csv": "counts", "b/bill.csv": "duplicate"}


def test_providers_and_periods_are_judged_apart(tmp_path: Path) -> None:
    # The September snapshot in the October file is the newer one; Azure's file repeats nobody's charges.
    deliver(tmp_path, "20240930.csv", [line(d) for d in range(1, 31)])
    deliver(
        tmp_path, "20241005.csv", [line(d, cost="2") for d in range(1, 31)] + [line(d, month=10) for d in range(1, 6)]
    )
    deliver(tmp_path, "azure.csv", [line(d, provider="Microsoft") for d in range(1, 4)])
    assert counted(tmp_path) == Decimal(30 * 2 + 5 + 3)


def test_a_small_overlap_is_kept_and_said(tmp_path: Path) -> None:
    deliver(tmp_path, "x/one.csv", [line(d) for d in range(1, 11)])
    deliver(tmp_path, "y/two.csv", [line(d) for d in range(10, 20)])
    verdicts = judge(_scanned(tmp_path))
    assert [v.state for v in verdicts] == ["counts", "counts"]
    said = [v for v in verdicts if v.overlap is not None]
    assert (said[0].file.name, said[0].overlap) == ("x/one.csv", 0.1)
    assert "shares 10% of its charges with y/two.csv; both count" in said[0].reason


def test_what_a_manifest_does_not_list_does_not_count_and_what_it_lists_must_be_there(tmp_path: Path) -> None:
    deliver(tmp_path, "part_0.csv", [line(1)])
    deliver(tmp_path, "left-over.csv", [line(2)])
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"blobs": [{"blobName": "exports/part_0.csv"}]}), encoding="utf-8")
    assert states(tmp_path, [manifest]) == {"part_0.csv": "counts", "left-over.csv": "not in the manifest"}
    manifest.write_text(json.dumps({"dataFiles": ["s3://b/part_0.csv", "s3://b/part_1.csv"]}), encoding="utf-8")
    with pytest.raises(BadInput, match=r"lists part_1.csv, which is not there: the delivery is not complete"):
        judge(_scanned(tmp_path), [manifest])


@pytest.mark.parametrize(
    ("name", "stamp"),
    [
        ("export/20240901-20240930/202409150600/part.csv", "20240915060000"),
        ("data/BILLING_PERIOD=2024-09/2024-09-15T06-00-12/x.parquet", "20240915060012"),
        ("bill_2024-09-15.csv", "20240915000000"),
        ("account-123456789012/bill.csv", ""),
        ("BILLING_PERIOD=2024-09/bill.csv", ""),
    ],
)
def test_a_stamp_is_a_date_that_is_no_billing_period(name: str, stamp: str) -> None:
    assert stamp_of(name) == stamp


def test_a_file_says_what_it_comes_to_per_period(tmp_path: Path) -> None:
    path = deliver(
        tmp_path, "bill.csv", [line(1, cost="0.1234567890125"), line(2, cost="-3"), line(1, month=10, cost="0")]
    )
    found = scan(path, tmp_path)
    assert [(p.period, p.charges, p.billed) for p in found.parts] == [
        (date(2024, 9, 1), 2, Decimal("-2.876543210987")),
        (date(2024, 10, 1), 1, Decimal(0)),
    ]
    # Thirteen decimals were rounded to twelve, in billed and in effective cost, away from zero.
    assert (found.rounded_values, Decimal(found.rounded_by)) == (2, Decimal("0.0000000000005"))
