"""Nobody touches anything: a file in the inbox is planned, launched in its hour, recorded; a plan that was tampered with is not."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from greenops_pipelines import wiring
from greenops_pipelines.lake.tables import PLACEMENT_PLAN
from greenops_pipelines.settings import load_settings
from tests.e2e.conftest import Site
from tests.e2e.test_unattended import runs


def drop(site: Site, key: str, window_minutes: int, command: list[str], in_hours: int = 0) -> None:
    """A submission, as any other system hands it in: written under another name, then renamed."""
    inbox = site.home / "inbox" / "placement"
    inbox.mkdir(parents=True, exist_ok=True)
    start = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(hours=in_hours)
    document = {
        "key": key,
        "workload": "month-end",
        "kind": "batch",
        "tenant": "alpenblick-versicherung",
        "earliest_start": start.isoformat(),
        "window_minutes": window_minutes,
        "duration_minutes": 1,
        "power_kw": 2,
        "runner": {"kind": "local", "command": command, "timeout_minutes": 2},
    }
    (inbox / f".{key}.json").write_text(json.dumps(document))
    (inbox / f".{key}.json").rename(inbox / f"{key}.json")


def launched(site: Site, key: str, status: str) -> dict | None:
    found = [run for run in runs(site) if run["tags"].get("greenops/key") == key and run["status"] == status]
    return found[0] if found else None


def planned(site: Site, key: str) -> list[dict]:
    return wiring.lake(load_settings()).query("from placement_plan where key = ?", [key]).to_pylist()


def settled_down(site: Site) -> bool:
    """A new home makes everything first, and a window of three minutes would be over before its first plan."""
    under_way = {"QUEUED", "NOT_STARTED", "STARTING", "STARTED"}
    found = runs(site)
    return any(run["tags"].get("dagster/sensor_name") == "assets_follow_inputs" for run in found) and not any(
        run["status"] in under_way for run in found
    )


def test_a_file_in_the_inbox_is_launched_in_its_hour_with_region_and_reason(site: Site, tmp_path: Path) -> None:
    site.until(lambda: settled_down(site), seconds=300)
    mark = tmp_path / "mark"
    drop(site, "month-end-1", 3, ["sh", "-c", f"echo $GREENOPS_PLACEMENT_REGION >> {mark}"])
    drop(site, "month-end-2", 600, ["sh", "-c", f"echo never >> {mark}"], in_hours=2)
    [row] = site.until(lambda: planned(site, "month-end-1"), seconds=240)
    run = site.until(lambda: launched(site, "month-end-1", "SUCCESS"), seconds=300)
    # A later plan may have moved it, as long as it had not begun.
    tags = run["tags"]
    assert mark.read_text().split() == [tags["greenops/region"]]
    assert tags["greenops/region"].startswith("eu-")
    assert tags["greenops/reason"]
    assert (tags["greenops/tenant"], tags["greenops/outcome"]) == (row["tenant"], "succeeded")
    lake = wiring.lake(load_settings())

    def settled() -> list[dict]:
        return lake.query("from placement_settlements where key = 'month-end-1'").to_pylist()

    # The hour it ran in is not over: nothing stands in the place of what is not known.
    [settlement] = site.until(settled, seconds=240)
    assert (settlement["state"], settlement["region"]) in {
        (state, tags["greenops/region"]) for state in ("awaiting actuals", "settled")
    }

    # Somebody writes into the plan: an EU tenant's work in Virginia, now.
    lake = wiring.lake(load_settings())
    table = lake.query("from placement_plan")
    rows = table.to_pylist()
    for other in rows:
        if other["key"] == "month-end-2":
            runs_there = [{**each, "region": "us-east-1"} for each in json.loads(other["runs"])]
            past = datetime.now(UTC).replace(second=0, microsecond=0)
            other |= {"region": "us-east-1", "zone": "US-MIDA-PJM", "start_at": past, "runs": json.dumps(runs_there)}
    lake.write(PLACEMENT_PLAN, pa.Table.from_pylist(rows, schema=PLACEMENT_PLAN.schema))
    refused = site.until(lambda: launched(site, "month-end-2", "FAILURE"), seconds=120)
    assert (refused["tags"]["greenops/region"], refused["tags"]["greenops/outcome"]) == ("us-east-1", "refused")
    assert "never" not in mark.read_text()
