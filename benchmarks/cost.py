"""Cost: monthly cost and carbon by tenant, service and region over millions of FOCUS rows, beside plain DuckDB, polars and pandas;
and the validator's speed. Every case is its own process; every sum is compared with the first, to the last digit.
"""

from __future__ import annotations

import sys
import tempfile
from decimal import Decimal
from pathlib import Path

from benchmarks.measure import Row, best_of, in_own_process, report

_MODULE = "benchmarks.cost"
_SIZES = (1_000_000, 10_000_000)
_KWH_PER_VCPU_HOUR = 0.0021 * 1.2
_ZONES = ("us-east-1", "eu-central-1", "eu-west-1", "us-west-2", "eu-west-3", "eu-north-1")


def main(sizes: tuple[int, ...] = _SIZES) -> list[Row]:
    """Rows per size: seconds and peak memory, and the ratio to plain DuckDB over the same Parquet file."""
    rows: list[Row] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="greenops-bench-") as folder:
            in_own_process(_MODULE, "make", folder, str(size))
            name = f"{size // 1_000_000}M rows"
            costs = {
                case: in_own_process(_MODULE, case, folder)
                for case in ("duckdb", "lake", "polars", "pandas")
                if case != "pandas" or size <= 10**7
            }
            plain = costs["duckdb"].seconds
            for case, cost in costs.items():
                assert cost.extra["billed"] == costs["duckdb"].extra["billed"], case
                label = {"lake": "ours: cost and carbon by month", "duckdb": "plain DuckDB"}.get(case, case)
                rows.append(
                    Row(
                        f"{name}, {label}",
                        cost.seconds,
                        "s",
                        f"{cost.seconds / plain:.2f} x plain DuckDB, {cost.peak_mb:.0f} MB",
                    )
                )
            valid = in_own_process(_MODULE, "validate", folder)
            rows.append(
                Row(
                    f"{name}, validation of Parquet",
                    size / valid.seconds,
                    "rows/s",
                    f"{valid.seconds:.1f} s, {valid.peak_mb:.0f} MB",
                )
            )
    return rows


def _make(folder: Path, size: int) -> None:
    """The file, the lake's partitions of it, and an intensity per hour and region."""
    import duckdb

    from benchmarks.cost_rows import write
    from greenops_pipelines.cost.allocation import CostOps
    from greenops_pipelines.cost.ingest import ingest
    from greenops_pipelines.cost.sources import Found
    from greenops_pipelines.instants import instant

    write(folder / "bill.parquet", size)
    with duckdb.connect() as connection:
        regions = ", ".join(f"('{region}', {60 + 70 * n})" for n, region in enumerate(_ZONES))
        connection.execute(
            f"copy (select region, (timestamp '2026-07-01' + to_hours(h::int)) at time zone 'UTC' as hour, mean + 30 * sin(h / 24.0) as g "
            f"from (values {regions}) as r(region, mean), range(2208) as t(h)) to '{folder}/intensity.parquet' (format parquet)"
        )
    declared = CostOps.model_validate_json(
        '{"allocation": {"tenant": {"tags": ["tenant"]}, "service": {"tags": ["service"]}}}'
    )
    found = Found("file", folder, (folder / "bill.parquet",))
    ingest(_lake(folder), found, declared, "bench", instant(1_800_000_000_000_000))
    report(0.0)


def _lake(folder: Path):  # type: ignore[no-untyped-def]
    from greenops_pipelines.lake import Lake
    from greenops_pipelines.lake.cost_tables import COST_CHARGES, COST_FILES, COST_PERIODS
    from greenops_pipelines.lake.storage import LocalFolder

    return Lake(LocalFolder(folder / "lake"), folder / "warehouse.duckdb", {}, [COST_CHARGES, COST_FILES, COST_PERIODS])


_MONTHLY = """
    select strftime({start}, '%Y-%m') as month, {tenant} as tenant, {service} as service, {region} as region, sum({billed}) as billed,
        sum({vcpu} * {factor} * i.g / 1000) as kg
    from {charges} as c left join read_parquet('{folder}/intensity.parquet') as i on i.region = {region} and i.hour = {start}
    group by 1, 2, 3, 4
"""


def _lake_case(folder: Path) -> None:
    lake = _lake(folder)
    sql = _MONTHLY.format(
        start="c.charge_period_start", tenant="c.tenant", service="c.service", region="c.region", billed="c.billed_cost", vcpu="c.vcpu_hours",
        factor=_KWH_PER_VCPU_HOUR, charges="cost_charges", folder=folder,
    )  # fmt: skip
    found = []
    seconds = best_of(3, lambda: found.append(lake.query(f"select sum(billed)::varchar as b from ({sql})")))
    report(seconds, billed=_sum(found[-1]["b"][0].as_py()))


