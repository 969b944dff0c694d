"""A lake whose minutes are written down by a test, and the one SLO that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import BUDGET_TABLES, SLO_MINUTES
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.slo.model import Alert, Events, Slo

BEGIN = datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LINKS = {"dashboard": "https://grafana.example/d/slo-shop", "runbook": "https://runbooks.example/slo#shop"}


def slo(name: str = "availability", objective: float = 99.9, *, page: bool = True, ticket: bool = True) -> Slo:
    def alert(severity: str) -> Alert:
        labels = {"severity": severity, "team": "web"}
        return Alert("ShopBurn", labels, {"summary": "shop burns", **LINKS})

    return Slo(
        id=f"shop-{name}",
        name=name,
        service="shop",
        objective=objective,
        period=timedelta(days=30),
        events=Events("e", "t"),
        raw=None,
        page=alert("critical") if page else None,
        ticket=alert("warning") if ticket else None,
    )


def lake_in(home: Path) -> Lake:
    return Lake(
        LocalFolder(home / "lake"), home / "warehouse.duckdb", {"slo_minutes": {"source": "sample"}}, BUDGET_TABLES
    )


Counts = tuple[float | None, float | None]


def write(lake: Lake, minutes: Mapping[str, Sequence[Counts]], begin: datetime = BEGIN, source: str = "sample") -> None:
    """(total, bad) of each minute from `begin`, by SLO; (None, None) is a gap. Whole days are replaced."""
    rows = [
        {
            "source": source,
            "day": (begin + n * MINUTE).date(),
            "slo_id": slo_id,
            "minute": begin + n * MINUTE,
            "total": total,
            "bad": bad,
            "unplaced_total": 0.0,
            "unplaced_bad": 0.0,
        }
        for slo_id, counts in minutes.items()
        for n, (total, bad) in enumerate(counts)
    ]
    lake.write(SLO_MINUTES, pa.Table.from_pylist(rows, schema=SLO_MINUTES.schema), refresh=False)


def at(minute: int) -> datetime:
    """The start of a minute, counted from `BEGIN`."""
    return BEGIN + minute * MINUTE


def good(count: int) -> list[Counts]:
    return [(1000.0, 0.0)] * count


def bad(count: int, share: float = 1.0) -> list[Counts]:
    return [(1000.0, 1000.0 * share)] * count


def gap(count: int) -> list[Counts]:
    return [(None, None)] * count
