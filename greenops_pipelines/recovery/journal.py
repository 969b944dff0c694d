"""A drill as a Chaos Toolkit journal, so that its tools (`chaos report`) can read it. Made from our own event log.

The format is that of chaostoolkit-lib 1.44 (chaoslib/run.py). Its own journal is written when an experiment has ended; this
one can be made of a drill that was killed, too. Not here: running experiments.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from greenops_pipelines import __version__
from greenops_pipelines.recovery import events
from greenops_pipelines.recovery.results import Result

FORMAT = "1.44.0"
"""The version of chaostoolkit-lib whose journal this is; its tools ask for it."""

_PROBES = {"refuse", "check", "steady_state", "check_standby", "detect", "first_write", "verify", "catch_up"}
_PROBES |= {"first_write_back", "verify_again", "prove", "choose"}
_BEFORE = {"check", "steady_state", "check_standby"}
_AFTER = {"verify_again"}
_ROLLBACKS = {
    "rewind",
    "catch_up",
    "switch_back",
    "route_back",
    "first_write_back",
    "rejoin",
    "verify_again",
    "take_down",
}


def journal(result: Result, log: Path) -> dict[str, Any]:
    """The journal's document. An activity is a step; its provider names the commands that ran."""
    began = _began(result, log)
    runs = [(str(step["step"]), _run(step, began, result, log)) for step in result.steps]
    is_met = result.verdict in ("passed", "refused as intended", "missed as intended")
    status = "aborted" if result.verdict == "aborted" else "completed" if is_met else "failed"
    method = [run for name, run in runs if name not in _ROLLBACKS and name not in _BEFORE]
    before = [run for name, run in runs if name in _BEFORE]
    after = [run for name, run in runs if name in _AFTER]
    return {
        "chaoslib-version": FORMAT,
        "platform": f"greenops-pipelines {__version__}",
        "node": result.drill,
        "experiment": {
            "version": "1.0.0",
            "title": f"{result.scenario}: {result.database} fails over from {result.primary} to {result.standby}",
            "description": f"Drill {result.drill}; RTO objective {result.rto_objective_s:g} s, RPO objective {result.rpo_objective_s:g} s. "
            f"Measured: RTO {_shown(result.rto_s)}, RPO {_shown(result.rpo_s)}. Verdict: {result.verdict}.",
            "tags": [result.scenario, "sync" if result.sync else "async", result.gameday],
            "contributions": {"reliability": "high", "availability": "high"},
            "steady-state-hypothesis": {
                "title": "Writes are acknowledged, and the standby has what was acknowledged",
                "probes": [run["activity"] | {"tolerance": True} for run in before],
            },
            "method": [run["activity"] for run in method],
            "rollbacks": [run["activity"] for name, run in runs if name in _ROLLBACKS],
        },
        "start": result.began_at,
        "status": status,
        "deviated": not is_met,
        "steady_states": {
            "before": {"steady_state_met": all(run["status"] == "succeeded" for run in before), "probes": before},
            "after": {"steady_state_met": is_met and bool(after), "probes": after} if after else None,
            "during": [],
        },
        "run": method,
        "rollbacks": [run for name, run in runs if name in _ROLLBACKS],
        "end": result.ended_at,
        "duration": (datetime.fromisoformat(result.ended_at) - datetime.fromisoformat(result.began_at)).total_seconds(),
    }


def _run(step: dict[str, Any], began: datetime, result: Result, log: Path) -> dict[str, Any]:
    name = str(step["step"])
    commands = [each["command"] for each in result.commands if each["step"] == name]
    start = began + timedelta(seconds=_begins(log).get(name, 0.0))
    seconds = step["seconds"] or 0.0
    is_done = step["outcome"] == "done"
    return {
        "activity": {
            "type": "probe" if name in _PROBES else "action",
            "name": name.replace("_", "-"),
            "provider": {
                "type": "process",
                "path": "greenops",
                "arguments": ["gameday", "run", "--scenario", result.scenario],
            },
        },
        "output": {"commands": commands} if commands else True if is_done else str(step["outcome"]),
        "start": start.isoformat(),
        "status": "succeeded" if is_done else "failed",
        "end": (start + timedelta(seconds=seconds)).isoformat(),
        "duration": seconds,
    } | ({} if is_done else {"exception": [str(step["outcome"])]})


def _begins(log: Path) -> dict[str, float]:
    return {event["step"]: event["t"] for event in events.read(log) if event["event"] == "begin"}


def _began(result: Result, log: Path) -> datetime:
    first = next(iter(events.read(log)), None)
    return datetime.fromisoformat(first["at"] if first else result.began_at)


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f} s"
