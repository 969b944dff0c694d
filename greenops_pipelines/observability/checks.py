"""What dashboards and runbooks prove: J1.5 that every promised feature is there, J1.6 that every alert has a tested runbook.

Measured on what is rendered now. Not here: the rules themselves (`validation.py`, `runbook_checks.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from greenops_pipelines.measurement import Measurement
from greenops_pipelines.observability import dashboard, links, runbook_checks, runbooks, validation
from greenops_pipelines.observability.subjects import Subjects, uid_of

if TYPE_CHECKING:
    import duckdb


def features(subjects: Subjects) -> Measurement:
    """Share of the overview's features that are there; a fault anywhere in a dashboard counts like one that is not."""
    files = dashboard.files(subjects)
    pages = links.pages(runbooks.files(subjects))
    wanted = uid_of(subjects.overview)
    [overview] = [found for text in files.values() if (found := json.loads(text))["uid"] == wanted]
    found = validation.features(overview, subjects)
    faults = validation.faults(files, subjects, pages)
    missing = [each.name for each in found if not each.is_there]
    bad = len({*missing, *faults}) if faults else len(missing)
    share = 100 * max(0, len(found) - bad) / len(found)
    detail = (
        "; ".join([*missing, *faults][:3]) or f"{len(found)} features in {len(files)} dashboards, all queries parse"
    )
    figures: Mapping[str, float | int | str] = {
        "features": len(found),
        "dashboards": len(files),
        "panels": sum(len(json.loads(text)["panels"]) for text in files.values()),
        "faults": len(faults),
    }
    return Measurement("slo/dashboard:features", share, 100, "==", "%", detail, figures=figures)


def tested(subjects: Subjects, connection: duckdb.DuckDBPyConnection) -> Measurement:
    """Share of the alerts whose page is there and without a fault. SQL is prepared on the connection's tables."""
    files = runbooks.files(subjects)
    faults = runbook_checks.faults(files, subjects, connection)
    # A fault names its page, or the alert that has none or two.
    doubted = {
        alert.name
        for alert in subjects.alerts
        if any(f"{alert.name} (" in fault or runbooks.path_of(subjects, alert) in fault for fault in faults)
    }
    count = len(subjects.alerts)
    # A fault of a page that all alerts lead to is every alert's.
    good = count - len(doubted) if doubted or not faults else 0
    return Measurement(
        "slo/runbooks:tested",
        100 * good / count if count else None,
        100,
        "==",
        "%",
        "; ".join(faults[:3])
        or f"{count} alerts, {len(files)} pages, every command and query parses, every link resolves",
        None if count else "alerts",
        {"alerts": count, "pages": len(files), "faults": len(faults)},
    )