def _duckdb_case(folder: Path) -> None:
    import duckdb

    sql = _MONTHLY.format(
        start='c."ChargePeriodStart"', tenant="json_extract_string(c.\"Tags\", '$.tenant')", service="json_extract_string(c.\"Tags\", '$.service')",
        region='c."RegionId"', billed='c."BilledCost"::decimal(38, 12)', vcpu="c.\"ConsumedQuantity\" * json_extract(c.\"SkuPriceDetails\", '$.CoreCount')::double",
        factor=_KWH_PER_VCPU_HOUR, charges=f"read_parquet('{folder}/bill.parquet')", folder=folder,
    )  # fmt: skip
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        found = []
        seconds = best_of(
            3, lambda: found.append(connection.sql(f"select sum(billed)::varchar from ({sql})").fetchall())
        )
    report(seconds, billed=_sum(found[-1][0][0]))


def _polars_case(folder: Path) -> None:
    import polars as pl

    def work() -> object:
        bill = pl.scan_parquet(folder / "bill.parquet")
        grid = pl.scan_parquet(folder / "intensity.parquet")
        return (
            bill.join(grid, left_on=["RegionId", "ChargePeriodStart"], right_on=["region", "hour"], how="left")
            .with_columns(
                month=pl.col("ChargePeriodStart").dt.strftime("%Y-%m"),
                tenant=pl.col("Tags").str.json_path_match("$.tenant"),
                service=pl.col("Tags").str.json_path_match("$.service"),
                kg=pl.col("ConsumedQuantity").cast(pl.Float64)
                * pl.col("SkuPriceDetails").str.json_path_match("$.CoreCount").cast(pl.Float64)
                * _KWH_PER_VCPU_HOUR
                * pl.col("g")
                / 1000,
            )
            .group_by("month", "tenant", "service", "RegionId")
            .agg(pl.col("BilledCost").sum(), pl.col("kg").sum())
            .collect(engine="streaming")
        )

    found = []
    seconds = best_of(2, lambda: found.append(work()))
    report(seconds, billed=_sum(str(sum(found[-1]["BilledCost"].to_list()))))


def _pandas_case(folder: Path) -> None:
    import json

    import pandas as pd

    def work() -> pd.DataFrame:
        names = ["ChargePeriodStart", "RegionId", "Tags", "SkuPriceDetails", "ConsumedQuantity", "BilledCost"]
        bill = pd.read_parquet(folder / "bill.parquet", columns=names)
        grid = pd.read_parquet(folder / "intensity.parquet")
        bill = bill.merge(grid, left_on=["RegionId", "ChargePeriodStart"], right_on=["region", "hour"], how="left")
        tags = bill["Tags"].map(json.loads)
        bill["tenant"], bill["service"] = tags.str["tenant"], tags.str["service"]
        bill["month"] = bill["ChargePeriodStart"].dt.strftime("%Y-%m")
        cores = bill["SkuPriceDetails"].map(json.loads).str["CoreCount"]
        bill["kg"] = bill["ConsumedQuantity"].astype(float) * cores * _KWH_PER_VCPU_HOUR * bill["g"] / 1000
        return bill.groupby(["month", "tenant", "service", "RegionId"])[["BilledCost", "kg"]].sum()

    found = []
    seconds = best_of(1, lambda: found.append(work()))
    report(seconds, billed=_sum(str(sum(found[-1]["BilledCost"]))))


def _validate_case(folder: Path) -> None:
    from greenops_pipelines.cost.validate import validate

    found = []
    seconds = best_of(1, lambda: found.append(validate(folder / "bill.parquet")))
    assert found[-1].conforms, [o.rule.id for o in found[-1].failed]
    report(seconds)


def _sum(text: str) -> str:
    """The exact sum as text: JSON would make a double of it."""
    return f"{Decimal(text):.12f}"


if __name__ == "__main__":
    case, folder = sys.argv[1], Path(sys.argv[2])
    if case == "make":
        _make(folder, int(sys.argv[3]))
    else:
        {
            "lake": _lake_case,
            "duckdb": _duckdb_case,
            "polars": _polars_case,
            "pandas": _pandas_case,
            "validate": _validate_case,
        }[case](folder)
