"""The certificates of all declared SLOs with alerts, under one profile or all: rows, tables, words.

Not here: how one is computed (`certificate.py`) and confirmed (`simulation.py`, `promtool.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake.tables import SLO_CERTIFICATES
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.certificate import Certificate, certify, words
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.profiles import DEFAULT_PROFILE, PROFILES
from greenops_pipelines.slo.windows import Windows


@dataclass(frozen=True)
class Row:
    """One SLO under one profile. `slo` is None where only an objective was given."""

    name: str
    certificate: Certificate
    is_chosen: bool
    slo: Slo | None = None


def windows_of(profile: str) -> Windows:
    """The profile's windows; `BadInput` names those there are."""
    if profile not in PROFILES:
        raise BadInput(f"--profile: found {profile!r}, allowed: {', '.join(PROFILES)}")
    return PROFILES[profile]


def of_objective(objective: float, profile: str) -> Row:
    """The certificate of an objective that stands in no file."""
    return Row(f"{objective:g} %", certify(objective, windows_of(profile), profile=profile), True)


def of_slos(slos: Iterable[Slo], chosen: dict[str, str], profiles: Iterable[str]) -> list[Row]:
    """Certificates of the SLOs that alert, under each of `profiles`; `chosen` is the profile of each service."""
    return [
        Row(
            slo.id,
            certify(slo.objective, windows_of(profile), profile=profile, severities=severities),
            chosen.get(slo.service) == profile,
            slo,
        )
        for slo in slos
        if (severities := [name for name, alert in (("page", slo.page), ("ticket", slo.ticket)) if alert])
        for profile in profiles
    ]


def title(row: Row) -> str:
    """One line above a certificate."""
    pairs = {
        f"{pair.factor:.3g}x over {durations.text(pair.short)}/{durations.text(pair.long)}": pair.severity
        for severity in row.certificate.severities
        for pair in severity.pairs
    }
    shown = ", ".join(f"{severity} {pair}" for pair, severity in pairs.items())
    return f"{row.name}, objective {row.certificate.objective:g} %, profile {row.certificate.profile}: {shown}"


def lines(row: Row) -> list[str]:
    """The certificate in words, beside the default profile's where it is another."""
    profile, severities = row.certificate.profile, [severity.name for severity in row.certificate.severities]
    if profile == DEFAULT_PROFILE:
        return words(row.certificate)
    beside = certify(
        row.certificate.objective, PROFILES[DEFAULT_PROFILE], profile=DEFAULT_PROFILE, severities=severities
    )
    return words(row.certificate, beside)


def table(rows: Iterable[Row]) -> pa.Table:
    """Rows of SLO_CERTIFICATES."""
    found = [
        {
            "slo_id": row.name,
            "service": row.slo.service if row.slo else "",
            "profile": row.certificate.profile,
            "is_chosen": row.is_chosen,
            "severity": severity.name,
            "error_percent": timing.error_percent,
            "factor": severity.pairs[0].factor,
            "detection_seconds": timing.detection.total_seconds() if timing.detection is not None else None,
            "reset_seconds": timing.reset.total_seconds() if timing.reset is not None else None,
            "budget_spent_percent": timing.spent_percent,
        }
        for row in rows
        for severity in row.certificate.severities
        for timing in severity.timings
    ]
    return pa.Table.from_pylist(found, schema=SLO_CERTIFICATES.schema)
