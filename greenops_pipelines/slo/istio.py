"""Istio's VirtualService and DestinationRule, as far as a canary needs them: networking.istio.io/v1.

Source: Istio's API reference, networking, VirtualService and DestinationRule; fields that are not here are left to
Istio's defaults. Not here: who changes the weights (the rollouts controller), and which services there are (`rollouts.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from greenops_pipelines.errors import BadInput

API = "networking.istio.io/v1"
MESH = "mesh"
"""Istio's name for the sidecars of all workloads."""


@dataclass(frozen=True)
class Destination:
    """A Service, one of its subsets, and its port."""

    host: str
    subset: str
    port: int

    def document(self) -> dict[str, Any]:
        return {"host": self.host, "subset": self.subset, "port": {"number": self.port}}


@dataclass(frozen=True)
class Route:
    """A named HTTP route over destinations weighted in percent, and how long a request may take (`15s`).

    `BadInput` where the weights are not 100 together.
    """

    name: str
    destinations: tuple[tuple[Destination, int], ...]
    timeout: str

    def __post_init__(self) -> None:
        weights = [weight for _, weight in self.destinations]
        if sum(weights) != 100 or min(weights) < 0:
            raise BadInput(f"route {self.name}: found the weights {weights}, allowed: none below 0, 100 together")

    def document(self) -> dict[str, Any]:
        route = [{"destination": destination.document(), "weight": weight} for destination, weight in self.destinations]
        return {"name": self.name, "route": route, "timeout": self.timeout}


@dataclass(frozen=True)
class VirtualService:
    """Requests for `hosts`, as seen by `gateways` (empty: the mesh's sidecars alone)."""

    name: str
    namespace: str
    hosts: tuple[str, ...]
    http: tuple[Route, ...]
    gateways: tuple[str, ...] = ()

    def document(self, labels: Mapping[str, str]) -> dict[str, Any]:
        spec: dict[str, Any] = {"hosts": list(self.hosts)}
        if self.gateways:
            spec["gateways"] = list(self.gateways)
        spec["http"] = [route.document() for route in self.http]
        return _object("VirtualService", self.name, self.namespace, labels, spec)


@dataclass(frozen=True)
class Subset:
    """The pods of a host that bear these labels."""

    name: str
    labels: Mapping[str, str]

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "labels": dict(self.labels)}


@dataclass(frozen=True)
class DestinationRule:
    """The subsets of a host. `BadInput` for a name given twice: Istio would take one of them."""

    name: str
    namespace: str
    host: str
    subsets: tuple[Subset, ...]

    def __post_init__(self) -> None:
        names = [subset.name for subset in self.subsets]
        if len(set(names)) != len(names):
            raise BadInput(f"DestinationRule {self.name}: found the subsets {names}, allowed: each name once")

    def document(self, labels: Mapping[str, str]) -> dict[str, Any]:
        spec = {"host": self.host, "subsets": [subset.document() for subset in self.subsets]}
        return _object("DestinationRule", self.name, self.namespace, labels, spec)


def _object(kind: str, name: str, namespace: str, labels: Mapping[str, str], spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": dict(labels)}
    return {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": dict(spec)}
