"""A measurement -> a bundle: the figure, its target, and the names of the files it was computed from.

Files of the lake have immutable names that end in a digest of their rows, so that naming them fixes the input.
Not here: how a bundle is made (`archive.py`), and what a check measures.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from greenops_pipelines.errors import GreenopsError
from greenops_pipelines.evidence.archive import Archive
from greenops_pipelines.evidence.statement import Figure, Verdict, time_text
from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement, Outcome

_log = logging.getLogger(__name__)

NOT_FILED = "evidence not filed"
"""The figure under which `check_results` holds the reason where a result has no bundle."""

_VERDICTS: dict[Outcome, Verdict] = {
    "passed": "passed",
    "failed": "failed",
    "cannot be measured": "cannot be measured",
}


@dataclass(frozen=True)
class Proof:
    """What became of the filing: the bundle's identifier and state, or None and why. `measurement` says so too."""

    measurement: Measurement
    bundle: str | None
    state: str


def prove(
    archive: Archive, lake: Lake, control: str, measurement: Measurement, reads: Sequence[str], now: datetime
) -> Proof:
    """File `measurement` as evidence for `control` (a criterion such as J2.1), with the lake's files of `reads`.

    A result is never lost because its evidence cannot be filed: the reason is logged, and goes into the figures of
    the measurement, where `inventory.complete` counts it.
    """
    figures: dict[str, Figure] = {
        "measured": measurement.measured,
        "target": measurement.target,
        "comparison": measurement.comparison,
        "unit": measurement.unit,
        **measurement.figures,
    }
    document = {
        "check": measurement.check,
        "checkedAt": time_text(now),
        "outcome": measurement.outcome,
        "detail": measurement.detail,
        "missing": measurement.missing,
        "figures": figures,
    }
    tables = {table.name: table for table in lake.tables if table.name in reads}
    inputs = {tables[name].path: lake.files(tables[name]) for name in reads}
    files = {"measurement.json": _json(document), "inputs.json": _json(inputs)}
    subject = f"{measurement.check} {time_text(now)}"
    try:
        receipt = archive.file(control, subject, figures, files, _VERDICTS[measurement.outcome])
    except GreenopsError as error:
        _log.error("%s: evidence not filed: %s", measurement.check, error)
        noted = replace(measurement, figures={**measurement.figures, NOT_FILED: str(error)})
        return Proof(noted, None, f"not filed: {error}")
    return Proof(measurement, receipt.id, f"{receipt.state}; {receipt.detail}")


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n").encode()
