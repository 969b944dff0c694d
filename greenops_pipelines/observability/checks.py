"""What dashboards and runbooks prove: J1.5 that every promised feature is there, J1.6 that every alert has a tested runbook.

Not here: what is rendered (`dashboard.py`, `runbooks.py`), and the rules themselves (`validation.py`, `runbook_checks.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from greenops_pipelines.measurement import Measurement
from greenops_pipelines.observability import links, runbook_checks, runbooks, validation
from greenops_pipelines.observability.subjects import Subjects, uid_of

if TYPE_CHECKING:
    import duckdb


def features(subjects: Subjects, files: Mapping[str, str], runbook_files: Mapping[str, str]) -> Measurement:
    """Share of the overview's features that are there, of the rendered dashboards `files`; a fault anywhere in them counts like
    a feature that is not, and links are followed into `runbook_files`.
    """
    pages = links.pages(runbook_files)
    wanted = uid_of(subjects.overview)
    [overview] = [found for text in files.values() if (found := json.loads(text))["uid"] == wanted]
    found = validation.features(overview, subjects)
    faults = validation.faults(files, subjects, pages)
    missing = [each.name for each in found if not each.is_there]
    # What is missing is among the faults, by the name of its file.
    bad = max(len(missing), len(faults))
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


def tested(subjects: Subjects, files: Mapping[str, str], connection: duckdb.DuckDBPyConnection) -> Measurement:
    """Share of the alerts whose page is among `files` and without a fault. SQL is prepared on the connection's tables."""
    faults = runbook_checks.faults(files, subjects, connection)
    # A fault names its page, or the alert that has none or two; one that names neither is of a page that all alerts lead to.
    named = [
        {f for f in faults if f"{alert.name} (" in f or runbooks.path_of(subjects, alert) in f}
        for alert in subjects.alerts
    ]
    count = len(named)
    is_everybodys = set(faults) - set[str]().union(*named)
    good = 0 if is_everybodys else sum(not of_this for of_this in named)
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
