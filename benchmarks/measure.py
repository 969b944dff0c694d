"""How a figure is taken: each case in a process of its own, so that its time and its peak memory are its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

PROJECT = __file__.rpartition("/benchmarks/")[0]


@dataclass(frozen=True)
class Row:
    """A figure with its unit, and what it is held against."""

    name: str
    figure: float
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Cost:
    """What a case took: best time of its repetitions, and the peak resident memory of its process."""

    seconds: float
    peak_mb: float
    extra: dict[str, float]


def in_own_process(module: str, case: str, *arguments: str) -> Cost:
    """Run `python -m module case arguments` and read the JSON line that `report` printed last."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, case, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    if done.returncode:
        raise SystemExit(f"{module} {case}: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Cost(found.pop("seconds"), found.pop("peak_mb"), found)


def report(seconds: float, **extra: float) -> None:
    """The last line of a case's output."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak, **extra}))


def best_of(times: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several repetitions: the others were disturbed."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return min(found)
