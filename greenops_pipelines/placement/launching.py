"""One attempt at one piece of work, from the claim to its recorded end; safe to be called by many, and to be killed.

A key is worked on by one process at a time (a file lock that its death frees). What a dead worker left open is judged
first: its program's own record says how it ended, or it is lost and tried again. A key is closed by its first success,
and by running out of tries. Not here: when work is due (`due.py`), programs and clusters (the runners).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from greenops_pipelines.errors import PermanentError, ResidencyViolation, TransientError
from greenops_pipelines.placement import dispatches, local, queue
from greenops_pipelines.placement.launches import Ended, Launch
from greenops_pipelines.placement.ledger import Ledger, Tried, only_one, work_folder
from greenops_pipelines.placement.requests import LocalRunner, Request, Runner
from greenops_pipelines.redaction import one_line

if TYPE_CHECKING:
    from greenops_pipelines.lake import Lake
    from greenops_pipelines.placement.workloads import Workloads
    from greenops_pipelines.settings import Settings

_log = logging.getLogger(__name__)

FAILURES = 3
"""Attempts that may fail or time out before a key is closed as failed."""
LOSSES = 20
"""The same for attempts that were lost: nobody's fault, most of the time."""
ELSEWHERE = 3
"""After so many losses in a region, work goes home."""

_RUNNER: TypeAdapter[Any] = TypeAdapter(Runner)
_COUNTED = ("failed", "timed out")


@dataclass(frozen=True)
class Report:
    """What came of a call. `state` is an attempt's outcome, or says why there was none."""

    key: str
    state: Literal[
        "succeeded", "failed", "timed out", "paused", "lost", "rendered", "refused",
        "closed before", "under way elsewhere", "not due", "not planned",
    ]  # fmt: skip
    detail: str
    attempt: int | None = None
    region: str | None = None
    tags: Mapping[str, str] | None = None

    @property
    def is_bad(self) -> bool:
        """Whether a person should look: it failed, or was not allowed."""
        return self.state in ("failed", "timed out", "refused")


def launch(
    settings: Settings, lake: Lake, workloads: Workloads, key: str, run_id: str, now: Callable[[], datetime]
) -> Report:
    """Run the work of `key` if it is due, and record all of it.

    Raises `TransientError` where a cluster, the ledger or an earlier program keeps it from beginning: nothing is lost,
    and it is due again.
    """
    ledger = Ledger(settings.dispatches)
    with only_one(worker_lock(ledger, key), touch=True) as alone:
        if not alone:
            return Report(key, "under way elsewhere", "another worker has it")
        if (outcome := ledger.outcome(key)) is not None:
            return Report(key, "closed before", outcome)
        claim = ledger.claimed(key)
        if claim is None:
            request = queue.request(settings, workloads, key)
            found = _claim(ledger, lake, workloads, request, key, run_id, now())
            if isinstance(found, Report):
                return found
            claim = found
        elif (report := _settle_last(ledger, claim, settings, now())) is not None:
            return report
        return _attempt(ledger, settings, workloads, claim, run_id, now)


def worker_lock(ledger: Ledger, key: str) -> Path:
    """Held by the worker that has the key; its time is when one had it last."""
    return work_folder(ledger.root, key) / "worker.lock"


def cancel(settings: Settings, workloads: Workloads, key: str, reason: str, now: datetime) -> bool:
    """Close a key that is not being worked on: it will not be launched (again). False where it was closed before.

    Raises `PermanentError` where there is no such work, `TransientError` where it runs.
    """
    ledger = Ledger(settings.dispatches)
    with only_one(worker_lock(ledger, key)) as alone:
        if not alone:
            raise TransientError(f"{key}: runs now; end its run in the UI first")
        request = queue.request(settings, workloads, key)
        if request is None:
            raise PermanentError(f"{key}: found no such work, allowed: a key of `greenops placement plan`")
        return ledger.close(_closing(vars(request), "cancelled", now, reason))


