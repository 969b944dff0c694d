"""Work that waits in great numbers: ticks of the launching sensors, the inbox, the plan for it, and one launch."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.measure import Row, best_of, in_own_process, report

_PENDING = 10_000


def _fill(home: Path, count: int) -> None:
    """Submissions as files, in the manner of any other system that writes into the inbox."""
    inbox = home / "inbox" / "placement"
    inbox.mkdir(parents=True, exist_ok=True)
    start = datetime.now(UTC).replace(second=0, microsecond=0)
    for number in range(count):
        document = {
            "key": f"job-{number}",
            "workload": "flood",
            "kind": "batch",
            "tenant": "nordlys-energi",
            "earliest_start": (start + timedelta(minutes=number % 600)).isoformat(),
            "window_minutes": 720,
            "duration_minutes": 30,
            "power_kw": 0.5,
            "runner": {"kind": "local", "command": ["true"], "timeout_minutes": 5},
        }
        (inbox / f"{number}.json").write_text(json.dumps(document), encoding="utf-8")


def _case(name: str, home: str, count: str) -> None:
    os.environ["GREENOPS_HOME"] = home
    import dagster as dg

    from greenops_pipelines.carbon.ingest import ingest_forecast
    from greenops_pipelines.carbon.outlook import outlook
    from greenops_pipelines.definitions import defs
    from greenops_pipelines.lake.tables import CARBON_OUTLOOK, PLACEMENT_PLAN, PLACEMENT_REQUESTS
    from greenops_pipelines.placement import launching, queue
    from greenops_pipelines.placement.due import find
    from greenops_pipelines.placement.submissions import take_inbox
    from greenops_pipelines.resources import Platform

    platform = Platform()
    settings, lake, ledger, workloads = platform.settings(), platform.lake(), platform.ledger(), platform.workloads()

    def gather() -> None:
        lake.write(PLACEMENT_REQUESTS, queue.gather(settings, workloads, platform.now()).rows)

    def plan() -> None:
        lake.write(PLACEMENT_PLAN, queue.plan(lake, ledger, workloads, platform.now()).rows)

    def tick() -> None:
        context = dg.build_sensor_context(instance=instance, definitions=defs, resources={"platform": platform})
        with context:
            defs.resolve_sensor_def(name).evaluate_tick(context)

    if name == "sweep":
        _fill(Path(home), int(count))
        report(best_of(1, lambda: take_inbox(settings)))
    elif name == "gather":
        report(best_of(1, gather))
    elif name == "plan":
        ingest_forecast(platform.carbon(), lake, platform.zones(), "", platform.now())
        lake.write(CARBON_OUTLOOK, outlook(lake, platform.carbon().name, platform.zones(), platform.now()).rows)
        report(best_of(1, plan))
    elif name == "launch":

        def tomorrow() -> datetime:
            return datetime.now(UTC) + timedelta(days=1)

        [due] = find(lake, ledger, tomorrow(), limit=1).due
        report(best_of(1, lambda: launching.launch(settings, lake, workloads, due.key, "", tomorrow)))
    else:
        if name == "placement_new_work":
            _fill(Path(home), int(count))
        with dg.DagsterInstance.ephemeral() as instance:
            report(best_of(3, tick))


def main(count: int = _PENDING) -> list[Row]:
    """Seconds and peak memory of each."""
    cases = {
        "sweep": f"{count:,} files of the inbox accepted",
        "gather": f"{count:,} submissions as rows of the lake",
        "plan": f"{count:,} pieces of work planned",
        "placement_due": f"tick: placement_due, {count:,} pending",
        "placement_new_work": f"tick: placement_new_work, {count:,} files",
        "launch": "one launch of `true`, claimed and recorded",
    }
    found = []
    with tempfile.TemporaryDirectory() as home:
        for case, label in cases.items():
            cost = in_own_process("benchmarks.launching", case, home, str(count))
            found.append(Row(label, cost.seconds, "s", f"peak {cost.peak_mb:,.0f} MB"))
    return found


if __name__ == "__main__":
    _case(*sys.argv[1:])
