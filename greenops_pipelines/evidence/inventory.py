"""The bundles as a table of the lake: what was filed, what waits, what verifies; and two promises about them.

Not here: the log as a whole (`audit.py`), and the verification of one bundle (`verify.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from greenops_pipelines.errors import BadInput
from greenops_pipelines.evidence.archive import Archive
from greenops_pipelines.evidence.measured import NOT_FILED
from greenops_pipelines.evidence.report import Trust
from greenops_pipelines.evidence.statement import time_of
from greenops_pipelines.evidence.verify import verify
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.tables import EVIDENCE_BUNDLES
from greenops_pipelines.measurement import Measurement

VERIFY_AGAIN = timedelta(days=1)
"""A bundle that verified is read again after this, while it is younger than `READ_AGAIN`."""
READ_AGAIN = timedelta(days=35)
"""Older bundles keep their last verification: `greenops evidence audit` reads all, whatever it takes."""
LONGEST_WAIT_HOURS = 24.0


def inventory(archive: Archive, trust: Trust, known: pa.Table, now: datetime) -> pa.Table:
    """Rows of EVIDENCE_BUNDLES: all bundles filed or waiting. `known` is the table as it was, or empty.

    New bundles are verified, and young ones once a day; a bundle that was known and is gone stays, as `gone`.
    """
    before: dict[str, dict[str, Any]] = {row["bundle"]: row for row in known.to_pylist()}
    filed, waiting = set(archive.ids()), archive.waiting()
    rows = []
    for bundle in sorted(filed):
        row = before.get(bundle)
        rows.append(row if row and _is_fresh(row, now) else _verified(archive, trust, bundle, now))
    rows += [_row(bundle, "queued", None, {}, now) for bundle in waiting if bundle not in filed]
    rows += [
        {
            **row,
            "state": "gone",
            "is_verified": False,
            "fault": "it was filed, and is not in the store",
            "verified_at": now,
        }
        for bundle, row in before.items()
        if bundle not in filed and row["state"] != "queued"
    ]
    rows.sort(key=lambda row: str(row["bundle"]))
    return pa.Table.from_pylist(rows, schema=EVIDENCE_BUNDLES.schema)


def _is_fresh(row: Mapping[str, Any], now: datetime) -> bool:
    """Whether what is known of a bundle may stand: it verified lately, or it is old."""
    if row["state"] != "filed" or not row["is_verified"]:
        return False
    return bool(now - row["verified_at"] < VERIFY_AGAIN or now - row["requested_at"] > READ_AGAIN)


def _verified(archive: Archive, trust: Trust, bundle: str, now: datetime) -> dict[str, Any]:
    try:
        tar = archive.get(bundle)
    except BadInput:
        return _row(bundle, "gone", "it was listed, and is not in the store", {}, now)
    report = verify(tar, trust, expected_id=bundle)
    said: dict[str, Any] = {"size_bytes": len(tar)}
    if report.statement:
        predicate = report.statement.predicate
        said |= {
            "control": predicate.control,
            "subject": predicate.subject,
            "verdict": predicate.verdict,
            "signed_at": time_of(predicate.created_at),
        }
    return _row(bundle, "filed", None if report.ok else report.summary, said, now)


def _row(bundle: str, state: str, fault: str | None, said: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    return {
        "bundle": bundle,
        "state": state,
        "is_verified": state == "filed" and fault is None,
        "fault": fault,
        "requested_at": datetime.strptime(bundle[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        "verified_at": now,
        **dict.fromkeys(("control", "subject", "verdict", "signed_at", "size_bytes")),
        **said,
    }


def verified(rows: pa.Table, now: datetime) -> Measurement:
    """J4.3: the share of bundles that verify offline. One that waits for longer than a day counts as one that does not."""
    listed = rows.to_pylist()
    late = [
        row
        for row in listed
        if row["state"] == "queued" and now - row["requested_at"] > timedelta(hours=LONGEST_WAIT_HOURS)
    ]
    held = [row for row in listed if row["state"] != "queued"] + late
    good = [row for row in held if row["is_verified"]]
    bad = next(
        (f"{row['bundle']}: {row['fault'] or 'waits in the queue'}" for row in held if not row["is_verified"]), ""
    )
    return Measurement(
        check="evidence/bundles:verified",
        measured=100.0 * len(good) / len(held) if held else None,
        target=100,
        comparison="==",
        unit="%",
        detail=bad or f"{len(good):,} of {len(held):,} bundles verify",
        missing=None if held else "a bundle: nothing was filed yet",
        figures={
            "bundles": len(held),
            "verified": len(good),
            "waiting": sum(row["state"] == "queued" for row in listed),
            "of failed or aborted runs": sum(row["verdict"] in {"failed", "aborted"} for row in held),
        },
    )


def complete(lake: Lake, now: datetime) -> Measurement:
    """Results of the last 48 hours whose evidence could not be filed."""
    rows = lake.query(
        """
        select "check", figures ->> $name as reason from check_results
        where checked_at >= $since and json_exists(figures, '$."' || $name || '"')
        order by checked_at desc
        """,
        {"name": NOT_FILED, "since": now - timedelta(hours=48)},
    ).to_pylist()
    return Measurement(
        check="evidence/bundles:complete",
        measured=float(len(rows)),
        target=0,
        comparison="==",
        unit="results",
        detail=f"{rows[0]['check']}: {rows[0]['reason']}" if rows else "every result that asked for evidence has it",
    )
