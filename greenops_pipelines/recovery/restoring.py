"""The drill of a restore: the platform itself, from its second copy into an empty home, as after the loss of a region.

Its own objectives: from the loss until the warehouse of the restored home answers, and the age of the copy. Digests are compared
file by file. Not here: the copy, and what becomes of the result.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import GreenopsError, TransientError
from greenops_pipelines.lake import Lake
from greenops_pipelines.recovery import snapshots
from greenops_pipelines.recovery.declared import Database, GameDays
from greenops_pipelines.recovery.events import FILE as EVENTS
from greenops_pipelines.recovery.events import Events, Step
from greenops_pipelines.recovery.restore import restore
from greenops_pipelines.recovery.restored import prove
from greenops_pipelines.recovery.results import (
    RESTORED,
    RESULT,
    Result,
    Spec,
    Verdict,
    put_json,
    remove_data,
    steps_of,
    told,
)
from greenops_pipelines.recovery.vault import Vault

NAME = "greenops-pipelines"
"""What is drilled here: this platform."""

LakeIn = Callable[[Path], Lake]
"""The lake of a restored home."""


def drill(
    declared: GameDays,
    gameday: str,
    vault: Vault,
    lake_in: LakeIn,
    folder: Path,
    progress: Callable[[str], None] = lambda _text: None,
) -> tuple[Path, Result]:
    """Restores below `folder`, proves that it is usable, and removes it again. The caller holds the drills' lock."""
    spec = _spec(declared, gameday)
    unnamed, place = folder / f".{spec.id}", folder / spec.id
    unnamed.mkdir(mode=0o711, parents=True)
    events = Events(unnamed / EVENTS)
    events.add("drill", **told(spec))
    unnamed.rename(place)
    began = datetime.now(UTC)
    deficiencies: list[str] = []
    verdict: Verdict = "passed"
    figures: dict[str, Any] = {}
    try:
        _restore(spec, place, vault, lake_in, events, figures, progress)
    except GreenopsError as error:
        verdict = "failed"
        deficiencies.append(str(error))
    finally:
        remove_data(place)
    rto, rpo = figures.get("rto_s"), figures.get("rpo_s")
    deficiencies += figures.pop("faults", ())
    if rto is not None and rto > spec.rto_objective_s:
        deficiencies.append(f"RTO missed: {rto:.10g} s, the objective is {spec.rto_objective_s:g} s")
    if rpo is not None and rpo > spec.rpo_objective_s:
        deficiencies.append(
            f"RPO missed: the copy was {rpo / 60:.1f} minutes old, the objective is {spec.rpo_objective_s / 60:g}"
        )
    listed = list(steps_of(place / EVENTS))
    result = Result(
        drill=spec.id,
        gameday=gameday,
        database=spec.database.name,
        primary=spec.database.primary,
        standby=spec.database.standby,
        scenario="restore",
        sync=False,
        rate=0,
        clients=0,
        wan_ms=0,
        is_negative_control=False,
        is_embedded=False,
        began_at=_text(began),
        ended_at=_text(datetime.now(UTC)),
        rto_objective_s=spec.rto_objective_s,
        rpo_objective_s=spec.rpo_objective_s,
        verdict="failed" if deficiencies else verdict,
        deficiencies=tuple(deficiencies),
        rto_s=rto,
        rpo_s=rpo,
        clock_moved_s=round(events.clock_moved, 3),
        steps=tuple({"step": step, "seconds": seconds, "outcome": outcome} for step, seconds, outcome, _ in listed),
        commands=tuple({"step": step, **command} for step, _, _, commands in listed for command in commands),
    )
    put_json(place / RESULT, result.as_document())
    events.add("done", verdict=result.verdict)
    events.close()
    return place, result


def _restore(
    spec: Spec,
    place: Path,
    vault: Vault,
    lake_in: LakeIn,
    events: Events,
    figures: dict[str, Any],
    progress: Callable[[str], None],
) -> None:
    home = place / "home"
    lost_at, begun = datetime.now(UTC), events.add("fault", kind="the home is lost")
    with _step(events, "choose", progress):
        chosen = snapshots.read(vault)
        needed, free = sum(file.size for file in chosen.files) * 2, shutil.disk_usage(place).free
        if free < needed:
            raise TransientError(
                f"{place}: found {free // 1024**2:,} MB free, allowed: {needed // 1024**2:,} MB; free some room"
            )
        # What came while it was taken may be in it; what was there before it began is.
        figures["rpo_s"] = round((lost_at - chosen.begun_at).total_seconds(), 3)
    with _step(events, "restore", progress) as step:
        done = restore(vault, home, chosen.id)
        command = f"greenops replica restore --into HOME --snapshot {chosen.id}"
        step.commands.append({"command": command, "where": spec.database.standby, "seconds": round(done.seconds, 3)})
        step.notes |= {"files": done.files, "bytes": done.bytes}
    parts = {
        name: {
            "files": part.files,
            "bytes": part.bytes,
            "digest_of_the_copy": part.expected,
            "digest_restored": part.found,
            "equal": part.expected == part.found,
            "differs": part.differs,
        }
        for name, part in done.parts.items()
    }
    document: dict[str, Any] = {"snapshot": chosen.id, "seconds": round(done.seconds, 3), "parts": parts}
    faults = [
        f"{name}: the digest restored is not that of the copy: {part['differs']}"
        for name, part in parts.items()
        if not part["equal"]
    ]
    # Filed also where what follows breaks off.
    put_json(place / RESTORED, document)
    figures["faults"] = faults
    if faults:
        return
    with _step(events, "prove", progress) as step:
        proven = prove(home, lake_in(home))
        found = {
            "databases": dict(proven.databases),
            "runs": proven.runs,
            "log_entries": proven.entries,
            "bundles_verified": proven.bundles,
            "rows": dict(proven.rows),
        }
        step.notes |= found
    figures["rto_s"] = round(events.clock - begun, 4)
    figures["faults"] = list(proven.faults)
    put_json(place / RESTORED, document | found)


def _spec(declared: GameDays, gameday: str) -> Spec:
    replica = declared.replica
    return Spec(
        id=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        gameday=gameday,
        database=Database(name=NAME, primary=replica.home_region, standby=replica.region, tenants=("all",)),
        scenario="restore",
        sync=False,
        rate=0,
        clients=0,
        wan_ms=0,
        probes=0,
        probe_timeout_seconds=0,
        steady_seconds=0,
        stall_seconds=0,
        rto_objective_s=replica.rto_minutes * 60,
        rpo_objective_s=replica.rpo_minutes * 60,
    )


@contextmanager
def _step(events: Events, name: str, progress: Callable[[str], None]) -> Iterator[Step]:
    progress(f"restore: {name}")
    with events.step(name) as step:
        yield step


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
