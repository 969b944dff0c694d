"""The tables of canaries, declared once: gates with their chances, rollback certificates, drills and their measurements."""

from __future__ import annotations

import pyarrow as pa

from greenops_pipelines.lake.schema import TIMESTAMP, Column, Table

_text = pa.string()
_float = pa.float64()
_int = pa.int64()
_bool = pa.bool_()

CANARY_GATES = Table(
    layer="bronze",
    name="slo_canary_gates",
    comment="Every metric by which a canary is judged, with its query and condition, as rendered into AnalysisTemplates.",
    columns=(
        Column("service", _text, "The service"),
        Column("gate", _text, "Name of the metric: error-rate, latency-p95, request-volume, ..."),
        Column("variant", _text, "cumulative: three bad samples in all; consecutive: three in a row, exactly"),
        Column(
            "threshold_percent", _float, "Share of bad requests at which it turns; null: not by that", nullable=True
        ),
        Column("condition", _text, "When a sample is good (cumulative), or three are bad (consecutive)"),
        Column("query", _text, "What Prometheus is asked"),
    ),
    unique=("service", "gate"),
)

ROLLBACK_CERTIFICATES = Table(
    layer="bronze",
    name="slo_rollback_certificates",
    comment="How long a canary that errs serves at most before it is taken back, over all phases of scraping and measuring.",
    columns=(
        Column("service", _text, "The service"),
        Column("gate", _text, "The gate that turns"),
        Column("error_percent", _float, "Share of the canary's requests that are bad, from one moment on"),
        Column("threshold_percent", _float, "Share that the gate allows"),
        Column("worst_s", _float, "Seconds from the breach to the rollback, at most; null: never found", nullable=True),
        Column("from_start_s", _float, "The same of a canary that is bad from its first request", nullable=True),
        Column("requests_per_second", _float, "Requests of the canary, the fewest by which it is judged"),
        Column("deadline_s", _float, "Seconds it may take, where it is held to that"),
        Column("rate_window_s", _float, "Range of the queries' rates, seconds"),
        Column("scrape_s", _float, "Seconds between two scrapes"),
        Column("interval_s", _float, "Seconds between two measurements"),
    ),
    unique=("service", "gate", "error_percent"),
)

CANARY_CHANCES = Table(
    layer="bronze",
    name="slo_canary_chances",
    comment="What chance does to a canary at its minimum volume: a good one taken back, a bad one not found.",
    columns=(
        Column("service", _text, "The service"),
        Column("requests_per_second", _float, "Requests of the canary, the fewest by which it is judged"),
        Column("requests_per_window", _int, "Requests behind one sample"),
        Column("healthy_error_percent", _float, "What a good version errs at"),
        Column("bad_error_percent", _float, "What the bad one errs at"),
        Column("threshold_percent", _float, "Share of errors that the gate allows"),
        Column("false_bad_sample", _float, "Probability that one sample of a good canary is bad: a binomial tail"),
        Column("false_rollback", _float, "Probability that a good canary is taken back before it is promoted"),
        Column("found_in_time", _float, "Probability that the bad one is taken back within the deadline"),
        Column("found", _float, "Probability that the bad one is taken back before it is promoted"),
        Column("runs", _int, "Rollouts played through for the last three"),
    ),
    unique=("service",),
)

CANARY_DRILLS = Table(
    layer="bronze",
    name="slo_drills",
    comment="Every drill of a canary, good, failed or aborted: what was done to it, what became of it, how long it took.",
    columns=(
        Column("drill", _text, "Identifier of the drill: its beginning and a number"),
        Column("batch", _text, "What it was held for: the week, 2026-W48, or: ad hoc"),
        Column("service", _text, "Whose gates and Rollout were drilled"),
        Column("scenario", _text, "healthy, errors-100, errors-2, latency, canary-dies, prometheus-down, ..."),
        Column("variant", _text, "cumulative or consecutive"),
        Column("speed", _float, "1: in real time; N: all clocks N times as fast, which says nothing of the deadline"),
        Column("rate_per_s", _float, "Requests a second of all clients"),
        Column(
            "source", _text, "Who scraped and answered the queries: Prometheus with its version, or: embedded scraper"
        ),
        Column("verdict", _text, "passed, failed or aborted"),
        Column("outcome", _text, "promoted, rolled back or paused; null: it did not come to that", nullable=True),
        Column("deficiencies", _text, "What was not as it should be, one line each; null: nothing", nullable=True),
        Column("why", _text, "What the controller said when it decided"),
        Column("last_step", _text, "The Rollout's step at the end"),
        Column("canary_percent", _int, "Share of the traffic that the canary had at the breach", nullable=True),
        Column("first_bad_sample_s", _float, "Breach to the first bad sample, s", nullable=True),
        Column("decision_s", _float, "Breach to the decision to roll back, s", nullable=True),
        Column("routed_back_s", _float, "Breach to the router's new weights, s", nullable=True),
        Column(
            "rollback_s", _float, "Breach to the canary's last answer, or to the new weights if later, s", nullable=True
        ),
        Column(
            "bound_s",
            _float,
            "What the certificate says it takes at most, s; null: it bounds no such fault",
            nullable=True,
        ),
        Column("deadline_s", _float, "Objective, s"),
        Column("canary_answers", _int, "Requests that the canary answered"),
        Column("canary_bad_answers", _int, "Of them, those with status 500 and above"),
        Column("stable_answers", _int, "Requests that the stable version answered"),
        Column("failed_requests", _int, "Requests that nobody answered"),
        Column("measurements", _int, "Measurements that were taken"),
        Column("bundle", _text, "Identifier of its evidence; null: not filed yet", nullable=True),
        Column("began_at", TIMESTAMP, "When it began, by this host's clock"),
        Column("ended_at", TIMESTAMP, "When it ended"),
    ),
    unique=("drill",),
    partition_by=("drill",),
)

CANARY_MEASUREMENTS = Table(
    layer="bronze",
    name="slo_drill_measurements",
    comment="Every measurement of every canary drill, in order: what the gates saw.",
    columns=(
        Column("drill", _text, "Identifier of the drill"),
        Column("position", _int, "1, 2, ..."),
        Column("run", _text, "background, or the check of a step"),
        Column("gate", _text, "The metric"),
        Column("at_s", _float, "When it was taken, seconds of the Rollout since its first step"),
        Column("value", _text, "What was answered, as the controller would print it"),
        Column("phase", _text, "Successful, Failed, Error or Inconclusive"),
        Column("message", _text, "What went wrong; null: nothing", nullable=True),
    ),
    unique=("drill", "position"),
    partition_by=("drill",),
)

CANARY_TABLES = (CANARY_GATES, ROLLBACK_CERTIFICATES, CANARY_CHANCES, CANARY_DRILLS, CANARY_MEASUREMENTS)