def _settle_last(ledger: Ledger, claim: Mapping[str, Any], settings: Settings, now: datetime) -> Report | None:
    """Find out how the last attempt ended if nobody recorded it; a report where that closes the key or it goes on."""
    tried = ledger.tried(claim["key"])
    if not tried or tried[-1].ended_at is not None:
        return None
    last, runner = tried[-1], _RUNNER.validate_json(claim["runner"])
    if not isinstance(runner, LocalRunner):
        # The Job has the attempt's name: it is adopted, or begun for the first time.
        return None
    found = local.lookup(claim["key"], last.attempt, _is_interruptible(claim), settings)
    ledger.end(claim["key"], last.attempt, found)
    _log.warning("%s: attempt %d had no recorded end: %s (%s)", claim["key"], last.attempt, found.outcome, found.detail)
    closed = _close_if_over(ledger, claim, now)
    return None if closed is None else Report(claim["key"], found.outcome, found.detail, last.attempt, last.region)


def _claim(
    ledger: Ledger,
    lake: Lake,
    workloads: Workloads,
    request: Request | None,
    key: str,
    run_id: str,
    now: datetime,
) -> dict[str, Any] | Report:
    if request is None:
        return Report(key, "not planned", "no such work is declared or was accepted")
    rows = lake.query("select * from placement_plan where key = ?", [key]).to_pylist()
    if not rows or rows[0]["start_at"] is None:
        return Report(key, "not planned", "the newest plan has no hour for it")
    planned, declared = rows[0], workloads.declarations
    if now < planned["start_at"]:
        return Report(key, "not due", f"planned for {planned['start_at']:%Y-%m-%d %H:%M} UTC")
    try:
        forecast = _forecast(lake, planned)
        row = dispatches.decision(request, planned, declared.regions, declared.tenants, forecast, now)
    except PermanentError as error:
        _refuse(ledger, request, planned, run_id, now, str(error))
        return Report(key, "refused", str(error), region=planned["region"])
    ledger.claim(row)
    return ledger.claimed(key) or row


def _attempt(
    ledger: Ledger,
    settings: Settings,
    workloads: Workloads,
    claim: Mapping[str, Any],
    run_id: str,
    now: Callable[[], datetime],
) -> Report:
    key, tried, begin = claim["key"], ledger.tried(claim["key"]), now()
    runner = _RUNNER.validate_json(claim["runner"])
    again = tried[-1] if tried and tried[-1].ended_at is None else None
    runs = dispatches.planned_runs(claim)
    # What another worker began has to be ended when that one would have.
    region, start, until = dispatches.run_at(runs, begin if again is None else again.began_at)
    if again is None and begin < start:
        return Report(key, "not due", f"goes on at {start:%Y-%m-%d %H:%M} UTC")
    why = ""
    if again is None:
        region, why = _where(claim, tried, region, workloads)
    else:
        region = again.region
    if not region:
        ledger.close(_closing(claim, "failed", begin, why))
        return Report(key, "refused", why)
    declared = {each.region: each for each in workloads.declarations.regions}.get(region)
    # What began in a region that is not declared any more is adopted there all the same: it is to be ended.
    zone = declared.zone if declared is not None else again.zone if again is not None else ""
    attempt = again.attempt if again is not None else ledger.begin(_beginning(claim, region, zone, run_id, begin))
    work = Launch(
        key=key,
        attempt=attempt,
        workload=claim["workload"],
        tenant=claim["tenant"],
        service=claim["service"],
        region=region,
        zone=zone,
        residency=declared.residency if declared is not None else "",
        runner=runner,
        began_at=begin if again is None else again.began_at,
        until=until,
        limit_minutes=limit_minutes(claim),
        deadline=claim["deadline"],
        resumed=any(each.outcome in ("paused", "lost") for each in tried),
        reason=why or claim["reason"],
        interruptible=_is_interruptible(claim),
    )
    ended = _run(work, settings) if again is None else _take_up(work, settings)
    late = ended.ended_at - claim["deadline"]
    if ended.outcome == "succeeded" and late.total_seconds() > 0:
        ended = replace(ended, detail=f"{ended.detail}; {late.total_seconds() / 60:.0f} min after its deadline")
    ledger.end(key, attempt, ended)
    _close_if_over(ledger, claim, ended.ended_at)
    return Report(key, ended.outcome, ended.detail, attempt, region, _tags(work))


def _run(work: Launch, settings: Settings) -> Ended:
    """Raises `TransientError` where nobody can say now what becomes of the attempt: it stays open, and is taken up again."""
    if isinstance(work.runner, LocalRunner):
        return local.run(work, settings)
    from greenops_pipelines.placement import kubernetes

    try:
        return kubernetes.run(work, settings)
    except kubernetes.NothingStarted as error:
        return Ended("lost", None, datetime.now(UTC), one_line(f"not started: {error}", 300))
    except PermanentError as error:
        return Ended("failed", None, datetime.now(UTC), one_line(str(error), 300))


