"""Dashboards and runbooks, rendered into gitops/ and held against what is emitted, recorded and declared."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from greenops_pipelines.observability import dashboard as dashboards
from greenops_pipelines.observability import runbooks as pages
from greenops_pipelines.observability.subjects import Subjects
from greenops_pipelines.resources import Platform, permanent_faults, proven

_OWNERS = ["team:sre"]


def _rendered(
    name: str,
    owner: str,
    kind: str,
    deps: list[list[str]],
    description: str,
    render: Callable[[Subjects], dict[str, str]],
) -> dg.AssetsDefinition:
    @dg.asset(
        key=["slo", name],
        group_name="slo",
        owners=_OWNERS,
        kinds={kind},
        code_version="1",
        deps=deps,
        description=description,
    )
    def rendered(platform: Platform) -> dg.MaterializeResult[None]:
        from greenops_pipelines import gitops

        with permanent_faults():
            files = render(platform.observed())
            written = gitops.write(platform.settings().gitops, files, owner=owner)
        figures: dict[str, Any] = {
            "files": ", ".join(sorted(files)),
            "files changed": len(written.changed),
            "digest of the tree": written.digest,
        }
        return dg.MaterializeResult(metadata=figures, data_version=dg.DataVersion(written.digest))

    return rendered


dashboard = _rendered(
    "dashboard",
    "dashboards",
    "grafana",
    [["slo", "definitions"], ["slo", "rules"]],
    "Grafana dashboards of the SLOs: an overview with budgets, burn rates, compliance and latency, and one per service.",
    dashboards.files,
)
runbooks = _rendered(
    "runbooks",
    "runbooks",
    "markdown",
    [["slo", "definitions"], ["slo", "rules"], ["slo", "gates"]],
    "Runbooks of all alerts and of failed canaries, with the commands and queries of each service.",
    pages.files,
)


@dg.asset_check(
    asset=["slo", "dashboard"], description="Every feature that the dashboard has to have is there, and valid."
)
def features(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J1.5."""
    from greenops_pipelines.observability import checks

    subjects = platform.observed()
    measurement = checks.features(subjects, dashboards.files(subjects), pages.files(subjects))
    return proven(context, platform, measurement, "J1.5", ["slo_rules"], dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["slo", "runbooks"],
    description="Every alert has a runbook whose commands and queries parse and whose links resolve.",
)
def tested(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J1.6."""
    from greenops_pipelines.observability import checks

    subjects = platform.observed()
    with platform.lake().connect() as connection:
        measurement = checks.tested(subjects, pages.files(subjects), connection)
    return proven(context, platform, measurement, "J1.6", ["slo_rules"], dg.AssetCheckSeverity.ERROR)


ASSETS = [dashboard, runbooks]
CHECKS = [features, tested]
