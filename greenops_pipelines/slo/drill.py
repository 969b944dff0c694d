"""One drill of a canary: real requests, real metrics, the rendered gates, and how long a bad one goes on serving.

The Rollout that is rendered for the service is walked as Argo's controller would (`rollout.py`), on a stage of real programs
(`drill_stage.py`). At some moment the canary is made to fail, and every instant from there to its last answer is written
down. What a controller and a mesh take between the decision and the new weights is declared in ops/canary.yaml, and waited
for. Not here: several drills, and what becomes of the result (`drills.py`).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import GreenopsError, TransientError
from greenops_pipelines.gitops import put
from greenops_pipelines.slo import gates, rollback, rollouts
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.canary_model import SUCCESS, VITALS
from greenops_pipelines.slo.clients import Counts
from greenops_pipelines.slo.drill_results import (
    EVENTS,
    MEASUREMENTS,
    Result,
    Spec,
    error_ratio,
    expected,
    is_breach,
)
from greenops_pipelines.slo.drill_stage import Stage
from greenops_pipelines.slo.rollout import Taken, Walk
from greenops_pipelines.slo.router import BACKENDS, BackendName, Router

_TICK_SECONDS = 0.05
_LAST_SECONDS = 16.0
"""What the canary has begun by then is over: the router waits for no answer that long."""
_SETTLE_SECONDS = 2.0
"""How long it is watched that no request reaches a canary that was taken back; in the world's seconds."""
_UNSENT = 0.1
"""Share of the requests that may not be sent; a canary gets a quarter more than the fewest by which it is judged."""
_OVERDUE_SECONDS = 300.0
"""After all pauses and checks; a Rollout that takes longer does not end by itself."""


