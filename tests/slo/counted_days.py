"""Days of samples that a person can count: series as lists of (seconds since midnight, value); None is a stale marker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from greenops_pipelines.instants import micros
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES
from greenops_pipelines.slo.counting import compile_slo
from greenops_pipelines.slo.day_counts import Counts, count_day
from greenops_pipelines.slo.model import Events, Raw, Slo
from greenops_pipelines.slo.series import Batch, label_text, series_id

DAY = date(2026, 3, 1)
SOURCE = "prometheus"
MINUTE = 60
END = 24 * 3600

Line = tuple[str, Mapping[str, str], Sequence[tuple[float, float | None]]]

AVAILABILITY = (
    'sum(rate(req_total{status="5xx"}[{{.window}}])) or 0 * sum(rate(req_total[{{.window}}]))',
    "sum(rate(req_total[{{.window}}]))",
)


def events(error: str = AVAILABILITY[0], total: str = AVAILABILITY[1], name: str = "availability") -> Slo:
    return Slo(f"shop-{name}", name, "shop", 99.9, timedelta(days=30), Events(error, total), None)


def raw(query: str, name: str = "volume") -> Slo:
    return Slo(f"shop-{name}", name, "shop", 99.9, timedelta(days=30), None, Raw(query))


def req(status: str, points: Sequence[tuple[float, float | None]], instance: str = "a") -> Line:
    return "req_total", {"status": status, "instance": instance, "job": "shop"}, points


def steady(per_minute: float, *, until: int = END, every: int = 60, since: int = 0) -> list[tuple[float, float]]:
    """A counter that grows evenly: at `since` it has 1000, and the last sample is at `until`."""
    return [(s, 1000 + per_minute * (s - since) / 60) for s in range(since, until + 1, every)]


def midnight(day: date = DAY) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def batch(*lines: Line, day: date = DAY) -> Batch:
    """Everything in one batch, whatever day it is of."""
    series, samples = [], []
    start = micros(midnight(day))
    for metric, labels, points in sorted(lines, key=lambda line: series_id(line[0], line[1])):
        number = series_id(metric, labels)
        zeros = dict.fromkeys(("stale_markers", "unusable_samples", "duplicate_samples"), 0)
        series.append(
            {"source": SOURCE, "day": day, "series_id": number, "metric": metric, "labels": label_text(labels)}
            | {"samples": len(points), **zeros}
        )
        time = pa.array([start + round(s * 1e6) for s, _ in points], pa.int64()).cast(
            METRIC_SAMPLES.schema.field("time").type
        )
        values = [v for _, v in points]
        columns = {
            "source": pa.repeat(pa.scalar(SOURCE), len(points)),
            "day": time.cast(pa.timestamp("us")).cast(pa.date32()),
            "series_id": pa.repeat(pa.scalar(number, pa.int64()), len(points)),
            "time": time,
            "value": pa.array([v or 0.0 for v in values], pa.float64()),
            "is_stale": pa.array([v is None for v in values], pa.bool_()),
        }
        samples.append(pa.table(columns, schema=METRIC_SAMPLES.schema))
    return Batch(
        pa.Table.from_pylist(series, schema=METRIC_SERIES.schema),
        pa.concat_tables([METRIC_SAMPLES.schema.empty_table(), *samples]),
    )


def counted(
    slo: Slo, lines: Iterable[Line], before: Iterable[Line] = (), until_seconds: float = END + 3600, day: date = DAY
) -> Counts:
    """`before` is what was seen before the day, also in seconds since its midnight: below 0, or 0."""
    until = midnight(day) + timedelta(seconds=until_seconds)
    return count_day([compile_slo(slo)], batch(*lines, day=day), batch(*before, day=day), day, until, source=SOURCE)


class Told:
    """The rows of one SLO, by minute of the day."""

    def __init__(self, counts: Counts) -> None:
        self.rows = {(row["minute"].hour * 60 + row["minute"].minute): row for row in counts.minutes.to_pylist()}
        (self.day,) = counts.days.to_pylist()
        (self.figures,) = counts.figures.values()

    def __getitem__(self, minute: int) -> tuple[float | None, float | None]:
        """Total and bad of a minute."""
        return self.rows[minute]["total"], self.rows[minute]["bad"]

    @property
    def gaps(self) -> list[int]:
        return [minute for minute, row in self.rows.items() if row["total"] is None]

    @property
    def unplaced(self) -> dict[int, tuple[float, float]]:
        return {
            minute: (row["unplaced_total"], row["unplaced_bad"])
            for minute, row in self.rows.items()
            if row["unplaced_total"] or row["unplaced_bad"]
        }
