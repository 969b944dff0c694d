"""Files wrapped into a ConfigMap, for those who bring SLO definitions to a cluster that way. Not here: the files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.yaml_go import scalar

MAX_BYTES = 1024 * 1024
"""What Kubernetes takes in one ConfigMap."""
_PART = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOMAIN = rf"(?=[^/]{{1,253}}(/|$)){_PART}(\.{_PART})*"
_NAMES = {
    "name": (_DOMAIN, "lower-case letters, digits, - and ., at most 253, a DNS name"),
    "namespace": (r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "lower-case letters, digits and -, at most 63"),
    "file": (
        r"(?!\.{1,2}$|\.\.)[-._a-zA-Z0-9]{1,253}",
        "letters, digits, -, _ and ., at most 253, not beginning with ..",
    ),
    "label": (
        rf"({_DOMAIN}/)?[a-zA-Z0-9]([-._a-zA-Z0-9]{{0,61}}[a-zA-Z0-9])?",
        "a name of at most 63 letters, digits, -, _ and ., after a DNS name and / if any",
    ),
    "label's value": (
        r"([a-zA-Z0-9]([-._a-zA-Z0-9]{0,61}[a-zA-Z0-9])?)?",
        "at most 63 letters, digits, -, _ and ., a letter or digit first and last",
    ),
}
"""What Kubernetes takes, k8s.io/apimachinery/pkg/util/validation: as an expression, and in words."""


def configmap(name: str, files: Mapping[str, str], namespace: str = "", labels: Mapping[str, str] | None = None) -> str:
    """The object as YAML; each file is one key. `BadInput` for names Kubernetes refuses, and for more than 1 MiB.

    From 256 KiB on, `kubectl apply` needs `--server-side`: it keeps a copy in an annotation otherwise.
    """
    labels = labels or {}
    _check("name", [name], name)
    _check("namespace", [namespace] if namespace else [], name)
    _check("file", files, name)
    _check("label", labels, name)
    _check("label's value", labels.values(), name)
    size = sum(len(key.encode()) + len(text.encode()) for key, text in files.items())
    if size > MAX_BYTES:
        raise BadInput(f"ConfigMap {name}: found {size:,} bytes, allowed: at most {MAX_BYTES:,}")
    lines = ["apiVersion: v1", "data:" if files else "data: {}"]
    for key in sorted(files):
        shown = f"  {scalar(key, 2, 0)}: "
        lines.append(shown + scalar(files[key], len(shown), 2))
    lines += ["kind: ConfigMap", "metadata:"]
    if labels:
        lines.append("  labels:")
        shown_keys = {key: f"    {scalar(key, 4, 0)}: " for key in sorted(labels)}
        lines += [shown + scalar(labels[key], len(shown), 4) for key, shown in shown_keys.items()]
    lines.append(f"  name: {scalar(name, 8, 2)}")
    if namespace:
        lines.append(f"  namespace: {scalar(namespace, 13, 2)}")
    return "\n".join(lines) + "\n"


def _check(kind: str, found: Iterable[str], name: str) -> None:
    form, allowed = _NAMES[kind]
    for text in found:
        if not re.fullmatch(form, text, re.ASCII):
            place = "ConfigMap" if kind == "name" else f"ConfigMap {name}"
            raise BadInput(f"{place}: found the {kind} {text[:80]!r}, allowed: {allowed}")
