"""The tables of the lake, declared once. Marts are declared in dbt's contracts and read from its manifest.

Names say layer, source and grain. Times are UTC; units stand in the column name where a type cannot carry them.
"""

from __future__ import annotations

import pyarrow as pa

from greenops_pipelines.lake.budget_tables import BUDGET_TABLES
from greenops_pipelines.lake.canary_tables import CANARY_TABLES
from greenops_pipelines.lake.cost_tables import COST_TABLES
from greenops_pipelines.lake.recovery_tables import RECOVERY_TABLES
from greenops_pipelines.lake.schema import TIMESTAMP, Column, Kind, Table
from greenops_pipelines.lake.supply_tables import SUPPLY_TABLES

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
        Column("provider", _text, "Who said so: sample, file, electricity-maps, energy-charts, uk-neso, watttime"),
        Column("zone", _text, "Grid zone, Electricity Maps identifier"),
        Column("datetime", TIMESTAMP, "Start of the interval, UTC"),
        Column("resolution_minutes", pa.int32(), "Length of the interval: 60, 30, 15 or 5 minutes"),
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

CARBON_OUTLOOK = Table(
    layer="bronze",
    name="carbon_outlook",
    comment="What the newest plan believes of the hours ahead: the best source per zone and interval, as known then.",
    columns=(
        Column("zone", _text, "Grid zone"),
        Column("datetime", TIMESTAMP, "Start of the interval, UTC"),
        Column("resolution_minutes", pa.int32(), "Length of the interval in minutes"),
        Column("carbon_intensity_g_per_kwh", _float, "Expected gCO2e per kWh"),
        Column("method", _text, "provider, or the project's own from the zone's past: ridge, week_mean, persistence"),
        Column("issued_at", TIMESTAMP, "When the provider issued it; own methods: end of the newest interval known"),
        Column("planned_at", TIMESTAMP, "The instant whose knowledge this is"),
    ),
    unique=("zone", "datetime"),
)

