"""What a rendered `ImageValidatingPolicy` decides about a pod, without a cluster: its own CEL, keys, globs and messages.

Follows Kyverno 1.17 to 1.19 (pkg/cel/libs/imageverify, pkg/image/verification): images are pinned to what their tag points to
now, those that fit a glob are looked at, verifications count the attestors that verify, and a payload is that of the last
statement verified. What cannot be evaluated here is denied and named. Not here: the rules (`admission.py`), and the registry
(`admission_world.py`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

import yaml

from greenops_pipelines.errors import BadInput, GreenopsError
from greenops_pipelines.evidence.signing import PublicKey
from greenops_pipelines.supply_chain.oci import Reference, is_digest

_NAMESPACE = "kubernetes.io/metadata.name"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_UNDERSTOOD = (
    *("attestations", "attestors", "autogen", "evaluation", "failurePolicy", "matchConditions", "matchConstraints"),
    *("matchImageReferences", "validationActions", "validationConfigurations", "validations", "variables"),
    "webhookConfiguration",
)


class World(Protocol):
    """What there is in registries. Raises `GreenopsError` where it cannot be told."""

    def resolve(self, image: str) -> str:
        """The digest that the tag points to now."""
        ...

    def signatures(self, image: str, key_pem: str) -> int:
        """How many signatures over the image's digest verify with the key."""
        ...

    def attestations(self, image: str, predicate_type: str, key_pem: str) -> list[dict[str, Any]]:
        """In-toto statements of the type about the image's digest that verify with the key; the last one counts."""
        ...


@dataclass(frozen=True)
class Decision:
    """Whether every promise is kept. Kyverno shows the first message alone."""

    admitted: bool
    messages: tuple[str, ...]
    digests: Mapping[str, str] = field(default_factory=dict)
    """Image, as the pod names it, to the digest that was judged."""
    matched: bool = True
    """False: the policy has nothing to say about this pod."""
    enforced: bool = True
    """False: the policy only reports."""


class _Denied(Exception):
    """A policy or a pod that cannot be judged; the message says why."""


def decide(policy_yaml: str, pod: Mapping[str, Any], world: World, now: datetime) -> Decision:
    """What the policy makes of `pod` being created at `now` (aware). Never raises: whatever goes wrong is a denial."""
    enforced = True
    try:
        policy = _read(policy_yaml)
        enforced = "Deny" in policy.spec["validationActions"]
        decision = _Evaluation(policy, world, now).decision(pod)
    except _Denied as denied:
        decision = Decision(False, (str(denied),))
    except Exception as error:  # noqa: BLE001 - whatever a world, a policy or a pod brings up must not admit
        decision = Decision(False, (_line(error),))
    return replace(decision, enforced=enforced)


def evaluate(text: str, variables: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]] | None = None) -> Any:
    """The CEL value of `text`; `ValueError` where it does not compile or does not evaluate."""
    try:
        return _environment().program(_compiled(text), functions=dict(functions or {})).evaluate(dict(variables))
    except Exception as error:  # noqa: BLE001 - cel-python raises lark's errors, KeyError and RecursionError too
        raise ValueError(_line(error)) from None


@lru_cache(maxsize=1)
def _environment() -> Any:
    from celpy import Environment

    limit = sys.getrecursionlimit()
    try:
        return Environment()
    finally:
        sys.setrecursionlimit(limit)  # it sets the process's own to 2500


@lru_cache(maxsize=256)
def _compiled(text: str) -> Any:
    """A syntax tree, which evaluation only reads."""
    return _environment().compile(text)


@dataclass(frozen=True)
class _Policy:
    spec: Mapping[str, Any]
    keys: Mapping[str, str]
    types: Mapping[str, str]
    globs: tuple[re.Pattern[str], ...]

    def fits(self, image: str) -> bool:
        """As Kyverno compares: the whole image as it is written, * and ? across slashes; no glob fits everything."""
        return not self.globs or any(glob.fullmatch(image) for glob in self.globs)

    def wants(self, what: str) -> bool:
        return self.spec.get("validationConfigurations", {}).get(what, True) is not False


