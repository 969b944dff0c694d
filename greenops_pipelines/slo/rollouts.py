"""`ops/canary.yaml` -> the files under `k8s/rollouts/`: Rollout, AnalysisTemplates, Services, Istio.

Same declarations, same bytes. The Rollout takes its pods from the service's Deployment (`workloadRef`), whose pod
specification is its team's. Requests are split between the subsets of one host, not between two hosts: callers in the
mesh keep the name they have. A DestinationRule that the team has for that host has to be merged into this one: of two,
Istio takes one's traffic policy. The Services `-stable` and `-canary` split nothing; they are how a person asks one version.

Two analyses watch. The one in the background measures from the first pause until the end of all steps, and alone keeps
the promise of a rollback in time: a check after a pause of ten minutes would find a breach ten minutes late. The check
decides whether the next step is taken.

The stable pods are never scaled down before the end (`dynamicStableScale` is left off): an abort is a change of
weights, and waits for no pod (without a router it waits for pods). Not here: the metrics (`gates.py`), and where the files go (`gitops.py`).

Sources: Argo Rollouts, docs/features/canary.md, analysis.md and traffic-management/istio.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.slo import durations, gates
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.canary_model import VARIANTS, Variant
from greenops_pipelines.slo.gates import Kind
from greenops_pipelines.slo.istio import MESH, Destination, DestinationRule, Route, Subset, VirtualService

FOLDER = "k8s/rollouts"
API = "argoproj.io/v1alpha1"
KINDS: tuple[Kind, ...] = ("background", "check")
STABLE, CANARY = "stable", "canary"
ROUTE = "primary"
ABORT_SCALE_DOWN_SECONDS = 300
"""The pods of a canary that was taken back stay so long, without requests: somebody will want to look at them."""
PROGRESS_DEADLINE_SECONDS = 600
"""A canary whose pods do not become ready is taken back as well; pauses do not count. The controller's default."""
_LABELS = {"app.kubernetes.io/component": "canary", "app.kubernetes.io/managed-by": "greenops-pipelines"}
_HEADER = "# Rendered by greenops from ops/canary.yaml and ops/metrics.yaml. Change those, not this.\n\n"


def files(canaries: Canaries) -> dict[str, str]:
    """Path to text. Raises `ConfigurationError` where a gate asks for what the metrics catalogue does not have."""
    if found := gates.faults(canaries):
        raise ConfigurationError("\n".join(found))
    made: dict[str, str] = {}
    for service in canaries.services:
        folder = f"{FOLDER}/{service}"
        made[f"{folder}/rollout.yaml"] = _text([rollout(canaries, service)])
        made[f"{folder}/analysis-templates.yaml"] = _text(analysis_templates(canaries, service))
        made[f"{folder}/services.yaml"] = _text(_services(canaries, service))
        if canaries.router == "istio":
            made[f"{folder}/istio.yaml"] = _text(_istio(canaries, service))
    return made


def lasts_seconds(canaries: Canaries) -> float:
    """Pauses and checks of a version that is promoted; the time in which its pods become ready comes on top."""
    pauses = sum(durations.parse(step.pause).total_seconds() for step in canaries.steps)
    return pauses + len(canaries.steps) * (canaries.analysis.checks - 1) * canaries.interval_s


def template_name(service: str, variant: Variant, kind: Kind) -> str:
    """Of the AnalysisTemplate."""
    name = f"{service}-canary" + ("-consecutive" if variant == "consecutive" else "")
    return name + ("-check" if kind == "check" else "")


