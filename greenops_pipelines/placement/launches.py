"""One attempt to run a piece of work: what a runner is told, and what it answers.

A runner is a function `run(launch, settings) -> Ended`. Not here: any runner, whether and when something is launched.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from greenops_pipelines.placement.requests import KubernetesRunner, LocalRunner

Outcome = Literal["succeeded", "failed", "timed out", "paused", "lost", "rendered"]
"""`paused`: ended because its hour was over, to go on later. `lost`: nobody knows how it ended, and it has ended.
`rendered`: a dry run, nothing was started."""


@dataclass(frozen=True)
class Launch:
    """One attempt. Times are UTC."""

    key: str
    attempt: int
    """1, 2, ...: of this key."""
    workload: str
    tenant: str
    service: str | None
    region: str
    zone: str
    residency: str
    """The region's area: eu, us, ..."""
    runner: LocalRunner | KubernetesRunner
    began_at: datetime
    until: datetime | None
    """When it is ended and counts as paused; None: it runs to its own end, or to its time limit."""
    limit_minutes: int
    """Its time limit: `timed out` after that."""
    deadline: datetime
    resumed: bool
    """Whether an earlier attempt ran for some time."""
    reason: str
    interruptible: bool = False
    """Whether a program that was asked to stop and says 0 may have saved only what it did so far."""

    @property
    def variables(self) -> dict[str, str]:
        """What the program is told, as environment variables."""
        return {
            "GREENOPS_PLACEMENT_KEY": self.key,
            "GREENOPS_PLACEMENT_ATTEMPT": str(self.attempt),
            "GREENOPS_PLACEMENT_REGION": self.region,
            "GREENOPS_PLACEMENT_RESUMED": "1" if self.resumed else "0",
            "GREENOPS_PLACEMENT_UNTIL": "" if self.until is None else self.until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


@dataclass(frozen=True)
class Ended:
    """How an attempt ended."""

    outcome: Outcome
    exit_code: int | None
    ended_at: datetime
    detail: str
    """One line for people: the end of its log, the reason, where the manifest lies."""
