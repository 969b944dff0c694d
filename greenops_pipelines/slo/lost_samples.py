"""Samples that were read once and that their source has no more: they stay in the lake.

A Prometheus that lost its disk, a fresh replica, a shorter retention, a proxy to an empty tenant: all of them answer 200, with less
than before. What they say of the time that was read already would erase outages from budgets. Not here: reading and writing a day
(`metrics_ingest.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES
from greenops_pipelines.slo.reading_times import DAY, start
from greenops_pipelines.slo.series import Batch, Selector

CLEARLY_FEWER = 0.9
"""Of what the lake holds. Replicas behind one address differ by some samples, a source that lost hours does by more than a tenth."""
_KEY = ("source", "day", "series_id", "metric", "labels")


@dataclass(frozen=True)
class Lost:
    """A metric of a day: how many samples of the time that was read before were found now, and how many the lake has."""

    metric: str
    found: int
    there: int

    def __str__(self) -> str:
        return f"found {self.found:,} samples of {self.metric}, the lake has {self.there:,}"


def lost(
    lake: Lake, source: str, day: date, read_at: datetime, batch: Batch, selectors: Sequence[Selector] | None
) -> tuple[Lost, ...]:
    """Metrics of which a batch has none or clearly fewer samples before `read_at` than the lake has of that day.

    `selectors`: what the lake holds is compared as far as they select it; None: all of it was read for them.
    """
    there = _by_metric(_selected(_stored_series(lake, source, day), selectors))
    if not there:
        return ()
    found = _by_metric(batch.series) if read_at >= start(day) + DAY else _by_metric(_early(batch, read_at))
    return tuple(
        Lost(metric, found.get(metric, 0), count)
        for metric, count in sorted(there.items())
        if found.get(metric, 0) < CLEARLY_FEWER * count
    )


def kept(lake: Lake, source: str, day: date, read_at: datetime, batch: Batch, metrics: Sequence[str]) -> Batch:
    """The batch, with the lake's samples of these metrics before `read_at` instead of its own."""
    wanted = pa.array(metrics, pa.string())
    old_series = _stored_series(lake, source, day)
    old_series = old_series.filter(pc.is_in(old_series["metric"], wanted))
    old = lake.read(METRIC_SAMPLES, {"source": source, "day": day})
    until = pa.scalar(read_at)
    old = old.filter(pc.and_(pc.is_in(old["series_id"], old_series["series_id"]), pc.less(old["time"], until)))
    own = batch.series.filter(pc.is_in(batch.series["metric"], wanted))["series_id"]
    new = batch.samples
    new = new.filter(pc.invert(pc.and_(pc.is_in(new["series_id"], own), pc.less(new["time"], until))))
    samples = pa.concat_tables([old, new]).sort_by([("series_id", "ascending"), ("time", "ascending")])
    return Batch(_series([old_series, batch.series], samples), samples, batch.left_out)


def _stored_series(lake: Lake, source: str, day: date) -> pa.Table:
    return lake.read(METRIC_SERIES, {"source": source, "day": day})


def _selected(series: pa.Table, selectors: Sequence[Selector] | None) -> pa.Table:
    if selectors is None:
        return series
    rows = zip(series["metric"].to_pylist(), series["labels"].to_pylist(), strict=True)
    labelled = [(metric, json.loads(labels)) for metric, labels in rows]
    mask = [any(each.selects(metric, labels) for each in selectors) for metric, labels in labelled]
    return series.filter(pa.array(mask, pa.bool_()))


def _by_metric(series: pa.Table) -> dict[str, int]:
    """Samples of each metric; a metric without any is left out."""
    summed = series.group_by("metric").aggregate([("samples", "sum")]).to_pylist()
    return {row["metric"]: row["samples_sum"] for row in summed if row["samples_sum"]}


def _early(batch: Batch, read_at: datetime) -> pa.Table:
    """The batch's series, with the samples that lie before `read_at`."""
    is_early = pc.less(batch.samples["time"], pa.scalar(read_at))
    counts = _counted(batch.samples.filter(is_early), is_stale=False)
    return batch.series.select(["series_id", "metric"]).append_column("samples", _of(batch.series, counts))


def _counted(samples: pa.Table, *, is_stale: bool) -> Mapping[int, int]:
    chosen = samples.filter(samples["is_stale"] if is_stale else pc.invert(samples["is_stale"]))
    rows = chosen.group_by("series_id").aggregate([([], "count_all")])
    return dict(zip(rows["series_id"].to_pylist(), rows["count_all"].to_pylist(), strict=True))


def _of(series: pa.Table, counts: Mapping[int, int]) -> pa.Array:
    return pa.array([counts.get(number, 0) for number in series["series_id"].to_pylist()], pa.int64())


def _series(parts: Sequence[pa.Table], samples: pa.Table) -> pa.Table:
    """One row a series. Samples are counted anew; of what is not stored, the most that one reading saw."""
    both = pa.concat_tables(parts).group_by(list(_KEY), use_threads=False)
    rows = both.aggregate([("unusable_samples", "max"), ("duplicate_samples", "max")])
    columns = {
        **{name: rows[name] for name in _KEY},
        "samples": _of(rows, _counted(samples, is_stale=False)),
        "stale_markers": _of(rows, _counted(samples, is_stale=True)),
        "unusable_samples": rows["unusable_samples_max"],
        "duplicate_samples": rows["duplicate_samples_max"],
    }
    schema = METRIC_SERIES.schema
    return pa.table([columns[name] for name in schema.names], schema=schema).sort_by("series_id")
