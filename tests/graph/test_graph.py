"""The graph as a stranger sees it: nothing without group, owner, description and check; edges as declared."""

import dagster as dg
import pytest

from greenops_pipelines.definitions import defs

GRAPH = defs.resolve_asset_graph()
ASSETS = sorted(GRAPH.materializable_asset_keys)

EDGES = """
carbon/coverage_daily <- carbon/emissions_hourly
carbon/emission_factors <-
carbon/emissions_daily <- carbon/emissions_hourly
carbon/emissions_hourly <- carbon/emission_factors carbon/intensity carbon/usage ops/regions ops/tenants
carbon/emissions_monthly <- carbon/emission_factors carbon/emissions_hourly
carbon/forecast <- ops/regions
carbon/forecast_scores <- carbon/forecast carbon/intensity
carbon/intensity <- ops/regions
carbon/outlook <- carbon/forecast carbon/intensity
carbon/sci_daily <- carbon/emissions_hourly
carbon/usage <- ops/regions ops/tenants
cost/allocated_monthly <- cost/monthly ops/cost
cost/anomalies_daily <- carbon/emission_factors carbon/intensity cost/charges ops/regions
cost/charge_carbon <- carbon/emission_factors carbon/intensity cost/charges ops/regions
cost/charges <- ops/cost ops/tenants
cost/commitments_monthly <- cost/charges
cost/daily <- carbon/emission_factors carbon/intensity cost/charges ops/regions
cost/files <- ops/cost ops/tenants
cost/forecasts_daily <- carbon/emission_factors carbon/intensity cost/charges ops/budgets ops/regions
cost/monthly <- carbon/emission_factors carbon/intensity cost/charges ops/regions
cost/periods <- ops/cost ops/tenants
cost/reconciliation <- cost/charges cost/daily cost/files cost/monthly
cost/report <- carbon/sci_daily cost/allocated_monthly cost/anomalies_daily cost/charge_carbon cost/commitments_monthly cost/forecasts_daily cost/reconciliation cost/units_daily
cost/units_daily <- carbon/emission_factors carbon/intensity carbon/usage cost/charges ops/regions ops/units
evidence/bundles <- lake/warehouse
evidence/scorecard <- report/carbon report/scorecard
lake/warehouse <- carbon/coverage_daily carbon/emissions_daily carbon/emissions_monthly carbon/forecast_scores carbon/sci_daily cost/allocated_monthly cost/anomalies_daily cost/charge_carbon cost/commitments_monthly cost/forecasts_daily cost/periods cost/reconciliation cost/units_daily placement/avoided_monthly placement/proof slo/budget_calendar slo/burn slo/canary_chances slo/certificates slo/days slo/error_budget slo/incidents slo/rollback_certificates
ops/budgets <- ops/tenants
ops/cost <- ops/tenants
ops/gamedays <- ops/regions ops/tenants
ops/images <-
ops/regions <-
ops/tenants <- ops/regions
ops/units <- ops/tenants
ops/workloads <- ops/regions ops/tenants
placement/attempts <- placement/dispatches
placement/avoided_monthly <- placement/settlements
placement/dispatches <- placement/plan
placement/plan <- carbon/outlook ops/regions ops/tenants placement/requests
placement/proof <- carbon/emission_factors carbon/intensity ops/regions
placement/requests <- ops/regions ops/tenants ops/workloads
placement/settlements <- carbon/intensity ops/regions placement/attempts placement/dispatches
recovery/gameday <- ops/gamedays
recovery/replica <- evidence/bundles lake/warehouse
recovery/steps <- ops/gamedays
report/carbon <- carbon/coverage_daily carbon/emissions_daily carbon/sci_daily placement/avoided_monthly report/scorecard
report/recovery <- ops/gamedays recovery/gameday recovery/replica recovery/steps
report/scorecard <- evidence/bundles lake/warehouse recovery/gameday slo/drill
slo/budget_calendar <- slo/definitions slo/minutes
slo/burn <- slo/definitions slo/minutes
slo/canary_chances <- slo/gates
slo/certificates <- slo/definitions slo/rules
slo/dashboard <- slo/definitions slo/rules
slo/days <- slo/definitions slo/metric_samples slo/metric_series
slo/definitions <-
slo/drill <- slo/gates
slo/drill_measurements <- slo/gates
slo/error_budget <- slo/definitions slo/minutes
slo/gates <- slo/definitions
slo/incidents <- slo/definitions slo/minutes
slo/metric_samples <- slo/definitions
slo/metric_series <- slo/definitions
slo/minutes <- slo/definitions slo/metric_samples slo/metric_series
slo/rollback_certificates <- slo/gates
slo/rules <- slo/definitions
slo/runbooks <- slo/definitions slo/gates slo/rules
supply_chain/admission <- ops/images
supply_chain/advisories <- ops/images
supply_chain/attestations <- supply_chain/sbom supply_chain/scans
supply_chain/components <- supply_chain/images
supply_chain/images <- ops/images
supply_chain/sbom <- supply_chain/images
supply_chain/scans <- supply_chain/sbom
supply_chain/standing <- supply_chain/sbom supply_chain/scans
supply_chain/verdicts <- ops/images supply_chain/advisories supply_chain/components supply_chain/images supply_chain/scans
supply_chain/vulnerabilities <- ops/images supply_chain/advisories supply_chain/components supply_chain/images supply_chain/scans
"""


