"""What a drill's router counts: answers, errors and faults by backend, and the first and last of each.

Not here: the proxy that counts them (`router.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

BackendName = Literal["stable", "canary"]
FaultKind = Literal["refused", "timeout", "broken", "absent", "full"]
BACKENDS: Final[tuple[BackendName, ...]] = get_args(BackendName)
ERROR_STATUS = 500


@dataclass(frozen=True)
class Answer:
    """One answer: when the router had the whole of it and passed it on (`time.time_ns`), and how long that took.

    `monotonic_ns` is the same instant on a clock that nobody sets (`time.monotonic_ns`).
    """

    at_ns: int
    backend: BackendName
    status: int
    seconds: float
    monotonic_ns: int


@dataclass(frozen=True)
class BackendCounts:
    """What one backend answered, and `faults`: what the router had to answer in its place.

    `first_error` and `last_error` are answers of the backend with a status of 500 and above; a fault is none of them.
    """

    by_status: Mapping[int, int]
    last: Answer | None
    first_error: Answer | None
    last_error: Answer | None
    faults: Mapping[FaultKind, int]
    first_fault: Answer | None
    last_fault: Answer | None
    abandoned: int
    in_flight: int

    @property
    def answered(self) -> int:
        return sum(self.by_status.values())

    @property
    def errors(self) -> int:
        return sum(count for status, count in self.by_status.items() if status >= ERROR_STATUS)


@dataclass(frozen=True)
class Snapshot:
    """All of it at one instant. Each request counts once: answered, a fault, abandoned by its client, or in flight."""

    at_ns: int
    weight: int
    backends: Mapping[BackendName, BackendCounts]


@dataclass
class Backend:
    """Where a backend is, None while there is none, and what has been counted of it. The router holds its lock."""

    base: str | None
    by_status: Counter[int] = field(default_factory=Counter)
    last: Answer | None = None
    first_error: Answer | None = None
    last_error: Answer | None = None
    faults: Counter[FaultKind] = field(default_factory=Counter)
    first_fault: Answer | None = None
    last_fault: Answer | None = None
    abandoned: int = 0
    in_flight: int = 0

    def counts(self) -> BackendCounts:
        known = {**vars(self), "by_status": dict(self.by_status), "faults": dict(self.faults)}
        del known["base"]
        return BackendCounts(**known)
