"""A Rollout, walked as Argo's controller walks it: weights, pauses, checks, a background analysis, promotion or abort.

    walk = Walk(rollout, templates, metrics, set_weight, {"canary-hash": "7d9f8c"}, clock)
    while not walk.is_over:
        walk.advance(clock())

Walked is what is rendered (`rollouts.py`), and the analysis engine judges it (`analysis_run.py`). Times are seconds of the
caller's clock, which may run faster than the world's. Not here: who serves, who measures, and what is done to the canary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from greenops_pipelines.errors import BadInput, GreenopsError
from greenops_pipelines.slo.analysis import Phase, Response, seconds
from greenops_pipelines.slo.analysis_run import AnalysisRun, Metric
from greenops_pipelines.slo.prometheus import Answer, Metrics

Outcome = Literal["promoted", "rolled back", "paused"]
_ARGUMENT = re.compile(r"\{\{\s*args\.([A-Za-z0-9_-]+)\s*\}\}")
_AT_ONCE = 8
_BAD = (Phase.FAILED, Phase.ERROR)


@dataclass(frozen=True)
class Taken:
    """One measurement: which run and metric, when, what was answered, and what was made of it."""

    run: str
    metric: str
    started_s: float
    finished_s: float
    value: str
    phase: str
    message: str


@dataclass
class _Running:
    """An AnalysisRun under way. `asked` are the measurements that are out; the run is assessed when all are back."""

    run: AnalysisRun
    is_background: bool
    asked: list[tuple[Metric, float, Future[tuple[Answer | None, str, float]]]] = field(default_factory=list)


class Walk:
    """The controller of one Rollout. Not thread-safe: one caller advances it."""

    def __init__(
        self,
        rollout: Mapping[str, Any],
        templates: Mapping[str, Sequence[Mapping[str, Any]]],
        metrics: Metrics,
        set_weight: Callable[[int], None],
        arguments: Mapping[str, str],
        clock: Callable[[], float],
        world: Callable[[float], float] = lambda seconds: seconds,
        said: Callable[[str, dict[str, Any]], None] = lambda _event, _more: None,
        overhead_s: float = 0.0,
    ) -> None:
        """`clock` is read when a measurement ends; `world` turns its seconds into those of the metrics' time stamps.

        `overhead_s` lies between the decision to take the canary back and the router's new weights: what a controller's
        reconciliations and a mesh's proxies take, which are not here.
        """
        canary = rollout["spec"]["strategy"]["canary"]
        self._steps: list[Mapping[str, Any]] = list(canary["steps"])
        self._background: Mapping[str, Any] = canary.get("analysis") or {}
        self._templates = {name: _resolved(found, arguments) for name, found in templates.items()}
        self._metrics, self._set_weight, self._clock, self._world, self._said = (
            metrics,
            set_weight,
            clock,
            world,
            said,
        )
        self._pool = ThreadPoolExecutor(_AT_ONCE, "measure")
        self._step_at = 0
        self._entered: float | None = None
        self._check: _Running | None = None
        self._watch: _Running | None = None
        self._overhead_s = overhead_s
        self._aborting = ""
        self.weight = 0
        self.outcome: Outcome | None = None
        self.message = ""
        self.taken: list[Taken] = []
        self.decided_at: float | None = None
        """When the run that took the canary back was assessed."""
        self.decided_by: tuple[str, ...] = ()
        """The metrics that took it back."""

    @property
    def is_over(self) -> bool:
        return self.outcome is not None

    @property
    def step(self) -> str:
        """The step under way, as a person would say it."""
        if self._step_at >= len(self._steps):
            return "promoted"
        step = self._steps[self._step_at]
        [kind] = step
        return f"{self._step_at + 1}/{len(self._steps)} {kind}, canary {self.weight} %"

    def advance(self, now: float) -> None:
        """One reconciliation: measurements are asked for and taken in, then the step. Returns at once."""
        if self.is_over:
            return
        if self._aborting:
            # The reconciliation after the one that decided, at the earliest: the router learns of it only now.
            if self.decided_at is not None and now - self.decided_at >= self._overhead_s:
                self._weigh(0)
                self._finish("rolled back", self._aborting)
            return
        if self._watch is None and self._background and self._step_at >= int(self._background.get("startingStep", 0)):
            self._watch = self._begin("background", self._background, now)
        for running in (self._watch, self._check):
            if running is not None:
                self._measure(running, now)
        verdicts = [(running, running.run.assess(now)) for running in (self._watch, self._check) if running]
        for running, phase in verdicts:
            if phase in _BAD:
                self.decided_at = now
                self.decided_by = tuple(each.name for each in running.run.results if each.phase in _BAD)
                self._aborting = f"{running.run.name}: {running.run.message or phase}"
                self._said("decided", {"outcome": "rolled back", "why": self._aborting})
                return
            if phase is Phase.INCONCLUSIVE:
                self._finish("paused", f"{running.run.name}: {running.run.message or phase}")
                return
        while not self.is_over and self._is_done(now):
            self._step_at += 1
            self._entered = None
            if self._step_at >= len(self._steps):
                self._weigh(100)
                self._finish("promoted", "all steps passed")

    def close(self) -> None:
        """Nothing is measured any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _is_done(self, now: float) -> bool:
        """Whether the step is over; begins it where that has not been done."""
        step = self._steps[self._step_at]
        [(kind, what)] = step.items()
        begins = self._entered is None
        if begins:
            self._entered = now
        if kind == "setWeight":
            self._weigh(int(what))
            return True
        if kind == "pause":
            if begins:
                self._said("pause", {"step": self._step_at + 1, "seconds": seconds(str(what["duration"]))})
            return now - (self._entered or 0.0) >= seconds(str(what["duration"]))
        if kind == "analysis":
            if begins:
                self._check = self._begin(f"check at {self.weight} %", what, now)
                return False
            if self._check is not None and self._check.run.completed:
                self._said("check passed", {"step": self._step_at + 1, "weight": self.weight})
                self._check = None
                return True
            return False
        raise BadInput(f"Rollout: found the step {kind!r}, allowed: setWeight, pause, analysis")

    def _begin(self, name: str, analysis: Mapping[str, Any], now: float) -> _Running:
        metrics = [
            Metric.from_document(document)
            for template in analysis["templates"]
            for document in self._templates[template["templateName"]]
        ]
        self._said("analysis", {"run": name, "metrics": [metric.name for metric in metrics]})
        return _Running(AnalysisRun(name, metrics, now), name == "background")

    def _measure(self, running: _Running, now: float) -> None:
        if running.asked:
            if not all(future.done() for _, _, future in running.asked):
                # As the controller: the next look at this run comes when all that is out is back.
                return
            for metric, started, future in running.asked:
                self._take(running, metric, started, future.result())
            running.asked = []
        for metric in running.run.due(now):
            running.asked.append((metric, now, self._pool.submit(self._ask, metric, now)))

    def _ask(self, metric: Metric, now: float) -> tuple[Answer | None, str, float]:
        """What the metrics answer, or the words of the error, and when."""
        answer, words = None, ""
        try:
            asked = metric.prometheus
            if asked.range is None:
                answer = self._metrics.query(asked.query)
            else:
                at = self._world(now)
                start, end, step = (
                    self._world(now + each) - at for each in (asked.range.start, asked.range.end, asked.range.step)
                )
                answer = self._metrics.query_range(asked.query, at + start, at + end, step)
        except GreenopsError as error:
            words = str(error)
        return answer, words, self._clock()

    def _take(self, running: _Running, metric: Metric, started: float, found: tuple[Answer | None, str, float]) -> None:
        answer, words, finished = found
        response: Response | str = words
        if answer is not None:
            # A scalar is a number, the others are lists of them.
            response = metric.respond(answer.kind, answer.values[0] if answer.kind == "scalar" else answer.values)
        if not running.run.record(metric, started, finished, response):
            return
        [result] = [each for each in running.run.results if each.name == metric.name]
        made = result.measurements[-1]
        taken = Taken(running.run.name, metric.name, started, finished, made.value, str(made.phase), made.message)
        self.taken.append(taken)
        if taken.phase != "Successful":
            self._said(
                "bad sample",
                {"run": taken.run, "metric": taken.metric, "value": taken.value, "phase": taken.phase}
                | ({"message": taken.message} if taken.message else {}),
            )

    def _weigh(self, percent: int) -> None:
        if percent != self.weight:
            self._set_weight(percent)
            self.weight = percent
            self._said("weight", {"canary_percent": percent})

    def _finish(self, outcome: Outcome, message: str) -> None:
        for running in (self._watch, self._check):
            if running is not None:
                running.run.terminate()
        self.outcome, self.message = outcome, message
        self._said("over", {"outcome": outcome, "why": message})


def _resolved(metrics: Sequence[Mapping[str, Any]], arguments: Mapping[str, str]) -> list[dict[str, Any]]:
    """The metrics with the run's arguments in place of `{{args.x}}`."""

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return _ARGUMENT.sub(lambda match: _argument(match[1], arguments), value)
        if isinstance(value, Mapping):
            return {key: fill(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [fill(each) for each in value]
        return value

    return [fill(metric) for metric in metrics]


def _argument(name: str, arguments: Mapping[str, str]) -> str:
    if name not in arguments:
        raise BadInput(f"AnalysisTemplate: found the argument {name!r}, allowed: {', '.join(sorted(arguments))}")
    return arguments[name]
