"""A document held against the CRD that defines it, with every field refused that the CRD does not know.

The API server prunes such fields in silence, and a policy with a misspelt one says less than it seems to. The CRDs are the
operator's. Not here: Kyverno's own semantics (`cel_policy.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from greenops_pipelines.errors import ConfigurationError

MAX_SHOWN = 80
_LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
_QUALIFIED = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_SUBDOMAIN = {
    "type": "string",
    "maxLength": 253,
    "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
}
_TEXT = {"type": "string"}
_METADATA: Mapping[str, Any] = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": _SUBDOMAIN,
        "namespace": {"type": "string", "maxLength": 63, "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        "labels": {
            "type": "object",
            "propertyNames": {"pattern": _QUALIFIED},
            "additionalProperties": {"type": "string", "maxLength": 63, "pattern": _LABEL_VALUE},
        },
        "annotations": {"type": "object", "propertyNames": {"pattern": _QUALIFIED}, "additionalProperties": _TEXT},
        "finalizers": {"type": "array", "items": _TEXT},
        "ownerReferences": {"type": "array", "items": {"type": "object"}},
        "managedFields": {"type": "array", "items": {"type": "object"}},
        **dict.fromkeys(("generateName", "uid", "resourceVersion", "selfLink"), _TEXT),
        **{each: {"type": ["string", "null"]} for each in ("creationTimestamp", "deletionTimestamp")},
        **{each: {"type": "integer"} for each in ("generation", "deletionGracePeriodSeconds")},
    },
}
"""ObjectMeta of Kubernetes 1.37, which a CRD leaves to the API server."""


@dataclass(frozen=True)
class _Rule:
    """One of the CRD's CEL rules at one place of the document: its fault, or why it was not evaluated; both empty if it holds."""

    path: str
    fault: str = ""
    unevaluated: str = ""


def read_crd(path: Path) -> Mapping[str, Any]:
    """The CRD in a YAML file; `ConfigurationError` where there is none."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 1.4 MB: 1.1 s without libyaml, 0.14 s with it
    try:
        crd = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506 - both are safe loaders
    except OSError as error:
        raise ConfigurationError(f"CRD {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"CRD {path}: {error}") from None
    if not isinstance(crd, dict) or crd.get("kind") != "CustomResourceDefinition":
        raise ConfigurationError(f"CRD {path}: found no CustomResourceDefinition")
    return crd


def validate(document: Mapping[str, Any], crd: Mapping[str, Any]) -> list[str]:
    """What is wrong with the document, one line each: `spec.validations[0].mesage: found an unknown field, allowed: ...`.

    The CRD's own CEL rules count too; those that cannot be evaluated here are listed by `unevaluated`.
    """
    from jsonschema import Draft202012Validator

    schema, fault = _schema(document, crd)
    if fault:
        return [fault]
    errors = Draft202012Validator(_strict(schema) | {"required": ["metadata", "spec"]}).iter_errors(document)
    faults = [line for error in errors for line in _lines(error)]
    faults += [f"{rule.path}: {rule.fault}" for rule in _rules(document, schema, "") if rule.fault]
    return sorted(dict.fromkeys(faults))


def unevaluated(document: Mapping[str, Any], crd: Mapping[str, Any]) -> list[str]:
    """The CRD's CEL rules about this document that `validate` passes over, and why."""
    schema, fault = _schema(document, crd)
    return (
        []
        if fault
        else [f"{rule.path}: {rule.unevaluated}" for rule in _rules(document, schema, "") if rule.unevaluated]
    )


