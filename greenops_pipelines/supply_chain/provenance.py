"""SLSA provenance v1: what is known of a build, from the CI system's own variables; and the build level it supports.

What is stated here was gathered inside the build, by whoever runs it, so it is of build level 1 whatever the machine: levels
2 and 3 are properties of a builder whose control plane signs the provenance itself (SLSA 1.1, "Security levels"). Such
a builder is declared in ops/images.yaml with its key. Not here: signing.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.evidence.statement import time_text
from greenops_pipelines.supply_chain.attach import Attached
from greenops_pipelines.supply_chain.attestations import PROVENANCE
from greenops_pipelines.supply_chain.declared import TrustedBuilder

LOCAL_BUILDER = "https://greenops-pipelines.example/builder/local/v1"
"""Whatever machine this runs on, outside any CI system that is known here."""
OWN_BUILD_TYPE = "https://greenops-pipelines.example/build/embedded/v1"
UNSTATED_BUILD_TYPE = "https://greenops-pipelines.example/build/unstated/v1"
GITHUB_BUILD_TYPE = "https://actions.github.io/buildtypes/workflow/v1"
_GITLAB_BUILD_TYPE = "https://docs.gitlab.com/ci/pipelines/provenance_attestation/v1"
_JENKINS_BUILD_TYPE = "https://greenops-pipelines.example/build/jenkins/v1"
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHORT_SSH = re.compile(r"([\w.-]+@)?(?P<host>[\w.-]+):(?P<path>[\w./~-]+)")
_GIT_SECONDS = 10


@dataclass(frozen=True)
class Build:
    """What a CI system says of the build under way."""

    build_type: str
    builder: str
    invocation: str
    external: Mapping[str, Any]
    internal: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    """git+https://host/owner/repository@ref; empty where it is not known."""
    commit: str = ""

    @property
    def is_ci(self) -> bool:
        return self.builder != LOCAL_BUILDER


def from_environment(environment: Mapping[str, str], folder: Path | None = None) -> Build:
    """The build by the variables of GitHub Actions, GitLab CI or Jenkins; else by the git repository in `folder`."""
    if environment.get("GITHUB_ACTIONS") == "true":
        return _github(environment)
    if environment.get("GITLAB_CI") == "true":
        return _gitlab(environment)
    if environment.get("JENKINS_URL"):
        return _jenkins(environment)
    commit, is_dirty = _git(folder or Path.cwd())
    internal = {"uncommittedChanges": is_dirty} if commit else {}
    return Build(UNSTATED_BUILD_TYPE, LOCAL_BUILDER, "", {}, internal, "", commit)


def own(folder: Path) -> Build:
    """Of what this project builds itself, here and now, from the installed packages; `folder` may be a git repository."""
    commit, is_dirty = _git(folder)
    internal = {"uncommittedChanges": is_dirty} if commit else {}
    return Build(OWN_BUILD_TYPE, LOCAL_BUILDER, "", {}, internal, "", commit)


def predicate(
    build: Build, started: datetime | None, finished: datetime, parameters: Mapping[str, str]
) -> dict[str, Any]:
    """The predicate of `PROVENANCE`. `parameters` are further external parameters. Of variables only those named above."""
    metadata: dict[str, Any] = {"finishedOn": time_text(finished)}
    if build.invocation:
        metadata["invocationId"] = build.invocation
    if started is not None:
        metadata["startedOn"] = time_text(started)
    dependencies = []
    if build.commit:
        dependencies.append({"uri": build.source or "git+local", "digest": {"gitCommit": build.commit}})
    return {
        "buildDefinition": {
            "buildType": build.build_type,
            "externalParameters": {**build.external, **parameters},
            "internalParameters": dict(build.internal),
            "resolvedDependencies": dependencies,
        },
        "runDetails": {"builder": {"id": build.builder}, "metadata": metadata},
    }


@dataclass(frozen=True)
class Level:
    """The SLSA build level of an image, whose word it is, and why it is not a higher one."""

    level: int
    builder: str
    reason: str


def builder_of(statement: Mapping[str, Any]) -> str:
    """`runDetails.builder.id` of a provenance's predicate; empty where it has none."""
    match statement:
        case {"runDetails": {"builder": {"id": str(builder)}}}:
            return builder
    return ""


def level(found: Sequence[Attached], builders: Sequence[TrustedBuilder]) -> Level:
    """The highest level that a verified provenance supports. `found` is verified against our keys and the builders'."""
    levels = [level_of(each, builders) for each in found if each.predicate_type == PROVENANCE]
    none = Level(0, "", "no provenance that verifies is attached")
    return max(levels, key=lambda each: each.level, default=none)