class _Log:
    """Events as JSON lines, with the world's time and the Rollout's seconds."""

    def __init__(self, path: Path, progress: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._progress, self._clock = progress, clock

    def add(self, event: str, more: Mapping[str, Any] | None = None) -> None:
        at = {"at": datetime.now(UTC).isoformat(), "seconds": round(self._clock(), 3), "event": event}
        with self._lock:
            os.write(self._descriptor, (json.dumps({**at, **(more or {})}, ensure_ascii=False) + "\n").encode())
        told = ", ".join(f"{key} {value}" for key, value in (more or {}).items())
        self._progress(f"{self._clock():7.1f} s  {event}{': ' + told if told else ''}")

    def close(self) -> None:
        os.close(self._descriptor)


def run(spec: Spec, canaries: Canaries, folder: Path, progress: Callable[[str], None]) -> Result:
    """Drills, with all that it needs below `folder`. A drill that cannot be carried through is a failed one."""
    return _Drill(spec, canaries, folder, progress).run()


class _Drill:
    def __init__(self, spec: Spec, canaries: Canaries, folder: Path, progress: Callable[[str], None]) -> None:
        self._spec, self._canaries, self._folder = spec, canaries, folder
        self._entry = canaries.services[spec.service]
        self._stage = Stage(spec, canaries, folder)
        self._began: float | None = None
        self._wall = datetime.now(UTC)
        self._log = _Log(folder / EVENTS, progress, self.clock)
        self._deficiencies: list[str] = []
        self._breach: float | None = None
        self._breach_percent: int | None = None
        self._routed_back: float | None = None
        self._last_canary: float | None = None
        self._walk: Walk | None = None
        self._counts = {"canary_answers": 0, "canary_bad_answers": 0, "stable_answers": 0, "failed_requests": 0}

    def clock(self) -> float:
        """Seconds of the Rollout since the canary's first request; `speed` of them to one of the world's."""
        return 0.0 if self._began is None else (time.monotonic() - self._began) * self._spec.speed

    def world(self, seconds: float) -> float:
        """The world's Unix time at a moment of the Rollout's clock."""
        return time.time() - (self.clock() - seconds) / self._spec.speed

    def run(self) -> Result:
        try:
            self._log.add("begun", asdict(self._spec))
            with self._stage as stage:
                walk = self._walk = self._rollout(stage)
                try:
                    self._follow(stage, walk)
                finally:
                    walk.close()
                stage.heal()
                self._settle(stage.router, walk)
                self._count(stage.router, stage.clients.stop())
        except GreenopsError as error:
            self._deficiencies.append(str(error).splitlines()[0])
        finally:
            self._log.close()
        return self._result()

    def _rollout(self, stage: Stage) -> Walk:
        spec = self._spec
        templates = {
            rollouts.template_name(spec.service, spec.variant, kind): gates.metrics(
                self._canaries, spec.service, spec.variant, kind, spec.speed
            )
            for kind in rollouts.KINDS
        }
        self._began = time.monotonic()
        return Walk(
            rollouts.rollout(self._canaries, spec.service, spec.variant),
            templates,
            stage.metrics,
            lambda percent: self._weigh(stage.router, percent),
            {gates.ARGUMENT: stage.canary_hash},
            self.clock,
            self.world,
            self._log.add,
            self._canaries.rollback.overhead_seconds,
        )

    def _follow(self, stage: Stage, walk: Walk) -> None:
        last = rollouts.lasts_seconds(self._canaries) + _OVERDUE_SECONDS
        while not walk.is_over:
            now = self.clock()
            is_due = now >= self._spec.breach_after_s and walk.weight and walk.decided_at is None
            if self._breach is None and is_due and self._spec.scenario != "healthy":
                # The moment before, so that nothing of it is left out.
                self._breach, self._breach_percent = now, walk.weight
                stage.break_()
                self._log.add("breach", {"scenario": self._spec.scenario, "canary_percent": walk.weight})
            stage.tick(now - (self._breach or now))
            walk.advance(now)
            if now > last:
                raise TransientError(f"the Rollout is not over after {now:.0f} s, at step {walk.step}")
            time.sleep(_TICK_SECONDS)

    def _weigh(self, router: Router, percent: int) -> None:
        router.set_weight(0 if self._spec.scenario == "no-traffic" else percent)
        if percent == 0:
            self._routed_back = self.clock()

    def _settle(self, router: Router, walk: Walk) -> None:
        """After a rollback the canary may finish what it has begun, and no more; after a promotion it has everything."""
        if walk.outcome == "rolled back" and not router.wait_until_idle("canary", _LAST_SECONDS):
            self._deficiencies.append(f"the canary still had requests {_LAST_SECONDS:g} s after the new weights")
        time.sleep(_SETTLE_SECONDS)
        before = router.snapshot().backends
        # What the router had to say in the canary's place is an answer that somebody got for asking it.
        ends = [each.monotonic_ns for each in (before["canary"].last, before["canary"].last_fault) if each is not None]
        if ends and self._began is not None:
            self._last_canary = (max(ends) / 1e9 - self._began) * self._spec.speed
        time.sleep(_SETTLE_SECONDS / 2)
        after = router.snapshot().backends
        newly = {name: after[name].answered - before[name].answered for name in BACKENDS}
        wrongs: dict[str | None, BackendName] = {"rolled back": "canary", "promoted": "stable"}
        wrong = wrongs.get(walk.outcome)
        if wrong is not None and newly[wrong]:
            self._deficiencies.append(f"{newly[wrong]} requests were answered by the {wrong} version after all")
        if not sum(newly.values()):
            self._deficiencies.append("nobody answered any request at the end")

    def _count(self, router: Router, counts: Counts) -> None:
        found = router.snapshot().backends
        self._counts = {
            "canary_answers": found["canary"].answered,
            "canary_bad_answers": found["canary"].errors,
            "stable_answers": found["stable"].answered,
            "failed_requests": sum(sum(found[name].faults.values()) for name in BACKENDS) + sum(counts.failed.values()),
        }
        if counts.not_sent > _UNSENT * (counts.sent + counts.not_sent):
            self._deficiencies.append(f"{counts.not_sent} requests could not be sent: this machine was too busy")
        if self._spec.scenario == "healthy":
            bad = self._counts["canary_bad_answers"] + self._counts["failed_requests"]
            if bad:
                self._deficiencies.append(f"{bad} requests went wrong, though nothing was done")

    def _result(self) -> Result:
        spec, walk = self._spec, self._walk
        taken = walk.taken if walk else []
        put(self._folder, MEASUREMENTS, json.dumps([_row(each) for each in taken], indent=1, ensure_ascii=False) + "\n")
        outcome = walk.outcome if walk else None
        first = min((each.finished_s for each in taken if self._is_after_breach(each)), default=None)
        routed_back = self._since(self._routed_back) if outcome == "rolled back" else None
        rollback_s = None if routed_back is None else max(routed_back, self._since(self._last_canary) or 0.0)
        bound = self._bound()
        self._judge(outcome, rollback_s, bound)
        return Result(
            drill=spec.drill,
            batch=spec.batch,
            service=spec.service,
            scenario=spec.scenario,
            variant=spec.variant,
            speed=spec.speed,
            rate=spec.rate,
            source=self._stage.source,
            verdict="failed" if self._deficiencies else "passed",
            outcome=outcome,
            deficiencies=tuple(self._deficiencies),
            why=walk.message if walk else "",
            last_step=walk.step if walk else "",
            canary_percent=self._breach_percent,
            first_bad_sample_s=self._since(first),
            decision_s=self._since(walk.decided_at) if walk else None,
            routed_back_s=routed_back,
            rollback_s=rollback_s,
            bound_s=bound,
            deadline_s=self._canaries.rollback.deadline_seconds,
            measurements=len(taken),
            began_at=self._wall.isoformat(),
            ended_at=datetime.now(UTC).isoformat(),
            **self._counts,
        )

    def _since(self, at: float | None) -> float | None:
        return None if at is None or self._breach is None else round(at - self._breach, 3)

    def _is_after_breach(self, taken: Taken) -> bool:
        return self._breach is not None and taken.phase != "Successful" and taken.finished_s >= self._breach

    def _judge(self, outcome: str | None, rollback_s: float | None, bound: float | None) -> None:
        """What was not as it should be. A rollback for another reason than the breach is none that the drill asked for."""
        spec, walk = self._spec, self._walk
        if outcome is not None and outcome != expected(spec.scenario):
            self._deficiencies.append(f"found it {outcome}, allowed: {expected(spec.scenario)}")
        elif outcome is None and not self._deficiencies:
            self._deficiencies.append("came to no end")
        if self._breach is None and spec.scenario != "healthy" and outcome is not None:
            why = f": {walk.message}" if walk else ""
            self._deficiencies.append(f"the Rollout was over before anything was done to it{why}")
        if not is_breach(spec.scenario) or walk is None or outcome != "rolled back" or self._breach is None:
            return
        turned = gates.OF_SLOW | {"latency-p99"} if spec.scenario == "latency" else gates.OF_FAILED | set(SUCCESS)
        turned |= set(VITALS) if spec.scenario == "latency" else set()
        if not turned & set(walk.decided_by):
            self._deficiencies.append(
                f"taken back by {', '.join(walk.decided_by)}, allowed: {', '.join(sorted(turned))}"
            )
        early = [
            each
            for each in walk.taken
            if each.metric in walk.decided_by and each.phase == "Failed" and each.finished_s < self._breach
        ]
        if early:
            self._deficiencies.append(
                f"{len(early)} of the bad samples of {early[0].metric} were taken before the breach"
            )
        deadline = self._canaries.rollback.deadline_seconds
        if spec.speed == 1 and rollback_s is not None:
            if rollback_s >= deadline:
                self._deficiencies.append(f"rollback complete after {rollback_s:.1f} s, allowed: below {deadline:g} s")
            if bound is not None and rollback_s > bound:
                self._deficiencies.append(f"rollback complete after {rollback_s:.1f} s, certified: {bound:.1f} s")

    def _bound(self) -> float | None:
        """What the certificate says of this fault at this drill's volume; None where it says nothing."""
        is_slow = self._spec.scenario == "latency"
        error = 1.0 if is_slow else error_ratio(self._spec.scenario)
        if error is None or self._breach is None or self._breach_percent is None:
            return None
        rate = self._spec.rate * self._breach_percent / 100 / self._spec.speed
        answer = self._stage.slow_seconds * self._spec.speed if is_slow else 0.0
        bounds = [
            rollback.worst_case(
                self._canaries.timing(gates.breach_threshold(self._entry, gate), rate, answer), error, self._breach
            )
            for gate in self._entry.gates
            if gate in (gates.OF_SLOW if is_slow else gates.OF_FAILED)
        ]
        return min((bound for bound in bounds if bound is not None), default=None)


def _row(taken: Taken) -> dict[str, Any]:
    return {
        "run": taken.run,
        "gate": taken.metric,
        "at_s": round(taken.finished_s, 3),
        "value": taken.value,
        "phase": taken.phase,
        "message": taken.message or None,
    }
