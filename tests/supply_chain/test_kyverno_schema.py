"""Rendered policies against Kyverno's own CRDs, and what a misspelt field comes to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.evidence.signing import PublicKey
from greenops_pipelines.supply_chain import kyverno_schema
from greenops_pipelines.supply_chain.admission import LEGACY_POLICY, POLICY, Builder, Rules, render

CRDS = Path(__file__).parents[3] / "shared" / "crds" / "kyverno"
FILES = {POLICY: "policies.kyverno.io_imagevalidatingpolicies.yaml", LEGACY_POLICY: "kyverno.io_clusterpolicies.yaml"}
needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason="Kyverno's CRDs are not at ../shared/crds/kyverno")

KEYS = [PublicKey(ec.derive_private_key(n, ec.SECP256R1()).public_key()).pem.decode() for n in (11, 12, 13)]
RULES = Rules(
    "images-are-vouched-for",
    ("registry.example.com/*",),
    (Builder("https://ci.example/v1"), Builder("https://tekton.example/v2", KEYS[2])),
    former_keys=(KEYS[1],),
    excluded_namespaces=("kyverno",),
    mode="Deny",
)


@cache
def crd(path: str) -> Mapping[str, Any]:
    return kyverno_schema.read_crd(CRDS / FILES[path])


def document(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render(RULES, KEYS[0])[path])
    return found


@needs_crds
@pytest.mark.parametrize("path", FILES)
def test_rendered_policies_fit_kyvernos_own_definition_with_unknown_fields_refused(path: str) -> None:
    assert kyverno_schema.validate(document(path), crd(path)) == []
    assert kyverno_schema.unevaluated(document(path), crd(path)) == []


def _misspell(change: Callable[[dict[str, Any]], object]) -> list[str]:
    wrong = copy.deepcopy(document(POLICY))
    change(wrong)
    return kyverno_schema.validate(wrong, crd(POLICY))


@needs_crds
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda d: d["spec"]["validations"][0].update(mesage="x"),
            "spec.validations[0].mesage: found an unknown field, allowed: expression, message, messageExpression, reason",
        ),
        (
            lambda d: d["spec"]["attestors"][0]["cosign"]["key"].update(pem="x"),
            "spec.attestors[0].cosign.key.pem: found an unknown field, allowed: data, expression, hashAlgorithm, kms",
        ),
        (lambda d: d["spec"].update(failurePolicy="fail"), "spec.failurePolicy: found 'fail', allowed: Ignore, Fail"),
        (
            lambda d: d["spec"]["webhookConfiguration"].update(timeoutSeconds="30"),
            "spec.webhookConfiguration.timeoutSeconds: found '30', allowed: integer",
        ),
        (
            lambda d: d["spec"]["attestations"][0]["intoto"].pop("type"),
            "spec.attestations[0].intoto.type: found nothing, and it is required",
        ),
        (lambda d: d.update(kind="ValidatingPolicy"), "kind: found 'ValidatingPolicy', allowed: ImageValidatingPolicy"),
        (
            lambda d: d.update(extra=1),
            "extra: found an unknown field, allowed: apiVersion, kind, metadata, spec, status",
        ),
        (lambda d: d.pop("spec"), "spec: found nothing, and it is required"),
        (lambda d: d["metadata"].pop("name"), "metadata.name: found nothing, and it is required"),
        (lambda d: d["metadata"]["annotations"].update(a=1), "metadata.annotations.a: found 1, allowed: string"),
    ],
)
def test_a_field_that_kyverno_would_drop_in_silence_is_a_fault(
    change: Callable[[dict[str, Any]], object], said: str
) -> None:
    assert _misspell(change) == [said]


@needs_crds
def test_the_version_must_be_one_that_is_served() -> None:
    (fault,) = _misspell(lambda d: d.update(apiVersion="policies.kyverno.io/v2"))
    assert fault.startswith("apiVersion: found 'policies.kyverno.io/v2', allowed: policies.kyverno.io/v1, ")


@needs_crds
def test_an_attestor_is_of_one_kind_and_a_metadata_field_is_known() -> None:
    (fault,) = _misspell(lambda d: d["spec"]["attestors"][0].update(notary={}))
    assert fault.startswith("spec.attestors[0]: found {")
    assert "exactly one of [['cosign'], ['notary']]" in fault
    (fault,) = _misspell(lambda d: d["metadata"].update(lables={}))
    assert fault.startswith("metadata.lables: found an unknown field, allowed: annotations, ")


SMALL = {
    "kind": "CustomResourceDefinition",
    "spec": {
        "group": "example.com",
        "names": {"kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "apiVersion": {"type": "string"},
                            "kind": {"type": "string"},
                            "metadata": {"type": "object"},
                            "spec": {
                                "type": "object",
                                "x-kubernetes-validations": [
                                    {"rule": "self.low <= self.high", "message": "low is at most high"},
                                    {"rule": "self == oldSelf"},
                                    {"rule": "isURL(self.where)"},
                                ],
                                "properties": {
                                    "low": {"type": "integer"},
                                    "high": {"type": "integer"},
                                    "port": {
                                        "x-kubernetes-int-or-string": True,
                                        "anyOf": [{"type": "integer"}, {"type": "string"}],
                                    },
                                    "maybe": {"type": "string", "nullable": True, "enum": ["a"]},
                                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                    "named": {"type": "object", "additionalProperties": {"type": "string"}},
                                    "closed": {"type": "object"},
                                },
                            },
                        },
                    }
                },
            },
            {"name": "v0", "served": False, "schema": {"openAPIV3Schema": {}}},
        ],
    },
}


def thing(**spec: Any) -> dict[str, Any]:
    limits = {"low": 1, "high": 2}
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {**limits, **spec}}


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        ({"port": 1}, []),
        ({"port": "http"}, []),
        ({"port": 1.5}, ["spec.port: found 1.5, allowed: integer or string"]),
        ({"maybe": None}, []),
        ({"maybe": "b"}, ["spec.maybe: found 'b', allowed: a"]),
        ({"low": None}, ["spec.low: found None, allowed: integer"]),
        ({"free": {"x": {"y": 1}}}, []),
        ({"named": {"x": "y"}}, []),
        ({"named": {"x": 1}}, ["spec.named.x: found 1, allowed: string"]),
        ({"closed": {"x": 1}}, ["spec.closed.x: found an unknown field, allowed: none"]),
    ],
)
def test_kubernetes_own_words_in_a_schema_are_honoured(spec: dict[str, Any], faults: list[str]) -> None:
    assert kyverno_schema.validate(thing(**spec), SMALL) == faults


def test_the_definitions_own_rules_are_evaluated_and_those_that_cannot_be_are_listed() -> None:
    assert kyverno_schema.validate(thing(low=3), SMALL) == [
        "spec: found {'low': 3, 'high': 2}, allowed: low is at most high"
    ]
    assert [each.partition(": ")[2].split(":")[0] for each in kyverno_schema.unevaluated(thing(), SMALL)] == [
        "self == oldSelf",
        "isURL(self.where)",
    ]
    assert kyverno_schema.validate(thing() | {"apiVersion": "example.com/v0"}, SMALL) == [
        "apiVersion: found 'example.com/v0', allowed: example.com/v1"
    ]


def test_a_file_that_defines_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "crd.yaml").write_text("kind: Pod\n")
    with pytest.raises(ConfigurationError, match="found no CustomResourceDefinition"):
        kyverno_schema.read_crd(tmp_path / "crd.yaml")
    with pytest.raises(ConfigurationError, match="No such file"):
        kyverno_schema.read_crd(tmp_path / "none.yaml")
