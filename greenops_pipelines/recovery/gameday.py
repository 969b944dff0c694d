"""A GameDay: drills of databases in both directions, one after another, and a negative control that must miss its objective.

One at a time on a home, held by a lock that ends with the process. Whoever comes next first takes to its end what was killed.
Not here: a drill itself, and its evidence.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import BadInput
from greenops_pipelines.evidence.archive import Archive
from greenops_pipelines.lake import Lake
from greenops_pipelines.process.lock import held
from greenops_pipelines.recovery import checks, filing, remains
from greenops_pipelines.recovery.declared import SCENARIOS, Database, GameDays, Residency, Scenario
from greenops_pipelines.recovery.drill import ClusterOf, Drill
from greenops_pipelines.recovery.drill import cluster_of as either
from greenops_pipelines.recovery.filing import Filed
from greenops_pipelines.recovery.operated import Rehearsal, rehearse
from greenops_pipelines.recovery.results import Result, Spec, remove_data

_MOST_WRITES = 250_000
_OTHER_SECONDS = 90.0
"""Detection, failover and failback, in which clients write too."""
CONTROL_MARGIN_SECONDS = 2.0
"""The negative control stalls for this much longer than the objective allows."""
AD_HOC = "ad hoc"


Restoring = Callable[[str, Path, Callable[[str], None]], tuple[Path, Result]]
"""A drill of the scenario restore: the GameDay's name, the folder of drills, progress."""


@dataclass(frozen=True)
class Wanted:
    """What a GameDay is to drill. None: as ops/gamedays.yaml says."""

    gameday: str = AD_HOC
    scenarios: Sequence[Scenario] = ("kill",)
    databases: Sequence[Database] = ()
    sync: bool = False
    rate: float | None = None
    wan_ms: float | None = None
    with_control: bool = True
    fails_back: bool = True
    at_once: int = 1
    """Drills that run beside each other. More than one makes a GameDay short and its figures a little worse."""


@dataclass(frozen=True)
class GameDay:
    """What came of it; `remains` are drills that had been killed before and were taken to their end first."""

    drills: tuple[Filed, ...]
    negative_controls: tuple[Filed, ...]
    remains: tuple[Filed, ...]
    dry_runs: tuple[Rehearsal, ...] = ()

    @property
    def ok(self) -> bool:
        """Every drill as it should be and with its evidence, and nothing in the way of those that were only rehearsed."""
        good = ("passed", "refused as intended", "missed as intended")
        drills = (*self.drills, *self.negative_controls)
        return all(each.result.verdict in good and each.bundle is not None for each in drills) and not any(
            each.faults for each in self.dry_runs
        )

    def as_document(self) -> dict[str, Any]:
        """For scripts: one object per drill, seconds with what was measured, null where nothing was."""
        return {
            "drills": [_shown(each) for each in self.drills],
            "negative_controls": [
                _shown(each) | {"objective_s": each.result.rpo_objective_s} for each in self.negative_controls
            ],
            "remains": [_shown(each) for each in self.remains],
            "dry_runs": [each.as_document() for each in self.dry_runs],
        }


def _shown(filed: Filed) -> dict[str, Any]:
    result = filed.result
    names = (
        *("drill", "gameday", "database", "primary", "standby", "scenario", "sync", "rate", "wan_ms"),
        *("rto_s", "client_outage_s", "rpo_s", "lost_writes", "in_doubt_writes", "failed_writes", "acked_writes"),
        *("acked_before", "acked_after", "acked_back", "detection_s", "throughput_per_s"),
        *("failback_s", "failback_outage_s", "verdict"),
    )
    return {name: getattr(result, name) for name in names} | {
        "deficiencies": list(result.deficiencies),
        "bundle": filed.bundle,
        "evidence": filed.state,
    }


