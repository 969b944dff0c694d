"""Dashboards and runbooks, rendered into gitops/ and held against what is emitted, recorded and declared."""

from typing import Any

import dagster as dg

from greenops_pipelines.resources import Platform, permanent_faults, proven

_OWNERS = ["team:sre"]


@dg.asset(
    key=["slo", "dashboard"],
    group_name="slo",
    owners=_OWNERS,
    kinds={"grafana"},
    code_version="1",
    deps=[["slo", "definitions"], ["slo", "rules"]],
    description=(
        "Grafana dashboards of the SLOs: an overview with budgets, burn rates, compliance and latency, and one per service."
    ),
)
def dashboard(platform: Platform) -> dg.MaterializeResult[None]:
    """Render them."""
    from greenops_pipelines import gitops
    from greenops_pipelines.observability import dashboard as library

    with permanent_faults():
        files = library.files(platform.observed())
        written = gitops.write(platform.settings().gitops, files, owner="dashboards")
    figures: dict[str, Any] = {
        "dashboards": ", ".join(sorted(files)),
        "files changed": len(written.changed),
        "digest of the tree": written.digest,
    }
    return dg.MaterializeResult(metadata=figures, data_version=dg.DataVersion(written.digest))


@dg.asset(
    key=["slo", "runbooks"],
    group_name="slo",
    owners=_OWNERS,
    kinds={"markdown"},
    code_version="1",
    deps=[["slo", "definitions"], ["slo", "rules"], ["slo", "gates"]],
    description="Runbooks of all alerts and of failed canaries, with the commands and queries of each service.",
)
def runbooks(platform: Platform) -> dg.MaterializeResult[None]:
    """Render them."""
    from greenops_pipelines import gitops
    from greenops_pipelines.observability import runbooks as library

    with permanent_faults():
        files = library.files(platform.observed())
        written = gitops.write(platform.settings().gitops, files, owner="runbooks")
    figures: dict[str, Any] = {
        "pages": ", ".join(sorted(files)),
        "files changed": len(written.changed),
        "digest of the tree": written.digest,
    }
    return dg.MaterializeResult(metadata=figures, data_version=dg.DataVersion(written.digest))


@dg.asset_check(
    asset=["slo", "dashboard"], description="Every feature that the dashboard has to have is there, and valid."
)
def features(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J1.5."""
    from greenops_pipelines.observability import checks

    measurement = checks.features(platform.observed())
    return proven(context, platform, measurement, "J1.5", ["slo_rules"], dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["slo", "runbooks"],
    description="Every alert has a runbook whose commands and queries parse and whose links resolve.",
)
def tested(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J1.6."""
    from greenops_pipelines.observability import checks

    with platform.lake().connect() as connection:
        measurement = checks.tested(platform.observed(), connection)
    return proven(context, platform, measurement, "J1.6", ["slo_rules"], dg.AssetCheckSeverity.ERROR)


ASSETS = [dashboard, runbooks]
CHECKS = [features, tested]
