"""Canary drills held one after another on a home, each filed: signed evidence, two tables, nothing left behind.

One at a time, under a lock that ends with the process. Whoever comes next first takes to its end what was killed: its
programs ended with it (`process/guard.py`), its folder is filed as aborted. Not here: a drill itself (`drill.py`).
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from greenops_pipelines.errors import BadInput, GreenopsError
from greenops_pipelines.evidence.archive import Archive
from greenops_pipelines.evidence.statement import Figure
from greenops_pipelines.gitops import put
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.canary_tables import CANARY_DRILLS, CANARY_MEASUREMENTS
from greenops_pipelines.process.lock import held
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.canary_model import Variant
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

AD_HOC = "ad hoc"
MAX_SPEED = 40.0
"""Beyond it a scrape would be due more often than one is done."""
WEEKLY = ("errors-100", "errors-10", "errors-2", "latency", "healthy")
"""What a week's drills are, the quick ones first."""
_MARGIN = 1.25
"""More requests than the fewest by which a canary is judged, so that a late one does not make it too few."""
_MOST_RATE = 400.0
_LATEST_BREACH_S = 90.0
_TUESDAY = 2
_DAY = timedelta(days=1)
_SOON_S = 30.0
"""Two scrapes after the first request: a person who waits for it is not to wait for a whole window besides."""
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


def spec(
    canaries: Canaries,
    scenario: str,
    service: str,
    *,
    variant: Variant | None = None,
    rate: float | None = None,
    breach_after_s: float | None = None,
    speed: float = 1.0,
    embedded: bool = False,
    batch: str = AD_HOC,
) -> Spec:
    """One drill as declared. Without `breach_after_s` the breach comes at a random moment: certificates are about all.

    The rate is such that the canary's first share is more than the fewest requests by which it is judged.
    """
    if service not in canaries.services:
        raise BadInput(f"--service: found {service!r}, allowed: {', '.join(canaries.services)}")
    if not 1 <= speed <= MAX_SPEED:
        raise BadInput(f"--speed: found {speed:g}, allowed: 1 to {MAX_SPEED:g}")
    entry = canaries.services[service]
    wanted = rate or _MARGIN * entry.minimum_requests_per_second * 100 / canaries.steps[0].weight
    if not 1 <= wanted <= _MOST_RATE:
        raise BadInput(
            f"{service}: found {wanted:g} requests a second for a drill, allowed: 1 to {_MOST_RATE:g}; "
            "see minimum_requests_per_second in ops/canary.yaml, or --rate"
        )
    after = random.uniform(0, _LATEST_BREACH_S) if breach_after_s is None else breach_after_s  # noqa: S311 - a phase
    return Spec(
        drill=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        service=service,
        scenario=scenario,
        variant=variant or entry.variant,
        rate=wanted,
        breach_after_s=after,
        speed=speed,
        embedded=embedded,
        batch=batch,
    )


def week_of(now: datetime) -> str:
    """`2026-W48`: the ISO week of a moment, which begins on Monday."""
    year, week, _ = now.astimezone(UTC).isocalendar()
    return f"{year}-W{week:02d}"


@dataclass(frozen=True)
class DueWeek:
    """The week whose drills are due, and which of them are left; `week` is None where nothing is due, and `why`."""

    week: str | None
    scenarios: tuple[str, ...] = ()
    why: str = ""


def due_week(held: Collection[str], now: datetime) -> DueWeek:
    """What is left of this week's drills, from Tuesday on; `held` are those that came to their end."""
    week = week_of(now)
    if now.astimezone(UTC).isoweekday() < _TUESDAY:
        return DueWeek(None, why=f"{week}: its drills begin on Tuesday")
    left = tuple(scenario for scenario in WEEKLY if scenario not in held)
    return DueWeek(week, left) if left else DueWeek(None, why=f"{week}: held")


def first(canaries: Canaries, newest: datetime | None, now: datetime) -> list[Spec]:
    """What is drilled where nobody asked for anything: a canary that fails wholly soon after its first request.

    Nothing where a breach was rolled back within the last day; `newest` is when.
    """
    if newest is not None and now - newest < _DAY:
        return []
    return [spec(canaries, "errors-100", next(iter(canaries.services)), breach_after_s=_SOON_S)]


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
    """Holds them below `folder` (HOME/canary). Raises `TransientError` where others are under way."""
    if run is None:
        from greenops_pipelines.slo.drill import run as real

        run = real
    with alone(folder):
        left = clean(folder, archive, lake, progress)
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
    """Holds the home's lock for canary drills; `TransientError` naming who has it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(folder / "drills.lock", "a canary drill"):
        yield


def clean(
    folder: Path, archive: Archive, lake: Lake, progress: Callable[[str], None] = lambda _text: None
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
        result = read_result(place) if is_whole else _aborted(read_spec(place), place)
        if not is_whole:
            _put(place, RESULT, result.as_document())
        found.append(_file(place, result, archive, lake, is_again=True))
    return found


def _aborted(killed: Spec, place: Path) -> Result:
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
        deadline_s=0.0,
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


def line(result: Result) -> str:
    """One drill in one line, for people."""
    return line_of(result.as_document())


def line_of(row: Mapping[str, Any]) -> str:
    """The same of a row of the lake."""
    if row["rollback_s"] is None:
        took = row["outcome"] or "came to nothing"
    else:
        bound = f", certified {row['bound_s']:.1f} s" if row["bound_s"] is not None else ""
        took = (
            f"{row['outcome']}: first bad sample {_s(row['first_bad_sample_s'])}, decision {_s(row['decision_s'])}, "
            f"rollback complete {_s(row['rollback_s'])}{bound}"
        )
    pace = "" if row["speed"] == 1 else f", {row['speed']:g} times as fast"
    faults = f" - {'; '.join(row['deficiencies'])}" if row["deficiencies"] else ""
    return f"{row['verdict']:<8}{row['service']:<13}{row['scenario']:<20}{took}{pace} ({row['source']}){faults}"


def _s(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"
