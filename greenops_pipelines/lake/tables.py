"""The tables of the lake, declared once. Marts are declared in dbt's contracts and read from its manifest.

Names say layer, source and grain. Times are UTC; units stand in the column name where a type cannot carry them.
"""

from __future__ import annotations

import pyarrow as pa

from greenops_pipelines.lake.schema import TIMESTAMP, Column, Kind, Table

_text = pa.string()
_float = pa.float64()
_int = pa.int64()
_bool = pa.bool_()
_date = pa.date32()

REGIONS = Table(
    layer="bronze",
    name="regions",
    comment="Cloud regions as declared in ops/regions.yaml: grid zone, power usage effectiveness, residency area.",
    columns=(
        Column("region", _text, "Cloud region, e.g. eu-central-1"),
        Column("zone", _text, "Grid zone, Electricity Maps identifier, e.g. DE"),
        Column("pue", _float, "Power usage effectiveness: facility energy / IT energy, >= 1"),
        Column("pue_source", _text, "Where the PUE comes from"),
        Column("residency", _text, "Residency area of the region: eu, us, ..."),
        Column("is_primary", _bool, "Whether the platform serves from this region in normal operation"),
    ),
    unique=("region",),
)

TENANTS = Table(
    layer="bronze",
    name="tenants",
    comment="Business tenants as declared in ops/tenants.yaml, with the area their work and data must stay in.",
    columns=(
        Column("tenant", _text, "Tenant identifier"),
        Column("residency", _text, "Area the tenant is bound to: eu, or any"),
        Column("home_region", _text, "Region that serves the tenant in normal operation"),
    ),
    unique=("tenant",),
)

EMISSION_FACTORS = Table(
    layer="bronze",
    name="emission_factors",
    comment="Factors that turn resource usage into energy and embodied emissions, each with source and vintage.",
    columns=(
        Column("factor", _text, "Name of the factor, used by the dbt models"),
        Column("value", _float, "Value in `unit`"),
        Column("unit", _text, "Unit of the value"),
        Column("source", _text, "Publication or data set the value comes from"),
        Column("vintage", _text, "Year or version of the source"),
        Column("note", _text, "What the value covers", nullable=True),
    ),
    unique=("factor",),
)

CARBON_INTENSITY = Table(
    layer="bronze",
    name="carbon_intensity",
    comment="Carbon intensity of electricity per grid zone and interval, every observation ever made (bitemporal).",
    columns=(
        Column("provider", _text, "Who said so: sample, file, electricity-maps, energy-charts, uk-neso"),
        Column("zone", _text, "Grid zone, Electricity Maps identifier"),
        Column("datetime", TIMESTAMP, "Start of the interval, UTC"),
        Column("resolution_minutes", pa.int32(), "Length of the interval: 60, 30 or 15 minutes"),
        Column("carbon_intensity_g_per_kwh", _float, "gCO2e per kWh; null: the provider had no value", nullable=True),
        Column("signal", _text, "average or marginal"),
        Column("emission_factor_type", _text, "lifecycle or direct"),
        Column("is_flow_traced", _bool, "Whether imports and exports are traced; null: not stated", nullable=True),
        Column("is_estimated", _bool, "Whether the provider estimated the value; null: not stated", nullable=True),
        Column("estimation_method", _text, "The provider's name of its estimation method", nullable=True),
        Column("updated_at", TIMESTAMP, "When the provider says it last changed the value", nullable=True),
        Column("observed_at", TIMESTAMP, "When this project fetched the value"),
        Column("day", _date, "UTC day of `datetime`"),
    ),
    unique=("provider", "zone", "datetime", "signal", "emission_factor_type"),
    partition_by=("provider", "day"),
    kind=Kind.REVISED,
    measure="carbon_intensity_g_per_kwh",
    selected_by=("provider", "signal", "emission_factor_type"),
)

CARBON_FORECAST = Table(
    layer="bronze",
    name="carbon_forecast",
    comment="Forecasts of carbon intensity as they were issued; never replaced, so that plans can be replayed.",
    columns=(
        Column("provider", _text, "Who forecast it"),
        Column("zone", _text, "Grid zone"),
        Column("issued_at", TIMESTAMP, "When the provider issued the forecast"),
        Column("datetime", TIMESTAMP, "Start of the forecast interval, UTC"),
        Column("resolution_minutes", pa.int32(), "Length of the interval in minutes"),
        Column("carbon_intensity_g_per_kwh", _float, "Forecast gCO2e per kWh"),
        Column("signal", _text, "average or marginal"),
        Column("emission_factor_type", _text, "lifecycle or direct"),
        Column("observed_at", TIMESTAMP, "When this project fetched the forecast"),
        Column("day", _date, "UTC day of `observed_at`"),
    ),
    unique=("provider", "zone", "datetime", "signal", "emission_factor_type", "issued_at"),
    partition_by=("provider", "day"),
    kind=Kind.LOG,
    selected_by=("provider", "signal", "emission_factor_type"),
)