def name(key: dg.AssetKey) -> str:
    return key.to_user_string()


def test_edges_are_as_declared() -> None:
    found = [f"{name(k)} <- {' '.join(sorted(map(name, GRAPH.get(k).parent_keys)))}".rstrip() for k in ASSETS]
    assert found == [line.rstrip() for line in EDGES.strip().splitlines()]


@pytest.mark.parametrize("key", ASSETS, ids=name)
def test_every_asset_says_what_it_is(key: dg.AssetKey) -> None:
    node = GRAPH.get(key)
    assert node.group_name == key.path[0]
    assert [owner for owner in node.owners if owner.startswith("team:")]
    assert len(node.description or "") > 30
    assert node.kinds
    assert node.code_version
    assert GRAPH.get_check_keys_for_assets({key})


def test_every_check_says_what_it_promises() -> None:
    silent = [k.to_user_string() for k in GRAPH.asset_check_keys if not GRAPH.get_check_spec(k).description]
    assert silent == []


def test_every_table_has_a_blocking_schema_check() -> None:
    files = {"evidence/scorecard", "slo/dashboard", "slo/runbooks"}
    tables = [k for k in ASSETS if k.path[0] not in {"lake", "report"} and name(k) not in files]
    for key in tables:
        assert GRAPH.get_check_spec(dg.AssetCheckKey(key, "schema")).blocking, name(key)


def test_what_fires_is_running_by_default_and_described() -> None:
    repository = defs.get_repository_def()
    schedules = {s.name: s for s in repository.schedule_defs}
    sensors = {s.name: s for s in repository.sensor_defs}
    assert set(schedules) == {
        "carbon_hourly",
        "cost_daily",
        "evidence_daily",
        "finops_report_monthly",
        "finops_report_weekly",
        "forecast_hourly",
        "forecast_scores_daily",
        "gameday_monthly",
        "images_nightly",
        "maintenance_daily",
        "placement_hourly",
        "placement_proof_weekly",
        "recovery_copy_half_hourly",
        "recovery_daily",
        "canary_weekly",
        "slo_counting",
        "slo_daily",
        "slo_hourly",
        "supply_chain_daily",
    }
    assert set(sensors) == {
        "assets_follow_inputs",
        "declarations_changed",
        "new_images",
        "orphaned_runs",
        "placement_due",
        "placement_new_work",
        "placement_recorded",
        "slo_burning",
    }
    assert {s.default_status for s in schedules.values()} == {dg.DefaultScheduleStatus.RUNNING}
    assert {s.default_status for s in sensors.values()} == {dg.DefaultSensorStatus.RUNNING}
    assert all(s.description for s in [*schedules.values(), *sensors.values()])
    assert {s.execution_timezone for s in schedules.values()} == {"UTC"}


def test_every_asset_is_reached_by_a_schedule_a_sensor_or_a_condition() -> None:
    repository = defs.get_repository_def()
    targeted: set[dg.AssetKey] = set()
    for job in repository.get_all_jobs():
        targeted |= job.asset_layer.executable_asset_keys if not job.name.startswith("__") else set()
    assert [name(k) for k in ASSETS if k not in targeted and GRAPH.get(k).automation_condition is None] == []