def rollout(canaries: Canaries, service: str, variant: Variant | None = None) -> dict[str, Any]:
    """The Rollout, whose analyses are of the declared variant, or of another."""
    entry = canaries.services[service]
    chosen = variant or entry.variant
    steps: list[dict[str, Any]] = []
    for step in canaries.steps:
        steps.append({"setWeight": step.weight})
        steps.append({"pause": {"duration": step.pause}})
        steps.append({"analysis": _analysis(service, chosen, "check")})
    # A step of its own, so that the background analysis watches while the last pods come.
    steps.append({"setWeight": 100})
    first_pause = next(index for index, step in enumerate(steps) if "pause" in step)
    canary: dict[str, Any] = {"stableService": f"{service}-{STABLE}", "canaryService": f"{service}-{CANARY}"}
    if canaries.router == "istio":
        canary["trafficRouting"] = {
            "istio": {
                "virtualService": {"name": service, "routes": [ROUTE]},
                "destinationRule": {"name": service, "stableSubsetName": STABLE, "canarySubsetName": CANARY},
            }
        }
        canary["abortScaleDownDelaySeconds"] = ABORT_SCALE_DOWN_SECONDS
    # Before the first pause no request reaches the canary, and there would be nothing to measure.
    canary["analysis"] = _analysis(service, chosen, "background") | {"startingStep": first_pause}
    canary["steps"] = steps
    spec = {
        "replicas": entry.replicas,
        "selector": {"matchLabels": _pods(canaries, service)},
        # The Deployment serves until the Rollout does.
        "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": service, "scaleDown": "onsuccess"},
        "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
        "progressDeadlineAbort": True,
        "strategy": {"canary": canary},
    }
    return _object(canaries, API, "Rollout", service, spec)


def analysis_templates(canaries: Canaries, service: str) -> list[dict[str, Any]]:
    """Both variants, in the background and as a check; the Rollout refers to two of the four."""
    return [
        _object(
            canaries,
            API,
            "AnalysisTemplate",
            template_name(service, variant, kind),
            {
                "args": [{"name": gates.ARGUMENT}],
                "metrics": gates.metrics(canaries, service, variant, kind),
            },
        )
        for variant in VARIANTS
        for kind in KINDS
    ]


def _analysis(service: str, variant: Variant, kind: Kind) -> dict[str, Any]:
    return {
        "templates": [{"templateName": template_name(service, variant, kind)}],
        "args": [{"name": gates.ARGUMENT, "valueFrom": {"podTemplateHashValue": "Latest"}}],
    }


def _services(canaries: Canaries, service: str) -> list[dict[str, Any]]:
    """The controller adds the hash of each version's pods to the selectors."""
    port = {"name": "http", "port": canaries.port(service), "targetPort": canaries.port(service)}
    return [
        _object(
            canaries, "v1", "Service", f"{service}-{version}", {"selector": _pods(canaries, service), "ports": [port]}
        )
        for version in (STABLE, CANARY)
    ]


def _istio(canaries: Canaries, service: str) -> list[dict[str, Any]]:
    """The controller changes the weights, and adds the hash of each version's pods to the subsets' labels."""
    host, port, ingress = canaries.host(service), canaries.port(service), canaries.services[service].ingress
    route = Route(
        ROUTE, ((Destination(host, STABLE, port), 100), (Destination(host, CANARY, port), 0)), canaries.routing.timeout
    )
    virtual_service = VirtualService(
        service,
        canaries.namespace,
        (host, ingress.host) if ingress else (host,),
        (route,),
        # A VirtualService that names no gateway is for sidecars alone; one that names any has to name them too.
        (MESH, ingress.gateway) if ingress else (),
    )
    subsets = tuple(Subset(name, _pods(canaries, service)) for name in (STABLE, CANARY))
    rule = DestinationRule(service, canaries.namespace, host, subsets)
    return [virtual_service.document(_LABELS), rule.document(_LABELS)]


def _pods(canaries: Canaries, service: str) -> dict[str, str]:
    return {canaries.routing.pod_label: service}


def _object(canaries: Canaries, api: str, kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": canaries.namespace, "labels": dict(_LABELS)}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": dict(spec)}


class _Dumper(yaml.SafeDumper):
    """Queries as blocks that a person can read; no anchors, which `kubectl diff` would not show as they were."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _string)


def _text(documents: Sequence[Mapping[str, Any]]) -> str:
    return _HEADER + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
