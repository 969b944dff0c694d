"""Files of charges to sums, to the last digit; and what no sum may be made of."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenops_pipelines.cost.summarise import summarise
from greenops_pipelines.errors import BadInput
from tests.cost import focus_rows as rows

SHARED = Path(__file__).parents[3] / "shared/data/focus"
HEADER = "ProviderName,ServiceName,RegionId,BillingCurrency,ChargePeriodStart,BilledCost,EffectiveCost,Tags\n"


def charge(
    billed: str = "1.5",
    effective: str = "1.25",
    start: str = "2026-05-01T00:00:00Z",
    currency: str = "USD",
    tags: str = "",
) -> str:
    return f"AWS,EC2,eu-west-1,{currency},{start},{billed},{effective},{tags}\n"


def file(folder: Path, text: str | bytes, name: str = "bill.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_official_sample_comes_to_its_published_totals() -> None:
    path = SHARED / "focus_sample.csv"
    if not path.exists():
        pytest.skip("needs ../shared/data/focus")
    done = summarise(path).as_document()
    assert (done["total"]["billed_cost"], done["total"]["effective_cost"]) == ("20.520226728990", "14.976514185860")
    expected: dict[tuple[str, str, str, str], Decimal] = defaultdict(Decimal)
    with path.open(encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            region = row["RegionId"] if row["RegionId"] not in ("NULL", "") else row["RegionName"]
            expected[row["ProviderName"], row["ServiceName"], region, row["ChargePeriodStart"][:7]] += Decimal(
                row["BilledCost"]
            )
    found = {(r["provider"], r["service"], r["region"], r["month"]): Decimal(r["billed_cost"]) for r in done["rows"]}
    assert {k if k[2] != "NULL" else (*k[:2], None, k[3]): v for k, v in expected.items()} == found


def test_rows_totals_and_months(tmp_path: Path) -> None:
    text = (
        HEADER
        + charge()
        + charge("0.000000000001")
        + charge("-0.5", start="2026-06-01T00:00:00Z")
        + charge("0", start="2026-05-31T23:59:59Z")
    )
    done = summarise(file(tmp_path, text), ["provider", "month"]).as_document()
    assert [(r["month"], r["billed_cost"], r["charges"]) for r in done["rows"]] == [
        ("2026-05", "1.500000000001", 3),
        ("2026-06", "-0.500000000000", 1),
    ]
    assert done["total"] == {
        "currency": "USD",
        "billed_cost": "1.000000000001",
        "effective_cost": "5.000000000000",
        "charges": 4,
    }


def test_the_month_is_that_of_the_start_in_utc(tmp_path: Path) -> None:
    done = summarise(file(tmp_path, HEADER + charge(start="2026-05-31T23:30:00-02:00")), ["month"]).as_document()
    assert done["rows"][0]["month"] == "2026-06"


def test_currencies_are_never_added_up(tmp_path: Path) -> None:
    done = summarise(file(tmp_path, HEADER + charge("1") + charge("2", currency="EUR")), ["provider"]).as_document()
    assert [(r["currency"], r["billed_cost"]) for r in done["totals"]] == [
        ("EUR", "2.000000000000"),
        ("USD", "1.000000000000"),
    ]
    assert done["total"]["billed_cost"] is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"1,234.56"', "bill.csv, row 2: BilledCost: found '1,234.56', allowed: a number such as -1234.56"),
        ("NaN", "bill.csv, row 2: BilledCost: found 'NaN', allowed: a number"),
        ("inf", "row 2: BilledCost: found 'inf'"),
        ("1_000", "row 2: BilledCost: found '1_000'"),
        ("", "row 2: BilledCost: found nothing, allowed: a number"),
        ("$3", "row 2: BilledCost: found '$3'"),
        ("1e40", "row 2: BilledCost: found '1e40'"),
    ],
)
def test_what_is_no_money_is_refused_with_its_place(value: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        summarise(file(tmp_path, HEADER + charge() + charge(value)))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("start", "hint"),
    [("45413", "looks like a date of Excel"), ("5/1/2026", "allowed: a date and time"), ("", "found nothing")],
)
def test_what_is_no_time_is_refused(start: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="row 1: ChargePeriodStart") as refused:
        summarise(file(tmp_path, HEADER + charge(start=start)))
    assert hint in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "bill.csv: the file is empty"),
        ("BilledCost\n1\n", "columns: missing EffectiveCost, ChargePeriodStart"),
        (HEADER + "AWS,EC2\n", "line 2: Expected Number of Columns: 8 Found: 2"),
        (HEADER + charge() + charge().strip() + ",surplus\n", "line 3: Expected Number of Columns: 8 Found: 9"),
        (HEADER + 'AWS,"EC2', "line 2"),
        ("BilledCost,BilledCost\n1,2\n", "found the column 'BilledCost' twice"),
        (HEADER.encode() + charge().encode() + b"AWS,caf\xe9,a,USD,2026-05-01,1,1,\n", "Invalid unicode"),
        (("\ufeff" + HEADER + charge()).encode("utf-16"), "found UTF-16 text, allowed: UTF-8"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(text: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        summarise(file(tmp_path, text))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_gzip_that_was_cut_off_is_refused_and_a_whole_one_read(tmp_path: Path) -> None:
    packed = gzip.compress((HEADER + charge() * 60_000).encode())
    assert (
        summarise(file(tmp_path, packed, "bill.csv.gz")).as_document()["total"]["billed_cost"] == "90000.000000000000"
    )
    with pytest.raises(BadInput, match="GZIP"):
        summarise(file(tmp_path, packed[: len(packed) // 2], "cut.csv.gz"))


def test_quotes_newlines_and_other_delimiters_cost_no_cent(tmp_path: Path) -> None:
    tags = '"{""note"": ""a, b""\n""c"": 1}"'
    text = HEADER + charge("1", tags=tags) + charge("2", tags=tags) + "\n" + charge("4")
    assert summarise(file(tmp_path, text), ["provider"]).as_document()["total"]["billed_cost"] == "7.000000000000"
    semicolons = (HEADER + charge("1")).replace(",", ";")
    assert (
        summarise(file(tmp_path, "\ufeff" + semicolons, "excel.csv"), ["provider"]).as_document()["total"][
            "billed_cost"
        ]
        == "1.000000000000"
    )


def test_both_generations_of_columns_are_one(tmp_path: Path) -> None:
    old = summarise(rows.write(tmp_path / "old.csv", rows.rows_for("1.0"))).as_document()
    new = summarise(rows.write(tmp_path / "new.csv", rows.rows_for("1.4"))).as_document()
    assert old["rows"] == new["rows"]
    assert {row["provider"] for row in new["rows"]} == {"AWS", "Snow Corp"}


def test_a_file_of_both_generations_takes_whichever_is_filled(tmp_path: Path) -> None:
    both = [row | {"ServiceProviderName": value} for row, value in zip(rows.BASE[:2], (None, "New Cloud"), strict=True)]
    done = summarise(rows.write(tmp_path / "both.csv", both), ["provider"]).as_document()
    assert [row["provider"] for row in done["rows"]] == ["AWS", "New Cloud"]


def test_doubles_of_a_parquet_file_are_the_numbers_they_print(tmp_path: Path) -> None:
    path = tmp_path / "bill.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            f"copy (select 0.1::double as BilledCost, 0.2::double as EffectiveCost, timestamp '2026-05-01' as ChargePeriodStart, "
            f"map {{'team': 'blue'}} as Tags from range(3)) to '{path}' (format parquet)"
        )
    total = summarise(path).as_document()["total"]
    assert (total["billed_cost"], total["effective_cost"]) == ("0.300000000000", "0.600000000000")


def test_no_digit_is_lost_beyond_twelve_decimals(tmp_path: Path) -> None:
    total = summarise(
        file(tmp_path, HEADER + charge("1.33650169321284") + charge("0.00000000000004")), ["provider"]
    ).as_document()["total"]
    assert total["billed_cost"] == "1.33650169321288"


def test_amazons_older_report_comes_to_what_was_billed_and_to_its_amortised_cost(tmp_path: Path) -> None:
    header = (
        "lineItem/LineItemType,lineItem/UnblendedCost,lineItem/ProductCode,product/region,lineItem/UsageStartDate,lineItem/CurrencyCode,"
        "savingsPlan/SavingsPlanEffectiveCost,savingsPlan/TotalCommitmentToDate,savingsPlan/UsedCommitment,reservation/EffectiveCost,"
        "reservation/ReservationARN,resourceTags/user:team\n"
    )
    day = "2026-05-01T00:00:00Z"
    lines = [
        f"Usage,2.00,AmazonEC2,eu-west-1,{day},USD,,,,,,blue",
        f"SavingsPlanCoveredUsage,1.00,AmazonEC2,eu-west-1,{day},USD,0.60,,,,,",
        f"SavingsPlanNegation,-1.00,AmazonEC2,eu-west-1,{day},USD,,,,,,",
        f"SavingsPlanRecurringFee,0.70,ComputeSavingsPlans,,{day},USD,,0.70,0.60,,,",
        f"DiscountedUsage,0.00,AmazonRDS,eu-west-1,{day},USD,,,,0.30,arn:r,",
        f"Fee,100.00,AmazonRDS,,{day},USD,,,,,arn:r,",
        f"Credit,-0.25,AmazonEC2,eu-west-1,{day},USD,,,,,,",
    ]
    done = summarise(file(tmp_path, header + "\n".join(lines) + "\n"), ["category"]).as_document()
    # Billed 2 + 1 - 1 + 0.7 + 0 + 100 - 0.25; amortised 2 + 0.6 + 0 + (0.7 - 0.6) + 0.3 + 0 - 0.25.
    assert (done["total"]["billed_cost"], done["total"]["effective_cost"]) == ("102.450000000000", "2.750000000000")
    assert {r["category"]: r["billed_cost"] for r in done["rows"]}["Credit"] == "-0.250000000000"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(amounts=st.lists(st.decimals(min_value=-(10**9), max_value=10**9, places=12), min_size=1, max_size=30))
def test_any_amounts_add_up_exactly(amounts: list[Decimal], tmp_path: Path) -> None:
    text = HEADER + "".join(charge(f"{a:.12f}") for a in amounts)
    assert Decimal(summarise(file(tmp_path, text), ["provider"]).as_document()["total"]["billed_cost"]) == sum(amounts)


def test_the_command_prints_decimals_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from greenops_pipelines.cli import app

    path = file(tmp_path, HEADER + charge())
    done = CliRunner().invoke(app, ["cost", "summarise", str(path), "--by", "provider,month", "--json"])
    assert json.loads(done.stdout)["rows"] == [
        {
            "provider": "AWS",
            "month": "2026-05",
            "currency": "USD",
            "billed_cost": "1.500000000000",
            "effective_cost": "1.250000000000",
            "charges": 1,
        }
    ]
