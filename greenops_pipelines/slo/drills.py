"""Canary drills held one after another on a home, each filed: signed evidence, two tables, nothing left behind.

One at a time, under a lock that ends with the process. Whoever comes next first takes to its end what was killed: its
programs ended with it (`process/guard.py`), its folder is filed as aborted. Not here: a drill itself (`drill.py`).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from greenops_pipelines.errors import GreenopsError
from greenops_pipelines.evidence.archive import Archive
from greenops_pipelines.evidence.statement import Figure
from greenops_pipelines.gitops import put
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.canary_tables import CANARY_DRILLS, CANARY_MEASUREMENTS
from greenops_pipelines.process.lock import held
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.drill_results import (
    EVENTS,
    MEASUREMENTS,
    RESULT,
    SPEC,
    Result,
    Spec,
    read_result,
    read_spec,
)

_log = logging.getLogger(__name__)

_FIGURES = (
    "first_bad_sample_s",
    "decision_s",
    "routed_back_s",
    "rollback_s",
    "bound_s",
    "deadline_s",
    "canary_answers",
    "canary_bad_answers",
    "stable_answers",
    "failed_requests",
    "measurements",
    "speed",
    "rate",
)


@dataclass(frozen=True)
class Filed:
    """A drill and its evidence; `bundle` is None where it could not be filed, and the next drill tries again."""

    result: Result
    bundle: str | None
    state: str

    def as_document(self) -> dict[str, Any]:
        return self.result.as_document() | {"bundle": self.bundle, "evidence": self.state}


@dataclass(frozen=True)
class Held:
    """What came of it. `remains` had been killed before, and were taken to their end first."""

    drills: tuple[Filed, ...]
    remains: tuple[Filed, ...]

    @property
    def ok(self) -> bool:
        return all(each.result.verdict == "passed" and each.bundle is not None for each in self.drills)

    def as_document(self) -> dict[str, Any]:
        return {
            "drills": [each.as_document() for each in self.drills],
            "remains": [each.as_document() for each in self.remains],
        }


Run = Callable[[Spec, Canaries, Path, Callable[[str], None]], Result]


def hold(
    specs: Sequence[Spec],
    canaries: Canaries,
    folder: Path,
    archive: Archive,
    lake: Lake,
    progress: Callable[[str], None] = lambda _text: None,
    run: Run | None = None,
) -> Held:
    """Holds them below `folder` (HOME/canary), none perhaps: what was killed before is filed all the same.

    Raises `LockHeld` where others are under way.
    """
    if run is None:
        from greenops_pipelines.slo.drill import run as real

        run = real
    with alone(folder):
        left = clean(canaries, folder, archive, lake, progress)
        done = []
        for position, each in enumerate(specs, 1):
            head = f"[{position}/{len(specs)}] {each.service}, {each.scenario}"
            place = folder / each.drill
            place.mkdir(mode=0o700)
            _put(place, SPEC, asdict(each))
            result = run(each, canaries, place, _headed(progress, head))
            _put(place, RESULT, result.as_document())
            done.append(_file(place, result, archive, lake))
    return Held(tuple(done), tuple(left))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the home's lock for canary drills; `LockHeld` naming who has it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(folder / "drills.lock", "a canary drill"):
        yield


def clean(
    canaries: Canaries, folder: Path, archive: Archive, lake: Lake, progress: Callable[[str], None] = lambda _text: None
) -> list[Filed]:
    """Every drill left below `folder` is filed: as what it was, or as aborted. The caller holds the lock."""
    found = []
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not place.is_dir():
            continue
        if place.name.startswith(".") or not (place / SPEC).exists():
            # Killed before anything was begun, or after all was filed.
            shutil.rmtree(place)
            continue
        is_whole = (place / RESULT).exists()
        progress(f"drill {place.name} {'waits to be filed' if is_whole else 'was killed'}; it is taken to its end")
        result = read_result(place) if is_whole else _aborted(read_spec(place), place, canaries)
        if not is_whole:
            _put(place, RESULT, result.as_document())
        found.append(_file(place, result, archive, lake, is_again=True))
    return found


def _aborted(killed: Spec, place: Path, canaries: Canaries) -> Result:
    began = datetime.fromtimestamp((place / SPEC).stat().st_mtime, UTC)
    last = "nothing was begun"
    ended = began
    for line in _lines(place / EVENTS):
        last, ended = str(line["event"]), datetime.fromisoformat(line["at"])
    return Result(
        drill=killed.drill,
        batch=killed.batch,
        service=killed.service,
        scenario=killed.scenario,
        variant=killed.variant,
        speed=killed.speed,
        rate=killed.rate,
        source="unknown",
        verdict="aborted",
        outcome=None,
        deficiencies=(f"killed; the last that was noted: {last}",),
        why="",
        last_step="",
        canary_percent=None,
        first_bad_sample_s=None,
        decision_s=None,
        routed_back_s=None,
        rollback_s=None,
        bound_s=None,
        deadline_s=canaries.rollback.deadline_seconds,
        canary_answers=0,
        canary_bad_answers=0,
        stable_answers=0,
        failed_requests=0,
        measurements=0,
        began_at=began.isoformat(),
        ended_at=ended.isoformat(),
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of an event log; the last one may be cut off by the kill."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _file(place: Path, result: Result, archive: Archive, lake: Lake, is_again: bool = False) -> Filed:
    filed = _evidence(place, result, archive, is_again)
    _record(place, lake, filed)
    if filed.bundle is not None:
        # By another name first: half a folder must not be taken for a drill that was killed.
        shutil.rmtree(place.rename(place.with_name(f".{place.name}")))
    return filed


def subject(result: Result) -> str:
    """What the bundle is about."""
    return f"canary drill {result.drill}: {result.scenario}, {result.service}"


def _evidence(place: Path, result: Result, archive: Archive, is_again: bool) -> Filed:
    about = subject(result)
    figures: dict[str, Figure] = {name: getattr(result, name) for name in _FIGURES} | {
        "scenario": result.scenario,
        "variant": result.variant,
        "source": result.source,
        "outcome": result.outcome or "none",
        "deficiencies": len(result.deficiencies),
    }
    files = {name: place / name for name in (SPEC, RESULT, EVENTS, MEASUREMENTS) if (place / name).exists()}
    try:
        if is_again and (known := archive.find(about, datetime.fromisoformat(result.began_at))) is not None:
            return Filed(result, known, "filed before")
        receipt = archive.file("J1.4", about, figures, files, result.verdict)
    except (GreenopsError, ValueError) as error:
        _log.error("canary drill %s: evidence not filed: %s", result.drill, error)
        return Filed(result, None, f"not filed: {error}")
    return Filed(result, receipt.id, f"{receipt.state}; {receipt.detail}")


def _record(place: Path, lake: Lake, filed: Filed) -> None:
    result = filed.result
    names = [name for name in CANARY_DRILLS.schema.names if hasattr(result, name)]
    row = {name: getattr(result, name) for name in names} | {
        "rate_per_s": result.rate,
        "deficiencies": "\n".join(result.deficiencies) or None,
        "bundle": filed.bundle,
        "began_at": datetime.fromisoformat(result.began_at),
        "ended_at": datetime.fromisoformat(result.ended_at),
    }
    path = place / MEASUREMENTS
    taken = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    rows = [{"drill": result.drill, "position": position, **each} for position, each in enumerate(taken, 1)]
    if rows:
        lake.write(CANARY_MEASUREMENTS, pa.Table.from_pylist(rows, schema=CANARY_MEASUREMENTS.schema), refresh=False)
    lake.write(CANARY_DRILLS, pa.Table.from_pylist([row], schema=CANARY_DRILLS.schema))


def _put(place: Path, name: str, document: Any) -> None:
    put(place, name, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _headed(progress: Callable[[str], None], head: str) -> Callable[[str], None]:
    return lambda text: progress(f"{head}: {text}")
