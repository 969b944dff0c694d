"""What becomes of a drill's result: signed evidence, two tables of the lake, and nothing left behind.

Each step is noted in the drill's folder before the next one, so that whoever was killed in between is followed by somebody
who goes on where it was: filed once, recorded once, removed. Not here: making results.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from greenops_pipelines.errors import GreenopsError
from greenops_pipelines.evidence.archive import Archive
from greenops_pipelines.evidence.statement import Figure, Verdict
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.recovery_tables import RECOVERY_DRILLS, RECOVERY_STEPS
from greenops_pipelines.recovery.events import FILE as EVENTS
from greenops_pipelines.recovery.journal import journal
from greenops_pipelines.recovery.results import KEPT, LEDGER, RESTORED, RESULT, Result, put_json
from greenops_pipelines.recovery.runbook import runbook

_log = logging.getLogger(__name__)

FILED = "filed.json"
RUNBOOK = "runbook.md"
JOURNAL = "journal.json"

_VERDICTS: Mapping[str, Verdict] = {
    "passed": "passed",
    "refused as intended": "passed",
    "missed as intended": "passed",
    "failed": "failed",
    "not missed": "failed",
    "aborted": "aborted",
}
_FIGURES = (
    "rto_s",
    "rto_objective_s",
    "rpo_s",
    "rpo_objective_s",
    "client_outage_s",
    "detection_s",
    "failback_s",
    "lost_writes",
    "in_doubt_writes",
    "in_doubt_kept",
    "failed_writes",
    "acked_writes",
    "throughput_per_s",
    "rate",
    "clients",
    "wan_ms",
    "sync",
    "is_negative_control",
    "is_embedded",
    "health_checks",
    "clock_moved_s",
    "gameday",
)


@dataclass(frozen=True)
class Filed:
    """A result and its evidence. `bundle` is None where it could not be filed; `state` says why, and the next run tries."""

    result: Result
    bundle: str | None
    state: str


def file(folder: Path, result: Result, archive: Archive, lake: Lake, is_again: bool = False) -> Filed:
    """Takes a finished drill from its folder into evidence and lake, and removes the folder.

    `is_again`: somebody may have filed it already, and was killed before that was noted.
    """
    noted = folder / FILED
    if noted.exists():
        told = json.loads(noted.read_text(encoding="utf-8"))
        filed = Filed(result, told["bundle"], told["state"])
    else:
        filed = _evidence(folder, result, archive, is_again)
        if filed.bundle is not None:
            put_json(noted, {"bundle": filed.bundle, "state": filed.state})
    record(lake, filed)
    if filed.bundle is not None:
        # By another name first: half a folder must not be taken for a drill that was killed.
        gone = folder.rename(folder.with_name(f".{folder.name}"))
        shutil.rmtree(gone)
    return filed


def subject(result: Result) -> str:
    """What the bundle is about: the drill, by its identifier, and its scope."""
    what = "negative control" if result.is_negative_control else "drill"
    return f"{what} {result.drill}: {result.scenario}, {result.database}, {result.primary} to {result.standby}"


def _evidence(folder: Path, result: Result, archive: Archive, is_again: bool) -> Filed:
    about = subject(result)
    try:
        if is_again and (known := archive.find(about, datetime.fromisoformat(result.ended_at))) is not None:
            return Filed(result, known, "filed before")
        receipt = archive.file("J4.2", about, _figures(result), _files(folder, result), _VERDICTS[result.verdict])
    except (GreenopsError, ValueError) as error:
        _log.error("drill %s: evidence not filed: %s", result.drill, error)
        return Filed(result, None, f"not filed: {error}")
    return Filed(result, receipt.id, f"{receipt.state}; {receipt.detail}")


def _figures(result: Result) -> dict[str, Figure]:
    return {name: getattr(result, name) for name in _FIGURES} | {
        "scenario": result.scenario,
        "outcome": result.verdict,
        "deficiencies": len(result.deficiencies),
    }


def _files(folder: Path, result: Result) -> dict[str, bytes | Path]:
    files: dict[str, bytes | Path] = {
        RESULT: folder / RESULT,
        RUNBOOK: runbook(result, folder).encode(),
        JOURNAL: (json.dumps(journal(result, folder / EVENTS), indent=1, ensure_ascii=False) + "\n").encode(),
    }
    for name in (EVENTS, LEDGER, KEPT, RESTORED):
        if (folder / name).exists():
            files[name] = folder / name
    return files


def record(lake: Lake, filed: Filed) -> None:
    """The drill and its steps as rows, replaced where they are there."""
    result = filed.result
    row = {
        "drill": result.drill,
        "gameday": result.gameday,
        "database": result.database,
        "primary_region": result.primary,
        "standby_region": result.standby,
        "scenario": result.scenario,
        "is_sync": result.sync,
        # A restore has none of the two.
        "rate_per_s": result.rate or None,
        "wan_ms": result.wan_ms if result.rate else None,
        "bundle": filed.bundle,
        "began_at": _time(result.began_at),
        "ended_at": _time(result.ended_at),
        "deficiencies": "\n".join(result.deficiencies) or None,
    }
    more = {name: getattr(result, name) for name in RECOVERY_DRILLS.schema.names if name not in row}
    steps = [
        {
            "drill": result.drill,
            "position": position,
            "step": step["step"],
            "seconds": step["seconds"],
            "outcome": step["outcome"],
            "commands": "\n".join(each["command"] for each in result.commands if each["step"] == step["step"]) or None,
        }
        for position, step in enumerate(result.steps, 1)
    ]
    lake.write(RECOVERY_STEPS, pa.Table.from_pylist(steps, schema=RECOVERY_STEPS.schema), refresh=False)
    lake.write(RECOVERY_DRILLS, pa.Table.from_pylist([row | more], schema=RECOVERY_DRILLS.schema))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
