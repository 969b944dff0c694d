"""The runbook of a failover, written by a drill: its steps in order, what each took, and the commands that ran in it.

Nothing in it is from memory: what did not run does not stand there. What the drill did without a program (a signal, a file, a
statement) stands as the command that does the same. Not here: running anything.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from greenops_pipelines.recovery.results import Result

_WHAT = {
    "refuse": (
        "May its data be there?",
        "The data of a bound tenant does not leave its area. If this refuses, stop: no failover.",
    ),
    "set_up": ("Set up", "The two servers of the drill. In an incident they are there already."),
    "check": (
        "Check both servers",
        "Each answers, takes a write, and the standby streams. If not, find out why before you move.",
    ),
    "steady_state": ("Steady state", "Writes are acknowledged at their usual rate."),
    "check_standby": (
        "Check the standby's content",
        "Every acknowledged write is there, as it was written. A standby that fails this is not promoted.",
    ),
    "corrupt": ("Damage", "The drill's fault."),
    "fault": ("The fault", "What the drill did. In an incident this is where you come in."),
    "detect": (
        "Detect",
        "Write probes that fail in a row, each with its own time limit. One that fails is no reason to move.",
    ),
    "fence": (
        "Fence the old primary",
        "It must not acknowledge anything any more, **before** the other one is promoted: two primaries lose data.",
    ),
    "promote": ("Promote the standby", "It becomes a primary."),
    "route": ("Route clients", "The endpoint leads to the new primary. Connections to the old one are closed."),
    "first_write": ("Wait for the first write", "The outage is over when the other region acknowledges one."),
    "verify": ("Verify", "What was acknowledged, held against what is there."),
    "rewind": (
        "Rewind the old primary",
        "What only it has is taken back, and it follows the new one. Look at the lost writes first: this ends them.",
    ),
    "catch_up": ("Catch up", "The old primary has all that the new one has."),
    "switch_back": (
        "Switch back",
        "The new primary is stopped in the clean way, its last record arrives, and the old one is promoted.",
    ),
    "route_back": ("Route clients back", "The endpoint leads home."),
    "first_write_back": ("Wait for the first write at home", ""),
    "rejoin": ("Rejoin", "The standby streams again. Only now is there a second copy."),
    "verify_again": ("Verify again", "Both servers have the same rows, and none is missing that had survived."),
    "take_down": ("Take down", "Of the drill alone."),
    "restore": ("Restore", "From the second copy into an empty home, each file held against its digest."),
    "prove": ("Prove", "What was restored answers."),
    "choose": ("Choose the copy", "The newest whole one."),
}


def runbook(result: Result, folder: Path | None = None) -> str:
    """Markdown. Paths below the drill's `folder` stand as variables, which are set to an operator's own at the top."""
    variables = {region: region.upper().replace("-", "_") for region in (result.primary, result.standby)}
    lines = [
        f"# Failover of {result.database}: {result.primary} to {result.standby}",
        "",
        f"Written by drill {result.drill} ({result.scenario}{', synchronous' if result.sync else ''}), {result.began_at[:10]}; "
        f"verdict: {result.verdict}.",
        "",
        "| | measured | objective |",
        "|---|---|---|",
        f"| recovery time (fault to first write in {result.standby}) | {_seconds(result.rto_s)} | {_seconds(result.rto_objective_s)} |",
        f"| recovery point (acknowledged writes lost) | {_seconds(result.rpo_s)}, {_count(result.lost_writes)} writes | {_seconds(result.rpo_objective_s)} |",
        f"| failback | {_seconds(result.failback_s)} | |",
        "",
    ]
    if any(variable in command for command in _said(result, folder, variables) for variable in variables.values()):
        lines += [
            "Folders of the servers, and the processes of the one that is to be ended; set them to yours:",
            "",
            "```",
        ]
        lines += [f"{variable}=/path/of/{region}" for region, variable in variables.items()]
        pidfile = f"${variables[result.primary]}/data/postmaster.pid"
        lines += [f'PIDS="$(head -1 {pidfile}) $(pgrep --parent $(head -1 {pidfile}))"']
        lines += ["```", ""]
    for number, step in enumerate(result.steps, 1):
        name = str(step["step"])
        title, why = _WHAT.get(name, (name.replace("_", " ").capitalize(), ""))
        took = f"{step['seconds']:.2f} s" if step["seconds"] is not None else "under way when the drill ended"
        lines += [f"## {number}. {title} ({took})", ""]
        lines += [why, ""] if why else []
        if step["outcome"] not in ("done", "was under way when the drill ended"):
            lines += [f"In this drill it ended with: {step['outcome']}", ""]
        ran = [each for each in result.commands if each["step"] == name]
        if ran:
            lines += ["```"]
            lines += [
                f"{_shown(str(each['command']), folder, variables)}   # {each['where']}, {each['seconds']:.2f} s"
                for each in ran
            ]
            lines += ["```", ""]
    if result.deficiencies:
        lines += ["## Deficiencies", "", *(f"- {each}" for each in result.deficiencies), ""]
    return "\n".join(lines)


def _said(result: Result, folder: Path | None, variables: dict[str, str]) -> Sequence[str]:
    return [_shown(str(each["command"]), folder, variables) for each in result.commands]


def _shown(command: str, folder: Path | None, variables: dict[str, str]) -> str:
    if command.startswith("#"):
        return _put_in(command, folder, variables)
    words = shlex.split(command)
    if words[0] == "kill":
        # The postmaster and all its processes; the numbers of the drill's own mean nothing elsewhere.
        return f"{words[0]} {words[1]} $PIDS"
    return " ".join(_quoted(_put_in(word, folder, variables)) for word in words)


def _put_in(text: str, folder: Path | None, variables: dict[str, str]) -> str:
    if folder is not None:
        for region, variable in variables.items():
            text = text.replace(str(folder / region), f"${variable}")
    return text


def _quoted(word: str) -> str:
    """As a shell reads it, variables filled in."""
    if "$" not in word:
        return shlex.quote(word)
    return f'"{word}"' if re.search(r"[^\w$/.:=@+-]", word) else word


def _seconds(value: Any) -> str:
    return "not measured" if value is None else f"{value:.2f} s" if value < 60 else f"{value / 60:.1f} min"


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"
