"""Tables of the error-budget ledger: metrics as they were scraped, and what was counted of them minute by minute.

Not here: the SLOs themselves (`tables.py`), and the budgets, which dbt's marts make of the counts.
"""

from __future__ import annotations

import pyarrow as pa

from greenops_pipelines.lake.schema import TIMESTAMP, Column, Kind, Table

_text = pa.string()
_float = pa.float64()
_int = pa.int64()
_bool = pa.bool_()
_date = pa.date32()

METRIC_SERIES = Table(
    layer="bronze",
    name="metric_series",
    comment="Series of metrics that were read for the SLOs, per source and UTC day: who emitted which samples.",
    columns=(
        Column("source", _text, "Where they come from: sample, or prometheus"),
        Column("day", _date, "UTC day of the samples"),
        Column("series_id", _int, "First 63 bits of the SHA-256 of metric and labels: the same on every day"),
        Column("metric", _text, "Name of the metric"),
        Column("labels", _text, "The other labels, as JSON with sorted names"),
        Column("samples", _int, "Samples that were kept"),
        Column("stale_markers", _int, "Prometheus' own marks that the series had ended"),
        Column("unusable_samples", _int, "Samples that were NaN or infinite: they count for nothing, like a gap"),
        Column("duplicate_samples", _int, "Samples that were there twice, with one time and one value"),
    ),
    unique=("source", "day", "series_id"),
    partition_by=("source", "day"),
    selected_by=("source",),
)

METRIC_SAMPLES = Table(
    layer="bronze",
    name="metric_samples",
    comment="Samples of those series as they were scraped. What was NaN or infinite is not here, and was counted.",
    columns=(
        Column("source", _text, "Where they come from: sample, or prometheus"),
        Column("day", _date, "UTC day of `time`"),
        Column("series_id", _int, "Of metric_series"),
        # 2,000 series a minute: 4.8 MB a day instead of 6.5.
        Column("time", TIMESTAMP, "When it was scraped", encoding="DELTA_BINARY_PACKED"),
        Column("value", _float, "Value, in the metric's unit", encoding="BYTE_STREAM_SPLIT"),
        Column(
            "is_stale", _bool, "Prometheus' mark that the series had ended by then; its value is 0 and means nothing"
        ),
    ),
    unique=("source", "day", "series_id", "time"),
    partition_by=("source", "day"),
    selected_by=("source",),
)

SLO_MINUTES = Table(
    layer="bronze",
    name="slo_minutes",
    comment=(
        "Good and all events of every SLO and minute, counted from samples: the ledger. "
        "A minute holds what was seen later than its start and not later than its end."
    ),
    columns=(
        Column("source", _text, "Where the samples come from: sample, or prometheus"),
        Column("day", _date, "UTC day of `minute`"),
        Column("slo_id", _text, "<service>-<slo>"),
        Column("minute", TIMESTAMP, "Start of the minute"),
        Column("total", _float, "All events; null: a gap, nobody knows", nullable=True),
        Column("bad", _float, "Bad events among them; null: a gap, nobody knows", nullable=True),
        Column(
            "unplaced_total",
            _float,
            "Events that a counter had grown by after a gap, and those of pods whose histogram lacks the SLO's bucket: "
            "they happened, and nobody knows in which minute, or how many of them were bad. In no budget",
        ),
        Column("unplaced_bad", _float, "Bad events among those, as far as it is known"),
    ),
    unique=("source", "day", "slo_id", "minute"),
    partition_by=("source", "day"),
    selected_by=("source",),
)

SLO_DAYS = Table(
    layer="bronze",
    name="slo_days",
    comment="Totals of every SLO and UTC day, and every correction that was ever made to them (bitemporal).",
    columns=(
        Column("source", _text, "Where the samples come from: sample, or prometheus"),
        Column("day", _date, "UTC day"),
        Column("slo_id", _text, "<service>-<slo>"),
        Column("total", _float, "All events; null: no minute of the day is known", nullable=True),
        Column("bad", _float, "Bad events among them; null: no minute of the day is known", nullable=True),
        Column("known_minutes", _int, "Minutes of which is known what happened, 0 to 1440"),
        Column("gap_minutes", _int, "Minutes that were over and of which nothing is known"),
        Column("unplaced_total", _float, "Events over gaps and of pods without the SLO's bucket, in no budget"),
        Column("unplaced_bad", _float, "Bad events among those, as far as it is known"),
        Column("resets", _int, "Counter resets that were seen"),
        Column("clamped", _float, "Bad events above all events of their minutes, in no budget", nullable=True),
        Column("fault", _text, "Why the SLO could not be counted on that day; null: it was", nullable=True),
        Column("warning", _text, "What is doubtful of a day that was counted, one line; null: nothing", nullable=True),
        Column("observed_at", TIMESTAMP, "When it was counted"),
    ),
    unique=("source", "day", "slo_id"),
    partition_by=("source", "day"),
    kind=Kind.REVISED,
    measure="total",
    selected_by=("source",),
)

SLO_INCIDENTS = Table(
    layer="bronze",
    name="slo_incidents",
    comment="Incidents that burning budgets opened: when, how bad, whom it was told, and when it was over.",
    columns=(
        Column("incident", _text, "Natural key: <slo_id>:<severity>:<when it began>:<source>"),
        Column("slo_id", _text, "<service>-<slo>"),
        Column("service", _text, "Service of the platform"),
        Column("source", _text, "Of the samples: sample or prometheus"),
        Column("severity", _text, "page or ticket"),
        Column("state", _text, "open or closed"),
        Column("opened_at", TIMESTAMP, "First minute of which the burn was above both windows' threshold"),
        Column("noticed_at", TIMESTAMP, "When the sensor saw it"),
        Column(
            "closed_at",
            TIMESTAMP,
            "First minute in which it was not, or when it was given up; null: it goes on",
            nullable=True,
        ),
        Column("peak_burn", _float, "Highest burn rate of the shorter window while it lasted"),
        Column("budget_spent_percent", _float, "Of the 30-day budget, spent between the two"),
        Column("bad", _float, "Bad events in that time"),
        Column(
            "told",
            _text,
            "Whom it was told, each with what came of it; dry run: nobody; overdue: a page that waited for 15 minutes",
        ),
        Column("evidence", _text, "Bundle with what was prepared for a rollback; null: not filed yet", nullable=True),
    ),
    unique=("incident",),
)

BUDGET_TABLES: tuple[Table, ...] = (METRIC_SERIES, METRIC_SAMPLES, SLO_MINUTES, SLO_DAYS, SLO_INCIDENTS)
