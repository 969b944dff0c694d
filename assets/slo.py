"""SLOs: what is declared in ops/, the rules and alerts rendered from it, and what the alerts are certified to do."""

import dagster as dg

from assets.schemas import schema_check
from greenops_pipelines.lake.tables import SLO_CERTIFICATES, SLO_DEFINITIONS, SLO_RULES
from greenops_pipelines.resources import Platform, checked, permanent_faults, proven, table_metadata, written

_OWNERS = ["team:sre"]


@dg.asset(
    key=["slo", "definitions"],
    group_name="slo",
    owners=_OWNERS,
    kinds={"yaml", "parquet"},
    code_version="1",
    description=SLO_DEFINITIONS.comment + " Checked against the metrics catalogue; Sloth reads the same files.",
)
def definitions(platform: Platform) -> dg.MaterializeResult[None]:
    """Read, validate, write."""
    from greenops_pipelines.slo.rendering import definitions_table

    with permanent_faults():
        found = platform.slos()
    result = platform.lake().write(SLO_DEFINITIONS, definitions_table(found))
    figures = {
        "services": len(found.chosen),
        "SLOs": len(found.slos),
        "alert profiles": ", ".join(sorted(set(found.chosen.values()))),
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset(
    key=["slo", "rules"],
    group_name="slo",
    owners=_OWNERS,
    kinds={"prometheus", "parquet"},
    code_version="1",
    deps=[["slo", "definitions"]],
    description=SLO_RULES.comment + " Written to gitops/ as rule files, rule tests and Kubernetes objects.",
)
def rules(platform: Platform) -> dg.MaterializeResult[None]:
    """Compile and render the tree of files."""
    from greenops_pipelines import gitops
    from greenops_pipelines.slo.rendering import ALERTS, files, rules_table

    with permanent_faults():
        found = platform.slos()
        rendered = gitops.write(platform.settings().gitops, files(found), owner="slo")
    result = platform.lake().write(SLO_RULES, rules_table(found))
    figures = {
        "alerts": sum(len(group.rules) for group in found.alerts),
        "recording rules": sum(len(group.rules) for group in found.recordings),
        "files rendered": rendered.files,
        "files changed": len(rendered.changed),
        "alert rules": dg.MetadataValue.text(ALERTS),
        "digest of the tree": rendered.digest,
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset(
    key=["slo", "certificates"],
    group_name="slo",
    owners=_OWNERS,
    kinds={"parquet"},
    code_version="1",
    deps=[["slo", "definitions"], ["slo", "rules"]],
    description=SLO_CERTIFICATES.comment,
)
def certificates(platform: Platform) -> dg.MaterializeResult[None]:
    """Compute them in closed form, for every profile."""
    from greenops_pipelines.slo.certificates import table

    with permanent_faults():
        rows = table(platform.slos().certificates)
    result = platform.lake().write(SLO_CERTIFICATES, rows)
    names = ["slo_id", "severity", "error_percent", "detection_seconds", "reset_seconds", "budget_spent_percent"]
    outages = [row for row in rows.to_pylist() if row["is_chosen"] and row["error_percent"] == 100]
    figures = {
        "certificates": rows.num_rows,
        "slowest detection of an outage, seconds": max((r["detection_seconds"] or 0 for r in outages), default=0),
        "chosen profiles at a complete outage": table_metadata(type(rows).from_pylist(outages).select(names)),
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset_check(asset=["slo", "definitions"], description="Five services have valid SLOs, on metrics of the catalogue.")
def services(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J1.1."""
    from greenops_pipelines.slo import checks

    measurement = checks.services(platform.slos())
    return proven(context, platform, measurement, "J1.1", ["slo_definitions"], dg.AssetCheckSeverity.ERROR)


@dg.asset_check(asset=["slo", "definitions"], description="The expected number of active series is within its budget.")
def series_budget(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """More series than planned is a bill and a slow Prometheus, before it is anything else."""
    return checked(context, platform, platform.slos().series())


@dg.asset_check(
    asset=["slo", "rules"], description="24 alerts, each with severity, team, texts, dashboard and runbook."
)
def alerts(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J1.3."""
    from greenops_pipelines.slo import checks

    measurement = checks.alerts(platform.slos())
    return proven(context, platform, measurement, "J1.3", ["slo_rules"], dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["slo", "certificates"],
    description="A simulation confirms every certificate, and Prometheus' own rule tests the alerts that are rendered.",
)
def confirmed(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J1.2."""
    from greenops_pipelines.slo import checks
    from greenops_pipelines.slo.rendering import files

    found = platform.slos()
    measurement = checks.confirmed(found.certificates, files(found), platform.settings().gitops)
    return proven(context, platform, measurement, "J1.2", ["slo_certificates"], dg.AssetCheckSeverity.ERROR)


ASSETS = [definitions, rules, certificates]
CHECKS = [
    schema_check("slo/definitions", SLO_DEFINITIONS),
    schema_check("slo/rules", SLO_RULES),
    schema_check("slo/certificates", SLO_CERTIFICATES),
    services,
    series_budget,
    alerts,
    confirmed,
]
