"""What drills that were killed left behind: processes are ended, data is removed, and each is filed as aborted.

A drill under way holds the lock that a cleaner needs, so whatever is found here is nobody's any more. Not here: filing.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from greenops_pipelines.evidence.archive import Archive
from greenops_pipelines.lake import Lake
from greenops_pipelines.process.postgres import server_processes
from greenops_pipelines.recovery import events, filing
from greenops_pipelines.recovery.filing import Filed
from greenops_pipelines.recovery.ledger import read
from greenops_pipelines.recovery.results import LEDGER, RESULT, Result, put_json, remove_data, steps_of

_log = logging.getLogger(__name__)

_ENDING_SECONDS = 20.0


def clean(
    folder: Path, archive: Archive, lake: Lake, progress: Callable[[str], None] = lambda _text: None
) -> list[Filed]:
    """Every drill below `folder` is taken to its end: filed as what it was, or as aborted. The caller holds the lock."""
    found = []
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not place.is_dir():
            continue
        if place.name.startswith("."):
            # Killed before it had a name: nothing was begun.
            shutil.rmtree(place)
            continue
        said = "waits for its evidence to be filed" if (place / RESULT).exists() else "was killed"
        progress(f"drill {place.name} {said}; it is taken to its end")
        end_processes(place)
        remove_data(place)
        try:
            found.append(filing.file(place, _result(place), archive, lake, is_again=True))
        except (ValueError, LookupError, TypeError) as error:
            # One folder that nobody can read must not keep all drills from being held.
            aside = folder.parent / "unreadable" / place.name
            aside.parent.mkdir(mode=0o700, exist_ok=True)
            place.rename(aside)
            _log.error(
                "drill %s: its remains cannot be read (%s: %s); moved to %s",
                place.name,
                type(error).__name__,
                error,
                aside,
            )
            progress(f"drill {place.name}: its remains cannot be read; they are in {aside}")
    return found


def end_processes(place: Path) -> None:
    """Ends what still runs on data below `place`; those that a killed drill left end by themselves, but not at once."""
    processes = server_processes(place)
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=_ENDING_SECONDS)


def _result(place: Path) -> Result:
    path = place / RESULT
    if path.exists():
        told = json.loads(path.read_text(encoding="utf-8"))
        listed = {name: tuple(told[name]) for name in ("deficiencies", "steps", "commands")}
        return Result(**(told | listed))
    result = _aborted(place)
    put_json(path, result.as_document())
    return result


def _aborted(place: Path) -> Result:
    """What is known of a drill that has no result: what it was, how far it came, what clients had been told."""
    known = list(events.read(place / events.FILE))
    spec: dict[str, Any] = known[0]["spec"]
    steps = list(steps_of(place / events.FILE))
    last = steps[-1][0] if steps else "nothing"
    writes = read(place / LEDGER)
    under_way = [name for name, seconds, _, _ in steps if seconds is None]
    acked = [write for write in writes if write.outcome == "ok"]
    broken = [str(event["error"]) for event in known if event["event"] == "failed"]
    why = f"; before that: {broken[-1]}" if broken else ""
    left = "" if spec["is_embedded"] else "; the clusters are as that step left them: look which of them takes writes"
    where = f"in the step {under_way[-1]}" if under_way else f"after the step {last}"
    return Result(
        drill=spec["id"],
        gameday=spec["gameday"],
        database=spec["database"]["name"],
        primary=spec["database"]["primary"],
        standby=spec["database"]["standby"],
        scenario=spec["scenario"],
        sync=spec["sync"],
        rate=spec["rate"],
        clients=spec["clients"],
        wan_ms=spec["wan_ms"],
        is_negative_control=spec["is_negative_control"],
        is_embedded=spec["is_embedded"],
        began_at=known[0]["at"].replace("+00:00", "Z"),
        ended_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        rto_objective_s=spec["rto_objective_s"],
        rpo_objective_s=spec["rpo_objective_s"],
        verdict="aborted",
        deficiencies=(f"the drill itself was killed {where}; what survived was not looked at{why}{left}",),
        remediation=("run it again; its servers, logs and data are cleaned up",),
        in_doubt_writes=sum(write.outcome == "in doubt" for write in writes),
        failed_writes=sum(write.outcome == "fail" for write in writes),
        acked_writes=len(acked),
        acked_before=sum(write.region == spec["database"]["primary"] for write in acked),
        acked_after=sum(write.region == spec["database"]["standby"] for write in acked),
        steps=tuple({"step": step, "seconds": seconds, "outcome": outcome} for step, seconds, outcome, _ in steps),
        commands=tuple({"step": step, **command} for step, _, _, commands in steps for command in commands),
    )
