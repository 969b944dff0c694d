"""The whole graph once, loading it, and a tick of each sensor and schedule."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from datetime import UTC, datetime

from benchmarks.measure import Row, best_of, in_own_process, report


def _case(name: str, home: str) -> None:
    os.environ["GREENOPS_HOME"] = home
    begun = time.perf_counter()
    import dagster as dg

    from greenops_pipelines.definitions import defs

    if name == "load":
        report(time.perf_counter() - begun)
        return
    from greenops_pipelines.integrations import once
    from greenops_pipelines.settings import load_settings

    settings = load_settings()
    once.prepare_home(settings)
    if name == "run":
        begun = time.perf_counter()
        outcome = once.run(defs, once.plan(defs, settings, None, datetime.now(UTC)), settings, lambda _: None)
        report(time.perf_counter() - begun, assets=outcome.assets, failures=len(outcome.failures) + len(outcome.errors))
        return
    with dg.DagsterInstance.get() as instance:
        if name == "conditions":
            cursor = dg.evaluate_automation_conditions(defs=defs, instance=instance).cursor
            report(best_of(3, lambda: dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=cursor)))
        elif name == "declarations":
            sensor = defs.resolve_sensor_def("declarations_changed")
            with dg.build_sensor_context(instance=instance, definitions=defs) as context:
                report(best_of(3, lambda: sensor.evaluate_tick(context)))
        elif name == "schedule":
            schedule = defs.resolve_schedule_def("carbon_hourly")
            context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime.now(UTC))
            report(best_of(3, lambda: schedule.evaluate_tick(context)))


def main() -> list[Row]:
    """Seconds and peak memory of each."""
    with tempfile.TemporaryDirectory() as home:
        in_own_process("benchmarks.graph", "load", home)  # parses dbt's manifest, once per clone
        cases = {
            "load": "load the definitions in a fresh interpreter",
            "run": "whole graph once, 35 sample days",
            "conditions": "tick: assets_follow_inputs",
            "declarations": "tick: declarations_changed",
            "schedule": "tick: carbon_hourly",
        }
        found = []
        for case, label in cases.items():
            cost = in_own_process("benchmarks.graph", case, home)
            note = f"peak {cost.peak_mb:,.0f} MB" + (f", {cost.extra['assets']:.0f} assets" if case == "run" else "")
            if cost.extra.get("failures"):
                note += f", {cost.extra['failures']:.0f} FAILURES"
            found.append(Row(label, cost.seconds, "s", note))
        return found


if __name__ == "__main__":
    _case(*sys.argv[1:])