def parse_scenarios(text: str) -> tuple[Scenario, ...]:
    """`kill,hang` as scenarios, each once, in order; `BadInput` for what is none."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in found:
        if name not in SCENARIOS:
            raise BadInput(f"--scenario: found {name!r}, allowed: {', '.join(SCENARIOS)}")
    if not found:
        raise BadInput(f"--scenario: found nothing, allowed: {', '.join(SCENARIOS)}")
    return found  # type: ignore[return-value]


def wanted_in(month: str, declared: GameDays, lake: Lake, now: datetime) -> Wanted | None:
    """What that month's GameDay drills. Without a month: every direction once, at once; None where that was done lately."""
    if month:
        first = parse_month(month)
        if month in checks.held_months(lake, declared):
            # Meanwhile, by somebody else.
            return None
        return Wanted(gameday=month, scenarios=declared.scenarios_of(first), sync=declared.is_sync(first))
    newest = checks.newest_drill(lake)
    if newest is not None and now - newest < checks.WINDOW:
        return None
    # Beside each other: whoever sees the platform for the first time does not wait for a minute. And on stand-ins: nobody's
    # primary is killed because a home is new.
    return Wanted(databases=stand_ins(declared.databases), at_once=4)


def stand_ins(databases: Sequence[Database]) -> tuple[Database, ...]:
    """The same databases, on servers of our own."""
    return tuple(database.model_copy(update={"clusters": None}) for database in databases)


def parse_month(text: str) -> date:
    """`2026-11` as its first day; `BadInput` for anything else."""
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text, re.ASCII):
        raise BadInput(f"found {text!r}, allowed: a month such as 2026-11")
    return date(int(text[:4]), int(text[5:]), 1)


def specs(wanted: Wanted, declared: GameDays) -> list[Spec]:
    """The drills, one per database and scenario, and the negative control last."""
    databases = wanted.databases or declared.databases
    scenarios = [scenario for scenario in wanted.scenarios if scenario != "restore"]
    found = [
        _spec(wanted, declared, database, scenario)
        for number, scenario in enumerate(scenarios)
        for database in databases
        # One that does not come back by itself is failed over once.
        if not (number and database.clusters is not None and not database.clusters.commands.failback)
    ]
    if wanted.with_control:
        # On two servers of our own: nobody loses twelve seconds of real writes on purpose.
        control = _spec(wanted, declared, databases[0].model_copy(update={"clusters": None}), "stall")
        found.append(
            replace(
                control,
                sync=False,
                is_negative_control=True,
                fails_back=False,
                stall_seconds=control.rpo_objective_s + CONTROL_MARGIN_SECONDS,
            )
        )
    return found


def _spec(wanted: Wanted, declared: GameDays, database: Database, scenario: Scenario) -> Spec:
    how, objectives = declared.drill, declared.objectives
    clusters = database.clusters
    if clusters is not None and scenario != "planned" and scenario not in clusters.commands.fault:
        # Damage and a stalled line are never done to an operator's clusters, and a fault without a command cannot be.
        [database] = stand_ins([database])
        clusters = None
    rate = wanted.rate or how.rate
    writes = rate * (how.steady_seconds + how.stall_seconds + objectives.rpo_seconds + _OTHER_SECONDS)
    if writes > _MOST_WRITES:
        raise BadInput(
            f"{database.name}, {scenario}: found {rate:g} writes a second for up to {writes / rate:.0f} s, allowed: "
            f"{_MOST_WRITES:,} writes, which evidence can hold; lower the rate, or steady_seconds in ops/gamedays.yaml"
        )
    distance = wanted.wan_ms if wanted.wan_ms is not None else database.wan_ms
    return Spec(
        id="",
        gameday=wanted.gameday,
        database=database,
        scenario=scenario,
        sync=wanted.sync if clusters is None else clusters.sync,
        rate=rate,
        clients=how.clients,
        wan_ms=how.wan_ms if distance is None else distance,
        probes=how.probes,
        probe_timeout_seconds=how.probe_timeout_seconds,
        steady_seconds=how.steady_seconds,
        stall_seconds=how.stall_seconds,
        rto_objective_s=objectives.rto_minutes * 60,
        rpo_objective_s=objectives.rpo_seconds,
        fails_back=wanted.fails_back and (clusters is None or bool(clusters.commands.failback)),
    )


