"""The scorecard of a day as a signed bundle: the card, the report that shows it, and the results it rests on.

Each result names its own bundle, so that an auditor goes from the card to every single proof.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from greenops_pipelines.evidence.archive import Archive, Receipt
from greenops_pipelines.evidence.report import Report
from greenops_pipelines.evidence.statement import Figure, Verdict, time_text
from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.report.carbon import FILE_NAME
from greenops_pipelines.report.scorecard import as_document, counts, scorecard

CONTROL = "J1-J6"
"""The card is evidence for all criteria at once."""


def file_scorecard(archive: Archive, lake: Lake, reports: Path, now: datetime) -> Receipt:
    """File the scorecard as of `now`. Its verdict is `failed` where a criterion that was measured is missed or stale."""
    rows = scorecard(lake, now)
    found = counts(rows)
    figures: dict[str, Figure] = {**found, "criteria": rows.num_rows}
    files: dict[str, bytes | Path] = {
        "scorecard.json": _json({"asOf": time_text(now), **as_document(rows)}),
        "check-results.json": _json(_results(lake, now)),
    }
    if (report := reports / FILE_NAME).exists():
        files["carbon.html"] = report
    verdict: Verdict = "failed" if found["missed"] or found["stale"] else "passed"
    return archive.file(CONTROL, f"scorecard {now:%Y-%m-%d}", figures, files, verdict)


def _results(lake: Lake, now: datetime) -> list[dict[str, Any]]:
    """The newest result of each check in the last day, with the bundle that proves it."""
    sql = """
        select "check", outcome, measured, comparison, target, unit, detail, missing, evidence, run_id,
            strftime(checked_at, '%Y-%m-%dT%H:%M:%S.%fZ') as checked_at
        from check_results where checked_at between $since and $now
        qualify row_number() over (partition by "check" order by checked_at desc) = 1
        order by "check"
    """
    return lake.query(sql, {"since": now - timedelta(days=1), "now": now}).to_pylist()  # type: ignore[no-any-return]


def verified(receipt: Receipt, report: Report | None) -> Measurement:
    """The signed card's own check: no property of it fails offline. `report` is None where it is not filed yet."""
    failed = 0 if report is None or report.ok else max(1, len(report.failed))
    return Measurement(
        check="evidence/scorecard:verified",
        measured=None if report is None else float(failed),
        target=0,
        comparison="==",
        unit="properties that fail",
        detail=f"{receipt.id}: {report.summary}" if report and failed else f"{receipt.id}: {receipt.detail}",
        missing="the bundle in the store: it waits in the queue" if report is None else None,
    )


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
