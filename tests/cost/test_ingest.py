"""From files to the lake and its marts: exact, whole, repeatable; dimensions by tags, accounts and mappings."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from greenops_pipelines.cost import opencost, sources
from greenops_pipelines.cost.allocation import read_cost
from greenops_pipelines.cost.ingest import Ingested, ingest
from greenops_pipelines.errors import BadInput, ConfigurationError, ProviderError, SchemaViolation
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.cost_tables import COST_CHARGES, COST_FILES, COST_PERIODS
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.settings import Settings
from tests.cost import focus_rows as rows

NOW = datetime(2026, 6, 2, tzinfo=UTC)
OPS = """
allocation:
  tenant: {tags: [tenant, customer], sub_accounts: {"300": umbrella}}
  service: {tags: [service]}
mappings:
  - service_name: Amazon EC2
    sets: {service: compute}
shared:
  - {name: tax, charge_category: Tax, split: even}
"""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(
        LocalFolder(tmp_path / "lake"),
        tmp_path / "warehouse.duckdb",
        {},
        [COST_CHARGES, COST_FILES, COST_PERIODS],
    )


def ops_dir(folder: Path, text: str = OPS) -> Path:
    (folder / "cost.yaml").write_text(text, encoding="utf-8")
    return folder


def run(lake: Lake, folder: Path, now: datetime = NOW, pattern: str = "") -> Ingested:
    settings = Settings(cost_path=pattern or str(folder / "bills"), home=folder / "home")
    return ingest(lake, sources.find(settings, [], now), read_cost(ops_dir(folder)), "run", now)


def bill(folder: Path, name: str, listed: list[rows.Row], modified: int = 1) -> Path:
    path = folder / "bills" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write(path, listed)
    os.utime(path, (modified, modified))
    return path


def test_charges_keep_sign_digits_and_place(lake: Lake, tmp_path: Path) -> None:
    bill(tmp_path, "may.csv", rows.rows_for("1.2"))
    done = run(lake, tmp_path)
    assert done.written.rows == len(rows.BASE)
    assert done.totals == {"USD": Decimal("-1.4")}
    found = lake.read(COST_CHARGES).to_pylist()
    credit = next(r for r in found if r["charge_category"] == "Credit")
    assert (credit["billed_cost"], credit["row_number"], credit["billing_period"]) == (
        Decimal("-3.500000000000"),
        6,
        date(2026, 5, 1),
    )
    assert sum(r["billed_cost"] for r in found) == sum(Decimal(r["BilledCost"]) for r in rows.BASE)


def test_a_second_look_changes_nothing(lake: Lake, tmp_path: Path) -> None:
    bill(tmp_path, "may.csv", rows.rows_for("1.2"))
    first, second = run(lake, tmp_path), run(lake, tmp_path, NOW + timedelta(days=1))
    assert first.written.version == second.written.version
    assert (second.written.bytes, second.restated) == (0, ())
    assert lake.read(COST_PERIODS).num_rows == 1


def test_a_restated_period_is_replaced_whole_and_remembered(lake: Lake, tmp_path: Path) -> None:
    bill(tmp_path, "may.csv", rows.rows_for("1.2"), modified=1)
    run(lake, tmp_path)
    bill(
        tmp_path,
        "may restated.csv",
        [*rows.rows_for("1.2"), rows.USAGE | {"ResourceId": "i-9", "BilledCost": "10", "EffectiveCost": "10"}],
        modified=2,
    )
    done = run(lake, tmp_path, NOW + timedelta(days=1))
    assert done.restated == ("2026-05 USD: -1.400000000000 is now 8.600000000000",)
    assert sum(r["billed_cost"] for r in lake.read(COST_CHARGES).to_pylist()) == Decimal("8.6")
    assert [r["billed_cost"] for r in sorted(lake.read(COST_PERIODS).to_pylist(), key=lambda r: r["observed_at"])] == [
        Decimal("-1.4"),
        Decimal("8.6"),
    ]


def test_a_period_whose_files_are_gone_stays(lake: Lake, tmp_path: Path) -> None:
    old = bill(tmp_path, "may.csv", rows.rows_for("1.2"))
    run(lake, tmp_path)
    old.unlink()
    june = {
        "BillingPeriodStart": "2026-06-01T00:00:00Z",
        "BillingPeriodEnd": "2026-07-01T00:00:00Z",
        "ChargePeriodStart": "2026-06-01T00:00:00Z",
        "ChargePeriodEnd": "2026-06-01T01:00:00Z",
    }
    bill(tmp_path, "june.csv", [rows.USAGE | june])
    run(lake, tmp_path, NOW + timedelta(days=40))
    assert {r["billing_period"].month: r["reason"] for r in lake.read(COST_FILES).to_pylist()} == {
        5: "no longer at the source; what was counted stays",
        6: "nothing newer repeats it",
    }
    assert lake.read(COST_CHARGES).num_rows == len(rows.BASE) + 1


def test_a_file_with_a_fault_stops_everything_before_anything_is_written(lake: Lake, tmp_path: Path) -> None:
    bill(tmp_path, "april.csv", [rows.USAGE])
    bill(tmp_path, "may.csv", [rows.USAGE, rows.USAGE | {"BilledCost": "1,234.56"}])
    with pytest.raises(BadInput, match=r"may.csv, row 2: BilledCost: found '1,234.56'"):
        run(lake, tmp_path)
    assert lake.read(COST_CHARGES).num_rows == 0


def test_dimensions_come_from_tags_then_accounts_then_mappings(lake: Lake, tmp_path: Path) -> None:
    listed = [
        rows.USAGE | {"Tags": '{"tenant": "acme", "service": "web"}'},
        rows.USAGE | {"Tags": '{"customer": "globex", "tenant": ""}', "ResourceId": "i-2"},
        rows.USAGE | {"Tags": None, "SubAccountId": "300", "ResourceId": "i-3"},
        rows.USAGE | {"Tags": '["a", "list"]', "ResourceId": "i-4"},
        rows.TAX | {"Tags": None},
        rows.TAX | {"Tags": '{"tenant": "<script>"}', "BilledCost": "2"},
    ]
    bill(tmp_path, "may.csv", listed)
    run(lake, tmp_path)
    found = [(r["tenant"], r["service"], r["shared_by"]) for r in lake.read(COST_CHARGES).to_pylist()]
    assert found == [
        ("acme", "web", None),
        ("globex", "compute", None),
        ("umbrella", "compute", None),
        (None, "compute", None),
        (None, "compute", "tax"),
        ("<script>", "compute", None),
    ]


def test_what_a_charge_used_is_known_where_its_columns_say_it(lake: Lake, tmp_path: Path) -> None:
    listed = [
        rows.USAGE | {"ConsumedQuantity": "3", "SkuPriceDetails": '{"CoreCount": 4, "MemorySize": 16}'},
        rows.USAGE
        | {"ConsumedQuantity": "2", "ConsumedUnit": "GB-Months", "ServiceCategory": "Storage", "ResourceId": "b"},
        rows.USAGE
        | {
            "ConsumedQuantity": "5",
            "ConsumedUnit": "Tokens",
            "ServiceCategory": "AI and Machine Learning",
            "ResourceId": "t",
        },
        rows.UNUSED,
        rows.CORRECTION | {"ResourceId": "c"},
    ]
    bill(tmp_path, "may.csv", listed)
    run(lake, tmp_path)
    names = ("vcpu_hours", "memory_gb_hours", "storage_gb_hours", "tokens")
    found = [tuple(r[n] for n in names) for r in lake.read(COST_CHARGES).to_pylist()]
    assert found == [
        (12.0, 48.0, None, None),
        (None, None, 1460.0, None),
        (None, None, None, 5.0),
        (None,) * 4,
        (None,) * 4,
    ]


def test_more_rows_than_a_piece_are_written_in_order_and_once(lake: Lake, tmp_path: Path) -> None:
    count = 140_000
    bill(tmp_path, "may.csv", [rows.USAGE | {"ResourceId": f"i-{n}"} for n in range(count)])
    run(lake, tmp_path)
    found = lake.query(
        "select count(*) as n, count(distinct row_number) as d, sum(billed_cost) as s from cost_charges"
    ).to_pylist()[0]
    assert (found["n"], found["d"], found["s"]) == (count, count, Decimal("0.2") * count)


def test_a_load_out_of_order_is_refused(lake: Lake, tmp_path: Path) -> None:
    bill(tmp_path, "may.csv", rows.rows_for("1.2"))
    run(lake, tmp_path)
    stored = lake.read(COST_CHARGES)
    upside_down = pa.concat_tables([stored.slice(5), stored.slice(0, 5)]).combine_chunks()
    with pytest.raises(SchemaViolation, match="key"):
        lake.load(COST_CHARGES, {"source": "file", "billing_period": date(2026, 5, 1)}, _large(upside_down))
    assert lake.read(COST_CHARGES).equals(stored)


def _large(table: pa.Table) -> list[pa.RecordBatch]:
    """The rows twice over: the second time, every key stands there already."""
    return [*table.to_batches(), *table.to_batches()]


@pytest.mark.parametrize("pattern", ["bills/*.csv", "bills", "bills/may.csv", "**/may.csv"])
def test_a_file_a_folder_and_globs_are_found(pattern: str, lake: Lake, tmp_path: Path) -> None:
    bill(tmp_path, "may.csv", rows.rows_for("1.2"))
    assert run(lake, tmp_path, pattern=str(tmp_path / pattern)).written.rows == len(rows.BASE)


def test_nothing_to_read_and_two_sources_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="GREENOPS_COST_PATH: no file matches"):
        sources.find(Settings(cost_path=str(tmp_path / "none*.csv")), [], NOW)
    with pytest.raises(ConfigurationError, match="found both, allowed: one"):
        sources.source_of(Settings(cost_path="x", opencost_url="http://127.0.0.1:9003"))


def test_a_bucket_is_read_with_its_times_of_modification(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        for name, value in (("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")):
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=endpoint, region_name="eu-central-1")
        client.create_bucket(Bucket="bills", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        path = bill(tmp_path, "may.csv", rows.rows_for("1.2"))
        client.upload_file(str(path), "bills", "export/data/may.csv")
        client.put_object(Bucket="bills", Key="export/readme.txt", Body=b"not a bill")
        settings = Settings(cost_path="s3://bills/export/*", s3_endpoint=endpoint, home=tmp_path / "home")
        done = ingest(lake, sources.find(settings, [], NOW), read_cost(ops_dir(tmp_path)), "run", NOW)
        assert (done.written.rows, done.verdicts[0].file.name) == (len(rows.BASE), "export/data/may.csv")
    finally:
        server.stop()


ALLOCATION = {
    "name": "web", "properties": {"cluster": "one", "namespace": "web", "namespaceLabels": {"tenant": "acme"}},
    "start": "2026-05-01T00:00:00Z", "end": "2026-05-02T00:00:00Z", "cpuCoreHours": 24, "cpuCost": 1.2, "cpuCostAdjustment": -0.2,
    "gpuHours": 0, "gpuCost": 0, "gpuCostAdjustment": 0, "ramByteHours": 48e9, "ramCost": 0.5, "ramCostAdjustment": 0, "pvByteHours": 0, "pvCost": 0.25,
    "pvCostAdjustment": 0, "networkTransferBytes": 2e9, "networkCost": 0.05, "networkCostAdjustment": 0, "loadBalancerCost": 0,
    "loadBalancerCostAdjustment": 0, "sharedCost": 0, "externalCost": 0, "totalCost": 1.8,
}  # fmt: skip


def test_allocations_of_opencost_are_charges_of_their_components() -> None:
    found = opencost.parse({"code": 200, "data": [{"web": ALLOCATION}]}, "USD")
    listed = {
        r["SkuMeter"]: (r["BilledCost"], r["ConsumedQuantity"], r["ConsumedUnit"]) for r in found.rows.to_pylist()
    }
    assert {k: v[0] for k, v in listed.items()} == {
        "cpu": Decimal("1.0"),
        "ram": Decimal("0.5"),
        "pv": Decimal("0.25"),
        "network": Decimal("0.05"),
    }
    assert listed["ram"][1:] == (Decimal(48), "GB-Hours")
    assert json.loads(found.rows["Tags"][0].as_py())["tenant"] == "acme"


def test_negative_idle_is_clamped_and_reported_and_a_total_that_does_not_add_up_refused() -> None:
    idle = ALLOCATION | {"cpuCost": -3, "cpuCostAdjustment": 0, "totalCost": -2.2}
    found = opencost.parse({"data": [{"__idle__": idle}]}, "USD")
    assert (found.clamped, found.clamped_sum) == (1, Decimal(-3))
    assert sum(r["BilledCost"] for r in found.rows.to_pylist()) == Decimal("0.8")
    with pytest.raises(ProviderError, match=r"totalCost: found 2\.8, allowed: the sum of its components"):
        opencost.parse({"data": [{"web": ALLOCATION | {"totalCost": 2.8}}]}, "USD")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shared:\n  - {name: a, split: even}\n", "at least one of provider, service_name"),
        ("shared:\n  - {name: a, provider: AWS, split: fixed}\n", "shares with split: fixed"),
        ('budgets:\n  - {name: a, amount: "-1", currency: USD}\n', "budgets[0].amount"),
        ('budgets:\n  - {name: a, amount: "1", currency: usd}\n', "budgets[0].currency"),
        ("allocation: {tennant: {}}\n", "unknown field"),
    ],
)
def test_declarations_that_cannot_be_are_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_cost(ops_dir(tmp_path, text))
    assert said in str(refused.value)


def test_a_tenant_that_nobody_declared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tenant: found umbrella, allowed: acme"):
        read_cost(ops_dir(tmp_path), ["acme"])
