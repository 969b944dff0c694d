"""What is rendered for canaries: valid for Argo Rollouts' CRDs, complete, and the same bytes twice."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from greenops_pipelines import gitops
from greenops_pipelines.errors import BadInput, ConfigurationError
from greenops_pipelines.slo import rollouts
from greenops_pipelines.slo.canary import Canaries, read_canary
from greenops_pipelines.slo.istio import Destination, DestinationRule, Route, Subset
from greenops_pipelines.slo.rendering import read
from tests.slo.conftest import SHARED
from tests.slo.test_rendering import strict

OPS = Path(__file__).parents[2] / "ops"
SERVICES = ("api-gateway", "reporting", "q2q-ai", "cockpit", "impact-in")


def declared() -> Canaries:
    slos = read(OPS)
    return read_canary(OPS, slos.declared, slos.slos, slos.catalogue)


@pytest.fixture(scope="module")
def canaries() -> Canaries:
    return declared()


@pytest.fixture(scope="module")
def files(canaries: Canaries) -> dict[str, str]:
    return rollouts.files(canaries)


def objects(files: dict[str, str], service: str, file: str) -> list[dict[str, Any]]:
    return list(yaml.load_all(files[f"k8s/rollouts/{service}/{file}.yaml"], Loader=yaml.CSafeLoader))


def without_router(canaries: Canaries) -> Canaries:
    services = {name: entry.model_copy(update={"replicas": 20}) for name, entry in canaries.services.items()}
    return replace(canaries, router="none", services=services)


@lru_cache(maxsize=2)
def validator(name: str) -> Draft202012Validator:
    path = SHARED / "crds" / "argo-rollouts" / f"{name}-crd.yaml"
    if not path.is_file():
        pytest.skip("missing: shared/crds, other projects' definitions beside the repository")
    crd = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    schema = strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return Draft202012Validator(schema)


def faults(name: str, document: dict[str, Any]) -> list[str]:
    return [
        f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in validator(name).iter_errors(document)
    ]


def test_a_service_has_four_files(files: dict[str, str], tmp_path: Path) -> None:
    names = ("rollout", "analysis-templates", "services", "istio")
    assert list(files) == [f"k8s/rollouts/{service}/{name}.yaml" for service in SERVICES for name in names]
    assert all(text.startswith("# Rendered by greenops from ops/canary.yaml") for text in files.values())
    assert gitops.write(tmp_path, files, "canary").files == 20


def test_two_renders_are_the_same_bytes(files: dict[str, str]) -> None:
    assert list(rollouts.files(declared()).items()) == list(files.items())


@pytest.mark.parametrize("service", SERVICES)
def test_rollouts_and_templates_fit_argos_crds(service: str, canaries: Canaries, files: dict[str, str]) -> None:
    [rollout] = objects(files, service, "rollout")
    assert faults("rollout", rollout) == []
    assert faults("rollout", rollouts.rollout(without_router(canaries), service)) == []
    templates = objects(files, service, "analysis-templates")
    assert [template["metadata"]["name"] for template in templates] == [
        f"{service}-canary{variant}{kind}" for variant in ("", "-consecutive") for kind in ("", "-check")
    ]
    for template in templates:
        assert faults("analysis-template", template) == []
        assert len(template["spec"]["metrics"]) == len(canaries.services[service].gates)


def test_what_the_crds_do_not_know_is_refused(files: dict[str, str]) -> None:
    """The checks above can fail."""
    [rollout] = objects(files, "cockpit", "rollout")
    rollout["spec"]["strategy"]["canary"]["steps"][0]["weigth"] = 1
    assert len(faults("rollout", rollout)) == 1
    [template, *_] = objects(files, "cockpit", "analysis-templates")
    template["spec"]["metrics"][0]["provider"]["prometheus"]["range"] = {}
    assert len(faults("analysis-template", template)) == 1


def test_the_steps_are_those_of_the_requirements(files: dict[str, str]) -> None:
    canary = objects(files, "api-gateway", "rollout")[0]["spec"]["strategy"]["canary"]
    said = []
    for step in canary["steps"]:
        [(kind, value)] = step.items()
        said.append(
            {
                "setWeight": lambda v: f"{v} %",
                "pause": lambda v: v["duration"],
                "analysis": lambda v: v["templates"][0]["templateName"],
            }[kind](value)
        )
    check = "api-gateway-canary-check"
    assert said == ["5 %", "2m", check, "25 %", "5m", check, "50 %", "10m", check, "100 %"]
    # From the first pause to the end, by a template without a count.
    assert canary["analysis"]["startingStep"] == 1
    assert canary["analysis"]["templates"] == [{"templateName": "api-gateway-canary"}]
    [background] = [
        t for t in objects(files, "api-gateway", "analysis-templates") if t["metadata"]["name"] == "api-gateway-canary"
    ]
    assert all("count" not in metric for metric in background["spec"]["metrics"])


def test_every_template_that_is_referred_to_is_there_and_gets_its_arguments(files: dict[str, str]) -> None:
    for service in SERVICES:
        canary = objects(files, service, "rollout")[0]["spec"]["strategy"]["canary"]
        there = {t["metadata"]["name"]: t["spec"]["args"] for t in objects(files, service, "analysis-templates")}
        for run in [canary["analysis"], *(step["analysis"] for step in canary["steps"] if "analysis" in step)]:
            [template] = run["templates"]
            assert [a["name"] for a in run["args"]] == [a["name"] for a in there[template["templateName"]]]
            assert run["args"][0]["valueFrom"] == {"podTemplateHashValue": "Latest"}


def test_the_chosen_variant_is_the_one_that_is_referred_to(canaries: Canaries) -> None:
    chosen = canaries.services["q2q-ai"].model_copy(update={"variant": "consecutive"})
    changed = replace(canaries, services={**canaries.services, "q2q-ai": chosen})
    for made in (rollouts.rollout(changed, "q2q-ai"), rollouts.rollout(canaries, "q2q-ai", "consecutive")):
        canary = made["spec"]["strategy"]["canary"]
        assert canary["analysis"]["templates"] == [{"templateName": "q2q-ai-canary-consecutive"}]
        assert canary["steps"][2]["analysis"]["templates"] == [{"templateName": "q2q-ai-canary-consecutive-check"}]


def test_istio_splits_between_the_subsets_that_the_rollout_names(files: dict[str, str]) -> None:
    for service in SERVICES:
        [rollout] = objects(files, service, "rollout")
        istio = rollout["spec"]["strategy"]["canary"]["trafficRouting"]["istio"]
        virtual_service, rule = objects(files, service, "istio")
        assert (virtual_service["kind"], rule["kind"]) == ("VirtualService", "DestinationRule")
        assert {each["apiVersion"] for each in (virtual_service, rule)} == {"networking.istio.io/v1"}
        assert istio["virtualService"]["name"] == virtual_service["metadata"]["name"]
        assert istio["destinationRule"]["name"] == rule["metadata"]["name"]
        [route] = virtual_service["spec"]["http"]
        assert istio["virtualService"]["routes"] == [route["name"]]
        assert route["timeout"] == "15s"
        weights = {each["destination"]["subset"]: each["weight"] for each in route["route"]}
        assert weights == {
            istio["destinationRule"]["stableSubsetName"]: 100,
            istio["destinationRule"]["canarySubsetName"]: 0,
        }
        host = f"{service}.production.svc.cluster.local"
        assert {each["destination"]["host"] for each in route["route"]} == {host} == {rule["spec"]["host"]}
        assert {subset["name"] for subset in rule["spec"]["subsets"]} == set(weights)


def test_what_is_reached_from_outside_is_weighted_there_as_well(files: dict[str, str]) -> None:
    outside = objects(files, "api-gateway", "istio")[0]["spec"]
    assert outside["gateways"] == ["mesh", "istio-ingress/public"]
    assert outside["hosts"] == ["api-gateway.production.svc.cluster.local", "api.example"]
    assert "gateways" not in objects(files, "reporting", "istio")[0]["spec"]


def test_the_services_select_the_rollouts_pods(files: dict[str, str]) -> None:
    for service in SERVICES:
        spec = objects(files, service, "rollout")[0]["spec"]
        found = objects(files, service, "services")
        canary = spec["strategy"]["canary"]
        assert [each["metadata"]["name"] for each in found] == [canary["stableService"], canary["canaryService"]]
        assert all(each["spec"]["selector"] == spec["selector"]["matchLabels"] for each in found)
        assert spec["workloadRef"] == {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": service,
            "scaleDown": "onsuccess",
        }
        # Argo refuses a template beside it.
        assert "template" not in spec


def test_without_a_router_there_is_no_istio_and_no_traffic_routing(canaries: Canaries) -> None:
    found = rollouts.files(without_router(canaries))
    assert not [path for path in found if path.endswith("istio.yaml")]
    canary = objects(found, "reporting", "rollout")[0]["spec"]["strategy"]["canary"]
    # The controller ignores the delay without traffic routing.
    assert not {"trafficRouting", "abortScaleDownDelaySeconds"} & set(canary)


def test_a_rollout_lasts_its_pauses_and_checks(canaries: Canaries) -> None:
    # 17 minutes, and three checks of three measurements that are 15 s apart.
    assert rollouts.lasts_seconds(canaries) == 17 * 60 + 3 * 30


def test_a_query_beside_the_catalogue_is_not_rendered(canaries: Canaries) -> None:
    kept = tuple(metric for metric in canaries.catalogue.metrics if metric.name != "web_vitals_cls_score")
    changed = replace(canaries, catalogue=replace(canaries.catalogue, metrics=kept))
    with pytest.raises(ConfigurationError, match="cockpit, gate cls: found the metric 'web_vitals_cls_score_bucket'"):
        rollouts.files(changed)


def test_a_route_and_a_rule_are_complete() -> None:
    stable, canary = Destination("shop", "stable", 80), Destination("shop", "canary", 80)
    with pytest.raises(BadInput, match=r"found the weights \[95, 4\], allowed: none below 0, 100 together"):
        Route("primary", ((stable, 95), (canary, 4)), "15s")
    with pytest.raises(BadInput, match="found the subsets"):
        DestinationRule("shop", "shop", "shop", (Subset("stable", {"app": "shop"}), Subset("stable", {"app": "shop"})))