def level_of(attached: Attached, builders: Sequence[TrustedBuilder]) -> Level:
    """Of one verified provenance. A builder's level is granted for its own key alone: anyone may write its name."""
    assert attached.statement is not None  # noqa: S101 (a provenance that does not verify has no type)
    claimed = builder_of(attached.statement.predicate)
    if not claimed:
        return Level(0, "", "the provenance names no builder")
    keyid = attached.statement.key.keyid
    if claimed not in (names := [each.id for each in builders if each.key and each.key.keyid == keyid]) and names:
        return Level(0, "", f"signed with the key of {names[0]}, and says that {claimed[:100]} built it")
    for builder in builders:
        if builder.key and builder.id == claimed and builder.key.keyid == keyid:
            what = (
                "isolated, and signs its own provenance"
                if builder.level == 3
                else "hosted, and signs its own provenance"
            )
            return Level(builder.level, claimed, f"by declaration this builder is {what}")
    return Level(1, claimed, "stated and signed inside the build, not by an isolated builder's control plane")


def _github(environment: Mapping[str, str]) -> Build:
    def said(name: str) -> str:
        return environment.get(f"GITHUB_{name}", "")

    server, repository, ref = said("SERVER_URL") or "https://github.com", said("REPOSITORY"), said("REF")
    workflow = said("WORKFLOW_REF").removeprefix(f"{repository}/").partition("@")
    hosted = environment.get("RUNNER_ENVIRONMENT", "")
    return Build(
        GITHUB_BUILD_TYPE,
        f"{server.replace('https://github.com', 'https://github.com/actions/runner')}/{hosted or 'unknown'}",
        f"{server}/{repository}/actions/runs/{said('RUN_ID')}/attempts/{said('RUN_ATTEMPT') or '1'}",
        {"workflow": {"ref": workflow[2] or ref, "repository": f"{server}/{repository}", "path": workflow[0]}},
        {
            "github": {
                "event_name": said("EVENT_NAME"),
                "repository_id": said("REPOSITORY_ID"),
                "repository_owner_id": said("REPOSITORY_OWNER_ID"),
                "runner_environment": hosted,
            }
        },
        f"git+{server}/{repository}@{ref}",
        _commit(said("SHA")),
    )


def _gitlab(environment: Mapping[str, str]) -> Build:
    def said(name: str) -> str:
        return environment.get(f"CI_{name}", "")

    return Build(
        _GITLAB_BUILD_TYPE,
        f"{said('SERVER_URL')}/-/runners/{said('RUNNER_ID')}",
        said("JOB_URL"),
        {"source": said("PROJECT_URL"), "entryPoint": said("JOB_NAME")},
        {"architecture": said("RUNNER_EXECUTABLE_ARCH"), "job": said("JOB_ID"), "pipeline": said("PIPELINE_ID")},
        f"git+{said('PROJECT_URL')}@{said('COMMIT_REF_NAME')}",
        _commit(said("COMMIT_SHA")),
    )


def _jenkins(environment: Mapping[str, str]) -> Build:
    url = _without_secret(environment.get("GIT_URL", ""))
    return Build(
        _JENKINS_BUILD_TYPE,
        _without_secret(environment["JENKINS_URL"]),
        _without_secret(environment.get("BUILD_URL", "")),
        {"job": environment.get("JOB_NAME", "")},
        {"node": environment.get("NODE_NAME", "")},
        f"git+{url}@{environment.get('GIT_BRANCH', '')}" if url else "",
        _commit(environment.get("GIT_COMMIT", "")),
    )


def _without_secret(url: str) -> str:
    """The address without user, password, query and fragment; empty where an @ is left that a secret may stand before."""
    if "://" not in url and (short := _SHORT_SSH.fullmatch(url)):
        return f"ssh://{short['host']}/{short['path']}"
    bare = re.sub(r"//[^/]*@", "//", re.sub(r"[?#].*", "", url))
    return "" if "@" in bare else bare


def _commit(text: str) -> str:
    return text if _COMMIT.fullmatch(text) else ""


def _git(folder: Path) -> tuple[str, bool]:
    """The commit that is checked out in `folder`, and whether files of it were changed; empty where there is no git."""
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        head, status = (
            subprocess.run(
                ["git", "-C", str(folder), *command],
                capture_output=True,
                text=True,
                timeout=_GIT_SECONDS,
                env=environment,
                check=True,
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return "", False
    return _commit(head), bool(status)
