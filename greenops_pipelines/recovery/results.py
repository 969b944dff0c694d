"""What is to be drilled, what came of it, and the files that a drill writes in its folder. Not here: drilling."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from greenops_pipelines.errors import PermanentError, TransientError
from greenops_pipelines.recovery import events
from greenops_pipelines.recovery.declared import Database, Scenario

Verdict = Literal["passed", "failed", "aborted", "refused as intended", "missed as intended", "not missed"]

LEDGER = "ledger.jsonl"
RESULT = "result.json"
KEPT = "kept.json"
RESTORED = "restored.json"
_TRIES = 25


@dataclass(frozen=True)
class Spec:
    """What is to be drilled, and how."""

    id: str
    gameday: str
    """`2026-11`, or `ad hoc`."""
    database: Database
    scenario: Scenario
    sync: bool
    rate: float
    clients: int
    wan_ms: float
    probes: int
    probe_timeout_seconds: float
    steady_seconds: float
    stall_seconds: float
    rto_objective_s: float
    rpo_objective_s: float
    is_negative_control: bool = False
    """It must miss its RPO: a drill that cannot fail proves nothing."""
    fails_back: bool = True


@dataclass(frozen=True)
class Result:
    """What came of a drill. Times in seconds; None where it did not come so far."""

    drill: str
    gameday: str
    database: str
    primary: str
    standby: str
    scenario: str
    sync: bool
    rate: float
    clients: int
    wan_ms: float
    is_negative_control: bool
    is_embedded: bool
    began_at: str
    ended_at: str
    rto_objective_s: float
    rpo_objective_s: float
    verdict: Verdict
    deficiencies: tuple[str, ...]
    rto_s: float | None = None
    client_outage_s: float | None = None
    rpo_s: float | None = None
    lost_writes: int | None = None
    in_doubt_writes: int | None = None
    in_doubt_kept: int | None = None
    failed_writes: int | None = None
    acked_writes: int | None = None
    acked_before: int | None = None
    acked_after: int | None = None
    acked_back: int | None = None
    throughput_per_s: float | None = None
    """Writes acknowledged a second in the steady state."""
    detection_s: float | None = None
    failback_s: float | None = None
    failback_outage_s: float | None = None
    clock_moved_s: float = 0.0
    health_checks: int = 0
    """Checks of both servers that were made and passed: connection, write, replication, content of the standby."""
    assumptions: tuple[str, ...] = ()
    """What its figures rest on."""
    remediation: tuple[str, ...] = ()
    """What to do about its deficiencies."""
    steps: tuple[dict[str, Any], ...] = ()
    commands: tuple[dict[str, Any], ...] = ()

    def as_document(self) -> dict[str, Any]:
        return asdict(self)


def steps_of(path: Path) -> Iterator[tuple[str, float | None, str, list[dict[str, Any]]]]:
    """Steps of an event log as far as they came: name, seconds, outcome, commands."""
    begun: dict[str, float] = {}
    for event in events.read(path):
        match event["event"]:
            case "begin":
                begun[event["step"]] = event["t"]
            case "end":
                begun.pop(event["step"], None)
                yield event["step"], event["seconds"], "done", event["commands"]
            case "failed":
                since = begun.pop(event["step"], event["t"])
                yield event["step"], round(event["t"] - since, 6), event["error"], event["commands"]
    for name in begun:
        yield name, None, "was under way when the drill ended", []


def remove_data(folder: Path) -> None:
    """The servers' folders; the logs and the ledger stay for the evidence."""
    for each in folder.iterdir():
        if each.is_dir():
            # What was just killed may still be writing down that it was.
            for _ in range(_TRIES):
                shutil.rmtree(each, ignore_errors=True)
                if not each.exists():
                    break
                time.sleep(0.2)
            else:
                raise TransientError(f"{each}: cannot be removed: something still writes there; try again")


def told(spec: Spec) -> dict[str, Any]:
    """A spec as it stands in the event log: without an operator's addresses and commands."""
    words = asdict(spec)
    words["database"] = spec.database.model_dump(mode="json", exclude={"clusters"})
    words["is_embedded"] = spec.database.clusters is None
    return {"spec": words}


def put_json(path: Path, document: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".new")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=1, ensure_ascii=False, allow_nan=False)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        kind = TransientError if error.errno == errno.ENOSPC else PermanentError
        raise kind(f"{path}: cannot be kept: {error.strerror}; free some room") from error
