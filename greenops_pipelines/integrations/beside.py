"""Assets made in a run of their own, in a process of its own, while the rest of the graph is made: what mostly waits.

    with begun(keys, settings.home / "logs", environment) as run:
        ...                         the rest
        outcome = run.join()

Run as a program it is that process: `python -m greenops_pipelines.integrations.beside OUTCOME MODULE KEY...`. It ends with
the one that began it, however that ends; of a run that even SIGKILL left open, `orphans.py` takes care. Not here: which
assets those are, and what a signal does to a run (`once.py`).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import TransientError
from greenops_pipelines.process.child import Child

_MOST_SECONDS = 3600.0
_LOG = "beside.log"
_DEFINITIONS = "greenops_pipelines.definitions"
"""The module whose `defs` has the assets."""
_PROGRAM = [sys.executable, "-m", "greenops_pipelines.integrations.beside"]
_INTERRUPTED = 130


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
        """Waits for its end, an hour at most, and ends it then. A run without an outcome is a failure that names its log."""
        if self.child is None:
            return Told()
        try:
            ended = f"ended with {self.child.wait(_MOST_SECONDS)} and no outcome"
        except TransientError:
            # What is made next reads what this run writes: it must not go on meanwhile.
            self.child.terminate()
            return self._failed(f"was ended after {_MOST_SECONDS:g} s")
        try:
            found = json.loads(self.outcome.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return self._failed(ended)
        return Told(found["failures"], {name: (is_error, text) for name, (is_error, text) in found["checks"].items()})

    def _failed(self, how: str) -> Told:
        assert self.child is not None  # noqa: S101 (for the type checker: there is no run to fail)
        return Told([f"the run beside {how}; its log {self.child.log} ends: {self.child.tail(1).strip()}"])


@contextmanager
def begun(keys: Sequence[str], logs: Path, environment: Mapping[str, str]) -> Iterator[Begun]:
    """A run of these assets (`slo/drill`) in another process; ended with the block where it was not joined.

    The outcome is this process' own and goes with the block; the log is one for all, and stays.
    """
    outcome = logs / f"beside.{os.getpid()}.json"
    if not keys:
        yield Begun(None, outcome)
        return
    # Another process may have had the number, and have been killed.
    _remove(outcome)
    command: list[str | Path] = [*_PROGRAM, outcome, _DEFINITIONS, *keys]
    try:
        with Child.start(command, log=logs / _LOG, env=environment, cwd=Path.cwd()) as child:
            yield Begun(child, outcome)
    finally:
        _remove(outcome)


def main(outcome: Path, module: str, keys: Sequence[str]) -> int:
    """The other process; its exit code. `module` is where the definitions are, as `defs`."""
    # Dagster heeds SIGTERM while it makes a run; before and after, Python would die of it where it stands.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found = _made(module, keys)
    except KeyboardInterrupt:
        _say("ended by a signal")
        return _INTERRUPTED
    document: dict[str, Any] = {"failures": found.failures, "checks": found.checks}
    temporary = _unfinished(outcome)
    temporary.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    temporary.replace(outcome)
    return 0


def _made(module: str, keys: Sequence[str]) -> Told:
    defs = importlib.import_module(module).defs

    import dagster as dg

    from greenops_pipelines.integrations.once import execute, told

    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        return told(execute(job, instance, [dg.AssetKey.from_user_string(key) for key in keys], {}, _say))


def _unfinished(outcome: Path) -> Path:
    return outcome.with_suffix(".new")


def _remove(outcome: Path) -> None:
    for path in (outcome, _unfinished(outcome)):
        path.unlink(missing_ok=True)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
