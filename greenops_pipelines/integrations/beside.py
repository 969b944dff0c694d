"""Assets made in a run of their own, in a process of its own, while the rest of the graph is made: what mostly waits.

    with begun(keys, settings.home / "logs", environment) as run:
        ...                         the rest
        outcome = run.join()

Run as a program it is that process: `python -m greenops_pipelines.integrations.beside OUTCOME KEY...`. It ends with the one
that began it, however that ends. Not here: which assets those are (`once.py`).
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from greenops_pipelines.process.child import Child

_MOST_SECONDS = 3600.0
_LOG = "beside.log"
_OUTCOME = "beside.json"


@dataclass
class Told:
    """What runs did: the first line of each failed step, and the last word of each check."""

    failures: list[str] = field(default_factory=list)
    checks: dict[str, tuple[bool, str]] = field(default_factory=dict)
    """By its name: whether it is an error where it does not pass, and what it says then; nothing where it passed."""

    def take(self, other: Told) -> None:
        self.failures += other.failures
        self.checks |= other.checks


@dataclass
class Begun:
    """The other run. Without keys there is none, and nothing to wait for."""

    child: Child | None
    outcome: Path

    def join(self) -> Told:
        """Waits for its end. A run that left no outcome behind is a failure, with the end of its log."""
        if self.child is None:
            return Told()
        self.child.wait(_MOST_SECONDS)
        try:
            found = json.loads(self.outcome.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            last = self.child.tail(1).strip()
            return Told([f"the run beside ended with {self.child.exit_code} and no outcome: {last}"])
        return Told(found["failures"], {name: (is_error, text) for name, (is_error, text) in found["checks"].items()})


@contextmanager
def begun(keys: Sequence[str], logs: Path, environment: Mapping[str, str]) -> Iterator[Begun]:
    """A run of these assets (`slo/drill`) in another process; ended with the block where it was not joined."""
    outcome = logs / _OUTCOME
    outcome.unlink(missing_ok=True)
    if not keys:
        yield Begun(None, outcome)
        return
    command: list[str | Path] = [sys.executable, "-m", "greenops_pipelines.integrations.beside", outcome, *keys]
    with Child.start(command, log=logs / _LOG, env=environment, cwd=Path.cwd()) as child:
        yield Begun(child, outcome)


def main(outcome: Path, keys: Sequence[str]) -> int:
    """The other process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dagster as dg

        from greenops_pipelines.definitions import defs
        from greenops_pipelines.integrations.once import execute, told

        wanted = [dg.AssetKey.from_user_string(key) for key in keys]
        with dg.DagsterInstance.get() as instance:
            job = defs.resolve_implicit_global_asset_job_def()
            found = told(execute(job, instance, wanted, {}, _say))
    document: dict[str, Any] = {"failures": found.failures, "checks": found.checks}
    temporary = outcome.with_suffix(f".{os.getpid()}.new")
    temporary.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    temporary.replace(outcome)
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