FORECAST_SCORES = Table(
    layer="bronze",
    name="forecast_scores",
    comment="Error and regret of every forecast method per zone and horizon, replayed over the last year's record.",
    columns=(
        Column("provider", _text, "Whose intensity is the truth"),
        Column("zone", _text, "Grid zone"),
        Column("method", _text, "ridge, week_mean, persistence, or provider: its own forecasts as issued"),
        Column("horizon_hours", _int, "Hours ahead of the issue that are scored, and that work may choose from"),
        Column("issues", _int, "Forecasts scored"),
        Column("left_out", _int, "Forecasts not scored because an actual or a forecast value is missing"),
        Column("mae_g_per_kwh", _float, "Mean absolute error"),
        Column("mape_pct", _float, "Mean absolute error, % of the actual value; null: all were 0", nullable=True),
        Column("regret_pct", _float, "Saving lost against perfect foresight, %; null: nothing to save", nullable=True),
        Column("fallback_pct", _float, "Forecast values that came from a simpler method, %"),
        Column("scored_from", TIMESTAMP, "Start of the interval in which the first scored forecast was issued"),
        Column("scored_to", TIMESTAMP, "Start of the interval in which the last scored forecast was issued"),
    ),
    unique=("provider", "zone", "method", "horizon_hours"),
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
        Column("time_zone", _text, "Zone in which calendar months and quarters of the budget are counted"),
        Column("yellow_below_percent", _float, "Less left of the budget than this is yellow"),
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

WORKLOADS = Table(
    layer="bronze",
    name="workloads",
    comment="Work that may wait or move, as declared in ops/workloads.yaml, with what follows for it from other files.",
    columns=(
        Column("workload", _text, "Name of the workload"),
        Column("kind", _text, "batch, embeddings or etl"),
        Column("tenant", _text, "Tenant the work is done for"),
        Column("service", _text, "Service it belongs to", nullable=True),
        Column("recurrence", _text, "cron <five fields, UTC>, or once <earliest start>"),
        Column("duration_minutes", _int, "How long it runs"),
        Column("window_minutes", _int, "From its earliest start to its deadline"),
        Column("power_kw", _float, "IT power of each instance, kW: declared, or from vCPUs, memory and GPUs"),
        Column("width", _int, "Instances that run at once"),
        Column("data_gb", _float, "GB to be moved where it runs away from home"),
        Column("interruptible", _bool, "Whether it may pause and go on later"),
        Column("home_region", _text, "Where its data lies"),
        Column("regions", _text, "Where it may run, after residency and latency; comma-separated"),
        Column("runner", _text, "What is started, JSON"),
        Column("cost_weight_g", _float, "gCO2e that one currency unit is worth; null: as for all", nullable=True),
    ),
    unique=("workload",),
)

PLACEMENT_REQUESTS = Table(
    layer="bronze",
    name="placement_requests",
    comment="Concrete pieces of work to be placed: occurrences of declared workloads, and accepted submissions.",
    columns=(
        Column("key", _text, "<workload>:<earliest start>, or the submitter's own key"),
        Column("workload", _text, "Name of the workload"),
        Column("kind", _text, "batch, embeddings or etl"),
        Column("tenant", _text, "Tenant the work is done for"),
        Column("service", _text, "Service it belongs to", nullable=True),
        Column("submitted_at", TIMESTAMP, "From when on it is known; of declared work when the horizon reaches it"),
        Column("earliest_start", TIMESTAMP, "Before which nothing of it runs"),
        Column("deadline", TIMESTAMP, "By when it has ended"),
        Column("duration_minutes", _int, "How long it runs"),
        Column("power_kw", _float, "IT power of each instance, kW"),
        Column("width", _int, "Instances that run at once"),
        Column("data_gb", _float, "GB to be moved where it runs away from home"),
        Column("interruptible", _bool, "Whether it may pause and go on later"),
        Column("home_region", _text, "Where its data lies"),
        Column("regions", _text, "Where it may run, after residency and latency; comma-separated"),
        Column("cost_weight_g", _float, "gCO2e that one currency unit is worth; null: as for all", nullable=True),
        Column("runner", _text, "What is started, JSON"),
        Column("source", _text, "declared or submitted"),
        Column("accepted_at", TIMESTAMP, "When a submission was accepted; null: declared", nullable=True),
    ),
    unique=("key",),
)

PLACEMENT_PLAN = Table(
    layer="bronze",
    name="placement_plan",
    comment="The newest plan: where and when every piece of work runs, why, what that avoids, and how good it can be.",
    columns=(
        Column("key", _text, "Natural key of the request"),
        Column("workload", _text, "Name of the workload"),
        Column("kind", _text, "batch, embeddings or etl"),
        Column("tenant", _text, "Tenant the work is done for"),
        Column("service", _text, "Service it belongs to", nullable=True),
        Column("state", _text, "planned; fallback: no forecast, runs now at home; late: no room before its deadline"),
        Column("policy", _text, "optimal, greedy, carbon-first, cost-first or run-now-home"),
        Column("region", _text, "Region of its first run", nullable=True),
        Column("zone", _text, "Grid zone of that region", nullable=True),
        Column("start_at", TIMESTAMP, "Start of its first run, UTC", nullable=True),
        Column("end_at", TIMESTAMP, "End of its last run, UTC", nullable=True),
        Column("runs", _text, "All its runs, JSON: region, start, end"),
        Column("home_region", _text, "Where it would have run"),
        Column("earliest_start", TIMESTAMP, "Before which nothing of it runs"),
        Column("deadline", TIMESTAMP, "By when it has ended"),
        Column("energy_kwh", _float, "IT energy of the whole run"),
        Column(
            "signal", _text, "Whose grams they are: average (what the grid emits) or marginal (what more of it causes)"
        ),
        Column("expected_g", _float, "gCO2e expected, PUE, transfer and manufacture included", nullable=True),
        Column("baseline_g", _float, "gCO2e expected of running at once at home", nullable=True),
        Column("avoided_g", _float, "The difference", nullable=True),
        Column("reason", _text, "Why there and then, in words"),
        Column("method", _text, "How the plan was found"),
        Column("plan_bound_g", _float, "No plan of all this work emits less"),
        Column("plan_gap_pct", _float, "How far the plan is above that bound at most, %"),
        Column("planned_at", TIMESTAMP, "When it was planned, and of whose knowledge it is"),
    ),
    unique=("key",),
)

PLACEMENT_DISPATCHES = Table(
    layer="bronze",
    name="placement_dispatches",
    comment="Decisions that were acted on: one per piece of work, as planned and by what was known, before its first run.",
    columns=(
        Column("key", _text, "Natural key of the request"),
        Column("workload", _text, "Name of the workload"),
        Column("kind", _text, "batch, embeddings or etl"),
        Column("tenant", _text, "Tenant the work was done for"),
        Column("service", _text, "Service it belongs to", nullable=True),
        Column("source", _text, "declared or submitted"),
        Column("region", _text, "Region of its first run"),
        Column("zone", _text, "Grid zone of that region"),
        Column("home_region", _text, "Where it would have run"),
        Column("home_zone", _text, "Grid zone of that region"),
        Column("regions", _text, "Where it may run, by commas"),
        Column("runs", _text, "All its runs as planned, JSON: region, start, end"),
        Column("earliest_start", TIMESTAMP, "Before which nothing of it runs; when it would have run"),
        Column("deadline", TIMESTAMP, "By when it has ended"),
        Column("duration_minutes", _int, "How long it runs, as declared"),
        Column("power_kw", _float, "IT power of all its instances, kW"),
        Column("data_gb", _float, "GB moved where it runs away from home"),
        Column("interruptible", _bool, "Whether it may pause and go on later"),
        Column(
            "state", _text, "planned; fallback: no forecast, ran at once at home; late: no room in time, or overdue"
        ),
        Column("policy", _text, "optimal, greedy, carbon-first, cost-first or run-now-home"),
        Column("method", _text, "How the plan was found"),
        Column(
            "signal", _text, "Whose grams they are: average (what the grid emits) or marginal (what more of it causes)"
        ),
        Column("expected_g", _float, "gCO2e expected when it was planned", nullable=True),
        Column("baseline_g", _float, "gCO2e expected then of running at once at home", nullable=True),
        Column("avoided_g", _float, "The difference", nullable=True),
        Column("reason", _text, "Why there and then, in words"),
        Column(
            "forecast_method", _text, "What was believed of its region: a forecast method; null: nothing", nullable=True
        ),
        Column("forecast_issued_at", TIMESTAMP, "When that forecast was issued", nullable=True),
        Column("planned_at", TIMESTAMP, "When it was planned, and of whose knowledge it is"),
        Column("runner", _text, "What was started, JSON"),
        Column("dispatched_at", TIMESTAMP, "When it was claimed, right before its first run"),
    ),
    unique=("key",),
)

PLACEMENT_ATTEMPTS = Table(
    layer="bronze",
    name="placement_attempts",
    comment="Every attempt to run a piece of work, and its end; what was refused, and what was never tried.",
    columns=(
        Column("key", _text, "Natural key of the request"),
        Column("attempt", _int, "1, 2, ...; 0: none was made, and none will be"),
        Column("workload", _text, "Name of the workload"),
        Column("tenant", _text, "Tenant the work was done for"),
        Column("region", _text, "Region it ran in, or was refused", nullable=True),
        Column("zone", _text, "Grid zone of that region", nullable=True),
        Column("runner", _text, "local or kubernetes"),
        Column("run_id", _text, "Dagster's run"),
        Column("began_at", TIMESTAMP, "When it began"),
        Column("ended_at", TIMESTAMP, "When it ended; null: it has not, as far as is known", nullable=True),
        Column(
            "outcome",
            _text,
            "running, succeeded, failed, timed out, paused, lost, rendered (dry run), refused, missed or cancelled",
        ),
        Column("exit_code", _int, "Exit code of the program; null: there is none", nullable=True),
        Column("deadline", TIMESTAMP, "By when the work was to have ended"),
        Column("detail", _text, "In words"),
    ),
    unique=("key", "attempt"),
)

PLACEMENT_SETTLEMENTS = Table(
    layer="bronze",
    name="placement_settlements",
    comment="What launched work really emitted, what it would have at home at once, and the difference: by actuals only.",
    columns=(
        Column("key", _text, "Natural key of the request"),
        Column("workload", _text, "Name of the workload"),
        Column("kind", _text, "batch, embeddings or etl"),
        Column("tenant", _text, "Tenant the work was done for"),
        Column("service", _text, "Service it belongs to", nullable=True),
        Column("home_region", _text, "Where it would have run"),
        Column("region", _text, "Where it ran, the longest part of it; null: nowhere", nullable=True),
        Column("state", _text, "settled, awaiting actuals, open (it may go on), failed, or not run"),
        Column("began_at", TIMESTAMP, "Start of its first attempt", nullable=True),
        Column("ended_at", TIMESTAMP, "End of its last attempt", nullable=True),
        Column("deadline", TIMESTAMP, "By when it was to have ended"),
        Column("attempts", _int, "Attempts that ran"),
        Column("ran_minutes", _float, "Minutes of all attempts together"),
        Column("useful_minutes", _float, "of them: not thrown away by a failure or a loss"),
        Column("energy_kwh", _float, "IT energy of all attempts"),
        Column("operational_g", _float, "gCO2e of that electricity, with PUE, location-based", nullable=True),
        Column("transfer_g", _float, "gCO2e of moving its data away from home", nullable=True),
        Column("embodied_g", _float, "gCO2e of its share of the machines' manufacture", nullable=True),
        Column("actual_g", _float, "Their sum", nullable=True),
        Column("wasted_g", _float, "of it: operational, of attempts that were thrown away", nullable=True),
        Column(
            "counterfactual_g", _float, "gCO2e of its useful minutes at home from its earliest start", nullable=True
        ),
        Column("avoided_g", _float, "Counterfactual less actual; below 0: placement made it worse", nullable=True),
        Column(
            "expected_avoided_g",
            _float,
            "What the decision expected to avoid; null: it was by marginal grams",
            nullable=True,
        ),
        Column("is_estimated", _bool, "Whether the provider estimated any of the actuals", nullable=True),
        Column("provider", _text, "Whose actuals: sample says that it is sample data"),
        Column("actuals_as_of", TIMESTAMP, "The newest observation that was known", nullable=True),
        Column("factor_vintage", _text, "Newest year of the emission factors"),
    ),
    unique=("key",),
)

PLACEMENT_PROOF = Table(
    layer="bronze",
    name="placement_proof",
    comment="What carbon-aware placement saves on the intensity in the lake, under limits, against bound and baseline.",
    columns=(
        Column("scenario", _text, "the promise, or what is different from it"),
        Column("policy", _text, "Policy that decided"),
        Column("forecast", _text, "What it believed: ridge, persistence or perfect"),
        Column("jobs", _int, "Jobs that are in the figures"),
        Column("baseline_kg", _float, "kgCO2e of running at once at home"),
        Column("total_kg", _float, "kgCO2e under the policy"),
        Column("operational_kg", _float, "of it: electricity, with PUE"),
        Column("transfer_kg", _float, "of it: moving data"),
        Column("embodied_kg", _float, "of it: manufacture of the machines"),
        Column("saving_pct", _float, "Saved against the baseline, %, everything included"),
        Column("saving_low_pct", _float, "Lower end of the 95 % bootstrap interval"),
        Column("saving_high_pct", _float, "Upper end of it"),
        Column("saving_without_embodied_pct", _float, "The same with manufacture left out of both sides"),
        Column("embodied_share_pct", _float, "Manufacture in the total, %"),
        Column("bound_saving_pct", _float, "Saving that no plan exceeds; null: factors changed after", nullable=True),
        Column("regret_pct", _float, "Of the bound's saving, what was missed, %", nullable=True),
        Column("gap_pct", _float, "Of the clairvoyant plan above the bound, %", nullable=True),
        Column("deadline_misses", _int, "Jobs that ended late"),
        Column("residency_violations", _int, "Jobs that ran outside their area"),
        Column("capacity_exceeded", _int, "Slots in which a region ran more than its room"),
        Column("note", _text, "What is special about it"),
        Column("provider", _text, "Whose intensity: sample says that it is sample data"),
        Column("evaluated_from", TIMESTAMP, "First hour of the weeks looked at"),
        Column("evaluated_to", TIMESTAMP, "End of the last one"),
        Column("weeks", _int, "How many weeks"),
        Column("interval_of", _text, "What the bootstrap draws: weeks or days"),
        Column("sides", _text, "Halves of the demand for which there is intensity: eu, us"),
    ),
    unique=("scenario", "policy", "forecast"),
)

DECLARED: tuple[Table, ...] = (
    REGIONS,
    TENANTS,
    EMISSION_FACTORS,
    CARBON_INTENSITY,
    CARBON_FORECAST,
    CARBON_FETCHES,
    CARBON_OUTLOOK,
    FORECAST_SCORES,
    RESOURCE_USAGE,
    CHECK_RESULTS,
    SCORECARD,
    EVIDENCE_BUNDLES,
    SLO_DEFINITIONS,
    SLO_RULES,
    SLO_CERTIFICATES,
    WORKLOADS,
    PLACEMENT_REQUESTS,
    PLACEMENT_PLAN,
    PLACEMENT_DISPATCHES,
    PLACEMENT_ATTEMPTS,
    PLACEMENT_SETTLEMENTS,
    PLACEMENT_PROOF,
    *COST_TABLES,
    *BUDGET_TABLES,
    *CANARY_TABLES,
    *RECOVERY_TABLES,
    *SUPPLY_TABLES,
)
