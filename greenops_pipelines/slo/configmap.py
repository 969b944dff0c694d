"""Files wrapped into a ConfigMap, for those who bring SLO definitions to a cluster that way. Not here: the files."""

from __future__ import annotations

import re
from collections.abc import Mapping

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.yaml_go import scalar

MAX_BYTES = 1024 * 1024
"""What Kubernetes takes in one ConfigMap."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}", re.ASCII)


def configmap(name: str, files: Mapping[str, str], namespace: str = "", labels: Mapping[str, str] | None = None) -> str:
    """The object as YAML; each file is one key. `BadInput` for names Kubernetes refuses, and for more than 1 MiB."""
    for found, form in (
        (name, _NAME),
        *((namespace, _NAME) for _ in range(bool(namespace))),
        *((k, _KEY) for k in files),
    ):
        if not form.fullmatch(found):
            raise BadInput(f"ConfigMap {name}: found the name {found[:80]!r}, allowed: letters, digits, . and -")
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
        lines += [f"    {key}: {scalar(labels[key], len(key) + 6, 4)}" for key in sorted(labels)]
    lines.append(f"  name: {scalar(name, 8, 2)}")
    if namespace:
        lines.append(f"  namespace: {scalar(namespace, 13, 2)}")
    return "\n".join(lines) + "\n"
