"""What a canary drill is asked for, and what it found; both as JSON in the drill's folder. Not here: the drill."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.canary_model import Variant

SPEC = "spec.json"
RESULT = "result.json"
EVENTS = "events.jsonl"
MEASUREMENTS = "measurements.json"

Verdict = Literal["passed", "failed", "aborted"]

SCENARIOS = {
    "healthy": "a good canary, which has to be promoted through all steps",
    "errors-N": "N % of the canary's requests fail, e.g. errors-100, errors-10, errors-2",
    "latency": "the canary's requests take longer than its P95 allows",
    "canary-dies": "the canary's process is killed",
    "no-traffic": "the router sends the canary nothing",
    "metrics-vanish": "the canary serves, and exposes no metrics any more",
    "prometheus-down": "Prometheus goes away and stays away",
    "prometheus-hangs": "Prometheus takes requests and does not answer",
    "prometheus-slow": "the canary fails wholly, and Prometheus stands still for 2 s out of 3",
    "prometheus-restart": "Prometheus goes away for 5 seconds; the canary is good and has to be promoted",
}
"""What can be drilled, in words."""
_PROMOTED = ("healthy", "prometheus-restart")
OF_METRICS = ("prometheus-down", "prometheus-hangs", "prometheus-slow", "prometheus-restart")
"""Done to Prometheus, not to the canary."""
_ERRORS = re.compile(r"errors-(?P<percent>100|[1-9]?[0-9](?:\.[0-9]{1,2})?)", re.ASCII)


def parse_scenarios(text: str) -> tuple[str, ...]:
    """`errors-100,latency` as scenarios, each once, in order; `BadInput` for what is none."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in found:
        if (name not in SCENARIOS and not (error_ratio(name) or 0) > 0) or name == "errors-N":
            raise BadInput(f"--scenario: found {name!r}, allowed: {', '.join(SCENARIOS)}")
    if not found:
        raise BadInput(f"--scenario: found nothing, allowed: {', '.join(SCENARIOS)}")
    return found


def error_ratio(scenario: str) -> float | None:
    """Of `errors-N`, the ratio; None of any other scenario."""
    match = _ERRORS.fullmatch(scenario)
    return float(match["percent"]) / 100 if match else None


def is_breach(scenario: str) -> bool:
    """Whether the canary serves badly: what the certificate bounds, and J1.4 speaks of."""
    return scenario == "latency" or error_ratio(scenario) is not None


def expected(scenario: str) -> Literal["promoted", "rolled back"]:
    """What the controller has to make of it."""
    return "promoted" if scenario in _PROMOTED else "rolled back"


@dataclass(frozen=True)
class Spec:
    """One drill. Seconds are the Rollout's own; at `speed` N they pass N times as fast as the world's.

    `breach_after_s` counts from the canary's first request. `rate` is requests a second of all clients together, in the
    world's seconds. `embedded` scrapes without Prometheus, though there may be one.
    """

    drill: str
    service: str
    scenario: str
    variant: Variant
    rate: float
    breach_after_s: float
    speed: float = 1.0
    embedded: bool = False
    batch: str = "ad hoc"


@dataclass(frozen=True)
class Result:
    """What a drill found. Seconds are the Rollout's own, from the breach; None: it did not come to that."""

    drill: str
    batch: str
    service: str
    scenario: str
    variant: str
    speed: float
    rate: float
    source: str
    verdict: Verdict
    outcome: str | None
    deficiencies: tuple[str, ...]
    why: str
    last_step: str
    canary_percent: int | None
    first_bad_sample_s: float | None
    decision_s: float | None
    routed_back_s: float | None
    rollback_s: float | None
    bound_s: float | None
    deadline_s: float
    canary_answers: int
    canary_bad_answers: int
    stable_answers: int
    failed_requests: int
    measurements: int
    began_at: str
    ended_at: str

    @property
    def is_real_time(self) -> bool:
        """Only such drills say anything about the deadline."""
        return self.speed == 1

    def as_document(self) -> dict[str, Any]:
        return asdict(self)


def read_spec(folder: Path) -> Spec:
    return Spec(**json.loads((folder / SPEC).read_text(encoding="utf-8")))


def read_result(folder: Path) -> Result:
    found = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return Result(**{**found, "deficiencies": tuple(found["deficiencies"])})


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
