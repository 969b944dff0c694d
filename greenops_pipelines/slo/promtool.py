"""promtool, Prometheus' own checker: are the rules valid, and do the generated rule tests pass? Not here: what it checks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from greenops_pipelines.errors import TransientError

MISSING = "promtool (Debian: prometheus)"
_SECONDS = 300


@dataclass(frozen=True)
class Verdict:
    """Whether promtool agrees, and the first lines of what it says where it does not."""

    ok: bool
    words: str


def found() -> str | None:
    """Its path; None where it is not installed."""
    return shutil.which("promtool")


def check_rules(files: Sequence[Path]) -> Verdict:
    """`promtool check rules`."""
    return _run(["check", "rules", *map(str, files)], None)


def test_rules(file: Path) -> Verdict:
    """`promtool test rules` of one test file, in its own folder: its rule files are relative to it."""
    return _run(["test", "rules", file.name], file.parent)


def _run(arguments: list[str], folder: Path | None) -> Verdict:
    program = found()
    if program is None:
        raise TransientError(f"{MISSING} is not installed")
    try:
        done = subprocess.run(
            [program, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise TransientError(f"promtool {arguments[0]} {arguments[1]}: no answer within {_SECONDS} s") from None
    words = " ".join((done.stdout + done.stderr).split())
    return Verdict(done.returncode == 0, words[:500])