def _schema(document: Mapping[str, Any], crd: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    spec = crd["spec"]
    kind, versions = spec["names"]["kind"], {each["name"]: each for each in spec["versions"] if each.get("served")}
    if document.get("kind") != kind:
        return {}, f"kind: found {_shown(document.get('kind'))}, allowed: {kind}"
    group, _, version = str(document.get("apiVersion")).rpartition("/")
    if group != spec["group"] or version not in versions:
        allowed = ", ".join(f"{spec['group']}/{each}" for each in versions)
        return {}, f"apiVersion: found {_shown(document.get('apiVersion'))}, allowed: {allowed}"
    return versions[version]["schema"]["openAPIV3Schema"], ""


def _strict(schema: Mapping[str, Any], *, top: bool = True) -> dict[str, Any]:
    """As JSON Schema, unknown fields refused wherever the API server would prune them."""
    strict = {
        key: value
        for key, value in schema.items()
        if not key.startswith("x-") and key not in ("description", "default", "example", "nullable", "properties")
    }
    if isinstance(schema.get("items"), dict):
        strict["items"] = _strict(schema["items"], top=False)
    keeps = schema.get("x-kubernetes-preserve-unknown-fields") is True
    if isinstance(schema.get("additionalProperties"), dict):
        strict["additionalProperties"] = _strict(schema["additionalProperties"], top=False)
    elif schema.get("type") == "object" and not keeps and "additionalProperties" not in schema:
        strict["additionalProperties"] = False
    if properties := schema.get("properties"):
        strict["properties"] = {name: _strict(each, top=False) for name, each in properties.items()}
        if top:
            strict["properties"]["metadata"] = _METADATA
    if schema.get("x-kubernetes-int-or-string"):
        strict["type"] = ["integer", "string"]
        strict.pop("anyOf", None)
    if schema.get("nullable") and "type" in strict:
        # An enumeration would refuse the null that the type allows.
        return {"anyOf": [{"type": "null"}, strict]}
    return strict


def _lines(error: Any) -> Iterator[str]:
    path = _path(error.absolute_path)
    known = ", ".join(sorted(error.schema.get("properties", {}))) or "none" if isinstance(error.schema, dict) else ""
    match error.validator:
        case "additionalProperties" if isinstance(error.instance, dict):
            for field in sorted(map(str, set(error.instance) - set(error.schema.get("properties", {})))):
                yield f"{_joined(path, field)}: found an unknown field, allowed: {known}"
        case "required":
            for field in error.validator_value:
                if field not in error.instance:
                    yield f"{_joined(path, field)}: found nothing, and it is required"
        case "type":
            allowed = error.validator_value
            yield f"{path}: found {_shown(error.instance)}, allowed: {allowed if isinstance(allowed, str) else ' or '.join(allowed)}"
        case "enum":
            yield f"{path}: found {_shown(error.instance)}, allowed: {', '.join(map(str, error.validator_value))}"
        case "anyOf" if error.context and error.validator_value[0] == {"type": "null"}:
            for inner in error.context:
                if inner.schema_path[0] == 1:
                    yield from _lines(inner)
        case "oneOf" | "anyOf":
            ways = [each.get("required", each) for each in error.validator_value]
            yield f"{path}: found {_shown(error.instance)}, allowed: {'exactly ' if error.validator == 'oneOf' else ''}one of {ways}"
        case _:
            yield f"{path}: found {_shown(error.instance)}, allowed: {error.validator} {_shown(error.validator_value)}"


def _rules(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[_Rule]:
    """`x-kubernetes-validations` at every place of the document that has a schema."""
    for each in schema.get("x-kubernetes-validations", ()):
        yield _evaluated(each, value, path or "document")
    if isinstance(value, Mapping):
        further = schema.get("additionalProperties")
        for name, inner in value.items():
            below = schema.get("properties", {}).get(name, further)
            if isinstance(below, Mapping):
                yield from _rules(inner, below, _joined(path, str(name)))
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for at, inner in enumerate(value):
            yield from _rules(inner, schema["items"], f"{path}[{at}]")


def _evaluated(rule: Mapping[str, Any], value: Any, path: str) -> _Rule:
    from celpy import celtypes
    from celpy.adapter import json_to_cel

    from greenops_pipelines.supply_chain.cel_policy import evaluate

    text = rule["rule"]
    if "oldSelf" in text:
        return _Rule(path, unevaluated=f"{text}: it compares with what was there before")
    try:
        holds = evaluate(text, {"self": json_to_cel(value)})
    except ValueError as error:
        return _Rule(path, unevaluated=f"{text}: {error}")
    if isinstance(holds, celtypes.BoolType) and holds:
        return _Rule(path)
    return _Rule(path, fault=f"found {_shown(value)}, allowed: {rule.get('message') or text}")


def _path(steps: Iterable[object]) -> str:
    path = ""
    for step in steps:
        path = f"{path}[{step}]" if isinstance(step, int) else _joined(path, str(step))
    return path or "document"


def _joined(path: str, field: str) -> str:
    return field if path in ("", "document") else f"{path}.{field}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