def _take_up(work: Launch, settings: Settings) -> Ended:
    """An attempt in a cluster whose worker died: how it ended, or its end awaited. Raises as `_run`."""
    from greenops_pipelines.placement import kubernetes

    found = kubernetes.lookup(work, settings)
    if found == "running":
        return _run(work, settings)
    return found or Ended("lost", None, datetime.now(UTC), "its worker is gone, and the cluster has no such Job")


def _where(claim: Mapping[str, Any], tried: Sequence[Tried], region: str, workloads: Workloads) -> tuple[str, str]:
    """The region of the next attempt, and why it is not the planned one; none where no region is allowed any more."""
    declared, home = workloads.declarations, claim["home_region"]
    work = dispatches.Work(claim["key"], claim["tenant"], claim["regions"].split(","))
    # Home is a way out only where the work may run there at all.
    places, why = [region] if home not in work.regions else [region, home], ""
    lost = sum(each.region == region and each.outcome == "lost" for each in tried)
    if lost >= ELSEWHERE and region != places[-1]:
        places, why = [home], f"At home: {ELSEWHERE} attempts in {region} were lost."
    for wanted in places:
        try:
            dispatches.allow(work, wanted, declared.regions, declared.tenants)
        except ResidencyViolation as error:
            why = f"{error}"
            continue
        return wanted, f"At home: {why}" if why and not why.startswith("At home") else why
    return "", why


def _close_if_over(ledger: Ledger, claim: Mapping[str, Any], now: datetime) -> str | None:
    """Close the key where its attempts are over: what it was closed as."""
    tried = ledger.tried(claim["key"])
    last = tried[-1]
    if last.outcome in ("succeeded", "rendered"):
        outcome, detail = last.outcome, last.detail
    elif sum(each.outcome in _COUNTED for each in tried) >= FAILURES:
        outcome, detail = "failed", f"{FAILURES} attempts failed; the last: {last.detail}"
    elif sum(each.outcome == "lost" for each in tried) >= LOSSES:
        outcome, detail = "failed", f"{LOSSES} attempts were lost; the last: {last.detail}"
    else:
        return None
    ledger.close(_closing(claim, outcome, now, detail))
    return outcome


def _refuse(ledger: Ledger, request: Request, planned: Mapping[str, Any], run_id: str, now: datetime, why: str) -> None:
    row = _beginning(vars(request), planned["region"], planned["zone"], run_id, now)
    ledger.end(request.key, ledger.begin(row), refused=(now, why))


def _forecast(lake: Lake, planned: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the newest outlook has for the start of the first run: its method and when it was issued."""
    found: list[dict[str, Any]] = lake.query(
        "select method, issued_at from carbon_outlook where zone = ? and datetime <= ? order by datetime desc limit 1",
        [planned["zone"], planned["start_at"]],
    ).to_pylist()
    return found[0] if found else None


def limit_minutes(claim: Mapping[str, Any]) -> int:
    """The time limit of an attempt: of a program as declared; of a Job, which declares none, twice its time and an hour."""
    declared = json.loads(claim["runner"]).get("timeout_minutes")
    return int(declared or 2 * int(claim["duration_minutes"]) + 60)


def _is_interruptible(claim: Mapping[str, Any]) -> bool:
    return bool(claim["interruptible"])


def _tags(work: Launch) -> dict[str, str]:
    return {"greenops/attempt": str(work.attempt), "greenops/region": work.region, "greenops/zone": work.zone}


def _beginning(work: Mapping[str, Any], region: str, zone: str, run_id: str, now: datetime) -> dict[str, Any]:
    """What the ledger writes when an attempt begins; `work` is a request's fields or a claim."""
    return _of_work(work) | {
        "region": region,
        "zone": zone,
        "runner": json.loads(work["runner"])["kind"],
        "run_id": run_id,
        "began_at": now,
    }


def _closing(work: Mapping[str, Any], outcome: str, at: datetime, detail: str) -> dict[str, Any]:
    """What the ledger writes when a key is closed; `work` as for `_beginning`."""
    return _of_work(work) | {"outcome": outcome, "at": at.astimezone(UTC), "detail": detail}


def _of_work(work: Mapping[str, Any]) -> dict[str, Any]:
    return {name: work[name] for name in ("key", "workload", "tenant", "deadline")}
