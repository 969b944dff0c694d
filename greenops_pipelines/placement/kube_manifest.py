"""A `batch/v1` Job for one attempt, as a document and as YAML.

The same attempt gives the same bytes and the same name, by which a worker finds its Job again. Every text of a submitter
is data in it: labels are made valid, `$` is not expanded, YAML is quoted. Not here: any cluster (`kube_api.py`), how a Job
ended (`kubernetes.py`).
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import yaml

from greenops_pipelines.errors import PermanentError
from greenops_pipelines.placement.launches import Launch
from greenops_pipelines.placement.requests import KubernetesRunner
from greenops_pipelines.redaction import one_line

CONTAINER = "work"
KEY = "greenops.io/key"
ATTEMPT = "greenops.io/attempt"
KEY_DIGEST = "greenops.io/key-digest"

GRACE_SECONDS = 30
"""Between SIGTERM and SIGKILL: Kubernetes' own default."""
KEPT_SECONDS = 7 * 24 * 3600
"""A Job outlives its end by a week. One that is gone counts as lost and is run again, so this outlasts any long weekend on
which nobody reads outcomes."""

_PREFIX_LENGTH = 36
_DIGEST_LENGTH = 16
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_REGION = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9./_-]*", re.ASCII)
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def runner_of(launch: Launch) -> KubernetesRunner:
    """The launch's runner; `PermanentError` where it is another kind's."""
    if not isinstance(launch.runner, KubernetesRunner):
        raise PermanentError(f"{shown(launch)}: runner: found kind {launch.runner.kind}, allowed here: kubernetes")
    return launch.runner


def shown(launch: Launch) -> str:
    """The attempt, in a message."""
    return f"{one_line(launch.key, 120)}, attempt {launch.attempt}"


def key_digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:_DIGEST_LENGTH]


def job_name(launch: Launch) -> str:
    """`<workload>-<digest of the key>-<attempt>`: a DNS label of at most 57 characters, room left for a pod's suffix."""
    readable = re.sub(r"[^a-z0-9]+", "-", launch.workload.lower()).strip("-")[:_PREFIX_LENGTH].strip("-")
    return f"{readable or 'work'}-{key_digest(launch.key)}-{launch.attempt}"


def selector(launch: Launch) -> str:
    """What its pods are found by, whether or not their Job is still there."""
    return f"{KEY_DIGEST}={key_digest(launch.key)},{ATTEMPT}={launch.attempt}"


def render(launch: Launch) -> dict[str, Any]:
    """The manifest. Raises `PermanentError` for another runner's launch, and for a region that is no label value.

    One pod, once: a launch has no width, and attempts are counted by the ledger, not by Kubernetes.
    """
    runner = runner_of(launch)
    if not _REGION.fullmatch(launch.region):
        raise PermanentError(f"{shown(launch)}: region: found {launch.region[:80]!r}, allowed: a region's name")
    labels = {
        "app.kubernetes.io/managed-by": "greenops",
        "greenops.io/workload": _label(launch.workload),
        "greenops.io/tenant": _label(launch.tenant),
        **({"greenops.io/service": _label(launch.service)} if launch.service else {}),
        "greenops.io/region": launch.region,
        "greenops.io/residency": _label(launch.residency),
        ATTEMPT: str(launch.attempt),
        KEY_DIGEST: key_digest(launch.key),
    }
    annotations = {
        KEY: launch.key,
        "greenops.io/zone": launch.zone,
        "greenops.io/deadline": launch.deadline.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "greenops.io/reason": one_line(launch.reason, 1000),
    }
    container = {
        "name": CONTAINER,
        "image": runner.image,
        **({"command": [_literal(part) for part in runner.command]} if runner.command else {}),
        "env": [{"name": name, "value": _literal(value)} for name, value in launch.variables.items()],
        # Neither runAsNonRoot nor dropped capabilities: half of all images break by them. A namespace that demands them
        # says so by its Pod Security level.
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(launch),
            "namespace": runner.namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "activeDeadlineSeconds": launch.limit_minutes * 60,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            # A pod that was evicted or whose node went did not fail: said by the Job itself, which outlives the pod.
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"labels": labels, "annotations": {KEY: launch.key}},
                "spec": {
                    "restartPolicy": "Never",
                    "nodeSelector": {"topology.kubernetes.io/region": launch.region},
                    "terminationGracePeriodSeconds": GRACE_SECONDS,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [container],
                },
            },
        },
    }


def as_yaml(manifest: dict[str, Any]) -> str:
    """One spelling of the manifest, read alike by YAML 1.1 and 1.2: every text that could be anything else is quoted."""
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def _label(text: str) -> str:
    """The text where it is a label's value, else what is valid of it and a digest of all."""
    if _LABEL.fullmatch(text):
        return text
    digest = key_digest(text)
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[: 62 - len(digest)].strip("-_.")
    return f"{kept}-{digest}" if kept else digest


def _literal(text: str) -> str:
    """Kubernetes expands $(NAME) in commands and values, and reads $$ as a dollar sign."""
    return text.replace("$", "$$")