def _read(text: str) -> _Policy:
    document = yaml.safe_load(text)
    if not isinstance(document, dict) or document.get("kind") != "ImageValidatingPolicy":
        raise _Denied("policy: found no ImageValidatingPolicy")
    spec = document["spec"]
    if unknown := set(spec) - {*_UNDERSTOOD}:
        raise _Denied(f"policy: spec.{min(unknown)} cannot be evaluated here")
    if spec.get("failurePolicy", "Fail") != "Fail":
        raise _Denied(
            f"policy: failurePolicy: found {spec['failurePolicy']!r}, allowed: Fail; it would admit on errors"
        )
    if spec.get("evaluation", {}).get("mode", "Kubernetes") != "Kubernetes":
        raise _Denied("policy: spec.evaluation.mode: allowed: Kubernetes")
    expressions = [
        *(
            each["expression"]
            for part in ("variables", "validations", "matchConditions")
            for each in spec.get(part, ())
        ),
        *(each["messageExpression"] for each in spec["validations"] if "messageExpression" in each),
    ]
    for expression in expressions:
        try:
            _compiled(expression)
        except Exception as error:  # noqa: BLE001 - lark's errors are no one's subclass
            raise _Denied(f"policy: CEL does not compile: {_line(error)}: {expression[:80]}") from None
    return _Policy(
        spec,
        dict(map(_attestor, spec.get("attestors", ()))),
        dict(map(_attestation, spec.get("attestations", ()))),
        tuple(map(_glob, spec.get("matchImageReferences", ()))),
    )


def _attestor(found: Mapping[str, Any]) -> tuple[str, str]:
    name = found["name"]
    match found:
        case {
            "name": str(),
            "cosign": {"key": {"data": str(pem), **options}, "ctlog": {"insecureIgnoreTlog": True}, **rest},
        }:
            if rest or options.keys() - {"hashAlgorithm"} or options.get("hashAlgorithm", "sha256") != "sha256":
                raise _Denied(f"attestor {name}: allowed here: a key alone, with sha256")
        case _:
            raise _Denied(f"attestor {name}: allowed here: cosign with key.data and no transparency log")
    try:
        key = PublicKey.parse(pem.encode())
    except ValueError as error:
        raise _Denied(f"attestor {name}: {error}") from None
    if key.pem.decode().strip() != pem.strip():
        # Line breaks, and text before it, may differ in the same key: a text that nobody rendered is not trusted.
        raise _Denied(f"attestor {name}: found a key that is not in its canonical PEM form")
    return name, pem


def _attestation(found: Mapping[str, Any]) -> tuple[str, str]:
    match found:
        case {"name": str(name), "intoto": {"type": str(kind)}, **rest} if not rest:
            return name, kind
    raise _Denied(f"attestation {found.get('name')}: allowed here: intoto with a type")