CARBON_FETCHES = Table(
    layer="bronze",
    name="carbon_fetches",
    comment="One row per zone and fetch: what was asked of the provider, what came back, what went wrong.",
    columns=(
        Column("provider", _text, "Provider asked"),
        Column("kind", _text, "history or forecast"),
        Column("zone", _text, "Grid zone"),
        Column("requested_from", TIMESTAMP, "Start of the range asked for"),
        Column("requested_to", TIMESTAMP, "End of the range, exclusive"),
        Column("outcome", _text, "complete, gaps, or failed"),
        Column("intervals", _int, "Intervals received with a value"),
        Column("new_rows", _int, "Intervals seen for the first time"),
        Column("revised_rows", _int, "Intervals whose value or status changed since the last fetch"),
        Column("null_rows", _int, "Intervals for which the provider sent null"),
        Column("error", _text, "Why the fetch failed", nullable=True),
        Column("observed_at", TIMESTAMP, "When the fetch was made"),
        Column("day", _date, "UTC day of `observed_at`"),
    ),
    unique=("provider", "kind", "zone", "requested_from", "observed_at"),
    partition_by=("day",),
    kind=Kind.LOG,
)

RESOURCE_USAGE = Table(
    layer="bronze",
    name="resource_usage",
    comment="Resources used per service, tenant, region and hour.",
    columns=(
        Column("source", _text, "sample or file"),
        Column("hour", TIMESTAMP, "Start of the hour, UTC"),
        Column("service", _text, "Service of the platform"),
        Column("tenant", _text, "Tenant the work was done for"),
        Column("region", _text, "Cloud region the work ran in"),
        Column("vcpu_hours", _float, "vCPU hours"),
        Column("cpu_utilization", _float, "Mean CPU utilisation in [0, 1]; null: the default factor", nullable=True),
        Column("memory_gb_hours", _float, "GB hours of memory"),
        Column("storage_tb_hours", _float, "TB hours of SSD storage"),
        Column("network_gb", _float, "GB moved over the network"),
        Column("gpu_hours", _float, "GPU hours"),
        Column("requests", _float, "Requests served: the functional unit of SCI"),
        Column("day", _date, "UTC day of `hour`"),
    ),
    unique=("source", "hour", "service", "tenant", "region"),
    partition_by=("source", "day"),
    selected_by=("source",),
)

CHECK_RESULTS = Table(
    layer="bronze",
    name="check_results",
    comment="Every result of every asset check, kept beyond Dagster's event log; the scorecard is SQL over it.",
    columns=(
        Column("check", _text, "<asset key>:<check name>"),
        Column("outcome", _text, "passed, failed, or cannot be measured"),
        Column("measured", _float, "The measured figure; null: nothing could be measured", nullable=True),
        Column("target", _float, "The target"),
        Column("comparison", _text, "How measured is compared with target: >=, <= or =="),
        Column("unit", _text, "Unit of both figures"),
        Column("detail", _text, "One sentence for a person"),
        Column("missing", _text, "What is missing where nothing could be measured", nullable=True),
        Column("figures", _text, "Further figures, JSON"),
        Column("evidence", _text, "Identifier of the signed evidence bundle", nullable=True),
        Column("run_id", _text, "Dagster run that made the check"),
        Column("checked_at", TIMESTAMP, "When the check was made"),
        Column("day", _date, "UTC day of `checked_at`"),
    ),
    unique=("check", "checked_at", "run_id"),
    partition_by=("day",),
    kind=Kind.LOG,
)

SCORECARD = Table(
    layer="marts",
    name="scorecard",
    comment="The acceptance criteria J1.1 to J6.5 with target, measured figure and verdict, as of the last run.",
    columns=(
        Column("id", _text, "Criterion, e.g. J2.1"),
        Column("domain", _text, "Domain that owns the criterion"),
        Column("criterion", _text, "What is promised"),
        Column("comparison", _text, "How measured is compared with target: >=, <= or =="),
        Column("target", _float, "Target"),
        Column("measured", _float, "The measured figure; null: none yet", nullable=True),
        Column("unit", _text, "Unit of both figures"),
        Column("verdict", _text, "met, missed, stale, not yet measured, or cannot be measured here"),
        Column("missing", _text, "What is missing where it cannot be measured here", nullable=True),
        Column("checked_at", TIMESTAMP, "When it was last measured", nullable=True),
        Column("evidence", _text, "Identifier of the signed evidence bundle", nullable=True),
    ),
    unique=("id",),
)