def hold(
    wanted: Wanted,
    declared: GameDays,
    residency: Callable[[], Residency],
    folder: Path,
    archive: Archive,
    lake: Lake,
    restore: Restoring | None = None,
    progress: Callable[[str], None] = lambda _text: None,
    cluster_of: ClusterOf = either,
) -> GameDay:
    """Holds it below `folder` (HOME/recovery). Each drill is filed before the next one begins.

    Raises `TransientError` where another one is under way, and `ResidencyViolation` before anything is begun where a
    database may not be where it would fail over to.
    """
    planned = specs(wanted, declared)
    for spec in planned:
        residency().refuse(spec.database, spec.database.primary)
        residency().refuse(spec.database, spec.database.standby)
    dry = [spec for spec in planned if _is_dry(spec.database)]
    real = [spec for spec in planned if not _is_dry(spec.database)]
    with alone(folder):
        left = remains.clean(folder / "drills", archive, lake, progress)
        done: list[Filed] = []
        if "restore" in wanted.scenarios and restore is not None:
            done.append(filing.file(*restore(wanted.gameday, folder / "drills", progress), archive, lake))
        one_by_one = threading.Lock()

        def drill(numbered: tuple[int, Spec]) -> Filed:
            position, spec = numbered
            what = "negative control" if spec.is_negative_control else spec.scenario
            head = f"[{position}/{len(real)}] {what}, {spec.database.direction} ({spec.database.name})"
            place, result = _drill(spec, folder / "drills", residency, cluster_of, _headed(progress, head))
            with one_by_one:
                return filing.file(place, result, archive, lake)

        if wanted.at_once > 1:
            with ThreadPoolExecutor(wanted.at_once, "drill") as pool:
                # The longest first: the negative control.
                order = sorted(enumerate(real, 1), key=lambda each: not each[1].is_negative_control)
                filed = dict(zip((position for position, _ in order), pool.map(drill, order), strict=True))
        else:
            # In this thread, so that an interrupt ends the drill and not only the wait for it.
            filed = {numbered[0]: drill(numbered) for numbered in enumerate(real, 1)}
        done += [filed[position] for position, spec in enumerate(real, 1) if not spec.is_negative_control]
        controls = [filed[position] for position, spec in enumerate(real, 1) if spec.is_negative_control]
    rehearsed = [rehearse(spec.database, spec.scenario) for spec in dry]
    return GameDay(tuple(done), tuple(controls), tuple(left), tuple(rehearsed))


def _is_dry(database: Database) -> bool:
    return database.clusters is not None and database.clusters.mode == "dry-run"


def clean(
    folder: Path, archive: Archive, lake: Lake, progress: Callable[[str], None] = lambda _text: None
) -> list[Filed]:
    """Takes to its end what was killed, and drills nothing."""
    with alone(folder):
        return remains.clean(folder / "drills", archive, lake, progress)


def _drill(
    spec: Spec, folder: Path, residency: Callable[[], Residency], cluster_of: ClusterOf, progress: Callable[[str], None]
) -> tuple[Path, Result]:
    named = replace(spec, id=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}")
    place = folder / named.id
    unnamed = folder / f".{named.id}"
    # Where PostgreSQL runs as another user, that user has to come through.
    unnamed.mkdir(mode=0o711, parents=True)
    drill = Drill(named, unnamed, residency, cluster_of, progress)
    # With its first line in it: whoever finds a folder without a dot knows what it was.
    drill.announce()
    unnamed.rename(place)
    drill.folder = place
    try:
        return place, drill.run()
    finally:
        remains.end_processes(place)
        remove_data(place)


def _headed(progress: Callable[[str], None], head: str) -> Callable[[str], None]:
    return lambda text: progress(f"{head}: {text}")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the home's lock for drills; `TransientError` naming who has it."""
    (folder / "drills").mkdir(mode=0o711, parents=True, exist_ok=True)
    folder.chmod(0o711)
    with held(folder / "drills.lock", "a drill"):
        yield