def _glob(found: Mapping[str, Any]) -> re.Pattern[str]:
    match found:
        case {"glob": str(glob), **rest} if not rest and not re.search(r"[\[\]{}\\!]", glob):
            return re.compile(re.escape(glob).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
    raise _Denied(f"matchImageReferences: found {dict(found)}, allowed here: globs of * and ?")


class _Evaluation:
    """One pod under one policy. Holds what has been verified so far, as Kyverno does within a request."""

    def __init__(self, policy: _Policy, world: World, now: datetime) -> None:
        from celpy import celtypes
        from celpy.adapter import json_to_cel
        from celpy.evaluation import CELEvalError

        self._policy, self._world, self._now = policy, world, now
        self._payloads: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._verified: set[str] = set()
        self._types, self._to_cel, self._error = celtypes, json_to_cel, CELEvalError
        self._functions = {
            "verifyImageSignatures": self._guarded(self._signatures),
            "verifyAttestationSignatures": self._guarded(self._attestations),
            "extractPayload": self._guarded(self._payload),
            "timestamp": self._guarded(self._timestamp),
            "now": self._guarded(self._time_now),
            "join": self._guarded(self._join),
        }

    def decision(self, pod: Mapping[str, Any]) -> Decision:
        if not (self._selects(pod) and self._applies(pod)):
            return Decision(True, ("the policy is not about this pod",), matched=False)
        images, digests = self._images(pod)
        pinned = [image for each in images.values() for image in each]
        if not pinned:
            return Decision(True, ("no image fits a glob of the policy: it says nothing about them",), matched=False)
        if self._policy.wants("verifyDigest") and (loose := [each for each in pinned if "@" not in each]):
            return Decision(False, tuple(f"{each}: has no digest" for each in loose), digests)
        data: dict[str, Any] = {
            "images": self._to_cel(images),
            "attestors": self._to_cel({name: name for name in self._policy.keys}),
            "attestations": self._to_cel({name: name for name in self._policy.types}),
            "object": self._to_cel(dict(pod)),
            "time": self._types.StringType("time"),
        }
        data["variables"] = self._lazily(data)
        broken = [self._broken(each, data) for each in self._policy.spec["validations"]]
        messages = [message for message in broken if message is not None]
        if not messages and self._policy.wants("required"):
            messages = [
                f"{each}: no validation verified anything of it" for each in pinned if each not in self._verified
            ]
        return Decision(not messages, tuple(messages), digests)

    def _lazily(self, data: Mapping[str, Any]) -> Any:
        """The policy's variables, each evaluated when it is first asked for: one that nobody asks for verifies nothing."""
        texts = {each["name"]: each["expression"] for each in self._policy.spec.get("variables", ())}
        functions, failed = self._functions, self._error

        class Variables(self._types.MapType):  # type: ignore[misc,name-defined]
            def __missing__(self, name: str) -> Any:
                self[name] = failed(f"variable {name}: refers to itself")
                try:
                    self[name] = evaluate(texts[name], data, functions)
                except ValueError as error:
                    self[name] = failed(f"variable {name}: {error}")
                return self[name]

        return Variables()

    def _broken(self, validation: Mapping[str, Any], data: Mapping[str, Any]) -> str | None:
        """The message of a validation that is anything but true."""
        text = validation.get("message") or f"CEL expression is not true: {validation['expression']}"
        try:
            held = evaluate(validation["expression"], data, self._functions)
        except ValueError as error:
            return f"{text} ({error})"
        if not isinstance(held, self._types.BoolType):
            return f"{text} (the expression is {type(held).__name__}, and no boolean)"
        if held:
            return None
        if "messageExpression" not in validation:
            return str(text)
        try:
            return str(evaluate(validation["messageExpression"], data, self._functions)) or str(text)
        except ValueError as error:
            return f"{text} (failed to evaluate message expression: {error})"

    def _selects(self, pod: Mapping[str, Any]) -> bool:
        constraints = self._policy.spec["matchConstraints"]
        if unknown := set(constraints) - {"resourceRules", "namespaceSelector", "matchPolicy"}:
            raise _Denied(f"policy: matchConstraints.{min(unknown)} cannot be evaluated here")
        namespace = pod.get("metadata", {}).get("namespace") or "default"
        selector = constraints.get("namespaceSelector", {})
        for each in selector.get("matchExpressions", ()):
            if (
                set(selector) != {"matchExpressions"}
                or each["key"] != _NAMESPACE
                or each["operator"] not in ("In", "NotIn")
            ):
                raise _Denied(f"policy: namespaceSelector: allowed here: In and NotIn of {_NAMESPACE}")
            if (namespace in each["values"]) != (each["operator"] == "In"):
                return False
        return any(
            {"pods", "*"} & set(rule["resources"]) and {"CREATE", "*"} & set(rule["operations"])
            for rule in constraints["resourceRules"]
        )

    def _applies(self, pod: Mapping[str, Any]) -> bool:
        request = {"operation": "CREATE", "namespace": pod.get("metadata", {}).get("namespace") or "default"}
        data = {"object": self._to_cel(dict(pod)), "oldObject": None, "request": self._to_cel(request)}
        for each in self._policy.spec.get("matchConditions", ()):
            try:
                held = evaluate(each["expression"], data, self._functions)
            except ValueError as error:
                raise _Denied(f"match condition {each.get('name')}: {error}") from None
            if not isinstance(held, self._types.BoolType):
                raise _Denied(f"match condition {each.get('name')}: found no boolean")
            if not held:
                return False
        return True

    def _images(self, pod: Mapping[str, Any]) -> tuple[dict[str, list[str]], dict[str, str]]:
        """What Kyverno hands to CEL, by kind of container, after it has pinned tags; and the digests by image as written."""
        found: dict[str, list[str]] = {}
        digests: dict[str, str] = {}
        for kind, written in _written(pod):
            found.setdefault(kind, [])
            if written is None:
                continue
            try:
                reference = Reference.parse(written)
                image = written
                if not reference.digest and self._policy.wants("mutateDigest"):
                    image = str(reference) if reference.tag else f"{reference}:latest"
                if not self._policy.fits(image):
                    continue
                digest = reference.digest or self._world.resolve(image)
            except GreenopsError as error:
                raise _Denied(f"{written}: {error}") from None
            if not is_digest(digest):
                raise _Denied(f"{written}: found {str(digest)[:80]!r} as its digest")
            pinned = image if reference.digest or not self._policy.wants("mutateDigest") else f"{image}@{digest}"
            if self._policy.fits(pinned):
                found[kind].append(pinned)
                digests[written] = digest
        return found, digests

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Whatever goes wrong inside is an error of CEL's own. A StopIteration would end `.all()` early, and so admit."""

        def guarded(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except Exception as error:  # noqa: BLE001
                raise self._error(_line(error)) from None

        return guarded

    def _signatures(self, image: str, attestors: Sequence[str]) -> Any:
        def verifies(pem: str) -> bool:
            count = self._world.signatures(str(image), pem)
            if type(count) is not int or count < 0:
                raise BadInput(f"{image}: found {count!r} as a number of signatures")
            return count > 0

        return self._counted(str(image), attestors, verifies)

    def _attestations(self, image: str, name: str, attestors: Sequence[str]) -> Any:
        kind = self._policy.types[str(name)]

        def verifies(pem: str) -> bool:
            statements = self._world.attestations(str(image), kind, pem)
            right = [each for each in statements if each["predicateType"] == kind]
            if right:
                self._payloads[str(image), kind] = right[-1]
            return bool(right)

        return self._counted(str(image), attestors, verifies)

    def _counted(self, image: str, attestors: Sequence[str], verifies: Callable[[str], bool]) -> Any:
        """How many attestors verify: what Kyverno returns, and not how many signatures there are."""
        if not self._policy.fits(image):
            return self._types.IntType(0)
        count = sum([verifies(self._policy.keys[str(name)]) for name in attestors])
        if count:
            self._verified.add(image)
        return self._types.IntType(count)

    def _payload(self, image: str, name: str) -> Any:
        said = self._payloads.get((str(image), self._policy.types[str(name)]))
        if said is None:
            raise BadInput(f"{image}: extractPayload before a verification of {name}")
        return self._as_go(said)

    def _as_go(self, value: object) -> Any:
        """JSON as Kyverno's Go hands it to CEL: every number is a double."""
        match value:
            case bool() | str() | None:
                return self._to_cel(value)
            case int() | float():
                return self._types.DoubleType(value)
            case Mapping():
                return self._types.MapType({self._types.StringType(str(k)): self._as_go(v) for k, v in value.items()})
            case list():
                return self._types.ListType([self._as_go(each) for each in value])
        raise BadInput(f"statement: found {type(value).__name__}, allowed: JSON")

    def _timestamp(self, value: Any) -> Any:
        # cel-python's own also reads dates, and times of no zone, which CEL in Go refuses.
        if isinstance(value, self._types.TimestampType):
            return value
        if not isinstance(value, self._types.StringType) or not _INSTANT.fullmatch(value):
            raise BadInput(f"timestamp: found {str(value)[:40]!r}, allowed: an instant by RFC 3339")
        return self._types.TimestampType(value)

    def _time_now(self, library: Any) -> Any:
        if library != "time":
            raise BadInput("now(): allowed: time.now()")
        return self._types.TimestampType(self._now)

    def _join(self, texts: Sequence[str], separator: str = "") -> Any:
        return self._types.StringType(str(separator).join(map(str, texts)))


def _written(pod: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Kind and image of every container and image volume, as written; each kind once with None, for there may be none."""
    spec = pod["spec"]
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        yield kind, None
        for each in spec.get(kind) or ():
            yield kind, _text(each["image"])
    yield "imageVolumes", None
    for each in spec.get("volumes") or ():
        if "image" in each:
            yield "imageVolumes", _text(each["image"]["reference"])


def _text(image: object) -> str:
    if not isinstance(image, str) or not image:
        raise _Denied(f"pod: found {image!r} as an image")
    return image


def _line(error: Exception) -> str:
    """One line of what went wrong; cel-python appends everything it knows."""
    text = str(error.args[0]) if error.args else ""
    text = " ".join(text.partition(" (in activation")[0].split())[:200]
    told = isinstance(error, GreenopsError) or type(error).__name__ == "CELEvalError"
    return text if text and told else f"{type(error).__name__}: {text}".removesuffix(": ")