SLO_DEFINITIONS = Table(
    layer="bronze",
    name="slo_definitions",
    comment="Service level objectives as declared in ops/slo-definitions, one row per SLO.",
    columns=(
        Column("slo_id", _text, "<service>-<slo>, the label sloth_id of everything recorded for it"),
        Column("service", _text, "Service of the platform"),
        Column("slo", _text, "Name of the SLO"),
        Column("objective", _float, "Objective, percent"),
        Column("error_budget_minutes", _float, "What the objective allows to fail in the period, in minutes"),
        Column("period_days", _float, "Length of the rolling period"),
        Column("profile", _text, "Alert profile of the service"),
        Column("pages", _bool, "Whether fast burning pages"),
        Column("tickets", _bool, "Whether slow burning opens a ticket"),
        Column("team", _text, "Who is asked"),
        Column("description", _text, "What is promised, in words"),
        Column("error_query", _text, "PromQL of the bad events or of the error ratio, with {{.window}}"),
        Column("total_query", _text, "PromQL of all events; null where the error ratio is one query", nullable=True),
    ),
    unique=("slo_id",),
)

SLO_RULES = Table(
    layer="bronze",
    name="slo_rules",
    comment="Every Prometheus rule that is rendered for the SLOs: recordings and alerts.",
    columns=(
        Column("file", _text, "Where it lies in the rendered tree"),
        Column("rule_group", _text, "Group that Prometheus evaluates together"),
        Column("position", _int, "Place in its group, from 0"),
        Column("kind", _text, "record or alert"),
        Column("name", _text, "Name of the recorded series or of the alert"),
        Column("severity", _text, "critical, warning, ...; null for recordings", nullable=True),
        Column("team", _text, "Who is asked; null for most recordings", nullable=True),
        Column("held_for", _text, "How long an alert has to hold; null: not at all", nullable=True),
        Column("expr", _text, "PromQL"),
        Column("runbook", _text, "Link to the runbook; null for recordings", nullable=True),
    ),
    unique=("file", "rule_group", "position"),
)

SLO_CERTIFICATES = Table(
    layer="bronze",
    name="slo_certificates",
    comment="When each burn-rate alert fires and what is burnt by then, per SLO, profile, severity and error rate.",
    columns=(
        Column("slo_id", _text, "<service>-<slo>"),
        Column("service", _text, "Service of the platform"),
        Column("profile", _text, "Alert profile: workbook, user-table or sloth"),
        Column("is_chosen", _bool, "Whether the service uses this profile"),
        Column("severity", _text, "page or ticket"),
        Column("error_percent", _float, "Share of requests that fail, constantly"),
        Column("factor", _float, "Burn rate above which the alert's first pair of windows fires"),
        Column("detection_seconds", _float, "From the first error to the alert; null: it never fires", nullable=True),
        Column(
            "reset_seconds", _float, "From the last error to the end of the alert; null: never fires", nullable=True
        ),
        Column(
            "budget_spent_percent", _float, "Of the period's budget, when it fires; null: never fires", nullable=True
        ),
    ),
    unique=("slo_id", "profile", "severity", "error_percent"),
)

EVIDENCE_BUNDLES = Table(
    layer="marts",
    name="evidence_bundles",
    comment="Every signed evidence bundle that was filed or waits: control, subject, verdict, and whether it verifies.",
    columns=(
        Column("bundle", _text, "Identifier of the bundle, as in `check_results.evidence`"),
        Column("state", _text, "filed, queued (waits for store, log or authority) or gone"),
        Column("control", _text, "The obligation it is evidence for, e.g. J4.2", nullable=True),
        Column("subject", _text, "What was looked at", nullable=True),
        Column("verdict", _text, "passed, failed, aborted, or cannot be measured", nullable=True),
        Column("is_verified", _bool, "Whether every property verified offline with this home's keys"),
        Column("fault", _text, "The property that failed, and why", nullable=True),
        Column("requested_at", TIMESTAMP, "When the filing was asked for"),
        Column("signed_at", TIMESTAMP, "When the statement was signed", nullable=True),
        Column("verified_at", TIMESTAMP, "When it was last verified"),
        Column("size_bytes", _int, "Size of the bundle", nullable=True),
    ),
    unique=("bundle",),
)

DECLARED: tuple[Table, ...] = (
    REGIONS,
    TENANTS,
    EMISSION_FACTORS,
    CARBON_INTENSITY,
    CARBON_FORECAST,
    CARBON_FETCHES,
    RESOURCE_USAGE,
    CHECK_RESULTS,
    SCORECARD,
    EVIDENCE_BUNDLES,
    SLO_DEFINITIONS,
    SLO_RULES,
    SLO_CERTIFICATES,
)
